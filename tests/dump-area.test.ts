// The reader of dump areas on headers built by hand, damaged, hostile and random; and `mmcpstore core` and
// `mmcpstore panic --dump-area` as processes, on raw images, partitions, gzip files and URLs. A longer run:
// MMCPSTORE_FUZZ_DUMPS=1000000 node scripts/test.mjs dump-area
import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  bestDump,
  type CardDump,
  decodeDumpArea,
  dumpAreaBytesOf,
  dumpBackOffset,
} from "../host/dump/dump-area.js";
import { pattern, ROOT, sameBytes } from "./machine.js";
import { crc32cSlowly } from "./zones.js";

const FUZZ_INPUTS = Number(process.env.MMCPSTORE_FUZZ_DUMPS ?? 20_000);
const FOLDER = mkdtempSync(join(tmpdir(), "mmcpstore-dump-area-"));
const MAIN = `${ROOT}dist/host/cli/main.js`;
const AREA_BYTES = 64 * 1024;

/** A header as docs/FORMAT.md has it. */
interface HeaderSpec {
  version?: number;
  state?: number;
  sequence?: bigint;
  areaBytes?: bigint;
  dataOffset?: bigint;
  lengthBytes?: bigint;
  storedBytes?: bigint;
  status?: number;
  failed?: [bigint, bigint][];
  failedRanges?: number;
}

function header(spec: HeaderSpec): Uint8Array {
  const { failed = [] } = spec;
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("MMCPDUMP"));
  view.setUint32(8, spec.version ?? 1, true);
  view.setUint32(12, spec.state ?? 3, true);
  view.setBigUint64(16, spec.sequence ?? 1n, true);
  view.setBigUint64(24, spec.areaBytes ?? BigInt(AREA_BYTES), true);
  view.setBigUint64(32, spec.dataOffset ?? 4096n, true);
  view.setBigUint64(40, spec.lengthBytes ?? 1000n, true);
  view.setBigUint64(48, spec.storedBytes ?? 1000n, true);
  view.setInt32(60, spec.status ?? 0, true);
  view.setUint32(64, spec.failedRanges ?? failed.length, true);
  for (const [i, [offset, length]] of failed.entries()) {
    view.setBigUint64(112 + i * 16, offset, true);
    view.setBigUint64(120 + i * 16, length, true);
  }
  view.setUint32(508, crc32cSlowly(bytes.subarray(0, 508)), true);
  return bytes;
}

const EMPTY: Uint8Array = new Uint8Array(512);
const decode = (front: Uint8Array, back = EMPTY, areaBytes = AREA_BYTES) =>
  decodeDumpArea(front, back, areaBytes);
const BACK: HeaderSpec = { dataOffset: BigInt(AREA_BYTES - 8192) };

test("an empty area, and what is no header, hold nothing", () => {
  assert.equal(decode(EMPTY), []);
  assert.equal(decode(new Uint8Array(512).fill(255), pattern(1, 512)), []);
  assert.equal(decode(new Uint8Array(0), new Uint8Array(511)), []);
  assert.is(bestDump([]), undefined);
});

test("complete, partial, torn and damaged; the later one first, the best one the newest complete", () => {
  const states = (dumps: CardDump[]) =>
    dumps.map(({ state, sequence, slot }) => `${state} ${sequence} ${slot}`);
  const both = decode(
    header({ sequence: 4n }),
    header({ ...BACK, sequence: 5n, state: 2, storedBytes: 7n, status: -110 }),
  );
  assert.equal(states(both), ["partial 5 back", "complete 4 front"]);
  assert.is(bestDump(both)?.sequence, 4n);
  assert.is(both[0]?.status, -110);
  const torn = decode(header({ sequence: 9n, state: 1 }), header({ ...BACK, sequence: 8n, state: 2 }));
  assert.equal(states(torn), ["torn 9 front", "partial 8 back"]);
  assert.is(bestDump(torn)?.sequence, 8n);
  assert.is(torn[0]?.storedBytes, 0);
  const broken = header({ sequence: 2n ** 64n - 1n });
  broken[100] = 1;
  const damaged = decode(broken, header({ ...BACK, sequence: 1n }));
  assert.equal(states(damaged), ["complete 1 back", `damaged ${2n ** 64n - 1n} front`]);
  assert.is(damaged[1]?.problem, "its header's CRC-32C is wrong");
  assert.is(bestDump(decode(header({ state: 1 }))), undefined);
});

