// What stands where in an area: the numbers of docs/FORMAT.md, and the single structures read from their bytes, kmsg
// header, ring and seal. The oracle's own copy of them: it must never import from assembly/, not even a constant.
import { ownBytes } from "../own-bytes.js";
import { type Area, crc32cOf, memoryArea } from "./area-view.js";
import { crc32c } from "./crc32c.js";

/** The two layouts of the kmsg header; 32-bit arm writes `lp64` too. */
export type Abi = "lp64" | "i386";

export const SECTOR_SIZE = 512;
/** Linux looks at no more. */
export const MAX_AREA_SIZE = 134_217_728;

export const PSZ_SIG_KMSG = 0x43474244;
export const RING_SIGNATURES = { pmsg: 0x43474243, console: 0x43474246, ftrace: 0x43474247 } as const;
export const PSZ_KMSG_HEADER_MAGIC = 0x4dfc3ae5;
export const PSZ_BUFFER_SIZE = 12;
export const KMSG_HEADER_SIZES = { lp64: 40, i386: 28 } as const;

export type RingType = keyof typeof RING_SIGNATURES;

export const SEAL_SIZE = 64;
const SEAL_MAGIC = 0x53434d4d;
const SEAL_VERSION = 1;

export type { Area } from "./area-view.js";

export function openArea(bytes: Uint8Array): Area {
  return memoryArea(bytes, MAX_AREA_SIZE);
}

export function floorToSector(bytes: number): number {
  return Math.floor(bytes / SECTOR_SIZE) * SECTOR_SIZE;
}

export function ceilToSector(bytes: number): number {
  return Math.ceil(bytes / SECTOR_SIZE) * SECTOR_SIZE;
}

interface KmsgHeader {
  compressed: boolean;
  counter: number;
  reason: number;
  timeSec: bigint;
  timeNsec: number;
}

export interface Seal {
  sequence: bigint;
  datalen: number;
  recordCrc: number;
  part: number;
  olderBytes: number;
  first: bigint;
  lineBytes: number;
}

/** The seal that ends at `end`, if one stands there. */
export function readSeal(area: Area, end: number): Seal | null {
  const at = end - SEAL_SIZE;
  if (at < 0 || end > area.size) return null;
  if (area.view.getUint32(at, true) !== SEAL_MAGIC) return null;
  if (area.view.getUint32(at + 4, true) !== SEAL_VERSION) return null;
  if (area.view.getUint32(at + 60, true) !== crc32cOf(area, at, at + 60)) return null;
  return {
    sequence: area.view.getBigUint64(at + 8, true),
    datalen: area.view.getUint32(at + 16, true),
    recordCrc: area.view.getUint32(at + 20, true),
    part: area.view.getUint32(at + 24, true),
    olderBytes: area.view.getUint32(at + 28, true),
    first: area.view.getBigUint64(at + 32, true),
    lineBytes: area.view.getUint32(at + 56, true),
  };
}

/** Signature and magic of a kmsg zone. */
export function isKmsgZone(area: Area, offset: number): boolean {
  if (offset < 0 || offset + 16 > area.size) return false;
  return (
    area.view.getUint32(offset, true) === PSZ_SIG_KMSG &&
    area.view.getUint32(offset + 12, true) === PSZ_KMSG_HEADER_MAGIC
  );
}

/** Signature of a ring with numbers that fit each other; whether they fit the zone is not known here. */
export function isRing(area: Area, offset: number, type: RingType): boolean {
  if (offset + PSZ_BUFFER_SIZE > area.size) return false;
  if (area.view.getUint32(offset, true) !== RING_SIGNATURES[type]) return false;
  const datalen = area.view.getInt32(offset + 4, true);
  const start = area.view.getInt32(offset + 8, true);
  return start >= 0 && start <= datalen && offset + PSZ_BUFFER_SIZE + datalen <= area.size;
}

export function isNsec(value: bigint | number): boolean {
  return value >= 0 && value <= 999_999_999;
}

/** The only ABI that a zone with a right magic can have, or null if it fits both or neither. */
export function abiOfZone(area: Area, zone: number): Abi | null {
  if (zone + 52 > area.size) return null;
  const { view } = area;
  const lp64 =
    view.getUint32(zone + 16, true) === 0 &&
    isNsec(view.getBigInt64(zone + 28, true)) &&
    view.getUint32(zone + 48, true) === 0;
  const i386 = isNsec(view.getInt32(zone + 24, true)) && (view.getUint32(zone + 28, true) & 0xffffff00) === 0;
  if (lp64 === i386) return null;
  return lp64 ? "lp64" : "i386";
}

export function readKmsgHeader({ view }: Area, zone: number, abi: Abi): KmsgHeader {
  return abi === "lp64"
    ? {
        timeSec: view.getBigInt64(zone + 20, true),
        timeNsec: Number(view.getBigInt64(zone + 28, true)),
        compressed: view.getUint8(zone + 36) !== 0,
        counter: view.getUint32(zone + 40, true),
        reason: view.getUint32(zone + 44, true),
      }
    : {
        timeSec: view.getBigInt64(zone + 16, true),
        timeNsec: view.getInt32(zone + 24, true),
        compressed: view.getUint8(zone + 28) !== 0,
        counter: view.getUint32(zone + 32, true),
        reason: view.getUint32(zone + 36, true),
      };
}

/** Whether a range holds a byte that is neither 0x00 nor, as in erased flash and Linux's rings, 0xff. */
export function hasBytes(area: Area, from: number, until: number): boolean {
  for (let at = from; at < until; at += SECTOR_SIZE) {
    const part = area.part(at, Math.min(at + SECTOR_SIZE, until));
    if (part.some((byte) => byte !== 0 && byte !== 0xff)) return true;
  }
  return false;
}

/** CRC-32C of a record of `datalen` with its first 16 bytes as they must be: signature, datalen, start 0, magic. */
export function mendedRecordCrc(area: Area, offset: number, datalen: number): number {
  const mended = ownBytes(area.part(offset, offset + PSZ_BUFFER_SIZE + datalen));
  const view = new DataView(mended.buffer);
  view.setUint32(0, PSZ_SIG_KMSG, true);
  view.setInt32(4, datalen, true);
  view.setInt32(8, 0, true);
  view.setUint32(12, PSZ_KMSG_HEADER_MAGIC, true);
  return crc32c(mended);
}
