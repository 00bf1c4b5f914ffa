// `mmcpstore extract IMAGE DIR`: every record as a file, and manifest.json; with --layout as other collectors do.
// Names are those of names.ts, so none can leave the folder. All targets are looked at before the first is written.
import { createHash } from "node:crypto";
import { lstatSync, readFileSync, rmdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import type { PstoreRecord } from "../pstore/decode.js";
import { formatLog, type JoinedLog, joinLogs } from "../pstore/join.js";
import { recordName } from "../pstore/names.js";
import { bytesOf } from "./cat.js";
import { planAbrt, planSystemd } from "./collectors.js";
import { makeFolder } from "./folder.js";
import { withArea } from "./open-area.js";
import { addImageOptions, type ImageOptions, imageHelp, parseChoice } from "./options.js";
import { color, colorState, counted, formatJson, formatTable, remark, UsageError, write } from "./output.js";
import { makeProgress } from "./progress.js";
import { formatTime } from "./time.js";
import { cleanLeftovers, exists, makeWholeFile, writeAll } from "./whole-file.js";

interface Target {
  path: string;
  sizeBytes: number;
  /** Read, and inflated, whenever it is called: no more than one record is held. */
  read: () => Uint8Array;
  timeSec: number | undefined;
  mode?: number;
}

const LAYOUTS = ["systemd", "abrt"] as const;

interface ExtractOptions extends ImageOptions {
  force?: boolean;
  json?: boolean;
  join?: boolean;
  raw?: boolean;
  layout?: (typeof LAYOUTS)[number];
}

/** A record or a joined log, and what manifest.json says of it. */
interface Extracted {
  record: PstoreRecord;
  name: string;
  sizeBytes: number;
  read: () => Uint8Array;
  state: string;
  log: JoinedLog | null;
}

/** Tries of a free name before a folder is taken for hopeless. */
const NAMES_TRIED_MAX = 10_000;

/** Linux's file systems keep times up to 2446 or later; what a damaged record says may be anything. */
const FILE_TIME_MAX_SEC = 2 ** 33;

function manifestEntry({ record, name, sizeBytes, state, log }: Extracted, sha256: string): object {
  const entry = {
    name,
    size: sizeBytes,
    sha256,
    time: formatTime(record),
    state,
    sequence: record.sequence,
  };
  if (log === null) return entry;
  const parts = log.parts.map((part) => part.name);
  return { ...entry, parts, missing: log.missing, hasNewest: log.hasNewest };
}

function extractRecord(record: PstoreRecord, raw: boolean | undefined): Extracted {
  const sizeBytes = raw && record.raw !== null ? record.raw.length : record.size;
  return {
    record,
    name: record.name,
    sizeBytes,
    read: () => bytesOf(record, raw),
    state: record.state,
    log: null,
  };
}

/** A log in several records becomes one file, named for its newest part; every other record stays as it is. */
function extractLog(log: JoinedLog): Extracted {
  const record = log.parts.at(-1) as PstoreRecord;
  if (record.part === 0) return extractRecord(record, false);
  const isIncomplete = log.missing.length > 0 || !log.hasNewest;
  const damaged = log.parts.find(({ state }) => state !== "ok");
  const state = isIncomplete ? "incomplete" : (damaged?.state ?? "ok");
  const name = `${recordName("kmsg", record.id)}.joined`;
  const bytes = formatLog(log);
  return { record, name, sizeBytes: bytes.length, read: () => bytes, state, log };
}

/** Seconds and the nearest microsecond, which is what Node sets; undefined: the time is not known. */
function fileTime({ timeSec, timeNsec }: PstoreRecord): number | undefined {
  const seconds = Number(timeSec);
  if (seconds <= 0 || seconds > FILE_TIME_MAX_SEC) return undefined;
  const microseconds = timeNsec >= 0 && timeNsec < 1e9 ? Math.round(timeNsec / 1000) : 0;
  // A double of today's seconds is exact to 0.24 µs, and Node cuts off: 0.3 µs keep the right one.
  return seconds + (microseconds + 0.3) / 1e6;
}

function bytesTarget(path: string, text: string): Target {
  const bytes = new TextEncoder().encode(text);
  return { path, sizeBytes: bytes.length, read: () => bytes, timeSec: undefined };
}

/** True if the file is there with these bytes. @throws MmcError EEXIST if it is there with others. */
function isThere({ path, sizeBytes, read }: Target, force: boolean): boolean {
  try {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return false;
    if (stats.isDirectory()) throw new MmcError("EISDIR", `${path}: is a directory`);
    if (stats.isFile() && stats.size === sizeBytes && readFileSync(path).equals(read())) return true;
  } catch (error) {
    throw fileError(path, error);
  }
  if (force) return false;
  throw new MmcError("EEXIST", `${path}: exists already with another content, --force replaces it`);
}

async function extract(location: string, folder: string, options: ExtractOptions): Promise<void> {
  const { layout } = options;
  if (layout !== undefined) {
    for (const name of ["join", "force", "raw"] as const) {
      if (options[name]) throw new UsageError(`--layout ${layout}: cannot be combined with --${name}`);
    }
    return collect(location, folder, layout, options.json === true, options);
  }
  await withArea(location, options, async ({ decoded }) => {
    const { records } = decoded;
    const rings = records
      .filter(({ type }) => type !== "kmsg")
      .map((record) => extractRecord(record, options.raw));
    const extracted = options.join
      ? [...joinLogs(records).map(extractLog), ...rings]
      : records.map((record) => extractRecord(record, options.raw));
    const hashes = new Map<string, string>();
    const targets: Target[] = extracted.map(({ record, name, sizeBytes, read }) => ({
      path: join(folder, name),
      sizeBytes,
      read: () => {
        const bytes = read();
        hashes.set(name, createHash("sha256").update(bytes).digest("hex"));
        return bytes;
      },
      timeSec: fileTime(record),
    }));
    /** Reads what no hash is known of yet. */
    const manifestOf = (): string => {
      const entries = extracted.map((one, i) => {
        if (!hashes.has(one.name)) targets[i]?.read();
        return manifestEntry(one, hashes.get(one.name) ?? "");
      });
      return formatJson(entries);
    };
    const isNew = makeFolder(folder);
    cleanLeftovers(folder);
    const force = options.force === true;
    const manifestPath = join(folder, "manifest.json");
    const missing = targets.filter((target) => !isThere(target, force));
    // With one there, all is hashed before the first file is written; otherwise each as it is written.
    const old = exists(manifestPath) ? bytesTarget(manifestPath, manifestOf()) : null;
    const isManifestThere = old !== null && isThere(old, force);
    let written = 0;
    let manifest = "";
    const progress = makeProgress("writing", "records");
    try {
      for (const { path, read, timeSec } of missing) {
        makeWholeFile(path, (fd) => writeAll(fd, read()), { replace: force, timeSec, isClean: true });
        written++;
        progress.onProgress(written, missing.length);
      }
      manifest = manifestOf();
      if (!isManifestThere) {
        const { read } = bytesTarget(manifestPath, manifest);
        makeWholeFile(manifestPath, (fd) => writeAll(fd, read()), { replace: force, isClean: true });
      }
    } catch (error) {
      if (isNew && written === 0) removeFolder(folder);
      throw error;
    } finally {
      progress.stop();
    }
    for (const { name, log } of extracted) {
      if (log === null) continue;
      const sizeBytes = log.missing.reduce((sum, one) => sum + one.sizeBytes, 0);
      if (sizeBytes > 0) remark(`${name}: ${counted(sizeBytes, "byte")} of the log are missing`);
      if (!log.hasNewest) remark(`${name}: the newest part of the log is missing`);
    }
    if (options.json) {
      await write(manifest);
      return;
    }
    const rows = extracted.map(({ name, sizeBytes, state }) => [name, String(sizeBytes), colorState(state)]);
    if (rows.length > 0) await write(formatTable(["NAME", "SIZE", "STATE"], rows, [1]));
    const kept = targets.length - missing.length + (isManifestThere ? 1 : 0);
    const already = kept > 0 ? `, ${counted(kept, "file")} of them already there` : "";
    await write(
      color.dim(`${counted(extracted.length, "record")} and manifest.json in ${folder}${already}\n`),
    );
  });
}

/** `path`, or with `.1`, `.2` … behind it, where nothing is or the same bytes are already; and which of both. */
function freeTarget(target: Target): { target: Target; isKept: boolean } {
  for (let number = 0; number < NAMES_TRIED_MAX; number++) {
    const path = number === 0 ? target.path : `${target.path}.${number}`;
    let stats: ReturnType<typeof lstatSync>;
    try {
      stats = lstatSync(path, { throwIfNoEntry: false });
      if (stats === undefined) return { target: { ...target, path }, isKept: false };
      if (!stats.isFile() || stats.size !== target.sizeBytes) continue;
      if (readFileSync(path).equals(target.read())) return { target: { ...target, path }, isKept: true };
    } catch (error) {
      throw fileError(path, error);
    }
  }
  throw new MmcError("EEXIST", `${target.path}: exists already, and so do ${NAMES_TRIED_MAX - 1} more of it`);
}

/** Adds the records to a collector's folder: what is there stays, a record that is there already is not added again. */
async function collect(
  location: string,
  folder: string,
  layout: (typeof LAYOUTS)[number],
  isJson: boolean,
  options: ImageOptions,
): Promise<void> {
  await withArea(location, options, async ({ decoded }) => {
    const { records } = decoded;
    const planned = layout === "systemd" ? planSystemd(records) : planAbrt(records);
    makeFolder(folder);
    for (const path of new Set(planned.map((file) => dirname(file.path)))) makeFolder(join(folder, path));
    for (const path of new Set(planned.map((file) => dirname(file.path)))) cleanLeftovers(join(folder, path));
    const listed: { file: string; size: number; record: string; state: string; added: boolean }[] = [];
    for (const { path, bytes, mode, record } of planned) {
      const wanted: Target = {
        path: join(folder, path),
        sizeBytes: bytes.length,
        read: () => bytes,
        timeSec: fileTime(record),
        mode,
      };
      const { target, isKept } = freeTarget(wanted);
      const { timeSec } = target;
      if (!isKept) makeWholeFile(target.path, (fd) => writeAll(fd, bytes), { timeSec, mode, isClean: true });
      const file = relative(folder, target.path);
      listed.push({ file, size: bytes.length, record: record.name, state: record.state, added: !isKept });
    }
    if (layout === "abrt") remarkOnAbrt(records);
    if (isJson) {
      await write(formatJson(listed));
      return;
    }
    const rows = listed.map((one) => [one.file, String(one.size), colorState(one.state)]);
    if (rows.length > 0) await write(formatTable(["FILE", "SIZE", "STATE"], rows, [1]));
    const kept = listed.filter((one) => !one.added).length;
    const already = kept > 0 ? `, ${counted(kept, "file")} of them already there` : "";
    await write(color.dim(`${counted(listed.length, "file")} in ${folder}${already}\n`));
  });
}

/** What ABRT does not take, so that nobody looks for it there. */
function remarkOnAbrt(records: readonly PstoreRecord[]): void {
  const isLog = ({ type, state }: PstoreRecord) => type === "kmsg" && state !== "undecodable";
  const left = records.filter((record) => !isLog(record));
  if (left.length > 0) remark(`${counted(left.length, "record")} left out: no log that ABRT could read`);
  const others = records.filter((record) => isLog(record) && record.reason !== "Panic");
  if (others.length > 0)
    remark(`${counted(others.length, "record")} of another reason: ABRT takes Panic only`);
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
    .option("--join", "a log in several records as one file")
    .option("--layout <layout>", "add the files as a collector has them: systemd or abrt", (text) =>
      parseChoice("--layout", text, LAYOUTS),
    )
    .option("--force", "replace files that are there with another content")
    .option("--json", "print the manifest instead of a table")
    .addHelpText(
      "after",
      `${imageHelp(false)}
Each file appears whole or not at all. A file that is there with the same content is left alone.
--join: the log is named for its newest record, with .joined; a line says where bytes are missing.
--layout systemd: as systemd 253 and later have it in /var/lib/systemd/pstore; a log in several records in a
folder of its own, whole in dmesg.txt. --layout abrt: pieces of 16 KiB that begin with Panic#1 Part1. Both add to
what is there: a name that is taken by another record gets .1, .2 behind it, nothing is ever replaced, and there is
no manifest.

Examples:
  mmcpstore extract disk.img crash/
  mmcpstore extract disk.img.gz crash/ --force --json
  mmcpstore extract disk.img logs/ --join
  mmcpstore extract disk.img /var/lib/systemd/pstore --layout systemd`,
    )
    .action(extract);
}
