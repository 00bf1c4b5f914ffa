// A small machine with a driver of its own in it, as a guest of an emulator has them: RAM, a clock, an interrupt
// line, and a driver that is told of everything by interrupts. It shares no code with the driver of the core.
import type { GuestBus, SdhciPeripheral } from "../../host/embed/peripheral.js";

export const RAM_BYTES = 1 << 20;
/** Where the driver keeps its ADMA2 table. */
const TABLE = 0x800;

const COMMAND_DONE = 0x1;
const TRANSFER_DONE = 0x2;
const DMA_STOP = 0x8;
const SPACE = 0x10;
const AVAILABLE = 0x20;
const ERROR = 0x8000;

/** How far PIO has come, in bytes. */
export interface Progress {
  done: number;
}

export type Move = "pio" | "sdma" | "adma2";
const DMA_SELECT: Record<Move, number> = { pio: 0, sdma: 0, adma2: 0x10 };

/** RAM and the interrupt line; addresses from RAM_BYTES on are no memory. */
export class Board implements GuestBus {
  readonly ram = new Uint8Array(RAM_BYTES);
  readonly levels: boolean[] = [];
  level = false;
  /** Calls of the bus, and the highest address behind one of them. */
  dmaCalls = 0;
  endMax = 0;

  irq(level: boolean): void {
    this.level = level;
    this.levels.push(level);
  }

  dmaRead(address: number, lengthBytes: number): Uint8Array {
    this.#count(address + lengthBytes);
    return this.ram.subarray(address, address + lengthBytes);
  }

  dmaWritten?: (address: number, lengthBytes: number) => void;

  dmaWrite(address: number, bytes: Uint8Array): void {
    this.#count(address + bytes.length);
    this.ram.set(bytes, address);
  }

  #count(end: number): void {
    this.dmaCalls++;
    this.endMax = Math.max(this.endMax, end);
  }
}

export class GuestError extends Error {
  readonly status: number;
  constructor(what: string, status: number) {
    super(`${what}: status ${status.toString(16)}`);
    this.status = status;
  }
}

export class Guest {
  readonly host: SdhciPeripheral;
  readonly board: Board;
  /** The guest's clock, which only waiting moves. */
  nowNs = 0n;
  rca = 1;
  isSd = false;
  addressUnit = 1;
  move: Move = "pio";

  constructor(host: SdhciPeripheral, board: Board) {
    this.host = host;
    this.board = board;
    host.tick(0n);
  }

  /** Sleeps until the interrupt; the machine is woken when the controller says that something is due. */
  awaitInterrupt(): number {
    for (let i = 0; !this.board.level; i++) {
      const dueNs = this.host.dueNs();
      if (dueNs === null || i > 100_000) throw new GuestError("no interrupt will ever come", 0);
      if (dueNs > this.nowNs) this.nowNs = dueNs;
      this.host.tick(this.nowNs);
    }
    return this.host.read32(0x30);
  }

  /** Waits for `bits`, clears them, and throws at an error. */
  awaitStatus(bits: number): void {
    const status = this.awaitInterrupt();
    if (status & ERROR) {
      this.host.write32(0x30, status & ~ERROR);
      this.host.write8(0x2f, 2);
      this.host.write8(0x2f, 4);
      throw new GuestError(`waiting for ${bits}`, status);
    }
    if ((status & bits) === 0) throw new GuestError(`unexpected, waiting for ${bits}`, status);
    this.host.write32(0x30, status & bits);
  }

  sleep(lengthNs: bigint): void {
    this.nowNs += lengthNs;
    this.host.tick(this.nowNs);
  }

  /** Controller on, card powered, identification clock. */
  powerUp(): void {
    const { host } = this;
    host.write8(0x2f, 1);
    host.write32(0x34, 0x03ff00fb);
    host.write32(0x38, 0x03ff00fb);
    host.write8(0x2e, 0x0e);
    host.write8(0x29, 0x0f);
    this.setClock(250);
    this.sleep(2_000_000n);
  }

  /** base / 2N. */
  setClock(divider: number): void {
    this.host.write16(0x2c, 0);
    this.host.write16(0x2c, ((divider & 0xff) << 8) | 1);
    if ((this.host.read16(0x2c) & 2) === 0) throw new Error("the clock is not stable");
    this.host.write16(0x2c, this.host.read16(0x2c) | 4);
  }

  /** `response`: SDHCI's code, checks included. */
  command(index: number, argument: number, response: number): number {
    this.host.write32(0x08, argument);
    this.host.write16(0x0c, 0);
    this.host.write16(0x0e, (index << 8) | response);
    this.awaitStatus(COMMAND_DONE);
    if ((response & 3) === 3) this.awaitStatus(TRANSFER_DONE);
    return this.host.read32(0x10);
  }

  /** One that the card may refuse, for it may not have it, or not now. */
  tryCommand(index: number, argument: number, response: number): void {
    try {
      this.command(index, argument, response);
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
      this.host.write32(0x30, 0xffffffff);
    }
  }

