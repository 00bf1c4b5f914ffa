// The controller as a driver sees it (mmc.md §3.1, §3.4, §3.5): reset values, access widths, read-only bits,
// W1C, enable masks, resets, how a command starts, response layout, errors of responses, PIO lanes, ADMA2,
// timeouts, clock and width.
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  ADMA_DATA_AT,
  ADMA_TABLE_AT,
  type Answer,
  Bus,
  type BusOptions,
  type DataOptions,
  hex,
  INT,
  INT_ERRORS,
  MODE,
  note,
  PRESENT,
  pattern,
  R1,
  REG,
  same,
  stateOf,
} from "./bus.js";

const BAR_BYTES = 256;
const STATUS_ENABLE_ALL = 0x03ff00ff;
const IDLE_LINES =
  PRESENT.inserted |
  PRESENT.stable |
  PRESENT.detectPin |
  PRESENT.writable |
  PRESENT.dat0 |
  PRESENT.dat123 |
  PRESENT.commandLine;

/** Reset values by byte; the others are 0 (mmc.md §3.1, §3.2). */
const RESET_VALUES = new Map([
  // PRESENT_STATE: a card, writable, all lines high.
  [0x26, (IDLE_LINES >>> 16) & 0xff],
  [0x27, IDLE_LINES >>> 24],
  // CAPABILITIES: timeout clock 50 MHz, base clock 200 MHz, 8 lines, ADMA2, high speed, 3.3 V.
  [0x40, 0xb2],
  [0x41, 0xc8],
  [0x42, 0x2c],
  [0x43, 0x01],
  // VERSION: 3.00.
  [0xfe, 0x02],
]);

function opened(options: BusOptions = {}): Bus {
  return new Bus(options).open();
}

function bytes(bus: Bus): number[] {
  return Array.from({ length: BAR_BYTES }, (_, at) => bus.read8(at));
}

function fast(options: BusOptions = {}): Bus {
  const bus = opened(options);
  bus.setBus(4, true, 50_000);
  return bus;
}

function readOne(extra: Partial<DataOptions> = {}): DataOptions {
  return { read: true, blocks: 1, ...extra };
}

function errorsOf(status: number): number {
  return (status & INT_ERRORS) >>> 0;
}

// ---- registers ----

test("reset values", () => {
  const bus = new Bus();
  for (const [at, value] of bytes(bus).entries()) {
    assert.is(value, RESET_VALUES.get(at) ?? 0, `byte ${hex(at)} out of reset`);
  }
  bus.open();
  bus.write32(REG.argument, 0xffffffff);
  bus.write8(REG.reset, 0x01);
  for (const [at, value] of bytes(bus).entries()) {
    assert.is(value, RESET_VALUES.get(at) ?? 0, `byte ${hex(at)} after a software reset`);
  }
});

test("a 16- or 32-bit read is its bytes, lowest first, at every offset", () => {
  const bus = fast();
  bus.readBlocks(0, 1);
  bus.write32(REG.admaAddress, 0x12345678);
  bus.write32(REG.argument, 0x9abcdef0);
  const byte = bytes(bus);
  const lane = (at: number) => byte[at & 0xff] ?? 0;
  for (let at = 0; at < BAR_BYTES; at++) {
    assert.is(bus.read16(at), lane(at) | (lane(at + 1) << 8), `16 bits at ${hex(at)}`);
    const wide = (lane(at) | (lane(at + 1) << 8) | (lane(at + 2) << 16) | (lane(at + 3) << 24)) >>> 0;
    assert.is(hex(bus.read32(at)), hex(wide), `32 bits at ${hex(at)}`);
  }
  assert.is(hex(bus.read32(0x108)), hex(bus.read32(0x08)), "offsets are modulo 256");
});

/** Writes of 16 and 32 bits must do what their bytes do one by one: compared over all registers. */
test("a 16- or 32-bit write is its bytes in ascending order, at every offset", () => {
  let cases = 0;
  const wide = fast();
  const start = wide.save();
  const narrow = fast();
  for (const width of [2, 4] as const) {
    for (let at = 0; at + width <= BAR_BYTES; at += width) {
      for (const value of [0xffffffff, 0xa5a5a5a5, 0x00000000, 0x12345678]) {
        wide.load(start);
        narrow.load(start);
        if (width === 2) wide.write16(at, value & 0xffff);
        else wide.write32(at, value);
        for (let i = 0; i < width; i++) narrow.write8(at + i, (value >>> (8 * i)) & 0xff);
        assert.equal(bytes(wide), bytes(narrow), `${width * 8} bits of ${hex(value)} at ${hex(at)}`);
        cases++;
      }
    }
  }
  note(`${cases} cases of wide and narrow writes`);
});

test("writable, read-only and reserved bits of every register", () => {
  /** Bits that read back, by register; not named: nothing. HOST_CONTROL2 belongs to UHS, which the default has not. */
  const writable: readonly [at: number, mask: number][] = [
    [0x00, 0xffffffff], // SDMA address
    [0x04, 0xffff7fff], // BLOCK_COUNT, BLOCK_SIZE
    [0x08, 0xffffffff], // ARGUMENT
    [0x58, 0xffffffff], // ADMA address
    [0x34, 0x07ff01ff], // status enable
    [0x38, 0x07ff01ff], // signal enable
  ];
  const masks = new Map(writable);
  const bus = new Bus();
  for (let at = 0; at < BAR_BYTES; at += 4) {
    // COMMAND starts something, 0x20 is a port, 0x28 and 0x2c have effects: below.
    if (at === 0x0c || at === 0x20 || at === 0x28 || at === 0x2c) continue;
    const before = bus.read32(at);
    const mask = masks.get(at) ?? 0;
    for (const value of [0xffffffff, 0x5aa55aa5, 0]) {
      bus.write32(at, value);
      const expected = ((before & ~mask) | (value & mask)) >>> 0;
      assert.is(hex(bus.read32(at)), hex(expected), `${hex(value)} to ${hex(at)}`);
    }
  }
  bus.write16(REG.transferMode, 0xffff);
  assert.is(bus.read16(REG.transferMode), 0x003f, "TRANSFER_MODE");
  bus.write8(REG.hostControl, 0xff);
  assert.is(bus.read8(REG.hostControl), 0xff, "HOST_CONTROL");
  bus.write8(REG.power, 0xff);
  assert.is(bus.read8(REG.power), 0x0f, "POWER");
  bus.write16(REG.clock, 0xffff);
  assert.is(bus.read16(REG.clock), 0xffe7, "CLOCK: stable is set by the hardware");
  bus.write16(REG.clock, 0xfffe);
  assert.is(bus.read16(REG.clock) & 3, 0, "CLOCK: stable cannot be written");
  bus.write8(REG.timeout, 0xff);
  assert.is(bus.read8(REG.timeout), 0x0f, "TIMEOUT");
});

