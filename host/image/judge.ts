// The one judge of what lies where: before a command writes, each range that it could write is blank, ours, the remains
// of a write of ours that was cut, or foreign; and before a command says "no records", whether the bytes are
// somebody's. Bytes in, findings out: nothing of Node, nothing is written, nothing printed. Must never call ours what
// only might be: a foreign byte that is taken for ours is somebody's only copy, while a byte of ours that is called
// foreign costs the user one --force.
import {
  DUMP_HEADER_BYTES,
  DUMP_ROOM_BYTES,
  decodeDumpArea,
  dumpAreaBytesOf,
  dumpBackOffset,
  hasDumpMagic,
} from "../dump/dump-area.js";
import { MmcError } from "../errors.js";
import type { Decoded, ZoneInfo } from "../pstore/decode.js";
import {
  CONTAINER_HEAD_BYTES,
  firstZone,
  HEAD_BYTES,
  identify,
  identifyContainer,
  identifyForeign,
  identifyTail,
  type Known,
} from "./signatures.js";

/** Bytes, wherever they come from: an Image is one. */
export interface ByteReader {
  readonly name: string;
  readonly sizeBytes: number;
  read(offset: number, lengthBytes: number): Promise<Uint8Array>;
}

/**
 * `blank`: every sector is 0x00 or 0xff throughout. `zone`: a kmsg zone or a ring with a header that is ours or
 * Linux's. `unfinished`: a seal of ours without its record. `rest`: behind the last zone, where only `format --wipe`
 * writes.
 */
export type FindingKind = "blank" | "zone" | "unfinished" | "foreign";

/** A range of an area, in bytes from its start. */
export interface Finding {
  kind: FindingKind;
  offset: number;
  sizeBytes: number;
  /** Of what is foreign: what it is, if that is known. */
  known: Known | null;
  /** The zone that it is; null: what is behind the last one. */
  zone: ZoneInfo | null;
}

const SECTOR_BYTES = 512;
const PSZ_BUFFER_BYTES = 12;
const CHUNK_BYTES = 2 ** 20;

/** The first byte of the first sector that is neither 0x00 nor 0xff throughout, or -1. */
export function firstUsedSector(bytes: Uint8Array, from = 0, until = bytes.length): number {
  for (let at = from; at < until; at += SECTOR_BYTES) {
    const end = Math.min(at + SECTOR_BYTES, until);
    const first = bytes[at] as number;
    if (first !== 0 && first !== 0xff) return at;
    if (!isUniform(bytes, at, end, first)) return at;
  }
  return -1;
}

function isUniform(bytes: Uint8Array, from: number, until: number, value: number): boolean {
  let at = from;
  if ((bytes.byteOffset + from) % 4 === 0) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + from, (until - from) >>> 2);
    const word = value === 0 ? 0 : 0xffffffff;
    for (let i = 0; i < words.length; i++) if (words[i] !== word) return false;
    at += words.length * 4;
  }
  for (; at < until; at++) if (bytes[at] !== value) return false;
  return true;
}

/** True if nothing was ever written there: {@link firstUsedSector} finds none. */
export function isBlankArea(bytes: Uint8Array): boolean {
  return firstUsedSector(bytes) < 0;
}

/** Whether a zone's header or seal makes it ours or Linux's; a ring's signature alone is too little. */
function isOwn(view: DataView, zone: ZoneInfo): boolean {
  if (zone.state === "empty") return false;
  if (zone.type === "kmsg" || zone.state !== "torn") return true;
  const most = zone.size - PSZ_BUFFER_BYTES;
  return view.getUint32(zone.offset + 4, true) <= most && view.getUint32(zone.offset + 8, true) <= most;
}

/**
 * A record whose seal proves each byte cannot be somebody else's; what began behind its header, anything else may be.
 */
function foreignIn(bytes: Uint8Array, { offset, size, sealed }: ZoneInfo): Known | null {
  return sealed ? null : identifyForeign(bytes.subarray(offset, offset + Math.min(size, HEAD_BYTES)));
}

interface Range {
  offset: number;
  size: number;
}

/** The first used sector of a range that lies in none of `own`, ascending. */
function firstStrange(bytes: Uint8Array, from: number, until: number, own: readonly Range[]): number {
  let at = from;
  for (const range of own) {
    if (range.offset + range.size <= at) continue;
    if (range.offset >= until) break;
    const strange = firstUsedSector(bytes, at, Math.min(until, range.offset));
    if (strange >= 0) return strange;
    at = Math.max(at, range.offset + range.size);
  }
  return at < until ? firstUsedSector(bytes, at, until) : -1;
}

/**
 * Judges an area zone by zone, and what lies behind the last one.
 * @param bytes the whole area.
 * @param decoded as the caller lays it out.
 * @param found as it is laid out by its own bytes: records of another zone size are ours, too.
 */
