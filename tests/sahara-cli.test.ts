// `mmcpstore sahara` as processes: a served device collected over TCP, cut, resumed, recorded, packed and unpacked;
// files that are in the way, full disks, read-only folders, nobody there. Each failure is one line, and nothing
// that was there is changed.
import { type ChildProcess, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeContainerHead, readContainer } from "../host/dump/sahara-container.js";
import { ROOT } from "./machine.js";
import { memory } from "./sahara-pair.js";

const MAIN = `${ROOT}dist/host/cli/main.js`;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-sahara-"));
chmodSync(folder, 0o755);
const DDR = memory("ddr.bin", 0, 700_001).read(0, 700_001);
const SRAM = memory("sram.bin", 0, 784).read(0, 784);
writeFileSync(join(folder, "ddr.bin"), DDR);
writeFileSync(join(folder, "sram.bin"), SRAM);
writeFileSync(join(folder, "empty.bin"), "");
const FILES = ["sram.bin", "empty.bin", "ddr.bin@0x80000000"];
const children: ChildProcess[] = [];

interface Result {
  code: number | null;
  out: string;
  err: string;
}

function start(args: string[], shell = ""): ChildProcess {
  const command = shell === "" ? process.execPath : "sh";
  const words =
    shell === "" ? [MAIN, "sahara", ...args] : ["-c", shell, "sh", process.execPath, MAIN, "sahara", ...args];
  const child = spawn(command, words, { cwd: folder, env: { PATH: process.env.PATH ?? "" } });
  children.push(child);
  return child;
}

function run(args: string[], shell = ""): Promise<Result> {
  const child = start(args, shell);
  let out = "";
  let err = "";
  child.stdout?.on("data", (piece) => {
    out += piece;
  });
  child.stderr?.on("data", (piece) => {
    err += piece;
  });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err })));
}

/** A served device; its address once it listens. */
function serve(...args: string[]): Promise<string> {
  const child = start(["serve", ...FILES, ...args]);
  return new Promise((resolve, reject) => {
    let out = "";
    child.stdout?.on("data", (piece) => {
      out += piece;
      const found = /tcp:\/\/\S+/.exec(out);
      if (found !== null) resolve(found[0]);
    });
    child.on("close", () => reject(new Error(`serve ended: ${out}`)));
  });
}

function oneLine({ err }: Result, text: string | RegExp): void {
  assert.match(err, /^mmcpstore: [^\n]+\n$/);
  assert.match(err, text);
}

function manifestOf(name: string) {
  return JSON.parse(readFileSync(join(folder, name, "manifest.json"), "utf8"));
}

function assertWhole(name: string): void {
  const files = ["00-sram.bin", "01-empty.bin", "02-ddr.bin", "manifest.json"];
  assert.equal(readdirSync(join(folder, name)).sort(), files);
  assert.ok(readFileSync(join(folder, name, "02-ddr.bin")).equals(DDR));
  assert.ok(readFileSync(join(folder, name, "00-sram.bin")).equals(SRAM));
  assert.is(manifestOf(name).complete, true);
  for (const region of manifestOf(name).regions) assert.match(region.sha256, /^[0-9a-f]{64}$/);
}

test("collect a folder, over a lost connection", async () => {
  const result = await run(["collect", await serve("--fault", "disconnect@4", "--width", "32"), "plain"]);
  assert.is(result.code, 0, result.err);
  assert.match(result.out, "3 regions in plain");
  assertWhole("plain");
});

test("a dump that is cut stays, marked; --resume goes on", async () => {
  const address = await serve("--fault", "disconnect@8");
  const first = await run(["collect", address, "cut", "--retries", "0"]);
  assert.is(first.code, 1);
  oneLine(first, "cut: the dump is partial: ");
  const { complete, regions } = manifestOf("cut");
  assert.equal([complete, regions[2].state, regions[2].file], [false, "partial", "02-ddr.bin.partial"]);
  assert.is(regions[2].storedBytes, readFileSync(join(folder, "cut", "02-ddr.bin.partial")).length);
  const again = await run(["collect", address, "cut"]);
  assert.is(again.code, 1);
  oneLine(again, "cut: is not empty");
  const second = await run(["collect", address, "cut", "--resume"]);
  assert.is(second.code, 0, second.err);
  assertWhole("cut");
  oneLine(await run(["collect", address, "cut", "--resume"]), "cut: the dump is complete");
});

