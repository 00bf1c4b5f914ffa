// panic_write from top to bottom. No allocation, no lock, no wait without an end, no import: it takes the host,
// brings the card back, writes one record so that a cut at any point leaves the older ones whole, and
// tells the truth. A panic that was robbed (another was forced behind it) ends at its next access or step and stores
// nothing more where others read: what follows a mark or an access looks at the status or at the token first.

import { crc32cPrepare } from "./crc";
import { portNowNs, portStartTime } from "./driver/port";
import { forgetRefusal } from "./driver/refusal";
import { clearDeadline, inheritShadow, isLate, leftNs, setDeadline, shadow } from "./driver/shadow";
import { leadBack, NO_STATE, quietController, takeOverCard } from "./driver/takeover";
import { endPanicPlan } from "./dump/plan";
import { EBUSY, ECANCELED, EINVAL, ENOSPC, ETIMEDOUT, OK } from "./errno";
import {
  CONFIG_DEADLINE_US,
  CONFIG_MAX_REASON,
  RESULT_BASE,
  RESULT_BYTES,
  RESULT_CARD_STATE,
  RESULT_COMMAND,
  RESULT_COUNTER,
  RESULT_DROPPED_BYTES,
  RESULT_END_NS_LOW,
  RESULT_OWNER,
  RESULT_R1,
  RESULT_REFUSED_ARGUMENT,
  RESULT_REFUSED_COMMAND,
  RESULT_REFUSED_R1,
  RESULT_REFUSED_STATUS,
  RESULT_RINGS_FLUSHED,
  RESULT_RINGS_STATUS,
  RESULT_RUNG,
  RESULT_SEQUENCE_LOW,
  RESULT_START_NS_LOW,
  RESULT_STATUS,
  RESULT_STEP,
  RESULT_ZONE,
  RINGS_MAX,
  STEP_DONE,
  STEP_FLUSH_RING,
  STEP_QUIET_CONTROLLER,
  STEP_TAKE_CARD,
  STEP_TAKE_HOST,
  TEXT_BYTES_MAX,
} from "./layout";
import { MARK_RESULT, mark } from "./mark";
import { holds, isPanicToken, OWNER_PANIC, release, steal, stealFromPanic } from "./owner";
import { clearDumpResult, storeDump } from "./panic-dump";
import { blamesZone, storeText } from "./panic-record";
import { REASON_OOPS } from "./pstore/format";
import { describeRecord, record } from "./pstore/record";
import { pendingBytes, ringCount } from "./pstore/ring";
import { area, areaFits } from "./pstore/zone";
import { flushRing, flushSectors } from "./rings";
import { lookAgain, scanZones } from "./scan";
import { step } from "./step";

/** What the last accesses after a deadline may still cost: resets and one status, some 40 accesses. */
const RESERVE_NS: u64 = 100000;
/** A ring that fails is tried once more, block by block and by PIO. */
const RING_ATTEMPTS_MAX: u32 = 2;
/** A ring is not begun unless there is this many times the time that the record's sectors took. */
const RING_TIME_FACTOR: u64 = 3;
/** What a sector may take where no record was written that would tell: an SD card's longest busy. */
const SECTOR_NS_MAX: u64 = 250000000;
/** A panic that ends at this very moment frees the host, which is then taken as from anybody. */
const STEALS_MAX: u32 = 3;

/** True if nobody knows the zones, or a guest may have written, emptied or moved records since. */
function mustScan(): bool {
  return isDefined(EXTERNAL_BUS) || area().recovered == 0;
}

function storeTime(token: u32, word: usize): void {
  store<u64>(word, portNowNs(token));
}

/** Steps 2 and 3: the controller quiet, the card in tran. */
function takeOver(token: u32): i32 {
  if (!step(token, STEP_QUIET_CONTROLLER, 0)) return ECANCELED;
  quietController(token);
  if (!step(token, STEP_TAKE_CARD, 0)) return ECANCELED;
  return takeOverCard(token, RESULT_CARD_STATE, RESULT_RUNG);
}

