// The packets of the Sahara protocol: numbers, names, lengths, and the memory table. Everything is little-endian. A
// packet begins with u32 command and u32 length, which counts the whole packet; the answer to a read is bare bytes
// without a header. Must never trust a length field: what came is compared with what it says, and with what the
// command has. Nothing of Node.
import { MmcError } from "../errors.js";

export const SAHARA_HELLO = 0x01;
export const SAHARA_HELLO_RESP = 0x02;
export const SAHARA_READ_DATA = 0x03;
export const SAHARA_END_OF_IMAGE = 0x04;
export const SAHARA_DONE = 0x05;
export const SAHARA_DONE_RESP = 0x06;
export const SAHARA_RESET = 0x07;
export const SAHARA_RESET_RESP = 0x08;
export const SAHARA_MEMORY_DEBUG = 0x09;
export const SAHARA_MEMORY_READ = 0x0a;
export const SAHARA_CMD_READY = 0x0b;
export const SAHARA_MEMORY_DEBUG64 = 0x10;
export const SAHARA_MEMORY_READ64 = 0x11;
export const SAHARA_READ_DATA64 = 0x12;

/** Command → its name and the bytes of its packet, of those that a collector or its device has a use for. */
const PACKETS = new Map<number, readonly [name: string, lengthBytes: number]>([
  [SAHARA_HELLO, ["HELLO", 0x30]],
  [SAHARA_HELLO_RESP, ["HELLO_RESP", 0x30]],
  [SAHARA_READ_DATA, ["READ_DATA", 0x14]],
  [SAHARA_END_OF_IMAGE, ["END_OF_IMAGE", 0x10]],
  [SAHARA_DONE, ["DONE", 0x08]],
  [SAHARA_DONE_RESP, ["DONE_RESP", 0x0c]],
  [SAHARA_RESET, ["RESET", 0x08]],
  [SAHARA_RESET_RESP, ["RESET_RESP", 0x08]],
  [SAHARA_MEMORY_DEBUG, ["MEMORY_DEBUG", 0x10]],
  [SAHARA_MEMORY_READ, ["MEMORY_READ", 0x10]],
  [SAHARA_CMD_READY, ["CMD_READY", 0x08]],
  [SAHARA_MEMORY_DEBUG64, ["MEMORY_DEBUG64", 0x18]],
  [SAHARA_MEMORY_READ64, ["MEMORY_READ64", 0x18]],
  [SAHARA_READ_DATA64, ["READ_DATA64", 0x20]],
]);

/** HELLO.mode: what the device is there for. */
export const SAHARA_MODE_IMAGE_TX_PENDING = 0;
export const SAHARA_MODE_IMAGE_TX_COMPLETE = 1;
export const SAHARA_MODE_MEMORY_DEBUG = 2;
export const SAHARA_MODE_COMMAND = 3;

/** The version that we speak, and the oldest that we can. */
export const SAHARA_VERSION = 2;
export const SAHARA_VERSION_COMPAT = 1;

export const SAHARA_STATUS_SUCCESS = 0x00;
export const SAHARA_STATUS_INVALID_CMD = 0x01;
export const SAHARA_STATUS_INVALID_PACKET_SIZE = 0x05;
export const SAHARA_STATUS_INVALID_DATA_SIZE = 0x08;
export const SAHARA_STATUS_INVALID_MEMORY_READ = 0x19;
export const SAHARA_STATUS_INVALID_DATA_SIZE_REQUEST = 0x1a;

/** END_OF_IMAGE.status in words, by number from 0. */
const STATUS_NAMES = [
  "success",
  "invalid command",
  "protocol mismatch",
  "invalid target protocol",
  "invalid host protocol",
  "invalid packet size",
  "unexpected image id",
  "invalid header size",
  "invalid data size",
  "invalid image type",
  "invalid transmit length",
  "invalid receive length",
  "general transmit or receive error",
  "read data error",
  "unsupported number of program headers",
  "invalid program header size",
  "multiple shared segments",
  "uninitialised program header location",
  "invalid destination address",
  "invalid image header data size",
  "invalid ELF header",
  "unknown host error",
  "receive timeout",
  "transmit timeout",
  "invalid host mode",
  "invalid memory read",
  "invalid data size request",
  "memory debug not supported",
  "invalid mode switch",
  "command execution failure",
  "invalid parameter of a command",
  "unsupported command",
  "invalid client command",
  "hash table authentication failure",
  "hash verification failure",
  "hash table not found",
  "target initialisation failure",
  "image authentication failure",
  "invalid hash table size",
  "enumeration failure",
  "hardware bulk transfer error",
] as const;

