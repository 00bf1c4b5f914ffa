// Reads a pstore area from its bytes alone: finds its layout (geometry.ts), and tells for every zone (kmsg-zone.ts,
// rings.ts) what Linux's pstore file system would show and what state the record is in.
// Written from docs/FORMAT.md and from nothing else, as the independent oracle of the core. It and what it is
// made of must never import from assembly/ (not even a constant), never write, never use anything of Node, and
// never throw: any bytes at all are an area.
import { openArea } from "./format.js";
import { findGeometryIn, type Geometry, type GeometryOptions } from "./geometry.js";
import { decodeKmsgZone } from "./kmsg-zone.js";
import { largestSequence } from "./order.js";
import { type Budget, INFLATE_BUDGET_BYTES } from "./payload.js";
import type { PstoreRecord, ZoneInfo } from "./record.js";
import { decodeRings } from "./rings.js";

export type { Abi } from "./format.js";
export { findGeometry, type Geometry, type GeometryOptions } from "./geometry.js";
export type { PstoreRecord, RecordState, ZoneInfo } from "./record.js";

export interface Decoded {
  geometry: Geometry;
  /** In the order in which Linux lists them: kmsg by zone index, then ftrace, pmsg and console. */
  records: PstoreRecord[];
  /** Removed records whose bytes the seal still proves, by zone index; of the others nothing can be said. */
  erased: PstoreRecord[];
  /** In the order of the medium. */
  zones: ZoneInfo[];
}

/** Marks each record that stands in the area once more: FORMAT.md, "Long logs". */
function markDuplicates(records: PstoreRecord[]): void {
  const bySequence = new Map<bigint, PstoreRecord>();
  for (const record of records) {
    if (record.sequence === null) continue;
    const before = bySequence.get(record.sequence);
    if (before === undefined) bySequence.set(record.sequence, record);
    else if (isSameRecord(before, record)) record.duplicateOf = before.name;
  }
}

function isSameRecord(one: PstoreRecord, other: PstoreRecord): boolean {
  if (one.timeSec !== other.timeSec || one.timeNsec !== other.timeNsec || one.size !== other.size)
    return false;
  if (one.reason !== other.reason || one.count !== other.count) return false;
  for (let at = 0; at < one.size; at++) if (one.bytes[at] !== other.bytes[at]) return false;
  return true;
}

/**
 * Reads a whole area. Never throws, on any bytes; takes time linear in the area, and memory bounded by the
 * area, plus at most 64 MiB for inflated records (what is beyond that is `undecodable`).
 * @param area the whole area; at most its first 128 MiB are looked at. Records may be views into it, so it
 *   must not be changed while they are in use.
 * @param options sizes in bytes and the ABI, where known. An unsealed record in a zone of guessed size is
 *   `torn` if its bytes would allow another size as well; with an explicit kmsgSize there is no such doubt.
 */
export function decodeArea(area: Uint8Array, options: GeometryOptions = {}): Decoded {
  const opened = openArea(area);
  const found = findGeometryIn(opened, options);
  const { geometry } = found;
  const { zones, records: ringRecords } = decodeRings(opened, geometry, options);
  const records: PstoreRecord[] = [];
  const erasedRecords: PstoreRecord[] = [];
  const budget: Budget = { inflateBytes: INFLATE_BUDGET_BYTES };
  for (let index = 0; index < geometry.kmsgCount; index++) {
    const { zone, record, erased } = decodeKmsgZone(opened, found, index, options.abi, budget);
    zones.push(zone);
    if (record !== null) records.push(record);
    if (erased !== null) erasedRecords.push(erased);
  }
  markDuplicates(records);
  const sequences = zones.flatMap(({ sequence }) => (sequence === null ? [] : [sequence]));
  const largest = largestSequence(sequences);
  for (const record of [...records, ...erasedRecords]) {
    record.outOfOrder = record.sequence !== null && record.sequence > largest;
  }
  records.push(...ringRecords);
  return { geometry, records, erased: erasedRecords, zones };
}
