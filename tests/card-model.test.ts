// Random sequences of commands, blocks, waits and power cycles against the small model: each answer, each R1 bit, each
// block and, at the end, every sector must be what it predicts. MMCPSTORE_MODEL_RUNS sets how many sequences.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Bus, hex, INT_ERRORS, note, pattern, REG, same } from "./bus.js";
import { CardModel, type Kind } from "./model/card-model.js";

const RUNS = Number(process.env.MMCPSTORE_MODEL_RUNS ?? 4000);
const SECTORS = 1024;
/** Long enough that nothing ends by itself between two commands, short for the clock. */
const SLOW_NS = 1_000_000_000;
const SETTLE_NS = 4_000_000_000;

type Step =
  | { do: "command"; index: number; argument: number; ownRca: boolean }
  | { do: "read"; lba: number; blocks: number; counted: boolean; multiple: boolean }
  | {
      do: "write";
      lba: number;
      blocks: number;
      counted: boolean;
      multiple: boolean;
      seed: number;
      leave: boolean;
    }
  | { do: "settle" }
  | { do: "identify" }
  | { do: "power" };

/** Commands without data, and indices that neither card has. */
const INDICES = [0, 2, 3, 5, 7, 9, 10, 12, 13, 15, 16, 23, 32, 33, 35, 36, 38, 55, 22, 37, 43, 50, 60, 63];
const lba = fc.oneof(fc.nat(40), fc.integer({ min: SECTORS - 4, max: SECTORS + 2 }));
const command = fc.record({
  do: fc.constant("command" as const),
  index: fc.constantFrom(...INDICES),
  argument: fc.oneof(fc.nat(40), fc.constantFrom(0, 1, 3, 512, SECTORS - 1, SECTORS, 0x8000)),
  ownRca: fc.boolean(),
});
const erase = fc.constantFrom(32, 33, 35, 36, 38).chain((index) =>
  fc.record({
    do: fc.constant("command" as const),
    index: fc.constant(index),
    // 3: discard of an eMMC, no erase of an SD card's; 1: trim, which SD knows under another name.
    argument: index === 38 ? fc.constantFrom(0, 3) : fc.nat(40),
    ownRca: fc.constant(false),
  }),
);
const switchByte = fc.record({
  do: fc.constant("command" as const),
  index: fc.constant(6),
  argument: fc.constantFrom(0x03af0101, 0x03ff0001, 0x03af0701),
  ownRca: fc.constant(false),
});
const transfer = {
  lba,
  blocks: fc.integer({ min: 1, max: 4 }),
  counted: fc.boolean(),
  multiple: fc.boolean(),
};
const read = fc.record({ do: fc.constant("read" as const), ...transfer });
const write = fc.record({
  do: fc.constant("write" as const),
  ...transfer,
  seed: fc.nat(99),
  leave: fc.boolean(),
});
const stepsOf = (kind: Kind) =>
  fc.array(
    fc.oneof(
      { weight: 6, arbitrary: command },
      { weight: 4, arbitrary: erase },
      { weight: kind === "emmc" ? 1 : 0, arbitrary: switchByte },
      { weight: 4, arbitrary: read },
      { weight: 4, arbitrary: write },
      { weight: 4, arbitrary: fc.record({ do: fc.constant("settle" as const) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("identify" as const) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("power" as const) }) },
    ),
    { minLength: 1, maxLength: 14 },
  );

/** A machine in tran at a clock that the card hears in every state, and its saved start. */
function prepare(kind: Kind) {
  const bus = new Bus({
    card: kind,
    sectors: SECTORS,
    trace: false,
    timing: {
      programNs: SLOW_NS,
      eraseNs: SLOW_NS,
      switchNs: SLOW_NS,
      sleepNs: SLOW_NS,
    },
  });
  bus.powerUp();
  return bus;
}

class Pair {
  readonly bus: Bus;
  model: CardModel;
  readonly kind: Kind;
  commands = 0;
  blocks = 0;
  #afterApp = false;

  constructor(kind: Kind, bus: Bus) {
    this.kind = kind;
    this.bus = bus;
    this.model = new CardModel(kind, SECTORS, kind === "emmc" ? 1 : 0);
  }

  /** From power-up to tran, by real commands; the model only has to end there. */
  identify(): void {
    const { bus } = this;
    bus.send(0, 0, "none");
    for (let i = 0; i < 50; i++) {
      const ocr = this.kind === "emmc" ? bus.send(1, 0x40ff8000, "r3").r1 : bus.app(41, 0x40ff8000, "r3").r1;
      if (ocr >>> 31 === 1) break;
      bus.idle(1_000_000);
    }
    bus.must(2, 0, "r2");
    const published = bus.must(3, 0x00010000, this.kind === "emmc" ? "r1" : "r6").r1 >>> 16;
    bus.rca = this.kind === "emmc" ? 1 : published;
    bus.must(7, bus.rca << 16);
    const sectors = this.model.sectors;
    this.model = new CardModel(this.kind, SECTORS, bus.rca);
    for (const [at, bytes] of sectors) this.model.sectors.set(at, bytes);
    this.model.state = "tran";
  }

