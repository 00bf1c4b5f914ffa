// panic_write from top to bottom. No allocation, no lock, no wait without an end, no import: it takes the host,
// brings the card back, writes one record so that a cut at any point leaves the older ones whole, and
// tells the truth.

import { bytesEqual } from "./bytes";
import { crc32cPrepare } from "./crc";
import { NORMAL_ID } from "./driver/block";
import { resetBothLines } from "./driver/command";
import { makeDurable, writeFlags } from "./driver/durable";
import { portNowNs, portWorked } from "./driver/port";
import { clearDeadline, isLate, leftNs, setDeadline, shadow } from "./driver/shadow";
import { leadBack, quietController, restartCard, takeOverCard } from "./driver/takeover";
import { transferBlocks } from "./driver/transfer";
import { EBUSY, ECANCELED, EINVAL, EIO, ENOMEDIUM, ENOMSG, ENOSPC, ETIMEDOUT, OK } from "./errno";
import {
  BOUNCE_BASE,
  BOUNCE_SECTORS,
  CONFIG_COMPRESS,
  CONFIG_DEADLINE_US,
  CONFIG_DEFLATE_NS,
  CONFIG_MAX_REASON,
  CONFIG_PARTS,
  HEAD_BLOCK,
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
  TAIL_BLOCK,
  TEXT_BYTES_MAX,
  VERIFY_BASE,
  ZONES_MAX,
} from "./layout";
import { MARK_RESULT, mark } from "./mark";
import { claim, OWNER_PANIC, release, steal, stealFromPanic } from "./owner";
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
import { ring, ringCount } from "./pstore/ring";
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
/** A zone of 128 MiB, in pieces of BOUNCE_SECTORS. */
const PIECES_MAX: u32 = 2048;

/** True if nobody knows the zones, or a guest may have written, emptied or moved records since. */
function mustScan(): bool {
  return isDefined(EXTERNAL_BUS) || area().recovered == 0;
}

/** Every zone's first and last sector: at opening, or in the panic itself if it came before. */
function scanZones(): i32 {
  const count = zoneCount();
  beginRecovery();
  for (let zone: u32 = 0; zone < count && zone < <u32>ZONES_MAX; zone++) {
    const first = zoneFirstLba(zone);
    let status = transferBlocks(false, first, 1, HEAD_BLOCK, 0);
    if (status == OK) status = transferBlocks(false, first + zoneSectors() - 1, 1, TAIL_BLOCK, 0);
    if (status == OK) recoverZone(zone, HEAD_BLOCK, TAIL_BLOCK);
    else if (isLate() || status == ENOMEDIUM) return status;
    else recoverBadZone(zone);
  }
  endRecovery();
  return OK;
}

/**
 * Recovery in the core, for its own counters and slots. Normal path: -EBUSY if the host is held. -EINVAL: CONFIG's area
 * is none, or not on this card.
 */
export function recoverArea(): i32 {
  if (!areaFits(shadow().sectors)) return EINVAL;
  crc32cPrepare();
  const token = claim(NORMAL_ID);
  if (token == 0) return EBUSY;
  const status = scanZones();
  release(token);
  return status;
}

function writeSectors(zone: u32, first: u32, count: u32): i32 {
  for (let i: u32 = 0; i * BOUNCE_SECTORS < count && i < PIECES_MAX; i++) {
    const at = first + i * BOUNCE_SECTORS;
    const left = count - i * BOUNCE_SECTORS;
    const now = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
    assembleSectors(at, now, BOUNCE_BASE);
    const status = transferBlocks(true, zoneFirstLba(zone) + at, now, BOUNCE_BASE, writeFlags());
    if (status != OK) return status;
  }
  return OK;
}

/** -EIO: the medium holds something else than what was written. */
function verifySectors(zone: u32, first: u32, count: u32): i32 {
  for (let i: u32 = 0; i * BOUNCE_SECTORS < count && i < PIECES_MAX; i++) {
    const at = first + i * BOUNCE_SECTORS;
    const left = count - i * BOUNCE_SECTORS;
    const now = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
    const status = transferBlocks(false, zoneFirstLba(zone) + at, now, VERIFY_BASE, 0);
    if (status != OK) return status;
    assembleSectors(at, now, BOUNCE_BASE);
    if (!bytesEqual(BOUNCE_BASE, VERIFY_BASE, now * SECTOR_BYTES)) return EIO;
  }
  return OK;
}

