// Reads a pstore area from its bytes alone: finds its layout, and tells for every zone what Linux's pstore
// file system would show and what state the record is in.
// Written from docs/FORMAT.md and from nothing else, as the independent oracle of the core. It must never
// import from assembly/ (not even a constant), never write, never use anything of Node, and never throw:
// any bytes at all are an area.
import { crc32c } from "./crc32c.js";
import { ftraceText, mergeFtrace } from "./ftrace.js";
import { inflateRaw } from "./inflate.js";
import { type RecordType, recordName } from "./names.js";

/** The two layouts of the kmsg header; 32-bit arm writes `lp64` too. */
export type Abi = "lp64" | "i386";

/** FORMAT.md, "The state of a kmsg zone", for the zones that have something to show. */
export type RecordState = "ok" | "torn" | "salvaged" | "undecodable";

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

/** One file of Linux's pstore file system. */
export interface PstoreRecord {
  name: string;
  type: RecordType;
  /** The index of the kmsg zone; 0 for the rings. */
  id: number;
  /** `Panic`, `Oops`, `Emergency`, `Shutdown` or `Unknown`; empty for the rings. */
  reason: string;
  /** The counter as Linux prints it, a signed 32-bit number; 0 for the rings. */
  count: number;
  /** Seconds since 1970 as stored, 0 if unknown and for the rings. */
  timeSec: bigint;
  /** As stored; outside 0..999,999,999 only on a damaged record. */
  timeNsec: number;
  /** The length of `bytes`. */
  size: number;
  compressed: boolean;
  abi: Abi;
  /** Of the zone, in bytes from the start of the area. */
  offset: number;
  /** A seal stands and proves every byte (of a salvaged one: all but the header it mends). Never with `torn`. */
  sealed: boolean;
  /** The seal's sequence if `sealed`, else null. */
  sequence: bigint | null;
  /** Its number in a log of several parts, 1 the newest; 0: no part. Also the three below: FORMAT.md, Long logs. */
  part: number;
  /** How many bytes of the log are older than this part's text. */
  olderBytes: number;
  /** Bytes of `Panic#1 Part2⏎` in front of this part's text that are not the log's. */
  lineBytes: number;
  /** The sequence of part 1 of its log; null if it is no part. */
  first: bigint | null;
  /** The name of a record before this one with the same sequence and bytes; null if there is none. */
  duplicateOf: string | null;
  /** `erased` only in {@link Decoded.erased}. */
  state: RecordState | "erased";
  /** What the file holds. May be a view into the area. */
  bytes: Uint8Array;
  /** ftrace: the records that `bytes` is the text of, merged by time. Else null. */
  raw: Uint8Array | null;
  /** Where in `bytes` the text begins: behind the line that Linux puts before an uncompressed payload. */
  textOffset: number;
}

/** One zone, whether it holds something or not. */
export interface ZoneInfo {
  type: RecordType;
  /** Of a kmsg zone or of an ftrace slice, else 0. */
  index: number;
  offset: number;
  size: number;
  state: "empty" | "erased" | RecordState;
  /** As stored (signed), 0 if the zone is empty. */
  datalen: number;
  sealed: boolean;
  /** The sequence of whatever seal stands at the zone's end, even if it proves nothing here; else null. */
  sequence: bigint | null;
  /** Unsigned. This and the three below are as stored, also in an erased zone; 0 if the zone is empty. */
  counter: number;
  reason: number;
  timeSec: bigint;
  timeNsec: number;
}

export interface Decoded {
  geometry: Geometry;
  /** In the order in which Linux lists them: kmsg by zone index, then ftrace, pmsg and console. */
  records: PstoreRecord[];
  /** Removed records whose bytes the seal still proves, by zone index; of the others nothing can be said. */
  erased: PstoreRecord[];
  /** In the order of the medium. */
  zones: ZoneInfo[];
}

const SECTOR_SIZE = 512;
const MAX_AREA_SIZE = 134_217_728;
const DEFAULT_KMSG_SIZE = 65536;

const PSZ_SIG_KMSG = 0x43474244;
const RING_SIGNATURES = { pmsg: 0x43474243, console: 0x43474246, ftrace: 0x43474247 } as const;
const PSZ_KMSG_HEADER_MAGIC = 0x4dfc3ae5;
const PSZ_BUFFER_SIZE = 12;
const KMSG_HEADER_SIZES = { lp64: 40, i386: 28 } as const;

const SEAL_SIZE = 64;
const SEAL_MAGIC = 0x53434d4d;
const SEAL_VERSION = 1;

/** Linux inflates at most three times what a zone takes, and writes no more; so a bomb costs four times its zone. */
const MAX_INFLATED_ZONES = 4;
const MAX_INFLATED_BYTES = 16 * 1024 * 1024;
/** For one decode. A hostile area may hold thousands of bombs; each would be within its own limit. */
const INFLATE_BUDGET_BYTES = 64 * 1024 * 1024;
/** What a deflate block is taken to cost, in bytes inflated: its tables are built even if it gives none. */
const BLOCK_COST_BYTES = 64;

/** Shutdown. Larger ones are shown as Unknown; in a header that is damaged elsewhere they are damage too. */
const MAX_REASON = 4;
const REASON_NAMES = ["Unknown", "Panic", "Oops", "Emergency", "Shutdown"];

