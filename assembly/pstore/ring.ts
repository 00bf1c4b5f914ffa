// The rings of an area: pmsg, console, and an ftrace slice for each CPU (FORMAT.md, "The rings"). What is written goes
// into an image of the zone in memory; which bytes of it the medium lacks is known here, how they get there is
// rings.ts's business. Linux's layout and Linux's ring: the newest bytes take the place of the oldest.

import {
  CONFIG_CONSOLE_SECTORS,
  CONFIG_FTRACE_CPUS,
  CONFIG_FTRACE_SECTORS,
  CONFIG_PMSG_SECTORS,
  CONFIG_RINGS_FIRST_LBA,
  FTRACE_CPUS_MAX,
  RING_BYTES_MAX,
  RING_DATA,
  RING_STATE_BYTES,
  RING_STATES,
  RINGS_MAX,
  SECTOR_BYTES,
} from "../layout";
import { MARK_RING, mark } from "../mark";
import { publish64, published64 } from "../owner";
import { PSZ_BUFFER_BYTES, PSZ_SIG_CONSOLE, PSZ_SIG_FTRACE, PSZ_SIG_PMSG } from "./format";

export const RING_PMSG: u32 = 0;
export const RING_CONSOLE: u32 = 1;
/** The slice of CPU 0; the others follow. */
export const RING_FTRACE: u32 = 2;

/**
 * A ring in memory. The n-th byte of this boot stands n mod capacity bytes behind the start of the data. Whoever writes
 * changes `written` and `incoming`, whoever flushes the rest, so one may come into the middle of the other: each
 * word is true by itself at any time.
 */
// @ts-expect-error: decorator
@unmanaged
export class Ring {
  written: u64; // bytes of this boot; of a longer write those for which there is room
  flushed: u64; // of them the oldest, which the medium has, or which were too many for it
  flushing: u64; // `written` as the flush at hand found it
  incoming: u64; // `written` as it will be: bytes up to here are being stored, and are neither old nor new
  isLive: u32; // the zone's header on the medium is of this boot, and its image has the same
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

/** The zone as the medium shall have it; its header is the one that the medium has, once the ring is live. */
export function ringImage(index: u32): usize {
  return RING_DATA + firstSector(index) * SECTOR_BYTES;
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
}

function writtenWord(index: u32): usize {
  return RING_STATES + index * RING_STATE_BYTES + offsetof<Ring>("written");
}

function incomingWord(index: u32): usize {
  return RING_STATES + index * RING_STATE_BYTES + offsetof<Ring>("incoming");
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
  const written = r.written + kept;
  // What a writer left that died in here stays told until it is written over.
  if (written > r.incoming) publish64(incomingWord(index), written);
  mark(MARK_RING);
  memory.copy(data + next, newest, toEnd);
  memory.copy(data, newest + toEnd, kept - toEnd);
  mark(MARK_RING);
  publish64(writtenWord(index), written);
}

/** Bytes that the medium lacks and has room for. */
export function pendingBytes(index: u32): u32 {
  return least(published64(writtenWord(index)) - ring(index).flushed, ringCapacity(index));
}

/** From here on a flush is about the bytes that are there now. */
export function beginRingFlush(index: u32): void {
  ring(index).flushing = published64(writtenWord(index));
}

/** Of the bytes that the flush at hand is about, those that the medium lacks. */
export function flushingBytes(index: u32): u32 {
  const r = ring(index);
  return least(r.flushing - r.flushed, ringCapacity(index));
}

/** How many bytes the ring held when the flush at hand began. */
export function filledBytes(index: u32): u32 {
  return least(ring(index).flushing, ringCapacity(index));
}

/** Where, behind the start of the data, the first byte goes that the flush at hand is not about. */
export function flushEnd(index: u32): u32 {
  return <u32>(ring(index).flushing % ringCapacity(index));
}

/** How many bytes from flushEnd() on somebody has stored since, or is storing. */
export function newerBytes(index: u32): u32 {
  const incoming = published64(incomingWord(index));
  const flushing = ring(index).flushing;
  return incoming > flushing ? least(incoming - flushing, ringCapacity(index)) : 0;
}
