// The block device: one simulated card behind one simulated controller, read, written, erased and flushed at byte
// offsets, and panicked. Everything is synchronous and deterministic; time is the machine's own. Nothing of Node.
import {
  BOUNCE_BASE,
  BOUNCE_SECTORS,
  CLOCK_NOW,
  CONFIG_PARTS,
  FAULTS_MAX,
  HOST_FTRACE_CALLS,
  HOST_POWERED,
  MEDIUM_BASE,
  MEDIUM_STORES,
  OWNER_WORD,
  REGISTER_BLOCK,
  RING_BYTES_MAX,
  RING_INBOX,
  RING_INBOX_BYTES,
  SDHCI_REGISTERS,
  SECTOR_BYTES,
  TEXT_BASE,
} from "../assembly/layout.js";
import { type ExternalMedium, MediumFailures, mediumImports, NO_MEDIUM } from "./core/external-medium.js";
import { clearFaults, type FaultPlan, writeFault } from "./core/faults.js";
import { type CoreExports, type CoreImports, instantiate, makeMemory } from "./core/instantiate.js";
import { fitText } from "./core/panic-text.js";
import { type CacheOutcome, cacheMaskOf, cutPower } from "./core/power-cut.js";
import {
  type CardKind,
  CUT_OUTCOMES,
  type CutOutcome,
  partitionSectors,
  REASONS,
  type Reason,
  writeConfig,
} from "./core/profile.js";
import { type PanicResult, readResult, refusedResult } from "./core/result.js";
import { type FtraceCall, ftraceRecord, RING_CONSOLE, RING_FTRACE, RING_PMSG } from "./core/rings.js";
import { throwOnError } from "./core/status.js";
import {
  clearTrace,
  readTrace,
  retellLevels,
  STATE_NAMES,
  type TraceEvent,
  TraceReader,
} from "./core/trace.js";
import { type DeviceCallback, DeviceCalls, POWER_IDENTIFIED, POWER_OFF, POWER_ON } from "./device-calls.js";
import {
  configOf,
  type DeviceOptions,
  MEMORY_MEDIUM_BYTES_MAX,
  type PanicArea,
  type PanicInput,
  requireNumber,
  roundUp,
  sizeBytesOf,
} from "./device-options.js";
import { DEVICE_OPTIONS, FTRACE_CALLS, PANIC_INPUT } from "./device-shapes.js";
import {
  bring,
  isRemote,
  judgeRegion,
  type Region,
  RegionTable,
  regionTableBytes,
} from "./dump/region-table.js";
import { coreIdentity, decodeState, encodeState, type SavedMachine } from "./embed/state.js";
import { ERRNO, MmcError } from "./errors.js";
import { big, bytes, having, judge, oneOf, U32 } from "./judge.js";
import { ownBytes } from "./own-bytes.js";
import { rehearse } from "./rehearsal.js";

/** The card's registers as they come over the wire; the last byte of CID and CSD (CRC7) stays in the controller. */
export interface CardRegisters {
  card: CardKind;
  cid: Uint8Array;
  csd: Uint8Array;
  /** eMMC; null on SD. */
  extCsd: Uint8Array | null;
  /** SD; null on eMMC. */
  scr: Uint8Array | null;
  ssr: Uint8Array | null;
}

export type { CacheOutcome, PanicInput, Reason };

/** A request that a CPU left in the middle when it stopped. */
export type InFlight =
  | "read"
  | "write"
  | "program"
  | "erase"
  | "sleep"
  | "suspended"
  | "claimed"
  | "deselected";
const IN_FLIGHT: Record<InFlight, number> = {
  read: 1,
  write: 2,
  program: 3,
  erase: 4,
  sleep: 5,
  suspended: 6,
  claimed: 7,
  deselected: 8,
};

export interface DeviceState {
  timeNs: bigint;
  card: (typeof STATE_NAMES)[number];
  powered: boolean;
  /** Id that holds the host: 0 nobody, 1 a normal request, {@link OWNER_PANIC} a panic. */
  owner: number;
  sizeBytes: number;
  /** Stores of the medium since the machine was made: a sector each, or a range that was erased. */
  storedSectors: bigint;
  /** Zone that the next panic would write, -1 without an area. */
  nextZone: number;
  newestZone: number;
  /** Most bytes that one record takes: of text if it is not compressed. */
  payloadBytesMax: number;
  /** Panics and Oopses that the area has ever recorded, removed ones included. */
  panicCount: number;
  oopsCount: number;
}

