// Looking at the zones, at opening or in a panic that came before: two sectors of each, its first and its last. What is
// learnt there decides which record goes and which number the next one has, so one bad read must not decide it: what
// failed is read again, and a zone that cannot be read stays unknown until a panic looks at it once more.

import { headBlock, tailBlock } from "./buffers";
import { NEVER } from "./clock";
import { crc32cPrepare } from "./crc";
import { claimHost } from "./driver/block";
import { isLate, leftNs, shadow } from "./driver/shadow";
import { flushCache } from "./driver/switch";
import { leadBack, restartCard } from "./driver/takeover";
import { transferBlocks } from "./driver/transfer";
import { EBUSY, ECANCELED, EINVAL, EIO, ENODEV, ENOMEDIUM, OK } from "./errno";
import { CONFIG_DEADLINE_US, PANIC_HEAD_BLOCK, PANIC_TAIL_BLOCK, ZONES_MAX } from "./layout";
import { holds, release } from "./owner";
import { ZONE_BAD, ZONE_UNKNOWN } from "./pstore/format";
import {
  beginRecovery,
  endRecovery,
  mayReachBeyond,
  recoverUnknownZone,
  recoverZone,
  SEQUENCE_STEP_MAX,
} from "./pstore/recover";
import { area, areaFits, chooseZone, zoneCount, zoneFirstLba, zoneSectors, zoneState } from "./pstore/zone";

/** The same once more; behind the ladder; behind a restart of the card. */
const READS_MAX: u32 = 4;
/** All zones may be unreadable, and each restart takes up to a second. */
const RESTARTS_MAX: u32 = 2;
/** Sequences that lie far above all others are looked at in steps; so many, and what is above is not continued from. */
const PASSES_MAX: u32 = 4;

/** Whether a read may be repeated: of a panic's time half is for the record. */
function hasTime(token: u32): bool {
  if (shadow(token).deadlineNs == NEVER) return true;
  return !isLate(token) && leftNs(token) > <u64>load<u32>(CONFIG_DEADLINE_US) * 500;
}

/** The card afresh, its cache stored before if it still can be. */
function restart(token: u32): i32 {
  area().restarts += 1;
  flushCache(token);
  restartCard(token, false);
  return leadBack(token);
}

/** One sector. -EIO: the card has said twice that it cannot read it, and no restart of the card would help. */
function readSurely(token: u32, lba: u32, ptr: usize): i32 {
  let status: i32 = EIO;
  let refusals: u32 = 0;
  for (let i: u32 = 0; i < READS_MAX; i++) {
    status = transferBlocks(token, false, lba, 1, ptr, 0);
    if (status == OK || status == ENOMEDIUM || status == ECANCELED || !hasTime(token)) return status;
    if (status == EIO && ++refusals > 1) return status;
    let back: i32 = OK;
    if (i == 1) back = leadBack(token);
    else if (i > 1) {
      if (area().restarts >= RESTARTS_MAX) return status;
      back = restart(token);
    }
    if (back == ENODEV || back == ENOMEDIUM) return back;
  }
  return status;
}

/** True if no zone can be blamed: the card is gone, or another one, or no way leads to it; or the host is lost. */
function isHopeless(token: u32, status: i32): bool {
  if (status == ENOMEDIUM || status == ENODEV || status == ECANCELED) return true;
  return status != OK && shadow(token).identified == 0;
}

/** What is in a zone, or that it cannot be told. An errno only if there is no use in going on. */
function lookAt(token: u32, zone: u32, head: usize, tail: usize): i32 {
  const first = zoneFirstLba(zone);
  const headStatus = readSurely(token, first, head);
  if (isHopeless(token, headStatus)) return headStatus;
  const tailStatus = readSurely(token, first + zoneSectors() - 1, tail);
  if (isHopeless(token, tailStatus)) return tailStatus;
  if (!holds(token)) return ECANCELED;
  if (headStatus == OK && tailStatus == OK) {
    recoverZone(token, zone, head, tail);
    return OK;
  }
  if (isLate(token)) return headStatus != OK ? headStatus : tailStatus;
  recoverUnknownZone(token, zone, headStatus == OK ? head : 0, tailStatus == OK ? tail : 0);
  return OK;
}

/** Every zone. -ECANCELED: the host is lost, and whoever has it looks for himself. */
export function scanZones(token: u32): i32 {
  const head = headBlock(token);
  const tail = tailBlock(token);
  const count = zoneCount();
  let most: u64 = SEQUENCE_STEP_MAX;
  for (let pass: u32 = 0; pass < PASSES_MAX; pass++) {
    beginRecovery(most);
    for (let zone: u32 = 0; zone < count && zone < <u32>ZONES_MAX; zone++) {
      if (!holds(token)) return ECANCELED;
      const status = lookAt(token, zone, head, tail);
      if (status != OK) return status;
    }
    if (!mayReachBeyond()) break;
    most = area().sequence + SEQUENCE_STEP_MAX;
  }
  endRecovery();
  return OK;
}

function lookAtAll(token: u32, state: u32): i32 {
  const count = zoneCount();
  for (let zone: u32 = 0; zone < count && zone < <u32>ZONES_MAX; zone++) {
    if (zoneState(zone) != state) continue;
    if (!hasTime(token)) break;
    const status = lookAt(token, zone, PANIC_HEAD_BLOCK, PANIC_TAIL_BLOCK);
    if (status != OK) return status;
  }
  return OK;
}

/**
 * In a panic, before it counts and chooses: the zones that nobody could read so far; and where there is no other, those
 * that failed in a panic before.
 */
export function lookAgain(token: u32): i32 {
  const status = lookAtAll(token, ZONE_UNKNOWN);
  return status == OK && chooseZone() < 0 ? lookAtAll(token, ZONE_BAD) : status;
}

/**
 * Recovery in the core, for its own counters and slots. Normal path: -EBUSY if the host is held, -ECANCELED if a panic
 * has taken it meanwhile. -EINVAL: CONFIG's area is none, or not on this card.
 */
export function recoverArea(): i32 {
  crc32cPrepare();
  const token = claimHost();
  if (token == 0) return EBUSY;
  const status = areaFits(shadow(token).sectors) ? scanZones(token) : EINVAL;
  return release(token) ? status : ECANCELED;
}
