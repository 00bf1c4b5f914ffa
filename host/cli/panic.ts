// `mmcpstore panic IMAGE --log FILE`: the image becomes the medium of a simulated card, the bus is brought
// into the state asked for, and the panic path writes the log. Only the pstore and dump areas of the file change:
// the request in flight rewrites the bytes that are there, and an erase hits sectors that only the card
// has.
import type { Command } from "commander";
import { PARTS_MAX, ZONES_MAX } from "../../assembly/layout.js";
import { type CardKind, POLICIES, type Policy, REASONS as REASON_NUMBERS } from "../core/profile.js";
import type { PanicResult } from "../core/result.js";
import { codeOf } from "../core/status.js";
import { formatNs, type TraceEvent } from "../core/trace.js";
import type { Reason } from "../device.js";
import { CARD_GRANULE_BYTES, type PanicArea, roundUp } from "../device-options.js";
import { ERRNO, MmcError } from "../errors.js";
import type { Image } from "../image/contract.js";
import { type ImageArea, type ImageDevice, openImageDevice, panicAreaOf } from "../node.js";
import { type Decoded, decodeArea, type PstoreRecord } from "../pstore/decode.js";
import { type JoinedLog, joinLogs, partLineBytes } from "../pstore/join.js";
import { type LogText, readLog } from "./log-text.js";
import { recordJson } from "./ls.js";
import { type OpenedArea, withWritableArea } from "./open-area.js";
import {
  addAreaOptions,
  addGeometryOptions,
  CARD_NAMES,
  CARDS,
  type ImageOptions,
  imageHelp,
  parseChoice,
  parseCount,
  parseTimeOption,
} from "./options.js";
import { color, counted, formatJson, formatSize, remark, UsageError, write } from "./output.js";
import {
  addPanicDumpOptions,
  checkDump,
  checkPanicDumpOptions,
  describeDump,
  PanicDump,
  type PanicDumpPathOptions,
} from "./panic-dump.js";
import { describeFailure, formatStep, stepsOf } from "./panic-report.js";
import { PanicSnapshots } from "./panic-snapshots.js";
import { formatTime, type RecordTime } from "./time.js";
import { addVcdOptions, checkVcdOptions, traceLines, writeVcd } from "./trace-output.js";

const REASONS = Object.keys(REASON_NUMBERS) as Reason[];
const IN_FLIGHT = [
  "none",
  "read",
  "write",
  "program",
  "erase",
  "sleep",
  "suspended",
  "claimed",
  "stuck",
] as const;
const POLICY_NAMES = Object.keys(POLICIES) as Policy[];

/** How the record gets onto the card, whatever it says. */
export interface PanicPathOptions extends ImageOptions {
  card: CardKind;
  inFlight: (typeof IN_FLIGHT)[number];
  policy: Policy;
  keep?: number;
  parts: number;
  maxReason?: Reason;
  pio?: boolean;
  compress: boolean;
  /** ms */
  deadline?: number;
  force?: boolean;
  trace?: boolean;
  snapshots?: string;
  vcd?: string;
  vcdBits?: boolean;
  json?: boolean;
}

interface PanicOptions extends PanicPathOptions, PanicDumpPathOptions {
  log: string;
  console?: string;
  pmsg?: string;
  reason: Reason;
  time?: RecordTime;
}

/** What is written. */
export interface PanicLog extends LogText, RecordTime {
  reason: Reason;
  rings?: RingText[];
  /** Stored behind the record. */
  dump?: PanicDump | null;
}

/** What was said before the panic, and is in memory when it comes. */
interface RingText {
  type: "console" | "pmsg";
  text: Uint8Array;
}

/** What was found out before, for the report: lines of text, and entries of the JSON object. */
export interface PanicPreface {
  text: string;
  json: object;
}

const SECTOR_BYTES = 512;
const ZONE_HEADER_BYTES = 12;
const REQUEST_BYTES = 8 * SECTOR_BYTES;
/** The core counts a deadline in 32 bits of µs. */
const DEADLINE_MAX_MS = 4_294_967;

