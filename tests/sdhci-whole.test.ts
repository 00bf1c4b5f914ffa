// The controller's other abilities (mmc.md §3.1, §3.4, §3.5): SDMA, ADMA2's interrupts and open tables, auto
// commands, block gaps, force event, the slot, the interrupt line, power by capability, presets, tuning, live
// CMD level.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { BOUNCE_BASE, CONFIG_HOST_VERSION } from "../assembly/layout.js";
import { CONTROLLERS, type ControllerKind } from "../host/core/controllers.js";
import type { FaultPlan } from "../host/core/faults.js";
import { Device } from "../host/device.js";
import {
  ADMA_DATA_AT,
  ADMA_TABLE_AT,
  Bus,
  type BusOptions,
  coreModule,
  hex,
  INT,
  INT_ERRORS,
  MODE,
  note,
  PRESENT,
  pattern,
  REG,
  same,
  stateOf,
} from "./bus.js";

const DMA_INT = 1 << 3;
const GAP_INT = 1 << 2;
const INSERT = 1 << 6;
const REMOVE = 1 << 7;
const AUTO_ERROR = 1 << 24;
const AUTO_CMD12 = 0x04;
const AUTO_CMD23 = 0x08;
const CONTROL2 = 0x3e;
const EXEC_TUNING = 0x40;
const TUNED = 0x80;
const PRESETS = 0x8000;
const ALL = 0x07ff00ff;

function opened(controller: ControllerKind = "8-bit", options: BusOptions = {}): Bus {
  const bus = new Bus({ controller, ...options }).open();
  bus.setBus(4, true, 50_000);
  bus.write32(REG.statusEnable, ALL);
  return bus;
}

const errorsOf = (status: number) => (status & INT_ERRORS) >>> 0;

function memoryOf(bus: Bus, at: number, lengthBytes: number): Uint8Array {
  return new Uint8Array(bus.memory.buffer, at, lengthBytes);
}

/** Starts an SDMA transfer of `blocks` sectors at `address`; n of 4 KiB << n. */
function startSdma(bus: Bus, read: boolean, blocks: number, address: number, n: number): void {
  bus.setLines(4);
  bus.write8(REG.hostControl, 0x06);
  bus.must(23, blocks);
  bus.write32(REG.dmaAddress, address);
  const mode = MODE.dma | MODE.count | MODE.multi | (read ? MODE.read : 0);
  bus.must(read ? 18 : 25, 0, "r1", { read, blocks, blockBytes: 512 | (n << 12), mode });
}

// ---- SDMA ----

test("SDMA: a halt at every boundary, never at the end; the address register moves; both directions", () => {
  let cases = 0;
  for (const read of [true, false]) {
    for (const n of [0, 1, 2, 3]) {
      for (const offset of [0, 4, 256, 508, 2048, 4092]) {
        for (const blocks of [1, 8, 16, 33]) {
          const bus = opened("sdma");
          const at = BOUNCE_BASE + offset;
          const data = pattern(blocks, n + 1);
          if (read) bus.preset(0, data);
          else memoryOf(bus, at, data.length).set(data);
          startSdma(bus, read, blocks, at, n);
          const boundary = 4096 << n;
          const end = at + data.length;
          const halts: number[] = [];
          for (let i = 0; i < 100; i++) {
            const status = bus.awaitStatus(INT.transfer | DMA_INT);
            assert.is(hex(errorsOf(status)), hex(0));
            if ((status & INT.transfer) !== 0) break;
            const now = bus.read32(REG.dmaAddress);
            halts.push(now);
            bus.clearStatus();
            bus.idle(1_000_000);
            assert.is(bus.read32(REG.status), 0, "it waits");
            assert.is(bus.present & PRESENT.dataInhibit, PRESENT.dataInhibit);
            bus.write16(REG.dmaAddress, now & 0xffff);
            bus.write8(REG.dmaAddress + 2, (now >>> 16) & 0xff);
            assert.is(bus.read32(REG.status), 0, "the top byte restarts it, no other");
            bus.write8(REG.dmaAddress + 3, now >>> 24);
          }
          const expected: number[] = [];
          const first = at - (at % boundary) + boundary;
          for (let edge = first; edge < end; edge += boundary) expected.push(edge);
          const what = `${read ? "read" : "write"} ${blocks} at +${offset}, n ${n}`;
          assert.equal(halts, expected, what);
          assert.is(bus.read32(REG.dmaAddress), end, `${what}: address`);
          assert.is(bus.read16(REG.blockCount), 0, what);
          if (read) same(memoryOf(bus, at, data.length), data, what);
          for (let i = 0; !read && i < blocks; i++) {
            same(bus.stored(i), data.subarray(i * 512, i * 512 + 512), `${what}: sector ${i}`);
          }
          cases++;
        }
      }
    }
  }
  note(`${cases} SDMA transfers`);
});

