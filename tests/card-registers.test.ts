// CID, CSD, EXT_CSD, SCR, SSR and what CMD6 does to them, as Linux reads them over the bus (mmc.md §1.7-1.9):
// versions, capacities, CRC7, reset scopes, access modes, refusals, bus width, high speed, cache, partitions.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CARD_BASE } from "../assembly/layout.js";
import { Bus, type BusOptions, hex, INT, INT_ERRORS, MODE, note, pattern, R1, same, stateOf } from "./bus.js";

const MIB = 2048; // in sectors

/** x^7 + x^3 + 1 over whole bytes. */
function crc7(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const feedback = ((crc >> 6) ^ (byte >> bit)) & 1;
      crc = ((crc << 1) & 0x7f) ^ (feedback !== 0 ? 0x09 : 0);
    }
  }
  return crc;
}

/** Bits of a 128-bit register as SDHCI_RESPONSE has it: without the lowest byte. */
function bits(words: readonly number[], high: number, low: number): number {
  let value = 0n;
  for (const word of [...words].reverse()) value = (value << 32n) | BigInt(word);
  return Number(((value << 8n) >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
}

/** The register as on the wire. SDHCI does not show the lowest byte: it is from the card's own memory. */
function wire(bus: Bus, words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(16);
  for (let i = 0; i < 15; i++) bytes[i] = bits(words, 127 - 8 * i, 120 - 8 * i);
  const memory = new DataView(bus.memory.buffer, CARD_BASE, 0x300);
  for (let at = 0; at + 16 <= 0x300; at += 4) {
    const matches = bytes.subarray(0, 15).every((byte, i) => memory.getUint8(at + 15 - i) === byte);
    if (matches) bytes[15] = memory.getUint8(at);
  }
  return bytes;
}

function opened(options: BusOptions = {}): Bus {
  return new Bus(options).open();
}

/** CMD9 or 10, which need stby, and back. */
function longRegister(bus: Bus, index: number): readonly number[] {
  bus.send(7, 0, "none");
  const { words } = bus.must(index, bus.rca << 16, "r2");
  bus.must(7, bus.rca << 16, "r1b");
  bus.awaitBusy();
  return words;
}

function text(words: readonly number[], high: number, low: number): string {
  let out = "";
  for (let at = high; at > low; at -= 8) out += String.fromCharCode(bits(words, at, at - 7));
  return out;
}

// ---- CID, CSD ----

test("OCR: busy, then ready with sector mode", () => {
  for (const [card, argument, busy, ready] of [
    ["emmc", 0x40ff8080, 0x40ff8080, 0xc0ff8080],
    ["sd", 0x40ff8000, 0x00ff8000, 0xc0ff8000],
  ] as const) {
    const bus = new Bus({ card, timing: { initNs: 50_000_000 } });
    const ask = (ocr: number) => (card === "emmc" ? bus.send(1, ocr, "r3") : bus.app(41, ocr, "r3")).r1;
    bus.powerUp();
    bus.identify("idle");
    assert.is(hex(ask(0)), hex(busy), `${card}: an inquiry`);
    bus.idle(100_000_000);
    assert.is(hex(ask(argument)), hex(busy), `${card}: the inquiry did not start it`);
    bus.idle(40_000_000);
    assert.is(hex(ask(argument)), hex(busy), `${card}: not yet`);
    assert.is(bus.state, "idle");
    bus.idle(20_000_000);
    assert.is(hex(ask(argument)), hex(ready), `${card}: ready`);
    assert.is(bus.state, "ready");
  }
});

test("CID: fields, the serial number of the configuration, CRC7", () => {
  for (const serial of [1, 0xdeadbeef]) {
    for (const card of ["emmc", "sd"] as const) {
      const bus = opened({ card, serial });
      const cid = longRegister(bus, 10);
      assert.is(card === "emmc" ? bits(cid, 47, 16) : bits(cid, 55, 24), serial, `${card}: PSN`);
      assert.match(card === "emmc" ? text(cid, 103, 56) : text(cid, 103, 64), /^[\x20-\x7e]+$/);
      if (card === "emmc") {
        assert.is(bits(cid, 113, 112), 1, "CBX: BGA");
        const month = bits(cid, 15, 12);
        assert.is(month >= 1 && month <= 12, true, "MDT: month");
      } else {
        const month = bits(cid, 11, 8);
        assert.is(month >= 1 && month <= 12, true, "MDT: month");
      }
      const bytes = wire(bus, cid);
      assert.is(bytes[15], (crc7(bytes.subarray(0, 15)) << 1) | 1, `${card}: CRC7`);
    }
  }
});

test("CMD2 and CMD10 tell the same CID", () => {
  for (const card of ["emmc", "sd"] as const) {
    const bus = new Bus({ card });
    bus.powerUp();
    bus.identify("ready");
    const first = bus.must(2, 0, "r2").words;
    if (card === "emmc") bus.must(3, bus.rca << 16);
    else bus.rca = bus.must(3, 0, "r6").r1 >>> 16;
    assert.equal(bus.must(10, bus.rca << 16, "r2").words, first);
  }
});

test("CSD of an eMMC: version in EXT_CSD, sector mode, times, classes", () => {
  const bus = opened();
  const csd = longRegister(bus, 9);
  for (const [high, low, expected, name] of [
    [127, 126, 3, "CSD_STRUCTURE"],
    [125, 122, 4, "SPEC_VERS"],
    [119, 112, 0x4f, "TAAC"],
    [111, 104, 1, "NSAC"],
    [103, 96, 0x32, "TRAN_SPEED"],
    [95, 84, 0x075, "CCC: no class 7, there is no lock"],
    [83, 80, 9, "READ_BL_LEN"],
    [76, 76, 0, "DSR_IMP"],
    [73, 62, 0xfff, "C_SIZE"],
    [49, 47, 7, "C_SIZE_MULT"],
    [28, 26, 2, "R2W_FACTOR"],
    [25, 22, 9, "WRITE_BL_LEN"],
    [13, 12, 0, "PERM_WP, TMP_WP"],
  ] as const) {
    assert.is(bits(csd, high, low), expected, name);
  }
  const group = (bits(csd, 46, 42) + 1) * (bits(csd, 41, 37) + 1);
  assert.is(group, 1024, "an erase group of the CSD is 512 KiB too");
  const bytes = wire(bus, csd);
  assert.is(bytes[15], (crc7(bytes.subarray(0, 15)) << 1) | 1, "CRC7");
});

test("CSD of SDHC: version 2.0 and the capacity of several sizes", () => {
  for (const sectors of [1024, MIB, 64 * MIB, 7 * 1024]) {
    const bus = opened({ card: "sd", sectors });
    const csd = longRegister(bus, 9);
    for (const [high, low, expected, name] of [
      [127, 126, 1, "CSD_STRUCTURE"],
      [119, 112, 0x0e, "TAAC"],
      [111, 104, 0, "NSAC"],
      [103, 96, 0x32, "TRAN_SPEED"],
      [95, 84, 0x535, "CCC: no class 7, there is no lock"],
      [83, 80, 9, "READ_BL_LEN"],
      [79, 76, 0, "READ_BL_PARTIAL … DSR_IMP"],
      [46, 46, 1, "ERASE_BLK_EN"],
      [45, 39, 0x7f, "SECTOR_SIZE"],
      [28, 26, 2, "R2W_FACTOR"],
      [25, 22, 9, "WRITE_BL_LEN"],
    ] as const) {
      assert.is(bits(csd, high, low), expected, name);
    }
    assert.is((bits(csd, 69, 48) + 1) * 1024, sectors, "capacity");
    const bytes = wire(bus, csd);
    assert.is(bytes[15], (crc7(bytes.subarray(0, 15)) << 1) | 1, "CRC7");
  }
});

// ---- EXT_CSD ----

function word(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
}

test("EXT_CSD: SEC_COUNT of several sizes, boot size, cache size", () => {
  for (const [sectors, bootSectors, cacheSectors] of [
    [1024, 0, 0],
    [MIB, 256, 1],
    [16 * MIB, 1024, 64],
  ] as const) {
    const ext = opened({ sectors, bootSectors, cacheSectors }).extCsd();
    assert.is(word(ext, 212), sectors, "SEC_COUNT");
    assert.is((ext[226] ?? 0) * 256, bootSectors, "BOOT_SIZE_MULT");
    assert.is(word(ext, 249), Math.ceil(cacheSectors / 2), "CACHE_SIZE in KiB, 1 for one sector");
  }
});

test("EXT_CSD: what Linux needs, and nothing that it must not see", () => {
  const ext = opened({ bootSectors: 256, cacheSectors: 8 }).extCsd();
  for (const [index, expected, name] of [
    [15, 0, "CMDQ_MODE_EN"],
    [33, 0, "CACHE_CTRL"],
    [34, 0, "POWER_OFF_NOTIFICATION"],
    [61, 0, "DATA_SECTOR_SIZE"],
    [155, 0, "PARTITION_SETTING_COMPLETED"],
    [161, 0, "HPI_MGMT"],
    [168, 0, "RPMB_SIZE_MULT"],
    [175, 0, "ERASE_GROUP_DEF"],
    [179, 0, "PARTITION_CONFIG"],
    [181, 0, "ERASED_MEM_CONT"],
    [183, 0, "BUS_WIDTH"],
    [185, 0, "HS_TIMING"],
    [187, 0, "POWER_CLASS"],
    [192, 8, "EXT_CSD_REV"],
    [194, 2, "CSD_STRUCTURE"],
    [196, 3, "DEVICE_TYPE"],
    [200, 0, "PWR_CL_52_195"],
    [203, 0, "PWR_CL_26_360"],
    [224, 1, "HC_ERASE_GRP_SIZE"],
    [308, 0, "CMDQ_SUPPORT"],
  ] as const) {
    assert.is(ext[index], expected, name);
  }
  for (const [index, least, most, name] of [
    [198, 1, 255, "OUT_OF_INTERRUPT_TIME"],
    [199, 1, 255, "PARTITION_SWITCH_TIME"],
    [217, 1, 0x17, "S_A_TIMEOUT"],
    [222, 1, 255, "REL_WR_SEC_C"],
    [223, 1, 255, "ERASE_TIMEOUT_MULT"],
    [232, 1, 255, "TRIM_MULT"],
    [248, 1, 255, "GENERIC_CMD6_TIME"],
  ] as const) {
    const value = ext[index] ?? 0;
    assert.is(value >= least && value <= most, true, `${name}: ${value}`);
  }
  assert.is((ext[231] ?? 0) & 0x10, 0x10, "SEC_FEATURE_SUPPORT: trim");
});

test("EXT_CSD: reliable write and HPI as configured", () => {
  for (const on of [false, true]) {
    const ext = opened({ reliableWrite: on, hpi: on }).extCsd();
    assert.is(((ext[166] ?? 0) >> 2) & 1, on ? 1 : 0, "WR_REL_PARAM.EN_REL_WR");
    assert.is((ext[503] ?? 0) & 1, on ? 1 : 0, "HPI_FEATURES");
  }
});

// ---- CMD6 of an eMMC ----

/** Index, a value that is taken, and whether EXT_CSD shows it afterwards. */
const SWITCHES = [
  { index: 33, value: 1, shown: true },
  { index: 34, value: 1, shown: true },
  { index: 161, value: 1, shown: true },
  { index: 175, value: 1, shown: true },
  { index: 179, value: 2, shown: true },
  { index: 183, value: 0, shown: false },
  { index: 185, value: 1, shown: true },
  { index: 187, value: 0, shown: true },
] as const;

test("CMD6: each byte that Linux writes is taken, shown, and 0 again after CMD0 and after power", () => {
  let cases = 0;
  for (const { index, value, shown } of SWITCHES) {
    for (const reset of ["CMD0", "power cycle", "power cut"] as const) {
      const bus = opened({ bootSectors: 256, cacheSectors: 8 });
      assert.is(bus.switchByte(index, value) & R1.switchError, 0, `EXT_CSD[${index}] = ${value}`);
      assert.is(bus.extCsd()[index], shown ? value : 0, `EXT_CSD[${index}] reads`);
      if (reset === "CMD0") bus.identify();
      else if (reset === "power cut") bus.cutAndReopen(0, 0);
      else {
        bus.powerDown();
        bus.open();
      }
      assert.is(bus.extCsd()[index], 0, `EXT_CSD[${index}] after ${reset}`);
      cases++;
    }
  }
  note(`${cases} cases of EXT_CSD bytes × resets`);
});

test("CMD6: PARTITION_CONFIG keeps its boot bits over CMD0 and power, the access bits go", () => {
  const bus = opened({ bootSectors: 256 });
  assert.is(bus.switchByte(179, 0x49) & R1.switchError, 0);
  bus.identify();
  assert.is(bus.extCsd()[179], 0x48);
  bus.cutAndReopen(0, 0);
  assert.is(bus.extCsd()[179], 0x48);
});

test("CMD6: the access modes set, clear and write", () => {
  const bus = opened({ bootSectors: 256 });
  const set = (access: number, value: number) => {
    assert.is(bus.switchByte(179, value, access) & R1.switchError, 0);
    return bus.extCsd()[179];
  };
  assert.is(set(3, 0x08), 0x08, "write byte");
  assert.is(set(1, 0x41), 0x49, "set bits");
  assert.is(set(2, 0x07), 0x48, "clear bits: Linux's way back to the user area");
  assert.is(set(2, 0x07), 0x48, "clearing what is clear");
});

test("CMD6: a bad index or value ends in SWITCH_ERROR once, and nothing changes", () => {
  const bus = opened({ bootSectors: 256, cacheSectors: 8 });
  const before = bus.extCsd();
  let cases = 0;
  for (const [index, value, name] of [
    [192, 9, "a property"],
    [212, 1, "SEC_COUNT"],
    [511, 1, "cut to 255, which is read-only"],
    [33, 2, "CACHE_CTRL = 2"],
    [32, 1, "FLUSH_CACHE with the cache off"],
    [161, 2, "HPI_MGMT = 2"],
    [175, 2, "ERASE_GROUP_DEF = 2"],
    [179, 3, "RPMB, which is not there"],
    [179, 7, "a general purpose partition"],
    [183, 3, "BUS_WIDTH = 3"],
    [183, 6, "DDR"],
    [185, 2, "HS200"],
    [185, 3, "HS400"],
    [187, 5, "a power class"],
    [15, 1, "CMDQ_MODE_EN"],
  ] as const) {
    const r1 = bus.must(6, ((3 << 24) | ((index & 0xff) << 16) | (value << 8) | 1) >>> 0, "r1b").r1;
    assert.is(r1 & R1.switchError, 0, `${name}: CMD6 itself does not know yet`);
    bus.awaitBusy();
    const first = bus.status();
    assert.is(first & R1.switchError, R1.switchError, name);
    assert.is(stateOf(first), "tran", name);
    assert.is(bus.status() & R1.switchError, 0, `${name}: told once`);
    same(bus.extCsd(), before, name);
    cases++;
  }
  note(`${cases} cases of SWITCH_ERROR`);
});

test("CMD6: no cache, no HPI, no boot partitions: their switches are refused", () => {
  const bus = opened({ hpi: false });
  for (const [index, value] of [
    [33, 1],
    [161, 1],
    [179, 1],
  ] as const) {
    assert.is(bus.switchByte(index, value) & R1.switchError, R1.switchError, `EXT_CSD[${index}]`);
  }
});

test("CMD6 is busy for its time, in prg, and only then the byte changes", () => {
  const bus = opened({ timing: { switchNs: 5_000_000 } });
  bus.must(6, 0x03af0101, "r1b");
  const r1 = bus.status();
  assert.is(stateOf(r1), "prg");
  assert.is(r1 & R1.ready, 0);
  // A power cut now finds the old byte. Without one it comes.
  const busy = bus.save();
  bus.powerDown();
  bus.open();
  assert.is(bus.extCsd()[175], 0);
  bus.load(busy);
  bus.awaitBusy();
  assert.is(bus.extCsd()[175], 1);
});

// ---- bus width and speed ----

/** One block read with these lines and this clock of the host: whether it came through. */
function goesThrough(bus: Bus, width: 1 | 4 | 8, khz: number): boolean {
  bus.setLines(width);
  bus.setClock(khz);
  const reply = bus.must(17, 0, "r1", { read: true, blocks: 1 });
  assert.is(reply.errors, 0);
  const { status } = bus.pioRead(1);
  const good = (status & INT_ERRORS) === 0;
  if (!good) {
    assert.is((status & INT_ERRORS) >>> 0, INT.dataCrc, "a block at the wrong width or speed has a bad CRC");
    bus.resetLines();
  }
  bus.setLines(1);
  bus.setClock(400);
  bus.clearStatus();
  return good;
}

test("bus width and high speed: only what was switched on goes through", () => {
  let cases = 0;
  for (const card of ["emmc", "sd"] as const) {
    const widths = card === "emmc" ? ([1, 4, 8] as const) : ([1, 4] as const);
    for (const cardWidth of widths) {
      for (const highSpeed of [false, true]) {
        const bus = new Bus({ card });
        for (const hostWidth of [1, 4, 8] as const) {
          for (const khz of [400, 25_000, 50_000, 100_000]) {
            bus.core.machineInit();
            bus.open();
            bus.setBus(cardWidth, highSpeed, 400);
            const expected = hostWidth === cardWidth && khz <= (highSpeed ? 52_000 : 26_000);
            const what = `${card} ×${cardWidth} ${highSpeed ? "HS" : "DS"}, host ×${hostWidth} ${khz} kHz`;
            assert.is(goesThrough(bus, hostWidth, khz), expected, what);
            cases++;
          }
        }
      }
    }
  }
  note(`${cases} cases of width × speed`);
});

test("CMD0 takes a card back to one line and default speed", () => {
  for (const card of ["emmc", "sd"] as const) {
    const bus = opened({ card });
    bus.setBus(4, true, 50_000);
    bus.setLines(1);
    bus.setClock(400);
    bus.identify();
    assert.is(goesThrough(bus, 4, 400), false);
    bus.core.machineInit();
    bus.open();
    bus.setBus(4, true, 50_000);
    bus.setLines(1);
    bus.setClock(400);
    bus.identify();
    assert.is(goesThrough(bus, 1, 25_000), true);
    assert.is(goesThrough(bus, 1, 50_000), false);
  }
});

// ---- partitions ----

test("boot partitions: address spaces of their own, with their own size", () => {
  const bus = opened({ bootSectors: 256 });
  const blocks = [pattern(1, 10), pattern(1, 11), pattern(1, 12)];
  for (const [partition, block] of blocks.entries()) {
    assert.is(bus.switchByte(179, partition) & R1.switchError, 0);
    assert.is(bus.writeBlocks(5, block).errors, 0);
  }
  for (const [partition, block] of blocks.entries()) {
    assert.is(bus.switchByte(179, partition) & R1.switchError, 0);
    same(bus.readBlocks(5, 1).data, block, `partition ${partition} read`);
    same(bus.stored(5, partition), block, `partition ${partition} stored`);
    const last = partition === 0 ? bus.config.sectors - 1 : 255;
    assert.is(bus.readBlocks(last, 1).reply.r1 & R1.outOfRange, 0, `partition ${partition}: last sector`);
    const beyond = bus.must(17, last + 1).r1;
    assert.is((beyond & R1.outOfRange) >>> 0, R1.outOfRange, `partition ${partition}: one beyond`);
  }
  bus.identify();
  same(bus.readBlocks(5, 1).data, blocks[0] ?? new Uint8Array(), "CMD0 selects the user area");
});

// ---- cache ----

test("the cache: on, read back, flushed, off", () => {
  const bus = opened({ cacheSectors: 4 });
  const data = pattern(3);
  bus.switchByte(33, 1);
  assert.is(bus.writeBlocks(20, data, { count23: true }).errors, 0);
  bus.awaitTran();
  same(bus.readBlocks(20, 3, { count23: true }).data, data, "read back from the cache");
  assert.is(
    bus.stored(20).every((byte) => byte === 0),
    true,
    "not on the medium yet",
  );
  assert.is(bus.switchByte(32, 1) & R1.switchError, 0);
  same(bus.stored(22), data.subarray(1024), "flushed");
  assert.is(bus.extCsd()[32], 0, "FLUSH_CACHE reads 0");
  bus.writeBlocks(30, data.subarray(0, 512));
  bus.awaitTran();
  bus.switchByte(33, 0);
  same(bus.stored(30), data.subarray(0, 512), "switching the cache off flushes it");
  assert.is(bus.extCsd()[33], 0);
});

// ---- SD ----

test("SCR: version, widths, CMD23", () => {
  for (const cmd23 of [false, true]) {
    const scr = opened({ card: "sd", cmd23 }).register(51, 0, 8, true);
    assert.is((scr[0] ?? 0) >> 4, 0, "SCR_STRUCTURE");
    assert.is((scr[0] ?? 0) & 15, 2, "SD_SPEC");
    assert.is((scr[1] ?? 0) & 5, 5, "1 and 4 lines");
    assert.is((scr[2] ?? 0) >> 7, 1, "SD_SPEC3");
    assert.is(((scr[3] ?? 0) >> 1) & 1, cmd23 ? 1 : 0, "CMD_SUPPORT: CMD23");
    assert.is((scr[3] ?? 0) & 0x0c, 0, "no CMD48/49, 58/59");
  }
});

test("ACMD13: the bus width, ordinary type, a sane erase time", () => {
  const bus = opened({ card: "sd" });
  const before = bus.register(13, 0, 64, true);
  assert.is((before[0] ?? 0) >> 6, 0, "1 line");
  assert.is(((before[2] ?? 0) << 8) | (before[3] ?? 0), 0, "SD_CARD_TYPE");
  assert.is(((before[11] ?? 0) << 8) | (before[12] ?? 0), 1, "ERASE_SIZE");
  assert.is((before[13] ?? 0) >> 2, 1, "ERASE_TIMEOUT");
  bus.setBus(4, false, 25_000);
  assert.is((bus.register(13, 0, 64, true)[0] ?? 0) >> 6, 2, "4 lines");
});

test("ACMD22: well written blocks of the last write, big-endian", () => {
  const bus = opened({ card: "sd" });
  const count = () => new DataView(bus.register(22, 0, 4, true).buffer).getUint32(0, false);
  for (const blocks of [1, 3, 300]) {
    assert.is(bus.writeBlocks(8, pattern(blocks), { count23: true }).errors, 0);
    bus.awaitTran();
    assert.is(count(), blocks);
  }
  bus.fault({ kind: "write-crc", firstLba: 12, lastLba: 12, times: 1 });
  assert.is(bus.writeBlocks(10, pattern(5)).errors, INT.dataCrc);
  bus.resetLines();
  bus.must(12, 0, "r1b");
  bus.awaitTran();
  assert.is(count(), 2, "the third one was bad");
});

test("CMD6 of SD: what it can, what it would do, what it does", () => {
  const bus = opened({ card: "sd" });
  const ask = (argument: number) => bus.register(6, argument, 64);
  const check = (status: Uint8Array, result: number, what: string) => {
    assert.is((status[13] ?? 0) & 2, 2, `${what}: high speed is supported`);
    assert.is(((status[0] ?? 0) << 8) | (status[1] ?? 0), result === 15 ? 0 : 100, `${what}: mA`);
    assert.is((status[16] ?? 0) & 15, result, `${what}: function of group 1`);
  };
  check(ask(0x00fffff0), 0, "mode 0, default");
  check(ask(0x00fffff1), 1, "mode 0, high speed");
  assert.is(goesThrough(bus, 1, 50_000), false, "mode 0 switches nothing");
  check(ask(0x00ffffff), 0, "mode 0, keep");
  check(ask(0x80ffffff), 0, "mode 1, keep");
  check(ask(0x80fffff3), 15, "mode 1, SDR104 is not there");
  assert.is(goesThrough(bus, 1, 50_000), false, "a refused function switches nothing");
  check(ask(0x80fffff1), 1, "mode 1, high speed");
  assert.is(goesThrough(bus, 1, 50_000), true, "now it is fast");
  check(ask(0x00ffffff), 1, "mode 0, keep, when fast");
  check(ask(0x80fffff0), 0, "mode 1, default again");
  assert.is(goesThrough(bus, 1, 50_000), false, "slow again");
});

test("ACMD6: 1 and 4 lines, nothing else", () => {
  const bus = opened({ card: "sd" });
  assert.is(bus.app(6, 2).errors, 0);
  assert.is(goesThrough(bus, 4, 25_000), true);
  assert.is(bus.app(6, 0).errors, 0);
  assert.is(goesThrough(bus, 1, 25_000), true);
  assert.is(goesThrough(bus, 4, 25_000), false);
});

test("RCA: an eMMC takes the one it is given, an SD card publishes one that is not 0", () => {
  for (const rca of [1, 0x1234, 0xffff]) {
    const bus = new Bus();
    bus.rca = rca;
    bus.open();
    assert.is(stateOf(bus.status()), "tran");
    assert.is(bus.send(13, ((rca ^ 2) << 16) >>> 0).silent, true);
  }
  const bus = opened({ card: "sd" });
  assert.is(bus.rca > 0, true);
  bus.send(0, 0, "none");
  assert.is(bus.must(55, 0).errors, 0, "address 0 again after CMD0");
});

test("CMD8 of SD: the voltage it can do is echoed with the pattern, another one is not answered", () => {
  const bus = new Bus({ card: "sd" });
  bus.powerUp();
  bus.send(0, 0, "none");
  for (const check of [0xaa, 0x55, 0x00]) assert.is(bus.must(8, 0x100 | check, "r7").r1, 0x100 | check);
  assert.is(bus.send(8, 0x2aa, "r7").silent, true);
  assert.is(bus.must(8, 0x1aa, "r7").r1, 0x1aa);
});

test("EXT_CSD by ADMA2 is EXT_CSD by PIO", () => {
  const bus = opened();
  const expected = bus.extCsd();
  bus.describe(512);
  const mode = MODE.count | MODE.read | MODE.dma;
  bus.must(8, 0, "r1", { read: true, blocks: 1, dma: true, mode });
  assert.is((bus.awaitStatus(INT.transfer) & INT_ERRORS) >>> 0, 0);
  same(bus.dmaMemory(512).slice(), expected, "EXT_CSD");
});

test.run();
