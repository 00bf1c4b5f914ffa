// Simulated bus time against the formulas of mmc.md §1.11, computed here and not taken from assembly/sdhci:
// never below the bound, and above it by nothing that is not named. Taken from the trace, so that polling
// does not blur it: a command's time is when its first bit goes out, a transfer's end when the last bit or
// the last busy is over.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { IDEAL, type Timing, TYPICAL_EMMC, TYPICAL_SD } from "../host/core/profile.js";
import type { TraceEvent, TraceKind } from "../host/core/trace.js";
import { Device } from "../host/device.js";
import { Bus, CONTROL2_VDD_180, coreModule, INT, note, pattern, REG } from "./bus.js";

// Clocks (mmc.md §1.11).
const COMMAND = 48;
const N_CR = 2;
const N_RC = 8;
const N_AC = 2;
const N_WR = 2;
const N_CRC = 2;
const CRC_STATUS = 5;
/** A command and its short response. */
const PLAIN = COMMAND + N_CR + COMMAND;

interface Mode {
  name: string;
  card: "emmc" | "sd";
  width: 1 | 4 | 8;
  highSpeed: boolean;
  /** The highest clock of the mode. */
  limitKhz: number;
  /** eMMC modes that a Device does not use: two bits a clock, and the EXT_CSD bytes that lead there. */
  dual?: boolean;
  steps?: readonly (readonly [index: number, value: number])[];
}

const MODES: readonly Mode[] = [
  { name: "eMMC HS ×8", card: "emmc", width: 8, highSpeed: true, limitKhz: 52_000 },
  { name: "eMMC HS ×4", card: "emmc", width: 4, highSpeed: true, limitKhz: 52_000 },
  { name: "eMMC HS ×1", card: "emmc", width: 1, highSpeed: true, limitKhz: 52_000 },
  { name: "eMMC legacy ×8", card: "emmc", width: 8, highSpeed: false, limitKhz: 26_000 },
  { name: "eMMC legacy ×1", card: "emmc", width: 1, highSpeed: false, limitKhz: 26_000 },
  { name: "SD DS ×1", card: "sd", width: 1, highSpeed: false, limitKhz: 25_000 },
  { name: "SD DS ×4", card: "sd", width: 4, highSpeed: false, limitKhz: 25_000 },
  { name: "SD HS ×4", card: "sd", width: 4, highSpeed: true, limitKhz: 50_000 },
  // 200 MHz / 6: a clock whose period is no whole number of ns.
  { name: "eMMC HS ×4 at 33.3 MHz", card: "emmc", width: 4, highSpeed: true, limitKhz: 34_000 },
];
/** Those beyond high speed, which need EXT_CSD_DEVICE_TYPE. */
const FASTER: readonly Omit<Mode, "card" | "highSpeed">[] = [
  {
    name: "eMMC DDR52 ×4",
    width: 4,
    dual: true,
    limitKhz: 52_000,
    steps: [
      [185, 1],
      [183, 5],
    ],
  },
  {
    name: "eMMC DDR52 ×8",
    width: 8,
    dual: true,
    limitKhz: 52_000,
    steps: [
      [185, 1],
      [183, 6],
    ],
  },
  {
    name: "eMMC HS200 ×4",
    width: 4,
    limitKhz: 200_000,
    steps: [
      [183, 1],
      [185, 2],
    ],
  },
  {
    name: "eMMC HS200 ×8",
    width: 8,
    limitKhz: 200_000,
    steps: [
      [183, 2],
      [185, 2],
    ],
  },
  {
    name: "eMMC HS200 ×8 at 100 MHz",
    width: 8,
    limitKhz: 100_000,
    steps: [
      [183, 2],
      [185, 2],
    ],
  },
  {
    name: "eMMC HS400",
    width: 8,
    dual: true,
    limitKhz: 200_000,
    steps: [
      [183, 2],
      [185, 2],
      [185, 1],
      [183, 6],
      [185, 3],
    ],
  },
];
const FAST_MODES: readonly Mode[] = FASTER.map((mode) => ({ ...mode, card: "emmc", highSpeed: true }));
const ALL_MODES = [...MODES, ...FAST_MODES];
const BLOCKS = [1, 8, 128] as const;

