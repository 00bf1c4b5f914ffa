// Device.erase(): the bytes become zero, whatever the card makes of an erase, or an error says that some did not.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { MmcError } from "../host/errors.js";
import { note } from "./bus.js";
import { coreModule, pattern, sameBytes } from "./machine.js";

const MIB = 1 << 20;
const WP_ERASE_SKIP = 1 << 15;
const WP_VIOLATION = 1 << 26;

const CARDS: Record<string, DeviceOptions> = {
  eMMC: { addressing: "sector" },
  "eMMC by bytes": {},
  "eMMC with a cache": { addressing: "sector", cacheSectors: 16, reliableWrite: false },
  SDHC: { card: "sd" },
  SDSC: { card: "sdsc" },
  SDXC: { card: "sdxc" },
  "SD 1.01": { card: "sdsc", sd: { version: "1.01" } },
  "SDHC that erases to ones": { card: "sd", sd: { erasedByte: 255 } },
  "SDSC that erases to ones": { card: "sdsc", sd: { erasedByte: 255, discard: false } },
  "SDHC without discard": { card: "sd", sd: { discard: false } },
};

function opened(options: DeviceOptions, sizeBytes = MIB): Device {
  return Device.open(coreModule("release"), { sizeBytes, ...options });
}

/** What erase() throws, or null. */
function refusal(device: Device, offset: number, lengthBytes: number): MmcError | null {
  try {
    device.erase(offset, lengthBytes);
    return null;
  } catch (error) {
    assert.instance(error, MmcError);
    return error as MmcError;
  }
}

