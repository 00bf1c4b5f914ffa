// The CRCs on the wires are real (mmc.md §1.3): published vectors, comparison bit by bit with a slow division
// of the test's own, and faults that turn over exactly one bit. The frames and the block's CRCs are read
// where the core keeps what is on the wire.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SDHCI_BASE, SDHCI_BUFFER, WIRE_CRC, WIRE_LONG } from "../assembly/layout.js";
import { Bus, type BusOptions, hex, INT, INT_ERRORS, note, pattern, R1, REG, stateOf } from "./bus.js";
import { fieldsOf } from "./wasm/structs.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const ENGINE = fieldsOf(readFileSync(`${ROOT}assembly/sdhci/state.ts`, "utf8"), "Engine");

function engineWord(bus: Bus, name: string): bigint {
  const field = ENGINE.find((one) => one.name === name);
  assert.ok(field, `Engine.${name}`);
  return new DataView(bus.memory.buffer).getBigUint64(SDHCI_BASE + field.offset, true);
}

/** CRC7 of `count` bits, bit by bit. */
function slowCrc7(bits: bigint, count: number): number {
  let crc = 0;
  for (let i = count - 1; i >= 0; i--) {
    const feedback = (crc >> 6) ^ Number((bits >> BigInt(i)) & 1n);
    crc = ((crc << 1) & 0x7f) ^ (feedback === 1 ? 0x09 : 0);
  }
  return crc;
}

/** CRC16 of each line, line 0 first, bit by bit. The highest line has the highest bit. */
function slowCrc16(bytes: Uint8Array, lines: number): number[] {
  const crcs: number[] = Array.from({ length: lines }, () => 0);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const line = lines - 1 - (bit % lines);
    const value = ((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1;
    const crc = crcs[line] ?? 0;
    crcs[line] = ((crc << 1) & 0xffff) ^ ((crc >> 15) ^ value ? 0x1021 : 0);
  }
  return crcs;
}

/** The CRCs that lie on the wire, line 0 first. */
function wireCrc16(bus: Bus, lines: number): number[] {
  const view = new DataView(bus.memory.buffer);
  const low = view.getBigUint64(WIRE_CRC, true);
  const crcs: number[] = [];
  for (let line = 0; line < lines; line++) {
    let crc = 0;
    for (let clock = 0; clock < 16; clock++) {
      let bit: number;
      if (lines === 8) bit = (view.getUint8(WIRE_CRC + clock) >> line) & 1;
      else if (lines === 4) bit = Number((low >> BigInt((15 - clock) * 4 + line)) & 1n);
      else bit = Number((low >> BigInt(15 - clock)) & 1n);
      crc = (crc << 1) | bit;
    }
    crcs.push(crc);
  }
  return crcs;
}

const WIDTHS = [1, 4, 8] as const;
type Lines = (typeof WIDTHS)[number];

function opened(lines: Lines, options: BusOptions = {}): Bus {
  const bus = new Bus(options).open();
  if (lines === 1) bus.setClock(20_000);
  else bus.setBus(lines, true, 50_000);
  return bus;
}

test("CRC7: CMD0 4A, CMD17(0) 2A, CMD8(0x1AA) 43", () => {
  for (const [index, argument, crc] of [
    [0, 0, 0x4a],
    [17, 0, 0x2a],
    [8, 0x1aa, 0x43],
  ] as const) {
    assert.is(
      slowCrc7((0x40n << 32n) | (BigInt(index) << 32n) | BigInt(argument), 40),
      crc,
      "the test's own",
    );
    const bus = new Bus();
    bus.powerUp();
    bus.issue(index, argument, "none");
    const frame = engineWord(bus, "sent");
    assert.is(Number((frame >> 1n) & 0x7fn), crc, `CMD${index}`);
    assert.is(frame >> 46n, 1n, "start bit 0, from the host");
    assert.is(frame & 1n, 1n, "end bit");
  }
});

test("CRC7 of commands and responses, against a slow division", () => {
  const bus = opened(1);
  let cases = 0;
  let word = 1;
  for (let i = 0; i < 500; i++) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    bus.issue(13, ((bus.rca << 16) | (word >>> 17)) & ~1, "r1");
    bus.awaitStatus(INT.command);
    for (const name of ["sent", "answer"]) {
      const frame = engineWord(bus, name);
      assert.is(Number((frame >> 1n) & 0x7fn), slowCrc7(frame >> 8n, 40), `${name} ${frame.toString(16)}`);
      cases++;
    }
    const answer = engineWord(bus, "answer");
    assert.is(Number(answer >> 40n), 13, "start bit, from the card, the index");
    assert.is(Number((answer >> 8n) & 0xffffffffn), bus.read32(REG.response), "the content");
  }
  note(`${cases} frames`);
});

