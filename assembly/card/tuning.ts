// The tuning block: what a card sends for CMD21 (eMMC in HS200, 64 bytes on 4 lines, 128 on 8) and CMD19 (SD, 64
// bytes), so that a host can find the point where it samples right. JESD84-B51 §6.6.5.1; the 8-line block is the
// 4-line one with each nibble doubled. Little-endian words of what goes over the wire.

import { CARD_BLOCK } from "../layout";

/** Eight bytes of the 4-line block. */
function tuningWord(index: u32): u64 {
  switch (index) {
    case 0:
      return 0xccc3ccff00ff0fff;
    case 1:
      return 0xeffefffeffcc3cc3;
    case 2:
      return 0xfbfffbffddffdfff;
    case 3:
      return 0xefbdf777ff7fffbf;
    case 4:
      return 0x3cccfc0ff0fff0ff;
    case 5:
      return 0xeeffefffcfcc33cc;
    case 6:
      return 0xffbfffdffdfffdff;
    default:
      return 0xde7b7ff7fff7ffbb;
  }
}

/** The block for this many lines into CARD_BLOCK. Returns its length. */
export function prepareTuningBlock(lines: u32): u32 {
  for (let i: u32 = 0; i < 8; i++) store<u64>(CARD_BLOCK + (i << 3), tuningWord(i));
  if (lines != 8) return 64;
  // From the last byte on, so that none is overwritten before it is read.
  for (let i: u32 = 0; i < 64; i++) {
    const at = 63 - i;
    const byte: u32 = load<u8>(CARD_BLOCK + at);
    store<u8>(CARD_BLOCK + at * 2, <u8>((byte >>> 4) * 0x11));
    store<u8>(CARD_BLOCK + at * 2 + 1, <u8>((byte & 15) * 0x11));
  }
  return 128;
}
