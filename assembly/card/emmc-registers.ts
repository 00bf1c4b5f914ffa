// CID, CSD and EXT_CSD of an eMMC (mmc.md §1.7, §1.8). EXT_CSD_BASE holds the 512 bytes of EXT_CSD.

import {
  CONFIG_BOOT_SECTORS,
  CONFIG_CACHE_SECTORS,
  CONFIG_FEATURES,
  CONFIG_SECTORS,
  CONFIG_SERIAL,
  EXT_CSD_BASE,
  FEATURE_HPI,
  FEATURE_RELIABLE_WRITE,
} from "../layout";
import { setBits } from "./register-bits";

export const EXT_CSD_CMDQ_MODE_EN: u32 = 15;
export const EXT_CSD_FLUSH_CACHE: u32 = 32;
export const EXT_CSD_CACHE_CTRL: u32 = 33;
export const EXT_CSD_POWER_OFF_NOTIFICATION: u32 = 34;
export const EXT_CSD_HPI_MGMT: u32 = 161;
export const EXT_CSD_WR_REL_PARAM: u32 = 166;
export const EXT_CSD_ERASE_GROUP_DEF: u32 = 175;
export const EXT_CSD_PARTITION_CONFIG: u32 = 179;
export const EXT_CSD_BUS_WIDTH: u32 = 183;
export const EXT_CSD_HS_TIMING: u32 = 185;
export const EXT_CSD_POWER_CLASS: u32 = 187;
export const EXT_CSD_REV: u32 = 192;
export const EXT_CSD_SEC_COUNT: u32 = 212;
export const EXT_CSD_CORRECTLY_PRG_SECTORS_NUM: u32 = 242;
export const EXT_CSD_CACHE_SIZE: u32 = 249;
export const EXT_CSD_HPI_FEATURES: u32 = 503;

/** Sectors of an erase group with EXT_CSD_ERASE_GROUP_DEF = 1: EXT_CSD_HC_ERASE_GRP_SIZE 1 = 512 KiB. */
export const ERASE_GROUP_SECTORS: u32 = 1024;

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
  setBits(ptr, 8, 8, 0xbd); // MDT: November of 1997 + 13, + 16 at EXT_CSD_REV ≥ 5 = 2026
}

export function buildEmmcCsd(ptr: usize): void {
  setBits(ptr, 126, 2, 3); // CSD_STRUCTURE: in EXT_CSD
  setBits(ptr, 122, 4, 4); // SPEC_VERS 4.x
  setBits(ptr, 112, 8, 0x4f); // TAAC 40 ms
  setBits(ptr, 104, 8, 1); // NSAC
  setBits(ptr, 96, 8, 0x32); // TRAN_SPEED: 26 MHz
  setBits(ptr, 84, 12, 0x0f5); // CCC: classes 0, 2, 4, 5, 6, 7
  setBits(ptr, 80, 4, 9); // READ_BL_LEN
  setBits(ptr, 62, 12, 0xfff); // C_SIZE: see SEC_COUNT
  setBits(ptr, 47, 3, 7);
  setBits(ptr, 42, 5, 31); // ERASE_GRP_SIZE
  setBits(ptr, 37, 5, 31); // ERASE_GRP_MULT
  setBits(ptr, 32, 5, 15); // WP_GRP_SIZE
  setBits(ptr, 26, 3, 2); // R2W_FACTOR ×4
  setBits(ptr, 22, 4, 9); // WRITE_BL_LEN
}

export function buildExtCsd(): void {
  const features = load<u32>(CONFIG_FEATURES);
  setExtCsd(160, 0); // PARTITIONING_SUPPORT: none
  setExtCsd(EXT_CSD_WR_REL_PARAM, (features & FEATURE_RELIABLE_WRITE) != 0 ? 0x04 : 0);
  setExtCsd(167, 0x1f); // WR_REL_SET
  setExtCsd(EXT_CSD_REV, 8); // 5.1
  setExtCsd(194, 2); // CSD_STRUCTURE
  setExtCsd(196, 0x03); // DEVICE_TYPE: 26 and 52 MHz
  setExtCsd(197, 1); // DRIVER_STRENGTH
  setExtCsd(198, 5); // OUT_OF_INTERRUPT_TIME 50 ms
  setExtCsd(199, 10); // PARTITION_SWITCH_TIME 100 ms
  store<u32>(EXT_CSD_BASE + EXT_CSD_SEC_COUNT, load<u32>(CONFIG_SECTORS));
  setExtCsd(217, 0x11); // S_A_TIMEOUT 13.1 ms
  setExtCsd(221, 0x10); // HC_WP_GRP_SIZE
  setExtCsd(222, 1); // REL_WR_SEC_C
  setExtCsd(223, 1); // ERASE_TIMEOUT_MULT 300 ms
  setExtCsd(224, 1); // HC_ERASE_GRP_SIZE 512 KiB
  setExtCsd(225, 7); // ACC_SIZE
  setExtCsd(226, load<u32>(CONFIG_BOOT_SECTORS) / 256); // BOOT_SIZE_MULT
  setExtCsd(228, 7); // BOOT_INFO
  setExtCsd(231, 0x10); // SEC_FEATURE_SUPPORT: trim
  setExtCsd(232, 1); // TRIM_MULT 300 ms
  setExtCsd(240, 1); // CACHE_FLUSH_POLICY: FIFO
  setExtCsd(241, 10); // INI_TIMEOUT_AP 1 s
  setExtCsd(247, 60); // POWER_OFF_LONG_TIME
  setExtCsd(248, 10); // GENERIC_CMD6_TIME 100 ms
  // In KiB, and at least 1 if there is a cache: 0 means none.
  const cacheKib = (load<u32>(CONFIG_CACHE_SECTORS) + 1) / 2;
  store<u32>(EXT_CSD_BASE + EXT_CSD_CACHE_SIZE, cacheKib);
  setExtCsd(267, 1); // PRE_EOL_INFO
  setExtCsd(268, 1);
  setExtCsd(269, 1);
  setExtCsd(EXT_CSD_HPI_FEATURES, (features & FEATURE_HPI) != 0 ? 1 : 0); // by CMD13
  setExtCsd(504, 1); // S_CMD_SET
}

/** CMD0, reset and power-up: what is volatile returns to 0 (mmc.md §1.8, reset scope). */
export function resetVolatileExtCsd(): void {
  setExtCsd(EXT_CSD_CMDQ_MODE_EN, 0);
  setExtCsd(EXT_CSD_CACHE_CTRL, 0);
  setExtCsd(EXT_CSD_POWER_OFF_NOTIFICATION, 0);
  setExtCsd(EXT_CSD_HPI_MGMT, 0);
  setExtCsd(EXT_CSD_ERASE_GROUP_DEF, 0);
  setExtCsd(EXT_CSD_PARTITION_CONFIG, extCsd(EXT_CSD_PARTITION_CONFIG) & ~7);
  setExtCsd(EXT_CSD_HS_TIMING, 0);
  setExtCsd(EXT_CSD_POWER_CLASS, 0);
}
