// The controller as a peripheral of a machine (host/embed/peripheral.ts), driven by a guest's driver of the test's own:
// RAM that only DMA of the peripheral reaches, interrupts, the guest's clock, resets, saved states, panics in
// mid-transfer; and the example in docs/EMBEDDING.md.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { ExternalMedium } from "../host/core/external-medium.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { OverlayMedium } from "../host/embed/overlay.js";
import { type GuestTiming, SdhciPeripheral } from "../host/embed/peripheral.js";
import { MmcError } from "../host/errors.js";
import { crc32c } from "../host/pstore/crc32c.js";
import { decodeArea } from "../host/pstore/decode.js";
import { Board, Guest, GuestError, type Move, type Progress, RAM_BYTES } from "./embed/guest.js";
import { runExample } from "./example.js";
import { coreModule, PANIC_LOG, pattern, ROOT, sameBytes, textOf } from "./machine.js";

const AREA = { offset: 512 * 1024, kmsgSize: 65536, kmsgCount: 8, abi: "lp64" } as const;
/** With auto-CMD12 a data error of a multiple comes with it: that command could not go out. */
const AUTO_CMD_ERROR = 0x100;
const OPTIONS: DeviceOptions = { sizeBytes: 1 << 20, controller: "8-bit", area: AREA };
const MOVES: Move[] = ["pio", "sdma", "adma2"];
const TIMINGS: GuestTiming[] = ["instant", "clock"];

interface Machine {
  device: Device;
  board: Board;
  host: SdhciPeripheral;
  guest: Guest;
}

/** `ageNs`: how long the device has been there before the machine's clock starts. */
function machineOf(options: DeviceOptions = {}, timing: GuestTiming = "instant", ageNs = 0): Machine {
  const device = Device.open(coreModule("embed"), { ...OPTIONS, ...options });
  device.idle(ageNs);
  const board = new Board();
  const host = new SdhciPeripheral(device, board, { timing });
  return { device, board, host, guest: new Guest(host, board) };
}

function recordsOf(device: Device) {
  return decodeArea(device.medium().slice(AREA.offset)).records;
}

for (const timing of TIMINGS) {
  for (const card of ["emmc", "sd"] as const) {
    for (const move of MOVES) {
      test(`${card}, ${move}, ${timing}: identified, written, read, by interrupts`, () => {
        const { device, guest } = machineOf({ card }, timing);
        guest.identify(card === "sd");
        guest.move = move;
        const data = pattern(3, 40 * 512);
        // An address that is no multiple of anything: SDMA's boundaries fall into blocks.
        guest.write(77, data, 0x10123 & ~3);
        assert.ok(sameBytes(device.medium().subarray(77 * 512, 77 * 512 + data.length), data));
        assert.ok(sameBytes(guest.read(77, data.length, 0x40010), data));
        assert.is(guest.board.level, false);
        assert.is(guest.host.takeBusFailure(), undefined);
      });
    }
  }
}

test("the interrupt line is told of changes only, and starts low", () => {
  const { board, guest } = machineOf();
  guest.identify(false);
  guest.read(0, 4096);
  assert.ok(board.levels.length > 20);
  assert.ok(board.levels.every((level, i) => level === (i % 2 === 0)));
});

function throwsWith(call: () => unknown, code: string, words: RegExp): void {
  let thrown: unknown;
  try {
    call();
  } catch (error) {
    thrown = error;
  }
  assert.ok(thrown instanceof MmcError, `${thrown}`);
  assert.is((thrown as MmcError).code, code);
  assert.match((thrown as MmcError).message, words);
}

/** SDHCI's error bits that the guest's driver gave up with. */
function errorOf(call: () => unknown): number {
  try {
    call();
  } catch (error) {
    if (error instanceof GuestError) return (error.status >>> 16) & ~AUTO_CMD_ERROR;
    throw error;
  }
  return 0;
}

// ---- registers ----

test("registers by 8, 16 and 32 bits are the same bytes; 16 bits may come as two times 8", () => {
  const { host } = machineOf();
  host.write32(0x34, 0x03ff00fb);
  assert.is(host.read32(0x34), 0x03ff00fb);
  assert.equal(
    [0x34, 0x36].map((at) => host.read16(at)),
    [0x00fb, 0x03ff],
  );
  assert.equal(
    [0x34, 0x35, 0x36, 0x37].map((at) => host.read8(at)),
    [0xfb, 0, 0xff, 3],
  );
  host.write8(0x08, 0x78);
  host.write16(0x09, 0x3456);
  host.write8(0x0b, 0x92);
  assert.is(host.read32(0x08), 0x92345678, "unsigned");
  assert.is(host.read32(0x108), 0x92345678, "modulo 256");
  host.write32(0x08, -1);
  assert.is(host.read32(0x08), 0xffffffff);
  // The lower byte alone starts nothing, the upper one does.
  host.write8(0x29, 0x0f);
  host.write16(0x2c, 0xfa01);
  host.write16(0x2c, 0xfa05);
  host.write8(0x0e, 0);
  assert.is(host.read32(0x30), 0);
  host.write8(0x0f, 0);
  assert.is(host.read32(0x30), 1);
});