export function judgeArea(bytes: Uint8Array, decoded: Decoded, found: Decoded = decoded): Finding[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isProved = (zone: ZoneInfo) => isOwn(view, zone) && foreignIn(bytes, zone) === null;
  const own = found.zones.filter(isProved);
  const findings: Finding[] = [];
  const atStart = identifyForeign(bytes.subarray(0, HEAD_BYTES));
  const judge = (zone: ZoneInfo | null, offset: number, end: number): void => {
    const base = { offset, sizeBytes: end - offset, known: null, zone };
    if (zone !== null && isProved(zone)) {
      findings.push({ ...base, kind: zone.state === "unfinished" ? "unfinished" : "zone" });
      return;
    }
    const isNamed = zone !== null && isOwn(view, zone);
    const strange = isNamed ? offset : firstStrange(bytes, offset, end, own);
    if (strange < 0) {
      const used = firstUsedSector(bytes, offset, end);
      findings.push({ ...base, kind: used < 0 ? "blank" : "zone" });
      return;
    }
    const isFirst = atStart !== null && offset < HEAD_BYTES;
    const head = (from: number) => identifyForeign(bytes.subarray(from, from + HEAD_BYTES));
    const atZone = isFirst ? atStart : head(offset);
    const known = atZone ?? head(strange) ?? tailOf(bytes, end);
    findings.push({
      ...base,
      offset: isFirst ? 0 : atZone !== null ? offset : strange,
      known,
      kind: "foreign",
    });
  };
  let end = 0;
  for (const zone of decoded.zones) {
    // Slices of ftrace may leave a rest between them and what follows.
    if (zone.offset > end) judge(null, end, zone.offset);
    judge(zone, zone.offset, zone.offset + zone.size);
    end = Math.max(end, zone.offset + zone.size);
  }
  if (end < bytes.length) judge(null, end, bytes.length);
  return findings;
}

function tailOf(bytes: Uint8Array, end: number): Known | null {
  return end === bytes.length ? identifyTail(bytes.subarray(Math.max(0, end - SECTOR_BYTES))) : null;
}

/** ` (say --force …)`: `an ext4 file system at 0`, or what cannot be named. */
export function describeForeign({ known, offset }: Finding, areaOffset = 0): string {
  return `${known?.what ?? "data that are no pstore zone"} at ${areaOffset + offset}`;
}

/** The command that leads on, as the end of a line. */
export function adviceFor(known: Known | null, name: string): string {
  return known?.advice ? `; next: ${known.advice(name)}` : "";
}

/**
 * The container that an image is: packed, clustered or archived, so that no offset in it is one of the disk; or null.
 */
export async function containerOf(image: ByteReader, withTail = true): Promise<Known | null> {
  const head = await image.read(0, Math.min(image.sizeBytes, CONTAINER_HEAD_BYTES));
  const found = identifyContainer(head);
  if (found !== null || !withTail || image.sizeBytes < SECTOR_BYTES) return found;
  const tail = identifyTail(await image.read(image.sizeBytes - SECTOR_BYTES, SECTOR_BYTES));
  return tail?.kind === "container" ? tail : null;
}

/** What an image, or what begins at `offset` of it, is; null: unknown, or blank. */
export async function knownAt(image: ByteReader, offset = 0): Promise<Known | null> {
  const left = image.sizeBytes - offset;
  return left <= 0 ? null : identify(await image.read(offset, Math.min(left, HEAD_BYTES)));
}

/** The error of a command that cannot use what `image` is. */
export function notRaw(name: string, known: Known): MmcError {
  return new MmcError("EMEDIUMTYPE", `${name}: is ${known.what}, no raw image${adviceFor(known, name)}`);
}

/** @throws MmcError EMEDIUMTYPE it is a container: what seems to lie somewhere in it does not */
export async function checkRaw(image: ByteReader, withTail = true): Promise<void> {
  const known = await containerOf(image, withTail);
  if (known !== null) throw notRaw(image.name, known);
}

/**
 * Why nothing was found at `offset`: what it is, with the command to run next, or that it is not known. null: the
 * bytes, of which `bytes` are all or the beginning, are blank.
 */
export async function whyNothing(
  image: ByteReader,
  offset: number,
  bytes: Uint8Array,
  what: string,
): Promise<MmcError | null> {
  const known = await knownAt(image, offset);
  const where = offset === 0 ? "" : ` at ${offset}`;
  if (known !== null) {
    const is = offset === 0 ? "is" : "holds";
    return new MmcError(
      "EMEDIUMTYPE",
      `${image.name}: ${is} ${known.what}${where}, and ${what}${adviceFor(offset === 0 ? known : null, image.name)}`,
    );
  }
  if (isBlankArea(bytes)) return null;
  return new MmcError("EUCLEAN", `${image.name}: holds data${where}, but ${what}`);
}

