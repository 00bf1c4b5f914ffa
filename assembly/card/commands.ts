// A handler per command: what it checks, where the state goes, what it answers. Legality is legal.ts's; a command
// that is not legal here is answered by silence and R1_ILLEGAL_COMMAND in the next response.

import { storeBigEndian16, storeBigEndian32 } from "../bytes";
import { laterNs } from "../clock";
import {
  CARD_BLOCK,
  CONFIG_ABORT_OUTCOME,
  CONFIG_CACHE_AT_RESET,
  CONFIG_INIT_NS,
  CONFIG_SLEEP_NS,
  CONFIG_SWITCH_NS,
  EXT_CSD_BASE,
  FAULT_COMMAND_CRC,
  FAULT_NO_RESPONSE,
  FAULT_PULLED,
  STUCK_UNTIL_POWER_CYCLE,
} from "../layout";
import { beginErase, beginFlush, beginSleep, beginSwitch, dropBusy, interrupt, isBusy } from "./busy";
import { faultOnCommand } from "./faults";
import { isAppCommand, isLegal } from "./legal";
import { mediumSectors } from "./medium";
import {
  ERASE_GROUP_SECTORS,
  EXT_CSD_FLUSH_CACHE,
  EXT_CSD_HPI_MGMT,
  extCsd,
  resetVolatileRegisters,
  SCR_OFFSET,
} from "./registers";
import {
  Card,
  card,
  isEmmc,
  OP_AWAKE,
  OP_SLEEP,
  R1_APP_CMD,
  R1_BLOCK_LEN_ERROR,
  R1_COM_CRC_ERROR,
  R1_ERASE_PARAM,
  R1_ERASE_RESET,
  R1_ERASE_SEQ_ERROR,
  R1_ILLEGAL_COMMAND,
  R1_OUT_OF_RANGE,
  R1_READY_FOR_DATA,
  R1_SWITCH_ERROR,
  raise,
  STATE_DATA,
  STATE_DIS,
  STATE_IDENT,
  STATE_IDLE,
  STATE_INA,
  STATE_PRG,
  STATE_READY,
  STATE_SLP,
  STATE_STBY,
  STATE_TRAN,
} from "./state";
import { switchAllowed, switchFunction, switchTarget } from "./switch";
import { sendRegister, startTransfer } from "./transfer";

export const RESPONSE_NONE: u32 = 0;
export const RESPONSE_R1: u32 = 1;
export const RESPONSE_R2: u32 = 2;
export const RESPONSE_R3: u32 = 3; // no CRC, index 0x3f
export const RESPONSE_R6: u32 = 6;
export const RESPONSE_R7: u32 = 7;

/** The RCA an SD card publishes. */
const SD_RCA: u32 = 0x1234;
const OCR_VOLTAGES: u32 = 0x00ff8000; // 2.7-3.6 V
const OCR_LOW_VOLTAGE: u32 = 0x80; // 1.70-1.95 V, eMMC
const OCR_SECTORS: u32 = 1 << 30;
const OCR_POWERED_UP: u32 = 1 << 31;

/** Card status as of the arrival of the command: `state` is the one before it. Told errors are forgotten. */
function answerR1(state: u32, errors: u32): u32 {
  const c = card();
  let status = c.status | errors | (state << 9);
  if (!isBusy()) status |= R1_READY_FOR_DATA;
  if (c.appCommand != 0) status |= R1_APP_CMD;
  c.status = 0;
  c.response0 = status;
  return RESPONSE_R1;
}

function answerR2(c: Card, first: u32, second: u32, third: u32, fourth: u32): u32 {
  c.response0 = first;
  c.response1 = second;
  c.response2 = third;
  c.response3 = fourth;
  return RESPONSE_R2;
}

/** CMD0: whatever it was, it is over; SD keeps its voltage, which is not modelled (3.3 V only). */
function goIdle(): void {
  const c = card();
  dropBusy(load<u32>(CONFIG_ABORT_OUTCOME), load<u32>(CONFIG_CACHE_AT_RESET) != 0 ? 0xffffffff : 0);
  c.state = STATE_IDLE;
  c.rca = isEmmc() ? 1 : 0;
  c.status = 0;
  c.busWidth = 1;
  c.highSpeed = 0;
  c.partition = 0;
  c.countArmed = 0;
  c.appCommand = 0;
  c.eraseStep = 0;
  c.initUntilNs = 0;
  resetVolatileRegisters();
}

