// Each fault kind as the bus shows it, with the raw driver: which bits of the controller, which R1, which bytes; that it
// strikes at the match it was told and no other; and that nothing is left of it when the plan is over.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { FaultPlan } from "../host/core/faults.js";
import type { Timing } from "../host/core/profile.js";
import { Bus, INT, note, PRESENT, pattern, R1, same, stateOf } from "./bus.js";

const KINDS = ["emmc", "sd"] as const;
const PROGRAM_NS = 50_000_000;
const CC_ERROR = 1 << 20;
const LOCKED = 1 << 25;
let cases = 0;

function opened(card: "emmc" | "sd", timing: Partial<Timing> = {}): Bus {
  const bus = new Bus({ card, timing }).open();
  bus.preset(0, pattern(64, 5));
  return bus;
}

function stored(lba: number): Uint8Array {
  return pattern(64, 5).subarray(lba * 512, lba * 512 + 512);
}

/** The card works as if nothing had been. */
function works(bus: Bus, what: string): void {
  bus.clearFaults();
  bus.resetLines();
  bus.awaitTran();
  assert.is(bus.writeBlocks(60, pattern(1, 77)).errors, 0, what);
  bus.awaitTran();
  same(bus.readBlocks(60, 1).data, pattern(1, 77), what);
  cases++;
}

