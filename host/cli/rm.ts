// `mmcpstore rm IMAGE NAME… | --all`: what Linux's unlink changes on the medium, no more. Of a kmsg zone
// that is the four bytes of datalen, of a ring datalen and start. Of ftrace that is so for every CPU: Linux removes
// the first CPU's slice alone, and the file is back at the next boot. Every name is looked up before the first is
// removed.
import type { Command } from "commander";
import type { Decoded, PstoreRecord } from "../pstore/decode.js";
import { findRecord } from "./cat.js";
import { withWritableArea } from "./open-area.js";
import { addAreaOptions, addGeometryOptions, type ImageOptions, imageHelp } from "./options.js";
import { color, UsageError, write } from "./output.js";

/** datalen stands behind the signature, start behind it. */
const DATALEN_OFFSET = 4;

/** Where the zones begin that the record is made of. */
function zoneOffsets(record: PstoreRecord, { zones }: Decoded): number[] {
  if (record.type !== "ftrace") return [record.offset];
  return zones.filter(({ type, datalen }) => type === "ftrace" && datalen !== 0).map(({ offset }) => offset);
}

async function remove(
  location: string,
  names: string[],
  options: ImageOptions & { all?: boolean },
): Promise<void> {
  if (options.all && names.length > 0) throw new UsageError("--all: takes no names");
  if (!options.all && names.length === 0) throw new UsageError("rm: which records? Name them, or use --all");
  await withWritableArea(location, options, async ({ image, area, decoded }) => {
    const { records } = decoded;
    const doomed: PstoreRecord[] = options.all
      ? records
      : [...new Set(names)].map((name) => findRecord(image.name, records, name));
    for (const record of doomed) {
      const erased = new Uint8Array(record.type === "kmsg" ? 4 : 8);
      for (const offset of zoneOffsets(record, decoded)) {
        image.writeSync(area.offset + offset + DATALEN_OFFSET, erased);
      }
      image.syncSync();
    }
    const lines = doomed.map((record) => `removed ${record.name}\n`);
    await write(lines.length === 0 ? color.dim("no records\n") : lines.join(""));
  });
}

export function addRm(program: Command): void {
  const command = program
    .command("rm")
    .summary("remove records")
    .description("Remove records as Linux's unlink does: their length becomes 0, nothing else changes.")
    .argument("<image>", "raw image or block device")
    .argument("[names...]", "names that ls shows");
  addGeometryOptions(addAreaOptions(command))
    .option("--all", "remove every record")
    .addHelpText(
      "after",
      `${imageHelp(true)}
Nothing is removed unless every name is there.

Examples:
  mmcpstore rm disk.img dmesg-pstore_blk-0 dmesg-pstore_blk-1
  mmcpstore rm disk.img --all`,
    )
    .action(remove);
}
