// The panic path on a card that fails: each fault, at the first, second, … place it can strike, once and for ever. The
// call ends before its deadline; it says success only with the record on the medium; older records and flushed data
// are intact whatever it says.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CONFIG_DEADLINE_US, FAULT_SEEN, FAULTS_BASE, ZONE_STATES } from "../assembly/layout.js";
import type { FaultPlan } from "../host/core/faults.js";
import type { PanicResult } from "../host/core/result.js";
import type { DeviceOptions } from "../host/device-options.js";
import { ERRNO, MmcError } from "../host/errors.js";
import {
  AREA_BYTES,
  AREA_OFFSET,
  bootUnopened,
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
/** assembly/pstore/format.ts */
const ZONE_USED = 3;
const ZONE_UNKNOWN = 6;
const ERRNOS = new Set([0, ...Object.values(ERRNO).map((number) => -number)]);

let cases = 0;
let successes = 0;
let recoveries = 0;

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
  for (const record of fresh) {
    // What there is no time for is the oldest text, and is told.
    const text = textOf(record);
    const isWhole = result.status !== 0 || text.length + result.droppedBytes === NEW_LOG.length;
    assert.ok(
      isWhole && sameBytes(text, NEW_LOG.subarray(NEW_LOG.length - text.length)),
      `${what}: ${record.name}`,
    );
  }
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

// ---- the kinds of docs/FAULTS.md that came with timing profiles: each bus, each place, once and for ever ----

const AREA = { firstLba: AREA_FIRST_LBA, lastLba: AREA_LAST_LBA };

/** A device under `plans`, panicked, is whole again when the plan is over and its power has been off and on. */
function recoversAfter(bus: string, options: DeviceOptions, plan: FaultPlan): void {
  const machine = openMachine(options, [OLD_LOG], KMSG_BYTES);
  const { device } = machine;
  device.leaveInFlight("write", IN_FLIGHT_OFFSET);
  device.injectFault(plan);
  const result = device.panicWrite({ text: NEW_LOG, timeSec: 7n });
  device.clearFaults();
  device.powerCut("old", "lost");
  device.insertCard(true);
  const what = `${bus}: after ${JSON.stringify(plan)}, status ${result.status}`;
  try {
    device.powerOn();
  } catch (error) {
    throw new Error(`${what}: ${error}`);
  }
  device.write(IN_FLIGHT_OFFSET, OLD_LOG);
  device.flush();
  assert.ok(sameBytes(device.read(IN_FLIGHT_OFFSET, OLD_LOG.length), OLD_LOG), what);
  const again = device.panicWrite({ text: NEW_LOG, timeSec: 8n });
  assert.is(again.status, 0, `${what}: the next panic`);
  recoveries++;
}

/** Block kinds: the plan without place and count, and whether one of them may cost more than the zone. */
const BLOCK_KINDS: FaultPlan[] = [
  { kind: "bad-after-stop" },
  { kind: "late-busy", delayUs: 5 },
  { kind: "long-busy", delayUs: 500_000 },
  { kind: "slow-read", delayUs: 200_000 },
  { kind: "cc-error" },
  { kind: "misdirected-write", toLba: 8 },
  { kind: "latent-read" },
  { kind: "bit-rot" },
  { kind: "deselect-busy" },
];
const LATE_KINDS: FaultPlan[] = [
  // Longer than the controller's data timeout at 0x0E, 2.68 s, and than the driver's own.
  { kind: "long-busy", delayUs: 2_800_000 },
  { kind: "long-busy", delayUs: 4_000_000 },
  { kind: "slow-read", delayUs: 2_800_000 },
];
const COMMAND_KINDS: FaultPlan[] = [
  { kind: "wrong-index" },
  { kind: "locked" },
  { kind: "dat-stuck", until: "reset" },
  { kind: "dat-stuck", until: "power-cycle" },
  { kind: "write-protect" },
  { kind: "brown-out" },
  { kind: "refused", bits: 1 << 26 },
  { kind: "refused", bits: 0x80000000 },
  { kind: "illegal" },
  { kind: "long-r1b", delayUs: 300_000 },
];

for (const plan of BLOCK_KINDS) {
  test(`${plan.kind} on a block of the area, once, writes its record all the same`, () => {
    for (const [bus, options] of BUSES) {
      for (let skip = 0; skip < 16; skip++) {
        const result = panicUnder(bus, options, [{ ...plan, ...AREA, skip, times: 1 }]);
        assert.is(result.status, 0, `${bus}, skip ${skip}`);
      }
    }
  });
}

for (const plan of [...BLOCK_KINDS, ...LATE_KINDS]) {
  test(`${plan.kind} ${plan.delayUs ?? ""} on every block of the area: an errno or the record, in time`, () => {
    for (const [bus, options] of BUSES) {
      for (const skip of [0, 1, 5]) {
        panicUnder(bus, options, [{ ...plan, ...AREA, skip }]);
        panicUnder(bus, options, [{ ...plan, ...AREA, skip, times: 1 }]);
        recoversAfter(bus, options, { ...plan, ...AREA, skip });
      }
    }
  });
}

for (const plan of COMMAND_KINDS) {
  test(`${plan.kind} ${plan.until ?? plan.bits ?? ""} at each command, once and for ever`, () => {
    for (const [bus, options] of BUSES) {
      for (let skip = 0; skip < 40; skip++) {
        const result = panicUnder(bus, options, [{ ...plan, skip, times: 1 }]);
        // A flush may take as long as the deadline lets it, and DAT0 does not say that it has nobody behind it.
        const flushHangs = plan.kind === "dat-stuck" && options.reliableWrite === false;
        if (flushHangs && result.status === -ERRNO.ETIMEDOUT) continue;
        assert.is(result.status, 0, `${bus}, skip ${skip}: one ${plan.kind} must not lose the record`);
      }
      for (const skip of [0, 3, 11, 20]) {
        panicUnder(bus, options, [{ ...plan, skip }]);
        recoversAfter(bus, options, { ...plan, skip });
      }
      for (const command of COMMANDS) {
        panicUnder(bus, options, [{ ...plan, command }]);
      }
    }
  });
}

/** How a sector cannot be read: -EIO, -EILSEQ, -ETIMEDOUT, and -EIO before any data. */
const READ_KINDS: FaultPlan[] = [
  { kind: "read-ecc" },
  { kind: "read-crc" },
  { kind: "read-silent" },
  { kind: "refused", command: 17, bits: 1 << 21 },
];

for (const plan of READ_KINDS) {
  for (const [place, sector] of [
    ["first", 0],
    ["last", KMSG_BYTES / 512 - 1],
  ] as const) {
    test(`${plan.kind}, a zone's ${place} sector: passed over by recovery, at opening and in the panic`, () => {
      for (const [bus, options] of BUSES) {
        for (const isOpened of [true, false]) {
          const what = `${bus}, ${isOpened ? "opened" : "panicked before it was opened"}`;
          const machine = openMachine(options, [OLD_LOG, pattern(2, 3000)], KMSG_BYTES);
          const { device } = machine;
          device.powerCut("old", "lost");
          // A command's fault has no sector: it strikes the first or the second read.
          const lba = AREA_FIRST_LBA + sector;
          const where =
            plan.kind === "refused"
              ? { skip: sector > 0 ? 1 : 0, times: 1 }
              : { firstLba: lba, lastLba: lba };
          device.injectFault({ ...plan, ...where });
          if (isOpened) {
            device.powerOn();
            assert.is(device.state().newestZone, 1, what);
            assert.is(device.state().nextZone, 2, what);
          } else bootUnopened(device);
          const result = device.panicWrite({ text: NEW_LOG, timeSec: 7n });
          assert.is(result.status, 0, what);
          assert.is(result.zone, 2, what);
          // One refusal is noise: the zone is read again. A sector that stays unreadable leaves it unknown.
          const state = plan.kind === "refused" ? ZONE_USED : ZONE_UNKNOWN;
          assert.is(new Uint8Array(device.memory.buffer)[ZONE_STATES], state, what);
          const texts = machine.records().map((record) => textOf(record));
          assert.ok(sameBytes(texts[0] as Uint8Array, OLD_LOG), `${what}: nothing is written to it`);
          assert.ok(sameBytes(texts[2] as Uint8Array, NEW_LOG), what);
          cases++;
          successes++;
        }
      }
    });
  }

  test(`${plan.kind} in every zone: opening works, a panic has nowhere to go and says so`, () => {
    for (const [bus, options] of BUSES) {
      const { device } = openMachine(options, [OLD_LOG], KMSG_BYTES);
      device.powerCut("old", "lost");
      device.injectFault(plan.kind === "refused" ? plan : { ...plan, ...AREA });
      device.powerOn();
      assert.is(device.state().nextZone, -1, bus);
      assert.ok(device.panicWrite({ text: NEW_LOG, timeSec: 7n }).status < 0, bus);
      cases++;
    }
  });
}

type Outcome = "ok" | "differs" | keyof typeof ERRNO;

/** Each kind for ever: what read() and write() then are, on an eMMC with CMD23 and on an SD card with CMD12. */
const SEEN_AS: Record<
  FaultPlan["kind"],
  [Partial<FaultPlan>, read: Outcome | Outcome[], write: Outcome | Outcome[]]
> = {
  "no-response": [{}, "ETIMEDOUT", "ETIMEDOUT"],
  "command-crc": [{}, "ETIMEDOUT", "ETIMEDOUT"],
  "response-crc": [{}, "EILSEQ", "EILSEQ"],
  "wrong-index": [{}, "EILSEQ", "EILSEQ"],
  illegal: [{}, "ETIMEDOUT", "ETIMEDOUT"],
  locked: [{}, "ETIMEDOUT", "ETIMEDOUT"],
  refused: [{ bits: 1 << 26 }, "EIO", "EIO"],
  vanish: [{}, "ETIMEDOUT", "ETIMEDOUT"],
  pulled: [{}, "ENOMEDIUM", "ENOMEDIUM"],
  "brown-out": [{}, "ETIMEDOUT", "ETIMEDOUT"],
  swapped: [{}, "ETIMEDOUT", "ETIMEDOUT"], // another one at each command: none stays long enough to be identified
  "dat-stuck": [{ until: "power-cycle" }, "EILSEQ", "EILSEQ"],
  "long-r1b": [{ delayUs: 20_000_000 }, "ETIMEDOUT", "ETIMEDOUT"],
  switch: [{}, "ok", ["EIO", "ok"]], // the flush of the cache
  "write-protect": [{}, "ok", "ok"],
  "read-crc": [{}, "EILSEQ", "ok"],
  "read-ecc": [{}, "EIO", "ok"],
  "read-silent": [{}, "ETIMEDOUT", "ok"],
  "latent-read": [{}, "EIO", "ok"],
  "bit-rot": [{}, "differs", "ok"],
  "bad-after-stop": [{}, ["ok", "differs"], "ok"],
  "slow-read": [{ delayUs: 2_800_000 }, "ETIMEDOUT", "ok"],
  "write-crc": [{}, "ok", "EILSEQ"],
  program: [{}, "ok", "EIO"],
  "cc-error": [{}, "ok", "EIO"],
  "stuck-busy": [{ until: "power-cycle" }, "ok", "ETIMEDOUT"],
  "phantom-write": [{}, "ok", "differs"],
  "misdirected-write": [{ toLba: 900 }, "ok", "differs"],
  "late-busy": [{ delayUs: 5 }, "ok", ["ok", "ETIMEDOUT"]], // one block behind the other meets the busy
  "long-busy": [{ delayUs: 20_000_000 }, "ok", "ETIMEDOUT"],
  "deselect-busy": [{}, "ok", "ETIMEDOUT"],
};

type Entry = [FaultPlan["kind"], (typeof SEEN_AS)[FaultPlan["kind"]]];

test("every kind of fault as the errno it should be, and everything works again behind it", () => {
  let seen = 0;
  const outcomeOf = (request: () => boolean): Outcome => {
    try {
      return request() ? "ok" : "differs";
    } catch (error) {
      return (error as MmcError).code as Outcome;
    }
  };
  for (const [i, options] of [
    { cacheSectors: 16, dma: true },
    { card: "sd", dma: false, cmd23: false } as const,
  ].entries()) {
    for (const [kind, [more, ...expected]] of Object.entries(SEEN_AS) as Entry[]) {
      for (const isWrite of [false, true]) {
        const { device } = openMachine(options, []);
        const reads = (bytes: Uint8Array) => sameBytes(device.read(IN_FLIGHT_OFFSET, bytes.length), bytes);
        const writes = (bytes: Uint8Array) => {
          device.write(IN_FLIGHT_OFFSET, bytes);
          device.flush();
          return true;
        };
        const before = pattern(3, 4096);
        const after = pattern(4, 4096);
        writes(before);
        device.injectFault({ ...more, kind });
        let outcome = outcomeOf(() => (isWrite ? writes(after) : reads(before)));
        device.clearFaults();
        // What a write that said yes left there.
        if (isWrite && outcome === "ok" && !reads(after)) outcome = "differs";
        const wanted = expected[isWrite ? 1 : 0] ?? [];
        const what = `${options.card ?? "emmc"}: ${kind}, ${isWrite ? "write" : "read"}`;
        assert.is(outcome, Array.isArray(wanted) ? wanted[i] : wanted, what);
        device.powerCut("old", "lost");
        device.insertCard(true);
        device.powerOn();
        assert.ok(writes(before) && reads(before), `${what}: afterwards`);
        assert.is(device.panicWrite({ text: NEW_LOG, timeSec: 8n }).status, 0, `${what}: the next panic`);
        seen++;
      }
    }
  }
  console.log(`# ${seen} faults as their errno`);
});

test("read() and write() find a card again that has lost its way once, and no powerOn() is needed", () => {
  const plans: FaultPlan[] = [
    { kind: "deselect-busy" },
    { kind: "vanish" },
    { kind: "brown-out" },
    { kind: "stuck-busy", until: "hpi" },
    { kind: "stuck-busy", until: "reset" },
    { kind: "stuck-busy", until: "power-cycle" },
    { kind: "dat-stuck", until: "reset" },
    { kind: "dat-stuck", until: "power-cycle" },
    { kind: "illegal" },
    { kind: "no-response" },
    { kind: "read-silent" },
    { kind: "write-crc" },
  ];
  let requests = 0;
  for (const [bus, options] of BUSES) {
    for (const plan of plans) {
      for (const isWrite of [false, true]) {
        for (const lengthBytes of [512, 4096]) {
          const { device } = openMachine(options, []);
          const what = `${bus}: ${JSON.stringify(plan)}, ${isWrite ? "write" : "read"} of ${lengthBytes}`;
          const before = pattern(3, lengthBytes);
          const after = pattern(4, lengthBytes);
          device.write(IN_FLIGHT_OFFSET, before);
          device.flush();
          device.injectFault({ ...plan, times: 1 });
          const startNs = device.state().timeNs;
          if (isWrite) device.write(IN_FLIGHT_OFFSET, after);
          const wanted = isWrite ? after : before;
          assert.ok(sameBytes(device.read(IN_FLIGHT_OFFSET, lengthBytes), wanted), what);
          const tookNs = device.state().timeNs - startNs;
          // Two waits of 3 s and the ladder's patience, for a busy that never ends.
          assert.ok(tookNs < 10_000_000_000n, `${what}: ${tookNs} ns`);
          // One block, and the card is deselected behind it: CMD7 is all that it takes.
          if (plan.kind === "deselect-busy" && lengthBytes === 512)
            assert.ok(tookNs < 50_000_000n, `${what}: ${tookNs} ns`);
          device.clearFaults();
          device.flush();
          assert.ok(sameBytes(device.read(IN_FLIGHT_OFFSET, lengthBytes), wanted), `${what}: flushed`);
          assert.ok(userDataIntact(device), `${what}: flushed data`);
          requests++;
        }
      }
    }
  }
  console.log(`# ${requests} requests on a card that lost its way`);
});

test("erase() finds the card again as well", () => {
  const plans: FaultPlan[] = [
    { kind: "vanish" },
    { kind: "brown-out" },
    { kind: "dat-stuck", until: "reset" },
    { kind: "dat-stuck", until: "power-cycle" },
    { kind: "illegal" },
    { kind: "no-response" },
    { kind: "response-crc" },
    { kind: "refused", bits: 1 << 27 },
  ];
  for (const [bus, options] of BUSES) {
    for (const plan of plans) {
      for (let skip = 0; skip < 4; skip++) {
        const { device } = openMachine(options, []);
        const what = `${bus}: ${JSON.stringify(plan)} after ${skip}`;
        device.write(IN_FLIGHT_OFFSET, pattern(3, 4096));
        device.flush();
        device.injectFault({ ...plan, skip, times: 1 });
        device.erase(IN_FLIGHT_OFFSET + 512, 2048);
        device.clearFaults();
        const wanted = pattern(3, 4096).fill(0, 512, 2560);
        assert.ok(sameBytes(device.read(IN_FLIGHT_OFFSET, 4096), wanted), what);
        device.flush();
        assert.ok(userDataIntact(device), what);
      }
    }
  }
});

test("flush() on a card that lost its way: what was written is on the medium, or EIO says that it may not be", () => {
  const seen = new Set<string>();
  for (const plan of [
    { kind: "vanish" },
    { kind: "brown-out" },
    { kind: "no-response" },
    { kind: "illegal" },
    { kind: "switch" },
    { kind: "dat-stuck", until: "power-cycle" },
  ] as FaultPlan[]) {
    for (let skip = 0; skip < 3; skip++) {
      const { device } = openMachine({ cacheSectors: 16, reliableWrite: false }, []);
      const what = `${JSON.stringify(plan)} after ${skip}`;
      const data = pattern(6, 2048);
      device.write(IN_FLIGHT_OFFSET, data);
      device.injectFault({ ...plan, skip, times: 1 });
      let outcome = "ok";
      try {
        device.flush();
      } catch (error) {
        outcome = (error as MmcError).code;
      }
      const stored = device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + data.length);
      if (outcome === "ok") assert.ok(sameBytes(stored, data), what);
      else assert.is(outcome, "EIO", what);
      seen.add(`${plan.kind} ${outcome}`);
      device.clearFaults();
      device.write(IN_FLIGHT_OFFSET, data);
      device.flush();
      assert.ok(
        sameBytes(device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + data.length), data),
        `${what}: again`,
      );
    }
  }
  for (const outcome of ["no-response ok", "vanish EIO", "switch EIO"])
    assert.ok(seen.has(outcome), `${outcome}: ${[...seen]}`);
});

