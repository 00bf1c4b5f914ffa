// `mmcpstore inspect IMAGE`: the zone map, drawn: a line a zone and a bar of the whole area. With --card the registers
// of the simulated card instead. Reads only.
import type { Command } from "commander";
import type { CardKind } from "../core/profile.js";
import type { Image } from "../image/contract.js";
import { judgeArea } from "../image/judge.js";
import type { Decoded, ZoneInfo } from "../pstore/decode.js";
import { DEFAULT_GIB, inspectCard } from "./inspect-card.js";
import { type OpenedArea, withArea } from "./open-area.js";
import { addImageOptions, CARDS, type ImageOptions, imageHelp, parseChoice } from "./options.js";
import { color, colorState, formatJson, formatSize, formatTable, UsageError, write } from "./output.js";
import { formatTime } from "./time.js";

/** A run of blank zones longer than this is drawn as one line. */
const BLANK_LINES_MAX = 3;
const BAR_CELLS = 64;
const REST = " ";
/** What a cell of the bar shows; if zones share a cell, the first in this order. */
const MARKS: [ShownState, string][] = [
  ["foreign", "x"],
  ["torn", "!"],
  ["salvaged", "+"],
  ["undecodable", "?"],
  ["ok", "#"],
  ["unfinished", "~"],
  ["erased", "-"],
  ["wiped", "-"],
  ["empty", "."],
];

/** `wiped`: erased, and nothing of the record is left; `foreign`: bytes that are no zone's. */
type ShownState = ZoneInfo["state"] | "wiped" | "foreign";
type ShownZone = Omit<ZoneInfo, "state"> & { state: ShownState };

function shownZones({ bytes, decoded }: OpenedArea<Image>): ShownZone[] {
  const strange = new Set(
    judgeArea(bytes, decoded)
      .filter(({ kind }) => kind === "foreign")
      .map(({ zone }) => zone),
  );
  return decoded.zones.map((zone) => {
    if (strange.has(zone)) return { ...zone, state: "foreign" };
    return zone.state === "erased" && !zone.hasRemains ? { ...zone, state: "wiped" } : zone;
  });
}

const REASONS = ["Unknown", "Panic", "Oops", "Emergency", "Shutdown"];

function zoneRow(zone: ShownZone, areaOffset: number): string[] {
  const hasHeader = !["empty", "foreign", "unfinished"].includes(zone.state);
  const isKmsg = zone.type === "kmsg" && hasHeader;
  const seal = zone.sequence === null ? "-" : `${zone.sealed ? "" : "stale "}${zone.sequence}`;
  return [
    `${zone.type} ${zone.index}`,
    String(areaOffset + zone.offset),
    String(zone.size),
    colorState(zone.state),
    zone.type === "kmsg" ? seal : "-",
    isKmsg ? (REASONS[zone.reason] ?? "Unknown") : "-",
    isKmsg ? String(zone.counter | 0) : "-",
    isKmsg ? (formatTime(zone) ?? "-") : "-",
  ];
}

/** Rows in the order of the medium, long runs of blank zones as one. */
function zoneRows(zones: ShownZone[], areaOffset: number, all: boolean): string[][] {
  const rows: string[][] = [];
  const isBlank = (zone: ShownZone | undefined) => zone?.state === "empty" && zone.type === "kmsg";
  for (let index = 0; index < zones.length; ) {
    const zone = zones[index] as ShownZone;
    let count = 1;
    while (isBlank(zone) && isBlank(zones[index + count])) count++;
    if (all || count <= BLANK_LINES_MAX) {
      for (const one of zones.slice(index, index + count)) rows.push(zoneRow(one, areaOffset));
    } else {
      const sizeBytes = count * zone.size;
      const name = `kmsg ${zone.index}-${zone.index + count - 1}`;
      const offset = String(areaOffset + zone.offset);
      rows.push([name, offset, String(sizeBytes), colorState("empty"), "-", "-", "-", "-"]);
    }
    index += count;
  }
  return rows;
}

/** The area from end to end in BAR_CELLS characters. */
function drawBar({ geometry }: Decoded, zones: ShownZone[]): string {
  const cellBytes = geometry.areaSize / BAR_CELLS;
  const ranks = new Array<number>(BAR_CELLS).fill(MARKS.length);
  for (const zone of zones) {
    const rank = MARKS.findIndex(([state]) => state === zone.state);
    const first = Math.floor(zone.offset / cellBytes);
    const last = Math.ceil((zone.offset + zone.size) / cellBytes) - 1;
    for (let cell = first; cell <= Math.min(last, BAR_CELLS - 1); cell++) {
      ranks[cell] = Math.min(ranks[cell] ?? 0, rank);
    }
  }
  return `[${ranks.map((rank) => MARKS[rank]?.[1] ?? REST).join("")}]`;
}

