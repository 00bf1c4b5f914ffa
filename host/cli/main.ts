#!/usr/bin/env node
// mmcpstore, the command: arguments in, exit code out. 0 done; 1 failed, with one line on standard error;
// 2 wrong usage, likewise. Must never print a stack trace.
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { addCat } from "./cat.js";
import { addCore } from "./core.js";
import { addDemo } from "./demo.js";
import { addDevlink } from "./devlink.js";
import { addExtract } from "./extract.js";
import { addFormat } from "./format.js";
import { addHarvest } from "./harvest.js";
import { addInspect } from "./inspect.js";
import { addLs } from "./ls.js";
import { addMinidump } from "./minidump.js";
import { messageOf, UsageError, watchStandardOutput } from "./output.js";
import { addPanic } from "./panic.js";
import { addRm } from "./rm.js";
import { addSahara } from "./sahara.js";
import { addV86 } from "./v86.js";

function version(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return String((JSON.parse(text) as { version: unknown }).version);
}

function buildProgram(): Command {
  const program = new Command("mmcpstore")
    .description(
      "Crash logs in pstore areas of eMMC and SD cards: read them, write them, break the card meanwhile.",
    )
    .version(version(), "--version", "print the version")
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    .addHelpText(
      "after",
      `
Exit codes: 0 done, 1 failed (one line on standard error), 2 wrong usage.
Colours obey NO_COLOR and FORCE_COLOR.

Examples:
  mmcpstore demo
  mmcpstore ls disk.img
  mmcpstore panic disk.img --log panic.txt --in-flight write`,
    );
  for (const add of [
    addDemo,
    addLs,
    addCat,
    addExtract,
    addRm,
    addFormat,
    addPanic,
    addHarvest,
    addCore,
    addDevlink,
    addMinidump,
    addInspect,
    addSahara,
    addV86,
  ])
    add(program);
  return program;
}

/** Prints the one line and sets the exit code. */
function fail(exitCode: number, line: string): void {
  process.stderr.write(`mmcpstore: ${line}\n`);
  process.exitCode = exitCode;
}

/** ` (see mmcpstore ls --help)` */
function hint(program: Command): string {
  const word = process.argv[2];
  const command = program.commands.find((one) => one.name() === word);
  const inner = command?.commands.find((one) => one.name() === process.argv[3]);
  const words = [command, inner].flatMap((one) => (one === undefined ? [] : [`${one.name()} `]));
  return ` (see mmcpstore ${words.join("")}--help)`;
}

async function main(): Promise<void> {
  watchStandardOutput();
  const program = buildProgram();
  try {
    if (process.argv.length <= 2) throw new UsageError("no command given");
    await program.parseAsync(process.argv);
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return;
      const line = error.message
        .replace(/^error: /, "")
        .replace(/\s+/g, " ")
        .trim();
      fail(2, `${line}${hint(program)}`);
    } else if (error instanceof UsageError) {
      fail(2, `${messageOf(error)}${hint(program)}`);
    } else {
      fail(1, messageOf(error));
    }
  }
}

process.on("uncaughtException", (error) => {
  process.stderr.write(`mmcpstore: ${messageOf(error)}\n`);
  process.exit(1);
});
await main();
