// What every kind of image promises, and the one check of a read that all of them share.
// It stands apart from image.ts so that raw, gzip and http need not import the file that opens them.
// Must never touch a file or the network.
import { MmcError } from "../errors.js";

/** A disk image of fixed size, wherever its bytes come from. */
export interface Image {
  /** What messages call it: the path as given, or the URL without credentials and query. */
  readonly name: string;
  /** Size of the (unpacked) image in bytes, at least 1. */
  readonly sizeBytes: number;
  /** True only for a raw image that was opened for writing. */
  readonly writable: boolean;
  /** Body bytes that came over the network so far; 0 for files. */
  readonly bytesFetched: number;
  /**
   * Reads exactly `lengthBytes` at `offset`, both in bytes.
   * @throws MmcError EIO past the end, or when the source fails; EINVAL for a negative or broken number;
   * EFBIG above 1 GiB at once; EBADF after close().
   */
  read(offset: number, lengthBytes: number): Promise<Uint8Array>;
  /** The same into `target`, at once; only where nothing has to be waited for: not over HTTP. */
  readSync?(offset: number, target: Uint8Array): void;
  /** Frees what the image holds. A second call does nothing. */
  close(): Promise<void>;
}

/** Options of every way to open an image. */
export interface ImageOptions {
  /** Longest time of one HTTP request with its body (at most 1 MiB), 1..2147483647; default 30000. */
  timeoutMs?: number | undefined;
  /**
   * Called while something long is read: the packed bytes of a gzip image, or the bytes one read() has to
   * fetch over HTTP. `totalBytes` is null when nobody knows it.
   */
  onProgress?: ((doneBytes: number, totalBytes: number | null) => void) | undefined;
}

/** More than this in one read() is a mistake, not a read: areas end at 128 MiB. */
const READ_LIMIT_BYTES = 2 ** 30;

/** Throws unless `[offset, offset + lengthBytes)` lies in an image of `sizeBytes`. */
export function checkRead(name: string, sizeBytes: number, offset: number, lengthBytes: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(lengthBytes) || offset < 0 || lengthBytes < 0) {
    throw new MmcError("EINVAL", `${name}: cannot read ${lengthBytes} bytes at ${offset}`);
  }
  if (offset + lengthBytes > sizeBytes) {
    throw new MmcError(
      "EIO",
      `${name}: ${lengthBytes} bytes at ${offset} lie beyond the end (${sizeBytes} bytes)`,
    );
  }
  if (lengthBytes > READ_LIMIT_BYTES) {
    throw new MmcError("EFBIG", `${name}: ${lengthBytes} bytes are too many for one read`);
  }
}
