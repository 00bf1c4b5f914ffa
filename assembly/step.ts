// How far a panic has come: in RESULT, and in the trace.
import { RESULT_STEP, TRACE_STEP } from "./layout";
import { MARK_RESULT, mark } from "./mark";
import { holds } from "./owner";
import { trace } from "./trace";

/** A step of layout.ts begins. False: the panic no longer holds the host, and must leave everything as it is. */
export function step(token: u32, number: u32, detail: u32): bool {
  mark(MARK_RESULT);
  if (!holds(token)) return false;
  store<u32>(RESULT_STEP, number);
  trace(TRACE_STEP, number, detail);
  return true;
}