test("INT_STATUS: write 1 to clear, byte by byte; 0 clears nothing; the summary follows", () => {
  const bus = fast();
  // Command complete, transfer complete (bits 0, 1), then a command timeout and a data CRC error (16, 21).
  bus.must(13, bus.rca << 16);
  bus.setLines(8);
  bus.must(17, 0, "r1", readOne());
  bus.awaitStatus(0);
  const status = bus.read32(REG.status);
  assert.is(hex(status), hex(INT.command | INT.error | INT.dataCrc));
  bus.write32(REG.status, 0);
  assert.is(bus.read32(REG.status), status, "writing 0");
  bus.write8(REG.status + 2, 0x01);
  assert.is(bus.read32(REG.status), status, "another bit of the same byte");
  bus.write8(REG.status + 1, 0xff);
  assert.is(bus.read32(REG.status), status, "the summary cannot be cleared itself");
  bus.write8(REG.status, 0x01);
  assert.is(hex(bus.read32(REG.status)), hex(INT.error | INT.dataCrc), "byte 0x30");
  assert.is(bus.read16(REG.status), INT.error, "the lower half shows the summary");
  bus.write16(REG.status + 2, INT.dataCrc >>> 16);
  assert.is(bus.read32(REG.status), 0, "the summary clears itself with the last error");
});

test("INT_STATUS shows only what is enabled, and enabling later does not bring it back", () => {
  for (const [enable, expected] of [
    [0, 0],
    [INT.command, INT.command],
    [INT.transfer, INT.transfer],
    [STATUS_ENABLE_ALL, INT.command | INT.transfer],
  ] as const) {
    const bus = opened({ timing: { switchNs: 1_000_000 } });
    bus.write32(REG.statusEnable, enable);
    bus.issue(6, 0x03af0101, "r1b");
    bus.idle(5_000_000);
    assert.is(hex(bus.read32(REG.status)), hex(expected), `enabled ${hex(enable)}`);
    bus.write32(REG.statusEnable, STATUS_ENABLE_ALL);
    assert.is(hex(bus.read32(REG.status)), hex(expected), "not afterwards");
  }
  const bus = opened();
  bus.write32(REG.statusEnable, STATUS_ENABLE_ALL & ~INT.timeout);
  bus.issue(9, 0, "r2");
  bus.idle(5_000_000);
  assert.is(bus.read32(REG.status), 0, "an error that is not enabled has no summary either");
});

// ---- commands ----

test("a command starts with byte 0x0f only: one 16-bit write, two 8-bit writes, one 32-bit write", () => {
  const ways: readonly [name: string, write: (bus: Bus, command: number) => void][] = [
    ["16 bits", (bus, command) => bus.write16(REG.command, command)],
    [
      "8 + 8 bits, low first",
      (bus, command) => {
        bus.write8(REG.command, command & 0xff);
        bus.idle(10_000_000);
        assert.is(bus.present & PRESENT.commandInhibit, 0, "the low byte starts nothing");
        bus.write8(REG.command + 1, command >> 8);
      },
    ],
    ["32 bits with the mode", (bus, command) => bus.write32(REG.transferMode, (command << 16) >>> 0)],
  ];
  for (const [name, write] of ways) {
    const bus = opened();
    bus.clearStatus();
    bus.clearEvents();
    bus.write32(REG.argument, bus.rca << 16);
    write(bus, (13 << 8) | 0x1a);
    assert.is(bus.present & PRESENT.commandInhibit, PRESENT.commandInhibit, name);
    assert.is(errorsOf(bus.awaitStatus(INT.command)), 0, name);
    assert.is(stateOf(bus.read32(REG.response)), "tran", name);
    assert.is(bus.present & PRESENT.commandInhibit, 0, name);
    assert.is(bus.events().filter(({ kind }) => kind === "command").length, 1, `${name}: one command`);
  }
});

test("while CMD inhibit is set no second command starts, and the first one is not disturbed", () => {
  const bus = opened();
  bus.clearEvents();
  bus.issue(13, bus.rca << 16, "r1");
  bus.write16(REG.command, (12 << 8) | 0x1a);
  bus.awaitStatus(INT.command);
  bus.idle(10_000_000);
  const commands = bus.events().flatMap((event) => (event.kind === "command" ? [event.index] : []));
  assert.equal(commands, [13]);
  assert.is(stateOf(bus.read32(REG.response)), "tran");
  assert.is(bus.status() & R1.illegal, 0, "the card heard no CMD12");
});

test("while DAT inhibit is set: no data and no busy command, but CMD13, CMD12, and aborts", () => {
  const start = (): Bus => {
    const bus = opened({ timing: { programNs: 1_000_000_000 } });
    bus.must(24, 0, "r1", { read: false, blocks: 1 });
    bus.pioWrite(pattern(1));
    bus.idle(20_000_000);
    assert.is(bus.present & PRESENT.dataInhibit, PRESENT.dataInhibit);
    bus.clearEvents();
    bus.clearStatus();
    return bus;
  };
  for (const [command, starts] of [
    [(13 << 8) | 0x1a, true],
    [(12 << 8) | 0x1a, true],
    [(12 << 8) | 0x1b, true],
    [(12 << 8) | 0xdb, true], // type bits 7:6 = 3: abort
    [(17 << 8) | 0x3a, false],
    [(6 << 8) | 0x1b, false],
  ] as const) {
    const bus = start();
    bus.write32(REG.argument, bus.rca << 16);
    bus.write16(REG.command, command);
    const started = bus.events().some(({ kind }) => kind === "command");
    assert.is(started, starts, `command register ${hex(command)}`);
  }
});

