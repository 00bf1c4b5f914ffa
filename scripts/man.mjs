// Writes a manual page for every command into dist/man/, of what the commands say of themselves (dist/host/cli/program.js,
// commander's own help): mmcpstore.1, mmcpstore-core.1, mmcpstore-core-ls.1 … The same input makes the same pages: no date.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "dist", "man");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { buildProgram, pathOf } = await import("../dist/host/cli/program.js");

/** Text that troff takes as it is. */
function escaped(text) {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^([.'])/gm, "\\&$1");
}

/** Lines as they stand; empty ones at both ends are left out. */
function asItStands(text) {
  return `.nf\n${escaped(text.replace(/^\n+|\n+$/g, ""))}\n.fi\n`;
}

function item(term, description) {
  return `.TP\n\\fB${escaped(term)}\\fR\n${escaped(description) || "\\&"}\n`;
}

/** What addHelpText("after", …) of a command says, and the lines behind `Examples:`. */
function textOf(command) {
  let help = "";
  command.configureOutput({
    writeOut: (text) => {
      help += text;
    },
  });
  command.outputHelp();
  const after = help.slice(command.helpInformation().length);
  const [text, examples = ""] = after.split(/^Examples:\n/m);
  return { text, examples };
}

/** Options under the headings that help has for them. */
function optionSections(command, help) {
  const groups = new Map();
  for (const option of help.visibleOptions(command)) {
    const heading = option.helpGroupHeading ?? "Options:";
    groups.set(heading, [...(groups.get(heading) ?? []), option]);
  }
  let page = "";
  for (const [heading, options] of groups) {
    page += `.SH ${escaped(heading.replace(/:$/, "").toUpperCase())}\n`;
    for (const option of options) page += item(help.optionTerm(option), help.optionDescription(option));
  }
  return page;
}

function pageOf(command) {
  const help = command.createHelp();
  const name = pathOf(command).replaceAll(" ", "-");
  const { text, examples } = textOf(command);
  let page = `.TH ${escaped(name.toUpperCase())} 1 "" "mmcpstore ${version}" "User Commands"\n`;
  page += `.SH NAME\n${escaped(name)} \\- ${escaped(command.summary() || command.description())}\n`;
  page += `.SH SYNOPSIS\n\\fB${escaped(help.commandUsage(command))}\\fR\n`;
  page += `.SH DESCRIPTION\n${escaped(command.description())}\n`;
  for (const argument of help.visibleArguments(command))
    page += item(help.argumentTerm(argument), help.argumentDescription(argument));
  if (text.trim() !== "") page += `.PP\n${asItStands(text)}`;
  page += optionSections(command, help);
  const inner = help.visibleCommands(command).filter((one) => one.name() !== "help");
  if (inner.length > 0) {
    page += ".SH COMMANDS\n";
    for (const one of inner) page += item(one.name(), one.summary() || one.description());
  }
  page += `.SH EXAMPLES\n${asItStands(examples.replace(/^ {2}/gm, ""))}`;
  page += ".SH EXIT STATUS\n0 done, 1 failed with one line on standard error, 2 wrong usage.\n";
  const others = [...(command.parent ? [command.parent] : []), ...command.commands];
  if (others.length > 0) {
    const names = others.map((one) => `\\fB${escaped(pathOf(one).replaceAll(" ", "-"))}\\fR(1)`);
    page += `.SH SEE ALSO\n${names.join(", ")}\n`;
  }
  return { name, page };
}

function withInner(command) {
  return [command, ...command.commands.flatMap(withInner)];
}

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
for (const command of withInner(await buildProgram())) {
  const { name, page } = pageOf(command);
  writeFileSync(join(folder, `${name}.1`), page);
}
