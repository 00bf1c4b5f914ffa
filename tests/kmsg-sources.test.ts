// The serial console and pvpanic as an embedder has them.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PVPANIC_PCI, PVPANIC_PORT, Pvpanic } from "../host/embed/pvpanic.js";
import { type ConsoleEvent, SerialConsole } from "../host/embed/serial-console.js";
import { PANIC_LOG, sameBytes } from "./machine.js";

function feedText(console: SerialConsole, text: string): void {
  console.feed(new Uint8Array(Buffer.from(text, "latin1")));
}

function eventsOf(text: string): ConsoleEvent[] {
  const events: ConsoleEvent[] = [];
  feedText(new SerialConsole({ onEvent: (event) => events.push(event) }), text);
  return events;
}

test("a real panic on the console", () => {
  // What the kernel sends: its log without the levels, lines ended by CR LF, and a last line that no dump has.
  const log = Buffer.from(PANIC_LOG)
    .toString("latin1")
    .replaceAll(/^<\d+>/gm, "")
    .replaceAll("\n", "\r\n");
  const events = eventsOf(
    `${log}[    2.590001] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\r\n`,
  );
  assert.equal(
    events.map(({ kind }) => kind),
    ["panic", "panic-end"],
  );
  assert.match(events[0]?.line ?? "", /^Kernel panic - not syncing: /);
});

test("which lines are the kernel's", () => {
  const cases: [string, string | null][] = [
    ["[   12.345678] Kernel panic - not syncing: x", "panic"],
    ["[   12.345678][  T1] Kernel panic - not syncing: x", "panic"],
    ["/ # [   12.345678] Kernel panic - not syncing: x", "panic"],
    ["Kernel panic - not syncing: x", "panic"],
    ["<0>[    1.000000] Kernel panic - not syncing: x", "panic"],
    ["[    1.000000] Oops: 0002 [#1] PREEMPT SMP NOPTI", "oops"],
    ["[    1.000000] Internal error: Oops: 96000004 [#1] SMP", "oops"],
    ["[    1.000000] Oops - undefined instruction: 0 [#1]", "oops"],
    ["[    1.000000] Oops [#1]", "oops"],
    ["---[ end Kernel panic - not syncing: x ]---", "panic-end"],
    ["/ # echo Kernel panic - not syncing: x", null],
    ["init: Oops: no", null],
    ["[    1.000000] systemd: Kernel panic - not syncing", null],
    ["Oopsie daisy", null],
    [`${"x".repeat(1024)}[    1.000000] Kernel panic - not syncing: x`, null],
  ];
  for (const [line, kind] of cases) assert.is(eventsOf(`${line}\n`)[0]?.kind ?? null, kind, line);
  assert.equal(eventsOf("Kernel panic - not syncing: x"), [], "not before the line is complete");
});

test("the newest bytes are kept, as they came and as a log", () => {
  const console = new SerialConsole({ capacityBytes: 16 });
  feedText(console, "one\r\n");
  assert.is(Buffer.from(console.bytes()).toString(), "one\r\n");
  assert.is(Buffer.from(console.kmsg()).toString(), "one\n");
  feedText(console, "second\r\nthird\r\n");
  console.feed(0x121);
  assert.is(Buffer.from(console.bytes()).toString(), "second\r\nthird\r\n!");
  assert.is(console.droppedBytes, 5 + 15 + 1 - 16);
  assert.is(Buffer.from(console.kmsg()).toString(), "third\n!");
  console.clear();
  assert.is(console.bytes().length + console.droppedBytes, 0);
  for (const capacityBytes of [0, -1, 1.5]) assert.throws(() => new SerialConsole({ capacityBytes }));
});

test("any bytes: what is kept is the end of what was fed, however it was cut", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }),
      (capacityBytes, pieces) => {
        const console = new SerialConsole({ capacityBytes, onEvent: () => undefined });
        for (const piece of pieces) console.feed(piece);
        const all = Buffer.concat(pieces);
        assert.ok(sameBytes(console.bytes(), all.subarray(Math.max(0, all.length - capacityBytes))));
        assert.is(console.droppedBytes, Math.max(0, all.length - capacityBytes));
      },
    ),
  );
});

test("pvpanic: what the guest may write, and what comes of it", () => {
  const events: string[] = [];
  const device = new Pvpanic((event) => events.push(event));
  assert.is(device.read8(), 3);
  for (let value = 0; value < 256; value++) {
    device.write8(value);
    const expected = value & 1 ? ["panicked"] : value & 2 ? ["crash-loaded"] : [];
    assert.equal(events.splice(0), expected, `${value}`);
  }
  const all = new Pvpanic((event) => events.push(event), 0xff);
  assert.is(all.read8(), 7);
  all.write8(4);
  assert.equal(events, ["shutdown"]);
  assert.is(PVPANIC_PORT, 0x505);
  assert.equal(Object.values(PVPANIC_PCI), [0x1b36, 0x11, 1, 0x088000, 2]);
});

test.run();
