// Real Linux reads the rings that we wrote, byte for byte, and we read what it left of them. Debian builds no front-end
// that would write them, so Linux's part is to show them, to remove one, and to write its own Oops behind them. ftrace is
// shown by no kernel that was built without it: its slices must not be in the way, and must be there afterwards.
// Run by `npm run test:linux`, which fails where it cannot run.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { openImageDevice, openRaw } from "../../host/node.js";
import { type Abi, type Decoded, decodeArea, findGeometry } from "../../host/pstore/decode.js";
import { PANIC_LOG, pattern, sameBytes } from "../machine.js";
import { boot, type GuestFile } from "./guest.js";
import { type Architecture, ensureQemu, fetchKernel } from "./packages.js";

const IMAGE_BYTES = 2 << 20;
const KIB = 1024;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-linux-rings-"));
let boots = 0;

interface Layout {
  pmsgSize: number;
  consoleSize: number;
  ftraceSize: number;
  cpus: number;
}

function sizesOf(abi: Abi, layout: Layout) {
  return { kmsgSize: 65536, abi, ...layout };
}

function parameters({ pmsgSize, consoleSize, ftraceSize }: Layout): string {
  return `pmsg_size=${pmsgSize / KIB} console_size=${consoleSize / KIB} ftrace_size=${ftraceSize / KIB}`;
}

function decoded(image: string, abi: Abi, layout: Layout): Decoded {
  return decodeArea(readFileSync(image), sizesOf(abi, layout));
}

/** One boot of ours on the image: what was said in it, flushed and not, and a panic at its end. */
function bootOfOurs(image: string, abi: Abi, layout: Layout, said: Uint8Array[], timeSec: bigint): void {
  const raw = openRaw(image, { writable: true });
  const geometry = findGeometry(readFileSync(image), sizesOf(abi, layout));
  const { device } = openImageDevice(raw, { offset: 0, sizeBytes: IMAGE_BYTES, geometry }, { card: "sd" });
  for (const [i, bytes] of said.entries()) {
    device.writeConsole(bytes);
    device.writePmsg(bytes.subarray(0, bytes.length >> 1));
    if (layout.ftraceSize > 0) device.writeFtrace([{ cpu: i % layout.cpus, ip: BigInt(i), parentIp: 1n }]);
    // The last is in memory alone when the panic comes.
    if (i < said.length - 1) device.flushRings();
  }
  device.leaveInFlight("write", device.sizeBytes - 4096);
  const result = device.panicWrite({ text: PANIC_LOG, timeSec, timeNsec: 5 });
  assert.is(result.status, 0);
  assert.is(result.ringsStatus, 0);
  raw.closeSync();
}

/** Every file that Linux shows is ours byte for byte, and none but ftrace is missing. */
function assertShown(files: GuestFile[], { records }: Decoded): void {
  const expected = records.filter(({ type }) => type !== "ftrace");
  assert.equal(files.map(({ name }) => name).sort(), expected.map(({ name }) => name).sort());
  for (const { name, bytes } of files) {
    const record = expected.find((one) => one.name === name);
    assert.is(record?.state, "ok");
    assert.ok(record && sameBytes(bytes, record.bytes), `${name}: bytes differ`);
  }
}

/** Text, because that is what a console says. */
function said(seed: number, lengthBytes: number): Uint8Array {
  return pattern(seed, lengthBytes).map((byte) => 32 + (byte & 63));
}

const LAYOUTS: Record<string, Layout> = {
  "pmsg and console": { pmsgSize: 8 * KIB, consoleSize: 16 * KIB, ftraceSize: 0, cpus: 1 },
  "all three": { pmsgSize: 4 * KIB, consoleSize: 4 * KIB, ftraceSize: 8 * KIB, cpus: 1 },
};

for (const [architecture, abi] of [
  ["amd64", "lp64"],
  ["i386", "i386"],
] as [Architecture, Abi][]) {
  for (const [name, layout] of Object.entries(LAYOUTS)) {
    test(`${architecture}, ${name}: short, full and wrapped; one removed by Linux; an Oops behind them`, async () => {
      ensureQemu();
      const kernel = fetchKernel(architecture);
      const image = join(folder, `${architecture}-${name.replaceAll(" ", "-")}.img`);
      writeFileSync(image, new Uint8Array(IMAGE_BYTES));
      const sizes = parameters(layout);
      const last = (bytes: number, all: Uint8Array[]) => Buffer.concat(all).subarray(-(bytes - 12));

      // Not full yet.
      const short = [said(1, 300), said(2, 900)];
      bootOfOurs(image, abi, layout, short, 1795000000n);
      const first = await boot(kernel, image, { sizes });
      boots++;
      assertShown(first.files, decoded(image, abi, layout));
      const shown = first.files.find((file) => file.name === "console-pstore_blk-0");
      assert.ok(shown && sameBytes(shown.bytes, Buffer.concat(short)));

      // Over the end, more than once.
      const long = [said(3, 15_000), said(4, 3000), said(5, 5000)];
      bootOfOurs(image, abi, layout, long, 1795000001n);
      const before = readFileSync(image);
      const second = await boot(kernel, image, { sizes, remove: ["console-pstore_blk-0"], oopses: 1 });
      boots++;
      assertShown(second.files, decodeArea(before, sizesOf(abi, layout)));
      const wrapped = second.files.find((file) => file.name === "console-pstore_blk-0");
      assert.ok(wrapped && sameBytes(wrapped.bytes, last(layout.consoleSize, long)));

      // Linux removed one ring and wrote a record: the others are as they were, and we read all of it.
      const after = decoded(image, abi, layout);
      const names = after.records.map((record) => record.name);
      assert.not.ok(names.includes("console-pstore_blk-0"));
      assert.is(after.zones.find(({ type }) => type === "console")?.state, "erased");
      assert.is(after.records.find(({ id, type }) => type === "kmsg" && id === 2)?.reason, "Oops");
      const pmsgAndFtrace = (bytes: Uint8Array) => [
        bytes.subarray(0, layout.pmsgSize),
        bytes.subarray(
          layout.pmsgSize + layout.consoleSize,
          layout.pmsgSize + layout.consoleSize + layout.ftraceSize,
        ),
      ];
      const now = readFileSync(image);
      assert.equal(pmsgAndFtrace(now), pmsgAndFtrace(before));

      // Ours again behind it.
      bootOfOurs(image, abi, layout, [said(6, 700)], 1895000000n);
      const third = await boot(kernel, image, { sizes });
      boots++;
      assertShown(third.files, decoded(image, abi, layout));
      assert.is(third.files.length, 6);
    });
  }
}

test.after(() => {
  rmSync(folder, { recursive: true, force: true });
  console.log(`# ${boots} boots of unmodified Debian kernels on our rings`);
});
test.run();