test("every lie of a header that is sealed is found", () => {
  const lies: [HeaderSpec, RegExp][] = [
    [{ version: 2 }, /version 2, not 1/],
    [{ state: 0 }, /state 0/],
    [{ state: 6 }, /state 6/],
    [{ areaBytes: 32768n }, /area of 32768 bytes, not 65536/],
    [{ dataOffset: 8192n }, /no place/],
    [{ dataOffset: 0n }, /no place/],
    [{ dataOffset: 4097n }, /no place/],
    [{ storedBytes: 56n * 1024n + 1n, lengthBytes: 2n ** 60n, state: 2 }, /no place/],
    [{ storedBytes: 2n ** 64n - 1n, lengthBytes: 2n ** 64n - 1n }, /no place/],
    [{ storedBytes: 999n }, /999 of 1000 bytes in state 3/],
    [{ storedBytes: 1001n, state: 2 }, /1001 of 1000/],
  ];
  for (const [spec, why] of lies) {
    const [dump] = decode(header(spec));
    assert.is(
      dump?.state,
      "damaged",
      JSON.stringify(spec, (_, v) => (typeof v === "bigint" ? `${v}` : v)),
    );
    assert.match(dump?.problem ?? "", why);
    assert.is(dump?.storedBytes, 0);
  }
  // At the back, data may begin anywhere in whole rooms, and end at the header.
  for (const [dataOffset, storedBytes, state] of [
    [4096n, 56n * 1024n, "complete"],
    [8192n, 52n * 1024n, "complete"],
    [8192n, 52n * 1024n + 1n, "damaged"],
    [BigInt(AREA_BYTES - 4096), 1n, "damaged"],
    [2n ** 63n, 1n, "damaged"],
  ] as const) {
    const [dump] = decode(EMPTY, header({ dataOffset, storedBytes, lengthBytes: storedBytes }));
    assert.is(dump?.state, state, `${dataOffset} ${storedBytes}`);
  }
});

test("every bit of a header counts", () => {
  const good = header({ failed: [[10n, 20n]] });
  for (let bit = 0; bit < 512 * 8; bit++) {
    const bytes = good.slice();
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const [dump] = decode(bytes);
    assert.is(dump?.state ?? "damaged", "damaged", `bit ${bit}`);
  }
  assert.is(decode(good)[0]?.state, "complete");
});

test("failed ranges: as many as are listed, however many there were", () => {
  const failed = Array.from({ length: 24 }, (_, i): [bigint, bigint] => [BigInt(i * 100), 50n]);
  const [dump] = decode(header({ failed, failedRanges: 0xffffffff }));
  assert.is(dump?.failed.length, 24);
  assert.is(dump?.failedRanges, 0xffffffff);
  assert.equal(dump?.failed[23], { offset: 2300n, lengthBytes: 50n });
});

test("the first header tells the size of an area, if it is whole", () => {
  assert.is(dumpAreaBytesOf(header({})), AREA_BYTES);
  assert.is(dumpAreaBytesOf(header({ areaBytes: 2n ** 60n })), 0);
  const broken = header({});
  broken[300] = 1;
  assert.is(dumpAreaBytesOf(broken), 0);
  assert.is(dumpAreaBytesOf(EMPTY), 0);
  assert.is(dumpBackOffset(AREA_BYTES + 4095), AREA_BYTES - 4096);
});

