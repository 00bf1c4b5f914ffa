// The same card and controller twice: QEMU's, and ours made as close to it as its configuration goes. A test talks to
// both by register accesses alone; everything either has to do is done before an access returns.
import { CONFIG_CAPABILITIES, CONFIG_HOST_VERSION, TEXT_BASE } from "../../assembly/layout.js";
import { type CoreExports, instantiate, makeMemory } from "../../host/core/instantiate.js";
import { IDEAL, writeConfig } from "../../host/core/profile.js";
import { coreModule } from "../machine.js";
import { QemuSdhci } from "./sdhci-pci.js";

/** 52 MHz base and timeout clock, SDMA, ADMA2 (and ADMA1), high speed, 3.3 and 1.8 V: QEMU's own default. */
const CAPABILITIES = 0x057834b4;
/** Specification 2.00, vendor version 0x24. */
const VERSION = 0x2401;
/** More than any command at 203 kHz (136 + 50 clocks are 0.9 ms) and any block on one line at 13 MHz (0.3 ms) takes. */
const SETTLE_NS = 2_000_000;

/** Where DMA of both sides goes: below 1 MiB in QEMU's guest, in TEXT of ours. */
export const DMA_BYTES = 0x8000;

export interface Side {
  readonly name: string;
  /** Where this side's DMA memory begins. */
  readonly dmaBase: number;
  read(offset: number, bytes: number): number;
  write(offset: number, bytes: number, value: number): void;
  readMemory(address: number, lengthBytes: number): Uint8Array;
  writeMemory(address: number, bytes: Uint8Array): void;
  stored(lba: number): Uint8Array;
  /** Real time for what only timers do: DMA of QEMU, a card's initialisation. */
  rest(): void;
  close(): void;
}

export class QemuSide implements Side {
  readonly name = "QEMU";
  readonly dmaBase = 0x10000;
  #qemu: QemuSdhci;

  constructor(image: string) {
    this.#qemu = new QemuSdhci({ image });
  }

  read(offset: number, bytes: number): number {
    return this.#qemu.read(offset, bytes);
  }

  write(offset: number, bytes: number, value: number): void {
    this.#qemu.write(offset, bytes, value >>> 0);
  }

  readMemory(address: number, lengthBytes: number): Uint8Array {
    return this.#qemu.qtest.readMemory(address, lengthBytes);
  }

  writeMemory(address: number, bytes: Uint8Array): void {
    this.#qemu.qtest.writeMemory(address, bytes);
  }

  stored(lba: number): Uint8Array {
    this.#qemu.qtest.settle();
    return this.#qemu.stored(lba * 512, 512);
  }

  rest(): void {
    this.#qemu.idle(1_000_000);
  }

  close(): void {
    this.#qemu.close();
  }
}

export class OurSide implements Side {
  readonly name = "ours";
  readonly dmaBase = TEXT_BASE;
  #core: CoreExports;
  #memory = makeMemory(0);
  #sectors = new Map<number, Uint8Array>();

  constructor(sectors: number) {
    const isSmall = sectors <= 2 ** 22;
    writeConfig(this.#memory, {
      card: isSmall ? "sdsc" : "sd",
      // QEMU's cards are of version 2.00, and what they erase reads as ones.
      sd: { version: "2.00", erasedByte: 255 },
      sectors,
      bootSectors: 0,
      cacheSectors: 0,
      reliableWrite: false,
      cmd23: false,
      hpi: false,
      serial: 1,
      timing: IDEAL,
      abortOutcome: "old",
      cacheKeptAtReset: false,
      dma: false,
      busWidth: 4,
      highSpeed: false,
      areaFirstLba: 0,
      zoneSectors: 2,
      zoneCount: 0,
      abi: "lp64",
      policy: "first-wins",
      deadlineUs: 1_000_000,
      trace: false,
    });
    const config = new DataView(this.#memory.buffer);
    config.setUint32(CONFIG_CAPABILITIES, CAPABILITIES, true);
    config.setUint32(CONFIG_HOST_VERSION, VERSION, true);
    this.#core = instantiate(coreModule("external"), this.#memory, {
      medium: {
        read: (_partition, lba, count, ptr) => {
          const target = new Uint8Array(this.#memory.buffer, ptr, count * 512);
          for (let i = 0; i < count; i++) target.set(this.stored((lba >>> 0) + i), i * 512);
          return 0;
        },
        write: (_partition, lba, count, ptr) => {
          // An erase comes as an address that is none: 0 for zeros, 1 for ones.
          const source =
            ptr <= 1
              ? new Uint8Array(count * 512).fill(ptr === 0 ? 0 : 0xff)
              : new Uint8Array(this.#memory.buffer, ptr, count * 512).slice();
          for (let i = 0; i < count; i++)
            this.#sectors.set((lba >>> 0) + i, source.slice(i * 512, i * 512 + 512));
          return 0;
        },
      },
    });
    this.#core.machineInit();
  }

  read(offset: number, bytes: number): number {
    const value =
      bytes === 1
        ? this.#core.mmioRead8(offset)
        : bytes === 2
          ? this.#core.mmioRead16(offset)
          : this.#core.mmioRead32(offset);
    this.#core.idleNs(SETTLE_NS);
    return value >>> 0;
  }

  write(offset: number, bytes: number, value: number): void {
    if (bytes === 1) this.#core.mmioWrite8(offset, value);
    else if (bytes === 2) this.#core.mmioWrite16(offset, value);
    else this.#core.mmioWrite32(offset, value);
    this.#core.idleNs(SETTLE_NS);
  }

  readMemory(address: number, lengthBytes: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, address, lengthBytes).slice();
  }

  writeMemory(address: number, bytes: Uint8Array): void {
    new Uint8Array(this.#memory.buffer).set(bytes, address);
  }

  stored(lba: number): Uint8Array {
    return this.#sectors.get(lba) ?? new Uint8Array(512);
  }

  rest(): void {
    // A second: the longest that a card may take to power up, and 32 MiB of DMA.
    this.#core.idleNs(1_000_000_000);
  }

  close(): void {}
}
