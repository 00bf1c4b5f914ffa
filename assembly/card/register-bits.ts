// 128-bit registers: four little-endian words, word 0 = bits 31:0, closed by their CRC7.

import { storeBigEndian32 } from "../bytes";
import { crc7 } from "../crc";

/** Puts `value` into bits `lowest … lowest + width - 1`. */
export function setBits(ptr: usize, lowest: u32, width: u32, value: u32): void {
  for (let i: u32 = 0; i < width && i < 32; i++) {
    const bit = lowest + i;
    const word = ptr + ((bit >>> 5) << 2);
    const mask: u32 = 1 << (bit & 31);
    store<u32>(word, ((value >>> i) & 1) != 0 ? load<u32>(word) | mask : load<u32>(word) & ~mask);
  }
}

/** Bits 7:1 = CRC7 of bits 127:8, bit 0 = 1. The scratch holds the register as the wire has it. */
export function seal128(ptr: usize, scratch: usize): void {
  for (let i: u32 = 0; i < 4; i++) storeBigEndian32(scratch + ((3 - i) << 2), load<u32>(ptr + (i << 2)));
  setBits(ptr, 1, 7, crc7(scratch, 15));
  setBits(ptr, 0, 1, 1);
}
