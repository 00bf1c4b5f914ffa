// A script of steps that a legal driver could take, run on two sides at once and compared after each step. What legal
// means where QEMU deviates, and what is left out of the comparison, is named as in docs/QEMU.md.
import fc from "fast-check";
import { makeImage } from "./sdhci-pci.js";
import { type Answer, DAT_INHIBIT, hex, MODE, REG, RESET, Session } from "./session.js";
import { DMA_BYTES, OurSide, QemuSide } from "./sides.js";

/** Sectors that scripts write to: the first ones, and the last ones of the card. */
const SECTORS = 64;
const LAST_SECTORS = 8;
const BLOCKS_MAX = 4;
const STATUS_ERROR = 0x8000;
const STATUS_TIMEOUT = 0x10000;
/** In a side's DMA memory: a descriptor at 0, data here. */
const DMA_DATA = 0x1000;
/** ADMA2: valid, end, data. */
const DESCRIPTOR = 0x23;

type How = "pio" | "sdma" | "adma";

export type Step =
  | { kind: "command"; index: number; argument: number | "rca"; answer: Answer }
  | { kind: "app"; index: number }
  | { kind: "register block"; index: number; words: number }
  | {
      kind: "data";
      write: boolean;
      multiple: boolean;
      lba: number;
      blocks: number;
      words: number;
      auto: boolean;
      how: How;
    }
  | { kind: "port"; words: number; write: boolean }
  | { kind: "again" | "reset all" | "disable and enable" }
  | { kind: "switch"; argument: number }
  | { kind: "force"; bits: number }
  | { kind: "erase"; first: number; count: number }
  | { kind: "reset" | "acknowledge" | "enable" | "signal"; bits: number }
  | { kind: "register"; offset: number; bytes: number; value: number };

const command = (index: number, argument: number | "rca", answer: Answer) =>
  fc.constant<Step>({ kind: "command", index, argument, answer });

function bits(kind: "reset" | "acknowledge" | "enable" | "signal", ...values: number[]): fc.Arbitrary<Step> {
  return fc.constantFrom(...values).map((value) => ({ kind, bits: value }));
}

const register = (offset: number, bytes: number, value: number): Step => ({
  kind: "register",
  offset,
  bytes,
  value,
});

export const STEPS: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: command(13, "rca", "r1") },
  { weight: 2, arbitrary: command(12, 0, "abort") },
  { weight: 1, arbitrary: command(12, 0, "r1") },
  { weight: 1, arbitrary: command(7, 0, "none") },
  { weight: 2, arbitrary: command(7, "rca", "r1") },
  { weight: 1, arbitrary: command(9, "rca", "r2") },
  { weight: 1, arbitrary: command(10, "rca", "r2") },
  { weight: 1, arbitrary: command(2, 0, "r2") },
  { weight: 1, arbitrary: command(16, 512, "r1") },
  { weight: 1, arbitrary: command(8, 0x1aa, "r1") },
  {
    // Illegal in tran, for one reason or another.
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("command" as const),
      index: fc.constantFrom(1, 11, 14, 19, 20, 21, 23, 31, 34, 35, 36, 39, 40, 43, 57, 60, 63),
      argument: fc.constant(0),
      answer: fc.constant("r1" as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("app" as const), index: fc.constantFrom(23, 41, 42) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("register block" as const),
      index: fc.constantFrom(13, 22, 51),
      words: fc.constantFrom(0, 1, 16),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant("data" as const),
      write: fc.boolean(),
      multiple: fc.boolean(),
      lba: fc.oneof(
        { weight: 8, arbitrary: fc.integer({ min: 0, max: SECTORS - BLOCKS_MAX }) },
        // Counted from the end of the card.
        { weight: 1, arbitrary: fc.integer({ min: -LAST_SECTORS, max: -BLOCKS_MAX }) },
      ),
      blocks: fc.integer({ min: 1, max: BLOCKS_MAX }),
      words: fc.oneof(fc.constant(1024), fc.integer({ min: 0, max: 512 })),
      auto: fc.boolean(),
      how: fc.constantFrom<How>("pio", "pio", "sdma", "adma"),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("port" as const),
      words: fc.integer({ min: 1, max: 256 }),
      write: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Step>(
      { kind: "again" },
      { kind: "reset all" },
      { kind: "disable and enable" },
    ),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("switch" as const),
      argument: fc.constantFrom(0x00fffff1, 0x80fffff0, 0x80fffff1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("force" as const), bits: fc.constantFrom(1, 2, 0x10, 0x80) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("erase" as const),
      first: fc.nat(SECTORS - 1),
      count: fc.integer({ min: 1, max: 8 }),
    }),
  },
  { weight: 2, arbitrary: bits("reset", RESET.command, RESET.data) },
  { weight: 3, arbitrary: bits("acknowledge", 0xffffffff, 1, 2, 0x10, 0x20, 0x00010000) },
  { weight: 1, arbitrary: bits("enable", 0x03ff00ff, 0x03ff0033, 0x03ff0001) },
  { weight: 1, arbitrary: bits("signal", 0x03ff00ff, 0, 1, 2) },
  {
    weight: 2,
    arbitrary: fc.constantFrom<Step>(
      register(REG.argument, 4, 0x12345678),
      register(REG.argument + 1, 1, 0xab),
      register(REG.blockSize, 2, 0x7200),
      register(REG.blockCount, 2, 0xffff),
      register(REG.dmaAddress, 4, 0xfedcba98),
      register(REG.transferMode, 2, 0x36),
      register(REG.hostControl, 1, 0x05),
      register(REG.timeout, 1, 0x07),
      register(REG.admaAddress, 4, 0x00002340),
    ),
  },
);

