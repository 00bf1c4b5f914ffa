// Cards and controllers as a driver that knew more than ours left them: at 1.8 V and in a UHS mode, in DDR52, HS200 or
// HS400, tuned, or with another partition selected. Everything by the commands and registers of tests/bus.ts.
import * as assert from "uvu/assert";
import type { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { Bus, CONTROL2_VDD_180, R1, REG } from "./bus.js";
import { shadowAt } from "./machine.js";

export interface LeftMode {
  /** What openMachine() needs for it. */
  options: DeviceOptions;
  /** From tran, as our driver has it, to tran in this mode, the controller with it. */
  bring(device: Device): void;
  /** An SD card at 1.8 V. */
  low: boolean;
}

const PARTITION_CONFIG = 179;
const BUS_WIDTH = 183;
const HS_TIMING = 185;
/** HS, DDR52, HS200 and HS400. */
const DEVICE_TYPE = 0x57;
const TUNED_ABOVE_KHZ = 100_000;
/** Where Shadow (assembly/driver/shadow.ts) has `rca`: behind a u64 and `kind`. */
const SHADOW_RCA = 12;

function setTiming(bus: Bus, uhs: number, khz: number): void {
  bus.write16(REG.control2, CONTROL2_VDD_180 | uhs);
  bus.setClock(khz);
  if (khz > TUNED_ABOVE_KHZ) bus.tune();
}

/** CMD0, 1.8 V by CMD11, four lines, and the access mode `uhs`, which is HOST_CONTROL2's too. */
function sdLow(card: "sd" | "sdxc", uhs: number, khz: number): LeftMode {
  const options: DeviceOptions = { card, controller: "uhs", sd: { uhs: true }, highSpeed: uhs > 0 };
  return {
    options,
    low: true,
    bring(device) {
      const bus = new Bus({ card }, "", device);
      bus.powerUp();
      bus.identifyLow();
      bus.setClock(25_000);
      assert.is(bus.app(6, 2).errors, 0);
      bus.setLines(4);
      assert.is((bus.register(6, 0x80fffff0 + uhs, 64)[16] ?? 0) & 15, uhs);
      if (uhs === 0) bus.write8(REG.hostControl, 0x02);
      setTiming(bus, uhs, khz);
      // The driver that brought it here knows the address that the card told.
      new DataView(device.memory.buffer).setUint32(shadowAt(device.memory) + SHADOW_RCA, bus.rca, true);
    },
  };
}

/** CMD6 steps from high speed on eight lines. HS400 is tuned in HS200, before the last of them (mmc.md §2.8). */
function emmc(steps: [index: number, value: number][], uhs: number, khz: number): LeftMode {
  return {
    options: { card: "emmc", controller: "uhs", deviceType: DEVICE_TYPE },
    low: false,
    bring(device) {
      const bus = new Bus({}, "", device);
      bus.rca = 1;
      for (const [index, value] of steps) {
        assert.is(bus.switchByte(index, value) & R1.switchError, 0, `EXT_CSD[${index}] = ${value}`);
        if (index === HS_TIMING && value === 2) setTiming(bus, 3, khz);
        else bus.setClock(50_000);
      }
      bus.write16(REG.control2, (bus.read16(REG.control2) & ~7) | CONTROL2_VDD_180 | uhs);
      bus.setClock(khz);
    },
  };
}

/** Partition `access` selected: 1 and 2 boot, 4 … 7 general purpose. */
function partition(access: number): LeftMode {
  const gpBytes = [0, 0, 0, 0].map((_, i) => (i === access - 4 ? 8 * 2 ** 20 : 0));
  return {
    options: { card: "emmc", controller: "uhs", ...(access < 4 ? { bootBytes: 2 ** 20 } : { gpBytes }) },
    low: false,
    bring(device) {
      const bus = new Bus({}, "", device);
      bus.rca = 1;
      assert.is(bus.switchByte(PARTITION_CONFIG, access) & R1.switchError, 0);
    },
  };
}

export const LEFT_MODES: Record<string, LeftMode> = {
  DDR52: emmc(
    [
      [HS_TIMING, 1],
      [BUS_WIDTH, 6],
    ],
    4,
    50_000,
  ),
  HS200: emmc([[HS_TIMING, 2]], 3, 200_000),
  HS400: emmc(
    [
      [HS_TIMING, 2],
      [HS_TIMING, 1],
      [BUS_WIDTH, 6],
      [HS_TIMING, 3],
    ],
    5,
    200_000,
  ),
  "boot partition 1": partition(1),
  "boot partition 2": partition(2),
  "GP partition 1": partition(4),
  "GP partition 4": partition(7),
  SDR12: sdLow("sd", 0, 25_000),
  SDR25: sdLow("sd", 1, 50_000),
  SDR50: sdLow("sd", 2, 100_000),
  SDR104: sdLow("sd", 3, 200_000),
  DDR50: sdLow("sd", 4, 50_000),
  "SDXC HS": { options: { card: "sdxc", controller: "uhs" }, low: false, bring: () => undefined },
  "SDXC SDR104": sdLow("sdxc", 3, 200_000),
};
