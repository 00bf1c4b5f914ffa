// A status of the core as the error that the host throws.
import { ERRNO, type ErrorCode, type ErrorDetails, MmcError } from "../errors.js";

const CODES = new Map(Object.entries(ERRNO).map(([name, number]) => [-number, name as ErrorCode]));

const MEANINGS: Partial<Record<ErrorCode, string>> = {
  EIO: "the card refused or lost a sector",
  EBUSY: "the host is held by somebody else",
  ECANCELED: "a panic took the host meanwhile",
  ENODEV: "another card than before is in the slot",
  EINVAL: "out of range",
  ENOSPC: "there is no usable zone",
  EILSEQ: "CRC error on the bus",
  EOPNOTSUPP: "this card cannot do it",
  ETIMEDOUT: "the card did not answer in time",
  ENOMEDIUM: "there is no card in the slot",
};

/** The errno name of a status of the core, EIO for one that has no name. */
export function codeOf(status: number): ErrorCode {
  return CODES.get(status) ?? "EIO";
}

/** Throws unless `status` is 0. `what` begins the message. */
export function throwOnError(status: number, what: string, details: ErrorDetails = {}): void {
  if (status === 0) return;
  const code = codeOf(status);
  throw new MmcError(code, `${what}: ${MEANINGS[code] ?? "failed"} (${code})`, details);
}