/** The id that a panic holds the host with; assembly/owner.ts. */
const OWNER_PANIC = 255;
/** As Linux's max_reason: 0 stands for this. */
const MAX_REASON_DEFAULT = REASONS.Oops;
/** Bit 0 is the supply of the slot (mmc.md §3.2). */
const SDHCI_POWER_CONTROL = 0x29;
/** The core counts a pause in 32 bits. */
const IDLE_STEP_NS = 0x7fffffff;
/** What one call of the core erases: assembly/driver/block.ts. */
const ERASE_SECTORS_MAX = 2 ** 28;
/** R1 bit 15: an erase has left out what is write-protected. */
const R1_WP_ERASE_SKIP = 1 << 15;
const IN_FLIGHT_KIND = oneOf(IN_FLIGHT);
const CUT_OUTCOME = oneOf(CUT_OUTCOMES);
const GUEST_OFFSET = big(-(2n ** 63n), 2n ** 63n - 1n);
const EXTERNAL_MEDIUM = having("read", "write");
const DMA = having("read", "write");
const BOUNCE_BYTES = BOUNCE_SECTORS * SECTOR_BYTES;
/** What a sector that cannot be read or stored makes of a request; nothing else is the medium's fault. */
const MEDIUM_ERRNOS: ReadonlySet<number> = new Set([ERRNO.EIO, ERRNO.ENOSPC]);

/** What the core's panicTake() returned is a token: OWNER_PANIC is in its low byte, as in no errno's. */
function isPanicToken(value: number): boolean {
  return (value & 0xff) === 0xff;
}

/** Sectors of a request that is left in flight. @throws MmcError EINVAL not 2 to 64 whole ones */
function inFlightSectors(kind: InFlight, offset: number, lengthBytes: number): number {
  const count = lengthBytes / SECTOR_BYTES;
  if (offset % SECTOR_BYTES !== 0 || !Number.isInteger(count) || count < 2 || count > 64) {
    throw new MmcError("EINVAL", `${kind}: ${lengthBytes} bytes at ${offset} are not 2 to 64 whole sectors`);
  }
  return count;
}

/**
 * A device. Offsets and lengths are bytes from the start of the card's user area, whole numbers ≥ 0.
 * Every call throws {@link MmcError}: EINVAL out of range; ENODEV without power (read, write, erase, flush,
 * leaveInFlight, flushRings, registers: or without a card that was identified since it came); EBUSY the host is held (a
 * request was left in flight, or a panic died), or the call was made from a callback (see below); ECANCELED a panic
 * took the host in the middle of it (a mark of the explore core, another thread): it has touched nothing since, and of
 * what a write or an erase was to change each sector is old or new; EIO, EILSEQ, ETIMEDOUT, ENOMEDIUM, ENODEV (another
 * card) as the card or the bus had it. Where the medium is elsewhere and failed, its error is thrown if it is an
 * MmcError, and is `cause` if not.
 *
 * From a callback of the device (medium, onTrace, a region's source, a bus's DMA) nothing can be called that runs the
 * machine or changes it: EBUSY, and nothing has changed. What only reads can: sizeBytes, memory, core, externalMedium,
 * dumpMemory, dumpNotes, medium(), state(), trace(). In mark.hit of the explore core, which stands between two accesses
 * of the driver, panicWrite() can be called as well, as an NMI does; within a panic it is refused with status -EBUSY.
 */
export class Device {
  /** The core, which tells `onTrace` behind each call … */
  readonly #core: CoreExports;
  /** … and for questions that leave no trace. */
  readonly #silent: CoreExports;
  readonly #module: WebAssembly.Module;
  readonly #memory: WebAssembly.Memory;
  /** All of it, which never grows. */
  readonly #words: DataView;
  readonly #sizeBytes: number;
  readonly #inMemory: boolean;
  readonly #external: ExternalMedium | null;
  readonly #reachesGuest: boolean;
  readonly #hasArea: boolean;
  readonly #abi: PanicArea["abi"];
  readonly #cpus: number;
  readonly #parts: number;
  readonly #maxReason: number;
  readonly #failures = new MediumFailures();
  readonly #calls = new DeviceCalls(() => this.#powered(), this.#failures);
  #traceFailure: { error: unknown } | null = null;
  readonly #card: CardKind;
  readonly #onTrace: DeviceOptions["onTrace"];
  readonly #tracer = new TraceReader();
  readonly #regions: RegionTable | null = null;
  readonly #asksHost: boolean;
  /** Bytes of this device's memory for regions to live in, which every core reaches; see `dump.memoryBytes`. */
  readonly dumpMemory: Uint8Array;
  #dma: CoreImports["dma"];

