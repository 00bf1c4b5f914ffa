// The first command that the card did not take, in words. Nothing of Node.
import type { CardKind } from "../core/profile.js";
import type { RefusedCommand } from "../core/result.js";
import { commandName } from "./names.js";

const ANSWERS: Partial<Record<NonNullable<RefusedCommand["code"]>, string>> = {
  ETIMEDOUT: "no answer",
  EILSEQ: "a damaged answer",
  ENOMEDIUM: "no card in the slot",
  EBUSY: "the controller did not come free",
};

function hex(word: number): string {
  return `0x${(word >>> 0).toString(16).padStart(8, "0")}`;
}

function argumentWords({ argument, argumentClass, lba }: RefusedCommand): string {
  if (argumentClass === "address") return ` at sector ${lba}`;
  if (argumentClass === "rca") return ` to card ${argument >>> 16}`;
  if (argumentClass === "count") return ` for ${argument & 0xffff} blocks`;
  return ` with ${hex(argument)}`;
}

/** `CMD25 WRITE_MULTIPLE_BLOCK at sector 2048: WP_VIOLATION (R1 0x04000900)`. */
export function describeRefusal(refused: RefusedCommand, card?: CardKind): string {
  const { command, argument, r1, errors, code } = refused;
  const name = commandName({ index: command, argument, app: false }, card);
  const answer =
    r1 === null
      ? `${ANSWERS[code ?? "EIO"] ?? "it failed"} (${code})`
      : `${errors.join(", ")} (R1 ${hex(r1)})`;
  return `CMD${command}${name === "" ? "" : ` ${name}`}${argumentWords(refused)}: ${answer}`;
}
