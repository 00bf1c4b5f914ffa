// `mmcpstore rm IMAGE NAME… | --all`: what Linux's unlink changes on the medium, no more. Of a kmsg zone
// that is the four bytes of datalen, of a ring datalen and start. Of ftrace that is so for every CPU: Linux removes
// the first CPU's slice alone, and the file is back at the next boot. A salvaged record, which Linux does not see, loses
// its seal too, or it would be salvaged again. With --wipe the seal and then the payload become zero; the headers
// stay, so that counters never go back. Each step is durable before the next: a cut leaves a record that is whole, or
// erased. Every name is looked up before the first is removed.
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import type { RawImage } from "../image/raw.js";
import type { Decoded, PstoreRecord, ZoneInfo } from "../pstore/decode.js";
import { findRecord } from "./cat.js";
import { withErased } from "./ls.js";
import { withWritableArea } from "./open-area.js";
import { addAreaOptions, addGeometryOptions, type ImageOptions, imageHelp } from "./options.js";
import { color, UsageError, write } from "./output.js";

/** datalen stands behind the signature, start behind it. */
const DATALEN_OFFSET = 4;
const SEAL_BYTES = 64;
const RING_HEADER_BYTES = 12;
const KMSG_HEADERS_BYTES = { lp64: 52, i386: 40 } as const;

/** Zeros at `offset` of the image, durable when this returns. */
function clear(image: RawImage, offset: number, lengthBytes: number): void {
  if (lengthBytes <= 0) return;
  image.writeSync(offset, new Uint8Array(lengthBytes));
  image.syncSync();
}

/** `offset`: of the zone on the image. */
function removeRecord(
  image: RawImage,
  record: PstoreRecord,
  zone: ZoneInfo,
  offset: number,
  wipe: boolean,
): void {
  const isKmsg = record.type === "kmsg";
  const sealOffset = offset + zone.size - SEAL_BYTES;
  clear(image, offset + DATALEN_OFFSET, isKmsg ? 4 : 8);
  if (isKmsg && (wipe || record.state === "salvaged")) clear(image, sealOffset, SEAL_BYTES);
  if (!wipe) return;
  const headersBytes = isKmsg ? KMSG_HEADERS_BYTES[record.abi] : RING_HEADER_BYTES;
  clear(image, offset + headersBytes, zone.size - headersBytes);
}

/** The zones that the record is made of. */
function zonesOf(record: PstoreRecord, { zones }: Decoded): ZoneInfo[] {
  if (record.type === "ftrace")
    return zones.filter(({ type, datalen }) => type === "ftrace" && datalen !== 0);
  return zones.filter(({ type, offset }) => type === record.type && offset === record.offset);
}

async function remove(
  location: string,
  names: string[],
  options: ImageOptions & { all?: boolean; wipe?: boolean },
): Promise<void> {
  if (options.all && names.length > 0) throw new UsageError("--all: takes no names");
  if (!options.all && names.length === 0) throw new UsageError("rm: which records? Name them, or use --all");
  await withWritableArea(location, options, async ({ image, area, decoded }) => {
    // What unlink left of a removed record is there to be wiped.
    const records = options.wipe ? withErased(decoded) : decoded.records;
    const doomed: PstoreRecord[] = options.all
      ? records
      : [...new Set(names)].map((name) => findRecord(image.name, records, name));
    for (const record of doomed) {
      const zones = zonesOf(record, decoded);
      if (zones.length === 0) throw new MmcError("ENOENT", `${record.name}: has no zone`);
      for (const zone of zones) {
        removeRecord(image, record, zone, area.offset + zone.offset, options.wipe === true);
      }
    }
    const done = options.wipe ? "wiped" : "removed";
    const lines = doomed.map((record) => `${done} ${record.name}\n`);
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
    .option("--wipe", "clear the text and the seal too, also of records that were removed before")
    .addHelpText(
      "after",
      `${imageHelp(true)}
Nothing is removed unless every name is there. After --wipe only the headers are left: time, reason and
count, so that counters go on. What is cleared is the zone on IMAGE; flash may keep old copies of its own.

Examples:
  mmcpstore rm disk.img dmesg-pstore_blk-0 dmesg-pstore_blk-1
  mmcpstore rm disk.img --all
  mmcpstore rm disk.img --all --wipe`,
    )
    .action(remove);
}
