// The rings of an area: pmsg, console, and an ftrace slice for each CPU (FORMAT.md, "The rings"). What is written goes
// into an image of the zone in memory; which bytes of it the medium lacks is known here, and in which steps they get
// there. Beside the image stands a copy of what the medium has, so that a sector that holds new and old bytes can be
// written with the old ones as they are. How sectors are written is rings.ts's business. Linux's layout and Linux's
// ring: the newest bytes take the place of the oldest.

import {
  CONFIG_CONSOLE_SECTORS,
  CONFIG_FTRACE_CPUS,
  CONFIG_FTRACE_SECTORS,
  CONFIG_PMSG_SECTORS,
  CONFIG_RINGS_FIRST_LBA,
  FTRACE_CPUS_MAX,
  RING_BYTES_MAX,
  RING_DATA,
  RING_MEDIUM,
  RING_STATE_BYTES,
  RING_STATES,
  RINGS_MAX,
  SECTOR_BYTES,
} from "../layout";
import { MARK_RING, mark } from "../mark";
import { publish32, publish64, published32, published64 } from "../owner";
import { PSZ_BUFFER_BYTES, PSZ_SIG_CONSOLE, PSZ_SIG_FTRACE, PSZ_SIG_PMSG } from "./format";

export const RING_PMSG: u32 = 0;
export const RING_CONSOLE: u32 = 1;
/** The slice of CPU 0; the others follow. */
export const RING_FTRACE: u32 = 2;

/**
 * Steps of a flush, in their order. A step's number is stored before its first write: a flush that died is taken up at the
 * step that may not have come to its end, as one that is on the medium must not be taken back.
 */
export const RING_HIDE: u32 = 1; // a rewrite: what the zone shows goes
export const RING_BODY: u32 = 2; // a rewrite: all bytes, which nothing shows
export const RING_BLANK_TO_END: u32 = 3; // a full ring: the oldest bytes, up to the zone's end, become blank
export const RING_BLANK_FROM_START: u32 = 4; // those that follow at the zone's start
export const RING_BEHIND: u32 = 5; // a ring that is not full: new bytes behind datalen
export const RING_HEADER: u32 = 6; // the header becomes the plan's
export const RING_FILL_TO_END: u32 = 7; // new bytes in the place of the blanks
export const RING_FILL_FROM_START: u32 = 8;

/** What a byte is while it is neither old nor new. */
const BLANK: u8 = 0;

/**
 * A ring in memory. The n-th byte of this boot stands n mod capacity bytes behind the start of the data. Whoever writes
 * changes `written` and `incomingBytes`, whoever flushes the rest, so one may come into the middle of the other: each
 * word is true by itself at any time.
 */
// @ts-expect-error: decorator
@unmanaged
export class Ring {
  written: u64; // bytes of this boot; of a longer write those for which there is room
  flushed: u64; // of them the oldest, which the medium has, or which were too many for it
  planEnd: u64; // `written` as the plan found it; `flushed` where no plan is under way
  incomingBytes: u32; // behind the written ones: they are being stored, and are neither old nor new
  stage: u32; // RING_*, while a plan is under way
  isLive: u32; // the zone's header on the medium is of this boot
  // The plan, which is not changed until it ends, whatever is written to the ring meanwhile.
  planFrom: u32; // offset of its first byte, from the start of the data
  planBytes: u32; // they may go on at the zone's start
  planCovers: u32; // 1: the ring was full, so the zone shows older bytes in their place
}

export function ring(index: u32): Ring {
  return changetype<Ring>(RING_STATES + index * RING_STATE_BYTES);
}

export function ringCount(): u32 {
  const cpus = load<u32>(CONFIG_FTRACE_CPUS);
  return RING_FTRACE + (cpus < <u32>FTRACE_CPUS_MAX ? cpus : FTRACE_CPUS_MAX);
}

/** Sectors of its zone; 0: there is no such ring. */
export function ringSectors(index: u32): u32 {
  if (index >= ringCount()) return 0;
  if (index == RING_PMSG) return load<u32>(CONFIG_PMSG_SECTORS);
  return load<u32>(index == RING_CONSOLE ? CONFIG_CONSOLE_SECTORS : CONFIG_FTRACE_SECTORS);
}

/** From the first sector of the rings. */
function firstSector(index: u32): u32 {
  if (index == RING_PMSG) return 0;
  const pmsg = load<u32>(CONFIG_PMSG_SECTORS);
  if (index == RING_CONSOLE) return pmsg;
  return pmsg + load<u32>(CONFIG_CONSOLE_SECTORS) + (index - RING_FTRACE) * load<u32>(CONFIG_FTRACE_SECTORS);
}

