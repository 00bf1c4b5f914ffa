// The commands that only an eMMC has, or has in its own way (JESD84-B51 §6.10).

import { CARD_BLOCK, CONFIG_PARTITION_NS, CONFIG_SLEEP_NS, CONFIG_SWITCH_NS, EXT_CSD_BASE } from "../layout";
import { answerR1, illegal, RESPONSE_NONE, RESPONSE_R1 } from "./answer";
import { beginFlush, beginSleep, beginSwitch } from "./busy";
import { EXT_CSD_FLUSH_CACHE, EXT_CSD_PARTITION_CONFIG } from "./emmc-registers";
import { switchAllowed, switchTarget } from "./emmc-switch";
import { sendOperatingConditions } from "./operating-conditions";
import {
  card,
  NOT_MINE,
  OP_AWAKE,
  OP_SLEEP,
  R1_SWITCH_ERROR,
  raise,
  STATE_PRG,
  STATE_SLP,
  STATE_STBY,
  STATE_TRAN,
} from "./state";
import { sendRegister } from "./transfer";

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
    const isPartition = index == EXT_CSD_PARTITION_CONFIG;
    const lengthNs = load<u32>(isPartition ? CONFIG_PARTITION_NS : CONFIG_SWITCH_NS);
    beginSwitch(index, value, timeNs, lengthNs);
  }
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
      answerR1(state, 0);
      memory.copy(CARD_BLOCK, EXT_CSD_BASE, 512);
      sendRegister(512, timeNs);
      return RESPONSE_R1;
    default:
      return NOT_MINE;
  }
}
