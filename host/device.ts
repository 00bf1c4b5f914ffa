// The block device: one simulated card behind one simulated controller, read, written, erased and flushed at byte
// offsets, and panicked. Everything is synchronous and deterministic; time is the machine's own. Nothing of Node.
import {
  BOUNCE_BASE,
  BOUNCE_SECTORS,
  CLOCK_NOW,
  CONFIG_PARTS,
  DUMP_AREA_SECTORS_MAX,
  FAULTS_MAX,
  FTRACE_CPUS_MAX,
  GP_GRANULE_SECTORS,
  HOST_FTRACE_CALLS,
  HOST_POWERED,
  MEDIUM_BASE,
  MEDIUM_STORES,
  NEIGHBOURS_MAX,
  OWNER_WORD,
  PARTS_MAX,
  REGISTER_BLOCK,
  RING_BYTES_MAX,
  SECTOR_BYTES,
  TEXT_BASE,
  TEXT_BYTES_MAX,
  ZONES_MAX,
} from "../assembly/layout.js";
import { CONTROLLERS, type ControllerKind, hasAdma2, hasEightLines } from "./core/controllers.js";
import { clearFaults, type FaultPlan, writeFault } from "./core/faults.js";
import { type CoreExports, type CoreImports, instantiate, makeMemory } from "./core/instantiate.js";
import {
  allRingSectors,
  CARD_KINDS,
  type CardKind,
  CUT_OUTCOMES,
  type CutOutcome,
  type Damage,
  DEFLATE_NS_MAX,
  type EmmcConfig,
  type MachineConfig,
  POLICIES,
  type Policy,
  PROFILES,
  type ProfileName,
  REASONS,
  type Reason,
  type RingSectors,
  SD_VERSIONS,
  type SdOptions,
  type Timing,
  writeConfig,
} from "./core/profile.js";
import { type PanicResult, readResult } from "./core/result.js";
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
  bring,
  type DumpOptions,
  isRemote,
  type Region,
  RegionTable,
  regionTableBytes,
} from "./dump/region-table.js";
import { ERRNO, MmcError } from "./errors.js";

/**
 * The pstore area: the kmsg zones that panics write to, and in front of them the rings, pmsg first, then console, then
 * ftrace. Bytes; offsets from the start of the card.
 */
export interface PanicArea {
  /** First kmsg zone; a multiple of 512. */
  offset: number;
  /** Zone size, a multiple of 512, at least 1024. */
  kmsgSize: number;
  /** How many zones, 1 … 32768. */
  kmsgCount: number;
  abi: "lp64" | "i386";
  /** Sizes of the rings, multiples of 512, together at most 512 KiB and at most `offset`. Default 0: there is none. */
  pmsgSize?: number | undefined;
  consoleSize?: number | undefined;
  /** Of all CPUs together: whole sectors for each. */
  ftraceSize?: number | undefined;
  /** CPUs that ftraceSize is shared among, 1 … 64. Default 1. */
  cpus?: number | undefined;
}

/** The crash dump that a panic stores behind its record: an ELF core of the regions that registerRegion() was given. */
export interface PanicDumpOptions extends Omit<DumpOptions, "layout"> {
  /**
   * Where dumps go, in bytes from the start of the card, multiples of 512; at least 12 KiB, at most 128 GiB. Two stay
   * where both fit beside each other (docs/FORMAT.md, "The dump area").
   */
  area: { offset: number; sizeBytes: number };
  /** Bytes of `dumpMemory`: room in the device's own memory for regions. Default 0. */
  memoryBytes?: number | undefined;
}

/** One call of a function, as Linux's ftrace front-end records it. 32-bit ABIs keep the low half of the addresses. */
export interface FtraceCall {
  cpu: number;
  ip: bigint;
  parentIp: bigint;
}

