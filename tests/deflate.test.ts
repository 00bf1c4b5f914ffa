// Compression on the panic path: the deflater alone (assembly/pstore/deflate.ts, compiled by itself) against zlib and
// against the inflater of the decoder, and the records that the panic path makes of it.
import { readFileSync } from "node:fs";
import { deflateRawSync, gunzipSync, inflateRawSync } from "node:zlib";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import * as layout from "../assembly/layout.js";
import { makeMemory } from "../host/core/instantiate.js";
import { Device, type PanicInput } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { decodeArea } from "../host/pstore/decode.js";
import {
  AREA_OFFSET,
  coreModule,
  openMachine,
  PANIC_LOG,
  pattern,
  ROOT,
  sameBytes,
  textOf,
} from "./machine.js";
import { compileFile } from "./wasm/compile.js";

const RUNS = Number(process.env.MMCPSTORE_DEFLATE_RUNS ?? 1500);
const MIB = 1 << 20;

interface Deflater {
  deflate(from: number, count: number, to: number, most: number): number;
  deflateTaken(): number;
}

const memory = makeMemory(MIB);
const bytes = new Uint8Array(memory.buffer);

/** A file of the core by itself, on the memory of these tests. */
async function loneFile<T>(path: string): Promise<T> {
  const module = new WebAssembly.Module(new Uint8Array(await compileFile(path, "release")));
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as T;
}

const core = await loneFile<Deflater>("assembly/pstore/deflate.ts");

/** The stream of `text`, or null if it is longer than `most`. */
function deflated(text: Uint8Array, most = layout.DEFLATED_BYTES_MAX): Uint8Array | null {
  bytes.set(text, layout.TEXT_BASE);
  const length = core.deflate(layout.TEXT_BASE, text.length, layout.DEFLATED_BASE, most);
  return length > most ? null : bytes.slice(layout.DEFLATED_BASE, layout.DEFLATED_BASE + length);
}

/** A window of 2 KiB is what Linux 6.1 asks zlib for; zlib refuses a distance beyond it. */
function inflated(stream: Uint8Array): Uint8Array {
  return new Uint8Array(inflateRawSync(stream, { windowBits: 11 }));
}

// ---- real logs ----

/** Every text that real kernels left in tests/data, and the log of the panic. */
function realLogs(): [string, Uint8Array][] {
  const logs: [string, Uint8Array][] = [["panic (ramoops)", PANIC_LOG]];
  for (const name of ["lp64-oops", "lp64-plain", "lp64-multipart", "i386-oops"]) {
    const image = gunzipSync(readFileSync(`${ROOT}tests/data/linux-6.1/${name}.img.gz`));
    for (const record of decodeArea(image).records) logs.push([`${name} ${record.id}`, textOf(record)]);
  }
  return logs;
}

test("real logs: within 10 % of zlib, level 6, window 11, as Linux uses it", () => {
  const logs = realLogs();
  assert.is(logs.length, 8);
  for (const [name, text] of logs) {
    const stream = deflated(text);
    assert.ok(stream);
    assert.ok(sameBytes(inflated(stream), text), name);
    const zlib = deflateRawSync(text, { level: 6, windowBits: 11, memLevel: 8 }).length;
    assert.ok(stream.length <= zlib * 1.1, `${name}: ${stream.length}, zlib ${zlib}`);
    const percent = ((stream.length * 100) / zlib).toFixed(1);
    console.log(`# ${name}: ${text.length} → ${stream.length}, zlib ${zlib}: ${percent} %`);
  }
});

// ---- any text ----

const letters = (count: number, maxLength: number) =>
  fc.uint8Array({ maxLength, max: count - 1 }).map((text) => text.map((letter) => 97 + letter));

/** Pieces that come again at distances around the window's end. */
const echoes = fc
  .tuple(
    fc.uint8Array({ minLength: 3, maxLength: 300 }),
    fc.array(fc.integer({ min: 1700, max: 2400 }), { minLength: 1, maxLength: 12 }),
    fc.nat(),
  )
  .map(([piece, gaps, seed]) => {
    const parts = gaps.flatMap((gap, i) => [piece, pattern(seed + i, gap - Math.min(gap, piece.length))]);
    return new Uint8Array(Buffer.concat([...parts, piece]));
  });

