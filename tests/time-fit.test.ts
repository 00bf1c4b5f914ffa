// The newest text that fits the time: profiles in which a sector takes 250 and 350 ms × texts × deadlines × an area that is
// free or full. Whenever a record of one line finds its way to the medium, one of a long text does, shortened; whatever
// is said, no older record goes for nothing. And a fast card gives nothing away.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CONFIG_DEADLINE_US } from "../assembly/layout.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { decodeArea, type PstoreRecord } from "../host/pstore/decode.js";
import { coreModule, PANIC_LOG, pattern, sameBytes } from "./machine.js";

const OFFSET = 256 * 1024;
const KMSG_BYTES = 64 * 1024;
const ZONES = 3;
const LINE = new TextEncoder().encode("Panic#1 Part1\n");

function recordsOf(device: Device): PstoreRecord[] {
  const area = device.medium().slice(OFFSET, OFFSET + KMSG_BYTES * ZONES);
  const sizes = { kmsgSize: KMSG_BYTES, pmsgSize: 0, consoleSize: 0, ftraceSize: 0, abi: "lp64" } as const;
  return decodeArea(area, sizes).records;
}

function textOf({ bytes, textOffset }: PstoreRecord): Uint8Array {
  return bytes.subarray(textOffset);
}

const OLD = Array.from({ length: ZONES }, (_, i) => new TextEncoder().encode(`old ${i}\n`.repeat(40)));

function open(options: DeviceOptions, oldRecords: number): Device {
  const device = Device.open(coreModule("release"), {
    sizeBytes: 512 * 1024,
    ...options,
    deadlineUs: OPENED_DEADLINE_US,
    area: { offset: OFFSET, kmsgSize: KMSG_BYTES, kmsgCount: ZONES, abi: "lp64" },
  });
  for (const text of OLD.slice(0, oldRecords)) {
    assert.is(device.panicWrite({ text, reason: "Oops", timeSec: 1n }).status, 0);
  }
  device.flush();
  return device;
}

/** What open() was told. */
const OPENED_DEADLINE_US = 60_000_000;

function setDeadline(device: Device, deadlineUs: number): void {
  new DataView(device.memory.buffer).setUint32(CONFIG_DEADLINE_US, deadlineUs, true);
}

/** Text of `bytes` behind Linux's line, that deflates well or not at all. */
function textFor(bytes: number, deflates: boolean): Uint8Array {
  const text = new Uint8Array(bytes);
  text.set(LINE);
  for (let at = LINE.length; at < bytes; at += PANIC_LOG.length) {
    const more = deflates ? PANIC_LOG : pattern(at, PANIC_LOG.length).map((byte) => 0x21 + (byte % 90));
    text.set(more.subarray(0, Math.min(more.length, bytes - at)), at);
  }
  return text;
}

const CARDS: [string, DeviceOptions][] = [
  ["slow-sd", { card: "sd", profile: "slow-sd" }],
  ["worst eMMC", { card: "emmc", addressing: "sector", profile: "worst" }],
];

test("whenever one line fits into the time, the newest of a long text does", () => {
  let cases = 0;
  let stored = 0;
  let shortened = 0;
  for (const [name, options] of CARDS) {
    for (const oldRecords of [1, ZONES]) {
      const device = open(options, oldRecords);
      const before = device.saveState();
      const run = (text: Uint8Array, deadlineUs: number) => {
        setDeadline(device, OPENED_DEADLINE_US);
        device.loadState(before);
        setDeadline(device, deadlineUs);
        return device.panicWrite({ text, timeSec: 5n });
      };
      // The least deadline, in steps of 100 ms, with which one line is stored.
      let leastUs = 100_000;
      while (run(LINE, leastUs).status !== 0) leastUs += 100_000;
      for (const [bytes, deflates] of [
        [4096, false],
        [60_000, false],
        [60_000, true],
        [2 ** 20, false],
      ] as const) {
        const text = textFor(bytes, deflates);
        // One sector of the text itself, or a header that shows how fast the card is, may cost a sector more, and so
        // may the seal, which goes first and again when the record was shortened.
        for (const deadlineUs of [
          leastUs / 2,
          leastUs + 1_500_000,
          leastUs + 2_200_000,
          4_000_000,
          10_000_000,
        ]) {
          const result = run(text, deadlineUs);
          const what = `${name}, ${oldRecords} old, ${bytes} bytes, ${deflates}, ${deadlineUs} µs (least ${leastUs})`;
          cases++;
          assert.ok(result.endNs - result.startNs <= BigInt(deadlineUs) * 1000n, what);
          if (deadlineUs > leastUs) assert.is(result.status, 0, what);
          device.powerCut("old", "lost");
          const records = recordsOf(device);
          const whole = records.filter(({ state }) => state === "ok");
          const older = whole.filter((record) => OLD.some((one) => sameBytes(textOf(record), one))).length;
          const mayReplace = result.status === 0 && oldRecords === ZONES ? 1 : 0;
          assert.is(older, oldRecords - mayReplace, `${what}: older records`);
          if (result.status !== 0) continue;
          stored++;
          const fresh = whole.find(({ sequence }) => sequence === result.sequence);
          assert.ok(fresh, what);
          const shown = textOf(fresh);
          assert.is(shown.length, result.storedBytes, what);
          assert.is(result.storedBytes + result.droppedBytes, text.length, what);
          assert.ok(sameBytes(shown.subarray(0, LINE.length), LINE), `${what}: Linux's line`);
          assert.ok(
            sameBytes(shown.subarray(LINE.length), text.subarray(text.length - shown.length + LINE.length)),
            what,
          );
          if (result.droppedBytes > 0) shortened++;
        }
      }
    }
  }
  assert.ok(shortened > 20);
  console.log(`# ${cases} panics on slow cards: ${stored} stored, ${shortened} of them shortened`);
});

test("a card that is not slow takes all that the zone takes, whatever the deadline", () => {
  for (const options of [{ card: "sd" }, { card: "emmc", addressing: "sector" }] as DeviceOptions[]) {
    for (const oldRecords of [1, ZONES]) {
      const device = open(options, oldRecords);
      const before = device.saveState();
      for (const deadlineUs of [200_000, 1_000_000, 10_000_000]) {
        setDeadline(device, OPENED_DEADLINE_US);
        device.loadState(before);
        setDeadline(device, deadlineUs);
        const result = device.panicWrite({ text: textFor(60_000, false), timeSec: 5n });
        assert.equal([result.status, result.droppedBytes], [0, 0], `${options.card} ${deadlineUs}`);
      }
    }
  }
});

test("a text over 1 MiB keeps Linux's line, and whole lines behind it", () => {
  for (const extra of [0, 1, 13, 5000, 2 ** 20]) {
    const device = open({ card: "sd" }, 0);
    const text = textFor(2 ** 20 + extra, true);
    const result = device.panicWrite({ text, timeSec: 5n });
    assert.is(result.status, 0);
    const [record] = recordsOf(device);
    assert.ok(record?.state === "ok");
    const shown = textOf(record);
    assert.ok(
      sameBytes(shown.subarray(0, LINE.length), LINE),
      `${extra}: ${new TextDecoder().decode(shown.subarray(0, 40))}`,
    );
    assert.is(text[text.length - shown.length + LINE.length - 1], 0x0a, `${extra}: a whole line`);
    assert.is(result.storedBytes + result.droppedBytes, text.length, `${extra}`);
  }
});

test.run();
