// Images and where the pstore area lies on them: raw, gzip, HTTP Range, GPT, MBR.
// All images are built here; the server is a real one on 127.0.0.1 that counts what it sends.
import { mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, createGzip, gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { suite, test } from "uvu";
import * as assert from "uvu/assert";
import { ERRNO, MmcError } from "../host/errors.js";
import { findArea } from "../host/image/area.js";
import type { Image } from "../host/image/contract.js";
import { openGzip } from "../host/image/gzip.js";
import { openHttp } from "../host/image/http.js";
import { openImage } from "../host/image/image.js";
import { findPartition, readPartitions } from "../host/image/partitions.js";
import { type FileCalls, openRaw, RawImage } from "../host/image/raw.js";
import {
  type GptEntry,
  type GptOptions,
  gptPieces,
  LINUX_TYPE,
  mbrSector,
  uuidOf,
} from "./partition-table.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-image-"));
let fileCount = 0;

function file(bytes: Uint8Array, ending = ".img"): string {
  const path = join(folder, `image-${fileCount++}${ending}`);
  writeFileSync(path, bytes);
  return path;
}

/** Awaits an MmcError with this code, of one line that matches, and returns it. */
async function refused(action: () => unknown, code: string, pattern: RegExp): Promise<MmcError> {
  let caught: unknown = null;
  try {
    await action();
  } catch (error) {
    caught = error;
  }
  if (!(caught instanceof MmcError)) throw new Error(`expected ${code} ${pattern}, got ${String(caught)}`);
  assert.is(caught.code, code, caught.message);
  assert.match(caught.message, pattern);
  assert.not.match(caught.message, /\n/);
  return caught;
}

/** Bytes that do not compress and differ at every offset. */
function noise(lengthBytes: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let word = seed;
  for (let at = 0; at < lengthBytes; at++) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    bytes[at] = word >>> 24;
  }
  return bytes;
}

function same(actual: Uint8Array, expected: Uint8Array): void {
  assert.is(Buffer.compare(actual, expected), 0, "bytes differ");
}

/** An image whose bytes come from pieces at offsets; all else is zero. */
class VirtualImage implements Image {
  readonly name = "virtual.img";
  readonly writable = false;
  readonly bytesFetched = 0;
  bytesRead = 0;
  readonly sizeBytes: number;
  readonly pieces: Map<number, Uint8Array>;
  constructor(sizeBytes: number, pieces: Map<number, Uint8Array>) {
    this.sizeBytes = sizeBytes;
    this.pieces = pieces;
  }
  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    if (offset < 0 || offset + lengthBytes > this.sizeBytes) throw new Error("read outside of the image");
    this.bytesRead += lengthBytes;
    const target = new Uint8Array(lengthBytes);
    for (const [start, bytes] of this.pieces) {
      const from = Math.max(offset, start);
      const to = Math.min(offset + lengthBytes, start + bytes.length);
      if (to > from) target.set(bytes.subarray(from - start, to - start), from - offset);
    }
    return target;
  }
  async close(): Promise<void> {}
}

function gptImage(sizeBytes: number, entries: readonly GptEntry[], options: GptOptions = {}): VirtualImage {
  return new VirtualImage(sizeBytes, gptPieces(sizeBytes, entries, options));
}

function kmsgZone(lengthBytes = 4096): Buffer {
  const zone = Buffer.alloc(lengthBytes);
  zone.writeUInt32LE(0x43474244, 0);
  zone.writeUInt32LE(72, 4);
  zone.writeUInt32LE(0x4dfc3ae5, 12);
  zone.write("Panic#1 Part1\n", 52, "latin1");
  return zone;
}

function damaged(image: VirtualImage, offset: number, at: number): VirtualImage {
  const piece = Uint8Array.from(image.pieces.get(offset) as Uint8Array);
  piece[at] = (piece[at] as number) ^ 0xff;
  image.pieces.set(offset, piece);
  return image;
}

// ---- errors

test("an error has a code, one line and the details that are known", () => {
  const cause = new Error("x");
  const error = new MmcError("EIO", "disk\u001b[31m.img:\nbroken", { command: 25, r1: 0x900, cause });
  assert.is(error.message, "disk [31m.img: broken");
  assert.is(error.name, "MmcError");
  assert.is(error.command, 25);
  assert.is(error.r1, 0x900);
  assert.is(error.cause, cause);
  assert.not.ok("step" in error);
  assert.is(ERRNO.ENOMSG, 42);
});

// ---- raw

const raw = suite("raw");

raw("reads exactly what was asked for", async () => {
  const bytes = noise(200_000);
  const image = await openImage(file(bytes));
  assert.is(image.sizeBytes, bytes.length);
  assert.is(image.writable, false);
  assert.is(image.bytesFetched, 0);
  same(await image.read(0, 10), bytes.subarray(0, 10));
  same(await image.read(65_535, 70_000), bytes.subarray(65_535, 135_535));
  assert.is((await image.read(200_000, 0)).length, 0);
  await refused(() => image.read(199_999, 2), "EIO", /2 bytes at 199999 lie beyond the end \(200000 bytes\)/);
  await refused(() => image.read(-1, 2), "EINVAL", /cannot read/);
  await refused(() => image.read(0.5, 2), "EINVAL", /cannot read/);
  await refused(() => image.read(0, Number.NaN), "EINVAL", /cannot read/);
  await image.close();
  await image.close();
  await refused(() => image.read(0, 1), "EBADF", /is closed/);
});

raw("writes and syncs, and never changes the size", async () => {
  const path = file(new Uint8Array(8192));
  const image = openRaw(path, { writable: true });
  assert.is(image.writable, true);
  image.writeSync(4000, Uint8Array.of(1, 2, 3));
  image.syncSync();
  await refused(() => image.writeSync(8190, Uint8Array.of(1, 2, 3)), "ENOSPC", /beyond the end/);
  await refused(() => image.writeSync(-1, Uint8Array.of(1)), "EINVAL", /cannot write/);
  image.closeSync();
  await refused(() => image.writeSync(0, Uint8Array.of(1)), "EBADF", /is closed/);
  await refused(() => image.syncSync(), "EBADF", /is closed/);
  const bytes = readFileSync(path);
  assert.is(bytes.length, 8192);
  same(bytes.subarray(3999, 4004), Uint8Array.of(0, 1, 2, 3, 0));
});

