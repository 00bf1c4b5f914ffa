// Reads the dump area of a card: two header sectors, and what they say of the dumps between them. Written from
// docs/FORMAT.md, "The dump area", alone: must never import from assembly/ or from what makes dumps. Every number may
// be an attacker's; whatever the bytes are, nothing is thrown and nothing larger than the headers is read.
import { ownBytes } from "../own-bytes.js";
import { crc32c } from "../pstore/crc32c.js";

/** Headers stand at 0 and at {@link dumpBackOffset}; each has this much room. */
export const DUMP_ROOM_BYTES = 4096;
export const DUMP_HEADER_BYTES = 512;
/** Two headers and one page of data. */
export const DUMP_AREA_BYTES_MIN = 3 * DUMP_ROOM_BYTES;
const MAGIC = "MMCPDUMP";
const VERSION = 1;
const LIST_OFFSET = 112;
const LIST_MAX = 24;
const CRC_OFFSET = 508;
const STATE_OFFSET = 12;
/** storedBytes, dataCrc, status, failedRanges. */
const STORED_OFFSET = 48;
const STORED_FIELDS_BYTES = 20;

/**
 * `complete`: every byte was stored. `partial`: its beginning, and why. `torn`: it was begun and never ended, nothing
 * of it is known. `damaged`: a header was there and its bytes are not right. `removed`: its place is free, and its
 * bytes are still there; `wiped`: they are not.
 */
export type CardDumpState = "complete" | "partial" | "torn" | "damaged" | "removed" | "wiped";

/** By the header's number, from 1 on. */
const STATES = ["torn", "partial", "complete", "removed", "wiped"] as const;

export interface CardDump {
  slot: "front" | "back";
  state: CardDumpState;
  /** What is wrong with a damaged header. */
  problem: string | null;
  sequence: bigint;
  /** Of the record of the same panic: the sequence in its seal, and its time. */
  recordSequence: bigint;
  timeSec: bigint;
  timeNsec: number;
  /** Of the whole core. */
  lengthBytes: bigint;
  /** Where it is, from the start of the area; 0 unless it can be read. */
  dataOffset: number;
  /** How much of it is there, from its start; 0 unless it can be read. */
  storedBytes: number;
  /** CRC-32C of those bytes. */
  dataCrc: number;
  /** Why it is partial, a negative errno; 0 otherwise. */
  status: number;
  /** How many ranges are 0xff because their source failed, their bytes, and where the first ones are. */
  failedRanges: number;
  failedBytes: bigint;
  failed: { offset: bigint; lengthBytes: bigint }[];
}

/** Where the second header stands in an area: all but whole rooms of it are not used. */
export function dumpBackOffset(areaBytes: number): number {
  return wholeRooms(areaBytes) - DUMP_ROOM_BYTES;
}

function wholeRooms(areaBytes: number): number {
  return areaBytes - (areaBytes % DUMP_ROOM_BYTES);
}

/** True if a header of any version was written here. */
export function hasDumpMagic(header: Uint8Array): boolean {
  return header.length >= MAGIC.length && [...MAGIC].every((c, i) => header[i] === c.charCodeAt(0));
}

/** The size of the area as a header of it has it, 0 if that is not whole. */
export function dumpAreaBytesOf(header: Uint8Array): number {
  if (header.length < DUMP_HEADER_BYTES || !hasDumpMagic(header) || !isSealed(header)) return 0;
  const bytes = Number(new DataView(header.buffer, header.byteOffset).getBigUint64(24, true));
  return Number.isSafeInteger(bytes) ? bytes : 0;
}

const SEQUENCE_STEP_MAX = 2n ** 32n;

function isSealed(header: Uint8Array): boolean {
  return (
    new DataView(header.buffer, header.byteOffset).getUint32(CRC_OFFSET, true) ===
    crc32c(header, 0, CRC_OFFSET)
  );
}

/**
 * The 512 bytes of a whole header for the dump when it has been removed, or wiped: of a wiped one nothing is stored. It
 * keeps saying how large the area is.
 */
export function headerWithState(header: Uint8Array, state: "removed" | "wiped"): Uint8Array {
  const changed = ownBytes(header, 0, DUMP_HEADER_BYTES);
  const view = new DataView(changed.buffer);
  view.setUint32(STATE_OFFSET, STATES.indexOf(state) + 1, true);
  if (state === "wiped") changed.fill(0, STORED_OFFSET, STORED_OFFSET + STORED_FIELDS_BYTES);
  view.setUint32(CRC_OFFSET, crc32c(changed, 0, CRC_OFFSET), true);
  return changed;
}