export interface DeviceOptions {
  card?: CardKind | undefined;
  /** What an SD card has besides its kind. */
  sd?: SdOptions | undefined;
  /** Size of the user area in bytes, rounded up to 512 KiB. Default: that of `content`. */
  sizeBytes?: number | undefined;
  /** What the medium holds at first; the rest is zero. Not for an external medium. */
  content?: Uint8Array | undefined;
  area?: PanicArea | undefined;
  /** Crash dumps. Needs `area`: a dump belongs to a record. */
  dump?: PanicDumpOptions | undefined;
  /** What is given up when all zones hold a record; default `first-wins`. docs/FORMAT.md, "Choosing a zone". */
  policy?: Policy | undefined;
  /**
   * Policy `newest`: how many of the newest logs, the one being written too, are not given up for older text of a long
   * one, 1 … 32768; default all.
   */
  keepLogs?: number | undefined;
  /**
   * Into how many zones a long log may go, 1 … 1200; default 1. With more than 1 it is cut between lines; part 1 is the
   * newest text, and is written first. Older text never replaces a record that the policy keeps. docs/FORMAT.md, "Long
   * logs".
   */
  parts?: number | undefined;
  /**
   * As Linux's `max_reason`: dumps with a larger reason (1 Panic, 2 Oops, 3 Emergency, 4 Shutdown) are not taken, which
   * is ECANCELED; 0 stands for 2. Default: all are taken, where Linux's own is 2.
   */
  maxReason?: number | undefined;
  /**
   * Records are deflated, as Linux does by default: fewer sectors to write, and more of a long log. Plain where it does
   * not help, or takes more than a quarter of the time that is left. Default true.
   */
  compress?: boolean | undefined;
  busWidth?: 1 | 4 | 8 | undefined;
  highSpeed?: boolean | undefined;
  /** What the SD host controller has; default `full`. Decides the defaults of `dma` and `busWidth`. */
  controller?: ControllerKind | undefined;
  /** A board on which the controller cannot take the card's supply away: no power cycle, only a power cut. */
  fixedSupply?: boolean | undefined;
  /** ADMA2 instead of PIO. */
  dma?: boolean | undefined;
  /** Predefined block counts (CMD23) where the card has them, else CMD12. SD: whether the card has CMD23. */
  cmd23?: boolean | undefined;
  /** eMMC: reliable write (EXT_CSD_WR_REL_PARAM bit 2). */
  reliableWrite?: boolean | undefined;
  /** eMMC: sectors of volatile write cache, 0 … 64. */
  cacheSectors?: number | undefined;
  hpi?: boolean | undefined;
  /** eMMC: size of each boot partition in bytes, a multiple of 128 KiB. */
  bootBytes?: number | undefined;
  /**
   * eMMC: whether commands name bytes or sectors. Default: what real ones have and Linux takes for granted, bytes up to
   * 2 GiB and sectors above. `byte` is for cards up to 2 GiB only.
   */
  addressing?: "sector" | "byte" | undefined;
  /** eMMC: EXT_CSD_DEVICE_TYPE: 0x03 high speed (default), + 0x04 DDR52, + 0x10 HS200, + 0x40 HS400. */
  deviceType?: number | undefined;
  /** eMMC: sizes of up to four general purpose partitions in bytes, multiples of 8 MiB. */
  gpBytes?: readonly number[] | undefined;
  /** eMMC: programmed sectors until EXT_CSD_BKOPS_STATUS is one higher, and the time that undoes a level. */
  background?: { sectorsPerLevel: number; levelNs: number } | undefined;
  serial?: number | undefined;
  /** Which times the card takes; default `typical`. `slow-sd` and `old-emmc` are of one kind of card. */
  profile?: ProfileName | undefined;
  /** Single times in place of the profile's. */
  timing?: Partial<Timing> | undefined;
  /** What a power cut damages besides the sector in programming. */
  damage?: Damage | undefined;
  /** The sector in programming when CMD0, HPI or the driver's own power cycle hits. */
  abortOutcome?: CutOutcome | undefined;
  /** Whether CMD0 writes the cache back instead of dropping it. */
  cacheKeptAtReset?: boolean | undefined;
  /** Longest panic write in simulated µs, 1 … 4,294,967,295; default 10 s. */
  deadlineUs?: number | undefined;
  /** Keeps the last 1023 events of the bus for trace(). */
  trace?: boolean | undefined;
  /**
   * Gets every event, soon after it happened: after each call of the core, and with an external medium also within one.
   * `lost`: how many the ring could not hold since the last time. Switches `trace` on. Must not call the device.
   */
  onTrace?: ((events: TraceEvent[], lost: number) => void) | undefined;
}

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

