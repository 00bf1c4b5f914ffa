// The controller's own settings: power, clock, lines, speed. What was set stands in the shadow, so that a panic
// can compare and put it back.

import { EBUSY, OK } from "../errno";
import {
  SDHCI_CAPABILITIES,
  SDHCI_CLOCK_CARD_EN,
  SDHCI_CLOCK_CONTROL,
  SDHCI_CLOCK_INT_EN,
  SDHCI_CLOCK_INT_STABLE,
  SDHCI_CTRL_4BITBUS,
  SDHCI_CTRL_8BITBUS,
  SDHCI_CTRL_ADMA32,
  SDHCI_CTRL_HISPD,
  SDHCI_HOST_CONTROL,
  SDHCI_HOST_CONTROL2,
  SDHCI_HOST_VERSION,
  SDHCI_INT_ENABLE,
  SDHCI_POWER_330,
  SDHCI_POWER_CONTROL,
  SDHCI_POWER_ON,
  SDHCI_SIGNAL_ENABLE,
  SDHCI_TIMEOUT_CONTROL,
  SPECIFICATION_300,
} from "../sdhci/registers";
import { MILLISECOND, POLLS_MAX, pause } from "./command";
import { portRead8, portRead16, portRead32, portWrite8, portWrite16, portWrite32 } from "./port";
import { isOver, KIND_SD, shadow, untilNs } from "./shadow";

/** Identification speed: at most 400 kHz. */
export const IDENTIFICATION_KHZ: u32 = 400;
const CLOCK_STABLE_NS: u64 = 150 * MILLISECOND;

/** Capabilities 15:8 in MHz, of version 1 and 2 13:8. One that does not say is taken for the fastest there can be. */
function baseClockKhz(token: u32, version3: bool): u32 {
  const mhz = (portRead32(token, SDHCI_CAPABILITIES) >>> 8) & (version3 ? 0xff : 0x3f);
  return (mhz == 0 ? 0xff : mhz) * 1000;
}

/** Clock off, divider, stable, on: the order of the specification. `khz` is an upper limit. */
export function setClock(token: u32, khz: u32): i32 {
  const version3 = (portRead16(token, SDHCI_HOST_VERSION) & 0xff) >= SPECIFICATION_300;
  const baseKhz = baseClockKhz(token, version3);
  // base / 2N; N = 0 is the base clock. Ten bits, of version 1 and 2 one bit of eight.
  let divider: u32 = khz >= baseKhz ? 0 : (baseKhz + 2 * khz - 1) / (2 * khz);
  if (!version3 && divider > 1) divider = 1 << (32 - clz(divider - 1));
  const dividerMax: u32 = version3 ? 1023 : 128;
  if (divider > dividerMax) divider = dividerMax;
  const bits = ((divider & 0xff) << 8) | ((divider & 0x300) >>> 2);
  return startClock(token, bits | SDHCI_CLOCK_INT_EN | SDHCI_CLOCK_CARD_EN);
}

/** Starts the clock as `control` (SDHCI_CLOCK_CONTROL) says. */
export function startClock(token: u32, control: u32): i32 {
  portWrite16(token, SDHCI_CLOCK_CONTROL, 0);
  portWrite16(token, SDHCI_CLOCK_CONTROL, control & ~SDHCI_CLOCK_CARD_EN);
  const endNs = untilNs(token, CLOCK_STABLE_NS);
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    if ((portRead16(token, SDHCI_CLOCK_CONTROL) & SDHCI_CLOCK_INT_STABLE) != 0) {
      portWrite16(token, SDHCI_CLOCK_CONTROL, control);
      shadow(token).clockControl = control;
      return OK;
    }
    if (isOver(token, endNs)) break;
    pause(token, 10000, endNs);
  }
  return EBUSY;
}

/** Lines and speed from the shadow, DMA select as asked. */
export function setHostControl(token: u32, dma: bool): void {
  const wanted = shadow(token).hostControl | (dma ? SDHCI_CTRL_ADMA32 : 0);
  if (portRead8(token, SDHCI_HOST_CONTROL) != wanted) portWrite8(token, SDHCI_HOST_CONTROL, wanted);
}

export function setLines(token: u32, width: u32, highSpeed: bool): void {
  const s = shadow(token);
  s.busWidth = width;
  s.highSpeed = highSpeed ? 1 : 0;
  s.hostControl =
    (width == 8 ? SDHCI_CTRL_8BITBUS : width == 4 ? SDHCI_CTRL_4BITBUS : 0) |
    (highSpeed ? SDHCI_CTRL_HISPD : 0);
  setHostControl(token, false);
}

/** The clock of the card's speed: eMMC 26 and 52 MHz, SD 25 and 50. */
export function setCardClock(token: u32): i32 {
  const s = shadow(token);
  const base: u32 = s.kind == KIND_SD ? 25000 : 26000;
  return setClock(token, s.highSpeed != 0 ? base * 2 : base);
}

/** Status bits on, no signals: everything is polled. */
export function enableStatus(token: u32): void {
  portWrite32(token, SDHCI_SIGNAL_ENABLE, 0);
  portWrite32(token, SDHCI_INT_ENABLE, 0x03ff0033);
  portWrite8(token, SDHCI_TIMEOUT_CONTROL, 0x0e);
}

export function isPowered(token: u32): bool {
  return (portRead8(token, SDHCI_POWER_CONTROL) & SDHCI_POWER_ON) != 0;
}

/** Supply on. A card begins at 3.3 V when it comes; one that has it may be at 1.8 V, and the host is then with it. */
export function switchPowerOn(token: u32): void {
  if (!isPowered(token)) portWrite16(token, SDHCI_HOST_CONTROL2, 0);
  portWrite8(token, SDHCI_POWER_CONTROL, SDHCI_POWER_330 | SDHCI_POWER_ON);
}

/** With supply and clock: 1 ms and 74 clocks before the first command (mmc.md §2.2). */
export function awaitSupply(token: u32): void {
  pause(token, 2000000, untilNs(token, 2 * MILLISECOND));
}

/** Supply on, 1 line, identification speed. */
export function powerUp(token: u32): i32 {
  switchPowerOn(token);
  enableStatus(token);
  setLines(token, 1, false);
  const status = setClock(token, IDENTIFICATION_KHZ);
  awaitSupply(token);
  return status;
}

/** Supply off for 2 ms, then on again: the only way out of the inactive state. */
export function powerCycle(token: u32): i32 {
  portWrite16(token, SDHCI_CLOCK_CONTROL, 0);
  portWrite8(token, SDHCI_POWER_CONTROL, 0);
  pause(token, 2000000, untilNs(token, 2 * MILLISECOND));
  return powerUp(token);
}
