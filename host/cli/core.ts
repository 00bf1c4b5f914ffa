// `mmcpstore core ls|extract|verify FILE`: an ELF core, whoever made it. Reads only; extract writes into one folder,
// under names of its own that nothing in the file can lead out of it.
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Command } from "commander";
import { type ElfCore, type ElfSegment, PT_LOAD, PT_NOTE, readElfCore } from "../dump/elf.js";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { isGzip, openRaw, type RawImage } from "../image/raw.js";
import { makeFolder } from "./folder.js";
import { color, counted, formatJson, formatTable, UsageError, write } from "./output.js";
import { exists, makeWholeFile, writeAll } from "./whole-file.js";

const CHUNK_BYTES = 1 << 20;
const NAME_CHARACTERS_MAX = 60;

/** Opens FILE and reads its headers; `what: why` names the file. */
async function withCore(path: string, work: (core: ElfCore, file: RawImage) => Promise<void>): Promise<void> {
  const file = openRaw(path, { writable: false });
  try {
    if (isGzip(file)) throw new MmcError("EINVAL", `${path}: is gzip-compressed, gunzip it first`);
    await work(readNamed(path, file), file);
  } finally {
    file.closeSync();
  }
}

function readNamed(path: string, file: RawImage): ElfCore {
  try {
    return readElfCore(file);
  } catch (error) {
    if (!(error instanceof MmcError) || error.message.startsWith(path)) throw error;
    throw new MmcError(error.code, `${path}: ${error.message}`, { cause: error });
  }
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

async function ls(path: string, options: { json?: boolean }): Promise<void> {
  await withCore(path, async (core) => {
    if (options.json) {
      await write(
        formatJson({
          class: core.class,
          littleEndian: core.isLittleEndian,
          machine: core.machine,
          entry: hex(core.entry),
          segments: core.segments.map(segmentJson),
          notes: core.notes.map(({ name, type, lengthBytes }) => ({ name, type, size: lengthBytes })),
          problems: core.problems,
        }),
      );
      return;
    }
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
    const order = core.isLittleEndian ? "little" : "big";
    const wrong = core.problems.length > 0 ? `, ${counted(core.problems.length, "problem")}: see verify` : "";
    const what = `ELF${core.class}, ${order}-endian, machine ${core.machine}`;
    await write(color.dim(`${what}, ${counted(core.segments.length, "segment")}${wrong}\n`));
  });
}

async function verify(path: string, options: { json?: boolean }): Promise<void> {
  await withCore(path, async ({ problems, segments, notes }) => {
    if (options.json) {
      await write(formatJson({ ok: problems.length === 0, problems }));
    } else {
      for (const line of problems) await write(`${line}\n`);
    }
    if (problems.length > 0) {
      throw new MmcError("EBADMSG", `${path}: ${counted(problems.length, "problem")}`);
    }
    if (options.json) return;
    await write(
      `${counted(segments.length, "segment")} and ${counted(notes.length, "note")}, all in the file\n`,
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

/** The present bytes of a segment into a new file; returns their SHA-256. */
function extractSegment(file: RawImage, segment: ElfSegment, path: string, replace: boolean): string {
  const hash = createHash("sha256");
  const chunk = new Uint8Array(Math.min(CHUNK_BYTES, segment.presentBytes));
  const from = Number(segment.offset);
  const fill = (fd: number) => {
    for (let done = 0; done < segment.presentBytes; ) {
      const part = chunk.subarray(0, Math.min(chunk.length, segment.presentBytes - done));
      file.readSync(from + done, part);
      hash.update(part);
      writeAll(fd, part);
      done += part.length;
    }
  };
  makeWholeFile(path, fill, { replace });
  return hash.digest("hex");
}

async function extract(
  path: string,
  folder: string,
  options: { force?: boolean; json?: boolean },
): Promise<void> {
  await withCore(path, async (core, file) => {
    const replace = options.force === true;
    const wanted = core.segments.filter(({ presentBytes }) => presentBytes > 0);
    // Segments may all point at the same bytes: what they would take together is judged before anything is written.
    const totalBytes = wanted.reduce((sum, { presentBytes }) => sum + presentBytes, 0);
    if (totalBytes > file.sizeBytes) {
      throw new MmcError("EFBIG", `${path}: its segments share bytes and would take ${totalBytes} together`);
    }
    const manifestPath = join(folder, "manifest.json");
    const targets = wanted.map((segment) => ({ segment, name: fileName(segment) }));
    makeFolder(folder);
    try {
      for (const target of [manifestPath, ...targets.map(({ name }) => join(folder, name))]) {
        if (!replace && exists(target)) {
          throw new MmcError("EEXIST", `${target}: exists already, --force replaces it`);
        }
      }
    } catch (error) {
      throw fileError(folder, error);
    }
    const entries = targets.map(({ segment, name }) => ({
      file: name,
      ...segmentJson(segment),
      sha256: extractSegment(file, segment, join(folder, name), replace),
    }));
    const manifest = formatJson({ segments: entries, problems: core.problems });
    makeWholeFile(manifestPath, (fd) => writeAll(fd, new TextEncoder().encode(manifest)), { replace });
    if (options.json) {
      await write(manifest);
      return;
    }
    const rows = targets.map(({ segment, name }) => [name, String(segment.presentBytes), stateOf(segment)]);
    if (rows.length > 0) await write(formatTable(["FILE", "SIZE", "STATE"], rows, [1]));
    await write(color.dim(`${counted(rows.length, "segment")} and manifest.json in ${folder}\n`));
  });
}

export function addCore(program: Command): void {
  const core = program
    .command("core")
    .summary("list, check and take apart an ELF core")
    .description(
      "Read an ELF core of any machine: of this project, of Linux's remoteproc, of a kernel or a process.",
    )
    .action(() => {
      throw new UsageError("core: say ls, extract or verify");
    });
  core
    .command("ls")
    .description("List the segments and notes.")
    .argument("<file>", "an ELF core")
    .option("--json", "print JSON instead of a table")
    .action(ls);
  core
    .command("extract")
    .description("Write every segment's bytes to a file in DIR, and manifest.json with their SHA-256.")
    .argument("<file>", "an ELF core")
    .argument("<dir>", "folder for the files; made if it is not there")
    .option("--force", "replace files that are there")
    .option("--json", "print the manifest instead of a table")
    .addHelpText(
      "after",
      `
Files are named by the segment's number and its section's name or address. Of a segment that is not whole in FILE,
what is there is written, and its state is "cut".`,
    )
    .action(extract);
  core
    .command("verify")
    .description("Check that headers, segments and notes are whole, in the file and without overlap.")
    .argument("<file>", "an ELF core")
    .option("--json", "print JSON instead of lines")
    .addHelpText("after", "\nExit code 1 if anything is wrong, with a line for each problem.")
    .action(verify);
  core.addHelpText(
    "after",
    `
Examples:
  mmcpstore core ls vmcore.elf
  mmcpstore core verify vmcore.elf
  mmcpstore core extract vmcore.elf regions/`,
  );
}
