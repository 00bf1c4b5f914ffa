// The region table: what a crash dump consists of, registered ahead of time. A region is named by an id that is never
// given twice in a row (a slot's generation is part of it), so its owner needs no index that moves: a slot that is
// given back stays empty until the next region takes it, and no other slot changes. This is the one place where a
// region is judged. A plan freezes the table.
import { EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, EOVERFLOW, OK } from "../errno";
import {
  DUMP_ALIGN,
  DUMP_CAPACITY,
  DUMP_CLASS,
  DUMP_FLAGS,
  DUMP_MACHINE,
  DUMP_NOTE_BYTES,
  DUMP_NOTE_BYTES_MAX,
  DUMP_NOTES,
  DUMP_OVERLAP,
  DUMP_REFUSED,
  DUMP_REMOTEPROC,
  DUMP_REQUEST,
  DUMP_SECTIONS,
  DUMP_SEGMENTS,
  DUMP_SLOT_BYTES,
  DUMP_SLOTS_MAX,
  DUMP_STATE,
  DUMP_WORK,
  DUMP_WORK_BYTES,
  MEDIUM_BASE,
  REFUSED_ALIGN,
  REFUSED_CLASS,
  REFUSED_CONFIG,
  REFUSED_DUPLICATE,
  REFUSED_FLAGS,
  REFUSED_FROZEN,
  REFUSED_FULL,
  REFUSED_ID,
  REFUSED_NAME,
  REFUSED_NONE,
  REFUSED_OVERLAP,
  REFUSED_SIZE,
  REFUSED_SOURCE,
  REFUSED_WRAP,
  REGION_MEMORY,
} from "../layout";
import { ELFCLASS32, ELFCLASS64 } from "./elf";
import { Dump, dump, GENERATION_MAX, isInMemory, Slot, slotAt } from "./state";

const PF_RWX: u32 = 7;
const REQUEST_BYTES: u32 = 48;
const NOTE_HEAD_BYTES: u32 = 12;

export function refuse(status: i32, why: u32): i32 {
  store<u32>(DUMP_REFUSED, why);
  return status;
}

/** An empty table as the words from DUMP_WORK on say. EINVAL they make no sense, ENOSPC too small a work area. */
export function dumpInit(): i32 {
  memory.fill(DUMP_STATE, 0, offsetof<Dump>());
  store<u32>(DUMP_REFUSED, REFUSED_NONE);
  dump().memoryBytes = (<u64>memory.size()) << 16;
  const work = load<u32>(DUMP_WORK);
  const capacity = load<u32>(DUMP_CAPACITY);
  const noteBytes = load<u32>(DUMP_NOTE_BYTES);
  const flags = load<u32>(DUMP_FLAGS);
  const align = load<u32>(DUMP_ALIGN);
  const elfClass = load<u32>(DUMP_CLASS);
  const shape: u32 = DUMP_SEGMENTS | DUMP_NOTES | DUMP_SECTIONS | DUMP_REMOTEPROC | DUMP_OVERLAP;
  const makesSense =
    (work & 7) == 0 &&
    work >= <u32>MEDIUM_BASE &&
    capacity > 0 &&
    capacity <= <u32>DUMP_SLOTS_MAX &&
    noteBytes <= <u32>DUMP_NOTE_BYTES_MAX &&
    align != 0 &&
    (align & (align - 1)) == 0 &&
    (elfClass == ELFCLASS32 || elfClass == ELFCLASS64) &&
    load<u32>(DUMP_MACHINE) <= 0xffff &&
    (flags & ~shape) == 0 &&
    (flags & (DUMP_SEGMENTS | DUMP_SECTIONS)) != 0 &&
    // A note is found by its program header.
    ((flags & DUMP_NOTES) == 0 || (flags & DUMP_SEGMENTS) != 0);
  if (!makesSense) return refuse(EINVAL, REFUSED_CONFIG);
  const needed = <u64>capacity * DUMP_SLOT_BYTES + noteBytes;
  const given = load<u32>(DUMP_WORK_BYTES);
  if (!isInMemory(work, given)) return refuse(EFAULT, REFUSED_CONFIG);
  if (needed > given) return refuse(ENOSPC, REFUSED_CONFIG);
  memory.fill(work, 0, <usize>needed);
  const d = dump();
  d.notes = work + capacity * DUMP_SLOT_BYTES;
  d.capacity = capacity;
  d.noteBytesMax = noteBytes;
  d.flags = flags;
  d.elfClass = elfClass;
  d.slots = work;
  return OK;
}

/** True if the 16 bytes are 1 to 15 printable ASCII characters other than space, and NUL behind them. */
function isName(ptr: usize): bool {
  let length: u32 = 0;
  for (let i: u32 = 0; i < 16; i++) {
    const c = load<u8>(ptr + i);
    if (c != 0) {
      if (length != i || c < 0x21 || c > 0x7e) return false;
      length++;
    }
  }
  return length > 0 && length < 16;
}

/** True if the range begins and ends below 2^64, or below 2^32 in ELF32. */
function wraps(address: u64, size: u64): bool {
  return address + (size - 1) < address;
}

function isBeyondClass(address: u64, size: u64): bool {
  return dump().elfClass == ELFCLASS32 && address + (size - 1) > 0xffffffff;
}

