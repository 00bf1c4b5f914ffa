// What a kmsg record's file holds, made of the payload in its zone: inflated within limits that a bomb cannot pass, or
// behind the line that Linux puts before a plain one; and what passes for the text of a log.

import { ownBytes } from "../own-bytes.js";
import { inflateRaw } from "./inflate.js";

/** Linux inflates at most three times what a zone takes, and writes no more; so a bomb costs four times its zone. */
const MAX_INFLATED_ZONES = 4;
const MAX_INFLATED_BYTES = 16 * 1024 * 1024;
/** For one decode. A hostile area may hold thousands of bombs; each would be within its own limit. */
export const INFLATE_BUDGET_BYTES = 64 * 1024 * 1024;
/** What a deflate block is taken to cost, in bytes inflated: its tables are built even if it gives none. */
const BLOCK_COST_BYTES = 64;

export interface Budget {
  inflateBytes: number;
}

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

/** null: it is no deflate stream, or costs more than is left. */
export function inflatePayload(payload: Uint8Array, zoneSize: number, budget: Budget): Inflated | null {
  const limitBytes = Math.min(MAX_INFLATED_BYTES, MAX_INFLATED_ZONES * zoneSize, budget.inflateBytes);
  if (limitBytes <= 0 || payload.length === 0) return null;
  const { status, bytes, blockCount } = inflateRaw(payload, limitBytes);
  // What was inflated in vain is paid for as well.
  budget.inflateBytes -= bytes.length + blockCount * BLOCK_COST_BYTES;
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
