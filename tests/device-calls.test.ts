// What holds for every call of a Device: none from a callback that would disturb the one under way, none without power,
// each error of the medium with the call in which it happened, listeners that change nothing. All methods × all
// callbacks; a method that is not in the table below fails the first test.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { ExternalMedium } from "../host/core/external-medium.js";
import type { PanicResult } from "../host/core/result.js";
import { Device } from "../host/device.js";
import { DEVICE_CALLS, type DeviceCall } from "../host/device-calls.js";
import type { DeviceOptions } from "../host/device-options.js";
import { SdhciPeripheral } from "../host/embed/peripheral.js";
import { MmcError } from "../host/errors.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule, pattern, sameBytes, textOf } from "./machine.js";

const SIZE_BYTES = 1 << 20;
const AREA = {
  offset: 256 * 1024,
  kmsgSize: 16384,
  kmsgCount: 4,
  abi: "lp64",
  pmsgSize: 4096,
  consoleSize: 4096,
  ftraceSize: 4096,
} as const;
const DUMP_AREA = { offset: 512 * 1024, sizeBytes: 128 * 1024 };
const OPTIONS = {
  card: "emmc",
  sizeBytes: SIZE_BYTES,
  compress: false,
  trace: true,
  area: AREA,
  dump: { class: 64, machine: 183, area: DUMP_AREA },
} as const satisfies DeviceOptions;
const TEXT = new TextEncoder().encode(`${"first words ".repeat(900)}\n`);

/** One call of each method, with arguments that would do something. */
const CALLS: Record<DeviceCall, (device: Device) => unknown> = {
  read: (device) => device.read(0, 512),
  write: (device) => device.write(0, pattern(99, 512)),
  erase: (device) => device.erase(0, 512),
  flush: (device) => device.flush(),
  leaveInFlight: (device) => device.leaveInFlight("read"),
  leaveWriteInFlight: (device) => device.leaveWriteInFlight(0, pattern(99, 1024)),
  flushRings: (device) => device.flushRings(),
  registers: (device) => device.registers(),
  panicWrite: (device) => device.panicWrite({ text: "SECOND ".repeat(1500), parts: 3, force: true }),
  writePmsg: (device) => device.writePmsg(pattern(99, 3000)),
  writeConsole: (device) => device.writeConsole(pattern(99, 3000)),
  writeFtrace: (device) => device.writeFtrace([{ cpu: 0, ip: 1n, parentIp: 2n }]),
  powerOn: (device) => device.powerOn(),
  powerCut: (device) => device.powerCut(),
  insertCard: (device) => device.insertCard(false),
  idle: (device) => device.idle(1_000_000),
  injectFault: (device) => device.injectFault({ kind: "no-response" }, 3),
  clearFaults: (device) => device.clearFaults(),
  registerRegion: (device) =>
    device.registerRegion({
      name: "new",
      address: 0x9000n,
      source: device.dumpMemory.subarray(0, 1),
      size: 1,
    }),
  unregisterRegion: (device) => device.unregisterRegion(0x10000),
  connectDma: (device) => device.connectDma({ read: () => -1, write: () => -1 }),
  saveState: (device) => device.saveState(),
  loadState: (device) => device.loadState(new Uint8Array(100)),
  clearTrace: (device) => device.clearTrace(),
  drainTrace: (device) => device.drainTrace(),
  takeMediumFailure: (device) => device.takeMediumFailure(),
  takeTraceFailure: (device) => device.takeTraceFailure(),
  trace: (device) => device.trace(),
  state: (device) => device.state(),
  medium: (device) => device.externalMedium ?? device.medium(),
  sizeBytes: (device) => device.sizeBytes,
  memory: (device) => device.memory,
  core: (device) => device.core,
  externalMedium: (device) => device.externalMedium,
  dumpNotes: (device) => device.dumpNotes,
};

class Medium implements ExternalMedium {
  readonly sizeBytes = SIZE_BYTES;
  readonly bytes = new Uint8Array(SIZE_BYTES);
  onRead: (offset: number) => void = () => undefined;
  onWrite: (offset: number) => void = () => undefined;
  onSave: () => void = () => undefined;
  onLoad: () => void = () => undefined;
  read(offset: number, target: Uint8Array): void {
    this.onRead(offset);
    target.set(this.bytes.subarray(offset, offset + target.length));
  }
  write(offset: number, data: Uint8Array): void {
    this.onWrite(offset);
    this.bytes.set(data, offset);
  }
  saveState(): Uint8Array {
    this.onSave();
    return this.bytes.slice();
  }
  loadState(state: Uint8Array): void {
    this.onLoad();
    this.bytes.set(state);
  }
}

