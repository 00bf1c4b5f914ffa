// `mmcpstore devlink` and `panic --snapshots` as processes: what a panic leaves, what devlink makes of it, every kind of
// bad store, full disks, two at a time. Each failure is one line, and neither a store nor an image is changed by it.
import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
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
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StoreFile } from "../host/cli/devlink-store.js";
import { Devlink } from "../host/devlink/devlink.js";
import { MmcError } from "../host/errors.js";
import { ROOT } from "./machine.js";

const MAIN = `${ROOT}dist/host/cli/main.js`;
const LOG = `${ROOT}host/cli/demo-panic.txt`;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-devlink-"));
chmodSync(folder, 0o755);
const MMC0 = "platform/mmc0";

interface Result {
  code: number | null;
  out: string;
  err: string;
}

/** `line`: the arguments, with single spaces between them. `shell`: a script in which "$@" is the command. */
function run(line: string, shell = 'exec "$@"', uid?: number): Promise<Result> {
  const args = ["-c", shell, "sh", process.execPath, MAIN, ...line.split(" ")];
  const ids = uid === undefined ? {} : { uid, gid: uid };
  const child = spawn("sh", args, { cwd: folder, env: { PATH: process.env.PATH ?? "" }, ...ids });
  let out = "";
  let err = "";
  child.stdout.on("data", (piece) => {
    out += piece;
  });
  child.stderr.on("data", (piece) => {
    err += piece;
  });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err })));
}

async function ok(line: string): Promise<string> {
  const { code, out, err } = await run(line);
  assert.is(err, "", line);
  assert.is(code, 0, line);
  return out;
}

/** One line on stderr, that exit code, and on stdout `out`. */
async function fails(
  line: string,
  code: number,
  text: string | RegExp,
  out = "",
  shell?: string,
): Promise<void> {
  const result = await run(line, shell);
  assert.match(result.err, /^mmcpstore: [^\n]+\n$/, line);
  if (typeof text === "string") assert.is(result.err, `mmcpstore: ${text}\n`, line);
  else assert.match(result.err, text, line);
  assert.not.match(result.err, /internal error/, line);
  assert.is(result.code, code, line);
  assert.is(result.out, out, line);
}

const path = (name: string) => join(folder, name);
const bytes = (name: string) => readFileSync(path(name));

test.before(async () => {
  await ok("format d.img --size 1M");
  await ok("format v.img --size 1M");
  const report = await ok(`panic v.img --log ${LOG} --in-flight write --snapshots v.snap --time 1`);
  assert.match(report, /\nsnapshot 0 of sdhci, pstore, cid, csd, ext_csd in v\.snap\n$/);
});
test.after(() => rmSync(folder, { recursive: true, force: true }));

test("panic --snapshots, then show, dump, read, del: the store has what the card had", async () => {
  const before = bytes("d.img");
  await ok(`panic d.img --log ${LOG} --in-flight program --snapshots p.snap --time 1`);
  assert.is(statSync(path("p.snap")).mode & 0o777, 0o600);
  const size = (name: string, bytes: number, ids = "0") =>
    `${MMC0}/${name}: size ${bytes} snapshot [${ids}] max 8\n`;
  const all =
    size("cid", 16) + size("csd", 16) + size("ext_csd", 512) + size("sdhci", 256) + size("pstore", 2 ** 20);
  assert.is(await ok("devlink --store p.snap region show"), all);
  assert.is(await ok("devlink --store p.snap region"), all);
  const live = async (name: string) => ok(`devlink --image d.img --extended region dump ${MMC0}/${name}`);
  for (const name of ["cid", "csd", "ext_csd"]) {
    assert.is(
      await ok(`devlink --store p.snap region dump ${MMC0}/${name} snapshot 0`),
      await live(name),
      name,
    );
  }
  const { dump } = JSON.parse(
    await ok(`devlink --store p.snap --json-chunks region dump ${MMC0}/pstore snapshot 0`),
  ) as {
    dump: { data: number[] }[];
  };
  assert.ok(before.equals(Uint8Array.from(dump.flatMap(({ data }) => data))), "the area before the panic");
  const json = JSON.parse(await ok(`panic d.img --log ${LOG} --snapshots p.snap --time 2 --json`));
  assert.equal(json.snapshot, {
    store: "p.snap",
    id: 1,
    regions: ["sdhci", "pstore", "cid", "csd", "ext_csd"],
  });
  assert.is(await ok(`devlink --store p.snap region show ${MMC0}/sdhci`), size("sdhci", 256, "0 1"));
  assert.is(await ok(`devlink --store p.snap region del ${MMC0}/sdhci snapshot 0`), "");
  assert.is(
    await ok(`devlink --store p.snap -j region show ${MMC0}/sdhci`),
    `{"regions":{"${MMC0}/sdhci":{"size":256,"snapshot":[1],"max":8}}}\n`,
  );
  // An id of another region is not free.
  await fails(
    `devlink --store p.snap --image d.img region new ${MMC0}/sdhci snapshot 0`,
    1,
    "devlink: kernel answers: File exists",
  );
});

