// The fault plan as objects: FAULTS in the machine's memory. What each kind imitates: docs/FAULTS.md.
// Nothing of Node.
import * as layout from "../../assembly/layout.js";
import { MmcError } from "../errors.js";
import { judge, oneOf, required, type Shape, U32, whole } from "../judge.js";

export type FaultKind =
  | "no-response"
  | "command-crc"
  | "response-crc"
  | "read-crc"
  | "read-ecc"
  | "read-silent"
  | "write-crc"
  | "program"
  | "stuck-busy"
  | "phantom-write"
  | "pulled"
  | "switch"
  | "bad-after-stop"
  | "vanish"
  | "late-busy"
  | "long-busy"
  | "long-r1b"
  | "wrong-index"
  | "slow-read"
  | "locked"
  | "cc-error"
  | "misdirected-write"
  | "latent-read"
  | "bit-rot"
  | "dat-stuck"
  | "deselect-busy"
  | "write-protect"
  | "swapped"
  | "brown-out"
  | "refused"
  | "illegal";

const KINDS: Record<FaultKind, number> = {
  "no-response": layout.FAULT_NO_RESPONSE,
  "command-crc": layout.FAULT_COMMAND_CRC,
  "response-crc": layout.FAULT_RESPONSE_CRC,
  "read-crc": layout.FAULT_READ_CRC,
  "read-ecc": layout.FAULT_READ_ECC,
  "read-silent": layout.FAULT_READ_SILENT,
  "write-crc": layout.FAULT_WRITE_CRC,
  program: layout.FAULT_PROGRAM,
  "stuck-busy": layout.FAULT_STUCK_BUSY,
  "phantom-write": layout.FAULT_PHANTOM_WRITE,
  pulled: layout.FAULT_PULLED,
  switch: layout.FAULT_SWITCH,
  "bad-after-stop": layout.FAULT_BAD_AFTER_STOP,
  vanish: layout.FAULT_VANISH,
  "late-busy": layout.FAULT_LATE_BUSY,
  "long-busy": layout.FAULT_LONG_BUSY,
  "long-r1b": layout.FAULT_LONG_R1B,
  "wrong-index": layout.FAULT_WRONG_INDEX,
  "slow-read": layout.FAULT_SLOW_READ,
  locked: layout.FAULT_LOCKED,
  "cc-error": layout.FAULT_CC_ERROR,
  "misdirected-write": layout.FAULT_MISDIRECTED_WRITE,
  "latent-read": layout.FAULT_LATENT_READ,
  "bit-rot": layout.FAULT_BIT_ROT,
  "dat-stuck": layout.FAULT_DAT_STUCK,
  "deselect-busy": layout.FAULT_DESELECT_BUSY,
  "write-protect": layout.FAULT_WRITE_PROTECT,
  swapped: layout.FAULT_SWAPPED,
  "brown-out": layout.FAULT_BROWN_OUT,
  refused: layout.FAULT_REFUSED,
  illegal: layout.FAULT_ILLEGAL,
};

const LEVELS = {
  hpi: layout.STUCK_UNTIL_HPI,
  reset: layout.STUCK_UNTIL_RESET,
  "power-cycle": layout.STUCK_UNTIL_POWER_CYCLE,
} as const;

export interface FaultPlan {
  kind: FaultKind;
  /** Command faults: the index, 0 … 63; default any. */
  command?: number | undefined;
  /** How many matches pass before it strikes; default 0. */
  skip?: number | undefined;
  /** How many times it strikes; default for ever. */
  times?: number | undefined;
  /** Block faults: the sectors concerned; default all. */
  firstLba?: number | undefined;
  lastLba?: number | undefined;
  /** stuck-busy, dat-stuck: what frees the card; default `hpi`. HPI does not free a line: there it is `reset`. */
  until?: keyof typeof LEVELS | undefined;
  /** late-busy, long-busy, long-r1b, slow-read: how much later or longer, in simulated µs. */
  delayUs?: number | undefined;
  /** misdirected-write: the sector that is overwritten instead. */
  toLba?: number | undefined;
  /** refused: the error bits of the R1 that answers a command which is not executed. */
  bits?: number | undefined;
}

const ANY = 0xffffffff;

