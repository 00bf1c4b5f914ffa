// The stored bytes, and the only code that touches them. Partition 0 is the user area, 1 and 2 an eMMC's boot
// partitions, 4 to 7 its general purpose partitions, each with sectors from 0 on; 3 would be RPMB, which is not there.
// By default the medium follows the machine in the linear memory, in this order; built with
// EXTERNAL_MEDIUM it is two synchronous calls of the host: read/write(partition, lba, sectors, ptr) → 0, or
// not 0 if the sectors cannot be read or written (the card then reports an ECC or a program error). Built with
// EXTERNAL_BUS besides, it is in the memory if that goes on behind the machine, and not with a crash dump's table.

import { CHECK_BLOCK_RANGE, check } from "../check";
import {
  CARD_EMMC,
  CONFIG_BOOT_SECTORS,
  CONFIG_CARD_KIND,
  CONFIG_GP1_SECTORS,
  CONFIG_SD_FLAGS,
  CONFIG_SECTORS,
  DUMP_WORK,
  MACHINE_PAGES,
  MEDIUM_BASE,
  MEDIUM_STORES,
  SD_ERASED_ONES,
  SECTOR_BYTES,
} from "../layout";

/** The first general purpose partition, as EXT_CSD_PARTITION_CONFIG counts. */
export const PARTITION_GP1: u32 = 4;
/** How many numbers partitions have, those included that are not there. */
export const PARTITIONS: u32 = 8;

/** In place of a pointer to the sectors: they are all zero, or all ones. */
const ZEROS: usize = 0;
const ONES: usize = 1;

declare function read(partition: u32, lba: u32, sectors: u32, ptr: usize): i32;
declare function write(partition: u32, lba: u32, sectors: u32, ptr: usize): i32;

function isElsewhere(): bool {
  if (!isDefined(EXTERNAL_BUS)) return true;
  // Where a medium would begin, the table of a crash dump does, if there is none.
  return memory.size() <= MACHINE_PAGES || load<u32>(DUMP_WORK) == <u32>MEDIUM_BASE;
}

/** Sectors of a partition; 0: it is not there. */
export function mediumSectors(partition: u32): u32 {
  if (partition == 0) return load<u32>(CONFIG_SECTORS);
  if (partition < 3) return load<u32>(CONFIG_BOOT_SECTORS);
  if (partition == 3 || partition >= PARTITIONS) return 0;
  return load<u32>((partition - PARTITION_GP1) << 2, CONFIG_GP1_SECTORS);
}

function addressOf(partition: u32, lba: u32): usize {
  check(lba < mediumSectors(partition), CHECK_BLOCK_RANGE);
  let index = lba;
  for (let before: u32 = 0; before < partition && before < PARTITIONS; before++)
    index += mediumSectors(before);
  return MEDIUM_BASE + index * SECTOR_BYTES;
}

/** `sectors` sectors to `ptr`; false if one cannot be read. */
export function mediumReadRun(partition: u32, lba: u32, sectors: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_MEDIUM)) {
    if (isElsewhere()) return read(partition, lba, sectors, ptr) == 0;
  }
  memory.copy(ptr, addressOf(partition, lba), sectors * SECTOR_BYTES);
  return true;
}

export function mediumRead(partition: u32, lba: u32, ptr: usize): bool {
  return mediumReadRun(partition, lba, 1, ptr);
}

/** `sectors` sectors from `ptr`; false if one cannot be written. */
export function mediumWriteRun(partition: u32, lba: u32, sectors: u32, ptr: usize): bool {
  store<u64>(MEDIUM_STORES, load<u64>(MEDIUM_STORES) + sectors);
  if (isDefined(EXTERNAL_MEDIUM)) {
    if (isElsewhere()) return write(partition, lba, sectors, ptr) == 0;
  }
  memory.copy(addressOf(partition, lba), ptr, sectors * SECTOR_BYTES);
  return true;
}

export function mediumWrite(partition: u32, lba: u32, ptr: usize): bool {
  return mediumWriteRun(partition, lba, 1, ptr);
}

/** Where sectors lie that are to be read, or written, in place; 0: not in this memory. */
export function mediumPlace(partition: u32, lba: u32, writtenSectors: u32): usize {
  if (isDefined(EXTERNAL_MEDIUM)) {
    if (isElsewhere()) return 0;
  }
  store<u64>(MEDIUM_STORES, load<u64>(MEDIUM_STORES) + writtenSectors);
  return addressOf(partition, lba);
}

/** What an erased byte reads as: EXT_CSD_ERASED_MEM_CONT 0; SD as SCR DATA_STAT_AFTER_ERASE says. */
function erasedByte(): u8 {
  const isSd = load<u32>(CONFIG_CARD_KIND) != <u32>CARD_EMMC;
  return isSd && (load<u32>(CONFIG_SD_FLAGS) & SD_ERASED_ONES) != 0 ? 0xff : 0;
}

/** `sectors` sectors become what erased sectors read as; false if one cannot. */
export function mediumErase(partition: u32, lba: u32, sectors: u32): bool {
  store<u64>(MEDIUM_STORES, load<u64>(MEDIUM_STORES) + 1);
  if (isDefined(EXTERNAL_MEDIUM)) {
    if (isElsewhere()) return write(partition, lba, sectors, erasedByte() == 0 ? ZEROS : ONES) == 0;
  }
  memory.fill(addressOf(partition, lba), erasedByte(), sectors * SECTOR_BYTES);
  return true;
}