/** A medium that is not in the machine's memory: a file, OPFS. Both calls are synchronous; they throw on failure. */
export interface ExternalMedium {
  readonly sizeBytes: number;
  read(offset: number, target: Uint8Array): void;
  write(offset: number, data: Uint8Array): void;
  /** What it holds now, for SdhciPeripheral.saveState(); OverlayMedium has it. */
  saveState?(): Uint8Array;
  /** Back to that. Must change nothing if it throws. */
  loadState?(state: Uint8Array): void;
}

/** Rings of the core, by its numbers. */
const RING_PMSG = 0;
const RING_CONSOLE = 1;
const RING_FTRACE = 2;

/** FORMAT.md, "The rings": 24 bytes, or 16 of a 32-bit ABI. */
function ftraceRecord(abi: PanicArea["abi"], ip: bigint, parentIp: bigint, time: bigint): Uint8Array {
  const words = BigUint64Array.of(ip, parentIp, time);
  if (abi === "lp64") return new Uint8Array(words.buffer);
  const record = new DataView(new ArrayBuffer(16));
  record.setUint32(0, Number(ip & 0xffffffffn), true);
  record.setUint32(4, Number(parentIp & 0xffffffffn), true);
  record.setBigUint64(8, time, true);
  return new Uint8Array(record.buffer);
}

const CARD_GRANULE_BYTES = 512 * 1024;
/** What an erased range is written with, by the number that stands for it in place of a pointer. */
const ERASED = [new Uint8Array(1 << 20), new Uint8Array(1 << 20).fill(0xff)];
/** The core counts a pause in 32 bits. */
const IDLE_STEP_NS = 0x7fffffff;
const BOUNCE_BYTES = BOUNCE_SECTORS * SECTOR_BYTES;
/** 2^32 sectors less one: what a card's 32-bit sector numbers reach. */
const CARD_BYTES_MAX = (2 ** 32 - 1024) * SECTOR_BYTES;
const SDSC_BYTES_MAX = 2 ** 31;
/** Where an eMMC's addresses change from bytes to sectors (mmc.md §1.7, §1.8 SEC_COUNT). */
const BYTE_ADDRESSED_BYTES_MAX = 2 ** 31;
/** Two headers and a page. */
const DUMP_AREA_BYTES_MIN = 12288;
const DUMP_MEMORY_BYTES_MAX = 2 ** 30;
/** A WebAssembly memory ends at 4 GiB. */
const MEMORY_MEDIUM_BYTES_MAX = 2 ** 32 - 2 ** 22;

function requireNumber(name: string, value: number, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw new MmcError("EINVAL", `${name}: ${value} is not a whole number from ${least} to ${most}`);
  }
}

function roundUp(value: number, granule: number): number {
  return Math.ceil(value / granule) * granule;
}

