// What a command does with bytes that are not ours: each kind of image, file system and dump that people have, in front
// of every command, with and without a pstore zone somewhere in it. The magic numbers here are written down once more,
// from the formats' documents, and not taken from the table under test.
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { run } from "./inside.js";
import { gptPieces } from "./partition-table.js";
import { buildZone } from "./zones.js";

const KIB = 1024;
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-front-door-"));
let made = 0;

function file(bytes: Uint8Array): string {
  const path = join(folder, `f${made++}.img`);
  writeFileSync(path, bytes);
  return path;
}

function digest(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

const log = file(new TextEncoder().encode("Panic#1 Part1\n<0>[    1.0] BOOM\n"));
const payload = new TextEncoder().encode("Panic#1 Part1\n<0>[    1.0] a record in somebody's image\n");

/** A pseudo-random sequence that repeats itself. */
function noise(lengthBytes: number, seed = 1): Uint8Array {
  let word = seed >>> 0 || 1;
  return Uint8Array.from({ length: lengthBytes }, () => {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return word & 0xff;
  });
}

/** Name of the kind → pieces of it by offset, and what the line must name. */
interface Kind {
  says: RegExp;
  pieces: [number, string | number[]][];
  /** Offsets in it are not those of a disk: no zone in it is one. */
  packed?: boolean;
}

const ext = (compat: number, incompat: number): [number, number[]][] => [
  [0x400, [16, 0, 0, 0, 64, 0, 0, 0]],
  [0x438, [0x53, 0xef]],
  [0x44c, [1, 0, 0, 0]],
  [0x45c, [compat, 0, 0, 0]],
  [0x460, [incompat & 255, incompat >> 8, 0, 0]],
];
const fat: [number, number[]][] = [
  [0, [0xeb, 0x3c, 0x90]],
  [11, [0, 2, 4, 1, 0, 2, 0, 2, 0, 8, 0xf8]],
  [510, [0x55, 0xaa]],
];

const KINDS: Record<string, Kind> = {
  qcow: { says: /a qcow image/, pieces: [[0, "QFI\xfb\0\0\0\x01"]], packed: true },
  qcow2: { says: /a qcow2 image.*qemu-img convert -O raw/, pieces: [[0, "QFI\xfb\0\0\0\x03"]], packed: true },
  vmdk: { says: /a VMDK/, pieces: [[0, "KDMV\x01\0\0\0"]], packed: true },
  "vmdk descriptor": {
    says: /descriptor of a VMDK/,
    pieces: [[0, "# Disk DescriptorFile\nversion=1\n"]],
    packed: true,
  },
  vdi: { says: /a VDI/, pieces: [[0x40, [0x7f, 0x10, 0xda, 0xbe]]], packed: true },
  vhd: { says: /a VHD image/, pieces: [[0, "conectix"]], packed: true },
  vhdx: { says: /a VHDX/, pieces: [[0, "vhdxfile"]], packed: true },
  "android sparse": {
    says: /Android sparse.*simg2img/,
    pieces: [[0, [0x3a, 0xff, 0x26, 0xed, 1, 0]]],
    packed: true,
  },
  dmg: { says: /DMG/, pieces: [[256 * KIB - 512, "koly\0\0\0\x04"]], packed: true },
  xz: { says: /xz-compressed.*xz -d/, pieces: [[0, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]]], packed: true },
  zstd: { says: /zstd-compressed.*zstd -d/, pieces: [[0, [0x28, 0xb5, 0x2f, 0xfd]]], packed: true },
  lz4: { says: /lz4-compressed.*lz4 -d/, pieces: [[0, [0x04, 0x22, 0x4d, 0x18]]], packed: true },
  bzip2: { says: /bzip2-compressed.*bzip2 -d/, pieces: [[0, "BZh91AY&SY"]], packed: true },
  zip: { says: /zip archive/, pieces: [[0, "PK\x03\x04"]], packed: true },
  "7z": { says: /7z archive/, pieces: [[0, [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c]]], packed: true },
  tar: { says: /tar archive/, pieces: [[257, "ustar\x0000"]], packed: true },
  kdump: { says: /kdump-compressed/, pieces: [[0, "KDUMP   "]], packed: true },
  flattened: { says: /flattened dump of makedumpfile/, pieces: [[0, "makedumpfile\0\0\0\0"]], packed: true },
  mbr: {
    says: /partition/,
    pieces: [
      [446, [0x80, 0, 2, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 64, 0, 0, 0]],
      [510, [0x55, 0xaa]],
    ],
  },
  ext2: { says: /ext2/, pieces: ext(0, 2) },
  ext3: { says: /ext3/, pieces: ext(4, 2) },
  ext4: { says: /ext4/, pieces: ext(4, 0x242) },
  fat12: { says: /FAT12/, pieces: [...fat, [0x36, "FAT12   "]] },
  fat16: { says: /FAT16/, pieces: [...fat, [0x36, "FAT16   "]] },
  fat32: { says: /FAT32/, pieces: [...fat, [0x52, "FAT32   "]] },
  "a nameless fat": { says: /a FAT file system/, pieces: fat },
  exfat: {
    says: /exFAT/,
    pieces: [
      [0, [0xeb, 0x76, 0x90]],
      [3, "EXFAT   "],
      [510, [0x55, 0xaa]],
    ],
  },
  ntfs: {
    says: /NTFS/,
    pieces: [
      [0, [0xeb, 0x52, 0x90]],
      [3, "NTFS    "],
      [510, [0x55, 0xaa]],
    ],
  },
  btrfs: { says: /btrfs/, pieces: [[0x10040, "_BHRfS_M"]] },
  xfs: { says: /XFS/, pieces: [[0, "XFSB"]] },
  f2fs: { says: /F2FS/, pieces: [[0x400, [0x10, 0x20, 0xf5, 0xf2]]] },
  squashfs: { says: /squashfs/, pieces: [[0, "hsqs"]] },
  erofs: { says: /EROFS/, pieces: [[0x400, [0xe2, 0xe1, 0xf5, 0xe0]]] },
  ubi: { says: /UBI/, pieces: [[0, "UBI#\x01"]] },
  ubifs: { says: /UBIFS/, pieces: [[0, [0x31, 0x18, 0x10, 0x06]]] },
  jffs2: { says: /JFFS2/, pieces: [[0, [0x85, 0x19, 0x03, 0x20, 12, 0, 0, 0]]] },
  swap: { says: /swap/, pieces: [[4086, "SWAPSPACE2"]] },
  luks1: { says: /LUKS/, pieces: [[0, "LUKS\xba\xbe\0\x01"]] },
  luks2: { says: /LUKS2/, pieces: [[0, "LUKS\xba\xbe\0\x02"]] },
  lvm: { says: /LVM2/, pieces: [[512, "LABELONE\x01"]] },
  "md 1.2": { says: /md RAID/, pieces: [[4096, [0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]]] },
  iso9660: { says: /ISO 9660/, pieces: [[0x8000, "\x01CD001"]] },
  mdmp: { says: /minidump/i, pieces: [[0, "MDMP\x93\xa7"]] },
  "windows dump": { says: /crash dump of Windows/, pieces: [[0, "PAGEDU64"]] },
  lime: { says: /LiME/, pieces: [[0, "EMiL\x01\0\0\0"]] },
  rawdump: { says: /rawdump of Qualcomm/, pieces: [[0, "Raw_Dmp!\0\x10\0\0"]] },
  sahara: {
    says: /Sahara container.*sahara unpack/,
    pieces: [[0, [0xef, 0xcd, 0xab, 0x90, 0x78, 0x56, 0x34, 0x12]]],
  },
  mtdoops: {
    says: /mtdoops/,
    pieces: [
      [0, [1, 0, 0, 0, 0, 0x5d, 0, 0x5d]],
      [8, "<0>[ 1.0] BOOM"],
    ],
  },
  ramoops: {
    says: /ramoops.*mmcpstore harvest/,
    pieces: [
      [0, "DBGC"],
      [4, [60, 0, 0, 0, 60, 0, 0, 0]],
      [12, "====1700000000.123456-D\nPanic#1 Part1\n"],
      [65536, "DBGC"],
    ],
  },
  "big-endian": {
    says: /big-endian/,
    pieces: [
      [0, "CGBD"],
      [4, [0, 0, 0, 80, 0, 0, 0, 0, 0x4d, 0xfc, 0x3a, 0xe5]],
    ],
  },
  "a big-endian ring": {
    says: /big-endian/,
    pieces: [
      [0, "CGBF"],
      [4, [0, 0, 0, 80, 0, 0, 0, 0]],
      [12, "console text"],
    ],
  },
  "random bytes": { says: /holds data/, pieces: [[0, [...noise(4096)]]] },
  "random bytes behind a blank sector": { says: /holds data/, pieces: [[512, [...noise(4096, 7)]]] },
  "text far inside": { says: /holds data/, pieces: [[200 * KIB, "somebody's only copy"]] },
};

