// The machine as a whole: made, switched on, cut. What its user does from outside, not what its driver does.

import { advanceCard, makeCard, powerOff, resetByPin, setPulled, swapIdentity } from "./card/card";
import { nowNs } from "./clock";
import { crc32cPrepare } from "./crc";
import { beginShadows } from "./driver/shadow";
import { endPanicPlan } from "./dump/plan";
import {
  CLOCK_NOW,
  CONFIG_BASE,
  FAULT_BYTES,
  FAULTS_BASE,
  FAULTS_COUNT,
  FAULTS_MAX,
  MEDIUM_STORES,
  OWNER_WORD,
  PSTORE_BASE,
  TRACE_BASE,
  TRACE_HEAD_BYTES,
  ZONE_STATES,
  ZONES_MAX,
} from "./layout";
import { freeOwner } from "./owner";
import { beginRecovery, SEQUENCE_STEP_MAX } from "./pstore/recover";
import { beginRings } from "./pstore/ring";
import { makeController, slotChanged } from "./sdhci/mmio";
import { resetPort } from "./spi/port";

/** After CONFIG is filled: a new machine, power off, time 0. The medium keeps its bytes. */
export function machineInit(): void {
  memory.fill(OWNER_WORD, 0, CONFIG_BASE - OWNER_WORD);
  memory.fill(FAULTS_BASE, 0, FAULTS_MAX * FAULT_BYTES);
  store<u32>(FAULTS_COUNT, 0);
  memory.fill(TRACE_BASE, 0, TRACE_HEAD_BYTES);
  store<u64>(CLOCK_NOW, 0);
  store<u64>(MEDIUM_STORES, 0);
  makeCard();
  startOver();
}

/** What dies with the power of the machine, besides the card: controller, driver, what was known of the area. */
function startOver(): void {
  makeController();
  resetPort();
  memory.fill(PSTORE_BASE, 0, 0x200);
  memory.fill(ZONE_STATES, 0, ZONES_MAX);
  crc32cPrepare();
  beginRecovery(SEQUENCE_STEP_MAX);
  beginRings();
  endPanicPlan();
  freeOwner();
  beginShadows();
}

/**
 * The power goes now. `outcome`: CUT_* for the sector in programming and for those that had not settled; bit i of the
 * mask, whose bits 31:0 and 63:32 are given, keeps the i-th oldest cached sector, and the i-th oldest unsettled one.
 */
export function machineCut(outcome: u32, cacheMaskLow: u32, cacheMaskHigh: u32): void {
  advanceCard(nowNs());
  powerOff(outcome, ((<u64>cacheMaskHigh) << 32) | cacheMaskLow, nowNs());
  startOver();
}

/**
 * 0 takes the card out of the slot, 1 puts it back (without power: it must be identified again), 2 puts another one in
 * its place, with the same content and a serial number of its own.
 */
export function machineInsert(present: u32): void {
  if (present != 1) {
    advanceCard(nowNs());
    powerOff(0, 0, nowNs());
  }
  if (present == 2) swapIdentity();
  setPulled(present == 0);
  slotChanged();
}

/** A pulse on the card's RST_n pin, which no register of an SDHCI drives. */
export function machineReset(): void {
  resetByPin(nowNs());
}
