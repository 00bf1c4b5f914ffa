// Memory images with a minidump in them, made from the published layouts: the shared memory with its partition table,
// global partition and items, the three kinds of table, and the regions' bytes. Tags are written as the bytes that
// stand in memory. Knows nothing of the reader.

export interface ImageRegion {
  name: string | Uint8Array;
  sequence?: number;
  /** Four letters as they stand in memory; default ILAV. */
  valid?: string;
  address: bigint;
  /** Written where they belong, as far as that is in the image. */
  bytes?: Uint8Array;
  /** Default: that of the bytes. */
  lengthBytes?: bigint;
}

export interface ImageSubsystem {
  status?: number;
  enabled?: string;
  encryptionStatus?: string;
  encryptionRequired?: string;
  /** Default: that of the regions. */
  regionCount?: number;
  /** Of the array; default: a free place. */
  array?: bigint;
  regions: ImageRegion[];
}

export interface ImageOptions {
  sizeBytes?: number;
  status?: number;
  revision?: number;
  enabled?: number;
  /** By number of the subsystem; the others are all zero. */
  subsystems?: Record<number, ImageSubsystem>;
  subsystemCount?: number;
  /** Where item 602 is in its partition. */
  list?: "uncached" | "cached";
  /** Changes the image when it is done; offsets in PLACE. */
  edit?: (view: DataView) => void;
}

/** Physical address of the first byte. */
export const BASE = 0x80000000n;
/** Where things are in the image. */
export const PLACE = {
  smem: 0x10000,
  smemBytes: 0x8000,
  /** Of the boot loader: version[7]. */
  version: 0x10000 + 92,
  partition: 0x10000 + 0x4000,
  partitionBytes: 0x2000,
  table: 0x10000 + 0x7000,
  /** Of the global partition in the table: the second entry. */
  tableEntry: 0x17000 + 32 + 48,
  info: 0x17000 + 32 + 2 * 48,
  arrays: 0x20000,
  /** Entry header of item 602 in the uncached list: behind 16 + 4 + 24 bytes of item 500. */
  entry: 0x14000 + 32 + 44,
  /** The global ToC in the uncached list, behind its header and 8 bytes of padding. */
  toc: 0x14000 + 32 + 44 + 24,
};
const CACHELINE_BYTES = 64;

function put(view: DataView, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) view.setUint8(at + i, text.charCodeAt(i));
}

function putEntry(view: DataView, at: number, item: number, sizeBytes: number, data: number, header: number) {
  view.setUint16(at, 0xa5a5, true);
  view.setUint16(at + 2, item, true);
  view.setUint32(at + 4, sizeBytes, true);
  view.setUint16(at + 8, data, true);
  view.setUint16(at + 10, header, true);
}

/** Puts the SMEM there; returns where item 602 of `sizeBytes` bytes is. */
function putSmem(view: DataView, sizeBytes: number, list: "uncached" | "cached"): number {
  const { smem, smemBytes, version, partition, partitionBytes, table, tableEntry, info, toc } = PLACE;
  view.setUint32(version, 12 << 16, true);
  put(view, table, "$TOC");
  view.setUint32(table + 4, 1, true);
  view.setUint32(table + 8, 2, true);
  // A private partition of hosts 0 and 1 first.
  for (const [at, offset, size, host0, host1] of [
    [table + 32, 0x6000, 0x1000, 0, 1],
    [tableEntry, partition - smem, partitionBytes, 0xfffe, 0xfffe],
  ] as const) {
    view.setUint32(at, offset, true);
    view.setUint32(at + 4, size, true);
    view.setUint16(at + 12, host0, true);
    view.setUint16(at + 14, host1, true);
    view.setUint32(at + 16, CACHELINE_BYTES, true);
  }
  put(view, info, "SIII");
  view.setUint32(info + 4, smemBytes, true);
  view.setUint32(info + 8, Number(BASE) + smem, true);
  view.setUint16(info + 16, 1024, true);
  put(view, partition, "$PRT");
  view.setUint16(partition + 4, 0xfffe, true);
  view.setUint16(partition + 6, 0xfffe, true);
  view.setUint32(partition + 8, partitionBytes, true);
  putEntry(view, partition + 32, 500, 24, 3, 4);
  const padded = Math.ceil(sizeBytes / 8) * 8;
  let cachedFrom = partition + partitionBytes;
  let at = toc;
  if (list === "uncached") {
    putEntry(view, PLACE.entry, 602, padded, padded - sizeBytes, 8);
    view.setUint32(partition + 12, toc + padded - partition, true);
  } else {
    view.setUint32(partition + 12, PLACE.entry - partition, true);
    for (const [item, size, padding] of [
      [501, 16, 0],
      [602, padded, padded - sizeBytes],
    ] as const) {
      putEntry(view, cachedFrom - CACHELINE_BYTES, item, size, padding, 0);
      cachedFrom -= CACHELINE_BYTES + size;
    }
    at = cachedFrom;
  }
  view.setUint32(partition + 16, cachedFrom - partition, true);
  return at;
}

function putRegion(view: DataView, at: number, region: ImageRegion): void {
  const { name, sequence = 0, valid = "ILAV", address, bytes = new Uint8Array(0) } = region;
  const image = new Uint8Array(view.buffer);
  image.set(typeof name === "string" ? new TextEncoder().encode(name) : name, at);
  view.setUint32(at + 16, sequence, true);
  put(view, at + 20, valid);
  view.setBigUint64(at + 24, address, true);
  view.setBigUint64(at + 32, region.lengthBytes ?? BigInt(bytes.length), true);
  const offset = Number(address - BASE);
  if (bytes.length > 0) image.set(bytes.subarray(0, Math.max(0, image.length - offset)), offset);
}

export function minidumpImage(options: ImageOptions = {}): Uint8Array {
  const { subsystems = {}, subsystemCount = 10 } = options;
  const image = new Uint8Array(options.sizeBytes ?? 0x40000);
  const view = new DataView(image.buffer);
  const toc = putSmem(view, 16 + 32 * subsystemCount, options.list ?? "uncached");
  view.setUint32(toc, options.status ?? 1, true);
  view.setUint32(toc + 4, options.revision ?? 1, true);
  view.setUint32(toc + 8, options.enabled ?? 1, true);
  let free = PLACE.arrays;
  for (const [index, subsystem] of Object.entries(subsystems)) {
    const at = toc + 16 + 32 * Number(index);
    const array = subsystem.array ?? BASE + BigInt(free);
    view.setUint32(at, subsystem.status ?? 1, true);
    put(view, at + 4, subsystem.enabled ?? "LBNE");
    put(view, at + 8, subsystem.encryptionStatus ?? "ENOD");
    put(view, at + 12, subsystem.encryptionRequired ?? "RN");
    view.setUint32(at + 16, subsystem.regionCount ?? subsystem.regions.length, true);
    view.setBigUint64(at + 24, array, true);
    if (subsystem.array === undefined) {
      for (const region of subsystem.regions) {
        putRegion(view, free, region);
        free += 40;
      }
    }
  }
  options.edit?.(view);
  return image;
}
