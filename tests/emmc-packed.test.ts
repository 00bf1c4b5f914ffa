// Packed commands and contexts of the eMMC: what lands, what is told when something fails, what a cut leaves, and that
// a panic in the middle of one finds its way. Headers are put together here once more, byte by byte.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { MEDIUM_BASE } from "../assembly/layout.js";
import { CUT_OUTCOMES, type CutOutcome } from "../host/core/profile.js";
import { Device } from "../host/device.js";
import { decodeArea } from "../host/pstore/decode.js";
import {
  Bus,
  type BusOptions,
  coreModule,
  hex,
  INT,
  INT_ERRORS,
  MODE,
  note,
  pattern,
  R1,
  REG,
  same,
  stateOf,
} from "./bus.js";

const PACKED = 1 << 30;
const RELIABLE = 0x80000000;
const FORCED = 1 << 24;
const STATUS = 36;
const INDEX = 35;
const EVENTS = 54;
const EVENTS_CONTROL = 56;
const PACKED_FAILURE = 1 << 3;
const GENERIC = 1;
const INDEXED = 3;
const SECTORS = 4096;

interface Entry {
  lba: number;
  blocks: number;
  flags?: number;
}

function opened(options: BusOptions = {}): Bus {
  return new Bus({ sectors: SECTORS, ...options }).open();
}

function total(entries: Entry[]): number {
  return entries.reduce((sum, { blocks }) => sum + blocks, 0);
}

function headerOf(bus: Bus, direction: "read" | "write", entries: Entry[]): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  bytes.set([1, direction === "read" ? 1 : 2, entries.length]);
  for (const [i, { lba, blocks, flags = 0 }] of entries.entries()) {
    view.setUint32(8 + i * 8, (flags | blocks) >>> 0, true);
    view.setUint32(12 + i * 8, bus.address(lba), true);
  }
  return bytes;
}

/** CMD23 with bit 30 and CMD25, header in front. The controller's status at the end. */
function send(bus: Bus, header: Uint8Array, data: Uint8Array, lba = 0, dma = false): number {
  const bytes = new Uint8Array(512 + data.length);
  bytes.set(header);
  bytes.set(data, 512);
  return bus.writeBlocks(lba, bytes, { count23: true, flags: PACKED, dma }).status;
}

function write(bus: Bus, entries: Entry[], data: Uint8Array, dma = false): number {
  return send(bus, headerOf(bus, "write", entries), data, entries[0]?.lba, dma);
}

/** Frees the bus behind an error, as a driver does. All bits that R1 told. */
function recover(bus: Bus): number {
  bus.resetLines();
  let told = bus.status();
  if (stateOf(told) !== "tran") told |= bus.must(12, 0, "r1b").r1;
  bus.clearStatus();
  return (told | bus.awaitTran()) >>> 0;
}

/** PACKED_COMMAND_STATUS, PACKED_FAILURE_INDEX and the event's bit agree, and say this. */
function assertPacked(bus: Bus, status: number, index: number, what: string): void {
  const extCsd = bus.extCsd();
  assert.equal([extCsd[STATUS], extCsd[INDEX]], [status, index], `${what}: status, index`);
  assert.is(((extCsd[EVENTS] ?? 0) & PACKED_FAILURE) !== 0, status !== 0, `${what}: event`);
}

const THREE: Entry[] = [
  { lba: 100, blocks: 3 },
  { lba: 7, blocks: 1, flags: RELIABLE },
  { lba: 4090, blocks: 6, flags: FORCED },
];

/** Every sector: those of the first `done` entries hold `data`, all others are zero. */
function assertStored(bus: Bus, entries: Entry[], data: Uint8Array, done: number, what: string): void {
  const expected = new Uint8Array(SECTORS * 512);
  let at = 0;
  for (const { lba, blocks } of entries.slice(0, done)) {
    expected.set(data.subarray(at * 512, (at + blocks) * 512), lba * 512);
    at += blocks;
  }
  same(new Uint8Array(bus.memory.buffer, MEDIUM_BASE, SECTORS * 512), expected, what);
}