test("SDMA: restarted somewhere else, it goes on there", () => {
  const bus = opened("sdma");
  bus.preset(0, pattern(16));
  startSdma(bus, true, 16, BOUNCE_BASE, 0);
  bus.awaitStatus(DMA_INT);
  bus.write32(REG.dmaAddress, BOUNCE_BASE + 0x8000);
  bus.awaitStatus(INT.transfer);
  same(memoryOf(bus, BOUNCE_BASE, 4096), pattern(16).subarray(0, 4096), "first part");
  same(memoryOf(bus, BOUNCE_BASE + 0x8000, 4096), pattern(16).subarray(4096), "second part");
});

test("DMA where no memory is: SDMA meets the data timeout, nothing of the machine is written", () => {
  for (const address of [0, 0xd00, 0x1200, 0xf000, 0x30000, 0x140000, 0x1d0000, 0xfffffe00]) {
    const bus = opened("sdma");
    bus.write8(REG.timeout, 2);
    startSdma(bus, true, 1, address, 7);
    assert.is(hex(errorsOf(bus.awaitStatus(INT.transfer))), hex(INT.dataTimeout), hex(address));
    bus.resetLines();
    bus.awaitTran();
  }
});

// ---- ADMA2 ----

test("ADMA2: the interrupt attribute, on data, nop and link", () => {
  for (const [what, table, linked] of [
    ["tran", [{ attributes: 0x27, bytes: 512, address: ADMA_DATA_AT }], false],
    [
      "nop",
      [
        { attributes: 0x05, bytes: 0, address: 0 },
        { attributes: 0x23, bytes: 512, address: ADMA_DATA_AT },
      ],
      false,
    ],
    ["link", [{ attributes: 0x35, bytes: 0, address: ADMA_TABLE_AT + 0x800 }], true],
    [
      "none",
      [
        { attributes: 0x11, bytes: 0, address: 0 },
        { attributes: 0x23, bytes: 512, address: ADMA_DATA_AT },
      ],
      false,
    ],
  ] as const) {
    const bus = opened("adma2");
    bus.preset(0, pattern(1));
    if (linked) {
      bus.descriptors({ attributes: 0x23, bytes: 512, address: ADMA_DATA_AT });
      memoryOf(bus, ADMA_TABLE_AT + 0x800, 8).set(memoryOf(bus, ADMA_TABLE_AT, 8));
    }
    bus.descriptors(...table);
    bus.write8(REG.hostControl, 0x16);
    bus.must(17, 0, "r1", { read: true, blocks: 1, dma: true });
    const status = bus.awaitStatus(INT.transfer);
    assert.is(hex(status & (DMA_INT | INT_ERRORS)), hex(what === "none" ? 0 : DMA_INT), what);
    same(bus.dmaMemory(512), pattern(1), what);
  }
});

test("ADMA2 without a block count ends with its table", () => {
  for (const trailing of [false, true]) {
    const bus = opened("adma2");
    bus.preset(0, pattern(3));
    bus.descriptors(
      { attributes: 0x21, bytes: 1024, address: ADMA_DATA_AT },
      { attributes: trailing ? 0x21 : 0x23, bytes: 512, address: ADMA_DATA_AT + 1024 },
      { attributes: 0x03, bytes: 0, address: 0 },
    );
    bus.write8(REG.hostControl, 0x16);
    bus.must(18, 0, "r1", { read: true, blocks: 0, mode: MODE.dma | MODE.multi | MODE.read });
    assert.is(hex(errorsOf(bus.awaitStatus(INT.transfer))), hex(0));
    same(bus.dmaMemory(1536), pattern(3), "data");
    bus.must(12, 0);
    bus.awaitTran();
  }
});

// ---- auto commands ----