  #answerOf(index: number): "none" | "r1" | "r2" | "r6" {
    if (index === 0 || index === 15) return "none";
    if (index === 2 || index === 9 || index === 10) return "r2";
    return index === 3 && this.kind === "sd" ? "r6" : "r1";
  }

  /** Sends a command to both and compares what comes back. True: the card took it. */
  compare(
    index: number,
    argument: number,
    data?: { blocks: number; read: boolean; multi: boolean },
  ): boolean {
    const { bus } = this;
    this.commands++;
    const before = this.model.state;
    const isApp = this.#afterApp && this.kind === "sd";
    this.#afterApp = index === 55;
    const predicted = this.model.command(index, argument);
    const mode = data ? 2 | (data.read ? 0x10 : 0) | (data.multi ? 0x20 : 0) : 0;
    const reply = bus.send(
      index,
      argument,
      this.#answerOf(index),
      data ? { read: data.read, blocks: data.blocks, mode } : undefined,
    );
    const what = `${this.kind} CMD${index} ${hex(argument)} in ${before}`;
    if (index === 0 || index === 15) return false;
    assert.is(reply.silent, predicted.kind === "silent", `${what}: answered`);
    if (predicted.kind === "r1") assert.is(hex(reply.r1), hex(predicted.status), `${what}: R1`);
    if (reply.silent) bus.resetLines();
    // ACMD13, 22 and 51 send a short block that nobody wants here.
    else if (isApp && [13, 22, 51].includes(index)) bus.idle(SETTLE_NS);
    return predicted.kind === "r1" && (predicted.status & 0x80000000) === 0;
  }

  run(step: Step): void {
    const { bus, model } = this;
    switch (step.do) {
      case "settle":
        bus.idle(SETTLE_NS);
        model.settle();
        return;
      case "identify":
        if (model.state === "ina") return;
        this.compare(0, 0);
        this.identify();
        return;
      case "power":
        bus.powerDown();
        bus.powerUp();
        model.state = "idle";
        this.model = this.#reborn();
        return;
      case "command": {
        const argument = step.ownRca ? ((bus.rca << 16) | (step.argument & 0x8000)) >>> 0 : step.argument;
        this.compare(step.index, argument);
        return;
      }
      default:
        this.#transfer(step);
    }
  }

  #reborn(): CardModel {
    const fresh = new CardModel(this.kind, SECTORS, this.kind === "emmc" ? 1 : 0);
    for (const [at, bytes] of this.model.sectors) fresh.sectors.set(at, bytes);
    return fresh;
  }

  #transfer(step: Extract<Step, { do: "read" | "write" }>): void {
    const { bus } = this;
    const isRead = step.do === "read";
    const multi = step.multiple || step.blocks > 1;
    if (step.counted && multi) this.compare(23, step.blocks);
    const index = (isRead ? 17 : 24) + (multi ? 1 : 0);
    const taken = this.compare(index, step.lba, { blocks: step.blocks, read: isRead, multi });
    if (!taken) {
      bus.resetLines();
      return;
    }
    if (isRead) this.#read(step.blocks);
    else this.#write(step.blocks, step.seed, step.leave);
    bus.resetLines();
  }

  #read(blocks: number): void {
    const { bus, model } = this;
    for (let block = 0; block < blocks; block++) {
      const expected = model.take();
      const { data, status } = bus.pioRead(1);
      assert.is((status & INT_ERRORS) !== 0, expected === null, `${this.kind}: block ${block} of a read`);
      if (expected === null) return;
      same(data, expected, `${this.kind}: block ${block} of a read`);
      this.blocks++;
    }
    if (model.state !== "data" || model.left === null) return;
    // CMD23 had named more than the host wanted: 10 ms a block, up to the end of the card.
    for (let i = 0; i < 4; i++) bus.idle(SETTLE_NS);
    model.drain();
  }

  /** `leave`: the host goes away behind the last block, so that the card is seen at work. */
  #write(blocks: number, seed: number, leave: boolean): void {
    const { bus, model } = this;
    for (let block = 0; block < blocks; block++) {
      const bytes = pattern(1, seed * 8 + block + 1);
      const status = bus.pioWrite(bytes);
      assert.is((status & INT_ERRORS) >>> 0, 0, `${this.kind}: the buffer takes block ${block}`);
      const fate = model.give(bytes);
      this.blocks++;
      if (fate !== "taken") {
        // Refused: at once. Ignored: the controller's data timeout, 2.7 s, has to run out.
        bus.idle(fate === "refused" ? 50_000_000 : SETTLE_NS);
        assert.ok((bus.read32(REG.status) & INT_ERRORS) !== 0, `${this.kind}: block ${block} is ${fate}`);
        if (fate === "refused" && !model.multiple) model.state = "tran";
        return;
      }
      if (block === blocks - 1 && leave) {
        // The block is over the wire, the card is busy with it.
        bus.idle(20_000_000);
        return;
      }
      bus.idle(SETTLE_NS);
      model.settle();
    }
  }
}

for (const kind of ["emmc", "sd"] as const) {
  test(`${kind}: random sequences`, () => {
    const bus = prepare(kind);
    const start = bus.save();
    let commands = 0;
    let blocks = 0;
    fc.assert(
      fc.property(fc.boolean(), stepsOf(kind), (identified, sequence: Step[]) => {
        bus.load(start);
        bus.rca = 1;
        const pair = new Pair(kind, bus);
        if (identified) pair.identify();
        for (const step of sequence) pair.run(step);
        bus.idle(SETTLE_NS);
        pair.model.settle();
        for (let at = 0; at < 48; at++) same(bus.stored(at), pair.model.sector(at), `${kind}: sector ${at}`);
        for (let at = SECTORS - 6; at < SECTORS; at++)
          same(bus.stored(at), pair.model.sector(at), `sector ${at}`);
        commands += pair.commands;
        blocks += pair.blocks;
      }),
      { numRuns: RUNS, seed: 20261120, includeErrorInReport: true },
    );
    note(
      `${kind}: ${RUNS} random sequences, ${commands} commands and ${blocks} blocks as the model predicts`,
    );
  });
}

test.run();