  private constructor(
    module: WebAssembly.Module,
    given: DeviceOptions,
    external: ExternalMedium | null,
    imports: CoreImports,
  ) {
    const options = judge("", given, DEVICE_OPTIONS);
    this.#module = module;
    this.#sizeBytes = sizeBytesOf(options, external);
    const config = configOf(options, this.#sizeBytes);
    this.#card = config.card;
    this.#onTrace = options.onTrace;
    this.#inMemory = external === null;
    this.#hasArea = options.area !== undefined;
    this.#abi = options.area?.abi ?? "lp64";
    this.#cpus = config.rings?.cpus ?? 0;
    this.#parts = config.parts ?? 1;
    this.#maxReason =
      config.maxReason === 0 ? MAX_REASON_DEFAULT : (config.maxReason ?? Number.POSITIVE_INFINITY);
    const mediumBytes = this.#sizeBytes + partitionSectors(config) * SECTOR_BYTES;
    if (external && config.emmc?.gpSectors?.some((sectors) => sectors > 0)) {
      throw new MmcError("EINVAL", "gpBytes: an external medium has a user area only");
    }
    if (!external) requireNumber("sizeBytes with partitions", mediumBytes, 1, MEMORY_MEDIUM_BYTES_MAX);
    const { dump } = options;
    const tableAt = this.#inMemory ? mediumBytes : 0;
    const tableBytes = dump ? roundUp(regionTableBytes(dump), 8) : 0;
    const dumpBytes = dump?.memoryBytes ?? 0;
    requireNumber("memory of medium and dump", tableAt + tableBytes + dumpBytes, 0, MEMORY_MEDIUM_BYTES_MAX);
    this.#memory = makeMemory(tableAt + tableBytes + dumpBytes);
    this.dumpMemory = new Uint8Array(this.#memory.buffer, MEDIUM_BASE + tableAt + tableBytes, dumpBytes);
    this.#words = new DataView(this.#memory.buffer);
    this.#external = external;
    const imported = new Set(WebAssembly.Module.imports(module).map((wanted) => wanted.module));
    this.#reachesGuest = imported.has("dma");
    this.#asksHost = imported.has("source");
    const medium = external ? this.#mediumImports(external) : NO_MEDIUM;
    // Until a peripheral connects them, DMA finds no memory.
    const dma: CoreImports["dma"] = {
      read: (address, bytes, ptr) =>
        this.#during("dma.read", () => this.#dma?.read(address, bytes, ptr) ?? -1),
      write: (address, bytes, ptr) =>
        this.#during("dma.write", () => this.#dma?.write(address, bytes, ptr) ?? -1),
    };
    const source: CoreImports["source"] = {
      read: (slot, offsetLow, offsetHigh, bytes, ptr) => {
        const entry = this.#regions?.entries[slot];
        if (entry === undefined) return -1;
        const offset = (offsetHigh >>> 0) * 2 ** 32 + (offsetLow >>> 0);
        const target = new Uint8Array(this.#memory.buffer, ptr >>> 0, bytes >>> 0);
        return this.#during("source", () => bring({ entry, offset, target }));
      },
    };
    const { mark } = imports;
    const marks = mark && { hit: (id: number) => this.#during("mark.hit", () => mark.hit(id)) };
    const core = instantiate(module, this.#memory, {
      medium,
      dma,
      source,
      ...imports,
      ...(marks ? { mark: marks } : {}),
    });
    this.#silent = core;
    this.#core = options.onTrace ? this.#telling(core) : core;
    writeConfig(this.#memory, config);
    if (dump) this.#regions = new RegionTable(core, this.#memory, dump, MEDIUM_BASE + tableAt);
    this.#core.machineInit();
    if (options.content && this.#inMemory) {
      new Uint8Array(this.#memory.buffer).set(options.content, MEDIUM_BASE);
    }
    rehearse(module, config, imports);
    this.powerOn();
  }

  /**
   * A device whose medium lies in its memory. `module`: the `release` target, `embed` for an SdhciPeripheral (or
   * `explore` with its marks).
   */
  static open(module: WebAssembly.Module, options: DeviceOptions, imports: CoreImports = {}): Device {
    return new Device(module, options, null, imports);
  }

  /** A device on a medium elsewhere. `module`: the `external` target, or `embed` for an SdhciPeripheral. */
  static openExternal(module: WebAssembly.Module, medium: ExternalMedium, options: DeviceOptions): Device {
    EXTERNAL_MEDIUM("medium", medium);
    return new Device(module, options, medium, {});
  }

  /** Size of the user area in bytes. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The machine's memory; its layout is assembly/layout.ts. For snapshots and for explorers. */
  get memory(): WebAssembly.Memory {
    return this.#memory;
  }

  /** The exports of the core, for what this class does not offer. */
  get core(): CoreExports {
    return this.#core;
  }

  /** The medium of a device that was opened with openExternal(). */
  get externalMedium(): ExternalMedium | null {
    return this.#external;
  }

  /**
   * Gives the controller's DMA something to reach; the last call holds. For SdhciPeripheral.
   * Returns what runs the bus's own callbacks outside of an access, so that they count as callbacks too.
   * @throws MmcError EINVAL unless the core is the `embed` target: the others' DMA stays within their memory
   */
  connectDma(dma: NonNullable<CoreImports["dma"]>): (callback: () => void) => void {
    return this.#calls.run("connectDma", () => {
      if (!this.#reachesGuest) throw new MmcError("EINVAL", "a peripheral's device needs the embed core");
      DMA("connectDma", dma);
      this.#dma = dma;
      return (callback) => this.#during("dma.written", callback);
    });
  }

  /**
   * A card that hangs or has lost its way is led back as a panic does, and asked again. What then still fails is
   * thrown: ETIMEDOUT, EILSEQ, EIO, ENOMEDIUM, ENODEV (another card).
   */
  read(offset: number, lengthBytes: number): Uint8Array {
    return this.#calls.run("read", () => {
      this.#checkRange("read", offset, lengthBytes);
      const result = new Uint8Array(lengthBytes);
      this.#eachPiece(offset, lengthBytes, (lba, count, skipBytes, partBytes, doneBytes) => {
        this.#check(this.#core.blockRead(lba, count), `read ${partBytes} bytes at ${offset + doneBytes}`);
        result.set(new Uint8Array(this.#memory.buffer, BOUNCE_BASE + skipBytes, partBytes), doneBytes);
      });
      return result;
    });
  }

  /** Written bytes are durable after flush(). Parts of sectors are read, changed and written. Errors: as read(). */
  write(offset: number, data: Uint8Array): void {
    this.#calls.run("write", () => this.#write(offset, data));
  }

  #write(offset: number, data: Uint8Array): void {
    bytes("write: data", data);
    this.#checkRange("write", offset, data.length);
    this.#eachPiece(offset, data.length, (lba, count, skipBytes, partBytes, doneBytes) => {
      const what = `write ${partBytes} bytes at ${offset + doneBytes}`;
      if (skipBytes !== 0 || partBytes !== count * SECTOR_BYTES)
        this.#check(this.#core.blockRead(lba, count), what);
      const target = new Uint8Array(this.#memory.buffer, BOUNCE_BASE + skipBytes, partBytes);
      target.set(data.subarray(doneBytes, doneBytes + partBytes));
      this.#check(this.#core.blockWrite(lba, count), what);
    });
  }

