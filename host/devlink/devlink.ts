// One devlink instance: the regions of a device, their snapshots, and the ids of these. What is refused, with which
// errno and sentence, and which id comes next, is as in Linux 6.12 (docs/DEVLINK.md), but for two things: an event over
// several regions is all or nothing, and all snapshots together are bounded. Nothing of Node.
import { MmcError } from "../errors.js";
import {
  bigint,
  bool,
  bytes,
  either,
  func,
  judge,
  number,
  required,
  type Shape,
  string,
  whole,
} from "../judge.js";
import { ownBytes } from "../own-bytes.js";
import { crc32c } from "../pstore/crc32c.js";
import { DevlinkError } from "./error.js";

/**
 * Where a region's bytes come from. Bytes: as they are when they are read. A function: fills `target` from byte
 * `offset` of the region on and returns how many bytes it filled (nothing: all). What it throws is the answer to the
 * request: an MmcError with its code and message, anything else as EIO. It must not change the instance that it
 * serves.
 */
// biome-ignore lint/suspicious/noConfusingVoidType: a callback that returns nothing has filled everything
export type DevlinkSource = Uint8Array | ((offset: number, target: Uint8Array) => number | void);

/** A region as its owner registers it. */
export interface DevlinkRegion {
  /** 1 … 63 printable ASCII characters without space and slash; no two regions have the same. */
  name: string;
  /** In bytes, 1 … 2^53 - 1. Default: that of the bytes. */
  size?: number | undefined;
  /** How many snapshots it keeps, 1 … 2^32 - 1; default 8. */
  maxSnapshots?: number | undefined;
  /** Without one it has only the snapshots that its owner brings. */
  source?: DevlinkSource | undefined;
  /** Whether `region new` can take a snapshot; default: it has a source. */
  immediate?: boolean | undefined;
  /** Whether it can be read as it is now; default: it has a source. */
  directRead?: boolean | undefined;
}

export interface DevlinkRegionInfo {
  name: string;
  size: number;
  /** Ids, oldest snapshot first. */
  snapshots: number[];
  maxSnapshots: number;
  /** Whether it has a source: without one it shows what was. */
  live: boolean;
}

export interface DevlinkReadOptions {
  /** Without an id the region is read as it is now, piece by piece, not at one instant. */
  snapshot?: number | undefined;
  /** First byte, a u64; default 0. */
  address?: bigint | undefined;
  /** In bytes, a u64; what lies beyond the end is left out. Default: to the end. */
  length?: bigint | undefined;
  /**
   * Counts what is left in 32 bits, as Linux does: a read breaks off with EINVAL where a multiple of 4 GiB is left, and
   * the piece before that is as short as the remainder. Default false.
   */
  linuxLengths?: boolean | undefined;
}

// Ranges are judged where their refusal has words of its own.
const REGION: Shape<DevlinkRegion> = {
  name: required(string),
  size: number,
  maxSnapshots: number,
  source: either(bytes, func),
  immediate: bool,
  directRead: bool,
};
const READ_OPTIONS: Shape<DevlinkReadOptions> = {
  snapshot: number,
  address: bigint,
  length: bigint,
  linuxLengths: bool,
};

/** A piece of a region, at most 256 bytes. */
export interface DevlinkChunk {
  address: bigint;
  data: Uint8Array;
}

export interface DevlinkSnapshot {
  id: number;
  /** CRC-32C of the bytes as they were taken. */
  crc: number;
  bytes: Uint8Array;
}

/** All that a store keeps of an instance. */
export interface DevlinkState {
  /** BUS/DEV. */
  handle: string;
  /** Id → how many hold it: regions, and the allocator itself. */
  ids: [id: number, count: number][];
  regions: { name: string; size: number; maxSnapshots: number; snapshots: DevlinkSnapshot[] }[];
}

interface Region {
  name: string;
  size: number;
  maxSnapshots: number;
  source: DevlinkSource | null;
  immediate: boolean;
  directRead: boolean;
  snapshots: DevlinkSnapshot[];
}

