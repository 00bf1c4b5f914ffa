// The eMMC's volatile write cache: a FIFO of sectors, oldest first. A sector written again becomes the newest, so that
// nothing lands before what was written before it (EXT_CSD_CACHE_FLUSH_POLICY 1).

import { CHECK_CACHE_FULL, check } from "../check";
import {
  CACHE_DATA,
  CACHE_LBAS,
  CACHE_PARTITIONS,
  CACHE_SECTORS_MAX,
  CONFIG_CACHE_AT_RESET,
  CONFIG_CACHE_SECTORS,
  SECTOR_BYTES,
} from "../layout";
import { flashWrite } from "./flash";
import { card } from "./state";

export function cacheIsFull(): bool {
  return card().cacheCount >= load<u32>(CONFIG_CACHE_SECTORS);
}

/** True if room must be made before this sector can be put. */
export function cacheMustEvict(partition: u32, lba: u32): bool {
  return cacheIsFull() && cacheFind(partition, lba) < 0;
}

/** Index of a cached sector, or -1. */
export function cacheFind(partition: u32, lba: u32): i32 {
  const count = card().cacheCount;
  for (let i: u32 = 0; i < count && i < <u32>CACHE_SECTORS_MAX; i++) {
    if (load<u32>(i << 2, CACHE_LBAS) == lba && load<u32>(i << 2, CACHE_PARTITIONS) == partition) return i;
  }
  return -1;
}

export function cacheBlock(index: u32): usize {
  return CACHE_DATA + index * SECTOR_BYTES;
}

export function cachePut(partition: u32, lba: u32, ptr: usize): void {
  cacheForget(partition, lba);
  check(!cacheIsFull(), CHECK_CACHE_FULL);
  const c = card();
  const index = c.cacheCount;
  c.cacheCount = index + 1;
  store<u32>(index << 2, lba, CACHE_LBAS);
  store<u32>(index << 2, partition, CACHE_PARTITIONS);
  memory.copy(cacheBlock(index), ptr, SECTOR_BYTES);
}

/** Forgets one entry; those behind it move up. */
export function cacheDrop(index: u32): void {
  const c = card();
  const after = c.cacheCount - index - 1;
  memory.copy(CACHE_LBAS + (index << 2), CACHE_LBAS + ((index + 1) << 2), after << 2);
  memory.copy(CACHE_PARTITIONS + (index << 2), CACHE_PARTITIONS + ((index + 1) << 2), after << 2);
  memory.copy(cacheBlock(index), cacheBlock(index + 1), after * SECTOR_BYTES);
  c.cacheCount -= 1;
}

/** A sector that went past the cache: an older copy in it must not overwrite it later. */
export function cacheForget(partition: u32, lba: u32): void {
  const found = cacheFind(partition, lba);
  if (found >= 0) cacheDrop(found);
}

/** Erased sectors: no copy of them may come back. */
export function cacheForgetRange(partition: u32, first: u32, last: u32): void {
  const count = card().cacheCount;
  for (let i: u32 = 0; i < count && i < <u32>CACHE_SECTORS_MAX; i++) {
    // From the newest down, so that those not looked at yet stay where they are.
    const index = count - 1 - i;
    const lba = load<u32>(index << 2, CACHE_LBAS);
    const isInside = lba >= first && lba <= last;
    if (isInside && load<u32>(index << 2, CACHE_PARTITIONS) == partition) cacheDrop(index);
  }
}

/** The oldest sector goes to the flash, `isFinal` past taking back. False if the medium refused it. */
export function cacheWriteOldest(isFinal: bool): bool {
  const stored = flashWrite(load<u32>(CACHE_PARTITIONS), load<u32>(CACHE_LBAS), cacheBlock(0), isFinal);
  card().unkemptSectors += 1;
  cacheDrop(0);
  return stored;
}

/** The mask of all sectors; one for each of CACHE_SECTORS_MAX has a bit in 64. */
export const CACHE_KEEP_ALL: u64 = ~(<u64>0);

/**
 * Those whose bit is set in `mask`, the oldest sector's being bit 0, go to the flash at once; the others are gone. A
 * cache kept over a reset, or a power cut that was survived.
 */
export function cacheWriteAll(mask: u64): void {
  const count = card().cacheCount;
  for (let i: u32 = 0; i < count && i < <u32>CACHE_SECTORS_MAX; i++) {
    if (((mask >>> i) & 1) != 0) cacheWriteOldest(true);
    else cacheDrop(0);
  }
}

/** Which cached sectors CMD0 and RST_n leave: all or none, as CONFIG says. */
export function cacheKeptAtReset(): u64 {
  return load<u32>(CONFIG_CACHE_AT_RESET) != 0 ? CACHE_KEEP_ALL : 0;
}
