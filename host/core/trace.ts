// The core's trace as typed events: what TRACE_* of assembly/layout.ts says, with names instead of a, b, c. Text and
// VCD are made of them in host/trace. Nothing of Node.
import * as layout from "../../assembly/layout.js";

/** Steps of a panic write, by STEP_*. */
export const STEP_NAMES = [
  "none",
  "take the host",
  "quiet the controller",
  "take the card",
  "compress the text",
  "choose a zone",
  "invalidate the old header",
  "write the body and the seal",
  "commit: write the header",
  "read back and compare",
  "done",
  "flush a ring",
  "store the crash dump",
] as const;

export const STATE_NAMES = [
  "idle",
  "ready",
  "ident",
  "stby",
  "tran",
  "data",
  "rcv",
  "prg",
  "dis",
  "btst",
  "slp",
  "ina",
] as const;
export type CardState = (typeof STATE_NAMES)[number];

/** Bits of R1 that are not the state (mmc.md §1.2); a bit that two kinds of card read differently has both names. */
const R1_BITS: [number, string][] = [
  [31, "OUT_OF_RANGE"],
  [30, "ADDRESS_ERROR"],
  [29, "BLOCK_LEN_ERROR"],
  [28, "ERASE_SEQ_ERROR"],
  [27, "ERASE_PARAM"],
  [26, "WP_VIOLATION"],
  [25, "CARD_IS_LOCKED"],
  [24, "LOCK_UNLOCK_FAILED"],
  [23, "COM_CRC_ERROR"],
  [22, "ILLEGAL_COMMAND"],
  [21, "CARD_ECC_FAILED"],
  [20, "CC_ERROR"],
  [19, "ERROR"],
  [18, "UNDERRUN"],
  [17, "OVERRUN"],
  [16, "CSD_OVERWRITE"],
  [15, "WP_ERASE_SKIP"],
  [14, "CARD_ECC_DISABLED"],
  [13, "ERASE_RESET"],
  [7, "SWITCH_ERROR"],
  [6, "EXCEPTION_EVENT"],
  [3, "AKE_SEQ_ERROR"],
];

/** Error bits of SDHCI_INT_STATUS. */
const HOST_ERROR_BITS: [number, string][] = [
  [16, "COMMAND_TIMEOUT"],
  [17, "COMMAND_CRC"],
  [18, "COMMAND_END_BIT"],
  [19, "COMMAND_INDEX"],
  [20, "DATA_TIMEOUT"],
  [21, "DATA_CRC"],
  [22, "DATA_END_BIT"],
  [23, "BUS_POWER"],
  [24, "AUTO_COMMAND"],
  [25, "ADMA"],
  [26, "TUNING"],
];

/** The card status of an R1. */
export interface CardStatus {
  /** The card's state when the command arrived. */
  state: CardState | "reserved";
  ready: boolean;
  /** The next command is an application command (SD). */
  appCommand: boolean;
  /** Names of the error and event bits that are set, the highest bit first. */
  errors: string[];
}

export function decodeCardStatus(word: number): CardStatus {
  const code = (word >>> 9) & 15;
  return {
    // 11 is how this model codes an inactive card, which never answers.
    state: code < 11 ? (STATE_NAMES[code] as CardState) : "reserved",
    ready: ((word >>> 8) & 1) !== 0,
    appCommand: ((word >>> 5) & 1) !== 0,
    errors: namesOf(word, R1_BITS),
  };
}

function namesOf(word: number, bits: [number, string][]): string[] {
  return bits.filter(([bit]) => ((word >>> bit) & 1) !== 0).map(([, name]) => name);
}

/** What DAT0 is low for. */
export type BusyOperation =
  | "program"
  | "cache"
  | "erase"
  | "switch"
  | "flush"
  | "sleep"
  | "awake"
  | "failed program"
  | "interrupt"
  | "finish"
  | "other";
