// CMD6 and what is done with it: EXT_CSD bytes, the partition, cache and flush, bus width and speed. And the read-back
// without which no mode counts.

import { EILSEQ, EIO, ETIMEDOUT, OK } from "../errno";
import { CONFIG_BUS_WIDTH, CONFIG_HIGH_SPEED, REGISTER_BLOCK, SECTOR_BYTES } from "../layout";
import { ANSWER_R1, lastResponse, MILLISECOND, sendAppCommand, sendOrder } from "./command";
import { R1_SWITCH_ERROR } from "./r1";
import { setCardClock, setLines } from "./setup";
import { KIND_EMMC, KIND_SD, shadow } from "./shadow";
import { awaitReady, readRegister } from "./transfer";

const EXT_CSD_FLUSH_CACHE: u32 = 32;
export const EXT_CSD_CACHE_CTRL: u32 = 33;
export const EXT_CSD_HPI_MGMT: u32 = 161;
export const EXT_CSD_ERASE_GROUP_DEF: u32 = 175;
const EXT_CSD_PARTITION_CONFIG: u32 = 179;
const EXT_CSD_PARTITION_ACCESS: u32 = 7;
const EXT_CSD_BUS_WIDTH: u32 = 183;
const EXT_CSD_HS_TIMING: u32 = 185;
export const EXT_CSD_SEC_COUNT: u32 = 212;
const EXT_CSD_HPI_FEATURES: u32 = 503;
/** Access of CMD6, bits 25:24. */
const CLEAR_BITS: u32 = 2;
const WRITE_BYTE: u32 = 3;
const SWITCHES_MAX: u32 = 2;
/** Linux's bounds: generic CMD6 EXT_CSD[248] × 10 ms, at most 500 ms here; flush 30 s. */
const SWITCH_NS: u64 = 500 * MILLISECOND;
const FLUSH_NS: u64 = 30000 * MILLISECOND;

/**
 * Changes one EXT_CSD byte and waits for it. -EIO: the card refused it (R1_SWITCH_ERROR). That bit is told once: a
 * status that was lost may have been the one with it, and the byte is written again. -EILSEQ: lost twice.
 */
function switchWithin(access: u32, index: u32, value: u32, lengthNs: u64): i32 {
  for (let i: u32 = 0; i < SWITCHES_MAX; i++) {
    shadow().answerLost = 0;
    // Refused in its own R1: the card does nothing, and CMD13 would tell of nothing.
    const status = sendOrder(6, (access << 24) | (index << 16) | (value << 8) | 1, ANSWER_R1, 0);
    if (status != OK) return status;
    const ready = awaitReady(lengthNs);
    if (ready != OK) return ready;
    if ((lastResponse() & R1_SWITCH_ERROR) != 0) return EIO;
    if (shadow().answerLost == 0) return OK;
  }
  return EILSEQ;
}

export function switchByte(index: u32, value: u32): i32 {
  return switchWithin(WRITE_BYTE, index, value, SWITCH_NS);
}

/** Everything in the card's write cache becomes durable. Nothing to do without one, but only the card can say so. */
export function flushCache(): i32 {
  const s = shadow();
  if (s.identified == 0) return ETIMEDOUT;
  if (s.kind != KIND_EMMC) return OK;
  if (s.modesKnown == 0) {
    const asked = confirmModes();
    if (asked != OK) return asked;
  }
  return s.cacheOn == 0 ? OK : flushKnownCache();
}

/** CMD6 FLUSH_CACHE, where the cache is on. */
export function flushKnownCache(): i32 {
  const status = switchWithin(WRITE_BYTE, EXT_CSD_FLUSH_CACHE, 1, FLUSH_NS);
  if (status == OK) shadow().unflushed = 0;
  return status;
}

export function extCsd(index: u32): u32 {
  return load<u8>(REGISTER_BLOCK + index);
}

/**
 * Asks the card for a register in data: EXT_CSD, SCR. Lines or a speed in disagreement show in nothing else. What it
 * says then holds. -EILSEQ: it says something that cannot be; others as transferBlocks().
 */
export function confirmModes(): i32 {
  const s = shadow();
  const isEmmc = s.kind == KIND_EMMC;
  const status = isEmmc ? readRegister(8, 0, SECTOR_BYTES, false) : readRegister(51, 0, 8, true);
  if (status != OK) return status;
  if (isEmmc) {
    const sectors = load<u32>(REGISTER_BLOCK + EXT_CSD_SEC_COUNT);
    if (s.addressUnit == 1 && sectors != s.sectors) return EILSEQ;
    s.cacheOn = extCsd(EXT_CSD_CACHE_CTRL) & 1;
    s.hasHpi = extCsd(EXT_CSD_HPI_FEATURES) & extCsd(EXT_CSD_HPI_MGMT) & 1;
  }
  s.modesKnown = 1;
  return OK;
}

/**
 * The user area, whatever partition somebody had selected. SD has one partition only. The access bits alone are cleared
 * in the card: the boot configuration in the same byte outlasts the power, and whoever wrote it need not be us.
 */
export function selectUserArea(): i32 {
  if (shadow().kind != KIND_EMMC) return OK;
  return switchWithin(CLEAR_BITS, EXT_CSD_PARTITION_CONFIG, EXT_CSD_PARTITION_ACCESS, SWITCH_NS);
}

/** Lines and speed as CONFIG asks; what the card refuses it does without: eMMC by CMD6, SD by ACMD6 and CMD6. */
export function setBus(): i32 {
  const width = load<u32>(CONFIG_BUS_WIDTH);
  const fast = load<u32>(CONFIG_HIGH_SPEED) != 0;
  return shadow().kind == KIND_SD ? setSdBus(width > 4 ? 4 : width, fast) : setEmmcBus(width, fast);
}

function setEmmcBus(width: u32, fast: bool): i32 {
  const timing = fast ? switchByte(EXT_CSD_HS_TIMING, 1) : OK;
  if (timing != OK && timing != EIO) return timing;
  const wide = width > 1 ? switchByte(EXT_CSD_BUS_WIDTH, width == 8 ? 2 : 1) : OK;
  if (wide != OK && wide != EIO) return wide;
  setLines(wide == OK ? width : 1, fast && timing == OK);
  return setCardClock();
}

function setSdBus(width: u32, fast: bool): i32 {
  let highSpeed = false;
  const wide = width == 4 ? sendAppCommand(6, 2, ANSWER_R1, 0) : EIO;
  if (wide != OK && wide != EIO) return wide;
  const lines: u32 = wide == OK ? 4 : 1;
  setLines(lines, false);
  // A card of version 1.01 has no CMD6, thus no high speed.
  if (fast && shadow().hasSwitch != 0) {
    const switched = readRegister(6, 0x80fffff1, 64, false);
    if (switched != OK) return switched;
    highSpeed = (load<u8>(REGISTER_BLOCK + 16) & 15) == 1;
  }
  setLines(lines, highSpeed);
  return setCardClock();
}
