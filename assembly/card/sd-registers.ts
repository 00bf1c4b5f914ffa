// CID, CSD, SSR and SCR of an SD card (mmc.md §1.7, §1.9). EXT_CSD_BASE holds the 64 bytes of the SSR with the
// 8 bytes of the SCR behind them.

import { CONFIG_FEATURES, CONFIG_SECTORS, CONFIG_SERIAL, EXT_CSD_BASE, FEATURE_CMD23 } from "../layout";
import { setBits } from "./register-bits";

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

export function buildSdCsd(ptr: usize): void {
  setBits(ptr, 126, 2, 1); // CSD_STRUCTURE: version 2.0
  setBits(ptr, 112, 8, 0x0e); // TAAC 1 ms, fixed
  setBits(ptr, 96, 8, 0x32); // TRAN_SPEED: 25 MHz
  setBits(ptr, 84, 12, 0x5b5); // CCC: 0, 2, 4, 5, 7, 8, 10
  setBits(ptr, 80, 4, 9); // READ_BL_LEN
  setBits(ptr, 48, 22, load<u32>(CONFIG_SECTORS) / 1024 - 1); // C_SIZE: 512 KiB units
  setBits(ptr, 46, 1, 1); // ERASE_BLK_EN
  setBits(ptr, 39, 7, 0x7f); // SECTOR_SIZE
  setBits(ptr, 26, 3, 2); // R2W_FACTOR ×4
  setBits(ptr, 22, 4, 9); // WRITE_BL_LEN
}

export function buildSdRegisters(): void {
  store<u8>(EXT_CSD_BASE + 8, 4); // SSR speed class 10
  store<u8>(EXT_CSD_BASE + 10, 0x90); // AU_SIZE 4 MiB
  store<u8>(EXT_CSD_BASE + 12, 1); // ERASE_SIZE 1 AU
  store<u8>(EXT_CSD_BASE + 13, 1 << 2); // ERASE_TIMEOUT 1 s
  const scr: usize = EXT_CSD_BASE + SCR_OFFSET;
  store<u8>(scr, 0x02); // SD_SPEC 2.00 …
  store<u8>(scr + 1, 0x35); // SDHC security, 1 and 4 lines
  store<u8>(scr + 2, 0x80); // … with SD_SPEC3
  store<u8>(scr + 3, (load<u32>(CONFIG_FEATURES) & FEATURE_CMD23) != 0 ? 0x02 : 0); // CMD_SUPPORT
}
