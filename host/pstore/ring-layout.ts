// Where the rings end and the kmsg zones start: pmsg, console and ftrace by their signatures, and the slices that
// Linux cuts ftrace into, for a number of CPUs that is stored nowhere.
import { ownBytes } from "../own-bytes.js";
import {
  type Area,
  ceilToSector,
  isKmsgZone,
  isRing,
  PSZ_BUFFER_SIZE,
  type RingType,
  SECTOR_SIZE,
} from "./format.js";

/** Bounds on what is tried and weighed, so that the cost stays linear. */
export const MAX_CPUS = 8192;
const MAX_SLICE_MARKS = 1024;
const SCANNED_BYTES = 65536;

interface Rings {
  sizes: Record<RingType, number>;
  /** The ring whose end is not known, and which reaches to where the kmsg zones start; null if none does. */
  open: RingType | null;
  /** Where the kmsg zones start; with an open ring, the least that its data needs. */
  end: number;
  signatureSeen: boolean;
}

/** In the order of the medium. */
export const RING_TYPES = ["pmsg", "console", "ftrace"] as const;

/**
 * Walks the rings from the start of the area. A ring without a size ends at the next ring's signature.
 * @param explicit the sizes that are given.
 */
export function findRings(area: Area, explicit: Record<RingType, number | undefined>): Rings {
  const rings: Rings = {
    sizes: { pmsg: 0, console: 0, ftrace: 0 },
    open: null,
    end: 0,
    signatureSeen: false,
  };
  for (const [index, type] of RING_TYPES.entries()) {
    const size = explicit[type];
    if (rings.open !== null || size !== undefined) {
      rings.sizes[type] = size ?? 0;
      rings.end += size ?? 0;
      continue;
    }
    if (!isRing(area, rings.end, type)) continue;
    rings.signatureSeen = true;
    const start = rings.end;
    const datalen = area.view.getInt32(start + 4, true);
    // What users wrote into a ring may look like anything: nothing in it is looked at.
    const dataEnd = ceilToSector(start + PSZ_BUFFER_SIZE + datalen);
    rings.end = dataEnd;
    rings.open = type;
    const laterTypes = RING_TYPES.slice(index + 1);
    for (let at = dataEnd; at < area.size && !isKmsgZone(area, at); at += SECTOR_SIZE) {
      if (!laterTypes.some((later) => isRing(area, at, later))) continue;
      rings.open = null;
      rings.end = at;
      rings.sizes[type] = at - start;
      break;
    }
  }
  return rings;
}

/**
 * Where the kmsg zones start behind an ftrace region of a given size: Linux cuts it into one slice per CPU
 * and starts the kmsg zones behind the last slice, at any byte. The number of CPUs is stored nowhere, so
 * every number is tried, and the start with the most kmsg zones behind it taken; the region's end if none.
 */
export function startBehindFtrace(
  area: Area,
  base: number,
  ftraceSize: number,
  kmsgSize: number | undefined,
  cpusGiven: number | undefined,
): number {
  if (cpusGiven !== undefined) return base + endOfSlices(ftraceSize, cpusGiven);
  let best = base + ftraceSize;
  let bestCount = 0;
  const tried = new Set<number>();
  for (let cpus = 1; cpus <= MAX_CPUS; cpus++) {
    const slice = Math.floor(ftraceSize / cpus);
    if (slice < PSZ_BUFFER_SIZE) break;
    const start = base + endOfSlices(ftraceSize, cpus);
    if (tried.has(start)) continue;
    tried.add(start);
    let count = 0;
    const zones = kmsgSize === undefined ? 1 : 256;
    for (let zone = 0; zone < zones; zone++) if (isKmsgZone(area, start + zone * (kmsgSize ?? 0))) count++;
    if (count > bestCount) {
      best = start;
      bestCount = count;
    }
  }
  return best;
}

/** Where the last slice ends that Linux places in an ftrace region shared by so many CPUs. */
function endOfSlices(ftraceSize: number, cpus: number): number {
  const slice = Math.floor(ftraceSize / cpus);
  return slice === 0 ? 0 : Math.floor(ftraceSize / slice) * slice;
}

/**
 * How many slices there are in the ftrace region at `base`, which ends where the kmsg zones start: the number that puts
 * a slice on most of the headers that are there, the least one of equals. Slices nobody wrote to make no difference.
 */
export function findCpus(area: Area, base: number, ftraceSize: number, kmsgOffset: number): number {
  if (ftraceSize < PSZ_BUFFER_SIZE || base + ftraceSize > area.size) return ftraceSize === 0 ? 0 : 1;
  const marks: number[] = [];
  const last = base + ftraceSize - PSZ_BUFFER_SIZE;
  for (let from = base; from <= last; from += SCANNED_BYTES) {
    const part = ownBytes(area.part(from, Math.min(from + SCANNED_BYTES, last + 1)));
    for (
      let at = part.indexOf(0x47);
      at >= 0 && marks.length < MAX_SLICE_MARKS;
      at = part.indexOf(0x47, at + 1)
    ) {
      if (isRing(area, from + at, "ftrace")) marks.push(from + at - base);
    }
  }
  let best = 1;
  let bestCount = -1;
  for (let cpus = 1; cpus <= MAX_CPUS; cpus++) {
    const slice = Math.floor(ftraceSize / cpus);
    if (slice < PSZ_BUFFER_SIZE) break;
    if (base + endOfSlices(ftraceSize, cpus) !== kmsgOffset) continue;
    const explained = marks.filter((mark) => {
      const fits = area.view.getInt32(base + mark + 4, true) <= slice - PSZ_BUFFER_SIZE;
      return mark % slice === 0 && mark / slice < cpus && fits;
    });
    if (explained.length > bestCount) {
      best = cpus;
      bestCount = explained.length;
    }
  }
  return best;
}
