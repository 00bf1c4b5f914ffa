// The CRCs on the wire (mmc.md §1.3): CRC7 x^7+x^3+1 of a frame, CRC16 x^16+x^12+x^5+1 of each DAT line. No
// tables: a word is divided at once, because over GF(2) 1/(1+u) = (1+u)(1+u²)(1+u⁴)… and u only shifts
// (assemblyscript.md §4). The lines of a 4- or 8-bit bus are divided side by side: one clock of all lines is
// a nibble or a byte, so the taps 4, 11 and 16 clocks back are shifts of whole nibbles or bytes.
//
// Not modelled: DDR, which has two CRC16 a line.

import { SECTOR_BYTES } from "../layout";

const WORDS_MAX: u32 = SECTOR_BYTES / 8;
/** Bytes that foldSector() leaves: 16 words. */
export const FOLDED_BYTES: u32 = 128;

/** CRC7 of one word, most significant bit first; leading zeros do not count. */
function crc7Word(word: u64): u32 {
  let q = word;
  q ^= (q >> 4) ^ (q >> 7);
  q ^= (q >> 8) ^ (q >> 14);
  q ^= (q >> 16) ^ (q >> 28);
  q ^= (q >> 32) ^ (q >> 56);
  const low = <u32>q;
  return (low ^ (low << 3)) & 0x7f;
}

/** CRC7 of the 40 bits before it in a frame of 48. */
export function crc7OfFrame(bits: u64): u32 {
  return crc7Word(bits);
}

/** CRC7 of bits 127:8 of a register; the words are its bits 31:0 first. */
export function crc7OfRegister(first: u32, second: u32, third: u32, fourth: u32): u32 {
  const high = ((<u64>fourth) << 32) | third;
  const low = ((<u64>second) << 32) | first;
  // 120 bits: 56 of them, then 64.
  const before = <u64>crc7Word(high >> 8);
  return crc7Word(((high << 56) | (low >> 8)) ^ (before << 57));
}

/**
 * The bytes before the first whole word, as a word with leading zeros: they change no CRC that starts at 0.
 */
function head(ptr: usize, bytes: u32): u64 {
  let word: u64 = 0;
  for (let i: u32 = 0; i < bytes && i < 8; i++) word = (word << 8) | load<u8>(ptr + i);
  return word;
}

/**
 * A sector's bytes from `ptr` on, divided into the last FOLDED_BYTES of the SECTOR_BYTES at `target`: their address is
 * returned, and they have the same CRC16s on any number of lines. Over GF(2) the polynomial squared has each exponent
 * doubled, so one with the same three taps 4, 11 and 16 words back is a multiple of the CRC16's for every number of
 * clocks a word that is a power of two: 64 on one line, 16 on four, 8 on eight.
 */
export function foldSector(ptr: usize, target: usize): usize {
  memory.copy(target, ptr, SECTOR_BYTES);
  for (let i: u32 = 0; i < <u32>SECTOR_BYTES - FOLDED_BYTES; i += 8) {
    const at = target + i;
    const word = load<u64>(at);
    store<u64>(at, load<u64>(at, 32) ^ word, 32);
    store<u64>(at, load<u64>(at, 88) ^ word, 88);
    store<u64>(at, load<u64>(at, 128) ^ word, 128);
  }
  return target + SECTOR_BYTES - FOLDED_BYTES;
}

/** One line: 64 clocks a word, the earliest most significant. The CRC16 in bits 15:0. */
export function crc16OneLine(ptr: usize, bytes: u32): u64 {
  const odd = bytes & 7;
  const words = bytes >>> 3;
  let q: u64 = 0;
  for (let i: u32 = odd == 0 ? 1 : 0; i <= words && i <= WORDS_MAX; i++) {
    const word = i == 0 ? head(ptr, odd) : bswap<u64>(load<u64>(ptr + odd + ((i - 1) << 3)));
    q = word ^ (q << 60) ^ (q << 53) ^ (q << 48);
    q ^= (q >> 4) ^ (q >> 11) ^ (q >> 16);
    q ^= (q >> 8) ^ (q >> 22) ^ (q >> 32);
    q ^= (q >> 16) ^ (q >> 44);
    q ^= q >> 32;
  }
  return ((q << 60) ^ (q << 53) ^ (q << 48)) >> 48;
}

/** Four lines: 16 clocks a word. The four CRCs as they go out, bit 15 of all lines in the highest nibble. */
export function crc16FourLines(ptr: usize, bytes: u32): u64 {
  const odd = bytes & 7;
  const words = bytes >>> 3;
  let q: u64 = 0;
  for (let i: u32 = odd == 0 ? 1 : 0; i <= words && i <= WORDS_MAX; i++) {
    const word = i == 0 ? head(ptr, odd) : bswap<u64>(load<u64>(ptr + odd + ((i - 1) << 3)));
    q = word ^ q ^ (q << 20) ^ (q << 48);
    q ^= (q >> 16) ^ (q >> 44);
    q ^= q >> 32;
  }
  return q ^ (q << 20) ^ (q << 48);
}

/**
 * Eight lines: 8 clocks a word, the earliest least significant as the bytes lie. The eight CRCs as they go
 * out, bit 15
 * of all lines in the first byte, to `target` (16 bytes).
 */
export function crc16EightLines(ptr: usize, bytes: u32, target: usize): void {
  const odd = bytes & 7;
  const words = bytes >>> 3;
  let older: u64 = 0;
  let last: u64 = 0;
  for (let i: u32 = odd == 0 ? 1 : 0; i <= words && i <= WORDS_MAX; i++) {
    const word = i == 0 ? bswap<u64>(head(ptr, odd)) : load<u64>(ptr + odd + ((i - 1) << 3));
    const x = word ^ older ^ (older >> 40) ^ (last << 24) ^ (last >> 32);
    older = last;
    last = x ^ (x << 32);
  }
  store<u64>(target, older ^ (older >> 40) ^ (last << 24) ^ (last >> 32));
  store<u64>(target, last ^ (last >> 40), 8);
}
