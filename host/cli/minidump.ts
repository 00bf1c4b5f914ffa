// `mmcpstore minidump ls|extract IMAGE`: Qualcomm's Minidump in a memory image. Reads IMAGE only; what is written lies
// in one folder, under names that nothing in the image can lead out of it, or is one ELF core.
import type { Command } from "commander";
import type { DumpPlan } from "../dump/dump.js";
import {
  MINIDUMP_SUBSYSTEMS_MAX,
  type Minidump,
  type MinidumpRegion,
  minidumpTagName,
  readMinidump,
} from "../dump/minidump.js";
import { minidumpCore } from "../dump/minidump-core.js";
import { escapeName } from "../dump/sahara.js";
import { MmcError } from "../errors.js";
import { checkRaw, whyNothing } from "../image/judge.js";
import { isGzip, openRaw, type RawImage } from "../image/raw.js";
import { HEAD_BYTES } from "../image/signatures.js";
import { loadCore } from "../node.js";
import { DumpFolder, type RegionInFile, storeRegions } from "./dump-store.js";
import { parseAddress } from "./options.js";
import { color, counted, formatJson, formatTable, UsageError, write } from "./output.js";
import { makeProgress } from "./progress.js";
import { parseCount } from "./sahara-collect.js";
import { exists, makeWholeFile, SparseWriter } from "./whole-file.js";

const CHUNK_BYTES = 1 << 20;

interface PlaceOptions {
  smem?: number;
  toc?: number;
  subsystems?: number;
  base?: bigint;
  subsystem?: number;
  notReady?: boolean;
  json?: boolean;
}

interface ExtractOptions extends PlaceOptions {
  elf?: string;
  machine?: number;
}

function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}

/** Opens IMAGE and reads its tables; every error names the image. */
async function withMinidump(
  path: string,
  options: PlaceOptions,
  work: (minidump: Minidump, image: RawImage) => Promise<void>,
): Promise<void> {
  if (options.toc !== undefined && options.smem !== undefined) {
    throw new UsageError("--toc: the ToC is where it is, leave out --smem");
  }
  if (options.subsystems !== undefined && options.toc === undefined) {
    throw new UsageError("--subsystems: only with --toc, the SMEM says how many");
  }
  const image = openRaw(path, { writable: false });
  try {
    if (isGzip(image)) throw new MmcError("EINVAL", `${path}: is gzip-compressed, gunzip it first`);
    await checkRaw(image);
    const minidump = await readKnown(path, image, options);
    const { subsystem } = options;
    if (subsystem !== undefined && minidump.subsystems[subsystem] === undefined) {
      const count = counted(minidump.subsystems.length, "subsystem");
      throw new MmcError("ENOENT", `${path}: has ${count}, none is number ${subsystem}`);
    }
    await work(minidump, image);
  } finally {
    image.closeSync();
  }
}

/** @throws MmcError as readMinidump(); EMEDIUMTYPE where the file plainly is something else */
async function readKnown(path: string, image: RawImage, options: PlaceOptions): Promise<Minidump> {
  try {
    return readNamed(path, image, options);
  } catch (error) {
    if (!(error instanceof MmcError) || error.code !== "ENODATA") throw error;
    const head = await image.read(0, Math.min(HEAD_BYTES, image.sizeBytes));
    const why = await whyNothing(image, 0, head, "holds no Minidump tables");
    throw why?.code === "EMEDIUMTYPE" ? why : error;
  }
}

function readNamed(path: string, image: RawImage, options: PlaceOptions): Minidump {
  const { base, smem, toc, subsystems, notReady } = options;
  const progress = makeProgress("searching");
  const readSync = (offset: number, target: Uint8Array) => {
    image.readSync(offset, target);
    progress.onProgress(offset + target.length, image.sizeBytes);
  };
  try {
    const source = { sizeBytes: image.sizeBytes, readSync };
    return readMinidump(source, { base, smem, toc, subsystems, takesNotReady: notReady });
  } catch (error) {
    if (!(error instanceof MmcError) || error.message.startsWith(path)) throw error;
    const isLost = error.code === "ENODATA" && toc === undefined && smem === undefined;
    const advice = isLost ? "; --smem or --toc says where it is" : "";
    throw new MmcError(error.code, `${path}: ${error.message}${advice}`, { cause: error });
  } finally {
    progress.stop();
  }
}

