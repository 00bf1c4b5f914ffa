// EXT_CSD, 512 bytes: modes (0-191) and properties (192-511) of an eMMC (mmc.md §1.8; JESD84-B51 §7.4). Numbers of more
// than one byte are little-endian.
import {
  type DecodedRegister,
  formatBytes,
  formatTime,
  hexOf,
  listBits,
  type RegisterField,
  wholeRegister,
  yesNo,
} from "./field.js";

const LENGTH_BYTES = 512;
const KIB = 1024;
const MS = 1_000_000;

/** First byte, how many, name, and what a value means; `whole` is the register for fields that need others. */
type Row = [at: number, count: number, name: string, meaning?: (value: number, whole: Uint8Array) => string];

const times = (unitMs: number) => (value: number) => formatTime(value * unitMs * MS);
const sized = (unitBytes: number) => (value: number) =>
  value === 0 ? "none" : formatBytes(value * unitBytes);
const oneOf = (names: Record<number, string>) => (value: number) => names[value] ?? "reserved";
const flags =
  (...names: (readonly [number, string])[]) =>
  (value: number) =>
    listBits(value, names);
const onOff = (value: number) => (value === 0 ? "off" : value === 1 ? "on" : "reserved");
const supported = (value: number) => ((value & 1) === 0 ? "not supported" : "supported");
const sectors = (value: number) => formatBytes(value * 512);

const REVISIONS: Record<number, string> = {
  0: "4.0",
  1: "4.1",
  2: "4.2",
  3: "4.3",
  4: "4.4",
  5: "4.41",
  6: "4.5",
  7: "5.0",
  8: "5.1",
};
const ACCESS: Record<number, string> = {
  0: "user area",
  1: "boot partition 1",
  2: "boot partition 2",
  3: "RPMB",
  4: "GP partition 1",
  5: "GP partition 2",
  6: "GP partition 3",
  7: "GP partition 4",
};
const LIFE: Record<number, string> = { 0: "not defined", 11: "exceeded" };

function partitionConfig(value: number): string {
  const enable = (value >> 3) & 7;
  const boot: Record<number, string> = { 0: "no boot", 1: "boots 1", 2: "boots 2", 7: "boots the user area" };
  const ack = ((value >> 6) & 1) !== 0 ? ", with acknowledge" : "";
  return `access to the ${ACCESS[value & 7]}, ${boot[enable] ?? "boot reserved"}${ack}`;
}

function lifeTime(value: number): string {
  if (value >= 1 && value <= 10) return `${(value - 1) * 10}-${value * 10} % used`;
  return LIFE[value] ?? "reserved";
}

function timing(value: number): string {
  const names = ["compatible", "high speed", "HS200", "HS400"];
  const driver = value >> 4 === 0 ? "" : `, driver strength ${value >> 4}`;
  return `${names[value & 15] ?? "reserved"}${driver}`;
}

/** 100 ns · 2^value. */
function sleepTimeout(value: number): string {
  return value === 0 ? "not defined" : value > 0x17 ? "reserved" : formatTime(100 * 2 ** value);
}

function cacheSize(value: number): string {
  return value === 0 ? "no cache" : formatBytes(value * KIB);
}

