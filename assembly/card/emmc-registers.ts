// CID, CSD and EXT_CSD of an eMMC (mmc.md §1.7, §1.8). EXT_CSD_BASE holds the 512 bytes of EXT_CSD.

import {
  CONFIG_BKOPS_SECTORS,
  CONFIG_BOOT_SECTORS,
  CONFIG_CACHE_SECTORS,
  CONFIG_DEVICE_TYPE,
  CONFIG_FEATURES,
  CONFIG_GP1_SECTORS,
  CONFIG_SECTORS,
  CONFIG_SERIAL,
  EXT_CSD_BASE,
  FEATURE_HPI,
  FEATURE_RELIABLE_WRITE,
  GP_GRANULE_SECTORS,
  PROTECTION_GROUPS_MAX,
} from "../layout";
import { isByteAddressed } from "./address";
import { mediumSectors, PARTITION_GP1, PARTITIONS } from "./medium";
import { setBits } from "./register-bits";
import { card } from "./state";

export const EXT_CSD_CMDQ_MODE_EN: u32 = 15;
export const EXT_CSD_FLUSH_CACHE: u32 = 32;
export const EXT_CSD_CACHE_CTRL: u32 = 33;
export const EXT_CSD_POWER_OFF_NOTIFICATION: u32 = 34;
export const EXT_CSD_PACKED_FAILURE_INDEX: u32 = 35;
export const EXT_CSD_PACKED_COMMAND_STATUS: u32 = 36;
export const EXT_CSD_CONTEXT_CONF: u32 = 37; // … 51, a byte each
export const EXT_CSD_EXCEPTION_EVENTS_STATUS: u32 = 54; // … 55
export const EXT_CSD_EXCEPTION_EVENTS_CTRL: u32 = 56; // … 57
export const EXT_CSD_CLASS_6_CTRL: u32 = 59;
export const EXT_CSD_PERIODIC_WAKEUP: u32 = 131;
export const EXT_CSD_GP_SIZE_MULT: u32 = 143; // … 154
export const EXT_CSD_PARTITION_SETTING_COMPLETED: u32 = 155;
export const EXT_CSD_PARTITIONING_SUPPORT: u32 = 160;
export const EXT_CSD_HPI_MGMT: u32 = 161;
export const EXT_CSD_RST_N_FUNCTION: u32 = 162;
export const EXT_CSD_BKOPS_EN: u32 = 163;
export const EXT_CSD_BKOPS_START: u32 = 164;
export const EXT_CSD_SANITIZE_START: u32 = 165;
export const EXT_CSD_WR_REL_PARAM: u32 = 166;
export const EXT_CSD_USER_WP: u32 = 171;
export const EXT_CSD_BOOT_WP: u32 = 173;
export const EXT_CSD_BOOT_WP_STATUS: u32 = 174;
export const EXT_CSD_ERASE_GROUP_DEF: u32 = 175;
export const EXT_CSD_BOOT_BUS_CONDITIONS: u32 = 177;
export const EXT_CSD_BOOT_CONFIG_PROT: u32 = 178;
export const EXT_CSD_PARTITION_CONFIG: u32 = 179;
export const EXT_CSD_BUS_WIDTH: u32 = 183;
export const EXT_CSD_HS_TIMING: u32 = 185;
export const EXT_CSD_POWER_CLASS: u32 = 187;
/** The last byte of the modes segment; behind it are properties, which nobody writes. */
export const EXT_CSD_CMD_SET: u32 = 191;
export const EXT_CSD_REV: u32 = 192;
export const EXT_CSD_DEVICE_TYPE: u32 = 196;
export const EXT_CSD_SEC_COUNT: u32 = 212;
export const EXT_CSD_HC_WP_GRP_SIZE: u32 = 221;
export const EXT_CSD_CORRECTLY_PRG_SECTORS_NUM: u32 = 242;
export const EXT_CSD_BKOPS_STATUS: u32 = 246;
export const EXT_CSD_CACHE_SIZE: u32 = 249;
export const EXT_CSD_MAX_PACKED_WRITES: u32 = 500;
export const EXT_CSD_MAX_PACKED_READS: u32 = 501;
export const EXT_CSD_HPI_FEATURES: u32 = 503;

/** Sectors of an erase group with EXT_CSD_ERASE_GROUP_DEF = 1: EXT_CSD_HC_ERASE_GRP_SIZE 1 = 512 KiB. */
export const ERASE_GROUP_SECTORS: u32 = 1024;
/** How many contexts can be opened: EXT_CSD_CONTEXT_CAPABILITIES 3:0. They change nothing here. */
export const CONTEXTS: u32 = 5;
/** What a header of 512 bytes has room for: 8 bytes in front, 8 for each entry. */
export const PACKED_ENTRIES_MAX: u32 = 63;
/** Bits of EXT_CSD_EXCEPTION_EVENTS_STATUS and _CTRL. */
const URGENT_BKOPS: u32 = 1 << 0;
const PACKED_FAILURE: u32 = 1 << 3;

export function extCsd(index: u32): u32 {
  return load<u8>(EXT_CSD_BASE + index);
}

