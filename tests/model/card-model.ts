// A second, much smaller card: states, status bits and stored sectors, written from mmc.md §1.1-1.5 and §2.1-2.3 without
// a look at assembly/card. It has no time: an operation is busy until settle() is called. Used to predict what the
// simulated card answers to random sequences of commands.

export type Kind = "emmc" | "sd";
type State = "idle" | "ready" | "ident" | "stby" | "tran" | "data" | "rcv" | "prg" | "dis" | "slp" | "ina";

const CODES: Record<State, number> = {
  idle: 0,
  ready: 1,
  ident: 2,
  stby: 3,
  tran: 4,
  data: 5,
  rcv: 6,
  prg: 7,
  dis: 8,
  slp: 10,
  ina: 15,
};

const OUT_OF_RANGE = 0x80000000;
const ERASE_SEQ_ERROR = 1 << 28;
const ERASE_PARAM = 1 << 27;
const ILLEGAL_COMMAND = 1 << 22;
const BLOCK_LEN_ERROR = 1 << 29;
const ERASE_RESET = 1 << 13;
const READY_FOR_DATA = 1 << 8;
const SWITCH_ERROR = 1 << 7;
const APP_CMD = 1 << 5;

/** Sectors of an erase group: 512 KiB. */
const GROUP = 1024;

export type Answer =
  | { kind: "silent" }
  | { kind: "r1"; status: number }
  /** A response whose content the model does not predict: R2, R3, R6, R7. */
  | { kind: "other" };

const SILENT: Answer = { kind: "silent" };
const OTHER: Answer = { kind: "other" };

export class CardModel {
  state: State = "idle";
  busy = false;
  readonly sectors = new Map<number, Uint8Array>();
  /** Blocks still to come in a counted transfer; null: open-ended. */
  left: number | null = null;
  lba = 0;
  /** After an error in a transfer nothing more moves until CMD12. */
  broken = false;
  multiple = false;
  #kind: Kind;
  #size: number;
  #rca: number;
  #pending = 0;
  #app = false;
  #count: number | null = null;
  #eraseStep: "none" | "first" | "both" = "none";
  #eraseFirst = 0;
  #eraseLast = 0;
  #busyEnds: (() => void) | null = null;

  /** `rca`: the address that the host gives an eMMC, or that the SD card is known to publish. */
  constructor(kind: Kind, sizeSectors: number, rca: number) {
    this.#kind = kind;
    this.#size = sizeSectors;
    this.#rca = rca;
  }

  /** Everything the card was doing is done. */
  settle(): void {
    if (!this.busy) return;
    this.busy = false;
    this.#busyEnds?.();
    this.#busyEnds = null;
    if (this.state === "prg") this.state = "tran";
    else if (this.state === "dis") this.state = "stby";
  }

  sector(lba: number): Uint8Array {
    return this.sectors.get(lba) ?? new Uint8Array(512);
  }

  #r1(errors = 0, state: State = this.state): Answer {
    let status = this.#pending | errors | (CODES[state] << 9);
    if (!this.busy) status |= READY_FOR_DATA;
    if (this.#app) status |= APP_CMD;
    this.#pending = 0;
    return { kind: "r1", status: status >>> 0 };
  }

  /** The probes of other cards, SDIO's and SD's, are no business of this one: silence and no complaint. */
  #isProbe(index: number): boolean {
    if (this.#kind === "sd") return index === 5 || index === 52 || index === 53;
    return this.state === "idle" && [5, 8, 52, 55].includes(index);
  }

  #illegal(index: number): Answer {
    this.#app = false;
    this.#count = null;
    if (!this.#isProbe(index)) this.#pending |= ILLEGAL_COMMAND;
    return SILENT;
  }

