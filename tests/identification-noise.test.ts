// One fault of each kind, at each place where it can strike while a card is identified: when the device is switched on,
// in a panic on a card whose supply was gone, and in a panic before anybody has opened the card; on every kind of card
// and of write cache. Whatever strikes, afterwards write() and flush(), then a cut, and panicWrite(), then a cut: what was
// acknowledged is on the medium. Then three faults at a time, by seed (MMCPSTORE_NOISE_TRIPLES, MMCPSTORE_NOISE_SEED).
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FAULT_BYTES, FAULT_SEEN, FAULTS_BASE, TEXT_BASE } from "../assembly/layout.js";
import { clearFaults, type FaultKind, type FaultPlan } from "../host/core/faults.js";
import type { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { ERRNO, type MmcError } from "../host/errors.js";
import { note } from "./bus.js";
import { IN_FLIGHT_OFFSET, type Machine, openMachine, pattern, sameBytes, textOf } from "./machine.js";

const SHORT = { initNs: 2_500_000 };
const CARDS: [string, DeviceOptions][] = [
  ["eMMC without cache", { card: "emmc" }],
  ["eMMC by bytes", { card: "emmc", addressing: "byte", reliableWrite: false }],
  ["eMMC, cache and reliable write", { card: "emmc", cacheSectors: 16 }],
  ["eMMC, cache and forced programming", { card: "emmc", cacheSectors: 16, reliableWrite: false }],
  ["eMMC, cache and flush", { card: "emmc", cacheSectors: 16, reliableWrite: false, cmd23: false }],
  ["SDHC", { card: "sd" }],
  ["SDSC 1.01", { card: "sdsc", sd: { version: "1.01" } }],
];
const OLD_LOG = pattern(1, 3000);
const NEW_LOG = pattern(9, 1500);
const DATA = pattern(5, 4096);

/** What each kind needs besides its place, and whether blocks or commands are its places. */
const PLANS: { plan: FaultPlan; blocks?: boolean }[] = [
  { plan: { kind: "no-response" } },
  { plan: { kind: "command-crc" } },
  { plan: { kind: "response-crc" } },
  { plan: { kind: "wrong-index" } },
  { plan: { kind: "illegal" } },
  { plan: { kind: "locked" } },
  { plan: { kind: "vanish" } },
  { plan: { kind: "pulled" } },
  { plan: { kind: "swapped" } },
  { plan: { kind: "brown-out" } },
  { plan: { kind: "switch" } },
  { plan: { kind: "write-protect" } },
  { plan: { kind: "long-r1b", delayUs: 30_000 } },
  { plan: { kind: "dat-stuck", until: "reset" } },
  { plan: { kind: "dat-stuck", until: "power-cycle" } },
  // OUT_OF_RANGE, ERASE_SEQ_ERROR, WP_VIOLATION, CARD_IS_LOCKED, COM_CRC_ERROR, ILLEGAL_COMMAND, ERROR, SWITCH_ERROR.
  ...[31, 28, 26, 25, 23, 22, 19, 7].map((bit) => ({
    plan: { kind: "refused", bits: 2 ** bit } as FaultPlan,
  })),
  { plan: { kind: "read-crc" }, blocks: true },
  { plan: { kind: "read-ecc" }, blocks: true },
  { plan: { kind: "read-silent" }, blocks: true },
  { plan: { kind: "latent-read" }, blocks: true },
  { plan: { kind: "bit-rot" }, blocks: true },
  { plan: { kind: "bad-after-stop" }, blocks: true },
  { plan: { kind: "slow-read", delayUs: 50_000 }, blocks: true },
  { plan: { kind: "write-crc" }, blocks: true },
  { plan: { kind: "program" }, blocks: true },
  { plan: { kind: "cc-error" }, blocks: true },
  { plan: { kind: "phantom-write" }, blocks: true },
  { plan: { kind: "misdirected-write", toLba: 8 }, blocks: true },
  { plan: { kind: "stuck-busy", until: "hpi" }, blocks: true },
  { plan: { kind: "stuck-busy", until: "power-cycle" }, blocks: true },
  { plan: { kind: "long-busy", delayUs: 30_000 }, blocks: true },
  { plan: { kind: "late-busy", delayUs: 5 }, blocks: true },
  { plan: { kind: "deselect-busy" }, blocks: true },
];
/** The medium itself is spoilt, or bytes come that are not those that are stored: what is there may be another. */
const SPOILS = new Set<FaultKind>(["latent-read", "bit-rot", "bad-after-stop", "read-ecc"]);

type Setting = "powerOn" | "panic, supply off" | "panic, never opened";
const SETTINGS: Setting[] = ["powerOn", "panic, supply off", "panic, never opened"];

const only = process.env.MMCPSTORE_NOISE_ONLY;
const triples = Number(process.env.MMCPSTORE_NOISE_TRIPLES ?? 2000);
const seed = Number(process.env.MMCPSTORE_NOISE_SEED ?? 1);

let cases = 0;
let places = 0;
let striking = 0;

/** The device's machine before `setting`, as a state to come back to. */
function stateBefore(device: Device, setting: Setting): Uint8Array {
  device.powerCut("old", "lost");
  if (setting === "panic, supply off") {
    device.powerOn();
    device.core.mmioWrite8(0x29, 0);
  }
  return device.saveState();
}

function panicOf(device: Device): number {
  new Uint8Array(device.memory.buffer, TEXT_BASE).set(NEW_LOG);
  return device.core.panicWrite(1, 7, 0, 0, NEW_LOG.length, 0);
}

function codeOf(action: () => void): string {
  try {
    action();
    return "ok";
  } catch (error) {
    return (error as MmcError).code ?? String(error);
  }
}

function setUp(device: Device, setting: Setting): string | number {
  return setting === "powerOn" ? codeOf(() => device.powerOn()) : panicOf(device);
}

function seenBy(device: Device, index: number): number {
  return new DataView(device.memory.buffer).getUint32(FAULTS_BASE + index * FAULT_BYTES + FAULT_SEEN, true);
}

/** How often commands and blocks pass in `setting` while nothing strikes: the places of a fault. */
function countPlaces(
  device: Device,
  state: Uint8Array,
  setting: Setting,
): { commands: number; blocks: number } {
  device.loadState(state);
  device.injectFault({ kind: "no-response", skip: 1_000_000, times: 1 }, 0);
  device.injectFault({ kind: "read-crc", skip: 1_000_000, times: 1 }, 1);
  device.injectFault({ kind: "write-crc", skip: 1_000_000, times: 1 }, 2);
  const outcome = setUp(device, setting);
  assert.ok(outcome === "ok" || outcome === 0, `${setting}: ${outcome}`);
  const count = { commands: seenBy(device, 0), blocks: seenBy(device, 1) + seenBy(device, 2) };
  device.clearFaults();
  return count;
}

/**
 * Records: the old one is whole, the new one there if it was said so, nothing else is served. A card that `lies` may
 * have put what was to invalidate a header elsewhere: a record without its seal, which is served on trust, proves nothing.
 */
function judgeRecords(
  machine: Machine,
  committed: boolean,
  spoilt: boolean,
  what: string,
  lies = false,
): void {
  const texts = machine
    .records()
    .filter((record) => record.state === "ok" && (record.sealed || !lies))
    .map(textOf);
  if (!spoilt)
    assert.ok(
      texts.some((text) => sameBytes(text, OLD_LOG)),
      `${what}: the old record`,
    );
  const fresh = texts.filter((text) => sameBytes(text, NEW_LOG)).length;
  if (committed) assert.ok(fresh > 0, `${what}: said 0, and there is no record`);
  for (const text of texts) {
    assert.ok(sameBytes(text, OLD_LOG) || sameBytes(text, NEW_LOG), `${what}: a record that nobody wrote`);
  }
}

/** write(), flush(), cut; then from the same state a panic and a cut. */
function useAndCut(machine: Machine, spoilt: boolean, what: string): void {
  const { device } = machine;
  const state = device.saveState();
  assert.is(
    codeOf(() => device.write(IN_FLIGHT_OFFSET, DATA)),
    "ok",
    `${what}: write`,
  );
  assert.is(
    codeOf(() => device.flush()),
    "ok",
    `${what}: flush`,
  );
  device.powerCut("old", "lost");
  const stored = device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + DATA.length);
  assert.ok(sameBytes(stored, DATA), `${what}: flush() said ok, and the data are gone`);
  device.loadState(state);
  assert.is(panicOf(device), 0, `${what}: the panic behind it`);
  device.powerCut("old", "lost");
  judgeRecords(machine, true, spoilt, what);
}

