// ramoops regions: those that real kernels wrote, whole and broken, against what the kernel itself showed of them; regions
// made by hand for what no kernel at hand writes; any bytes at all. And the Reed-Solomon code by itself.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { deflateRawSync, gunzipSync } from "node:zlib";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  findRamoops,
  newestRecord,
  type RamoopsOptions,
  type RamoopsRegion,
  readRamoops,
} from "../host/embed/ramoops.js";
import { RamoopsWatch } from "../host/embed/ramoops-watch.js";
import { ReedSolomon } from "../host/embed/reed-solomon.js";
import { pattern, ROOT, sameBytes } from "./machine.js";

const DATA = `${ROOT}tests/data/ramoops`;
const NAMES = ["plain-1MiB", "ecc-deflate", "ecc-plain", "ecc-8"] as const;
const MIB = 1 << 20;

function golden(name: string): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(`${DATA}/${name}.bin.gz`)));
}

/** What each was loaded with. */
const PARAMETERS: Record<string, RamoopsOptions> = {
  "plain-1MiB": { recordSize: 0x20000, eccSize: 0 },
  "ecc-deflate": { recordSize: 0x8000, eccSize: 1 },
  "ecc-plain": { recordSize: 0x4000, consoleSize: 4096, ftraceSize: 4096, pmsgSize: 4096, eccSize: 1 },
  "ecc-8": { recordSize: 0x8000, consoleSize: 4096, ftraceSize: 4096, pmsgSize: 4096, eccSize: 8 },
};

function layoutOf({ zones, eccSize }: RamoopsRegion): string {
  const texts = zones.map(({ type, index, offset, size }) => `${type}${index}@${offset}+${size}`);
  return `${eccSize}: ${texts.join(" ")}`;
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}

function flip(region: Uint8Array, at: number, bits: number): void {
  region[at] = (region[at] as number) ^ bits;
}

/** What Linux appends to the file of a record. */
function notice({ ecc }: RamoopsRegion["records"][number]): string {
  if (ecc === null) return "";
  return ecc.correctedBytes + ecc.badBlocks === 0
    ? "\nECC: No errors detected\n"
    : `\nECC: ${ecc.correctedBytes} Corrected bytes, ${ecc.badBlocks} unrecoverable blocks\n`;
}

// --- Real regions ------------------------------------------------------------------------------------

test("layout and code of real regions are found, and are those that the kernel was told", () => {
  const layouts: Record<string, string> = {
    "plain-1MiB": `0: ${Array.from({ length: 8 }, (_, i) => `dmesg${i}@${i * 131072}+131072`).join(" ")}`,
    "ecc-deflate": "16: dmesg0@0+32768 dmesg1@32768+32768",
    "ecc-plain":
      "16: dmesg0@0+17748 dmesg1@17748+17748 dmesg2@35496+17748 console0@53244+4096 ftrace0@57340+4096 " +
      "pmsg0@61436+4096",
    "ecc-8": "8: dmesg0@0+53248 console0@53248+4096 ftrace0@57344+4096 pmsg0@61440+4096",
  };
  for (const name of NAMES) {
    assert.is(layoutOf(readRamoops(golden(name), PARAMETERS[name])), layouts[name], `${name} given`);
    // Its ftrace zone is not where sizes are powers of two: to us it is a part of the console's. 4 bytes are left over.
    const found =
      name === "ecc-plain"
        ? layouts[name]?.replace("4096 ftrace0@57340+4096 pmsg0@61436+4096", "8192 pmsg0@61436+4100")
        : layouts[name];
    assert.is(layoutOf(readRamoops(golden(name))), found, `${name} found`);
  }
});