/** CMD1 and ACMD41: the first call with voltages starts the clock, ready when it has run. */
function sendOperatingConditions(argument: u32, timeNs: u64): u32 {
  const c = card();
  let ocr = OCR_VOLTAGES | (isEmmc() ? OCR_LOW_VOLTAGE : 0);
  const voltages = argument & 0x00ffff80;
  if (voltages != 0) {
    if ((voltages & ocr) == 0) {
      c.state = STATE_INA;
      return RESPONSE_NONE;
    }
    // 0 = not started, so a card that is ready at once at time 0 is ready at 1 ns.
    if (c.initUntilNs == 0) c.initUntilNs = laterNs(timeNs + load<u32>(CONFIG_INIT_NS), 1);
    // A host that cannot address sectors never sees such a card ready.
    if (timeNs >= c.initUntilNs && (argument & OCR_SECTORS) != 0) {
      c.state = STATE_READY;
      ocr |= OCR_POWERED_UP | OCR_SECTORS;
    } else if (isEmmc()) {
      ocr |= OCR_SECTORS;
    }
  } else if (isEmmc()) {
    ocr |= OCR_SECTORS;
  }
  c.response0 = ocr;
  return RESPONSE_R3;
}

/** CMD7: selects on the card's own RCA, deselects on any other. Returns the kind of answer. */
function select(argument: u32): u32 {
  const c = card();
  const state = c.state;
  if (argument >>> 16 == c.rca && c.rca != 0) {
    if (state == STATE_STBY) {
      c.state = STATE_TRAN;
      return answerR1(state, 0);
    }
    if (state == STATE_DIS) {
      c.state = STATE_PRG;
      return answerR1(state, 0);
    }
    return illegal();
  }
  if (state == STATE_TRAN || state == STATE_DATA) c.state = STATE_STBY;
  else if (state == STATE_PRG) c.state = STATE_DIS;
  return RESPONSE_NONE;
}

function illegal(): u32 {
  raise(R1_ILLEGAL_COMMAND);
  return RESPONSE_NONE;
}

/** CMD12. eMMC in prg: only as HPI. */
function stopTransmission(argument: u32, timeNs: u64): u32 {
  const c = card();
  const state = c.state;
  if (state == STATE_PRG) {
    if ((argument & 1) == 0 || extCsd(EXT_CSD_HPI_MGMT) == 0) return illegal();
    answerR1(state, 0);
    interrupt(timeNs, load<u32>(CONFIG_ABORT_OUTCOME));
    return RESPONSE_R1;
  }
  answerR1(state, 0);
  if (state == STATE_DATA) c.state = STATE_TRAN;
  else c.state = isBusy() ? STATE_PRG : STATE_TRAN;
  return RESPONSE_R1;
}

function sendStatus(argument: u32, timeNs: u64): u32 {
  const state = card().state;
  answerR1(state, 0);
  if (isEmmc() && (argument & 1) != 0 && state == STATE_PRG && extCsd(EXT_CSD_HPI_MGMT) != 0) {
    interrupt(timeNs, load<u32>(CONFIG_ABORT_OUTCOME));
  }
  return RESPONSE_R1;
}

/** CMD6 of an eMMC: R1 at once, the byte when the switch time is over, R1_SWITCH_ERROR told by the next CMD13. */
function switchByte(argument: u32, timeNs: u64): u32 {
  const c = card();
  const index = (argument >>> 16) & 0xff;
  const value = switchTarget(argument);
  answerR1(STATE_TRAN, 0);
  c.state = STATE_PRG;
  if (value > 0xff || !switchAllowed(index, value)) {
    raise(R1_SWITCH_ERROR);
    beginSwitch(0, 0, timeNs, 0);
  } else if (index == EXT_CSD_FLUSH_CACHE) {
    beginFlush(timeNs);
  } else {
    beginSwitch(index, value, timeNs, load<u32>(CONFIG_SWITCH_NS));
  }
  return RESPONSE_R1;
}

function readOrWrite(index: u32, argument: u32, timeNs: u64): u32 {
  const started = startTransfer(index >= 24, index == 18 || index == 25, argument, timeNs);
  return answerR1(STATE_TRAN, started ? 0 : R1_OUT_OF_RANGE);
}

/** CMD35/36 (SD 32/33): first and last sector of an erase, in this order. */
function eraseBound(isLast: bool, argument: u32): u32 {
  const c = card();
  let errors: u32 = 0;
  if (argument >= mediumSectors(c.partition)) errors = R1_OUT_OF_RANGE;
  else if (isLast && c.eraseStep != 1) errors = R1_ERASE_SEQ_ERROR;
  if (errors != 0) {
    c.eraseStep = 0;
  } else if (isLast) {
    c.eraseLast = argument;
    c.eraseStep = 2;
  } else {
    c.eraseFirst = argument;
    c.eraseStep = 1;
  }
  return answerR1(STATE_TRAN, errors);
}

