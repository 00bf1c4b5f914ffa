// The options that say what IMAGE is and where its pstore area lies, and how the values of options are read.
// A value that can be right on no image is wrong usage (exit 2) and is named with its option; what depends on
// the image is judged in open-area.ts.
import type { Command } from "commander";
import { CARD_KINDS, type CardKind } from "../core/profile.js";
import type { Abi } from "../pstore/decode.js";
import { UsageError } from "./output.js";
import { parseTime, type RecordTime } from "./time.js";

/** Where the area is, and how it is laid out; sizes and offsets in bytes. */
export interface ImageOptions {
  partition?: string;
  offset?: number;
  size?: number;
  kmsgSize?: number;
  pmsgSize?: number;
  consoleSize?: number;
  ftraceSize?: number;
  cpus?: number;
  abi?: Abi;
  /** ms */
  timeout?: number;
}

/** What `--card` takes, and how each is called. */
export const CARDS = Object.keys(CARD_KINDS) as CardKind[];
export const CARD_NAMES: Record<CardKind, string> = {
  emmc: "eMMC",
  sd: "SD card",
  sdsc: "SDSC card",
  sdxc: "SDXC card",
};

const UNITS: Record<string, number> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };
const SECTOR_BYTES = 512;
/** Linux rounds every zone size down to this, and takes a wrong one for a mistake. */
const ZONE_GRANULE_BYTES = 4096;
export const AREA_BYTES_MIN = 4096;
/** Linux's largest CONFIG_NR_CPUS. */
const CPUS_MAX = 8192;
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

export interface SizeRule {
  min: number;
  multipleOf: number;
  max?: number;
}

/** Reads `65536`, `64K`, `64KiB`, `1M`, `1G`. */
export function parseSize(option: string, text: string, rule: SizeRule): number {
  const match = /^(\d+)(?:([KMGT])(?:iB)?)?$/i.exec(text.trim());
  const value = match === null ? Number.NaN : Number(match[1]) * (UNITS[(match[2] ?? "").toUpperCase()] ?? 1);
  if (!Number.isSafeInteger(value)) {
    throw new UsageError(`${option} ${text}: is no size; write 65536, 64K or 1M`);
  }
  if (value < rule.min) throw new UsageError(`${option} ${text}: must be at least ${rule.min}`);
  if (value % rule.multipleOf !== 0) {
    throw new UsageError(`${option} ${text}: must be a multiple of ${rule.multipleOf}`);
  }
  if (rule.max !== undefined && value > rule.max) {
    throw new UsageError(`${option} ${text}: must be at most ${rule.max}`);
  }
  return value;
}

/** Reads `4096` or `0x1000`, below 2^64. */
export function parseAddress(option: string, text: string): bigint {
  const value = /^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text) ? BigInt(text) : 1n << 64n;
  if (value >> 64n !== 0n)
    throw new UsageError(`${option} ${text}: is no 64-bit number; write 4096 or 0x1000`);
  return value;
}

/** One of `choices`, which are lower case; case does not matter. */
export function parseChoice<T extends string>(option: string, text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text.toLowerCase());
  if (found === undefined) throw new UsageError(`${option} ${text}: is not one of ${choices.join(", ")}`);
  return found;
}

/** A whole number from 1 to `most`. */
export function parseCount(option: string, text: string, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > most) throw new UsageError(`${option} ${text}: must be 1 to ${most}`);
  return value;
}

function parseTimeout(text: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > TIMEOUT_MAX_MS) {
    throw new UsageError(`--timeout ${text}: must be 1 to ${TIMEOUT_MAX_MS} milliseconds`);
  }
  return value;
}

/** `--time`: ISO 8601, or seconds since 1970. */
export function parseTimeOption(text: string): RecordTime {
  const time = parseTime(text);
  if (time === null) {
    throw new UsageError(
      `--time ${text}: is no time; write 2024-01-12T21:44:35.5Z or seconds since 1970, not before`,
    );
  }
  return time;
}

/** `--partition`, `--offset` and `--size`: where the area is. */
export function addAreaOptions(
  command: Command,
  sizeHelp = "bytes of the area",
  sizeGranuleBytes = SECTOR_BYTES,
): Command {
  return command
    .option("--partition <which>", "the partition with the area: number, GPT name or PARTUUID", (text) => {
      if (text === "") throw new UsageError("--partition: is empty");
      return text;
    })
    .option("--offset <bytes>", "where the area begins, instead of --partition", (text) =>
      parseSize("--offset", text, { min: 0, multipleOf: SECTOR_BYTES }),
    )
    .option("--size <bytes>", sizeHelp, (text) =>
      parseSize("--size", text, { min: AREA_BYTES_MIN, multipleOf: sizeGranuleBytes }),
    );
}

/** `--kmsg-size` and the others: how the area is laid out. */
export function addGeometryOptions(command: Command): Command {
  const ring = { min: 0, multipleOf: ZONE_GRANULE_BYTES };
  return command
    .option("--kmsg-size <bytes>", "size of a kmsg zone (a crash log)", (text) =>
      parseSize("--kmsg-size", text, { min: ZONE_GRANULE_BYTES, multipleOf: ZONE_GRANULE_BYTES }),
    )
    .option("--pmsg-size <bytes>", "size of the pmsg zone (user space), 0 for none", (text) =>
      parseSize("--pmsg-size", text, ring),
    )
    .option("--console-size <bytes>", "size of the console zone, 0 for none", (text) =>
      parseSize("--console-size", text, ring),
    )
    .option("--ftrace-size <bytes>", "size of the ftrace zones together, 0 for none", (text) =>
      parseSize("--ftrace-size", text, ring),
    )
    .option("--cpus <count>", "CPUs that share the ftrace zones (found from the records)", (text) =>
      parseCount("--cpus", text, CPUS_MAX),
    )
    .option("--abi <abi>", "header layout: lp64 (64-bit and arm) or i386", (text) =>
      parseChoice("--abi", text, ["lp64", "i386"] as const),
    );
}

/** `--force` of every command that writes to IMAGE. */
export function addForceOption(command: Command): Command {
  return command.option("--force", "write even over what is no zone and no dump");
}

/** `--timeout` of an IMAGE that may be a URL. */
export function addTimeoutOption(command: Command): Command {
  return command.option("--timeout <ms>", "longest wait for one HTTP answer (30000)", parseTimeout);
}

/** All options of a command that only reads IMAGE. */
export function addImageOptions(command: Command): Command {
  return addTimeoutOption(addGeometryOptions(addAreaOptions(command)));
}

/** The help text about IMAGE, for commands that read (`write` false) or change it. */
export function imageHelp(write: boolean): string {
  const kinds = write
    ? "IMAGE is a raw disk image or a block device; gzip files and URLs are read-only."
    : "IMAGE is a raw disk image, a block device, a gzip file, or an http(s) URL.";
  return `
${kinds}
The pstore area is found: without a partition table it is the whole image, otherwise the partition that
holds zones or is named pstore. Zone sizes are found from the records. Sizes: 65536, 64K, 1M.
${
  write
    ? "What is no zone (a file system, another image format) is refused before anything is written, unless --force.\n"
    : ""
}`;
}

/** Refuses what contradicts itself, before anything is opened. */
export function checkImageOptions(options: ImageOptions): void {
  if (options.partition === undefined) return;
  for (const name of ["offset", "size"] as const) {
    if (options[name] !== undefined) {
      throw new UsageError(`--partition ${options.partition}: cannot be combined with --${name}`);
    }
  }
}
