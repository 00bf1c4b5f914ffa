// What a command's argument means as an address: a sector of the selected partition. SDSC counts bytes, an eMMC up
// to 2 GiB may (mmc.md §1.7, OCR bit 30), all others count sectors.

import { CONFIG_EMMC_FLAGS, EMMC_BYTE_ADDRESSED, SECTOR_BYTES } from "../layout";
import { mediumSectors } from "./medium";
import { card, isEmmc, isSdsc, R1_ADDRESS_ERROR, R1_OUT_OF_RANGE } from "./state";

export function isByteAddressed(): bool {
  return isEmmc() ? (load<u32>(CONFIG_EMMC_FLAGS) & EMMC_BYTE_ADDRESSED) != 0 : isSdsc();
}

/** The sector that an argument names; only sensible when addressErrors() is 0. */
export function sectorOf(argument: u32): u32 {
  return isByteAddressed() ? argument / SECTOR_BYTES : argument;
}

/** R1_OUT_OF_RANGE beyond the partition, R1_ADDRESS_ERROR inside a sector, or 0: for commands that move blocks. */
export function addressErrors(argument: u32): u32 {
  const isInside = isByteAddressed() && argument % SECTOR_BYTES != 0;
  return rangeErrors(argument) | (isInside ? R1_ADDRESS_ERROR : 0);
}

/**
 * R1_OUT_OF_RANGE beyond the partition, or 0: for erase and write protection, where the bits of a byte address below
 * the block or the group are ignored (SD Physical Layer §4.3.5, JESD84-B51 §6.10, §6.6.18).
 */
export function rangeErrors(argument: u32): u32 {
  return sectorOf(argument) >= mediumSectors(card().partition) ? R1_OUT_OF_RANGE : 0;
}
