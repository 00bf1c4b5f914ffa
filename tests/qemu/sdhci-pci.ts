// QEMU's own SD host controller and card, behind PCI, as a test reaches them: the controller's BAR mapped by hand, its
// registers, the virtual clock, and the image file behind the card.
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import type { CoreImports } from "../../host/core/instantiate.js";
import { Qtest } from "./qtest.js";

const PCI_CONFIG_ADDRESS = 0xcf8;
const PCI_CONFIG_DATA = 0xcfc;
const SLOT = 4;
/** In the hole of the PCI bus below 4 GiB, above the memory of the machine. */
const BAR = 0xe0000000;
const PCI_COMMAND = 0x04;
const PCI_CLASS = 0x08;
const PCI_BASE_ADDRESS_0 = 0x10;
/** 1b36:0007, QEMU's "SD Host Controller". */
const PCI_ID = 0x00071b36;
/** System peripheral, SD host controller; the lowest byte of the class is the programming interface. */
const PCI_CLASS_SDHCI = 0x0805;

const NEVER_CHANGED = new Int32Array(new SharedArrayBuffer(4));

export interface QemuOptions {
  /** The image behind the card; QEMU takes powers of two only, and more than 2 GiB make it an SDHC card. */
  image: string;
  /** Properties of sdhci-pci and of sd-card, e.g. "sd-spec-version=3". */
  controller?: string;
  card?: string;
}

/** A sparse file of `sizeBytes` zeros. */
export function makeImage(path: string, sizeBytes: number): void {
  const file = openSync(path, "w");
  ftruncateSync(file, sizeBytes);
  closeSync(file);
}

export class QemuSdhci {
  readonly qtest: Qtest;
  /** The driver's time in ns: the sum of its pauses. It is never ahead of real time, in which QEMU's timers run. */
  nowNs = 0;
  readonly #startedMs = performance.now();
  readonly #image: string;

  constructor(options: QemuOptions) {
    this.#image = options.image;
    const device = ["sdhci-pci", `addr=${SLOT}`, options.controller].filter(Boolean).join(",");
    const card = ["sd-card", "drive=card", options.card].filter(Boolean).join(",");
    this.qtest = new Qtest([
      ...["-machine", "pc", "-m", "16", "-device", device, "-device", card],
      ...["-drive", `id=card,if=none,format=raw,file=${options.image}`],
    ]);
    const id = this.#config(0);
    if (id !== PCI_ID) throw new Error(`PCI slot ${SLOT}: ${id.toString(16)}, not sdhci-pci`);
    const kind = this.#config(PCI_CLASS) >>> 16;
    if (kind !== PCI_CLASS_SDHCI) throw new Error(`PCI slot ${SLOT}: class ${kind.toString(16)}`);
    this.#setConfig(PCI_BASE_ADDRESS_0, BAR);
    // Memory space, bus master.
    this.#setConfig(PCI_COMMAND, 0x6);
  }

  #config(offset: number): number {
    this.qtest.outl(PCI_CONFIG_ADDRESS, 0x80000000 | (SLOT << 11) | offset);
    return this.qtest.inl(PCI_CONFIG_DATA);
  }

  #setConfig(offset: number, value: number): void {
    this.qtest.outl(PCI_CONFIG_ADDRESS, 0x80000000 | (SLOT << 11) | offset);
    this.qtest.outl(PCI_CONFIG_DATA, value);
  }

  read(offset: number, bytes: number): number {
    return this.qtest.read(BAR + offset, bytes);
  }

  write(offset: number, bytes: number, value: number): void {
    this.qtest.write(BAR + offset, bytes, value);
  }

  idle(lengthNs: number): void {
    this.nowNs += lengthNs;
    const aheadMs = this.nowNs / 1e6 - (performance.now() - this.#startedMs);
    if (aheadMs > 0) {
      this.qtest.settle();
      Atomics.wait(NEVER_CHANGED, 0, 0, aheadMs);
    }
  }

  /** The five calls of the `driver` target. Register accesses take no time, pauses do. */
  get port(): NonNullable<CoreImports["port"]> {
    return {
      read: (offset, bytes) => this.read(offset, bytes),
      write: (offset, bytes, value) => this.write(offset, bytes, value),
      delay: (lengthNs) => this.idle(lengthNs >>> 0),
      nowLow: () => (this.nowNs % 2 ** 32) | 0,
      nowHigh: () => Math.floor(this.nowNs / 2 ** 32),
    };
  }

  /** Bytes of the image file as they are now: QEMU writes through to it before it goes on. */
  stored(offset: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    const file = openSync(this.#image, "r");
    const count = readSync(file, bytes, 0, lengthBytes, offset);
    closeSync(file);
    if (count !== lengthBytes) throw new Error(`${this.#image}: ${count} bytes at ${offset}`);
    return bytes;
  }

  /** Puts bytes into the image file behind the card's back. */
  preset(offset: number, bytes: Uint8Array): void {
    const file = openSync(this.#image, "r+");
    writeSync(file, bytes, 0, bytes.length, offset);
    closeSync(file);
  }

  close(): void {
    this.qtest.close();
  }
}