test(`${FUZZ_INPUTS} random and mutated headers: nothing is thrown, nothing lies outside of the area`, () => {
  let state = 12345;
  const random = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const odd = [
    0n,
    1n,
    511n,
    4096n,
    4097n,
    65535n,
    65536n,
    2n ** 31n,
    2n ** 32n,
    2n ** 53n,
    2n ** 63n,
    2n ** 64n - 1n,
  ];
  const pick = () => odd[random(odd.length)] ?? 0n;
  const counts = { none: 0, complete: 0, partial: 0, torn: 0, damaged: 0, removed: 0, wiped: 0 };
  for (let i = 0; i < FUZZ_INPUTS; i++) {
    const make = (): Uint8Array => {
      if (random(8) === 0) return pattern(random(1e9), random(600));
      const areaBytes = random(3) > 0 ? BigInt(AREA_BYTES) : pick();
      const dataOffset = random(3) > 0 ? BigInt(random(17) * 4096) : pick();
      const lengthBytes = random(2) > 0 ? BigInt(random(AREA_BYTES)) : pick();
      const storedBytes = random(2) > 0 ? lengthBytes : pick();
      const failedRanges = random(3) > 0 ? random(30) : 0xffffffff;
      const bytes = header({
        state: random(6),
        sequence: pick(),
        areaBytes,
        dataOffset,
        lengthBytes,
        storedBytes,
        failedRanges,
      });
      if (random(6) === 0) bytes[random(512)] = random(256);
      return bytes;
    };
    const areaBytes = random(2) > 0 ? AREA_BYTES : random(200_000);
    const dumps = decodeDumpArea(make(), make(), areaBytes);
    if (dumps.length === 0) counts.none++;
    for (const dump of dumps) {
      counts[dump.state]++;
      assert.ok(
        dump.dataOffset >= 0 && dump.dataOffset + dump.storedBytes <= Math.max(0, dumpBackOffset(areaBytes)),
      );
      assert.ok(dump.failed.length <= 24);
      assert.ok(BigInt(dump.storedBytes) <= dump.lengthBytes || dump.state === "damaged");
    }
    bestDump(dumps);
  }
  for (const [name, count] of Object.entries(counts))
    assert.ok(count > FUZZ_INPUTS / 1000, `${name}: ${count}`);
});

// ---- the command ----

const PLAIN = { ...process.env, NO_COLOR: "1" };

function run(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8", env: PLAIN, timeout: 60_000 });
}

function fails(status: number, stderr: RegExp, ...args: string[]): void {
  const result = run(...args);
  assert.is(result.status, status, `${args.join(" ")}: ${result.stderr}${result.stdout}`);
  assert.match(result.stderr, stderr);
  assert.is(result.stderr.split("\n").length, 2, result.stderr);
}

const path = (name: string) => join(FOLDER, name);
const IMAGE = path("disk.img");
const RAM = path("ram.bin");
const SMALL = path("small.bin");
const LOG = path("log.txt");
writeFileSync(LOG, "Kernel panic\n");
writeFileSync(RAM, pattern(1, 300_000));
writeFileSync(SMALL, pattern(2, 777));
writeFileSync(IMAGE, "");
truncateSync(IMAGE, 4 << 20);
const PANIC = ["panic", IMAGE, "--log", LOG, "--size", "1M", "--dump-area", "1M:2M"];
const REGIONS = ["--dump-region", `ram=${RAM}@0x80000000`, "--dump-region", `small=${SMALL}@4096`];

