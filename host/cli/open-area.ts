// IMAGE and its pstore area, opened as the options say: for reading from anywhere, or for writing to a raw
// image. Must never hand out an area for writing in which the judge (host/image/judge.ts) found something foreign that
// would be written over, unless --force says so, and never say "no records" of what is no pstore area.
import { inflateRawSync } from "node:zlib";
import { MmcError } from "../errors.js";
import { type Area, findArea } from "../image/area.js";
import { type Image, openImage } from "../image/image.js";
import {
  adviceFor,
  areaStart,
  checkRaw,
  describeForeign,
  type Finding,
  judgeArea,
  knownAt,
  notRaw,
  whyNothing,
} from "../image/judge.js";
import { openRaw, type RawImage } from "../image/raw.js";
import { HEAD_BYTES, identifyForeign } from "../image/signatures.js";
import { type Decoded, decodeArea, decodeSource } from "../pstore/decode.js";
import { AREA_BYTES_MIN, checkImageOptions, type ImageOptions } from "./options.js";
import { makeProgress, type Progress } from "./progress.js";

/** An area with its bytes and what they say. */
export interface OpenedArea<T extends Image> {
  image: T;
  area: Area;
  bytes: Uint8Array;
  decoded: Decoded;
}

/** Runs `work` on an image opened for reading, and closes it. */
export async function withArea<R>(
  location: string,
  options: ImageOptions,
  work: (opened: OpenedArea<Image>) => Promise<R> | R,
): Promise<R> {
  checkImageOptions(options);
  const progress = makeProgress("reading");
  try {
    const image = await openImage(location, {
      timeoutMs: options.timeout,
      onProgress: progress.onProgress,
    });
    try {
      const opened = await readAreaLater(image, options, progress.onProgress);
      await checkIsArea(opened, options);
      progress.stop();
      return await work(opened);
    } finally {
      await image.close();
    }
  } finally {
    progress.stop();
  }
}

/**
 * What a command may write: `zones` any zone of the area, `area` each byte of it, `named` the zones that
 * {@link checkZones} is asked about; an area that nobody chose is judged as with `zones` all the same.
 */
export type WrittenRange = "zones" | "area" | "named";

/** Options of a command that writes. */
export type WritableOptions = ImageOptions & { force?: boolean };

/** Runs `work` on a raw image opened for writing, and closes it. */
export async function withWritableArea<R>(
  location: string,
  options: WritableOptions,
  range: WrittenRange,
  work: (opened: OpenedArea<RawImage>) => Promise<R> | R,
): Promise<R> {
  checkImageOptions(options);
  const image = openRaw(location, { writable: true });
  try {
    if (!options.force) await checkRaw(image);
    const opened = await readArea(image, options);
    if (!options.force) checkNotForeign(opened, options, range);
    return await work(opened);
  } finally {
    image.closeSync();
  }
}

/** @throws MmcError EMEDIUMTYPE the image is another container, or too small to be else than what it begins like */
async function checkIsNoContainer(image: Image, options: ImageOptions): Promise<void> {
  const isGiven = options.offset !== undefined || options.size !== undefined;
  // Whoever says where the area is may have found it in a container.
  if (!image.writable && !isGiven) await checkRaw(image, image.bytesFetched === 0);
  if (!isGiven && image.sizeBytes < AREA_BYTES_MIN) {
    const known = await knownAt(image);
    if (known !== null) throw notRaw(image.name, known);
  }
}

/** The area with its records; `options` are judged against its size. */
async function readArea<T extends Image>(image: T, options: ImageOptions): Promise<OpenedArea<T>> {
  const { partition, offset, size, abi } = options;
  await checkIsNoContainer(image, options);
  const area = await findArea(image, { partition, offset, size });
  checkGeometry(options, area.sizeBytes);
  const bytes = await image.read(area.offset, area.sizeBytes);
  const { kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus } = options;
  const decoded = decodeArea(bytes, { kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus, abi });
  return { image, area, bytes, decoded };
}

/**
 * As {@link readArea}, of which little is held: records are read again when somebody asks for their bytes, and the area
 * as a whole when somebody asks for that. What comes over HTTP is kept, because none of this can wait.
 */
async function readAreaLater(
  image: Image,
  options: ImageOptions,
  onProgress: Progress["onProgress"],
): Promise<OpenedArea<Image>> {
  const { partition, offset, size, abi } = options;
  await checkIsNoContainer(image, options);
  const area = await findArea(image, { partition, offset, size });
  checkGeometry(options, area.sizeBytes);
  const fetched = image.readSync ? null : await image.read(area.offset, area.sizeBytes);
  const read = (at: number, target: Uint8Array) => {
    if (fetched === null) image.readSync?.(area.offset + at, target);
    else target.set(fetched.subarray(at, at + target.length));
    onProgress(at + target.length, area.sizeBytes);
  };
  const { kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus } = options;
  const geometry = { kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus, abi };
  const decoded = decodeSource({ sizeBytes: area.sizeBytes, read }, geometry, inflateWhole);
  return {
    image,
    area,
    decoded,
    get bytes() {
      const bytes = fetched ?? new Uint8Array(area.sizeBytes);
      if (fetched === null) read(0, bytes);
      return bytes;
    },
  };
}

/** zlib takes no less. */
const CHUNK_BYTES_MIN = 64;

