// Raw deflate (RFC 1951) of a log, as Linux's pstore reads it: no zlib header, a window of 2 KiB (window bits 11, the
// smaller of its two), dynamic Huffman codes, lazy matching. The work memory is fixed, every loop has a constant bound,
// and a table is trusted only if it was made in the same call.

import { DEFLATE_BASE, DEFLATE_HEADS, DEFLATE_LINKS, DEFLATE_TOKENS, TEXT_BYTES_MAX } from "../layout";
import { buildCode, CODE_BYTES, clearCounts, codeBits, codeLength, countSymbol } from "./huffman";

const WINDOW_BYTES: u32 = 2048;
const MATCH_MIN: u32 = 3;
const MATCH_MAX: u32 = 258;
/**
 * Earlier places with the same hash that are looked at. 64 of them would win 0.3 % on real logs, and make hostile text
 * take ten times as long.
 */
const CHAIN_MAX: u32 = 8;
/** A match of this length is taken without a look at the next byte. */
const LAZY_MAX: u32 = 32;
/** A match of this length is good enough to end the search. */
const NICE_LENGTH: u32 = 128;
const HASH_BITS: u32 = 11;
/** Literals and matches of one block. */
const TOKENS_MAX: u32 = 8192;

const LITERALS: u32 = 286;
const END_OF_BLOCK: u32 = 256;
const DISTANCES: u32 = 30;
const CODE_LENGTHS: u32 = 19;
/** Limits of deflate: 15 bits, and 7 for the code that says the lengths of the other two. */
const CODE_LENGTH_MAX: u32 = 15;
const CODE_LENGTH_CODE_MAX: u32 = 7;

const LITERAL_CODE = DEFLATE_BASE + 0x100;
const DISTANCE_CODE = LITERAL_CODE + CODE_BYTES;
const LENGTHS_CODE = DISTANCE_CODE + CODE_BYTES;
/** u16 a piece of the lengths: symbol | what its extra bits say << 8. */
const LENGTH_PIECES = LENGTHS_CODE + CODE_BYTES;

/** The stream at hand. */
// @ts-expect-error: decorator
@unmanaged
class Deflate {
  bits: u64; // not stored yet, first bit lowest
  bitCount: u32;
  to: u32;
  most: u32;
  bytes: u32; // of the stream so far, stored or not
  taken: u32; // bytes of the text that they stand for, after the last block
  tokens: u32; // in the block at hand
}

function deflater(): Deflate {
  return changetype<Deflate>(DEFLATE_BASE);
}

/** `count` ≤ 16 bits. What exceeds the stream's space is counted and not stored. */
function putBits(value: u32, count: u32): void {
  const d = deflater();
  d.bits |= (<u64>value) << d.bitCount;
  d.bitCount += count;
  for (let i = 0; i < 2 && d.bitCount >= 8; i++) {
    if (d.bytes < d.most) store<u8>(d.to + d.bytes, <u8>d.bits);
    d.bytes += 1;
    d.bits >>= 8;
    d.bitCount -= 8;
  }
}

function putSymbol(code: usize, symbol: u32): void {
  putBits(codeBits(code, symbol), codeLength(code, symbol));
}

/** Extra bits of a length (3 … 258) or a distance (1 … 2048), each less its least value. */
function lengthExtraBits(length: u32): u32 {
  return length < 8 || length == MATCH_MAX - MATCH_MIN ? 0 : 29 - clz<u32>(length);
}

function lengthSymbol(length: u32): u32 {
  if (length == MATCH_MAX - MATCH_MIN) return LITERALS - 1;
  const extra = lengthExtraBits(length);
  return END_OF_BLOCK + 1 + (extra << 2) + (length >>> extra);
}

function distanceExtraBits(distance: u32): u32 {
  return distance < 4 ? 0 : 30 - clz<u32>(distance);
}

function distanceSymbol(distance: u32): u32 {
  const extra = distanceExtraBits(distance);
  return (extra << 1) + (distance >>> extra);
}

/** `token`: a byte, or distance << 9 | length. */
function addToken(token: u32): void {
  const d = deflater();
  store<u32>(d.tokens << 2, token, DEFLATE_TOKENS);
  d.tokens += 1;
  if (token < 256) {
    countSymbol(LITERAL_CODE, token);
    return;
  }
  countSymbol(LITERAL_CODE, lengthSymbol((token & 0x1ff) - MATCH_MIN));
  countSymbol(DISTANCE_CODE, distanceSymbol((token >>> 9) - 1));
}

