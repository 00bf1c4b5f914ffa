// Times by profile: what an operation costs in simulated time is what the profile says plus what the bus needs, and the
// bus part is the same machine's with times of zero. Stalls come when their count says. A panic ends in time whatever
// the profile and whatever was in flight.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { BUSY_MAX_NS, IDEAL, PROFILES, type ProfileName, type Timing } from "../host/core/profile.js";
import type { InFlight } from "../host/device.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { ERRNO, type MmcError } from "../host/errors.js";
import { Bus, note, pattern } from "./bus.js";
import {
  coreModule,
  IN_FLIGHT_OFFSET,
  openMachine,
  PANIC_LOG,
  sameBytes,
  textOf,
  userDataIntact,
} from "./machine.js";

type Kind = "emmc" | "sd";
const CASES: [ProfileName, Kind, Timing][] = [];
for (const name of Object.keys(PROFILES) as ProfileName[]) {
  for (const kind of ["emmc", "sd"] as const) {
    const times = PROFILES[name][kind];
    if (times !== undefined) CASES.push([name, kind, times]);
  }
}
let measured = 0;

/** A bus at full speed. Times are taken from the trace, so that polling does not blur them. */
function opened(card: Kind, timing: Timing, cacheSectors = 0): Bus {
  const bus = new Bus({
    card,
    sectors: 8192,
    cacheSectors,
    timing: { ...timing, accessCostNs: 0, stallEvery: 0 },
  });
  bus.open();
  if (card === "emmc") bus.setBus(8, true, 52_000);
  else bus.setBus(4, true, 50_000);
  if (card === "emmc") bus.switchByte(161, 1);
  if (cacheSectors > 0) bus.switchByte(33, 1);
  bus.idle(100_000_000);
  return bus;
}

/** From the first bit of the command `index` to the last event of bus and chip; `issue` sends it and waits for nothing. */
function duration(bus: Bus, index: number, issue: (bus: Bus) => void): number {
  bus.clearEvents();
  issue(bus);
  bus.idle(1_000_000);
  for (let i = 0; i < 500 && !["tran", "slp"].includes(bus.state); i++) bus.idle(100_000_000);
  bus.idle(2_000_000_000);
  const events = bus.events();
  const start = events.filter((event) => event.kind === "command" && event.index === index).at(-1);
  const end = events
    .filter((event) => ["busy-end", "transfer-complete", "response"].includes(event.kind))
    .at(-1);
  assert.ok(start && end, "nothing happened");
  assert.not(events.some((event) => event.kind === "error"));
  bus.resetLines();
  return Number(end.timeNs - start.timeNs);
}

type Work = (bus: Bus) => number;

/** The chip's part: the same work on a card of the same kind that takes no time. */
function chipNs(card: Kind, timing: Timing, work: Work, cacheSectors = 0): number {
  measured++;
  return work(opened(card, timing, cacheSectors)) - work(opened(card, { ...IDEAL }, cacheSectors));
}

/** N_AC of 2 clocks is in the ideal time already, and hides in the chip's: 40 ns at 50 MHz, two roundings. */
const ACCESS_CLOCKS_NS = 42;

/** Waits of the bus are rounded up to whole ns, each by less than 1 ns. */
function near(actual: number, expected: number, what: string, slackNs = 2): void {
  assert.ok(Math.abs(actual - expected) <= slackNs, `${what}: ${actual} ns, the profile says ${expected}`);
}

/** `blocks` by ADMA2, with CMD23 or without an end. */
function transfer(write: boolean, blocks: number, counted: boolean): Work {
  return (bus) => {
    bus.dmaMemory(blocks * 512).set(pattern(blocks));
    bus.describe(blocks * 512);
    if (counted) bus.must(23, blocks);
    const index = (write ? 24 : 17) + (blocks > 1 || counted ? 1 : 0);
    const mode = 0x03 | (write ? 0 : 0x10) | (blocks > 1 || counted ? 0x20 : 0);
    let spent = 0;
    bus.clearEvents();
    bus.issue(index, 8, "r1", { read: !write, blocks, dma: true, mode });
    for (let i = 0; i < 1000 && (bus.read32(0x30) & 0xffff0002) === 0; i++) bus.idle(10_000_000);
    const events = bus.events();
    const start = events.find((event) => event.kind === "command");
    const end = events.find((event) => event.kind === "transfer-complete");
    assert.ok(
      start && end,
      JSON.stringify(events, (_, value) => (typeof value === "bigint" ? `${value}` : value)),
    );
    spent = Number(end.timeNs - start.timeNs);
    if (!counted && blocks > 1) spent += duration(bus, 12, (b) => b.issue(12, 0, write ? "r1b" : "r1"));
    return spent;
  };
}