test("TRANSFER_MODE is not written while DAT inhibit is set", () => {
  const bus = opened({ timing: { programNs: 1_000_000_000 } });
  bus.must(24, 0, "r1", { read: false, blocks: 1 });
  bus.write16(REG.transferMode, 0x32);
  assert.is(bus.read16(REG.transferMode), MODE.count);
});

test("R1 in the first word; R2: bits 127:8 of the register in 119:0", () => {
  const bus = new Bus({ serial: 0x11223344 });
  bus.powerUp();
  bus.identify("ready");
  const { words } = bus.must(2, 0, "r2");
  // CID of an eMMC: PSN 47:16 stands in 39:8, MDT 15:8 in 7:0, MID 127:120 in 119:112, and nothing above.
  const psn = ((words[0] >>> 8) | (words[1] << 24)) >>> 0;
  assert.is(hex(psn), hex(0x11223344), "PSN");
  assert.is(words[3] >>> 24, 0, "no CRC byte, nothing in 127:120");
  assert.is((words[3] >>> 16) & 0xff, 0x6d, "MID");
  bus.must(3, bus.rca << 16);
  assert.is(stateOf(bus.read32(REG.response)), "ident", "R1 in 31:0");
});

test("a response of the wrong kind: CRC, index or end bit error, no command complete", () => {
  /** Command in ready (CMD2 → R2) or idle (CMD1 → R3) or tran (CMD13 → R1), what the driver took it for. */
  const table: readonly [index: number, taken: Answer, errors: number, missing: number][] = [
    [1, "r1", INT.crc | INT.index, 0],
    [1, "r3", 0, INT_ERRORS],
    [2, "r2", 0, INT_ERRORS],
    [2, "r1", INT.index | INT.endBit, 0],
    [2, "r3", INT.endBit, INT.index | INT.crc],
    [13, "r1", 0, INT_ERRORS],
    [13, "r3", 0, INT_ERRORS],
    [13, "r2", INT.endBit, 0],
  ];
  for (const [index, taken, errors, missing] of table) {
    const bus = new Bus();
    bus.powerUp();
    bus.identify(index === 1 ? "idle" : index === 2 ? "ready" : "tran");
    const what = `CMD${index} taken for ${taken}`;
    bus.issue(index, index === 13 ? bus.rca << 16 : 0x40ff8080, taken);
    const status = bus.awaitStatus(INT.command);
    assert.is(hex(status & errors), hex(errors), `${what}: ${hex(status)}`);
    assert.is(hex(status & missing), hex(0), `${what}: ${hex(status)}`);
    if (errors !== 0) assert.is(status & (INT.error | INT.command), INT.error, what);
    assert.is(bus.present & PRESENT.commandInhibit, 0, what);
  }
});

test("silence: command timeout after 64 clocks, CMD inhibit until then", () => {
  const bus = opened();
  bus.clearEvents();
  bus.issue(9, 0, "r2");
  const start = bus.nowNs;
  bus.idle((48 + 64) * 2500 - 1);
  assert.is(bus.read32(REG.status), 0);
  assert.is(bus.present & PRESENT.commandInhibit, PRESENT.commandInhibit);
  bus.idle(1);
  assert.is(hex(bus.read32(REG.status)), hex(INT.timeout | INT.error));
  assert.is(bus.present & PRESENT.commandInhibit, 0);
  assert.is(bus.nowNs - start, (48 + 64) * 2500);
});

test("R1b: command complete at the response, transfer complete at the end of busy, DAT0 in between", () => {
  const bus = opened({ timing: { switchNs: 5_000_000 } });
  bus.must(6, 0x03af0101, "r1b");
  assert.is(bus.read32(REG.status), INT.command);
  const busy = PRESENT.dataInhibit | PRESENT.dataActive;
  assert.is(bus.present & (busy | PRESENT.dat0), busy);
  bus.awaitStatus(INT.transfer);
  assert.is(bus.present & (busy | PRESENT.dat0), PRESENT.dat0);
});

// ---- software resets ----

test("reset CMD: command engine, bit 0; reset DAT: data engine, bits 1-5; ALL: all but the card", () => {
  const configuration = (bus: Bus) =>
    [0x04, 0x06, 0x08, 0x28, 0x2c, 0x34, 0x38].map((at) => hex(bus.read16(at))).join(" ");
  // A read whose buffer is full, and a command on its way.
  const start = (): Bus => {
    const bus = fast();
    bus.must(18, 0, "r1", { read: true, blocks: 4 });
    bus.idle(1_000_000);
    const now = bus.present;
    assert.is(now & PRESENT.bufferRead, PRESENT.bufferRead);
    assert.is(bus.read32(REG.status), INT.command | INT.readReady);
    bus.write32(REG.argument, bus.rca << 16);
    bus.write16(REG.command, (13 << 8) | 0x1a);
    return bus;
  };
  const data = PRESENT.dataInhibit | PRESENT.dataActive | PRESENT.readActive | PRESENT.bufferRead;

  const command = start();
  const before = configuration(command);
  command.write8(REG.reset, 0x02);
  assert.is(command.read8(REG.reset), 0, "it ends by itself");
  assert.is(hex(command.present & (PRESENT.commandInhibit | data)), hex(data), "CMD: present state");
  assert.is(command.read32(REG.status), INT.readReady, "CMD: status bit 0 only");
  assert.is(configuration(command), before, "CMD: configuration");
  command.idle(1_000_000);
  assert.is(command.read32(REG.status), INT.readReady, "the command never ends");

  const lines = start();
  lines.write8(REG.reset, 0x04);
  assert.is(
    hex(lines.present & (PRESENT.commandInhibit | data)),
    hex(PRESENT.commandInhibit),
    "DAT: present state",
  );
  assert.is(lines.read32(REG.status), INT.command, "DAT: status bits 1-5 only");
  assert.is(configuration(lines), before, "DAT: configuration");
  lines.clearStatus();
  lines.idle(1_000_000);
  assert.is(lines.read32(REG.status), INT.command, "DAT: the command on its way ends well");

  const all = start();
  all.write8(REG.reset, 0x01);
  assert.is(hex(all.present), hex(IDLE_LINES), "ALL: present state");
  assert.is(all.read32(REG.status), 0, "ALL: status");
  assert.is(all.read16(REG.clock), 0, "ALL: clock");
  assert.is(all.read32(REG.statusEnable), 0, "ALL: enables");
  assert.is(all.state, "data", "the card is not reset");
  all.powerUp();
  all.setLines(4);
  assert.is(stateOf(all.must(12, 0).r1), "data", "nor has it lost its supply");
});

