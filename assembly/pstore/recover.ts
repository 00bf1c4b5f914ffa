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
  ZONE_EMPTY,
  ZONE_ERASED,
  ZONE_PART,
  ZONE_TORN,
  ZONE_UNKNOWN,
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
import { area, countReason, headerBytes, orderTimeSec, setZoneLog, setZoneState, zoneSectors } from "./zone";

/** Two records that follow each other are not further apart, however many were written over between them. */
export const SEQUENCE_STEP_MAX: u64 = 0x100000000;

/** `sequenceMax`: larger sequences are not continued from, until mayReachBeyond() says otherwise. */
export function beginRecovery(sequenceMax: u64): void {
  const a = area();
  a.sequenceMax = sequenceMax;
  a.leastBeyond = 0;
  a.restarts = 0;
  a.unread = 0;
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
  const a = area();
  a.sequence += a.unread;
  a.recovered = 1;
}

/** Whether a sequence that was passed over was reached from the largest one: the zones have to be seen again. */
export function mayReachBeyond(): bool {
  const a = area();
  return a.leastBeyond != 0 && a.leastBeyond - a.sequence <= SEQUENCE_STEP_MAX;
}

/** What a seal says of numbers, which outlive their record. Returns its sequence, 0 if that orders nothing. */
function learnFromSeal(seal: usize): u64 {
  const a = area();
  countReason(REASON_PANIC, sealPanics(seal));
  countReason(REASON_OOPS, sealOopses(seal));
  const sequence = sealSequence(seal);
  if (sequence > a.sequenceMax) {
    if (a.leastBeyond == 0 || sequence < a.leastBeyond) a.leastBeyond = sequence;
    return 0;
  }
  if (sequence > a.sequence) a.sequence = sequence;
  return sequence;
}

function headerReason(head: usize): u32 {
  return load<u32>(CONFIG_ABI) == ABI_LP64 ? load<u32>(head, 44) : load<u32>(head, 36);
}

function headerCounter(head: usize): u32 {
  return load<u32>(CONFIG_ABI) == ABI_LP64 ? load<u32>(head, 40) : load<u32>(head, 32);
}

function isHeader(head: usize): bool {
  return load<u32>(head) == PSZ_SIG_KMSG && load<u32>(head, PSZ_BUFFER_BYTES) == PSTORE_KMSG_HEADER_MAGIC;
}

/**
 * A zone that cannot be read is not written either. `head`, `tail`: of its sectors the one that was read, or 0: its
 * numbers hold. The number of a record whose seal nobody could read is left out.
 */
export function recoverUnknownZone(token: u32, zone: u32, head: usize, tail: usize): void {
  setZoneLog(zone, 0);
  setZoneState(token, zone, ZONE_UNKNOWN);
  if (head != 0 && isHeader(head)) countReason(headerReason(head), headerCounter(head));
  if (tail != 0) {
    const seal = tail + SECTOR_BYTES - SEAL_BYTES;
    if (sealStands(seal)) learnFromSeal(seal);
  } else area().unread += 1;
}

/** `head` and `tail`: the first and the last sector of the zone. */
export function recoverZone(token: u32, zone: u32, head: usize, tail: usize): void {
  const a = area();
  const seal = tail + SECTOR_BYTES - SEAL_BYTES;
  const sealed = sealStands(seal);
  const sequence = sealed ? learnFromSeal(seal) : 0;
  setZoneLog(zone, 0);
  const hasSignature = load<u32>(head) == PSZ_SIG_KMSG;
  const hasMagic = load<u32>(head, PSZ_BUFFER_BYTES) == PSTORE_KMSG_HEADER_MAGIC;
  if (!hasSignature || !hasMagic) {
    // Linux sees nothing here; but half a header that nobody erased, or a seal, says that there was a record.
    const hadRecord = hasSignature || hasMagic ? load<u32>(head, 4) != 0 : sealed;
    setZoneState(token, zone, hadRecord ? ZONE_TORN : ZONE_EMPTY);
    return;
  }
  const timeAt: usize = load<u32>(CONFIG_ABI) == ABI_LP64 ? 20 : 16;
  const timeSec = orderTimeSec(load<i64>(head + timeAt));
  const datalen = load<u32>(head, 4);
  // The same checks as Linux's meta pass, in its order: length, then time and counters, then erased.
  if (datalen > zoneSectors() * SECTOR_BYTES - PSZ_BUFFER_BYTES) {
    setZoneState(token, zone, ZONE_TORN);
    return;
  }
  const agrees = !sealed || sealDatalen(seal) == datalen;
  if (sealed && (agrees || datalen == 0)) {
    // A sequence that cannot be orders nothing: the record is there, and is nobody's newest.
    if (sequence > 0 && sequence >= a.newestSealedSequence) {
      a.newestSealedSequence = sequence;
      const latest = orderTimeSec(sealLatestTimeSec(seal));
      a.newestSealedTimeSec = timeSec > latest ? timeSec : latest;
      a.newestSealed = zone;
    }
  } else if (!sealed && timeSec >= a.newestTimeSec) {
    a.newestTimeSec = timeSec;
    a.newestUnsealed = zone;
  }
  countReason(headerReason(head), headerCounter(head));
  if (datalen == 0) setZoneState(token, zone, ZONE_ERASED);
  else if (!agrees || datalen < headerBytes()) setZoneState(token, zone, ZONE_TORN);
  else {
    const isPart = sequence > 0 && sealPart(seal) > 1 && sealFirst(seal) < sequence;
    if (sequence > 0) setZoneLog(zone, isPart ? sealFirst(seal) : sequence);
    setZoneState(token, zone, isPart ? ZONE_PART : ZONE_USED);
  }
}
