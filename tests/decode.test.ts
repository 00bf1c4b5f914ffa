// The decoder against what it must agree with: images written by real kernels with the files Linux showed
// for them, the golden bytes of docs/FORMAT.md, node:zlib for the inflater, and records built here.
// The builder is written from FORMAT.md and must never use the core or the decoder's own functions:
// it would repeat their mistakes. The real images are never changed, only copies of them.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, deflateRawSync, gunzipSync, inflateRawSync } from "node:zlib";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { crc32c } from "../host/pstore/crc32c.js";
import {
  type Abi,
  type Decoded,
  decodeArea,
  findGeometry,
  type PstoreRecord,
} from "../host/pstore/decode.js";
import { inflateRaw } from "../host/pstore/inflate.js";
import { parseRecordName, recordName } from "../host/pstore/names.js";

// --- Material ------------------------------------------------------------------------------------------

/** Compiled tests may live anywhere below the project, or outside of it when run from its root. */
function findProjectRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, "package.json");
    if (existsSync(file) && JSON.parse(readFileSync(file, "utf8")).name === "mmcpstore") return folder;
    if (dirname(folder) === folder) return process.cwd();
  }
}

interface ExpectedFile {
  file: string;
  size: number;
  sha256: string;
}

const dataFolder = join(findProjectRoot(), "tests/data/linux-6.1");
const expected: Record<string, ExpectedFile[]> = JSON.parse(
  readFileSync(join(dataFolder, "expected.json"), "utf8"),
);
const imageNames = Object.keys(expected);

function loadImage(name: string): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(join(dataFolder, `${name}.img.gz`))));
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function ascii(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "latin1"));
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replace(/\s+/g, ""), "hex"));
}

/** Bit by bit, unlike the decoder's. */
function crc32cSlowly(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (crc ^ (byte >> bit)) & 1;
      crc >>>= 1;
      if (carry) crc ^= 0x82f63b78;
    }
  }
  return (crc ^ 0xffffffff) >>> 0;
}

interface ZoneSpec {
  abi?: Abi;
  payload?: Uint8Array;
  reason?: number;
  counter?: number;
  timeSec?: bigint;
  timeNsec?: number;
  compressed?: boolean;
  datalen?: number;
  sequence?: bigint;
  fill?: number;
}

function writeSeal(zone: Uint8Array, sequence: bigint): void {
  const view = new DataView(zone.buffer, zone.byteOffset, zone.length);
  const at = zone.length - 64;
  const datalen = view.getInt32(4, true);
  zone.fill(0, at);
  zone.set(ascii("MMCS"), at);
  view.setUint32(at + 4, 1, true);
  view.setBigUint64(at + 8, sequence, true);
  view.setUint32(at + 16, datalen, true);
  view.setUint32(at + 20, crc32cSlowly(zone.subarray(0, 12 + datalen)), true);
  view.setUint32(at + 60, crc32cSlowly(zone.subarray(at, at + 60)), true);
}

/** One whole kmsg zone; sealed if a sequence is given. */
function buildZone(size: number, spec: ZoneSpec = {}): Uint8Array {
  const abi = spec.abi ?? "lp64";
  const payload = spec.payload ?? ascii("Panic#1 Part1\n<0>[    1.0] BOOM\n");
  const headerSize = abi === "lp64" ? 40 : 28;
  const zone = new Uint8Array(size).fill(spec.fill ?? 0);
  const view = new DataView(zone.buffer);
  zone.fill(0, 0, 12 + headerSize);
  zone.set(ascii("DBGC"), 0);
  view.setInt32(4, spec.datalen ?? headerSize + payload.length, true);
  zone.set(hex("e53afc4d"), 12);
  const timeSec = spec.timeSec ?? 1705095875n;
  const timeNsec = spec.timeNsec ?? 123456789;
  if (abi === "lp64") {
    view.setBigInt64(20, timeSec, true);
    view.setBigInt64(28, BigInt(timeNsec), true);
    view.setUint8(36, spec.compressed ? 1 : 0);
    view.setUint32(40, spec.counter ?? 1, true);
    view.setUint32(44, spec.reason ?? 1, true);
  } else {
    view.setBigInt64(16, timeSec, true);
    view.setInt32(24, timeNsec, true);
    view.setUint8(28, spec.compressed ? 1 : 0);
    view.setUint32(32, spec.counter ?? 1, true);
    view.setUint32(36, spec.reason ?? 1, true);
  }
  zone.set(payload.subarray(0, size - 12 - headerSize), 12 + headerSize);
  if (spec.sequence !== undefined) writeSeal(zone, spec.sequence);
  return zone;
}

/** Zones behind each other in an area of `areaSize`, from `offset` on; null leaves a zone blank. */
function buildArea(areaSize: number, zones: (Uint8Array | null)[], size: number, offset = 0): Uint8Array {
  const area = new Uint8Array(areaSize);
  for (const [index, zone] of zones.entries()) if (zone) area.set(zone, offset + index * size);
  return area;
}

function buildRing(size: number, signature: string, datalen: number, start: number): Uint8Array {
  const ring = new Uint8Array(size).fill(0xff);
  const view = new DataView(ring.buffer);
  ring.set(ascii(signature), 0);
  view.setInt32(4, datalen, true);
  view.setInt32(8, start, true);
  for (let index = 0; index < Math.min(Math.max(datalen, 0), size - 12); index++) {
    ring[12 + index] = 0x61 + (index % 26);
  }
  return ring;
}

function only(decoded: Decoded): PstoreRecord {
  assert.is(decoded.records.length, 1);
  return decoded.records[0] as PstoreRecord;
}

/** Log text that does not repeat much, ending where `length` says. */
function logText(length: number, seed = 1): Uint8Array {
  let text = "Panic#1 Part1\n";
  let state = seed;
  while (text.length < length) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    text += `<4>[${state % 1000}.${state >>> 12}] line ${state >>> 7} of the log\n`;
  }
  return ascii(text.slice(0, length));
}

// --- Real images -----------------------------------------------------------------------------------------

