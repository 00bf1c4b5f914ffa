// `mmcpstore devlink region …`: the devlink command's region part, on the snapshots in a store file and on the live
// regions of an image that is attached to a simulated card. Its output is devlink's to the character; its errors are
// devlink's words in the one line of this program. Only --store FILE is ever written.
import type { Command } from "commander";
import type { CardKind } from "../core/profile.js";
import { DeviceRegions } from "../devlink/device-regions.js";
import { Devlink, type DevlinkChunk } from "../devlink/devlink.js";
import { DevlinkError } from "../devlink/error.js";
import { type DevlinkStyle, formatChunks, formatNewSnapshot, formatRegions } from "../devlink/text.js";
import { MmcError } from "../errors.js";
import { findArea } from "../image/area.js";
import { checkRaw } from "../image/judge.js";
import { isGzip, openRaw, type RawImage } from "../image/raw.js";
import { openImageDevice } from "../node.js";
import { decodeArea } from "../pstore/decode.js";
import { DEVLINK_HANDLE, StoreFile } from "./devlink-store.js";
import { parseRequest, REGION_HELP, type RegionRequest } from "./devlink-words.js";
import { addAreaOptions, CARDS, checkImageOptions, type ImageOptions, parseChoice } from "./options.js";
import { UsageError, write } from "./output.js";

interface DevlinkOptions extends ImageOptions {
  store?: string;
  image?: string;
  card?: CardKind;
  region?: { name: string; path: string }[];
  json?: boolean;
  pretty?: boolean;
  jsonChunks?: boolean;
  extended?: boolean;
}

/** The image's card, controller and area as live regions. */
async function attachImage(devlink: Devlink, image: RawImage, options: DevlinkOptions): Promise<void> {
  if (isGzip(image)) throw new MmcError("EINVAL", `${image.name}: is gzip-compressed, gunzip it first`);
  await checkRaw(image);
  const { partition, offset, size } = options;
  const area = await findArea(image, { partition, offset, size });
  const { geometry } = decodeArea(await image.read(area.offset, area.sizeBytes));
  const { device } = openImageDevice(image, { ...area, geometry }, { card: options.card ?? "emmc" });
  new DeviceRegions(devlink, device, { area });
}

/** Runs `work` on the regions that the options name, and closes their files. */
async function withRegions<R>(
  options: DevlinkOptions,
  store: StoreFile | null,
  work: (devlink: Devlink) => Promise<R>,
): Promise<R> {
  const files: RawImage[] = [];
  const open = (path: string) => {
    const file = openRaw(path, { writable: false });
    files.push(file);
    return file;
  };
  try {
    const devlink = store?.makeDevlink() ?? new Devlink(DEVLINK_HANDLE);
    if (options.image !== undefined) await attachImage(devlink, open(options.image), options);
    for (const { name, path } of options.region ?? []) {
      const file = open(path);
      const source = (offset: number, target: Uint8Array) => file.readSync(offset, target);
      devlink.addRegion({ name, size: file.sizeBytes, source });
    }
    store?.loadInto(devlink);
    return await work(devlink);
  } finally {
    for (const file of files) file.closeSync();
  }
}

/** A region's name, if the device is this one. */
function nameOf(devlink: Devlink, { region }: RegionRequest): string {
  if (region === null || region.handle !== devlink.handle) {
    throw new DevlinkError("ENODEV", region?.handle ?? devlink.handle, null);
  }
  return region.name;
}

/** `show`, `new` and `del`: what is printed if nothing is refused. */
function answer(devlink: Devlink, request: RegionRequest, style: DevlinkStyle): string {
  const { command, region, snapshot } = request;
  const { handle } = devlink;
  if (command === "show") {
    const regions = region === null ? devlink.regions() : [devlink.region(nameOf(devlink, request))];
    return formatRegions(handle, regions, style);
  }
  const name = nameOf(devlink, request);
  if (command === "new") {
    const id = devlink.newSnapshot(name, snapshot);
    return formatNewSnapshot(handle, name, snapshot === undefined ? id : null, style);
  }
  // Never undefined: `del` without an id is wrong usage.
  devlink.deleteSnapshot(name, snapshot as number);
  // devlink ends its JSON with a line's end, and for del there is none before it.
  return style.json ? "\n" : "";
}

/** The pieces of `dump` and `read`; a generator, so that a refusal, too, comes behind the text's beginning. */
function* chunksOf(devlink: Devlink, request: RegionRequest, extended: boolean): Generator<DevlinkChunk> {
  const { snapshot, address, length } = request;
  yield* devlink.read(nameOf(devlink, request), { snapshot, address, length, linuxLengths: !extended });
}

