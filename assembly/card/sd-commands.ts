// The commands that only an SD card has, or has in its own way, and the application commands (SD 3.01 §4.7.4).

import { storeBigEndian16, storeBigEndian32 } from "../bytes";
import { CARD_BLOCK, EXT_CSD_BASE } from "../layout";
import { sectorOf } from "./address";
import { answerR1, RESPONSE_NONE, RESPONSE_R1, RESPONSE_R6, RESPONSE_R7 } from "./answer";
import { beginControl } from "./busy";
import { sendOperatingConditions } from "./operating-conditions";
import { groupBits, hasGroup, protectGroup } from "./sd-protect";
import { SCR_OFFSET } from "./sd-registers";
import { switchFunction } from "./sd-switch";
import { tuningBlock } from "./sd-tuning";
import {
  card,
  NOT_MINE,
  R1_OUT_OF_RANGE,
  SOURCE_CSD,
  STATE_PRG,
  STATE_STBY,
  STATE_TRAN,
  VOLTAGE_CHANGING,
} from "./state";
import { receiveRegister, sendRegister } from "./transfer";

/** The RCA that a new SD card publishes first, and how far the next one is: odd, so that none comes soon again. */
const FIRST_RCA: u32 = 0x1234;
const RCA_STEP: u32 = 0x3b2d;

/** CMD3: another address each time, behind CMD0 and the supply too: a host that keeps an old one is found out. */
function publishAddress(): u32 {
  const c = card();
  const state = c.state;
  let rca = c.published == 0 ? FIRST_RCA : (c.published + RCA_STEP) & 0xffff;
  // 0 names no card.
  if (rca == 0) rca = RCA_STEP;
  c.published = rca;
  c.rca = rca;
  c.state = STATE_STBY;
  answerR1(state, 0);
  const r1 = c.response0;
  // R6 carries status bits 23, 22, 19 and 12:0.
  c.response0 = (rca << 16) | ((r1 >>> 8) & 0xc000) | ((r1 >>> 6) & 0x2000) | (r1 & 0x1fff);
  return RESPONSE_R6;
}

/** CMD11: from the response on the card holds DAT low until the host's 1.8 V are there (mmc.md §1.6). */
function switchVoltage(): u32 {
  const c = card();
  answerR1(c.state, 0);
  c.voltage = VOLTAGE_CHANGING;
  return RESPONSE_R1;
}

/** R1, and busy for a programming time. */
function answerBusy(timeNs: u64): u32 {
  answerR1(STATE_TRAN, 0);
  card().state = STATE_PRG;
  beginControl(timeNs);
  return RESPONSE_R1;
}

/** CMD28, 29 and 30 (SDSC): the write protection of the group that an address lies in. */
function writeProtection(index: u32, argument: u32, timeNs: u64): u32 {
  const lba = sectorOf(argument);
  if (!hasGroup(lba)) return answerR1(STATE_TRAN, R1_OUT_OF_RANGE);
  if (index == 30) {
    answerR1(STATE_TRAN, 0);
    storeBigEndian32(CARD_BLOCK, groupBits(lba));
    sendRegister(4, timeNs);
    return RESPONSE_R1;
  }
  protectGroup(lba, index == 28);
  return answerBusy(timeNs);
}

/** The SD status: the SSR with the present bus width in it. */
export function sdStatus(ptr: usize): void {
  memory.copy(ptr, EXT_CSD_BASE, 64);
  storeBigEndian16(ptr, card().busWidth == 4 ? 0x8000 : 0);
}

/** A command behind CMD55. It is legal here. */
export function sdAppCommand(index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  switch (index) {
    case 41:
      return sendOperatingConditions(argument, timeNs);
    case 6:
      // Bits 31:2 are stuff: drivers in the field send the RCA there. 01 and 11 are reserved.
      answerR1(STATE_TRAN, (argument & 1) != 0 ? R1_OUT_OF_RANGE : 0);
      if ((argument & 1) == 0) c.busWidth = (argument & 2) != 0 ? 4 : 1;
      return RESPONSE_R1;
    case 13:
      answerR1(STATE_TRAN, 0);
      sdStatus(CARD_BLOCK);
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
    // 23: how many blocks the next CMD25 brings, a hint that this card needs not: it erases when it programs. 42: the
    // pull-up on DAT3, which no line here shows.
    default:
      return answerR1(STATE_TRAN, 0);
  }
}

/** Answers an SD card's own command; NOT_MINE for those that both kinds of card have. The command is legal here. */
export function sdCommand(index: u32, argument: u32, timeNs: u64): u32 {
  switch (index) {
    case 3:
      return publishAddress();
    case 6:
      answerR1(card().state, 0);
      sendRegister(64, timeNs);
      switchFunction(argument);
      return RESPONSE_R1;
    case 11:
      return switchVoltage();
    case 19:
      answerR1(STATE_TRAN, 0);
      tuningBlock(CARD_BLOCK);
      sendRegister(64, timeNs);
      return RESPONSE_R1;
    case 20:
      // Speed class control: where a recording lies is nothing to a card that is equally fast everywhere.
      return answerBusy(timeNs);
    case 27:
      answerR1(STATE_TRAN, 0);
      receiveRegister(SOURCE_CSD, 16);
      return RESPONSE_R1;
    case 28:
    case 29:
    case 30:
      return writeProtection(index, argument, timeNs);
    case 8:
      // Only the 2.7-3.6 V window is ours; any other is met with silence.
      if (((argument >>> 8) & 15) != 1) return RESPONSE_NONE;
      card().response0 = argument & 0xfff;
      return RESPONSE_R7;
    default:
      return NOT_MINE;
  }
}
