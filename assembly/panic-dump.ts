// The crash dump behind a panic's record: the planned core goes to the dump area of the card piece by piece, from where
// its bytes are, through one buffer. A header that says "begun" makes room, the data follow, each piece durable before
// the next, and the header that makes them a dump is the last thing to be written: a cut at any point leaves the dump
// that the area keeps. What the deadline, the room or an error cuts off is told in that header.

import { bytesEqual } from "./bytes";
import { crc32c } from "./crc";
import { makeDurable, settleCache, writeFlags } from "./driver/durable";
import { portNowNs } from "./driver/port";
import { isLate, leftNs, shadow } from "./driver/shadow";
import { leadBack } from "./driver/takeover";
import { transferBlocks } from "./driver/transfer";
import { areaBytes, buildHeader, chooseSlot, headerOffset, SLOT_BACK, SLOT_FRONT, stream } from "./dump/area";
import { dumpRead, endPanicPlan, panicPlan } from "./dump/plan";
import { clearFailures } from "./dump/source";
import { dump, isSound } from "./dump/state";
import { ECANCELED, EFAULT, EFBIG, EIO, ENOENT, ENOMEDIUM, ENOSPC, ETIMEDOUT, OK } from "./errno";
import {
  BOUNCE_SECTORS,
  CONFIG_POLICY,
  DUMP_AREA_FIRST_LBA,
  DUMP_AREA_SECTORS,
  DUMP_AREA_SECTORS_MAX,
  DUMP_BEGUN,
  DUMP_COMPLETE,
  DUMP_FAILED_GONE,
  DUMP_HEADER_BLOCK,
  DUMP_PARTIAL,
  DUMP_RESULT,
  DUMP_RESULT_BYTES,
  DUMP_RESULT_END_NS,
  DUMP_RESULT_LENGTH_BYTES,
  DUMP_RESULT_OFFSET,
  DUMP_RESULT_SEQUENCE,
  DUMP_RESULT_STATE,
  DUMP_RESULT_STATUS,
  DUMP_RESULT_STORED_BYTES,
  PANIC_BOUNCE,
  PANIC_HEAD_BLOCK,
  POLICY_FIRST_WINS,
  SECTOR_BYTES,
  STEP_STORE_DUMP,
  VERIFY_BASE,
} from "./layout";
import { MARK_RESULT, mark } from "./mark";
import { holds } from "./owner";
import { record } from "./pstore/record";
import { step } from "./step";

/** The first piece shows how fast the card is, and has the headers of a core of up to some 30 regions. */
const FIRST_PIECE_BYTES: u64 = 4096;
/** That one, and pieces of BOUNCE_SECTORS of the largest area. */
const PIECES_MAX: u32 = DUMP_AREA_SECTORS_MAX / BOUNCE_SECTORS + 1;
/** What fails is tried once more, block by block and by PIO. */
const ATTEMPTS_MAX: u32 = 2;
/** Headers, and the first piece. */
const LEAST_SECTORS: u64 = 12;
/** A piece is not begun unless there is this many times what it and the last header should take. */
const TIME_FACTOR: u64 = 3;

/** No dump has been made yet in this panic. */
export function clearDumpResult(): void {
  memory.fill(DUMP_RESULT, 0, DUMP_RESULT_BYTES);
  clearFailures();
}

function lbaAt(areaOffset: u64): u32 {
  return load<u32>(DUMP_AREA_FIRST_LBA) + <u32>(areaOffset / SECTOR_BYTES);
}

/** Sectors of the area, tried again behind a fault. Those that were written are durable. */
function move(token: u32, isWrite: bool, areaOffset: u64, sectors: u32, ptr: usize): i32 {
  const flags: u32 = isWrite ? writeFlags(token) : 0;
  let status: i32 = ETIMEDOUT;
  for (let i: u32 = 0; i < ATTEMPTS_MAX; i++) {
    const from = portNowNs(token);
    status = transferBlocks(token, isWrite, lbaAt(areaOffset), sectors, ptr, flags);
    if (status == OK && isWrite) status = makeDurable(token);
    if (!holds(token)) return ECANCELED;
    stream().lastNs = portNowNs(token) - from;
    if (status == OK || status == ENOMEDIUM || isLate(token)) break;
    shadow(token).careful = 1;
    if (leadBack(token) != OK) break;
  }
  return status;
}

/** A slot's header to `ptr`; zeros, if the card has lost it. */
function readHeader(token: u32, slot: u32, ptr: usize): i32 {
  const status = move(token, false, headerOffset(slot), 1, ptr);
  if (status != EIO) return status;
  memory.fill(ptr, 0, SECTOR_BYTES);
  return OK;
}

function writeHeader(token: u32, state: u32, status: i32): i32 {
  const s = stream();
  const r = record();
  buildHeader(state, status, r.firstSequence, r.timeSec, r.timeNsec);
  return move(token, true, headerOffset(s.slot), 1, DUMP_HEADER_BLOCK);
}

/** The other slot shows nothing from now on. */
function clearOther(token: u32): i32 {
  memory.fill(DUMP_HEADER_BLOCK, 0, SECTOR_BYTES);
  return move(token, true, headerOffset(SLOT_BACK - stream().slot), 1, DUMP_HEADER_BLOCK);
}

