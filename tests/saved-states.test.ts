// Saved states: one format for a device and for a peripheral. What was saved goes on as it was; a state of anything else
// (card, size, area, options, target, build), cut off, damaged or written in the other byte order, is refused in one
// line and changes nothing. What a user sees is compared: registers, medium, records, and what the next calls do.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { OverlayMedium } from "../host/embed/overlay.js";
import { SdhciPeripheral } from "../host/embed/peripheral.js";
import type { MmcError } from "../host/errors.js";
import { coreModule, pattern, sameBytes } from "./machine.js";

const SIZE_BYTES = 512 * 1024;
const AREA = { offset: 256 * 1024, kmsgSize: 16384, kmsgCount: 4, abi: "lp64", pmsgSize: 4096 } as const;
const DUMP = {
  class: 64,
  machine: 183,
  area: { offset: 384 * 1024, sizeBytes: 64 * 1024 },
  memoryBytes: 4096,
} as const;
const BASE: DeviceOptions = { card: "emmc", sizeBytes: SIZE_BYTES, area: AREA, dump: DUMP, cacheSectors: 8 };

/** Each is another device than BASE, in one thing. */
const OTHERS: Record<string, DeviceOptions> = {
  card: { ...BASE, card: "sd", cacheSectors: 0 },
  sdsc: { ...BASE, card: "sdsc", cacheSectors: 0 },
  size: { ...BASE, sizeBytes: 2 * SIZE_BYTES },
  "area's offset": { ...BASE, area: { ...AREA, offset: 128 * 1024 } },
  "area's zones": { ...BASE, area: { ...AREA, kmsgCount: 3 } },
  "zones' size": { ...BASE, area: { ...AREA, kmsgSize: 8192 } },
  ABI: { ...BASE, area: { ...AREA, abi: "i386" } },
  rings: { ...BASE, area: { ...AREA, pmsgSize: 8192 } },
  cache: { ...BASE, cacheSectors: 9 },
  lines: { ...BASE, busWidth: 4 },
  controller: { ...BASE, controller: "adma2" },
  times: { ...BASE, timing: { readNs: 1 } },
  policy: { ...BASE, policy: "ring" },
  parts: { ...BASE, parts: 2 },
  serial: { ...BASE, serial: 2 },
  addressing: { ...BASE, addressing: "sector" },
  damage: { ...BASE, damage: { seed: 9 } },
  deadline: { ...BASE, deadlineUs: 5_000_000 },
  "dump's area": { ...BASE, dump: { ...DUMP, area: { offset: 448 * 1024, sizeBytes: 64 * 1024 } } },
  "dump's machine": { ...BASE, dump: { ...DUMP, machine: 62 } },
  "dump's capacity": { ...BASE, dump: { ...DUMP, capacity: 10 } },
  "no dump": { card: "emmc", sizeBytes: SIZE_BYTES, area: AREA, cacheSectors: 8 },
};

function open(options: DeviceOptions = BASE, target = "release"): Device {
  return Device.open(coreModule(target), options);
}

function busy(device: Device): Device {
  device.write(1000, pattern(3, 5000));
  device.writePmsg(pattern(4, 500));
  device.panicWrite({ text: "one record", timeSec: 3n });
  device.leaveInFlight("write", 8192);
  return device;
}

/** What its user sees, and what it does next. */
function seen(device: Device) {
  const state = device.saveState();
  const { zone, sequence, rung, status, startNs, endNs } = device.panicWrite({ text: "next", timeSec: 4n });
  const shown = { zone, sequence, rung, status, startNs, endNs, ...device.state() };
  const registers = device.registers();
  const bytes = device.read(0, 20_000);
  const medium = device.externalMedium === null ? device.medium().slice() : null;
  device.loadState(state);
  return { shown, registers, bytes, medium };
}

let refused = 0;

function refuses(device: Device, state: Uint8Array, what: string): void {
  const before = device.saveState();
  assert.throws(
    () => device.loadState(state),
    (error: MmcError) =>
      error.code === "EINVAL" && /^loadState: /.test(error.message) && !error.message.includes("\n"),
    what,
  );
  assert.ok(sameBytes(device.saveState(), before), what);
  refused++;
}

