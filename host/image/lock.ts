// Who works on an image file, as qemu-img has it: one writer, or any number of readers. Open-file-description locks
// over the whole file, so two names of one file are one file, a dead process holds nothing, nothing is left behind, and
// QEMU's own locks, which are ranges of the same kind, are seen and see ours. Where the addon does not load, a file in
// the temporary folder keeps writers apart. Block devices have O_EXCL instead; what cannot be locked at all (some
// network file systems) is worked on without.
import { closeSync, openSync, readdirSync, readFileSync, unlinkSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MmcError } from "../errors.js";

/** Of fs-native-extensions, what is used here: false if somebody else's lock is in the way. */
interface Addon {
  tryLock(fd: number, options: { shared: boolean }): boolean;
  unlock(fd: number): void;
}

/** How long somebody else's lock is waited for. A command on a small image takes less. */
const WAIT_MS = 2000;
const POLL_MS = 50;

let addon: Addon | null | undefined;

function loadAddon(): Addon | null {
  if (addon !== undefined) return addon;
  // Deno has not all of libuv's symbols: the linker would end the process, which no `catch` sees.
  if ("Deno" in globalThis) {
    addon = null;
    return addon;
  }
  try {
    addon = createRequire(import.meta.url)("fs-native-extensions") as Addon;
  } catch {
    // No binary for this platform.
    addon = null;
  }
  return addon;
}

/** What this process holds, by device and inode: its own readers and its writer do not keep each other out. */
const held = new Map<string, Set<FileLock>>();

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** The first other process that has a lock on the inode, by what Linux tells of open files; null: not to be found. */
function holderOf(inode: number): number | null {
  const pids = listFolder("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  for (const pid of pids) {
    for (const fd of listFolder(`/proc/${pid}/fdinfo`)) {
      const lines = readText(`/proc/${pid}/fdinfo/${fd}`).split("\n");
      if (lines.some((line) => line.startsWith("lock:") && line.includes(`:${inode} `))) return Number(pid);
    }
  }
  return null;
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: unknown }).code !== "ESRCH";
  }
}

/** Where the lock of a writer is, if there is no other way. */
export function lockFilePath(dev: number, ino: number): string {
  return join(tmpdir(), `mmcpstore-${dev}-${ino}.lock`);
}

/**
 * Makes a writer's lock file; a reader only looks. Null: done; else the process that is in the way. A file whose
 * process is dead is in nobody's way.
 */
export function tryLockFile(path: string, shared: boolean): number | null {
  for (let tries = 0; tries < 2; tries++) {
    const text = readText(path);
    const pid = Number(text);
    if (text !== "" && Number.isInteger(pid) && pid !== process.pid && isAlive(pid)) return pid;
    if (shared) return null;
    try {
      if (text !== "") unlinkSync(path);
      const fd = openSync(path, "wx", 0o644);
      writeSync(fd, String(process.pid));
      closeSync(fd);
      return null;
    } catch {
      // Somebody was faster, or nobody can write there: looked at once more.
    }
  }
  return null;
}

/** A lock on an open file. Made by {@link lockOpenFile}. */
export class FileLock {
  readonly #key: string;
  readonly #fd: number;
  readonly #path: string | null;
  isHeld = true;

  constructor(key: string, fd: number, path: string | null) {
    this.#key = key;
    this.#fd = fd;
    this.#path = path;
    const all = held.get(key) ?? new Set();
    held.set(key, all.add(this));
  }

  /** Must come before the file is closed. A second call does nothing. */
  release(): void {
    const all = held.get(this.#key);
    all?.delete(this);
    if (all?.size === 0) held.delete(this.#key);
    this.letGo();
  }

  /** Without it, the file is free for others of this process. */
  letGo(): void {
    if (!this.isHeld) return;
    this.isHeld = false;
    try {
      if (this.#path === null) loadAddon()?.unlock(this.#fd);
      else if (Number(readText(this.#path)) === process.pid) unlinkSync(this.#path);
    } catch {
      // It ends with the descriptor.
    }
  }
}

/**
 * Locks an open regular file, for a writer alone or with other readers, and waits for others up to two seconds.
 * @returns null: this process has it locked already, or it cannot be locked.
 * @throws MmcError EBUSY another process works on it, which is named if the system tells
 */
export function lockOpenFile(
  name: string,
  fd: number,
  { dev, ino }: { dev: number; ino: number },
  shared: boolean,
): FileLock | null {
  const key = `${dev}:${ino}`;
  const own = held.get(key);
  if (own !== undefined && shared) return null;
  for (const lock of own ?? []) lock.letGo();
  const native = loadAddon();
  const path = native === null ? lockFilePath(dev, ino) : null;
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    let pid: number | null = null;
    try {
      if (native?.tryLock(fd, { shared })) return new FileLock(key, fd, null);
      if (path !== null) {
        pid = tryLockFile(path, shared);
        if (pid === null) return shared ? null : new FileLock(key, fd, path);
      }
    } catch {
      // ENOLCK, EOPNOTSUPP, ENOSYS: no locks here.
      return null;
    }
    if (waitedMs >= WAIT_MS) throw inUse(name, pid ?? holderOf(ino), shared);
    sleep(POLL_MS);
  }
}

function inUse(name: string, pid: number | null, shared: boolean): MmcError {
  const who = pid === null ? "another process" : `process ${pid}`;
  return new MmcError(
    "EBUSY",
    `${name}: ${who} ${shared ? "writes to it" : "has it open"}, nothing was done`,
  );
}
