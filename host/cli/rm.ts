// `mmcpstore rm IMAGE NAME… | --all`: what Linux's unlink changes on the medium, no more. Of a kmsg zone
// that is the four bytes of datalen, of a ring datalen and start. Of ftrace that is so for every CPU: Linux
// removes the first CPU's slice alone, and the file is back at the next boot. A salvaged record, which Linux
// does not see, loses its seal too, or it would be salvaged again. With --wipe the payload and then the seal
// become zero; the headers stay, so that counters never go back. Each step is durable before the next, and each
// state between is one that the zone itself tells (whole, erased, unfinished, wiped), so the same command finishes
// what was cut. Every name is looked up before the first is removed.
import type { Command } from "commander";
import { MmcError } from "../errors.js";
import type { RawImage } from "../image/raw.js";
import type { Decoded, PstoreRecord, ZoneInfo } from "../pstore/decode.js";
import { parseRecordName } from "../pstore/names.js";
import { findRecord } from "./cat.js";
import { withErased, withUnfinished } from "./ls.js";
import { checkZones, type OpenedArea, type WritableOptions, withWritableArea } from "./open-area.js";
import { addAreaOptions, addForceOption, addGeometryOptions, imageHelp } from "./options.js";
import { color, UsageError, write } from "./output.js";

/** datalen stands behind the signature, start behind it. */
const DATALEN_OFFSET = 4;
const SEAL_BYTES = 64;
const RING_HEADER_BYTES = 12;
const KMSG_SIGNATURE = 0x43474244;
const KMSG_MAGIC = 0x4dfc3ae5;
const KMSG_HEADERS_BYTES = { lp64: 52, i386: 40 } as const;

type RemoveOptions = WritableOptions & { all?: boolean; wipe?: boolean };

/** Zeros at `offset` of the image, durable when this returns. */
function clear(image: RawImage, offset: number, lengthBytes: number): void {
  if (lengthBytes <= 0) return;
  image.writeSync(offset, new Uint8Array(lengthBytes));
  image.syncSync();
}

/** A zone of a record, with its place on the image. */
interface Doomed {
  record: PstoreRecord;
  zone: ZoneInfo;
  offset: number;
  /** Signature or magic of kmsg stands: what datalen says is believed. */
  hasHeader: boolean;
}

function removeKmsg(image: RawImage, { record, zone, offset, hasHeader }: Doomed, wipe: boolean): void {
  const sealOffset = offset + zone.size - SEAL_BYTES;
  if (!hasHeader) {
    // Nothing else than the seal says that the bytes are a record's, so it goes last, and with it all the rest.
    clear(image, offset, zone.size - SEAL_BYTES);
    clear(image, sealOffset, SEAL_BYTES);
    return;
  }
  if (record.state !== "erased") clear(image, offset + DATALEN_OFFSET, 4);
  const headersBytes = KMSG_HEADERS_BYTES[record.abi];
  if (wipe) clear(image, offset + headersBytes, zone.size - headersBytes - SEAL_BYTES);
  if (wipe || record.state === "salvaged") clear(image, sealOffset, SEAL_BYTES);
}

function removeRing(image: RawImage, { zone, offset }: Doomed, wipe: boolean): void {
  if (zone.state !== "erased") clear(image, offset + DATALEN_OFFSET, 8);
  if (wipe) clear(image, offset + RING_HEADER_BYTES, zone.size - RING_HEADER_BYTES);
}

function hasKmsgHeader({ bytes }: OpenedArea<RawImage>, { offset }: ZoneInfo): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint32(offset, true) === KMSG_SIGNATURE || view.getUint32(offset + 12, true) === KMSG_MAGIC;
}

/** The zones that the record is made of. */
function zonesOf(record: PstoreRecord, { zones }: Decoded): ZoneInfo[] {
  if (record.type === "ftrace")
    return zones.filter(
      ({ type, datalen, hasRemains }) => type === "ftrace" && (datalen !== 0 || hasRemains),
    );
  return zones.filter(({ type, offset }) => type === record.type && offset === record.offset);
}

/** True if a zone of that name says that its record was removed, and has nothing that were left to do. */
function isRemoved(name: string, { zones }: Decoded): boolean {
  const parsed = parseRecordName(name);
  const isIts = ({ type, index }: ZoneInfo) =>
    type === parsed?.type && (type !== "kmsg" || index === parsed.id);
  const its = parsed === null ? [] : zones.filter(isIts);
  return its.length > 0 && its.every(({ state }) => state === "erased");
}

/** What is to be removed, and the names that were before. */
function choose(
  { image, decoded }: OpenedArea<RawImage>,
  names: string[],
  { all, wipe }: RemoveOptions,
): { records: PstoreRecord[]; before: string[] } {
  // What unlink left of a removed record is there to be wiped.
  const records = wipe ? withErased(decoded) : withUnfinished(decoded);
  if (all) return { records, before: [] };
  const wanted = [...new Set(names)];
  const before = wanted.filter(
    (name) => !records.some((record) => record.name === name) && isRemoved(name, decoded),
  );
  const left = wanted.filter((name) => !before.includes(name));
  return { records: left.map((name) => findRecord(image.name, records, name)), before };
}

async function remove(location: string, names: string[], options: RemoveOptions): Promise<void> {
  if (options.all && names.length > 0) throw new UsageError("--all: takes no names");
  if (!options.all && names.length === 0) throw new UsageError("rm: which records? Name them, or use --all");
  await withWritableArea(location, options, "named", async (opened) => {
    const { image, area, decoded } = opened;
    const { records, before } = choose(opened, names, options);
    const doomed = records.flatMap((record): Doomed[] => {
      const zones = zonesOf(record, decoded);
      if (zones.length === 0) throw new MmcError("ENOENT", `${record.name}: has no zone`);
      return zones.map((zone) => {
        const hasHeader = zone.type !== "kmsg" || hasKmsgHeader(opened, zone);
        return { record, zone, offset: area.offset + zone.offset, hasHeader };
      });
    });
    checkZones(opened, options, new Set(doomed.map(({ zone }) => zone.offset)));
    for (const one of doomed) {
      if (one.zone.type === "kmsg") removeKmsg(image, one, options.wipe === true);
      else removeRing(image, one, options.wipe === true);
    }
    const done = options.wipe ? "wiped" : "removed";
    const lines = [
      ...records.map((record) => `${done} ${record.name}\n`),
      ...before.map((name) => color.dim(`${name} was ${done} before\n`)),
    ];
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
  addForceOption(addGeometryOptions(addAreaOptions(command)))
    .option("--all", "remove every record")
    .option("--wipe", "clear the text and the seal too, also of records that were removed before")
    .addHelpText(
      "after",
      `${imageHelp(true)}
Nothing is removed unless every name is there, or was removed before. Of a record whose write was cut, or whose
header is lost, nothing stays. What was killed is finished by the same command. After --wipe only the headers are
left: time, reason and count, so that counters go on. What is cleared is the zone on IMAGE; flash may keep old
copies of its own.

Examples:
  mmcpstore rm disk.img dmesg-pstore_blk-0 dmesg-pstore_blk-1
  mmcpstore rm disk.img --all
  mmcpstore rm disk.img --all --wipe`,
    )
    .action(remove);
}
