// Long logs in several zones, as docs/FORMAT.md says they are chained: read here from the bytes of the seals alone. What
// is asked for is whole; what a deadline, a lack of zones or a fault cuts off is the oldest text, and is told.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device, type Reason } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { decodeArea, type PstoreRecord } from "../host/pstore/decode.js";
import { joinLogs } from "../host/pstore/join.js";
import { coreModule, PANIC_LOG, pattern, sameBytes, textOf } from "./machine.js";

const AREA_OFFSET = 64 * 1024;
const CARD_BYTES = 1024 * 1024;
const SIZES = { pmsgSize: 0, consoleSize: 0, ftraceSize: 0 };

interface Part {
  record: PstoreRecord;
  text: Uint8Array;
  part: number;
  olderBytes: number;
  first: bigint;
  lineBytes: number;
}

/** Length of the log's own first line, if Linux put it there. */
function ownLineBytes(log: Uint8Array): number {
  return (
    /^[A-Z][a-z]+#\d+ Part\d+\n/.exec(Buffer.from(log.subarray(0, 60)).toString("latin1"))?.[0].length ?? 0
  );
}

class PartsMachine {
  readonly device: Device;
  readonly kmsgSize: number;
  readonly kmsgCount: number;

  constructor(kmsgSize: number, kmsgCount: number, options: DeviceOptions = {}) {
    this.kmsgSize = kmsgSize;
    this.kmsgCount = kmsgCount;
    const area = { offset: AREA_OFFSET, kmsgSize, kmsgCount, abi: "lp64" as const };
    this.device = Device.open(coreModule("release"), { sizeBytes: CARD_BYTES, ...options, area });
  }

  bytes(): Uint8Array {
    this.device.flush();
    return this.device.medium().slice(AREA_OFFSET, AREA_OFFSET + this.kmsgSize * this.kmsgCount);
  }

  records(): PstoreRecord[] {
    return decodeArea(this.bytes(), { ...SIZES, kmsgSize: this.kmsgSize, abi: "lp64" }).records;
  }

  /** Records with a standing seal, with what their seals say of their place in a log; in order of sequence. */
  parts(): Part[] {
    const bytes = this.bytes();
    const view = new DataView(bytes.buffer);
    return this.records()
      .filter((record) => record.state === "ok" && record.sealed)
      .map((record) => {
        const seal = (record.id + 1) * this.kmsgSize - 64;
        return {
          record,
          text: textOf(record),
          part: view.getUint32(seal + 24, true),
          olderBytes: view.getUint32(seal + 28, true),
          first: view.getBigUint64(seal + 32, true),
          lineBytes: view.getUint32(seal + 56, true),
        };
      })
      .sort((a, b) => Number((a.record.sequence ?? 0n) - (b.record.sequence ?? 0n)));
  }

  /** The text of the log whose part 1 has this sequence. Holds each part against docs/FORMAT.md. */
  join(first: bigint, log: Uint8Array): Uint8Array {
    const parts = this.parts().filter((part) => part.part > 0 && part.first === first);
    const ownBytes = ownLineBytes(log);
    const own = Buffer.from(log.subarray(0, ownBytes)).toString("latin1");
    const body = log.subarray(ownBytes);
    let until = body.length;
    for (const [i, { record, text, part, olderBytes, lineBytes }] of parts.entries()) {
      assert.is(part, i + 1);
      assert.is(record.sequence, first + BigInt(i));
      const line = Buffer.from(text.subarray(0, lineBytes)).toString("latin1");
      assert.is(line, own.replace(/\d+\n$/, `${part}\n`));
      assert.is(olderBytes, until - (text.length - lineBytes));
      assert.ok(sameBytes(text.subarray(lineBytes), body.subarray(olderBytes, until)), `part ${part}`);
      assert.equal(
        [record.reason, record.count, record.timeSec],
        [parts[0]?.record.reason, parts[0]?.record.count, parts[0]?.record.timeSec],
      );
      until = olderBytes;
    }
    const joined = Buffer.concat([log.subarray(0, ownBytes), body.subarray(until)]);
    // The decoder agrees.
    const read = joinLogs(this.records()).find(({ parts: [oldest] }) => oldest?.first === first);
    if (parts.length > 0) assert.ok(read && sameBytes(read.text, joined));
    return joined;
  }

  reboot(): void {
    this.device.powerCut("old", "lost");
    this.device.powerOn();
  }
}