/** Where a request in flight does nothing: it rewrites what is there, outside the area if there is room. */
function harmlessOffset(imageBytes: number, area: ImageArea): number {
  const areaEnd = area.offset + area.sizeBytes;
  if (area.offset >= REQUEST_BYTES) return area.offset - REQUEST_BYTES;
  if (imageBytes - areaEnd >= REQUEST_BYTES) return areaEnd;
  return areaEnd - REQUEST_BYTES;
}

/** The card's size: an erase needs sectors behind the image. */
function cardBytes(imageBytes: number, options: PanicPathOptions): number {
  const sizeBytes = roundUp(imageBytes, CARD_GRANULE_BYTES);
  const behindBytes = sizeBytes - roundUp(imageBytes, SECTOR_BYTES);
  return options.inFlight === "erase" && behindBytes < REQUEST_BYTES
    ? sizeBytes + CARD_GRANULE_BYTES
    : sizeBytes;
}

/** Brings the bus into the state asked for. */
function arrange(
  { device }: ImageDevice,
  imageBytes: number,
  area: ImageArea,
  options: PanicPathOptions,
): void {
  const { inFlight } = options;
  const offset = harmlessOffset(imageBytes, area);
  if (inFlight === "none") return;
  if (inFlight === "erase") {
    device.leaveInFlight("erase", roundUp(imageBytes, SECTOR_BYTES), REQUEST_BYTES);
  } else if (inFlight === "stuck") {
    device.injectFault({ kind: "stuck-busy", times: 1, until: "power-cycle" });
    device.leaveInFlight("program", offset, REQUEST_BYTES);
  } else {
    device.leaveInFlight(inFlight, offset, REQUEST_BYTES);
  }
}

const RING_TYPES = ["console", "pmsg"] as const;

async function readRingTexts(options: PanicOptions): Promise<RingText[]> {
  const texts: RingText[] = [];
  if ([options.log, options.console, options.pmsg].filter((path) => path === "-").length > 1) {
    throw new UsageError("-: standard input can be read once");
  }
  for (const type of RING_TYPES) {
    const path = options[type];
    // Found from the bytes, the last ring reaches over blank ones behind it.
    if (path !== undefined && options[`${type}Size`] === undefined) {
      throw new UsageError(`--${type}: no medium states the size of a ring; give --${type}-size too`);
    }
    if (path !== undefined) texts.push({ type, text: (await readLog(path)).text });
  }
  return texts;
}

/** @throws MmcError EINVAL, before anything is written: the core cannot write such a ring */
function checkRings(name: string, area: PanicArea, texts: RingText[]): void {
  const missing = texts.find(({ type }) => (area[`${type}Size`] ?? 0) === 0);
  if (missing === undefined) return;
  const { type } = missing;
  throw new MmcError(
    "EINVAL",
    `--${type}: ${name} has no ${type} ring that can be written: whole sectors, 512 KiB of rings in all`,
  );
}

/** The ring of that type as it must be now. @throws MmcError EIO if it is not */
function checkRingText(name: string, { records, zones }: Decoded, { type, text }: RingText): void {
  const record = records.find((one) => one.type === type);
  const zone = zones.find((one) => one.type === type);
  const kept = text.subarray(-((zone?.size ?? 0) - ZONE_HEADER_BYTES));
  if (record?.state === "ok" && Buffer.compare(record.bytes, kept) === 0) return;
  throw new MmcError("EIO", `${name}: the ${type} ring does not hold what was written`);
}

function now(): RecordTime {
  const nowMs = Date.now();
  return { timeSec: BigInt(Math.floor(nowMs / 1000)), timeNsec: (nowMs % 1000) * 1_000_000 };
}

