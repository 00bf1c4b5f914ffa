// What a simulated card and its driver are made of, and the times they take: the numbers behind CONFIG.
// The `typical` figures are those of mmc.md §1.10 (cached write 20-50 µs, uncached 0.3-2 ms a page, read latency
// 50-300 µs), per sector of 512 bytes. Nothing of Node.
import * as layout from "../../assembly/layout.js";
import { CONTROLLERS, type ControllerKind } from "./controllers.js";

/** Times of the chip and of the controller's registers, in simulated ns, 0 … 4,294,967,295 each. */
export interface Timing {
  /** One register access of the driver. */
  accessCostNs: number;
  /** N_AC: from a read command to its first block; never less than the bus's own 2 clocks. */
  readNs: number;
  /** One sector into the flash. */
  programNs: number;
  /** One sector into the write cache. */
  cachedNs: number;
  /** One erase group (512 KiB), or a trim within it. */
  eraseNs: number;
  /** CMD6. */
  switchNs: number;
  /** CMD1 or ACMD41 until the card is ready. */
  initNs: number;
  /** CMD5, each way. */
  sleepNs: number;
  /** HPI until tran. */
  hpiNs: number;
  /** Each further block of a read; default 0: read ahead. */
  nextReadNs?: number | undefined;
  /** On top of the last block of a write: what was only buffered goes to the flash. Default 0. */
  finalNs?: number | undefined;
  /** Each erase command, whatever it erases; default 0. */
  eraseCallNs?: number | undefined;
  /** eMMC trim, per erase group touched; default eraseNs. */
  trimNs?: number | undefined;
  /** Discard, per erase group touched; default eraseNs. */
  discardNs?: number | undefined;
  /** CMD6 that changes the partition; default switchNs. */
  partitionNs?: number | undefined;
  /** Every n-th sector that goes to the flash … (0, the default: none) */
  stallEvery?: number | undefined;
  /** … takes this much longer: garbage collection, wear levelling. Which ones depends on the seed. */
  stallNs?: number | undefined;
  /** No stall makes a busy longer than this; default: the longest that `worst` has. */
  busyMaxNs?: number | undefined;
  /** How long a sector is still in flight when its busy has ended: a power cut takes it back. Default 0. */
  settleNs?: number | undefined;
  /** CPU time of compressing one byte of a log, 0 … DEFLATE_NS_MAX; default DEFLATE_NS. */
  deflateNs?: number | undefined;
}

/**
 * Assumed, not measured: 120 cycles a byte of a core that runs in order at 1.2 GHz (a Cortex-A53). `npm run bench`
 * shows what deflating takes on the machine that it runs on, 12 ns a byte where this was written.
 */
export const DEFLATE_NS = 100;
/** A megabyte's cost still fits a pause of the core. */
export const DEFLATE_NS_MAX = 2000;

/** An eMMC in the middle of its life. */
export const TYPICAL_EMMC: Timing = {
  accessCostNs: 100,
  readNs: 150_000,
  programNs: 50_000,
  cachedNs: 5_000,
  eraseNs: 2_000_000,
  switchNs: 200_000,
  initNs: 20_000_000,
  sleepNs: 5_000_000,
  hpiNs: 1_000_000,
};

/** A class 10 SD card. */
export const TYPICAL_SD: Timing = {
  accessCostNs: 100,
  readNs: 500_000,
  programNs: 100_000,
  cachedNs: 0,
  eraseNs: 5_000_000,
  switchNs: 200_000,
  initNs: 100_000_000,
  sleepNs: 0,
  hpiNs: 0,
};

/** A chip and a CPU that take no time: what is left is the bus. */
export const IDEAL: Timing = {
  accessCostNs: 0,
  readNs: 0,
  programNs: 0,
  cachedNs: 0,
  eraseNs: 0,
  switchNs: 0,
  initNs: 0,
  sleepNs: 0,
  hpiNs: 0,
  deflateNs: 0,
};

/** The longest times that mmc.md §1.10 lets an eMMC take. */
const WORST_EMMC: Timing = {
  accessCostNs: 100,
  readNs: 100_000_000,
  programNs: 350_000_000,
  cachedNs: 350_000_000,
  eraseNs: 600_000_000,
  switchNs: 100_000_000,
  initNs: 1_000_000_000,
  sleepNs: 13_000_000,
  hpiNs: 50_000_000,
};