function erasing(first: number, last: number, argument: number): Work {
  return (bus) => {
    bus.must(bus.isEmmc ? 35 : 32, first);
    bus.must(bus.isEmmc ? 36 : 33, last);
    return duration(bus, 38, (b) => b.issue(38, argument, "r1"));
  };
}

/** CMD6 that sets a byte of EXT_CSD. */
function switching(index: number, value: number): Work {
  const argument = ((3 << 24) | (index << 16) | (value << 8) | 1) >>> 0;
  return (bus) => duration(bus, 6, (b) => b.issue(6, argument, "r1"));
}

for (const [name, card, timing] of CASES) {
  const what = `${name} ${card}`;

  test(`${what}: reading`, () => {
    const next = timing.nextReadNs ?? 0;
    for (const blocks of [1, 2, 8]) {
      const expected = timing.readNs + (blocks - 1) * next;
      const spent = chipNs(card, timing, transfer(false, blocks, blocks > 1));
      const hidden = timing.readNs === 0 ? 0 : ACCESS_CLOCKS_NS * (next > 0 ? blocks : 1);
      assert.ok(
        spent <= expected && spent >= expected - hidden,
        `${what}, ${blocks}: ${spent} of ${expected}`,
      );
    }
  });

  test(`${what}: programming`, () => {
    for (const blocks of [1, 2, 8]) {
      for (const counted of [false, true]) {
        const expected = blocks * timing.programNs + (timing.finalNs ?? 0);
        near(
          chipNs(card, timing, transfer(true, blocks, counted)),
          expected,
          `${what}, ${blocks} blocks`,
          24,
        );
      }
    }
  });

  test(`${what}: erasing`, () => {
    const call = timing.eraseCallNs ?? 0;
    const trim = card === "emmc" ? (timing.trimNs ?? timing.eraseNs) : (timing.discardNs ?? timing.eraseNs);
    const discard = timing.discardNs ?? timing.eraseNs;
    for (const [first, last, groups] of [
      [0, 1023, 1],
      [0, 1024, 2],
      [1023, 4096, 5],
    ] as const) {
      near(chipNs(card, timing, erasing(first, last, 0)), call + groups * timing.eraseNs, `${what} erase`);
      near(chipNs(card, timing, erasing(first, last, 1)), call + groups * trim, `${what} trim`);
      if (card === "emmc") {
        near(chipNs(card, timing, erasing(first, last, 3)), call + groups * discard, `${what} discard`);
      }
    }
  });

  test(`${what}: initialisation`, () => {
    const bus = new Bus({ card, timing: { ...timing, accessCostNs: 0 } });
    bus.powerUp();
    bus.identify("idle");
    // The card starts with the first CMD1 or ACMD41 that offers voltages.
    const started = bus.nowNs;
    bus.operatingConditions();
    const spent = bus.nowNs - started;
    // Polled every 1 ms; each poll is two commands at 400 kHz at most.
    assert.ok(spent >= timing.initNs && spent <= timing.initNs + 3_000_000, `${what}: ${spent}`);
    measured++;
  });

  if (card === "emmc") {
    test(`${what}: switch, partition, cache, sleep, HPI`, () => {
      near(chipNs(card, timing, switching(175, 1)), timing.switchNs, `${what} switch`);
      const partition = timing.partitionNs ?? timing.switchNs;
      near(chipNs(card, timing, switching(179, 0x08)), partition, `${what} partition`);
      const final = timing.finalNs ?? 0;
      near(
        chipNs(card, timing, transfer(true, 4, true), 8),
        4 * timing.cachedNs + final,
        `${what} cached`,
        8,
      );
      // Full: from here on each sector makes another one leave.
      const full = chipNs(card, timing, transfer(true, 6, true), 4);
      near(full, 6 * timing.cachedNs + 2 * timing.programNs + final, `${what} full cache`, 12);
      const flush: Work = (bus) => {
        transfer(true, 4, true)(bus);
        bus.resetLines();
        return switching(32, 1)(bus);
      };
      near(chipNs(card, timing, flush, 8), 4 * timing.programNs, `${what} flush`, 8);
      const sleep: Work = (bus) => {
        bus.must(7, 0, "none");
        return duration(bus, 5, (b) => b.issue(5, (bus.rca << 16) | 0x8000, "r1"));
      };
      near(chipNs(card, timing, sleep), timing.sleepNs, `${what} sleep`);
      const hpi: Work = (bus) => {
        bus.must(24, 8, "r1", { read: false, blocks: 1, mode: 0x02 });
        bus.pioWrite(pattern(1));
        bus.idle(200_000);
        assert.is(bus.state, "prg");
        bus.resetLines();
        return duration(bus, 13, (b) => b.issue(13, (bus.rca << 16) | 1, "r1"));
      };
      const slow = { programNs: 400_000_000 };
      measured++;
      const spent = hpi(opened(card, { ...timing, ...slow })) - hpi(opened(card, { ...IDEAL, ...slow }));
      // A shorter HPI than the response hides behind it.
      assert.ok(spent <= timing.hpiNs && spent >= timing.hpiNs - 2500, `${what} HPI: ${spent}`);
    });
  }
}