test("a guest that is polled instead of interrupted", () => {
  const { board, guest, host } = machineOf();
  guest.identify(false);
  host.write32(0x38, 0);
  const told = board.levels.length;
  host.write32(0x08, 1 << 16);
  host.write16(0x0e, 0x0d1a);
  assert.is(host.read32(0x30), 1);
  assert.is((host.read32(0x10) >>> 9) & 15, 4);
  assert.is(board.levels.length, told);
  // A status bit that waits already makes the line high when its signal is switched on, and writing it low.
  host.write32(0x38, 1);
  assert.equal(board.levels.slice(told), [true]);
  host.write32(0x30, 1);
  assert.equal(board.levels.slice(told), [true, false]);
});

// ---- DMA ----

test("addresses without memory: ADMA errors and SDMA's timeout, never a trap; the next transfer is good", () => {
  const cases: [Move, number, number, number][] = [
    // by, table, data address, SDHCI_ADMA_ERROR's state
    ["adma2", RAM_BYTES, 0x10000, 1],
    ["adma2", RAM_BYTES - 4, 0x10000, 1],
    ["adma2", 0xfffffffc, 0x10000, 1],
    ["adma2", 0x800, RAM_BYTES, 3],
    ["adma2", 0x800, RAM_BYTES - 256, 3],
    ["adma2", 0x800, 0xffffff00, 3],
    ["sdma", 0, RAM_BYTES, 0],
    ["sdma", 0, 0xffffff00, 0],
  ];
  for (const timing of TIMINGS) {
    for (const isWrite of [true, false]) {
      for (const [move, table, address, state] of cases) {
        const what = `${timing} ${move} ${isWrite} table ${table} data ${address}`;
        const { board, guest, host, device } = machineOf({}, timing);
        guest.identify(false);
        guest.move = move;
        const before = board.ram.slice(0x10000);
        guest.prepare(1024, address);
        if (move === "adma2") host.write32(0x58, table);
        host.write32(0x08, 5 * guest.addressUnit);
        host.write16(0x0c, 0x27 | (isWrite ? 0 : 0x10));
        host.write16(0x0e, isWrite ? 0x193a : 0x123a);
        let status = 0;
        for (let i = 0; i < 3 && (status & 0x8000) === 0; i++) {
          status = guest.awaitInterrupt();
          host.write32(0x30, status & 0xffff);
        }
        assert.is((status >>> 16) & ~AUTO_CMD_ERROR, move === "adma2" ? 0x200 : 0x10, what);
        if (move === "adma2") assert.is(host.read8(0x54) & 3, state, what);
        assert.ok(sameBytes(board.ram.slice(0x10000), before), what);
        assert.ok(board.endMax <= 2 ** 32, "no call goes around the end of the address space");
        host.write32(0x30, 0xffffffff);
        host.write8(0x2f, 2);
        host.write8(0x2f, 4);
        guest.recover();
        const data = pattern(9, 2048);
        guest.write(9, data);
        assert.ok(sameBytes(device.medium().subarray(9 * 512, 9 * 512 + 2048), data), what);
      }
    }
  }
});

test("a bus that throws, or gives too little: a bus error, and the reason is kept", () => {
  const { board, guest, host } = machineOf();
  guest.identify(false);
  guest.move = "adma2";
  const reason = new Error("unplugged");
  board.dmaWrite = () => {
    throw reason;
  };
  assert.is(
    errorOf(() => guest.read(0, 512)),
    0x200,
  );
  assert.is(host.takeBusFailure(), reason);
  assert.is(host.takeBusFailure(), undefined);
  guest.recover();
  board.dmaRead = () => new Uint8Array(3);
  assert.is(
    errorOf(() => guest.write(0, new Uint8Array(512))),
    0x200,
  );
  assert.is(host.takeBusFailure(), undefined);
});

test("one call of the bus for 16 descriptors, for each page, and for the first and the last block by themselves", () => {
  const { board, guest } = machineOf();
  guest.identify(false);
  guest.move = "adma2";
  board.dmaCalls = 0;
  guest.read(0, 65536);
  assert.is(board.dmaCalls, 16 + 2 + 1);
  board.dmaCalls = 0;
  guest.write(0, pattern(1, 65536));
  assert.is(board.dmaCalls, 16 + 2 + 1);
  guest.move = "sdma";
  board.dmaCalls = 0;
  guest.write(0, pattern(2, 65536));
  assert.is(board.dmaCalls, 16);
});

test("no call reads over the end of a page, so the blocks in front of one that is not there go out", () => {
  for (const move of ["adma2", "sdma"] as const) {
    const { device, board, guest } = machineOf();
    guest.identify(false);
    guest.move = move;
    const read = board.dmaRead.bind(board);
    board.dmaRead = (address, lengthBytes) => {
      assert.is(address >>> 12, (address + lengthBytes - 1) >>> 12, `${move}: ${lengthBytes} at ${address}`);
      return read(address, lengthBytes);
    };
    const data = pattern(4, 16384);
    guest.write(3, data, 0x10600);
    assert.ok(sameBytes(device.medium().subarray(3 * 512, 3 * 512 + data.length), data), move);
    // Two blocks before the end of RAM, and six that would lie behind it.
    board.ram.set(data.subarray(0, 1024), RAM_BYTES - 1024);
    assert.throws(() => guest.transfer(true, 100, 4096, RAM_BYTES - 1024), undefined, move);
    assert.ok(sameBytes(device.medium().subarray(100 * 512, 102 * 512), data.subarray(0, 1024)), move);
  }
});

