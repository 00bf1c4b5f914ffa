// CMD6 and what is done with it: EXT_CSD bytes, the partition, cache and flush, bus width and speed.

import { EILSEQ, EIO, OK } from "../errno";
import { CONFIG_BUS_WIDTH, CONFIG_HIGH_SPEED, REGISTER_BLOCK, SECTOR_BYTES } from "../layout";
import {
  ANSWER_R1,
  lastResponse,
  MILLISECOND,
  STATUS_BLOCK_ERRORS,
  STATUS_SWITCH_ERROR,
  sendAppCommand,
  sendCommand,
} from "./command";
import { setCardClock, setLines } from "./setup";
import { KIND_EMMC, KIND_SD, noteCacheLoss, shadow } from "./shadow";
import { awaitReady, readRegister } from "./transfer";

const EXT_CSD_FLUSH_CACHE: u32 = 32;
const EXT_CSD_CACHE_CTRL: u32 = 33;
const EXT_CSD_PARTITION_CONFIG: u32 = 179;
const EXT_CSD_PARTITION_ACCESS: u32 = 7;
const EXT_CSD_BUS_WIDTH: u32 = 183;
const EXT_CSD_HS_TIMING: u32 = 185;
const WRITE_BYTE: u32 = 3;
const SWITCHES_MAX: u32 = 2;
/** Linux's bounds: generic CMD6 EXT_CSD[248] × 10 ms, at most 500 ms here; flush 30 s. */
const SWITCH_NS: u64 = 500 * MILLISECOND;
const FLUSH_NS: u64 = 30000 * MILLISECOND;

/**
 * Writes one EXT_CSD byte and waits for it. -EIO: the card refused it (R1_SWITCH_ERROR). That bit is told once: a
 * status that was lost may have been the one with it, and the byte is written again. -EILSEQ: lost twice.
 */
export function switchByteWithin(index: u32, value: u32, lengthNs: u64): i32 {
  for (let i: u32 = 0; i < SWITCHES_MAX; i++) {
    shadow().repeated = i;
    shadow().answerLost = 0;
    const status = sendCommand(6, (WRITE_BYTE << 24) | (index << 16) | (value << 8) | 1, ANSWER_R1, 0);
    if (status != OK) return status;
    // Refused in its own R1: the card does nothing, and CMD13 would tell of nothing.
    if ((lastResponse() & STATUS_BLOCK_ERRORS) != 0) return EIO;
    const ready = awaitReady(lengthNs);
    if (ready != OK) return ready;
    if ((lastResponse() & STATUS_SWITCH_ERROR) != 0) return EIO;
    if (shadow().answerLost == 0) return OK;
  }
  return EILSEQ;
}

export function switchByte(index: u32, value: u32): i32 {
  return switchByteWithin(index, value, SWITCH_NS);
}

/**
 * Everything in the card's write cache becomes durable. Nothing to do without one. -EIO: the card could not store all
 * of it. That is told once, and what it could not store need not be in the cache any more, so a flush that succeeds
 * behind one that did not, or whose answer was lost, says nothing of what was written before both.
 */
export function flushCache(): i32 {
  const s = shadow();
  if (s.kind != KIND_EMMC || s.cacheOn == 0) return OK;
  // Noted before it is known: whoever takes the host in the middle reads the status, and its errors with it.
  const before = s.cacheLost;
  noteCacheLoss();
  const status = switchByteWithin(EXT_CSD_FLUSH_CACHE, 1, FLUSH_NS);
  if (status == OK && s.repeated == 0) s.cacheLost = before;
  if (status == OK) s.unflushed = 0;
  return status;
}

/**
 * Cache and boot configuration of an eMMC as they are, for a guest's driver may have set them since ours did. A card
 * whose lines are not the controller's cannot be asked: what was known then holds until it has been identified.
 */
export function adoptModes(): void {
  const s = shadow();
  if (s.kind != KIND_EMMC || readRegister(8, 0, SECTOR_BYTES, false) != OK) return;
  s.cacheOn = load<u8>(REGISTER_BLOCK + EXT_CSD_CACHE_CTRL) & 1;
  s.bootPartitionConfig = load<u8>(REGISTER_BLOCK + EXT_CSD_PARTITION_CONFIG) & ~EXT_CSD_PARTITION_ACCESS;
}

/** The user area, whatever partition somebody had selected. SD has one partition only. */
export function selectUserArea(): i32 {
  const s = shadow();
  if (s.kind != KIND_EMMC) return OK;
  return switchByte(EXT_CSD_PARTITION_CONFIG, s.bootPartitionConfig);
}

/** Lines and speed as CONFIG asks, as far as the card goes along: eMMC by CMD6, SD by ACMD6 and CMD6. */
export function setBus(): i32 {
  const width = load<u32>(CONFIG_BUS_WIDTH);
  const fast = load<u32>(CONFIG_HIGH_SPEED) != 0;
  return shadow().kind == KIND_SD ? setSdBus(width > 4 ? 4 : width, fast) : setEmmcBus(width, fast);
}

function setEmmcBus(width: u32, fast: bool): i32 {
  let status: i32 = OK;
  if (fast) status = switchByte(EXT_CSD_HS_TIMING, 1);
  if (status == OK && width > 1) status = switchByte(EXT_CSD_BUS_WIDTH, width == 8 ? 2 : 1);
  if (status != OK) return status;
  setLines(width, fast);
  return setCardClock();
}

function setSdBus(width: u32, fast: bool): i32 {
  let highSpeed = false;
  if (width == 4) {
    const wide = sendAppCommand(6, 2, ANSWER_R1, 0);
    if (wide != OK) return wide;
    setLines(4, false);
  }
  // A card of version 1.01 has no CMD6, thus no high speed.
  if (fast && shadow().hasSwitch != 0) {
    const switched = readRegister(6, 0x80fffff1, 64, false);
    if (switched != OK) return switched;
    highSpeed = (load<u8>(REGISTER_BLOCK + 16) & 15) == 1;
  }
  setLines(width, highSpeed);
  return setCardClock();
}
