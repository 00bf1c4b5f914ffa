// Where a dump is stored while it comes: a folder with a file a region and manifest.json, or one v1 container.
// Files are made with O_EXCL under the name that our own code gives, with `.partial` behind it until they are
// whole. Must never obey a path of the device, never replace a file that it did not make, never remove bytes that
// came.
import { createHash, type Hash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statfsSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { escapeName, regionFileName, type SaharaEntry, type SaharaWidth } from "../dump/sahara.js";
import type { SaharaRegion, SaharaResume } from "../dump/sahara-collector.js";
import { containerBytes, makeContainerHead } from "../dump/sahara-container.js";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { formatJson, messageOf } from "./output.js";
import { makeProgress } from "./progress.js";
import { cleanLeftovers, exists, makeWholeFile, syncFolder, writeAll } from "./whole-file.js";

const MANIFEST = "manifest.json";
const SAHARA_FORMAT = "mmcpstore-sahara-1";
/** More than 1260 regions take. */
const MANIFEST_BYTES_MAX = 2 ** 21;
const PIECE_BYTES = 2 ** 20;
const PARTIAL = ".partial";
/** Why a dump is not complete whose run has not come to its end. */
const INTERRUPTED = "was interrupted";
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR } = constants;

/** What the collector's actions are done to. All of it throws MmcError. */
export interface DumpStore {
  /** For an error's text. */
  readonly path: string;
  /**
   * @param head what the manifest begins with: its `format`, and what the dump was made from.
   * @param neededBytes what is going to come.
   */
  begin(head: object, regions: readonly SaharaRegion[], neededBytes: number): void;
  data(index: number, offset: number, bytes: Uint8Array): void;
  /** That region has come to its end. */
  end(region: SaharaRegion): void;
  /** Nothing more comes. The list of what there is, for --json; also called after an error. */
  finish(isComplete: boolean, why: string): object;
}

/** The head of a manifest whose regions came by this memory table: {@link readResumable} takes it up again. */
export function saharaHead(width: SaharaWidth, table: Uint8Array): object {
  return { format: SAHARA_FORMAT, width, table: Buffer.from(table).toString("base64") };
}

function doFile<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof MmcError) && (error as { code?: unknown }).code === "EEXIST") {
      throw new MmcError("EEXIST", `${path}: exists already`, { cause: error });
    }
    throw fileError(path, error);
  }
}

/** @throws MmcError ENOSPC: less is free than is needed. Where nobody says what is free, nothing is thrown. */
function checkSpace(path: string, neededBytes: number): void {
  let freeBytes = Number.POSITIVE_INFINITY;
  try {
    const { bavail, bsize } = statfsSync(path);
    freeBytes = bavail * bsize;
  } catch {
    return;
  }
  if (neededBytes > freeBytes) {
    throw new MmcError("ENOSPC", `${path}: the dump needs ${neededBytes} bytes, ${freeBytes} are free`);
  }
}

function hex64(value: bigint): string {
  return `0x${value.toString(16)}`;
}

interface StoredFile {
  name: string;
  fd: number;
  hash: Hash;
}

/** A file a region, `02-NAME`, and manifest.json. */
export class DumpFolder implements DumpStore {
  readonly path: string;
  readonly #resumed: Resumable | null;
  #files: (StoredFile | null)[] = [];
  #regions: readonly SaharaRegion[] = [];
  #head: object = {};
  #sha256: (string | null)[] = [];
  /** By region, what is in its file: less than was received if writing failed. */
  #storedBytes: number[] = [];

  /**
   * @param resumed what {@link readResumable} found in the folder, or null: then the folder is made, or is empty.
   * @param again the head of the manifest, if the bytes come from a file: what a run that was cut has left of exactly
   * this dump is removed, and the folder counts as empty.
   * @throws MmcError EEXIST: something is in it.
   */
  constructor(path: string, resumed: Resumable | null = null, again: object | null = null) {
    this.path = path;
    this.#resumed = resumed;
    if (resumed !== null) return;
    doFile(path, () => {
      // Not recursive: that never ends in file systems that refuse folders with ENOENT, /proc for one.
      if (!exists(path)) {
        mkdirSync(path);
        syncFolder(dirname(path));
      }
      cleanLeftovers(path);
      if (again !== null) dropInterrupted(path, again);
      if (readdirSync(path).length > 0) throw new MmcError("EEXIST", `${path}: is not empty`);
    });
  }