const slices = fc
  .tuple(fc.nat(PANIC_LOG.length), fc.nat(6000))
  .map(([from, length]) => PANIC_LOG.subarray(from, from + length));

const texts = fc.oneof(
  fc.uint8Array({ maxLength: 3000 }),
  letters(1, 2000),
  letters(2, 5000),
  letters(5, 5000),
  letters(30, 5000),
  echoes,
  slices,
  fc.array(slices, { maxLength: 12 }).map((parts) => new Uint8Array(Buffer.concat(parts))),
  fc.tuple(letters(3, 60), fc.integer({ min: 1, max: 900 })).map(([piece, times]) => {
    return new Uint8Array(Buffer.concat(Array.from({ length: times }, () => piece)));
  }),
);

test("any text comes back, through zlib with a window of 2 KiB", () => {
  fc.assert(
    fc.property(texts, (text) => {
      if (text.length === 0) return true;
      const stream = deflated(text);
      return stream !== null && sameBytes(inflated(stream), text);
    }),
    { numRuns: RUNS },
  );
  console.log(`# ${RUNS} random texts deflated and inflated`);
});

test("every length from 1 to 600, and a whole megabyte", () => {
  for (let length = 1; length <= 600; length++) {
    for (const text of [PANIC_LOG.subarray(500, 500 + length), new Uint8Array(length), pattern(9, length)]) {
      const stream = deflated(text);
      assert.ok(stream && sameBytes(inflated(stream), text), `${length}`);
    }
  }
  const log = new Uint8Array(MIB);
  for (let at = 0; at < MIB; at += PANIC_LOG.length) log.set(PANIC_LOG.subarray(0, MIB - at), at);
  for (const text of [log, new Uint8Array(MIB), log.map((byte, at) => byte ^ (at % 7919 === 0 ? 1 : 0))]) {
    const stream = deflated(text, MIB);
    assert.ok(stream && sameBytes(inflated(stream), text));
  }
});

// ---- codes ----

interface Huffman {
  clearCounts(code: number): void;
  buildCode(code: number, symbols: number, lengthMax: number): void;
  codeLength(code: number, symbol: number): number;
  codeBits(code: number, symbol: number): number;
}

const huffman = await loneFile<Huffman>("assembly/pstore/huffman.ts");
const CODE = layout.DEFLATE_BASE + 0x100;

interface Code {
  lengths: number[];
  /** As strings of 0 and 1, first bit first. */
  codes: string[];
}

function codeOf(counts: number[], lengthMax: number): Code {
  huffman.clearCounts(CODE);
  new Uint32Array(memory.buffer, CODE, counts.length).set(counts);
  huffman.buildCode(CODE, counts.length, lengthMax);
  const lengths = counts.map((_, symbol) => huffman.codeLength(CODE, symbol));
  const codes = lengths.map((length, symbol) => {
    const reversed = huffman.codeBits(CODE, symbol).toString(2).padStart(length, "0");
    return length === 0 ? "" : [...reversed].reverse().join("");
  });
  return { lengths, codes };
}

/** Bits of the best code without a limit: the sum of all inner nodes; and how deep it can get. */
function unlimited(counts: number[]): { bits: number; depth: number } {
  const nodes = counts.filter((count) => count > 0).map((count) => ({ count, depth: 0 }));
  let bits = 0;
  while (nodes.length > 1) {
    nodes.sort((a, b) => a.count - b.count || a.depth - b.depth);
    const [a, b] = nodes.splice(0, 2) as [(typeof nodes)[number], (typeof nodes)[number]];
    bits += a.count + b.count;
    nodes.push({ count: a.count + b.count, depth: Math.max(a.depth, b.depth) + 1 });
  }
  return { bits, depth: nodes[0]?.depth ?? 0 };
}

