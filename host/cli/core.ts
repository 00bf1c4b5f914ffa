// `mmcpstore core ls|extract|verify`: an ELF core, whoever made it, as a file or in the dump area of a card. Reads
// only; extract writes into one folder, under names of its own that nothing in the file can lead out of it.
import { createHash } from "node:crypto";
import { lstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { codeOf } from "../core/status.js";
import type { CardDump } from "../dump/dump-area.js";
import { type ElfCore, type ElfSegment, PT_LOAD, PT_NOTE } from "../dump/elf.js";
import { ERRNO, MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { openRaw } from "../image/raw.js";
import { crc32c } from "../pstore/crc32c.js";
import { addCoreRm } from "./core-rm.js";
import {
  addCoreSourceOptions,
  type CoreSource,
  type CoreSourceOptions,
  piecesOf,
  withCoreSource,
} from "./core-source.js";
import { makeFolder } from "./folder.js";
import { color, colorState, counted, formatJson, formatTable, UsageError, write } from "./output.js";
import { formatTime } from "./time.js";
import {
  cleanLeftovers,
  exists,
  makeWholeFile,
  makeWholeFileLater,
  SparseWriter,
  writeAll,
} from "./whole-file.js";

const NAME_CHARACTERS_MAX = 60;
const CORE_FILE = "core.elf";
const MANIFEST_FILE = "manifest.json";

interface CoreOptions extends CoreSourceOptions {
  json?: boolean;
  force?: boolean;
}

function typeOf({ type }: ElfSegment): string {
  if (type === PT_LOAD) return "LOAD";
  return type === PT_NOTE ? "NOTE" : `0x${type.toString(16)}`;
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

/** What a terminal may be given of a name in the file. */
function printable(name: string | null): string {
  return (name ?? "").replace(/[^\x21-\x7e]/g, "?");
}

function stateOf({ filesz, presentBytes }: ElfSegment): string {
  if (BigInt(presentBytes) === filesz) return "ok";
  return presentBytes === 0 ? "absent" : "cut";
}

function segmentJson(segment: ElfSegment): object {
  return {
    index: segment.index,
    type: typeOf(segment),
    name: segment.name,
    paddr: hex(segment.paddr),
    vaddr: hex(segment.vaddr),
    flags: segment.flags,
    offset: segment.offset,
    size: segment.filesz,
    memsz: segment.memsz,
    present: segment.presentBytes,
    state: stateOf(segment),
  };
}

function dumpJson(dump: CardDump): object {
  return { ...dump, time: formatTime(dump), reason: reasonOf(dump), dataCrc: hex(BigInt(dump.dataCrc)) };
}

/** Why a dump is not complete; null if it is. */
function reasonOf({ status, state, problem }: CardDump): string | null {
  if (problem !== null) return problem;
  if (state === "torn") return "it was begun and not ended";
  if (state === "removed") return "its bytes are still there: core rm --wipe";
  if (state === "complete") return null;
  if (status === -ERRNO.ETIMEDOUT) return "the deadline came first (ETIMEDOUT)";
  if (status === -ERRNO.ENOSPC) return "there was no more room (ENOSPC)";
  return `the card failed (${codeOf(status)})`;
}

/** Where bytes of the core are, as far as its segments say. */
function placeOf(core: ElfCore, offset: bigint): string {
  const inside = core.segments.find((one) => one.offset <= offset && offset < one.offset + one.filesz);
  if (inside === undefined) return `offset ${hex(offset)}`;
  const name = inside.name === null ? `segment ${inside.index}` : printable(inside.name);
  return `${name}+${hex(offset - inside.offset)}`;
}

/** A line for each range that no source could bring. */
function failedLines(core: ElfCore, dump: CardDump): string[] {
  const lines = dump.failed.map(
    ({ offset, lengthBytes }) =>
      `${placeOf(core, offset)}: ${lengthBytes} bytes are 0xff, their source failed`,
  );
  const more = dump.failedRanges - dump.failed.length;
  if (more > 0) lines.push(`and ${counted(more, "range")} more, ${dump.failedBytes} bytes in all`);
  return lines;
}

function dumpRows(dumps: readonly CardDump[], chosen: CardDump | null): string[][] {
  return dumps.map((dump) => [
    dump === chosen ? "*" : "",
    dump.slot,
    dump.state === "damaged" ? "?" : String(dump.sequence),
    dump.state === "damaged" ? "" : (formatTime(dump) ?? ""),
    dump.state === "damaged" ? "" : `${dump.storedBytes} of ${dump.lengthBytes}`,
    colorState(dump.state),
    reasonOf(dump) ?? "",
  ]);
}

function coreJson(core: ElfCore | null): object {
  return {
    class: core?.class ?? null,
    littleEndian: core?.isLittleEndian ?? null,
    machine: core?.machine ?? null,
    entry: core === null ? null : hex(core.entry),
    segments: core?.segments.map(segmentJson) ?? [],
    notes: core?.notes.map(({ name, type, lengthBytes }) => ({ name, type, size: lengthBytes })) ?? [],
    problems: core?.problems ?? [],
  };
}

/** What only a card has. */
function cardJson({ dump, dumps }: CoreSource): object {
  return dumps.length === 0
    ? {}
    : { dump: dump === null ? null : dumpJson(dump), dumps: dumps.map(dumpJson) };
}

async function ls(location: string, options: CoreOptions): Promise<void> {
  await withCoreSource(location, options, async (source) => {
    const { core, dump, dumps } = source;
    if (options.json) {
      await write(formatJson({ ...cardJson(source), ...coreJson(core) }));
      return;
    }
    if (dumps.length > 0) {
      const head = ["", "DUMP", "SEQUENCE", "TIME", "BYTES", "STATE", "WHY"];
      await write(formatTable(head, dumpRows(dumps, dump), [2, 4]));
    }
    if (core === null) return;
    if (dumps.length > 0) await write("\n");
    const rows = core.segments.map((segment) => [
      String(segment.index),
      typeOf(segment),
      printable(segment.name),
      hex(segment.paddr),
      hex(segment.vaddr),
      String(segment.filesz),
      stateOf(segment),
    ]);
    if (rows.length > 0) {
      await write(formatTable(["SEGMENT", "TYPE", "NAME", "PADDR", "VADDR", "SIZE", "STATE"], rows, [0, 5]));
    }
    for (const { name, type, lengthBytes } of core.notes) {
      await write(`note ${printable(name)} type ${type}, ${counted(lengthBytes, "byte")}\n`);
    }
    if (dump !== null) for (const line of failedLines(core, dump)) await write(`${line}\n`);
    const order = core.isLittleEndian ? "little" : "big";
    const wrong = core.problems.length > 0 ? `, ${counted(core.problems.length, "problem")}: see verify` : "";
    const what = `ELF${core.class}, ${order}-endian, machine ${core.machine}`;
    await write(color.dim(`${what}, ${counted(core.segments.length, "segment")}${wrong}\n`));
  });
}

/** What is wrong with a dump on a card, besides what its core says. Reads all of it. */
async function problemsOf({ image, offset, sizeBytes, dump, core }: CoreSource): Promise<string[]> {
  if (dump === null) return core === null ? ["no dump has anything that could be read"] : [];
  const problems: string[] = [];
  const reason = reasonOf(dump);
  if (reason !== null) {
    problems.push(
      `dump ${dump.slot}: ${dump.state}, ${dump.storedBytes} of ${dump.lengthBytes} bytes: ${reason}`,
    );
  }
  if (core === null) return problems;
  let crc = 0;
  for await (const piece of piecesOf(image, offset, sizeBytes, "reading")) {
    crc = crc32c(piece, 0, piece.length, crc);
  }
  if (crc !== dump.dataCrc) problems.push(`dump ${dump.slot}: ${wrongCrc(crc, dump)}`);
  return [...problems, ...failedLines(core, dump)];
}

function wrongCrc(crc: number, { dataCrc, storedBytes }: CardDump): string {
  return `the CRC-32C of its ${storedBytes} bytes is ${hex(BigInt(crc))}, not ${hex(BigInt(dataCrc))}`;
}

async function verify(location: string, options: CoreOptions): Promise<void> {
  await withCoreSource(location, options, async (source) => {
    const { image, core } = source;
    const problems = [...(await problemsOf(source)), ...(core?.problems ?? [])];
    if (options.json) {
      await write(formatJson({ ok: problems.length === 0, problems }));
    } else {
      for (const line of problems) await write(`${line}\n`);
    }
    if (problems.length > 0) {
      throw new MmcError("EBADMSG", `${image.name}: ${counted(problems.length, "problem")}`);
    }
    if (options.json || core === null) return;
    const what = `${counted(core.segments.length, "segment")} and ${counted(core.notes.length, "note")}`;
    await write(
      source.dump === null ? `${what}, all in the file\n` : `${what}, all in the dump, CRC-32C right\n`,
    );
  });
}

/** `003-md_one.bin`, or with the address where there is no name: the number alone makes it unique. */
function fileName(segment: ElfSegment): string {
  const named = segment.name === null || segment.name === "" ? hex(segment.paddr) : segment.name;
  const safe = named.replace(/[^A-Za-z0-9._-]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
  const kind = segment.type === PT_LOAD ? safe : `${typeOf(segment).toLowerCase()}-${safe}`;
  return `${String(segment.index).padStart(3, "0")}-${kind.slice(0, NAME_CHARACTERS_MAX)}.bin`;
}

/** Bytes of an image into a new file; returns their checksums. */
async function copyOut(
  { image, offset }: CoreSource,
  from: number,
  sizeBytes: number,
  path: string,
  replace: boolean,
): Promise<{ sha256: string; crc: number }> {
  const hash = createHash("sha256");
  let crc = 0;
  const fill = async (fd: number | null) => {
    const file = fd === null ? null : new SparseWriter(fd);
    for await (const piece of piecesOf(image, offset + from, sizeBytes, "writing")) {
      hash.update(piece);
      crc = crc32c(piece, 0, piece.length, crc);
      file?.write(piece);
    }
    file?.end();
  };
  // checkTargets() has compared what is there.
  if (!replace && exists(path)) {
    await fill(null);
    return { sha256: hash.digest("hex"), crc };
  }
  await makeWholeFileLater(path, fill, { replace, isClean: true });
  return { sha256: hash.digest("hex"), crc };
}

/** Bytes of the image that become a file. */
interface Target {
  name: string;
  from: number;
  sizeBytes: number;
}

/** True if the file has exactly these bytes: a run that was cut has made it. */
async function isThere({ image, offset }: CoreSource, target: Target, path: string): Promise<boolean> {
  const stats = lstatSync(path);
  if (!stats.isFile() || stats.size !== target.sizeBytes) return false;
  if (target.sizeBytes === 0) return true;
  const file = openRaw(path, { writable: false });
  try {
    let at = 0;
    for await (const piece of piecesOf(image, offset + target.from, target.sizeBytes)) {
      if (Buffer.compare(piece, await file.read(at, piece.length)) !== 0) return false;
      at += piece.length;
    }
    return true;
  } finally {
    file.closeSync();
  }
}

/** Refuses before anything is written; what is there with the same content is no obstacle. */
async function checkTargets(
  source: CoreSource,
  folder: string,
  targets: Target[],
  replace: boolean,
): Promise<void> {
  makeFolder(folder);
  cleanLeftovers(folder);
  if (replace) return;
  try {
    let missing = 0;
    for (const target of targets) {
      const path = join(folder, target.name);
      if (!exists(path)) missing++;
      else if (!(await isThere(source, target, path))) throw existsAlready(path);
    }
    const manifest = join(folder, MANIFEST_FILE);
    // It is made when all others are there.
    if (missing > 0 && exists(manifest)) throw existsAlready(manifest);
  } catch (error) {
    throw fileError(folder, error);
  }
}

function existsAlready(path: string): MmcError {
  return new MmcError("EEXIST", `${path}: exists already with another content, --force replaces it`);
}

function writeManifest(folder: string, content: object, replace: boolean): string {
  const manifest = formatJson(content);
  const bytes = new TextEncoder().encode(manifest);
  const path = join(folder, MANIFEST_FILE);
  if (!replace && exists(path)) {
    if (readFileSync(path).equals(bytes)) return manifest;
    throw existsAlready(path);
  }
  makeWholeFile(path, (fd) => writeAll(fd, bytes), { replace, isClean: true });
  return manifest;
}

async function extract(location: string, folder: string, options: CoreOptions): Promise<void> {
  await withCoreSource(location, options, async (source) => {
    if (source.dumps.length > 0) await extractDump(source, folder, options);
    else await extractSegments(source, folder, options);
  });
}

/** The core that a card has, as a file. */
async function extractDump(source: CoreSource, folder: string, options: CoreOptions): Promise<void> {
  const { image, core, dump, sizeBytes } = source;
  if (core === null || dump === null) {
    const why = source.dumps.map((one) => `${one.slot}: ${reasonOf(one)}`).join("; ");
    throw new MmcError("ENODATA", `${image.name}: no dump has anything that could be read (${why})`);
  }
  const replace = options.force === true;
  await checkTargets(source, folder, [{ name: CORE_FILE, from: 0, sizeBytes }], replace);
  const path = join(folder, CORE_FILE);
  const { sha256, crc } = await copyOut(source, 0, sizeBytes, path, replace);
  const isRight = crc === dump.dataCrc;
  const manifest = writeManifest(
    folder,
    { file: CORE_FILE, sha256, crcRight: isRight, dump: dumpJson(dump), ...coreJson(core) },
    replace,
  );
  if (options.json) await write(manifest);
  else {
    await write(`${path}: ${sizeBytes} of ${dump.lengthBytes} bytes, dump ${dump.sequence}, ${dump.state}\n`);
    for (const line of failedLines(core, dump)) await write(`${line}\n`);
  }
  if (!isRight) throw new MmcError("EBADMSG", `${path}: was written, but ${wrongCrc(crc, dump)}`);
}

/** The regions of a core that is a file. */
async function extractSegments(source: CoreSource, folder: string, options: CoreOptions): Promise<void> {
  const { image, core } = source;
  if (core === null) return;
  const replace = options.force === true;
  const wanted = core.segments.filter(({ presentBytes }) => presentBytes > 0);
  // Segments may all point at the same bytes: what they would take together is judged before anything is written.
  const totalBytes = wanted.reduce((sum, { presentBytes }) => sum + presentBytes, 0);
  if (totalBytes > image.sizeBytes) {
    throw new MmcError(
      "EFBIG",
      `${image.name}: its segments share bytes and would take ${totalBytes} together`,
    );
  }
  const targets = wanted.map((segment) => ({ segment, name: fileName(segment) }));
  const places = targets.map(({ segment, name }) => {
    return { name, from: Number(segment.offset), sizeBytes: segment.presentBytes };
  });
  await checkTargets(source, folder, places, replace);
  const entries: object[] = [];
  for (const { segment, name } of targets) {
    const from = Number(segment.offset);
    const { sha256 } = await copyOut(source, from, segment.presentBytes, join(folder, name), replace);
    entries.push({ file: name, ...segmentJson(segment), sha256 });
  }
  const manifest = writeManifest(folder, { segments: entries, problems: core.problems }, replace);
  if (options.json) {
    await write(manifest);
    return;
  }
  const rows = targets.map(({ segment, name }) => [name, String(segment.presentBytes), stateOf(segment)]);
  if (rows.length > 0) await write(formatTable(["FILE", "SIZE", "STATE"], rows, [1]));
  await write(color.dim(`${counted(rows.length, "segment")} and manifest.json in ${folder}\n`));
}

const IMAGE_HELP = `
IMAGE is an ELF core, or a card that a panic has stored one on: a raw image, a block device, a gzip file or an
http(s) URL. Its dump area is the image, the one partition that holds a dump, or where --partition or --offset
says.`;

export function addCore(program: Command): void {
  const core = program
    .command("core")
    .summary("list, check, take apart and remove an ELF core, in a file or on a card")
    .description(
      "Read an ELF core of any machine: of this project, of Linux's remoteproc, of a kernel or a process; or the " +
        "crash dumps in the dump area of a card.",
    )
    .action(() => {
      throw new UsageError("core: say ls, extract, verify or rm");
    });
  addCoreSourceOptions(
    core
      .command("ls")
      .description("List the dumps of a card, and the segments and notes of one core.")
      .argument("<image>", "an ELF core, or a card with a dump area"),
  )
    .option("--json", "print JSON instead of a table")
    .addHelpText("after", IMAGE_HELP)
    .action(ls);
  addCoreSourceOptions(
    core
      .command("extract")
      .description(
        `From a card the core, as ${CORE_FILE}; of a core every segment's bytes. Beside them manifest.json.`,
      )
      .argument("<image>", "an ELF core, or a card with a dump area")
      .argument("<dir>", "folder for the files; made if it is not there"),
  )
    .option("--force", "replace files that are there")
    .option("--json", "print the manifest instead of a table")
    .addHelpText(
      "after",
      `${IMAGE_HELP}

Files of segments are named by the segment's number and its section's name or address. Of a segment or a dump
that is not whole, what is there is written, and its state is "cut" or "partial". A dump whose CRC-32C is wrong is
written too, and the exit code is 1.`,
    )
    .action(extract);
  addCoreSourceOptions(
    core
      .command("verify")
      .description(
        "Check that headers, segments and notes are whole and without overlap; of a dump also its CRC-32C.",
      )
      .argument("<image>", "an ELF core, or a card with a dump area"),
  )
    .option("--json", "print JSON instead of lines")
    .addHelpText(
      "after",
      `${IMAGE_HELP}\n\nExit code 1 if anything is wrong or missing, with a line for each problem.`,
    )
    .action(verify);
  addCoreRm(core);
  core.addHelpText(
    "after",
    `
Examples:
  mmcpstore core ls disk.img --partition dump
  mmcpstore core extract disk.img.gz dump/ && gdb -c dump/core.elf
  mmcpstore core verify vmcore.elf
  mmcpstore core extract vmcore.elf regions/
  mmcpstore core rm disk.img --dump front`,
  );
}
