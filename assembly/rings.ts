// The rings' way to the medium, in normal operation and behind a panic's record. A reader trusts a ring's header and
// has no other proof, so the order of writes alone keeps it truthful (FORMAT.md, "The order of writes in a ring"):
// bytes are written where no header shows them; where a full ring shows every byte, the oldest are blanked before the
// header makes them the newest, and only then are the new ones written. Every write here is durable before the next
// begins, and a flush that failed may be repeated from its start.

import { claimHost, leadBackFor, TRIES_MAX } from "./driver/block";
import { makeDurable, writeFlags } from "./driver/durable";
import { transferBlocks } from "./driver/transfer";
import { EBUSY, EINVAL, EIO, OK } from "./errno";
import {
  BOUNCE_BASE,
  BOUNCE_SECTORS,
  HEAD_BLOCK,
  RING_BYTES_MAX,
  RINGS_MAX,
  SECTOR_BYTES,
  TEXT_BASE,
  TEXT_BYTES_MAX,
} from "./layout";
import { holds, release } from "./owner";
import { PSZ_BUFFER_BYTES } from "./pstore/format";
import {
  appendToRing,
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
/** What a byte is while it is neither old nor new. */
const BLANK: u8 = 0;

/** Bytes `from … until - 1` of a zone become blank, as far as they are among the `bytes` from `first` on at BOUNCE. */
function blank(first: u32, bytes: u32, from: u32, until: u32): void {
  const begin = from > first ? from : first;
  const end = until < first + bytes ? until : first + bytes;
  if (begin < end) memory.fill(BOUNCE_BASE + begin - first, BLANK, end - begin);
}

/**
 * The sectors that hold bytes `from … until - 1` of the zone, durably. The header becomes `datalen` and `start` if the
 * first sector is among them. The bytes that the medium lacks begin at `pendingFrom`; those from `shownUntil` on are
 * blank, and so are those that wrapped to the zone's start: their turn comes.
 */
function writeZone(
  index: u32,
  from: u32,
  until: u32,
  datalen: u32,
  start: u32,
  pendingFrom: u32,
  shownUntil: u32,
): i32 {
  const r = ring(index);
  const firstSector = from / SECTOR_BYTES;
  const sectors = (until + SECTOR_BYTES - 1) / SECTOR_BYTES - firstSector;
  const pendingUntil = pendingFrom + r.pendingBytes;
  const zoneEnd = ringCapacity(index) + PSZ_BUFFER_BYTES;
  for (let i: u32 = 0; i * BOUNCE_SECTORS < sectors && i < PIECES_MAX; i++) {
    const sector = firstSector + i * BOUNCE_SECTORS;
    const left = sectors - i * BOUNCE_SECTORS;
    const count = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
    const first = sector * SECTOR_BYTES;
    const bytes = count * SECTOR_BYTES;
    memory.copy(BOUNCE_BASE, ringImage(index) + first, bytes);
    blank(first, bytes, shownUntil, pendingUntil < zoneEnd ? pendingUntil : zoneEnd);
    if (pendingUntil > zoneEnd)
      blank(first, bytes, PSZ_BUFFER_BYTES, PSZ_BUFFER_BYTES + pendingUntil - zoneEnd);
    if (first == 0) {
      store<u32>(BOUNCE_BASE, ringSignature(index));
      store<u32>(BOUNCE_BASE, datalen, 4);
      store<u32>(BOUNCE_BASE, start, 8);
    }
    const status = transferBlocks(true, ringFirstLba(index) + sector, count, BOUNCE_BASE, writeFlags());
    if (status != OK) return status;
  }
  return makeDurable();
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
function hideZone(index: u32): i32 {
  const lba = ringFirstLba(index);
  const read = transferBlocks(false, lba, 1, HEAD_BLOCK, 0);
  if (read != OK && read != EIO) return read;
  if (read == EIO) memory.fill(HEAD_BLOCK, 0, SECTOR_BYTES);
  else if (load<u32>(HEAD_BLOCK, 4) == 0) return OK;
  store<u32>(HEAD_BLOCK, 0, 4);
  const status = transferBlocks(true, lba, 1, HEAD_BLOCK, writeFlags());
  return status == OK ? makeDurable() : status;
}

/** Nothing of what the medium has stays: the first flush of a boot, or as many bytes are new as the ring holds. */
function rewriteRing(index: u32): i32 {
  const r = ring(index);
  const start: u32 = r.filledBytes == ringCapacity(index) ? r.next : 0;
  const until = PSZ_BUFFER_BYTES + r.filledBytes;
  r.isLive = 0;
  let status = hideZone(index);
  // No byte is blank: everything in memory is shown.
  const pendingFrom: u32 = PSZ_BUFFER_BYTES;
  if (status == OK) status = writeZone(index, 0, until, 0, start, pendingFrom, until);
  if (status == OK) status = writeZone(index, 0, 1, r.filledBytes, start, pendingFrom, until);
  if (status != OK) return status;
  noteHeader(index, r.filledBytes, start);
  r.isLive = 1;
  r.pendingBytes = 0;
  return OK;
}

/** The pending bytes up to the zone's end, or all if they end before. */
function extendRing(index: u32): i32 {
  const r = ring(index);
  const capacity = ringCapacity(index);
  const image = ringImage(index);
  const datalen = load<u32>(image, 4);
  const start = load<u32>(image, 8);
  const at = datalen < capacity ? datalen : start;
  const count = r.pendingBytes < capacity - at ? r.pendingBytes : capacity - at;
  const from = PSZ_BUFFER_BYTES + at;
  const until = from + count;
  let datalenThen = capacity;
  let startThen: u32 = 0;
  let status = OK;
  if (datalen < capacity) {
    // Behind datalen nobody looks.
    datalenThen = datalen + count;
    status = writeZone(index, from, until, datalen, start, from, until);
    if (status == OK) status = writeZone(index, 0, 1, datalenThen, 0, from, until);
  } else {
    startThen = (at + count) % capacity;
    status = writeZone(index, from, until, datalen, start, from, from);
    if (status == OK) status = writeZone(index, 0, 1, datalen, startThen, from, from);
    if (status == OK) status = writeZone(index, from, until, datalen, startThen, from, until);
  }
  if (status != OK) return status;
  noteHeader(index, datalenThen, startThen);
  r.pendingBytes -= count;
  return OK;
}

/** Everything that was written to the ring is on the medium when this returns 0. */
export function flushRing(index: u32): i32 {
  const r = ring(index);
  if (r.pendingBytes == 0) return OK;
  if (r.isLive == 0 || r.pendingBytes == ringCapacity(index)) return rewriteRing(index);
  let status: i32 = OK;
  for (let i: u32 = 0; i < RANGES_MAX && r.pendingBytes > 0 && status == OK; i++) status = extendRing(index);
  return status;
}

/** No more sectors than this are written by a flush of the ring. */
export function flushSectors(index: u32): u32 {
  return 2 * (ring(index).pendingBytes / SECTOR_BYTES + 2) + 2 * RANGES_MAX;
}

/** Appends `count` (0 … TEXT_BYTES_MAX) bytes at TEXT to a ring, in memory. -EINVAL: there is no such ring. */
export function writeRing(index: u32, count: u32): i32 {
  if (count > <u32>TEXT_BYTES_MAX || ringSectors(index) == 0) return EINVAL;
  appendToRing(index, TEXT_BASE, count);
  return OK;
}

/** All rings onto the medium. Normal path: -EBUSY if the host is held, else what the card or the bus had. */
export function flushRings(): i32 {
  const token = claimHost();
  if (token == 0) return EBUSY;
  let status: i32 = OK;
  for (let index: u32 = 0; index < ringCount() && index < <u32>RINGS_MAX && status == OK; index++) {
    if (ringSectors(index) == 0) continue;
    for (let i: u32 = 0; i < TRIES_MAX && holds(token); i++) {
      status = flushRing(index);
      if (status == OK) break;
      const back = leadBackFor(status, i);
      if (back != OK) {
        status = back;
        break;
      }
    }
  }
  release(token);
  return status;
}
