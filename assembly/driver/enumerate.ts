// Identification of an eMMC or SD card by polling, without sleeping (mmc.md §1.6): from power-up, CMD0 or silence to
// tran with the bus as CONFIG asks. The order is Linux's; a card that was known before must be the same one. Its last
// step reads a register back over the lines and at the speed that were set: until then nothing of the card is believed,
// and one answer that was lost or damaged on the way begins it again.

import { registerBlock } from "../buffers";
import { EILSEQ, EIO, ENODEV, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
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
  sendOrder,
} from "./command";
import { portRead16, portWrite16 } from "./port";
import { enableStatus, IDENTIFICATION_KHZ, setClock, setLines } from "./setup";
import { isLate, isOver, KIND_EMMC, KIND_SD, noteCacheLoss, shadow, untilNs } from "./shadow";
import {
  confirmModes,
  EXT_CSD_CACHE_CTRL,
  EXT_CSD_ERASE_GROUP_DEF,
  EXT_CSD_HPI_MGMT,
  EXT_CSD_SEC_COUNT,
  extCsd,
  selectUserArea,
  setBus,
  switchByte,
} from "./switch";
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
/** From CMD0 on. What fails oftener is for a power cycle. */
const IDENTIFICATIONS_MAX: u32 = 2;
/** One silence behind CMD8 may be noise, and an SDHC card that is not told of HCS is busy for ever. */
const CONDITIONS_MAX: u32 = 2;
/** C_SIZE of an eMMC whose size stands in EXT_CSD: more than 2 GiB, sector addresses (mmc.md §1.7). */
const C_SIZE_ELSEWHERE: u32 = 0xfff;

const EXT_CSD_WR_REL_PARAM: u32 = 166;
const EXT_CSD_PARTITION_CONFIG: u32 = 179;
const EXT_CSD_ERASED_MEM_CONT: u32 = 181;
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

/** CMD2, or CMD10: the CID, compared with the one that was there before. -ENODEV: another card. */
export function checkIdentity(token: u32, index: u32, argument: u32): i32 {
  const status = sendCommand(token, index, argument, ANSWER_R2, 0);
  if (status != OK) return status;
  const s = shadow(token);
  const first = longResponse(token, 0);
  const second = longResponse(token, 1);
  const third = longResponse(token, 2);
  const fourth = longResponse(token, 3);
  if (s.hasCid != 0) {
    const same = s.cid0 == first && s.cid1 == second && s.cid2 == third && s.cid3 == fourth;
    return same ? OK : ENODEV;
  }
  s.cid0 = first;
  s.cid1 = second;
  s.cid2 = third;
  s.cid3 = fourth;
  return OK;
}

/** A field of the CSD in the last response, which lacks bits 7:0. `width`: at most 31 bits. */
function csdBits(token: u32, lowest: u32, width: u32): u32 {
  const at = lowest - 8;
  const low = longResponse(token, at >>> 5) >>> (at & 31);
  const high: u32 = (at & 31) + width > 32 ? longResponse(token, (at >>> 5) + 1) << (32 - (at & 31)) : 0;
  return (low | high) & ((1 << width) - 1);
}

/** Sectors by an eMMC's CSD in the last response (mmc.md §1.7); 0 if it says none that can be. */
function csdSectors(token: u32): u32 {
  // (C_SIZE + 1) × 2^(C_SIZE_MULT + 2) blocks of 2^READ_BL_LEN bytes.
  const blockBits = csdBits(token, 80, 4);
  if (blockBits < 9 || blockBits > 11) return 0;
  return (csdBits(token, 62, 12) + 1) << (csdBits(token, 47, 3) + 2 + blockBits - 9);
}

/**
 * The size, and whether the OCR's word on addresses can be true: it came without a CRC. More than 2 GiB are counted in
 * sectors and stand in EXT_CSD (registerBlock(token)), and the CSD says that they do. -EILSEQ: the two disagree.
 */