const IMAGE_BYTES = 256 * KIB;
const ZONE_AT = 128 * KIB;

function imageOf({ pieces }: Kind, zone: Uint8Array | null): Uint8Array {
  const bytes = new Uint8Array(IMAGE_BYTES);
  for (const [at, piece] of pieces) {
    bytes.set(typeof piece === "string" ? Buffer.from(piece, "latin1") : piece, at);
  }
  if (zone !== null) bytes.set(zone, ZONE_AT);
  return bytes;
}

const READERS = (image: string, target: string): string[][] => [
  ["ls", image],
  ["ls", image, "--json", "--all"],
  ["cat", image, "dmesg-pstore_blk-0"],
  ["extract", image, target],
  ["inspect", image],
];
const DUMP_READERS = (image: string): string[][] => [
  ["core", "ls", image],
  ["minidump", "ls", image],
  ["harvest", image, "--list"],
];
const WRITERS = (image: string): string[][] => [
  ["panic", image, "--log", log],
  ["panic", image, "--log", log, "--parts", "2", "--policy", "ring"],
  ["format", image, "--wipe"],
  ["rm", image, "--all"],
  ["rm", image, "--all", "--wipe"],
  ["rm", image, "dmesg-pstore_blk-2"],
  ["core", "rm", image, "--all", "--wipe"],
];

