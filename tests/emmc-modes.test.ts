// Bus modes of an eMMC: DDR52, HS200 and HS400 with the order that leads there, what DEVICE_TYPE allows, which lines,
// clocks and data rates of the host go with which mode, and the tuning block of CMD21 (mmc.md §1.4, §1.8, §1.11;
// §2.8). The blocks' times are bus-timing.test.ts's.
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  Bus,
  type BusOptions,
  CONTROL2_VDD_180,
  INT,
  INT_ERRORS,
  note,
  pattern,
  R1,
  REG,
  same,
  stateOf,
} from "./bus.js";

const ALL_MODES = 0x57; // HS, DDR52, HS200, HS400 at 1.8 V

function opened(deviceType = ALL_MODES, options: BusOptions = {}): Bus {
  return new Bus({
    sectors: 1024,
    controller: "uhs",
    ...options,
    emmc: { deviceType, ...options.emmc },
  }).open();
}

function refused(bus: Bus, index: number, value: number): boolean {
  return (bus.switchByte(index, value) & R1.switchError) !== 0;
}

/** EXT_CSD bytes in this order; each must be taken. */
function lead(bus: Bus, steps: readonly (readonly [index: number, value: number])[]): void {
  for (const [index, value] of steps)
    assert.is(refused(bus, index, value), false, `EXT_CSD[${index}] = ${value}`);
}

interface Mode {
  steps: readonly (readonly [number, number])[];
  width: 1 | 4 | 8;
  dual: boolean;
  maxKhz: number;
}

const MODES: Record<string, Mode> = {
  legacy: { steps: [], width: 1, dual: false, maxKhz: 26_000 },
  "HS x8": {
    steps: [
      [185, 1],
      [183, 2],
    ],
    width: 8,
    dual: false,
    maxKhz: 52_000,
  },
  "DDR52 x4": {
    steps: [
      [185, 1],
      [183, 5],
    ],
    width: 4,
    dual: true,
    maxKhz: 52_000,
  },
  "DDR52 x8": {
    steps: [
      [185, 1],
      [183, 6],
    ],
    width: 8,
    dual: true,
    maxKhz: 52_000,
  },
  "HS200 x4": {
    steps: [
      [183, 1],
      [185, 2],
    ],
    width: 4,
    dual: false,
    maxKhz: 200_000,
  },
  "HS200 x8": {
    steps: [
      [183, 2],
      [185, 2],
    ],
    width: 8,
    dual: false,
    maxKhz: 200_000,
  },
  HS400: {
    steps: [
      [183, 2],
      [185, 2],
      [185, 1],
      [183, 6],
      [185, 3],
    ],
    width: 8,
    dual: true,
    maxKhz: 200_000,
  },
};

test("every mode × every setting of the host: only what was switched on goes through", () => {
  let cases = 0;
  for (const [name, mode] of Object.entries(MODES)) {
    const bus = opened();
    lead(bus, mode.steps);
    bus.preset(3, pattern(1, 9));
    if (mode.maxKhz > 100_000) {
      bus.setLines(mode.width);
      bus.write16(REG.control2, CONTROL2_VDD_180 | (mode.dual ? 4 : 0));
      bus.setClock(mode.maxKhz);
      bus.tune();
    }
    const ready = bus.save();
    for (const width of [1, 4, 8] as const) {
      for (const uhs of [0, 3, 4, 5]) {
        for (const khz of [25_000, 50_000, 100_000, 200_000]) {
          bus.load(ready);
          bus.setLines(width);
          bus.write16(REG.control2, CONTROL2_VDD_180 | 0x80 | uhs);
          bus.setClock(khz);
          const agrees = width === mode.width && uhs >= 4 === mode.dual && khz <= mode.maxKhz;
          const what = `${name}, host x${width} UHS mode ${uhs} at ${khz} kHz`;
          const read = bus.readBlocks(3, 1);
          assert.is(read.errors, agrees ? 0 : INT.dataCrc, `${what}: read`);
          if (agrees) same(read.data, pattern(1, 9), what);
          else bus.resetLines();
          bus.awaitTran();
          const write = bus.writeBlocks(5, pattern(1, 8));
          assert.is(write.errors, agrees ? 0 : INT.dataCrc, `${what}: write`);
          if (agrees) same(bus.stored(5), pattern(1, 8), what);
          cases++;
        }
      }
    }
  }
  note(`${cases} cases of mode × host`);
});

