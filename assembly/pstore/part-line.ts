// The first line of what Linux hands over, `Panic#1 Part1` (kmsg_dump's reason, its dumps since boot, the part). A text
// that loses its oldest bytes keeps it, and each part of a long log begins with one of its own: ABRT passes over a file
// without it. The line stands in front of a piece of the text only while that is deflated or written.

import { PSTORE_BASE } from "../layout";

/** Behind Record in the pstore block: the line of the part at hand, and the bytes in whose place it stands. */
const LINE: usize = PSTORE_BASE + 0x140;
const COVERED: usize = PSTORE_BASE + 0x180;
/** The longest that is taken for one: a reason, two numbers of ten digits. */
const LINE_BYTES_MAX: u32 = 48;
const DIGITS_MAX: u32 = 10;
const NEWLINE: u32 = 0x0a;
const HASH: u32 = 0x23;
const ZERO: u32 = 0x30;
/** ` Part`, as two words and a byte. */
const SPACE_PAR: u32 = 0x72615020;
const T: u32 = 0x74;
const SPACE_PART_BYTES: u32 = 5;

function isDigit(byte: u32): bool {
  return byte - ZERO < 10;
}

function isLetter(byte: u32): bool {
  return (byte | 0x20) - 0x61 < 26;
}

/** The first byte of `from … until - 1` that is no digit (`digits`) or no letter, or `until`. */
function runEnd(from: usize, until: usize, digits: bool): usize {
  const most = <u32>(until - from);
  for (let i: u32 = 0; i < most && i < LINE_BYTES_MAX; i++) {
    const byte: u32 = load<u8>(from + i);
    if (digits ? !isDigit(byte) : !isLetter(byte)) return from + i;
  }
  return until;
}

/** Bytes in front of the part's number, 0 if the `count` bytes at `text` do not begin with such a line. */
function numberOffset(text: usize, count: u32): u32 {
  const until = text + (count < LINE_BYTES_MAX ? count : LINE_BYTES_MAX);
  const hash = runEnd(text, until, false);
  if (hash == text || hash + 2 > until || load<u8>(hash) != HASH) return 0;
  const space = runEnd(hash + 1, until, true);
  const number = space + SPACE_PART_BYTES;
  if (space == hash + 1 || number > until || load<u32>(space) != SPACE_PAR || load<u8>(space, 4) != T)
    return 0;
  const end = runEnd(number, until, true);
  return end == number || end >= until || load<u8>(end) != NEWLINE ? 0 : <u32>(number - text);
}

/** Length of the line with which the `count` bytes at `text` begin, its newline too; 0: there is none. */
export function partLineBytes(text: usize, count: u32): u32 {
  const offset = numberOffset(text, count);
  return offset == 0 ? 0 : <u32>(runEnd(text + offset, text + LINE_BYTES_MAX, true) - text) + 1;
}

/** Keeps the line at `text`, of `bytes`. */
export function keepPartLine(text: usize, bytes: u32): void {
  memory.copy(LINE, text, bytes);
}

/** The kept line, of `bytes`, becomes that of `part`. Returns its length then. */
export function numberPartLine(bytes: u32, part: u32): u32 {
  const offset = numberOffset(LINE, bytes);
  let digits: u32 = 1;
  for (let rest = part / 10; rest > 0 && digits < DIGITS_MAX; rest /= 10) digits += 1;
  let rest = part;
  for (let i: u32 = digits; i > 0 && i <= DIGITS_MAX; i--) {
    store<u8>(LINE + offset + i - 1, <u8>(ZERO + (rest % 10)));
    rest /= 10;
  }
  store<u8>(LINE + offset + digits, <u8>NEWLINE);
  return offset + digits + 1;
}

/** The line, of `bytes`, in front of `ptr`. */
export function placePartLine(ptr: usize, bytes: u32): void {
  memory.copy(COVERED, ptr - bytes, bytes);
  memory.copy(ptr - bytes, LINE, bytes);
}

/** What placePartLine() covered is there again. */
export function liftPartLine(ptr: usize, bytes: u32): void {
  memory.copy(ptr - bytes, COVERED, bytes);
}