for (const name of imageNames) {
  const files = expected[name] ?? [];
  for (const explicit of [false, true]) {
    test(`${name}: the files Linux showed (${explicit ? "explicit sizes" : "sizes found"})`, () => {
      const image = loadImage(name);
      const sizes = { kmsgSize: 65536, pmsgSize: 0, consoleSize: 0, ftraceSize: 0 };
      const { geometry, records, zones } = decodeArea(image, explicit ? sizes : undefined);
      const abi = name.startsWith("i386") ? "i386" : "lp64";
      assert.equal(geometry, {
        areaSize: image.length,
        ...sizes,
        cpus: 0,
        kmsgOffset: 0,
        kmsgCount: image.length / 65536,
        abi,
        found: files.length > 0,
      });
      assert.equal(
        records.map(({ name: file, size, bytes }) => ({ file, size, sha256: sha256(bytes) })),
        files,
      );
      assert.is(zones.length, image.length / 65536);
      const view = new DataView(image.buffer);
      for (const [index, record] of records.entries()) {
        assert.is(record.state, "ok");
        assert.is(record.sealed, false);
        assert.is(record.sequence, null);
        assert.is(record.abi, abi);
        assert.is(record.reason, "Oops");
        assert.is(record.count, index + 1);
        assert.is(record.compressed, name !== "lp64-plain");
        assert.is(record.offset, index * 65536);
        const timeAt = record.offset + (abi === "lp64" ? 20 : 16);
        assert.is(record.timeSec, view.getBigInt64(timeAt, true));
        assert.is(record.timeNsec, view.getInt32(timeAt + 8, true));
        // These kernels ran in 2026; a header read at the wrong place gives some other century.
        assert.is(new Date(Number(record.timeSec) * 1000).getUTCFullYear(), 2026);
        assert.ok(record.timeNsec >= 0 && record.timeNsec < 1e9);
      }
      for (const zone of zones) {
        assert.is(zone.type, "kmsg");
        assert.is(zone.state, zone.index < files.length ? "ok" : "empty");
      }
    });
  }
}

test("an image behind other bytes of a larger buffer reads the same", () => {
  const image = loadImage("i386-oops");
  const larger = new Uint8Array(image.length + 1001);
  larger.set(image, 1001);
  const view = larger.subarray(1001);
  assert.equal(
    decodeArea(view).records.map(({ bytes }) => sha256(bytes)),
    (expected["i386-oops"] ?? []).map((file) => file.sha256),
  );
});

// --- FORMAT.md -------------------------------------------------------------------------------------------

const goldenPayload = "Panic#1 Part1\n<0>[    1.0] BOOM\n";
const golden: Record<Abi, Uint8Array> = {
  lp64: hex(
    `44 42 47 43 48 00 00 00 00 00 00 00 e5 3a fc 4d 00 00 00 00 c3 b2 a1 65 00 00 00 00 15 cd 5b 07
     00 00 00 00 00 00 00 00 01 00 00 00 01 00 00 00 00 00 00 00 50 61 6e 69 63 23 31 20 50 61 72 74`,
  ),
  i386: hex(
    `44 42 47 43 3c 00 00 00 00 00 00 00 e5 3a fc 4d c3 b2 a1 65 00 00 00 00 15 cd 5b 07 00 00 00 00
     01 00 00 00 01 00 00 00 50 61 6e 69 63 23 31 20 50 61 72 74`,
  ),
};

for (const abi of ["lp64", "i386"] as const) {
  test(`the golden bytes, ${abi}`, () => {
    const area = new Uint8Array(65536);
    area.set(golden[abi], 8192);
    area.set(ascii(goldenPayload), 8192 + (abi === "lp64" ? 52 : 40));
    assert.equal(buildZone(8192, { abi }), area.slice(8192, 16384), "the builder of this test agrees");
    const decoded = decodeArea(area, { kmsgSize: 8192, pmsgSize: 4096, consoleSize: 4096 });
    assert.is(decoded.geometry.kmsgCount, 7);
    assert.is(decoded.geometry.abi, abi);
    const record = only(decoded);
    assert.is(record.name, "dmesg-pstore_blk-0");
    assert.is(record.size, 53);
    assert.is(textOf(record.bytes), `Panic: Total 1 times\n${goldenPayload}`);
    assert.is(record.state, "ok");
    assert.is(record.timeSec, 1705095875n);
    assert.is(record.timeNsec, 123456789);
    assert.is(record.abi, abi);
    // With nothing known the zone is found, too, if not its index.
    assert.is(textOf(only(decodeArea(area)).bytes), `Panic: Total 1 times\n${goldenPayload}`);
  });
}

test("CRC-32C: the check value, no bytes, parts of an array", () => {
  assert.is(crc32c(ascii("123456789")), 0xe3069283);
  assert.is(crc32cSlowly(ascii("123456789")), 0xe3069283);
  assert.is(crc32c(new Uint8Array(0)), 0);
  assert.is(crc32c(ascii("xx123456789y"), 2, 11), 0xe3069283);
  assert.is(crc32c(new Uint8Array(32)), 0x8a9136aa);
});

test("names, and back", () => {
  assert.is(recordName("kmsg", 12), "dmesg-pstore_blk-12");
  assert.is(recordName("kmsg", 0, true), "dmesg-pstore_blk-0.enc.z");
  assert.is(recordName("pmsg", 0), "pmsg-pstore_blk-0");
  assert.is(recordName("console", 0), "console-pstore_blk-0");
  for (const [type, id, raw] of [
    ["kmsg", 0, false],
    ["kmsg", 4095, true],
    ["pmsg", 0, false],
    ["console", 0, false],
  ] as const) {
    assert.equal(parseRecordName(recordName(type, id, raw)), { type, id, raw });
  }
  for (const name of [
    "",
    "dmesg-pstore-blk-0",
    "dmesg-pstore_blk-",
    "dmesg-pstore_blk-01",
    "dmesg-pstore_blk--1",
    "dmesg-pstore_blk-1.enc",
    "dmesg-pstore_blk-0\n",
    "/dmesg-pstore_blk-0",
    "pmsg-pstore_blk-1",
    "console-pstore_blk-0.enc.z",
    "ftrace-pstore_blk-1",
    "dmesg-ramoops-0",
  ]) {
    assert.is(parseRecordName(name), null, name);
  }
});

test("reasons and counters as Linux prints them", () => {
  const reasons = [0, 1, 2, 3, 4, 5, 77, 0xffffffff];
  const zones = reasons.map((reason) => buildZone(4096, { reason, counter: 0xffffffff }));
  const { records } = decodeArea(buildArea(65536, zones, 4096));
  assert.equal(
    records.map(({ reason }) => reason),
    ["Unknown", "Panic", "Oops", "Emergency", "Shutdown", "Unknown", "Unknown", "Unknown"],
  );
  assert.ok(
    records.every(({ count, bytes }) => count === 0xffffffff && textOf(bytes).includes(": Total -1 times\n")),
  );
});

// --- States ------------------------------------------------------------------------------------------------

const sealedSize = 8192;
const sealedSpec: ZoneSpec = { payload: logText(5000), sequence: 7n };

test("a sealed record: ok, sealed, with its sequence, by both ABIs", () => {
  for (const abi of ["lp64", "i386"] as const) {
    const area = buildArea(65536, [buildZone(sealedSize, { ...sealedSpec, abi })], sealedSize);
    for (const options of [undefined, { kmsgSize: sealedSize }]) {
      const decoded = decodeArea(area, options);
      assert.is(decoded.geometry.kmsgSize, sealedSize, "the seal proves the size");
      const record = only(decoded);
      assert.is(record.state, "ok");
      assert.is(record.sealed, true);
      assert.is(record.sequence, 7n);
      assert.is(record.abi, abi);
      assert.is(textOf(record.bytes), `Panic: Total 1 times\n${textOf(logText(5000))}`);
      assert.is(decoded.zones[0]?.sealed, true);
    }
  }
});