test("the record of a real panic", () => {
  for (const name of NAMES) {
    const region = golden(name);
    const before = region.slice();
    const { records, ecc } = readRamoops(region);
    assert.ok(sameBytes(region, before), "the region is not changed");
    assert.is(records.length, 1);
    const [record] = records;
    assert.is(record?.name, "dmesg-ramoops-0");
    assert.is(record?.reason, "Panic");
    assert.is(record?.count, 1);
    assert.is(record?.part, 1);
    assert.is(record?.state, "ok");
    assert.is(record?.compressed, name !== "ecc-plain");
    const log = text(record?.bytes ?? new Uint8Array());
    assert.ok(log.startsWith("Panic#1 Part1\n<"), log.slice(0, 40));
    assert.ok(
      log.includes("Kernel panic - not syncing: ") && /Kernel Offset: .*\n$/.test(log),
      log.slice(-80),
    );
    assert.equal(ecc, name === "plain-1MiB" ? null : { correctedBytes: 0, badBlocks: 0 });
  }
  const [record] = readRamoops(golden("plain-1MiB")).records;
  assert.is(record?.timeSec, 1795164729n);
  assert.is(record?.timeNsec, 53_693_000);
  assert.is(record?.bytes.length, 29_378);
});

interface Shown {
  region: string;
  damage: [number, number][];
  name: string;
  sizeBytes: number;
  sha256: string;
}

test("broken bytes: corrected, counted and given up exactly as the kernel did", () => {
  const all = JSON.parse(readFileSync(`${DATA}/expected.json`, "utf8")) as Shown[];
  assert.is(all.length, 7);
  for (const { region: name, damage, sizeBytes, sha256, ...shown } of all) {
    const region = golden(name);
    for (const [at, bits] of damage) flip(region, at, bits);
    for (const options of [PARAMETERS[name], {}]) {
      const { records } = readRamoops(region, options);
      const [record] = records;
      assert.is(records.length, 1, name);
      assert.is(record?.name, shown.name);
      if (record === undefined) continue;
      const file = Buffer.concat([record.bytes, Buffer.from(notice(record))]);
      assert.is(file.length, sizeBytes, `${name} ${notice(record)}`);
      assert.is(createHash("sha256").update(file).digest("hex"), sha256, name);
    }
  }
});

test("every block of a real record is corrected up to its limit, and given up behind it", () => {
  let blocks = 0;
  for (const [name, parityBytes] of [
    ["ecc-plain", 16],
    ["ecc-8", 8],
  ] as const) {
    const whole = golden(name);
    const options = PARAMETERS[name];
    const first = readRamoops(whole, options);
    const { size = 0, datalen = 0 } = first.zones[0] ?? {};
    const capacity = size - 12;
    const count = Math.ceil((capacity - parityBytes) / (128 + parityBytes));
    const dataBytes = capacity - (count + 1) * parityBytes;
    for (let block = 0; block * 128 < datalen; block++, blocks++) {
      // Positions of data and parity as one row, some of each.
      const blockBytes = Math.min(128, dataBytes - block * 128);
      const at = (i: number) =>
        i < blockBytes ? 12 + block * 128 + i : 12 + dataBytes + block * parityBytes + (i - blockBytes);
      const places = [...Array(blockBytes + parityBytes).keys()].sort(
        (a, b) => ((a * 7919 + block * 31) % 251) - ((b * 7919 + block * 31) % 251),
      );
      for (const errors of [1, parityBytes / 2]) {
        const region = whole.slice();
        for (const place of places.slice(0, errors))
          flip(region, at(place), 1 + ((place * 37 + block) % 255));
        const { records, ecc } = readRamoops(region, options);
        assert.equal(ecc, { correctedBytes: errors, badBlocks: 0 }, `${name} block ${block}`);
        assert.ok(
          sameBytes(records[0]?.bytes ?? new Uint8Array(), first.records[0]?.bytes ?? new Uint8Array()),
        );
      }
      const region = whole.slice();
      for (const place of places.slice(0, parityBytes))
        flip(region, at(place), 1 + ((place * 37 + block) % 255));
      const { records, ecc } = readRamoops(region, options);
      assert.equal(ecc, { correctedBytes: 0, badBlocks: 1 }, `${name} block ${block}`);
      assert.is(records[0]?.state, "damaged");
    }
  }
  console.log(`# ${blocks} blocks of two real regions, three damages each`);
});

