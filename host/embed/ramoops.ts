// Reads a ramoops region (Linux's pstore backend in RAM, fs/pstore/ram.c and ram_core.c) out of the memory of a guest
// or a RAM dump: its zones, its records, and what their Reed-Solomon code still mends.
//
//   region   dmesg zones, console, ftrace zones, pmsg, each behind the other
//   zone     sig, start, size (u32 each), data …, with ECC: parity of the data's blocks, parity of those 12 bytes
//   dmesg    "====seconds.microseconds-C\n" and the text, deflated if C, as it is if D
//
// Any bytes at all are a region: nothing here throws, and memory is bounded by INFLATE_BUDGET_BYTES beside copies of
// the zones. The region itself is never changed. Little-endian, as every machine that we know to run ramoops. Nothing
// of Node.
import { judge, type Shape, U32, whole } from "../judge.js";
import { ownBytes } from "../own-bytes.js";
import { inflateRaw } from "../pstore/inflate.js";
import { ReedSolomon } from "./reed-solomon.js";

export type RamoopsType = "dmesg" | "console" | "ftrace" | "pmsg";

/**
 * The parameters that the guest's ramoops was loaded with, in bytes. Without `recordSize` the layout is found from the
 * zones' signatures; without `eccSize` the code is found from the parity of their headers.
 */
export interface RamoopsOptions {
  /** `record_size`. Rounded down to a power of two, like the three below. */
  recordSize?: number | undefined;
  consoleSize?: number | undefined;
  ftraceSize?: number | undefined;
  pmsgSize?: number | undefined;
  /** How many zones `ftraceSize` is cut into: one for each CPU, as Linux does, or 1 (default). */
  ftraceCount?: number | undefined;
  /** `ecc`: parity bytes of a block. 0: none, 1: 16, as Linux has it; at most 127. */
  eccSize?: number | undefined;
  /** Bytes of data in a block; default 128. Only platform data can change it. */
  eccBlockSize?: number | undefined;
}

export const RAMOOPS_OPTIONS: Shape<RamoopsOptions> = {
  recordSize: U32,
  consoleSize: U32,
  ftraceSize: U32,
  pmsgSize: U32,
  ftraceCount: U32,
  eccSize: whole(0, 127),
  eccBlockSize: whole(1, 0xffffffff),
};

/** What the Reed-Solomon code said of a zone; Linux prints the same two numbers behind a record. */
export interface RamoopsEcc {
  /** Wrong bytes that were put right, those of the header and of the parity included. */
  correctedBytes: number;
  /** Blocks, the header counted as one, with more wrong bytes than can be corrected. They are left as they are. */
  badBlocks: number;
}

export interface RamoopsZone {
  type: RamoopsType;
  /** Among the zones of its type. */
  index: number;
  /** From the start of the region, in bytes. */
  offset: number;
  /** With its header and its parity, in bytes. */
  size: number;
  /** `invalid`: no signature, or numbers that do not fit the zone; Linux would wipe it. */
  state: "empty" | "used" | "invalid";
  /** Bytes of data, 0 unless the zone is used. */
  datalen: number;
  /** null without ECC. */
  ecc: RamoopsEcc | null;
}

/**
 * `ok`: whole, as far as its code can tell; without a code nothing can. `damaged`: blocks that cannot be corrected,
 * or a compressed text that breaks off: `bytes` is what is left. `undecodable`: compressed, and nothing comes out
 * (another algorithm than deflate): `bytes` is the packed text.
 */
export type RamoopsState = "ok" | "damaged" | "undecodable";

