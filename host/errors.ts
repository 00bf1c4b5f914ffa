// The one error the host throws, and the Linux errno names it may carry.
// MmcError says what went wrong in one line, `what: why`, free of control characters, because the names of
// files, partitions and servers end up in it. Must never import anything of Node (pages use it)
// and never print. The numbers are Linux's (include/uapi/asm-generic/errno*.h); the core returns them
// negated.

/** Linux errno numbers by name: the only codes an {@link MmcError} has. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  ENOMSG: 42,
  ENODATA: 61,
  ETIME: 62,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EUCLEAN: 117,
  ENOMEDIUM: 123,
  EMEDIUMTYPE: 124,
  ECANCELED: 125,
} as const;

/** Linux errno names we use. */
export type ErrorCode = keyof typeof ERRNO;

/** What an {@link MmcError} knows beside its code. All of it is optional. */
export interface ErrorDetails {
  /** Index of the card command that failed, 0..63. */
  command?: number | undefined;
  /** The card's R1 status, a u32. */
  r1?: number | undefined;
  /** The step of the panic path or of the operation, e.g. `takeover`. */
  step?: string | undefined;
  /** The error this one was made from. */
  cause?: unknown;
}

/** True if `text` is one of the names in {@link ERRNO}. */
export function isErrorCode(text: unknown): text is ErrorCode {
  return typeof text === "string" && Object.hasOwn(ERRNO, text);
}

/** Every error this package throws on purpose: a Linux code and one line, `what: why`. */
export class MmcError extends Error {
  readonly code: ErrorCode;
  declare readonly command?: number;
  declare readonly r1?: number;
  declare readonly step?: string;

  /**
   * @param code Linux errno name.
   * @param message `what: why`. Control characters become spaces: the message stays one line.
   * @param details command, r1 and step, as far as they are known.
   */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message.replace(/\p{Cc}+/gu, " "), details.cause === undefined ? {} : { cause: details.cause });
    this.name = "MmcError";
    this.code = code;
    if (details.command !== undefined) this.command = details.command;
    if (details.r1 !== undefined) this.r1 = details.r1;
    if (details.step !== undefined) this.step = details.step;
  }
}
