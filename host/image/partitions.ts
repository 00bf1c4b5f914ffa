// Partition tables as Linux reads them: GPT (both headers, both checksums) and MBR with logical partitions.
// Every byte is the image's and may be anything: each loop is bounded, each length checked before its use,
// and the only thing thrown is an MmcError. Must never write and never read more than the tables.
// Follows block/partitions/{efi,msdos}.c of Linux 6.1 and UEFI 2.10, section 5.3.
import { MmcError } from "../errors.js";
import { ownBytes } from "../own-bytes.js";
import type { Image } from "./contract.js";

/** One partition, as its table has it: it may lie partly or wholly beyond the image. */
export interface Partition {
  /** Linux's number, from 1. */
  number: number;
  /** GPT label; '' in an MBR. */
  name: string;
  /** Lower case: a GUID, or `xxxxxxxx-NN` in an MBR. */
  partuuid: string;
  /** GPT: the type GUID, lower case. MBR: the type byte as `0x83`. */
  type: string;
  /** First byte of the partition in the image. */
  offset: number;
  sizeBytes: number;
}

/** A table can be there and hold no partition: that is not the same as no table. */
export interface PartitionTable {
  kind: "gpt" | "mbr" | "none";
  partitions: Partition[];
}

const MBR_BYTES = 512;
const MBR_ENTRIES = 0x1be;
const MBR_DISK_SIGNATURE = 0x1b8;
const TYPE_PROTECTIVE = 0xee;
const TYPES_EXTENDED = [0x05, 0x0f, 0x85];
/** Linux gives up after 100 extended boot records without a partition; no real disk has 64. */
const EXTENDED_RECORDS_MAX = 64;

const GPT_SECTOR_BYTES = [512, 4096];
const GPT_SIGNATURE = "EFI PART";
const GPT_HEADER_BYTES_MIN = 92;
const GPT_ENTRY_BYTES_MIN = 128;
const GPT_ENTRY_BYTES_MAX = 4096;
/** Everybody writes 128; with the largest entry this bounds the array to 4 MiB. */
const GPT_ENTRIES_MAX = 1024;
const GUID_NONE = "00000000-0000-0000-0000-000000000000";

/**
 * The partitions of an image; [] when it has no table or an empty one.
 * @throws MmcError EIO when there is a GPT but both copies are damaged, or when the image cannot be read.
 */
export async function readPartitions(image: Image): Promise<Partition[]> {
  return (await readPartitionTable(image)).partitions;
}

/** {@link readPartitions} with the kind of the table. */
export async function readPartitionTable(image: Image): Promise<PartitionTable> {
  if (image.sizeBytes < MBR_BYTES) return { kind: "none", partitions: [] };
  const slots = mbrSlots(await image.read(0, MBR_BYTES));
  const used = slots?.filter((slot) => slot.type !== 0 && slot.countSectors > 0) ?? [];
  const isProtective = used.some((slot) => slot.type === TYPE_PROTECTIVE);
  // An MBR without the protective type wins over a GPT, which is then a left-over. So does Linux.
  if (slots !== null && used.length > 0 && !isProtective) {
    return { kind: "mbr", partitions: await readMbr(image, slots) };
  }
  let isExpected = isProtective;
  const damages: string[] = [];
  for (const which of ["primary", "backup"] as const) {
    for (const sectorBytes of GPT_SECTOR_BYTES) {
      const lba = which === "primary" ? 1 : Math.floor(image.sizeBytes / sectorBytes) - 1;
      const result = await readGpt(image, sectorBytes, lba);
      if (result === null) continue;
      if (typeof result !== "string") return { kind: "gpt", partitions: result };
      damages.push(`${which}: ${result}`);
      // A damaged backup alone is what an older table left at the end of a disk that is used whole.
      if (which === "primary") isExpected = true;
    }
  }
  if (!isExpected) return { kind: "none", partitions: [] };
  const why = damages.length > 0 ? damages.join("; ") : "no header found";
  throw new MmcError("EIO", `${image.name}: the GPT is damaged (${why})`);
}

