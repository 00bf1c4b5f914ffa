// Clocks, lines and their voltage: what SDHCI_CLOCK_CONTROL, HOST_CONTROL, HOST_CONTROL2, TIMEOUT_CONTROL, the presets
// and the capabilities make of them (mmc.md §3.1, §3.5). The internal clock is stable as soon as it is enabled.
//
// Not modelled: the programmable clock (multiplier 0), DDR, driver strength beyond its bits,
// SDHCI_CTRL_HISPD's edge.

import { afterNs, NEVER } from "../clock";
import {
  SDHCI_CAN_DO_8BIT,
  SDHCI_CLOCK_CARD_EN,
  SDHCI_CLOCK_CONTROL,
  SDHCI_CLOCK_INT_EN,
  SDHCI_CTRL_4BITBUS,
  SDHCI_CTRL_8BITBUS,
  SDHCI_CTRL_HISPD,
  SDHCI_CTRL_PRESET_VAL_ENABLE,
  SDHCI_CTRL_UHS_MASK,
  SDHCI_CTRL_VDD_180,
  SDHCI_HOST_CONTROL,
  SDHCI_HOST_CONTROL2,
  SDHCI_HOST_VERSION,
  SDHCI_PRESET_DEFAULT_SPEED,
  SDHCI_PRESET_HIGH_SPEED,
  SDHCI_PRESET_SDR12,
  SDHCI_TIMEOUT_CONTROL,
  SPECIFICATION_300,
} from "./registers";
import { capabilities, engine, register8, register16 } from "./state";

/** Before a block that is written, and from its end to that of its CRC status. */
export const N_WR_CLOCKS: u32 = 2;
export const CRC_STATUS_CLOCKS: u32 = 2 + 5;
/** Start bit, CRC16, end bit around each block. */
const FRAME_CLOCKS: u32 = 1 + 16 + 1;

export function isVersion3(): bool {
  return register8(SDHCI_HOST_VERSION) >= SPECIFICATION_300;
}

/** Capabilities 15:8 in MHz, of version 1 and 2 13:8. */
function baseClockKhz(): u32 {
  const mhz = (capabilities() >>> 8) & (isVersion3() ? 0xff : 0x3f);
  return mhz * 1000;
}

function timeoutClockKhz(): u32 {
  const value = capabilities();
  return (value & 0x3f) * ((value & 0x80) != 0 ? 1000 : 1);
}

/** The divider N of base / 2N: ten bits; of version 1 and 2 the highest bit of eight. 0 is the base clock. */
function divider(): u32 {
  const mode = register16(SDHCI_HOST_CONTROL2);
  if ((mode & SDHCI_CTRL_PRESET_VAL_ENABLE) != 0) {
    const uhs = mode & SDHCI_CTRL_UHS_MASK;
    const fast = (register8(SDHCI_HOST_CONTROL) & SDHCI_CTRL_HISPD) != 0;
    const preset =
      (mode & SDHCI_CTRL_VDD_180) != 0
        ? SDHCI_PRESET_SDR12 + (uhs > 4 ? 4 : uhs) * 2
        : fast
          ? SDHCI_PRESET_HIGH_SPEED
          : SDHCI_PRESET_DEFAULT_SPEED;
    return register16(preset) & 0x3ff;
  }
  const control = register16(SDHCI_CLOCK_CONTROL);
  if (isVersion3()) return (control >>> 8) | ((control & 0xc0) << 2);
  const bits = control >>> 8;
  return bits == 0 ? 0 : 0x80000000 >>> clz(bits);
}

function dividedKhz(): u32 {
  const control = register16(SDHCI_CLOCK_CONTROL);
  if ((control & SDHCI_CLOCK_CARD_EN) == 0 || (control & SDHCI_CLOCK_INT_EN) == 0) return 0;
  const by = divider();
  return by == 0 ? baseClockKhz() : baseClockKhz() / (2 * by);
}

/** After registers were written: what each block would otherwise divide for anew. */
export function retime(): void {
  const e = engine();
  e.khz = dividedKhz();
  const code = register8(SDHCI_TIMEOUT_CONTROL) & 15;
  const khz = timeoutClockKhz();
  e.timeoutNs = khz == 0 ? NEVER : (((<u64>1) << (13 + (code > 14 ? 14 : code))) * 1000000) / khz;
}

/** 0 while the card's clock is off. */
export function clockKhz(): u32 {
  return engine().khz;
}

/** Bus clocks as ns, rounded up; NEVER without a clock. */
export function clocksNs(clocks: u32): u64 {
  return clocksAtNs(clocks, clockKhz());
}

/** The same where the clock is known. */
export function clocksAtNs(clocks: u32, khz: u32): u64 {
  return khz == 0 ? NEVER : (<u64>clocks * 1000000 + khz - 1) / khz;
}

export function lines(): u32 {
  const control = register8(SDHCI_HOST_CONTROL);
  if ((control & SDHCI_CTRL_8BITBUS) != 0 && (capabilities() & SDHCI_CAN_DO_8BIT) != 0) return 8;
  return (control & SDHCI_CTRL_4BITBUS) != 0 ? 4 : 1;
}

/** Two bits a clock and line: DDR50, which is DDR52 of an eMMC, and 5, which Linux uses for HS400. */
export function isDualRate(): bool {
  const mode = register16(SDHCI_HOST_CONTROL2) & SDHCI_CTRL_UHS_MASK;
  return mode == 4 || mode == 5;
}

/** The host's signals are at 1.8 V. */
export function isLowVoltage(): bool {
  return (register16(SDHCI_HOST_CONTROL2) & SDHCI_CTRL_VDD_180) != 0;
}

export function blockClocks(bytes: u32): u32 {
  return ((bytes * 8) >>> (ctz(lines()) + (isDualRate() ? 1 : 0))) + FRAME_CLOCKS;
}

/** The phase `phase` waits for the card from `fromNs` on, as long as SDHCI_TIMEOUT_CONTROL says. */
export function wait(phase: u32, fromNs: u64): void {
  const e = engine();
  e.dataPhase = phase;
  e.patienceNs = afterNs(fromNs, e.timeoutNs);
}