export function setExtCsd(index: u32, value: u32): void {
  store<u8>(EXT_CSD_BASE + index, <u8>value);
}

export function buildEmmcCid(ptr: usize): void {
  setBits(ptr, 120, 8, 0x6d); // MID: unassigned, 'm'
  setBits(ptr, 112, 2, 1); // CBX: BGA
  setBits(ptr, 104, 8, 0x70); // OID
  setBits(ptr, 72, 32, 0x4d4d4353); // PNM "MMCS…
  setBits(ptr, 56, 16, 0x494d); // …IM"
  setBits(ptr, 48, 8, 0x10); // PRV 1.0
  setBits(ptr, 16, 32, load<u32>(CONFIG_SERIAL)); // PSN
  // MDT: November of 1997 + 12, + 16 from EXT_CSD_REV 5 on = 2025, the last year that its 4 bits reach.
  setBits(ptr, 8, 8, 0xbc);
}

/**
 * (C_SIZE + 1) × 2^(C_SIZE_MULT + 2) blocks of 2^READ_BL_LEN bytes, for cards that count bytes; the others have all
 * ones there and tell it in SEC_COUNT. Blocks stay 512 bytes even where 2 GiB needs a READ_BL_LEN of 10.
 */
function setCapacity(ptr: usize): void {
  const sectors = mediumSectors(0);
  const blockBits: u32 = isByteAddressed() && sectors > 4096 * 512 ? 10 : 9;
  const blocks = sectors >>> (blockBits - 9);
  let multiplier: u32 = isByteAddressed() ? 0 : 7;
  while (multiplier < 7 && blocks >>> (multiplier + 2) > 4096) multiplier++;
  setBits(ptr, 80, 4, blockBits); // READ_BL_LEN
  setBits(ptr, 62, 12, isByteAddressed() ? (blocks >>> (multiplier + 2)) - 1 : 0xfff); // C_SIZE
  setBits(ptr, 47, 3, multiplier); // C_SIZE_MULT
  setBits(ptr, 22, 4, blockBits); // WRITE_BL_LEN
}

export function buildEmmcCsd(ptr: usize): void {
  setBits(ptr, 126, 2, 3); // CSD_STRUCTURE: in EXT_CSD
  setBits(ptr, 122, 4, 4); // SPEC_VERS 4.x
  setBits(ptr, 112, 8, 0x4f); // TAAC 40 ms
  setBits(ptr, 104, 8, 1); // NSAC
  setBits(ptr, 96, 8, 0x32); // TRAN_SPEED: 26 MHz
  setBits(ptr, 84, 12, 0x075); // CCC: classes 0, 2, 4, 5, 6; no 7: it cannot be locked
  setCapacity(ptr);
  setBits(ptr, 42, 5, 31); // ERASE_GRP_SIZE
  setBits(ptr, 37, 5, 31); // ERASE_GRP_MULT
  setBits(ptr, 32, 5, 15); // WP_GRP_SIZE
  setBits(ptr, 31, 1, 1); // WP_GRP_ENABLE
  setBits(ptr, 26, 3, 2); // R2W_FACTOR ×4
}

/** Sectors of all partitions that write protection groups cover, rounded up to whole erase groups. */
function protectableSectors(): u64 {
  let sectors: u64 = 0;
  for (let partition: u32 = 0; partition < PARTITIONS; partition++) {
    if (partition == 0 || partition >= PARTITION_GP1) sectors += mediumSectors(partition);
  }
  return sectors;
}

/**
 * EXT_CSD_HC_WP_GRP_SIZE, in erase groups: 16 = 8 MiB, twice that for as long as a card beyond 256 GiB would
 * have more groups than PROTECTION_TABLE.
 */
function protectionGroupSize(): u32 {
  // Each partition may end in the middle of a group.
  const groupsMax: u64 = PROTECTION_GROUPS_MAX - PARTITIONS;
  for (let shift: u32 = 4; shift < 7; shift++) {
    const size: u32 = 1 << shift;
    if (protectableSectors() / (size * ERASE_GROUP_SECTORS) <= groupsMax) return size;
  }
  return 128;
}

/** GP_SIZE_MULT 1 to 4, three bytes each, and what says that the partitioning is done. */
function buildPartitioning(): void {
  let present: u32 = 0;
  for (let i: u32 = 0; i < 4; i++) {
    const multiple = load<u32>(i << 2, CONFIG_GP1_SECTORS) / GP_GRANULE_SECTORS;
    const at = EXT_CSD_GP_SIZE_MULT + i * 3;
    setExtCsd(at, multiple & 0xff);
    setExtCsd(at + 1, (multiple >>> 8) & 0xff);
    setExtCsd(at + 2, multiple >>> 16);
    present |= multiple;
  }
  // A card without such partitions cannot be partitioned at all: it comes as it is.
  setExtCsd(EXT_CSD_PARTITIONING_SUPPORT, present != 0 ? 1 : 0);
  setExtCsd(EXT_CSD_PARTITION_SETTING_COMPLETED, present != 0 ? 1 : 0);
}

