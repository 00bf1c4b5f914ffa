// Every byte of EXT_CSD's modes segment × CMD6's access kinds × resets, against a table written down here from
// JESD84-B51 §7.4 as mmc.md §1.8 has it; what each byte means for the card where no other test asks: CSD of
// byte-addressed cards, CMD26 and 27, RST_n, power-off notification, background operations, CMD23's upper bits.
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  Bus,
  type BusOptions,
  hex,
  INT,
  INT_ERRORS,
  note,
  pattern,
  R1,
  type Reply,
  same,
  stateOf,
} from "./bus.js";

const MIB = 2048; // in sectors

function opened(options: BusOptions = {}): Bus {
  return new Bus({ sectors: 1024, bootSectors: 256, cacheSectors: 8, ...options }).open();
}

function isRefused(bus: Bus, index: number, value: number, access = 3): boolean {
  return (bus.switchByte(index, value, access) & R1.switchError) !== 0;
}

// ---- write types ----

/** What ends a value: nothing (R/W, R/W/E), power and RST_n (R/W/C_P), these and CMD0 (R/W/E_P, W/E_P). */
type Scope = "never" | "power" | "CMD0";

interface Type {
  /** Values taken on a fresh card of opened(); all others are refused. */
  takes: readonly number[];
  scope: Scope;
  /** A bit once set is refused to be cleared. */
  once?: boolean;
  /** W: reads 0. */
  hidden?: boolean;
}

const bitsOf = (mask: number) => Array.from({ length: 256 }, (_, v) => v).filter((v) => (v & ~mask) === 0);
const ANY = bitsOf(0xff);

/** BACKGROUND and FLUSH need another byte first: their own tests. */
const TYPES: Record<number, Type> = {
  15: { takes: [0], scope: "CMD0" },
  33: { takes: [0, 1], scope: "CMD0" },
  34: { takes: [0, 1, 2, 3, 4], scope: "CMD0" },
  37: { takes: ANY, scope: "CMD0" },
  38: { takes: ANY, scope: "CMD0" },
  39: { takes: ANY, scope: "CMD0" },
  40: { takes: ANY, scope: "CMD0" },
  41: { takes: ANY, scope: "CMD0" },
  56: { takes: bitsOf(0x1e), scope: "CMD0" },
  131: { takes: ANY, scope: "never" },
  161: { takes: [0, 1], scope: "CMD0" },
  162: { takes: [0, 1, 2], scope: "never", once: true },
  163: { takes: [0, 1, 2, 3], scope: "never", once: true },
  165: { takes: ANY, scope: "CMD0", hidden: true },
  // USER_WP: an enabled rule and its prohibition exclude each other; bits 1 and 5 are not there.
  171: {
    takes: bitsOf(0xdd).filter((v) => (v & 0x09) !== 0x09 && (v & 0x14) !== 0x14),
    scope: "never",
    once: true,
  },
  173: {
    takes: bitsOf(0xdf).filter((v) => (v & 0x41) !== 0x41 && (v & 0x14) !== 0x14),
    scope: "never",
    once: true,
  },
  175: { takes: [0, 1], scope: "CMD0" },
  177: { takes: bitsOf(0x1f).filter((v) => (v & 3) !== 3 && v < 0x18), scope: "never" },
  178: { takes: bitsOf(0x11), scope: "never", once: true },
  179: {
    takes: bitsOf(0x7f).filter((v) => (v & 7) <= 2 && [0, 1, 2, 7].includes((v >> 3) & 7)),
    scope: "never",
  },
  183: { takes: [0, 1, 2], scope: "CMD0", hidden: true },
  185: { takes: [0, 1], scope: "CMD0" },
  187: { takes: [0], scope: "CMD0" },
};
/** Bits of mixed bytes: what is left of 0xff after CMD0, and after power or RST_n. */
const MIXED: Record<number, { afterCmd0: number; afterPower: number }> = {
  171: { afterCmd0: 0xd8, afterPower: 0xd0 },
  173: { afterCmd0: 0xff, afterPower: 0x14 },
  178: { afterCmd0: 0xff, afterPower: 0x10 },
  179: { afterCmd0: 0x78, afterPower: 0x78 },
};
/** Set once: the bits that cannot be taken back. */
const ONCE: Record<number, number> = { 162: 0x03, 163: 0x01, 171: 0xd8, 173: 0xff, 178: 0x11 };

