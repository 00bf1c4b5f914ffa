// Blocks in and out of the card, and everything that can go wrong with them, at the bus (mmc.md §2.1-2.5):
// counted and open-ended transfers, CMD12, the ends of the medium, erase, cache and durability over power
// cuts, HPI, sleep, CMD0 in the middle of programming, and each fault of host/core/faults.ts with the
// controller's bit and the card's next R1.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CUT_OUTCOMES, type CutOutcome } from "../host/core/profile.js";
import {
  Bus,
  type BusOptions,
  hex,
  INT,
  INT_ERRORS,
  note,
  PRESENT,
  pattern,
  R1,
  same,
  stateOf,
} from "./bus.js";

const KINDS = ["emmc", "sd"] as const;
const COUNT_RELIABLE = 0x80000000;
const COUNT_FORCED = 1 << 24;

function opened(options: BusOptions = {}): Bus {
  return new Bus(options).open();
}

function stop(bus: Bus, write: boolean): number {
  return bus.must(12, 0, bus.isEmmc && !write ? "r1" : "r1b").r1;
}

function isSet(r1: number, bit: number, what: string): void {
  assert.is((r1 & bit) >>> 0, bit >>> 0, `${what}: ${hex(r1)} has bit ${hex(bit)}`);
}

function isClear(r1: number, bits: number, what: string): void {
  assert.is((r1 & bits) >>> 0, 0, `${what}: ${hex(r1)} has none of ${hex(bits)}`);
}

/** Any error bit that Linux looks at (mmc.md §1.2). */
const ANY_ERROR = 0xfff9a000;

function clean(bus: Bus, what: string): void {
  const r1 = bus.status();
  isClear(r1, ANY_ERROR | R1.switchError, what);
  assert.is(stateOf(r1), "tran", what);
}

function zero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

// ---- single, multiple, counted, open-ended ----

test("what is written is read back: 1 … 128 blocks, PIO and ADMA2, with and without CMD23", () => {
  let cases = 0;
  for (const card of KINDS) {
    for (const dma of [false, true]) {
      for (const count23 of [false, true]) {
        const bus = opened({ card });
        bus.setBus(4, true, 50_000);
        for (const [turn, blocks] of [1, 2, 7, 128].entries()) {
          const what = `${card} ${dma ? "ADMA2" : "PIO"} ${count23 ? "CMD23" : "CMD12"} ${blocks} blocks`;
          const data = pattern(blocks, 100 + turn);
          const openEnded = blocks > 1 && !count23;
          assert.is(bus.writeBlocks(100, data, { dma, count23 }).errors, 0, `${what} written`);
          if (openEnded) assert.is(stateOf(stop(bus, true)), "rcv", `${what}: CMD12`);
          bus.awaitTran();
          const read = bus.readBlocks(100, blocks, { dma, count23 });
          assert.is(read.errors, 0, `${what} read`);
          if (openEnded) assert.is(stateOf(stop(bus, false)), "data", `${what}: CMD12`);
          same(read.data, data, what);
          clean(bus, what);
          cases++;
        }
      }
    }
  }
  note(`${cases} cases of transfers`);
});

test("CMD12 after the clean end of a counted transfer is illegal, and so in tran at all", () => {
  for (const card of KINDS) {
    for (const write of [false, true]) {
      const bus = opened({ card });
      if (write) bus.writeBlocks(0, pattern(2), { count23: true });
      else bus.readBlocks(0, 2, { count23: true });
      bus.awaitTran();
      assert.is(bus.send(12, 0).silent, true);
      isSet(bus.status(), R1.illegal, card);
      clean(bus, card);
    }
  }
});

test("a counted transfer ends by itself even if the host wanted less, and CMD12 ends it early", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    // The host takes 2 of 4 blocks and stops.
    bus.must(23, 4);
    bus.must(18, 0, "r1", { read: true, blocks: 4 });
    bus.pioRead(2);
    bus.write8(0x2f, 4);
    assert.is(stateOf(stop(bus, false)), "data", card);
    clean(bus, card);
    // One of 4 blocks written.
    bus.must(23, 4);
    bus.must(25, 0, "r1", { read: false, blocks: 4 });
    bus.pioWrite(pattern(1));
    bus.awaitStatus(INT.writeReady);
    bus.write8(0x2f, 4);
    assert.is(stateOf(stop(bus, true)), "rcv", card);
    bus.awaitTran();
    same(bus.stored(0), pattern(1), card);
    assert.is(zero(bus.stored(1)), true);
  }
});

test("CMD12 inside a block: the partial block is dropped, the whole ones before it stay", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    bus.must(25, 40, "r1", { read: false, blocks: 4 });
    bus.pioWrite(pattern(2));
    bus.awaitStatus(INT.writeReady);
    for (let i = 0; i < 100; i++) bus.write32(0x20, 0xffffffff);
    bus.write8(0x2f, 4);
    stop(bus, true);
    bus.awaitTran();
    same(bus.stored(40), pattern(2).subarray(0, 512), card);
    same(bus.stored(41), pattern(2).subarray(512), card);
    assert.is(zero(bus.stored(42)), true, `${card}: nothing of the third`);
    clean(bus, card);
  }
});

test("an open-ended read goes on until CMD12", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    bus.preset(0, pattern(6));
    same(bus.readBlocks(0, 6).data, pattern(6), card);
    assert.is(stateOf(bus.status()), "data", `${card}: the card would send more`);
    stop(bus, false);
    clean(bus, card);
  }
});

