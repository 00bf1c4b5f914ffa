// The card as the bus sees it: lines, clock, commands, blocks, busy, power. The controller imports this file and
// nothing else of this folder.
//
// Modelled: eMMC 5.1 in sector mode and SDHC; all states but btst and irq; R1; CID, CSD, EXT_CSD, SCR,
// SSR; user area and
// boot partitions; write cache, flush, reliable write, forced programming, HPI, sleep, erase, trim;
// legacy/default and
// high speed, 1, 4, 8 lines with their CRCs; program, erase and switch times; power cuts; the fault plan.
// Not modelled: 1.8 V and UHS, DDR, HS200, HS400, RPMB, GP partitions, write protection, lock, CMDQ, BKOPS, SPI.
import { CARD_BASE, CARD_BLOCK, CONFIG_ABORT_OUTCOME, TRACE_POWER } from "../layout";
import { traceAt } from "../trace";
import { advanceCard, dropBusy, isBusy } from "./busy";
import { buildRegisters, resetVolatileRegisters } from "./registers";
import { Card, card, isEmmc, STATE_DIS, STATE_IDENT, STATE_IDLE } from "./state";

export {
  RESPONSE_NONE,
  RESPONSE_R1,
  RESPONSE_R2,
  RESPONSE_R3,
  RESPONSE_R6,
  RESPONSE_R7,
} from "./answer";
export { advanceCard } from "./busy";
export { blockDueNs, CRC_STATUS_GOOD, CRC_STATUS_NONE, sendsCounted } from "./transfer";
export { acceptBlock, answerFrame, giveBlock, receiveFrame } from "./wire";

/** Identification is open-drain, at most 400 kHz (mmc.md §1.11). */
const IDENTIFICATION_KHZ: u32 = 400;

/** True while a card is in the slot. */
export function isPresent(): bool {
  return card().pulled == 0;
}

/** True if the card can follow commands at this clock: an unidentified card hears nothing above 400 kHz. */
export function hears(clockKhz: u32): bool {
  return card().state > STATE_IDENT || clockKhz <= IDENTIFICATION_KHZ;
}

/** True if the card's timing bears this clock (26/52 MHz, SD 25/50): above it a bit of each block is lost. */
export function keepsUp(clockKhz: u32): bool {
  const base: u32 = isEmmc() ? 26000 : 25000;
  return clockKhz <= (card().highSpeed != 0 ? base * 2 : base);
}

/** DAT0: low while busy, unless the card is deselected. */
export function dat0(): bool {
  return !isBusy() || card().state == STATE_DIS;
}

/** When busy ends as things stand; 0 if it is not busy. */
export function busyUntilNs(): u64 {
  return isBusy() ? card().opUntilNs : 0;
}

/** A card fresh from the factory with what CONFIG says, without power. */
export function makeCard(): void {
  memory.fill(CARD_BASE, 0, offsetof<Card>());
  buildRegisters(CARD_BLOCK);
}

/**
 * The supply goes. What was in programming ends as `outcome` (CUT_*); bit i of `cacheMask` keeps the
 * i-th oldest cached sector.
 */
export function powerOff(outcome: u32, cacheMask: u32, timeNs: u64): void {
  const c = card();
  if (c.power == 0) return;
  dropBusy(outcome, cacheMask);
  c.power = 0;
  traceAt(timeNs, TRACE_POWER, 0, 0, 0);
}

/** The supply comes: idle, 1 line, default speed, everything volatile forgotten. */
export function powerOn(timeNs: u64): void {
  const c = card();
  if (c.power != 0) return;
  const pulled = c.pulled;
  memory.fill(CARD_BASE, 0, offsetof<Card>("cid0"));
  c.pulled = pulled;
  c.power = 1;
  c.state = STATE_IDLE;
  c.rca = isEmmc() ? 1 : 0;
  c.busWidth = 1;
  resetVolatileRegisters();
  traceAt(timeNs, TRACE_POWER, 1, 0, 0);
}

/** The host switched the supply off in mid-flight: as a power cut, with the outcome that CONFIG names. */
export function powerCycleOff(timeNs: u64): void {
  advanceCard(timeNs);
  powerOff(load<u32>(CONFIG_ABORT_OUTCOME), 0, timeNs);
}

export function cardState(): u32 {
  return card().state;
}

export function setPulled(pulled: bool): void {
  card().pulled = pulled ? 1 : 0;
}
