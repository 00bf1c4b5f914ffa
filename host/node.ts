// mmcpstore/node: the package for Node: images in files and behind HTTP, the core's binaries, and a simulated
// card on a raw image file. Must never let a byte outside the pstore area and the dump area reach that file: whatever
// else the card is told to store lives in memory and is gone with the device.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FTRACE_CPUS_MAX, RING_BYTES_MAX } from "../assembly/layout.js";
import type { ExternalMedium } from "./core/external-medium.js";
import { Device } from "./device.js";
import { CARD_GRANULE_BYTES, type DeviceOptions, type PanicArea } from "./device-options.js";
import { DEVICE_OPTIONS } from "./device-shapes.js";
import { dumpBackOffset } from "./dump/dump-area.js";
import { OverlayMedium } from "./embed/overlay.js";
import { MmcError } from "./errors.js";
import { fileError } from "./image/file-error.js";
import type { RawImage } from "./image/raw.js";
import { judge } from "./judge.js";
import type { Geometry } from "./pstore/decode.js";

export { type Area, type AreaOptions, findArea } from "./image/area.js";
export { type Image, type ImageOptions, openImage } from "./image/image.js";
export {
  findPartition,
  listPartitions,
  type Partition,
  type PartitionTable,
  readPartitions,
  readPartitionTable,
} from "./image/partitions.js";

export { openRaw, RawImage, type RawOptions } from "./image/raw.js";
export * from "./index.js";

const SECTOR_BYTES = 512;

/** The binaries that a Node program needs: a medium in the machine's memory, or behind two calls, or for emulators. */
export type CoreTarget = "release" | "external" | "embed";

const modules = new Map<CoreTarget, WebAssembly.Module>();

/**
 * The compiled core; the same object each time, because the rehearsal of the panic path belongs to it.
 * @throws MmcError ENOENT when the file is not there: the package was not built.
 */
export function loadCore(target: CoreTarget): WebAssembly.Module {
  const known = modules.get(target);
  if (known !== undefined) return known;
  const path = fileURLToPath(new URL(`../core/${target}.wasm`, import.meta.url));
  let binary: Buffer;
  try {
    binary = readFileSync(path);
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ENOENT") throw fileError(path, error);
    throw new MmcError("ENOENT", `${path}: the core is not there, npm run build makes it`, { cause: error });
  }
  const module = new WebAssembly.Module(new Uint8Array(binary));
  modules.set(target, module);
  return module;
}

/** A pstore area of an image with its layout; offset and size in bytes, multiples of 512. */
export interface ImageArea {
  offset: number;
  sizeBytes: number;
  /** What decodeArea() or findGeometry() said of it. */
  geometry: Geometry;
}

/** As for every device; `sizeBytes` (default: the image's) may only be larger than the image. */
export type ImageDeviceOptions = Omit<DeviceOptions, "content" | "area" | "bootBytes">;

const { content: _content, area: _area, bootBytes: _bootBytes, ...IMAGE_DEVICE_OPTIONS } = DEVICE_OPTIONS;
const { sizeBytes: _sizeBytes, gpBytes: _gpBytes, ...DISK_DEVICE_OPTIONS } = IMAGE_DEVICE_OPTIONS;

/** A simulated card whose medium is an image file. */
export interface ImageDevice {
  device: Device;
  /** Where panics write: bytes from the start of the image, which is the start of the card. */
  panicArea: PanicArea;
  /** How many sectors were stored, or erased, in memory instead of in the file. */
  overlaySectors(): number;
}

/**
 * Where panics write on an image. Its rings are left out where the core cannot write them: not in whole sectors, or
 * more than its memory has room for.
 * @throws MmcError ENOSPC no kmsg zone fits; EOPNOTSUPP zones that the core cannot write: not on sectors.
 */
export function panicAreaOf(name: string, area: ImageArea): PanicArea {
  const { geometry } = area;
  const offset = area.offset + geometry.kmsgOffset;
  if (geometry.kmsgCount < 1) {
    throw new MmcError("ENOSPC", `${name}: no kmsg zone fits into the area of ${area.sizeBytes} bytes`);
  }
  if (offset % SECTOR_BYTES !== 0 || geometry.kmsgSize % SECTOR_BYTES !== 0) {
    throw new MmcError("EOPNOTSUPP", `${name}: the kmsg zones at ${offset} do not start on whole sectors`);
  }
  if (geometry.kmsgSize < 2 * SECTOR_BYTES) {
    throw new MmcError("EOPNOTSUPP", `${name}: zones of ${geometry.kmsgSize} bytes are too small to write`);
  }
  const { kmsgSize, kmsgCount, pmsgSize, consoleSize, ftraceSize, cpus, abi } = geometry;
  const ringBytes = pmsgSize + consoleSize + ftraceSize;
  const isWritable =
    ringBytes > 0 &&
    ringBytes === geometry.kmsgOffset &&
    ringBytes <= RING_BYTES_MAX &&
    ftraceSize % (Math.max(1, cpus) * SECTOR_BYTES) === 0 &&
    cpus <= FTRACE_CPUS_MAX;
  if (!isWritable) return { offset, kmsgSize, kmsgCount, abi };
  return { offset, kmsgSize, kmsgCount, abi, pmsgSize, consoleSize, ftraceSize, cpus: Math.max(1, cpus) };
}

