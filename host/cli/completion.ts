// `mmcpstore completion bash|zsh|fish`: a script for the shell, made of what the commands say of themselves, so that it
// knows what they know. It starts no process when a key is pressed. (The packages that there are for this either do, or
// are not kept any more: docs/DESIGN.md, Dependencies.)
import type { Argument, Command, Option } from "commander";
import { parseChoice } from "./options.js";
import { UsageError, write } from "./output.js";

/** What stands behind an option or in an argument's place. */
type Value = { kind: "words"; words: string[] } | { kind: "path" } | { kind: "other" };

interface Flag {
  /** `--card`, `-p` */
  names: string[];
  description: string;
  /** null: takes none. */
  value: Value | null;
}

interface Level {
  /** `mmcpstore core ls` */
  path: string;
  commands: { name: string; description: string }[];
  flags: Flag[];
  /** Of its arguments, joined. */
  words: string[];
  takesPaths: boolean;
}

const SHELLS = ["bash", "zsh", "fish"] as const;
const PATH_WORDS = /^(image|dir|file|region|container|from|bzimage)$/i;

/** The words that a parser takes, if it takes certain words only: its own refusal lists them. */
function wordsOf(parse: ((text: string, before: never) => unknown) | undefined): string[] {
  try {
    parse?.("\0", undefined as never);
  } catch (error) {
    const list = error instanceof UsageError ? /: is not one of (.+)$/s.exec(error.message)?.[1] : undefined;
    return list?.split(", ") ?? [];
  }
  return [];
}

function valueBehind(placeholder: string, parse: Parameters<typeof wordsOf>[0]): Value {
  const words = wordsOf(parse);
  if (words.length > 0) return { kind: "words", words };
  return { kind: PATH_WORDS.test(placeholder) ? "path" : "other" };
}

function flagOf(option: Option): Flag {
  const names = [option.short, option.long].filter((name) => name !== undefined && name !== null);
  const placeholder = /[<[]([^>\].]+)/.exec(option.flags)?.[1];
  const value =
    placeholder === undefined
      ? null
      : valueBehind(placeholder, option.parseArg as Parameters<typeof wordsOf>[0]);
  return { names, description: option.description, value };
}

function argumentValue(argument: Argument): Value {
  return valueBehind(argument.name(), argument.parseArg as Parameters<typeof wordsOf>[0]);
}

/** Of every command, the outer ones first. */
export function levelsOf(command: Command, above = ""): Level[] {
  const path = `${above}${command.name()}`;
  const values = command.registeredArguments.map(argumentValue);
  const help = command.createHelp();
  const level = {
    path,
    commands: help.visibleCommands(command).map((one) => ({
      name: one.name(),
      description: one.summary() || one.description(),
    })),
    flags: help.visibleOptions(command).map(flagOf),
    words: values.flatMap((value) => (value.kind === "words" ? value.words : [])),
    takesPaths: values.some(({ kind }) => kind === "path"),
  };
  return [level, ...command.commands.flatMap((one) => levelsOf(one, `${path} `))];
}

/** In single quotes of any of the three shells: names and descriptions have none of their own but in words. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "’")}'`;
}

/** `case` branches for the words that may stand behind a flag. */
function valueCases(levels: Level[], words: (list: string[]) => string, paths: string): string[] {
  return levels.flatMap(({ path, flags }) =>
    flags.flatMap(({ names, value }) => {
      if (value === null) return [];
      const pattern = names.map((name) => quoted(`${path} ${name}`)).join("|");
      const then = value.kind === "words" ? words(value.words) : value.kind === "path" ? paths : ":";
      return [`    ${pattern}) ${then}; return ;;`];
    }),
  );
}

function pathPatterns(levels: Level[]): string {
  return levels
    .slice(1)
    .map(({ path }) => quoted(path))
    .join("|");
}

