// A raw image: a file or a Linux block device, byte for byte. Beside the Image contract it has synchronous
// access, which the simulated card needs for its external medium: an import of the core cannot wait.
// Must never change the size of the file, never write to a packed image, never count a short write as done.
// A block device is opened for writing with O_EXCL: Linux then refuses one that is mounted. A file has no such owner:
// one image of this process at a time has it open for writing, and lock.ts keeps other processes out.
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { MmcError } from "../errors.js";
import { bool, judge, required } from "../judge.js";
import { checkRead, type Image } from "./contract.js";
import { fileError } from "./file-error.js";
import { type FileLock, lockOpenFile } from "./lock.js";

/** Options of {@link openRaw}. */
export interface RawOptions {
  /** Open for reading and writing. */
  writable: boolean;
}

/** The file calls RawImage makes; tests put ones in their place that fail or do half of the work. */
export interface FileCalls {
  readSync(fd: number, target: Uint8Array, at: number, lengthBytes: number, offset: number): number;
  writeSync(fd: number, data: Uint8Array, at: number, lengthBytes: number, offset: number): number;
  fdatasyncSync(fd: number): void;
  closeSync(fd: number): void;
}

const NODE_CALLS: FileCalls = { readSync, writeSync, fdatasyncSync, closeSync };

/** How much an erase looks at in one read, and what it writes at least. */
const ERASE_STEP_BYTES = 2 ** 20;
const BLOCK_BYTES = 4096;

/** Device and inode of each file that an image of this process has open for writing. */
const openForWriting = new Set<string>();

/** An open raw image. Made by {@link openRaw}. */
export class RawImage implements Image {
  readonly name: string;
  readonly sizeBytes: number;
  readonly writable: boolean;
  readonly bytesFetched = 0;
  readonly #calls: FileCalls;
  readonly #key: string | null;
  readonly #lock: FileLock | null;
  #fd: number;

  /** `key`: of openForWriting; it and `lock` are given back when the image is closed. */
  constructor(
    name: string,
    fd: number,
    sizeBytes: number,
    writable: boolean,
    calls: FileCalls = NODE_CALLS,
    key: string | null = null,
    lock: FileLock | null = null,
  ) {
    this.#key = key;
    this.#lock = lock;
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.writable = writable;
    this.#fd = fd;
    this.#calls = calls;
  }

  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    checkRead(this.name, this.sizeBytes, offset, lengthBytes);
    const target = new Uint8Array(lengthBytes);
    this.readSync(offset, target);
    return target;
  }

  /** Fills `target` from byte `offset` on. @throws MmcError as {@link Image.read}. */
  readSync(offset: number, target: Uint8Array): void {
    this.#checkOpen();
    checkRead(this.name, this.sizeBytes, offset, target.length);
    let done = 0;
    while (done < target.length) {
      const count = this.#call((calls) =>
        calls.readSync(this.#fd, target, done, target.length - done, offset + done),
      );
      // The size was known when the image was opened: an early end means that somebody cut the file.
      if (count <= 0) throw new MmcError("EIO", `${this.name}: ends at ${offset + done}, it was cut off`);
      done += count;
    }
  }

  /**
   * Writes all of `data` at byte `offset`. It is on the medium only after {@link syncSync}.
   * @throws MmcError EROFS not opened for writing; ENOSPC past the end or no space; EIO; EINVAL; EBADF.
   */
  writeSync(offset: number, data: Uint8Array): void {
    this.#checkOpen();
    if (!this.writable) throw new MmcError("EROFS", `${this.name}: was opened for reading only`);
    if (!Number.isSafeInteger(offset) || offset < 0) {
      throw new MmcError("EINVAL", `${this.name}: cannot write at ${offset}`);
    }
    if (offset + data.length > this.sizeBytes) {
      throw new MmcError(
        "ENOSPC",
        `${this.name}: ${data.length} bytes at ${offset} lie beyond the end (${this.sizeBytes} bytes)`,
      );
    }
    let done = 0;
    while (done < data.length) {
      const count = this.#call((calls) =>
        calls.writeSync(this.#fd, data, done, data.length - done, offset + done),
      );
      if (count <= 0) throw new MmcError("EIO", `${this.name}: nothing was written at ${offset + done}`);
      done += count;
    }
  }

  /**
   * The range holds `byte` in every place then. What holds it already is left alone: reading costs a fraction of
   * writing, and the hole of a sparse file stays one. Node can neither ask for holes nor punch them, so what was
   * written before keeps its blocks. On the medium only after {@link syncSync}.
   * @throws MmcError as {@link writeSync} and {@link readSync}
   */
  eraseSync(offset: number, lengthBytes: number, byte: number): void {
    const pattern = Buffer.alloc(Math.min(ERASE_STEP_BYTES, lengthBytes), byte);
    const there = Buffer.allocUnsafe(pattern.length);
    for (let at = 0; at < lengthBytes; at += pattern.length) {
      const part = there.subarray(0, Math.min(pattern.length, lengthBytes - at));
      this.readSync(offset + at, part);
      if (part.equals(pattern.subarray(0, part.length))) continue;
      // Only what differs, by the blocks of file systems: a step may be a hole but for one of them.
      for (let from = 0; from < part.length; from += BLOCK_BYTES) {
        const block = part.subarray(from, from + BLOCK_BYTES);
        const wanted = pattern.subarray(0, block.length);
        if (!block.equals(wanted)) this.writeSync(offset + at + from, wanted);
      }
    }
  }

  /** Returns when everything written is on the medium (fdatasync). @throws MmcError EIO, ENOSPC, EBADF. */
  syncSync(): void {
    this.#checkOpen();
    if (this.writable) this.#call((calls) => calls.fdatasyncSync(this.#fd));
  }

  /** The synchronous close(). A second call does nothing. */
  closeSync(): void {
    const fd = this.#fd;
    this.#fd = -1;
    if (fd < 0) return;
    if (this.#key !== null) openForWriting.delete(this.#key);
    this.#lock?.release();
    try {
      this.#calls.closeSync(fd);
    } catch (error) {
      throw fileError(this.name, error);
    }
  }

  async close(): Promise<void> {
    this.closeSync();
  }

  #call<T>(call: (calls: FileCalls) => T): T {
    try {
      return call(this.#calls);
    } catch (error) {
      throw fileError(this.name, error);
    }
  }

  #checkOpen(): void {
    if (this.#fd < 0) throw new MmcError("EBADF", `${this.name}: is closed`);
  }
}