export function buildExtCsd(): void {
  const features = load<u32>(CONFIG_FEATURES);
  buildPartitioning();
  setExtCsd(16, 1); // SECURE_REMOVAL_TYPE: by erase
  setExtCsd(EXT_CSD_WR_REL_PARAM, (features & FEATURE_RELIABLE_WRITE) != 0 ? 0x04 : 0);
  setExtCsd(167, 0x1f); // WR_REL_SET
  setExtCsd(EXT_CSD_REV, 8); // 5.1
  setExtCsd(194, 2); // CSD_STRUCTURE
  setExtCsd(EXT_CSD_DEVICE_TYPE, load<u32>(CONFIG_DEVICE_TYPE));
  setExtCsd(197, 1); // DRIVER_STRENGTH: type 0
  setExtCsd(198, 5); // OUT_OF_INTERRUPT_TIME 50 ms
  setExtCsd(199, 10); // PARTITION_SWITCH_TIME 100 ms
  for (let i: u32 = 205; i <= 210; i++) setExtCsd(i, 0x08); // MIN_PERF_*: 2.4 MB/s
  store<u32>(EXT_CSD_BASE + EXT_CSD_SEC_COUNT, load<u32>(CONFIG_SECTORS));
  setExtCsd(216, 0x0a); // SLEEP_NOTIFICATION_TIME 10.2 ms
  setExtCsd(217, 0x11); // S_A_TIMEOUT 13.1 ms
  setExtCsd(EXT_CSD_HC_WP_GRP_SIZE, protectionGroupSize());
  setExtCsd(222, 1); // REL_WR_SEC_C
  setExtCsd(223, 1); // ERASE_TIMEOUT_MULT 300 ms
  setExtCsd(224, 1); // HC_ERASE_GRP_SIZE 512 KiB
  setExtCsd(225, 7); // ACC_SIZE
  setExtCsd(226, load<u32>(CONFIG_BOOT_SECTORS) / 256); // BOOT_SIZE_MULT
  setExtCsd(231, 0x50); // SEC_FEATURE_SUPPORT: trim, sanitize; secure erase and trim gave way to sanitize in 4.5
  setExtCsd(232, 1); // TRIM_MULT 300 ms
  setExtCsd(240, 1); // CACHE_FLUSH_POLICY: FIFO
  setExtCsd(241, 10); // INI_TIMEOUT_AP 1 s
  setExtCsd(247, 60); // POWER_OFF_LONG_TIME
  setExtCsd(248, 10); // GENERIC_CMD6_TIME 100 ms
  // In KiB, and at least 1 if there is a cache: 0 means none.
  const cacheKib = (load<u32>(CONFIG_CACHE_SECTORS) + 1) / 2;
  store<u32>(EXT_CSD_BASE + EXT_CSD_CACHE_SIZE, cacheKib);
  setExtCsd(254, 1); // FIRMWARE_VERSION
  setExtCsd(264, 1); // OPTIMAL_TRIM_UNIT_SIZE 4 KiB
  setExtCsd(267, 1); // PRE_EOL_INFO
  setExtCsd(268, 1);
  setExtCsd(269, 1);
  setExtCsd(496, CONTEXTS); // CONTEXT_CAPABILITIES
  setExtCsd(EXT_CSD_MAX_PACKED_WRITES, PACKED_ENTRIES_MAX);
  setExtCsd(EXT_CSD_MAX_PACKED_READS, PACKED_ENTRIES_MAX);
  setExtCsd(502, 1); // BKOPS_SUPPORT
  setExtCsd(EXT_CSD_HPI_FEATURES, (features & FEATURE_HPI) != 0 ? 1 : 0); // by CMD13
  setExtCsd(504, 1); // S_CMD_SET
}

/** How much the card wants background operations: 0 not at all … 3 critical. */
export function bkopsLevel(): u32 {
  const sectorsPerLevel = load<u32>(CONFIG_BKOPS_SECTORS);
  if (sectorsPerLevel == 0) return 0;
  const level = card().unkemptSectors / sectorsPerLevel;
  return level > 3 ? 3 : level;
}

/**
 * EXT_CSD_EXCEPTION_EVENTS_STATUS. URGENT_BKOPS: only a card whose background operations the host has promised to start
 * asks for them. PACKED_FAILURE: the last packed command failed.
 */
export function exceptionEvents(): u32 {
  const isUrgent = (extCsd(EXT_CSD_BKOPS_EN) & 1) != 0 && bkopsLevel() >= 2;
  const hasFailed = extCsd(EXT_CSD_PACKED_COMMAND_STATUS) != 0;
  return (isUrgent ? URGENT_BKOPS : 0) | (hasFailed ? PACKED_FAILURE : 0);
}

/** R1_EXCEPTION_EVENT: URGENT_BKOPS always, the others as EXCEPTION_EVENTS_CTRL enables them. */
export function hasExceptionEvent(): bool {
  return (exceptionEvents() & (URGENT_BKOPS | extCsd(EXT_CSD_EXCEPTION_EVENTS_CTRL))) != 0;
}
