// panic_write from top to bottom. No allocation, no lock, no wait without an end, no import: it takes the host,
// brings the card back, writes one record so that a cut at any point leaves the older ones whole, and
// tells the truth. A panic that was robbed (another was forced behind it) ends at its next access or step and stores
// nothing more where others read: what follows a mark or an access looks at the status or at the token first.

import { headBlock, tailBlock } from "./buffers";
import { bytesEqual } from "./bytes";
import { crc32cPrepare } from "./crc";
import { claimHost } from "./driver/block";
import { resetBothLines } from "./driver/command";
import { makeDurable, settleCache, writeFlags } from "./driver/durable";
import { portNowNs, portStartTime, portWorked } from "./driver/port";
import { forgetRefusal } from "./driver/refusal";
import {
  clearDeadline,
  currentShadow,
  inheritShadow,
  isLate,
  leftNs,
  outcome,
  setDeadline,
  shadow,
} from "./driver/shadow";
import { leadBack, NO_STATE, quietController, restartCard, takeOverCard } from "./driver/takeover";
import { transferBlocks } from "./driver/transfer";
import { readSector } from "./driver/way";
import { endPanicPlan } from "./dump/plan";
import { EBUSY, ECANCELED, EINVAL, EIO, ENODEV, ENOMEDIUM, ENOMSG, ENOSPC, ETIMEDOUT, OK } from "./errno";
import {
  BOUNCE_SECTORS,
  CONFIG_COMPRESS,
  CONFIG_DEADLINE_US,
  CONFIG_DEFLATE_NS,
  CONFIG_MAX_REASON,
  CONFIG_PARTS,
  PANIC_BOUNCE,
  PANIC_HEAD_BLOCK,
  PANIC_TAIL_BLOCK,
  PARTS_MAX,
  RESULT_ATTEMPTS,
  RESULT_BASE,
  RESULT_BYTES,
  RESULT_CARD_STATE,
  RESULT_COMMAND,
  RESULT_COMMIT_NS_LOW,
  RESULT_COMPRESSED,
  RESULT_COUNTER,
  RESULT_DROPPED_BYTES,
  RESULT_END_NS_LOW,
  RESULT_OWNER,
  RESULT_PARTS,
  RESULT_PARTS_STATUS,
  RESULT_PAYLOAD_BYTES,
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
  RESULT_STORED_BYTES,
  RESULT_ZONE,
  RINGS_MAX,
  SECTOR_BYTES,
  STEP_CHOOSE_ZONE,
  STEP_COMMIT,
  STEP_COMPRESS,
  STEP_DONE,
  STEP_FLUSH_RING,
  STEP_INVALIDATE,
  STEP_QUIET_CONTROLLER,
  STEP_TAKE_CARD,
  STEP_TAKE_HOST,
  STEP_VERIFY,
  STEP_WRITE_BODY,
  TEXT_BYTES_MAX,
  VERIFY_BASE,
  ZONES_MAX,
} from "./layout";
import { MARK_RESULT, mark } from "./mark";
import { holds, isPanicToken, OWNER_PANIC, release, steal, stealFromPanic } from "./owner";
import { clearDumpResult, storeDump } from "./panic-dump";
import {
  PSTORE_KMSG_HEADER_MAGIC,
  PSZ_BUFFER_BYTES,
  PSZ_SIG_KMSG,
  REASON_OOPS,
  ZONE_BAD,
  ZONE_PART,
  ZONE_USED,
} from "./pstore/format";
import {
  assembleSectors,
  beginText,
  compressibleBytes,
  compressRecord,
  describeRecord,
  describeText,
  eraseHeader,
  liftLine,
  numberRecord,
  placeLine,
  record,
  recordSectors,
} from "./pstore/record";
import { beginRecovery, endRecovery, recoverBadZone, recoverZone } from "./pstore/recover";
import { pendingBytes, ringCount } from "./pstore/ring";
import {
  area,
  areaFits,
  choosePartZone,
  chooseZone,
  countRecord,
  holdsRecord,
  nextCounter,
  setZoneState,
  zoneCount,
  zoneFirstLba,
  zoneSectors,
} from "./pstore/zone";
import { flushRing, flushSectors } from "./rings";
import { step } from "./step";

