// The serial console of a guest as a source of its kernel log: the embedder feeds what the UART sends, the newest bytes
// are kept, and the lines in which Linux says that it dies are recognised. For guests without ramoops, and to learn
// when a panic is over: pvpanic tells its beginning, before anything was written. Bounded whatever is fed. Nothing of
// Node.
import { func, judge, type Shape, whole } from "../judge.js";
import { ownBytes } from "../own-bytes.js";

/**
 * `oops`: the kernel goes on, mostly. `panic`: it does not; stacks and pstore are still to come. `panic-end`: the last
 * line of a panic, behind kmsg_dump(): what ramoops gets, it has. A guest that reboots at once (`panic=-1`) never says
 * it.
 */
export type ConsoleEventKind = "oops" | "panic" | "panic-end";

export interface ConsoleEvent {
  kind: ConsoleEventKind;
  /** The message, from behind the time stamp on. */
  line: string;
}

export interface SerialConsoleOptions {
  /** Newest bytes that are kept; default 64 KiB. */
  capacityBytes?: number | undefined;
  /** Called within feed(), once for every such line, when the line is complete. */
  onEvent?: ((event: ConsoleEvent) => void) | undefined;
}

const CAPACITY_BYTES = 65536;
const OPTIONS: Shape<SerialConsoleOptions> = { capacityBytes: whole(1, 2 ** 31 - 1), onEvent: func };
/** printk's own limit for a line is 1024; the rest of a longer one is not looked at. */
const LINE_BYTES_MAX = 1024;
const LINE_FEED = 10;

/**
 * Only what the kernel itself writes: at the start of a line, or behind a time stamp, as a prompt may stand before it.
 * The stamp may be followed by the caller (`[T123]`).
 */
const START = String.raw`(?:^(?:<\d+>)?|\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? )`;
const MESSAGES: readonly [ConsoleEventKind, RegExp][] = [
  ["panic-end", new RegExp(`${START}(---\\[ end Kernel panic.*)`)],
  ["panic", new RegExp(`${START}(Kernel panic - not syncing.*)`)],
  ["oops", new RegExp(`${START}((?:Internal error: )?Oops(?::| - | \\[).*)`)],
];

export class SerialConsole {
  readonly #ring: Uint8Array;
  readonly #onEvent: SerialConsoleOptions["onEvent"];
  #fedBytes = 0;
  #line: number[] = [];

  /** @throws MmcError EINVAL an option that cannot be */
  constructor(options: SerialConsoleOptions = {}) {
    const { capacityBytes = CAPACITY_BYTES, onEvent } = judge("", options, OPTIONS);
    this.#ring = new Uint8Array(capacityBytes);
    this.#onEvent = onEvent;
  }

  /** Bytes that were fed and are no longer kept. */
  get droppedBytes(): number {
    return Math.max(0, this.#fedBytes - this.#ring.length);
  }

  /** One byte (its low 8 bits) or several, in the order in which the guest sent them. */
  feed(data: number | Uint8Array): void {
    if (typeof data === "number") this.#feedByte(data & 0xff);
    else for (const byte of data) this.#feedByte(byte);
  }

  /** The newest bytes, the oldest first, in a buffer of their own. */
  bytes(): Uint8Array {
    const capacity = this.#ring.length;
    if (this.#fedBytes <= capacity) return ownBytes(this.#ring, 0, this.#fedBytes);
    const start = this.#fedBytes % capacity;
    const ordered = new Uint8Array(capacity);
    ordered.set(this.#ring.subarray(start));
    ordered.set(this.#ring.subarray(0, start), capacity - start);
    return ordered;
  }

  /**
   * The same as a kernel log: without the carriage returns of the line, and from the first whole line on if older bytes
   * are gone. What panicWrite() takes.
   */
  kmsg(): Uint8Array {
    const bytes = this.bytes();
    const from = this.droppedBytes > 0 ? bytes.indexOf(LINE_FEED) + 1 : 0;
    return bytes.subarray(from).filter((byte) => byte !== 13);
  }

  /** Forgets everything, as when the guest starts anew. */
  clear(): void {
    this.#fedBytes = 0;
    this.#line = [];
  }

  #feedByte(byte: number): void {
    this.#ring[this.#fedBytes % this.#ring.length] = byte;
    this.#fedBytes++;
    if (byte !== LINE_FEED) {
      if (this.#line.length < LINE_BYTES_MAX && byte !== 13) this.#line.push(byte);
      return;
    }
    const text = String.fromCharCode(...this.#line);
    this.#line = [];
    for (const [kind, message] of MESSAGES) {
      const line = message.exec(text)?.[1];
      if (line === undefined) continue;
      this.#onEvent?.({ kind, line });
      return;
    }
  }
}