test("a sealed record, damaged in every way: torn, never ok", () => {
  const whole = buildZone(sealedSize, sealedSpec);
  const wholeBytes = only(decodeArea(buildArea(65536, [whole], sealedSize), { kmsgSize: sealedSize })).bytes;
  const older = buildZone(sealedSize, { payload: logText(6500, 99), sequence: 3n, counter: 9 });
  const damages = new Map<string, Uint8Array>();
  const damage = (name: string, change: (zone: Uint8Array, view: DataView) => void): void => {
    const zone = whole.slice();
    change(zone, new DataView(zone.buffer));
    damages.set(name, zone);
  };
  for (let sector = 0; sector * 512 < 5052; sector++) {
    for (const half of [0, 256]) {
      const at = sector * 512 + half;
      damage(`old half at ${at}`, (zone) => zone.set(older.subarray(at, at + 256), at));
    }
    damage(`old sector ${sector}`, (zone) =>
      zone.set(older.subarray(sector * 512, sector * 512 + 512), sector * 512),
    );
    damage(`old from sector ${sector} to the seal`, (zone) =>
      zone.set(older.subarray(sector * 512, sealedSize - 512), sector * 512),
    );
  }
  damage("old last sector with its seal", (zone) =>
    zone.set(older.subarray(sealedSize - 512), sealedSize - 512),
  );
  for (const datalen of [1, 11, 27, 39, 40, 41, 5039, 5041, 8180, 8181, 0x7fffffff, -1, -0x80000000]) {
    damage(`datalen ${datalen}`, (_zone, view) => view.setInt32(4, datalen, true));
  }
  for (const at of [8, 11, 17, 20, 28, 36, 40, 44, 48, 52, 53, 600, 4000, 5051]) {
    damage(`byte ${at}`, (zone) => {
      zone[at] = (zone[at] as number) ^ 1;
    });
  }
  let count = 0;
  for (const [name, zone] of damages) {
    const isChanged = zone.some((byte, index) => byte !== whole[index]);
    if (!isChanged) continue;
    const area = buildArea(65536, [zone], sealedSize);
    const record = only(decodeArea(area, { kmsgSize: sealedSize }));
    // The seal says what datalen and start were, and proves the rest.
    const isMended = zone.every((byte, at) => byte === whole[at] || (at >= 4 && at < 12));
    assert.is(record.state, isMended ? "salvaged" : "torn", name);
    assert.is(record.sealed, isMended, name);
    assert.is(record.sequence, isMended ? 7n : null, name);
    if (isMended) assert.equal(record.bytes, wholeBytes, name);
    assert.ok(record.size <= sealedSize + 64, name);
    // Without the size as well, whatever it is taken for.
    for (const guessed of decodeArea(area).records) {
      assert.ok(
        guessed.state === "torn" || (isMended && guessed.state === "salvaged"),
        `${name}, size guessed`,
      );
    }
    count++;
  }
  // Damage to the seal alone, which no checksum of the record covers: then the record is Linux’s own.
  for (const at of [0, 4, 8, 16, 20, 40, 60]) {
    const zone = whole.slice();
    zone[sealedSize - 64 + at] = (zone[sealedSize - 64 + at] as number) ^ 0x80;
    const record = only(decodeArea(buildArea(65536, [zone], sealedSize), { kmsgSize: sealedSize }));
    assert.is(record.state, "ok");
    assert.is(record.sealed, false);
    count++;
  }
  console.log(`# sealed record: ${count} kinds of damage, none taken for whole`);
});

test("another version of the seal: unsealed", () => {
  const zone = buildZone(4096, { sequence: 1n });
  const view = new DataView(zone.buffer);
  view.setUint32(4096 - 60, 2, true);
  view.setUint32(4092, crc32cSlowly(zone.subarray(4032, 4092)), true);
  const record = only(decodeArea(buildArea(16384, [zone], 4096), { kmsgSize: 4096 }));
  assert.is(record.state, "ok");
  assert.is(record.sealed, false);
});

test("empty and erased zones show nothing, half a header does, and erased ones keep what they know", () => {
  const noMagic = buildZone(4096);
  noMagic[12] = 0;
  const noSignature = buildZone(4096);
  noSignature[0] = 0x45;
  const erased = buildZone(4096, { sequence: 5n, counter: 4, reason: 2 });
  new DataView(erased.buffer).setInt32(4, 0, true);
  const zones = [buildZone(4096), noMagic, noSignature, erased, null, buildZone(4096, { sequence: 6n })];
  const decoded = decodeArea(buildArea(32768, zones, 4096), { kmsgSize: 4096 });
  assert.equal(
    decoded.zones.map(({ state }) => state),
    ["ok", "salvaged", "salvaged", "erased", "empty", "ok", "empty", "empty"],
  );
  assert.equal(
    decoded.records.map(({ name }) => name),
    ["dmesg-pstore_blk-0", "dmesg-pstore_blk-1", "dmesg-pstore_blk-2", "dmesg-pstore_blk-5"],
  );
  const zone = decoded.zones[3];
  assert.is(zone?.sealed, false);
  assert.is(zone?.sequence, 5n);
  assert.is(zone?.counter, 4);
  assert.is(zone?.reason, 2);
  assert.is(zone?.timeSec, 1705095875n);
});

test("an area that holds nothing: defaults, not found", () => {
  for (const [areaSize, kmsgSize, kmsgCount] of [
    [0, 0, 0],
    [100, 0, 0],
    [512, 512, 1],
    [5000, 4608, 1],
    [65535, 65024, 1],
    [65536, 65536, 1],
    [1048576, 65536, 16],
  ] as const) {
    const geometry = findGeometry(new Uint8Array(areaSize));
    assert.is(geometry.found, false);
    assert.is(geometry.kmsgSize, kmsgSize);
    assert.is(geometry.kmsgCount, kmsgCount);
    assert.is(geometry.abi, "lp64");
  }
});

test("impossible sizes give no zones", () => {
  const area = buildArea(65536, [buildZone(8192)], 8192);
  for (const options of [
    { kmsgSize: 131072 },
    { kmsgSize: -512 },
    { kmsgSize: 100 },
    { kmsgSize: Number.NaN },
    { kmsgSize: Number.POSITIVE_INFINITY },
    { kmsgSize: 8192, pmsgSize: 1e300 },
    { pmsgSize: 32768, consoleSize: 32768, ftraceSize: 32768 },
    { kmsgSize: 0 },
  ]) {
    const decoded = decodeArea(area, options);
    assert.is(decoded.geometry.kmsgCount, 0);
    assert.is(decoded.records.length, 0);
  }
  const none = decodeArea(area, { kmsgSize: undefined, pmsgSize: undefined, abi: undefined });
  assert.is(none.records.length, 1);
});

