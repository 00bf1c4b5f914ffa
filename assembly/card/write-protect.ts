// Write protection of an eMMC (JESD84-B51 §6.6.18, mmc.md §1.4, §1.8): groups of the user area and of the
// general purpose partitions, boot partitions by EXT_CSD_BOOT_WP, all of it by two bits of the CSD. A group is
// EXT_CSD_HC_WP_GRP_SIZE erase groups, whatever EXT_CSD_ERASE_GROUP_DEF says: the CSD tells the same size.
// Not modelled: the password, and the secure protection of 5.1 that RPMB would control.

import { PROTECTION_GROUPS_MAX, PROTECTION_TABLE } from "../layout";
import { cacheForgetRange } from "./cache";
import { ERASE_GROUP_SECTORS, EXT_CSD_BOOT_WP, EXT_CSD_HC_WP_GRP_SIZE, extCsd } from "./emmc-registers";
import { flashErase } from "./flash";
import { mediumSectors, PARTITION_GP1, PARTITIONS } from "./medium";
import { card, isEmmc } from "./state";

/** As CMD31 tells them. */
export const PROTECTION_NONE: u32 = 0;
export const PROTECTION_TEMPORARY: u32 = 1;
export const PROTECTION_POWER_ON: u32 = 2;
export const PROTECTION_PERMANENT: u32 = 3;

const CSD_TMP_WRITE_PROTECT: u32 = 1 << 12;
const CSD_PERM_WRITE_PROTECT: u32 = 1 << 13;

export function groupSectors(): u32 {
  return extCsd(EXT_CSD_HC_WP_GRP_SIZE) * ERASE_GROUP_SECTORS;
}

export function groupsOf(partition: u32): u32 {
  const sectors = mediumSectors(partition);
  return sectors / groupSectors() + (sectors % groupSectors() != 0 ? 1 : 0);
}

/** Where a partition's groups stand in the table: the user area's first, then the general purpose ones'. */
export function groupIndex(partition: u32, sector: u32): u32 {
  let index = sector / groupSectors();
  if (partition >= PARTITION_GP1) {
    index += groupsOf(0);
    for (let i = PARTITION_GP1; i < partition && i < PARTITIONS; i++) index += groupsOf(i);
  }
  return index & (PROTECTION_GROUPS_MAX - 1);
}

export function groupProtection(index: u32): u32 {
  return (<u32>load<u8>(PROTECTION_TABLE + (index >>> 2)) >>> ((index & 3) << 1)) & 3;
}

export function protectGroup(index: u32, protection: u32): void {
  const at: usize = PROTECTION_TABLE + (index >>> 2);
  const shift = (index & 3) << 1;
  store<u8>(at, <u8>((<u32>load<u8>(at) & ~((<u32>3) << shift)) | (protection << shift)));
  card().isProtected = 1;
}

/** EXT_CSD_BOOT_WP: one rule for both boot partitions, or one for the partition that it names. */
function bootProtection(partition: u32): u32 {
  const bits = extCsd(EXT_CSD_BOOT_WP);
  const second: u32 = partition == 2 ? 1 : 0;
  const both = (bits & 0x80) == 0;
  if ((bits & 0x04) != 0 && (both || ((bits >>> 3) & 1) == second)) return PROTECTION_PERMANENT;
  if ((bits & 0x01) != 0 && (both || ((bits >>> 1) & 1) == second)) return PROTECTION_POWER_ON;
  return PROTECTION_NONE;
}

/** EXT_CSD_BOOT_WP_STATUS: two bits a boot partition, 1 power-on, 2 permanent. */
export function bootProtectionStatus(): u32 {
  const first = bootProtection(1);
  const second = bootProtection(2);
  return (first > 0 ? first - 1 : 0) | ((second > 0 ? second - 1 : 0) << 2);
}

/** PROTECTION_*: what keeps a sector from being written or erased. */
export function protectionOf(partition: u32, sector: u32): u32 {
  const c = card();
  if ((c.csd0 & CSD_PERM_WRITE_PROTECT) != 0) return PROTECTION_PERMANENT;
  if ((c.csd0 & CSD_TMP_WRITE_PROTECT) != 0) return PROTECTION_TEMPORARY;
  if (partition == 1 || partition == 2) return bootProtection(partition);
  return c.isProtected != 0 ? groupProtection(groupIndex(partition, sector)) : PROTECTION_NONE;
}

export function isProtected(partition: u32, sector: u32): bool {
  return isEmmc() && protectionOf(partition, sector) != PROTECTION_NONE;
}

/** True if some sector of `first … last` is protected. */
export function isProtectedWithin(partition: u32, first: u32, last: u32): bool {
  if (!isEmmc()) return false;
  const size = groupSectors();
  const firstGroup = first / size;
  const groups = last / size - firstGroup + 1;
  for (let i: u32 = 0; i < groups && i < <u32>PROTECTION_GROUPS_MAX; i++) {
    if (protectionOf(partition, (firstGroup + i) * size) != PROTECTION_NONE) return true;
  }
  return false;
}

/** Erases `count` sectors on the medium and in the cache, but for those in protected groups. */
export function eraseUnprotected(partition: u32, first: u32, count: u32): bool {
  if (count == 0) return true;
  const last = first + count - 1;
  if (!isProtectedWithin(partition, first, last)) return eraseSectors(partition, first, last);
  const size = groupSectors();
  const firstGroup = first / size;
  const groups = last / size - firstGroup + 1;
  let good = true;
  for (let i: u32 = 0; i < groups && i < <u32>PROTECTION_GROUPS_MAX; i++) {
    const start = (firstGroup + i) * size;
    if (protectionOf(partition, start) != PROTECTION_NONE) continue;
    const from = start < first ? first : start;
    const until = last - start < size - 1 ? last : start + size - 1;
    if (!eraseSectors(partition, from, until)) good = false;
  }
  return good;
}

function eraseSectors(partition: u32, first: u32, last: u32): bool {
  const good = flashErase(partition, first, last - first + 1);
  cacheForgetRange(partition, first, last);
  return good;
}

/** Power-up and RST_n: power-on protection ends. */
export function endPowerOnProtection(): void {
  if (card().isProtected == 0) return;
  for (let at: u32 = 0; at < <u32>PROTECTION_GROUPS_MAX / 4; at += 8) {
    const word = load<u64>(PROTECTION_TABLE + at);
    const onlyHigh = word & 0xaaaaaaaaaaaaaaaa & ~((word & 0x5555555555555555) << 1);
    store<u64>(PROTECTION_TABLE + at, word & ~onlyHigh);
  }
}

/** A card fresh from the factory. */
export function clearProtection(): void {
  card().isProtected = 0;
  memory.fill(PROTECTION_TABLE, 0, PROTECTION_GROUPS_MAX / 4);
}
