// `mmcpstore sahara collect FROM DIR`: the dump of a crashed device into a folder, or with --container into one file.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { Command } from "commander";
import { escapeName } from "../dump/sahara.js";
import { type SaharaAction, SaharaCollector, type SaharaImage } from "../dump/sahara-collector.js";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { DumpContainer, DumpFolder, type DumpStore, readResumable, saharaHead } from "./dump-store.js";
import { parseSize } from "./options.js";
import { color, counted, formatJson, formatTable, messageOf, UsageError, write } from "./output.js";
import { makeProgress } from "./progress.js";
import { parseLocation, runLink } from "./sahara-link.js";

const TIMEOUT_MS = 30_000;
const TIMEOUT_MAX_MS = 3_600_000;
const RETRIES = 5;

interface CollectOptions {
  container?: string;
  resume?: boolean;
  keepGoing?: boolean;
  maxRegion?: number;
  maxTotal?: number;
  request?: number;
  timeout?: number;
  retries?: number;
  image?: [number, string][];
  record?: string;
  json?: boolean;
}

/** An integer of an option. @throws UsageError. */
export function parseCount(option: string, text: string, min: number, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  if (value < min || value > max) throw new UsageError(`${option} ${text}: must be ${min} to ${max}`);
  return value;
}

function parseImage(text: string, before: [number, string][] = []): [number, string][] {
  const match = /^(\d{1,9})=(.+)$/.exec(text);
  if (match === null) throw new UsageError(`--image ${text}: write NUMBER=FILE`);
  return [...before, [Number(match[1]), match[2] as string]];
}

function openImageFile(path: string): SaharaImage & { close(): void } {
  try {
    const fd = openSync(path, "r");
    return {
      lengthBytes: fstatSync(fd).size,
      read: (offset, count) => {
        const bytes = new Uint8Array(count);
        if (readSync(fd, bytes, 0, count, offset) !== count)
          throw new MmcError("EIO", `${path}: became shorter`);
        return bytes;
      },
      close: () => closeSync(fd),
    };
  } catch (error) {
    throw fileError(path, error);
  }
}

function openStore(folder: string | undefined, options: CollectOptions) {
  const { container, resume } = options;
  if ((folder === undefined) === (container === undefined)) {
    throw new UsageError("say a folder for the dump, or --container FILE, and not both");
  }
  if (resume && folder === undefined) throw new UsageError("--resume: only with a folder");
  const resumed = resume && folder !== undefined ? readResumable(folder) : undefined;
  return {
    resumed,
    make: () =>
      container !== undefined
        ? new DumpContainer(container)
        : new DumpFolder(folder as string, resumed ?? null),
  };
}

function openRecording(path: string | undefined): number | null {
  if (path === undefined) return null;
  try {
    return openSync(path, "wx", 0o600);
  } catch (error) {
    if ((error as { code?: unknown }).code === "EEXIST")
      throw new MmcError("EEXIST", `${path}: exists already`);
    throw fileError(path, error);
  }
}

async function collect(from: string, folder: string | undefined, options: CollectOptions): Promise<void> {
  parseLocation(from);
  const { resumed, make } = openStore(folder, options);
  const images = new Map((options.image ?? []).map(([number, path]) => [number, openImageFile(path)]));
  const collector = new SaharaCollector({
    requestBytesMax: options.request,
    regionBytesMax: options.maxRegion,
    totalBytesMax: options.maxTotal,
    keepGoing: options.keepGoing,
    isAllOrNothing: options.container !== undefined,
    images,
    resume: resumed && { table: resumed.table, receivedBytes: resumed.receivedBytes },
  });
  const recordFd = openRecording(options.record);
  const progress = makeProgress("collecting");
  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);
  // Made when the table is there: a device that has no dump leaves no folder behind.
  let store: DumpStore | null = null;
  let failure: MmcError | null = null;
  let doneBytes = 0;
  let totalBytes = 0;
  const perform = (action: SaharaAction) => {
    if (action.kind === "table") {
      const wanted = action.regions.filter((one) => one.state !== "refused");
      totalBytes = wanted.reduce((sum, one) => sum + Number(one.lengthBytes), 0);
      doneBytes = wanted.reduce((sum, one) => sum + one.receivedBytes, 0);
      store = make();
      store.begin(saharaHead(action.width, action.bytes), action.regions, totalBytes - doneBytes);
    } else if (action.kind === "data") {
      store?.data(action.index, action.offset, action.bytes);
      doneBytes += action.bytes.length;
      progress.onProgress(doneBytes, totalBytes);
    } else if (action.kind === "region") store?.end(action.region);
    else if (action.kind === "end") failure = action.error;
  };
  try {
    const { timeout: timeoutMs = TIMEOUT_MS, retries = RETRIES } = options;
    await runLink(from, collector, perform, { timeoutMs, retries, recordFd, signal: interrupt.signal });
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
    progress.stop();
    if (recordFd !== null) closeSync(recordFd);
    for (const image of images.values()) image.close();
  }
  await conclude(from, collector, store, failure, options.json === true);
}

