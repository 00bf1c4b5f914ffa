// A panic write in words: its steps with their simulated times, the way the card was taken over, what the
// record became. Shared by `panic` and `demo`. Must never compute anything that the core has not said.
import type { CardKind } from "../core/profile.js";
import type { PanicResult } from "../core/result.js";
import { codeOf } from "../core/status.js";
import { formatNs, type TraceEvent } from "../core/trace.js";
import { describeRefusal } from "../trace/refusal.js";
import { color } from "./output.js";

/** Rungs of the takeover ladder, by the highest that was needed. */
const RUNGS: Record<number, string> = {
  1: "led back from there",
  2: "freed by CMD12",
  3: "woken by CMD5",
  4: "selected by CMD7",
  5: "identified anew",
  6: "power-cycled and identified anew",
};

/** `rcv, led back from there (rung 1)`. */
export function describeTakeover({ cardState, rung }: PanicResult): string {
  return `${cardState ?? "silent"}, ${RUNGS[rung] ?? "taken over"} (rung ${rung})`;
}

/** One step of a panic write; the time counts from the panic's start. */
export interface Step {
  name: string;
  timeNs: bigint;
}

/** The steps that the trace still holds. */
export function stepsOf(events: TraceEvent[], result: PanicResult): Step[] {
  return events
    .filter((event) => event.kind === "step")
    .filter((event) => event.timeNs >= result.startNs)
    .map((event) => ({ name: event.name, timeNs: event.timeNs - result.startNs }));
}

/** `   12.345 µs  take the card`, with what is known about a step behind it. */
export function formatStep({ name, timeNs }: Step, result: PanicResult): string {
  let remark = "";
  if (name === "take the host" && result.interruptedOwner !== 0) remark = "it was held, that request is lost";
  if (name === "take the card") remark = `found in ${describeTakeover(result)}`;
  // The result counts the parts of a long log together; which of them a step belongs to, it does not say.
  if (name === "compress the text" && result.parts <= 1) {
    remark = result.compressed
      ? `${result.storedBytes} bytes of it to ${result.payloadBytes}`
      : "no gain, it stays plain";
  }
  if (name === "choose a zone" && result.attempts > 1 && result.firstRefused !== null) {
    remark = `${result.attempts} were tried; ${describeRefusal(result.firstRefused)}`;
  }
  if (name === "done") remark = `durable after ${formatNs(result.commitNs - result.startNs)}`;
  return `${color.dim(formatNs(timeNs).padStart(13))}  ${name}${remark ? color.dim(`  ${remark}`) : ""}\n`;
}

/** Why a panic write failed: errno, step, the first command that was refused, the last one and its card status. */
export function describeFailure(result: PanicResult, card?: CardKind): string {
  const { failedCommand: command, firstRefused } = result;
  const first = firstRefused === null ? "" : `; first refused: ${describeRefusal(firstRefused, card)}`;
  const last =
    command === null ? "" : `; last: CMD${command}, R1 0x${(result.r1 >>> 0).toString(16).padStart(8, "0")}`;
  return `${codeOf(result.status)} at step "${result.step}"${first}${last}`;
}
