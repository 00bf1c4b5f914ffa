// The rings by the core's numbers, and the record of one call in the ftrace ring. Nothing of Node.
import type { MachineConfig } from "./profile.js";

/** As assembly/pstore/ring.ts has them; from RING_FTRACE on, one of each CPU. */
export const RING_PMSG = 0;
export const RING_CONSOLE = 1;
export const RING_FTRACE = 2;

/** One call of a function, as Linux's ftrace front-end records it. 32-bit ABIs keep the low half of the addresses. */
export interface FtraceCall {
  cpu: number;
  ip: bigint;
  parentIp: bigint;
}

/** FORMAT.md, "The rings": 24 bytes, or 16 of a 32-bit ABI. */
export function ftraceRecord(
  abi: MachineConfig["abi"],
  ip: bigint,
  parentIp: bigint,
  time: bigint,
): Uint8Array {
  const words = BigUint64Array.of(ip, parentIp, time);
  if (abi === "lp64") return new Uint8Array(words.buffer);
  const record = new DataView(new ArrayBuffer(16));
  record.setUint32(0, Number(ip & 0xffffffffn), true);
  record.setUint32(4, Number(parentIp & 0xffffffffn), true);
  record.setBigUint64(8, time, true);
  return new Uint8Array(record.buffer);
}
