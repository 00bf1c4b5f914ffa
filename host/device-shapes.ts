// The options of a device and of its panics, as tables for judge.ts: which there are, of what kind, in what range. What
// hangs on two of them together is judged where both are known (device-options.ts, core/faults.ts). Nothing of
// Node.
import {
  DUMP_AREA_SECTORS_MAX,
  FTRACE_CPUS_MAX,
  NEIGHBOURS_MAX,
  PARTS_MAX,
  RING_BYTES_MAX,
  SECTOR_BYTES,
  ZONES_MAX,
} from "../assembly/layout.js";
import { CONTROLLERS } from "./core/controllers.js";
import {
  CARD_KINDS,
  CUT_OUTCOMES,
  type Damage,
  DEFLATE_NS_MAX,
  POLICIES,
  PROFILES,
  REASONS,
  SD_VERSIONS,
  type SdOptions,
  type Timing,
} from "./core/profile.js";
import type { FtraceCall } from "./core/rings.js";
import {
  CARD_BYTES_MAX,
  type DeviceOptions,
  type PanicArea,
  type PanicDumpOptions,
  type PanicInput,
} from "./device-options.js";
import { DUMP_OPTIONS } from "./dump/region-table.js";
import {
  big,
  bool,
  bytes,
  either,
  func,
  list,
  object,
  oneOf,
  type Rule,
  required,
  type Shape,
  string,
  U32,
  U64,
  whole,
} from "./judge.js";

/** Two headers and a page. */
const DUMP_AREA_BYTES_MIN = 12288;
const DUMP_MEMORY_BYTES_MAX = 2 ** 30;
const offset = whole(0, CARD_BYTES_MAX);

const TIMING: Shape<Timing> = {
  accessCostNs: U32,
  readNs: U32,
  programNs: U32,
  cachedNs: U32,
  eraseNs: U32,
  switchNs: U32,
  initNs: U32,
  sleepNs: U32,
  hpiNs: U32,
  nextReadNs: U32,
  finalNs: U32,
  eraseCallNs: U32,
  trimNs: U32,
  discardNs: U32,
  partitionNs: U32,
  stallEvery: U32,
  stallNs: U32,
  busyMaxNs: U32,
  settleNs: U32,
  deflateNs: whole(0, DEFLATE_NS_MAX),
};

const DAMAGE: Shape<Damage> = {
  seed: U32,
  neighbourSectors: whole(0, NEIGHBOURS_MAX),
  unitSectors: U32,
  rollbackSectors: U32,
};

const SD: Shape<SdOptions> = {
  version: oneOf(SD_VERSIONS),
  uhs: bool,
  driverTypes: bool,
  currentLimits: bool,
  cmd20: bool,
  discard: bool,
  fule: bool,
  erasedByte: oneOf([0, 255]),
  writeSwitchLocked: bool,
  spiKhz: whole(0, 25_000),
  spiResponseBytes: whole(1, 8),
};

const ring = whole(0, RING_BYTES_MAX);

const AREA: Shape<PanicArea> = {
  offset: required(offset),
  kmsgSize: required(whole(2 * SECTOR_BYTES, 128 * 2 ** 20)),
  kmsgCount: required(whole(1, ZONES_MAX)),
  abi: required(oneOf(["lp64", "i386"])),
  pmsgSize: ring,
  consoleSize: ring,
  ftraceSize: ring,
  cpus: whole(1, FTRACE_CPUS_MAX),
};

const { layout: _, ...DUMP_ON_CARD } = DUMP_OPTIONS;
const DUMP: Shape<PanicDumpOptions> = {
  ...DUMP_ON_CARD,
  area: required(
    object<PanicDumpOptions["area"]>({
      offset: required(offset),
      sizeBytes: required(whole(DUMP_AREA_BYTES_MIN, DUMP_AREA_SECTORS_MAX * SECTOR_BYTES)),
    }),
  ),
  memoryBytes: whole(0, DUMP_MEMORY_BYTES_MAX),
};

export const DEVICE_OPTIONS: Shape<DeviceOptions> = {
  card: oneOf(CARD_KINDS),
  sd: object(SD),
  sizeBytes: whole(1, CARD_BYTES_MAX),
  content: bytes,
  area: object(AREA),
  dump: object(DUMP),
  policy: oneOf(POLICIES),
  keepLogs: whole(1, ZONES_MAX),
  parts: whole(1, PARTS_MAX),
  maxReason: whole(0, 0x7fffffff),
  compress: bool,
  busWidth: oneOf([1, 4, 8]),
  highSpeed: bool,
  controller: oneOf(CONTROLLERS),
  fixedSupply: bool,
  dma: bool,
  cmd23: bool,
  reliableWrite: bool,
  cacheSectors: whole(0, 64),
  hpi: bool,
  bootBytes: whole(0, 255 * 131072),
  addressing: oneOf(["sector", "byte"]),
  deviceType: whole(0, 255),
  gpBytes: list(whole(0, CARD_BYTES_MAX), 4),
  background: object<NonNullable<DeviceOptions["background"]>>({
    sectorsPerLevel: required(U32),
    levelNs: required(U32),
  }),
  serial: U32,
  profile: oneOf(PROFILES),
  timing: object<Partial<Timing>>(TIMING),
  damage: object(DAMAGE),
  abortOutcome: oneOf(CUT_OUTCOMES),
  cacheKeptAtReset: bool,
  deadlineUs: whole(1, 0xffffffff),
  trace: bool,
  onTrace: func,
};

/** As the command takes it. */
const reasonInAnyCase: Rule = (what, value) => {
  const word = typeof value === "string" ? value.toLowerCase() : null;
  return Object.keys(REASONS).find((name) => name.toLowerCase() === word) ?? oneOf(REASONS)(what, value);
};

export const PANIC_INPUT: Shape<PanicInput> = {
  text: required(either(string, bytes)),
  reason: reasonInAnyCase,
  // What the record's header can say (s64).
  timeSec: big(-(2n ** 63n), 2n ** 63n - 1n),
  timeNsec: whole(0, 999_999_999),
  parts: whole(1, PARTS_MAX),
  force: bool,
};

export const FTRACE_CALLS = list(
  object<FtraceCall>({
    cpu: required(whole(0, FTRACE_CPUS_MAX - 1)),
    ip: required(U64),
    parentIp: required(U64),
  }),
);
