// What is told of an area: its zones, and the records that Linux's pstore file system shows of them as files.
import type { Abi } from "./format.js";
import type { RecordType } from "./names.js";

/** FORMAT.md, "The state of a kmsg zone", for the zones that have something to show. */
export type RecordState = "ok" | "torn" | "salvaged" | "undecodable";

/** One file of Linux's pstore file system. */
export interface PstoreRecord {
  name: string;
  type: RecordType;
  /** The index of the kmsg zone; 0 for the rings. */
  id: number;
  /** `Panic`, `Oops`, `Emergency`, `Shutdown` or `Unknown`; empty for the rings. */
  reason: string;
  /** The counter, 0 … 2^32 - 1 (in `bytes` Linux prints it as a signed number); 0 for the rings. */
  count: number;
  /** Seconds since 1970 as stored, 0 if unknown and for the rings. */
  timeSec: bigint;
  /** As stored; outside 0..999,999,999 only on a damaged record. */
  timeNsec: number;
  /** The length of `bytes`. */
  size: number;
  compressed: boolean;
  abi: Abi;
  /** Of the zone, in bytes from the start of the area. */
  offset: number;
  /** A seal stands and proves every byte (of a salvaged one: all but the header it mends). Never with `torn`. */
  sealed: boolean;
  /** The seal's sequence if `sealed`, else null. */
  sequence: bigint | null;
  /** Its number in a log of several parts, 1 the newest; 0: no part. Also the three below: FORMAT.md, Long logs. */
  part: number;
  /** How many bytes of the log are older than this part's text. */
  olderBytes: number;
  /** Bytes of `Panic#1 Part2⏎` in front of this part's text that are not the log's. */
  lineBytes: number;
  /** The sequence of part 1 of its log; null if it is no part. */
  first: bigint | null;
  /** The sequence is too far above all others to be one: it orders nothing, and nobody continues from it. */
  outOfOrder: boolean;
  /** The name of a record before this one with the same sequence and bytes; null if there is none. */
  duplicateOf: string | null;
  /** `erased` only in `Decoded.erased` and `Decoded.remains`, `unfinished` only in the latter. */
  state: RecordState | "erased" | "unfinished";
  /** What the file holds, in a buffer of its own. */
  bytes: Uint8Array;
  /** ftrace: the records that `bytes` is the text of, merged by time. Else null. */
  raw: Uint8Array | null;
  /** Where in `bytes` the text begins: behind the line that Linux puts before an uncompressed payload. */
  textOffset: number;
}

/** One zone, whether it holds something or not. */
export interface ZoneInfo {
  type: RecordType;
  /** Of a kmsg zone or of an ftrace slice, else 0. */
  index: number;
  offset: number;
  size: number;
  state: "empty" | "erased" | "unfinished" | RecordState;
  /** As stored (signed), 0 if the zone is empty. */
  datalen: number;
  sealed: boolean;
  /** An erased or unfinished zone: bytes of its record are still there, for `rm --wipe` to clear. */
  hasRemains: boolean;
  /** The sequence of whatever seal stands at the zone's end, even if it proves nothing here; else null. */
  sequence: bigint | null;
  /** Unsigned. This and the three below are as stored, also in an erased zone; 0 if the zone is empty. */
  counter: number;
  reason: number;
  timeSec: bigint;
  timeNsec: number;
}

export function emptyZone(type: ZoneInfo["type"], index: number, offset: number, size: number): ZoneInfo {
  return {
    type,
    index,
    offset,
    size,
    state: "empty",
    datalen: 0,
    sealed: false,
    hasRemains: false,
    sequence: null,
    counter: 0,
    reason: 0,
    timeSec: 0n,
    timeNsec: 0,
  };
}

/** A record of which nothing is known but its bytes. */
export function bareRecord(
  { type, offset }: ZoneInfo,
  name: string,
  abi: Abi,
  bytes: Uint8Array,
): PstoreRecord {
  return {
    name,
    type,
    id: 0,
    reason: "",
    count: 0,
    timeSec: 0n,
    timeNsec: 0,
    size: bytes.length,
    compressed: false,
    abi,
    offset,
    sealed: false,
    sequence: null,
    part: 0,
    olderBytes: 0,
    lineBytes: 0,
    first: null,
    outOfOrder: false,
    duplicateOf: null,
    state: "ok",
    bytes,
    raw: null,
    textOffset: 0,
  };
}