test("CMD23: 0 is open-ended, the next command consumes it whatever it is", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    for (const [between, counted] of [
      ["nothing", true],
      ["zero", false],
      ["CMD13", false],
      ["CMD16", false],
      ["an illegal command", false],
      ["a failed CMD18", false],
      ["a single read", false],
      ["a command with a bad CRC", false],
    ] as const) {
      bus.must(23, between === "zero" ? 0 : 2);
      if (between === "CMD13") bus.status();
      if (between === "CMD16") bus.must(16, 512);
      if (between === "an illegal command") assert.is(bus.send(9, bus.rca << 16).silent, true);
      if (between === "a failed CMD18") isSet(bus.must(18, bus.config.sectors).r1, R1.outOfRange, between);
      if (between === "a single read") bus.readBlocks(0, 1);
      if (between === "a command with a bad CRC") {
        bus.fault({ kind: "command-crc", times: 1 });
        assert.is(bus.send(13, bus.rca << 16).silent, true);
        bus.clearFaults();
      }
      const { errors } = bus.readBlocks(0, 2);
      assert.is(errors, 0);
      const state = stateOf(bus.status());
      assert.is(state, counted ? "tran" : "data", `${card}: CMD23, ${between}, CMD18`);
      if (!counted) stop(bus, false);
      clean(bus, between);
    }
  }
});

test("CMD23 of SD has 32 bits of count", () => {
  const bus = opened({ card: "sd" });
  bus.must(23, 0x00010001);
  bus.readBlocks(0, 1, { multiple: true });
  assert.is(stateOf(bus.status()), "data", "65,537 blocks are not 1");
  stop(bus, false);
});

test("SD without CMD23: it is illegal, and the multiple behind it is open-ended", () => {
  const bus = opened({ card: "sd", cmd23: false });
  assert.is(bus.send(23, 2).silent, true);
  isSet(bus.must(18, 0, "r1", { read: true, blocks: 2 }).r1, R1.illegal, "the next R1");
  bus.pioRead(2);
  bus.awaitStatus(INT.transfer);
  assert.is(stateOf(bus.status()), "data");
  stop(bus, false);
});

test("CMD16: 512 and nothing else", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    isClear(bus.must(16, 512).r1, R1.blockLength, card);
    isSet(bus.must(16, 511).r1 | bus.status(), R1.blockLength, card);
    clean(bus, card);
  }
});

// ---- the end of the medium ----

test("out of range at the command: bit 31 in that R1, no data, the card stays in tran", () => {
  for (const card of KINDS) {
    for (const index of [17, 18, 24, 25]) {
      const bus = opened({ card });
      for (const lba of [bus.config.sectors, 0xffffffff]) {
        const what = `${card} CMD${index} ${hex(lba)}`;
        const r1 = bus.must(index, lba).r1;
        isSet(r1, R1.outOfRange, what);
        assert.is(stateOf(r1), "tran", what);
        clean(bus, what);
      }
      isClear(bus.must(17, bus.config.sectors - 1).r1, R1.outOfRange, `${card}: the last sector`);
    }
  }
});

test("out of range in the middle of a read: the last block, then a data timeout, bit 31 in CMD12", () => {
  for (const card of KINDS) {
    for (const count23 of [false, true]) {
      const what = `${card} ${count23 ? "counted" : "open-ended"}`;
      const bus = opened({ card });
      const last = bus.config.sectors - 1;
      bus.preset(last, pattern(1));
      const { data, errors } = bus.readBlocks(last, 2, { count23 });
      assert.is(errors, INT.dataTimeout, what);
      same(data, pattern(1), what);
      bus.resetLines();
      assert.is(bus.state, "data", what);
      isSet(stop(bus, false), R1.outOfRange, what);
      clean(bus, what);
    }
  }
});

test("out of range in the middle of a write: a bad CRC status, bit 31 in CMD12, the rest ignored", () => {
  for (const card of KINDS) {
    for (const count23 of [false, true]) {
      const what = `${card} ${count23 ? "counted" : "open-ended"}`;
      const bus = opened({ card });
      const last = bus.config.sectors - 1;
      const { errors } = bus.writeBlocks(last, pattern(3), { count23 });
      assert.is(errors, INT.dataCrc, what);
      bus.resetLines();
      assert.is(bus.state, "rcv", what);
      isSet(stop(bus, true), R1.outOfRange, what);
      bus.awaitTran();
      same(bus.stored(last), pattern(1), `${what}: the block that fitted`);
      clean(bus, what);
    }
  }
});

// ---- erase ----

const ERASE = { emmc: [35, 36], sd: [32, 33] } as const;

