// One kmsg record as the sectors of its zone: zone header, kmsg header, payload, seal. The payload is the text or its
// deflate stream. No zone is kept as a whole: any range of sectors is made again when it is asked for, so that writing
// and comparing need one buffer each.

import { crc32c } from "../crc";
import {
  ABI_LP64,
  CONFIG_ABI,
  DEFLATED_BASE,
  DEFLATED_BYTES_MAX,
  HEAD_BLOCK,
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
  sectorNs: u64; // what each of its sectors took until the record was durable
  timeNsec: u32;
  reason: u32;
  counter: u32;
  part: u32; // 0: no part of a longer log
  cutLines: u32; // 1: the text begins with a whole line
  payloadPtr: u32;
  payloadBytes: u32;
  textBytes: u32; // what of the text at TEXT is kept: its newest bytes
  droppedBytes: u32;
  compressed: u32;
  recordCrc: u32;
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
}

/** The first line that begins at `from` or behind it, before `until`; a line that is longer is cut. */
function lineStart(from: u32, until: u32): u32 {
  const most = until - from;
  for (let i: u32 = 0; i < most && i < <u32>TEXT_BYTES_MAX; i++) {
    if (load<u8>(from + i - 1) == NEWLINE) return from + i;
  }
  return from;
}

/** Where the newest `most` bytes of the text at hand begin; of a log in parts, the newest whole lines. */
function newestText(most: u32): u32 {
  const r = record();
  const bytes = r.textBytes + r.droppedBytes;
  if (bytes <= most) return TEXT_BASE;
  const start = TEXT_BASE + bytes - most;
  return r.cutLines == 0 ? start : lineStart(start, TEXT_BASE + bytes);
}

/** The record holds the text from `start` on, plain. */
function keepText(start: u32): void {
  const r = record();
  const textEnd: u32 = TEXT_BASE + r.droppedBytes + r.textBytes;
  r.droppedBytes = start - TEXT_BASE;
  r.textBytes = textEnd - start;
  r.compressed = 0;
  r.payloadPtr = start;
  r.payloadBytes = r.textBytes;
}

/** Of a text of `textBytes` at TEXT, plain, what fits: the oldest bytes go; `cutLines`: and the rest of a cut line. */
export function describeText(textBytes: u32, cutLines: bool): void {
  const r = record();
  r.part = 0;
  r.cutLines = cutLines ? 1 : 0;
  r.textBytes = textBytes;
  r.droppedBytes = 0;
  keepText(newestText(payloadBytesMax()));
}

/** How much of the text to deflate at first: what Linux inflates again. 0: one sector holds it all, nothing to gain. */
export function compressibleBytes(): u32 {
  const r = record();
  if (recordSectors() == 1 && r.droppedBytes == 0) return 0;
  const textEnd: u32 = TEXT_BASE + r.droppedBytes + r.textBytes;
  return textEnd - newestText(inflatedBytesMax());
}

/**
 * Deflates the newest `tryBytes` (≤ compressibleBytes()) of the text. The record becomes a compressed one if so it
 * holds more of the text than plain, or needs fewer sectors. Returns how much to try next, 0 for nothing.
 */
export function compressRecord(tryBytes: u32): u32 {
  const r = record();
  const room = payloadBytesMax();
  const most: u32 = room < <u32>DEFLATED_BYTES_MAX ? room : DEFLATED_BYTES_MAX;
  const textEnd: u32 = TEXT_BASE + r.droppedBytes + r.textBytes;
  const bytes = deflate(textEnd - tryBytes, tryBytes, DEFLATED_BASE, most);
  if (bytes > most) {
    // As much as would have fitted at this rate, less a 32nd; no more than plain keeps is no use.
    const fits = <u32>((<u64>deflateTaken() * most) / bytes);
    const next = textEnd - newestText(fits - fits / 32);
    return next > r.textBytes && next < tryBytes ? next : 0;
  }
  const plainSectors = recordSectors();
  const plainBytes = r.payloadBytes;
  r.payloadBytes = bytes;
  if (tryBytes <= r.textBytes && recordSectors() >= plainSectors) {
    r.payloadBytes = plainBytes;
    return 0;
  }
  r.droppedBytes = textEnd - tryBytes - TEXT_BASE;
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
  writeHeaders(HEAD_BLOCK);
  const headersCrc = crc32c(0, HEAD_BLOCK, PSZ_BUFFER_BYTES + headerBytes());
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
  if (r.part > 0) setSealPart(ptr, r.part, r.droppedBytes, r.firstSequence);
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
