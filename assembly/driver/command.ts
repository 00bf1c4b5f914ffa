// One command, polled with a deadline: no interrupt, no lock, no sleep. Also the resets and settings of the
// controller that a command needs. Errors: -ETIMEDOUT no response or no time, -EILSEQ CRC, end bit or index,
// -EIO ADMA, -EBUSY the controller does not come free, -ENOMEDIUM the slot is empty.
import { EBUSY, EILSEQ, EIO, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
import {
  SDHCI_ARGUMENT,
  SDHCI_CARD_PRESENT,
  SDHCI_CMD_CRC,
  SDHCI_CMD_DATA,
  SDHCI_CMD_INDEX,
  SDHCI_CMD_INHIBIT,
  SDHCI_CMD_RESP_LONG,
  SDHCI_CMD_RESP_SHORT,
  SDHCI_CMD_RESP_SHORT_BUSY,
  SDHCI_COMMAND,
  SDHCI_DATA_INHIBIT,
  SDHCI_INT_ADMA_ERROR,
  SDHCI_INT_CRC,
  SDHCI_INT_DATA_CRC,
  SDHCI_INT_DATA_END_BIT,
  SDHCI_INT_DATA_TIMEOUT,
  SDHCI_INT_END_BIT,
  SDHCI_INT_INDEX,
  SDHCI_INT_RESPONSE,
  SDHCI_INT_STATUS,
  SDHCI_INT_TIMEOUT,
  SDHCI_PRESENT_STATE,
  SDHCI_RESET_CMD,
  SDHCI_RESET_DATA,
  SDHCI_RESPONSE,
  SDHCI_SOFTWARE_RESET,
} from "../sdhci/registers";
import { portDelay, portNowNs, portRead8, portRead32, portWrite8, portWrite32 } from "./port";
import { errorOfR1, R1_APP_CMD } from "./r1";
import { noteAnswer } from "./refusal";
import { isLate, isOver, shadow, untilNs } from "./shadow";

export const ANSWER_NONE: u32 = 0;
export const ANSWER_R1: u32 = SDHCI_CMD_RESP_SHORT | SDHCI_CMD_CRC | SDHCI_CMD_INDEX;
export const ANSWER_R2: u32 = SDHCI_CMD_RESP_LONG | SDHCI_CMD_CRC;
export const ANSWER_R3: u32 = SDHCI_CMD_RESP_SHORT;
export const ANSWER_R6: u32 = ANSWER_R1;
export const ANSWER_R7: u32 = ANSWER_R1;
export const ANSWER_DATA: u32 = ANSWER_R1 | SDHCI_CMD_DATA;

export const MILLISECOND: u64 = 1000000;
/** Longest command at 400 kHz is 48 + 64 + 136 clocks = 0.62 ms; ten times that. */
const COMMAND_NS: u64 = 6 * MILLISECOND;
/** Linux waits 10 ms for the inhibit bits and 100 ms for a reset (sdhci.c). */
const INHIBIT_NS: u64 = 10 * MILLISECOND;
const RESET_NS: u64 = 100 * MILLISECOND;
/** No wait polls more often than this, whatever the clock says: a clock may have stopped too. */
export const POLLS_MAX: u32 = 4000000;
const POLL_FIRST_NS: u32 = 500;
const POLL_LAST_NS: u32 = 32000;

/** The next pause of a poll loop: doubling, 0.5 µs up to 32 µs. */
export function longerPause(pauseNs: u32): u32 {
  return pauseNs == 0 ? POLL_FIRST_NS : pauseNs < POLL_LAST_NS ? pauseNs * 2 : POLL_LAST_NS;
}

/** A pause that does not run past `endNs`. */
export function pause(token: u32, lengthNs: u32, endNs: u64): void {
  const now = portNowNs(token);
  if (now >= endNs) return;
  const left = endNs - now;
  portDelay(token, left < lengthNs ? <u32>left : lengthNs);
}

/** SDHCI_RESET_CMD, then SDHCI_RESET_DATA, as two writes; each ends by itself. */
export function resetLines(token: u32, bits: u32): i32 {
  portWrite8(token, SDHCI_SOFTWARE_RESET, bits);
  const endNs = untilNs(token, RESET_NS);
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    if ((portRead8(token, SDHCI_SOFTWARE_RESET) & bits) == 0) return OK;
    if (isOver(token, endNs)) break;
    pause(token, 10000, endNs);
  }
  return EBUSY;
}

export function resetBothLines(token: u32): void {
  resetLines(token, SDHCI_RESET_CMD);
  resetLines(token, SDHCI_RESET_DATA);
}

/** The errno of SDHCI_INT_STATUS's error bits; 0 if there are none. */
export function errorOf(status: u32): i32 {
  if ((status & SDHCI_INT_TIMEOUT) != 0 && (status & SDHCI_INT_CRC) == 0) return ETIMEDOUT;
  if ((status & (SDHCI_INT_CRC | SDHCI_INT_END_BIT | SDHCI_INT_INDEX)) != 0) return EILSEQ;
  if ((status & SDHCI_INT_DATA_TIMEOUT) != 0) return ETIMEDOUT;
  if ((status & (SDHCI_INT_DATA_CRC | SDHCI_INT_DATA_END_BIT)) != 0) return EILSEQ;
  if ((status & SDHCI_INT_ADMA_ERROR) != 0 || (status & 0xffff0000) != 0) return EIO;
  return OK;
}