/** Exit 1, one line, no output, not a byte changed. */
async function refused(args: string[], image: string, says: RegExp): Promise<void> {
  const before = digest(image);
  const { code, out, err } = await run(args);
  const what = `${args.join(" ")}: ${err}`;
  assert.is(code, 1, what);
  assert.match(err, /^mmcpstore: [^\n]+\n$/, what);
  assert.not.match(err, /internal error/, what);
  assert.match(err, says, what);
  assert.is(out, "", what);
  assert.is(digest(image), before, what);
}

for (const [name, kind] of Object.entries(KINDS)) {
  test(`${name}: named by every command that reads, written over by none`, async () => {
    const image = file(imageOf(kind, null));
    const isTable = name === "mbr";
    for (const args of READERS(image, join(folder, `out${made++}`))) await refused(args, image, kind.says);
    const says = name.includes("random") || name.includes("text") || isTable ? /./ : kind.says;
    for (const args of DUMP_READERS(image)) {
      if (name === "ramoops" && args[0] === "harvest") continue;
      await refused(args, image, says);
    }
    for (const args of WRITERS(image)) await refused(args, image, /./);
  });
}

test("a zone on the grid of somebody's image makes no area of it", async () => {
  const zone = buildZone(64 * KIB, { payload, sequence: 1n });
  let count = 0;
  for (const [name, kind] of Object.entries(KINDS)) {
    if (name === "mbr") continue;
    const image = file(imageOf(kind, zone));
    for (const args of WRITERS(image)) {
      await refused(args, image, /./);
      count++;
    }
    // What begins an image that nobody called an area is no list of records under wrong numbers.
    if (!/random|text|ramoops|big/.test(name))
      await refused(["ls", image], image, new RegExp(kind.says.source.split(".*")[0] as string, "i"));
  }
  console.log(`# ${count} commands that would have written`);
});

test("an area behind a file system: without --offset it is named, with it both stay", async () => {
  const kind = KINDS.ext4 as Kind;
  const bytes = new Uint8Array(512 * KIB);
  bytes.set(imageOf(kind, null));
  const image = file(bytes);
  const area = ["--offset", "256K", "--size", "256K"];
  for (let time = 1; time <= 4; time++) {
    assert.is((await run(["panic", image, "--log", log, "--time", String(time), ...area])).code, 0);
  }
  for (const args of [...READERS(image, join(folder, "never")), ...WRITERS(image).slice(0, 6)]) {
    await refused(args, image, /ext4 file system.*--offset 262144/);
  }
  const front = readFileSync(image).subarray(0, 256 * KIB);
  assert.is((await run(["panic", image, "--log", log, "--time", "9", ...area])).code, 0);
  assert.is((await run(["format", image, "--wipe", ...area])).code, 0);
  assert.ok(
    readFileSync(image)
      .subarray(0, 256 * KIB)
      .equals(front),
  );
});

