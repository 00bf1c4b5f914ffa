// `mmcpstore format IMAGE --size 16M`: a new blank image, or with --wipe the pstore area of an old one
// blank. A blank area is all zero and complete: Linux writes nothing when it formats. Must never touch an
// old image outside its area, and never without --wipe.
import { ftruncateSync } from "node:fs";
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import type { RawImage } from "../image/raw.js";
import { findGeometry, type Geometry } from "../pstore/decode.js";
import { checkGeometry, isBlank, type OpenedArea, withWritableArea } from "./open-area.js";
import { addAreaOptions, addGeometryOptions, type ImageOptions, imageHelp } from "./options.js";
import { color, counted, formatSize, UsageError, write } from "./output.js";
import { makeProgress } from "./progress.js";
import { exists, makeWholeFile } from "./whole-file.js";

const IMAGE_GRANULE_BYTES = 4096;
/** What the simulated card's 32-bit sector numbers reach, rounded down. */
const IMAGE_BYTES_MAX = 2 ** 40;
const AREA_BYTES_MAX = 2 ** 27;
const DEFAULT_KMSG_BYTES = 65536;
const CHUNK_BYTES = 2 ** 20;
const SECTOR_BYTES = 512;

type FormatOptions = ImageOptions & { wipe?: boolean };

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
  if (exists(path)) {
    throw new MmcError("EEXIST", `${path}: exists already, --wipe clears its pstore area`);
  }
  makeWholeFile(path, (fd) => ftruncateSync(fd, size));
  await write(`${path}: ${formatSize(size)}, ${describeLayout(areaBytes, options)}`);
}

/** Headers and seals first: without both a zone is empty whatever is between. Blank pieces stay holes. */
function wipeArea({ image, area, bytes, decoded }: OpenedArea<RawImage>): void {
  const progress = makeProgress("wiping");
  for (const zone of decoded.zones) {
    for (const offset of [zone.offset, zone.offset + Math.max(0, zone.size - SECTOR_BYTES)]) {
      const end = bytes.subarray(offset, offset + Math.min(SECTOR_BYTES, zone.size));
      if (!isZero(end)) image.writeSync(area.offset + offset, new Uint8Array(end.length));
    }
  }
  image.syncSync();
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    const chunk = bytes.subarray(at, at + CHUNK_BYTES);
    if (!isZero(chunk)) image.writeSync(area.offset + at, new Uint8Array(chunk.length));
    progress.onProgress(at + chunk.length, bytes.length);
  }
  image.syncSync();
  progress.stop();
}

function isZero(bytes: Uint8Array): boolean {
  return bytes[0] === 0 && isBlank(bytes);
}

async function format(path: string, options: FormatOptions): Promise<void> {
  if (/^https?:\/\//i.test(path)) throw new MmcError("EROFS", `${path}: an image behind HTTP is read-only`);
  if (!options.wipe) {
    await makeImage(path, options);
    return;
  }
  await withWritableArea(path, options, async (opened) => {
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
  addGeometryOptions(addAreaOptions(command, "bytes of the new image; with --wipe: of the area", 1))
    .option("--wipe", "clear the pstore area of an existing image: every record is lost")
    .addHelpText(
      "after",
      `${imageHelp(true)}
A new image is a sparse file and appears whole or not at all; an existing file is never replaced. Zone sizes
are checked and shown, but a blank area holds nothing that states them.

Examples:
  mmcpstore format new.img --size 16M
  mmcpstore format new.img --size 1M --kmsg-size 128K
  mmcpstore format new.img --size 1M --console-size 64K --pmsg-size 64K
  mmcpstore format disk.img --wipe --partition pstore`,
    )
    .action(format);
}
