// CMD6 of an SD card: function groups with a 64-byte status (SD 3.01 §4.3.10).

import { storeBigEndian16 } from "../bytes";
import { CARD_BLOCK, FAULT_SWITCH } from "../layout";
import { faultOnCommand } from "./faults";
import { card } from "./state";

/**
 * The 64-byte status of an SD CMD6 into CARD_BLOCK; mode 1 also switches. Group 1 has functions 0 and
 * 1 (high speed).
 */
export function switchFunction(argument: u32): void {
  const wanted = argument & 15;
  const mode = argument >>> 31;
  let result: u32 = wanted;
  if (wanted == 15) result = card().highSpeed;
  else if (wanted > 1 || faultOnCommand(FAULT_SWITCH, 6)) result = 15;
  // Groups 2 to 6 have function 0 alone; one impossible wish and nothing is switched.
  let possible = result <= 1;
  for (let group: u32 = 1; group < 6; group++) {
    const other = (argument >>> (group * 4)) & 15;
    if (other != 0 && other != 15) possible = false;
  }
  memory.fill(CARD_BLOCK, 0, 64);
  storeBigEndian16(CARD_BLOCK, 100); // mA
  for (let group: u32 = 0; group < 5; group++) storeBigEndian16(CARD_BLOCK + 2 + group * 2, 0x0001);
  storeBigEndian16(CARD_BLOCK + 12, 0x0003);
  store<u8>(CARD_BLOCK + 16, <u8>result);
  store<u8>(CARD_BLOCK + 17, 1); // structure version: busy bitmaps follow
  for (let group: u32 = 1; group < 6; group++) {
    const other = (argument >>> (group * 4)) & 15;
    if (other == 0 || other == 15) continue;
    // Group 2 is the high nibble of byte 16, groups 3 and 4 are in byte 15, 5 and 6 in byte 14.
    const at: usize = CARD_BLOCK + 16 - (group >>> 1);
    store<u8>(at, <u8>(<u32>load<u8>(at) | ((<u32>15) << ((group & 1) << 2))));
  }
  if (mode == 1 && possible) card().highSpeed = result;
}