/** Node's zlib, which is several times as fast as ours. */
function inflateWhole(input: Uint8Array, limitBytes: number): Uint8Array | null {
  try {
    // One piece as large as the limit, of which only what is filled costs memory: pieces would be copied together.
    const chunkSize = Math.max(CHUNK_BYTES_MIN, limitBytes);
    const bytes = inflateRawSync(input, { maxOutputLength: limitBytes, chunkSize });
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  } catch {
    // Truncated, corrupt or too large: what of it can be had, the decoder's own inflater says.
    return null;
  }
}

/** Refuses zone sizes that do not fit into an area of `areaBytes`. */
export function checkGeometry(options: ImageOptions, areaBytes: number): void {
  const sizes = [
    ["--pmsg-size", options.pmsgSize],
    ["--console-size", options.consoleSize],
    ["--ftrace-size", options.ftraceSize],
    ["--kmsg-size", options.kmsgSize],
  ] as const;
  let sumBytes = 0;
  for (const [option, value] of sizes) {
    if (value === undefined) continue;
    if (value > areaBytes) {
      throw new MmcError("EINVAL", `${option} ${value}: is larger than the area (${areaBytes} bytes)`);
    }
    sumBytes += value;
    if (sumBytes > areaBytes) {
      throw new MmcError(
        "EINVAL",
        `${option} ${value}: does not fit, the sizes add up to ${sumBytes}, the area has ${areaBytes} bytes`,
      );
    }
  }
}

function isChosen({ area }: OpenedArea<Image>, options: ImageOptions): boolean {
  return options.offset !== undefined || options.size !== undefined || area.partition !== null;
}

/** What lies in the area, by the layout that the options give and by the one that its bytes have. */
function judge({ bytes, decoded }: OpenedArea<Image>, options: ImageOptions): Finding[] {
  const { kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus, abi } = options;
  const isGiven = [kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus, abi].some((one) => one !== undefined);
  return judgeArea(bytes, decoded, isGiven ? decodeArea(bytes) : decoded);
}

/** The words for an area that was taken for one because nobody said where it is. */
function whereItIs({ area, bytes }: OpenedArea<Image>): string {
  const start = areaStart(bytes, area.offset);
  return start > area.offset
    ? `a pstore area seems to begin at ${start}: say --offset ${start}`
    : "say where the area is with --offset or --partition";
}

/** @throws MmcError EUCLEAN something foreign would be written over */
function checkNotForeign(opened: OpenedArea<Image>, options: ImageOptions, range: WrittenRange): void {
  const chosen = isChosen(opened, options);
  if (range === "named" && chosen) return;
  const findings = judge(opened, options);
  const foreign = findings.filter(
    ({ kind, zone }) => kind === "foreign" && (range === "area" || zone !== null),
  );
  const [first] = foreign;
  if (first === undefined) return;
  const { image, area } = opened;
  const hasZones = findings.some(({ kind }) => kind === "zone" || kind === "unfinished");
  if (!chosen && first.known === null && !hasZones) {
    throw new MmcError(
      "EUCLEAN",
      `${image.name}: holds data but no pstore zone; say where the area is with --offset or --partition, ` +
        "--force overwrites it",
    );
  }
  const where = chosen ? "" : `; ${whereItIs(opened)}`;
  throw new MmcError(
    "EUCLEAN",
    `${image.name}: holds ${describeForeign(first, area.offset)}${where}; --force overwrites it`,
  );
}

/** Refuses to change zones of which one holds something foreign. @throws MmcError EUCLEAN */
export function checkZones(opened: OpenedArea<Image>, options: WritableOptions, offsets: Set<number>): void {
  if (options.force) return;
  const foreign = judge(opened, options).find(
    ({ kind, zone }) => kind === "foreign" && zone !== null && offsets.has(zone.offset),
  );
  if (foreign === undefined) return;
  throw new MmcError(
    "EUCLEAN",
    `${opened.image.name}: holds ${describeForeign(foreign, opened.area.offset)}; --force overwrites it`,
  );
}

/** @throws MmcError EMEDIUMTYPE, EUCLEAN it is something else; a blank area is an area */
async function checkIsArea(opened: OpenedArea<Image>, options: ImageOptions): Promise<void> {
  const { image, area, decoded } = opened;
  const head = isChosen(opened, options)
    ? null
    : await image.read(area.offset, Math.min(HEAD_BYTES, area.sizeBytes));
  const known = head === null ? null : identifyForeign(head);
  // Only what begins like something else has to be read whole to tell.
  const start = known === null ? 0 : areaStart(opened.bytes, 0);
  if (known !== null && start !== 0) {
    const what =
      start > 0
        ? `a pstore area seems to begin at ${start}: say --offset ${start}`
        : "it holds no pstore area";
    throw new MmcError(
      "EMEDIUMTYPE",
      `${image.name}: is ${known.what}; ${what}${start > 0 ? "" : adviceFor(known, image.name)}`,
    );
  }
  const { records, erased, remains } = decoded;
  if (records.length + erased.length + remains.length > 0) return;
  if (judge(opened, options).some(({ kind }) => kind === "zone" || kind === "unfinished")) return;
  const why = await whyNothing(image, area.offset, opened.bytes, "holds no pstore area");
  if (why !== null) throw why;
}