test("R2 carries the CRC7 of its register; R3 has ones instead", () => {
  for (const serial of [1, 0x12345678, 0xffffffff]) {
    const bus = new Bus({ serial });
    bus.powerUp();
    bus.send(0, 0, "none");
    bus.operatingConditions();
    assert.is(engineWord(bus, "answer") & 0xffn, 0xffn, "R3: CRC field and end bit");
    assert.is(engineWord(bus, "answer") >> 40n, 0x3fn, "R3: index");
    bus.must(2, 0, "r2");
    const view = new DataView(bus.memory.buffer);
    let register = 0n;
    for (let i = 3; i >= 0; i--)
      register = (register << 32n) | BigInt(view.getUint32(WIRE_LONG + 4 * i, true));
    assert.is(Number((register >> 1n) & 0x7fn), slowCrc7(register >> 8n, 120), hex(serial));
    assert.is(register & 1n, 1n);
  }
});

test("CRC16: 512 bytes of ones 7FA1, 123456789 31C3", () => {
  const nine = new TextEncoder().encode("123456789");
  assert.equal(slowCrc16(nine, 1), [0x31c3], "the test's own");
  assert.equal(slowCrc16(new Uint8Array(512).fill(0xff), 1), [0x7fa1]);
});

// The core divides only where something went wrong on the way: what lies on the wire then is what the receiver made of
// the block as it came.
test("CRC16 of every line, 1, 4 and 8 lines, both directions and several lengths", () => {
  let cases = 0;
  const check = (bus: Bus, lines: Lines, sent: Uint8Array, what: string) => {
    const came = new Uint8Array(bus.memory.buffer, SDHCI_BUFFER, sent.length).slice();
    assert.not.equal(came, sent, `${what}: nothing was turned over`);
    assert.equal(wireCrc16(bus, lines), slowCrc16(came, lines), what);
    cases += lines;
  };
  for (const lines of WIDTHS) {
    const bus = opened(lines);
    for (let seed = 1; seed <= 40; seed++) {
      const data = pattern(1, seed);
      if (seed > 20) data.fill(seed & 1 ? 0 : 0xff, 0, seed * 10);
      bus.preset(3, data);
      bus.fault({ kind: "read-crc", times: 1 });
      assert.is(bus.readBlocks(3, 1).errors, INT.dataCrc);
      check(bus, lines, data, `read, ${lines} lines, seed ${seed}`);
      bus.resetLines();
      bus.fault({ kind: "write-crc", times: 1 });
      assert.is(bus.writeBlocks(4, data).errors, INT.dataCrc);
      check(bus, lines, data, `write, ${lines} lines, seed ${seed}`);
      bus.resetLines();
      bus.awaitTran();
    }
    if (lines === 8) continue;
    const sd = opened(lines, { card: "sd" });
    for (const [index, argument, blockBytes, app] of [
      [51, 0, 8, true],
      [13, 0, 64, true],
      [22, 0, 4, true],
      [6, 0x00fffff1, 64, false],
    ] as const) {
      const sent = sd.register(index, argument, blockBytes, app);
      sd.fault({ kind: "read-crc", times: 1 });
      const data = { read: true, blocks: 1, blockBytes };
      if (app) sd.app(index, argument, "r1", data);
      else sd.must(index, argument, "r1", data);
      assert.is(sd.awaitStatus(INT.readReady) & INT_ERRORS, INT.dataCrc);
      check(sd, lines, sent, `CMD${index}: ${blockBytes} bytes`);
      sd.resetLines();
      sd.clearStatus();
    }
  }
  note(`${cases} CRC16s of lines`);
});

test("a receiver that waits for more bytes samples the sender's CRC16s, the end bits and idle lines", () => {
  for (const lines of [1, 4] as const) {
    const bus = opened(lines, { card: "sd" });
    const status = bus.register(13, 0, 64, true);
    bus.app(13, 0, "r1", { read: true, blocks: 1, blockBytes: 512 });
    assert.not.equal(bus.awaitStatus(INT.readReady) & INT_ERRORS, 0);
    const came = new Uint8Array(bus.memory.buffer, SDHCI_BUFFER, 512);
    assert.equal(came.slice(0, 64), status);
    const crcs = slowCrc16(status, lines);
    const bits = Array.from({ length: 16 * lines }, (_, i) => {
      const line = lines - 1 - (i % lines);
      return ((crcs[line] ?? 0) >> (15 - Math.floor(i / lines))) & 1;
    });
    const sent = came.slice(64, 64 + 2 * lines);
    assert.is([...sent].map((byte) => byte.toString(2).padStart(8, "0")).join(""), bits.join(""), `${lines}`);
    assert.ok(came.slice(64 + 2 * lines).every((byte) => byte === 0xff));
  }
});

