// The trace as a value change dump (IEEE 1364-2005 §18), which GTKWave and PulseView open. Times are simulated ns.
//
// The signals are what the trace says, not every edge: `clk_khz` instead of a clock, `cmd_index` and `cmd_argument`
// instead of 48 bits, a level for the time a block is on the wires. With `wires` there are also CLK and CMD, bit by bit
// and with their CRC7, while a command or its response is out, which a protocol decoder can read.
//
// Not modelled: DAT bits, and CLK while nothing is on CMD. A response that the controller found damaged is drawn with
// one bit of its CRC7 turned over, a command that the card found damaged is drawn as it was meant: the trace does
// not say which bits were hit. The start of a block follows from its length, the lines and the clock.
import { CARD_KINDS, type CardKind } from "../core/profile.js";
import { STATE_NAMES, type TraceEvent } from "../core/trace.js";
import { bool, judge, oneOf, type Shape } from "../judge.js";
import { commandFrame, responseFrame } from "./frames.js";
import { commandNumber } from "./names.js";

export interface VcdOptions {
  /** CLK and CMD as well. */
  wires?: boolean | undefined;
  /**
   * Signals of one bit only: libsigrok 0.5.2, which PulseView 0.4.2 and sigrok-cli 0.7.2 are built on, stops reading at
   * the first wider one. GTKWave takes both.
   */
  bitsOnly?: boolean | undefined;
  /** Names the card for what two kinds read differently. */
  card?: CardKind | undefined;
}

const OPTIONS: Shape<VcdOptions> = { wires: bool, bitsOnly: bool, card: oneOf(CARD_KINDS) };

/** Signals with their widths and the module they are in. */
const SIGNALS = {
  power: ["bus", 1],
  clk_khz: ["bus", 32],
  width: ["bus", 4],
  cmd_busy: ["bus", 2],
  cmd_index: ["bus", 6],
  cmd_app: ["bus", 1],
  cmd_argument: ["bus", 32],
  response_type: ["bus", 3],
  response: ["bus", 32],
  dat_read: ["bus", 1],
  dat_write: ["bus", 1],
  dat_busy: ["bus", 1],
  block_lba: ["bus", 32],
  crc_status: ["bus", 3],
  card_state: ["card", 4],
  card_status: ["card", 32],
  errors: ["host", 32],
  reset: ["host", 3],
  step: ["host", 4],
} as const satisfies Record<string, readonly [string, number]>;
/** cmd_busy: 0 idle, 1 the host sends, 2 the card sends. */
const HOST_SENDS = 1;
const CARD_SENDS = 2;
const WIRES = { CLK: ["wires", 1], CMD: ["wires", 1] } as const satisfies Record<
  string,
  readonly [string, number]
>;
type Signal = keyof typeof SIGNALS | keyof typeof WIRES;

/** A block's start bit, CRC16 and end bit; N_CRC and the CRC status behind a written one (mmc.md §1.11). */
const FRAME_CLOCKS = 18;
const CRC_STATUS_CLOCKS = 2 + 5;
const COMMAND_CLOCKS = 48;
const LONG_CLOCKS = 136;
/** Clocks behind the last frame: N_RC. */
const TRAILING_CLOCKS = 8;
const COMMAND_CRC_ERROR = 1 << 17;

type Change = { at: number; signal: Signal; value: number | null };

/** Collects changes in whatever order they become known. */
class Drawing {
  readonly changes: Change[] = [];
  #wireEnd = 0;

  set(at: number, signal: Signal, value: number | null): void {
    this.changes.push({ at, signal, value });
  }