test("erase: bit 28 for the wrong order, 27 a bad range, 31 beyond the end, 13 a stranger between", () => {
  let cases = 0;
  for (const card of KINDS) {
    const [first, last] = ERASE[card];
    type Step = readonly [index: number, argument: number];
    const table: readonly [what: string, steps: readonly Step[], bit: number, at: number][] = [
      ["end without start", [[last, 5]], R1.eraseSequence, 0],
      ["CMD38 alone", [[38, 0]], R1.eraseSequence, 0],
      [
        "CMD38 without end",
        [
          [first, 1],
          [38, 0],
        ],
        R1.eraseSequence,
        1,
      ],
      [
        "a second CMD38",
        [
          [first, 1],
          [last, 1],
          [38, 0],
          [38, 0],
        ],
        R1.eraseSequence,
        3,
      ],
      [
        "start behind end",
        [
          [first, 9],
          [last, 5],
          [38, 0],
        ],
        R1.eraseParameter,
        2,
      ],
      ["start beyond the card", [[first, 2048]], R1.outOfRange, 0],
      [
        "end beyond the card",
        [
          [first, 1],
          [last, 2048],
        ],
        R1.outOfRange,
        1,
      ],
      [
        "a mode that is not there",
        [
          [first, 1],
          [last, 5],
          [38, 0x80000000],
        ],
        R1.eraseParameter,
        2,
      ],
      [
        "CMD16 between start and end",
        [
          [first, 1],
          [16, 512],
        ],
        R1.eraseReset,
        1,
      ],
      [
        "and then the end",
        [
          [first, 1],
          [16, 512],
          [last, 5],
        ],
        R1.eraseSequence,
        2,
      ],
      [
        "CMD17 before CMD38",
        [
          [first, 1],
          [last, 5],
          [17, 0],
        ],
        R1.eraseReset,
        2,
      ],
      [
        "CMD55 before CMD38",
        [
          [first, 1],
          [last, 5],
          [55, -1],
        ],
        R1.eraseReset,
        2,
      ],
    ];
    for (const [what, steps, bit, at] of table) {
      const bus = opened({ card });
      bus.preset(0, pattern(10));
      for (const [i, [index, argument]] of steps.entries()) {
        const answer = index === 38 ? "r1b" : "r1";
        let r1 = bus.must(index, argument === -1 ? bus.rca << 16 : argument, answer).r1;
        if (index === 38) {
          bus.awaitBusy();
          r1 |= bus.status();
        }
        const bits = R1.eraseSequence | R1.eraseParameter | R1.outOfRange | R1.eraseReset;
        if (i === at) isSet(r1, bit, `${card}: ${what}`);
        else if (index !== 16) isClear(r1, bits, `${card}: ${what}, step ${i}`);
      }
      if (what !== "a second CMD38") same(bus.stored(1), pattern(10).subarray(512, 1024), `${card}: ${what}`);
      cases++;
    }
    // CMD13 may stand anywhere in the sequence.
    const bus = opened({ card });
    bus.preset(0, pattern(10));
    for (const [index, argument] of [
      [first, 3],
      [last, 4],
      [38, card === "emmc" ? 1 : 0],
    ] as const) {
      isClear(bus.must(index, argument, index === 38 ? "r1b" : "r1").r1, ANY_ERROR, card);
      isClear(bus.status(), ANY_ERROR, card);
    }
    bus.awaitTran();
    assert.is(zero(bus.stored(3)) && zero(bus.stored(4)), true, `${card}: erased`);
    same(bus.stored(5), pattern(10).subarray(5 * 512, 6 * 512), card);
  }
  note(`${cases} cases of erase sequences`);
});

test("eMMC: 0 erases whole groups of 512 KiB, 1 and 3 the sectors; SD: the sectors", () => {
  for (const [card, mode, lowest, highest] of [
    ["emmc", 0, 1024, 2047],
    ["emmc", 1, 1100, 1103],
    ["emmc", 3, 1100, 1103],
    ["sd", 0, 1100, 1103],
    ["sd", 1, 1100, 1103],
  ] as const) {
    for (const groupDefinition of card === "emmc" ? [0, 1] : [0]) {
      const what = `${card} CMD38 ${mode}, ERASE_GROUP_DEF ${groupDefinition}`;
      const bus = opened({ card, sectors: 4096 });
      const before = pattern(4096);
      bus.preset(0, before);
      if (groupDefinition === 1) bus.switchByte(175, 1);
      const [first, last] = ERASE[card];
      bus.must(first, 1100);
      bus.must(last, 1103);
      bus.must(38, mode, "r1b");
      bus.awaitBusy();
      bus.awaitTran();
      for (const lba of [0, 1023, 1024, 1099, 1100, 1103, 1104, 2047, 2048, 4095]) {
        const isErased = lba >= lowest && lba <= highest;
        assert.is(zero(bus.stored(lba)), isErased, `${what}: sector ${lba}`);
        if (!isErased) same(bus.stored(lba), before.subarray(lba * 512, lba * 512 + 512), what);
      }
    }
  }
});

test("erase: busy for its time, in prg; a group's time for each group touched", () => {
  for (const [card, first, last, groups] of [
    ["emmc", 0, 0, 1],
    ["emmc", 1023, 1024, 2],
    ["sd", 0, 2047, 2],
  ] as const) {
    const bus = opened({ card, timing: { eraseNs: 7_000_000 } });
    bus.must(ERASE[card][0], first);
    bus.must(ERASE[card][1], last);
    bus.must(38, 0, "r1b");
    const start = bus.nowNs;
    assert.is(stateOf(bus.status()), "prg");
    bus.pollNs = 1000;
    bus.awaitStatus(INT.transfer);
    const busyNs = bus.nowNs - start;
    // The busy time began with the response, up to 100 clocks of 2.5 µs earlier.
    assert.is(
      busyNs > groups * 7_000_000 - 400_000 && busyNs <= groups * 7_000_000 + 2_000,
      true,
      `${busyNs}`,
    );
    assert.is(stateOf(bus.status()), "tran");
  }
});

