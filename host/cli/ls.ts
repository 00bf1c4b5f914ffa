// `mmcpstore ls IMAGE`: the records, a row each. Reads only.
import type { Command } from "commander";
import type { Decoded, PstoreRecord } from "../pstore/decode.js";
import { withArea } from "./open-area.js";
import { addImageOptions, type ImageOptions, imageHelp } from "./options.js";
import { color, colorState, formatJson, formatTable, write } from "./output.js";
import { formatTime } from "./time.js";

/** A record as `ls --json` shows it. `offset`: of the zone, in bytes from the start of the image. */
export interface RecordJson {
  name: string;
  type: string;
  id: number;
  reason: string;
  count: number;
  /** ISO 8601 in UTC with nanoseconds; null if it is not known. */
  time: string | null;
  size: number;
  compressed: boolean;
  abi: string;
  offset: number;
  sealed: boolean;
  /** A decimal string, or null. */
  sequence: string | null;
  /** Of a log in several records, 1 the newest; 0: not in several. */
  part: number;
  /** The sequence of part 1, a decimal string, or null. */
  first: string | null;
  /** How much of the log is older than this part, in bytes. */
  olderBytes: number;
  /** Bytes of the line in front of this part's text that are not the log's. */
  lineBytes: number;
  /** The record that this one repeats, or null. */
  duplicateOf: string | null;
  state: string;
}

/** `areaOffset`: where the area begins on the image. */
export function recordJson(record: PstoreRecord, areaOffset: number): RecordJson {
  return {
    name: record.name,
    type: record.type,
    id: record.id,
    reason: record.reason,
    count: record.count,
    time: formatTime(record),
    size: record.size,
    compressed: record.compressed,
    abi: record.abi,
    offset: areaOffset + record.offset,
    sealed: record.sealed,
    sequence: record.sequence === null ? null : record.sequence.toString(),
    part: record.part,
    first: record.first === null ? null : record.first.toString(),
    olderBytes: record.olderBytes,
    lineBytes: record.lineBytes,
    duplicateOf: record.duplicateOf,
    state: record.state,
  };
}

/** What the columns do not say: a part of a longer log, the same record twice. */
function note(record: PstoreRecord): string {
  if (record.state === "unfinished") return "its header is missing";
  if (record.state === "erased" && record.size === 0) return "its text is not wiped";
  if (record.duplicateOf !== null) return `duplicate of ${record.duplicateOf}`;
  return record.part === 0 ? "" : `part ${record.part} of log ${record.first}`;
}

/** The table of `ls`; with a column NOTE if there is one to make. */
export function recordTable(records: PstoreRecord[]): string {
  const notes = records.map(note);
  const hasNotes = notes.some((one) => one !== "");
  const rows = records.map((record, index) => [
    record.name,
    record.reason || "-",
    record.type === "kmsg" ? String(record.count) : "-",
    formatTime(record) ?? "-",
    String(record.size),
    colorState(record.state),
    ...(hasNotes ? [notes[index] ?? ""] : []),
  ]);
  const head = ["NAME", "REASON", "COUNT", "TIME", "SIZE", "STATE", ...(hasNotes ? ["NOTE"] : [])];
  return formatTable(head, rows, [2, 4]);
}

/** By zone; rings last, as Linux lists them. */
function inOrder(records: PstoreRecord[]): PstoreRecord[] {
  const rank = (record: PstoreRecord): number =>
    record.type === "kmsg" ? record.id : Number.MAX_SAFE_INTEGER;
  return records.sort((one, other) => rank(one) - rank(other));
}

/** The records, and those whose write was cut. */
export function withUnfinished({ records, remains }: Decoded): PstoreRecord[] {
  const unfinished = remains.filter(({ state }) => state === "unfinished");
  return unfinished.length === 0 ? records : inOrder([...records, ...unfinished]);
}

/** Those, the removed ones, provable or not, and what else is left to be wiped. */
export function withErased({ records, erased, remains }: Decoded): PstoreRecord[] {
  return inOrder([...records, ...erased, ...remains]);
}

async function list(
  location: string,
  options: ImageOptions & { json?: boolean; all?: boolean },
): Promise<void> {
  await withArea(location, options, async ({ area, decoded }) => {
    const records = options.all ? withErased(decoded) : withUnfinished(decoded);
    if (options.json) await write(formatJson(records.map((record) => recordJson(record, area.offset))));
    else if (records.length === 0) await write(color.dim("no records\n"));
    else await write(recordTable(records));
  });
}

export function addLs(program: Command): void {
  const command = program
    .command("ls")
    .summary("list the records")
    .description("List the records of a pstore area in the order in which Linux lists them.")
    .argument("<image>", "raw, .gz or http(s):// image");
  addImageOptions(command)
    .option(
      "--all",
      "removed records too, as far as bytes of them are left (cat --all prints those that a seal proves)",
    )
    .option("--json", "an array of objects instead of a table")
    .addHelpText(
      "after",
      `${imageHelp(false)}
STATE is ok; torn: damaged, or never finished; salvaged: the zone's header is damaged and the text stands, or a
compressed record broke off and this is what came out; undecodable: compressed, and not by deflate; unfinished:
a write that was cut before its header, or that is lost, nothing can be shown; erased: removed.
TIME is UTC. NOTE: a log in several records (extract --join), or a record that is there twice.

Examples:
  mmcpstore ls disk.img
  mmcpstore ls disk.img.gz --json
  mmcpstore ls disk.img --partition pstore
  mmcpstore ls https://example.org/device.img --offset 12M --size 1M`,
    )
    .action(list);
}
