// A medium that is written beside another one: reads find what was written, the other one is only read. A machine
// can be restored to a saved state without a copy of its disk. Nothing of Node.
import type { ExternalMedium } from "../core/external-medium.js";
import { MmcError } from "../errors.js";
import { having } from "../judge.js";

const BASE = having("read");
const SECTOR_BYTES = 512;
const HEAD_BYTES = 16;
const ENTRY_BYTES = 8 + SECTOR_BYTES;

export class OverlayMedium implements ExternalMedium {
  readonly #base: Pick<ExternalMedium, "sizeBytes" | "read">;
  #sectors = new Map<number, Uint8Array>();

  /** `base` is never written, must not change meanwhile, and is read within its size only; zeros follow it. */
  constructor(base: Pick<ExternalMedium, "sizeBytes" | "read">) {
    BASE("base", base);
    this.#base = base;
  }

  get sizeBytes(): number {
    return this.#base.sizeBytes;
  }

  /** How many sectors differ from the base, or may. */
  get dirtySectors(): number {
    return this.#sectors.size;
  }

  /** Offset and length are whole sectors, as a Device has them. */
  read(offset: number, target: Uint8Array): void {
    for (let at = 0; at < target.length; at += SECTOR_BYTES) {
      const part = target.subarray(at, at + SECTOR_BYTES);
      const written = this.#sectors.get((offset + at) / SECTOR_BYTES);
      if (written !== undefined) part.set(written);
      else this.#readBase(offset + at, part);
    }
  }

  write(offset: number, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += SECTOR_BYTES) {
      this.#sectors.set((offset + at) / SECTOR_BYTES, data.slice(at, at + SECTOR_BYTES));
    }
  }

  /** What was written: the size of the base, the count of sectors, then number and bytes of each. */
  saveState(): Uint8Array {
    const state = new Uint8Array(HEAD_BYTES + this.#sectors.size * ENTRY_BYTES);
    const view = new DataView(state.buffer);
    view.setFloat64(0, this.sizeBytes, true);
    view.setFloat64(8, this.#sectors.size, true);
    let at = HEAD_BYTES;
    for (const [lba, bytes] of this.#sectors) {
      view.setFloat64(at, lba, true);
      state.set(bytes, at + 8);
      at += ENTRY_BYTES;
    }
    return state;
  }

  /** @throws MmcError EINVAL for bytes that are no state of an overlay on a base of this size; nothing has changed */
  loadState(state: Uint8Array): void {
    const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
    const count = state.length >= HEAD_BYTES ? view.getFloat64(8, true) : -1;
    const fits = state.length === HEAD_BYTES + count * ENTRY_BYTES;
    if (!fits || view.getFloat64(0, true) !== this.sizeBytes) {
      throw new MmcError("EINVAL", "loadState: these bytes are not what was written over this medium");
    }
    const sectors = new Map<number, Uint8Array>();
    for (let at = HEAD_BYTES; at < state.length; at += ENTRY_BYTES) {
      const lba = view.getFloat64(at, true);
      // A card of 2^32 sectors is the largest there is.
      if (!Number.isInteger(lba) || lba < 0 || lba >= 2 ** 32) {
        throw new MmcError("EINVAL", `loadState: ${lba} is no sector`);
      }
      sectors.set(lba, state.slice(at + 8, at + ENTRY_BYTES));
    }
    this.#sectors = sectors;
  }

  #readBase(offset: number, target: Uint8Array): void {
    const inside = Math.max(0, Math.min(target.length, this.#base.sizeBytes - offset));
    if (inside > 0) this.#base.read(offset, target.subarray(0, inside));
    target.fill(0, inside);
  }
}
