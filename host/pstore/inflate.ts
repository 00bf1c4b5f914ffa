// A raw deflate (RFC 1951) inflater for the compressed records of a pstore area, whoever wrote them.
// Everything about its input is untrusted: it never throws, never allocates by a length that the stream
// claims, and stops at the caller's limits, so a bomb costs no more than the limit.
// It must never import anything of Node (no node:zlib: the package's main entry runs in browsers).
import { ownBytes } from "../own-bytes.js";

/**
 * `ok`: the final block ended. `truncated`: the input ended first. `corrupt`: the stream breaks a rule of
 * RFC 1951. `too-large`: it would give more bytes, or has more blocks, than the limits allow.
 */
export type InflateStatus = "ok" | "truncated" | "corrupt" | "too-large";

/** What came of a stream. `bytes` is what was produced up to the end or the fault; it has its own buffer. */
export interface InflateResult {
  status: InflateStatus;
  bytes: Uint8Array;
  /** How many bytes of the input the stream took; what follows a final block is not looked at. */
  consumedBytes: number;
  /** Blocks begun. Each costs the time of building its tables, however short it is. */
  blockCount: number;
}

const MAX_CODE_BITS = 15;
const FAST_BITS = 9;
const WINDOW_BYTES = 32768;
const END_OF_BLOCK = 256;

const LENGTH_BASES = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
  227, 258,
];
const LENGTH_EXTRA_BITS = [
  0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];
const DISTANCE_BASES = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
  6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA_BITS = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];
const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** A canonical Huffman code: symbols sorted by code, how many there are of each length, and a short cut. */
interface Code {
  countOfLength: Uint16Array;
  symbols: Uint16Array;
  /** Indexed by the next FAST_BITS bits: symbol * 16 + length, 0 if the code is longer or there is none. */
  fast: Uint16Array;
}

/** Builds a code from its lengths, or null where zlib refuses too: over-subscribed, or with a hole. */
function buildCode(lengths: Uint8Array, mayHaveOneCode: boolean): Code | null {
  const countOfLength = new Uint16Array(MAX_CODE_BITS + 1);
  for (const length of lengths) countOfLength[length] = (countOfLength[length] as number) + 1;
  const used = lengths.length - (countOfLength[0] as number);
  countOfLength[0] = 0;
  let free = 1;
  for (let length = 1; length <= MAX_CODE_BITS; length++) {
    free = free * 2 - (countOfLength[length] as number);
    if (free < 0) return null;
  }
  // A code of one single bit is the only hole allowed; a code without any symbol fails when it is used.
  if (free > 0 && used > 0 && !(mayHaveOneCode && used === 1 && countOfLength[1] === 1)) return null;

  const nextIndex = new Uint16Array(MAX_CODE_BITS + 2);
  const nextCode = new Uint16Array(MAX_CODE_BITS + 2);
  for (let length = 1; length <= MAX_CODE_BITS; length++) {
    const count = countOfLength[length] as number;
    nextIndex[length + 1] = (nextIndex[length] as number) + count;
    nextCode[length + 1] = ((nextCode[length] as number) + count) << 1;
  }
  const symbols = new Uint16Array(used);
  const fast = new Uint16Array(1 << FAST_BITS);
  for (let symbol = 0; symbol < lengths.length; symbol++) {
    const length = lengths[symbol] as number;
    if (length === 0) continue;
    const index = nextIndex[length] as number;
    nextIndex[length] = index + 1;
    symbols[index] = symbol;
    const code = nextCode[length] as number;
    nextCode[length] = code + 1;
    if (length > FAST_BITS) continue;
    let reversed = 0; // codes arrive with their first bit lowest
    for (let bit = 0; bit < length; bit++) reversed |= ((code >> bit) & 1) << (length - 1 - bit);
    for (let at = reversed; at < fast.length; at += 1 << length) fast[at] = symbol * 16 + length;
  }
  return { countOfLength, symbols, fast };
}

let fixedCodes: { literals: Code; distances: Code } | null = null;

function getFixedCodes(): { literals: Code; distances: Code } | null {
  if (fixedCodes !== null) return fixedCodes;
  const lengths = new Uint8Array(288).fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280);
  const literals = buildCode(lengths, false);
  const distances = buildCode(new Uint8Array(32).fill(5), false); // 30 and 31 exist, and are refused in use
  if (literals !== null && distances !== null) fixedCodes = { literals, distances };
  return fixedCodes;
}