test("datalen negative, huge, too small: torn, and what is shown stays within the zone", () => {
  for (const abi of ["lp64", "i386"] as const) {
    const headerSize = abi === "lp64" ? 40 : 28;
    const cases = [-0x80000000, -1, 1, 10, headerSize - 1, 4085, 0x7fffffff];
    for (const datalen of cases) {
      const zone = buildZone(4096, { abi, datalen });
      const decoded = decodeArea(buildArea(65536, [zone, buildZone(4096, { abi })], 4096), {
        kmsgSize: 4096,
      });
      const [record, next] = decoded.records;
      assert.is(record?.state, "torn", `${datalen}`);
      assert.is(decoded.zones[0]?.datalen, datalen);
      const line = "Panic: Total 1 times\n".length;
      const isTooSmall = datalen > 0 && datalen < headerSize;
      assert.is(record?.size, isTooSmall ? line : line + 4096 - 12 - headerSize);
      assert.is(next?.state, "ok", "what follows is not hidden, as it is on Linux");
    }
    for (const datalen of [headerSize, 4084]) {
      const zone = buildZone(4096, { abi, datalen });
      const record = only(decodeArea(buildArea(65536, [zone], 4096), { kmsgSize: 4096 }));
      assert.is(record.state, "ok");
      assert.is(record.size, 21 + datalen - headerSize);
    }
  }
});

test("compressed records: inflated, with nothing inside, broken, wrapped by zlib", () => {
  const text = logText(20000);
  const deflated = new Uint8Array(deflateRawSync(text));
  const decodeOne = (payload: Uint8Array): PstoreRecord =>
    only(
      decodeArea(buildArea(65536, [buildZone(32768, { compressed: true, payload })], 32768), {
        kmsgSize: 32768,
      }),
    );
  const good = decodeOne(deflated);
  assert.is(good.state, "ok");
  assert.is(good.compressed, true);
  assert.equal(good.bytes, text, "no header line in front");
  const bad: [string, Uint8Array][] = [
    ["datalen is the header", new Uint8Array(0)],
    ["one byte", deflated.subarray(0, 1)],
    ["zlib header", new Uint8Array(Buffer.concat([hex("789c"), deflated]))],
    ["not deflate", new Uint8Array(100).fill(0xff)],
  ];
  for (const [name, payload] of bad) {
    const record = decodeOne(payload);
    assert.is(record.state, "undecodable", name);
    assert.is(record.name, "dmesg-pstore_blk-0.enc.z");
    assert.equal(record.bytes.slice(), payload.slice(), name);
  }
});

test("a compressed and sealed record that does not inflate is undecodable, and proved", () => {
  const zone = buildZone(4096, { compressed: true, payload: ascii("lz4, perhaps"), sequence: 2n });
  const record = only(decodeArea(buildArea(65536, [zone], 4096)));
  assert.is(record.state, "undecodable");
  assert.is(record.sealed, true);
  assert.is(record.sequence, 2n);
});

test("bombs: one beyond four times its zone, many within", () => {
  const most = 4 * 32768;
  const justRight = new Uint8Array(deflateRawSync(new Uint8Array(most), { level: 9 }));
  const tooLarge = new Uint8Array(deflateRawSync(new Uint8Array(most + 1), { level: 9 }));
  const zones = [justRight, tooLarge].map((payload) => buildZone(32768, { compressed: true, payload }));
  const { records } = decodeArea(buildArea(65536, zones, 32768), { kmsgSize: 32768 });
  assert.is(records[0]?.state, "ok");
  assert.is(records[0]?.size, most);
  assert.is(records[1]?.state, "undecodable");
  assert.is(records[1]?.size, tooLarge.length);

  const many = Array.from({ length: 64 }, () => zones[0] as Uint8Array);
  const all = decodeArea(buildArea(64 * 32768, many, 32768), { kmsgSize: 32768 }).records;
  const total = all.reduce((sum, { size }) => sum + size, 0);
  assert.is(all.length, 64);
  assert.is(total, 64 * most);
  assert.ok(all.every(({ state }) => state === "ok"));
});

// --- Sizes -------------------------------------------------------------------------------------------

test("sizes from 512 bytes to 4 MiB are found, sealed or not, by one record or more", () => {
  let count = 0;
  for (const kmsgSize of [
    512, 1024, 4096, 8192, 12288, 16384, 20480, 65536, 98304, 131072, 262144, 1048576, 4194304,
  ]) {
    const areaSize = Math.max(65536, kmsgSize * 5 + 512);
    const spec = { payload: logText(Math.min(kmsgSize - 200, 30000)) };
    for (const records of [1, 2, 3, 5]) {
      const zones = Array.from({ length: records }, (_, index) =>
        buildZone(kmsgSize, { ...spec, counter: index + 1, sequence: BigInt(index + 1) }),
      );
      const sealed = decodeArea(buildArea(areaSize, zones, kmsgSize));
      assert.is(sealed.geometry.kmsgSize, kmsgSize, `${records} sealed of ${kmsgSize}`);
      assert.is(sealed.records.length, records);
      assert.ok(sealed.records.every((record) => record.sealed && record.state === "ok"));
      count++;
      if (records === 1) continue;
      const plain = zones.map((_, index) => buildZone(kmsgSize, { ...spec, counter: index + 1 }));
      const unsealed = decodeArea(buildArea(areaSize, plain, kmsgSize));
      assert.is(unsealed.geometry.kmsgSize, kmsgSize, `${records} unsealed of ${kmsgSize}`);
      assert.is(unsealed.records.length, records);
      assert.ok(unsealed.records.every((record) => !record.sealed && record.state === "ok"));
      count++;
    }
  }
  console.log(`# sizes: ${count} areas found`);
});

test("one record of Linux: the default, or the least power of two that holds it", () => {
  for (const [textLength, kmsgSize] of [
    [100, 65536],
    [65484, 65536],
    [65485, 131072],
    [200000, 262144],
  ] as const) {
    const area = buildArea(2097152, [buildZone(kmsgSize, { payload: logText(textLength) })], kmsgSize);
    const decoded = decodeArea(area);
    assert.is(decoded.geometry.kmsgSize, kmsgSize);
    assert.is(only(decoded).size, 21 + textLength);
    assert.is(only(decoded).state, "ok");
  }
});

