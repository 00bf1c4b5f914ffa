// What can be had of damaged zones, logs in several records, removed and wiped ones: through decode.ts and join.ts on
// zones built by hand, through the command line, and with the core as the one that has to leave them alone.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync, gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device, loadCore } from "../host/node.js";
import { decodeArea, type PstoreRecord } from "../host/pstore/decode.js";
import { formatLog, joinLogs } from "../host/pstore/join.js";
import { ROOT } from "./machine.js";
import { buildArea, buildChain, buildZone, logText } from "./zones.js";

const ZONE_BYTES = 8192;
const SIZES = { kmsgSize: ZONE_BYTES, pmsgSize: 0, consoleSize: 0, ftraceSize: 0 };
const MAIN = `${ROOT}dist/host/cli/main.js`;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-salvage-"));
test.after(() => rmSync(folder, { recursive: true }));

let files = 0;
function fresh(bytes?: Uint8Array): string {
  const path = join(folder, String(files++));
  if (bytes !== undefined) writeFileSync(path, bytes);
  return path;
}

function run(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    env: { ...process.env, NO_COLOR: "1" },
    encoding: "latin1",
    maxBuffer: 2 ** 26,
  });
  return { code: status, out: stdout, err: stderr };
}

function decodeOne(zone: Uint8Array): { record: PstoreRecord | undefined; state: string | undefined } {
  const { records, zones } = decodeArea(buildArea([zone, null], ZONE_BYTES), SIZES);
  return { record: records[0], state: zones[0]?.state };
}

function ascii(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}

function textOf(record: PstoreRecord): string {
  return ascii(record.bytes.subarray(record.textOffset));
}

test("a sealed record whose first 16 bytes are damaged is salvaged whole, any bit of them, both ABIs", () => {
  const payload = logText(5000);
  for (const abi of ["lp64", "i386"] as const) {
    for (const compressed of [false, true]) {
      const stored = compressed ? new Uint8Array(deflateRawSync(payload)) : payload;
      const whole = buildZone(ZONE_BYTES, { abi, payload: stored, compressed, sequence: 3n, counter: 7 });
      for (let bit = 0; bit < 128; bit++) {
        const zone = whole.slice();
        zone[bit >> 3] = (zone[bit >> 3] as number) ^ (1 << (bit & 7));
        const { record, state } = decodeOne(zone);
        const name = `${abi} ${compressed} bit ${bit}`;
        assert.is(state, "salvaged", name);
        assert.equal([record?.state, record?.sealed, record?.sequence], ["salvaged", true, 3n], name);
        assert.equal([record?.abi, record?.count, record?.reason], [abi, 7, "Panic"], name);
        assert.ok(record && textOf(record) === ascii(payload), name);
      }
    }
  }
});

test("Linux's own record with a damaged signature or magic is salvaged, and nothing proves it", () => {
  for (const abi of ["lp64", "i386"] as const) {
    for (const at of [0, 3, 12, 15]) {
      const zone = buildZone(ZONE_BYTES, { abi, payload: logText(3000) });
      zone[at] = (zone[at] as number) ^ 0x10;
      const { record } = decodeOne(zone);
      assert.equal([record?.state, record?.sealed, record?.abi], ["salvaged", false, abi]);
      assert.ok(record && textOf(record) === ascii(logText(3000)));
    }
  }
  // Both damaged, or a header that no kernel writes behind: nothing says that this was a record.
  const both = buildZone(ZONE_BYTES, { payload: logText(3000) });
  both[0] = both[12] = 0;
  assert.is(decodeOne(both).state, "empty");
  for (const at of [17, 31, 38, 47, 50]) {
    const zone = buildZone(ZONE_BYTES, { payload: logText(3000) });
    zone[0] = 0;
    zone[at] = 0xff;
    assert.is(
      decodeArea(buildArea([zone, null], ZONE_BYTES), { ...SIZES, abi: "lp64" }).zones[0]?.state,
      "empty",
      `${at}`,
    );
  }
});

