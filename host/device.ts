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
  PARTS_MAX,
  REGISTER_BLOCK,
  RING_BYTES_MAX,
  RING_INBOX,
  RING_INBOX_BYTES,
  SECTOR_BYTES,
  TEXT_BASE,
} from "../assembly/layout.js";
import { type ExternalMedium, mediumImports, NO_MEDIUM } from "./core/external-medium.js";
import { clearFaults, type FaultPlan, writeFault } from "./core/faults.js";
import { type CoreExports, type CoreImports, instantiate, makeMemory } from "./core/instantiate.js";
import { fitText } from "./core/panic-text.js";
import {
  type CardKind,
  CUT_OUTCOMES,
  type CutOutcome,
  partitionSectors,
  REASONS,
  type Reason,
  writeConfig,
} from "./core/profile.js";
import { type PanicResult, readResult } from "./core/result.js";
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
import {
  configOf,
  type DeviceOptions,
  MEMORY_MEDIUM_BYTES_MAX,
  type PanicArea,
  requireNumber,
  roundUp,
  sizeBytesOf,
} from "./device-options.js";
import { bring, isRemote, type Region, RegionTable, regionTableBytes } from "./dump/region-table.js";
import { ERRNO, MmcError } from "./errors.js";
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

export type { Reason };

export interface PanicInput {
  text: Uint8Array | string;
  reason?: Reason | undefined;
  timeSec?: bigint | undefined;
  timeNsec?: number | undefined;
  /** In place of the device's. */
  parts?: number | undefined;
  /** Takes the host even from a panic that died in the middle. */
  force?: boolean | undefined;
}

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

/**
 * What becomes of the volatile write cache at a power cut: all lost, all kept, or bit i keeps the i-th
 * oldest sector.
 */
export type CacheOutcome = "lost" | "kept" | number;

