// The card's end of the wires: frames come in and are checked before a command is one, responses and blocks
// go out with their CRCs, and a fault of the plan turns over one bit on the way, so that the check at the
// other end really fails.

import { BLOCK_INTACT, breakBlock, driveBlock, takeBlock } from "../bus/block";
import {
  breakFrame,
  breakLong,
  frameContent,
  frameCrcIsGood,
  frameIndex,
  longHead,
  plainResponseFrame,
  responseFrame,
  sendLong,
} from "../bus/frame";
import {
  FAULT_COMMAND_CRC,
  FAULT_RESPONSE_CRC,
  FAULT_WRITE_CRC,
  FAULT_WRONG_INDEX,
  STUCK_UNTIL_POWER_CYCLE,
} from "../layout";
import { RESPONSE_NONE, RESPONSE_R2, RESPONSE_R3 } from "./answer";
import { faultsBefore, receiveCommand } from "./commands";
import { faultOnBlock, faultOnCommand } from "./faults";
import { Card, card, R1_COM_CRC_ERROR, raise, SOURCE_MEDIUM, STATE_INA } from "./state";
import { BLOCK_BAD_CRC, BLOCK_NONE, expectsBlock, receiveBlock, sendBlock } from "./transfer";

/** Stands for the sector of a register's block: docs/FAULTS.md. */
const NO_LBA: u32 = 0xffffffff;

function listens(c: Card, index: u32): bool {
  if (c.power == 0 || c.pulled != 0 || c.gone != 0 || c.state == STATE_INA) return false;
  return c.opStuck != 1 + STUCK_UNTIL_POWER_CYCLE || index != 0;
}

/** 48 bits have come in. Returns RESPONSE_*; a frame whose CRC7 is wrong is no command (mmc.md §1.4). */
export function receiveFrame(sent: u64, timeNs: u64): u32 {
  const c = card();
  const index = frameIndex(sent);
  const broken = listens(c, index) && faultOnCommand(FAULT_COMMAND_CRC, index);
  const bits = broken ? breakFrame(sent, index) : sent;
  if (frameCrcIsGood(bits)) return receiveCommand(frameIndex(bits), frameContent(bits), timeNs);
  faultsBefore(index, timeNs);
  if (!listens(c, index)) return RESPONSE_NONE;
  raise(R1_COM_CRC_ERROR);
  c.countArmed = 0;
  return RESPONSE_NONE;
}

/** The response goes out: its 48 bits, or the first 48 of a long one, whose register then lies in WIRE. */
export function answerFrame(kind: u32, index: u32): u64 {
  const c = card();
  // An R3 has no CRC that could be wrong: noise on it is nobody's to see, and the plan leaves it alone.
  if (kind == RESPONSE_R3) return plainResponseFrame(c.response0);
  const broken = faultOnCommand(FAULT_RESPONSE_CRC, index);
  if (kind == RESPONSE_R2) {
    sendLong(c.response0, c.response1, c.response2, c.response3);
    if (broken) breakLong(index);
    return longHead();
  }
  // The plan may answer in another command's name.
  const named = faultOnCommand(FAULT_WRONG_INDEX, index) ? index ^ 1 : index;
  const bits = responseFrame(named, c.response0);
  return broken ? breakFrame(bits, index) : bits;
}

/** The next block of a read goes out to `ptr` (room for SECTOR_BYTES). False: none comes. */
export function giveBlock(ptr: usize, timeNs: u64): bool {
  const c = card();
  const bytes = c.transferBlockBytes;
  const lba = c.transferSource == SOURCE_MEDIUM ? c.transferLba : NO_LBA;
  const block = sendBlock(ptr, timeNs);
  if (block == BLOCK_NONE) return false;
  driveBlock(bytes, c.busWidth);
  // A line that is held down has bits of nobody.
  if (block == BLOCK_BAD_CRC || c.datStuck != 0) breakBlock(ptr, lba);
  return true;
}

/** A block has come in at `ptr`. Returns the CRC status token; CRC_STATUS_NONE if the card wanted none. */
export function acceptBlock(ptr: usize, bytes: u32, timeNs: u64): u32 {
  const c = card();
  if (!expectsBlock()) return receiveBlock(ptr, bytes, false, timeNs);
  // Of a block that is bad already no fault is counted: it changes nothing.
  const whole = bytes == c.transferBlockBytes;
  const lba = c.transferSource == SOURCE_MEDIUM ? c.transferLba : NO_LBA;
  const broken = whole && faultOnBlock(FAULT_WRITE_CRC, lba) != 0;
  if (broken || c.datStuck != 0) breakBlock(ptr, lba);
  const intact = takeBlock(ptr, c.transferBlockBytes, c.busWidth) == BLOCK_INTACT;
  return receiveBlock(ptr, bytes, intact, timeNs);
}
