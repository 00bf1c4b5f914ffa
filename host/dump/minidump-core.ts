// A minidump as one ELF core: its regions, as far as they are in the image, through the same planner as every other
// dump. Their virtual addresses are in no table of the minidump; where one of the regions is the ELF header that Linux
// keeps for it ("KELF…"), they are taken from there. Nothing of Node.
import { MmcError } from "../errors.js";
import { CrashDump } from "./dump.js";
import { type ElfCore, type ElfSource, PT_LOAD, readElfCore } from "./elf.js";
import type { Minidump, MinidumpRegion } from "./minidump.js";

const EM_AARCH64 = 183;
const NAME_CHARACTERS = 15;

/**
 * The regions of `minidump` that have bytes in `source`, registered for an ELF64 core. Addresses are physical; virtual
 * ones where the minidump has its own ELF header. A region that is cut is as long as what there is of it.
 * @param module the `release` core.
 * @param machine e_machine; default: as that header says, or 183 (AArch64).
 * @throws MmcError ENODATA no region has bytes; EINVAL machine; and what the source throws.
 */
export function minidumpCore(
  module: WebAssembly.Module,
  source: ElfSource,
  minidump: Pick<Minidump, "regions">,
  machine?: number,
): CrashDump {
  const regions = minidump.regions.filter(({ presentBytes }) => presentBytes > 0);
  if (regions.length === 0) throw new MmcError("ENODATA", "minidump: has no region that could be in a core");
  const header = ownHeader(source, regions);
  const dump = new CrashDump(module, {
    class: 64,
    machine: machine ?? header?.machine ?? EM_AARCH64,
    capacity: regions.length,
    // The tables may say what they like: what they say is in the image and is listed.
    overlap: "allow",
  });
  const taken = new Set<string>();
  for (const [i, { name, address, offset, presentBytes }] of regions.entries()) {
    dump.register({
      name: freeName(name, i, taken),
      address,
      vaddr: header?.vaddrs.get(address) ?? address,
      size: presentBytes,
      source: (at, target) => source.readSync(offset + at, target),
    });
  }
  return dump;
}

/** The ELF header among the regions: its machine, and virtual addresses by physical ones. */
function ownHeader(
  source: ElfSource,
  regions: readonly MinidumpRegion[],
): { machine: number; vaddrs: Map<bigint, bigint> } | null {
  const region = regions.find(({ name }) => name.startsWith("KELF"));
  if (region === undefined) return null;
  const { offset, presentBytes } = region;
  let core: ElfCore;
  try {
    core = readElfCore({
      sizeBytes: presentBytes,
      readSync: (at, target) => source.readSync(offset + at, target),
    });
  } catch (error) {
    if (error instanceof MmcError && error.code === "EINVAL") return null;
    throw error;
  }
  const bySize = new Map(regions.map(({ address, lengthBytes }) => [address, lengthBytes]));
  const vaddrs = new Map<bigint, bigint>();
  for (const { type, paddr, vaddr, memsz } of core.segments) {
    const lengthBytes = bySize.get(paddr);
    const fits = lengthBytes !== undefined && memsz <= lengthBytes && vaddr + lengthBytes <= 1n << 64n;
    if (type === PT_LOAD && fits) vaddrs.set(paddr, vaddr);
  }
  return { machine: core.machine, vaddrs };
}

/** A name that a region may have and that no other has: its own, or a part of it, `#` and its number. */
function freeName(name: string, index: number, taken: Set<string>): string {
  // No name has a `#` of its own, so ours cannot meet one.
  const printable = name.replace(/[^\x21-\x7e]|#/g, "?");
  const tail = `#${index}`;
  const free =
    printable === "" || taken.has(printable)
      ? printable.slice(0, NAME_CHARACTERS - tail.length) + tail
      : printable;
  taken.add(free);
  return free;
}
