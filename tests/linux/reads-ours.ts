// Real Linux reads what our panic path wrote, byte for byte, and we read what it left: unmodified Debian kernels of both
// ABIs in QEMU. Run by `npm run test:linux`, which fails where it cannot run.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Abi } from "../../host/pstore/decode.js";
import { PANIC_LOG, pattern, ROOT, sameBytes } from "../machine.js";
import { mbrSector } from "../partition-table.js";
import { boot } from "./guest.js";
import { assertShown, type CardArea, decoded, type Panic, panicOn } from "./our-side.js";
import { type Architecture, ensureQemu, fetchKernel } from "./packages.js";

const IMAGE_BYTES = 2 << 20;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-linux-"));
let boots = 0;

function wholeCard(name: string, abi: Abi, content: Uint8Array): CardArea {
  const image = join(folder, name);
  writeFileSync(image, content);
  return { image, abi, offset: 0, sizeBytes: IMAGE_BYTES };
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
    const area = wholeCard(`${architecture}.img`, abi, new Uint8Array(IMAGE_BYTES));
    panicOn(area, LOGS);
    const before = readFileSync(area.image);
    const first = await boot(kernel, area.image, { remove: ["dmesg-pstore_blk-1"] });
    boots++;
    assert.is(first.files.length, 5);
    assertShown(first.files, decoded(area, before));
    assert.equal(first.removed, ["dmesg-pstore_blk-1"]);
    // Unlink changed datalen of that zone, and nothing else on the card.
    const after = readFileSync(area.image);
    const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
    assert.ok(changed.length > 0 && changed.every((at) => at >= 65536 + 4 && at < 65536 + 8), `${changed}`);
    assert.equal(
      decoded(area).records.map(({ id }) => id),
      [0, 2, 3, 4],
    );
    // The counters go on, and Linux shows the new record too.
    panicOn(area, [{ reason: "Oops", text: PANIC_LOG, timeSec: 1705095876n }]);
    assert.is(decoded(area).records.at(-1)?.count, 2);
    const second = await boot(kernel, area.image);
    boots++;
    assertShown(second.files, decoded(area));
    assert.is(second.files.length, 5);
  });

  test(`${architecture}: behind records that Linux itself wrote`, async () => {
    ensureQemu();
    const kernel = fetchKernel(architecture);
    const old = gunzipSync(readFileSync(`${ROOT}tests/data/linux-6.1/${written}.img.gz`));
    const area = wholeCard(`${architecture}-behind.img`, abi, old);
    panicOn(area, [
      { reason: "Panic", text: PANIC_LOG, timeSec: 1795000000n },
      { reason: "Oops", text: PANIC_LOG, timeSec: 1795000001n },
    ]);
    assert.equal(
      decoded(area).records.map(({ reason, count, sealed }) => [reason, count, sealed]),
      [
        ["Oops", 1, false],
        ["Oops", 2, false],
        ["Panic", 1, true],
        ["Oops", 3, true],
      ],
    );
    const { files } = await boot(kernel, area.image);
    boots++;
    assert.is(files.length, 4);
    assertShown(files, decoded(area));
  });
}

/** What a text of Linux begins with, and keeps when it loses its oldest bytes: docs/FORMAT.md. */
const FIRST_LINE = PANIC_LOG.subarray(0, PANIC_LOG.indexOf(10) + 1);

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
    const area = wholeCard(`${architecture}-deflated.img`, abi, new Uint8Array(IMAGE_BYTES));
    panicOn(
      area,
      DEFLATED_LOGS.map((panic) => ({ ...panic, compress: true })),
    );
    const { records } = decoded(area);
    // One byte more and the kernel shows the raw stream as .enc.z.
    const mostBytes = Math.floor(((65536 - 12 - headerBytes) * 100) / 60);
    const sizes = records.map(({ bytes }) => bytes.length);
    assert.equal([sizes[0], sizes[2]], [PANIC_LOG.length, mostBytes]);
    // Linux's line in front of the text, then whole lines.
    assert.ok((sizes[1] ?? 0) > mostBytes - 200 && (sizes[1] ?? 0) <= mostBytes, `${sizes}`);
    assert.ok(
      sizes.slice(3).every((size) => size > 65536 && size < mostBytes),
      `${sizes}`,
    );
    for (const [i, record] of records.entries()) {
      const text = DEFLATED_LOGS[i]?.text ?? new Uint8Array();
      assert.ok(record.compressed && record.sealed);
      const line = i === 1 ? FIRST_LINE : new Uint8Array();
      const tail = record.bytes.subarray(line.length);
      assert.ok(sameBytes(record.bytes.subarray(0, line.length), line), record.name);
      assert.ok(sameBytes(tail, text.subarray(text.length - tail.length)), record.name);
    }
    const { files } = await boot(kernel, area.image);
    boots++;
    assert.is(files.length, 5);
    assertShown(files, decoded(area));
  });
}

test("amd64: an area in a partition", async () => {
  ensureQemu();
  const kernel = fetchKernel("amd64");
  const bytes = new Uint8Array(4 << 20);
  // An MBR whose second entry is the last 2 MiB; the first is data.
  const data = { type: 0x83, first: 2048, count: 2048 };
  bytes.set(mbrSector([data, { type: 0x83, first: 4096, count: 4096 }]));
  bytes.set(pattern(4, 1 << 20), 1 << 20);
  const area: CardArea = {
    ...wholeCard("partition.img", "lp64", bytes),
    offset: 2 << 20,
    sizeBytes: 2 << 20,
  };
  panicOn(area, LOGS.slice(0, 2));
  const { files } = await boot(kernel, area.image, { device: "/dev/mmcblk0p2" });
  boots++;
  assert.is(files.length, 2);
  assertShown(files, decoded(area));
  assert.ok(sameBytes(readFileSync(area.image).subarray(0, 2 << 20), bytes.subarray(0, 2 << 20)));
});

test.after(() => {
  rmSync(folder, { recursive: true });
  console.log(`# ${boots} boots of unmodified Debian kernels`);
});
test.run();