/** CMD38. eMMC: 0 erases whole groups, 1 (trim) and 3 (discard) sectors; SD: sectors. */
function erase(argument: u32, timeNs: u64): u32 {
  const c = card();
  if (c.eraseStep != 2) {
    c.eraseStep = 0;
    return answerR1(STATE_TRAN, R1_ERASE_SEQ_ERROR);
  }
  c.eraseStep = 0;
  let first = c.eraseFirst;
  let last = c.eraseLast;
  if (first > last || (isEmmc() ? argument != 0 && argument != 1 && argument != 3 : argument > 1)) {
    return answerR1(STATE_TRAN, R1_ERASE_PARAM);
  }
  if (isEmmc() && argument == 0) {
    // Without ERASE_GROUP_DEF the groups are those of the CSD: 32 × 32 sectors, the same size here.
    first = first - (first % ERASE_GROUP_SECTORS);
    last = last - (last % ERASE_GROUP_SECTORS) + ERASE_GROUP_SECTORS - 1;
    const end = mediumSectors(c.partition) - 1;
    if (last > end) last = end;
  }
  answerR1(STATE_TRAN, 0);
  c.state = STATE_PRG;
  beginErase(first, last, timeNs);
  return RESPONSE_R1;
}

function sleepOrAwake(argument: u32, timeNs: u64): u32 {
  const c = card();
  const sleep = (argument & 0x8000) != 0;
  if (argument >>> 16 != c.rca) return RESPONSE_NONE;
  if (sleep != (c.state == STATE_STBY)) return illegal();
  answerR1(c.state, 0);
  c.state = sleep ? STATE_SLP : STATE_STBY;
  beginSleep(sleep ? OP_SLEEP : OP_AWAKE, timeNs, load<u32>(CONFIG_SLEEP_NS));
  return RESPONSE_R1;
}

function publishAddress(): u32 {
  const c = card();
  const state = c.state;
  c.rca = SD_RCA;
  c.state = STATE_STBY;
  answerR1(state, 0);
  const r1 = c.response0;
  // R6 carries status bits 23, 22, 19 and 12:0.
  c.response0 = (SD_RCA << 16) | ((r1 >>> 8) & 0xc000) | ((r1 >>> 6) & 0x2000) | (r1 & 0x1fff);
  return RESPONSE_R6;
}

function applicationCommand(index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  switch (index) {
    case 41:
      return sendOperatingConditions(argument, timeNs);
    case 6:
      answerR1(STATE_TRAN, (argument & ~2) != 0 ? R1_OUT_OF_RANGE : 0);
      if ((argument & ~2) == 0) c.busWidth = argument == 2 ? 4 : 1;
      return RESPONSE_R1;
    case 13:
      answerR1(STATE_TRAN, 0);
      memory.copy(CARD_BLOCK, EXT_CSD_BASE, 64);
      storeBigEndian16(CARD_BLOCK, c.busWidth == 4 ? 0x8000 : 0);
      sendRegister(64, timeNs);
      return RESPONSE_R1;
    case 22:
      answerR1(STATE_TRAN, 0);
      storeBigEndian32(CARD_BLOCK, c.writtenBlocks);
      sendRegister(4, timeNs);
      return RESPONSE_R1;
    case 51:
      answerR1(STATE_TRAN, 0);
      memory.copy(CARD_BLOCK, EXT_CSD_BASE + SCR_OFFSET, 8);
      sendRegister(8, timeNs);
      return RESPONSE_R1;
    default: // 23 (pre-erase count, a hint) and 42 (card detect pull-up)
      return answerR1(STATE_TRAN, 0);
  }
}

