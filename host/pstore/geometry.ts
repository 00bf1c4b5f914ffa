// The layout of an area. Nothing on the medium states the sizes, and the bytes may be hostile, so this walks the rings
// (ring-layout.ts) and weighs marks:
//
// 1. Marks inside a record are text, not zones. Going up, a header whose seal proves it hides every mark up
//    to that seal; any other header hides the headers (not the seals, see isInDoubt) within its datalen: marks.ts.
// 2. Candidates for the size are the distances between neighbouring marks, their common divisor, the powers
//    of two and the default. Each lays a grid, and gets a score for it: grid.ts.
// 3. Among the best, the one nearest to Linux's default wins. A single record without a seal fits many:
//    so it is 65536, or the nearest power of two which holds it.
//
// Whoever is able to write binary text into a log can make this guess wrong, so a guess is never enough
// for `ok` where the bytes also allow another one (isInDoubt). Sizes given explicitly are not doubted.
import { anything, judge, number, oneOf, type Shape } from "../judge.js";
import {
  type Abi,
  type Area,
  abiOfZone,
  floorToSector,
  isKmsgZone,
  openArea,
  SECTOR_SIZE,
} from "./format.js";
import { findGrid } from "./grid.js";
import { collectMarks, firstAtLeast, type Marks } from "./marks.js";
import { findCpus, findRings, MAX_CPUS, RING_TYPES, startBehindFtrace } from "./ring-layout.js";

/** Sizes in bytes, multiples of 512. What is missing (or undefined) is found from the bytes. */
export interface GeometryOptions {
  kmsgSize?: number | undefined;
  pmsgSize?: number | undefined;
  consoleSize?: number | undefined;
  ftraceSize?: number | undefined;
  /** How many CPUs share ftraceSize: as many slices as that are looked at. 0: to be found. */
  cpus?: number | undefined;
  abi?: Abi | undefined;
}

/** A Geometry is one too: what was found once is looked at again. What sizes cannot be gives no zones. */
const OPTIONS: Shape<GeometryOptions & Geometry> = {
  kmsgSize: number,
  pmsgSize: number,
  consoleSize: number,
  ftraceSize: number,
  cpus: number,
  abi: oneOf(["lp64", "i386"]),
  areaSize: anything,
  kmsgOffset: anything,
  kmsgCount: anything,
  found: anything,
};

/** The layout of an area; sizes and offsets in bytes. */
export interface Geometry {
  /** How much of the area is looked at: its length, at most 128 MiB. */
  areaSize: number;
  kmsgSize: number;
  pmsgSize: number;
  consoleSize: number;
  ftraceSize: number;
  /** Slices of ftrace that are looked at: as given, else the least number that explains most of what is there. */
  cpus: number;
  /** Where kmsg zone 0 starts. Less than the sum of the rings where Linux's ftrace slices leave a rest. */
  kmsgOffset: number;
  kmsgCount: number;
  abi: Abi;
  /** false when no signature of any kind was seen and the defaults were used. */
  found: boolean;
}

function isPossible(size: number | undefined, areaSize: number): boolean {
  return size === undefined || (Number.isInteger(size / SECTOR_SIZE) && size >= 0 && size <= areaSize);
}

/** A layout, what it was found by, and how sure it is. */
export interface FoundGeometry {
  geometry: Geometry;
  marks: Marks;
  /** The kmsg size was not given. */
  isGuess: boolean;
  /** A record and its own seal agree on it. */
  isSizeProved: boolean;
  /** Neither a seal nor a second record confirms it. */
  isLoneGuess: boolean;
}