/** Of the subsystem that is asked for, or all. */
function regionsOf(minidump: Minidump, { subsystem }: PlaceOptions): MinidumpRegion[] {
  return minidump.regions.filter((one) => subsystem === undefined || one.subsystem === subsystem);
}

/** As firmware names the file: `md_KELF1.BIN`. */
function fileName({ name, sequence }: MinidumpRegion): string {
  return `md_${name}${sequence === 0 ? "" : sequence}.BIN`;
}

function colorOf(state: string): string {
  if (state === "ok" || state === "ready" || state === "complete") return color.green(state);
  return state === "invalid" || state === "off" ? color.dim(state) : color.red(state);
}

function encryptionOf({ encryptionRequired, encryptionStatus }: Minidump["subsystems"][number]): string {
  return `${minidumpTagName(encryptionRequired)} ${minidumpTagName(encryptionStatus)}`;
}

function listJson(minidump: Minidump, regions: MinidumpRegion[]): object {
  const { tocOffset, base, status, revision, enabled, problems } = minidump;
  return {
    tocOffset,
    base: hex(base),
    status,
    revision,
    enabled,
    subsystems: minidump.subsystems.map((one) => ({
      ...one,
      enabled: minidumpTagName(one.enabled),
      encryptionStatus: minidumpTagName(one.encryptionStatus),
      encryptionRequired: minidumpTagName(one.encryptionRequired),
      address: hex(one.address),
    })),
    regions: regions.map((one) => ({
      ...one,
      name: escapeName(one.name),
      valid: minidumpTagName(one.valid),
      address: hex(one.address),
    })),
    problems,
  };
}

async function ls(path: string, options: PlaceOptions): Promise<void> {
  await withMinidump(path, options, async (minidump) => {
    const regions = regionsOf(minidump, options);
    if (options.json) {
      await write(formatJson(listJson(minidump, regions)));
      return;
    }
    const subsystems = minidump.subsystems
      .filter(({ index, status }) => status !== 0 && (options.subsystem ?? index) === index)
      .map((one) => [
        String(one.index),
        colorOf(one.state),
        minidumpTagName(one.enabled),
        encryptionOf(one),
        String(one.regionCount),
        hex(one.address),
        one.why,
      ]);
    if (subsystems.length > 0) {
      const head = ["SUBSYSTEM", "STATE", "ENABLED", "ENCRYPTION", "REGIONS", "ARRAY", ""];
      await write(formatTable(head, subsystems, [0, 4]));
    }
    if (regions.length > 0) {
      const rows = regions.map((one) => [
        String(one.subsystem),
        escapeName(one.name) || "-",
        String(one.sequence),
        hex(one.address),
        String(one.lengthBytes),
        minidumpTagName(one.valid),
        colorOf(one.state),
        one.why || (one.overlaps ? "overlaps another" : ""),
      ]);
      const head = ["SUBSYSTEM", "NAME", "SEQ", "ADDRESS", "SIZE", "VALID", "STATE", ""];
      await write(formatTable(head, rows, [0, 2, 3, 4]));
    }
    for (const line of minidump.problems) await write(`${line}\n`);
    const { tocOffset, base, revision } = minidump;
    const where = `ToC at ${hex(tocOffset)} of an image at ${hex(base)}, revision ${revision}`;
    await write(color.dim(`${where}, ${counted(regions.length, "region")}\n`));
  });
}