/** Behind a refused write the next flush of a card with a cache says, once, that something may be lost. */
function flushBehind(device: Device, mayFail: boolean): void {
  try {
    device.flush();
  } catch (error) {
    assert.ok(mayFail && error instanceof MmcError && error.code === "EIO");
    device.flush();
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

test("zeros and nothing else: whole and parts of sectors and groups, on every card, by PIO and DMA, for good", () => {
  const group = 512 * 1024;
  const ranges = [
    [0, 512],
    [100, 3000],
    [513, 1],
    [511, 2],
    [1024, 512 * 130],
    [1000, 512 * 300 + 77],
    [group - 512, 1024],
    [group - 700, 1400],
    [0, MIB],
    [MIB - 5, 5],
  ] as const;
  let cases = 0;
  for (const [name, options] of Object.entries(CARDS)) {
    for (const dma of [true, false]) {
      const device = opened({ ...options, dma });
      for (const [offset, lengthBytes] of ranges) {
        const before = pattern(offset + 1, MIB).map((byte) => byte | 1);
        device.write(0, before);
        device.flush();
        device.erase(offset, lengthBytes);
        const what = `${name}, ${dma ? "DMA" : "PIO"}: erase(${offset}, ${lengthBytes})`;
        const expected = before.slice();
        expected.fill(0, offset, offset + lengthBytes);
        assert.ok(sameBytes(device.read(0, MIB), expected), what);
        device.flush();
        device.powerCut("old", "lost");
        device.powerOn();
        assert.ok(sameBytes(device.read(0, MIB), expected), `${what}, behind a power cut`);
        cases++;
      }
    }
  }
  note(`${cases} erases on ${Object.keys(CARDS).length} cards`);
});

/** Group size; what stands in CMD28's argument for a byte offset; card. */
const PROTECTED: Record<string, { group: number; unit: number; options: DeviceOptions }> = {
  eMMC: { group: 8 * MIB, unit: 512, options: { addressing: "sector" } },
  "eMMC by bytes": { group: 8 * MIB, unit: 1, options: {} },
  "eMMC with a cache": { group: 8 * MIB, unit: 512, options: CARDS["eMMC with a cache"] as DeviceOptions },
  SDSC: { group: 2 * MIB, unit: 1, options: { card: "sdsc" } },
  "SDSC that erases to ones": {
    group: 2 * MIB,
    unit: 1,
    options: { card: "sdsc", sd: { erasedByte: 255 } },
  },
};

test("a write-protected group: EIO, its bytes stay, the others are zero, and the error says why", () => {
  let cases = 0;
  for (const [name, { group, unit, options }] of Object.entries(PROTECTED)) {
    const device = opened({ ...options }, 3 * group);
    assert.is(device.core.blockCommand(28, group / unit, 0x1a), 0);
    device.idle(20_000_000);
    for (const [offset, lengthBytes] of [
      [group - 4096, 8192],
      [2 * group - 4096, 8192],
      [group - 1024, group + 2048],
      [group + 512, 1024],
      [group - 512, 512],
      [2 * group, 512],
      [group - 100, 200],
      [2 * group - 100, 200],
      [group + 10, 20],
    ] as const) {
      const what = `${name}: erase(${offset - group}, ${lengthBytes}) from the group on`;
      const from = Math.max(0, offset - 2048);
      const until = Math.min(3 * group, offset + lengthBytes + 2048);
      const before = device.read(from, until - from);
      // Beside the group the bytes are made new each time; within it they are what they are.
      const fresh = pattern(cases + 1, until - from).map((byte) => byte | 1);
      for (const [at, end] of [
        [from, Math.min(until, group)],
        [Math.max(from, 2 * group), until],
      ] as const) {
        if (end <= at) continue;
        device.write(at, fresh.subarray(at - from, end - from));
        before.set(fresh.subarray(at - from, end - from), at - from);
      }
      device.flush();
      const touches = offset < 2 * group && offset + lengthBytes > group;
      const error = refusal(device, offset, lengthBytes);
      assert.is(error?.code ?? null, touches ? "EIO" : null, what);
      flushBehind(device, touches);
      const after = device.read(from, until - from);
      const held = (at: number) => at >= group && at < 2 * group;
      for (let at = from; at < until; at++) {
        const inside = at >= offset && at < offset + lengthBytes;
        const isKept = held(at) || !inside;
        const byte = after[at - from];
        if (isKept) assert.ok(byte === before[at - from], `${what}: byte ${at} stays`);
        else if (!touches) assert.is(byte, 0, `${what}: byte ${at}`);
        else assert.ok(byte === 0 || byte === before[at - from], `${what}: byte ${at} is old or zero`);
      }
      if (touches && (error?.r1 ?? 0) & WP_ERASE_SKIP) {
        assert.match(error?.message ?? "", /write-protected/, what);
        // The card has erased what it may.
        const whole = (at: number) => (at >= offset ? at : offset) % 512 === 0;
        for (let at = Math.ceil(offset / 512) * 512; at + 512 <= offset + lengthBytes; at += 512) {
          if (!held(at) && whole(at)) assert.ok(isZero(after.subarray(at - from, at - from + 512)), what);
        }
      }
      cases++;
    }
  }
  note(`${cases} erases at protected groups`);
});

test("a whole card that is protected by its CSD refuses every erase", () => {
  for (const options of [{ card: "sd" }, { card: "sdsc" }, { addressing: "sector" }] as DeviceOptions[]) {
    const device = opened(options);
    device.write(0, pattern(1, 4096));
    device.flush();
    // TMP_WRITE_PROTECT, as CMD27 would set it.
    device.injectFault({ kind: "refused", command: 38, bits: WP_VIOLATION });
    assert.is(refusal(device, 512, 1024)?.code, "EIO");
    device.clearFaults();
    assert.ok(sameBytes(device.read(0, 4096), pattern(1, 4096)));
  }
});

test("a damaged or lost answer anywhere in an erase over a protected group never makes it a success", () => {
  let cases = 0;
  let errors = 0;
  for (const [name, { group, unit, options }] of Object.entries(PROTECTED)) {
    for (const kind of ["no-response", "response-crc", "command-crc", "wrong-index"] as const) {
      for (const command of [32, 33, 35, 36, 38, 13]) {
        for (let skip = 0; skip < (command === 13 ? 4 : 1); skip++) {
          for (const times of [1, 2]) {
            const device = opened({ ...options }, 3 * group);
            device.write(group - 512, new Uint8Array(1024).fill(0x11));
            device.flush();
            assert.is(device.core.blockCommand(28, group / unit, 0x1a), 0);
            device.idle(20_000_000);
            device.injectFault({ kind, command, skip, times });
            const error = refusal(device, group - 512, 1024);
            const what = `${name}: ${kind} on CMD${command}, ${skip} before, ${times} times`;
            assert.ok(error !== null, what);
            errors++;
            device.clearFaults();
            assert.is(device.read(group, 1)[0], 0x11, `${what}: what is protected stays`);
            cases++;
          }
        }
      }
    }
  }
  assert.is(errors, cases);
  note(`${cases} damaged answers in erases over protected groups`);
});

test.run();
