// Blocks of a multi-block transfer that nothing but their number sets apart from the one before: no fault, no noise, no
// cache, no stall, no group that protects itself, not the last. A guest's controller moves them at once (../sdhci/
// stretch.ts); what they leave in the card is what as many calls of sendBlock() or receiveBlock() leave.

import {
  CONFIG_NEXT_READ_NS,
  CONFIG_PROGRAM_NS,
  CONFIG_ROLLBACK_SECTORS,
  CONFIG_SETTLE_NS,
  CONFIG_STALL_EVERY,
  CONFIG_TRACE,
  FAULTS_COUNT,
} from "../layout";
import { damage } from "./flash";
import { mediumPlace, mediumReadRun, mediumSectors, mediumWriteRun } from "./medium";
import { PACKED_NONE } from "./packed";
import { isWriteProtected } from "./sd-protect";
import { card, isEmmc, OPEN_ENDED, SOURCE_MEDIUM, STATE_DATA, STATE_RCV } from "./state";
import { isProtected } from "./write-protect";

function writesAreEven(): bool {
  if (load<u32>(CONFIG_STALL_EVERY) != 0) return false;
  return load<u32>(CONFIG_SETTLE_NS) == 0 && load<u32>(CONFIG_ROLLBACK_SECTORS) == 0;
}

/** Behind a block that went through: how many of the next `most`, a page's at most, go like it. */
export function evenBlocks(most: u32): u32 {
  const c = card();
  if (load<u32>(FAULTS_COUNT) != 0 || load<u32>(CONFIG_TRACE) != 0 || damage().unreadable != 0) return 0;
  if (c.transferSource != SOURCE_MEDIUM) return 0;
  // With the cache on the block before lies in it, unless it went past it, as each of these will.
  if (c.packed != PACKED_NONE || c.cacheCount != 0) return 0;
  if (c.state != STATE_DATA && (c.state != STATE_RCV || !writesAreEven())) return 0;
  // The last block of a count ends the transfer.
  let blocks = most < c.transferLeft - 1 ? most : c.transferLeft - 1;
  const sectors = mediumSectors(c.partition);
  const toEnd = c.transferLba < sectors ? sectors - c.transferLba : 0;
  if (blocks > toEnd) blocks = toEnd;
  if (blocks == 0 || c.state == STATE_DATA) return blocks;
  // Groups are larger than a stretch: it lies in two at most.
  const last = c.transferLba + blocks - 1;
  const isKept = isEmmc()
    ? isProtected(c.partition, c.transferLba) || isProtected(c.partition, last)
    : isWriteProtected(c.transferLba) || isWriteProtected(last);
  return isKept ? 0 : blocks;
}

/** Where the next `blocks` lie, to be read or written in place; 0: nowhere in this memory. */
export function placeOfEven(blocks: u32): usize {
  const c = card();
  return mediumPlace(c.partition, c.transferLba, c.state == STATE_DATA ? 0 : blocks);
}

/** The next `blocks` of a read to `ptr`, of a write from there: nothing else changes. False: go on one by one. */
export function copyEven(ptr: usize, blocks: u32): bool {
  const c = card();
  if (c.state == STATE_DATA) return mediumReadRun(c.partition, c.transferLba, blocks, ptr);
  return mediumWriteRun(c.partition, c.transferLba, blocks, ptr);
}

/** They have gone through, the last one at `endNs`. */
export function passEven(blocks: u32, endNs: u64): void {
  const c = card();
  c.transferLba += blocks;
  if (c.transferLeft != OPEN_ENDED) c.transferLeft -= blocks;
  if (c.state == STATE_DATA) {
    c.blockDueNs = endNs + nextReadNs();
    return;
  }
  c.opLba = c.transferLba - 1;
  c.opUntilNs = endNs;
  c.workNs = endNs;
  c.writtenBlocks += blocks;
  c.unkemptSectors += blocks;
  damage().programCount += blocks;
}

/** From the end of a block to the earliest start of the next. */
export function nextReadNs(): u64 {
  return load<u32>(CONFIG_NEXT_READ_NS);
}

/** How long the card is busy with each. */
export function programNs(): u64 {
  return load<u32>(CONFIG_PROGRAM_NS);
}