const COMPARED = [
  ["response", REG.response],
  ["SDMA address", REG.dmaAddress],
  ["block size and count", REG.blockSize],
  ["argument", REG.argument],
  ["transfer mode and command", REG.transferMode],
  ["host, power, gap, wakeup", REG.hostControl],
  ["clock, timeout, reset", REG.clock],
  ["status enable", REG.statusEnable],
  ["signal enable", REG.signalEnable],
  ["auto command error, host control 2", REG.autoError],
  ["ADMA error", REG.admaError],
  ["ADMA address", REG.admaAddress],
  ["slot, version", REG.slot],
] as const;

/** Both sides with an image of `sizeBytes`, from their making on. */
export class Script {
  /** Steps taken, and registers compared. */
  static steps = 0;
  static compared = 0;
  #sessions: Session[];
  #sectors: number;
  /** A transfer was begun that the card does not end by itself, or not yet. */
  #isOpen = false;
  /** The card is in stby, or not known not to be. */
  #isDeselected = false;
  /** The last command got no answer. */
  #isUnanswered = false;
  /** "SDMA of one block does not count its address." */
  #isSingleSdma = false;

  constructor(image: string, sizeBytes: number) {
    makeImage(image, sizeBytes);
    this.#sectors = sizeBytes / 512;
    const unit = sizeBytes <= 2 ** 31 ? 512 : 1;
    const sides = [new QemuSide(image), new OurSide(this.#sectors)];
    this.#sessions = sides.map((side) => new Session(side, unit));
  }

  run(steps: readonly Step[]): void {
    for (const session of this.#sessions) session.identify();
    this.#compare("identification");
    for (const [i, step] of steps.entries()) {
      const where = `step ${i} ${JSON.stringify(step)}`;
      if (["data", "register block", "switch", "register"].includes(step.kind)) this.#free(where);
      this.#compare(
        where,
        this.#sessions.map((session) => this.#take(session, step)),
      );
      this.#recover(where);
      Script.steps++;
    }
    this.#compareMedia();
  }

  /** A driver does not begin a transfer while another one holds the lines, or while the card is in another state. */
  #free(where: string): void {
    if (this.#isDeselected) for (const session of this.#sessions) session.send(7, session.address);
    this.#isDeselected = false;
    const isHeld = this.#sessions.some((session) => (session.present & DAT_INHIBIT) !== 0);
    if (!this.#isOpen && !isHeld) return;
    for (const session of this.#sessions) {
      session.send(12, 0);
      session.resetLines();
      session.side.write(REG.status, 4, 0xffffffff);
    }
    this.#isOpen = false;
    this.#compare(`CMD12 before ${where}`);
  }

  /** What drivers do behind an error. */
  #recover(where: string): void {
    if (this.#sessions.every((session) => (session.status & STATUS_ERROR) === 0)) return;
    for (const session of this.#sessions) {
      session.resetLines();
      session.side.write(REG.status, 4, 0xffffffff);
    }
    this.#compare(`recovery behind ${where}`);
  }

  /** The step on one side. What it gives back must be the same on both. */
  #take(session: Session, step: Step): string {
    const { side, address, sectorUnit } = session;
    switch (step.kind) {
      case "command": {
        if (step.index === 7 && step.argument === 0) {
          this.#isDeselected = true;
          // "Deselected with an error to tell": it is told before.
          session.send(13, address);
        }
        session.send(step.index, step.argument === "rca" ? address : step.argument, step.answer);
        // Behind an abort the driver resets the data lines.
        if (step.answer === "abort") side.write(REG.reset, 1, RESET.data);
        if (step.answer !== "r2") return "";
        // The registers of two cards are not the same: only that they come is compared.
        const silent = session.status & STATUS_TIMEOUT;
        session.send(13, address);
        return hex(silent);
      }
      case "app":
        session.send(55, address);
        session.send(step.index, 0);
        return "";
      case "register block": {
        const bytes = step.index === 13 ? 64 : step.index === 22 ? 4 : 8;
        session.send(55, address);
        session.transfer(step.index, 0, 1, MODE.read, bytes);
        session.readPort(Math.min(step.words, bytes / 4));
        side.write(REG.reset, 1, RESET.data);
        return "";
      }
      case "data":
        return this.#move(session, step);
      case "port":
        if (!step.write) return session.readPort(step.words);
        session.writePort(step.words);
        return "";
      case "again":
        this.#isOpen = false;
        this.#isDeselected = false;
        session.identify();
        return "";
      case "reset all":
        side.write(REG.reset, 1, RESET.all);
        session.start();
        return "";
      case "disable and enable": {
        side.write(REG.statusEnable, 4, 0);
        const disabled = session.status;
        session.start();
        return hex(disabled);
      }
      case "switch": {
        session.transfer(6, step.argument, 1, MODE.read, 64);
        const status = session.readPort(16);
        // Functions 7:0 of group 1, and the one that is chosen.
        return status.slice(13 * 2, 14 * 2) + status.slice(16 * 2 + 1, 17 * 2);
      }
      case "force":
        side.write(REG.forceError, 2, step.bits);
        return "";
      case "erase": {
        const last = Math.min(step.first + step.count, SECTORS) - 1;
        const first = session.send(32, step.first * sectorUnit);
        const second = session.send(33, last * sectorUnit);
        session.send(38, 0, "r1b");
        return hex(first) + hex(second);
      }
      case "reset":
        side.write(REG.reset, 1, step.bits);
        return "";
      case "acknowledge":
        side.write(REG.status, 4, step.bits);
        return "";
      case "enable":
        side.write(REG.statusEnable, 4, step.bits);
        return "";
      case "signal":
        side.write(REG.signalEnable, 4, step.bits);
        return "";
      default:
        // "An SDMA address starts a transfer."
        if (step.offset === REG.dmaAddress) side.write(REG.blockCount, 2, 0);
        side.write(step.offset, step.bytes, step.value);
        return "";
    }
  }

  #move(session: Session, step: Extract<Step, { kind: "data" }>): string {
    const { side } = session;
    const blocks = step.multiple ? step.blocks : 1;
    const bytes = blocks * 512;
    const sector = step.lba < 0 ? this.#sectors + step.lba : step.lba;
    const index = (step.write ? 24 : 17) + (step.multiple ? 1 : 0);
    const data = side.dmaBase + DMA_DATA;
    let mode: number = MODE.count | (step.write ? 0 : MODE.read);
    if (step.multiple) mode |= MODE.multi | (step.auto ? MODE.auto12 : 0);
    if (step.how !== "pio") {
      mode |= MODE.dma;
      side.writeMemory(data, Buffer.alloc(bytes, sector + 1));
    }
    this.#isOpen = step.how === "pio" || (step.multiple && !step.auto);
    side.write(REG.hostControl, 1, step.how === "adma" ? 0x10 : 0);
    if (step.how === "sdma") {
      this.#isSingleSdma = blocks === 1;
      // "An SDMA address starts a transfer": not with a count of 0.
      side.write(REG.blockCount, 2, 0);
      side.write(REG.dmaAddress, 4, data);
    } else if (step.how === "adma") {
      const table = Buffer.alloc(8);
      table.writeUInt16LE(DESCRIPTOR, 0);
      table.writeUInt16LE(bytes, 2);
      table.writeUInt32LE(data, 4);
      side.writeMemory(side.dmaBase, table);
      side.write(REG.admaAddress, 4, side.dmaBase);
    }
    session.transfer(index, sector * session.sectorUnit, blocks, mode);
    if (step.how !== "pio") {
      side.rest();
      return Buffer.from(side.readMemory(data, bytes)).toString("hex");
    }
    const words = Math.min(step.words, bytes / 4);
    if (!step.write) return session.readPort(words);
    session.writePort(words);
    return "";
  }

  /** A register with what the two sides cannot have in common taken out. */
  #register(session: Session, offset: number): number {
    const value = session.side.read(offset, 4);
    const { dmaBase } = session.side;
    if (offset === REG.argument && value === session.address) return 0xaddcaed;
    if (offset === REG.dmaAddress && this.#isSingleSdma) return 0;
    const isAddress = offset === REG.dmaAddress || offset === REG.admaAddress;
    if (isAddress && value >= dmaBase && value < dmaBase + DMA_BYTES) return value - dmaBase;
    // "Complete, though nothing was answered" shows in the interrupt too.
    return offset === REG.slot && this.#isUnanswered ? value & ~1 : value;
  }

  #compare(where: string, results: string[] = ["", ""]): void {
    const [qemu, ours] = this.#sessions;
    if (qemu === undefined || ours === undefined) throw new Error("a script has two sides");
    this.#isUnanswered = (qemu.status & ours.status & STATUS_TIMEOUT) !== 0;
    const lines: string[] = [];
    const check = (name: string, first: number, second: number) => {
      Script.compared++;
      if (first !== second) lines.push(`${name}: QEMU ${hex(first)}, ours ${hex(second)}`);
    };
    // "Complete, though nothing was answered"; "the lines behind a data command that nobody answered".
    const status = this.#isUnanswered ? ~0x3 : ~0;
    const present = this.#isUnanswered ? ~0x306 : ~0;
    check("status", qemu.status & status, ours.status & status);
    check("present state", qemu.present & present, ours.present & present);
    for (const [name, offset] of COMPARED)
      check(name, this.#register(qemu, offset), this.#register(ours, offset));
    const [first = "", second = ""] = results;
    if (first !== second)
      lines.push(`result: QEMU ${first.slice(0, 64) || "none"}, ours ${second.slice(0, 64) || "none"}`);
    if (lines.length > 0) throw new Error(`${where}: ${lines.join("; ")}`);
  }

  #compareMedia(): void {
    const [qemu, ours] = this.#sessions;
    const first = [...Array(SECTORS).keys()];
    const last = [...Array(LAST_SECTORS).keys()].map((i) => this.#sectors - LAST_SECTORS + i);
    for (const lba of [...first, ...last]) {
      const a = qemu?.side.stored(lba) ?? new Uint8Array();
      const b = ours?.side.stored(lba) ?? new Uint8Array(1);
      if (Buffer.compare(a, b) !== 0) throw new Error(`sector ${lba} differs at the end`);
    }
  }

  close(): void {
    for (const session of this.#sessions) session.side.close();
  }
}