/** What Linux shows as a file of its pstore file system, without the line about ECC that it appends. */
export interface RamoopsRecord {
  /** `dmesg-ramoops-0`; `.enc.z` at the end if it is undecodable. */
  name: string;
  type: "dmesg" | "console" | "pmsg";
  /** The slot of a dmesg record, else 0. */
  id: number;
  /** `Panic`, `Oops`, … as the first line of the text says; `Unknown` if it does not; empty for the rings. */
  reason: string;
  /** How many dumps that boot had made, from the same line; 0 if unknown. */
  count: number;
  /** 1: ramoops refuses all other parts of a log, so a record is always a whole; 0 if unknown. */
  part: number;
  /** Seconds since 1970; 0 if unknown and for the rings. */
  timeSec: bigint;
  /** Whole microseconds. */
  timeNsec: number;
  compressed: boolean;
  state: RamoopsState;
  ecc: RamoopsEcc | null;
  bytes: Uint8Array;
}

export interface RamoopsRegion {
  /** Parity bytes of a block, 0 without ECC. */
  eccSize: number;
  /** In the order of the region. Empty if it holds no zone. */
  zones: RamoopsZone[];
  /** dmesg by slot, console, pmsg. Empty zones have none. */
  records: RamoopsRecord[];
  /** Sums over the dmesg zones; null without ECC. Where rings begin and end may be a guess. */
  ecc: RamoopsEcc | null;
}

/** Where a region lies in a larger memory, in bytes. */
export interface RamoopsRange {
  offset: number;
  sizeBytes: number;
}

/** PERSISTENT_RAM_SIG, the bytes DBGC. ftrace zones have it XORed with the kernel's version. */
const SIGNATURE = 0x43474244;
const SIGNATURE_BYTES = [0x44, 0x42, 0x47, 0x43];
const HEADER_BYTES = 12;
const DEFAULT_ECC_SIZE = 16;
const DEFAULT_ECC_BLOCK_SIZE = 128;
/** Of 255 bytes that a code word may have, at least half are data. */
const ECC_SIZE_MAX = 127;
/** 34 bytes and the line's end: "====", s64, ".", 6 digits, "-C\n". */
const RECORD_HEADER_BYTES_MAX = 40;
const PAGE_BYTES = 4096;
/** No zone is known to be larger: more than this between two zones and they are of two regions. */
const ZONE_BYTES_MAX = 4 * 1024 * 1024;
/** What one region may have; a hostile one would have a zone every 12 bytes. */
const ZONES_MAX = 32768;
const CANDIDATES_MAX = 32;
/** How many zones are asked which code they have. */
const ZONES_ASKED = 16;
const TEXT_BYTES_MAX = 16 * 1024 * 1024;
/** What all records of a region may give together beyond what Linux can have packed, which each may always. */
const INFLATE_BUDGET_BYTES = 64 * 1024 * 1024;
/** Linux packs at most three times what a zone takes. */
const INFLATED_ZONES = 4;
/** What a deflate block is taken to cost, in bytes inflated: its tables are built even if it gives none. */
const BLOCK_COST_BYTES = 64;

// --- The layout --------------------------------------------------------------------------------------

