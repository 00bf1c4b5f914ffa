// Identification of an eMMC or SD card by polling, without sleeping (mmc.md §1.6): from power-up, CMD0 or silence to
// tran with the bus as CONFIG asks. The order is Linux's; a card that was known before must be the same one.

import { registerBlock } from "../buffers";
import { EIO, ENODEV, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
import { SECTOR_BYTES } from "../layout";
import { SDHCI_CTRL_VDD_180, SDHCI_HOST_CONTROL2 } from "../sdhci/registers";
import {
  ANSWER_NONE,
  ANSWER_R1,
  ANSWER_R2,
  ANSWER_R3,
  ANSWER_R6,
  ANSWER_R7,
  isCardPresent,
  lastResponse,
  longResponse,
  MILLISECOND,
  pause,
  sendAppCommand,
  sendCommand,
} from "./command";
import { portRead16, portWrite16 } from "./port";
import { enableStatus, IDENTIFICATION_KHZ, setClock, setLines } from "./setup";
import { isLate, isOver, KIND_EMMC, KIND_SD, KIND_UNKNOWN, noteCacheLoss, shadow, untilNs } from "./shadow";
import { selectUserArea, setBus, switchByte } from "./switch";
import { awaitReady, readRegister } from "./transfer";

const OCR_VOLTAGES: u32 = 0x00ff8000;
const OCR_SECTORS: u32 = 1 << 30;
const OCR_POWERED_UP: u32 = 1 << 31;
const EMMC_RCA: u32 = 1;
/** CMD1 and ACMD41 may take 1 s from the first of them (mmc.md §1.10), and a bit more is waited; polled every 1 ms. */
const INIT_NS: u64 = 1100 * MILLISECOND;
const INIT_POLLS_MAX: u32 = 2000;
const INIT_PAUSE_NS: u32 = 1000000;
const READY_NS: u64 = 500 * MILLISECOND;

const EXT_CSD_CACHE_CTRL: u32 = 33;
const EXT_CSD_HPI_MGMT: u32 = 161;
const EXT_CSD_WR_REL_PARAM: u32 = 166;
const EXT_CSD_ERASE_GROUP_DEF: u32 = 175;
const EXT_CSD_PARTITION_CONFIG: u32 = 179;
const EXT_CSD_SEC_COUNT: u32 = 212;
const EXT_CSD_CACHE_SIZE: u32 = 249;
const EXT_CSD_HPI_FEATURES: u32 = 503;

function goIdle(token: u32): i32 {
  const status = sendCommand(token, 0, 0, ANSWER_NONE, 0);
  pause(token, INIT_PAUSE_NS, untilNs(token, MILLISECOND));
  return status;
}

/** CMD1 or ACMD41 until the card has powered up. -ETIMEDOUT: it does not answer, or not in time. */
function powerUpCard(token: u32, app: bool, argument: u32): i32 {
  const endNs = untilNs(token, INIT_NS);
  for (let i: u32 = 0; i < INIT_POLLS_MAX; i++) {
    const status = app
      ? sendAppCommand(token, 41, argument, ANSWER_R3, 0)
      : sendCommand(token, 1, argument, ANSWER_R3, 0);
    if (status != OK) return status;
    if ((lastResponse(token) & OCR_POWERED_UP) != 0) return OK;
    if (isOver(token, endNs)) break;
    pause(token, INIT_PAUSE_NS, endNs);
  }
  return ETIMEDOUT;
}

/** CMD2: the CID, compared with the one that was there before. -ENODEV: another card. */
function checkIdentity(token: u32): i32 {
  const status = sendCommand(token, 2, 0, ANSWER_R2, 0);
  if (status != OK) return status;
  const s = shadow(token);
  const first = longResponse(token, 0);
  const second = longResponse(token, 1);
  const third = longResponse(token, 2);
  const fourth = longResponse(token, 3);
  if (s.identified != 0) {
    const same = s.cid0 == first && s.cid1 == second && s.cid2 == third && s.cid3 == fourth;
    return same ? OK : ENODEV;
  }
  s.cid0 = first;
  s.cid1 = second;
  s.cid2 = third;
  s.cid3 = fourth;
  return OK;
}

function extCsd(token: u32, index: u32): u32 {
  return load<u8>(registerBlock(token) + index);
}

/** A field of the CSD in the last response, which lacks bits 7:0. `width`: at most 31 bits. */
function csdBits(token: u32, lowest: u32, width: u32): u32 {
  const at = lowest - 8;
  const low = longResponse(token, at >>> 5) >>> (at & 31);
  const high: u32 = (at & 31) + width > 32 ? longResponse(token, (at >>> 5) + 1) << (32 - (at & 31)) : 0;
  return (low | high) & ((1 << width) - 1);
}

/** CMD9 of a card that counts bytes: the size that its CSD tells (mmc.md §1.7), in sectors. */
function readCapacity(token: u32): i32 {
  const s = shadow(token);
  const status = sendCommand(token, 9, s.rca << 16, ANSWER_R2, 0);
  // (C_SIZE + 1) × 2^(C_SIZE_MULT + 2) blocks of 2^READ_BL_LEN bytes.
  const blockBits = csdBits(token, 80, 4);
  if (status != OK) return status;
  if (blockBits < 9 || blockBits > 11) return EIO;
  s.sectors = (csdBits(token, 62, 12) + 1) << (csdBits(token, 47, 3) + 2 + blockBits - 9);
  return OK;
}

function setUpEmmc(token: u32): i32 {
  const s = shadow(token);
  s.rca = EMMC_RCA;
  let status = sendCommand(token, 3, EMMC_RCA << 16, ANSWER_R1, 0);
  if (status == OK && s.addressUnit != 1) status = readCapacity(token);
  if (status == OK) status = sendCommand(token, 7, EMMC_RCA << 16, ANSWER_R1, 0);
  if (status == OK) status = readRegister(token, 8, 0, 512, false);
  if (status != OK) return status;
  if (s.addressUnit == 1) s.sectors = load<u32>(registerBlock(token) + EXT_CSD_SEC_COUNT);
  s.hasCmd23 = 1;
  s.hasReliableWrite = (extCsd(token, EXT_CSD_WR_REL_PARAM) >>> 2) & 1;
  s.hasHpi = extCsd(token, EXT_CSD_HPI_FEATURES) & 1;
  s.bootPartitionConfig = extCsd(token, EXT_CSD_PARTITION_CONFIG) & ~7;
  const partition = extCsd(token, EXT_CSD_PARTITION_CONFIG) & 7;
  const cacheKib = load<u32>(registerBlock(token) + EXT_CSD_CACHE_SIZE);
  status = switchByte(token, EXT_CSD_ERASE_GROUP_DEF, 1);
  if (status == OK && partition != 0) status = selectUserArea(token);
  if (status == OK) status = setBus(token);
  if (status != OK) return status;
  // Without HPI or cache the card is slower to interrupt or to write, but it works.
  if (s.hasHpi != 0 && switchByte(token, EXT_CSD_HPI_MGMT, 1) != OK) s.hasHpi = 0;
  if (cacheKib > 0 && switchByte(token, EXT_CSD_CACHE_CTRL, 1) == OK) s.cacheOn = 1;
  return isLate(token) ? ETIMEDOUT : OK;
}

/** Sectors of an SD card, from the CSD in the response, which lacks bits 7:0 of it. */
function capacity(token: u32): u32 {
  const first = longResponse(token, 1);
  const second = longResponse(token, 2);
  // Version 2.0: C_SIZE 69:48 in units of 512 KiB.
  if (((longResponse(token, 3) >>> 22) & 3) != 0) return (((first >>> 8) & 0x3fffff) + 1) * 1024;
  // Version 1.0: (C_SIZE 73:62 + 1) × 2^(C_SIZE_MULT 49:47 + 2) × 2^READ_BL_LEN 83:80.
  const size = (first >>> 22) | ((second & 3) << 10);
  const blockLength = (second >>> 8) & 15;
  const sectors = (size + 1) << (((first >>> 7) & 7) + 2);
  return blockLength > 9 ? sectors << (blockLength - 9) : sectors;
}

function setUpSd(token: u32): i32 {
  const s = shadow(token);
  let status = sendCommand(token, 3, 0, ANSWER_R6, 0);
  if (status != OK) return status;
  s.rca = lastResponse(token) >>> 16;
  status = sendCommand(token, 9, s.rca << 16, ANSWER_R2, 0);
  if (status != OK) return status;
  s.sectors = capacity(token);
  status = sendCommand(token, 7, s.rca << 16, ANSWER_R1, 0);
  // The block length of SDSC need not be 512 yet; everything else has no other.
  if (status == OK && s.addressUnit != 1) status = sendCommand(token, 16, SECTOR_BYTES, ANSWER_R1, 0);
  if (status == OK) status = readRegister(token, 51, 0, 8, true);
  if (status != OK) return status;
  s.hasCmd23 = (load<u8>(registerBlock(token) + 3) >>> 1) & 1;
  s.hasSwitch = (load<u8>(registerBlock(token)) & 15) != 0 ? 1 : 0;
  s.hasReliableWrite = 0;
  s.hasHpi = 0;
  return setBus(token);
}

/** CMD8 answers on SD 2.0 and later only; an eMMC in idle is silent. `version1`: an SD card without CMD8. */
function identifyAs(token: u32, kind: u32, version1: bool): i32 {
  const s = shadow(token);
  let status = goIdle(token);
  if (status != OK) return status;
  // Whatever was on is off now, even if identification ends early, and what was cached may be gone.
  s.cacheOn = 0;
  noteCacheLoss(token);
  s.unflushed = 0;
  if (kind == KIND_SD) {
    s.rca = 0;
    // HCS is for hosts of version 2.0 and for cards that have shown to be as new.
    if (!version1) {
      const condition = sendCommand(token, 8, 0x1aa, ANSWER_R7, 0);
      if (condition != OK) return condition;
    }
    status = powerUpCard(token, true, version1 ? OCR_VOLTAGES : OCR_VOLTAGES | OCR_SECTORS);
  } else {
    status = powerUpCard(token, false, OCR_VOLTAGES | OCR_SECTORS);
  }
  const unit: u32 = (lastResponse(token) & OCR_SECTORS) != 0 ? 1 : SECTOR_BYTES;
  if (status == OK) status = checkIdentity(token);
  if (status != OK) return status;
  s.kind = kind;
  s.addressUnit = unit;
  s.version1 = version1 ? 1 : 0;
  status = kind == KIND_SD ? setUpSd(token) : setUpEmmc(token);
  if (status == OK) status = awaitReady(token, READY_NS);
  if (status == OK) s.identified = 1;
  return status;
}

/**
 * From any state that hears CMD0 at 400 kHz on one line to tran. Errors: -ETIMEDOUT nothing answers, -ENODEV it is
 * another card than before, -ENOMEDIUM, -EIO the card refused a mode.
 */
export function identify(token: u32): i32 {
  const s = shadow(token);
  if (!isCardPresent(token)) return ENOMEDIUM;
  enableStatus(token);
  // One bit a clock and no tuning, whatever mode was left on; but CMD0 does not take a card at 1.8 V back.
  portWrite16(token, SDHCI_HOST_CONTROL2, portRead16(token, SDHCI_HOST_CONTROL2) & SDHCI_CTRL_VDD_180);
  setLines(token, 1, false);
  const clocked = setClock(token, IDENTIFICATION_KHZ);
  if (clocked != OK) return clocked;
  if (s.kind != KIND_UNKNOWN) return identifyAs(token, s.kind, s.version1 != 0);
  const sd = identifyAs(token, KIND_SD, false);
  if (sd == OK || sd == ENOMEDIUM) return sd;
  const emmc = identifyAs(token, KIND_EMMC, false);
  if (emmc == OK || emmc == ENOMEDIUM) return emmc;
  // Neither CMD8 nor CMD1: what is left is an SD card of version 1.
  if (sd == ETIMEDOUT && identifyAs(token, KIND_SD, true) == OK) return OK;
  return sd == EIO ? EIO : emmc;
}