  begin(head: object, regions: readonly SaharaRegion[], neededBytes: number): void {
    this.#regions = regions;
    this.#head = head;
    this.#storedBytes = regions.map((region) => region.receivedBytes);
    checkSpace(this.path, neededBytes);
    this.#writeManifest(false, INTERRUPTED);
    for (const region of regions) {
      if (region.receivedBytes === 0) continue;
      this.#reopen(region);
      // Its bytes had all come, and nobody had time to give it its name.
      if (region.state === "complete") this.#close(region);
    }
  }

  data(index: number, offset: number, bytes: Uint8Array): void {
    const file = this.#files[index] ?? this.#open(index, O_CREAT | O_EXCL);
    doFile(join(this.path, file.name), () => {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(file.fd, bytes, done, bytes.length - done, offset + done);
      }
    });
    file.hash.update(bytes);
    this.#storedBytes[index] = offset + bytes.length;
  }

  end(region: SaharaRegion): void {
    if (region.state === "complete" && region.receivedBytes === 0) {
      // Empty, so nothing of it was received, and an earlier collection may have made it.
      if (this.#resumed !== null && exists(join(this.path, this.#name(region.index)))) {
        this.#sha256[region.index] = this.#resumed.sha256[region.index] ?? null;
        return;
      }
      this.#open(region.index, O_CREAT | O_EXCL);
    }
    this.#close(region);
  }

  finish(isComplete: boolean, why: string): object {
    for (const region of this.#regions) this.#close(region);
    if (this.#regions.length === 0) return { complete: false, why, regions: [] };
    return this.#writeManifest(isComplete, why);
  }

  #name(index: number): string {
    return regionFileName(index, this.#regions.length, this.#regions[index]?.name ?? "");
  }

  #open(index: number, flags: number): StoredFile {
    const name = this.#name(index) + PARTIAL;
    const path = join(this.path, name);
    const fd = doFile(path, () => openSync(path, O_RDWR | O_NOFOLLOW | flags, 0o600));
    const file = { name, fd, hash: createHash("sha256") };
    this.#files[index] = file;
    return file;
  }

  /** A file of an earlier collection: its bytes are hashed, so that they are known to be there. */
  #reopen({ index, state, receivedBytes }: SaharaRegion): void {
    if (state === "complete" && exists(join(this.path, this.#name(index)))) {
      this.#sha256[index] = this.#resumed?.sha256[index] ?? null;
      return;
    }
    const file = this.#open(index, 0);
    const piece = new Uint8Array(PIECE_BYTES);
    doFile(join(this.path, file.name), () => {
      for (let at = 0; at < receivedBytes; ) {
        const count = readSync(file.fd, piece, 0, Math.min(piece.length, receivedBytes - at), at);
        if (count === 0) throw new MmcError("EIO", `${file.name}: became shorter`);
        file.hash.update(piece.subarray(0, count));
        at += count;
      }
    });
  }

  #close(region: SaharaRegion): void {
    const file = this.#files[region.index];
    if (file == null) return;
    this.#files[region.index] = null;
    this.#sha256[region.index] = file.hash.digest("hex");
    const path = join(this.path, file.name);
    doFile(path, () => {
      try {
        fsyncSync(file.fd);
      } finally {
        closeSync(file.fd);
      }
    });
    if (!this.#isStored(region)) return;
    const whole = join(this.path, this.#name(region.index));
    if (exists(whole)) throw new MmcError("EEXIST", `${whole}: exists already`);
    doFile(whole, () => renameSync(path, whole));
  }

  #isStored({ index, state, lengthBytes }: SaharaRegion): boolean {
    return state === "complete" && BigInt(this.#storedBytes[index] ?? 0) === lengthBytes;
  }

  #writeManifest(isComplete: boolean, why: string): object {
    const list = this.#regions.map((region) => {
      const { index, address, lengthBytes, overlaps } = region;
      const storedBytes = this.#storedBytes[index] ?? 0;
      const state = region.state === "complete" && !this.#isStored(region) ? "partial" : region.state;
      const name = this.#name(index);
      return {
        index,
        file: state === "complete" ? name : storedBytes > 0 ? name + PARTIAL : null,
        name: escapeName(region.name),
        description: escapeName(region.description),
        address: hex64(address),
        lengthBytes,
        storedBytes,
        state,
        why: region.why,
        overlaps,
        sha256: this.#sha256[index] ?? null,
      };
    });
    const manifest = { ...this.#head, complete: isComplete, why, regions: list };
    const bytes = new TextEncoder().encode(formatJson(manifest));
    makeWholeFile(join(this.path, MANIFEST), (fd) => writeAll(fd, bytes), { replace: true });
    return manifest;
  }
}

