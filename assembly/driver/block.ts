// Normal block I/O: claims the host, moves sectors, gives the host back. The panic path does not come through here.
// Every function returns 0 or an errno; -EBUSY: somebody else, or a panic, holds the host.

import { storeBigEndian32 } from "../bytes";
import { EBUSY, EILSEQ, EINVAL, EIO, ENODEV, ENOMEDIUM, OK } from "../errno";
import { BOUNCE_BASE, BOUNCE_SECTORS, REGISTER_BLOCK, SECTOR_BYTES, TAIL_BLOCK } from "../layout";
import { claim, holds, release } from "../owner";
import {
  ANSWER_NONE,
  ANSWER_R1,
  ANSWER_R2,
  lastResponse,
  longResponse,
  MILLISECOND,
  STATUS_BLOCK_ERRORS,
  sendCommand,
} from "./command";
import { identify } from "./enumerate";
import { powerUp } from "./setup";
import { addressOf, clearDeadline, KIND_EMMC, shadow } from "./shadow";
import { flushCache } from "./switch";
import { quietController, restartCard, takeOverCard } from "./takeover";
import { awaitReady, awaitReadyWithout, readRegister, transferBlocks } from "./transfer";

/** The id that normal requests claim the host with. */
export const NORMAL_ID: u32 = 1;
/** Linux's default cap for an erase, 60 s. */
const ERASE_NS: u64 = 60000 * MILLISECOND;
const SELECT_NS: u64 = 500 * MILLISECOND;

/** ERASE_SEQ_ERROR, ERASE_PARAM, WP_ERASE_SKIP: some of the range is not erased. */
const STATUS_ERASE_ERRORS: u32 = (1 << 28) | (1 << 27) | (1 << 15);
/** Requests of BOUNCE_SECTORS in one erase that writes: 128 GiB. Device.erase() asks for no more at once. */
const PIECES_MAX: u32 = 1 << 21;
/** An erase is done once more when the card's word on it was lost. */
const ERASES_MAX: u32 = 2;

/** A request, the same behind the ladder, and behind a power cycle. */
const TRIES_MAX: u32 = 3;

/** Power-up and identification of whatever is in the slot. */
export function openCard(): i32 {
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  clearDeadline();
  const s = shadow();
  s.careful = 0;
  s.unflushed = 0;
  let status = powerUp();
  if (status == OK) status = identify();
  s.cacheLost = 0;
  release(token);
  return status;
}

/**
 * The card back in tran behind a request that failed on its way, as a panic brings it back. `afresh`: through a power
 * cycle, and what its cache holds is stored first, if it still can be.
 */