test("a mix: sealed, torn, erased, Linux’s own, and a zone whose first sector is lost", () => {
  const size = 16384;
  const sealed = (sequence: bigint): Uint8Array => buildZone(size, { payload: logText(9000), sequence });
  const torn = sealed(2n);
  torn.fill(0x2e, 4096, 4608);
  const erased = sealed(3n);
  new DataView(erased.buffer).setInt32(4, 0, true);
  const headless = sealed(4n);
  headless.fill(0, 0, 512);
  const zones = [sealed(1n), torn, erased, headless, buildZone(size, { payload: logText(9000) }), sealed(6n)];
  const { geometry, zones: infos } = decodeArea(buildArea(1048576, zones, size));
  assert.is(geometry.kmsgSize, size);
  assert.equal(
    infos.slice(0, 7).map(({ state }) => state),
    ["ok", "torn", "erased", "salvaged", "ok", "ok", "empty"],
  );
  assert.equal(
    infos.slice(0, 7).map(({ sealed: isSealed }) => isSealed),
    [true, false, false, false, false, true, false],
  );
});

test("zones written into a record’s own text do not confuse", () => {
  // A log full of headers, sealed zones and lone seals, at the steps at which the decoder looks.
  const forged = logText(40000);
  for (let at = 512; at + 512 <= forged.length; at += 512) {
    const payload = ascii("forged");
    const fake = buildZone(512, at % 1024 === 0 ? { payload } : { payload, sequence: 1000n });
    forged.set(fake, at - 52); // the payload starts at 52
  }
  const seen = (decoded: Decoded): string[] =>
    decoded.records.map(({ state, sealed, size }) => `${state} ${sealed} ${size}`);
  const small = buildZone(65536, { payload: logText(300), counter: 2 });
  const wantedSize = 21 + 40000;

  const unsealed = buildZone(65536, { payload: forged });
  const sealed = buildZone(65536, { payload: forged, sequence: 1n });
  const first = decodeArea(buildArea(1048576, [sealed], 65536));
  assert.is(first.geometry.kmsgSize, 65536);
  assert.equal(seen(first), [`ok true ${wantedSize}`]);
  assert.equal(seen(decodeArea(buildArea(1048576, [sealed, small], 65536))), [
    `ok true ${wantedSize}`,
    "ok false 321",
  ]);

  // Explicit sizes are believed.
  const explicit = decodeArea(buildArea(1048576, [unsealed], 65536), { kmsgSize: 65536 });
  assert.equal(seen(explicit), [`ok false ${wantedSize}`]);

  // Nothing proves an unsealed one: the forged zones might be zones, and this record damaged.
  for (const record of decodeArea(buildArea(1048576, [unsealed], 65536)).records) {
    assert.is.not(textOf(record.bytes).includes("forged") && record.state === "ok" && !record.sealed, true);
  }

  // Forged headers alone: a second record confirms the size.
  const headersOnly = logText(40000);
  for (let at = 512; at + 512 <= headersOnly.length; at += 512) headersOnly.set(buildZone(512), at - 52);
  const two = decodeArea(buildArea(1048576, [buildZone(65536, { payload: headersOnly }), small], 65536));
  assert.is(two.geometry.kmsgSize, 65536);
  assert.equal(seen(two), [`ok false ${wantedSize}`, "ok false 321"]);
  const one = decodeArea(buildArea(1048576, [buildZone(65536, { payload: headersOnly })], 65536));
  assert.is(one.geometry.kmsgSize, 65536);
  assert.equal(seen(one), [`torn false ${wantedSize}`]);
});

test("leftovers of an older record behind a shorter one do not confuse", () => {
  const old = new Uint8Array(65536);
  for (let at = 0; at < old.length; at += 1024) old.set(buildZone(1024, { sequence: 9n }), at);
  const zone = buildZone(65536, { payload: logText(700) });
  zone.set(old.subarray(1024, 64512), 1024);
  writeSeal(zone, 4n);
  const decoded = decodeArea(buildArea(1048576, [zone], 65536));
  assert.is(decoded.geometry.kmsgSize, 65536);
  assert.is(only(decoded).sequence, 4n);
});

test("a damaged datalen that another size would allow is never ok", () => {
  for (const sealed of [true, false]) {
    const zones = [1, 2].map((counter) =>
      buildZone(16384, { payload: logText(8000), counter, ...(sealed ? { sequence: BigInt(counter) } : {}) }),
    );
    const area = buildArea(1048576, zones, 16384);
    for (const datalen of [16384, 20000, 33000, 70000, 500000]) {
      new DataView(area.buffer).setInt32(4, datalen, true);
      const record = decodeArea(area).records.find(({ id, offset }) => id === 0 && offset === 0);
      // A seal says what it was, where the size is not mistaken.
      const isMended = sealed && record?.state === "salvaged" && record.size === 8021;
      assert.ok(isMended || record?.state === "torn", `${datalen}, ${sealed ? "sealed" : "unsealed"}`);
    }
  }
});

// --- Rings ---------------------------------------------------------------------------------------------

test("rings: linearised, listed last, and their sizes found", () => {
  const area = new Uint8Array(262144);
  const pmsg = buildRing(8192, "CBGC", 8180, 107);
  const console_ = buildRing(4096, "FBGC", 300, 300);
  area.set(pmsg, 0);
  area.set(console_, 8192);
  for (let index = 0; index < 3; index++)
    area.set(buildZone(16384, { counter: index + 1 }), 12288 + index * 16384);
  const sizes = { kmsgSize: 16384, pmsgSize: 8192, consoleSize: 4096, ftraceSize: 0 };
  for (const options of [undefined, sizes]) {
    const { geometry, records, zones } = decodeArea(area, options);
    assert.equal(geometry, {
      areaSize: 262144,
      ...sizes,
      cpus: 0,
      kmsgOffset: 12288,
      kmsgCount: 15,
      abi: "lp64",
      found: true,
    });
    assert.equal(
      records.map(({ name }) => name),
      [
        "dmesg-pstore_blk-0",
        "dmesg-pstore_blk-1",
        "dmesg-pstore_blk-2",
        "pmsg-pstore_blk-0",
        "console-pstore_blk-0",
      ],
    );
    assert.equal(
      zones.slice(0, 3).map(({ type, state }) => `${type} ${state}`),
      ["pmsg ok", "console ok", "kmsg ok"],
    );
    const wrapped = Buffer.concat([pmsg.subarray(12 + 107), pmsg.subarray(12, 12 + 107)]);
    assert.is(records[3]?.size, 8180);
    assert.equal(records[3]?.bytes, new Uint8Array(wrapped));
    assert.is(records[3]?.reason, "");
    assert.is(records[3]?.count, 0);
    assert.equal(records[4]?.bytes.slice(), console_.slice(12, 312));
  }
});

