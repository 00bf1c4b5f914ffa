// What bytes are by their beginning (and a few by their end): images in a container, packed files, file systems,
// volumes, partition tables, dumps, and the pstore kinds that are not ours to read. The numbers are those of the
// formats' own documents. Nothing of Node, and nothing is read here: bytes in, a name and the command to run next out.
// Must never take a pstore area for something else, so a magic of 16 bits counts only with the fields around it.

/**
 * `container`: offsets in the file are not those of the disk in it (packed, clustered, archived), so nothing that lies
 * somewhere in it is where it seems. `data`: what it is, it is in place.
 */
export type SignatureKind = "container" | "data";

/** What begins at a place. */
export interface Known {
  kind: SignatureKind;
  /** Completes "it is …" and "it holds …": `an ext4 file system`. */
  what: string;
  /** The command that leads on, for a file of that name; null where none is known. */
  advice: ((name: string) => string) | null;
}

/** With this much of the beginning every signature is found: btrfs' and reiserfs' stand behind the first 64 KiB. */
export const HEAD_BYTES = 0x10080;
/** For what says all about a packed file. */
export const CONTAINER_HEAD_BYTES = 512;

interface Signature extends Known {
  at: number;
  /** Latin-1. */
  magic: string;
  /** More than the magic. Bytes beyond the end are 0. */
  also?: (head: Head) => boolean;
}

/** The beginning of something; bytes beyond what is there are 0. */
class Head {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  u8(at: number): number {
    return this.#bytes[at] ?? 0;
  }

  u16(at: number): number {
    return this.u8(at) | (this.u8(at + 1) << 8);
  }

  u32(at: number): number {
    return (this.u16(at) | (this.u16(at + 2) << 16)) >>> 0;
  }

  u32be(at: number): number {
    return ((this.u8(at) << 24) | (this.u8(at + 1) << 16) | (this.u8(at + 2) << 8) | this.u8(at + 3)) >>> 0;
  }