/**
 * Does what is asked and gives what devlink prints on standard output, piece by piece, that of a failure included.
 * @param commit makes a change durable, before it is reported.
 * @throws DevlinkError what devlink prints on standard error
 */
export function* respond(
  devlink: Devlink,
  request: RegionRequest,
  options: DevlinkStyle & { extended?: boolean },
  commit: () => void,
): Generator<string> {
  const { command } = request;
  const style = { ...options, json: options.json === true || options.jsonChunks === true };
  if (command === "dump" || command === "read") {
    yield* formatChunks(command, chunksOf(devlink, request, options.extended === true), style);
    return;
  }
  let text: string;
  try {
    text = answer(devlink, request, style);
  } catch (error) {
    if (style.json && command !== "del") yield formatRegions(devlink.handle, [], style);
    throw error;
  }
  if (command !== "show") commit();
  yield text;
}

async function run(request: RegionRequest, options: DevlinkOptions): Promise<void> {
  const store = options.store === undefined ? null : new StoreFile(options.store, request.command === "new");
  await withRegions(options, store, async (devlink) => {
    for (const piece of respond(devlink, request, options, () => store?.save(devlink))) await write(piece);
  });
}

async function devlink(words: string[], options: DevlinkOptions): Promise<void> {
  const { store, image, region, extended = false } = options;
  checkImageOptions(options);
  const request = parseRequest(words, extended);
  if (request.command === "help") {
    await write(REGION_HELP);
    return;
  }
  if (store === undefined && image === undefined && region === undefined) {
    throw new UsageError("devlink: say which regions: --store FILE, --image IMAGE or --region NAME=FILE");
  }
  if (store === undefined && request.command === "new") {
    throw new UsageError("devlink: region new: say where the snapshot is kept, --store FILE");
  }
  if (image === undefined) {
    for (const name of ["card", "partition", "offset", "size"] as const) {
      if (options[name] !== undefined)
        throw new UsageError(`--${name}: is about an --image, and there is none`);
    }
  }
  try {
    await run(request, options);
  } catch (error) {
    if (!(error instanceof DevlinkError)) throw error;
    throw new MmcError(error.code, `devlink: ${error.lines.join(" ")}`, { cause: error });
  }
}

function parseRegionOption(text: string, before: { name: string; path: string }[] = []) {
  const at = text.indexOf("=");
  if (at < 1 || at === text.length - 1) throw new UsageError(`--region ${text}: write NAME=FILE`);
  return [...before, { name: text.slice(0, at), path: text.slice(at + 1) }];
}

export function addDevlink(program: Command): void {
  const command = program
    .command("devlink")
    .summary("regions and snapshots of a device, as the devlink command has them")
    .description(
      "Show, take, delete and read snapshots of a device's regions: those that a panic left in a store " +
        "(panic --snapshots FILE), and the live ones of IMAGE on a simulated card.",
    )
    .argument("<words...>", "region show|new|del|dump|read [ DEV/REGION ] …; region help")
    .option("--store <file>", "where snapshots are kept; new makes it")
    .option("--image <image>", "raw image or block device, on a simulated card; never written")
    .option("--card <card>", "emmc, sd (SDHC), sdsc or sdxc: what IMAGE is (emmc)", (text) =>
      parseChoice("--card", text, CARDS),
    )
    .option(
      "--region <name=file>",
      "a file as one more region, e.g. a guest's RAM; may be repeated",
      (text, before: { name: string; path: string }[] | undefined) => parseRegionOption(text, before),
    )
    .option("-j, --json", "JSON as devlink prints it: dump and read repeat the keys of one object")
    .option("-p, --pretty", "JSON in lines")
    .option("--json-chunks", "JSON of dump and read as an array of { address, data }")
    .option(
      "--extended",
      "0x numbers, dump of what is there now, and reads of 4 GiB, none of which devlink can",
    );
  addAreaOptions(command)
    .addHelpText(
      "after",
      `
Regions of IMAGE: cid, csd and ext_csd, or scr and ssr (the card's registers), sdhci (the controller's), pstore (the
area). They are live: new takes a snapshot, read without one reads what is there now. Regions that are in the
store only can be shown, read and deleted. Words may be cut short as in devlink: d is del, du is dump.
What devlink says of an error comes in one line; wrong usage is exit code 2, where devlink has 1.

Examples:
  mmcpstore panic disk.img --log panic.txt --snapshots crash.snap
  mmcpstore devlink --store crash.snap region show
  mmcpstore devlink --store crash.snap region dump ${DEVLINK_HANDLE}/sdhci snapshot 0
  mmcpstore devlink --image disk.img region read ${DEVLINK_HANDLE}/ext_csd address 192 length 1
  mmcpstore devlink --image disk.img --store crash.snap region new ${DEVLINK_HANDLE}/pstore`,
    )
    .action(devlink);
}
