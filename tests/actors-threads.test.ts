// Two actors in two threads. First deterministic: one is stopped at a mark, the panic runs to a mark of its own, the
// first one comes back and goes on to its end, and the panic goes on; the machine must be as if it had never come back.
// Then as it comes: panics of several threads at the same moment, a thread that writes to a ring, and one that
// writes sectors through a port that both reach.
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  BOUNCE_BASE,
  MEDIUM_BASE,
  RESULT_COMMIT_NS_LOW,
  RING_INBOX,
  SECTOR_BYTES,
} from "../assembly/layout.js";
import { type CoreExports, instantiate, makeMemory } from "../host/core/instantiate.js";
import { type MachineConfig, TYPICAL_EMMC, writeConfig } from "../host/core/profile.js";
import { judgeRing } from "../host/explore/rings.js";
import { decodeArea } from "../host/pstore/decode.js";
import { changed, PANIC_OWN, type Range, ROBBED_OWN } from "./actors/scene.js";
import {
  AT,
  CONTROL_WORDS,
  DONE,
  FAILED,
  fresh,
  GO,
  line,
  OPERATION,
  PANIC_OPERATION,
  PAUSED,
  panicShared,
  passOn,
  portOf,
  type Role,
  runShared,
  SHARED_OPERATIONS,
  STATE,
  STATUS,
  STRAYS,
  TURN,
  textFor,
  WORKER,
  WRITTEN,
} from "./actors/shared-scene.js";
import { coreBytes, coreModule, pattern, sameBytes, textOf } from "./machine.js";
import { onSharedMemory } from "./wasm/shared.js";

const SECTORS = 512;
const AREA_LBA = 256;
const ZONES = 4;
const ZONE_SECTORS = 8;
const PMSG_SECTORS = 2;
const CONFIG: MachineConfig = {
  card: "emmc",
  sectors: SECTORS,
  bootSectors: 0,
  cacheSectors: 0,
  reliableWrite: true,
  cmd23: true,
  hpi: true,
  serial: 1,
  timing: TYPICAL_EMMC,
  abortOutcome: "old",
  cacheKeptAtReset: false,
  dma: false,
  busWidth: 8,
  highSpeed: true,
  areaFirstLba: AREA_LBA + PMSG_SECTORS,
  zoneSectors: ZONE_SECTORS,
  zoneCount: ZONES,
  abi: "lp64",
  policy: "first-wins",
  deadlineUs: 10_000_000,
  trace: false,
  compress: false,
  rings: { pmsg: PMSG_SECTORS, console: 0, ftrace: 0, cpus: 0 },
};
const SIZES = {
  kmsgSize: ZONE_SECTORS * SECTOR_BYTES,
  pmsgSize: PMSG_SECTORS * SECTOR_BYTES,
  consoleSize: 0,
  ftraceSize: 0,
  abi: "lp64" as const,
};
const USER = pattern(3, 64 * SECTOR_BYTES);

/** How many of each: `npm test` a few, by this seed; more by a command of docs/TESTING.md. */
const pairs = Number(process.env.MMCPSTORE_ACTORS_PAIRS ?? 150);
const rounds = Number(process.env.MMCPSTORE_ACTORS_ROUNDS ?? 25);
const seed = Number(process.env.MMCPSTORE_ACTORS_SEED ?? 1);

function chance(from: number): (below: number) => number {
  let state = from >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

interface Thread {
  worker: Worker;
  ended: Promise<number>;
}

async function startThread(role: Role, data: Record<string, unknown>): Promise<Thread> {
  const worker = new Worker(new URL("./actors/worker.js", import.meta.url), {
    workerData: { role, ...data },
  });
  const ended = new Promise<number>((resolve, reject) => {
    worker.on("error", reject);
    worker.on("exit", resolve);
  });
  await Promise.race([once(worker, "message"), ended]);
  return { worker, ended };
}

const newControl = () => new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));

/** A machine with user data, an older record and something in the ring. */
function prepare(core: CoreExports, memory: WebAssembly.Memory, dataBase: WebAssembly.Memory = memory): void {
  writeConfig(memory, CONFIG);
  core.machineInit();
  assert.is(core.openCard(), 0);
  assert.is(core.recoverArea(), 0);
  new Uint8Array(memory.buffer, BOUNCE_BASE).set(USER);
  assert.is(core.blockWrite(0, 64), 0);
  assert.is(panicShared(core, memory, textFor(0, 0), false), 0);
  const said = line(0);
  new Uint8Array(memory.buffer, RING_INBOX).set(said);
  assert.is(core.writeRing(0, said.length), 0);
  assert.ok(sameBytes(mediumOf(dataBase).subarray(0, USER.length), USER));
}

function mediumOf(memory: WebAssembly.Memory): Uint8Array {
  return new Uint8Array(memory.buffer).slice(MEDIUM_BASE, MEDIUM_BASE + SECTORS * SECTOR_BYTES);
}

function recordsOf(memory: WebAssembly.Memory) {
  const from = AREA_LBA * SECTOR_BYTES;
  const until = from + SIZES.pmsgSize + ZONES * SIZES.kmsgSize;
  return decodeArea(mediumOf(memory).subarray(from, until), SIZES).records;
}

