// The kmsg zones of an area: where they are, what they hold, and which comes next. Knows nothing of cards.

import { CHECK_ZONE_RANGE, check } from "../check";
import {
  ABI_LP64,
  CONFIG_ABI,
  CONFIG_AREA_FIRST_LBA,
  CONFIG_POLICY,
  CONFIG_ZONE_COUNT,
  CONFIG_ZONE_SECTORS,
  POLICY_RING,
  PSTORE_BASE,
  SECTOR_BYTES,
  ZONE_STATES,
  ZONES_MAX,
} from "../layout";
import { MARK_ZONE_STATE, mark } from "../mark";
import {
  KMSG_HEADER_I386_BYTES,
  KMSG_HEADER_LP64_BYTES,
  PSZ_BUFFER_BYTES,
  REASON_OOPS,
  REASON_PANIC,
  SEAL_BYTES,
  ZONE_BAD,
  ZONE_EMPTY,
  ZONE_ERASED,
  ZONE_TORN,
} from "./format";

/** What recovery learnt about the whole area. */
// @ts-expect-error: decorator
@unmanaged
export class Area {
  sequence: u64; // the largest of any standing seal
  newestTimeSec: i64; // of the newest unsealed record
  newestSealedTimeSec: i64;
  newestSealedSequence: u64;
  panicCounter: u32;
  oopsCounter: u32;
  newestUnsealed: i32; // zone index, or -1
  newestSealed: i32;
  recovered: u32;
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

export function setZoneState(zone: u32, state: u32): void {
  mark(MARK_ZONE_STATE);
  store<u8>(ZONE_STATES + zone, <u8>state);
}

/** The zone of the newest record, -1 if there is none: by sequence, unless an unsealed one is later by the clock. */
export function newestZone(): i32 {
  const a = area();
  if (a.newestUnsealed < 0) return a.newestSealed;
  if (a.newestSealed < 0) return a.newestUnsealed;
  return a.newestTimeSec > a.newestSealedTimeSec ? a.newestUnsealed : a.newestSealed;
}

/** The next counter of a reason; reasons other than Panic and Oops have none. */
export function nextCounter(reason: u32): u32 {
  const a = area();
  if (reason == REASON_PANIC) return a.panicCounter + 1;
  return reason == REASON_OOPS ? a.oopsCounter + 1 : 0;
}

/**
 * The zone for the next record: the first behind the newest that is empty or erased; else the first that is torn, as
 * something of its record may be salvaged; if all hold a record, the one that the policy gives up. Zones that are bad
 * are passed over. -1: there is none.
 */
export function chooseZone(): i32 {
  const count = zoneCount();
  const newest = newestZone();
  const start: u32 = newest < 0 ? 0 : <u32>newest + 1;
  let torn: i32 = -1;
  let used: i32 = -1;
  for (let i: u32 = 0; i < count && i < <u32>ZONES_MAX; i++) {
    const zone = (start + i) % count;
    const state = zoneState(zone);
    if (state == ZONE_BAD) continue;
    if (state == ZONE_EMPTY || state == ZONE_ERASED) return zone;
    if (state == ZONE_TORN) {
      if (torn < 0) torn = zone;
      continue;
    }
    // Oldest first, newest last: ring gives up the first met, first-wins the last.
    if (used < 0 || load<u32>(CONFIG_POLICY) != POLICY_RING) used = zone;
  }
  return torn >= 0 ? torn : used;
}