/** Bytes from the start of the card. */
function ringHeaderOffsets(area: PanicArea): Set<number> {
  const { pmsgSize = 0, consoleSize = 0, ftraceSize = 0, cpus = 1 } = area;
  let at = area.offset - pmsgSize - consoleSize - ftraceSize;
  const offsets = new Set<number>();
  for (const size of [pmsgSize, consoleSize, ...new Array<number>(cpus).fill(ftraceSize / cpus)]) {
    if (size > 0) offsets.add(at);
    at += size;
  }
  return offsets;
}

/** What devices write of each image, until that is closed. */
const attached = new WeakMap<RawImage, { offset: number; sizeBytes: number }[]>();

/** @throws MmcError EBUSY another device writes there: neither would see what the other does */
function attach(image: RawImage, offset: number, sizeBytes: number): void {
  const ranges = attached.get(image) ?? [];
  const taken = ranges.find(
    (range) => offset < range.offset + range.sizeBytes && range.offset < offset + sizeBytes,
  );
  if (taken !== undefined) {
    throw new MmcError("EBUSY", `${image.name}: a device writes to the area at ${taken.offset} already`);
  }
  attached.set(image, [...ranges, { offset, sizeBytes }]);
}

/**
 * A device on a raw image. Its card begins with the image and is rounded up to 512 KiB; sectors beyond the
 * image read as zero. Reads come from the file. Of the writes only those inside `area` and `options.dump.area` go
 * there; all others stay in memory. Header sectors of zones and dumps are written between two fdatasync, so an
 * interrupted run leaves what a power cut leaves. `image` stays the caller's to close.
 *
 * An error of the file reaches the core as a sector that cannot be read or programmed;
 * `device.takeMediumFailure()` has the error itself.
 * @throws MmcError EINVAL no area or card of this image; EBUSY a device of this process writes there already; as
 * {@link panicAreaOf}
 */
