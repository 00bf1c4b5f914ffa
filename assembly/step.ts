// How far a panic has come: in RESULT, and in the trace.
import { RESULT_STEP, TRACE_STEP } from "./layout";
import { MARK_RESULT, mark } from "./mark";
import { trace } from "./trace";

/** A step of layout.ts begins. */
export function step(number: u32, detail: u32): void {
  mark(MARK_RESULT);
  store<u32>(RESULT_STEP, number);
  trace(TRACE_STEP, number, detail);
}