/** The controller's clock: 200 MHz / 2N, not above the limit. */
function realKhz(limitKhz: number): number {
  if (limitKhz >= 200_000) return 200_000;
  return 200_000 / (2 * Math.ceil(200_000 / (2 * limitKhz)));
}

function blockClocks({ width, dual }: Mode): number {
  return 4096 / (width * (dual ? 2 : 1)) + 16 + 2;
}

/** N_AC at least. */
function accessClocks({ steps }: Mode): number {
  return steps?.some(([index, value]) => index === 185 && value >= 2) ? 8 : N_AC;
}

interface Bound {
  clocks: number;
  /** Time of the chip itself, on top. */
  chipNs: number;
  /** Waits that the model rounds up to whole ns, each by less than 1 ns. */
  roundings: number;
}

/** From the first bit of CMD18/17 to the last bit of the last block; CMD23 before it if there is one. */
function readBound(mode: Mode, blocks: number, counted: boolean, timing: Timing): Bound {
  const periodNs = 1e6 / realKhz(mode.limitKhz);
  // The access time is N_AC: at least 2 clocks, then as long as the chip takes for the first block.
  const first = Math.max(0, timing.readNs - accessClocks(mode) * periodNs);
  return {
    clocks: (counted ? PLAIN + N_RC : 0) + COMMAND + blocks * (accessClocks(mode) + blockClocks(mode)),
    chipNs: first,
    // N_AC and the block, each rounded; the command; with CMD23 its command, response and N_RC.
    roundings: 2 * blocks + 1 + (counted ? 3 : 0),
  };
}

/** From the first bit of CMD24/25 to the end of the last busy. */
function writeBound(mode: Mode, blocks: number, counted: boolean, busyNs: number): Bound {
  return {
    clocks: (counted ? PLAIN + N_RC : 0) + PLAIN + blocks * (N_WR + blockClocks(mode) + N_CRC + CRC_STATUS),
    chipNs: blocks * busyNs,
    roundings: 2 * blocks + 2 + (counted ? 3 : 0),
  };
}

function boundNs(mode: Mode, { clocks, chipNs }: Bound): number {
  return (clocks * 1e6) / realKhz(mode.limitKhz) + chipNs;
}

/** The model counts whole kHz: 33,333 instead of 33,333.3 makes the period longer by this factor. */
function kilohertzAllowanceNs(mode: Mode, bound: Bound): number {
  const khz = realKhz(mode.limitKhz);
  return bound.clocks * (1e6 / Math.floor(khz) - 1e6 / khz);
}

function opened(mode: Mode, timing: Timing, cmd23 = true): Bus {
  const emmc = { deviceType: mode.steps ? 0x57 : 0x03 };
  const bus = new Bus({
    card: mode.card,
    sectors: 1024,
    timing: { ...timing, accessCostNs: 0 },
    cmd23,
    emmc,
    ...(mode.steps ? { controller: "uhs" as const } : {}),
  });
  bus.open();
  if (mode.steps) {
    for (const [index, value] of mode.steps) bus.switchByte(index, value);
    bus.setLines(mode.width);
    bus.write16(REG.control2, CONTROL2_VDD_180 | (mode.dual ? 4 : 3));
    bus.setClock(mode.limitKhz);
    if (mode.limitKhz > 100_000) bus.tune();
  } else {
    bus.setBus(mode.width, mode.highSpeed, mode.limitKhz);
  }
  // One clock of 20 ns at most between two polls: less than N_RC, so it hides behind it.
  bus.pollNs = 0;
  bus.clearEvents();
  return bus;
}

function last(events: TraceEvent[], kind: TraceKind): number {
  const found = events.filter((event) => event.kind === kind).at(-1);
  if (!found) throw new Error(`no ${kind} in the trace`);
  return Number(found.timeNs);
}