function takeCapacity(token: u32, csdSize: u32, bySize: u32): i32 {
  const s = shadow(token);
  const told = load<u32>(registerBlock(token) + EXT_CSD_SEC_COUNT);
  const isElsewhere = csdSize == C_SIZE_ELSEWHERE;
  if (s.addressUnit == 1) {
    if (!isElsewhere) return EILSEQ;
    s.sectors = told;
    return told != 0 ? OK : EIO;
  }
  if (isElsewhere && told != 0 && told != bySize) return EILSEQ;
  s.sectors = bySize;
  return bySize != 0 ? OK : EIO;
}

function setUpEmmc(token: u32): i32 {
  const s = shadow(token);
  s.rca = EMMC_RCA;
  let status = sendCommand(token, 3, EMMC_RCA << 16, ANSWER_R1, 0);
  if (status == OK) status = sendCommand(token, 9, EMMC_RCA << 16, ANSWER_R2, 0);
  if (status != OK) return status;
  const csdSize = csdBits(token, 62, 12);
  const bySize = csdSectors(token);
  status = sendCommand(token, 7, EMMC_RCA << 16, ANSWER_R1, 0);
  if (status == OK) status = readRegister(token, 8, 0, SECTOR_BYTES, false);
  if (status == OK) status = takeCapacity(token, csdSize, bySize);
  if (status != OK) return status;
  s.hasCmd23 = 1;
  s.hasReliableWrite = (extCsd(token, EXT_CSD_WR_REL_PARAM) >>> 2) & 1;
  s.erasesToOnes = extCsd(token, EXT_CSD_ERASED_MEM_CONT) & 1;
  const hasHpi = (extCsd(token, EXT_CSD_HPI_FEATURES) & 1) != 0;
  const partition = extCsd(token, EXT_CSD_PARTITION_CONFIG) & 7;
  const hasCache = load<u32>(registerBlock(token) + EXT_CSD_CACHE_SIZE) > 0;
  // What the card refuses (-EIO) it does without: slower, or harder to interrupt, but it works. Which modes it has then
  // the read-back tells, whatever became of the answers.
  status = switchByte(token, EXT_CSD_ERASE_GROUP_DEF, 1);
  if ((status == OK || status == EIO) && partition != 0) status = selectUserArea(token);
  if (status == OK || status == EIO) status = setBus(token);
  if (status == OK && hasHpi) status = switchByte(token, EXT_CSD_HPI_MGMT, 1);
  if ((status == OK || status == EIO) && hasCache) status = switchByte(token, EXT_CSD_CACHE_CTRL, 1);
  if (status == EIO) status = OK;
  return isLate(token) ? ETIMEDOUT : status;
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
  // CSD version 1.0 counts bytes, 2.0 sectors; the OCR, which said so first, comes without a CRC.
  if ((((longResponse(token, 3) >>> 22) & 3) != 0) != (s.addressUnit == 1)) return EILSEQ;
  status = sendCommand(token, 7, s.rca << 16, ANSWER_R1, 0);
  // The block length of SDSC need not be 512 yet; everything else has no other.
  if (status == OK && s.addressUnit != 1) status = sendOrder(token, 16, SECTOR_BYTES, ANSWER_R1, 0);
  if (status == OK) status = readRegister(token, 51, 0, 8, true);
  if (status != OK) return status;
  s.hasCmd23 = (load<u8>(registerBlock(token) + 3) >>> 1) & 1;
  const version = load<u8>(registerBlock(token)) & 15; // SD_SPEC: 0 is 1.01, 1 is 1.10, 2 is 2.00 and later
  // A card of 2.00 knows CMD8: its answer was lost.
  if (version >= 2 && s.version1 != 0) return EILSEQ;
  s.hasSwitch = version != 0 ? 1 : 0;
  s.erasesToOnes = load<u8>(registerBlock(token) + 1) >>> 7;
  s.hasReliableWrite = 0;
  s.hasHpi = 0;
  return setBus(token);
}

