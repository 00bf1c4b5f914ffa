// The kmsg zones of an area: where they are, what they hold, and which comes next. Knows nothing of cards.

import { CHECK_ZONE_RANGE, check } from "../check";
import {
  ABI_LP64,
  CONFIG_ABI,
  CONFIG_AREA_FIRST_LBA,
  CONFIG_KEEP,
  CONFIG_POLICY,
  CONFIG_ZONE_COUNT,
  CONFIG_ZONE_SECTORS,
  POLICY_FIRST_WINS,
  POLICY_NEWEST,
  PSTORE_BASE,
  SECTOR_BYTES,
  ZONE_LOGS,
  ZONE_STATES,
  ZONES_MAX,
} from "../layout";
import { MARK_ZONE_STATE, mark } from "../mark";
import { holds } from "../owner";
import {
  COUNT_MAX,
  KMSG_HEADER_I386_BYTES,
  KMSG_HEADER_LP64_BYTES,
  PSZ_BUFFER_BYTES,
  REASON_OOPS,
  REASON_PANIC,
  SEAL_BYTES,
  TIME_SEC_MAX,
  ZONE_EMPTY,
  ZONE_ERASED,
  ZONE_PART,
  ZONE_TORN,
  ZONE_USED,
} from "./format";

/** What recovery learnt about the whole area. */
// @ts-expect-error: decorator
@unmanaged
export class Area {
  sequence: u64; // the largest of any standing seal, or of one that was sent
  newestTimeSec: i64; // of the newest unsealed record
  newestSealedTimeSec: i64; // the latest in the area when it was written, its own too
  newestSealedSequence: u64;
  panicCounter: u32;
  oopsCounter: u32;
  newestUnsealed: i32; // zone index, or -1
  newestSealed: i32;
  recovered: u32;
  unread: u32; // zones whose seal could not be read: each may have a sequence of its own
  restarts: u32; // of the card, while the zones were looked at
  sequenceMax: u64; // a larger one is not continued from
  leastBeyond: u64; // the smallest of those, 0: there is none
}

export function area(): Area {
  return changetype<Area>(PSTORE_BASE);
}

export function zoneCount(): u32 {
  const count = load<u32>(CONFIG_ZONE_COUNT);
  return count < <u32>ZONES_MAX ? count : ZONES_MAX;
}

export function zoneSectors(): u32 {
  return load<u32>(CONFIG_ZONE_SECTORS);
}

/** Whether CONFIG describes zones that a card of `cardSectors` has. */
export function areaFits(cardSectors: u32): bool {
  const count = load<u32>(CONFIG_ZONE_COUNT);
  if (count == 0 || count > <u32>ZONES_MAX || zoneSectors() < 2) return false;
  return <u64>load<u32>(CONFIG_AREA_FIRST_LBA) + <u64>count * zoneSectors() <= cardSectors;
}

export function zoneFirstLba(zone: u32): u32 {
  check(zone < zoneCount(), CHECK_ZONE_RANGE);
  return load<u32>(CONFIG_AREA_FIRST_LBA) + zone * zoneSectors();
}

export function headerBytes(): u32 {
  return load<u32>(CONFIG_ABI) == ABI_LP64 ? KMSG_HEADER_LP64_BYTES : KMSG_HEADER_I386_BYTES;
}

/** The most bytes of payload a zone takes: both headers in front, the seal behind. */
export function payloadBytesMax(): u32 {
  return zoneSectors() * SECTOR_BYTES - PSZ_BUFFER_BYTES - headerBytes() - SEAL_BYTES;
}

/**
 * The longest text that every reader inflates again. Linux 6.1 … 6.5 inflates a record into a buffer of this size, made
 * from the most that a zone takes without a seal; since 6.6 it is three times that, which is more. FORMAT.md
 */