test("panic stores a dump, core lists, verifies and extracts it", () => {
  const written = run(...PANIC, ...REGIONS, "--time", "1700000000");
  assert.is(written.status, 0, written.stderr);
  assert.match(written.stdout, /store the crash dump\n/);
  assert.match(
    written.stdout,
    /\ndump 1: complete, 301\d\d\d bytes, at the front of its area, durable after /,
  );
  const listed = run("core", "ls", IMAGE, "--offset", "1M");
  assert.is(listed.status, 0, listed.stderr);
  assert.match(listed.stdout, /\* +front +1 +2023-11-14T22:13:20\.0{9}Z +301\d+ of 301\d+ +complete\n/);
  assert.match(listed.stdout, /1 +LOAD +ram +0x80000000 +0x80000000 +300000 +ok\n/);
  assert.match(listed.stdout, /2 +LOAD +small +0x1000 +0x1000 +777 +ok\n/);
  assert.match(
    run("core", "verify", IMAGE, "--offset", "1M").stdout,
    /^3 segments and 0 notes, all in the dump, CRC-32C right\n$/,
  );
  const folder = path("out");
  assert.is(run("core", "extract", IMAGE, folder, "--offset", "1M", "--size", "2M").status, 0);
  assert.equal(readdirSync(folder).sort(), ["core.elf", "manifest.json"]);
  assert.is(run("core", "verify", join(folder, "core.elf")).status, 0);
  assert.is(run("core", "extract", join(folder, "core.elf"), path("regions")).status, 0);
  assert.ok(sameBytes(readFileSync(path("regions/001-ram.bin")), pattern(1, 300_000)));
  assert.ok(sameBytes(readFileSync(path("regions/002-small.bin")), pattern(2, 777)));
  const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
  assert.is(manifest.dump.state, "complete");
  assert.is(manifest.crcRight, true);
  // Once more, as behind a run that was cut, is no mistake; another content is not written over.
  assert.is(run("core", "extract", IMAGE, folder, "--offset", "1M").status, 0);
  writeFileSync(join(folder, "manifest.json"), "{}");
  fails(
    1,
    /manifest\.json: exists already with another content, --force replaces it/,
    "core",
    "extract",
    IMAGE,
    folder,
    "--offset",
    "1M",
  );
  const { size } = statSync(IMAGE);
  assert.is(size, 4 << 20);
  const image = readFileSync(IMAGE);
  assert.ok(
    image.subarray(3 << 20).every((byte) => byte === 0),
    "nothing behind the area",
  );
});

test("a second dump is short of time: partial, said so, and the first one is what core takes", () => {
  const short = run(...PANIC, ...REGIONS, "--deadline", "40", "--json");
  assert.is(short.status, 0, short.stderr);
  assert.match(
    short.stderr,
    /^mmcpstore: .*: the crash dump is not complete: ETIMEDOUT; the record stands\n$/,
  );
  const { dump } = JSON.parse(short.stdout).result;
  assert.is(dump.state, "partial");
  assert.is(dump.sequence, "2");
  assert.ok(dump.storedBytes >= 4096 && dump.storedBytes < 300_000);
  const json = JSON.parse(run("core", "ls", IMAGE, "--offset", "1M", "--json").stdout);
  assert.is(json.dump.slot, "front");
  assert.equal(
    json.dumps.map(({ state }: CardDump) => state),
    ["partial", "complete"],
  );
  assert.is(json.dumps[0].storedBytes, dump.storedBytes);
  assert.is(run("core", "verify", IMAGE, "--offset", "1M").status, 0);
  const partial = run("core", "verify", IMAGE, "--offset", "1M", "--dump", "back");
  assert.is(partial.status, 1);
  assert.match(
    partial.stdout,
    /^dump back: partial, \d+ of 301\d+ bytes: the deadline came first \(ETIMEDOUT\)\nsegment 1 \(ram\): /,
  );
  assert.is(run("core", "extract", IMAGE, path("partial"), "--offset", "1M", "--dump", "back").status, 0);
  assert.is(statSync(path("partial/core.elf")).size, dump.storedBytes);
});