/** The same of an SD card: what the specification makes a host wait for (SDHC). */
const WORST_SD: Timing = {
  accessCostNs: 100,
  readNs: 100_000_000,
  programNs: 250_000_000,
  cachedNs: 0,
  eraseNs: 250_000_000,
  switchNs: 100_000_000,
  initNs: 1_000_000_000,
  sleepNs: 0,
  hpiNs: 0,
};

/** A small slow SD card: every write waits for a block to be copied, every read for its map. */
const SLOW_SD: Timing = {
  ...TYPICAL_SD,
  readNs: 100_000_000,
  programNs: 250_000_000,
  eraseNs: 100_000_000,
  initNs: 300_000_000,
};

/** An eMMC near its end: slow at everything, and now and then it cleans up. */
const OLD_EMMC: Timing = {
  accessCostNs: 100,
  readNs: 300_000,
  nextReadNs: 20_000,
  programNs: 2_000_000,
  cachedNs: 50_000,
  finalNs: 5_000_000,
  eraseNs: 50_000_000,
  eraseCallNs: 10_000_000,
  trimNs: 5_000_000,
  discardNs: 1_000_000,
  switchNs: 1_000_000,
  partitionNs: 10_000_000,
  initNs: 300_000_000,
  sleepNs: 13_000_000,
  hpiNs: 10_000_000,
  stallEvery: 64,
  stallNs: 300_000_000,
};

/** Named sets of times. Some are of one kind of card only. */
export type ProfileName = "ideal" | "typical" | "worst" | "slow-sd" | "old-emmc";

/** One set of times for an eMMC and one for all kinds of SD card. */
function every<T>(emmc: T, sd: T): Record<CardKind, T> {
  return { emmc, sd, sdsc: sd, sdxc: sd };
}

export const PROFILES: Record<ProfileName, Partial<Record<CardKind, Timing>>> = {
  ideal: every(IDEAL, IDEAL),
  typical: every(TYPICAL_EMMC, TYPICAL_SD),
  worst: every(WORST_EMMC, WORST_SD),
  "slow-sd": { sd: SLOW_SD, sdsc: SLOW_SD, sdxc: SLOW_SD },
  "old-emmc": { emmc: OLD_EMMC },
};

/** Longest busy that a stall may make: mmc.md §1.10, "program (per busy)". */
export const BUSY_MAX_NS: Record<CardKind, number> = every(350_000_000, 250_000_000);

/** What a power cut damages besides the sector in programming: docs/FAULTS.md. Everything 0 by default. */
export interface Damage {
  /** Of noise and of stalls. */
  seed?: number | undefined;
  /** SD: sectors on each side that go with a torn one, 0 … 64. */
  neighbourSectors?: number | undefined;
  /** Neighbours are lost within an allocation unit of this size only; 0: wherever they are. */
  unitSectors?: number | undefined;
  /** Size of the erase block that the outcome `rollback` takes back. */
  rollbackSectors?: number | undefined;
}

/** `sd` is SDHC, `sdsc` up to 2 GiB with byte addresses, `sdxc` more than 32 GiB. */
export type CardKind = "emmc" | "sd" | "sdsc" | "sdxc";

export const CARD_KINDS: Record<CardKind, number> = {
  emmc: layout.CARD_EMMC,
  sd: layout.CARD_SDHC,
  sdsc: layout.CARD_SDSC,
  sdxc: layout.CARD_SDXC,
};

/** What an SD card may have besides. */
export interface SdOptions {
  /** Physical Layer version; below 2.00 only `sdsc`: no CMD8, and in 1.01 no CMD6 either. Default 3.01. */
  version?: SdVersion | undefined;
  /** 1.8 V: CMD11, CMD19, SDR50, SDR104, DDR50. Default false. */
  uhs?: boolean | undefined;
  /** CMD6 group 3: driver types A, C, D at 1.8 V. Default false. */
  driverTypes?: boolean | undefined;
  /** CMD6 group 4: 400, 600, 800 mA at 1.8 V. Default false. */
  currentLimits?: boolean | undefined;
  /** CMD20, speed class control. Default false. */
  cmd20?: boolean | undefined;
  /** CMD38 with 1. Default true from version 3.01 on. */
  discard?: boolean | undefined;
  /** CMD38 with 2, full user area logical erase. Default false. */
  fule?: boolean | undefined;
  /** What an erased byte reads as. Default 0. */
  erasedByte?: 0 | 255 | undefined;
  /** The switch of the case is in its lock position. Default false. */
  writeSwitchLocked?: boolean | undefined;
  /** Clock of the SPI port, 0 … 25,000; at 0 no time passes. Default 25,000. */
  spiKhz?: number | undefined;
  /** N_CR in SPI mode: bytes between a command and its response, 1 … 8. Default 1. */
  spiResponseBytes?: number | undefined;
}

