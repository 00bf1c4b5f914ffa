// OCR: the voltages a card works with, whether it has powered up, and how it is addressed (CMD1 and ACMD41).

import { laterNs } from "../clock";
import { CONFIG_INIT_NS, SD_UHS } from "../layout";
import { isByteAddressed } from "./address";
import { RESPONSE_NONE, RESPONSE_R3 } from "./answer";
import { card, hasSdFlag, isEmmc, STATE_INA, STATE_READY, VOLTAGE_330, VOLTAGE_OFFERED } from "./state";

const OCR_VOLTAGES: u32 = 0x00ff8000; // 2.7-3.6 V
const OCR_LOW_VOLTAGE: u32 = 0x80; // 1.70-1.95 V, eMMC
/** Where the argument names voltages. All of it 0: a question, which starts nothing. */
const WINDOW_SD: u32 = 0x00ffff00;
const WINDOW_EMMC: u32 = 0x00ffff80;
const OCR_SECTORS: u32 = 1 << 30;
const OCR_POWERED_UP: u32 = 1 << 31;
/** ACMD41: S18R of the host, S18A of the card. */
const OCR_LOW_SIGNALLING: u32 = 1 << 24;

/** OCR bit 30 as this card has it; SD shows it with bit 31 only, and knows no XPC (bit 28): it is not answered. */
function addressing(): u32 {
  return isByteAddressed() ? 0 : OCR_SECTORS;
}

/** True once a card that was asked with voltages has powered up. `wantsSectors`: the host's bit 30 (HCS). */
function hasPoweredUp(wantsSectors: bool, timeNs: u64): bool {
  const c = card();
  // 0 = not started, so a card that is ready at once at time 0 is ready at 1 ns.
  if (c.initUntilNs == 0) c.initUntilNs = laterNs(timeNs + load<u32>(CONFIG_INIT_NS), 1);
  // A host that cannot address sectors never sees such a card ready.
  return timeNs >= c.initUntilNs && (wantsSectors || addressing() == 0);
}

/** CMD1 and ACMD41 in SPI mode: no voltages in the argument; true when the card is ready. */
export function powersUpBySpi(argument: u32, timeNs: u64): bool {
  return hasPoweredUp((argument & OCR_SECTORS) != 0, timeNs);
}

/** CMD58: the OCR; bit 30 is valid with bit 31. */
export function ocrBySpi(ready: bool): u32 {
  return OCR_VOLTAGES | (ready ? OCR_POWERED_UP | addressing() : 0);
}

/** S18A: asked for, built in, and not there yet. */
function offersLowSignalling(argument: u32): bool {
  const asked = (argument & OCR_LOW_SIGNALLING) != 0;
  return asked && !isEmmc() && hasSdFlag(SD_UHS) && card().voltage == VOLTAGE_330;
}

/** CMD1 and ACMD41: the first call with voltages starts the clock, ready when it has run. */
export function sendOperatingConditions(argument: u32, timeNs: u64): u32 {
  const c = card();
  let ocr = OCR_VOLTAGES | (isEmmc() ? OCR_LOW_VOLTAGE : 0);
  const voltages = argument & (isEmmc() ? WINDOW_EMMC : WINDOW_SD);
  if (voltages != 0) {
    if ((voltages & ocr) == 0) {
      c.state = STATE_INA;
      return RESPONSE_NONE;
    }
    if (hasPoweredUp((argument & OCR_SECTORS) != 0, timeNs)) {
      c.state = STATE_READY;
      ocr |= OCR_POWERED_UP | addressing();
      if (offersLowSignalling(argument)) {
        c.voltage = VOLTAGE_OFFERED;
        ocr |= OCR_LOW_SIGNALLING;
      }
    } else if (isEmmc()) {
      ocr |= addressing();
    }
  } else if (isEmmc()) {
    ocr |= addressing();
  }
  c.response0 = ocr;
  return RESPONSE_R3;
}