test("reset DAT keeps error bits of the command and of the data that are not its own", () => {
  const bus = opened();
  assert.is(bus.send(9, 0, "r2").errors, INT.timeout);
  bus.resetLines();
  assert.is(hex(bus.read32(REG.status)), hex(INT.timeout | INT.error), "errors stay until cleared");
  bus.clearStatus();
  assert.is(bus.read32(REG.status), 0);
});

// ---- PIO ----

test("PIO: 8, 16 and 32 bits may be mixed; bytes come in the order of the block", () => {
  const bus = fast();
  bus.preset(0, pattern(1));
  bus.must(17, 0, "r1", readOne());
  bus.awaitStatus(INT.readReady);
  const taken: number[] = [];
  const widths = [1, 4, 2, 1, 2, 4, 4, 1, 1] as const;
  for (let i = 0; taken.length < 512; i++) {
    const width = Math.min(widths[i % widths.length] ?? 1, 512 - taken.length);
    // Any of the four addresses is the same port.
    const value = width === 4 ? bus.read32(0x20) : width === 2 ? bus.read16(0x22) : bus.read8(0x20 + (i & 3));
    const lanes = width === 3 ? 1 : width;
    for (let lane = 0; lane < lanes; lane++) taken.push((value >>> (8 * lane)) & 0xff);
  }
  same(Uint8Array.from(taken), pattern(1), "read");
  assert.is(errorsOf(bus.awaitStatus(INT.transfer)), 0);

  const data = pattern(1, 5);
  bus.must(24, 1, "r1", { read: false, blocks: 1 });
  bus.awaitStatus(INT.writeReady);
  for (let at = 0, i = 0; at < 512; i++) {
    const width = Math.min(widths[i % widths.length] ?? 1, 512 - at);
    let value = 0;
    for (let lane = 0; lane < width; lane++) value |= (data[at + lane] ?? 0) << (8 * lane);
    if (width === 4) bus.write32(0x20, value);
    else if (width === 2) bus.write16(0x20, value);
    else bus.write8(0x20 + (i & 3), value & 0xff);
    at += width === 3 ? 1 : width;
  }
  assert.is(errorsOf(bus.awaitStatus(INT.transfer)), 0);
  same(bus.stored(1), data, "written");
});

test("PIO: of a word that reaches over the end of the block the other lanes do not count", () => {
  // SCR of 8 bytes, read as 1 + 1 + 1 + 2 and then 4, of which only three are there.
  const bus = opened({ card: "sd" });
  const expected = bus.register(51, 0, 8, true);
  bus.app(51, 0, "r1", readOne({ blockBytes: 8 }));
  bus.awaitStatus(INT.readReady);
  const taken = [bus.read8(0x20), bus.read8(0x20), bus.read8(0x20), bus.read16(0x20)];
  const rest = bus.read32(0x20);
  assert.equal(
    [
      taken[0],
      taken[1],
      taken[2],
      (taken[3] ?? 0) & 0xff,
      (taken[3] ?? 0) >> 8,
      rest & 0xff,
      (rest >> 8) & 0xff,
    ],
    [...expected.subarray(0, 7)],
  );
  assert.is((rest >> 16) & 0xff, expected[7]);
  assert.is(errorsOf(bus.awaitStatus(INT.transfer)), 0, "it was the last one");
  assert.is(bus.read32(0x20), 0, "nothing behind it");
});

test("PIO: buffer bits and BLOCK_COUNT block by block", () => {
  for (const read of [true, false]) {
    const bus = fast();
    const ready = read ? INT.readReady : INT.writeReady;
    const bit = read ? PRESENT.bufferRead : PRESENT.bufferWrite;
    const active = read ? PRESENT.readActive : PRESENT.writeActive;
    bus.must(read ? 18 : 25, 0, "r1", { read, blocks: 3 });
    for (let left = 3; left > 0; left--) {
      bus.awaitStatus(ready);
      bus.write32(REG.status, ready);
      assert.is(bus.read16(REG.blockCount), left, "BLOCK_COUNT");
      // The last block of a read is over the wire when it is in the buffer: the lines are free, the read is not over.
      const line = read && left === 1 ? 0 : PRESENT.dataActive;
      const all = bit | active | PRESENT.dataInhibit | PRESENT.dataActive;
      assert.is(hex(bus.present & all), hex((all & ~PRESENT.dataActive) | line), `${left} left`);
      for (let i = 0; i < 127; i++) {
        if (read) bus.read32(REG.buffer);
        else bus.write32(REG.buffer, i);
      }
      assert.is(bus.present & bit, bit, "until the last word");
      if (read) bus.read32(REG.buffer);
      else bus.write32(REG.buffer, 0);
      assert.is(bus.present & bit, 0);
    }
    bus.awaitStatus(INT.transfer);
    assert.is(bus.read16(REG.blockCount), 0);
    assert.is(bus.present & (PRESENT.dataInhibit | PRESENT.dataActive | active | bit), 0);
  }
});