/** What mlx4, the first driver with regions, keeps of each. */
const SNAPSHOTS_MAX = 8;
const SNAPSHOT_BYTES_MAX = 256 * 2 ** 20;
/** DEVLINK_REGION_READ_CHUNK_SIZE. */
const CHUNK_BYTES = 256;
const U32_END = 2 ** 32;
const U64_END = 1n << 64n;
/** Ids in use, those that are never given back included; Linux has 2^32. */
const IDS_MAX = 65_536;
const REGIONS_MAX = 1024;
const NAME = /^[!-.0-~]{1,63}$/;

function isU32(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < U32_END;
}

export class Devlink {
  /** BUS/DEV, what commands call the device. */
  readonly handle: string;
  readonly #regions = new Map<string, Region>();
  readonly #ids = new Map<number, number>();
  /** No lower id is free. */
  #lowestId = 0;
  readonly #snapshotBytesMax: number;
  #snapshotBytes = 0;
  /** Of a state that was loaded: their checksum is computed when they are first read. */
  readonly #unproved = new WeakSet<DevlinkSnapshot>();
  #isCapturing = false;

  /**
   * @param handle BUS/DEV, each 1 … 63 printable ASCII characters without space and slash.
   * @param options snapshotBytesMax: of all snapshots together; default 256 MiB.
   * @throws MmcError EINVAL: no such handle
   */
  constructor(handle: string, options: { snapshotBytesMax?: number | undefined } = {}) {
    const [bus = "", dev = "", ...more] = handle.split("/");
    if (more.length > 0 || !NAME.test(bus) || !NAME.test(dev)) {
      throw new MmcError("EINVAL", `devlink: ${handle} is no BUS/DEV`);
    }
    const { snapshotBytesMax = SNAPSHOT_BYTES_MAX } = judge<{ snapshotBytesMax?: number | undefined }>(
      "",
      options,
      {
        snapshotBytesMax: whole(0),
      },
    );
    this.handle = handle;
    this.#snapshotBytesMax = snapshotBytesMax;
  }

