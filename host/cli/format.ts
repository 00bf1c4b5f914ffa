// `mmcpstore format IMAGE --size 16M`: a new blank image, or with --wipe the pstore area of an old one
// blank. A blank area is all zero and complete: Linux writes nothing when it formats. Must never touch an
// old image outside its area, and never without --wipe.
import { ftruncateSync } from "node:fs";
import { dirname } from "node:path";
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import type { RawImage } from "../image/raw.js";
import { findGeometry, type Geometry, type ZoneInfo } from "../pstore/decode.js";
import { checkGeometry, type OpenedArea, type WritableOptions, withWritableArea } from "./open-area.js";
import { addAreaOptions, addForceOption, addGeometryOptions, imageHelp } from "./options.js";
import { color, counted, formatSize, UsageError, write } from "./output.js";
import { makeProgress } from "./progress.js";
import { cleanLeftovers, exists, makeWholeFile } from "./whole-file.js";

const IMAGE_GRANULE_BYTES = 4096;
/** What the simulated card's 32-bit sector numbers reach, rounded down. */
const IMAGE_BYTES_MAX = 2 ** 40;
const AREA_BYTES_MAX = 2 ** 27;
const DEFAULT_KMSG_BYTES = 65536;
const CHUNK_BYTES = 2 ** 20;
const SEAL_BYTES = 64;
/** Of both ABIs: what is behind i386's 40 goes with the header. */
const KMSG_HEADERS_BYTES = 52;
const RING_HEADER_BYTES = 12;
const KMSG_SIGNATURE = 0x43474244;
const KMSG_MAGIC = 0x4dfc3ae5;

type FormatOptions = WritableOptions & { wipe?: boolean };

function describeLayout(areaBytes: number, options: FormatOptions): string {
  const kmsgSize = options.kmsgSize ?? Math.min(DEFAULT_KMSG_BYTES, areaBytes);
  const { pmsgSize = 0, consoleSize = 0, ftraceSize = 0 } = options;
  const geometry: Geometry = findGeometry(new Uint8Array(areaBytes), {
    kmsgSize,
    pmsgSize,
    consoleSize,
    ftraceSize,
    cpus: options.cpus,
  });
  const rings = pmsgSize + consoleSize + ftraceSize;
  const zones = `${counted(geometry.kmsgCount, "kmsg zone")} of ${formatSize(kmsgSize)}`;
  const isDefault = kmsgSize === DEFAULT_KMSG_BYTES && rings === 0;
  return (
    `${zones}${rings > 0 ? ` behind ${formatSize(rings)} of rings` : ""}\n` +
    (isDefault ? "" : color.dim("a blank area does not state its sizes: give panic the same options\n"))
  );
}

async function makeImage(path: string, options: FormatOptions): Promise<void> {
  const { size } = options;
  for (const name of ["partition", "offset"] as const) {
    if (options[name] !== undefined) throw new UsageError(`--${name}: only with --wipe`);
  }
  if (size === undefined) throw new UsageError("--size: is needed for a new image, e.g. --size 16M");
  if (size % IMAGE_GRANULE_BYTES !== 0) {
    throw new UsageError(`--size ${size}: must be a multiple of ${IMAGE_GRANULE_BYTES}`);
  }
  if (size > IMAGE_BYTES_MAX) {
    throw new UsageError(`--size ${size}: must be at most ${IMAGE_BYTES_MAX}`);
  }
  const areaBytes = Math.min(size, AREA_BYTES_MAX);
  checkGeometry(
    { ...options, kmsgSize: options.kmsgSize ?? Math.min(DEFAULT_KMSG_BYTES, areaBytes) },
    areaBytes,
  );
  cleanLeftovers(dirname(path));
  if (exists(path)) {
    throw new MmcError("EEXIST", `${path}: exists already, --wipe clears its pstore area`);
  }
  makeWholeFile(path, (fd) => ftruncateSync(fd, size));
  await write(`${path}: ${formatSize(size)}, ${describeLayout(areaBytes, options)}`);
}

