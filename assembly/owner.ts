// Who holds the host: one word, epoch:24 | id:8. The only file that says `atomic.`.
//
// Id 0 = free, OWNER_PANIC = a panic holds it, any other = a normal owner. A token is the whole word as its holder
// left it, so a holder who was robbed sees it at the next comparison. Claims start from a free word only; a
// panic takes the word with one OR and asks nobody: no loop, no wait, and no claim can slip in behind it.
import { OWNER_WORD } from "./layout";
import { MARK_OWNER, mark } from "./mark";

export const OWNER_PANIC: u32 = 0xff;
const EPOCH: u32 = 0x100;

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
  return atomic.cmpxchg<u32>(OWNER_WORD, token, (token + EPOCH) & ~0xff) == token;
}

/**
 * Takes the host for a panic, whoever holds it. Returns the word before: an id of OWNER_PANIC =
 * another panic was first.
 */
export function steal(): u32 {
  mark(MARK_OWNER);
  return atomic.or<u32>(OWNER_WORD, OWNER_PANIC);
}

/** Takes the host from a panic that died: its token no longer matches. Returns the new token. */
export function stealFromPanic(): u32 {
  mark(MARK_OWNER);
  return atomic.add<u32>(OWNER_WORD, EPOCH) + EPOCH;
}

/** Power-up: nobody holds it, and every old token is void. */
export function freeOwner(): void {
  atomic.store<u32>(OWNER_WORD, (atomic.load<u32>(OWNER_WORD) + EPOCH) & ~0xff);
}