test("a first sector that is lost: the text behind it, if it is text", () => {
  const payload = logText(5000);
  const zone = buildZone(ZONE_BYTES, { payload, sequence: 3n });
  for (const fill of [0, 0xff, 0x5a]) {
    const lost = zone.slice().fill(fill, 0, 512);
    const { record } = decodeOne(lost);
    assert.equal([record?.state, record?.sealed, record?.reason], ["salvaged", false, "Unknown"]);
    assert.is(record && ascii(record.bytes), ascii(payload.subarray(512 - 52)));
    lost[1000] = 0; // a sector that was never written, or of another record
    assert.is(decodeOne(lost).state, "unfinished");
  }
});

test("a compressed record that breaks off: what came out before, marked", () => {
  const payload = logText(12000);
  const deflated = new Uint8Array(deflateRawSync(payload));
  let salvaged = 0;
  for (let length = deflated.length - 1; length > 0; length -= 37) {
    const { record } = decodeOne(
      buildZone(ZONE_BYTES, { payload: deflated.slice(0, length), compressed: true }),
    );
    assert.ok(record);
    if (record.state === "undecodable") continue;
    assert.is(record.state, "salvaged");
    assert.is(record.name, "dmesg-pstore_blk-0");
    assert.ok(ascii(payload).startsWith(ascii(record.bytes)));
    assert.ok(record.size >= 64);
    salvaged++;
  }
  assert.ok(salvaged > 40, `${salvaged}`);
  // What is no deflate stream stays undecodable: noise gives so much text in about one record of a hundred.
  let undecodable = 0;
  let word = 1;
  for (let count = 0; count < 2000; count++) {
    const payload = new Uint8Array(600);
    for (let at = 0; at < payload.length; at++) {
      word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
      payload[at] = word >>> 24;
    }
    const { record } = decodeOne(buildZone(ZONE_BYTES, { payload, compressed: true }));
    if (record?.state === "undecodable") undecodable++;
  }
  assert.ok(undecodable > 1960, `${undecodable} of 2000`);
});

test("what was removed is not salvaged, erased is told apart from it, and the seal brings it back on demand", () => {
  const zone = buildZone(ZONE_BYTES, { payload: logText(900), sequence: 3n });
  new DataView(zone.buffer).setInt32(4, 0, true);
  const decoded = decodeArea(buildArea([zone, null], ZONE_BYTES), SIZES);
  assert.equal([decoded.records.length, decoded.erased.length, decoded.zones[0]?.state], [0, 1, "erased"]);
  const [erased] = decoded.erased;
  assert.ok(erased && erased.state === "erased" && textOf(erased) === ascii(logText(900)));
  for (const at of [0, 12]) {
    const damaged = zone.slice();
    damaged[at] = 0;
    assert.is(decodeOne(damaged).state, "erased");
  }
  zone[600] = 0;
  assert.is(decodeArea(buildArea([zone, null], ZONE_BYTES), SIZES).erased.length, 0);
});

const LOG = logText(30_000);
const CHAIN = buildChain(LOG, ZONE_BYTES, 7000, 11n);

test("a log in several records is one again, wherever its parts are", () => {
  assert.is(CHAIN.length, 5);
  for (const order of [
    [0, 1, 2, 3, 4],
    [4, 3, 2, 1, 0],
    [3, 0, 4, 2, 1],
  ]) {
    const zones = order.map((index) => CHAIN[index] as Uint8Array);
    const other = buildZone(ZONE_BYTES, { payload: logText(100, 9), sequence: 10n });
    const logs = joinLogs(decodeArea(buildArea([...zones, other], ZONE_BYTES), SIZES).records);
    assert.is(logs.length, 2);
    const log = logs.find(({ parts }) => parts.length === 5);
    assert.ok(log && ascii(log.text) === ascii(LOG) && log.missing.length === 0 && log.hasNewest);
    assert.is(ascii(formatLog(log)), ascii(LOG));
  }
});

