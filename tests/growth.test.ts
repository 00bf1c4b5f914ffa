// What grows with the input, and what must not: bytes read, bytes held, calls, blocks on the host's disk. Counted, never
// timed; bench/growth.ts has the seconds. Records through a window, a limit for each deflated record, erases that
// cost what they say and not what they cover, holes that stay holes.
import {
  closeSync,
  fdatasyncSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatTable } from "../host/cli/output.js";
import { SparseWriter } from "../host/cli/whole-file.js";
import type { ExternalMedium } from "../host/core/external-medium.js";
import { Device } from "../host/device.js";
import { OverlayMedium } from "../host/embed/overlay.js";
import { MmcError } from "../host/errors.js";
import { type FileCalls, RawImage } from "../host/image/raw.js";
import { openDiskDevice, openImageDevice, openRaw } from "../host/node.js";
import { decodeArea, decodeSource, type PstoreRecord } from "../host/pstore/decode.js";
import { coreModule, pattern, sameBytes } from "./machine.js";
import { buildZone } from "./zones.js";

const MIB = 1 << 20;
const GIB = 2 ** 30;

function withFolder(work: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "growth-"));
  try {
    work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A file that is one hole. */
function hole(path: string, sizeBytes: number): string {
  const fd = openSync(path, "wx");
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  return path;
}

const KIB_ON_DISK = (path: string) => statSync(path).blocks / 2;

// ---- records ----

const LOG = new TextEncoder().encode(
  "<4>[   12.345678] a line that stands in a log many times\n".repeat(700),
);

function areaOf(kmsgSize: number, zones: Uint8Array[]): Uint8Array {
  const area = new Uint8Array(kmsgSize * zones.length);
  for (const [i, zone] of zones.entries()) area.set(zone, i * kmsgSize);
  return area;
}

test("each of 2,048 deflated records is decoded, though they are 80 MB together", () => {
  const zone = buildZone(16384, { compressed: true, payload: new Uint8Array(deflateRawSync(LOG)) });
  const { records } = decodeArea(areaOf(16384, new Array<Uint8Array>(2048).fill(zone)));
  assert.is(records.length, 2048);
  assert.is(records.filter(({ state }) => state === "ok").length, 2048);
  assert.ok(records.length * LOG.length > 64 * MIB);
});

/** Sealed, plain, deflated, damaged and repeated records, behind rings. */
function mixedArea(kmsgSize: number): Uint8Array {
  const deflated = new Uint8Array(deflateRawSync(LOG.subarray(0, kmsgSize * 2)));
  const zones = Array.from({ length: 40 }, (_, i) => {
    const payload = i % 3 === 0 ? deflated : LOG.subarray(0, 200 + ((i * 97) % (kmsgSize - 400)));
    const sequence = i % 2 === 0 ? { sequence: BigInt(i < 36 ? i + 1 : 3) } : {};
    return buildZone(kmsgSize, { compressed: i % 3 === 0, payload, counter: i + 1, ...sequence });
  });
  zones[39] = zones[2] as Uint8Array;
  const area = areaOf(kmsgSize, zones);
  for (const [zone, at] of [
    [4, 12],
    [5, 0],
    [6, 80],
    [8, kmsgSize - 3],
  ] as const) {
    const place = zone * kmsgSize + at;
    area[place] = (area[place] as number) ^ 0x40;
  }
  area.fill(0, 10 * kmsgSize + 4, 10 * kmsgSize + 8);
  return area;
}

interface Counted {
  sizeBytes: number;
  reads: number;
  bytes: number;
  largest: number;
  read(offset: number, target: Uint8Array): void;
}

function countingSource(area: Uint8Array): Counted {
  return {
    sizeBytes: area.length,
    reads: 0,
    bytes: 0,
    largest: 0,
    read(offset, target) {
      this.reads++;
      this.bytes += target.length;
      this.largest = Math.max(this.largest, target.length);
      target.set(area.subarray(offset, offset + target.length));
    },
  };
}

function plainOf(record: PstoreRecord): object {
  return { ...record, bytes: Buffer.from(record.bytes).toString("hex") };
}

test("an area through a window says what an area in memory says, whatever the size of its zones", () => {
  for (const kmsgSize of [1024, 4096, 16384, 65536, 98304]) {
    const area = mixedArea(kmsgSize);
    for (const options of [{}, { kmsgSize, pmsgSize: 0, consoleSize: 0, ftraceSize: 0 }]) {
      const wanted = decodeArea(area, options);
      const source = countingSource(area);
      const found = decodeSource(source, options);
      assert.equal(found.geometry, wanted.geometry);
      assert.equal(found.zones, wanted.zones);
      for (const kind of ["records", "erased"] as const) {
        assert.equal(found[kind].map(plainOf), wanted[kind].map(plainOf), `${kind} of ${kmsgSize}`);
      }
    }
  }
});

test("a listing reads its area four and a half times at most, in pieces; a record is read when its bytes are asked for", () => {
  const kmsgSize = 65536;
  const area = mixedArea(kmsgSize);
  const source = countingSource(area);
  const { records } = decodeSource(source, {});
  assert.ok(source.bytes <= 4.5 * area.length, `${source.bytes} of ${area.length}`);
  assert.ok(source.largest <= kmsgSize + 4096, `${source.largest}`);
  const before = source.bytes;
  assert.ok(records.reduce((sum, { size }) => sum + size, 0) > 0);
  assert.is(source.bytes, before, "what is told of records costs nothing");
  const record = records.find(({ compressed }) => compressed) as PstoreRecord;
  assert.is(record.bytes.length, record.size);
  assert.ok(source.bytes > before);
  assert.ok(source.bytes - before <= 4 * kmsgSize, `${source.bytes - before}`);
  const [once, again] = [record.bytes, record.bytes];
  assert.is.not(once, again, "none is held");
});

test("a table of 74,525 rows", () => {
  const rows = Array.from({ length: 74_525 }, (_, i) => [`seg${i}`, String(i * 4096), "ok"]);
  const lines = formatTable(["NAME", "OFFSET", "STATE"], rows, [1]).split("\n");
  assert.is(lines.length, rows.length + 2);
  assert.match(lines[74_525] as string, /^seg74524 {2}305250304 {2}.*ok/);
});

// ---- erase on a medium elsewhere ----

interface Calls {
  writes: number[];
  erases: [number, number, number][];
}

function countingMedium(sizeBytes: number, canErase: boolean): ExternalMedium & Calls {
  const medium: ExternalMedium & Calls = {
    sizeBytes,
    writes: [],
    erases: [],
    read: (_, target) => void target.fill(0),
    write: (_, data) => void medium.writes.push(data.length),
  };
  if (canErase) medium.erase = (...range) => void medium.erases.push(range);
  return medium;
}

for (const card of ["emmc", "sd"] as const) {
  test(`${card}: an erase of 4 GiB is few calls to a medium that can erase, and pieces of 1 MiB to one that cannot`, () => {
    const able = countingMedium(4 * GIB, true);
    Device.openExternal(coreModule("embed"), able, { card }).erase(0, 4 * GIB);
    const erased = able.erases.reduce((sum, [, lengthBytes]) => sum + lengthBytes, 0);
    assert.is(erased, 4 * GIB);
    assert.ok(able.erases.length <= 64, `${able.erases.length} calls`);
    assert.equal(able.writes, []);
    assert.ok(able.erases.every(([, , byte]) => byte === 0));
    const unable = countingMedium(64 * MIB, false);
    Device.openExternal(coreModule("embed"), unable, { card }).erase(0, 64 * MIB);
    assert.is(
      unable.writes.reduce((sum, bytes) => sum + bytes, 0),
      64 * MIB,
    );
    assert.ok(unable.writes.every((bytes) => bytes <= MIB));
  });
}

// ---- overlays ----

function zeros(sizeBytes: number): OverlayMedium {
  return new OverlayMedium({ sizeBytes, read: (_, target) => void target.fill(0) });
}

test("an overlay keeps an erase of 64 GiB, and its saved state, in a few bytes", () => {
  const overlay = zeros(64 * GIB);
  for (let i = 0; i < 100; i++) overlay.write(i * 640 * MIB, pattern(i, 4096));
  assert.is(overlay.dirtySectors, 800);
  overlay.erase(0, 64 * GIB, 0);
  assert.is(overlay.dirtySectors, (64 * GIB) / 512);
  assert.ok(overlay.saveState().length < 100, `${overlay.saveState().length}`);
  overlay.write(GIB, pattern(3, 512));
  const state = overlay.saveState();
  assert.ok(state.length < 700, `${state.length}`);
  const other = zeros(64 * GIB);
  other.loadState(state);
  const target = new Uint8Array(1024);
  other.read(GIB, target);
  assert.ok(sameBytes(target, new Uint8Array([...pattern(3, 512), ...new Uint8Array(512)])));
});

test("overlays: 4,000 writes, erases, reads and saved states against plain bytes", () => {
  const sectors = 512;
  const seed = 20261129;
  console.log(`# overlay: seed ${seed}`);
  let word = seed;
  const below = (end: number) => {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return (word >>> 0) % end;
  };
  const base = pattern(1, sectors * 512 - 1000);
  const makeOverlay = () =>
    new OverlayMedium({
      sizeBytes: base.length,
      read: (offset, target) => {
        assert.ok(offset + target.length <= base.length);
        target.set(base.subarray(offset, offset + target.length));
      },
    });
  let overlay = makeOverlay();
  const model = new Uint8Array(sectors * 512);
  model.set(base);
  const touched = new Set<number>();
  for (let step = 0; step < 4000; step++) {
    const first = below(sectors);
    const count = 1 + below(Math.min(below(8) === 0 ? 300 : 20, sectors - first));
    const [from, until] = [first * 512, (first + count) * 512];
    const kind = below(5);
    if (kind < 2) {
      const data = pattern(step, until - from);
      overlay.write(from, data);
      model.set(data, from);
    } else if (kind === 2) {
      const byte = below(2) * 255;
      overlay.erase(from, until - from, byte);
      model.fill(byte, from, until);
    } else {
      const target = new Uint8Array(until - from);
      overlay.read(from, target);
      assert.ok(sameBytes(target, model.subarray(from, until)), `step ${step}`);
    }
    if (kind <= 2) for (let lba = first; lba < first + count; lba++) touched.add(lba);
    if (step % 200 === 0) {
      assert.is(overlay.dirtySectors, touched.size, `step ${step}`);
      const restored = makeOverlay();
      restored.loadState(overlay.saveState());
      assert.ok(sameBytes(restored.saveState(), overlay.saveState()));
      overlay = restored;
    }
  }
});

test("a damaged state of an overlay is refused, or is one; what was there stays when it is refused", () => {
  const good = zeros(MIB);
  good.write(512, pattern(1, 2048));
  good.erase(8192, 65536, 0xff);
  good.erase(100 * 512, 512, 0);
  const state = good.saveState();
  let refused = 0;
  for (let at = 0; at < state.length; at += at < 200 ? 1 : 97) {
    for (const broken of [state.subarray(0, at), new Uint8Array(state)]) {
      if (broken.length === state.length) broken[at] = (broken[at] as number) ^ 0x81;
      const overlay = zeros(MIB);
      overlay.write(0, pattern(9, 512));
      const before = overlay.saveState();
      try {
        overlay.loadState(broken);
      } catch (error) {
        assert.instance(error, MmcError);
        assert.ok(sameBytes(overlay.saveState(), before));
        refused++;
      }
    }
  }
  assert.ok(refused > 150, `${refused}`);
});

// ---- images ----

/** FileCalls that count what is written. */
function countingCalls(written: { bytes: number }): FileCalls {
  return {
    readSync,
    fdatasyncSync,
    closeSync,
    writeSync(fd, data, at, lengthBytes, offset) {
      written.bytes += lengthBytes;
      return writeSync(fd, data, at, lengthBytes, offset);
    },
  };
}

test("an image: an erase writes the blocks that are not erased yet, and keeps holes", () =>
  withFolder((folder) => {
    const path = hole(join(folder, "a.img"), 32 * MIB);
    const written = { bytes: 0 };
    const image = new RawImage(path, openSync(path, "r+"), 32 * MIB, true, countingCalls(written));
    image.writeSync(5 * MIB + 100, pattern(1, 10_000));
    image.writeSync(20 * MIB, pattern(2, 512));
    const before = KIB_ON_DISK(path);
    written.bytes = 0;
    image.eraseSync(0, 32 * MIB, 0);
    assert.ok(written.bytes > 0 && written.bytes <= 5 * 4096, `${written.bytes}`);
    assert.ok(KIB_ON_DISK(path) <= before, `${KIB_ON_DISK(path)} KiB`);
    assert.ok(readFileSync(path).every((byte) => byte === 0));
    image.eraseSync(512, 1024, 0xff);
    image.closeSync();
    const bytes = readFileSync(path);
    assert.ok(bytes.subarray(512, 1536).every((byte) => byte === 0xff));
    assert.is(bytes.indexOf(0xff), 512);
    assert.is(bytes.lastIndexOf(0xff), 1535);
  }));

test("a disk device: an erase of a sparse image of 256 MiB leaves it sparse", () =>
  withFolder((folder) => {
    const path = hole(join(folder, "disk.img"), 256 * MIB);
    const image = openRaw(path, { writable: true });
    const device = openDiskDevice(image, null, { card: "emmc" });
    device.write(MIB, pattern(1, 8192));
    device.flush();
    device.erase(0, 256 * MIB);
    assert.ok(sameBytes(device.read(MIB, 8192), new Uint8Array(8192)));
    image.closeSync();
    assert.ok(KIB_ON_DISK(path) < 1024, `${KIB_ON_DISK(path)} KiB`);
  }));

test("an image's device: an erase reaches the areas, and nothing else of the file", () =>
  withFolder((folder) => {
    const path = join(folder, "area.img");
    const fd = openSync(path, "wx");
    writeSync(fd, pattern(5, 2 * MIB));
    closeSync(fd);
    const before = readFileSync(path);
    const image = openRaw(path, { writable: true });
    const area = { offset: MIB, sizeBytes: 256 * 1024 };
    const found = decodeArea(new Uint8Array(area.sizeBytes), { kmsgSize: 65536 });
    const { device, overlaySectors } = openImageDevice(
      image,
      { ...area, geometry: found.geometry },
      { card: "emmc" },
    );
    device.erase(0, 2 * MIB);
    device.flush();
    assert.ok(device.read(0, 2 * MIB).every((byte) => byte === 0));
    assert.is(overlaySectors(), (2 * MIB - area.sizeBytes) / 512);
    image.closeSync();
    const after = readFileSync(path);
    assert.ok(after.subarray(MIB, MIB + area.sizeBytes).every((byte) => byte === 0));
    after.set(before.subarray(MIB, MIB + area.sizeBytes), MIB);
    assert.is(Buffer.compare(after, before), 0);
  }));

test("a file is written with holes where it is zero, to its last byte", () =>
  withFolder((folder) => {
    for (const [name, lengthBytes] of [
      ["behind", 3 * MIB + 5],
      ["all", 2 * MIB],
    ] as const) {
      const path = join(folder, name);
      const content = new Uint8Array(lengthBytes);
      if (name === "behind") content.set(pattern(1, 3000), MIB - 1000);
      const fd = openSync(path, "wx");
      const file = new SparseWriter(fd);
      for (let at = 0; at < content.length; at += 100_001) file.write(content.subarray(at, at + 100_001));
      file.end();
      closeSync(fd);
      assert.is(Buffer.compare(readFileSync(path), content), 0, name);
      assert.ok(KIB_ON_DISK(path) <= 256, `${name}: ${KIB_ON_DISK(path)} KiB`);
    }
  }));

test.run();
