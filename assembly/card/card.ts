// The card as the bus sees it: lines, clock, commands, blocks, busy, power. The controller imports this file and
// nothing else of this folder.
//
// Modelled: eMMC 5.1, by sectors or (up to 2 GiB) by bytes, and SDHC; all states but btst and irq; R1; CID, CSD,
// EXT_CSD, SCR, SSR; user area, boot and general purpose partitions; write protection; write cache, flush,
// reliable write, forced programming, HPI, sleep, erase, trim, background operations, sanitize, RST_n;
// legacy/default and high speed, DDR52, HS200, HS400, 1, 4, 8 lines, the tuning block; program, erase and switch
// times; power cuts; the fault plan.
// Not modelled: signal voltages, UHS, RPMB, lock, CMDQ, boot mode, partitioning at run time, SPI.
import {
  CARD_BASE,
  CARD_BLOCK,
  CONFIG_ABORT_OUTCOME,
  CONFIG_CACHE_AT_RESET,
  FAULT_RESPONSE_CRC,
  TRACE_POWER,
} from "../layout";
import { traceAt } from "../trace";
import { advanceCard, dropBusy, isBusy } from "./busy";
import { EXT_CSD_RST_N_FUNCTION, extCsd } from "./emmc-registers";
import { TIMING_HS200 } from "./emmc-switch";
import { faultOnCommand } from "./faults";
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
export { receiveCommand } from "./commands";
export {
  BLOCK_BAD_CRC,
  BLOCK_GOOD,
  BLOCK_NONE,
  blockBytesOnWire,
  blockDueNs,
  CRC_STATUS_BAD,
  CRC_STATUS_GOOD,
  CRC_STATUS_NONE,
  receiveBlock,
  sendBlock,
  sendsCounted,
} from "./transfer";

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

/** The highest clock of the card's timing: eMMC 26, 52 and 200 MHz, SD 25 and 50 (mmc.md §1.11). */
function clockMaxKhz(): u32 {
  const c = card();
  const base: u32 = isEmmc() ? 26000 : 25000;
  if (isEmmc() && c.highSpeed >= TIMING_HS200) return 200000;
  return c.highSpeed != 0 ? base * 2 : base;
}

/** True if blocks survive: as many lines and bits a clock as the card drives, and a clock within its timing. */
export function linesAgree(lines: u32, clockKhz: u32, dualRate: bool): bool {
  const c = card();
  return lines == c.busWidth && dualRate == (c.dualRate != 0) && clockKhz <= clockMaxKhz();
}

/** N_AC at least, in bus clocks (mmc.md §1.11). */
export function accessClocks(): u32 {
  return isEmmc() && card().highSpeed >= TIMING_HS200 ? 8 : 2;
}

/** The response's CRC7 is damaged on the wire although the command was executed. */
export function responseIsDamaged(index: u32): bool {
  return faultOnCommand(FAULT_RESPONSE_CRC, index);
}

/** Word `index` of the last response. */
export function responseWord(index: u32): u32 {
  return load<u32>(CARD_BASE + (index << 2), offsetof<Card>("response0"));
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
  resetVolatileRegisters(true);
  traceAt(timeNs, TRACE_POWER, 1, 0, 0);
}

/** RST_n goes low and high again: a power cycle without one, if the host has enabled the pin for good. */
export function resetByPin(timeNs: u64): void {
  advanceCard(timeNs);
  if (!isEmmc() || card().power == 0 || (extCsd(EXT_CSD_RST_N_FUNCTION) & 3) != 1) return;
  const cacheMask: u32 = load<u32>(CONFIG_CACHE_AT_RESET) != 0 ? 0xffffffff : 0;
  powerOff(load<u32>(CONFIG_ABORT_OUTCOME), cacheMask, timeNs);
  powerOn(timeNs);
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
