// Packed commands of an eMMC (JESD84-B51 §6.6.29): several writes behind one CMD25, or several reads behind one CMD18.
// A block in front of them, the header, names each as the CMD23 and the CMD25 or CMD18 that it would have been:
//
//   byte 0 version (1)   1: 1 = read, 2 = write   2: entries   8 + 8·i: argument of CMD23, of CMD18 or CMD25 (i = 0 …)
//
// Write: CMD23 with bit 30 counts header and all blocks. Read: CMD23 (1) and CMD25 bring the header, the next CMD23
// with bit 30 counts the blocks of the CMD18. A sector is programmed as any other write's is, in the order of the
// header, durable or reliable as its own entry says: what a cut leaves is what it leaves of a plain CMD25.
//
// What fails is told by EXT_CSD_PACKED_COMMAND_STATUS until the next packed command, and by EXCEPTION_EVENT if
// EXCEPTION_EVENTS_CTRL asks for it; entries in front of the one that failed are done, those behind it are not.

import { PACKED_HEADER, SECTOR_BYTES } from "../layout";
import { addressErrors, sectorOf } from "./address";
import {
  EXT_CSD_PACKED_COMMAND_STATUS,
  EXT_CSD_PACKED_FAILURE_INDEX,
  EXT_CSD_WR_REL_PARAM,
  extCsd,
  PACKED_ENTRIES_MAX,
  setExtCsd,
} from "./emmc-registers";
import { card, R1_BLOCK_LEN_ERROR, R1_ERROR, raise } from "./state";

export const COUNT_RELIABLE: u32 = 1 << 31;
export const COUNT_PACKED: u32 = 1 << 30;
const COUNT_FORCED: u32 = 1 << 24;
const EN_REL_WR: u32 = 1 << 2;

const VERSION: u32 = 1;
const READ: u32 = 1;
const WRITE: u32 = 2;

export const PACKED_NONE: u32 = 0;
/** The header of a read has come: the next CMD18 may be its blocks. */
export const PACKED_READ_KNOWN: u32 = 1;
/** Blocks of the entries come in or go out. */
export const PACKED_RUNS: u32 = 2;

const GENERIC_ERROR: u32 = 1;
const INDEXED_ERROR: u32 = 2;

/** R1_BLOCK_LEN_ERROR: without EN_REL_WR a reliable write is REL_WR_SEC_C sectors, which are 1 here. */
export function reliableErrors(countArgument: u32): u32 {
  if ((countArgument & COUNT_RELIABLE) == 0 || (extCsd(EXT_CSD_WR_REL_PARAM) & EN_REL_WR) != 0) return 0;
  return (countArgument & 0xffff) != 1 ? R1_BLOCK_LEN_ERROR : 0;
}

/** The flags of a CMD23 or of an entry: does the sector go past the cache, is it reliable? */
export function takeCountFlags(countArgument: u32): void {
  const c = card();
  c.transferReliable = countArgument >>> 31;
  c.transferDurable = c.transferReliable | ((countArgument & COUNT_FORCED) != 0 ? 1 : 0);
}

/** A packed command begins: what the one before failed with is forgotten. */
export function beginPacked(): void {
  setExtCsd(EXT_CSD_PACKED_COMMAND_STATUS, 0);
  setExtCsd(EXT_CSD_PACKED_FAILURE_INDEX, 0);
}

/** `entry`: 1 …, or 0 if it is none's fault. The first failure is the one that is told. */
export function failPacked(entry: u32): void {
  if (extCsd(EXT_CSD_PACKED_COMMAND_STATUS) != 0) return;
  setExtCsd(EXT_CSD_PACKED_COMMAND_STATUS, GENERIC_ERROR | (entry != 0 ? INDEXED_ERROR : 0));
  setExtCsd(EXT_CSD_PACKED_FAILURE_INDEX, entry);
}

/** The entry under way has failed, if one is. */
export function failPackedEntry(): void {
  if (card().packed == PACKED_RUNS) failPacked(card().packedEntry);
}

function countOf(entry: u32): u32 {
  return load<u32>(PACKED_HEADER + (entry << 3));
}

function addressOf(entry: u32): u32 {
  return load<u32>(PACKED_HEADER + (entry << 3), 4);
}

function entries(): u32 {
  return load<u8>(PACKED_HEADER, 2);
}

/** Blocks of all entries together; 0: the header cannot be one of `direction`. */
function blocksOf(direction: u32): u32 {
  const isKnown = load<u8>(PACKED_HEADER) == VERSION && load<u8>(PACKED_HEADER, 1) == direction;
  if (!isKnown || entries() > PACKED_ENTRIES_MAX) return 0;
  let blocks: u32 = 0;
  for (let entry: u32 = 1; entry <= entries() && entry <= PACKED_ENTRIES_MAX; entry++) {
    const count = countOf(entry);
    if ((count & 0xffff) == 0 || (count & COUNT_PACKED) != 0) return 0;
    blocks += count & 0xffff;
  }
  return blocks;
}

/** The next block belongs to this entry; one that cannot be ends the transfer, and R1 says why. */
function openEntry(entry: u32, isWrite: bool): void {
  const c = card();
  c.packedEntry = entry;
  c.packedLeft = countOf(entry) & 0xffff;
  let errors = addressErrors(addressOf(entry));
  if (errors == 0 && isWrite) errors = reliableErrors(countOf(entry));
  if (errors != 0) {
    raise(errors);
    failPackedEntry();
    c.transferIgnored = 1;
    return;
  }
  takeCountFlags(countOf(entry));
  c.transferLba = sectorOf(addressOf(entry));
}

function run(isWrite: bool): void {
  card().packed = PACKED_RUNS;
  openEntry(1, isWrite);
}

/** CMD18 behind a CMD23 with bit 30: true if the header that came before is that of a read of `count` blocks. */
export function isPackedRead(count: u32): bool {
  return card().packed == PACKED_READ_KNOWN && blocksOf(READ) == count;
}

export function runPackedRead(): void {
  run(false);
}

/**
 * The header has come in whole, and `blocksBehind` blocks are to follow. True: they are those of its entries, or none
 * and it is a read's. Else nothing more is taken until CMD12.
 */
export function takePackedHeader(ptr: usize, blocksBehind: u32): bool {
  const c = card();
  memory.copy(PACKED_HEADER, ptr, SECTOR_BYTES);
  if (blocksBehind == 0 && blocksOf(READ) > 0) {
    c.packed = PACKED_READ_KNOWN;
    return true;
  }
  if (blocksBehind > 0 && blocksOf(WRITE) == blocksBehind) {
    run(true);
    return true;
  }
  raise(R1_ERROR);
  failPacked(0);
  return false;
}

/** A block of the entry under way has come or gone; behind its last one comes the next entry. */
export function stepPacked(isWrite: bool): void {
  const c = card();
  if (c.packed != PACKED_RUNS) return;
  c.packedLeft -= 1;
  if (c.packedLeft == 0 && c.packedEntry < entries()) openEntry(c.packedEntry + 1, isWrite);
}
