// Who holds the host: one word, epoch:20 | panics:4 | id:8. The only file that says `atomic.`.
//
// Id 0 = free, OWNER_PANIC = a panic holds it, any other = a normal owner. A token is the whole word as its holder
// left it, so a holder who was robbed sees it at the next comparison: driver/port.ts makes one before every access.
// Claims start from a free word only; a panic takes the word with one OR and asks nobody: no loop, no wait, and no
// claim can slip in behind it. `panics` counts those that have ended or were robbed, and so tells whose working copy of
// the driver's knowledge is the current one (copyOf()); when it wraps it is the epoch that goes on.
import { OWNER_COPIES, OWNER_WORD } from "./layout";
import { MARK_OWNER, mark } from "./mark";

export const OWNER_PANIC: u32 = 0xff;
const PANIC_COUNT: u32 = 0x100;
const EPOCH: u32 = OWNER_COPIES * PANIC_COUNT;

/** True for the token of a panic. No errno ends like it. */
export function isPanicToken(token: u32): bool {
  return (token & 0xff) == OWNER_PANIC;
}

/** The word as it is now: a token to compare nothing with. */
export function ownerWord(): u32 {
  return atomic.load<u32>(OWNER_WORD);
}

/**
 * Which of OWNER_COPIES working copies is the one of this word's owner. A panic has the one behind that of whoever it
 * robbed, and its successors go on with it: what a robbed owner still stores in his is read by nobody.
 */
export function copyOf(word: u32): u32 {
  return (word / PANIC_COUNT + (isPanicToken(word) ? 1 : 0)) % OWNER_COPIES;
}

/** True while a panic, dead or alive, holds the host. */
export function isPanicking(): bool {
  return isPanicToken(atomic.load<u32>(OWNER_WORD));
}

/** Takes a free host for `id` (1 … 254). Returns the token, or 0 if somebody holds it. */
export function claim(id: u32): u32 {
  const before = atomic.load<u32>(OWNER_WORD);
  if ((before & 0xff) != 0) return 0;
  const token = (before + EPOCH) | id;
  mark(MARK_OWNER);
  return atomic.cmpxchg<u32>(OWNER_WORD, before, token) == before ? token : 0;
}

/** True while `token` still holds the host. */
export function holds(token: u32): bool {
  return atomic.load<u32>(OWNER_WORD) == token;
}

/** Gives the host back; false if it was taken away meanwhile. */
export function release(token: u32): bool {
  mark(MARK_OWNER);
  const ended: u32 = isPanicToken(token) ? EPOCH + PANIC_COUNT : EPOCH;
  return atomic.cmpxchg<u32>(OWNER_WORD, token, (token + ended) & ~0xff) == token;
}

/**
 * Takes the host for a panic, whoever holds it. Returns the word before: an id of OWNER_PANIC =
 * another panic was first.
 */
export function steal(): u32 {
  mark(MARK_OWNER);
  return atomic.or<u32>(OWNER_WORD, OWNER_PANIC);
}

/**
 * Takes the host from the panic that left the word as `before`: its token no longer matches. Returns the new token, or
 * 0 if that panic has just ended, or somebody else was faster.
 */
export function stealFromPanic(before: u32): u32 {
  mark(MARK_OWNER);
  const token = before + EPOCH + PANIC_COUNT;
  return atomic.cmpxchg<u32>(OWNER_WORD, before, token) == before ? token : 0;
}

/** A word that others read while it changes: what was stored before it is there for who sees it. */
export function publish64(ptr: usize, value: u64): void {
  atomic.store<u64>(ptr, value);
}

export function published64(ptr: usize): u64 {
  return atomic.load<u64>(ptr);
}

/** Power-up: nobody holds it, and every old token is void. */
export function freeOwner(): void {
  atomic.store<u32>(OWNER_WORD, (atomic.load<u32>(OWNER_WORD) + EPOCH) & ~0xff);
}