test("a status bit whose enable is taken away is gone, and does not come back with it", () => {
  const bus = fast();
  bus.must(13, bus.rca << 16);
  assert.is(bus.read32(REG.status), INT.command);
  bus.write16(REG.statusEnable, 0x00fe);
  assert.is(bus.read32(REG.status), 0);
  bus.write16(REG.statusEnable, 0x00ff);
  assert.is(bus.read32(REG.status), 0);
  bus.must(13, bus.rca << 16);
  assert.is(bus.read32(REG.status), INT.command);
});

test("a transfer that is armed belongs to its own command: no other response starts it, and no block moves", () => {
  let cases = 0;
  for (const card of ["emmc", "sd"] as const) {
    for (const dma of [false, true]) {
      for (const read of [false, true]) {
        for (const blocks of [1, 2]) {
          for (const other of [13, 55, 16, 12, 7, 17]) {
            const bus = new Bus({ card, dma: true, sectors: 1024 }).open();
            bus.preset(0, pattern(4, 7));
            const before = bus.stored(0);
            if (dma) bus.describe(blocks * 512);
            // CMD43 is no card's: armed, and nobody answers.
            bus.issue(43, 0, "r1", { read, blocks, dma });
            bus.awaitStatus(INT.timeout);
            bus.write8(REG.reset, 0x02);
            bus.clearStatus();
            const argument = other === 16 ? 512 : other === 12 || other === 17 ? 0 : (bus.rca << 16) >>> 0;
            bus.issue(other, argument, "r1");
            const status = bus.awaitStatus(INT.command | INT.timeout);
            bus.idle(3_000_000);
            const what = `${card} ${dma ? "ADMA2" : "PIO"} ${read ? "read" : "write"} ${blocks}, then CMD${other}`;
            assert.is(bus.read32(REG.status) & (INT.writeReady | INT.readReady | INT.transfer), 0, what);
            assert.is(bus.present & (PRESENT.bufferWrite | PRESENT.bufferRead), 0, `${what}: no buffer`);
            if (other === 13) assert.is(status & INT.command, INT.command, what);
            bus.resetLines();
            bus.clearStatus();
            same(bus.stored(0), before, what);
            cases++;
          }
        }
      }
    }
  }
  note(`${cases} cases of armed transfers`);
});

test("a CMD12 with busy in the middle of a transfer completes, and ends it", () => {
  for (const read of [true, false]) {
    const bus = fast();
    bus.must(read ? 18 : 25, 0, "r1", { read, blocks: 3 });
    bus.awaitStatus(read ? INT.readReady : INT.writeReady);
    bus.must(12, 0, "r1b");
    assert.is(errorsOf(bus.awaitStatus(INT.transfer)), 0);
    const transfer = PRESENT.dataInhibit | PRESENT.dataActive | PRESENT.readActive | PRESENT.writeActive;
    assert.is(bus.present & transfer, 0);
    assert.is(stateOf(bus.must(13, bus.rca << 16).r1), "tran");
  }
});

test("BLOCK_COUNT is neither used nor changed without its enable bit", () => {
  for (const read of [true, false]) {
    const bus = fast();
    bus.must(read ? 17 : 24, 0, "r1", { read, blocks: 5, mode: read ? MODE.read : 0 });
    if (read) bus.pioRead(1);
    else bus.pioWrite(pattern(1));
    assert.is(errorsOf(bus.awaitStatus(INT.transfer)), 0);
    assert.is(bus.read16(REG.blockCount), 5, read ? "read" : "write");
  }
});

test("a buffer that is not ready: reads give 0, writes go nowhere", () => {
  const bus = fast();
  assert.is(bus.read32(REG.buffer), 0);
  bus.write32(REG.buffer, 0xffffffff);
  assert.is(bus.writeBlocks(0, pattern(1)).errors, 0);
  same(bus.stored(0), pattern(1), "no stray word");
});

test("a slow driver loses nothing: the card's clock stops", () => {
  const bus = fast();
  bus.preset(0, pattern(3));
  bus.write8(REG.timeout, 0);
  bus.must(18, 0, "r1", { read: true, blocks: 3 });
  const taken: number[] = [];
  for (let block = 0; block < 3; block++) {
    assert.is(errorsOf(bus.awaitStatus(INT.readReady)), 0);
    bus.write32(REG.status, INT.readReady);
    bus.idle(1_000_000_000);
    for (let at = 0; at < 512; at++) taken.push(bus.read8(REG.buffer));
  }
  assert.is(errorsOf(bus.awaitStatus(INT.transfer)), 0);
  same(Uint8Array.from(taken), pattern(3), "read");
});

// ---- ADMA2 ----

const TRAN = 0x21;
const END = 0x02;
const NOP = 0x01;
const LINK = 0x31;

interface Descriptor {
  attributes: number;
  bytes: number;
  address: number;
}

/** A read of `blocks` sectors by this table; the status and what came. */
function dmaRead(bus: Bus, blocks: number, ...table: Descriptor[]): number {
  bus.preset(0, pattern(blocks));
  new Uint8Array(bus.memory.buffer, ADMA_DATA_AT, blocks * 512).fill(0);
  bus.describe(512);
  bus.descriptors(...table);
  bus.must(18, 0, "r1", { read: true, blocks, dma: true });
  return bus.awaitStatus(INT.transfer);
}

