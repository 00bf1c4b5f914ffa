// The one way into a device. Every public method of Device goes through run(), which judges what holds for all of them:
// whether the machine has power, whether another call is under way, and to which call an error of the medium belongs.
// What calls back out of a call (a medium, a trace, a source, a bus) is announced by enter() and leave(), and nothing
// that would disturb the call it is part of gets past it. Nothing of Node.
import type { MediumFailures } from "./core/external-medium.js";
import { MmcError } from "./errors.js";

/** HOST_POWERED of a machine that is off; on; on, and its card was identified since. */
export const POWER_OFF = 0;
export const POWER_ON = 1;
export const POWER_IDENTIFIED = 2;

interface Rule {
  /** `card`: a machine that is on and has found its card; `power`: one that is on. */
  needs: "card" | "power" | "nothing";
  /**
   * `uses`: runs the machine. `sets`: changes something without running it. Neither can be called from a callback.
   * `reads`: changes nothing, and can.
   */
  does: "uses" | "sets" | "reads";
}

const uses = (needs: Rule["needs"]): Rule => ({ needs, does: "uses" });
const SETS: Rule = { needs: "nothing", does: "sets" };
const READS: Rule = { needs: "nothing", does: "reads" };

/** Every public method and getter of Device. tests/device-calls.test.ts holds that none is missing. */
export const DEVICE_CALLS = {
  read: uses("card"),
  write: uses("card"),
  erase: uses("card"),
  flush: uses("card"),
  leaveInFlight: uses("card"),
  leaveWriteInFlight: uses("card"),
  flushRings: uses("card"),
  registers: uses("card"),
  // A panic identifies the card by itself, and the rings are memory.
  panicWrite: uses("power"),
  writePmsg: uses("power"),
  writeConsole: uses("power"),
  writeFtrace: uses("power"),
  powerOn: uses("nothing"),
  powerCut: uses("nothing"),
  insertCard: uses("nothing"),
  idle: uses("nothing"),
  injectFault: SETS,
  clearFaults: SETS,
  registerRegion: SETS,
  unregisterRegion: SETS,
  connectDma: SETS,
  saveState: SETS,
  loadState: SETS,
  clearTrace: SETS,
  drainTrace: SETS,
  takeMediumFailure: SETS,
  takeTraceFailure: SETS,
  trace: READS,
  state: READS,
  medium: READS,
  sizeBytes: READS,
  memory: READS,
  core: READS,
  externalMedium: READS,
  dumpNotes: READS,
} as const satisfies Record<string, Rule>;

export type DeviceCall = keyof typeof DEVICE_CALLS;

/** Where calls back out of the device happen. */
export type DeviceCallback =
  | "medium.read"
  | "medium.write"
  | "medium.erase"
  | "medium.saveState"
  | "medium.loadState"
  | "onTrace"
  | "source"
  | "dma.read"
  | "dma.write"
  | "dma.written"
  | "mark.hit";

export class DeviceCalls {
  readonly #power: () => number;
  readonly #failures: MediumFailures;
  #underWay: DeviceCall | null = null;
  #callback: DeviceCallback | null = null;

  constructor(power: () => number, failures: MediumFailures) {
    this.#power = power;
    this.#failures = failures;
  }

  /** True in all callbacks of panicWrite(), marks included. */
  get isInPanic(): boolean {
    return this.#underWay === "panicWrite";
  }

  /**
   * Runs `body` as the call `name`.
   * @throws MmcError EBUSY from a callback, unless the call only reads; ENODEV without the power or the card it needs
   */
  run<T>(name: DeviceCall, body: () => T): T {
    const rule: Rule = DEVICE_CALLS[name];
    if (rule.does === "reads") return body();
    this.#refuseInside(name);
    this.#refuseWithout(name, rule.needs);
    if (rule.does === "sets") return body();
    const [outer, callback] = [this.#underWay, this.#callback];
    this.#underWay = name;
    this.#callback = null;
    this.#failures.begin();
    try {
      return body();
    } finally {
      this.#underWay = outer;
      this.#callback = callback;
      this.#failures.end();
    }
  }

  /** The host is called back; what this returns belongs to leave(). */
  enter(callback: DeviceCallback): DeviceCallback | null {
    const outer = this.#callback;
    this.#callback = callback;
    return outer;
  }

  leave(outer: DeviceCallback | null): void {
    this.#callback = outer;
  }

  /**
   * A mark stands between two accesses of the driver, where any CPU can stop and panic; every other callback stands in
   * the middle of one, which no CPU can see: the card is a whole again when it returns.
   */
  #refuseInside(name: DeviceCall): void {
    if (this.#callback === null) return;
    if (name === "panicWrite" && this.#callback === "mark.hit" && !this.isInPanic) return;
    const during = this.#underWay === null ? "an access" : `${this.#underWay}()`;
    throw new MmcError("EBUSY", `${name}: called from ${this.#callback} while ${during} is under way`);
  }

  #refuseWithout(name: DeviceCall, needs: Rule["needs"]): void {
    const power = this.#power();
    if (needs === "nothing" || power === POWER_IDENTIFIED) return;
    if (power === POWER_OFF) throw new MmcError("ENODEV", `${name}: the device has no power`);
    if (needs === "card") {
      throw new MmcError("ENODEV", `${name}: no card was identified since the power came`);
    }
  }
}
