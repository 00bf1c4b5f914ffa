// The panic's text into zones, newest first: how much of it the time allows, which zone takes it, body, seal and header
// in the order that a cut cannot break, read back. Nothing older is given up before it is known that the new record
// fits into the time that is left; where it does not, it is its oldest text that goes.

import { bytesEqual } from "./bytes";
import { resetBothLines } from "./driver/command";
import { makeDurable, settleCache, writeFlags } from "./driver/durable";
import { portNowNs, portWorked } from "./driver/port";
import { isLate, leftNs, outcome, shadow } from "./driver/shadow";
import { restartCard, takeOverCard } from "./driver/takeover";
import { transferBlocks } from "./driver/transfer";
import { ECANCELED, EFBIG, EIO, ENOMEDIUM, ENOMSG, ENOSPC, EOVERFLOW, ETIMEDOUT, OK } from "./errno";
import {
  BOUNCE_SECTORS,
  CONFIG_COMPRESS,
  CONFIG_DEFLATE_NS,
  CONFIG_PARTS,
  PANIC_BOUNCE,
  PANIC_HEAD_BLOCK,
  PANIC_TAIL_BLOCK,
  PARTS_MAX,
  RESULT_ATTEMPTS,
  RESULT_COMMIT_NS_LOW,
  RESULT_COMPRESSED,
  RESULT_DROPPED_BYTES,
  RESULT_PARTS,
  RESULT_PARTS_STATUS,
  RESULT_PAYLOAD_BYTES,
  RESULT_STORED_BYTES,
  RESULT_ZONE,
  SECTOR_BYTES,
  STEP_CHOOSE_ZONE,
  STEP_COMMIT,
  STEP_COMPRESS,
  STEP_INVALIDATE,
  STEP_VERIFY,
  STEP_WRITE_BODY,
  VERIFY_BASE,
} from "./layout";
import { holds } from "./owner";
import {
  PSTORE_KMSG_HEADER_MAGIC,
  PSZ_BUFFER_BYTES,
  PSZ_SIG_KMSG,
  ZONE_BAD,
  ZONE_EMPTY,
  ZONE_ERASED,
  ZONE_PART,
  ZONE_USED,
} from "./pstore/format";
import {
  assembleSectors,
  beginText,
  compressibleBytes,
  compressRecord,
  describeText,
  eraseHeader,
  liftLine,
  numberRecord,
  payloadWithin,
  placeLine,
  record,
  recordSectors,
} from "./pstore/record";
import {
  area,
  choosePartZone,
  chooseZone,
  countRecord,
  holdsRecord,
  nextCounter,
  payloadBytesMax,
  setZoneState,
  useNumbers,
  zoneFirstLba,
  zoneSectors,
  zoneState,
} from "./pstore/zone";
import { step } from "./step";

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
/** A zone of 128 MiB, in pieces of one sector and more. */
const PIECES_MAX: u32 = 262144;
/** What a sector may take on a card that was not written yet: JESD84-B51's and the SD specification's longest busy. */
const SECTOR_NS_MAX: u64 = 350000000;
/** The longest read access of an SD card. */
const READ_NS_MAX: u64 = 100000000;
/** A sector that took so long may have met the card's housekeeping: it is measured once more. */
const SLOW_NS: u64 = 100000000;
/** A record may take three of four parts of the time that is left: a card is not always as fast as it was. */
const SHARE: u64 = 3;
const SHARES: u64 = 4;
/** A piece takes no more than this part of the time that is left, so that a card that becomes slow is noticed. */
const PIECE_SHARE: u64 = 8;
/** How often a record is made shorter. */
const SHORTENINGS_MAX: u32 = 5;
/** A header that must not be seen is written so often. */
const WITHDRAWALS_MAX: u32 = 2;

/** A time that was measured: 0 means that none was, and a clock may stand still or be coarse. */
function measured(lengthNs: u64): u64 {
  return lengthNs > 0 ? lengthNs : 1;
}

/** True if it is the zone that failed and not the way to it: another zone may do. */
export function blamesZone(status: i32): bool {
  return status == EIO || status == ENOMSG;
}

