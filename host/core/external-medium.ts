// A medium that is not in the machine's memory, and the two calls by which the core reaches it. Nothing of Node.
import { SECTOR_BYTES } from "../../assembly/layout.js";
import type { CoreImports } from "./instantiate.js";

/** A medium that is not in the machine's memory: a file, OPFS. Both calls are synchronous; they throw on failure. */
export interface ExternalMedium {
  readonly sizeBytes: number;
  read(offset: number, target: Uint8Array): void;
  write(offset: number, data: Uint8Array): void;
  /** What it holds now, for SdhciPeripheral.saveState(); OverlayMedium has it. */
  saveState?(): Uint8Array;
  /** Back to that. Must change nothing if it throws. */
  loadState?(state: Uint8Array): void;
}

/** What an erased range is written with, by the number that stands for it in place of a pointer. */
const ERASED = [new Uint8Array(1 << 20), new Uint8Array(1 << 20).fill(0xff)];

/** For a core that could have an external medium and has none. */
export const NO_MEDIUM: NonNullable<CoreImports["medium"]> = { read: () => -1, write: () => -1 };

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
        if (!erased) call(offset, new Uint8Array(memory.buffer, ptr >>> 0, lengthBytes));
        // No pointer: zeros or ones, in pieces, because an erase may be as large as the card.
        for (let at = 0; erased && at < lengthBytes; at += erased.length) {
          call(offset + at, erased.subarray(0, Math.min(erased.length, lengthBytes - at)));
        }
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
