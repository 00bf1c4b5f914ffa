// Blocks through the port: CMD17, 18, 24, 25 with CMD12 or CMD23, by PIO or ADMA2, and the waiting for the card that
// belongs to them. A failed transfer is stopped (CMD12) and the lines are reset; the card may still be in
// any state, which is takeover.ts's business.

import { admaTable, registerBlock } from "../buffers";
import { EILSEQ, EINVAL, EIO, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
import { BOUNCE_SECTORS, SECTOR_BYTES } from "../layout";
import { holds } from "../owner";
import {
  SDHCI_ADMA_ADDRESS,
  SDHCI_BLOCK_SIZE,
  SDHCI_BUFFER_PORT,
  SDHCI_DAT_0_LEVEL,
  SDHCI_INT_DATA_AVAIL,
  SDHCI_INT_DATA_END,
  SDHCI_INT_SPACE_AVAIL,
  SDHCI_PRESENT_STATE,
  SDHCI_TRNS_BLK_CNT_EN,
  SDHCI_TRNS_DMA,
  SDHCI_TRNS_MULTI,
  SDHCI_TRNS_READ,
} from "../sdhci/registers";
import {
  ANSWER_DATA,
  ANSWER_R1,
  awaitStatus,
  isCardPresent,
  lastResponse,
  longerPause,
  MILLISECOND,
  POLLS_MAX,
  pause,
  resetBothLines,
  sendAppCommand,
  sendCommand,
  sendOrder,
} from "./command";
import { portRead32, portWrite32 } from "./port";
import { ALL_BITS, R1_READY_FOR_DATA, stopErrorsOf, workErrors } from "./r1";
import { setHostControl } from "./setup";
import {
  addressOf,
  isLate,
  isOver,
  noteCacheLoss,
  outcome,
  shadow,
  untilNs,
  usesCmd23,
  usesDma,
} from "./shadow";

/** CMD23 argument bits. */
export const WRITE_RELIABLE: u32 = 1 << 31;
export const WRITE_FORCED: u32 = 1 << 24;

/** Linux's data timeouts (mmc.md §1.10): eMMC with TAAC 40 ms 400 ms and 1.6 s; SD 100 ms and 3 s. */
export const READ_NS: u64 = 400 * MILLISECOND;
export const WRITE_NS: u64 = 3000 * MILLISECOND;
/** With DMA one wait covers all blocks. Each may take the longest busy of §1.10; the controller times each one out. */
const DMA_BLOCK_NS: u64 = 500 * MILLISECOND;
const CARD_STATE_STBY: u32 = 3;
const CARD_STATE_TRAN: u32 = 4;
const CARD_STATE_DATA: u32 = 5;
const CARD_STATE_RCV: u32 = 6;
const CARD_STATE_DIS: u32 = 8;
/** So many polls of a busy line, some 8 ms, and the card itself is asked whether it is busy. */
const ASK_EVERY: u32 = 256;
/** A write is done once more when the card's word on it was lost. */
const WRITES_MAX: u32 = 2;

/** True if DAT0 is high: the card is not busy. */
export function dat0IsHigh(token: u32): bool {
  return (portRead32(token, SDHCI_PRESENT_STATE) & SDHCI_DAT_0_LEVEL) != 0;
}

/** Asks the card for its status. 0 and lastResponse(token), or an errno. */
export function sendStatus(token: u32): i32 {
  return sendCommand(token, 13, shadow(token).rca << 16, ANSWER_R1, 0);
}

/**
 * Waits until the card is in tran and ready; out of data and rcv by CMD12, out of stby and dis by CMD7. -EIO: an error
 * bit of the operation before shows. -EILSEQ: the card is ready and DAT0 stays low all the same, so the line is stuck.
 * Where an answer was lost, perhaps with such a bit, Shadow.answerLost is set.
 */
export function awaitReady(token: u32, lengthNs: u64): i32 {
  return awaitReadyWithout(token, workErrors(ALL_BITS), lengthNs);
}

/** The same, with the bits of R1 that are errors of this operation; lastResponse(token) has those that showed. */
export function awaitReadyWithout(token: u32, errorBits: u32, lengthNs: u64): i32 {
  const endNs = untilNs(token, lengthNs);
  let pauseNs: u32 = 0;
  let errors: u32 = 0;
  let silent: u32 = 0;
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    const isHigh = dat0IsHigh(token);
    if (isHigh || i % ASK_EVERY == ASK_EVERY - 1) {
      const status = sendStatus(token);
      if (status != OK) shadow(token).answerLost = 1;
      // One damaged status is no reason to give up.
      if (status != OK && (status == ENOMEDIUM || ++silent > 3)) return status;
      const r1 = lastResponse(token);
      if (status == OK) {
        const state = (r1 >>> 9) & 15;
        errors |= r1 & errorBits;
        if (state == CARD_STATE_TRAN && (r1 & R1_READY_FOR_DATA) != 0) {
          if (!isHigh && !dat0IsHigh(token)) return EILSEQ;
          shadow(token).lastR1 = r1 | errors;
          return errors != 0 ? EIO : OK;
        }
        // The card never got its CMD12.
        if (state == CARD_STATE_DATA || state == CARD_STATE_RCV) errors |= stopErrors(token);
        // Deselected by whoever else is on the bus: it programs on, and DAT0 does not show it.
        if (state == CARD_STATE_STBY || state == CARD_STATE_DIS) errors |= selectErrors(token);
      }
    }
    if (isOver(token, endNs)) break;
    pauseNs = longerPause(pauseNs);
    pause(token, pauseNs, endNs);
  }
  return ETIMEDOUT;
}

