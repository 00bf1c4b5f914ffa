// "-" in the place of a file. Standard input is one stream that is read once, from its beginning: good for a text, not
// for an image, of which pieces are read here and there. Where it is not taken, a file of that name would be meant, or
// made, and nobody means that.
import type { Command } from "commander";
import { UsageError } from "./output.js";

/** What arguments and options call their values, if these are paths. */
const PATH_WORDS = /^(image|dir|file|region|container|from|bzimage)$/i;
/** The options whose file may be standard input, by command. */
const TEXTS: Record<string, readonly string[]> = { panic: ["log", "console", "pmsg"] };

/** @throws UsageError "-" where a path is wanted that standard input cannot be, or twice */
export function checkDashes(command: Command): void {
  const taken: string[] = [];
  const refuse = (what: string) => {
    throw new UsageError(`${what} -: standard input cannot be read here, give a file (./- for one called -)`);
  };
  for (const [index, argument] of command.registeredArguments.entries()) {
    const value: unknown = command.processedArgs[index];
    const values: unknown[] = Array.isArray(value) ? value : [value];
    if (PATH_WORDS.test(argument.name()) && values.includes("-")) refuse(argument.name().toUpperCase());
  }
  for (const option of command.options) {
    const name = option.attributeName();
    const word = /[<[]([^>\].]+)/.exec(option.flags)?.[1] ?? "";
    if (!PATH_WORDS.test(word) || command.getOptionValue(name) !== "-") continue;
    if (!TEXTS[command.name()]?.includes(name)) refuse(option.long ?? name);
    taken.push(option.long ?? name);
  }
  if (taken.length > 1)
    throw new UsageError(`${taken.join(" and ")} -: standard input can be one of them only`);
}