test("every byte 0 … 191 × every value by write byte: taken or SWITCH_ERROR, as its type says", () => {
  const bus = opened();
  const fresh = bus.save();
  let cases = 0;
  const failures: string[] = [];
  for (let index = 0; index < 192; index++) {
    const type = TYPES[index];
    // A byte that nobody writes refuses some values as it refuses all.
    const values = type ? ANY : [0, 1, 0x5a, 0xff];
    for (const value of values) {
      bus.load(fresh);
      const before = new Uint8Array(bus.extCsd());
      const refused = isRefused(bus, index, value);
      const expected = type ? !type.takes.includes(value) : true;
      if (refused !== expected)
        failures.push(`EXT_CSD[${index}] = ${value}: ${refused ? "refused" : "taken"}`);
      if (index === 183) continue; // the host would have to follow
      bus.load(fresh);
      isRefused(bus, index, value);
      const after = bus.extCsd();
      const shown = refused || type?.hidden ? (before[index] ?? 0) : value;
      if (after[index] !== shown) failures.push(`EXT_CSD[${index}] = ${value}: reads ${after[index]}`);
      // Of all others only what tells of it may change: BOOT_WP_STATUS.
      after[index] = before[index] ?? 0;
      if (index === 173) after[174] = 0;
      if (Buffer.compare(after, before) !== 0) failures.push(`EXT_CSD[${index}] = ${value}: others change`);
      cases++;
    }
  }
  assert.equal(failures, []);
  note(`${cases} cases of EXT_CSD bytes × values`);
});

test("set bits and clear bits do what write byte of the result would do", () => {
  const bus = opened();
  const fresh = bus.save();
  let cases = 0;
  for (let index = 0; index < 192; index++) {
    if (index === 183) continue;
    const type = TYPES[index];
    const first = type?.takes.at(-1) ?? 0;
    for (const access of [1, 2] as const) {
      for (const bits of [0, 0x01, 0x02, 0x10, 0x48, 0xff]) {
        bus.load(fresh);
        if (type && !type.hidden) assert.is(isRefused(bus, index, first), false);
        const before = bus.extCsd()[index] ?? 0;
        const wanted = access === 1 ? before | bits : before & ~bits & 0xff;
        const ready = bus.save();
        const byWrite = isRefused(bus, index, wanted);
        const shown = bus.extCsd()[index];
        bus.load(ready);
        const what = `EXT_CSD[${index}] ${hex(before)} access ${access} ${hex(bits)}`;
        assert.is(isRefused(bus, index, bits, access), byWrite, what);
        assert.is(bus.extCsd()[index], shown, what);
        if (!type) assert.is(byWrite, true, what);
        const lost = before & ~wanted & (ONCE[index] ?? 0);
        if (lost !== 0) assert.is(byWrite, true, `${what}: set once`);
        cases++;
      }
    }
  }
  note(`${cases} cases of set and clear bits`);
});

test("access 0 selects a command set: 0 is the only one", () => {
  const bus = opened();
  for (let set = 0; set < 8; set++) {
    bus.must(6, set, "r1b");
    bus.awaitBusy();
    assert.is(bus.status() & R1.switchError, set === 0 ? 0 : R1.switchError, `set ${set}`);
  }
  assert.is(bus.extCsd()[191], 0);
});

test("bytes 192 … 255 are properties: no access writes them", () => {
  const bus = opened();
  const before = bus.extCsd();
  for (let index = 192; index < 256; index++) {
    for (const access of [1, 2, 3]) assert.is(isRefused(bus, index, 0xff, access), true, `${index}`);
  }
  same(bus.extCsd(), before, "EXT_CSD");
});