/** What the last accesses after a deadline may still cost: resets and one status, some 40 accesses. */
const RESERVE_NS: u64 = 100000;
/** Zones that are tried before the call gives up. */
const ATTEMPTS_MAX: u32 = 16;
/** Identification, then a power cycle; what still fails is blamed on the zone. */
const WAY_FAILURES_MAX: u32 = 3;
/** One zone may be bad. Two are the card: no (further) record is given up for nothing. */
const FAILED_ZONES_MAX: u32 = 2;
/** A further part is not begun with less time left than this many times what the part before took. */
const PART_TIME_FACTOR: u64 = 2;
/** Lengths of the text that are tried until its deflate stream fits. */
const COMPRESSIONS_MAX: u32 = 3;
/** Deflating may cost this part of the time that is left; the rest must do for writing, plain if need be. */
const COMPRESSION_SHARE: u64 = 4;
/** A ring that fails is tried once more, block by block and by PIO. */
const RING_ATTEMPTS_MAX: u32 = 2;
/** A ring is not begun unless there is this many times the time that the record's sectors took. */
const RING_TIME_FACTOR: u64 = 3;
/** What a sector may take where no record was written that would tell: an SD card's longest busy. */
const SECTOR_NS_MAX: u64 = 250000000;
/** A panic that ends at this very moment frees the host, which is then taken as from anybody. */
const STEALS_MAX: u32 = 3;
/** A zone of 128 MiB, in pieces of BOUNCE_SECTORS. */
const PIECES_MAX: u32 = 2048;

/** True if nobody knows the zones, or a guest may have written, emptied or moved records since. */
function mustScan(): bool {
  return isDefined(EXTERNAL_BUS) || area().recovered == 0;
}

/** Every zone's first and last sector: at opening, or in the panic itself if it came before. */
function scanZones(token: u32): i32 {
  const head = headBlock(token);
  const tail = tailBlock(token);
  const count = zoneCount();
  beginRecovery();
  for (let zone: u32 = 0; zone < count && zone < <u32>ZONES_MAX; zone++) {
    const first = zoneFirstLba(zone);
    let status = readSector(token, first, head);
    if (status == OK) status = readSector(token, first + zoneSectors() - 1, tail);
    if (status == OK) recoverZone(token, zone, head, tail);
    else if (isLate(token) || shadow(token).identified == 0 || status == ENOMEDIUM || status == ENODEV)
      return status;
    else recoverBadZone(token, zone);
  }
  if (!holds(token)) return ECANCELED;
  endRecovery();
  return OK;
}

/**
 * Recovery in the core, for its own counters and slots. Normal path: -EBUSY if the host is held, -ECANCELED if a panic
 * has taken it meanwhile. -EINVAL: CONFIG's area is none, or not on this card.
 */
export function recoverArea(): i32 {
  if (!areaFits(currentShadow().sectors)) return EINVAL;
  crc32cPrepare();
  const token = claimHost();
  if (token == 0) return EBUSY;
  const status = scanZones(token);
  return release(token) ? status : ECANCELED;
}

function writeSectors(token: u32, zone: u32, first: u32, count: u32): i32 {
  for (let i: u32 = 0; i * BOUNCE_SECTORS < count && i < PIECES_MAX; i++) {
    const at = first + i * BOUNCE_SECTORS;
    const left = count - i * BOUNCE_SECTORS;
    const now = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
    assembleSectors(at, now, PANIC_BOUNCE);
    const status = transferBlocks(token, true, zoneFirstLba(zone) + at, now, PANIC_BOUNCE, writeFlags(token));
    if (status != OK) return status;
  }
  return OK;
}

/** -EIO: the medium holds something else than what was written. */
function verifySectors(token: u32, zone: u32, first: u32, count: u32): i32 {
  for (let i: u32 = 0; i * BOUNCE_SECTORS < count && i < PIECES_MAX; i++) {
    const at = first + i * BOUNCE_SECTORS;
    const left = count - i * BOUNCE_SECTORS;
    const now = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
    const status = transferBlocks(token, false, zoneFirstLba(zone) + at, now, VERIFY_BASE, 0);
    if (status != OK) return status;
    assembleSectors(at, now, PANIC_BOUNCE);
    if (!bytesEqual(PANIC_BOUNCE, VERIFY_BASE, now * SECTOR_BYTES)) return EIO;
  }
  return OK;
}

