// Qualcomm's Minidump in a memory image: the global table of contents (ToC), a ToC for each subsystem, and the
// descriptors of the regions that it wants dumped. Every number in it is an attacker's: each table is copied once, then
// judged, and what is judged is what is used; counts and sums have an end, nothing is read twice, and no table may be
// another one. What is wrong with a part becomes its `why` and a problem, not the end of the rest. Nothing of Node.
import { MmcError } from "../errors.js";
import { bool, judge, number, type Shape, U64, whole } from "../judge.js";
import { type ElfSource, PROBLEMS_MAX } from "./elf.js";
import { findSmemItem } from "./smem.js";

/** The item of SMEM that is the global ToC. */
export const MINIDUMP_SMEM_ITEM = 602;
const GLOBAL_BYTES = 16;
const SUBSYSTEM_BYTES = 32;
const DESCRIPTOR_BYTES = 40;
const NAME_BYTES = 16;
/** Firmware's table had room for this many before its size said so. */
const SUBSYSTEMS_DEFAULT = 10;
/** Real ones have 10 or so; times REGIONS_MAX they are as many as an ELF core can have. */
export const MINIDUMP_SUBSYSTEMS_MAX = 64;
/** Of one subsystem: Linux has room for 201, firmware for 300 of all of them. */
const REGIONS_MAX = 1023;

const ENABLED = 0x454e424c;
const ENCRYPTION_DONE = 0x444f4e45;
const ENCRYPTION_STARTED = 0x53545254;
const ENCRYPTION_REQUIRED = 0x00594553;
const ENCRYPTION_NOT_REQUIRED = 0x00004e52;
const REGION_VALID = 0x56414c49;
const REGION_INVALID = 0x494e5641;
const REGION_INIT = 0x494e4954;

/** Four letters, the first in the highest byte, as each tag is called. */
const TAGS = new Map([
  [0, "none"],
  [ENABLED, "ENBL"],
  [ENCRYPTION_DONE, "DONE"],
  [ENCRYPTION_STARTED, "STRT"],
  [ENCRYPTION_REQUIRED, "YES"],
  [ENCRYPTION_NOT_REQUIRED, "NR"],
  [REGION_VALID, "VALI"],
  [REGION_INVALID, "INVA"],
  [REGION_INIT, "INIT"],
]);

/** `ENBL`, `none` for 0, or `0x12345678`. @param tag a u32. */
export function minidumpTagName(tag: number): string {
  return TAGS.get(tag) ?? `0x${tag.toString(16).padStart(8, "0")}`;
}

export interface MinidumpOptions {
  /** Physical address of the image's first byte. Default: as the SMEM says, or 0. */
  base?: bigint | undefined;
  /** Where the SMEM begins in the image, in bytes. Default: it is searched for. */
  smem?: number | undefined;
  /** Where the global ToC begins in the image, in bytes; then no SMEM is needed. */
  toc?: number | undefined;
  /** With `toc`: how many subsystems it has, 1 to 64; default 10. */
  subsystems?: number | undefined;
  /** Take the regions of subsystems whose encryption is not done; default false. */
  takesNotReady?: boolean | undefined;
}

const OPTIONS: Shape<MinidumpOptions> = {
  base: U64,
  smem: number,
  toc: number,
  subsystems: whole(1, MINIDUMP_SUBSYSTEMS_MAX),
  takesNotReady: bool,
};

/**
 * `off`: not set up or switched off, there is nothing to dump. `ready`. `not ready`: its encryption is not done.
 * `broken`: its table cannot be believed.
 */
export type MinidumpSubsystemState = "off" | "ready" | "not ready" | "broken";

export interface MinidumpSubsystem {
  /** 0 is APSS (Linux). */
  index: number;
  state: MinidumpSubsystemState;
  /** Why it is not ready; empty otherwise. */
  why: string;
  /** As they are in the ToC. */
  status: number;
  enabled: number;
  encryptionStatus: number;
  encryptionRequired: number;
  regionCount: number;
  /** Physical address of the array of descriptors. */
  address: bigint;
}