raw("does not write what was opened for reading", async () => {
  const image = openRaw(file(new Uint8Array(512)), { writable: false });
  await refused(() => image.writeSync(0, Uint8Array.of(1)), "EROFS", /reading only/);
  image.syncSync();
  image.closeSync();
});

raw("refuses what is no image in one line", async () => {
  const missing = join(folder, "missing.img");
  await refused(() => openImage(missing), "ENOENT", /missing\.img: no such file$/);
  await refused(() => openImage(folder), "EISDIR", /is a directory$/);
  await refused(() => openImage(file(new Uint8Array(0))), "EINVAL", /is empty$/);
  await refused(() => openImage(file(new Uint8Array(0), ".gz")), "EINVAL", /is empty$/);
  await refused(() => openImage(join(file(noise(10)), "x")), "ENOTDIR", /not a directory/);
  await refused(() => openImage("/dev/null"), "EINVAL", /neither a file nor a block device/);
  const loop = join(folder, "loop");
  symlinkSync(loop, loop);
  await refused(() => openImage(loop), "ELOOP", /symbolic links/);
  await refused(() => openRaw(file(gzipSync(noise(10))), { writable: true }), "EROFS", /gunzip it first/);
  await refused(
    () => openRaw("http://user:pw@h.example/x?key", { writable: true }),
    "EROFS",
    /^h\.example: /,
  );
  await refused(() => openRaw("http://", { writable: true }), "EROFS", /read-only/);
});

raw("a file that was cut after it was opened is an error, not zeros", async () => {
  const path = file(noise(8192));
  const image = await openImage(path);
  truncateSync(path, 5000);
  await refused(() => image.read(4096, 4096), "EIO", /ends at 5000, it was cut off/);
  await image.close();
});

raw("short reads and writes are continued, failures named", async () => {
  const medium = new Uint8Array(64);
  let failure: string | null = null;
  const fail = (): void => {
    if (failure !== null) throw Object.assign(new Error("x"), { code: failure });
  };
  const calls: FileCalls = {
    readSync(_fd, target, at, lengthBytes, offset) {
      fail();
      const count = Math.min(lengthBytes, 7);
      target.set(medium.subarray(offset, offset + count), at);
      return count;
    },
    writeSync(_fd, data, at, lengthBytes, offset) {
      fail();
      const count = Math.min(lengthBytes, 5);
      medium.set(data.subarray(at, at + count), offset);
      return count;
    },
    fdatasyncSync: fail,
    closeSync: fail,
  };
  const image = new RawImage("fake.img", 3, 64, true, calls);
  const bytes = noise(60);
  image.writeSync(2, bytes);
  same(await image.read(2, 60), bytes);
  for (const [code, expected, pattern] of [
    ["ENOSPC", "ENOSPC", /^fake\.img: no space left/],
    ["EROFS", "EROFS", /read-only file system/],
    ["EWEIRD", "EIO", /^fake\.img: EWEIRD$/],
  ] as const) {
    failure = code;
    await refused(() => image.writeSync(0, bytes), expected, pattern);
    await refused(() => image.readSync(0, new Uint8Array(1)), expected, pattern);
    await refused(() => image.syncSync(), expected, pattern);
  }
  const stuck = new RawImage("fake.img", 3, 64, true, { ...calls, writeSync: () => 0 });
  await refused(() => stuck.writeSync(0, bytes), "EIO", /nothing was written/);
});

raw.run();

// ---- gzip

const gzip = suite("gzip");

gzip("an image is recognised by its bytes, whatever its name", async () => {
  const bytes = new Uint8Array(300_001);
  bytes.set(noise(1000), 70_000);
  bytes.fill(0xff, 131_072, 262_144);
  for (const ending of [".img.gz", ".bin"]) {
    const seen: [number, number | null][] = [];
    const path = file(gzipSync(bytes), ending);
    const image = await openImage(path, { onProgress: (done, total) => seen.push([done, total]) });
    assert.is(image.sizeBytes, 300_001);
    assert.is(image.writable, false);
    same(await image.read(0, 300_001), bytes);
    same(await image.read(65_530, 100), bytes.subarray(65_530, 65_630));
    await refused(() => image.read(300_000, 2), "EIO", /beyond the end/);
    assert.equal(seen.at(-1), [readFileSync(path).length, readFileSync(path).length]);
    await image.close();
    await refused(() => image.read(0, 1), "EBADF", /is closed/);
  }
  await refused(() => openImage(file(noise(99), ".gz")), "EINVAL", /named \.gz but is not gzip/);
  await refused(() => openImage(file(Uint8Array.of(0x1f), ".gz")), "EINVAL", /named \.gz but is not gzip/);
});

gzip("several members are one image, wherever the reads fall", async () => {
  const first = noise(5000, 7);
  const second = noise(6000, 8);
  const member = gzipSync(first);
  const joined = Buffer.concat([first, second, first]);
  const plain = Buffer.concat([member, gzipSync(second), member]);
  const image = await openImage(file(plain));
  same(await image.read(0, joined.length), joined);
  // The first member ends exactly where the file is read in two: at 65536, and one to each side.
  for (const end of [65_535, 65_536, 65_537]) {
    // A comment of any length (flag 16) in the header brings the member to the size.
    const header = Buffer.from(member.subarray(0, 10));
    header[3] = 16;
    const comment = Buffer.alloc(end - member.length, 0x20);
    comment[comment.length - 1] = 0;
    const padded = Buffer.concat([header, comment, member.subarray(10)]);
    assert.is(padded.length, end);
    same(gunzipSync(padded), first);
    const split = await openImage(file(Buffer.concat([padded, gzipSync(second)])));
    same(await split.read(0, split.sizeBytes), Buffer.concat([first, second]));
  }
});

