// `mmcpstore core rm IMAGE --dump front|back | --all`: gives a dump's place in the dump area back; one that fills its
// area keeps every later one out under the policy first-wins. The header's sector becomes zero and is durable; with
// --wipe the dump's bytes after it. A cut leaves the dump as it was or none. Must never clear a byte that no header of
// this very area says is a dump's.
import type { Command } from "commander";
import { type CardDump, DUMP_HEADER_BYTES, dumpBackOffset } from "../dump/dump-area.js";
import { MmcError } from "../errors.js";
import type { RawImage } from "../image/raw.js";
import { type CoreSourceOptions, parseDumpSlot, type Range, withWritableDumps } from "./core-source.js";
import { addAreaOptions } from "./options.js";
import { UsageError, write } from "./output.js";
import { makeProgress } from "./progress.js";

const SECTOR_BYTES = 512;
const CHUNK_BYTES = 1 << 20;

interface RemoveOptions extends CoreSourceOptions {
  all?: boolean;
  wipe?: boolean;
}

/** Zeros, durable when this returns. */
function clear(image: RawImage, { offset, sizeBytes }: Range): void {
  const zeros = new Uint8Array(Math.min(CHUNK_BYTES, sizeBytes));
  const progress = makeProgress("wiping");
  try {
    for (let done = 0; done < sizeBytes; done += zeros.length) {
      image.writeSync(offset + done, zeros.subarray(0, sizeBytes - done));
      progress.onProgress(done, sizeBytes);
    }
    image.syncSync();
  } finally {
    progress.stop();
  }
}

function headerOf(area: Range, { slot }: CardDump): Range {
  const offset = area.offset + (slot === "front" ? 0 : dumpBackOffset(area.sizeBytes));
  return { offset, sizeBytes: DUMP_HEADER_BYTES };
}

/** The sectors of a dump's bytes. */
function bytesOf(area: Range, { dataOffset, storedBytes }: CardDump): Range {
  const sizeBytes = Math.ceil(storedBytes / SECTOR_BYTES) * SECTOR_BYTES;
  return { offset: area.offset + dataOffset, sizeBytes };
}

function overlap(one: Range, other: Range): boolean {
  return one.offset < other.offset + other.sizeBytes && other.offset < one.offset + one.sizeBytes;
}

/**
 * What --wipe clears behind the headers: all between them with --all, else the dump's own bytes.
 * @throws MmcError EBADMSG no header says reliably what that is
 */
function wipedOf(name: string, area: Range, dumps: CardDump[], doomed: CardDump[], all: boolean): Range[] {
  if (all) {
    if (dumps.every(({ state }) => state === "damaged")) {
      throw new MmcError(
        "EBADMSG",
        `${name}: --wipe: no header is whole, so nothing says how large the area is`,
      );
    }
    return [{ offset: area.offset, sizeBytes: dumpBackOffset(area.sizeBytes) + DUMP_HEADER_BYTES }];
  }
  return doomed.map((dump) => {
    if (dump.storedBytes === 0) {
      throw new MmcError(
        "EBADMSG",
        `${name}: --wipe: of what is ${dump.state} nobody knows its bytes; use --all`,
      );
    }
    const bytes = bytesOf(area, dump);
    const other = dumps.find(
      (one) => one !== dump && one.storedBytes > 0 && overlap(bytes, bytesOf(area, one)),
    );
    if (other !== undefined) {
      throw new MmcError("EBADMSG", `${name}: --wipe: the two dumps lie over each other; use --all`);
    }
    return bytes;
  });
}

async function remove(location: string, options: RemoveOptions): Promise<void> {
  const { dump: slot, all = false, wipe = false } = options;
  if (all && slot !== undefined) throw new UsageError("--all: takes no --dump");
  if (!all && slot === undefined) {
    throw new UsageError("core rm: which dump? Say --dump front, --dump back or --all");
  }
  await withWritableDumps(location, options, async ({ image, area, dumps }) => {
    const doomed = dumps.filter((one) => all || one.slot === slot);
    if (doomed.length === 0) throw new MmcError("ENODATA", `--dump ${slot}: ${image.name} has none there`);
    const wiped = wipe ? wipedOf(image.name, area, dumps, doomed, all) : [];
    for (const dump of doomed) clear(image, headerOf(area, dump));
    for (const range of wiped) clear(image, range);
    const done = wipe ? "wiped" : "removed";
    const nameOf = ({ state, sequence }: CardDump) => (state === "damaged" ? "damaged" : `dump ${sequence}`);
    await write(doomed.map((dump) => `${done} ${nameOf(dump)}, at the ${dump.slot}\n`).join(""));
  });
}

export function addCoreRm(core: Command): void {
  const command = core
    .command("rm")
    .description("Remove a dump from the dump area of a card: its place is free for that of another panic.")
    .argument("<image>", "raw image or block device");
  addAreaOptions(command, "bytes of the dump area")
    .option("--dump <which>", "front or back: which dump to remove", parseDumpSlot)
    .option("--all", "remove every dump")
    .option("--wipe", "clear the bytes too; with --all all of the area")
    .addHelpText(
      "after",
      `
IMAGE is a raw image or a block device; gzip files and URLs are read-only. Its dump area is the image, the one
partition that holds a dump, or where --partition or --offset says. Without a header at the front nothing says how
large an area at --offset is: give --size then, too. What is cleared is on IMAGE; flash may keep old copies.

Examples:
  mmcpstore core rm disk.img --dump front
  mmcpstore core rm disk.img --partition dump --all --wipe`,
    )
    .action(remove);
}
