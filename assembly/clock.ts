// Simulated time: nanoseconds in the memory. Nothing in the core has another clock.
import { CLOCK_NOW } from "./layout";

/** Later than anything: a wait that only an event can end. */
export const NEVER: u64 = 0xffffffffffffffff;

export function nowNs(): u64 {
  return load<u64>(CLOCK_NOW);
}

export function advanceNs(byNs: u64): void {
  store<u64>(CLOCK_NOW, load<u64>(CLOCK_NOW) + byNs);
}

/** To `timeNs`, if that is later than now. */
export function advanceTo(timeNs: u64): void {
  if (timeNs > load<u64>(CLOCK_NOW)) store<u64>(CLOCK_NOW, timeNs);
}

export function laterNs(first: u64, second: u64): u64 {
  return first > second ? first : second;
}

export function soonerNs(first: u64, second: u64): u64 {
  return first < second ? first : second;
}

/** The end of a wait that starts at `fromNs`; NEVER stays NEVER. */
export function afterNs(fromNs: u64, byNs: u64): u64 {
  return fromNs == NEVER || byNs == NEVER ? NEVER : fromNs + byNs;
}