function plainCommand(index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  const state = c.state;
  switch (index) {
    case 0:
      goIdle();
      return RESPONSE_NONE;
    case 1:
      return sendOperatingConditions(argument, timeNs);
    case 2:
      c.state = STATE_IDENT;
      return answerR2(c, c.cid0, c.cid1, c.cid2, c.cid3);
    case 3:
      if (!isEmmc()) return publishAddress();
      c.rca = argument >>> 16;
      c.state = STATE_STBY;
      return answerR1(state, 0);
    case 4:
      return RESPONSE_NONE;
    case 5:
      return sleepOrAwake(argument, timeNs);
    case 6:
      if (isEmmc()) return switchByte(argument, timeNs);
      answerR1(state, 0);
      switchFunction(argument);
      sendRegister(64, timeNs);
      return RESPONSE_R1;
    case 7:
      return select(argument);
    case 8:
      if (!isEmmc()) {
        if (((argument >>> 8) & 15) != 1) return RESPONSE_NONE;
        c.response0 = argument & 0xfff;
        return RESPONSE_R7;
      }
      answerR1(state, 0);
      memory.copy(CARD_BLOCK, EXT_CSD_BASE, 512);
      sendRegister(512, timeNs);
      return RESPONSE_R1;
    case 9:
      return answerR2(c, c.csd0, c.csd1, c.csd2, c.csd3);
    case 10:
      return answerR2(c, c.cid0, c.cid1, c.cid2, c.cid3);
    case 12:
      return stopTransmission(argument, timeNs);
    case 13:
      return sendStatus(argument, timeNs);
    case 15:
      c.state = STATE_INA;
      return RESPONSE_NONE;
    case 16:
      return answerR1(state, argument == 512 ? 0 : R1_BLOCK_LEN_ERROR);
    case 17:
    case 18:
    case 24:
    case 25:
      return readOrWrite(index, argument, timeNs);
    case 23:
      c.countArmed = 1;
      c.countArgument = argument;
      return answerR1(state, 0);
    case 32:
    case 35:
      return eraseBound(false, argument);
    case 33:
    case 36:
      return eraseBound(true, argument);
    case 38:
      return erase(argument, timeNs);
    case 55:
      c.appCommand = 1;
      return answerR1(state, 0);
    default:
      return illegal();
  }
}

/** Commands that name a card by its RCA in bits 31:16. CMD7 and 5 look themselves. */
function namesAnotherCard(index: u32, argument: u32): bool {
  const c = card();
  if (index == 55 && c.state == STATE_IDLE) return false;
  const named = index == 9 || index == 10 || index == 13 || index == 15 || index == 55;
  return named && argument >>> 16 != c.rca;
}

/**
 * A command has arrived at `timeNs`. Returns RESPONSE_* with the content in response0 … 3.
 * A wrong CRC7, an unknown index or a command that is not legal now is answered by silence (mmc.md §1.4).
 */
export function receiveCommand(index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  if (faultOnCommand(FAULT_PULLED, index)) c.pulled = 1;
  if (c.power == 0 || c.pulled != 0 || c.state == STATE_INA) return RESPONSE_NONE;
  // A wedged chip hears nothing until its supply is gone.
  if (c.opStuck == 1 + STUCK_UNTIL_POWER_CYCLE && index == 0) return RESPONSE_NONE;
  const app = c.appCommand != 0 && !isEmmc() && isAppCommand(index);
  if (faultOnCommand(FAULT_COMMAND_CRC, index)) {
    raise(R1_COM_CRC_ERROR);
    c.countArmed = 0;
    return RESPONSE_NONE;
  }
  if (c.state == STATE_SLP && isBusy() && index != 0) return RESPONSE_NONE;
  const eraseContinues =
    index == 13 || index == 38 || (isEmmc() ? index == 35 || index == 36 : index == 32 || index == 33);
  if (c.eraseStep != 0 && !eraseContinues) {
    c.eraseStep = 0;
    raise(R1_ERASE_RESET);
  }
  let response = RESPONSE_NONE;
  if (!isLegal(isEmmc(), app, index, c.state)) {
    c.appCommand = 0;
    c.countArmed = 0;
    // SDIO's commands are not for a memory card: no answer, and no complaint either. eMMC in idle likewise.
    const probe = isEmmc()
      ? c.state == STATE_IDLE && (index == 5 || index == 8 || index == 52 || index == 55)
      : index == 5 || index == 52 || index == 53;
    if (!probe) raise(R1_ILLEGAL_COMMAND);
    return response;
  }
  if (!app && namesAnotherCard(index, argument)) return response;
  // App commands answer with APP_CMD still set; a plain command behind CMD55 runs as itself.
  if (index != 55 && !app) c.appCommand = 0;
  response = app ? applicationCommand(index, argument, timeNs) : plainCommand(index, argument, timeNs);
  if (index != 55) c.appCommand = 0;
  if (index != 23) c.countArmed = 0;
  // The bits about the command before are told once or not at all.
  c.status = c.status & ~(response != RESPONSE_NONE ? R1_COM_CRC_ERROR | R1_ILLEGAL_COMMAND : 0);
  if (faultOnCommand(FAULT_NO_RESPONSE, index)) return RESPONSE_NONE;
  return response;
}
