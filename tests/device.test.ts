// The block device as its user has it: any byte range against a plain array as the model, on every kind of card and bus;
// an external medium; errors; saved states; determinism.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CONFIG_TRACE } from "../assembly/layout.js";
import type { ExternalMedium } from "../host/core/external-medium.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import type { MmcError } from "../host/errors.js";
import { AREA_OFFSET, coreModule, openMachine, PANIC_LOG, pattern, sameBytes } from "./machine.js";

const SIZE_BYTES = 512 * 1024;
const KINDS: [string, DeviceOptions][] = [
  ["eMMC, ADMA2, CMD23", { dma: true }],
  ["eMMC, PIO, CMD12", { dma: false, cmd23: false }],
  ["eMMC with a small cache", { dma: true, cacheSectors: 3, reliableWrite: false }],
  ["eMMC, one line, legacy", { dma: true, busWidth: 1, highSpeed: false }],
  ["eMMC, four lines", { dma: true, busWidth: 4 }],
  ["SD, ADMA2, CMD12", { card: "sd", dma: true, cmd23: false }],
  ["SD, PIO, CMD23, one line", { card: "sd", dma: false, busWidth: 1 }],
];

function open(options: DeviceOptions): Device {
  return Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, ...options });
}

function refuses(code: string, call: () => unknown): void {
  assert.throws(call, (error: MmcError) => error.code === code && !error.message.includes("\n"));
}

type Action =
  | { do: "write"; offset: number; length: number; seed: number }
  | { do: "erase"; offset: number; length: number }
  | { do: "read"; offset: number; length: number }
  | { do: "flush" }
  | { do: "cut" };

const range = { offset: fc.nat(SIZE_BYTES - 1), length: fc.nat(9000) };
const actions = fc.array(
  fc.oneof(
    fc.record({ do: fc.constant("write" as const), ...range, seed: fc.nat(1000) }),
    fc.record({ do: fc.constant("erase" as const), ...range }),
    fc.record({ do: fc.constant("read" as const), ...range }),
    fc.record({ do: fc.constant("flush" as const) }),
    fc.record({ do: fc.constant("cut" as const) }),
  ),
  { maxLength: 12 },
);

let sequences = 0;

for (const [name, options] of KINDS) {
  test(`any byte range behaves like an array: ${name}`, () => {
    fc.assert(
      fc.property(actions, (sequence: Action[]) => {
        const device = open(options);
        const model = new Uint8Array(SIZE_BYTES);
        sequences++;
        for (const action of sequence) {
          if (action.do === "flush") device.flush();
          else if (action.do === "cut") {
            // Flushed first, so that nothing may be lost.
            device.flush();
            device.powerCut("old", "lost");
            device.powerOn();
          } else {
            const length = Math.min(action.length, SIZE_BYTES - action.offset);
            const end = action.offset + length;
            if (action.do === "write") {
              const bytes = pattern(action.seed, length);
              device.write(action.offset, bytes);
              model.set(bytes, action.offset);
            } else if (action.do === "erase") {
              device.erase(action.offset, length);
              model.fill(0, action.offset, end);
            } else
              assert.ok(sameBytes(device.read(action.offset, length), model.subarray(action.offset, end)));
          }
        }
        assert.ok(sameBytes(device.read(0, SIZE_BYTES), model));
      }),
      { numRuns: 100, seed: 20261120 },
    );
  });
}

