// Blocks through the port: CMD17, 18, 24, 25 with CMD12 or CMD23, by PIO or ADMA2, and the waiting for the card that
// belongs to them. A failed transfer is stopped (CMD12) and the lines are reset; the card may still be in
// any state, which is takeover.ts's business.

import { EILSEQ, EINVAL, EIO, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
import { ADMA_TABLE, BOUNCE_SECTORS, REGISTER_BLOCK, SECTOR_BYTES } from "../layout";
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
import { R1_READY_FOR_DATA, stopErrorsOf, workErrors } from "./r1";
import { setHostControl } from "./setup";
import { addressOf, isLate, isOver, shadow, untilNs, usesCmd23, usesDma } from "./shadow";

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
export function dat0IsHigh(): bool {
  return (portRead32(SDHCI_PRESENT_STATE) & SDHCI_DAT_0_LEVEL) != 0;
}

/** Asks the card for its status. 0 and lastResponse(), or an errno. */
export function sendStatus(): i32 {
  return sendCommand(13, shadow().rca << 16, ANSWER_R1, 0);
}

/**
 * Waits until the card is in tran and ready; out of data and rcv by CMD12, out of stby and dis by CMD7. -EIO: an error
 * bit of the operation before shows. -EILSEQ: the card is ready and DAT0 stays low all the same, so the line is stuck.
 * Where an answer was lost, perhaps with such a bit, Shadow.answerLost is set.
 */
export function awaitReady(lengthNs: u64): i32 {
  const endNs = untilNs(lengthNs);
  let pauseNs: u32 = 0;
  let errors: u32 = 0;
  let silent: u32 = 0;
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    const isHigh = dat0IsHigh();
    if (isHigh || i % ASK_EVERY == ASK_EVERY - 1) {
      const status = sendStatus();
      if (status != OK) shadow().answerLost = 1;
      // One damaged status is no reason to give up.
      if (status != OK && (status == ENOMEDIUM || ++silent > 3)) return status;
      const r1 = lastResponse();
      if (status == OK) {
        const state = (r1 >>> 9) & 15;
        errors |= workErrors(r1);
        if (state == CARD_STATE_TRAN && (r1 & R1_READY_FOR_DATA) != 0) {
          if (!isHigh && !dat0IsHigh()) return EILSEQ;
          return errors != 0 ? EIO : OK;
        }
        // The card never got its CMD12.
        if (state == CARD_STATE_DATA || state == CARD_STATE_RCV) errors |= stopErrors();
        // Deselected by whoever else is on the bus: it programs on, and DAT0 does not show it.
        if (state == CARD_STATE_STBY || state == CARD_STATE_DIS) errors |= selectErrors();
      }
    }
    if (isOver(endNs)) break;
    pauseNs = longerPause(pauseNs);
    pause(pauseNs, endNs);
  }
  return ETIMEDOUT;
}

function prepareBlocks(blockBytes: u32, count: u32, ptr: usize, dma: bool): void {
  // Block size, SDMA boundary 512 KiB (not used), block count.
  portWrite32(SDHCI_BLOCK_SIZE, blockBytes | 0x7000 | (count << 16));
  setHostControl(dma);
  if (!dma) return;
  const bytes = blockBytes * count;
  store<u32>(ADMA_TABLE, 0x23 | ((bytes & 0xffff) << 16)); // valid, end, tran; 65,536 is written as 0
  store<u32>(ADMA_TABLE + 4, <u32>ptr);
  portWrite32(SDHCI_ADMA_ADDRESS, ADMA_TABLE);
}

/** Reads or writes one block through the port; the controller has said that it is ready for it. */
function movePort(isWrite: bool, ptr: usize, blockBytes: u32): void {
  for (let i: u32 = 0; i < blockBytes && i < <u32>SECTOR_BYTES; i += 4) {
    if (isWrite) portWrite32(SDHCI_BUFFER_PORT, load<u32>(ptr + i));
    else store<u32>(ptr + i, portRead32(SDHCI_BUFFER_PORT));
  }
}

/** The data phase, by PIO or DMA, up to the end of the last block's busy. */
function moveBlocks(isWrite: bool, count: u32, ptr: usize, blockBytes: u32, dma: bool): i32 {
  const lengthNs = isWrite ? WRITE_NS : READ_NS;
  if (!dma) {
    const ready = isWrite ? SDHCI_INT_SPACE_AVAIL : SDHCI_INT_DATA_AVAIL;
    for (let i: u32 = 0; i < count && i < <u32>BOUNCE_SECTORS; i++) {
      if (isLate()) return ETIMEDOUT;
      const status = awaitStatus(ready, lengthNs);
      if (status != OK) return status;
      movePort(isWrite, ptr + i * blockBytes, blockBytes);
    }
  }
  return awaitStatus(SDHCI_INT_DATA_END, dma ? lengthNs + <u64>count * DMA_BLOCK_NS : lengthNs);
}

