// CMD6 and what is done with it: EXT_CSD bytes, the partition, cache and flush, bus width and speed. And the read-back
// without which no mode counts.

import { registerBlock } from "../buffers";
import { EILSEQ, EIO, ETIMEDOUT, OK } from "../errno";
import { CONFIG_BUS_WIDTH, CONFIG_HIGH_SPEED, SECTOR_BYTES } from "../layout";
import { ANSWER_R1, lastResponse, MILLISECOND, sendAppCommand, sendOrder } from "./command";
import { R1_SWITCH_ERROR } from "./r1";
import { setCardClock, setLines } from "./setup";
import { KIND_EMMC, KIND_SD, noteCacheLoss, outcome, shadow } from "./shadow";
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
function switchWithin(token: u32, access: u32, index: u32, value: u32, lengthNs: u64): i32 {
  return outcome(token, switchSurely(token, access, index, value, lengthNs));
}

function switchSurely(token: u32, access: u32, index: u32, value: u32, lengthNs: u64): i32 {
  for (let i: u32 = 0; i < SWITCHES_MAX; i++) {
    shadow(token).repeated = i;
    shadow(token).answerLost = 0;
    // Refused in its own R1: the card does nothing, and CMD13 would tell of nothing.
    const status = sendOrder(token, 6, (access << 24) | (index << 16) | (value << 8) | 1, ANSWER_R1, 0);
    if (status != OK) return status;
    const ready = awaitReady(token, lengthNs);
    if (ready != OK) return ready;
    if ((lastResponse(token) & R1_SWITCH_ERROR) != 0) return EIO;
    if (shadow(token).answerLost == 0) return OK;
  }
  return EILSEQ;
}

export function switchByte(token: u32, index: u32, value: u32): i32 {
  return switchWithin(token, WRITE_BYTE, index, value, SWITCH_NS);
}

/** Everything in the card's write cache becomes durable. Nothing to do without one, but only the card can say so. */
export function flushCache(token: u32): i32 {
  const s = shadow(token);
  if (s.identified == 0) return ETIMEDOUT;
  if (s.kind != KIND_EMMC) return OK;
  if (s.modesKnown == 0) {
    const asked = confirmModes(token);
    if (asked != OK) return asked;
  }
  return s.cacheOn == 0 ? OK : flushKnownCache(token);
}

/**
 * CMD6 FLUSH_CACHE, where the cache is on. -EIO: the card could not store all of it. That is told once, and what it
 * could not store need not be in the cache any more, so a flush that succeeds behind one that did not, or whose answer
 * was lost, says nothing of what was written before both.
 */
export function flushKnownCache(token: u32): i32 {
  const s = shadow(token);
  // Noted before it is known: whoever takes the host in the middle reads the status, and its errors with it.
  const before = s.cacheLost;
  noteCacheLoss(token);
  const status = switchWithin(token, WRITE_BYTE, EXT_CSD_FLUSH_CACHE, 1, FLUSH_NS);
  if (status == OK && s.repeated == 0) s.cacheLost = before;
  if (status == OK) s.unflushed = 0;
  return status;
}

export function extCsd(token: u32, index: u32): u32 {
  return load<u8>(registerBlock(token) + index);
}

/**
 * Asks the card for a register in data: EXT_CSD, SCR. Lines or a speed in disagreement show in nothing else. What it
 * says then holds. -EILSEQ: it says something that cannot be; others as transferBlocks(token).
 */
export function confirmModes(token: u32): i32 {
  const s = shadow(token);
  const isEmmc = s.kind == KIND_EMMC;
  const status = isEmmc
    ? readRegister(token, 8, 0, SECTOR_BYTES, false)
    : readRegister(token, 51, 0, 8, true);
  if (status != OK) return status;
  if (isEmmc) {
    const sectors = load<u32>(registerBlock(token) + EXT_CSD_SEC_COUNT);
    if (s.addressUnit == 1 && sectors != s.sectors) return EILSEQ;
    s.cacheOn = extCsd(token, EXT_CSD_CACHE_CTRL) & 1;
    s.hasHpi = extCsd(token, EXT_CSD_HPI_FEATURES) & extCsd(token, EXT_CSD_HPI_MGMT) & 1;
  }
  s.modesKnown = 1;
  return OK;
}

/**
 * The user area, whatever partition somebody had selected. SD has one partition only. The access bits alone are cleared
 * in the card: the boot configuration in the same byte outlasts the power, and whoever wrote it need not be us.
 */
export function selectUserArea(token: u32): i32 {
  if (shadow(token).kind != KIND_EMMC) return OK;
  return switchWithin(token, CLEAR_BITS, EXT_CSD_PARTITION_CONFIG, EXT_CSD_PARTITION_ACCESS, SWITCH_NS);
}

/** Lines and speed as CONFIG asks; what the card refuses it does without: eMMC by CMD6, SD by ACMD6 and CMD6. */
export function setBus(token: u32): i32 {
  const width = load<u32>(CONFIG_BUS_WIDTH);
  const fast = load<u32>(CONFIG_HIGH_SPEED) != 0;
  return shadow(token).kind == KIND_SD
    ? setSdBus(token, width > 4 ? 4 : width, fast)
    : setEmmcBus(token, width, fast);
}

function setEmmcBus(token: u32, width: u32, fast: bool): i32 {
  const timing = fast ? switchByte(token, EXT_CSD_HS_TIMING, 1) : OK;
  if (timing != OK && timing != EIO) return timing;
  const wide = width > 1 ? switchByte(token, EXT_CSD_BUS_WIDTH, width == 8 ? 2 : 1) : OK;
  if (wide != OK && wide != EIO) return wide;
  setLines(token, wide == OK ? width : 1, fast && timing == OK);
  return setCardClock(token);
}

function setSdBus(token: u32, width: u32, fast: bool): i32 {
  let highSpeed = false;
  const wide = width == 4 ? sendAppCommand(token, 6, 2, ANSWER_R1, 0) : EIO;
  if (wide != OK && wide != EIO) return wide;
  const lines: u32 = wide == OK ? 4 : 1;
  setLines(token, lines, false);
  // A card of version 1.01 has no CMD6, thus no high speed.
  if (fast && shadow(token).hasSwitch != 0) {
    const switched = readRegister(token, 6, 0x80fffff1, 64, false);
    if (switched != OK) return switched;
    highSpeed = (load<u8>(registerBlock(token) + 16) & 15) == 1;
  }
  setLines(token, lines, highSpeed);
  return setCardClock(token);
}
