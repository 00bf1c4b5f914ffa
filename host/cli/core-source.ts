// Where `mmcpstore core` finds a core: a file that is one, or a dump in the dump area of a card's image; raw, packed or
// behind a URL. Must never choose between two partitions, and never hold more of a core than its headers.
import type { Command } from "commander";
import {
  bestDump,
  type CardDump,
  DUMP_AREA_BYTES_MIN,
  DUMP_HEADER_BYTES,
  decodeDumpArea,
  dumpAreaBytesOf,
  dumpBackOffset,
  hasDumpMagic,
} from "../dump/dump-area.js";
import { type ElfCore, type ElfSource, readElfCore } from "../dump/elf.js";
import { MmcError } from "../errors.js";
import { type Image, openImage } from "../image/image.js";
import { checkRaw, whyNothing } from "../image/judge.js";
import { findPartition, listPartitions, type Partition, readPartitionTable } from "../image/partitions.js";
import { openRaw, RawImage } from "../image/raw.js";
import {
  addAreaOptions,
  addTimeoutOption,
  checkImageOptions,
  type ImageOptions,
  parseChoice,
} from "./options.js";
import { makeProgress } from "./progress.js";

const ELF_MAGIC = [0x7f, 0x45, 0x4c, 0x46];
const CHUNK_BYTES = 1 << 20;
/** Headers and notes of a core that is no local file are kept in memory, in blocks of a MiB. */
const BLOCKS_MAX = 64;

export type DumpSlot = CardDump["slot"];

export interface CoreSourceOptions extends Pick<ImageOptions, "partition" | "offset" | "size" | "timeout"> {
  dump?: DumpSlot;
}

export interface CoreSource {
  image: Image;
  /** Of the core's first byte in the image. */
  offset: number;
  /** How much of the core is there. */
  sizeBytes: number;
  /** The dump that the core is; null: the image is the core itself. */
  dump: CardDump | null;
  /** All in the area. */
  dumps: CardDump[];
  /** null: the area has nothing that could be read. */
  core: ElfCore | null;
}

/** Bytes `[offset, offset + sizeBytes)` of an image. */
export interface Range {
  offset: number;
  sizeBytes: number;
}

export function parseDumpSlot(text: string): DumpSlot {
  return parseChoice("--dump", text, ["front", "back"] as const);
}

/** `--partition`, `--offset`, `--size`, `--dump` and `--timeout`. */
export function addCoreSourceOptions(command: Command): Command {
  return addTimeoutOption(addAreaOptions(command, "bytes of the dump area")).option(
    "--dump <which>",
    "front or back: where in the area the dump is; else the newest complete one, or the newest",
    parseDumpSlot,
  );
}

/** Opens `location`, finds the core, reads its headers, and closes it behind `work`. */
export async function withCoreSource(
  location: string,
  options: CoreSourceOptions,
  work: (source: CoreSource) => Promise<void>,
): Promise<void> {
  checkImageOptions(options);
  const progress = makeProgress("reading");
  try {
    const image = await openImage(location, { timeoutMs: options.timeout, onProgress: progress.onProgress });
    try {
      const source = await findCore(image, options);
      progress.stop();
      await work(source);
    } finally {
      await image.close();
    }
  } finally {
    progress.stop();
  }
}

/** Opens the raw image `location` for writing, finds its dump area, and closes it behind `work`. */
export async function withWritableDumps(
  location: string,
  options: CoreSourceOptions & { force?: boolean },
  work: (opened: { image: RawImage; area: Range; dumps: CardDump[] }) => Promise<void>,
): Promise<void> {
  checkImageOptions(options);
  const image = openRaw(location, { writable: true });
  try {
    if (!options.force) await checkRaw(image);
    const area = await findDumpArea(image, options);
    await work({ image, area, dumps: await readDumps(image, area) });
  } finally {
    image.closeSync();
  }
}

/** `sizeBytes` of an image, in pieces. */
export async function* piecesOf(
  image: Image,
  offset: number,
  sizeBytes: number,
  what?: string,
): AsyncGenerator<Uint8Array> {
  const progress = what === undefined ? null : makeProgress(what);
  try {
    for (let done = 0; done < sizeBytes; done += CHUNK_BYTES) {
      yield await image.read(offset + done, Math.min(CHUNK_BYTES, sizeBytes - done));
      progress?.onProgress(Math.min(done + CHUNK_BYTES, sizeBytes), sizeBytes);
    }
  } finally {
    progress?.stop();
  }
}