export function ringFirstLba(index: u32): u32 {
  return load<u32>(CONFIG_RINGS_FIRST_LBA) + firstSector(index);
}

/** The zone as the medium shall have it; its header is not kept. */
function ringImage(index: u32): usize {
  return RING_DATA + firstSector(index) * SECTOR_BYTES;
}

/** The zone as the medium has it, or as the step at hand makes it. */
export function ringOnMedium(index: u32): usize {
  return RING_MEDIUM + firstSector(index) * SECTOR_BYTES;
}

export function ringCapacity(index: u32): u32 {
  return ringSectors(index) * SECTOR_BYTES - PSZ_BUFFER_BYTES;
}

export function ringSignature(index: u32): u32 {
  if (index == RING_PMSG) return PSZ_SIG_PMSG;
  return index == RING_CONSOLE ? PSZ_SIG_CONSOLE : PSZ_SIG_FTRACE;
}

/** A boot begins: what was only in memory is gone, the medium is not known. Unused bytes are 0xff as Linux's. */
export function beginRings(): void {
  memory.fill(RING_STATES, 0, RINGS_MAX * RING_STATE_BYTES);
  const bytes = firstSector(ringCount()) * SECTOR_BYTES;
  memory.fill(RING_DATA, 0xff, bytes < <u32>RING_BYTES_MAX ? bytes : RING_BYTES_MAX);
  memory.fill(RING_MEDIUM, 0xff, bytes < <u32>RING_BYTES_MAX ? bytes : RING_BYTES_MAX);
}

function writtenWord(index: u32): usize {
  return RING_STATES + index * RING_STATE_BYTES + offsetof<Ring>("written");
}

function incomingWord(index: u32): usize {
  return RING_STATES + index * RING_STATE_BYTES + offsetof<Ring>("incomingBytes");
}

function least(bytes: u64, capacity: u32): u32 {
  return bytes < capacity ? <u32>bytes : capacity;
}

/** `count` bytes at `from` become the newest of the ring. In memory only. One writer at a time. */
export function appendToRing(index: u32, from: usize, count: u32): void {
  const r = ring(index);
  const capacity = ringCapacity(index);
  const data = ringImage(index) + PSZ_BUFFER_BYTES;
  const kept = count < capacity ? count : capacity;
  const newest = from + (count - kept);
  const next = <u32>(r.written % capacity);
  const toEnd = capacity - next < kept ? capacity - next : kept;
  // What a writer left that died in here stays told until it is written over.
  const torn = r.incomingBytes > kept ? r.incomingBytes : kept;
  publish32(incomingWord(index), torn);
  mark(MARK_RING);
  memory.copy(data + next, newest, toEnd);
  memory.copy(data, newest + toEnd, kept - toEnd);
  mark(MARK_RING);
  publish64(writtenWord(index), r.written + kept);
  mark(MARK_RING);
  publish32(incomingWord(index), torn - kept);
}

/** Bytes that the medium lacks and has room for. */
export function pendingBytes(index: u32): u32 {
  return least(published64(writtenWord(index)) - ring(index).flushed, ringCapacity(index));
}

/** True while the steps of a plan are on their way, or one that did them has died. */
export function isUnderWay(index: u32): bool {
  return ring(index).planEnd != ring(index).flushed;
}

/**
 * How many bytes behind the plan's last one somebody has stored since, or is storing. The writer counts a byte first as
 * incoming, then as written: read in this order, some may count twice, none is missed.
 */
function newerBytes(index: u32): u32 {
  const incoming = published32(incomingWord(index));
  return least(published64(writtenWord(index)) - ring(index).planEnd + incoming, ringCapacity(index));
}

/** Nothing of what the medium has stays: the first flush of a boot, or as many bytes are new as the ring holds. */
export function planRewrite(index: u32): void {
  const r = ring(index);
  const written = published64(writtenWord(index));
  r.isLive = 0;
  // First of the plan: one that was under way is not to be taken for as good as written.
  r.stage = RING_HIDE;
  r.planBytes = least(written, ringCapacity(index));
  r.planFrom = written >= ringCapacity(index) ? <u32>(written % ringCapacity(index)) : 0;
  r.planCovers = 0;
  // Last: from here on the plan counts.
  r.planEnd = written;
}