test("rings that are not believed show nothing, and hide nothing", () => {
  for (const [datalen, start, state] of [
    [0, 0, "erased"],
    [4084, 4084, "ok"],
    [10, 10, "ok"],
    [10, 11, "torn"],
    [100, 4084, "torn"],
    [4085, 0, "torn"],
    [0x7fffffff, 0, "torn"],
    [-1, 0, "torn"],
    [100, -1, "torn"],
  ] as const) {
    const area = buildArea(65536, [buildZone(8192)], 8192, 4096);
    area.set(buildRing(4096, "CBGC", datalen, start), 0);
    const decoded = decodeArea(area, { pmsgSize: 4096, kmsgSize: 8192 });
    assert.is(decoded.zones[0]?.state, state, `${datalen} ${start}`);
    assert.is(decoded.records.length, state === "ok" ? 2 : 1);
    assert.is(decoded.records[0]?.state, "ok");
    decodeArea(area);
  }
  const blank = decodeArea(new Uint8Array(65536), { pmsgSize: 4096, kmsgSize: 8192 });
  assert.is(blank.zones[0]?.state, "empty");
});

test("one bit turns a kmsg zone into a ring: not ok unless the sizes say so", () => {
  const area = buildArea(65536, [buildZone(8192), buildZone(8192)], 8192);
  area[0] = (area[0] as number) ^ 2;
  const rings = decodeArea(area).records.filter(({ type }) => type === "console");
  assert.equal(
    rings.map(({ state, size }) => `${state} ${size}`),
    ["torn 72"],
  );
  const known = decodeArea(area, { kmsgSize: 8192, pmsgSize: 0, consoleSize: 0 });
  assert.equal(
    known.records.map(({ id, type, state }) => `${type} ${id} ${state}`),
    ["kmsg 0 salvaged", "kmsg 1 ok"],
  );
});

test("what users wrote to pmsg is not taken for zones", () => {
  const pmsg = buildRing(32768, "CBGC", 32756, 0);
  for (let at = 512; at < 32000; at += 512) pmsg.set(buildZone(512, { sequence: 5n }), at);
  const area = buildArea(1048576, [buildZone(65536), buildZone(65536)], 65536, 32768);
  area.set(pmsg, 0);
  const { geometry, records } = decodeArea(area);
  const isKnown = decodeArea(area, { pmsgSize: 32768, consoleSize: 0 }).records.every(
    ({ state }) => state === "ok",
  );
  assert.is(isKnown, true);
  assert.is(geometry.pmsgSize, 32768);
  assert.is(geometry.kmsgSize, 65536);
  assert.is(geometry.kmsgOffset, 32768);
  assert.equal(
    records.map(({ name, state }) => `${name} ${state}`),
    ["dmesg-pstore_blk-0 ok", "dmesg-pstore_blk-1 ok", "pmsg-pstore_blk-0 torn"],
  );
});

test("rings nobody wrote to: the zones are found where they start", () => {
  const zones = [1, 2, 3].map((counter) => buildZone(65536, { counter }));
  const { geometry, records } = decodeArea(buildArea(1048576, zones, 65536, 8192));
  assert.is(geometry.kmsgSize, 65536);
  assert.is(geometry.kmsgOffset, 8192);
  assert.is(records.length, 3);
});

test("ftrace cut into slices by three CPUs: kmsg zones at odd offsets", () => {
  const area = buildArea(
    65536,
    [buildZone(8192), buildZone(8192, { counter: 2, sequence: 1n })],
    8192,
    16382,
  );
  const sizes = { pmsgSize: 4096, consoleSize: 4096, ftraceSize: 8192 };
  for (const options of [sizes, { ...sizes, kmsgSize: 8192 }]) {
    const { geometry, records, zones } = decodeArea(area, options);
    assert.is(geometry.kmsgOffset, 16382);
    assert.is(geometry.kmsgSize, 8192);
    assert.is(geometry.kmsgCount, 6);
    assert.equal(
      records.map(({ state, sealed }) => `${state} ${sealed}`),
      ["ok false", "ok true"],
    );
    assert.equal(
      zones.slice(0, 3).map(({ type, state }) => `${type} ${state}`),
      ["pmsg empty", "console empty", "ftrace empty"],
    );
  }
  // The first zone lost: with the size known, the others still tell.
  area.fill(0, 16382, 16382 + 8192);
  const later = decodeArea(area, { ...sizes, kmsgSize: 8192 });
  assert.is(later.geometry.kmsgOffset, 16382);
  assert.is(later.records.length, 1);
});

test("ftrace slices: merged by time, later slice first, pieces dropped, CPUs found or told", () => {
  const record = (cpu: number, time: number) => {
    const view = new DataView(new ArrayBuffer(24));
    view.setBigUint64(0, BigInt(time), true);
    view.setBigUint64(16, BigInt(time * 256 + cpu), true);
    return new Uint8Array(view.buffer);
  };
  // As Linux cuts 8192 bytes for three CPUs: 2730 each, the third one wrapped, the second never written to.
  const slice = 2730;
  const area = buildArea(65536, [buildZone(8192), buildZone(8192, { counter: 2 })], 8192, 8190);
  const put = (cpu: number, data: Uint8Array, start: number) => {
    const ring = buildRing(slice, "GBGC", data.length, start);
    ring.set(data, 12);
    area.set(ring, cpu * slice);
  };
  put(0, Buffer.concat([1, 4, 6].map((time) => record(0, time))), 72);
  // 2718 bytes are 113 records and 6 bytes.
  const log = Buffer.concat([
    new Uint8Array(6).fill(7),
    ...Array.from({ length: 113 }, (_, i) => record(2, i + 4)),
  ]);
  put(2, Buffer.concat([log.subarray(-1000), log.subarray(0, -1000)]), 1000);
  const sizes = { pmsgSize: 0, consoleSize: 0, ftraceSize: 8192, kmsgSize: 8192 };
  for (const options of [sizes, { ...sizes, cpus: 3 }, { ...sizes, cpus: 0 }]) {
    const { geometry, records, zones } = decodeArea(area, options);
    assert.is(geometry.cpus, 3);
    assert.is(geometry.kmsgOffset, 8190);
    assert.equal(
      zones.slice(0, 4).map(({ type, index, offset, state }) => `${type} ${index} ${offset} ${state}`),
      ["ftrace 0 0 ok", "ftrace 1 2730 empty", "ftrace 2 5460 ok", "kmsg 0 8190 ok"],
    );
    const found = records.find(({ type }) => type === "ftrace");
    assert.is(found?.name, "ftrace-pstore_blk-0");
    assert.is(found?.raw?.length, 116 * 24);
    const lines = new TextDecoder().decode(found?.bytes).split("\n");
    assert.equal(
      lines.slice(0, 6).map((line) => line.slice(0, 10)),
      ["CPU:0 ts:1", "CPU:2 ts:4", "CPU:0 ts:4", "CPU:2 ts:5", "CPU:2 ts:6", "CPU:0 ts:6"],
    );
    assert.is(lines[0], "CPU:0 ts:1 00000001  00000000  0x1 <- 0x0");
  }
  for (const cpus of [-1, 1.5, 8193, Number.NaN]) {
    const { zones } = decodeArea(area, { ...sizes, cpus });
    assert.is(zones.length, Number.isNaN(cpus) ? 10 : 0, `${cpus}`);
  }
  // Nothing that a kernel could have merged.
  const huge = new Uint8Array(8 << 20);
  huge.set(buildRing(6 << 20, "GBGC", 5 << 20, 0));
  const decoded = decodeArea(huge, { kmsgSize: 65536, pmsgSize: 0, consoleSize: 0, ftraceSize: 6 << 20 });
  assert.is(decoded.zones[0]?.state, "torn");
  assert.is(decoded.records.length, 0);
});

