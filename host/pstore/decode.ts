// Reads a pstore area from its bytes alone: finds its layout (geometry.ts), and tells for every zone (kmsg-zone.ts,
// rings.ts) what Linux's pstore file system would show and what state the record is in.
// Written from docs/FORMAT.md and from nothing else, as the independent oracle of the core. It and what it is
// made of must never import from assembly/ (not even a constant), never write, never use anything of Node, and
// never throw: any bytes at all are an area.
import { type AreaSource, pagedArea } from "./area-view.js";
import { type Area, MAX_AREA_SIZE, openArea } from "./format.js";
import { findGeometryIn, type Geometry, type GeometryOptions } from "./geometry.js";
import { decodeKmsgZone } from "./kmsg-zone.js";
import { largestSequence } from "./order.js";
import type { InflateWhole } from "./payload.js";
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
  /**
   * Zones that show no record, and hold bytes of one that nothing proves: `erased`, removed by Linux or by an
   * `rm --wipe` that was cut, and `unfinished`, a write that was cut. Without text of their own.
   */
  remains: PstoreRecord[];
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
  // Asked for once: they may have to be read, and inflated.
  const [bytes, otherBytes] = [one.bytes, other.bytes];
  return bytes.every((byte, at) => byte === otherBytes[at]);
}

/**
 * Reads a whole area. Never throws, on any bytes; takes time linear in the area, and memory for copies of the records,
 * of which a deflated one has at most four times its zone (what would be more is `undecodable`).
 * @param area the whole area; at most its first 128 MiB are looked at. It is not changed and not kept.
 * @param options sizes in bytes and the ABI, where known. An unsealed record in a zone of guessed size is
 *   `torn` if its bytes would allow another size as well; with an explicit kmsgSize there is no such doubt.
 */
export function decodeArea(area: Uint8Array, options: GeometryOptions = {}): Decoded {
  return decodeOpened(openArea(area), options);
}

/**
 * As {@link decodeArea}, from where the area lies: through a window of 64 KiB, and without the bytes of its kmsg
 * records. `bytes` of each reads them again, and inflates them, whenever it is asked for; the source must be open and
 * the same then. An error is the source's.
 */
export function decodeSource(
  source: AreaSource,
  options: GeometryOptions,
  inflateWhole?: InflateWhole,
): Decoded {
  return decodeOpened(pagedArea(source, MAX_AREA_SIZE), options, { inflateWhole });
}

/** A record of which all is known but its bytes, which `read` gives. */
function withoutBytes<Known extends PstoreRecord | null>(record: Known, read: () => Known): Known {
  if (record === null) return record;
  const get = () => (read() as PstoreRecord).bytes;
  return Object.defineProperty(record, "bytes", { get, enumerable: true });
}

function decodeOpened(
  opened: Area,
  options: GeometryOptions,
  lazily?: { inflateWhole: InflateWhole | undefined },
): Decoded {
  const found = findGeometryIn(opened, options);
  const { geometry } = found;
  const { zones, records: ringRecords, remains: ringRemains } = decodeRings(opened, geometry, options);
  const records: PstoreRecord[] = [];
  const erasedRecords: PstoreRecord[] = [];
  const remains: PstoreRecord[] = [];
  for (let index = 0; index < geometry.kmsgCount; index++) {
    const read = () => decodeKmsgZone(opened, found, index, options.abi, lazily?.inflateWhole);
    const { zone, record, erased, remains: rest } = read();
    if (lazily) {
      withoutBytes(record, () => read().record);
      withoutBytes(erased, () => read().erased);
      withoutBytes(rest ?? null, () => read().remains ?? null);
    }
    zones.push(zone);
    if (record !== null) records.push(record);
    if (erased !== null) erasedRecords.push(erased);
    if (rest !== undefined) remains.push(rest);
  }
  markDuplicates(records);
  const sequences = zones.flatMap(({ sequence }) => (sequence === null ? [] : [sequence]));
  const largest = largestSequence(sequences);
  for (const record of [...records, ...erasedRecords]) {
    record.outOfOrder = record.sequence !== null && record.sequence > largest;
  }
  records.push(...ringRecords);
  remains.push(...ringRemains);
  return { geometry, records, erased: erasedRecords, remains, zones };
}
