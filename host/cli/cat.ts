// `mmcpstore cat IMAGE NAME`: one record, byte for byte, to standard output. Reads only, and prints nothing
// else there.
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import type { PstoreRecord } from "../pstore/decode.js";
import { withErased, withUnfinished } from "./ls.js";
import { withArea } from "./open-area.js";
import { addImageOptions, type ImageOptions, imageHelp } from "./options.js";
import { remark, write } from "./output.js";

const NAMES_SHOWN = 16;

/** The record of that name. @throws MmcError ENOENT, which lists what there is. */
export function findRecord(imageName: string, records: PstoreRecord[], name: string): PstoreRecord {
  const found = records.find((record) => record.name === name);
  if (found !== undefined) return found;
  const names = records.slice(0, NAMES_SHOWN).map((record) => record.name);
  if (records.length > names.length) names.push(`${records.length - names.length} more`);
  const there = names.length === 0 ? "it holds no records" : `there are ${names.join(", ")}`;
  throw new MmcError("ENOENT", `${name}: no such record in ${imageName}, ${there}`);
}

/** What a record's file holds; `raw`: the records of ftrace instead of their text. */
export function bytesOf(record: PstoreRecord, raw: boolean | undefined): Uint8Array {
  return raw ? (record.raw ?? record.bytes) : record.bytes;
}

/** What a record that is not ok is, in words. */
export function stateRemark(record: PstoreRecord): string {
  if (record.state !== "salvaged") return `the record is ${record.state}`;
  if (record.sealed && !record.compressed)
    return "salvaged: the zone's header is damaged, the seal proves the text";
  return record.sealed
    ? "salvaged: the zone's header or the compressed text is damaged, this is what could be had"
    : "salvaged: the record is damaged and nothing proves this text";
}

async function cat(
  location: string,
  name: string,
  options: ImageOptions & { all?: boolean; raw?: boolean },
): Promise<void> {
  await withArea(location, options, async ({ image, decoded }) => {
    const records = options.all ? withErased(decoded) : withUnfinished(decoded);
    const record = findRecord(image.name, records, name);
    if (record.state === "unfinished" || (record.state === "erased" && record.size === 0)) {
      const why = record.state === "erased" ? "was removed, and nothing proves its text" : "is unfinished";
      throw new MmcError("ENODATA", `${name}: ${why}; there is nothing to show`);
    }
    await write(bytesOf(record, options.raw));
    if (record.state !== "ok") remark(`${name}: ${stateRemark(record)}`);
  });
}

export function addCat(program: Command): void {
  const command = program
    .command("cat")
    .summary("print one record")
    .description("Write to standard output the bytes that Linux's pstore file system would show.")
    .argument("<image>", "raw, .gz or http(s):// image")
    .argument("<name>", "a name that ls shows");
  addImageOptions(command)
    .option("--raw", "of ftrace the records as they are, merged, instead of their text")
    .option("--all", "also a removed record, if the seal still proves it")
    .addHelpText(
      "after",
      `${imageHelp(false)}
A torn, salvaged or undecodable record is printed too, with a remark on standard error.

Examples:
  mmcpstore cat disk.img dmesg-pstore_blk-0
  mmcpstore cat disk.img.gz dmesg-pstore_blk-0 > panic.txt`,
    )
    .action(cat);
}
