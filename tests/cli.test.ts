// The command line as its users have it: dist/host/cli/main.js in a process of its own, on real images, and
// on every kind of bad input. Whatever fails must say so in one line, with the right exit code, and change
// nothing.
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { suite, test } from "uvu";
import * as assert from "uvu/assert";
import { formatTime, parseTime } from "../host/cli/time.js";
import { MmcError } from "../host/errors.js";
import { type FileCalls, RawImage } from "../host/image/raw.js";
import { findGeometry, loadCore, openDiskDevice, openImageDevice, openRaw } from "../host/node.js";
import { decodeArea } from "../host/pstore/decode.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const root = fileURLToPath(new URL("../..", import.meta.url));
const main = join(root, "dist/host/cli/main.js");
const data = join(root, "tests/data/linux-6.1");
const demoLog = join(root, "host/cli/demo-panic.txt");
const logBytes = readFileSync(demoLog);
const expected = JSON.parse(readFileSync(join(data, "expected.json"), "utf8")) as Record<
  string,
  { file: string; size: number; sha256: string }[]
>;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-cli-"));
chmodSync(folder, 0o755);
let made = 0;

/** A path that nothing has yet. */
function fresh(ending = ".img"): string {
  return join(folder, `f${made++}${ending}`);
}

function file(bytes: Uint8Array | string, ending = ".img"): string {
  const path = fresh(ending);
  writeFileSync(path, bytes);
  return path;
}

/** A writable copy of one of Linux's images. */
function linuxImage(name: string): string {
  return file(gunzipSync(readFileSync(join(data, `${name}.img.gz`))));
}

interface Outcome {
  code: number | null;
  stdout: Buffer;
  out: string;
  err: string;
}

interface RunOptions {
  env?: Record<string, string>;
  input?: Uint8Array | string;
  spawn?: SpawnOptions;
}

function collect(child: ChildProcess, input: Uint8Array | string = ""): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout?.on("data", (piece: Buffer) => out.push(piece));
    child.stderr?.on("data", (piece: Buffer) => err.push(piece));
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
    child.on("error", reject);
    child.on("close", (code) => {
      const stdout = Buffer.concat(out);
      resolve({ code, stdout, out: stdout.toString(), err: Buffer.concat(err).toString() });
    });
  });
}

const plainEnv = { PATH: process.env.PATH ?? "", HOME: folder };

/** Runs `mmcpstore …args`. */
function run(args: string[], options: RunOptions = {}): Promise<Outcome> {
  const env = { ...plainEnv, ...options.env };
  const child = spawn(process.execPath, [main, ...args], { cwd: folder, env, ...options.spawn });
  return collect(child, options.input);
}

/** Runs a shell script in which "$@" is `mmcpstore …args`. */
function shell(script: string, args: string[]): Promise<Outcome> {
  const child = spawn("sh", ["-c", script, "sh", process.execPath, main, ...args], {
    cwd: folder,
    env: plainEnv,
  });
  return collect(child);
}

/** As somebody whom file modes bind. */
const nobody: SpawnOptions = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};

async function ok(args: string[], options: RunOptions = {}): Promise<Outcome> {
  const outcome = await run(args, options);
  assert.is(outcome.err, "", args.join(" "));
  assert.is(outcome.code, 0, args.join(" "));
  return outcome;
}

/** One line on stderr, nothing on stdout, and this exit code. */
function assertFailed(outcome: Outcome, code: number, pattern: RegExp, what: string): void {
  assert.match(outcome.err, /^mmcpstore: [^\n]+\n$/, what);
  assert.match(outcome.err, pattern, what);
  assert.not.match(outcome.err, /internal error| {4}at /, what);
  assert.is(outcome.code, code, `${what}: ${outcome.err}`);
  assert.is(outcome.out, "", what);
}

async function fails(args: string[], code: number, pattern: RegExp, options: RunOptions = {}): Promise<void> {
  assertFailed(await run(args, options), code, pattern, args.join(" "));
}

/** `work` on all cases, a few at a time. */
async function each<T>(cases: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  const queue = [...cases];
  const worker = async () => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) await work(one);
  };
  await Promise.all([worker(), worker(), worker()]);
}

function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function noise(lengthBytes: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let word = seed;
  for (let at = 0; at < lengthBytes; at++) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    bytes[at] = word >>> 24;
  }
  return bytes;
}

const AREA_OFFSET = MIB;
const AREA_BYTES = 256 * KIB;
const AREA = ["--offset", "1M", "--size", "256K"];

/** User data, four blank zones of 64 KiB at 1 MiB, user data that ends in the middle of a sector. */
function mixedImage(): string {
  const bytes = noise(AREA_OFFSET + AREA_BYTES + 300 * 512 + 100);
  bytes.fill(0, AREA_OFFSET, AREA_OFFSET + AREA_BYTES);
  return file(bytes);
}

function areaOf(path: string): Uint8Array {
  return new Uint8Array(readFileSync(path)).subarray(AREA_OFFSET, AREA_OFFSET + AREA_BYTES);
}

const COMMANDS = ["demo", "ls", "cat", "extract", "rm", "format", "panic", "inspect"];
const NAME = "dmesg-pstore_blk-0";

/** Every command that opens an image, with arguments that are right. */
function commandLines(image: string): Record<string, string[]> {
  return {
    ls: ["ls", image],
    cat: ["cat", image, NAME],
    extract: ["extract", image, fresh(".dir")],
    rm: ["rm", image, NAME],
    wipe: ["format", image, "--wipe"],
    panic: ["panic", image, "--log", demoLog],
    inspect: ["inspect", image],
  };
}
const READERS = ["ls", "cat", "extract", "inspect"];
const WRITERS = ["rm", "wipe", "panic"];

// ---- Usage

const usage = suite("usage");

usage("help of every command, with examples", async () => {
  const all = await ok(["--help"]);
  for (const name of COMMANDS) assert.match(all.out, new RegExp(`^  ${name} `, "m"));
  await each(COMMANDS, async (name) => {
    const { out } = await ok([name, "--help"]);
    assert.match(out, new RegExp(`^Usage: mmcpstore ${name}`));
    assert.match(out, new RegExp(`Examples:\n  mmcpstore ${name}`));
    for (const line of out.split("\n")) assert.ok(line.length <= 115, line);
    assert.is((await ok(["help", name])).out, out);
  });
});

usage("--version, also through a link as npm makes it", async () => {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  assert.is((await ok(["--version"])).out, `${version}\n`);
  const link = join(folder, "mmcpstore");
  symlinkSync(main, link);
  const linked = await collect(spawn(process.execPath, [link, "--version"], { env: plainEnv }));
  assert.is(linked.out, `${version}\n`);
  const demo = await collect(spawn(process.execPath, [link, "demo", "--json"], { env: plainEnv }));
  assert.is(demo.code, 0, demo.err);
});

