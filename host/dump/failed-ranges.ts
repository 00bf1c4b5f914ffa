// Ranges of bytes that could not be read: kept sorted and merged, so that reading the same page a thousand times is
// one entry.

/** Bytes of one region that are 0xff because nobody could bring them. */
export interface FailedRange {
  /** As register() gave it. */
  id: number;
  name: string;
  /** From the start of the region, in bytes. */
  offset: number;
  lengthBytes: number;
}

export class Ranges {
  /** Sorted, apart from each other by at least a byte. */
  readonly #list: { from: number; to: number }[] = [];

  add(from: number, to: number): void {
    if (to <= from) return;
    // The first range that ends at or after `from`.
    let low = 0;
    let high = this.#list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#list[middle]?.to ?? 0) < from) low = middle + 1;
      else high = middle;
    }
    let until = low;
    const merged = { from, to };
    for (let next = this.#list[until]; next !== undefined && next.from <= to; next = this.#list[++until]) {
      merged.from = Math.min(merged.from, next.from);
      merged.to = Math.max(merged.to, next.to);
    }
    this.#list.splice(low, until - low, merged);
  }

  [Symbol.iterator](): Iterator<{ from: number; to: number }> {
    return this.#list[Symbol.iterator]();
  }
}