/**
 * `ok`: all of it is in the image. `cut`: the image ends before it does. `absent`: it is not in the image. `invalid`:
 * its tag is not VALI, so it is no region. `refused`: see why.
 */
export type MinidumpRegionState = "ok" | "cut" | "absent" | "invalid" | "refused";

export interface MinidumpRegion {
  subsystem: number;
  /** In the subsystem's array. */
  index: number;
  /** One character a byte (1 to 255), at most 15; anything may be in it. */
  name: string;
  /** seq_num: tells regions of one name apart. */
  sequence: number;
  /** The tag. */
  valid: number;
  address: bigint;
  lengthBytes: bigint;
  state: MinidumpRegionState;
  /** Why it is not ok; empty otherwise. */
  why: string;
  /** Where its bytes begin in the image; 0 if there are none. */
  offset: number;
  /** How many of them can be had. */
  presentBytes: number;
  /** True if another region that can be had has a part of the same addresses. */
  overlaps: boolean;
}

export interface Minidump {
  /** Of the global ToC in the image, in bytes. */
  tocOffset: number;
  /** Physical address of the image's first byte. */
  base: bigint;
  status: number;
  revision: number;
  enabled: number;
  subsystems: MinidumpSubsystem[];
  regions: MinidumpRegion[];
  /** What is wrong, a line each, at most PROBLEMS_MAX and one that says that there are more. */
  problems: string[];
}

/** Part of the image that is a table; no other table may have a byte of it. */
interface Table {
  what: string;
  offset: number;
  lengthBytes: number;
}

class Reading {
  readonly source: ElfSource;
  readonly base: bigint;
  readonly takesNotReady: boolean;
  readonly problems: string[] = [];
  readonly tables: Table[] = [];

  constructor(source: ElfSource, base: bigint, takesNotReady: boolean) {
    this.source = source;
    this.base = base;
    this.takesNotReady = takesNotReady;
  }

  problem(line: string): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push(line);
    else if (this.problems.length === PROBLEMS_MAX) this.problems.push("and more");
  }

  /** Copies a table. @throws MmcError EBADMSG not in the image, or where another table is. */
  table(what: string, offset: number, lengthBytes: number): DataView {
    const { sizeBytes } = this.source;
    if (offset < 0 || offset + lengthBytes > sizeBytes) {
      throw new MmcError("EBADMSG", `${what}: ${lengthBytes} bytes at ${offset} are not in the image`);
    }
    const other = this.tables.find(
      (one) => offset < one.offset + one.lengthBytes && one.offset < offset + lengthBytes,
    );
    if (other !== undefined) throw new MmcError("EBADMSG", `${what}: lies on ${other.what}`);
    this.tables.push({ what, offset, lengthBytes });
    const bytes = new Uint8Array(lengthBytes);
    this.source.readSync(offset, bytes);
    return new DataView(bytes.buffer);
  }

  /** Offset in the image, or null where the image has nothing. */
  offsetOf(address: bigint): number | null {
    const offset = address - this.base;
    return offset < 0n || offset >= BigInt(this.source.sizeBytes) ? null : Number(offset);
  }
}

/**
 * Reads the tables of a minidump; the regions' bytes stay where they are.
 * @throws MmcError ENODATA there is no SMEM, no item 602, or its status is 0; EBADMSG SMEM or the global ToC cannot be
 *   believed; EOPNOTSUPP an SMEM of a version without that item; EINVAL options that make no sense; and what the source
 *   throws.
 */
