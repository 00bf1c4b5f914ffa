// RESULT as an object: what the last panic write did, and how far it came.
import * as layout from "../../assembly/layout.js";
import type { ErrorCode } from "../errors.js";
import { codeOf } from "./status.js";
import { decodeCardStatus, STATE_NAMES, STEP_NAMES } from "./trace.js";

/** What became of the crash dump. */
export interface PanicDumpResult {
  /** 0 complete; else a negative errno: why it is partial, or was not even begun. */
  status: number;
  /** `begun`: its last header was not written, so there is none. `none`: nothing was written at all. */
  state: (typeof DUMP_STATES)[number];
  /** In the dump's header: one more than the largest in the area. */
  sequence: bigint;
  /** Of the planned core. */
  lengthBytes: number;
  /** Of it on the card, from its start. */
  storedBytes: number;
  /** Of its first byte, from the start of the dump area. */
  offset: number;
  /** Ranges of it that are 0xff because their source failed, and their bytes together. */
  failedRanges: number;
  failedBytes: number;
  /** The dump is durable. 0: it never was. */
  endNs: bigint;
}

const DUMP_STATES = ["none", "begun", "partial", "complete"] as const;

/** What a command's argument says. */
export type ArgumentClass = "address" | "rca" | "count" | "switch" | "other";

/** A command that the card did not take. */
export interface RefusedCommand {
  /** Its index, 0 … 63. */
  command: number;
  /** A u32, as it went over the wire. */
  argument: number;
  argumentClass: ArgumentClass;
  /** The sector that an argument of the class `address` means; else null. */
  lba: number | null;
  /** The R1 that refused it, a u32; null: none came. */
  r1: number | null;
  /** Names of the R1's error bits. COM_CRC_ERROR and ILLEGAL_COMMAND say no to the command before. */
  errors: string[];
  /** What came in place of an answer: ETIMEDOUT nothing, EILSEQ a damaged one, ENOMEDIUM, EBUSY; null: the R1 came. */
  code: ErrorCode | null;
}

/**
 * What a panic write did. One that was refused (EBUSY another panic holds the host, ECANCELED `maxReason`) did nothing,
 * and shows nothing: step `none`; cardState, dump, failedCommand and firstRefused null; all numbers but status and
 * droppedBytes 0.
 */
export interface PanicResult {
  /** 0, or a negative errno. */
  status: number;
  /** The step that was reached. */
  step: (typeof STEP_NAMES)[number];
  /** Zone index of the last attempt; of several parts, of part 1, the newest. 0 with `attempts` 0: it came to none. */
  zone: number;
  /** Counter in the record; 0 for reasons other than Panic and Oops. */
  count: number;
  /** Sequence number in the seal; further parts have the ones that follow. */
  sequence: bigint;
  /** Records written for the text. 0: none stands. */
  parts: number;
  /** 0, or the negative errno that kept the next part from being written: ENOSPC no zone that policy gives up. */
  partsStatus: number;
  /** Bytes of the text in the record, or in all its parts: its newest. */
  storedBytes: number;
  /** What they are on the medium: fewer if `compressed`. */
  payloadBytes: number;
  /** The payload is a raw deflate stream. */
  compressed: boolean;
  /** Oldest bytes of the text that are in no record. */
  droppedBytes: number;
  /** The card's state when it was first asked; null: it did not answer. */
  cardState: (typeof STATE_NAMES)[number] | null;
  /** Highest rung of the takeover ladder: 1 status … 5 identification, 6 power cycle. */
  rung: number;
  /** Zones tried, for part 1. */
  attempts: number;
  /** Id that held the host; 0: nobody. Whoever it was, his request is lost. */
  interruptedOwner: number;
  startNs: bigint;
  /** The header is durable. 0: it never was. */
  commitNs: bigint;
  endNs: bigint;
  /** Rings that had something new, and have it on the medium. */
  ringsFlushed: number;
  /** 0, or the errno of the first ring that was not flushed; the record stands all the same. */
  ringsStatus: number;
  /** null: the device has no dump area, or the panic was refused. */
  dump: PanicDumpResult | null;
  /**
   * Where the record failed: the command sent last, and its R1 (0: none came), which may be of one that succeeded; null
   * if the record stands. What went wrong first says `firstRefused`.
   */
  failedCommand: number | null;
  r1: number;
  /**
   * The first command that the card did not take, from the time on when it was taken over (a takeover that failed: from
   * its begin). Also where the record stands, in another zone or behind a repetition. null: it took all of them.
   */
  firstRefused: RefusedCommand | null;
}

const ADDRESSES = new Set([17, 18, 24, 25, 28, 29, 30, 31, 32, 33, 35, 36]);
const RCAS = new Set([3, 4, 7, 9, 10, 13, 15, 55]);

function argumentClassOf(command: number): ArgumentClass {
  if (ADDRESSES.has(command)) return "address";
  if (RCAS.has(command)) return "rca";
  return command === 23 ? "count" : command === 6 ? "switch" : "other";
}

