// What a device is asked to be: the options as a program gives them, their judging, and their defaults. configOf()
// makes of them the numbers behind CONFIG (core/profile.ts). Nothing of Node.
import { GP_GRANULE_SECTORS, RING_BYTES_MAX, SECTOR_BYTES, ZONES_MAX } from "../assembly/layout.js";
import { type ControllerKind, hasAdma2, hasEightLines } from "./core/controllers.js";
import type { ExternalMedium } from "./core/external-medium.js";
import {
  allRingSectors,
  type CardKind,
  type CutOutcome,
  type Damage,
  type EmmcConfig,
  type MachineConfig,
  type Policy,
  PROFILES,
  type ProfileName,
  type Reason,
  type RingSectors,
  type SdOptions,
  type Timing,
} from "./core/profile.js";
import type { TraceEvent } from "./core/trace.js";
import type { DumpOptions } from "./dump/region-table.js";
import { MmcError } from "./errors.js";

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

/** 2^32 sectors less one granule: what a card's 32-bit sector numbers reach. */
export const CARD_BYTES_MAX = (2 ** 32 - 1024) * SECTOR_BYTES;
/** Sizes of cards are multiples of it. */
export const CARD_GRANULE_BYTES = 512 * 1024;
const SDSC_BYTES_MAX = 2 ** 31;
/** Where an eMMC's addresses change from bytes to sectors (mmc.md §1.7, §1.8 SEC_COUNT). */
const BYTE_ADDRESSED_BYTES_MAX = 2 ** 31;
/** A WebAssembly memory ends at 4 GiB. */
export const MEMORY_MEDIUM_BYTES_MAX = 2 ** 32 - 2 ** 22;

export function requireNumber(name: string, value: number, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw new MmcError("EINVAL", `${name}: ${value} is not a whole number from ${least} to ${most}`);
  }
}

export function roundUp(value: number, granule: number): number {
  return Math.ceil(value / granule) * granule;
}

/**
 * Size of the user area in bytes: what is asked for, else that of the content or of the medium, rounded up to 512 KiB.
 * @throws MmcError EINVAL none, larger than a card or a memory can be, or less than the content
 */
export function sizeBytesOf(options: DeviceOptions, external: ExternalMedium | null): number {
  const wanted = options.sizeBytes ?? options.content?.length ?? external?.sizeBytes ?? 0;
  requireNumber("sizeBytes", wanted, 1, external ? CARD_BYTES_MAX : MEMORY_MEDIUM_BYTES_MAX);
  if (options.content && options.content.length > wanted) {
    throw new MmcError(
      "EINVAL",
      `content: ${options.content.length} bytes are more than the card's ${wanted}`,
    );
  }
  return roundUp(wanted, CARD_GRANULE_BYTES);
}

/**
 * What CONFIG says for these options, which the tables of device-shapes.ts have judged one by one; `sizeBytes` as of
 * {@link sizeBytesOf}.
 * @throws MmcError EINVAL an option that cannot be with this card, or two that exclude each other; ENOMEM rings that are too large
 */
export function configOf(options: DeviceOptions, sizeBytes: number): MachineConfig {
  const card = options.card ?? "emmc";
  const cmd23 = options.cmd23 ?? true;
  const profile = options.profile ?? "typical";
  const times = Object.hasOwn(PROFILES, profile) ? PROFILES[profile][card] : undefined;
  if (times === undefined)
    throw new MmcError("EINVAL", `profile: ${profile} is none of a card of kind ${card}`);
  const timing = { ...times, ...options.timing };
  checkSd(card, options.sd ?? {}, sizeBytes);
  const bootBytes = options.bootBytes ?? 0;
  if (bootBytes % 131072 !== 0) {
    throw new MmcError("EINVAL", `bootBytes: ${bootBytes} is not a multiple of 131072`);
  }
  const cacheSectors = options.cacheSectors ?? 0;
  const deadlineUs = options.deadlineUs ?? 10_000_000;
  const controller = options.controller ?? "full";
  if (options.dma && !hasAdma2(controller)) {
    throw new MmcError("EINVAL", `dma: a controller of kind ${controller} has no ADMA2`);
  }
  const busWidth = options.busWidth ?? (card !== "emmc" || !hasEightLines(controller) ? 4 : 8);
  if (options.busWidth === 8 && !hasEightLines(controller)) {
    throw new MmcError("EINVAL", `busWidth: a controller of kind ${controller} has no eight lines`);
  }
  if (options.keepLogs !== undefined && options.policy !== "newest") {
    throw new MmcError("EINVAL", "keepLogs: belongs to the policy newest");
  }
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
    busWidth,
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
  if (byteAddressed) {
    requireNumber("sizeBytes of a byte-addressed card", sizeBytes, 1, BYTE_ADDRESSED_BYTES_MAX);
  }
  const deviceType = options.deviceType ?? 0x03;
  const gpBytes = options.gpBytes ?? [];
  for (const bytes of gpBytes) {
    requireNumber("gpBytes", bytes, 0, byteAddressed ? BYTE_ADDRESSED_BYTES_MAX : MEMORY_MEDIUM_BYTES_MAX);
    if (bytes % (GP_GRANULE_SECTORS * SECTOR_BYTES) !== 0) {
      throw new MmcError("EINVAL", `gpBytes: ${bytes} is not a multiple of 8 MiB`);
    }
  }
  const bkopsSectors = options.background?.sectorsPerLevel ?? 0;
  const bkopsNs = options.background?.levelNs ?? 0;
  return {
    byteAddressed,
    deviceType,
    gpSectors: gpBytes.map((bytes) => bytes / SECTOR_BYTES),
    bkopsSectors,
    bkopsNs,
  };
}

function checkSd(card: CardKind, sd: SdOptions, sizeBytes: number): void {
  if (card === "sdsc" && (sizeBytes > SDSC_BYTES_MAX || (sizeBytes > 2 ** 30 && sizeBytes % 2 ** 20 !== 0))) {
    throw new MmcError("EINVAL", `sizeBytes: ${sizeBytes} is no size of an SDSC card, which ends at 2 GiB`);
  }
  const version = sd.version ?? "3.01";
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
    if (size % SECTOR_BYTES !== 0) {
      throw new MmcError("EINVAL", `area.${name}: ${size} is not a multiple of ${SECTOR_BYTES}`);
    }
  }
  const cpus = area.cpus ?? 1;
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
