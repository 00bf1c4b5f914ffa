// `mmcpstore cat IMAGE NAME`: one record, byte for byte, to standard output. Reads only, and prints nothing
// else there.
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import type { PstoreRecord } from "../pstore/decode.js";
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

async function cat(location: string, name: string, options: ImageOptions & { raw?: boolean }): Promise<void> {
  await withArea(location, options, async ({ image, decoded }) => {
    const record = findRecord(image.name, decoded.records, name);
    await write(bytesOf(record, options.raw));
    if (record.state !== "ok") remark(`${name}: the record is ${record.state}`);
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
    .addHelpText(
      "after",
      `${imageHelp(false)}
A torn or undecodable record is printed too, with a remark on standard error.

Examples:
  mmcpstore cat disk.img dmesg-pstore_blk-0
  mmcpstore cat disk.img.gz dmesg-pstore_blk-0 > panic.txt`,
    )
    .action(cat);
}
