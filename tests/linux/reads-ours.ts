// Real Linux reads what our panic path wrote, byte for byte, and we read what it left: unmodified Debian kernels of both
// ABIs in QEMU. Run by `npm run test:linux`, which fails where it cannot run.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Reason } from "../../host/device.js";
import { openImageDevice, openRaw } from "../../host/node.js";
import type { Abi } from "../../host/pstore/decode.js";
import { decodeArea, findGeometry } from "../../host/pstore/decode.js";
import { PANIC_LOG, pattern, ROOT, sameBytes } from "../machine.js";
import { boot, type GuestFile } from "./guest.js";
import { type Architecture, ensureQemu, fetchKernel } from "./packages.js";

const IMAGE_BYTES = 2 << 20;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-linux-"));
let boots = 0;

interface Panic {
  reason: Reason;
  text: Uint8Array;
  timeSec: bigint;
}

/** Panics on `image` through the simulated card, in the middle of a write. */
function panicOn(
  image: string,
  abi: Abi,
  panics: Panic[],
  offset = 0,
  sizeBytes = IMAGE_BYTES,
  compress = false,
): void {
  for (const { reason, text, timeSec } of panics) {
    const raw = openRaw(image, { writable: true });
    const area = new Uint8Array(sizeBytes);
    raw.readSync(offset, area);
    const geometry = findGeometry(area, { kmsgSize: 65536, pmsgSize: 0, consoleSize: 0, ftraceSize: 0, abi });
    const { device } = openImageDevice(raw, { offset, sizeBytes, geometry }, { card: "sd", compress });
    device.leaveInFlight("write", device.sizeBytes - 8 * 512);
    const result = device.panicWrite({ reason, text, timeSec, timeNsec: 5 });
    assert.is(result.status, 0);
    raw.closeSync();
  }
}

function ours(image: string, offset = 0, sizeBytes = IMAGE_BYTES) {
  return decodeArea(new Uint8Array(readFileSync(image)).subarray(offset, offset + sizeBytes)).records;
}

/** The guest's files against what decode.ts reads from the same image, one by one. */
function assertSame(files: GuestFile[], image: string, offset = 0, sizeBytes = IMAGE_BYTES): void {
  const records = ours(image, offset, sizeBytes);
  assert.equal(files.map(({ name }) => name).sort(), records.map(({ name }) => name).sort());
  for (const file of files) {
    const record = records.find(({ name }) => name === file.name);
    assert.ok(record && sameBytes(file.bytes, record.bytes), `${file.name}: bytes differ`);
    assert.is(file.mtimeSec, Number(record?.timeSec), `${file.name}: time`);
    assert.is(record?.state, "ok");
  }
}

const LOGS: Panic[] = [
  { reason: "Panic", text: PANIC_LOG, timeSec: 1705095871n },
  { reason: "Oops", text: Buffer.from("Oops#2 Part1\n<0>[    1.0] short\n"), timeSec: 1705095872n },
  {
    reason: "Panic",
    text: Buffer.from(pattern(3, 65536).map((byte) => 32 + (byte & 63))),
    timeSec: 1705095873n,
  },
  { reason: "Emergency", text: PANIC_LOG.subarray(0, 460), timeSec: 1705095874n },
  { reason: "Shutdown", text: PANIC_LOG.subarray(0, 461), timeSec: 1705095875n },
];

for (const [architecture, abi, written] of [
  ["amd64", "lp64", "lp64-plain"],
  ["i386", "i386", "i386-oops"],
] as [Architecture, Abi, string][]) {
  test(`${architecture}: five records of ours, one removed by Linux, then ours again`, async () => {
    ensureQemu();
    const kernel = fetchKernel(architecture);
    const image = join(folder, `${architecture}.img`);
    writeFileSync(image, new Uint8Array(IMAGE_BYTES));
    panicOn(image, abi, LOGS);
    const before = readFileSync(image);
    const first = await boot(kernel, image, { remove: ["dmesg-pstore_blk-1"] });
    boots++;
    assert.is(first.files.length, 5);
    writeFileSync(`${image}.before`, before);
    assertSame(first.files, `${image}.before`);
    assert.equal(first.removed, ["dmesg-pstore_blk-1"]);
    // Unlink changed datalen of that zone, and nothing else on the card.
    const after = readFileSync(image);
    const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
    assert.ok(changed.length > 0 && changed.every((at) => at >= 65536 + 4 && at < 65536 + 8), `${changed}`);
    assert.equal(
      ours(image).map(({ id }) => id),
      [0, 2, 3, 4],
    );
    // The counters go on, and Linux shows the new record too.
    panicOn(image, abi, [{ reason: "Oops", text: PANIC_LOG, timeSec: 1705095876n }]);
    assert.is(ours(image).at(-1)?.count, 2);
    const second = await boot(kernel, image);
    boots++;
    assertSame(second.files, image);
    assert.is(second.files.length, 5);
  });

  test(`${architecture}: behind records that Linux itself wrote`, async () => {
    ensureQemu();
    const kernel = fetchKernel(architecture);
    const image = join(folder, `${architecture}-behind.img`);
    writeFileSync(image, gunzipSync(readFileSync(`${ROOT}tests/data/linux-6.1/${written}.img.gz`)));
    panicOn(image, abi, [
      { reason: "Panic", text: PANIC_LOG, timeSec: 1795000000n },
      { reason: "Oops", text: PANIC_LOG, timeSec: 1795000001n },
    ]);
    assert.equal(
      ours(image).map(({ reason, count, sealed }) => [reason, count, sealed]),
      [
        ["Oops", 1, false],
        ["Oops", 2, false],
        ["Panic", 1, true],
        ["Oops", 3, true],
      ],
    );
    const { files } = await boot(kernel, image);
    boots++;
    assert.is(files.length, 4);
    assertSame(files, image);
  });
}