test("a state goes on as it was, in the same device and in another one with the same options", () => {
  for (const options of [BASE, ...Object.values(OTHERS)]) {
    const device = busy(open(options));
    const state = device.saveState();
    const before = seen(device);
    device.panicWrite({ text: "something else", parts: 3 });
    device.powerCut();
    device.loadState(state);
    assert.equal(seen(device), before);
    const other = open({ ...options, trace: true });
    other.loadState(state);
    assert.equal(seen(other), before);
  }
});

test("a state of another kind of device is refused, both ways, and changes nothing", () => {
  const device = busy(open());
  const state = device.saveState();
  for (const [what, options] of Object.entries(OTHERS)) {
    const other = open(options);
    refuses(other, state, what);
    refuses(device, other.saveState(), what);
  }
  assert.throws(
    () => open(OTHERS.card).loadState(state),
    /it is of a device with other options: CONFIG_CARD_KIND differs/,
  );
});

test("a state of another target or build is refused", () => {
  const state = open().saveState();
  for (const target of ["debug", "explore", "embed"]) {
    const imports = { mark: { hit: () => undefined } };
    const other = Device.open(coreModule(target), BASE, imports);
    refuses(other, state, target);
    refuses(open(), other.saveState(), target);
  }
  // The same sources, a byte of a custom section apart: another build.
  const sections = WebAssembly.Module.customSections(coreModule("release"), "mmcpstore.build");
  assert.is(sections.length, 1);
  assert.is(new TextDecoder().decode((sections[0] as ArrayBuffer).slice(32)), "release");
  const rebuilt = state.slice();
  rebuilt[52] = (rebuilt[52] as number) ^ 1;
  refuses(open(), reseal(rebuilt), "another build");
});

/** The checksum as it would be right, by the definition of CRC-32C and not by ours. */
function reseal(state: Uint8Array): Uint8Array {
  let crc = 0xffffffff;
  for (const byte of state.subarray(16)) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  new DataView(state.buffer).setUint32(12, ~crc >>> 0, true);
  return state;
}

test("cut off anywhere, any bit turned over, bytes added, the other byte order, other files: refused", () => {
  const device = busy(open());
  const state = device.saveState();
  assert.ok(sameBytes(reseal(state.slice()), state), "the checksum is CRC-32C");
  const target = busy(open());
  fc.assert(
    fc.property(fc.nat(state.length - 1), (length) =>
      refuses(target, state.slice(0, length), `${length} bytes`),
    ),
    { numRuns: 20 },
  );
  // All of the head, and of the rest a sample.
  const bits = [...Array.from({ length: 84 }, (_, i) => i), ...fc.sample(fc.nat(state.length - 1), 20)];
  for (const at of bits) {
    const damaged = state.slice();
    damaged[at] = (damaged[at] as number) ^ (1 << (at % 8));
    refuses(target, damaged, `byte ${at}`);
  }
  refuses(target, Uint8Array.from([...state, 0]), "one more");
  const swapped = state.slice();
  for (let i = 0; i + 4 <= swapped.length; i += 4) swapped.subarray(i, i + 4).reverse();
  refuses(target, swapped, "words in the other order");
  const numbers = state.slice();
  numbers.subarray(8, 12).reverse();
  refuses(target, numbers, "a version in the other order");
  refuses(target, new Uint8Array(device.memory.buffer).slice(), "the bare memory");
  for (const length of [0, 1, 16, 83, 84, 100_000])
    refuses(target, new Uint8Array(length), `${length} zeros`);
  for (const what of [null, undefined, "state", 7, {}, [], new ArrayBuffer(100)]) {
    refuses(target, what as Uint8Array, String(what));
  }
  target.loadState(state);
});

test("a head that lies, with a right checksum, is refused or harmless", () => {
  const state = busy(open()).saveState();
  const target = open();
  const values = [-3, -2, -1, 0, 1, 0.5, 1e9, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY];
  for (const at of [16, 24, 32]) {
    for (const value of values) {
      const forged = state.slice();
      new DataView(forged.buffer).setFloat64(at, value, true);
      if (sameBytes(forged, state)) continue;
      refuses(target, reseal(forged), `${value} at ${at}`);
    }
  }
});

// ---- the same for a peripheral ----

const BUS = { irq: () => undefined, dmaRead: () => new Uint8Array(0), dmaWrite: () => undefined };