/** What is left behind a call with callbacks: everything that the device, its medium and its listener have. */
interface Left {
  memory: Uint8Array;
  medium: Uint8Array;
  status: number;
  failed: unknown;
}

/** Runs the call that calls back; `inside` is called in each of its callbacks. How often, and what was left. */
type Scene = (inside: (device: Device) => void) => { callbacks: number; left: Left };

function counted(inside: (device: Device) => void) {
  const state = { armed: false, callbacks: 0, device: undefined as Device | undefined };
  const call = () => {
    if (!state.armed || state.device === undefined) return;
    state.callbacks++;
    inside(state.device);
  };
  return { state, call };
}

function leftOf(device: Device, medium: Uint8Array, status = 0): Left {
  const failed = device.takeMediumFailure() ?? device.takeTraceFailure();
  return { memory: new Uint8Array(device.memory.buffer).slice(), medium: medium.slice(), status, failed };
}

/** A panic, and before it reads, writes and a flush, on a medium elsewhere. */
function external(which: "onRead" | "onWrite" | "onTrace" | "source", request: "panic" | "normal"): Scene {
  return (inside) => {
    const { state, call } = counted(inside);
    const medium = new Medium();
    const device = Device.openExternal(coreModule("external"), medium, {
      ...OPTIONS,
      ...(which === "onTrace" ? { onTrace: call } : {}),
    });
    state.device = device;
    const source = (offset: number, target: Uint8Array) => {
      if (which === "source") call();
      target.fill(offset & 0xff);
    };
    device.registerRegion({ name: "r", address: 0x1000n, size: 6000, source });
    if (which === "onRead" || which === "onWrite") medium[which] = call;
    state.armed = true;
    let status = 0;
    if (request === "panic") ({ status } = device.panicWrite({ text: TEXT, timeSec: 7n }));
    else {
      device.write(3, pattern(1, 3000));
      device.read(0, 70_000);
      device.flush();
    }
    state.armed = false;
    return { callbacks: state.callbacks, left: leftOf(device, medium.bytes, status) };
  };
}

function saved(which: "onSave" | "onLoad"): Scene {
  return (inside) => {
    const { state, call } = counted(inside);
    const medium = new Medium();
    const device = Device.openExternal(coreModule("external"), medium, OPTIONS);
    state.device = device;
    medium[which] = call;
    state.armed = true;
    const bytes = device.saveState();
    device.write(0, pattern(5, 512));
    device.loadState(bytes);
    state.armed = false;
    return { callbacks: state.callbacks, left: leftOf(device, medium.bytes) };
  };
}

const inMemory: Scene = (inside) => {
  const { state, call } = counted(inside);
  const { dump: _, ...options } = OPTIONS;
  const device = Device.open(coreModule("release"), { ...options, dump: { ...OPTIONS.dump }, onTrace: call });
  state.device = device;
  state.armed = true;
  device.write(3, pattern(1, 3000));
  device.erase(512, 4000);
  const { status } = device.panicWrite({ text: TEXT, timeSec: 7n });
  state.armed = false;
  return { callbacks: state.callbacks, left: leftOf(device, device.medium(), status) };
};

/** A guest's ADMA2 write and read of one block, through the buffer that the bus gives. */
function guest(which: "dmaRead" | "dmaWrite" | "dmaWritten"): Scene {
  return (inside) => {
    const { state, call } = counted(inside);
    const ram = new Uint8Array(65536);
    const device = Device.open(coreModule("embed"), { ...OPTIONS, trace: false });
    const bus = {
      irq: () => undefined,
      dmaRead: (address: number, lengthBytes: number) => {
        if (which === "dmaRead") call();
        return ram.subarray(address, address + lengthBytes);
      },
      dmaWrite: (address: number, bytes: Uint8Array) => {
        if (which === "dmaWrite") call();
        ram.set(bytes, address);
      },
      dmaWritten: () => {
        if (which === "dmaWritten") call();
      },
    };
    const sdhci = new SdhciPeripheral(device, bus);
    state.device = device;
    sdhci.write32(0x34, 0x03ff0003);
    sdhci.write32(0x38, 0x03ff0003);
    sdhci.write8(0x29, 0x0f);
    for (const control of [0xfa01, 0xfa05]) sdhci.write16(0x2c, control);
    const command = (register: number, argument: number) => {
      sdhci.write32(0x08, argument);
      sdhci.write16(0x0e, register);
      sdhci.write32(0x30, sdhci.read32(0x30));
      return sdhci.read32(0x10);
    };
    command(0x0000, 0);
    while ((command(0x0102, 0x40ff8000) & 0x80000000) === 0);
    for (const register of [0x0209, 0x031a, 0x071b]) command(register, 1 << 16);
    new Uint32Array(ram.buffer).set([0x02000023, 0x200], 0x100 / 4);
    sdhci.write8(0x28, 0x10);
    sdhci.write32(0x58, 0x100);
    sdhci.write16(0x04, 512);
    state.armed = true;
    sdhci.write16(0x0c, 0x01);
    command(0x183a, 512);
    sdhci.write32(0x58, 0x100);
    sdhci.write16(0x0c, 0x11);
    command(0x113a, 0);
    state.armed = false;
    return { callbacks: state.callbacks, left: leftOf(device, device.medium()) };
  };
}

