// A crash dump: regions that are registered ahead of time, and the ELF core that they make. The table, its rules, the
// plan and every byte of the headers are the core's (assembly/dump); this file gives it a memory and brings
// the bytes that lie outside of that memory. Must never hold more of the file than what one read() asks for.
import {
  DUMP_ALIGN,
  DUMP_CAPACITY,
  DUMP_CLASS,
  DUMP_ELF_FLAGS,
  DUMP_ENTRY,
  DUMP_EXTENT_BYTES,
  DUMP_EXTENT_OFFSET,
  DUMP_EXTENT_SLOT,
  DUMP_FLAGS,
  DUMP_HEADER_BYTES,
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
  DUMP_TOTAL_BYTES,
  DUMP_WORK,
  DUMP_WORK_BYTES,
  MEDIUM_BASE,
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
  SLOT_ADDRESS,
  SLOT_NAME,
  SLOT_REGION_FLAGS,
  SLOT_SIZE,
  SLOT_VADDR,
} from "../../assembly/layout.js";
import { type CoreExports, instantiate, makeMemory } from "../core/instantiate.js";
import { codeOf } from "../core/status.js";
import { MmcError } from "../errors.js";
import { type FailedRange, Ranges } from "./failed-ranges.js";
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
/** Headers pass through here on their way out of the core. */
const WINDOW_BYTES = 65536;
/** What is lost with a byte that cannot be read, at most: a failed read is repeated by pages. */
const PAGE_BYTES = 4096;

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

interface Entry {
  id: number;
  region: Region;
  size: number;
}

/** The regions of one crash dump, and its plan. */
export class CrashDump {
  readonly #core: CoreExports;
  readonly #memory: WebAssembly.Memory;
  readonly #window: number;
  readonly #entries = new Map<number, Entry>();
  #plan: DumpPlan | null = null;