test("auto-CMD12: behind the last block, its R1 in 0x1C, transfer complete when busy is over", () => {
  for (const read of [true, false]) {
    const bus = opened("full", { timing: { programNs: 200_000 } });
    bus.preset(0, pattern(3, 7));
    bus.clearEvents();
    const mode = MODE.count | MODE.multi | AUTO_CMD12 | (read ? MODE.read : 0);
    bus.must(read ? 18 : 25, 0, "r1", { read, blocks: 3, mode });
    if (read) same(bus.pioRead(3).data, pattern(3, 7), "data");
    else bus.pioWrite(pattern(3, 8));
    const status = bus.awaitStatus(INT.transfer);
    assert.is(hex(errorsOf(status)), hex(0));
    const commands = bus.events().filter((event) => event.kind === "command");
    assert.equal(
      commands.map(({ index }) => index),
      [read ? 18 : 25, 12],
    );
    assert.is(stateOf(bus.read32(0x1c)), read ? "data" : "rcv", "the state before CMD12");
    assert.is(stateOf(bus.read32(REG.response)), "tran", "the driver's response stays");
    assert.is(stateOf(bus.status()), "tran");
    assert.is(bus.present & PRESENT.dataInhibit, 0);
  }
});

test("auto-CMD12 that fails: 0x3C, bit 24, no transfer complete; a clear of the bit clears 0x3C", () => {
  for (const [kind, bit] of [
    ["no-response", 0x02],
    ["response-crc", 0x04],
    ["command-crc", 0x02],
  ] as const) {
    const bus = opened();
    bus.fault({ kind, command: 12, times: 1 });
    bus.must(18, 0, "r1", { read: true, blocks: 2, mode: MODE.count | MODE.multi | MODE.read | AUTO_CMD12 });
    bus.pioRead(2);
    const status = bus.awaitStatus(INT.transfer);
    assert.is(hex(status & (INT_ERRORS | INT.transfer)), hex(AUTO_ERROR), kind);
    assert.is(bus.read16(0x3c), bit, kind);
    assert.is(bus.present & PRESENT.dataInhibit, PRESENT.dataInhibit, "until a reset");
    bus.write32(REG.status, AUTO_ERROR);
    assert.is(bus.read16(0x3c), 0);
    bus.resetLines();
    bus.clearFaults();
    bus.send(12, 0);
    bus.resetLines();
    bus.awaitTran();
  }
});

test("auto-CMD12 behind a data error is not sent, and 0x3C says so, if it was asked for", () => {
  const AUTO = MODE.count | MODE.multi | AUTO_CMD12;
  const cases: readonly [FaultPlan, read: boolean, dma: boolean, error: number][] = [
    [{ kind: "read-crc", skip: 1, times: 1 }, true, false, INT.dataCrc],
    [{ kind: "read-silent", skip: 1, times: 1 }, true, false, INT.dataTimeout],
    [{ kind: "write-crc", skip: 1, times: 1 }, false, false, INT.dataCrc],
    [{ kind: "read-crc", skip: 2, times: 1 }, true, true, INT.dataCrc],
    [{ kind: "no-response", command: 18, times: 1 }, true, false, INT.timeout],
  ];
  for (const [plan, read, dma, error] of cases) {
    for (const auto of [true, false]) {
      const what = `${plan.kind}, ${dma ? "ADMA2" : "PIO"}, ${auto ? "auto-CMD12" : "no auto command"}`;
      const bus = opened("full");
      bus.fault(plan);
      bus.clearEvents();
      if (dma) bus.describe(3 * 512);
      const mode = (auto ? AUTO : MODE.count | MODE.multi) | (read ? MODE.read : 0) | (dma ? MODE.dma : 0);
      bus.issue(read ? 18 : 25, 0, "r1", { read, blocks: 3, mode });
      if (!dma && read) bus.pioRead(3);
      else if (!dma) bus.pioWrite(pattern(3));
      const started = plan.kind !== "no-response";
      const status = bus.awaitStatus(INT.transfer);
      const expected = error | (auto && started ? AUTO_ERROR : 0);
      assert.is(hex(status & (INT_ERRORS | INT.transfer)), hex(expected), what);
      assert.is(bus.read16(0x3c), auto && started ? 0x01 : 0, what);
      bus.idle(10_000_000);
      const stops = bus.events().filter((event) => event.kind === "command" && event.index === 12);
      assert.is(stops.length, 0, what);
      bus.resetLines();
      bus.must(12, 0);
      bus.awaitTran();
    }
  }
});

