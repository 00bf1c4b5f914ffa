// Where on an image the pstore area lies: what the user said, or else the one partition that holds zones.
// Looking costs one block a partition; while that finds nothing the next block of each, down to 1 MiB of each
// and 16 MiB in all: an image behind HTTP must not be downloaded to be searched.
// Must never choose between two candidates, and never return an area that is not wholly inside the image.
// The signatures are those of docs/FORMAT.md; the cap is Linux's (fs/pstore/zone.c).
import { MmcError } from "../errors.js";
import { judge, number, type Shape, string } from "../judge.js";
import type { Image } from "./contract.js";
import { findPartition, listPartitions, type Partition, readPartitionTable } from "./partitions.js";

/** A pstore area: bytes `[offset, offset + sizeBytes)` of an image. */
export interface Area {
  /** A multiple of 512 in what --offset said and in every partition. */
  offset: number;
  /** 4096..134217728, a multiple of 512. */
  sizeBytes: number;
  /** The partition it is (the start of, above 128 MiB), or null. */
  partition: Partition | null;
}

/** What the user said: a partition, or offset and size, or nothing. */
export interface AreaOptions {
  /** Number, GPT label or PARTUUID; not together with the other two. */
  partition?: string | undefined;
  /** First byte, a multiple of 512; default 0 when size is given. */
  offset?: number | undefined;
  /** Bytes, a multiple of 512, at least 4096; default up to the end. More than 128 MiB is cut to that. */
  size?: number | undefined;
}

const OPTIONS: Shape<AreaOptions> = { partition: string, offset: number, size: number };
const SECTOR_BYTES = 512;
const AREA_BYTES_MIN = 4096;
const AREA_BYTES_MAX = 134_217_728;
/** Linux's zones start on 4 KiB, ours may start on any sector. */
const SCAN_STEP_BYTES = 512;
const SCAN_READ_BYTES = 65536;
const SCAN_PARTITION_BYTES = 2 ** 20;
const SCAN_TOTAL_BYTES = 2 ** 24;
/** kmsg, console, ftrace, pmsg. */
const ZONE_SIGNATURES = [0x43474244, 0x43474246, 0x43474247, 0x43474243];
const KMSG_SIGNATURE = 0x43474244;
const KMSG_MAGIC = 0x4dfc3ae5;

/**
 * Finds the pstore area of an image.
 * @throws MmcError EINVAL a bad option, an area too small or outside the image, or several candidates;
 * ENOENT no such partition, or none that holds zones; EIO a damaged GPT or an unreadable image.
 */
export async function findArea(image: Image, given: AreaOptions = {}): Promise<Area> {
  const options = judge("", given, OPTIONS);
  const { partition, offset, size } = options;
  if (partition !== undefined && (offset !== undefined || size !== undefined)) {
    const other = offset !== undefined ? "--offset" : "--size";
    throw new MmcError("EINVAL", `--partition ${partition}: cannot be combined with ${other}`);
  }
  if (offset !== undefined || size !== undefined) return explicitArea(image, offset, size);
  // An area on the whole device may have an older GPT left at its end: zones at byte 0 settle it.
  if (partition === undefined && (await startsWithZone(image, 0))) return wholeArea(image);
  const table = await readPartitionTable(image);
  if (partition !== undefined) {
    if (table.kind === "none") {
      throw new MmcError("ENOENT", `--partition ${partition}: ${image.name} has no partition table`);
    }
    return partitionArea(image, findPartition(table.partitions, partition));
  }
  if (table.kind === "none") return wholeArea(image);
  return partitionArea(image, await choosePartition(image, table.partitions));
}

function explicitArea(image: Image, offset: number | undefined, size: number | undefined): Area {
  for (const [option, value] of [
    ["--offset", offset],
    ["--size", size],
  ] as const) {
    if (value === undefined) continue;
    if (!Number.isSafeInteger(value) || value < 0)
      throw new MmcError("EINVAL", `${option} ${value}: is no size`);
    if (value % SECTOR_BYTES !== 0) {
      throw new MmcError("EINVAL", `${option} ${value}: must be a multiple of ${SECTOR_BYTES}`);
    }
  }
  const start = offset ?? 0;
  const leftBytes = image.sizeBytes - start;
  if (leftBytes <= 0) {
    throw new MmcError(
      "EINVAL",
      `--offset ${start}: beyond the end of ${image.name} (${image.sizeBytes} bytes)`,
    );
  }
  if (size !== undefined && size < AREA_BYTES_MIN) {
    throw new MmcError("EINVAL", `--size ${size}: must be at least ${AREA_BYTES_MIN}`);
  }
  if (size !== undefined && size > leftBytes) {
    throw new MmcError(
      "EINVAL",
      `--size ${size}: reaches beyond the end of ${image.name} (${image.sizeBytes} bytes)`,
    );
  }
  const sizeBytes = capped(size ?? leftBytes);
  if (sizeBytes < AREA_BYTES_MIN) {
    throw new MmcError(
      "EINVAL",
      `--offset ${start}: leaves ${leftBytes} bytes, an area has at least ${AREA_BYTES_MIN}`,
    );
  }
  return { offset: start, sizeBytes, partition: null };
}