gzip("truncated anywhere: one clear line", async () => {
  const packed = gzipSync(noise(200_000));
  for (const lengthBytes of [
    2,
    3,
    9,
    10,
    11,
    1000,
    65_536,
    packed.length - 9,
    packed.length - 8,
    packed.length - 1,
  ]) {
    const path = file(packed.subarray(0, lengthBytes), ".img.gz");
    const error = await refused(() => openImage(path), "EIO", /: truncated gzip stream$/);
    assert.is(error.message, `${path}: truncated gzip stream`);
  }
});

gzip("corrupt streams, checksums, lengths and garbage behind the end", async () => {
  const packed = gzipSync(noise(10_000));
  const flipped = (at: number): string => {
    const bytes = Uint8Array.from(packed);
    const index = at < 0 ? packed.length + at : at;
    bytes[index] = (bytes[index] as number) ^ 0xff;
    return file(bytes);
  };
  await refused(() => openImage(flipped(2)), "EIO", /corrupt gzip stream/);
  await refused(() => openImage(flipped(-8)), "EIO", /corrupt gzip stream \(incorrect data check\)/);
  await refused(() => openImage(flipped(-4)), "EIO", /corrupt gzip stream \(incorrect length check\)/);
  await refused(() => openImage(file(Buffer.concat([packed, noise(50)]))), "EIO", /corrupt gzip stream/);
  // Zeros behind the end are padding (tapes, sector-sized files), as gzip itself has it.
  const padded = await openImage(file(Buffer.concat([packed, Buffer.alloc(512)])));
  assert.is(padded.sizeBytes, 10_000);
  await refused(() => openImage(file(gzipSync(new Uint8Array(0)))), "EINVAL", /is empty/);
});

async function zeroBomb(sizeBytes: number): Promise<string> {
  const packer = createGzip({ level: 1 });
  const parts: Buffer[] = [];
  packer.on("data", (part: Buffer) => parts.push(part));
  const zeros = Buffer.alloc(4 * MIB);
  const end = new Promise((resolve) => packer.on("end", resolve));
  for (let at = 0; at < sizeBytes; at += zeros.length) {
    if (!packer.write(zeros)) await new Promise((resolve) => packer.once("drain", resolve));
  }
  packer.end();
  await end;
  return file(Buffer.concat(parts), ".gz");
}

gzip("a bomb is refused early and costs no memory", async () => {
  const path = await zeroBomb(1.2 * GIB);
  const before = process.memoryUsage().rss;
  const started = performance.now();
  await refused(() => openImage(path), "EFBIG", /more than 1073741824 bytes, gunzip it first/);
  const tookMs = performance.now() - started;
  assert.ok(tookMs < 30_000, `took ${tookMs} ms`);
  assert.ok(process.memoryUsage().rss - before < 256 * MIB);
  const quick = performance.now();
  await refused(() => openGzip(path, { limitBytes: 8 * MIB }), "EFBIG", /more than 8388608 bytes/);
  assert.ok(performance.now() - quick < 2000);
  const pattern = file(gzipSync(Buffer.alloc(4 * MIB, "ab")));
  await refused(() => openGzip(pattern, { memoryLimitBytes: MIB }), "EFBIG", /1048576 bytes of memory/);
  assert.is((await openGzip(pattern, { memoryLimitBytes: 4 * MIB, limitBytes: 4 * MIB })).sizeBytes, 4 * MIB);
});

gzip.run();

// ---- http

type Answer = (request: IncomingMessage, response: ServerResponse, first: number, last: number) => void;

interface TestServer {
  url: string;
  sentBytes: number;
  requests: string[];
  answer: Answer;
}

const servers: Server[] = [];

