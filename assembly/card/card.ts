// The card as the bus sees it: lines, clock, commands, blocks, busy, power. The controller imports this file and
// nothing else of this folder.
//
// Modelled: eMMC 5.1, by sectors or (up to 2 GiB) by bytes; SDSC, SDHC and SDXC with UHS-I and the SPI mode; all
// states but btst and irq; R1; CID, CSD, EXT_CSD, SCR, SSR; user area, boot and general purpose partitions; write
// protection; write cache, flush, reliable write, forced programming, HPI, sleep, erase, trim, background
// operations, sanitize, RST_n;
// legacy/default and high speed, DDR52, HS200, HS400, 1, 4, 8 lines with their CRCs, the tuning block; program,
// erase and switch times; power cuts; the fault plan.
// Damage and time: flash.ts and busy.ts; what goes wrong: faults.ts and docs/FAULTS.md.
// Not modelled: RPMB, lock, CMDQ, boot mode, partitioning at run time, 1.2 V; of SD partial blocks (SDSC), UHS-II and
// the extension registers (CMD48, 49, 58, 59).
import { laterNs, NEVER, nowNs } from "../clock";
import { CARD_BASE, CARD_BLOCK, CONFIG_ABORT_OUTCOME, SD_LOCK_SWITCH } from "../layout";
import { advanceCard, isBusy } from "./busy";
import { cacheKeptAtReset } from "./cache";
import { EXT_CSD_RST_N_FUNCTION, extCsd } from "./emmc-registers";
import { TIMING_HS200 } from "./emmc-switch";
import { damage, makeFlash } from "./flash";
import { powerOff, powerOn } from "./power";
import { buildRegisters } from "./registers";
import { sdClockKhzMax } from "./sd-switch";
import {
  Card,
  card,
  hasSdFlag,
  isEmmc,
  STATE_DIS,
  STATE_IDENT,
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
export { powerOff, powerOn, swapIdentity } from "./power";
export {
  dropSpiBlock,
  endSpiWrite,
  receiveSpiBlock,
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
export { copyEven, evenBlocks, nextReadNs, passEven, placeOfEven, programNs } from "./stretch";
export {
  blockBytesOnWire,
  blockDueNs,
  CRC_STATUS_BAD,
  CRC_STATUS_GOOD,
  CRC_STATUS_NONE,
  sendsCounted,
} from "./transfer";
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

/**
 * True if host and card signal at the same voltage, 1.8 V if `low`: else neither understands the other. An eMMC's VCCQ
 * is the rail of the host's own pins, so these two always agree; an SD card between CMD11 and 1.8 V waits for that
 * alone.
 */
export function sharesVoltage(low: bool): bool {
  if (isEmmc()) return true;
  const voltage = card().voltage;
  return voltage != VOLTAGE_CHANGING && low == (voltage == VOLTAGE_180);
}

/** True if the card works from a supply of 1.8 V: bit 7 of the OCR, which SD cards do not have (mmc.md §1.6). */
export function takesLowSupply(): bool {
  return isEmmc();
}

/** The highest clock of the card's timing: eMMC 26, 52 and 200 MHz, SD as sd-switch.ts has it (mmc.md §1.11). */
function clockMaxKhz(): u32 {
  if (!isEmmc()) return sdClockKhzMax();
  const c = card();
  if (c.highSpeed >= TIMING_HS200) return 200000;
  return c.highSpeed != 0 ? 52000 : 26000;
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

/**
 * True if the card's timing bears this clock, as many bits a clock, and the host's voltage, 1.8 V if `low`, which HS200
 * and HS400 need: else a bit of each block is lost.
 */
export function keepsUp(clockKhz: u32, dualRate: bool, low: bool): bool {
  if (isEmmc() && card().highSpeed >= TIMING_HS200 && !low) return false;
  return dualRate == (card().dualRate != 0) && clockKhz <= clockMaxKhz();
}

/** N_AC at least, in bus clocks (mmc.md §1.11). */
export function accessClocks(): u32 {
  return isEmmc() && card().highSpeed >= TIMING_HS200 ? 8 : 2;
}

/** The slide of an SD card stands at "lock": nothing but the host's own manners obeys it. */
export function isWriteProtected(): bool {
  return damage().writeProtected != 0 || isWriteSwitchLocked();
}

/** The first word of the last response, as the SPI mode sends it. */
export function responseWord(): u32 {
  return card().response0;
}

/** DAT0: low while busy, unless the card is deselected or shows its busy late; low for good if the line is stuck. */
export function dat0(): bool {
  const c = card();
  if (c.datStuck != 0 || c.voltage == VOLTAGE_CHANGING) return false;
  return !isBusy() || c.state == STATE_DIS || nowNs() < c.opHiddenUntilNs;
}

/** When busy ends as things stand; 0 if it is not busy, or shows it too late for the controller to see. */
export function busyUntilNs(): u64 {
  const c = card();
  if (c.datStuck != 0) return NEVER;
  return isBusy() && c.opHiddenUntilNs == 0 ? c.opUntilNs : 0;
}

/**
 * When the chip has done what it does by itself, initialisation included; not later than now if it does
 * nothing; NEVER if only its host can end it.
 */
export function idleFromNs(): u64 {
  const c = card();
  return laterNs(isBusy() ? c.opUntilNs : 0, c.initUntilNs);
}

/** A card fresh from the factory with what CONFIG says, without power. */
export function makeCard(): void {
  memory.fill(CARD_BASE, 0, offsetof<Card>());
  makeFlash();
  buildRegisters(CARD_BLOCK);
}

/** RST_n goes low and high again: a power cycle without one, if the host has enabled the pin for good. */
export function resetByPin(timeNs: u64): void {
  advanceCard(timeNs);
  if (!isEmmc() || card().power == 0 || (extCsd(EXT_CSD_RST_N_FUNCTION) & 3) != 1) return;
  powerOff(load<u32>(CONFIG_ABORT_OUTCOME), cacheKeptAtReset(), timeNs);
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
