// The cores that Linux 6.12's remoteproc made, `enabled` and `inline` alike, and the regions that they were made of.
import { readFileSync } from "node:fs";
import type { DumpOptions, Region } from "../host/dump/dump.js";
import { ROOT } from "./machine.js";

const COUNTING = Uint8Array.from({ length: 100 }, (_, i) => i);
/** Name in tests/data/dumps, and what makes the same file. */
export const KERNEL_CORES: [string, DumpOptions, Region[]][] = [
  ...([32, 64] as const).map((elfClass): [string, DumpOptions, Region[]] => [
    elfClass === 32 ? "class1_machine164" : "class2_machine183",
    { class: elfClass, machine: elfClass === 32 ? 164 : 183, layout: "remoteproc", entry: 0x8000n },
    [
      { name: "first", address: 0x10000000n, source: COUNTING },
      // A carve-out that cannot be mapped: nobody brings a byte.
      { name: "hole", address: 0x50000000n, size: 33, source: () => 0 },
      { name: "third", address: 0x60000000n, source: new Uint8Array(20).fill(0x43) },
    ],
  ]),
  ...([32, 64] as const).map((elfClass): [string, DumpOptions, Region[]] => [
    `class${elfClass / 32}_machine0_sections1`,
    { class: elfClass, machine: 0, layout: "remoteproc-sections", entry: 0x8000n },
    [
      { name: "md_one", address: 0x10000000n, source: new Uint8Array(100).fill(0x43) },
      { name: "md_two", address: 0x20000000n, source: new Uint8Array(50).fill(0x43) },
    ],
  ]),
];

export function kernelCore(name: string): Uint8Array {
  return new Uint8Array(readFileSync(`${ROOT}tests/data/dumps/${name}.elf`));
}
