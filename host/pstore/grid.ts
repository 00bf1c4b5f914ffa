// The size and the start of the kmsg zones: which grids there may be, and which of them explains the marks best.
import { type Area, floorToSector, MAX_AREA_SIZE, PSZ_BUFFER_SIZE, SECTOR_SIZE } from "./format.js";
import { indexAtLeast, type Marks } from "./marks.js";

const DEFAULT_KMSG_SIZE = 65536;

/** Bounds on what is weighed, so that the cost stays linear. Linux has at most 32768 zones. */
const MAX_MARKS = 8192;
const MAX_DISTANCES = 24;

interface Grid {
  kmsgSize: number;
  /** The start of a zone, all others are multiples of kmsgSize away; may be any zone's start. */
  start: number;
  score: number;
}

/** The remainder by `kmsgSize` that most marks have: marks of the true grid agree, others scatter. */
function commonRemainder(marks: Marks, kmsgSize: number): number {
  const votes = new Map<number, number>();
  let best = 0;
  let bestVotes = 0;
  for (const list of [marks.headers, marks.sealEnds]) {
    for (let index = 0; index < Math.min(list.length, MAX_MARKS); index++) {
      const remainder = (list[index] as number) % kmsgSize;
      const count = (votes.get(remainder) ?? 0) + 1;
      votes.set(remainder, count);
      if (count > bestVotes) {
        best = remainder;
        bestVotes = count;
      }
    }
  }
  return best;
}

/** The body of a record that was begun and has no header yet: it stands behind a first sector that is blank. */
function isBegun(area: Area, zone: number, end: number): boolean {
  // The last sector has the seal.
  if (zone < 0 || zone + 3 * SECTOR_SIZE > end) return false;
  const bytes = area.part(zone, zone + 2 * SECTOR_SIZE);
  const blank = bytes[0];
  if (blank !== 0 && blank !== 0xff) return false;
  const isOther = (byte: number) => byte !== blank;
  return !bytes.subarray(0, SECTOR_SIZE).some(isOther) && bytes.subarray(SECTOR_SIZE).some(isOther);
}

/**
 * How well a grid explains the marks:
 * - a header on the grid: 1 if its datalen fits a zone of this size, else -1; 4 more if its zone's seal
 *   proves it;
 * - a seal on the grid: 1, and 1 more if the body of a record without a header begins where its zone does;
 * - a mark off the grid, or in a zone that would not fit into the area: -1;
 * - a zone without a mark between two that have one: -1, as zones are filled in order and unlink leaves the
 *   header; but never so many that a stray mark far away could outweigh the zones explained.
 */
function scoreGrid(area: Area, marks: Marks, kmsgSize: number, start: number): number {
  let score = 0;
  const markedZones = new Set<number>();
  for (let index = 0; index < Math.min(marks.headers.length, MAX_MARKS); index++) {
    const header = marks.headers[index] as number;
    const zone = (header - start) / kmsgSize;
    if (!Number.isInteger(zone) || header + kmsgSize > area.size) {
      score--;
      continue;
    }
    markedZones.add(zone);
    const datalen = marks.datalens.get(header) as number;
    if (datalen < 0 || datalen > kmsgSize - PSZ_BUFFER_SIZE) {
      score--;
      continue;
    }
    score += marks.proved.get(header) === header + kmsgSize ? 5 : 1;
  }
  const provedEnds = new Set(marks.proved.values());
  for (let index = 0; index < Math.min(marks.sealEnds.length, MAX_MARKS); index++) {
    const end = marks.sealEnds[index] as number;
    const zone = (end - start) / kmsgSize - 1;
    if (!Number.isInteger(zone) || end < kmsgSize) {
      score--;
      continue;
    }
    markedZones.add(zone);
    score++;
    if (!provedEnds.has(end) && isBegun(area, end - kmsgSize, end)) score++;
  }
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (const zone of markedZones) {
    first = Math.min(first, zone);
    last = Math.max(last, zone);
  }
  const gaps = markedZones.size === 0 ? 0 : last - first + 1 - markedZones.size;
  return score - Math.min(gaps, Math.max(0, markedZones.size - 1));
}

function mostFrequent(counts: Map<number, number>): number[] {
  return [...counts]
    .sort((a, b) => b[1] - a[1] || a[0] - b[0])
    .slice(0, MAX_DISTANCES)
    .map(([value]) => value);
}

function candidateSizes(marks: Marks, largest: number): number[] {
  const betweenHeaders = new Map<number, number>();
  const toSeals = new Map<number, number>();
  const count = (counts: Map<number, number>, distance: number): void => {
    if (distance > 0) counts.set(distance, (counts.get(distance) ?? 0) + 1);
  };
  const { headers, sealEnds } = marks;
  for (let index = 1; index < Math.min(headers.length, MAX_MARKS); index++) {
    count(betweenHeaders, (headers[index] as number) - (headers[index - 1] as number));
  }
  for (let index = 0; index < Math.min(sealEnds.length, MAX_MARKS); index++) {
    const end = sealEnds[index] as number;
    const header = headers[indexAtLeast(headers, end) - 1];
    if (header !== undefined) count(toSeals, end - header);
    const previous = sealEnds[index - 1];
    if (previous !== undefined) count(toSeals, end - previous);
  }
  const sizes = new Set<number>([Math.min(DEFAULT_KMSG_SIZE, largest)]);
  for (let size = SECTOR_SIZE; size <= MAX_AREA_SIZE; size *= 2) sizes.add(size);
  for (const size of [...mostFrequent(betweenHeaders), ...mostFrequent(toSeals)]) sizes.add(size);
  for (const [header, end] of [...marks.proved].slice(0, MAX_DISTANCES)) sizes.add(end - header);
  return [...sizes].filter((size) => size >= SECTOR_SIZE && size <= largest);
}

/** The grid that explains the marks best; `fixedStart` null: zones may start anywhere. */
export function findGrid(
  area: Area,
  marks: Marks,
  explicitSize: number | undefined,
  fixedStart: number | null,
  from: number,
): Grid {
  const largest = Math.max(0, floorToSector(area.size - from));
  let best: Grid | null = null;
  const distanceToDefault = (size: number): number =>
    Math.max(size / DEFAULT_KMSG_SIZE, DEFAULT_KMSG_SIZE / size);
  const sizes = explicitSize === undefined ? candidateSizes(marks, largest) : [explicitSize];
  for (const kmsgSize of sizes) {
    if (kmsgSize < SECTOR_SIZE) continue;
    // Start 0 goes first: a grid that needs no blank ring in front of it wins a tie.
    const starts = fixedStart === null ? [0, commonRemainder(marks, kmsgSize)] : [fixedStart];
    for (const start of starts) {
      const score = scoreGrid(area, marks, kmsgSize, start);
      const isBetter =
        best === null ||
        score > best.score ||
        (score === best.score && distanceToDefault(kmsgSize) < distanceToDefault(best.kmsgSize));
      if (isBetter) best = { kmsgSize, start, score };
    }
  }
  return (
    best ?? {
      kmsgSize: explicitSize ?? Math.min(DEFAULT_KMSG_SIZE, largest),
      start: fixedStart ?? 0,
      score: 0,
    }
  );
}