  #begin(end: (() => void) | null): void {
    this.busy = true;
    this.#busyEnds = end;
  }

  /** A command without a data phase of the host's; block commands too, whose data the tester moves. */
  command(index: number, argument: number): Answer {
    if (this.state === "ina") return SILENT;
    const emmc = this.#kind === "emmc";
    const [start, end] = emmc ? [35, 36] : [32, 33];
    const belongsToErase = index === start || index === end || index === 38 || index === 13;
    if (this.state === "slp" && this.busy && index !== 0) return SILENT;
    if (this.#eraseStep !== "none" && !belongsToErase) {
      this.#eraseStep = "none";
      this.#pending |= ERASE_RESET;
    }
    const app = this.#app && !emmc && [6, 13, 22, 23, 41, 42, 51].includes(index);
    if (!this.#legal(index, app)) return this.#illegal(index);
    const named = [9, 10, 13, 15, 55].includes(index) && !app && !(index === 55 && this.state === "idle");
    if (named && argument >>> 16 !== this.#rca) return SILENT;
    const answer = app ? this.#appCommand(index) : this.#plain(index, argument, start, end);
    if (answer.kind !== "silent") this.#pending &= ~ILLEGAL_COMMAND;
    if (index !== 55) this.#app = false;
    if (index !== 23) this.#count = null;
    return answer;
  }

  #legal(index: number, app: boolean): boolean {
    const emmc = this.#kind === "emmc";
    const selected = ["stby", "tran", "data", "rcv", "prg", "dis"].includes(this.state);
    const is = (...states: State[]) => states.includes(this.state);
    if (app) return index === 41 ? is("idle") : is("tran");
    switch (index) {
      case 0:
        return true;
      case 1:
        return emmc && is("idle");
      case 2:
        return is("ready");
      case 3:
        return emmc ? is("ident") : is("ident", "stby");
      case 5:
        return emmc && is("stby", "slp");
      case 7:
        return is("stby", "tran", "data", "prg", "dis");
      case 9:
      case 10:
        return is("stby");
      case 12:
        return emmc ? is("data", "rcv", "prg") : is("data", "rcv");
      case 13:
      case 15:
        return selected;
      case 55:
        return selected || (!emmc && is("idle"));
      case 16:
      case 17:
      case 18:
      case 23:
      case 24:
      case 25:
      case 38:
        return is("tran");
      case 6:
      case 35:
      case 36:
        return emmc && is("tran");
      case 32:
      case 33:
        return !emmc && is("tran");
      default:
        return false;
    }
  }

  #appCommand(index: number): Answer {
    if (index === 41) return OTHER;
    return this.#r1();
  }

  #plain(index: number, argument: number, start: number, end: number): Answer {
    if (index !== 55) this.#app = false;
    const before = this.state;
    switch (index) {
      case 0:
        // What was being programmed is lost: the machine is told to keep the old bytes.
        this.busy = false;
        this.#busyEnds = null;
        this.state = "idle";
        this.#pending = 0;
        this.#eraseStep = "none";
        this.#rca = this.#kind === "emmc" ? 1 : 0;
        return SILENT;
      case 2:
        this.state = "ident";
        return OTHER;
      case 3:
        this.state = "stby";
        if (this.#kind === "sd") return OTHER;
        this.#rca = argument >>> 16;
        return this.#r1(0, before);
      case 5:
        return this.#sleep(argument);
      case 6: {
        const answer = this.#r1();
        // Only the harmless byte of the test: ERASE_GROUP_DEF = 1; everything else is refused, at once.
        if (argument === 0x03af0101) {
          this.state = "prg";
          this.#begin(null);
        } else this.#pending |= SWITCH_ERROR;
        return answer;
      }
      case 7:
        return this.#select(argument);
      case 9:
      case 10:
        return OTHER;
      case 12:
        return this.#stop();
      case 15:
        this.state = "ina";
        return SILENT;
      case 16:
        return this.#r1(argument === 512 ? 0 : BLOCK_LEN_ERROR);
      case 17:
      case 18:
      case 24:
      case 25:
        return this.#transfer(index, argument);
      case 23: {
        this.#count = this.#kind === "emmc" ? argument & 0xffff : argument;
        return this.#r1();
      }
      case 38:
        return this.#erase(argument);
      case 55:
        this.#app = true;
        return this.#r1();
      default:
        if (index === start || index === end) return this.#eraseBound(index === end, argument);
        return this.#r1();
    }
  }

  #sleep(argument: number): Answer {
    if (argument >>> 16 !== this.#rca) return SILENT;
    const wantsSleep = (argument & 0x8000) !== 0;
    if (wantsSleep !== (this.state === "stby")) return this.#illegal(5);
    const answer = this.#r1();
    this.state = wantsSleep ? "slp" : "stby";
    this.#begin(null);
    return answer;
  }

  #select(argument: number): Answer {
    const before = this.state;
    if (argument >>> 16 === this.#rca && this.#rca !== 0) {
      if (before === "stby") this.state = "tran";
      else if (before === "dis") this.state = "prg";
      else return this.#illegal(7);
      return this.#r1(0, before);
    }
    if (before === "tran" || before === "data") this.state = "stby";
    else if (before === "prg") this.state = "dis";
    return SILENT;
  }

  #stop(): Answer {
    // HPI is not switched on in these tests: CMD12 in prg is illegal with and without bit 0.
    if (this.state === "prg") return this.#illegal(12);
    const answer = this.#r1();
    if (this.state === "data") this.state = "tran";
    else this.state = this.busy ? "prg" : "tran";
    return answer;
  }

  #transfer(index: number, argument: number): Answer {
    if (argument >= this.#size) return this.#r1(OUT_OF_RANGE);
    const answer = this.#r1();
    const multiple = index === 18 || index === 25;
    this.left = multiple ? (this.#count === null || this.#count === 0 ? null : this.#count) : 1;
    this.lba = argument;
    this.broken = false;
    this.multiple = multiple;
    this.state = index >= 24 ? "rcv" : "data";
    return answer;
  }

  /** The next block of a read; null: none comes, because the end of the card is reached. */
  take(): Uint8Array | null {
    if (this.state !== "data" || this.broken) return null;
    if (this.lba >= this.#size) {
      this.#pending |= OUT_OF_RANGE;
      this.broken = true;
      if (!this.multiple) this.state = "tran";
      return null;
    }
    const block = this.sector(this.lba++);
    if (this.left !== null && --this.left === 0) this.state = "tran";
    return block;
  }

  /** Nobody listens, but the clock runs: a counted read comes to its end, or to the end of the card. */
  drain(): void {
    while (this.state === "data" && this.left !== null && this.take() !== null);
  }

  /** A block arrives: taken, refused (CRC status 111), or nobody is there to take it. */
  give(block: Uint8Array): "taken" | "refused" | "ignored" {
    if (this.state !== "rcv" || this.broken) return "ignored";
    if (this.lba >= this.#size) {
      this.#pending |= OUT_OF_RANGE;
      this.broken = true;
      return "refused";
    }
    const lba = this.lba++;
    if (this.left !== null && --this.left === 0) this.state = "prg";
    this.#begin(() => this.sectors.set(lba, block));
    return "taken";
  }

  #eraseBound(isLast: boolean, argument: number): Answer {
    if (argument >= this.#size) {
      this.#eraseStep = "none";
      return this.#r1(OUT_OF_RANGE);
    }
    if (isLast && this.#eraseStep !== "first") {
      this.#eraseStep = "none";
      return this.#r1(ERASE_SEQ_ERROR);
    }
    if (isLast) this.#eraseLast = argument;
    else this.#eraseFirst = argument;
    this.#eraseStep = isLast ? "both" : "first";
    return this.#r1();
  }

  #erase(argument: number): Answer {
    const ready = this.#eraseStep === "both";
    this.#eraseStep = "none";
    if (!ready) return this.#r1(ERASE_SEQ_ERROR);
    const kinds = this.#kind === "emmc" ? [0, 1, 3] : [0];
    if (this.#eraseFirst > this.#eraseLast || !kinds.includes(argument)) return this.#r1(ERASE_PARAM);
    const answer = this.#r1();
    let first = this.#eraseFirst;
    let last = this.#eraseLast;
    if (this.#kind === "emmc" && argument === 0) {
      first -= first % GROUP;
      last = Math.min(last - (last % GROUP) + GROUP - 1, this.#size - 1);
    }
    this.state = "prg";
    this.#begin(() => {
      for (let lba = first; lba <= last; lba++) this.sectors.delete(lba);
    });
    return answer;
  }
}