test("another card in the slot is -ENODEV to read() and write(), and is not written to", () => {
  for (const card of ["emmc", "sd"] as const) {
    const { device } = openMachine({ card }, []);
    device.injectFault({ kind: "swapped", times: 1 });
    const before = device.medium().slice();
    const isAnother = (error: MmcError) => error.code === "ENODEV";
    assert.throws(() => device.write(IN_FLIGHT_OFFSET, pattern(1, 512)), isAnother, card);
    assert.throws(
      () => device.read(IN_FLIGHT_OFFSET, 512),
      (error: MmcError) => error.code !== "EINVAL",
      card,
    );
    assert.ok(sameBytes(device.medium(), before), card);
  }
});

test("a restart that costs the cache is told by the next flush, once", () => {
  const { device } = openMachine({ cacheSectors: 16, reliableWrite: false }, []);
  device.write(IN_FLIGHT_OFFSET, pattern(3, 2048));
  device.injectFault({ kind: "vanish", times: 1 });
  device.read(0, 512);
  const says = (code: string) => (error: MmcError) => error.code === code;
  assert.throws(() => device.flush(), says("EIO"));
  device.flush();
  device.write(IN_FLIGHT_OFFSET, pattern(3, 2048));
  device.flush();
  device.injectFault({ kind: "vanish", times: 1 });
  device.read(0, 512);
  device.flush();
});

