// IMAGE and its pstore area, opened as the options say: for reading from anywhere, or for writing to a raw
// image. Must never hand out an area for writing that nobody chose and that holds something else than zones:
// without a partition table the whole image is the area, and it could be somebody's file system.
import { inflateRawSync } from "node:zlib";
import { MmcError } from "../errors.js";
import { type Area, findArea } from "../image/area.js";
import { type Image, openImage } from "../image/image.js";
import { openRaw, type RawImage } from "../image/raw.js";
import { type Decoded, decodeArea, decodeSource } from "../pstore/decode.js";
import { checkImageOptions, type ImageOptions } from "./options.js";
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
      progress.stop();
      return await work(opened);
    } finally {
      await image.close();
    }
  } finally {
    progress.stop();
  }
}

/** Runs `work` on a raw image opened for writing, and closes it. */
export async function withWritableArea<R>(
  location: string,
  options: ImageOptions,
  work: (opened: OpenedArea<RawImage>) => Promise<R> | R,
): Promise<R> {
  checkImageOptions(options);
  const image = openRaw(location, { writable: true });
  try {
    const opened = await readArea(image, options);
    checkNotForeign(opened, options);
    return await work(opened);
  } finally {
    image.closeSync();
  }
}

/** The area with its records; `options` are judged against its size. */
async function readArea<T extends Image>(image: T, options: ImageOptions): Promise<OpenedArea<T>> {
  const { partition, offset, size, abi } = options;
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

function checkNotForeign({ image, area, bytes, decoded }: OpenedArea<Image>, options: ImageOptions): void {
  const isChosen = options.offset !== undefined || options.size !== undefined || area.partition !== null;
  const holdsZone = decoded.geometry.found || decoded.zones.some((zone) => zone.state !== "empty");
  if (isChosen || holdsZone || isBlank(bytes)) return;
  throw new MmcError(
    "EUCLEAN",
    `${image.name}: holds data but no pstore zone; say where the area is with --offset or --partition`,
  );
}

/** All zeros, or all ones as erased flash has it. */
export function isBlank(bytes: Uint8Array): boolean {
  const first = bytes[0];
  if (first !== 0 && first !== 0xff) return bytes.length === 0;
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return all.subarray(1).equals(all.subarray(0, -1));
}