test("an erased sector is erased, whatever the cache held of it", () => {
  for (const [mode, first, last] of [
    [0, 0, 0],
    [1, 5, 6],
    [3, 5, 6],
  ] as const) {
    const bus = opened({ cacheSectors: 8 });
    bus.switchByte(33, 1);
    assert.is(bus.writeBlocks(4, pattern(4), { count23: true }).errors, 0);
    bus.awaitTran();
    bus.must(35, first);
    bus.must(36, last);
    bus.must(38, mode, "r1b");
    bus.awaitBusy();
    bus.awaitTran();
    assert.is(zero(bus.readBlocks(5, 1).data), true, `CMD38 ${mode}: read`);
    bus.switchByte(32, 1);
    assert.is(zero(bus.stored(5)) && zero(bus.stored(6)), true, `CMD38 ${mode}: after a flush`);
    if (mode !== 0) same(bus.stored(7), pattern(4).subarray(1536), "its neighbour");
  }
});

// ---- cache and durability ----

const KEEP_NONE = 0;
const KEEP_ALL = 0xffffffff;

test("what a power cut leaves: cache, flush, reliable, forced, CACHE_CTRL, power-off notification", () => {
  const table: readonly [what: string, cache: boolean, flags: number, then: string, survives: boolean][] = [
    ["no cache", false, 0, "", true],
    ["cached", true, 0, "", false],
    ["cached, flushed", true, 0, "flush", true],
    ["cached, cache off", true, 0, "off", true],
    ["reliable", true, COUNT_RELIABLE, "", true],
    ["forced", true, COUNT_FORCED, "", true],
    ["cached, POWER_OFF_NOTIFICATION short", true, 0, "short", true],
    ["cached, POWER_OFF_NOTIFICATION long", true, 0, "long", true],
  ];
  for (const [what, cache, flags, then, survives] of table) {
    for (const mask of [KEEP_NONE, KEEP_ALL]) {
      const bus = opened({ cacheSectors: 8 });
      bus.preset(0, pattern(3, 9));
      bus.switchByte(34, 1);
      if (cache) bus.switchByte(33, 1);
      assert.is(bus.writeBlocks(0, pattern(3), { count23: true, flags }).errors, 0);
      bus.awaitTran();
      same(bus.readBlocks(0, 3, { count23: true }).data, pattern(3), `${what}: read back`);
      if (then === "flush") isClear(bus.switchByte(32, 1), R1.switchError | R1.error, what);
      if (then === "off") isClear(bus.switchByte(33, 0), R1.switchError, what);
      if (then === "short") isClear(bus.switchByte(34, 2), R1.switchError, what);
      if (then === "long") isClear(bus.switchByte(34, 3), R1.switchError, what);
      bus.cutAndReopen(CUT_OUTCOMES.old, mask);
      const expected = survives || mask === KEEP_ALL ? pattern(3) : pattern(3, 9);
      same(bus.readBlocks(0, 3, { count23: true }).data, expected, `${what}, mask ${hex(mask)}`);
    }
  }
});

test("a power cut keeps the subset of the cache that its mask says, oldest first", () => {
  for (const mask of [0b0001, 0b0101, 0b1000]) {
    const bus = opened({ cacheSectors: 4 });
    bus.switchByte(33, 1);
    for (const lba of [30, 10, 20, 40]) {
      bus.writeBlocks(lba, pattern(1, lba));
      bus.awaitTran();
    }
    bus.cutAndReopen(CUT_OUTCOMES.old, mask);
    for (const [age, lba] of [30, 10, 20, 40].entries()) {
      const isKept = ((mask >> age) & 1) !== 0;
      assert.is(zero(bus.stored(lba)), !isKept, `mask ${mask}: sector ${lba}`);
    }
  }
});

test("a full cache gives its oldest sector to the flash; a sector written again is held once", () => {
  const bus = opened({ cacheSectors: 3 });
  bus.switchByte(33, 1);
  const write = (lba: number, seed: number) => {
    bus.writeBlocks(lba, pattern(1, seed));
    bus.awaitTran();
  };
  write(10, 1);
  write(11, 2);
  write(10, 3);
  write(12, 4);
  assert.is(
    [10, 11, 12].every((lba) => zero(bus.stored(lba))),
    true,
    "three sectors fit",
  );
  same(bus.readBlocks(10, 1).data, pattern(1, 3), "the newer one is read");
  write(13, 5);
  // Whether sector 10 counts as old as its first or as its second write is the card's affair.
  const evicted = [10, 11, 12, 13].filter((lba) => !zero(bus.stored(lba)));
  assert.is(evicted.length, 1);
  assert.is(evicted[0] === 10 || evicted[0] === 11, true, `sector ${evicted[0]} went first`);
  bus.switchByte(32, 1);
  for (const [lba, seed] of [
    [10, 3],
    [11, 2],
    [12, 4],
    [13, 5],
  ] as const) {
    same(bus.stored(lba), pattern(1, seed), `sector ${lba} after a flush`);
  }
});

test("a reliable write of a cached sector: the old copy does not come back", () => {
  for (const flags of [COUNT_RELIABLE, COUNT_FORCED]) {
    const bus = opened({ cacheSectors: 4 });
    bus.switchByte(33, 1);
    bus.writeBlocks(10, pattern(1, 1));
    bus.awaitTran();
    bus.writeBlocks(10, pattern(1, 2), { count23: true, flags });
    bus.awaitTran();
    same(bus.stored(10), pattern(1, 2), "durable at once");
    bus.switchByte(32, 1);
    same(bus.stored(10), pattern(1, 2), "and after a flush");
    same(bus.readBlocks(10, 1).data, pattern(1, 2), "read");
  }
});

