// The crash dump of `mmcpstore panic`: its options, the files that its regions are, and what became of it on the image.
// Must never let a dump area be written over that holds something else than dumps.
import type { Command } from "commander";
import type { PanicDumpResult } from "../core/result.js";
import { codeOf } from "../core/status.js";
import { formatNs } from "../core/trace.js";
import type { PanicDumpOptions } from "../device-options.js";
import {
  type CardDump,
  DUMP_AREA_BYTES_MIN,
  DUMP_HEADER_BYTES,
  decodeDumpArea,
  dumpBackOffset,
} from "../dump/dump-area.js";
import { machineOf, type NoteMachine } from "../dump/notes.js";
import type { Region } from "../dump/region-table.js";
import { MmcError } from "../errors.js";
import type { Image } from "../image/contract.js";
import { checkDumpArea, foreignEnds } from "../image/judge.js";
import { findPartition, readPartitionTable } from "../image/partitions.js";
import { openRaw, type RawImage } from "../image/raw.js";
import { crc32c } from "../pstore/crc32c.js";
import { piecesOf } from "./core-source.js";
import { parseChoice, parseSize } from "./options.js";
import { color, counted, rememberGiven, UsageError } from "./output.js";

const SECTOR_BYTES = 512;
const MACHINES = ["x86-64", "aarch64", "i386", "arm"] as const satisfies readonly NoteMachine[];
/** More than the headers and notes of a core of 1260 regions take. */
const CORE_HEAD_BYTES_MAX = 2 ** 18;

/** A region that a file's bytes are. */
interface RegionFile {
  name: string;
  path: string;
  address: bigint;
}

/** Where the dump area is: a range, or a partition by number, label or PARTUUID. */
type DumpAreaOption = { offset: number; sizeBytes: number } | { partition: string };

export interface PanicDumpPathOptions {
  dumpArea?: DumpAreaOption;
  dumpRegion?: RegionFile[];
  dumpMachine?: NoteMachine;
}

function parseDumpArea(text: string): DumpAreaOption {
  const option = "--dump-area";
  if (text === "") throw new UsageError(`${option}: is empty`);
  const [, offset, size] = /^(\d+\w*):(\d+\w*)$/.exec(text) ?? [];
  if (offset === undefined || size === undefined) return { partition: text };
  const area = {
    offset: parseSize(option, offset, { min: 0, multipleOf: SECTOR_BYTES }),
    sizeBytes: parseSize(option, size, { min: DUMP_AREA_BYTES_MIN, multipleOf: SECTOR_BYTES }),
  };
  rememberGiven(option, `${area.offset}:${area.sizeBytes}`, text);
  return area;
}

function parseDumpRegion(text: string, before: RegionFile[] = []): RegionFile[] {
  const [, name, path, address] = /^([^=]*)=(.+)@(0x[0-9a-f]+|\d+)$/is.exec(text) ?? [];
  if (name === undefined || path === undefined || path === "-" || address === undefined) {
    throw new UsageError(`--dump-region ${text}: write NAME=FILE@ADDRESS, as in ram=ram.bin@0x80000000`);
  }
  return [...before, { name, path, address: BigInt(address) }];
}

/** `--dump-area`, `--dump-region` and `--dump-machine`. */
export function addPanicDumpOptions(command: Command): Command {
  return command
    .optionsGroup("Crash dump:")
    .option(
      "--dump-area <where>",
      "where to store a crash dump: OFFSET:SIZE, or a partition's number, GPT name or PARTUUID",
      parseDumpArea,
    )
    .option(
      "--dump-region <name=file@address>",
      "what to dump: the bytes of a file, as memory at that address; once for each region",
      parseDumpRegion,
    )
    .option("--dump-machine <machine>", `of the ELF core: ${MACHINES.join(", ")} (x86-64)`, (text) =>
      parseChoice("--dump-machine", text, MACHINES),
    );
}

/** Refuses options that contradict each other, before anything is opened. */
export function checkPanicDumpOptions({ dumpArea, dumpRegion, dumpMachine }: PanicDumpPathOptions): void {
  if (dumpArea === undefined && (dumpRegion !== undefined || dumpMachine !== undefined)) {
    throw new UsageError(`--dump-${dumpRegion ? "region" : "machine"}: needs --dump-area`);
  }
  if (dumpArea !== undefined && dumpRegion === undefined) {
    throw new UsageError("--dump-area: nothing to dump, give --dump-region too");
  }
}

/** What a panic write is to dump, and where. */
export class PanicDump {
  readonly regions: Region[] = [];
  readonly #area: DumpAreaOption;
  readonly #machine: NoteMachine;
  readonly #files: RawImage[] = [];
  /** Ranges of the image. */
  #foreign: { offset: number; sizeBytes: number }[] = [];

  private constructor(area: DumpAreaOption, machine: NoteMachine) {
    this.#area = area;
    this.#machine = machine;
  }

  /** Opens the regions' files. null: no dump is asked for. @throws MmcError ENOENT, EACCES, EINVAL (empty) of a file */
  static open({ dumpArea, dumpRegion = [], dumpMachine = "x86-64" }: PanicDumpPathOptions): PanicDump | null {
    if (dumpArea === undefined) return null;
    const dump = new PanicDump(dumpArea, dumpMachine);
    try {
      for (const one of dumpRegion) dump.#add(one);
    } catch (error) {
      dump.close();
      throw error;
    }
    return dump;
  }

