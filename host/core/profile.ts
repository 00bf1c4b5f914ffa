// What a simulated card and its driver are made of, and the times they take: the numbers behind CONFIG.
// The `typical` figures are those of mmc.md §1.10 (cached write 20-50 µs, uncached 0.3-2 ms a page, read latency
// 50-300 µs), per sector of 512 bytes. Nothing of Node.
import * as layout from "../../assembly/layout.js";

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
}

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
};

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

const SD_VERSIONS: Record<SdVersion, number> = {
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
/** `first-wins` keeps the first records of a crash loop, `ring` the last ones, as Linux does. */
export type Policy = "first-wins" | "ring";
/** What becomes of a sector that was being programmed: docs/FAULTS.md. */
export type CutOutcome = "old" | "new" | "torn-low" | "torn-high";

export const CUT_OUTCOMES: Record<CutOutcome, number> = {
  old: layout.CUT_OLD,
  new: layout.CUT_NEW,
  "torn-low": layout.CUT_TORN_LOW,
  "torn-high": layout.CUT_TORN_HIGH,
};

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
  abortOutcome: CutOutcome;
  cacheKeptAtReset: boolean;
  dma: boolean;
  busWidth: 1 | 4 | 8;
  highSpeed: boolean;
  areaFirstLba: number;
  zoneSectors: number;
  zoneCount: number;
  abi: "lp64" | "i386";
  policy: Policy;
  deadlineUs: number;
  trace: boolean;
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
  set(layout.CONFIG_ABI, config.abi === "i386" ? layout.ABI_I386 : layout.ABI_LP64);
  set(layout.CONFIG_POLICY, config.policy === "ring" ? layout.POLICY_RING : layout.POLICY_FIRST_WINS);
  set(layout.CONFIG_DEADLINE_US, config.deadlineUs);
  set(layout.CONFIG_TRACE, config.trace ? 1 : 0);
  const sd = config.sd ?? {};
  set(layout.CONFIG_SD_FLAGS, sdFlags(sd));
  set(layout.CONFIG_SPI_KHZ, sd.spiKhz ?? 25_000);
  set(layout.CONFIG_SPI_NCR_BYTES, sd.spiResponseBytes ?? 1);
}