function configOf(options: DeviceOptions, sizeBytes: number): MachineConfig {
  const card = options.card ?? "emmc";
  requireName("card", card, CARD_KINDS);
  const cmd23 = options.cmd23 ?? true;
  const profile = options.profile ?? "typical";
  const times = Object.hasOwn(PROFILES, profile) ? PROFILES[profile][card] : undefined;
  if (times === undefined)
    throw new MmcError("EINVAL", `profile: ${profile} is none of a card of kind ${card}`);
  const timing = { ...times, ...options.timing };
  for (const [name, value] of Object.entries(timing)) {
    const most = name === "deflateNs" ? DEFLATE_NS_MAX : 0xffffffff;
    if (value !== undefined) requireNumber(`timing.${name}`, value, 0, most);
  }
  for (const [name, value] of Object.entries(options.damage ?? {})) {
    const most = name === "neighbourSectors" ? NEIGHBOURS_MAX : 0xffffffff;
    if (value !== undefined) requireNumber(`damage.${name}`, value, 0, most);
  }
  checkSd(card, options.sd ?? {}, sizeBytes);
  const bootBytes = options.bootBytes ?? 0;
  requireNumber("bootBytes", bootBytes, 0, 255 * 131072);
  if (bootBytes % 131072 !== 0) {
    throw new MmcError("EINVAL", `bootBytes: ${bootBytes} is not a multiple of 131072`);
  }
  const cacheSectors = options.cacheSectors ?? 0;
  requireNumber("cacheSectors", cacheSectors, 0, 64);
  const deadlineUs = options.deadlineUs ?? 10_000_000;
  requireNumber("deadlineUs", deadlineUs, 1, 0xffffffff);
  requireNumber("serial", options.serial ?? 1, 0, 0xffffffff);
  const controller = options.controller ?? "full";
  if (!Object.hasOwn(CONTROLLERS, controller)) {
    throw new MmcError("EINVAL", `controller: ${controller} is not one`);
  }
  if (options.dma && !hasAdma2(controller)) {
    throw new MmcError("EINVAL", `dma: a controller of kind ${controller} has no ADMA2`);
  }
  if (options.busWidth === 8 && !hasEightLines(controller)) {
    throw new MmcError("EINVAL", `busWidth: a controller of kind ${controller} has no eight lines`);
  }
  requireName("policy", options.policy ?? "first-wins", POLICIES);
  if (options.keepLogs !== undefined && options.policy !== "newest") {
    throw new MmcError("EINVAL", "keepLogs: belongs to the policy newest");
  }
  requireNumber("keepLogs", options.keepLogs ?? ZONES_MAX, 1, ZONES_MAX);
  requireNumber("parts", options.parts ?? 1, 1, PARTS_MAX);
  requireNumber("maxReason", options.maxReason ?? 0, 0, 0x7fffffff);
  const { area } = options;
  if (area) checkArea(area, sizeBytes);
  const { dump } = options;
  if (dump) checkDumpArea(dump, area, sizeBytes);
  return {
    card,
    sd: options.sd,
    sectors: sizeBytes / SECTOR_BYTES,
    bootSectors: bootBytes / SECTOR_BYTES,
    cacheSectors,
    reliableWrite: options.reliableWrite ?? card === "emmc",
    cmd23,
    hpi: options.hpi ?? card === "emmc",
    serial: options.serial ?? 1,
    timing,
    damage: options.damage,
    abortOutcome: options.abortOutcome ?? "torn-low",
    cacheKeptAtReset: options.cacheKeptAtReset ?? false,
    dma: options.dma ?? hasAdma2(controller),
    busWidth: options.busWidth ?? (card !== "emmc" || !hasEightLines(controller) ? 4 : 8),
    highSpeed: options.highSpeed ?? true,
    areaFirstLba: area ? area.offset / SECTOR_BYTES : 0,
    zoneSectors: area ? area.kmsgSize / SECTOR_BYTES : 2,
    zoneCount: area ? area.kmsgCount : 0,
    ...(area ? { rings: ringSectorsOf(area) } : {}),
    dumpArea: dump && {
      firstLba: dump.area.offset / SECTOR_BYTES,
      sectors: dump.area.sizeBytes / SECTOR_BYTES,
    },
    abi: area?.abi ?? "lp64",
    policy: options.policy ?? "first-wins",
    keepLogs: options.keepLogs ?? ZONES_MAX,
    parts: options.parts ?? 1,
    ...(options.maxReason === undefined ? {} : { maxReason: options.maxReason }),
    compress: options.compress ?? true,
    deadlineUs,
    trace: options.trace ?? options.onTrace !== undefined,
    controller,
    fixedSupply: options.fixedSupply,
    ...(card === "emmc" ? { emmc: emmcOf(options, sizeBytes) } : {}),
  };
}