test("a header, its signature too, is corrected; beyond that the zone is invalid", () => {
  const region = golden("ecc-deflate");
  const whole = readRamoops(region).records[0]?.bytes ?? new Uint8Array();
  for (let i = 0; i < 8; i++) flip(region, i, 0xff - i);
  for (const options of [PARAMETERS["ecc-deflate"], {}]) {
    const { records, zones, ecc } = readRamoops(region, options);
    assert.equal(ecc, { correctedBytes: 8, badBlocks: 0 });
    assert.is(zones[0]?.state, "used");
    assert.ok(sameBytes(records[0]?.bytes ?? new Uint8Array(), whole));
  }
  flip(region, 8, 1);
  const { records, zones } = readRamoops(region, PARAMETERS["ecc-deflate"]);
  assert.is(zones[0]?.state, "invalid");
  assert.equal(zones[0]?.ecc, { correctedBytes: 0, badBlocks: 1 });
  assert.equal(records, []);
});

test("a region is found in a larger memory", () => {
  const memory = pattern(3, 8 * MIB);
  assert.equal(findRamoops(memory), []);
  memory.set(golden("plain-1MiB"), 3 * MIB);
  assert.equal(findRamoops(memory), [{ offset: 3 * MIB, sizeBytes: MIB }]);
  const two = new Uint8Array(16 * MIB);
  two.set(golden("ecc-deflate"), MIB + 4096);
  two.set(golden("plain-1MiB"), 9 * MIB);
  assert.equal(findRamoops(two), [
    { offset: MIB + 4096, sizeBytes: 65536 },
    { offset: 9 * MIB, sizeBytes: MIB },
  ]);
});

// --- Regions made by hand ----------------------------------------------------------------------------

function zone(size: number, data: string | Uint8Array, start?: number, signature = 0x43474244): Uint8Array {
  const bytes = new Uint8Array(size);
  const content = typeof data === "string" ? Buffer.from(data, "latin1") : data;
  const view = new DataView(bytes.buffer);
  view.setUint32(0, signature, true);
  view.setUint32(4, start ?? content.length, true);
  view.setUint32(8, content.length, true);
  bytes.set(content, 12);
  return bytes;
}

function region(...zones: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(zones));
}

test("heads of all kernels, reasons, and the newest record", () => {
  const { records } = readRamoops(
    region(
      zone(4096, "====1000.000007-D\nPanic#2 Part1\n<0>[ 1.0] old\n"),
      zone(4096, "====1000.000009\nOops#1 Part1\nno letter\n"),
      zone(4096, region(Buffer.from("====999.999999-C\n"), deflateRawSync("Emergency#3 Part1\nx\n"))),
      zone(4096, "no head"),
      zone(4096, "====5.1-D\nno first line"),
    ),
    { recordSize: 4096 },
  );
  const rows = records.map(({ name, reason, count, timeSec, timeNsec, state, bytes }) =>
    [name, reason, count, `${timeSec}.${timeNsec}`, state, bytes.length].join(" "),
  );
  assert.equal(rows, [
    "dmesg-ramoops-0 Panic 2 1000.7000 ok 28",
    "dmesg-ramoops-1 Oops 1 1000.9000 ok 23",
    "dmesg-ramoops-2 Emergency 3 999.999999000 ok 20",
    "dmesg-ramoops-3 Unknown 0 0.0 damaged 7",
    "dmesg-ramoops-4 Unknown 0 5.1000 ok 13",
  ]);
  assert.is(newestRecord(records)?.name, "dmesg-ramoops-1");
  assert.is(newestRecord(records, "Panic")?.name, "dmesg-ramoops-0");
  assert.is(newestRecord(records, "Shutdown"), null);
});

