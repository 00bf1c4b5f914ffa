// What the driver believes of the card counts when the card has said it after the last change, and not before:
// docs/DESIGN.md has the list, and this file that it is complete. Then what becomes of a belief that a single answer,
// a raw command or another driver could have made wrong; R1 bit by bit; and a device without power.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { EXT_CSD_BASE } from "../assembly/layout.js";
import type { DeviceOptions } from "../host/device-options.js";
import type { MmcError } from "../host/errors.js";
import { note } from "./bus.js";
import { IN_FLIGHT_OFFSET, openMachine, pattern, ROOT, sameBytes, textOf } from "./machine.js";
import { fieldsOf } from "./wasm/structs.js";

const OLD_LOG = pattern(1, 3000);
const NEW_LOG = pattern(9, 5000);
const DATA = pattern(5, 4096);
const R1 = 0x1a;

const codeOf = (action: () => unknown): string => {
  try {
    action();
    return "ok";
  } catch (error) {
    return (error as MmcError).code ?? String(error);
  }
};

test("docs/DESIGN.md lists every belief with where it comes from, what makes it void, and what unknown means", () => {
  const design = readFileSync(`${ROOT}docs/DESIGN.md`, "utf8");
  const [, section = ""] = /### What the driver believes\n([\s\S]*?)\n### /.exec(design) ?? [];
  const rows = [...section.matchAll(/^\| `(\w+)` \|(.*)\|$/gm)];
  const beliefs = rows.map(([, name]) => name as string);
  for (const [, name, rest = ""] of rows) {
    const cells = rest.split(" | ").map((cell) => cell.trim());
    assert.is(cells.length, 3, name);
    for (const cell of cells) assert.ok(cell.length > 0, `${name}: an empty cell`);
  }
  const [, others = ""] = /^Not beliefs, [^:]*: (.*)\.$/m.exec(section) ?? [];
  const rest = [...others.matchAll(/`(\w+)`/g)].map(([, name]) => name as string);
  const fields = fieldsOf(readFileSync(`${ROOT}assembly/driver/shadow.ts`, "utf8"), "Shadow").map(
    ({ name }) => name,
  );
  assert.ok(beliefs.length > 20);
  assert.equal([...beliefs, ...rest].sort(), [...fields].sort());
});

const CACHED: DeviceOptions = { card: "emmc", cacheSectors: 32, reliableWrite: false };

test("raw commands that switch cache, partition, lines, speed and boot configuration: the next request asks the card", () => {
  const raw: [string, number][] = [
    ["cache off", 0x03210001],
    ["cache on", 0x03210101],
    ["one line", 0x03b70001],
    ["four lines", 0x03b70101],
    ["default speed", 0x03b90001],
    ["boot partition 1 selected, and enabled", 0x03b34901],
    ["HPI off", 0x03a10001],
  ];
  for (const [what, argument] of raw) {
    const { device, records } = openMachine({ ...CACHED, bootBytes: 131072 }, [OLD_LOG]);
    assert.is(device.core.blockCommand(6, argument, R1), 0);
    device.idle(10_000_000);
    const boot = (new Uint8Array(device.memory.buffer)[EXT_CSD_BASE + 179] ?? 0) & ~7;
    assert.is(device.panicWrite({ text: NEW_LOG, timeSec: 5n }).status, 0, what);
    assert.is(new Uint8Array(device.memory.buffer)[EXT_CSD_BASE + 179], boot, `${what}: PARTITION_CONFIG`);
    device.write(IN_FLIGHT_OFFSET, DATA);
    device.flush();
    device.powerCut("old", "lost");
    const stored = device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + DATA.length);
    assert.ok(sameBytes(stored, DATA), `${what}: flush() said ok, and the data are gone`);
    assert.ok(
      records().some((record) => record.state === "ok" && sameBytes(textOf(record), NEW_LOG)),
      what,
    );
  }
});

test("flush() behind a raw command that switched the cache on or off: nothing is said that is not so", () => {
  for (const argument of [0x03210001, 0x03210101]) {
    for (const writeFirst of [false, true]) {
      const { device } = openMachine(CACHED, []);
      if (writeFirst) device.write(IN_FLIGHT_OFFSET, DATA);
      assert.is(device.core.blockCommand(6, argument, R1), 0);
      device.idle(10_000_000);
      if (!writeFirst) device.write(IN_FLIGHT_OFFSET, DATA);
      device.flush();
      device.powerCut("old", "lost");
      const stored = device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + DATA.length);
      assert.ok(sameBytes(stored, DATA), `${argument.toString(16)}, ${writeFirst}`);
    }
  }
});

