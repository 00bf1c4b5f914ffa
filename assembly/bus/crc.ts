// The CRCs on the wire (mmc.md §1.3): CRC7 x^7+x^3+1 of a frame, CRC16 x^16+x^12+x^5+1 of each DAT line. No
// tables: a word is divided at once, because over GF(2) 1/(1+u) = (1+u)(1+u²)(1+u⁴)… and u only shifts.
// The lines of a 4- or 8-bit bus are divided side by side: one clock of all lines is
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
 * What is left at `target` (FOLDED_BYTES) of a sector at `ptr`, with the same CRC16s on any number of lines. Over GF(2)
 * the square of a polynomial has each exponent doubled: the CRC16's, squared until a clock has become a word, has its
 * taps 4, 11 and 16 whole words back, be a word 64 clocks of one line, 16 of four or 8 of eight. So it takes no shifts.
 * `q`: the last 16 words of the quotient.
 */
export function foldSector(ptr: usize, target: usize): void {
  let q0: u64 = 0;
  let q1: u64 = 0;
  let q2: u64 = 0;
  let q3: u64 = 0;
  let q4: u64 = 0;
  let q5: u64 = 0;
  let q6: u64 = 0;
  let q7: u64 = 0;
  let q8: u64 = 0;
  let q9: u64 = 0;
  let q10: u64 = 0;
  let q11: u64 = 0;
  let q12: u64 = 0;
  let q13: u64 = 0;
  let q14: u64 = 0;
  let q15: u64 = 0;
  let at = ptr;
  for (let i: u32 = 0; i < 3; i++) {
    q0 = load<u64>(at) ^ q12 ^ q5 ^ q0;
    q1 = load<u64>(at, 8) ^ q13 ^ q6 ^ q1;
    q2 = load<u64>(at, 16) ^ q14 ^ q7 ^ q2;
    q3 = load<u64>(at, 24) ^ q15 ^ q8 ^ q3;
    q4 = load<u64>(at, 32) ^ q0 ^ q9 ^ q4;
    q5 = load<u64>(at, 40) ^ q1 ^ q10 ^ q5;
    q6 = load<u64>(at, 48) ^ q2 ^ q11 ^ q6;
    q7 = load<u64>(at, 56) ^ q3 ^ q12 ^ q7;
    q8 = load<u64>(at, 64) ^ q4 ^ q13 ^ q8;
    q9 = load<u64>(at, 72) ^ q5 ^ q14 ^ q9;
    q10 = load<u64>(at, 80) ^ q6 ^ q15 ^ q10;
    q11 = load<u64>(at, 88) ^ q7 ^ q0 ^ q11;
    q12 = load<u64>(at, 96) ^ q8 ^ q1 ^ q12;
    q13 = load<u64>(at, 104) ^ q9 ^ q2 ^ q13;
    q14 = load<u64>(at, 112) ^ q10 ^ q3 ^ q14;
    q15 = load<u64>(at, 120) ^ q11 ^ q4 ^ q15;
    at += 128;
  }
  // The remainder: no quotient any more.
  store<u64>(target, load<u64>(at) ^ q0 ^ q5 ^ q12);
  store<u64>(target, load<u64>(at, 8) ^ q1 ^ q6 ^ q13, 8);
  store<u64>(target, load<u64>(at, 16) ^ q2 ^ q7 ^ q14, 16);
  store<u64>(target, load<u64>(at, 24) ^ q3 ^ q8 ^ q15, 24);
  store<u64>(target, load<u64>(at, 32) ^ q4 ^ q9, 32);
  store<u64>(target, load<u64>(at, 40) ^ q5 ^ q10, 40);
  store<u64>(target, load<u64>(at, 48) ^ q6 ^ q11, 48);
  store<u64>(target, load<u64>(at, 56) ^ q7 ^ q12, 56);
  store<u64>(target, load<u64>(at, 64) ^ q8 ^ q13, 64);
  store<u64>(target, load<u64>(at, 72) ^ q9 ^ q14, 72);
  store<u64>(target, load<u64>(at, 80) ^ q10 ^ q15, 80);
  store<u64>(target, load<u64>(at, 88) ^ q11, 88);
  store<u64>(target, load<u64>(at, 96) ^ q12, 96);
  store<u64>(target, load<u64>(at, 104) ^ q13, 104);
  store<u64>(target, load<u64>(at, 112) ^ q14, 112);
  store<u64>(target, load<u64>(at, 120) ^ q15, 120);
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