usage("wrong usage: exit 2, one line, a hint", async () => {
  const image = linuxImage("lp64-plain");
  const before = digest(readFileSync(image));
  const panic = ["panic", image, "--log", demoLog];
  const cases: [string[], RegExp][] = [
    [[], /no command/],
    [["frobnicate"], /unknown command 'frobnicate'/],
    [["--frobnicate"], /unknown option '--frobnicate'/],
    [["ls"], /missing required argument 'image'/],
    [["ls", image, "more"], /too many arguments/],
    [["ls", image, "--frobnicate"], /unknown option '--frobnicate' \(see mmcpstore ls --help\)/],
    [["ls", image, "--jsno"], /unknown option '--jsno' \(Did you mean --json\?\)/],
    [["cat", image], /missing required argument 'name'/],
    [["extract", image], /missing required argument 'dir'/],
    [["rm", image], /which records/],
    [["rm", image, NAME, "--all"], /--all: takes no names/],
    [["panic", image], /required option '--log <file>'/],
    [["ls", image, "--kmsg-size"], /--kmsg-size <bytes>' argument missing/],
    [["ls", image, "--kmsg-size", "0"], /--kmsg-size 0: must be at least 4096/],
    [["ls", image, "--kmsg-size", "5000"], /--kmsg-size 5000: must be a multiple of 4096/],
    [["ls", image, "--kmsg-size", "-4096"], /--kmsg-size -4096: is no size/],
    [["ls", image, "--kmsg-size", "1e6"], /--kmsg-size 1e6: is no size/],
    [["ls", image, "--kmsg-size", "99999999999999999999"], /is no size/],
    [["ls", image, "--pmsg-size", "100"], /--pmsg-size 100: must be a multiple of 4096/],
    [["ls", image, "--console-size", "x"], /--console-size x: is no size/],
    [["ls", image, "--ftrace-size", "1"], /--ftrace-size 1: must be a multiple/],
    [["ls", image, "--cpus", "0"], /--cpus 0: must be 1 to 8192/],
    [["ls", image, "--cpus", "2.5"], /--cpus 2.5: must be 1 to 8192/],
    [[...panic, "--console", demoLog], /--console: no medium states the size of a ring; give --console-size/],
    [[...panic, "--pmsg", "-", "--console", "-"], /--pmsg -: standard input can be one of them only/],
    [["ls", image, "--offset", "100"], /--offset 100: must be a multiple of 512/],
    [["ls", image, "--size", "0"], /--size 0: must be at least 4096/],
    [["ls", image, "--abi", "arm64"], /--abi arm64: is not one of lp64, i386/],
    [["ls", image, "--timeout", "0"], /--timeout 0: must be/],
    [["ls", image, "--partition", ""], /--partition: is empty/],
    [["ls", image, "--partition", "1", "--offset", "0"], /cannot be combined with --offset/],
    [["panic", image, "--log", demoLog, "--partition", "1", "--size", "64K"], /combined with --size/],
    [[...panic, "--reason", "whim"], /--reason whim: is not one of Panic, Oops/],
    [[...panic, "--time", "yesterday"], /--time yesterday: is no time/],
    [[...panic, "--time", "2024-02-30"], /--time 2024-02-30: is no time/],
    [[...panic, "--card", "floppy"], /--card floppy: is not one of emmc, sd, sdsc, sdxc/],
    [[...panic, "--in-flight", "dance"], /--in-flight dance: is not one of none, read/],
    [[...panic, "--policy", "last"], /--policy last: is not one of first-wins, ring, newest/],
    [[...panic, "--keep", "2"], /--keep 2: belongs to --policy newest/],
    [[...panic, "--keep", "0"], /--keep 0: must be 1 to 32768/],
    [[...panic, "--parts", "0"], /--parts 0: must be 1 to 1200/],
    [[...panic, "--parts", "1201"], /--parts 1201: must be 1 to 1200/],
    [[...panic, "--parts", "two"], /--parts two: must be 1 to 1200/],
    [[...panic, "--max-reason", "5"], /--max-reason 5: is not one of Panic, Oops/],
    [["format", fresh()], /--size: is needed/],
    [["format", fresh(), "--size", "0"], /--size 0: must be at least 4096/],
    [["format", fresh(), "--size", "5000"], /--size 5000: must be a multiple of 4096/],
    [["format", fresh(), "--size", "9T"], /must be at most/],
    [["format", fresh(), "--size", "1M", "--offset", "0"], /--offset: only with --wipe/],
    [["format", fresh(), "--size", "1M", "--partition", "1"], /--partition: only with --wipe/],
  ];
  await each(cases, ([args, pattern]) => fails(args, 2, pattern));
  for (const [args, pattern] of cases.slice(0, 6)) {
    const { err } = await run(args);
    assert.match(err, /see mmcpstore .*--help/);
    assert.match(err, pattern);
  }
  assert.is(digest(readFileSync(image)), before);
});

usage("colours: NO_COLOR, FORCE_COLOR, and none for a pipe", async () => {
  const image = join(data, "lp64-oops.img.gz");
  const cases: [Record<string, string>, boolean][] = [
    [{}, false],
    [{ CI: "1" }, false],
    [{ FORCE_COLOR: "1" }, true],
    [{ FORCE_COLOR: "0" }, false],
    [{ NO_COLOR: "1" }, false],
    [{ NO_COLOR: "1", FORCE_COLOR: "1" }, false],
    [{ NO_COLOR: "", FORCE_COLOR: "1" }, true],
  ];
  await each(cases, async ([env, colored]) => {
    for (const command of ["ls", "inspect"]) {
      const { out } = await ok([command, image], { env });
      assert.is(out.includes("\x1b"), colored, `${command} ${JSON.stringify(env)}`);
    }
    assert.not((await ok(["ls", image, "--json"], { env })).out.includes("\x1b"));
  });
});

usage("a reader that goes away, and a full standard output", async () => {
  const image = join(data, "lp64-multipart.img.gz");
  for (const args of [["cat", image, NAME], ["ls", image, "--json"], ["--help"]]) {
    const { code, err } = await shell('"$@" | head -c 10 >/dev/null', args);
    assert.is(err, "");
    assert.is(code, 0);
  }
  if (!existsSync("/dev/full")) return;
  for (const args of [["cat", image, NAME], ["ls", image], ["inspect", image], ["demo"], ["--help"]]) {
    assertFailed(await shell('"$@" >/dev/full', args), 1, /standard output: no space left/, args.join(" "));
  }
});

usage.run();

// ---- Reading

const reading = suite("reading");

reading("ls, cat, extract and inspect show what Linux shows, on all of its images", async () => {
  await each(Object.entries(expected), async ([name, files]) => {
    const image = join(data, `${name}.img.gz`);
    const rows = JSON.parse((await ok(["ls", image, "--json"])).out) as Record<string, unknown>[];
    assert.equal(
      rows.map((row) => [row.name, row.size, row.state]),
      files.map((one) => [one.file, one.size, "ok"]),
    );
    const target = fresh(".dir");
    const { out } = await ok(["extract", image, target]);
    assert.match(out, new RegExp(`^${files.length} records? and manifest.json in `, "m"));
    assert.equal(readdirSync(target).sort(), [...files.map((one) => one.file), "manifest.json"].sort());
    const manifest = JSON.parse(readFileSync(join(target, "manifest.json"), "utf8")) as {
      name: string;
      sha256: string;
      time: string;
    }[];
    for (const [index, one] of files.entries()) {
      assert.is(digest((await ok(["cat", image, one.file])).stdout), one.sha256);
      const path = join(target, one.file);
      assert.is(digest(readFileSync(path)), one.sha256);
      const entry = manifest[index];
      assert.is(entry?.name, one.file);
      assert.is(entry?.sha256, one.sha256);
      assert.is(entry?.time, rows[index]?.time);
      const time = parseTime(entry?.time ?? "");
      const nearestUs = BigInt(Math.round((time?.timeNsec ?? 0) / 1000));
      const timeNs = statSync(path, { bigint: true }).mtimeNs;
      assert.is(timeNs, (time?.timeSec ?? 0n) * 1_000_000_000n + nearestUs * 1000n);
    }
    const drawn = await ok(["inspect", image]);
    assert.match(drawn.out, /^\[[#.]{64}\]$/m);
    const map = JSON.parse((await ok(["inspect", image, "--json"])).out) as { zones: { state: string }[] };
    assert.is(map.zones.filter((zone) => zone.state === "ok").length, files.length);
  });
});

reading("ls: the table, every field of --json, and no records", async () => {
  const image = join(data, "i386-oops.img.gz");
  const { out } = await ok(["ls", image]);
  const lines = out.trimEnd().split("\n");
  assert.is(lines.length, 3);
  assert.match(lines[0] ?? "", /^NAME +REASON +COUNT +TIME +SIZE +STATE$/);
  assert.match(lines[1] ?? "", /^dmesg-pstore_blk-0 +Oops +1 +2026-\d\d-\d\dT\S+\.\d{9}Z +27812 +ok$/);
  const [row] = JSON.parse((await ok(["ls", image, "--json"])).out) as [Record<string, unknown>];
  assert.equal(Object.keys(row), [
    "name",
    "type",
    "id",
    "reason",
    "count",
    "time",
    "size",
    "compressed",
    "abi",
    "offset",
    "sealed",
    "sequence",
    "part",
    "first",
    "olderBytes",
    "lineBytes",
    "duplicateOf",
    "state",
  ]);
  assert.equal([row.type, row.id, row.abi, row.offset], ["kmsg", 0, "i386", 0]);
  assert.equal([row.compressed, row.sealed, row.sequence], [true, false, null]);
  const none = join(data, "lp64-panic-lost.img.gz");
  assert.is((await ok(["ls", none])).out, "no records\n");
  assert.equal(JSON.parse((await ok(["ls", none, "--json"])).out), []);
  assert.match((await ok(["extract", none, fresh(".dir")])).out, /^0 records and manifest.json/);
});

reading("extract: never over another content without --force, never half a folder", async () => {
  const image = join(data, "lp64-plain.img.gz");
  const target = fresh(".dir");
  await ok(["extract", image, target]);
  assert.match((await ok(["extract", image, target])).out, /3 files of them already there/);
  const second = join(target, "dmesg-pstore_blk-1");
  writeFileSync(second, "mine");
  rmSync(join(target, NAME));
  await fails(["extract", image, target], 1, /dmesg-pstore_blk-1: exists already with another content/);
  assert.not(existsSync(join(target, NAME)), "nothing is written before everything is checked");
  assert.is(readFileSync(second, "utf8"), "mine");
  await ok(["extract", image, target, "--force"]);
  assert.is(digest(readFileSync(second)), expected["lp64-plain"]?.[1]?.sha256);
  rmSync(second);
  mkdirSync(second);
  await fails(["extract", image, target, "--force"], 1, /dmesg-pstore_blk-1: is a directory/);
  assert.equal(readdirSync(target).sort(), [NAME, "dmesg-pstore_blk-1", "manifest.json"]);

  await fails(["extract", image, demoLog], 1, /demo-panic.txt: is not a directory/);
  await fails(["extract", image, join(demoLog, "x")], 1, /not a directory/);
  const closed = fresh(".dir");
  mkdirSync(closed, { mode: 0o555 });
  await fails(["extract", image, closed], 1, /permission denied/, { spawn: nobody });
  assert.equal(readdirSync(closed), []);
});

reading("extract onto a full disk: one line, and nothing is left", async () => {
  const image = join(data, "lp64-plain.img.gz");
  const target = fresh(".dir");
  const outcome = await shell('ulimit -f 8; exec "$@"', ["extract", image, target]);
  assertFailed(outcome, 1, /dmesg-pstore_blk-0: the file would become too large/, "extract");
  assert.not(existsSync(target));
  mkdirSync(target);
  await shell('ulimit -f 8; exec "$@"', ["extract", image, target]);
  assert.equal(readdirSync(target), []);
});

reading("a torn record is shown, with a remark, and never as ok", async () => {
  const image = mixedImage();
  await ok(["panic", image, "--log", demoLog, "--no-compress", ...AREA]);
  const bytes = readFileSync(image);
  bytes.writeUInt8((bytes[AREA_OFFSET + 5000] ?? 0) ^ 1, AREA_OFFSET + 5000);
  writeFileSync(image, bytes);
  assert.match((await ok(["ls", image, ...AREA])).out, / torn$/m);
  assert.match((await ok(["inspect", image, ...AREA])).out, /^\[!+\.+\]$/m);
  const { code, stdout, err } = await run(["cat", image, NAME, ...AREA]);
  assert.is(code, 0);
  assert.is(err, `mmcpstore: ${NAME}: the record is torn\n`);
  assert.is(stdout.length, logBytes.length + "Panic: Total 1 times\n".length);
});

reading("a name that is not there: the ones that are", async () => {
  const image = join(data, "lp64-plain.img.gz");
  await fails(
    ["cat", image, "dmesg-pstore_blk-7"],
    1,
    /no such record .* there are dmesg-pstore_blk-0, dmes/,
  );
  await fails(["cat", image, "../../etc/passwd"], 1, /no such record/);
  await fails(["cat", join(data, "lp64-panic-lost.img.gz"), NAME], 1, /it holds no records/);
});

reading.run();

// ---- HTTP

const http = suite("http");
let server: Server;
let origin = "";
http.before(async () => {
  server = createServer((request, response) => {
    if (request.url === "/missing.img") {
      response.writeHead(404).end();
      return;
    }
    if (request.url === "/silent.img") return;
    const bytes = readFileSync(join(data, "lp64-plain.img.gz"));
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    if (range === null) {
      response.writeHead(200).end(bytes);
      return;
    }
    const first = Number(range[1]);
    const last = Math.min(Number(range[2]), bytes.length - 1);
    response
      .writeHead(206, { "Content-Range": `bytes ${first}-${last}/${bytes.length}` })
      .end(bytes.subarray(first, last + 1));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
http.after(() => {
  server.closeAllConnections();
  server.close();
});

http("images behind HTTP are read", async () => {
  const url = `${origin}/plain.img.gz`;
  const rows = JSON.parse((await ok(["ls", url, "--json"])).out) as { name: string }[];
  assert.is(rows.length, 2);
  assert.is(digest((await ok(["cat", url, NAME])).stdout), expected["lp64-plain"]?.[0]?.sha256);
});

http("and never written", async () => {
  const lines = commandLines(`${origin}/plain.img.gz`);
  await each(WRITERS, (name) => fails(lines[name] ?? [], 1, /an image behind HTTP is read-only/));
  await fails(["format", `${origin}/new.img`, "--size", "1M"], 1, /HTTP is read-only/);
});

http("no network, no file, no answer", async () => {
  const lines = commandLines("http://127.0.0.1:1/x.img");
  await each(READERS, (name) => fails(lines[name] ?? [], 1, /127\.0\.0\.1:1.*refused/));
  await fails(["ls", `${origin}/missing.img`], 1, /missing\.img: .*404/);
  await fails(["ls", `${origin}/silent.img`, "--timeout", "200"], 1, /no complete answer within 200 ms/);
});

http.run();

// ---- Bad images

const bad = suite("bad images");

bad("for each command: missing, directory, empty, tiny, truncated, no partition, too small", async () => {
  const gz = readFileSync(join(data, "lp64-plain.img.gz"));
  const truncated = file(gz.subarray(0, gz.length / 2), ".img.gz");
  const small = file(new Uint8Array(32 * KIB));
  const plain = linuxImage("lp64-plain");
  const image = (bytes: Uint8Array | string, ending?: string) => file(bytes, ending);
  const everybody = [...READERS, ...WRITERS];
  const cases: [string, string[], string[], RegExp][] = [
    [join(folder, "not-there.img"), [], everybody, /not-there\.img: no such file/],
    [folder, [], everybody, /: is a directory/],
    [image(""), [], everybody, /: is empty/],
    [image("x"), [], everybody, /: 1 bytes are too few, an area has at least 4096/],
    [image(new Uint8Array(2048)), [], everybody, /too few/],
    [truncated, [], READERS, /truncated gzip stream/],
    [image(gz, ".img"), [], WRITERS, /is gzip-compressed and read-only/],
    [image("not gzip", ".gz"), [], READERS, /is named .gz but is not gzip/],
    [small, ["--kmsg-size", "64K"], everybody, /--kmsg-size 64K: is larger than the area \(32768 bytes\)/],
    [small, ["--pmsg-size", "16K", "--kmsg-size", "32K"], everybody, /sizes add up to 49152/],
    [plain, ["--partition", "3"], everybody, /--partition 3: .* has no partition table/],
    [plain, ["--offset", "1G"], everybody, /--offset 1G: beyond the end/],
    [plain, ["--size", "1G"], everybody, /--size 1G: reaches beyond the end/],
    [plain, ["--kmsg-size", "1G"], everybody, /--kmsg-size 1G: is larger than the area/],
    ["/dev/null", [], everybody, /neither a file nor a block device/],
  ];
  const lines = cases.flatMap(([path, options, names, pattern]) =>
    names.map((name) => ({ path, pattern, args: [...(commandLines(path)[name] ?? []), ...options] })),
  );
  await each(lines, async ({ path, pattern, args }) => {
    const before = existsSync(path) && statSync(path).isFile() ? digest(readFileSync(path)) : "";
    await fails(args, 1, pattern);
    if (before !== "") assert.is(digest(readFileSync(path)), before);
    if (args[0] === "extract") assert.not(existsSync(args[2] ?? ""), "no folder was made");
  });
});

bad("partitions: by number and by PARTUUID, and one that is not there", async () => {
  const image = fresh();
  await ok(["demo", "--out", image]);
  for (const which of ["2", "73706d6d-02"]) {
    assert.match((await ok(["ls", image, "--partition", which])).out, /dmesg-pstore_blk-0/);
  }
  const before = digest(readFileSync(image));
  const lines = Object.values(commandLines(image));
  await each(lines, (args) =>
    fails([...args, "--partition", "pstore"], 1, /--partition pstore: no such partition, there are 1/),
  );
  assert.is(digest(readFileSync(image)), before);
});

bad("files that must not be written", async () => {
  const image = linuxImage("lp64-plain");
  chmodSync(image, 0o444);
  const before = digest(readFileSync(image));
  const lines = commandLines(image);
  await each(WRITERS, (name) => fails(lines[name] ?? [], 1, /permission denied/, { spawn: nobody }));
  await fails(["format", image, "--size", "1M"], 1, /exists already/);
  assert.is(digest(readFileSync(image)), before);
  const closed = fresh(".dir");
  mkdirSync(closed, { mode: 0o555 });
  const target = join(closed, "new.img");
  await fails(["format", target, "--size", "1M"], 1, /new\.img: permission denied/, { spawn: nobody });
  await fails(["demo", "--out", target], 1, /new\.img: permission denied/, { spawn: nobody });
  await fails(["format", join(folder, "no/such/dir.img"), "--size", "1M"], 1, /no such file/);
});

bad("somebody's file system is not an area unless he says so", async () => {
  const image = file(noise(MIB));
  const before = digest(readFileSync(image));
  const lines = commandLines(image);
  for (const name of ["wipe", "panic"]) await fails(lines[name] ?? [], 1, /holds data but no pstore zone/);
  assert.is(digest(readFileSync(image)), before);
  await fails(["panic", image, "--log", demoLog, "--offset", "0"], 1, /data that are no pstore zone at 0/);
  assert.is(digest(readFileSync(image)), before);
  await ok(["panic", image, "--log", demoLog, "--offset", "0", "--force"]);
  assert.match((await ok(["ls", image])).out, /ok$/m);
});

bad.run();

// ---- format and rm

const changing = suite("format and rm");

changing("format: a sparse blank image that every command takes", async () => {
  const image = fresh();
  const { out } = await ok(["format", image, "--size", "16M"]);
  assert.match(out, /16 MiB, 256 kmsg zones of 64 KiB/);
  assert.is(statSync(image).size, 16 * MIB);
  assert.ok(statSync(image).blocks * 512 < MIB);
  assert.is((await ok(["ls", image])).out, "no records\n");
  await fails(["format", image, "--size", "1M"], 1, /exists already, --wipe clears its pstore area/);
  assert.is(statSync(image).size, 16 * MIB);
  const other = fresh();
  const sizes = ["--kmsg-size", "128K", "--pmsg-size", "64K"];
  assert.match(
    (await ok(["format", other, "--size", "1M", ...sizes])).out,
    /7 kmsg zones of 128 KiB behind 64 K/,
  );
  await ok(["panic", other, "--log", demoLog, ...sizes]);
  const [row] = JSON.parse((await ok(["ls", other, "--json"])).out) as [{ offset: number; state: string }];
  assert.equal([row.offset, row.state], [64 * KIB, "ok"]);
  await fails(["format", fresh(), "--size", "8K", "--kmsg-size", "64K"], 1, /--kmsg-size 64K: is larger/);
});

changing("format on a full disk leaves nothing", async () => {
  const target = join(fresh(".dir"), "new.img");
  mkdirSync(join(target, ".."));
  const outcome = await shell('ulimit -f 8; exec "$@"', ["format", target, "--size", "8M"]);
  assertFailed(outcome, 1, /new\.img: the file would become too large/, "format");
  const demo = await shell('ulimit -f 8; exec "$@"', ["demo", "--out", target]);
  assertFailed(demo, 1, /new\.img: the file would become too large/, "demo");
  assert.equal(readdirSync(join(target, "..")), []);
});

changing("format --wipe clears the area, and nothing else", async () => {
  const image = mixedImage();
  await ok(["panic", image, "--log", demoLog, ...AREA]);
  const before = readFileSync(image);
  assert.match((await ok(["format", image, "--wipe", ...AREA])).out, /256 KiB at 1048576 wiped/);
  const after = readFileSync(image);
  assert.ok(after.subarray(AREA_OFFSET, AREA_OFFSET + AREA_BYTES).every((byte) => byte === 0));
  before.fill(0, AREA_OFFSET, AREA_OFFSET + AREA_BYTES);
  assert.is(digest(after), digest(before));
});

changing("rm changes the four bytes that Linux's unlink changes", async () => {
  await each(["lp64-plain", "i386-oops", "lp64-multipart"], async (name) => {
    const image = linuxImage(name);
    const before = readFileSync(image);
    assert.is((await ok(["rm", image, "dmesg-pstore_blk-1"])).out, "removed dmesg-pstore_blk-1\n");
    const wanted = Buffer.from(before);
    wanted.fill(0, 65536 + 4, 65536 + 8);
    assert.is(digest(readFileSync(image)), digest(wanted));
    const rows = JSON.parse((await ok(["ls", image, "--json"])).out) as { name: string }[];
    assert.equal(
      rows.map((row) => row.name),
      [NAME],
    );
    await fails(["rm", image, NAME, "dmesg-pstore_blk-2"], 1, /dmesg-pstore_blk-2: no such record/);
    assert.match((await ok(["rm", image, "dmesg-pstore_blk-1"])).out, /was removed before/);
    assert.is(digest(readFileSync(image)), digest(wanted), "all names are looked up first");
    await ok(["rm", image, "--all"]);
    wanted.fill(0, 4, 8);
    assert.is(digest(readFileSync(image)), digest(wanted));
    assert.is((await ok(["rm", image, "--all"])).out, "no records\n");
  });
});

changing("rm of a ring: datalen and start", async () => {
  const bytes = new Uint8Array(128 * KIB);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x43474243, true);
  view.setUint32(4, 4084, true);
  view.setUint32(8, 100, true);
  bytes.fill(0x61, 12, 4096);
  const image = file(bytes);
  const sizes = ["--pmsg-size", "4K", "--kmsg-size", "64K"];
  assert.is((await ok(["cat", image, "pmsg-pstore_blk-0", ...sizes])).stdout.length, 4084);
  const [row] = JSON.parse((await ok(["ls", image, ...sizes, "--json"])).out) as [Record<string, unknown>];
  assert.equal([row.name, row.time, row.sequence, row.reason], ["pmsg-pstore_blk-0", null, null, ""]);
  await ok(["rm", image, "pmsg-pstore_blk-0", ...sizes]);
  bytes.fill(0, 4, 12);
  assert.is(digest(readFileSync(image)), digest(bytes));
});

changing("rm that the disk refuses", async () => {
  const image = mixedImage();
  await ok(["panic", image, "--log", demoLog, ...AREA]);
  const before = digest(readFileSync(image));
  const outcome = await shell('ulimit -f 64; exec "$@"', ["rm", image, NAME, ...AREA]);
  assertFailed(outcome, 1, /the file would become too large/, "rm");
  assert.is(digest(readFileSync(image)), before);
});

changing.run();

// ---- panic

const panicking = suite("panic");
const TIME = ["--time", "2024-01-12T21:44:35.123456789Z"];

panicking(
  "every request in flight: the record stands, older ones too, and no byte outside changes",
  async () => {
    const kinds = ["none", "read", "write", "program", "erase", "sleep", "suspended", "claimed", "stuck"];
    const cases = [
      ...kinds.map((kind) => ["emmc", kind]),
      ...kinds.filter((kind) => kind !== "sleep").map((kind) => ["sd", kind]),
      ...kinds.filter((kind) => kind !== "sleep").map((kind) => ["sdsc", kind]),
      ...["read", "write", "program", "erase"].map((kind) => ["emmc", kind, "--pio"]),
      ...["read", "write", "program", "erase"].map((kind) => ["sd", kind, "--pio"]),
      ...["none", "write"].map((kind) => ["sdxc", kind]),
    ];
    const base = mixedImage();
    for (const reason of ["oops", "panic"]) {
      await ok(["panic", base, "--log", demoLog, "--reason", reason, ...AREA, ...TIME]);
    }
    const before = readFileSync(base);
    await each(cases, async ([card = "", kind = "", ...more]) => {
      const what = `${card} ${kind} ${more.join(" ")}`;
      const image = file(before);
      const log = file(`the last words\n${what}\n`, ".txt");
      const args = [
        "panic",
        image,
        "--log",
        log,
        "--card",
        card,
        "--in-flight",
        kind,
        ...more,
        ...AREA,
        ...TIME,
      ];
      const { out } = await ok(args);
      assert.match(out, /^dmesg-pstore_blk-2: Panic 2, 2024-01-12T21:44:35\.123456789Z/m, what);
      const after = readFileSync(image);
      assert.is(digest(after.subarray(0, AREA_OFFSET)), digest(before.subarray(0, AREA_OFFSET)), what);
      const end = AREA_OFFSET + AREA_BYTES;
      assert.is(digest(after.subarray(end)), digest(before.subarray(end)), what);
      assert.is(
        digest(after.subarray(AREA_OFFSET, AREA_OFFSET + 128 * KIB)),
        digest(areaOf(base).subarray(0, 128 * KIB)),
      );
      const { records } = decodeArea(areaOf(image));
      assert.equal(
        records.map((one) => [one.name, one.reason, one.count, one.state, one.sealed, one.sequence]),
        [
          ["dmesg-pstore_blk-0", "Oops", 1, "ok", true, 1n],
          ["dmesg-pstore_blk-1", "Panic", 1, "ok", true, 2n],
          ["dmesg-pstore_blk-2", "Panic", 2, "ok", true, 3n],
        ],
      );
      const text = new TextDecoder().decode(records[2]?.bytes);
      assert.is(text, `Panic: Total 2 times\nthe last words\n${what}\n`);
    });
    console.log(`# panic: ${cases.length} requests in flight on images with user data around the area`);
  },
);

panicking("the area is the whole image: a request in flight inside it changes nothing", async () => {
  await each(["lp64-plain", "i386-oops", "lp64-oops"], async (name) => {
    for (const kind of ["write", "erase", "program"]) {
      const image = linuxImage(name);
      const before = new Uint8Array(readFileSync(image));
      await ok(["panic", image, "--log", demoLog, "--in-flight", kind]);
      const after = new Uint8Array(readFileSync(image));
      const zone = expected[name]?.length ?? 0;
      const start = zone * 64 * KIB;
      assert.is(digest(after.subarray(0, start)), digest(before.subarray(0, start)));
      assert.is(digest(after.subarray(start + 64 * KIB)), digest(before.subarray(start + 64 * KIB)));
      const record = decodeArea(after).records[zone];
      assert.is(record?.abi, name.startsWith("i386") ? "i386" : "lp64");
      assert.is(digest(record?.bytes.subarray(-logBytes.length) ?? new Uint8Array()), digest(logBytes));
    }
  });
});

panicking("ten panics, four zones: each policy", async () => {
  const kept = { "first-wins": [1, 2, 3, 10], ring: [7, 8, 9, 10], newest: [7, 8, 9, 10] };
  await each(["first-wins", "ring", "newest"] as const, async (policy) => {
    const image = mixedImage();
    for (let count = 1; count <= 10; count++) {
      const { out } = await ok(["panic", image, "--log", demoLog, "--policy", policy, ...AREA]);
      assert.match(out, new RegExp(`: Panic ${count}, `));
      assert.is(/every zone held a record: \S+ \(Panic \d+/.test(out), count > 4);
    }
    const { records } = decodeArea(areaOf(image));
    assert.ok(records.every((one) => one.state === "ok"));
    assert.equal(
      records.map((one) => one.count).sort((a, b) => a - b),
      kept[policy],
    );
  });
});

panicking("--parts: a long log in several zones, and ls, cat and extract --join have it whole", async () => {
  const log = Buffer.concat([logBytes, logBytes, logBytes]);
  const image = file(new Uint8Array(MIB));
  const args = [
    "panic",
    image,
    "--log",
    file(log, ".txt"),
    "--kmsg-size",
    "4K",
    "--no-compress",
    "--time",
    "5",
  ];
  const { out } = await ok([...args, "--parts", "64"]);
  const parts = [...out.matchAll(/^(dmesg-pstore_blk-\d+): part (\d+) of it, \d+ bytes$/gm)];
  assert.equal(
    parts.map(([, name, part]) => [name, part]),
    parts.map((_, i) => [`dmesg-pstore_blk-${i + 1}`, String(i + 2)]),
  );
  assert.match(
    out,
    new RegExp(`: Panic 1, .*, ${log.length} bytes of the log in ${parts.length + 1} parts, durable`),
  );
  assert.match((await ok(["ls", image])).out, /dmesg-pstore_blk-1 .* part 2 of log 1/);
  const second = parts.at(0)?.[1] ?? "";
  const shown = (await ok(["cat", image, second])).stdout;
  const lines = "Panic: Total 1 times\nPanic#1 Part2\n";
  assert.is(shown.subarray(0, lines.length).toString(), lines);
  assert.ok(log.includes(shown.subarray(lines.length)));
  const out1 = fresh("");
  await ok(["extract", image, out1, "--join"]);
  assert.is(digest(readFileSync(join(out1, "dmesg-pstore_blk-0.joined"))), digest(log));

  // Three parts are not enough, and the older log stands.
  const { out: short } = await ok([...args, "--parts", "3"]);
  assert.match(short, /all 3 parts are full: the \d+ oldest bytes were dropped/);
  type Json = { record: { part: number }; furtherParts: { part: number }[]; replaced: unknown[] };
  const json = JSON.parse((await ok([...args, "--parts", "2", "--json"])).out) as Json;
  assert.equal([json.record.part, json.furtherParts.map(({ part }) => part)], [1, [2]]);
  assert.equal(json.replaced, []);
});

panicking("--policy newest --keep: older text takes the zones of older logs, and says so", async () => {
  const log = file(Buffer.concat([logBytes, logBytes]), ".txt");
  const image = file(new Uint8Array(32 * KIB));
  const args = ["panic", image, "--kmsg-size", "4K", "--no-compress", "--time", "5", "--policy", "newest"];
  for (let i = 0; i < 8; i++) await ok([...args, "--log", "-"], { input: `old ${i}\n` });
  const { out } = await ok([...args, "--log", log, "--parts", "8", "--keep", "3"]);
  assert.is([...out.matchAll(/was replaced$/gm)].length, 6);
  assert.match(out, /no further part after 6 parts \(ENOSPC\): the \d+ oldest bytes were dropped/);
  const { records } = decodeArea(new Uint8Array(readFileSync(image)));
  const old = records.filter(({ part }) => part === 0).map(({ count }) => count);
  assert.equal(old, [7, 8]);
});

panicking("--max-reason: what is behind it is not written, and is said", async () => {
  const image = mixedImage();
  const before = digest(readFileSync(image));
  const args = ["panic", image, "--log", demoLog, ...AREA, "--max-reason", "oops"];
  await fails(
    [...args, "--reason", "emergency"],
    1,
    /the reason is behind --max-reason, nothing was written/,
  );
  assert.is(digest(readFileSync(image)), before);
  await ok([...args, "--reason", "oops"]);
});

panicking("reasons, times, JSON and the trace", async () => {
  const image = mixedImage();
  const args = ["panic", image, "--log", demoLog, ...AREA];
  type Json = {
    record: { reason: string; count: number; time: string; offset: number; sequence: string };
    result: { status: number; startNs: string; commitNs: string; storedBytes: number };
    steps: { name: string; timeNs: string }[];
    trace?: { events: { kind: string }[] };
  };
  const run1 = JSON.parse((await ok([...args, "--json", "--reason", "OOPS", "--time", "1.5"])).out) as Json;
  assert.equal([run1.record.reason, run1.record.count], ["Oops", 1]);
  assert.equal([run1.record.time, run1.record.sequence], ["1970-01-01T00:00:01.500000000Z", "1"]);
  assert.equal([run1.record.offset, run1.result.storedBytes], [AREA_OFFSET, logBytes.length]);
  assert.ok(BigInt(run1.result.commitNs) > BigInt(run1.result.startNs));
  assert.is(run1.steps.at(-1)?.name, "done");
  assert.is(run1.trace, undefined);
  const time = ["--time", "2024-01-12T22:44:35+01:00"];
  const run2 = JSON.parse(
    (await ok([...args, "--json", "--trace", "--reason", "shutdown", "--no-compress", ...time])).out,
  ) as Json;
  assert.equal([run2.record.reason, run2.record.count], ["Shutdown", 0]);
  assert.is(run2.record.time, "2024-01-12T21:44:35.000000000Z");
  assert.ok(run2.trace?.events.some((event) => event.kind === "command"));
  const startedMs = Date.now();
  const run3 = JSON.parse((await ok([...args, "--json"])).out) as Json;
  const recordMs = Date.parse(run3.record.time);
  assert.ok(recordMs >= startedMs && recordMs <= Date.now(), "the default time is now");
  const { out } = await ok([...args, "--trace", "--in-flight", "write"]);
  assert.match(out, /CMD12 0x/);
  assert.match(out, /── commit: write the header/);
});

panicking("logs: standard input, longer than a zone, longer than a megabyte, empty, none", async () => {
  const image = mixedImage();
  const payloadMax = 64 * KIB - 12 - 40 - 64;
  const pipe = await ok(["panic", image, "--log", "-", ...AREA], { input: "from a pipe\n" });
  assert.match(pipe.out, /12 bytes of the log/);
  const ascii = (lengthBytes: number) =>
    Buffer.from(noise(lengthBytes)).toString("hex").slice(0, lengthBytes);
  // Hexadecimal digits deflate to little more than half; Linux 6.1 inflates 100/60 of what a zone takes unsealed.
  const keptMax = { plain: payloadMax, deflated: Math.floor(((payloadMax + 64) * 100) / 60) };
  for (const lengthBytes of [200 * KIB, 3 * MIB]) {
    const text = ascii(lengthBytes);
    for (const input of [false, true]) {
      const log = input ? "-" : file(text, ".txt");
      for (const how of ["plain", "deflated"] as const) {
        const args = ["panic", image, "--log", log, "--policy", "ring", ...AREA];
        const { out } = await ok(how === "plain" ? [...args, "--no-compress"] : args, {
          input: input ? text : "",
        });
        assert.is(/, deflated to \d+,/.test(out), how === "deflated", out);
        assert.match(out, new RegExp(`the ${lengthBytes - keptMax[how]} oldest bytes were dropped`));
        const [newest] = decodeArea(areaOf(image)).records.sort((a, b) =>
          Number((b.sequence ?? 0n) - (a.sequence ?? 0n)),
        );
        const shown = Buffer.from(newest?.bytes ?? []).toString();
        const kept = how === "plain" ? shown.replace(/^[^\n]*\n/, "") : shown;
        assert.is(kept, text.slice(-keptMax[how]));
      }
    }
  }
  const before = digest(readFileSync(image));
  const panic = (log: string) => ["panic", image, "--log", log, ...AREA];
  const huge = fresh(".txt");
  writeFileSync(huge, "");
  truncateSync(huge, 2 ** 30 + 1);
  await fails(panic(file("", ".txt")), 1, /\.txt: is empty/);
  await fails(panic("-"), 1, /standard input: is empty/);
  await fails(panic(huge), 1, /is larger than 1 GiB/);
  await fails(panic(folder), 1, /is a directory/);
  await fails(panic(join(folder, "none.txt")), 1, /none\.txt: no such file/);
  await fails(panic("/dev/null"), 1, /\/dev\/null: is empty/);
  await fails([...panic(demoLog), "--card", "sd", "--in-flight", "sleep"], 1, /an SD card has no sleep/);
  await fails([...panic(demoLog), "--card", "sdsc", "--in-flight", "sleep"], 1, /an SD card has no sleep/);
  assert.is(digest(readFileSync(image)), before);
});

panicking("sizes that would destroy records are refused", async () => {
  const image = mixedImage();
  for (const _ of [1, 2]) await ok(["panic", image, "--log", demoLog, ...AREA]);
  const before = digest(readFileSync(image));
  const args = ["panic", image, "--log", demoLog, ...AREA];
  await fails([...args, "--kmsg-size", "4K"], 1, /holds dmesg-pstore_blk-0 in zones of 65536 bytes/);
  await fails([...args, "--kmsg-size", "128K"], 1, /holds dmesg-pstore_blk-0/);
  await fails([...args, "--pmsg-size", "4K"], 1, /which the given sizes would destroy/);
  assert.is(digest(readFileSync(image)), before);
  await ok([...args, "--kmsg-size", "64K"]);
  await ok([...args, "--kmsg-size", "4K", "--force"]);
});

panicking("a disk that takes no more: its own error, the step, and older records intact", async () => {
  const image = mixedImage();
  await ok(["panic", image, "--log", demoLog, ...AREA]);
  const before = digest(readFileSync(image));
  const args = ["panic", image, "--log", demoLog, "--in-flight", "write", ...AREA];
  const outcome = await shell('ulimit -f 64; exec "$@"', args);
  assertFailed(
    outcome,
    1,
    /: the file would become too large \(the panic write failed with EIO at step "/,
    "panic",
  );
  assert.is(digest(readFileSync(image)), before);
});

panicking.run();

// ---- openImageDevice and loadCore

const device = suite("mmcpstore/node");

device("loadCore: one module a target", () => {
  assert.is(loadCore("external"), loadCore("external"));
  assert.is.not(loadCore("external"), loadCore("release"));
});

device("only the area reaches the file; headers stand between two syncs", () => {
  const path = mixedImage();
  const before = readFileSync(path);
  const file = new Uint8Array(before);
  const log: string[] = [];
  const calls: FileCalls = {
    readSync: (_fd, target, at, lengthBytes, offset) => {
      target.set(file.subarray(offset, offset + lengthBytes), at);
      return lengthBytes;
    },
    writeSync: (_fd, bytes, at, lengthBytes, offset) => {
      log.push(`write ${offset} ${lengthBytes}`);
      file.set(bytes.subarray(at, at + lengthBytes), offset);
      return lengthBytes;
    },
    fdatasyncSync: () => {
      log.push("sync");
    },
    closeSync: () => undefined,
  };
  const image = new RawImage("image", 99, before.length, true, calls);
  const geometry = findGeometry(new Uint8Array(AREA_BYTES));
  const area = { offset: AREA_OFFSET, sizeBytes: AREA_BYTES, geometry };
  const { device: card, panicArea, overlaySectors } = openImageDevice(image, area);
  assert.equal(panicArea, { offset: AREA_OFFSET, kmsgSize: 65536, kmsgCount: 4, abi: "lp64" });
  card.write(0, noise(4096, 7));
  card.write(before.length - 50, new Uint8Array(100).fill(1));
  card.erase(AREA_OFFSET + AREA_BYTES, 4096);
  card.flush();
  assert.equal(Buffer.from(card.read(0, 4096)), Buffer.from(noise(4096, 7)));
  assert.ok(card.read(AREA_OFFSET + AREA_BYTES, 4096).every((byte) => byte === 0));
  assert.equal([...card.read(before.length - 51, 2)], [before.at(-51), 1]);
  assert.ok(
    card.read(before.length + 512, 1024).every((byte) => byte === 0),
    "zeros beyond the image",
  );
  assert.equal(log, []);
  assert.is(digest(file), digest(before));
  assert.is(overlaySectors(), 8 + 1 + 8);

  const result = card.panicWrite({ text: logBytes, timeSec: 1n });
  assert.is(result.status, 0);
  assert.ok(log.length > 10);
  const header = log.indexOf(`write ${AREA_OFFSET} 512`);
  assert.equal(log.slice(header - 1), ["sync", `write ${AREA_OFFSET} 512`, "sync"]);
  for (const line of log) {
    const [, offset, lengthBytes] = line.split(" ");
    if (line === "sync") continue;
    assert.ok(
      Number(offset) >= AREA_OFFSET && Number(offset) + Number(lengthBytes) <= AREA_OFFSET + AREA_BYTES,
    );
  }
});

device("an error of the file is the one that is told", () => {
  for (const code of ["ENOSPC", "EIO", "EROFS"]) {
    const raw = openRaw(mixedImage(), { writable: true });
    const fail = (): never => {
      throw Object.assign(new Error("no"), { code });
    };
    const image = new RawImage("disk.img", 1, raw.sizeBytes, true, {
      readSync: (_fd, target, at, lengthBytes, offset) => {
        raw.readSync(offset, target.subarray(at, at + lengthBytes));
        return lengthBytes;
      },
      writeSync: fail,
      fdatasyncSync: () => undefined,
      closeSync: () => undefined,
    });
    const geometry = findGeometry(new Uint8Array(AREA_BYTES));
    const { device: card } = openImageDevice(image, { offset: AREA_OFFSET, sizeBytes: AREA_BYTES, geometry });
    assert.ok(card.panicWrite({ text: "x" }).status < 0);
    const failure = card.takeMediumFailure();
    assert.ok(failure instanceof MmcError);
    assert.is((failure as MmcError).code, code);
    assert.match((failure as MmcError).message, /^disk\.img: /);
    raw.closeSync();
  }
});

device("areas that the core cannot write are refused", () => {
  const raw = openRaw(mixedImage(), { writable: true });
  const open = (sizeBytes: number, kmsgOffset: number, kmsgCount: number) => {
    const geometry = { ...findGeometry(new Uint8Array(AREA_BYTES)), kmsgOffset, kmsgCount };
    return () => openImageDevice(raw, { offset: AREA_OFFSET, sizeBytes, geometry });
  };
  assert.throws(open(AREA_BYTES, 0, 0), /no kmsg zone fits/);
  assert.throws(open(AREA_BYTES, 100, 1), /do not start on whole sectors/);
  assert.throws(open(64 * MIB, 0, 1), /are no area of it/);
  raw.closeSync();
});

device("one area has one device, one file one writer", () => {
  const path = mixedImage();
  const raw = openRaw(path, { writable: true });
  assert.throws(() => openRaw(path, { writable: true }), /EBUSY|is open for writing already/);
  const link = fresh();
  symlinkSync(path, link);
  assert.throws(() => openRaw(link, { writable: true }), /is open for writing already/);
  openRaw(path, { writable: false }).closeSync();
  const geometry = findGeometry(new Uint8Array(AREA_BYTES));
  const open = (offset: number, sizeBytes: number) =>
    openImageDevice(raw, { offset, sizeBytes, geometry: { ...geometry, kmsgCount: sizeBytes / 65536 } });
  open(AREA_OFFSET, AREA_BYTES);
  try {
    open(AREA_OFFSET + 65536, 65536);
    assert.unreachable();
  } catch (error) {
    assert.is((error as MmcError).code, "EBUSY");
    assert.match((error as MmcError).message, /a device writes to the area at \d+ already$/);
  }
  // Beside it there is room for another.
  open(AREA_OFFSET + AREA_BYTES, 65536);
  raw.closeSync();
  openRaw(path, { writable: true }).closeSync();
  // A guest's disk is one area from its first byte to its last.
  const disk = openRaw(file(new Uint8Array(MIB)), { writable: true });
  openDiskDevice(disk);
  assert.throws(() => openDiskDevice(disk), /a device writes to the area at 0 already/);
  disk.closeSync();
});

device.run();

// ---- demo, and times

test("rings: panic flushes them, and ls, cat, extract and rm know them", async () => {
  const image = fresh();
  const sizes = ["--pmsg-size", "8K", "--console-size", "16K", "--ftrace-size", "8K", "--cpus", "2"];
  const made = await ok(["format", image, "--size", "1M", ...sizes]);
  assert.match(made.out, /15 kmsg zones of 64 KiB behind 32 KiB of rings/);
  const console_ = Buffer.from(noise(20_000).map((byte) => 32 + (byte & 63)));
  const written = ["--console", file(console_, ".txt"), "--pmsg", "-"];
  const panicked = await ok(["panic", image, "--log", demoLog, ...written, ...sizes], { input: "user\n" });
  assert.match(panicked.out, /pmsg-pstore_blk-0: 5 bytes\nconsole-pstore_blk-0: 16372 bytes\n/);
  // ftrace has no option: the calls of a program.
  const raw = openRaw(image, { writable: true });
  const bytes = new Uint8Array(readFileSync(image));
  const geometry = findGeometry(bytes, {
    kmsgSize: 65536,
    pmsgSize: 8192,
    consoleSize: 16384,
    ftraceSize: 8192,
    cpus: 2,
  });
  const { device } = openImageDevice(raw, { offset: 0, sizeBytes: MIB, geometry });
  device.writeFtrace([0, 1, 1, 0].map((cpu, i) => ({ cpu, ip: BigInt(i + 1), parentIp: 16n })));
  device.flushRings();
  raw.closeSync();

  const rows = JSON.parse((await ok(["ls", image, "--json", ...sizes])).out) as {
    name: string;
    state: string;
  }[];
  assert.equal(
    rows.map(({ name, state }) => `${name} ${state}`),
    ["dmesg-pstore_blk-0 ok", "ftrace-pstore_blk-0 ok", "pmsg-pstore_blk-0 ok", "console-pstore_blk-0 ok"],
  );
  assert.equal((await ok(["ls", image])).out.match(/^\S+-pstore_blk-0/gm)?.length, 4);
  assert.ok((await ok(["cat", image, "console-pstore_blk-0"])).stdout.equals(console_.subarray(-16_372)));
  assert.is((await ok(["cat", image, "pmsg-pstore_blk-0"])).out, "user\n");
  const text = (await ok(["cat", image, "ftrace-pstore_blk-0", ...sizes])).out;
  assert.is(text.split("\n")[1], "CPU:1 ts:2 00000002  00000010  0x2 <- 0x10");
  assert.is((await ok(["cat", image, "ftrace-pstore_blk-0", "--raw"])).stdout.length, 4 * 24);
  const target = fresh("");
  await ok(["extract", image, target, "--raw", ...sizes]);
  assert.is(statSync(join(target, "ftrace-pstore_blk-0")).size, 4 * 24);
  assert.is(readFileSync(join(target, "pmsg-pstore_blk-0"), "utf8"), "user\n");

  // Both slices go, and nothing else changes.
  const before = readFileSync(image);
  await ok(["rm", image, "ftrace-pstore_blk-0", ...sizes]);
  const after = readFileSync(image);
  const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
  assert.equal(changed, [24 * KIB + 4, 28 * KIB + 4]);
  assert.match((await run(["cat", image, "ftrace-pstore_blk-0", ...sizes])).err, /no such record/);
  // A ring that is not there, or that the core has no memory for.
  for (const size of ["0", "768K"]) {
    const blank = fresh();
    await ok(["format", blank, "--size", "1M"]);
    const args = ["panic", blank, "--log", demoLog, "--pmsg", demoLog, "--pmsg-size", size];
    await fails(args, 1, /--pmsg: .* has no pmsg ring that can be written/);
    assert.ok(readFileSync(blank).every((byte) => byte === 0));
  }
});

test("demo: all that it shows holds, in 40 lines, the same each time", async () => {
  const image = fresh();
  const wall = (text: string) => text.replace(/\d+ ms on this machine/, "");
  const { out } = await ok(["demo", "--out", image]);
  const lines = out.trimEnd().split("\n");
  assert.ok(lines.length <= 40, `${lines.length} lines`);
  assert.not.match(out, /\bNO\b {2}/);
  assert.is(wall((await ok(["demo"])).out), wall(lines.slice(0, -1).join("\n").concat("\n")));
  const json = JSON.parse((await ok(["demo", "--json"])).out) as { checks: Record<string, boolean> };
  assert.ok(Object.values(json.checks).length >= 8 && Object.values(json.checks).every((one) => one));
  const cat = await ok(["cat", image, NAME]);
  assert.is(digest(cat.stdout.subarray(-logBytes.length)), digest(logBytes));
  await fails(["demo", "--out", image], 1, /exists already/);
});

test("times", () => {
  const whole = (timeSec: bigint, timeNsec = 0) => ({ timeSec, timeNsec });
  assert.is(formatTime(whole(0n, 5)), null);
  assert.is(formatTime(whole(1705095875n, 123456789)), "2024-01-12T21:44:35.123456789Z");
  assert.is(formatTime(whole(-1n)), "1969-12-31T23:59:59.000000000Z");
  assert.is(formatTime(whole(2n ** 63n - 1n)), "@9223372036854775807.0");
  assert.is(formatTime(whole(-(2n ** 63n), -7)), "@-9223372036854775808.-7");
  assert.equal(parseTime("1705095875.5"), whole(1705095875n, 500_000_000));
  assert.equal(parseTime("2024-01-12T21:44:35.123456789Z"), whole(1705095875n, 123456789));
  assert.equal(parseTime("2024-01-12 23:44:35+02:00"), whole(1705095875n));
  assert.equal(parseTime("2024-02-29"), whole(1709164800n));
  for (const text of ["", "now", "2023-02-29", "1969-12-31", "1.1234567890", "-1", "2024-01-12T25:00"]) {
    assert.is(parseTime(text), null, text);
  }
});

test.after(() => rmSync(folder, { recursive: true, force: true }));
test.run();
