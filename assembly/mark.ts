// Crash marks: where the explore build can be cut. Every register access and every store that publishes
// something passes here; the host's hook may throw (the machine stops at this point) or copy the
// memory and go on. Without MARKS=1 nothing of it is left in the binary.
declare function hit(id: u32): void;

/** Marks of register accesses are kind | register offset; of publishing stores, one of MARK_*. */
export const MARK_READ: u32 = 0x100;
export const MARK_WRITE: u32 = 0x200;
export const MARK_DELAY: u32 = 0x300;
export const MARK_OWNER: u32 = 0x400;
export const MARK_RESULT: u32 = 0x500;
export const MARK_ZONE_STATE: u32 = 0x600;
export const MARK_RING: u32 = 0x700;

export function mark(id: u32): void {
  if (isDefined(MARKS)) hit(id);
}
