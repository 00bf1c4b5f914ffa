// OCR: the voltages a card works with, whether it has powered up, and how it is addressed (CMD1 and ACMD41).

import { laterNs } from "../clock";
import { CONFIG_INIT_NS } from "../layout";
import { isByteAddressed } from "./address";
import { RESPONSE_NONE, RESPONSE_R3 } from "./answer";
import { card, isEmmc, STATE_INA, STATE_READY } from "./state";

const OCR_VOLTAGES: u32 = 0x00ff8000; // 2.7-3.6 V
const OCR_LOW_VOLTAGE: u32 = 0x80; // 1.70-1.95 V, eMMC
const OCR_SECTORS: u32 = 1 << 30;
const OCR_POWERED_UP: u32 = 1 << 31;

/** CMD1 and ACMD41: the first call with voltages starts the clock, ready when it has run. */
export function sendOperatingConditions(argument: u32, timeNs: u64): u32 {
  const c = card();
  let ocr = OCR_VOLTAGES | (isEmmc() ? OCR_LOW_VOLTAGE : 0);
  const sectors: u32 = isByteAddressed() ? 0 : OCR_SECTORS;
  const voltages = argument & 0x00ffff80;
  if (voltages != 0) {
    if ((voltages & ocr) == 0) {
      c.state = STATE_INA;
      return RESPONSE_NONE;
    }
    // 0 = not started, so a card that is ready at once at time 0 is ready at 1 ns.
    if (c.initUntilNs == 0) c.initUntilNs = laterNs(timeNs + load<u32>(CONFIG_INIT_NS), 1);
    // A host that cannot address sectors never sees a card that does ready.
    if (timeNs >= c.initUntilNs && (argument & sectors) == sectors) {
      c.state = STATE_READY;
      ocr |= OCR_POWERED_UP | sectors;
    } else if (isEmmc()) {
      ocr |= sectors;
    }
  } else if (isEmmc()) {
    ocr |= sectors;
  }
  c.response0 = ocr;
  return RESPONSE_R3;
}