  /**
   * @param module the `release` core.
   * @throws MmcError EINVAL an option that makes no sense; ENOSPC notes of more than 1 MiB.
   */
  constructor(module: WebAssembly.Module, options: DumpOptions) {
    const capacity = options.capacity ?? CAPACITY;
    const align = options.align ?? 1;
    const layout = options.layout ?? "core";
    const notes = options.notes ?? [];
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > DUMP_SLOTS_MAX) {
      throw new MmcError("EINVAL", `capacity: ${capacity} is not 1 to ${DUMP_SLOTS_MAX}`);
    }
    if (!Number.isInteger(align) || align < 1 || align > 2 ** 31 || (align & (align - 1)) !== 0) {
      throw new MmcError("EINVAL", `align: ${align} is no power of two up to 2^31`);
    }
    if (!Number.isInteger(options.machine) || options.machine < 0 || options.machine > 0xffff) {
      throw new MmcError("EINVAL", `machine: ${options.machine} is no e_machine`);
    }
    if (options.class !== 32 && options.class !== 64) {
      throw new MmcError("EINVAL", `class: ${options.class} is neither 32 nor 64`);
    }
    const entry = options.entry ?? 0n;
    if (entry < 0n || entry >> BigInt(options.class) !== 0n) {
      throw new MmcError("EINVAL", `entry: ${entry} does not fit into ${options.class} bits`);
    }
    if (notes.length > 0 && layout !== "core") {
      throw new MmcError("EINVAL", `notes: layout ${layout} has none`);
    }
    let noteBytes = 0;
    for (const { description } of notes) noteBytes += 27 + description.length;
    // The table, then the notes, then the window; 8-byte aligned all of them.
    const notesAt = MEDIUM_BASE + capacity * DUMP_SLOT_BYTES;
    this.#window = (notesAt + noteBytes + 7) & ~7;
    const longest = Math.max(WINDOW_BYTES, ...notes.map(({ description }) => description.length));
    this.#memory = makeMemory(this.#window + longest - MEDIUM_BASE);
    this.#core = instantiate(module, this.#memory);
    const view = this.#view();
    view.setUint32(DUMP_WORK, MEDIUM_BASE, true);
    view.setUint32(DUMP_WORK_BYTES, this.#window - MEDIUM_BASE, true);
    view.setUint32(DUMP_CAPACITY, capacity, true);
    view.setUint32(DUMP_NOTE_BYTES, noteBytes, true);
    view.setUint32(DUMP_FLAGS, shapeOf(layout, options), true);
    view.setUint32(DUMP_ALIGN, align, true);
    view.setUint32(DUMP_CLASS, options.class === 64 ? 2 : 1, true);
    view.setUint32(DUMP_MACHINE, options.machine, true);
    view.setBigUint64(DUMP_ENTRY, entry, true);
    view.setUint32(DUMP_ELF_FLAGS, options.elfFlags ?? 0, true);
    this.#check(this.#core.dumpInit(), "dump");
    for (const { type, description } of notes) {
      new Uint8Array(this.#memory.buffer, this.#window).set(description);
      this.#check(this.#core.dumpNote(type, this.#window, description.length), `note ${type}`);
    }
  }

  /**
   * Registers a region and returns its id, which unregister() takes.
   * @throws MmcError EINVAL name, size, alignment or an end beyond 2^64; EOVERFLOW an end beyond 4 GiB in class 32;
   * EEXIST a name that is taken, or an overlap; ENOSPC the table is full; EBUSY a plan has frozen it.
   */
  register(region: Region): number {
    const { name, source } = region;
    const size = region.size ?? (source instanceof Uint8Array ? source.length : 0);
    const flags = region.flags ?? 6;
    const what = `region ${name}`;
    if (!Number.isSafeInteger(size) || size < 0)
      throw new MmcError("EINVAL", `${what}: size ${size} is none`);
    if (source instanceof Uint8Array && source.length !== size) {
      throw new MmcError("EINVAL", `${what}: has ${source.length} bytes, not ${size}`);
    }
    if (!Number.isInteger(flags) || flags < 0 || flags > 7) {
      throw new MmcError("EINVAL", `${what}: flags ${flags} are not 0 to 7`);
    }
    const vaddr = region.vaddr ?? region.address;
    for (const address of [region.address, vaddr]) {
      if (address < 0n || address >> 64n !== 0n) {
        throw new MmcError("EINVAL", `${what}: ${address} is no 64-bit address`);
      }
    }
    const bytes = new TextEncoder().encode(name);
    const view = this.#view();
    const slotName = new Uint8Array(this.#memory.buffer, DUMP_REQUEST + SLOT_NAME, 16);
    slotName.fill(0);
    // 16 characters leave no NUL, which the core refuses as it does all that is not a name.
    slotName.set(bytes.subarray(0, 16));
    view.setBigUint64(DUMP_REQUEST + SLOT_ADDRESS, region.address, true);
    view.setBigUint64(DUMP_REQUEST + SLOT_VADDR, vaddr, true);
    view.setBigUint64(DUMP_REQUEST + SLOT_SIZE, BigInt(size), true);
    view.setUint32(DUMP_REQUEST + SLOT_REGION_FLAGS, flags, true);
    const id = this.#check(this.#core.dumpRegister(), what);
    this.#entries.set(id & 0xffff, { id, region, size });
    return id;
  }

  /** @throws MmcError ENOENT no region has this id (any more); EBUSY a plan has frozen the table. */
  unregister(id: number): void {
    this.#check(this.#core.dumpUnregister(id), `region ${id}`);
    this.#entries.delete(id & 0xffff);
  }

  /**
   * Freezes the table and plans the file; until release() the same plan.
   * @throws MmcError ENODATA no region; EOVERFLOW more segments or sections than ELF can count; EFBIG more than 4 GiB
   * in class 32, or 2^53 bytes.
   */
  plan(): DumpPlan {
    if (this.#plan !== null) return this.#plan;
    this.#check(this.#core.dumpPlan(), "dump");
    const sizeBytes = Number(this.#view().getBigUint64(DUMP_TOTAL_BYTES, true));
    if (!Number.isSafeInteger(sizeBytes)) {
      this.#core.dumpRelease();
      throw new MmcError("EFBIG", `dump: ${sizeBytes} bytes are more than 2^53`);
    }
    this.#plan = new DumpPlan({
      core: this.#core,
      memory: this.#memory,
      window: this.#window,
      entries: this.#entries,
      sizeBytes,
      headerBytes: this.#view().getUint32(DUMP_HEADER_BYTES, true),
      released: () => {
        this.#plan = null;
      },
    });
    return this.#plan;
  }

  #view(): DataView {
    return new DataView(this.#memory.buffer);
  }

  #check(status: number, what: string): number {
    if (status >= 0) return status;
    const why = REASONS[this.#view().getUint32(DUMP_REFUSED, true)] ?? "is refused";
    throw new MmcError(codeOf(status), `${what}: ${why}`);
  }
}

function shapeOf(layout: NonNullable<DumpOptions["layout"]>, options: DumpOptions): number {
  const overlap = options.overlap === "allow" ? DUMP_OVERLAP : 0;
  if (layout === "remoteproc") return DUMP_SEGMENTS | DUMP_REMOTEPROC | overlap;
  if (layout === "remoteproc-sections") return DUMP_SECTIONS | DUMP_REMOTEPROC | overlap;
  return DUMP_SEGMENTS | DUMP_NOTES | (options.sections === false ? 0 : DUMP_SECTIONS) | overlap;
}

interface PlanParts {
  core: CoreExports;
  memory: WebAssembly.Memory;
  window: number;
  entries: ReadonlyMap<number, Entry>;
  sizeBytes: number;
  headerBytes: number;
  released(): void;
}

/** Part of a read that lies in one region. */
interface Piece {
  entry: Entry;
  /** In the region, in bytes. */
  offset: number;
  target: Uint8Array;
}

/** The file that the regions make, readable at any offset. Made by {@link CrashDump.plan}. */
export class DumpPlan {
  readonly sizeBytes: number;
  /** Where the first region's bytes begin. */
  readonly headerBytes: number;
  readonly #parts: PlanParts;
  readonly #failed = new Map<number, Ranges>();
  /** Of the whole memory, which never grows. */
  readonly #view: DataView;
  #isReleased = false;

  constructor(parts: PlanParts) {
    this.#parts = parts;
    this.#view = new DataView(parts.memory.buffer);
    this.sizeBytes = parts.sizeBytes;
    this.headerBytes = parts.headerBytes;
  }

  /**
   * `count` bytes from `offset` on; fewer only at the end of the file, none from there on. Bytes that a region's source
   * does not bring are 0xff, by pages of 4 KiB, and listed in {@link failures}.
   * @throws MmcError EINVAL a broken number; EOPNOTSUPP a remote region: readAsync() reads those; EBADF released.
   */
  read(offset: number, count: number): Uint8Array {
    const bytes = new Uint8Array(this.#lengthAt(offset, count));
    this.readInto(offset, bytes);
    return bytes;
  }

  /** As {@link read}, as many as `target` holds. Returns how many it got; nothing is allocated for them. */
  readInto(offset: number, target: Uint8Array): number {
    const bytes = target.subarray(0, this.#lengthAt(offset, target.length));
    const pieces = this.#split(offset, bytes);
    if (pieces.some(({ entry }) => isRemote(entry.region.source))) {
      throw new MmcError("EOPNOTSUPP", "dump: a remote region cannot be read at once");
    }
    for (const piece of pieces) {
      const brought = bring(piece);
      if (brought === piece.target.length) continue;
      for (const part of pagesFrom(piece, brought)) this.#settle(part, bring(part));
    }
    return bytes.length;
  }

  /** As {@link read}, for remote regions as well. */
  async readAsync(offset: number, count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#lengthAt(offset, count));
    for (const piece of this.#split(offset, bytes)) {
      const brought = await bringLater(piece);
      for (const part of pagesFrom(piece, brought)) this.#settle(part, await bringLater(part));
    }
    return bytes;
  }

  /** What could not be read so far, by region and offset. */
  failures(): FailedRange[] {
    const list: FailedRange[] = [];
    for (const [slot, ranges] of [...this.#failed].sort(([a], [b]) => a - b)) {
      const entry = this.#parts.entries.get(slot);
      if (entry === undefined) continue;
      for (const { from, to } of ranges) {
        list.push({ id: entry.id, name: entry.region.name, offset: from, lengthBytes: to - from });
      }
    }
    return list;
  }

  /** The dump is done: the table takes regions again, and this plan reads no more. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#parts.core.dumpRelease();
    this.#parts.released();
  }

  /** How many bytes a read gives. */
  #lengthAt(offset: number, count: number): number {
    if (this.#isReleased) throw new MmcError("EBADF", "dump: the plan is released");
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(count) || offset < 0 || count < 0) {
      throw new MmcError("EINVAL", `dump: cannot read ${count} bytes at ${offset}`);
    }
    return Math.max(0, Math.min(count, this.sizeBytes - offset));
  }

  /** Puts the headers into `bytes`, which lie in the file, and returns what is still to be brought. */
  #split(offset: number, bytes: Uint8Array): Piece[] {
    const pieces: Piece[] = [];
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      if (at < this.headerBytes) {
        done += this.#header(at, bytes.subarray(done, done + this.headerBytes - at));
        continue;
      }
      const piece = this.#extent(at, bytes.subarray(done));
      pieces.push(piece);
      done += piece.target.length;
    }
    return pieces;
  }

  #header(at: number, target: Uint8Array): number {
    const { core, memory, window } = this.#parts;
    const n = core.dumpRead(at, 0, Math.min(target.length, WINDOW_BYTES), window);
    target.set(new Uint8Array(memory.buffer, window, n));
    return n;
  }

  #extent(at: number, rest: Uint8Array): Piece {
    const { core, entries } = this.#parts;
    core.dumpExtent(at % 2 ** 32, Math.floor(at / 2 ** 32));
    const view = this.#view;
    const entry = entries.get(view.getUint32(DUMP_EXTENT_SLOT, true));
    if (entry === undefined) throw new MmcError("EIO", `dump: nothing is planned at ${at}`);
    const untilEnd = Number(view.getBigUint64(DUMP_EXTENT_BYTES, true));
    const target = rest.subarray(0, Math.min(rest.length, untilEnd));
    return { entry, offset: Number(view.getBigUint64(DUMP_EXTENT_OFFSET, true)), target };
  }