/** What deflate says of a code, RFC 1951, 3.2.2. Returns its bits. */
function checkCode(counts: number[], lengthMax: number): number {
  const { lengths, codes } = codeOf(counts, lengthMax);
  const used = counts.filter((count) => count > 0).length;
  let room = 0;
  let bits = 0;
  for (const [symbol, length] of lengths.entries()) {
    assert.ok(length <= lengthMax);
    if (used >= 2) assert.is(length > 0, (counts[symbol] ?? 0) > 0);
    if (length > 0) room += 2 ** -length;
    bits += length * (counts[symbol] ?? 0);
  }
  assert.is(room, 1, "complete, and no more");
  const inOrder = codes
    .map((code, symbol) => ({ code, symbol }))
    .filter(({ code }) => code !== "")
    .sort((a, b) => a.code.length - b.code.length || a.symbol - b.symbol)
    .map(({ code }) => code);
  assert.equal([...inOrder].sort(), inOrder, "shorter codes first, then by symbol");
  assert.ok(inOrder.every((code, i) => i === 0 || !code.startsWith(inOrder[i - 1] ?? "")));
  return bits;
}

test("codes are complete, canonical, within their limit, and the shortest where it does not bind", () => {
  let limited = 0;
  const counts = fc.array(
    fc.oneof(
      fc.constant(0),
      fc.nat(8192),
      fc.nat(9),
      fc.nat(13).map((n) => 2 ** n),
    ),
    {
      minLength: 2,
      maxLength: 286,
    },
  );
  fc.assert(
    fc.property(counts, fc.constantFrom(7, 15), (all, lengthMax) => {
      const some = lengthMax === 7 ? all.slice(0, 19) : all;
      const best = unlimited(some);
      const bits = checkCode(some, lengthMax);
      if (some.filter((count) => count > 0).length < 2) return;
      if (best.depth <= lengthMax) assert.is(bits, best.bits);
      else limited++;
    }),
    { numRuns: RUNS },
  );
  assert.ok(limited > 20, `${limited}`);
  // Fibonacci numbers make the deepest tree. Real logs never come near: what the limits cost is measured here alone.
  const fibonacci = [1, 1];
  while (fibonacci.length < 19) fibonacci.push((fibonacci.at(-1) ?? 0) + (fibonacci.at(-2) ?? 0));
  const best = unlimited(fibonacci);
  assert.is(best.depth, 18);
  for (const [lengthMax, most] of [
    [7, 1.13],
    [15, 1.002],
  ] as const) {
    const bits = checkCode(fibonacci, lengthMax);
    assert.ok(bits >= best.bits && bits < best.bits * most, `${bits} bits, ${best.bits} without a limit`);
  }
});

// ---- its memory ----

test("it needs no table that it has not made itself, and writes where it may", () => {
  const text = PANIC_LOG;
  const first = deflated(text);
  assert.ok(first);
  for (const filling of [0xff, 0x5a, 0]) {
    bytes.fill(filling, layout.DEFLATE_BASE, layout.MEDIUM_BASE);
    assert.ok(sameBytes(deflated(text) ?? new Uint8Array(), first), `${filling}`);
  }
  for (const most of [first.length, first.length - 1, 4000, 1, 0]) {
    bytes.fill(0xa5);
    bytes.set(text, layout.TEXT_BASE);
    const before = bytes.slice();
    const length = core.deflate(layout.TEXT_BASE, text.length, layout.DEFLATED_BASE, most);
    assert.is(length > most, most < first.length);
    assert.ok(core.deflateTaken() > 0 && core.deflateTaken() <= text.length);
    assert.ok(sameBytes(bytes.subarray(0, layout.DEFLATE_BASE), before.subarray(0, layout.DEFLATE_BASE)));
    const behind = layout.DEFLATED_BASE + most;
    assert.ok(sameBytes(bytes.subarray(behind), before.subarray(behind)), `${most}`);
  }
});

// ---- records ----

const TEXT_OF_LINES = (lines: number) =>
  Buffer.from(Array.from({ length: lines }, (_, i) => `<6>[${i}.${(i * 7919) % 1000}] line ${i}\n`).join(""));

function panicked(options: DeviceOptions, input: PanicInput, kmsgSize = 65536) {
  const machine = openMachine(options, [], kmsgSize);
  const result = machine.device.panicWrite(input);
  return { ...machine, result, record: machine.records()[0] };
}

/** FORMAT.md: what Linux 6.1 inflates again, by what a zone takes without a seal. */
function linuxInflatesMax(kmsgSize: number, headerBytes: number): number {
  const size = kmsgSize - 12 - headerBytes;
  if (size >= 1000 && size <= 2000) return Math.floor((size * 100) / 56);
  if (size >= 2001 && size <= 3000) return Math.floor((size * 100) / 54);
  if (size >= 3001 && size <= 3999) return Math.floor((size * 100) / 52);
  if (size >= 4000 && size <= 10000) return Math.floor((size * 100) / 45);
  return Math.floor((size * 100) / 60);
}

