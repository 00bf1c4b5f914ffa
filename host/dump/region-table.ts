// The region table of a core: its words filled, its regions registered, and the bytes of those brought that lie outside
// of the core's memory. Shared by who reads a dump (dump.ts) and by the device whose panics store one (device.ts).
import {
  DUMP_ALIGN,
  DUMP_CAPACITY,
  DUMP_CLASS,
  DUMP_ELF_FLAGS,
  DUMP_ENTRY,
  DUMP_FLAGS,
  DUMP_MACHINE,
  DUMP_NOTE_BYTES,
  DUMP_NOTES,
  DUMP_OVERLAP,
  DUMP_REFUSED,
  DUMP_REMOTEPROC,
  DUMP_REQUEST,
  DUMP_SECTIONS,
  DUMP_SEGMENTS,
  DUMP_SLOT_BYTES,
  DUMP_SLOTS_MAX,
  DUMP_WORK,
  DUMP_WORK_BYTES,
  REFUSED_ALIGN,
  REFUSED_BYTES,
  REFUSED_CLASS,
  REFUSED_DUPLICATE,
  REFUSED_EMPTY,
  REFUSED_FROZEN,
  REFUSED_FULL,
  REFUSED_ID,
  REFUSED_NAME,
  REFUSED_OVERLAP,
  REFUSED_SEGMENTS,
  REFUSED_SIZE,
  REFUSED_WRAP,
  REGION_MEMORY,
  SLOT_ADDRESS,
  SLOT_NAME,
  SLOT_REGION_FLAGS,
  SLOT_SIZE,
  SLOT_SOURCE,
  SLOT_VADDR,
} from "../../assembly/layout.js";
import type { CoreExports } from "../core/instantiate.js";
import { codeOf } from "../core/status.js";
import { MmcError } from "../errors.js";
import {
  big,
  bool,
  bytes,
  either,
  func,
  having,
  judge,
  list,
  object,
  oneOf,
  required,
  type Shape,
  string,
  U32,
  U64,
  whole,
} from "../judge.js";
import type { DumpNote } from "./notes.js";

/**
 * Where a region's bytes come from. Bytes: as they are when they are read. A function: fills `target` from byte
 * `offset` of the region on and returns how many bytes it filled (nothing: all); it may throw. `remote`: the same
 * later, by address, for {@link DumpPlan.readAsync} alone.
 */
export type RegionSource =
  | Uint8Array
  // biome-ignore lint/suspicious/noConfusingVoidType: a callback that returns nothing has filled everything
  | ((offset: number, target: Uint8Array) => number | void)
  | { remote: (address: bigint, target: Uint8Array) => Promise<number> };

/** A region as its owner registers it. */
export interface Region {
  /** 1 … 15 printable ASCII characters without space; no two regions have the same. */
  name: string;
  /** Physical address. With the size it must end at or below 2^64, in class 32 at or below 2^32. */
  address: bigint;
  /** Default: the address. */
  vaddr?: bigint;
  /** In bytes, at least 1; at most 2^53 - 1. Default: that of the bytes. */
  size?: number;
  /** p_flags: 1 execute, 2 write, 4 read; default 6. */
  flags?: number;
  source: RegionSource;
}

export interface DumpOptions {
  /** ELF class. */
  class: 32 | 64;
  /** e_machine, 0 … 65535. */
  machine: number;
  /** How many regions there can be at a time, 1 … 65,536; default 201. */
  capacity?: number;
  /** e_entry; default 0. */
  entry?: bigint;
  /** e_flags; default 0. */
  elfFlags?: number;
  /**
   * `core` (default): PT_NOTE, PT_LOADs, notes, then sections with `sections`. `remoteproc` and
   * `remoteproc-sections`: byte for byte as Linux's rproc_coredump() and rproc_coredump_using_sections().
   */
  layout?: "core" | "remoteproc" | "remoteproc-sections";
  /** With layout `core`: section headers with the regions' names; default true. */
  sections?: boolean;
  /** Physical addresses and sizes are multiples of it: a power of two; default 1. */
  align?: number;
  /** Whether regions may overlap (by physical address); default `refuse`. */
  overlap?: "refuse" | "allow";
  /** With layout `core`: in this order behind the program headers. */
  notes?: readonly DumpNote[];
}

