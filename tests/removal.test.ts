// Every command that changes something, killed behind each of its writes, syncs and renames: what ls says then is true,
// and the same command, given again, finishes. Removal is a state of the medium, so "wiped" and "no records" are only
// said when nothing of the text is left.
import {
  copyFileSync,
  existsSync,
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
import { makeContainerHead } from "../host/dump/sahara-container.js";
import { type Outcome, ok, run } from "./inside.js";
import { buildZone } from "./zones.js";

const folder = mkdtempSync(join(tmpdir(), "mmcpstore-removal-"));
const SECRET = "PASSWORD=hunter2 ";
let made = 0;

function path(ending = ""): string {
  return join(folder, `f${made++}${ending}`);
}

function file(content: string | Uint8Array): string {
  const name = path();
  writeFileSync(name, content);
  return name;
}

/** Copies of the secret that are left. */
function secrets(name: string): number {
  return readFileSync(name).toString("latin1").split(SECRET).length - 1;
}

const log = file(`Panic#1 Part1\n${`${SECRET}\n`.repeat(200)}`);
const ring = file(`${SECRET}\n`.repeat(100));
const ram = file(SECRET.repeat(1500));
const GEOMETRY = ["--pmsg-size", "8192", "--kmsg-size", "16384"];

/** Two records and a ring. */
async function areaWithRecords(): Promise<string> {
  const image = path(".img");
  await ok("format", image, "--size", "128K", ...GEOMETRY);
  for (const time of ["1", "2"]) {
    await ok("panic", image, "--log", log, "--no-compress", "--pmsg", ring, "--time", time, ...GEOMETRY);
  }
  return image;
}

/** Two dumps at 64 KiB, behind a pstore area. */
async function areaWithDumps(): Promise<string> {
  const image = path(".img");
  await ok("format", image, "--size", "320K");
  const dump = ["--dump-area", "64K:256K", "--dump-region", `ram=${ram}@0x80000000`];
  for (let i = 0; i < 2; i++) await ok("panic", image, "--size", "64K", "--log", log, ...dump);
  return image;
}

interface Cut {
  /** What to do, on this copy. */
  args: (image: string) => string[];
  /** Behind a cut. */
  check?: (image: string, cut: Outcome) => Promise<void>;
  /** Behind the second, whole run. */
  done: (image: string, again: Outcome) => void | Promise<void>;
}

/** Kills the command behind each step and, where that is another state, before it; returns how many cuts there were. */
async function eachCut(original: string, { args, check, done }: Cut): Promise<number> {
  let cuts = 0;
  for (let at = 0; ; at++) {
    const image = path(".img");
    copyFileSync(original, image);
    const cut = await run(args(image), at);
    if (cut.killed) await check?.(image, cut);
    const again = cut.killed ? await run(args(image)) : cut;
    assert.is(again.code, 0, `${args("IMAGE").join(" ")}, killed behind step ${at}, then: ${again.err}`);
    await done(image, again);
    rmSync(image);
    if (!cut.killed) return cuts;
    cuts++;
  }
}

async function lsAgreesWithBytes(image: string, geometry: string[] = GEOMETRY): Promise<void> {
  const { code, out, err } = await run(["ls", image, "--all", "--json", ...geometry]);
  assert.is(code, 0, err);
  const rows = JSON.parse(out) as { state: string }[];
  if (secrets(image) > 0) assert.ok(rows.length > 0, "ls --all shows nothing, and the text is there");
  assert.not.ok(rows.some(({ state }) => state === "torn"));
}

test("rm --all --wipe, and with names, of records and rings", async () => {
  const original = await areaWithRecords();
  assert.ok(secrets(original) > 400);
  const names = ["dmesg-pstore_blk-0", "dmesg-pstore_blk-1", "pmsg-pstore_blk-0"];
  let cuts = 0;
  for (const geometry of [GEOMETRY, []]) {
    for (const which of [["--all"], names]) {
      cuts += await eachCut(original, {
        args: (image) => ["rm", image, ...which, "--wipe", ...geometry],
        check: (image) => lsAgreesWithBytes(image, geometry),
        done: async (image) => {
          assert.is(secrets(image), 0);
          assert.is((await run(["ls", image, "--all", ...geometry])).out, "no records\n");
        },
      });
    }
  }
  console.log(`# rm --wipe: ${cuts} cuts`);
  assert.ok(cuts >= 60);
});

test("rm, then rm --wipe: the rings' text too; and rm again says what is so", async () => {
  const image = await areaWithRecords();
  await ok("rm", image, "--all", ...GEOMETRY);
  assert.ok(secrets(image) > 0);
  assert.is(await ok("ls", image, ...GEOMETRY), "no records\n");
  assert.match(await ok("ls", image, "--all", ...GEOMETRY), /pmsg-pstore_blk-0/);
  assert.is(await ok("rm", image, "--all", ...GEOMETRY), "no records\n");
  assert.match(await ok("rm", image, "dmesg-pstore_blk-0", ...GEOMETRY), /was removed before/);
  assert.match(await ok("rm", image, "--all", "--wipe", ...GEOMETRY), /wiped pmsg-pstore_blk-0/);
  assert.is(secrets(image), 0);
  assert.match(await ok("inspect", image, ...GEOMETRY), /wiped/);
  assert.match(await ok("rm", image, "pmsg-pstore_blk-0", "--wipe", ...GEOMETRY), /was wiped before/);
});

test("rm without --wipe, killed anywhere, is finished by itself", async () => {
  const cuts = await eachCut(await areaWithRecords(), {
    args: (image) => ["rm", image, "--all", ...GEOMETRY],
    check: (image) => lsAgreesWithBytes(image),
    done: async (image) => assert.is((await run(["ls", image, ...GEOMETRY])).out, "no records\n"),
  });
  assert.ok(cuts >= 6);
});

test("records of Linux without a seal, salvaged and unfinished ones", async () => {
  const payload = new TextEncoder().encode(`${SECRET}\n`.repeat(200));
  const zones = [
    buildZone(16384, { payload }),
    buildZone(16384, { payload, sequence: 1n }),
    buildZone(16384, { payload, sequence: 2n }),
    buildZone(16384, { payload, sequence: 3n }),
  ];
  // One word of the header lost, both, and of the last one all but the seal.
  zones[1]?.fill(0x45, 0, 4);
  zones[2]?.fill(0x45, 0, 16);
  zones[3]?.fill(0, 0, 512);
  zones[3]?.fill(1, 900, 901);
  const original = file(Buffer.concat(zones));
  const sizes = ["--kmsg-size", "16384"];
  for (const wipe of [["--wipe"], []]) {
    const cuts = await eachCut(original, {
      args: (image) => ["rm", image, "--all", ...wipe, ...sizes],
      check: (image) => lsAgreesWithBytes(image, sizes),
      done: async (image) => {
        assert.is((await run(["ls", image, ...sizes])).out, "no records\n");
        if (wipe.length > 0) assert.is(secrets(image), 0);
        // What is left is ours: the next panic may have it.
        assert.is((await run(["panic", image, "--log", log, ...sizes])).code, 0);
      },
    });
    assert.ok(cuts >= 8);
  }
});

test("format --wipe", async () => {
  const original = await areaWithRecords();
  for (const geometry of [GEOMETRY, []]) {
    const cuts = await eachCut(original, {
      args: (image) => ["format", image, "--wipe", ...geometry],
      check: (image) => lsAgreesWithBytes(image, geometry),
      done: (image) => assert.ok(readFileSync(image).every((byte) => byte === 0)),
    });
    assert.ok(cuts >= 8);
  }
});

test("core rm --wipe, of one dump and of all; plain core rm; the dump that stays is found", async () => {
  const original = await areaWithDumps();
  const before = secrets(original) - 200;
  const at = ["--offset", "64K"];
  const inArea = (image: string) =>
    readFileSync(image).subarray(65536).toString("latin1").split(SECRET).length - 1;
  let cuts = 0;
  for (const which of [["--all"], ["--dump", "front"], ["--dump", "back"]]) {
    cuts += await eachCut(original, {
      args: (image) => ["core", "rm", image, ...at, ...which, "--wipe"],
      done: async (image) => {
        assert.is(inArea(image), which[0] === "--all" ? 0 : 1500);
        const listed = await run(["core", "ls", image, ...at, "--json"]);
        assert.is(listed.code, which[0] === "--all" ? 1 : 0, listed.err);
        if (which[0] !== "--all") assert.is((await run(["core", "verify", image, ...at])).code, 0);
      },
    });
  }
  for (const which of [["--all"], ["--dump", "front"], ["--dump", "back"]]) {
    cuts += await eachCut(original, {
      args: (image) => ["core", "rm", image, ...at, ...which],
      done: async (image) => {
        assert.ok(inArea(image) >= 3000);
        const { code, err, out } = await run(["core", "ls", image, ...at]);
        if (which[0] === "--all") assert.match(err, /no dump.*bytes are there: core rm --wipe/);
        else assert.match(out, /removed/);
        assert.is(code, which[0] === "--all" ? 1 : 0);
        // And can be wiped later.
        assert.is((await run(["core", "rm", image, ...at, ...which, "--wipe"])).code, 0);
        assert.is(inArea(image), which[0] === "--all" ? 0 : 1500);
      },
    });
  }
  console.log(`# core rm: ${cuts} cuts, ${before} copies before`);
  assert.ok(cuts >= 25);
  // A place that was given back is taken by the next dump, whichever state it is in.
  for (const which of [["--all"], ["--dump", "front", "--wipe"], ["--dump", "back"]]) {
    const image = path(".img");
    copyFileSync(original, image);
    await ok("core", "rm", image, ...at, ...which);
    const dump = ["--dump-area", "64K:256K", "--dump-region", `ram=${ram}@0x80000000`];
    await ok("panic", image, "--size", "64K", "--log", log, ...dump);
    await ok("core", "verify", image, ...at);
  }
});

test("panic over records and dumps: older ones stay, the new one is whole or not there", async () => {
  const original = await areaWithRecords();
  const cuts = await eachCut(original, {
    args: (image) => ["panic", image, "--log", log, "--no-compress", "--time", "3", ...GEOMETRY],
    check: async (image) => {
      const rows = JSON.parse((await run(["ls", image, "--json", ...GEOMETRY])).out) as { state: string }[];
      assert.ok(rows.filter(({ state }) => state === "ok").length >= 3);
      assert.not.ok(rows.some(({ state }) => state === "torn"));
    },
    done: async (image) => assert.match((await run(["ls", image, ...GEOMETRY])).out, /00:00:03/),
  });
  console.log(`# panic: ${cuts} cuts`);
  assert.ok(cuts >= 8);
});

/** Files that a folder may have at the end. */
function namesIn(target: string): string[] {
  return readdirSync(target).sort();
}

test("extract, core extract and format leave whole files, on the medium, and no leftovers", async () => {
  const image = await areaWithRecords();
  const dumps = await areaWithDumps();
  const commands: [string, (target: string) => string[]][] = [
    ["extract", (target) => ["extract", image, target, ...GEOMETRY]],
    ["core extract", (target) => ["core", "extract", dumps, target, "--offset", "64K"]],
    ["systemd", (target) => ["extract", image, target, "--layout", "systemd", ...GEOMETRY]],
  ];
  for (const [name, args] of commands) {
    const whole = path();
    const first = await run(args(whole));
    assert.is(first.code, 0, first.err);
    // Each name that was made is followed by a sync of its folder.
    assert.is(first.steps.at(-1), "sync", name);
    const wanted = namesIn(whole);
    for (let at = 0; ; at++) {
      const target = path();
      const cut = await run(args(target), at);
      if (!cut.killed) break;
      const again = await run(args(target));
      assert.is(again.code, 0, `${name}, killed behind step ${at}: ${again.err}`);
      assert.equal(namesIn(target), wanted, `${name}, killed behind step ${at}`);
      for (const one of wanted) {
        assert.ok(readFileSync(join(target, one)).equals(readFileSync(join(whole, one))), one);
      }
    }
  }
  for (let at = 0; ; at++) {
    const inside = path();
    const target = join(folder, `new${at}.img`);
    const cut = await run(["format", target, "--size", "64K"], at);
    if (!cut.killed) break;
    const again = await run(["format", target, "--size", "64K"]);
    assert.ok(again.code === 0 || /exists already/.test(again.err), again.err);
    assert.is(readFileSync(target).length, 65536);
    assert.not.ok(
      readdirSync(folder).some((one) => one.startsWith(".mmcpstore-")),
      inside,
    );
  }
});

test("sahara unpack, killed anywhere before it is whole, begins anew", async () => {
  const region = (name: string, address: bigint) => ({
    type: 1n,
    address,
    lengthBytes: 3000n,
    description: name,
    name: `${name}.BIN`,
  });
  const regions = [region("ONE", 0x80000000n), region("TWO", 0x90000000n)];
  const container = file(Buffer.concat([makeContainerHead(regions), Buffer.alloc(6000, SECRET)]));
  const whole = path();
  await ok("sahara", "unpack", container, whole);
  const wanted = namesIn(whole);
  let finished = 0;
  for (let at = 0; ; at++) {
    const target = path();
    const cut = await run(["sahara", "unpack", container, target], at);
    if (!cut.killed) break;
    const isWhole =
      existsSync(join(target, "manifest.json")) &&
      (JSON.parse(readFileSync(join(target, "manifest.json"), "utf8")) as { complete: boolean }).complete;
    const again = await run(["sahara", "unpack", container, target]);
    if (isWhole) assert.match(again.err, /is not empty/);
    else {
      assert.is(again.code, 0, `killed behind step ${at}: ${again.err}`);
      finished++;
    }
    assert.equal(namesIn(target), wanted);
  }
  assert.ok(finished >= 8);
  // A folder with anything else in it stays as it is.
  const mixed = path();
  await run(["sahara", "unpack", container, mixed], 8);
  writeFileSync(join(mixed, "notes"), "mine");
  const before = namesIn(mixed);
  assert.match((await run(["sahara", "unpack", container, mixed])).err, /is not empty/);
  assert.ok(before.every((name) => name.startsWith(".mmcpstore-") || namesIn(mixed).includes(name)));
});

test("leftovers: only those of a dead process, and only with exactly our name", async () => {
  const image = await areaWithRecords();
  const target = path();
  await ok("extract", image, target, ...GEOMETRY);
  const dead = 2 ** 22 + 7;
  const planted = {
    [`.mmcpstore-${dead}-dmesg-pstore_blk-0`]: false,
    [`.mmcpstore-${process.ppid}-dmesg-pstore_blk-0`]: true,
    ".mmcpstore-notes": true,
    [`.mmcpstore-0${dead}-x`]: true,
    [`mmcpstore-${dead}-x`]: true,
    [`.mmcpstore-${dead}-`]: true,
  };
  for (const name of Object.keys(planted)) writeFileSync(join(target, name), "x");
  await ok("extract", image, target, ...GEOMETRY);
  const left = namesIn(target);
  for (const [name, stays] of Object.entries(planted)) assert.is(left.includes(name), stays, name);
});

test.after(() => rmSync(folder, { recursive: true, force: true }));
test.run();
