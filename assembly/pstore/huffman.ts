// Huffman codes as deflate has them (RFC 1951, 3.2.2): from how often each symbol occurs to code lengths with a limit,
// and from lengths to the codes. A code is a block of CODE_BYTES: counts, lengths, codes. Nothing recurses: the tree is
// built from a sorted list and a queue, and read from its root down.

import { HUFFMAN_SCRATCH } from "../layout";

/** Symbols of the largest alphabet, literals and lengths: 256 + end of block + 29. */
export const SYMBOLS_MAX: u32 = 286;
/** Bytes of a code in memory. */
export const CODE_BYTES: u32 = 0x800;
const LENGTHS: u32 = 0x480; // u8 a symbol
const CODES: u32 = 0x5c0; // u16 a symbol
/** The longest code that deflate can say. */
const LENGTH_MAX: u32 = 15;

// A tree has up to SYMBOLS_MAX leaves and one node less.
const NODES_MAX: u32 = 2 * SYMBOLS_MAX;
const WEIGHTS = HUFFMAN_SCRATCH; // u32 a node: the leaves by weight, then the inner ones, each later one heavier
const PARENTS = HUFFMAN_SCRATCH + 0x900; // u16 a node
const DEPTHS = HUFFMAN_SCRATCH + 0xe00; // u8 a node
const LEAF_SYMBOLS = HUFFMAN_SCRATCH + 0x1100; // u16 a leaf
const LENGTH_COUNTS = HUFFMAN_SCRATCH + 0x1400; // u32 a length: how many codes have it
const NEXT_CODES = HUFFMAN_SCRATCH + 0x1480; // u32 a length

export function clearCounts(code: usize): void {
  memory.fill(code, 0, LENGTHS);
}

export function countSymbol(code: usize, symbol: u32): void {
  const at = code + (symbol << 2);
  store<u32>(at, load<u32>(at) + 1);
}

export function symbolCount(code: usize, symbol: u32): u32 {
  return load<u32>(code + (symbol << 2));
}

/** Bits of a symbol's code, 0 if it has none. */
export function codeLength(code: usize, symbol: u32): u32 {
  return load<u8>(code + symbol, LENGTHS);
}

/** A symbol's code, first bit lowest, as deflate packs it. */
export function codeBits(code: usize, symbol: u32): u32 {
  return load<u16>(code + (symbol << 1), CODES);
}

/** The used symbols with their counts, rarest first; returns how many. */
function sortLeaves(code: usize, symbols: u32): u32 {
  let leaves: u32 = 0;
  for (let symbol: u32 = 0; symbol < symbols && symbol < SYMBOLS_MAX; symbol++) {
    const weight = symbolCount(code, symbol);
    if (weight == 0) continue;
    let place = leaves;
    for (let i: u32 = 0; i < leaves && i < SYMBOLS_MAX; i++) {
      if (load<u32>((place - 1) << 2, WEIGHTS) <= weight) break;
      store<u32>(place << 2, load<u32>((place - 1) << 2, WEIGHTS), WEIGHTS);
      store<u16>(place << 1, load<u16>((place - 1) << 1, LEAF_SYMBOLS), LEAF_SYMBOLS);
      place -= 1;
    }
    store<u32>(place << 2, weight, WEIGHTS);
    store<u16>(place << 1, <u16>symbol, LEAF_SYMBOLS);
    leaves += 1;
  }
  return leaves;
}

/** Joins the two lightest nodes until one is left. Inner nodes come out by weight, so two queues are enough. */
function joinNodes(leaves: u32): void {
  let leaf: u32 = 0;
  let inner = leaves;
  const last: u32 = leaves * 2 - 1;
  for (let node = leaves; node < last && node < NODES_MAX; node++) {
    let weight: u32 = 0;
    for (let child = 0; child < 2; child++) {
      const takesLeaf =
        leaf < leaves && (inner == node || load<u32>(leaf << 2, WEIGHTS) <= load<u32>(inner << 2, WEIGHTS));
      const lightest = takesLeaf ? leaf : inner;
      if (takesLeaf) leaf += 1;
      else inner += 1;
      weight += load<u32>(lightest << 2, WEIGHTS);
      store<u16>(lightest << 1, <u16>node, PARENTS);
    }
    store<u32>(node << 2, weight, WEIGHTS);
  }
}