const OPERATIONS: Record<number, BusyOperation> = {
  1: "program",
  2: "cache",
  3: "erase",
  4: "switch",
  5: "flush",
  6: "sleep",
  7: "awake",
  8: "failed program",
  9: "interrupt",
  12: "finish",
};
/** In a block's entry: it is no sector. */
const NO_LBA = 0xffffffff;
const WITH_LBA: ReadonlySet<BusyOperation> = new Set(["program", "cache", "erase", "failed program"]);

export type ResponseType = "R1" | "R2" | "R3" | "R4" | "R5" | "R6" | "R7";

/** One event; `timeNs` is the simulated time at which it was over, or known. */
export type TraceEvent = { timeNs: bigint } & (
  | {
      /** The driver has written the command; its first bit goes out at `startNs`. */
      kind: "command";
      index: number;
      argument: number;
      /** CMD55 was answered directly before: on an SD card an ACMD. */
      app: boolean;
      startNs: bigint;
      /** 0: without a clock it never goes out. */
      clockKhz: number;
    }
  | {
      /** The last bit of the response. */
      kind: "response";
      index: number;
      type: ResponseType;
      /** One word; of an R2 four, bits 127:96 first, CRC7 and end bit included. */
      words: number[];
      /** Of an R1. */
      status: CardStatus | null;
    }
  | { kind: "no-response"; index: number }
  | {
      /** Its last bit, towards the host. `lba` null: a register, a switch status. */
      kind: "block-read";
      lba: number | null;
      bytes: number;
      crcRight: boolean;
    }
  | {
      /** The end of its CRC status: 2 taken, 5 wrong CRC, 7 not written, 0 none. */
      kind: "block-write";
      /** null: a register, or the header of a packed command. */
      lba: number | null;
      bytes: number;
      crcStatus: number;
    }
  | { kind: "busy-start"; operation: BusyOperation; lba: number | null }
  | {
      /** `cut`: by CMD0 or by the supply, not by itself. */
      kind: "busy-end";
      operation: BusyOperation;
      lba: number | null;
      cut: boolean;
    }
  | { kind: "transfer-complete" }
  | { kind: "error"; bits: number; names: string[] }
  | { kind: "reset"; all: boolean; command: boolean; data: boolean }
  | { kind: "power"; on: boolean }
  | { kind: "clock"; khz: number }
  | { kind: "width"; lines: number }
  | { kind: "state"; state: CardState }
  | { kind: "step"; step: number; name: string; detail: number }
);
export type TraceKind = TraceEvent["kind"];

/** Events out of the ring, in order. Remembers between calls whether an ACMD follows, and what was given. */
export class TraceReader {
  #given = 0;
  #app = false;

