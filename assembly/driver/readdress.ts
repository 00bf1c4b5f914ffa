// An SD card whose address is another one than the driver knows: it publishes a new one at each CMD3, and somebody
// else, a guest's driver, has asked since. It is not lost for that: in stby it tells the next one, and keeps lines and
// speed.

import { OK } from "../errno";
import { ANSWER_NONE, ANSWER_R1, ANSWER_R6, lastResponse, sendCommand } from "./command";
import { checkIdentity } from "./enumerate";
import { shadow } from "./shadow";

/**
 * CMD7 to nobody: stby, from tran and data. Then CMD3, CMD10 and CMD7. The card is free when this is called: behind
 * CMD12, and no longer busy. 0 or an errno: -ENODEV it is another card than before, which is then left in stby.
 */
export function readdressCard(token: u32): i32 {
  const s = shadow(token);
  let status = sendCommand(token, 7, 0, ANSWER_NONE, 0);
  if (status == OK) status = sendCommand(token, 3, 0, ANSWER_R6, 0);
  if (status != OK) return status;
  s.rca = lastResponse(token) >>> 16;
  status = checkIdentity(token, 10, s.rca << 16);
  return status == OK ? sendCommand(token, 7, s.rca << 16, ANSWER_R1, 0) : status;
}