const CAPACITY = 201;

export const DUMP_OPTIONS: Shape<DumpOptions> = {
  class: required(oneOf([32, 64])),
  machine: required(whole(0, 0xffff)),
  capacity: whole(1, DUMP_SLOTS_MAX),
  entry: U64,
  elfFlags: U32,
  layout: oneOf(["core", "remoteproc", "remoteproc-sections"]),
  sections: bool,
  align: whole(1, 2 ** 31),
  overlap: oneOf(["refuse", "allow"]),
  notes: list(object<DumpNote>({ type: required(U32), description: required(bytes) })),
};

/** What a region's bytes are, its name, and whether it fits, is the core's to judge; this is of what kind they are. */
const REGION: Shape<Region> = {
  name: required(string),
  address: required(big(0n, 2n ** 64n - 1n)),
  vaddr: U64,
  size: whole(0),
  flags: whole(0, 7),
  source: required(either(bytes, either(func, having("remote")))),
};

/** @throws MmcError EINVAL no region, or one of another kind */
export function judgeRegion(region: Region): Region {
  const name: unknown = region !== null && typeof region === "object" ? region.name : undefined;
  return judge(typeof name === "string" ? `region ${name}` : "region", region, REGION);
}
/** u32: generation << 16 | slot, 0 = empty. `id` of Slot in assembly/dump/state.ts. */
const SLOT_ID = 64;

const REASONS: Record<number, string> = {
  [REFUSED_NAME]: "is no name: 1 to 15 printable ASCII characters without space",
  [REFUSED_SIZE]: "has no bytes",
  [REFUSED_ALIGN]: "its address or size is not aligned",
  [REFUSED_WRAP]: "its end is beyond 2^64",
  [REFUSED_CLASS]: "its end is beyond 4 GiB, which ELF32 cannot say",
  [REFUSED_OVERLAP]: "overlaps another region",
  [REFUSED_DUPLICATE]: "is registered already",
  [REFUSED_FULL]: "the table is full",
  [REFUSED_FROZEN]: "the table is frozen until the plan is released",
  [REFUSED_ID]: "no region has this id",
  [REFUSED_SEGMENTS]: "too many regions: an ELF core has at most 65,534 segments, and 65,279 sections",
  [REFUSED_BYTES]: "the file would be too large: ELF32 ends at 4 GiB",
  [REFUSED_EMPTY]: "no region is registered",
};

/** A region as it was registered: what its object says later changes nothing. */
export interface Entry {
  id: number;
  name: string;
  address: bigint;
  size: number;
  source: RegionSource;
}

/** Part of a read that lies in one region. */
export interface Piece {
  entry: Entry;
  /** In the region, in bytes. */
  offset: number;
  target: Uint8Array;
}

/** How much memory a table and its notes take, and how much of it passes notes into the core. */
interface TableBytes {
  capacity: number;
  noteBytes: number;
  /** Of table and notes, a multiple of 8. */
  workBytes: number;
  windowBytes: number;
}

/** @throws MmcError EINVAL options that make no sense */
function tableBytes(options: DumpOptions): TableBytes {
  const capacity = options.capacity ?? CAPACITY;
  const notes = options.notes ?? [];
  let noteBytes = 0;
  for (const { description } of notes) noteBytes += 27 + description.length;
  return {
    capacity,
    noteBytes,
    workBytes: (capacity * DUMP_SLOT_BYTES + noteBytes + 7) & ~7,
    windowBytes: Math.max(0, ...notes.map(({ description }) => description.length)),
  };
}

/** Bytes of memory that a table with these options takes. @throws MmcError EINVAL as {@link RegionTable} */
export function regionTableBytes(options: DumpOptions): number {
  const { workBytes, windowBytes } = tableBytes(options);
  return workBytes + windowBytes;
}