type Reset = "CMD0" | "power cycle" | "power cut" | "RST_n" | "RST_n not enabled";
const RESETS: readonly Reset[] = ["CMD0", "power cycle", "power cut", "RST_n", "RST_n not enabled"];

function reset(bus: Bus, how: Reset): void {
  if (how === "CMD0") bus.identify();
  else if (how === "power cut") bus.cutAndReopen(0, 0);
  else if (how === "power cycle") {
    bus.powerDown();
    bus.open();
  } else {
    bus.core.machineReset();
    if (how === "RST_n") {
      assert.is(bus.state, "idle", how);
      bus.setLines(1);
      bus.setClock(400);
      bus.identify();
    }
  }
}

test("every writable byte × every reset: what is left of it", () => {
  let cases = 0;
  for (const [name, type] of Object.entries(TYPES)) {
    const index = Number(name);
    if (type.hidden) continue;
    for (const value of new Set([type.takes.at(-1) ?? 0, type.takes[1] ?? 0, type.takes.at(-2) ?? 0])) {
      for (const how of RESETS) {
        const bus = opened();
        const pin = how === "RST_n" ? 1 : 0;
        if (pin !== 0 && index !== 162) assert.is(isRefused(bus, 162, 1), false);
        if (index === 162 && how.startsWith("RST_n") && (how === "RST_n") !== (value === 1)) continue;
        assert.is(isRefused(bus, index, value), false, `EXT_CSD[${index}] = ${value}`);
        reset(bus, how);
        const { afterCmd0, afterPower } = MIXED[index] ?? {
          afterCmd0: type.scope === "never" ? 0xff : 0,
          afterPower: type.scope === "never" ? 0xff : 0,
        };
        const mask = how === "CMD0" ? afterCmd0 : how === "RST_n not enabled" ? 0xff : afterPower;
        assert.is(bus.extCsd()[index], value & mask, `EXT_CSD[${index}] = ${value}, ${how}`);
        cases++;
      }
    }
  }
  note(`${cases} cases of writable bytes × resets`);
});

test("RST_n: disabled for good, it does nothing; enabled, it aborts programming and forgets the cache", () => {
  const dead = opened();
  assert.is(isRefused(dead, 162, 2), false);
  dead.core.machineReset();
  assert.is(stateOf(dead.status()), "tran");
  assert.is(isRefused(dead, 162, 1), true, "it is too late to change one's mind");
  for (const cacheKeptAtReset of [false, true]) {
    const bus = opened({ cacheKeptAtReset, timing: { programNs: 1_000_000 }, abortOutcome: "old" });
    bus.switchByte(162, 1);
    bus.switchByte(33, 1);
    assert.is(bus.writeBlocks(9, pattern(1)).errors, 0);
    bus.awaitTran();
    bus.core.machineReset();
    assert.is(bus.state, "idle");
    same(bus.stored(9), cacheKeptAtReset ? pattern(1) : new Uint8Array(512), "cached sector");
  }
});

// ---- what the table of mmc.md §1.8 has ----

test("EXT_CSD: the properties agree with what the card does", () => {
  const ext = opened().extCsd();
  for (const [index, expected, name] of [
    [16, 1, "SECURE_REMOVAL_TYPE"],
    [130, 0, "PROGRAM_CID_CSD_DDR_SUPPORT: CMD26 and 27 are illegal there"],
    [157, 0, "MAX_ENH_SIZE_MULT"],
    [160, 0, "PARTITIONING_SUPPORT: comes as it is"],
    [168, 0, "RPMB_SIZE_MULT: none"],
    [184, 0, "STROBE_SUPPORT"],
    [197, 1, "DRIVER_STRENGTH: type 0"],
    [205, 8, "MIN_PERF"],
    [221, 16, "HC_WP_GRP_SIZE"],
    [222, 1, "REL_WR_SEC_C"],
    [228, 0, "BOOT_INFO: no boot mode"],
    [231, 0x50, "SEC_FEATURE_SUPPORT: trim and sanitize"],
    [307, 0, "CMDQ_DEPTH"],
    [308, 0, "CMDQ_SUPPORT"],
    [486, 0, "BARRIER_SUPPORT"],
    [493, 0, "SUPPORTED_MODES: no FFU"],
    [496, 5, "CONTEXT_CAPABILITIES"],
    [499, 0, "DATA_TAG_SUPPORT"],
    [500, 63, "MAX_PACKED_WRITES"],
    [501, 63, "MAX_PACKED_READS"],
    [502, 1, "BKOPS_SUPPORT"],
    [504, 1, "S_CMD_SET"],
  ] as const) {
    assert.is(ext[index], expected, name);
  }
});