test("a record is deflated, and says so: header, payload, seal, result", () => {
  for (const abi of ["lp64", "i386"] as const) {
    const area = { offset: AREA_OFFSET, kmsgSize: 65536, kmsgCount: 4, abi };
    const { record, result, device } = panicked({ area }, { text: PANIC_LOG, timeSec: 7n });
    assert.equal([result.status, result.compressed, result.storedBytes], [0, true, PANIC_LOG.length]);
    assert.ok(record?.compressed && record.sealed && record.state === "ok");
    assert.ok(sameBytes(record.bytes, PANIC_LOG));
    const zone = device.medium().slice(AREA_OFFSET, AREA_OFFSET + 65536);
    const view = new DataView(zone.buffer);
    const headerBytes = abi === "lp64" ? 40 : 28;
    assert.is(view.getInt32(4, true), headerBytes + result.payloadBytes);
    assert.is(view.getUint32(abi === "lp64" ? 36 : 28, true), 1, "compressed");
    const payload = zone.subarray(12 + headerBytes, 12 + headerBytes + result.payloadBytes);
    assert.ok(sameBytes(inflated(payload), PANIC_LOG));
    // Raw: a zlib header is what no kernel since 4.19 reads.
    assert.throws(() => inflateRawSync(payload.subarray(2)));
  }
});

test("zones of every size: the newest text, as much as Linux inflates again", () => {
  const text = TEXT_OF_LINES(20_000);
  for (const kmsgSize of [1024, 1536, 2560, 3584, 4096, 8192, 10240, 16384, 65536, 131072, 524288]) {
    const area = { offset: 0, kmsgSize, kmsgCount: 1, abi: "lp64" } as const;
    const device = Device.open(coreModule("release"), { sizeBytes: MIB, area });
    const result = device.panicWrite({ text });
    const [record] = decodeArea(device.medium().slice(0, kmsgSize), { kmsgSize }).records;
    assert.ok(record?.compressed && record.state === "ok", `${kmsgSize}`);
    assert.is(result.storedBytes, Math.min(text.length, linuxInflatesMax(kmsgSize, 40)), `${kmsgSize}`);
    assert.is(result.droppedBytes, text.length - result.storedBytes);
    assert.ok(sameBytes(record.bytes, text.subarray(text.length - result.storedBytes)), `${kmsgSize}`);
  }
});

test("text that deflates badly: as much as fits, and always the newest", () => {
  // Seven bits of chance in a byte, then six, five: 1.1, 1.3 and 1.6 to one.
  for (const bits of [7, 6, 5]) {
    const text = pattern(bits, 200_000).map((byte) => byte >>> (8 - bits));
    const { record, result } = panicked({}, { text });
    const plainMax = 65536 - 12 - 40 - 64;
    assert.is(result.status, 0);
    assert.ok(record?.compressed, `${bits} bits`);
    assert.ok(
      result.payloadBytes <= plainMax && result.payloadBytes > plainMax * 0.95,
      `${result.payloadBytes}`,
    );
    assert.ok(result.storedBytes > plainMax);
    assert.ok(sameBytes(record.bytes, text.subarray(text.length - result.storedBytes)), `${bits} bits`);
    console.log(
      `# ${bits} bits of chance a byte: ${result.storedBytes} in ${result.payloadBytes}, of ${plainMax}`,
    );
  }
});

test("where deflating does not help the newest text is kept plain", () => {
  const noise = pattern(3, 200_000);
  const { record, result } = panicked({}, { text: noise });
  assert.equal([result.compressed, result.storedBytes, record?.compressed], [false, 65420, false]);
  assert.ok(record && sameBytes(textOf(record), noise.subarray(200_000 - 65420)));
  // One sector holds it, or deflating saves none: nothing to gain, so it stays readable as it is.
  for (const text of ["", "x", "<0>[    1.0] BOOM\n".repeat(20), noise.subarray(0, 1500)]) {
    const small = panicked({}, { text });
    assert.equal([small.result.status, small.result.compressed], [0, false]);
    assert.is(small.result.storedBytes, text.length);
    assert.is(small.result.payloadBytes, text.length);
  }
  const two = panicked({}, { text: "<0>[    1.0] BOOM\n".repeat(30) });
  assert.ok(two.result.compressed, "540 bytes are two sectors, or one");
  const off = panicked({ compress: false }, { text: PANIC_LOG });
  assert.equal([off.result.compressed, off.result.payloadBytes], [false, PANIC_LOG.length]);
  assert.ok(off.record && sameBytes(textOf(off.record), PANIC_LOG));
});

