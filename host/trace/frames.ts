// Commands and responses as they are on the CMD line (mmc.md §1.3): start bit, direction, index, content, CRC7,
// end bit.
import type { TraceEvent } from "../core/trace.js";
import { crc7 } from "../registers/crc7.js";

/** R2 and R3 carry this instead of a command index. */
const NO_INDEX = 0x3f;
const FROM_HOST = 0x40;

function shortFrame(first: number, content: number, withCrc: boolean): Uint8Array {
  const frame = new Uint8Array(6);
  frame[0] = first;
  new DataView(frame.buffer).setUint32(1, content, false);
  frame[5] = withCrc ? (crc7(frame.subarray(0, 5)) << 1) | 1 : 0xff;
  return frame;
}

/** 48 bits. */
export function commandFrame(index: number, argument: number): Uint8Array {
  return shortFrame(FROM_HOST | index, argument, true);
}

/** 48 bits, of an R2 136. `crcRight` false: with the lowest bit of its CRC7 turned over. */
export function responseFrame(
  { type, index, words }: Pick<Extract<TraceEvent, { kind: "response" }>, "type" | "index" | "words">,
  crcRight = true,
): Uint8Array {
  let frame: Uint8Array;
  if (type === "R2") {
    frame = new Uint8Array(17);
    frame[0] = NO_INDEX;
    const view = new DataView(frame.buffer);
    for (const [i, word] of words.entries()) view.setUint32(1 + 4 * i, word, false);
  } else {
    const isOcr = type === "R3" || type === "R4";
    frame = shortFrame(isOcr ? NO_INDEX : index, words[0] ?? 0, !isOcr);
  }
  const last = frame.length - 1;
  if (!crcRight) frame[last] = (frame[last] ?? 0) ^ 2;
  return frame;
}
