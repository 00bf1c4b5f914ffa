// A GUID partition table for an image that this project makes: a protective MBR, the table, and its copy at the end, as
// UEFI 2.10, section 5, has them. Sectors of 512 bytes, 128 entries of 128 bytes.
import { crc32 } from "../image/partitions.js";

export interface GptPartition {
  /** At most 36 UTF-16 units. */
  name: string;
  /** In bytes, multiples of 512, behind the first 17,408 bytes and before the last 16,896. */
  offset: number;
  sizeBytes: number;
}

const SECTOR_BYTES = 512;
const ENTRY_BYTES = 128;
const ENTRIES = 128;
const ARRAY_SECTORS = (ENTRY_BYTES * ENTRIES) / SECTOR_BYTES;
const HEADER_BYTES = 92;
/** Linux file system data, 0fc63daf-8483-4772-8e79-3d69d8477de4, as its bytes stand on the disk. */
const LINUX_DATA = [
  0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];

function entryArray(partitions: readonly GptPartition[]): Uint8Array {
  const array = new Uint8Array(ENTRY_BYTES * ENTRIES);
  const view = new DataView(array.buffer);
  for (const [index, { name, offset, sizeBytes }] of partitions.entries()) {
    const at = index * ENTRY_BYTES;
    array.set(LINUX_DATA, at);
    // PARTUUID 01000000-0000-4000-8000-000000000000 and so on: version 4, and the same in each run.
    array.set([index + 1, 0, 0, 0, 0, 0, 0, 0x40, 0x80], at + 16);
    view.setBigUint64(at + 32, BigInt(offset / SECTOR_BYTES), true);
    view.setBigUint64(at + 40, BigInt((offset + sizeBytes) / SECTOR_BYTES - 1), true);
    for (let i = 0; i < name.length; i++) view.setUint16(at + 56 + 2 * i, name.charCodeAt(i), true);
  }
  return array;
}

function header(
  lba: number,
  otherLba: number,
  arrayLba: number,
  lastLba: number,
  arrayCrc: number,
): Uint8Array {
  const sector = new Uint8Array(SECTOR_BYTES);
  const view = new DataView(sector.buffer);
  sector.set(new TextEncoder().encode("EFI PART"));
  view.setUint32(8, 0x10000, true);
  view.setUint32(12, HEADER_BYTES, true);
  for (const [at, value] of [
    [24, lba],
    [32, otherLba],
    [40, 2 + ARRAY_SECTORS],
    [48, lastLba - 1 - ARRAY_SECTORS],
    [72, arrayLba],
  ] as const)
    view.setBigUint64(at, BigInt(value), true);
  sector.set([0x70, 0x73, 0x74, 0x6f, 0x72, 0x65, 0, 0x40, 0x80], 56);
  view.setUint32(80, ENTRIES, true);
  view.setUint32(84, ENTRY_BYTES, true);
  view.setUint32(88, arrayCrc, true);
  view.setUint32(16, crc32(sector.subarray(0, HEADER_BYTES)), true);
  return sector;
}

/** Writes the tables into `image`, whose length is a multiple of 512. */
export function putGpt(image: Uint8Array, partitions: readonly GptPartition[]): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const lastLba = image.length / SECTOR_BYTES - 1;
  image[0x1be + 4] = 0xee;
  view.setUint32(0x1be + 8, 1, true);
  view.setUint32(0x1be + 12, lastLba, true);
  view.setUint16(510, 0xaa55, true);
  const array = entryArray(partitions);
  const copyLba = lastLba - ARRAY_SECTORS;
  image.set(array, 2 * SECTOR_BYTES);
  image.set(array, copyLba * SECTOR_BYTES);
  image.set(header(1, lastLba, 2, lastLba, crc32(array)), SECTOR_BYTES);
  image.set(header(lastLba, 1, copyLba, lastLba, crc32(array)), lastLba * SECTOR_BYTES);
}
