// Turns what node:fs throws into an MmcError of one line: the file, then the reason in words.
// Node's own messages repeat the code, the system call and the path; none of that belongs on the user's line.
// Must never hide a code it does not know: that becomes EIO with the code in the text.
import { isErrorCode, MmcError } from "../errors.js";

const REASONS: Record<string, string> = {
  EACCES: "permission denied",
  EBUSY: "is in use",
  EFBIG: "the file would become too large",
  EIO: "input/output error",
  EISDIR: "is a directory",
  ELOOP: "too many symbolic links",
  EMFILE: "too many open files",
  ENAMETOOLONG: "the name is too long",
  ENODEV: "no such device",
  ENOENT: "no such file",
  ENOMEDIUM: "no medium in the drive",
  ENOSPC: "no space left on the device",
  ENOTDIR: "a part of the path is not a directory",
  ENXIO: "no such device",
  EPERM: "operation not permitted",
  EROFS: "read-only file system",
};

/** The MmcError for `error`, thrown by node:fs about `name`. An MmcError comes back as it is. */
export function fileError(name: string, error: unknown): MmcError {
  if (error instanceof MmcError) return error;
  const code = (error as { code?: unknown } | null)?.code;
  const known = isErrorCode(code) ? code : "EIO";
  const reason = typeof code === "string" ? (REASONS[code] ?? code) : "input/output error";
  return new MmcError(known, `${name}: ${reason}`, { cause: error });
}
