// CMD6. eMMC: one EXT_CSD byte (JESD84-B51 §6.6.1); SD: function groups with a 64-byte status (SD 3.01 §4.3.10).

import { storeBigEndian16 } from "../bytes";
import { CARD_BLOCK, CONFIG_BOOT_SECTORS, FAULT_SWITCH } from "../layout";
import { cacheWriteAll } from "./cache";
import { faultOnCommand } from "./faults";
import {
  EXT_CSD_BUS_WIDTH,
  EXT_CSD_CACHE_CTRL,
  EXT_CSD_CACHE_SIZE,
  EXT_CSD_ERASE_GROUP_DEF,
  EXT_CSD_FLUSH_CACHE,
  EXT_CSD_HPI_FEATURES,
  EXT_CSD_HPI_MGMT,
  EXT_CSD_HS_TIMING,
  EXT_CSD_PARTITION_CONFIG,
  EXT_CSD_POWER_CLASS,
  EXT_CSD_POWER_OFF_NOTIFICATION,
  extCsd,
  storeExtCsd,
} from "./registers";
import { card } from "./state";

/** The byte that an eMMC CMD6 asks for: set bits, clear bits or write byte. 0xffffffff: no such access. */
export function switchTarget(argument: u32): u32 {
  const access = (argument >>> 24) & 3;
  const value = (argument >>> 8) & 0xff;
  const before = extCsd((argument >>> 16) & 0xff);
  if (access == 1) return before | value;
  if (access == 2) return before & ~value;
  return access == 3 ? value : 0xffffffff;
}

/** True if the card takes this value in this byte; else R1_SWITCH_ERROR and nothing changes. */
export function switchAllowed(index: u32, value: u32): bool {
  if (faultOnCommand(FAULT_SWITCH, 6)) return false;
  switch (index) {
    case EXT_CSD_FLUSH_CACHE:
      return value == 1 && extCsd(EXT_CSD_CACHE_CTRL) == 1;
    case EXT_CSD_CACHE_CTRL:
      return value <= 1 && (extCsd(EXT_CSD_CACHE_SIZE) != 0 || extCsd(EXT_CSD_CACHE_SIZE + 1) != 0);
    case EXT_CSD_POWER_OFF_NOTIFICATION:
      return value <= 4;
    case EXT_CSD_HPI_MGMT:
      return value <= 1 && extCsd(EXT_CSD_HPI_FEATURES) != 0;
    case EXT_CSD_ERASE_GROUP_DEF:
    case EXT_CSD_HS_TIMING:
      return value <= 1;
    case EXT_CSD_PARTITION_CONFIG:
      return (value & 7) == 0 || ((value & 7) <= 2 && load<u32>(CONFIG_BOOT_SECTORS) > 0);
    case EXT_CSD_BUS_WIDTH:
      return value <= 2;
    case EXT_CSD_POWER_CLASS:
      return value == 0;
    default:
      return false;
  }
}

/** The end of an eMMC switch: the byte and what hangs on it. BUS_WIDTH and FLUSH_CACHE read back as 0. */
export function applySwitch(index: u32, value: u32): void {
  const c = card();
  if (index == EXT_CSD_BUS_WIDTH) {
    c.busWidth = value == 2 ? 8 : value == 1 ? 4 : 1;
    return;
  }
  if (index == EXT_CSD_HS_TIMING) c.highSpeed = value;
  if (index == EXT_CSD_PARTITION_CONFIG) c.partition = value & 7;
  // Cache off, and the power-off notifications (2 short, 3 long), write it back.
  const writesBack =
    (index == EXT_CSD_CACHE_CTRL && value == 0) ||
    (index == EXT_CSD_POWER_OFF_NOTIFICATION && (value == 2 || value == 3));
  if (writesBack) cacheWriteAll(0xffffffff);
  storeExtCsd(index, value);
}

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
