// CMD6 of an eMMC: one EXT_CSD byte, what values it takes, and what hangs on it (JESD84-B51 §6.6.1, §7.4). Which bits
// can be written at all is emmc-write-types.ts's.
//
// Bus modes: BUS_WIDTH 0, 1, 2 are one bit a clock on 1, 4, 8 lines; 5 and 6 two bits a clock on 4 and 8, with
// HS_TIMING 1 (DDR52). HS_TIMING 2 (HS200) needs 4 or 8 lines at one bit; 3 (HS400) comes from HS_TIMING 1 with
// BUS_WIDTH 6. What DEVICE_TYPE does not list is refused, and so is every step that leaves the two in disagreement.
import { CONFIG_PARTITION_NS, CONFIG_PROGRAM_NS, CONFIG_SWITCH_NS, FAULT_SWITCH } from "../layout";
import { CACHE_KEEP_ALL, cacheWriteAll } from "./cache";
import {
  EXT_CSD_BKOPS_EN,
  EXT_CSD_BKOPS_START,
  EXT_CSD_BOOT_BUS_CONDITIONS,
  EXT_CSD_BOOT_CONFIG_PROT,
  EXT_CSD_BOOT_WP,
  EXT_CSD_BUS_WIDTH,
  EXT_CSD_CACHE_CTRL,
  EXT_CSD_CACHE_SIZE,
  EXT_CSD_CMD_SET,
  EXT_CSD_DEVICE_TYPE,
  EXT_CSD_FLUSH_CACHE,
  EXT_CSD_HPI_FEATURES,
  EXT_CSD_HPI_MGMT,
  EXT_CSD_HS_TIMING,
  EXT_CSD_PARTITION_CONFIG,
  EXT_CSD_POWER_OFF_NOTIFICATION,
  EXT_CSD_RST_N_FUNCTION,
  EXT_CSD_SANITIZE_START,
  EXT_CSD_USER_WP,
  extCsd,
  setExtCsd,
} from "./emmc-registers";
import { keptBits, onceBits, oncePerPowerBits, volatileBits } from "./emmc-write-types";
import { faultOnCommand } from "./faults";
import { mediumSectors } from "./medium";
import { card } from "./state";

export const TIMING_HIGH_SPEED: u32 = 1;
export const TIMING_HS200: u32 = 2;
export const TIMING_HS400: u32 = 3;
const DEVICE_TYPE_DDR: u32 = 0x0c;
const DEVICE_TYPE_HS200: u32 = 0x30;
const DEVICE_TYPE_HS400: u32 = 0xc0;
export const POWERED_ON: u32 = 1;
const POWER_OFF_SHORT: u32 = 2;
const POWER_OFF_LONG: u32 = 3;
const SLEEP_NOTIFICATION: u32 = 4;
const NO_ACCESS: u32 = 0xffffffff;

/** The byte that an eMMC CMD6 asks for: set bits, clear bits or write byte. 0xffffffff: no such access. */
export function switchTarget(argument: u32): u32 {
  const access = (argument >>> 24) & 3;
  const value = (argument >>> 8) & 0xff;
  const before = extCsd((argument >>> 16) & 0xff);
  if (access == 1) return before | value;
  if (access == 2) return before & ~value;
  return access == 3 ? value : NO_ACCESS;
}

/** Access 0 selects a command set by bits 2:0; the standard one is all there is. */
export function isCommandSet(argument: u32): bool {
  return ((argument >>> 24) & 3) == 0 && (argument & 7) == 0;
}

/** True if nothing but writable bits changes, and what is set once is not taken back. */
function isWritable(index: u32, value: u32): bool {
  const once = onceBits(index) | oncePerPowerBits(index);
  const free = keptBits(index) | volatileBits(index);
  if ((once | free) == 0) return false;
  const before = extCsd(index);
  return ((before ^ value) & ~(once | free)) == 0 && (before & once & ~value) == 0;
}

function allowsBusWidth(value: u32): bool {
  const timing = card().highSpeed;
  if (value <= 2) return timing < TIMING_HS200 || (timing == TIMING_HS200 && value != 0);
  const isDual = value == 5 || value == 6;
  return isDual && timing == TIMING_HIGH_SPEED && (extCsd(EXT_CSD_DEVICE_TYPE) & DEVICE_TYPE_DDR) != 0;
}

function allowsTiming(value: u32): bool {
  const c = card();
  const type = extCsd(EXT_CSD_DEVICE_TYPE);
  if (value == 0) return c.dualRate == 0;
  if (value == TIMING_HIGH_SPEED) return true;
  if (value == TIMING_HS200) return (type & DEVICE_TYPE_HS200) != 0 && c.dualRate == 0 && c.busWidth != 1;
  const fromDdr = c.highSpeed == TIMING_HIGH_SPEED || c.highSpeed == TIMING_HS400;
  // Bits 7:4 are a driver strength, of which there is one.
  return (
    value == TIMING_HS400 && fromDdr && (type & DEVICE_TYPE_HS400) != 0 && c.dualRate != 0 && c.busWidth == 8
  );
}