/** Old, new and half of each, by what a cut in the middle leaves. */
/** Outcomes of tests/power-cut.test.ts alone: what they leave is no mix of the two. */
const MIXES: CutOutcome[] = ["old", "new", "torn-low", "torn-high"];

function afterCut(outcome: CutOutcome, before: Uint8Array, after: Uint8Array): Uint8Array {
  if (outcome === "old") return before;
  if (outcome === "new") return after;
  const low = outcome === "torn-low" ? after : before;
  const high = outcome === "torn-low" ? before : after;
  return Uint8Array.from([...low.subarray(0, 256), ...high.subarray(256)]);
}

/** The last block of a write is in programming when this returns. */
function programming(bus: Bus, lba: number, data: Uint8Array, flags: number | null): void {
  if (flags !== null) bus.must(23, ((data.length / 512) | flags) >>> 0);
  const blocks = data.length / 512;
  const mode = flags !== null || blocks > 1 ? 0x22 : 0x02;
  bus.must(flags !== null || blocks > 1 ? 25 : 24, lba, "r1", { read: false, blocks, mode });
  assert.is(bus.pioWrite(data), 0);
  bus.idle(12_000_000); // a block on one line at 400 kHz takes 10.3 ms
  assert.is(bus.state, "prg");
}

const OUTCOMES = MIXES;
const PROGRAM_NS = 100_000_000;

test("programming cut by power, CMD0, a power cycle or HPI leaves what the outcome says", () => {
  let cases = 0;
  const before = pattern(1, 1);
  const after = pattern(1, 2);
  for (const card of KINDS) {
    for (const abortOutcome of OUTCOMES) {
      for (const how of ["cut", "CMD0", "power cycle", "HPI by CMD13", "HPI by CMD12"] as const) {
        if (card === "sd" && how.startsWith("HPI")) continue;
        for (const reliable of card === "emmc" ? [false, true] : [false]) {
          const what = `${card} ${how} ${abortOutcome}${reliable ? " reliable" : ""}`;
          const bus = opened({ card, abortOutcome, timing: { programNs: PROGRAM_NS } });
          if (how.startsWith("HPI")) bus.switchByte(161, 1);
          bus.preset(50, before);
          programming(bus, 50, after, reliable ? COUNT_RELIABLE : null);
          if (how === "cut") {
            bus.cutAndReopen(CUT_OUTCOMES[abortOutcome], KEEP_NONE);
          } else if (how === "CMD0") {
            bus.resetLines();
            bus.identify();
          } else if (how === "power cycle") {
            bus.resetLines();
            bus.powerDown();
            bus.open();
          } else {
            bus.resetLines();
            const r1 = bus.must(how === "HPI by CMD12" ? 12 : 13, (bus.rca << 16) | 1).r1;
            assert.is(stateOf(r1), "prg", what);
            bus.awaitTran();
          }
          assert.is(stateOf(bus.status()), "tran", what);
          const outcome = reliable && abortOutcome.startsWith("torn") ? "old" : abortOutcome;
          same(bus.readBlocks(50, 1).data, afterCut(outcome, before, after), what);
          bus.awaitTran();
          assert.is(bus.writeBlocks(50, before).errors, 0, `${what}: it writes again`);
          cases++;
        }
      }
    }
  }
  note(`${cases} cases of cut programming`);
});

test("programming that is not cut ends as it should, whatever the outcome of cuts", () => {
  for (const abortOutcome of OUTCOMES) {
    const bus = opened({ abortOutcome, timing: { programNs: PROGRAM_NS } });
    programming(bus, 50, pattern(1), null);
    bus.idle(PROGRAM_NS);
    bus.cutAndReopen(CUT_OUTCOMES[abortOutcome], KEEP_NONE);
    same(bus.stored(50), pattern(1), abortOutcome);
  }
});

test("CMD0 with a filled cache: dropped or written back, as configured", () => {
  for (const cacheKeptAtReset of [false, true]) {
    const bus = opened({ cacheSectors: 4, cacheKeptAtReset });
    bus.switchByte(33, 1);
    bus.writeBlocks(10, pattern(2), { count23: true });
    bus.awaitTran();
    bus.identify();
    const expected = cacheKeptAtReset ? pattern(2) : new Uint8Array(1024);
    same(bus.readBlocks(10, 2, { count23: true }).data, expected, `kept: ${cacheKeptAtReset}`);
  }
});

test("CMD0 in data and rcv ends the transfer; the block on its way is lost", () => {
  for (const card of KINDS) {
    for (const index of [18, 25]) {
      const bus = opened({ card });
      bus.must(index, 0, "r1", { read: index === 18, blocks: 4, mode: index === 18 ? 0x32 : 0x22 });
      if (index === 25) for (let i = 0; i < 64; i++) bus.write32(0x20, 0xffffffff);
      bus.resetLines();
      bus.identify();
      clean(bus, `${card} CMD${index}`);
      assert.is(zero(bus.stored(0)), true);
    }
  }
});

// ---- HPI ----