/** If the zone has a live header, its datalen becomes 0: until the commit it shall hold no record at all. */
function invalidateHeader(token: u32, zone: u32): i32 {
  const lba = zoneFirstLba(zone);
  let status = transferBlocks(token, false, lba, 1, PANIC_HEAD_BLOCK, 0);
  if (status != OK) return status;
  const live =
    load<u32>(PANIC_HEAD_BLOCK) == PSZ_SIG_KMSG &&
    load<u32>(PANIC_HEAD_BLOCK, PSZ_BUFFER_BYTES) == PSTORE_KMSG_HEADER_MAGIC;
  if (!live || load<u32>(PANIC_HEAD_BLOCK, 4) == 0) return OK;
  eraseHeader(PANIC_HEAD_BLOCK);
  status = transferBlocks(token, true, lba, 1, PANIC_HEAD_BLOCK, writeFlags(token));
  return status == OK ? makeDurable(token) : status;
}

/**
 * Seal, body, then header: the header's sector is the commit. The seal goes first, so that what is cut before the
 * header stands is known for ours: no foreign bytes end with one.
 */
function writeRecord(token: u32, zone: u32): i32 {
  const sectors = recordSectors();
  const last = zoneSectors() - 1;
  if (!step(token, STEP_INVALIDATE, zone)) return ECANCELED;
  let status = settleCache(token);
  if (status == OK) status = invalidateHeader(token, zone);
  if (status != OK) return status;
  if (!step(token, STEP_WRITE_BODY, zone)) return ECANCELED;
  const bodyNs = portNowNs(token);
  status = writeSectors(token, zone, last, 1);
  const bodyEnd = sectors < last ? sectors : last;
  if (status == OK && bodyEnd > 1) status = writeSectors(token, zone, 1, bodyEnd - 1);
  if (status == OK) status = makeDurable(token);
  if (status != OK) return status;
  if (!step(token, STEP_COMMIT, zone)) return ECANCELED;
  status = writeSectors(token, zone, 0, 1);
  if (status == OK) status = makeDurable(token);
  if (status != OK) return status;
  if (load<u64>(RESULT_COMMIT_NS_LOW) == 0) storeTime(token, RESULT_COMMIT_NS_LOW);
  record().sectorNs = (portNowNs(token) - bodyNs) / sectors;
  if (!step(token, STEP_VERIFY, zone)) return ECANCELED;
  status = verifySectors(token, zone, 0, sectors);
  return status == OK && sectors <= last ? verifySectors(token, zone, last, 1) : status;
}

function storeTime(token: u32, word: usize): void {
  store<u64>(word, portNowNs(token));
}

/** True if it is the zone that failed and not the way to it: another zone may do. */
function blamesZone(status: i32): bool {
  return status == EIO || status == ENOMSG;
}

/** Steps 2 and 3: the controller quiet, the card in tran. */
function takeOver(token: u32): i32 {
  if (!step(token, STEP_QUIET_CONTROLLER, 0)) return ECANCELED;
  quietController(token);
  if (!step(token, STEP_TAKE_CARD, 0)) return ECANCELED;
  return takeOverCard(token, RESULT_CARD_STATE, RESULT_RUNG);
}

/** Step 4: the newest text as a deflate stream, if there is time for it and if it helps; plain as it stands if not. */
function compressText(token: u32): void {
  if (load<u32>(CONFIG_COMPRESS) == 0) return;
  let tryBytes = compressibleBytes();
  for (let i: u32 = 0; i < COMPRESSIONS_MAX && tryBytes > 0; i++) {
    const costNs = <u64>(tryBytes + record().lineBytes) * load<u32>(CONFIG_DEFLATE_NS);
    if (costNs > leftNs(token) / COMPRESSION_SHARE) return;
    if (!step(token, STEP_COMPRESS, tryBytes)) return;
    tryBytes = compressRecord(tryBytes);
    portWorked(token, <u32>costNs);
  }
}

