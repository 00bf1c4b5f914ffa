// What both threads of actors-threads.test.ts know: the words by which they wait for each other, the operations, the
// texts. No clock: who comes when is told by the words, or is the machine's own chance.
import { BOUNCE_BASE, CLOCK_NOW, OWNER_WORD, SECTOR_BYTES, TEXT_BASE } from "../../assembly/layout.js";
import { type CoreExports, type CoreImports, instantiate } from "../../host/core/instantiate.js";
import { explorationText } from "../../host/explore/explore.js";
import { pattern } from "../machine.js";

export type Role = "stopped" | "panics" | "says" | "writes";

// Words of the control block.
export const TURN = 0; // MAIN or WORKER
export const OPERATION = 1; // of runShared(); −1 ends the thread
export const AT = 2; // mark at which it stops
export const STATE = 3; // PAUSED or DONE
export const GO = 4; // rounds begun; −1 ends the threads
export const DONE = 5; // threads that have ended their round
export const LOCK = 6; // of the port
export const STRAYS = 7; // accesses behind a robbery
export const WRITTEN = 8; // lines in the ring
export const READY = 9; // threads that are about to panic, of all rounds
export const FAILED = 10; // 1: a thread has thrown
export const STATUS = 11; // … and STATUS + index of each thread
export const CONTROL_WORDS = 32;

export const MAIN = 0;
export const WORKER = 1;
export const PAUSED = 1;

/** Gives the turn to `whose` and waits until it comes back. */
export function passOn(control: Int32Array, whose: number): void {
  const mine = whose === MAIN ? WORKER : MAIN;
  Atomics.store(control, TURN, whose);
  Atomics.notify(control, TURN);
  while (Atomics.load(control, TURN) !== mine) Atomics.wait(control, TURN, whose);
}

/** How many threads panic at once. */
export const PANICKING = 2;

export function fresh(): Uint8Array {
  return pattern(4, 2 * SECTOR_BYTES);
}

export function textFor(index: number, round: number): Uint8Array {
  return explorationText(`thread ${index} round ${round}`, 600 + 40 * index);
}

export function line(n: number): Uint8Array {
  return new TextEncoder().encode(`line ${n} of a thread that says something\n`);
}

/** Names of runShared(), by number. */
export const SHARED_OPERATIONS = [
  "write",
  "read",
  "erase",
  "flush",
  "flush the rings",
  "read CID",
  "open the card",
  "recover the area",
  "panic",
] as const;
export const PANIC_OPERATION = 8;

export function runShared(core: CoreExports, memory: WebAssembly.Memory, operation: number): number {
  switch (operation) {
    case 0:
      new Uint8Array(memory.buffer, BOUNCE_BASE).set(fresh());
      return core.blockWrite(10, 2);
    case 1:
      return core.blockRead(0, 2);
    case 2:
      return core.blockErase(20, 23);
    case 3:
      return core.blockFlush();
    case 4:
      return core.flushRings();
    case 5:
      return core.readCardRegister(10, 16, 0);
    case 6:
      return core.openCard();
    case 7:
      return core.recoverArea();
    default:
      return panicShared(core, memory, textFor(1, 0), false);
  }
}

export function panicShared(
  core: CoreExports,
  memory: WebAssembly.Memory,
  text: Uint8Array,
  force: boolean,
): number {
  const token = core.panicTake(1, 500, 0, 0, force ? 1 : 0);
  if ((token & 0xff) !== 0xff) return token;
  new Uint8Array(memory.buffer, TEXT_BASE, text.length).set(text);
  return core.panicRun(token, text.length);
}

/** The port of a driver whose controller two threads reach: one access at a time, as on a bus. */
export function portOf(
  device: WebAssembly.Module,
  deviceMemory: WebAssembly.Memory,
  driverMemory: WebAssembly.Memory,
  control: Int32Array,
  strays: number | null,
): NonNullable<CoreImports["port"]> {
  const core = instantiate(device, deviceMemory);
  const clock = new Uint32Array(deviceMemory.buffer);
  const owner = new Int32Array(driverMemory.buffer);
  const alone = <T>(access: () => T): T => {
    while (Atomics.compareExchange(control, LOCK, 0, 1) !== 0);
    // Between the comparison in the driver and this place a panic may have come.
    if (strays !== null && (Atomics.load(owner, OWNER_WORD >> 2) & 0xff) === 0xff)
      Atomics.add(control, strays, 1);
    try {
      return access();
    } finally {
      Atomics.store(control, LOCK, 0);
    }
  };
  return {
    read: (offset, bytes) =>
      alone(() =>
        bytes === 1
          ? core.mmioRead8(offset)
          : bytes === 2
            ? core.mmioRead16(offset)
            : core.mmioRead32(offset),
      ),
    write: (offset, bytes, value) =>
      alone(() => {
        if (bytes === 1) core.mmioWrite8(offset, value);
        else if (bytes === 2) core.mmioWrite16(offset, value);
        else core.mmioWrite32(offset, value);
      }),
    delay: (lengthNs) => alone(() => core.idleNs(lengthNs)),
    nowLow: () => clock[CLOCK_NOW >> 2] as number,
    nowHigh: () => clock[(CLOCK_NOW >> 2) + 1] as number,
  };
}