test("HPI: only with HPI_MGMT, only in prg, back in tran within its time", () => {
  const bus = opened({ timing: { programNs: 500_000_000, hpiNs: 3_000_000 } });
  programming(bus, 5, pattern(1), null);
  bus.resetLines();
  // Without HPI_MGMT: CMD13 is a plain CMD13, CMD12 illegal.
  assert.is(stateOf(bus.must(13, (bus.rca << 16) | 1).r1), "prg");
  bus.idle(20_000_000);
  assert.is(bus.state, "prg");
  assert.is(bus.send(12, (bus.rca << 16) | 1).silent, true);
  isSet(bus.status(), R1.illegal, "CMD12 in prg");
  bus.awaitTran();
  bus.switchByte(161, 1);
  // In tran it is a plain CMD13 too.
  isSet(bus.must(13, (bus.rca << 16) | 1).r1, R1.ready, "HPI in tran");
  clean(bus, "HPI in tran");
  programming(bus, 6, pattern(1), null);
  bus.resetLines();
  assert.is(bus.send(12, 0).silent, true, "a CMD12 without the HPI bit");
  isSet(bus.status(), R1.illegal, "CMD12 in prg");
  bus.must(13, (bus.rca << 16) | 1);
  const start = bus.nowNs;
  assert.is(stateOf(bus.status()), "prg", "it takes its time");
  bus.awaitTran();
  const limitNs = (bus.extCsd()[198] ?? 0) * 10_000_000;
  assert.is(bus.nowNs - start < limitNs, true, "OUT_OF_INTERRUPT_TIME");
});

test("HPI: CORRECTLY_PRG_SECTORS_NUM counts the sectors that landed", () => {
  for (const [abortOutcome, landed] of [
    ["old", 0],
    ["new", 1],
  ] as const) {
    for (const blocks of [1, 3]) {
      const bus = opened({ abortOutcome, timing: { programNs: PROGRAM_NS } });
      bus.switchByte(161, 1);
      bus.must(23, blocks);
      bus.must(25, 5, "r1", { read: false, blocks, mode: 0x22 });
      bus.pioWrite(pattern(blocks));
      bus.idle(12_000_000);
      bus.resetLines();
      bus.must(13, (bus.rca << 16) | 1);
      bus.awaitTran();
      const ext = bus.extCsd();
      const told = new DataView(ext.buffer).getUint32(242, true);
      let stored = 0;
      for (let lba = 5; lba < 5 + blocks; lba++) if (!zero(bus.stored(lba))) stored++;
      assert.is(stored, blocks - 1 + landed, `${abortOutcome}, ${blocks} blocks: stored`);
      assert.is(told, stored, `${abortOutcome}, ${blocks} blocks: told`);
    }
  }
});

test("HPI stops an erase and a flush, not a switch", () => {
  const long = 200_000_000;
  const bus = opened({ cacheSectors: 8, timing: { eraseNs: long, programNs: long, switchNs: 40_000_000 } });
  bus.switchByte(161, 1);
  bus.switchByte(33, 1);
  const hpi = () => {
    bus.resetLines();
    bus.must(13, (bus.rca << 16) | 1);
    bus.idle(1_000_000);
    return bus.state;
  };
  bus.must(35, 0);
  bus.must(36, 0);
  bus.must(38, 1, "r1b");
  assert.is(hpi(), "tran", "trim");
  bus.writeBlocks(10, pattern(3), { count23: true });
  bus.awaitTran();
  bus.must(6, 0x03200101, "r1b");
  bus.idle(long + 1_000_000);
  assert.is(hpi(), "tran", "flush");
  same(bus.stored(10), pattern(1), "the first sector was flushed");
  assert.is(zero(bus.stored(12)), true, "the last one was not");
  same(bus.readBlocks(12, 1).data, pattern(3).subarray(1024), "but it is still in the cache");
  bus.must(6, 0x03af0101, "r1b");
  assert.is(hpi(), "prg", "a switch goes on");
  bus.awaitTran();
  assert.is(bus.extCsd()[175], 1);
});

// ---- sleep ----

test("sleep and awake: busy each way, deaf in between but for CMD0 and CMD5, memory and modes kept", () => {
  const bus = opened({ timing: { sleepNs: 5_000_000 } });
  bus.switchByte(175, 1);
  bus.send(7, 0, "none");
  assert.is(stateOf(bus.must(5, (bus.rca << 16) | 0x8000, "r1b").r1), "stby");
  assert.is(bus.present & PRESENT.dat0, 0, "busy on its way to sleep");
  bus.awaitBusy();
  assert.is(bus.state, "slp");
  assert.is(bus.send(13, bus.rca << 16).silent, true, "CMD13");
  assert.is(bus.send(7, bus.rca << 16).silent, true, "CMD7");
  const awake = bus.must(5, bus.rca << 16, "r1b").r1;
  assert.is(stateOf(awake), "slp");
  isSet(awake, R1.illegal, "what it did not take");
  assert.is(bus.present & PRESENT.dat0, 0, "busy on its way back");
  bus.awaitBusy();
  assert.is(stateOf(bus.must(7, bus.rca << 16, "r1b").r1), "stby");
  bus.awaitBusy();
  assert.is(bus.extCsd()[175], 1, "EXT_CSD is as before");
  bus.send(7, 0, "none");
  bus.must(5, (bus.rca << 16) | 0x8000, "r1b");
  bus.awaitBusy();
  bus.identify();
  clean(bus, "CMD0 wakes it up");
});

