// The Reed-Solomon code that Linux's ramoops protects its zones with (lib/reed_solomon as fs/pstore/ram_core.c sets it
// up): bytes over GF(2^8) with the polynomial 0x11d, roots alpha^0 … alpha^(parity - 1), shortened to the block's
// length. Written from the theory of the code; checked against regions that a kernel wrote. Nothing of Node.

const FIELD_BYTES = 255;
const POLYNOMIAL = 0x11d;

/** alpha^i, twice over, so that a sum of two logarithms needs no modulo; and its inverse. */
const EXP = new Uint8Array(2 * FIELD_BYTES);
const LOG = new Uint8Array(FIELD_BYTES + 1);
for (let power = 0, value = 1; power < FIELD_BYTES; power++) {
  EXP[power] = value;
  EXP[power + FIELD_BYTES] = value;
  LOG[value] = power;
  value <<= 1;
  if (value > FIELD_BYTES) value ^= POLYNOMIAL;
}

function exp(power: number): number {
  return EXP[power % FIELD_BYTES] as number;
}

function log(value: number): number {
  return LOG[value] as number;
}

function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : (EXP[log(a) + log(b)] as number);
}

/** `b` is not 0. */
function divide(a: number, b: number): number {
  return a === 0 ? 0 : (EXP[log(a) + FIELD_BYTES - log(b)] as number);
}

/** The value at alpha^`power` of a polynomial whose lowest coefficient comes first. */
function evaluate(polynomial: ArrayLike<number>, power: number): number {
  let sum = 0;
  for (let i = polynomial.length - 1; i >= 0; i--) {
    sum = multiply(sum, exp(power)) ^ (polynomial[i] as number);
  }
  return sum;
}

export class ReedSolomon {
  readonly parityBytes: number;
  /** Lowest coefficient first, without the leading 1. */
  readonly #generator: Uint8Array;

  /** @param parityBytes 1 … 254. Half as many wrong bytes per block can be corrected. */
  constructor(parityBytes: number) {
    if (!Number.isInteger(parityBytes) || parityBytes < 1 || parityBytes >= FIELD_BYTES) {
      throw new RangeError(`parityBytes: ${parityBytes} is not 1 to 254`);
    }
    this.parityBytes = parityBytes;
    const product = new Uint8Array(parityBytes + 1);
    product[0] = 1;
    for (let root = 0; root < parityBytes; root++) {
      for (let i = root + 1; i > 0; i--) {
        product[i] = (product[i - 1] as number) ^ multiply(product[i] as number, exp(root));
      }
      product[0] = multiply(product[0] as number, exp(root));
    }
    this.#generator = product.subarray(0, parityBytes);
  }

  /** The parity of a block of at most 255 - parityBytes bytes. */
  encode(block: Uint8Array): Uint8Array {
    const parity = new Uint8Array(this.parityBytes);
    const last = this.parityBytes - 1;
    for (const byte of block) {
      const feedback = byte ^ (parity[0] as number);
      parity.copyWithin(0, 1);
      parity[last] = 0;
      if (feedback === 0) continue;
      for (let i = 0; i <= last; i++) {
        parity[i] = (parity[i] as number) ^ multiply(feedback, this.#generator[last - i] as number);
      }
    }
    return parity;
  }

  /**
   * Corrects a block and its parity in place.
   * @returns how many bytes were wrong, at most parityBytes / 2; -1 if they are too many: then nothing is changed.
   */
  correct(block: Uint8Array, parity: Uint8Array): number {
    const lengthBytes = block.length + this.parityBytes;
    if (lengthBytes > FIELD_BYTES || parity.length !== this.parityBytes) return -1;
    const syndromes = this.#syndromes(block, parity);
    if (syndromes.every((value) => value === 0)) return 0;
    const locator = errorLocator(syndromes);
    const errors = locator.length - 1;
    if (errors === 0 || errors > this.parityBytes / 2) return -1;

    // A byte of degree d is wrong if alpha^-d is a root; those beyond the length would be in the part left out.
    const degrees: number[] = [];
    for (let degree = 0; degree < lengthBytes; degree++) {
      if (evaluate(locator, FIELD_BYTES - degree) === 0) degrees.push(degree);
    }
    if (degrees.length !== errors) return -1;
    const evaluator = productBelow(syndromes, locator, this.parityBytes);
    // In characteristic 2 the derivative keeps the odd coefficients, one degree lower.
    const derivative = locator.slice(1).map((value, index) => (index % 2 === 0 ? value : 0));
    const corrections = degrees.map((degree) => {
      const slope = evaluate(derivative, FIELD_BYTES - degree);
      if (slope === 0) return 0;
      return multiply(exp(degree), divide(evaluate(evaluator, FIELD_BYTES - degree), slope));
    });
    const apply = () => {
      for (const [index, degree] of degrees.entries()) {
        const at = lengthBytes - 1 - degree;
        const [bytes, offset] = at < block.length ? [block, at] : [parity, at - block.length];
        bytes[offset] = (bytes[offset] as number) ^ (corrections[index] as number);
      }
    };
    apply();
    if (this.#syndromes(block, parity).every((value) => value === 0)) return errors;
    apply();
    return -1;
  }

  #syndromes(block: Uint8Array, parity: Uint8Array): Uint8Array {
    const syndromes = new Uint8Array(this.parityBytes);
    for (let root = 0; root < this.parityBytes; root++) {
      let sum = 0;
      for (const byte of block) sum = (sum === 0 ? 0 : (EXP[log(sum) + root] as number)) ^ byte;
      for (const byte of parity) sum = (sum === 0 ? 0 : (EXP[log(sum) + root] as number)) ^ byte;
      syndromes[root] = sum;
    }
    return syndromes;
  }
}

/** Berlekamp-Massey: the shortest recurrence of the syndromes, lowest coefficient (1) first. */
function errorLocator(syndromes: Uint8Array): number[] {
  let locator = [1];
  let before = [1];
  let degree = 0;
  let gap = 1;
  let discrepancyBefore = 1;
  for (let n = 0; n < syndromes.length; n++) {
    let discrepancy = syndromes[n] as number;
    for (let i = 1; i <= degree; i++) {
      discrepancy ^= multiply(locator[i] ?? 0, syndromes[n - i] as number);
    }
    if (discrepancy === 0) {
      gap++;
      continue;
    }
    const factor = divide(discrepancy, discrepancyBefore);
    const next = locator.slice();
    for (const [i, value] of before.entries()) {
      next[i + gap] = (next[i + gap] ?? 0) ^ multiply(value, factor);
    }
    for (let i = 0; i < next.length; i++) next[i] ??= 0;
    if (2 * degree <= n) {
      before = locator;
      discrepancyBefore = discrepancy;
      degree = n + 1 - degree;
      gap = 1;
    } else {
      gap++;
    }
    locator = next;
  }
  while (locator.length > 1 && locator.at(-1) === 0) locator.pop();
  // A recurrence longer than its polynomial has no error pattern.
  return locator.length - 1 === degree ? locator : [1];
}

/** The product of two polynomials without the terms from x^`terms` on. */
function productBelow(a: ArrayLike<number>, b: ArrayLike<number>, terms: number): number[] {
  const product = new Array<number>(terms).fill(0);
  for (let i = 0; i < Math.min(a.length, terms); i++) {
    for (let j = 0; j < b.length && i + j < terms; j++) {
      product[i + j] = (product[i + j] as number) ^ multiply(a[i] as number, b[j] as number);
    }
  }
  return product;
}