/** A region whose first `storedBytes` bytes are in a file, from `offset` on. */
export interface RegionInFile extends SaharaEntry {
  offset: number;
  storedBytes: number;
  /** Why there is not more of it; empty if all of it is there. */
  why: string;
  overlaps: boolean;
}

/**
 * Copies regions out of a file into a store, all that is there of each. What fails is in `failure`, and in the
 * manifest.
 * @param read exactly `count` bytes at `offset`.
 * @param why what the whole dump lacks; empty: nothing.
 */
export function storeRegions(
  store: DumpStore,
  head: object,
  inFile: readonly RegionInFile[],
  read: (offset: number, count: number) => Uint8Array,
  why: string,
): { regions: SaharaRegion[]; manifest: object; failure: unknown } {
  const neededBytes = inFile.reduce((sum, one) => sum + one.storedBytes, 0);
  const regions = inFile.map(({ offset, storedBytes, ...region }, index) => {
    const isWhole = BigInt(storedBytes) === region.lengthBytes;
    const state: SaharaRegion["state"] = isWhole ? "complete" : storedBytes > 0 ? "partial" : "refused";
    return { ...region, index, state, receivedBytes: 0, offset, storedBytes };
  });
  const progress = makeProgress("storing");
  let failure: unknown = null;
  try {
    store.begin(head, regions, neededBytes);
    let doneBytes = 0;
    for (const region of regions) {
      for (let at = 0; at < region.storedBytes; at = region.receivedBytes) {
        const bytes = read(region.offset + at, Math.min(PIECE_BYTES, region.storedBytes - at));
        store.data(region.index, at, bytes);
        region.receivedBytes = at + bytes.length;
        doneBytes += bytes.length;
        progress.onProgress(doneBytes, neededBytes);
      }
      store.end(region);
    }
  } catch (error) {
    failure = error;
  } finally {
    progress.stop();
  }
  const lacks = failure !== null ? messageOf(failure) : why;
  try {
    return { regions, manifest: store.finish(lacks === "", lacks), failure };
  } catch (error) {
    throw failure ?? error;
  }
}

/**
 * Removes what a run of the same command has left that was cut, and nothing if anything else is in the folder: the
 * bytes are all in the file that they came from.
 */
function dropInterrupted(folder: string, head: object): void {
  const path = join(folder, MANIFEST);
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (!stats?.isFile() || stats.size > MANIFEST_BYTES_MAX) return;
  let manifest: Record<string, unknown>;
  try {
    manifest = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  } catch {
    return;
  }
  if (manifest?.complete !== false || manifest.why !== INTERRUPTED || !Array.isArray(manifest.regions))
    return;
  if (Object.entries(head).some(([key, value]) => manifest[key] !== value)) return;
  const { regions } = manifest;
  const names = regions.map((region, index) =>
    regionFileName(index, regions.length, unescapeName(String(region?.name))),
  );
  const ours = new Set([...names, ...names.map((name) => name + PARTIAL)]);
  const there = readdirSync(folder).filter((name) => name !== MANIFEST);
  if (there.some((name) => !ours.has(name) || !lstatSync(join(folder, name)).isFile())) return;
  for (const name of there) unlinkSync(join(folder, name));
  unlinkSync(path);
}

/** What an earlier collection left in a folder. */
export interface Resumable extends SaharaResume {
  sha256: (string | null)[];
}

/**
 * Where the collection that left `folder` ended, by its manifest and by the sizes of its files.
 * @throws MmcError ENOENT no manifest, EBADMSG none of ours, EALREADY it is complete.
 */