async function serve(answer: Answer): Promise<TestServer> {
  const server = createServer((request, response) => {
    const range = request.headers.range ?? "";
    state.requests.push(range);
    const match = /^bytes=(\d+)-(\d+)$/.exec(range);
    const write = response.write.bind(response) as (chunk: Uint8Array) => boolean;
    response.write = ((chunk: Uint8Array) => {
      state.sentBytes += chunk.length;
      return write(chunk);
    }) as typeof response.write;
    state.answer(request, response, Number(match?.[1]), Number(match?.[2]));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servers.push(server);
  const { port } = server.address() as AddressInfo;
  const state: TestServer = { url: `http://127.0.0.1:${port}/disk.img`, sentBytes: 0, requests: [], answer };
  return state;
}

/** What a correct server does. */
function ranges(image: Image, headers: Record<string, string> = { etag: '"v1"' }): Answer {
  return async (request, response, first, last) => {
    assert.is(request.headers["accept-encoding"], "identity");
    if (first >= image.sizeBytes) {
      response.writeHead(416, { "content-range": `bytes */${image.sizeBytes}` }).end();
      return;
    }
    const end = Math.min(last, image.sizeBytes - 1);
    const body = await image.read(first, end - first + 1);
    const range = `bytes ${first}-${end}/${image.sizeBytes}`;
    response.writeHead(206, { ...headers, "content-range": range, "content-length": body.length });
    response.write(body);
    response.end();
  };
}

function memoryImage(bytes: Uint8Array): VirtualImage {
  return new VirtualImage(bytes.length, new Map([[0, bytes]]));
}

const http = suite("http");

http("finds and reads a 1 MiB partition of 4 GiB for less than 4 MiB", async () => {
  const disk = gptImage(4 * GIB, [
    { name: "boot", first: 2048, count: 524_288 },
    { name: "rootfs", first: 526_336, count: 6_000_000 },
    { name: "crash", first: 6_600_704, count: 2048 },
    { name: "data", first: 6_602_752, count: 1_000_000 },
  ]);
  const start = 6_600_704 * 512;
  for (const at of [0, 65_536]) {
    // The second time the first kmsg zone is blank: the partition is found by looking into it.
    const zone = kmsgZone(65_536);
    for (const one of [0, 65_536]) disk.pieces.delete(start + one);
    disk.pieces.set(start + at, zone);
    const server = await serve(ranges(disk));
    const image = await openImage(server.url);
    assert.is(image.sizeBytes, 4 * GIB);
    assert.is(image.writable, false);
    const area = await findArea(image);
    assert.is(area.partition?.name, "crash");
    assert.is(area.offset, start);
    assert.is(area.sizeBytes, MIB);
    const seen: [number, number | null][] = [];
    const watched = await openImage(server.url, { onProgress: (done, total) => seen.push([done, total]) });
    const bytes = await watched.read(area.offset, area.sizeBytes);
    same(bytes.subarray(at, at + 65_536), zone);
    assert.equal(seen.at(-1), [MIB, MIB]);
    assert.is(image.bytesFetched + watched.bytesFetched, server.sentBytes);
    console.log(`# http: a 1 MiB area of 4 GiB found and read for ${server.sentBytes} bytes`);
    assert.ok(server.sentBytes < 4 * MIB, `${server.sentBytes} bytes were sent`);
    await image.close();
    await watched.close();
  }
});

http("fetches each block once, neighbours together, at most 1 MiB a request", async () => {
  const bytes = noise(3 * MIB + 100);
  const server = await serve(ranges(memoryImage(bytes)));
  const image = await openImage(server.url);
  same(await image.read(200_000, 10), bytes.subarray(200_000, 200_010));
  const reads = await Promise.all([
    image.read(0, bytes.length),
    image.read(65_530, 100_000),
    image.read(0, 0),
  ]);
  same(reads[0] as Uint8Array, bytes);
  same(reads[1] as Uint8Array, bytes.subarray(65_530, 165_530));
  assert.equal(server.requests, [
    "bytes=0-65535",
    "bytes=196608-262143",
    "bytes=65536-196607",
    "bytes=262144-1310719",
    "bytes=1310720-2359295",
    "bytes=2359296-3145827",
  ]);
  assert.is(image.bytesFetched, bytes.length);
  await refused(() => image.read(bytes.length, 1), "EIO", /beyond the end/);
  await image.close();
  await refused(() => image.read(0, 1), "EBADF", /is closed/);
});

http("more blocks than the cache holds", async () => {
  const image = new VirtualImage(20 * MIB, new Map([[18 * MIB, noise(MIB)]]));
  const server = await serve(ranges(image));
  const remote = await openImage(server.url);
  const all = await remote.read(0, 20 * MIB);
  same(all.subarray(18 * MIB, 19 * MIB), noise(MIB));
  assert.is(server.requests.length, 21);
  await remote.read(19 * MIB, 10);
  assert.is(server.requests.length, 21);
  await remote.read(0, 10);
  assert.is(server.requests.length, 22);
});

http("a server that ignores Range is refused without its body", async () => {
  let closed = false;
  const server = await serve((_request, response) => {
    response.writeHead(200, { "content-length": 4 * GIB });
    const pump = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536)));
    };
    response.on("drain", pump).on("close", () => {
      closed = true;
    });
    pump();
  });
  await refused(() => openImage(server.url), "EOPNOTSUPP", /server does not support Range requests$/);
  for (let wait = 0; wait < 100 && !closed; wait++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(closed, "the connection is still open");
  assert.ok(server.sentBytes < 64 * MIB, `${server.sentBytes} bytes were sent`);
});

http("statuses", async () => {
  const status = (code: number, headers = {}): Answer => {
    return (_request, response) => {
      response.writeHead(code, headers).end("no");
    };
  };
  const server = await serve(status(404));
  const open = (): Promise<Image> => openImage(`${server.url}?token=secret`);
  const error = await refused(open, "ENOENT", /^http:\/\/127\.0\.0\.1:\d+\/disk\.img: HTTP 404 Not Found$/);
  assert.not.match(error.message, /secret/);
  for (const [answer, code, pattern] of [
    [status(500), "EIO", /HTTP 500 Internal Server Error$/],
    [status(503), "EIO", /HTTP 503/],
    [status(403), "EACCES", /HTTP 403 Forbidden$/],
    [status(401), "EACCES", /HTTP 401/],
    [status(410), "ENOENT", /HTTP 410/],
    [status(418), "EIO", /HTTP 418/],
    [status(499), "EIO", /HTTP 499$/],
    [status(204), "EIO", /HTTP 204/],
    [status(416, { "content-range": "bytes */0" }), "EINVAL", /is empty$/],
    [status(302, { location: "/disk.img" }), "EIO", /too many redirects/],
    [status(302, { location: "http://[" }), "EIO", /invalid URL|HTTP 302|invalid-redirect/],
    [status(206), "EIO", /does not say which range/],
    [status(206, { "content-range": "bytes 0-1/*" }), "EOPNOTSUPP", /how large the file is/],
    [status(206, { "content-range": "bytes 0-1/99999999999999999999" }), "EOPNOTSUPP", /how large/],
    [status(206, { "content-range": "bytes 0-1/9000" }), "EIO", /server sent 0-1$/],
    [status(206, { "content-range": "bytes 5-6/7" }), "EIO", /asked for bytes 0-65535, server sent 5-6$/],
    [status(206, { "content-range": "bytes 0-1/2", "content-encoding": "br" }), "EOPNOTSUPP", /Encoding br$/],
  ] as const) {
    server.answer = answer;
    await refused(open, code, pattern);
  }
  server.answer = (_request, response) => {
    response.writeHead(200, { "content-length": 0 }).end();
  };
  await refused(open, "EINVAL", /is empty$/);
});

http("redirects are followed with their Range", async () => {
  const target = await serve(ranges(memoryImage(noise(1000))));
  const server = await serve((_request, response) => {
    response.writeHead(302, { location: target.url }).end();
  });
  const image = await openImage(server.url);
  same(await image.read(0, 1000), noise(1000));
  assert.equal(target.requests, ["bytes=0-65535"]);
});