test("error bits that a damaged answer took along are not a success", () => {
  for (const card of ["emmc", "sd"] as const) {
    for (const [command, lengthBytes] of [
      [12, 4096],
      [13, 512],
    ] as const) {
      for (const kind of ["response-crc", "no-response", "command-crc"] as const) {
        const { device } = openMachine({ card, cmd23: false }, []);
        const data = pattern(5, lengthBytes);
        const what = `${card}: ${kind} of CMD${command}`;
        // Behind the last block's busy CC_ERROR shows in the next R1, and that R1 does not come.
        device.injectFault({ kind: "cc-error", skip: lengthBytes / 512 - 1, times: 1 }, 0);
        device.injectFault({ kind, command, times: 1 }, 1);
        device.write(IN_FLIGHT_OFFSET, data);
        assert.ok(
          sameBytes(device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + lengthBytes), data),
          what,
        );
        device.clearFaults();
        device.injectFault({ kind, command });
        assert.throws(() => device.write(IN_FLIGHT_OFFSET, data), undefined, `${what}: for ever`);
      }
    }
  }
});

test("a flush whose status was damaged is asked again, and told, as its error may have gone with the status", () => {
  const { device } = openMachine({ cacheSectors: 16, reliableWrite: false }, []);
  const data = pattern(5, 512);
  device.write(IN_FLIGHT_OFFSET, data);
  const lba = IN_FLIGHT_OFFSET / 512;
  device.injectFault({ kind: "program", times: 1, firstLba: lba, lastLba: lba }, 0);
  device.injectFault({ kind: "response-crc", command: 13, times: 1 }, 1);
  assert.throws(
    () => device.flush(),
    (error: unknown) => error instanceof MmcError && error.code === "EIO",
  );
  device.flush();
  assert.ok(sameBytes(device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + 512), data));
});

