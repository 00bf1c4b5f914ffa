// Write protection of an SD card (SD Physical Layer 3.01 §4.3.6): the whole card by TMP_ and PERM_WRITE_PROTECT of
// the CSD (CMD27), and the groups of an SDSC card (CMD28, 29, 30). The switch of the case is the host's business:
// the card does not know it. Groups are bits behind the SCR; they and the CSD survive the supply.

import { storeBigEndian32 } from "../bytes";
import { crc7 } from "../crc";
import { CARD_BLOCK, CONFIG_SECTORS, EXT_CSD_BASE, PROGRAM_BLOCK } from "../layout";
import { flashErase } from "./flash";
import { card, isSdsc, R1_CID_CSD_OVERWRITE, R1_ERROR, raise } from "./state";

/** CSD SECTOR_SIZE 31 (32 blocks) × WP_GRP_SIZE 127 (128 of them): 2 MiB, 1024 groups on the largest SDSC. */
export const GROUP_SECTORS: u32 = 32 * 128;
const GROUPS_MAX: u32 = 1024;
/** Behind SSR (64) and SCR (8): one bit for each group. */
const GROUP_BITS_OFFSET: u32 = 128;
const CSD_TMP_WRITE_PROTECT: u32 = 1 << 12;
const CSD_PERM_WRITE_PROTECT: u32 = 1 << 13;
const CSD_COPY: u32 = 1 << 14;
/** CRC, FILE_FORMAT, the two protections, COPY, FILE_FORMAT_GRP. */
const CSD_WRITABLE: u32 = 0xfcff;

function groupByte(group: u32): usize {
  return EXT_CSD_BASE + GROUP_BITS_OFFSET + (group >>> 3);
}

function isGroupProtected(group: u32): bool {
  return group < GROUPS_MAX && ((<u32>load<u8>(groupByte(group)) >>> (group & 7)) & 1) != 0;
}

/** CMD28 and 29: the group that `lba` lies in. */
export function protectGroup(lba: u32, on: bool): void {
  const group = lba / GROUP_SECTORS;
  if (group >= GROUPS_MAX) return;
  const at = groupByte(group);
  const bit: u32 = 1 << (group & 7);
  const bits: u32 = load<u8>(at);
  store<u8>(at, <u8>(on ? bits | bit : bits & ~bit));
}

/** CMD30: 32 groups from the one of `lba` on, the first one in bit 0; groups behind the end read as 0. */
export function groupBits(lba: u32): u32 {
  let bits: u32 = 0;
  for (let i: u32 = 0; i < 32; i++) if (isGroupProtected(lba / GROUP_SECTORS + i)) bits |= 1 << i;
  return bits;
}

/** The whole card, by its CSD. */
export function isCardProtected(): bool {
  return (card().csd0 & (CSD_TMP_WRITE_PROTECT | CSD_PERM_WRITE_PROTECT)) != 0;
}

export function isWriteProtected(lba: u32): bool {
  return isCardProtected() || (isSdsc() && isGroupProtected(lba / GROUP_SECTORS));
}

/** True if a group of `first … last` is protected. */
export function anyProtected(first: u32, last: u32): bool {
  if (!isSdsc()) return false;
  const from = first / GROUP_SECTORS;
  for (let i: u32 = 0; i <= last / GROUP_SECTORS - from && i < GROUPS_MAX; i++) {
    if (isGroupProtected(from + i)) return true;
  }
  return false;
}

/** An erase leaves protected groups out. False: the medium refused. */
export function eraseUnprotectedGroups(lba: u32, sectors: u32): bool {
  const end = lba + sectors;
  if (!anyProtected(lba, end - 1)) return flashErase(0, lba, sectors);
  const from = lba / GROUP_SECTORS;
  for (let i: u32 = 0; i < GROUPS_MAX; i++) {
    const group = from + i;
    if (group * GROUP_SECTORS >= end) break;
    const first = i == 0 ? lba : group * GROUP_SECTORS;
    const next = (group + 1) * GROUP_SECTORS;
    const past = next < end ? next : end;
    if (!isGroupProtected(group) && !flashErase(0, first, past - first)) return false;
  }
  return true;
}

/** The card's CSD as the wire has it, 16 bytes. */
function csdTo(ptr: usize): void {
  const c = card();
  storeBigEndian32(ptr, c.csd3);
  storeBigEndian32(ptr + 4, c.csd2);
  storeBigEndian32(ptr + 8, c.csd1);
  storeBigEndian32(ptr + 12, c.csd0);
}

/**
 * CMD27's block in PROGRAM_BLOCK becomes the CSD, if it changes nothing but what may be changed and takes back
 * neither COPY nor the permanent protection: R1_CID_CSD_OVERWRITE otherwise. A wrong CRC7 in it: R1_ERROR.
 */
export function programSdCsd(): void {
  const c = card();
  csdTo(CARD_BLOCK);
  const isSame =
    load<u64>(CARD_BLOCK) == load<u64>(PROGRAM_BLOCK) &&
    load<u32>(CARD_BLOCK, 8) == load<u32>(PROGRAM_BLOCK, 8);
  const wanted = bswap<u32>(load<u32>(PROGRAM_BLOCK, 12));
  const once = c.csd0 & (CSD_COPY | CSD_PERM_WRITE_PROTECT);
  if (!isSame || ((wanted ^ c.csd0) & ~CSD_WRITABLE) != 0 || (once & ~wanted) != 0) {
    raise(R1_CID_CSD_OVERWRITE);
    return;
  }
  if (((wanted >>> 1) & 0x7f) != crc7(PROGRAM_BLOCK, 15)) {
    raise(R1_ERROR);
    return;
  }
  c.csd0 = wanted | 1;
}

/** True if a group for CMD28, 29, 30 lies on the card. */
export function hasGroup(lba: u32): bool {
  return lba < load<u32>(CONFIG_SECTORS);
}
