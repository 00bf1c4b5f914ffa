// `mmcpstore core rm IMAGE --dump front|back | --all`: gives a dump's place in the dump area back; one that fills its
// area keeps every later one out under the policy first-wins. The header says so first ("removed") and is durable; with
// --wipe the dump's bytes go, and then it says that ("wiped"). So each state between is one of the medium, the same
// command finishes what was cut, and the size of the area is never forgotten. Must never clear a byte that no header of
// this very area says is a dump's.
import type { Command } from "commander";
import {
  type CardDump,
  DUMP_HEADER_BYTES,
  dumpAreaBytesOf,
  dumpBackOffset,
  headerWithState,
} from "../dump/dump-area.js";
import { MmcError } from "../errors.js";
import type { RawImage } from "../image/raw.js";
import { type CoreSourceOptions, parseDumpSlot, type Range, withWritableDumps } from "./core-source.js";
import { addAreaOptions, addForceOption } from "./options.js";
import { color, UsageError, write } from "./output.js";
import { makeProgress } from "./progress.js";

const SECTOR_BYTES = 512;
const CHUNK_BYTES = 1 << 20;

interface RemoveOptions extends CoreSourceOptions {
  all?: boolean;
  wipe?: boolean;
  force?: boolean;
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
    const from = DUMP_HEADER_BYTES;
    return [{ offset: area.offset + from, sizeBytes: dumpBackOffset(area.sizeBytes) - from }];
  }
  return doomed.map((dump) => {
    if (dump.storedBytes === 0) {
      // What was torn and then removed is no better known.
      const state = dump.state === "removed" ? "torn" : dump.state;
      throw new MmcError("EBADMSG", `${name}: --wipe: of what is ${state} nobody knows its bytes; use --all`);
    }
    const bytes = bytesOf(area, dump);
    const other = dumps.find(
      (one) =>
        one !== dump && one.state !== "removed" && one.storedBytes > 0 && overlap(bytes, bytesOf(area, one)),
    );
    if (other !== undefined) {
      throw new MmcError("EBADMSG", `${name}: --wipe: the two dumps lie over each other; use --all`);
    }
    return bytes;
  });
}

/** A header with its state changed; one that is not believed becomes zero. Durable when this returns. */
async function mark(image: RawImage, area: Range, dump: CardDump, state: "removed" | "wiped"): Promise<void> {
  const { offset, sizeBytes } = headerOf(area, dump);
  const header = await image.read(offset, sizeBytes);
  const isBelieved = dump.state !== "damaged";
  image.writeSync(offset, isBelieved ? headerWithState(header, state) : new Uint8Array(sizeBytes));
  image.syncSync();
}

/** @throws MmcError EUCLEAN a header is whole, and that of an area of another size or place: its dumps are there */
async function checkNotOther(image: RawImage, area: Range, doomed: readonly CardDump[]): Promise<void> {
  for (const dump of doomed) {
    if (dump.state !== "damaged") continue;
    const { offset, sizeBytes } = headerOf(area, dump);
    const said = dumpAreaBytesOf(await image.read(offset, sizeBytes));
    if (said === 0) continue;
    throw new MmcError(
      "EUCLEAN",
      `${image.name}: the header at ${offset} is that of a dump area of ${said} bytes; say which with --offset and ` +
        "--size, --force gives its dump up",
    );
  }
}

async function remove(location: string, options: RemoveOptions): Promise<void> {
  const { dump: slot, all = false, wipe = false } = options;
  if (all && slot !== undefined) throw new UsageError("--all: takes no --dump");
  if (!all && slot === undefined) {
    throw new UsageError("core rm: which dump? Say --dump front, --dump back or --all");
  }
  await withWritableDumps(location, options, async ({ image, area, dumps }) => {
    const chosen = dumps.filter((one) => all || one.slot === slot);
    if (chosen.length === 0) throw new MmcError("ENODATA", `--dump ${slot}: ${image.name} has none there`);
    if (!options.force) await checkNotOther(image, area, chosen);
    const isDone = ({ state }: CardDump) => state === "wiped" || (state === "removed" && !wipe);
    const doomed = chosen.filter((one) => !isDone(one));
    const wiped = wipe && doomed.length > 0 ? wipedOf(image.name, area, dumps, doomed, all) : [];
    for (const dump of doomed) if (dump.state !== "removed") await mark(image, area, dump, "removed");
    for (const range of wiped) clear(image, range);
    if (wipe) for (const dump of doomed) if (dump.state !== "damaged") await mark(image, area, dump, "wiped");
    const done = wipe ? "wiped" : "removed";
    const nameOf = ({ state, sequence }: CardDump) => (state === "damaged" ? "damaged" : `dump ${sequence}`);
    const lines = chosen.map((dump) =>
      isDone(dump)
        ? color.dim(`${nameOf(dump)}, at the ${dump.slot}, was ${dump.state} before\n`)
        : `${done} ${nameOf(dump)}, at the ${dump.slot}\n`,
    );
    await write(lines.join(""));
  });
}

export function addCoreRm(core: Command): void {
  const command = core
    .command("rm")
    .description("Remove a dump from the dump area of a card: its place is free for that of another panic.")
    .argument("<image>", "raw image or block device");
  addForceOption(addAreaOptions(command, "bytes of the dump area"))
    .option("--dump <which>", "front or back: which dump to remove", parseDumpSlot)
    .option("--all", "remove every dump")
    .option("--wipe", "clear the bytes too; with --all all of the area")
    .addHelpText(
      "after",
      `
A removed dump's bytes stay until --wipe or another dump; what was killed is finished by the same command.
IMAGE is a raw image or a block device; gzip files and URLs are read-only. Its dump area is the image, the one
partition that holds a dump, or where --partition or --offset says. Without a header at the front nothing says how
large an area at --offset is: give --size then, too. What is cleared is on IMAGE; flash may keep old copies.

Examples:
  mmcpstore core rm disk.img --dump front
  mmcpstore core rm disk.img --partition dump --all --wipe`,
    )
    .action(remove);
}
