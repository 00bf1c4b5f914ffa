// extract --layout: what systemd-pstore's archive and ABRT's merge tool expect, added to what is there and never over
// it. What ABRT takes is said here once more, from its rules: the first line, the order of parts, 16 KiB a file.
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ROOT } from "./machine.js";
import { buildArea, buildChain, buildZone, logText } from "./zones.js";

const ZONE_BYTES = 65536;
const MAIN = `${ROOT}dist/host/cli/main.js`;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-collectors-"));
test.after(() => rmSync(folder, { recursive: true }));
const LOG = logText(150_000);
const PLAIN = logText(60_000, 2);

let files = 0;
function fresh(bytes?: Uint8Array): string {
  const path = join(folder, String(files++));
  if (bytes !== undefined) writeFileSync(path, bytes);
  return path;
}

function extract(image: string, target: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, "extract", image, target, ...args], {
    env: { ...process.env, NO_COLOR: "1" },
    encoding: "utf8",
  });
  return { code: status, out: stdout, err: stderr };
}

/** One plain panic, a compressed Oops, a log of three parts. */
function area(): Uint8Array {
  const zones = [
    buildZone(ZONE_BYTES, { payload: PLAIN, sequence: 1n, counter: 1 }),
    buildZone(ZONE_BYTES, {
      payload: new Uint8Array(deflateRawSync(Buffer.from("Oops#1 Part1\n<1>[    1.0] Oops: 0002\n"))),
      compressed: true,
      reason: 2,
    }),
    ...buildChain(LOG, ZONE_BYTES, 60_000, 3n, { counter: 2 }),
  ];
  return buildArea(zones, ZONE_BYTES);
}

test("a folder that nobody can make is one line and no wait", () => {
  const image = fresh(area());
  for (const args of [[], ["--layout", "systemd"]]) {
    const { code, out, err } = extract(image, "/proc/none/at/all", ...args);
    assert.is(code, 1);
    assert.is(out, "");
    assert.match(err, /^mmcpstore: \/proc\/none\/at\/all: [^\n]+\n$/);
  }
  const file = fresh(new Uint8Array(1));
  assert.match(extract(image, file).err, /^mmcpstore: .*: is not a directory\n$/);
  assert.match(extract(image, join(file, "below")).err, /^mmcpstore: [^\n]+\n$/);
});

/** What abrt-merge-pstoreoops does with a folder: the logs by panic number, parts put together in descending order. */
function mergeAsAbrt(target: string): Map<number, string> {
  const parts: { panic: number; part: number; text: string }[] = [];
  for (const name of readdirSync(target)) {
    const bytes = readFileSync(join(target, name));
    const match = /^Panic#(\d+) Part(\d+)\n/.exec(bytes.toString("latin1"));
    if (match === null || bytes.length > 16384) continue;
    parts.push({
      panic: Number(match[1]),
      part: Number(match[2]),
      text: bytes.toString("latin1").slice(match[0].length),
    });
  }
  parts.sort((one, other) => one.panic - other.panic || other.part - one.part);
  const logs = new Map<number, string>();
  for (const { panic, text } of parts) logs.set(panic, (logs.get(panic) ?? "") + text);
  return logs;
}

test("systemd: records under their own names, a log in parts in a folder with the whole of it", () => {
  const target = fresh();
  const done = extract(fresh(area()), target, "--layout", "systemd");
  assert.equal([done.code, done.err], [0, ""]);
  assert.equal(readdirSync(target).sort(), ["3", "dmesg-pstore_blk-0", "dmesg-pstore_blk-1"]);
  const parts = ["dmesg-pstore_blk-2", "dmesg-pstore_blk-3", "dmesg-pstore_blk-4"];
  assert.equal(readdirSync(join(target, "3")).sort(), [...parts, "dmesg.txt"]);
  assert.ok(readFileSync(join(target, "3", "dmesg.txt")).equals(LOG));
  assert.is(statSync(join(target, "dmesg-pstore_blk-0")).mode & 0o777, 0o600);
  assert.is(statSync(join(target, "3", "dmesg.txt")).mode & 0o777, 0o640);
  assert.is(
    readFileSync(join(target, "dmesg-pstore_blk-0"), "latin1"),
    `Panic: Total 1 times\n${Buffer.from(PLAIN).toString("latin1")}`,
  );
});