function leadBack(afresh: bool): i32 {
  quietController();
  const back = takeOverCard(TAIL_BLOCK, TAIL_BLOCK + 4);
  if (!afresh || back == ENODEV || back == ENOMEDIUM) return back;
  if (back == OK) flushCache();
  restartCard(true);
  return takeOverCard(TAIL_BLOCK, TAIL_BLOCK + 4);
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const ERASE: u32 = 2;
const FLUSH: u32 = 3;

function attempt(request: u32, lba: u32, count: u32): i32 {
  switch (request) {
    case ERASE:
      return eraseRange(lba, lba + count - 1);
    case FLUSH:
      return flushCache();
    default:
      return transferBlocks(request == WRITE, lba, count, BOUNCE_BASE, 0);
  }
}

/** The host is claimed. A request that came to its end twice has done the same as once. */
function tryRequest(token: u32, request: u32, lba: u32, count: u32): i32 {
  let status: i32 = EIO;
  for (let i: u32 = 0; i < TRIES_MAX && holds(token); i++) {
    status = attempt(request, lba, count);
    if (status == OK || status == ENOMEDIUM || i == TRIES_MAX - 1) break;
    // What the card refuses is simply tried again, but a cache: whether it still has what it could not store is not
    // known.
    if (status == EIO && request == FLUSH) break;
    if (status == EIO) continue;
    const back = leadBack(i > 0);
    if (back == OK) continue;
    if (back == ENODEV || back == ENOMEDIUM) status = back;
    break;
  }
  return status;
}

function transfer(request: u32, lba: u32, count: u32): i32 {
  const s = shadow();
  if (count == 0 || count > <u32>BOUNCE_SECTORS || lba >= s.sectors || count > s.sectors - lba) return EINVAL;
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const status = tryRequest(token, request, lba, count);
  if (request == WRITE && s.cacheOn != 0) s.unflushed = 1;
  release(token);
  return status;
}

/**
 * `count` (1 … BOUNCE_SECTORS) sectors from the card into BOUNCE. A card that has lost its way, or hangs, is led back
 * and asked again; errors, when that did not help: -ETIMEDOUT, -EILSEQ, -EIO, -ENOMEDIUM, -ENODEV it is another card.
 */
export function blockRead(lba: u32, count: u32): i32 {
  return transfer(READ, lba, count);
}

/** `count` sectors from BOUNCE to the card, with the same errors. Durable after blockFlush(). */
export function blockWrite(lba: u32, count: u32): i32 {
  return transfer(WRITE, lba, count);
}

/**
 * `first … last` become zero: eMMC trim, SD erase, and zeros are written where an erased byte is another. Errors: as
 * blockRead(); -EIO, too, if some of it is write-protected: that keeps its bytes, the rest may be erased.
 */
export function blockErase(first: u32, last: u32): i32 {
  const s = shadow();
  if (first > last || last >= s.sectors) return EINVAL;
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const status = tryRequest(token, ERASE, first, last - first + 1);
  if (s.erasesToOnes != 0 && s.cacheOn != 0) s.unflushed = 1;
  release(token);
  return status;
}

/**
 * The card skips what is protected and says so once, in the R1 behind: an erase whose status was lost is done again.
 * -EILSEQ: lost twice.
 */
function eraseRange(first: u32, last: u32): i32 {
  if (shadow().erasesToOnes != 0) return writeZeros(first, last);
  for (let i: u32 = 0; i < ERASES_MAX; i++) {
    shadow().answerLost = 0;
    let status = startErase(first, last, shadow().kind == KIND_EMMC ? 1 : 0);
    if (status == OK) status = awaitReadyWithout(STATUS_BLOCK_ERRORS | STATUS_ERASE_ERRORS, ERASE_NS);
    if (status != OK || shadow().answerLost == 0) return status;
  }
  return EILSEQ;
}

/** What an erase of a card whose erased bytes are ones cannot do. BOUNCE is the request's. */
function writeZeros(first: u32, last: u32): i32 {
  memory.fill(BOUNCE_BASE, 0, BOUNCE_SECTORS * SECTOR_BYTES);
  let left = last - first + 1;
  for (let i: u32 = 0; i < PIECES_MAX && left > 0; i++) {
    const count = left < <u32>BOUNCE_SECTORS ? left : <u32>BOUNCE_SECTORS;
    const status = transferBlocks(true, first + i * BOUNCE_SECTORS, count, BOUNCE_BASE, 0);
    if (status != OK) return status;
    left -= count;
  }
  return left > 0 ? EINVAL : OK;
}

/** CMD35, 36, 38 (SD 32, 33, 38): the card is busy afterwards. `kind`: the argument of CMD38. */
export function startErase(first: u32, last: u32, kind: u32): i32 {
  const start: u32 = shadow().kind == KIND_EMMC ? 35 : 32;
  let status = sendErase(start, addressOf(first));
  if (status == OK) status = sendErase(start + 1, addressOf(last));
  if (status == OK) status = sendErase(38, kind);
  return status;
}

function sendErase(index: u32, argument: u32): i32 {
  const status = sendCommand(index, argument, ANSWER_R1, 0);
  if (status != OK) return status;
  return (lastResponse() & (STATUS_BLOCK_ERRORS | STATUS_ERASE_ERRORS)) != 0 ? EIO : OK;
}

/** -EIO: the card was started again behind a write that had not been flushed, and may have lost it. Told once. */
export function blockFlush(): i32 {
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const s = shadow();
  const status = tryRequest(token, FLUSH, 0, 0);
  const wasLost = s.cacheLost != 0;
  s.cacheLost = 0;
  release(token);
  return wasLost ? EIO : status;
}

/** Any command as it is, for tools and tests: `answer` is SDHCI_COMMAND's low byte without data. */
export function blockCommand(index: u32, argument: u32, answer: u32): i32 {
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const status = sendCommand(index & 63, argument, answer & 0x1b, 0);
  release(token);
  return status;
}

/** CMD9 and CMD10 are for a card in stby: away with it, ask, and back to tran. */
function readLongRegister(index: u32): i32 {
  const address = shadow().rca << 16;
  let status = sendCommand(7, 0, ANSWER_NONE, 0);
  if (status == OK) status = sendCommand(index, address, ANSWER_R2, 0);
  if (status == OK) {
    // Bits 127:8 stand in 119:0; the lowest byte, CRC7 and end bit, the controller has kept.
    for (let i: u32 = 0; i < 4; i++) {
      const below: u32 = i == 3 ? 0 : longResponse(2 - i) >>> 24;
      storeBigEndian32(REGISTER_BLOCK + (i << 2), (longResponse(3 - i) << 8) | below);
    }
  }
  const selected = sendCommand(7, address, ANSWER_R1, 0);
  if (status != OK || selected != OK) return status != OK ? status : selected;
  return awaitReady(SELECT_NS);
}

/**
 * A register of the card, as the wire has it, into REGISTER_BLOCK: CMD9 and CMD10 (16 bytes, the last one 0),
 * and whatever comes as one block: CMD8 (512), ACMD51 (8), ACMD13 (64).
 */
export function readCardRegister(index: u32, bytes: u32, app: u32): i32 {
  if (bytes > <u32>SECTOR_BYTES) return EINVAL;
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  memory.fill(REGISTER_BLOCK, 0, SECTOR_BYTES);
  const isLong = app == 0 && (index == 9 || index == 10);
  const status = isLong ? readLongRegister(index) : readRegister(index, 0, bytes, app != 0);
  release(token);
  return status;
}
