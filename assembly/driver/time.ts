// The driver's own time. A clock may stand still, jump, run backwards or wrap, and nothing may hang or end early by it:
// its steps count as far as they can be true, judged by what was done between two looks at it (pauses asked for,
// register accesses). A clock that was caught is not asked again in this operation: what counts then are the pauses
// and accesses themselves, which is less than what passes, so polls are bounded by number too (shadow.ts).

import { DRIVER_BASE, SHADOW_BYTES } from "../layout";
import { copyOf } from "../owner";

/** A step is possible up to this much for work of the CPU alone … */
const STEP_NS: u64 = 10000000;
/** … and so many times the pauses that were asked for … */
const PAUSE_FACTOR: u64 = 8;
/** … and this much for each register access. */
const ACCESS_NS_MAX: u64 = 1000000;
/** What an access counts when the clock is not to be believed. */
const ACCESS_NS: u64 = 1000;
/** Own time begins at the clock's, below this: `now + length` never wraps. */
const START_MASK: u64 = 0x3fffffffffffffff;

// @ts-expect-error: decorator
@unmanaged
class OwnTime {
  clockNs: u64; // the clock at the last look
  ownNs: u64;
  askedNs: u64; // pauses since then
  accesses: u32; // since then
  isCaught: u32; // the clock has lied in this operation
}

/** Where it stands in each owner's copy, behind his Shadow: a robbed owner counts his own. */
export const TIME_OFFSET: u32 = 0xc0;

function own(token: u32): OwnTime {
  return changetype<OwnTime>(DRIVER_BASE + copyOf(token) * SHADOW_BYTES + TIME_OFFSET);
}

/** An operation begins: whatever the clock did meanwhile, it is right. */
export function startTime(token: u32, clockNs: u64): void {
  const t = own(token);
  t.clockNs = clockNs;
  t.ownNs = clockNs & START_MASK;
  t.askedNs = 0;
  t.accesses = 0;
  t.isCaught = 0;
}

export function noteAccess(token: u32): void {
  own(token).accesses += 1;
}

export function notePause(token: u32, lengthNs: u32): void {
  own(token).askedNs += lengthNs;
}

/** The time, when the clock says `clockNs`: never less than before, and never behind the pauses that were made. */
export function ownTimeNs(token: u32, clockNs: u64): u64 {
  const t = own(token);
  const stepNs = clockNs - t.clockNs; // backwards: huge
  const mostNs = STEP_NS + PAUSE_FACTOR * t.askedNs + ACCESS_NS_MAX * t.accesses;
  if (stepNs > mostNs) t.isCaught = 1;
  if (t.isCaught != 0) t.ownNs += t.askedNs + ACCESS_NS * t.accesses;
  else t.ownNs += stepNs > t.askedNs ? stepNs : t.askedNs;
  t.clockNs = clockNs;
  t.askedNs = 0;
  t.accesses = 0;
  return t.ownNs;
}