/** What is wanted and is not all there, in one line; empty: nothing. */
function lackOf(minidump: Minidump, regions: MinidumpRegion[], { subsystem }: PlaceOptions): string {
  const lost = regions.filter(({ state }) => state !== "ok").length;
  const broken = minidump.subsystems.filter(
    ({ index, state }) => state === "broken" && (subsystem ?? index) === index,
  );
  const parts = [
    ...(lost > 0 ? [`${lost} of ${counted(regions.length, "region")} are not whole`] : []),
    ...broken.map(({ index, why }) => `subsystem ${index}: ${why}`),
  ];
  return parts.join(", ");
}

function inFile(region: MinidumpRegion): RegionInFile {
  const { address, lengthBytes, offset, presentBytes, why, overlaps } = region;
  const description = `subsystem-${region.subsystem}`;
  const name = fileName(region);
  return {
    type: 1n,
    address,
    lengthBytes,
    description,
    name,
    offset,
    storedBytes: presentBytes,
    why,
    overlaps,
  };
}

/** Streams the core into `fd`; returns what could not be read. */
function writeCore(plan: DumpPlan, fd: number): string {
  const progress = makeProgress("writing");
  try {
    const file = new SparseWriter(fd);
    const chunk = new Uint8Array(Math.min(CHUNK_BYTES, plan.sizeBytes));
    for (let at = 0; at < plan.sizeBytes; ) {
      const count = plan.readInto(at, chunk);
      file.write(chunk.subarray(0, count));
      at += count;
      progress.onProgress(at, plan.sizeBytes);
    }
    file.end();
  } finally {
    progress.stop();
  }
  const lost = plan.failures().reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  return lost > 0 ? `${counted(lost, "byte")} could not be read and are 0xff` : "";
}

async function extract(path: string, folder: string | undefined, options: ExtractOptions): Promise<void> {
  const { elf } = options;
  if (folder === undefined && elf === undefined)
    throw new UsageError("say a folder for the regions, or --elf FILE");
  if (options.machine !== undefined && elf === undefined) throw new UsageError("--machine: only with --elf");
  await withMinidump(path, options, async (minidump, image) => {
    // A region without its tag is none, and nobody misses it.
    const regions = regionsOf(minidump, options).filter(({ state }) => state !== "invalid");
    // Regions may all point at the same bytes: what they would take together is judged before anything is written.
    const totalBytes = regions.reduce((sum, { presentBytes }) => sum + presentBytes, 0);
    if (totalBytes > image.sizeBytes) {
      throw new MmcError("EFBIG", `${path}: its regions share bytes and would take ${totalBytes} together`);
    }
    const lacks = lackOf(minidump, regions, options);
    if (totalBytes === 0) {
      throw new MmcError("ENODATA", `${path}: has no region that could be had${lacks && `: ${lacks}`}`);
    }
    if (elf !== undefined && exists(elf)) throw new MmcError("EEXIST", `${elf}: exists already`);
    const plan =
      elf === undefined
        ? null
        : minidumpCore(loadCore("release"), image, { regions }, options.machine).plan();
    let manifest: object | null = null;
    if (folder !== undefined) {
      const head = {
        format: "mmcpstore-minidump-1",
        base: hex(minidump.base),
        tocOffset: minidump.tocOffset,
      };
      const read = (offset: number, count: number) => {
        const bytes = new Uint8Array(count);
        image.readSync(offset, bytes);
        return bytes;
      };
      const stored = storeRegions(new DumpFolder(folder, null, head), head, regions.map(inFile), read, lacks);
      if (stored.failure !== null) throw stored.failure;
      manifest = stored.manifest;
    }
    let unread = "";
    if (elf !== undefined && plan !== null) {
      makeWholeFile(elf, (fd) => {
        unread = writeCore(plan, fd);
      });
    }
    if (options.json) await write(formatJson(manifest ?? listJson(minidump, regions)));
    else await write(reportOf(regions, [folder, elf]));
    const why = [lacks, unread].filter((one) => one !== "").join(", ");
    if (why !== "") throw new MmcError("ENODATA", `${path}: the dump is partial: ${why}`);
  });
}