http("a body that ends early or runs on", async () => {
  const bytes = noise(100_000);
  const headers = { "content-range": "bytes 0-65535/100000" };
  const cut = (response: ServerResponse): void => {
    response.write(bytes.subarray(0, 1000));
    setTimeout(() => response.destroy(), 20);
  };
  const server = await serve((_request, response) => {
    response.writeHead(206, { ...headers, "content-length": 65_536 });
    cut(response);
  });
  await refused(() => openImage(server.url), "EIO", /connection ended after 1000 of 65536 bytes$/);
  server.answer = (_request, response) => {
    response.writeHead(206, headers);
    cut(response);
  };
  await refused(() => openImage(server.url), "EIO", /connection ended after 1000 of 65536 bytes$/);
  server.answer = (_request, response) => {
    response.writeHead(206, headers).end(bytes.subarray(0, 2000));
  };
  await refused(() => openImage(server.url), "EIO", /connection ended after 2000 of 65536 bytes$/);
  server.answer = (_request, response) => {
    response.writeHead(206, headers).end(bytes);
  };
  await refused(() => openImage(server.url), "EIO", /more than the 65536 bytes it announced$/);
  // The first answer is good, a later one is not: the image stays usable.
  const good = ranges(memoryImage(bytes), {});
  server.answer = good;
  const image = await openImage(server.url);
  server.answer = (_request, response) => {
    response.writeHead(206, { "content-range": "bytes 65536-99999/100000" }).end(bytes.subarray(0, 5));
  };
  await refused(() => image.read(70_000, 10), "EIO", /after 5 of 34464 bytes/);
  server.answer = good;
  same(await image.read(70_000, 10), bytes.subarray(70_000, 70_010));
});

http("a stalled server is given up after the timeout", async () => {
  const server = await serve((_request, response) => {
    response.writeHead(206, { "content-range": "bytes 0-65535/100000", "content-length": 65_536 });
    response.write(noise(1000));
  });
  const started = performance.now();
  const open = (): Promise<Image> => openImage(server.url, { timeoutMs: 200 });
  await refused(open, "ETIMEDOUT", /no complete answer within 200 ms$/);
  server.answer = () => {};
  await refused(open, "ETIMEDOUT", /no complete answer within 200 ms$/);
  const tookMs = performance.now() - started;
  assert.ok(tookMs > 350 && tookMs < 5000, `took ${tookMs} ms`);
  for (const timeoutMs of [0, -1, 1.5, Number.NaN, 2 ** 31]) {
    await refused(() => openImage(server.url, { timeoutMs }), "EINVAL", /^timeout /);
  }
});

http("an image that changes between two requests", async () => {
  const bytes = noise(200_000);
  const image = memoryImage(bytes);
  const pattern = /: changed while it was read$/;
  for (const [before, after] of [
    [ranges(image, { etag: '"a"' }), ranges(image, { etag: '"b"' })],
    [ranges(image, { etag: '"a"' }), ranges(image, {})],
    [ranges(image, { "last-modified": "Mon" }), ranges(image, { "last-modified": "Tue" })],
    [ranges(image, {}), ranges(memoryImage(noise(199_999)), {})],
    [ranges(image), ranges(memoryImage(noise(10)))],
  ] as const) {
    const server = await serve(before);
    const remote = await openImage(server.url);
    server.answer = after;
    await refused(() => remote.read(100_000, 10), "EIO", pattern);
  }
  const moved = await serve(ranges(image, { etag: '"a"', "last-modified": "Mon" }));
  const remote = await openImage(moved.url);
  moved.answer = ranges(image, { etag: '"a"', "last-modified": "Tue" });
  same(await remote.read(100_000, 10), bytes.subarray(100_000, 100_010));
});

http("a later answer with another range", async () => {
  const server = await serve(ranges(memoryImage(noise(200_000)), {}));
  const image = await openImage(server.url);
  server.answer = (_request, response) => {
    response.writeHead(206, { "content-range": "bytes 0-65535/200000" }).end(noise(65_536));
  };
  await refused(() => image.read(70_000, 10), "EIO", /asked for bytes 65536-131071, server sent 0-65535$/);
});

http("no server, no host, no URL", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const url = `http://127.0.0.1:${port}/disk.img`;
  await refused(() => openImage(url), "ECONNREFUSED", /disk\.img: connection refused$/);
  await refused(() => openImage("http://"), "EINVAL", /is not an http or https URL/);
  await refused(
    () => openImage("http://u:p@127.0.0.1/x"),
    "EINVAL",
    /^http:\/\/127\.0\.0\.1\/x: a user name/,
  );
  await refused(() => openHttp("ftp://127.0.0.1/x"), "EINVAL", /is not an http or https URL/);
});

http("a connection that is reset once is asked again, twice is an error", async () => {
  let resets = 1;
  const good = ranges(memoryImage(noise(1000)));
  const server = await serve((request, response, first, last) => {
    if (resets-- > 0) request.socket.resetAndDestroy();
    else good(request, response, first, last);
  });
  same(await (await openImage(server.url)).read(0, 1000), noise(1000));
  resets = 9;
  await refused(() => openImage(server.url), "ECONNRESET", /connection closed by the server$/);
});

http("gzip behind HTTP is unpacked, with the same limits", async () => {
  const bytes = noise(2.5 * MIB);
  const packed = gzipSync(bytes);
  const server = await serve(ranges(memoryImage(packed), { etag: '"z"', "content-encoding": "gzip" }));
  const seen: [number, number | null][] = [];
  const image = await openImage(server.url, { onProgress: (done, total) => seen.push([done, total]) });
  same(await image.read(0, image.sizeBytes), bytes);
  assert.is(image.bytesFetched, packed.length);
  assert.is(image.name, server.url);
  assert.equal(seen.at(-1), [packed.length, packed.length]);
  await refused(() => openHttp(server.url, { limitBytes: MIB }), "EFBIG", /disk\.img: unpacks to more than/);
  server.answer = ranges(memoryImage(packed.subarray(0, 100_000)));
  await refused(() => openImage(server.url), "EIO", /disk\.img: truncated gzip stream$/);
  server.answer = (request, response, first, last) => {
    ranges(memoryImage(packed), first === 0 ? { etag: "a" } : { etag: "b" })(request, response, first, last);
  };
  await refused(() => openImage(server.url), "EIO", /changed while it was read$/);
  server.answer = ranges(memoryImage(noise(1000)));
  await refused(() => openImage(`${server.url}.gz`), "EINVAL", /named \.gz but is not gzip/);
});

http.after(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});
http.run();

// ---- partitions

const partitions = suite("partitions");

const THREE: GptEntry[] = [
  { name: "boot", first: 2048, count: 2048 },
  { name: "pstore", first: 4096, count: 2048 },
  { name: "Größe 36 units long, as GPT allows..", first: 6144, count: 1 },
];