function isFree(zone: u32): bool {
  const state = zoneState(zone);
  return state == ZONE_EMPTY || state == ZONE_ERASED;
}

/** What a record of `sectors` should take: its sectors, the seal, an old header if there is one; read back in two. */
function neededNs(token: u32, sectors: u32): u64 {
  const r = record();
  const sectorNs = r.sectorNs > 0 ? r.sectorNs : SECTOR_NS_MAX;
  const readNs = r.readNs > 0 ? r.readNs : READ_NS_MAX;
  const reads: u64 = shadow(token).careful != 0 ? sectors + 1 : 2;
  return (<u64>sectors + 1 + r.erasures) * sectorNs + reads * readNs;
}

function hasTimeFor(token: u32, sectors: u32): bool {
  return neededNs(token, sectors) <= (leftNs(token) / SHARES) * SHARE;
}

/** How many sectors a record may have; 0: not one. The least one may take all the time there is. */
function sectorsThatFit(token: u32): u32 {
  const least = neededNs(token, 1);
  const left = leftNs(token);
  if (left < least) return 0;
  const share = (left / SHARES) * SHARE;
  if (share <= least) return 1;
  const more = (share - least) / (neededNs(token, 2) - least);
  return more < zoneSectors() ? 1 + <u32>more : zoneSectors();
}

/** The newest text as a deflate stream, if there is time for it and if it helps; plain as it stands if not. */
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

/** The record of a part: as much of the newest text as fits into `roomBytes` of payload. */
function shapeRecord(token: u32, part: u32, roomBytes: u32): void {
  const r = record();
  describeText(r.bodyBytes, part, roomBytes);
  compressText(token);
  if (partsWanted() > 1 && (part > 1 || r.droppedBytes > 0)) r.part = part;
  placeLine();
}

/** The record becomes as short as the time is. -EOVERFLOW: not even the shortest one fits. */
function shorten(token: u32, part: u32): i32 {
  for (let i: u32 = 0; i < SHORTENINGS_MAX; i++) {
    if (hasTimeFor(token, recordSectors())) return OK;
    const sectors = sectorsThatFit(token);
    if (sectors == 0) return EOVERFLOW;
    if (sectors >= recordSectors()) return OK;
    liftLine();
    shapeRecord(token, part, payloadWithin(sectors));
  }
  return sectorsThatFit(token) == 0 ? EOVERFLOW : OK;
}

/**
 * How long a sector takes, tried on the zone's first one, which gets the bytes that it has: the record there is as it
 * was, and may stay.
 */
function measureSector(token: u32, zone: u32): i32 {
  const r = record();
  for (let i: u32 = 0; i < 2; i++) {
    const from = portNowNs(token);
    let status = transferBlocks(token, true, zoneFirstLba(zone), 1, PANIC_HEAD_BLOCK, writeFlags(token));
    if (status == OK) status = makeDurable(token);
    if (status != OK) return status;
    const sectorNs = measured(portNowNs(token) - from);
    if (r.sectorNs == 0 || sectorNs < r.sectorNs) r.sectorNs = sectorNs;
    if (sectorNs < SLOW_NS) break;
  }
  return OK;
}

/** Whether the sector at PANIC_HEAD_BLOCK is the header of a record that was not erased. */
function hasLiveHeader(): bool {
  const isHeader =
    load<u32>(PANIC_HEAD_BLOCK) == PSZ_SIG_KMSG &&
    load<u32>(PANIC_HEAD_BLOCK, PSZ_BUFFER_BYTES) == PSTORE_KMSG_HEADER_MAGIC;
  return isHeader && load<u32>(PANIC_HEAD_BLOCK, 4) != 0;
}

/** The zone's first sector at PANIC_HEAD_BLOCK, and a record that fits into the time. Nothing is lost until then. */
function fitRecord(token: u32, zone: u32, part: u32): i32 {
  const r = record();
  const from = portNowNs(token);
  let status = transferBlocks(token, false, zoneFirstLba(zone), 1, PANIC_HEAD_BLOCK, 0);
  if (status != OK) return status;
  r.readNs = measured(portNowNs(token) - from);
  r.erasures = hasLiveHeader() ? 1 : 0;
  if (hasTimeFor(token, recordSectors())) return OK;
  // In a zone that holds nothing the record's own first sectors show how fast the card is.
  if (r.sectorNs == 0 && isFree(zone)) return OK;
  if (r.sectorNs == 0) status = measureSector(token, zone);
  return status == OK ? shorten(token, part) : status;
}