test("a container, and unpacked; a recording, and collected again", async () => {
  const result = await run(["collect", await serve(), "--container", "c.bin", "--record", "rec.bin"]);
  assert.is(result.code, 0, result.err);
  assert.not(existsSync(join(folder, "c.bin.partial")));
  const bytes = readFileSync(join(folder, "c.bin"));
  const { regions, isComplete } = readContainer({
    sizeBytes: bytes.length,
    read: (at, count) => new Uint8Array(bytes.subarray(at, at + count)),
  });
  assert.ok(isComplete);
  assert.ok(bytes.subarray(0, 32 + 3 * 64).equals(makeContainerHead(regions)));
  assert.is((await run(["unpack", "c.bin", "unpacked"])).code, 0);
  assertWhole("unpacked");
  const json = await run(["collect", "rec.bin", "replayed", "--json"]);
  assert.is(json.code, 0, json.err);
  assert.equal(JSON.parse(json.out), manifestOf("replayed"));
  assertWhole("replayed");
  writeFileSync(join(folder, "short.rec"), readFileSync(join(folder, "rec.bin")).subarray(0, 300_000));
  const short = await run(["collect", "short.rec", "short"]);
  assert.is(short.code, 1);
  oneLine(short, "short.rec: the recording ends here");
});

test("a container that was cut: what it has is kept", async () => {
  const bytes = readFileSync(join(folder, "c.bin"));
  writeFileSync(join(folder, "half.bin"), bytes.subarray(0, 100_000));
  const result = await run(["unpack", "half.bin", "half"]);
  assert.is(result.code, 1);
  oneLine(result, "half.bin: was cut, what it has is in half");
  assert.equal(manifestOf("half").complete, false);
  const stored = readFileSync(join(folder, "half", "02-ddr.bin.partial"));
  assert.ok(stored.length > 0 && stored.equals(DDR.subarray(0, stored.length)));
  writeFileSync(join(folder, "long.bin"), Buffer.concat([bytes, Buffer.from("x")]));
  oneLine(await run(["unpack", "long.bin", "long"]), "are accounted for");
  assert.not(existsSync(join(folder, "long")));
});

test("a disk that is full: what fitted stays, the device keeps its dump", async () => {
  const address = await serve();
  // 400 blocks of 512 bytes a file, as a full disk would have it.
  const full = await run(["collect", address, "full"], `ulimit -f 400; trap "" XFSZ; exec "$@"`);
  assert.is(full.code, 1);
  oneLine(full, "02-ddr.bin.partial: the file would become too large");
  assert.is(readFileSync(join(folder, "full", "02-ddr.bin.partial")).length, 400 * 512);
  assert.is(manifestOf("full").regions[2].state, "partial");
  const resumed = await run(["collect", address, "full", "--resume"]);
  assert.is(resumed.code, 0, resumed.err);
  assertWhole("full");
});

test("interrupted: what came stays", async () => {
  const address = await serve("--fault", "silent@6");
  const child = start(["collect", address, "stopped", "--timeout", "60000"]);
  const closed = new Promise((resolve) => child.on("close", resolve));
  while (!existsSync(join(folder, "stopped/02-ddr.bin.partial")))
    await new Promise((go) => setTimeout(go, 20));
  child.kill("SIGINT");
  assert.is(await closed, 1);
  assert.is(manifestOf("stopped").why, "interrupted");
});

for (const [fault, text] of [
  ["silent@0", "memory read was not answered"],
  ["end-of-image@0", "END_OF_IMAGE, invalid memory read (0x19)"],
  ["table-huge", "memory table: 2147483648 bytes, more than 65535"],
  ["hello-forever", "more than 16"],
  ["mode-command", "the device waits for commands"],
] as const) {
  test(`fault ${fault}: one line, no folder`, async () => {
    const result = await run(["collect", await serve("--fault", fault), "none", "--timeout", "500"]);
    assert.is(result.code, 1);
    oneLine(result, text);
    assert.not(existsSync(join(folder, "none")));
  });
}

