// Where the zones of an area are, from the sizes that a user gives: the rules by which Linux registers a pstore area
// (fs/pstore/blk.c, zone.c), each with its errno, and an errno where Linux crashes or goes wrong. Nothing of Node.
import { MmcError } from "../errors.js";
import { judge, number, oneOf, required, type Shape } from "../judge.js";
import type { Abi } from "./format.js";

export interface AreaSizes {
  /** Where the area begins on the card, a multiple of 512. */
  offset: number;
  /** A multiple of 4096; more than 128 MiB is cut to that. */
  sizeBytes: number;
  /** Of one kmsg zone, a multiple of 512, not 0. */
  kmsgSize: number;
  /** Each of the three: 0 for none (default), or a multiple of 512. */
  pmsgSize?: number | undefined;
  consoleSize?: number | undefined;
  /** Of all CPUs together: whole sectors for each. */
  ftraceSize?: number | undefined;
  /** CPUs that share ftraceSize; default 1. */
  cpus?: number | undefined;
  abi?: Abi | undefined;
}

/** A device's `area`: the rings' sizes, and the kmsg zones behind them in bytes from the start of the card. */
export interface RegisteredArea {
  offset: number;
  kmsgSize: number;
  kmsgCount: number;
  abi: Abi;
  pmsgSize: number;
  consoleSize: number;
  ftraceSize: number;
  cpus: number;
}

/** Ranges are judged below, by Linux's rules. */
const SIZES: Shape<AreaSizes> = {
  offset: required(number),
  sizeBytes: required(number),
  kmsgSize: required(number),
  pmsgSize: number,
  consoleSize: number,
  ftraceSize: number,
  cpus: number,
  abi: oneOf(["lp64", "i386"]),
};
const SECTOR_BYTES = 512;
const PAGE_BYTES = 4096;
const AREA_BYTES_MAX = 128 * 2 ** 20;

function invalid(why: string): MmcError {
  return new MmcError("EINVAL", `area: ${why}`);
}

/**
 * The zones of such an area, for `DeviceOptions.area`.
 * @throws MmcError EINVAL a size that cannot be; ENOMEM what does not fit. As Linux, but for three: kmsg of which no
 * zone fits (Linux crashes, here ENOMEM), ftrace slices that are not whole sectors (Linux puts the kmsg zones on odd
 * bytes, here EINVAL), and no kmsg zones at all (Linux takes rings alone, here EINVAL: a panic needs a zone).
 */
export function registerArea(given: AreaSizes): RegisteredArea {
  const sizes = judge("area", given, SIZES);
  const { offset, sizeBytes, kmsgSize, pmsgSize = 0, consoleSize = 0, ftraceSize = 0, cpus = 1 } = sizes;
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % SECTOR_BYTES !== 0) {
    throw invalid(`offset ${offset} is no multiple of ${SECTOR_BYTES}`);
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < PAGE_BYTES || sizeBytes % PAGE_BYTES !== 0) {
    throw invalid(`sizeBytes ${sizeBytes} is no multiple of ${PAGE_BYTES}`);
  }
  for (const [name, size] of Object.entries({ kmsgSize, pmsgSize, consoleSize, ftraceSize })) {
    if (!Number.isSafeInteger(size) || size < 0 || size % SECTOR_BYTES !== 0) {
      throw invalid(`${name} ${size} is no multiple of ${SECTOR_BYTES}`);
    }
  }
  if (kmsgSize < 2 * SECTOR_BYTES) throw invalid(`kmsgSize ${kmsgSize} is too small for a record`);
  if (!Number.isSafeInteger(cpus) || cpus < 1 || ftraceSize % (cpus * SECTOR_BYTES) !== 0) {
    throw invalid(`ftraceSize ${ftraceSize} is not whole sectors for each of ${cpus} CPUs`);
  }
  let leftBytes = Math.min(sizeBytes, AREA_BYTES_MAX);
  for (const [name, size] of Object.entries({ pmsgSize, consoleSize, ftraceSize })) {
    if (size > leftBytes) throw new MmcError("ENOMEM", `area: no room for ${name} ${size}`);
    leftBytes -= size;
  }
  const kmsgCount = Math.floor(leftBytes / kmsgSize);
  if (kmsgCount === 0) throw new MmcError("ENOMEM", `area: no room for a kmsg zone of ${kmsgSize} bytes`);
  const kmsgOffset = offset + pmsgSize + consoleSize + ftraceSize;
  const abi = sizes.abi ?? "lp64";
  return { offset: kmsgOffset, kmsgSize, kmsgCount, abi, pmsgSize, consoleSize, ftraceSize, cpus };
}
