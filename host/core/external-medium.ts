// A medium that is not in the machine's memory, and the two calls by which the core reaches it. Nothing of Node.
import { SECTOR_BYTES } from "../../assembly/layout.js";
import { MmcError } from "../errors.js";
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

/** What the core reaches of it. */
type Reached = Pick<ExternalMedium, "read" | "write" | "erase">;

/** What an erased range is written with, by the number that stands for it in place of a pointer. */
const ERASED = [new Uint8Array(1 << 20), new Uint8Array(1 << 20).fill(0xff)];

/** For a core that could have an external medium and has none. */
export const NO_MEDIUM: NonNullable<CoreImports["medium"]> = { read: () => -1, write: () => -1 };

/** What a call of the medium returned. @throws MmcError EINVAL a promise: nothing has been moved yet */
function mustBeOver(call: string, said: unknown): void {
  if (!(said instanceof Promise)) return;
  said.catch(() => undefined);
  throw new MmcError("EINVAL", `medium: ${call}() is to be over when it returns, not a promise`);
}

/**
 * `pattern`: what the range is full of then; a medium that cannot erase gets it in pieces, and `tell` how many bytes
 * are done before each.
 */
function eraseOf(
  medium: Reached,
  offset: number,
  lengthBytes: number,
  pattern: Uint8Array,
  tell: (doneBytes: number) => void,
): void {
  if (medium.erase) {
    mustBeOver("erase", medium.erase(offset, lengthBytes, pattern[0] as number));
    return;
  }
  for (let at = 0; at < lengthBytes; at += pattern.length) {
    tell(at);
    mustBeOver(
      "write",
      medium.write(offset + at, pattern.subarray(0, Math.min(pattern.length, lengthBytes - at))),
    );
  }
}

/** Most failures that are kept: the first ones, and the last one. */
const FAILURES_MAX = 32;

interface Failure {
  /** Of the device; 0: a guest's access, which belongs to none. */
  call: number;
  isWrite: boolean;
  /** What of the range has not been moved since, in bytes; empty: the failure is healed. */
  from: number;
  to: number;
  error: unknown;
}

/**
 * What an external medium has thrown and no retry has healed. Each failure belongs to the call of the device in which
 * it happened and is forgotten when the next one begins; those of a guest's accesses, which belong to none, stay until
 * somebody takes them.
 */
export class MediumFailures {
  #failures: Failure[] = [];
  #calls = 0;
  #isInCall = false;

  /** A call of the device begins. */
  begin(): void {
    this.#isInCall = true;
    this.#calls++;
    this.#failures = this.#failures.filter(({ call }) => call === 0);
  }

  /** It is over: what it has met can still be taken. */
  end(): void {
    this.#isInCall = false;
  }

  note(isWrite: boolean, from: number, to: number, error: unknown): void {
    if (this.#failures.length === FAILURES_MAX) this.#failures.pop();
    this.#failures.push({ call: this.#isInCall ? this.#calls : 0, isWrite, from, to, error });
  }

  /** These bytes were moved: a failure is over with its last byte, which single blocks in their order come to. */
  heal(isWrite: boolean, from: number, to: number): void {
    if (this.#failures.length === 0) return;
    for (const failure of this.#failures) {
      if (failure.isWrite === isWrite && from <= failure.from && failure.from < to) failure.from = to;
    }
    this.#failures = this.#failures.filter((failure) => failure.from < failure.to);
  }

  /** What the medium threw last in the call under way; undefined: nothing that was not healed. */
  ofThisCall(): unknown {
    return this.#failures.findLast(({ call }) => call === this.#calls)?.error;
  }

  /** The first of them, and forgets all. */
  take(): unknown {
    const failure = this.#failures[0]?.error;
    this.#failures = [];
    return failure;
  }
}

/**
 * The imports that reach `medium`. `onCall` runs before each call; what the medium throws is noted in `failures`, and
 * the core is told that the call failed.
 */
export function mediumImports(
  medium: Reached,
  memory: WebAssembly.Memory,
  failures: MediumFailures,
  onCall: () => void,
): NonNullable<CoreImports["medium"]> {
  const guarded = (isWrite: boolean, move: (offset: number, bytes: Uint8Array) => unknown) => {
    return (partition: number, lba: number, sectors: number, ptr: number) => {
      // Boot partitions of an external medium have no place to be.
      if (partition !== 0) return -1;
      onCall();
      const offset = (lba >>> 0) * SECTOR_BYTES;
      const lengthBytes = (sectors >>> 0) * SECTOR_BYTES;
      let done = 0;
      try {
        const erased = ERASED[ptr];
        if (erased) {
          eraseOf(medium, offset, lengthBytes, erased, (doneBytes) => {
            done = doneBytes;
          });
        } else {
          const bytes = new Uint8Array(memory.buffer, ptr >>> 0, lengthBytes);
          mustBeOver(isWrite ? "write" : "read", move(offset, bytes));
        }
        failures.heal(isWrite, offset, offset + lengthBytes);
        return 0;
      } catch (error) {
        failures.note(isWrite, offset + done, offset + lengthBytes, error);
        return -1;
      }
    };
  };
  return {
    read: guarded(false, (offset, bytes) => medium.read(offset, bytes)),
    write: guarded(true, (offset, bytes) => medium.write(offset, bytes)),
  };
}