function marked(request: "panic" | "normal"): Scene {
  return (inside) => {
    const { state, call } = counted(inside);
    const device = Device.open(coreModule("explore"), OPTIONS, { mark: { hit: call } });
    state.device = device;
    state.armed = true;
    let status = 0;
    if (request === "panic") ({ status } = device.panicWrite({ text: TEXT, timeSec: 7n }));
    else device.write(3, pattern(1, 3000));
    state.armed = false;
    return { callbacks: state.callbacks, left: leftOf(device, device.medium(), status) };
  };
}

const SCENES: Record<string, Scene> = {
  "medium.read, normal": external("onRead", "normal"),
  "medium.read, panic": external("onRead", "panic"),
  "medium.write, normal": external("onWrite", "normal"),
  "medium.write, panic": external("onWrite", "panic"),
  "onTrace, normal": external("onTrace", "normal"),
  "onTrace, panic": external("onTrace", "panic"),
  "onTrace in memory": inMemory,
  "a region's source": external("source", "panic"),
  "medium.saveState": saved("onSave"),
  "medium.loadState": saved("onLoad"),
  "dma.read": guest("dmaRead"),
  "dma.write": guest("dmaWrite"),
  "dma.written": guest("dmaWritten"),
  "mark, normal": marked("normal"),
  "mark, panic": marked("panic"),
};

test("the table has every method and getter that the class has, and every one is judged", () => {
  const names = Object.getOwnPropertyNames(Device.prototype).filter((name) => name !== "constructor");
  assert.equal(names.sort(), Object.keys(DEVICE_CALLS).sort());
  assert.equal(Object.keys(CALLS).sort(), names.sort());
});

let nested = 0;

/** What a call said: a word for each outcome. */
function said(call: () => unknown): string {
  try {
    const value = call() as PanicResult | undefined;
    return (value as { status?: number } | undefined)?.status === -16 ? "refused" : "done";
  } catch (error) {
    if (!(error instanceof MmcError) || error.message.includes("\n")) throw error;
    return error.code;
  }
}

for (const [scene, run] of Object.entries(SCENES)) {
  test(`every call from ${scene}: EBUSY and nothing has changed, or a pure read`, () => {
    const alone = run(() => undefined);
    assert.ok(alone.callbacks > 0, "it calls back");
    assert.is(alone.left.status, 0);
    for (const [name, { does }] of Object.entries(DEVICE_CALLS) as [DeviceCall, { does: string }][]) {
      const isPanic = name === "panicWrite";
      // A panic in the middle of a normal request, between two accesses: the product's purpose, tried below.
      if (isPanic && scene === "mark, normal") continue;
      const heard = new Set<string>();
      // In some callbacks, always the first one: in all of them it would take the explore core minutes.
      const every = Math.max(1, Math.floor(alone.callbacks / 7));
      let at = 0;
      const with_ = run((device) => {
        if (at++ % every !== 0) return;
        nested++;
        heard.add(said(() => CALLS[name](device)));
      });
      const inPanic = scene.endsWith("panic") || scene === "a region's source";
      const wanted = does === "reads" ? ["done"] : isPanic && inPanic ? ["refused"] : ["EBUSY"];
      // In memory one of the calls that tell is the panic.
      if (isPanic && scene === "onTrace in memory") wanted.push("refused");
      assert.ok(
        [...heard].every((one) => wanted.includes(one)),
        `${name}: ${[...heard]}`,
      );
      assert.is(with_.callbacks, alone.callbacks, name);
      assert.is(with_.left.status, 0, name);
      assert.is(with_.left.failed, undefined, name);
      assert.ok(sameBytes(with_.left.medium, alone.left.medium), `${name}: the medium`);
      assert.ok(sameBytes(with_.left.memory, alone.left.memory), `${name}: the memory`);
    }
  });
}