test("an external medium: the same bytes, only through its two calls, and its own errors", () => {
  const bytes = pattern(3, SIZE_BYTES);
  let calls = 0;
  let broken = false;
  const medium: ExternalMedium = {
    sizeBytes: SIZE_BYTES,
    read(offset, target) {
      calls++;
      target.set(bytes.subarray(offset, offset + target.length));
    },
    write(offset, data) {
      calls++;
      if (broken) throw new Error("the disk is full");
      bytes.set(data, offset);
    },
  };
  const area = { offset: AREA_OFFSET, kmsgSize: 65536, kmsgCount: 4, abi: "lp64" } as const;
  bytes.fill(0, AREA_OFFSET);
  const device = Device.openExternal(coreModule("external"), medium, { area, compress: false });
  assert.ok(sameBytes(device.read(777, 5000), bytes.slice(777, 5777)));
  device.write(1001, pattern(5, 3000));
  device.flush();
  assert.ok(sameBytes(bytes.slice(1001, 4001), pattern(5, 3000)));
  device.erase(3000, 100_000);
  assert.ok(bytes.subarray(3000, 103_000).every((byte) => byte === 0));
  assert.ok(sameBytes(bytes.slice(2000, 3000), pattern(5, 3000).subarray(999, 1999)));
  assert.ok(bytes[103_000] === pattern(3, SIZE_BYTES)[103_000]);
  assert.is(device.panicWrite({ text: PANIC_LOG }).status, 0);
  assert.ok(calls > 100);
  refuses("EINVAL", () => device.medium());
  broken = true;
  assert.throws(() => device.write(0, new Uint8Array(512)));
  assert.ok(device.panicWrite({ text: "x" }).status < 0, "a medium that takes nothing holds no record");
});

test("what cannot be is refused before anything happens", () => {
  const { device } = openMachine();
  const before = device.state().storedSectors;
  refuses("EINVAL", () => device.read(-1, 5));
  refuses("EINVAL", () => device.read(0.5, 5));
  refuses("EINVAL", () => device.read(0, Number.NaN));
  refuses("EINVAL", () => device.read(SIZE_BYTES - 1, 2));
  refuses("EINVAL", () => device.write(SIZE_BYTES, new Uint8Array(1)));
  refuses("EINVAL", () => device.erase(10, SIZE_BYTES));
  for (const [offset, lengthBytes] of [
    [1, 4096],
    [0, 0],
    [0, 512],
    [0, 1025],
    [0, 33280],
  ] as const) {
    assert.throws(() => device.leaveInFlight("read", offset, lengthBytes), /are not 2 to 64 whole sectors/);
  }
  assert.throws(() => device.leaveWriteInFlight(0, new Uint8Array(512)), /are not 2 to 64 whole sectors/);
  assert.throws(() => open({ busWidth: 3 as 1 }), /busWidth: 3 is not one of 1, 4, 8/);
  assert.throws(() => open({ abortOutcome: "nope" as "new" }), /abortOutcome: nope/);
  const area = { offset: 0, kmsgSize: 4096, kmsgCount: 2, abi: "x32" as "lp64" };
  assert.throws(() => open({ area }), /area\.abi: x32 is not one of lp64, i386/);
  refuses("EINVAL", () => device.panicWrite({ text: "x", timeNsec: 1e9 }));
  refuses("EINVAL", () => device.panicWrite({ text: "x", reason: "Boredom" as "Panic" }));
  refuses("EINVAL", () => device.injectFault({ kind: "program" }, 16));
  refuses("EINVAL", () => open({}).panicWrite({ text: "no area" }));
  refuses("EINVAL", () => open({ sizeBytes: 0 }));
  refuses("EINVAL", () => open({ cacheSectors: 65 }));
  refuses("EINVAL", () => open({ timing: { readNs: -1 } }));
  refuses("EINVAL", () => open({ area: { offset: 100, kmsgSize: 4096, kmsgCount: 1, abi: "lp64" } }));
  refuses("EINVAL", () => open({ area: { offset: 0, kmsgSize: 4096, kmsgCount: 1000, abi: "lp64" } }));
  refuses("EINVAL", () => open({ area: { offset: 0, kmsgSize: 512, kmsgCount: 1, abi: "lp64" } }));
  assert.is(device.state().storedSectors, before);
  device.powerCut();
  refuses("ENODEV", () => device.read(0, 1));
  device.powerOn();
  device.leaveInFlight("claimed");
  refuses("EBUSY", () => device.read(0, 1));
});