test("ADMA2: tables that work", () => {
  const at = ADMA_DATA_AT;
  const far = ADMA_TABLE_AT + 0x800;
  const tables: readonly [what: string, blocks: number, table: Descriptor[], linked?: Descriptor[]][] = [
    ["one descriptor with end", 2, [{ attributes: TRAN | END, bytes: 1024, address: at }]],
    [
      "data, then an empty end, as Linux has it",
      2,
      [
        { attributes: TRAN, bytes: 1024, address: at },
        { attributes: NOP | END, bytes: 0, address: 0 },
      ],
    ],
    [
      "nops between",
      2,
      [
        { attributes: NOP, bytes: 77, address: 5 },
        { attributes: TRAN, bytes: 512, address: at },
        { attributes: NOP, bytes: 0, address: 0 },
        { attributes: TRAN | END, bytes: 512, address: at + 512 },
      ],
    ],
    [
      "pieces that cut through blocks",
      3,
      [
        { attributes: TRAN, bytes: 4, address: at },
        { attributes: TRAN, bytes: 700, address: at + 4 },
        { attributes: TRAN, bytes: 832, address: at + 704 },
        { attributes: NOP | END, bytes: 0, address: 0 },
      ],
    ],
    [
      "a link",
      2,
      [
        { attributes: TRAN, bytes: 512, address: at },
        { attributes: LINK, bytes: 0, address: far },
      ],
      [{ attributes: TRAN | END, bytes: 512, address: at + 512 }],
    ],
    ["length 0 is 64 KiB", 128, [{ attributes: TRAN | END, bytes: 0, address: at }]],
  ];
  for (const [what, blocks, table, linked] of tables) {
    const bus = fast();
    if (linked) {
      bus.descriptors(...linked);
      const bytes = new Uint8Array(bus.memory.buffer);
      bytes.copyWithin(far, ADMA_TABLE_AT, ADMA_TABLE_AT + 8 * linked.length);
    }
    const status = dmaRead(bus, blocks, ...table);
    assert.is(errorsOf(status), 0, `${what}: ${hex(status)}`);
    same(bus.dmaMemory(blocks * 512).slice(), pattern(blocks), what);
    assert.is(bus.read8(REG.admaError), 0, what);
    assert.is(status & (INT.readReady | INT.writeReady), 0, `${what}: no buffer interrupts`);
    assert.is(bus.read16(REG.blockCount), 0, what);
  }
});

test("ADMA2: writes gather", () => {
  const bus = fast();
  const data = pattern(3, 3);
  const memory = new Uint8Array(bus.memory.buffer);
  memory.set(data.subarray(0, 600), ADMA_DATA_AT + 4096);
  memory.set(data.subarray(600), ADMA_DATA_AT);
  bus.describe(512);
  bus.descriptors(
    { attributes: TRAN, bytes: 600, address: ADMA_DATA_AT + 4096 },
    { attributes: TRAN | END, bytes: 936, address: ADMA_DATA_AT },
  );
  bus.must(23, 3);
  bus.must(25, 7, "r1", { read: false, blocks: 3, dma: true });
  assert.is(errorsOf(bus.awaitStatus(INT.transfer)), 0);
  for (let i = 0; i < 3; i++) same(bus.stored(7 + i), data.subarray(i * 512, i * 512 + 512), `sector ${i}`);
});

test("ADMA2: tables that do not: ADMA error, the state register, the descriptor's address", () => {
  const at = ADMA_DATA_AT;
  const FETCH = 1;
  const TRANSFER = 3;
  const MISMATCH = 4;
  const top = new Bus().memory.buffer.byteLength;
  /** State after the error, and the address register: descriptors from the table's start. */
  const tables: readonly [what: string, table: Descriptor[], state: number, address: number][] = [
    ["not valid", [{ attributes: 0x20, bytes: 1024, address: at }], FETCH, 0],
    [
      "the second one not valid: a table without end",
      [
        { attributes: TRAN, bytes: 512, address: at },
        { attributes: 0, bytes: 0, address: 0 },
      ],
      FETCH,
      1,
    ],
    ["end too early", [{ attributes: TRAN | END, bytes: 512, address: at }], MISMATCH, 1],
    [
      "an empty end too early",
      [
        { attributes: TRAN, bytes: 512, address: at },
        { attributes: NOP | END, bytes: 0, address: 0 },
      ],
      MISMATCH,
      2,
    ],
    ["data outside the memory", [{ attributes: TRAN | END, bytes: 1024, address: 0xfffff000 }], TRANSFER, 1],
    [
      "data across the end of memory",
      [{ attributes: TRAN | END, bytes: 1024, address: top - 256 }],
      TRANSFER,
      1,
    ],
    ["data at address 0", [{ attributes: TRAN | END, bytes: 1024, address: 0 }], TRANSFER, 1],
    [
      "a descriptor longer than the blocks",
      [{ attributes: TRAN | END, bytes: 1028, address: at }],
      TRANSFER | MISMATCH,
      1,
    ],
    [
      "more data behind the last block",
      [
        { attributes: TRAN, bytes: 1024, address: at },
        { attributes: NOP, bytes: 0, address: 0 },
        { attributes: TRAN | END, bytes: 512, address: at + 1024 },
      ],
      TRANSFER | MISMATCH,
      3,
    ],
    [
      "no end behind the last block",
      [
        { attributes: TRAN, bytes: 1024, address: at },
        { attributes: 0, bytes: 0, address: 0 },
      ],
      FETCH,
      1,
    ],
  ];
  for (const [what, table, state, address] of tables) {
    const bus = fast();
    const status = dmaRead(bus, 2, ...table);
    assert.is(errorsOf(status), INT.adma, `${what}: ${hex(status)}`);
    assert.is(status & INT.transfer, 0, `${what}: no transfer complete`);
    assert.is(bus.read8(REG.admaError), state, `${what}: ADMA error state`);
    assert.is(hex(bus.read32(REG.admaAddress)), hex(ADMA_TABLE_AT + 8 * address), `${what}: address`);
    assert.is(bus.present & PRESENT.dataInhibit, PRESENT.dataInhibit, `${what}: until a reset`);
    bus.resetLines();
    bus.must(12, 0);
    assert.is(stateOf(bus.status()), "tran", what);
    assert.is(
      errorsOf(dmaRead(bus, 2, { attributes: TRAN | END, bytes: 1024, address: at })),
      0,
      `${what}: again`,
    );
  }
});

test("ADMA2: a table outside the memory, and a link that bites its own tail", () => {
  for (const [what, address] of [
    ["outside", 0xfffffff8],
    ["below the bus", 0],
  ] as const) {
    const bus = fast();
    bus.describe(512);
    bus.write32(REG.admaAddress, address);
    bus.must(17, 0, "r1", readOne({ dma: true }));
    assert.is(errorsOf(bus.awaitStatus(INT.transfer)), INT.adma, what);
    assert.is(bus.read8(REG.admaError) & 3, 1, what);
  }
  const bus = fast();
  const status = dmaRead(bus, 2, { attributes: LINK, bytes: 0, address: ADMA_TABLE_AT });
  assert.is(errorsOf(status), INT.adma, "an endless table ends in an error");
});