function prepareBlocks(token: u32, blockBytes: u32, count: u32, ptr: usize, dma: bool): void {
  // Block size, SDMA boundary 512 KiB (not used), block count.
  portWrite32(token, SDHCI_BLOCK_SIZE, blockBytes | 0x7000 | (count << 16));
  setHostControl(token, dma);
  // A robbed panic's descriptor would stand where its robber's does.
  if (!dma || !holds(token)) return;
  const bytes = blockBytes * count;
  store<u32>(admaTable(token), 0x23 | ((bytes & 0xffff) << 16)); // valid, end, tran; 65,536 is written as 0
  store<u32>(admaTable(token) + 4, <u32>ptr);
  portWrite32(token, SDHCI_ADMA_ADDRESS, <u32>admaTable(token));
}

/** Reads or writes one block through the port; the controller has said that it is ready for it. */
function movePort(token: u32, isWrite: bool, ptr: usize, blockBytes: u32): void {
  for (let i: u32 = 0; i < blockBytes && i < <u32>SECTOR_BYTES; i += 4) {
    if (isWrite) portWrite32(token, SDHCI_BUFFER_PORT, load<u32>(ptr + i));
    else {
      const word = portRead32(token, SDHCI_BUFFER_PORT);
      // So would its bytes.
      if (!holds(token)) return;
      store<u32>(ptr + i, word);
    }
  }
}

/** The data phase, by PIO or DMA, up to the end of the last block's busy. */
function moveBlocks(token: u32, isWrite: bool, count: u32, ptr: usize, blockBytes: u32, dma: bool): i32 {
  const lengthNs = isWrite ? WRITE_NS : READ_NS;
  if (!dma) {
    const ready = isWrite ? SDHCI_INT_SPACE_AVAIL : SDHCI_INT_DATA_AVAIL;
    for (let i: u32 = 0; i < count && i < <u32>BOUNCE_SECTORS; i++) {
      if (isLate(token)) return ETIMEDOUT;
      const status = awaitStatus(token, ready, lengthNs);
      if (status != OK) return status;
      movePort(token, isWrite, ptr + i * blockBytes, blockBytes);
    }
  }
  return awaitStatus(token, SDHCI_INT_DATA_END, dma ? lengthNs + <u64>count * DMA_BLOCK_NS : lengthNs);
}

/** A register of the card as one block into REGISTER_BLOCK: CMD8, CMD6 (SD), ACMD51, ACMD13. Always PIO. */
export function readRegister(token: u32, index: u32, argument: u32, blockBytes: u32, app: bool): i32 {
  prepareBlocks(token, blockBytes, 1, registerBlock(token), false);
  let status = app
    ? sendAppCommand(token, index, argument, ANSWER_DATA, SDHCI_TRNS_READ)
    : sendOrder(token, index, argument, ANSWER_DATA, SDHCI_TRNS_READ);
  if (status == OK) status = moveBlocks(token, false, 1, registerBlock(token), blockBytes, false);
  if (status != OK) resetBothLines(token);
  return status;
}

/** CMD12: 0 or an errno. Unanswered if the card is in tran already, which is harmless (mmc.md §2.6). */
export function stopTransmission(token: u32): i32 {
  return sendCommand(token, 12, 0, ANSWER_R1, 0);
}

/** CMD12 behind a transfer. The error bits of its R1: what went wrong is told there and not again by CMD13. */
function stopErrors(token: u32): u32 {
  if (stopTransmission(token) == OK) return stopErrorsOf(lastResponse(token));
  shadow(token).answerLost = 1;
  return 0;
}

/** CMD7 to the card, and the error bits of its R1. */
function selectErrors(token: u32): u32 {
  if (sendCommand(token, 7, shadow(token).rca << 16, ANSWER_R1, 0) == OK)
    return workErrors(lastResponse(token));
  shadow(token).answerLost = 1;
  return 0;
}