  app(index: number, argument: number, response: number): number {
    this.command(55, this.rca << 16, 0x1a);
    return this.command(index, argument, response);
  }

  identify(isSd: boolean): void {
    this.isSd = isSd;
    this.rca = 0;
    this.powerUp();
    this.command(0, 0, 0);
    if (isSd) this.command(8, 0x1aa, 0x1a);
    for (let i = 0; ; i++) {
      const ocr = isSd ? this.app(41, 0x40ff8000, 2) : this.command(1, 0x40ff8000, 2);
      // CCS, or an eMMC's access mode: whether addresses count sectors or bytes.
      this.addressUnit = ocr & 0x40000000 ? 1 : 512;
      if (ocr & 0x80000000) break;
      if (i === 100) throw new Error("the card does not come up");
      this.sleep(10_000_000n);
    }
    this.command(2, 0, 9);
    this.rca = 1;
    const published = this.command(3, 1 << 16, 0x1a);
    if (isSd) this.rca = published >>> 16;
    this.command(7, this.rca << 16, 0x1b);
    if (isSd) this.app(6, 2, 0x1a);
    else this.command(6, 0x03b70101, 0x1b);
    this.host.write8(0x28, 2);
    this.setClock(4);
  }

  prepare(lengthBytes: number, address: number): void {
    this.host.write8(0x28, (this.host.read8(0x28) & ~0x18) | DMA_SELECT[this.move]);
    // SDMA with the shortest boundary, 4 KiB.
    this.host.write16(0x04, 512);
    this.host.write16(0x06, lengthBytes / 512);
    if (this.move === "sdma") this.host.write32(0x00, address);
    if (this.move !== "adma2") return;
    // In pieces of at most 16 KiB, the last of which ends the table.
    const table = new DataView(this.board.ram.buffer);
    let at = TABLE;
    for (let done = 0; done < lengthBytes; at += 8) {
      const part = Math.min(lengthBytes - done, 16384);
      done += part;
      table.setUint16(at, done === lengthBytes ? 0x23 : 0x21, true);
      table.setUint16(at + 2, part, true);
      table.setUint32(at + 4, address + done - part, true);
    }
    this.host.write32(0x58, TABLE);
  }

  /** Starts CMD18 or CMD25 with auto-CMD12 and returns when the command is answered. */
  start(isWrite: boolean, lba: number, lengthBytes: number, address: number): void {
    this.prepare(lengthBytes, address);
    this.host.write32(0x08, lba * this.addressUnit);
    this.host.write16(0x0c, (this.move === "pio" ? 0 : 1) | 2 | 4 | (isWrite ? 0 : 0x10) | 0x20);
    this.host.write16(0x0e, (isWrite ? 0x1900 : 0x1200) | 0x3a);
    this.awaitStatus(COMMAND_DONE);
  }

  /** One wait of a transfer that was started; PIO: at most `bytes` of one block. True: it is complete. */
  step(isWrite: boolean, lengthBytes: number, address: number, state: Progress, bytes = 512): boolean {
    const { host } = this;
    const { ram } = this.board;
    if (this.move !== "pio" || state.done === lengthBytes) {
      const status = this.awaitInterrupt();
      if (status & DMA_STOP && !(status & TRANSFER_DONE)) {
        host.write32(0x30, DMA_STOP);
        host.write32(0x00, host.read32(0x00));
        return false;
      }
      this.awaitStatus(TRANSFER_DONE);
      host.write32(0x30, DMA_STOP);
      return true;
    }
    if (state.done % 512 === 0) this.awaitStatus(isWrite ? SPACE : AVAILABLE);
    const end = Math.min(state.done + bytes, state.done - (state.done % 512) + 512);
    const words = new DataView(ram.buffer, address);
    for (; state.done < end; state.done += 4) {
      if (isWrite) host.write32(0x20, words.getUint32(state.done, true));
      else words.setUint32(state.done, host.read32(0x20), true);
    }
    return false;
  }

  transfer(isWrite: boolean, lba: number, lengthBytes: number, address: number): void {
    this.start(isWrite, lba, lengthBytes, address);
    const state = { done: 0 };
    while (!this.step(isWrite, lengthBytes, address, state));
    if (isWrite) this.awaitReady();
  }

  /** Behind an error in the data of a multiple transfer. */
  recover(): void {
    this.command(12, 0, 0x1b);
    this.awaitReady();
  }

  awaitReady(): void {
    for (let i = 0; i < 10_000; i++) {
      const r1 = this.command(13, this.rca << 16, 0x1a);
      if ((r1 & 0x1f00) === 0x900) return;
      this.sleep(100_000n);
    }
    throw new Error("the card does not come back to tran");
  }

  read(lba: number, lengthBytes: number, address = 0x10000): Uint8Array {
    this.transfer(false, lba, lengthBytes, address);
    return this.board.ram.slice(address, address + lengthBytes);
  }

  write(lba: number, data: Uint8Array, address = 0x10000): void {
    this.board.ram.set(data, address);
    this.transfer(true, lba, data.length, address);
  }
}
