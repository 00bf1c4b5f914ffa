// What a power cut leaves, bit by bit, with the raw driver: each outcome of the sector in programming, its neighbours,
// its erase block, the cache's oldest sector under a flush, and sectors in flight behind their busy (docs/FAULTS.md).
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CUT_OUTCOMES, type CutOutcome, type Damage, type Timing } from "../host/core/profile.js";
import { Bus, INT, note, pattern, R1, same } from "./bus.js";
import { openMachine, sameBytes, textOf } from "./machine.js";

const PROGRAM_NS = 100_000_000;
/** A block at 400 kHz on one line takes 10.3 ms. */
const BLOCK_NS = 12_000_000;
const RELIABLE = 0x80000000;
const BEFORE = pattern(1, 1);
const AFTER = pattern(1, 2);
const LBA = 50;
const KINDS = ["emmc", "sd"] as const;
let cases = 0;

function opened(
  card: "emmc" | "sd",
  damage: Damage = {},
  timing: Partial<Timing> = {},
  more: Partial<ConstructorParameters<typeof Bus>[0]> = {},
): Bus {
  return new Bus({ card, damage, timing: { programNs: PROGRAM_NS, ...timing }, ...more }).open();
}

/** One sector is in programming when this returns. */
function programming(bus: Bus, lba: number, data: Uint8Array, reliable = false): void {
  if (reliable) bus.must(23, (RELIABLE | 1) >>> 0);
  bus.must(reliable ? 25 : 24, lba, "r1", { read: false, blocks: 1, mode: reliable ? 0x22 : 0x02 });
  assert.is(bus.pioWrite(data), 0);
  bus.idle(BLOCK_NS);
  assert.is(bus.state, "prg");
}

function cut(bus: Bus, outcome: CutOutcome, mask = 0): void {
  bus.core.machineCut(CUT_OUTCOMES[outcome], mask);
}

/** A sector that was written whole and acknowledged. */
function written(bus: Bus, lba: number, data: Uint8Array): void {
  assert.is(bus.writeBlocks(lba, data).errors, 0);
  bus.awaitTran();
}

function mixed(newWord: (word: number) => boolean): Uint8Array {
  return BEFORE.map((byte, at) => (newWord(at >> 2) ? (AFTER[at] ?? 0) : byte));
}

/** The bytes of outcomes that have known ones. */
const LEFT: Partial<Record<CutOutcome, Uint8Array>> = {
  old: BEFORE,
  new: AFTER,
  "torn-low": mixed((word) => word < 64),
  "torn-high": mixed((word) => word >= 64),
  interleaved: mixed((word) => word % 2 === 0),
  zero: new Uint8Array(512),
  ones: new Uint8Array(512).fill(0xff),
  rollback: BEFORE,
};
const OUTCOMES = Object.keys(CUT_OUTCOMES) as CutOutcome[];

/** CMD17 tells that ECC cannot correct the sector, and gives no data. */
function isUnreadable(bus: Bus, lba: number): boolean {
  const result = bus.readBlocks(lba, 1);
  if (result.errors === 0) return false;
  assert.is(result.errors & INT.dataTimeout, INT.dataTimeout, "no data");
  bus.resetLines();
  assert.is(bus.awaitTran() & R1.eccFailed, R1.eccFailed, "CARD_ECC_FAILED");
  return true;
}

test("every outcome × power, CMD0, power cycle, HPI × plain and reliable", () => {
  for (const card of KINDS) {
    for (const outcome of OUTCOMES) {
      for (const how of ["cut", "CMD0", "power cycle", "HPI"] as const) {
        if (card === "sd" && how === "HPI") continue;
        for (const reliable of card === "emmc" ? [false, true] : [false]) {
          const what = `${card} ${how} ${outcome}${reliable ? " reliable" : ""}`;
          const bus = opened(card, { seed: 7 }, {}, { abortOutcome: outcome });
          if (how === "HPI") bus.switchByte(161, 1);
          bus.preset(LBA, BEFORE);
          programming(bus, LBA, AFTER, reliable);
          if (how === "cut") bus.cutAndReopen(CUT_OUTCOMES[outcome], 0);
          bus.resetLines();
          if (how === "CMD0") bus.identify();
          if (how === "power cycle") {
            bus.powerDown();
            bus.open();
          }
          if (how === "HPI") {
            bus.must(13, (bus.rca << 16) | 1);
            bus.awaitTran();
          }
          const left = reliable && outcome !== "new" ? BEFORE : LEFT[outcome];
          const lost = outcome === "unreadable" && !reliable;
          assert.is(isUnreadable(bus, LBA), lost, what);
          if (left) same(bus.readBlocks(LBA, 1).data, left, what);
          if (outcome === "noise" && !reliable) {
            const noise = bus.stored(LBA);
            assert.not(sameBytes(noise, BEFORE) || sameBytes(noise, AFTER), what);
            assert.ok(new Set(noise).size > 100, `${what}: it is no pattern`);
          }
          bus.awaitTran();
          // Whatever is left, the sector can be written and read again.
          written(bus, LBA, AFTER);
          same(bus.readBlocks(LBA, 1).data, AFTER, `${what}: written again`);
          cases++;
        }
      }
    }
  }
});

