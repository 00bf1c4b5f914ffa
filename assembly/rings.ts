// The rings' way to the medium, in normal operation and behind a panic's record. A reader trusts a ring's header and
// has no other proof, so the order of writes alone keeps it truthful (FORMAT.md, "The order of writes in a ring"):
// bytes are written where no header shows them; where a full ring shows every byte, the oldest are blanked before the
// header makes them the newest, and only then are the new ones written. Each step is durable before the next begins. A
// flush that failed or died is not begun anew: it goes on at the step whose end nobody saw, so that nothing that the
// medium shows is ever taken back. What is written to a ring while it is flushed is blank on the medium until its own
// turn comes.

import { headBlock } from "./buffers";
import { claimHost, leadBackFor, TRIES_MAX } from "./driver/block";
import { makeDurable, settleCache, writeFlags } from "./driver/durable";
import { transferBlocks } from "./driver/transfer";
import { EBUSY, ECANCELED, EINVAL, EIO, OK } from "./errno";
import {
  BOUNCE_SECTORS,
  RING_BYTES_MAX,
  RING_INBOX,
  RING_INBOX_BYTES,
  RINGS_MAX,
  SECTOR_BYTES,
} from "./layout";
import { holds, isPanicking, release } from "./owner";
import {
  appendToRing,
  applyStage,
  pendingBytes,
  planExtension,
  planRewrite,
  RING_BODY,
  RING_FILL_FROM_START,
  RING_HEADER,
  RING_HIDE,
  RING_SETTLED,
  ring,
  ringCapacity,
  ringCount,
  ringFirstLba,
  ringOnMedium,
  ringSectors,
  settleRing,
  stageBytes,
  stageFrom,
} from "./pstore/ring";

/** Pieces of BOUNCE_SECTORS of the largest ring. */
const PIECES_MAX: u32 = RING_BYTES_MAX / (BOUNCE_SECTORS * SECTOR_BYTES);
/** From RING_HIDE to RING_FILL_FROM_START. */
const STAGES_MAX: u32 = 8;
/** A flush that died, and what was written to the ring since. */
const PLANS_MAX: u32 = 2;
/** Sectors that a step shares with other bytes: up to the zone's end, and from its start. */
const EDGES: u32 = 4;

/** The sectors that hold the `bytes` from byte `from` of the zone on, as the copy of the medium has them, durably. */
function writeZone(token: u32, index: u32, from: u32, bytes: u32): i32 {
  const firstSector = from / SECTOR_BYTES;
  const sectors = (from + bytes + SECTOR_BYTES - 1) / SECTOR_BYTES - firstSector;
  for (let i: u32 = 0; i * BOUNCE_SECTORS < sectors && i < PIECES_MAX; i++) {
    const sector = firstSector + i * BOUNCE_SECTORS;
    const left = sectors - i * BOUNCE_SECTORS;
    const count = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
    const ptr = ringOnMedium(index) + sector * SECTOR_BYTES;
    const status = transferBlocks(token, true, ringFirstLba(index) + sector, count, ptr, writeFlags(token));
    if (status != OK) return status;
  }
  return makeDurable(token);
}

/**
 * Whatever the zone shows, it shows nothing afterwards, even if the write that follows is torn: datalen is 0 whatever
 * the signature is. A header that cannot be read is written over.
 */
function hideZone(token: u32, index: u32): i32 {
  const lba = ringFirstLba(index);
  const head = headBlock(token);
  const read = transferBlocks(token, false, lba, 1, head, 0);
  if (read != OK && read != EIO) return read;
  if (read == EIO) memory.fill(head, 0, SECTOR_BYTES);
  else if (load<u32>(head, 4) == 0) return OK;
  store<u32>(head, 0, 4);
  const status = transferBlocks(token, true, lba, 1, head, writeFlags(token));
  return status == OK ? makeDurable(token) : status;
}

/** The step at hand, durably. May be done again from its start, wherever it broke off. */
function runStage(token: u32, index: u32): i32 {
  if (ring(index).stage == RING_HIDE) return hideZone(token, index);
  const bytes = stageBytes(index);
  if (bytes == 0) return OK;
  applyStage(index);
  return writeZone(token, index, stageFrom(index), bytes);
}

/** The flush at hand, from the step on that has not come to its end. Whoever lost the host notes nothing more. */
function runStages(token: u32, index: u32): i32 {
  const r = ring(index);
  // A rewrite ends with its header.
  const last = r.isLive != 0 ? RING_FILL_FROM_START : RING_HEADER;
  for (let i: u32 = 0; i < STAGES_MAX; i++) {
    const status = runStage(token, index);
    if (status != OK) return status;
    if (!holds(token)) return ECANCELED;
    if (r.stage >= last) break;
    r.stage = r.stage == RING_BODY ? RING_HEADER : r.stage + 1;
  }
  settleRing(index);
  return OK;
}

/** Everything that had been written to the ring when this began is on the medium when it returns 0. */
export function flushRing(token: u32, index: u32): i32 {
  const r = ring(index);
  if (pendingBytes(index) == 0) return OK;
  const settled = settleCache(token);
  if (settled != OK) return settled;
  for (let i: u32 = 0; i < PLANS_MAX && pendingBytes(index) > 0; i++) {
    if (!holds(token)) return ECANCELED;
    // A zone that is live, or whose header alone may be missing, shows what is acknowledged or about to be: it stays.
    const isAsWritten = r.isLive != 0 || r.stage == RING_HEADER;
    if (!isAsWritten || pendingBytes(index) == ringCapacity(index)) planRewrite(index);
    else if (r.stage == RING_SETTLED) planExtension(index);
    const status = runStages(token, index);
    if (status != OK) return status;
  }
  return OK;
}

/** No more sectors than this are written by a flush of the ring: blanks and bytes with the edges of both, headers. */
export function flushSectors(index: u32): u32 {
  const plans: u32 = ring(index).stage == RING_SETTLED ? 1 : PLANS_MAX;
  return 2 * (pendingBytes(index) / SECTOR_BYTES) + plans * (2 * EDGES + 2);
}

/**
 * Appends `count` (0 … RING_INBOX_BYTES) bytes at RING_INBOX to a ring, in memory; a normal request may be under way.
 * -EINVAL: there is no such ring. -EBUSY: a panic holds the host, and the ring stays as it found it.
 */
export function writeRing(index: u32, count: u32): i32 {
  if (count > <u32>RING_INBOX_BYTES || ringSectors(index) == 0) return EINVAL;
  if (isPanicking()) return EBUSY;
  appendToRing(index, RING_INBOX, count);
  return OK;
}

/**
 * All rings onto the medium. Normal path: -EBUSY if the host is held, -ECANCELED a panic has taken it meanwhile, else
 * what the card or the bus had.
 */
export function flushRings(): i32 {
  const token = claimHost();
  if (token == 0) return EBUSY;
  let status: i32 = OK;
  for (let index: u32 = 0; index < ringCount() && index < <u32>RINGS_MAX && status == OK; index++) {
    if (ringSectors(index) == 0) continue;
    for (let i: u32 = 0; i < TRIES_MAX && holds(token); i++) {
      status = flushRing(token, index);
      if (status == OK) break;
      const back = leadBackFor(token, status, i);
      if (back != OK) {
        status = back;
        break;
      }
    }
  }
  return release(token) ? status : ECANCELED;
}
