// Which sectors of an overlay are erased, and to which byte: ranges, ascending, that neither overlap nor touch another of
// their byte. What lies there is found by halving; an erase that meets many costs as many. Nothing of Node.

/** Sectors `[first, end)`. */
export interface ErasedRange {
  first: number;
  end: number;
  byte: number;
}

export class ErasedRanges {
  #ranges: ErasedRange[];

  /** `ranges`: ascending, without overlaps. */
  constructor(ranges: ErasedRange[] = []) {
    this.#ranges = ranges;
  }

  get ranges(): readonly ErasedRange[] {
    return this.#ranges;
  }

  /** How many sectors they are. */
  get sectors(): number {
    return this.#ranges.reduce((sum, { first, end }) => sum + end - first, 0);
  }

  /** What sector `lba` was erased to; null if it was not. */
  byteAt(lba: number): number | null {
    const range = this.#ranges[this.#endingBehind(lba)];
    return range !== undefined && range.first <= lba ? range.byte : null;
  }

  /** `added` is erased, whatever was there. */
  add(added: ErasedRange): void {
    if (added.first >= added.end) return;
    const { byte } = added;
    let { first, end } = added;
    // All that overlap or touch it; of the first and the last of them something may stay.
    const from = this.#endingBehind(first - 1);
    let until = from;
    const rest: ErasedRange[] = [];
    const behind: ErasedRange[] = [];
    for (; until < this.#ranges.length && (this.#ranges[until] as ErasedRange).first <= end; until++) {
      const there = this.#ranges[until] as ErasedRange;
      if (there.byte === byte) {
        first = Math.min(first, there.first);
        end = Math.max(end, there.end);
        continue;
      }
      if (there.first < first) rest.push({ ...there, end: Math.min(there.end, first) });
      if (there.end > end) behind.push({ ...there, first: Math.max(there.first, end) });
    }
    this.#ranges.splice(from, until - from, ...rest, { first, end, byte }, ...behind);
  }

  /** The index of the first range that ends behind sector `lba`. */
  #endingBehind(lba: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle] as ErasedRange).end <= lba) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