  /**
   * The bytes become zero: whole sectors by trim (SD: erase), parts of sectors by writing, and everything by writing on
   * a card whose erased bytes are ones. Errors: as read(); EIO, too, if some of it is write-protected (`r1` has
   * WP_ERASE_SKIP where it was erased): that keeps its bytes, and the rest may be zero. What was written of it is, like
   * all written bytes, durable after flush().
   */
  erase(offset: number, lengthBytes: number): void {
    this.#calls.run("erase", () => {
      this.#checkRange("erase", offset, lengthBytes);
      const end = offset + lengthBytes;
      const firstWhole = Math.min(roundUp(offset, SECTOR_BYTES), end);
      const endWhole = Math.max(end - (end % SECTOR_BYTES), firstWhole);
      if (firstWhole > offset) this.#write(offset, new Uint8Array(firstWhole - offset));
      if (endWhole > firstWhole) {
        const past = endWhole / SECTOR_BYTES;
        let status = 0;
        for (let lba = firstWhole / SECTOR_BYTES; lba < past && status === 0; lba += ERASE_SECTORS_MAX) {
          status = this.#core.blockErase(lba, Math.min(past, lba + ERASE_SECTORS_MAX) - 1);
        }
        const isProtected = status !== 0 && (this.#core.lastResponse() & R1_WP_ERASE_SKIP) !== 0;
        const left = isProtected ? ": what is write-protected of it keeps its bytes, the rest is erased" : "";
        this.#check(status, `erase ${endWhole - firstWhole} bytes at ${firstWhole}${left}`);
      }
      if (end > endWhole) this.#write(endWhole, new Uint8Array(end - endWhole));
    });
  }

  /**
   * Everything written before is on the medium afterwards. EIO, once: the card had to be started again behind a
   * write that was not flushed, and may have lost it; or it could not store what its cache held, or the answer to a
   * flush was lost, whoever had asked for it: a panic, flushRings(), or an earlier call. Others: as read().
   * ENODEV: the device has no power, and the cache went with it.
   */
  flush(): void {
    this.#calls.run("flush", () => this.#check(this.#core.blockFlush(), "flush"));
  }

  /**
   * Starts a request and leaves it in the middle, host held, as a CPU that stopped leaves it. Writes put back the bytes
   * that are there. `offset` and `lengthBytes`: multiples of 512, 1024 … 32768 bytes. EOPNOTSUPP: an SD card has no
   * sleep.
   */
  leaveInFlight(kind: InFlight, offset = 0, lengthBytes = 8 * SECTOR_BYTES): void {
    this.#calls.run("leaveInFlight", () => {
      IN_FLIGHT_KIND("kind", kind);
      this.#checkRange(kind, offset, lengthBytes);
      const count = inFlightSectors(kind, offset, lengthBytes);
      this.#check(this.#core.blockRead(offset / SECTOR_BYTES, count), `${kind} in flight`);
      const status = this.#core.leaveInFlight(IN_FLIGHT[kind], offset / SECTOR_BYTES, count);
      this.#check(status, `${kind} in flight`);
    });
  }

  /** The same, with bytes of the caller's: a write that is new. */
  leaveWriteInFlight(offset: number, data: Uint8Array): void {
    this.#calls.run("leaveWriteInFlight", () => {
      bytes("leaveWriteInFlight: data", data);
      this.#checkRange("write", offset, data.length);
      const count = inFlightSectors("write", offset, data.length);
      new Uint8Array(this.#memory.buffer, BOUNCE_BASE, data.length).set(data);
      this.#check(this.#core.leaveInFlight(IN_FLIGHT.write, offset / SECTOR_BYTES, count), "write in flight");
    });
  }

  /**
   * The panic path: takes the host from whoever holds it and writes one record. It never throws for what the card, the
   * bus or a listener did, the status tells: -EBUSY another panic holds the host (without `force`, or because this is
   * called from within it), -ECANCELED `maxReason`, or a panic of another thread was forced behind this one. Text
   * longer than a record takes, or than there is time for, loses its oldest bytes.
   * @throws MmcError EINVAL without an area, or for a time or a reason that cannot be; ENODEV without power; EBUSY from
   * a callback of a call that is no panic
   */
  panicWrite(input: PanicInput): PanicResult {
    const { text, reason, timeSec, timeNsec, parts, force } = this.#judgePanic(input);
    // Before anything is written to memory: the text there may be another panic's.
    if (this.#calls.isInPanic) return refusedResult(-ERRNO.EBUSY, text.length);
    return this.#calls.run("panicWrite", () => {
      if (reason > this.#maxReason) return refusedResult(-ERRNO.ECANCELED, text.length);
      if (this.#owner() === OWNER_PANIC && !force) return refusedResult(-ERRNO.EBUSY, text.length);
      const [low, high] = [Number(timeSec & 0xffffffffn), Number(timeSec >> 32n)];
      const token = this.#core.panicTake(reason, low, high, timeNsec, force ? 1 : 0);
      // Somebody else's panic holds the host: RESULT, the text and its place are that panic's.
      if (!isPanicToken(token)) return refusedResult(token, text.length);
      this.#words.setUint32(CONFIG_PARTS, parts, true);
      const kept = this.#putText(text);
      let status = 0;
      try {
        status = this.#core.panicRun(token, kept);
      } finally {
        // Where a panic of another thread was forced behind this one, all this is that one's.
        if (status !== -ERRNO.ECANCELED) this.#words.setUint32(CONFIG_PARTS, this.#parts, true);
      }
      if (status === -ERRNO.ECANCELED) return refusedResult(status, text.length);
      // It has identified the card by itself.
      if (status === 0) this.#setPowered(POWER_IDENTIFIED);
      const result = readResult(this.#memory);
      return { ...result, status, droppedBytes: result.droppedBytes + text.length - kept };
    });
  }

  #judgePanic(input: PanicInput) {
    if (!this.#hasArea) throw new MmcError("EINVAL", "panicWrite: the device was opened without an area");
    const { text: said, reason = "Panic", timeSec = 0n, ...rest } = judge("", input, PANIC_INPUT);
    const { timeNsec = 0, parts = this.#parts, force = false } = rest;
    const text = typeof said === "string" ? new TextEncoder().encode(said) : said;
    return {
      text,
      reason: REASONS[reason as Reason],
      timeSec: BigInt.asUintN(64, timeSec),
      timeNsec,
      parts,
      force,
    };
  }

  /** The newest bytes to TEXT, as many as there is room for; returns how many. */
  #putText(bytes: Uint8Array): number {
    const kept = fitText(bytes);
    new Uint8Array(this.#memory.buffer, TEXT_BASE, kept.length).set(kept);
    return kept.length;
  }

  /**
   * Registers a region for the crash dump and returns its id. At the panic its bytes are read where they are: those in
   * this device's memory by the core itself; others, and what a function brings, by a call of the host, which a core
   * with a medium in memory cannot make. What a function does not bring is 0xff and listed in the dump's header. It
   * must not call the device.
   * @throws MmcError EINVAL no `dump`, or name, size, alignment or an end beyond 2^64; EOPNOTSUPP a `remote` source,
   * which no panic can wait for, or one outside of the memory of a core that cannot ask; EOVERFLOW, EEXIST, ENOSPC,
   * EBUSY
   */
  registerRegion(region: Region): number {
    return this.#calls.run("registerRegion", () => this.#registerRegion(region));
  }

  #registerRegion(given: Region): number {
    const region = judgeRegion(given);
    const { name, source } = region;
    if (isRemote(source)) {
      throw new MmcError("EOPNOTSUPP", `region ${name}: is remote, and a panic can wait for nobody`);
    }
    const isInMemory = source instanceof Uint8Array && source.buffer === this.#memory.buffer;
    if (!isInMemory && !this.#asksHost) {
      throw new MmcError(
        "EOPNOTSUPP",
        `region ${name}: this core reaches its own memory only (dumpMemory); external and embed ask the host`,
      );
    }
    return this.#regionTable().register(region);
  }

  /** @throws MmcError EINVAL no `dump`; ENOENT no region has this id (any more) */
  unregisterRegion(id: number): void {
    this.#calls.run("unregisterRegion", () => {
      U32("unregisterRegion: id", id);
      this.#regionTable().unregister(id);
    });
  }

  /**
   * The descriptions of `dump.notes` as the next dump will have them, in their order: what is known at the crash alone,
   * as the registers, is written into them. @throws MmcError EINVAL no `dump`
   */
  get dumpNotes(): readonly Uint8Array[] {
    return this.#regionTable().notes;
  }

  #regionTable(): RegionTable {
    if (this.#regions !== null) return this.#regions;
    throw new MmcError("EINVAL", "region: the device was opened without a dump");
  }

  /**
   * What user space says, into the pmsg ring. It is in memory: flushRings(), or a panic, brings it to the medium, and
   * only then it is acknowledged. The newest bytes take the place of the oldest.
   * @throws MmcError EINVAL: the area has no such ring; EBUSY: a panic is under way, or has died, and keeps the rings
   * as they are
   */
  writePmsg(bytes: Uint8Array): void {
    this.#calls.run("writePmsg", () => this.#writeRing("writePmsg", RING_PMSG, bytes));
  }

  /** What goes to the consoles, into the console ring; as writePmsg(). */
  writeConsole(bytes: Uint8Array): void {
    this.#calls.run("writeConsole", () => this.#writeRing("writeConsole", RING_CONSOLE, bytes));
  }

  /** Calls of functions in the order in which they happened, each into its CPU's slice; as writePmsg(). */
  writeFtrace(calls: readonly FtraceCall[]): void {
    this.#calls.run("writeFtrace", () => this.#writeFtrace(calls));
  }

  #writeFtrace(given: readonly FtraceCall[]): void {
    const calls = FTRACE_CALLS("writeFtrace", given);
    for (const { cpu } of calls) requireNumber("writeFtrace: cpu", cpu, 0, this.#cpus - 1);
    for (const { cpu, ip, parentIp } of calls) {
      const count = this.#words.getBigUint64(HOST_FTRACE_CALLS, true) + 1n;
      const time = (count << 8n) | BigInt(cpu);
      this.#writeRing("writeFtrace", RING_FTRACE + cpu, ftraceRecord(this.#abi, ip, parentIp, time));
      this.#words.setBigUint64(HOST_FTRACE_CALLS, count, true);
    }
  }

  /**
   * What the rings have in memory is on the medium when this returns, durably. A cut or an error before that leaves
   * what was acknowledged, less the oldest bytes where the new ones had begun to take their place. The first flush of
   * a boot ends what the boot before left in that ring.
   * @throws MmcError EBUSY the host is held; EIO and others as write() does
   */
  flushRings(): void {
    this.#calls.run("flushRings", () => this.#check(this.#core.flushRings(), "flush the rings"));
  }

  #writeRing(what: string, index: number, said: Uint8Array): void {
    bytes(what, said);
    const first = Math.max(0, said.length - RING_BYTES_MAX);
    for (let at = first; at < said.length || at === first; at += RING_INBOX_BYTES) {
      const part = said.subarray(at, at + RING_INBOX_BYTES);
      new Uint8Array(this.#memory.buffer, RING_INBOX, part.length).set(part);
      const status = this.#core.writeRing(index, part.length);
      if (status === -ERRNO.EINVAL) {
        throw new MmcError("EINVAL", `${what}: the device was opened without such a ring`);
      }
      throwOnError(status, what);
    }
  }

  /**
   * The power goes, now. The medium keeps what `outcome` and `cache` say; everything else is forgotten.
   * @throws MmcError EINVAL an outcome that is none, or sectors that no cache has
   */
  powerCut(outcome: CutOutcome = "old", cache: CacheOutcome = "lost"): void {
    this.#calls.run("powerCut", () => {
      CUT_OUTCOME("outcome", outcome);
      cutPower(this.#core, CUT_OUTCOMES[outcome], cacheMaskOf(cache));
      this.#setPowered(POWER_OFF);
    });
  }

  /** Power, identification, and recovery of the area. A machine whose card does not answer is on all the same. */
  powerOn(): void {
    this.#calls.run("powerOn", () => {
      this.#setPowered(POWER_ON);
      this.#check(this.#core.openCard(), "power on");
      this.#setPowered(POWER_IDENTIFIED);
      if (this.#hasArea) this.#check(this.#core.recoverArea(), "recover the area");
    });
  }

  /** Puts a fault into the plan; `index` (0 … 15) names its place in it. docs/FAULTS.md */
  injectFault(plan: FaultPlan, index = 0): void {
    this.#calls.run("injectFault", () => {
      requireNumber("index", index, 0, FAULTS_MAX - 1);
      writeFault(this.#memory, index, plan);
    });
  }

  clearFaults(): void {
    this.#calls.run("clearFaults", () => clearFaults(this.#memory.buffer));
  }

  /** Takes the card out of the slot, puts it back, or puts another one with the same content in its place. */
  insertCard(present: boolean | "another"): void {
    this.#calls.run("insertCard", () => {
      if (typeof present !== "boolean" && present !== "another") {
        throw new MmcError("EINVAL", `insertCard: ${String(present)} is not true, false or another`);
      }
      this.#core.machineInsert(present === "another" ? 2 : present ? 1 : 0);
    });
  }

  /** Simulated time passes and nobody uses the card. */
  idle(lengthNs: number): void {
    this.#calls.run("idle", () => {
      requireNumber("idle", lengthNs, 0, Number.MAX_SAFE_INTEGER);
      for (let left = lengthNs; left > 0; left -= IDLE_STEP_NS)
        this.#core.idleNs(Math.min(left, IDLE_STEP_NS));
    });
  }

  state(): DeviceState {
    const core = this.#silent;
    return {
      timeNs: this.#words.getBigUint64(CLOCK_NOW, true),
      card: STATE_NAMES[core.cardState()] ?? "ina",
      powered: this.#powered() !== POWER_OFF,
      owner: this.#owner(),
      sizeBytes: this.#sizeBytes,
      storedSectors: this.#words.getBigUint64(MEDIUM_STORES, true),
      nextZone: this.#hasArea ? core.chooseZone() : -1,
      newestZone: this.#hasArea ? core.newestZone() : -1,
      payloadBytesMax: this.#hasArea ? core.payloadBytesMax() : 0,
      panicCount: core.counterOf(REASONS.Panic) >>> 0,
      oopsCount: core.counterOf(REASONS.Oops) >>> 0,
    };
  }

  trace(): { events: TraceEvent[]; lost: number } {
    return readTrace(this.#memory);
  }

  /** Forgets the events; clock, lines and the card's state are told anew, so that what follows stands alone. */
  clearTrace(): void {
    this.#calls.run("clearTrace", () => {
      this.#tell();
      clearTrace(this.#memory);
      retellLevels(this.#memory);
      this.#tracer.skip(this.#memory);
    });
  }

  /**
   * The events since the last time, or since the start or clearTrace(); trace() keeps showing them. Not for a device
   * with `onTrace`, which gets them itself.
   */
  drainTrace(): { events: TraceEvent[]; lost: number } {
    return this.#calls.run("drainTrace", () => this.#tracer.read(this.#memory));
  }

  /**
   * What `onTrace` has thrown first since the last time (one that returns a promise: or rejected with); undefined if
   * nothing. It changes nothing else: the calls go on as if it had returned, and it gets the events that follow.
   */
  takeTraceFailure(): unknown {
    return this.#calls.run("takeTraceFailure", () => {
      const failure = this.#traceFailure?.error;
      this.#traceFailure = null;
      return failure;
    });
  }

  /**
   * CID, CSD and what the kind of card has besides, asked for over the bus; the card is in tran before and after.
   * @throws MmcError as read() does
   */
  registers(): CardRegisters {
    return this.#calls.run("registers", () => this.#registers());
  }

  #registers(): CardRegisters {
    const read = (name: string, index: number, lengthBytes: number, app = false) => {
      const status = this.#core.readCardRegister(index, lengthBytes, app ? 1 : 0);
      this.#check(status, `read ${name}`);
      return ownBytes(new Uint8Array(this.#memory.buffer, REGISTER_BLOCK, lengthBytes));
    };
    const isSd = this.#card !== "emmc";
    return {
      card: this.#card,
      cid: read("CID", 10, 16),
      csd: read("CSD", 9, 16),
      extCsd: isSd ? null : read("EXT_CSD", 8, 512),
      scr: isSd ? read("SCR", 51, 8, true) : null,
      ssr: isSd ? read("SSR", 13, 64, true) : null,
    };
  }

  /** The stored bytes as they are now: no cache, no bus. EINVAL for an external medium. A view, not a copy. */
  medium(): Uint8Array {
    if (!this.#inMemory) throw new MmcError("EINVAL", "medium: it is not in the device's memory");
    return new Uint8Array(this.#memory.buffer, MEDIUM_BASE, this.#sizeBytes);
  }

  /**
   * The whole machine, the medium included if it is in memory or has a saveState() of its own; another medium stays as
   * it is. `guestOffsetNs` is for SdhciPeripheral, whose states are these.
   */
  saveState(guestOffsetNs: bigint | null = null): Uint8Array {
    if (guestOffsetNs !== null) GUEST_OFFSET("saveState: guestOffsetNs", guestOffsetNs);
    return this.#calls.run("saveState", () =>
      this.#during("medium.saveState", () => encodeState(this.#savedMachine(), guestOffsetNs)),
    );
  }

  /**
   * Back to a saved state of this device or of one with the same core and options (tracing aside). Regions of the crash
   * dump are those of the state; of one that has not been registered with this device under the same id, name, address
   * and size, no bytes can be had, unless they are in its memory: a dump says so and is not complete.
   * @throws MmcError EINVAL bytes that are no state, cut off or damaged, of another version, core, build, card, size or
   * options; whatever the medium's loadState() throws. Nothing has changed then
   */
  loadState(state: Uint8Array): void {
    this.#calls.run("loadState", () => {
      const { memory, restoreMedium } = decodeState(state, this.#savedMachine());
      this.#tell();
      this.#during("medium.loadState", restoreMedium);
      new Uint8Array(this.#memory.buffer).set(memory);
      this.#regions?.forgetOthers();
      this.#tracer.skip(this.#memory);
    });
  }

  #savedMachine(): SavedMachine {
    return {
      memory: new Uint8Array(this.#memory.buffer),
      external: this.#external,
      identity: coreIdentity(this.#module),
    };
  }

  /** POWER_*. A supply that somebody else has switched on, through `core`, is one too. */
  #powered(): number {
    const power = this.#words.getUint32(HOST_POWERED, true);
    const isSupplied = (this.#words.getUint8(SDHCI_REGISTERS + SDHCI_POWER_CONTROL) & 1) !== 0;
    return power === POWER_OFF && isSupplied ? POWER_ON : power;
  }

  #setPowered(power: number): void {
    this.#words.setUint32(HOST_POWERED, power, true);
  }

  #owner(): number {
    return this.#words.getUint32(OWNER_WORD, true) & 0xff;
  }

  /** Calls the host back. */
  #during<T>(callback: DeviceCallback, call: () => T): T {
    const outer = this.#calls.enter(callback);
    try {
      return call();
    } finally {
      this.#calls.leave(outer);
    }
  }

  #mediumImports(external: ExternalMedium): NonNullable<CoreImports["medium"]> {
    const guarded: Pick<ExternalMedium, "read" | "write" | "erase"> = {
      read: (offset, target) => this.#during("medium.read", () => external.read(offset, target)),
      write: (offset, data) => this.#during("medium.write", () => external.write(offset, data)),
    };
    if (external.erase) {
      guarded.erase = (offset, lengthBytes, byte) =>
        this.#during("medium.erase", () => external.erase?.(offset, lengthBytes, byte));
    }
    return mediumImports(guarded, this.#memory, this.#failures, () => this.#tell());
  }

  /** What is new goes to `onTrace`, which changes nothing, also when it fails. */
  #tell(): void {
    if (this.#onTrace === undefined) return;
    const { events, lost } = this.#tracer.read(this.#memory);
    if (events.length === 0 && lost === 0) return;
    const outer = this.#calls.enter("onTrace");
    try {
      const said: unknown = this.#onTrace(events, lost);
      if (said instanceof Promise) said.catch((error) => this.#noteTraceFailure(error));
    } catch (error) {
      this.#noteTraceFailure(error);
    } finally {
      this.#calls.leave(outer);
    }
  }

  #noteTraceFailure(error: unknown): void {
    this.#traceFailure ??= { error };
  }

  /** The exports, each of which tells of its events when it is done, be it by a trap. */
  #telling(core: CoreExports): CoreExports {
    const telling: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(core) as [string, (...args: number[]) => unknown][]) {
      telling[name] = (...args: number[]) => {
        try {
          return value(...args);
        } finally {
          this.#tell();
        }
      };
    }
    return telling as CoreExports;
  }

  #check(status: number, what: string): void {
    if (status === 0) return;
    const cause = MEDIUM_ERRNOS.has(-status) ? this.#failures.ofThisCall() : undefined;
    if (cause instanceof MmcError) throw cause;
    throwOnError(status, what, {
      command: this.#silent.lastCommand(),
      r1: this.#silent.lastResponse() >>> 0,
      cause,
    });
  }

  /**
   * The first error of an external medium that no retry has healed, in the last call that used the machine (also one
   * that has thrown it) or in a guest's accesses since the last time; undefined if there was none.
   */
  takeMediumFailure(): unknown {
    return this.#calls.run("takeMediumFailure", () => this.#failures.take());
  }

  #checkRange(what: string, offset: number, lengthBytes: number): void {
    requireNumber(`${what}: offset`, offset, 0, this.#sizeBytes);
    requireNumber(`${what}: length`, lengthBytes, 0, this.#sizeBytes - offset);
  }

  /** Cuts a byte range into pieces of whole sectors that fit the bounce buffer. */
  #eachPiece(
    offset: number,
    lengthBytes: number,
    move: (lba: number, count: number, skipBytes: number, partBytes: number, doneBytes: number) => void,
  ): void {
    for (let doneBytes = 0; doneBytes < lengthBytes; ) {
      const at = offset + doneBytes;
      const skipBytes = at % SECTOR_BYTES;
      const partBytes = Math.min(lengthBytes - doneBytes, BOUNCE_BYTES - skipBytes);
      const count = Math.ceil((skipBytes + partBytes) / SECTOR_BYTES);
      move((at - skipBytes) / SECTOR_BYTES, count, skipBytes, partBytes, doneBytes);
      doneBytes += partBytes;
    }
  }
}
