// CMD27 of an eMMC: the few bits of the CSD that a host may write (JESD84-B51 §7.3, mmc.md §1.7).

import { loadBigEndian32 } from "../bytes";
import { CARD_BLOCK } from "../layout";
import { EXT_CSD_USER_WP, extCsd } from "./emmc-registers";
import { seal128 } from "./register-bits";
import { Card, card, R1_CID_CSD_OVERWRITE, raise } from "./state";

/** FILE_FORMAT_GRP (15) and COPY (14), PERM_WRITE_PROTECT (13): set once. */
const ONCE: u32 = 0xe000;
/** TMP_WRITE_PROTECT (12), FILE_FORMAT (11:10), ECC (9:8). */
const FREE: u32 = 0x1f00;
const PERM_WRITE_PROTECT: u32 = 1 << 13;
/** EXT_CSD_USER_WP: PERM_WRITE_PROTECT can no longer be set. */
const CD_PERM_WP_DIS: u32 = 1 << 6;

/**
 * 16 bytes, the highest first. Anything but writable bits changed, or a bit that is set once taken back, and nothing is
 * written: R1_CID_CSD_OVERWRITE. The CRC7 in the last byte is made anew, whatever the host put there.
 */
export function programCsd(ptr: usize): void {
  const c = card();
  const wanted = loadBigEndian32(ptr + 12);
  const before = c.csd0;
  let isWritable =
    loadBigEndian32(ptr) == c.csd3 &&
    loadBigEndian32(ptr + 4) == c.csd2 &&
    loadBigEndian32(ptr + 8) == c.csd1;
  if (((wanted ^ before) & 0xffffff00 & ~(ONCE | FREE)) != 0 || (before & ONCE & ~wanted) != 0)
    isWritable = false;
  const isForbidden =
    (wanted & ~before & PERM_WRITE_PROTECT) != 0 && (extCsd(EXT_CSD_USER_WP) & CD_PERM_WP_DIS) != 0;
  if (!isWritable || isForbidden) {
    raise(R1_CID_CSD_OVERWRITE);
    return;
  }
  c.csd0 = wanted;
  seal128(changetype<usize>(c) + offsetof<Card>("csd0"), CARD_BLOCK);
}