test("a panic at the marks of a normal request takes the host, and its record stands", () => {
  const device = { count: 0 };
  for (let stop = 1; stop < 400; stop += 23) {
    let marks = 0;
    let result: PanicResult | null = null;
    const run = marked("normal");
    try {
      run((one) => {
        if (++marks !== stop) return;
        result = one.panicWrite({ text: "from within", timeSec: 9n });
        const area = one.medium().slice(AREA.offset, AREA.offset + AREA.kmsgSize * AREA.kmsgCount);
        const texts = decodeArea(area, { kmsgSize: AREA.kmsgSize, abi: "lp64" }).records.map(textOf);
        assert.ok(texts.some((text) => new TextDecoder().decode(text).startsWith("from within")));
      });
    } catch (error) {
      // The request was robbed, and says so.
      if (!(error instanceof MmcError)) throw error;
    }
    if (result === null) break;
    assert.is((result as PanicResult).status, 0);
    device.count++;
  }
  assert.ok(device.count > 5, `${device.count}`);
});

test("a second panic from any callback of the first, forced or not: refused, and the first text is on the medium", () => {
  let places = 0;
  for (const force of [false, true]) {
    for (const which of ["onRead", "onWrite"] as const) {
      for (let n = 0; ; n++) {
        const medium = new Medium();
        const device = Device.openExternal(coreModule("external"), medium, OPTIONS);
        let calls = 0;
        let second: PanicResult | null = null;
        medium[which] = () => {
          if (calls++ === n) second = device.panicWrite({ text: "SECOND ".repeat(900), force });
        };
        const first = device.panicWrite({ text: TEXT, timeSec: 7n });
        medium[which] = () => undefined;
        if (second === null) break;
        places++;
        assert.equal([first.status, (second as PanicResult).status], [0, -16]);
        const area = medium.bytes.slice(AREA.offset, AREA.offset + AREA.kmsgSize * AREA.kmsgCount);
        const { records } = decodeArea(area, { kmsgSize: AREA.kmsgSize, abi: "lp64" });
        assert.is(records.length, 1);
        assert.ok(sameBytes(textOf(records[0] as (typeof records)[0]), TEXT));
      }
    }
  }
  assert.ok(places > 20, `${places}`);
});

test("without power every call that needs some is ENODEV and changes nothing", () => {
  for (const more of [{}, { fixedSupply: true }, { card: "sd" as const }]) {
    const device = Device.open(coreModule("release"), { ...OPTIONS, ...more });
    device.write(0, pattern(1, 512));
    device.powerCut("old", "lost");
    for (const [name, { needs }] of Object.entries(DEVICE_CALLS) as [DeviceCall, { needs: string }][]) {
      if (needs === "nothing") continue;
      const before = device.saveState();
      assert.is(
        said(() => CALLS[name](device)),
        "ENODEV",
        name,
      );
      assert.ok(sameBytes(device.saveState(), before), name);
    }
    device.powerOn();
    assert.is(device.panicWrite({ text: "on again" }).status, 0);
  }
});

test("a machine whose card did not answer at boot is on, and its panic is stored", () => {
  const device = Device.open(coreModule("release"), OPTIONS);
  device.powerCut();
  device.injectFault({ kind: "no-response" });
  assert.throws(
    () => device.powerOn(),
    (error: MmcError) => error.code === "ETIMEDOUT",
  );
  device.clearFaults();
  assert.is(device.state().powered, true);
  assert.throws(
    () => device.read(0, 512),
    (error: MmcError) => error.code === "ENODEV" && /identified/.test(error.message),
  );
  assert.is(device.panicWrite({ text: "early" }).status, 0);
  assert.is(device.read(0, 512).length, 512);
});

// ---- errors of the medium ----

class Faulty extends Medium {
  error: unknown = null;
  left = 0;
  constructor() {
    super();
    const strike = () => {
      if (this.left === 0) return;
      this.left--;
      throw this.error;
    };
    this.onRead = strike;
    this.onWrite = strike;
  }
}

function faulty(more: DeviceOptions = {}): { device: Device; medium: Faulty } {
  const medium = new Faulty();
  const device = Device.openExternal(coreModule("external"), medium, { ...OPTIONS, ...more });
  return { device, medium };
}