function allowsPartition(value: u32): bool {
  const enabled = (value >>> 3) & 7;
  if (enabled > 2 && enabled != 7) return false;
  const isBootChange = ((value ^ extCsd(EXT_CSD_PARTITION_CONFIG)) & 0x78) != 0;
  return mediumSectors(value & 7) > 0 && !(isBootChange && extCsd(EXT_CSD_BOOT_CONFIG_PROT) != 0);
}

/** A rule that is disabled cannot be enabled, neither in the same write. */
function allowsUserProtection(value: u32): bool {
  if ((value & 0x01) != 0 && (value & 0x08) != 0) return false; // US_PWR_WP_EN, US_PWR_WP_DIS
  return (value & 0x04) == 0 || (value & 0x10) == 0; // US_PERM_WP_EN, US_PERM_WP_DIS
}

function allowsBootProtection(value: u32): bool {
  if (mediumSectors(1) == 0) return false;
  if ((value & 0x01) != 0 && (value & 0x40) != 0) return false; // B_PWR_WP_EN, B_PWR_WP_DIS
  return (value & 0x04) == 0 || (value & 0x10) == 0; // B_PERM_WP_EN, B_PERM_WP_DIS
}

/** True if the card takes this value in this byte; else R1_SWITCH_ERROR and nothing changes. */
export function switchAllowed(index: u32, value: u32): bool {
  if (faultOnCommand(FAULT_SWITCH, 6)) return false;
  // Power classes are all 0, and CMDQ is not there: their bytes may be told what they are.
  if (index == 187 || index == 15) return value == 0;
  if (!isWritable(index, value)) return false;
  switch (index) {
    case EXT_CSD_FLUSH_CACHE:
      return value == 1 && extCsd(EXT_CSD_CACHE_CTRL) == 1;
    case EXT_CSD_CACHE_CTRL:
      return value <= 1 && (extCsd(EXT_CSD_CACHE_SIZE) != 0 || extCsd(EXT_CSD_CACHE_SIZE + 1) != 0);
    case EXT_CSD_POWER_OFF_NOTIFICATION:
      return value <= SLEEP_NOTIFICATION;
    case EXT_CSD_HPI_MGMT:
      return value <= 1 && extCsd(EXT_CSD_HPI_FEATURES) != 0;
    case EXT_CSD_RST_N_FUNCTION:
      return value != 3;
    case EXT_CSD_BKOPS_START:
      return (extCsd(EXT_CSD_BKOPS_EN) & 1) != 0;
    case EXT_CSD_USER_WP:
      return allowsUserProtection(value);
    case EXT_CSD_BOOT_WP:
      return allowsBootProtection(value);
    case EXT_CSD_BOOT_BUS_CONDITIONS:
      return (value & 3) != 3 && value < 0x18 && extCsd(EXT_CSD_BOOT_CONFIG_PROT) == 0;
    case EXT_CSD_PARTITION_CONFIG:
      return allowsPartition(value);
    case EXT_CSD_BUS_WIDTH:
      return allowsBusWidth(value);
    case EXT_CSD_HS_TIMING:
      return allowsTiming(value);
    default:
      return index <= EXT_CSD_CMD_SET;
  }
}

/** True if the new value of this byte writes the cache back: cache off, power-off notifications short and long. */
function writesBack(index: u32, value: u32): bool {
  if (index == EXT_CSD_CACHE_CTRL) return value == 0;
  const isGoing = value == POWER_OFF_SHORT || value == POWER_OFF_LONG;
  return index == EXT_CSD_POWER_OFF_NOTIFICATION && isGoing;
}

/** How long a switch keeps the card busy. */
export function switchNs(index: u32, value: u32): u64 {
  const flushNs: u64 = writesBack(index, value) ? <u64>card().cacheCount * load<u32>(CONFIG_PROGRAM_NS) : 0;
  const ownNs = load<u32>(index == EXT_CSD_PARTITION_CONFIG ? CONFIG_PARTITION_NS : CONFIG_SWITCH_NS);
  return <u64>ownNs + flushNs;
}

/** BKOPS_START and SANITIZE_START take any value: work that HPI may stop. */
export function isBackground(index: u32): bool {
  return index == EXT_CSD_BKOPS_START || index == EXT_CSD_SANITIZE_START;
}

/** The end of an eMMC switch: the byte and what hangs on it. Bytes that are only written (W) read back as 0. */
export function applySwitch(index: u32, value: u32): void {
  const c = card();
  if (index == EXT_CSD_BUS_WIDTH) {
    c.dualRate = value >= 5 ? 1 : 0;
    const lines = value >= 5 ? value - 4 : value;
    c.busWidth = lines == 2 ? 8 : lines == 1 ? 4 : 1;
    return;
  }
  if (index == EXT_CSD_HS_TIMING) c.highSpeed = value;
  if (index == EXT_CSD_PARTITION_CONFIG) c.partition = value & 7;
  if (writesBack(index, value)) cacheWriteAll(CACHE_KEEP_ALL);
  if (index != 0) setExtCsd(index, value);
}

/** A host that goes on working behind a power-off notification has not gone: POWERED_ON again. */
export function resumeFromNotification(): void {
  if (extCsd(EXT_CSD_POWER_OFF_NOTIFICATION) > POWERED_ON) {
    setExtCsd(EXT_CSD_POWER_OFF_NOTIFICATION, POWERED_ON);
  }
}
