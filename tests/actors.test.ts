// Two actors on one host: a panic that is refused, a ring that is written to, an owner that was robbed and goes on, a
// dead panic that comes back behind a forced one. What the second one may change is a list of buffers; everything else
// of the machine (controller, card, medium, clock, zones, rings, results) is compared byte by byte. Denominators are the
// marks of uninterrupted runs. Threads: actors-threads.test.ts.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { OWNER_WORD, RING_INBOX, RING_INBOX_BYTES } from "../assembly/layout.js";
import { type PanicResult, readResult } from "../host/core/result.js";
import { Device } from "../host/device.js";
import { MmcError } from "../host/errors.js";
import { judgeRing } from "../host/explore/rings.js";
import {
  AREA,
  CARDS,
  changed,
  FIRST,
  isWhole,
  OLD,
  OPERATIONS,
  openActors,
  PANIC_OWN,
  PENDING,
  panicElsewhere,
  ROBBED_OWN,
  recordsOf,
  restore,
  SECOND,
  snapshot,
  userProblem,
} from "./actors/scene.js";
import { coreModule, pattern, sameBytes } from "./machine.js";

/** A command of docs/TESTING.md runs all; `npm test` every n-th mark of the longest operations, by this seed. */
const isComplete = process.env.MMCPSTORE_ACTORS === "all";
const seed = Number(process.env.MMCPSTORE_ACTORS_SEED ?? 1);

const codeOf = (call: () => unknown): string => {
  try {
    call();
    return "ok";
  } catch (error) {
    if (error instanceof MmcError) return error.code;
    throw error;
  }
};

// ---- refused ----

for (const [name, options] of Object.entries(CARDS)) {
  test(`refused, ${name}: at every mark of a panic a second one, and whatever else, changes nothing`, () => {
    const actors = openActors(options);
    const { device } = actors;
    const before = snapshot(device);
    let marks = 0;
    actors.hook = () => marks++;
    const alone = device.panicWrite({ text: FIRST, timeSec: 7n, parts: 3 });
    actors.hook = null;
    assert.is(alone.status, 0);
    const expected = snapshot(device);
    restore(device, before);
    let refused = 0;
    const word = new DataView(device.memory.buffer);
    const refuse = () => {
      // Until the host is taken nobody is refused.
      if ((word.getUint32(OWNER_WORD, true) & 0xff) !== 0xff) return;
      actors.hook = null;
      const second = device.panicWrite({ text: SECOND, reason: "Oops", timeSec: 9n, parts: 1 });
      assert.equal([second.status, second.parts, second.droppedBytes], [-16, 0, SECOND.length]);
      // As it comes from a CPU that does not ask the device.
      const { core } = device;
      const statuses = [
        core.panicTake(1, 9, 0, 0, 0),
        core.writeRing(0, 100),
        core.blockRead(0, 1),
        core.blockWrite(0, 1),
        core.blockErase(0, 0),
        core.blockFlush(),
        core.flushRings(),
        core.recoverArea(),
        core.openCard(),
        core.blockCommand(13, 0, 0x1a),
        core.readCardRegister(10, 16, 0),
        core.leaveInFlight(1, 0, 8),
      ];
      assert.equal(
        statuses,
        statuses.map(() => -16),
      );
      const calls = [
        () => device.writePmsg(SECOND),
        () => device.writeConsole(SECOND),
        () => device.writeFtrace([{ cpu: 0, ip: 1n, parentIp: 2n }]),
        () => device.read(0, 512),
        () => device.write(0, SECOND.subarray(0, 512)),
        () => device.erase(0, 512),
        () => device.flush(),
        () => device.flushRings(),
        () => device.registers(),
        () => device.leaveInFlight("read"),
      ];
      assert.equal(
        calls.map(codeOf),
        calls.map(() => "EBUSY"),
      );
      refused++;
      actors.hook = refuse;
    };
    actors.hook = refuse;
    const first = device.panicWrite({ text: FIRST, timeSec: 7n, parts: 3 });
    actors.hook = null;
    assert.is(refused, marks - 1);
    assert.equal(first, alone);
    assert.equal(changed(expected, snapshot(device), [...ROBBED_OWN, [RING_INBOX, RING_INBOX_BYTES]]), []);
    console.log(
      `# ${name}: ${refused} of ${marks - 1} marks of a panic, at each a second panic and 22 other calls`,
    );
  });
}

