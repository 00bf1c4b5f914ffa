// The `driver` target: the same driver and panic path, whose port is five calls of the host. Here they lead to the
// controller of a second machine, which knows nothing of the first but its register accesses.
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  CLOCK_NOW,
  CONFIG_CAPABILITIES,
  CONFIG_HOST_VERSION,
  EXT_CSD_BASE,
  MEDIUM_BASE,
  TEXT_BASE,
} from "../assembly/layout.js";
import { writeFault } from "../host/core/faults.js";
import { type CoreExports, instantiate, makeMemory } from "../host/core/instantiate.js";
import {
  type CardKind,
  type MachineConfig,
  TYPICAL_EMMC,
  TYPICAL_SD,
  writeConfig,
} from "../host/core/profile.js";
import { readResult } from "../host/core/result.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule, PANIC_LOG, sameBytes, textOf } from "./machine.js";

const SECTORS = 2048;

function configOf(card: CardKind): MachineConfig {
  return {
    card,
    sectors: SECTORS,
    bootSectors: 0,
    cacheSectors: 0,
    reliableWrite: card === "emmc",
    cmd23: true,
    hpi: card === "emmc",
    serial: 1,
    timing: card === "sd" ? TYPICAL_SD : TYPICAL_EMMC,
    abortOutcome: "old",
    cacheKeptAtReset: false,
    // The controller's DMA would reach into its own memory, not into the driver's.
    dma: false,
    busWidth: 4,
    highSpeed: true,
    areaFirstLba: 0,
    zoneSectors: 128,
    zoneCount: 16,
    abi: "lp64",
    policy: "first-wins",
    deadlineUs: 10_000_000,
    trace: false,
  };
}

interface Pair {
  driver: CoreExports;
  driverMemory: WebAssembly.Memory;
  device: CoreExports;
  deviceMemory: WebAssembly.Memory;
  accesses(): number;
  /** Another driver in front of the same controller: an operating system's. */
  another(): CoreExports;
  /** From now on the driver's clock says this. */
  clock(says: (ns: bigint, look: number) => bigint): void;
}

/** SDHCI_CAPABILITIES and SDHCI_HOST_VERSION of a controller that is none of host/core/controllers.ts. */
interface Foreign {
  capabilities: number;
  version: number;
}

function pairOf(card: CardKind, foreign?: Foreign, changes: Partial<MachineConfig> = {}): Pair {
  const config = { ...configOf(card), ...changes };
  const deviceMemory = makeMemory((SECTORS + 2 * config.bootSectors) * 512);
  writeConfig(deviceMemory, config);
  if (foreign !== undefined) {
    const words = new DataView(deviceMemory.buffer);
    words.setUint32(CONFIG_CAPABILITIES, foreign.capabilities, true);
    words.setUint32(CONFIG_HOST_VERSION, foreign.version, true);
  }
  const device = { ...instantiate(coreModule("release"), deviceMemory) };
  device.machineInit();
  const clock = new DataView(deviceMemory.buffer);
  let accesses = 0;
  let says = (ns: bigint, _look: number) => ns;
  let looks = 0;
  let low = 0;
  const makeDriver = (memory: WebAssembly.Memory) => {
    const made = instantiate(coreModule("driver"), memory, {
      port: {
        read(offset, bytes) {
          accesses++;
          if (bytes === 1) return device.mmioRead8(offset);
          return bytes === 2 ? device.mmioRead16(offset) : device.mmioRead32(offset);
        },
        write(offset, bytes, value) {
          accesses++;
          if (bytes === 1) device.mmioWrite8(offset, value);
          else if (bytes === 2) device.mmioWrite16(offset, value);
          else device.mmioWrite32(offset, value);
        },
        delay: (lengthNs) => device.idleNs(lengthNs),
        // The upper half is asked for first.
        nowLow: () => low,
        nowHigh: () => {
          const ns = BigInt.asUintN(64, says(clock.getBigUint64(CLOCK_NOW, true), looks++));
          low = Number(ns & 0xffffffffn) | 0;
          return Number(ns >> 32n) | 0;
        },
      },
    });
    writeConfig(memory, config);
    made.machineInit();
    return made;
  };
  const driverMemory = makeMemory(0);
  const driver = makeDriver(driverMemory);
  new Uint8Array(driverMemory.buffer).set(PANIC_LOG, TEXT_BASE);
  return {
    driver,
    driverMemory,
    device,
    deviceMemory,
    accesses: () => accesses,
    another: () => makeDriver(makeMemory(0)),
    clock(next) {
      says = next;
      looks = 0;
    },
  };
}

function recordsOf(pair: Pair) {
  return decodeArea(new Uint8Array(pair.deviceMemory.buffer, MEDIUM_BASE, SECTORS * 512).slice()).records;
}