function wholeArea(image: Image): Area {
  const sizeBytes = capped(image.sizeBytes);
  if (sizeBytes < AREA_BYTES_MIN) {
    throw new MmcError(
      "EINVAL",
      `${image.name}: ${image.sizeBytes} bytes are too few, an area has at least ${AREA_BYTES_MIN}`,
    );
  }
  return { offset: 0, sizeBytes, partition: null };
}

function partitionArea(image: Image, partition: Partition): Area {
  const { offset } = partition;
  const what = `${image.name}: partition ${listPartitions([partition])}`;
  if (offset >= image.sizeBytes) {
    throw new MmcError("EINVAL", `${what} starts beyond the end, the image is truncated`);
  }
  if (offset + partition.sizeBytes > image.sizeBytes) {
    // Not cut to what is there: the zones would be counted wrongly. Who wants the rest can say so.
    throw new MmcError(
      "EINVAL",
      `${what} ends beyond the end, the image is truncated; --offset ${offset} reads what is there`,
    );
  }
  const sizeBytes = capped(partition.sizeBytes);
  if (sizeBytes < AREA_BYTES_MIN) {
    throw new MmcError("EINVAL", `${what} has ${sizeBytes} bytes, an area has at least ${AREA_BYTES_MIN}`);
  }
  return { offset, sizeBytes, partition };
}

/** A block device has whole sectors, and Linux uses 128 MiB of it at most. */
function capped(sizeBytes: number): number {
  return Math.min(sizeBytes - (sizeBytes % SECTOR_BYTES), AREA_BYTES_MAX);
}

/** The one partition with zones, else the one named pstore. */
async function choosePartition(image: Image, partitions: readonly Partition[]): Promise<Partition> {
  let found = await partitionsWithZones(image, partitions);
  let what = "hold zones";
  if (found.length === 0) {
    found = partitions.filter((one) => one.name.toLowerCase() === "pstore");
    what = "are named pstore";
  }
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  if (found.length > 1) {
    throw new MmcError(
      "EINVAL",
      `${image.name}: several partitions ${what}: ${listPartitions(found)}; choose one with --partition`,
    );
  }
  const there =
    partitions.length === 0
      ? "the partition table is empty"
      : `no partition holds zones or is named pstore; choose with --partition: ${listPartitions(partitions)}`;
  throw new MmcError("ENOENT", `${image.name}: ${there}`);
}

/**
 * The partitions that show a zone first: all are searched to the same depth, and the depth at which one shows
 * a zone is the last. An area can begin with an empty ring, or with kmsg zones that were never used.
 */
async function partitionsWithZones(image: Image, partitions: readonly Partition[]): Promise<Partition[]> {
  const inside = partitions.filter((one) => one.offset + one.sizeBytes <= image.sizeBytes);
  const found: Partition[] = [];
  for (const one of inside) {
    if (await startsWithZone(image, one.offset)) found.push(one);
  }
  let budgetBytes = SCAN_TOTAL_BYTES;
  for (let depth = 0; depth < SCAN_PARTITION_BYTES && found.length === 0; depth += SCAN_READ_BYTES) {
    const deep = inside.filter((one) => one.sizeBytes > depth);
    budgetBytes -= deep.length * SCAN_READ_BYTES;
    if (budgetBytes < 0) break;
    for (const one of deep) {
      const bytes = await image.read(one.offset + depth, Math.min(SCAN_READ_BYTES, one.sizeBytes - depth));
      if (holdsKmsgZone(bytes)) found.push(one);
    }
  }
  return found;
}

async function startsWithZone(image: Image, offset: number): Promise<boolean> {
  if (offset + 4 > image.sizeBytes) return false;
  return ZONE_SIGNATURES.includes(wordAt(await image.read(offset, 4), 0));
}

/** Looks for a kmsg zone's signature and magic together: four bytes alone can be anything's. */
function holdsKmsgZone(bytes: Uint8Array): boolean {
  for (let at = 0; at + 16 <= bytes.length; at += SCAN_STEP_BYTES) {
    if (wordAt(bytes, at) === KMSG_SIGNATURE && wordAt(bytes, at + 12) === KMSG_MAGIC) return true;
  }
  return false;
}

function wordAt(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);
}