test("refused, from every call of a medium elsewhere: the first panic's medium and result are as without it", () => {
  let places = 0;
  let total = 0;
  for (const compress of [false, true]) {
    const run = (at: number) => {
      const bytes = new Uint8Array(512 * 1024);
      let calls = Number.NEGATIVE_INFINITY;
      let nested: number | null = null;
      const go = () => {
        if (calls++ !== at) return;
        assert.is(device.core.panicTake(1, 9, 0, 0, 0), -16);
        nested = device.panicWrite({ text: SECOND, parts: 2 }).status;
      };
      const medium = {
        sizeBytes: bytes.length,
        read(offset: number, target: Uint8Array) {
          go();
          target.set(bytes.subarray(offset, offset + target.length));
        },
        write(offset: number, data: Uint8Array) {
          go();
          bytes.set(data, offset);
        },
      };
      const device: Device = Device.openExternal(coreModule("external"), medium, {
        compress,
        area: AREA,
      });
      calls = 0;
      const result = device.panicWrite({ text: FIRST, timeSec: 7n });
      return { bytes, result, nested, calls };
    };
    const alone = run(-1);
    assert.is(alone.result.status, 0);
    total += alone.calls;
    for (let at = 0; at < alone.calls; at++) {
      const { bytes, result, nested } = run(at);
      assert.is(nested, -16);
      assert.equal(result, alone.result);
      assert.ok(sameBytes(bytes, alone.bytes), `at call ${at}`);
      places++;
    }
  }
  assert.is(places, total);
  console.log(`# ${places} of ${total} calls of a medium, at each a second panic`);
});

// ---- rings ----

test("a writer of a ring that is stopped at any mark by a panic: what the medium shows is true, and he goes on", () => {
  let cases = 0;
  for (const [flushed, pending, last] of [
    [0, 0, 200],
    [0, 700, 300],
    [300, 400, 500],
    [800, 0, 100],
    [800, 150, 400],
    [800, 900, 200],
    [2000, 1012, 1000],
    [500, 300, 3000],
  ] as const) {
    let stops = 0;
    for (let stop = 0; stop === 0 || stop < stops; stop++) {
      const actors = openActors({ card: "sd" });
      const { device } = actors;
      const stream = pattern(5, flushed + pending + last).map((byte) => byte || 1);
      device.powerCut();
      device.powerOn();
      device.writePmsg(stream.subarray(0, flushed));
      device.flushRings();
      device.writePmsg(stream.subarray(flushed, flushed + pending));
      let marks = 0;
      const shownInPanic: (Uint8Array | null)[] = [];
      const view = () =>
        recordsOf(device)
          .find(({ type }) => type === "pmsg")
          ?.bytes.slice() ?? null;
      actors.hook = () => {
        if (marks++ !== stop) return;
        actors.hook = () => marks++;
        const keep = actors.hook;
        actors.hook = null;
        assert.is(device.panicWrite({ text: FIRST, timeSec: 7n }).status, 0);
        shownInPanic.push(view());
        actors.hook = keep;
      };
      device.writePmsg(stream.subarray(flushed + pending));
      actors.hook = null;
      stops = marks;
      assert.is(shownInPanic.length, 1);
      const capacity = AREA.pmsgSize - 12;
      const kept = Math.min(flushed, capacity);
      const history = {
        type: "pmsg" as const,
        capacity,
        old: new Uint8Array(0),
        stream,
        acknowledged: kept === 0 ? 0 : flushed,
      };
      const shown = judgeRing(shownInPanic[0] ?? null, history);
      assert.is.not(shown, "false", `${flushed}+${pending}+${last} at mark ${stop}`);
      device.flushRings();
      const all = view() ?? new Uint8Array(0);
      assert.ok(
        sameBytes(all, stream.subarray(-capacity)),
        `${flushed}+${pending}+${last} behind mark ${stop}`,
      );
      cases++;
    }
  }
  console.log(`# ${cases} panics inside of writes to a ring`);
});

// ---- robbed ----

/** Marks of an operation that are tried: all, or of long ones every n-th from a place that the seed gives. */
function* marksOf(total: number, most: number): Generator<number> {
  const stride = isComplete ? 1 : Math.max(1, Math.ceil(total / most));
  for (let at = stride === 1 ? 0 : (seed * 7919) % stride; at < total; at += stride) yield at;
}

/** Of the operations that take thousands of marks. */
const MARKS_MOST = 200;
const LONG = new Set(["power on", "recover the area"]);

