// The fault plan as objects: FAULTS in the machine's memory. What each kind imitates: docs/FAULTS.md.
// Nothing of Node.
import * as layout from "../../assembly/layout.js";
import { MmcError } from "../errors.js";

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
  | "switch";

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
  /** stuck-busy: what frees the card; default `hpi`. */
  until?: keyof typeof LEVELS | undefined;
}

const ANY = 0xffffffff;

export function writeFault(memory: WebAssembly.Memory, index: number, plan: FaultPlan): void {
  const kind = KINDS[plan.kind];
  if (kind === undefined) throw new MmcError("EINVAL", `fault: ${plan.kind} is not one`);
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
  view.setUint32(layout.FAULT_LEVEL, LEVELS[plan.until ?? "hpi"], true);
  view.setUint32(layout.FAULT_SEEN, 0, true);
  view.setUint32(layout.FAULT_KIND, kind, true);
}