test("--force means the same everywhere", async () => {
  for (const args of WRITERS("").slice(0, 4)) {
    const image = file(imageOf(KINDS.ext4 as Kind, buildZone(64 * KIB, { payload, sequence: 1n })));
    const before = digest(image);
    const forced = args.map((one) => (one === "" ? image : one));
    assert.is((await run([...forced, "--force"])).code, 0, args.join(" "));
    assert.not.equal(digest(image), before, args.join(" "));
  }
});

test("a foreign zone in a chosen area is refused where it would be written, and named with its place", async () => {
  const area = ["--offset", "0"];
  for (const [at, says] of [
    [64 * KIB, /ext4 file system at 65536; --force/],
    [192 * KIB, /ext4 file system at 196608; --force/],
  ] as const) {
    const bytes = new Uint8Array(IMAGE_BYTES);
    bytes.set(buildZone(64 * KIB, { payload, sequence: 1n }));
    bytes.set(imageOf(KINDS.ext4 as Kind, null).subarray(0, 0x500), at);
    const image = file(bytes);
    await refused(["panic", image, "--log", log, ...area], image, says);
    await refused(["format", image, "--wipe", ...area], image, says);
    // rm touches no other zone than that of its record.
    assert.is((await run(["rm", image, "dmesg-pstore_blk-0", ...area])).code, 0);
    assert.match((await run(["inspect", image, ...area])).out, /foreign/);
  }
});

test("a file system that was made over an old area is not a torn record", async () => {
  const zones = [1n, 2n, 3n, 4n].map((sequence) => buildZone(64 * KIB, { payload: noise(3000), sequence }));
  const bytes = new Uint8Array(Buffer.concat(zones));
  // mke2fs leaves the first 1024 bytes alone if a boot loader may be there.
  bytes.fill(0, 1024, 2048);
  for (const [at, piece] of (KINDS.ext4 as Kind).pieces) bytes.set(piece as number[], at);
  const image = file(bytes);
  for (const args of WRITERS(image).slice(0, 3)) await refused([...args, "--offset", "0"], image, /ext4/);
});

test("the second copy of a GUID partition table is in nobody's way, and not written over", async () => {
  const bytes = new Uint8Array(IMAGE_BYTES);
  for (const [at, piece] of gptPieces(IMAGE_BYTES, [])) if (at >= IMAGE_BYTES / 2) bytes.set(piece, at);
  bytes.set(buildZone(64 * KIB, { payload, sequence: 1n }));
  const image = file(bytes);
  assert.match((await run(["ls", image])).out, /dmesg-pstore_blk-0/);
  await refused(["panic", image, "--log", log], image, /second copy of a GUID partition table/);
});

test("a dump area: each end and everything between is blank or a dump's", async () => {
  const region = ["--dump-region", `r=${file(noise(20_000))}@0x80000000`];
  const args = (image: string) => [
    "panic",
    image,
    "--log",
    log,
    "--size",
    "64K",
    "--dump-area",
    "64K:192K",
    ...region,
  ];
  const kinds = [
    "ext4",
    "btrfs",
    "xfs",
    "swap",
    "lvm",
    "luks1",
    "qcow2",
    "random bytes behind a blank sector",
  ];
  for (const name of kinds) {
    const bytes = new Uint8Array(512 * KIB);
    bytes.set(imageOf(KINDS[name] as Kind, null), 64 * KIB);
    const image = file(bytes);
    await refused(args(image), image, /the dump area of 196608 bytes at 65536 holds .*--force/);
    // The other end still has the header of an old dump.
    const forced = await run([...args(image), "--force"]);
    assert.is(forced.code, 0, `${name}: ${forced.err}`);
    assert.is((await run(args(image))).code, 0, name);
    const later = readFileSync(image);
    for (const [at, piece] of (KINDS[name] as Kind).pieces) {
      later.set(typeof piece === "string" ? Buffer.from(piece, "latin1") : piece, 64 * KIB + at);
    }
    later.fill(0, 64 * KIB, 64 * KIB + 8);
    writeFileSync(image, later);
    if (!name.startsWith("random")) await refused(args(image), image, /the dump area of 196608 bytes/);
  }
  // A header at the back of the image may be that of a smaller area.
  const image = file(new Uint8Array(256 * KIB));
  assert.is((await run(args(image))).code, 0);
  assert.is((await run(args(image))).code, 0);
  await refused(
    ["core", "rm", image, "--all", "--offset", "0", "--size", "256K"],
    image,
    /dump area of 196608 bytes/,
  );
});