for (const card of ["emmc", "sd"] as const) {
  test(`${card}: opened, written, panicked through five calls`, () => {
    const pair = pairOf(card);
    assert.is(pair.driver.openCard(), 0);
    assert.is(pair.driver.recoverArea(), 0);
    assert.is(pair.driver.leaveInFlight(2, 1000, 8), 0);
    assert.is(pair.driver.panicWrite(1, 7, 0, 9, PANIC_LOG.length, 0), 0);
    assert.ok(pair.accesses() > 10_000);
    const [record] = recordsOf(pair);
    assert.ok(record?.state === "ok" && record.sealed && sameBytes(textOf(record), PANIC_LOG));
    assert.is(readResult(pair.driverMemory).cardState, "rcv");
    // The card is on the other side alone.
    assert.is(new Uint32Array(pair.driverMemory.buffer)[CLOCK_NOW >> 2], 0);
  });

  test(`${card}: a panic before anybody has ever looked at the card`, () => {
    const pair = pairOf(card);
    assert.is(pair.driver.panicWrite(1, 7, 0, 9, PANIC_LOG.length, 0), 0);
    const [record] = recordsOf(pair);
    assert.ok(record?.state === "ok" && sameBytes(textOf(record), PANIC_LOG));
    assert.is(readResult(pair.driverMemory).rung, 5);
  });
}

test("a CMD55 before it: the first CMD13 is an ACMD13, whose status the card sends as data", () => {
  const pair = pairOf("sd");
  assert.is(pair.driver.openCard(), 0);
  // SDHCI_ARGUMENT of the last command, CMD13: the card's address.
  const address = pair.device.mmioRead32(8) & 0xffff0000;
  assert.is(pair.driver.recoverArea(), 0);
  assert.is(pair.driver.blockCommand(55, address, 0x1a), 0);
  assert.is(pair.driver.panicWrite(1, 7, 0, 9, PANIC_LOG.length, 0), 0);
  assert.is(readResult(pair.driverMemory).attempts, 1);
});

// Base clock in MHz, version, and the fastest clocks in kHz that its dividers make within 400 kHz and 50 MHz.
for (const [mhz, version, slowKhz, fastKhz] of [
  [200, 2, 400, 50_000],
  [255, 2, 399, 42_500],
  [52, 2, 400, 26_000],
  [50, 2, 396, 50_000],
  [1, 2, 250, 1000],
  [52, 1, 203, 26_000],
  [63, 0, 246, 31_500],
  // It does not say: as if it were the fastest of all.
  [0, 2, 399, 42_500],
] as const) {
  test(`a base clock of ${mhz} MHz, specification ${version + 1}.00: the card's clock is never too fast`, () => {
    const capabilities = (0x012000b2 | (mhz << 8)) >>> 0;
    const pair = pairOf("sd", { capabilities, version });
    const clocks: number[] = [];
    const write = pair.device.mmioWrite16;
    pair.device.mmioWrite16 = (offset, value) => {
      if (offset === 0x2c && (value & 4) !== 0) {
        const divider = (value >> 8) | (version >= 2 ? (value & 0xc0) << 2 : 0);
        // Of versions 1 and 2 a divider is one bit, or none.
        assert.ok(version >= 2 || (divider & (divider - 1)) === 0, `divider ${divider}`);
        clocks.push(Math.floor(((mhz || 255) * 1000) / (divider === 0 ? 1 : 2 * divider)));
      }
      write(offset, value);
    };
    assert.is(pair.driver.openCard(), mhz === 0 ? -110 : 0);
    assert.is(clocks[0], slowKhz);
    if (mhz !== 0) assert.is(clocks.at(-1), fastKhz);
  });
}

test("a controller that reads as all ones: an errno, in time", () => {
  let nowNs = 0;
  const memory = makeMemory(0);
  const driver = instantiate(coreModule("driver"), memory, {
    port: {
      read: () => 0xffffffff,
      write: () => undefined,
      delay: (lengthNs) => {
        nowNs += lengthNs >>> 0;
      },
      nowLow: () => {
        nowNs += 100;
        return (nowNs % 2 ** 32) | 0;
      },
      nowHigh: () => Math.floor(nowNs / 2 ** 32),
    },
  });
  writeConfig(memory, configOf("emmc"));
  driver.machineInit();
  assert.ok(driver.panicWrite(1, 7, 0, 9, 100, 0) < 0);
  assert.ok(nowNs <= 10e9, `${nowNs} ns`);
});

