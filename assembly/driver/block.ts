// Normal block I/O: claims the host, moves sectors, gives the host back. The panic path does not come through here.
// Every function returns 0 or an errno; -EBUSY: somebody else, or a panic, holds the host; -ECANCELED: a panic took it
// in the middle, and what has become of the request is not known.

import { registerBlock, tailBlock } from "../buffers";
import { storeBigEndian32 } from "../bytes";
import { EBUSY, ECANCELED, EILSEQ, EINVAL, EIO, ENODEV, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
import { BOUNCE_BASE, BOUNCE_SECTORS, SECTOR_BYTES } from "../layout";
import { claim, holds, release } from "../owner";
import {
  ANSWER_NONE,
  ANSWER_R1,
  ANSWER_R2,
  longResponse,
  MILLISECOND,
  sendCommand,
  sendOrder,
} from "./command";
import { identify } from "./enumerate";
import { ALL_BITS, eraseErrors } from "./r1";
import { powerCycle, powerUp } from "./setup";
import { addressOf, clearDeadline, KIND_EMMC, mayCache, shadow } from "./shadow";
import { flushCache } from "./switch";
import { quietController, restartCard, takeOverCard } from "./takeover";
import { awaitReady, awaitReadyWithout, readRegister, transferBlocks } from "./transfer";

/** The id that normal requests claim the host with. */
export const NORMAL_ID: u32 = 1;
/** Linux's default cap for an erase, 60 s. */
const ERASE_NS: u64 = 60000 * MILLISECOND;
const SELECT_NS: u64 = 500 * MILLISECOND;

/** Requests of BOUNCE_SECTORS in one erase that writes: 128 GiB. Device.erase() asks for no more at once. */
const PIECES_MAX: u32 = 1 << 21;
/** An erase is done once more when the card's word on it was lost. */
const ERASES_MAX: u32 = 2;

/** A request, the same behind the ladder, and behind a power cycle. */
export const TRIES_MAX: u32 = 3;
/** Of a card that cannot be identified when it is opened. */
const POWER_CYCLES_MAX: u32 = 2;

/** Claims the host for a request without a deadline. The token, or 0: somebody else, or a panic, holds it. */
export function claimHost(): u32 {
  const token = claim(NORMAL_ID);
  if (token != 0) clearDeadline(token);
  return token;
}

/**
 * Power-up and identification of whatever is in the slot; behind a failure again, from a power cycle on. What was not
 * flushed before is lost with the card's cache, and the next flush tells.
 */
export function openCard(): i32 {
  const token = claimHost();
  if (token == 0) return EBUSY;
  shadow(token).careful = 0;
  let status = powerUp(token);
  if (status == OK) status = identify(token);
  for (let i: u32 = 0; i < POWER_CYCLES_MAX && holds(token); i++) {
    if (status == OK || status == ENOMEDIUM || status == ENODEV) break;
    powerCycle(token);
    status = identify(token);
  }
  return release(token) ? status : ECANCELED;
}

/**
 * The card back in tran behind a request that failed on its way, as a panic brings it back. `afresh`: through a power
 * cycle, and what its cache holds is stored first, if it still can be.
 */
function leadBack(token: u32, afresh: bool): i32 {
  quietController(token);
  const back = takeOverCard(token, tailBlock(token), tailBlock(token) + 4);
  if (!afresh || back == ENODEV || back == ENOMEDIUM) return back;
  if (back == OK) flushCache(token);
  restartCard(token, true);
  return takeOverCard(token, tailBlock(token), tailBlock(token) + 4);
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const ERASE: u32 = 2;
const FLUSH: u32 = 3;

function attempt(token: u32, request: u32, lba: u32, count: u32): i32 {
  switch (request) {
    case ERASE:
      return eraseRange(token, lba, lba + count - 1);
    case FLUSH:
      return flushCache(token);
    default:
      return transferBlocks(token, request == WRITE, lba, count, BOUNCE_BASE, 0);
  }
}

/**
 * Behind a request that failed at its `attempt`-th time (0 …) with `status`: 0, the card is in tran and the request may
 * be tried again, or what it ends with. What the card refuses (-EIO) is simply tried again.
 */
export function leadBackFor(token: u32, status: i32, attempt: u32): i32 {
  if (status == ENOMEDIUM || status == ECANCELED || attempt + 1 >= TRIES_MAX) return status;
  if (status == EIO) return OK;
  const back = leadBack(token, attempt > 0);
  return back == OK || back == ENODEV || back == ENOMEDIUM ? back : status;
}

/** The host is claimed. A request that came to its end twice has done the same as once. */
function tryRequest(token: u32, request: u32, lba: u32, count: u32): i32 {
  let status: i32 = EIO;
  for (let i: u32 = 0; i < TRIES_MAX && holds(token); i++) {
    status = attempt(token, request, lba, count);
    if (status == OK) break;
    // Whether a cache still has what it could not store is not known.
    if (status == EIO && request == FLUSH) break;
    const back = leadBackFor(token, status, i);
    if (back != OK) return back;
  }
  return status;
}

function transfer(request: u32, lba: u32, count: u32): i32 {
  if (count == 0 || count > <u32>BOUNCE_SECTORS) return EINVAL;
  const token = claimHost();
  if (token == 0) return EBUSY;
  const sectors = shadow(token).sectors;
  const isThere = lba < sectors && count <= sectors - lba;
  const status = isThere ? tryRequest(token, request, lba, count) : EINVAL;
  if (isThere && request == WRITE && mayCache(token)) shadow(token).unflushed = 1;
  return release(token) ? status : ECANCELED;
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
  if (first > last) return EINVAL;
  const token = claimHost();
  if (token == 0) return EBUSY;
  const isThere = last < shadow(token).sectors;
  const status = isThere ? tryRequest(token, ERASE, first, last - first + 1) : EINVAL;
  if (isThere && shadow(token).erasesToOnes != 0 && mayCache(token)) shadow(token).unflushed = 1;
  return release(token) ? status : ECANCELED;
}

/**
 * The card skips what is protected and says so once, in the R1 behind: an erase whose status was lost is done again.
 * -EILSEQ: lost twice.
 */
function eraseRange(token: u32, first: u32, last: u32): i32 {
  if (shadow(token).erasesToOnes != 0) return writeZeros(token, first, last);
  for (let i: u32 = 0; i < ERASES_MAX; i++) {
    shadow(token).answerLost = 0;
    let status = startErase(token, first, last, shadow(token).kind == KIND_EMMC ? 1 : 0);
    if (status == OK) status = awaitReadyWithout(token, eraseErrors(ALL_BITS), ERASE_NS);
    if (status != OK || shadow(token).answerLost == 0) return status;
  }
  return EILSEQ;
}

/** What an erase of a card whose erased bytes are ones cannot do. BOUNCE is the request's. */
function writeZeros(token: u32, first: u32, last: u32): i32 {
  if (!holds(token)) return ECANCELED;
  memory.fill(BOUNCE_BASE, 0, BOUNCE_SECTORS * SECTOR_BYTES);
  let left = last - first + 1;
  for (let i: u32 = 0; i < PIECES_MAX && left > 0; i++) {
    const count = left < <u32>BOUNCE_SECTORS ? left : <u32>BOUNCE_SECTORS;
    const status = transferBlocks(token, true, first + i * BOUNCE_SECTORS, count, BOUNCE_BASE, 0);
    if (status != OK) return status;
    left -= count;
  }
  return left > 0 ? EINVAL : OK;
}

/** CMD35, 36, 38 (SD 32, 33, 38): the card is busy afterwards. `kind`: the argument of CMD38. */
export function startErase(token: u32, first: u32, last: u32, kind: u32): i32 {
  const start: u32 = shadow(token).kind == KIND_EMMC ? 35 : 32;
  // What an address counts is not known: it could be erased anywhere.
  if (shadow(token).identified == 0) return ETIMEDOUT;
  let status = sendOrder(token, start, addressOf(token, first), ANSWER_R1, 0);
  if (status == OK) status = sendOrder(token, start + 1, addressOf(token, last), ANSWER_R1, 0);
  if (status == OK) status = sendOrder(token, 38, kind, ANSWER_R1, 0);
  return status;
}

/** -EIO: the card was started again behind a write that had not been flushed, and may have lost it. Told once. */
export function blockFlush(): i32 {
  const token = claimHost();
  if (token == 0) return EBUSY;
  const s = shadow(token);
  const status = tryRequest(token, FLUSH, 0, 0);
  const wasLost = s.cacheLost != 0;
  s.cacheLost = 0;
  if (!release(token)) return ECANCELED;
  return wasLost ? EIO : status;
}

/** Commands that change nothing of what the driver believes: they ask, select, count, erase, or move blocks. */
function keepsModes(index: u32): bool {
  if (index <= 6) return false;
  if (index < 11 || index == 12 || index == 13 || index == 55) return true;
  return (index >= 17 && index <= 25) || (index >= 30 && index <= 38);
}

/**
 * Any command as it is, for tools and tests: `answer` is SDHCI_COMMAND's low byte without data. What it may have
 * changed in the card is asked for before it counts again.
 */
export function blockCommand(index: u32, argument: u32, answer: u32): i32 {
  const token = claimHost();
  if (token == 0) return EBUSY;
  if (!keepsModes(index & 63)) shadow(token).modesKnown = 0;
  const status = sendCommand(token, index & 63, argument, answer & 0x1b, 0);
  return release(token) ? status : ECANCELED;
}

/** CMD9 and CMD10 are for a card in stby: away with it, ask, and back to tran. */
function readLongRegister(token: u32, index: u32): i32 {
  const address = shadow(token).rca << 16;
  let status = sendCommand(token, 7, 0, ANSWER_NONE, 0);
  if (status == OK) status = sendCommand(token, index, address, ANSWER_R2, 0);
  if (status == OK) {
    // Bits 127:8 stand in 119:0; the lowest byte, CRC7 and end bit, the controller has kept.
    for (let i: u32 = 0; i < 4; i++) {
      const below: u32 = i == 3 ? 0 : longResponse(token, 2 - i) >>> 24;
      storeBigEndian32(registerBlock(token) + (i << 2), (longResponse(token, 3 - i) << 8) | below);
    }
  }
  const selected = sendCommand(token, 7, address, ANSWER_R1, 0);
  if (status != OK || selected != OK) return status != OK ? status : selected;
  return awaitReady(token, SELECT_NS);
}

/**
 * A register of the card, as the wire has it, into REGISTER_BLOCK: CMD9 and CMD10 (16 bytes, the last one 0),
 * and whatever comes as one block: CMD8 (512), ACMD51 (8), ACMD13 (64).
 */
export function readCardRegister(index: u32, bytes: u32, app: u32): i32 {
  if (bytes > <u32>SECTOR_BYTES) return EINVAL;
  const token = claimHost();
  if (token == 0) return EBUSY;
  memory.fill(registerBlock(token), 0, SECTOR_BYTES);
  const isLong = app == 0 && (index == 9 || index == 10);
  const status = isLong ? readLongRegister(token, index) : readRegister(token, index, 0, bytes, app != 0);
  return release(token) ? status : ECANCELED;
}
