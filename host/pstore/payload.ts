// What a kmsg record's file holds, made of the payload in its zone: inflated within limits that a bomb cannot pass, or
// behind the line that Linux puts before a plain one; and what passes for the text of a log.

import { ownBytes } from "../own-bytes.js";
import { inflateRaw } from "./inflate.js";

/**
 * Linux inflates at most three times what a zone takes, and writes no more; so a bomb costs four times its zone, and an
 * area full of them four times the area. Each record has its own limit: none is the poorer for those before it.
 */
const MAX_INFLATED_ZONES = 4;
const MAX_INFLATED_BYTES = 16 * 1024 * 1024;
/** zlib ends a block after 16383 symbols; tables are built for each, even if it gives nothing. */
const BYTES_OF_A_BLOCK_MIN = 512;
const BLOCKS_FREE = 64;

/** Below this, what a foreign compression inflates to by chance may look like text. */
export const SALVAGED_TEXT_BYTES_MIN = 64;

/** What a log has: printable bytes, UTF-8, tab, newline, carriage return, escape. */
function isTextByte(byte: number): boolean {
  return (byte >= 0x20 && byte !== 0x7f) || byte === 9 || byte === 10 || byte === 13 || byte === 27;
}

export function textBytesAtStart(bytes: Uint8Array): number {
  let count = 0;
  while (count < bytes.length && isTextByte(bytes[count] as number)) count++;
  return count;
}

/** A payload inflated; `isWhole` false: it broke off, and this is the text before. */
interface Inflated {
  bytes: Uint8Array;
  isWhole: boolean;
}

/**
 * A whole raw deflate stream at the start of `input`, inflated to at most `limitBytes` into a buffer of its own; null if it
 * is anything else. Where the platform has one that is faster than inflate.ts.
 */
export type InflateWhole = (input: Uint8Array, limitBytes: number) => Uint8Array | null;

/** null: it is no deflate stream, or gives more than a record of this zone can. */
export function inflatePayload(
  payload: Uint8Array,
  zoneSize: number,
  inflateWhole?: InflateWhole,
): Inflated | null {
  const limitBytes = Math.min(MAX_INFLATED_BYTES, MAX_INFLATED_ZONES * zoneSize);
  if (payload.length === 0) return null;
  const whole = inflateWhole?.(payload, limitBytes) ?? null;
  if (whole !== null) return { bytes: whole, isWhole: true };
  const limitBlocks = BLOCKS_FREE + Math.floor(limitBytes / BYTES_OF_A_BLOCK_MIN);
  const { status, bytes } = inflateRaw(payload, limitBytes, limitBlocks);
  if (status === "ok") return { bytes, isWhole: true };
  if (status === "too-large") return null;
  const count = textBytesAtStart(bytes);
  return count < SALVAGED_TEXT_BYTES_MIN ? null : { bytes: ownBytes(bytes, 0, count), isWhole: false };
}

export function withHeaderLine(reason: string, count: number, payload: Uint8Array): Uint8Array {
  const line = `${reason}: Total ${count} times\n`;
  const bytes = new Uint8Array(line.length + payload.length);
  for (let index = 0; index < line.length; index++) bytes[index] = line.charCodeAt(index);
  bytes.set(payload, line.length);
  return bytes;
}