test("a transfer that the driver stops itself has no auto-CMD12 that could be missing", () => {
  const bus = opened("full");
  const mode = MODE.count | MODE.multi | MODE.read | AUTO_CMD12;
  bus.must(18, 0, "r1", { read: true, blocks: 3, mode });
  bus.pioRead(1);
  bus.fault({ kind: "long-r1b", command: 12, times: 1, delayUs: 9_000_000 });
  bus.must(12, 0, "r1b");
  const status = bus.awaitStatus(INT.transfer);
  assert.is(hex(errorsOf(status)), hex(INT.dataTimeout));
  assert.is(bus.read16(0x3c), 0);
});

test("a command written during auto-CMD12 waits behind it", () => {
  const bus = opened();
  bus.must(18, 0, "r1", { read: true, blocks: 1, mode: MODE.count | MODE.multi | MODE.read | AUTO_CMD12 });
  bus.clearEvents();
  bus.pioRead(1);
  assert.is(bus.present & PRESENT.commandInhibit, 0, "auto-CMD12 does not show");
  bus.write32(REG.status, INT.command);
  bus.write32(REG.argument, bus.rca << 16);
  bus.write16(REG.command, (13 << 8) | 0x1a);
  assert.is(bus.present & PRESENT.commandInhibit, PRESENT.commandInhibit);
  assert.is(errorsOf(bus.awaitStatus(INT.command)), 0);
  assert.is(stateOf(bus.read32(REG.response)), "tran");
  assert.is(stateOf(bus.read32(0x1c)), "data");
  const commands = bus.events().filter((event) => event.kind === "command");
  assert.equal(
    commands.map(({ index }) => index),
    [12, 13],
  );
});

test("auto-CMD23: before the command, its argument from 0x00, its R1 in 0x1C", () => {
  for (const dma of [false, true]) {
    const bus = opened("adma2");
    bus.write32(REG.dmaAddress, 0x80000003);
    bus.clearEvents();
    if (dma) {
      bus.dmaMemory(1536).set(pattern(3, 5));
      bus.describe(1536);
    }
    const mode = MODE.count | MODE.multi | AUTO_CMD23 | (dma ? MODE.dma : 0);
    bus.must(25, 9, "r1", { read: false, blocks: 3, mode });
    if (!dma) bus.pioWrite(pattern(3, 5));
    assert.is(hex(errorsOf(bus.awaitStatus(INT.transfer))), hex(0));
    const commands = bus.events().filter((event) => event.kind === "command");
    assert.equal(
      commands.map(({ index, argument }) => [index, argument >>> 0]),
      [
        [23, 0x80000003],
        [25, 9],
      ],
    );
    assert.is(stateOf(bus.read32(0x1c)), "tran");
    for (let i = 0; i < 3; i++)
      same(bus.stored(9 + i), pattern(3, 5).subarray(i * 512, i * 512 + 512), `${i}`);
    assert.is(stateOf(bus.status()), "tran", "it ended by its count");
  }
});

test("auto-CMD23 that fails: the command behind it is not sent", () => {
  for (const [kind, bit] of [
    ["no-response", 0x02],
    ["response-crc", 0x04],
  ] as const) {
    const bus = opened();
    bus.fault({ kind, command: 23, times: 1 });
    bus.write32(REG.dmaAddress, 2);
    bus.clearEvents();
    bus.issue(25, 9, "r1", { read: false, blocks: 2, mode: MODE.count | MODE.multi | AUTO_CMD23 });
    assert.is(hex(bus.awaitStatus(INT.command)), hex(AUTO_ERROR | INT.error));
    assert.is(bus.read16(0x3c), bit);
    bus.idle(1_000_000);
    assert.is(bus.events().filter((event) => event.kind === "command" && event.index === 25).length, 0);
    bus.resetLines();
    assert.is(stateOf(bus.status()), "tran");
  }
});

// ---- block gap ----

