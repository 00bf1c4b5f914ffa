// Two processes at one image: the second waits, or is refused in one line that names the first, and nothing that was
// called durable is gone.
import { type ChildProcess, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAlive, lockFilePath, tryLockFile } from "../host/image/lock.js";
import { openRaw } from "../host/image/raw.js";

const MAIN = fileURLToPath(new URL("../host/cli/main.js", import.meta.url));
const RAW = new URL("../host/image/raw.js", import.meta.url).href;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-locks-"));
const log = join(folder, "log.txt");
writeFileSync(log, "Panic#1 Part1\n<0>[    1.0] BOOM\n");
let made = 0;

function blank(): string {
  const path = join(folder, `f${made++}.img`);
  writeFileSync(path, "");
  truncateSync(path, 2 ** 20);
  return path;
}

interface Outcome {
  code: number | null;
  out: string;
  err: string;
}

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  let out = "";
  let err = "";
  child.stdout?.on("data", (data) => {
    out += data;
  });
  child.stderr?.on("data", (data) => {
    err += data;
  });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err })));
}

function cli(...args: string[]): Promise<Outcome> {
  return outcomeOf(spawn(process.execPath, [MAIN, ...args], { env: { ...process.env, NO_COLOR: "1" } }));
}

/** A process that has the image open until it is told to go. */
async function holder(path: string, writable: boolean): Promise<{ child: ChildProcess; pid: number }> {
  const program = `
    import { openRaw } from ${JSON.stringify(RAW)};
    const image = openRaw(${JSON.stringify(path)}, { writable: ${writable} });
    process.stdout.write("open\\n");
    process.stdin.on("data", () => { image.closeSync(); process.exit(0); });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    child.once("close", () => reject(new Error("it did not open")));
  });
  return { child, pid: child.pid as number };
}

async function gone(child: ChildProcess, signal: "SIGKILL" | null): Promise<void> {
  const closed = new Promise((resolve) => child.once("close", resolve));
  if (signal === null) child.stdin?.write("go\n");
  else child.kill(signal);
  await closed;
}

test("a writer keeps readers and writers out, under every name of the file, until it is gone or killed", async () => {
  const image = blank();
  const [link, hard] = [join(folder, "link.img"), join(folder, "hard.img")];
  symlinkSync(image, link);
  linkSync(image, hard);
  for (const end of [null, "SIGKILL"] as const) {
    const { child, pid } = await holder(image, true);
    const refused = new RegExp(
      `^mmcpstore: \\S+: process ${pid} (writes to it|has it open), nothing was done\\n$`,
    );
    const before = readFileSync(image);
    const outcomes = await Promise.all([
      cli("ls", link),
      cli("panic", hard, "--log", log),
      cli("core", "rm", image, "--all"),
    ]);
    for (const { code, out, err } of outcomes) {
      assert.equal([code, out], [1, ""]);
      assert.match(err, refused);
    }
    assert.ok(readFileSync(image).equals(before));
    await gone(child, end);
    assert.is((await cli("ls", image)).code, 0);
  }
});

test("readers share, and keep a writer out", async () => {
  const image = blank();
  const { child, pid } = await holder(image, false);
  const [listed, written] = await Promise.all([cli("ls", image), cli("panic", image, "--log", log)]);
  assert.is(listed.code, 0);
  assert.is(written.code, 1);
  assert.match(written.err, new RegExp(`process ${pid} has it open`));
  await gone(child, null);
  assert.is((await cli("panic", image, "--log", log)).code, 0);
});

test("two panics at once: what was called durable is there", async () => {
  const image = blank();
  const both = await Promise.all(
    [1, 2, 3].map((time) => cli("panic", image, "--log", log, "--time", String(time))),
  );
  const done = both.filter(({ code }) => code === 0).length;
  assert.ok(done >= 1);
  for (const { code, err } of both)
    if (code !== 0) assert.match(err, /process \d+ has it open, nothing was done/);
  const records = JSON.parse((await cli("ls", image, "--json")).out) as { state: string }[];
  assert.is(records.filter(({ state }) => state === "ok").length, done);
});

test("one process may read what it writes; a second writer of its own is refused at once", async () => {
  const image = blank();
  const reader = openRaw(image, { writable: false });
  const writer = openRaw(image, { writable: true });
  const other = openRaw(image, { writable: false });
  assert.throws(() => openRaw(image, { writable: true }), /is open for writing already/);
  for (const one of [reader, writer, other]) one.closeSync();
  openRaw(image, { writable: true }).closeSync();
});

test("a file that may only be read can be read", async () => {
  const image = blank();
  chmodSync(image, 0o444);
  chmodSync(folder, 0o555);
  assert.is((await cli("ls", image)).code, 0);
  chmodSync(folder, 0o755);
});

test("without the addon: a lock file, which a dead process does not hold", () => {
  const path = lockFilePath(2 ** 30 + process.pid, made++);
  assert.is(tryLockFile(path, false), null);
  assert.is(Number(readFileSync(path, "latin1")), process.pid);
  const parent = process.ppid;
  writeFileSync(path, String(parent));
  assert.equal([tryLockFile(path, false), tryLockFile(path, true)], [parent, parent]);
  const dead = 2 ** 22 + 1;
  assert.not.ok(isAlive(dead));
  writeFileSync(path, String(dead));
  assert.equal([tryLockFile(path, true), tryLockFile(path, false)], [null, null]);
  assert.is(Number(readFileSync(path, "latin1")), process.pid);
  unlinkSync(path);
  assert.not.ok(existsSync(path));
});

test.after(() => rmSync(folder, { recursive: true, force: true }));
test.run();