  has(at: number, magic: string): boolean {
    if (at + magic.length > this.#bytes.length) return false;
    for (let i = 0; i < magic.length; i++) if (this.#bytes[at + i] !== magic.charCodeAt(i)) return false;
    return true;
  }

  get sizeBytes(): number {
    return this.#bytes.length;
  }
}

/** A shell's word. */
function word(name: string): string {
  return /^[\w./:@%+=-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
}

const toRaw = (name: string) => `qemu-img convert -O raw ${word(name)} ${word(`${name}.raw`)}`;
const run = (command: string) => (name: string) => `${command} ${word(name)}`;

function container(what: string, at: number, magic: string, advice: Known["advice"] = null): Signature {
  return { kind: "container", what, at, magic, advice };
}

function data(what: string, at: number, magic: string, advice: Known["advice"] = null): Signature {
  return { kind: "data", what, at, magic, advice };
}

const CONTAINERS: Signature[] = [
  { ...container("a qcow image", 0, "QFI\xfb", toRaw), also: (head) => head.u32be(4) === 1 },
  container("a qcow2 image", 0, "QFI\xfb", toRaw),
  container("a QED image", 0, "QED\0", toRaw),
  container("a VMDK image", 0, "KDMV", toRaw),
  container("a VMDK image", 0, "COWD", toRaw),
  container("a VMDK image", 0, "\xbe\xba\xfe\xca\0\0\0\0", toRaw),
  container("the descriptor of a VMDK image", 0, "# Disk DescriptorFile", toRaw),
  container("a VDI image", 0x40, "\x7f\x10\xda\xbe", toRaw),
  container("a VHD image", 0, "conectix", toRaw),
  container("a VHDX image", 0, "vhdxfile", toRaw),
  container("a Parallels image", 0, "WithoutFreeSpace", toRaw),
  container("a Parallels image", 0, "WithouFreSpacExt", toRaw),
  container(
    "an Android sparse image",
    0,
    "\x3a\xff\x26\xed",
    (name) => `simg2img ${word(name)} ${word(`${name}.raw`)}`,
  ),
  container("an EWF (EnCase) image", 0, "EVF\x09\x0d\x0a\xff\0", (name) => `ewfexport ${word(name)}`),
  container("gzip-compressed", 0, "\x1f\x8b", run("gzip -d")),
  container("xz-compressed", 0, "\xfd7zXZ\0", run("xz -d")),
  container("zstd-compressed", 0, "\x28\xb5\x2f\xfd", run("zstd -d")),
  container("lz4-compressed", 0, "\x04\x22\x4d\x18", run("lz4 -d")),
  container("lz4-compressed", 0, "\x02\x21\x4c\x18", run("lz4 -d")),
  {
    ...container("bzip2-compressed", 0, "BZh", run("bzip2 -d")),
    also: (head) => head.has(4, "1AY&SY") || head.has(4, "\x17\x72\x45\x38\x50\x90"),
  },
  container("lzop-compressed", 0, "\x89LZO\0\x0d\x0a\x1a\x0a", run("lzop -d")),
  container("lzip-compressed", 0, "LZIP\x01", run("lzip -d")),
  container("compressed by compress", 0, "\x1f\x9d", run("uncompress")),
  {
    ...container("lzma-compressed", 0, "\x5d\0\0", run("xz --format=lzma -d")),
    // A dictionary of 2^n bytes, and a size that is unknown or below 2^40.
    also: (head) =>
      (head.u16(3) & (head.u16(3) - 1)) === 0 &&
      (head.has(5, "\xff".repeat(8)) || (head.u32(5) > 0 && head.u8(10) + head.u16(11) === 0)),
  },
  container("a zip archive", 0, "PK\x03\x04", run("unzip")),
  container("a zip archive", 0, "PK\x05\x06", run("unzip")),
  container("a 7z archive", 0, "7z\xbc\xaf\x27\x1c", run("7z x")),
  container("a RAR archive", 0, "Rar!\x1a\x07", run("unrar x")),
  container("a tar archive", 257, "ustar", run("tar -xf")),
  container("a cpio archive", 0, "070701", null),
  container("an ar archive", 0, "!<arch>\n", null),
  container("a kdump-compressed dump", 0, "KDUMP   ", (name) => `crash vmlinux ${word(name)}`),
  container("a diskdump", 0, "DISKDUMP", (name) => `crash vmlinux ${word(name)}`),
  container(
    "a flattened dump of makedumpfile",
    0,
    "makedumpfile\0",
    (name) => `makedumpfile -R ${word(`${name}.dump`)} < ${word(name)}`,
  ),
];
for (let type = 0x50; type <= 0x5f; type++) {
  // Skippable frames, which zstd (pzstd, seekable files) and lz4 may begin with.
  CONTAINERS.push(
    container("zstd- or lz4-compressed", 0, `${String.fromCharCode(type)}\x2a\x4d\x18`, run("zstd -d")),
  );
}

/** FAT without a name in it: the parameters that every FAT has. */
function isFat(head: Head): boolean {
  const isJump = (head.u8(0) === 0xeb && head.u8(2) === 0x90) || head.u8(0) === 0xe9;
  const sectorBytes = head.u16(11);
  const clusterSectors = head.u8(13);
  return (
    isJump &&
    [512, 1024, 2048, 4096].includes(sectorBytes) &&
    clusterSectors > 0 &&
    (clusterSectors & (clusterSectors - 1)) === 0 &&
    head.u16(14) > 0 &&
    head.u8(16) >= 1 &&
    head.u8(16) <= 2 &&
    (head.u8(21) === 0xf0 || head.u8(21) >= 0xf8)
  );
}

/** Block size, counts and revision of an ext2-4 super block can be. */
function isExt(head: Head): boolean {
  return head.u32(0x418) <= 6 && head.u32(0x400) > 0 && head.u32(0x404) > 0 && head.u32(0x44c) <= 1;
}

const EXT4_INCOMPAT = 0x40 | 0x80 | 0x200 | 0x8000 | 0x10000;

/** Boot flags, and at least one partition that has sectors. */
function isMbr(head: Head): boolean {
  let used = 0;
  for (let slot = 446; slot < 510; slot += 16) {
    if ((head.u8(slot) & 0x7f) !== 0) return false;
    if (head.u8(slot + 4) !== 0 && head.u32(slot + 12) > 0) used++;
  }
  return used > 0;
}

/** A node of JFFS2 in one of the two byte orders. */
function isJffs2(head: Head): boolean {
  const type = head.u8(0) === 0x85 ? head.u16(2) : (head.u8(2) << 8) | head.u8(3);
  const bytes = head.u8(0) === 0x85 ? head.u32(4) : head.u32be(4);
  return (
    [0xe001, 0xe002, 0x2003, 0x2004, 0x2006, 0xe008, 0xe009].includes(type) && bytes >= 12 && bytes < 2 ** 20
  );
}

const useMcore = (name: string) => `mmcpstore core ls ${word(name)}`;

const DATA: Signature[] = [
  data("a GUID partition table", 512, "EFI PART"),
  data("a GUID partition table", 4096, "EFI PART"),
  { ...data("an Apple partition map", 0, "ER"), also: (head) => head.has(512, "PM") },
  {
    ...data("an ext4 file system", 0x438, "\x53\xef"),
    also: (head) => isExt(head) && (head.u32(0x460) & EXT4_INCOMPAT) !== 0,
  },
  {
    ...data("an ext3 file system", 0x438, "\x53\xef"),
    also: (head) => isExt(head) && (head.u32(0x45c) & 4) !== 0,
  },
  { ...data("an ext2 file system", 0x438, "\x53\xef"), also: isExt },
  data("an exFAT file system", 3, "EXFAT   "),
  data("an NTFS file system", 3, "NTFS    "),
  data("a BitLocker volume", 3, "-FVE-FS-"),
  data("a ReFS file system", 3, "ReFS\0\0\0\0"),
  { ...data("a FAT12 file system", 0x36, "FAT12   "), also: isFat },
  { ...data("a FAT16 file system", 0x36, "FAT16   "), also: isFat },
  { ...data("a FAT32 file system", 0x52, "FAT32   "), also: isFat },
  { ...data("a FAT file system", 510, "\x55\xaa"), also: isFat },
  data("a btrfs file system", 0x10040, "_BHRfS_M"),
  data("an XFS file system", 0, "XFSB"),
  data("an F2FS file system", 0x400, "\x10\x20\xf5\xf2"),
  data("a squashfs", 0, "hsqs", run("unsquashfs")),
  data("a squashfs", 0, "sqsh", run("unsquashfs")),
  data("an EROFS", 0x400, "\xe2\xe1\xf5\xe0"),
  data("a cramfs", 0, "\x45\x3d\xcd\x28"),
  data("a cramfs", 0, "\x28\xcd\x3d\x45"),
  data("a romfs", 0, "-rom1fs-"),
  data("a UBI volume", 0, "UBI#"),
  data("a UBIFS", 0, "\x31\x18\x10\x06"),
  { ...data("a JFFS2", 0, "\x85\x19"), also: isJffs2 },
  { ...data("a JFFS2", 0, "\x19\x85"), also: isJffs2 },
  data("a YAFFS2", 0, "\x03\0\0\0\x01\0\0\0\xff\xff"),
  ...[0x1000, 0x2000, 0x4000, 0x8000, 0x10000].flatMap((page) =>
    ["SWAPSPACE2", "SWAP-SPACE"].map((magic) => data("swap space", page - 10, magic)),
  ),
  data("a hibernated system", 0x1000 - 10, "S1SUSPEND"),
  data("a LUKS2 volume", 0, "LUKS\xba\xbe\0\x02"),
  data("a LUKS volume", 0, "LUKS\xba\xbe"),
  ...[0x4000, 0x8000, 0x10000].map((at) => data("a LUKS2 volume", at, "SKUL\xba\xbe")),
  ...[0, 512, 1024, 1536].map((at) => data("an LVM2 physical volume", at, "LABELONE")),
  data("a member of an md RAID", 0, "\xfc\x4e\x2b\xa9\x01\0\0\0"),
  data("a member of an md RAID", 4096, "\xfc\x4e\x2b\xa9\x01\0\0\0"),
  data(
    "a bcachefs or bcache volume",
    0x1018,
    "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
  ),
  data("a bcachefs", 0x1018, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
  data("an ISO 9660 file system", 0x8001, "CD001"),
  data("a UDF file system", 0x8001, "BEA01"),
  data("a ReiserFS", 0x10034, "ReIsEr"),
  data("a Reiser4 file system", 0x10000, "ReIsEr4"),
  data("a JFS", 0x8000, "JFS1"),
  { ...data("a NILFS2", 0x406, "\x34\x34"), also: (head) => head.u32(0x400) === 2 },
  { ...data("an HFS+ file system", 0x400, "H+\0\x04") },
  { ...data("an HFSX file system", 0x400, "HX\0\x05") },
  data("an APFS container", 0x20, "NXSB"),
  data("an Android boot image", 0, "ANDROID!"),
  data("an Android vendor boot image", 0, "VNDRBOOT"),
  data("an Android verified-boot image", 0, "AVB0"),
  data("an Android super partition", 4096, "gDla"),
  data("a U-Boot image", 0, "\x27\x05\x19\x56"),
  { ...data("a device tree or FIT image", 0, "\xd0\x0d\xfe\xed"), also: (head) => head.u32be(4) >= 40 },
  { ...data("a Linux kernel", 0x202, "HdrS"), also: (head) => head.u16(510) === 0xaa55 },
  data("an SQLite database", 0, "SQLite format 3\0"),
  data("a dump area of mmcpstore", 0, "MMCPDUMP", useMcore),
  data(
    "a store of devlink snapshots",
    0,
    "mmcpdlnk",
    (name) => `mmcpstore devlink region show --store ${word(name)}`,
  ),
  data(
    "a Sahara container",
    0,
    "\xef\xcd\xab\x90\x78\x56\x34\x12",
    (name) => `mmcpstore sahara unpack ${word(name)} ${word(`${name}.d`)}`,
  ),
  data(
    "a Sahara container",
    0,
    "\x12\x34\x56\x78\x90\xab\xcd\xef",
    (name) => `mmcpstore sahara unpack ${word(name)} ${word(`${name}.d`)}`,
  ),
  data("an ELF file", 0, "\x7fELF", useMcore),
  data("a minidump (MDMP)", 0, "MDMP", run("minidump_stackwalk")),
  data("a crash dump of Windows", 0, "PAGEDU64", null),
  data("a crash dump of Windows", 0, "PAGEDUMP", null),
  data("a LiME memory dump", 0, "EMiL", (name) => `vol -f ${word(name)} linux.pslist`),
  data("an AVML memory dump", 0, "AVML", (name) => `avml-convert ${word(name)} ${word(`${name}.lime`)}`),
  data("a saved state of QEMU", 0, "QEVM", null),
  data("a saved machine of libvirt", 0, "LibvirtQemudSave", null),
  data("a rawdump of Qualcomm firmware", 0, "Raw_Dmp!", null),
  ...["\0\x5d\0\x5d", "\0\x5e\0\x5d", "\x5d\0\x5d\0", "\x5d\0\x5e\0"].map((magic) =>
    data("kernel messages of mtdoops", 4, magic, run("strings")),
  ),
  { ...data("an MBR partition table", 510, "\x55\xaa"), also: isMbr },
];

// ---- the pstore family

const KMSG = "DBGC";
const KMSG_MAGIC = "\xe5\x3a\xfc\x4d";
const RINGS = ["FBGC", "GBGC", "CBGC"];
const RAMOOPS_RECORD = "====";
/** ramoops' zones begin on whole pages. */
const PAGE_BYTES = 4096;

function reversed(text: string): string {
  return [...text].reverse().join("");
}

/** A zone header of this area's byte order with numbers that fit each other. */
function isRingAt(head: Head, at: number, isBigEndian: boolean): boolean {
  if (!RINGS.some((sig) => head.has(at, isBigEndian ? reversed(sig) : sig))) return false;
  const number = (from: number) => (isBigEndian ? head.u32be(from) : head.u32(from));
  return number(at + 8) <= number(at + 4) && number(at + 4) < 2 ** 27;
}

/** True if at byte `at` a zone of pstore/blk begins: kmsg with its magic, or a ring with possible numbers. */
function isZoneAt(head: Head, at: number, isBigEndian = false): boolean {
  const turn = isBigEndian ? reversed : (text: string) => text;
  if (head.has(at, turn(KMSG)) && head.has(at + 12, turn(KMSG_MAGIC))) return true;
  return isRingAt(head, at, isBigEndian);
}

/** A zone of ramoops: the signature that kmsg has too, then start and size, of a record its text head. */
function ramoopsKindAt(head: Head, at: number): "record" | "zone" | null {
  if (!head.has(at, KMSG) || head.has(at + 12, KMSG_MAGIC) || head.u32(at + 4) > head.u32(at + 8))
    return null;
  return head.has(at + 12, RAMOOPS_RECORD) ? "record" : "zone";
}

function pstoreKind(head: Head): Known | null {
  if (isZoneAt(head, 0, true))
    return { kind: "data", what: "a pstore area of a big-endian machine, which is not read", advice: null };
  if (isZoneAt(head, 0)) {
    return { kind: "data", what: "a pstore area", advice: (name) => `mmcpstore ls ${word(name)}` };
  }
  if (head.has(0, reversed(KMSG)) && head.has(12, RAMOOPS_RECORD)) {
    return {
      kind: "data",
      what: "a ramoops region of a big-endian machine, which is not read",
      advice: null,
    };
  }
  const first = ramoopsKindAt(head, 0);
  if (first === null) return null;
  let zones = 0;
  for (let at = 0; at < head.sizeBytes; at += PAGE_BYTES) {
    const kind = ramoopsKindAt(head, at);
    if (kind === "record") zones += 2;
    else if (kind === "zone") zones++;
  }
  if (zones < 2 && head.u32(8) === 0) return null;
  return {
    kind: "data",
    what: "a ramoops region",
    advice: (name) => `mmcpstore harvest ${word(name)} --list`,
  };
}

/** What commands write. */
const OURS = ["a pstore area", "a dump area of mmcpstore"];

function match(head: Head, list: readonly Signature[]): Known | null {
  const found = list.find(({ at, magic, also }) => head.has(at, magic) && (also === undefined || also(head)));
  if (found === undefined) return null;
  return { kind: found.kind, what: found.what, advice: found.advice };
}

/**
 * What begins with these bytes; null: nothing that is known here.
 * @param head up to {@link HEAD_BYTES} of its beginning, fewer only where there are no more.
 */
export function identify(head: Uint8Array): Known | null {
  const opened = new Head(head);
  return match(opened, CONTAINERS) ?? match(opened, DATA) ?? pstoreKind(opened);
}

/** As {@link identify}, for what no pstore area can be: everything but zones of pstore and dump areas. */
export function identifyForeign(head: Uint8Array): Known | null {
  const opened = new Head(head);
  const found = match(opened, CONTAINERS) ?? match(opened, DATA) ?? pstoreKind(opened);
  return found === null || OURS.includes(found.what) ? null : found;
}

/** As {@link identify}, for containers alone; {@link CONTAINER_HEAD_BYTES} are enough. */
export function identifyContainer(head: Uint8Array): Known | null {
  return match(new Head(head), CONTAINERS);
}

/** What the last 512 bytes of an image say: DMG has its header there, and a GUID partition table its second copy. */
export function identifyTail(tail: Uint8Array): Known | null {
  const head = new Head(tail);
  const at = tail.length - 512;
  if (head.has(at, "koly\0\0\0\x04")) {
    const advice = (name: string) => `dmg2img ${word(name)}`;
    return { kind: "container", what: "an Apple disk image (DMG)", advice };
  }
  return head.has(at, "EFI PART")
    ? { kind: "data", what: "the second copy of a GUID partition table", advice: null }
    : null;
}

/** Where a pstore zone begins in `bytes`, the first at a multiple of 512; -1: nowhere. */
export function firstZone(bytes: Uint8Array): number {
  const head = new Head(bytes);
  for (let at = 0; at + 16 <= bytes.length; at += 512) {
    // Most sectors begin with another byte.
    const end = bytes[at + 3];
    if (end === 0x43 && isZoneAt(head, at)) return at;
  }
  return -1;
}