test("compressed and plain parts, and a salvaged one, join", () => {
  const zones: Uint8Array[] = CHAIN.map((zone) => zone.slice());
  const text = LOG.slice(30_000 - 14_000, 30_000 - 7000);
  zones[1] = buildZone(ZONE_BYTES, {
    payload: new Uint8Array(deflateRawSync(text)),
    compressed: true,
    sequence: 12n,
    part: 2,
    olderBytes: 16_000,
    first: 11n,
  });
  zones[2]?.fill(0, 0, 4);
  const [log] = joinLogs(decodeArea(buildArea(zones, ZONE_BYTES), SIZES).records);
  assert.is(log?.parts.length, 5);
  assert.is(log && ascii(log.text), ascii(LOG));
});

test("each part's own line is no text of the log, and a length that no line has takes nothing away", () => {
  const text = LOG.subarray(0, 6000);
  const part = (number: number, start: number, end: number, line: string, lineBytes = line.length) => {
    const payload = new Uint8Array(Buffer.concat([Buffer.from(line), text.subarray(start, end)]));
    const sequence = 20n + BigInt(number);
    return buildZone(ZONE_BYTES, {
      payload,
      sequence,
      part: number,
      olderBytes: start,
      first: 21n,
      lineBytes,
    });
  };
  const join = (...zones: (Uint8Array | null)[]) =>
    joinLogs(decodeArea(buildArea(zones, ZONE_BYTES), SIZES).records);
  const newest = part(1, 4000, 6000, "Oops#7 Part1\n");
  const middle = part(2, 1000, 4000, "Oops#7 Part2\n");
  const oldest = part(3, 0, 1000, "Oops#7 Part3\n");
  const [whole] = join(newest, middle, oldest);
  assert.is(whole && ascii(whole.text), `Oops#7 Part1\n${ascii(text)}`);
  const [gap] = join(newest, null, oldest);
  assert.equal(gap?.missing, [{ offset: 13 + 1000, sizeBytes: 3000 }]);
  const [beheaded] = join(null, middle, oldest);
  assert.is(beheaded && ascii(beheaded.text), `Oops#7 Part2\n${ascii(text.subarray(0, 4000))}`);
  const [tail] = join(newest, middle);
  assert.ok(
    tail &&
      ascii(formatLog(tail)).startsWith("Oops#7 Part1\n--- 1000 bytes of the log are missing here ---\n"),
  );
  // No such line, or another length: all of it is text.
  const [plain] = join(part(1, 3000, 6000, "", 13), part(2, 0, 3000, "", 4_000_000_000));
  assert.is(plain && ascii(plain.text), ascii(text));
});

test("missing parts: how much and where, and never a seam that hides it", () => {
  for (let gone = 0; gone < 5; gone++) {
    const zones = CHAIN.map((zone, index) => (index === gone ? null : zone));
    const [log, ...more] = joinLogs(decodeArea(buildArea(zones, ZONE_BYTES), SIZES).records);
    assert.ok(log && more.length === 0);
    const bytes = gone === 4 ? 2000 : 7000;
    const offset = gone === 4 ? 0 : 30_000 - 7000 * (gone + 1);
    if (gone === 0) assert.equal([log.hasNewest, log.missing], [false, []]);
    else assert.equal([log.hasNewest, log.missing], [true, [{ offset, sizeBytes: bytes }]]);
    const shown = ascii(formatLog(log));
    const said = gone === 0 ? "the newest part of the log is" : `${bytes} bytes of the log are`;
    const remark = `--- ${said} missing here ---\n`;
    assert.ok(shown.includes(remark));
    assert.is(shown.length - ascii(log.text).length - remark.length <= 1, true);
  }
});

