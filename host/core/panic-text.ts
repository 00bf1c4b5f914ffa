// What of a text goes into TEXT, which takes TEXT_BYTES_MAX bytes: the newest, and the line that Linux's printk puts in
// front of a dump (docs/FORMAT.md, "The first line"), which is not the log's and stays.
import { TEXT_BYTES_MAX } from "../../assembly/layout.js";

/** The longest that is taken for such a line. */
const LINE_BYTES_MAX = 48;
const NEWLINE = 0x0a;

/** `Panic#1 Part1⏎` in front of a text, or nothing. */
function firstLine(text: Uint8Array): Uint8Array {
  const end = text.subarray(0, LINE_BYTES_MAX).indexOf(NEWLINE);
  if (end < 0) return text.subarray(0, 0);
  const line = String.fromCharCode(...text.subarray(0, end));
  return /^[A-Za-z]+#[0-9]+ Part[0-9]+$/.test(line) ? text.subarray(0, end + 1) : text.subarray(0, 0);
}

/** The text itself if it fits; else its newest bytes, behind the line if there is one: then in whole lines. */
export function fitText(text: Uint8Array): Uint8Array {
  if (text.length <= TEXT_BYTES_MAX) return text;
  const line = firstLine(text);
  let from = text.length - (TEXT_BYTES_MAX - line.length);
  if (line.length === 0) return text.subarray(from);
  const next = text.indexOf(NEWLINE, from - 1);
  if (next >= 0 && next + 1 < text.length) from = next + 1;
  const kept = new Uint8Array(line.length + text.length - from);
  kept.set(line);
  kept.set(text.subarray(from), line.length);
  return kept;
}
