// A medium that is not in the machine's memory, and the two calls by which the core reaches it. Nothing of Node.
import { SECTOR_BYTES } from "../../assembly/layout.js";
import type { CoreImports } from "./instantiate.js";

/**
 * A medium that is not in the machine's memory: a file, OPFS. All calls are synchronous and throw on failure. Offsets
 * and lengths are bytes, whole sectors of 512; `target` and `data` are views that hold during the call only.
 */
export interface ExternalMedium {
  readonly sizeBytes: number;
  read(offset: number, target: Uint8Array): void;
  write(offset: number, data: Uint8Array): void;
  /**
   * The range reads as `byte` (0 or 255) from now on. One call for each erase, trim or discard of the card's, which may
   * be as large as the card: whoever can should store less than the bytes. Without it they are written, 1 MiB at a
   * time.
   */
  erase?(offset: number, lengthBytes: number, byte: number): void;
  /** What it holds now, for SdhciPeripheral.saveState(); OverlayMedium has it. */
  saveState?(): Uint8Array;
  /** Back to that. Must change nothing if it throws. */
  loadState?(state: Uint8Array): void;
}

/** What an erased range is written with, by the number that stands for it in place of a pointer. */
const ERASED = [new Uint8Array(1 << 20), new Uint8Array(1 << 20).fill(0xff)];

/** For a core that could have an external medium and has none. */
export const NO_MEDIUM: NonNullable<CoreImports["medium"]> = { read: () => -1, write: () => -1 };

/** `pattern`: what the range is full of then; a medium that cannot erase gets it in pieces. */
function eraseOf(medium: ExternalMedium, offset: number, lengthBytes: number, pattern: Uint8Array): void {
  if (medium.erase) {
    medium.erase(offset, lengthBytes, pattern[0] as number);
    return;
  }
  for (let at = 0; at < lengthBytes; at += pattern.length) {
    medium.write(offset + at, pattern.subarray(0, Math.min(pattern.length, lengthBytes - at)));
  }
}

/**
 * The imports that reach `medium`. `onCall` runs before each call; what the medium throws is put into `failures`, and
 * the core is told that the call failed.
 */
export function mediumImports(
  medium: ExternalMedium,
  memory: WebAssembly.Memory,
  failures: unknown[],
  onCall: () => void,
): NonNullable<CoreImports["medium"]> {
  const guarded = (call: (offset: number, bytes: Uint8Array) => void) => {
    return (partition: number, lba: number, sectors: number, ptr: number) => {
      // Boot partitions of an external medium have no place to be.
      if (partition !== 0) return -1;
      onCall();
      try {
        const offset = (lba >>> 0) * SECTOR_BYTES;
        const lengthBytes = (sectors >>> 0) * SECTOR_BYTES;
        const erased = ERASED[ptr];
        if (erased) eraseOf(medium, offset, lengthBytes, erased);
        else call(offset, new Uint8Array(memory.buffer, ptr >>> 0, lengthBytes));
        return 0;
      } catch (error) {
        failures.push(error);
        return -1;
      }
    };
  };
  return {
    read: guarded((offset, bytes) => medium.read(offset, bytes)),
    write: guarded((offset, bytes) => medium.write(offset, bytes)),
  };
}