test("block gap: stop, look around, go on; every block arrives once", () => {
  for (const read of [true, false]) {
    const bus = opened();
    bus.preset(0, pattern(4, 3));
    bus.must(23, 4);
    bus.must(read ? 18 : 25, read ? 0 : 20, "r1", { read, blocks: 4 });
    const taken: number[] = [];
    for (let block = 0; block < 4; block++) {
      bus.write8(0x2a, 0x01);
      if (read) taken.push(...bus.pioRead(1).data);
      else bus.pioWrite(pattern(4, 3).subarray(block * 512, block * 512 + 512));
      const status = bus.awaitStatus(INT.transfer);
      assert.is(status & GAP_INT, block < 3 ? GAP_INT : 0, `block ${block}: ${hex(status)}`);
      bus.write32(REG.status, 0xffffffff);
      assert.is(bus.present & (PRESENT.dataInhibit | PRESENT.dataActive), 0, "the lines are free");
      assert.is(bus.read16(REG.blockCount), 3 - block);
      if (block === 3) break;
      bus.write8(0x2a, 0x03);
      assert.is(bus.read8(0x2a), 0x01, "continue ends by itself");
      assert.is(bus.present & PRESENT.dataInhibit, 0, "and does nothing while stop is there");
      bus.write8(0x2a, 0x02);
      assert.is(bus.present & PRESENT.dataInhibit, PRESENT.dataInhibit);
    }
    if (read) same(Uint8Array.from(taken), pattern(4, 3), "read");
    for (let i = 0; !read && i < 4; i++) {
      same(bus.stored(20 + i), pattern(4, 3).subarray(i * 512, i * 512 + 512), `sector ${i}`);
    }
  }
});

test("block gap: CMD12 there ends the transfer; a DAT reset takes the request away", () => {
  const bus = opened();
  bus.write8(0x2a, 0x01);
  bus.must(18, 0, "r1", { read: true, blocks: 4 });
  bus.pioRead(1);
  bus.awaitStatus(GAP_INT);
  bus.must(12, 0, "r1b");
  assert.is(hex(errorsOf(bus.awaitStatus(INT.transfer))), hex(0));
  assert.is(stateOf(bus.status()), "tran");
  bus.write8(REG.reset, 0x04);
  assert.is(bus.read8(0x2a), 0);
});

// ---- force event ----

test("force event: each bit sets its status, if enabled; the auto register too", () => {
  let cases = 0;
  for (let bit = 0; bit < 16; bit++) {
    for (const enabled of [true, false]) {
      const bus = new Bus();
      bus.write32(REG.statusEnable, enabled ? 0xffffffff : 0);
      bus.write16(0x52, 1 << bit);
      const expected = enabled && bit <= 10 ? ((1 << (bit + 16)) | INT.error) >>> 0 : 0;
      assert.is(hex(bus.read32(REG.status)), hex(expected), `0x52 bit ${bit}`);
      bus.write32(REG.status, 0xffffffff);
      assert.is(bus.read32(REG.status), 0);
      bus.write16(0x50, 1 << bit);
      const known = bit <= 4 || bit === 7;
      assert.is(bus.read16(0x3c), known ? 1 << bit : 0, `0x50 bit ${bit}`);
      assert.is(hex(bus.read32(REG.status)), hex(known && enabled ? AUTO_ERROR | INT.error : 0));
      assert.is(bus.read32(0x50), 0, "it reads as 0");
      cases += 2;
    }
  }
  note(`${cases} forced events`);
});

// ---- slot, interrupt line ----

test("insert and remove: bits 6 and 7 on the edge, present state, the test level, write protect", () => {
  const bus = new Bus();
  bus.write32(REG.statusEnable, ALL);
  const pins = PRESENT.inserted | PRESENT.stable | PRESENT.detectPin;
  bus.core.machineInsert(1);
  assert.is(bus.read32(REG.status), 0, "no edge");
  bus.core.machineInsert(0);
  assert.is(hex(bus.read32(REG.status)), hex(REMOVE));
  assert.is(hex(bus.present & pins), hex(PRESENT.stable));
  bus.write32(REG.status, REMOVE);
  bus.core.machineInsert(1);
  assert.is(hex(bus.read32(REG.status)), hex(INSERT));
  assert.is(hex(bus.present & pins), hex(pins));
  bus.write32(REG.status, INSERT);
  bus.write8(REG.hostControl, 0x80);
  assert.is(hex(bus.read32(REG.status)), hex(REMOVE), "test level: out");
  bus.write8(REG.hostControl, 0xc0);
  assert.is(hex(bus.read32(REG.status)), hex(REMOVE | INSERT), "test level: in");
  bus.write32(REG.status, ALL);
  bus.write32(REG.statusEnable, 0);
  bus.core.machineInsert(0);
  assert.is(bus.read32(REG.status), 0, "not enabled");
  assert.is(new Bus({ slotWriteProtected: true }).present & PRESENT.writable, 0);
  assert.is(new Bus().present & PRESENT.writable, PRESENT.writable);
  const fault = opened();
  fault.fault({ kind: "pulled", command: 13 });
  fault.send(13, fault.rca << 16);
  assert.is(fault.read32(REG.status) & REMOVE, REMOVE, "a card pulled in the middle");
});

