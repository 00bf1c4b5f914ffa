// The panic path on a card that fails: each fault, at the first, second, … place it can strike, once and for ever. The
// call ends before its deadline; it says success only with the record on the medium; older records and flushed data
// are intact whatever it says.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CONFIG_DEADLINE_US } from "../assembly/layout.js";
import type { FaultPlan } from "../host/core/faults.js";
import type { PanicResult } from "../host/core/result.js";
import type { DeviceOptions } from "../host/device.js";
import { ERRNO } from "../host/errors.js";
import {
  AREA_BYTES,
  AREA_OFFSET,
  IN_FLIGHT_OFFSET,
  openMachine,
  pattern,
  sameBytes,
  textOf,
  userDataIntact,
} from "./machine.js";

const BUSES: [string, DeviceOptions][] = [
  ["eMMC, ADMA2", { dma: true }],
  ["eMMC with cache, PIO, CMD12", { dma: false, cmd23: false, cacheSectors: 16, reliableWrite: false }],
  ["SD, ADMA2", { card: "sd", dma: true }],
  ["SD, PIO, CMD12", { card: "sd", dma: false, cmd23: false }],
];
const OLD_LOG = pattern(1, 3000);
const NEW_LOG = pattern(9, 5000);
const KMSG_BYTES = 16 * 1024;
const AREA_FIRST_LBA = AREA_OFFSET / 512;
const AREA_LAST_LBA = (AREA_OFFSET + AREA_BYTES) / 512 - 1;
const ERRNOS = new Set([0, ...Object.values(ERRNO).map((number) => -number)]);

let cases = 0;
let successes = 0;

/** Panics under `plans` and holds the result against the medium. */
function panicUnder(
  bus: string,
  options: DeviceOptions,
  plans: FaultPlan[],
  inFlight = true,
  deadlineUs = 10_000_000,
): PanicResult {
  const machine = openMachine(options, [OLD_LOG], KMSG_BYTES);
  const { device } = machine;
  const memory = new DataView(device.memory.buffer);
  memory.setUint32(CONFIG_DEADLINE_US, deadlineUs, true);
  if (inFlight) device.leaveInFlight("write", IN_FLIGHT_OFFSET);
  for (const [i, plan] of plans.entries()) device.injectFault(plan, i);
  const startNs = device.state().timeNs;
  const result = device.panicWrite({ text: NEW_LOG, timeSec: 7n });
  const what = `${bus}: ${JSON.stringify(plans)}, deadline ${deadlineUs} µs: status ${result.status}`;
  const tookNs = device.state().timeNs - startNs;
  assert.ok(tookNs <= BigInt(deadlineUs) * 1000n, `${what}: took ${tookNs} ns`);
  assert.ok(ERRNOS.has(result.status), what);
  device.clearFaults();
  device.powerCut("old", "lost");
  const records = machine.records();
  const [old] = records;
  assert.ok(old?.state === "ok" && sameBytes(textOf(old), OLD_LOG), `${what}: the old record`);
  const fresh = records.filter((record) => record.state === "ok" && record.id !== 0);
  for (const record of fresh) assert.ok(sameBytes(textOf(record), NEW_LOG), `${what}: ${record.name}`);
  if (result.status === 0) assert.is(fresh.length, 1, `${what}: said success without the record`);
  assert.ok(userDataIntact(device), `${what}: flushed data`);
  cases++;
  if (result.status === 0) successes++;
  return result;
}

const COMMANDS = [0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 13, 17, 18, 23, 24, 25, 41, 51, 55];

for (const kind of ["no-response", "command-crc", "response-crc"] as const) {
  test(`${kind} on each command, once`, () => {
    for (const [bus, options] of BUSES) {
      for (const command of COMMANDS) {
        for (let skip = 0; skip < 6; skip++) {
          const result = panicUnder(bus, options, [{ kind, command, skip, times: 1 }]);
          assert.is(
            result.status,
            0,
            `${bus}, CMD${command}, skip ${skip}: one ${kind} must not lose the record`,
          );
        }
      }
    }
  });

  test(`${kind} on each command, for ever`, () => {
    for (const [bus, options] of BUSES) {
      for (const command of [...COMMANDS, undefined]) {
        for (const skip of [0, 1, 3]) {
          const result = panicUnder(bus, options, [
            { kind, skip, ...(command === undefined ? {} : { command }) },
          ]);
          if (command === undefined) assert.ok(result.status < 0);
        }
      }
    }
  });
}

