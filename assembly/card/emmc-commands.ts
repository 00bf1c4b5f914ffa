// The commands that only an eMMC has, or has in its own way (JESD84-B51 §6.10).

import { CARD_BLOCK, CONFIG_SLEEP_NS, EXT_CSD_BASE } from "../layout";
import { answerR1, illegal, RESPONSE_NONE, RESPONSE_R1 } from "./answer";
import { beginBackground, beginFlush, beginSleep, beginSwitch } from "./busy";
import {
  bkopsLevel,
  EXT_CSD_BKOPS_STATUS,
  EXT_CSD_BOOT_WP_STATUS,
  EXT_CSD_EXCEPTION_EVENTS_STATUS,
  EXT_CSD_FLUSH_CACHE,
  EXT_CSD_POWER_OFF_NOTIFICATION,
  exceptionEvents,
  setExtCsd,
} from "./emmc-registers";
import {
  isBackground,
  isCommandSet,
  resumeFromNotification,
  switchAllowed,
  switchNs,
  switchTarget,
  TIMING_HS200,
} from "./emmc-switch";
import { sendOperatingConditions } from "./operating-conditions";
import {
  card,
  NOT_MINE,
  OP_AWAKE,
  OP_SLEEP,
  R1_SWITCH_ERROR,
  raise,
  SOURCE_CID,
  SOURCE_CSD,
  STATE_PRG,
  STATE_SLP,
  STATE_STBY,
  STATE_TRAN,
} from "./state";
import { receiveRegister, sendRegister } from "./transfer";
import { prepareTuningBlock } from "./tuning";
import { bootProtectionStatus } from "./write-protect";
import { sendProtection, setProtection } from "./write-protect-commands";

/** CMD6 of an eMMC: R1 at once, the byte when the switch time is over, R1_SWITCH_ERROR told by the next CMD13. */
function switchByte(argument: u32, timeNs: u64): u32 {
  const c = card();
  const index = (argument >>> 16) & 0xff;
  const value = switchTarget(argument);
  answerR1(STATE_TRAN, 0);
  c.state = STATE_PRG;
  if (isCommandSet(argument)) {
    beginSwitch(0, 0, timeNs, switchNs(0, 0));
  } else if (value > 0xff || !switchAllowed(index, value)) {
    raise(R1_SWITCH_ERROR);
    beginSwitch(0, 0, timeNs, 0);
  } else if (index == EXT_CSD_FLUSH_CACHE) {
    beginFlush(timeNs);
  } else if (isBackground(index)) {
    beginBackground(index, timeNs);
  } else {
    beginSwitch(index, value, timeNs, switchNs(index, value));
  }
  return RESPONSE_R1;
}

/** CMD8, with the bytes that tell of something else as of now. */
function sendExtCsd(timeNs: u64): u32 {
  answerR1(STATE_TRAN, 0);
  setExtCsd(EXT_CSD_BKOPS_STATUS, bkopsLevel());
  setExtCsd(EXT_CSD_EXCEPTION_EVENTS_STATUS, exceptionEvents());
  setExtCsd(EXT_CSD_BOOT_WP_STATUS, bootProtectionStatus());
  memory.copy(CARD_BLOCK, EXT_CSD_BASE, 512);
  sendRegister(512, timeNs);
  return RESPONSE_R1;
}

/** CMD21: only in HS200, where there is something to tune. */
function sendTuningBlock(timeNs: u64): u32 {
  const c = card();
  if (c.highSpeed != TIMING_HS200) return illegal();
  answerR1(STATE_TRAN, 0);
  sendRegister(prepareTuningBlock(c.busWidth), timeNs);
  return RESPONSE_R1;
}

/** CMD26 and CMD27: 16 bytes follow. With two bits a clock they are illegal (EXT_CSD byte 130 is 0). */
function programRegister(source: u32): u32 {
  if (card().dualRate != 0) return illegal();
  answerR1(STATE_TRAN, 0);
  receiveRegister(source, 16);
  return RESPONSE_R1;
}

/** CMD5: bit 15 = sleep (from stby), else awake (from slp). */
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

/** Answers an eMMC's own command; NOT_MINE for those that both kinds of card have. The command is legal here. */
export function emmcCommand(index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  const state = c.state;
  // Work: everything that reads, writes, erases or protects, and CMD6 of any other byte.
  const isNotification = index == 6 && ((argument >>> 16) & 0xff) == EXT_CSD_POWER_OFF_NOTIFICATION;
  if ((index == 6 && !isNotification) || (index >= 17 && index <= 38)) resumeFromNotification();
  switch (index) {
    case 1:
      return sendOperatingConditions(argument, timeNs);
    case 3:
      c.rca = argument >>> 16;
      c.state = STATE_STBY;
      return answerR1(state, 0);
    case 5:
      return sleepOrAwake(argument, timeNs);
    case 6:
      return switchByte(argument, timeNs);
    case 8:
      return sendExtCsd(timeNs);
    case 16:
      return c.dualRate != 0 ? illegal() : NOT_MINE;
    case 21:
      return sendTuningBlock(timeNs);
    case 26:
      return programRegister(SOURCE_CID);
    case 27:
      return programRegister(SOURCE_CSD);
    case 28:
    case 29:
      return setProtection(argument, index == 28, timeNs);
    case 30:
    case 31:
      return sendProtection(argument, index == 31, timeNs);
    default:
      return NOT_MINE;
  }
}