/**
 * Opens a file or a block device as it is.
 * A file is locked until the image is closed: by one writer, or by readers; somebody else's lock is waited for up to
 * two seconds.
 * @throws MmcError ENOENT, EACCES, EISDIR, EBUSY (a mounted block device, a file that this process has open for writing
 * already, or that another process has open), EINVAL (empty, or neither a file
 * nor a block device), EROFS (a URL or a gzip file for writing, a read-only file system), ENODEV (no size).
 */
export function openRaw(path: string, options: RawOptions): RawImage {
  const { writable } = judge<RawOptions>("", options, { writable: required(bool) });
  if (/^https?:\/\//i.test(path)) {
    const why = writable ? "an image behind HTTP is read-only" : "is not a file";
    const what = URL.canParse(path) ? new URL(path).host : "this URL";
    throw new MmcError(writable ? "EROFS" : "EINVAL", `${what}: ${why}`);
  }
  let fd = -1;
  let lock: FileLock | null = null;
  try {
    const stats = statSync(path);
    // Asked before it is opened: opening a FIFO waits for its other end.
    if (stats.isDirectory()) throw new MmcError("EISDIR", `${path}: is a directory`);
    if (!stats.isFile() && !stats.isBlockDevice()) {
      throw new MmcError("EINVAL", `${path}: is neither a file nor a block device`);
    }
    const key = writable && stats.isFile() ? `${stats.dev}:${stats.ino}` : null;
    if (key !== null && openForWriting.has(key)) {
      throw new MmcError("EBUSY", `${path}: is open for writing already`);
    }
    const exclusive = writable && stats.isBlockDevice() ? constants.O_EXCL : 0;
    fd = openSync(path, (writable ? constants.O_RDWR : constants.O_RDONLY) | exclusive);
    if (stats.isFile()) lock = lockOpenFile(path, fd, stats, !writable);
    const sizeBytes = stats.isFile() ? fstatSync(fd).size : blockDeviceSize(path, stats);
    if (sizeBytes === 0) throw new MmcError("EINVAL", `${path}: is empty`);
    const image = new RawImage(path, fd, sizeBytes, writable, NODE_CALLS, key, lock);
    if (writable && isGzip(image)) {
      throw new MmcError("EROFS", `${path}: is gzip-compressed and read-only, gunzip it first`);
    }
    if (key !== null) openForWriting.add(key);
    return image;
  } catch (error) {
    lock?.release();
    if (fd >= 0) closeSync(fd);
    throw fileError(path, error);
  }
}

/** True if the image begins with the gzip magic 1f 8b. */
export function isGzip(image: RawImage): boolean {
  if (image.sizeBytes < 2) return false;
  const magic = new Uint8Array(2);
  image.readSync(0, magic);
  return magic[0] === 0x1f && magic[1] === 0x8b;
}

/** stat() says 0 for a block device; sysfs has its size, always in units of 512 bytes. */
function blockDeviceSize(path: string, stats: Stats): number {
  // glibc's gnu_dev_major and gnu_dev_minor; the upper halves are beyond 32 bits, so no shifts.
  const word = BigInt(stats.rdev);
  const major = ((word >> 8n) & 0xfffn) | ((word >> 32n) & 0xfffff000n);
  const minor = (word & 0xffn) | ((word >> 12n) & 0xffffff00n);
  let text = "";
  try {
    text = readFileSync(`/sys/dev/block/${major}:${minor}/size`, "latin1").trim();
  } catch {
    // Not Linux, or no sysfs: said below.
  }
  if (!/^\d+$/.test(text))
    throw new MmcError("ENODEV", `${path}: the size of this block device is not known`);
  return Number(text) * 512;
}
