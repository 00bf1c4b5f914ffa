// `mmcpstore harvest` as a process: real regions onto a card, bad input in one line, and nothing changed by it.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readRamoops } from "../host/embed/ramoops.js";
import { decodeArea } from "../host/pstore/decode.js";
import { ROOT, sameBytes, textOf } from "./machine.js";

const DATA = `${ROOT}tests/data/ramoops`;
const MIB = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-harvest-"));
let made = 0;

function run(...args: string[]) {
  const child = spawnSync(process.execPath, [`${ROOT}dist/host/cli/main.js`, ...args], { encoding: "utf8" });
  return { code: child.status, out: child.stdout, err: child.stderr };
}

function harvest(...args: string[]) {
  return run("harvest", ...args);
}

function file(bytes: Uint8Array | string): string {
  const path = join(folder, `f${made++}`);
  writeFileSync(path, bytes);
  return path;
}

/** An image of empty zones. */
function image(): string {
  return file(new Uint8Array(2 * MIB));
}

function golden(name: string): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(`${DATA}/${name}.bin.gz`)));
}

function recordsOf(path: string) {
  return decodeArea(new Uint8Array(readFileSync(path))).records;
}

/** One zone of a region whose data is `text`. */
function region(...texts: string[]): Uint8Array {
  const bytes = new Uint8Array(4096 * texts.length);
  const view = new DataView(bytes.buffer);
  for (const [i, text] of texts.entries()) {
    view.setUint32(4096 * i, 0x43474244, true);
    view.setUint32(4096 * i + 4, text.length, true);
    view.setUint32(4096 * i + 8, text.length, true);
    bytes.set(Buffer.from(text), 4096 * i + 12);
  }
  return bytes;
}

test("a real panic, byte for byte, with its reason and time, from a write in flight, on each card", () => {
  for (const card of ["emmc", "sd", "sdsc"]) {
    const into = image();
    const { code, out, err } = harvest(
      `${DATA}/ecc-deflate.bin.gz`,
      "--into",
      into,
      "--card",
      card,
      "--in-flight",
      "write",
    );
    assert.is(err, "");
    assert.is(code, 0);
    assert.match(out, /ramoops region of 64 KiB at 0x0\ndmesg-ramoops-0: Panic 1, .*, no errors\n/);
    assert.match(out, /dmesg-pstore_blk-0: Panic 1, .* durable after/);
    const [source] = readRamoops(golden("ecc-deflate")).records;
    const [record] = recordsOf(into);
    assert.is(record?.state, "ok");
    assert.is(record?.reason, "Panic");
    assert.is(record?.timeSec, source?.timeSec);
    assert.is(record?.timeNsec, source?.timeNsec);
    assert.ok(record && source && sameBytes(textOf(record), source.bytes));
  }
});

test("a region in a RAM dump, searched and named; broken bytes are corrected and said", () => {
  const ram = new Uint8Array(40 * MIB);
  const broken = golden("ecc-deflate");
  for (let i = 0; i < 8; i++) broken[100 + i] = (broken[100 + i] as number) ^ 0x55;
  ram.set(broken, 33 * MIB);
  const dump = file(ram);
  const into = image();
  const { code, out, err } = harvest(dump, "--into", into, "--json");
  assert.is(`${code} ${err}`, "0 ");
  const json = JSON.parse(out) as Record<string, Record<string, unknown>>;
  assert.equal(json.region, {
    file: dump,
    offset: 33 * MIB,
    size: 65536,
    eccSize: 16,
    ecc: { correctedBytes: 8, badBlocks: 0 },
  });
  assert.is(json.source?.reason, "Panic");
  assert.is(json.source?.state, "ok");
  assert.is(json.record?.time, json.source?.time);
  assert.is(json.result?.status, 0);
  const [source] = readRamoops(golden("ecc-deflate")).records;
  const [record] = recordsOf(into);
  assert.ok(record && source && sameBytes(textOf(record), source.bytes));

  ram.set(golden("plain-1MiB"), 4 * MIB);
  writeFileSync(dump, ram);
  assert.match(
    harvest(dump, "--list").err,
    /^mmcpstore: .*several ramoops regions, at 0x400000, 0x2100000; choose/,
  );
  assert.match(
    harvest(dump, "--list", "--mem-address", "0x2100000", "--mem-size", "64K").out,
    /8 bytes corrected/,
  );
});

test("a record that is damaged beyond correction is brought over, and called damaged", () => {
  const broken = golden("ecc-plain");
  for (let i = 0; i < 60; i++) broken[5000 + i] = (broken[5000 + i] as number) ^ 0x55;
  const into = image();
  const { code, out } = harvest(file(broken), "--into", into);
  assert.is(code, 0);
  assert.match(out, /1 block beyond correction, damaged|2 blocks beyond correction, damaged/);
  assert.is(recordsOf(into).length, 1);
});

