// A gzip image, unpacked once into memory and read-only from then on. Disk images are mostly one byte
// repeated (0x00, or 0xff of erased flash): a chunk of one byte value is kept as that value and costs nothing.
// Must never trust the stream: it is inflated piece by piece and refused beyond two limits, one on what it
// unpacks to and one on what that costs in memory. Several members in a row are one image (RFC 1952).
import { createReadStream, statSync } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { MmcError } from "../errors.js";
import { checkRead, type Image, type ImageOptions } from "./contract.js";
import { fileError } from "./file-error.js";

/** Options of a gzip image; the limits exist so that tests need no gigabytes. */
export interface GzipOptions extends ImageOptions {
  /** Largest unpacked size in bytes; default 1 GiB. */
  limitBytes?: number | undefined;
  /** Most memory the unpacked bytes may take; default 512 MiB. */
  memoryLimitBytes?: number | undefined;
}

const CHUNK_BYTES = 65536;
const LIMIT_BYTES = 2 ** 30;
const MEMORY_LIMIT_BYTES = 2 ** 29;

/** Bytes in chunks of 64 KiB; a number stands for a chunk that holds only that byte. */
class ChunkStore {
  sizeBytes = 0;
  memoryBytes = 0;
  readonly #chunks: (Uint8Array | number)[] = [];
  #open = new Uint8Array(CHUNK_BYTES);
  #openBytes = 0;

  append(data: Uint8Array): void {
    let at = 0;
    while (at < data.length) {
      const count = Math.min(data.length - at, CHUNK_BYTES - this.#openBytes);
      this.#open.set(data.subarray(at, at + count), this.#openBytes);
      this.#openBytes += count;
      at += count;
      if (this.#openBytes === CHUNK_BYTES) this.seal();
    }
    this.sizeBytes += data.length;
  }

  /** Ends the open chunk. Only the last chunk may be shorter than the others. */
  seal(): void {
    if (this.#openBytes === 0) return;
    const chunk = Buffer.from(this.#open.buffer, 0, this.#openBytes);
    // Equal to itself one byte further means: one value throughout. It is a memcmp, not a loop.
    if (chunk.subarray(1).equals(chunk.subarray(0, -1))) {
      this.#chunks.push(chunk[0] as number);
    } else {
      this.#chunks.push(chunk);
      this.memoryBytes += CHUNK_BYTES;
      this.#open = new Uint8Array(CHUNK_BYTES);
    }
    this.#openBytes = 0;
  }

  copy(offset: number, target: Uint8Array): void {
    let done = 0;
    while (done < target.length) {
      const at = (offset + done) % CHUNK_BYTES;
      const count = Math.min(target.length - done, CHUNK_BYTES - at);
      const chunk = this.#chunks[Math.floor((offset + done) / CHUNK_BYTES)] as Uint8Array | number;
      if (typeof chunk === "number") target.fill(chunk, done, done + count);
      else target.set(chunk.subarray(at, at + count), done);
      done += count;
    }
  }
}

class GzipImage implements Image {
  readonly name: string;
  readonly writable = false;
  readonly sizeBytes: number;
  readonly bytesFetched: number;
  #store: ChunkStore | null;

  constructor(name: string, store: ChunkStore, bytesFetched: number) {
    this.name = name;
    this.sizeBytes = store.sizeBytes;
    this.bytesFetched = bytesFetched;
    this.#store = store;
  }

  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    checkRead(this.name, this.sizeBytes, offset, lengthBytes);
    const target = new Uint8Array(lengthBytes);
    this.readSync(offset, target);
    return target;
  }

  readSync(offset: number, target: Uint8Array): void {
    if (this.#store === null) throw new MmcError("EBADF", `${this.name}: is closed`);
    checkRead(this.name, this.sizeBytes, offset, target.length);
    this.#store.copy(offset, target);
  }

  async close(): Promise<void> {
    this.#store = null;
  }
}

/** The packed bytes of a gzip image, however they arrive. */
export interface PackedSource {
  /** What messages call the image. */
  name: string;
  /** The packed bytes in order. An MmcError thrown in here reaches the caller as it is. */
  pieces: AsyncIterable<Uint8Array>;
  /** Their number if it is known, for the progress. */
  totalBytes: number | null;
  /** Asked at the end: how many bytes came over the network. */
  bytesFetched(): number;
}

/**
 * Unpacks a gzip stream into a read-only image.
 * @throws MmcError EIO truncated or corrupt; EFBIG beyond a limit; EINVAL unpacks to nothing; and whatever
 * the source throws.
 */
export async function inflateImage(source: PackedSource, options: GzipOptions = {}): Promise<Image> {
  const { name } = source;
  const limitBytes = options.limitBytes ?? LIMIT_BYTES;
  const memoryLimitBytes = options.memoryLimitBytes ?? MEMORY_LIMIT_BYTES;
  const store = new ChunkStore();
  let packedBytes = 0;
  let isComplete = false;
  // pipeline() may report an abort that one stage's end or failure caused in another: the first cause counts.
  let failure: unknown = null;

  async function* counted(): AsyncGenerator<Uint8Array> {
    try {
      for await (const piece of source.pieces) {
        packedBytes += piece.length;
        yield piece;
        options.onProgress?.(packedBytes, source.totalBytes);
      }
    } catch (error) {
      failure ??= error;
      throw error;
    }
  }
  function checkLimits(): void {
    if (store.sizeBytes > limitBytes) {
      throw new MmcError("EFBIG", `${name}: unpacks to more than ${limitBytes} bytes, gunzip it first`);
    }
    if (store.memoryBytes > memoryLimitBytes) {
      throw new MmcError(
        "EFBIG",
        `${name}: needs more than ${memoryLimitBytes} bytes of memory, gunzip it first`,
      );
    }
  }
  async function keep(unpacked: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const piece of unpacked) {
        store.append(piece);
        checkLimits();
      }
      // zlib ends at zeros behind the last member (padding) and leaves the rest of the source unread.
      isComplete = true;
    } catch (error) {
      failure ??= error;
      throw error;
    }
  }

  try {
    const packed = Readable.from(counted(), { objectMode: false });
    await pipeline(packed, createGunzip({ chunkSize: CHUNK_BYTES }), keep);
  } catch (error) {
    if (!isComplete) throw inflateError(name, failure ?? error);
  }
  store.seal();
  if (store.sizeBytes === 0) throw new MmcError("EINVAL", `${name}: unpacks to nothing, the image is empty`);
  return new GzipImage(name, store, source.bytesFetched());
}

/**
 * Opens a local gzip file; the caller has seen the magic.
 * @throws MmcError as {@link inflateImage}, and what opening and reading a file can give.
 */
export async function openGzip(path: string, options: GzipOptions = {}): Promise<Image> {
  try {
    const totalBytes = statSync(path).size;
    const pieces: AsyncIterable<Uint8Array> = createReadStream(path);
    return await inflateImage({ name: path, pieces, totalBytes, bytesFetched: () => 0 }, options);
  } catch (error) {
    throw fileError(path, error);
  }
}

function inflateError(name: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: unknown };
  if (code === "Z_BUF_ERROR") return new MmcError("EIO", `${name}: truncated gzip stream`, { cause: error });
  if (typeof code === "string" && code.startsWith("Z_")) {
    return new MmcError("EIO", `${name}: corrupt gzip stream (${String(message)})`, { cause: error });
  }
  return error;
}
