// The trace as text, one line an event: `CMD6 0x03210101 SWITCH EXT_CSD_CACHE_CTRL = 1`. Nothing of Node.
import type { CardKind } from "../core/profile.js";
import { formatNs, type TraceEvent } from "../core/trace.js";
import { commandName, commandNumber, describeArgument, describeOcr } from "./names.js";

const CRC_STATUS: Record<number, string> = {
  0: "none",
  2: "010",
  5: "101 (wrong CRC)",
  7: "111 (not written)",
};

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, "0")}`;
}

function place(lba: number | null): string {
  return lba === null ? "" : `, sector ${lba}`;
}

function describeResponse(event: Extract<TraceEvent, { kind: "response" }>): string {
  const word = event.words[0] ?? 0;
  const { status } = event;
  switch (event.type) {
    case "R1": {
      const words = [status?.state, ...(status?.ready ? ["ready"] : []), ...(status?.errors ?? [])];
      if (status?.appCommand) words.push("APP_CMD");
      return `R1 ${hex(word)} (${words.join(", ")})`;
    }
    case "R2":
      return `R2 ${event.words.map((one) => one.toString(16).padStart(8, "0")).join(" ")}`;
    case "R3":
      return `R3 ${hex(word)} (${describeOcr(word, "card")})`;
    case "R6":
      return `R6 ${hex(word)} (RCA ${word >>> 16})`;
    default:
      return `${event.type} ${hex(word)}`;
  }
}

/** What happened, without its time. */
export function describeEvent(event: TraceEvent, card?: CardKind): string {
  switch (event.kind) {
    case "command": {
      const name = commandName(event, card);
      const argument = describeArgument(event, card);
      return [commandNumber(event, card), hex(event.argument), name, argument].filter(Boolean).join(" ");
    }
    case "response":
      return `  ${describeResponse(event)}`;
    case "no-response":
      return "  no response";
    case "block-read":
      return `  block → host, ${event.bytes} bytes${place(event.lba)}${event.crcRight ? "" : ", wrong CRC"}`;
    case "block-write":
      return (
        `  block → card, ${event.bytes} bytes${place(event.lba)}, ` +
        `CRC status ${CRC_STATUS[event.crcStatus] ?? event.crcStatus}`
      );
    case "busy-start":
      return `  busy: ${event.operation}${place(event.lba)}`;
    case "busy-end":
      return `  busy ${event.cut ? "cut short" : "ends"}: ${event.operation}${place(event.lba)}`;
    case "transfer-complete":
      return "  transfer complete";
    case "error":
      return `  error ${hex(event.bits)} (${event.names.join(", ")})`;
    case "reset": {
      const lines = [event.all ? " all" : "", event.command ? " CMD" : "", event.data ? " DAT" : ""];
      return `reset${lines.join("")}`;
    }
    case "power":
      return event.on ? "power on" : "power off";
    case "clock":
      return event.khz === 0 ? "clock off" : `clock ${event.khz} kHz`;
    case "width":
      return `data lines: ${event.lines}`;
    case "state":
      return `  card in ${event.state}`;
    case "step":
      return `── ${event.name}`;
  }
}

/**
 * One line an event: its time, then what it was. `card` names the commands that mean something else on the
 * other kind; without it their arguments decide.
 */
export function formatTrace(events: TraceEvent[], card?: CardKind): string {
  return events
    .map((event) => `${formatNs(event.timeNs).padStart(15)}  ${describeEvent(event, card)}\n`)
    .join("");
}