partitions("GPT: numbers, labels, PARTUUIDs, places", async () => {
  const list = await readPartitions(gptImage(8 * MIB, THREE));
  assert.is(list.length, 3);
  assert.equal(list[1], {
    number: 2,
    name: "pstore",
    partuuid: uuidOf(1),
    type: LINUX_TYPE,
    offset: 2 * MIB,
    sizeBytes: MIB,
  });
  assert.is(list[2]?.name, THREE[2]?.name);
  assert.is(list[2]?.sizeBytes, 512);
});

partitions("GPT: 4096-byte sectors, other entry sizes, holes", async () => {
  const wide = [{ name: "pstore", first: 512, count: 256 }];
  for (const options of [
    { sectorBytes: 4096 },
    { entryBytes: 256, count: 4 },
    { entryBytes: 4096, count: 1024 },
  ]) {
    const image = gptImage(16 * MIB, wide, options);
    const list = await readPartitions(image);
    assert.is(list.length, 1);
    assert.is(list[0]?.offset, 512 * (options.sectorBytes ?? 512));
  }
  const holes = gptImage(8 * MIB, [
    THREE[0] as GptEntry,
    { name: "x", first: 0, count: 0 },
    THREE[1] as GptEntry,
  ]);
  assert.equal(
    (await readPartitions(holes)).map((one) => one.number),
    [1, 3],
  );
});

partitions("GPT: the backup serves when the primary is damaged", async () => {
  const last = 8 * MIB - 512;
  // signature, revision under the checksum, checksum, own place, entries
  for (const at of [0, 8, 16, 24]) {
    const list = await readPartitions(damaged(gptImage(8 * MIB, THREE), 512, at));
    assert.is(list[1]?.name, "pstore", `byte ${at}`);
  }
  assert.is((await readPartitions(damaged(gptImage(8 * MIB, THREE), 1024, 60))).length, 3);
  const both = damaged(damaged(gptImage(8 * MIB, THREE), 512, 16), last, 16);
  await refused(
    () => readPartitions(both),
    "EIO",
    /the GPT is damaged \(primary: header checksum; backup: header checksum\)/,
  );
  const gone = damaged(damaged(gptImage(8 * MIB, THREE), 512, 0), last, 0);
  await refused(() => readPartitions(gone), "EIO", /the GPT is damaged \(no header found\)/);
  const cut = gptImage(8 * MIB, THREE);
  const truncated = damaged(new VirtualImage(4 * MIB, cut.pieces), 1024, 60);
  await refused(() => readPartitions(truncated), "EIO", /primary: entries checksum/);
  // A wiped start (no MBR, no primary) with a good backup is still a partitioned disk.
  const wiped = gptImage(8 * MIB, THREE);
  for (const at of [0, 512, 1024]) wiped.pieces.delete(at);
  assert.is((await readPartitions(wiped)).length, 3);
  // A damaged left-over at the end of a disk without any table is not one.
  assert.equal(await readPartitions(damaged(wiped, last, 16)), []);
});

partitions("GPT: absurd headers with good checksums", async () => {
  for (const [at, value, pattern] of [
    [12, 91, /header of 91 bytes/],
    [12, 0xffffffff, /header of 4294967295 bytes/],
    [80, 1025, /1025 entries/],
    [80, 0xffffffff, /4294967295 entries/],
    [84, 127, /entries of 127 bytes/],
    [84, 0, /entries of 0 bytes/],
    [84, 8192, /entries of 8192 bytes/],
    [76, 0xffffffff, /entries beyond the image/],
    [72, 0, /entries beyond the image/],
    [24, 5, /header of another place/],
  ] as const) {
    const image = gptImage(8 * MIB, THREE);
    image.pieces.delete(8 * MIB - 512);
    const header = Buffer.from(image.pieces.get(512) as Uint8Array);
    header.writeUInt32LE(value, at);
    header.writeUInt32LE(0, 16);
    header.writeUInt32LE(crc32(header.subarray(0, 92)), 16);
    image.pieces.set(512, header);
    await refused(() => readPartitions(image), "EIO", pattern);
  }
  const backward = gptImage(8 * MIB, [{ name: "x", first: 100, count: -50 }, THREE[1] as GptEntry]);
  assert.equal(
    (await readPartitions(backward)).map((one) => one.name),
    ["pstore"],
  );
});

/** Two primaries and an extended partition with three logical ones, as fdisk writes it. */
function mbrImage(sizeBytes = 16 * MIB): VirtualImage {
  const slots = [
    { type: 0x83, first: 2048, count: 2048 },
    { type: 0x0c, first: 4096, count: 2048 },
    { type: 0, first: 0, count: 0 },
    { type: 0x05, first: 8192, count: 20_000 },
  ];
  const pieces = new Map<number, Uint8Array>([[0, mbrSector(slots, 0xdeadbeef)]]);
  for (const [index, at] of [0, 4096, 8192].entries()) {
    const links = [{ type: 0x83, first: 2048, count: 1024 + index }];
    if (index < 2) links.push({ type: 0x05, first: at + 4096, count: 4096 });
    pieces.set((8192 + at) * 512, mbrSector(links));
  }
  return new VirtualImage(sizeBytes, pieces);
}

partitions("MBR: primaries, logical ones, PARTUUIDs as Linux has them", async () => {
  const list = await readPartitions(mbrImage());
  assert.equal(
    list.map((one) => [one.number, one.type, one.partuuid, one.offset / 512, one.sizeBytes / 512]),
    [
      [1, "0x83", "deadbeef-01", 2048, 2048],
      [2, "0x0c", "deadbeef-02", 4096, 2048],
      [5, "0x83", "deadbeef-05", 10_240, 1024],
      [6, "0x83", "deadbeef-06", 14_336, 1025],
      [7, "0x83", "deadbeef-07", 18_432, 1026],
    ],
  );
});

