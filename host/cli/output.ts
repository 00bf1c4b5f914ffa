// Everything the command line prints: standard output that waits for its reader, colours, tables, JSON, and
// the one line of an error. Must never print a stack trace, and never a colour that nobody asked for.
import picocolors from "picocolors";
import stringWidth from "string-width";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";

/** Wrong usage: exit code 2. The message is `what: why`. */
export class UsageError extends Error {}

/**
 * NO_COLOR wins, then FORCE_COLOR, then whether it is a terminal. picocolors' own idea takes
 * FORCE_COLOR=0 for a yes, and CI for a terminal.
 */
function wantsColor(): boolean {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
  if (NO_COLOR) return false;
  if (FORCE_COLOR !== undefined && FORCE_COLOR !== "") return !/^(0|false)$/i.test(FORCE_COLOR);
  return process.stdout.isTTY === true && TERM !== "dumb";
}

/** Colours for standard output; they leave the text as it is where colours are not wanted. */
export const color = picocolors.createColors(wantsColor());

/** A state in its colour. */
export function colorState(state: string): string {
  if (state === "ok" || state === "complete") return color.green(state);
  if (state === "salvaged" || state === "partial") return color.yellow(state);
  if (state === "torn" || state === "undecodable" || state === "damaged") return color.red(state);
  return color.dim(state);
}

/** Ends the program: quietly when the reader went away (`| head`), else with the one line. */
function failStandardOutput(error: unknown): never {
  if ((error as { code?: unknown }).code === "EPIPE") process.exit();
  process.stderr.write(`mmcpstore: ${fileError("standard output", error).message}\n`);
  process.exit(1);
}

/** Writes to standard output; resolves when the bytes are taken. */
export function write(data: string | Uint8Array): Promise<void> {
  return new Promise((resolve) => {
    if (data.length === 0) resolve();
    else process.stdout.write(data, (error) => (error ? failStandardOutput(error) : resolve()));
  });
}

const PLAIN_CELL = /^[ -~]*$/;

/** Columns that `text` takes on a terminal, without its colours. */
function columnsOf(text: string): number {
  return PLAIN_CELL.test(text) ? text.length : stringWidth(text);
}

/** Columns without lines around them; `right`: the columns that are aligned to the right. Linear in its cells. */
export function formatTable(head: string[], rows: string[][], right: number[] = []): string {
  const widths = head.map(columnsOf);
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, columnsOf(cell));
  }
  const line = (cells: string[]) => {
    const padded = cells.map((cell, i) => {
      const space = " ".repeat((widths[i] ?? 0) - columnsOf(cell));
      return right.includes(i) ? space + cell : cell + space;
    });
    return `${padded.join("  ").trimEnd()}\n`;
  };
  const lines = [line(head.map((title) => color.bold(title)))];
  for (const row of rows) lines.push(line(row));
  return lines.join("");
}

/** JSON of two spaces; a bigint becomes a decimal string. */
export function formatJson(value: unknown): string {
  const text = JSON.stringify(value, (_, one) => (typeof one === "bigint" ? one.toString() : one), 2);
  return `${text}\n`;
}

/** `1 record`, `2 records`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** `64 KiB`, `1000 bytes`: in the largest unit that leaves a whole number. */
export function formatSize(sizeBytes: number): string {
  for (const [unitBytes, unit] of [
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ] as const) {
    if (sizeBytes >= unitBytes && sizeBytes % unitBytes === 0) return `${sizeBytes / unitBytes} ${unit}`;
  }
  return counted(sizeBytes, "byte");
}

/** A remark for people on standard error; not an error. */
export function remark(text: string): void {
  process.stderr.write(`mmcpstore: ${text}\n`);
}

/** What an error says in one line, whatever it is. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const line = text.replace(/\p{Cc}+/gu, " ").trim();
  if (error instanceof MmcError || error instanceof UsageError) return line;
  if (typeof (error as { syscall?: unknown } | null)?.syscall === "string") {
    const { path } = error as { path?: unknown };
    return fileError(typeof path === "string" ? path : "input or output", error).message;
  }
  return `internal error: ${line || "unknown"}`;
}

/** Failures of writes that nobody waits for: commander's help, and remarks. */
export function watchStandardOutput(): void {
  process.stdout.on("error", failStandardOutput);
  process.stderr.on("error", () => process.exit(1));
}