function bash(levels: Level[]): string {
  const words = (list: string[]) => `COMPREPLY=($(compgen -W ${quoted(list.join(" "))} -- "$cur"))`;
  const branches = levels.map((level) => {
    const names = [...level.commands.map(({ name }) => name), ...level.words];
    const flags = level.flags.flatMap((flag) => flag.names);
    const more = level.takesPaths ? ' [[ $cur == -* ]] || _mmcpstore_paths "$cur";' : "";
    return `    ${quoted(level.path)}) ${words([...names, ...flags])};${more} return ;;`;
  });
  return `# bash completion of mmcpstore: source <(mmcpstore completion bash)
_mmcpstore_paths() {
  compopt -o filenames 2>/dev/null
  local found
  while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -f -- "$1")
}
_mmcpstore() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} at=mmcpstore i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in ${pathPatterns(levels)}) at="$at \${COMP_WORDS[i]}" ;; esac
  done
  case "$at $prev" in
${valueCases(levels, words, '_mmcpstore_paths "$cur"').join("\n")}
  esac
  case "$at" in
${branches.join("\n")}
  esac
}
complete -F _mmcpstore mmcpstore
`;
}

function zsh(levels: Level[]): string {
  const entry = (name: string, description: string) =>
    quoted(`${name.replaceAll(":", "\\:")}:${description.replaceAll("\n", " ")}`);
  const branches = levels.map((level) => {
    const names = [
      ...level.commands.map(({ name, description }) => entry(name, description)),
      ...level.words.map((word) => entry(word, "")),
    ];
    const flags = level.flags.flatMap((flag) => flag.names.map((name) => entry(name, flag.description)));
    return `    ${quoted(level.path)})
      names=(${names.join(" ")}) flags=(${flags.join(" ")})
      (( $#names )) && _describe -t commands command names
      _describe -o -t options option flags
      ${level.takesPaths ? "_files" : ":"} ;;`;
  });
  return `#compdef mmcpstore
# zsh completion of mmcpstore: source <(mmcpstore completion zsh), or a file _mmcpstore in a folder of $fpath
_mmcpstore() {
  local at=mmcpstore prev=$words[CURRENT-1] i
  local -a names flags
  for ((i = 2; i < CURRENT; i++)); do
    case "$at $words[i]" in ${pathPatterns(levels)}) at="$at $words[i]" ;; esac
  done
  case "$at $prev" in
${valueCases(levels, (list) => `compadd -- ${list.map(quoted).join(" ")}`, "_files").join("\n")}
  esac
  case "$at" in
${branches.join("\n")}
  esac
}
(( $+functions[compdef] )) && compdef _mmcpstore mmcpstore
`;
}

function fish(levels: Level[]): string {
  const lines = levels.flatMap((level) => {
    const start = `complete -c mmcpstore -n '__mmcpstore_at "${level.path}"'`;
    const names = level.commands.map(
      ({ name, description }) => `${start} -a ${name} -d ${quoted(description)}`,
    );
    const words = level.words.length > 0 ? [`${start} -a ${quoted(level.words.join(" "))}`] : [];
    const paths = level.takesPaths ? [`${start} -F`] : [];
    const flags = level.flags.map(({ names: all, description, value }) => {
      const dashed = all.map((name) =>
        name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`,
      );
      const then =
        value === null
          ? ""
          : value.kind === "path"
            ? " -r -F"
            : value.kind === "words"
              ? ` -x -a ${quoted(value.words.join(" "))}`
              : " -x";
      return `${start} ${dashed.join(" ")}${then} -d ${quoted(description)}`;
    });
    return [...names, ...words, ...paths, ...flags];
  });
  return `# fish completion of mmcpstore: mmcpstore completion fish | source
function __mmcpstore_at
  set -l at mmcpstore
  set -l known ${levels
    .slice(1)
    .map(({ path }) => quoted(path))
    .join(" ")}
  for word in (commandline -opc)[2..-1]
    contains -- "$at $word" $known; and set at "$at $word"
  end
  test "$at" = "$argv[1]"
end
complete -c mmcpstore -f
${lines.join("\n")}
`;
}

const SCRIPTS: Record<(typeof SHELLS)[number], (levels: Level[]) => string> = { bash, zsh, fish };

export function addCompletion(program: Command): void {
  program
    .command("completion")
    .summary("print a completion script for bash, zsh or fish")
    .description("Print a script that completes commands, options, their words and files in a shell.")
    .argument("<shell>", SHELLS.join(", "), (text) => parseChoice("completion", text, SHELLS))
    .addHelpText(
      "after",
      `
bash: source <(mmcpstore completion bash), in ~/.bashrc; zsh the same; fish: mmcpstore completion fish | source.

Examples:
  mmcpstore completion bash > mmcpstore.bash
  mmcpstore completion fish > mmcpstore.fish`,
    )
    .action((shell: (typeof SHELLS)[number]) => write(SCRIPTS[shell](levelsOf(program))));
}