test("packed writes land where their entries say, the header nowhere", () => {
  let cases = 0;
  const many = Array.from({ length: 63 }, (_, i) => ({ lba: (i * 61) % SECTORS, blocks: 1 + (i % 3) }));
  for (const byteAddressed of [false, true]) {
    for (const dma of [false, true]) {
      for (const entries of [THREE, [{ lba: 5, blocks: 1 }], many]) {
        const bus = opened({ emmc: { byteAddressed } });
        const data = pattern(total(entries), 3);
        const what = `${entries.length} entries, by ${byteAddressed ? "bytes" : "sectors"}, ${dma ? "DMA" : "PIO"}`;
        assert.is((write(bus, entries, data, dma) & INT_ERRORS) >>> 0, 0, what);
        assert.is(bus.awaitTran() & ~0x1fff, 0, what);
        assertStored(bus, entries, data, entries.length, what);
        assertPacked(bus, 0, 0, what);
        cases++;
      }
    }
  }
  assert.equal([...opened().extCsd().slice(500, 502)], [63, 63], "MAX_PACKED_WRITES, _READS");
  note(`${cases} packed writes`);
});

test("packed reads bring the entries' blocks one behind the other; CMD13 may come between", () => {
  for (const byteAddressed of [false, true]) {
    for (const dma of [false, true]) {
      const bus = opened({ emmc: { byteAddressed } });
      const data = pattern(10, 9);
      let at = 0;
      for (const { lba, blocks } of THREE) {
        bus.preset(lba, data.slice(at * 512, (at + blocks) * 512));
        at += blocks;
      }
      assert.is(send(bus, headerOf(bus, "read", THREE), new Uint8Array(), 100) & INT_ERRORS, 0);
      bus.clearStatus();
      bus.awaitTran();
      const read = bus.readBlocks(100, 10, { count23: true, flags: PACKED, dma });
      assert.is(read.errors, 0);
      same(read.data, data, "the entries");
      assert.is(stateOf(bus.status()), "tran");
      assertPacked(bus, 0, 0, "read");
      // The header is used up.
      bus.must(23, PACKED | 10);
      assert.is(bus.must(18, bus.address(100)).r1 & R1.error, R1.error);
      assert.is(stateOf(bus.status()), "tran");
      assertPacked(bus, GENERIC, 0, "a read without a header");
    }
  }
});

test("a header that is none: nothing lands, ERROR once, status 1, and the event if it is enabled", () => {
  const edits: [string, (header: Uint8Array) => void][] = [
    ["version 0", (header) => header.fill(0, 0, 1)],
    ["version 2", (header) => header.fill(2, 0, 1)],
    ["neither read nor write", (header) => header.fill(0, 1, 2)],
    ["direction 3", (header) => header.fill(3, 1, 2)],
    ["a read with data", (header) => header.fill(1, 1, 2)],
    ["no entry", (header) => header.fill(0, 2, 3)],
    ["64 entries", (header) => header.fill(64, 2, 3)],
    ["255 entries", (header) => header.fill(255, 2, 3)],
    ["one entry too few", (header) => header.fill(2, 2, 3)],
    ["one block less", (header) => header.fill(2, 8, 9)],
    ["one block more", (header) => header.fill(4, 8, 9)],
    ["an entry without blocks", (header) => header.fill(0, 16, 17)],
    ["a packed entry", (header) => header.fill(0x40, 11, 12)],
  ];
  for (const [what, edit] of edits) {
    for (const isEnabled of [false, true]) {
      const bus = opened();
      if (isEnabled) bus.switchByte(EVENTS_CONTROL, PACKED_FAILURE);
      const header = headerOf(bus, "write", THREE);
      edit(header);
      send(bus, header, pattern(10));
      const told = recover(bus);
      assert.is(told & R1.error, R1.error, what);
      assert.is((told & R1.exception) !== 0, isEnabled, `${what}: EXCEPTION_EVENT`);
      assert.is(bus.status() & R1.error, 0, `${what}: once`);
      assert.is((bus.status() & R1.exception) !== 0, isEnabled, `${what}: it lasts`);
      assertStored(bus, THREE, new Uint8Array(), 0, what);
      assertPacked(bus, GENERIC, 0, what);
      // Plain commands do not cure it, the next packed one does.
      assert.is(bus.writeBlocks(9, pattern(1)).errors, 0);
      bus.awaitTran();
      assertPacked(bus, GENERIC, 0, `${what}: still`);
      assert.is(write(bus, THREE, pattern(10, 2)) & INT_ERRORS, 0);
      bus.awaitTran();
      assertPacked(bus, 0, 0, `${what}: cured`);
      assert.is(bus.status() & R1.exception, 0);
    }
  }
  note(`${edits.length} headers that are none`);
});

