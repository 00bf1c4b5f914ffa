// Qualcomm's shared memory (SMEM) in a memory image, as far as it takes to find one item of its global partition. Its
// last 4 KiB hold the partition table, "$TOC", and behind its entries "SIII" with size and address of the whole; a
// partition begins with "$PRT"; items are a list upwards from there, and those that a cache line keeps apart a list
// downwards from its end. Little-endian. Every number in it is an attacker's: each list only ever goes one way and
// ends with its partition, which is copied once. Nothing of Node.
import { MmcError } from "../errors.js";
import type { ElfSource } from "./elf.js";

/** Where an item lies, in bytes from the start of the image. */
export interface SmemItem {
  offset: number;
  sizeBytes: number;
  /** Physical address of the image's first byte, by what the SMEM says of itself; null: it does not say. */
  base: bigint | null;
}

const PAGE_BYTES = 4096;
/** Real ones have 1 to 4 MiB. */
const SMEM_BYTES_MAX = 16 * 2 ** 20;
/** version[7], the boot loader's: major version in the upper half. */
const VERSION_AT = 92;
const VERSION_GLOBAL_HEAP = 11;
const VERSION_GLOBAL_PARTITION = 12;
const PTABLE_HEADER_BYTES = 32;
const PTABLE_ENTRY_BYTES = 48;
/** As many as the page has room for. */
const PARTITIONS_MAX = Math.floor((PAGE_BYTES - PTABLE_HEADER_BYTES) / PTABLE_ENTRY_BYTES);
const INFO_BYTES = 18;
const PARTITION_HEADER_BYTES = 32;
const ENTRY_BYTES = 16;
const CANARY = 0xa5a5;
/** Host 0 and 1 of the partition that is everybody's. */
const GLOBAL_HOST = 0xfffe;
const SCAN_BYTES = 2 ** 20;

function magicAt(view: DataView, at: number): string {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}

/** Of the image; what is asked for lies inside. */
function viewOf(source: ElfSource, offset: number, lengthBytes: number): DataView {
  const bytes = new Uint8Array(lengthBytes);
  source.readSync(offset, bytes);
  return new DataView(bytes.buffer);
}

function isInside(source: ElfSource, offset: number, lengthBytes: number): boolean {
  return offset >= 0 && offset + lengthBytes <= source.sizeBytes;
}

/** One SMEM: where it begins, where its last page lies, and that page. */
interface Smem {
  start: number;
  tableAt: number;
  table: DataView;
  base: bigint | null;
}

/** Offsets of pages that begin with "$TOC" and version 1, from `from` to `to`. */
function* tablesIn(source: ElfSource, from: number, to: number): Generator<number> {
  for (let at = from; at + PAGE_BYTES <= to; at += SCAN_BYTES) {
    const view = viewOf(source, at, Math.min(SCAN_BYTES, to - at));
    for (let page = 0; page + PAGE_BYTES <= view.byteLength; page += PAGE_BYTES) {
      if (magicAt(view, page) === "$TOC" && view.getUint32(page + 4, true) === 1) yield at + page;
    }
  }
}

/** Size and physical address by "SIII" behind the table's entries, or null. */
function infoOf(table: DataView): { sizeBytes: number; address: number } | null {
  const at = PTABLE_HEADER_BYTES + table.getUint32(8, true) * PTABLE_ENTRY_BYTES;
  if (at + INFO_BYTES > table.byteLength || magicAt(table, at) !== "SIII") return null;
  return { sizeBytes: table.getUint32(at + 4, true), address: table.getUint32(at + 8, true) };
}

function versionAt(source: ElfSource, start: number): number {
  if (!isInside(source, start + VERSION_AT, 4)) return 0;
  return viewOf(source, start + VERSION_AT, 4).getUint32(0, true) >>> 16;
}

/** The SMEM whose first byte is at `start`. */
function openAt(source: ElfSource, start: number): Smem {
  if (start >= source.sizeBytes) {
    throw new MmcError("EINVAL", `SMEM: ${start} is beyond the image's end at ${source.sizeBytes}`);
  }
  const version = versionAt(source, start);
  if (version === VERSION_GLOBAL_HEAP) {
    throw new MmcError("EOPNOTSUPP", "SMEM: is of version 11, whose items end before the minidump's");
  }
  if (version !== VERSION_GLOBAL_PARTITION) {
    throw new MmcError("EBADMSG", `SMEM: version ${version} at ${start} is not 12: this is no SMEM`);
  }
  const end = Math.min(source.sizeBytes, start + SMEM_BYTES_MAX);
  for (const tableAt of tablesIn(source, start, end)) {
    const table = viewOf(source, tableAt, PAGE_BYTES);
    const info = infoOf(table);
    return { start, tableAt, table, base: info === null ? null : baseOf(info.address, start) };
  }
  throw new MmcError("EBADMSG", `SMEM: has no partition table within ${end - start} bytes`);
}

function baseOf(address: number, start: number): bigint | null {
  return address < start ? null : BigInt(address - start);
}

/** The first SMEM in the image that says where it begins and has a good version. */
function search(source: ElfSource): Smem {
  for (const tableAt of tablesIn(source, 0, source.sizeBytes)) {
    const table = viewOf(source, tableAt, PAGE_BYTES);
    const info = infoOf(table);
    if (info === null || info.sizeBytes < PAGE_BYTES || info.sizeBytes > SMEM_BYTES_MAX) continue;
    const start = tableAt + PAGE_BYTES - info.sizeBytes;
    if (start < 0 || versionAt(source, start) !== VERSION_GLOBAL_PARTITION) continue;
    return { start, tableAt, table, base: baseOf(info.address, start) };
  }
  throw new MmcError("ENODATA", "no SMEM is found in the image");
}

