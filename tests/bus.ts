// A driver for the bus tests, made of register accesses only and independent of assembly/driver: power,
// clock, one command with its answer, PIO and ADMA2 data, identification step by step. It keeps nothing from
// the tester: every call gives back the card's response and the controller's status bits as they were.
// Register and bit numbers are those of mmc.md §3.1, written down once more so that a wrong constant in
// assembly/sdhci is seen.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as assert from "uvu/assert";
import { CLOCK_NOW, MEDIUM_BASE, TEXT_BASE } from "../assembly/layout.js";
import { clearFaults, type FaultPlan, writeFault } from "../host/core/faults.js";
import { type CoreExports, instantiate, makeMemory } from "../host/core/instantiate.js";
import { IDEAL, type MachineConfig, type Timing, writeConfig } from "../host/core/profile.js";
import { clearTrace, readTrace, STATE_NAMES, type TraceEvent } from "../host/core/trace.js";

export const REG = {
  dmaAddress: 0x00,
  blockSize: 0x04,
  blockCount: 0x06,
  argument: 0x08,
  transferMode: 0x0c,
  command: 0x0e,
  response: 0x10,
  buffer: 0x20,
  presentState: 0x24,
  hostControl: 0x28,
  power: 0x29,
  control2: 0x3e,
  clock: 0x2c,
  timeout: 0x2e,
  reset: 0x2f,
  status: 0x30,
  statusEnable: 0x34,
  signalEnable: 0x38,
  capabilities: 0x40,
  admaError: 0x54,
  admaAddress: 0x58,
  version: 0xfe,
} as const;

/** SDHCI_INT_STATUS. */
export const INT = {
  command: 1 << 0,
  transfer: 1 << 1,
  writeReady: 1 << 4,
  readReady: 1 << 5,
  error: 1 << 15,
  timeout: 1 << 16,
  crc: 1 << 17,
  endBit: 1 << 18,
  index: 1 << 19,
  dataTimeout: 1 << 20,
  dataCrc: 1 << 21,
  dataEndBit: 1 << 22,
  adma: 1 << 25,
} as const;
export const INT_ERRORS = 0xffff0000;

/** SDHCI_PRESENT_STATE. */
export const PRESENT = {
  commandInhibit: 1 << 0,
  dataInhibit: 1 << 1,
  dataActive: 1 << 2,
  writeActive: 1 << 8,
  readActive: 1 << 9,
  bufferWrite: 1 << 10,
  bufferRead: 1 << 11,
  inserted: 1 << 16,
  stable: 1 << 17,
  detectPin: 1 << 18,
  writable: 1 << 19,
  dat0: 1 << 20,
  dat123: 7 << 21,
  commandLine: 1 << 24,
} as const;

/** Card status, R1. */
export const R1 = {
  outOfRange: 0x80000000,
  addressError: 1 << 30,
  blockLength: 1 << 29,
  eraseSequence: 1 << 28,
  eraseParameter: 1 << 27,
  writeProtected: 1 << 26,
  commandCrc: 1 << 23,
  illegal: 1 << 22,
  eccFailed: 1 << 21,
  error: 1 << 19,
  overwrite: 1 << 16,
  eraseSkip: 1 << 15,
  eraseReset: 1 << 13,
  ready: 1 << 8,
  switchError: 1 << 7,
  exception: 1 << 6,
  appCommand: 1 << 5,
} as const;

export const MODE = { dma: 1, count: 2, read: 0x10, multi: 0x20 } as const;

/** Response type bits of SDHCI_COMMAND: length, CRC check, index check. */
const ANSWERS = {
  none: 0x00,
  r1: 0x1a,
  r1b: 0x1b,
  r2: 0x09,
  r3: 0x02,
  r6: 0x1a,
  r7: 0x1a,
} as const;
/** SDHCI_HOST_CONTROL2: the host signals at 1.8 V. */
export const CONTROL2_VDD_180 = 8;
export type Answer = keyof typeof ANSWERS;
const COMMAND_DATA = 0x20;