partitions("MBR: loops and endless chains of extended records end", async () => {
  const loop = mbrImage();
  const back = [
    { type: 0x83, first: 1, count: 1 },
    { type: 0x05, first: 0, count: 4096 },
  ];
  loop.pieces.set(8192 * 512, mbrSector(back));
  assert.is((await readPartitions(loop)).length, 3);
  const chain = mbrImage();
  for (let record = 0; record < 200; record++) {
    const links = [
      { type: 0x83, first: 1, count: 1 },
      { type: 0x0f, first: record + 1, count: 2 },
    ];
    chain.pieces.set((8192 + record) * 512, mbrSector(links));
  }
  assert.is((await readPartitions(chain)).length, 2 + 64);
  const short = mbrImage(8192 * 512);
  assert.is((await readPartitions(short)).length, 2);
});

partitions("a boot sector that is a file system is no table", async () => {
  const fat = Buffer.alloc(512, 0x41);
  fat.writeUInt16LE(0xaa55, 510);
  assert.equal(await readPartitions(new VirtualImage(MIB, new Map([[0, fat]]))), []);
  const emptyFat = mbrSector([]);
  emptyFat.write("\xeb\x3c\x90mkfs.fat", 0, "latin1");
  assert.equal(await readPartitions(new VirtualImage(MIB, new Map([[0, emptyFat]]))), []);
  for (const sizeBytes of [1, 511, 512, 513, 1024, 4096]) {
    assert.equal(await readPartitions(new VirtualImage(sizeBytes, new Map())), []);
  }
});

partitions("an MBR wins over an old GPT, a GPT needs no MBR", async () => {
  const image = gptImage(16 * MIB, THREE);
  image.pieces.set(0, mbrSector([{ type: 0x83, first: 2048, count: 2048 }], 1));
  assert.is((await readPartitions(image))[0]?.partuuid, "00000001-01");
  image.pieces.delete(0);
  assert.is((await readPartitions(image)).length, 3);
});

partitions("one is found by number, label or PARTUUID", async () => {
  const list = await readPartitions(
    gptImage(8 * MIB, [
      ...THREE,
      { name: "2", first: 7000, count: 1 },
      { name: "boot", first: 7001, count: 1 },
    ]),
  );
  assert.is(findPartition(list, "2").name, "pstore");
  assert.is(findPartition(list, "pstore").number, 2);
  assert.is(findPartition(list, uuidOf(2).toUpperCase()).number, 3);
  assert.is(findPartition(list, `PARTUUID=${uuidOf(2)}`).number, 3);
  assert.is(findPartition(list, `partuuid=${uuidOf(0).toUpperCase()}`).number, 1);
  await refused(
    () => findPartition(list, "boot"),
    "EINVAL",
    /--partition boot: is ambiguous.* 1 \(boot\), 5 \(boot\)$/,
  );
  await refused(
    () => findPartition(list, "Pstore"),
    "ENOENT",
    /no such partition, there are 1 \(boot\), 2 \(pstore\)/,
  );
  for (const spec of ["", "0", "6", "-1", "1.0", "PARTUUID=", "PARTUUID=2", "PARTUUID=pstore"]) {
    await refused(() => findPartition(list, spec), "ENOENT", /no such partition/);
  }
  await refused(() => findPartition([], "1"), "ENOENT", /there are none$/);
  const mbr = await readPartitions(mbrImage());
  assert.is(findPartition(mbr, "DEADBEEF-06").number, 6);
  await refused(() => findPartition(mbr, "9"), "ENOENT", /1 \(0x83\), 2 \(0x0c\)/);
  const many = await readPartitions(
    gptImage(
      8 * MIB,
      Array.from({ length: 40 }, (_, index) => ({ name: `p${index}`, first: 100 + index, count: 1 })),
    ),
  );
  await refused(() => findPartition(many, "x"), "ENOENT", /16 \(p15\), 24 more$/);
});

partitions("any bytes at all: an answer or an MmcError, soon", async () => {
  const garbage = fc.uint8Array({ minLength: 1, maxLength: 65_536, size: "max" });
  const check = async (image: VirtualImage): Promise<void> => {
    try {
      for (const one of await readPartitions(image)) assert.ok(one.offset >= 0 && one.sizeBytes >= 0);
      await findArea(image);
    } catch (error) {
      if (!(error instanceof MmcError)) throw error;
    }
    assert.ok(image.bytesRead < 64 * MIB);
  };
  await fc.assert(
    fc.asyncProperty(garbage, fc.integer({ min: 0, max: 3 * MIB }), async (bytes, moreBytes) => {
      const image = new VirtualImage(bytes.length + moreBytes, new Map([[0, bytes]]));
      await check(image);
      // The same with what gets past the first look: boot record, extended record, GPT signature.
      if (bytes.length < 1024) return;
      for (let slot = 0; slot < 4; slot++) bytes[0x1be + 16 * slot] = 0;
      bytes.set([0x55, 0xaa], 510);
      await check(image);
      bytes[0x1be + 4] = 5;
      bytes.set([0, 0, 0, 0, 1, 0, 0, 0], 0x1be + 8);
      await check(image);
      bytes.set(Buffer.from("EFI PART"), 512);
      bytes[0x1be + 4] = 0xee;
      await check(image);
    }),
    { numRuns: 200 },
  );
  // A table that is right but for one field.
  const field = fc.tuple(
    fc.integer({ min: 0, max: 1024 + 512 }),
    fc.uint8Array({ minLength: 1, maxLength: 8 }),
  );
  await fc.assert(
    fc.asyncProperty(field, fc.boolean(), async ([at, bytes], isGpt) => {
      const image = isGpt ? gptImage(8 * MIB, THREE) : mbrImage();
      image.pieces.set(at, bytes);
      if (isGpt && at >= 512 && at < 1024) {
        const header = await image.read(512, 512);
        const view = new DataView(header.buffer);
        view.setUint32(16, 0, true);
        view.setUint32(16, crc32(header.subarray(0, 92)), true);
        image.pieces.set(512, header);
      }
      await check(image);
    }),
    { numRuns: 1000 },
  );
});

partitions.run();

// ---- area

const area = suite("area");

