// The registers a card is born with, of whichever kind it is: built from CONFIG before power-up.

import { EXT_CSD_BASE } from "../layout";
import { buildEmmcCid, buildEmmcCsd, buildExtCsd, resetVolatileExtCsd } from "./emmc-registers";
import { seal128 } from "./register-bits";
import { buildSdCid, buildSdCsd, buildSdRegisters } from "./sd-registers";
import { Card, card, isEmmc } from "./state";

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
  } else {
    buildSdCid(cid);
    buildSdCsd(csd);
    buildSdRegisters();
  }
  seal128(cid, scratch);
  seal128(csd, scratch);
}

/** CMD0, reset and power-up: what is volatile returns to 0. */
export function resetVolatileRegisters(): void {
  if (isEmmc()) resetVolatileExtCsd();
}