/** Waits until one of `bits` or an error shows in SDHCI_INT_STATUS; the bits are cleared. 0 or an errno. */
export function awaitStatus(token: u32, bits: u32, lengthNs: u64): i32 {
  const endNs = untilNs(token, lengthNs);
  let pauseNs: u32 = 0;
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    const status = portRead32(token, SDHCI_INT_STATUS);
    const error = errorOf(status);
    if (error != OK) {
      portWrite32(token, SDHCI_INT_STATUS, status);
      return error;
    }
    if ((status & bits) != 0) {
      portWrite32(token, SDHCI_INT_STATUS, status & bits);
      return OK;
    }
    if (isOver(token, endNs)) break;
    pauseNs = longerPause(pauseNs);
    pause(token, pauseNs, endNs);
  }
  return ETIMEDOUT;
}

function awaitInhibit(token: u32, mask: u32): i32 {
  const endNs = untilNs(token, INHIBIT_NS);
  let pauseNs: u32 = 0;
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    if ((portRead32(token, SDHCI_PRESENT_STATE) & mask) == 0) return OK;
    if (isOver(token, endNs)) break;
    pauseNs = longerPause(pauseNs);
    pause(token, pauseNs, endNs);
  }
  return EBUSY;
}

export function isCardPresent(token: u32): bool {
  return (portRead32(token, SDHCI_PRESENT_STATE) & SDHCI_CARD_PRESENT) != 0;
}

/** Starts a command without waiting for its end. `answer` is ANSWER_*; `mode` is SDHCI_TRANSFER_MODE. */
export function startCommand(token: u32, index: u32, argument: u32, answer: u32, mode: u32): i32 {
  const s = shadow(token);
  s.lastCommand = index;
  s.lastR1 = 0;
  if (isLate(token)) return ETIMEDOUT;
  // CMD12 is sent while the data lines are in use, that is what it is for.
  const usesData =
    (answer & SDHCI_CMD_DATA) != 0 || ((answer & 3) == SDHCI_CMD_RESP_SHORT_BUSY && index != 12);
  const free = awaitInhibit(token, usesData ? SDHCI_CMD_INHIBIT | SDHCI_DATA_INHIBIT : SDHCI_CMD_INHIBIT);
  if (free != OK) return free;
  portWrite32(token, SDHCI_INT_STATUS, 0xffffffff);
  portWrite32(token, SDHCI_ARGUMENT, argument);
  // Mode and command in one store: the command starts when its upper byte is there.
  portWrite32(token, SDHCI_COMMAND - 2, mode | (((index << 8) | answer) << 16));
  return OK;
}

/** Sends a command and waits for its response. On an error the lines are reset. */
export function sendCommand(token: u32, index: u32, argument: u32, answer: u32, mode: u32): i32 {
  let status = startCommand(token, index, argument, answer, mode);
  if (status == OK) status = awaitStatus(token, SDHCI_INT_RESPONSE, COMMAND_NS);
  if (status == OK) {
    if ((answer & 3) != 0) shadow(token).lastR1 = portRead32(token, SDHCI_RESPONSE);
    noteAnswer(token, index, argument, answer, OK, lastResponse(token));
    return OK;
  }
  if (!isCardPresent(token)) status = ENOMEDIUM;
  noteAnswer(token, index, argument, answer, status, 0);
  resetBothLines(token);
  return status;
}

/** The same, and its R1 is judged (r1.ts): -EIO or -EILSEQ where the card did not take the command. */
export function sendOrder(token: u32, index: u32, argument: u32, answer: u32, mode: u32): i32 {
  const status = sendCommand(token, index, argument, answer, mode);
  return status == OK ? errorOfR1(index, lastResponse(token)) : status;
}

/** Word 0 of the last response: R1, OCR, R6 or R7. */
export function lastResponse(token: u32): u32 {
  return shadow(token).lastR1;
}

/** Word `index` of a long response; bits 127:8 of the register in 119:0. */
export function longResponse(token: u32, index: u32): u32 {
  return portRead32(token, SDHCI_RESPONSE + (index << 2));
}

/**
 * CMD55 and the command behind it. -EILSEQ: the card did not hear, or forgot, that an application command comes; it
 * took the second one for the plain command of that index, or for none.
 */
export function sendAppCommand(token: u32, index: u32, argument: u32, answer: u32, mode: u32): i32 {
  const prefix = sendCommand(token, 55, shadow(token).rca << 16, ANSWER_R1, 0);
  if (prefix != OK) return prefix;
  if ((lastResponse(token) & R1_APP_CMD) == 0) return EILSEQ;
  const status = sendCommand(token, index, argument, answer, mode);
  if (status != OK || (answer & ANSWER_R1) != ANSWER_R1) return status;
  const r1 = lastResponse(token);
  return (r1 & R1_APP_CMD) == 0 ? EILSEQ : errorOfR1(index, r1);
}