test("what has been written is told once for each piece without a gap, before the interrupt", () => {
  const { board, guest } = machineOf();
  guest.identify(false);
  guest.move = "adma2";
  const told: string[] = [];
  board.dmaWritten = (address, lengthBytes) => told.push(`${address} ${lengthBytes}`);
  const irq = board.irq.bind(board);
  board.irq = (level) => {
    if (level) told.push("irq");
    irq(level);
  };
  guest.write(7, pattern(4, 40960));
  assert.ok(told.length > 0 && told.every((what) => what === "irq"));
  told.length = 0;
  guest.read(7, 40960, 0x20000);
  assert.equal(told, [`${0x20000} 40960`, "irq"]);
  // Two descriptors with a gap between them, the second one in front.
  told.length = 0;
  guest.prepare(1024, 0x30000);
  new Uint32Array(board.ram.buffer).set([0x02000021, 0x31000, 0x02000023, 0x30000], 0x800 / 4);
  guest.host.write32(0x08, 7 * guest.addressUnit);
  guest.host.write16(0x0c, 0x37);
  guest.host.write16(0x0e, 0x123a);
  assert.equal(told, [`${0x31000} 512`, `${0x30000} 512`, "irq"]);
  assert.ok(sameBytes(board.ram.slice(0x31000, 0x31200), pattern(4, 40960).slice(0, 512)));
});

test("a machine that fails when it is told of what was written says so, and can be used again", () => {
  const { board, guest } = machineOf();
  guest.identify(false);
  guest.move = "adma2";
  board.dmaWritten = () => {
    throw new Error("no such page");
  };
  assert.throws(() => guest.read(0, 512), /no such page/);
  board.dmaWritten = () => undefined;
  guest.host.write8(0x2f, 2);
  guest.host.write8(0x2f, 4);
  guest.host.write32(0x30, 0xffffffff);
  assert.is(guest.read(0, 512).length, 512);
});

test("clock: RAM that the guest changes during its write is written as it is when the block goes out", () => {
  const { board, device, guest, host } = machineOf({}, "clock");
  guest.identify(false);
  for (const move of ["adma2", "sdma"] as const) {
    guest.move = move;
    board.ram.set(pattern(5, 4096), 0x10000);
    guest.start(true, 20, 4096, 0x10000);
    // The first block is in the controller; the others are still the guest's.
    board.ram.set(pattern(6, 3072), 0x10400);
    const state = { done: 0 };
    while (!guest.step(true, 4096, 0x10000, state));
    guest.awaitReady();
    const stored = device.medium().slice(20 * 512, 28 * 512);
    assert.ok(sameBytes(stored.slice(0, 512), pattern(5, 4096).slice(0, 512)), move);
    assert.ok(sameBytes(stored.slice(1024), pattern(6, 3072)), move);
    assert.is(host.takeBusFailure(), undefined);
  }
});

/** An open-ended read by a table of the test's own: calls of the bus in the access that starts it. */
function readOn(machine: Machine, table: number[]): number {
  const { board, guest, host } = machine;
  guest.prepare(512, 0x10000);
  new Uint32Array(board.ram.buffer).set(table, 0x800 / 4);
  host.write32(0x08, 0);
  host.write16(0x0c, 0x31);
  board.dmaCalls = 0;
  host.write16(0x0e, 0x123a);
  return board.dmaCalls;
}

test("an ADMA2 table that never ends is an error, or is gone on with at the next access, and none takes long", () => {
  /** Calls of the bus in one access: 16,384 blocks, 4096 descriptors, and those of the block at hand. */
  const CALLS_MAX = 16_384 + 4096 + 1024;
  const LINK = [0x31, 0x800];
  const cases: [string, number[], number][] = [
    ["a link to itself", LINK, 0x2000000],
    ["nops", [0x1, 0, 0x31, 0x800], 0x2000000],
    ["a byte at a time, nops between", [0x00010021, 0x10000, 0x1, 0, ...LINK], 0x2000000],
    ["512 bytes and a link", [0x02000021, 0x10000, ...LINK], 0],
    ["4 bytes and a link", [0x00040021, 0x10000, ...LINK], 0],
    ["64 KiB and a link", [0x21, 0x10000, ...LINK], 0],
  ];
  for (const [what, table, error] of cases) {
    const machine = machineOf({ sizeBytes: 32 << 20 });
    const { board, guest, host } = machine;
    guest.identify(false);
    guest.move = "adma2";
    const calls = readOn(machine, table);
    assert.ok(calls <= CALLS_MAX, `${what}: ${calls} calls`);
    if (error === 0) assert.is.not(host.dueNs(), null, what);
    const status = host.read32(0x30);
    assert.is((status & 0xffff0000) >>> 0, error, what);
    assert.is(status & 2, 0, `${what}: no transfer complete`);
    if (error !== 0) continue;
    // It goes on, until the card has no more sectors.
    let last = 0;
    for (let i = 0; i < 20 && (last & 0x8000) === 0; i++) {
      const before = board.dmaCalls;
      last = host.read32(0x30);
      assert.ok(board.dmaCalls > before || (last & 0x8000) !== 0, what);
      assert.ok(board.dmaCalls - before <= CALLS_MAX, what);
      assert.is(last & 2, 0, what);
    }
    if (what === "64 KiB and a link") assert.is((last & 0xffff0000) >>> 0, 0x100000, "the data timeout");
  }
});

