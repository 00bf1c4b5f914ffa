// What happens when a remote processor crashes, as in Linux's remoteproc: it is stopped, its memory is dumped as its
// `coredump` attribute says, it is started again. `enabled` copies the dump and goes on; `inline` holds the processor
// until the reader is done, and keeps nothing but headers. Where a dump waits, and for how long, is devcoredump.ts's;
// time is told there. Prints nothing. Nothing of Node.
import { MmcError } from "../errors.js";
import { bigint, bool, func, having, judge, object, required, type Shape, string } from "../judge.js";
import { ownBytes } from "../own-bytes.js";
import type { Devcoredump, DevcoredumpEnd, DevcoredumpSource } from "./devcoredump.js";
import type { CrashDump, DumpPlan } from "./dump.js";
import type { FailedRange } from "./failed-ranges.js";

const COREDUMP_MODES = ["disabled", "enabled", "inline"] as const;
/** The words of `/sys/class/remoteproc/remoteprocN/coredump`; `disabled` is the default. */
export type CoredumpMode = (typeof COREDUMP_MODES)[number];

/** As in `/sys/class/remoteproc/remoteprocN/state`. While a dump is read inline: `offline`. */
export type RemoteProcState = "offline" | "running" | "crashed";

export interface RemoteProcOptions {
  /** `remoteproc0`: the device that dumps are of. */
  name: string;
  /** Its memory; of this processor alone. Linux's layouts are `remoteproc` and `remoteproc-sections`. */
  dump: CrashDump;
  devcoredump: Devcoredump;
  coredump?: CoredumpMode;
  /** Whether a crash is recovered from at once; default true. */
  recovery?: boolean;
  /** How long a dump waits for its reader; default five minutes. */
  timeoutNs?: bigint;
  /** How the processor is stopped and started. They may throw, and must not call this object. */
  ops?: { stop?(): void; start?(): void };
}

// Objects are used as they are: their functions may be methods.
const OPTIONS: Shape<RemoteProcOptions> = {
  name: required(string),
  dump: required(having("plan")),
  devcoredump: required(having("add")),
  coredump: string,
  recovery: bool,
  timeoutNs: bigint,
  ops: object<NonNullable<RemoteProcOptions["ops"]>>({ stop: func, start: func }),
};

/** The dump of one crash. */
export interface RemoteProcCoredump {
  readonly mode: "enabled" | "inline";
  /** `waiting` for its reader, or how that ended; `failed`: there is no dump, see error. */
  readonly state: "waiting" | "failed" | DevcoredumpEnd;
  readonly error: MmcError | null;
  /** How long recovery waited for it; inline, set at its end. */
  readonly waitedNs: bigint;
  /** What could not be read and is 0xff in it; inline, of what was read of it until its end. */
  readonly failures: readonly FailedRange[];
}