test("compressed text that breaks off, and that is no deflate", () => {
  const packed = deflateRawSync(Buffer.from(pattern(5, 3000).map((byte) => 97 + (byte % 16))));
  const { records } = readRamoops(
    region(
      zone(4096, region(Buffer.from("====1.000000-C\n"), packed.subarray(0, 700))),
      zone(4096, region(Buffer.from("====2.000000-C\n"), new Uint8Array(50).fill(0xff))),
    ),
    { recordSize: 4096 },
  );
  assert.is(records[0]?.state, "damaged");
  assert.ok((records[0]?.bytes.length ?? 0) > 500);
  assert.is(records[1]?.state, "undecodable");
  assert.is(records[1]?.name, "dmesg-ramoops-1.enc.z");
  assert.is(newestRecord(records)?.name, "dmesg-ramoops-0");
});

test("rings: the oldest byte first, also when they have gone round; given and found", () => {
  const bytes = region(
    zone(16384, "====7.000000-D\nPanic#1 Part1\nx\n"),
    zone(16384, ""),
    zone(4096, `${"b".repeat(3084)}${"a".repeat(1000)}`, 3084),
    zone(2048, "", undefined, 0x43474244 ^ 0x060144),
    zone(2048, "xyz", undefined, 0x43474244 ^ 0x060144),
    zone(4096, "pmsg text"),
  );
  for (const options of [
    { recordSize: 16384, consoleSize: 4096, ftraceSize: 4096, ftraceCount: 2, pmsgSize: 4096 },
    {},
  ]) {
    const read = readRamoops(bytes, options);
    assert.is(
      layoutOf(read),
      "0: dmesg0@0+16384 dmesg1@16384+16384 console0@32768+4096 ftrace0@36864+2048 ftrace1@38912+2048 pmsg0@40960+4096",
    );
    const [dmesg, console, pmsg] = read.records;
    assert.is(dmesg?.reason, "Panic");
    assert.is(text(console?.bytes ?? new Uint8Array()), `${"a".repeat(1000)}${"b".repeat(3084)}`);
    assert.is(text(pmsg?.bytes ?? new Uint8Array()), "pmsg text");
    assert.is(pmsg?.name, "pmsg-ramoops-0");
    assert.equal(
      read.zones.map(({ state }) => state),
      ["used", "empty", "used", "empty", "used", "used"],
    );
  }
});

test("a lost header in the middle is a zone all the same; numbers that do not fit are invalid", () => {
  const text = "====7.000000-D\nPanic#1 Part1\nx\n";
  const whole = [0, 1, 2, 3, 4, 5].map(() => zone(4096, text));
  const bytes = region(...whole);
  bytes[2 * 4096] = 0;
  const read = readRamoops(bytes);
  assert.is(read.zones.length, 6);
  assert.equal(
    read.records.map(({ id }) => id),
    [0, 1, 3, 4, 5],
  );
  assert.is(read.zones[2]?.state, "invalid");
  const view = new DataView(bytes.buffer);
  view.setUint32(4096 + 8, 4096 - 11, true);
  view.setUint32(3 * 4096 + 4, 1000, true);
  view.setUint32(4 * 4096 + 8, 0xffffffff, true);
  assert.equal(
    readRamoops(bytes, { recordSize: 4096 }).records.map(({ id }) => id),
    [0, 5],
  );
});

test("what earlier boots left is no zone and no error: headers of smaller records, data behind the record", () => {
  const long = `====7.000000-D\nPanic#1 Part1\n${"x".repeat(10_000)}\n`;
  const bytes = region(zone(32768, long), zone(32768, long));
  for (let at = 0; at < bytes.length; at += 4096) {
    const isBehindRecord = at % 32768 > 12 + long.length;
    if (isBehindRecord) bytes.set([0x44, 0x42, 0x47, 0x43], at);
  }
  assert.is(layoutOf(readRamoops(bytes)), "0: dmesg0@0+32768 dmesg1@32768+32768");
  assert.is(readRamoops(bytes).records.length, 2);

  const stale = golden("ecc-8");
  const { datalen = 0 } = readRamoops(stale).zones[0] ?? {};
  const behind = 12 + Math.ceil(datalen / 128) * 128;
  stale.set(pattern(9, 1024), behind);
  assert.equal(readRamoops(stale).ecc, { correctedBytes: 0, badBlocks: 0 });
});