test("CMD5 the wrong way round is illegal: awake in stby, sleep in slp", () => {
  const bus = opened();
  bus.send(7, 0, "none");
  assert.is(bus.send(5, bus.rca << 16, "r1b").silent, true);
  isSet(bus.status(), R1.illegal, "awake in stby");
  bus.must(5, (bus.rca << 16) | 0x8000, "r1b");
  bus.awaitBusy();
  assert.is(bus.send(5, (bus.rca << 16) | 0x8000, "r1b").silent, true);
  isSet(bus.must(5, bus.rca << 16, "r1b").r1, R1.illegal, "sleep in slp");
});

// ---- faults ----

test("no-response: executed, but not answered", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    bus.fault({ kind: "no-response", command: 7, times: 1 });
    bus.send(7, 0, "none"); // has no answer anyway
    bus.fault({ kind: "no-response", command: 7, times: 1 });
    const reply = bus.send(7, bus.rca << 16, "r1b");
    assert.is(reply.errors, INT.timeout, card);
    assert.is(stateOf(bus.status()), "tran", `${card}: selected all the same`);
    clean(bus, card);
  }
});

test("command-crc: not executed, bit 23 in the next R1", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    bus.fault({ kind: "command-crc", command: 24, times: 1 });
    assert.is(bus.send(24, 0).errors, INT.timeout, card);
    const r1 = bus.status();
    isSet(r1, R1.commandCrc, card);
    isClear(r1, R1.illegal, card);
    assert.is(stateOf(r1), "tran", card);
    clean(bus, card);
  }
});

test("response-crc: executed, the controller sees a CRC error", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    bus.fault({ kind: "response-crc", command: 18, times: 1 });
    const reply = bus.send(18, 0);
    assert.is(reply.errors, INT.crc, card);
    bus.resetLines();
    assert.is(stateOf(bus.status()), "data", `${card}: the card has moved`);
    stop(bus, false);
    clean(bus, card);
  }
});

test("read-crc: data CRC error, no bit in R1; a multiple stays in data until CMD12", () => {
  for (const card of KINDS) {
    for (const blocks of [1, 3]) {
      const what = `${card} ${blocks}`;
      const bus = opened({ card });
      bus.preset(0, pattern(3));
      bus.fault({ kind: "read-crc", firstLba: blocks - 1, lastLba: blocks - 1, times: 1 });
      const { errors, data } = bus.readBlocks(0, blocks);
      assert.is(errors, INT.dataCrc, what);
      assert.is(data.length, (blocks - 1) * 512, what);
      bus.resetLines();
      if (blocks > 1) isClear(stop(bus, false), ANY_ERROR, what);
      clean(bus, what);
      const again = bus.readBlocks(0, blocks);
      same(again.data, pattern(3).subarray(0, blocks * 512), what);
    }
  }
});

test("read-ecc: data timeout, bit 21 told once; a multiple stays in data until CMD12", () => {
  for (const card of KINDS) {
    for (const blocks of [1, 3]) {
      const what = `${card} ${blocks}`;
      const bus = opened({ card });
      bus.fault({ kind: "read-ecc", firstLba: blocks - 1, lastLba: blocks - 1 });
      assert.is(bus.readBlocks(0, blocks).errors, INT.dataTimeout, what);
      bus.resetLines();
      if (blocks > 1) {
        assert.is(bus.state, "data", what);
        isSet(stop(bus, false), R1.eccFailed, what);
      } else {
        isSet(bus.status(), R1.eccFailed, what);
        if (bus.state === "data") stop(bus, false);
      }
      clean(bus, what);
    }
  }
});

test("read-silent: data timeout and nothing else", () => {
  for (const card of KINDS) {
    for (const blocks of [1, 3]) {
      const what = `${card} ${blocks}`;
      const bus = opened({ card });
      bus.fault({ kind: "read-silent", firstLba: blocks - 1, lastLba: blocks - 1, times: 1 });
      assert.is(bus.readBlocks(0, blocks).errors, INT.dataTimeout, what);
      bus.resetLines();
      if (bus.state === "data") isClear(stop(bus, false), ANY_ERROR, what);
      clean(bus, what);
      assert.is(bus.readBlocks(0, 1).errors, 0, what);
    }
  }
});

test("write-crc: CRC status 101, data CRC error, the block dropped, no bit in R1", () => {
  for (const card of KINDS) {
    for (const blocks of [1, 3]) {
      const what = `${card} ${blocks}`;
      const bus = opened({ card });
      bus.fault({ kind: "write-crc", firstLba: blocks - 1, lastLba: blocks - 1, times: 1 });
      assert.is(bus.writeBlocks(0, pattern(blocks)).errors, INT.dataCrc, what);
      const tokens = bus.events().flatMap((event) => (event.kind === "block-write" ? [event.crcStatus] : []));
      assert.is(tokens.at(-1), 0b101, what);
      bus.resetLines();
      if (blocks > 1) {
        assert.is(bus.state, "rcv", what);
        isClear(stop(bus, true), ANY_ERROR, what);
      }
      isClear(bus.awaitTran(), ANY_ERROR, what);
      assert.is(zero(bus.stored(blocks - 1)), true, `${what}: dropped`);
      for (let lba = 0; lba < blocks - 1; lba++) {
        same(bus.stored(lba), pattern(3).subarray(lba * 512, lba * 512 + 512), what);
      }
    }
  }
});

