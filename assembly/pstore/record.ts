// One kmsg record as the sectors of its zone: zone header, kmsg header, text, seal. Nothing is kept as a whole; any
// range of sectors is made again when it is asked for, so that writing and comparing need one buffer each.

import { crc32c } from "../crc";
import { ABI_LP64, CONFIG_ABI, HEAD_BLOCK, PSTORE_BASE, SECTOR_BYTES, TEXT_BASE } from "../layout";
import { PSTORE_KMSG_HEADER_MAGIC, PSZ_BUFFER_BYTES, PSZ_SIG_KMSG, SEAL_BYTES } from "./format";
import { writeSeal } from "./seal";
import { headerBytes, payloadBytesMax, zoneSectors } from "./zone";

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
  textPtr: u32; // what of the text is kept: its newest bytes
  textBytes: u32;
  droppedBytes: u32;
  recordCrc: u32;
}

/** Behind Area in the pstore block. */
const RECORD_OFFSET: i32 = 0x80;

export function record(): Record {
  return changetype<Record>(PSTORE_BASE + RECORD_OFFSET);
}

/** datalen of the zone header. */
export function recordDatalen(): u32 {
  return headerBytes() + record().textBytes;
}

/** Sectors from the zone's start that hold headers and text. */
export function recordSectors(): u32 {
  return (PSZ_BUFFER_BYTES + recordDatalen() + SECTOR_BYTES - 1) / SECTOR_BYTES;
}

/** `offset` in the text of `bytes` from where it fits: the oldest bytes go. */
export function describeRecord(reason: u32, timeSec: i64, timeNsec: u32, textBytes: u32): void {
  const r = record();
  const most = payloadBytesMax();
  r.reason = reason;
  r.timeSec = timeSec;
  r.timeNsec = timeNsec;
  r.textBytes = textBytes < most ? textBytes : most;
  r.droppedBytes = textBytes - r.textBytes;
  r.textPtr = TEXT_BASE + r.droppedBytes;
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
    store<u32>(ptr, r.counter, 40);
    store<u32>(ptr, r.reason, 44);
  } else {
    store<i64>(ptr, r.timeSec, 16);
    store<u32>(ptr, r.timeNsec, 24);
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
  r.recordCrc = crc32c(headersCrc, r.textPtr, r.textBytes);
}

/** Sectors `first … first + count - 1` of the zone at `ptr`; what is neither header, text nor seal is zero. */
export function assembleSectors(first: u32, count: u32, ptr: usize): void {
  const r = record();
  const from = first * SECTOR_BYTES;
  const until = from + count * SECTOR_BYTES;
  const textFrom = PSZ_BUFFER_BYTES + headerBytes();
  const textUntil = textFrom + r.textBytes;
  memory.fill(ptr, 0, until - from);
  if (first == 0) writeHeaders(ptr);
  const copyFrom = from > textFrom ? from : textFrom;
  const copyUntil = until < textUntil ? until : textUntil;
  if (copyFrom < copyUntil)
    memory.copy(ptr + copyFrom - from, r.textPtr + copyFrom - textFrom, copyUntil - copyFrom);
  if (first + count == zoneSectors()) {
    writeSeal(ptr + until - from - SEAL_BYTES, r.sequence, recordDatalen(), r.recordCrc);
  }
}

/** Turns a live header in `ptr` (a zone's first sector) into an erased one: datalen 0, the rest stays. */
export function eraseHeader(ptr: usize): void {
  store<u32>(ptr, 0, 4);
}
