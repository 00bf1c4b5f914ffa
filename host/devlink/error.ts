// What a refused devlink request says: an errno, and sometimes a sentence beside it (the "extack" of netlink). The
// sentences and strerror() texts are Linux's and glibc's, because tools and people match them. Nothing of Node.
import { type ErrorCode, MmcError } from "../errors.js";

/** strerror() of glibc in the C locale. */
const STRERROR: Record<ErrorCode, string> = {
  EPERM: "Operation not permitted",
  ENOENT: "No such file or directory",
  EINTR: "Interrupted system call",
  EIO: "Input/output error",
  ENXIO: "No such device or address",
  EBADF: "Bad file descriptor",
  EAGAIN: "Resource temporarily unavailable",
  ENOMEM: "Cannot allocate memory",
  EACCES: "Permission denied",
  EFAULT: "Bad address",
  EBUSY: "Device or resource busy",
  EEXIST: "File exists",
  ENODEV: "No such device",
  ENOTDIR: "Not a directory",
  EISDIR: "Is a directory",
  EINVAL: "Invalid argument",
  EMFILE: "Too many open files",
  EFBIG: "File too large",
  ENOSPC: "No space left on device",
  EROFS: "Read-only file system",
  ERANGE: "Numerical result out of range",
  ENAMETOOLONG: "File name too long",
  ENOSYS: "Function not implemented",
  ELOOP: "Too many levels of symbolic links",
  ENOMSG: "No message of desired type",
  ENODATA: "No data available",
  ETIME: "Timer expired",
  EPROTO: "Protocol error",
  EBADMSG: "Bad message",
  EOVERFLOW: "Value too large for defined data type",
  EILSEQ: "Invalid or incomplete multibyte or wide character",
  EOPNOTSUPP: "Operation not supported",
  ECONNRESET: "Connection reset by peer",
  ENOTCONN: "Transport endpoint is not connected",
  ESHUTDOWN: "Cannot send after transport endpoint shutdown",
  ETIMEDOUT: "Connection timed out",
  ECONNREFUSED: "Connection refused",
  EHOSTUNREACH: "No route to host",
  EALREADY: "Operation already in progress",
  EUCLEAN: "Structure needs cleaning",
  ENOMEDIUM: "No medium found",
  EMEDIUMTYPE: "Wrong medium type",
  ECANCELED: "Operation canceled",
};

/** A request that the device refused. */
export class DevlinkError extends MmcError {
  /** What is said besides the errno, without a full stop; null: nothing. */
  readonly extack: string | null;

  /** @param what BUS/DEV/REGION, for the message. */
  constructor(code: ErrorCode, what: string, extack: string | null, cause?: unknown) {
    super(code, `${what}: ${extack ?? STRERROR[code]}`, { cause });
    this.extack = extack;
  }

  /** The lines that the devlink command prints. */
  get lines(): string[] {
    const { extack } = this;
    const answer = `kernel answers: ${STRERROR[this.code]}`;
    if (extack === null) return [answer];
    return [`Error: ${extack}${extack.endsWith(".") ? "" : "."}`, answer];
  }
}
