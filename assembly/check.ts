// check() and fail(): the core's only `unreachable`, one code per cause. The release build has no checks;
// `debug` has them all. The code is left in memory, where the host finds it behind the trap.
import { FAILED_CHECK } from "./layout";

export const CHECK_BLOCK_RANGE: u32 = 1;
export const CHECK_CACHE_FULL: u32 = 2;
export const CHECK_ZONE_RANGE: u32 = 3;

export function fail(code: u32): void {
  store<u32>(FAILED_CHECK, code);
  unreachable();
}

export function check(holds: bool, code: u32): void {
  if (isDefined(CHECKS)) {
    if (!holds) fail(code);
  }
}