test("the newest panic by itself, or what --record names; a reason that is not told", () => {
  const dump = file(
    region(
      "====2000.000000-D\nPanic#1 Part1\nolder\n",
      "====3000.000000-D\nPanic#1 Part1\nnewer\n",
      "====4000.000000-D\nOops#1 Part1\noops\n",
      "====5000.000000-D\nnothing\n",
    ),
  );
  const text = (...args: string[]) => {
    const into = image();
    const { code, err } = harvest(dump, "--into", into, ...args);
    assert.is(`${code} ${err}`, "0 ");
    const [record] = recordsOf(into);
    return `${record?.reason} ${record?.timeSec} ${Buffer.from(record?.bytes ?? [])
      .toString()
      .split("\n")
      .at(-2)}`;
  };
  assert.is(text(), "Panic 3000 newer");
  assert.is(text("--record", "0"), "Panic 2000 older");
  assert.is(text("--record", "dmesg-ramoops-2"), "Oops 4000 oops");
  assert.is(text("--record", "3", "--reason", "emergency"), "Emergency 5000 nothing");
  const into = image();
  const refused = harvest(dump, "--into", into, "--record", "3");
  assert.is(refused.err, "mmcpstore: dmesg-ramoops-3: does not tell its reason, say it with --reason\n");
  assert.is(refused.code, 1);
  assert.is(recordsOf(into).length, 0);
  const list = harvest(dump, "--list");
  assert.is(list.out.split("\n").length, 6);
  assert.match(list.out, /dmesg-ramoops-2 +Oops +1 +1970-01-01T01:06:40.000000000Z +18 +no ECC +ok/);
});

test("bad input: one line, the right exit code, and an image that is as it was", () => {
  const whole = golden("plain-1MiB");
  const good = file(whole);
  const cut = file(whole.subarray(0, 5000));
  const empty = file("");
  const zeros = file(new Uint8Array(100_000));
  const hostile = file(region("====1.000000-D\nPanic#1 Part1\n"));
  const view = new Uint8Array(readFileSync(hostile));
  view.fill(0xff, 4, 12);
  writeFileSync(hostile, view);
  const noRecords = file(whole.subarray(0x20000));
  const packed = file(region("====1.000000-C\n\xff\xff\xff\xff"));
  const cutGzip = file(readFileSync(`${DATA}/plain-1MiB.bin.gz`).subarray(0, 3000));
  const huge = file("");
  truncateSync(huge, 200 * MIB);
  const cases: [number, RegExp, string[]][] = [
    [1, /no such file/, [join(folder, "nothing")]],
    [1, /is empty/, [empty]],
    [1, /is a directory/, [folder]],
    [1, /no zone fits into 5000 bytes at 0x0: cut off/, [cut]],
    [1, /holds no ramoops region/, [zeros]],
    [1, /no ramoops region|no zone fits/, [hostile]],
    [1, /holds no crash log/, [noRecords]],
    [1, /truncated gzip/, [cutGzip]],
    [1, /not by deflate/, [packed]],
    [1, /holds no ramoops region/, [huge]],
    [1, /are no region, give --mem-size/, [huge, "--mem-address", "0"]],
    [1, /no such record in .*, there are dmesg-ramoops-0/, [good, "--record", "7"]],
    [1, /ends at 0x100000, before/, [good, "--mem-address", "0x200000"]],
    [1, /ends at 0x100000, before/, [good, "--mem-size", "2M"]],
    [1, /no ramoops zone in/, [good, "--mem-address", "0x100", "--mem-size", "4K"]],
    [1, /an SD card has no sleep/, [good, "--card", "sd", "--in-flight", "sleep"]],
    [2, /--ecc 128: must be at most 127/, [good, "--ecc", "128"]],
    [2, /--mem-address -1|unknown option|is no size/, [good, "--mem-address", "zero"]],
    [2, /--mem-size 4: must be at least 12/, [good, "--mem-size", "4"]],
    [2, /--record-size x: is no size/, [good, "--record-size", "x"]],
    [2, /--reason bored/, [good, "--reason", "bored"]],
    [2, /cannot be combined/, [good, "--list"]],
  ];
  const into = image();
  const before = readFileSync(into);
  for (const [code, why, args] of cases) {
    const result = harvest(...args, "--into", into);
    assert.is(result.code, code, `${args.join(" ")}: ${result.err}`);
    assert.match(result.err, why);
    assert.is(result.out, "");
    assert.is(result.err.split("\n").length, 2, result.err);
  }
  assert.ok(sameBytes(before, readFileSync(into)));
  assert.is(harvest(good).code, 2);
  assert.match(harvest(good).err, /--into: say which image, or --list/);
  assert.match(harvest(good, "--into", join(folder, "none")).err, /no such file/);
  assert.match(harvest(noRecords, "--list").out, /no records/);
  assert.ok(sameBytes(whole, readFileSync(good)), "REGION is not changed");
  for (const path of [huge]) rmSync(path);
});

test("help", () => {
  const { code, out } = harvest("--help");
  assert.is(code, 0);
  for (const word of ["--into", "--list", "--record", "--mem-address", "--ecc", "Examples:"])
    assert.ok(out.includes(word));
  assert.match(run("--help").out, /harvest/);
});

test.after(() => rmSync(folder, { recursive: true }));
test.run();