export function openImageDevice(
  image: RawImage,
  area: ImageArea,
  given: ImageDeviceOptions = {},
): ImageDevice {
  const options = judge<ImageDeviceOptions>("", given, IMAGE_DEVICE_OPTIONS);
  const panicArea = panicAreaOf(image.name, area);
  const areaEnd = area.offset + area.sizeBytes;
  if (area.offset % SECTOR_BYTES !== 0 || area.sizeBytes % SECTOR_BYTES !== 0 || areaEnd > image.sizeBytes) {
    throw new MmcError(
      "EINVAL",
      `${image.name}: ${area.sizeBytes} bytes at ${area.offset} are no area of it`,
    );
  }
  const sizeBytes = options.sizeBytes ?? image.sizeBytes;
  if (sizeBytes < image.sizeBytes) {
    throw new MmcError("EINVAL", `sizeBytes: ${sizeBytes} is less than ${image.name} has`);
  }
  // What the card stores outside of both areas.
  const overlay = new OverlayMedium({
    sizeBytes: image.sizeBytes,
    read: (at, target) => image.readSync(at, target),
  });
  const dumpArea = options.dump?.area;
  if (dumpArea && dumpArea.offset + dumpArea.sizeBytes > image.sizeBytes) {
    throw new MmcError(
      "EINVAL",
      `${image.name}: a dump area of ${dumpArea.sizeBytes} bytes at ${dumpArea.offset} reaches beyond its end`,
    );
  }
  if (dumpArea && dumpArea.offset < areaEnd && area.offset < dumpArea.offset + dumpArea.sizeBytes) {
    throw new MmcError(
      "EINVAL",
      `${image.name}: the dump area at ${dumpArea.offset} overlaps the pstore area, ` +
        `which is ${area.sizeBytes} bytes at ${area.offset}`,
    );
  }
  const isInDumpArea = (offset: number) =>
    dumpArea !== undefined &&
    offset >= dumpArea.offset &&
    offset + SECTOR_BYTES <= dumpArea.offset + dumpArea.sizeBytes;
  const isInArea = (offset: number) =>
    (offset >= area.offset && offset + SECTOR_BYTES <= areaEnd) || isInDumpArea(offset);
  const ringHeaders = ringHeaderOffsets(panicArea);
  const isHeader = (offset: number) => {
    if (ringHeaders.has(offset)) return true;
    if (dumpArea && isInDumpArea(offset)) {
      const at = offset - dumpArea.offset;
      return at === 0 || at === dumpBackOffset(dumpArea.sizeBytes);
    }
    const inside = offset - panicArea.offset;
    return (
      inside >= 0 &&
      inside < panicArea.kmsgSize * panicArea.kmsgCount &&
      inside % panicArea.kmsgSize < SECTOR_BYTES
    );
  };
  /** Calls `call` for each part of a range that is all in the areas and no header, a header's sector, or outside. */
  const eachRun = (
    offset: number,
    lengthBytes: number,
    call: (offset: number, lengthBytes: number, where: "file" | "header" | "overlay") => void,
  ) => {
    const whereIs = (at: number) => (!isInArea(at) ? "overlay" : isHeader(at) ? "header" : "file");
    const end = offset + lengthBytes;
    for (let at = offset; at < end; ) {
      const where = whereIs(at);
      let until = at + SECTOR_BYTES;
      if (where === "overlay") until = nextAreaBehind(at, end);
      else if (where === "file") while (until < end && whereIs(until) === where) until += SECTOR_BYTES;
      call(at, until - at, where);
      at = until;
    }
  };
  /** The first sector behind `at`, up to `end`, that is in an area. */
  const nextAreaBehind = (at: number, end: number) => {
    const starts = [area.offset, dumpArea?.offset ?? end].filter((start) => start > at);
    return Math.min(end, ...starts);
  };
  const toFile = (where: "file" | "header", write: () => void) => {
    if (where === "header") image.syncSync();
    write();
    if (where === "header") image.syncSync();
  };
  const medium: ExternalMedium = {
    sizeBytes,
    read: (offset, target) => overlay.read(offset, target),
    write: (offset, data) =>
      eachRun(offset, data.length, (at, lengthBytes, where) => {
        const part = data.subarray(at - offset, at - offset + lengthBytes);
        if (where === "overlay") overlay.write(at, part);
        else toFile(where, () => image.writeSync(at, part));
      }),
    erase: (offset, lengthBytes, byte) =>
      eachRun(offset, lengthBytes, (at, partBytes, where) => {
        if (where === "overlay") overlay.erase(at, partBytes, byte);
        else toFile(where, () => image.eraseSync(at, partBytes, byte));
      }),
  };
  const device = Device.openExternal(loadCore("external"), medium, {
    ...options,
    sizeBytes,
    area: panicArea,
  });
  attach(image, area.offset, area.sizeBytes);
  return { device, panicArea, overlaySectors: () => overlay.dirtySectors };
}

/** As for every device; the image says the size. */
export type DiskDeviceOptions = Omit<
  DeviceOptions,
  "content" | "sizeBytes" | "bootBytes" | "gpBytes" | "area"
>;

/** @throws MmcError EINVAL, EROFS as {@link openDiskDevice} */
export function checkDisk(image: RawImage): void {
  if (image.sizeBytes % CARD_GRANULE_BYTES !== 0) {
    throw new MmcError("EINVAL", `${image.name}: ${image.sizeBytes} bytes; a card is a multiple of 512 KiB`);
  }
  if (!image.writable) throw new MmcError("EROFS", `${image.name}: was opened for reading only`);
}

/**
 * A device whose card is an image file, all of it, for an emulator's guest: what the card has stored is in the file,
 * so a process that is killed leaves what a power cut leaves. `area` is where panics write, if anywhere. `image`,
 * opened for writing, stays the caller's to sync and to close; its errors reach the guest as sectors that fail, and the
 * caller by `device.takeMediumFailure()`.
 * @throws MmcError EINVAL a size that no card has; EROFS not opened for writing; EBUSY another device of this
 * process writes to it; as {@link panicAreaOf}
 */
export function openDiskDevice(
  image: RawImage,
  area: ImageArea | null = null,
  given: DiskDeviceOptions = {},
): Device {
  const options = judge<DiskDeviceOptions>("", given, DISK_DEVICE_OPTIONS);
  checkDisk(image);
  const medium: ExternalMedium = {
    sizeBytes: image.sizeBytes,
    read: (offset, target) => image.readSync(offset, target),
    write: (offset, data) => image.writeSync(offset, data),
    erase: (offset, lengthBytes, byte) => image.eraseSync(offset, lengthBytes, byte),
  };
  const panicArea = area === null ? undefined : panicAreaOf(image.name, area);
  const device = Device.openExternal(loadCore("embed"), medium, { ...options, area: panicArea });
  attach(image, 0, image.sizeBytes);
  return device;
}