test("a plain record after a compressed one, and back, in one zone", () => {
  const { device, records } = openMachine({ policy: "ring" }, [], AREA_OFFSET);
  for (const [i, text] of [PANIC_LOG, pattern(1, 700), PANIC_LOG].entries()) {
    const result = device.panicWrite({ text, timeSec: BigInt(i) });
    assert.equal([result.status, result.compressed], [0, i !== 1]);
    const [record, ...others] = records();
    assert.ok(record?.state === "ok" && sameBytes(textOf(record), text), `${i}`);
    assert.is(others.length, 0);
  }
});

// ---- time ----

test("deflating takes simulated time by the byte, and a quarter of the deadline at most", () => {
  const times = (deflateNs: number, deadlineUs?: number) => {
    const { result } = panicked({ timing: { deflateNs }, deadlineUs }, { text: PANIC_LOG });
    assert.is(result.status, 0);
    return { ...result, lengthNs: Number(result.endNs - result.startNs) };
  };
  const free = times(0);
  assert.is(times(100).lengthNs - free.lengthNs, 100 * PANIC_LOG.length);
  assert.is(times(2000).lengthNs - free.lengthNs, 2000 * PANIC_LOG.length);
  // 29,743 bytes at 2 µs are 59.5 ms, a quarter of 238 ms.
  assert.is(times(2000, 245_000).compressed, true);
  assert.is(times(2000, 230_000).compressed, false);
  assert.is(times(2000, 230_000).storedBytes, PANIC_LOG.length);
  // From no time at all to plenty: whatever says success is on the medium, and never after the deadline.
  let deflatedCount = 0;
  let plainCount = 0;
  for (let deadlineUs = 100; deadlineUs < 40_000; deadlineUs = Math.ceil(deadlineUs * 1.1)) {
    const { result, record } = panicked({ deadlineUs }, { text: PANIC_LOG });
    const { result: plain } = panicked({ deadlineUs, compress: false }, { text: PANIC_LOG });
    assert.ok(result.status === 0 || plain.status !== 0, `${deadlineUs} µs: plain would have done`);
    assert.ok(result.endNs - result.startNs <= BigInt(deadlineUs) * 1000n, `${deadlineUs} µs`);
    if (result.status !== 0) continue;
    assert.ok(record?.state === "ok", `${deadlineUs} µs`);
    // Where the time is short, the newest of it, behind Linux's line.
    const shown = textOf(record);
    const { droppedBytes } = result;
    assert.is(shown.length + droppedBytes, PANIC_LOG.length, `${deadlineUs} µs`);
    const line = PANIC_LOG.indexOf(10) + 1;
    assert.ok(sameBytes(shown.subarray(line), PANIC_LOG.subarray(line + droppedBytes)), `${deadlineUs} µs`);
    if (result.compressed) deflatedCount++;
    else plainCount++;
  }
  assert.ok(deflatedCount > 5 && plainCount > 5, `${deflatedCount} deflated, ${plainCount} plain`);
});

test("on the slowest card the log lands within the default deadline deflated, and plain a part of it does", () => {
  const slow = { card: "sd", profile: "slow-sd" } as const;
  const plain = panicked({ ...slow, compress: false }, { text: PANIC_LOG }).result;
  assert.is(plain.status, 0);
  assert.ok(plain.droppedBytes > 10_000 && plain.storedBytes > 10_000);
  const { result, record } = panicked(slow, { text: PANIC_LOG });
  assert.is(result.status, 0);
  assert.ok(record && sameBytes(record.bytes, PANIC_LOG));
});

test("a cost that would not fit a pause is refused", () => {
  assert.throws(() => openMachine({ timing: { deflateNs: 2001 } }), /deflateNs: 2001/);
});

test.run();
