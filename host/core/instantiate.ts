// The core as JavaScript sees it: the exports with their types, and the one place where a module becomes an
// instance. Raw exports (`.instance.exports`): the loader's wrapped ones cost twice. Nothing of Node.
import { instantiateSync } from "@assemblyscript/loader";
import { MACHINE_PAGES, PAGE_BYTES } from "../../assembly/layout.js";

/** Exports of every target. Numbers are i32: unsigned results need `>>> 0`. Status: 0 or a negative errno. */
export type CoreExports = {
  machineInit(): void;
  /** Bit i of the mask (31:0, 63:32; default 0) keeps the i-th oldest cached sector. */
  machineCut(outcome: number, cacheMaskLow: number, cacheMaskHigh?: number): void;
  machineInsert(present: number): void;
  machineReset(): void;
  /** Both halves below in one call: the text stands at TEXT already, and nobody else panics. */
  panicWrite(
    reason: number,
    timeSecLow: number,
    timeSecHigh: number,
    timeNsec: number,
    textBytes: number,
    force: number,
  ): number;
  /** A token, whose low byte is 0xff, or a negative errno. With it TEXT, CONFIG_PARTS and RESULT are the caller's. */
  panicTake(reason: number, timeSecLow: number, timeSecHigh: number, timeNsec: number, force: number): number;
  panicRun(token: number, textBytes: number): number;
  recoverArea(): number;
  /** Ring 0 pmsg, 1 console, 2 and on ftrace of each CPU: up to RING_INBOX_BYTES at RING_INBOX. */
  writeRing(index: number, bytes: number): number;
  flushRings(): number;
  openCard(): number;
  blockRead(lba: number, count: number): number;
  blockWrite(lba: number, count: number): number;
  blockErase(firstLba: number, lastLba: number): number;
  blockFlush(): number;
  blockCommand(index: number, argument: number, answer: number): number;
  readCardRegister(index: number, bytes: number, app: number): number;
  leaveInFlight(kind: number, lba: number, count: number): number;
  lastCommand(): number;
  lastResponse(): number;
  idleNs(lengthNs: number): void;
  mmioRead8(offset: number): number;
  mmioRead16(offset: number): number;
  mmioRead32(offset: number): number;
  mmioWrite8(offset: number, value: number): void;
  mmioWrite16(offset: number, value: number): void;
  mmioWrite32(offset: number, value: number): void;
  /** The controller's interrupt line: 1 while a status bit with its signal enabled is there. */
  irqLevel(): number;
  // What a guest's machine does to the controller, at no simulated cost; assembly/sdhci/guest.ts.
  guestRead(offset: number, bytes: number, ahead: number): number;
  guestWrite(offset: number, bytes: number, value: number, ahead: number): void;
  guestAdvance(timeNsLow: number, timeNsHigh: number, ahead: number): void;
  guestReset(): void;
  spiAttach(): void;
  spiTransfer(byte: number, chipSelected: number): number;
  cardState(): number;
  chooseZone(): number;
  newestZone(): number;
  counterOf(reason: number): number;
  nextCounter(reason: number): number;
  payloadBytesMax(): number;
  zoneState(zone: number): number;
  /** The crash dump: words at DUMP_BASE, results at DUMP_EXTENT_* and DUMP_TOTAL_BYTES (assembly/layout.ts). */
  dumpInit(): number;
  dumpRegister(): number;
  dumpUnregister(id: number): number;
  dumpNote(type: number, ptr: number, bytes: number): number;
  dumpPlan(): number;
  dumpRelease(): void;
  dumpExtent(offsetLow: number, offsetHigh: number): number;
  dumpRead(offsetLow: number, offsetHigh: number, count: number, target: number): number;
};

/**
 * What a target imports besides its memory: `external` a medium and the crash dump's sources, `embed` those and what
 * DMA reaches, `explore` the marks, `driver` a port.
 */
export interface CoreImports {
  medium?: {
    read(partition: number, lba: number, sectors: number, ptr: number): number;
    write(partition: number, lba: number, sectors: number, ptr: number): number;
  };
  /** Bytes on the bus to and from the memory at `ptr`. Not 0: there is no memory on the bus, nothing was moved. */
  dma?: {
    read(address: number, bytes: number, ptr: number): number;
    write(address: number, bytes: number, ptr: number): number;
  };
  /** Bytes of a region of the crash dump, from an offset on, to the memory at `ptr`. How many; 0 it has none. */
  source?: { read(slot: number, offsetLow: number, offsetHigh: number, bytes: number, ptr: number): number };
  mark?: { hit(id: number): void };
  port?: {
    read(offset: number, bytes: number): number;
    write(offset: number, bytes: number, value: number): void;
    delay(lengthNs: number): void;
    nowLow(): number;
    nowHigh(): number;
  };
}

/** A memory for one machine with `mediumBytes` of medium behind it. */
export function makeMemory(mediumBytes: number, shared = false): WebAssembly.Memory {
  const initial = MACHINE_PAGES + Math.ceil(mediumBytes / PAGE_BYTES);
  return new WebAssembly.Memory(shared ? { initial, maximum: initial, shared } : { initial });
}

/** An instance on `memory`. Several may share one memory: the core keeps all its state there. */
export function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  imports: CoreImports = {},
): CoreExports {
  // The loader adds its own functions to what it is given: it gets an object of its own.
  const loaded = instantiateSync<Record<string, unknown>>(module, {
    env: { memory },
    source: { read: () => 0 },
    ...imports,
  });
  return loaded.instance.exports as unknown as CoreExports;
}