test("a packed CMD23 whose CMD25 or CMD18 cannot be: ERROR in its R1, the card stays in tran", () => {
  const bus = opened();
  const refused = (index: number, count: number, what: string) => {
    bus.must(23, PACKED | count);
    assert.is(bus.must(index, bus.address(100)).r1 & R1.error, R1.error, what);
    assert.is(stateOf(bus.status()), "tran", what);
    assertPacked(bus, GENERIC, 0, what);
  };
  refused(25, 0, "no count");
  refused(18, 10, "no header");
  const announce = () => {
    assert.is(send(bus, headerOf(bus, "read", THREE), new Uint8Array(), 100) & INT_ERRORS, 0);
    bus.clearStatus();
    bus.awaitTran();
  };
  announce();
  refused(18, 9, "another count than the header's");
  announce();
  bus.extCsd();
  refused(18, 10, "another command in between");
  announce();
  bus.identify();
  assertPacked(bus, 0, 0, "CMD0");
  refused(18, 10, "CMD0 in between");
  announce();
  assert.is(bus.readBlocks(100, 2).errors, 0, "a plain read in between");
  recover(bus);
  refused(18, 10, "a plain read in between");
  // Without bit 30 a CMD25 is what it always was.
  const data = pattern(2, 4);
  assert.is(bus.writeBlocks(50, data, { count23: true }).errors, 0);
  same(bus.stored(50), data.slice(0, 512), "plain");
});

test("an entry that fails: its number, the R1 bit of its kind; those in front are done, those behind are not", () => {
  const cases: [string, BusOptions, (bus: Bus) => void, Entry[], number, number][] = [
    [
      "out of range",
      {},
      () => undefined,
      [
        { lba: 1, blocks: 2 },
        { lba: SECTORS, blocks: 1 },
        { lba: 9, blocks: 1 },
      ],
      2,
      R1.outOfRange,
    ],
    [
      "runs past the end",
      {},
      () => undefined,
      [
        { lba: 1, blocks: 2 },
        { lba: SECTORS - 1, blocks: 2 },
      ],
      2,
      R1.outOfRange,
    ],
    [
      "the first one",
      {},
      () => undefined,
      [
        { lba: SECTORS, blocks: 1 },
        { lba: 1, blocks: 2 },
      ],
      1,
      R1.outOfRange,
    ],
    [
      "misaligned",
      { emmc: { byteAddressed: true } },
      () => undefined,
      [
        { lba: 1, blocks: 1 },
        { lba: 8.5, blocks: 1 },
      ],
      2,
      R1.addressError,
    ],
    [
      "a reliable write of two sectors without EN_REL_WR",
      { reliableWrite: false },
      () => undefined,
      [
        { lba: 1, blocks: 1, flags: RELIABLE },
        { lba: 3, blocks: 2, flags: RELIABLE },
      ],
      2,
      R1.blockLength,
    ],
    [
      "program",
      {},
      (bus) => bus.fault({ kind: "program", firstLba: 60, lastLba: 60 }),
      [
        { lba: 1, blocks: 2 },
        { lba: 60, blocks: 1 },
        { lba: 9, blocks: 1 },
      ],
      2,
      R1.error,
    ],
    [
      "CRC",
      {},
      (bus) => bus.fault({ kind: "write-crc", firstLba: 60, lastLba: 60 }),
      [
        { lba: 1, blocks: 2 },
        { lba: 9, blocks: 1 },
        { lba: 60, blocks: 1 },
      ],
      3,
      0,
    ],
    [
      "CC_ERROR, which shows when the next entry is already under way",
      {},
      (bus) => bus.fault({ kind: "cc-error", firstLba: 60, lastLba: 60 }),
      [
        { lba: 1, blocks: 2 },
        { lba: 60, blocks: 1 },
      ],
      2,
      1 << 20,
    ],
    [
      "write protection",
      { sectors: SECTORS },
      (bus) => {
        bus.switchByte(171, 1);
        bus.must(28, 0, "r1b");
        bus.awaitBusy();
      },
      [{ lba: 1, blocks: 2 }],
      1,
      R1.writeProtected,
    ],
  ];
  for (const [what, options, cause, entries, index, bits] of cases) {
    const bus = opened(options);
    cause(bus);
    const data = pattern(total(entries), 8);
    send(bus, headerOf(bus, "write", entries), data);
    const told = recover(bus);
    assert.is((told & 0xfff9a000) >>> 0, bits >>> 0, `${what}: ${hex(told)}`);
    bus.clearFaults();
    const done = entries.slice(0, index - 1);
    const whole = total(done) + (what === "runs past the end" ? 1 : 0);
    const cut = [...done, { ...(entries[index - 1] as Entry), blocks: whole - total(done) }];
    assertStored(bus, cut, data, cut.length, what);
    assertPacked(bus, INDEXED, index, what);
  }
  for (const [kind, bit] of [
    ["read-ecc", R1.eccFailed],
    ["read-silent", 0],
  ] as const) {
    const bus = opened();
    assert.is(send(bus, headerOf(bus, "read", THREE), new Uint8Array(), 100) & INT_ERRORS, 0);
    bus.clearStatus();
    bus.awaitTran();
    bus.fault({ kind, firstLba: 7, lastLba: 7 });
    assert.is(
      bus.readBlocks(100, 10, { count23: true, flags: PACKED }).errors & INT.dataTimeout,
      INT.dataTimeout,
    );
    assert.is((recover(bus) & 0xfff9a000) >>> 0, bit, kind);
    bus.clearFaults();
    assertPacked(bus, INDEXED, 2, kind);
  }
  note(`${cases.length + 2} entries that fail`);
});