for (const card of KINDS) {
  const name = (what: string) => `${card}: ${what}`;

  test(name("bit-rot: wrong bytes, right CRC, once; the medium is untouched"), () => {
    const bus = opened(card);
    bus.fault({ kind: "bit-rot", firstLba: 9, lastLba: 9, skip: 1, times: 1 });
    same(bus.readBlocks(9, 1).data, stored(9), "the first read passes");
    const rotten = bus.readBlocks(9, 1);
    assert.is(rotten.errors, 0);
    const wrong = rotten.data.filter((byte, at) => byte !== stored(9)[at]);
    assert.is(wrong.length, 1);
    same(bus.stored(9), stored(9), "the medium");
    same(bus.readBlocks(9, 1).data, stored(9), "the third");
    works(bus, "bit-rot");
  });

  test(name("bad-after-stop: only the read behind a CMD12, and only its first block"), () => {
    const bus = opened(card);
    bus.fault({ kind: "bad-after-stop" });
    same(bus.readBlocks(4, 1).data, stored(4), "no CMD12 before");
    bus.readBlocks(8, 2);
    bus.must(12, 0);
    const bad = bus.readBlocks(4, 2);
    bus.must(12, 0);
    assert.is(bad.errors, 0);
    assert.not(Buffer.compare(bad.data.subarray(0, 512), stored(4)) === 0, "the first block is bad");
    same(bad.data.subarray(512), stored(5), "the second is not");
    works(bus, "bad-after-stop");
  });

  test(name("latent-read: CARD_ECC_FAILED until it is written"), () => {
    const bus = opened(card);
    bus.fault({ kind: "latent-read", firstLba: 9, lastLba: 9, times: 1 });
    for (let i = 0; i < 2; i++) {
      assert.is(bus.readBlocks(9, 1).errors & INT.dataTimeout, INT.dataTimeout);
      bus.resetLines();
      assert.is(bus.awaitTran() & R1.eccFailed, R1.eccFailed, `read ${i}`);
    }
    bus.writeBlocks(9, pattern(1, 3));
    bus.awaitTran();
    same(bus.readBlocks(9, 1).data, pattern(1, 3), "written");
    works(bus, "latent-read");
  });

  test(name("slow-read: the data timeout if it is later than that, else just late"), () => {
    const bus = opened(card);
    bus.fault({ kind: "slow-read", delayUs: 500_000, times: 1 });
    const start = bus.nowNs;
    same(bus.readBlocks(9, 1).data, stored(9), "late");
    assert.ok(bus.nowNs - start >= 500_000_000);
    bus.fault({ kind: "slow-read", delayUs: 3_000_000, times: 1 });
    assert.is(bus.readBlocks(9, 1).errors & INT.dataTimeout, INT.dataTimeout);
    assert.is(stateOf(bus.status()), "data", "the card is still looking for it");
    bus.must(12, 0);
    works(bus, "slow-read");
  });

  test(name("long-busy: the data timeout, and later it ends by itself"), () => {
    const bus = opened(card);
    bus.fault({ kind: "long-busy", delayUs: 3_000_000, times: 1 });
    assert.is(bus.writeBlocks(9, pattern(1)).errors & INT.dataTimeout, INT.dataTimeout);
    bus.resetLines();
    assert.is(stateOf(bus.status()), "prg");
    assert.is(bus.present & PRESENT.dat0, 0);
    bus.idle(2_000_000_000);
    assert.is(stateOf(bus.status()), "tran");
    same(bus.stored(9), pattern(1), "and the sector is there");
    works(bus, "long-busy");
  });

  test(name("late-busy: DAT0 is high first, then low, and the controller has seen no busy"), () => {
    const bus = opened(card, { programNs: PROGRAM_NS });
    bus.fault({ kind: "late-busy", delayUs: 1000, times: 1 });
    assert.is(bus.writeBlocks(9, pattern(1)).errors, 0, "transfer complete");
    assert.is(bus.present & PRESENT.dat0, PRESENT.dat0, "high");
    assert.is(stateOf(bus.status()), "prg", "CMD13 knows better");
    bus.idle(1_000_000);
    assert.is(bus.present & PRESENT.dat0, 0, "low");
    bus.idle(PROGRAM_NS);
    assert.is(bus.present & PRESENT.dat0, PRESENT.dat0, "over");
    same(bus.stored(9), pattern(1), "stored");
    works(bus, "late-busy");
  });

  test(name("long-r1b: busy behind a command, with or without one of its own"), () => {
    const bus = opened(card);
    bus.fault({ kind: "long-r1b", command: 38, delayUs: 400_000, times: 1 });
    bus.must(bus.isEmmc ? 35 : 32, 1);
    bus.must(bus.isEmmc ? 36 : 33, 1);
    const start = bus.nowNs;
    bus.must(38, bus.isEmmc ? 1 : 0, "r1b");
    bus.awaitBusy();
    assert.ok(bus.nowNs - start >= 400_000_000 && bus.nowNs - start < 410_000_000);
    bus.fault({ kind: "long-r1b", command: 12, delayUs: 400_000, times: 1 });
    bus.readBlocks(4, 2);
    bus.must(12, 0, "r1b");
    assert.is(stateOf(bus.status()), "prg");
    bus.awaitBusy();
    works(bus, "long-r1b");
  });

  test(name("wrong-index: the index error, and the command was executed"), () => {
    const bus = opened(card);
    bus.fault({ kind: "wrong-index", command: 7, times: 1 });
    bus.must(7, 0, "none");
    const reply = bus.send(7, bus.rca << 16);
    assert.is(reply.errors & (INT.index | INT.timeout | INT.crc), INT.index);
    bus.resetLines();
    assert.is(stateOf(bus.status()), "tran");
    works(bus, "wrong-index");
  });

  test(name("illegal: silence, and ILLEGAL_COMMAND in the next R1"), () => {
    const bus = opened(card);
    bus.fault({ kind: "illegal", command: 18 });
    bus.fault({ kind: "illegal", command: 25 }, 1);
    for (const index of [18, 25]) {
      assert.is(bus.send(index, 0).silent, true);
      assert.is(bus.status() & R1.illegal, R1.illegal);
      assert.is(bus.status() & R1.illegal, 0, "told once");
    }
    same(bus.readBlocks(9, 1).data, stored(9), "CMD17 is there");
    works(bus, "illegal");
  });

  test(name("refused: the error bits in its own R1, and nothing is done"), () => {
    const bus = opened(card);
    for (const bits of [R1.outOfRange, R1.addressError, R1.blockLength, 1 << 26]) {
      bus.fault({ kind: "refused", command: 24, bits: bits >>> 0, times: 1 });
      const reply = bus.must(24, 9, "r1");
      assert.is((reply.r1 & bits) >>> 0, bits >>> 0);
      assert.is(stateOf(bus.status()), "tran");
      assert.is((bus.status() & bits) >>> 0, 0, "told once");
    }
    works(bus, "refused");
  });

  test(name("locked: CARD_IS_LOCKED, and no command that touches data"), () => {
    const bus = opened(card);
    bus.fault({ kind: "locked" });
    assert.is(bus.status() & LOCKED, LOCKED);
    for (const index of [17, 18, 24, 25]) {
      assert.is(bus.send(index, 0).silent, true, `CMD${index}`);
      assert.is(bus.status() & (LOCKED | R1.illegal), LOCKED | R1.illegal);
    }
    bus.clearFaults();
    assert.is(bus.status() & LOCKED, 0);
    works(bus, "locked");
  });

  test(name("cc-error: accepted, busy, not stored, CC_ERROR in the next R1"), () => {
    const bus = opened(card, { programNs: PROGRAM_NS });
    bus.fault({ kind: "cc-error", firstLba: 9, lastLba: 9, times: 1 });
    assert.is(bus.writeBlocks(9, pattern(1)).errors, 0, "CRC status 010");
    assert.is(bus.awaitTran() & (CC_ERROR | R1.error), CC_ERROR);
    same(bus.stored(9), stored(9), "not stored");
    works(bus, "cc-error");
  });

  test(
    name("misdirected-write: another sector has the bytes; beyond the end it goes where it should"),
    () => {
      const bus = opened(card);
      bus.fault({ kind: "misdirected-write", firstLba: 9, lastLba: 9, toLba: 20, times: 1 });
      assert.is(bus.writeBlocks(9, pattern(1)).errors, 0);
      bus.awaitTran();
      same(bus.stored(9), stored(9), "where it should be");
      same(bus.stored(20), pattern(1), "where it is");
      bus.fault({ kind: "misdirected-write", toLba: 0xfffffff0, times: 1 });
      bus.writeBlocks(9, pattern(1));
      bus.awaitTran();
      same(bus.stored(9), pattern(1), "there is no such sector");
      works(bus, "misdirected-write");
    },
  );

  test(name("dat-stuck: DAT0 low though CMD13 says ready, data fail, until CMD0 or the power"), () => {
    for (const until of ["reset", "power-cycle"] as const) {
      const bus = opened(card);
      bus.fault({ kind: "dat-stuck", command: 13, times: 1, until });
      const r1 = bus.status();
      assert.is(stateOf(r1), "tran");
      assert.is(r1 & R1.ready, R1.ready, "not busy");
      assert.is(bus.present & PRESENT.dat0, 0);
      assert.is(bus.readBlocks(9, 1).errors & INT.dataCrc, INT.dataCrc);
      bus.resetLines();
      bus.send(0, 0, "none");
      assert.is((bus.present & PRESENT.dat0) !== 0, until === "reset", "CMD0");
      bus.powerDown();
      bus.open();
      works(bus, `dat-stuck ${until}`);
    }
  });

  test(name("deselect-busy: dis, DAT0 free, then stby with the sector stored"), () => {
    const bus = opened(card, { programNs: PROGRAM_NS });
    bus.fault({ kind: "deselect-busy", times: 1 });
    assert.is(bus.writeBlocks(9, pattern(1)).errors & INT.dataTimeout, 0);
    assert.is(stateOf(bus.status()), "stby");
    same(bus.stored(9), pattern(1), "stored");
    bus.fault({ kind: "deselect-busy", times: 1 });
    bus.must(7, bus.rca << 16);
    bus.must(24, 10, "r1", { read: false, blocks: 1, mode: 0x02 });
    bus.pioWrite(pattern(1));
    bus.idle(12_000_000);
    assert.is(stateOf(bus.status()), "dis");
    assert.is(bus.present & PRESENT.dat0, PRESENT.dat0);
    bus.resetLines();
    bus.must(7, bus.rca << 16);
    assert.is(bus.present & PRESENT.dat0, 0, "selected again, and still busy");
    works(bus, "deselect-busy");
  });

  test(name("vanish: no answer to anything, CMD0 included, until the supply was off"), () => {
    const bus = opened(card);
    bus.fault({ kind: "vanish", command: 13, skip: 2, times: 1 });
    bus.status();
    bus.status();
    for (const index of [13, 13, 12, 7, 55]) assert.is(bus.send(index, bus.rca << 16).silent, true);
    bus.setClock(400);
    bus.send(0, 0, "none");
    assert.is(
      bus.send(bus.isEmmc ? 1 : 8, bus.isEmmc ? 0x40ff8080 : 0x1aa, bus.isEmmc ? "r3" : "r7").silent,
      true,
    );
    assert.is(bus.present & PRESENT.inserted, PRESENT.inserted, "the slot is not empty");
    bus.powerDown();
    bus.open();
    works(bus, "vanish");
  });

  test(name("brown-out: idle without the host's doing, what was in programming cut"), () => {
    const bus = new Bus({ card, abortOutcome: "zero", timing: { programNs: PROGRAM_NS } }).open();
    bus.preset(0, pattern(64, 5));
    bus.must(24, 9, "r1", { read: false, blocks: 1, mode: 0x02 });
    bus.pioWrite(pattern(1));
    bus.idle(12_000_000);
    bus.resetLines();
    bus.fault({ kind: "brown-out", command: 13, times: 1 });
    assert.is(bus.send(13, bus.rca << 16).silent, true);
    assert.is(bus.state, "idle");
    same(bus.stored(9), new Uint8Array(512), "cut in programming");
    bus.setLines(1);
    bus.setClock(400);
    bus.identify();
    works(bus, "brown-out");
  });

  test(name("swapped: idle, and another CID with a right CRC; insertCard does the same"), () => {
    const cidOf = (bus: Bus) => {
      bus.must(7, 0, "none");
      const { words } = bus.must(10, bus.rca << 16, "r2");
      bus.must(7, bus.rca << 16);
      return words.map((word) => word >>> 0).join(".");
    };
    const bus = opened(card);
    const before = cidOf(bus);
    bus.fault({ kind: "swapped", command: 13, times: 1 });
    assert.is(bus.send(13, bus.rca << 16).silent, true);
    bus.setClock(400);
    bus.identify();
    assert.is.not(cidOf(bus), before);
    works(bus, "swapped");
    bus.core.machineInsert(2);
    bus.powerDown();
    bus.open();
    assert.is(cidOf(bus), before, "and swapped back");
    works(bus, "swapped back");
  });

  test(name("write-protect: the switch's level, and nothing else"), () => {
    const bus = opened(card);
    assert.is(bus.present & PRESENT.writable, PRESENT.writable);
    bus.fault({ kind: "write-protect", command: 13, times: 1 });
    bus.status();
    assert.is(bus.present & PRESENT.writable, 0);
    bus.powerDown();
    bus.open();
    assert.is(bus.present & PRESENT.writable, 0, "a slide does not move with the power");
    works(bus, "write-protect");
    bus.fault({ kind: "write-protect", command: 13, times: 1 });
    bus.status();
    assert.is(bus.present & PRESENT.writable, PRESENT.writable, "it flips");
  });

  test(name("an entry strikes at its match: skip and times, by command and by sector"), () => {
    const plans: [FaultPlan, (bus: Bus) => boolean][] = [
      [{ kind: "illegal", command: 16 }, (bus) => bus.send(16, 512).silent],
      [{ kind: "locked", command: 16 }, (bus) => (bus.must(16, 512).r1 & LOCKED) !== 0],
      [{ kind: "refused", command: 16, bits: 1 << 19 }, (bus) => (bus.must(16, 512).r1 & R1.error) !== 0],
      [
        { kind: "bit-rot", firstLba: 9, lastLba: 9 },
        (bus) => Buffer.compare(bus.readBlocks(9, 1).data, stored(9)) !== 0,
      ],
    ];
    for (const [plan, strikes] of plans) {
      for (const skip of [0, 1, 3]) {
        for (const times of [1, 2]) {
          const bus = opened(card);
          bus.fault({ ...plan, skip, times });
          for (let i = 0; i < 7; i++) {
            bus.must(13, bus.rca << 16); // another command counts for none
            assert.is(
              strikes(bus),
              i >= skip && i < skip + times,
              `${plan.kind}, ${skip}, ${times}, match ${i}`,
            );
          }
          cases++;
        }
      }
    }
  });
}

test.after(() => note(`${cases} cases of faults on the bus`));
test.run();