/**
 * One partition by what the user called it: its number, its GPT label (case matters) or its PARTUUID (case
 * does not, `PARTUUID=` may precede it). A number wins over a label that is a number. `option`: who asks, in errors.
 * @throws MmcError ENOENT none, EINVAL several; both list what there is.
 */
export function findPartition(
  partitions: readonly Partition[],
  spec: string,
  option = "--partition",
): Partition {
  const found = matchPartitions(partitions, spec);
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  if (found.length > 1) {
    throw new MmcError("EINVAL", `${option} ${spec}: is ambiguous, it may be ${listPartitions(found)}`);
  }
  const there = partitions.length === 0 ? "there are none" : `there are ${listPartitions(partitions)}`;
  throw new MmcError("ENOENT", `${option} ${spec}: no such partition, ${there}`);
}

/** `1 (boot), 2 (0x83)`: number and label, or the type where there is no label. At most 16 are named. */
export function listPartitions(partitions: readonly Partition[]): string {
  const named = partitions.slice(0, 16).map((one) => `${one.number} (${one.name || one.type})`);
  if (partitions.length > named.length) named.push(`${partitions.length - named.length} more`);
  return named.join(", ");
}

function matchPartitions(partitions: readonly Partition[], spec: string): Partition[] {
  const uuid = /^partuuid=/i.test(spec) ? spec.slice("partuuid=".length) : null;
  const byUuid = (text: string): Partition[] =>
    partitions.filter((one) => one.partuuid === text.toLowerCase());
  if (spec === "") return [];
  if (uuid !== null) return byUuid(uuid);
  if (/^\d+$/.test(spec)) {
    const byNumber = partitions.filter((one) => one.number === Number(spec));
    if (byNumber.length > 0) return byNumber;
  }
  const byName = partitions.filter((one) => one.name === spec);
  return byName.length > 0 ? byName : byUuid(spec);
}

// ---- MBR

interface MbrSlot {
  type: number;
  firstSector: number;
  countSectors: number;
}

/** The four slots of a boot record, or null when the sector is none: no 55 AA, or a wrong boot flag. */
function mbrSlots(sector: Uint8Array): MbrSlot[] | null {
  const view = viewOf(sector);
  if (view.getUint16(510, true) !== 0xaa55) return null;
  const slots: MbrSlot[] = [];
  for (let slot = 0; slot < 4; slot++) {
    const at = MBR_ENTRIES + 16 * slot;
    // FAT and NTFS boot sectors end in 55 AA too, but have code or text here. Linux's test.
    if ((view.getUint8(at) & 0x7f) !== 0) return null;
    slots.push({
      type: view.getUint8(at + 4),
      firstSector: view.getUint32(at + 8, true),
      countSectors: view.getUint32(at + 12, true),
    });
  }
  return slots;
}

async function readMbr(image: Image, slots: readonly MbrSlot[]): Promise<Partition[]> {
  const signature = viewOf(await image.read(MBR_DISK_SIGNATURE, 4)).getUint32(0, true);
  const diskId = signature.toString(16).padStart(8, "0");
  const partitions: Partition[] = [];
  const add = (number: number, type: number, firstSector: number, countSectors: number): void => {
    partitions.push({
      number,
      name: "",
      partuuid: `${diskId}-${number.toString(16).padStart(2, "0")}`,
      type: `0x${type.toString(16).padStart(2, "0")}`,
      offset: firstSector * 512,
      sizeBytes: countSectors * 512,
    });
  };
  const extended: number[] = [];
  for (const [index, slot] of slots.entries()) {
    if (slot.type === 0 || slot.countSectors === 0) continue;
    // The extended partition is a container; what it holds is listed instead.
    if (TYPES_EXTENDED.includes(slot.type)) extended.push(slot.firstSector);
    else add(index + 1, slot.type, slot.firstSector, slot.countSectors);
  }
  const seen = new Set<number>();
  let number = 5;
  for (const base of extended) {
    let record: number | null = base;
    while (record !== null && !seen.has(record) && seen.size < EXTENDED_RECORDS_MAX) {
      seen.add(record);
      if ((record + 1) * 512 > image.sizeBytes) break;
      const links: MbrSlot[] | null = mbrSlots(await image.read(record * 512, MBR_BYTES));
      const here: number = record;
      record = null;
      // Slot 0 is the partition, slot 1 the next record; some tools swap them.
      for (const link of links?.slice(0, 2) ?? []) {
        if (link.type === 0 || link.countSectors === 0) continue;
        if (TYPES_EXTENDED.includes(link.type)) record ??= base + link.firstSector;
        else add(number++, link.type, here + link.firstSector, link.countSectors);
      }
    }
  }
  return partitions;
}

