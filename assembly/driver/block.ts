// Normal block I/O: claims the host, moves sectors, gives the host back. The panic path does not come through here.
// Every function returns 0 or an errno; -EBUSY: somebody else, or a panic, holds the host.

import { NEVER } from "../clock";
import { EBUSY, EINVAL, EIO, OK } from "../errno";
import { BOUNCE_BASE, BOUNCE_SECTORS } from "../layout";
import { claim, holds, release } from "../owner";
import { ANSWER_R1, lastResponse, MILLISECOND, STATUS_BLOCK_ERRORS, sendCommand } from "./command";
import { identify } from "./enumerate";
import { powerUp } from "./setup";
import { addressOf, KIND_EMMC, shadow } from "./shadow";
import { flushCache } from "./switch";
import { awaitReady, transferBlocks } from "./transfer";

/** The id that normal requests claim the host with. */
export const NORMAL_ID: u32 = 1;
/** Linux's default cap for an erase, 60 s. */
const ERASE_NS: u64 = 60000 * MILLISECOND;

/** Between two retries of a request, as Linux's block driver has them (mmc.md §1.6): at most this many tries. */
const TRIES_MAX: u32 = 3;

/** Power-up and identification of whatever is in the slot. */
export function openCard(): i32 {
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  shadow().deadlineNs = NEVER;
  shadow().careful = 0;
  let status = powerUp();
  if (status == OK) status = identify();
  release(token);
  return status;
}

function transfer(isWrite: bool, lba: u32, count: u32): i32 {
  const s = shadow();
  if (count == 0 || count > <u32>BOUNCE_SECTORS || lba >= s.sectors || count > s.sectors - lba) return EINVAL;
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  let status: i32 = EIO;
  for (let i: u32 = 0; i < TRIES_MAX && holds(token); i++) {
    status = transferBlocks(isWrite, lba, count, BOUNCE_BASE, 0);
    if (status == OK) break;
  }
  release(token);
  return status;
}

/** `count` (1 … BOUNCE_SECTORS) sectors from the card into BOUNCE. */
export function blockRead(lba: u32, count: u32): i32 {
  return transfer(false, lba, count);
}

/** `count` sectors from BOUNCE to the card. Durable after blockFlush(). */
export function blockWrite(lba: u32, count: u32): i32 {
  return transfer(true, lba, count);
}

/** `first … last` become zero: eMMC trim, SD erase. */
export function blockErase(first: u32, last: u32): i32 {
  const s = shadow();
  if (first > last || last >= s.sectors) return EINVAL;
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const status = eraseRange(first, last, s.kind == KIND_EMMC);
  release(token);
  return status;
}

function eraseRange(first: u32, last: u32, emmc: bool): i32 {
  const started = startErase(first, last, emmc ? 1 : 0);
  return started == OK ? awaitReady(ERASE_NS) : started;
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
  return (lastResponse() & (STATUS_BLOCK_ERRORS | (3 << 27))) != 0 ? EIO : OK;
}

export function blockFlush(): i32 {
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const status = flushCache();
  release(token);
  return status;
}

/** Any command as it is, for tools and tests: `answer` is SDHCI_COMMAND's low byte without data. */
export function blockCommand(index: u32, argument: u32, answer: u32): i32 {
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const status = sendCommand(index & 63, argument, answer & 0x1b, 0);
  release(token);
  return status;
}
