// What stands in the rings of an area whose layout is found: which of them are believed, and the files of pmsg, console
// and of all of ftrace's slices together.

import { ownBytes } from "../own-bytes.js";
import {
  type Abi,
  type Area,
  hasBytes,
  PSZ_BUFFER_SIZE,
  PSZ_KMSG_HEADER_MAGIC,
  RING_SIGNATURES,
  type RingType,
  readSeal,
  SECTOR_SIZE,
} from "./format.js";
import { ftraceText, mergeFtrace } from "./ftrace.js";
import type { Geometry, GeometryOptions } from "./geometry.js";
import { recordName } from "./names.js";
import { bareRecord, emptyZone, type PstoreRecord, type RecordState, type ZoneInfo } from "./record.js";

/** What Linux merges lies in one allocation of at most this. */
const MAX_FTRACE_BYTES = 4 * 1024 * 1024;

/** True if what is taken for a ring has kmsg's magic behind its header, or a seal in it. */
function mayBeKmsgZones(area: Area, offset: number, size: number): boolean {
  if (size >= 16 && area.view.getUint32(offset + 12, true) === PSZ_KMSG_HEADER_MAGIC) return true;
  for (let end = offset + SECTOR_SIZE; end <= offset + size; end += SECTOR_SIZE) {
    if (readSeal(area, end) !== null) return true;
  }
  return false;
}

interface DecodedRing {
  zone: ZoneInfo;
  /** Oldest byte first; null if there is nothing to show. */
  log: Uint8Array | null;
}

/**
 * A ring's zone; one that is not believed is `torn` and, as on Linux, has nothing to show. One bit makes a kmsg
 * signature a ring's, so a ring that is a guess is shown as `torn` where it might be a kmsg zone.
 */
function decodeRing(
  area: Area,
  type: RingType,
  index: number,
  offset: number,
  size: number,
  isGuess: boolean,
): DecodedRing {
  const zone = emptyZone(type, index, offset, size);
  if (area.view.getUint32(offset, true) !== RING_SIGNATURES[type]) return { zone, log: null };
  const datalen = area.view.getInt32(offset + 4, true);
  const start = area.view.getInt32(offset + 8, true);
  zone.datalen = datalen;
  if (datalen < 0 || datalen > size - PSZ_BUFFER_SIZE || start < 0 || start > datalen) {
    zone.state = "torn";
    return { zone, log: null };
  }
  const state: RecordState = isGuess && mayBeKmsgZones(area, offset, size) ? "torn" : "ok";
  zone.state = datalen === 0 ? "erased" : state;
  if (datalen === 0) {
    zone.hasRemains = hasBytes(area, offset + PSZ_BUFFER_SIZE, offset + size);
    return { zone, log: null };
  }
  const data = area.part(offset + PSZ_BUFFER_SIZE, offset + PSZ_BUFFER_SIZE + datalen);
  if (start === 0 || start === datalen) return { zone, log: ownBytes(data) };
  const log = new Uint8Array(datalen);
  log.set(data.subarray(start), 0);
  log.set(data.subarray(0, start), datalen - start);
  return { zone, log };
}

/** The file of one or more rings of a type. `bytes`: what it holds. */
function ringRecord(rings: DecodedRing[], abi: Abi, bytes: Uint8Array, raw: Uint8Array | null): PstoreRecord {
  const { zone } = rings[0] as DecodedRing;
  const isTorn = rings.some((ring) => ring.log !== null && ring.zone.state === "torn");
  const state = isTorn ? "torn" : "ok";
  return { ...bareRecord(zone, recordName(zone.type, 0), abi, bytes), state, raw };
}

/** The slices of all CPUs. More bytes than a kernel could have merged are no rings of one. */
function decodeFtrace(area: Area, geometry: Geometry, isGuess: boolean): DecodedRing[] {
  const { ftraceSize, cpus } = geometry;
  const base = geometry.pmsgSize + geometry.consoleSize;
  const slice = cpus === 0 ? 0 : Math.floor(ftraceSize / cpus);
  if (slice < PSZ_BUFFER_SIZE || base + ftraceSize > area.size) return [];
  const rings = Array.from({ length: cpus }, (_, cpu) =>
    decodeRing(area, "ftrace", cpu, base + cpu * slice, slice, isGuess),
  );
  const totalBytes = rings.reduce((sum, { log }) => sum + (log?.length ?? 0), 0);
  if (totalBytes <= MAX_FTRACE_BYTES) return rings;
  return rings.map(({ zone }) => ({
    zone: zone.state === "ok" ? { ...zone, state: "torn" } : zone,
    log: null,
  }));
}

interface DecodedRings {
  /** In the order of the medium. */
  zones: ZoneInfo[];
  /** In the order in which Linux lists them. */
  records: PstoreRecord[];
  /** Of rings that were removed and still hold bytes; of ftrace one for all slices. */
  remains: PstoreRecord[];
}

/** All rings of an area. A ring whose size `options` do not give is a guess. */
export function decodeRings(area: Area, geometry: Geometry, options: GeometryOptions): DecodedRings {
  const zones: ZoneInfo[] = [];
  const records: PstoreRecord[] = [];
  const rings = [
    ["pmsg", 0, geometry.pmsgSize, options.pmsgSize],
    ["console", geometry.pmsgSize, geometry.consoleSize, options.consoleSize],
  ] as const;
  for (const [type, offset, size, explicitSize] of rings) {
    if (size < PSZ_BUFFER_SIZE || offset + size > area.size) continue;
    const ring = decodeRing(area, type, 0, offset, size, explicitSize === undefined);
    zones.push(ring.zone);
    if (ring.log !== null) records.push(ringRecord([ring], geometry.abi, ring.log, null));
  }
  const slices = decodeFtrace(area, geometry, options.ftraceSize === undefined);
  zones.push(...slices.map(({ zone }) => zone));
  const raw = mergeFtrace(
    slices.flatMap(({ log }) => (log === null ? [] : [log])),
    geometry.abi,
  );
  if (raw.length > 0) {
    records.unshift(ringRecord(slices, geometry.abi, ftraceText(raw, geometry.abi), raw));
  }
  const remains: PstoreRecord[] = [];
  for (const type of ["ftrace", "pmsg", "console"] as const) {
    const zone = zones.find((one) => one.type === type && one.hasRemains);
    if (zone === undefined || records.some((record) => record.type === type)) continue;
    const bare = bareRecord(zone, recordName(type, 0), geometry.abi, new Uint8Array(0));
    remains.push({ ...bare, state: "erased" });
  }
  return { zones, records, remains };
}