/** A failed panic write as an error; the file's own error says more than the card's. */
function failureOf(name: string, card: CardKind, result: PanicResult, cause: unknown): MmcError {
  const failure = describeFailure(result, card);
  if (result.status === -ERRNO.ECANCELED) {
    return new MmcError("ECANCELED", `${name}: the reason is behind --max-reason, nothing was written`);
  }
  const { failedCommand, r1, firstRefused, step } = result;
  const first = firstRefused && { command: firstRefused.command, r1: firstRefused.r1 ?? undefined };
  const details = { ...(first ?? { command: failedCommand ?? undefined, r1 }), step, cause };
  if (cause instanceof MmcError) {
    return new MmcError(cause.code, `${cause.message} (the panic write failed with ${failure})`, details);
  }
  return new MmcError("EIO", `${name}: the panic write failed with ${failure}`, details);
}

/**
 * Sizes that the user gave may cut the area into other zones than those that are there; then records in them
 * would look torn, and free. Refused while that would cost a record.
 */
function checkSameLayout({ bytes, decoded, image }: OpenedArea<Image>, options: PanicPathOptions): void {
  const { kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus, abi } = options;
  const isGiven = [kmsgSize, pmsgSize, consoleSize, ftraceSize, cpus, abi].some((one) => one !== undefined);
  if (!isGiven || options.force) return;
  const isKept = (record: PstoreRecord) =>
    decoded.records.some((one) => one.offset === record.offset && one.state === "ok");
  const found = decodeArea(bytes);
  const lost = found.records.find((record) => record.state === "ok" && !isKept(record));
  if (lost === undefined) return;
  throw new MmcError(
    "EUCLEAN",
    `${image.name}: holds ${lost.name} in zones of ${found.geometry.kmsgSize} bytes ` +
      `(${found.geometry.abi}), which the given sizes would destroy; leave them out, or use --force`,
  );
}

/** What was before in the zones that now hold the log, as far as that were records. */
function replacedRecords(before: Decoded, { parts }: JoinedLog): PstoreRecord[] {
  const zones = new Set(parts.map(({ id }) => id));
  return before.records.filter(
    (record) => record.type === "kmsg" && zones.has(record.id) && record.state !== "torn",
  );
}

/** The log whose newest part is in `zone`, as it must be now. @throws MmcError EIO if it is not */
function storedLog(
  name: string,
  after: Decoded,
  text: Uint8Array,
  { zone, storedBytes }: PanicResult,
): JoinedLog {
  const log = joinLogs(after.records).find(({ parts }) => parts.at(-1)?.id === zone);
  // A text that lost its oldest bytes keeps its first line.
  const lineBytes = partLineBytes(text);
  const stored = Buffer.concat([
    text.subarray(0, lineBytes),
    text.subarray(text.length - storedBytes + lineBytes),
  ]);
  const isWhole = log?.parts.every(({ state }) => state === "ok") && Buffer.compare(log.text, stored) === 0;
  if (log === undefined || !isWhole)
    throw new MmcError("EIO", `${name}: zone ${zone} does not hold what was written`);
  return log;
}

/** Refuses options that contradict each other, before anything is opened. */
export function checkPanicOptions({ card, inFlight, policy, keep, ...options }: PanicPathOptions): void {
  if (keep !== undefined && policy !== "newest") {
    throw new UsageError(`--keep ${keep}: belongs to --policy newest`);
  }
  if (card !== "emmc" && inFlight === "sleep") {
    throw new MmcError("EOPNOTSUPP", "--in-flight sleep: an SD card has no sleep, an eMMC has");
  }
  checkVcdOptions(options);
}

async function panic(location: string, options: PanicOptions): Promise<void> {
  checkPanicOptions(options);
  checkPanicDumpOptions(options);
  const rings = await readRingTexts(options);
  const log = await readLog(options.log);
  const { reason } = options;
  const dump = PanicDump.open(options);
  try {
    await writePanic(location, { ...log, rings, reason, dump, ...(options.time ?? now()) }, options);
  } finally {
    dump?.close();
  }
}

