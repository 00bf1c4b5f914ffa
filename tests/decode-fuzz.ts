// Mutated areas for decode.ts and what must hold of each: no exception, bounded memory, and no record called ok that
// was not written whole. Used by a sample in `npm test` and by the long run of `npm run fuzz:decode`.
import { readFileSync } from "node:fs";
import { deflateRawSync, gunzipSync } from "node:zlib";
import { type Decoded, decodeArea, type GeometryOptions, type PstoreRecord } from "../host/pstore/decode.js";
import { formatLog, joinLogs } from "../host/pstore/join.js";
import { ROOT } from "./machine.js";
import { buildArea, buildChain, buildZone, logText } from "./zones.js";

/** An area that is mutated. */
interface Source {
  name: string;
  area: Uint8Array;
  sizes: GeometryOptions;
  /** Every record of it is sealed: what a mutation leaves ok must be one of these, bit for bit. */
  sealed: Map<string, number> | null;
}

export interface FuzzCounts {
  images: number;
  records: number;
  ok: number;
  okSealed: number;
  salvaged: number;
  torn: number;
  undecodable: number;
  erased: number;
  unfinished: number;
  joined: number;
  /** The largest sum of bytes that one decode handed out beyond views into the area. */
  bytesMax: number;
}

const ZONE_BYTES = 4096;
const REAL_IMAGES = ["i386-oops", "lp64-multipart", "lp64-oops", "lp64-plain", "lp64-panic-lost"];
/** What is kept of a real image: its records stand in the first zones. */
const REAL_BYTES_MAX = 3 * 65536;

function keyOf({ reason, count, timeSec, timeNsec, abi, bytes }: PstoreRecord): string {
  return `${reason} ${count} ${timeSec} ${timeNsec} ${abi} ${Buffer.from(bytes).toString("latin1")}`;
}

function sealedSource(name: string, zones: (Uint8Array | null)[], abi: "lp64" | "i386"): Source {
  const area = buildArea(zones, ZONE_BYTES);
  const sizes = { kmsgSize: ZONE_BYTES, pmsgSize: 0, consoleSize: 0, ftraceSize: 0, abi };
  const sealed = new Map(decodeArea(area, sizes).records.map((record) => [keyOf(record), record.id]));
  return { name, area, sizes, sealed };
}

export function fuzzSources(): Source[] {
  const sources: Source[] = [];
  for (const abi of ["lp64", "i386"] as const) {
    const plain = [1n, 2n, 3n].map((sequence) =>
      buildZone(ZONE_BYTES, { abi, payload: logText(900 * Number(sequence), Number(sequence)), sequence }),
    );
    const deflated = [4n, 5n].map((sequence) =>
      buildZone(ZONE_BYTES, {
        abi,
        payload: new Uint8Array(deflateRawSync(logText(7000, Number(sequence)))),
        compressed: true,
        sequence,
        counter: 4,
      }),
    );
    const chain = buildChain(logText(9000, 3), ZONE_BYTES, 3500, 6n, { abi });
    sources.push(sealedSource(`sealed, ${abi}`, [...plain, null, ...deflated, ...chain], abi));
  }
  for (const name of REAL_IMAGES) {
    const image = new Uint8Array(gunzipSync(readFileSync(`${ROOT}tests/data/linux-6.1/${name}.img.gz`)));
    sources.push({ name, area: image.slice(0, REAL_BYTES_MAX), sizes: {}, sealed: null });
  }
  return sources;
}

/** Numbers below `limit` from a seed (xorshift32). */
export function dice(seed: number): (limit: number) => number {
  let word = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
  return (limit) => {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return (word >>> 0) % limit;
  };
}

const LENGTHS = [
  0, 1, 27, 28, 39, 40, 41, 452, 460, 4019, 4020, 4084, 4085, 65535, 0x7fffffff, -1, -0x80000000,
];

