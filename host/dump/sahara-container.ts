// The container "v1" in which Linux's qaic driver hands a Sahara dump to user space: four u64 (magic, version, size
// of all, size of the table), a 64-bit memory table, then the regions' bytes in its order without gaps. In the byte
// order of the host that made it. It has no checksum and no mark of completeness: only its length tells that it was
// cut. Nothing of Node.
import { MmcError } from "../errors.js";
import { makeTable, parseTable, type SaharaEntry, TABLE_ENTRY_BYTES, viewOf } from "./sahara.js";

export const CONTAINER_MAGIC = 0x1234567890abcdefn;
export const CONTAINER_VERSION = 1n;
export const CONTAINER_HEADER_BYTES = 32;
/** What a device's table can have, so what a container can. */
const ENTRIES_MAX = 0xffff;

/** Bytes of a container that begins with `entries`. */
export function containerBytes(entries: readonly SaharaEntry[]): bigint {
  const head = BigInt(CONTAINER_HEADER_BYTES + entries.length * TABLE_ENTRY_BYTES[64]);
  return entries.reduce((sum, entry) => sum + entry.lengthBytes, head);
}

/**
 * Header and table, little-endian; the regions' bytes follow. Texts are cut to 19 bytes, so that each has its NUL.
 * @throws MmcError EINVAL: no entries; EOVERFLOW: the sum of lengths does not have 64 bits.
 */
export function makeContainerHead(entries: readonly SaharaEntry[]): Uint8Array {
  if (entries.length === 0) throw new MmcError("EINVAL", "container: has no regions");
  const dumpSize = containerBytes(entries);
  if (dumpSize >= 1n << 64n)
    throw new MmcError("EOVERFLOW", "container: its regions are longer than 2^64 bytes");
  const texts = (entry: SaharaEntry) => ({
    description: entry.description.slice(0, 19),
    name: entry.name.slice(0, 19),
  });
  const table = makeTable(
    entries.map((entry) => ({ ...entry, ...texts(entry) })),
    64,
  );
  const head = new Uint8Array(CONTAINER_HEADER_BYTES + table.length);
  const view = viewOf(head);
  const fields = [CONTAINER_MAGIC, CONTAINER_VERSION, dumpSize, BigInt(table.length)];
  for (const [i, field] of fields.entries()) view.setBigUint64(8 * i, field, true);
  head.set(table, CONTAINER_HEADER_BYTES);
  return head;
}

export interface ContainerRegion extends SaharaEntry {
  /** Where its bytes begin in the container; where a cut container would have it. */
  offset: number;
  /** Bytes of it that are there: fewer than lengthBytes in a container that was cut. */
  storedBytes: number;
}

export interface Container {
  regions: ContainerRegion[];
  isLittleEndian: boolean;
  /** False: it ends before its last region does. */
  isComplete: boolean;
}

/** Bytes in a file or anywhere else. `read` gives exactly `count` bytes, which lie inside. */
export interface ContainerSource {
  sizeBytes: number;
  read(offset: number, count: number): Uint8Array;
}

/**
 * The table of a container, checked: magic, version, sizes and their sum. Nothing but header and table is read.
 * @throws MmcError EBADMSG no container, or one whose sizes disagree; EOPNOTSUPP another version.
 */
export function readContainer({ sizeBytes, read }: ContainerSource): Container {
  if (sizeBytes < CONTAINER_HEADER_BYTES) {
    throw new MmcError("EBADMSG", `is no Sahara container: has ${sizeBytes} bytes only`);
  }
  const view = viewOf(read(0, CONTAINER_HEADER_BYTES));
  const isLittleEndian = view.getBigUint64(0, true) === CONTAINER_MAGIC;
  if (!isLittleEndian && view.getBigUint64(0, false) !== CONTAINER_MAGIC) {
    throw new MmcError("EBADMSG", "is no Sahara container: does not begin with its magic number");
  }
  const [version, dumpSize, tableSize] = [8, 16, 24].map((at) => view.getBigUint64(at, isLittleEndian)) as [
    bigint,
    bigint,
    bigint,
  ];
  if (version !== CONTAINER_VERSION) {
    throw new MmcError("EOPNOTSUPP", `is a Sahara container of version ${version}, only 1 is known`);
  }
  const entryBytes = TABLE_ENTRY_BYTES[64];
  if (
    tableSize === 0n ||
    tableSize % BigInt(entryBytes) !== 0n ||
    tableSize > BigInt(ENTRIES_MAX * entryBytes)
  ) {
    throw new MmcError(
      "EBADMSG",
      `a table of ${tableSize} bytes is not 1 to ${ENTRIES_MAX} times ${entryBytes}`,
    );
  }
  if (tableSize + BigInt(CONTAINER_HEADER_BYTES) > BigInt(sizeBytes)) {
    throw new MmcError("EBADMSG", `ends within its table of ${tableSize} bytes`);
  }
  const entries = parseTable(read(CONTAINER_HEADER_BYTES, Number(tableSize)), 64, isLittleEndian);
  if (containerBytes(entries) !== dumpSize) {
    throw new MmcError("EBADMSG", `says ${dumpSize} bytes, its regions make ${containerBytes(entries)}`);
  }
  if (dumpSize < BigInt(sizeBytes)) {
    throw new MmcError("EBADMSG", `has ${sizeBytes} bytes, of which only ${dumpSize} are accounted for`);
  }
  return { ...placeRegions(entries, sizeBytes), isLittleEndian, isComplete: dumpSize === BigInt(sizeBytes) };
}

function placeRegions(entries: readonly SaharaEntry[], sizeBytes: number): { regions: ContainerRegion[] } {
  let offset = BigInt(CONTAINER_HEADER_BYTES + entries.length * TABLE_ENTRY_BYTES[64]);
  const end = BigInt(sizeBytes);
  const regions = entries.map((entry) => {
    const from = offset < end ? offset : end;
    offset += entry.lengthBytes;
    const to = offset < end ? offset : end;
    return { ...entry, offset: Number(from), storedBytes: Number(to - from) };
  });
  return { regions };
}
