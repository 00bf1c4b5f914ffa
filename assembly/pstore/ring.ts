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
 * Steps of a flush, in their order. A step's number is stored before its first write: a flush that died is taken up at
 * the step that may not have come to its end, so that nothing that the medium shows is taken back.
 */
export const RING_SETTLED: u32 = 0; // no flush is under way
export const RING_HIDE: u32 = 1; // a rewrite: what the zone shows goes
export const RING_BODY: u32 = 2; // a rewrite: all bytes, which nothing shows
export const RING_BLANK_TO_END: u32 = 3; // a full ring: the oldest bytes, up to the zone's end, become blank
export const RING_BLANK_FROM_START: u32 = 4; // those that follow at the zone's start
export const RING_BEHIND: u32 = 5; // a ring that is not full: new bytes behind datalen
export const RING_HEADER: u32 = 6; // the header shows the bytes that the flush is about, or their blanks
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
  flushing: u64; // `written` as the flush at hand found it, until that has come to its end
  incomingBytes: u32; // behind the written ones: they are being stored, and are neither old nor new
  isLive: u32; // the zone's header on the medium is of this boot
  stage: u32; // RING_*
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
  const zoneBytes = bytes < <u32>RING_BYTES_MAX ? bytes : RING_BYTES_MAX;
  memory.fill(RING_DATA, 0xff, zoneBytes);
  memory.fill(RING_MEDIUM, 0xff, zoneBytes);
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

/** Nothing of what the medium has stays: the first flush of a boot, or as many bytes are new as the ring holds. */
export function planRewrite(index: u32): void {
  const r = ring(index);
  r.isLive = 0;
  r.stage = RING_HIDE;
  r.flushing = published64(writtenWord(index));
}

/** What is pending, less than the capacity, becomes the newest of what the live zone shows. */
export function planExtension(index: u32): void {
  const r = ring(index);
  r.flushing = published64(writtenWord(index));
  r.stage = RING_BLANK_TO_END;
}

/** The flush has come to its end: the medium has what it was about. */
export function settleRing(index: u32): void {
  const r = ring(index);
  r.isLive = 1;
  r.flushed = r.flushing;
  // Whoever comes in between finds a last step with nothing to do.
  r.stage = RING_SETTLED;
}

/** Of the bytes that the flush is about, those that the medium lacks; they go round from flushFrom() on. */
function flushingBytes(index: u32): u32 {
  const r = ring(index);
  return least(r.flushing - r.flushed, ringCapacity(index));
}

function flushFrom(index: u32): u32 {
  return <u32>(ring(index).flushed % ringCapacity(index));
}

/** Those up to the zone's end. */
function bytesToEnd(index: u32): u32 {
  const room = ringCapacity(index) - flushFrom(index);
  const bytes = flushingBytes(index);
  return bytes < room ? bytes : room;
}

/** Whether the live zone showed a full ring before, so that new bytes take the place of shown ones. */
function wasFull(index: u32): bool {
  return ring(index).flushed >= ringCapacity(index);
}

/** First byte of the zone that the step at hand writes. */
export function stageFrom(index: u32): u32 {
  const stage = ring(index).stage;
  if (stage == RING_HEADER || stage == RING_BODY) return 0;
  const isAtStart = stage == RING_BLANK_FROM_START || stage == RING_FILL_FROM_START;
  return PSZ_BUFFER_BYTES + (isAtStart ? 0 : flushFrom(index));
}

/** How many; 0: the step has nothing to do. */
export function stageBytes(index: u32): u32 {
  const r = ring(index);
  const toEnd = bytesToEnd(index);
  switch (r.stage) {
    case RING_BODY:
      return PSZ_BUFFER_BYTES + least(r.flushing, ringCapacity(index));
    case RING_HEADER:
      return PSZ_BUFFER_BYTES;
    case RING_BLANK_TO_END:
    case RING_FILL_TO_END:
      return wasFull(index) ? toEnd : 0;
    case RING_BEHIND:
      return wasFull(index) ? 0 : toEnd;
    default:
      return flushingBytes(index) - toEnd;
  }
}

/** The header of the ring as the flush leaves it. Full: the oldest byte stands where the next one will. */
function putHeader(index: u32, shown: bool): void {
  const zone = ringOnMedium(index);
  const capacity = ringCapacity(index);
  const flushing = ring(index).flushing;
  const datalen = least(flushing, capacity);
  store<u32>(zone, ringSignature(index));
  store<u32>(zone, shown ? datalen : 0, 4);
  store<u32>(zone, datalen == capacity ? <u32>(flushing % capacity) : 0, 8);
}

/** Of bytes `from … until - 1` of the copy those become blank that are at `at … at + count - 1`. */
function blankWithin(zone: usize, from: u32, until: u32, at: u32, count: u32): void {
  const begin = at > from ? at : from;
  const end = at + count < until ? at + count : until;
  if (begin < end) memory.fill(zone + begin, BLANK, end - begin);
}

/** The copy of the medium as the step at hand makes it. The same when it is done again. */
export function applyStage(index: u32): void {
  const stage = ring(index).stage;
  const zone = ringOnMedium(index);
  if (stage == RING_HEADER) {
    putHeader(index, true);
    return;
  }
  const from = stageFrom(index);
  const bytes = stageBytes(index);
  if (stage == RING_BLANK_TO_END || stage == RING_BLANK_FROM_START) {
    memory.fill(zone + from, BLANK, bytes);
    return;
  }
  memory.copy(zone + from, ringImage(index) + from, bytes);
  // Asked behind the copy: of what came while it was made nothing is missed. It is newer than what the header says.
  const newer = newerBytes(index);
  const capacity = ringCapacity(index);
  const at = <u32>(ring(index).flushing % capacity);
  const toEnd = newer < capacity - at ? newer : capacity - at;
  blankWithin(zone, from, from + bytes, PSZ_BUFFER_BYTES + at, toEnd);
  blankWithin(zone, from, from + bytes, PSZ_BUFFER_BYTES, newer - toEnd);
  if (stage == RING_BODY) putHeader(index, false);
}

/**
 * How many bytes behind those of the flush somebody has stored since, or is storing. The writer counts a byte first as
 * incoming, then as written: read in this order, some may count twice, none is missed.
 */
function newerBytes(index: u32): u32 {
  const incoming = published32(incomingWord(index));
  return least(published64(writtenWord(index)) - ring(index).flushing + incoming, ringCapacity(index));
}