/** Where the pstore area of an image seems to begin, of which `bytes` are those from `offset` on; -1: nowhere. */
export function areaStart(bytes: Uint8Array, offset: number): number {
  const at = firstZone(bytes);
  return at < 0 ? -1 : offset + at;
}

/**
 * Refuses a dump area in which a dump of `dumpBytes` would be written over something else than dumps. Each end is a
 * header of this very area, or blank; a magic that is foreign is so whatever stands at the other end; and where there
 * is no header at all, everything that would be written is blank.
 * @throws MmcError EUCLEAN what it is and where
 */
export async function checkDumpArea(
  image: ByteReader,
  area: { offset: number; sizeBytes: number },
  dumpBytes: number,
): Promise<void> {
  const { offset, sizeBytes } = area;
  const where = `the dump area of ${sizeBytes} bytes at ${offset}`;
  const refuse = (at: number, known: Known | null): MmcError =>
    new MmcError(
      "EUCLEAN",
      `${image.name}: ${where} holds ${known?.what ?? "data that are no dump"}` +
        `${known === null ? "" : `, no dump, at ${at}`}; --force overwrites them`,
    );
  const backAt = dumpBackOffset(sizeBytes);
  const front = await image.read(offset, Math.min(HEAD_BYTES, sizeBytes));
  const back = await image.read(offset + backAt, DUMP_ROOM_BYTES);
  const said = dumpAreaBytesOf(front);
  if (said !== 0 && said !== backAt + DUMP_ROOM_BYTES) {
    throw new MmcError(
      "EUCLEAN",
      `${image.name}: at ${offset} begins a dump area of ${said} bytes, not of ${sizeBytes}; ` +
        "--force gives its dumps up",
    );
  }
  const saidBack = dumpAreaBytesOf(back);
  if (saidBack !== 0 && saidBack !== backAt + DUMP_ROOM_BYTES) {
    throw new MmcError(
      "EUCLEAN",
      `${image.name}: at ${offset + backAt} ends a dump area of ${saidBack} bytes, not of ${sizeBytes}; ` +
        "--force gives its dumps up",
    );
  }
  // Behind a whole header stand the dump's bytes, which may be anything.
  const head = said === 0 ? front : front.subarray(0, DUMP_ROOM_BYTES);
  const known = firstZone(head) === 0 ? identify(head) : identifyForeign(head);
  if (known !== null) throw refuse(offset, known);
  for (const [room, at] of [
    [front.subarray(0, DUMP_ROOM_BYTES), offset],
    [back, offset + backAt],
  ] as const) {
    const used = firstUsedSector(room, hasDumpMagic(room) ? DUMP_HEADER_BYTES : 0);
    if (used >= 0) throw refuse(at, identifyForeign(room));
  }
  if (said !== 0 || saidBack !== 0) return;
  // Nothing says whose the bytes between are.
  const end = Math.min(sizeBytes, DUMP_ROOM_BYTES + dumpBytes);
  for (let at = DUMP_ROOM_BYTES; at < end; at += CHUNK_BYTES) {
    const chunk = await image.read(offset + at, Math.min(CHUNK_BYTES, end - at));
    const used = firstUsedSector(chunk);
    if (used >= 0) throw refuse(offset + at + used, identifyForeign(chunk.subarray(used)));
  }
}

/**
 * What --force has to make blank so that a dump area is one, also for the next panic: the ends, without headers of this
 * very area and their dumps. Ranges in bytes from the start of the area.
 */
export async function foreignEnds(
  image: ByteReader,
  { offset, sizeBytes }: { offset: number; sizeBytes: number },
): Promise<{ offset: number; sizeBytes: number }[]> {
  const backAt = dumpBackOffset(sizeBytes);
  const front = await image.read(offset, DUMP_HEADER_BYTES);
  const back = await image.read(offset + backAt, DUMP_HEADER_BYTES);
  const isOwnHeader = (header: Uint8Array) => dumpAreaBytesOf(header) === backAt + DUMP_ROOM_BYTES;
  const [hasFront, hasBack] = [isOwnHeader(front), isOwnHeader(back)];
  const kept = decodeDumpArea(front, back, sizeBytes).find(({ slot }) => slot === "back");
  const limit = Math.min(
    HEAD_BYTES - (HEAD_BYTES % 512) + 512,
    kept && kept.storedBytes > 0 ? kept.dataOffset : backAt,
  );
  const from = hasFront ? DUMP_HEADER_BYTES : 0;
  const backFrom = hasBack ? DUMP_HEADER_BYTES : 0;
  return [
    { offset: from, sizeBytes: (hasFront ? DUMP_ROOM_BYTES : limit) - from },
    { offset: backAt + backFrom, sizeBytes: DUMP_ROOM_BYTES - backFrom },
  ];
}
