// What a command is answered with: R1 as the specification has it, R2, or silence.

import { isBusy } from "./busy";
import { hasExceptionEvent } from "./emmc-registers";
import {
  Card,
  card,
  isEmmc,
  R1_APP_CMD,
  R1_CARD_IS_LOCKED,
  R1_EXCEPTION_EVENT,
  R1_ILLEGAL_COMMAND,
  R1_READY_FOR_DATA,
  raise,
} from "./state";

export const RESPONSE_NONE: u32 = 0;
export const RESPONSE_R1: u32 = 1;
export const RESPONSE_R2: u32 = 2;
export const RESPONSE_R3: u32 = 3; // no CRC, index 0x3f
export const RESPONSE_R6: u32 = 6;
export const RESPONSE_R7: u32 = 7;

/** Card status as of the arrival of the command: `state` is the one before it. Told errors are forgotten. */
export function answerR1(state: u32, errors: u32): u32 {
  const c = card();
  let status = c.status | errors | (state << 9);
  if (!isBusy()) status |= R1_READY_FOR_DATA;
  if (c.appCommand != 0) status |= R1_APP_CMD;
  if (c.locked != 0) status |= R1_CARD_IS_LOCKED;
  if (isEmmc() && hasExceptionEvent()) status |= R1_EXCEPTION_EVENT;
  c.status = 0;
  c.response0 = status;
  return RESPONSE_R1;
}

export function answerR2(c: Card, first: u32, second: u32, third: u32, fourth: u32): u32 {
  c.response0 = first;
  c.response1 = second;
  c.response2 = third;
  c.response3 = fourth;
  return RESPONSE_R2;
}

/** Not here, not now: no answer, and ILLEGAL_COMMAND in the next R1. */
export function illegal(): u32 {
  raise(R1_ILLEGAL_COMMAND);
  return RESPONSE_NONE;
}
