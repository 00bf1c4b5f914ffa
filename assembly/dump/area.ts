// The dump area: up to two dumps, one from its front and one up to its back, each with its header at its own end. What
// is free lies between them, so two dumps find room as long as they fit together, whatever the size of each. Knows
// nothing of cards. FORMAT.md, "The dump area", has the bytes.
import { crc32c } from "../crc";
import {
  DUMP_AREA_SECTORS,
  DUMP_AREA_SECTORS_MAX,
  DUMP_BEGUN,
  DUMP_COMPLETE,
  DUMP_FAILED_BYTES,
  DUMP_FAILED_LIST,
  DUMP_FAILED_MAX,
  DUMP_FAILED_RANGES,
  DUMP_HEADER_BLOCK,
  DUMP_PARTIAL,
  DUMP_STREAM,
  SECTOR_BYTES,
} from "../layout";

/** "MMCPDUMP" */
const DUMP_MAGIC: u64 = 0x504d554450434d4d;
const DUMP_VERSION: u32 = 1;
/** A header has a flash page for itself, and data begin on one. */
const ROOM_BYTES: u64 = 4096;
/** Two dumps that follow each other are not further apart. A number that is has been made up, and orders nothing. */
const SEQUENCE_STEP_MAX: u64 = 0x100000000;
/** Above every sequence that counts. */
const COMPLETE_WORTH: u64 = 1 << 62;
const FAILED_LIST_OFFSET: u32 = 112;
const CRC_OFFSET: u32 = 508;

export const SLOT_FRONT: u32 = 0;
export const SLOT_BACK: u32 = 1;

/** The first words of a header, as they are on the card. */
// @ts-expect-error: decorator
@unmanaged
export class DumpHeader {
  magic: u64;
  version: u32;
  state: u32; // DUMP_BEGUN …
  sequence: u64;
  areaBytes: u64;
  dataOffset: u64; // in the area
  lengthBytes: u64; // of the whole file
  storedBytes: u64;
  dataCrc: u32; // CRC-32C of the stored bytes
  status: i32; // why it is partial
  failedRanges: u32;
  timeNsec: u32; // of the record
  failedBytes: u64;
  recordSequence: u64; // in the seal of the record that belongs to it; of several, the one with the newest text
  timeSec: i64;
}

/** Where a dump goes, and how far it has come. */
// @ts-expect-error: decorator
@unmanaged
export class DumpStream {
  sequence: u64;
  dataOffset: u64; // in the area
  lengthBytes: u64; // of the planned file
  roomBytes: u64; // for as much of it as there is room
  storedBytes: u64;
  lastNs: u64; // what the last transfer took, without those that failed before it
  headerNs: u64; // what a header took
  dataNs: u64; // what the data have taken
  sectorNs: u64; // what a sector takes
  crc: u32;
  slot: u32; // SLOT_*
  clearsOther: u32; // the other header must go: its data are written over
}

export function stream(): DumpStream {
  return changetype<DumpStream>(DUMP_STREAM);
}

/** Whole rooms of the area that CONFIG gives; 0: there is none. */
export function areaBytes(): u64 {
  const sectors = load<u32>(DUMP_AREA_SECTORS);
  return sectors > <u32>DUMP_AREA_SECTORS_MAX ? 0 : roundDown(<u64>sectors * SECTOR_BYTES);
}

/** Of a slot's header, in the area. */
export function headerOffset(slot: u32): u64 {
  return slot == SLOT_FRONT ? 0 : areaBytes() - ROOM_BYTES;
}

function roundDown(bytes: u64): u64 {
  return bytes & ~(ROOM_BYTES - 1);
}

function roundUp(bytes: u64): u64 {
  return roundDown(bytes + (ROOM_BYTES - 1));
}

/** True if the 512 bytes at `ptr`, read from a slot's place, are a whole header that belongs there. */
export function headerStands(ptr: usize, slot: u32): bool {
  const h = changetype<DumpHeader>(ptr);
  if (h.magic != DUMP_MAGIC || h.version != DUMP_VERSION) return false;
  if (load<u32>(ptr + CRC_OFFSET) != crc32c(0, ptr, CRC_OFFSET)) return false;
  if (h.areaBytes != areaBytes() || h.state < <u32>DUMP_BEGUN || h.state > <u32>DUMP_COMPLETE) return false;
  const end = headerOffset(SLOT_BACK);
  if (h.dataOffset < ROOM_BYTES || h.dataOffset > end || roundDown(h.dataOffset) != h.dataOffset)
    return false;
  if (slot == SLOT_FRONT && h.dataOffset != ROOM_BYTES) return false;
  if (h.storedBytes > end - h.dataOffset || h.storedBytes > h.lengthBytes) return false;
  return h.state != <u32>DUMP_COMPLETE || h.storedBytes == h.lengthBytes;
}