test("noise hangs on seed, sector and history, and on nothing else", () => {
  const noise = (seed: number, lba: number) => {
    const bus = opened("sd", { seed });
    programming(bus, lba, AFTER);
    cut(bus, "noise");
    return bus.stored(lba);
  };
  same(noise(1, 5), noise(1, 5), "the same seed");
  assert.not(sameBytes(noise(1, 5), noise(2, 5)));
  assert.not(sameBytes(noise(1, 5), noise(1, 6)));
});

test("an unreadable sector heals by a write or an erase, and by nothing else", () => {
  for (const card of KINDS) {
    const bus = opened(card, {}, { programNs: 0 });
    bus.fault({ kind: "latent-read", firstLba: 10, lastLba: 13, times: 4 });
    bus.preset(10, pattern(4));
    for (let lba = 10; lba < 14; lba++) assert.is(isUnreadable(bus, lba), true);
    // Neither a power cycle nor a CMD0 nor a second look.
    bus.cutAndReopen(CUT_OUTCOMES.old, 0);
    bus.identify();
    for (let lba = 10; lba < 14; lba++) assert.is(isUnreadable(bus, lba), true);
    written(bus, 10, AFTER);
    same(bus.readBlocks(10, 1).data, AFTER, "written");
    bus.must(bus.isEmmc ? 35 : 32, 12);
    bus.must(bus.isEmmc ? 36 : 33, 13);
    bus.must(38, 1, "r1b");
    bus.awaitTran();
    assert.equal(
      [10, 11, 12, 13].map((lba) => isUnreadable(bus, lba)),
      [false, true, false, false],
    );
    same(bus.readBlocks(12, 1).data, new Uint8Array(512), "erased");
  }
});

test("the table of unreadable sectors is finite: the rest becomes noise, not what was there", () => {
  const bus = opened("sd", { seed: 3 }, { programNs: 0 });
  bus.preset(0, pattern(80));
  bus.fault({ kind: "latent-read", times: 70 });
  let unreadable = 0;
  for (let lba = 0; lba < 70; lba++) if (isUnreadable(bus, lba)) unreadable++;
  assert.is(unreadable, 64);
  for (let lba = 64; lba < 70; lba++) {
    assert.not(sameBytes(bus.stored(lba), pattern(80).subarray(lba * 512, lba * 512 + 512)), `${lba}`);
  }
  same(bus.readBlocks(75, 1).data, pattern(80).subarray(75 * 512, 76 * 512), "the plan is over");
});

test("neighbours go with a sector that was torn, as far as they reach and within its unit", () => {
  const all = pattern(100, 9);
  const changed = (damage: Damage, outcome: CutOutcome, lba: number, reliable = false) => {
    const bus = opened(reliable ? "emmc" : "sd", damage);
    bus.preset(0, all);
    programming(bus, lba, AFTER, reliable);
    cut(bus, outcome);
    bus.open();
    const lost: number[] = [];
    for (let at = 0; at < 100; at++) {
      const was = all.subarray(at * 512, at * 512 + 512);
      if (at !== lba && !sameBytes(bus.stored(at), was)) lost.push(at);
      else if (at !== lba && outcome === "unreadable" && at > 40 && at < 60 && isUnreadable(bus, at)) {
        lost.push(at);
      }
    }
    cases++;
    return lost;
  };
  for (const outcome of ["torn-low", "interleaved", "zero", "ones", "noise", "unreadable"] as const) {
    assert.equal(changed({ neighbourSectors: 2 }, outcome, 50), [48, 49, 51, 52], outcome);
    assert.equal(changed({ neighbourSectors: 2, unitSectors: 8 }, outcome, 48), [49, 50], outcome);
    assert.equal(changed({ neighbourSectors: 2, unitSectors: 8 }, outcome, 55), [53, 54], outcome);
    assert.equal(changed({ neighbourSectors: 2 }, outcome, 50, true), [], `${outcome}, reliable`);
  }
  assert.equal(changed({ neighbourSectors: 2 }, "zero", 0), [1, 2], "the first sector");
  for (const outcome of ["old", "new"] as const) {
    assert.equal(
      changed({ neighbourSectors: 2 }, outcome, 50),
      [],
      "a sector that is whole takes nobody along",
    );
  }
});