function first(events: TraceEvent[], kind: TraceKind, a: number): number {
  const found = events.find((event) => event.kind === kind && "index" in event && event.index === a);
  if (!found) throw new Error(`no ${kind} ${a} in the trace`);
  return Number(found.timeNs);
}

/** Nothing happens for a long time before a measurement: no N_RC of an earlier command counts. */
function quiet(bus: Bus): void {
  bus.idle(1_000_000);
  bus.clearEvents();
}

function check(mode: Mode, bound: Bound, elapsedNs: number, what: string): void {
  const least = boundNs(mode, bound);
  const most = least + kilohertzAllowanceNs(mode, bound) + bound.roundings;
  assert.is(elapsedNs >= least - 1e-6, true, `${what}: ${elapsedNs} ns, below ${least}`);
  assert.is(elapsedNs <= most + 1e-6, true, `${what}: ${elapsedNs} ns, ${least} would do, ${most} at most`);
  // Where the period is a whole number of ns there is nothing to round.
  if (Number.isInteger(1e6 / realKhz(mode.limitKhz))) assert.is(elapsedNs, least, what);
}

/** One transfer by ADMA2 without polling in between, but for CMD23's response. */
function transfer(bus: Bus, write: boolean, blocks: number, counted: boolean): number {
  const mode = 0x03 | (write ? 0 : 0x10) | (blocks > 1 || counted ? 0x20 : 0);
  bus.dmaMemory(blocks * 512).set(pattern(blocks));
  bus.describe(blocks * 512);
  quiet(bus);
  if (counted) bus.must(23, blocks);
  const index = (write ? 24 : 17) + (blocks > 1 || counted ? 1 : 0);
  bus.issue(index, 0, "r1", { read: !write, blocks, dma: true, mode });
  for (let i = 0; i < 200 && (bus.read32(0x30) & INT.transfer) === 0; i++) bus.idle(10_000_000);
  const events = bus.events();
  assert.is(bus.read32(0x30) & INT.error, 0);
  return last(events, "transfer-complete") - first(events, "command", counted ? 23 : index);
}

function checkMode(mode: Mode, timing: Timing, busyNs: number): number {
  let cases = 0;
  for (const blocks of BLOCKS) {
    for (const counted of blocks === 1 ? [false] : [true, false]) {
      for (const write of [false, true]) {
        const bus = opened(mode, timing);
        const bound = write
          ? writeBound(mode, blocks, counted, busyNs)
          : readBound(mode, blocks, counted, timing);
        const what = `${mode.name} ${write ? "write" : "read"} ${blocks} ${counted ? "counted" : ""}`;
        check(mode, bound, transfer(bus, write, blocks, counted), what);
        cases++;
      }
    }
  }
  return cases;
}

test("the formulas here are those behind the table of mmc.md §1.11", () => {
  for (const [width, read1, read8, read128, write1, write8, write128] of [
    [1, 4164, 33082, 527002, 4221, 33188, 527948],
    [4, 1092, 8506, 133786, 1149, 8612, 134732],
    [8, 580, 4410, 68250, 637, 4516, 69196],
  ] as const) {
    const mode: Mode = { name: "", card: "emmc", width, highSpeed: true, limitKhz: 52_000 };
    const clocks = (write: boolean, blocks: number) =>
      write
        ? writeBound(mode, blocks, blocks > 1, 0).clocks
        : readBound(mode, blocks, blocks > 1, IDEAL).clocks;
    assert.equal(
      [clocks(false, 1), clocks(false, 8), clocks(false, 128)],
      [read1, read8, read128],
      `×${width} read`,
    );
    assert.equal(
      [clocks(true, 1), clocks(true, 8), clocks(true, 128)],
      [write1, write8, write128],
      `×${width} write`,
    );
  }
  for (const [name, ...clocks] of [
    ["eMMC DDR52 ×4", 580, 4410, 68250, 637, 4516, 69196],
    ["eMMC DDR52 ×8", 324, 2362, 35482, 381, 2468, 36428],
    ["eMMC HS200 ×4", 1098, 8554, 134554, 1149, 8612, 134732],
    ["eMMC HS200 ×8", 586, 4458, 69018, 637, 4516, 69196],
    ["eMMC HS400", 330, 2410, 36250, 381, 2468, 36428],
  ] as const) {
    const mode = FAST_MODES.find((one) => one.name === name) as Mode;
    const reads = BLOCKS.map((blocks) => readBound(mode, blocks, blocks > 1, IDEAL).clocks);
    const writes = BLOCKS.map((blocks) => writeBound(mode, blocks, blocks > 1, 0).clocks);
    assert.equal([...reads, ...writes], clocks, name);
  }
  assert.is(realKhz(52_000), 50_000);
  assert.is(realKhz(26_000), 25_000);
});