/** If the zone has a live header, its datalen becomes 0: until the commit it shall hold no record at all. */
function invalidateHeader(token: u32, zone: u32): i32 {
  if (!hasLiveHeader()) return OK;
  eraseHeader(PANIC_HEAD_BLOCK);
  record().erasures = 0;
  const status = transferBlocks(token, true, zoneFirstLba(zone), 1, PANIC_HEAD_BLOCK, writeFlags(token));
  return status == OK ? makeDurable(token) : status;
}

function writeSectors(token: u32, zone: u32, first: u32, count: u32): i32 {
  assembleSectors(first, count, PANIC_BOUNCE);
  return transferBlocks(token, true, zoneFirstLba(zone) + first, count, PANIC_BOUNCE, writeFlags(token));
}

/** How many sectors to write next: all that the buffer takes, or so few that the time is looked at often enough. */
function pieceSectors(token: u32, left: u32, isHurried: bool): u32 {
  const most: u32 = left < <u32>BOUNCE_SECTORS ? left : BOUNCE_SECTORS;
  if (!isHurried) return most;
  const sectorNs = record().sectorNs;
  if (sectorNs == 0) return 1;
  const fits = leftNs(token) / PIECE_SHARE / sectorNs;
  return fits < most ? (fits > 1 ? <u32>fits : 1) : most;
}