/** Why the oldest text is in no record. */
function whyDropped({ parts, partsStatus }: PanicResult): string {
  if (partsStatus !== 0) return `no further part after ${counted(parts, "part")} (${codeOf(partsStatus)})`;
  return parts > 1 ? `all ${parts} parts are full` : "the record is full";
}

/** Writes one record to the image at `location` through the panic path, and reports. */
export async function writePanic(
  location: string,
  log: PanicLog,
  options: PanicPathOptions,
  preface: PanicPreface = { text: "", json: {} },
): Promise<void> {
  const { card, inFlight } = options;
  const ringTexts = log.rings ?? [];
  await withWritableArea(location, options, "zones", async (opened) => {
    checkSameLayout(opened, options);
    const { image, area, decoded } = opened;
    const { geometry } = decoded;
    const imageArea: ImageArea = { offset: area.offset, sizeBytes: area.sizeBytes, geometry };
    checkRings(image.name, panicAreaOf(image.name, imageArea), ringTexts);
    const { dump = null } = log;
    const dumpOptions = await dump?.place(image, options.force === true);
    const isTraced = options.trace === true || options.vcd !== undefined;
    let events: TraceEvent[] = [];
    let lost = 0;
    const attached = openImageDevice(image, imageArea, {
      card,
      sizeBytes: cardBytes(image.sizeBytes, options),
      policy: options.policy,
      keepLogs: options.keep,
      parts: options.parts,
      maxReason: options.maxReason && REASON_NUMBERS[options.maxReason],
      dma: options.pio !== true,
      compress: options.compress,
      deadlineUs: options.deadline === undefined ? undefined : options.deadline * 1000,
      dump: dumpOptions,
      onTrace: (more, gone) => {
        // A dump makes some events a sector: what nobody asked for is not kept.
        for (const event of more) if (isTraced || event.kind === "step") events.push(event);
        lost += gone;
      },
    });
    const { device } = attached;
    for (const region of dump?.regions ?? []) device.registerRegion(region);
    const snapshots =
      options.snapshots === undefined ? null : new PanicSnapshots(options.snapshots, device, imageArea);
    for (const { type, text } of ringTexts) {
      if (type === "console") device.writeConsole(text);
      else device.writePmsg(text);
    }
    dump?.clearForeign(image);
    arrange(attached, image.sizeBytes, imageArea, options);
    device.takeMediumFailure();
    device.clearTrace();
    events = [];
    lost = 0;
    const { text, reason, timeSec, timeNsec } = log;
    const result = (snapshots ?? device).panicWrite({ text, reason, timeSec, timeNsec });
    const droppedBytes = result.droppedBytes + log.olderBytes;
    const cause = device.takeMediumFailure();
    if (result.status !== 0) {
      if (options.trace && !options.json) await write(traceLines(events, card));
      if (options.vcd !== undefined) writeVcd(options.vcd, events, card, options.vcdBits === true);
      const failure = failureOf(image.name, card, result, cause);
      if (options.json) {
        // The same object as of a panic that went well, with what there is not as null.
        const { code, message } = failure;
        const json = {
          ...preface.json,
          record: null,
          furtherParts: [],
          replaced: [],
          result: { ...result, droppedBytes },
          steps: stepsOf(events, result),
          ...snapshots?.json,
          ...(options.trace ? { trace: { lost, events } } : {}),
          error: { code, message },
        };
        await write(formatJson(json));
      }
      throw failure;
    }
    image.syncSync();

    // The core has compared what it wrote; what stands in the file is asked of the decoder, which shares no
    // code with it.
    const bytes = await image.read(area.offset, area.sizeBytes);
    const after = decodeArea(bytes, { ...geometry });
    const written = storedLog(image.name, after, log.text, result);
    const [record, ...furtherParts] = [...written.parts].reverse();
    if (record === undefined) throw new MmcError("EIO", `${image.name}: there is no record`);
    if (result.ringsStatus === 0) for (const one of ringTexts) checkRingText(image.name, after, one);
    const stands = dumpOptions && result.dump ? await checkDump(image, dumpOptions.area, result.dump) : null;
    if (options.vcd !== undefined) writeVcd(options.vcd, events, card, options.vcdBits === true);
    const replaced = replacedRecords(decoded, written);
    const steps = stepsOf(events, result);
    const commit = formatNs(result.commitNs - result.startNs);

    if (result.ringsStatus !== 0) {
      remark(`${image.name}: a ring was not flushed: ${codeOf(result.ringsStatus)}; the record stands`);
    }
    if (result.dump !== null && result.dump.status !== 0) {
      remark(
        `${image.name}: the crash dump is not complete: ${codeOf(result.dump.status)}; the record stands`,
      );
    }
    if (options.json) {
      const json = {
        ...preface.json,
        record: recordJson(record, area.offset),
        furtherParts: furtherParts.map((part) => recordJson(part, area.offset)),
        replaced: replaced.map((one) => recordJson(one, area.offset)),
        result: { ...result, droppedBytes },
        steps,
        ...snapshots?.json,
        ...(options.trace ? { trace: { lost, events } } : {}),
      };
      await write(formatJson(json));
      snapshots?.throwIfLost();
      return;
    }
    const zones = `${counted(geometry.kmsgCount, "zone")} of ${formatSize(geometry.kmsgSize)}`;
    await write(preface.text);
    await write(`${image.name} as ${CARD_NAMES[card]} of ${formatSize(device.sizeBytes)}, ${zones}`);
    await write(`, in flight: ${inFlight}\n`);
    if (options.trace) {
      if (lost > 0) await write(color.dim(`${lost} events of the trace are lost\n`));
      await write(traceLines(events, card));
    } else {
      if (lost > 0) await write(color.dim("steps may be missing, the trace was full\n"));
      for (const step of steps) await write(formatStep(step, result));
    }
    const inParts = result.parts > 1 ? ` in ${result.parts} parts` : "";
    const deflated = result.compressed ? `, deflated to ${result.payloadBytes}` : "";
    await write(
      `${color.bold(record.name)}: ${record.reason} ${record.count}, ${formatTime(record) ?? "no time"}, ` +
        `${result.storedBytes} bytes of the log${inParts}${deflated}, durable after ${commit}\n`,
    );
    for (const part of furtherParts) {
      await write(
        `${color.bold(part.name)}: part ${part.part} of it, ${part.size - part.textOffset} bytes\n`,
      );
    }
    for (const ring of after.records.filter(({ type }) => ringTexts.some((one) => one.type === type))) {
      await write(`${color.bold(ring.name)}: ${ring.size} bytes\n`);
    }
    if (result.dump !== null) await write(describeDump(result.dump, stands, result.startNs));
    if (droppedBytes > 0)
      await write(`${whyDropped(result)}: the ${droppedBytes} oldest bytes were dropped\n`);
    if (result.attempts > 1) await write(`zones tried: ${result.attempts}\n`);
    for (const one of replaced) {
      await write(
        `every zone held a record: ${one.name} (${one.reason} ${one.count}, ` +
          `${formatTime(one) ?? "no time"}) was replaced\n`,
      );
    }
    await write(snapshots?.text ?? "");
    snapshots?.throwIfLost();
  });
}