test("every BUS_WIDTH and HS_TIMING from every mode, against DEVICE_TYPE", () => {
  let cases = 0;
  for (const deviceType of [0x03, 0x07, 0x17, 0x57]) {
    const has = {
      ddr: (deviceType & 0x0c) !== 0,
      hs200: (deviceType & 0x30) !== 0,
      hs400: (deviceType & 0xc0) !== 0,
    };
    for (const [name, mode] of Object.entries(MODES)) {
      const isThere =
        name === "HS400" ? has.hs400 : name.startsWith("HS200") ? has.hs200 : mode.dual ? has.ddr : true;
      if (!isThere) continue;
      const bus = opened(deviceType);
      lead(bus, mode.steps);
      const ready = bus.save();
      const timing = mode.steps.filter(([index]) => index === 185).at(-1)?.[1] ?? 0;
      for (let value = 0; value < 256; value++) {
        const single = value <= 2 && (timing < 2 || (timing === 2 && value > 0));
        const double = (value === 5 || value === 6) && timing === 1 && has.ddr;
        bus.load(ready);
        assert.is(
          refused(bus, 183, value),
          !(single || double),
          `${name}, type ${deviceType}: BUS_WIDTH ${value}`,
        );
        const to200 = value === 2 && has.hs200 && !mode.dual && mode.width > 1;
        const to400 = value === 3 && has.hs400 && mode.dual && mode.width === 8 && timing !== 2;
        const allowed = value === 1 || (value === 0 && !mode.dual) || to200 || to400;
        bus.load(ready);
        assert.is(refused(bus, 185, value), !allowed, `${name}, type ${deviceType}: HS_TIMING ${value}`);
        cases += 2;
      }
    }
  }
  note(`${cases} cases of mode × switch`);
});

test("DEVICE_TYPE is what was configured, 3 if nothing was; BUS_WIDTH is never shown", () => {
  for (const deviceType of [0x01, 0x03, 0x57, 0xff]) assert.is(opened(deviceType).extCsd()[196], deviceType);
  assert.is(new Bus().open().extCsd()[196], 3);
  const bus = opened();
  lead(bus, MODES["DDR52 x8"]?.steps ?? []);
  bus.setLines(8);
  bus.write16(REG.control2, 4);
  assert.equal([bus.extCsd()[183], bus.extCsd()[185]], [0, 1]);
});

test("CMD0 and a power cycle end every mode", () => {
  for (const [name, mode] of Object.entries(MODES)) {
    for (const reset of ["CMD0", "power cycle"] as const) {
      const bus = opened();
      lead(bus, mode.steps);
      if (reset === "CMD0") bus.identify();
      else {
        bus.powerDown();
        bus.open();
      }
      bus.setClock(25_000);
      assert.is(bus.readBlocks(0, 1).errors, 0, `${name}: one line, one bit a clock after ${reset}`);
      assert.is(bus.extCsd()[185], 0, `${name}: HS_TIMING after ${reset}`);
    }
  }
});

// Linux, U-Boot and others compare with these bytes, which JESD84-B51 prints.
const TUNING_4 =
  "ff0fff00ffccc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bdef" +
  "fff0fff00ffccc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bde";
const TUNING_8 =
  "ffff00ffffff0000ffffcccccc33cccccc3333ccccccffffffeeffffffeeeeff" +
  "ffffddffffffddddffffffbbffffffbbbbffffff77ffffff7777ff77bbddeeff" +
  "ffffff00ffffff0000ffffcccccc33cccccc3333ccccccffffffeeffffffeeee" +
  "ffffffddffffffddddffffffbbffffffbbbbffffff77ffffff7777ff77bbddee";

test("CMD21: the tuning block in HS200, on 4 and 8 lines, any number of times; illegal in the other modes", () => {
  for (const [name, mode] of Object.entries(MODES)) {
    const bus = opened();
    lead(bus, mode.steps);
    bus.setLines(mode.width);
    bus.write16(REG.control2, CONTROL2_VDD_180 | (mode.dual ? 4 : 0));
    bus.setClock(mode.maxKhz);
    if (!name.startsWith("HS200")) {
      assert.is(bus.send(21, 0).silent, true, name);
      const [first, second] = [bus.status(), bus.status()];
      assert.is(first & R1.illegal, R1.illegal, name);
      assert.is(second & R1.illegal, 0, name);
      assert.is(stateOf(second), "tran", name);
      continue;
    }
    bus.tune();
    for (let turn = 0; turn < 40; turn++) {
      const block = bus.register(21, 0, mode.width === 8 ? 128 : 64);
      assert.is(Buffer.from(block).toString("hex"), mode.width === 8 ? TUNING_8 : TUNING_4, name);
    }
    // With the wrong number of lines it does not come through, which is what tuning is for.
    bus.setLines(mode.width === 8 ? 4 : 8);
    bus.must(21, 0, "r1", { read: true, blocks: 1, blockBytes: mode.width === 8 ? 128 : 64 });
    assert.is((bus.pioRead(1, 64).status & INT_ERRORS) >>> 0, INT.dataCrc, name);
  }
});

test("two bits a clock: CMD16, 26 and 27 are illegal", () => {
  for (const index of [16, 26, 27]) {
    const bus = opened();
    lead(bus, MODES["DDR52 x8"]?.steps ?? []);
    assert.is(bus.send(index, 512).silent, true, `CMD${index}`);
    assert.is(bus.status() & R1.illegal, R1.illegal, `CMD${index}`);
    assert.is(bus.state, "tran");
  }
});

test.run();
