// Where a crash dump waits for its reader, as in Linux's devcoredump: one a device, until somebody writes to it, until
// its time is over, or until dumps are switched off for good. Time is told, by advance() alone. Must never keep a dump
// that nobody can reach, and never free one twice. Nothing of Node.
import { MmcError } from "../errors.js";

/** Linux's DEVCD_TIMEOUT: five minutes from the dump on, whatever is read meanwhile. */
export const DEVCOREDUMP_TIMEOUT_NS = 300_000_000_000n;

/**
 * Why a dump was freed: a reader wrote to it; its time was over; dumps were switched off; `pending`: the device had one
 * waiting already, so this one was dropped.
 */
export type DevcoredumpEnd = "written" | "expired" | "disabled" | "pending";

/** A dump as its device hands it over. */
export interface DevcoredumpSource {
  /** Bytes from `offset` on: fewer than `count` only at the end, none from there on. */
  read(offset: number, count: number): Uint8Array;
  /** Called once, at the end; nothing is read after it. Must not throw. */
  free(end: DevcoredumpEnd): void;
}

/** One dump that waits: `/sys/class/devcoredump/devcdN`. Made by {@link Devcoredump.add}. */
export interface DevcoredumpEntry {
  /** `devcd1`, `devcd2`, …: never given twice. */
  readonly name: string;
  /** The failing device. */
  readonly device: string;
  /** When it is freed if nobody writes to it. */
  readonly expiresNs: bigint;
  /**
   * `count` bytes of the dump from `offset` on; fewer only at its end. As often as you like: reading frees nothing.
   * @throws MmcError ENODEV freed meanwhile; EINVAL a broken number; and what the source throws.
   */
  read(offset: number, count: number): Uint8Array;
  /**
   * The reader is done: whatever is written, the dump is freed. Returns how many bytes were written, which is all.
   * @throws MmcError ENODEV freed already.
   */
  write(data: Uint8Array): number;
}

interface Pending {
  entry: DevcoredumpEntry;
  free(end: DevcoredumpEnd): void;
}

/** All dumps that wait, and their clock: `/sys/class/devcoredump`. */
export class Devcoredump {
  /** By device, in the order in which they came. */
  readonly #pending = new Map<string, Pending>();
  #nowNs = 0n;
  #made = 0;
  #isDisabled = false;

  get nowNs(): bigint {
    return this.#nowNs;
  }

  /** True from `writeDisabled("1")` on. */
  get isDisabled(): boolean {
    return this.#isDisabled;
  }

  /** What waits, oldest first. */
  entries(): DevcoredumpEntry[] {
    return [...this.#pending.values()].map(({ entry }) => entry);
  }

  /**
   * Takes a dump. Returns null if it is dropped: then it was freed at once, with the reason.
   * @param timeoutNs at least 1.
   * @throws MmcError EINVAL a timeout that is none.
   */
  add(
    device: string,
    source: DevcoredumpSource,
    timeoutNs = DEVCOREDUMP_TIMEOUT_NS,
  ): DevcoredumpEntry | null {
    if (timeoutNs < 1n) throw new MmcError("EINVAL", `${device}: a dump cannot wait ${timeoutNs} ns`);
    if (this.#isDisabled || this.#pending.has(device)) {
      source.free(this.#isDisabled ? "disabled" : "pending");
      return null;
    }
    const name = `devcd${++this.#made}`;
    let isFreed = false;
    const check = () => {
      if (isFreed) throw new MmcError("ENODEV", `${name}: the dump is gone`);
    };
    const free = (end: DevcoredumpEnd) => {
      // Gone before its device hears of it: that may crash again and add the next one.
      isFreed = true;
      this.#pending.delete(device);
      source.free(end);
    };
    const entry: DevcoredumpEntry = {
      name,
      device,
      expiresNs: this.#nowNs + timeoutNs,
      read: (offset, count) => {
        check();
        if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(count) || offset < 0 || count < 0) {
          throw new MmcError("EINVAL", `${name}: cannot read ${count} bytes at ${offset}`);
        }
        return source.read(offset, count);
      },
      write: (data) => {
        check();
        free("written");
        return data.length;
      },
    };
    this.#pending.set(device, { entry, free });
    return entry;
  }

  /**
   * It is `nowNs`: frees what has expired until then, each at its own time and the earliest first, so that it makes no
   * difference in how many steps the time goes on.
   * @throws MmcError EINVAL a time before the one that it was.
   */
  advance(nowNs: bigint): void {
    if (nowNs < this.#nowNs) {
      throw new MmcError("EINVAL", `time cannot go from ${this.#nowNs} back to ${nowNs} ns`);
    }
    for (let next = this.#earliest(); next !== undefined; next = this.#earliest()) {
      if (next.entry.expiresNs > nowNs) break;
      this.#nowNs = next.entry.expiresNs;
      next.free("expired");
    }
    this.#nowNs = nowNs;
  }

  /**
   * `/sys/class/devcoredump/disabled`: `1` frees every dump and drops all later ones; there is no way back.
   * @throws MmcError EINVAL anything else.
   */
  writeDisabled(text: string): void {
    if (text.replace(/\n$/, "") !== "1") throw new MmcError("EINVAL", "devcoredump: only 1 can be written");
    this.#isDisabled = true;
    for (const { free } of [...this.#pending.values()]) free("disabled");
  }

  #earliest(): Pending | undefined {
    let earliest: Pending | undefined;
    for (const pending of this.#pending.values()) {
      if (earliest === undefined || pending.entry.expiresNs < earliest.entry.expiresNs) earliest = pending;
    }
    return earliest;
  }
}
