// The seal: the last 64 bytes of a kmsg zone, where Linux does not look. It proves a record and orders it.
//
//  0 magic u32   4 version u32   8 sequence u64   16 datalen u32   20 recordCrc u32   24 part u32   28 olderBytes u32
//  32 first u64   40 latestTimeSec i64   48 panics u32   52 oopses u32   56 lineBytes u32   60 sealCrc u32
import { crc32c } from "../crc";
import { SEAL_BYTES, SEAL_MAGIC, SEAL_VERSION } from "./format";

/** A seal at `ptr`, all zero but its magic; endSeal() ends it. */
export function beginSeal(ptr: usize): void {
  memory.fill(ptr, 0, SEAL_BYTES);
  store<u32>(ptr, SEAL_MAGIC);
  store<u32>(ptr, SEAL_VERSION, 4);
}

export function setSealRecord(ptr: usize, sequence: u64, datalen: u32, recordCrc: u32): void {
  store<u64>(ptr, sequence, 8);
  store<u32>(ptr, datalen, 16);
  store<u32>(ptr, recordCrc, 20);
}

/**
 * `olderBytes`: of the same log, in front of this part; `first`: the sequence of part 1; `lineBytes`: of the line that
 * is the part's own and not the log's.
 */
export function setSealPart(ptr: usize, part: u32, olderBytes: u32, first: u64, lineBytes: u32): void {
  store<u32>(ptr, part, 24);
  store<u32>(ptr, olderBytes, 28);
  store<u64>(ptr, first, 32);
  store<u32>(ptr, lineBytes, 56);
}

/** What the area has come to with this record: its latest time, and how many Panics and Oopses. */
export function setSealArea(ptr: usize, latestTimeSec: i64, panics: u32, oopses: u32): void {
  store<i64>(ptr, latestTimeSec, 40);
  store<u32>(ptr, panics, 48);
  store<u32>(ptr, oopses, 52);
}

export function endSeal(ptr: usize): void {
  store<u32>(ptr, crc32c(0, ptr, 60), 60);
}

/** True if these 64 bytes are a whole seal of a version that we know. */
export function sealStands(ptr: usize): bool {
  if (load<u32>(ptr) != SEAL_MAGIC || load<u32>(ptr, 4) != SEAL_VERSION) return false;
  return load<u32>(ptr, 60) == crc32c(0, ptr, 60);
}

export function sealSequence(ptr: usize): u64 {
  return load<u64>(ptr, 8);
}

export function sealDatalen(ptr: usize): u32 {
  return load<u32>(ptr, 16);
}

/** 0 or 1: the record stands alone, or holds the newest text of its log. */
export function sealPart(ptr: usize): u32 {
  return load<u32>(ptr, 24);
}

/** The sequence of the part with the newest text. */
export function sealFirst(ptr: usize): u64 {
  return load<u64>(ptr, 32);
}

/** 0 in seals that do not say it. */
export function sealLatestTimeSec(ptr: usize): i64 {
  return load<i64>(ptr, 40);
}

export function sealPanics(ptr: usize): u32 {
  return load<u32>(ptr, 48);
}

export function sealOopses(ptr: usize): u32 {
  return load<u32>(ptr, 52);
}