test("a damaged block differs in one bit, another one for another sector, and its CRC16 shows it", () => {
  const places = new Set<number>();
  for (const lines of WIDTHS) {
    for (let lba = 0; lba < 30; lba++) {
      const bus = opened(lines);
      const data = pattern(1, lba + 1);
      bus.preset(lba, data);
      bus.fault({ kind: "read-crc", times: 1 });
      assert.is(hex(bus.readBlocks(lba, 1).errors), hex(INT.dataCrc), `read, ${lines} lines, sector ${lba}`);
      const came = new Uint8Array(bus.memory.buffer, SDHCI_BUFFER, 512);
      const wrong: number[] = [];
      for (let bit = 0; bit < 4096; bit++) {
        if ((((came[bit >> 3] ?? 0) ^ (data[bit >> 3] ?? 0)) >> (bit & 7)) & 1) wrong.push(bit);
      }
      assert.is(wrong.length, 1, `bits turned over, sector ${lba}`);
      places.add(wrong[0] ?? 0);
      bus.resetLines();
      bus.clearFaults();
      bus.fault({ kind: "write-crc", times: 1 });
      assert.is(hex(bus.writeBlocks(lba, pattern(1, 99)).errors), hex(INT.dataCrc), `write, sector ${lba}`);
      bus.resetLines();
      bus.awaitTran();
      assert.equal(bus.stored(lba), data, "a block with a wrong CRC16 is not stored");
    }
  }
  assert.ok(places.size > 20, `${places.size} places`);
});

test("a damaged command is none: silence, COM_CRC_ERROR in the next R1; the damaged response was executed", () => {
  for (const index of [7, 13, 16, 17, 23]) {
    const bus = opened(1);
    bus.fault({ kind: "command-crc", command: index, times: 1 });
    assert.is(bus.send(index, index === 16 ? 512 : bus.rca << 16).silent, true, `CMD${index}`);
    assert.is(bus.status() & R1.commandCrc, R1.commandCrc, `CMD${index}`);
    assert.is(bus.status() & R1.commandCrc, 0, "told once");
  }
  // A count is forgotten when the next command is damaged (mmc.md §1.4).
  const armed = opened(1);
  armed.must(23, 2);
  armed.fault({ kind: "command-crc", command: 13, times: 1 });
  armed.send(13, armed.rca << 16);
  armed.readBlocks(0, 2);
  assert.is(stateOf(armed.status()), "data", "open-ended");
  const bus = opened(1);
  bus.fault({ kind: "response-crc", command: 7, times: 1 });
  const reply = bus.send(7, 0, "r1");
  assert.is(reply.silent, true, "a deselected card does not answer");
  assert.is(stateOf(bus.status()), "stby");
  const right = bus.read32(REG.response);
  bus.fault({ kind: "response-crc", command: 13, times: 1 });
  const damaged = bus.send(13, bus.rca << 16);
  assert.is(hex(damaged.errors), hex(INT.crc));
  const turned = (damaged.r1 ^ right) >>> 0;
  assert.is(turned & (turned - 1), 0, "one bit");
  assert.ok(turned !== 0);
  for (const card of ["emmc", "sd"] as const) {
    const other = new Bus({ card });
    other.powerUp();
    other.identify("ready");
    other.fault({ kind: "response-crc", command: 2, times: 1 });
    assert.is(hex(other.send(2, 0, "r2").errors), hex(INT.crc), `${card}: R2`);
    assert.is(other.state, "ident");
  }
});

test("every wrong width, both ways: the check fails on real bits", () => {
  let cases = 0;
  for (const card of WIDTHS) {
    for (const host of WIDTHS) {
      for (const seed of [1, 2, 3, 0]) {
        const bus = opened(card);
        const data = seed === 0 ? new Uint8Array(512) : pattern(1, seed);
        bus.preset(0, data);
        bus.setLines(host);
        const what = `card ${card}, host ${host} lines, seed ${seed}`;
        const expected = card === host ? 0 : INT.dataCrc;
        assert.is(hex(bus.readBlocks(0, 1).errors), hex(expected), `read: ${what}`);
        bus.resetLines();
        const turned = data.map((byte) => byte ^ 0xff);
        assert.is(hex(bus.writeBlocks(0, turned).errors), hex(expected), `write: ${what}`);
        bus.resetLines();
        bus.awaitTran();
        assert.equal(bus.stored(0), card === host ? turned : data, what);
        cases += 2;
      }
    }
  }
  note(`${cases} transfers over lines that agree or not`);
});

test("a block of another length than expected: CRC or end bit error, never data", () => {
  for (const lines of WIDTHS) {
    for (const blockBytes of [1, 8, 64, 500, 508]) {
      for (const data of [pattern(1), new Uint8Array(512), new Uint8Array(512).fill(0xff)]) {
        const bus = opened(lines);
        bus.preset(0, data);
        bus.issue(17, 0, "r1", { read: true, blocks: 1, blockBytes });
        const errors = bus.awaitStatus(INT.readReady) & INT_ERRORS;
        assert.ok(
          errors === INT.dataCrc || errors === INT.dataEndBit,
          `${lines}, ${blockBytes}: ${hex(errors)}`,
        );
      }
    }
  }
});

test.run();