test("ADMA2, ideal chip: to the ns", () => {
  let cases = 0;
  for (const mode of ALL_MODES) cases += checkMode(mode, IDEAL, 0);
  note(`${cases} transfers at the bound`);
});

test("ADMA2, typical chip: its access and program times more, and nothing else", () => {
  let cases = 0;
  for (const mode of ALL_MODES) {
    const timing = mode.card === "sd" ? TYPICAL_SD : TYPICAL_EMMC;
    cases += checkMode(mode, timing, timing.programNs);
  }
  note(`${cases} transfers at the bound and the chip's own time`);
});

test("a plain command takes 98 clocks and R2 189; the next one starts 8 clocks later", () => {
  for (const mode of ALL_MODES) {
    const bus = opened(mode, IDEAL);
    const periodNs = 1e6 / Math.floor(realKhz(mode.limitKhz));
    quiet(bus);
    bus.must(13, bus.rca << 16);
    bus.must(13, bus.rca << 16);
    const [command, response, , second] = bus.events().map(({ timeNs }) => Number(timeNs));
    const start = command ?? 0;
    const within = (actual: number, clocks: number, roundings: number, what: string) => {
      const least = clocks * periodNs;
      const isBetween = actual >= least - 1e-6 && actual <= least + roundings + 1e-6;
      assert.is(isBetween, true, `${mode.name} ${what}: ${actual} ns, ${least}`);
    };
    within((response ?? 0) - start, PLAIN, 2, "CMD13");
    within((second ?? 0) - start, 2 * PLAIN + N_RC, 5, "two of them");
    bus.send(7, 0, "none");
    quiet(bus);
    bus.must(9, bus.rca << 16, "r2");
    const [begin, end] = bus.events().map(({ timeNs }) => Number(timeNs));
    // N_CR of CMD9 is 2 to 64; identification's N_ID of 5 is for CMD2 and CMD1.
    const elapsed = (end ?? 0) - (begin ?? 0);
    assert.is(elapsed >= (COMMAND + N_CR + 136) * periodNs - 1e-6, true, `${mode.name} R2: ${elapsed}`);
    assert.is(elapsed <= (COMMAND + 5 + 136) * periodNs + 2, true, `${mode.name} R2: ${elapsed}`);
  }
});

test("open-ended with CMD12 behind the last block: 98 clocks more, and what is still busy", () => {
  for (const mode of ALL_MODES) {
    for (const write of [false, true]) {
      for (const blocks of [8, 128]) {
        const bus = opened(mode, IDEAL);
        transfer(bus, write, blocks, false);
        const transferEnd = last(bus.events(), "transfer-complete");
        bus.clearEvents();
        bus.must(12, 0, write ? "r1b" : "r1");
        const events = bus.events();
        const command = first(events, "command", 12);
        const elapsed = first(events, "response", 12) - command;
        const least = (PLAIN * 1e6) / realKhz(mode.limitKhz);
        const most = (PLAIN * 1e6) / Math.floor(realKhz(mode.limitKhz)) + 2;
        assert.is(elapsed >= least - 1e-6 && elapsed <= most + 1e-6, true, `${mode.name}: ${elapsed}`);
        assert.is(command >= transferEnd, true);
      }
    }
  }
});