/** The options of the way onto the card: card, request in flight, policy, area, trace. */
export function addPanicPathOptions(command: Command): Command {
  command
    .optionsGroup("Card and bus:")
    .option(
      "--card <card>",
      "emmc, sd (SDHC), sdsc or sdxc",
      (text) => parseChoice("--card", text, CARDS),
      "emmc",
    )
    .option(
      "--in-flight <what>",
      IN_FLIGHT.join(", "),
      (text) => parseChoice("--in-flight", text, IN_FLIGHT),
      "none",
    )
    .option("--pio", "move data by register accesses instead of ADMA2")
    .option("--deadline <ms>", "longest time of the panic write, simulated (10000)", (text) => {
      const value = /^\d+$/.test(text) ? Number(text) : 0;
      if (value >= 1 && value <= DEADLINE_MAX_MS) return value;
      throw new UsageError(`--deadline ${text}: must be 1 to ${DEADLINE_MAX_MS} milliseconds`);
    })
    .optionsGroup("Which zones the record takes:")
    .option(
      "--policy <policy>",
      "which record to give up when all zones hold one: first-wins (the newest), ring (the next one, as Linux), " +
        "newest (of the oldest log)",
      (text) => parseChoice("--policy", text, POLICY_NAMES),
      "first-wins",
    )
    .option(
      "--parts <count>",
      "zones that a long log may take, the newest text first",
      (text) => parseCount("--parts", text, PARTS_MAX),
      1,
    )
    .option(
      "--keep <count>",
      "with --policy newest: older text may replace logs beyond the newest ones",
      (text) => parseCount("--keep", text, ZONES_MAX),
    )
    .option("--max-reason <reason>", "take no dump of a reason behind this one (Shutdown)", (text) =>
      parseChoice("--max-reason", text, REASONS),
    )
    .option(
      "--force",
      "write even over what is no zone and no dump, or records that other zone sizes destroy",
    )
    .optionsGroup("What is told:")
    .option("--trace", "print every command, answer, block and busy time on the bus")
    .option("--snapshots <file>", "keep what the registers and the area were, for mmcpstore devlink")
    .option("--json", "print the result as JSON");
  addVcdOptions(command, "the same");
  return addGeometryOptions(addAreaOptions(command.optionsGroup("Where the pstore area is, and its zones:")));
}