const ROWS: Row[] = [
  [15, 1, "CMDQ_MODE_EN", onOff],
  [16, 1, "SECURE_REMOVAL_TYPE"],
  [17, 1, "PRODUCT_STATE_AWARENESS_ENABLEMENT"],
  [18, 4, "MAX_PRE_LOADING_DATA_SIZE"],
  [22, 4, "PRE_LOADING_DATA_SIZE"],
  [26, 1, "FFU_STATUS"],
  [29, 1, "MODE_OPERATION_CODES"],
  [30, 1, "MODE_CONFIG", oneOf({ 0: "normal", 1: "firmware update", 16: "vendor" })],
  [31, 1, "BARRIER_CTRL", onOff],
  [32, 1, "FLUSH_CACHE"],
  [33, 1, "CACHE_CTRL", onOff],
  [
    34,
    1,
    "POWER_OFF_NOTIFICATION",
    oneOf({ 0: "none", 1: "powered on", 2: "off, short", 3: "off, long", 4: "sleep" }),
  ],
  [35, 1, "PACKED_FAILURE_INDEX"],
  [36, 1, "PACKED_COMMAND_STATUS", flags([0, "failed"], [1, "in the entry of PACKED_FAILURE_INDEX"])],
  [37, 15, "CONTEXT_CONF"],
  [52, 2, "EXT_PARTITIONS_ATTRIBUTE"],
  [
    54,
    2,
    "EXCEPTION_EVENTS_STATUS",
    flags([0, "urgent BKOPS"], [1, "DYNCAP_NEEDED"], [2, "SYSPOOL_EXHAUSTED"], [3, "PACKED_FAILURE"]),
  ],
  [
    56,
    2,
    "EXCEPTION_EVENTS_CTRL",
    flags([0, "urgent BKOPS"], [1, "DYNCAP_NEEDED"], [2, "SYSPOOL_EXHAUSTED"], [3, "PACKED_FAILURE"]),
  ],
  [58, 1, "DYNCAP_NEEDED"],
  [59, 1, "CLASS_6_CTRL"],
  [60, 1, "INI_TIMEOUT_EMU", times(100)],
  [61, 1, "DATA_SECTOR_SIZE", oneOf({ 0: "512 bytes", 1: "4 KiB" })],
  [62, 1, "USE_NATIVE_SECTOR", yesNo],
  [63, 1, "NATIVE_SECTOR_SIZE", oneOf({ 0: "512 bytes", 1: "4 KiB" })],
  [64, 64, "VENDOR_SPECIFIC_FIELD"],
  [130, 1, "PROGRAM_CID_CSD_DDR_SUPPORT", supported],
  [131, 1, "PERIODIC_WAKEUP"],
  [132, 1, "TCASE_SUPPORT"],
  [133, 1, "PRODUCTION_STATE_AWARENESS"],
  [134, 1, "SEC_BAD_BLK_MGMNT", onOff],
  [136, 4, "ENH_START_ADDR"],
  [140, 3, "ENH_SIZE_MULT"],
  [143, 3, "GP_SIZE_MULT_1"],
  [146, 3, "GP_SIZE_MULT_2"],
  [149, 3, "GP_SIZE_MULT_3"],
  [152, 3, "GP_SIZE_MULT_4"],
  [155, 1, "PARTITION_SETTING_COMPLETED", yesNo],
  [
    156,
    1,
    "PARTITIONS_ATTRIBUTE",
    flags([0, "user enhanced"], [1, "GP 1"], [2, "GP 2"], [3, "GP 3"], [4, "GP 4"]),
  ],
  [157, 3, "MAX_ENH_SIZE_MULT"],
  [
    160,
    1,
    "PARTITIONING_SUPPORT",
    flags([0, "partitions"], [1, "enhanced attribute"], [2, "extended attribute"]),
  ],
  [161, 1, "HPI_MGMT", onOff],
  [
    162,
    1,
    "RST_n_FUNCTION",
    (value) => oneOf({ 0: "disabled", 1: "enabled for good", 2: "disabled for good" })(value & 3),
  ],
  [163, 1, "BKOPS_EN", flags([0, "manual"], [1, "automatic"])],
  [164, 1, "BKOPS_START"],
  [165, 1, "SANITIZE_START"],
  [
    166,
    1,
    "WR_REL_PARAM",
    flags([0, "WR_REL_SET may be written"], [2, "reliable write, any size"], [4, "RPMB, 8 KiB"]),
  ],
  [167, 1, "WR_REL_SET", flags([0, "user area"], [1, "GP 1"], [2, "GP 2"], [3, "GP 3"], [4, "GP 4"])],
  [168, 1, "RPMB_SIZE_MULT", sized(128 * KIB)],
  [169, 1, "FW_CONFIG", (value) => ((value & 1) === 0 ? "updates allowed" : "updates refused")],
  [
    171,
    1,
    "USER_WP",
    flags([0, "power-on"], [2, "permanent"], [3, "power-on disabled"], [4, "permanent disabled"]),
  ],
  [
    173,
    1,
    "BOOT_WP",
    flags([0, "power-on"], [2, "permanent"], [4, "permanent disabled"], [6, "power-on disabled"]),
  ],
  [174, 1, "BOOT_WP_STATUS"],
  [175, 1, "ERASE_GROUP_DEF", oneOf({ 0: "as the CSD says", 1: "high capacity" })],
  [177, 1, "BOOT_BUS_CONDITIONS"],
  [178, 1, "BOOT_CONFIG_PROT"],
  [179, 1, "PARTITION_CONFIG", partitionConfig],
  [181, 1, "ERASED_MEM_CONT", oneOf({ 0: "zeros", 1: "ones" })],
  [183, 1, "BUS_WIDTH"],
  [184, 1, "STROBE_SUPPORT", supported],
  [185, 1, "HS_TIMING", timing],
  [187, 1, "POWER_CLASS"],
  [189, 1, "CMD_SET_REV"],
  [191, 1, "CMD_SET"],
  [192, 1, "EXT_CSD_REV", oneOf(REVISIONS)],
  [194, 1, "CSD_STRUCTURE", oneOf({ 0: "version 1.0", 1: "version 1.1", 2: "version 1.2" })],
  [
    196,
    1,
    "DEVICE_TYPE",
    flags(
      [0, "26 MHz"],
      [1, "52 MHz"],
      [2, "DDR 52 MHz 1.8 or 3 V"],
      [3, "DDR 52 MHz 1.2 V"],
      [4, "HS200 1.8 V"],
      [5, "HS200 1.2 V"],
      [6, "HS400 1.8 V"],
      [7, "HS400 1.2 V"],
    ),
  ],
  [
    197,
    1,
    "DRIVER_STRENGTH",
    flags([0, "type 0"], [1, "type 1"], [2, "type 2"], [3, "type 3"], [4, "type 4"]),
  ],
  [198, 1, "OUT_OF_INTERRUPT_TIME", times(10)],
  [199, 1, "PARTITION_SWITCH_TIME", times(10)],
  [200, 1, "PWR_CL_52_195"],
  [201, 1, "PWR_CL_26_195"],
  [202, 1, "PWR_CL_52_360"],
  [203, 1, "PWR_CL_26_360"],
  [205, 1, "MIN_PERF_R_4_26"],
  [206, 1, "MIN_PERF_W_4_26"],
  [207, 1, "MIN_PERF_R_8_26_4_52"],
  [208, 1, "MIN_PERF_W_8_26_4_52"],
  [209, 1, "MIN_PERF_R_8_52"],
  [210, 1, "MIN_PERF_W_8_52"],
  [211, 1, "SECURE_WP_INFO"],
  [212, 4, "SEC_COUNT", sectors],
  [216, 1, "SLEEP_NOTIFICATION_TIME", (value) => formatTime(10_000 * 2 ** (value & 31))],
  [217, 1, "S_A_TIMEOUT", sleepTimeout],
  [218, 1, "PRODUCTION_STATE_AWARENESS_TIMEOUT"],
  [219, 1, "S_C_VCCQ"],
  [220, 1, "S_C_VCC"],
  [221, 1, "HC_WP_GRP_SIZE", (value, whole) => sized(512 * KIB)(value * (whole[224] ?? 0))],
  [222, 1, "REL_WR_SEC_C", (value) => (value === 1 ? "1 sector" : `${value} sectors`)],
  [223, 1, "ERASE_TIMEOUT_MULT", times(300)],
  [224, 1, "HC_ERASE_GRP_SIZE", sized(512 * KIB)],
  [
    225,
    1,
    "ACC_SIZE",
    (value) => ((value & 15) === 0 ? "not defined" : formatBytes(256 * 2 ** (value & 15))),
  ],
  [226, 1, "BOOT_SIZE_MULT", sized(128 * KIB)],
  [228, 1, "BOOT_INFO", flags([0, "alternate boot"], [1, "boot with DDR"], [2, "boot with high speed"])],
  [229, 1, "SEC_TRIM_MULT"],
  [230, 1, "SEC_ERASE_MULT"],
  [
    231,
    1,
    "SEC_FEATURE_SUPPORT",
    flags([0, "secure erase"], [2, "bad blocks"], [4, "trim"], [6, "sanitize"]),
  ],
  [232, 1, "TRIM_MULT", times(300)],
  [234, 1, "MIN_PERF_DDR_R_8_52"],
  [235, 1, "MIN_PERF_DDR_W_8_52"],
  [236, 1, "PWR_CL_200_130"],
  [237, 1, "PWR_CL_200_195"],
  [238, 1, "PWR_CL_DDR_52_195"],
  [239, 1, "PWR_CL_DDR_52_360"],
  [240, 1, "CACHE_FLUSH_POLICY", (value) => ((value & 1) === 0 ? "any order" : "first in, first out")],
  [241, 1, "INI_TIMEOUT_AP", times(100)],
  [242, 4, "CORRECTLY_PRG_SECTORS_NUM"],
  [246, 1, "BKOPS_STATUS", oneOf({ 0: "nothing to do", 1: "not critical", 2: "slows down", 3: "critical" })],
  [247, 1, "POWER_OFF_LONG_TIME", times(10)],
  [248, 1, "GENERIC_CMD6_TIME", times(10)],
  [249, 4, "CACHE_SIZE", cacheSize],
  [253, 1, "PWR_CL_DDR_200_360"],
  [254, 8, "FIRMWARE_VERSION"],
  [262, 2, "DEVICE_VERSION"],
  [264, 1, "OPTIMAL_TRIM_UNIT_SIZE"],
  [265, 1, "OPTIMAL_WRITE_SIZE"],
  [266, 1, "OPTIMAL_READ_SIZE"],
  [
    267,
    1,
    "PRE_EOL_INFO",
    oneOf({ 0: "not defined", 1: "normal", 2: "80 % of the reserve used", 3: "90 % of the reserve used" }),
  ],
  [268, 1, "DEVICE_LIFE_TIME_EST_TYP_A", lifeTime],
  [269, 1, "DEVICE_LIFE_TIME_EST_TYP_B", lifeTime],
  [270, 32, "VENDOR_PROPRIETARY_HEALTH_REPORT"],
  [302, 4, "NUMBER_OF_FW_SECTORS_CORRECTLY_PROGRAMMED"],
  [307, 1, "CMDQ_DEPTH", (value) => `${(value & 31) + 1} tasks`],
  [308, 1, "CMDQ_SUPPORT", supported],
  [486, 1, "BARRIER_SUPPORT", supported],
  [487, 4, "FFU_ARG"],
  [491, 1, "OPERATION_CODES_TIMEOUT"],
  [492, 1, "FFU_FEATURES"],
  [493, 1, "SUPPORTED_MODES", flags([0, "firmware update"], [1, "vendor"])],
  [494, 1, "EXT_SUPPORT", flags([0, "system code"], [1, "non-persistent"])],
  [495, 1, "LARGE_UNIT_SIZE_M1"],
  [496, 1, "CONTEXT_CAPABILITIES", (value) => `${value & 15} contexts`],
  [497, 1, "TAG_RES_SIZE"],
  [498, 1, "TAG_UNIT_SIZE"],
  [499, 1, "DATA_TAG_SUPPORT", supported],
  [500, 1, "MAX_PACKED_WRITES", (value) => `${value} in one command`],
  [501, 1, "MAX_PACKED_READS", (value) => `${value} in one command`],
  [502, 1, "BKOPS_SUPPORT", supported],
  [
    503,
    1,
    "HPI_FEATURES",
    (value) => ((value & 1) === 0 ? "no HPI" : `HPI by ${(value & 2) === 0 ? "CMD13" : "CMD12"}`),
  ],
  [504, 1, "S_CMD_SET"],
  [505, 1, "EXT_SECURITY_ERR"],
];