function readRefused(u32: (address: number) => number): RefusedCommand | null {
  const command = u32(layout.RESULT_REFUSED_COMMAND);
  if (command === 0xffffffff) return null;
  const argument = u32(layout.RESULT_REFUSED_ARGUMENT);
  const argumentClass = argumentClassOf(command);
  const kind = u32(layout.CONFIG_CARD_KIND);
  const isByBytes =
    kind === layout.CARD_SDSC ||
    (kind === layout.CARD_EMMC && (u32(layout.CONFIG_EMMC_FLAGS) & layout.EMMC_BYTE_ADDRESSED) !== 0);
  const unit = isByBytes ? layout.SECTOR_BYTES : 1;
  const status = u32(layout.RESULT_REFUSED_STATUS) | 0;
  const r1 = status === 0 ? u32(layout.RESULT_REFUSED_R1) : null;
  return {
    command,
    argument,
    argumentClass,
    lba: argumentClass === "address" ? argument / unit : null,
    r1,
    errors: r1 === null ? [] : decodeCardStatus(r1).errors,
    code: status === 0 ? null : codeOf(status),
  };
}

/** Of a panic that was refused with `status` before it touched anything. */
export function refusedResult(status: number, textBytes: number): PanicResult {
  return {
    status,
    step: "none",
    zone: 0,
    count: 0,
    sequence: 0n,
    parts: 0,
    partsStatus: 0,
    storedBytes: 0,
    payloadBytes: 0,
    compressed: false,
    droppedBytes: textBytes,
    cardState: null,
    rung: 0,
    attempts: 0,
    interruptedOwner: 0,
    startNs: 0n,
    commitNs: 0n,
    endNs: 0n,
    ringsFlushed: 0,
    ringsStatus: 0,
    dump: null,
    failedCommand: null,
    r1: 0,
    firstRefused: null,
  };
}

export function readResult(memory: WebAssembly.Memory): PanicResult {
  const view = new DataView(memory.buffer);
  const u32 = (address: number) => view.getUint32(address, true);
  const state = u32(layout.RESULT_CARD_STATE);
  const command = u32(layout.RESULT_COMMAND);
  return {
    status: view.getInt32(layout.RESULT_STATUS, true),
    step: STEP_NAMES[u32(layout.RESULT_STEP)] ?? "none",
    zone: u32(layout.RESULT_ZONE),
    count: u32(layout.RESULT_COUNTER),
    sequence: view.getBigUint64(layout.RESULT_SEQUENCE_LOW, true),
    parts: u32(layout.RESULT_PARTS),
    partsStatus: view.getInt32(layout.RESULT_PARTS_STATUS, true),
    storedBytes: u32(layout.RESULT_STORED_BYTES),
    payloadBytes: u32(layout.RESULT_PAYLOAD_BYTES),
    compressed: u32(layout.RESULT_COMPRESSED) !== 0,
    droppedBytes: u32(layout.RESULT_DROPPED_BYTES),
    cardState: STATE_NAMES[state] ?? null,
    rung: u32(layout.RESULT_RUNG),
    attempts: u32(layout.RESULT_ATTEMPTS),
    interruptedOwner: u32(layout.RESULT_OWNER),
    startNs: view.getBigUint64(layout.RESULT_START_NS_LOW, true),
    commitNs: view.getBigUint64(layout.RESULT_COMMIT_NS_LOW, true),
    endNs: view.getBigUint64(layout.RESULT_END_NS_LOW, true),
    ringsFlushed: u32(layout.RESULT_RINGS_FLUSHED),
    ringsStatus: view.getInt32(layout.RESULT_RINGS_STATUS, true),
    dump: u32(layout.DUMP_AREA_SECTORS) === 0 ? null : readDumpResult(view),
    failedCommand: command === 0xffffffff ? null : command,
    r1: command === 0xffffffff ? 0 : u32(layout.RESULT_R1),
    firstRefused: readRefused(u32),
  };
}

function readDumpResult(view: DataView): PanicDumpResult {
  const u64 = (address: number) => view.getBigUint64(address, true);
  return {
    status: view.getInt32(layout.DUMP_RESULT_STATUS, true),
    state: DUMP_STATES[view.getUint32(layout.DUMP_RESULT_STATE, true)] ?? "none",
    sequence: u64(layout.DUMP_RESULT_SEQUENCE),
    lengthBytes: Number(u64(layout.DUMP_RESULT_LENGTH_BYTES)),
    storedBytes: Number(u64(layout.DUMP_RESULT_STORED_BYTES)),
    offset: Number(u64(layout.DUMP_RESULT_OFFSET)),
    failedRanges: view.getUint32(layout.DUMP_FAILED_RANGES, true),
    failedBytes: Number(u64(layout.DUMP_FAILED_BYTES)),
    endNs: u64(layout.DUMP_RESULT_END_NS),
  };
}