  /** The events since the last call, and how many of them the ring no longer holds. */
  read(memory: WebAssembly.Memory): { events: TraceEvent[]; lost: number } {
    const view = new DataView(memory.buffer);
    const count = view.getUint32(layout.TRACE_BASE, true);
    const first = Math.max(this.#given, count - layout.TRACE_ENTRIES);
    const lost = first - this.#given;
    if (lost > 0) this.#app = false;
    const events: TraceEvent[] = [];
    for (let i = first; i < count; i++) {
      const at =
        layout.TRACE_BASE + layout.TRACE_HEAD_BYTES + (i % layout.TRACE_ENTRIES) * layout.TRACE_ENTRY_BYTES;
      const event = this.#decode(view, at);
      if (event !== null) events.push(event);
    }
    this.#given = count;
    return { events, lost };
  }

  /** What the ring holds now is not given any more: it was given, or belongs to another time. */
  skip(memory: WebAssembly.Memory): void {
    this.#given = new DataView(memory.buffer).getUint32(layout.TRACE_BASE, true);
    this.#app = false;
  }

  #decode(view: DataView, at: number): TraceEvent | null {
    const timeNs = view.getBigUint64(at, true);
    const [a, b, c, d, e] = [12, 16, 20, 24, 28].map((offset) => view.getUint32(at + offset, true)) as [
      number,
      number,
      number,
      number,
      number,
    ];
    switch (view.getUint32(at + 8, true)) {
      case layout.TRACE_COMMAND: {
        const app = this.#app;
        this.#app = false;
        const startNs = timeNs + BigInt(c);
        return { timeNs, kind: "command", index: a, argument: b, app, startNs, clockKhz: d };
      }
      case layout.TRACE_RESPONSE: {
        const index = a & 0xff;
        const type = `R${a >>> 8}` as ResponseType;
        const status = type === "R1" ? decodeCardStatus(b) : null;
        this.#app = index === 55 && status?.appCommand === true;
        return { timeNs, kind: "response", index, type, words: type === "R2" ? [e, d, c, b] : [b], status };
      }
      case layout.TRACE_NO_RESPONSE:
        return { timeNs, kind: "no-response", index: a };
      case layout.TRACE_BLOCK_READ:
        return {
          timeNs,
          kind: "block-read",
          lba: b === NO_LBA ? null : b,
          bytes: a,
          crcRight: c === 0,
        };
      case layout.TRACE_BLOCK_WRITE:
        return { timeNs, kind: "block-write", lba: b === NO_LBA ? null : b, bytes: a, crcStatus: c };
      case layout.TRACE_BUSY_START:
      case layout.TRACE_BUSY_END: {
        const operation = OPERATIONS[a] ?? "other";
        const lba = WITH_LBA.has(operation) ? b : null;
        return view.getUint32(at + 8, true) === layout.TRACE_BUSY_START
          ? { timeNs, kind: "busy-start", operation, lba }
          : { timeNs, kind: "busy-end", operation, lba, cut: c !== 0 };
      }
      case layout.TRACE_TRANSFER_COMPLETE:
        return { timeNs, kind: "transfer-complete" };
      case layout.TRACE_ERROR:
        return { timeNs, kind: "error", bits: a, names: namesOf(a, HOST_ERROR_BITS) };
      case layout.TRACE_RESET:
        return {
          timeNs,
          kind: "reset",
          all: (a & 1) !== 0,
          command: (a & 2) !== 0,
          data: (a & 4) !== 0,
        };
      case layout.TRACE_POWER:
        return { timeNs, kind: "power", on: a !== 0 };
      case layout.TRACE_CLOCK:
        return { timeNs, kind: "clock", khz: a };
      case layout.TRACE_WIDTH:
        return { timeNs, kind: "width", lines: a };
      case layout.TRACE_STATE:
        return { timeNs, kind: "state", state: STATE_NAMES[a] ?? "ina" };
      case layout.TRACE_STEP:
        return { timeNs, kind: "step", step: a, name: STEP_NAMES[a] ?? `step ${a}`, detail: b };
      default:
        return null;
    }
  }
}

/** The events that the ring still holds, oldest first, and how many were lost before them. */
export function readTrace(memory: WebAssembly.Memory): { events: TraceEvent[]; lost: number } {
  return new TraceReader().read(memory);
}

/** Forgets all events. */
export function clearTrace(memory: WebAssembly.Memory): void {
  new DataView(memory.buffer).setUint32(layout.TRACE_BASE, 0, true);
}

/** Clock, lines and the card's state are told anew at the next register that is written. */
export function retellLevels(memory: WebAssembly.Memory): void {
  const at = layout.TRACE_BASE + layout.TRACE_LEVELS;
  new Uint8Array(memory.buffer, at, layout.TRACE_HEAD_BYTES - layout.TRACE_LEVELS).fill(0);
}

/** Simulated time for people: `12.345 µs`, `3.210 ms`. */
export function formatNs(timeNs: bigint): string {
  const ns = Number(timeNs);
  if (ns < 1_000_000) return `${(ns / 1000).toFixed(3)} µs`;
  if (ns < 10_000_000_000) return `${(ns / 1_000_000).toFixed(3)} ms`;
  return `${(ns / 1_000_000_000).toFixed(3)} s`;
}
