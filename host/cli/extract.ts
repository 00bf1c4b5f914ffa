// `mmcpstore extract IMAGE DIR`: every record as a file, and manifest.json. Names are those of names.ts, so
// none can leave the folder. All targets are looked at before the first is written.
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import type { PstoreRecord } from "../pstore/decode.js";
import { bytesOf } from "./cat.js";
import { withArea } from "./open-area.js";
import { addImageOptions, type ImageOptions, imageHelp } from "./options.js";
import { color, colorState, counted, formatJson, formatTable, write } from "./output.js";
import { formatTime } from "./time.js";
import { makeWholeFile, writeAll } from "./whole-file.js";

interface Target {
  path: string;
  bytes: Uint8Array;
  timeSec: number | undefined;
}

/** Linux's file systems keep times up to 2446 or later; what a damaged record says may be anything. */
const FILE_TIME_MAX_SEC = 2 ** 33;

function manifestEntry(record: PstoreRecord, bytes: Uint8Array): object {
  return {
    name: record.name,
    size: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
    time: formatTime(record),
    state: record.state,
    sequence: record.sequence,
  };
}

/** Seconds and the nearest microsecond, which is what Node sets; undefined: the time is not known. */
function fileTime({ timeSec, timeNsec }: PstoreRecord): number | undefined {
  const seconds = Number(timeSec);
  if (seconds <= 0 || seconds > FILE_TIME_MAX_SEC) return undefined;
  const microseconds = timeNsec >= 0 && timeNsec < 1e9 ? Math.round(timeNsec / 1000) : 0;
  // A double of today's seconds is exact to 0.24 µs, and Node cuts off: 0.3 µs keep the right one.
  return seconds + (microseconds + 0.3) / 1e6;
}

/** True if the file is there with these bytes. @throws MmcError EEXIST if it is there with others. */
function isThere({ path, bytes }: Target, force: boolean): boolean {
  try {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return false;
    if (stats.isDirectory()) throw new MmcError("EISDIR", `${path}: is a directory`);
    if (stats.isFile() && stats.size === bytes.length && readFileSync(path).equals(bytes)) return true;
  } catch (error) {
    throw fileError(path, error);
  }
  if (force) return false;
  throw new MmcError("EEXIST", `${path}: exists already with another content, --force replaces it`);
}

/** True if the folder was made. */
function makeFolder(path: string): boolean {
  try {
    return mkdirSync(path, { recursive: true }) !== undefined;
  } catch (error) {
    if ((error as { code?: unknown }).code !== "EEXIST") throw fileError(path, error);
    throw new MmcError("ENOTDIR", `${path}: is not a directory`, { cause: error });
  }
}

async function extract(
  location: string,
  folder: string,
  options: ImageOptions & { force?: boolean; json?: boolean; raw?: boolean },
): Promise<void> {
  await withArea(location, options, async ({ decoded }) => {
    const { records } = decoded;
    const manifest = formatJson(records.map((record) => manifestEntry(record, bytesOf(record, options.raw))));
    const targets: Target[] = records.map((record) => ({
      path: join(folder, record.name),
      bytes: bytesOf(record, options.raw),
      timeSec: fileTime(record),
    }));
    targets.push({
      path: join(folder, "manifest.json"),
      bytes: new TextEncoder().encode(manifest),
      timeSec: undefined,
    });
    const isNew = makeFolder(folder);
    const force = options.force === true;
    const missing = targets.filter((target) => !isThere(target, force));
    let written = 0;
    try {
      for (const { path, bytes, timeSec } of missing) {
        makeWholeFile(path, (fd) => writeAll(fd, bytes), { replace: force, timeSec });
        written++;
      }
    } catch (error) {
      if (isNew && written === 0) removeFolder(folder);
      throw error;
    }
    if (options.json) {
      await write(manifest);
      return;
    }
    const rows = records.map((record) => [
      record.name,
      String(bytesOf(record, options.raw).length),
      colorState(record.state),
    ]);
    if (rows.length > 0) await write(formatTable(["NAME", "SIZE", "STATE"], rows, [1]));
    const kept = targets.length - missing.length;
    const remark = kept > 0 ? `, ${counted(kept, "file")} of them already there` : "";
    await write(color.dim(`${counted(records.length, "record")} and manifest.json in ${folder}${remark}\n`));
  });
}

function removeFolder(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Somebody put something there in the meantime: it is his.
  }
}

export function addExtract(program: Command): void {
  const command = program
    .command("extract")
    .summary("write every record to a file")
    .description("Write every record to a file in DIR with its time, and manifest.json with their SHA-256.")
    .argument("<image>", "raw, .gz or http(s):// image")
    .argument("<dir>", "folder for the files; made if it is not there");
  addImageOptions(command)
    .option("--raw", "of ftrace the records as they are, merged, instead of their text")
    .option("--force", "replace files that are there with another content")
    .option("--json", "print the manifest instead of a table")
    .addHelpText(
      "after",
      `${imageHelp(false)}
Each file appears whole or not at all. A file that is there with the same content is left alone.

Examples:
  mmcpstore extract disk.img crash/
  mmcpstore extract disk.img.gz crash/ --force --json`,
    )
    .action(extract);
}