test("a chain that contradicts itself is not joined", () => {
  const part = (spec: {
    part: number;
    olderBytes: number;
    first: bigint;
    sequence: bigint;
    counter?: number;
  }) => buildZone(ZONE_BYTES, { payload: logText(1000, spec.part), ...spec });
  const newest = part({ part: 1, olderBytes: 1000, first: 5n, sequence: 5n });
  const cases: [string, Uint8Array][] = [
    ["part 1 of another", part({ part: 1, olderBytes: 0, first: 5n, sequence: 6n })],
    ["first later than itself", part({ part: 2, olderBytes: 0, first: 7n, sequence: 6n })],
    ["first its own", part({ part: 2, olderBytes: 0, first: 6n, sequence: 6n })],
    ["more text than there was", part({ part: 2, olderBytes: 1, first: 5n, sequence: 6n })],
    ["another count", part({ part: 2, olderBytes: 0, first: 5n, sequence: 6n, counter: 2 })],
    ["no part", buildZone(ZONE_BYTES, { payload: logText(1000), sequence: 6n, first: 5n })],
  ];
  for (const [name, zone] of cases) {
    const logs = joinLogs(decodeArea(buildArea([newest, zone], ZONE_BYTES), SIZES).records);
    assert.equal(
      logs.map(({ parts }) => parts.length),
      [1, 1],
      name,
    );
  }
  const good = part({ part: 2, olderBytes: 0, first: 5n, sequence: 6n });
  assert.is(joinLogs(decodeArea(buildArea([newest, good], ZONE_BYTES), SIZES).records).length, 1);
});

test("a record that is there twice is known by its sequence", () => {
  const zone = buildZone(ZONE_BYTES, { payload: logText(900), sequence: 3n });
  const other = buildZone(ZONE_BYTES, { payload: logText(900, 2), sequence: 3n });
  const { records } = decodeArea(buildArea([zone, other, zone], ZONE_BYTES), SIZES);
  assert.equal(
    records.map(({ duplicateOf }) => duplicateOf),
    [null, null, "dmesg-pstore_blk-0"],
  );
  assert.is(joinLogs(records).length, 2);
  assert.match(
    run("ls", fresh(buildArea([zone, zone], ZONE_BYTES))).out,
    / NOTE\n.*ok\n.*duplicate of dmesg-pstore_blk-0\n/,
  );
});

test("ls, cat and extract say what is salvaged", () => {
  const zone = buildZone(ZONE_BYTES, { payload: logText(900), sequence: 3n });
  zone[0] = 0;
  const image = fresh(buildArea([zone, null], ZONE_BYTES));
  assert.match(run("ls", image, "--kmsg-size", "8K").out, /dmesg-pstore_blk-0 .* salvaged\n/);
  const cat = run("cat", image, "dmesg-pstore_blk-0", "--kmsg-size", "8K");
  assert.is(cat.code, 0);
  assert.is(cat.out, `Panic: Total 1 times\n${ascii(logText(900))}`);
  assert.match(cat.err, /^mmcpstore: dmesg-pstore_blk-0: salvaged: .*\n$/);
  const target = fresh();
  assert.is(run("extract", image, target, "--kmsg-size", "8K").code, 0);
  const [entry] = JSON.parse(readFileSync(join(target, "manifest.json"), "utf8")) as { state: string }[];
  assert.is(entry?.state, "salvaged");
});

test("extract --join: the whole log in one file, and what is missing said", () => {
  const image = fresh(buildArea([...CHAIN], ZONE_BYTES));
  const target = fresh();
  const done = run("extract", image, target, "--join");
  assert.equal([done.code, done.err], [0, ""]);
  assert.equal(readdirSync(target).sort(), ["dmesg-pstore_blk-0.joined", "manifest.json"]);
  assert.ok(readFileSync(join(target, "dmesg-pstore_blk-0.joined")).equals(LOG));
  const [, , third] = CHAIN;
  const gap = fresh(
    buildArea(
      CHAIN.map((zone) => (zone === third ? null : zone)),
      ZONE_BYTES,
    ),
  );
  const partly = run("extract", gap, fresh(), "--join");
  assert.is(partly.code, 0);
  assert.match(partly.out, /joined +\d+ +incomplete/);
  assert.match(partly.err, /^mmcpstore: dmesg-pstore_blk-0.joined: 7000 bytes of the log are missing\n$/);
  assert.match(run("ls", image).out, /part 5 of log 11\n/);
});