test("a transfer of more than one access is over with the next tick", () => {
  const blocks = 20_000;
  const { board, guest, host } = machineOf({ sizeBytes: 16 << 20 });
  guest.identify(false);
  guest.move = "adma2";
  guest.prepare(512, 0x10000);
  const pieces = Math.ceil((blocks * 512) / 65536);
  const words = new Uint32Array(board.ram.buffer);
  for (let i = 0; i < pieces; i++) words.set([0x21, 0x10000], 0x800 / 4 + 2 * i);
  words[0x800 / 4 + 2 * (pieces - 1)] = 0x23 | (((blocks * 512) % 65536) << 16);
  host.write16(0x06, blocks);
  host.write32(0x08, 0);
  host.write16(0x0c, 0x37);
  host.write16(0x0e, 0x123a);
  assert.ok(host.dueNs() !== null);
  host.tick(guest.nowNs);
  assert.is(host.dueNs(), null);
  const status = host.read32(0x30);
  assert.is(status & 0xffff0002, 2, "complete, without an error");
  assert.is(host.read16(0x06), 0);
});

test("a DMA call that calls the peripheral is refused", () => {
  const { board, guest, host } = machineOf();
  guest.identify(false);
  guest.move = "adma2";
  board.dmaRead = () => {
    host.read32(0x24);
    return new Uint8Array(0);
  };
  assert.is(
    errorOf(() => guest.read(0, 512)),
    0x200,
  );
  const failure = host.takeBusFailure();
  assert.ok(failure instanceof MmcError && failure.code === "EBUSY");
});

test("an interrupt handler that runs within irq() may use the registers", () => {
  const { board, guest, host } = machineOf();
  guest.identify(false);
  let served = 0;
  board.irq = (level) => {
    board.level = level;
    if (!level) return;
    served++;
    host.write32(0x30, host.read32(0x30));
  };
  host.write32(0x08, 1 << 16);
  host.write16(0x0e, 0x0d1a);
  assert.is(served, 1);
  assert.is(board.level, false);
});

// ---- time ----

test("clock: reading registers costs no time, and nothing happens until tick() says so", () => {
  const { board, device, guest, host } = machineOf({}, "clock");
  guest.identify(false);
  const { timeNs } = device.state();
  host.write32(0x08, 1 << 16);
  host.write16(0x0e, 0x0d1a);
  for (let i = 0; i < 10_000; i++) assert.is(host.read32(0x24) & 1, 1, "CMD inhibit");
  assert.is(device.state().timeNs, timeNs);
  assert.is(board.level, false);
  const dueNs = host.dueNs() as bigint;
  assert.ok(dueNs > guest.nowNs && dueNs < guest.nowNs + 20_000n, `${dueNs}`);
  host.tick(guest.nowNs + 20_000n);
  assert.is(board.level, true);
  assert.is(host.read32(0x24) & 1, 0);
  assert.is(host.dueNs(), null);
});

test("clock: a guest that sleeps is woken by ticks alone, at the time that the card takes", () => {
  const { board, guest, host } = machineOf({ timing: { readNs: 3_000_000 } }, "clock");
  guest.identify(false);
  guest.move = "adma2";
  const startNs = guest.nowNs;
  guest.start(false, 0, 4096, 0x10000);
  let ticks = 0;
  while (!board.level) {
    guest.nowNs += 100_000n;
    host.tick(guest.nowNs);
    assert.ok(++ticks < 100);
  }
  assert.is(host.read32(0x30) & 2, 2);
  const tookNs = guest.nowNs - startNs;
  assert.ok(tookNs >= 3_000_000n && tookNs < 3_700_000n, `${tookNs}`);
});

test("instant: everything is over when the write returns, however long the card takes", () => {
  const { guest, host, device } = machineOf({ profile: "worst" });
  guest.identify(false);
  for (const move of ["sdma", "adma2"] as const) {
    guest.move = move;
    guest.prepare(2048, 0x10000);
    host.write32(0x08, 0);
    host.write16(0x0c, 0x27);
    host.write16(0x0e, 0x193a);
    assert.is(host.read32(0x30), 3);
    host.write32(0x30, 3);
  }
  assert.is(host.dueNs(), null);
  assert.is(device.state().card, "tran");
  // Erase, R1b: seconds of the card's time.
  guest.command(35, 0, 0x1a);
  guest.command(36, 1500 * guest.addressUnit, 0x1a);
  const { timeNs } = device.state();
  guest.command(38, 0, 0x1b);
  assert.ok(device.state().timeNs - timeNs >= 600_000_000n);
  // Busy that no interrupt tells of: CMD6 answered by R1, and DAT0.
  guest.command(6, 0x03b70001, 0x1a);
  assert.ok(host.read32(0x24) & (1 << 20));
  // A second of initialisation is over before the card is asked again.
  host.reset();
  guest.powerUp();
  guest.command(0, 0, 0);
  assert.is(guest.command(1, 0x40ff8000, 2) >>> 31, 0);
  assert.is(guest.command(1, 0x40ff8000, 2) >>> 31, 1);
});