type InspectOptions = ImageOptions & { json?: boolean; all?: boolean; card?: CardKind };

/** What says where an area is and how it is drawn; a card has none. */
const AREA_OPTIONS = {
  partition: "--partition",
  offset: "--offset",
  size: "--size",
  kmsgSize: "--kmsg-size",
  pmsgSize: "--pmsg-size",
  consoleSize: "--console-size",
  ftraceSize: "--ftrace-size",
  cpus: "--cpus",
  abi: "--abi",
  all: "--all",
} as const;

async function inspect(location: string | undefined, options: InspectOptions): Promise<void> {
  const { card } = options;
  if (card === undefined) {
    if (location === undefined) throw new UsageError("missing required argument 'image'");
    return inspectArea(location, options);
  }
  for (const name of Object.keys(AREA_OPTIONS) as (keyof typeof AREA_OPTIONS)[]) {
    if (options[name] === undefined) continue;
    throw new UsageError(`--card ${card}: cannot be combined with ${AREA_OPTIONS[name]}`);
  }
  return inspectCard(card, location, options);
}

async function inspectArea(location: string, options: InspectOptions): Promise<void> {
  await withArea(location, options, async (opened) => {
    const { image, area, decoded } = opened;
    const { geometry } = decoded;
    const zones = shownZones(opened);
    if (options.json) {
      const json = {
        image: { name: image.name, size: image.sizeBytes },
        area: { offset: area.offset, size: area.sizeBytes, partition: area.partition },
        geometry,
        zones: zones.map((zone) => ({
          type: zone.type,
          index: zone.index,
          offset: area.offset + zone.offset,
          size: zone.size,
          state: zone.state,
          datalen: zone.datalen,
          sealed: zone.sealed,
          sequence: zone.sequence,
          reason: zone.reason,
          count: zone.counter | 0,
          time: formatTime(zone),
        })),
      };
      await write(formatJson(json));
      return;
    }
    const { partition } = area;
    const where = partition === null ? "" : `partition ${partition.number} ${partition.name}`.trimEnd();
    await write(
      `${color.bold(image.name)}: ${formatSize(image.sizeBytes)}; area of ${formatSize(area.sizeBytes)} ` +
        `at ${area.offset}${where ? ` (${where})` : ""}, ${geometry.abi}` +
        `${geometry.found ? "" : ", no signature: the sizes are the defaults"}\n`,
    );
    await write(`${drawBar(decoded, zones)}\n`);
    await write(
      color.dim("# record  - erased  . empty  + salvaged  ! torn  ? undecodable  ~ unfinished  x foreign\n"),
    );
    const head = ["ZONE", "OFFSET", "SIZE", "STATE", "SEAL", "REASON", "COUNT", "TIME"];
    const rows = zoneRows(zones, area.offset, options.all === true);
    await write(rows.length === 0 ? "no zone fits\n" : formatTable(head, rows, [1, 2, 6]));
    const last = zones.at(-1);
    const restBytes = geometry.areaSize - (last === undefined ? 0 : last.offset + last.size);
    if (restBytes > 0) await write(color.dim(`${formatSize(restBytes)} at the end are not used\n`));
  });
}

export function addInspect(program: Command): void {
  const command = program
    .command("inspect")
    .summary("draw the zone map, or decode a card's registers")
    .description(
      "Draw the zones of a pstore area: where they are, what they hold, and their seals. With --card: " +
        "the registers of the simulated card that panic would attach IMAGE to, field by field.",
    )
    .argument("[image]", "raw, .gz or http(s):// image; with --card only its size counts");
  addImageOptions(command)
    .option(
      "--card <card>",
      "emmc, sd (SDHC), sdsc or sdxc: decode CID, CSD and EXT_CSD, or SCR and SSR",
      (text) => parseChoice("--card", text, CARDS),
    )
    .option("--all", "a line for every blank zone too")
    .option("--json", "an object instead of a drawing")
    .addHelpText(
      "after",
      `${imageHelp(false)}
SEAL is the sequence number in the seal at the zone's end; "stale": the seal proves nothing about this record.
An erased zone shows what its header still says; "wiped": nothing else is left of it. "unfinished": a
write was cut before its header, or that is lost; "foreign": bytes of no zone, which nothing writes over.
Without an image a card has ${CARDS.map((card) => `${DEFAULT_GIB[card]} GiB (${card})`).join(", ")}.

Examples:
  mmcpstore inspect disk.img
  mmcpstore inspect disk.img.gz --json
  mmcpstore inspect --card emmc
  mmcpstore inspect --card sd disk.img --json`,
    )
    .action(inspect);
}