test("the interrupt line: a level of status and signal enable, in 0xFC too", () => {
  const bus = opened();
  const level = () => {
    assert.is(bus.read8(0xfc), bus.core.irqLevel(), "slot interrupt status");
    return bus.core.irqLevel();
  };
  bus.clearStatus();
  bus.must(13, bus.rca << 16);
  assert.is(level(), 0, "status without signal");
  bus.write32(REG.signalEnable, INT.command);
  assert.is(level(), 1, "the signal is enabled later");
  bus.write32(REG.status, 0);
  assert.is(level(), 1);
  bus.write32(REG.status, INT.command);
  assert.is(level(), 0);
  bus.issue(13, bus.rca << 16, "r1");
  assert.is(level(), 0, "before the response");
  bus.idle(100_000);
  assert.is(level(), 1);
  bus.write32(REG.signalEnable, 0);
  assert.is(level(), 0);
  bus.write32(REG.signalEnable, REMOVE);
  bus.core.machineInsert(0);
  assert.is(bus.core.irqLevel(), 1, "without any access");
  bus.write8(REG.reset, 1);
  assert.is(level(), 0, "RESET_ALL");
});

test("CMD level: the very bits of the frame, low start bit first", () => {
  const bus = opened("full");
  bus.setClock(400);
  bus.idle(1_000_000);
  bus.issue(0x2a, 0x55aa0ff0, "none");
  let bits = "";
  for (let clock = 0; clock < 48; clock++) {
    bus.idle(1250);
    bits += bus.present & PRESENT.commandLine ? "1" : "0";
    bus.idle(1250);
  }
  assert.is(bits.slice(0, 40), `01${(0x2a).toString(2)}${(0x55aa0ff0).toString(2).padStart(32, "0")}`);
  assert.is(bits[47], "1");
  assert.is(bus.present & PRESENT.commandLine, PRESENT.commandLine, "idle");
});

// ---- what the capabilities decide ----

test("power: only a voltage that the capabilities name", () => {
  for (const kind of ["full", "uhs"] as const) {
    for (let code = 0; code < 8; code++) {
      const bus = new Bus({ controller: kind });
      bus.powerUp();
      bus.powerDown();
      bus.write8(REG.power, (code << 1) | 1);
      const supplied = code === 7 || (code === 5 && kind === "uhs");
      assert.is(bus.read8(REG.power), (code << 1) | (supplied ? 1 : 0), `${kind}, code ${code}`);
      bus.setClock(400);
      assert.is(bus.send(1, 0, "r3").silent, !supplied, `${kind}, code ${code}`);
    }
  }
});

test("controllers by name: capabilities, and what is missing is not there", () => {
  for (const [name, { capabilities, capabilities1, version }] of Object.entries(CONTROLLERS)) {
    const bus = new Bus({ controller: name as ControllerKind });
    assert.is(bus.read32(0x40), capabilities, name);
    assert.is(bus.read32(0x44), capabilities1, name);
    assert.is(bus.read16(0xfe), version, name);
  }
  const bus = opened("pio");
  bus.write8(REG.timeout, 0);
  bus.describe(512);
  bus.must(17, 0, "r1", { read: true, blocks: 1, dma: true });
  assert.is(hex(errorsOf(bus.awaitStatus(INT.transfer))), hex(INT.dataTimeout), "no ADMA2");
  const narrow = opened("sdma");
  narrow.preset(0, pattern(1));
  narrow.write8(REG.hostControl, 0x22);
  assert.is(narrow.readBlocks(0, 1).errors, 0, "no eight lines: four");
});

test("a device on every controller: write, read, panic", () => {
  for (const controller of Object.keys(CONTROLLERS) as ControllerKind[]) {
    const device = Device.open(coreModule("release"), {
      controller,
      sizeBytes: 1 << 20,
      area: { offset: 0, kmsgSize: 16384, kmsgCount: 4, abi: "lp64" },
    });
    device.write(600_000, pattern(3));
    same(device.read(600_000, 1536), pattern(3), controller);
    assert.is(device.panicWrite({ text: "kernel", timeSec: 1n }).status, 0, controller);
  }
  for (const options of [
    { controller: "pio", dma: true },
    { controller: "adma2", busWidth: 8 },
    { controller: "nope" },
  ]) {
    assert.throws(
      () => Device.open(coreModule("release"), { sizeBytes: 1 << 20, ...options } as never),
      (error: { code?: string }) => error.code === "EINVAL",
    );
  }
});