for (const compress of [false, true]) {
  const how = compress ? "deflated" : "plain";
  test(`${how}: a real log in small zones is whole, in whole lines`, () => {
    for (const kmsgSize of [1024, 2048, 4096, 8192]) {
      const machine = new PartsMachine(kmsgSize, 64, { compress, parts: 64 });
      const result = machine.device.panicWrite({ text: PANIC_LOG, timeSec: 5n });
      assert.equal([result.status, result.partsStatus, result.droppedBytes], [0, 0, 0], `${kmsgSize}`);
      assert.is(result.storedBytes, PANIC_LOG.length);
      assert.is(result.compressed, compress);
      const parts = machine.parts();
      assert.is(parts.length, result.parts);
      assert.ok(parts.length > 1);
      assert.ok(sameBytes(machine.join(1n, PANIC_LOG), PANIC_LOG), `${kmsgSize}`);
      for (const { text, lineBytes } of parts) assert.is(String.fromCharCode(text[lineBytes] ?? 0), "<");
      // The next record stands behind them, and goes on with their numbers.
      const next = machine.device.panicWrite({ text: "short", timeSec: 6n });
      assert.equal([next.status, next.parts, next.zone], [0, 1, result.parts]);
      assert.equal([next.count, next.sequence], [2, BigInt(result.parts) + 1n]);
    }
  });
}

test("a log that one zone takes is no chain, and without parts nothing changes", () => {
  const machine = new PartsMachine(8192, 8, { parts: 8, compress: false });
  assert.is(machine.device.panicWrite({ text: PANIC_LOG.subarray(0, 4000) }).parts, 1);
  const one = machine.device.panicWrite({ text: PANIC_LOG, parts: 1 });
  // Linux's line, and the newest whole lines that fit behind it.
  const [, { text } = { text: new Uint8Array() }] = machine.parts();
  assert.equal([one.parts, one.storedBytes], [1, text.length]);
  const shown = Buffer.from(text).toString("latin1");
  assert.ok(shown.startsWith("Panic#1 Part1\n<"));
  assert.ok(
    Buffer.from(PANIC_LOG)
      .toString("latin1")
      .endsWith(`\n${shown.slice(14)}`),
  );
  assert.ok(text.length > 8192 - 12 - 40 - 64 - 200);
  assert.equal(
    machine.parts().map(({ part, olderBytes, first }) => [part, olderBytes, first]),
    [
      [0, 0, 0n],
      [0, 0, 0n],
    ],
  );
});

test("fewer parts or zones than the log needs: the oldest text is missing, and how much is told", () => {
  for (const [parts, kmsgCount, partsStatus] of [
    [3, 16, 0],
    [16, 3, -28],
  ] as const) {
    const machine = new PartsMachine(4096, kmsgCount, { parts, compress: false });
    const result = machine.device.panicWrite({ text: PANIC_LOG });
    assert.equal([result.status, result.parts, result.partsStatus], [0, 3, partsStatus]);
    assert.is(machine.join(1n, PANIC_LOG).length, result.storedBytes);
    assert.is(result.droppedBytes, PANIC_LOG.length - result.storedBytes);
    assert.is(machine.parts().at(-1)?.olderBytes, result.droppedBytes);
  }
});

test("older text replaces no record: first-wins and ring", () => {
  for (const policy of ["first-wins", "ring"] as const) {
    const machine = new PartsMachine(4096, 6, { policy, parts: 8, compress: false });
    const old = pattern(3, 3000).map((byte) => 32 + (byte & 63));
    for (let i = 0; i < 4; i++) machine.device.panicWrite({ text: old, reason: "Oops" });
    const result = machine.device.panicWrite({ text: PANIC_LOG });
    assert.equal([result.parts, result.partsStatus], [2, -28]);
    const kept = machine.records().filter((record) => sameBytes(textOf(record), old));
    assert.is(kept.length, 4);
    // Now that all zones are taken, the last words replace one record and no more.
    const last = machine.device.panicWrite({ text: PANIC_LOG });
    assert.equal([last.status, last.parts, last.partsStatus], [0, 1, -28]);
    assert.is(last.zone, policy === "ring" ? 0 : 5);
  }
});

test("newest: older text takes the zones of logs that are not among the newest N, and of no others", () => {
  const old = (i: number) => `Oops ${i}\n`.repeat(300);
  for (const keepLogs of [1, 2, 3, 5, 6]) {
    const machine = new PartsMachine(4096, 6, { policy: "newest", keepLogs, parts: 20, compress: false });
    for (let i = 0; i < 6; i++) machine.device.panicWrite({ text: old(i), reason: "Oops" });
    machine.reboot();
    const result = machine.device.panicWrite({ text: PANIC_LOG });
    // Part 1 takes the oldest record's zone; then there are five others, of which keepLogs - 1 stay.
    assert.equal([result.status, result.zone, result.parts], [0, 0, 7 - keepLogs], `${keepLogs}`);
    const texts = machine.records().map((record) => new TextDecoder().decode(textOf(record)));
    for (let i = 0; i < 6; i++) assert.is(texts.includes(old(i)), i > 6 - keepLogs, `${keepLogs}, ${i}`);
    assert.is(machine.join(7n, PANIC_LOG).length, result.storedBytes);
    // The parts of one log count once.
    machine.reboot();
    const again = machine.device.panicWrite({ text: "the next one" });
    assert.is(again.status, 0);
    for (let i = 0; i < 6; i++) {
      const there = machine.records().some((record) => new TextDecoder().decode(textOf(record)) === old(i));
      assert.is(there, i > 6 - keepLogs + (keepLogs > 1 ? 1 : 0), `${keepLogs}, again, ${i}`);
    }
  }
});

