// One kmsg zone: the state of its record, by header and seal, and what can be had of a damaged one. FORMAT.md, "The
// state of a kmsg zone" and "Salvage".

import { ownBytes } from "../own-bytes.js";
import { crc32cOf } from "./area-view.js";
import {
  type Abi,
  type Area,
  abiOfZone,
  hasBytes,
  isKmsgZone,
  isNsec,
  KMSG_HEADER_SIZES,
  mendedRecordCrc,
  PSZ_BUFFER_SIZE,
  PSZ_KMSG_HEADER_MAGIC,
  PSZ_SIG_KMSG,
  readKmsgHeader,
  readSeal,
  SEAL_SIZE,
  SECTOR_SIZE,
  type Seal,
} from "./format.js";
import { type FoundGeometry, isInDoubt } from "./geometry.js";
import { recordName } from "./names.js";
import {
  type InflateWhole,
  inflatePayload,
  SALVAGED_TEXT_BYTES_MIN,
  textBytesAtStart,
  withHeaderLine,
} from "./payload.js";
import { bareRecord, emptyZone, type PstoreRecord, type RecordState, type ZoneInfo } from "./record.js";

/** Shutdown. Larger ones are shown as Unknown; in a header that is damaged elsewhere they are damage too. */
const MAX_REASON = 4;
const REASON_NAMES = ["Unknown", "Panic", "Oops", "Emergency", "Shutdown"];

const NO_BYTES = new Uint8Array(0);

/** The record that the seal closed is there to the last byte, whatever happened to signature, datalen and magic. */
function isProvedMended(area: Area, offset: number, size: number, seal: Seal, abi: Abi): boolean {
  const { datalen } = seal;
  if (datalen < KMSG_HEADER_SIZES[abi] || datalen > size - PSZ_BUFFER_SIZE - SEAL_SIZE) return false;
  return mendedRecordCrc(area, offset, datalen) === seal.recordCrc;
}

/** The kmsg header behind a damaged signature or magic holds nothing that no kernel writes. */
function isPlausibleHeader(area: Area, zone: number, abi: Abi): boolean {
  const { view } = area;
  const { timeSec, timeNsec, reason } = readKmsgHeader(area, zone, abi);
  // With its padding, which is 0.
  const compressed = view.getUint32(zone + (abi === "lp64" ? 36 : 28), true);
  const hasGaps = abi === "i386" || (view.getUint32(zone + 16, true) | view.getUint32(zone + 48, true)) === 0;
  return isNsec(timeNsec) && timeSec >= 0n && compressed <= 1 && reason <= MAX_REASON && hasGaps;
}

type KmsgRecord = PstoreRecord & { state: RecordState };

/** A kmsg record as its zone's bytes tell it, with `datalen` from whatever states it. */
function readRecord(
  area: Area,
  zone: ZoneInfo,
  abi: Abi,
  datalen: number,
  seal: Seal | null,
  inflateWhole: InflateWhole | undefined,
): KmsgRecord {
  const { index, offset, size } = zone;
  const header = readKmsgHeader(area, offset, abi);
  const payloadStart = offset + PSZ_BUFFER_SIZE + KMSG_HEADER_SIZES[abi];
  const recordEnd = offset + PSZ_BUFFER_SIZE + datalen;
  const payload = recordEnd > payloadStart ? area.part(payloadStart, recordEnd) : NO_BYTES;
  const inflated = header.compressed ? inflatePayload(payload, size, inflateWhole) : null;
  const isUndecodable = header.compressed && inflated === null;
  const reason = REASON_NAMES[header.reason] ?? "Unknown";
  const bytes = header.compressed
    ? (inflated?.bytes ?? ownBytes(payload))
    : withHeaderLine(reason, header.counter | 0, payload);
  const isPart = seal !== null && seal.part > 0;
  return {
    name: recordName("kmsg", index, isUndecodable),
    type: "kmsg",
    id: index,
    reason,
    count: header.counter,
    timeSec: header.timeSec,
    timeNsec: header.timeNsec,
    size: bytes.length,
    compressed: header.compressed,
    abi,
    offset,
    sealed: seal !== null,
    sequence: seal === null ? null : seal.sequence,
    part: isPart ? seal.part : 0,
    olderBytes: isPart ? seal.olderBytes : 0,
    lineBytes: isPart ? seal.lineBytes : 0,
    first: isPart ? seal.first : null,
    outOfOrder: false,
    duplicateOf: null,
    state: isUndecodable ? "undecodable" : inflated !== null && !inflated.isWhole ? "salvaged" : "ok",
    bytes,
    raw: null,
    textOffset: header.compressed ? 0 : bytes.length - payload.length,
  };
}