test("harvest's panic leaves snapshots too, and an SD card's regions are its own", async () => {
  await ok("format s.img --size 1M");
  await ok(`panic s.img --log ${LOG} --card sd --snapshots s.snap --time 1`);
  const names = (await ok("devlink --store s.snap region")).split("\n").map((line) => line.split(":")[0]);
  assert.equal(names, [
    ...["cid", "csd", "scr", "ssr", "sdhci", "pstore"].map((name) => `${MMC0}/${name}`),
    "",
  ]);
  // A store of an SD card takes an eMMC's regions besides, if none has another size.
  assert.match(
    await ok("devlink --store s.snap --image d.img region"),
    /ext_csd: size 512 snapshot \[\] max 8\n(.*\n)*.*scr: size 8 snapshot \[0\]/,
  );
  const region = `${ROOT}tests/data/ramoops/plain-1MiB.bin.gz`;
  assert.match(await ok(`harvest ${region} --into s.img --card sd --snapshots s.snap`), /\nsnapshot 1 of /);
});

test("new, live reads and files as regions: the image is never written", async () => {
  const image = bytes("v.img");
  writeFileSync(path("ram.bin"), Buffer.alloc(300, 7));
  const on = "devlink --image v.img --region ram=ram.bin";
  assert.is(await ok(`${on} --store n.snap region new ${MMC0}/ram`), `${MMC0}/ram: snapshot 0\n`);
  assert.is(await ok(`${on} --store n.snap region new ${MMC0}/cid snapshot 25`), "");
  assert.is(
    await ok(`${on} --store n.snap -j region new ${MMC0}/sdhci`),
    `{"regions":{"${MMC0}/sdhci":{"snapshot":[1]}}}\n`,
  );
  assert.is(await ok(`${on} --store n.snap -j region del ${MMC0}/sdhci snapshot 1`), "\n");
  writeFileSync(path("ram.bin"), Buffer.alloc(300, 8));
  assert.is(
    await ok(`${on} region read ${MMC0}/ram address 290 length 100`),
    `0000000000000122 ${"08 ".repeat(10)}\n`,
  );
  assert.is(
    await ok(`${on} --store n.snap region read ${MMC0}/ram snapshot 0 address 290 length 5`),
    `0000000000000122 ${"07 ".repeat(5)}\n`,
  );
  assert.is((await ok(`${on} --extended region dump ${MMC0}/pstore`)).split("\n").length, 65_537);
  assert.ok(bytes("v.img").equals(image));
});