export type CardState = (typeof STATE_NAMES)[number];

export interface Reply {
  /** SDHCI_RESPONSE as it stands after the command. */
  words: [number, number, number, number];
  /** The first of them: R1, OCR, RCA, … */
  r1: number;
  /** SDHCI_INT_STATUS. */
  status: number;
  /** Its error bits. */
  errors: number;
  /** True if the card did not answer. */
  silent: boolean;
}

export interface DataOptions {
  read: boolean;
  blocks: number;
  /** Default 512. */
  blockBytes?: number;
  dma?: boolean;
  /** SDHCI_TRANSFER_MODE as a whole, instead of what the others say. */
  mode?: number;
}

export interface BlockOptions {
  /** CMD23 before it, with these upper bits; else open-ended. One block without it: CMD17/24. */
  count23?: boolean;
  flags?: number;
  dma?: boolean;
  /** CMD18/25 even for one block. */
  multiple?: boolean;
  /** Blocks that the host moves, if not all that CMD23 named. */
  hostBlocks?: number;
}

export interface BlockResult {
  reply: Reply;
  /** SDHCI_INT_STATUS at the end of the data. */
  status: number;
  errors: number;
  data: Uint8Array;
}

export type BusOptions = Partial<Omit<MachineConfig, "timing">> & { timing?: Partial<Timing> };

const BASE_KHZ = 200_000;
/** Bus memory of the tests: TEXT is free as long as nobody panics. */
export const ADMA_TABLE_AT = TEXT_BASE;
export const ADMA_DATA_AT = TEXT_BASE + 0x1000;

/** The core under test. scripts/test.mjs runs the files that use it twice: checked, and as users get it. */
const TARGET = process.env.MMCPSTORE_CORE ?? "debug";
const modules = new Map<string, WebAssembly.Module>();

/** A target of asconfig.json, compiled once; without a name the one under test. */
export function coreModule(target = TARGET): WebAssembly.Module {
  let module = modules.get(target);
  if (!module) {
    module = new WebAssembly.Module(
      readFileSync(fileURLToPath(new URL(`../core/${target}.wasm`, import.meta.url))),
    );
    modules.set(target, module);
  }
  return module;
}

/** A line for scripts/test.mjs, which shows those that begin with "# ". */
export function note(text: string): void {
  console.log(`\n# ${text}`);
}

