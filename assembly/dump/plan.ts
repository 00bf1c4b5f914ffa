// The plan: where in the file each header and each region's bytes stand, computed from the table without touching the
// bytes; and reading it at any offset. Nothing of the file is ever stored: headers are made when they are read. The
// region at an offset is looked up, not searched for: the regions' bytes are cut into as many equal parts as there are
// regions, and for each part the plan knows where it begins, so that on average less than one halving is left. Where
// sizes are as unequal as they can be, many regions lie in one part, and TURNS_MAX halvings are the most.
import { EFAULT, EFBIG, EINVAL, ENODATA, EOVERFLOW, OK } from "../errno";
import {
  DUMP_EXTENT_BYTES,
  DUMP_EXTENT_OFFSET,
  DUMP_EXTENT_SLOT,
  DUMP_HEADER_BYTES,
  DUMP_LIVE,
  DUMP_NOTES,
  DUMP_REFUSED,
  DUMP_REMOTEPROC,
  DUMP_SECTIONS,
  DUMP_SLOTS_MAX,
  DUMP_TOTAL_BYTES,
  REFUSED_BYTES,
  REFUSED_CONFIG,
  REFUSED_EMPTY,
  REFUSED_NONE,
  REFUSED_SEGMENTS,
  REFUSED_SOURCE,
  REGION_MEMORY,
} from "../layout";
import {
  buildEhdr,
  buildPhdr,
  buildShdr,
  buildStringsHead,
  ELFCLASS32,
  ehdrBytes,
  phdrBytes,
  phdrCount,
  STRINGS_HEAD_BYTES,
  shdrBytes,
  shdrCount,
} from "./elf";
import { refuse } from "./regions";
import { bringBytes } from "./source";
import { dump, isInMemory, PLANNED, PLANNED_BY_PANIC, Slot, scratch, slotAt } from "./state";

/** e_phnum 0xffff (PN_XNUM) and e_shnum from 0xff00 (SHN_LORESERVE) on mean something else. */
const PHNUM_MAX: u32 = 0xfffe;
const SHNUM_MAX: u32 = 0xfeff;
/** Halvings of 65,536 regions. */
const TURNS_MAX: u32 = 17;
/** A header of each kind, a name and bytes of each region, and the few parts that stand once. */
const PIECES_MAX: u32 = 0x40010;
const NAME_BYTES_MAX: u32 = 16;

function nameBytes(slot: Slot): u32 {
  const ptr = changetype<usize>(slot);
  for (let i: u32 = 0; i < NAME_BYTES_MAX; i++) if (load<u8>(ptr + i) == 0) return i;
  return NAME_BYTES_MAX - 1;
}

function alignUp(value: u32, align: u32): u32 {
  return (value + align - 1) & ~(align - 1);
}

/** Orders the regions by slot and places their names. */
function order(): u32 {
  const d = dump();
  let strings = STRINGS_HEAD_BYTES;
  let live: u32 = 0;
  for (let i: u32 = 0; i < d.used && i < <u32>DUMP_SLOTS_MAX; i++) {
    const slot = slotAt(i);
    if (slot.id == 0) continue;
    slotAt(live).order = i;
    slot.nameOffset = strings;
    strings += nameBytes(slot) + 1;
    live++;
  }
  d.live = live;
  return strings;
}

/** Places the regions' bytes behind the header; false if a file offset cannot say so much. */
function place(): bool {
  const d = dump();
  let at: u64 = d.dataAt;
  for (let i: u32 = 0; i < d.live && i < <u32>DUMP_SLOTS_MAX; i++) {
    const slot = slotAt(slotAt(i).order);
    slot.fileOffset = at;
    at += slot.size;
    if (at < slot.size || <i64>at < 0) return false;
  }
  d.totalBytes = at;
  divide();
  return d.elfClass != ELFCLASS32 || at <= 0xffffffff;
}

function startOf(region: u32): u64 {
  return slotAt(slotAt(region).order).fileOffset;
}

/** Notes for each part of the regions' bytes in which region it begins. */
function divide(): void {
  const d = dump();
  d.partBytes = (d.totalBytes - d.dataAt) / d.live + 1;
  let begin: u64 = d.dataAt;
  let region: u32 = 0;
  let part: u32 = 0;
  for (let i: u32 = 0; i < <u32>(2 * DUMP_SLOTS_MAX) && part < d.live; i++) {
    if (region + 1 < d.live && startOf(region + 1) <= begin) {
      region++;
      continue;
    }
    slotAt(part).first = region;
    part++;
    begin += d.partBytes;
  }
}

