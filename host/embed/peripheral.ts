// Controller and card of a Device as an MMIO peripheral of any emulator: registers of 8, 16 and 32 bits, a level
// interrupt, DMA into the guest's memory, the guest's clock, the machine's reset, saved states. docs/EMBEDDING.md has
// each call and an example. Nothing of an emulator, nothing of Node.
//
// Guest RAM is touched within this class's own calls only. Whatever the host does with the device meanwhile
// (panicWrite, read, powerCut …) goes through the buffer port and finds no memory on the bus: a guest's DMA that is
// under way ends there.
import { CLOCK_NOW, GUEST_IRQ, GUEST_NEXT_NS, SDHCI_BUFFER, SECTOR_BYTES } from "../../assembly/layout.js";
import type { CoreExports } from "../core/instantiate.js";
import type { Device } from "../device.js";
import { MmcError } from "../errors.js";
import { having, judge, oneOf } from "../judge.js";
import { guestOffsetOf } from "./state.js";

/** What the machine gives its controller. The calls must not call the peripheral or its device, but for irq(). */
export interface GuestBus {
  /** The interrupt line, level-triggered, each time it changes; low at first. The last thing that a call does. */
  irq(level: boolean): void;
  /**
   * `lengthBytes` (1 … 4096) bytes of guest RAM from `address` (0 … 2^32 − 1) on; they are copied before the call
   * returns. Fewer or none, or an exception: a bus error.
   */
  dmaRead(address: number, lengthBytes: number): Uint8Array;
  /** `bytes` (1 … 4096) is to be read only, and valid during the call only. An exception: a bus error. */
  dmaWrite(address: number, bytes: Uint8Array): void;
  /**
   * For a machine that keeps what it has made of its RAM, compiled code for example: the dmaWrite calls of one access
   * have written `lengthBytes` from `address` on. Before the access returns, and before irq(); one call for what they
   * wrote without a gap.
   */
  dmaWritten?(address: number, lengthBytes: number): void;
}

/**
 * `instant`, the default: what a register write starts is over when the write returns, as far as the guest need not
 * act. `clock`: it takes the time it takes, and that passes with tick() alone.
 */
export type GuestTiming = "instant" | "clock";

export const GUEST_TIMING = oneOf(["instant", "clock"]);
const BUS = having("irq", "dmaRead", "dmaWrite");
const NEVER = 0xffffffffffffffffn;
const HALF_MASK = 0xffffffffn;
const GUEST_TIME_MAX = 0x7fffffffffffffffn;

export class SdhciPeripheral {
  readonly #device: Device;
  readonly #core: CoreExports;
  readonly #bus: GuestBus;
  readonly #ahead: number;
  readonly #words: Uint32Array;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  /** The controller's buffer, from which single blocks go to RAM: a view for each would cost as much as the copy. */
  readonly #block: Uint8Array;
  /** Runs a callback of the bus that no access waits for, so that the device knows of it. */
  readonly #call: (callback: () => void) => void;
  #level = 0;
  #isGuest = false;
  #busFailures: unknown[] = [];
  /** What dmaWritten() is to be told: from here … */
  #writtenFrom = 0;
  /** … to here; equal: nothing. */
  #writtenEnd = 0;
  /** Device time less guest time; null before the first tick. */
  #offsetNs: bigint | null = null;