/** All that belongs to one dump: nothing of it is the processor's. */
class Coredump implements RemoteProcCoredump, DevcoredumpSource {
  readonly mode: "enabled" | "inline";
  state: RemoteProcCoredump["state"] = "waiting";
  error: MmcError | null = null;
  waitedNs = 0n;
  failures: readonly FailedRange[] = [];
  /** Called at the end of an inline dump, when the processor is free. */
  onFree: () => void = () => undefined;
  #plan: DumpPlan | null = null;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(mode: "enabled" | "inline") {
    this.mode = mode;
  }

  /** Plans the file, and when `enabled` copies it. False, with `error`, if it cannot. */
  take(name: string, dump: CrashDump): boolean {
    try {
      this.#plan = dump.plan();
      if (this.mode === "inline") return true;
      this.#bytes = this.#plan.read(0, this.#plan.sizeBytes);
      this.#release();
      return true;
    } catch (error) {
      const { sizeBytes } = this.#plan ?? { sizeBytes: 0 };
      this.#release();
      this.state = "failed";
      if (error instanceof MmcError) this.error = error;
      // What the engine throws for a buffer that it cannot give.
      else if (error instanceof RangeError) {
        this.error = new MmcError("ENOMEM", `${name}: no memory for a dump of ${sizeBytes} bytes`, {
          cause: error,
        });
      } else throw error;
      return false;
    }
  }

  read(offset: number, count: number): Uint8Array {
    if (this.#plan !== null) return this.#plan.read(offset, count);
    return ownBytes(this.#bytes, offset, offset + count);
  }

  free(end: DevcoredumpEnd): void {
    this.state = end;
    this.#release();
    this.#bytes = new Uint8Array(0);
    this.onFree();
  }

  #release(): void {
    if (this.#plan === null) return;
    this.failures = this.#plan.failures();
    this.#plan.release();
    this.#plan = null;
  }
}

/** One remote processor; it is made running. */
export class RemoteProc {
  readonly name: string;
  readonly #dump: CrashDump;
  readonly #devcoredump: Devcoredump;
  readonly #timeoutNs: bigint | undefined;
  readonly #ops: NonNullable<RemoteProcOptions["ops"]>;
  #state: RemoteProcState = "running";
  #mode: CoredumpMode;
  #recovers: boolean;
  #last: Coredump | null = null;
  #recoveryError: unknown = null;
  #isRecovering = false;
  #isInOps = false;
  /** What was asked for during a recovery, and is done after it. */
  #stopWaits = false;
  #crashWaits = false;

  /** @throws MmcError EINVAL a mode or a timeout that is none. */
  constructor(options: RemoteProcOptions) {
    judge("", options, OPTIONS);
    if (options.timeoutNs !== undefined && options.timeoutNs < 1n) {
      throw new MmcError("EINVAL", `${options.name}: a dump cannot wait ${options.timeoutNs} ns`);
    }
    this.name = options.name;
    this.#dump = options.dump;
    this.#devcoredump = options.devcoredump;
    this.#timeoutNs = options.timeoutNs;
    this.#ops = options.ops ?? {};
    this.#recovers = options.recovery ?? true;
    this.#mode = this.#modeOf(options.coredump ?? "disabled");
  }

  get state(): RemoteProcState {
    return this.#state;
  }

  get coredump(): CoredumpMode {
    return this.#mode;
  }

  get recovery(): "enabled" | "disabled" {
    return this.#recovers ? "enabled" : "disabled";
  }

  /** True between stop and start: inline, until the reader is done. */
  get isRecovering(): boolean {
    return this.#isRecovering;
  }

  /** The dump of the last crash that had one. */
  get lastCoredump(): RemoteProcCoredump | null {
    return this.#last;
  }

  /** What ops threw in the last recovery, or in the stop that waited for it; null: nothing. */
  get recoveryError(): unknown {
    return this.#recoveryError;
  }

  /**
   * The attribute `coredump`: the whole word, with a newline or without. It counts from the next crash on.
   * @throws MmcError EINVAL another word; EBUSY the state is `crashed`.
   */
  writeCoredump(text: string): void {
    const mode = this.#modeOf(text.replace(/\n$/, ""));
    if (this.#state === "crashed") {
      throw new MmcError("EBUSY", `${this.name}: coredump cannot be changed while it is crashed`);
    }
    this.#mode = mode;
  }

  /**
   * The attribute `recovery`: `enabled` also recovers a processor that is crashed, `recover` does that alone.
   * @throws MmcError EINVAL another word.
   */
  writeRecovery(text: string): void {
    const word = text.replace(/\n$/, "");
    if (word !== "enabled" && word !== "disabled" && word !== "recover") {
      throw new MmcError("EINVAL", `${this.name}: recovery ${word}: is not enabled, disabled or recover`);
    }
    if (word !== "recover") this.#recovers = word === "enabled";
    if (word !== "disabled" && this.#state === "crashed") this.#recover();
  }

  /**
   * The processor has crashed. During a recovery this waits for its end; if the processor does not run, it is nothing.
   * @throws MmcError EBUSY from inside of ops.
   */
  reportCrash(): void {
    this.#checkNotInOps();
    if (this.#isRecovering) this.#crashWaits = true;
    else if (this.#state === "running") {
      this.#state = "crashed";
      if (this.#recovers) this.#recover();
    }
  }

  /** Stops it; during a recovery, at its end. @throws MmcError EINVAL it does not run; and what ops throw. */
  stop(): void {
    this.#checkNotInOps();
    if (this.#isRecovering) this.#stopWaits = true;
    else if (this.#state !== "running") {
      throw new MmcError("EINVAL", `${this.name}: is ${this.#state}, not running`);
    } else {
      this.#call("stop");
      this.#state = "offline";
    }
  }

  /** Starts it. @throws MmcError EBUSY it is not offline, or recovers; and what ops throw. */
  start(): void {
    this.#checkNotInOps();
    if (this.#state !== "offline" || this.#isRecovering) {
      throw new MmcError("EBUSY", `${this.name}: is ${this.#isRecovering ? "recovering" : this.#state}`);
    }
    this.#call("start");
    this.#state = "running";
  }

  #modeOf(word: string): CoredumpMode {
    const mode = COREDUMP_MODES.find((one) => one === word);
    if (mode !== undefined) return mode;
    throw new MmcError("EINVAL", `${this.name}: coredump ${word}: is none of ${COREDUMP_MODES.join(", ")}`);
  }

  #checkNotInOps(): void {
    if (this.#isInOps) throw new MmcError("EBUSY", `${this.name}: is being stopped or started`);
  }

  #call(op: "stop" | "start"): void {
    this.#isInOps = true;
    try {
      this.#ops[op]?.();
    } finally {
      this.#isInOps = false;
    }
  }

  #recover(): void {
    this.#recoveryError = null;
    try {
      this.#call("stop");
    } catch (error) {
      this.#recoveryError = error;
      return;
    }
    this.#state = "offline";
    this.#isRecovering = true;
    if (!this.#waitsForReader()) this.#endRecovery();
  }

  /** Makes the dump; true if recovery goes on only when its reader is done. */
  #waitsForReader(): boolean {
    if (this.#mode === "disabled") return false;
    const coredump = new Coredump(this.#mode);
    this.#last = coredump;
    if (!coredump.take(this.name, this.#dump)) return false;
    const startNs = this.#devcoredump.nowNs;
    const entry = this.#devcoredump.add(this.name, coredump, this.#timeoutNs);
    if (entry === null || coredump.mode === "enabled") return false;
    coredump.onFree = () => {
      coredump.waitedNs = this.#devcoredump.nowNs - startNs;
      this.#endRecovery();
    };
    return true;
  }

  #endRecovery(): void {
    const [stops, crashes] = [this.#stopWaits, this.#crashWaits];
    this.#stopWaits = false;
    this.#crashWaits = false;
    this.#isRecovering = false;
    try {
      this.start();
      if (stops) this.stop();
    } catch (error) {
      this.#recoveryError = error;
    }
    if (crashes) this.reportCrash();
  }
}