function putToken(token: u32): void {
  if (token < 256) {
    putSymbol(LITERAL_CODE, token);
    return;
  }
  const length = (token & 0x1ff) - MATCH_MIN;
  const lengthExtra = lengthExtraBits(length);
  putSymbol(LITERAL_CODE, lengthSymbol(length));
  putBits(length & ((1 << lengthExtra) - 1), lengthExtra);
  const distance = (token >>> 9) - 1;
  const distanceExtra = distanceExtraBits(distance);
  putSymbol(DISTANCE_CODE, distanceSymbol(distance));
  putBits(distance & ((1 << distanceExtra) - 1), distanceExtra);
}

/** One more than the last symbol that has a code; at least `least`. */
function usedSymbols(code: usize, symbols: u32, least: u32): u32 {
  let used = least;
  for (let symbol = least; symbol < symbols && symbol < LITERALS; symbol++) {
    if (codeLength(code, symbol) != 0) used = symbol + 1;
  }
  return used;
}

/** The code lengths of both alphabets are one sequence. */
function lengthAt(i: u32, literals: u32): u32 {
  return i < literals ? codeLength(LITERAL_CODE, i) : codeLength(DISTANCE_CODE, i - literals);
}

/** The lengths in pieces: a length, 16 repeats the one before 3 … 6 times, 17 and 18 are 3 … 10 and 11 … 138 zeros. */
function cutLengths(literals: u32, distances: u32): u32 {
  const all = literals + distances;
  let pieces: u32 = 0;
  let at: u32 = 0;
  for (let turn: u32 = 0; turn < LITERALS + DISTANCES && at < all; turn++) {
    const length = lengthAt(at, literals);
    const repeats = at > 0 && lengthAt(at - 1, literals) == length;
    const runMax: u32 = length == 0 ? 138 : 6;
    let run: u32 = 1;
    for (let i: u32 = 1; i < runMax && i < 138 && at + i < all; i++) {
      if (lengthAt(at + i, literals) != length) break;
      run += 1;
    }
    let piece = length;
    if (length == 0 && run >= 11) piece = 18 | ((run - 11) << 8);
    else if (length == 0 && run >= 3) piece = 17 | ((run - 3) << 8);
    else if (repeats && run >= 3) piece = 16 | ((run - 3) << 8);
    else run = 1;
    store<u16>(pieces << 1, <u16>piece, LENGTH_PIECES);
    countSymbol(LENGTHS_CODE, piece & 0xff);
    pieces += 1;
    at += run;
  }
  return pieces;
}

/** In which order the lengths of the code of code lengths are said: 16, 17, 18, 0, 8, 7, 9, 6, 10 … 1, 15. */
function lengthOrder(i: u32): u32 {
  if (i < 3) return 16 + i;
  if (i == 3) return 0;
  return (i & 1) == 0 ? 6 + (i >>> 1) : 9 - (i >>> 1);
}

function putLengths(pieces: u32): void {
  let said: u32 = 4;
  for (let i: u32 = 4; i < CODE_LENGTHS; i++) {
    if (codeLength(LENGTHS_CODE, lengthOrder(i)) != 0) said = i + 1;
  }
  putBits(said - 4, 4);
  for (let i: u32 = 0; i < said && i < CODE_LENGTHS; i++) {
    putBits(codeLength(LENGTHS_CODE, lengthOrder(i)), 3);
  }
  for (let i: u32 = 0; i < pieces && i < LITERALS + DISTANCES; i++) {
    const piece: u32 = load<u16>(i << 1, LENGTH_PIECES);
    const symbol = piece & 0xff;
    putSymbol(LENGTHS_CODE, symbol);
    if (symbol >= 16) putBits(piece >>> 8, symbol == 16 ? 2 : symbol == 17 ? 3 : 7);
  }
}

function openBlock(): void {
  deflater().tokens = 0;
  clearCounts(LITERAL_CODE);
  clearCounts(DISTANCE_CODE);
  clearCounts(LENGTHS_CODE);
}