async function isElf(image: Image): Promise<boolean> {
  const head = await image.read(0, Math.min(4, image.sizeBytes));
  return ELF_MAGIC.every((byte, i) => head[i] === byte);
}

async function findCore(image: Image, options: CoreSourceOptions): Promise<CoreSource> {
  const { partition, offset, size, dump: slot } = options;
  if (offset === undefined && size === undefined) await checkRaw(image, image.bytesFetched === 0);
  const isAreaGiven = [partition, offset, size, slot].some((one) => one !== undefined);
  if (!isAreaGiven && (await isElf(image))) {
    const range = { offset: 0, sizeBytes: image.sizeBytes };
    return { image, ...range, dump: null, dumps: [], core: await readHeaders(image, range, image.name) };
  }
  const area = await findDumpArea(image, options);
  const dumps = dumpsToShow(image, area, await readDumps(image, area));
  const isIt = (one: CardDump) => one.slot === slot && one.state !== "removed";
  const dump = slot === undefined ? bestDump(dumps) : dumps.find(isIt);
  if (slot !== undefined && dump === undefined) {
    throw new MmcError("ENODATA", `--dump ${slot}: ${image.name} has none there`);
  }
  if (dump === undefined || dump.storedBytes === 0) {
    return { image, offset: area.offset, sizeBytes: 0, dump: dump ?? null, dumps, core: null };
  }
  const range = { offset: area.offset + dump.dataOffset, sizeBytes: dump.storedBytes };
  const core = await readHeaders(image, range, `${image.name}: the dump at the ${dump.slot}`);
  return { image, ...range, dump, dumps, core };
}

/** Also those that were removed. @throws MmcError ENODATA there is no dump, nor the rest of one */
async function readDumps(image: Image, area: Range): Promise<CardDump[]> {
  const front = await image.read(area.offset, DUMP_HEADER_BYTES);
  const back = await image.read(area.offset + dumpBackOffset(area.sizeBytes), DUMP_HEADER_BYTES);
  const dumps = decodeDumpArea(front, back, area.sizeBytes);
  if (dumps.length > 0) return dumps;
  throw noDump(image, area);
}

function noDump(image: Image, area: Range, rest = ""): MmcError {
  return new MmcError(
    "ENODATA",
    `${image.name}: no dump in the ${area.sizeBytes} bytes at ${area.offset}, and no ELF core${rest}`,
  );
}

/** Those that are there to be read. @throws MmcError ENODATA all were removed */
function dumpsToShow(image: Image, area: Range, all: CardDump[]): CardDump[] {
  const dumps = all.filter(({ state }) => state !== "wiped");
  if (dumps.some(({ state }) => state !== "removed")) return dumps;
  throw noDump(
    image,
    area,
    dumps.length === 0 ? "" : "; of a removed one the bytes are there: core rm --wipe",
  );
}

async function findDumpArea(image: Image, { partition, offset, size }: CoreSourceOptions): Promise<Range> {
  if (partition !== undefined) {
    const { partitions } = await readPartitionTable(image);
    return partitionArea(image, findPartition(partitions, partition));
  }
  if (offset === undefined && size === undefined) {
    const whole = { offset: 0, sizeBytes: image.sizeBytes };
    if (await looksLikeDumpArea(image, whole)) return whole;
    const found = await partitionsWithDumps(image);
    const [only] = found;
    if (found.length > 1) {
      const list = listPartitions(found);
      throw new MmcError(
        "EINVAL",
        `${image.name}: several partitions hold dumps: ${list}; choose with --partition`,
      );
    }
    if (only !== undefined) return partitionArea(image, only);
    if (!(await isElf(image))) {
      const head = await image.read(0, Math.min(CHUNK_BYTES, image.sizeBytes));
      const why = await whyNothing(image, 0, head, "is no ELF core and begins no dump area");
      if (why !== null && why.code === "EMEDIUMTYPE") throw why;
    }
    throw new MmcError(
      "EINVAL",
      `${image.name}: is ${(await isElf(image)) ? "an" : "no"} ELF core and begins no dump area; ` +
        "--partition or --offset says where one is",
    );
  }
  return givenArea(image, offset ?? 0, size);
}

