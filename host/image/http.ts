// An image behind HTTP, read with Range requests: only the 64 KiB blocks that somebody asked for, neighbours
// in one request of at most 1 MiB, the latest blocks kept. So finding and reading a 1 MiB partition of a
// 4 GiB image costs about that much. Must never download a body it did not ask for, never apply a
// Content-Encoding, and never mix bytes of two versions of the file: every answer must have the first one's
// size and ETag. Messages name the URL without credentials and query, which may hold secrets.
import { STATUS_CODES } from "node:http";
import type { Readable } from "node:stream";
import fetch, { type Response } from "node-fetch";
import { type ErrorCode, MmcError } from "../errors.js";
import { ownBytes } from "../own-bytes.js";
import { checkRead, type Image } from "./contract.js";
import { type GzipOptions, inflateImage } from "./gzip.js";

const BLOCK_BYTES = 65536;
/** 1 MiB: small enough for the timeout on a slow line, large enough that the round trips do not count. */
const REQUEST_BLOCKS = 16;
/** 16 MiB of blocks are kept; what a caller reads in bulk it keeps itself. */
const CACHE_BLOCKS = 256;
const DEFAULT_TIMEOUT_MS = 30_000;
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/** What must not change from one answer to the next. */
interface Version {
  sizeBytes: number;
  etag: string | null;
  modified: string | null;
}

interface Part {
  bytes: Uint8Array;
  version: Version;
}

/** One file on a server: ranges of it, checked. It knows nothing of blocks. */
class RangeSource {
  readonly name: string;
  readonly #url: string;
  readonly #timeoutMs: number;
  #version: Version | null = null;
  bytesFetched = 0;

  constructor(name: string, url: string, timeoutMs: number) {
    this.name = name;
    this.#url = url;
    this.#timeoutMs = timeoutMs;
  }

  /** Bytes first..last (both included) of the file; the first call may ask for more than there are. */
  async fetchRange(first: number, last: number, onBytes?: (count: number) => void): Promise<Uint8Array> {
    const controller = new AbortController();
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    const stop = (): void => controller.abort();
    timeout.addEventListener("abort", stop);
    try {
      const response = await this.#request(first, last, controller.signal);
      const part = await this.#readPart(response, first, last, onBytes);
      this.#checkVersion(part.version);
      return part.bytes;
    } catch (error) {
      if (error instanceof MmcError) throw error;
      if (timeout.aborted) {
        throw new MmcError("ETIMEDOUT", `${this.name}: no complete answer within ${this.#timeoutMs} ms`, {
          cause: error,
        });
      }
      throw networkError(this.name, error);
    } finally {
      timeout.removeEventListener("abort", stop);
      // Ends the connection of an answer whose body nobody wants; after a complete one it does nothing.
      controller.abort();
    }
  }

  async #request(first: number, last: number, signal: AbortSignal): Promise<Response> {
    const init = {
      headers: { Range: `bytes=${first}-${last}`, "Accept-Encoding": "identity" },
      compress: false,
      signal,
    };
    try {
      return await fetch(this.#url, init);
    } catch (error) {
      // A server may close an idle connection just when the next request goes out. Asking again is safe.
      if ((error as { code?: unknown }).code !== "ECONNRESET") throw error;
      return await fetch(this.#url, init);
    }
  }

  async #readPart(
    response: Response,
    first: number,
    last: number,
    onBytes?: (count: number) => void,
  ): Promise<Part> {
    const { name } = this;
    const { headers, status } = response;
    if (status === 416 && first === 0) throw new MmcError("EINVAL", `${name}: is empty`);
    if (status === 200) {
      if (headers.get("content-length") === "0") throw new MmcError("EINVAL", `${name}: is empty`);
      throw new MmcError("EOPNOTSUPP", `${name}: server does not support Range requests`);
    }
    // 416 later on means that the file is shorter than it was.
    if (status === 416) throw changedError(name);
    if (status !== 206) throw statusError(name, status);
    const encoding = headers.get("content-encoding") ?? "identity";
    // Servers label a .gz file with its own encoding; the bytes are the file's all the same.
    if (!/^(identity|x-gzip|gzip)$/i.test(encoding)) {
      throw new MmcError("EOPNOTSUPP", `${name}: server insists on Content-Encoding ${encoding}`);
    }
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(headers.get("content-range")?.trim() ?? "");
    if (range === null) throw new MmcError("EIO", `${name}: server does not say which range it sent`);
    const sizeBytes = range[3] === "*" ? Number.NaN : Number(range[3]);
    if (!Number.isSafeInteger(sizeBytes)) {
      throw new MmcError("EOPNOTSUPP", `${name}: server does not say how large the file is`);
    }
    const version = { sizeBytes, etag: headers.get("etag"), modified: headers.get("last-modified") };
    this.#checkVersion(version);
    const lastSent = Number(range[2]);
    if (Number(range[1]) !== first || lastSent !== Math.min(last, sizeBytes - 1)) {
      throw new MmcError(
        "EIO",
        `${name}: asked for bytes ${first}-${last}, server sent ${range[1]}-${range[2]}`,
      );
    }
    const bytes = await this.#readBody(response.body as Readable, lastSent - first + 1, onBytes);
    return { bytes, version };
  }

