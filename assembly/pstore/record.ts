// One kmsg record as the sectors of its zone: zone header, kmsg header, payload, seal. The payload is the text or its
// deflate stream. No zone is kept as a whole: any range of sectors is made again when it is asked for, so that writing
// and comparing need one buffer each.

import { crc32c } from "../crc";
import {
  ABI_LP64,
  CONFIG_ABI,
  DEFLATED_BASE,
  DEFLATED_BYTES_MAX,
  PANIC_TAIL_BLOCK,
  PSTORE_BASE,
  SECTOR_BYTES,
  TEXT_BASE,
  TEXT_BYTES_MAX,
} from "../layout";
import { deflate, deflateTaken } from "./deflate";
import {
  PSTORE_KMSG_HEADER_MAGIC,
  PSZ_BUFFER_BYTES,
  PSZ_SIG_KMSG,
  REASON_OOPS,
  REASON_PANIC,
  SEAL_BYTES,
} from "./format";
import { keepPartLine, liftPartLine, numberPartLine, partLineBytes, placePartLine } from "./part-line";
import { beginSeal, endSeal, setSealArea, setSealPart, setSealRecord } from "./seal";
import {
  counterOf,
  headerBytes,
  inflatedBytesMax,
  latestTimeSec,
  payloadBytesMax,
  zoneSectors,
} from "./zone";

/** The record at hand. */
// @ts-expect-error: decorator
@unmanaged
export class Record {
  sequence: u64;
  firstSequence: u64; // of part 1
  timeSec: i64;
  sectorNs: u64; // what each of its sectors took until it was durable; 0: none was written yet
  readNs: u64; // what it took to read one
  timeNsec: u32;
  reason: u32;
  counter: u32;
  part: u32; // 0: no part of a longer log
  cutLines: u32; // 1: the text begins with a whole line
  bodyPtr: u32; // of the text at hand, behind Linux's line
  lineBytes: u32; // of that line, 0 without
  payloadPtr: u32;
  payloadBytes: u32;
  textBytes: u32; // what of the text at hand is kept: its newest bytes
  droppedBytes: u32;
  compressed: u32;
  recordCrc: u32;
  bodyBytes: u32; // of the text behind its line that no part holds yet
  roomBytes: u32; // the payload may have no more, for time is short
  erasures: u32; // 1: the zone's old header has still to go
  numbered: u32; // 1: sequence and CRC are those of the record as it stands
}

const NEWLINE: u32 = 0x0a;
/** Behind Area in the pstore block. */
const RECORD_OFFSET: i32 = 0x80;

export function record(): Record {
  return changetype<Record>(PSTORE_BASE + RECORD_OFFSET);
}

/** datalen of the zone header. */
export function recordDatalen(): u32 {
  return headerBytes() + record().payloadBytes;
}

/** The most payload that headers and `sectors` sectors have room for. */
export function payloadWithin(sectors: u32): u32 {
  return sectors * SECTOR_BYTES - PSZ_BUFFER_BYTES - headerBytes();
}

/** Sectors from the zone's start that hold headers and payload. */
export function recordSectors(): u32 {
  return (PSZ_BUFFER_BYTES + recordDatalen() + SECTOR_BYTES - 1) / SECTOR_BYTES;
}

export function describeRecord(reason: u32, timeSec: i64, timeNsec: u32): void {
  const r = record();
  r.reason = reason;
  r.timeSec = timeSec;
  r.timeNsec = timeNsec;
  r.counter = 0;
  r.firstSequence = 0;
  r.sectorNs = 0;
  r.readNs = 0;
}

/** The first line that begins at `from` or behind it, before `until`; a line that is longer is cut. */
function lineStart(from: u32, until: u32): u32 {
  const most = until - from;
  for (let i: u32 = 0; i < most && i < <u32>TEXT_BYTES_MAX; i++) {
    if (load<u8>(from + i - 1) == NEWLINE) return from + i;
  }
  return from;
}

/** Behind the last byte of the text at hand. */
function textEnd(): u32 {
  const r = record();
  return r.bodyPtr + r.droppedBytes + r.textBytes;
}