async function givenArea(image: Image, offset: number, size: number | undefined): Promise<Range> {
  const leftBytes = image.sizeBytes - offset;
  if (leftBytes < DUMP_AREA_BYTES_MIN || (size !== undefined && size > leftBytes)) {
    const what = size === undefined ? `--offset ${offset}: leaves` : `--size ${size}: at ${offset} there are`;
    throw new MmcError(
      "EINVAL",
      `${what} ${Math.max(0, leftBytes)} bytes of ${image.name}, a dump area has at least ${DUMP_AREA_BYTES_MIN}`,
    );
  }
  if (size !== undefined && size < DUMP_AREA_BYTES_MIN) {
    throw new MmcError("EINVAL", `--size ${size}: a dump area has at least ${DUMP_AREA_BYTES_MIN} bytes`);
  }
  // Without a size the first header knows it.
  const said = size ?? dumpAreaBytesOf(await image.read(offset, DUMP_HEADER_BYTES));
  return { offset, sizeBytes: said >= DUMP_AREA_BYTES_MIN && said <= leftBytes ? said : leftBytes };
}

function partitionArea(image: Image, partition: Partition): Range {
  const { offset, sizeBytes } = partition;
  const what = `${image.name}: partition ${listPartitions([partition])}`;
  if (offset + sizeBytes > image.sizeBytes) {
    throw new MmcError("EINVAL", `${what} ends beyond the end, the image is truncated`);
  }
  if (sizeBytes < DUMP_AREA_BYTES_MIN) {
    throw new MmcError(
      "EINVAL",
      `${what} has ${sizeBytes} bytes, a dump area at least ${DUMP_AREA_BYTES_MIN}`,
    );
  }
  return { offset, sizeBytes };
}

/** A header at one of the two places. */
async function looksLikeDumpArea(image: Image, { offset, sizeBytes }: Range): Promise<boolean> {
  if (sizeBytes < DUMP_AREA_BYTES_MIN || offset + sizeBytes > image.sizeBytes) return false;
  if (hasDumpMagic(await image.read(offset, DUMP_HEADER_BYTES))) return true;
  return hasDumpMagic(await image.read(offset + dumpBackOffset(sizeBytes), DUMP_HEADER_BYTES));
}

async function partitionsWithDumps(image: Image): Promise<Partition[]> {
  const { partitions } = await readPartitionTable(image);
  const found: Partition[] = [];
  for (const one of partitions) if (await looksLikeDumpArea(image, one)) found.push(one);
  return found;
}

/** A block of the core that has to be fetched first. */
class Missing extends Error {
  readonly block: number;

  constructor(block: number) {
    super(`block ${block}`);
    this.block = block;
  }
}

/** The headers of a core; `what` names it in errors. */
async function readHeaders(image: Image, { offset, sizeBytes }: Range, what: string): Promise<ElfCore> {
  try {
    if (image instanceof RawImage) {
      return readElfCore({ sizeBytes, readSync: (at, target) => image.readSync(offset + at, target) });
    }
    // The reader is synchronous: what it wants and is not there yet is fetched, and it starts again.
    const blocks = new Map<number, Uint8Array>();
    for (;;) {
      try {
        return readElfCore(sourceOf(blocks, sizeBytes));
      } catch (error) {
        if (!(error instanceof Missing)) throw error;
        if (blocks.size === BLOCKS_MAX) {
          throw new MmcError(
            "EFBIG",
            `its headers and notes lie over more than ${BLOCKS_MAX} MiB, download it first`,
          );
        }
        const from = error.block * CHUNK_BYTES;
        blocks.set(error.block, await image.read(offset + from, Math.min(CHUNK_BYTES, sizeBytes - from)));
      }
    }
  } catch (error) {
    if (!(error instanceof MmcError) || error.message.startsWith(image.name)) throw error;
    throw new MmcError(error.code, `${what}: ${error.message}`, { cause: error });
  }
}

function sourceOf(blocks: ReadonlyMap<number, Uint8Array>, sizeBytes: number): ElfSource {
  return {
    sizeBytes,
    readSync(offset, target) {
      for (let done = 0; done < target.length; ) {
        const at = offset + done;
        const number = Math.floor(at / CHUNK_BYTES);
        const block = blocks.get(number);
        if (block === undefined) throw new Missing(number);
        const part = block.subarray(at % CHUNK_BYTES, (at % CHUNK_BYTES) + target.length - done);
        target.set(part, done);
        done += part.length;
      }
    },
  };
}