test("names that would lead out stay inside", async () => {
  const result = await run(["collect", await serve("--fault", "path-names"), "names/", "--keep-going"]);
  assert.is(result.code, 0, result.err);
  const files = ["00-..%2F..%2Fevil.bin", "01-%2Fetc%2Fx", "02-..%5Cx", "manifest.json"];
  assert.equal(readdirSync(join(folder, "names")).sort(), files);
  assert.not(existsSync(join(folder, "../evil.bin")));
});

test("an image to boot from, then the dump", async () => {
  const address = await serve("--boot", "13=700001");
  const result = await run(["collect", address, "booted", "--image", "13=ddr.bin"]);
  assert.is(result.code, 0, result.err);
  assertWhole("booted");
});

test("bad input", async () => {
  mkdirSync(join(folder, "mine"));
  writeFileSync(join(folder, "mine/x"), "precious");
  writeFileSync(join(folder, "mine/manifest.json"), "{}");
  writeFileSync(join(folder, "there.bin"), "precious");
  for (const [args, code, text] of [
    [["collect", "tcp://127.0.0.1:1", "x"], 1, "tcp://127.0.0.1:1: nobody listens there"],
    [["collect", "unix:/nonexistent", "x"], 1, "unix:/nonexistent: no such socket"],
    [["collect", "http://a", "x"], 2, "write tcp://HOST:PORT"],
    [["collect", "nofile", "x"], 1, "nofile: no such file"],
    [["collect", "ddr.bin", "x"], 1, "ddr.bin: a frame with"],
    [["collect", "empty.bin", "x"], 1, "empty.bin: the recording ends here"],
    [["collect", "rec.bin"], 2, "say a folder for the dump, or --container"],
    [["collect", "rec.bin", "x", "--container", "y"], 2, "and not both"],
    [["collect", "rec.bin", "mine"], 1, "mine: is not empty"],
    [["collect", "rec.bin", "mine", "--resume"], 1, "manifest.json: is no manifest"],
    [["collect", "rec.bin", "nothing", "--resume"], 1, "manifest.json: no such file"],
    [["collect", "rec.bin", "--container", "there.bin"], 1, "there.bin: exists already"],
    [["collect", "rec.bin", "x", "--record", "there.bin"], 1, "there.bin: exists already"],
    [["collect", "rec.bin", "x", "--image", "13"], 2, "write NUMBER=FILE"],
    [["collect", "rec.bin", "ddr.bin"], 1, "ddr.bin: a part of the path is not a directory"],
    [["collect", "rec.bin", "/proc/x"], 1, "/proc/x: no such file"],
    [["collect", "rec.bin", "x", "--max-total", "-1"], 2, "--max-total"],
    [["collect", "rec.bin", "x", "--timeout", "0"], 2, "--timeout 0: must be 1 to"],
    [["unpack", "ddr.bin", "x"], 1, "ddr.bin: is no Sahara container"],
    [["unpack", "empty.bin", "x"], 1, "has 0 bytes only"],
    [["unpack", "c.bin", "mine"], 1, "mine: is not empty"],
    [["unpack", "nofile", "x"], 1, "nofile: no such file"],
    [["unpack", ".", "x"], 1, "is a directory"],
    [["serve", "nofile"], 1, "nofile: no such file"],
    [["serve", "."], 1, ".: is no plain file"],
    [["serve", "ddr.bin", "--fault", "x"], 2, "--fault x: is not known"],
    [["serve", "ddr.bin", "--fault", "table-huge@3"], 2, "--fault table-huge@3: is not known"],
    [["serve", "ddr.bin@0xffffffff", "--width", "32"], 1, "do not have 32 bits"],
    [["serve", "ddr.bin", "--port", "65536"], 2, "--port 65536: must be 0 to 65535"],
  ] as [string[], number, string][]) {
    const result = await run(args);
    assert.is(result.code, code, args.join(" "));
    oneLine(result, text);
    assert.not(existsSync(join(folder, "x")), args.join(" "));
  }
  assert.is(readFileSync(join(folder, "mine/x"), "utf8"), "precious");
  assert.is(readFileSync(join(folder, "there.bin"), "utf8"), "precious");
});

test.after(() => {
  for (const child of children) if (child.exitCode === null) child.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

test.run();
