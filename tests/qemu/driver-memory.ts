// DMA between QEMU's controller and the driver: the driver's buffers are in the memory of a WebAssembly instance, the
// controller reaches only the guest's. What a descriptor table points to is copied there when a command with DMA is
// issued, and back when the transfer is seen to be complete; both sides use the same addresses.
import { ADMA_TABLE } from "../../assembly/layout.js";
import type { CoreImports } from "../../host/core/instantiate.js";
import type { QemuSdhci } from "./sdhci-pci.js";

const SDHCI_TRANSFER_MODE = 0x0c;
const SDHCI_INT_STATUS = 0x30;
const SDHCI_ADMA_ADDRESS = 0x58;
const TRNS_DMA = 0x01;
const TRNS_READ = 0x10;
const CMD_DATA = 0x20;
const INT_DATA_END = 0x02;
const ADMA_END = 0x02;
const DESCRIPTORS_MAX = 16;

interface Piece {
  address: number;
  lengthBytes: number;
}

export class DriverMemory {
  #qemu: QemuSdhci;
  #memory: WebAssembly.Memory;
  #table = ADMA_TABLE;
  #incoming: Piece[] = [];
  /** Transfers by DMA that were started. */
  transfers = 0;

  constructor(qemu: QemuSdhci, memory: WebAssembly.Memory) {
    this.#qemu = qemu;
    this.#memory = memory;
  }

  #bytes({ address, lengthBytes }: Piece): Uint8Array {
    return new Uint8Array(this.#memory.buffer, address, lengthBytes);
  }

  #pieces(): Piece[] {
    const view = new DataView(this.#memory.buffer);
    const pieces: Piece[] = [];
    for (let i = 0; i < DESCRIPTORS_MAX; i++) {
      const at = this.#table + i * 8;
      const lengthBytes = view.getUint16(at + 2, true) || 0x10000;
      pieces.push({ address: view.getUint32(at + 4, true), lengthBytes });
      if ((view.getUint8(at) & ADMA_END) !== 0) return pieces;
    }
    throw new Error("a descriptor table without an end");
  }

  #start(mode: number): void {
    const pieces = this.#pieces();
    const table = { address: this.#table, lengthBytes: pieces.length * 8 };
    const isRead = (mode & TRNS_READ) !== 0;
    this.#incoming = isRead ? pieces : [];
    this.transfers++;
    for (const piece of isRead ? [table] : [table, ...pieces]) {
      this.#qemu.qtest.writeMemory(piece.address, this.#bytes(piece));
    }
  }

  #finish(): void {
    for (const piece of this.#incoming) {
      this.#bytes(piece).set(this.#qemu.qtest.readMemory(piece.address, piece.lengthBytes));
    }
    this.#incoming = [];
  }

  get port(): NonNullable<CoreImports["port"]> {
    return {
      ...this.#qemu.port,
      read: (offset, bytes) => {
        const value = this.#qemu.read(offset, bytes);
        if (offset === SDHCI_INT_STATUS && (value & INT_DATA_END) !== 0) this.#finish();
        return value;
      },
      write: (offset, bytes, value) => {
        if (offset === SDHCI_ADMA_ADDRESS) this.#table = value;
        // The driver writes mode and command in one store.
        const isCommand = offset === SDHCI_TRANSFER_MODE && bytes === 4;
        if (isCommand && (value & TRNS_DMA) !== 0 && ((value >>> 16) & CMD_DATA) !== 0) this.#start(value);
        this.#qemu.write(offset, bytes, value);
      },
    };
  }
}