export type SdVersion = "1.01" | "1.10" | "2.00" | "3.01";

export const SD_VERSIONS: Record<SdVersion, number> = {
  "1.01": layout.SD_V101,
  "1.10": layout.SD_V110,
  "2.00": layout.SD_V200,
  "3.01": layout.SD_V301,
};

function sdFlags(sd: SdOptions): number {
  return (
    SD_VERSIONS[sd.version ?? "3.01"] |
    (sd.uhs ? layout.SD_UHS : 0) |
    (sd.driverTypes ? layout.SD_DRIVER_TYPES : 0) |
    (sd.currentLimits ? layout.SD_CURRENTS : 0) |
    (sd.cmd20 ? layout.SD_CMD20 : 0) |
    ((sd.discard ?? (sd.version ?? "3.01") === "3.01") ? layout.SD_DISCARD : 0) |
    (sd.fule ? layout.SD_FULE : 0) |
    (sd.erasedByte === 255 ? layout.SD_ERASED_ONES : 0) |
    (sd.writeSwitchLocked ? layout.SD_LOCK_SWITCH : 0)
  );
}
/**
 * What is given up when all zones hold a record. `first-wins`: the newest record. `ring`: the one behind the newest, as
 * Linux does. `newest`: one of the oldest log by sequence. Older text of a long log replaces nothing, but with `newest`
 * logs that are not among the `keepLogs` newest.
 */
export type Policy = "first-wins" | "ring" | "newest";

export const POLICIES: Record<Policy, number> = {
  "first-wins": layout.POLICY_FIRST_WINS,
  ring: layout.POLICY_RING,
  newest: layout.POLICY_NEWEST,
};

/** Linux's reasons, by their numbers. */
export const REASONS = { Panic: 1, Oops: 2, Emergency: 3, Shutdown: 4 } as const;
export type Reason = keyof typeof REASONS;
/** What becomes of a sector that was being programmed: docs/FAULTS.md. */
export type CutOutcome =
  | "old"
  | "new"
  | "torn-low"
  | "torn-high"
  | "interleaved"
  | "zero"
  | "ones"
  | "noise"
  | "unreadable"
  | "rollback";

export const CUT_OUTCOMES: Record<CutOutcome, number> = {
  old: layout.CUT_OLD,
  new: layout.CUT_NEW,
  "torn-low": layout.CUT_TORN_LOW,
  "torn-high": layout.CUT_TORN_HIGH,
  interleaved: layout.CUT_INTERLEAVED,
  zero: layout.CUT_ZERO,
  ones: layout.CUT_ONES,
  noise: layout.CUT_NOISE,
  unreadable: layout.CUT_UNREADABLE,
  rollback: layout.CUT_ROLLBACK,
};

/** What only an eMMC has; everything is off or absent unless it is said. */
export interface EmmcConfig {
  /** Commands carry byte addresses: cards up to 2 GiB. */
  byteAddressed?: boolean;
  /** EXT_CSD_DEVICE_TYPE: 0x03 high speed, + 0x04 DDR52, + 0x10 HS200, + 0x40 HS400. Default 0x03. */
  deviceType?: number;
  /** Sectors of the general purpose partitions, up to four. */
  gpSectors?: readonly number[];
  /** Sectors programmed until EXT_CSD_BKOPS_STATUS is one higher; 0 never. */
  bkopsSectors?: number;
  /** Background operations, for each level; sanitize. */
  bkopsNs?: number;
}

/** Sizes of the rings in sectors; 0: there is none. */
export interface RingSectors {
  pmsg: number;
  console: number;
  /** Of one CPU. */
  ftrace: number;
  cpus: number;
}

/** All rings together. */
export function allRingSectors({ pmsg, console, ftrace, cpus }: RingSectors): number {
  return pmsg + console + ftrace * cpus;
}

