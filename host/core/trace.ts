// The core's trace as typed events and as text. Nothing of Node.
import * as layout from "../../assembly/layout.js";

export type TraceKind =
  | "command"
  | "response"
  | "no-response"
  | "block-read"
  | "block-write"
  | "busy-end"
  | "transfer-complete"
  | "error"
  | "reset"
  | "power"
  | "step";

/** One event. `a`, `b`, `c`: what TRACE_* in assembly/layout.ts says of its kind. */
export interface TraceEvent {
  timeNs: bigint;
  kind: TraceKind;
  a: number;
  b: number;
  c: number;
}

const KINDS: Record<number, TraceKind> = {
  [layout.TRACE_COMMAND]: "command",
  [layout.TRACE_RESPONSE]: "response",
  [layout.TRACE_NO_RESPONSE]: "no-response",
  [layout.TRACE_BLOCK_READ]: "block-read",
  [layout.TRACE_BLOCK_WRITE]: "block-write",
  [layout.TRACE_BUSY_END]: "busy-end",
  [layout.TRACE_TRANSFER_COMPLETE]: "transfer-complete",
  [layout.TRACE_ERROR]: "error",
  [layout.TRACE_RESET]: "reset",
  [layout.TRACE_POWER]: "power",
  [layout.TRACE_STEP]: "step",
};

/** Steps of a panic write, by STEP_*. */
export const STEP_NAMES = [
  "none",
  "take the host",
  "quiet the controller",
  "take the card",
  "choose a zone",
  "invalidate the old header",
  "write the body and the seal",
  "commit: write the header",
  "read back and compare",
  "done",
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

/** The events that the ring still holds, oldest first, and how many were lost before them. */
export function readTrace(memory: WebAssembly.Memory): { events: TraceEvent[]; lost: number } {
  const view = new DataView(memory.buffer);
  const count = view.getUint32(layout.TRACE_BASE, true);
  const first = Math.max(0, count - layout.TRACE_ENTRIES);
  const events: TraceEvent[] = [];
  for (let i = first; i < count; i++) {
    const at =
      layout.TRACE_BASE + layout.TRACE_HEAD_BYTES + (i % layout.TRACE_ENTRIES) * layout.TRACE_ENTRY_BYTES;
    const kind = KINDS[view.getUint32(at + 8, true)];
    if (kind === undefined) continue;
    events.push({
      timeNs: view.getBigUint64(at, true),
      kind,
      a: view.getUint32(at + 12, true),
      b: view.getUint32(at + 16, true),
      c: view.getUint32(at + 20, true),
    });
  }
  return { events, lost: first };
}

/** Forgets all events. */
export function clearTrace(memory: WebAssembly.Memory): void {
  new DataView(memory.buffer).setUint32(layout.TRACE_BASE, 0, true);
}

/** Simulated time for people: `12.345 µs`, `3.210 ms`. */
export function formatNs(timeNs: bigint): string {
  const ns = Number(timeNs);
  if (ns < 1_000_000) return `${(ns / 1000).toFixed(3)} µs`;
  if (ns < 10_000_000_000) return `${(ns / 1_000_000).toFixed(3)} ms`;
  return `${(ns / 1_000_000_000).toFixed(3)} s`;
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, "0")}`;
}

function describe({ kind, a, b, c }: TraceEvent): string {
  switch (kind) {
    case "command":
      return `CMD${a} ${hex(b)}`;
    case "response":
      return c === 1
        ? `  R1 ${hex(b)} (${STATE_NAMES[(b >>> 9) & 15] ?? "reserved"}${(b & 0x100) !== 0 ? ", ready" : ""})`
        : `  R${c} ${hex(b)}`;
    case "no-response":
      return "  no response";
    case "block-read":
      return `  block → host, ${a} bytes, sector ${b}`;
    case "block-write":
      return `  block → card, sector ${b}, CRC status ${c.toString(2).padStart(3, "0")}`;
    case "busy-end":
      return "  busy ends";
    case "transfer-complete":
      return "  transfer complete";
    case "error":
      return `  error ${hex(a)}`;
    case "reset":
      return `reset${(a & 1) !== 0 ? " all" : ""}${(a & 2) !== 0 ? " CMD" : ""}${(a & 4) !== 0 ? " DAT" : ""}`;
    case "power":
      return a === 0 ? "power off" : "power on";
    case "step":
      return `── ${STEP_NAMES[a] ?? `step ${a}`}`;
  }
}

/** One line an event. */
export function formatTrace(events: TraceEvent[]): string {
  return events.map((event) => `${formatNs(event.timeNs).padStart(15)}  ${describe(event)}\n`).join("");
}