/** Where the newest text begins that takes `most` bytes with its line; whole lines if `cutLines` says so. */
function newestText(most: u32): u32 {
  const r = record();
  const bytes = r.textBytes + r.droppedBytes;
  const room = most - r.lineBytes;
  if (bytes <= room) return r.bodyPtr;
  const start = r.bodyPtr + bytes - room;
  return r.cutLines == 0 ? start : lineStart(start, r.bodyPtr + bytes);
}

/** The record holds the text from `start` on, plain. */
function keepText(start: u32): void {
  const r = record();
  const end = textEnd();
  r.droppedBytes = start - r.bodyPtr;
  r.textBytes = end - start;
  r.compressed = 0;
  r.payloadPtr = start - r.lineBytes;
  r.payloadBytes = r.textBytes + r.lineBytes;
}

/** A text of `textBytes` at TEXT; `inParts`: it may be cut into several. Returns its bytes behind Linux's line. */
export function beginText(textBytes: u32, inParts: bool): u32 {
  const r = record();
  r.lineBytes = partLineBytes(TEXT_BASE, textBytes);
  keepPartLine(TEXT_BASE, r.lineBytes);
  r.bodyPtr = TEXT_BASE + r.lineBytes;
  r.cutLines = inParts || r.lineBytes > 0 ? 1 : 0;
  return textBytes - r.lineBytes;
}

/**
 * Of the oldest `bodyBytes` behind the line, plain, what fits into a zone and into `roomBytes` of payload: the oldest
 * bytes go, and the rest of a cut line.
 */
export function describeText(bodyBytes: u32, part: u32, roomBytes: u32): void {
  const r = record();
  r.bodyBytes = bodyBytes;
  r.roomBytes = roomBytes < payloadBytesMax() ? roomBytes : payloadBytesMax();
  r.numbered = 0;
  if (part > 1 && r.lineBytes > 0) r.lineBytes = numberPartLine(r.lineBytes, part);
  const line: u32 = TEXT_BASE + r.lineBytes;
  if (line > r.bodyPtr) {
    // A longer number: into the place of newer text, which is on the medium.
    memory.copy(line, r.bodyPtr, bodyBytes);
    r.bodyPtr = line;
  }
  r.part = 0;
  r.textBytes = bodyBytes;
  r.droppedBytes = 0;
  keepText(newestText(r.roomBytes));
}

/** The payload is as it shall be read until liftLine(): a plain text has its line in front. */
export function placeLine(): void {
  const r = record();
  if (r.compressed == 0) placePartLine(r.payloadPtr + r.lineBytes, r.lineBytes);
}

export function liftLine(): void {
  const r = record();
  if (r.compressed == 0) liftPartLine(r.payloadPtr + r.lineBytes, r.lineBytes);
}

/** How much of the text to deflate at first: what Linux inflates again. 0: one sector holds it all, nothing to gain. */
export function compressibleBytes(): u32 {
  const r = record();
  if (recordSectors() == 1 && r.droppedBytes == 0) return 0;
  return textEnd() - newestText(inflatedBytesMax());
}

/**
 * Deflates the newest `tryBytes` (≤ compressibleBytes()) of the text. The record becomes a compressed one if so it
 * holds more of the text than plain, or needs fewer sectors. Returns how much to try next, 0 for nothing.
 */
export function compressRecord(tryBytes: u32): u32 {
  const r = record();
  const room = r.roomBytes;
  const most: u32 = room < <u32>DEFLATED_BYTES_MAX ? room : DEFLATED_BYTES_MAX;
  const end = textEnd();
  const start = end - tryBytes;
  placePartLine(start, r.lineBytes);
  const bytes = deflate(start - r.lineBytes, tryBytes + r.lineBytes, DEFLATED_BASE, most);
  liftPartLine(start, r.lineBytes);
  if (bytes > most) {
    // As much as would have fitted at this rate, less a 32nd; no more than plain keeps is no use.
    const fits = <u32>((<u64>deflateTaken() * most) / bytes);
    const next = end - newestText(fits - fits / 32);
    return next > r.textBytes && next < tryBytes ? next : 0;
  }
  const plainSectors = recordSectors();
  const plainBytes = r.payloadBytes;
  r.payloadBytes = bytes;
  if (tryBytes <= r.textBytes && recordSectors() >= plainSectors) {
    r.payloadBytes = plainBytes;
    return 0;
  }
  r.droppedBytes = start - r.bodyPtr;
  r.textBytes = tryBytes;
  r.payloadPtr = DEFLATED_BASE;
  r.compressed = 1;
  return 0;
}

