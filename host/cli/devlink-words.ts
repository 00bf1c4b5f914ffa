// What comes behind `mmcpstore devlink`, read as the devlink command reads it: words may be cut short, the first that
// fits counts, numbers are decimal. What it would not take is wrong usage, in its own words.
import { UsageError } from "./output.js";

/** In the order in which a shortened word is looked up: `d` is del, not dump. */
const COMMANDS = ["help", "show", "del", "dump", "read", "new"] as const;
const U32_MAX = 2n ** 32n - 1n;
const U64_MAX = 2n ** 64n - 1n;
/** More digits than any number has that fits. */
const DIGITS_MAX = 40;

/** What devlink says to `region help`. */
export const REGION_HELP = `Usage: devlink region show [ DEV/REGION ]
       devlink region del DEV/REGION snapshot SNAPSHOT_ID
       devlink region new DEV/REGION [ snapshot SNAPSHOT_ID ]
       devlink region dump DEV/REGION [ snapshot SNAPSHOT_ID ]
       devlink region read DEV/REGION [ snapshot SNAPSHOT_ID ] address ADDRESS length LENGTH
`;

const OPTIONS = {
  snapshot: { max: U32_MAX, missing: "Region snapshot id expected." },
  address: { max: U64_MAX, missing: "Region address value expected." },
  length: { max: U64_MAX, missing: "Region length value expected." },
} as const;
type Option = keyof typeof OPTIONS;

/** What each command must have and may have besides a region. */
const RULES: Record<(typeof COMMANDS)[number], { required: readonly Option[]; optional: readonly Option[] }> =
  {
    help: { required: [], optional: [] },
    show: { required: [], optional: [] },
    del: { required: ["snapshot"], optional: [] },
    dump: { required: ["snapshot"], optional: [] },
    read: { required: ["address", "length"], optional: ["snapshot"] },
    new: { required: [], optional: ["snapshot"] },
  };

export interface RegionRequest {
  command: (typeof COMMANDS)[number];
  /** BUS/DEV and the region's name; null for `help`, and for `show` of everything. */
  region: { handle: string; name: string } | null;
  snapshot?: number;
  address?: bigint;
  length?: bigint;
}

/**
 * @param extended takes 0x numbers, and `dump` without a snapshot.
 * @throws UsageError in devlink's words, its lines joined by a space
 */
export function parseRequest(words: readonly string[], extended: boolean): RegionRequest {
  const [object, word, handle, ...rest] = words;
  if (object === undefined) throw new UsageError("devlink: say region show, new, del, dump or read");
  if (!"region".startsWith(object)) throw new UsageError(`devlink: Object "${object}" not found`);
  const command = word === undefined ? "show" : COMMANDS.find((name) => name.startsWith(word));
  if (command === undefined) throw new UsageError(`devlink: Command "${word}" not found`);
  if (command === "help" || (command === "show" && handle === undefined)) return { command, region: null };
  const region = parseRegion(handle);
  const request: RegionRequest = { command, region };
  const { required, optional } = RULES[command];
  const known = [...required, ...optional];
  let unknown: string | null = null;
  for (let at = 0; at < rest.length; at++) {
    const text = rest[at] as string;
    const option = known.find((name) => name.startsWith(text));
    if (option === undefined) {
      unknown ??= text;
      continue;
    }
    at++;
    const value = parseNumber(rest[at], OPTIONS[option].max, extended);
    if (option === "snapshot") request.snapshot = Number(value);
    else request[option] = value;
  }
  const isLive = extended && command === "dump";
  const missing = isLive ? undefined : required.find((option) => request[option] === undefined);
  const wrong = [
    ...(missing === undefined ? [] : [OPTIONS[missing].missing]),
    ...(unknown === null ? [] : [`Unknown option "${unknown}"`]),
  ];
  if (wrong.length > 0) throw new UsageError(`devlink: ${wrong.join(" ")}`);
  return request;
}

function parseRegion(text: string | undefined): { handle: string; name: string } {
  const expected = 'Expected "bus_name/dev_name/region" identification.';
  if (text === undefined) throw new UsageError(`devlink: ${expected}`);
  const [bus, dev, name, ...more] = text.split("/");
  if (name === undefined || more.length > 0) {
    throw new UsageError(`devlink: Wrong identification string format. ${expected}`);
  }
  return { handle: `${bus}/${dev}`, name };
}

function parseNumber(text: string | undefined, max: bigint, extended: boolean): bigint {
  if (text === undefined) throw new UsageError("devlink: Unsigned number argument expected");
  const isNumber = /^\d+$/.test(text) || (extended && /^0x[0-9a-f]+$/i.test(text));
  const value = isNumber && text.length <= DIGITS_MAX ? BigInt(text) : null;
  if (value === null || value > max) {
    throw new UsageError(`devlink: "${text}" is not a number or not within range`);
  }
  return value;
}