/** CMD8 answers on SD 2.0 and later only; an eMMC in idle is silent. */
function askConditions(token: u32): i32 {
  let status: i32 = ETIMEDOUT;
  for (let i: u32 = 0; i < CONDITIONS_MAX && status != OK && status != ENOMEDIUM; i++) {
    status = sendCommand(token, 8, 0x1aa, ANSWER_R7, 0);
  }
  return status;
}

/** `version1`: an SD card without CMD8. */
function identifyAs(token: u32, kind: u32, version1: bool): i32 {
  const s = shadow(token);
  let status = goIdle(token);
  if (status != OK) return status;
  // Whatever was on is off now, even if identification ends early, and what was cached may be gone.
  noteCacheLoss(token);
  s.unflushed = 0;
  if (kind == KIND_SD) {
    s.rca = 0;
    // HCS is for hosts of version 2.0 and for cards that have shown to be as new.
    if (!version1) {
      const condition = askConditions(token);
      if (condition != OK) return condition;
    }
    status = powerUpCard(token, true, version1 ? OCR_VOLTAGES : OCR_VOLTAGES | OCR_SECTORS);
  } else {
    status = powerUpCard(token, false, OCR_VOLTAGES | OCR_SECTORS);
  }
  const unit: u32 = (lastResponse(token) & OCR_SECTORS) != 0 ? 1 : SECTOR_BYTES;
  if (status == OK) status = checkIdentity(token, 2, 0);
  if (status != OK) return status;
  s.kind = kind;
  s.addressUnit = unit;
  s.version1 = version1 ? 1 : 0;
  status = kind == KIND_SD ? setUpSd(token) : setUpEmmc(token);
  if (status == OK) status = confirmModes(token);
  if (status == OK) status = awaitReady(token, READY_NS);
  if (status != OK) return status;
  s.hasCid = 1;
  s.identified = 1;
  return OK;
}

/** What is in the slot, if that is not known yet: CMD8 and CMD1 tell; what hears neither is an SD card of version 1. */
function identifyAny(token: u32): i32 {
  const sd = identifyAs(token, KIND_SD, false);
  if (sd == OK || sd == ENOMEDIUM) return sd;
  const emmc = identifyAs(token, KIND_EMMC, false);
  if (emmc == OK || emmc == ENOMEDIUM) return emmc;
  if (sd == ETIMEDOUT && identifyAs(token, KIND_SD, true) == OK) return OK;
  return sd == EIO ? EIO : emmc;
}

/**
 * From any state that hears CMD0 at 400 kHz on one line to tran. Errors: -ETIMEDOUT nothing answers, -ENODEV it is
 * another card than before, -ENOMEDIUM, -EIO the card refused a mode, -EILSEQ what it said was damaged, each time.
 */
export function identify(token: u32): i32 {
  const s = shadow(token);
  let status: i32 = ETIMEDOUT;
  for (let i: u32 = 0; i < IDENTIFICATIONS_MAX; i++) {
    if (!isCardPresent(token)) return ENOMEDIUM;
    // From here on nothing counts.
    s.identified = 0;
    s.modesKnown = 0;
    enableStatus(token);
    // One bit a clock and no tuning, whatever mode was left on; but CMD0 does not take a card at 1.8 V back.
    portWrite16(token, SDHCI_HOST_CONTROL2, portRead16(token, SDHCI_HOST_CONTROL2) & SDHCI_CTRL_VDD_180);
    setLines(token, 1, false);
    const clocked = setClock(token, IDENTIFICATION_KHZ);
    if (clocked != OK) return clocked;
    // What kind of card it is, a card alone can say that was identified to the end.
    status = s.hasCid != 0 ? identifyAs(token, s.kind, s.version1 != 0) : identifyAny(token);
    if (status == OK || status == ENODEV || status == ENOMEDIUM || isLate(token)) break;
  }
  return status;
}