/** Everything that CONFIG says, with its defaults filled in. Sizes in sectors of 512 bytes. */
export interface MachineConfig {
  card: CardKind;
  sd?: SdOptions | undefined;
  sectors: number;
  bootSectors: number;
  cacheSectors: number;
  reliableWrite: boolean;
  cmd23: boolean;
  hpi: boolean;
  serial: number;
  timing: Timing;
  damage?: Damage | undefined;
  abortOutcome: CutOutcome;
  cacheKeptAtReset: boolean;
  dma: boolean;
  busWidth: 1 | 4 | 8;
  highSpeed: boolean;
  areaFirstLba: number;
  zoneSectors: number;
  zoneCount: number;
  /** In front of the kmsg zones; default none. */
  rings?: RingSectors;
  /** Where panics store crash dumps; default nowhere. */
  dumpArea?: { firstLba: number; sectors: number } | undefined;
  abi: "lp64" | "i386";
  policy: Policy;
  /** Policy `newest`: logs that are kept, the one being written too; default all. */
  keepLogs?: number;
  /** Zones that one log may take; default 1. */
  parts?: number;
  /** As Linux's: dumps with a larger reason are not taken, 0 is 2; default all are. */
  maxReason?: number;
  /** Records are deflated where that helps; default no. */
  compress?: boolean;
  deadlineUs: number;
  trace: boolean;
  /** Default `full`. */
  controller?: ControllerKind;
  /** The slot's write protect pin; default no. */
  slotWriteProtected?: boolean;
  /** SDHCI_POWER_CONTROL switches the card's supply on and never off; default no. */
  fixedSupply?: boolean | undefined;
  emmc?: EmmcConfig;
}

/** Sectors of an eMMC beside its user area: boot partitions and general purpose ones. */
export function partitionSectors(config: MachineConfig): number {
  const gpSectors = config.emmc?.gpSectors ?? [];
  return 2 * config.bootSectors + gpSectors.reduce((sum, sectors) => sum + sectors, 0);
}