/** The regions of one core. */
export class RegionTable {
  /** Behind table and notes, in the core's memory. */
  readonly endOffset: number;
  /** The descriptions of the notes where the core has them, in their order. */
  readonly notes: Uint8Array[] = [];
  readonly #core: CoreExports;
  readonly #memory: WebAssembly.Memory;
  readonly #entries: (Entry | undefined)[] = [];

  /**
   * @param at where in the memory {@link regionTableBytes} are free, not below MEDIUM_BASE; a multiple of 8.
   * @throws MmcError EINVAL an option that makes no sense; ENOSPC notes of more than 1 MiB.
   */
  constructor(core: CoreExports, memory: WebAssembly.Memory, options: DumpOptions, at: number) {
    const { capacity, noteBytes, workBytes } = tableBytes(options);
    const align = options.align ?? 1;
    const layout = options.layout ?? "core";
    const notes = options.notes ?? [];
    if ((align & (align - 1)) !== 0) {
      throw new MmcError("EINVAL", `align: ${align} is no power of two up to 2^31`);
    }
    const entry = options.entry ?? 0n;
    if (entry >> BigInt(options.class) !== 0n) {
      throw new MmcError("EINVAL", `entry: ${entry} does not fit into ${options.class} bits`);
    }
    if (notes.length > 0 && layout !== "core") {
      throw new MmcError("EINVAL", `notes: layout ${layout} has none`);
    }
    this.#core = core;
    this.#memory = memory;
    this.endOffset = at + workBytes;
    const view = this.#view();
    view.setUint32(DUMP_WORK, at, true);
    view.setUint32(DUMP_WORK_BYTES, workBytes, true);
    view.setUint32(DUMP_CAPACITY, capacity, true);
    view.setUint32(DUMP_NOTE_BYTES, noteBytes, true);
    view.setUint32(DUMP_FLAGS, shapeOf(layout, options), true);
    view.setUint32(DUMP_ALIGN, align, true);
    view.setUint32(DUMP_CLASS, options.class === 64 ? 2 : 1, true);
    view.setUint32(DUMP_MACHINE, options.machine, true);
    view.setBigUint64(DUMP_ENTRY, entry, true);
    view.setUint32(DUMP_ELF_FLAGS, options.elfFlags ?? 0, true);
    this.check(core.dumpInit(), "dump");
    for (const { type, description } of notes) {
      new Uint8Array(memory.buffer, this.endOffset).set(description);
      const at = this.check(core.dumpNote(type, this.endOffset, description.length), `note ${type}`);
      this.notes.push(new Uint8Array(memory.buffer, at, description.length));
    }
  }

  /** By slot. */
  get entries(): readonly (Entry | undefined)[] {
    return this.#entries;
  }

