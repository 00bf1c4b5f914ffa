// RESULT as an object: what the last panic write did, and how far it came.
import * as layout from "../../assembly/layout.js";
import { STATE_NAMES, STEP_NAMES } from "./trace.js";

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

export interface PanicResult {
  /** 0, or a negative errno. */
  status: number;
  /** The step that was reached. */
  step: (typeof STEP_NAMES)[number];
  /** Zone index of the last attempt; of several parts, of part 1, the newest. */
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
  /** null: the device has no dump area. */
  dump: PanicDumpResult | null;
  /** The command that failed last, and its R1; null if none did. */
  failedCommand: number | null;
  r1: number;
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
    r1: u32(layout.RESULT_R1),
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