export interface DeviceState {
  timeNs: bigint;
  card: (typeof STATE_NAMES)[number];
  powered: boolean;
  /** Id that holds the host: 0 nobody, 1 a normal request, 255 a panic. */
  owner: number;
  sizeBytes: number;
  /** Sectors ever stored on the medium since the machine was made. */
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

/** The core counts a pause in 32 bits. */
const IDLE_STEP_NS = 0x7fffffff;
const BOUNCE_BYTES = BOUNCE_SECTORS * SECTOR_BYTES;

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

/** As the core takes it, two words of 32 bits. @throws MmcError EINVAL what the record's header cannot say */
function toTimeSec(timeSec: bigint): bigint {
  if (typeof timeSec !== "bigint" || BigInt.asIntN(64, timeSec) !== timeSec) {
    throw new MmcError("EINVAL", `timeSec: ${timeSec} is no bigint of -2^63 … 2^63 - 1`);
  }
  return BigInt.asUintN(64, timeSec);
}

/**
 * A device. Offsets and lengths are bytes from the start of the card's user area, whole numbers ≥ 0.
 * Every call throws {@link MmcError}: EINVAL out of range, EBUSY the host is held (a request was left in flight,
 * or a panic died), EIO, EILSEQ, ETIMEDOUT, ENOMEDIUM, ENODEV as the card or the bus had it.
 */
export class Device {
  readonly #core: CoreExports;
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
  readonly #mediumFailures: unknown[] = [];
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
    options: DeviceOptions,
    external: ExternalMedium | null,
    imports: CoreImports,
  ) {
    this.#sizeBytes = sizeBytesOf(options, external);
    const config = configOf(options, this.#sizeBytes);
    this.#card = config.card;
    this.#onTrace = options.onTrace;
    this.#inMemory = external === null;
    this.#hasArea = options.area !== undefined;
    this.#abi = options.area?.abi ?? "lp64";
    this.#cpus = config.rings?.cpus ?? 0;
    this.#parts = config.parts ?? 1;
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
    const medium = external
      ? mediumImports(external, this.#memory, this.#mediumFailures, () => this.#tell())
      : NO_MEDIUM;
    // Until a peripheral connects them, DMA finds no memory.
    const dma: CoreImports["dma"] = {
      read: (address, bytes, ptr) => this.#dma?.read(address, bytes, ptr) ?? -1,
      write: (address, bytes, ptr) => this.#dma?.write(address, bytes, ptr) ?? -1,
    };
    const source: CoreImports["source"] = {
      read: (slot, offsetLow, offsetHigh, bytes, ptr) => {
        const entry = this.#regions?.entries[slot];
        if (entry === undefined) return 0;
        const offset = (offsetHigh >>> 0) * 2 ** 32 + (offsetLow >>> 0);
        return bring({ entry, offset, target: new Uint8Array(this.#memory.buffer, ptr >>> 0, bytes >>> 0) });
      },
    };
    const core = instantiate(module, this.#memory, { medium, dma, source, ...imports });
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
   * @throws MmcError EINVAL unless the core is the `embed` target: the others' DMA stays within their memory
   */
  connectDma(dma: NonNullable<CoreImports["dma"]>): void {
    if (!this.#reachesGuest) throw new MmcError("EINVAL", "a peripheral's device needs the embed core");
    this.#dma = dma;
  }

  /**
   * A card that hangs or has lost its way is led back as a panic does, and asked again. What then still fails is
   * thrown: ETIMEDOUT, EILSEQ, EIO, ENOMEDIUM, ENODEV (another card).
   */
  read(offset: number, lengthBytes: number): Uint8Array {
    this.#checkRange("read", offset, lengthBytes);
    const result = new Uint8Array(lengthBytes);
    this.#eachPiece(offset, lengthBytes, (lba, count, skipBytes, partBytes, doneBytes) => {
      this.#check(this.#core.blockRead(lba, count), `read ${partBytes} bytes at ${offset + doneBytes}`);
      result.set(new Uint8Array(this.#memory.buffer, BOUNCE_BASE + skipBytes, partBytes), doneBytes);
    });
    return result;
  }

  /** Written bytes are durable after flush(). Parts of sectors are read, changed and written. Errors: as read(). */
  write(offset: number, data: Uint8Array): void {
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

  /** The bytes become zero: whole sectors by trim (SD: erase), parts of sectors by writing. Errors: as read(). */
  erase(offset: number, lengthBytes: number): void {
    this.#checkRange("erase", offset, lengthBytes);
    const end = offset + lengthBytes;
    const firstWhole = Math.min(roundUp(offset, SECTOR_BYTES), end);
    const endWhole = Math.max(end - (end % SECTOR_BYTES), firstWhole);
    if (firstWhole > offset) this.write(offset, new Uint8Array(firstWhole - offset));
    if (endWhole > firstWhole) {
      const status = this.#core.blockErase(firstWhole / SECTOR_BYTES, endWhole / SECTOR_BYTES - 1);
      this.#check(status, `erase ${endWhole - firstWhole} bytes at ${firstWhole}`);
    }
    if (end > endWhole) this.write(endWhole, new Uint8Array(end - endWhole));
  }

  /**
   * Everything written before is on the medium afterwards. EIO, once: the card had to be started again behind a
   * write that was not flushed, and may have lost it; or it could not store what its cache held, or the answer to a
   * flush was lost, whoever had asked for it: a panic, flushRings(), or an earlier call. Others: as read().
   */
  flush(): void {
    this.#check(this.#core.blockFlush(), "flush");
  }

  /**
   * Starts a request and leaves it in the middle, host held, as a CPU that stopped leaves it. Writes put back the bytes
   * that are there. `offset` and `lengthBytes`: multiples of 512, 1024 … 32768 bytes. EOPNOTSUPP: an SD card has no
   * sleep.
   */
  leaveInFlight(kind: InFlight, offset = 0, lengthBytes = 8 * SECTOR_BYTES): void {
    this.#checkRange(kind, offset, lengthBytes);
    const count = inFlightSectors(kind, offset, lengthBytes);
    this.#check(this.#core.blockRead(offset / SECTOR_BYTES, count), `${kind} in flight`);
    const status = this.#core.leaveInFlight(IN_FLIGHT[kind], offset / SECTOR_BYTES, count);
    this.#check(status, `${kind} in flight`);
  }

  /** The same, with bytes of the caller's: a write that is new. */
  leaveWriteInFlight(offset: number, data: Uint8Array): void {
    this.#checkRange("write", offset, data.length);
    const count = inFlightSectors("write", offset, data.length);
    new Uint8Array(this.#memory.buffer, BOUNCE_BASE, data.length).set(data);
    this.#check(this.#core.leaveInFlight(IN_FLIGHT.write, offset / SECTOR_BYTES, count), "write in flight");
  }

  /**
   * The panic path: takes the host from whoever holds it and writes one record. It never throws for what the card or
   * the bus did, the status tells. Text longer than a record takes, or than there is time for, loses its oldest bytes.
   * @throws MmcError EINVAL without an area, or for a time or a reason that cannot be
   */
  panicWrite(input: PanicInput): PanicResult {
    if (!this.#hasArea) throw new MmcError("EINVAL", "panicWrite: the device was opened without an area");
    const timeNsec = input.timeNsec ?? 0;
    requireNumber("timeNsec", timeNsec, 0, 999_999_999);
    const reason = REASONS[input.reason ?? "Panic"];
    if (reason === undefined) throw new MmcError("EINVAL", `reason: ${input.reason} is unknown`);
    const parts = input.parts ?? this.#parts;
    requireNumber("parts", parts, 1, PARTS_MAX);
    const text = typeof input.text === "string" ? new TextEncoder().encode(input.text) : input.text;
    const kept = fitText(text);
    const timeSec = toTimeSec(input.timeSec ?? 0n);
    const low = Number(timeSec & 0xffffffffn);
    const token = this.#core.panicTake(reason, low, Number(timeSec >> 32n), timeNsec, input.force ? 1 : 0);
    let status = token;
    if (isPanicToken(token)) {
      // The text and its place belong to whoever holds the host: a panic that is refused touches neither.
      this.#words.setUint32(CONFIG_PARTS, parts, true);
      new Uint8Array(this.#memory.buffer, TEXT_BASE, kept.length).set(kept);
      status = this.#core.panicRun(token, kept.length);
    }
    const result = readResult(this.#memory);
    // Refused before anything was touched: RESULT is still that of the dump before.
    if (status === -ERRNO.ECANCELED || status === -ERRNO.EBUSY) {
      const nothing = { parts: 0, partsStatus: 0, storedBytes: 0, payloadBytes: 0, commitNs: 0n };
      return { ...result, ...nothing, status, droppedBytes: text.length };
    }
    return { ...result, status, droppedBytes: result.droppedBytes + text.length - kept.length };
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
    this.#regionTable().unregister(id);
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
    this.#writeRing("writePmsg", RING_PMSG, bytes);
  }

  /** What goes to the consoles, into the console ring; as writePmsg(). */
  writeConsole(bytes: Uint8Array): void {
    this.#writeRing("writeConsole", RING_CONSOLE, bytes);
  }

  /** Calls of functions in the order in which they happened, each into its CPU's slice; as writePmsg(). */
  writeFtrace(calls: readonly FtraceCall[]): void {
    for (const { cpu } of calls) requireNumber("writeFtrace: cpu", cpu, 0, this.#cpus - 1);
    for (const { cpu, ip, parentIp } of calls) {
      const count = this.#words.getBigUint64(HOST_FTRACE_CALLS, true) + 1n;
      this.#words.setBigUint64(HOST_FTRACE_CALLS, count, true);
      const time = (count << 8n) | BigInt(cpu);
      this.#writeRing("writeFtrace", RING_FTRACE + cpu, ftraceRecord(this.#abi, ip, parentIp, time));
    }
  }

  /**
   * What the rings have in memory is on the medium when this returns, durably. A cut or an error before that leaves
   * what was acknowledged, less the oldest bytes where the new ones had begun to take their place. The first flush of
   * a boot ends what the boot before left in that ring.
   * @throws MmcError EBUSY the host is held; EIO and others as write() does
   */
  flushRings(): void {
    this.#checkRange("flushRings", 0, 0);
    this.#check(this.#core.flushRings(), "flush the rings");
  }

  #writeRing(what: string, index: number, bytes: Uint8Array): void {
    const first = Math.max(0, bytes.length - RING_BYTES_MAX);
    for (let at = first; at < bytes.length || at === first; at += RING_INBOX_BYTES) {
      const part = bytes.subarray(at, at + RING_INBOX_BYTES);
      new Uint8Array(this.#memory.buffer, RING_INBOX, part.length).set(part);
      const status = this.#core.writeRing(index, part.length);
      if (status === -ERRNO.EINVAL) {
        throw new MmcError("EINVAL", `${what}: the device was opened without such a ring`);
      }
      throwOnError(status, what);
    }
  }

  /** The power goes, now. The medium keeps what `outcome` and `cache` say; everything else is forgotten. */
  powerCut(outcome: CutOutcome = "old", cache: CacheOutcome = "lost"): void {
    const mask = cache === "lost" ? 0 : cache === "kept" ? 0xffffffff : cache;
    this.#core.machineCut(CUT_OUTCOMES[outcome], mask);
    this.#setPowered(false);
  }

  /** Power, identification, and recovery of the area. */
  powerOn(): void {
    this.#check(this.#core.openCard(), "power on");
    this.#setPowered(true);
    if (this.#hasArea) this.#check(this.#core.recoverArea(), "recover the area");
  }

  /** Puts a fault into the plan; `index` (0 … 15) names its place in it. docs/FAULTS.md */
  injectFault(plan: FaultPlan, index = 0): void {
    requireNumber("index", index, 0, FAULTS_MAX - 1);
    writeFault(this.#memory, index, plan);
  }

  clearFaults(): void {
    clearFaults(this.#memory.buffer);
  }

  /** Takes the card out of the slot, puts it back, or puts another one with the same content in its place. */
  insertCard(present: boolean | "another"): void {
    this.#core.machineInsert(present === "another" ? 2 : present ? 1 : 0);
  }

  /** Simulated time passes and nobody uses the card. */
  idle(lengthNs: number): void {
    requireNumber("idle", lengthNs, 0, Number.MAX_SAFE_INTEGER);
    for (let left = lengthNs; left > 0; left -= IDLE_STEP_NS) this.#core.idleNs(Math.min(left, IDLE_STEP_NS));
  }

  state(): DeviceState {
    const view = new DataView(this.#memory.buffer);
    return {
      timeNs: view.getBigUint64(CLOCK_NOW, true),
      card: STATE_NAMES[this.#core.cardState()] ?? "ina",
      powered: this.#isPowered(),
      owner: view.getUint32(OWNER_WORD, true) & 0xff,
      sizeBytes: this.#sizeBytes,
      storedSectors: view.getBigUint64(MEDIUM_STORES, true),
      nextZone: this.#hasArea ? this.#core.chooseZone() : -1,
      newestZone: this.#hasArea ? this.#core.newestZone() : -1,
      payloadBytesMax: this.#hasArea ? this.#core.payloadBytesMax() : 0,
      panicCount: this.#core.counterOf(REASONS.Panic) >>> 0,
      oopsCount: this.#core.counterOf(REASONS.Oops) >>> 0,
    };
  }

  trace(): { events: TraceEvent[]; lost: number } {
    return readTrace(this.#memory);
  }

  /** Forgets the events; clock, lines and the card's state are told anew, so that what follows stands alone. */
  clearTrace(): void {
    this.#tell();
    clearTrace(this.#memory);
    retellLevels(this.#memory);
    this.#tracer.skip(this.#memory);
  }

  /**
   * The events since the last time, or since the start or clearTrace(); trace() keeps showing them. Not for a device
   * with `onTrace`, which gets them itself.
   */
  drainTrace(): { events: TraceEvent[]; lost: number } {
    return this.#tracer.read(this.#memory);
  }

  /**
   * CID, CSD and what the kind of card has besides, asked for over the bus; the card is in tran before and after.
   * @throws MmcError as read() does
   */
  registers(): CardRegisters {
    this.#checkRange("registers", 0, 0);
    const read = (name: string, index: number, lengthBytes: number, app = false) => {
      const status = this.#core.readCardRegister(index, lengthBytes, app ? 1 : 0);
      this.#check(status, `read ${name}`);
      return new Uint8Array(this.#memory.buffer, REGISTER_BLOCK, lengthBytes).slice();
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

  /** The whole machine, medium included if it is in memory. */
  saveState(): Uint8Array {
    return new Uint8Array(this.#memory.buffer).slice();
  }

  /** Back to a saved state of this device or of one with the same options. */
  loadState(state: Uint8Array): void {
    if (state.length !== this.#memory.buffer.byteLength) {
      throw new MmcError("EINVAL", `loadState: ${state.length} bytes are not a state of this device`);
    }
    this.#tell();
    new Uint8Array(this.#memory.buffer).set(state);
    this.#tracer.skip(this.#memory);
  }

  #isPowered(): boolean {
    return this.#words.getUint32(HOST_POWERED, true) !== 0;
  }

  #setPowered(powered: boolean): void {
    this.#words.setUint32(HOST_POWERED, powered ? 1 : 0, true);
  }

  /** What is new goes to `onTrace`. */
  #tell(): void {
    if (this.#onTrace === undefined) return;
    const { events, lost } = this.#tracer.read(this.#memory);
    if (events.length > 0 || lost > 0) this.#onTrace(events, lost);
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
    const failure = this.#mediumFailures.pop();
    this.#mediumFailures.length = 0;
    if (failure instanceof MmcError) throw failure;
    throwOnError(status, what, {
      command: this.#core.lastCommand(),
      r1: this.#core.lastResponse() >>> 0,
    });
  }

  /** The first error of an external medium since the last call, if there was one. */
  takeMediumFailure(): unknown {
    const failure = this.#mediumFailures[0];
    this.#mediumFailures.length = 0;
    return failure;
  }

  #checkRange(what: string, offset: number, lengthBytes: number): void {
    requireNumber(`${what}: offset`, offset, 0, this.#sizeBytes);
    requireNumber(`${what}: length`, lengthBytes, 0, this.#sizeBytes - offset);
    if (!this.#isPowered()) throw new MmcError("ENODEV", `${what}: the device has no power`);
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