test("a blank area is an area: no records, exit 0, and every command takes it", async () => {
  for (const value of [0, 0xff]) {
    for (const args of WRITERS("").slice(0, 5)) {
      const image = file(new Uint8Array(IMAGE_BYTES).fill(value));
      const listed = await run(["ls", image]);
      assert.equal([listed.code, listed.out], [0, "no records\n"]);
      assert.is((await run(args.map((one) => (one === "" ? image : one)))).code, 0, args.join(" "));
    }
  }
});

// ---- a first write that is cut

const FIRST: [string, string[]][] = [
  ["deflated", []],
  ["plain", ["--no-compress"]],
  ["parts", ["--no-compress", "--parts", "3", "--kmsg-size", "4K"]],
  ["large zones", ["--kmsg-size", "128K", "--no-compress"]],
  ["a ring", ["--console", log, "--console-size", "4K", "--kmsg-size", "8K"]],
  ["i386 on an SD card", ["--abi", "i386", "--card", "sd"]],
];
const longLog = file(
  Buffer.from(Array.from({ length: 420 }, (_, i) => `<6>[ ${i}.0] line ${i * 7919}\n`).join("")),
);

for (const [name, options] of FIRST) {
  test(`a first panic, ${name}: behind each write the image is readable, writable, and can be emptied`, async () => {
    const blank = new Uint8Array(IMAGE_BYTES);
    const panic = (image: string) => ["panic", image, "--log", longLog, ...options];
    const sizes = options.flatMap((one, i) => (one.endsWith("-size") ? [one, options[i + 1] as string] : []));
    const states = new Set<string>();
    let cuts = 0;
    let seen = "";
    for (let at = 0; ; at++) {
      const image = file(blank);
      const first = await run(panic(image), at);
      if (!first.killed) break;
      const now = digest(image);
      if (now === seen) continue;
      seen = now;
      cuts++;
      const what = `cut behind step ${at}`;
      const cut = readFileSync(image);
      // The sizes are known to nobody but the user, who may leave them out.
      for (const known of [sizes, []]) {
        const listed = await run(["ls", image, ...known]);
        assert.is(listed.code, 0, `${what}: ${listed.err}`);
        assert.not.match(listed.out, /torn/, what);
        for (const [, state] of listed.out.matchAll(/(unfinished|salvaged|ok)/g)) states.add(state as string);
        for (const args of [
          ["rm", image, "--all", ...known],
          ["format", image, "--wipe", ...known],
        ]) {
          writeFileSync(image, cut);
          const done = await run(args);
          assert.is(done.code, 0, `${what}: ${args.join(" ")} ${done.err}`);
          assert.is((await run(["ls", image, ...known])).out, "no records\n", what);
        }
      }
      writeFileSync(image, cut);
      const again = await run(panic(image));
      assert.is(again.code, 0, `${what}: ${again.err}`);
      assert.match((await run(["ls", image, ...sizes])).out, /ok/, what);
    }
    console.log(`# ${name}: ${cuts} cuts, states ${[...states].join(", ")}`);
    assert.ok(cuts > 5 && states.has("unfinished"));
  });
}

test("--deadline 1 leaves an image that takes the next panic", async () => {
  const image = file(new Uint8Array(1024 * KIB));
  const big = file(Buffer.from(Array.from({ length: 20_000 }, (_, i) => `${i}\n`).join("")));
  assert.is((await run(["panic", image, "--log", big, "--deadline", "1"])).code, 1);
  const [row] = JSON.parse((await run(["ls", image, "--json"])).out) as { state: string }[];
  assert.is(row?.state ?? "unfinished", "unfinished");
  assert.is((await run(["panic", image, "--log", big])).code, 0);
  assert.is((await run(["format", image, "--wipe"])).code, 0);
  assert.is((await run(["rm", image, "--all"])).code, 0);
});

test.after(() => rmSync(folder, { recursive: true, force: true }));
test.run();