/** What one fault may make of an identification: nothing, but where the card itself is gone or is another. */
function allowed(kind: FaultKind, setting: Setting): (string | number)[] {
  const isBoot = setting === "powerOn";
  if (kind === "pulled") return isBoot ? ["ENOMEDIUM"] : [-ERRNO.ENOMEDIUM];
  // Identified a second time it is another one than it was the first time.
  if (kind === "swapped") return isBoot ? ["ok", "ENODEV"] : [0, -ERRNO.ENODEV];
  return isBoot ? ["ok"] : [0];
}

for (const [name, options] of CARDS) {
  for (const setting of SETTINGS) {
    test(`${name}, ${setting}: every kind of fault at every place`, () => {
      if (only !== undefined && !`${name}, ${setting}`.includes(only)) return;
      const machine = openMachine({ ...options, timing: SHORT, compress: false }, [OLD_LOG]);
      const { device } = machine;
      const state = stateBefore(device, setting);
      const { commands, blocks } = countPlaces(device, state, setting);
      assert.ok(commands > 10 && blocks > 1, `${commands} commands, ${blocks} blocks`);
      for (const { plan, blocks: isOfBlocks } of PLANS) {
        const count = isOfBlocks ? blocks : commands;
        places += count;
        for (let skip = 0; skip < count; skip++) {
          device.loadState(state);
          device.injectFault({ ...plan, skip, times: 1 });
          const what = `${name}, ${setting}: ${JSON.stringify({ ...plan, skip })}`;
          const outcome = setUp(device, setting);
          const struck = seenBy(device, 0) > skip;
          device.clearFaults();
          const rightly = struck ? allowed(plan.kind, setting) : allowed("no-response", setting);
          assert.ok(rightly.includes(outcome), `${what}: ${outcome}`);
          cases++;
          if (struck) striking++;
          const works = outcome === "ok" || outcome === 0;
          const spoilt = SPOILS.has(plan.kind);
          if (setting === "powerOn") {
            if (works) useAndCut(machine, spoilt, what);
          } else {
            device.powerCut("old", "lost");
            judgeRecords(machine, works, spoilt, what);
          }
        }
      }
    });
  }
}

