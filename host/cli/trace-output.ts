// The bus trace on the command line: coloured lines for --trace, and the file of --vcd. What --vcd names must not be
// there yet and must be possible to make: asked before anything is simulated or written.
import { accessSync, constants } from "node:fs";
import { dirname } from "node:path";
import type { Command } from "commander";
import type { CardKind } from "../core/profile.js";
import { formatNs, type TraceEvent } from "../core/trace.js";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { describeEvent } from "../trace/text.js";
import { formatVcd } from "../trace/vcd.js";
import { color, UsageError } from "./output.js";
import { exists, makeWholeFile, writeAll } from "./whole-file.js";

function paint(event: TraceEvent, text: string): string {
  switch (event.kind) {
    case "step":
      return color.bold(text);
    case "command":
      return color.cyan(text);
    case "error":
    case "no-response":
      return color.red(text);
    case "response":
      return (event.status?.errors.length ?? 0) > 0 ? color.red(text) : text;
    case "clock":
    case "width":
    case "state":
      return color.dim(text);
    default:
      return text;
  }
}

/** One line an event, as formatTrace() has it, in colours where they are wanted. */
export function traceLines(events: TraceEvent[], card: CardKind): string {
  return events
    .map((event) => {
      const time = color.dim(formatNs(event.timeNs).padStart(15));
      return `${time}  ${paint(event, describeEvent(event, card))}\n`;
    })
    .join("");
}

/** `--vcd` and `--vcd-bits`. */
export function addVcdOptions(command: Command, what: string): Command {
  return command
    .option("--vcd <file>", `save ${what} as a new VCD file, with the CMD line bit by bit`)
    .option("--vcd-bits", "in that file one-bit signals only: PulseView 0.4 stops at wider ones");
}

/** @throws MmcError EEXIST, EACCES, ENOENT: the file could not be made later. */
export function checkVcdOptions({ vcd: path, vcdBits }: { vcd?: string; vcdBits?: boolean }): void {
  if (path === undefined && vcdBits)
    throw new UsageError("--vcd-bits: says how --vcd is written; it is not given");
  if (path === undefined) return;
  if (exists(path)) throw new MmcError("EEXIST", `${path}: exists already`);
  try {
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    throw fileError(path, error);
  }
}

/** The events as a VCD file with the CMD line bit by bit: whole, or not there. */
export function writeVcd(path: string, events: TraceEvent[], card: CardKind, bitsOnly: boolean): void {
  const text = new TextEncoder().encode(formatVcd(events, { wires: true, bitsOnly, card }));
  makeWholeFile(path, (fd) => writeAll(fd, text));
}