const REQUESTS: Record<string, (device: Device) => unknown> = {
  read: (device) => device.read(0, 512),
  "read of many": (device) => device.read(0, 100_000),
  "write and flush": (device) => {
    device.write(0, pattern(1, 512));
    device.flush();
  },
  "part of a sector": (device) => device.write(3, pattern(1, 10)),
  erase: (device) => device.erase(0, 4096),
};

for (const [name, request] of Object.entries(REQUESTS)) {
  test(`errors of the medium: ${name}`, () => {
    for (const error of [
      new Error("a plain one"),
      new MmcError("ENOSPC", "disk.img: full"),
      "a word",
      undefined,
    ]) {
      const { device, medium } = faulty();
      medium.error = error;
      // For ever: it fails, with this as its cause, and take() has it too.
      medium.left = Number.POSITIVE_INFINITY;
      try {
        request(device);
        assert.unreachable();
      } catch (thrown) {
        assert.instance(thrown, MmcError);
        if (error instanceof MmcError) assert.is(thrown, error);
        else assert.equal([(thrown as MmcError).code, (thrown as MmcError).cause], ["EIO", error]);
      }
      assert.is(device.takeMediumFailure(), error);
      assert.is(device.takeMediumFailure(), undefined);
      medium.left = 0;
      request(device);
      assert.is(device.takeMediumFailure(), undefined);
      // Once: a retry heals it, and nobody is told; nor is it the cause of what fails next.
      medium.left = 1;
      request(device);
      assert.is(device.takeMediumFailure(), undefined);
      medium.left = 1;
      request(device);
      device.insertCard(false);
      assert.throws(
        () => device.read(0, 512),
        (next: MmcError) => next.code === "ENOMEDIUM" && next.cause === undefined,
      );
    }
  });
}

test("an error that one call has told is not the next one's, a panic's neither", () => {
  const { device, medium } = faulty();
  const error = new Error("gone");
  medium.error = error;
  medium.left = Number.POSITIVE_INFINITY;
  assert.ok(device.panicWrite({ text: "lost" }).status < 0);
  medium.left = 0;
  device.injectFault({ kind: "read-ecc", firstLba: 9, lastLba: 9 });
  assert.throws(
    () => device.read(9 * 512, 512),
    (next: MmcError) => next.code === "EIO" && next.cause === undefined,
  );
  const second = faulty();
  second.medium.error = error;
  second.medium.left = Number.POSITIVE_INFINITY;
  assert.ok(second.device.panicWrite({ text: "lost" }).status < 0);
  assert.is(second.device.takeMediumFailure(), error);
});

test("a medium that promises instead of doing is an error, not a success", () => {
  const medium = new Medium();
  const device = Device.openExternal(coreModule("external"), medium, OPTIONS);
  const later = Object.assign(Object.create(medium), {
    read: async () => Promise.reject(new Error("later")),
  });
  const slow = Device.openExternal(
    coreModule("external"),
    { sizeBytes: SIZE_BYTES, read: later.read, write: () => undefined },
    { sizeBytes: SIZE_BYTES },
  );
  assert.throws(
    () => slow.read(0, 512),
    (error: MmcError) => error.code === "EINVAL" && /promise/.test(error.message),
  );
  assert.is(device.read(0, 512).length, 512);
});

// ---- listeners ----

test("onTrace that throws, or rejects, changes nothing: every call, in memory and elsewhere", () => {
  for (const target of ["release", "external"] as const) {
    for (const asynchronous of [false, true]) {
      const error = new RangeError("disk full");
      const run = (bad: boolean) => {
        let armed = false;
        const onTrace = (): unknown => {
          if (!armed || !bad) return undefined;
          if (!asynchronous) throw error;
          return Promise.reject(error);
        };
        const medium = new Medium();
        const options = { ...OPTIONS, onTrace };
        const device =
          target === "release"
            ? Device.open(coreModule("release"), options)
            : Device.openExternal(coreModule("external"), medium, options);
        armed = true;
        device.write(3, pattern(1, 3000));
        device.writePmsg(pattern(2, 100));
        device.flushRings();
        device.flush();
        const first = device.panicWrite({ text: TEXT });
        const again = device.panicWrite({ text: "again" });
        device.powerCut();
        device.powerOn();
        return {
          device,
          statuses: [first.status, again.status, device.state().owner],
          bytes: new Uint8Array(device.memory.buffer).slice(),
          medium,
        };
      };
      const good = run(false);
      const bad = run(true);
      assert.equal(bad.statuses, [0, 0, 0]);
      assert.ok(sameBytes(bad.bytes, good.bytes));
      assert.ok(sameBytes(bad.medium.bytes, good.medium.bytes));
      assert.is(good.device.takeTraceFailure(), undefined);
      if (!asynchronous) {
        assert.is(bad.device.takeTraceFailure(), error);
        assert.is(bad.device.takeTraceFailure(), undefined);
      }
    }
  }
});