/**
 * Freezes the table and computes the plan; a second call without dumpRelease() gives the same one. ENODATA no region,
 * EOVERFLOW more segments than e_phnum (65,534 with the notes') or e_shnum (65,279) can say, EFBIG more bytes than
 * an offset: 4 GiB in ELF32, 2^63 in ELF64. After an error the table is not frozen.
 */
export function dumpPlan(): i32 {
  const d = dump();
  if (d.slots == 0) return refuse(EINVAL, REFUSED_CONFIG);
  d.planned = 0;
  const strings = order();
  if (d.live == 0) return refuse(ENODATA, REFUSED_EMPTY);
  if (phdrCount() > PHNUM_MAX || shdrCount() > SHNUM_MAX) return refuse(EOVERFLOW, REFUSED_SEGMENTS);
  // remoteproc packs the parts; libelf wants tables on their own alignment.
  const align: u32 = (d.flags & DUMP_REMOTEPROC) != 0 ? 1 : 8;
  d.segmentsAt = ehdrBytes();
  d.notesAt = d.segmentsAt + phdrCount() * phdrBytes();
  const notesEnd = d.notesAt + ((d.flags & DUMP_NOTES) != 0 ? d.noteBytes : 0);
  d.sectionsAt = alignUp(notesEnd, align);
  d.stringsAt = d.sectionsAt + shdrCount() * shdrBytes();
  d.stringsEnd = d.stringsAt + ((d.flags & DUMP_SECTIONS) != 0 ? strings : 0);
  d.dataAt = alignUp(d.stringsEnd, align);
  if (!place()) return refuse(EFBIG, REFUSED_BYTES);
  store<u64>(DUMP_TOTAL_BYTES, d.totalBytes);
  store<u32>(DUMP_HEADER_BYTES, d.dataAt);
  store<u32>(DUMP_LIVE, d.live);
  store<u32>(DUMP_REFUSED, REFUSED_NONE);
  d.planned = PLANNED;
  return OK;
}

/** The dump is done: regions may come and go again. */
export function dumpRelease(): void {
  dump().planned = 0;
}

/** As dumpPlan(), for a panic: what it has frozen ends with it, what stood before stays. */
export function panicPlan(): i32 {
  const before = dump().planned;
  const status = dumpPlan();
  if (before != PLANNED && status == OK) dump().planned = PLANNED_BY_PANIC;
  return status;
}

/** A panic has come to its end; or the one that froze the table is dead, and power or another panic has come. */
export function endPanicPlan(): void {
  if (dump().planned == PLANNED_BY_PANIC) dump().planned = 0;
}

/**
 * Which region of the plan has the last `field` (an offset in Slot, ascending over the plan) that is ≤ `value`, from
 * the region `from` on and in front of `end`.
 */
function search(field: usize, value: u64, from: u32, end: u32): Slot {
  let low = from;
  let high = end;
  for (let turn: u32 = 0; turn < TURNS_MAX && high - low > 1; turn++) {
    const middle = (low + high) >>> 1;
    if (load<u64>(changetype<usize>(slotAt(slotAt(middle).order)) + field) <= value) low = middle;
    else high = middle;
  }
  return slotAt(slotAt(low).order);
}

/** The region that has the byte at `offset`, which is one of a region. */
function regionAt(offset: u64): Slot {
  const d = dump();
  // Never 0 in a plan; a wild store must not make a trap of it.
  const part: u32 = d.partBytes == 0 ? 0 : <u32>((offset - d.dataAt) / d.partBytes);
  const end = part + 1 < d.live ? slotAt(part + 1).first + 1 : d.live;
  return search(offsetof<Slot>("fileOffset"), offset, slotAt(part).first, end);
}

function offsetOf(low: u32, high: u32): u64 {
  return ((<u64>high) << 32) | low;
}

/**
 * What stands at an offset of the file: 1 a region, told at DUMP_EXTENT_*; 0 a header, which dumpRead() gives;
 * ENODATA at and after the end; EINVAL without a plan.
 */