// ---- GPT

/** The partitions, a word on what is damaged, or null when there is no header at this place. */
async function readGpt(image: Image, sectorBytes: number, lba: number): Promise<Partition[] | string | null> {
  if (lba < 1 || (lba + 1) * sectorBytes > image.sizeBytes) return null;
  const header = await image.read(lba * sectorBytes, sectorBytes);
  if (asciiOf(header.subarray(0, 8)) !== GPT_SIGNATURE) return null;
  const view = viewOf(header);
  const headerBytes = view.getUint32(12, true);
  if (headerBytes < GPT_HEADER_BYTES_MIN || headerBytes > sectorBytes)
    return `header of ${headerBytes} bytes`;
  const covered = ownBytes(header, 0, headerBytes);
  covered.fill(0, 16, 20);
  if (crc32(covered) !== view.getUint32(16, true)) return "header checksum";
  if (view.getBigUint64(24, true) !== BigInt(lba)) return "header of another place";
  const entriesLba = view.getBigUint64(72, true);
  const count = view.getUint32(80, true);
  const entryBytes = view.getUint32(84, true);
  if (count > GPT_ENTRIES_MAX) return `${count} entries`;
  if (entryBytes < GPT_ENTRY_BYTES_MIN || entryBytes > GPT_ENTRY_BYTES_MAX || entryBytes % 8 !== 0) {
    return `entries of ${entryBytes} bytes`;
  }
  const entriesAt = Number(entriesLba) * sectorBytes;
  if (entriesLba < 1n || entriesAt + count * entryBytes > image.sizeBytes) return "entries beyond the image";
  const entries = await image.read(entriesAt, count * entryBytes);
  if (crc32(entries) !== view.getUint32(88, true)) return "entries checksum";
  const partitions: Partition[] = [];
  for (let index = 0; index < count; index++) {
    const entry = entries.subarray(index * entryBytes, (index + 1) * entryBytes);
    const partition = gptPartition(entry, index + 1, sectorBytes);
    if (partition !== null) partitions.push(partition);
  }
  return partitions;
}

/** An entry as a partition, or null when it is unused or ends before it starts. */
function gptPartition(entry: Uint8Array, number: number, sectorBytes: number): Partition | null {
  const type = guidOf(entry.subarray(0, 16));
  const view = viewOf(entry);
  const first = view.getBigUint64(32, true);
  const last = view.getBigUint64(40, true);
  if (type === GUID_NONE || first < 1n || last < first) return null;
  const label = new TextDecoder("utf-16le", { ignoreBOM: true }).decode(ownBytes(entry, 56, 128));
  return {
    number,
    name: label.split("\0", 1)[0] as string,
    partuuid: guidOf(entry.subarray(16, 32)),
    type,
    offset: Number(first) * sectorBytes,
    sizeBytes: Number(last - first + 1n) * sectorBytes,
  };
}

/** The first three fields of a GUID are little-endian, the last two are bytes in order. */
function guidOf(bytes: Uint8Array): string {
  const order = [3, 2, 1, 0, -1, 5, 4, -1, 7, 6, -1, 8, 9, -1, 10, 11, 12, 13, 14, 15];
  return order.map((at) => (at < 0 ? "-" : (bytes[at] as number).toString(16).padStart(2, "0"))).join("");
}

function asciiOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** CRC-32 of zlib and UEFI (reflected, 0xedb88320). node:zlib has it only since 20.15. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let word = index;
  for (let bit = 0; bit < 8; bit++) word = (word & 1) !== 0 ? (word >>> 1) ^ 0xedb88320 : word >>> 1;
  return word;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (CRC_TABLE[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