class Inflater {
  bytes: Uint8Array;
  lengthBytes = 0;
  blockCount = 0;
  private at = 0;
  private bits = 0;
  private bitCount = 0;

  constructor(
    private readonly input: Uint8Array,
    private readonly limitBytes: number,
    private readonly limitBlocks: number,
  ) {
    // By what is there, never by what is claimed; 4 is what text usually gives.
    this.bytes = new Uint8Array(Math.min(limitBytes, Math.max(256, input.length * 4)));
  }

  get consumedBytes(): number {
    return this.at - (this.bitCount >> 3);
  }

  run(): InflateStatus {
    for (;;) {
      if (!this.need(3)) return "truncated";
      const isFinal = this.take(1) === 1;
      const type = this.take(2);
      if (++this.blockCount > this.limitBlocks) return "too-large";
      let status: InflateStatus = "corrupt";
      if (type === 0) {
        status = this.stored();
      } else if (type === 1) {
        const fixed = getFixedCodes();
        if (fixed !== null) status = this.compressed(fixed.literals, fixed.distances);
      } else if (type === 2) {
        status = this.dynamic();
      }
      if (status !== "ok" || isFinal) return status;
    }
  }

  /** Makes `count` (at most 16) bits available. */
  private need(count: number): boolean {
    while (this.bitCount < count) {
      if (this.at >= this.input.length) return false;
      this.bits |= (this.input[this.at++] as number) << this.bitCount;
      this.bitCount += 8;
    }
    return true;
  }

  private take(count: number): number {
    const value = this.bits & ((1 << count) - 1);
    this.bits >>>= count;
    this.bitCount -= count;
    return value;
  }

  /** The next symbol; -1: the input ended, -2: no such code. */
  private symbol(code: Code): number {
    this.need(MAX_CODE_BITS); // fails near the end of the input: then fewer bits are there, and may do
    const entry = code.fast[this.bits & ((1 << FAST_BITS) - 1)] as number;
    const fastLength = entry & 15;
    if (fastLength !== 0) {
      if (fastLength > this.bitCount) return -1;
      this.take(fastLength);
      return entry >> 4;
    }
    let value = 0;
    let firstCode = 0;
    let firstIndex = 0;
    for (let length = 1; length <= MAX_CODE_BITS; length++) {
      if (length > this.bitCount) return -1;
      value = (value << 1) | ((this.bits >> (length - 1)) & 1);
      const count = code.countOfLength[length] as number;
      if (value - firstCode < count) {
        this.take(length);
        return code.symbols[firstIndex + value - firstCode] as number;
      }
      firstIndex += count;
      firstCode = (firstCode + count) << 1;
    }
    return -2;
  }

  /** Makes room for `count` more bytes, doubling up to the limit. */
  private room(count: number): boolean {
    const needed = this.lengthBytes + count;
    if (needed <= this.bytes.length) return true;
    if (needed > this.limitBytes) return false;
    const larger = new Uint8Array(Math.min(this.limitBytes, Math.max(needed, this.bytes.length * 2)));
    larger.set(this.bytes.subarray(0, this.lengthBytes));
    this.bytes = larger;
    return true;
  }

  private stored(): InflateStatus {
    this.take(this.bitCount & 7);
    if (!this.need(16)) return "truncated";
    const length = this.take(16);
    if (!this.need(16)) return "truncated";
    if (this.take(16) !== (length ^ 0xffff)) return "corrupt";
    // Never a whole byte left in `bits` here: need() reads no further than it is asked to.
    const count = Math.min(length, this.input.length - this.at);
    const fits = Math.min(count, this.limitBytes - this.lengthBytes);
    this.room(fits);
    this.bytes.set(this.input.subarray(this.at, this.at + fits), this.lengthBytes);
    this.at += fits;
    this.lengthBytes += fits;
    if (fits < count) return "too-large";
    return count < length ? "truncated" : "ok";
  }

