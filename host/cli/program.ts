// The commands and where each is: a module is loaded when its command is asked for, so that `--version` and every
// command start without the others. Help, completion and manual pages ask for all of them, and are made of what the
// commands say of themselves.
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { checkDashes } from "./dashes.js";

/** In the order in which help lists them. */
const COMMANDS: Record<string, () => Promise<(program: Command) => void>> = {
  demo: async () => (await import("./demo.js")).addDemo,
  ls: async () => (await import("./ls.js")).addLs,
  cat: async () => (await import("./cat.js")).addCat,
  extract: async () => (await import("./extract.js")).addExtract,
  rm: async () => (await import("./rm.js")).addRm,
  format: async () => (await import("./format.js")).addFormat,
  panic: async () => (await import("./panic.js")).addPanic,
  harvest: async () => (await import("./harvest.js")).addHarvest,
  core: async () => (await import("./core.js")).addCore,
  devlink: async () => (await import("./devlink.js")).addDevlink,
  minidump: async () => (await import("./minidump.js")).addMinidump,
  inspect: async () => (await import("./inspect.js")).addInspect,
  sahara: async () => (await import("./sahara.js")).addSahara,
  v86: async () => (await import("./v86.js")).addV86,
  sample: async () => (await import("./sample.js")).addSample,
  completion: async () => (await import("./completion.js")).addCompletion,
};

function version(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return String((JSON.parse(text) as { version: unknown }).version);
}

/** The command line with the commands `names`; without names with all. */
export async function buildProgram(names = Object.keys(COMMANDS)): Promise<Command> {
  const program = new Command("mmcpstore")
    .description(
      "Crash logs in pstore areas of eMMC and SD cards: read them, write them, break the card meanwhile.",
    )
    .version(version(), "-V, --version", "print the version")
    .helpCommand("help [command...]", "display help for a command")
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    .hook("preAction", (_, command) => checkDashes(command))
    .addHelpText(
      "after",
      `
Exit codes: 0 done, 1 failed (one line on standard error), 2 wrong usage.
Colours obey NO_COLOR and FORCE_COLOR. What mean the same everywhere: --json prints JSON instead of a text, --all
leaves nothing out, --force writes over what is there, "-" as a file is standard input where help says so.

Examples:
  mmcpstore demo
  mmcpstore sample area disk.img && mmcpstore ls disk.img
  mmcpstore panic disk.img --log panic.txt --in-flight write
  mmcpstore help core extract`,
    );
  for (const name of names) {
    const add = await COMMANDS[name]?.();
    add?.(program);
  }
  return program;
}

/** The names of the commands that have to be there to run `words`; all of them, if they do not name one. */
function namesFor(words: readonly string[]): string[] {
  const [word = ""] = words;
  if (word === "-V" || word === "--version") return [];
  return Object.hasOwn(COMMANDS, word) && word !== "completion" ? [word] : Object.keys(COMMANDS);
}

/** How far `words` name commands: the last of them, and the words behind its name. */
function follow(program: Command, words: readonly string[]): { command: Command; rest: readonly string[] } {
  let command = program;
  let at = 0;
  for (; at < words.length; at++) {
    const next = command.commands.find((one) => one.name() === words[at]);
    if (next === undefined) break;
    command = next;
  }
  return { command, rest: words.slice(at) };
}

/** `mmcpstore core ls` */
export function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

/** The arguments, understood as far as this needs no command to run. */
export interface Invocation {
  program: Command;
  /** What is to be parsed. */
  words: readonly string[];
  /** The command that they name, as far as they do. */
  command: Command;
}

/**
 * `help core ls` is `core ls --help`. Where a word in front of --help names no command, commander would show the help
 * of what is in front of that: without the flag it says that there is no such command, and which one is like it.
 */
export async function understand(argv: readonly string[]): Promise<Invocation> {
  const isHelp = argv[0] === "help";
  const given = isHelp ? argv.slice(1) : argv;
  const program = await buildProgram(namesFor(given));
  const { command, rest } = follow(program, given);
  const [wrong = ""] = rest;
  const isUnknown = command.commands.length > 0 && wrong !== "" && !wrong.startsWith("-") && wrong !== "help";
  if (isUnknown) return { program, command, words: given.slice(0, given.length - rest.length + 1) };
  return { program, command, words: isHelp ? [...given, "--help"] : given };
}