test("instant: a card that is stuck ends in the controller's data timeout, at once", () => {
  const { device, guest } = machineOf();
  guest.identify(false);
  device.injectFault({ kind: "stuck-busy", firstLba: 7, lastLba: 7, times: 1, until: "power-cycle" });
  assert.is(
    errorOf(() => guest.write(7, new Uint8Array(512))),
    0x10,
  );
});

test("the clock may jump, stand, and go back", () => {
  const { device, guest, host } = machineOf({}, "clock");
  guest.identify(false);
  guest.sleep(10n ** 15n);
  const { timeNs } = device.state();
  host.tick(guest.nowNs);
  host.tick(5n);
  assert.is(device.state().timeNs, timeNs);
  host.tick(0x7fffffffffffffffn);
  for (const bad of [-1n, 1n << 63n]) throwsWith(() => host.tick(bad), "EINVAL", /no time/);
  throwsWith(() => host.tick(7 as unknown as bigint), "EINVAL", /no time/);
});

// ---- reset, power, slot, faults ----

for (const timing of TIMINGS) {
  test(`${timing}: reset in mid-transfer: interrupt low, card without supply, and everything works again`, () => {
    for (const move of MOVES) {
      for (const isWrite of [true, false]) {
        const { board, device, guest, host } = machineOf({ trace: true }, timing);
        guest.identify(false);
        guest.move = move;
        guest.start(isWrite, 10, 8192, 0x10000);
        if (timing === "instant") assert.is(board.level, true);
        host.reset();
        assert.is(board.level, false);
        assert.is(host.read8(0x29), 0);
        const supply = device.trace().events.filter(({ kind }) => kind === "power");
        assert.equal(supply.at(-1), { timeNs: device.state().timeNs, kind: "power", on: false });
        assert.is(host.read32(0x38), 0);
        const calls = board.dmaCalls;
        guest.sleep(10_000_000n);
        assert.is(board.dmaCalls, calls);
        guest.identify(false);
        const data = pattern(4, 4096);
        guest.write(10, data);
        assert.ok(sameBytes(device.medium().subarray(5120, 5120 + 4096), data));
      }
    }
  });
}

test("a power cut in mid-write, and the next boot of the guest", () => {
  const { device, guest, host } = machineOf({}, "clock");
  guest.identify(false);
  const old = pattern(1, 65536);
  guest.write(100, old);
  guest.move = "adma2";
  guest.board.ram.set(pattern(2, 65536), 0x10000);
  guest.start(true, 100, 65536, 0x10000);
  guest.sleep(3_000_000n);
  device.powerCut("old");
  host.reset();
  const stored = device.medium().slice(51200, 51200 + 65536);
  const both = stored.findIndex((byte, i) => byte !== (guest.board.ram[0x10000 + i] as number));
  assert.ok(both >= 512 && both < 65536, `${both}`);
  assert.ok(sameBytes(stored.subarray(both - (both % 512)), old.subarray(both - (both % 512))));
  guest.identify(false);
  assert.ok(sameBytes(guest.read(100, 65536, 0x40000), stored));
  // Our driver has not seen this card since the cut: it must find it, and the area, in the panic.
  assert.is(device.panicWrite({ text: PANIC_LOG }).status, 0);
  assert.is(recordsOf(device)[0]?.state, "ok");
});

test("the card goes and comes: told by the next tick", () => {
  const { board, device, guest, host } = machineOf();
  guest.identify(false);
  device.insertCard(false);
  guest.sleep(1n);
  assert.is(board.level, true);
  assert.is(host.read32(0x30), 0x80);
  assert.is(host.read32(0x24) & 0x10000, 0);
  host.write32(0x30, 0x80);
  device.insertCard(true);
  guest.sleep(1n);
  assert.is(host.read32(0x30), 0x40);
  host.write32(0x30, 0x40);
  guest.identify(false);
  guest.read(0, 512);
});

test("faults reach the guest as errors of the controller, and it recovers", () => {
  const { device, guest } = machineOf({ trace: true });
  guest.identify(false);
  guest.move = "adma2";
  device.injectFault({ kind: "read-crc", firstLba: 3, lastLba: 3, times: 1 });
  assert.is(
    errorOf(() => guest.read(0, 4096)),
    0x20,
  );
  guest.recover();
  assert.is(guest.read(0, 4096).length, 4096);
  assert.ok(device.trace().events.some(({ kind }) => kind === "error"));
});

// ---- panics ----

test("a panic in mid-DMA: the record decodes, the guest's RAM is left alone", () => {
  for (const move of MOVES) {
    for (const isWrite of [true, false]) {
      const { device, guest, board, host } = machineOf({ trace: true }, "clock");
      guest.identify(false);
      guest.move = move;
      board.ram.set(pattern(5, 65536), 0x20000);
      guest.start(isWrite, 100, 65536, 0x20000);
      for (let i = 0; i < 3; i++) {
        guest.nowNs += 300_000n;
        host.tick(guest.nowNs);
      }
      // Just before something of the transfer is due: the panic's first accesses are there when it is.
      const dueNs = host.dueNs();
      if (dueNs !== null && dueNs > guest.nowNs + 50n) host.tick(dueNs - 50n);
      const calls = board.dmaCalls;
      const ram = board.ram.slice();
      const result = device.panicWrite({ text: PANIC_LOG, timeSec: 7n });
      assert.is(result.status, 0, `${move}`);
      assert.is(result.rung, 1);
      const commands = device
        .trace()
        .events.filter(({ kind, timeNs }) => kind === "command" && timeNs > result.startNs);
      assert.ok(
        commands.length > 10 && commands.every((event) => event.kind !== "command" || event.index !== 0),
      );
      assert.is(result.cardState, isWrite ? "rcv" : "data");
      assert.is(board.dmaCalls, calls);
      assert.ok(sameBytes(board.ram, ram));
      const [record] = recordsOf(device);
      assert.ok(record?.state === "ok" && record.sealed && sameBytes(textOf(record), PANIC_LOG));
      host.tick(guest.nowNs + 1_000_000_000n);
      assert.is(board.level, false);
      assert.is(board.dmaCalls, calls);
    }
  }
});