const NO_BYTES = new Uint8Array(0);

// --- Single structures -------------------------------------------------------------------------------

interface Area {
  bytes: Uint8Array;
  view: DataView;
  size: number;
}

interface KmsgHeader {
  compressed: boolean;
  counter: number;
  reason: number;
  timeSec: bigint;
  timeNsec: number;
}

interface Seal {
  sequence: bigint;
  datalen: number;
  recordCrc: number;
  part: number;
  olderBytes: number;
  first: bigint;
  lineBytes: number;
}

/** The seal that ends at `end`, if one stands there. */
function readSeal(area: Area, end: number): Seal | null {
  const at = end - SEAL_SIZE;
  if (at < 0 || end > area.size) return null;
  if (area.view.getUint32(at, true) !== SEAL_MAGIC) return null;
  if (area.view.getUint32(at + 4, true) !== SEAL_VERSION) return null;
  if (area.view.getUint32(at + 60, true) !== crc32c(area.bytes, at, at + 60)) return null;
  return {
    sequence: area.view.getBigUint64(at + 8, true),
    datalen: area.view.getUint32(at + 16, true),
    recordCrc: area.view.getUint32(at + 20, true),
    part: area.view.getUint32(at + 24, true),
    olderBytes: area.view.getUint32(at + 28, true),
    first: area.view.getBigUint64(at + 32, true),
    lineBytes: area.view.getUint32(at + 56, true),
  };
}

/** Signature and magic of a kmsg zone. */
function isKmsgZone(area: Area, offset: number): boolean {
  if (offset < 0 || offset + 16 > area.size) return false;
  return (
    area.view.getUint32(offset, true) === PSZ_SIG_KMSG &&
    area.view.getUint32(offset + 12, true) === PSZ_KMSG_HEADER_MAGIC
  );
}

/** Signature of a ring with numbers that fit each other; whether they fit the zone is not known here. */
function isRing(area: Area, offset: number, type: keyof typeof RING_SIGNATURES): boolean {
  if (offset + PSZ_BUFFER_SIZE > area.size) return false;
  if (area.view.getUint32(offset, true) !== RING_SIGNATURES[type]) return false;
  const datalen = area.view.getInt32(offset + 4, true);
  const start = area.view.getInt32(offset + 8, true);
  return start >= 0 && start <= datalen && offset + PSZ_BUFFER_SIZE + datalen <= area.size;
}

function isNsec(value: bigint | number): boolean {
  return value >= 0 && value <= 999_999_999;
}

/** The only ABI that a zone with a right magic can have, or null if it fits both or neither. */
function abiOfZone(area: Area, zone: number): Abi | null {
  if (zone + 52 > area.size) return null;
  const { view } = area;
  const lp64 =
    view.getUint32(zone + 16, true) === 0 &&
    isNsec(view.getBigInt64(zone + 28, true)) &&
    view.getUint32(zone + 48, true) === 0;
  const i386 = isNsec(view.getInt32(zone + 24, true)) && (view.getUint32(zone + 28, true) & 0xffffff00) === 0;
  if (lp64 === i386) return null;
  return lp64 ? "lp64" : "i386";
}

function readKmsgHeader({ view }: Area, zone: number, abi: Abi): KmsgHeader {
  return abi === "lp64"
    ? {
        timeSec: view.getBigInt64(zone + 20, true),
        timeNsec: Number(view.getBigInt64(zone + 28, true)),
        compressed: view.getUint8(zone + 36) !== 0,
        counter: view.getUint32(zone + 40, true),
        reason: view.getUint32(zone + 44, true),
      }
    : {
        timeSec: view.getBigInt64(zone + 16, true),
        timeNsec: view.getInt32(zone + 24, true),
        compressed: view.getUint8(zone + 28) !== 0,
        counter: view.getUint32(zone + 32, true),
        reason: view.getUint32(zone + 36, true),
      };
}

// --- Finding the layout ------------------------------------------------------------------------------
//
// Nothing on the medium states the sizes, and the bytes may be hostile, so this weighs marks: kmsg headers
// (a mark where a zone starts) and seals (a mark where one ends) at 512-byte steps.
//
// 1. Marks inside a record are text, not zones. Going up, a header whose seal proves it hides every mark up
//    to that seal; any other header hides the headers (not the seals, see isInDoubt) within its datalen.
// 2. Candidates for the size are the distances between neighbouring marks, their common divisor, the powers
//    of two and the default. Each lays a grid, and gets a score for it: see scoreGrid.
// 3. Among the best, the one nearest to Linux's default wins. A single record without a seal fits many:
//    so it is 65536, or the nearest power of two which holds it.
//
// Whoever is able to write binary text into a log can make this guess wrong, so a guess is never enough
// for `ok` where the bytes also allow another one (isInDoubt). Sizes given explicitly are not doubted.

/** Bounds on what is weighed, so that the cost stays linear. Linux has at most 32768 zones. */
const MAX_MARKS = 8192;
const MAX_DISTANCES = 24;
/** No kernel allocates a larger zone, so no larger datalen hides what follows. */
const MAX_HIDDEN_BYTES = 4 * 1024 * 1024;
const MAX_CPUS = 8192;
const MAX_SLICE_MARKS = 1024;
/** What Linux merges lies in one allocation of at most this. */
const MAX_FTRACE_BYTES = 4 * 1024 * 1024;