function asSalvaged(record: KmsgRecord): KmsgRecord {
  return record.state === "undecodable" ? record : { ...record, state: "salvaged" };
}

/** The text behind a first sector that is lost: what `datalen` of the seal still spans, if all of it is text. */
function readHeadless(area: Area, zone: ZoneInfo, abi: Abi, seal: Seal): KmsgRecord | null {
  const start = zone.offset + SECTOR_SIZE;
  const end = zone.offset + PSZ_BUFFER_SIZE + Math.min(seal.datalen, zone.size - PSZ_BUFFER_SIZE - SEAL_SIZE);
  if (end - start < SALVAGED_TEXT_BYTES_MIN) return null;
  const bytes = ownBytes(area.part(start, end));
  if (textBytesAtStart(bytes) < bytes.length) return null;
  const name = recordName("kmsg", zone.index);
  return { ...bareRecord(zone, name, abi, bytes), id: zone.index, reason: "Unknown", state: "salvaged" };
}

/** What can be had of a zone without a believable signature and magic: FORMAT.md, "Salvage". */
function salvageZone(
  area: Area,
  zone: ZoneInfo,
  abis: readonly [Abi, ...Abi[]],
  seal: Seal | null,
  inflateWhole: InflateWhole | undefined,
): KmsgRecord | null {
  const { offset, size } = zone;
  const datalen = area.view.getInt32(offset + 4, true);
  const hasSignature = area.view.getUint32(offset, true) === PSZ_SIG_KMSG;
  const hasMagic = area.view.getUint32(offset + 12, true) === PSZ_KMSG_HEADER_MAGIC;
  const hasOne = hasSignature || hasMagic;
  if (hasOne && datalen === 0) return null; // it was removed before: isHalfRemoved
  if (seal !== null && isProvedMended(area, offset, size, seal, "i386")) {
    const abi = abis.find((one) => isPlausibleHeader(area, offset, one)) ?? abis[0];
    return asSalvaged(readRecord(area, zone, abi, seal.datalen, seal, inflateWhole));
  }
  const abi = abis.find((one) => datalen >= KMSG_HEADER_SIZES[one] && isPlausibleHeader(area, offset, one));
  if (hasOne && abi !== undefined && datalen <= size - PSZ_BUFFER_SIZE) {
    return asSalvaged(readRecord(area, zone, abi, datalen, null, inflateWhole));
  }
  return seal === null ? null : readHeadless(area, zone, abis[0], seal);
}

/** Signature or magic is right, not both, and datalen is 0: a record with a damaged header that was removed. */
function isHalfRemoved(area: Area, offset: number): boolean {
  if (area.view.getInt32(offset + 4, true) !== 0) return false;
  return (
    area.view.getUint32(offset, true) === PSZ_SIG_KMSG ||
    area.view.getUint32(offset + PSZ_BUFFER_SIZE, true) === PSZ_KMSG_HEADER_MAGIC
  );
}

/** What is there of a zone that shows no record: of a removed one without a proof, or of one that was begun. */
function remainsOf(zone: ZoneInfo, abi: Abi, state: "erased" | "unfinished"): PstoreRecord {
  const { index, timeSec, timeNsec } = zone;
  const bare = bareRecord(zone, recordName("kmsg", index), abi, NO_BYTES);
  const reason = state === "unfinished" ? "Unknown" : (REASON_NAMES[zone.reason] ?? "Unknown");
  return { ...bare, id: index, reason, count: zone.counter | 0, timeSec, timeNsec, state };
}