/** Whether a ring's flush will come to its end before the deadline: begun, it may have hidden what was there. */
function hasTimeFor(token: u32, index: u32): bool {
  const measuredNs = record().sectorNs;
  const sectorNs = measuredNs > 0 ? RING_TIME_FACTOR * measuredNs : SECTOR_NS_MAX;
  return leftNs(token) >= sectorNs * flushSectors(index);
}

function storeRing(token: u32, index: u32): i32 {
  let status: i32 = ETIMEDOUT;
  for (let attempt: u32 = 0; attempt < RING_ATTEMPTS_MAX && hasTimeFor(token, index); attempt++) {
    status = flushRing(token, index);
    if (status == OK || isLate(token)) return status;
    shadow(token).careful = 1;
    if (leadBack(token) != OK) return status;
  }
  return status;
}

/** Step 9: what the rings have in memory alone. What became of the record and what becomes of them is independent. */
function storeRings(token: u32): void {
  let flushed: u32 = 0;
  let firstFailure: i32 = OK;
  for (let index: u32 = 0; index < ringCount() && index < <u32>RINGS_MAX; index++) {
    if (pendingBytes(index) == 0) continue;
    if (!step(token, STEP_FLUSH_RING, index)) return;
    const status = storeRing(token, index);
    if (!holds(token)) return;
    if (status == OK) flushed += 1;
    else if (firstFailure == OK) firstFailure = status;
  }
  store<u32>(RESULT_RINGS_FLUSHED, flushed);
  store<u32>(RESULT_RINGS_STATUS, firstFailure);
}

/** What the record met on the bus: the command sent last, and the first that was refused. */
function noteCommands(token: u32, status: i32): void {
  const s = shadow(token);
  store<u32>(RESULT_COMMAND, status == OK ? 0xffffffff : s.lastCommand);
  store<u32>(RESULT_R1, s.lastR1);
  if (s.refused == 0) return;
  store<u32>(RESULT_REFUSED_COMMAND, s.refusedCommand);
  store<u32>(RESULT_REFUSED_ARGUMENT, s.refusedArgument);
  store<u32>(RESULT_REFUSED_R1, s.refusedR1);
  store<u32>(RESULT_REFUSED_STATUS, s.refusedStatus);
}

function publish(token: u32, status: i32): void {
  if (!holds(token)) return;
  const r = record();
  store<u32>(RESULT_COUNTER, r.counter);
  store<u64>(RESULT_SEQUENCE_LOW, r.firstSequence);
  storeTime(token, RESULT_END_NS_LOW);
  mark(MARK_RESULT);
  if (holds(token)) store<u32>(RESULT_STATUS, status);
}

/** As Linux's max_reason: 0 stands for Oops. */
function isTaken(reason: u32): bool {
  const most = load<u32>(CONFIG_MAX_REASON);
  return reason <= (most == 0 ? REASON_OOPS : most);
}

/** The host for a panic: its token, or 0 if another panic holds it. RESULT_OWNER gets the id that held it before. */
function takeHost(force: u32): u32 {
  for (let i: u32 = 0; i < STEALS_MAX; i++) {
    const before = steal();
    const token = isPanicToken(before) ? (force != 0 ? stealFromPanic(before) : 0) : before | OWNER_PANIC;
    if (token != 0) {
      inheritShadow(token);
      memory.fill(RESULT_BASE, 0, RESULT_BYTES);
      store<u32>(RESULT_OWNER, before & 0xff);
      return token;
    }
    if (force == 0) break;
  }
  return 0;
}

/**
 * First half of a panic: takes the host, whoever holds it; `force`: also from a panic that died in the middle. Returns
 * the token that panicRun() wants, with OWNER_PANIC in its low byte as no errno has it. Behind it TEXT, CONFIG_PARTS
 * and RESULT are the caller's. Or, with nothing changed, not even for a panic that is under way: -EINVAL a time that
 * cannot be, -ECANCELED filtered by CONFIG_MAX_REASON, -EBUSY another panic holds the host (-ECANCELED too where one
 * was forced behind this one at once).
 */