test("a reset of all takes the clock away at once: a command gets neither an answer nor a timeout", () => {
  const bus = new Bus().open();
  bus.setClock(20_000);
  bus.write8(REG.reset, 0x01);
  bus.write32(REG.statusEnable, 0xffffffff);
  bus.issue(13, bus.rca << 16, "r1");
  bus.idle(1_000_000_000);
  assert.is(bus.read32(REG.status), 0, "neither an answer nor a timeout");
  assert.is(bus.present & PRESENT.commandInhibit, PRESENT.commandInhibit);
});

test("presets: the divider of the mode, if bit 15 says so", () => {
  for (const [hostControl, control2, khz] of [
    [0x02, 0, 400],
    [0x02, PRESETS, 25_000],
    [0x06, PRESETS, 50_000],
    [0x06, PRESETS | 0x08, 25_000],
    [0x06, PRESETS | 0x09, 50_000],
    [0x06, PRESETS | 0x0a, 100_000],
    [0x06, PRESETS | 0x0b, 200_000],
    [0x06, PRESETS | 0x0c, 50_000],
  ] as const) {
    const bus = opened("uhs");
    bus.setClock(400);
    bus.write8(REG.hostControl, hostControl);
    bus.write16(CONTROL2, control2);
    bus.idle(1_000_000);
    bus.clearEvents();
    bus.issue(13, bus.rca << 16, "r1");
    bus.awaitStatus(INT.command);
    const [command, response] = bus.events();
    const elapsedNs = Number((response?.timeNs ?? 0n) - (command?.timeNs ?? 0n));
    assert.is(elapsedNs, Math.ceil(48e6 / khz) + Math.ceil(50e6 / khz), hex(control2));
  }
});

/**
 * One block with execute tuning set, as Linux sends CMD19 and CMD21: any read that the card answers will
 * do.
 */
function tuningBlock(bus: Bus): number {
  bus.issue(17, 0, "r1", { read: true, blocks: 1 });
  bus.idle(2_000_000);
  const status = bus.read32(REG.status);
  bus.clearStatus();
  return status;
}

test("specification 2.00: the divider is the highest of eight bits, and there is no auto-CMD23", () => {
  for (const [bits, by] of [
    [0x04, 8],
    [0x80, 256],
    [0x81, 256],
    [0x0c, 16],
  ] as const) {
    const bus = new Bus({ controller: "8-bit" });
    new DataView(bus.memory.buffer).setUint32(CONFIG_HOST_VERSION, 1, true);
    bus.core.machineInit();
    bus.open();
    bus.write16(REG.clock, 0);
    bus.write16(REG.clock, (bits << 8) | 5);
    bus.idle(1_000_000);
    bus.clearEvents();
    bus.issue(13, bus.rca << 16, "r1");
    bus.awaitStatus(INT.command);
    const [command, response] = bus.events();
    const elapsedNs = Number((response?.timeNs ?? 0n) - (command?.timeNs ?? 0n));
    // The base clock is 13:8 of the capabilities: 8 MHz of 0xc8.
    const khz = Math.floor(8000 / by);
    assert.is(elapsedNs, Math.ceil(48e6 / khz) + Math.ceil(50e6 / khz), hex(bits));
    bus.clearEvents();
    bus.issue(18, 0, "r1", { read: true, blocks: 2, mode: MODE.count | MODE.multi | MODE.read | AUTO_CMD23 });
    bus.awaitStatus(INT.command);
    const first = bus.events().find((event) => event.kind === "command");
    assert.is(first?.kind === "command" ? first.index : null, 18);
  }
});

test("a command that waits behind an auto-CMD12 that fails is not sent: 0x3C bit 7", () => {
  const bus = opened();
  bus.fault({ kind: "no-response", command: 12, times: 1 });
  bus.must(18, 0, "r1", { read: true, blocks: 1, mode: MODE.count | MODE.multi | MODE.read | AUTO_CMD12 });
  bus.pioRead(1);
  bus.clearStatus();
  bus.clearEvents();
  bus.write32(REG.argument, bus.rca << 16);
  bus.write16(REG.command, (13 << 8) | 0x1a);
  bus.idle(1_000_000);
  assert.is(hex(bus.read32(REG.status)), hex(AUTO_ERROR | INT.error));
  assert.is(bus.read16(0x3c), 0x82);
  assert.is(bus.events().filter(({ kind }) => kind === "command").length, 0);
  assert.is(bus.present & PRESENT.commandInhibit, 0);
});