export function dumpExtent(offsetLow: u32, offsetHigh: u32): i32 {
  const d = dump();
  const offset = offsetOf(offsetLow, offsetHigh);
  if (d.planned == 0) return EINVAL;
  if (offset >= d.totalBytes) return ENODATA;
  if (offset < d.dataAt) return 0;
  const slot = regionAt(offset);
  store<u32>(DUMP_EXTENT_SLOT, slot.id & 0xffff);
  store<u64>(DUMP_EXTENT_OFFSET, offset - slot.fileOffset);
  store<u64>(DUMP_EXTENT_BYTES, slot.fileOffset + slot.size - offset);
  return 1;
}

function least(a: u32, b: u64): u32 {
  return a < b ? a : <u32>b;
}

/** Copies from a header in the scratch that is `size` long, from its byte `at` on. */
function fromScratch(at: u32, size: u32, count: u32, target: usize): u32 {
  const n = least(count, size - at);
  memory.copy(target, scratch() + at, n);
  return n;
}

/** Up to `count` bytes of the header, at most to the end of one of its structures: at least one. */
function headerPiece(at: u32, count: u32, target: usize): u32 {
  const d = dump();
  if (at < d.segmentsAt) {
    buildEhdr();
    return fromScratch(at, d.segmentsAt, count, target);
  }
  if (at < d.notesAt) {
    const inside = at - d.segmentsAt;
    buildPhdr(inside / phdrBytes());
    return fromScratch(inside % phdrBytes(), phdrBytes(), count, target);
  }
  const notesEnd = d.notesAt + ((d.flags & DUMP_NOTES) != 0 ? d.noteBytes : 0);
  if (at < notesEnd) {
    const n = least(count, notesEnd - at);
    memory.copy(target, d.notes + (at - d.notesAt), n);
    return n;
  }
  if (at >= d.sectionsAt && at < d.stringsAt) {
    const inside = at - d.sectionsAt;
    buildShdr(inside / shdrBytes());
    return fromScratch(inside % shdrBytes(), shdrBytes(), count, target);
  }
  if (at >= d.stringsAt && at < d.stringsEnd) {
    const inside = at - d.stringsAt;
    if (inside < STRINGS_HEAD_BYTES) {
      buildStringsHead();
      return fromScratch(inside, STRINGS_HEAD_BYTES, count, target);
    }
    const slot = search(offsetof<Slot>("nameOffset"), inside, 0, d.live);
    const length = nameBytes(slot);
    // Whatever became of the table meanwhile, no more than the name and its NUL are copied.
    const inName = least(length, inside - slot.nameOffset);
    const n = least(count, length + 1 - inName);
    memory.copy(target, changetype<usize>(slot) + inName, n);
    return n;
  }
  const n = least(count, (at < d.sectionsAt ? d.sectionsAt : d.dataAt) - at);
  memory.fill(target, 0, n);
  return n;
}

/** Up to `count` bytes of the one region at `offset`. */
function regionPiece(offset: u64, count: u32, target: usize): u32 {
  const slot = regionAt(offset);
  const inside = offset - slot.fileOffset;
  const n = least(count, slot.size - inside);
  if ((slot.flags & REGION_MEMORY) != 0 && isInMemory(<u64>slot.source + inside, n)) {
    memory.copy(target, slot.source + <u32>inside, n);
  } else {
    bringBytes(slot.id & 0xffff, inside, n, offset, target);
  }
  return n;
}

/**
 * Reads `count` bytes of the planned file at an offset to `target` in this memory. Returns how many: fewer only at the
 * file's end. Of a region outside of this memory what nobody brings is 0xff, and added to the list at DUMP_FAILED,
 * which is in order as long as the file is read in order. EINVAL without a plan, EFAULT a target that is not in this
 * memory.
 */
export function dumpRead(offsetLow: u32, offsetHigh: u32, count: u32, target: u32): i32 {
  const d = dump();
  const offset = offsetOf(offsetLow, offsetHigh);
  if (d.planned == 0 || <i32>count < 0) return EINVAL;
  if (!isInMemory(target, count)) return refuse(EFAULT, REFUSED_SOURCE);
  if (offset >= d.totalBytes) return 0;
  const wanted = least(count, d.totalBytes - offset);
  let done: u32 = 0;
  for (let i: u32 = 0; i < PIECES_MAX && done < wanted; i++) {
    const at = offset + done;
    done +=
      at < d.dataAt
        ? headerPiece(<u32>at, wanted - done, target + done)
        : regionPiece(at, wanted - done, target + done);
  }
  return done;
}