function stands(memory: WebAssembly.Memory, text: Uint8Array): boolean {
  return recordsOf(memory).some(
    (record) => record.type === "kmsg" && record.state === "ok" && sameBytes(textOf(record), text),
  );
}

test("the first actor comes back in the middle of the panic: as if it had not", async () => {
  const module = new WebAssembly.Module(onSharedMemory(coreBytes("explore")));
  const memory = makeMemory(SECTORS * SECTOR_BYTES, true);
  const bytes = new Uint8Array(memory.buffer);
  const control = newControl();
  let hook: (() => void) | null = null;
  const core = instantiate(module, memory, { mark: { hit: () => hook?.() } });
  prepare(core, memory);
  const before = bytes.slice();
  const thread = await startThread("stopped", { module, memory, control, index: 1 });
  const marksOf = SHARED_OPERATIONS.map((_, operation) => {
    bytes.set(before);
    let marks = 0;
    hook = () => marks++;
    assert.is(runShared(core, memory, operation), 0);
    hook = null;
    return marks;
  });

  /** The machine's memory at the end. The first actor comes back at mark `back` of the panic, or behind it. */
  const run = (operation: number, at: number, back: number): Uint8Array => {
    const what = `${SHARED_OPERATIONS[operation]} stopped at mark ${at}, back at ${back}`;
    bytes.set(before);
    control[OPERATION] = operation;
    control[AT] = at;
    passOn(control, WORKER);
    assert.is(control[FAILED], 0, what);
    assert.is(control[STATE], PAUSED, what);
    let passed = 0;
    hook = () => {
      if (passed++ !== back) return;
      passOn(control, WORKER);
      assert.is(control[STATE], DONE, what);
    };
    const text = textFor(2, 0);
    assert.is(panicShared(core, memory, text, true), 0, what);
    hook = null;
    panicMarks = passed;
    if (control[STATE] === PAUSED) passOn(control, WORKER);
    assert.is(control[STATE], DONE, what);
    assert.is(control[STATUS], -125, what);
    assert.ok(stands(memory, text) && stands(memory, textFor(0, 0)), what);
    return bytes.slice();
  };
  let panicMarks = 0;
  let tried = 0;
  let product = 0;
  const next = chance(seed);
  const perStop = 4;
  while (tried < pairs) {
    const operation =
      tried % (SHARED_OPERATIONS.length * perStop) === 0
        ? 0
        : Math.floor(tried / perStop) % SHARED_OPERATIONS.length;
    // The first mark is claim()'s or steal()'s: nothing is taken from him there.
    const at = 1 + next((marksOf[operation] as number) - 1);
    const expected = run(operation, at, Number.POSITIVE_INFINITY);
    product += panicMarks;
    const allowed: Range[] = operation === PANIC_OPERATION ? [...PANIC_OWN] : [...ROBBED_OWN];
    for (let i = 0; i < perStop; i++) {
      // Not before the panic has the host.
      const back = 1 + next(panicMarks - 1);
      const what = `${SHARED_OPERATIONS[operation]} stopped at mark ${at}, back at ${back}`;
      assert.equal(changed(expected, run(operation, at, back), allowed), [], what);
      tried++;
    }
  }
  control[OPERATION] = -1;
  Atomics.store(control, TURN, WORKER);
  Atomics.notify(control, TURN);
  assert.is(await thread.ended, 0);
  const stops = marksOf.reduce((sum, marks) => sum + marks - 1, 0);
  console.log(
    `# ${tried} of some ${stops} × ${Math.round((product / tried) * perStop)} pairs of marks, seed ${seed}`,
  );
});

/** One round of all threads, which begin together. */
function round(control: Int32Array, threads: number): void {
  Atomics.store(control, DONE, 0);
  Atomics.add(control, GO, 1);
  Atomics.notify(control, GO);
  awaitThreads(control, threads);
}

function awaitThreads(control: Int32Array, threads: number): void {
  for (let done = Atomics.load(control, DONE); done < threads; done = Atomics.load(control, DONE)) {
    Atomics.wait(control, DONE, done);
  }
  assert.is(control[FAILED], 0);
}

async function endThreads(control: Int32Array, threads: Thread[]): Promise<void> {
  Atomics.store(control, GO, -1);
  Atomics.notify(control, GO);
  for (const { ended } of threads) assert.is(await ended, 0);
}