const SETTINGS: [string, (guest: Guest) => void][] = [
  [
    "one line",
    (guest) => {
      guest.command(6, 0x03b70001, 0x1b);
      guest.host.write8(0x28, 0);
    },
  ],
  [
    "eight lines at high speed",
    (guest) => {
      guest.command(6, 0x03b90101, 0x1b);
      guest.command(6, 0x03b70201, 0x1b);
      guest.host.write8(0x28, 0x24);
      guest.setClock(2);
    },
  ],
  ["lines that disagree", (guest) => guest.host.write8(0x28, 0)],
  ["clock off", (guest) => guest.host.write16(0x2c, 0)],
  [
    "signals, gaps and a command pending",
    (guest) => {
      guest.host.write8(0x2a, 1);
      guest.host.write16(0x0e, 0x0d1a);
    },
  ],
  [
    "another address",
    (guest) => {
      guest.setClock(250);
      guest.command(0, 0, 0);
      while ((guest.command(1, 0x40ff8000, 2) & 0x80000000) === 0) guest.sleep(1_000_000n);
      guest.command(2, 0, 9);
      guest.command(3, 5 << 16, 0x1a);
    },
  ],
  ["controller reset", (guest) => guest.host.write8(0x2f, 1)],
  ["machine reset", (guest) => guest.host.reset()],
  [
    "card asleep",
    (guest) => {
      guest.command(7, 0, 0);
      guest.command(5, 0x18000, 0x1b);
    },
  ],
];

test("a panic finds the card as any guest left it", () => {
  for (const timing of TIMINGS) {
    for (const [name, leave] of SETTINGS) {
      const { device, guest } = machineOf({}, timing);
      guest.identify(false);
      leave(guest);
      const result = device.panicWrite({ text: PANIC_LOG });
      assert.is(result.status, 0, `${timing}: ${name}`);
      const [record] = recordsOf(device);
      assert.ok(record?.state === "ok" && sameBytes(textOf(record), PANIC_LOG), name);
    }
  }
});

/** An SD card as a guest leaves it; its address is another one than ours was. */
const SD_LEFT: [string, (guest: Guest) => void, number][] = [
  ["tran", () => {}, 4],
  ["stby", (guest) => guest.command(7, 0, 0), 4],
  ["data", (guest) => guest.start(false, 100, 65536, 0x20000), 4],
  ["rcv", (guest) => guest.start(true, 100, 65536, 0x20000), 4],
  [
    "prg",
    (guest) => {
      guest.command(32, 0, 0x1a);
      guest.command(33, 63, 0x1a);
      guest.command(38, 0, 0x1a);
    },
    4,
  ],
  ["idle", (guest) => guest.command(0, 0, 0), 5],
];

test("an SD card publishes a new address to each guest: a panic asks for another one, without CMD0", () => {
  for (const timing of TIMINGS) {
    for (const [name, leave, rung] of SD_LEFT) {
      const { device, guest } = machineOf({ card: "sd", trace: true }, timing);
      guest.identify(true);
      const what = `${timing}: ${name}`;
      const first = device.read(0, 512);
      guest.identify(true);
      leave(guest);
      const result = device.panicWrite({ text: PANIC_LOG });
      assert.is(result.status, 0, what);
      const [record] = recordsOf(device);
      assert.ok(record?.state === "ok" && sameBytes(textOf(record), PANIC_LOG), what);
      assert.ok(result.rung <= rung, `${what}: rung ${result.rung}`);
      assert.ok(sameBytes(device.read(0, 512), first), what);
    }
  }
});

test("another SD card that the guest has identified is not taken for ours, whatever its address", () => {
  const { device, guest } = machineOf({ card: "sd" });
  guest.identify(true);
  assert.is(device.panicWrite({ text: PANIC_LOG }).status, 0);
  device.insertCard("another");
  guest.identify(true);
  const before = device.medium().slice();
  assert.is(device.panicWrite({ text: PANIC_LOG }).status, -19, "ENODEV");
  assert.ok(sameBytes(device.medium(), before), "and nothing is written");
});

test("a panic uses the guest's cache, boot and partition settings and leaves them", () => {
  for (const cacheOn of [0, 1]) {
    const { device, guest } = machineOf({
      bootBytes: 131072,
      cacheSectors: 8,
      reliableWrite: false,
      cmd23: false,
    });
    guest.identify(false);
    guest.command(6, 0x03210001 | (cacheOn << 8), 0x1b);
    // Boot from partition 1, and the second boot partition selected.
    guest.command(6, 0x03b30a01, 0x1b);
    guest.awaitReady();
    assert.is(device.panicWrite({ text: PANIC_LOG }).status, 0, `cache ${cacheOn}`);
    assert.is(recordsOf(device)[0]?.state, "ok");
    const { extCsd } = device.registers();
    assert.is(extCsd?.[179], 0x08);
    assert.is(extCsd?.[33], cacheOn);
  }
});

