// Partition tables as the tests put them on their images.
import { crc32 } from "node:zlib";

export interface GptEntry {
  name: string;
  /** First sector and number of sectors. */
  first: number;
  count: number;
  uuid?: string;
}

export interface GptOptions {
  sectorBytes?: number;
  entryBytes?: number;
  /** Entries in the array, used or not. */
  count?: number;
}

export const LINUX_TYPE = "0fc63daf-8483-4772-8e79-3d69d8477de4";

function guidBytes(guid: string): Uint8Array {
  const hex = Buffer.from(guid.replaceAll("-", ""), "hex");
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Uint8Array.from(order, (at) => hex[at] as number);
}

export function uuidOf(index: number): string {
  return `a1b2c3d4-1122-4333-8444-${(index + 1).toString(16).padStart(12, "0")}`;
}

/** A protective MBR and both GPTs, as sgdisk lays them out on a disk of this size: bytes by their offset. */
export function gptPieces(
  sizeBytes: number,
  entries: readonly GptEntry[],
  options: GptOptions = {},
): Map<number, Uint8Array> {
  const { sectorBytes = 512, entryBytes = 128, count = 128 } = options;
  const array = Buffer.alloc(Math.ceil((count * entryBytes) / sectorBytes) * sectorBytes);
  for (const [index, entry] of entries.entries()) {
    const at = index * entryBytes;
    array.set(guidBytes(LINUX_TYPE), at);
    array.set(guidBytes(entry.uuid ?? uuidOf(index)), at + 16);
    array.writeBigUInt64LE(BigInt(entry.first), at + 32);
    array.writeBigUInt64LE(BigInt(Math.max(entry.first + entry.count - 1, 0)), at + 40);
    array.write(entry.name, at + 56, 72, "utf16le");
  }
  const lastLba = sizeBytes / sectorBytes - 1;
  const arraySectors = array.length / sectorBytes;
  const header = (lba: number, other: number, entriesLba: number): Uint8Array => {
    const sector = Buffer.alloc(sectorBytes);
    sector.write("EFI PART", 0, "latin1");
    sector.writeUInt32LE(0x10000, 8);
    sector.writeUInt32LE(92, 12);
    sector.writeBigUInt64LE(BigInt(lba), 24);
    sector.writeBigUInt64LE(BigInt(other), 32);
    sector.writeBigUInt64LE(BigInt(2 + arraySectors), 40);
    sector.writeBigUInt64LE(BigInt(lastLba - 1 - arraySectors), 48);
    sector.writeBigUInt64LE(BigInt(entriesLba), 72);
    sector.writeUInt32LE(count, 80);
    sector.writeUInt32LE(entryBytes, 84);
    sector.writeUInt32LE(crc32(array.subarray(0, count * entryBytes)), 88);
    sector.writeUInt32LE(crc32(sector.subarray(0, 92)), 16);
    return sector;
  };
  const pieces = new Map<number, Uint8Array>();
  pieces.set(0, mbrSector([{ type: 0xee, first: 1, count: Math.min(lastLba, 0xffffffff) }]));
  pieces.set(sectorBytes, header(1, lastLba, 2));
  pieces.set(2 * sectorBytes, array);
  pieces.set((lastLba - arraySectors) * sectorBytes, array);
  pieces.set(lastLba * sectorBytes, header(lastLba, 1, lastLba - arraySectors));
  return pieces;
}

/** The first sector of a disk, or of an extended partition: up to four slots, in sectors. */
export function mbrSector(
  slots: readonly { type: number; first: number; count: number }[],
  diskId = 0,
): Buffer {
  const sector = Buffer.alloc(512);
  sector.writeUInt32LE(diskId, 0x1b8);
  for (const [index, slot] of slots.entries()) {
    const at = 0x1be + 16 * index;
    sector[at + 4] = slot.type;
    sector.writeUInt32LE(slot.first, at + 8);
    sector.writeUInt32LE(slot.count, at + 12);
  }
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}