/** As {@link findGeometry}, with what isInDoubt must know. */
export function findGeometryIn(area: Area, options: GeometryOptions): FoundGeometry {
  judge<GeometryOptions>("", options, OPTIONS);
  const { kmsgSize, pmsgSize, consoleSize, ftraceSize } = options;
  const noMarks: Marks = {
    headers: [],
    sealEnds: [],
    datalens: new Map(),
    proved: new Map(),
    allHeaders: [],
    allSealEnds: [],
  };
  const sizes = [kmsgSize, pmsgSize, consoleSize, ftraceSize];
  const ringSum = (pmsgSize ?? 0) + (consoleSize ?? 0) + (ftraceSize ?? 0);
  const cpus = options.cpus || undefined;
  const areCpusPossible = cpus === undefined || (Number.isInteger(cpus) && cpus >= 1 && cpus <= MAX_CPUS);
  if (!sizes.every((size) => isPossible(size, area.size)) || ringSum > area.size || !areCpusPossible) {
    const geometry: Geometry = {
      areaSize: area.size,
      kmsgSize: 0,
      pmsgSize: 0,
      consoleSize: 0,
      ftraceSize: 0,
      cpus: 0,
      kmsgOffset: 0,
      kmsgCount: 0,
      abi: options.abi ?? "lp64",
      found: false,
    };
    return { geometry, marks: noMarks, isGuess: false, isSizeProved: false, isLoneGuess: false };
  }

  const rings = findRings(area, { pmsg: pmsgSize, console: consoleSize, ftrace: ftraceSize });
  // Without any ring signature or size there may still be rings nobody wrote to: the grid decides.
  const mayBeBlank =
    !rings.signatureSeen && pmsgSize === undefined && consoleSize === undefined && !ftraceSize;
  let from = rings.end;
  if (rings.open === null && ftraceSize !== undefined && ftraceSize > 0) {
    from = startBehindFtrace(area, rings.end - ftraceSize, ftraceSize, kmsgSize, cpus);
  }
  const fixedStart = rings.open === null && !mayBeBlank ? from : null;
  const marks = collectMarks(area, from);
  const grid = findGrid(area, marks, kmsgSize, fixedStart, from);

  let kmsgOffset = from;
  if (fixedStart === null && grid.kmsgSize > 0) {
    const onGrid = marks.headers.find((header) => (header - grid.start) % grid.kmsgSize === 0);
    if (mayBeBlank) {
      kmsgOffset = grid.start % grid.kmsgSize;
      rings.sizes.pmsg = kmsgOffset;
    } else if (rings.open !== null) {
      // Nothing behind the ring: it gets a size that Linux may have had.
      let guess = 4096;
      while (guess < from) guess *= 2;
      kmsgOffset = onGrid ?? Math.min(guess, floorToSector(area.size));
      const others = RING_TYPES.filter((type) => type !== rings.open);
      const openSize = kmsgOffset - others.reduce((sum, type) => sum + rings.sizes[type], 0);
      rings.sizes[rings.open] = Math.max(0, openSize);
    }
  }
  const kmsgCount = grid.kmsgSize > 0 ? Math.max(0, Math.floor((area.size - kmsgOffset) / grid.kmsgSize)) : 0;
  const onGridCount = marks.headers.filter((header) => (header - kmsgOffset) % grid.kmsgSize === 0).length;
  let provedCount = 0;
  for (const [header, end] of marks.proved) {
    if (end - header === grid.kmsgSize && (header - kmsgOffset) % grid.kmsgSize === 0) provedCount++;
  }
  const ftraceBase = rings.sizes.pmsg + rings.sizes.console;
  const geometry: Geometry = {
    areaSize: area.size,
    kmsgSize: grid.kmsgSize,
    pmsgSize: rings.sizes.pmsg,
    consoleSize: rings.sizes.console,
    ftraceSize: rings.sizes.ftrace,
    cpus:
      rings.sizes.ftrace > 0 && cpus !== undefined
        ? cpus
        : findCpus(area, ftraceBase, rings.sizes.ftrace, kmsgOffset),
    kmsgOffset,
    kmsgCount,
    abi: options.abi ?? abiOfArea(area, kmsgOffset, grid.kmsgSize, kmsgCount),
    found: rings.signatureSeen || marks.allHeaders.length > 0 || marks.allSealEnds.length > 0,
  };
  const isSizeProved = provedCount > 0;
  return {
    geometry,
    marks,
    isGuess: kmsgSize === undefined,
    isSizeProved,
    isLoneGuess: !isSizeProved && onGridCount < 2,
  };
}

function abiOfArea(area: Area, kmsgOffset: number, kmsgSize: number, kmsgCount: number): Abi {
  let lead = 0;
  for (let index = 0; index < kmsgCount; index++) {
    const zone = kmsgOffset + index * kmsgSize;
    if (!isKmsgZone(area, zone)) continue;
    const abi = abiOfZone(area, zone);
    if (abi === "i386") lead++;
    else if (abi === "lp64") lead--;
  }
  return lead > 0 ? "i386" : "lp64";
}

/**
 * True if the record of `recordEnd - zone` bytes at `zone`, which no seal proves, might only seem whole
 * because the zone size was guessed wrong:
 * - a seal stands before the next zone that has a header, but not at this zone's end: it may be this
 *   record's, and disagree. Where the size is proved by others, only seals off the grid count, or in the
 *   record itself;
 * - a header or a seal lies in the record's own bytes, and no second record confirms the size: they may be
 *   zones, and the record's datalen be damaged.
 */
export function isInDoubt(found: FoundGeometry, zone: number, recordEnd: number): boolean {
  if (!found.isGuess) return false;
  const { geometry, marks, isSizeProved, isLoneGuess } = found;
  const zoneEnd = zone + geometry.kmsgSize;
  if (isLoneGuess) {
    const header = firstAtLeast(marks.allHeaders, zone + 1);
    if (header !== undefined && header < recordEnd) return true;
  }
  const nextHeader = firstAtLeast(marks.headers, zone + 1) ?? Number.POSITIVE_INFINITY;
  const limit = Math.max(zoneEnd, nextHeader);
  const sealEnd = firstAtLeast(marks.allSealEnds, zone + 1);
  if (sealEnd === undefined || sealEnd > limit || sealEnd === zoneEnd) return false;
  if (sealEnd < zoneEnd || !isSizeProved) return true;
  return (sealEnd - geometry.kmsgOffset) % geometry.kmsgSize !== 0;
}

/**
 * The layout of an area: what the options give, and the rest found from signatures and seals. Never throws.
 * Sizes that cannot be (no multiple of 512, negative, larger than the area) give a layout without zones.
 * @param area the whole area; at most its first 128 MiB are looked at.
 */
export function findGeometry(area: Uint8Array, options: GeometryOptions = {}): Geometry {
  return findGeometryIn(openArea(area), options).geometry;
}
