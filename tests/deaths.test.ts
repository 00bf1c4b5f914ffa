// The machine dies at every register access of every operation of the driver, and panics: the record is on the medium.
// host/explore/deaths.ts runs it and says what must hold. All moments are tried; which cards and buses an operation is
// tried on goes round with the seed that is printed. MMCPSTORE_DEATHS=all: every operation on every card, with every
// outcome of the cut behind it (docs/TESTING.md).
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CUT_OUTCOMES, type CutOutcome } from "../host/core/profile.js";
import type { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import {
  DEATH_WRITE_BYTES,
  DEATH_WRITE_OFFSET,
  DEATH_WRITTEN,
  type DeathCard,
  type DeathOperation,
  exploreDeaths,
} from "../host/explore/deaths.js";
import { explorationText } from "../host/explore/explore.js";
import { Bus, note } from "./bus.js";
import { LEFT_MODES, type LeftMode } from "./left-modes.js";
import { coreModule } from "./machine.js";

const FIRST_TEXT = explorationText("first", 1300);
/** Long enough for an answer to be polled for, short enough for every poll to be tried. */
const SHORT = { initNs: 2_500_000 };
const LOW = LEFT_MODES["SDXC SDR104"] as LeftMode;

const KINDS: [string, DeviceOptions][] = [
  ["eMMC", { card: "emmc", addressing: "sector" }],
  ["eMMC by bytes", { card: "emmc", addressing: "byte" }],
  ["eMMC with cache", { card: "emmc", addressing: "sector", cacheSectors: 16 }],
  ["eMMC with cache, forced", { card: "emmc", addressing: "sector", cacheSectors: 16, reliableWrite: false }],
  [
    "eMMC with cache, flushed",
    { card: "emmc", addressing: "byte", cacheSectors: 16, reliableWrite: false, cmd23: false },
  ],
  ["eMMC x1, nothing", { card: "emmc", addressing: "sector", reliableWrite: false, hpi: false, busWidth: 1 }],
  ["SDHC", { card: "sd" }],
  ["SDSC", { card: "sdsc", cmd23: false }],
  ["SD 1.01", { card: "sdsc", sd: { version: "1.01" } }],
];

const CARDS: DeathCard[] = [false, true].flatMap((dma) => [
  ...KINDS.map(([name, options]) => ({
    name: `${name}, ${dma ? "ADMA2" : "PIO"}`,
    options: { ...options, dma, timing: SHORT },
  })),
  {
    name: `SDXC at 1.8 V, ${dma ? "ADMA2" : "PIO"}`,
    options: { ...LOW.options, dma, timing: SHORT },
    bring: LOW.bring,
  },
]);

const isEmmc = (options: DeviceOptions) => options.card === "emmc";
const hasCache = (options: DeviceOptions) => (options.cacheSectors ?? 0) > 0;

/** Bytes that the cache still has, and rings that are in memory alone. */
function unflushed(device: Device): void {
  device.write(DEATH_WRITE_OFFSET, DEATH_WRITTEN.subarray(0, 2048));
  device.writePmsg(explorationText("pmsg", 700));
  device.writeConsole(explorationText("console", 900));
}

const panics = (device: Device) => {
  device.panicWrite({ text: FIRST_TEXT, timeSec: 400n });
};

function inFlight(kind: Parameters<Device["leaveInFlight"]>[0]): DeathOperation {
  return {
    name: `${kind} in flight`,
    on: (options) => isEmmc(options) || kind !== "sleep",
    run: (device) => device.leaveInFlight(kind, DEATH_WRITE_OFFSET, DEATH_WRITE_BYTES),
  };
}

/** A request on a card that loses its way once: the driver's own ladder is in it. */
function faulty(
  name: string,
  plan: Parameters<Device["injectFault"]>[0],
  run: DeathOperation["run"],
): DeathOperation {
  return {
    name: `${name} with ${plan.kind}`,
    prepare(device) {
      unflushed(device);
      device.injectFault({ times: 1, ...plan });
    },
    run,
    writes: [FIRST_TEXT],
  };
}

const reads = (device: Device) => {
  device.read(DEATH_WRITE_OFFSET, DEATH_WRITE_BYTES);
};
const writes = (device: Device) => device.write(DEATH_WRITE_OFFSET, DEATH_WRITTEN);

const OPERATIONS: DeathOperation[] = [
  {
    name: "powerOn, first",
    prepare: (device) => device.powerCut("new", "kept"),
    run: (device) => device.powerOn(),
  },
  { name: "powerOn, again", prepare: unflushed, run: (device) => device.powerOn() },
  {
    name: "recovery",
    prepare(device) {
      device.powerCut("new", "kept");
      device.core.openCard();
    },
    run: (device) => void device.core.recoverArea(),
  },
  { name: "read", run: reads },
  { name: "read one", run: (device) => void device.read(DEATH_WRITE_OFFSET, 512) },
  { name: "write", run: writes },
  {
    name: "write a part",
    run: (device) => device.write(DEATH_WRITE_OFFSET + 100, DEATH_WRITTEN.subarray(100, 900)),
  },
  { name: "erase", run: (device) => device.erase(DEATH_WRITE_OFFSET, DEATH_WRITE_BYTES) },
  { name: "flush", on: hasCache, prepare: unflushed, run: (device) => device.flush() },
  { name: "registers", run: (device) => void device.registers() },
  { name: "flushRings", prepare: unflushed, run: (device) => device.flushRings() },
  {
    name: "partition switch",
    options: { bootBytes: 128 * 1024 },
    on: isEmmc,
    run(device) {
      device.core.blockCommand(6, 0x03b30101, 0x1a);
      device.core.blockCommand(13, 1 << 16, 0x1a);
    },
  },
  ...(["read", "write", "program", "erase", "sleep", "suspended", "claimed", "deselected"] as const).map(
    inFlight,
  ),
  faulty("read", { kind: "vanish", command: 18 }, reads),
  faulty("read", { kind: "read-crc", firstLba: 32, lastLba: 39 }, reads),
  faulty("write", { kind: "brown-out", command: 25 }, writes),
  faulty("write", { kind: "response-crc", command: 25 }, writes),
  faulty("flushRings", { kind: "vanish", command: 13, skip: 3 }, (device) => device.flushRings()),
  faulty("powerOn", { kind: "no-response", command: 7 }, (device) => device.powerOn()),
  faulty("powerOn", { kind: "read-crc", firstLba: 0xffffffff }, (device) => device.powerOn()),
  { name: "panic", run: panics, writes: [FIRST_TEXT] },
  { name: "panic in a full area", run: panics, writes: [FIRST_TEXT], givesUp: 2 },
  {
    name: "panic with rings",
    prepare: unflushed,
    run: panics,
    writes: [FIRST_TEXT],
  },
  {
    name: "panic with a dump",
    prepare(device) {
      device.dumpMemory.fill(0x5a);
      device.registerRegion({
        name: "memory",
        address: 0x1000n,
        source: device.dumpMemory.subarray(0, 2048),
      });
    },
    run: panics,
    writes: [FIRST_TEXT],
  },
  {
    name: "panic before recovery",
    prepare(device) {
      device.powerCut("new", "kept");
      device.core.openCard();
    },
    run: panics,
    writes: [FIRST_TEXT],
  },
  {
    name: "panic before the driver was opened",
    prepare(device) {
      device.powerCut("new", "kept");
    },
    run: (device) => void device.core.panicWrite(1, 400, 0, 0, 0, 0),
    writes: [new Uint8Array(0)],
  },
  {
    name: "panic on a sleeping card",
    on: isEmmc,
    prepare: (device) => device.leaveInFlight("sleep", DEATH_WRITE_OFFSET, DEATH_WRITE_BYTES),
    run: panics,
    writes: [FIRST_TEXT],
  },
  {
    name: "panic on a write in flight",
    prepare: (device) => device.leaveInFlight("write", DEATH_WRITE_OFFSET, DEATH_WRITE_BYTES),
    run: panics,
    writes: [FIRST_TEXT],
  },
  {
    name: "panic with the supply off",
    prepare: (device) => device.leaveInFlight("suspended", DEATH_WRITE_OFFSET, DEATH_WRITE_BYTES),
    run: panics,
    writes: [FIRST_TEXT],
  },
  faulty("panic", { kind: "vanish", command: 13, skip: 1 }, panics),
  faulty("panic", { kind: "write-crc", skip: 1 }, panics),
  faulty("panic", { kind: "response-crc", command: 6 }, panics),
];

/** Another driver's way to 1.8 V: its register accesses are calls from outside, and each is a mark. */
const VOLTAGE_SWITCH: DeathOperation = {
  name: "voltage switch",
  run(device, hit) {
    const core = { ...device.core };
    for (const name of [
      "mmioRead8",
      "mmioRead16",
      "mmioRead32",
      "mmioWrite8",
      "mmioWrite16",
      "mmioWrite32",
    ] as const) {
      const call = core[name] as (...args: number[]) => number;
      core[name] = ((...args: number[]) => {
        hit();
        return call(...args);
      }) as never;
    }
    const bus = new Bus({ card: "sdxc" }, "", { core, memory: device.memory });
    bus.powerUp();
    bus.identifyLow();
  },
};
const LOW_CARD: DeathCard = { name: "SDXC, 3.3 V", options: { ...LOW.options, timing: SHORT } };

const isAll = process.env.MMCPSTORE_DEATHS === "all";
const only = process.env.MMCPSTORE_DEATHS_ONLY;
const seed = Number(process.env.MMCPSTORE_DEATHS_SEED ?? 1);
const OUTCOMES = (Object.keys(CUT_OUTCOMES) as CutOutcome[]).filter((name) => name !== "rollback");
const SAMPLE: CutOutcome[] = ["old", "new", "torn-low", "noise"];
const PLAN = isAll
  ? ({ outcomes: OUTCOMES, caches: ["lost", "kept", "odd"] } as const)
  : ({ outcomes: SAMPLE, caches: ["lost"] } as const);

let deaths = 0;
let marks = 0;
let cuts = 0;
let runs = 0;
const failures: string[] = [];

function explore(card: DeathCard, operation: DeathOperation): void {
  if (only !== undefined && !`${operation.name}, ${card.name}`.includes(only)) return;
  const report = exploreDeaths(coreModule("explore"), card, operation, PLAN);
  runs++;
  deaths += report.deaths;
  marks += report.marks;
  cuts += report.cuts;
  failures.push(...report.failures);
  if (isAll || only !== undefined) {
    console.log(`# ${report.id}: ${report.deaths} of ${report.marks}, ${report.failures.length} failed`);
    for (const failure of report.failures.slice(0, 4)) console.log(`#   ${failure}`);
  }
  assert.is(report.deaths, report.marks, `${report.id}: moments that were tried`);
  assert.ok(report.marks > 0, report.id);
  assert.equal(report.failures.slice(0, 5), [], report.id);
}

for (const [turn, operation] of OPERATIONS.entries()) {
  test(`death in ${operation.name}`, () => {
    const able = CARDS.filter(({ options }) => operation.on?.(options) ?? true);
    const chosen = isAll ? able : [able[(turn + seed) % able.length] as DeathCard];
    for (const card of chosen) explore(card, operation);
  });
}

test("death in another driver's voltage switch", () => explore(LOW_CARD, VOLTAGE_SWITCH));

test.after(() => {
  note(
    `seed ${seed}: ${runs} operations on a card, ${deaths} deaths at ${marks} marks, ${cuts} cuts behind them`,
  );
});
test.run();