/** What is wrong with a region by itself: status with DUMP_REFUSED set, or OK. */
function judge(region: Slot): i32 {
  if (!isName(changetype<usize>(region))) return refuse(EINVAL, REFUSED_NAME);
  if (region.size == 0) return refuse(EINVAL, REFUSED_SIZE);
  const mask = <u64>load<u32>(DUMP_ALIGN) - 1;
  if (((region.address | region.size) & mask) != 0) return refuse(EINVAL, REFUSED_ALIGN);
  if (wraps(region.address, region.size) || wraps(region.vaddr, region.size))
    return refuse(EINVAL, REFUSED_WRAP);
  if (isBeyondClass(region.address, region.size) || isBeyondClass(region.vaddr, region.size)) {
    return refuse(EOVERFLOW, REFUSED_CLASS);
  }
  if ((region.flags & ~(PF_RWX | REGION_MEMORY)) != 0) return refuse(EINVAL, REFUSED_FLAGS);
  if ((region.flags & REGION_MEMORY) != 0 && !isInMemory(region.source, region.size)) {
    return refuse(EFAULT, REFUSED_SOURCE);
  }
  return OK;
}

/** What is wrong with it beside the others. */
function compare(region: Slot): i32 {
  const d = dump();
  const mayOverlap = (d.flags & DUMP_OVERLAP) != 0;
  for (let i: u32 = 0; i < d.used && i < <u32>DUMP_SLOTS_MAX; i++) {
    const other = slotAt(i);
    if (other.id == 0) continue;
    if (other.name0 == region.name0 && other.name1 == region.name1) return refuse(EEXIST, REFUSED_DUPLICATE);
    // Neither wraps, so the distance of two beginnings says it all.
    const overlaps =
      other.address >= region.address
        ? other.address - region.address < region.size
        : region.address - other.address < other.size;
    if (overlaps && !mayOverlap) return refuse(EEXIST, REFUSED_OVERLAP);
  }
  return OK;
}

function emptySlot(): i32 {
  const d = dump();
  for (let i: u32 = 0; i < d.used && i < <u32>DUMP_SLOTS_MAX; i++) if (slotAt(i).id == 0) return i;
  return d.used < d.capacity ? d.used : -1;
}

/**
 * Registers what lies at DUMP_REQUEST. Returns its id (> 0), or EINVAL, EOVERFLOW (beyond ELF32), EFAULT (bytes outside
 * of this memory), EEXIST (name taken, or overlap), ENOSPC, EBUSY (frozen) with DUMP_REFUSED. The id is stored last:
 * a crash in the middle sees no region or a whole one.
 */
export function dumpRegister(): i32 {
  const d = dump();
  if (d.slots == 0) return refuse(EINVAL, REFUSED_CONFIG);
  if (d.planned != 0) return refuse(EBUSY, REFUSED_FROZEN);
  const index = emptySlot();
  if (index < 0) return refuse(ENOSPC, REFUSED_FULL);
  const slot = slotAt(index);
  // Copied once, then judged: what is judged is what is used.
  memory.copy(changetype<usize>(slot), DUMP_REQUEST, REQUEST_BYTES);
  let status = judge(slot);
  if (status == OK) status = compare(slot);
  if (status != OK) return status;
  store<u32>(DUMP_REFUSED, REFUSED_NONE);
  slot.generation = slot.generation < GENERATION_MAX ? slot.generation + 1 : 1;
  const id = (slot.generation << 16) | <u32>index;
  if (<u32>index == d.used) d.used++;
  slot.id = id;
  return id;
}

/** Empties the slot of `id`; no other slot changes. ENOENT no such region, EBUSY frozen. */
export function dumpUnregister(id: u32): i32 {
  const d = dump();
  if (d.slots == 0) return refuse(EINVAL, REFUSED_CONFIG);
  if (d.planned != 0) return refuse(EBUSY, REFUSED_FROZEN);
  const index = id & 0xffff;
  if (id == 0 || index >= d.used || slotAt(index).id != id) return refuse(ENOENT, REFUSED_ID);
  slotAt(index).id = 0;
  return OK;
}

/**
 * Appends a note with `count` bytes at `ptr` as its description. `type` 0 is VMCOREINFO's, every other type CORE's.
 * Returns where the description lies in this memory, for who fills it in later, or EINVAL, EFAULT, ENOSPC, EBUSY.
 */
export function dumpNote(type: u32, ptr: u32, count: u32): i32 {
  const d = dump();
  if (d.slots == 0 || (d.flags & DUMP_NOTES) == 0) return refuse(EINVAL, REFUSED_CONFIG);
  if (d.planned != 0) return refuse(EBUSY, REFUSED_FROZEN);
  if (!isInMemory(ptr, count)) return refuse(EFAULT, REFUSED_SOURCE);
  const nameBytes: u32 = type == 0 ? 11 : 5;
  const head = NOTE_HEAD_BYTES + ((nameBytes + 3) & ~3);
  if (<u64>head + count + 3 > <u64>(d.noteBytesMax - d.noteBytes)) return refuse(ENOSPC, REFUSED_FULL);
  const note = d.notes + d.noteBytes;
  store<u32>(note, nameBytes);
  store<u32>(note, count, 4);
  store<u32>(note, type, 8);
  if (type == 0) {
    store<u64>(note, 0x4e4945524f434d56, 12); // "VMCOREIN"
    store<u32>(note, 0x4f46, 20); // "FO"
  } else {
    store<u64>(note, 0x45524f43, 12); // "CORE"
  }
  memory.copy(note + head, ptr, count);
  d.noteBytes += head + ((count + 3) & ~3);
  return <i32>(note + head);
}