test("rm changes what unlink changes; of a salvaged record the seal too; --wipe leaves the headers only", () => {
  const payload = logText(900);
  for (const isDamaged of [false, true]) {
    const zone = buildZone(ZONE_BYTES, { payload, sequence: 3n });
    if (isDamaged) zone[0] = 0x45;
    const before = buildArea([zone, buildZone(ZONE_BYTES, { payload, sequence: 4n })], ZONE_BYTES);
    for (const wipe of [false, true]) {
      const image = fresh(before);
      const args = ["rm", image, "dmesg-pstore_blk-0", ...(wipe ? ["--wipe"] : [])];
      assert.equal([run(...args).code, run("ls", image, "--json").code], [0, 0]);
      const after = readFileSync(image);
      const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
      const isSeal = (at: number) => at >= ZONE_BYTES - 64 && at < ZONE_BYTES;
      const isPayload = (at: number) => at >= 52 && at < ZONE_BYTES;
      const mayChange = (at: number) =>
        (at >= 4 && at < 8) || (isDamaged && isSeal(at)) || (wipe && isPayload(at));
      assert.ok(changed.length > 0 && changed.every(mayChange), `${isDamaged} ${wipe}`);
      if (wipe) assert.ok(after.subarray(52, ZONE_BYTES).every((byte) => byte === 0));
      assert.equal(
        decodeArea(after, SIZES).records.map(({ id }) => id),
        [1],
      );
    }
  }
  const image = fresh(buildArea([buildZone(ZONE_BYTES, { payload, sequence: 3n }), null], ZONE_BYTES));
  run("rm", image, "dmesg-pstore_blk-0");
  assert.match(run("ls", image, "--all").out, /erased\n/);
  assert.is(run("cat", image, "dmesg-pstore_blk-0", "--all").out, `Panic: Total 1 times\n${ascii(payload)}`);
  assert.is(run("cat", image, "dmesg-pstore_blk-0").code, 1);
  assert.is(run("rm", image, "--all", "--wipe").out, "wiped dmesg-pstore_blk-0\n");
  assert.is(run("ls", image, "--all").out, "no records\n");
});

/** The writes of `rm --wipe` in their order, each cut into sectors that arrive in any number. */
test("a wipe that is cut at any sector leaves no record that reads as ok and is not whole", () => {
  const image = fresh(
    buildArea([buildZone(ZONE_BYTES, { payload: logText(5000), sequence: 3n }), null], ZONE_BYTES),
  );
  const trace = fresh();
  // The order is taken from the program itself: every write and sync of its raw image.
  const hook = fresh(
    new TextEncoder().encode(`
const fs = require("node:fs"); const module_ = require("node:module");
const { writeSync, fdatasyncSync, fsyncSync } = fs; const log = [];
fs.writeSync = (fd, data, ...rest) => {
  if (typeof rest[2] === "number") log.push(["write", rest[2], rest[1] ?? data.length]);
  return writeSync(fd, data, ...rest);
};
fs.fdatasyncSync = (fd) => { log.push(["sync"]); return fdatasyncSync(fd); };
fs.fsyncSync = (fd) => { log.push(["sync"]); return fsyncSync(fd); };
module_.syncBuiltinESMExports();
process.on("exit", () => fs.writeFileSync(${JSON.stringify(trace)}, JSON.stringify(log)));`),
  );
  const before = new Uint8Array(readFileSync(image));
  execFileSync(process.execPath, ["--require", hook, MAIN, "rm", image, "dmesg-pstore_blk-0", "--wipe"]);
  const steps = JSON.parse(readFileSync(trace, "utf8")) as ["write", number, number][];
  assert.equal(
    steps.map(([what]) => what as string),
    ["write", "sync", "write", "sync", "write", "sync"],
  );
  let cuts = 0;
  const medium = before.slice();
  for (const [what, offset, length] of steps) {
    if (what !== "write") continue;
    // Each sector of an unfinished write alone, all but one, and all up to one.
    const sectors: [number, number][] = [];
    for (let at = offset; at < offset + length; ) {
      const end = Math.min(offset + length, (Math.floor(at / 512) + 1) * 512);
      sectors.push([at, end]);
      at = end;
    }
    for (let which = 0; which < sectors.length; which++) {
      for (const there of [
        (n: number) => n === which,
        (n: number) => n !== which,
        (n: number) => n <= which,
      ]) {
        const cut = medium.slice();
        for (const [number, [from, until]] of sectors.entries()) if (there(number)) cut.fill(0, from, until);
        for (const record of decodeArea(cut, SIZES).records) {
          assert.is(record.state, "ok");
          assert.is(textOf(record), ascii(logText(5000)));
        }
        cuts++;
      }
    }
    medium.fill(0, offset, offset + length);
  }
  assert.ok(cuts > 40);
  assert.equal(medium, new Uint8Array(readFileSync(image)), "these were all of its writes");
});