test("newest: of the oldest log its oldest text goes first, and what stays is chained", () => {
  const machine = new PartsMachine(4096, 6, { policy: "newest", parts: 4, compress: false });
  machine.device.panicWrite({ text: PANIC_LOG });
  machine.device.panicWrite({ text: "Oops", reason: "Oops" });
  machine.device.panicWrite({ text: "Oops", reason: "Oops" });
  const zones: number[] = [];
  for (let left = 4; left > 0; left--) {
    assert.equal(
      machine
        .parts()
        .filter(({ first }) => first === 1n)
        .map(({ part }) => part)
        .filter((part) => part > 0),
      [1, 2, 3, 4].slice(0, left),
    );
    machine.join(1n, PANIC_LOG);
    machine.reboot();
    zones.push(machine.device.panicWrite({ text: "one more" }).zone);
  }
  assert.equal(zones, [3, 2, 1, 0]);
});

test("every deadline: part 1 first, whole parts, never longer", () => {
  const seen = new Set<number>();
  for (let deadlineUs = 200; deadlineUs < 60_000; deadlineUs = Math.ceil(deadlineUs * 1.15)) {
    const machine = new PartsMachine(4096, 16, { parts: 16, compress: false, deadlineUs });
    const result = machine.device.panicWrite({ text: PANIC_LOG });
    assert.ok(result.endNs - result.startNs <= BigInt(deadlineUs) * 1000n);
    if (result.status === 0) {
      const [alone] = result.parts === 1 ? machine.parts().filter(({ part }) => part === 0) : [];
      const stored = alone?.text.length ?? machine.join(result.sequence, PANIC_LOG).length;
      assert.is(stored, result.storedBytes);
      assert.is(stored + result.droppedBytes, PANIC_LOG.length, `${deadlineUs}`);
      assert.is(result.partsStatus === 0, result.droppedBytes === 0, `${deadlineUs}`);
    } else assert.equal([result.status, result.parts, result.storedBytes], [-110, 0, 0]);
    seen.add(result.parts);
  }
  assert.ok(seen.has(0) && seen.has(1) && seen.size > 5, `${[...seen]}`);
});

test("with newest a deadline costs no record that no part replaces", () => {
  for (let deadlineUs = 2_000; deadlineUs < 60_000; deadlineUs = Math.ceil(deadlineUs * 1.15)) {
    const options = { policy: "newest", keepLogs: 1, parts: 16, compress: false, deadlineUs } as const;
    const machine = new PartsMachine(4096, 8, options);
    for (let i = 0; i < 8; i++) machine.device.panicWrite({ text: `Oops ${i}\n`, reason: "Oops" });
    const before = machine.records().length;
    const result = machine.device.panicWrite({ text: PANIC_LOG });
    const torn = machine.records().filter((record) => record.state === "torn").length;
    assert.is(torn, 0);
    if (result.status === 0) assert.is(machine.records().length, before, `${deadlineUs}`);
  }
});

test("a bad zone in the middle: the part goes into the next one", () => {
  const machine = new PartsMachine(4096, 16, { parts: 16, compress: false });
  const lba = (AREA_OFFSET + 2 * 4096) / 512 + 3;
  machine.device.injectFault({ kind: "program", firstLba: lba, lastLba: lba });
  const result = machine.device.panicWrite({ text: PANIC_LOG });
  assert.equal([result.status, result.droppedBytes], [0, 0]);
  assert.ok(sameBytes(machine.join(1n, PANIC_LOG), PANIC_LOG));
  assert.not.ok(machine.parts().some(({ record }) => record.id === 2));
});

test("what fails behind part 1 is no failure of the dump", () => {
  const machine = new PartsMachine(4096, 16, { parts: 16, compress: false });
  const firstLba = (AREA_OFFSET + 4096) / 512;
  machine.device.injectFault({ kind: "program", firstLba, lastLba: firstLba + 15 * 8 - 1 });
  const result = machine.device.panicWrite({ text: PANIC_LOG });
  assert.equal([result.status, result.parts, result.partsStatus < 0], [0, 1, true]);
  assert.is(machine.join(1n, PANIC_LOG).length, result.storedBytes);
});