/** What only an eMMC has. */
function emmcOf(options: DeviceOptions, sizeBytes: number): EmmcConfig {
  const addressing = options.addressing ?? (sizeBytes <= BYTE_ADDRESSED_BYTES_MAX ? "byte" : "sector");
  const byteAddressed = addressing === "byte";
  if (!byteAddressed && addressing !== "sector") {
    throw new MmcError("EINVAL", `addressing: ${addressing} is neither sector nor byte`);
  }
  if (byteAddressed) {
    requireNumber("sizeBytes of a byte-addressed card", sizeBytes, 1, BYTE_ADDRESSED_BYTES_MAX);
  }
  const deviceType = options.deviceType ?? 0x03;
  requireNumber("deviceType", deviceType, 0, 255);
  const gpBytes = options.gpBytes ?? [];
  requireNumber("gpBytes: partitions", gpBytes.length, 0, 4);
  for (const bytes of gpBytes) {
    requireNumber("gpBytes", bytes, 0, byteAddressed ? BYTE_ADDRESSED_BYTES_MAX : MEMORY_MEDIUM_BYTES_MAX);
    if (bytes % (GP_GRANULE_SECTORS * SECTOR_BYTES) !== 0) {
      throw new MmcError("EINVAL", `gpBytes: ${bytes} is not a multiple of 8 MiB`);
    }
  }
  const bkopsSectors = options.background?.sectorsPerLevel ?? 0;
  requireNumber("background.sectorsPerLevel", bkopsSectors, 0, 0xffffffff);
  const bkopsNs = options.background?.levelNs ?? 0;
  requireNumber("background.levelNs", bkopsNs, 0, 0xffffffff);
  return {
    byteAddressed,
    deviceType,
    gpSectors: gpBytes.map((bytes) => bytes / SECTOR_BYTES),
    bkopsSectors,
    bkopsNs,
  };
}

/** Sectors of an eMMC beside its user area: boot partitions and general purpose ones. */
function partitionSectors(config: MachineConfig): number {
  const gpSectors = config.emmc?.gpSectors ?? [];
  return 2 * config.bootSectors + gpSectors.reduce((sum, sectors) => sum + sectors, 0);
}

function requireName(what: string, name: string, names: object): void {
  if (Object.hasOwn(names, name)) return;
  throw new MmcError("EINVAL", `${what}: ${name} is not one of ${Object.keys(names).join(", ")}`);
}

function checkSd(card: CardKind, sd: SdOptions, sizeBytes: number): void {
  requireNumber("sd.spiKhz", sd.spiKhz ?? 0, 0, 25_000);
  requireNumber("sd.spiResponseBytes", sd.spiResponseBytes ?? 1, 1, 8);
  if (card === "sdsc" && (sizeBytes > SDSC_BYTES_MAX || (sizeBytes > 2 ** 30 && sizeBytes % 2 ** 20 !== 0))) {
    throw new MmcError("EINVAL", `sizeBytes: ${sizeBytes} is no size of an SDSC card, which ends at 2 GiB`);
  }
  const version = sd.version ?? "3.01";
  requireName("sd.version", version, SD_VERSIONS);
  if (card === "sd" && version < "2.00") {
    throw new MmcError("EINVAL", `sd.version: ${version} has no SDHC, which came with 2.00`);
  }
  if (card === "sdxc" && version < "3.01") {
    throw new MmcError("EINVAL", `sd.version: ${version} has no SDXC, which came with 3.01`);
  }
  if (sd.uhs && (card === "sdsc" || version < "3.01")) {
    throw new MmcError("EINVAL", "sd.uhs: 1.8 V is for SDHC and SDXC cards of version 3.01");
  }
}

