// CRC-32C for seals (table in memory, built before use: a panic trusts no table that somebody else left)
// and CRC7 by bytes: of the card's registers and of SPI commands. bus/crc.ts has those of the wires.
import { CRC_TABLE } from "./layout";

/** Fills the table; about 2,000 steps. Reflected polynomial of CRC-32C (RFC 3720, B.4). */
export function crc32cPrepare(): void {
  for (let i: u32 = 0; i < 256; i++) {
    let value = i;
    for (let bit = 0; bit < 8; bit++) value = (value & 1) != 0 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
    store<u32>(i << 2, value, CRC_TABLE);
  }
}

/** Continues a CRC-32C over `count` (≤ 1 MiB) bytes; start with 0. */
export function crc32c(before: u32, ptr: usize, count: u32): u32 {
  let crc = ~before;
  for (let i: u32 = 0; i < count && i < 0x100000; i++) {
    crc = load<u32>(((crc ^ load<u8>(ptr + i)) & 0xff) << 2, CRC_TABLE) ^ (crc >>> 8);
  }
  return ~crc;
}

/** CRC7 (x^7 + x^3 + 1) of one more byte, most significant bit first. */
export function crc7Byte(before: u32, byte: u32): u32 {
  let crc = before;
  for (let bit = 7; bit >= 0; bit--) {
    const feedback = ((crc >>> 6) ^ (byte >>> bit)) & 1;
    crc = ((crc << 1) & 0x7f) ^ (feedback != 0 ? 0x09 : 0);
  }
  return crc;
}

/** CRC7 over `count` (≤ 16) bytes: CID and CSD carry it in bits 7:1. */
export function crc7(ptr: usize, count: u32): u32 {
  let crc: u32 = 0;
  for (let i: u32 = 0; i < count && i < 16; i++) crc = crc7Byte(crc, load<u8>(ptr + i));
  return crc;
}
