// Write protection of an eMMC (JESD84-B51 §6.6.18, mmc.md §1.4, §1.8): groups of the user area and of the general
// purpose partitions by CMD28 to 31, boot partitions by EXT_CSD_BOOT_WP, all of it by two bits of the CSD. A group is
// EXT_CSD_HC_WP_GRP_SIZE erase groups, whatever EXT_CSD_ERASE_GROUP_DEF says: the CSD tells the same size.
//
// Where the standard is silent or out of reach, this card: keeps the stronger of two protections; answers CMD29 for a
// group that is not protected temporarily with WP_VIOLATION; answers CMD28 and 29 in a boot partition with ERROR.
// Not modelled: the password, and the secure protection of 5.1 that RPMB would control.

import { storeBigEndian32 } from "../bytes";
import { CARD_BLOCK, CONFIG_SWITCH_NS, PROTECTION_GROUPS_MAX, PROTECTION_TABLE } from "../layout";
import { addressErrors, sectorOf } from "./address";
import { answerR1, RESPONSE_R1 } from "./answer";
import { beginRegister } from "./busy";
import { cacheForgetRange } from "./cache";
import {
  ERASE_GROUP_SECTORS,
  EXT_CSD_BOOT_WP,
  EXT_CSD_HC_WP_GRP_SIZE,
  EXT_CSD_USER_WP,
  extCsd,
} from "./emmc-registers";
import { mediumErase, mediumSectors, PARTITION_GP1, PARTITIONS } from "./medium";
import { card, isEmmc, R1_ERROR, R1_WP_VIOLATION, STATE_PRG, STATE_TRAN } from "./state";
import { sendRegister } from "./transfer";

/** As CMD31 tells them. */
export const PROTECTION_NONE: u32 = 0;
export const PROTECTION_TEMPORARY: u32 = 1;
export const PROTECTION_POWER_ON: u32 = 2;
export const PROTECTION_PERMANENT: u32 = 3;

const CSD_TMP_WRITE_PROTECT: u32 = 1 << 12;
const CSD_PERM_WRITE_PROTECT: u32 = 1 << 13;
const US_PWR_WP_EN: u32 = 1 << 0;
const US_PERM_WP_EN: u32 = 1 << 2;
/** How many groups CMD30 and CMD31 tell of. */
const GROUPS_TOLD: u32 = 32;

function groupSectors(): u32 {
  return extCsd(EXT_CSD_HC_WP_GRP_SIZE) * ERASE_GROUP_SECTORS;
}

function groupsOf(partition: u32): u32 {
  const sectors = mediumSectors(partition);
  return sectors / groupSectors() + (sectors % groupSectors() != 0 ? 1 : 0);
}

/** Where a partition's groups stand in the table: the user area's first, then the general purpose ones'. */
function groupIndex(partition: u32, sector: u32): u32 {
  let index = sector / groupSectors();
  if (partition >= PARTITION_GP1) {
    index += groupsOf(0);
    for (let i = PARTITION_GP1; i < partition && i < PARTITIONS; i++) index += groupsOf(i);
  }
  return index & (PROTECTION_GROUPS_MAX - 1);
}

function groupProtection(index: u32): u32 {
  return (<u32>load<u8>(PROTECTION_TABLE + (index >>> 2)) >>> ((index & 3) << 1)) & 3;
}

function protectGroup(index: u32, protection: u32): void {
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
function protectionOf(partition: u32, sector: u32): u32 {
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
  const good = mediumErase(partition, first, last - first + 1);
  cacheForgetRange(partition, first, last);
  return good;
}

/** CMD28 and CMD29: the group of an address. USER_WP says how strongly CMD28 protects. */
export function setProtection(argument: u32, on: bool, timeNs: u64): u32 {
  const partition = card().partition;
  let errors = addressErrors(argument);
  if (errors == 0 && (partition == 1 || partition == 2)) errors = R1_ERROR;
  if (errors == 0) {
    const index = groupIndex(partition, sectorOf(argument));
    const before = groupProtection(index);
    const rules = extCsd(EXT_CSD_USER_WP);
    if (on) {
      let wanted = PROTECTION_TEMPORARY;
      if ((rules & US_PERM_WP_EN) != 0) wanted = PROTECTION_PERMANENT;
      else if ((rules & US_PWR_WP_EN) != 0) wanted = PROTECTION_POWER_ON;
      if (wanted > before) protectGroup(index, wanted);
    } else if (before > PROTECTION_TEMPORARY) {
      errors = R1_WP_VIOLATION;
    } else if (before == PROTECTION_TEMPORARY) {
      protectGroup(index, PROTECTION_NONE);
    }
  }
  answerR1(STATE_TRAN, errors);
  if (errors == 0) {
    card().state = STATE_PRG;
    beginRegister(timeNs, load<u32>(CONFIG_SWITCH_NS));
  }
  return RESPONSE_R1;
}

/** CMD30 (a bit a group) and CMD31 (two bits): 32 groups from the addressed one on, the first in the lowest bits. */
export function sendProtection(argument: u32, withType: bool, timeNs: u64): u32 {
  const errors = addressErrors(argument);
  answerR1(STATE_TRAN, errors);
  if (errors != 0) return RESPONSE_R1;
  const partition = card().partition;
  const firstGroup = sectorOf(argument) / groupSectors();
  const groups = groupsOf(partition);
  let low: u32 = 0;
  let high: u32 = 0;
  for (let i: u32 = 0; i < GROUPS_TOLD; i++) {
    if (firstGroup + i >= groups) break;
    const protection = protectionOf(partition, (firstGroup + i) * groupSectors());
    if (!withType) low |= (<u32>(protection != PROTECTION_NONE)) << i;
    else if (i < 16) low |= protection << (i << 1);
    else high |= protection << ((i - 16) << 1);
  }
  if (withType) storeBigEndian32(CARD_BLOCK, high);
  storeBigEndian32(CARD_BLOCK + (withType ? 4 : 0), low);
  sendRegister(withType ? 8 : 4, timeNs);
  return RESPONSE_R1;
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