export function inflatedBytesMax(): u32 {
  const most = payloadBytesMax() + SEAL_BYTES;
  let percent: u32 = 60;
  if (most >= 1000 && most <= 2000) percent = 56;
  else if (most >= 2001 && most <= 3000) percent = 54;
  else if (most >= 3001 && most <= 3999) percent = 52;
  else if (most >= 4000 && most <= 10000) percent = 45;
  return <u32>((<u64>most * 100) / percent);
}

export function zoneState(zone: u32): u32 {
  return load<u8>(ZONE_STATES + zone);
}

/** By the owner who has `token`; one that was robbed meanwhile changes nothing. */
export function setZoneState(token: u32, zone: u32, state: u32): void {
  mark(MARK_ZONE_STATE);
  if (holds(token)) store<u8>(ZONE_STATES + zone, <u8>state);
}

/** The sequence of the newest part of the log whose record the zone holds. 0: it holds none with a seal. */
export function zoneLog(zone: u32): u64 {
  return load<u64>(ZONE_LOGS + zone * 8);
}

export function setZoneLog(zone: u32, firstSequence: u64): void {
  store<u64>(ZONE_LOGS + zone * 8, firstSequence);
}

export function holdsRecord(zone: u32): bool {
  const state = zoneState(zone);
  return state == ZONE_USED || state == ZONE_PART;
}

/** The zone of the newest record, -1 if there is none: by sequence, unless an unsealed one is later by the clock. */
export function newestZone(): i32 {
  const a = area();
  if (a.newestUnsealed < 0) return a.newestSealed;
  if (a.newestSealed < 0) return a.newestUnsealed;
  return a.newestTimeSec > a.newestSealedTimeSec ? a.newestUnsealed : a.newestSealed;
}

/** A time that can order records; 0 for one that cannot be. */
export function orderTimeSec(timeSec: i64): i64 {
  return timeSec > 0 && timeSec < TIME_SEC_MAX ? timeSec : 0;
}

/** The latest time of any record in the area, as far as it is known; `timeSec` is one too. */
export function latestTimeSec(timeSec: i64): i64 {
  const a = area();
  const known = a.newestTimeSec > a.newestSealedTimeSec ? a.newestTimeSec : a.newestSealedTimeSec;
  const own = orderTimeSec(timeSec);
  return own > known ? own : known;
}

/** What a record with this reason and counter makes of the area's counters. */
export function countReason(reason: u32, counter: u32): void {
  const a = area();
  if (counter > COUNT_MAX) return;
  if (reason == REASON_PANIC && counter > a.panicCounter) a.panicCounter = counter;
  if (reason == REASON_OOPS && counter > a.oopsCounter) a.oopsCounter = counter;
}

/** A record of ours stands in `zone`, and is the newest. */
export function countRecord(
  zone: u32,
  sequence: u64,
  firstSequence: u64,
  timeSec: i64,
  reason: u32,
  counter: u32,
): void {
  const a = area();
  a.newestSealedTimeSec = latestTimeSec(timeSec);
  if (sequence > a.sequence) a.sequence = sequence;
  a.newestSealed = zone;
  a.newestSealedSequence = sequence;
  // What of Linux's own stood there is gone.
  if (a.newestUnsealed == <i32>zone) a.newestUnsealed = -1;
  setZoneLog(zone, firstSequence);
  countReason(reason, counter);
}

/** How many records of a reason the area has ever had; of reasons other than Panic and Oops nobody counts them. */
export function counterOf(reason: u32): u32 {
  const a = area();
  if (reason == REASON_PANIC) return a.panicCounter;
  return reason == REASON_OOPS ? a.oopsCounter : 0;
}

/** The counter of the next record; the last one there is stays. */
export function nextCounter(reason: u32): u32 {
  if (reason != REASON_PANIC && reason != REASON_OOPS) return 0;
  const before = counterOf(reason);
  return before < COUNT_MAX ? before + 1 : COUNT_MAX;
}