test("records that the guest has written are seen by the next panic", () => {
  const { device, guest } = machineOf();
  assert.is(device.panicWrite({ text: PANIC_LOG }).zone, 0);
  guest.identify(false);
  // A record of the guest's own in the next zone.
  const lba = AREA.offset / 512;
  guest.write(lba + 128, guest.read(lba, 65536));
  assert.is(device.panicWrite({ text: PANIC_LOG }).zone, 2);
  assert.equal(
    recordsOf(device).map(({ state }) => state),
    ["ok", "ok", "ok"],
  );
});

test("the host uses the card between two boots of the guest", () => {
  const { device, guest, host } = machineOf();
  guest.identify(false);
  const data = pattern(2, 2048);
  guest.write(50, data);
  device.powerOn();
  assert.ok(sameBytes(device.read(50 * 512, 2048), data));
  device.write(50 * 512, pattern(3, 512));
  device.flush();
  host.reset();
  guest.identify(false);
  assert.ok(sameBytes(guest.read(50, 512), pattern(3, 512)));
});

test("an embed core is needed, and a timing that exists", () => {
  const device = Device.open(coreModule("release"), OPTIONS);
  throwsWith(() => new SdhciPeripheral(device, new Board()), "EINVAL", /embed core/);
  throwsWith(() => machineOf({}, "fast" as GuestTiming), "EINVAL", /fast/);
});

// ---- saved states ----

/** A machine in mid-transfer, and how it ends: what the guest reads, the medium, everything on the bus. */
function endOf({ device, guest }: Machine, move: Move, isWrite: boolean, state: Progress) {
  guest.move = move;
  while (!guest.step(isWrite, 16384, 0x10000, state));
  guest.command(13, guest.rca << 16, 0x1a);
  return {
    ram: guest.board.ram.slice(0x10000, 0x14000),
    medium: device.medium().slice(),
    trace: device.trace().events,
    timeNs: device.state().timeNs,
    guestNs: guest.nowNs,
  };
}

for (const timing of TIMINGS) {
  test(`${timing}: a state saved in mid-transfer goes on in another machine as in this one`, () => {
    for (const move of MOVES) {
      for (const isWrite of [true, false]) {
        const first = machineOf({ trace: true }, timing);
        first.device.medium().set(pattern(6, 65536));
        first.guest.identify(false);
        first.guest.move = move;
        first.board.ram.set(pattern(8, 16384), 0x10000);
        const progress = { done: 0 };
        first.guest.start(isWrite, 20, 16384, 0x10000);
        if (move === "adma2") first.guest.sleep(400_000n);
        else for (let i = 0; i < 3; i++) first.guest.step(isWrite, 16384, 0x10000, progress);
        // In the middle of a block, too.
        if (move === "pio") first.guest.step(isWrite, 16384, 0x10000, progress, 100);
        const state = first.host.saveState();
        const ram = first.board.ram.slice();
        const { nowNs } = first.guest;
        const at = { ...progress };

        const second = machineOf({ trace: true }, timing, 12_345);
        second.guest.identify(false);
        second.guest.nowNs = nowNs;
        second.board.ram.set(ram);
        second.host.loadState(state);
        assert.ok(sameBytes(second.host.saveState(), state));
        assert.is(second.board.level, first.board.level);
        const expected = endOf(first, move, isWrite, progress);
        assert.equal(endOf(second, move, isWrite, at), expected);
      }
    }
  });
}

test("a state is refused unless it is whole, of this format and of such a device; nothing has changed then", () => {
  const { guest, host } = machineOf();
  guest.identify(false);
  guest.write(5, pattern(5, 1024));
  const state = host.saveState();
  const refused = (bytes: Uint8Array, words: RegExp, target = host) => {
    const before = target.saveState();
    throwsWith(() => target.loadState(bytes), "EINVAL", words);
    assert.ok(sameBytes(target.saveState(), before));
  };
  for (const length of [0, 1, 8, 83, 84, 85, 4096, state.length - 1]) {
    refused(state.slice(0, length), /no saved state|cut off/);
  }
  refused(new Uint8Array([...state, 0]), /longer/);
  refused("mmcpstor" as unknown as Uint8Array, /no saved state/);
  refused(pattern(1, state.length), /no saved state/);
  for (let i = 0; i < state.length; i += i < 100 ? 1 : 997) {
    const bent = state.slice();
    bent[i] = (bent[i] as number) ^ 0x10;
    refused(bent, /./);
  }
  /** Changed, with a checksum that is right. */
  const forged = (change: (view: DataView) => void) => {
    const bytes = state.slice();
    change(new DataView(bytes.buffer));
    new DataView(bytes.buffer).setUint32(12, crc32c(bytes, 16), true);
    return bytes;
  };
  refused(
    forged((view) => view.setUint32(8, 1, true)),
    /version 1/,
  );
  for (const pages of [Number.NaN, -1, 1e300, Number.POSITIVE_INFINITY, 0.5, 0]) {
    refused(
      forged((view) => view.setFloat64(24, pages, true)),
      /cut off/,
    );
  }
  refused(
    forged((view) => view.setFloat64(16, 2 ** 40, true)),
    /another medium/,
  );
  refused(
    forged((view) => view.setFloat64(32, 0, true)),
    /another medium/,
  );
  refused(
    forged((view) => view.setUint32(40, 2, true)),
    /no saved state/,
  );
  refused(
    forged((view) => view.setUint32(84, 0xffffffff, true)),
    /page/,
  );
  refused(
    forged((view) => view.setUint32(84 + 4100, 0, true)),
    /page 0/,
  );
  refused(
    forged((view) => view.setUint32(84, 1, true)),
    /page 1 has no place/,
  );
  // CONFIG_SECTORS in page 0.
  refused(
    forged((view) => view.setUint32(88 + 0x484, 1 << 30, true)),
    /other options/,
  );
  refused(state, /other options/, machineOf({ serial: 7 }).host);
  refused(state, /another medium/, machineOf({ sizeBytes: 2 << 20 }).host);
  // Whether it keeps a trace is the device's own affair.
  machineOf().host.loadState(state);
});