  #settle({ entry, offset, target }: Piece, brought: number): void {
    if (brought === target.length) return;
    // A page is whole or it is 0xff: what a source leaves behind when it fails is not known to be right.
    target.fill(0xff);
    const slot = entry.id & 0xffff;
    const ranges = this.#failed.get(slot) ?? new Ranges();
    this.#failed.set(slot, ranges);
    ranges.add(offset, offset + target.length);
  }
}

/** Of a piece that was not brought whole, the pages from the first missing byte on. */
function* pagesFrom({ entry, offset, target }: Piece, brought: number): Generator<Piece> {
  const end = offset + target.length;
  for (let at = offset + brought; at < end; ) {
    const until = Math.min(end, (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES);
    yield { entry, offset: at, target: target.subarray(at - offset, until - offset) };
    at = until;
  }
}

function isRemote(
  source: RegionSource,
): source is { remote(address: bigint, target: Uint8Array): Promise<number> } {
  return !(source instanceof Uint8Array) && typeof source !== "function";
}

/** How many of `wanted` bytes a source says it brought: not more, and none if it says nonsense. */
function broughtOf(said: number | undefined, wanted: number): number {
  if (said === undefined) return wanted;
  return Number.isInteger(said) && said >= 0 && said <= wanted ? said : 0;
}

/** How many bytes of a piece its source brought; 0 if it failed. */
function bring({ entry, offset, target }: Piece): number {
  const { source } = entry.region;
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

async function bringLater(piece: Piece): Promise<number> {
  const { entry, offset, target } = piece;
  const { source, address } = entry.region;
  if (!isRemote(source)) return bring(piece);
  try {
    return broughtOf(await source.remote(address + BigInt(offset), target), target.length);
  } catch {
    return 0;
  }
}
