// The second thread of actors-threads.test.ts. It shares the machine's memory with the first, has an instance of its
// own, and waits by Atomics.wait() until it is its turn.
import { parentPort, workerData } from "node:worker_threads";
import { BOUNCE_BASE, RING_INBOX, TEXT_BASE } from "../../assembly/layout.js";
import { instantiate } from "../../host/core/instantiate.js";
import {
  AT,
  CONTROL_WORDS,
  DONE,
  FAILED,
  fresh,
  GO,
  line,
  MAIN,
  OPERATION,
  PANICKING,
  PAUSED,
  passOn,
  portOf,
  READY,
  type Role,
  runShared,
  STATE,
  STATUS,
  STRAYS,
  TURN,
  textFor,
  WORKER,
  WRITTEN,
} from "./shared-scene.js";

const { role, module, memory, control, index, device, deviceMemory } = workerData as {
  role: Role;
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  control: Int32Array;
  index: number;
  device?: WebAssembly.Module;
  deviceMemory?: WebAssembly.Memory;
};

/** One operation at a time, which is stopped at one of its marks until the other thread says so. */
function beStopped(): void {
  let passed = 0;
  const hit = () => {
    if (passed++ !== control[AT]) return;
    control[STATE] = PAUSED;
    passOn(control, MAIN);
  };
  const core = instantiate(module, memory, { mark: { hit } });
  for (;;) {
    while (Atomics.load(control, TURN) !== WORKER) Atomics.wait(control, TURN, MAIN);
    if ((control[OPERATION] as number) < 0) return;
    passed = 0;
    control[STATUS] = runShared(core, memory, control[OPERATION] as number);
    control[STATE] = DONE;
    Atomics.store(control, TURN, MAIN);
    Atomics.notify(control, TURN);
  }
}

/** Waits for the next round; false: there is none. */
function nextRound(round: number): boolean {
  while (Atomics.load(control, GO) === round) Atomics.wait(control, GO, round);
  return Atomics.load(control, GO) >= 0;
}

/** The round is over for this thread. `word`: where its status goes. */
function endRound(word: number, status: number): void {
  Atomics.store(control, word, status);
  Atomics.add(control, DONE, 1);
  Atomics.notify(control, DONE);
}

function panicInRounds(): void {
  const core = instantiate(module, memory);
  for (let round = 0; nextRound(round); round++) {
    const text = textFor(index, round + 1);
    // Both run when they have seen each other here.
    Atomics.add(control, READY, 1);
    while (Atomics.load(control, READY) < (round + 1) * PANICKING);
    let status = core.panicTake(1, 1000 + round, 0, 0, 0);
    if ((status & 0xff) === 0xff) {
      new Uint8Array(memory.buffer, TEXT_BASE, text.length).set(text);
      status = core.panicRun(status, text.length);
    }
    endRound(STATUS + index, status);
  }
}

/** Writes to the pmsg ring as long as the round lasts; what was refused is said again. */
function sayInRounds(): void {
  const core = instantiate(module, memory);
  for (let round = 0; nextRound(round); round++) {
    let written = 0;
    let status = 0;
    for (let i = 0; i < 200 && (status === 0 || status === -16); i++) {
      const bytes = line(written);
      new Uint8Array(memory.buffer, RING_INBOX, bytes.length).set(bytes);
      status = core.writeRing(0, bytes.length);
      if (status === 0) written++;
    }
    Atomics.store(control, WRITTEN, written);
    endRound(STATUS + index, status);
  }
}

/** Writes sectors through a port that is shared with the thread that panics, until it is robbed. */
function writeInRounds(): void {
  if (device === undefined || deviceMemory === undefined) throw new Error("no device");
  const core = instantiate(module, memory, { port: portOf(device, deviceMemory, memory, control, STRAYS) });
  for (let round = 0; nextRound(round); round++) {
    let status = 0;
    for (let i = 0; i < 300 && status === 0; i++) {
      const bytes = fresh();
      new Uint8Array(memory.buffer, BOUNCE_BASE, bytes.length).set(bytes);
      status = core.blockWrite(10, bytes.length / 512);
    }
    endRound(STATUS + index, status);
  }
}

const ROLES: Record<Role, () => void> = {
  stopped: beStopped,
  panics: panicInRounds,
  says: sayInRounds,
  writes: writeInRounds,
};
// Whoever started it waits without an event loop from here on, and would wait for ever for a thread that has ended.
parentPort?.postMessage("ready");
try {
  ROLES[role]();
} catch (error) {
  Atomics.store(control, FAILED, 1);
  Atomics.store(control, TURN, MAIN);
  Atomics.notify(control, TURN);
  Atomics.add(control, DONE, CONTROL_WORDS);
  Atomics.notify(control, DONE);
  throw error;
}