function checkArea(area: PanicArea, sizeBytes: number): void {
  requireNumber("area.offset", area.offset, 0, sizeBytes);
  requireNumber("area.kmsgSize", area.kmsgSize, 2 * SECTOR_BYTES, 128 * 2 ** 20);
  requireNumber("area.kmsgCount", area.kmsgCount, 1, ZONES_MAX);
  for (const name of ["offset", "kmsgSize"] as const) {
    if (area[name] % SECTOR_BYTES !== 0) {
      throw new MmcError("EINVAL", `area.${name}: ${area[name]} is not a multiple of ${SECTOR_BYTES}`);
    }
  }
  checkRings(area);
  if (area.offset + area.kmsgSize * area.kmsgCount > sizeBytes) {
    throw new MmcError(
      "EINVAL",
      `area: ${area.kmsgCount} zones of ${area.kmsgSize} bytes do not fit the card`,
    );
  }
}

function ringSectorsOf(area: PanicArea): RingSectors {
  const cpus = area.ftraceSize ? (area.cpus ?? 1) : 0;
  return {
    pmsg: (area.pmsgSize ?? 0) / SECTOR_BYTES,
    console: (area.consoleSize ?? 0) / SECTOR_BYTES,
    ftrace: cpus === 0 ? 0 : (area.ftraceSize ?? 0) / cpus / SECTOR_BYTES,
    cpus,
  };
}

/** Linux's rules (a size is 0 or a multiple of 512), and that no slice shares a sector with another one. */
function checkRings(area: PanicArea): void {
  for (const name of ["pmsgSize", "consoleSize", "ftraceSize"] as const) {
    const size = area[name] ?? 0;
    requireNumber(`area.${name}`, size, 0, RING_BYTES_MAX);
    if (size % SECTOR_BYTES !== 0) {
      throw new MmcError("EINVAL", `area.${name}: ${size} is not a multiple of ${SECTOR_BYTES}`);
    }
  }
  const cpus = area.cpus ?? 1;
  requireNumber("area.cpus", cpus, 1, FTRACE_CPUS_MAX);
  const { ftraceSize = 0 } = area;
  if (ftraceSize % (cpus * SECTOR_BYTES) !== 0) {
    throw new MmcError(
      "EINVAL",
      `area.ftraceSize: ${ftraceSize} bytes are not whole sectors for each of ${cpus} CPUs`,
    );
  }
  const bytes = allRingSectors(ringSectorsOf(area)) * SECTOR_BYTES;
  if (bytes > RING_BYTES_MAX) {
    throw new MmcError("ENOMEM", `area: rings of ${bytes} bytes, memory for them has ${RING_BYTES_MAX}`);
  }
  if (bytes > area.offset) {
    throw new MmcError(
      "EINVAL",
      `area: rings of ${bytes} bytes do not fit in front of offset ${area.offset}`,
    );
  }
}

function checkDumpArea(dump: PanicDumpOptions, area: PanicArea | undefined, sizeBytes: number): void {
  if (area === undefined)
    throw new MmcError("EINVAL", "dump: a dump belongs to a record, and there is no area");
  const { offset, sizeBytes: bytes } = dump.area;
  requireNumber("dump.area.offset", offset, 0, sizeBytes);
  requireNumber("dump.area.sizeBytes", bytes, DUMP_AREA_BYTES_MIN, DUMP_AREA_SECTORS_MAX * SECTOR_BYTES);
  requireNumber("dump.memoryBytes", dump.memoryBytes ?? 0, 0, DUMP_MEMORY_BYTES_MAX);
  for (const [name, value] of [
    ["offset", offset],
    ["sizeBytes", bytes],
  ] as const) {
    if (value % SECTOR_BYTES !== 0) {
      throw new MmcError("EINVAL", `dump.area.${name}: ${value} is not a multiple of ${SECTOR_BYTES}`);
    }
  }
  if (offset + bytes > sizeBytes) {
    throw new MmcError("EINVAL", `dump.area: ${bytes} bytes at ${offset} do not fit the card`);
  }
  const first = area.offset - allRingSectors(ringSectorsOf(area)) * SECTOR_BYTES;
  if (offset < area.offset + area.kmsgSize * area.kmsgCount && first < offset + bytes) {
    throw new MmcError("EINVAL", `dump.area: ${bytes} bytes at ${offset} overlap the pstore area`);
  }
}