test("options that fit nothing give no zones, or invalid ones", () => {
  const bytes = golden("ecc-deflate");
  for (const options of [
    { recordSize: 0 },
    { recordSize: 1 },
    { recordSize: 0x8000, consoleSize: 1e9 },
    { recordSize: 0x8000, eccSize: 16, eccBlockSize: 1 },
    { recordSize: 0x8000, eccSize: 16, eccBlockSize: 1e9 },
    { recordSize: 256, eccSize: 127 },
    { ftraceSize: 0x8000, recordSize: 0x8000, ftraceCount: 1e9 },
  ]) {
    assert.type(readRamoops(bytes, options).zones.length, "number", JSON.stringify(options));
  }
  for (const options of [
    { recordSize: 1e12 },
    { recordSize: Number.NaN },
    { recordSize: 0x8000, eccSize: 255 },
    { recordSize: 0x8000, eccSize: -1 },
    { recordSize: 0x8000, eccSize: 1.5 },
  ]) {
    assert.throws(() => readRamoops(bytes, options), /is not a whole number/);
  }
});

// --- Any bytes ---------------------------------------------------------------------------------------

test("mutated regions: nothing throws, nothing is larger than it may be", () => {
  const sources = NAMES.map(golden);
  let runs = 0;
  fc.assert(
    fc.property(
      fc.nat(NAMES.length - 1),
      fc.array(fc.tuple(fc.nat(MIB - 1), fc.nat(255)), { maxLength: 40 }),
      fc.array(fc.tuple(fc.nat(63), fc.nat(255)), { maxLength: 6 }),
      fc.boolean(),
      fc.nat(65536),
      (which, changes, headChanges, isGiven, cutBytes) => {
        const source = sources[which] as Uint8Array;
        const bytes = source.slice(0, source.length - (cutBytes < 32768 ? 0 : cutBytes - 32768));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        for (const [at, value] of headChanges) bytes[at] = value;
        const { records, zones } = readRamoops(bytes, isGiven ? PARAMETERS[NAMES[which] ?? ""] : {});
        for (const { offset, size } of zones) assert.ok(offset >= 0 && offset + size <= bytes.length);
        for (const record of records) assert.ok(record.bytes.length <= 16 * MIB);
        runs++;
      },
    ),
    { numRuns: 300 },
  );
  console.log(`# ${runs} mutated regions`);
});

test("random bytes with signatures strewn in", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 3000 }),
      fc.array(fc.tuple(fc.nat(3000), fc.nat(400), fc.nat(400)), { maxLength: 30 }),
      fc.record({ recordSize: fc.option(fc.nat(2000), { nil: undefined }), eccSize: fc.option(fc.nat(127)) }),
      (bytes, signatures, { recordSize, eccSize }) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        for (const [at, start, size] of signatures) {
          if (at + 12 > bytes.length) continue;
          view.setUint32(at, 0x43474244, true);
          view.setUint32(at + 4, start, true);
          view.setUint32(at + 8, size, true);
        }
        readRamoops(bytes, { recordSize, eccSize: eccSize ?? undefined });
        findRamoops(bytes);
      },
    ),
    { numRuns: 2000 },
  );
});

test("hostile regions: bombs share one budget beyond what Linux packs, and many headers do not cost the square of them", () => {
  const bomb = deflateRawSync(new Uint8Array(4 * MIB));
  const bombs = region(
    ...Array.from({ length: 64 }, () => zone(8192, region(Buffer.from("====1.000000-C\n"), bomb))),
  );
  const { records } = readRamoops(bombs, { recordSize: 8192 });
  const sum = records.reduce((total, { compressed, bytes }) => total + (compressed ? bytes.length : 0), 0);
  assert.is(records.length, 64);
  assert.ok(sum <= 64 * MIB + 4 * bombs.length, `${sum}`);
  assert.is(records.filter(({ state }) => state === "ok").length, 15);

  const headers = new Uint8Array(8 * MIB);
  for (let at = 0; at + 12 <= headers.length; at += 12) headers.set([0x44, 0x42, 0x47, 0x43], at);
  const started = performance.now();
  assert.ok(readRamoops(headers).zones.length <= 65536);
  assert.ok(readRamoops(new Uint8Array(32 * MIB).fill(0x44)).zones.length === 0);
  // Measured: 0.2 s and 2.4 s on a busy machine. The square would be hours.
  assert.ok(performance.now() - started < 20_000);
});