for (const kind of [
  "read-crc",
  "read-ecc",
  "read-silent",
  "write-crc",
  "program",
  "phantom-write",
] as const) {
  test(`${kind} on a block of the area, once`, () => {
    for (const [bus, options] of BUSES) {
      for (let skip = 0; skip < 16; skip++) {
        const plan = { kind, skip, times: 1, firstLba: AREA_FIRST_LBA, lastLba: AREA_LAST_LBA };
        assert.is(panicUnder(bus, options, [plan]).status, 0, `${bus}, skip ${skip}`);
      }
    }
  });

  test(`${kind} on every block of the area, for ever`, () => {
    for (const [bus, options] of BUSES) {
      const plan = { kind, firstLba: AREA_FIRST_LBA, lastLba: AREA_LAST_LBA };
      assert.ok(panicUnder(bus, options, [plan]).status < 0, `${bus}: there is no way to succeed`);
    }
  });

  test(`${kind}: a bad zone means the next zone`, () => {
    for (const [bus, options] of BUSES) {
      const firstLba = AREA_FIRST_LBA + KMSG_BYTES / 512;
      const plan = { kind, firstLba, lastLba: firstLba + KMSG_BYTES / 512 - 1 };
      const result = panicUnder(bus, options, [plan]);
      assert.is(result.status, 0, bus);
      assert.is(result.zone, 2, bus);
    }
  });
}

test("busy that does not end, at each block", () => {
  for (const [bus, options] of BUSES) {
    for (const until of ["hpi", "reset", "power-cycle"] as const) {
      for (let skip = 0; skip < 14; skip++) {
        assert.is(panicUnder(bus, options, [{ kind: "stuck-busy", skip, times: 1, until }]).status, 0, bus);
      }
      assert.ok(panicUnder(bus, options, [{ kind: "stuck-busy", until }]).status < 0);
    }
  }
});

test("the card is pulled at each command", () => {
  for (const [bus, options] of BUSES) {
    for (let skip = 0; skip < 60; skip++) {
      const result = panicUnder(bus, options, [{ kind: "pulled", skip, times: 1 }]);
      assert.ok(result.status === 0 || result.status === -ERRNO.ENOMEDIUM, `${bus}: ${result.status}`);
    }
  }
});

test("the card refuses its modes", () => {
  for (const [bus, options] of BUSES) {
    for (let skip = 0; skip < 6; skip++) panicUnder(bus, options, [{ kind: "switch", skip, times: 1 }]);
    panicUnder(bus, options, [{ kind: "switch" }]);
  }
});

test("every deadline is kept", () => {
  const deadlines = [
    1, 50, 100, 101, 150, 200, 300, 500, 800, 1200, 2000, 3000, 5000, 8000, 12_000, 20_000, 50_000,
  ];
  const faults: FaultPlan[][] = [
    [],
    [{ kind: "no-response" }],
    [{ kind: "stuck-busy", until: "power-cycle" }],
    [{ kind: "read-silent" }],
    [{ kind: "response-crc", command: 13 }],
    [{ kind: "write-crc", skip: 1, times: 3 }],
  ];
  for (const [bus, options] of BUSES) {
    for (const deadlineUs of deadlines) {
      for (const plans of faults) panicUnder(bus, options, plans, true, deadlineUs);
    }
  }
});

test("a CMD12 that the card never got is sent again, not waited for", () => {
  for (const [bus, options] of BUSES) {
    for (let skip = 0; skip < 3; skip++) {
      const result = panicUnder(bus, options, [{ kind: "command-crc", command: 12, skip, times: 1 }]);
      assert.ok(result.endNs - result.startNs < 100_000_000n, `${bus}: ${result.endNs - result.startNs} ns`);
    }
  }
});

test("two faults at once", () => {
  const pairs: FaultPlan[] = [
    { kind: "no-response", skip: 2, times: 1 },
    { kind: "response-crc", command: 13, skip: 1, times: 2 },
    { kind: "write-crc", skip: 1, times: 1 },
    { kind: "program", skip: 4, times: 1 },
    { kind: "stuck-busy", skip: 2, times: 1, until: "reset" },
    { kind: "read-crc", skip: 3, times: 1 },
    { kind: "phantom-write", skip: 1, times: 1 },
  ];
  for (const [bus, options] of BUSES) {
    for (const first of pairs) for (const second of pairs) panicUnder(bus, options, [first, second]);
  }
});

test.after(() =>
  console.log(`# ${cases} panics under faults, ${successes} of them wrote their record all the same`),
);
test.run();