export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, "0")}`;
}

/** Bytes that differ from block to block and from seed to seed. */
export function pattern(blocks: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(blocks * 512);
  let word = seed;
  for (let at = 0; at < bytes.length; at++) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    bytes[at] = word >>> 24;
  }
  return bytes;
}

export function same(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assert.is(Buffer.compare(actual, expected), 0, `${what}: bytes differ`);
}

export function stateOf(r1: number): CardState | undefined {
  return STATE_NAMES[(r1 >>> 9) & 15];
}

export class Bus {
  readonly core: CoreExports;
  readonly memory: WebAssembly.Memory;
  readonly config: MachineConfig;
  readonly isEmmc: boolean;
  /** The card's address; an eMMC gets this one, an SD card says its own. */
  rca = 7;
  /** Longest pause between two polls. 0: the next poll follows at once, for tests of time. */
  pollNs = 100_000;

  /**
   * A machine without power. Times are IDEAL unless the options say otherwise. `machine`: one that is there already, as
   * the options describe it; nothing of it is changed.
   */
  constructor(
    options: BusOptions = {},
    target = TARGET,
    machine?: { core: CoreExports; memory: WebAssembly.Memory },
  ) {
    const card = options.card ?? "emmc";
    this.isEmmc = card === "emmc";
    this.config = {
      card,
      sectors: 2048,
      bootSectors: 0,
      cacheSectors: 0,
      reliableWrite: this.isEmmc,
      cmd23: true,
      hpi: this.isEmmc,
      serial: 1,
      abortOutcome: "old",
      cacheKeptAtReset: false,
      dma: false,
      busWidth: 1,
      highSpeed: false,
      areaFirstLba: 0,
      zoneSectors: 2,
      zoneCount: 0,
      abi: "lp64",
      policy: "first-wins",
      deadlineUs: 1_000_000,
      trace: true,
      ...options,
      timing: { ...IDEAL, ...options.timing },
    };
    if (machine !== undefined) {
      this.memory = machine.memory;
      this.core = machine.core;
      return;
    }
    this.memory = makeMemory(this.#firstSector(8) * 512);
    this.core = instantiate(coreModule(target), this.memory);
    writeConfig(this.memory, this.config);
    this.core.machineInit();
  }

  // ---- registers and time ----

  read8(offset: number): number {
    return this.core.mmioRead8(offset) >>> 0;
  }

  read16(offset: number): number {
    return this.core.mmioRead16(offset) >>> 0;
  }

  read32(offset: number): number {
    return this.core.mmioRead32(offset) >>> 0;
  }

  write8(offset: number, value: number): void {
    this.core.mmioWrite8(offset, value);
  }

  write16(offset: number, value: number): void {
    this.core.mmioWrite16(offset, value);
  }

  write32(offset: number, value: number): void {
    this.core.mmioWrite32(offset, value);
  }

  idle(lengthNs: number): void {
    this.core.idleNs(lengthNs);
  }

  get nowNs(): number {
    return Number(new DataView(this.memory.buffer).getBigUint64(CLOCK_NOW, true));
  }

  get present(): number {
    return this.read32(REG.presentState);
  }

  // ---- what lies behind the bus, for comparison ----

  /** The state as the core has it, where no R1 can tell. */
  get state(): CardState {
    return STATE_NAMES[this.core.cardState()] ?? "ina";
  }

  /** Where a partition begins on the medium; 8: where the medium ends. */
  #firstSector(partition: number): number {
    const { sectors, bootSectors, emmc } = this.config;
    const gp = emmc?.gpSectors ?? [];
    const sizes = [sectors, bootSectors, bootSectors, 0, gp[0], gp[1], gp[2], gp[3]];
    return sizes.slice(0, partition).reduce<number>((sum, size = 0) => sum + size, 0);
  }

  /** The stored bytes of a sector; partition 0 user, 1 and 2 boot, 4 … 7 general purpose. */
  stored(lba: number, partition = 0): Uint8Array {
    const index = this.#firstSector(partition) + lba;
    return new Uint8Array(this.memory.buffer, MEDIUM_BASE + index * 512, 512).slice();
  }

  /** Puts bytes on the medium behind the card's back. */
  preset(lba: number, bytes: Uint8Array, partition = 0): void {
    const index = this.#firstSector(partition) + lba;
    new Uint8Array(this.memory.buffer).set(bytes, MEDIUM_BASE + index * 512);
  }

  events(): TraceEvent[] {
    return readTrace(this.memory).events;
  }

  clearEvents(): void {
    clearTrace(this.memory);
  }

  fault(plan: FaultPlan, index = 0): void {
    writeFault(this.memory, index, plan);
  }

  clearFaults(): void {
    clearFaults(this.memory.buffer);
  }

  save(): Uint8Array {
    return new Uint8Array(this.memory.buffer).slice();
  }

  load(state: Uint8Array): void {
    new Uint8Array(this.memory.buffer).set(state);
  }

  // ---- the controller ----

  /** Supply and identification clock on, every status bit enabled, 1 line, longest data timeout. */
  powerUp(): void {
    this.write8(REG.power, 0x0f);
    this.write32(REG.statusEnable, 0x03ff00ff);
    this.write8(REG.timeout, 0x0e);
    this.setLines(1);
    this.setClock(400);
    this.idle(1_000_000);
  }

  /** Supply off, and the signals back at 3.3 V, where every card begins. */
  powerDown(): void {
    this.write16(REG.clock, 0);
    this.write8(REG.power, 0);
    this.write16(REG.control2, 0);
    this.idle(2_000_000);
  }

  /** base / 2N, N the smallest that does not exceed `khz`. Returns the clock in kHz. */
  setClock(khz: number): number {
    const divider = khz >= BASE_KHZ ? 0 : Math.ceil(BASE_KHZ / (2 * khz));
    this.setDivider(divider);
    return divider === 0 ? BASE_KHZ : BASE_KHZ / (2 * divider);
  }

  setDivider(divider: number): void {
    const bits = ((divider & 0xff) << 8) | ((divider & 0x300) >> 2);
    this.write16(REG.clock, 0);
    this.write16(REG.clock, bits | 1);
    assert.is(this.read16(REG.clock) & 2, 2, "the internal clock is stable");
    this.write16(REG.clock, bits | 5);
  }

  setLines(width: 1 | 4 | 8, dma = false): void {
    this.write8(
      REG.hostControl,
      (width === 8 ? 0x20 : 0) | (width === 4 ? 0x02 : 0) | (dma ? 0x10 : 0) | 0x04,
    );
  }

  /**
   * The controller's tuning procedure (mmc.md §3.5) on blocks of sector 0: SDHCI_HOST_CONTROL2 bit 6 until it clears
   * itself. Reads above 100 MHz need it on a controller that has UHS.
   */
  tune(): void {
    this.write16(REG.control2, this.read16(REG.control2) | 0x40);
    for (let i = 0; i < 40 && (this.read16(REG.control2) & 0x40) !== 0; i++) {
      this.issue(17, 0, "r1", { read: true, blocks: 1 });
      this.awaitStatus(INT.readReady);
      this.clearStatus();
    }
    assert.is(this.read16(REG.control2) & 0xc0, 0x80, "the sampling clock is tuned");
  }

  resetLines(): void {
    this.write8(REG.reset, 0x02);
    this.write8(REG.reset, 0x04);
    assert.is(this.read8(REG.reset), 0, "resets end by themselves");
  }

  clearStatus(): void {
    this.write32(REG.status, 0xffffffff);
  }

  /** Polls SDHCI_INT_STATUS until one of `bits` or an error is there, at most 20 s. */
  awaitStatus(bits: number): number {
    let pauseNs = 1;
    for (const endNs = this.nowNs + 20e9; this.nowNs < endNs; ) {
      const status = this.read32(REG.status);
      if ((status & (bits | INT_ERRORS)) !== 0) return status;
      pauseNs = this.pollNs === 0 ? 1 : Math.min(pauseNs * 2, this.pollNs);
      this.idle(pauseNs);
    }
    throw new Error(`status ${hex(bits)} never came, present state ${hex(this.present)}`);
  }

  /** Writes the registers of a command and returns at once. */
  issue(index: number, argument: number, answer: Answer, data?: DataOptions): void {
    this.clearStatus();
    this.write32(REG.argument, argument);
    let mode = 0;
    if (data) {
      this.write16(REG.blockSize, data.blockBytes ?? 512);
      this.write16(REG.blockCount, data.blocks);
      mode =
        data.mode ??
        MODE.count |
          (data.read ? MODE.read : 0) |
          (data.blocks > 1 ? MODE.multi : 0) |
          (data.dma ? MODE.dma : 0);
    }
    this.write16(REG.transferMode, mode);
    this.write16(REG.command, (index << 8) | ANSWERS[answer] | (data ? COMMAND_DATA : 0));
  }

  /** One command until its response has come or not. A busy time behind it is not awaited. */
  send(index: number, argument: number, answer: Answer = "r1", data?: DataOptions): Reply {
    const inhibit = this.present & (PRESENT.commandInhibit | (data ? PRESENT.dataInhibit : 0));
    if (inhibit !== 0) throw new Error(`CMD${index}: inhibited, present state ${hex(inhibit)}`);
    this.issue(index, argument, answer, data);
    return this.reply(this.awaitStatus(INT.command));
  }

  reply(status: number): Reply {
    const words = [0, 4, 8, 12].map((at) => this.read32(REG.response + at)) as Reply["words"];
    const errors = (status & INT_ERRORS) >>> 0;
    const silent = (status & INT.timeout) !== 0;
    if (silent) this.write8(REG.reset, 0x02);
    return { words, r1: words[0], status, errors, silent };
  }

  /** A command that must be answered without an error of the controller. */
  must(index: number, argument: number, answer: Answer = "r1", data?: DataOptions): Reply {
    const reply = this.send(index, argument, answer, data);
    if (reply.errors !== 0) throw new Error(`CMD${index} ${hex(argument)}: status ${hex(reply.status)}`);
    return reply;
  }

  /** CMD55 and the application command behind it. */
  app(index: number, argument: number, answer: Answer = "r1", data?: DataOptions): Reply {
    const r1 = this.must(55, this.state === "idle" ? 0 : this.rca << 16).r1;
    assert.is(r1 & R1.appCommand, R1.appCommand, "CMD55 is acknowledged");
    return this.send(index, argument, answer, data);
  }

  /** R1 of CMD13. */
  status(): number {
    return this.must(13, this.rca << 16).r1;
  }

  /** CMD13 until the card is in tran and ready. All error bits that were told on the way. */
  awaitTran(): number {
    let told = 0;
    let pauseNs = 1;
    for (let i = 0; i < 10_000; i++) {
      const r1 = this.status();
      told |= r1;
      if (stateOf(r1) === "tran" && (r1 & R1.ready) !== 0) return told >>> 0;
      pauseNs = Math.min(pauseNs * 2, 10_000_000);
      this.idle(pauseNs);
    }
    throw new Error(`the card never came to tran: ${this.state}`);
  }

  /** R1b: waits for the end of busy as the controller sees it. */
  awaitBusy(): number {
    const status = this.awaitStatus(INT.transfer);
    this.clearStatus();
    return status;
  }

  // ---- data ----

  /** Takes blocks from the buffer port as 32-bit words. Stops at an error; the status is given back. */
  pioRead(blocks: number, blockBytes = 512): { data: Uint8Array; status: number } {
    const data = new Uint8Array(blocks * blockBytes);
    const view = new DataView(data.buffer);
    for (let block = 0; block < blocks; block++) {
      const status = this.awaitStatus(INT.readReady);
      if ((status & INT_ERRORS) !== 0) return { data: data.slice(0, block * blockBytes), status };
      this.write32(REG.status, INT.readReady);
      for (let at = 0; at < blockBytes; at += 4) {
        view.setUint32(block * blockBytes + at, this.read32(REG.buffer), true);
      }
    }
    return { data, status: 0 };
  }

  pioWrite(data: Uint8Array, blockBytes = 512): number {
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    for (let block = 0; block < data.length; block += blockBytes) {
      const status = this.awaitStatus(INT.writeReady);
      if ((status & INT_ERRORS) !== 0) return status;
      this.write32(REG.status, INT.writeReady);
      for (let at = 0; at < blockBytes; at += 4) {
        this.write32(REG.buffer, view.getUint32(block + at, true));
      }
    }
    return 0;
  }

  /** A descriptor table at ADMA_TABLE_AT; its address goes to the controller. */
  descriptors(...table: { attributes: number; bytes: number; address: number }[]): void {
    const view = new DataView(this.memory.buffer);
    for (const [i, { attributes, bytes, address }] of table.entries()) {
      view.setUint16(ADMA_TABLE_AT + i * 8, attributes, true);
      view.setUint16(ADMA_TABLE_AT + i * 8 + 2, bytes & 0xffff, true);
      view.setUint32(ADMA_TABLE_AT + i * 8 + 4, address, true);
    }
    this.write32(REG.admaAddress, ADMA_TABLE_AT);
  }

  /** One descriptor for up to 64 KiB at ADMA_DATA_AT, as Linux writes them: data, then an empty end. */
  describe(lengthBytes: number): void {
    this.descriptors(
      { attributes: 0x21, bytes: lengthBytes, address: ADMA_DATA_AT },
      { attributes: 0x03, bytes: 0, address: 0 },
    );
    this.write8(REG.hostControl, (this.read8(REG.hostControl) & ~0x18) | 0x10);
  }

  dmaMemory(lengthBytes: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, ADMA_DATA_AT, lengthBytes);
  }

  /** The data phase behind a command that went well: PIO or DMA, to the transfer's end or its error. */
  moveIn(options: DataOptions): { data: Uint8Array; status: number } {
    const blockBytes = options.blockBytes ?? 512;
    if (options.dma) {
      const status = this.awaitStatus(INT.transfer);
      return { data: this.dmaMemory(options.blocks * blockBytes).slice(), status };
    }
    const taken = this.pioRead(options.blocks, blockBytes);
    if (taken.status !== 0) return taken;
    return { data: taken.data, status: this.awaitStatus(INT.transfer) };
  }

  /** A register of the card that comes as one block: CMD8, CMD6 of SD, ACMD13, ACMD22, ACMD51. */
  register(index: number, argument: number, blockBytes: number, app = false): Uint8Array {
    const data: DataOptions = { read: true, blocks: 1, blockBytes };
    const reply = app ? this.app(index, argument, "r1", data) : this.must(index, argument, "r1", data);
    assert.is(reply.errors, 0, `register by CMD${index}: ${hex(reply.status)}`);
    const { data: bytes, status } = this.moveIn(data);
    assert.is((status & INT_ERRORS) >>> 0, 0, `register by CMD${index}: status ${hex(status)}`);
    return bytes;
  }

  extCsd(): Uint8Array {
    return this.register(8, 0, 512);
  }

  /** A sector as this card's commands name it. */
  address(lba: number): number {
    return this.config.emmc?.byteAddressed ? lba * 512 : lba;
  }

  /** CMD17/18 with what the options say. No CMD12, no recovery: the tester sees what happened. */
  readBlocks(lba: number, blocks: number, options: BlockOptions = {}): BlockResult {
    const multiple = blocks > 1 || options.count23 === true || options.multiple === true;
    if (options.count23) this.must(23, ((options.flags ?? 0) | blocks) >>> 0);
    const plan = this.#plan(true, options.hostBlocks ?? blocks, multiple, options.dma === true);
    if (options.dma) this.describe(plan.blocks * 512);
    const reply = this.send(multiple ? 18 : 17, this.address(lba), "r1", plan);
    if (reply.errors !== 0)
      return { reply, status: reply.status, errors: reply.errors, data: new Uint8Array() };
    const { data, status } = this.moveIn(plan);
    return { reply, status, errors: (status & INT_ERRORS) >>> 0, data };
  }

  /** CMD24/25 likewise. Ends with the controller's transfer complete or error, busy included. */
  writeBlocks(lba: number, data: Uint8Array, options: BlockOptions = {}): BlockResult {
    const blocks = data.length / 512;
    const multiple = blocks > 1 || options.count23 === true || options.multiple === true;
    if (options.count23) this.must(23, ((options.flags ?? 0) | blocks) >>> 0);
    const plan = this.#plan(false, options.hostBlocks ?? blocks, multiple, options.dma === true);
    if (options.dma) {
      this.dmaMemory(data.length).set(data);
      this.describe(plan.blocks * 512);
    }
    const reply = this.send(multiple ? 25 : 24, this.address(lba), "r1", plan);
    let status = reply.status;
    if (reply.errors === 0 && !options.dma) status = this.pioWrite(data.subarray(0, plan.blocks * 512));
    if ((status & INT_ERRORS) === 0) status = this.awaitStatus(INT.transfer);
    return { reply, status, errors: (status & INT_ERRORS) >>> 0, data };
  }

  #plan(read: boolean, blocks: number, multiple: boolean, dma: boolean): DataOptions {
    const mode = MODE.count | (read ? MODE.read : 0) | (multiple ? MODE.multi : 0) | (dma ? MODE.dma : 0);
    return { read, blocks, dma, mode };
  }

  /** CMD6 of an eMMC and its busy time. R1 of the CMD13 behind it. */
  switchByte(index: number, value: number, access = 3): number {
    this.must(6, ((access << 24) | (index << 16) | (value << 8) | 1) >>> 0, "r1b");
    this.awaitBusy();
    return this.status();
  }

  // ---- identification ----

  /** CMD1 or ACMD41 until the card is ready. Returns the last OCR. */
  operatingConditions(
    argument = this.isEmmc ? (this.config.emmc?.byteAddressed ? 0x00ff8080 : 0x40ff8080) : 0x40ff8000,
  ): number {
    for (let i = 0; i < 5000; i++) {
      const reply = this.isEmmc ? this.send(1, argument, "r3") : this.app(41, argument, "r3");
      assert.is(reply.errors, 0, "operating conditions are answered");
      if (reply.r1 >>> 31 !== 0) return reply.r1;
      this.idle(1_000_000);
    }
    throw new Error("the card never became ready");
  }

  /** CMD0 and everything behind it, with the card's own commands only, up to a state of rest. */
  identify(until: "idle" | "ready" | "ident" | "stby" | "tran" = "tran"): void {
    this.send(0, 0, "none");
    if (!this.isEmmc) this.must(8, 0x1aa, "r7");
    if (until === "idle") return;
    this.operatingConditions();
    if (until === "ready") return;
    this.must(2, 0, "r2");
    if (until === "ident") return;
    if (this.isEmmc) this.must(3, this.rca << 16);
    else this.rca = this.must(3, 0, "r6").r1 >>> 16;
    if (until === "stby") return;
    this.must(7, this.rca << 16, "r1b");
    this.awaitBusy();
  }

  /** The same with CMD11 to 1.8 V on the way, up to tran: an SD card with UHS, from 3.3 V. */
  identifyLow(): void {
    this.identify("idle");
    assert.is(this.operatingConditions(0x41ff8000), 0xc1ff8000, "S18A");
    this.switchVoltage();
    this.must(2, 0, "r2");
    this.rca = this.must(3, 0, "r6").r1 >>> 16;
    this.must(7, this.rca << 16, "r1b");
    this.awaitBusy();
  }

  /** CMD11, and 1.8 V with the clock stopped (mmc.md §1.6). */
  switchVoltage(): void {
    assert.is(stateOf(this.must(11, 0).r1), "ready");
    assert.is(this.present & PRESENT.dat0, 0, "DAT0 is low");
    this.idle(5_000_000);
    assert.is(this.present & PRESENT.dat0, 0, "until the host has switched");
    const clock = this.read16(REG.clock);
    this.write16(REG.clock, clock & ~4);
    this.write16(REG.control2, CONTROL2_VDD_180);
    this.idle(5_000_000);
    this.write16(REG.clock, clock);
    assert.is(this.present & PRESENT.dat0, PRESENT.dat0, "DAT0 is high");
  }

  /** Power, identification, tran: what most tests start with. */
  open(): this {
    this.powerUp();
    this.identify();
    return this;
  }

  /** Lines, high speed and clock of card and controller. */
  setBus(width: 1 | 4 | 8, highSpeed: boolean, khz: number): number {
    if (this.isEmmc) {
      if (highSpeed) assert.is(this.switchByte(185, 1) & R1.switchError, 0);
      if (width !== 1) assert.is(this.switchByte(183, width === 8 ? 2 : 1) & R1.switchError, 0);
    } else {
      if (highSpeed) this.register(6, 0x80fffff1, 64);
      if (width === 4) assert.is(this.app(6, 2).errors, 0);
    }
    this.setLines(width);
    return this.setClock(khz);
  }

  /** The supply fails: the medium keeps what outcome and mask say. Then power and identification. */
  cutAndReopen(outcome: number, cacheMask: number): void {
    this.core.machineCut(outcome, cacheMask);
    this.open();
  }
}