/** How many codes have each length; what lies deeper than `lengthMax` is lifted to it. */
function countLengths(leaves: u32, lengthMax: u32): void {
  memory.fill(LENGTH_COUNTS, 0, (LENGTH_MAX + 1) << 2);
  const root: u32 = leaves * 2 - 2;
  store<u8>(root, 0, DEPTHS);
  for (let i: u32 = 1; i <= root && i < NODES_MAX; i++) {
    const node = root - i;
    const parentDepth: u32 = load<u8>(load<u16>(node << 1, PARENTS), DEPTHS);
    const depth = parentDepth < lengthMax ? parentDepth + 1 : lengthMax;
    store<u8>(node, <u8>depth, DEPTHS);
    if (node < leaves) countLength(depth, 1);
  }
}

function countLength(length: u32, more: i32): void {
  store<u32>(length << 2, load<u32>(length << 2, LENGTH_COUNTS) + more, LENGTH_COUNTS);
}

/**
 * Lifted leaves take more room than there is (Kraft). Each turn makes the deepest shorter code one longer, which frees
 * a place beside it for one of the longest: that is one unit of room. Each lifted leaf took at most one too much.
 */
function makeRoom(lengthMax: u32): void {
  const room: u32 = (<u32>1) << lengthMax;
  let taken: u32 = 0;
  for (let length: u32 = 1; length <= lengthMax && length <= LENGTH_MAX; length++) {
    taken += load<u32>(length << 2, LENGTH_COUNTS) << (lengthMax - length);
  }
  for (let turn: u32 = 0; taken > room && turn < SYMBOLS_MAX; turn++) {
    countLength(lengthMax, -1);
    for (let i: u32 = 1; i < lengthMax && i < LENGTH_MAX; i++) {
      const length = lengthMax - i;
      if (load<u32>(length << 2, LENGTH_COUNTS) == 0) continue;
      countLength(length, -1);
      countLength(length + 1, 2);
      break;
    }
    taken -= 1;
  }
}

/** Codes of one length are consecutive numbers in the order of their symbols. */
function numberCodes(code: usize, symbols: u32): void {
  let next: u32 = 0;
  for (let length: u32 = 1; length <= LENGTH_MAX; length++) {
    next = (next + load<u32>((length - 1) << 2, LENGTH_COUNTS)) << 1;
    store<u32>(length << 2, next, NEXT_CODES);
  }
  for (let symbol: u32 = 0; symbol < symbols && symbol < SYMBOLS_MAX; symbol++) {
    const length = codeLength(code, symbol);
    if (length == 0) continue;
    const number = load<u32>(length << 2, NEXT_CODES);
    store<u32>(length << 2, number + 1, NEXT_CODES);
    let reversed: u32 = 0;
    for (let bit: u32 = 0; bit < length && bit < LENGTH_MAX; bit++) {
      reversed = (reversed << 1) | ((number >>> bit) & 1);
    }
    store<u16>(code + (symbol << 1), <u16>reversed, CODES);
  }
}

/**
 * Lengths (≤ `lengthMax`) and codes of an alphabet of `symbols` from its counts. A code of fewer than two symbols is
 * filled up to two, because a decoder may refuse one that is not complete.
 */
export function buildCode(code: usize, symbols: u32, lengthMax: u32): void {
  memory.fill(code + LENGTHS, 0, CODE_BYTES - LENGTHS);
  let leaves = sortLeaves(code, symbols);
  for (let symbol: u32 = 0; symbol < 2 && leaves < 2; symbol++) {
    if (symbolCount(code, symbol) != 0) continue;
    countSymbol(code, symbol);
    leaves = sortLeaves(code, symbols);
  }
  joinNodes(leaves);
  countLengths(leaves, lengthMax);
  makeRoom(lengthMax);
  // The rarest symbols get the longest codes.
  let leaf: u32 = 0;
  let length = lengthMax;
  let left = load<u32>(length << 2, LENGTH_COUNTS);
  for (let turn: u32 = 0; turn < SYMBOLS_MAX + LENGTH_MAX && leaf < leaves; turn++) {
    if (left == 0) {
      length -= 1;
      left = load<u32>(length << 2, LENGTH_COUNTS);
      continue;
    }
    store<u8>(code + load<u16>(leaf << 1, LEAF_SYMBOLS), <u8>length, LENGTHS);
    leaf += 1;
    left -= 1;
  }
  numberCodes(code, symbols);
}