  /**
   * @throws MmcError EINVAL no name, size or number that can be; EEXIST there is one of that name; ENOSPC 1024
   * regions.
   */
  addRegion(given: DevlinkRegion): void {
    const region = judge("devlink region", given, REGION);
    const { name, source = null, maxSnapshots = SNAPSHOTS_MAX } = region;
    const what = `${this.handle}/${name}`;
    const size = region.size ?? (source instanceof Uint8Array ? source.length : 0);
    if (!NAME.test(name)) throw new MmcError("EINVAL", `devlink: ${name} is no name of a region`);
    if (!Number.isSafeInteger(size) || size < 1) throw new MmcError("EINVAL", `${what}: has no size`);
    if (source instanceof Uint8Array && source.length !== size) {
      throw new MmcError("EINVAL", `${what}: ${source.length} bytes for a region of ${size}`);
    }
    if (!isU32(maxSnapshots) || maxSnapshots < 1) {
      throw new MmcError("EINVAL", `${what}: cannot keep ${maxSnapshots} snapshots`);
    }
    if (this.#regions.has(name)) throw new MmcError("EEXIST", `${what}: is registered already`);
    if (this.#regions.size >= REGIONS_MAX) throw new MmcError("ENOSPC", `${what}: is one region too many`);
    this.#refuseWhileCapturing(what);
    const { immediate = source !== null, directRead = source !== null } = region;
    this.#regions.set(name, { name, size, maxSnapshots, source, immediate, directRead, snapshots: [] });
  }

  /** The region goes, and its snapshots. @throws MmcError EINVAL there is none of that name */
  removeRegion(name: string): void {
    const region = this.#find(name, null);
    this.#refuseWhileCapturing(this.#nameOf(region));
    while (region.snapshots.length > 0) this.#drop(region, 0);
    this.#regions.delete(name);
  }

  /** In the order in which they were added. */
  regions(): DevlinkRegionInfo[] {
    return [...this.#regions.values()].map(({ name, size, maxSnapshots, source, snapshots }) => {
      return { name, size, maxSnapshots, snapshots: snapshots.map(({ id }) => id), live: source !== null };
    });
  }

  /** One region. @throws MmcError EINVAL there is none of that name */
  region(name: string): DevlinkRegionInfo {
    this.#find(name, null);
    return this.regions().find((one) => one.name === name) as DevlinkRegionInfo;
  }

  /**
   * `region new`: a snapshot, as one user asks for it. With `id` that id, which nobody may hold; otherwise the lowest
   * that is free, and that one is never free again, as in Linux.
   * @throws DevlinkError EINVAL, EOPNOTSUPP, ENOSPC, EEXIST, ENOMEM, and what the source throws: nothing has changed
   */
  newSnapshot(name: string, id?: number): number {
    const region = this.#find(name, "The requested region does not exist");
    const what = this.#nameOf(region);
    if (!region.immediate) {
      const why = "The requested region does not support taking an immediate snapshot";
      throw new DevlinkError("EOPNOTSUPP", what, why);
    }
    this.#checkNotFull(region);
    if (id !== undefined) {
      if (!isU32(id)) throw new DevlinkError("EINVAL", what, `${id} is no snapshot id`);
      if (region.snapshots.some((one) => one.id === id)) {
        throw new DevlinkError("EEXIST", what, "The requested snapshot id is already in use");
      }
      if (this.#ids.has(id)) throw new DevlinkError("EEXIST", what, null);
    }
    this.#checkBytes(what, region.size);
    const lowest = this.#allocate(what);
    const given = id ?? lowest;
    const bytes = this.copyRegion(name);
    // Linux counts the allocator's own hold on an id that it has chosen, and never takes it back.
    this.#ids.set(given, id === undefined ? 1 : 0);
    this.#keep(region, bytes, given);
    return given;
  }

  /** `region del`. @throws DevlinkError EINVAL no such region or snapshot */
  deleteSnapshot(name: string, id: number): void {
    const region = this.#find(name, null);
    const index = region.snapshots.findIndex((one) => one.id === id);
    if (index < 0) throw new DevlinkError("EINVAL", this.#nameOf(region), null);
    this.#refuseWhileCapturing(this.#nameOf(region));
    this.#drop(region, index);
  }

  /**
   * The bytes of a region now, all of them: what a snapshot would be.
   * @throws DevlinkError EINVAL no such region; EOPNOTSUPP it has no source; what the source throws
   */
  copyRegion(name: string): Uint8Array {
    const region = this.#find(name, "The requested region does not exist");
    this.#checkBytes(this.#nameOf(region), region.size);
    const bytes = new Uint8Array(region.size);
    this.#capture(region, 0, bytes);
    return bytes;
  }

  /**
   * `region read` and `dump`: pieces of 256 bytes from `address` on, the last one shorter. What can be refused is
   * refused at once; a source that throws ends the iteration.
   * @throws DevlinkError EINVAL no such region or snapshot, a range that cannot be; EOPNOTSUPP no direct read;
   *   EBADMSG a snapshot that is not what was taken
   */
  read(name: string, given: DevlinkReadOptions = {}): Iterable<DevlinkChunk> {
    const options = judge("", given, READ_OPTIONS);
    const region = this.#find(name, "Requested region does not exist");
    const what = this.#nameOf(region);
    const { snapshot: id, address = 0n, length, linuxLengths = false } = options;
    const size = BigInt(region.size);
    const snapshot = id === undefined ? null : this.#snapshotOf(region, id);
    if (snapshot === null && !region.directRead) {
      throw new DevlinkError("EOPNOTSUPP", what, "Requested region does not support direct read");
    }
    const end = length === undefined ? size : address + length;
    const isU64 = address >= 0n && (length ?? 0n) >= 0n && end < U64_END;
    if (!isU64 || address > size) throw new DevlinkError("EINVAL", what, null);
    const until = Number(end < size ? end : size);
    return this.#chunks(region, snapshot, Number(address), until, linuxLengths);
  }

  /**
   * An event: one id, the lowest that is free, and a snapshot of each region under it. Regions without bytes of their
   * own are read from their sources, in this order. All or nothing: if anything is refused or fails, no region has a
   * new snapshot and the id is free. It is free again, too, when the last of its snapshots is deleted.
   * @param taken region → its bytes as they were at the event
   * @throws DevlinkError as {@link newSnapshot}; EINVAL no region, or bytes of another size
   */
  snapshotEvent(taken: ReadonlyMap<string, Uint8Array | undefined>): number {
    this.checkEvent([...taken.keys()]);
    const id = this.#allocate(this.handle);
    const kept = [...taken].map(([name, given]) => {
      const region = this.#find(name, null);
      if (given !== undefined && given.length !== region.size) {
        const why = `${given.length} bytes for a region of ${region.size}`;
        throw new DevlinkError("EINVAL", this.#nameOf(region), why);
      }
      return { region, bytes: given ? ownBytes(given) : this.copyRegion(name) };
    });
    this.#ids.set(id, 0);
    for (const { region, bytes } of kept) this.#keep(region, bytes, id);
    return id;
  }

  /** Whether an event over these regions has room. @throws DevlinkError as {@link snapshotEvent}, but for sources */
  checkEvent(names: readonly string[]): void {
    if (names.length === 0) throw new MmcError("EINVAL", `${this.handle}: an event of no region`);
    let bytes = 0;
    for (const name of names) {
      const region = this.#find(name, "The requested region does not exist");
      this.#checkNotFull(region);
      bytes += region.size;
    }
    this.#checkBytes(this.handle, bytes);
  }

  /**
   * For an owner that does as Linux's drivers do: an id that nobody holds, held by the caller until
   * {@link putSnapshotId}. @throws DevlinkError ENOMEM 65,536 ids are in use
   */
  getSnapshotId(): number {
    const id = this.#allocate(this.handle);
    this.#ids.set(id, 1);
    return id;
  }

  /** A snapshot that its owner brings, under an id of {@link getSnapshotId}. The bytes are copied. */
  createSnapshot(name: string, bytes: Uint8Array, id: number): void {
    const region = this.#find(name, null);
    const what = this.#nameOf(region);
    this.#refuseWhileCapturing(what);
    if (region.snapshots.length >= region.maxSnapshots) throw new DevlinkError("ENOSPC", what, null);
    if (region.snapshots.some((one) => one.id === id)) throw new DevlinkError("EEXIST", what, null);
    if (!this.#ids.has(id) || bytes.length !== region.size) throw new DevlinkError("EINVAL", what, null);
    this.#checkBytes(what, region.size);
    this.#keep(region, ownBytes(bytes), id);
  }

  /** @throws DevlinkError EINVAL: only regions hold it, or nobody */
  putSnapshotId(id: number): void {
    this.#refuseWhileCapturing(this.handle);
    const held = [...this.#regions.values()].filter(({ snapshots }) =>
      snapshots.some((one) => one.id === id),
    );
    if ((this.#ids.get(id) ?? 0) <= held.length) throw new DevlinkError("EINVAL", this.handle, null);
    this.#release(id);
  }

  /** What a store keeps. The snapshots' bytes are not copied. */
  state(): DevlinkState {
    const regions = [...this.#regions.values()].map(({ name, size, maxSnapshots, snapshots }) => {
      return { name, size, maxSnapshots, snapshots: [...snapshots] };
    });
    return { handle: this.handle, ids: [...this.#ids], regions };
  }

  /**
   * Takes over a state: snapshots go to the regions of the same name, whose `maxSnapshots` is then the state's; regions
   * that this instance does not have are added, without a source. The bytes are copied. Nothing has changed if it
   * throws.
   * @throws MmcError EBADMSG a state that no instance can have been in; EINVAL a region of the same name and another
   *   size, another handle, or an instance that has snapshots
   */
  load(state: DevlinkState): void {
    this.#refuseWhileCapturing(this.handle);
    if (this.#ids.size > 0) throw new MmcError("EINVAL", `${this.handle}: has snapshots already`);
    if (state.handle !== this.handle) {
      throw new MmcError("EINVAL", `${state.handle}: is not ${this.handle}`);
    }
    this.#checkState(state);
    for (const { name, size, maxSnapshots, snapshots } of state.regions) {
      if (!this.#regions.has(name)) this.addRegion({ name, size, maxSnapshots });
      const region = this.#find(name, null);
      region.maxSnapshots = maxSnapshots;
      for (const given of snapshots) {
        const snapshot = { ...given, bytes: ownBytes(given.bytes) };
        region.snapshots.push(snapshot);
        this.#unproved.add(snapshot);
      }
      this.#snapshotBytes += size * snapshots.length;
    }
    for (const [id, count] of state.ids) this.#ids.set(id, count);
  }

  #checkState({ ids, regions }: DevlinkState): void {
    const refuse = (why: string): never => {
      throw new MmcError("EBADMSG", why);
    };
    const names = new Set(this.#regions.keys());
    const holders = new Map<number, number>();
    let bytes = 0;
    const known = new Set<string>();
    for (const { name, size, maxSnapshots, snapshots } of regions) {
      if (!NAME.test(name) || known.has(name)) refuse("a region has no name, or that of another one");
      known.add(name);
      names.add(name);
      if (!Number.isSafeInteger(size) || size < 1) refuse(`region ${name} has no size`);
      if (!isU32(maxSnapshots) || maxSnapshots < 1 || snapshots.length > maxSnapshots) {
        refuse(`region ${name} has ${snapshots.length} snapshots and keeps ${maxSnapshots}`);
      }
      if (new Set(snapshots.map(({ id }) => id)).size !== snapshots.length) {
        refuse(`region ${name} has two snapshots of one id`);
      }
      for (const { id, crc, bytes } of snapshots) {
        if (!isU32(id) || !isU32(crc) || bytes.length !== size)
          refuse(`region ${name} has a broken snapshot`);
        holders.set(id, (holders.get(id) ?? 0) + 1);
      }
      bytes += size * snapshots.length;
      const mine = this.#regions.get(name);
      if (mine !== undefined && mine.size !== size) {
        throw new MmcError("EINVAL", `${this.#nameOf(mine)}: has ${mine.size} bytes, its snapshots ${size}`);
      }
    }
    if (names.size > REGIONS_MAX || ids.length > IDS_MAX) refuse("more regions or ids than there can be");
    if (bytes > this.#snapshotBytesMax) {
      refuse(`snapshots of ${bytes} bytes, ${this.#snapshotBytesMax} are allowed`);
    }
    const counted = new Map(ids);
    for (const [id, count] of ids) {
      const held = holders.get(id) ?? 0;
      if (!isU32(id) || count < 1 || (count !== held && count !== held + 1)) {
        refuse(`snapshot id ${id} is counted ${count} times and held by ${held} regions`);
      }
    }
    if (counted.size !== ids.length || [...holders.keys()].some((id) => !counted.has(id))) {
      refuse("the ids are not those of the snapshots");
    }
  }

  #nameOf({ name }: { name: string }): string {
    return `${this.handle}/${name}`;
  }

  #find(name: string, extack: string | null): Region {
    const region = this.#regions.get(name);
    if (region === undefined) throw new DevlinkError("EINVAL", this.#nameOf({ name }), extack);
    return region;
  }

  #snapshotOf(region: Region, id: number): DevlinkSnapshot {
    const what = this.#nameOf(region);
    const snapshot = region.snapshots.find((one) => one.id === id);
    if (snapshot === undefined) throw new DevlinkError("EINVAL", what, "Requested snapshot does not exist");
    if (this.#unproved.has(snapshot)) {
      if (crc32c(snapshot.bytes) !== snapshot.crc) {
        throw new DevlinkError("EBADMSG", what, `Snapshot ${id} is damaged: its checksum is wrong`);
      }
      this.#unproved.delete(snapshot);
    }
    return snapshot;
  }

  *#chunks(
    region: Region,
    snapshot: DevlinkSnapshot | null,
    from: number,
    until: number,
    linuxLengths: boolean,
  ): Generator<DevlinkChunk> {
    for (let at = from; at < until; ) {
      const left = linuxLengths ? (until - at) % U32_END : until - at;
      if (left === 0) throw new DevlinkError("EINVAL", this.#nameOf(region), null);
      const lengthBytes = Math.min(left, CHUNK_BYTES);
      const data = snapshot ? ownBytes(snapshot.bytes, at, at + lengthBytes) : new Uint8Array(lengthBytes);
      if (snapshot === null) this.#capture(region, at, data);
      yield { address: BigInt(at), data };
      at += lengthBytes;
    }
  }

  /** Fills `target` from the region's source. */
  #capture(region: Region, offset: number, target: Uint8Array): void {
    const what = this.#nameOf(region);
    const { source } = region;
    this.#refuseWhileCapturing(what);
    if (source === null) throw new DevlinkError("EOPNOTSUPP", what, "the region has no source");
    if (source instanceof Uint8Array) {
      target.set(source.subarray(offset, offset + target.length));
      return;
    }
    this.#isCapturing = true;
    let brought: unknown;
    try {
      brought = source(offset, target) ?? target.length;
    } catch (error) {
      const code = error instanceof MmcError ? error.code : "EIO";
      const why = error instanceof Error ? error.message : String(error);
      throw new DevlinkError(code, what, why.replace(/\p{Cc}+/gu, " "), error);
    } finally {
      this.#isCapturing = false;
    }
    if (brought !== target.length) {
      const why = `${target.length} bytes were asked for at ${offset}, and not brought`;
      throw new DevlinkError("EIO", what, why);
    }
  }

  /** Between the checks of a request and its end nothing else may happen to the instance. */
  #refuseWhileCapturing(what: string): void {
    if (this.#isCapturing) throw new DevlinkError("EBUSY", what, "a source has called its own instance");
  }

  #checkNotFull(region: Region): void {
    if (region.snapshots.length < region.maxSnapshots) return;
    const why = "The region has reached the maximum number of stored snapshots";
    throw new DevlinkError("ENOSPC", this.#nameOf(region), why);
  }

  #checkBytes(what: string, bytes: number): void {
    this.#refuseWhileCapturing(what);
    const total = this.#snapshotBytes + bytes;
    if (total <= this.#snapshotBytesMax) return;
    const why = `Snapshots would take ${total} bytes, the limit is ${this.#snapshotBytesMax}`;
    throw new DevlinkError("ENOMEM", what, why);
  }

  #allocate(what: string): number {
    this.#refuseWhileCapturing(what);
    if (this.#ids.size >= IDS_MAX) {
      throw new DevlinkError("ENOMEM", what, "Failed to allocate a new snapshot id");
    }
    while (this.#ids.has(this.#lowestId)) this.#lowestId++;
    return this.#lowestId;
  }

  #keep(region: Region, bytes: Uint8Array, id: number): void {
    region.snapshots.push({ id, crc: crc32c(bytes), bytes });
    this.#ids.set(id, (this.#ids.get(id) ?? 0) + 1);
    this.#snapshotBytes += region.size;
  }

  #drop(region: Region, index: number): void {
    const [snapshot] = region.snapshots.splice(index, 1);
    this.#snapshotBytes -= region.size;
    if (snapshot !== undefined) this.#release(snapshot.id);
  }

  #release(id: number): void {
    const count = this.#ids.get(id) ?? 0;
    if (count > 1) this.#ids.set(id, count - 1);
    else {
      this.#ids.delete(id);
      this.#lowestId = Math.min(this.#lowestId, id);
    }
  }
}