interface Span {
  type: RamoopsType;
  offset: number;
  size: number;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Whether a zone may begin at `at`: its signature, and a start that is not behind its size. */
export function isRamoopsZone(bytes: Uint8Array, at: number): boolean {
  if (at < 0 || at + HEADER_BYTES > bytes.length) return false;
  for (let i = 0; i < SIGNATURE_BYTES.length; i++) if (bytes[at + i] !== SIGNATURE_BYTES[i]) return false;
  const view = viewOf(bytes);
  return view.getUint32(at + 4, true) <= view.getUint32(at + 8, true);
}

/** The signature of an ftrace zone gives a version of Linux, from 3.0 to 15.255. */
function isFtraceSignature(view: DataView, at: number): boolean {
  const version = (view.getUint32(at, true) ^ SIGNATURE) >>> 0;
  return version >= 0x030000 && version <= 0x0fffff;
}

/** Whether an ftrace zone may begin at `at`: it has no signature of its own, so its numbers must fit too. */
function isFtraceZone(view: DataView, at: number): boolean {
  const size = view.getUint32(at + 8, true);
  const fits = view.getUint32(at + 4, true) <= size && size <= view.byteLength - at - HEADER_BYTES;
  return fits && isFtraceSignature(view, at);
}

function roundDownToPowerOfTwo(value: number): number {
  return value < 1 ? 0 : 2 ** Math.floor(Math.log2(value));
}

/** The zones as ramoops_probe() lays them out. Zones that do not fit are left out. */
function layOut(regionBytes: number, options: RamoopsOptions): Span[] {
  const recordSize = roundDownToPowerOfTwo(options.recordSize ?? 0);
  const consoleSize = roundDownToPowerOfTwo(options.consoleSize ?? 0);
  const ftraceSize = roundDownToPowerOfTwo(options.ftraceSize ?? 0);
  const pmsgSize = roundDownToPowerOfTwo(options.pmsgSize ?? 0);
  const spans: Span[] = [];
  let offset = 0;
  const place = (type: RamoopsType, size: number, count: number) => {
    for (let i = 0; i < count && size >= HEADER_BYTES && offset + size <= regionBytes; i++) {
      spans.push({ type, offset, size });
      offset += size;
    }
  };
  const dmesgBytes = regionBytes - consoleSize - ftraceSize - pmsgSize;
  // What does not divide is given to the zones, whose sizes are even.
  const dmesgCount = recordSize > 0 ? Math.floor(dmesgBytes / recordSize) : 0;
  if (dmesgCount > 0 && dmesgCount <= ZONES_MAX) {
    place("dmesg", Math.floor(dmesgBytes / dmesgCount / 2) * 2, dmesgCount);
  }
  place("console", consoleSize, 1);
  const ftraceCount = Math.min(ZONES_MAX, Math.max(1, Math.floor(options.ftraceCount ?? 1)));
  place("ftrace", Math.floor(ftraceSize / ftraceCount), ftraceCount);
  place("pmsg", pmsgSize, 1);
  return spans;
}

interface Found {
  offset: number;
  kind: "record" | "data" | "empty" | "ftrace";
  end: number;
}

/** Whether data begin as a dmesg record's do, `====` and digits, or half so: ECC may still mend them. */
function looksLikeRecord(data: Uint8Array): boolean {
  let signs = 0;
  let digits = 0;
  for (let i = 0; i < 4; i++) if (data[i] === 0x3d) signs++;
  for (let i = 4; i < 10; i++) if ((data[i] ?? 0) >= 0x30 && (data[i] ?? 0) <= 0x39) digits++;
  return signs >= 1 && signs + digits >= 5;
}

/** Every zone header that is not inside the data of another, ascending. */
function findHeaders(bytes: Uint8Array): Found[] {
  const view = viewOf(bytes);
  const found: Found[] = [];
  for (let at = 0; at + HEADER_BYTES <= bytes.length && found.length < ZONES_MAX; ) {
    const next = bytes.indexOf(SIGNATURE_BYTES[0] as number, at);
    const plain = next < 0 ? bytes.length : next;
    // ftrace signatures begin with any byte; their zones begin where sizes are powers of two.
    const aligned = Math.ceil(at / 256) * 256;
    let here = plain;
    for (let step = aligned; step < plain && step + HEADER_BYTES <= bytes.length; step += 256) {
      if (!isFtraceZone(view, step)) continue;
      here = step;
      break;
    }
    if (here + HEADER_BYTES > bytes.length) break;
    const size = view.getUint32(here + 8, true);
    const fits = size <= bytes.length - here - HEADER_BYTES;
    if (here < plain || (here % 256 === 0 && isFtraceZone(view, here))) {
      found.push({ offset: here, kind: "ftrace", end: here + HEADER_BYTES + size });
      at = here + HEADER_BYTES + size;
    } else if (isRamoopsZone(bytes, here) && fits) {
      const end = here + HEADER_BYTES + size;
      const isRecord = looksLikeRecord(bytes.subarray(here + HEADER_BYTES, end));
      found.push({ offset: here, kind: size === 0 ? "empty" : isRecord ? "record" : "data", end });
      at = end;
    } else {
      at = here + 1;
    }
  }
  return found;
}

/**
 * How well a grid of `size` from `origin` explains the zones: first by the records on it, then by how far it goes: the
 * most, at any zone, of one for every zone on it less two for every place of it without one (a header may be damaged).
 * A record that overlaps the next place refutes it.
 */
function scoreGrid(zones: Map<number, Found>, origin: number, last: number, size: number): number {
  let records = 0;
  let score = 0;
  let best = 0;
  for (let at = origin, count = 0; at <= last && count < ZONES_MAX; at += size, count++) {
    const zone = zones.get(at);
    if (zone !== undefined && zone.end > at + size) return 0;
    if (zone?.kind === "record") records++;
    score += zone === undefined ? -2 : 1;
    best = Math.max(best, score);
  }
  return records * (ZONES_MAX + 1) + best;
}

/** The distances between neighbours, the most frequent and then the largest first. */
function distancesOf(zones: Found[]): number[] {
  const counts = new Map<number, number>();
  for (let i = 1; i < zones.length; i++) {
    const distance = (zones[i] as Found).offset - (zones[i - 1] as Found).offset;
    counts.set(distance, (counts.get(distance) ?? 0) + 1);
  }
  return [...counts]
    .sort((a, b) => b[1] - a[1] || b[0] - a[0])
    .slice(0, CANDIDATES_MAX)
    .map(([distance]) => distance);
}

/** The size of the dmesg zones: of the distances between neighbours, the one that explains the most. */
function findGridSize(found: Found[], regionBytes: number): number {
  const [first, second, last] = [found[0], found[1], found.at(-1)];
  if (first === undefined || last === undefined) return regionBytes;
  if (second === undefined) return regionBytes - first.offset;
  const zones = new Map(found.map((zone) => [zone.offset, zone]));
  const records = found.filter((zone) => zone.kind === "record");
  let bestSize = second.offset - first.offset;
  let bestScore = 0;
  for (const size of [bestSize, ...distancesOf(found), ...distancesOf(records)]) {
    const score = scoreGrid(zones, first.offset, last.offset, size);
    if (score <= bestScore) continue;
    bestSize = size;
    bestScore = score;
  }
  return bestSize;
}

/**
 * The zones by their signatures. The dmesg zones lie on a grid up to the last record and the empty zones behind it; a
 * place of it without a signature is a zone with a damaged header. What follows is the console, ftrace by its
 * signature, and pmsg.
 */
function findLayout(bytes: Uint8Array): Span[] {
  const found = findHeaders(bytes);
  const first = found[0];
  if (first === undefined) return [];
  const gridSize = findGridSize(found, bytes.length);
  const spans: Span[] = [];
  // A region begins with a zone. If that has lost its header, it ends at the next one.
  if (first.offset > 0) spans.push({ type: "dmesg", offset: 0, size: first.offset });
  let dmesgEnd = first.offset;
  let isOver = first.offset > 0 && first.offset !== gridSize;
  for (const [i, zone] of found.entries()) {
    const end = zone.offset + gridSize;
    const isOnGrid = (zone.offset - first.offset) % gridSize === 0;
    // An empty ring looks like an empty record, but is shorter.
    const isWhole = end <= (found[i + 1]?.offset ?? bytes.length);
    if (isOnGrid && zone.kind === "record") isOver = false;
    else if (!isOnGrid || zone.kind !== "empty" || !isWhole) isOver = true;
    if (!isOver) dmesgEnd = end;
  }
  for (let at = first.offset; at < dmesgEnd && spans.length < ZONES_MAX; at += gridSize) {
    spans.push({ type: "dmesg", offset: at, size: Math.min(gridSize, bytes.length - at) });
  }
  const rest = found.filter((zone) => zone.offset >= dmesgEnd);
  let rings = 0;
  for (const [i, { offset, kind }] of rest.entries()) {
    const size = (rest[i + 1]?.offset ?? bytes.length) - offset;
    if (kind === "ftrace") rings = 1;
    spans.push({ type: kind === "ftrace" ? "ftrace" : rings++ === 0 ? "console" : "pmsg", offset, size });
  }
  return spans;
}

// --- The code ----------------------------------------------------------------------------------------

/** The shape of a zone under a code, or null if the zone is too small for it: Linux refuses that. */
function eccShape(zoneSize: number, eccSize: number, blockSize: number) {
  const capacity = zoneSize - HEADER_BYTES;
  if (eccSize === 0) return { dataBytes: capacity, blocks: 0 };
  const blocks = Math.max(0, Math.ceil((capacity - eccSize) / (blockSize + eccSize)));
  const parityBytes = (blocks + 1) * eccSize;
  return parityBytes >= capacity ? null : { dataBytes: capacity - parityBytes, blocks };
}

/**
 * The number of parity bytes, by the parity of the headers, which ends each zone: an empty zone has it as well. Wrong
 * bytes are allowed for only with Linux's usual 16, where a match by chance is out of the question.
 */
function findEccSize(bytes: Uint8Array, spans: Span[]): number {
  let best = 0;
  let bestVotes = 0;
  const candidates = [DEFAULT_ECC_SIZE];
  for (let size = 2; size <= ECC_SIZE_MAX; size++) if (size !== DEFAULT_ECC_SIZE) candidates.push(size);
  for (const eccSize of candidates) {
    const code = new ReedSolomon(eccSize);
    let votes = 0;
    for (const { offset, size } of spans.slice(0, ZONES_ASKED)) {
      if (eccShape(size, eccSize, DEFAULT_ECC_BLOCK_SIZE) === null) continue;
      const header = ownBytes(bytes, offset, offset + HEADER_BYTES);
      const parity = ownBytes(bytes, offset + size - eccSize, offset + size);
      if (header.every((byte) => byte === 0)) continue;
      const isMatch =
        eccSize === DEFAULT_ECC_SIZE
          ? code.correct(header, parity) >= 0 && isRamoopsZone(header, 0)
          : code.encode(header).every((byte, i) => byte === parity[i]);
      if (isMatch) votes++;
    }
    if (votes > bestVotes) {
      best = eccSize;
      bestVotes = votes;
    }
  }
  return best;
}

// --- Zones and records -------------------------------------------------------------------------------

interface ReadZone {
  zone: RamoopsZone;
  /** The data, oldest byte first. */
  data: Uint8Array;
}

function readZone(
  region: Uint8Array,
  span: Span,
  index: number,
  code: ReedSolomon | null,
  blockSize: number,
): ReadZone {
  const { type, offset, size } = span;
  const ecc = code === null ? null : { correctedBytes: 0, badBlocks: 0 };
  const zone: RamoopsZone = { type, index, offset, size, state: "invalid", datalen: 0, ecc };
  const nothing = { zone, data: new Uint8Array(0) };
  const shape = eccShape(size, code?.parityBytes ?? 0, blockSize);
  if (shape === null) return nothing;
  const count = (errors: number) => {
    if (ecc === null) return;
    if (errors < 0) ecc.badBlocks++;
    else ecc.correctedBytes += errors;
  };
  const header = ownBytes(region, offset, offset + HEADER_BYTES);
  if (code !== null)
    count(code.correct(header, ownBytes(region, offset + size - code.parityBytes, offset + size)));
  const view = viewOf(header);
  const isSigned = view.getUint32(0, true) === SIGNATURE || (type === "ftrace" && isFtraceSignature(view, 0));
  if (!isSigned) return nothing;
  const start = view.getUint32(4, true);
  const datalen = view.getUint32(8, true);
  if (datalen > shape.dataBytes || start > datalen) return nothing;
  zone.state = datalen === 0 ? "empty" : "used";
  zone.datalen = datalen;
  if (datalen === 0) return nothing;

  const dataAt = offset + HEADER_BYTES;
  const data = ownBytes(region, dataAt, dataAt + shape.dataBytes);
  if (code !== null) {
    const parityAt = dataAt + shape.dataBytes;
    // Blocks of which nothing was written have no parity yet, as Linux knows too.
    for (let at = 0, block = 0; at < datalen; at += blockSize, block++) {
      const parity = ownBytes(
        region,
        parityAt + block * code.parityBytes,
        parityAt + (block + 1) * code.parityBytes,
      );
      count(code.correct(data.subarray(at, Math.min(at + blockSize, shape.dataBytes)), parity));
    }
  }
  // A ring that has gone round is full, and its oldest byte is at `start`.
  const ordered = new Uint8Array(datalen);
  ordered.set(data.subarray(start, datalen));
  ordered.set(data.subarray(0, start), datalen - start);
  return { zone, data: ordered };
}

/** The head of a dmesg record as text; every byte is one character. */
function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function recordOf({ zone, data }: ReadZone, budget: { bytes: number }): RamoopsRecord {
  const { type, index, ecc } = zone;
  const record: RamoopsRecord = {
    name: type === "dmesg" ? `dmesg-ramoops-${index}` : `${type}-ramoops-0`,
    type: type as RamoopsRecord["type"],
    id: type === "dmesg" ? index : 0,
    reason: "",
    count: 0,
    part: 0,
    timeSec: 0n,
    timeNsec: 0,
    compressed: false,
    state: ecc !== null && ecc.badBlocks > 0 ? "damaged" : "ok",
    ecc,
    bytes: data,
  };
  if (type !== "dmesg") return record;
  // Kernels before 3.12 wrote no letter, and never compressed.
  const head = /^====(\d{1,19})\.(\d{1,9})(?:-([CD]))?\n/.exec(
    latin1(data.subarray(0, RECORD_HEADER_BYTES_MAX)),
  );
  if (head === null) {
    // Linux shows such a zone as it is. Nothing that was written by a kernel lacks the head.
    record.state = "damaged";
  } else {
    const [line, seconds = "0", microseconds = "0", letter] = head;
    record.timeSec = BigInt.asIntN(64, BigInt(seconds));
    record.timeNsec = Number(microseconds) * 1000;
    if (record.timeNsec > 999_999_999) record.timeNsec = 0;
    record.compressed = letter === "C";
    record.bytes = data.subarray(line.length);
  }
  if (record.compressed) inflateRecord(record, zone.size, budget);
  const first = /^([A-Za-z]{1,16})#(\d{1,9}) Part(\d{1,9})\n/.exec(latin1(record.bytes.subarray(0, 64)));
  record.reason = first?.[1] ?? "Unknown";
  record.count = Number(first?.[2] ?? 0);
  record.part = Number(first?.[3] ?? 0);
  return record;
}

function inflateRecord(record: RamoopsRecord, zoneBytes: number, budget: { bytes: number }): void {
  const limitBytes = Math.min(TEXT_BYTES_MAX, Math.max(INFLATED_ZONES * zoneBytes, budget.bytes));
  const { status, bytes, blockCount } = inflateRaw(
    record.bytes,
    limitBytes,
    Math.floor(limitBytes / BLOCK_COST_BYTES),
  );
  budget.bytes = Math.max(0, budget.bytes - bytes.length - blockCount * BLOCK_COST_BYTES);
  if (status === "ok") {
    record.bytes = bytes;
  } else if (bytes.length > 0) {
    record.state = "damaged";
    record.bytes = bytes;
  } else {
    record.state = "undecodable";
    record.name += ".enc.z";
  }
}

/**
 * Reads a region: all of `region` (`mem_size` bytes), which is not changed and not kept. Never throws: a layout that
 * does not fit gives zones that are invalid, or none.
 */
export function readRamoops(region: Uint8Array, given: RamoopsOptions = {}): RamoopsRegion {
  const options = judge("", given, RAMOOPS_OPTIONS);
  const spans = options.recordSize === undefined ? findLayout(region) : layOut(region.length, options);
  const blockSize = Math.max(1, Math.floor(options.eccBlockSize ?? DEFAULT_ECC_BLOCK_SIZE));
  let eccSize = options.eccSize === 1 ? DEFAULT_ECC_SIZE : options.eccSize;
  eccSize ??= findEccSize(region, spans);
  const usable = Number.isInteger(eccSize) && eccSize >= 0 && eccSize <= ECC_SIZE_MAX;
  const code = usable && eccSize > 0 ? new ReedSolomon(eccSize) : null;
  const counts = { dmesg: 0, console: 0, ftrace: 0, pmsg: 0 };
  const budget = { bytes: INFLATE_BUDGET_BYTES };
  const zones: RamoopsZone[] = [];
  const records: RamoopsRecord[] = [];
  for (const span of usable ? spans : []) {
    const read = readZone(region, span, counts[span.type]++, code, blockSize);
    zones.push(read.zone);
    if (read.zone.state === "used" && span.type !== "ftrace") records.push(recordOf(read, budget));
  }
  const logs = zones.filter((zone) => zone.type === "dmesg");
  const sum = (name: keyof RamoopsEcc) => logs.reduce((total, zone) => total + (zone.ecc?.[name] ?? 0), 0);
  const ecc = code === null ? null : { correctedBytes: sum("correctedBytes"), badBlocks: sum("badBlocks") };
  return { eccSize: code?.parityBytes ?? 0, zones, records, ecc };
}

/** For sort(): the oldest dmesg record first, by its time, then by its counter and slot. */
export function compareRecords(a: RamoopsRecord, b: RamoopsRecord): number {
  if (a.timeSec !== b.timeSec) return a.timeSec < b.timeSec ? -1 : 1;
  return a.timeNsec - b.timeNsec || a.count - b.count || a.id - b.id;
}

/**
 * The newest dmesg record by its time that has a text; null if there is none.
 * @param reason only records of this reason, for example `Panic`.
 */
export function newestRecord(records: readonly RamoopsRecord[], reason?: string): RamoopsRecord | null {
  const texts = records.filter((one) => one.type === "dmesg" && one.state !== "undecodable");
  const wanted = texts.filter((one) => reason === undefined || one.reason === reason);
  return wanted.sort(compareRecords).at(-1) ?? null;
}

// --- A region in a larger memory ---------------------------------------------------------------------

/** Puts page offsets of zones (ascending) into ranges: neighbours of one region are at most 4 MiB apart. */
export function groupRamoops(offsets: readonly number[], memoryBytes: number): RamoopsRange[] {
  const ranges: RamoopsRange[] = [];
  let first = 0;
  for (let i = 0; i < offsets.length; i++) {
    const here = offsets[i] as number;
    const next = offsets[i + 1];
    if (next !== undefined && next - here <= ZONE_BYTES_MAX) continue;
    const offset = offsets[first] as number;
    // Nothing tells where the last zone ends: it is taken to be like the one before it.
    const lastBytes = i > first ? here - (offsets[i - 1] as number) : ZONE_BYTES_MAX;
    ranges.push({ offset, sizeBytes: Math.min(here + lastBytes, memoryBytes) - offset });
    first = i + 1;
  }
  return ranges;
}

/** The zones that begin at whole pages of `memory`, whose own offset is a multiple of 4096. */
export function ramoopsPages(memory: Uint8Array): number[] {
  const offsets: number[] = [];
  for (let at = 0; at < memory.length && offsets.length < ZONES_MAX; at += PAGE_BYTES) {
    if (isRamoopsZone(memory, at)) offsets.push(at);
  }
  return offsets;
}

/**
 * The regions in a RAM that hold a record, ascending. They must begin at a whole page, and their first header must be
 * whole; a region whose address is known is better cut out and given to {@link readRamoops} by itself.
 */
export function findRamoops(memory: Uint8Array): RamoopsRange[] {
  return groupRamoops(ramoopsPages(memory), memory.length).filter(({ offset, sizeBytes }) => {
    const { records } = readRamoops(memory.subarray(offset, offset + sizeBytes));
    return records.some((record) => record.type === "dmesg");
  });
}