export function readMinidump(source: ElfSource, given: MinidumpOptions = {}): Minidump {
  const options = judge("", given, OPTIONS);
  const { offset, sizeBytes, base } = findToc(source, options);
  if (base < 0n || base + BigInt(source.sizeBytes) > 1n << 64n) {
    throw new MmcError("EINVAL", `base: an image at ${hex(base)} ends beyond 2^64`);
  }
  const reading = new Reading(source, base, options.takesNotReady === true);
  const count = Math.floor((sizeBytes - GLOBAL_BYTES) / SUBSYSTEM_BYTES);
  if (count < 1 || count > MINIDUMP_SUBSYSTEMS_MAX) {
    const why = `${sizeBytes} bytes are not those of 1 to ${MINIDUMP_SUBSYSTEMS_MAX} subsystems`;
    throw new MmcError("EBADMSG", `global ToC: ${why}`);
  }
  const view = reading.table("the global ToC", offset, GLOBAL_BYTES + count * SUBSYSTEM_BYTES);
  const status = view.getUint32(0, true);
  if (status === 0) throw new MmcError("ENODATA", `global ToC: the one at ${offset} is not initialised`);
  const subsystems: MinidumpSubsystem[] = [];
  const regions: MinidumpRegion[] = [];
  for (let index = 0; index < count; index++) {
    const subsystem = readSubsystem(view, GLOBAL_BYTES + index * SUBSYSTEM_BYTES, index);
    subsystems.push(subsystem);
    if (subsystem.state === "ready" || subsystem.state === "not ready") {
      regions.push(...readRegions(reading, subsystem));
    }
    if (subsystem.state === "not ready" || subsystem.state === "broken") {
      reading.problem(`subsystem ${index}: ${subsystem.why}`);
    }
  }
  if (subsystems.every(({ enabled }) => enabled !== ENABLED)) {
    reading.problem("no subsystem is enabled: this may be no ToC");
  }
  markOverlaps(regions);
  return {
    tocOffset: offset,
    base,
    status,
    revision: view.getUint32(4, true),
    enabled: view.getUint32(8, true),
    subsystems,
    regions,
    problems: reading.problems,
  };
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

function findToc(
  source: ElfSource,
  { base, smem, toc, subsystems }: MinidumpOptions,
): { offset: number; sizeBytes: number; base: bigint } {
  for (const [what, offset] of Object.entries({ smem, toc })) {
    if (offset !== undefined && !(Number.isSafeInteger(offset) && offset >= 0)) {
      throw new MmcError("EINVAL", `${what}: ${offset} is no offset`);
    }
  }
  if (toc === undefined) {
    if (subsystems !== undefined) throw new MmcError("EINVAL", "subsystems: the item of SMEM says how many");
    const item = findSmemItem(source, MINIDUMP_SMEM_ITEM, smem ?? null);
    return { offset: item.offset, sizeBytes: item.sizeBytes, base: base ?? item.base ?? 0n };
  }
  if (smem !== undefined) throw new MmcError("EINVAL", "toc: is where it is, no SMEM is needed");
  const sizeBytes = GLOBAL_BYTES + (subsystems ?? SUBSYSTEMS_DEFAULT) * SUBSYSTEM_BYTES;
  return { offset: toc, sizeBytes, base: base ?? 0n };
}

function readSubsystem(view: DataView, at: number, index: number): MinidumpSubsystem {
  const subsystem: MinidumpSubsystem = {
    index,
    state: "ready",
    why: "",
    status: view.getUint32(at, true),
    enabled: view.getUint32(at + 4, true),
    encryptionStatus: view.getUint32(at + 8, true),
    encryptionRequired: view.getUint32(at + 12, true),
    regionCount: view.getUint32(at + 16, true),
    address: view.getBigUint64(at + 24, true),
  };
  const { status, enabled, encryptionStatus, encryptionRequired, address } = subsystem;
  const settle = (state: MinidumpSubsystemState, why: string) => ({ ...subsystem, state, why });
  if (status !== 1) return settle("off", `status is ${status}`);
  if (enabled !== ENABLED) return settle("off", `enabled is ${minidumpTagName(enabled)}`);
  if (address === 0n) return settle("off", "it has no array of regions");
  if (encryptionStatus === ENCRYPTION_DONE) return subsystem;
  const required = encryptionRequired === ENCRYPTION_REQUIRED ? "encryption is required, and" : "encryption";
  return settle("not ready", `${required} is ${minidumpTagName(encryptionStatus)}, not DONE`);
}

/** Its regions; or none, and the subsystem is broken. */
function readRegions(reading: Reading, subsystem: MinidumpSubsystem): MinidumpRegion[] {
  const { index, regionCount, address } = subsystem;
  const broken = (why: string) => {
    subsystem.state = "broken";
    subsystem.why = why;
    return [];
  };
  if (regionCount > REGIONS_MAX) return broken(`says ${regionCount} regions, more than ${REGIONS_MAX}`);
  if (regionCount === 0) return [];
  const offset = reading.offsetOf(address);
  if (offset === null) return broken(`its array at ${hex(address)} is not in the image`);
  let view: DataView;
  try {
    view = reading.table(`the array of subsystem ${index}`, offset, regionCount * DESCRIPTOR_BYTES);
  } catch (error) {
    if (error instanceof MmcError && error.code === "EBADMSG") return broken(error.message);
    throw error;
  }
  const regions: MinidumpRegion[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < regionCount; i++) {
    const region = readRegion(reading, view, i * DESCRIPTOR_BYTES, subsystem, i);
    regions.push(region);
    if (region.valid !== REGION_VALID) continue;
    if (region.why !== subsystem.why) reading.problem(`${call(region)}: ${region.why}`);
    if (seen.has(`${region.name}\0${region.sequence}`)) {
      reading.problem(`${call(region)}: there is another with this name and sequence number`);
    }
    seen.add(`${region.name}\0${region.sequence}`);
  }
  return regions;
}

/** `subsystem 0, region 3 (KELF)`, with nothing of the name that could steer a terminal. */
function call({ subsystem, index, name }: MinidumpRegion): string {
  return `subsystem ${subsystem}, region ${index} (${name.replace(/[^\x21-\x7e]/g, "?")})`;
}

function readName(view: DataView, at: number): { name: string; isWhole: boolean } {
  let name = "";
  for (let i = 0; i < NAME_BYTES; i++) {
    const byte = view.getUint8(at + i);
    if (byte === 0) return { name, isWhole: true };
    name += String.fromCharCode(byte);
  }
  // The last byte stands for the NUL, whatever it is.
  return { name: name.slice(0, -1), isWhole: false };
}

function readRegion(
  reading: Reading,
  view: DataView,
  at: number,
  { index: subsystem, state, why: notReady }: MinidumpSubsystem,
  index: number,
): MinidumpRegion {
  const { name, isWhole } = readName(view, at);
  const region: MinidumpRegion = {
    subsystem,
    index,
    name,
    sequence: view.getUint32(at + 16, true),
    valid: view.getUint32(at + 20, true),
    address: view.getBigUint64(at + 24, true),
    lengthBytes: view.getBigUint64(at + 32, true),
    state: "ok",
    why: "",
    offset: 0,
    presentBytes: 0,
    overlaps: false,
  };
  const settle = (settled: MinidumpRegionState, why: string) => ({ ...region, state: settled, why });
  const { address, lengthBytes } = region;
  if (region.valid !== REGION_VALID) return settle("invalid", `its tag is ${minidumpTagName(region.valid)}`);
  if (!isWhole) reading.problem(`${call(region)}: its name has no end`);
  if (name === "") reading.problem(`${call(region)}: has no name`);
  if (state === "not ready" && !reading.takesNotReady) return settle("refused", notReady);
  if (lengthBytes === 0n) return settle("refused", "has no bytes");
  if (address + lengthBytes > 1n << 64n) return settle("refused", "its end is beyond 2^64");
  const offset = reading.offsetOf(address);
  if (offset === null) return settle("absent", `${hex(address)} is not in the image`);
  region.offset = offset;
  const left = reading.source.sizeBytes - offset;
  region.presentBytes = lengthBytes > BigInt(left) ? left : Number(lengthBytes);
  if (BigInt(region.presentBytes) === lengthBytes) return region;
  return settle("cut", `${region.presentBytes} of ${lengthBytes} bytes are in the image`);
}

function markOverlaps(regions: MinidumpRegion[]): void {
  const sorted = regions.filter(({ presentBytes }) => presentBytes > 0).sort((a, b) => a.offset - b.offset);
  // The one so far that reaches farthest: whoever begins before its end overlaps it.
  let farthest = sorted[0];
  for (const next of sorted.slice(1)) {
    if (farthest === undefined) break;
    if (next.offset < farthest.offset + farthest.presentBytes) {
      next.overlaps = true;
      farthest.overlaps = true;
    }
    if (next.offset + next.presentBytes > farthest.offset + farthest.presentBytes) farthest = next;
  }
}
