// A medium that is written beside another one: reads find what was written, the other one is only read. A machine
// can be restored to a saved state without a copy of its disk. What was written is kept by pages, what was erased as
// ranges (erased-ranges.ts), so a guest that discards its whole disk costs a few bytes. Nothing of Node.
import type { ExternalMedium } from "../core/external-medium.js";
import { MmcError } from "../errors.js";
import { having } from "../judge.js";
import { type ErasedRange, ErasedRanges } from "./erased-ranges.js";

const BASE = having("read");
const SECTOR_BYTES = 512;
/** What guests write at least; a page's sectors fit the bits of a small number. */
const PAGE_SECTORS = 8;
const PAGE_BYTES = PAGE_SECTORS * SECTOR_BYTES;
const ALL_WRITTEN = 2 ** PAGE_SECTORS - 1;
/** A card of 2^32 sectors is the largest there is. */
const SECTORS_END = 2 ** 32;

// A saved state, little-endian; numbers are f64:
//   0 "mmcpovl1"   8 size of the base   16 ranges   24 pages   32 ranges { first sector, end sector, byte } …
//   behind them pages { number; u32 bits of the written sectors; those sectors' bytes } …, both ascending
const MAGIC = new TextEncoder().encode("mmcpovl1");
const HEAD_BYTES = 32;
const RANGE_BYTES = 24;
const PAGE_HEAD_BYTES = 12;

interface Page {
  bytes: Uint8Array;
  /** Bit n: sector n of the page is written. */
  written: number;
}

function countBits(bits: number): number {
  let count = 0;
  for (let left = bits; left !== 0; left &= left - 1) count++;
  return count;
}

export class OverlayMedium implements ExternalMedium {
  readonly #base: Pick<ExternalMedium, "sizeBytes" | "read">;
  #pages = new Map<number, Page>();
  #erased = new ErasedRanges();

  /** `base` is never written, must not change meanwhile, and is read within its size only; zeros follow it. */
  constructor(base: Pick<ExternalMedium, "sizeBytes" | "read">) {
    BASE("base", base);
    this.#base = base;
  }

  get sizeBytes(): number {
    return this.#base.sizeBytes;
  }

  /** How many sectors differ from the base, or may: written or erased. */
  get dirtySectors(): number {
    let sectors = this.#erased.sectors;
    for (const [number, { written }] of this.#pages) {
      for (let i = 0; i < PAGE_SECTORS; i++) {
        const isWritten = (written & (1 << i)) !== 0;
        if (isWritten && this.#erased.byteAt(number * PAGE_SECTORS + i) === null) sectors++;
      }
    }
    return sectors;
  }

  /** Offset and length are whole sectors, as a Device has them. */
  read(offset: number, target: Uint8Array): void {
    const end = (offset + target.length) / SECTOR_BYTES;
    const first = offset / SECTOR_BYTES;
    // Sectors one behind the other that only the base has are one read of it.
    let unread = first;
    const readUntil = (lba: number) => {
      if (lba > unread) {
        const at = unread * SECTOR_BYTES;
        this.#readBase(at, target.subarray(at - offset, lba * SECTOR_BYTES - offset));
      }
    };
    for (let lba = first; lba < end; lba++) {
      const page = this.#pages.get(Math.floor(lba / PAGE_SECTORS));
      const inPage = lba % PAGE_SECTORS;
      const isWritten = page !== undefined && (page.written & (1 << inPage)) !== 0;
      const erased = isWritten ? null : this.#erased.byteAt(lba);
      if (!isWritten && erased === null) continue;
      readUntil(lba);
      unread = lba + 1;
      const at = lba * SECTOR_BYTES - offset;
      if (erased !== null) target.fill(erased, at, at + SECTOR_BYTES);
      else if (page !== undefined) {
        const from = inPage * SECTOR_BYTES;
        target.set(page.bytes.subarray(from, from + SECTOR_BYTES), at);
      }
    }
    readUntil(end);
  }

  /** `data` is copied. */
  write(offset: number, data: Uint8Array): void {
    for (let at = 0; at < data.length; ) {
      const lba = (offset + at) / SECTOR_BYTES;
      const inPage = lba % PAGE_SECTORS;
      const sectors = Math.min(PAGE_SECTORS - inPage, (data.length - at) / SECTOR_BYTES);
      const page = this.#pageAt(Math.floor(lba / PAGE_SECTORS));
      page.bytes.set(data.subarray(at, at + sectors * SECTOR_BYTES), inPage * SECTOR_BYTES);
      page.written |= ((1 << sectors) - 1) << inPage;
      at += sectors * SECTOR_BYTES;
    }
  }

  /** The range reads as `byte` from now on, and takes no memory. Whole sectors. */
  erase(offset: number, lengthBytes: number, byte: number): void {
    const first = offset / SECTOR_BYTES;
    const end = first + lengthBytes / SECTOR_BYTES;
    this.#forgetWritten(first, end);
    this.#erased.add({ first, end, byte });
  }

  /** What was written and erased: the size of the base, the erased ranges, then the written sectors by pages. */
  saveState(): Uint8Array {
    const ranges = this.#erased.ranges;
    const pages = [...this.#pages].sort(([a], [b]) => a - b);
    let bytes = HEAD_BYTES + ranges.length * RANGE_BYTES;
    for (const [, { written }] of pages) bytes += PAGE_HEAD_BYTES + countBits(written) * SECTOR_BYTES;
    const state = new Uint8Array(bytes);
    const view = new DataView(state.buffer);
    state.set(MAGIC);
    view.setFloat64(8, this.sizeBytes, true);
    view.setFloat64(16, ranges.length, true);
    view.setFloat64(24, pages.length, true);
    let at = HEAD_BYTES;
    for (const { first, end, byte } of ranges) {
      for (const [i, field] of [first, end, byte].entries()) view.setFloat64(at + 8 * i, field, true);
      at += RANGE_BYTES;
    }
    for (const [number, page] of pages) {
      view.setFloat64(at, number, true);
      view.setUint32(at + 8, page.written, true);
      at += PAGE_HEAD_BYTES;
      for (let i = 0; i < PAGE_SECTORS; i++) {
        if ((page.written & (1 << i)) === 0) continue;
        state.set(page.bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES), at);
        at += SECTOR_BYTES;
      }
    }
    return state;
  }

  /** @throws MmcError EINVAL for bytes that are no state of an overlay on a base of this size; nothing has changed */
  loadState(state: Uint8Array): void {
    const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
    const isState = state.length >= HEAD_BYTES && MAGIC.every((byte, i) => state[i] === byte);
    if (!isState || view.getFloat64(8, true) !== this.sizeBytes) refuse();
    const [ranges, pages] = [view.getFloat64(16, true), view.getFloat64(24, true)];
    const rangesEnd = HEAD_BYTES + ranges * RANGE_BYTES;
    if (!(ranges >= 0 && pages >= 0 && rangesEnd <= state.length)) refuse();
    const erased = readRanges(view, rangesEnd);
    this.#pages = readPages(state, view, rangesEnd, pages);
    this.#erased = erased;
  }

  #pageAt(number: number): Page {
    const there = this.#pages.get(number);
    if (there !== undefined) return there;
    const page = { bytes: new Uint8Array(PAGE_BYTES), written: 0 };
    this.#pages.set(number, page);
    return page;
  }

