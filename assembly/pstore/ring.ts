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
import { PSZ_BUFFER_BYTES, PSZ_SIG_CONSOLE, PSZ_SIG_FTRACE, PSZ_SIG_PMSG } from "./format";

export const RING_PMSG: u32 = 0;
export const RING_CONSOLE: u32 = 1;
/** The slice of CPU 0; the others follow. */
export const RING_FTRACE: u32 = 2;

/** A ring in memory. Offsets count from the start of the data. */
// @ts-expect-error: decorator
@unmanaged
export class Ring {
  next: u32; // where the next byte goes, below the capacity
  filledBytes: u32; // bytes that it holds, at most the capacity
  pendingBytes: u32; // the newest of them, which the medium lacks
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

/** `count` bytes at `from` become the newest of the ring. In memory only. */
export function appendToRing(index: u32, from: usize, count: u32): void {
  const r = ring(index);
  const capacity = ringCapacity(index);
  const data = ringImage(index) + PSZ_BUFFER_BYTES;
  const kept = count < capacity ? count : capacity;
  const newest = from + (count - kept);
  const toEnd = capacity - r.next < kept ? capacity - r.next : kept;
  memory.copy(data + r.next, newest, toEnd);
  memory.copy(data, newest + toEnd, kept - toEnd);
  r.next = (r.next + kept) % capacity;
  r.filledBytes = capacity - r.filledBytes > kept ? r.filledBytes + kept : capacity;
  r.pendingBytes = capacity - r.pendingBytes > kept ? r.pendingBytes + kept : capacity;
}