test("ADMA2: behind the last block too a table of nops and links ends, or it is an error", () => {
  const bus = fast();
  const status = dmaRead(
    bus,
    2,
    { attributes: TRAN, bytes: 1024, address: ADMA_DATA_AT },
    { attributes: NOP, bytes: 0, address: 0 },
    { attributes: LINK, bytes: 0, address: ADMA_TABLE_AT + 8 },
  );
  assert.is(hex(status & (INT.adma | INT.transfer)), hex(INT.adma));
  assert.is(bus.read8(REG.admaError), 1);
  same(bus.dmaMemory(1024).slice(), pattern(2), "the data had come");
});

test("ADMA2: without a block count the length of the table is nobody's business", () => {
  const bus = fast();
  bus.preset(0, pattern(1));
  bus.describe(512);
  bus.descriptors({ attributes: TRAN | END, bytes: 4096, address: ADMA_DATA_AT });
  bus.must(17, 0, "r1", { read: true, blocks: 0, mode: MODE.dma | MODE.read });
  const status = bus.awaitStatus(INT.transfer);
  assert.is(hex(status & (INT_ERRORS | INT.transfer)), hex(INT.transfer));
});

test("ADMA2: a write by too long a table has stored its blocks, and is an error", () => {
  const bus = fast();
  const data = pattern(2, 3);
  bus.dmaMemory(1024).set(data);
  bus.describe(512);
  bus.descriptors({ attributes: TRAN | END, bytes: 1536, address: ADMA_DATA_AT });
  bus.must(23, 2);
  bus.must(25, 7, "r1", { read: false, blocks: 2, dma: true });
  const status = bus.awaitStatus(INT.transfer);
  assert.is(hex(status & (INT_ERRORS | INT.transfer)), hex(INT.adma));
  assert.is(bus.read8(REG.admaError), 7);
  bus.resetLines();
  bus.awaitTran();
  for (let i = 0; i < 2; i++) same(bus.stored(7 + i), data.subarray(i * 512, i * 512 + 512), `sector ${i}`);
});

test("a DMA mode that the controller does not have moves nothing: data timeout", () => {
  for (const select of [0x00, 0x08, 0x18]) {
    for (const read of [true, false]) {
      const bus = fast();
      bus.preset(0, pattern(1));
      bus.describe(512);
      bus.dmaMemory(512).fill(0x77);
      bus.write8(REG.hostControl, 0x06 | select);
      bus.must(read ? 17 : 24, 0, "r1", { read, blocks: 1, dma: true });
      assert.is(
        hex(errorsOf(bus.awaitStatus(INT.transfer))),
        hex(INT.dataTimeout),
        `DMA select ${hex(select)}`,
      );
      assert.is(
        bus.dmaMemory(512).every((byte) => byte === 0x77),
        true,
      );
      same(bus.stored(0), pattern(1), "the card");
    }
  }
});

// ---- timeouts, clock, lines ----

test("data timeout: 2^(13+n) clocks of 50 MHz, for a silent read and for busy", () => {
  for (const what of ["read", "program", "R1b"] as const) {
    for (const code of [0, 1, 7, 14]) {
      const limitNs = (2 ** (13 + code) * 1000) / 50;
      const busyNs = limitNs + 5_000_000;
      const bus = fast({ timing: what === "read" ? {} : { programNs: busyNs, eraseNs: busyNs } });
      bus.fault({ kind: "read-silent" });
      bus.write8(REG.timeout, code);
      bus.clearEvents();
      if (what === "read") bus.must(17, 0, "r1", readOne());
      if (what === "program") {
        bus.must(24, 0, "r1", { read: false, blocks: 1 });
        bus.pioWrite(pattern(1));
      }
      if (what === "R1b") {
        bus.must(35, 0);
        bus.must(36, 0);
        bus.must(38, 1, "r1b");
      }
      const status = bus.awaitStatus(INT.transfer);
      assert.is(hex(errorsOf(status)), hex(INT.dataTimeout), `${what} ${code}`);
      const events = bus.events();
      const from = events
        .filter(({ kind }) => kind === (what === "program" ? "block-write" : "response"))
        .at(-1);
      const error = events.filter(({ kind }) => kind === "error").at(-1);
      const elapsedNs = Number((error?.timeNs ?? 0n) - (from?.timeNs ?? 0n));
      // A read is awaited from the end of the command on: its response of 50 clocks lies between.
      const earliest = what === "read" ? limitNs - 50 * 20 : limitNs;
      assert.is(
        elapsedNs >= earliest && elapsedNs <= limitNs + 2 * 20 + 50 * 20,
        true,
        `${what} ${code}: ${elapsedNs}`,
      );
    }
  }
});

test("the data timeout is about waiting: a slow bus alone never meets it", () => {
  // At 400 kHz on one line a block takes 10.3 ms; the timeout is 164 µs.
  for (const card of ["emmc", "sd"] as const) {
    const bus = opened({ card });
    bus.write8(REG.timeout, 0);
    bus.preset(0, pattern(2));
    const read = bus.readBlocks(0, 2, { count23: true });
    assert.is(hex(read.errors), hex(0), `${card}: read`);
    same(read.data, pattern(2), card);
    bus.resetLines();
    assert.is(hex(bus.writeBlocks(4, pattern(2), { count23: true }).errors), hex(0), `${card}: write`);
  }
});