  /** What was written of sectors `first` to `end` is gone. Costs the lesser of what is there and what is asked for. */
  #forgetWritten(first: number, end: number): void {
    const firstPage = Math.floor(first / PAGE_SECTORS);
    const endPage = Math.ceil(end / PAGE_SECTORS);
    const forget = (number: number) => {
      const page = this.#pages.get(number);
      if (page === undefined) return;
      const from = Math.max(0, first - number * PAGE_SECTORS);
      const until = Math.min(PAGE_SECTORS, end - number * PAGE_SECTORS);
      page.written &= ALL_WRITTEN & ~(((1 << (until - from)) - 1) << from);
      if (page.written === 0) this.#pages.delete(number);
    };
    if (endPage - firstPage > this.#pages.size) {
      for (const number of [...this.#pages.keys()])
        if (number >= firstPage && number < endPage) forget(number);
    } else {
      for (let number = firstPage; number < endPage; number++) forget(number);
    }
  }

  #readBase(offset: number, target: Uint8Array): void {
    const inside = Math.max(0, Math.min(target.length, this.#base.sizeBytes - offset));
    if (inside > 0) this.#base.read(offset, target.subarray(0, inside));
    target.fill(0, inside);
  }
}

function refuse(): never {
  throw new MmcError("EINVAL", "loadState: these bytes are not what was written over this medium");
}

function readRanges(view: DataView, end: number): ErasedRanges {
  const ranges: ErasedRange[] = [];
  let last = 0;
  for (let at = HEAD_BYTES; at < end; at += RANGE_BYTES) {
    const [first, until, byte] = [0, 8, 16].map((field) => view.getFloat64(at + field, true)) as [
      number,
      number,
      number,
    ];
    const isRange = Number.isInteger(first) && Number.isInteger(until) && first >= last && first < until;
    if (!isRange || until > SECTORS_END || (byte !== 0 && byte !== 0xff)) refuse();
    ranges.push({ first, end: until, byte });
    last = until;
  }
  return new ErasedRanges(ranges);
}

function readPages(state: Uint8Array, view: DataView, from: number, count: number): Map<number, Page> {
  const pages = new Map<number, Page>();
  let at = from;
  let last = -1;
  for (let i = 0; i < count; i++) {
    if (at + PAGE_HEAD_BYTES > state.length) refuse();
    const number = view.getFloat64(at, true);
    const written = view.getUint32(at + 8, true);
    const isPage = Number.isInteger(number) && number > last && number < SECTORS_END / PAGE_SECTORS;
    const end = at + PAGE_HEAD_BYTES + countBits(written) * SECTOR_BYTES;
    if (!isPage || written === 0 || written > ALL_WRITTEN || end > state.length) refuse();
    const page = { bytes: new Uint8Array(PAGE_BYTES), written };
    at += PAGE_HEAD_BYTES;
    for (let sector = 0; sector < PAGE_SECTORS; sector++) {
      if ((written & (1 << sector)) === 0) continue;
      page.bytes.set(state.subarray(at, at + SECTOR_BYTES), sector * SECTOR_BYTES);
      at += SECTOR_BYTES;
    }
    pages.set(number, page);
    last = number;
  }
  if (at !== state.length) refuse();
  return pages;
}
