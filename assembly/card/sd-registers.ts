// CID, CSD, SSR and SCR of an SD card (mmc.md §1.7, §1.9). EXT_CSD_BASE holds the 64 bytes of the SSR with the
// 8 bytes of the SCR behind them.

import {
  CARD_SDXC,
  CONFIG_CARD_KIND,
  CONFIG_SECTORS,
  CONFIG_SERIAL,
  EXT_CSD_BASE,
  SD_CMD20,
  SD_DISCARD,
  SD_ERASED_ONES,
  SD_FULE,
  SD_UHS,
  SD_V101,
  SD_V110,
  SD_V200,
  SD_V301,
} from "../layout";
import { hasSdCmd23 } from "./legal";
import { setBits } from "./register-bits";
import { hasSdFlag, isSdsc, sdVersion } from "./state";

/** Offset of the SCR behind the SSR. */
export const SCR_OFFSET: u32 = 64;

export function buildSdCid(ptr: usize): void {
  setBits(ptr, 120, 8, 0x6d); // MID: unassigned, 'm'
  setBits(ptr, 104, 16, 0x6d70); // OID
  setBits(ptr, 72, 32, 0x4d435349); // PNM "MCSI…
  setBits(ptr, 64, 8, 0x4d); // …M"
  setBits(ptr, 56, 8, 0x10); // HRV/FRV 1.0
  setBits(ptr, 24, 32, load<u32>(CONFIG_SERIAL)); // PSN
  setBits(ptr, 8, 12, (26 << 4) | 11); // MDT: November 2026
}

/** Classes 0, 2, 4, 5, 8, 10 from version 1.10 on, and 6 (write protection) of SDSC. No class 7: there is no CMD42. */
function commandClasses(): u32 {
  const switches: u32 = sdVersion() == <u32>SD_V101 ? 0 : 1 << 10;
  return 0x135 | switches | (isSdsc() ? 1 << 6 : 0);
}

/**
 * CSD version 1.0 with the capacity as (C_SIZE + 1) × 2^(C_SIZE_MULT + 2) × 2^READ_BL_LEN: every multiple of
 * 512 KiB up to 1 GiB, of 1 MiB up to 2 GiB.
 */
function buildSdscCsd(ptr: usize): void {
  const sectors = load<u32>(CONFIG_SECTORS);
  const blockLength: u32 = sectors > 0x200000 ? 10 : 9;
  const blocks = sectors >>> (blockLength - 9);
  let multiplier: u32 = 0;
  for (let i: u32 = 0; i < 7; i++) if (blocks >>> (multiplier + 2) > 4096) multiplier += 1;
  setBits(ptr, 112, 8, 0x26); // TAAC 1.5 ms
  setBits(ptr, 96, 8, 0x32); // TRAN_SPEED: 25 MHz
  setBits(ptr, 84, 12, commandClasses());
  setBits(ptr, 80, 4, blockLength); // READ_BL_LEN
  setBits(ptr, 62, 12, (blocks >>> (multiplier + 2)) - 1); // C_SIZE
  setBits(ptr, 50, 12, 0xdb6); // VDD currents: 35 and 45 mA classes
  setBits(ptr, 47, 3, multiplier); // C_SIZE_MULT
  setBits(ptr, 46, 1, 1); // ERASE_BLK_EN
  setBits(ptr, 39, 7, 31); // SECTOR_SIZE: 32 blocks
  setBits(ptr, 32, 7, 127); // WP_GRP_SIZE: 128 of them
  setBits(ptr, 31, 1, 1); // WP_GRP_ENABLE
  setBits(ptr, 26, 3, 2); // R2W_FACTOR ×4
  setBits(ptr, 22, 4, blockLength); // WRITE_BL_LEN
}

export function buildSdCsd(ptr: usize): void {
  if (isSdsc()) {
    buildSdscCsd(ptr);
    return;
  }
  setBits(ptr, 126, 2, 1); // CSD_STRUCTURE: version 2.0
  setBits(ptr, 112, 8, 0x0e); // TAAC 1 ms, fixed
  setBits(ptr, 96, 8, 0x32); // TRAN_SPEED: 25 MHz
  setBits(ptr, 84, 12, commandClasses());
  setBits(ptr, 80, 4, 9); // READ_BL_LEN
  setBits(ptr, 48, 22, load<u32>(CONFIG_SECTORS) / 1024 - 1); // C_SIZE: 512 KiB units
  setBits(ptr, 46, 1, 1); // ERASE_BLK_EN
  setBits(ptr, 39, 7, 0x7f); // SECTOR_SIZE
  setBits(ptr, 26, 3, 2); // R2W_FACTOR ×4
  setBits(ptr, 22, 4, 9); // WRITE_BL_LEN
}

/** SSR and SCR. Speed class, allocation unit and erase times are what cards of version 2.00 and later tell. */
export function buildSdRegisters(): void {
  const version = sdVersion();
  if (version <= <u32>SD_V200) {
    store<u8>(EXT_CSD_BASE + 8, 4); // SSR speed class 10
    store<u8>(EXT_CSD_BASE + 10, 0x90); // AU_SIZE 4 MiB
    store<u8>(EXT_CSD_BASE + 12, 1); // ERASE_SIZE 1 AU
    store<u8>(EXT_CSD_BASE + 13, 1 << 2); // ERASE_TIMEOUT 1 s, ERASE_OFFSET 0
  }
  if (hasSdFlag(SD_UHS)) store<u8>(EXT_CSD_BASE + 14, 0x19); // UHS speed grade 1, UHS AU 4 MiB
  const discard: u32 = hasSdFlag(SD_DISCARD) ? 2 : 0;
  store<u8>(EXT_CSD_BASE + 24, <u8>(discard | (hasSdFlag(SD_FULE) ? 1 : 0)));
  const scr: usize = EXT_CSD_BASE + SCR_OFFSET;
  // SD_SPEC: 0 = 1.01, 1 = 1.10, 2 = 2.00, and 2 with SD_SPEC3 = 3.01.
  store<u8>(scr, <u8>(version == <u32>SD_V101 ? 0 : version == <u32>SD_V110 ? 1 : 2));
  const security: u32 = isSdsc() ? 2 : load<u32>(CONFIG_CARD_KIND) == <u32>CARD_SDXC ? 4 : 3;
  const ones: u32 = hasSdFlag(SD_ERASED_ONES) ? 0x80 : 0; // DATA_STAT_AFTER_ERASE
  store<u8>(scr + 1, <u8>(ones | (security << 4) | 5)); // 1 and 4 lines
  store<u8>(scr + 2, version == <u32>SD_V301 ? 0x80 : 0); // SD_SPEC3
  store<u8>(scr + 3, <u8>((hasSdCmd23() ? 2 : 0) | (hasSdFlag(SD_CMD20) ? 1 : 0))); // CMD_SUPPORT
}