// --- The code by itself ------------------------------------------------------------------------------

test("Reed-Solomon: a published code word", () => {
  // The QR code 1-M of "HELLO WORLD", whose code has the same field and first root.
  const data = [32, 91, 11, 120, 209, 114, 220, 77, 67, 64, 236, 17, 236, 17, 236, 17];
  const parity = new ReedSolomon(10).encode(Uint8Array.from(data));
  assert.equal([...parity], [196, 35, 39, 119, 235, 215, 231, 226, 93, 23]);
});

test("Reed-Solomon: corrects up to half its parity, and whatever it accepts is a code word", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 64 }),
      fc.uint8Array({ minLength: 1, maxLength: 190 }),
      fc.array(fc.tuple(fc.nat(1000), fc.integer({ min: 1, max: 255 })), { maxLength: 40 }),
      (parityBytes, block, errors) => {
        const code = new ReedSolomon(parityBytes);
        const parity = code.encode(block);
        const broken = block.slice();
        const brokenParity = parity.slice();
        const places = new Map(errors.map(([at, bits]) => [at % (block.length + parityBytes), bits]));
        for (const [at, bits] of places) {
          if (at < block.length) flip(broken, at, bits);
          else flip(brokenParity, at - block.length, bits);
        }
        const [before, beforeParity] = [broken.slice(), brokenParity.slice()];
        const corrected = code.correct(broken, brokenParity);
        if (places.size <= parityBytes / 2) {
          assert.is(corrected, places.size);
          assert.ok(sameBytes(broken, block) && sameBytes(brokenParity, parity));
        } else if (corrected < 0) {
          assert.ok(sameBytes(broken, before) && sameBytes(brokenParity, beforeParity), "left as it was");
        } else {
          assert.ok(corrected <= parityBytes / 2);
          assert.ok(sameBytes(code.encode(broken), brokenParity), "a code word, if another one");
        }
      },
    ),
    { numRuns: 3000 },
  );
  for (const parityBytes of [0, 255, 1.5, Number.NaN]) assert.throws(() => new ReedSolomon(parityBytes));
  assert.is(new ReedSolomon(200).correct(new Uint8Array(56), new Uint8Array(200)), -1);
});

// --- What is new ------------------------------------------------------------------------------------

test("the watch gives records of this run, each once", () => {
  const ram = new Uint8Array(MIB);
  ram.set(golden("plain-1MiB"));
  const watch = new RamoopsWatch(() => ram);
  watch.remember();
  assert.equal(watch.harvest(), [], "what an earlier boot left");
  ram.set(zone(4096, "====1795164800.000001-D\nOops#1 Part1\nx\n"), 0);
  ram.set(zone(4096, "====1795164801.000001-D\nPanic#2 Part1\ny\n"), 0x20000);
  assert.equal(
    watch.harvest().map(({ reason }) => reason),
    ["Oops", "Panic"],
  );
  assert.equal(watch.harvest(), []);
  // The same slot, reason and count of a later second; and the newer record in the slot in front.
  ram.set(zone(4096, "====1795164803.000001-D\nOops#1 Part1\nx\n"), 0);
  ram.set(zone(4096, "====1795164802.000001-D\nPanic#3 Part1\ny\n"), 0x20000);
  assert.equal(
    watch.harvest().map(({ reason }) => reason),
    ["Panic", "Oops"],
  );
  ram.fill(0);
  assert.equal(watch.harvest(), []);
});

test.run();