test("the card vanishes at each command, and comes back with a power cycle", () => {
  for (const [bus, options] of BUSES) {
    for (let skip = 0; skip < 60; skip++) {
      const result = panicUnder(bus, options, [{ kind: "vanish", skip, times: 1 }]);
      assert.is(result.status, 0, `${bus}, skip ${skip}: the driver's own power cycle finds it again`);
    }
    assert.ok(panicUnder(bus, options, [{ kind: "vanish" }]).status < 0, bus);
    recoversAfter(bus, options, { kind: "vanish", skip: 10 });
  }
});

test("another card in the slot is never written to", () => {
  for (const [bus, options] of BUSES) {
    for (let skip = 0; skip < 60; skip++) {
      const machine = openMachine(options, [OLD_LOG], KMSG_BYTES);
      const { device } = machine;
      device.leaveInFlight("write", IN_FLIGHT_OFFSET);
      device.injectFault({ kind: "swapped", skip, times: 1 });
      const result = device.panicWrite({ text: NEW_LOG, timeSec: 7n });
      assert.ok(
        result.status === 0 || result.status === -ERRNO.ENODEV,
        `${bus}, skip ${skip}: ${result.status}`,
      );
      // Success only if the swap never came, or came when the record had been read back.
      const swapped = new DataView(device.memory.buffer).getUint32(FAULTS_BASE + FAULT_SEEN, true) > skip;
      if (swapped && result.status === 0) assert.is(result.step, "done", `${bus}, skip ${skip}`);
      cases++;
    }
    const machine = openMachine(options, [OLD_LOG], KMSG_BYTES);
    machine.device.insertCard("another");
    const before = machine.device.medium().slice();
    assert.is(machine.device.panicWrite({ text: NEW_LOG }).status, -ERRNO.ENODEV, bus);
    assert.ok(sameBytes(before, machine.device.medium()), `${bus}: nothing is written to a stranger`);
    cases++;
  }
});