/** The bytes of a zone that say that it is one: its headers, and the seal at its end. */
function marksOf(zone: ZoneInfo): { headers: [number, number]; seal: [number, number] } {
  const { offset, size, type } = zone;
  const headersBytes = Math.min(size, type === "kmsg" ? KMSG_HEADERS_BYTES : RING_HEADER_BYTES);
  const sealBytes = type === "kmsg" ? Math.min(SEAL_BYTES, size - headersBytes) : 0;
  return { headers: [offset, offset + headersBytes], seal: [offset + size - sealBytes, offset + size] };
}

/**
 * Records first become removed ones, then their bytes go, then the seals, and the headers last: whatever it is cut at,
 * the area is one whose zones are ours, and the same command finishes. Blank pieces stay holes.
 */
function wipeArea({ image, area, bytes, decoded }: OpenedArea<RawImage>): void {
  const progress = makeProgress("wiping");
  const clear = (from: number, until: number) => {
    if (isZero(bytes, from, until)) return;
    bytes.fill(0, from, until);
    image.writeSync(area.offset + from, bytes.subarray(from, until));
  };
  const used = decoded.zones.filter(({ state }) => state !== "empty");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const hasHeader = ({ type, offset }: ZoneInfo) =>
    type !== "kmsg" ||
    view.getUint32(offset, true) === KMSG_SIGNATURE ||
    view.getUint32(offset + 12, true) === KMSG_MAGIC;
  const headed = used.filter(hasHeader);
  for (const { type, offset } of headed) clear(offset + 4, offset + (type === "kmsg" ? 8 : 12));
  image.syncSync();
  const kept = used.flatMap((zone) => {
    const { headers, seal } = marksOf(zone);
    return hasHeader(zone) ? [headers, seal] : [seal];
  });
  let at = 0;
  for (const [from, until] of [...kept, [bytes.length, bytes.length] as const]) {
    for (; at < from; at += CHUNK_BYTES) {
      clear(at, Math.min(from, at + CHUNK_BYTES));
      progress.onProgress(at, bytes.length);
    }
    at = until;
  }
  image.syncSync();
  for (const zone of used) clear(...marksOf(zone).seal);
  image.syncSync();
  for (const zone of headed) clear(...marksOf(zone).headers);
  image.syncSync();
  progress.stop();
}

function isZero(bytes: Uint8Array, from: number, until: number): boolean {
  for (let at = from; at < until; at++) if (bytes[at] !== 0) return false;
  return true;
}

async function format(path: string, options: FormatOptions): Promise<void> {
  if (/^https?:\/\//i.test(path)) throw new MmcError("EROFS", `${path}: an image behind HTTP is read-only`);
  if (!options.wipe) {
    await makeImage(path, options);
    return;
  }
  await withWritableArea(path, options, "area", async (opened) => {
    const { area } = opened;
    wipeArea(opened);
    const where = `${formatSize(area.sizeBytes)} at ${area.offset} wiped`;
    await write(`${path}: ${where}, ${describeLayout(area.sizeBytes, options)}`);
  });
}

export function addFormat(program: Command): void {
  const command = program
    .command("format")
    .summary("make a blank image, or wipe an area")
    .description(
      "Make a new blank image of --size bytes, or clear the pstore area of an old one with --wipe.",
    )
    .argument("<image>", "the image to make, or to wipe");
  addForceOption(
    addGeometryOptions(addAreaOptions(command, "bytes of the new image; with --wipe: of the area", 1)),
  )
    .option("--wipe", "clear the pstore area of an existing image: every record is lost")
    .addHelpText(
      "after",
      `${imageHelp(true)}
A new image is a sparse file and appears whole or not at all; an existing file is never replaced. Zone sizes
are checked and shown, but a blank area holds nothing that states them.

Examples:
  mmcpstore format disk.img --size 16M
  mmcpstore format disk.img --size 1M --kmsg-size 128K
  mmcpstore format disk.img --size 1M --console-size 64K --pmsg-size 64K
  mmcpstore format disk.img --wipe --partition pstore`,
    )
    .action(format);
}
