// What a driver must already know when it panics, because it can no longer ask (mmc.md §2.7): the card, its modes,
// the controller's settings, and how long things may take. Written by identification, read by everything. A panic
// begins with a copy of its own, which is the current one from then on (owner.ts): a robbed owner believes what it
// likes.
//
// A belief counts only when the card has said so after the last change that could have altered it: `identified` is 0
// from the first command of an identification until its last read-back, `modesKnown` is 0 from anything that could
// change a mode until the card's register has been read again. What "unknown" means for each field stands in
// docs/DESIGN.md, "What the driver believes" (tests/beliefs.test.ts compares).

import { NEVER } from "../clock";
import { ECANCELED } from "../errno";
import {
  CONFIG_DRIVER_FLAGS,
  DRIVER_BASE,
  DRIVER_CMD23,
  DRIVER_DMA,
  OWNER_COPIES,
  SHADOW_BYTES,
} from "../layout";
import { copyOf, holds, ownerWord } from "../owner";
import { portNowNs, portStartTime } from "./port";

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
  hasCmd23: u32;
  hasReliableWrite: u32;
  hasHpi: u32;
  cacheOn: u32;
  careful: u32; // single blocks by PIO: after a transfer that failed
  version1: u32; // SD: the card did not know CMD8
  hasSwitch: u32; // SD: CMD6, from version 1.10 on
  lastCommand: u32;
  lastR1: u32;
  identified: u32; // identification has ended, and none has begun since: the fields above hold
  modesKnown: u32; // lines, speed and cache are as the card has told, and nothing since can have changed them
  hasCid: u32; // a card was identified once: it must be this one
  pollsLeft: u32; // of an operation with a deadline
  answerLost: u32; // of the operation at hand: a status did not come, and its error bits, told once, are gone
  unflushed: u32; // blocks of the user's were written since the cache was flushed last
  cacheLost: u32; // some of them may be gone, and the user's next flush has to tell
  repeated: u32; // the last CMD6 was sent again, as the status behind it was lost
  isWhole: u32; // 1: this copy was made to its end
  erasesToOnes: u32; // an erased byte reads 0xff: EXT_CSD_ERASED_MEM_CONT, SCR DATA_STAT_AFTER_ERASE
  addressUnit: u32; // what an address counts: 1 sectors, 512 bytes; wrong, it destroys data
  // The first command since forgetRefusal() that was not taken: refusal.ts.
  refused: u32; // 0: none was
  refusedCommand: u32;
  refusedArgument: u32;
  refusedR1: u32; // 0: none came
  refusedStatus: i32; // 0: the R1 has error bits; else the errno in place of an answer
}

function copyAt(index: u32): Shadow {
  return changetype<Shadow>(DRIVER_BASE + (index % OWNER_COPIES) * SHADOW_BYTES);
}

/** The working copy of the owner who has `token`. */
export function shadow(token: u32): Shadow {
  return copyAt(copyOf(token));
}

/** The one that is current, for who reads without being an owner. */
export function currentShadow(): Shadow {
  return shadow(ownerWord());
}

/** Power-up: nothing is known. */
export function beginShadows(): void {
  memory.fill(DRIVER_BASE, 0, OWNER_COPIES * SHADOW_BYTES);
  currentShadow().isWhole = 1;
}

/** A panic has just taken the host: it goes on with what the owner before it knew. */
export function inheritShadow(token: u32): void {
  const own = copyOf(token);
  // The one before it, unless that is of a panic that died before it had come so far.
  const before = copyAt(own + OWNER_COPIES - 1);
  const known = before.isWhole != 0 ? before : copyAt(own + OWNER_COPIES - 2);
  memory.copy(changetype<usize>(copyAt(own)), changetype<usize>(known), offsetof<Shadow>());
  copyAt(own + 1).isWhole = 0;
}

/** What a request has come to: -ECANCELED, whatever it met, if the host was taken from it meanwhile. */
export function outcome(token: u32, status: i32): i32 {
  return holds(token) ? status : ECANCELED;
}

/**
 * What the user wrote may have been lost with the card's cache, whoever was using the card: he is told by his next
 * flush, and by no other.
 */
export function noteCacheLoss(token: u32): void {
  const s = shadow(token);
  if (s.unflushed != 0) s.cacheLost = 1;
}

/** In front of a guest's controller never: the memory that its DMA reaches is the guest's. */
export function usesDma(token: u32): bool {
  if (isDefined(EXTERNAL_BUS)) return false;
  return (load<u32>(CONFIG_DRIVER_FLAGS) & DRIVER_DMA) != 0 && shadow(token).careful == 0;
}

export function usesCmd23(token: u32): bool {
  return (load<u32>(CONFIG_DRIVER_FLAGS) & DRIVER_CMD23) != 0 && shadow(token).hasCmd23 != 0;
}

/** True unless the card has said that its cache is off, or that it has none. */
export function mayCache(token: u32): bool {
  const s = shadow(token);
  return s.kind == KIND_EMMC && (s.cacheOn != 0 || s.modesKnown == 0);
}

/** Another driver than this one may have used the card since: an operating system's, a guest's. */
export function isShared(): bool {
  return isDefined(EXTERNAL_BUS) || isDefined(EXTERNAL_PORT);
}

/**
 * From now on everything ends within `lengthNs`, or after as many polls as such a time has room for and more: a clock
 * may stand still, and the number of polls is all that is left then. Pauses grow to 32 µs (command.ts); one poll
 * every 8 µs is four times that.
 */
export function setDeadline(token: u32, lengthNs: u64): void {
  const s = shadow(token);
  portStartTime();
  s.deadlineNs = portNowNs() + lengthNs;
  s.pollsLeft = 500000 + <u32>(lengthNs / 8000);
}

/** A request without a deadline begins. */
export function clearDeadline(token: u32): void {
  portStartTime();
  shadow(token).deadlineNs = NEVER;
}

/** How long the operation may still take. */
export function leftNs(token: u32): u64 {
  const end = shadow(token).deadlineNs;
  const now = portNowNs();
  return end > now ? end - now : 0;
}

/** True when the operation's time is up, or its host taken. Every wait asks. */
export function isLate(token: u32): bool {
  if (!holds(token)) return true;
  const s = shadow(token);
  return s.deadlineNs != NEVER && (s.pollsLeft == 0 || portNowNs() >= s.deadlineNs);
}

/** One more poll of a wait that ends at `endNs`: true if it was the last one. */
export function isOver(token: u32, endNs: u64): bool {
  if (!holds(token)) return true;
  const s = shadow(token);
  if (s.deadlineNs != NEVER) {
    if (s.pollsLeft == 0) return true;
    s.pollsLeft -= 1;
  }
  return portNowNs() >= endNs;
}

/** The end of a wait of `lengthNs` from now, or the operation's deadline if that comes first. */
export function untilNs(token: u32, lengthNs: u64): u64 {
  const end = portNowNs() + lengthNs;
  const s = shadow(token);
  return end < s.deadlineNs ? end : s.deadlineNs;
}

/** A sector as the card wants it addressed. */
export function addressOf(token: u32, lba: u32): u32 {
  return lba * shadow(token).addressUnit;
}