test("devlink's refusals in one line; stdout as devlink has it; wrong usage is 2", async () => {
  const store = "devlink --store v.snap";
  const kernel = (text: string) => `devlink: ${text}`;
  const noDirect =
    "Error: Requested region does not support direct read. kernel answers: Operation not supported";
  await fails(
    `${store} region dump ${MMC0}/cid snapshot 9`,
    1,
    kernel("Error: Requested snapshot does not exist. kernel answers: Invalid argument"),
    "\n",
  );
  await fails(`${store} -j region dump ${MMC0}/cid snapshot 9`, 1, /does not exist/, '{"dump":{}}\n');
  await fails(
    `${store} -jp region dump ${MMC0}/cid snapshot 9`,
    1,
    /does not exist/,
    '{\n    "dump": {}\n}\n',
  );
  await fails(`${store} region read ${MMC0}/cid address 0 length 1`, 1, kernel(noDirect), "\n");
  await fails(
    `${store} region new ${MMC0}/cid`,
    1,
    /does not support taking an immediate snapshot\. kernel answers: Operation not supported/,
  );
  await fails(`${store} region show ${MMC0}/none`, 1, kernel("kernel answers: Invalid argument"));
  await fails(`${store} region show pci/x/cid`, 1, kernel("kernel answers: No such device"));
  await fails(`${store} region del ${MMC0}/cid snapshot 5`, 1, kernel("kernel answers: Invalid argument"));
  const hint = " (see mmcpstore devlink --help)";
  for (const [line, text] of [
    [`${store} region dump ${MMC0}/cid`, "devlink: Region snapshot id expected."],
    [`${store} region bogus`, 'devlink: Command "bogus" not found'],
    [
      `${store} region show cid`,
      'devlink: Wrong identification string format. Expected "bus_name/dev_name/region" identification.',
    ],
    [
      `${store} region read ${MMC0}/cid snapshot 0 address 0x10 length 1`,
      'devlink: "0x10" is not a number or not within range',
    ],
    ["devlink region show", "devlink: say which regions: --store FILE, --image IMAGE or --region NAME=FILE"],
    [
      `devlink --image v.img region new ${MMC0}/cid`,
      "devlink: region new: say where the snapshot is kept, --store FILE",
    ],
    [`${store} --card sd region`, "--card: is about an --image, and there is none"],
    ["devlink --region ram region", "--region ram: write NAME=FILE"],
    ["devlink --region =x region", "--region =x: write NAME=FILE"],
  ] as const) {
    await fails(line, 2, `${text}${hint}`);
  }
  await fails("devlink", 2, /missing required argument/);
  assert.match(
    await ok("devlink region help"),
    /^Usage: devlink region show \[ DEV\/REGION \]\n( {7}devlink region .*\n){4}$/,
  );
});

test("stores and images that are none: one line, nothing is made", async () => {
  const good = bytes("v.snap");
  writeFileSync(path("empty.snap"), "");
  writeFileSync(path("text.snap"), "x".repeat(500));
  writeFileSync(path("cut.snap"), good.subarray(0, good.length - 1));
  writeFileSync(path("long.snap"), Buffer.concat([good, Buffer.alloc(9)]));
  const flipped = Buffer.from(good);
  flipped[30] = (flipped[30] as number) ^ 1;
  writeFileSync(path("bit.snap"), flipped);
  writeFileSync(path("giant.snap"), good);
  truncateSync(path("giant.snap"), 2 ** 40);
  mkdirSync(path("dir.snap"));
  writeFileSync(path("zip.img"), Buffer.from([0x1f, 0x8b, ...Buffer.alloc(600)]));
  const before = bytes("v.img");
  const names = readdirSync(folder).sort();
  for (const [name, text] of [
    ["empty.snap", /empty\.snap: is empty/],
    ["text.snap", /text\.snap: is no store of snapshots/],
    ["cut.snap", /cut\.snap: has \d+ bytes, its snapshots make it \d+/],
    ["long.snap", /long\.snap: has \d+ bytes/],
    ["bit.snap", /bit\.snap: its head has a wrong checksum/],
    ["giant.snap", /giant\.snap: is larger than any store: 1099511627776 bytes/],
    ["dir.snap", /dir\.snap: is a directory/],
    ["/dev/null", /\/dev\/null: is neither a file nor a block device/],
    ["v.img/x", /v\.img\/x: a part of the path is not a directory/],
  ] as const) {
    const lines = [`devlink --store ${name} region show`, `panic v.img --log ${LOG} --snapshots ${name}`];
    if (name === "cut.snap") {
      lines.push(`devlink --store ${name} --image v.img region new ${MMC0}/cid`);
      lines.push(`devlink --store ${name} region del ${MMC0}/cid snapshot 0`);
    }
    for (const line of lines) {
      await fails(line, 1, text);
    }
  }
  await fails("devlink --store none.snap region show", 1, "none.snap: no such file");
  await fails(
    `devlink --store none/x.snap --image v.img region new ${MMC0}/cid`,
    1,
    /none\/x\.snap: no such file/,
  );
  await fails("devlink --image none.img region", 1, "none.img: no such file");
  await fails("devlink --image zip.img region", 1, "zip.img: is gzip-compressed, gunzip it first");
  await fails("devlink --image http://localhost/x region", 1, /localhost: is not a file/);
  await fails("devlink --region a/b=v.img region", 1, "devlink: a/b is no name of a region");
  await fails(
    "devlink --image v.img --region cid=v.img region",
    1,
    "platform/mmc0/cid: is registered already",
  );
  await fails(
    "devlink --store v.snap --region cid=v.img region",
    1,
    "v.snap: platform/mmc0/cid: has 1048576 bytes, its snapshots 16",
  );
  // The region stays live when a new one is refused, so nothing is left of a store that was to be made.
  await fails(
    `devlink --store made.snap --image v.img region new ${MMC0}/none`,
    1,
    /The requested region does not exist/,
  );
  assert.ok(bytes("v.img").equals(before));
  assert.equal(readdirSync(folder).sort(), names);
});