  /**
   * Takes the device over and resets it: the controller out of reset, the card without supply.
   * @throws MmcError EINVAL for a device whose core is not the `embed` target
   */
  constructor(device: Device, bus: GuestBus, options: { timing?: GuestTiming } = {}) {
    const { timing = "instant" } = judge<{ timing?: GuestTiming }>("", options, { timing: GUEST_TIMING });
    BUS("bus", bus);
    this.#device = device;
    this.#core = device.core;
    this.#bus = bus;
    this.#ahead = timing === "instant" ? 1 : 0;
    // A core never grows its memory: the views hold.
    this.#words = new Uint32Array(device.memory.buffer);
    this.#view = new DataView(device.memory.buffer);
    this.#bytes = new Uint8Array(device.memory.buffer);
    this.#block = new Uint8Array(device.memory.buffer, SDHCI_BUFFER, SECTOR_BYTES);
    this.#call = device.connectDma({
      read: (address, bytes, ptr) => this.#fetch(address >>> 0, bytes, ptr),
      write: (address, bytes, ptr) => this.#store(address >>> 0, bytes, ptr),
    });
    this.reset();
  }

  /** A register of 8 bits at `offset` (taken modulo 256), unsigned; so the others, little-endian, aligned or not. */
  read8(offset: number): number {
    return this.#read(offset, 1);
  }

  read16(offset: number): number {
    return this.#read(offset, 2);
  }

  read32(offset: number): number {
    return this.#read(offset, 4);
  }

  /** The low bits of `value` go to the register. */
  write8(offset: number, value: number): void {
    this.#write(offset, 1, value);
  }

  write16(offset: number, value: number): void {
    this.#write(offset, 2, value);
  }

  write32(offset: number, value: number): void {
    this.#write(offset, 4, value);
  }

  /**
   * The guest's clock says `nowNs` (0 … 2^63 − 1): what was due by then happens. A clock that goes back is waited
   * for. Interrupts that come without a register access come from here; call it at least when dueNs() says.
   */
  tick(nowNs: bigint): void {
    if (typeof nowNs !== "bigint" || nowNs < 0n || nowNs > GUEST_TIME_MAX) {
      throw new MmcError("EINVAL", `tick: ${nowNs} is no time in nanoseconds`);
    }
    this.#offsetNs ??= this.#timeNs() - nowNs;
    const timeNs = nowNs + this.#offsetNs;
    const targetNs = timeNs < 0n ? 0n : timeNs;
    this.#enter();
    try {
      this.#core.guestAdvance(Number(targetNs & HALF_MASK), Number(targetNs >> 32n), this.#ahead);
    } finally {
      this.#leave();
    }
    this.#tellIrq();
  }

  /**
   * The guest time at which tick() next has something to do by itself; null: nothing, or no tick() has told the time.
   * For machines that sleep; what the guest does and what becomes due with it changes the answer.
   */
  dueNs(): bigint | null {
    const dueNs = this.#view.getBigUint64(GUEST_NEXT_NS, true);
    if (dueNs === NEVER || this.#offsetNs === null) return null;
    const guestNs = dueNs - this.#offsetNs;
    return guestNs < 0n ? 0n : guestNs;
  }

  /**
   * The machine's reset line: registers as out of reset, the card's supply off as POWER_CONTROL then says. What was
   * being programmed ends as the device's `abortOutcome`, its cache is lost. The interrupt goes low.
   */
  reset(): void {
    this.#enter();
    try {
      this.#core.guestReset();
    } finally {
      this.#leave();
    }
    this.#tellIrq();
  }

  /**
   * Controller, card, medium and what the host knows of them, at any point of a transfer. Its size follows what is
   * not zero.
   * @throws MmcError EOPNOTSUPP for an external medium that has no saveState()
   */
  saveState(): Uint8Array {
    this.#refuseNested();
    const external = this.#device.externalMedium;
    if (external !== null && !(external.saveState && external.loadState)) {
      throw new MmcError("EOPNOTSUPP", "saveState: the medium has none; OverlayMedium over it does");
    }
    return this.#device.saveState(this.#offsetNs);
  }

  /**
   * Back to a state of a device with the same options; everything goes on from there as it went on then. The
   * interrupt line is told once, changed or not. Nothing is changed if it throws.
   * @throws MmcError EINVAL bytes that are no such state
   */
  loadState(state: Uint8Array): void {
    this.#refuseNested();
    this.#device.loadState(state);
    this.#offsetNs = guestOffsetOf(state);
    this.#level = this.#words[GUEST_IRQ >> 2] as number;
    this.#bus.irq(this.#level !== 0);
  }

  /** The first exception that a DMA call of the bus has thrown since the last time; undefined if none has. */
  takeBusFailure(): unknown {
    const failure = this.#busFailures[0];
    this.#busFailures = [];
    return failure;
  }

  #timeNs(): bigint {
    return this.#view.getBigUint64(CLOCK_NOW, true);
  }

  #refuseNested(): void {
    if (this.#isGuest) throw new MmcError("EBUSY", "a DMA call of the bus has called the peripheral");
  }

  /** Guest RAM can be reached from here on; the caller sees to it that it ends. */
  #enter(): void {
    this.#refuseNested();
    this.#isGuest = true;
  }

  #leave(): void {
    try {
      this.#tellWritten();
    } finally {
      this.#isGuest = false;
    }
  }

  #tellWritten(): void {
    const from = this.#writtenFrom;
    const lengthBytes = this.#writtenEnd - from;
    if (lengthBytes === 0) return;
    this.#writtenFrom = this.#writtenEnd;
    this.#call(() => this.#bus.dmaWritten?.(from, lengthBytes));
  }

  #read(offset: number, bytes: number): number {
    this.#enter();
    let value: number;
    try {
      value = this.#core.guestRead(offset, bytes, this.#ahead) >>> 0;
    } finally {
      this.#leave();
    }
    this.#tellIrq();
    return value;
  }

  #write(offset: number, bytes: number, value: number): void {
    this.#enter();
    try {
      this.#core.guestWrite(offset, bytes, value, this.#ahead);
    } finally {
      this.#leave();
    }
    this.#tellIrq();
  }

  #tellIrq(): void {
    const level = this.#words[GUEST_IRQ >> 2] as number;
    if (level === this.#level) return;
    // First the note: the guest's handler may run, and access registers, within the call.
    this.#level = level;
    this.#bus.irq(level !== 0);
  }

  #fetch(address: number, lengthBytes: number, ptr: number): number {
    if (!this.#isGuest) return -1;
    try {
      const bytes = this.#bus.dmaRead(address, lengthBytes);
      if (bytes.length !== lengthBytes) return -1;
      this.#bytes.set(bytes, ptr);
      return 0;
    } catch (error) {
      return this.#busFails(error);
    }
  }

  #store(address: number, lengthBytes: number, ptr: number): number {
    if (!this.#isGuest) return -1;
    try {
      if (address !== this.#writtenEnd) {
        this.#tellWritten();
        this.#writtenFrom = address;
      }
      this.#writtenEnd = address + lengthBytes;
      const isBlock = ptr === SDHCI_BUFFER && lengthBytes === SECTOR_BYTES;
      this.#bus.dmaWrite(address, isBlock ? this.#block : this.#bytes.subarray(ptr, ptr + lengthBytes));
      return 0;
    } catch (error) {
      return this.#busFails(error);
    }
  }

  #busFails(error: unknown): number {
    if (this.#busFailures.length === 0) this.#busFailures.push(error);
    return -1;
  }
}