test("Linux's line: what is one, and parts whose numbers grow longer than the log's own", () => {
  const lines = Array.from({ length: 14_000 }, (_, i) => `<4>[${i}.000000] line of a long log\n`).join("");
  for (const compress of [false, true]) {
    for (const kmsgSize of [1024, 4096]) {
      const zones = Math.floor((CARD_BYTES - AREA_OFFSET) / kmsgSize);
      const machine = new PartsMachine(kmsgSize, zones, { parts: 1200, compress });
      const log = Buffer.from(`Oops#12 Part1\n${lines.slice(0, kmsgSize * 110)}`);
      const result = machine.device.panicWrite({ text: log, reason: "Oops" });
      assert.equal([result.status, result.droppedBytes, result.storedBytes], [0, 0, log.length]);
      if (!compress) assert.ok(result.parts > 100, `${result.parts}`);
      assert.ok(sameBytes(machine.join(1n, log), log));
    }
  }
  const long = lines.slice(0, 5000);
  for (const [line, isOne] of [
    ["Panic#1 Part1\n", true],
    ["Emergency#4294967295 Part4294967295\n", true],
    ["Panic#1 Part\n", false],
    ["Panic# Part1\n", false],
    ["#1 Part1\n", false],
    ["Panic#1 Part1", false],
    ["Panic#1 part1\n", false],
    ["Panic 1 Part1\n", false],
    [`${"P".repeat(40)}#1 Part1\n`, false],
  ] as const) {
    const machine = new PartsMachine(4096, 8, { compress: false });
    const result = machine.device.panicWrite({ text: line + long });
    const [{ text } = { text: new Uint8Array() }] = machine.parts();
    assert.is(Buffer.from(text).toString("latin1").startsWith(line), isOne, line);
    assert.equal([result.storedBytes, result.droppedBytes], [text.length, line.length + 5000 - text.length]);
  }
  // The line alone, and nothing behind it.
  for (const parts of [1, 4]) {
    const machine = new PartsMachine(4096, 8, { parts });
    const result = machine.device.panicWrite({ text: "Panic#1 Part1\n" });
    assert.equal([result.status, result.parts, result.storedBytes, result.droppedBytes], [0, 1, 14, 0]);
  }
});

test("text without lines, longer than anything, empty, one byte", () => {
  for (const compress of [false, true]) {
    const machine = new PartsMachine(1024, 900, { parts: 1200, compress });
    const noLines = pattern(11, 5000).map((byte) => 97 + (byte % 26));
    const result = machine.device.panicWrite({ text: noLines });
    assert.is(result.droppedBytes, 0);
    assert.ok(sameBytes(machine.join(1n, noLines), noLines));
    for (const length of [0, 1]) {
      const small = machine.device.panicWrite({ text: noLines.subarray(0, length) });
      assert.equal([small.status, small.parts, small.storedBytes], [0, 1, length]);
    }
  }
  const machine = new PartsMachine(64 * 1024, 8, { parts: 20, compress: false });
  const huge = pattern(5, 1_200_000).map((byte) => (byte < 4 ? 10 : 32 + (byte & 63)));
  const result = machine.device.panicWrite({ text: huge });
  assert.equal([result.status, result.parts, result.partsStatus], [0, 8, -28]);
  assert.is(result.droppedBytes, huge.length - result.storedBytes);
});

test("all reasons, and refused values", () => {
  for (const reason of ["Panic", "Oops", "Emergency", "Shutdown"] as Reason[]) {
    const machine = new PartsMachine(4096, 16, { parts: 16, compress: false });
    const result = machine.device.panicWrite({ text: PANIC_LOG, reason, timeSec: 9n });
    assert.is(result.status, 0);
    assert.ok(sameBytes(machine.join(1n, PANIC_LOG), PANIC_LOG));
    assert.ok(machine.records().every((record) => record.reason === reason));
  }
  const machine = new PartsMachine(4096, 16);
  for (const parts of [0, -1, 1.5, 1201]) {
    assert.throws(() => machine.device.panicWrite({ text: "x", parts }), /parts/);
    assert.throws(() => new PartsMachine(4096, 16, { parts }), /parts/);
  }
  assert.throws(() => new PartsMachine(4096, 16, { keepLogs: 2 }), /keepLogs/);
  assert.throws(() => new PartsMachine(4096, 16, { policy: "newest", keepLogs: 0 }), /keepLogs/);
  assert.throws(() => new PartsMachine(4096, 16, { policy: "oldest" as "ring" }), /policy/);
});

test.run();
