// `mmcpstore harvest REGION --into IMAGE`: a crash log out of a guest's ramoops, in a RAM dump, goes through the panic
// path onto the card image, with its own reason and time. REGION is never changed.
import type { Command } from "commander";
import { fitText } from "../core/panic-text.js";
import { REASONS as REASON_NUMBERS } from "../core/profile.js";
import type { Reason } from "../device.js";
import { newestRecord, type RamoopsEcc, type RamoopsRecord } from "../embed/ramoops.js";
import { MmcError } from "../errors.js";
import { ownBytes } from "../own-bytes.js";
import { addTimeoutOption, imageHelp, parseChoice, parseSize } from "./options.js";
import {
  color,
  colorState,
  counted,
  formatJson,
  formatSize,
  formatTable,
  UsageError,
  write,
} from "./output.js";
import { addPanicPathOptions, checkPanicOptions, type PanicPathOptions, writePanic } from "./panic.js";
import { hex, type OpenedRegion, openRegion, type RegionOptions } from "./ramoops-region.js";
import { formatTime } from "./time.js";

const REASONS = Object.keys(REASON_NUMBERS) as Reason[];
const ECC_SIZE_MAX = 127;

interface HarvestOptions extends RegionOptions, Omit<PanicPathOptions, "timeout"> {
  into?: string;
  list?: boolean;
  record?: string;
  reason?: Reason;
}

function describeEcc(ecc: RamoopsEcc | null): string {
  if (ecc === null) return "no ECC";
  const { correctedBytes, badBlocks } = ecc;
  if (correctedBytes + badBlocks === 0) return "no errors";
  const corrected = `${counted(correctedBytes, "byte")} corrected`;
  return badBlocks === 0 ? corrected : `${corrected}, ${counted(badBlocks, "block")} beyond correction`;
}

function recordJson(record: RamoopsRecord) {
  const { name, type, id, reason, count, part, compressed, state, ecc } = record;
  const time = formatTime(record);
  return { name, type, id, reason, count, part, time, size: record.bytes.length, compressed, state, ecc };
}

function regionJson({ name, range, eccSize, ecc }: OpenedRegion) {
  return { file: name, offset: range.offset, size: range.sizeBytes, eccSize, ecc };
}

async function list(region: OpenedRegion, isJson: boolean): Promise<void> {
  const { records } = region;
  if (isJson) {
    await write(formatJson({ region: regionJson(region), records: records.map(recordJson) }));
    return;
  }
  if (records.length === 0) {
    await write(color.dim("no records\n"));
    return;
  }
  const rows = records.map((record) => [
    record.name,
    record.reason || "-",
    record.count > 0 ? String(record.count) : "-",
    formatTime(record) ?? "-",
    String(record.bytes.length),
    describeEcc(record.ecc),
    colorState(record.state),
  ]);
  await write(formatTable(["NAME", "REASON", "COUNT", "TIME", "SIZE", "ECC", "STATE"], rows, [2, 4]));
}

/** The record of that name or slot; without one the newest panic, and if there is none the newest of all. */
function choose({ name, records }: OpenedRegion, wanted: string | undefined): RamoopsRecord {
  if (wanted === undefined) {
    const newest = newestRecord(records, "Panic") ?? newestRecord(records);
    if (newest !== null) return newest;
    const [first] = records.filter((record) => record.type === "dmesg");
    if (first !== undefined) return first;
    throw new MmcError("ENODATA", `${name}: the ramoops region holds no crash log`);
  }
  const found = records.find(
    (one) => one.name === wanted || (one.type === "dmesg" && String(one.id) === wanted),
  );
  if (found !== undefined) return found;
  const names = records.slice(0, 16).map((record) => record.name);
  const there = names.length === 0 ? "it holds no records" : `there are ${names.join(", ")}`;
  throw new MmcError("ENOENT", `${wanted}: no such record in ${name}, ${there}`);
}

function reasonOf(record: RamoopsRecord, options: HarvestOptions): Reason {
  const name = (options.reason ?? record.reason).toLowerCase();
  const reason = REASONS.find((one) => one.toLowerCase() === name);
  if (reason === undefined) {
    throw new MmcError("EINVAL", `${record.name}: does not tell its reason, say it with --reason`);
  }
  return reason;
}