/** Steps 5 and 6: zones one after the other until the record stands or there is no hope. */
function storeRecord(token: u32, part: u32): i32 {
  const r = record();
  let status: i32 = ENOSPC;
  let wayFailures: u32 = 0;
  let failedZones: u32 = 0;
  for (let attempt: u32 = 0; attempt < ATTEMPTS_MAX; attempt++) {
    if (!step(token, STEP_CHOOSE_ZONE, attempt)) return ECANCELED;
    const zone = part == 1 ? chooseZone() : choosePartZone(r.firstSequence);
    if (zone < 0) return attempt == 0 ? ENOSPC : status;
    if (failedZones >= FAILED_ZONES_MAX && holdsRecord(zone)) return status;
    if (part == 1) {
      store<u32>(RESULT_ZONE, zone);
      store<u32>(RESULT_ATTEMPTS, attempt + 1);
      r.counter = nextCounter(r.reason);
      r.firstSequence = area().sequence + 1;
    }
    numberRecord(area().sequence + 1);
    status = writeRecord(token, zone);
    if (status == OK) {
      countRecord(zone, r.sequence, r.firstSequence, r.timeSec, r.reason, r.counter);
      setZoneState(token, zone, part == 1 ? ZONE_USED : ZONE_PART);
      return outcome(token, OK);
    }
    if (isLate(token)) return ETIMEDOUT;
    if (status == ENOMEDIUM) return status;
    // Whatever went wrong, the card has to be led back before anything else.
    resetBothLines(token);
    if (!blamesZone(status) && wayFailures < WAY_FAILURES_MAX) {
      // A fault of the way: the same zone again, from identification on, block by block and by PIO.
      shadow(token).careful = 1;
      restartCard(token, wayFailures > 0);
      wayFailures += 1;
    }
    const back = takeOverCard(token, PANIC_TAIL_BLOCK, PANIC_TAIL_BLOCK + 4);
    if (back != OK) return back;
    if (!blamesZone(status) && wayFailures < WAY_FAILURES_MAX) continue;
    failedZones += 1;
    setZoneState(token, zone, ZONE_BAD);
    invalidateHeader(token, zone);
  }
  return status;
}

/** What one part has stored, on top of the parts before. */
function addToResult(): void {
  const r = record();
  store<u32>(RESULT_PARTS, load<u32>(RESULT_PARTS) + 1);
  store<u32>(RESULT_STORED_BYTES, load<u32>(RESULT_STORED_BYTES) + r.textBytes);
  store<u32>(RESULT_PAYLOAD_BYTES, load<u32>(RESULT_PAYLOAD_BYTES) + r.payloadBytes);
  store<u32>(RESULT_COMPRESSED, load<u32>(RESULT_COMPRESSED) | r.compressed);
}

/** CONFIG_PARTS, 1 … PARTS_MAX. */
function partsWanted(): u32 {
  const parts = load<u32>(CONFIG_PARTS);
  if (parts == 0) return 1;
  return parts < <u32>PARTS_MAX ? parts : PARTS_MAX;
}

/**
 * Steps 4 to 6 for each part of the text, the newest first: when part 1 stands, the dump is a success, and what the
 * deadline, a lack of zones or an error cuts off is the oldest text.
 */
function storeText(token: u32, textBytes: u32): i32 {
  const r = record();
  const parts = partsWanted();
  let leftBytes = beginText(textBytes, parts > 1);
  store<u32>(RESULT_STORED_BYTES, r.lineBytes);
  let lastNs: u64 = 0;
  let status: i32 = OK;
  for (let part: u32 = 1; part <= parts && part <= <u32>PARTS_MAX; part++) {
    const beganNs = portNowNs(token);
    if (part > 1 && leftNs(token) / PART_TIME_FACTOR < lastNs) {
      status = ETIMEDOUT;
      break;
    }
    describeText(leftBytes, part);
    compressText(token);
    if (!holds(token)) return ECANCELED;
    if (parts > 1 && (part > 1 || r.droppedBytes > 0)) r.part = part;
    placeLine();
    status = storeRecord(token, part);
    if (!holds(token)) return ECANCELED;
    liftLine();
    if (status != OK) break;
    addToResult();
    leftBytes = r.droppedBytes;
    if (leftBytes == 0) break;
    lastNs = portNowNs(token) - beganNs;
  }
  store<u32>(RESULT_PARTS_STATUS, status);
  const stands = load<u32>(RESULT_PARTS) > 0;
  store<u32>(RESULT_DROPPED_BYTES, stands ? leftBytes : textBytes);
  if (!stands) store<u32>(RESULT_STORED_BYTES, 0);
  return stands ? OK : status;
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
  if (status == OK && mustScan()) status = scanZones(token);
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