function mediumImports(
  medium: ExternalMedium,
  memory: WebAssembly.Memory,
  failures: unknown[],
  onCall: () => void,
): NonNullable<CoreImports["medium"]> {
  const guarded = (call: (offset: number, bytes: Uint8Array) => void) => {
    return (partition: number, lba: number, sectors: number, ptr: number) => {
      // Boot partitions of an external medium have no place to be.
      if (partition !== 0) return -1;
      onCall();
      try {
        const offset = (lba >>> 0) * SECTOR_BYTES;
        const lengthBytes = (sectors >>> 0) * SECTOR_BYTES;
        const erased = ERASED[ptr];
        if (!erased) call(offset, new Uint8Array(memory.buffer, ptr >>> 0, lengthBytes));
        // No pointer: zeros or ones, in pieces, because an erase may be as large as the card.
        for (let at = 0; erased && at < lengthBytes; at += erased.length) {
          call(offset + at, erased.subarray(0, Math.min(erased.length, lengthBytes - at)));
        }
        return 0;
      } catch (error) {
        failures.push(error);
        return -1;
      }
    };
  };
  return {
    read: guarded((offset, bytes) => medium.read(offset, bytes)),
    write: guarded((offset, bytes) => medium.write(offset, bytes)),
  };
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
    const wanted = options.sizeBytes ?? options.content?.length ?? external?.sizeBytes ?? 0;
    requireNumber("sizeBytes", wanted, 1, external ? CARD_BYTES_MAX : MEMORY_MEDIUM_BYTES_MAX);
    if (options.content && options.content.length > wanted) {
      throw new MmcError(
        "EINVAL",
        `content: ${options.content.length} bytes are more than the card's ${wanted}`,
      );
    }
    this.#sizeBytes = roundUp(wanted, CARD_GRANULE_BYTES);
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
   * write that was not flushed, and may have lost it; or it could not store what its cache held. Others: as read().
   */
  flush(): void {
    this.#check(this.#core.blockFlush(), "flush");
  }

  /**
   * Starts a request and leaves it in the middle, host held, as a CPU that stopped leaves it. Writes put
   * back the bytes that
   * are there. `offset` and `lengthBytes`: multiples of 512, 1024 … 32768 bytes. EOPNOTSUPP: an SD card
   * has no sleep.
   */
  leaveInFlight(kind: InFlight, offset = 0, lengthBytes = 8 * SECTOR_BYTES): void {
    this.#checkRange(kind, offset, lengthBytes);
    if (offset % SECTOR_BYTES !== 0 || lengthBytes % SECTOR_BYTES !== 0 || lengthBytes > 64 * SECTOR_BYTES) {
      throw new MmcError(
        "EINVAL",
        `${kind}: ${lengthBytes} bytes at ${offset} are not 2 to 64 whole sectors`,
      );
    }
    const count = lengthBytes / SECTOR_BYTES;
    this.#check(this.#core.blockRead(offset / SECTOR_BYTES, count), `${kind} in flight`);
    const status = this.#core.leaveInFlight(IN_FLIGHT[kind], offset / SECTOR_BYTES, count);
    this.#check(status, `${kind} in flight`);
  }

  /** The same, with bytes of the caller's: a write that is new. */
  leaveWriteInFlight(offset: number, data: Uint8Array): void {
    this.#checkRange("write", offset, data.length);
    const count = data.length / SECTOR_BYTES;
    if (offset % SECTOR_BYTES !== 0 || !Number.isInteger(count) || count > 64) {
      throw new MmcError("EINVAL", `write: ${data.length} bytes at ${offset} are not 2 to 64 whole sectors`);
    }
    new Uint8Array(this.#memory.buffer, BOUNCE_BASE, data.length).set(data);
    this.#check(this.#core.leaveInFlight(IN_FLIGHT.write, offset / SECTOR_BYTES, count), "write in flight");
  }

  /**
   * The panic path: takes the host from whoever holds it and writes one record. It never throws for what
   * the card or the
   * bus did, the status tells. Text longer than a record takes loses its oldest bytes.
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
    new DataView(this.#memory.buffer).setUint32(CONFIG_PARTS, parts, true);
    const text = typeof input.text === "string" ? new TextEncoder().encode(input.text) : input.text;
    const kept = text.subarray(Math.max(0, text.length - TEXT_BYTES_MAX));
    new Uint8Array(this.#memory.buffer, TEXT_BASE, kept.length).set(kept);
    const timeSec = BigInt.asUintN(64, input.timeSec ?? 0n);
    const status = this.#core.panicWrite(
      reason,
      Number(timeSec & 0xffffffffn),
      Number(timeSec >> 32n),
      timeNsec,
      kept.length,
      input.force ? 1 : 0,
    );
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
   * @throws MmcError EINVAL: the area has no such ring
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
    const kept = bytes.subarray(Math.max(0, bytes.length - TEXT_BYTES_MAX));
    new Uint8Array(this.#memory.buffer, TEXT_BASE, kept.length).set(kept);
    if (this.#core.writeRing(index, kept.length) === 0) return;
    throw new MmcError("EINVAL", `${what}: the device was opened without such a ring`);
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
      panicCount: (this.#core.nextCounter(REASONS.Panic) - 1) >>> 0,
      oopsCount: (this.#core.nextCounter(REASONS.Oops) - 1) >>> 0,
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

/** For a core that could have an external medium and has none. */
const NO_MEDIUM: NonNullable<CoreImports["medium"]> = { read: () => -1, write: () => -1 };

const rehearsed = new WeakSet<WebAssembly.Module>();
const REHEARSALS = 3;

/**
 * An engine compiles a function when it is first called, and a panic is no time for that: the panic path runs
 * a few times on a scratch machine. Compiled code belongs to the module, so the real machine has it too.
 */
function rehearse(module: WebAssembly.Module, config: MachineConfig, imports: CoreImports): void {
  if (rehearsed.has(module)) return;
  rehearsed.add(module);
  const sectors = 1024;
  const dump: DumpOptions = { class: 64, machine: 0, capacity: 2 };
  const tableBytes = roundUp(regionTableBytes(dump), 8);
  const memory = makeMemory(sectors * SECTOR_BYTES + tableBytes);
  const ignore = () => 0;
  const silent: CoreImports = {
    medium: { read: ignore, write: ignore },
    dma: { read: ignore, write: ignore },
    ...(imports.mark ? { mark: { hit: () => undefined } } : {}),
  };
  const core = instantiate(module, memory, silent);
  const scratch = {
    ...config,
    sectors,
    bootSectors: 0,
    emmc: { ...config.emmc, gpSectors: [] },
    areaFirstLba: 16,
    zoneSectors: 64,
    zoneCount: 4,
    rings: { pmsg: 8, console: 8, ftrace: 0, cpus: 0 },
    dumpArea: { firstLba: 512, sectors: 512 },
  };
  const table = new RegionTable(core, memory, dump, MEDIUM_BASE + sectors * SECTOR_BYTES);
  table.register({ name: "text", address: 0n, source: new Uint8Array(memory.buffer, TEXT_BASE, 70_000) });
  table.register({ name: "absent", address: 2n ** 32n, size: 4096, source: () => 0 });
  for (const dma of [false, true]) {
    writeConfig(memory, { ...scratch, dma, controller: "full" });
    core.machineInit();
    core.openCard();
    core.recoverArea();
    for (let i = 0; i < REHEARSALS; i++) {
      core.writeRing(RING_PMSG, 3000);
      core.writeRing(RING_CONSOLE, 3000);
      core.panicWrite(1, 0, 0, 0, 8192, 0);
    }
  }
}
