// The rings' way to the medium, in normal operation and behind a panic's record. A reader trusts a ring's header and
// has no other proof, so the order of writes alone keeps it truthful (FORMAT.md, "The order of writes in a ring"):
// bytes are written where no header shows them; where a full ring shows every byte, the oldest are blanked before the
// header makes them the newest, and only then are the new ones written. Every write here is durable before the next
// begins, and a flush that failed may be repeated from its start. What is written to a ring while it is flushed is
// blank on the medium until its own turn comes.

import { bounce, headBlock } from "./buffers";
import { NORMAL_ID } from "./driver/block";
import { makeDurable, writeFlags } from "./driver/durable";
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
import { claim, holds, isPanicking, release } from "./owner";
import { PSZ_BUFFER_BYTES } from "./pstore/format";
import {
  appendToRing,
  beginRingFlush,
  filledBytes,
  flushEnd,
  flushingBytes,
  newerBytes,
  pendingBytes,
  ring,
  ringCapacity,
  ringCount,
  ringFirstLba,
  ringImage,
  ringSectors,
  ringSignature,
} from "./pstore/ring";

/** Pieces of BOUNCE_SECTORS of the largest ring. */
const PIECES_MAX: u32 = RING_BYTES_MAX / (BOUNCE_SECTORS * SECTOR_BYTES);
/** Up to the zone's end, and from its start. */
const RANGES_MAX: u32 = 2;
/** As block.ts has it for every request. */
const TRIES_MAX: u32 = 3;
/** What a byte is while it is neither old nor new. */
const BLANK: u8 = 0;

/** Bytes `from … until - 1` of a zone become blank, as far as they are among the `bytes` from `first` on at `ptr`. */
function blank(ptr: usize, first: u32, bytes: u32, from: u32, until: u32): void {
  const begin = from > first ? from : first;
  const end = until < first + bytes ? until : first + bytes;
  if (begin < end) memory.fill(ptr + begin - first, BLANK, end - begin);
}

/** `count` bytes from `from` on, the first of them below `zoneEnd`; what is behind that is at the zone's start. */
function blankRound(ptr: usize, first: u32, bytes: u32, from: u32, count: u32, zoneEnd: u32): void {
  const until = from + count;
  blank(ptr, first, bytes, from, until < zoneEnd ? until : zoneEnd);
  if (until > zoneEnd) blank(ptr, first, bytes, PSZ_BUFFER_BYTES, PSZ_BUFFER_BYTES + until - zoneEnd);
}

/**
 * The sectors that hold bytes `from … until - 1` of the zone, durably. The header becomes `datalen` and `start` if the
 * first sector is among them. The bytes that the medium lacks begin at `pendingFrom`; those from `shownUntil` on are
 * blank, and so are those that wrapped to the zone's start: their turn comes.
 */
function writeZone(
  token: u32,
  index: u32,
  from: u32,
  until: u32,
  datalen: u32,
  start: u32,
  pendingFrom: u32,
  shownUntil: u32,
): i32 {
  const ptr = bounce(token);
  const firstSector = from / SECTOR_BYTES;
  const sectors = (until + SECTOR_BYTES - 1) / SECTOR_BYTES - firstSector;
  const pendingUntil = pendingFrom + flushingBytes(index);
  const zoneEnd = ringCapacity(index) + PSZ_BUFFER_BYTES;
  for (let i: u32 = 0; i * BOUNCE_SECTORS < sectors && i < PIECES_MAX; i++) {
    const sector = firstSector + i * BOUNCE_SECTORS;
    const left = sectors - i * BOUNCE_SECTORS;
    const count = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
    const first = sector * SECTOR_BYTES;
    const bytes = count * SECTOR_BYTES;
    memory.copy(ptr, ringImage(index) + first, bytes);
    blank(ptr, first, bytes, shownUntil, pendingUntil < zoneEnd ? pendingUntil : zoneEnd);
    if (pendingUntil > zoneEnd)
      blank(ptr, first, bytes, PSZ_BUFFER_BYTES, PSZ_BUFFER_BYTES + pendingUntil - zoneEnd);
    // Asked behind the copy: of what came while it was made nothing is missed.
    const newer = newerBytes(index);
    if (newer > 0) blankRound(ptr, first, bytes, PSZ_BUFFER_BYTES + flushEnd(index), newer, zoneEnd);
    if (first == 0) {
      store<u32>(ptr, ringSignature(index));
      store<u32>(ptr, datalen, 4);
      store<u32>(ptr, start, 8);
    }
    const status = transferBlocks(token, true, ringFirstLba(index) + sector, count, ptr, writeFlags(token));
    if (status != OK) return status;
  }
  return makeDurable(token);
}

