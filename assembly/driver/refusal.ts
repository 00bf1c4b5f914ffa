// The first command that the card did not take: what a failure is explained with when the command sent last is one that
// succeeded, as the reads of the next zone behind a write into a protected one.
import { SDHCI_CMD_DATA, SDHCI_CMD_INDEX } from "../sdhci/registers";
import { KIND_EMMC, shadow } from "./shadow";

/**
 * R1's error bits: 31 to 15, SWITCH_ERROR and AKE_SEQ_ERROR. COM_CRC_ERROR and ILLEGAL_COMMAND are among them and say
 * no to the command before.
 */
const STATUS_REFUSALS: u32 = 0xffff8088;

/** What was refused before is another story. */
export function forgetRefusal(token: u32): void {
  shadow(token).refused = 0;
}

/** Whether word 0 of this response is a card status: R6 and R7 look alike and are not. */
function isR1(token: u32, index: u32, answer: u32): bool {
  if ((answer & SDHCI_CMD_INDEX) == 0) return false;
  if (index == 3) return shadow(token).kind == KIND_EMMC;
  return index != 8 || (answer & SDHCI_CMD_DATA) != 0;
}

/** What became of a command: `status` of waiting for its response, which is `word`. */
export function noteAnswer(token: u32, index: u32, argument: u32, answer: u32, status: i32, word: u32): void {
  const s = shadow(token);
  const r1 = status == 0 && isR1(token, index, answer) ? word : 0;
  if (s.refused != 0 || (status == 0 && (r1 & STATUS_REFUSALS) == 0)) return;
  s.refused = 1;
  s.refusedCommand = index;
  s.refusedArgument = argument;
  s.refusedR1 = r1;
  s.refusedStatus = status;
}