  async #readBody(
    body: Readable,
    lengthBytes: number,
    onBytes?: (count: number) => void,
  ): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    let done = 0;
    try {
      for await (const piece of body as AsyncIterable<Uint8Array>) {
        this.bytesFetched += piece.length;
        if (done + piece.length > lengthBytes) {
          throw new MmcError(
            "EIO",
            `${this.name}: server sent more than the ${lengthBytes} bytes it announced`,
          );
        }
        bytes.set(piece, done);
        done += piece.length;
        onBytes?.(piece.length);
      }
    } catch (error) {
      if (error instanceof MmcError || (error as { name?: unknown }).name === "AbortError") throw error;
      throw truncatedError(this.name, done, lengthBytes, error);
    }
    if (done < lengthBytes) throw truncatedError(this.name, done, lengthBytes);
    return bytes;
  }

  /** The first answer sets the version; each later one must have the same. */
  #checkVersion(version: Version): void {
    const known = this.#version;
    if (known === null) {
      this.#version = version;
      return;
    }
    const same =
      known.sizeBytes === version.sizeBytes &&
      known.etag === version.etag &&
      // With an ETag the date adds nothing, and mirrors of one file may differ in it.
      (known.etag !== null || known.modified === version.modified);
    if (!same) throw changedError(this.name);
  }

  /** Size of the whole file; known after the first range. */
  get sizeBytes(): number {
    return this.#version?.sizeBytes ?? 0;
  }
}

class HttpImage implements Image {
  readonly name: string;
  readonly sizeBytes: number;
  readonly writable = false;
  readonly #source: RangeSource;
  readonly #onProgress: GzipOptions["onProgress"];
  /** Block number → bytes, the least recently used first. */
  readonly #blocks = new Map<number, Uint8Array>();
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(source: RangeSource, firstBlock: Uint8Array, onProgress: GzipOptions["onProgress"]) {
    this.name = source.name;
    this.sizeBytes = source.sizeBytes;
    this.#source = source;
    this.#onProgress = onProgress;
    this.#keep(0, firstBlock);
  }

  get bytesFetched(): number {
    return this.#source.bytesFetched;
  }

  /** Reads take turns: two of them that need the same block must not fetch it twice. */
  read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    const turn = this.#turn.then(() => this.#readNow(offset, lengthBytes));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#blocks.clear();
  }

  async #readNow(offset: number, lengthBytes: number): Promise<Uint8Array> {
    if (this.#closed) throw new MmcError("EBADF", `${this.name}: is closed`);
    checkRead(this.name, this.sizeBytes, offset, lengthBytes);
    const target = new Uint8Array(lengthBytes);
    if (lengthBytes === 0) return target;
    const lastBlock = Math.floor((offset + lengthBytes - 1) / BLOCK_BYTES);
    const progress = this.#progressOf(Math.floor(offset / BLOCK_BYTES), lastBlock);
    let block = Math.floor(offset / BLOCK_BYTES);
    while (block <= lastBlock) {
      const known = this.#blocks.get(block);
      if (known !== undefined) {
        this.#keep(block, known);
        copyBlock(block, known, offset, target);
        block++;
        continue;
      }
      let end = block + 1;
      while (end <= lastBlock && end - block < REQUEST_BLOCKS && !this.#blocks.has(end)) end++;
      const last = Math.min(end * BLOCK_BYTES, this.sizeBytes) - 1;
      const bytes = await this.#source.fetchRange(block * BLOCK_BYTES, last, progress);
      for (let at = 0; block < end; block++, at += BLOCK_BYTES) {
        // A copy, or one block kept would keep the whole answer in memory.
        const one = ownBytes(bytes, at, at + BLOCK_BYTES);
        this.#keep(block, one);
        copyBlock(block, one, offset, target);
      }
    }
    return target;
  }

  #keep(block: number, bytes: Uint8Array): void {
    if (this.#closed) return;
    this.#blocks.delete(block);
    this.#blocks.set(block, bytes);
    if (this.#blocks.size > CACHE_BLOCKS) {
      const [oldest] = this.#blocks.keys();
      this.#blocks.delete(oldest as number);
    }
  }

  #progressOf(firstBlock: number, lastBlock: number): ((count: number) => void) | undefined {
    const onProgress = this.#onProgress;
    if (onProgress === undefined) return undefined;
    let totalBytes = 0;
    for (let block = firstBlock; block <= lastBlock; block++) {
      if (this.#blocks.has(block)) continue;
      totalBytes += Math.min(BLOCK_BYTES, this.sizeBytes - block * BLOCK_BYTES);
    }
    let doneBytes = 0;
    return (count) => {
      doneBytes += count;
      onProgress(doneBytes, totalBytes);
    };
  }
}