/** A register of the card as one block into REGISTER_BLOCK: CMD8, CMD6 (SD), ACMD51, ACMD13. Always PIO. */
export function readRegister(index: u32, argument: u32, blockBytes: u32, app: bool): i32 {
  prepareBlocks(blockBytes, 1, REGISTER_BLOCK, false);
  let status = app
    ? sendAppCommand(index, argument, ANSWER_DATA, SDHCI_TRNS_READ)
    : sendOrder(index, argument, ANSWER_DATA, SDHCI_TRNS_READ);
  if (status == OK) status = moveBlocks(false, 1, REGISTER_BLOCK, blockBytes, false);
  if (status != OK) resetBothLines();
  return status;
}

/** CMD12: 0 or an errno. Unanswered if the card is in tran already, which is harmless (mmc.md §2.6). */
export function stopTransmission(): i32 {
  return sendCommand(12, 0, ANSWER_R1, 0);
}

/** CMD12 behind a transfer. The error bits of its R1: what went wrong is told there and not again by CMD13. */
function stopErrors(): u32 {
  if (stopTransmission() == OK) return stopErrorsOf(lastResponse());
  shadow().answerLost = 1;
  return 0;
}

/** CMD7 to the card, and the error bits of its R1. */
function selectErrors(): u32 {
  if (sendCommand(7, shadow().rca << 16, ANSWER_R1, 0) == OK) return workErrors(lastResponse());
  shadow().answerLost = 1;
  return 0;
}

/** Starts a block command. `flags`: WRITE_* of CMD23, which then is used whatever the configuration prefers. */
export function startBlocks(isWrite: bool, lba: u32, count: u32, ptr: usize, flags: u32, dma: bool): i32 {
  const counted = flags != 0 || (count > 1 && usesCmd23());
  if (counted) {
    // Refused, it has armed nothing, and the write would be neither reliable nor forced.
    const armed = sendOrder(23, count | flags, ANSWER_R1, 0);
    if (armed != OK) return armed;
  }
  const multiple = counted || count > 1;
  prepareBlocks(SECTOR_BYTES, count, ptr, dma);
  let mode: u32 = multiple ? SDHCI_TRNS_MULTI | SDHCI_TRNS_BLK_CNT_EN : 0;
  if (!isWrite) mode |= SDHCI_TRNS_READ;
  if (dma) mode |= SDHCI_TRNS_DMA;
  // Beyond the end, misaligned: the card stays in tran and no data comes.
  return sendOrder((isWrite ? 24 : 17) + (multiple ? 1 : 0), addressOf(lba), ANSWER_DATA, mode);
}

function transferOnce(isWrite: bool, lba: u32, count: u32, ptr: usize, flags: u32): i32 {
  const counted = flags != 0 || (count > 1 && usesCmd23());
  const dma = usesDma();
  shadow().answerLost = 0;
  let status = startBlocks(isWrite, lba, count, ptr, flags, dma);
  if (status == OK) status = moveBlocks(isWrite, count, ptr, SECTOR_BYTES, dma);
  if (status != OK) {
    resetBothLines();
    if (status == ENOMEDIUM || !isCardPresent()) return ENOMEDIUM;
    const errors = isLate() ? 0 : stopErrors();
    const ready = isLate() ? ETIMEDOUT : awaitReady(WRITE_NS);
    // A CRC status of 111 looks like one of 101 to the controller, and an unreadable sector like silence; the card
    // knows better: the way was good, and no restart of the card helps.
    return errors != 0 || ready == EIO ? EIO : status;
  }
  // Whether the card got it is seen from its state.
  const errors = count > 1 && !counted ? stopErrors() : 0;
  const ready = isWrite || count > 1 ? awaitReady(WRITE_NS) : OK;
  return ready == OK && errors != 0 ? EIO : ready;
}

/**
 * A write that nobody can vouch for is done again: error bits are told once, in the R1 of CMD12 or CMD13, and an answer
 * that is damaged has taken them along. -EILSEQ: the second time too.
 */
function transferSurely(isWrite: bool, lba: u32, count: u32, ptr: usize, flags: u32): i32 {
  for (let i: u32 = 0; i < WRITES_MAX; i++) {
    const status = transferOnce(isWrite, lba, count, ptr, flags);
    if (status != OK || !isWrite || shadow().answerLost == 0) return status;
  }
  return EILSEQ;
}

/**
 * Moves `count` (1 … BOUNCE_SECTORS) sectors between the card and `ptr`. `flags` (writes):
 * WRITE_RELIABLE, WRITE_FORCED, or 0.
 * Returns 0 when the card is back in tran without an error bit, else: -EIO the card refused or lost a sector,
 * -EILSEQ CRC, -ETIMEDOUT (also: the card is not identified), -ENOMEDIUM.
 */
export function transferBlocks(isWrite: bool, lba: u32, count: u32, ptr: usize, flags: u32): i32 {
  if (count == 0 || count > <u32>BOUNCE_SECTORS) return EINVAL;
  // What an address counts is not known: it could be written anywhere.
  if (shadow().identified == 0) return ETIMEDOUT;
  if (shadow().careful == 0) return transferSurely(isWrite, lba, count, ptr, flags);
  for (let i: u32 = 0; i < count && i < <u32>BOUNCE_SECTORS; i++) {
    const status = transferSurely(isWrite, lba + i, 1, ptr + i * SECTOR_BYTES, flags);
    if (status != OK) return status;
  }
  return OK;
}