test("PIO is never faster than the bound, and slower only by its polling", () => {
  for (const mode of ALL_MODES) {
    for (const blocks of BLOCKS) {
      for (const write of [false, true]) {
        const bus = opened(mode, IDEAL);
        bus.pollNs = 1000;
        quiet(bus);
        if (write) bus.writeBlocks(0, pattern(blocks));
        else bus.readBlocks(0, blocks);
        const index = (write ? 24 : 17) + (blocks > 1 ? 1 : 0);
        const events = bus.events();
        const elapsed = last(events, "transfer-complete") - first(events, "command", index);
        const bound = write ? writeBound(mode, blocks, false, 0) : readBound(mode, blocks, false, IDEAL);
        const least = boundNs(mode, bound);
        const what = `${mode.name} PIO ${write ? "write" : "read"} ${blocks}`;
        assert.is(elapsed >= least - 1e-6, true, `${what}: ${elapsed} ns, below ${least}`);
        // The driver finds each block, and the command's response before a write, up to one pause late.
        const polling = (blocks + 1) * bus.pollNs;
        const most = least + kilohertzAllowanceNs(mode, bound) + bound.roundings + polling;
        assert.is(elapsed <= most + 1e-6, true, `${what}: ${elapsed} ns, ${most} at most`);
      }
    }
  }
});

test("PIO pays for its register accesses: 128 words a block on top", () => {
  const mode = MODES[0] as Mode;
  for (const write of [false, true]) {
    const accessCostNs = 250;
    const bus = new Bus({ timing: { accessCostNs }, sectors: 1024 }).open();
    bus.setBus(8, true, 52_000);
    quiet(bus);
    if (write) bus.writeBlocks(0, pattern(8));
    else bus.readBlocks(0, 8);
    const events = bus.events();
    const elapsed = last(events, "transfer-complete") - first(events, "command", write ? 25 : 18);
    const bound = write ? writeBound(mode, 8, false, 0) : readBound(mode, 8, false, IDEAL);
    assert.is(elapsed >= boundNs(mode, bound) + 8 * 128 * accessCostNs, true, `${elapsed} ns`);
  }
});

test("Device: reads and writes of every mode take at least the bound, PIO and ADMA2, CMD23 and CMD12", () => {
  let cases = 0;
  for (const mode of MODES) {
    for (const chip of ["ideal", "typical"] as const) {
      const typical = mode.card === "sd" ? TYPICAL_SD : TYPICAL_EMMC;
      const timing = chip === "ideal" ? IDEAL : typical;
      for (const dma of [false, true]) {
        for (const cmd23 of [false, true]) {
          const device = Device.open(coreModule("release"), {
            card: mode.card,
            sizeBytes: 512 * 1024,
            busWidth: mode.width,
            highSpeed: mode.highSpeed,
            dma,
            cmd23,
            timing,
            abortOutcome: "old",
          });
          // The device's own clock is the highest of the mode, whatever this table measures it at.
          const own = { ...mode, limitKhz: mode.highSpeed ? 52_000 : 26_000 };
          for (const blocks of BLOCKS) {
            const counted = cmd23 && blocks > 1;
            const measure = (action: () => void) => {
              const start = device.state().timeNs;
              action();
              return Number(device.state().timeNs - start);
            };
            const read = measure(() => device.read(0, blocks * 512));
            const write = measure(() => device.write(0, pattern(blocks)));
            const what = `${mode.name} ${chip} ${dma ? "ADMA2" : "PIO"} ${blocks}`;
            const leastRead = boundNs(own, readBound(own, blocks, counted, timing));
            const leastWrite = boundNs(own, writeBound(own, blocks, counted, timing.programNs));
            assert.is(read >= leastRead, true, `${what}: read in ${read} ns, bound ${leastRead}`);
            assert.is(write >= leastWrite, true, `${what}: write in ${write} ns, bound ${leastWrite}`);
            cases += 2;
          }
        }
      }
    }
  }
  note(`${cases} transfers of a Device`);
});

test.run();