// ---- refused panics ----

test("a refused panic shows nothing of the one before it", () => {
  const nothing = (result: PanicResult, status: number, textBytes: number) => {
    const {
      status: said_,
      droppedBytes,
      step,
      compressed,
      cardState,
      dump,
      failedCommand,
      firstRefused,
      ...numbers
    } = result;
    assert.equal([said_, droppedBytes, step, compressed], [status, textBytes, "none", false]);
    assert.equal([cardState, dump, failedCommand, firstRefused], [null, null, null, null]);
    for (const [name, value] of Object.entries(numbers))
      assert.ok(value === 0 || value === 0n, `${name}: ${value}`);
  };
  for (const maxReason of [0, 1, 2, 3, 4]) {
    const device = Device.open(coreModule("release"), { ...OPTIONS, maxReason });
    for (const [i, reason] of (["Panic", "Oops", "Emergency", "Shutdown"] as const).entries()) {
      assert.is(device.panicWrite({ text: "one that is taken", timeSec: 5n }).status, 0);
      const before = device.saveState();
      const result = device.panicWrite({ text: "12345", reason });
      if (i + 1 <= (maxReason === 0 ? 2 : maxReason)) assert.is(result.status, 0, `${maxReason} ${reason}`);
      else {
        nothing(result, -125, 5);
        assert.ok(sameBytes(device.saveState(), before), "nothing was touched");
      }
    }
  }
  // Of one that died in the middle.
  let marks = Number.NEGATIVE_INFINITY;
  const hit = () => {
    if (++marks === 150) throw new Error("dies here");
  };
  const device = Device.open(coreModule("explore"), OPTIONS, { mark: { hit } });
  marks = 0;
  assert.throws(() => device.panicWrite({ text: TEXT, parts: 5 }), /dies here/);
  const before = device.saveState();
  nothing(device.panicWrite({ text: "12345" }), -16, 5);
  assert.ok(sameBytes(device.saveState(), before), "nothing was touched");
  assert.is(device.panicWrite({ text: "12345", force: true }).status, 0);
});

// ---- power cuts ----

test("each bit of a mask keeps one cached sector, also behind the 32nd", () => {
  const kept = (cache: Parameters<Device["powerCut"]>[1]) => {
    const device = Device.open(coreModule("release"), {
      sizeBytes: SIZE_BYTES,
      cacheSectors: 64,
      reliableWrite: false,
    });
    for (let i = 0; i < 64; i++) device.write(i * 512, new Uint8Array(512).fill(i + 1));
    device.powerCut("old", cache);
    return Array.from({ length: 64 }, (_, i) => i).filter((i) => device.medium()[i * 512] !== 0);
  };
  for (let i = 0; i < 64; i++) {
    assert.equal(kept(1n << BigInt(i)), [i]);
    if (i < 53) assert.equal(kept(2 ** i), [i]);
  }
  const some = [0, 1, 31, 32, 33, 62, 63];
  assert.equal(kept(some), some);
  assert.equal(kept(new Set(some)), some);
  assert.equal(kept([]), []);
  assert.is(kept("kept").length, 64);
  assert.is(kept("lost").length, 0);
  for (const wrong of [
    -1,
    0.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 53,
    -1n,
    2n ** 64n,
    [64],
    [-1],
    [0.5],
    ["0"],
    new Set([64]),
    "some",
    "toString",
    null,
    {},
    true,
  ]) {
    const device = Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, cacheSectors: 64 });
    const before = device.saveState();
    assert.throws(
      () => device.powerCut("old", wrong as "lost"),
      (error: MmcError) => error.code === "EINVAL",
    );
    assert.throws(
      () => device.powerCut(wrong as "old"),
      (error: MmcError) => error.code === "EINVAL",
    );
    assert.ok(sameBytes(device.saveState(), before), String(wrong));
  }
});

test.after(() => console.log(`# ${nested} calls from ${Object.keys(SCENES).length} kinds of callback`));
test.run();