test("rollback: what was written of the erase block in this boot is as it was before", () => {
  const all = pattern(100, 9);
  const old = (lba: number) => all.subarray(lba * 512, lba * 512 + 512);
  for (const card of KINDS) {
    const bus = opened(card, { rollbackSectors: 16 }, { programNs: PROGRAM_NS });
    bus.preset(0, all);
    written(bus, 33, pattern(1, 20)); // an earlier boot's
    bus.cutAndReopen(CUT_OUTCOMES.old, 0);
    written(bus, 34, pattern(1, 21));
    written(bus, 34, pattern(1, 22)); // twice: the older one comes back
    written(bus, 47, pattern(1, 23));
    written(bus, 48, pattern(1, 24)); // the next block's
    programming(bus, 40, AFTER);
    cut(bus, "rollback");
    same(bus.stored(33), pattern(1, 20), "an earlier boot");
    for (const lba of [34, 40, 47]) same(bus.stored(lba), old(lba), `${lba}`);
    same(bus.stored(48), pattern(1, 24), "another block");
    cases++;
  }
  const bus = opened("emmc", { rollbackSectors: 16 });
  bus.preset(0, all);
  written(bus, 34, pattern(1, 21));
  programming(bus, 40, AFTER, true);
  cut(bus, "rollback");
  same(bus.stored(34), pattern(1, 21), "a reliable write takes nothing with it");
});

test("rollback reaches 16 writes back, and a reliable write ends it", () => {
  const all = pattern(64, 9);
  const bus = opened("emmc", { rollbackSectors: 64 }, { programNs: 1_000_000 });
  bus.preset(0, all);
  for (let lba = 0; lba < 20; lba++) written(bus, lba, AFTER);
  bus.must(23, (RELIABLE | 1) >>> 0);
  bus.must(25, 19, "r1", { read: false, blocks: 1, mode: 0x22 });
  bus.pioWrite(BEFORE);
  bus.awaitTran();
  // At 400 kHz a block needs longer than it is programmed: catch it in the middle.
  bus.must(24, 40, "r1", { read: false, blocks: 1, mode: 0x02 });
  bus.pioWrite(AFTER);
  for (let i = 0; i < 2000 && bus.state !== "prg"; i++) bus.idle(10_000);
  assert.is(bus.state, "prg");
  cut(bus, "rollback");
  for (let lba = 0; lba < 19; lba++) {
    const left = lba < 4 ? AFTER : all.subarray(lba * 512, lba * 512 + 512);
    same(bus.stored(lba), left, `sector ${lba}`);
  }
  same(bus.stored(19), BEFORE, "the reliable one stays");
  same(bus.stored(40), all.subarray(40 * 512, 41 * 512), "the one in programming");
});

test("sectors in flight behind their busy: lost before settleNs is over, kept after it", () => {
  const settleNs = 1_600_000_000;
  for (const card of KINDS) {
    for (const [waitNs, kept] of [
      [0, false],
      [1_500_000_000, false],
      [1_700_000_000, true],
    ] as const) {
      for (const outcome of OUTCOMES) {
        const bus = opened(card, {}, { programNs: 1000, settleNs });
        bus.preset(LBA, BEFORE);
        written(bus, LBA, AFTER);
        same(bus.readBlocks(LBA, 1).data, AFTER, "it reads as written");
        bus.idle(waitNs);
        bus.cutAndReopen(CUT_OUTCOMES[outcome], 0);
        const left = kept ? AFTER : LEFT[outcome];
        assert.is(isUnreadable(bus, LBA), !kept && outcome === "unreadable");
        if (left) same(bus.stored(LBA), left, `${card} ${outcome} after ${waitNs} ns`);
        cases++;
      }
    }
  }
});