test("nothing of length 0 touches the card", () => {
  const { device } = openMachine();
  const before = device.state().timeNs;
  assert.is(device.read(5, 0).length, 0);
  device.write(5, new Uint8Array(0));
  device.erase(5, 0);
  assert.is(device.state().timeNs, before);
});

test("the card is pulled: an error with command and code, and back in again", () => {
  const { device } = openMachine();
  device.insertCard(false);
  refuses("ENOMEDIUM", () => device.read(0, 512));
  assert.is(device.panicWrite({ text: "x" }).status, -123);
  device.insertCard(true);
  device.powerCut();
  device.powerOn();
  assert.is(device.panicWrite({ text: "x" }).status, 0);
});

test("counters", () => {
  const { device } = openMachine({}, []);
  device.panicWrite({ text: "a" });
  device.panicWrite({ text: "b", reason: "Oops" });
  device.panicWrite({ text: "c", reason: "Shutdown" });
  device.panicWrite({ text: "d" });
  assert.equal([device.state().panicCount, device.state().oopsCount], [2, 1]);
});

test("a saved state goes on as the original does, and the same calls give the same trace", () => {
  const run = () => {
    const { device } = openMachine({ trace: true });
    device.leaveInFlight("write", 200 * 512);
    const state = device.saveState();
    device.panicWrite({ text: PANIC_LOG });
    const first = { trace: device.trace(), memory: device.saveState() };
    device.loadState(state);
    device.panicWrite({ text: PANIC_LOG });
    const second = { trace: device.trace(), memory: device.saveState() };
    assert.equal(second.trace, first.trace);
    assert.ok(sameBytes(second.memory, first.memory));
    return first;
  };
  const first = run();
  const second = run();
  assert.ok(sameBytes(first.memory, second.memory));
  assert.ok(first.trace.events.length > 100);
});

test("a saved state knows whether the device was switched on, and what the ftrace rings' clock said", () => {
  const area = {
    offset: AREA_OFFSET,
    kmsgSize: 4096,
    kmsgCount: 4,
    ftraceSize: 4096,
    cpus: 2,
    abi: "lp64",
  } as const;
  const device = Device.open(coreModule("release"), { sizeBytes: 1 << 19, area });
  const call = { cpu: 1, ip: 0x1000n, parentIp: 0x2000n };
  device.writeFtrace([call, call, call]);
  const on = device.saveState();
  const goOn = () => {
    device.writeFtrace([call]);
    device.flushRings();
    return device.medium().slice();
  };
  const first = goOn();
  device.powerCut();
  const off = device.saveState();
  device.loadState(on);
  assert.is(device.state().powered, true);
  assert.ok(sameBytes(goOn(), first), "the same call has the same time");
  device.loadState(off);
  assert.is(device.state().powered, false);
  assert.throws(() => device.read(0, 512), /no power/);
  device.powerOn();
  assert.is(device.read(0, 512).length, 512);
});

test("with and without trace, and checked: the same medium and the same time", () => {
  const media = ["release", "debug", "explore"].map((target) => {
    const { device } = openMachine({ trace: true }, undefined, undefined, target, {
      mark: { hit: () => undefined },
    });
    new DataView(device.memory.buffer).setUint32(CONFIG_TRACE, target === "debug" ? 0 : 1, true);
    device.leaveInFlight("write", 200 * 512);
    device.panicWrite({ text: PANIC_LOG });
    return { medium: device.medium().slice(), timeNs: device.state().timeNs };
  });
  for (const other of media.slice(1)) {
    assert.ok(sameBytes(other.medium, media[0]?.medium ?? new Uint8Array()));
    assert.is(other.timeNs, media[0]?.timeNs);
  }
});

test.after(() =>
  console.log(`# ${sequences} random sequences of reads, writes, erases, flushes and power cuts`),
);
test.run();
