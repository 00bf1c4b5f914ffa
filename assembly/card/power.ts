// The card's supply: what is lost with it, what it finds when it returns, and which card it then is.

import { CARD_BASE, CARD_BLOCK, CONFIG_ABORT_OUTCOME, TRACE_POWER } from "../layout";
import { traceAt } from "../trace";
import { dropBusy } from "./busy";
import { cutUnsettled, settleFlash } from "./flash";
import { seal128 } from "./register-bits";
import { resetVolatileRegisters } from "./registers";
import { Card, card, isEmmc, STATE_IDLE } from "./state";

/**
 * The supply goes. What was in programming ends as `outcome` (CUT_*); bit i of `cacheMask` keeps the
 * i-th oldest cached sector, and of those in flight behind their busy likewise.
 */
export function powerOff(outcome: u32, cacheMask: u64, timeNs: u64): void {
  const c = card();
  if (c.power == 0) return;
  dropBusy(outcome, cacheMask, timeNs);
  cutUnsettled(outcome, cacheMask);
  c.power = 0;
  traceAt(timeNs, TRACE_POWER, 0, 0, 0);
}

/** The supply comes: idle, 1 line, default speed, everything volatile forgotten. */
export function powerOn(timeNs: u64): void {
  const c = card();
  if (c.power != 0) return;
  const pulled = c.pulled;
  memory.fill(CARD_BASE, 0, offsetof<Card>("cid0"));
  settleFlash();
  c.pulled = pulled;
  c.power = 1;
  c.state = STATE_IDLE;
  c.rca = isEmmc() ? 1 : 0;
  c.busWidth = 1;
  resetVolatileRegisters(true);
  traceAt(timeNs, TRACE_POWER, 1, 0, 0);
}

/** A brown-out: the supply was gone for a moment, and nobody told the host. */
export function loseSupply(timeNs: u64): void {
  powerOff(load<u32>(CONFIG_ABORT_OUTCOME), 0, timeNs);
  powerOn(timeNs);
}

/** Another card of the same make and content: bit 40 of the CID is in the serial number of both kinds. */
export function swapIdentity(): void {
  const c = card();
  c.cid1 ^= 1 << 8;
  seal128(changetype<usize>(c) + offsetof<Card>("cid0"), CARD_BLOCK);
}