/** If the zone has a live header, its datalen becomes 0: until the commit it shall hold no record at all. */
function invalidateHeader(zone: u32): i32 {
  const lba = zoneFirstLba(zone);
  let status = transferBlocks(false, lba, 1, HEAD_BLOCK, 0);
  if (status != OK) return status;
  const live =
    load<u32>(HEAD_BLOCK) == PSZ_SIG_KMSG &&
    load<u32>(HEAD_BLOCK, PSZ_BUFFER_BYTES) == PSTORE_KMSG_HEADER_MAGIC;
  if (!live || load<u32>(HEAD_BLOCK, 4) == 0) return OK;
  eraseHeader(HEAD_BLOCK);
  status = transferBlocks(true, lba, 1, HEAD_BLOCK, writeFlags());
  return status == OK ? makeDurable() : status;
}

/**
 * Seal, body, then header: the header's sector is the commit. The seal goes first, so that what is cut before the header
 * stands is known for ours: no foreign bytes end with one.
 */
function writeRecord(zone: u32): i32 {
  const sectors = recordSectors();
  const last = zoneSectors() - 1;
  step(STEP_INVALIDATE, zone);
  let status = invalidateHeader(zone);
  if (status != OK) return status;
  step(STEP_WRITE_BODY, zone);
  const bodyNs = portNowNs();
  status = writeSectors(zone, last, 1);
  const bodyEnd = sectors < last ? sectors : last;
  if (status == OK && bodyEnd > 1) status = writeSectors(zone, 1, bodyEnd - 1);
  if (status == OK) status = makeDurable();
  if (status != OK) return status;
  step(STEP_COMMIT, zone);
  status = writeSectors(zone, 0, 1);
  if (status == OK) status = makeDurable();
  if (status != OK) return status;
  if (load<u64>(RESULT_COMMIT_NS_LOW) == 0) storeTime(RESULT_COMMIT_NS_LOW);
  record().sectorNs = (portNowNs() - bodyNs) / sectors;
  step(STEP_VERIFY, zone);
  status = verifySectors(zone, 0, sectors);
  return status == OK && sectors <= last ? verifySectors(zone, last, 1) : status;
}

function storeTime(word: usize): void {
  store<u64>(word, portNowNs());
}

/** True if it is the zone that failed and not the way to it: another zone may do. */
function blamesZone(status: i32): bool {
  return status == EIO || status == ENOMSG;
}

/** Steps 2 and 3: the controller quiet, the card in tran. */
function takeOver(): i32 {
  step(STEP_QUIET_CONTROLLER, 0);
  quietController();
  step(STEP_TAKE_CARD, 0);
  return takeOverCard(RESULT_CARD_STATE, RESULT_RUNG);
}

/**
 * One block of the area, to see that data come through: the lines that a guest has left may not be the card's, which
 * shows in nothing else, and to a scan every zone would be bad.
 */
function proveWay(): i32 {
  const status = transferBlocks(false, zoneFirstLba(0), 1, HEAD_BLOCK, 0);
  if (status == OK || blamesZone(status)) return OK;
  if (status == ENOMEDIUM) return status;
  resetBothLines();
  shadow().careful = 1;
  restartCard(false);
  return takeOverCard(TAIL_BLOCK, TAIL_BLOCK + 4);
}

/** Step 4: the newest text as a deflate stream, if there is time for it and if it helps; plain as it stands if not. */
function compressText(): void {
  if (load<u32>(CONFIG_COMPRESS) == 0) return;
  let tryBytes = compressibleBytes();
  for (let i: u32 = 0; i < COMPRESSIONS_MAX && tryBytes > 0; i++) {
    const costNs = <u64>(tryBytes + record().lineBytes) * load<u32>(CONFIG_DEFLATE_NS);
    if (costNs > leftNs() / COMPRESSION_SHARE) return;
    step(STEP_COMPRESS, tryBytes);
    tryBytes = compressRecord(tryBytes);
    portWorked(<u32>costNs);
  }
}