/** Starts a block command. `flags`: WRITE_* of CMD23, which then is used whatever the configuration prefers. */
export function startBlocks(
  token: u32,
  isWrite: bool,
  lba: u32,
  count: u32,
  ptr: usize,
  flags: u32,
  dma: bool,
): i32 {
  const counted = flags != 0 || (count > 1 && usesCmd23(token));
  if (counted) {
    // Refused, it has armed nothing, and the write would be neither reliable nor forced.
    const armed = sendOrder(token, 23, count | flags, ANSWER_R1, 0);
    if (armed != OK) return armed;
  }
  const multiple = counted || count > 1;
  prepareBlocks(token, SECTOR_BYTES, count, ptr, dma);
  let mode: u32 = multiple ? SDHCI_TRNS_MULTI | SDHCI_TRNS_BLK_CNT_EN : 0;
  if (!isWrite) mode |= SDHCI_TRNS_READ;
  if (dma) mode |= SDHCI_TRNS_DMA;
  // Beyond the end, misaligned: the card stays in tran and no data comes.
  return sendOrder(token, (isWrite ? 24 : 17) + (multiple ? 1 : 0), addressOf(token, lba), ANSWER_DATA, mode);
}

function transferOnce(token: u32, isWrite: bool, lba: u32, count: u32, ptr: usize, flags: u32): i32 {
  const counted = flags != 0 || (count > 1 && usesCmd23(token));
  const dma = usesDma(token);
  shadow(token).answerLost = 0;
  let status = startBlocks(token, isWrite, lba, count, ptr, flags, dma);
  if (status == OK) status = moveBlocks(token, isWrite, count, ptr, SECTOR_BYTES, dma);
  if (status != OK) {
    resetBothLines(token);
    if (status == ENOMEDIUM || !isCardPresent(token)) return ENOMEDIUM;
    const errors = isLate(token) ? 0 : stopErrors(token);
    const ready = isLate(token) ? ETIMEDOUT : awaitReady(token, WRITE_NS);
    // A CRC status of 111 looks like one of 101 to the controller, and an unreadable sector like silence; the card
    // knows better: the way was good, and no restart of the card helps.
    return errors != 0 || ready == EIO ? EIO : status;
  }
  // Whether the card got it is seen from its state.
  const errors = count > 1 && !counted ? stopErrors(token) : 0;
  const ready = isWrite || count > 1 ? awaitReady(token, WRITE_NS) : OK;
  return ready == OK && errors != 0 ? EIO : ready;
}

/**
 * A write that nobody can vouch for is done again: error bits are told once, in the R1 of CMD12 or CMD13, and an answer
 * that is damaged has taken them along. -EILSEQ: the second time too.
 */
function transferSurely(token: u32, isWrite: bool, lba: u32, count: u32, ptr: usize, flags: u32): i32 {
  if (!isWrite) return transferOnce(token, false, lba, count, ptr, flags);
  const s = shadow(token);
  // A cache makes room by storing what is older. That it could not shows in this write and nowhere else, also if
  // somebody else asks the card then.
  const before = s.cacheLost;
  noteCacheLoss(token);
  for (let i: u32 = 0; i < WRITES_MAX; i++) {
    const status = transferOnce(token, true, lba, count, ptr, flags);
    if (status == OK && s.answerLost != 0) continue;
    if (status != EIO && s.answerLost == 0 && i == 0) s.cacheLost = before;
    return status;
  }
  return EILSEQ;
}

/**
 * Moves `count` (1 … BOUNCE_SECTORS) sectors between the card and `ptr`. `flags` (writes):
 * WRITE_RELIABLE, WRITE_FORCED, or 0.
 * Returns 0 when the card is back in tran without an error bit, else: -EIO the card refused or lost a sector,
 * -EILSEQ CRC, -ETIMEDOUT (also: the card is not identified), -ENOMEDIUM; -ECANCELED the host was taken meanwhile,
 * and nothing was touched since.
 */
export function transferBlocks(token: u32, isWrite: bool, lba: u32, count: u32, ptr: usize, flags: u32): i32 {
  if (count == 0 || count > <u32>BOUNCE_SECTORS) return EINVAL;
  // What an address counts is not known: it could be written anywhere.
  if (shadow(token).identified == 0) return ETIMEDOUT;
  if (shadow(token).careful == 0)
    return outcome(token, transferSurely(token, isWrite, lba, count, ptr, flags));
  for (let i: u32 = 0; i < count && i < <u32>BOUNCE_SECTORS; i++) {
    const status = outcome(token, transferSurely(token, isWrite, lba + i, 1, ptr + i * SECTOR_BYTES, flags));
    if (status != OK) return status;
  }
  return OK;
}