/** Changes `area` in one to four places, and tells which ranges; as torn writes, stray writes and hostile hands do. */
export function mutate(area: Uint8Array, next: (limit: number) => number): [number, number][] {
  const changed: [number, number][] = [];
  const sectors = Math.floor(area.length / 512);
  const view = new DataView(area.buffer, area.byteOffset, area.length);
  for (let count = 1 + next(4); count > 0; count--) {
    const zone = next(Math.floor(area.length / ZONE_BYTES)) * ZONE_BYTES;
    let range: [number, number];
    switch (next(8)) {
      case 0: // one bit of the headers
        range = [zone + next(64), 0];
        range[1] = range[0] + 1;
        area[range[0]] = (area[range[0]] as number) ^ (1 << next(8));
        break;
      case 1: // one bit of the seal
        range = [zone + ZONE_BYTES - 1 - next(64), 0];
        range[1] = range[0] + 1;
        area[range[0]] = (area[range[0]] as number) ^ (1 << next(8));
        break;
      case 2: // a byte anywhere
        range = [next(area.length), 0];
        range[1] = range[0] + 1;
        area[range[0]] = next(256);
        break;
      case 3: // a length that is at a border
        range = [zone + 4, zone + 8];
        view.setInt32(range[0], LENGTHS[next(LENGTHS.length)] as number, true);
        break;
      case 4: {
        // a sector, or half of it, from elsewhere
        const half = 256 * (1 + next(2));
        const from = next(sectors) * 512;
        const to = next(sectors) * 512;
        area.copyWithin(to, from, from + half);
        range = [to, to + half];
        break;
      }
      case 5: {
        // a run of sectors blank
        const from = next(sectors) * 512;
        range = [from, Math.min(area.length, from + 512 * (1 + next(8)))];
        area.fill(next(2) * 255, ...range);
        break;
      }
      case 6: {
        // a whole zone from elsewhere
        const from = next(Math.floor(area.length / ZONE_BYTES)) * ZONE_BYTES;
        area.copyWithin(zone, from, from + ZONE_BYTES);
        range = [zone, zone + ZONE_BYTES];
        break;
      }
      default: {
        // a few bytes of noise
        const from = next(area.length);
        range = [from, Math.min(area.length, from + 1 + next(40))];
        for (let at = from; at < range[1]; at++) area[at] = next(256);
      }
    }
    changed.push(range);
  }
  return changed;
}

/** Everything that is promised of any decode. @throws Error if it is broken. */
export function checkDecoded(area: Uint8Array, decoded: Decoded, counts: FuzzCounts): void {
  let bytes = 0;
  for (const record of [...decoded.records, ...decoded.erased, ...decoded.remains]) {
    counts.records++;
    counts[record.state]++;
    if (record.sealed && record.state === "ok") counts.okSealed++;
    if (record.bytes.length !== record.size || record.textOffset > record.size)
      throw new Error("sizes disagree");
    if (record.state === "torn" && record.sealed) throw new Error("torn and proved");
    if (record.bytes.buffer !== area.buffer) bytes += record.size;
  }
  const logs = joinLogs(decoded.records);
  for (const log of logs) {
    if (log.parts.length > 1) counts.joined++;
    bytes += log.parts.length > 1 ? formatLog(log).length : 0;
  }
  if (bytes > 5 * area.length + 4096) throw new Error(`${bytes} bytes out of an area of ${area.length}`);
  if (bytes > counts.bytesMax) counts.bytesMax = bytes;
}

/** Records that a mutation cannot have made: ok, sealed or with a whole sealed zone's bytes, and never written. */
function checkWritten(source: Source, decoded: Decoded): void {
  if (source.sealed === null) return;
  for (const record of decoded.records) {
    // Without its seal a record is Linux's own, and served on trust: FORMAT.md says that nothing can tell.
    if (!record.sealed || (record.state !== "ok" && record.state !== "salvaged")) continue;
    if (!source.sealed.has(keyOf(record)))
      throw new Error(`${record.name} is ${record.state} and was never written`);
  }
}

export function emptyCounts(): FuzzCounts {
  return {
    images: 0,
    records: 0,
    ok: 0,
    okSealed: 0,
    salvaged: 0,
    torn: 0,
    undecodable: 0,
    erased: 0,
    unfinished: 0,
    joined: 0,
    bytesMax: 0,
  };
}

/** Decodes `images` mutated areas, the `from`th on; with sizes given and, of every fourth, with sizes to be found. */
export function fuzz(sources: Source[], from: number, images: number, counts: FuzzCounts): void {
  const buffers = sources.map(({ area }) => area.slice());
  for (let seed = from; seed < from + images; seed++) {
    const source = sources[seed % sources.length] as Source;
    const area = buffers[seed % sources.length] as Uint8Array;
    const changed = mutate(area, dice(seed));
    try {
      const decoded = decodeArea(area, seed % 4 === 3 ? {} : source.sizes);
      checkDecoded(area, decoded, counts);
      checkWritten(source, decoded);
    } catch (error) {
      throw new Error(`image ${seed} (${source.name}): ${String(error)}`, { cause: error });
    }
    counts.images++;
    for (const [at, end] of changed) area.set(source.area.subarray(at, end), at);
  }
}
