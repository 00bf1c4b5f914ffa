// The controller as the machine of an emulator has it (host/embed/peripheral.ts): its CPU's accesses cost no simulated
// time, for that CPU runs in another clock, which guestAdvance() tells of. With `ahead` everything that needs no driver
// is over when a call returns, and the clock stands where it then is. Each call leaves GUEST_IRQ and GUEST_NEXT_NS.

import { idleFromNs } from "../card/card";
import { advanceTo, NEVER, nowNs, soonerNs } from "../clock";
import { GUEST_IRQ, GUEST_NEXT_NS } from "../layout";
import { forgetFetched } from "./dma";
import { nextEventNs, run, runAhead } from "./engine";
import {
  readRegister8,
  readRegister16,
  readRegister32,
  writeRegister8,
  writeRegister16,
  writeRegister32,
} from "./mmio";
import { SDHCI_BUFFER_PORT, SDHCI_POWER_CONTROL, SDHCI_RESET_ALL, SDHCI_SOFTWARE_RESET } from "./registers";
import { engine, irqLevel } from "./state";

function goOn(ahead: u32): void {
  if (ahead != 0) runAhead();
  else run();
  forgetFetched();
  const idle = idleFromNs();
  store<u64>(GUEST_NEXT_NS, soonerNs(nextEventNs(), idle > nowNs() ? idle : NEVER));
  store<u32>(GUEST_IRQ, irqLevel());
}

/** A word through the buffer port that did not end its block: nothing else has changed. */
function isInBlock(offset: u32): bool {
  return offset == SDHCI_BUFFER_PORT && engine().bufferAt != 0;
}

/** `bytes`: 1, 2, else 4. */
export function guestRead(offset: u32, bytes: u32, ahead: u32): u32 {
  const value =
    bytes == 1 ? readRegister8(offset) : bytes == 2 ? readRegister16(offset) : readRegister32(offset);
  if (!isInBlock(offset)) goOn(ahead);
  return value;
}

export function guestWrite(offset: u32, bytes: u32, value: u32, ahead: u32): void {
  if (bytes == 1) writeRegister8(offset, value);
  else if (bytes == 2) writeRegister16(offset, value);
  else writeRegister32(offset, value);
  if (!isInBlock(offset)) goOn(ahead);
}

/** It is `timeNs` (its low and high half) now, if it was earlier. */
export function guestAdvance(timeNsLow: u32, timeNsHigh: u32, ahead: u32): void {
  advanceTo(((<u64>timeNsHigh) << 32) | timeNsLow);
  run();
  goOn(ahead);
}

/** The machine's reset line: the controller forgets everything, and with its power register the card's supply goes. */
export function guestReset(): void {
  writeRegister8(SDHCI_SOFTWARE_RESET, SDHCI_RESET_ALL);
  writeRegister8(SDHCI_POWER_CONTROL, 0);
  goOn(0);
}
