// A driver of the tests' own on one side: power, clock, identification, one command, the data port. Nothing is retried
// and no error is hidden; register numbers are written down once more.
import type { Side } from "./sides.js";

export const REG = {
  dmaAddress: 0x00,
  blockSize: 0x04,
  blockCount: 0x06,
  argument: 0x08,
  transferMode: 0x0c,
  command: 0x0e,
  response: 0x10,
  buffer: 0x20,
  present: 0x24,
  hostControl: 0x28,
  power: 0x29,
  clock: 0x2c,
  timeout: 0x2e,
  reset: 0x2f,
  status: 0x30,
  statusEnable: 0x34,
  signalEnable: 0x38,
  autoError: 0x3c,
  forceAutoError: 0x50,
  forceError: 0x52,
  admaError: 0x54,
  admaAddress: 0x58,
  slot: 0xfc,
} as const;

/** Response type, checks and command type of SDHCI_COMMAND. */
export const ANSWERS = { none: 0x00, r1: 0x1a, r1b: 0x1b, abort: 0xdb, r2: 0x09, r3: 0x02 } as const;
export type Answer = keyof typeof ANSWERS;
export const DATA = 0x20;
export const MODE = { dma: 0x01, count: 0x02, auto12: 0x04, read: 0x10, multi: 0x20 } as const;
export const RESET = { all: 1, command: 2, data: 4 } as const;
export const DAT_INHIBIT = 0x2;
const SPACE_AVAILABLE = 0x400;
const DATA_AVAILABLE = 0x800;
const BLOCK_WORDS = 128;
/** 52 MHz / 256 = 203 kHz, 52 MHz / 4. */
const CLOCK_SLOW = 0x8005;
const CLOCK_FAST = 0x0205;
const POWER_UPS_MAX = 100;

export const hex = (value: number) => (value >>> 0).toString(16).padStart(8, "0");

export class Session {
  readonly side: Side;
  /** SD cards count their addresses in bytes up to 2 GiB. */
  readonly sectorUnit: number;
  rca = 0;

  constructor(side: Side, sectorUnit: number) {
    this.side = side;
    this.sectorUnit = sectorUnit;
  }

  /** The argument that addresses the card. */
  get address(): number {
    return (this.rca << 16) >>> 0;
  }

  get status(): number {
    return this.side.read(REG.status, 4);
  }

  get present(): number {
    return this.side.read(REG.present, 4);
  }

  /** Supply, every status bit, longest data timeout, a clock. */
  start(clock: number = CLOCK_FAST): void {
    const { side } = this;
    side.write(REG.power, 1, 0x0f);
    side.write(REG.statusEnable, 4, 0x03ff00ff);
    side.write(REG.timeout, 1, 0x0e);
    side.write(REG.clock, 2, clock & ~4);
    side.write(REG.clock, 2, clock);
  }

  /** Old status away, argument, command. */
  issue(index: number, argument: number, flags: number): void {
    this.side.write(REG.status, 4, 0xffffffff);
    this.side.write(REG.argument, 4, argument);
    this.side.write(REG.command, 2, (index << 8) | flags);
  }

  send(index: number, argument: number, answer: Answer = "r1"): number {
    this.issue(index, argument, ANSWERS[answer]);
    return this.side.read(REG.response, 4);
  }

  must(index: number, argument: number, answer: Answer = "r1"): number {
    const response = this.send(index, argument, answer);
    const { status } = this;
    if ((status & 0xffff0001) !== 1) throw new Error(`${this.side.name}: CMD${index}: status ${hex(status)}`);
    return response;
  }

  /** Registers of a transfer in the order of the specification, but for the SDMA address, then the command. */
  transfer(index: number, argument: number, blocks: number, mode: number, blockBytes = 512): void {
    this.side.write(REG.blockSize, 2, 0x7000 | blockBytes);
    this.side.write(REG.blockCount, 2, blocks);
    this.side.write(REG.transferMode, 2, mode);
    this.issue(index, argument, ANSWERS.r1 | DATA);
  }

  resetLines(): void {
    this.side.write(REG.reset, 1, RESET.command);
    this.side.write(REG.reset, 1, RESET.data);
  }

  /** From RESET_ALL and CMD0 to tran on one line at 13 MHz. */
  identify(): void {
    const { side } = this;
    side.write(REG.reset, 1, RESET.all);
    this.start(CLOCK_SLOW);
    side.rest();
    this.must(0, 0, "none");
    this.must(8, 0x1aa);
    for (let i = 0; ; i++) {
      this.must(55, 0);
      if ((this.must(41, 0x40ff8000, "r3") & 0x80000000) !== 0) break;
      if (i === POWER_UPS_MAX) throw new Error(`${side.name}: ACMD41 without an end`);
      side.rest();
    }
    this.must(2, 0, "r2");
    this.rca = this.must(3, 0) >>> 16;
    side.write(REG.clock, 2, CLOCK_FAST);
    this.must(7, this.address);
    side.write(REG.status, 4, 0xffffffff);
    side.write(REG.argument, 4, 0);
  }

  /** As many words as the buffer gives: looked at before each block. The bytes as hex. */
  readPort(words: number): string {
    const values: number[] = [];
    for (let i = 0; i < words; i++) {
      if (i % BLOCK_WORDS === 0 && (this.present & DATA_AVAILABLE) === 0) break;
      values.push(this.side.read(REG.buffer, 4));
    }
    return Buffer.from(Uint32Array.from(values).buffer).toString("hex");
  }

  writePort(words: number): void {
    for (let i = 0; i < words; i++) {
      if (i % BLOCK_WORDS === 0 && (this.present & SPACE_AVAILABLE) === 0) break;
      this.side.write(REG.buffer, 4, Math.imul(i, 0x01010101) >>> 0);
    }
  }
}
