// How a write becomes durable when it is done, whatever the card has: reliable write, forced programming, or a flush.
import { EIO, OK } from "../errno";
import { mayCache, shadow, usesCmd23 } from "./shadow";
import { flushCache } from "./switch";
import { WRITE_FORCED, WRITE_RELIABLE } from "./transfer";

/** CMD23's way past the write cache: reliable write, else forced programming; 0 if it must be a flush. */
export function writeFlags(token: u32): u32 {
  if (shadow(token).hasReliableWrite != 0) return WRITE_RELIABLE;
  return mayCache(token) && usesCmd23(token) ? WRITE_FORCED : 0;
}

/** What has been written with writeFlags(token) is on the medium, not in a cache. */
export function makeDurable(token: u32): i32 {
  return writeFlags(token) != 0 ? OK : flushCache(token);
}

/** Flushes that may tell of sectors of others which cannot be stored. */
const SETTLE_MAX: u32 = 4;

/**
 * For a writer whose sectors become durable by a flush, before his first one: what others have left in the cache is on
 * the medium, or lost and noted for whoever wrote it. What his own flush tells then is about his own sectors. Without a
 * cache, or with a way past it, there is nothing to do.
 */
export function settleCache(token: u32): i32 {
  if (writeFlags(token) != 0) return OK;
  for (let i: u32 = 0; i < SETTLE_MAX; i++) {
    const status = flushCache(token);
    if (status != EIO) return status;
  }
  return OK;
}