test("a full disk, a folder without permission: the store is the old one, and nothing lies beside it", async () => {
  const store = bytes("v.snap");
  const names = readdirSync(folder).sort();
  const full = 'ulimit -f 8; exec "$@"';
  await fails(
    `devlink --store v.snap --image v.img region new ${MMC0}/cid`,
    1,
    /v\.snap: the file would become too large/,
    "",
    full,
  );
  await fails(
    `devlink --store v.snap region del ${MMC0}/cid snapshot 0`,
    1,
    /v\.snap: the file would become too large/,
    "",
    full,
  );
  assert.ok(bytes("v.snap").equals(store));
  assert.equal(readdirSync(folder).sort(), names);
  if (process.getuid?.() !== 0) return;
  chmodSync(path("v.snap"), 0o644);
  const denied = await run(`devlink --store v.snap region del ${MMC0}/cid snapshot 0`, undefined, 65_534);
  assert.is(denied.err, "mmcpstore: v.snap: permission denied\n");
  assert.ok(bytes("v.snap").equals(store));
  chmodSync(path("v.snap"), 0o600);
  const unread = await run("devlink --store v.snap region", undefined, 65_534);
  assert.is(unread.err, "mmcpstore: v.snap: permission denied\n");
});

test("a panic whose snapshots cannot be saved: the record stands, and that is said", async () => {
  await ok("format f.img --size 64K --kmsg-size 16K");
  const store = bytes("v.snap");
  writeFileSync(path("f.snap"), store);
  // The store of a 1 MiB area does not fit this card: refused before anything is written.
  await fails(
    `panic f.img --log ${LOG} --kmsg-size 16K --snapshots f.snap`,
    1,
    "f.snap: platform/mmc0/pstore: has 65536 bytes, its snapshots 1048576",
  );
  assert.not.match(await ok("ls f.img --kmsg-size 16K"), /dmesg/);
  rmSync(path("f.snap"));
  const shell = 'ulimit -f 130; exec "$@"';
  const first = await run(`panic f.img --log ${LOG} --kmsg-size 16K --snapshots f.snap`, shell);
  assert.is(first.code, 0, first.err);
  const before = bytes("f.snap");
  const second = await run(`panic f.img --log ${LOG} --kmsg-size 16K --snapshots f.snap`, shell);
  assert.is(second.code, 1);
  assert.is(second.err, "mmcpstore: f.snap: the file would become too large; the record stands\n");
  assert.match(second.out, /dmesg-pstore_blk-1: Panic 2/);
  assert.ok(bytes("f.snap").equals(before));
  assert.match(await ok("ls f.img"), /dmesg-pstore_blk-1/);
});