area("what the user said", async () => {
  const image = new VirtualImage(8 * MIB + 100, new Map());
  assert.equal(await findArea(image, { offset: 512, size: 4096 }), {
    offset: 512,
    sizeBytes: 4096,
    partition: null,
  });
  assert.equal(await findArea(image, { size: MIB }), { offset: 0, sizeBytes: MIB, partition: null });
  assert.equal(await findArea(image, { offset: MIB }), { offset: MIB, sizeBytes: 7 * MIB, partition: null });
  assert.is(image.bytesRead, 0);
  for (const [options, pattern] of [
    [{ offset: 100 }, /^--offset 100: must be a multiple of 512$/],
    [{ offset: -512 }, /^--offset -512: /],
    [{ offset: Number.NaN }, /^--offset NaN: /],
    [{ offset: 16 * MIB }, /^--offset 16777216: beyond the end of virtual\.img \(8388708 bytes\)$/],
    [{ offset: 8 * MIB }, /^--offset 8388608: leaves 100 bytes/],
    [{ size: 0 }, /^--size 0: must be at least 4096$/],
    [{ size: 3584 }, /^--size 3584: must be at least 4096$/],
    [{ size: 5000 }, /^--size 5000: must be a multiple of 512$/],
    [{ offset: MIB, size: 8 * MIB }, /^--size 8388608: reaches beyond the end/],
    [{ partition: "1", offset: 0 }, /^--partition 1: cannot be combined with --offset$/],
    [{ partition: "1", size: 4096 }, /^--partition 1: cannot be combined with --size$/],
  ] as const) {
    await refused(() => findArea(image, options), "EINVAL", pattern);
  }
  await refused(() => findArea(image, { partition: "1" }), "ENOENT", /virtual\.img has no partition table$/);
});

area("no partition table: the whole image, at most 128 MiB", async () => {
  const blank = new VirtualImage(8 * MIB + 100, new Map());
  assert.equal(await findArea(blank), { offset: 0, sizeBytes: 8 * MIB, partition: null });
  assert.is((await findArea(new VirtualImage(4 * GIB, new Map()))).sizeBytes, 134_217_728);
  assert.is((await findArea(new VirtualImage(4 * GIB, new Map()), { size: GIB })).sizeBytes, 134_217_728);
  await refused(() => findArea(new VirtualImage(3000, new Map())), "EINVAL", /3000 bytes are too few/);
  // Zones at byte 0 and an old backup GPT at the end: the zones win.
  const reused = gptImage(8 * MIB, THREE);
  reused.pieces.set(0, kmsgZone());
  assert.is((await findArea(reused)).partition, null);
});

area("the partition that holds zones, whatever kind comes first", async () => {
  for (const first of [0x44, 0x46, 0x47, 0x43]) {
    const image = gptImage(8 * MIB, THREE);
    image.pieces.set(MIB, Uint8Array.of(first, 0x42, 0x47, 0x43));
    assert.is((await findArea(image)).partition?.name, "boot");
  }
  for (const at of [4096, 65_536, MIB - 4096, 512]) {
    const image = gptImage(8 * MIB, THREE);
    image.pieces.set(MIB + at, kmsgZone());
    assert.is((await findArea(image)).partition?.name, "boot", `zone at ${at}`);
  }
  const mbr = mbrImage();
  mbr.pieces.set(14_336 * 512, kmsgZone());
  assert.is((await findArea(mbr)).partition?.number, 6);
  assert.is((await findArea(mbr)).offset, 14_336 * 512);
});

area("else the one named pstore, else a clear error", async () => {
  const named = gptImage(8 * MIB, [THREE[0] as GptEntry, { name: "PStore", first: 4096, count: 2048 }]);
  assert.is((await findArea(named)).partition?.number, 2);
  await refused(
    () => findArea(gptImage(8 * MIB, [THREE[0] as GptEntry])),
    "ENOENT",
    /^virtual\.img: no partition holds zones or is named pstore; choose with --partition: 1 \(boot\)$/,
  );
  const two = gptImage(8 * MIB, THREE);
  two.pieces.set(MIB, kmsgZone());
  two.pieces.set(2 * MIB, kmsgZone());
  await refused(
    () => findArea(two),
    "EINVAL",
    /several partitions hold zones: 1 \(boot\), 2 \(pstore\); choose/,
  );
  assert.is((await findArea(two, { partition: "pstore" })).offset, 2 * MIB);
  const twice = gptImage(8 * MIB, [THREE[1] as GptEntry, { name: "pstore", first: 7000, count: 100 }]);
  await refused(() => findArea(twice), "EINVAL", /several partitions are named pstore/);
  await refused(() => findArea(gptImage(8 * MIB, [])), "ENOENT", /the partition table is empty$/);
  await refused(() => findArea(gptImage(8 * MIB, []), { partition: "1" }), "ENOENT", /there are none$/);
});

area("partitions too small, too large, or beyond the image", async () => {
  const whole = gptImage(8 * MIB, THREE);
  await refused(() => findArea(whole, { partition: "3" }), "EINVAL", /partition 3 .* has 512 bytes/);
  const half = new VirtualImage(2.5 * MIB, whole.pieces);
  await refused(
    () => findArea(half, { partition: "2" }),
    "EINVAL",
    /partition 2 \(pstore\) ends beyond the end, .* --offset 2097152 reads what is there$/,
  );
  await refused(() => findArea(half), "EINVAL", /ends beyond the end/);
  const quarter = new VirtualImage(1.5 * MIB, whole.pieces);
  await refused(() => findArea(quarter, { partition: "pstore" }), "EINVAL", /starts beyond the end/);
  const large = gptImage(GIB, [{ name: "pstore", first: 2048, count: 1_000_000 }]);
  assert.is((await findArea(large)).sizeBytes, 134_217_728);
});

area("searching many partitions stays within its budget", async () => {
  const entries = Array.from({ length: 100 }, (_, index) => ({
    name: `p${index}`,
    first: 2048 + index * 8192,
    count: 8192,
  }));
  const image = gptImage(GIB, entries);
  await refused(() => findArea(image), "ENOENT", /no partition holds zones/);
  assert.ok(image.bytesRead < 17 * MIB, `${image.bytesRead} bytes were read`);
});

area.run();

test.after(() => rmSync(folder, { recursive: true }));
test.run();