/** Numbers by a seed: xorshift. */
function numbers(first: number): (below: number) => number {
  let state = (first * 2654435761) >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

/** Kinds after which a write that was acknowledged need not be there: the card says done and is not. */
const LIES = new Set<FaultKind>(["phantom-write", "misdirected-write", "bit-rot", "bad-after-stop"]);

test("three faults at a time, of all kinds, at chosen places: nothing is said that is not so", () => {
  if (only !== undefined && only !== "triples") return;
  const machines = CARDS.map(([name, options]) => {
    const machine = openMachine({ ...options, timing: SHORT, compress: false }, [OLD_LOG]);
    return { name, machine, states: SETTINGS.map((setting) => stateBefore(machine.device, setting)) };
  });
  let successes = 0;
  for (let i = 0; i < triples; i++) {
    const next = numbers(seed * 1_000_003 + i);
    const { name, machine, states } = machines[next(machines.length)] as (typeof machines)[number];
    const turn = next(SETTINGS.length);
    const setting = SETTINGS[turn] as Setting;
    const { device } = machine;
    device.loadState(states[turn] as Uint8Array);
    const plans = [0, 1, 2].map((): FaultPlan => {
      const { plan, blocks } = PLANS[next(PLANS.length)] as (typeof PLANS)[number];
      return { ...plan, skip: next(blocks ? 24 : 60), times: 1 + next(2) };
    });
    for (const [at, plan] of plans.entries()) device.injectFault(plan, at);
    const what = `seed ${seed}, ${i}: ${name}, ${setting}: ${JSON.stringify(plans)}`;
    const kinds = new Set(plans.map(({ kind }) => kind));
    const spoilt = [...SPOILS, ...LIES].some((kind) => kinds.has(kind)) || kinds.has("swapped");
    const outcome = setUp(device, setting);
    let flushed = false;
    if (setting === "powerOn") {
      flushed =
        codeOf(() => device.write(IN_FLIGHT_OFFSET, DATA)) === "ok" && codeOf(() => device.flush()) === "ok";
      const state = device.saveState();
      device.powerCut("old", "lost");
      const stored = device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + DATA.length);
      const lies = [...LIES].some((kind) => kinds.has(kind));
      if (flushed && !lies)
        assert.ok(sameBytes(stored, DATA), `${what}: flush() said ok, and the data are gone`);
      device.loadState(state);
    }
    const status = setting === "powerOn" ? panicOf(device) : (outcome as number);
    if (status === 0) successes++;
    device.powerCut("old", "lost");
    judgeRecords(
      machine,
      status === 0,
      spoilt,
      `${what}: ${status}`,
      [...LIES].some((kind) => kinds.has(kind)),
    );
    // The plan is over: whatever it was, the next boot works.
    clearFaults(device.memory.buffer);
    device.insertCard(true);
    assert.is(
      codeOf(() => device.powerOn()),
      "ok",
      `${what}: the next boot`,
    );
    assert.is(panicOf(device), 0, `${what}: the panic of the next boot`);
  }
  note(`${triples} triples from seed ${seed}, ${successes} records in spite of them`);
});

test.after(() =>
  note(`${cases} of ${places} places of a fault in an identification and behind it, ${striking} struck`),
);
test.run();