async function conclude(
  from: string,
  collector: SaharaCollector,
  store: DumpStore | null,
  failure: MmcError | null,
  isJson: boolean,
): Promise<void> {
  const { regions, isComplete } = collector;
  if (store === null) {
    const { code, message } = failure ?? new MmcError("ENODATA", "the device gave no memory table");
    throw new MmcError(code, message.startsWith(from) ? message : `${from}: ${message}`, { cause: failure });
  }
  let why = failure === null ? "" : messageOf(failure);
  const complete = regions.filter((one) => one.state === "complete").length;
  if (failure === null && !isComplete)
    why = `${regions.length - complete} of ${counted(regions.length, "region")} are not complete`;
  let list: object = {};
  try {
    list = store.finish(isComplete && failure === null, why);
  } catch (error) {
    throw failure ?? error;
  }
  if (isJson) await write(formatJson(list));
  else if (regions.length > 0) {
    const rows = regions.map((one) => [
      String(one.index),
      escapeName(one.name) || "-",
      `0x${one.address.toString(16)}`,
      String(one.lengthBytes),
      String(one.receivedBytes),
      one.state === "complete" ? color.green(one.state) : color.red(one.state),
      one.why || (one.overlaps ? "overlaps another" : ""),
    ]);
    await write(formatTable(["#", "NAME", "ADDRESS", "SIZE", "RECEIVED", "STATE", ""], rows, [0, 2, 3, 4]));
  }
  if (why !== "") {
    throw new MmcError(failure?.code ?? "ENODATA", `${store.path}: the dump is partial: ${why}`, {
      cause: failure,
    });
  }
  if (!isJson) await write(color.dim(`${counted(regions.length, "region")} in ${store.path}\n`));
}

export function addCollect(sahara: Command): void {
  sahara
    .command("collect")
    .summary("collect the dump of a crashed device")
    .description(
      "Collect the memory dump that a crashed device offers over Sahara, into DIR or a v1 container.",
    )
    .argument("<from>", "tcp://HOST:PORT, unix:PATH, or a file that --record made")
    .argument("[dir]", "folder for the regions and manifest.json; made, or empty")
    .option("--container <file>", "one v1 container, as Linux's qaic driver makes, instead of a folder")
    .option("--resume", "go on with a partial dump in DIR")
    .option("--keep-going", "leave a region that the device refuses, and take the next")
    .option("--max-region <bytes>", "refuse longer regions (16G)", (text) =>
      parseSize("--max-region", text, { min: 0, multipleOf: 1 }),
    )
    .option("--max-total <bytes>", "refuse regions beyond this sum (64G)", (text) =>
      parseSize("--max-total", text, { min: 0, multipleOf: 1 }),
    )
    .option("--request <bytes>", "bytes to ask for at once (65520)", (text) =>
      parseSize("--request", text, { min: 64, multipleOf: 16, max: 0x80000 }),
    )
    .option("--timeout <ms>", `longest wait for one answer (${TIMEOUT_MS})`, (text) =>
      parseCount("--timeout", text, 1, TIMEOUT_MAX_MS),
    )
    .option("--retries <n>", `connections after the first, when the device goes away (${RETRIES})`, (text) =>
      parseCount("--retries", text, 0, 1000),
    )
    .option("--image <number=file>", "an image that the device may boot from; may be repeated", parseImage)
    .option("--record <file>", "keep what the device sent, to be collected from again")
    .option("--json", "print the manifest instead of a table")
    .addHelpText(
      "after",
      `
Over TCP each transfer is framed: u16 length, u16 flags (2 end of transfer, 4 goes on), little-endian.
Names come from the device and are made safe: an index, then letters, digits and ._-, all else as %XX. What came
of a dump that is cut stays, as NAME.partial, and manifest.json says what is missing; exit code 1. The device is
reset, and its dump gone, once everything was read or it answered nonsense; not when this side fails or is interrupted.

Examples:
  mmcpstore sahara collect tcp://192.0.2.7:4567 crash/
  mmcpstore sahara collect tcp://192.0.2.7:4567 crash/ --resume
  mmcpstore sahara collect unix:/run/qaic.sock --container crash.bin`,
    )
    .action(collect);
}