function reportOf(regions: MinidumpRegion[], targets: (string | undefined)[]): string {
  const rows = regions.map((one) => [
    String(one.subsystem),
    escapeName(fileName(one)),
    hex(one.address),
    String(one.presentBytes),
    colorOf(one.state),
    one.why || (one.overlaps ? "overlaps another" : ""),
  ]);
  const count = counted(regions.filter(({ presentBytes }) => presentBytes > 0).length, "region");
  const where = targets.filter((one) => one !== undefined).join(" and ");
  const head = ["SUBSYSTEM", "NAME", "ADDRESS", "SIZE", "STATE", ""];
  return `${formatTable(head, rows, [0, 2, 3])}${color.dim(`${count} in ${where}`)}\n`;
}

/** An offset of the image. */
function parseOffset(option: string, text: string): number {
  const value = Number(parseAddress(option, text));
  if (!Number.isSafeInteger(value)) throw new UsageError(`${option} ${text}: is beyond 2^53`);
  return value;
}

function addPlaceOptions(command: Command): Command {
  return command
    .option("--smem <offset>", "where the shared memory (SMEM) begins in IMAGE (searched for)", (text) =>
      parseOffset("--smem", text),
    )
    .option("--toc <offset>", "where the global ToC begins in IMAGE, instead of in an SMEM", (text) =>
      parseOffset("--toc", text),
    )
    .option("--subsystems <n>", "how many subsystems that ToC has (10)", (text) =>
      parseCount("--subsystems", text, 1, MINIDUMP_SUBSYSTEMS_MAX),
    )
    .option("--base <address>", "physical address of IMAGE's first byte (as the SMEM says, or 0)", (text) =>
      parseAddress("--base", text),
    )
    .option("--subsystem <n>", "only this one; 0 is Linux", (text) =>
      parseCount("--subsystem", text, 0, MINIDUMP_SUBSYSTEMS_MAX - 1),
    )
    .option("--not-ready", "take regions of subsystems whose encryption is not done");
}

export function addMinidump(program: Command): void {
  const minidump = program
    .command("minidump")
    .summary("list and extract Qualcomm's Minidump from a memory image")
    .description(
      "Read the tables of Qualcomm's Minidump in a memory image, and take out the regions they name.",
    )
    .action(() => {
      throw new UsageError("minidump: say ls or extract");
    });
  addPlaceOptions(
    minidump
      .command("ls")
      .description("List subsystems and regions, with everything that is wrong with them.")
      .argument("<image>", "a memory image: a file or a block device"),
  )
    .option("--json", "print JSON instead of tables")
    .action(ls);
  addPlaceOptions(
    minidump
      .command("extract")
      .description("Write the regions to files in DIR with a manifest.json, to one ELF core, or to both.")
      .argument("<image>", "a memory image: a file or a block device")
      .argument("[dir]", "folder for the regions and manifest.json; made, or empty"),
  )
    .option("--elf <file>", "one ELF64 core of all of them")
    .option(
      "--machine <number>",
      "e_machine of the core (as the region KELF says, or 183, AArch64)",
      (text) => parseCount("--machine", text, 0, 65535),
    )
    .option("--json", "print the manifest, or without DIR the list, instead of a table")
    .addHelpText(
      "after",
      `
Files are named as firmware names them, behind a number: 00-md_KELF1.BIN. Names come from the image and are made safe.
Regions whose tag is not VALI are left out. Of a region that IMAGE has a part of, that part is kept; if anything is
missing, the exit code is 1 and everything else is there.`,
    )
    .action(extract);
  minidump.addHelpText(
    "after",
    `
Offsets and addresses: 4096 or 0x1000.

Examples:
  mmcpstore minidump ls ddr.bin
  mmcpstore minidump ls ddr.bin --toc 0x1f00a0 --base 0x80000000
  mmcpstore minidump extract ddr.bin regions/ --elf minidump.elf`,
  );
}