  /** Frames on CMD with a clock that runs from the first bit to TRAILING_CLOCKS behind the last. */
  wires(startNs: number, khz: number, frames: { startNs: number; bytes: Uint8Array }[]): void {
    if (khz <= 0) return;
    const periodNs = 1e6 / khz;
    const bits = new Map<number, number>();
    let clocks = 0;
    for (const { startNs: frameNs, bytes } of frames) {
      const first = Math.round((frameNs - startNs) / periodNs);
      for (let i = 0; i < bytes.length * 8; i++) {
        bits.set(first + i, ((bytes[i >> 3] ?? 0) >> (7 - (i & 7))) & 1);
      }
      clocks = Math.max(clocks, first + bytes.length * 8);
    }
    const begin = Math.max(startNs, this.#wireEnd);
    this.set(begin, "CLK", 0);
    for (let i = 0; i < clocks + TRAILING_CLOCKS; i++) {
      // Bits change with the falling edge and are taken at the rising one, in the middle of each clock.
      const fallNs = Math.round(begin + i * periodNs);
      this.set(fallNs, "CLK", 0);
      this.set(fallNs, "CMD", bits.get(i) ?? 1);
      this.set(Math.round(begin + (i + 0.5) * periodNs), "CLK", 1);
    }
    this.#wireEnd = Math.round(begin + (clocks + TRAILING_CLOCKS) * periodNs);
    this.set(this.#wireEnd, "CLK", 0);
  }
}

interface Pending {
  command: Extract<TraceEvent, { kind: "command" }>;
  /** When the last bit of the command is out. */
  endNs: number;
}

/** Events in the order of the trace become changes; the same events give the same drawing. */
class Plotter {
  readonly drawing = new Drawing();
  #khz = 0;
  #lines = 1;
  #pending: Pending | null = null;
  #blockEnd = 0;
  readonly #options: VcdOptions;
  readonly #damaged: ReadonlySet<TraceEvent>;

  constructor(events: readonly TraceEvent[], options: VcdOptions) {
    this.#options = options;
    // The controller tells of a damaged response directly behind it, at the same time.
    this.#damaged = new Set(
      events.filter((event, i) => {
        const next = events[i + 1];
        return (
          event.kind === "response" &&
          next?.kind === "error" &&
          next.timeNs === event.timeNs &&
          (next.bits & COMMAND_CRC_ERROR) !== 0
        );
      }),
    );
  }

  /** A command with its response, or without one, goes to the wires. */
  #draw(response: Extract<TraceEvent, { kind: "response" }> | null): void {
    const pending = this.#pending;
    this.#pending = null;
    if (pending === null || this.#options.wires !== true) return;
    const { command } = pending;
    const startNs = Number(command.startNs);
    const frames = [{ startNs, bytes: commandFrame(command.index, command.argument) }];
    if (response !== null) {
      const isRight = response.type === "R3" || !this.#damaged.has(response);
      const bytes = responseFrame(response, isRight);
      const lengthNs = (bytes.length * 8 * 1e6) / command.clockKhz;
      frames.push({ startNs: Number(response.timeNs) - lengthNs, bytes });
    }
    this.drawing.wires(startNs, command.clockKhz, frames);
  }

  #block(timeNs: number, signal: "dat_read" | "dat_write", clocks: number, lba: number | null): void {
    const { drawing } = this;
    if (this.#khz > 0) {
      const lengthNs = Math.round((clocks * 1e6) / this.#khz);
      const startNs = Math.max(timeNs - lengthNs, this.#blockEnd);
      drawing.set(startNs, signal, 1);
      drawing.set(startNs, "block_lba", lba);
    }
    drawing.set(timeNs, signal, 0);
    this.#blockEnd = timeNs;
  }

  #clocks(bytes: number): number {
    return (bytes * 8) / this.#lines + FRAME_CLOCKS;
  }

  add(event: TraceEvent): void {
    const { drawing } = this;
    const at = Number(event.timeNs);
    switch (event.kind) {
      case "command": {
        this.#draw(null);
        const startNs = Number(event.startNs);
        this.#khz = event.clockKhz;
        drawing.set(startNs, "cmd_index", event.index);
        drawing.set(startNs, "cmd_app", commandNumber(event, this.#options.card).startsWith("A") ? 1 : 0);
        drawing.set(startNs, "cmd_argument", event.argument);
        drawing.set(startNs, "errors", 0);
        if (event.clockKhz === 0) break;
        const endNs = startNs + Math.round((COMMAND_CLOCKS * 1e6) / event.clockKhz);
        drawing.set(startNs, "cmd_busy", HOST_SENDS);
        drawing.set(endNs, "cmd_busy", 0);
        this.#pending = { command: event, endNs };
        break;
      }
      case "response": {
        const clocks = event.type === "R2" ? LONG_CLOCKS : COMMAND_CLOCKS;
        if (this.#pending !== null) {
          const lengthNs = Math.round((clocks * 1e6) / this.#khz);
          drawing.set(Math.max(at - lengthNs, this.#pending.endNs), "cmd_busy", CARD_SENDS);
        }
        drawing.set(at, "cmd_busy", 0);
        drawing.set(at, "response_type", Number(event.type.slice(1)));
        drawing.set(at, "response", event.words[0] ?? 0);
        if (event.type === "R1") drawing.set(at, "card_status", event.words[0] ?? 0);
        this.#draw(event);
        break;
      }
      case "no-response":
        drawing.set(at, "response_type", 0);
        drawing.set(at, "response", null);
        this.#draw(null);
        break;
      case "block-read":
        this.#block(at, "dat_read", this.#clocks(event.bytes), event.lba);
        break;
      case "block-write":
        this.#block(at, "dat_write", this.#clocks(event.bytes) + CRC_STATUS_CLOCKS, event.lba);
        drawing.set(at, "crc_status", event.crcStatus);
        break;
      case "busy-start":
        drawing.set(at, "dat_busy", 1);
        break;
      case "busy-end":
        drawing.set(at, "dat_busy", 0);
        break;
      case "transfer-complete":
        break;
      case "error":
        drawing.set(at, "errors", event.bits);
        break;
      case "reset": {
        const bits = (event.all ? 1 : 0) | (event.command ? 2 : 0) | (event.data ? 4 : 0);
        drawing.set(at, "reset", bits);
        // It is over with the access that asks for it; 1 ns makes it visible.
        drawing.set(at + 1, "reset", 0);
        drawing.set(at, "errors", 0);
        break;
      }
      case "power":
        drawing.set(at, "power", event.on ? 1 : 0);
        drawing.set(at, "dat_busy", 0);
        if (!event.on) drawing.set(at, "card_state", null);
        else drawing.set(at, "card_state", 0);
        break;
      case "clock":
        this.#khz = event.khz;
        drawing.set(at, "clk_khz", event.khz);
        break;
      case "width":
        this.#lines = event.lines;
        drawing.set(at, "width", event.lines);
        break;
      case "state":
        drawing.set(at, "card_state", STATE_NAMES.indexOf(event.state));
        break;
      case "step":
        drawing.set(at, "step", event.step);
        break;
    }
  }

  end(): void {
    this.#draw(null);
  }
}

/** `!`, `"`, `#` …: one printable character while they last. */
function identifier(index: number): string {
  return String.fromCharCode(33 + index);
}

function formatValue(value: number | null, bits: number, id: string): string {
  const digits = value === null ? "x" : (value >>> 0).toString(2);
  return bits === 1 ? `${digits}${id}` : `b${digits} ${id}`;
}

/** A VCD file of the events; the dump begins with the first of them, and what is not known then is x. */
export function formatVcd(events: readonly TraceEvent[], given: VcdOptions = {}): string {
  const options = judge("", given, OPTIONS);
  const plotter = new Plotter(events, options);
  for (const event of events) plotter.add(event);
  plotter.end();
  const { changes } = plotter.drawing;
  changes.sort((a, b) => a.at - b.at);
  const all = Object.entries({ ...SIGNALS, ...(options.wires ? WIRES : {}) });
  const signals = options.bitsOnly ? all.filter(([, [, width]]) => width === 1) : all;
  const ids = new Map(signals.map(([name], index) => [name, identifier(index)]));
  const bits = new Map(signals.map(([name, [, width]]) => [name, width as number]));
  const lines = [
    "$comment Simulated time of mmcpstore; cmd_busy: 0 idle, 1 host, 2 card. $end",
    `$comment card_state: ${STATE_NAMES.map((name, code) => `${code} ${name}`).join(", ")}. $end`,
    "$timescale 1 ns $end",
    "$scope module mmcpstore $end",
  ];
  for (const scope of new Set(signals.map(([, [module]]) => module))) {
    lines.push(`$scope module ${scope} $end`);
    for (const [name, [module, width]] of signals) {
      if (module !== scope) continue;
      const range = width === 1 ? "" : ` [${width - 1}:0]`;
      lines.push(`$var wire ${width} ${ids.get(name)} ${name}${range} $end`);
    }
    lines.push("$upscope $end");
  }
  lines.push("$upscope $end", "$enddefinitions $end");

  // What happens at the first moment belongs to it, not behind it.
  const firstNs = changes[0]?.at ?? 0;
  const values = new Map<string, string>();
  lines.push(`#${firstNs}`, "$dumpvars");
  for (const [name, [module, width]] of signals) {
    // The bus rests high: nothing is known of the rest.
    const rest = module === "wires" ? (name === "CMD" ? 1 : 0) : null;
    const text = formatValue(rest, width, ids.get(name) ?? "");
    values.set(name, text);
    lines.push(text);
  }
  lines.push("$end");
  let now = firstNs;
  for (let i = 0; i < changes.length; ) {
    const at = changes[i]?.at ?? 0;
    const latest = new Map<string, number | null>();
    for (; i < changes.length && changes[i]?.at === at; i++) {
      const { signal, value } = changes[i] as Change;
      // The last word of a moment counts, in the place of the first.
      latest.set(signal, value);
    }
    for (const [name, value] of latest) {
      if (!ids.has(name)) continue;
      const text = formatValue(value, bits.get(name) ?? 1, ids.get(name) ?? "");
      if (values.get(name) === text) continue;
      if (at !== now) lines.push(`#${at}`);
      now = at;
      values.set(name, text);
      lines.push(text);
    }
  }
  const lastNs = changes.at(-1)?.at ?? firstNs;
  if (lastNs !== now) lines.push(`#${lastNs}`);
  return `${lines.join("\n")}\n`;
}
