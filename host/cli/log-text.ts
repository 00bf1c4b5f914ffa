// The text of a crash log, from a file or from standard input. A zone takes at most the newest megabyte, so
// no more than that is ever kept. Must never read a whole large file, and never wait for one that does not
// end.
import { closeSync, createReadStream, fstatSync, openSync, readSync } from "node:fs";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";

/** The newest bytes of a log. */
export interface LogText {
  text: Uint8Array;
  /** Older bytes of the log that are not in `text`. */
  olderBytes: number;
}

const KEPT_BYTES = 2 ** 20;
const LOG_BYTES_MAX = 2 ** 30;

/**
 * Reads the log at `path`; `-` is standard input.
 * @throws MmcError EINVAL empty, EFBIG above 1 GiB, ENOENT …
 */
export async function readLog(path: string): Promise<LogText> {
  const name = path === "-" ? "standard input" : path;
  try {
    const log = (path === "-" ? null : readTail(path, name)) ?? (await readStream(path, name));
    if (log.text.length === 0) throw new MmcError("EINVAL", `${name}: is empty, there is nothing to write`);
    return log;
  } catch (error) {
    throw fileError(name, error);
  }
}

/** The end of a file with a size; null for pipes, devices and /proc, which have none. */
function readTail(path: string, name: string): LogText | null {
  const fd = openSync(path, "r");
  try {
    const stats = fstatSync(fd);
    if (stats.isDirectory()) throw new MmcError("EISDIR", `${name}: is a directory`);
    if (!stats.isFile()) return null;
    checkLength(name, stats.size);
    if (stats.size === 0) {
      // Empty, or one of /proc that only says so.
      return readSync(fd, new Uint8Array(1), 0, 1, 0) === 0
        ? { text: new Uint8Array(0), olderBytes: 0 }
        : null;
    }
    const olderBytes = Math.max(0, stats.size - KEPT_BYTES);
    const text = new Uint8Array(stats.size - olderBytes);
    let done = 0;
    for (let count = -1; count !== 0 && done < text.length; done += count) {
      count = readSync(fd, text, done, text.length - done, olderBytes + done);
    }
    return { text: text.subarray(0, done), olderBytes };
  } finally {
    closeSync(fd);
  }
}

async function readStream(path: string, name: string): Promise<LogText> {
  const stream: AsyncIterable<Uint8Array> = path === "-" ? process.stdin : createReadStream(path);
  let kept: Uint8Array = new Uint8Array(0);
  let pieces: Uint8Array[] = [];
  let pieceBytes = 0;
  let totalBytes = 0;
  const join = () => {
    kept = Buffer.concat([kept, ...pieces]).subarray(-KEPT_BYTES);
    pieces = [];
    pieceBytes = 0;
  };
  for await (const piece of stream) {
    totalBytes += piece.length;
    checkLength(name, totalBytes);
    pieces.push(piece);
    pieceBytes += piece.length;
    if (pieceBytes >= KEPT_BYTES) join();
  }
  join();
  return { text: kept, olderBytes: totalBytes - kept.length };
}

function checkLength(name: string, lengthBytes: number): void {
  if (lengthBytes > LOG_BYTES_MAX) {
    throw new MmcError("EFBIG", `${name}: is larger than 1 GiB, that is no kernel log`);
  }
}