test("clock off: the command hangs with CMD inhibit until a reset, and nothing is heard", () => {
  for (const clock of [0x0000, 0x0001, 0x0004]) {
    const bus = opened();
    const on = bus.read16(REG.clock);
    bus.write16(REG.clock, clock);
    bus.clearEvents();
    bus.issue(15, bus.rca << 16, "none");
    bus.idle(2_000_000_000);
    assert.is(bus.read32(REG.status), 0);
    assert.is(bus.present & PRESENT.commandInhibit, PRESENT.commandInhibit, "inhibited");
    bus.write8(REG.reset, 0x02);
    assert.is(bus.present & PRESENT.commandInhibit, 0, "reset");
    bus.write16(REG.clock, on);
    assert.is(stateOf(bus.status()), "tran", "the card is where it was");
  }
});

test("the clock stops in the middle of a command: after a reset and with the clock on, all is well", () => {
  for (const [index, answer] of [
    [0, "none"],
    [13, "r1"],
    [9, "r2"],
  ] as const) {
    // On the way to the card, on the way back, and in the silence.
    for (const clocks of [10, 60, 90]) {
      const bus = opened();
      const on = bus.read16(REG.clock);
      bus.issue(index, bus.rca << 16, answer);
      bus.idle(clocks * 2500);
      bus.write16(REG.clock, 0);
      bus.idle(50_000_000);
      bus.resetLines();
      bus.write16(REG.clock, on);
      bus.clearStatus();
      bus.idle(1_000_000);
      const what = `CMD${index} stopped after ${clocks} clocks`;
      const inhibit = () => bus.present & PRESENT.commandInhibit;
      if (clocks < 48) assert.is(bus.state, "tran", `${what}: the card did not get all of it`);
      bus.issue(0, 0, "none");
      bus.idle(5_000_000);
      assert.is(inhibit(), 0, `${what}: CMD0 is sent`);
      assert.is(bus.state, "idle", what);
      bus.identify();
      assert.is(stateOf(bus.status()), "tran", what);
    }
  }
});

test("the clock stops before a block is sent: no data timeout before its time", () => {
  const bus = opened();
  const on = bus.read16(REG.clock);
  bus.write8(REG.timeout, 7);
  bus.idle(1_000_000_000);
  bus.must(24, 0, "r1", { read: false, blocks: 1 });
  bus.awaitStatus(INT.writeReady);
  bus.write16(REG.clock, 0);
  for (let i = 0; i < 128; i++) bus.write32(REG.buffer, i);
  bus.idle(10_000_000); // the timeout is 21 ms
  assert.is(errorsOf(bus.read32(REG.status)), 0);
  bus.resetLines();
  bus.write16(REG.clock, on);
  bus.must(12, 0);
  assert.is(stateOf(bus.status()), "tran");
});

test("identification: nothing is heard above 400 kHz; with an address everything", () => {
  for (const card of ["emmc", "sd"] as const) {
    for (const [khz, hears] of [
      [100, true],
      [400, true],
      [500, false],
      [25_000, false],
    ] as const) {
      const bus = new Bus({ card });
      bus.powerUp();
      bus.send(0, 0, "none");
      bus.setClock(khz);
      const reply = card === "emmc" ? bus.send(1, 0, "r3") : bus.send(8, 0x1aa, "r7");
      assert.is(reply.silent, !hears, `${card} idle at ${khz} kHz`);
      bus.setClock(400);
      bus.identify("ident");
      bus.setClock(khz);
      const address = card === "emmc" ? bus.send(3, bus.rca << 16) : bus.send(3, 0, "r6");
      assert.is(address.silent, !hears, `${card} ident at ${khz} kHz`);
      bus.setClock(400);
      bus.identify();
      bus.setClock(khz);
      assert.is(stateOf(bus.status()), "tran", `${card} tran at ${khz} kHz`);
    }
  }
});

test("the wrong number of lines, or high speed's clock on a slow card: data CRC error, both ways", () => {
  let cases = 0;
  for (const card of ["emmc", "sd"] as const) {
    for (const [what, width, khz] of [
      ["4 lines instead of 1", 4, 25_000],
      ["8 lines instead of 1", 8, 25_000],
      ["50 MHz on a card of default speed", 1, 50_000],
    ] as const) {
      const bus = opened({ card });
      bus.preset(0, pattern(1));
      bus.setLines(width);
      bus.setClock(khz);
      assert.is(hex(bus.readBlocks(0, 1).errors), hex(INT.dataCrc), `${card} read: ${what}`);
      bus.resetLines();
      assert.is(stateOf(bus.status()), "tran", "commands go through on their own line");
      assert.is(hex(bus.writeBlocks(0, pattern(1, 2)).errors), hex(INT.dataCrc), `${card} write: ${what}`);
      bus.resetLines();
      bus.awaitTran();
      same(bus.stored(0), pattern(1), `${card}: ${what}`);
      cases++;
    }
  }
  note(`${cases} cases of wrong lines and clocks`);
});

test("the divider: base / 2N with ten bits, 0 is the base clock", () => {
  for (const divider of [0, 1, 2, 4, 250, 255, 256, 511, 512, 1023]) {
    const bus = opened();
    bus.setDivider(divider);
    bus.idle(10_000_000);
    bus.clearEvents();
    bus.issue(13, bus.rca << 16, "r1");
    bus.awaitStatus(INT.command);
    const khz = divider === 0 ? 200_000 : Math.floor(200_000 / (2 * divider));
    const clocksNs = (clocks: number) => Math.ceil((clocks * 1_000_000) / khz);
    const [command, response] = bus.events();
    const elapsedNs = Number((response?.timeNs ?? 0n) - (command?.timeNs ?? 0n));
    assert.is(elapsedNs, clocksNs(48) + clocksNs(2 + 48), `N = ${divider}`);
  }
});

test("power: a write without bit 0 takes the card's supply, and everything volatile with it", () => {
  const bus = opened();
  bus.write8(REG.power, 0x0f);
  assert.is(stateOf(bus.status()), "tran", "power that is on stays on");
  bus.write8(REG.power, 0x0e);
  assert.is(bus.send(13, bus.rca << 16).silent, true);
  bus.write8(REG.power, 0x0f);
  assert.is(bus.state, "idle");
  assert.is(bus.send(13, bus.rca << 16).silent, true);
});

test.run();