test("the ABI: of the area by its zones, or as told", () => {
  const size = 4096;
  const zones = [buildZone(size, { abi: "i386" }), buildZone(size, { abi: "i386" }), buildZone(size)];
  const mixed = decodeArea(buildArea(65536, zones, size));
  assert.is(mixed.geometry.abi, "i386");
  assert.equal(
    mixed.records.map(({ abi }) => abi),
    ["i386", "i386", "lp64"],
  );
  assert.ok(mixed.records.every(({ bytes }) => textOf(bytes) === `Panic: Total 1 times\n${goldenPayload}`));
  const nothing = { timeSec: 0n, timeNsec: 0, counter: 0, reason: 4, payload: new Uint8Array(0) };
  const alone = decodeArea(buildArea(65536, [buildZone(size, nothing)], size));
  assert.is(alone.geometry.abi, "lp64");
  const forced = decodeArea(buildArea(65536, [buildZone(size)], size), { abi: "i386" });
  assert.is(forced.geometry.abi, "i386");
  assert.ok(forced.records.every(({ abi }) => abi === "i386"));
});

// --- The inflater ------------------------------------------------------------------------------------------

const MIB = 1048576;

test("inflate: what node:zlib deflates, by every level, strategy and window", () => {
  const inputs = [
    new Uint8Array(0),
    ascii("a"),
    logText(200000),
    new Uint8Array(100000),
    Uint8Array.from({ length: 70000 }, (_, index) => (Math.imul(index, 2654435761) >>> 13) & 0xff),
  ];
  const { Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED } = constants;
  let count = 0;
  for (const input of inputs) {
    for (const level of [0, 1, 6, 9]) {
      for (const strategy of [Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED]) {
        for (const windowBits of [9, 11, 15]) {
          const deflated = new Uint8Array(deflateRawSync(input, { level, strategy, windowBits }));
          const result = inflateRaw(deflated, MIB);
          assert.is(result.status, "ok");
          assert.is(result.consumedBytes, deflated.length);
          assert.is(sha256(result.bytes), sha256(input));
          count++;
        }
      }
    }
  }
  const deflated = deflateRawSync(logText(200000));
  const trailed = inflateRaw(new Uint8Array(Buffer.concat([deflated, Buffer.alloc(9, 0xff)])), MIB);
  assert.is(trailed.status, "ok");
  assert.is(trailed.consumedBytes, deflated.length);
  console.log(`# inflate: ${count} streams of node:zlib`);
});

test("inflate: limits, cuts, and streams that are none", () => {
  const text = logText(10000);
  const deflated = new Uint8Array(deflateRawSync(text));
  assert.is(inflateRaw(deflated, 10000).status, "ok");
  const limited = inflateRaw(deflated, 9999);
  assert.is(limited.status, "too-large");
  assert.equal(limited.bytes, text.subarray(0, limited.bytes.length).slice());
  assert.is(inflateRaw(deflated, 0).status, "too-large");
  assert.is(inflateRaw(deflated, -5).bytes.length, 0);
  for (let length = 0; length < deflated.length; length += 7) {
    const cut = inflateRaw(deflated.subarray(0, length), MIB);
    assert.is(cut.status, "truncated");
    assert.equal(cut.bytes, text.slice(0, cut.bytes.length));
  }
  const stored = new Uint8Array(deflateRawSync(text, { level: 0 }));
  const part = inflateRaw(stored, 100);
  assert.is(part.status, "too-large");
  assert.equal(part.bytes, text.slice(0, 100));
  assert.is(inflateRaw(hex("07"), MIB).status, "corrupt", "block type 3");
  assert.is(inflateRaw(hex("0100000000"), MIB).status, "corrupt", "stored length and its complement");
  assert.is(inflateRaw(hex("010500faff41"), MIB).status, "truncated", "stored, one byte of five");
  assert.is(inflateRaw(hex("0300"), MIB).status, "ok", "nothing at all");
  const emptyBlocks = new Uint8Array(5 * 70000);
  for (let at = 0; at < emptyBlocks.length; at += 5) emptyBlocks.set(hex("000000ffff"), at);
  assert.is(inflateRaw(emptyBlocks, MIB).status, "too-large", "too many blocks");
});