interface Marks {
  /** Offsets of kmsg headers that are in no other record, ascending. */
  headers: number[];
  /** Ends of seals that stand in no proved zone, ascending. A proved zone's own seal is here too. */
  sealEnds: number[];
  /** Zone offset → zone end, for headers proved by a seal. */
  proved: Map<number, number>;
  /** Every header and every seal end, hidden or not, ascending. */
  allHeaders: number[];
  allSealEnds: number[];
}

/** The marks at `from` and every 512 bytes on. */
function collectMarks(area: Area, from: number): Marks {
  const allHeaders: number[] = [];
  const allSealEnds: number[] = [];
  const endsOfRecord = new Map<string, number[]>();
  for (let at = from; at <= area.size; at += SECTOR_SIZE) {
    if (isKmsgZone(area, at)) allHeaders.push(at);
    const seal = at > from ? readSeal(area, at) : null;
    if (seal !== null) {
      allSealEnds.push(at);
      const key = `${seal.datalen}:${seal.recordCrc}`;
      const ends = endsOfRecord.get(key);
      if (ends === undefined) endsOfRecord.set(key, [at]);
      else ends.push(at);
    }
  }
  const headers: number[] = [];
  const sealEnds: number[] = [];
  const proved = new Map<number, number>();
  let hiddenUntil = from;
  let provedUntil = from;
  let nextSeal = 0;
  const takeSeals = (until: number): void => {
    for (; nextSeal < allSealEnds.length; nextSeal++) {
      const end = allSealEnds[nextSeal] as number;
      if (end > until) return;
      if (end >= provedUntil) sealEnds.push(end);
    }
  };
  for (const header of allHeaders) {
    if (header < hiddenUntil) continue;
    takeSeals(header);
    headers.push(header);
    const datalen = area.view.getInt32(header + 4, true);
    const recordEnd = header + PSZ_BUFFER_SIZE + datalen;
    if (datalen <= 0 || datalen > MAX_HIDDEN_BYTES || recordEnd > area.size) continue;
    hiddenUntil = recordEnd;
    if (endsOfRecord.size === 0) continue;
    // The records that this is done for do not overlap, so all of this costs one pass over the area.
    const crc = crc32c(area.bytes, header, recordEnd);
    const end = firstAtLeast(endsOfRecord.get(`${datalen}:${crc}`) ?? [], recordEnd + SEAL_SIZE);
    if (end !== undefined && end - header <= MAX_HIDDEN_BYTES) {
      proved.set(header, end);
      hiddenUntil = end;
      provedUntil = end;
    }
  }
  takeSeals(area.size);
  return { headers, sealEnds, proved, allHeaders, allSealEnds };
}

/** The index of the first number in an ascending list that is at least `bound`. */
function indexAtLeast(ascending: readonly number[], bound: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ascending[middle] as number) < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}

function firstAtLeast(ascending: readonly number[], bound: number): number | undefined {
  return ascending[indexAtLeast(ascending, bound)];
}

interface Grid {
  kmsgSize: number;
  /** The start of a zone, all others are multiples of kmsgSize away; may be any zone's start. */
  start: number;
  score: number;
}

/** The remainder by `kmsgSize` that most marks have: marks of the true grid agree, others scatter. */
function commonRemainder(marks: Marks, kmsgSize: number): number {
  const votes = new Map<number, number>();
  let best = 0;
  let bestVotes = 0;
  for (const list of [marks.headers, marks.sealEnds]) {
    for (let index = 0; index < Math.min(list.length, MAX_MARKS); index++) {
      const remainder = (list[index] as number) % kmsgSize;
      const count = (votes.get(remainder) ?? 0) + 1;
      votes.set(remainder, count);
      if (count > bestVotes) {
        best = remainder;
        bestVotes = count;
      }
    }
  }
  return best;
}

/**
 * How well a grid explains the marks:
 * - a header on the grid: 1 if its datalen fits a zone of this size, else -1; 4 more if its zone's seal
 *   proves it;
 * - a seal on the grid: 1, and 1 more if its zone has a header that fits, too;
 * - a mark off the grid, or in a zone that would not fit into the area: -1;
 * - a zone without a mark between two that have one: -1, as zones are filled in order and unlink leaves the
 *   header; but never so many that a stray mark far away could outweigh the zones explained.
 */
function scoreGrid(area: Area, marks: Marks, kmsgSize: number, start: number): number {
  let score = 0;
  const markedZones = new Set<number>();
  const fittingZones = new Set<number>();
  for (let index = 0; index < Math.min(marks.headers.length, MAX_MARKS); index++) {
    const header = marks.headers[index] as number;
    const zone = (header - start) / kmsgSize;
    if (!Number.isInteger(zone) || header + kmsgSize > area.size) {
      score--;
      continue;
    }
    markedZones.add(zone);
    const datalen = area.view.getInt32(header + 4, true);
    if (datalen < 0 || datalen > kmsgSize - PSZ_BUFFER_SIZE) {
      score--;
      continue;
    }
    fittingZones.add(zone);
    score += marks.proved.get(header) === header + kmsgSize ? 5 : 1;
  }
  for (let index = 0; index < Math.min(marks.sealEnds.length, MAX_MARKS); index++) {
    const zone = ((marks.sealEnds[index] as number) - start) / kmsgSize - 1;
    if (!Number.isInteger(zone) || (marks.sealEnds[index] as number) < kmsgSize) {
      score--;
      continue;
    }
    markedZones.add(zone);
    score += fittingZones.has(zone) ? 2 : 1;
  }
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (const zone of markedZones) {
    first = Math.min(first, zone);
    last = Math.max(last, zone);
  }
  const gaps = markedZones.size === 0 ? 0 : last - first + 1 - markedZones.size;
  return score - Math.min(gaps, Math.max(0, markedZones.size - 1));
}

