// Card status (R1): which bits make which command a failure (JESD84-B51 §6.13, SD Physical Layer 3.01 §4.10.1;
// mmc.md §1.2). One table for the whole driver; docs/DESIGN.md prints it.
//
// A bit that names a place or the chip's own failure makes -EIO: another place may do. Every other error bit says that
// the card did not take this command, or not the one before it, as it was meant: -EILSEQ, the way is at fault, and
// both have to be sent again. CMD23 with such a bit has armed nothing: the write behind it would be neither counted
// nor durable.

import { EILSEQ, EIO, OK } from "../errno";

/** An R1 with every bit set: what of it is an error is the mask of those bits. */
export const ALL_BITS: u32 = 0xffffffff;
export const R1_APP_CMD: u32 = 1 << 5;
export const R1_SWITCH_ERROR: u32 = 1 << 7;
export const R1_READY_FOR_DATA: u32 = 1 << 8;
const R1_OUT_OF_RANGE: u32 = 1 << 31;
const R1_WP_ERASE_SKIP: u32 = 1 << 15;
/** ERASE_SEQ_ERROR, ERASE_PARAM. */
const ERASE_ERRORS: u32 = (1 << 28) | (1 << 27);
/** OUT_OF_RANGE, ADDRESS_ERROR, BLOCK_LEN_ERROR, WP_VIOLATION, CARD_ECC_FAILED, CC_ERROR, ERROR. */
const PLACE_ERRORS: u32 =
  R1_OUT_OF_RANGE | (1 << 30) | (1 << 29) | (1 << 26) | (1 << 21) | (1 << 20) | (1 << 19);
/**
 * ERASE_*, CARD_IS_LOCKED, LOCK_UNLOCK_FAILED, COM_CRC_ERROR, ILLEGAL_COMMAND, UNDERRUN, OVERRUN, CID/CSD_OVERWRITE,
 * WP_ERASE_SKIP, SWITCH_ERROR, AKE_SEQ_ERROR.
 */
const ORDER_ERRORS: u32 =
  ERASE_ERRORS |
  (1 << 25) |
  (1 << 24) |
  (1 << 23) |
  (1 << 22) |
  (1 << 18) |
  (1 << 17) |
  (1 << 16) |
  R1_WP_ERASE_SKIP |
  R1_SWITCH_ERROR |
  (1 << 3);
/** What the work behind a command leaves: LOCK_UNLOCK_FAILED, UNDERRUN, OVERRUN, CID/CSD_OVERWRITE besides. */
const WORK_ERRORS: u32 = PLACE_ERRORS | (1 << 24) | (1 << 18) | (1 << 17) | (1 << 16);

function isErase(index: u32): bool {
  return index == 38 || (index >= 32 && index <= 36);
}

/**
 * What a command's own R1 says of the command: 0, -EIO or -EILSEQ. Commands that only ask or select (7, 12, 13, 55) and
 * those of identification are answered whatever came before, and are judged by what comes of them.
 */
export function errorOfR1(index: u32, r1: u32): i32 {
  if (index < 6 || index == 7 || (index >= 9 && index <= 15) || index == 55) return OK;
  if ((r1 & (isErase(index) ? PLACE_ERRORS | ERASE_ERRORS : PLACE_ERRORS)) != 0) return EIO;
  return (r1 & ORDER_ERRORS) != 0 ? EILSEQ : OK;
}

/** The error bits that a status behind work (CMD13, CMD7) tells of it. */
export function workErrors(r1: u32): u32 {
  return r1 & WORK_ERRORS;
}

/** The same of CMD12, where OUT_OF_RANGE is none: a card may have read ahead of the host (mmc.md §1.2). */
export function stopErrorsOf(r1: u32): u32 {
  return r1 & WORK_ERRORS & ~R1_OUT_OF_RANGE;
}

/** What the status behind an erase says besides: sectors that were left out, or a sequence that was none. */
export function eraseErrors(r1: u32): u32 {
  return r1 & (WORK_ERRORS | ERASE_ERRORS | R1_WP_ERASE_SKIP);
}
