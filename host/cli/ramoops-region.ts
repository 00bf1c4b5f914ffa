// A ramoops region out of a file: the file itself, a range of it, or the one region that a RAM dump holds. Must never
// read more than a region into memory, nor choose between several.
import {
  groupRamoops,
  isRamoopsZone,
  type RamoopsOptions,
  type RamoopsRange,
  type RamoopsRegion,
  ramoopsPages,
  readRamoops,
} from "../embed/ramoops.js";
import { MmcError } from "../errors.js";
import type { Image } from "../image/contract.js";
import { openImage } from "../image/image.js";
import { checkRaw, whyNothing } from "../image/judge.js";
import { makeProgress, type Progress } from "./progress.js";

export interface RegionOptions {
  /** Where the region begins in the file. */
  memAddress?: number;
  memSize?: number;
  recordSize?: number;
  ecc?: number;
  /** ms */
  timeout?: number;
}

export interface OpenedRegion extends RamoopsRegion {
  name: string;
  range: RamoopsRange;
}

/** Larger ones are not made: a whole RAM that is taken for a region is a mistake. */
const REGION_BYTES_MAX = 128 * 1024 * 1024;
/** A multiple of a page. */
const CHUNK_BYTES = 16 * 1024 * 1024;
const REGIONS_NAMED = 8;

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/**
 * Reads the region of the file or URL at `location`.
 * @throws MmcError ENODATA no region, or several that hold records (EINVAL); EFBIG; ERANGE beyond the file; and what
 * openImage() throws.
 */
export async function openRegion(location: string, options: RegionOptions): Promise<OpenedRegion> {
  const progress = makeProgress("reading");
  try {
    const file = await openImage(location, { timeoutMs: options.timeout, onProgress: progress.onProgress });
    try {
      const isGiven = options.memAddress !== undefined || options.memSize !== undefined;
      if (!isGiven) await checkRaw(file, file.bytesFetched === 0);
      const range = await findRange(file, options, progress);
      const bytes = await file.read(range.offset, range.sizeBytes);
      const region = readRamoops(bytes, { recordSize: options.recordSize, eccSize: options.ecc });
      if (!region.zones.some((zone) => zone.state !== "invalid")) {
        const where = `${range.sizeBytes} bytes at ${hex(range.offset)}`;
        const why = isRamoopsZone(bytes, 0)
          ? `no zone fits into ${where}: cut off, or --record-size or --ecc are not its own`
          : `there is no ramoops zone in ${where}`;
        throw new MmcError("ENODATA", `${file.name}: ${why}`);
      }
      return { ...region, name: file.name, range };
    } finally {
      await file.close();
    }
  } finally {
    progress.stop();
  }
}

async function findRange(file: Image, options: RegionOptions, progress: Progress): Promise<RamoopsRange> {
  const { memAddress, memSize } = options;
  if (memAddress !== undefined || memSize !== undefined) {
    const offset = memAddress ?? 0;
    const sizeBytes = memSize ?? file.sizeBytes - offset;
    if (offset >= file.sizeBytes || offset + sizeBytes > file.sizeBytes) {
      throw new MmcError(
        "ERANGE",
        `${file.name}: ends at ${hex(file.sizeBytes)}, before ${hex(offset + Math.max(sizeBytes, 0))}`,
      );
    }
    if (sizeBytes > REGION_BYTES_MAX) {
      throw new MmcError("EFBIG", `${file.name}: ${sizeBytes} bytes are no region, give --mem-size`);
    }
    return { offset, sizeBytes };
  }
  const head = await file.read(0, Math.min(file.sizeBytes, 12));
  if (isRamoopsZone(head, 0) && file.sizeBytes <= REGION_BYTES_MAX) {
    return { offset: 0, sizeBytes: file.sizeBytes };
  }
  return searchRange(file, { recordSize: options.recordSize, eccSize: options.ecc }, progress);
}

/** The one region of a RAM dump that has a record; if none has, the one that there is. */
async function searchRange(file: Image, options: RamoopsOptions, progress: Progress): Promise<RamoopsRange> {
  const pages: number[] = [];
  for (let at = 0; at < file.sizeBytes; at += CHUNK_BYTES) {
    const chunk = await file.read(at, Math.min(CHUNK_BYTES, file.sizeBytes - at));
    for (const page of ramoopsPages(chunk)) pages.push(at + page);
    progress.onProgress(at + chunk.length, file.sizeBytes);
  }
  const ranges = groupRamoops(pages, file.sizeBytes).filter((range) => range.sizeBytes <= REGION_BYTES_MAX);
  const used: RamoopsRange[] = [];
  for (const range of ranges) {
    const { records } = readRamoops(await file.read(range.offset, range.sizeBytes), options);
    if (records.some((record) => record.type === "dmesg")) used.push(range);
  }
  const [found, second] = used.length > 0 ? used : ranges;
  if (found === undefined) {
    const head = await file.read(0, Math.min(CHUNK_BYTES, file.sizeBytes));
    const why = await whyNothing(file, 0, head, "holds no ramoops region");
    if (why?.code === "EMEDIUMTYPE") throw why;
    throw new MmcError(
      "ENODATA",
      `${file.name}: holds no ramoops region (no zone begins at a whole page); say where with --mem-address`,
    );
  }
  if (second !== undefined) {
    const named = (used.length > 0 ? used : ranges).slice(0, REGIONS_NAMED);
    throw new MmcError(
      "EINVAL",
      `${file.name}: holds several ramoops regions, at ${named.map(({ offset }) => hex(offset)).join(", ")}; ` +
        "choose one with --mem-address and --mem-size",
    );
  }
  return found;
}