test("from a gzip file and a URL the same", async () => {
  const packed = path("disk.img.gz");
  writeFileSync(packed, gzipSync(readFileSync(IMAGE)));
  const server = createServer((request, response) => {
    const bytes = readFileSync(IMAGE);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    if (from === undefined || to === undefined) {
      response.writeHead(200, { "content-length": bytes.length, "accept-ranges": "bytes" }).end(bytes);
      return;
    }
    const end = Math.min(Number(to), bytes.length - 1);
    const part = bytes.subarray(Number(from), end + 1);
    const range = `bytes ${from}-${end}/${bytes.length}`;
    response.writeHead(206, {
      "content-length": part.length,
      "content-range": range,
      "accept-ranges": "bytes",
    });
    response.end(request.method === "HEAD" ? undefined : part);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}/disk.img`;
  try {
    const wanted = run("core", "ls", IMAGE, "--offset", "1M").stdout;
    assert.is(run("core", "ls", packed, "--offset", "1M").stdout, wanted);
    assert.is((await runLater("core", "ls", url, "--offset", "1M")).stdout, wanted);
    assert.is(run("core", "extract", packed, path("gz"), "--offset", "1M").status, 0);
    const fetched = await runLater("core", "extract", url, path("http"), "--offset", "1M");
    assert.is(fetched.status, 0, fetched.stderr);
    for (const folder of ["gz", "http"]) {
      assert.ok(
        sameBytes(readFileSync(path(`${folder}/core.elf`)), readFileSync(path("out/core.elf"))),
        folder,
      );
    }
    // An ELF core that is packed is read as well.
    writeFileSync(path("core.elf.gz"), gzipSync(readFileSync(path("out/core.elf"))));
    assert.is(run("core", "verify", path("core.elf.gz")).status, 0);
  } finally {
    server.close();
  }
});

/** Beside a server of this process, which a synchronous child would stop. */
function runLater(...args: string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [MAIN, ...args], { env: PLAIN });
    const out: string[] = [];
    const err: string[] = [];
    child.stdout.setEncoding("utf8").on("data", (text) => out.push(text));
    child.stderr.setEncoding("utf8").on("data", (text) => err.push(text));
    child.on("close", (status) => resolve({ status, stdout: out.join(""), stderr: err.join("") }));
  });
}

test("an image that is a dump area, whole", () => {
  const area = path("area.img");
  writeFileSync(area, readFileSync(IMAGE).subarray(1 << 20, 3 << 20));
  assert.match(run("core", "ls", area).stdout, /\* +front +1 /);
  // Its first header gone, the second one is enough.
  const bytes = readFileSync(area);
  bytes.fill(0, 0, 512);
  writeFileSync(area, bytes);
  assert.match(run("core", "ls", area).stdout, /\* +back +2 /);
});

test("data that are not what was stored: verify tells, extract writes and tells", () => {
  const bytes = readFileSync(IMAGE);
  bytes[(1 << 20) + 4096 + 5000] = (bytes[(1 << 20) + 4096 + 5000] ?? 0) ^ 1;
  const broken = path("broken.img");
  writeFileSync(broken, bytes);
  const verified = run("core", "verify", broken, "--offset", "1M");
  assert.is(verified.status, 1);
  assert.match(
    verified.stdout,
    /^dump front: the CRC-32C of its 301\d+ bytes is 0x[0-9a-f]+, not 0x[0-9a-f]+\n$/,
  );
  const extracted = run("core", "extract", broken, path("broken"), "--offset", "1M");
  assert.is(extracted.status, 1);
  assert.match(extracted.stderr, /core\.elf: was written, but the CRC-32C/);
  assert.is(JSON.parse(readFileSync(path("broken/manifest.json"), "utf8")).crcRight, false);
});

test("torn and damaged headers, and a dump that is no core", () => {
  const area = new Uint8Array(AREA_BYTES);
  const put = (front: Uint8Array, back: Uint8Array) => {
    area.set(front, 0);
    area.set(back, AREA_BYTES - 4096);
    writeFileSync(path("made.img"), area);
    return path("made.img");
  };
  const broken = header({ ...BACK, sequence: 3n });
  broken[200] = 1;
  const made = put(header({ state: 1, sequence: 2n }), broken);
  const listed = run("core", "ls", made);
  assert.is(listed.status, 0, listed.stderr);
  assert.match(listed.stdout, / front +2 +0 of 1000 +torn +it was begun and not ended\n/);
  assert.match(listed.stdout, / back +\? +damaged +its header's CRC-32C is wrong\n/);
  fails(
    1,
    /no dump has anything that could be read \(front: it was begun and not ended; back: its header's/,
    "core",
    "extract",
    made,
    path("none"),
  );
  assert.not.ok(existsSync(path("none")));
  assert.is(run("core", "verify", made).status, 1);
  fails(1, /the dump at the front: is not an ELF file/, "core", "ls", put(header({}), EMPTY));
});

test("core rm gives a place back, and --wipe its bytes; the other dump and the record stand", () => {
  const image = path("rm.img");
  const area = (bytes: Uint8Array) => bytes.subarray(1 << 20, 3 << 20);
  const stored = () => readFileSync(IMAGE);
  writeFileSync(image, stored());
  const at = ["--offset", "1M", "--size", "2M"];
  const slots = () =>
    JSON.parse(run("core", "ls", image, ...at, "--json").stdout)
      .dumps.filter(({ state }: CardDump) => state !== "removed")
      .map(({ slot }: CardDump) => slot);
  assert.equal(slots(), ["back", "front"]);
  const removed = run("core", "rm", image, ...at, "--dump", "front");
  assert.is(removed.stdout, "removed dump 1, at the front\n", removed.stderr);
  assert.equal(slots(), ["back"]);
  const behind = readFileSync(image);
  const headers = (bytes: Uint8Array) =>
    [0, (2 << 20) - 4096].map((from) => area(bytes).subarray(from, from + 512));
  const states = (bytes: Uint8Array) => {
    const [front, back] = headers(bytes) as [Uint8Array, Uint8Array];
    return decodeDumpArea(front, back, 2 << 20).map(({ slot, state }) => `${slot} ${state}`);
  };
  assert.equal(states(behind).sort(), ["back partial", "front removed"]);
  assert.ok(sameBytes(area(behind).subarray(512), area(stored()).subarray(512)), "only the header");
  assert.is(
    run("core", "rm", image, ...at, "--dump", "front").stdout,
    "dump 1, at the front, was removed before\n",
  );
  assert.is(
    run("core", "rm", image, ...at, "--dump", "back", "--wipe").stdout,
    "wiped dump 2, at the back\n",
  );
  fails(1, /no dump in the 2097152 bytes at 1048576/, "core", "ls", image, ...at);
  assert.equal(states(readFileSync(image)).sort(), ["back wiped", "front removed"]);
  // Of the other one, whose header alone was removed, the bytes are still there.
  const left = area(readFileSync(image));
  assert.ok(sameBytes(left.subarray(4096, 4096 + 301_000), area(stored()).subarray(4096, 4096 + 301_000)));
  assert.ok(left.subarray(1 << 20, (2 << 20) - 4096).every((byte) => byte === 0));
  writeFileSync(image, stored());
  const all = run("core", "rm", image, ...at, "--all", "--wipe");
  assert.is(all.stdout, "wiped dump 2, at the back\nwiped dump 1, at the front\n", all.stderr);
  const cleared = readFileSync(image);
  assert.equal(states(cleared).sort(), ["back wiped", "front wiped"]);
  for (const header of headers(cleared)) header.fill(0);
  assert.ok(area(cleared).every((byte) => byte === 0));
  assert.ok(sameBytes(cleared.subarray(0, 1 << 20), stored().subarray(0, 1 << 20)), "the record's area");
  assert.ok(sameBytes(cleared.subarray(3 << 20), stored().subarray(3 << 20)));
});

test("core rm clears nothing that no header is known to own", () => {
  const bytes = new Uint8Array(AREA_BYTES).fill(0x5a);
  const made = path("own.img");
  const put = (front: Uint8Array, back: Uint8Array) => {
    bytes.fill(0x5a);
    bytes.set(front, 0);
    bytes.set(back, AREA_BYTES - 4096);
    writeFileSync(made, bytes);
  };
  const refused = (expected: RegExp, ...words: string[]) => {
    const before = readFileSync(made);
    fails(1, expected, "core", "rm", made, ...words);
    assert.ok(sameBytes(readFileSync(made), before), "nothing has changed");
  };
  const broken = header({ ...BACK, sequence: 3n });
  broken[200] = 1;
  put(EMPTY, EMPTY);
  refused(/begins no dump area/, "--all");
  refused(/no dump in the/, "--all", "--offset", "0");
  put(broken, broken);
  refused(/--wipe: no header is whole, so nothing says how large the area is/, "--all", "--wipe");
  refused(/--wipe: of what is damaged nobody knows its bytes; use --all/, "--dump", "front", "--wipe");
  assert.is(run("core", "rm", made, "--dump", "front").stdout, "removed damaged, at the front\n");
  put(header({ state: 1, sequence: 2n }), EMPTY);
  refused(/--wipe: of what is torn nobody knows/, "--dump", "front", "--wipe");
  // Two dumps whose headers are whole and claim the same bytes.
  put(header({}), header({ ...BACK, dataOffset: 4096n }));
  refused(/--wipe: the two dumps lie over each other; use --all/, "--dump", "back", "--wipe");
  fails(2, /which dump\? Say --dump front, --dump back or --all/, "core", "rm", made);
  fails(2, /--all: takes no --dump/, "core", "rm", made, "--all", "--dump", "front");
  fails(2, /--dump left: is not one of/, "core", "rm", made, "--dump", "left");
  const packed = path("own.img.gz");
  writeFileSync(packed, gzipSync(bytes));
  fails(1, /gzip|packed/, "core", "rm", packed, "--all");
  writeFileSync(path("a.core"), new Uint8Array([0x7f, 0x45, 0x4c, 0x46]));
  fails(1, /a\.core: is an ELF core and begins no dump area/, "core", "rm", path("a.core"), "--all");
});

test("wrong use and bad places are refused in a line", () => {
  fails(2, /--dump-region: needs --dump-area/, "panic", IMAGE, "--log", LOG, ...REGIONS);
  fails(2, /--dump-machine: needs --dump-area/, "panic", IMAGE, "--log", LOG, "--dump-machine", "arm");
  fails(2, /nothing to dump, give --dump-region too/, ...PANIC);
  for (const region of ["ram", "ram=x", "ram=x@", "ram=@5", "ram=x@-1", "ram=x@0xg"]) {
    fails(2, /write NAME=FILE@ADDRESS/, ...PANIC, "--dump-region", region);
  }
  fails(2, /--dump-area: is empty/, "panic", IMAGE, "--log", LOG, "--dump-area", "", ...REGIONS);
  fails(2, /must be at least 12288/, "panic", IMAGE, "--log", LOG, "--dump-area", "1M:4K", ...REGIONS);
  fails(2, /must be a multiple of 512/, "panic", IMAGE, "--log", LOG, "--dump-area", "5:1M", ...REGIONS);
  fails(2, /--dump-machine vax: is not one of/, ...PANIC, ...REGIONS, "--dump-machine", "vax");
  fails(2, /--deadline 0: must be 1 to/, ...PANIC, ...REGIONS, "--deadline", "0");
  const before = readFileSync(IMAGE);
  fails(
    1,
    /reaches beyond the end/,
    "panic",
    IMAGE,
    "--log",
    LOG,
    "--size",
    "1M",
    "--dump-area",
    "3M:2M",
    ...REGIONS,
  );
  fails(
    1,
    /overlaps the pstore area, which is 1048576 bytes at 0/,
    "panic",
    IMAGE,
    "--log",
    LOG,
    "--size",
    "1M",
    "--dump-area",
    "1023K:1M",
    ...REGIONS,
    "--force",
  );
  fails(1, /no such partition/, "panic", IMAGE, "--log", LOG, "--size", "1M", "--dump-area", "7", ...REGIONS);
  fails(1, /ENOENT|no such file/i, ...PANIC, "--dump-region", `x=${path("absent")}@0`);
  fails(1, /region b c: is no name/, ...PANIC, "--dump-region", `b c=${SMALL}@0`);
  fails(
    1,
    /region two: overlaps another region/,
    ...PANIC,
    "--dump-region",
    `one=${SMALL}@0`,
    "--dump-region",
    `two=${SMALL}@776`,
  );
  fails(
    1,
    /region x: its end is beyond 4 GiB/,
    ...PANIC,
    "--dump-region",
    `x=${SMALL}@0xffffffff`,
    "--dump-machine",
    "i386",
  );
  assert.ok(sameBytes(readFileSync(IMAGE), before), "nothing was changed");
  fails(1, /is no ELF core and begins no dump area/, "core", "ls", LOG);
  fails(1, /is no ELF core and begins no dump area/, "core", "ls", IMAGE);
  fails(1, /no dump in the 1048576 bytes at 3145728/, "core", "ls", IMAGE, "--offset", "3M");
  fails(1, /--offset 4M: leaves 0 bytes/, "core", "ls", IMAGE, "--offset", "4M");
  fails(
    1,
    /--size (4096|4K): a dump area has at least 12288/,
    "core",
    "ls",
    IMAGE,
    "--offset",
    "1M",
    "--size",
    "4K",
  );
  fails(
    2,
    /--partition 1: cannot be combined with --offset/,
    "core",
    "ls",
    IMAGE,
    "--partition",
    "1",
    "--offset",
    "1M",
  );
  fails(2, /--dump middle: is not one of front, back/, "core", "ls", IMAGE, "--dump", "middle");
  fails(1, /no such partition|no partition table/, "core", "ls", IMAGE, "--partition", "1");
});

test("an area that holds something else is not written over, unless forced", () => {
  const image = path("foreign.img");
  const bytes = new Uint8Array(4 << 20);
  // A file system's super block, 1 KiB behind its start.
  bytes[(1 << 20) + 1024] = 1;
  writeFileSync(image, bytes);
  const args = ["panic", image, "--log", LOG, "--size", "1M", "--dump-area", "1M:2M", ...REGIONS];
  fails(1, /holds data that are no dump; --force overwrites them/, ...args);
  assert.ok(sameBytes(readFileSync(image), bytes));
  assert.is(run(...args, "--force").status, 0);
  assert.is(run("core", "verify", image, "--offset", "1M").status, 0);
  // Dumps are no strangers.
  assert.is(run(...args).status, 0);
  // An area of another size would write over them.
  const before = readFileSync(image);
  const other = args.map((one) => (one === "1M:2M" ? "1M:64K" : one));
  fails(1, /begins a dump area of 2097152 bytes, not of 65536; --force gives its dumps up/, ...other);
  assert.ok(sameBytes(readFileSync(image), before));
  assert.is(run(...other, "--force").status, 0);
});

test("other machines, an SD card and PIO", () => {
  const image = path("arm.img");
  writeFileSync(image, "");
  truncateSync(image, 4 << 20);
  const args = ["panic", image, "--log", LOG, "--size", "1M", "--dump-area", "1M:2M"];
  assert.is(
    run(...args, "--dump-region", `r=${RAM}@0`, "--dump-machine", "aarch64", "--card", "sd", "--pio").status,
    0,
  );
  assert.is(JSON.parse(run("core", "ls", image, "--offset", "1M", "--json").stdout).machine, 183);
});

test.after(() => rmSync(FOLDER, { recursive: true, force: true }));
test.run();