test("tuning: buffer read ready and nothing else; eight good blocks set the sampling clock", () => {
  const bus = opened("uhs");
  bus.preset(0, pattern(1));
  bus.write16(CONTROL2, TUNED);
  assert.is(bus.read16(CONTROL2), 0, "it cannot be set");
  bus.write16(CONTROL2, EXEC_TUNING);
  for (let i = 1; i <= 8; i++) {
    assert.is(hex(tuningBlock(bus)), hex(INT.readReady), `block ${i}`);
    assert.is(bus.read16(CONTROL2), i < 8 ? EXEC_TUNING : TUNED, `block ${i}`);
    assert.is(bus.present & PRESENT.dataInhibit, 0);
  }
  assert.is(bus.readBlocks(0, 1).errors, 0);
  bus.write16(CONTROL2, EXEC_TUNING | TUNED);
  for (let i = 0; i < 8; i++) tuningBlock(bus);
  assert.is(bus.read16(CONTROL2), TUNED, "tuned again");
  bus.write16(CONTROL2, 0);
  assert.is(bus.read16(CONTROL2), 0, "it can be cleared");
});

test("tuning: blocks that are damaged or silent count as bad; forty blocks are the end", () => {
  for (const kind of ["read-crc", "response-crc"] as const) {
    const bus = opened("uhs");
    bus.fault({ kind });
    bus.write16(CONTROL2, EXEC_TUNING);
    // Of a response nobody looks: the block behind it is good.
    for (let i = 1; i <= (kind === "read-crc" ? 40 : 8); i++) {
      assert.is(tuningBlock(bus) & INT_ERRORS, 0, `${kind} ${i}: no error interrupts`);
      if (kind === "read-crc") assert.is(bus.read16(CONTROL2), i < 40 ? EXEC_TUNING : 0, `block ${i}`);
    }
    assert.is(bus.read16(CONTROL2), kind === "read-crc" ? 0 : TUNED, kind);
  }
  const bus = opened("uhs");
  bus.write8(REG.timeout, 0);
  bus.fault({ kind: "no-response", command: 17 });
  bus.fault({ kind: "read-silent" }, 1);
  bus.write16(CONTROL2, EXEC_TUNING);
  assert.is(tuningBlock(bus), 0, "silence tells nothing");
  assert.is(bus.read16(CONTROL2), EXEC_TUNING);
});

test("a block size or count rewritten in the middle changes nothing (CVE-2020-17380, 2021-3409)", () => {
  for (const dma of [false, true]) {
    for (const value of [0xffffffff, 0, 0x0001_0fff]) {
      const bus = opened("adma2");
      bus.preset(0, pattern(4));
      if (dma) bus.describe(2048);
      bus.must(18, 0, "r1", { read: true, blocks: 4, dma });
      bus.write32(REG.blockSize, value);
      bus.write16(REG.transferMode, 0);
      if (dma) {
        bus.awaitStatus(INT.transfer);
        same(bus.dmaMemory(2048), pattern(4), hex(value));
      } else {
        for (let block = 0; block < 4; block++) {
          bus.write32(REG.blockSize, value);
          same(bus.pioRead(1).data, pattern(4).subarray(block * 512, block * 512 + 512), hex(value));
        }
        bus.awaitStatus(INT.transfer);
      }
      assert.is(bus.read16(REG.blockSize), 512);
      assert.is(bus.read16(REG.blockCount), 0);
    }
  }
});

test("a block count of 0 moves nothing and asks for nothing, by PIO and by DMA", () => {
  for (const [index, direction] of [
    [18, MODE.read],
    [25, 0],
  ] as const) {
    for (const dma of [0, MODE.dma]) {
      const bus = opened();
      bus.describe(512);
      bus.dmaMemory(512).fill(0x5a);
      bus.issue(index, 0, "r1", {
        read: direction !== 0,
        blocks: 0,
        mode: MODE.count | MODE.multi | direction | dma,
      });
      bus.idle(20_000_000);
      assert.is(bus.read32(REG.status), INT.command, `CMD${index}`);
      assert.is(bus.read16(REG.blockCount), 0);
      assert.is(bus.present & PRESENT.dataInhibit, 0);
      assert.ok(bus.dmaMemory(512).every((byte) => byte === 0x5a));
      bus.must(12, 0, "r1b");
      bus.awaitTran();
      assert.ok(bus.stored(0).every((byte) => byte === 0));
    }
  }
});

test.run();