  /**
   * Registers a region and returns its id, which unregister() takes.
   * @throws MmcError EINVAL name, size, alignment or an end beyond 2^64; EOVERFLOW an end beyond 4 GiB in class 32;
   * EEXIST a name that is taken, or an overlap; ENOSPC the table is full; EBUSY a plan has frozen it.
   */
  register(given: Region): number {
    const region = judgeRegion(given);
    const { name, source } = region;
    const size = region.size ?? (source instanceof Uint8Array ? source.length : 0);
    const flags = region.flags ?? 6;
    const what = `region ${name}`;
    if (source instanceof Uint8Array && source.length !== size) {
      throw new MmcError("EINVAL", `${what}: has ${source.length} bytes, not ${size}`);
    }
    const vaddr = region.vaddr ?? region.address;
    const bytes = new TextEncoder().encode(name);
    const view = this.#view();
    const slotName = new Uint8Array(this.#memory.buffer, DUMP_REQUEST + SLOT_NAME, 16);
    slotName.fill(0);
    // 16 characters leave no NUL, which the core refuses as it does all that is not a name.
    slotName.set(bytes.subarray(0, 16));
    view.setBigUint64(DUMP_REQUEST + SLOT_ADDRESS, region.address, true);
    view.setBigUint64(DUMP_REQUEST + SLOT_VADDR, vaddr, true);
    view.setBigUint64(DUMP_REQUEST + SLOT_SIZE, BigInt(size), true);
    // Bytes in the core's own memory it reaches by itself, also when nobody can be asked.
    const isInCore = source instanceof Uint8Array && source.buffer === this.#memory.buffer;
    view.setUint32(DUMP_REQUEST + SLOT_SOURCE, isInCore ? source.byteOffset : 0, true);
    view.setUint32(DUMP_REQUEST + SLOT_REGION_FLAGS, flags | (isInCore ? REGION_MEMORY : 0), true);
    const id = this.check(this.#core.dumpRegister(), what);
    this.#entries[id & 0xffff] = { id, name, address: region.address, size, source };
    return id;
  }

  /** @throws MmcError ENOENT no region has this id (any more); EBUSY a plan has frozen the table. */
  unregister(id: number): void {
    this.check(this.#core.dumpUnregister(id), `region ${id}`);
    this.#entries[id & 0xffff] = undefined;
  }

  /**
   * The core's table has been replaced by a saved one: sources are kept of those regions only that are the same ones
   * in it.
   */
  forgetOthers(): void {
    const view = this.#view();
    const table = view.getUint32(DUMP_WORK, true);
    for (const [slot, entry] of this.#entries.entries()) {
      if (entry === undefined) continue;
      const at = table + slot * DUMP_SLOT_BYTES;
      const name = new TextDecoder().decode(new Uint8Array(this.#memory.buffer, at + SLOT_NAME, 16));
      const isSame =
        view.getUint32(at + SLOT_ID, true) === entry.id &&
        name.replace(/\0+$/, "") === entry.name &&
        view.getBigUint64(at + SLOT_ADDRESS, true) === entry.address &&
        view.getBigUint64(at + SLOT_SIZE, true) === BigInt(entry.size);
      if (!isSame) this.#entries[slot] = undefined;
    }
  }

  /** What the core returned, unless it is an errno. @throws MmcError with the core's reason */
  check(status: number, what: string): number {
    if (status >= 0) return status;
    const why = REASONS[this.#view().getUint32(DUMP_REFUSED, true)] ?? "is refused";
    throw new MmcError(codeOf(status), `${what}: ${why}`);
  }

  #view(): DataView {
    return new DataView(this.#memory.buffer);
  }
}

function shapeOf(layout: NonNullable<DumpOptions["layout"]>, options: DumpOptions): number {
  const overlap = options.overlap === "allow" ? DUMP_OVERLAP : 0;
  if (layout === "remoteproc") return DUMP_SEGMENTS | DUMP_REMOTEPROC | overlap;
  if (layout === "remoteproc-sections") return DUMP_SECTIONS | DUMP_REMOTEPROC | overlap;
  return DUMP_SEGMENTS | DUMP_NOTES | (options.sections === false ? 0 : DUMP_SECTIONS) | overlap;
}

export function isRemote(
  source: RegionSource,
): source is { remote(address: bigint, target: Uint8Array): Promise<number> } {
  return !(source instanceof Uint8Array) && typeof source !== "function";
}

/** How many of `wanted` bytes a source says it brought: not more, and none if it says nonsense. */
export function broughtOf(said: number | undefined, wanted: number): number {
  if (said === undefined) return wanted;
  return Number.isInteger(said) && said >= 0 && said <= wanted ? said : 0;
}

/** How many bytes of a piece its source brought; 0 if it failed. */
export function bring({ entry, offset, target }: Piece): number {
  const { source } = entry;
  if (source instanceof Uint8Array) {
    const bytes = source.subarray(offset, offset + target.length);
    target.set(bytes);
    return bytes.length;
  }
  if (typeof source !== "function") return 0;
  try {
    return broughtOf(source(offset, target) ?? undefined, target.length);
  } catch {
    return 0;
  }
}
