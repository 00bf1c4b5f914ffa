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
} from "../layout";
import { deflate, deflateTaken } from "./deflate";
import { PSTORE_KMSG_HEADER_MAGIC, PSZ_BUFFER_BYTES, PSZ_SIG_KMSG, SEAL_BYTES } from "./format";
import { writeSeal } from "./seal";
import { headerBytes, inflatedBytesMax, payloadBytesMax, zoneSectors } from "./zone";

/** The record at hand. */
// @ts-expect-error: decorator
@unmanaged
export class Record {
  sequence: u64;
  timeSec: i64;
  sectorNs: u64; // what each of its sectors took until the record was durable
  timeNsec: u32;
  reason: u32;
  counter: u32;
  payloadPtr: u32;
  payloadBytes: u32;
  textBytes: u32; // what of the text is kept: its newest bytes
  droppedBytes: u32;
  compressed: u32;
  recordCrc: u32;
}

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

/** Of a text of `textBytes` at TEXT, plain, what fits: the oldest bytes go. */
export function describeRecord(reason: u32, timeSec: i64, timeNsec: u32, textBytes: u32): void {
  const r = record();
  const most = payloadBytesMax();
  r.reason = reason;
  r.timeSec = timeSec;
  r.timeNsec = timeNsec;
  r.textBytes = textBytes < most ? textBytes : most;
  r.droppedBytes = textBytes - r.textBytes;
  r.compressed = 0;
  r.payloadPtr = TEXT_BASE + r.droppedBytes;
  r.payloadBytes = r.textBytes;
}

/** How much of the text to deflate at first: what Linux inflates again. 0: one sector holds it all, nothing to gain. */
export function compressibleBytes(): u32 {
  const r = record();
  if (recordSectors() == 1 && r.droppedBytes == 0) return 0;
  const textBytes = r.textBytes + r.droppedBytes;
  const most = inflatedBytesMax();
  return textBytes < most ? textBytes : most;
}

/**
 * Deflates the newest `tryBytes` (≤ compressibleBytes()) of the text. The record becomes a compressed one if so it
 * holds more of the text than plain, or needs fewer sectors. Returns how much to try next, 0 for nothing.
 */
export function compressRecord(tryBytes: u32): u32 {
  const r = record();
  const room = payloadBytesMax();
  const most: u32 = room < <u32>DEFLATED_BYTES_MAX ? room : DEFLATED_BYTES_MAX;
  const textEnd = TEXT_BASE + r.textBytes + r.droppedBytes;
  const bytes = deflate(textEnd - tryBytes, tryBytes, DEFLATED_BASE, most);
  if (bytes > most) {
    // As much as would have fitted at this rate, less a 32nd; no more than plain keeps is no use.
    const fits = <u32>((<u64>deflateTaken() * most) / bytes);
    const next = fits - fits / 32;
    return next > r.textBytes && next < tryBytes ? next : 0;
  }
  const plainSectors = recordSectors();
  const plainBytes = r.payloadBytes;
  r.payloadBytes = bytes;
  if (tryBytes <= r.textBytes && recordSectors() >= plainSectors) {
    r.payloadBytes = plainBytes;
    return 0;
  }
  r.droppedBytes = textEnd - TEXT_BASE - tryBytes;
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

/** Fixes counter and sequence; everything assembled later carries them. */
export function numberRecord(counter: u32, sequence: u64): void {
  const r = record();
  r.counter = counter;
  r.sequence = sequence;
  writeHeaders(HEAD_BLOCK);
  const headersCrc = crc32c(0, HEAD_BLOCK, PSZ_BUFFER_BYTES + headerBytes());
  r.recordCrc = crc32c(headersCrc, r.payloadPtr, r.payloadBytes);
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
    writeSeal(ptr + until - from - SEAL_BYTES, r.sequence, recordDatalen(), r.recordCrc);
  }
}

/** Turns a live header in `ptr` (a zone's first sector) into an erased one: datalen 0, the rest stays. */
export function eraseHeader(ptr: usize): void {
  store<u32>(ptr, 0, 4);
}