interface Partition {
  offset: number;
  view: DataView;
  cachelineBytes: number;
}

function globalPartition(source: ElfSource, { start, tableAt, table }: Smem): Partition {
  const count = table.getUint32(8, true);
  if (count > PARTITIONS_MAX) {
    throw new MmcError("EBADMSG", `SMEM: says ${count} partitions, its table has room for ${PARTITIONS_MAX}`);
  }
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const at = PTABLE_HEADER_BYTES + i * PTABLE_ENTRY_BYTES;
    const [host0, host1] = [table.getUint16(at + 12, true), table.getUint16(at + 14, true)];
    const isUsed = table.getUint32(at, true) !== 0 && table.getUint32(at + 4, true) !== 0;
    if (isUsed && host0 === GLOBAL_HOST && host1 === GLOBAL_HOST) found.push(at);
  }
  const [at] = found;
  if (at === undefined) throw new MmcError("ENODATA", "SMEM: has no global partition");
  if (found.length > 1) throw new MmcError("EBADMSG", `SMEM: has ${found.length} global partitions`);
  const [offset, sizeBytes] = [start + table.getUint32(at, true), table.getUint32(at + 4, true)];
  // The table is the end of the SMEM, so nothing of a partition lies behind it.
  if (sizeBytes < PARTITION_HEADER_BYTES || offset + sizeBytes > tableAt) {
    throw new MmcError(
      "EBADMSG",
      `SMEM: its global partition, ${sizeBytes} bytes at ${offset}, is not in it`,
    );
  }
  const view = viewOf(source, offset, sizeBytes);
  const isHeader =
    magicAt(view, 0) === "$PRT" &&
    view.getUint16(4, true) === GLOBAL_HOST &&
    view.getUint16(6, true) === GLOBAL_HOST &&
    view.getUint32(8, true) === sizeBytes;
  if (!isHeader)
    throw new MmcError("EBADMSG", `SMEM: the header of its global partition at ${offset} is none`);
  return { offset, view, cachelineBytes: table.getUint32(at + 16, true) };
}

/** Item, where its data lies in the partition, and how many bytes the entry has without its header. */
interface Entry {
  item: number;
  paddingHeader: number;
  sizeBytes: number;
  paddingData: number;
}

function entryAt(view: DataView, at: number): Entry {
  if (view.getUint16(at, true) !== CANARY) {
    throw new MmcError("EBADMSG", `SMEM: the entry at ${at} of the global partition has no canary`);
  }
  const entry = {
    item: view.getUint16(at + 2, true),
    sizeBytes: view.getUint32(at + 4, true),
    paddingData: view.getUint16(at + 8, true),
    paddingHeader: view.getUint16(at + 10, true),
  };
  if (entry.paddingData > entry.sizeBytes) {
    throw new MmcError("EBADMSG", `SMEM: item ${entry.item} has more padding than bytes`);
  }
  return entry;
}

function findIn({ view, cachelineBytes }: Partition, item: number): { at: number; sizeBytes: number } | null {
  const beyond = (what: number) =>
    new MmcError("EBADMSG", `SMEM: item ${what} goes beyond the part of the global partition that is in use`);
  const upTo = Math.min(view.getUint32(12, true), view.byteLength);
  for (let at = PARTITION_HEADER_BYTES; at + ENTRY_BYTES <= upTo; ) {
    const entry = entryAt(view, at);
    const dataAt = at + ENTRY_BYTES + entry.paddingHeader;
    if (dataAt + entry.sizeBytes > upTo) throw beyond(entry.item);
    if (entry.item === item) return { at: dataAt, sizeBytes: entry.sizeBytes - entry.paddingData };
    at = dataAt + entry.sizeBytes;
  }
  const downTo = view.getUint32(16, true);
  if (downTo >= view.byteLength) return null;
  if (cachelineBytes < 1 || cachelineBytes > PAGE_BYTES || (cachelineBytes & (cachelineBytes - 1)) !== 0) {
    throw new MmcError("EBADMSG", `SMEM: ${cachelineBytes} bytes are no cache line`);
  }
  const stepBytes = Math.ceil(ENTRY_BYTES / cachelineBytes) * cachelineBytes;
  for (let at = view.byteLength - stepBytes; at > downTo; ) {
    const entry = entryAt(view, at);
    const dataAt = at - entry.sizeBytes;
    if (dataAt < Math.max(downTo, PARTITION_HEADER_BYTES)) throw beyond(entry.item);
    if (entry.item === item) return { at: dataAt, sizeBytes: entry.sizeBytes - entry.paddingData };
    at = dataAt - stepBytes;
  }
  return null;
}

/**
 * Finds an item that is for any host.
 * @param start where the SMEM begins in the image, in bytes; null: it is searched for.
 * @throws MmcError ENODATA there is no SMEM, no global partition or no such item; EBADMSG a table that contradicts
 *   itself; EOPNOTSUPP a version whose items end below 512; EINVAL a start beyond the image; and what the source
 *   throws.
 */
export function findSmemItem(source: ElfSource, item: number, start: number | null): SmemItem {
  const smem = start === null ? search(source) : openAt(source, start);
  const partition = globalPartition(source, smem);
  const found = findIn(partition, item);
  if (found === null) throw new MmcError("ENODATA", `SMEM: has no item ${item}`);
  return { offset: partition.offset + found.at, sizeBytes: found.sizeBytes, base: smem.base };
}
