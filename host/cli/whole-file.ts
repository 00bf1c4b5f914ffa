// New files that appear whole or not at all: written under another name in the same folder, then renamed, and on the
// medium, name and all, before anybody is told. Must never leave that other name behind when it fails, and never
// replace a file unless told to. What a killed run left of that kind is cleaned by the next one in the same folder.
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { isAlive } from "../image/lock.js";

export interface WholeFileOptions {
  /** Replaces what is there; otherwise that is EEXIST. */
  replace?: boolean | undefined;
  /** Access and modification time, in seconds since 1970. */
  timeSec?: number | undefined;
  /** {@link cleanLeftovers} was called for the folder already. */
  isClean?: boolean | undefined;
  /** Permission bits, whatever the umask; otherwise as the umask says. */
  mode?: number | undefined;
}

/** True if something of that name is there, be it a dangling link. */
export function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Returns when the names in a folder are on the medium; where a folder cannot be synced, nothing is promised. */
export function syncFolder(path: string): void {
  let fd = -1;
  try {
    fd = openSync(path, "r");
    fsyncSync(fd);
  } catch (error) {
    const { code } = error as { code?: unknown };
    // Windows opens no folder; some network file systems sync none; a folder may be writable and not readable.
    if (!["EISDIR", "EPERM", "EACCES", "EINVAL", "ENOTSUP"].includes(String(code)))
      throw fileError(path, error);
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/** Of this process: a draft of that name that is not here is one of a dead process that had the same number. */
const openDrafts = new Set<string>();

/** Removes the drafts in a folder whose processes are dead. Never fails: what is in the way shows later. */
export function cleanLeftovers(folder: string): void {
  try {
    for (const name of readdirSync(folder)) {
      const [, digits] = /^\.mmcpstore-([1-9]\d{0,9})-./.exec(name) ?? [];
      const path = join(folder, name);
      if (digits === undefined || !lstatSync(path).isFile()) continue;
      const pid = Number(digits);
      if (pid === process.pid ? !openDrafts.has(path) : !isAlive(pid)) unlinkSync(path);
    }
  } catch {
    // No such folder yet, or not ours to clean.
  }
}

/** All of `data` into an open file. */
export function writeAll(fd: number, data: Uint8Array): void {
  for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done);
}

/** Blocks of file systems have no more: one that is zero throughout is never written. */
const HOLE_BYTES = 65536;
const ZEROS = new Uint8Array(HOLE_BYTES);

/**
 * Writes a new, empty file from its start on, and leaves out what is zero within each 64 KiB. Node
 * cannot ask a file for its holes; that something is zero is known when it has been read, and then it is not written.
 */
export class SparseWriter {
  readonly #fd: number;
  #at = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(data: Uint8Array): void {
    for (let from = 0; from < data.length; ) {
      const part = data.subarray(from, from + HOLE_BYTES - (this.#at % HOLE_BYTES));
      if (Buffer.compare(part, ZEROS.subarray(0, part.length)) !== 0) this.#writePart(part);
      this.#at += part.length;
      from += part.length;
    }
  }

  /** A hole at the end is of the file, too. */
  end(): void {
    ftruncateSync(this.#fd, this.#at);
  }

  #writePart(part: Uint8Array): void {
    for (let done = 0; done < part.length; ) {
      done += writeSync(this.#fd, part, done, part.length - done, this.#at + done);
    }
  }
}

/**
 * Makes `path`; `fill` writes its content to the file descriptor.
 * @throws MmcError EEXIST, ENOSPC, EACCES, EROFS …: then there is nothing new in the folder.
 */
export function makeWholeFile(
  path: string,
  fill: (fd: number) => void,
  options: WholeFileOptions = {},
): void {
  const draft = new Draft(path);
  try {
    fill(draft.open(options));
    draft.finish(options);
  } catch (error) {
    throw fileError(path, error);
  } finally {
    draft.discard();
  }
}

/** {@link makeWholeFile} for content that comes later. */
export async function makeWholeFileLater(
  path: string,
  fill: (fd: number) => Promise<void>,
  options: WholeFileOptions = {},
): Promise<void> {
  const draft = new Draft(path);
  try {
    await fill(draft.open(options));
    draft.finish(options);
  } catch (error) {
    throw fileError(path, error);
  } finally {
    draft.discard();
  }
}

/** The file under its other name. */
class Draft {
  readonly #path: string;
  readonly #draft: string;
  #fd = -1;
  #isThere = false;

  constructor(path: string) {
    this.#path = path;
    this.#draft = join(dirname(path), `.mmcpstore-${process.pid}-${basename(path)}`.slice(0, 250));
  }

  open({ mode, isClean }: WholeFileOptions): number {
    if (!isClean) cleanLeftovers(dirname(this.#path));
    openDrafts.add(this.#draft);
    this.#fd = openSync(this.#draft, "wx");
    this.#isThere = true;
    if (mode !== undefined) fchmodSync(this.#fd, mode);
    return this.#fd;
  }

  /** What was written becomes the file. */
  finish({ replace, timeSec }: WholeFileOptions): void {
    if (timeSec !== undefined) futimesSync(this.#fd, timeSec, timeSec);
    fsyncSync(this.#fd);
    const open = this.#fd;
    this.#fd = -1;
    closeSync(open);
    if (replace) renameSync(this.#draft, this.#path);
    this.#isThere = replace !== true && !moveToFreeName(this.#draft, this.#path);
    if (this.#isThere) unlinkSync(this.#draft);
    this.#isThere = false;
    syncFolder(dirname(this.#path));
  }

  /** Nothing of it stays, unless it has become the file. */
  discard(): void {
    openDrafts.delete(this.#draft);
    if (this.#fd >= 0) closeSync(this.#fd);
    if (this.#isThere) unlinkSync(this.#draft);
  }
}

/** True if `draft` is gone. A link, unlike a rename, never replaces; where there are no links, look first. */
function moveToFreeName(draft: string, path: string): boolean {
  try {
    linkSync(draft, path);
    return false;
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code === "EEXIST") throw new MmcError("EEXIST", `${path}: exists already`);
    if (exists(path)) throw new MmcError("EEXIST", `${path}: exists already`);
    renameSync(draft, path);
    return true;
  }
}
