// A crash dump: regions that are registered ahead of time, and the ELF core that they make. The table, its rules, the
// plan and every byte of the headers are the core's (assembly/dump); this file gives it a memory and brings
// the bytes that lie outside of that memory. Must never hold more of the file than what one read() asks for.
import {
  DUMP_EXTENT_BYTES,
  DUMP_EXTENT_OFFSET,
  DUMP_EXTENT_SLOT,
  DUMP_HEADER_BYTES,
  DUMP_TOTAL_BYTES,
  MEDIUM_BASE,
} from "../../assembly/layout.js";
import { type CoreExports, instantiate, makeMemory } from "../core/instantiate.js";
import { MmcError } from "../errors.js";
import { judge } from "../judge.js";
import { type FailedRange, Ranges } from "./failed-ranges.js";
import {
  bring,
  broughtOf,
  DUMP_OPTIONS,
  type DumpOptions,
  type Entry,
  isRemote,
  type Piece,
  type Region,
  RegionTable,
  regionTableBytes,
} from "./region-table.js";

export type { DumpOptions, Region, RegionSource } from "./region-table.js";

/** Headers pass through here on their way out of the core. */
const WINDOW_BYTES = 65536;
/** What is lost with a byte that cannot be read, at most: a failed read is repeated by pages. */
const PAGE_BYTES = 4096;

/** The regions of one crash dump, and its plan. */
export class CrashDump {
  readonly #core: CoreExports;
  readonly #memory: WebAssembly.Memory;
  readonly #table: RegionTable;
  #plan: DumpPlan | null = null;

  /**
   * @param module the `release` core.
   * @throws MmcError EINVAL an option that makes no sense; ENOSPC notes of more than 1 MiB.
   */
  constructor(module: WebAssembly.Module, given: DumpOptions) {
    const options = judge("", given, DUMP_OPTIONS);
    this.#memory = makeMemory(regionTableBytes(options) + WINDOW_BYTES);
    this.#core = instantiate(module, this.#memory);
    this.#table = new RegionTable(this.#core, this.#memory, options, MEDIUM_BASE);
  }

  /**
   * Registers a region and returns its id, which unregister() takes.
   * @throws MmcError EINVAL name, size, alignment or an end beyond 2^64; EOVERFLOW an end beyond 4 GiB in class 32;
   * EEXIST a name that is taken, or an overlap; ENOSPC the table is full; EBUSY a plan has frozen it.
   */
  register(region: Region): number {
    return this.#table.register(region);
  }

  /** @throws MmcError ENOENT no region has this id (any more); EBUSY a plan has frozen the table. */
  unregister(id: number): void {
    this.#table.unregister(id);
  }

  /**
   * Freezes the table and plans the file; until release() the same plan.
   * @throws MmcError ENODATA no region; EOVERFLOW more segments or sections than ELF can count; EFBIG more than 4 GiB
   * in class 32, or 2^53 bytes.
   */
  plan(): DumpPlan {
    if (this.#plan !== null) return this.#plan;
    this.#table.check(this.#core.dumpPlan(), "dump");
    const view = new DataView(this.#memory.buffer);
    const sizeBytes = Number(view.getBigUint64(DUMP_TOTAL_BYTES, true));
    if (!Number.isSafeInteger(sizeBytes)) {
      this.#core.dumpRelease();
      throw new MmcError("EFBIG", `dump: ${sizeBytes} bytes are more than 2^53`);
    }
    this.#plan = new DumpPlan({
      core: this.#core,
      memory: this.#memory,
      window: this.#table.endOffset,
      entries: this.#table.entries,
      sizeBytes,
      headerBytes: view.getUint32(DUMP_HEADER_BYTES, true),
      released: () => {
        this.#plan = null;
      },
    });
    return this.#plan;
  }
}

interface PlanParts {
  core: CoreExports;
  memory: WebAssembly.Memory;
  window: number;
  entries: readonly (Entry | undefined)[];
  sizeBytes: number;
  headerBytes: number;
  released(): void;
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
    if (pieces.some(({ entry }) => isRemote(entry.source))) {
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
      const entry = this.#parts.entries[slot];
      if (entry === undefined) continue;
      for (const { from, to } of ranges) {
        list.push({ id: entry.id, name: entry.name, offset: from, lengthBytes: to - from });
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
    const entry = entries[view.getUint32(DUMP_EXTENT_SLOT, true)];
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

async function bringLater(piece: Piece): Promise<number> {
  const { entry, offset, target } = piece;
  const { source, address } = entry;
  if (!isRemote(source)) return bring(piece);
  try {
    return broughtOf(await source.remote(address + BigInt(offset), target), target.length);
  } catch {
    return 0;
  }
}
