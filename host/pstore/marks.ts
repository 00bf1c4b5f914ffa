// The marks by which kmsg zones are found, at 512-byte steps: kmsg headers (a mark where a zone starts) and seals (a
// mark where one ends); and which of them are only text in another record.
import { crc32cOf } from "./area-view.js";
import {
  type Area,
  isKmsgZone,
  mendedRecordCrc,
  PSZ_BUFFER_SIZE,
  readSeal,
  SEAL_SIZE,
  SECTOR_SIZE,
} from "./format.js";

/** No kernel allocates a larger zone, so no larger datalen hides what follows. */
const MAX_HIDDEN_BYTES = 4 * 1024 * 1024;

export interface Marks {
  /** Offsets of kmsg headers that are in no other record, ascending. */
  headers: number[];
  /** Ends of seals that stand in no proved zone, ascending. A proved zone's own seal is here too. */
  sealEnds: number[];
  /** What stands as datalen in each of `headers`, by offset. */
  datalens: Map<number, number>;
  /** Zone offset → zone end, for headers proved by a seal. */
  proved: Map<number, number>;
  /** Every header and every seal end, hidden or not, ascending. */
  allHeaders: number[];
  allSealEnds: number[];
}

/** Where the zone of a removed record ends, if the next seal proves that it is that record's; else null. */
function erasedEnd(area: Area, header: number, sealEnd: number | undefined): number | null {
  if (sealEnd === undefined || sealEnd - header > MAX_HIDDEN_BYTES) return null;
  const seal = readSeal(area, sealEnd);
  if (seal === null || header + PSZ_BUFFER_SIZE + seal.datalen > sealEnd - SEAL_SIZE) return null;
  return mendedRecordCrc(area, header, seal.datalen) === seal.recordCrc ? sealEnd : null;
}

/** The marks at `from` and every 512 bytes on. */
export function collectMarks(area: Area, from: number): Marks {
  const allHeaders: number[] = [];
  const allSealEnds: number[] = [];
  const endsOfRecord = new Map<string, number[]>();
  for (let at = from; at <= area.size; at += SECTOR_SIZE) {
    if (isKmsgZone(area, at)) allHeaders.push(at);
    const seal = at > from ? readSeal(area, at) : null;
    if (seal !== null) {
      allSealEnds.push(at);
      const key = `${seal.datalen}:${seal.recordCrc}`;
      const ends = endsOfRecord.get(key);
      if (ends === undefined) endsOfRecord.set(key, [at]);
      else ends.push(at);
    }
  }
  const headers: number[] = [];
  const sealEnds: number[] = [];
  const datalens = new Map<number, number>();
  const proved = new Map<number, number>();
  let hiddenUntil = from;
  let provedUntil = from;
  let nextSeal = 0;
  const takeSeals = (until: number): void => {
    for (; nextSeal < allSealEnds.length; nextSeal++) {
      const end = allSealEnds[nextSeal] as number;
      if (end > until) return;
      if (end >= provedUntil) sealEnds.push(end);
    }
  };
  for (const header of allHeaders) {
    if (header < hiddenUntil) continue;
    takeSeals(header);
    headers.push(header);
    const datalen = area.view.getInt32(header + 4, true);
    datalens.set(header, datalen);
    const recordEnd = header + PSZ_BUFFER_SIZE + datalen;
    if (datalen === 0) {
      const end = erasedEnd(area, header, firstAtLeast(allSealEnds, header + SECTOR_SIZE));
      if (end === null) continue;
      proved.set(header, end);
      hiddenUntil = end;
      provedUntil = end;
      continue;
    }
    if (datalen <= 0 || datalen > MAX_HIDDEN_BYTES || recordEnd > area.size) continue;
    hiddenUntil = recordEnd;
    if (endsOfRecord.size === 0) continue;
    // The records that this is done for do not overlap, so all of this costs one pass over the area.
    const crc = crc32cOf(area, header, recordEnd);
    const end = firstAtLeast(endsOfRecord.get(`${datalen}:${crc}`) ?? [], recordEnd + SEAL_SIZE);
    if (end !== undefined && end - header <= MAX_HIDDEN_BYTES) {
      proved.set(header, end);
      hiddenUntil = end;
      provedUntil = end;
    }
  }
  takeSeals(area.size);
  return { headers, sealEnds, datalens, proved, allHeaders, allSealEnds };
}

/** The index of the first number in an ascending list that is at least `bound`. */
export function indexAtLeast(ascending: readonly number[], bound: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ascending[middle] as number) < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function firstAtLeast(ascending: readonly number[], bound: number): number | undefined {
  return ascending[indexAtLeast(ascending, bound)];
}