interface DecodedKmsgZone {
  zone: ZoneInfo;
  record: PstoreRecord | null;
  /** Of an erased zone: the record that its seal still proves. */
  erased: PstoreRecord | null;
  /** Of an erased or unfinished zone whose bytes nothing proves. */
  remains?: PstoreRecord;
}

export function decodeKmsgZone(
  area: Area,
  found: FoundGeometry,
  index: number,
  forcedAbi: Abi | undefined,
  inflateWhole: InflateWhole | undefined,
): DecodedKmsgZone {
  const { geometry } = found;
  const size = geometry.kmsgSize;
  const offset = geometry.kmsgOffset + index * size;
  const zone = emptyZone("kmsg", index, offset, size);
  const seal = readSeal(area, offset + size);
  zone.sequence = seal === null ? null : seal.sequence;
  if (!isKmsgZone(area, offset)) {
    const other: Abi = geometry.abi === "lp64" ? "i386" : "lp64";
    const abis: [Abi, ...Abi[]] = forcedAbi === undefined ? [geometry.abi, other] : [forcedAbi];
    const record = salvageZone(area, zone, abis, seal, inflateWhole);
    if (record !== null) {
      zone.state = record.state;
      zone.sealed = record.sealed;
    } else if (isHalfRemoved(area, offset)) {
      zone.state = "erased";
      zone.hasRemains = hasBytes(area, offset + PSZ_BUFFER_SIZE + KMSG_HEADER_SIZES[abis[0]], offset + size);
      const none = { zone, record, erased: null };
      return zone.hasRemains ? { ...none, remains: remainsOf(zone, abis[0], "erased") } : none;
    } else if (seal !== null) {
      // The seal is written first, the header last: the write was cut between them.
      zone.state = "unfinished";
      zone.hasRemains = true;
      return { zone, record, erased: null, remains: remainsOf(zone, abis[0], "unfinished") };
    }
    return { zone, record, erased: null };
  }

  const abi = forcedAbi ?? abiOfZone(area, offset) ?? geometry.abi;
  const header = readKmsgHeader(area, offset, abi);
  const headerSize = KMSG_HEADER_SIZES[abi];
  const datalen = area.view.getInt32(offset + 4, true);
  zone.datalen = datalen;
  zone.counter = header.counter;
  zone.reason = header.reason;
  zone.timeSec = header.timeSec;
  zone.timeNsec = header.timeNsec;

  if (datalen === 0) {
    zone.state = "erased";
    zone.hasRemains = hasBytes(area, offset + PSZ_BUFFER_SIZE + headerSize, offset + size);
    if (seal === null || !isProvedMended(area, offset, size, seal, abi)) {
      const none = { zone, record: null, erased: null };
      return zone.hasRemains ? { ...none, remains: remainsOf(zone, abi, "erased") } : none;
    }
    const erased: PstoreRecord = {
      ...readRecord(area, zone, abi, seal.datalen, seal, inflateWhole),
      state: "erased",
    };
    return { zone, record: null, erased };
  }
  const isInRange = datalen > 0 && datalen <= size - PSZ_BUFFER_SIZE;
  // A negative datalen counts as too large; the reader is shown what the zone has.
  const shownDatalen = isInRange ? datalen : size - PSZ_BUFFER_SIZE;
  const recordEnd = offset + PSZ_BUFFER_SIZE + shownDatalen;
  let isTorn = !isInRange || datalen < headerSize;
  if (!isTorn && seal !== null) {
    isTorn = seal.datalen !== datalen || seal.recordCrc !== crc32cOf(area, offset, recordEnd);
  }
  if (!isTorn && seal === null) isTorn = isInDoubt(found, offset, recordEnd);

  let record: KmsgRecord;
  if (isTorn && seal !== null && isProvedMended(area, offset, size, seal, abi)) {
    record = asSalvaged(readRecord(area, zone, abi, seal.datalen, seal, inflateWhole));
  } else {
    record = readRecord(area, zone, abi, shownDatalen, isTorn ? null : seal, inflateWhole);
    if (isTorn) record.state = "torn";
  }
  zone.state = record.state;
  zone.sealed = record.sealed;
  return { zone, record, erased: null };
}