const NAMES = new Map(
  ROWS.flatMap(([at, count, name]) => [...Array(count).keys()].map((i) => [at + i, name] as const)),
);

/** `EXT_CSD_CACHE_CTRL` of 33; `EXT_CSD[27]` where no name is known. */
export function extCsdName(index: number): string {
  const name = NAMES.get(index);
  if (name === undefined) return `EXT_CSD[${index}]`;
  return name.startsWith("EXT_CSD_") ? name : `EXT_CSD_${name}`;
}

function decodeRow([at, count, name, meaning]: Row, whole: Uint8Array): RegisterField {
  const part = whole.subarray(at, at + count);
  const place = count === 1 ? `[${at}]` : `[${at}..${at + count - 1}]`;
  if (count > 4) {
    // More than a number: the bytes in their order.
    const hex = [...part].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return { name, at: place, raw: `0x${hex}`, value: hex, meaning: "" };
  }
  const value = part.reduceRight((sum, byte) => sum * 256 + byte, 0);
  return { name, at: place, raw: hexOf(value, count * 8), value, meaning: meaning?.(value, whole) ?? "" };
}

export function decodeExtCsd(bytes: Uint8Array): DecodedRegister {
  const { whole, problems } = wholeRegister("EXT_CSD", bytes, LENGTH_BYTES);
  return { register: "EXT_CSD", fields: ROWS.map((row) => decodeRow(row, whole)), crc: null, problems };
}