/** The tokens at hand as a block with codes of its own. */
function closeBlock(isLast: bool): void {
  const d = deflater();
  countSymbol(LITERAL_CODE, END_OF_BLOCK);
  buildCode(LITERAL_CODE, LITERALS, CODE_LENGTH_MAX);
  buildCode(DISTANCE_CODE, DISTANCES, CODE_LENGTH_MAX);
  const literals = usedSymbols(LITERAL_CODE, LITERALS, END_OF_BLOCK + 1);
  const distances = usedSymbols(DISTANCE_CODE, DISTANCES, 1);
  const pieces = cutLengths(literals, distances);
  buildCode(LENGTHS_CODE, CODE_LENGTHS, CODE_LENGTH_CODE_MAX);
  putBits(isLast ? 5 : 4, 3);
  putBits(literals - END_OF_BLOCK - 1, 5);
  putBits(distances - 1, 5);
  putLengths(pieces);
  for (let i: u32 = 0; i < d.tokens && i <= TOKENS_MAX; i++) putToken(load<u32>(i << 2, DEFLATE_TOKENS));
  putSymbol(LITERAL_CODE, END_OF_BLOCK);
}

/** Remembers the three bytes at `at`; returns where they, or others of the same hash, were last, or 0. */
function remember(at: usize): usize {
  const three: u32 = load<u16>(at) | ((<u32>load<u8>(at, 2)) << 16);
  const hash = (three * 0x9e3779b1) >>> (32 - HASH_BITS);
  const before = load<u32>(hash << 2, DEFLATE_HEADS);
  store<u32>((at & (WINDOW_BYTES - 1)) << 2, before, DEFLATE_LINKS);
  store<u32>(hash << 2, at, DEFLATE_HEADS);
  return before;
}

/** The longest match of more than `least` bytes along the chain from `first`, the nearest of equals; 0: none. */
function longestMatch(at: usize, end: usize, first: usize, least: u32): u32 {
  const most: u32 = end - at < MATCH_MAX ? <u32>(end - at) : MATCH_MAX;
  if (most <= least) return 0;
  let best = least;
  let token: u32 = 0;
  let from = first;
  // The link of the place one window back is the one that was just written: nearer places only.
  for (let i: u32 = 0; i < CHAIN_MAX && from != 0 && at - from < WINDOW_BYTES; i++) {
    if (load<u8>(from + best) == load<u8>(at + best)) {
      let length: u32 = 0;
      for (; length < most && length < MATCH_MAX; length++) {
        if (load<u8>(from + length) != load<u8>(at + length)) break;
      }
      if (length > best) {
        best = length;
        token = ((<u32>(at - from)) << 9) | length;
        if (length == most || length >= NICE_LENGTH) break;
      }
    }
    from = load<u32>((from & (WINDOW_BYTES - 1)) << 2, DEFLATE_LINKS);
  }
  return token;
}

/**
 * Deflates `count` (1 … TEXT_BYTES_MAX) bytes at `from` to `to`, where `most` bytes have room. Returns the length of
 * the stream; more than `most`: it does not fit and was given up after that many bytes, which stand for deflateTaken().
 */
export function deflate(from: usize, count: u32, to: usize, most: u32): u32 {
  const d = deflater();
  memory.fill(DEFLATE_BASE, 0, offsetof<Deflate>());
  memory.fill(DEFLATE_HEADS, 0, 4 << HASH_BITS);
  d.to = <u32>to;
  d.most = most;
  openBlock();
  const end = from + count;
  let at = from;
  // A byte is held back until the next one has shown no longer match; `match` begins at it, or is 0.
  let holds = false;
  let match: u32 = 0;
  for (let turn: u32 = 0; turn < <u32>TEXT_BYTES_MAX && at < end; turn++) {
    const length = match & 0x1ff;
    let better: u32 = 0;
    if (end - at >= MATCH_MIN) {
      const first = remember(at);
      if (length < LAZY_MAX) {
        better = longestMatch(at, end, first, length < MATCH_MIN ? MATCH_MIN - 1 : length);
      }
    }
    if (match != 0 && better == 0) {
      addToken(match);
      const next = at - 1 + length;
      for (let i: u32 = 1; i < MATCH_MAX && at + i < next && at + i + MATCH_MIN <= end; i++) remember(at + i);
      at = next;
      holds = false;
      match = 0;
    } else {
      if (holds) addToken(load<u8>(at - 1));
      at += 1;
      holds = true;
      match = better;
    }
    if (d.tokens == TOKENS_MAX) {
      closeBlock(false);
      d.taken = <u32>(at - from);
      if (d.bytes > most) return d.bytes;
      openBlock();
    }
  }
  if (holds) addToken(load<u8>(at - 1));
  closeBlock(true);
  d.taken = count;
  putBits(0, (8 - (d.bitCount & 7)) & 7);
  return d.bytes;
}

/** Bytes of the text that the stream of the last deflate() stands for. */
export function deflateTaken(): u32 {
  return deflater().taken;
}