test("inflate: agrees with node:zlib on damaged streams", () => {
  const seeds = [logText(3000), new Uint8Array(3000), logText(300, 5)].flatMap((input) =>
    [0, 1, 6].flatMap((level) => [
      new Uint8Array(deflateRawSync(input, { level })),
      new Uint8Array(deflateRawSync(input, { level, strategy: constants.Z_FIXED })),
    ]),
  );
  let compared = 0;
  let accepted = 0;
  fc.assert(
    fc.property(
      fc.nat(seeds.length - 1),
      fc.array(fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      (seed, changes, isEarly) => {
        const stream = (seeds[seed] as Uint8Array).slice();
        for (const [where, mask] of changes) {
          const at = where % Math.min(stream.length, isEarly ? 80 : stream.length);
          stream[at] = (stream[at] as number) ^ mask;
        }
        let wanted: Uint8Array | null = null;
        try {
          wanted = new Uint8Array(inflateRawSync(stream, { maxOutputLength: 4 * MIB }));
        } catch {
          wanted = null;
        }
        const result = inflateRaw(stream, 4 * MIB);
        assert.is(result.status === "ok", wanted !== null);
        if (wanted !== null) {
          assert.is(Buffer.compare(result.bytes, wanted), 0);
          accepted++;
        }
        compared++;
      },
    ),
    { numRuns: 5000, seed: 20241109 },
  );
  console.log(`# inflate: ${compared} damaged streams as node:zlib, ${accepted} of them still streams`);
});

// --- Hostile bytes -----------------------------------------------------------------------------------------

function checkSane(area: Uint8Array, decoded: Decoded): void {
  const { geometry, records, zones } = decoded;
  assert.ok(geometry.kmsgOffset >= 0);
  assert.ok(
    geometry.kmsgCount === 0 || geometry.kmsgOffset + geometry.kmsgCount * geometry.kmsgSize <= area.length,
  );
  let shownBytes = 0;
  for (const record of records) {
    assert.is(record.size, record.bytes.length);
    assert.is(record.raw !== null, record.type === "ftrace");
    if (record.raw !== null) {
      // A line of text has at most 106 bytes, 24 as a record; of a 32-bit ABI 74 and 16.
      assert.ok(record.raw.length <= Math.min(geometry.ftraceSize, 4 * MIB));
      assert.ok(record.size <= record.raw.length * 5);
      continue;
    }
    if (record.type === "kmsg" && record.state === "torn") assert.is(record.sealed, false);
    if (!record.compressed)
      assert.ok(record.size <= Math.max(geometry.kmsgSize, geometry.pmsgSize, geometry.consoleSize) + 64);
    assert.ok(record.size <= 16 * MIB);
    shownBytes += record.size;
  }
  assert.ok(shownBytes <= area.length + records.length * 64 + 64 * MIB);
  for (const zone of zones) assert.ok(zone.offset >= 0 && zone.offset + zone.size <= area.length);
}

const anyOptions = fc.record(
  {
    kmsgSize: fc.constantFrom(undefined, 0, 512, 4096, 65536, -1, 1 << 30),
    pmsgSize: fc.constantFrom(undefined, 0, 512, 4096),
    consoleSize: fc.constantFrom(undefined, 0, 512, 4096),
    ftraceSize: fc.constantFrom(undefined, 0, 512, 4096),
    cpus: fc.constantFrom(undefined, 0, 1, 3, 8192, -1),
    abi: fc.constantFrom<Abi | undefined>(undefined, "lp64", "i386"),
  },
  { requiredKeys: [] },
);

test("any bytes at all: never throws, stays within bounds", () => {
  let runs = 0;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 6000 }), anyOptions, (area, options) => {
      checkSane(area, decodeArea(area, options));
      runs++;
    }),
    { numRuns: 3000, seed: 1 },
  );
  // Pieces of the format at places where they are looked for say more than noise does.
  const pieces = [
    golden.lp64,
    golden.i386,
    buildZone(512),
    buildZone(512, { sequence: 1n }),
    buildZone(1024, {
      sequence: 2n,
      compressed: true,
      payload: new Uint8Array(deflateRawSync(logText(900))),
    }),
    buildZone(4096, { sequence: 3n, payload: logText(3000) }),
    buildZone(4096, { sequence: 3n, payload: logText(3000) }).slice(3584),
    buildRing(512, "CBGC", 400, 20),
    buildRing(512, "FBGC", 500, 500),
    buildRing(512, "GBGC", 40, 0),
  ];
  const placed = fc.tuple(
    fc.nat(pieces.length - 1),
    fc.nat(63),
    fc.option(fc.constantFrom(-1, 0, 1, 39, 40, 501, 4000, 40000, 0x7fffffff), { nil: undefined }),
  );
  fc.assert(
    fc.property(fc.array(placed, { maxLength: 24 }), anyOptions, (parts, options) => {
      const area = new Uint8Array(32768);
      for (const [piece, sector, datalen] of parts) {
        const at = sector * 512;
        area.set((pieces[piece] as Uint8Array).subarray(0, area.length - at), at);
        if (datalen !== undefined) new DataView(area.buffer).setInt32(at + 4, datalen, true);
      }
      checkSane(area, decodeArea(area, options));
      runs++;
    }),
    { numRuns: 3000, seed: 2 },
  );
  console.log(`# any bytes: ${runs} areas`);
});

test("damaged real images: never throws, stays within bounds", () => {
  // The first three zones hold everything; whole images would only cost time.
  const images = imageNames.map((name) => loadImage(name).slice(0, 196608));
  let runs = 0;
  const change = fc.oneof(
    fc.tuple(fc.nat(63), fc.nat(255)), // headers
    fc.tuple(fc.nat(20000), fc.nat(255)),
  );
  fc.assert(
    fc.property(
      fc.nat(images.length - 1),
      fc.nat(1),
      fc.array(change, { minLength: 1, maxLength: 6 }),
      fc.boolean(),
      (image, zone, changes, isExplicit) => {
        const area = (images[image] as Uint8Array).slice();
        for (const [at, value] of changes) area[zone * 65536 + at] = value;
        checkSane(area, decodeArea(area, isExplicit ? { kmsgSize: 65536 } : undefined));
        runs++;
      },
    ),
    { numRuns: 2000, seed: 3 },
  );
  console.log(`# damaged images: ${runs} areas`);
});

test("no damage to sealed areas makes a record ok that is not, sizes found or given", () => {
  const size = 4096;
  const zones = [1, 2, 3].map((counter) =>
    buildZone(size, { payload: logText(3000, counter), counter, sequence: BigInt(counter) }),
  );
  const pristine = buildArea(32768, zones, size);
  const shown = new Set(decodeArea(pristine).records.map(({ bytes }) => sha256(bytes)));
  assert.is(shown.size, 3);
  let runs = 0;
  let ok = 0;
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(
          fc.nat(2),
          // Anything but the seal's sector: without its seal a record is Linux's, and served on trust.
          fc.oneof(fc.nat(11), fc.nat(51), fc.nat(3051)),
          fc.integer({ min: 1, max: 255 }),
        ),
        { minLength: 1, maxLength: 5 },
      ),
      fc.boolean(),
      (changes, isExplicit) => {
        const area = pristine.slice();
        for (const [zone, at, mask] of changes) {
          area[zone * size + at] = (area[zone * size + at] as number) ^ mask;
        }
        for (const record of decodeArea(area, isExplicit ? { kmsgSize: size } : undefined).records) {
          if (record.state !== "ok") continue;
          assert.ok(shown.has(sha256(record.bytes)));
          ok++;
        }
        runs++;
      },
    ),
    { numRuns: 3000, seed: 4 },
  );
  console.log(`# sealed areas: ${runs} damaged, ${ok} records still ok, all of them whole`);
});

test("hostile areas of 128 MiB and more", () => {
  const deflateBlocks = new Uint8Array(300).fill(0);
  const fills: [string, Uint8Array][] = [
    ["headers of 512-byte zones", buildZone(512)],
    ["sealed zones of 512 bytes", buildZone(512, { sequence: 1n })],
    ["headers with a datalen of 4 MiB", buildZone(512, { datalen: 4 * MIB - 100 })],
    ["compressed nothing", buildZone(512, { compressed: true, payload: deflateBlocks })],
    [
      "bombs",
      buildZone(16384, {
        compressed: true,
        payload: new Uint8Array(deflateRawSync(new Uint8Array(12 * MIB), { level: 9 })),
      }),
    ],
  ];
  const area = new Uint8Array(130 * MIB);
  for (const [name, piece] of fills) {
    for (let at = 0; at + piece.length <= area.length; at += piece.length) area.set(piece, at);
    // The square of anything here would be hours: scripts/test.mjs ends a file that takes more than minutes.
    const { geometry, records } = decodeArea(area);
    assert.is(geometry.areaSize, 128 * MIB);
    const total = records.reduce((sum, { size }) => sum + size, 0);
    assert.ok(total <= 4 * 128 * MIB + records.length * 64, name);
    console.log(`# 128 MiB of ${name}: ${records.length} records`);
  }
});

test.run();
