// The card as the bus sees it: lines, clock, commands, blocks, busy, power. The controller imports this file and
// nothing else of this folder.
//
// Modelled: eMMC 5.1 in sector mode and SDHC; all states but btst and irq; R1; CID, CSD, EXT_CSD, SCR,
// SSR; user area and
// boot partitions; write cache, flush, reliable write, forced programming, HPI, sleep, erase, trim;
// legacy/default and
// high speed, 1, 4, 8 lines with their CRCs; program, erase and switch times; power cuts; the fault plan.
// Damage and time: flash.ts and busy.ts; what goes wrong: faults.ts and docs/FAULTS.md.
// Not modelled: 1.8 V and UHS, DDR, HS200, HS400, RPMB, GP partitions, write protection, lock, CMDQ, BKOPS, SPI.
import { NEVER, nowNs } from "../clock";
import { CARD_BASE, CARD_BLOCK, CONFIG_ABORT_OUTCOME } from "../layout";
import { advanceCard, isBusy } from "./busy";
import { damage, makeFlash } from "./flash";
import { powerOff } from "./power";
import { buildRegisters } from "./registers";
import { Card, card, isEmmc, STATE_DIS, STATE_IDENT } from "./state";

export {
  RESPONSE_NONE,
  RESPONSE_R1,
  RESPONSE_R2,
  RESPONSE_R3,
  RESPONSE_R6,
  RESPONSE_R7,
} from "./answer";
export { advanceCard } from "./busy";
export { powerOff, powerOn, swapIdentity } from "./power";
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

/** The slide of an SD card stands at "lock": nothing but the host's own manners obeys it. */
export function isWriteProtected(): bool {
  return damage().writeProtected != 0;
}

/** DAT0: low while busy, unless the card is deselected or shows its busy late; low for good if the line is stuck. */
export function dat0(): bool {
  const c = card();
  if (c.datStuck != 0) return false;
  return !isBusy() || c.state == STATE_DIS || nowNs() < c.opHiddenUntilNs;
}

/** When busy ends as things stand; 0 if it is not busy, or shows it too late for the controller to see. */
export function busyUntilNs(): u64 {
  const c = card();
  if (c.datStuck != 0) return NEVER;
  return isBusy() && c.opHiddenUntilNs == 0 ? c.opUntilNs : 0;
}

/** A card fresh from the factory with what CONFIG says, without power. */
export function makeCard(): void {
  memory.fill(CARD_BASE, 0, offsetof<Card>());
  makeFlash();
  buildRegisters(CARD_BLOCK);
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
