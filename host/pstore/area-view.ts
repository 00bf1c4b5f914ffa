// The bytes of an area where they lie: all in memory, or in a file of which a window is in memory at a time. Whoever reads
// an area asks for numbers and for parts, and cannot tell which it is. Must never hold more of a file than its window and
// what somebody asked for. Nothing of Node: the file is whatever `read` reads.
import { crc32c } from "./crc32c.js";

/** What an area is read from. `read` fills `target` from `offset` on, within the size; it may throw. */
export interface AreaSource {
  readonly sizeBytes: number;
  read(offset: number, target: Uint8Array): void;
}

/** As DataView has them; all little-endian numbers of the format. */
export interface AreaView {
  getUint8(at: number): number;
  getUint32(at: number, littleEndian: true): number;
  getInt32(at: number, littleEndian: true): number;
  getBigUint64(at: number, littleEndian: true): bigint;
  getBigInt64(at: number, littleEndian: true): bigint;
}

export interface Area {
  readonly view: AreaView;
  readonly size: number;
  /** Bytes `[from, until)`, to be read only, and to be copied by whoever keeps them. */
  part(from: number, until: number): Uint8Array;
}

/** How much a window begins with, and what it has of the bytes in front: a seal stands behind what it closes. */
const WINDOW_BYTES = 65536;
const WINDOW_BEFORE_BYTES = 4096;

/** A source through a window: reading on, or near to where was read, costs one read for each window. */
class PagedArea implements Area, AreaView {
  readonly view: AreaView = this;
  readonly size: number;
  readonly #source: AreaSource;
  readonly #window: Uint8Array;
  readonly #numbers: DataView;
  #from = 0;
  #until = 0;

  constructor(source: AreaSource, size: number) {
    this.#source = source;
    this.size = size;
    this.#window = new Uint8Array(Math.min(size, WINDOW_BEFORE_BYTES + WINDOW_BYTES));
    this.#numbers = new DataView(this.#window.buffer);
  }

  getUint8(at: number): number {
    return this.#numbers.getUint8(this.#reach(at, 1));
  }

  getUint32(at: number): number {
    return this.#numbers.getUint32(this.#reach(at, 4), true);
  }

  getInt32(at: number): number {
    return this.#numbers.getInt32(this.#reach(at, 4), true);
  }

  getBigUint64(at: number): bigint {
    return this.#numbers.getBigUint64(this.#reach(at, 8), true);
  }

  getBigInt64(at: number): bigint {
    return this.#numbers.getBigInt64(this.#reach(at, 8), true);
  }

  part(from: number, until: number): Uint8Array {
    const end = Math.min(until, this.size);
    if (from >= this.#from && end <= this.#until) {
      return this.#window.subarray(from - this.#from, end - this.#from);
    }
    const bytes = new Uint8Array(Math.max(0, end - from));
    this.#source.read(from, bytes);
    return bytes;
  }

  /** Where in the window `at` is, with `count` bytes from there on. */
  #reach(at: number, count: number): number {
    if (at >= this.#from && at + count <= this.#until) return at - this.#from;
    if (at < 0 || at + count > this.size) throw new RangeError("offset is outside of the area");
    const from = Math.max(0, Math.floor(at / WINDOW_BYTES) * WINDOW_BYTES - WINDOW_BEFORE_BYTES);
    // A number that begins in one window and ends in the next has the next one's start behind it.
    const start = at + count > from + this.#window.length ? at - WINDOW_BEFORE_BYTES : from;
    const until = Math.min(this.size, start + this.#window.length);
    this.#until = 0;
    this.#source.read(start, this.#window.subarray(0, until - start));
    this.#from = start;
    this.#until = until;
    return at - start;
  }
}

/** The first `sizeMax` bytes, in memory. */
export function memoryArea(bytes: Uint8Array, sizeMax: number): Area {
  const size = Math.min(bytes.length, sizeMax);
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  return { view, size, part: (from, until) => bytes.subarray(from, Math.min(until, size)) };
}

/** The first `sizeMax` bytes of a source, through a window. */
export function pagedArea(source: AreaSource, sizeMax: number): Area {
  return new PagedArea(source, Math.min(source.sizeBytes, sizeMax));
}

/** CRC-32C of bytes `[from, until)`, window by window. */
export function crc32cOf(area: Area, from: number, until: number): number {
  let crc = 0;
  const end = Math.min(until, area.size);
  for (let at = from; at < end; at += WINDOW_BYTES) {
    const part = area.part(at, Math.min(at + WINDOW_BYTES, end));
    crc = crc32c(part, 0, part.length, crc);
  }
  return crc;
}