/** Kinds that mean nothing without their number. */
const NEEDS: Partial<Record<FaultKind, "delayUs" | "toLba" | "bits">> = {
  "late-busy": "delayUs",
  "long-busy": "delayUs",
  "long-r1b": "delayUs",
  "slow-read": "delayUs",
  "misdirected-write": "toLba",
  refused: "bits",
};

/** Of stuck-busy and dat-stuck alone. */
const KINDS_THAT_STAY: ReadonlySet<FaultKind> = new Set(["stuck-busy", "dat-stuck"]);
/** Kinds that strike at blocks; the others strike at commands (docs/FAULTS.md, "place"). */
const BLOCK_KINDS: ReadonlySet<FaultKind> = new Set([
  "read-crc",
  "read-ecc",
  "read-silent",
  "write-crc",
  "program",
  "stuck-busy",
  "phantom-write",
  "bad-after-stop",
  "bit-rot",
  "latent-read",
  "misdirected-write",
  "cc-error",
  "late-busy",
  "long-busy",
  "slow-read",
  "deselect-busy",
]);

/** The core counts times and levels up to the number that means any. */
const BELOW_ANY = whole(0, ANY - 1);

const FAULT_PLAN: Shape<FaultPlan> = {
  kind: required(oneOf(KINDS)),
  command: whole(0, 63),
  skip: U32,
  times: whole(1, ANY),
  firstLba: U32,
  lastLba: U32,
  until: oneOf(LEVELS),
  delayUs: BELOW_ANY,
  toLba: BELOW_ANY,
  bits: BELOW_ANY,
};

/** @throws MmcError EINVAL what this kind of fault does not look at, or does without */
function judgeFault(given: FaultPlan): FaultPlan {
  const plan = judge("fault", given, FAULT_PLAN);
  const { kind } = plan;
  const needs = NEEDS[kind];
  if (needs !== undefined && plan[needs] === undefined) {
    throw new MmcError("EINVAL", `fault: ${kind} needs ${needs}, a whole number from 0 to ${ANY - 1}`);
  }
  const isOfBlocks = BLOCK_KINDS.has(kind);
  const idle = {
    command: isOfBlocks,
    firstLba: !isOfBlocks,
    lastLba: !isOfBlocks,
    until: !KINDS_THAT_STAY.has(kind),
    delayUs: needs !== "delayUs",
    toLba: needs !== "toLba",
    bits: needs !== "bits",
  };
  for (const [name, isIdle] of Object.entries(idle) as [keyof typeof idle, boolean][]) {
    if (isIdle && plan[name] !== undefined) {
      throw new MmcError("EINVAL", `fault.${name}: ${kind} does not look at it`);
    }
  }
  return plan;
}

export function writeFault(memory: WebAssembly.Memory, index: number, given: FaultPlan): void {
  const plan = judgeFault(given);
  const kind = KINDS[plan.kind];
  const needs = NEEDS[plan.kind];
  const level = needs === undefined ? LEVELS[plan.until ?? "hpi"] : (plan[needs] ?? 0);
  const view = new DataView(
    memory.buffer,
    layout.FAULTS_BASE + index * layout.FAULT_BYTES,
    layout.FAULT_BYTES,
  );
  view.setUint32(layout.FAULT_COMMAND, plan.command ?? ANY, true);
  view.setUint32(layout.FAULT_SKIP, plan.skip ?? 0, true);
  view.setUint32(layout.FAULT_TIMES, plan.times ?? ANY, true);
  view.setUint32(layout.FAULT_FIRST_LBA, plan.firstLba ?? 0, true);
  view.setUint32(layout.FAULT_LAST_LBA, plan.lastLba ?? ANY, true);
  view.setUint32(layout.FAULT_LEVEL, level, true);
  view.setUint32(layout.FAULT_SEEN, 0, true);
  view.setUint32(layout.FAULT_KIND, kind, true);
  const count = new Uint32Array(memory.buffer, layout.FAULTS_COUNT, 1);
  count[0] = Math.max(count[0] as number, index + 1);
}

/** Empties the plan in a machine's memory. */
export function clearFaults(memory: ArrayBufferLike): void {
  new Uint8Array(memory, layout.FAULTS_BASE, layout.FAULTS_MAX * layout.FAULT_BYTES).fill(0);
  new Uint32Array(memory, layout.FAULTS_COUNT, 1).fill(0);
}
