// What happened, with its simulated time: a ring in memory that the host reads. Off, it costs one load.
import { nowNs } from "./clock";
import {
  CONFIG_TRACE,
  TRACE_BASE,
  TRACE_CLOCK,
  TRACE_ENTRIES,
  TRACE_ENTRY_BYTES,
  TRACE_HEAD_BYTES,
  TRACE_LEVELS,
} from "./layout";

/** An event with all five words. */
export function traceWords(timeNs: u64, kind: u32, a: u32, b: u32, c: u32, d: u32, e: u32): void {
  if (load<u32>(CONFIG_TRACE) == 0) return;
  const count = load<u32>(TRACE_BASE);
  const entry: usize = TRACE_BASE + TRACE_HEAD_BYTES + (count % TRACE_ENTRIES) * TRACE_ENTRY_BYTES;
  store<u64>(entry, timeNs);
  store<u32>(entry, kind, 8);
  store<u32>(entry, a, 12);
  store<u32>(entry, b, 16);
  store<u32>(entry, c, 20);
  store<u32>(entry, d, 24);
  store<u32>(entry, e, 28);
  store<u32>(TRACE_BASE, count + 1);
}

export function traceAt(timeNs: u64, kind: u32, a: u32, b: u32, c: u32): void {
  traceWords(timeNs, kind, a, b, c, 0, 0);
}

/** A level (TRACE_CLOCK and the kinds behind it): told once, and again when it is another one. */
export function traceLevel(timeNs: u64, kind: u32, level: u32): void {
  const last: usize = TRACE_BASE + TRACE_LEVELS + ((kind - TRACE_CLOCK) << 2);
  if (load<u32>(CONFIG_TRACE) == 0 || load<u32>(last) == level + 1) return;
  store<u32>(last, level + 1);
  traceWords(timeNs, kind, level, 0, 0, 0, 0);
}

export function trace(kind: u32, a: u32, b: u32): void {
  traceAt(nowNs(), kind, a, b, 0);
}
