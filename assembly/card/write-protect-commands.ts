// CMD28 to 31 of an eMMC: protecting groups and telling of them. Where the standard is silent or out of reach,
// this card keeps the stronger of two protections, answers CMD29 for a group that is protected more than
// temporarily with WP_VIOLATION, and CMD28 and 29 in a boot partition with ERROR.

import { storeBigEndian32 } from "../bytes";
import { CARD_BLOCK, CONFIG_SWITCH_NS } from "../layout";
import { rangeErrors, sectorOf } from "./address";
import { answerR1, RESPONSE_R1 } from "./answer";
import { beginRegister } from "./busy";
import { EXT_CSD_USER_WP, extCsd } from "./emmc-registers";
import { card, R1_ERROR, R1_WP_VIOLATION, STATE_PRG, STATE_TRAN } from "./state";
import { sendRegister } from "./transfer";
import {
  groupIndex,
  groupProtection,
  groupSectors,
  groupsOf,
  PROTECTION_NONE,
  PROTECTION_PERMANENT,
  PROTECTION_POWER_ON,
  PROTECTION_TEMPORARY,
  protectGroup,
  protectionOf,
} from "./write-protect";

const US_PWR_WP_EN: u32 = 1 << 0;
const US_PERM_WP_EN: u32 = 1 << 2;
/** How many groups CMD30 and CMD31 tell of. */
const GROUPS_TOLD: u32 = 32;

/** CMD28 and CMD29: the group of an address. USER_WP says how strongly CMD28 protects. */
export function setProtection(argument: u32, on: bool, timeNs: u64): u32 {
  const partition = card().partition;
  let errors = rangeErrors(argument);
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
  const errors = rangeErrors(argument);
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