test("a header with a bad CRC: status 101, dropped, and nothing behind it is taken", () => {
  const bus = opened();
  bus.fault({ kind: "write-crc", firstLba: 0xffffffff, lastLba: 0xffffffff, times: 1 });
  assert.is(write(bus, THREE, pattern(10)) & INT.dataCrc, INT.dataCrc);
  recover(bus);
  assertStored(bus, THREE, new Uint8Array(), 0, "bad header");
  assertPacked(bus, GENERIC, 0, "bad header");
});

test("durable as each entry says: a plain one may be lost with the cache, forced and reliable ones not", () => {
  const bus = opened({ cacheSectors: 32 });
  bus.switchByte(33, 1);
  const data = pattern(10, 5);
  assert.is(write(bus, THREE, data) & INT_ERRORS, 0);
  bus.awaitTran();
  bus.cutAndReopen(CUT_OUTCOMES.old, 0);
  const kept = [{ lba: 100, blocks: 0 }, ...THREE.slice(1)];
  assertStored(bus, kept, data.slice(3 * 512), 3, "without the cache");
});

test("a cut at any time leaves a prefix, and of the sector in programming what its entry allows", () => {
  let cuts = 0;
  const seen = new Set<string>();
  const old = (lba: number) => pattern(1, 1000 + lba);
  const sectors = THREE.flatMap(({ lba, blocks, flags }) =>
    Array.from({ length: blocks }, (_, i) => ({ lba: lba + i, isReliable: flags === RELIABLE })),
  );
  const data = pattern(10, 5);
  for (const outcome of Object.keys(CUT_OUTCOMES) as CutOutcome[]) {
    for (let afterUs = 0; afterUs < 1300; afterUs += 50) {
      const bus = opened({ timing: { programNs: 100_000 } });
      for (const { lba } of sectors) bus.preset(lba, old(lba));
      bus.setBus(4, true, 50_000);
      bus.must(23, PACKED | 11);
      bus.describe(11 * 512);
      bus.dmaMemory(11 * 512).set(headerOf(bus, "write", THREE));
      bus.dmaMemory(11 * 512).set(data, 512);
      bus.write8(REG.hostControl, bus.read8(REG.hostControl) | 0x10);
      bus.must(25, 100, "r1", { read: false, blocks: 11, mode: MODE.count | MODE.multi | MODE.dma });
      bus.idle(afterUs * 1000);
      bus.core.machineCut(CUT_OUTCOMES[outcome], 0);
      const unreadable = outcome === "unreadable";
      const states = sectors.map(({ lba }, i) => {
        const now = bus.stored(lba);
        if (Buffer.compare(now, data.subarray(i * 512, i * 512 + 512)) === 0) return "new";
        return Buffer.compare(now, old(lba)) === 0 ? "old" : "torn";
      });
      const first = states.findIndex((state) => state !== "new");
      const what = `${outcome} after ${afterUs} µs: ${states}`;
      if (first >= 0) {
        assert.ok(
          states.slice(first + 1).every((state) => state === "old"),
          what,
        );
        if (sectors[first]?.isReliable) assert.is(states[first], "old", what);
        if (unreadable) assert.is(states[first], "old", what);
      }
      seen.add(`${first}${first >= 0 ? states[first] : ""}`);
      cuts++;
    }
  }
  for (const state of ["-1", "0old", "0torn", "3old", "4torn", "9torn"]) assert.ok(seen.has(state), state);
  assert.not(seen.has("3torn"), "the reliable entry");
  note(`${cuts} cuts of a packed write, ${seen.size} different prefixes`);
});

