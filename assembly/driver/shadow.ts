// What a driver must already know when it panics, because it can no longer ask (mmc.md §2.7): the card, its modes,
// the controller's settings, and how long things may take. Written by enumeration, read by everything.

import { NEVER } from "../clock";
import { CONFIG_DRIVER_FLAGS, DRIVER_BASE, DRIVER_CMD23, DRIVER_DMA } from "../layout";
import { portNowNs } from "./port";

export const KIND_UNKNOWN: u32 = 0;
export const KIND_EMMC: u32 = 1;
export const KIND_SD: u32 = 2;

// @ts-expect-error: decorator
@unmanaged
export class Shadow {
  deadlineNs: u64; // of the whole operation; NEVER = none
  kind: u32;
  rca: u32;
  sectors: u32;
  cid0: u32; // as SDHCI_RESPONSE has it: bits 127:8 in 119:0
  cid1: u32;
  cid2: u32;
  cid3: u32;
  busWidth: u32;
  highSpeed: u32;
  clockControl: u32; // SDHCI_CLOCK_CONTROL
  hostControl: u32; // SDHCI_HOST_CONTROL without the DMA bits
  bootPartitionConfig: u32; // EXT_CSD_PARTITION_CONFIG without the access bits
  hasCmd23: u32;
  hasReliableWrite: u32;
  hasHpi: u32;
  cacheOn: u32;
  careful: u32; // single blocks by PIO: after a transfer that failed
  version1: u32; // SD: the card did not know CMD8
  hasSwitch: u32; // SD: CMD6, from version 1.10 on
  lastCommand: u32;
  lastR1: u32;
  identified: u32; // a card was identified once: it must be this one
  pollsLeft: u32; // of an operation with a deadline
  answerLost: u32; // of the operation at hand: a status did not come, and its error bits, told once, are gone
  unflushed: u32; // blocks were written since the cache was flushed last
  cacheLost: u32; // the card was started again with such blocks in its cache
  addressUnit: u32; // what an address counts: 1 sectors, 512 bytes; wrong, it destroys data
  // The first command since forgetRefusal() that was not taken: refusal.ts.
  refused: u32; // 0: none was
  refusedCommand: u32;
  refusedArgument: u32;
  refusedR1: u32; // 0: none came
  refusedStatus: i32; // 0: the R1 has error bits; else the errno in place of an answer
}

export function shadow(): Shadow {
  return changetype<Shadow>(DRIVER_BASE);
}

/** In front of a guest's controller never: the memory that its DMA reaches is the guest's. */
export function usesDma(): bool {
  if (isDefined(EXTERNAL_BUS)) return false;
  return (load<u32>(CONFIG_DRIVER_FLAGS) & DRIVER_DMA) != 0 && shadow().careful == 0;
}

export function usesCmd23(): bool {
  return (load<u32>(CONFIG_DRIVER_FLAGS) & DRIVER_CMD23) != 0 && shadow().hasCmd23 != 0;
}

/**
 * From now on everything ends within `lengthNs`, or after as many polls as such a time has room for and more: a clock
 * may stand still, and the number of polls is all that is left then. Pauses grow to 32 µs (command.ts); one poll
 * every 8 µs is four times that.
 */
export function setDeadline(lengthNs: u64): void {
  const s = shadow();
  s.deadlineNs = portNowNs() + lengthNs;
  s.pollsLeft = 500000 + <u32>(lengthNs / 8000);
}

export function clearDeadline(): void {
  shadow().deadlineNs = NEVER;
}

/** How long the operation may still take. */
export function leftNs(): u64 {
  const end = shadow().deadlineNs;
  const now = portNowNs();
  return end > now ? end - now : 0;
}

/** True when the operation's time is up. Every wait asks. */
export function isLate(): bool {
  const s = shadow();
  return s.deadlineNs != NEVER && (s.pollsLeft == 0 || portNowNs() >= s.deadlineNs);
}

/** One more poll of a wait that ends at `endNs`: true if it was the last one. */
export function isOver(endNs: u64): bool {
  const s = shadow();
  if (s.deadlineNs != NEVER) {
    if (s.pollsLeft == 0) return true;
    s.pollsLeft -= 1;
  }
  return portNowNs() >= endNs;
}

/** The end of a wait of `lengthNs` from now, or the operation's deadline if that comes first. */
export function untilNs(lengthNs: u64): u64 {
  const end = portNowNs() + lengthNs;
  const s = shadow();
  return end < s.deadlineNs ? end : s.deadlineNs;
}

/** A sector as the card wants it addressed. */
export function addressOf(lba: u32): u32 {
  return lba * shadow().addressUnit;
}