/** Fills CONFIG in a machine's memory. */
export function writeConfig(memory: WebAssembly.Memory, config: MachineConfig): void {
  const words = new Uint32Array(memory.buffer);
  const set = (address: number, value: number) => {
    words[address >> 2] = value;
  };
  const { timing } = config;
  set(layout.CONFIG_CARD_KIND, CARD_KINDS[config.card]);
  set(layout.CONFIG_SECTORS, config.sectors);
  set(layout.CONFIG_BOOT_SECTORS, config.card === "emmc" ? config.bootSectors : 0);
  set(layout.CONFIG_CACHE_SECTORS, config.card === "emmc" ? config.cacheSectors : 0);
  set(
    layout.CONFIG_FEATURES,
    (config.reliableWrite ? layout.FEATURE_RELIABLE_WRITE : 0) |
      (config.cmd23 ? layout.FEATURE_CMD23 : 0) |
      (config.hpi ? layout.FEATURE_HPI : 0),
  );
  set(layout.CONFIG_SERIAL, config.serial);
  set(layout.CONFIG_ACCESS_COST_NS, timing.accessCostNs);
  set(layout.CONFIG_READ_NS, timing.readNs);
  set(layout.CONFIG_PROGRAM_NS, timing.programNs);
  set(layout.CONFIG_CACHED_NS, timing.cachedNs);
  set(layout.CONFIG_ERASE_NS, timing.eraseNs);
  set(layout.CONFIG_SWITCH_NS, timing.switchNs);
  set(layout.CONFIG_INIT_NS, timing.initNs);
  set(layout.CONFIG_SLEEP_NS, timing.sleepNs);
  set(layout.CONFIG_HPI_NS, timing.hpiNs);
  set(layout.CONFIG_ABORT_OUTCOME, CUT_OUTCOMES[config.abortOutcome]);
  set(layout.CONFIG_CACHE_AT_RESET, config.cacheKeptAtReset ? 1 : 0);
  set(
    layout.CONFIG_DRIVER_FLAGS,
    (config.dma ? layout.DRIVER_DMA : 0) | (config.cmd23 ? layout.DRIVER_CMD23 : 0),
  );
  set(layout.CONFIG_BUS_WIDTH, config.busWidth);
  set(layout.CONFIG_HIGH_SPEED, config.highSpeed ? 1 : 0);
  set(layout.CONFIG_AREA_FIRST_LBA, config.areaFirstLba);
  set(layout.CONFIG_ZONE_SECTORS, config.zoneSectors);
  set(layout.CONFIG_ZONE_COUNT, config.zoneCount);
  const rings = config.rings ?? { pmsg: 0, console: 0, ftrace: 0, cpus: 0 };
  set(layout.CONFIG_RINGS_FIRST_LBA, config.areaFirstLba - allRingSectors(rings));
  set(layout.CONFIG_PMSG_SECTORS, rings.pmsg);
  set(layout.CONFIG_CONSOLE_SECTORS, rings.console);
  set(layout.CONFIG_FTRACE_SECTORS, rings.ftrace);
  set(layout.CONFIG_FTRACE_CPUS, rings.cpus);
  set(layout.DUMP_AREA_FIRST_LBA, config.dumpArea?.firstLba ?? 0);
  set(layout.DUMP_AREA_SECTORS, config.dumpArea?.sectors ?? 0);
  set(layout.CONFIG_ABI, config.abi === "i386" ? layout.ABI_I386 : layout.ABI_LP64);
  set(layout.CONFIG_POLICY, POLICIES[config.policy]);
  set(layout.CONFIG_KEEP, config.keepLogs ?? layout.ZONES_MAX);
  set(layout.CONFIG_PARTS, config.parts ?? 1);
  set(layout.CONFIG_MAX_REASON, config.maxReason ?? 0xffffffff);
  set(layout.CONFIG_COMPRESS, config.compress ? 1 : 0);
  set(layout.CONFIG_DEFLATE_NS, timing.deflateNs ?? DEFLATE_NS);
  set(layout.CONFIG_DEADLINE_US, config.deadlineUs);
  set(layout.CONFIG_TRACE, config.trace ? 1 : 0);
  set(layout.CONFIG_NEXT_READ_NS, timing.nextReadNs ?? 0);
  set(layout.CONFIG_FINAL_NS, timing.finalNs ?? 0);
  set(layout.CONFIG_ERASE_CALL_NS, timing.eraseCallNs ?? 0);
  set(layout.CONFIG_TRIM_NS, timing.trimNs ?? timing.eraseNs);
  set(layout.CONFIG_DISCARD_NS, timing.discardNs ?? timing.eraseNs);
  set(layout.CONFIG_PARTITION_NS, timing.partitionNs ?? timing.switchNs);
  set(layout.CONFIG_STALL_NS, timing.stallNs ?? 0);
  set(layout.CONFIG_STALL_EVERY, timing.stallEvery ?? 0);
  set(layout.CONFIG_BUSY_MAX_NS, timing.busyMaxNs ?? BUSY_MAX_NS[config.card]);
  set(layout.CONFIG_SETTLE_NS, timing.settleNs ?? 0);
  const { damage } = config;
  set(layout.CONFIG_SEED, damage?.seed ?? 0);
  set(layout.CONFIG_NEIGHBOUR_SECTORS, damage?.neighbourSectors ?? 0);
  set(layout.CONFIG_UNIT_SECTORS, damage?.unitSectors ?? 0);
  set(layout.CONFIG_ROLLBACK_SECTORS, damage?.rollbackSectors ?? 0);
  const controller = CONTROLLERS[config.controller ?? "full"];
  set(layout.CONFIG_CAPABILITIES, controller.capabilities);
  set(layout.CONFIG_CAPABILITIES_1, controller.capabilities1);
  set(layout.CONFIG_HOST_VERSION, controller.version);
  set(
    layout.CONFIG_SLOT,
    (config.slotWriteProtected ? layout.SLOT_WRITE_PROTECTED : 0) |
      (config.fixedSupply ? layout.SLOT_FIXED_SUPPLY : 0),
  );
  const emmc = config.card === "emmc" ? config.emmc : undefined;
  set(layout.CONFIG_EMMC_FLAGS, emmc?.byteAddressed ? layout.EMMC_BYTE_ADDRESSED : 0);
  set(layout.CONFIG_DEVICE_TYPE, emmc?.deviceType ?? 0x03);
  set(layout.CONFIG_BKOPS_SECTORS, emmc?.bkopsSectors ?? 0);
  set(layout.CONFIG_BKOPS_NS, emmc?.bkopsNs ?? 0);
  for (let i = 0; i < 4; i++) set(layout.CONFIG_GP1_SECTORS + i * 4, emmc?.gpSectors?.[i] ?? 0);
  const sd = config.sd ?? {};
  set(layout.CONFIG_SD_FLAGS, sdFlags(sd));
  set(layout.CONFIG_SPI_KHZ, sd.spiKhz ?? 25_000);
  set(layout.CONFIG_SPI_NCR_BYTES, sd.spiResponseBytes ?? 1);
}