async function harvest(location: string, options: HarvestOptions): Promise<void> {
  const { into } = options;
  if (options.list && into !== undefined) throw new UsageError("--list: cannot be combined with --into");
  if (!options.list && into === undefined) throw new UsageError("--into: say which image, or --list");
  checkPanicOptions(options);
  const region = await openRegion(location, options);
  if (into === undefined) {
    await list(region, options.json === true);
    return;
  }
  const record = choose(region, options.record);
  if (record.state === "undecodable") {
    throw new MmcError("EILSEQ", `${record.name}: is compressed, and not by deflate; it cannot be read`);
  }
  if (record.bytes.length === 0) throw new MmcError("ENODATA", `${record.name}: has no text`);
  const text = ownBytes(fitText(record.bytes));
  const olderBytes = record.bytes.length - text.length;
  const { timeSec, timeNsec } = record;
  const what =
    `${region.name}: ramoops region of ${formatSize(region.range.sizeBytes)} at ${hex(region.range.offset)}\n` +
    `${color.bold(record.name)}: ${record.reason || "-"} ${record.count}, ${formatTime(record) ?? "no time"}, ` +
    `${record.bytes.length} bytes, ${describeEcc(record.ecc)}` +
    `${record.state === "ok" ? "" : `, ${colorState(record.state)}`}\n`;
  await writePanic(
    into,
    { text, olderBytes, timeSec, timeNsec, reason: reasonOf(record, options) },
    options,
    { text: what, json: { region: regionJson(region), source: recordJson(record) } },
  );
}

/** `0x8000000`, or as every other size. */
function parseAddress(text: string): number {
  const value = /^0x[0-9a-f]{1,13}$/i.test(text) ? Number(text) : undefined;
  return value ?? parseSize("--mem-address", text, { min: 0, multipleOf: 1 });
}

function parseMemSize(text: string): number {
  return /^0x[0-9a-f]{1,13}$/i.test(text)
    ? parseSize("--mem-size", String(Number(text)), { min: 12, multipleOf: 1 })
    : parseSize("--mem-size", text, { min: 12, multipleOf: 1 });
}

export function addHarvest(program: Command): void {
  const command = program
    .command("harvest")
    .summary("bring a crash log from a guest's ramoops onto the card")
    .description(
      "Read the ramoops region of a crashed guest out of a RAM dump, and write its newest panic through the " +
        "panic path into the pstore area of an image, with its reason and time.",
    )
    .argument("<region>", "a file with the region, or a dump of the whole RAM; raw, .gz or http(s)://")
    .option("--into <image>", "raw image or block device that gets the record")
    .option("--list", "list the records of the region, and write nothing")
    .option("--record <which>", "slot or name, as --list shows it (the newest panic, else the newest record)")
    .option(
      "--reason <reason>",
      "if the record does not tell it: Panic, Oops, Emergency or Shutdown",
      (text) => parseChoice("--reason", text, REASONS),
    )
    .option("--mem-address <bytes>", "where the region begins in the file (found)", parseAddress)
    .option("--mem-size <bytes>", "its size (to the end of the file)", parseMemSize)
    .option("--record-size <bytes>", "record_size of ramoops (found)", (text) =>
      parseSize("--record-size", text, { min: 16, multipleOf: 1, max: 2 ** 27 }),
    )
    .option(
      "--ecc <bytes>",
      "ecc of ramoops: parity bytes a block, 0 none, 1 stands for 16 (found)",
      (text) => parseSize("--ecc", text, { min: 0, multipleOf: 1, max: ECC_SIZE_MAX }),
    );
  addTimeoutOption(addPanicPathOptions(command))
    .addHelpText(
      "after",
      `
REGION: if the file begins with a zone, it is the region; otherwise it is searched for one that begins at a
whole page. Where its first header is damaged, say --mem-address. Zones and ECC are found from signatures and
parity. With ECC, wrong bytes are corrected and counted; a record that is damaged beyond that is written
all the same, and called damaged. ramoops stores the newest part of a log only, so a record is never in parts.
${imageHelp(true)}
Examples:
  mmcpstore harvest ram.bin --list
  mmcpstore harvest ram.bin --into disk.img --in-flight write
  mmcpstore harvest ram.bin --mem-address 0x100000 --mem-size 64K --into disk.img --card sd`,
    )
    .action(harvest);
}
