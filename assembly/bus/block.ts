// What goes over the DAT lines: the sender's bytes and, behind them, the CRC16 of each line that it drives.
// The receiver takes as many lines and clocks as it believes in, and checks. Bytes are where the caller says,
// the rest is in WIRE. Where no bit was turned over and both ends agree on the lines, the receiver's division is the
// sender's, and neither is done: the sender's CRCs are made when something could make a difference to them.
//
// Modelled: 1, 4, 8 lines; a receiver with another width or another length, which sees pulled-up lines and
// idle ones.
// Not modelled: DDR (two CRC16 a line), bits of the data on DAT in SDHCI_PRESENT_STATE.

import { SECTOR_BYTES, WIRE_BLOCK, WIRE_BROKEN, WIRE_BYTES, WIRE_CRC, WIRE_LINES } from "../layout";
import { crc16EightLines, crc16FourLines, crc16OneLine, FOLDED_BYTES, foldSector } from "./crc";

export const BLOCK_INTACT: u32 = 0;
export const BLOCK_CRC_WRONG: u32 = 1;
export const BLOCK_END_WRONG: u32 = 2;
const BITS_MAX: u32 = SECTOR_BYTES * 8;
const CRC_CLOCKS: u32 = 16;

function storeCrc(ptr: usize, bytes: u32, lines: u32): void {
  let from = ptr;
  let left = bytes;
  if (bytes == SECTOR_BYTES) {
    foldSector(ptr, WIRE_BLOCK);
    from = WIRE_BLOCK;
    left = FOLDED_BYTES;
  }
  if (lines == 8) {
    crc16EightLines(from, left, WIRE_CRC);
    return;
  }
  store<u64>(WIRE_CRC, lines == 4 ? crc16FourLines(from, left) : crc16OneLine(from, left));
  store<u64>(WIRE_CRC + 8, 0);
}

/** The sender: `bytes` (≤ SECTOR_BYTES) go out on `lines` lines, with their CRCs. */
export function driveBlock(bytes: u32, lines: u32): void {
  store<u32>(WIRE_BYTES, bytes);
  store<u32>(WIRE_LINES, lines);
  store<u32>(WIRE_BROKEN, 0);
}

/** What the sender's CRCs are, before the first bit of its data (at `ptr`) is turned over or sampled. */
function sealBlock(ptr: usize): void {
  if (load<u32>(WIRE_BROKEN) == 0) storeCrc(ptr, load<u32>(WIRE_BYTES), load<u32>(WIRE_LINES));
}

/** Noise: one bit of the data turned over on its way, another one for each `seed`. */
export function breakBlock(ptr: usize, seed: u32): void {
  sealBlock(ptr);
  store<u32>(WIRE_BROKEN, 1);
  const bits = load<u32>(WIRE_BYTES) << 3;
  if (bits == 0) {
    store<u8>(WIRE_CRC, load<u8>(WIRE_CRC) ^ 1);
    return;
  }
  const bit = (seed * 2654435761) % bits;
  const at = ptr + (bit >>> 3);
  store<u8>(at, <u8>(load<u8>(at) ^ ((<u32>1) << (bit & 7))));
}

/** The level of a line in a clock after the start bit: data, CRC, end bit, then nobody drives. */
function level(ptr: usize, line: u32, clock: u32): u32 {
  const lines = load<u32>(WIRE_LINES);
  if (line >= lines) return 1;
  const dataClocks = (load<u32>(WIRE_BYTES) << 3) / lines;
  if (clock < dataClocks) {
    const bit = clock * lines + (lines - 1 - line);
    return (load<u8>(ptr + (bit >>> 3)) >>> (7 - (bit & 7))) & 1;
  }
  const turn = clock - dataClocks;
  if (turn >= CRC_CLOCKS) return 1;
  if (lines == 8) return (load<u8>(WIRE_CRC + turn) >>> line) & 1;
  const shift = lines == 4 ? (15 - turn) * 4 + line : 15 - turn;
  return <u32>(load<u64>(WIRE_CRC) >> shift) & 1;
}

/** The block as a receiver with another idea of it samples it: its bytes to `ptr`, its CRCs to WIRE. */
function resample(ptr: usize, bytes: u32, lines: u32): bool {
  const bits = bytes << 3;
  const dataClocks = bits / lines;
  memory.fill(WIRE_BLOCK, 0, SECTOR_BYTES);
  for (let bit: u32 = 0; bit < bits && bit < BITS_MAX; bit++) {
    const sampled = level(ptr, lines - 1 - (bit % lines), bit / lines);
    const at: usize = WIRE_BLOCK + (bit >>> 3);
    store<u8>(at, load<u8>(at) | <u8>(sampled << (7 - (bit & 7))));
  }
  let low: u64 = 0;
  let high: u64 = 0;
  for (let turn: u32 = 0; turn < CRC_CLOCKS; turn++) {
    for (let line: u32 = 0; line < lines && line < 8; line++) {
      const sampled = <u64>level(ptr, line, dataClocks + turn);
      if (lines != 8) low |= sampled << (lines == 4 ? (15 - turn) * 4 + line : 15 - turn);
      else if (turn < 8) low |= sampled << (turn * 8 + line);
      else high |= sampled << ((turn - 8) * 8 + line);
    }
  }
  let ended = true;
  for (let line: u32 = 0; line < lines && line < 8; line++) {
    if (level(ptr, line, dataClocks + CRC_CLOCKS) == 0) ended = false;
  }
  memory.copy(ptr, WIRE_BLOCK, bytes);
  store<u64>(WIRE_CRC, low);
  store<u64>(WIRE_CRC + 8, high);
  return ended;
}

/**
 * The receiver: what came in at `ptr`, taken as `bytes` (≤ SECTOR_BYTES) on `lines` lines, against its
 * CRCs.
 */
export function takeBlock(ptr: usize, bytes: u32, lines: u32): u32 {
  let ended = true;
  if (load<u32>(WIRE_BYTES) != bytes || load<u32>(WIRE_LINES) != lines) {
    sealBlock(ptr);
    ended = resample(ptr, bytes, lines);
  } else if (load<u32>(WIRE_BROKEN) == 0) return BLOCK_INTACT;
  const sentLow = load<u64>(WIRE_CRC);
  const sentHigh = load<u64>(WIRE_CRC + 8);
  storeCrc(ptr, bytes, lines);
  if (load<u64>(WIRE_CRC) != sentLow || load<u64>(WIRE_CRC + 8) != sentHigh) return BLOCK_CRC_WRONG;
  return ended ? BLOCK_INTACT : BLOCK_END_WRONG;
}
