// The file in which snapshots are kept (host/devlink/store.ts), read as a whole and replaced as a whole: it is the
// old one or the new one, never something in between, and what somebody else has saved meanwhile is not written over.
// Only its owner may read it: a guest's memory may be in it.
import { type BigIntStats, lstatSync, realpathSync, statSync } from "node:fs";
import { Devlink, type DevlinkState } from "../devlink/devlink.js";
import { decodeStore, encodeStore, STORE_BYTES_MAX } from "../devlink/store.js";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { openRaw } from "../image/raw.js";
import { makeWholeFile, writeAll } from "./whole-file.js";

/** What a store calls its device if nothing else says so: the first MMC host of a machine. */
export const DEVLINK_HANDLE = "platform/mmc0";
/** A saved file of one's own. */
const MODE_NEW = 0o600;
const PERMISSIONS = 0o777;

export class StoreFile {
  /** For messages. */
  readonly name: string;
  readonly #path: string;
  readonly #before: BigIntStats | null;
  /** What the file holds; null: there is none yet. */
  readonly #state: DevlinkState | null;

  /**
   * @param mayBeMissing a file that is not there is an empty store; otherwise ENOENT.
   * @throws MmcError EBADMSG, EOPNOTSUPP no store that can be read; EFBIG larger than any; ENOENT, EISDIR, EACCES …
   */
  constructor(name: string, mayBeMissing: boolean) {
    this.name = name;
    this.#before = statOf(name);
    // A new file takes the place of what the link leads to, not that of the link.
    const isLink = this.#before !== null && lstatSync(name).isSymbolicLink();
    this.#path = isLink ? realpathSync(name) : name;
    if (this.#before === null && mayBeMissing) {
      this.#state = null;
      return;
    }
    try {
      this.#state = decodeStore(readWhole(name));
    } catch (error) {
      throw this.#named(error);
    }
  }

  /** An instance of the device that the file is about. @throws MmcError EINVAL: a handle that cannot be */
  makeDevlink(): Devlink {
    try {
      return new Devlink(this.#state?.handle ?? DEVLINK_HANDLE);
    } catch (error) {
      throw this.#named(error);
    }
  }

  /** Gives an instance what the file holds. @throws MmcError EBADMSG, EINVAL as {@link Devlink.load} */
  loadInto(devlink: Devlink): void {
    try {
      if (this.#state !== null) devlink.load(this.#state);
    } catch (error) {
      throw this.#named(error);
    }
  }

  /** @throws MmcError EBUSY somebody else has changed the file; ENOSPC, EACCES …: the file is as it was */
  save(devlink: Devlink): void {
    const pieces = encodeStore(devlink.state());
    const fill = (fd: number) => {
      for (const piece of pieces) writeAll(fd, piece);
      if (!isSame(this.#before, statOf(this.name))) {
        throw new MmcError("EBUSY", `${this.name}: was changed by somebody else meanwhile, nothing is saved`);
      }
    };
    const replace = this.#before !== null;
    const mode = this.#before === null ? MODE_NEW : Number(this.#before.mode) & PERMISSIONS;
    makeWholeFile(this.#path, fill, { replace, mode });
  }

  #named(error: unknown): MmcError {
    if (!(error instanceof MmcError)) return fileError(this.name, error);
    if (error.message.startsWith(`${this.name}: `)) return error;
    return new MmcError(error.code, `${this.name}: ${error.message}`, { cause: error });
  }
}

function readWhole(name: string): Uint8Array {
  const file = openRaw(name, { writable: false });
  try {
    if (file.sizeBytes > STORE_BYTES_MAX) {
      throw new MmcError("EFBIG", `is larger than any store: ${file.sizeBytes} bytes`);
    }
    const bytes = new Uint8Array(file.sizeBytes);
    file.readSync(0, bytes);
    return bytes;
  } finally {
    file.closeSync();
  }
}

function statOf(path: string): BigIntStats | null {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false }) ?? null;
  } catch (error) {
    throw fileError(path, error);
  }
}

function isSame(before: BigIntStats | null, after: BigIntStats | null): boolean {
  if (before === null || after === null) return before === after;
  return before.ino === after.ino && before.mtimeNs === after.mtimeNs && before.size === after.size;
}