test("a full store is told before the panic; room is made by del", async () => {
  await ok("format g.img --size 64K --kmsg-size 16K");
  const line = `panic g.img --log ${LOG} --kmsg-size 16K --policy ring --snapshots g.snap`;
  for (let i = 0; i < 8; i++) await ok(line);
  const image = bytes("g.img");
  await fails(
    line,
    1,
    /^mmcpstore: g\.snap: platform\/mmc0\/cid: The region has reached the maximum number of stored snapshots\n/,
  );
  assert.ok(bytes("g.img").equals(image));
  for (const name of ["cid", "csd", "ext_csd", "sdhci", "pstore"])
    await ok(`devlink --store g.snap region del ${MMC0}/${name} snapshot 4`);
  assert.match(await ok(line), /\nsnapshot 4 of /);
  assert.match(await ok("devlink --store g.snap region"), /cid: size 16 snapshot \[0 1 2 3 5 6 7 4\] max 8/);
});

test("what somebody else has saved meanwhile is not written over; a link stays a link", () => {
  const name = path("both.snap");
  const make = (store: StoreFile) => {
    const devlink = store.makeDevlink();
    devlink.addRegion({ name: "r", source: new Uint8Array(4) });
    store.loadInto(devlink);
    devlink.newSnapshot("r");
    return devlink;
  };
  const busy = (work: () => void, code: string) =>
    assert.throws(work, (error: unknown) => error instanceof MmcError && error.code === code);
  const [first, second] = [new StoreFile(name, true), new StoreFile(name, true)];
  first.save(make(first));
  busy(() => second.save(make(second)), "EBUSY");
  const [third, fourth] = [new StoreFile(name, false), new StoreFile(name, false)];
  chmodSync(name, 0o640);
  third.save(make(third));
  const saved = readFileSync(name);
  busy(() => fourth.save(make(fourth)), "EBUSY");
  assert.ok(readFileSync(name).equals(saved));
  assert.equal(
    readdirSync(folder).filter((one) => one.startsWith(".")),
    [],
  );
  symlinkSync("both.snap", path("link.snap"));
  const link = new StoreFile(path("link.snap"), false);
  link.save(make(link));
  assert.ok(lstatSync(path("link.snap")).isSymbolicLink());
  const last = new StoreFile(name, false);
  const devlink = last.makeDevlink();
  last.loadInto(devlink);
  assert.equal(devlink.region("r").snapshots, [0, 1, 2]);
  busy(() => new StoreFile(path("gone.snap"), false), "ENOENT");
  assert.not.ok(existsSync(path("gone.snap")));
  assert.instance(new StoreFile(path("gone.snap"), true).makeDevlink(), Devlink);
});

test("the store's own device and its damage are told", async () => {
  const devlink = new Devlink("pci/0000:00:05.0");
  devlink.addRegion({ name: "cr-space", source: new Uint8Array(32).fill(0xda) });
  devlink.newSnapshot("cr-space");
  devlink.newSnapshot("cr-space");
  new StoreFile(path("pci.snap"), true).save(devlink);
  const damaged = bytes("pci.snap");
  damaged[damaged.length - 1] = 0;
  writeFileSync(path("pci.snap"), damaged);
  const name = "pci/0000:00:05.0/cr-space";
  assert.is(await ok("devlink --store pci.snap region"), `${name}: size 32 snapshot [0 1] max 8\n`);
  assert.is(
    await ok(`devlink --store pci.snap region read ${name} snapshot 0 address 0 length 2`),
    "0000000000000000 da da \n",
  );
  const text = "devlink: Error: Snapshot 1 is damaged: its checksum is wrong. kernel answers: Bad message";
  await fails(`devlink --store pci.snap region dump ${name} snapshot 1`, 1, text, "\n");
  assert.is(await ok(`devlink --store pci.snap region del ${name} snapshot 1`), "");
  // With an image beside it the machine has the store's name.
  assert.match(await ok("devlink --store pci.snap --image v.img region"), /^pci\/0000:00:05\.0\/cid: /);
});

test.run();