/** The medium has this header. */
function noteHeader(index: u32, datalen: u32, start: u32): void {
  const image = ringImage(index);
  store<u32>(image, ringSignature(index));
  store<u32>(image, datalen, 4);
  store<u32>(image, start, 8);
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

/** Nothing of what the medium has stays: the first flush of a boot, or as many bytes are new as the ring holds. */
function rewriteRing(token: u32, index: u32): i32 {
  const r = ring(index);
  const filled = filledBytes(index);
  const start: u32 = filled == ringCapacity(index) ? flushEnd(index) : 0;
  const until = PSZ_BUFFER_BYTES + filled;
  r.isLive = 0;
  let status = hideZone(token, index);
  // No byte is blank: everything in memory is shown.
  const pendingFrom: u32 = PSZ_BUFFER_BYTES;
  if (status == OK) status = writeZone(token, index, 0, until, 0, start, pendingFrom, until);
  if (status == OK) status = writeZone(token, index, 0, 1, filled, start, pendingFrom, until);
  if (status != OK) return status;
  noteHeader(index, filled, start);
  r.isLive = 1;
  r.flushed = r.flushing;
  return OK;
}

/** The pending bytes up to the zone's end, or all if they end before. */
function extendRing(token: u32, index: u32): i32 {
  const r = ring(index);
  const pending = flushingBytes(index);
  const capacity = ringCapacity(index);
  const image = ringImage(index);
  const datalen = load<u32>(image, 4);
  const start = load<u32>(image, 8);
  const at = datalen < capacity ? datalen : start;
  const count = pending < capacity - at ? pending : capacity - at;
  const from = PSZ_BUFFER_BYTES + at;
  const until = from + count;
  let datalenThen = capacity;
  let startThen: u32 = 0;
  let status = OK;
  if (datalen < capacity) {
    // Behind datalen nobody looks.
    datalenThen = datalen + count;
    status = writeZone(token, index, from, until, datalen, start, from, until);
    if (status == OK) status = writeZone(token, index, 0, 1, datalenThen, 0, from, until);
  } else {
    startThen = (at + count) % capacity;
    status = writeZone(token, index, from, until, datalen, start, from, from);
    if (status == OK) status = writeZone(token, index, 0, 1, datalen, startThen, from, from);
    if (status == OK) status = writeZone(token, index, from, until, datalen, startThen, from, until);
  }
  if (status != OK) return status;
  noteHeader(index, datalenThen, startThen);
  r.flushed += count;
  return OK;
}

/** Everything that had been written to the ring when this began is on the medium when it returns 0. */
export function flushRing(token: u32, index: u32): i32 {
  beginRingFlush(index);
  const pending = flushingBytes(index);
  if (pending == 0) return OK;
  if (ring(index).isLive == 0 || pending == ringCapacity(index)) return rewriteRing(token, index);
  let status: i32 = OK;
  for (let i: u32 = 0; i < RANGES_MAX && flushingBytes(index) > 0 && status == OK; i++)
    status = extendRing(token, index);
  return status;
}

/** No more sectors than this are written by a flush of the ring. */
export function flushSectors(index: u32): u32 {
  return 2 * (pendingBytes(index) / SECTOR_BYTES + 2) + 2 * RANGES_MAX;
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
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  let status: i32 = OK;
  for (let index: u32 = 0; index < ringCount() && index < <u32>RINGS_MAX && status == OK; index++) {
    if (ringSectors(index) == 0) continue;
    for (let i: u32 = 0; i < TRIES_MAX && holds(token); i++) {
      status = flushRing(token, index);
      if (status == OK) break;
    }
  }
  return release(token) ? status : ECANCELED;
}