/** Sequence and counter of a record count as used from the moment on when its seal is sent: it may stand. */
export function useNumbers(sequence: u64, reason: u32, counter: u32): void {
  if (sequence > area().sequence) area().sequence = sequence;
  countReason(reason, counter);
}

/** Where the search begins: behind the newest record. */
function zoneBehindNewest(): u32 {
  return <u32>(newestZone() + 1);
}

/** The first zone behind the newest that is empty or erased, or -1. */
function freeZone(): i32 {
  const count = zoneCount();
  const start = zoneBehindNewest();
  for (let i: u32 = 0; i < count && i < <u32>ZONES_MAX; i++) {
    const zone = (start + i) % count;
    const state = zoneState(zone);
    if (state == ZONE_EMPTY || state == ZONE_ERASED) return zone;
  }
  return -1;
}

/** The first zone behind the newest that is torn, or -1. */
function tornZone(): i32 {
  const count = zoneCount();
  const start = zoneBehindNewest();
  for (let i: u32 = 0; i < count && i < <u32>ZONES_MAX; i++) {
    const zone = (start + i) % count;
    if (zoneState(zone) == ZONE_TORN) return zone;
  }
  return -1;
}

/** As old as its log; Linux's own records are older than ours, but the newest of all is the last to go. */
function ageOf(zone: u32): u64 {
  return <i32>zone == newestZone() ? u64.MAX_VALUE : zoneLog(zone);
}

/** Whether policy newest gives up `zone` rather than `other`: of one log the older text, which lies further round. */
function goesBefore(zone: u32, other: u32): bool {
  const age = ageOf(zone);
  const otherAge = ageOf(other);
  return age < otherAge || (age == otherAge && zoneState(zone) == ZONE_PART);
}

/**
 * Of the records of logs older than `before`, the one that policy gives up, or -1. Going round from behind the newest:
 * first-wins the last that is met, ring the first, newest one of the oldest log.
 */
function givenUpZone(before: u64): i32 {
  const count = zoneCount();
  const start = zoneBehindNewest();
  const policy = load<u32>(CONFIG_POLICY);
  let found: i32 = -1;
  for (let i: u32 = 0; i < count && i < <u32>ZONES_MAX; i++) {
    const zone = (start + i) % count;
    if (!holdsRecord(zone) || zoneLog(zone) >= before) continue;
    if (found < 0 || policy == POLICY_FIRST_WINS) found = zone;
    else if (policy == POLICY_NEWEST && goesBefore(zone, found)) found = zone;
  }
  return found;
}

/** How many logs are newer than that of the record in `zone`; the parts of one log count once. */
function newerLogs(zone: u32): u32 {
  const count = zoneCount();
  const age = ageOf(zone);
  let newer: u32 = 0;
  for (let i: u32 = 0; i < count && i < <u32>ZONES_MAX; i++) {
    if (zoneState(i) == ZONE_USED && ageOf(i) > age) newer += 1;
  }
  return newer;
}

/**
 * The zone for the next record: the first behind the newest that is empty or erased; else the first that is torn, as
 * something of its record may be salvaged; if all hold a record, the one that the policy gives up. Zones that are bad
 * are passed over. -1: there is none.
 */
export function chooseZone(): i32 {
  const free = freeZone();
  if (free >= 0) return free;
  const torn = tornZone();
  return torn >= 0 ? torn : givenUpZone(u64.MAX_VALUE);
}

/**
 * The zone for a further part of the log whose newest part has `firstSequence`: one that is empty or erased, or with
 * the policy newest one that holds none of the CONFIG_KEEP newest logs. Else -1: older text replaces nothing.
 */
export function choosePartZone(firstSequence: u64): i32 {
  const free = freeZone();
  if (free >= 0 || load<u32>(CONFIG_POLICY) != POLICY_NEWEST) return free;
  const zone = givenUpZone(firstSequence);
  return zone < 0 || newerLogs(zone) < load<u32>(CONFIG_KEEP) ? -1 : zone;
}