/**
 * What an area of `areaBytes` holds, from the 512 bytes at its start and those at {@link dumpBackOffset}: up to two
 * dumps, the later one first; then one whose sequence is made up (docs/FORMAT.md); damaged ones last. Those that were
 * removed are among them.
 */
export function decodeDumpArea(front: Uint8Array, back: Uint8Array, areaBytes: number): CardDump[] {
  const found = [decodeHeader(front, "front", areaBytes), decodeHeader(back, "back", areaBytes)];
  const dumps = found.filter((dump) => dump !== null);
  const standing = dumps.filter(({ state }) => state !== "damaged");
  const order = (dump: CardDump) => {
    if (dump.state === "damaged") return -2n;
    const others = standing.filter((other) => other !== dump);
    return isPlausible(dump.sequence, others[0]?.sequence) ? dump.sequence : -1n;
  };
  return dumps.sort((a, b) => (order(a) > order(b) ? -1 : order(a) < order(b) ? 1 : 0));
}

/** Whether a sequence orders dumps: it is not further from 0, or from that of the other dump, than dumps can be. */
function isPlausible(sequence: bigint, other: bigint | undefined): boolean {
  if (sequence <= SEQUENCE_STEP_MAX) return true;
  if (other === undefined || sequence >= 2n ** 62n - 1n) return false;
  return (sequence > other ? sequence - other : other - sequence) <= SEQUENCE_STEP_MAX;
}

/** The dump to look at unless told otherwise: the newest complete one, else the newest of which there is something. */
export function bestDump(dumps: readonly CardDump[]): CardDump | undefined {
  const has = (wanted: CardDumpState) =>
    dumps.find(({ state, storedBytes }) => state === wanted && storedBytes > 0);
  return has("complete") ?? has("partial");
}

function decodeHeader(header: Uint8Array, slot: CardDump["slot"], areaBytes: number): CardDump | null {
  if (header.length < DUMP_HEADER_BYTES || !hasDumpMagic(header)) return null;
  const view = new DataView(header.buffer, header.byteOffset, DUMP_HEADER_BYTES);
  const u64 = (at: number) => view.getBigUint64(at, true);
  const state = view.getUint32(STATE_OFFSET, true);
  const dump: CardDump = {
    slot,
    state: "damaged",
    problem: null,
    sequence: u64(16),
    recordSequence: u64(80),
    timeSec: view.getBigInt64(88, true),
    timeNsec: view.getUint32(68, true),
    lengthBytes: u64(40),
    dataOffset: 0,
    storedBytes: 0,
    dataCrc: view.getUint32(56, true),
    status: view.getInt32(60, true),
    failedRanges: view.getUint32(64, true),
    failedBytes: u64(72),
    failed: [],
  };
  dump.problem = problemOf(header, view, slot, areaBytes);
  if (dump.problem !== null) return dump;
  dump.state = STATES[state - 1] as CardDumpState;
  if (dump.state === "torn") return dump;
  dump.dataOffset = Number(u64(32));
  dump.storedBytes = Number(u64(48));
  for (let i = 0; i < Math.min(dump.failedRanges, LIST_MAX); i++) {
    const at = LIST_OFFSET + i * 16;
    dump.failed.push({ offset: u64(at), lengthBytes: u64(at + 8) });
  }
  return dump;
}

/** Why a header with the magic is not believed; null if it is. */
function problemOf(
  header: Uint8Array,
  view: DataView,
  slot: CardDump["slot"],
  areaBytes: number,
): string | null {
  const u64 = (at: number) => view.getBigUint64(at, true);
  const version = view.getUint32(8, true);
  if (version !== VERSION) return `its header is of version ${version}, not ${VERSION}`;
  if (!isSealed(header)) return "its header's CRC-32C is wrong";
  if (u64(24) !== BigInt(wholeRooms(areaBytes))) {
    return `its header is that of an area of ${u64(24)} bytes, not ${wholeRooms(areaBytes)}`;
  }
  const state = view.getUint32(STATE_OFFSET, true);
  if (state < 1 || state > STATES.length) return `its header has state ${state}`;
  const [dataOffset, lengthBytes, storedBytes] = [u64(32), u64(40), u64(48)];
  const end = BigInt(dumpBackOffset(areaBytes));
  const room = BigInt(DUMP_ROOM_BYTES);
  const isPlaced =
    dataOffset >= room &&
    dataOffset % room === 0n &&
    (slot === "back" || dataOffset === room) &&
    dataOffset <= end &&
    storedBytes <= end - dataOffset;
  if (!isPlaced) return `its header puts ${storedBytes} bytes at ${dataOffset}, which is no place of it`;
  if (storedBytes > lengthBytes || (state === 3 && storedBytes !== lengthBytes)) {
    return `its header has ${storedBytes} of ${lengthBytes} bytes in state ${state}`;
  }
  return null;
}