/** From here to the last header a reader finds a dump that was begun. ETIMEDOUT: too late to begin anything. */
function begin(token: u32): i32 {
  const s = stream();
  if (leftNs(token) / TIME_FACTOR < s.sectorNs * LEAST_SECTORS) return ETIMEDOUT;
  let status = writeHeader(token, DUMP_BEGUN, OK);
  if (status == ECANCELED) return status;
  s.headerNs = s.lastNs;
  if (status == OK && s.clearsOther != 0) status = clearOther(token);
  if (status == ECANCELED) return status;
  store<u32>(DUMP_RESULT_STATE, DUMP_BEGUN);
  return status;
}

/** One more piece. ETIMEDOUT also if it would leave no time for the header. */
function storePiece(token: u32, bytes: u32): i32 {
  const s = stream();
  const sectors = (bytes + SECTOR_BYTES - 1) / SECTOR_BYTES;
  if (leftNs(token) / TIME_FACTOR < s.headerNs + s.sectorNs * sectors) return ETIMEDOUT;
  const at = s.storedBytes;
  if (dumpRead(<u32>at, <u32>(at >> 32), bytes, PANIC_BOUNCE) != bytes) return EFAULT;
  memory.fill(PANIC_BOUNCE + bytes, 0, sectors * SECTOR_BYTES - bytes);
  const status = move(token, true, s.dataOffset + at, sectors, PANIC_BOUNCE);
  if (status != OK) return status;
  // The sum is of what was written, whatever has become of the memory meanwhile.
  s.crc = crc32c(s.crc, PANIC_BOUNCE, bytes);
  s.storedBytes += bytes;
  s.dataNs += s.lastNs;
  s.sectorNs = s.dataNs / ((s.storedBytes + SECTOR_BYTES - 1) / SECTOR_BYTES);
  return OK;
}

/** The data, as far as they come. 0: all of them; ENOENT: all, but a region is not there any more. */
function storePieces(token: u32): i32 {
  const s = stream();
  for (let i: u32 = 0; i < PIECES_MAX; i++) {
    const left = s.roomBytes - s.storedBytes;
    if (left == 0 && s.storedBytes < s.lengthBytes) return ENOSPC;
    if (left == 0) return load<u32>(DUMP_FAILED_GONE) != 0 ? ENOENT : OK;
    const most: u64 = i == 0 ? FIRST_PIECE_BYTES : BOUNCE_SECTORS * SECTOR_BYTES;
    const status = storePiece(token, <u32>(left < most ? left : most));
    if (status != OK) return status;
  }
  return EFBIG;
}

/** The header that makes it a dump, read back and compared. */
function commit(token: u32, status: i32): i32 {
  const state: u32 = status == OK ? DUMP_COMPLETE : DUMP_PARTIAL;
  let written = writeHeader(token, state, status);
  if (written != OK) return written;
  written = move(token, false, headerOffset(stream().slot), 1, VERIFY_BASE);
  if (written != OK) return written;
  if (!bytesEqual(VERIFY_BASE, DUMP_HEADER_BLOCK, SECTOR_BYTES)) return EIO;
  store<u32>(DUMP_RESULT_STATE, state);
  store<u64>(DUMP_RESULT_END_NS, portNowNs(token));
  return status;
}

/** The planned file. */
function storePlan(token: u32): i32 {
  const front: usize = PANIC_HEAD_BLOCK;
  const back: usize = VERIFY_BASE;
  let status = settleCache(token);
  if (status == OK) status = readHeader(token, SLOT_FRONT, front);
  if (status == OK) status = readHeader(token, SLOT_BACK, back);
  if (status != OK) return status;
  const keepsComplete = load<u32>(CONFIG_POLICY) == POLICY_FIRST_WINS;
  if (!chooseSlot(dump().totalBytes, front, back, keepsComplete)) return ENOSPC;
  const s = stream();
  s.sectorNs = record().sectorNs;
  store<u64>(DUMP_RESULT_SEQUENCE, s.sequence);
  store<u64>(DUMP_RESULT_OFFSET, s.dataOffset);
  status = begin(token);
  if (status != OK) return status;
  status = storePieces(token);
  if (!holds(token)) return ECANCELED;
  store<u64>(DUMP_RESULT_STORED_BYTES, s.storedBytes);
  // All data are there, and no time for the header that says so: a dump that was begun, as any that was cut.
  if (isLate(token)) return status == OK ? ETIMEDOUT : status;
  return status == ENOMEDIUM ? status : commit(token, status);
}

/** Step 10: what is registered, into the dump area, if there is one. The record stands whatever becomes of it. */
export function storeDump(token: u32): void {
  if (load<u32>(DUMP_AREA_SECTORS) == 0) return;
  if (!step(token, STEP_STORE_DUMP, load<u32>(DUMP_AREA_FIRST_LBA))) return;
  let status: i32 = EFAULT;
  if (isSound() && areaBytes() > 0) {
    status = panicPlan();
    if (status == OK) {
      store<u64>(DUMP_RESULT_LENGTH_BYTES, dump().totalBytes);
      status = storePlan(token);
      if (!holds(token)) return;
      endPanicPlan();
    }
  }
  mark(MARK_RESULT);
  if (holds(token)) store<u32>(DUMP_RESULT_STATUS, status);
}