test("powerOn() on a device that is on: what was not flushed is told by the next flush, once", () => {
  const { device } = openMachine(CACHED, []);
  device.write(IN_FLIGHT_OFFSET, DATA);
  device.powerOn();
  assert.is(
    codeOf(() => device.flush()),
    "EIO",
  );
  assert.is(
    codeOf(() => device.flush()),
    "ok",
  );
});

test("a device without power flushes nothing and panics nowhere; a powerOn() that failed is enough for a panic", () => {
  const { device, records } = openMachine(CACHED, [OLD_LOG]);
  device.write(IN_FLIGHT_OFFSET, DATA);
  device.powerCut("old", "lost");
  const before = device.medium().slice();
  assert.is(
    codeOf(() => device.flush()),
    "ENODEV",
  );
  assert.is(
    codeOf(() => device.panicWrite({ text: NEW_LOG, timeSec: 5n })),
    "ENODEV",
  );
  assert.ok(sameBytes(device.medium(), before));
  device.injectFault({ kind: "vanish" });
  assert.is(
    codeOf(() => device.powerOn()),
    "ETIMEDOUT",
  );
  assert.is(
    codeOf(() => device.flush()),
    "ENODEV",
  );
  device.clearFaults();
  device.core.mmioWrite8(0x29, 0);
  assert.is(device.panicWrite({ text: NEW_LOG, timeSec: 5n }).status, 0);
  assert.is(records().length, 2);
});

/** All that tell of an error. A card that does nothing and tells of nothing is not found out by its answer. */
const ERROR_BITS = [...Array(17).keys()].map((i) => 31 - i).concat(7, 3);

test("every error bit of R1 in every command of a write and of a panic: no success without the bytes", () => {
  let cases = 0;
  let struck = 0;
  for (const options of [
    { card: "emmc" },
    { ...CACHED },
    { ...CACHED, cmd23: false },
    { card: "sd" },
  ] as const) {
    const machine = openMachine({ ...options, compress: false }, [OLD_LOG]);
    const { device } = machine;
    const state = device.saveState();
    const what = (command: number, bit: number, skip: number) =>
      `${JSON.stringify(options)}: bit ${bit} in CMD${command}, ${skip}`;
    for (const command of [6, 7, 12, 13, 16, 17, 18, 23, 24, 25, 55]) {
      for (const bit of ERROR_BITS) {
        for (const skip of [0, 1]) {
          const plan = { kind: "refused", command, bits: 2 ** bit, skip, times: 1 } as const;
          device.loadState(state);
          device.injectFault(plan);
          const written = codeOf(() => device.write(IN_FLIGHT_OFFSET, DATA));
          const flushed = codeOf(() => device.flush());
          device.clearFaults();
          device.powerCut("old", "lost");
          const stored = device.medium().subarray(IN_FLIGHT_OFFSET, IN_FLIGHT_OFFSET + DATA.length);
          if (written === "ok" && flushed === "ok") {
            assert.ok(sameBytes(stored, DATA), `${what(command, bit, skip)}: said ok, and the data are gone`);
          }
          device.loadState(state);
          device.injectFault(plan);
          const { status } = device.panicWrite({ text: NEW_LOG, timeSec: 5n });
          device.clearFaults();
          assert.is(status, 0, what(command, bit, skip));
          device.powerCut("zero", "lost");
          const texts = machine.records().map((record) => [record.state, textOf(record)] as const);
          assert.ok(
            texts.some(([recordState, text]) => recordState === "ok" && sameBytes(text, NEW_LOG)),
            `${what(command, bit, skip)}: said 0, and there is no record`,
          );
          assert.ok(
            texts.some(([recordState, text]) => recordState === "ok" && sameBytes(text, OLD_LOG)),
            `${what(command, bit, skip)}: the old record`,
          );
          cases++;
          if (written !== "ok" || flushed !== "ok") struck++;
        }
      }
    }
  }
  note(`${cases} bits of R1, ${struck} told as an error of a request`);
});

test.run();