test("a panic leaves alone what can be salvaged while another zone is free", () => {
  const whole = buildZone(ZONE_BYTES, { payload: logText(5000), sequence: 3n });
  const linux = buildZone(ZONE_BYTES, { payload: logText(5000) });
  const damages: [string, Uint8Array, (zone: Uint8Array) => void][] = [
    ["sealed, signature", whole, (zone) => zone.fill(0, 0, 4)],
    ["sealed, magic", whole, (zone) => zone.fill(0, 12, 16)],
    ["sealed, datalen", whole, (zone) => zone.fill(0xff, 4, 8)],
    ["sealed, first sector", whole, (zone) => zone.fill(0, 0, 512)],
    ["Linux's, signature", linux, (zone) => zone.fill(0, 0, 4)],
    ["Linux's, magic", linux, (zone) => zone.fill(0, 12, 16)],
  ];
  for (const [name, source, change] of damages) {
    const damaged = source.slice();
    change(damaged);
    const free = buildZone(ZONE_BYTES, { payload: logText(10), sequence: 9n });
    new DataView(free.buffer).setInt32(4, 0, true);
    const full = buildZone(ZONE_BYTES, { payload: logText(10), sequence: 8n });
    for (const [zones, chosen] of [
      [[damaged, damaged, free], 2],
      [[damaged, null, damaged], 1],
      [[full, damaged, full], 1],
    ] as const) {
      const medium = new Uint8Array(2 ** 20);
      medium.set(buildArea([...zones], ZONE_BYTES), 65536);
      const area = { offset: 65536, kmsgSize: ZONE_BYTES, kmsgCount: 3, abi: "lp64" } as const;
      const device = Device.open(loadCore("release"), {
        card: "emmc",
        sizeBytes: 2 ** 20,
        area,
        content: medium,
      });
      assert.is(device.panicWrite({ text: "BOOM\n" }).zone, chosen, name);
    }
  }
});

test("real kernels' compressed records, cut anywhere: a beginning of the text, or nothing", () => {
  const image = new Uint8Array(gunzipSync(readFileSync(`${ROOT}tests/data/linux-6.1/lp64-oops.img.gz`)));
  const { records, geometry } = decodeArea(image);
  const [whole] = records;
  assert.ok(whole?.compressed);
  const view = new DataView(image.buffer);
  const datalen = view.getInt32(whole.offset + 4, true);
  let salvaged = 0;
  for (let length = 41; length < datalen; length += 97) {
    view.setInt32(whole.offset + 4, length, true);
    const [record] = decodeArea(image, { ...SIZES, kmsgSize: geometry.kmsgSize }).records;
    assert.ok(record && record.state !== "ok");
    if (record.state !== "salvaged") continue;
    assert.ok(ascii(whole.bytes).startsWith(ascii(record.bytes)));
    salvaged++;
  }
  assert.ok(salvaged > 50, `${salvaged}`);
});

test.run();