test("after a bad block the card ignores the rest of a multiple until CMD12", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    bus.fault({ kind: "write-crc", firstLba: 1, lastLba: 1, times: 1 });
    assert.is(bus.writeBlocks(0, pattern(4)).errors, INT.dataCrc);
    bus.resetLines();
    assert.is(stateOf(bus.status()), "rcv");
    assert.is(bus.send(24, 9).silent, true, "no new write before CMD12");
    stop(bus, true);
    bus.awaitTran();
    assert.is(zero(bus.stored(1)) && zero(bus.stored(2)) && zero(bus.stored(3)), true, card);
  }
});

test("program: CRC status 111, data CRC error, bit 19 told once", () => {
  for (const card of KINDS) {
    for (const blocks of [1, 3]) {
      const what = `${card} ${blocks}`;
      const bus = opened({ card, timing: { programNs: 1_000_000 } });
      bus.fault({ kind: "program", firstLba: blocks - 1, lastLba: blocks - 1, times: 1 });
      assert.is(bus.writeBlocks(0, pattern(blocks)).errors, INT.dataCrc, what);
      assert.is(
        bus
          .events()
          .flatMap((event) => (event.kind === "block-write" ? [event.crcStatus] : []))
          .at(-1),
        0b111,
        what,
      );
      bus.resetLines();
      let told = blocks > 1 ? stop(bus, true) : 0;
      told |= bus.awaitTran();
      isSet(told, R1.error, what);
      clean(bus, what);
      assert.is(zero(bus.stored(blocks - 1)), true, what);
    }
  }
});

test("stuck-busy: data timeout; HPI, CMD0 or a power cycle frees it, as the plan says", () => {
  for (const until of ["hpi", "reset", "power-cycle"] as const) {
    const bus = opened();
    bus.switchByte(161, 1);
    bus.fault({ kind: "stuck-busy", firstLba: 3, lastLba: 3, times: 1, until });
    assert.is(bus.writeBlocks(3, pattern(1)).errors, INT.dataTimeout, until);
    bus.resetLines();
    assert.is(bus.present & PRESENT.dat0, 0, "DAT0 stays low");
    const r1 = bus.status();
    assert.is(stateOf(r1), "prg", until);
    isClear(r1, R1.ready, until);
    bus.must(13, (bus.rca << 16) | 1);
    bus.idle(100_000_000);
    assert.is(bus.state, until === "hpi" ? "tran" : "prg", `${until}: after HPI`);
    bus.send(0, 0, "none");
    assert.is(bus.state, until === "power-cycle" ? "prg" : "idle", `${until}: after CMD0`);
    bus.powerDown();
    bus.open();
    clean(bus, until);
  }
});

test("phantom-write: everything looks well, and nothing is stored", () => {
  for (const cacheSectors of [0, 4]) {
    const bus = opened({ cacheSectors });
    if (cacheSectors > 0) bus.switchByte(33, 1);
    bus.fault({ kind: "phantom-write", firstLba: 3, lastLba: 3, times: 1 });
    assert.is(bus.writeBlocks(3, pattern(1)).errors, 0);
    isClear(bus.awaitTran(), ANY_ERROR, "phantom");
    if (cacheSectors > 0) bus.switchByte(32, 1);
    assert.is(zero(bus.stored(3)), true);
    assert.is(zero(bus.readBlocks(3, 1).data), true);
  }
});

test("pulled: no response, present state says so", () => {
  for (const card of KINDS) {
    const bus = opened({ card });
    bus.fault({ kind: "pulled", command: 13, times: 1 });
    assert.is(bus.send(13, bus.rca << 16).errors, INT.timeout, card);
    assert.is(bus.present & (PRESENT.inserted | PRESENT.detectPin), 0, card);
    assert.is(bus.send(13, bus.rca << 16).silent, true, card);
    bus.core.machineInsert(1);
    assert.is(bus.present & PRESENT.inserted, PRESENT.inserted, card);
  }
});

test("switch: eMMC says SWITCH_ERROR, SD result 15, and nothing changes", () => {
  const bus = opened();
  bus.fault({ kind: "switch", times: 1 });
  isSet(bus.switchByte(175, 1), R1.switchError, "eMMC");
  assert.is(bus.extCsd()[175], 0);
  isClear(bus.switchByte(175, 1), R1.switchError, "the second time");
  const sd = opened({ card: "sd" });
  sd.fault({ kind: "switch", times: 1 });
  assert.is((sd.register(6, 0x80fffff1, 64)[16] ?? 0) & 15, 15);
  assert.is((sd.register(6, 0x80fffff1, 64)[16] ?? 0) & 15, 1);
});

test("faults count: skip matches, strike times, then stop", () => {
  const bus = opened();
  bus.fault({ kind: "no-response", command: 13, skip: 2, times: 3 });
  const answered = Array.from({ length: 8 }, () => !bus.send(13, bus.rca << 16).silent);
  assert.equal(answered, [true, true, false, false, false, true, true, true]);
});

test("a data error that is not recovered leaves the controller inhibited until a DAT reset", () => {
  const bus = opened();
  bus.fault({ kind: "read-crc", times: 1 });
  assert.is((bus.readBlocks(0, 1).status & INT_ERRORS) >>> 0, INT.dataCrc);
  assert.is(bus.present & PRESENT.dataInhibit, PRESENT.dataInhibit);
  bus.resetLines();
  assert.is(bus.present & PRESENT.dataInhibit, 0);
  assert.is(bus.readBlocks(0, 1).errors, 0);
});

test.run();