/** The body behind the first sector, up to sector `sectors`. -EFBIG: the card is too slow for so long a record. */
function writeBody(token: u32, zone: u32, sectors: u32): i32 {
  const r = record();
  const isHurried =
    (r.sectorNs == 0 && !hasTimeFor(token, sectors)) || r.sectorNs * 4 * sectors > leftNs(token);
  const beganNs = portNowNs(token);
  let done: u32 = 1;
  for (let i: u32 = 0; done < sectors && i < PIECES_MAX; i++) {
    const count = pieceSectors(token, sectors - done, isHurried);
    let status = writeSectors(token, zone, done, count);
    // A cache takes sectors faster than it stores them.
    if (status == OK && isHurried && i == 0) status = makeDurable(token);
    if (status != OK) return status;
    done += count;
    if (!isHurried) continue;
    const sectorNs = measured((portNowNs(token) - beganNs) / (done - 1));
    if (i == 0 || sectorNs > r.sectorNs) r.sectorNs = sectorNs;
    // With seal and header: the first sector tells whether all of it fits, later ones whether it still does.
    if (i == 0 ? !hasTimeFor(token, sectors - done) : neededNs(token, sectors - done) > leftNs(token))
      return EFBIG;
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

/**
 * The record's sequence, once: it keeps it in whatever zone it is tried, as the same record; a shorter one is another.
 */
function takeNumber(part: u32): void {
  const r = record();
  if (r.numbered != 0) return;
  const sequence = area().sequence + 1;
  if (part == 1) r.firstSequence = sequence;
  numberRecord(sequence);
}

/**
 * Seal, body, then header: the header's sector is the commit. -EFBIG: a shorter record may fit into the time;
 * -EOVERFLOW: none does; else what the card or the bus had.
 */
function writeRecord(token: u32, zone: u32, part: u32): i32 {
  const r = record();
  if (!step(token, STEP_INVALIDATE, zone)) return ECANCELED;
  let status = settleCache(token);
  if (status == OK) status = fitRecord(token, zone, part);
  if (status == OK) status = invalidateHeader(token, zone);
  if (status != OK) return status;
  takeNumber(part);
  const sectors = recordSectors();
  const last = zoneSectors() - 1;
  if (!step(token, STEP_WRITE_BODY, zone)) return ECANCELED;
  const bodyNs = portNowNs(token);
  // The seal goes first, so that what is cut before the header stands is known for ours. It has the numbers.
  useNumbers(r.sequence, r.reason, r.counter);
  status = writeSectors(token, zone, last, 1);
  if (status == OK) status = writeBody(token, zone, sectors < last ? sectors : last);
  if (status == OK) status = makeDurable(token);
  if (status != OK) return status;
  if (!step(token, STEP_COMMIT, zone)) return ECANCELED;
  status = writeSectors(token, zone, 0, 1);
  if (status == OK) status = makeDurable(token);
  if (status == OK) {
    if (!holds(token)) return ECANCELED;
    if (load<u64>(RESULT_COMMIT_NS_LOW) == 0) store<u64>(RESULT_COMMIT_NS_LOW, portNowNs(token));
    r.sectorNs = measured((portNowNs(token) - bodyNs) / sectors);
    if (!step(token, STEP_VERIFY, zone)) return ECANCELED;
    status = verifySectors(token, zone, 0, sectors);
  }
  return status == OK && sectors <= last ? verifySectors(token, zone, last, 1) : status;
}

/** As writeRecord(token), shorter and shorter until it fits. -EOVERFLOW: it does not. */
function writeFitting(token: u32, zone: u32, part: u32): i32 {
  for (let i: u32 = 0; i < SHORTENINGS_MAX; i++) {
    const status = writeRecord(token, zone, part);
    if (status != EFBIG) return status;
  }
  return EOVERFLOW;
}

/**
 * The record in `zone` was not proved and is written elsewhere, or not at all: nobody shall find it here. Its header is
 * known, so that a sector that cannot be read does not keep it.
 */
function withdrawRecord(token: u32, zone: u32): void {
  for (let i: u32 = 0; i < WITHDRAWALS_MAX; i++) {
    assembleSectors(0, 1, PANIC_HEAD_BLOCK);
    eraseHeader(PANIC_HEAD_BLOCK);
    const status = transferBlocks(token, true, zoneFirstLba(zone), 1, PANIC_HEAD_BLOCK, writeFlags(token));
    if (status == OK && makeDurable(token) == OK) return;
    resetBothLines(token);
    if (takeOverCard(token, PANIC_TAIL_BLOCK, PANIC_TAIL_BLOCK + 4) != OK) return;
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
      if (attempt == 0) r.counter = nextCounter(r.reason);
    }
    status = writeFitting(token, zone, part);
    if (!holds(token)) return ECANCELED;
    if (status == OK) {
      countRecord(zone, r.sequence, r.firstSequence, r.timeSec, r.reason, r.counter);
      setZoneState(token, zone, part == 1 ? ZONE_USED : ZONE_PART);
      return outcome(token, OK);
    }
    if (isLate(token) || status == EOVERFLOW) return ETIMEDOUT;
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
    withdrawRecord(token, zone);
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
export function storeText(token: u32, textBytes: u32): i32 {
  const r = record();
  const parts = partsWanted();
  r.bodyBytes = beginText(textBytes, parts > 1);
  store<u32>(RESULT_STORED_BYTES, r.lineBytes);
  let lastNs: u64 = 0;
  let status: i32 = OK;
  for (let part: u32 = 1; part <= parts && part <= <u32>PARTS_MAX; part++) {
    const beganNs = portNowNs(token);
    if (part > 1 && leftNs(token) / PART_TIME_FACTOR < lastNs) {
      status = ETIMEDOUT;
      break;
    }
    shapeRecord(token, part, payloadBytesMax());
    if (!holds(token)) return ECANCELED;
    status = storeRecord(token, part);
    if (!holds(token)) return ECANCELED;
    liftLine();
    if (status != OK) break;
    addToResult();
    r.bodyBytes = r.droppedBytes;
    if (r.bodyBytes == 0) break;
    lastNs = portNowNs(token) - beganNs;
  }
  store<u32>(RESULT_PARTS_STATUS, status);
  const stands = load<u32>(RESULT_PARTS) > 0;
  store<u32>(RESULT_DROPPED_BYTES, stands ? r.bodyBytes : textBytes);
  if (!stands) store<u32>(RESULT_STORED_BYTES, 0);
  return stands ? OK : status;
}