// ---- CSD, CID ----

function bits(words: readonly number[], high: number, low: number): number {
  let value = 0n;
  for (const word of [...words].reverse()) value = (value << 32n) | BigInt(word);
  return Number(((value << 8n) >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
}

function csdWords(bus: Bus): readonly number[] {
  bus.send(7, 0, "none");
  const { words } = bus.must(9, bus.rca << 16, "r2");
  bus.must(7, bus.rca << 16, "r1b");
  bus.awaitBusy();
  return words;
}

test("byte addressing: OCR without bit 30, the CSD's real capacity, SEC_COUNT the same", () => {
  for (const sectors of [1024, MIB, 7 * 1024, 64 * MIB, 1023 * 1024]) {
    const bus = new Bus({ sectors, emmc: { byteAddressed: true } });
    bus.powerUp();
    bus.identify("idle");
    assert.is(hex(bus.send(1, 0, "r3").r1), "0x00ff8080", "an inquiry");
    assert.is(hex(bus.operatingConditions(0x00ff8080)), "0x80ff8080", "ready for a host that asks for bytes");
    bus.identify();
    const csd = csdWords(bus);
    const capacity = (bits(csd, 73, 62) + 1) * 2 ** (bits(csd, 49, 47) + 2) * 2 ** bits(csd, 83, 80);
    assert.is(capacity, sectors * 512, "C_SIZE, C_SIZE_MULT, READ_BL_LEN");
    assert.is(new DataView(bus.extCsd().buffer).getUint32(212, true), sectors, "SEC_COUNT");
    bus.identify("idle");
    assert.is(hex(bus.operatingConditions(0x40ff8080)), "0x80ff8080", "a host that can do both sees bytes");
  }
});

/** The 16 bytes of the CSD as a host would send them back. */
function csdBytes(bus: Bus): Uint8Array {
  const words = csdWords(bus);
  return Uint8Array.from({ length: 16 }, (_, i) => (i < 15 ? bits(words, 127 - 8 * i, 120 - 8 * i) : 0));
}

function programRegister(bus: Bus, index: number, bytes: Uint8Array): number {
  bus.must(index, 0, "r1", { read: false, blocks: 1, blockBytes: 16 });
  assert.is(bus.pioWrite(bytes, 16), 0);
  assert.is((bus.awaitStatus(INT.transfer) & INT_ERRORS) >>> 0, 0);
  return bus.awaitTran();
}

test("CMD27: every bit of the CSD: writable, set once, or CID_CSD_OVERWRITE and nothing changes", () => {
  const WRITABLE = new Set([8, 9, 10, 11, 12, 13, 14, 15]);
  const once = new Set([13, 14, 15]);
  let cases = 0;
  for (let bit = 8; bit < 128; bit++) {
    const bus = opened();
    const before = csdBytes(bus);
    const changed = before.slice();
    const at = 15 - (bit >> 3);
    changed[at] = (changed[at] ?? 0) ^ (1 << (bit & 7));
    const told = programRegister(bus, 27, changed);
    assert.is(told & R1.overwrite, WRITABLE.has(bit) ? 0 : R1.overwrite, `bit ${bit}`);
    same(csdBytes(bus), WRITABLE.has(bit) ? changed : before, `bit ${bit}`);
    bus.cutAndReopen(0, 0);
    same(csdBytes(bus), WRITABLE.has(bit) ? changed : before, `bit ${bit} after a power cut`);
    if (WRITABLE.has(bit)) {
      const back = programRegister(bus, 27, before);
      assert.is(back & R1.overwrite, once.has(bit) ? R1.overwrite : 0, `bit ${bit} back`);
      same(csdBytes(bus), once.has(bit) ? changed : before, `bit ${bit} back`);
    }
    assert.is(bus.status() & R1.overwrite, 0, "told once");
    cases++;
  }
  note(`${cases} cases of CSD bits`);
});

test("CMD26: the CID has been written by its maker", () => {
  const bus = opened();
  const cid = (): readonly number[] => {
    bus.send(7, 0, "none");
    const { words } = bus.must(10, bus.rca << 16, "r2");
    bus.must(7, bus.rca << 16, "r1b");
    bus.awaitBusy();
    return words;
  };
  const before = cid();
  assert.is(programRegister(bus, 26, new Uint8Array(16).fill(0x5a)) & R1.overwrite, R1.overwrite);
  assert.equal(cid(), before);
});

test("CMD27: PERM_WRITE_PROTECT can be forbidden; a block of the wrong length is dropped", () => {
  const bus = opened();
  assert.is(isRefused(bus, 171, 0x40), false);
  const csd = csdBytes(bus);
  csd[14] = (csd[14] ?? 0) | 0x20;
  assert.is(programRegister(bus, 27, csd) & R1.overwrite, R1.overwrite);
  csd[14] = (csd[14] ?? 0) ^ 0x30;
  bus.must(27, 0, "r1", { read: false, blocks: 1, blockBytes: 32 });
  assert.is(
    (bus.pioWrite(new Uint8Array(32), 32) | bus.awaitStatus(INT.transfer)) & INT.dataCrc,
    INT.dataCrc,
  );
  bus.resetLines();
  assert.is(stateOf(bus.status()), "tran");
});

// ---- power-off notification ----

test("power-off notification: 2 and 3 store the cache in its time, work behind it makes it POWERED_ON", () => {
  for (const value of [1, 2, 3, 4]) {
    const bus = opened({ timing: { programNs: 1_000_000, switchNs: 100_000 } });
    bus.switchByte(33, 1);
    bus.writeBlocks(20, pattern(3), { count23: true });
    bus.awaitTran();
    const start = bus.nowNs;
    assert.is(isRefused(bus, 34, value), false);
    const flushes = value === 2 || value === 3;
    assert.is(bus.nowNs - start >= 3_000_000, flushes, `${value}: as long as three sectors take`);
    assert.is(Buffer.compare(bus.stored(22), pattern(3).subarray(1024)) === 0, flushes, `${value}: stored`);
    bus.status();
    assert.is(bus.extCsd()[34], value, "CMD13 and CMD8 are no work");
    bus.readBlocks(0, 1);
    assert.is(bus.extCsd()[34], 1, "a read is");
    assert.is(isRefused(bus, 34, 0), false);
    bus.readBlocks(0, 1);
    assert.is(bus.extCsd()[34], 0, "without a notification nothing happens");
  }
});

// ---- background operations ----

test("BKOPS: the level grows with what is programmed, urgent ones raise EXCEPTION_EVENT until they are done", () => {
  const emmc = { bkopsSectors: 4, bkopsNs: 10_000_000 };
  const bus = opened({ emmc, cacheSectors: 0 });
  assert.is(isRefused(bus, 164, 1), true, "BKOPS_START before MANUAL_EN");
  const level = () => bus.extCsd()[246];
  for (const [sectors, expected] of [
    [3, 0],
    [1, 1],
    [4, 2],
    [4, 3],
    [40, 3],
  ] as const) {
    bus.writeBlocks(0, pattern(sectors), { count23: true });
    assert.is(bus.awaitTran() & R1.exception, 0, "a host that has not promised to care is not asked");
    assert.is(level(), expected);
  }
  assert.is(isRefused(bus, 163, 1), false);
  assert.is(bus.status() & R1.exception, R1.exception, "EXCEPTION_EVENT");
  assert.is(bus.status() & R1.exception, R1.exception, "is a state, not an event");
  assert.is(bus.extCsd()[54], 1, "URGENT_BKOPS");
  bus.cutAndReopen(0, 0);
  assert.is(level(), 3, "the dirt survives a power cut");
  const start = bus.nowNs;
  bus.must(6, 0x03a40101, "r1b");
  assert.is(stateOf(bus.status()), "prg");
  bus.awaitBusy();
  assert.is(bus.nowNs - start >= 30_000_000, true, "three levels");
  assert.equal([bus.status() & R1.exception, level(), bus.extCsd()[54]], [0, 0, 0]);
});

test("HPI ends BKOPS and sanitize early; the level stays", () => {
  for (const index of [164, 165]) {
    const bus = opened({ emmc: { bkopsSectors: 1, bkopsNs: 2_000_000_000 }, timing: { hpiNs: 1_000_000 } });
    bus.switchByte(163, 1);
    bus.switchByte(161, 1);
    bus.writeBlocks(0, pattern(2), { count23: true });
    bus.awaitTran();
    const start = bus.nowNs;
    bus.must(6, ((3 << 24) | (index << 16) | (1 << 8) | 1) >>> 0);
    assert.is(stateOf(bus.must(13, ((bus.rca << 16) | 1) >>> 0).r1), "prg");
    bus.awaitTran();
    assert.is(bus.nowNs - start < 100_000_000, true, `EXT_CSD[${index}]`);
    assert.is(bus.extCsd()[246], 2);
  }
});

test("sanitize: busy for its time, and what was erased stays erased", () => {
  const bus = opened({ emmc: { bkopsNs: 5_000_000 } });
  bus.preset(7, pattern(1));
  const start = bus.nowNs;
  assert.is(isRefused(bus, 165, 1), false);
  assert.is(bus.nowNs - start >= 5_000_000, true);
  same(bus.stored(7), pattern(1), "mapped data");
});

// ---- CMD23, reliable write, erase arguments ----

/** CMD23 with `argument`, then CMD25 or CMD18 without the data. */
function behindCount(bus: Bus, index: 18 | 25, argument: number): Reply {
  bus.must(23, argument >>> 0);
  return bus.send(index, 0);
}

test("CMD23: tag and context are taken and change nothing", () => {
  let cases = 0;
  for (const index of [18, 25] as const) {
    for (const flags of [0, 1 << 29, 5 << 25, (1 << 29) | (2 << 25)]) {
      const bus = opened({ timing: { readNs: 1e9 } });
      const { r1 } = behindCount(bus, index, flags | 1);
      assert.is(r1 & R1.error, 0, hex(flags));
      assert.is(bus.state, index === 25 ? "rcv" : "data", hex(flags));
      cases++;
    }
  }
  note(`${cases} cases of CMD23 arguments`);
});

test("reliable write: any count with EN_REL_WR, REL_WR_SEC_C = 1 sector without", () => {
  for (const reliableWrite of [false, true]) {
    for (const count of [1, 2, 8]) {
      const bus = opened({ reliableWrite });
      const { r1 } = behindCount(bus, 25, 0x80000000 + count);
      const error = !reliableWrite && count !== 1;
      assert.is(r1 & R1.blockLength, error ? R1.blockLength : 0, `${count}`);
      assert.is(bus.state, error ? "tran" : "rcv");
    }
  }
});

test("CMD38: every secure form is ERASE_PARAM, as SEC_FEATURE_SUPPORT says", () => {
  for (const argument of [0x80000000, 0x80000001, 0x80008000, 2, 4, 0xffffffff]) {
    const bus = opened();
    bus.preset(0, pattern(1));
    bus.must(35, 0);
    bus.must(36, 0);
    assert.is(bus.must(38, argument, "r1b").r1 & R1.eraseParameter, R1.eraseParameter, hex(argument));
    same(bus.stored(0), pattern(1), hex(argument));
  }
});

test.run();