/** Logs that are deflated: all of one, as much as Linux 6.1 inflates of another, and as much as a zone takes. */
const DEFLATED_LOGS: Panic[] = [
  { reason: "Panic", text: PANIC_LOG, timeSec: 1705095881n },
  { reason: "Oops", text: Buffer.concat(Array.from({ length: 6 }, () => PANIC_LOG)), timeSec: 1705095882n },
  { reason: "Panic", text: Buffer.from(pattern(5, 131072).toString()), timeSec: 1705095883n },
  { reason: "Oops", text: pattern(6, 131072).map((byte) => 32 + (byte & 31)), timeSec: 1705095884n },
  { reason: "Panic", text: pattern(7, 131072).map((byte) => 32 + (byte & 63)), timeSec: 1705095885n },
];

for (const [architecture, abi, headerBytes] of [
  ["amd64", "lp64", 40],
  ["i386", "i386", 28],
] as [Architecture, Abi, number][]) {
  test(`${architecture}: five deflated records of ours`, async () => {
    ensureQemu();
    const kernel = fetchKernel(architecture);
    const image = join(folder, `${architecture}-deflated.img`);
    writeFileSync(image, new Uint8Array(IMAGE_BYTES));
    panicOn(image, abi, DEFLATED_LOGS, 0, IMAGE_BYTES, true);
    const records = ours(image);
    // One byte more and the kernel shows the raw stream as .enc.z.
    const mostBytes = Math.floor(((65536 - 12 - headerBytes) * 100) / 60);
    const sizes = records.map(({ bytes }) => bytes.length);
    assert.equal(sizes.slice(0, 3), [PANIC_LOG.length, mostBytes, mostBytes]);
    assert.ok(
      sizes.slice(3).every((size) => size > 65536 && size < mostBytes),
      `${sizes}`,
    );
    for (const [i, record] of records.entries()) {
      const text = DEFLATED_LOGS[i]?.text ?? new Uint8Array();
      assert.ok(record.compressed && record.sealed);
      assert.ok(sameBytes(record.bytes, text.subarray(text.length - record.bytes.length)), record.name);
    }
    const { files } = await boot(kernel, image);
    boots++;
    assert.is(files.length, 5);
    assertSame(files, image);
  });
}

test("amd64: an area in a partition", async () => {
  const kernel = fetchKernel("amd64");
  const image = join(folder, "partition.img");
  const bytes = new Uint8Array(4 << 20);
  // An MBR whose second entry is the last 2 MiB; the first is data.
  const table = new DataView(bytes.buffer, 446);
  for (const [i, firstLba, sectors] of [
    [0, 2048, 2048],
    [1, 4096, 4096],
  ] as const) {
    table.setUint8(i * 16 + 4, 0x83);
    table.setUint32(i * 16 + 8, firstLba, true);
    table.setUint32(i * 16 + 12, sectors, true);
  }
  bytes.set([0x55, 0xaa], 510);
  bytes.set(pattern(4, 1 << 20), 1 << 20);
  writeFileSync(image, bytes);
  panicOn(image, "lp64", LOGS.slice(0, 2), 2 << 20, 2 << 20);
  const { files } = await boot(kernel, image, { device: "/dev/mmcblk0p2" });
  boots++;
  assert.is(files.length, 2);
  assertSame(files, image, 2 << 20, 2 << 20);
  assert.ok(sameBytes(readFileSync(image).subarray(0, 2 << 20), bytes.subarray(0, 2 << 20)));
});

test.after(() => {
  rmSync(folder, { recursive: true });
  console.log(`# ${boots} boots of unmodified Debian kernels`);
});
test.run();