export function panicTake(reason: u32, timeSecLow: u32, timeSecHigh: u32, timeNsec: u32, force: u32): u32 {
  if (timeNsec > 999999999) return EINVAL;
  if (!isTaken(reason)) return ECANCELED;
  const token = takeHost(force);
  if (token == 0) return EBUSY;
  clearDumpResult();
  endPanicPlan();
  portStartTime(token);
  storeTime(token, RESULT_START_NS_LOW);
  store<u32>(RESULT_STATUS, EBUSY);
  store<u32>(RESULT_CARD_STATE, NO_STATE);
  store<u32>(RESULT_REFUSED_COMMAND, 0xffffffff);
  if (!step(token, STEP_TAKE_HOST, load<u32>(RESULT_OWNER))) return ECANCELED;
  const lengthNs: u64 = <u64>load<u32>(CONFIG_DEADLINE_US) * 1000;
  setDeadline(token, lengthNs > RESERVE_NS ? lengthNs - RESERVE_NS : 0);
  shadow(token).careful = 0;
  describeRecord(reason, <i64>(((<u64>timeSecHigh) << 32) | timeSecLow), timeNsec);
  return token;
}

/** Steps 2 to 10. */
function writeAll(token: u32, textBytes: u32): i32 {
  // With less time than an orderly end costs, nothing is touched at all.
  forgetRefusal(token);
  let status = isLate(token) ? ETIMEDOUT : takeOver(token);
  // Questions that a card in disorder does not answer are how it was found, unless it was not brought back.
  if (status == OK) forgetRefusal(token);
  if (status == OK && !areaFits(shadow(token).sectors)) status = EINVAL;
  if (status == OK) status = mustScan() ? scanZones(token) : lookAgain(token);
  if (!holds(token)) return ECANCELED;
  if (status == OK) status = storeText(token, textBytes);
  else store<u32>(RESULT_DROPPED_BYTES, textBytes);
  if (!holds(token)) return ECANCELED;
  noteCommands(token, status);
  const reached = load<u32>(RESULT_STEP);
  // No zone for the record is no reason to lose the rings too.
  if (status == OK || status == ENOSPC || blamesZone(status)) storeRings(token);
  if (status == OK) {
    storeDump(token);
    step(token, STEP_DONE, load<u32>(RESULT_ZONE));
  } else if (holds(token)) store<u32>(RESULT_STEP, reached);
  return status;
}

/**
 * Second half: writes `textBytes` (0 … TEXT_BYTES_MAX) bytes at TEXT as one kmsg record, or with CONFIG_PARTS as
 * several, and gives the host back. Returns 0 when the record (of several, the one with the newest text) has been read
 * back from the medium, else nothing is promised of it: -ECANCELED `token` does not hold the host (any more), -EINVAL,
 * -ENOSPC no zone, -ENOMEDIUM, -ENODEV another card, -ETIMEDOUT the deadline, -EIO or -EILSEQ what the last attempt
 * met. RESULT has the details.
 */
export function panicRun(token: u32, textBytes: u32): i32 {
  if (!isPanicToken(token) || !holds(token)) return ECANCELED;
  crc32cPrepare();
  const status = textBytes > <u32>TEXT_BYTES_MAX ? EINVAL : writeAll(token, textBytes);
  clearDeadline(token);
  shadow(token).careful = 0;
  publish(token, status);
  return release(token) ? status : ECANCELED;
}

/**
 * Both halves, for a text that stands at TEXT already: of a caller who is the only one that can panic, for the text of
 * a panic under way would be written over. Errors: as panicTake() and panicRun().
 */
export function panicWrite(
  reason: u32,
  timeSecLow: u32,
  timeSecHigh: u32,
  timeNsec: u32,
  textBytes: u32,
  force: u32,
): i32 {
  if (textBytes > <u32>TEXT_BYTES_MAX) return EINVAL;
  const token = panicTake(reason, timeSecLow, timeSecHigh, timeNsec, force);
  return isPanicToken(token) ? panicRun(token, textBytes) : <i32>token;
}
