// What goes over the CMD line, bit by bit (mmc.md §1.3): frames of 48 bits in the low bits of a u64, start
// bit in 47, and the long response, whose register lies in the wire's memory. Sender makes the CRC7, receiver
// checks it.

import { WIRE_LONG } from "../layout";
import { crc7OfFrame, crc7OfRegister } from "./crc";

const FROM_HOST: u64 = 1;
/** Index of responses that do not echo one. */
export const INDEX_NONE: u32 = 0x3f;

function frame(transmission: u64, index: u32, content: u32): u64 {
  const bits = (transmission << 38) | ((<u64>index) << 32) | content;
  return (bits << 8) | (crc7OfFrame(bits) << 1) | 1;
}

export function commandFrame(index: u32, argument: u32): u64 {
  return frame(FROM_HOST, index & 0x3f, argument);
}

export function responseFrame(index: u32, content: u32): u64 {
  return frame(0, index & 0x3f, content);
}

/** R3 has neither index nor CRC: both fields are ones. */
export function plainResponseFrame(content: u32): u64 {
  return ((<u64>INDEX_NONE) << 40) | ((<u64>content) << 8) | 0xff;
}

export function frameIndex(bits: u64): u32 {
  return <u32>(bits >> 40) & 0x3f;
}

export function frameContent(bits: u64): u32 {
  return <u32>(bits >> 8);
}

export function frameCrcIsGood(bits: u64): bool {
  return crc7OfFrame((bits >> 8) & 0xffffffffff) == (<u32>(bits >> 1) & 0x7f);
}

/** One bit of the content turned over, another one for each index. */
export function breakFrame(bits: u64, index: u32): u64 {
  return bits ^ ((<u64>1) << (8 + (index & 31)));
}

// ---- R2: 0, 0, six ones, then the register's bits 127:1 and a one; bits 7:1 are its own CRC7 ----

export function sendLong(first: u32, second: u32, third: u32, fourth: u32): void {
  store<u32>(WIRE_LONG, first | 1);
  store<u32>(WIRE_LONG + 4, second);
  store<u32>(WIRE_LONG + 8, third);
  store<u32>(WIRE_LONG + 12, fourth);
}

export function longWord(index: u32): u32 {
  return load<u32>(WIRE_LONG + ((index & 3) << 2));
}

export function longCrcIsGood(): bool {
  const crc = crc7OfRegister(longWord(0), longWord(1), longWord(2), longWord(3));
  return crc == ((longWord(0) >>> 1) & 0x7f);
}

export function breakLong(index: u32): void {
  // Never a bit of word 0: its lowest byte is the CRC and the end bit.
  const at: usize = WIRE_LONG + 4 + ((index & 1) << 2);
  store<u32>(at, load<u32>(at) ^ (1 << (index & 31)));
}

/** The first 48 bits of a long response: all that a receiver of a short one takes of it. */
export function longHead(): u64 {
  return ((<u64>INDEX_NONE) << 40) | ((<u64>longWord(3)) << 8) | (longWord(2) >>> 24);
}

/** Bit `clock` (0 … 135) of a long response. */
export function longBit(clock: u32): u32 {
  if (clock < 8) return clock < 2 ? 0 : 1;
  const bit = 135 - clock;
  return (longWord(bit >>> 5) >>> (bit & 31)) & 1;
}
