// The ramoops of an unmodified kernel against ours: a guest panics with ECC on, its RAM is kept in a file, bytes of the
// region are broken, and the next boot of the same kernel on the same RAM says what it reads and what it corrected. Run
// by `npm run test:linux`. With a folder as argument the regions as the panics left them are put there (tests/data).

import { createHash } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { gzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { newestRecord, type RamoopsOptions, readRamoops } from "../../host/embed/ramoops.js";
import { sameBytes } from "../machine.js";
import { type GuestFile, makeInitramfs, parse, runQemu } from "./guest.js";
import { CACHE, ensureQemu, fetchKernel } from "./packages.js";

const ADDRESS = 0x8000000;
const MODULES = ["lib/reed_solomon/reed_solomon", "fs/pstore/ramoops"];
const RAM = `${CACHE}/ramoops-${process.pid}.ram`;
const INITRD = `${CACHE}/ramoops-${process.pid}.gz`;
const GOLDEN = process.argv[2];

interface Layout {
  name: string;
  memSize: number;
  /** The kernel's own names. */
  parameters: string;
  /** `none` or a compressor of the kernel's. */
  compress: string;
  /** The same for us; without, it is to be found. */
  options?: RamoopsOptions;
  zones: string[];
}

const LAYOUTS: Layout[] = [
  {
    name: "ecc-deflate",
    memSize: 0x10000,
    parameters: "record_size=0x8000 console_size=0 ftrace_size=0 pmsg_size=0 ecc=1",
    compress: "deflate",
    zones: ["dmesg 0 32768", "dmesg 32768 32768"],
  },
  {
    // 52 KiB hold three records of 16 KiB, so each gets a third, of even size.
    name: "ecc-plain",
    memSize: 0x10000,
    parameters: "record_size=0x4000 console_size=0x1000 ftrace_size=0x1000 pmsg_size=0x1000 ecc=1",
    compress: "none",
    options: { recordSize: 0x4000, consoleSize: 0x1000, ftraceSize: 0x1000, pmsgSize: 0x1000, eccSize: 1 },
    zones: [
      "dmesg 0 17748",
      "dmesg 17748 17748",
      "dmesg 35496 17748",
      "console 53244 4096",
      "ftrace 57340 4096",
      "pmsg 61436 4096",
    ],
  },
  {
    // The rings that the module makes unless told not to, of 4 KiB each; the layout is found.
    name: "ecc-8",
    memSize: 0x10000,
    parameters: "record_size=0x8000 ecc=8",
    compress: "deflate",
    zones: ["dmesg 0 53248", "console 53248 4096", "ftrace 57344 4096", "pmsg 61440 4096"],
  },
];

/** One boot on the RAM file; `lines` run once ramoops is there. */
async function bootOnRam(layout: Layout, lines: string[]): Promise<string> {
  const kernel = fetchKernel("amd64");
  const script = [
    "#!/bin/busybox sh",
    "b=/bin/busybox",
    "$b mount -t proc proc /proc",
    "$b mount -t sysfs sys /sys",
    "$b mount -t devtmpfs dev /dev",
    "$b stty -F /dev/ttyS0 -opost 2>/dev/null",
    "$b insmod /mod/reed_solomon.ko",
    `$b insmod /mod/ramoops.ko mem_address=${ADDRESS} mem_size=${layout.memSize} ${layout.parameters}`,
    ...lines,
  ];
  makeInitramfs(INITRD, kernel, MODULES, `${script.join("\n")}\n`);
  const memory = `memory-backend-file,id=ram,size=256M,share=on,mem-path=${RAM}`;
  const args = ["-accel", "tcg", "-M", "pc,memory-backend=ram", "-object", memory, "-m", "256"];
  args.push("-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot");
  args.push("-kernel", kernel.image, "-initrd", INITRD, "-append");
  args.push(
    `console=ttyS0 quiet panic=-1 nokaslr memmap=${layout.memSize}$${ADDRESS} pstore.compress=${layout.compress} ` +
      "tsc=reliable mitigations=off random.trust_cpu=on",
  );
  return (await runQemu(args)).output;
}

function readRegion(layout: Layout): Uint8Array {
  const region = new Uint8Array(layout.memSize);
  const fd = openSync(RAM, "r");
  assert.is(readSync(fd, region, 0, region.length, ADDRESS), region.length);
  closeSync(fd);
  return region;
}

function writeRegion(region: Uint8Array): void {
  const fd = openSync(RAM, "r+");
  writeSync(fd, region, 0, region.length, ADDRESS);
  closeSync(fd);
}

/** What the next boot of the kernel shows. */
async function linuxReads(layout: Layout): Promise<GuestFile[]> {
  const output = await bootOnRam(layout, [
    "$b mount -t pstore pstore /sys/fs/pstore || echo '@error mount'",
    "cd /sys/fs/pstore",
    'for f in $($b ls -1); do echo "@file $f $($b stat -c %Y $f)"; $b base64 $f; echo "@done"; done',
    "echo '@end'",
    // What the serial line has not sent by then would be lost.
    "$b sleep 2",
    "$b poweroff -f",
  ]);
  assert.ok(output.includes("@end") && !output.includes("@error"), output.slice(-2000));
  return parse(output).files;
}

/** Our record with what Linux appends to its file. */
function asLinuxShows(region: Uint8Array, options: RamoopsOptions): { name: string; bytes: Uint8Array }[] {
  return readRamoops(region, options).records.map(({ name, bytes, ecc }) => {
    const { correctedBytes, badBlocks } = ecc ?? { correctedBytes: 0, badBlocks: 0 };
    const notice =
      correctedBytes + badBlocks === 0
        ? "\nECC: No errors detected\n"
        : `\nECC: ${correctedBytes} Corrected bytes, ${badBlocks} unrecoverable blocks\n`;
    return { name, bytes: Buffer.concat([bytes, Buffer.from(notice)]) };
  });
}

/** A byte of the region and what it is XORed with. */
type Damage = [offset: number, bits: number][];

function wrongBytes(at: number, count: number): Damage {
  return Array.from({ length: count }, (_, i) => [at + i * 3, 0x5a + i]);
}

/** What Linux showed, for tests/ramoops.test.ts, which has no Linux. */
interface Shown {
  region: string;
  damage: Damage;
  name: string;
  sizeBytes: number;
  sha256: string;
}
const shown: Shown[] = [];

ensureQemu();
mkdirSync(CACHE, { recursive: true });
for (const layout of LAYOUTS) {
  test(`${layout.name}: a panic, then the same kernel's next boot, with bytes of the region broken`, async () => {
    rmSync(RAM, { force: true });
    await bootOnRam(layout, ["echo 'region to keep' > /dev/kmsg", "echo c > /proc/sysrq-trigger"]);
    const golden = readRegion(layout);
    if (GOLDEN !== undefined)
      writeFileSync(`${GOLDEN}/${layout.name}.bin.gz`, gzipSync(golden, { level: 9 }));
    const read = readRamoops(golden, layout.options);
    assert.equal(
      read.zones.map(({ type, offset, size }) => `${type} ${offset} ${size}`),
      layout.zones,
    );
    const record = newestRecord(read.records, "Panic");
    assert.is(record?.state, "ok");
    assert.equal(read.ecc, { correctedBytes: 0, badBlocks: 0 });
    assert.ok(Buffer.from(record?.bytes ?? []).includes("region to keep"));
    if (GOLDEN !== undefined)
      writeFileSync(`${GOLDEN}/${layout.name}.bin.gz`, gzipSync(golden, { level: 9 }));

    const half = read.eccSize / 2;
    const parityOfHeader = (read.zones[0]?.size ?? 0) - read.eccSize;
    const kept = `${RAM}.panic`;
    copyFileSync(RAM, kept);
    const correctable = [
      ...wrongBytes(0, 2),
      ...wrongBytes(parityOfHeader, half - 2),
      ...wrongBytes(12, half),
      ...wrongBytes(12 + 128 * 3, half),
    ];
    const damages: Record<string, Damage> = {
      "no damage": [],
      "all that can be corrected": correctable,
      // Only where the text is not compressed: what a broken stream gives is zlib's own business.
      ...(layout.compress === "none"
        ? { "one byte too many": [...wrongBytes(12, half), ...wrongBytes(12 + 128 * 5, half + 1)] }
        : {}),
    };
    for (const [what, damage] of Object.entries(damages)) {
      copyFileSync(kept, RAM);
      const region = golden.slice();
      for (const [at, bits] of damage) region[at] = (region[at] as number) ^ bits;
      writeRegion(region);
      const expected = asLinuxShows(region, layout.options ?? {});
      const files = await linuxReads(layout);
      assert.equal(
        files.map(({ name }) => name),
        expected.map(({ name }) => name),
        what,
      );
      for (const [i, file] of files.entries()) {
        const bytes = expected[i]?.bytes ?? new Uint8Array(0);
        assert.ok(sameBytes(file.bytes, bytes), `${what}: ${Buffer.from(file.bytes.slice(-80))}`);
        const sha256 = createHash("sha256").update(file.bytes).digest("hex");
        shown.push({ region: layout.name, damage, name: file.name, sizeBytes: file.bytes.length, sha256 });
      }
      const ecc = readRamoops(region, layout.options).ecc;
      console.log(
        `# ${layout.name}, ${what}: ${files.length} file as Linux shows it, ${JSON.stringify(ecc)}`,
      );
    }
    rmSync(kept);
  });
}

test.after(() => {
  if (GOLDEN !== undefined) writeFileSync(`${GOLDEN}/expected.json`, `${JSON.stringify(shown)}\n`);
  for (const file of [RAM, `${RAM}.panic`, INITRD]) rmSync(file, { force: true });
});
test.run();
