// What a command's argument means as an address: a sector of the selected partition. SDSC and eMMCs up to 2 GiB
// count bytes (mmc.md §1.7, OCR bit 30), all others sectors.

import { SECTOR_BYTES } from "../layout";
import { mediumSectors } from "./medium";
import { card, R1_ADDRESS_ERROR, R1_OUT_OF_RANGE } from "./state";

export function isByteAddressed(): bool {
  return card().byteAddressed != 0;
}

/** The sector that an argument names; only sensible when addressErrors() is 0. */
export function sectorOf(argument: u32): u32 {
  return isByteAddressed() ? argument / SECTOR_BYTES : argument;
}

/** R1_OUT_OF_RANGE beyond the partition, R1_ADDRESS_ERROR inside a sector, or 0. */
export function addressErrors(argument: u32): u32 {
  let errors: u32 = 0;
  if (sectorOf(argument) >= mediumSectors(card().partition)) errors |= R1_OUT_OF_RANGE;
  if (isByteAddressed() && argument % SECTOR_BYTES != 0) errors |= R1_ADDRESS_ERROR;
  return errors;
}