/**
 * Opens an image behind `http://` or `https://` with one request of 64 KiB. A gzip file is fetched whole and
 * unpacked, within the limits of {@link inflateImage}.
 * @throws MmcError ENOENT (404, 410), EACCES (401, 403), EIO (other statuses, cut or wrong answers, changed
 * file), EOPNOTSUPP (no Range support), EINVAL (empty, bad URL or timeout), ETIMEDOUT, ECONNREFUSED,
 * EHOSTUNREACH, ECONNRESET; read() throws the same.
 */
export async function openHttp(location: string, options: GzipOptions = {}): Promise<Image> {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  if (!Number.isInteger(timeoutMs) || timeoutMs < 1 || timeoutMs > TIMEOUT_MAX_MS) {
    throw new MmcError("EINVAL", `timeout ${timeoutMs}: must be 1 to ${TIMEOUT_MAX_MS} ms`);
  }
  const url = URL.canParse(location) ? new URL(location) : null;
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new MmcError("EINVAL", `${location}: is not an http or https URL`);
  }
  const name = `${url.origin}${url.pathname}`;
  if (url.username !== "" || url.password !== "") {
    throw new MmcError("EINVAL", `${name}: a user name or password in the URL is not supported`);
  }
  const source = new RangeSource(name, url.href, timeoutMs);
  const firstBlock = await source.fetchRange(0, BLOCK_BYTES - 1);
  if (firstBlock[0] === 0x1f && firstBlock[1] === 0x8b) {
    const bytesFetched = (): number => source.bytesFetched;
    const totalBytes = source.sizeBytes;
    return inflateImage({ name, pieces: allPieces(source, firstBlock), totalBytes, bytesFetched }, options);
  }
  if (/\.gz$/i.test(url.pathname)) throw new MmcError("EINVAL", `${name}: is named .gz but is not gzip`);
  return new HttpImage(source, firstBlock, options.onProgress);
}

/** The whole file in order, a request at a time, so that the timeout is one of a request here too. */
async function* allPieces(source: RangeSource, firstBlock: Uint8Array): AsyncGenerator<Uint8Array> {
  yield firstBlock;
  const stepBytes = REQUEST_BLOCKS * BLOCK_BYTES;
  for (let first = firstBlock.length; first < source.sizeBytes; first += stepBytes) {
    yield await source.fetchRange(first, Math.min(first + stepBytes, source.sizeBytes) - 1);
  }
}

/** Copies what `target` (which starts at byte `offset` of the file) shares with a block. */
function copyBlock(block: number, bytes: Uint8Array, offset: number, target: Uint8Array): void {
  const start = block * BLOCK_BYTES;
  const from = Math.max(offset, start);
  const to = Math.min(offset + target.length, start + bytes.length);
  if (to > from) target.set(bytes.subarray(from - start, to - start), from - offset);
}

function truncatedError(name: string, doneBytes: number, lengthBytes: number, cause?: unknown): MmcError {
  return new MmcError("EIO", `${name}: connection ended after ${doneBytes} of ${lengthBytes} bytes`, {
    cause,
  });
}

function changedError(name: string): MmcError {
  return new MmcError("EIO", `${name}: changed while it was read`);
}

function statusError(name: string, status: number): MmcError {
  let code: ErrorCode = "EIO";
  if (status === 404 || status === 410) code = "ENOENT";
  if (status === 401 || status === 403) code = "EACCES";
  // The server's own words are not repeated: Node's table has the usual ones.
  return new MmcError(code, `${name}: HTTP ${status} ${STATUS_CODES[status] ?? ""}`.trimEnd());
}

function networkError(name: string, error: unknown): MmcError {
  const { code, type } = error as { code?: unknown; type?: unknown };
  const word = typeof code === "string" ? code : typeof type === "string" ? type : "unknown";
  const [errorCode, reason] = NETWORK_REASONS[word] ?? (["EIO", `request failed (${word})`] as const);
  return new MmcError(errorCode, `${name}: ${reason}`, { cause: error });
}

const NETWORK_REASONS: Record<string, readonly [ErrorCode, string]> = {
  ECONNREFUSED: ["ECONNREFUSED", "connection refused"],
  ECONNRESET: ["ECONNRESET", "connection closed by the server"],
  EPIPE: ["ECONNRESET", "connection closed by the server"],
  ENOTFOUND: ["EHOSTUNREACH", "host not found"],
  EAI_AGAIN: ["EHOSTUNREACH", "host not found (no answer from the name server)"],
  EHOSTUNREACH: ["EHOSTUNREACH", "host cannot be reached"],
  ENETUNREACH: ["EHOSTUNREACH", "network cannot be reached"],
  ETIMEDOUT: ["ETIMEDOUT", "connection timed out"],
  "max-redirect": ["EIO", "too many redirects"],
  "invalid-redirect": ["EIO", "server redirects to an invalid URL"],
};