export function addPanic(program: Command): void {
  const command = program
    .command("panic")
    .summary("write a crash log through the panic path")
    .description(
      "Attach IMAGE to a simulated card, leave a request on the bus, panic, and let the polled panic path " +
        "write the log into the pstore area.",
    )
    .argument("<image>", "raw image or block device")
    .optionsGroup("The record:")
    .requiredOption(
      "--log <file>",
      "the text to write, - for standard input; its newest part if it is too long",
    )
    .option("--console <file>", "what the console ring has in memory when the panic comes")
    .option("--pmsg <file>", "the same of the pmsg ring (what user space wrote)")
    .option(
      "--reason <reason>",
      "Panic, Oops, Emergency or Shutdown",
      (text) => parseChoice("--reason", text, REASONS),
      "Panic",
    )
    .option("--time <time>", "of the record: ISO 8601 or seconds since 1970 (now)", parseTimeOption)
    .option("--no-compress", "write the log as it is, even if more of it would fit deflated");
  addPanicDumpOptions(addPanicPathOptions(command))
    .addHelpText(
      "after",
      `${imageHelp(true)}
The request in flight rewrites the bytes that are there: nothing outside the pstore area of IMAGE changes,
and inside it one kmsg zone, those of further parts, and the rings that were written to. Times shown are simulated.
A crash dump is an ELF core of the regions, stored behind the record as far as the deadline allows; "mmcpstore
core" reads it. Two stay in a dump area that has room for both; of more, the newest complete one does. An area
with room for one keeps that with --policy first-wins, and takes the new one instead with others.
An eMMC of up to 2 GiB and an SDSC card are addressed by bytes, all others by sectors: as real ones are.

Examples:
  mmcpstore panic disk.img --log panic.txt
  mmcpstore panic disk.img --log panic.txt --in-flight write --trace
  mmcpstore panic disk.img --log long.txt --parts 8 && mmcpstore extract disk.img logs/ --join
  mmcpstore panic disk.img --force --log panic.txt --console console.txt --console-size 64K
  mmcpstore panic disk.img --log panic.txt --dump-area dump --dump-region ram=ram.bin@0
  mmcpstore panic disk.img --log panic.txt --vcd panic.vcd
  mmcpstore panic disk.img --log panic.txt --snapshots crash.snap
  dmesg | mmcpstore panic disk.img --log - --reason oops --card sd --in-flight stuck`,
    )
    .action(panic);
}
