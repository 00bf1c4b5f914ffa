// The card as the bus sees it: lines, clock, commands, blocks, busy, power. The controller imports this file and
// nothing else of this folder.
//
// Modelled: eMMC 5.1 in sector mode; SDSC, SDHC and SDXC with UHS-I and the SPI mode; all states but btst and irq;
// R1; CID, CSD, EXT_CSD, SCR, SSR; user area and boot partitions; write cache, flush, reliable write, forced
// programming, HPI, sleep, erase, trim, discard; write protection of SD; legacy/default and high speed, SDR50,
// SDR104, DDR50, 1, 4, 8 lines; program, erase and switch times; power cuts; the fault plan.
// Not modelled: eMMC DDR, HS200, HS400, RPMB, GP partitions, write protection, CMDQ, BKOPS; CMD42; of SD partial
// blocks (SDSC), UHS-II and the extension registers (CMD48, 49, 58, 59).
import {
  CARD_BASE,
  CARD_BLOCK,
  CONFIG_ABORT_OUTCOME,
  FAULT_RESPONSE_CRC,
  SD_LOCK_SWITCH,
  TRACE_POWER,
} from "../layout";
import { traceAt } from "../trace";
import { advanceCard, dropBusy, isBusy } from "./busy";
import { faultOnCommand } from "./faults";
import { buildRegisters, resetVolatileRegisters } from "./registers";
import { sdClockKhzMax } from "./sd-switch";
import {
  Card,
  card,
  hasSdFlag,
  isEmmc,
  isSdsc,
  STATE_DIS,
  STATE_IDENT,
  STATE_IDLE,
  VOLTAGE_180,
  VOLTAGE_CHANGING,
} from "./state";

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
  dropSpiBlock,
  endSpiWrite,
  receiveSpiCommand,
  SPI_BLOCK,
  SPI_BLOCK_BAD_CRC,
  SPI_NO_BLOCK,
  SPI_SILENT,
  sendSpiBlock,
  sendsSpiBlocks,
  spiBlockBytes,
  spiListens,
  takesManySpiBlocks,
  takesSpiBlocks,
} from "./sd-spi";
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

/** The highest clock of the card's timing (mmc.md §1.11). */
function clockMaxKhz(): u32 {
  if (!isEmmc()) return sdClockKhzMax();
  return card().highSpeed != 0 ? 52000 : 26000;
}

/** True if blocks survive: as many lines and bits a clock as the card drives, and a clock within its timing. */
export function linesAgree(lines: u32, clockKhz: u32, dualRate: bool): bool {
  const c = card();
  return lines == c.busWidth && dualRate == (c.dualRate != 0) && clockKhz <= clockMaxKhz();
}

/** The switch of an SD card's case says: do not write. Only the host sees it (mmc.md §3.1, present state bit 19). */
export function isWriteSwitchLocked(): bool {
  return !isEmmc() && hasSdFlag(SD_LOCK_SWITCH);
}

/** The host's signalling, with the card's clock stopped. 1.8 V ends the low level that CMD11 began. */
export function setVoltage18(low: bool): void {
  const c = card();
  if (low && c.voltage == VOLTAGE_CHANGING) c.voltage = VOLTAGE_180;
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
  const c = card();
  if (c.voltage == VOLTAGE_CHANGING) return false;
  return !isBusy() || c.state == STATE_DIS;
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
  c.byteAddressed = isSdsc() ? 1 : 0;
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