test("HPI is no failure of an entry: the sectors that landed are counted over all entries, no index is set", () => {
  for (const [afterUs, landed] of [
    [150, 0],
    [450, 3],
    [1_050, 8],
  ] as const) {
    const bus = opened({ timing: { programNs: 100_000 } });
    bus.switchByte(161, 1);
    bus.setBus(4, true, 50_000);
    bus.must(23, PACKED | 11);
    bus.describe(11 * 512);
    bus.dmaMemory(11 * 512).set(headerOf(bus, "write", THREE));
    bus.dmaMemory(11 * 512).set(pattern(10, 5), 512);
    bus.write8(REG.hostControl, bus.read8(REG.hostControl) | 0x10);
    bus.must(25, 100, "r1", { read: false, blocks: 11, mode: MODE.count | MODE.multi | MODE.dma });
    bus.idle(afterUs * 1000);
    bus.resetLines();
    bus.must(12, 0);
    bus.must(13, (bus.rca << 16) | 1);
    bus.awaitTran();
    const extCsd = bus.extCsd();
    const count = new DataView(extCsd.buffer, extCsd.byteOffset).getUint32(242, true);
    assert.equal([count, extCsd[36], extCsd[35]], [landed, 0, 0], `after ${afterUs} µs`);
  }
});

test("a panic in the middle of a packed write takes the card back and writes its record", () => {
  for (const blocksSent of [0, 1, 2, 5]) {
    const area = { offset: 1 << 20, kmsgSize: 65536, kmsgCount: 4, abi: "lp64" } as const;
    const device = Device.open(coreModule("release"), { sizeBytes: 2 << 20, addressing: "sector", area });
    const { core } = device;
    core.blockCommand(23, PACKED | 11, 0x1a);
    core.mmioWrite32(REG.blockSize, (11 << 16) | 512);
    core.mmioWrite32(REG.argument, 100);
    core.mmioWrite32(REG.transferMode, (25 << 24) | (0x3a << 16) | MODE.count | MODE.multi);
    core.idleNs(100_000);
    const header = new Uint8Array(512);
    const view = new DataView(header.buffer);
    header.set([1, 2, 1]);
    view.setUint32(8, 10, true);
    view.setUint32(12, 100, true);
    for (let block = 0; block < blocksSent; block++) {
      for (let at = 0; at < 512; at += 4) {
        core.mmioWrite32(REG.buffer, block === 0 ? view.getUint32(at, true) : 0x55555555);
      }
      core.idleNs(1_000_000);
    }
    assert.is(device.state().card, "rcv");
    const result = device.panicWrite({ text: "the last words", timeSec: 7n });
    assert.equal([result.status, result.cardState], [0, "rcv"], `${blocksSent} blocks`);
    const { records } = decodeArea(device.medium().slice(1 << 20), { kmsgSize: 65536 });
    assert.is(new TextDecoder().decode(records[0]?.bytes).split("\n")[1], "the last words");
    const landed =
      device
        .medium()
        .subarray(100 * 512, 110 * 512)
        .filter((byte) => byte === 0x55).length / 512;
    assert.is(landed, Math.max(0, blocksSent - 1), "the header is no sector");
  }
});

test("contexts and tags are accepted: every id with every flag, and what is configured is kept until a reset", () => {
  let cases = 0;
  const bus = opened();
  assert.is(bus.extCsd()[496], 5, "MAX_CONTEXT_ID 5");
  for (let id = 1; id <= 15; id++) {
    const conf = 36 + id;
    const refused = (bus.switchByte(conf, 0x11 + id) & R1.switchError) !== 0;
    assert.is(refused, id > 5, `CONTEXT_CONF ${id}`);
    assert.is(bus.extCsd()[conf], id > 5 ? 0 : 0x11 + id);
  }
  for (let context = 0; context < 16; context++) {
    for (const flags of [0, 1 << 29, FORCED, RELIABLE, RELIABLE | (1 << 29)]) {
      const data = pattern(3, cases + 1);
      const all = (flags | (context << 25)) >>> 0;
      assert.is(bus.writeBlocks(30, data, { count23: true, flags: all }).errors, 0, hex(all));
      assert.is(bus.awaitTran() & ~0x1fff, 0, hex(all));
      const read = bus.readBlocks(30, 3, { count23: true, flags: context << 25 });
      same(read.data, data, hex(all));
      cases++;
    }
  }
  bus.identify();
  assert.equal([...bus.extCsd().slice(37, 52)], new Array(15).fill(0), "CMD0");
  note(`${cases} CMD23 with context and tag`);
});

test.run();