test("systemd: the next crash in the same zone does not replace the one before, and nothing is added twice", () => {
  const target = fresh();
  const first = fresh(buildArea([buildZone(ZONE_BYTES, { payload: PLAIN, sequence: 1n })], ZONE_BYTES));
  const second = fresh(
    buildArea([buildZone(ZONE_BYTES, { payload: LOG.slice(0, 900), sequence: 2n })], ZONE_BYTES),
  );
  for (const image of [first, first, second, first, second]) {
    assert.is(extract(image, target, "--layout", "systemd").code, 0);
  }
  assert.equal(readdirSync(target).sort(), ["dmesg-pstore_blk-0", "dmesg-pstore_blk-0.1"]);
  assert.ok(readFileSync(join(target, "dmesg-pstore_blk-0")).length > 60_000);
  assert.is(readFileSync(join(target, "dmesg-pstore_blk-0.1")).length, 921);
  // Somebody else's file or folder of that name stays too.
  mkdirSync(join(target, "dmesg-pstore_blk-0.2"));
  const third = fresh(
    buildArea([buildZone(ZONE_BYTES, { payload: LOG.slice(0, 901), sequence: 3n })], ZONE_BYTES),
  );
  assert.match(extract(third, target, "--layout", "systemd").out, /dmesg-pstore_blk-0\.3/);
});

test("abrt: what its merge tool puts together is the log, byte for byte, of every panic", () => {
  const target = fresh();
  const done = extract(fresh(area()), target, "--layout", "abrt");
  assert.is(done.code, 0);
  assert.match(done.err, /^mmcpstore: 1 record of another reason: ABRT takes Panic only\n$/);
  const logs = mergeAsAbrt(target);
  assert.equal([...logs.keys()], [1, 2]);
  assert.is(logs.get(1), Buffer.from(PLAIN).toString("latin1"));
  assert.is(logs.get(2), Buffer.from(LOG).toString("latin1"));
  for (const name of readdirSync(target)) {
    const bytes = readFileSync(join(target, name));
    assert.ok(bytes.length <= 16384, name);
    // Pieces are cut between lines.
    assert.ok(
      bytes[bytes.length - 1] === 10 ||
        name === "dmesg-pstore_blk-2-part1" ||
        name === "dmesg-pstore_blk-0-part1",
      name,
    );
  }
  // The kernel's own line is not there twice.
  assert.is(
    readFileSync(join(target, "dmesg-pstore_blk-1-part1"), "latin1"),
    "Oops#1 Part1\n<1>[    1.0] Oops: 0002\n",
  );
});

test("abrt: text without lines, an empty one, one that just fits", () => {
  const room = 16384 - "Panic#1 Part1\n".length;
  for (const length of [0, 1, room, room + 1, 60_000]) {
    const payload = new Uint8Array(length).fill(0x61);
    const target = fresh();
    assert.is(
      extract(fresh(buildArea([buildZone(ZONE_BYTES, { payload })], ZONE_BYTES)), target, "--layout", "abrt")
        .code,
      0,
    );
    assert.is(mergeAsAbrt(target).get(1), "a".repeat(length));
    assert.is(readdirSync(target).length, Math.max(1, Math.ceil(length / room)), `${length}`);
  }
});

test("wrong use: exit 2, and nothing is made", () => {
  const image = fresh(area());
  const target = fresh();
  for (const args of [
    ["--layout", "kdump"],
    ["--layout", "abrt", "--join"],
    ["--layout", "systemd", "--force"],
  ]) {
    const { code, err } = extract(image, target, ...args);
    assert.is(code, 2, args.join(" "));
    assert.match(err, /^mmcpstore: .*\n$/);
    assert.not(existsSync(target));
  }
  writeFileSync(target, "mine");
  assert.is(extract(image, target, "--layout", "abrt").code, 1);
  assert.is(readFileSync(target, "utf8"), "mine");
});

test.run();
