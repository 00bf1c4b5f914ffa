// CMD6 of an eMMC: one EXT_CSD byte, what values it takes, and what hangs on it (JESD84-B51 §6.6.1).

import { CONFIG_BOOT_SECTORS, FAULT_SWITCH } from "../layout";
import { cacheWriteAll } from "./cache";
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
  setExtCsd,
} from "./emmc-registers";
import { faultOnCommand } from "./faults";
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
  setExtCsd(index, value);
}
