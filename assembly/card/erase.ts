// CMD35, 36, 38 (SD 32, 33, 38): the erase sequence and what is erased.

import { CONFIG_DISCARD_NS, CONFIG_ERASE_NS, CONFIG_TRIM_NS, SD_DISCARD, SD_FULE } from "../layout";
import { rangeErrors, sectorOf } from "./address";
import { answerR1, RESPONSE_R1 } from "./answer";
import { beginErase } from "./busy";
import { ERASE_GROUP_SECTORS } from "./emmc-registers";
import { mediumSectors } from "./medium";
import { anyProtected, isCardProtected } from "./sd-protect";
import {
  card,
  hasSdFlag,
  isEmmc,
  R1_ERASE_PARAM,
  R1_ERASE_SEQ_ERROR,
  R1_WP_ERASE_SKIP,
  R1_WP_VIOLATION,
  raise,
  STATE_PRG,
  STATE_TRAN,
} from "./state";
import { isProtectedWithin } from "./write-protect";

const SD_ERASE: u32 = 0;
const DISCARD: u32 = 1;
/** Full user area logical erase. */
const FULE: u32 = 2;

/** CMD35/36 (SD 32/33): first and last sector of an erase, in this order. */
export function eraseBound(isLast: bool, argument: u32): u32 {
  const c = card();
  let errors = rangeErrors(argument);
  if (errors == 0 && isLast && c.eraseStep != 1) errors = R1_ERASE_SEQ_ERROR;
  if (errors != 0) {
    c.eraseStep = 0;
  } else if (isLast) {
    c.eraseLast = sectorOf(argument);
    c.eraseStep = 2;
  } else {
    c.eraseFirst = sectorOf(argument);
    c.eraseStep = 1;
  }
  return answerR1(STATE_TRAN, errors);
}

/**
 * What CMD38 asks for. Up to SD version 4 its argument is stuff (SD Physical Layer §4.7.4); it tells the kind of an
 * erase since there are others: cards that advertise one in their SSR look at it, the others do not.
 */
function eraseMode(argument: u32): u32 {
  const looks = isEmmc() || hasSdFlag(SD_DISCARD | SD_FULE);
  return looks ? argument : SD_ERASE;
}

/** The modes of CMD38: SD takes 1 and 2 as its SSR advertises them, 2 for the whole user area only. */
function isEraseMode(argument: u32, first: u32, last: u32): bool {
  if (isEmmc()) return argument == 0 || argument == 1 || argument == 3;
  if (argument == SD_ERASE) return true;
  if (argument == DISCARD) return hasSdFlag(SD_DISCARD);
  return argument == FULE && hasSdFlag(SD_FULE) && first == 0 && last == mediumSectors(0) - 1;
}

/** What an erase group costs: eMMC trim (1) and discard (3), SD discard (1) have times of their own. */
function groupNs(argument: u32): u32 {
  if (argument == 0) return load<u32>(CONFIG_ERASE_NS);
  return load<u32>(isEmmc() && argument == 1 ? CONFIG_TRIM_NS : CONFIG_DISCARD_NS);
}

/**
 * CMD38. eMMC: 0 erases whole groups, 1 (trim) and 3 (discard) sectors, and no secure form of them is there
 * (EXT_CSD_SEC_FEATURE_SUPPORT bit 0); SD: sectors. Protected groups are skipped, which the next R1 tells.
 */
export function erase(argument: u32, timeNs: u64): u32 {
  const c = card();
  const mode = eraseMode(argument);
  if (c.eraseStep != 2) {
    c.eraseStep = 0;
    return answerR1(STATE_TRAN, R1_ERASE_SEQ_ERROR);
  }
  c.eraseStep = 0;
  let first = c.eraseFirst;
  let last = c.eraseLast;
  if (first > last || !isEraseMode(mode, first, last)) {
    return answerR1(STATE_TRAN, R1_ERASE_PARAM);
  }
  if (isEmmc() && mode == 0) {
    // Without ERASE_GROUP_DEF the groups are those of the CSD: 32 × 32 sectors, the same size here.
    first = first - (first % ERASE_GROUP_SECTORS);
    last = last - (last % ERASE_GROUP_SECTORS) + ERASE_GROUP_SECTORS - 1;
    const end = mediumSectors(c.partition) - 1;
    if (last > end) last = end;
  }
  if (!isEmmc() && isCardProtected()) return answerR1(STATE_TRAN, R1_WP_VIOLATION);
  answerR1(STATE_TRAN, 0);
  c.state = STATE_PRG;
  if (isEmmc() ? isProtectedWithin(c.partition, first, last) : anyProtected(first, last))
    raise(R1_WP_ERASE_SKIP);
  beginErase(first, last, timeNs, groupNs(mode), mode == FULE);
  return RESPONSE_R1;
}