test("shared: two threads panic at the same moment, a third writes to a ring", async () => {
  const module = coreModule("shared");
  const memory = makeMemory(SECTORS * SECTOR_BYTES, true);
  const bytes = new Uint8Array(memory.buffer);
  const core = instantiate(module, memory);
  prepare(core, memory);
  const before = bytes.slice();
  const control = newControl();
  const threads = [
    await startThread("panics", { module, memory, control, index: 0 }),
    await startThread("panics", { module, memory, control, index: 1 }),
    await startThread("says", { module, memory, control, index: 2 }),
  ];
  const counts = { won: 0, refused: 0, both: 0, lines: 0 };
  for (let n = 1; n <= rounds; n++) {
    bytes.set(before);
    round(control, threads.length);
    const statuses = [control[STATUS], control[STATUS + 1]];
    assert.ok(statuses.includes(0), `round ${n}: ${statuses}`);
    for (const [index, status] of statuses.entries()) {
      assert.ok(status === 0 || status === -16, `round ${n}: ${statuses}`);
      assert.is(stands(memory, textFor(index, n)), status === 0, `round ${n}, thread ${index}: ${status}`);
    }
    assert.ok(stands(memory, textFor(0, 0)));
    assert.ok(new DataView(memory.buffer).getBigUint64(RESULT_COMMIT_NS_LOW, true) > 0n);
    if (statuses.includes(-16)) counts.refused++;
    else counts.both++;
    counts.won++;
    counts.lines += checkRing(memory, core, control[WRITTEN] as number);
  }
  await endThreads(control, threads);
  console.log(
    `# ${rounds} rounds of two panics at once: ${counts.refused} refused one, in ${counts.both} both came in turn; ${counts.lines} lines`,
  );
});

/** What the panics left of the ring is true, and a flush brings all of it. Returns the lines written. */
function checkRing(memory: WebAssembly.Memory, core: CoreExports, written: number): number {
  const stream = Buffer.concat([line(0), ...Array.from({ length: written }, (_, i) => line(i))]);
  const view = () =>
    recordsOf(memory)
      .find(({ type }) => type === "pmsg")
      ?.bytes.slice() ?? null;
  const capacity = SIZES.pmsgSize - 12;
  const history = { type: "pmsg" as const, capacity, old: new Uint8Array(0), stream, acknowledged: 0 };
  assert.is.not(judgeRing(view(), history), "false");
  assert.is(core.flushRings(), 0);
  assert.ok(sameBytes(view() ?? new Uint8Array(0), stream.subarray(-capacity)));
  return written;
}

test("driver: a panic while another thread writes sectors through the same port", async () => {
  const module = new WebAssembly.Module(onSharedMemory(coreBytes("driver")));
  const device = coreModule("shared");
  const memory = makeMemory(0, true);
  const deviceMemory = makeMemory(SECTORS * SECTOR_BYTES, true);
  writeConfig(deviceMemory, CONFIG);
  instantiate(device, deviceMemory).machineInit();
  const control = newControl();
  const core = instantiate(module, memory, { port: portOf(device, deviceMemory, memory, control, null) });
  prepare(core, memory, deviceMemory);
  const before = new Uint8Array(memory.buffer).slice();
  const deviceBefore = new Uint8Array(deviceMemory.buffer).slice();
  const threads = [await startThread("writes", { module, memory, control, index: 0, device, deviceMemory })];
  const next = chance(seed);
  const ends = new Map<number, number>();
  for (let n = 1; n <= rounds; n++) {
    new Uint8Array(memory.buffer).set(before);
    new Uint8Array(deviceMemory.buffer).set(deviceBefore);
    Atomics.store(control, DONE, 0);
    Atomics.add(control, GO, 1);
    Atomics.notify(control, GO);
    // Some of his accesses later: the device's clock goes with them.
    const clock = new BigUint64Array(deviceMemory.buffer, 0x440, 1);
    const from = clock[0] as bigint;
    const startNs = from + BigInt(1 + next(400_000));
    while (Atomics.load(control, DONE) === 0 && (clock[0] as bigint) < startNs);
    const text = textFor(1, n);
    assert.is(panicShared(core, memory, text, false), 0, `round ${n}`);
    assert.ok(stands(deviceMemory, text) && stands(deviceMemory, textFor(0, 0)), `round ${n}`);
    awaitThreads(control, 1);
    const status = control[STATUS] as number;
    // Robbed in the middle; refused, or not disturbed at all, where the panic came between two writes.
    assert.ok(status === -125 || status === -16 || status === 0, `round ${n}: ${status}`);
    ends.set(status, (ends.get(status) ?? 0) + 1);
    const medium = mediumOf(deviceMemory);
    const mayBe = USER.slice();
    mayBe.set(fresh(), 10 * SECTOR_BYTES);
    for (let lba = 0; lba < AREA_LBA; lba++) {
      const now = medium.subarray(lba * SECTOR_BYTES, (lba + 1) * SECTOR_BYTES);
      const old = new Uint8Array(SECTOR_BYTES);
      old.set(USER.subarray(lba * SECTOR_BYTES, (lba + 1) * SECTOR_BYTES));
      const isFresh = sameBytes(now, mayBe.subarray(lba * SECTOR_BYTES, (lba + 1) * SECTOR_BYTES));
      assert.ok(sameBytes(now, old) || isFresh, `round ${n}: sector ${lba}`);
    }
  }
  await endThreads(control, threads);
  console.log(
    `# ${rounds} panics against a thread that writes: ${[...ends].map(([status, n]) => `${n} × ${status}`).join(", ")}; ${control[STRAYS]} accesses came between comparison and bus`,
  );
});

test.run();