/** Steps 5 and 6: zones one after the other until the record stands or there is no hope. */
function storeRecord(part: u32): i32 {
  const r = record();
  let status: i32 = ENOSPC;
  let wayFailures: u32 = 0;
  let failedZones: u32 = 0;
  for (let attempt: u32 = 0; attempt < ATTEMPTS_MAX; attempt++) {
    step(STEP_CHOOSE_ZONE, attempt);
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
    status = writeRecord(zone);
    if (status == OK) {
      setZoneState(zone, part == 1 ? ZONE_USED : ZONE_PART);
      countRecord(zone, r.sequence, r.firstSequence, r.timeSec, r.reason, r.counter);
      return OK;
    }
    if (isLate()) return ETIMEDOUT;
    if (status == ENOMEDIUM) return status;
    // Whatever went wrong, the card has to be led back before anything else.
    resetBothLines();
    if (!blamesZone(status) && wayFailures < WAY_FAILURES_MAX) {
      // A fault of the way: the same zone again, from identification on, block by block and by PIO.
      shadow().careful = 1;
      restartCard(wayFailures > 0);
      wayFailures += 1;
    }
    const back = takeOverCard(TAIL_BLOCK, TAIL_BLOCK + 4);
    if (back != OK) return back;
    if (!blamesZone(status) && wayFailures < WAY_FAILURES_MAX) continue;
    failedZones += 1;
    setZoneState(zone, ZONE_BAD);
    invalidateHeader(zone);
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
function storeText(textBytes: u32): i32 {
  const r = record();
  const parts = partsWanted();
  let leftBytes = beginText(textBytes, parts > 1);
  store<u32>(RESULT_STORED_BYTES, r.lineBytes);
  let lastNs: u64 = 0;
  let status: i32 = OK;
  for (let part: u32 = 1; part <= parts && part <= <u32>PARTS_MAX; part++) {
    const beganNs = portNowNs();
    if (part > 1 && leftNs() / PART_TIME_FACTOR < lastNs) {
      status = ETIMEDOUT;
      break;
    }
    describeText(leftBytes, part);
    compressText();
    if (parts > 1 && (part > 1 || r.droppedBytes > 0)) r.part = part;
    placeLine();
    status = storeRecord(part);
    liftLine();
    if (status != OK) break;
    addToResult();
    leftBytes = r.droppedBytes;
    if (leftBytes == 0) break;
    lastNs = portNowNs() - beganNs;
  }
  store<u32>(RESULT_PARTS_STATUS, status);
  const stands = load<u32>(RESULT_PARTS) > 0;
  store<u32>(RESULT_DROPPED_BYTES, stands ? leftBytes : textBytes);
  if (!stands) store<u32>(RESULT_STORED_BYTES, 0);
  return stands ? OK : status;
}

/** Whether a ring's flush will come to its end before the deadline: begun, it may have hidden what was there. */
function hasTimeFor(index: u32): bool {
  const measuredNs = record().sectorNs;
  const sectorNs = measuredNs > 0 ? RING_TIME_FACTOR * measuredNs : SECTOR_NS_MAX;
  return leftNs() >= sectorNs * flushSectors(index);
}

function storeRing(index: u32): i32 {
  let status: i32 = ETIMEDOUT;
  for (let attempt: u32 = 0; attempt < RING_ATTEMPTS_MAX && hasTimeFor(index); attempt++) {
    status = flushRing(index);
    if (status == OK || isLate()) return status;
    shadow().careful = 1;
    if (leadBack() != OK) return status;
  }
  return status;
}

/** Step 9: what the rings have in memory alone. What became of the record and what becomes of them is independent. */
function storeRings(): void {
  let flushed: u32 = 0;
  let firstFailure: i32 = OK;
  for (let index: u32 = 0; index < ringCount() && index < <u32>RINGS_MAX; index++) {
    if (ring(index).pendingBytes == 0) continue;
    step(STEP_FLUSH_RING, index);
    const status = storeRing(index);
    if (status == OK) flushed += 1;
    else if (firstFailure == OK) firstFailure = status;
  }
  store<u32>(RESULT_RINGS_FLUSHED, flushed);
  store<u32>(RESULT_RINGS_STATUS, firstFailure);
}

/** What the record's last attempt met on the bus. */
function noteLastCommand(status: i32): void {
  store<u32>(RESULT_COMMAND, status == OK ? 0xffffffff : shadow().lastCommand);
  store<u32>(RESULT_R1, shadow().lastR1);
}

function publish(status: i32): i32 {
  const r = record();
  store<u32>(RESULT_COUNTER, r.counter);
  store<u64>(RESULT_SEQUENCE_LOW, r.firstSequence);
  storeTime(RESULT_END_NS_LOW);
  mark(MARK_RESULT);
  store<u32>(RESULT_STATUS, status);
  return status;
}

/** As Linux's max_reason: 0 stands for Oops. */
function isTaken(reason: u32): bool {
  const most = load<u32>(CONFIG_MAX_REASON);
  return reason <= (most == 0 ? REASON_OOPS : most);
}

/**
 * Writes `textBytes` (0 … TEXT_BYTES_MAX) bytes at TEXT as one kmsg record, or with CONFIG_PARTS as several. `force`:
 * also take the host from a panic that died in the middle. Returns 0 when the record (of several, the one with the
 * newest text) has been read back from the medium, else nothing is promised of it: -ECANCELED filtered by
 * CONFIG_MAX_REASON, nothing was touched; -EBUSY another panic holds the host, -EINVAL, -ENOSPC no zone, -ENOMEDIUM,
 * -ENODEV another card, -ETIMEDOUT the deadline, -EIO or -EILSEQ what the last attempt met.
 * RESULT has the details, if something was touched.
 */
export function panicWrite(
  reason: u32,
  timeSecLow: u32,
  timeSecHigh: u32,
  timeNsec: u32,
  textBytes: u32,
  force: u32,
): i32 {
  if (textBytes > <u32>TEXT_BYTES_MAX || timeNsec > 999999999) return EINVAL;
  if (!isTaken(reason)) return ECANCELED;
  const before = steal();
  if ((before & 0xff) == OWNER_PANIC && force == 0) return EBUSY;
  const token = (before & 0xff) == OWNER_PANIC ? stealFromPanic() : before | OWNER_PANIC;
  memory.fill(RESULT_BASE, 0, RESULT_BYTES);
  clearDumpResult();
  storeTime(RESULT_START_NS_LOW);
  store<u32>(RESULT_OWNER, before & 0xff);
  store<u32>(RESULT_STATUS, EBUSY);
  step(STEP_TAKE_HOST, before & 0xff);

  const s = shadow();
  const lengthNs: u64 = <u64>load<u32>(CONFIG_DEADLINE_US) * 1000;
  setDeadline(lengthNs > RESERVE_NS ? lengthNs - RESERVE_NS : 0);
  s.careful = 0;
  crc32cPrepare();
  describeRecord(reason, <i64>(((<u64>timeSecHigh) << 32) | timeSecLow), timeNsec);

  // With less time than an orderly end costs, nothing is touched at all.
  let status = isLate() ? ETIMEDOUT : takeOver();
  if (status == OK && !areaFits(s.sectors)) status = EINVAL;
  if (status == OK && mustScan()) {
    if (isDefined(EXTERNAL_BUS)) status = proveWay();
    if (status == OK) status = scanZones();
  }
  if (status == OK) status = storeText(textBytes);
  else store<u32>(RESULT_DROPPED_BYTES, textBytes);
  noteLastCommand(status);
  const reached = load<u32>(RESULT_STEP);
  // No zone for the record is no reason to lose the rings too.
  if (status == OK || status == ENOSPC || blamesZone(status)) storeRings();
  if (status == OK) {
    storeDump();
    step(STEP_DONE, load<u32>(RESULT_ZONE));
  } else store<u32>(RESULT_STEP, reached);
  clearDeadline();
  s.careful = 0;
  publish(status);
  release(token);
  return status;
}