  private dynamic(): InflateStatus {
    if (!this.need(14)) return "truncated";
    const literalCount = this.take(5) + 257;
    const distanceCount = this.take(5) + 1;
    const lengthCount = this.take(4) + 4;
    if (literalCount > 286 || distanceCount > 30) return "corrupt";
    const orderLengths = new Uint8Array(19);
    for (let index = 0; index < lengthCount; index++) {
      if (!this.need(3)) return "truncated";
      orderLengths[CODE_LENGTH_ORDER[index] as number] = this.take(3);
    }
    const lengthCode = buildCode(orderLengths, false);
    if (lengthCode === null) return "corrupt";
    const lengths = new Uint8Array(literalCount + distanceCount);
    for (let index = 0; index < lengths.length; ) {
      const symbol = this.symbol(lengthCode);
      if (symbol < 0) return symbol === -1 ? "truncated" : "corrupt";
      if (symbol < 16) {
        lengths[index++] = symbol;
        continue;
      }
      if (symbol === 16 && index === 0) return "corrupt";
      const extraBits = symbol === 16 ? 2 : symbol === 17 ? 3 : 7;
      if (!this.need(extraBits)) return "truncated";
      const repeat = this.take(extraBits) + (symbol === 18 ? 11 : 3);
      if (index + repeat > lengths.length) return "corrupt";
      if (symbol === 16) lengths.fill(lengths[index - 1] as number, index, index + repeat);
      index += repeat;
    }
    if (lengths[END_OF_BLOCK] === 0) return "corrupt";
    const literals = buildCode(lengths.subarray(0, literalCount), true);
    const distances = buildCode(lengths.subarray(literalCount), true);
    if (literals === null || distances === null) return "corrupt";
    return this.compressed(literals, distances);
  }

  private compressed(literals: Code, distances: Code): InflateStatus {
    for (;;) {
      const symbol = this.symbol(literals);
      if (symbol < 0) return symbol === -1 ? "truncated" : "corrupt";
      if (symbol < END_OF_BLOCK) {
        if (!this.room(1)) return "too-large";
        this.bytes[this.lengthBytes++] = symbol;
        continue;
      }
      if (symbol === END_OF_BLOCK) {
        // symbol() looks ahead by up to two bytes; a stored block that follows wants them back.
        const spare = this.bitCount >> 3;
        this.at -= spare;
        this.bitCount &= 7;
        this.bits &= (1 << this.bitCount) - 1;
        return "ok";
      }
      const lengthIndex = symbol - 257;
      const lengthBase = LENGTH_BASES[lengthIndex];
      if (lengthBase === undefined) return "corrupt";
      const lengthExtra = LENGTH_EXTRA_BITS[lengthIndex] as number;
      if (!this.need(lengthExtra)) return "truncated";
      const length = lengthBase + this.take(lengthExtra);
      const distanceIndex = this.symbol(distances);
      if (distanceIndex < 0) return distanceIndex === -1 ? "truncated" : "corrupt";
      const distanceBase = DISTANCE_BASES[distanceIndex];
      if (distanceBase === undefined) return "corrupt";
      const distanceExtra = DISTANCE_EXTRA_BITS[distanceIndex] as number;
      if (!this.need(distanceExtra)) return "truncated";
      const distance = distanceBase + this.take(distanceExtra);
      if (distance > this.lengthBytes || distance > WINDOW_BYTES) return "corrupt";
      if (!this.room(length)) return "too-large";
      // Byte by byte: source and target overlap when the distance is shorter than the length.
      for (let count = 0; count < length; count++) {
        this.bytes[this.lengthBytes] = this.bytes[this.lengthBytes - distance] as number;
        this.lengthBytes++;
      }
    }
  }
}

/**
 * Inflates one raw deflate stream (no zlib or gzip header, window up to 32 KiB) from the start of `input`.
 * Never throws.
 * @param limitBytes how many bytes may come out, at least 0. A stream that gives exactly so many is `ok`.
 * @param limitBlocks how many blocks it may have. A real stream has one for some thousand symbols.
 */
export function inflateRaw(input: Uint8Array, limitBytes: number, limitBlocks = 65536): InflateResult {
  const inflater = new Inflater(input, Math.max(0, Math.floor(limitBytes)), limitBlocks);
  const status = inflater.run();
  return {
    status,
    // A copy of the right size: the working buffer may be several times larger.
    bytes: ownBytes(inflater.bytes, 0, inflater.lengthBytes),
    consumedBytes: inflater.consumedBytes,
    blockCount: inflater.blockCount,
  };
}