  #add({ name, path, address }: RegionFile): void {
    const file = openRaw(path, { writable: false });
    this.#files.push(file);
    const source = (offset: number, target: Uint8Array) => file.readSync(offset, target);
    this.regions.push({ name, address, size: file.sizeBytes, source });
  }

  /**
   * Finds the area on the image, and what a device has to be told.
   * @throws MmcError EUCLEAN the area holds something else, unless `force`; ENOENT, EINVAL no such area
   */
  async place(image: RawImage, force: boolean): Promise<PanicDumpOptions> {
    const area = await findArea(image, this.#area);
    const dumpBytes = this.regions.reduce((sum, { size }) => sum + Number(size), 0) + CORE_HEAD_BYTES_MAX;
    try {
      await checkDumpArea(image, area, dumpBytes);
    } catch (error) {
      if (!force || !(error instanceof MmcError) || error.code !== "EUCLEAN") throw error;
      this.#foreign = (await foreignEnds(image, area)).map((one) => {
        return { offset: area.offset + one.offset, sizeBytes: one.sizeBytes };
      });
    }
    const is64 = this.#machine === "x86-64" || this.#machine === "aarch64";
    return {
      class: is64 ? 64 : 32,
      machine: machineOf(this.#machine),
      capacity: Math.max(1, this.regions.length),
      area,
    };
  }

  /** What --force gives up goes, when nothing is left that could be refused: it would be in the next panic's way. */
  clearForeign(image: RawImage): void {
    if (this.#foreign.length === 0) return;
    for (const { offset, sizeBytes } of this.#foreign) image.writeSync(offset, new Uint8Array(sizeBytes));
    image.syncSync();
  }

  close(): void {
    for (const file of this.#files) file.closeSync();
  }
}

/** What the image has of the dump. @throws MmcError EIO if that is not what the core has said of it. */
export async function checkDump(
  image: Image,
  area: PanicDumpOptions["area"],
  result: PanicDumpResult,
): Promise<CardDump | null> {
  if (result.state !== "complete" && result.state !== "partial") return null;
  const dump = (await readDumps(image, area)).find(({ sequence }) => sequence === result.sequence);
  let crc = 0;
  if (dump?.state === result.state && dump.storedBytes === result.storedBytes) {
    const pieces = piecesOf(image, area.offset + dump.dataOffset, dump.storedBytes);
    for await (const piece of pieces) crc = crc32c(piece, 0, piece.length, crc);
    if (crc === dump.dataCrc) return dump;
  }
  const where = `${area.sizeBytes} bytes at ${area.offset}`;
  throw new MmcError("EIO", `${image.name}: the dump area of ${where} does not hold what was written`);
}

async function findArea(image: Image, option: DumpAreaOption): Promise<PanicDumpOptions["area"]> {
  if ("offset" in option) {
    if (option.offset + option.sizeBytes <= image.sizeBytes) return option;
    throw new MmcError(
      "EINVAL",
      `--dump-area ${option.offset}:${option.sizeBytes}: reaches beyond the end of ${image.name}, ` +
        `which has ${image.sizeBytes} bytes`,
    );
  }
  const { partitions } = await readPartitionTable(image);
  const { offset, sizeBytes, number } = findPartition(partitions, option.partition, "--dump-area");
  if (offset + sizeBytes > image.sizeBytes || sizeBytes < DUMP_AREA_BYTES_MIN) {
    throw new MmcError(
      "EINVAL",
      `--dump-area ${option.partition}: partition ${number} has ${sizeBytes} bytes at ${offset} of an image of ` +
        `${image.sizeBytes}; a dump area has at least ${DUMP_AREA_BYTES_MIN}`,
    );
  }
  return { offset, sizeBytes };
}

async function readDumps(image: Image, { offset, sizeBytes }: PanicDumpOptions["area"]): Promise<CardDump[]> {
  const front = await image.read(offset, DUMP_HEADER_BYTES);
  const back = await image.read(offset + dumpBackOffset(sizeBytes), DUMP_HEADER_BYTES);
  return decodeDumpArea(front, back, sizeBytes);
}

/** What became of the dump, in a line. */
export function describeDump(result: PanicDumpResult, dump: CardDump | null, startNs: bigint): string {
  const { state, sequence, storedBytes, lengthBytes, failedRanges, failedBytes, endNs, status } = result;
  if (dump === null) return `no crash dump: ${codeOf(status)}${state === "begun" ? ", it was begun" : ""}\n`;
  const bytes =
    state === "complete" ? counted(storedBytes, "byte") : `${storedBytes} of ${lengthBytes} bytes`;
  const why = state === "complete" ? "" : ` (${codeOf(status)})`;
  const failed =
    failedRanges === 0
      ? ""
      : `, ${failedBytes} of them in ${counted(failedRanges, "range")} could not be read`;
  return (
    `${color.bold(`dump ${sequence}`)}: ${state}${why}, ${bytes}${failed}, at the ${dump.slot} of its area, ` +
    `durable after ${formatNs(endNs - startNs)}\n`
  );
}