function mostFrequent(counts: Map<number, number>): number[] {
  return [...counts]
    .sort((a, b) => b[1] - a[1] || a[0] - b[0])
    .slice(0, MAX_DISTANCES)
    .map(([value]) => value);
}

function greatestCommonDivisor(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}

function candidateSizes(marks: Marks, largest: number): number[] {
  const betweenHeaders = new Map<number, number>();
  const toSeals = new Map<number, number>();
  const count = (counts: Map<number, number>, distance: number): void => {
    if (distance > 0) counts.set(distance, (counts.get(distance) ?? 0) + 1);
  };
  const { headers, sealEnds } = marks;
  let divisor = 0;
  for (let index = 1; index < Math.min(headers.length, MAX_MARKS); index++) {
    const distance = (headers[index] as number) - (headers[index - 1] as number);
    count(betweenHeaders, distance);
    divisor = greatestCommonDivisor(divisor, distance);
  }
  for (let index = 0; index < Math.min(sealEnds.length, MAX_MARKS); index++) {
    const end = sealEnds[index] as number;
    const header = headers[indexAtLeast(headers, end) - 1];
    if (header !== undefined) count(toSeals, end - header);
    const previous = sealEnds[index - 1];
    if (previous !== undefined) count(toSeals, end - previous);
  }
  const sizes = new Set<number>([Math.min(DEFAULT_KMSG_SIZE, largest), divisor]);
  for (let size = SECTOR_SIZE; size <= MAX_AREA_SIZE; size *= 2) sizes.add(size);
  for (const size of [...mostFrequent(betweenHeaders), ...mostFrequent(toSeals)]) sizes.add(size);
  for (const [header, end] of [...marks.proved].slice(0, MAX_DISTANCES)) sizes.add(end - header);
  return [...sizes].filter((size) => size >= SECTOR_SIZE && size <= largest);
}

/** The grid that explains the marks best; `fixedStart` null: zones may start anywhere. */
function findGrid(
  area: Area,
  marks: Marks,
  explicitSize: number | undefined,
  fixedStart: number | null,
  from: number,
): Grid {
  const largest = Math.max(0, floorToSector(area.size - from));
  let best: Grid | null = null;
  const distanceToDefault = (size: number): number =>
    Math.max(size / DEFAULT_KMSG_SIZE, DEFAULT_KMSG_SIZE / size);
  const sizes = explicitSize === undefined ? candidateSizes(marks, largest) : [explicitSize];
  for (const kmsgSize of sizes) {
    if (kmsgSize < SECTOR_SIZE) continue;
    // Start 0 goes first: a grid that needs no blank ring in front of it wins a tie.
    const starts = fixedStart === null ? [0, commonRemainder(marks, kmsgSize)] : [fixedStart];
    for (const start of starts) {
      const score = scoreGrid(area, marks, kmsgSize, start);
      const isBetter =
        best === null ||
        score > best.score ||
        (score === best.score && distanceToDefault(kmsgSize) < distanceToDefault(best.kmsgSize));
      if (isBetter) best = { kmsgSize, start, score };
    }
  }
  return (
    best ?? {
      kmsgSize: explicitSize ?? Math.min(DEFAULT_KMSG_SIZE, largest),
      start: fixedStart ?? 0,
      score: 0,
    }
  );
}

function floorToSector(bytes: number): number {
  return Math.floor(bytes / SECTOR_SIZE) * SECTOR_SIZE;
}

function ceilToSector(bytes: number): number {
  return Math.ceil(bytes / SECTOR_SIZE) * SECTOR_SIZE;
}

interface Rings {
  sizes: { pmsg: number; console: number; ftrace: number };
  /** The ring whose end is not known, and which reaches to where the kmsg zones start; null if none does. */
  open: "pmsg" | "console" | "ftrace" | null;
  /** Where the kmsg zones start; with an open ring, the least that its data needs. */
  end: number;
  signatureSeen: boolean;
}

const RING_TYPES = ["pmsg", "console", "ftrace"] as const;