/** Both headers at `ptr`; 52 or 40 bytes. */
function writeHeaders(ptr: usize): void {
  const r = record();
  memory.fill(ptr, 0, PSZ_BUFFER_BYTES + headerBytes());
  store<u32>(ptr, PSZ_SIG_KMSG);
  store<u32>(ptr, recordDatalen(), 4);
  store<u32>(ptr, PSTORE_KMSG_HEADER_MAGIC, 12);
  if (load<u32>(CONFIG_ABI) == ABI_LP64) {
    store<i64>(ptr, r.timeSec, 20);
    store<u64>(ptr, r.timeNsec, 28);
    store<u32>(ptr, r.compressed, 36);
    store<u32>(ptr, r.counter, 40);
    store<u32>(ptr, r.reason, 44);
  } else {
    store<i64>(ptr, r.timeSec, 16);
    store<u32>(ptr, r.timeNsec, 24);
    store<u32>(ptr, r.compressed, 28);
    store<u32>(ptr, r.counter, 32);
    store<u32>(ptr, r.reason, 36);
  }
}

/** Fixes the sequence; everything assembled later carries it and the counter. */
export function numberRecord(sequence: u64): void {
  const r = record();
  r.sequence = sequence;
  r.numbered = 1;
  writeHeaders(PANIC_TAIL_BLOCK);
  const headersCrc = crc32c(0, PANIC_TAIL_BLOCK, PSZ_BUFFER_BYTES + headerBytes());
  r.recordCrc = crc32c(headersCrc, r.payloadPtr, r.payloadBytes);
}

/** The area's count of a reason, this record too. */
function countWith(reason: u32): u32 {
  const r = record();
  const before = counterOf(reason);
  return r.reason == reason && r.counter > before ? r.counter : before;
}

function writeSeal(ptr: usize): void {
  const r = record();
  beginSeal(ptr);
  setSealRecord(ptr, r.sequence, recordDatalen(), r.recordCrc);
  if (r.part > 0) setSealPart(ptr, r.part, r.droppedBytes, r.firstSequence, r.lineBytes);
  setSealArea(ptr, latestTimeSec(r.timeSec), countWith(REASON_PANIC), countWith(REASON_OOPS));
  endSeal(ptr);
}

/** Sectors `first … first + count - 1` of the zone at `ptr`; what is neither header, payload nor seal is zero. */
export function assembleSectors(first: u32, count: u32, ptr: usize): void {
  const r = record();
  const from = first * SECTOR_BYTES;
  const until = from + count * SECTOR_BYTES;
  const payloadFrom = PSZ_BUFFER_BYTES + headerBytes();
  const payloadUntil = payloadFrom + r.payloadBytes;
  memory.fill(ptr, 0, until - from);
  if (first == 0) writeHeaders(ptr);
  const copyFrom = from > payloadFrom ? from : payloadFrom;
  const copyUntil = until < payloadUntil ? until : payloadUntil;
  if (copyFrom < copyUntil)
    memory.copy(ptr + copyFrom - from, r.payloadPtr + copyFrom - payloadFrom, copyUntil - copyFrom);
  if (first + count == zoneSectors()) {
    writeSeal(ptr + until - from - SEAL_BYTES);
  }
}

/** Turns a live header in `ptr` (a zone's first sector) into an erased one: datalen 0, the rest stays. */
export function eraseHeader(ptr: usize): void {
  store<u32>(ptr, 0, 4);
}
