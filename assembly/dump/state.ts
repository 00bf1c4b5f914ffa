// What the dump knows of itself: a slot of the region table, and the plan. The table lies where DUMP_WORK says, so its
// size is chosen when it is made and nothing is allocated afterwards.
import {
  DUMP_NOTE_BYTES_MAX,
  DUMP_SCRATCH,
  DUMP_SLOT_BYTES,
  DUMP_SLOTS_MAX,
  DUMP_STATE,
  MEDIUM_BASE,
  PAGE_BYTES,
} from "../layout";

/** A region, or an empty slot. The host fills the first 48 bytes of a request: layout.ts has their offsets. */
// @ts-expect-error: decorator
@unmanaged
export class Slot {
  name0: u64; // 16 characters, NUL-padded
  name1: u64;
  address: u64;
  vaddr: u64;
  size: u64;
  source: u32;
  flags: u32;
  fileOffset: u64; // of its bytes; set by the plan
  nameOffset: u64; // of its name in the string table; set by the plan
  id: u32; // generation << 16 | slot; 0: empty
  order: u32; // not of this region: slot of the n-th region of the plan, n being this slot's index
  generation: u32; // of the last id given here, 0 … GENERATION_MAX
  first: u32; // nor this: region of the plan in which the n-th part of all regions' bytes begins
}

// @ts-expect-error: decorator
@unmanaged
export class Dump {
  totalBytes: u64;
  memoryBytes: u64; // of the whole linear memory
  partBytes: u64; // the regions' bytes cut into as many parts as there are regions
  slots: usize; // the table; 0: dumpInit() has not been called
  notes: usize;
  capacity: u32;
  used: u32; // slots below this were in use at some time
  noteBytesMax: u32;
  noteBytes: u32;
  flags: u32;
  elfClass: u32;
  planned: u32; // 0, or who has frozen the table: PLANNED_*
  live: u32;
  // Where the parts of the header begin; each ends where the next one begins, or at a few bytes of zero before it.
  segmentsAt: u32;
  notesAt: u32;
  sectionsAt: u32;
  stringsAt: u32;
  stringsEnd: u32;
  dataAt: u32;
}

/** Until dumpRelease(). */
export const PLANNED: u32 = 1;
/** Until that panic ends, or if it dies until the next panic or power-up. */
export const PLANNED_BY_PANIC: u32 = 2;
export const GENERATION_MAX: u32 = 0x7fff;

export function dump(): Dump {
  return changetype<Dump>(DUMP_STATE);
}

export function scratch(): usize {
  return DUMP_SCRATCH;
}

export function slotAt(index: u32): Slot {
  // The memory is everybody's: an index out of it must not lead out of the table.
  const inTable = index < dump().capacity && index < <u32>DUMP_SLOTS_MAX ? index : 0;
  return changetype<Slot>(dump().slots + <usize>inTable * DUMP_SLOT_BYTES);
}

/** True if `count` bytes at `ptr` are in this memory, as large as it was at dumpInit(): it can only grow. */
export function isInMemory(ptr: u64, count: u64): bool {
  const end = dump().memoryBytes;
  return count <= end && ptr <= end - count;
}

/**
 * True if table and notes lie in this memory. A crash may have had its cause in a store to the wrong place, and reading
 * a table that is none would be a trap.
 */
export function isSound(): bool {
  const d = dump();
  return (
    d.memoryBytes <= <u64>memory.size() * PAGE_BYTES &&
    d.slots >= <usize>MEDIUM_BASE &&
    d.capacity > 0 &&
    d.capacity <= <u32>DUMP_SLOTS_MAX &&
    isInMemory(d.slots, <u64>d.capacity * DUMP_SLOT_BYTES) &&
    d.noteBytes <= <u32>DUMP_NOTE_BYTES_MAX &&
    isInMemory(d.notes, d.noteBytes)
  );
}