test("plans that say too little are refused", () => {
  const { device } = openMachine();
  const bad: FaultPlan[] = [
    { kind: "late-busy" },
    { kind: "long-busy", delayUs: -1 },
    { kind: "misdirected-write", toLba: 0.5 },
    { kind: "refused", bits: 0xffffffff },
  ];
  for (const plan of bad) {
    assert.throws(
      () => device.injectFault(plan),
      (error: MmcError) => error.code === "EINVAL",
    );
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
    [{ kind: "vanish", skip: 3, times: 1 }],
    [{ kind: "dat-stuck", skip: 2, times: 1, until: "power-cycle" }],
    [{ kind: "long-busy", delayUs: 4_000_000 }],
    [{ kind: "slow-read", delayUs: 4_000_000 }],
    [{ kind: "brown-out", skip: 4 }],
    [{ kind: "locked" }],
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
    { kind: "late-busy", skip: 2, times: 1, delayUs: 20 },
    { kind: "vanish", skip: 9, times: 1 },
    { kind: "brown-out", skip: 7, times: 1 },
    { kind: "dat-stuck", skip: 5, times: 1, until: "reset" },
    { kind: "bit-rot", skip: 4, times: 1, ...AREA },
    { kind: "deselect-busy", skip: 3, times: 1 },
    { kind: "latent-read", skip: 5, times: 1, ...AREA },
  ];
  for (const [bus, options] of BUSES) {
    for (const first of pairs) for (const second of pairs) panicUnder(bus, options, [first, second]);
  }
});

test.after(() => console.log(`# ${recoveries} recoveries after a fault`));
test.after(() =>
  console.log(`# ${cases} panics under faults, ${successes} of them wrote their record all the same`),
);
test.run();
