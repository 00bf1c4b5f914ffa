// CMD6 of an SD card: function groups with a 64-byte status (SD Physical Layer 3.01 §4.3.10). Group 1 is the access
// mode, 3 the driver strength, 4 the current limit; 2, 5 and 6 have function 0 alone. At 3.3 V the access modes are
// default and high speed, and groups 3 and 4 have their defaults alone. Nothing here is ever busy for other
// functions' sake: the busy bitmaps of the status (structure version 1) are zero.

import { storeBigEndian16 } from "../bytes";
import { CARD_BLOCK, FAULT_SWITCH, SD_CURRENTS, SD_DRIVER_TYPES } from "../layout";
import { faultOnCommand } from "./faults";
import { card, hasSdFlag, VOLTAGE_180 } from "./state";

/** Functions of group 1. */
const ACCESS_SDR50: u32 = 2;
const ACCESS_SDR104: u32 = 3;
const ACCESS_DDR50: u32 = 4;
const KEEP: u32 = 15;
const REFUSED: u32 = 15;
/** Function 15 can always be asked for; real cards say so with bit 15 of each group. */
const NO_INFLUENCE: u32 = 1 << KEEP;
const TO_COME: u32 = 1 << 31;
const CURRENT_MA: u32 = 100;

/** The fastest clock of the present access mode; SDR104 is 208 MHz, of which the controller makes 200. */
export function sdClockKhzMax(): u32 {
  switch (card().highSpeed) {
    case 0:
      return 25000;
    case ACCESS_SDR50:
      return 100000;
    case ACCESS_SDR104:
      return 208000;
    default:
      return 50000;
  }
}

/** Bit n: function n of the group (0 … 5 for groups 1 … 6) can be had now. */
function functionsOf(group: u32): u32 {
  const low = card().voltage == VOLTAGE_180;
  if (group == 0) return low ? 0x001f : 0x0003;
  if (group == 2 && low && hasSdFlag(SD_DRIVER_TYPES)) return 0x000f;
  if (group == 3 && low && hasSdFlag(SD_CURRENTS)) return 0x000f;
  return 0x0001;
}

function currentOf(group: u32): u32 {
  const c = card();
  return group == 0 ? c.highSpeed : group == 2 ? c.driverStrength : group == 3 ? c.currentLimit : 0;
}

/** The function that the group has or would have afterwards; REFUSED if it has no such one. */
function resultOf(group: u32, wanted: u32): u32 {
  if (wanted == KEEP) return currentOf(group);
  return ((functionsOf(group) >>> wanted) & 1) != 0 ? wanted : REFUSED;
}

/**
 * The 64-byte status of an SD CMD6 into CARD_BLOCK; mode 1 also switches when that has gone out (CMD12 before: it does
 * not), unless one group refuses: then none is switched.
 */
export function switchFunction(argument: u32): void {
  const c = card();
  const struck = (argument & 15) != KEEP && faultOnCommand(FAULT_SWITCH, 6);
  let results: u32 = 0;
  let possible = true;
  memory.fill(CARD_BLOCK, 0, 64);
  for (let group: u32 = 0; group < 6; group++) {
    const wanted = (argument >>> (group * 4)) & 15;
    const result = group == 0 && struck ? REFUSED : resultOf(group, wanted);
    if (result == REFUSED) possible = false;
    results |= result << (group * 4);
    // Groups 6 … 1 from byte 2 on.
    storeBigEndian16(CARD_BLOCK + 12 - group * 2, functionsOf(group) | NO_INFLUENCE);
  }
  // 0 mA: there is no such function.
  storeBigEndian16(CARD_BLOCK, possible ? CURRENT_MA : 0);
  store<u8>(CARD_BLOCK + 14, <u8>(results >>> 16));
  store<u8>(CARD_BLOCK + 15, <u8>(results >>> 8));
  store<u8>(CARD_BLOCK + 16, <u8>results);
  store<u8>(CARD_BLOCK + 17, 1); // structure version: busy bitmaps follow
  if (argument >>> 31 == 0 || !possible) return;
  c.functionsToCome = TO_COME | results;
}

/** The status has gone out in the old mode; the next block comes in the new one. */
export function applyFunctions(): void {
  const c = card();
  const results = c.functionsToCome;
  c.functionsToCome = 0;
  if ((results & TO_COME) == 0) return;
  c.highSpeed = results & 15;
  c.dualRate = c.highSpeed == ACCESS_DDR50 ? 1 : 0;
  c.driverStrength = (results >>> 8) & 15;
  c.currentLimit = (results >>> 12) & 15;
}
