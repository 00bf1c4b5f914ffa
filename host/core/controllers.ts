// Controllers by name: what SDHCI_CAPABILITIES and SDHCI_HOST_VERSION say (mmc.md §3.2). All have
// specification 3.00, a base clock of 200 MHz and a timeout clock of 50 MHz, blocks of 512 bytes, high speed
// and 3.3 V. Nothing of Node.

/**
 * `full`, the default: eight lines and ADMA2. `uhs`: that, SDMA, 1.8 V, SDR50, SDR104, DDR50, tuning and presets.
 */
export type ControllerKind = "full" | "pio" | "sdma" | "adma2" | "8-bit" | "uhs";

export interface Controller {
  /** SDHCI_CAPABILITIES 31:0 and 63:32. */
  capabilities: number;
  capabilities1: number;
  /** SDHCI_HOST_VERSION. */
  version: number;
}

const VERSION_300 = 0x0002;
const PIO = 0x0120c8b2;
const EIGHT_LINES = 1 << 18;
const ADMA2 = 1 << 19;
const SDMA = 1 << 22;
const VOLTAGE_180 = 1 << 26;
/** SDR50, SDR104, DDR50, drivers A, C and D, SDR50 needs tuning. */
const UHS = 0x00002077;

function controller(capabilities: number, capabilities1 = 0): Controller {
  return { capabilities, capabilities1, version: VERSION_300 };
}

export const CONTROLLERS: Record<ControllerKind, Controller> = {
  full: controller(PIO | EIGHT_LINES | ADMA2),
  pio: controller(PIO),
  sdma: controller(PIO | SDMA),
  adma2: controller(PIO | SDMA | ADMA2),
  "8-bit": controller(PIO | EIGHT_LINES | SDMA | ADMA2),
  uhs: controller(PIO | EIGHT_LINES | SDMA | ADMA2 | VOLTAGE_180, UHS),
};

export function hasAdma2(kind: ControllerKind): boolean {
  return (CONTROLLERS[kind].capabilities & ADMA2) !== 0;
}

export function hasEightLines(kind: ControllerKind): boolean {
  return (CONTROLLERS[kind].capabilities & EIGHT_LINES) !== 0;
}
