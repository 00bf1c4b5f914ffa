// `mmcpstore ls IMAGE`: the records, a row each. Reads only.
import type { Command } from "commander";
import type { PstoreRecord } from "../pstore/decode.js";
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
    state: record.state,
  };
}

/** The table of `ls`. */
export function recordTable(records: PstoreRecord[]): string {
  const rows = records.map((record) => [
    record.name,
    record.reason || "-",
    record.type === "kmsg" ? String(record.count) : "-",
    formatTime(record) ?? "-",
    String(record.size),
    colorState(record.state),
  ]);
  return formatTable(["NAME", "REASON", "COUNT", "TIME", "SIZE", "STATE"], rows, [2, 4]);
}

async function list(location: string, options: ImageOptions & { json?: boolean }): Promise<void> {
  await withArea(location, options, async ({ area, decoded }) => {
    const { records } = decoded;
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
    .option("--json", "an array of objects instead of a table")
    .addHelpText(
      "after",
      `${imageHelp(false)}
STATE is ok, torn (the record is damaged or was not finished) or undecodable (compressed, and not by deflate).
TIME is UTC.

Examples:
  mmcpstore ls disk.img
  mmcpstore ls disk.img.gz --json
  mmcpstore ls disk.img --partition pstore
  mmcpstore ls https://example.org/device.img --offset 12M --size 1M`,
    )
    .action(list);
}