/** The sequence of a header that stands; 0 if it is too far from the other's, and from 0, to order anything. */
function plausibleSequence(ptr: usize, stands: bool, other: usize, otherStands: bool): u64 {
  if (!stands) return 0;
  const own = changetype<DumpHeader>(ptr).sequence;
  if (own <= SEQUENCE_STEP_MAX) return own;
  if (!otherStands || own >= COMPLETE_WORTH - 1) return 0;
  const beside = changetype<DumpHeader>(other).sequence;
  const apart = own > beside ? own - beside : beside - own;
  return apart <= SEQUENCE_STEP_MAX ? own : 0;
}

/** How much a dump is worth keeping: complete ones before others, then by age. 0: nothing can be read of it. */
function worthOf(ptr: usize, stands: bool, sequence: u64): u64 {
  const h = changetype<DumpHeader>(ptr);
  if (!stands || h.state == <u32>DUMP_BEGUN || h.storedBytes == 0) return 0;
  return h.state == <u32>DUMP_COMPLETE ? COMPLETE_WORTH + sequence + 1 : sequence + 1;
}

/** A dump from the front has all room up to `limit`; one from the back takes its end, from `limit` on. */
function place(slot: u32, limit: u64): void {
  const s = stream();
  const end = headerOffset(SLOT_BACK);
  s.slot = slot;
  const room = slot == SLOT_FRONT ? limit - ROOM_BYTES : end - limit;
  s.roomBytes = s.lengthBytes < room ? s.lengthBytes : room;
  s.dataOffset = slot == SLOT_FRONT ? ROOM_BYTES : end - roundUp(s.roomBytes);
}

/**
 * Chooses the place of a dump of `lengthBytes`. `front` and `back`: the headers that are there. The newest complete
 * dump keeps its place, without one the newest; the other's is taken. Where not both fit, a complete one stays if
 * `keepsComplete`, and the new one gets what room is left; else all room is the new one's. False: there is none.
 */
export function chooseSlot(lengthBytes: u64, front: usize, back: usize, keepsComplete: bool): bool {
  const s = stream();
  memory.fill(changetype<usize>(s), 0, offsetof<DumpStream>());
  if (areaBytes() < 3 * ROOM_BYTES) return false;
  s.lengthBytes = lengthBytes;
  const frontStands = headerStands(front, SLOT_FRONT);
  const backStands = headerStands(back, SLOT_BACK);
  const f = changetype<DumpHeader>(front);
  const b = changetype<DumpHeader>(back);
  const frontSequence = plausibleSequence(front, frontStands, back, backStands);
  const backSequence = plausibleSequence(back, backStands, front, frontStands);
  s.sequence = (frontSequence > backSequence ? frontSequence : backSequence) + 1;
  const frontWorth = worthOf(front, frontStands, frontSequence);
  const backWorth = worthOf(back, backStands, backSequence);
  if (frontWorth == 0 && backWorth == 0) {
    place(SLOT_FRONT, headerOffset(SLOT_BACK));
  } else if (frontWorth > backWorth) {
    place(SLOT_BACK, ROOM_BYTES + roundUp(f.storedBytes));
  } else {
    place(SLOT_FRONT, b.dataOffset);
  }
  const kept = frontWorth > backWorth ? f : b;
  const isComplete = kept.state == <u32>DUMP_COMPLETE && (frontWorth | backWorth) != 0;
  if (s.roomBytes == lengthBytes || (isComplete && keepsComplete)) return s.roomBytes > 0;
  // Both headers go before any data do.
  s.clearsOther = 1;
  place(SLOT_FRONT, headerOffset(SLOT_BACK));
  return true;
}

/** The header of the dump in the making to DUMP_HEADER_BLOCK, with what the record says of the panic. */
export function buildHeader(state: u32, status: i32, recordSequence: u64, timeSec: i64, timeNsec: u32): void {
  const s = stream();
  const h = changetype<DumpHeader>(DUMP_HEADER_BLOCK);
  memory.fill(DUMP_HEADER_BLOCK, 0, SECTOR_BYTES);
  h.magic = DUMP_MAGIC;
  h.version = DUMP_VERSION;
  h.state = state;
  h.sequence = s.sequence;
  h.areaBytes = areaBytes();
  h.dataOffset = s.dataOffset;
  h.lengthBytes = s.lengthBytes;
  h.recordSequence = recordSequence;
  h.timeSec = timeSec;
  h.timeNsec = timeNsec;
  if (state != <u32>DUMP_BEGUN) {
    h.storedBytes = s.storedBytes;
    h.dataCrc = s.crc;
    h.status = state == <u32>DUMP_PARTIAL ? status : 0;
    h.failedRanges = load<u32>(DUMP_FAILED_RANGES);
    h.failedBytes = load<u64>(DUMP_FAILED_BYTES);
    const listed = h.failedRanges < <u32>DUMP_FAILED_MAX ? h.failedRanges : DUMP_FAILED_MAX;
    memory.copy(DUMP_HEADER_BLOCK + FAILED_LIST_OFFSET, DUMP_FAILED_LIST, listed * 16);
  }
  store<u32>(DUMP_HEADER_BLOCK + CRC_OFFSET, crc32c(0, DUMP_HEADER_BLOCK, CRC_OFFSET));
}