/** Walks the rings from the start of the area. A ring without a size ends at the next ring's signature. */
function findRings(area: Area, options: GeometryOptions): Rings {
  const explicit = { pmsg: options.pmsgSize, console: options.consoleSize, ftrace: options.ftraceSize };
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
function startBehindFtrace(
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
function findCpus(area: Area, base: number, ftraceSize: number, kmsgOffset: number): number {
  if (ftraceSize < PSZ_BUFFER_SIZE || base + ftraceSize > area.size) return ftraceSize === 0 ? 0 : 1;
  const marks: number[] = [];
  const last = base + ftraceSize - PSZ_BUFFER_SIZE;
  for (let at = base; at <= last && marks.length < MAX_SLICE_MARKS; at++) {
    if (area.bytes[at] === 0x47 && isRing(area, at, "ftrace")) marks.push(at - base);
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

function isPossible(size: number | undefined, areaSize: number): boolean {
  return size === undefined || (Number.isInteger(size / SECTOR_SIZE) && size >= 0 && size <= areaSize);
}

interface Found {
  geometry: Geometry;
  marks: Marks;
  /** The kmsg size was not given. */
  isGuess: boolean;
  /** A record and its own seal agree on it. */
  isSizeProved: boolean;
  /** Neither a seal nor a second record confirms it. */
  isLoneGuess: boolean;
}

function find(area: Area, options: GeometryOptions): Found {
  const { kmsgSize, pmsgSize, consoleSize, ftraceSize } = options;
  const noMarks: Marks = { headers: [], sealEnds: [], proved: new Map(), allHeaders: [], allSealEnds: [] };
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

  const rings = findRings(area, options);
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
function isInDoubt(found: Found, zone: number, recordEnd: number): boolean {
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

// --- Reading the zones -------------------------------------------------------------------------------

interface Budget {
  inflateBytes: number;
}

/** Below this, what a foreign compression inflates to by chance may look like text. */
const SALVAGED_TEXT_BYTES_MIN = 64;

/** What a log has: printable bytes, UTF-8, tab, newline, carriage return, escape. */
function isTextByte(byte: number): boolean {
  return (byte >= 0x20 && byte !== 0x7f) || byte === 9 || byte === 10 || byte === 13 || byte === 27;
}

function textBytesAtStart(bytes: Uint8Array): number {
  let count = 0;
  while (count < bytes.length && isTextByte(bytes[count] as number)) count++;
  return count;
}

/** A payload inflated; `isWhole` false: it broke off, and this is the text before. */
interface Inflated {
  bytes: Uint8Array;
  isWhole: boolean;
}

/** null: it is no deflate stream, or costs more than is left. */
function inflatePayload(payload: Uint8Array, zoneSize: number, budget: Budget): Inflated | null {
  const limitBytes = Math.min(MAX_INFLATED_BYTES, MAX_INFLATED_ZONES * zoneSize, budget.inflateBytes);
  if (limitBytes <= 0 || payload.length === 0) return null;
  const { status, bytes, blockCount } = inflateRaw(payload, limitBytes);
  // What was inflated in vain is paid for as well.
  budget.inflateBytes -= bytes.length + blockCount * BLOCK_COST_BYTES;
  if (status === "ok") return { bytes, isWhole: true };
  if (status === "too-large") return null;
  const count = textBytesAtStart(bytes);
  return count < SALVAGED_TEXT_BYTES_MIN ? null : { bytes: bytes.slice(0, count), isWhole: false };
}

function withHeaderLine(reason: string, count: number, payload: Uint8Array): Uint8Array {
  const line = `${reason}: Total ${count} times\n`;
  const bytes = new Uint8Array(line.length + payload.length);
  for (let index = 0; index < line.length; index++) bytes[index] = line.charCodeAt(index);
  bytes.set(payload, line.length);
  return bytes;
}

function emptyZone(type: ZoneInfo["type"], index: number, offset: number, size: number): ZoneInfo {
  return {
    type,
    index,
    offset,
    size,
    state: "empty",
    datalen: 0,
    sealed: false,
    sequence: null,
    counter: 0,
    reason: 0,
    timeSec: 0n,
    timeNsec: 0,
  };
}

interface DecodedZone {
  zone: ZoneInfo;
  record: PstoreRecord | null;
}

/** CRC-32C of a record of `datalen` with its first 16 bytes as they must be: signature, datalen, start 0, magic. */
function mendedRecordCrc(area: Area, offset: number, datalen: number): number {
  const mended = area.bytes.slice(offset, offset + PSZ_BUFFER_SIZE + datalen);
  const view = new DataView(mended.buffer);
  view.setUint32(0, PSZ_SIG_KMSG, true);
  view.setInt32(4, datalen, true);
  view.setInt32(8, 0, true);
  view.setUint32(12, PSZ_KMSG_HEADER_MAGIC, true);
  return crc32c(mended);
}

/** The record that the seal closed is there to the last byte, whatever happened to signature, datalen and magic. */
function isProvedMended(area: Area, offset: number, size: number, seal: Seal, abi: Abi): boolean {
  const { datalen } = seal;
  if (datalen < KMSG_HEADER_SIZES[abi] || datalen > size - PSZ_BUFFER_SIZE - SEAL_SIZE) return false;
  return mendedRecordCrc(area, offset, datalen) === seal.recordCrc;
}

/** The kmsg header behind a damaged signature or magic holds nothing that no kernel writes. */
function isPlausibleHeader(area: Area, zone: number, abi: Abi): boolean {
  const { view } = area;
  const nsec = abi === "lp64" ? view.getBigInt64(zone + 28, true) : view.getInt32(zone + 24, true);
  const compressed = view.getUint32(zone + (abi === "lp64" ? 36 : 28), true);
  const reason = view.getUint32(zone + (abi === "lp64" ? 44 : 36), true);
  const seconds = view.getBigInt64(zone + (abi === "lp64" ? 20 : 16), true);
  const hasGaps = abi === "i386" || (view.getUint32(zone + 16, true) | view.getUint32(zone + 48, true)) === 0;
  return isNsec(nsec) && seconds >= 0n && compressed <= 1 && reason <= MAX_REASON && hasGaps;
}

type KmsgRecord = PstoreRecord & { state: RecordState };

/** A kmsg record as its zone's bytes tell it, with `datalen` from whatever states it. */
function readRecord(
  area: Area,
  zone: ZoneInfo,
  abi: Abi,
  datalen: number,
  seal: Seal | null,
  budget: Budget,
): KmsgRecord {
  const { index, offset, size } = zone;
  const header = readKmsgHeader(area, offset, abi);
  const payloadStart = offset + PSZ_BUFFER_SIZE + KMSG_HEADER_SIZES[abi];
  const recordEnd = offset + PSZ_BUFFER_SIZE + datalen;
  const payload = recordEnd > payloadStart ? area.bytes.subarray(payloadStart, recordEnd) : NO_BYTES;
  const inflated = header.compressed ? inflatePayload(payload, size, budget) : null;
  const isUndecodable = header.compressed && inflated === null;
  const reason = REASON_NAMES[header.reason] ?? "Unknown";
  const count = header.counter | 0;
  const bytes = header.compressed ? (inflated?.bytes ?? payload) : withHeaderLine(reason, count, payload);
  const isPart = seal !== null && seal.part > 0;
  return {
    name: recordName("kmsg", index, isUndecodable),
    type: "kmsg",
    id: index,
    reason,
    count,
    timeSec: header.timeSec,
    timeNsec: header.timeNsec,
    size: bytes.length,
    compressed: header.compressed,
    abi,
    offset,
    sealed: seal !== null,
    sequence: seal === null ? null : seal.sequence,
    part: isPart ? seal.part : 0,
    olderBytes: isPart ? seal.olderBytes : 0,
    lineBytes: isPart ? seal.lineBytes : 0,
    first: isPart ? seal.first : null,
    duplicateOf: null,
    state: isUndecodable ? "undecodable" : inflated !== null && !inflated.isWhole ? "salvaged" : "ok",
    bytes,
    raw: null,
    textOffset: header.compressed ? 0 : bytes.length - payload.length,
  };
}

function asSalvaged(record: KmsgRecord): KmsgRecord {
  return record.state === "undecodable" ? record : { ...record, state: "salvaged" };
}

/** A record of which nothing is known but its bytes. */
function bareRecord({ type, offset }: ZoneInfo, name: string, abi: Abi, bytes: Uint8Array): KmsgRecord {
  return {
    name,
    type,
    id: 0,
    reason: "",
    count: 0,
    timeSec: 0n,
    timeNsec: 0,
    size: bytes.length,
    compressed: false,
    abi,
    offset,
    sealed: false,
    sequence: null,
    part: 0,
    olderBytes: 0,
    lineBytes: 0,
    first: null,
    duplicateOf: null,
    state: "ok",
    bytes,
    raw: null,
    textOffset: 0,
  };
}

/** The text behind a first sector that is lost: what `datalen` of the seal still spans, if all of it is text. */
function readHeadless(area: Area, zone: ZoneInfo, abi: Abi, seal: Seal): KmsgRecord | null {
  const start = zone.offset + SECTOR_SIZE;
  const end = zone.offset + PSZ_BUFFER_SIZE + Math.min(seal.datalen, zone.size - PSZ_BUFFER_SIZE - SEAL_SIZE);
  if (end - start < SALVAGED_TEXT_BYTES_MIN) return null;
  const bytes = area.bytes.subarray(start, end);
  if (textBytesAtStart(bytes) < bytes.length) return null;
  const name = recordName("kmsg", zone.index);
  return { ...bareRecord(zone, name, abi, bytes), id: zone.index, reason: "Unknown", state: "salvaged" };
}

/** What can be had of a zone without a believable signature and magic: FORMAT.md, "Salvage". */
function salvageZone(
  area: Area,
  zone: ZoneInfo,
  abis: readonly [Abi, ...Abi[]],
  seal: Seal | null,
  budget: Budget,
): KmsgRecord | null {
  const { offset, size } = zone;
  const datalen = area.view.getInt32(offset + 4, true);
  const hasSignature = area.view.getUint32(offset, true) === PSZ_SIG_KMSG;
  const hasMagic = area.view.getUint32(offset + 12, true) === PSZ_KMSG_HEADER_MAGIC;
  const hasOne = hasSignature || hasMagic;
  if (hasOne && datalen === 0) return null; // it was removed before
  if (seal !== null && isProvedMended(area, offset, size, seal, "i386")) {
    const abi = abis.find((one) => isPlausibleHeader(area, offset, one)) ?? abis[0];
    return asSalvaged(readRecord(area, zone, abi, seal.datalen, seal, budget));
  }
  const abi = abis.find((one) => datalen >= KMSG_HEADER_SIZES[one] && isPlausibleHeader(area, offset, one));
  if (hasOne && abi !== undefined && datalen <= size - PSZ_BUFFER_SIZE) {
    return asSalvaged(readRecord(area, zone, abi, datalen, null, budget));
  }
  return seal === null ? null : readHeadless(area, zone, abis[0], seal);
}

interface DecodedKmsgZone extends DecodedZone {
  erased: PstoreRecord | null;
}

function decodeKmsgZone(
  area: Area,
  found: Found,
  index: number,
  forcedAbi: Abi | undefined,
  budget: Budget,
): DecodedKmsgZone {
  const { geometry } = found;
  const size = geometry.kmsgSize;
  const offset = geometry.kmsgOffset + index * size;
  const zone = emptyZone("kmsg", index, offset, size);
  const seal = readSeal(area, offset + size);
  zone.sequence = seal === null ? null : seal.sequence;
  if (!isKmsgZone(area, offset)) {
    const other: Abi = geometry.abi === "lp64" ? "i386" : "lp64";
    const abis: [Abi, ...Abi[]] = forcedAbi === undefined ? [geometry.abi, other] : [forcedAbi];
    const record = salvageZone(area, zone, abis, seal, budget);
    if (record !== null) {
      zone.state = record.state;
      zone.sealed = record.sealed;
    }
    return { zone, record, erased: null };
  }

  const abi = forcedAbi ?? abiOfZone(area, offset) ?? geometry.abi;
  const header = readKmsgHeader(area, offset, abi);
  const headerSize = KMSG_HEADER_SIZES[abi];
  const datalen = area.view.getInt32(offset + 4, true);
  zone.datalen = datalen;
  zone.counter = header.counter;
  zone.reason = header.reason;
  zone.timeSec = header.timeSec;
  zone.timeNsec = header.timeNsec;

  if (datalen === 0) {
    zone.state = "erased";
    if (seal === null || !isProvedMended(area, offset, size, seal, abi))
      return { zone, record: null, erased: null };
    const erased: PstoreRecord = {
      ...readRecord(area, zone, abi, seal.datalen, seal, budget),
      state: "erased",
    };
    return { zone, record: null, erased };
  }
  const isInRange = datalen > 0 && datalen <= size - PSZ_BUFFER_SIZE;
  // A negative datalen counts as too large; the reader is shown what the zone has.
  const shownDatalen = isInRange ? datalen : size - PSZ_BUFFER_SIZE;
  const recordEnd = offset + PSZ_BUFFER_SIZE + shownDatalen;
  let isTorn = !isInRange || datalen < headerSize;
  if (!isTorn && seal !== null) {
    isTorn = seal.datalen !== datalen || seal.recordCrc !== crc32c(area.bytes, offset, recordEnd);
  }
  if (!isTorn && seal === null) isTorn = isInDoubt(found, offset, recordEnd);

  let record: KmsgRecord;
  if (isTorn && seal !== null && isProvedMended(area, offset, size, seal, abi)) {
    record = asSalvaged(readRecord(area, zone, abi, seal.datalen, seal, budget));
  } else {
    record = readRecord(area, zone, abi, shownDatalen, isTorn ? null : seal, budget);
    if (isTorn) record.state = "torn";
  }
  zone.state = record.state;
  zone.sealed = record.sealed;
  return { zone, record, erased: null };
}

/** Marks each record that stands in the area once more: FORMAT.md, "Long logs". */
function markDuplicates(records: PstoreRecord[]): void {
  const bySequence = new Map<bigint, PstoreRecord>();
  for (const record of records) {
    if (record.sequence === null) continue;
    const before = bySequence.get(record.sequence);
    if (before === undefined) bySequence.set(record.sequence, record);
    else if (isSameRecord(before, record)) record.duplicateOf = before.name;
  }
}

function isSameRecord(one: PstoreRecord, other: PstoreRecord): boolean {
  if (one.timeSec !== other.timeSec || one.timeNsec !== other.timeNsec || one.size !== other.size)
    return false;
  if (one.reason !== other.reason || one.count !== other.count) return false;
  for (let at = 0; at < one.size; at++) if (one.bytes[at] !== other.bytes[at]) return false;
  return true;
}

/** True if what is taken for a ring has kmsg's magic behind its header, or a seal in it. */
function mayBeKmsgZones(area: Area, offset: number, size: number): boolean {
  if (size >= 16 && area.view.getUint32(offset + 12, true) === PSZ_KMSG_HEADER_MAGIC) return true;
  for (let end = offset + SECTOR_SIZE; end <= offset + size; end += SECTOR_SIZE) {
    if (readSeal(area, end) !== null) return true;
  }
  return false;
}

interface DecodedRing {
  zone: ZoneInfo;
  /** Oldest byte first; null if there is nothing to show. */
  log: Uint8Array | null;
}

/**
 * A ring's zone; one that is not believed is `torn` and, as on Linux, has nothing to show. One bit makes a kmsg
 * signature a ring's, so a ring that is a guess is shown as `torn` where it might be a kmsg zone.
 */
function decodeRing(
  area: Area,
  type: keyof typeof RING_SIGNATURES,
  index: number,
  offset: number,
  size: number,
  isGuess: boolean,
): DecodedRing {
  const zone = emptyZone(type, index, offset, size);
  if (area.view.getUint32(offset, true) !== RING_SIGNATURES[type]) return { zone, log: null };
  const datalen = area.view.getInt32(offset + 4, true);
  const start = area.view.getInt32(offset + 8, true);
  zone.datalen = datalen;
  if (datalen < 0 || datalen > size - PSZ_BUFFER_SIZE || start < 0 || start > datalen) {
    zone.state = "torn";
    return { zone, log: null };
  }
  const state: RecordState = isGuess && mayBeKmsgZones(area, offset, size) ? "torn" : "ok";
  zone.state = datalen === 0 ? "erased" : state;
  if (datalen === 0) return { zone, log: null };
  const data = area.bytes.subarray(offset + PSZ_BUFFER_SIZE, offset + PSZ_BUFFER_SIZE + datalen);
  if (start === 0 || start === datalen) return { zone, log: data };
  const log = new Uint8Array(datalen);
  log.set(data.subarray(start), 0);
  log.set(data.subarray(0, start), datalen - start);
  return { zone, log };
}

/** The file of one or more rings of a type. `bytes`: what it holds. */
function ringRecord(rings: DecodedRing[], abi: Abi, bytes: Uint8Array, raw: Uint8Array | null): PstoreRecord {
  const { zone } = rings[0] as DecodedRing;
  const isTorn = rings.some((ring) => ring.log !== null && ring.zone.state === "torn");
  const state = isTorn ? "torn" : "ok";
  return { ...bareRecord(zone, recordName(zone.type, 0), abi, bytes), state, raw };
}

/** The slices of all CPUs. More bytes than a kernel could have merged are no rings of one. */
function decodeFtrace(area: Area, geometry: Geometry, isGuess: boolean): DecodedRing[] {
  const { ftraceSize, cpus } = geometry;
  const base = geometry.pmsgSize + geometry.consoleSize;
  const slice = cpus === 0 ? 0 : Math.floor(ftraceSize / cpus);
  if (slice < PSZ_BUFFER_SIZE || base + ftraceSize > area.size) return [];
  const rings = Array.from({ length: cpus }, (_, cpu) =>
    decodeRing(area, "ftrace", cpu, base + cpu * slice, slice, isGuess),
  );
  const totalBytes = rings.reduce((sum, { log }) => sum + (log?.length ?? 0), 0);
  if (totalBytes <= MAX_FTRACE_BYTES) return rings;
  return rings.map(({ zone }) => ({
    zone: zone.state === "ok" ? { ...zone, state: "torn" } : zone,
    log: null,
  }));
}

function openArea(bytes: Uint8Array): Area {
  const size = Math.min(bytes.length, MAX_AREA_SIZE);
  return { bytes: bytes.subarray(0, size), view: new DataView(bytes.buffer, bytes.byteOffset, size), size };
}

/**
 * The layout of an area: what the options give, and the rest found from signatures and seals. Never throws.
 * Sizes that cannot be (no multiple of 512, negative, larger than the area) give a layout without zones.
 * @param area the whole area; at most its first 128 MiB are looked at.
 */
export function findGeometry(area: Uint8Array, options: GeometryOptions = {}): Geometry {
  return find(openArea(area), options).geometry;
}

/**
 * Reads a whole area. Never throws, on any bytes; takes time linear in the area, and memory bounded by the
 * area, plus at most 64 MiB for inflated records (what is beyond that is `undecodable`).
 * @param area the whole area; at most its first 128 MiB are looked at. Records may be views into it, so it
 *   must not be changed while they are in use.
 * @param options sizes in bytes and the ABI, where known. An unsealed record in a zone of guessed size is
 *   `torn` if its bytes would allow another size as well; with an explicit kmsgSize there is no such doubt.
 */
export function decodeArea(area: Uint8Array, options: GeometryOptions = {}): Decoded {
  const opened = openArea(area);
  const found = find(opened, options);
  const { geometry } = found;
  const zones: ZoneInfo[] = [];
  const records: PstoreRecord[] = [];
  const erasedRecords: PstoreRecord[] = [];
  const ringRecords: PstoreRecord[] = [];
  const budget: Budget = { inflateBytes: INFLATE_BUDGET_BYTES };
  const rings = [
    ["pmsg", 0, geometry.pmsgSize, options.pmsgSize],
    ["console", geometry.pmsgSize, geometry.consoleSize, options.consoleSize],
  ] as const;
  for (const [type, offset, size, explicitSize] of rings) {
    if (size < PSZ_BUFFER_SIZE || offset + size > opened.size) continue;
    const ring = decodeRing(opened, type, 0, offset, size, explicitSize === undefined);
    zones.push(ring.zone);
    if (ring.log !== null) ringRecords.push(ringRecord([ring], geometry.abi, ring.log, null));
  }
  const slices = decodeFtrace(opened, geometry, options.ftraceSize === undefined);
  zones.push(...slices.map(({ zone }) => zone));
  const raw = mergeFtrace(
    slices.flatMap(({ log }) => (log === null ? [] : [log])),
    geometry.abi,
  );
  if (raw.length > 0) {
    ringRecords.unshift(ringRecord(slices, geometry.abi, ftraceText(raw, geometry.abi), raw));
  }
  for (let index = 0; index < geometry.kmsgCount; index++) {
    const { zone, record, erased } = decodeKmsgZone(opened, found, index, options.abi, budget);
    zones.push(zone);
    if (record !== null) records.push(record);
    if (erased !== null) erasedRecords.push(erased);
  }
  markDuplicates(records);
  records.push(...ringRecords);
  return { geometry, records, erased: erasedRecords, zones };
}