for (const [name, options] of Object.entries(CARDS)) {
  test(`robbed, ${name}: at a mark of an operation a panic runs to its end, and the owner goes on`, () => {
    let tried = 0;
    let total = 0;
    for (const operation of OPERATIONS) {
      const actors = openActors(options);
      const { device } = actors;
      operation.prepare?.(device);
      const before = snapshot(device);
      let marks = 0;
      actors.hook = () => marks++;
      operation.run(device);
      actors.hook = null;
      total += marks;
      for (const at of marksOf(marks, LONG.has(operation.name) ? MARKS_MOST : marks)) {
        const what = `${name}, ${operation.name} at mark ${at}`;
        restore(device, before);
        let passed = 0;
        let behind: Uint8Array | null = null;
        let status: number | null = null;
        let expected = "ECANCELED";
        actors.hook = () => {
          if (passed++ !== at) return;
          actors.hook = null;
          // In the middle of claim() he has nothing that could be taken.
          if (device.state().owner === 0) expected = "EBUSY";
          status = device.panicWrite({ text: SECOND, reason: "Oops", timeSec: 5000n }).status;
          behind = snapshot(device);
        };
        const code = codeOf(() => operation.run(device));
        actors.hook = null;
        assert.is(status, 0, what);
        assert.is(code, expected, what);
        assert.equal(changed(behind as unknown as Uint8Array, snapshot(device), ROBBED_OWN), [], what);
        if (tried % 16 === 0) {
          // What was in the card's cache may be gone, which is told once.
          assert.ok(["ok", "EIO"].includes(codeOf(() => device.flush())), what);
          device.read(0, 512);
        }
        device.powerCut("old", "lost");
        assert.ok(isWhole(device, OLD), what);
        if (!operation.isTakeOver?.(options)) assert.ok(isWhole(device, SECOND), what);
        assert.is(userProblem(device, operation), null, what);
        tried++;
      }
    }
    if (isComplete) assert.is(tried, total);
    console.log(`# ${name}: ${tried} of ${total} marks of ${OPERATIONS.length} operations, seed ${seed}`);
  });
}

// ---- a dead panic comes back ----

for (const [name, options] of Object.entries(CARDS)) {
  test(`forced, ${name}: at a mark of a panic another is forced, and the first one goes on`, () => {
    const actors = openActors(options, true);
    const { device } = actors;
    const id = device.registerRegion({ name: "ram", address: 0n, source: device.dumpMemory });
    device.writePmsg(PENDING);
    const before = snapshot(device);
    let marks = 0;
    actors.hook = () => marks++;
    assert.is(device.panicWrite({ text: FIRST, timeSec: 7n, parts: 2 }).status, 0);
    actors.hook = null;
    let tried = 0;
    // The first mark is the steal's: nobody holds the host there, and the second one is simply the first.
    for (const at of marksOf(marks, isComplete ? marks : 400)) {
      const what = `${name} at mark ${at}`;
      restore(device, before);
      let passed = 0;
      let behind: Uint8Array | null = null;
      let forced: PanicResult | null = null;
      actors.hook = () => {
        if (passed++ !== at) return;
        actors.hook = null;
        panicElsewhere(device, SECOND, true);
        forced = readResult(device.memory);
        behind = snapshot(device);
      };
      const first = device.panicWrite({ text: FIRST, timeSec: 7n, parts: 2 });
      actors.hook = null;
      const second = forced as unknown as PanicResult;
      assert.equal([second.status, second.dump?.status, second.ringsStatus], [0, 0, 0], what);
      if (at > 0) {
        assert.is(first.status, -125, what);
        assert.equal(changed(behind as unknown as Uint8Array, snapshot(device), PANIC_OWN), [], what);
      }
      device.unregisterRegion(id);
      device.powerCut("old", "lost");
      assert.ok(isWhole(device, SECOND) && isWhole(device, OLD), what);
      tried++;
    }
    console.log(
      `# ${name}: ${tried} of ${marks} marks of a panic with rings and a dump, at each a forced one, seed ${seed}`,
    );
  });
}

test("a panic that dies in its dump: the region table is free behind the power, and behind the next panic", () => {
  for (const way of ["power", "force"] as const) {
    const actors = openActors({}, true);
    const { device } = actors;
    device.registerRegion({ name: "ram", address: 0n, source: device.dumpMemory });
    const before = snapshot(device);
    let marks = 0;
    actors.hook = () => marks++;
    device.panicWrite({ text: FIRST });
    let frozen = 0;
    let deaths = 0;
    const total = marks;
    for (let at = 0; at < total; at += isComplete ? 1 : 3) {
      actors.hook = null;
      restore(device, before);
      let passed = 0;
      actors.hook = () => {
        if (passed++ === at) throw new Error("dies");
      };
      assert.throws(() => device.panicWrite({ text: FIRST }), /dies/);
      actors.hook = null;
      deaths++;
      const register = () =>
        device.registerRegion({ name: "more", address: 1n << 32n, source: device.dumpMemory });
      const code = codeOf(register);
      if (code === "EBUSY") frozen++;
      else assert.is(code, "ok");
      if (way === "power") {
        device.powerCut();
        device.powerOn();
      } else assert.is(device.panicWrite({ text: SECOND, force: true }).dump?.status, 0);
      if (code === "EBUSY") register();
    }
    assert.ok(frozen > 0);
    console.log(
      `# ${deaths} of ${total} deaths in a panic, ${frozen} with the table frozen; free behind ${way}`,
    );
  }
});

test.run();