export function readResumable(folder: string): Resumable {
  const path = join(folder, MANIFEST);
  const text = doFile(path, () => {
    const { size } = lstatSync(path);
    if (size > MANIFEST_BYTES_MAX) throw new MmcError("EBADMSG", `${path}: is no manifest of a dump`);
    return readFileSync(path, "utf8");
  });
  let manifest: { format?: unknown; table?: unknown; complete?: unknown; regions?: unknown };
  try {
    manifest = JSON.parse(text);
  } catch (error) {
    throw new MmcError("EBADMSG", `${path}: is no manifest of a dump`, { cause: error });
  }
  if (manifest?.format !== SAHARA_FORMAT || typeof manifest.table !== "string") {
    throw new MmcError("EBADMSG", `${path}: is no manifest of a dump`);
  }
  if (manifest.complete === true) throw new MmcError("EALREADY", `${folder}: the dump is complete`);
  const regions = Array.isArray(manifest.regions) ? manifest.regions : [];
  const receivedBytes: number[] = [];
  const sha256: (string | null)[] = [];
  for (const [index, region] of regions.entries()) {
    // The names are made again, not taken from the manifest.
    const whole = join(folder, regionFileName(index, regions.length, unescapeName(String(region?.name))));
    receivedBytes.push(sizeOf(whole) ?? sizeOf(whole + PARTIAL) ?? 0);
    sha256.push(typeof region?.sha256 === "string" ? region.sha256 : null);
  }
  return { table: Buffer.from(manifest.table, "base64"), receivedBytes, sha256 };
}

function unescapeName(name: string): string {
  return name.replace(/%([0-9A-F]{2})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
}

/** Of a plain file; null where there is none. */
function sizeOf(path: string): number | null {
  const stats = doFile(path, () => lstatSync(path, { throwIfNoEntry: false }));
  return stats?.isFile() ? stats.size : null;
}

/** One v1 container. `NAME.partial` until it is whole: the format itself cannot say that something is missing. */
export class DumpContainer implements DumpStore {
  readonly path: string;
  readonly #draft: string;
  #fd = -1;
  #offsets: number[] = [];
  #regions: readonly SaharaRegion[] = [];

  /** @throws MmcError EEXIST. */
  constructor(path: string) {
    this.path = path;
    this.#draft = path + PARTIAL;
    for (const one of [path, this.#draft]) {
      if (doFile(one, () => exists(one))) throw new MmcError("EEXIST", `${one}: exists already`);
    }
  }

  begin(_head: object, regions: readonly SaharaRegion[]): void {
    this.#regions = regions;
    checkSpace(dirname(this.path), Number(containerBytes(regions)));
    const head = makeContainerHead(regions);
    this.#fd = doFile(this.#draft, () =>
      openSync(this.#draft, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600),
    );
    let offset = head.length;
    for (const region of regions) {
      this.#offsets.push(offset);
      offset += Number(region.lengthBytes);
    }
    doFile(this.#draft, () => writeAll(this.#fd, head));
  }

  data(index: number, offset: number, bytes: Uint8Array): void {
    const at = (this.#offsets[index] as number) + offset;
    doFile(this.#draft, () => {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#fd, bytes, done, bytes.length - done, at + done);
      }
    });
  }

  end(): void {
    // A container has no mark for it.
  }

  finish(isComplete: boolean, why: string): object {
    let sizeBytes = 0;
    if (this.#fd >= 0) {
      sizeBytes = doFile(this.#draft, () => fstatSync(this.#fd).size);
      doFile(this.#draft, () => {
        try {
          fsyncSync(this.#fd);
        } finally {
          closeSync(this.#fd);
        }
      });
      if (isComplete) {
        if (exists(this.path)) throw new MmcError("EEXIST", `${this.path}: exists already`);
        doFile(this.path, () => renameSync(this.#draft, this.path));
        syncFolder(dirname(this.path));
      }
    }
    const file = sizeBytes === 0 ? null : isComplete ? this.path : this.#draft;
    const regions = this.#regions.map(({ index, name, address, lengthBytes, receivedBytes, state }) => {
      return { index, name: escapeName(name), address: hex64(address), lengthBytes, receivedBytes, state };
    });
    return { complete: isComplete, why, file, sizeBytes, regions };
  }
}
