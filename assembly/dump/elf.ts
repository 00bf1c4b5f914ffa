// The headers of an ELF core, one at a time into the scratch: none of them is ever stored. Fields are those of the ELF
// specification; what Linux's remoteproc does differently is DUMP_REMOTEPROC. Always little-endian, as this memory is.
import {
  DUMP_ELF_FLAGS,
  DUMP_ENTRY,
  DUMP_MACHINE,
  DUMP_NOTES,
  DUMP_REMOTEPROC,
  DUMP_SECTIONS,
  DUMP_SEGMENTS,
} from "../layout";
import { dump, scratch, slotAt } from "./state";

export const ELFCLASS32: u32 = 1;
export const ELFCLASS64: u32 = 2;
const ET_CORE: u16 = 4;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_RWX: u32 = 7;
const SHT_PROGBITS: u32 = 1;
const SHT_STRTAB: u32 = 3;
const SHF_WRITE: u32 = 1;
const SHF_ALLOC: u32 = 2;
const SHF_EXECINSTR: u32 = 4;
/** NUL, "STR_TBL", NUL: the string table's own name is its first. */
export const STRINGS_HEAD_BYTES: u32 = 9;

export function ehdrBytes(): u32 {
  return dump().elfClass == ELFCLASS64 ? 64 : 52;
}

export function phdrBytes(): u32 {
  return dump().elfClass == ELFCLASS64 ? 56 : 32;
}

export function shdrBytes(): u32 {
  return dump().elfClass == ELFCLASS64 ? 64 : 40;
}

function has(flag: u32): bool {
  return (dump().flags & flag) != 0;
}

export function phdrCount(): u32 {
  return has(DUMP_SEGMENTS) ? dump().live + (has(DUMP_NOTES) ? 1 : 0) : 0;
}

export function shdrCount(): u32 {
  return has(DUMP_SECTIONS) ? dump().live + 2 : 0;
}

/** Clears the scratch and returns it. */
function blank(): usize {
  memory.fill(scratch(), 0, 64);
  return scratch();
}

export function buildEhdr(): void {
  const d = dump();
  const at = blank();
  const is64 = d.elfClass == ELFCLASS64;
  const phnum = phdrCount();
  const shnum = shdrCount();
  const phoff = phnum > 0 ? d.segmentsAt : 0;
  const shoff = shnum > 0 ? d.sectionsAt : 0;
  store<u32>(at, 0x464c457f); // 7f "ELF"
  store<u8>(at, <u8>d.elfClass, 4);
  store<u8>(at, 1, 5); // ELFDATA2LSB
  store<u8>(at, 1, 6); // EV_CURRENT
  store<u16>(at, ET_CORE, 16);
  store<u16>(at, <u16>load<u32>(DUMP_MACHINE), 18);
  store<u32>(at, 1, 20); // EV_CURRENT
  if (is64) {
    store<u64>(at, load<u64>(DUMP_ENTRY), 24);
    store<u64>(at, phoff, 32);
    store<u64>(at, shoff, 40);
  } else {
    store<u32>(at, load<u32>(DUMP_ENTRY), 24);
    store<u32>(at, phoff, 28);
    store<u32>(at, shoff, 32);
  }
  // e_flags and the 16-bit fields behind it are the same in both classes.
  const tail = at + (is64 ? 48 : 36);
  store<u32>(tail, load<u32>(DUMP_ELF_FLAGS));
  store<u16>(tail, <u16>ehdrBytes(), 4);
  if (phnum > 0) store<u16>(tail, <u16>phdrBytes(), 6);
  store<u16>(tail, <u16>phnum, 8);
  if (shnum > 0) {
    store<u16>(tail, <u16>shdrBytes(), 10);
    store<u16>(tail, <u16>shnum, 12);
    store<u16>(tail, 1, 14); // e_shstrndx
  }
}

function putPhdr(type: u32, flags: u32, offset: u64, vaddr: u64, paddr: u64, size: u64, align: u32): void {
  const at = blank();
  store<u32>(at, type);
  if (dump().elfClass == ELFCLASS64) {
    store<u32>(at, flags, 4);
    store<u64>(at, offset, 8);
    store<u64>(at, vaddr, 16);
    store<u64>(at, paddr, 24);
    store<u64>(at, size, 32); // p_filesz
    store<u64>(at, size, 40); // p_memsz
    store<u64>(at, align, 48);
  } else {
    store<u32>(at, <u32>offset, 4);
    store<u32>(at, <u32>vaddr, 8);
    store<u32>(at, <u32>paddr, 12);
    store<u32>(at, <u32>size, 16);
    store<u32>(at, <u32>size, 20);
    store<u32>(at, flags, 24);
    store<u32>(at, align, 28);
  }
}

/** The n-th program header: the notes' if there are any, then a PT_LOAD for each region. */
export function buildPhdr(n: u32): void {
  const d = dump();
  let region = n;
  if (has(DUMP_NOTES)) {
    if (n == 0) {
      putPhdr(PT_NOTE, 0, d.notesAt, 0, 0, d.noteBytes, 4);
      return;
    }
    region--;
  }
  const slot = slotAt(slotAt(region).order);
  const isRemoteproc = has(DUMP_REMOTEPROC);
  const vaddr = isRemoteproc ? slot.address : slot.vaddr;
  // p_align 0: the bytes of regions follow each other without padding.
  putPhdr(
    PT_LOAD,
    isRemoteproc ? PF_RWX : slot.flags & PF_RWX,
    slot.fileOffset,
    vaddr,
    slot.address,
    slot.size,
    0,
  );
}

function putShdr(name: u32, type: u32, flags: u32, address: u64, offset: u64, size: u64): void {
  const at = blank();
  store<u32>(at, name);
  store<u32>(at, type, 4);
  if (dump().elfClass == ELFCLASS64) {
    store<u64>(at, flags, 8);
    store<u64>(at, address, 16);
    store<u64>(at, offset, 24);
    store<u64>(at, size, 32);
  } else {
    store<u32>(at, flags, 8);
    store<u32>(at, <u32>address, 12);
    store<u32>(at, <u32>offset, 16);
    store<u32>(at, <u32>size, 20);
  }
}

/** What p_flags are in a section: eu-elflint wants the two to agree. */
function sectionFlags(flags: u32): u32 {
  return SHF_ALLOC | ((flags & PF_W) != 0 ? SHF_WRITE : 0) | ((flags & PF_X) != 0 ? SHF_EXECINSTR : 0);
}

/** The n-th section header: none, the string table, then one for each region. */
export function buildShdr(n: u32): void {
  const d = dump();
  if (n == 0) {
    blank();
  } else if (n == 1) {
    putShdr(1, SHT_STRTAB, 0, 0, d.stringsAt, d.stringsEnd - d.stringsAt);
  } else {
    const slot = slotAt(slotAt(n - 2).order);
    const isRemoteproc = has(DUMP_REMOTEPROC);
    const flags = isRemoteproc ? SHF_WRITE : sectionFlags(slot.flags);
    const address = isRemoteproc ? slot.address : slot.vaddr;
    putShdr(<u32>slot.nameOffset, SHT_PROGBITS, flags, address, slot.fileOffset, slot.size);
  }
}

/** The first STRINGS_HEAD_BYTES of the string table. */
export function buildStringsHead(): void {
  store<u64>(blank(), 0x4c42545f52545300); // NUL, "STR_TBL"
}