test("sectors in flight: the mask keeps any of them, in any order", () => {
  for (let mask = 0; mask < 16; mask++) {
    const bus = opened("sd", {}, { programNs: 0, settleNs: 2_000_000_000 });
    for (let i = 0; i < 4; i++) written(bus, 10 + i, pattern(1, 30 + i));
    cut(bus, "old", mask);
    for (let i = 0; i < 4; i++) {
      const kept = ((mask >> i) & 1) !== 0;
      same(bus.stored(10 + i), kept ? pattern(1, 30 + i) : new Uint8Array(512), `mask ${mask}, sector ${i}`);
    }
    cases++;
  }
  // Written twice: keeping the newer one does not bring back what was before the older one.
  const bus = opened("sd", {}, { programNs: 0, settleNs: 2_000_000_000 });
  written(bus, 10, BEFORE);
  written(bus, 10, AFTER);
  const state = bus.save();
  for (const [mask, left] of [
    [0, new Uint8Array(512)],
    [1, BEFORE],
    [2, AFTER],
    [3, AFTER],
  ] as const) {
    bus.load(state);
    cut(bus, "old", mask);
    same(bus.stored(10), left, `mask ${mask}`);
  }
});

test("sectors in flight: CMD0 waits for them, a reliable write is none, an erase neither", () => {
  const timing = { programNs: 0, settleNs: 4_000_000_000 };
  const bus = opened("emmc", {}, timing);
  written(bus, 10, AFTER);
  bus.identify();
  same(bus.stored(10), AFTER, "CMD0");
  bus.must(23, (RELIABLE | 1) >>> 0);
  bus.must(25, 11, "r1", { read: false, blocks: 1, mode: 0x22 });
  bus.pioWrite(AFTER);
  bus.awaitTran();
  written(bus, 12, AFTER);
  bus.must(35, 12);
  bus.must(36, 12);
  bus.must(38, 1, "r1b");
  bus.awaitTran();
  cut(bus, "old");
  same(bus.stored(10), new Uint8Array(512), "still in flight");
  same(bus.stored(11), AFTER, "reliable");
  same(bus.stored(12), new Uint8Array(512), "erased");
});

test("a flush that is cut leaves the oldest sector of the cache as any sector in programming", () => {
  for (const outcome of OUTCOMES) {
    const bus = opened("emmc", {}, {}, { cacheSectors: 8 });
    bus.switchByte(33, 1);
    bus.preset(LBA, BEFORE);
    bus.preset(LBA + 1, BEFORE);
    written(bus, LBA, AFTER);
    written(bus, LBA + 1, AFTER);
    bus.must(6, 0x03200101, "r1b");
    bus.cutAndReopen(CUT_OUTCOMES[outcome], 0);
    // Whole it lands only if the cache is kept.
    const left = outcome === "new" ? BEFORE : LEFT[outcome];
    assert.is(isUnreadable(bus, LBA), outcome === "unreadable");
    if (left) same(bus.stored(LBA), left, outcome);
    same(bus.stored(LBA + 1), BEFORE, `${outcome}: the next one was not begun`);
    cases++;
  }
});

test("an erase that is cut: half of it, and the sector where it stood", () => {
  const all = pattern(100, 9);
  for (const outcome of OUTCOMES) {
    const bus = opened("sd", { seed: 1 }, { eraseNs: PROGRAM_NS });
    bus.preset(0, all);
    bus.must(32, 20);
    bus.must(33, 29);
    bus.must(38, 0, "r1b");
    bus.cutAndReopen(CUT_OUTCOMES[outcome], 0);
    const erased: number[] = [];
    for (let lba = 18; lba < 32; lba++) if (bus.stored(lba).every((byte) => byte === 0)) erased.push(lba);
    const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
    const expected =
      outcome === "new"
        ? range(20, 29)
        : outcome === "old" || outcome === "rollback"
          ? []
          : outcome === "torn-high"
            ? range(25, 29)
            : outcome === "ones" || outcome === "noise"
              ? range(20, 23)
              : range(20, 24);
    assert.equal(erased, expected, outcome);
    assert.is(isUnreadable(bus, 24), outcome === "unreadable", outcome);
    cases++;
  }
});

test("a panic on a card that settles late: the record is there once the time has passed, and not before", () => {
  const text = pattern(5, 3000);
  for (const card of KINDS) {
    for (const [waitNs, there] of [
      [0, false],
      [1_700_000_000, true],
    ] as const) {
      const options = { card, reliableWrite: false, timing: { settleNs: 1_600_000_000 } };
      const machine = openMachine(options, [], 16 * 1024);
      assert.is(machine.device.panicWrite({ text }).status, 0);
      machine.device.idle(waitNs);
      machine.device.powerCut("old", "lost");
      const found = machine
        .records()
        .some((record) => record.state === "ok" && sameBytes(textOf(record), text));
      assert.is(found, there, `${card}, cut after ${waitNs} ns`);
    }
  }
});

test.after(() => note(`${cases} cases of what a cut leaves`));
test.run();
