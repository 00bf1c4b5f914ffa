// New files that appear whole or not at all: written under another name in the same folder, then renamed.
// Must never leave that other name behind when it fails, and never replace a file unless told to.
import {
  closeSync,
  fchmodSync,
  fdatasyncSync,
  futimesSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";

export interface WholeFileOptions {
  /** Replaces what is there; otherwise that is EEXIST. */
  replace?: boolean | undefined;
  /** Access and modification time, in seconds since 1970. */
  timeSec?: number | undefined;
  /** Permission bits, whatever the umask; otherwise as the umask says. */
  mode?: number | undefined;
}

/** True if something of that name is there, be it a dangling link. */
export function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** All of `data` into an open file. */
export function writeAll(fd: number, data: Uint8Array): void {
  for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done);
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
  const draft = join(dirname(path), `.mmcpstore-${process.pid}-${basename(path)}`.slice(0, 250));
  let fd = -1;
  let isDraft = false;
  try {
    fd = openSync(draft, "wx");
    isDraft = true;
    if (options.mode !== undefined) fchmodSync(fd, options.mode);
    fill(fd);
    fdatasyncSync(fd);
    if (options.timeSec !== undefined) futimesSync(fd, options.timeSec, options.timeSec);
    const open = fd;
    fd = -1;
    closeSync(open);
    if (options.replace) renameSync(draft, path);
    else isDraft = !moveToFreeName(draft, path);
    if (options.replace) isDraft = false;
  } catch (error) {
    throw fileError(path, error);
  } finally {
    if (fd >= 0) closeSync(fd);
    if (isDraft) unlinkSync(draft);
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