const ALL_ONES = 0xffffffffffffffffn;
const YEAR_NS = 31_536_000_000_000_000n;
/** What a clock says at its `look`-th reading since the panic began, when it is `ns`. */
const CLOCKS: Record<string, (ns: bigint, look: number) => bigint> = {
  "is right": (ns) => ns,
  "goes back by 5 s in the middle": (ns, look) => (look > 400 ? ns - 5_000_000_000n : ns),
  "falls below 0 in the middle": (ns, look) => (look > 400 ? ns - 60_000_000_000n : ns),
  "goes ahead by 5 s in the middle": (ns, look) => (look > 400 ? ns + 5_000_000_000n : ns),
  "goes ahead by a year in the middle": (ns, look) => (look > 400 ? ns + YEAR_NS : ns),
  "goes ahead by a year at once": (ns, look) => (look > 2 ? ns + YEAR_NS : ns),
  "wraps at 2^64": (ns) => ns + ALL_ONES - 60_000_000n,
  "is so near to 2^64 that now + deadline wraps": (ns) => ns + ALL_ONES - 3_000_000_000n,
  "starts at 2^63": (ns) => ns + (1n << 63n),
  "is all ones": () => ALL_ONES,
  "is 0": () => 0n,
  "stands still": () => 12_345n,
  "says anything": (_, look) => BigInt(Math.imul(look, 2654435761) >>> 0) * 1_000_003n,
  "alternates by a second": (ns, look) => ns + (look % 2 === 0 ? 0n : 1_000_000_000n),
  "runs 1000 times too slow": (ns) => ns / 1000n,
  "runs 1000 times too fast": (ns) => ns * 1000n,
  "runs backwards": (ns) => (1n << 62n) - ns,
};

for (const card of ["emmc", "sd"] as const) {
  test(`${card}: whatever the clock says, the record is written, and a dead card is given up`, () => {
    for (const [name, clock] of Object.entries(CLOCKS)) {
      for (const isDead of [false, true]) {
        const pair = pairOf(card);
        assert.is(pair.driver.openCard(), 0);
        assert.is(pair.driver.recoverArea(), 0);
        pair.clock(clock);
        // Nothing answers any more, for ever.
        if (isDead) writeFault(pair.deviceMemory, 0, { kind: "no-response" });
        const before = pair.accesses();
        const status = pair.driver.panicWrite(1, 7, 0, 9, PANIC_LOG.length, 0);
        const what = `${card}, a clock that ${name}${isDead ? ", a dead card" : ""}: ${status}`;
        assert.ok(pair.accesses() - before < 3_000_000, `${what}: ${pair.accesses() - before} accesses`);
        if (isDead) {
          assert.ok(status < 0, what);
          continue;
        }
        assert.is(status, 0, what);
        const [record] = recordsOf(pair);
        assert.ok(record?.state === "ok" && sameBytes(textOf(record), PANIC_LOG), what);
      }
    }
  });
}

test("a clock that stands still: the call ends all the same", () => {
  // An empty slot, a card that never answers, a controller that never comes free, a card that is busy for ever.
  for (const state of [0, 0x01ff0000, 0x01ff0003, 0x01ef0000]) {
    const memory = makeMemory(0);
    let calls = 0;
    const driver = instantiate(coreModule("driver"), memory, {
      port: {
        read: (offset) => {
          calls++;
          return offset === 0x24 ? state : 0;
        },
        write: () => undefined,
        delay: () => undefined,
        nowLow: () => 5,
        nowHigh: () => 0,
      },
    });
    writeConfig(memory, configOf("sd"));
    driver.machineInit();
    assert.ok(driver.panicWrite(1, 7, 0, 9, 100, 0) < 0);
    assert.ok(calls > 0 && calls < 10_000_000, `${calls} calls`);
  }
});

test("another driver has set boot configuration, partition, cache and lines since ours looked: the panic asks", () => {
  for (const left of [
    "as it was",
    "boot partition 1 selected",
    "the card back on one line",
    "the cache off",
  ]) {
    const pair = pairOf("emmc", undefined, { cacheSectors: 16, reliableWrite: false, bootSectors: 256 });
    assert.is(pair.driver.openCard(), 0);
    assert.is(pair.driver.recoverArea(), 0);
    const other = pair.another();
    assert.is(other.openCard(), 0);
    // BOOT_ACK, BOOT_PARTITION_ENABLE 1.
    const access = left === "boot partition 1 selected" ? 1 : 0;
    assert.is(other.blockCommand(6, (0x03b30001 | ((0x48 | access) << 8)) >>> 0, 0x1a), 0);
    pair.device.idleNs(10_000_000);
    if (left === "the card back on one line") assert.is(other.blockCommand(6, 0x03b70001, 0x1a), 0);
    if (left === "the cache off") assert.is(other.blockCommand(6, 0x03210001, 0x1a), 0);
    pair.device.idleNs(10_000_000);
    assert.is(pair.driver.panicWrite(1, 7, 0, 9, PANIC_LOG.length, 0), 0, left);
    const extCsd = new Uint8Array(pair.deviceMemory.buffer, EXT_CSD_BASE, 512);
    assert.is(extCsd[179], 0x48, `${left}: PARTITION_CONFIG`);
    pair.device.machineCut(0, 0);
    const [record] = recordsOf(pair);
    assert.ok(record?.state === "ok" && sameBytes(textOf(record), PANIC_LOG), left);
  }
});

test.run();
