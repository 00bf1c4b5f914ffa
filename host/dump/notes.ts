// The notes of an ELF core: what gdb, crash and readelf expect of the registers, of the process and of the kernel. The
// layouts are those of Linux's struct elf_prstatus and elf_prpsinfo for each machine; everything is little-endian.
import { MmcError } from "../errors.js";

/** A note as it goes into the file; `type` 0 is VMCOREINFO's, the others are CORE's. */
export interface DumpNote {
  type: number;
  description: Uint8Array;
}

export const NT_PRSTATUS = 1;
export const NT_PRPSINFO = 3;
/** The note of a Linux kernel dump that has its symbols; its name is VMCOREINFO. */
export const NT_VMCOREINFO = 0;

export type NoteMachine = "x86-64" | "aarch64" | "i386" | "arm";

/** e_machine, the width of a register in bytes, and how many of them pr_reg has. */
const MACHINES = {
  "x86-64": { machine: 62, word: 8, registers: 27 },
  aarch64: { machine: 183, word: 8, registers: 34 },
  i386: { machine: 3, word: 4, registers: 17 },
  arm: { machine: 40, word: 4, registers: 18 },
} as const;

/** e_machine of a machine whose notes are known here. */
export function machineOf(name: NoteMachine): number {
  return MACHINES[name].machine;
}

export interface PrStatus {
  pid: number;
  /** What ended it, e.g. 11. */
  signal?: number;
  /** pr_reg in the order of the machine's user_regs_struct; missing ones are 0. */
  registers: readonly bigint[];
}

/**
 * NT_PRSTATUS: 336 bytes on x86-64, 392 on aarch64, 144 on i386, 148 on arm.
 * @throws MmcError EINVAL too many registers, or one that does not fit.
 */
export function prStatusNote(name: NoteMachine, { pid, signal = 0, registers }: PrStatus): DumpNote {
  const { word, registers: count } = MACHINES[name];
  if (registers.length > count) {
    throw new MmcError("EINVAL", `registers: ${registers.length} are more than ${name} has (${count})`);
  }
  // pr_info is 12 bytes, then pr_cursig, two masks of a word, four ids and four times of two words each.
  const pidAt = 16 + 2 * word;
  const registersAt = pidAt + 16 + 8 * word;
  const lengthBytes = registersAt + count * word + 4; // pr_fpvalid
  const description = new Uint8Array(Math.ceil(lengthBytes / word) * word);
  const view = new DataView(description.buffer);
  view.setInt32(0, signal, true);
  view.setUint16(12, signal, true);
  view.setInt32(pidAt, pid, true);
  for (const [i, value] of registers.entries()) {
    if (value < 0n || value >> BigInt(word * 8) !== 0n) {
      throw new MmcError("EINVAL", `registers: number ${i} does not fit into ${word * 8} bits`);
    }
    if (word === 8) view.setBigUint64(registersAt + i * 8, value, true);
    else view.setUint32(registersAt + i * 4, Number(value), true);
  }
  return { type: NT_PRSTATUS, description };
}

export interface PrPsInfo {
  pid: number;
  /** pr_fname: the first 15 bytes of it. */
  name: string;
  /** pr_psargs: the first 79 bytes of it. */
  args?: string;
}

/** NT_PRPSINFO: 136 bytes on 64-bit machines, 124 on the others. */
export function prPsInfoNote(name: NoteMachine, info: PrPsInfo): DumpNote {
  const is64 = MACHINES[name].word === 8;
  const pidAt = is64 ? 24 : 12;
  const nameAt = pidAt + 16;
  const description = new Uint8Array(nameAt + 16 + 80);
  new DataView(description.buffer).setInt32(pidAt, info.pid, true);
  const encoder = new TextEncoder();
  encoder.encodeInto(info.name, description.subarray(nameAt, nameAt + 15));
  encoder.encodeInto(info.args ?? "", description.subarray(nameAt + 16, nameAt + 16 + 79));
  return { type: NT_PRPSINFO, description };
}

/** The kernel's VMCOREINFO, as `/sys/kernel/vmcoreinfo` points to it: lines of KEY=value. */
export function vmcoreinfoNote(text: string): DumpNote {
  return { type: NT_VMCOREINFO, description: new TextEncoder().encode(text) };
}