/** `invalid memory read (0x19)`. @param status a u32; what has no name is `unknown status`. */
export function saharaStatusName(status: number): string {
  return `${STATUS_NAMES[status] ?? "unknown status"} (0x${status.toString(16).padStart(2, "0")})`;
}

/** `MEMORY_DEBUG64`, or `command 0x99`. @param command a u32. */
export function saharaCommandName(command: number): string {
  return PACKETS.get(command)?.[0] ?? `command 0x${command.toString(16).padStart(2, "0")}`;
}

export interface SaharaPacket {
  command: number;
  /** The whole packet; fields by their offset in it. */
  view: DataView;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * The packet that one transfer holds.
 * @throws MmcError EPROTO too short, a length field that is not the number of bytes that came, a command that is not
 *   known or whose packets have another length.
 */
export function parsePacket(transfer: Uint8Array): SaharaPacket {
  if (transfer.length < 8) throw new MmcError("EPROTO", `a packet of ${transfer.length} bytes`);
  const view = viewOf(transfer);
  const command = view.getUint32(0, true);
  const length = view.getUint32(4, true);
  const name = saharaCommandName(command);
  if (length !== transfer.length) {
    throw new MmcError("EPROTO", `${name}: says ${length} bytes, ${transfer.length} came`);
  }
  const expected = PACKETS.get(command)?.[1];
  if (expected === undefined) throw new MmcError("EPROTO", `${name}: is not known`);
  if (length !== expected) throw new MmcError("EPROTO", `${name}: has ${expected} bytes, ${length} came`);
  return { command, view };
}

/** A packet whose fields are u32, in order; those that are not given are 0. @throws nothing. */
export function makePacket(command: number, ...fields: number[]): Uint8Array {
  const bytes = new Uint8Array(PACKETS.get(command)?.[1] ?? 8);
  const view = viewOf(bytes);
  view.setUint32(0, command, true);
  view.setUint32(4, bytes.length, true);
  for (const [i, field] of fields.entries()) view.setUint32(8 + 4 * i, field, true);
  return bytes;
}

/** A packet whose fields are u64, in order. */
export function makePacket64(command: number, ...fields: bigint[]): Uint8Array {
  const bytes = makePacket(command);
  const view = viewOf(bytes);
  for (const [i, field] of fields.entries()) view.setBigUint64(8 + 8 * i, field, true);
  return bytes;
}

/** The number if the transfer is END_OF_IMAGE, else null. */
export function endOfImageStatus(transfer: Uint8Array): number | null {
  if (transfer.length !== SAHARA_END_OF_IMAGE_BYTES) return null;
  const view = viewOf(transfer);
  if (view.getUint32(0, true) !== SAHARA_END_OF_IMAGE || view.getUint32(4, true) !== transfer.length)
    return null;
  return view.getUint32(12, true);
}

/** An answer of this many bytes may be the device's refusal, so nobody may ask for as many bytes of memory. */
export const SAHARA_END_OF_IMAGE_BYTES = 16;

/**
 * How much of `remainingBytes` (1 or more) to ask for at once: at most `requestBytesMax`, and never 16 bytes, which
 * could not be told from END_OF_IMAGE: a tail of 16 is read as 8 and 8.
 */
export function requestBytes(remainingBytes: number, requestBytesMax: number): number {
  const bytes = Math.min(remainingBytes, requestBytesMax);
  return bytes === SAHARA_END_OF_IMAGE_BYTES ? 8 : bytes;
}

/** Whether addresses and lengths have 32 or 64 bits. */
export type SaharaWidth = 32 | 64;

/** Bytes of an entry of the memory table. */
export const TABLE_ENTRY_BYTES: Record<SaharaWidth, number> = { 32: 52, 64: 64 };
const TEXT_BYTES = 20;

/** One entry of the memory table. Texts have one character a byte (0 to 255), without NUL, as the device gave them. */
export interface SaharaEntry {
  /** "Save preference": opaque, 1 as a rule. */
  type: bigint;
  address: bigint;
  lengthBytes: bigint;
  /** 19 characters at most; the rest of a text that is not ended is cut off. */
  description: string;
  /** The name that the device proposes for the file; likewise. It may be anything, see {@link regionFileName}. */
  name: string;
}

function readText(bytes: Uint8Array): string {
  let text = "";
  // The last byte stands for the NUL, whatever it is.
  for (let i = 0; i < TEXT_BYTES - 1 && bytes[i] !== 0; i++) text += String.fromCharCode(bytes[i] as number);
  return text;
}

function writeText(target: Uint8Array, text: string): void {
  for (let i = 0; i < Math.min(text.length, TEXT_BYTES); i++) target[i] = text.charCodeAt(i);
}

/**
 * The entries of a memory table.
 * @throws MmcError EPROTO: its size is no multiple of an entry's.
 */
export function parseTable(bytes: Uint8Array, width: SaharaWidth, isLittleEndian = true): SaharaEntry[] {
  const entryBytes = TABLE_ENTRY_BYTES[width];
  if (bytes.length % entryBytes !== 0) {
    throw new MmcError("EPROTO", `memory table: ${bytes.length} bytes are not a multiple of ${entryBytes}`);
  }
  const entries: SaharaEntry[] = [];
  for (let at = 0; at < bytes.length; at += entryBytes) {
    const view = viewOf(bytes.subarray(at, at + entryBytes));
    const field = (i: number) =>
      width === 64 ? view.getBigUint64(8 * i, isLittleEndian) : BigInt(view.getUint32(4 * i, isLittleEndian));
    const texts = at + (3 * width) / 8;
    entries.push({
      type: field(0),
      address: field(1),
      lengthBytes: field(2),
      description: readText(bytes.subarray(texts, texts + TEXT_BYTES)),
      name: readText(bytes.subarray(texts + TEXT_BYTES, texts + 2 * TEXT_BYTES)),
    });
  }
  return entries;
}

/** The table as bytes; numbers are cut to the width, texts to 20 bytes (and then they have no end). */
export function makeTable(entries: readonly SaharaEntry[], width: SaharaWidth): Uint8Array {
  const entryBytes = TABLE_ENTRY_BYTES[width];
  const bytes = new Uint8Array(entries.length * entryBytes);
  for (const [i, entry] of entries.entries()) {
    const piece = bytes.subarray(i * entryBytes, (i + 1) * entryBytes);
    const view = viewOf(piece);
    for (const [field, value] of [entry.type, entry.address, entry.lengthBytes].entries()) {
      if (width === 64) view.setBigUint64(8 * field, value, true);
      else view.setUint32(4 * field, Number(BigInt.asUintN(32, value)), true);
    }
    const texts = (3 * width) / 8;
    writeText(piece.subarray(texts, texts + TEXT_BYTES), entry.description);
    writeText(piece.subarray(texts + TEXT_BYTES), entry.name);
  }
  return bytes;
}

/** Printable, and safe in a file name: what is not a letter, a digit or one of `._-` becomes `%` and two hex digits. */
export function escapeName(name: string): string {
  return name.replace(
    /[^A-Za-z0-9._-]/g,
    (one) => `%${(one.charCodeAt(0) & 0xff).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

/**
 * A file name for region `index` of `count`: its index and the escaped name, `02-DDRCS0_0.BIN`. Nothing that the
 * device says can leave the folder, hide, be taken for an option or a device of some system, or meet another
 * region's name.
 */
export function regionFileName(index: number, count: number, name: string): string {
  const digits = Math.max(2, String(count - 1).length);
  const safe = escapeName(name).replace(/\.$/, "%2E");
  return `${String(index).padStart(digits, "0")}-${safe === "" ? "region" : safe}`;
}