test("a forged state can confuse the card or trap the core, and reaches nothing else", () => {
  const { board, guest, host } = machineOf();
  guest.identify(false);
  const state = host.saveState();
  let trapped = 0;
  for (let i = 0; i < 300; i++) {
    const bytes = state.slice();
    const noise = pattern(i, 64);
    // Card, controller, driver and what lies between, but not what must be as it is: CONFIG.
    const at = 56 + 0x800 + ((i * 97) % 0x7c0);
    bytes.set(noise, at);
    new DataView(bytes.buffer).setUint32(12, crc32c(bytes, 16), true);
    host.loadState(bytes);
    const ram = board.ram.slice();
    try {
      for (let offset = 0; offset < 256; offset += 4) host.read32(offset);
      host.write32(0x58, RAM_BYTES);
      host.write16(0x0e, 0x0d1a);
      host.tick(guest.nowNs + 1_000_000n);
    } catch (error) {
      assert.ok(error instanceof WebAssembly.RuntimeError, `${error}`);
      trapped++;
    }
    assert.is(board.ram.length, ram.length);
  }
  host.loadState(state);
  assert.is(guest.read(0, 512).length, 512);
  assert.ok(trapped < 300);
});

// ---- media elsewhere ----

function memoryMedium(bytes: Uint8Array): ExternalMedium {
  return {
    sizeBytes: bytes.length,
    read: (offset, target) => target.set(bytes.subarray(offset, offset + target.length)),
    write: (offset, data) => bytes.set(data, offset),
  };
}

test("a medium elsewhere; over it an overlay that is saved and restored without it", () => {
  const disk = pattern(3, 1 << 20);
  const original = disk.slice();
  const open = () => {
    const overlay = new OverlayMedium(memoryMedium(disk));
    const device = Device.openExternal(coreModule("embed"), overlay, { ...OPTIONS, sizeBytes: undefined });
    const board = new Board();
    const host = new SdhciPeripheral(device, board);
    return { overlay, device, board, host, guest: new Guest(host, board) };
  };
  const { overlay, device, host, guest } = open();
  guest.identify(false);
  guest.move = "adma2";
  assert.ok(sameBytes(guest.read(1000, 8192), original.subarray(512_000, 512_000 + 8192)));
  const data = pattern(4, 4096);
  guest.write(1000, data);
  assert.is(overlay.dirtySectors, 8);
  const state = host.saveState();
  assert.ok(state.length < 200_000, `${state.length}`);
  guest.write(1000, pattern(5, 8192));
  assert.is(device.panicWrite({ text: PANIC_LOG }).status, 0);
  host.loadState(state);
  assert.is(overlay.dirtySectors, 8);
  assert.ok(sameBytes(guest.read(1000, 4096), data));
  const other = open();
  other.host.loadState(state);
  other.guest.rca = guest.rca;
  other.guest.addressUnit = guest.addressUnit;
  other.guest.move = "adma2";
  assert.ok(sameBytes(other.guest.read(1000, 4096), data));
  assert.ok(sameBytes(disk, original));
});

// ---- docs/EMBEDDING.md ----

/** The fenced blocks of the page, in order. */
function blocksOf(page: string): { language: string; text: string }[] {
  return [...page.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language = "", text = ""]) => ({
    language,
    text,
  }));
}

test("the example in docs/EMBEDDING.md runs and prints what is shown", () => {
  const [example, shown] = blocksOf(readFileSync(`${ROOT}docs/EMBEDDING.md`, "utf8"));
  assert.is(example?.language, "js");
  assert.is(shown?.language, "");
  assert.is(runExample(example?.text ?? ""), shown?.text);
});

test("docs/EMBEDDING.md names every call of the classes", () => {
  const page = readFileSync(`${ROOT}docs/EMBEDDING.md`, "utf8");
  const members = (path: string) =>
    [...readFileSync(`${ROOT}${path}`, "utf8").matchAll(/^ {2}(?!private|constructor)(\w+)\(/gm)].map(
      ([, name = ""]) => name,
    );
  const names = ["host/embed/peripheral.ts", "host/embed/spi.ts"].flatMap(members);
  assert.ok(names.length >= 15, names.join());
  for (const name of names) assert.ok(new RegExp(`\`[^\`]*\\b${name}\\b`).test(page), name);
});

test.run();