/** What is pending becomes the newest of what the live zone shows. */
export function planExtension(index: u32): void {
  const r = ring(index);
  const written = published64(writtenWord(index));
  const datalen = load<u32>(ringOnMedium(index), 4);
  r.planCovers = datalen < ringCapacity(index) ? 0 : 1;
  r.planFrom = r.planCovers != 0 ? load<u32>(ringOnMedium(index), 8) : datalen;
  r.planBytes = least(written - r.flushed, ringCapacity(index));
  r.stage = RING_BLANK_TO_END;
  r.planEnd = written;
}

/** The flush has come to its end: the medium has what was planned. */
export function settleRing(index: u32): void {
  const r = ring(index);
  r.isLive = 1;
  r.flushed = r.planEnd;
}

/** Of the plan's bytes those up to the zone's end. */
function bytesToEnd(index: u32): u32 {
  const r = ring(index);
  const room = ringCapacity(index) - r.planFrom;
  return r.planBytes < room ? r.planBytes : room;
}

/** First byte of the zone that the step at hand writes. */
export function stageFrom(index: u32): u32 {
  const r = ring(index);
  if (r.stage == RING_HEADER || r.stage == RING_BODY) return 0;
  const isAtStart = r.stage == RING_BLANK_FROM_START || r.stage == RING_FILL_FROM_START;
  return PSZ_BUFFER_BYTES + (isAtStart ? 0 : r.planFrom);
}

/** How many; 0: the step has nothing to do. */
export function stageBytes(index: u32): u32 {
  const r = ring(index);
  const toEnd = bytesToEnd(index);
  switch (r.stage) {
    case RING_BODY:
      return PSZ_BUFFER_BYTES + r.planBytes;
    case RING_HEADER:
      return PSZ_BUFFER_BYTES;
    case RING_BLANK_TO_END:
    case RING_FILL_TO_END:
      return r.planCovers != 0 ? toEnd : 0;
    case RING_BEHIND:
      return r.planCovers != 0 ? 0 : toEnd;
    default:
      return r.planBytes - toEnd;
  }
}

/** Bytes `begin … end - 1` of the zone become blank, as far as they are among the `bytes` from `from` on. */
function blankWithin(zone: usize, from: u32, bytes: u32, begin: u32, end: u32): void {
  const first = begin > from ? begin : from;
  const until = end < from + bytes ? end : from + bytes;
  if (first < until) memory.fill(zone + first, BLANK, until - first);
}

/**
 * Of the `bytes` just copied from byte `from` of the zone on, those that are newer than the plan: their turn comes. Asked
 * behind the copy, so that nothing that came while it was made is missed.
 */
function blankNewer(index: u32, from: u32, bytes: u32): void {
  const newer = newerBytes(index);
  if (newer == 0) return;
  const zone = ringOnMedium(index);
  const zoneEnd = PSZ_BUFFER_BYTES + ringCapacity(index);
  const begin = PSZ_BUFFER_BYTES + <u32>(ring(index).planEnd % ringCapacity(index));
  const end = begin + newer;
  blankWithin(zone, from, bytes, begin, end < zoneEnd ? end : zoneEnd);
  if (end > zoneEnd) blankWithin(zone, from, bytes, PSZ_BUFFER_BYTES, PSZ_BUFFER_BYTES + end - zoneEnd);
}

/** The copy of the medium as the step at hand makes it. The same when it is done again. */
export function applyStage(index: u32): void {
  const r = ring(index);
  const zone = ringOnMedium(index);
  const capacity = ringCapacity(index);
  const end = r.planFrom + r.planBytes;
  if (r.stage == RING_BODY || r.stage == RING_HEADER) {
    // Full: the oldest byte stands where the next one will.
    const isFull = r.planCovers != 0 || end >= capacity;
    store<u32>(zone, ringSignature(index));
    store<u32>(zone, isFull ? end % capacity : 0, 8);
    // Until the header's turn comes a rewritten zone shows nothing.
    store<u32>(zone, r.stage == RING_BODY ? 0 : isFull ? capacity : end, 4);
    if (r.stage == RING_HEADER) return;
    memory.copy(zone + PSZ_BUFFER_BYTES, ringImage(index) + PSZ_BUFFER_BYTES, capacity);
    blankNewer(index, PSZ_BUFFER_BYTES, capacity);
    return;
  }
  const from = stageFrom(index);
  const bytes = stageBytes(index);
  const isBlank = r.stage == RING_BLANK_TO_END || r.stage == RING_BLANK_FROM_START;
  if (isBlank) memory.fill(zone + from, BLANK, bytes);
  else {
    memory.copy(zone + from, ringImage(index) + from, bytes);
    blankNewer(index, from, bytes);
  }
}