test("profiles that a card does not have are refused", () => {
  const open = (options: DeviceOptions) =>
    Device.open(coreModule("release"), { sizeBytes: 512 * 1024, ...options });
  for (const options of [
    { card: "emmc", profile: "slow-sd" },
    { card: "sd", profile: "old-emmc" },
    { profile: "fast" as ProfileName },
    { profile: "toString" as ProfileName },
    { damage: { neighbourSectors: 65 } },
    { damage: { seed: -1 } },
    { timing: { stallEvery: 0.5 } },
  ] as DeviceOptions[]) {
    assert.throws(
      () => open(options),
      (error: MmcError) => error.code === "EINVAL",
      JSON.stringify(options),
    );
  }
});

// ---- stalls ----

/** Busy of each of `count` single writes. */
function busies(timing: Partial<Timing>, seed: number, count: number, card: Kind = "sd"): number[] {
  const bus = new Bus({ card, damage: { seed }, timing: { programNs: 1_000_000, ...timing } });
  bus.open();
  bus.setBus(4, true, 50_000);
  const result: number[] = [];
  for (let i = 0; i < count; i++) {
    bus.clearEvents();
    bus.writeBlocks(i, pattern(1));
    bus.awaitTran();
    const events = bus.events();
    const wrote = events.find((event) => event.kind === "block-write");
    const ended = events.find((event) => event.kind === "busy-end");
    assert.ok(wrote && ended);
    result.push(Number(ended.timeNs - wrote.timeNs));
    measured++;
  }
  return result;
}

test("every n-th program operation stalls, from a place that the seed names, bounded by the maximum", () => {
  for (const seed of [0, 1, 5]) {
    const stalled = busies({ stallEvery: 7, stallNs: 40_000_000 }, seed, 30);
    for (const [i, busyNs] of stalled.entries()) {
      const stalls = (i + 1 + seed) % 7 === 0;
      assert.is(busyNs, stalls ? 41_000_000 : 1_000_000, `seed ${seed}, write ${i}`);
    }
  }
  for (const card of ["sd", "emmc"] as const) {
    const bounded = busies({ stallEvery: 1, stallNs: 4_000_000_000 }, 0, 3, card);
    assert.equal(bounded, Array(3).fill(BUSY_MAX_NS[card]), card);
  }
  assert.equal(
    busies({ stallEvery: 1, stallNs: 9_000_000, busyMaxNs: 5_000_000 }, 0, 2),
    [5_000_000, 5_000_000],
  );
  // A program time above the maximum is what the user asked for.
  assert.equal(
    busies({ programNs: 8_000_000, stallEvery: 1, stallNs: 9, busyMaxNs: 5_000_000 }, 0, 1),
    [8_000_000],
  );
  assert.equal(busies({ stallNs: 9_000_000 }, 0, 3), [1_000_000, 1_000_000, 1_000_000], "no count, no stall");
});

