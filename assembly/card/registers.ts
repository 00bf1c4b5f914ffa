// The registers a card is born with, of whichever kind it is: built from CONFIG before power-up.

import { EXT_CSD_BASE } from "../layout";
import { buildEmmcCid, buildEmmcCsd, buildExtCsd } from "./emmc-registers";
import { resetExtCsd } from "./emmc-write-types";
import { beginPacked } from "./packed";
import { seal128 } from "./register-bits";
import { buildSdCid, buildSdCsd, buildSdRegisters } from "./sd-registers";
import { Card, card, isEmmc } from "./state";
import { clearProtection, endPowerOnProtection } from "./write-protect";

/** Volatile fields are 0 after this, as after a power-up. `scratch`: 16 bytes. */
export function buildRegisters(scratch: usize): void {
  const c = card();
  const cid = changetype<usize>(c) + offsetof<Card>("cid0");
  const csd = changetype<usize>(c) + offsetof<Card>("csd0");
  memory.fill(cid, 0, 16);
  memory.fill(csd, 0, 16);
  memory.fill(EXT_CSD_BASE, 0, 512);
  if (isEmmc()) {
    buildEmmcCid(cid);
    buildEmmcCsd(csd);
    buildExtCsd();
    clearProtection();
  } else {
    buildSdCid(cid);
    buildSdCsd(csd);
    buildSdRegisters();
  }
  seal128(cid, scratch);
  seal128(csd, scratch);
}

/** CMD0: what is volatile returns to 0. With `power` (power-up, RST_n) also what is set once until then. */
export function resetVolatileRegisters(power: bool): void {
  if (!isEmmc()) return;
  resetExtCsd(power);
  beginPacked();
  if (power) endPowerOnProtection();
}
