// How a write becomes durable when it is done, whatever the card has: reliable write, forced programming, or a flush.
import { OK } from "../errno";
import { mayCache, shadow, usesCmd23 } from "./shadow";
import { flushCache } from "./switch";
import { WRITE_FORCED, WRITE_RELIABLE } from "./transfer";

/** CMD23's way past the write cache: reliable write, else forced programming; 0 if it must be a flush. */
export function writeFlags(): u32 {
  if (shadow().hasReliableWrite != 0) return WRITE_RELIABLE;
  return mayCache() && usesCmd23() ? WRITE_FORCED : 0;
}

/** What has been written with writeFlags() is on the medium, not in a cache. */
export function makeDurable(): i32 {
  return writeFlags() != 0 ? OK : flushCache();
}