test("the count of stalls goes on over a power cut", () => {
  const bus = new Bus({ card: "sd", timing: { programNs: 1_000_000, stallEvery: 3, stallNs: 50_000_000 } });
  bus.open();
  const stalls: boolean[] = [];
  for (let i = 0; i < 9; i++) {
    if (i % 2 === 0) bus.cutAndReopen(0, 0);
    bus.clearEvents();
    bus.writeBlocks(i, pattern(1));
    bus.awaitTran();
    const events = bus.events();
    const wrote = events.find((event) => event.kind === "block-write");
    const ended = events.find((event) => event.kind === "busy-end");
    stalls.push(Number((ended?.timeNs ?? 0n) - (wrote?.timeNs ?? 0n)) > 10_000_000);
  }
  assert.equal(stalls, [false, false, true, false, false, true, false, false, true]);
});

// ---- panics ----

const IN_FLIGHT: (InFlight | null)[] = [
  null,
  "read",
  "write",
  "program",
  "erase",
  "sleep",
  "suspended",
  "claimed",
  "deselected",
];
let panics = 0;
let slowestNs = 0n;
let slowest = "";

/** The default deadline of 10 s is kept; what it says is true. */
function panicIn(options: DeviceOptions, inFlight: InFlight | null, text: Uint8Array, what: string): number {
  const machine = openMachine(options, [pattern(1, 3)], 64 * 1024);
  const { device } = machine;
  if (inFlight !== null) {
    try {
      device.leaveInFlight(inFlight, IN_FLIGHT_OFFSET);
    } catch (error) {
      // An SD card has no sleep.
      assert.is((error as MmcError).code, "EOPNOTSUPP", what);
      return 0;
    }
  }
  const startNs = device.state().timeNs;
  const { status, droppedBytes } = device.panicWrite({ text, timeSec: 9n });
  const tookNs = device.state().timeNs - startNs;
  assert.ok(tookNs <= 10_000_000_000n, `${what}: took ${tookNs} ns`);
  assert.ok(status === 0 || status === -ERRNO.ETIMEDOUT, `${what}: status ${status}`);
  device.powerCut("torn-low", "lost");
  // What there is no time for is the oldest text, behind Linux's own line, and is told.
  const lineBytes = droppedBytes > 0 && text === PANIC_LOG ? text.indexOf(0x0a) + 1 : 0;
  const kept = Buffer.concat([text.subarray(0, lineBytes), text.subarray(lineBytes + droppedBytes)]);
  const found = machine.records().some((record) => record.state === "ok" && sameBytes(textOf(record), kept));
  if (status === 0) assert.ok(found, `${what}: the record`);
  assert.ok(
    machine.records().some((record) => record.state === "ok" && sameBytes(textOf(record), pattern(1, 3))),
    `${what}: the older record`,
  );
  assert.ok(userDataIntact(device), what);
  panics++;
  if (tookNs > slowestNs) {
    slowestNs = tookNs;
    slowest = what;
  }
  return status;
}

for (const [name, card] of CASES) {
  test(`${name} ${card}: a panic ends within 10 s from every request in flight`, () => {
    for (const inFlight of IN_FLIGHT) {
      for (const dma of [false, true]) {
        for (const cacheSectors of card === "emmc" ? [0, 16] : [0]) {
          const options: DeviceOptions = { card, profile: name, dma, cacheSectors };
          const what = `${name} ${card} ${inFlight}${dma ? " ADMA2" : " PIO"} cache ${cacheSectors}`;
          assert.is(panicIn(options, inFlight, pattern(5, 1).subarray(0, 300), what), 0, what);
          const status = panicIn(options, inFlight, PANIC_LOG, `${what}, a whole log`);
          // 60 sectors at 250 ms and more do not fit 10 s; everything else does.
          if (name !== "worst" && name !== "slow-sd") assert.is(status, 0, `${what}, a whole log`);
        }
      }
    }
  });
}

test.after(() => {
  note(`${measured} durations, ${panics} panics; the slowest took ${slowestNs} ns: ${slowest}`);
});
test.run();
