// What the core must know of an area before it writes: which zones are free, which record is the newest, and how far
// counters and sequence have come. Two sectors a zone: its first and its last. A zone is never trusted (FORMAT.md).
import { ABI_LP64, CONFIG_ABI, SECTOR_BYTES } from "../layout";
import {
  PSTORE_KMSG_HEADER_MAGIC,
  PSZ_BUFFER_BYTES,
  PSZ_SIG_KMSG,
  REASON_OOPS,
  REASON_PANIC,
  SEAL_BYTES,
  ZONE_BAD,
  ZONE_EMPTY,
  ZONE_ERASED,
  ZONE_PART,
  ZONE_TORN,
  ZONE_USED,
} from "./format";
import {
  sealDatalen,
  sealFirst,
  sealLatestTimeSec,
  sealOopses,
  sealPanics,
  sealPart,
  sealSequence,
  sealStands,
} from "./seal";
import { area, countReason, headerBytes, setZoneLog, setZoneState, zoneSectors } from "./zone";

export function beginRecovery(): void {
  const a = area();
  a.sequence = 0;
  a.newestTimeSec = 0;
  a.newestSealedTimeSec = 0;
  a.newestSealedSequence = 0;
  a.panicCounter = 0;
  a.oopsCounter = 0;
  a.newestUnsealed = -1;
  a.newestSealed = -1;
  a.recovered = 0;
}

export function endRecovery(): void {
  area().recovered = 1;
}

/** A zone that cannot be read is not written either. */
export function recoverBadZone(token: u32, zone: u32): void {
  setZoneLog(zone, 0);
  setZoneState(token, zone, ZONE_BAD);
}

/** `head` and `tail`: the first and the last sector of the zone. */
export function recoverZone(token: u32, zone: u32, head: usize, tail: usize): void {
  const a = area();
  const seal = tail + SECTOR_BYTES - SEAL_BYTES;
  const sealed = sealStands(seal);
  const sequence = sealed ? sealSequence(seal) : 0;
  if (sequence > a.sequence) a.sequence = sequence;
  setZoneLog(zone, 0);
  if (sealed) {
    // Counts outlive the header of the record that made them.
    countReason(REASON_PANIC, sealPanics(seal));
    countReason(REASON_OOPS, sealOopses(seal));
  }
  const hasSignature = load<u32>(head) == PSZ_SIG_KMSG;
  const hasMagic = load<u32>(head, PSZ_BUFFER_BYTES) == PSTORE_KMSG_HEADER_MAGIC;
  if (!hasSignature || !hasMagic) {
    // Linux sees nothing here; but half a header that nobody erased, or a seal, says that there was a record.
    const hadRecord = hasSignature || hasMagic ? load<u32>(head, 4) != 0 : sealed;
    setZoneState(token, zone, hadRecord ? ZONE_TORN : ZONE_EMPTY);
    return;
  }
  const lp64 = load<u32>(CONFIG_ABI) == ABI_LP64;
  const timeSec = lp64 ? load<i64>(head, 20) : load<i64>(head, 16);
  const counter = lp64 ? load<u32>(head, 40) : load<u32>(head, 32);
  const reason = lp64 ? load<u32>(head, 44) : load<u32>(head, 36);
  const datalen = load<u32>(head, 4);
  // The same checks as Linux's meta pass, in its order: length, then time and counters, then erased.
  if (datalen > zoneSectors() * SECTOR_BYTES - PSZ_BUFFER_BYTES) {
    setZoneState(token, zone, ZONE_TORN);
    return;
  }
  const agrees = !sealed || sealDatalen(seal) == datalen;
  if (sealed && (agrees || datalen == 0)) {
    if (sequence >= a.newestSealedSequence) {
      a.newestSealedSequence = sequence;
      const latest = sealLatestTimeSec(seal);
      a.newestSealedTimeSec = timeSec > latest ? timeSec : latest;
      a.newestSealed = zone;
    }
  } else if (!sealed && timeSec >= a.newestTimeSec) {
    a.newestTimeSec = timeSec;
    a.newestUnsealed = zone;
  }
  countReason(reason, counter);
  if (datalen == 0) setZoneState(token, zone, ZONE_ERASED);
  else if (!agrees || datalen < headerBytes()) setZoneState(token, zone, ZONE_TORN);
  else {
    const isPart = sealed && sealPart(seal) > 1 && sealFirst(seal) < sequence;
    if (sealed) setZoneLog(zone, isPart ? sealFirst(seal) : sequence);
    setZoneState(token, zone, isPart ? ZONE_PART : ZONE_USED);
  }
}