test("a peripheral's states are a device's: each takes the other's", () => {
  const host = new SdhciPeripheral(open(BASE, "embed"), BUS);
  host.tick(5n);
  const state = host.saveState();
  const device = open(BASE, "embed");
  device.loadState(state);
  const other = new SdhciPeripheral(open(BASE, "embed"), BUS);
  other.loadState(state);
  assert.ok(sameBytes(other.saveState(), state));
  other.loadState(device.saveState());
  assert.is(other.dueNs(), null, "no guest's clock in it");
});

test("a panic with other parts leaves the options as they are, and its states can be loaded", () => {
  const device = open();
  device.panicWrite({ text: "x".repeat(70_000), parts: 4 });
  const other = open();
  other.loadState(device.saveState());
  assert.is(other.state().nextZone, device.state().nextZone);
});

// ---- media elsewhere ----

function elsewhere(kind: "plain" | "overlay") {
  const bytes = new Uint8Array(SIZE_BYTES);
  const plain = {
    sizeBytes: SIZE_BYTES,
    read: (offset: number, target: Uint8Array) => target.set(bytes.subarray(offset, offset + target.length)),
    write: (offset: number, data: Uint8Array) => bytes.set(data, offset),
  };
  const medium = kind === "overlay" ? new OverlayMedium(plain) : plain;
  return Device.openExternal(coreModule("external"), medium, {
    card: "emmc",
    area: AREA,
    dump: { ...DUMP, memoryBytes: 0 },
  });
}

test("a medium that can be saved is, one that cannot stays, and one is not taken for the other", () => {
  const device = elsewhere("overlay");
  device.write(0, pattern(1, 512));
  device.flush();
  const state = device.saveState();
  device.write(0, pattern(2, 512));
  device.flush();
  device.loadState(state);
  assert.ok(sameBytes(device.read(0, 512), pattern(1, 512)));
  const plain = elsewhere("plain");
  plain.write(0, pattern(1, 512));
  plain.flush();
  const without = plain.saveState();
  plain.write(0, pattern(2, 512));
  plain.flush();
  plain.loadState(without);
  assert.ok(sameBytes(plain.read(0, 512), pattern(2, 512)));
  refuses(device, without, "without a medium");
  refuses(plain, state, "with a medium");
});

// ---- regions of a crash dump ----

const region = (name: string, fill: number, address = 0x1000n) => ({
  name,
  address,
  size: 5000,
  source: (_offset: number, target: Uint8Array) => {
    target.fill(fill);
  },
});

test("a region that is gone when its state is loaded is missing in the dump, which is never complete", () => {
  const device = elsewhere("plain");
  const id = device.registerRegion(region("r", 7));
  const state = device.saveState();
  const whole = device.panicWrite({ text: "x" }).dump;
  assert.equal([whole?.state, whole?.status, whole?.failedBytes], ["complete", 0, 0]);
  const missing = (one: Device) => {
    const dump = one.panicWrite({ text: "x" }).dump;
    assert.equal([dump?.state, dump?.status, dump?.failedBytes], ["partial", -2, 5000]);
  };
  device.unregisterRegion(id);
  device.loadState(state);
  missing(device);
  // Another region of this process has taken its slot meanwhile: its bytes are not those.
  device.unregisterRegion(id);
  device.registerRegion(region("r", 9));
  device.loadState(state);
  missing(device);
  // A process that has registered nothing, and one that has registered the same.
  const fresh = elsewhere("plain");
  fresh.loadState(state);
  missing(fresh);
  const same = elsewhere("plain");
  same.registerRegion(region("r", 7));
  same.loadState(state);
  assert.is(same.panicWrite({ text: "x" }).dump?.state, "complete");
  const moved = elsewhere("plain");
  moved.registerRegion(region("r", 7, 0x2000n));
  moved.loadState(state);
  missing(moved);
});

test("a region registered since is gone with the state from before it", () => {
  const device = elsewhere("plain");
  const state = device.saveState();
  const id = device.registerRegion(region("r", 7));
  device.loadState(state);
  assert.is(device.panicWrite({ text: "x" }).dump?.state, "none");
  assert.throws(
    () => device.unregisterRegion(id),
    (error: MmcError) => error.code === "ENOENT",
  );
  device.registerRegion(region("s", 8));
  assert.is(device.panicWrite({ text: "x" }).dump?.state, "complete");
});

test.after(() => console.log(`# ${refused} states refused`));
test.run();
