#!/usr/bin/env node
// mmcpstore, the command: arguments in, exit code out. 0 done; 1 failed, with one line on standard error;
// 2 wrong usage, likewise. Must never print a stack trace.
import { type Command, CommanderError } from "commander";
import { asGiven, messageOf, UsageError, watchStandardOutput } from "./output.js";
import { pathOf, understand } from "./program.js";

/** Prints the one line and sets the exit code. */
function fail(exitCode: number, line: string): void {
  process.stderr.write(`mmcpstore: ${line}\n`);
  process.exitCode = exitCode;
}

/** `core: say ls, extract, verify or rm` */
function sayWhich(command: Command): string {
  const names = command.commands.map((one) => one.name());
  return `${command.name()}: say ${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}

async function main(): Promise<void> {
  watchStandardOutput();
  const argv = process.argv.slice(2);
  const { program, command, words } = await understand(argv);
  const hint = ` (see ${pathOf(command)} --help)`;
  try {
    if (argv.length === 0) throw new UsageError("no command given");
    await program.parseAsync(words, { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return;
      const line = error.message
        .replace(/^error: /, "")
        .replace(/\s+/g, " ")
        .trim();
      // What commander does with a command that has commands, and is given none.
      fail(2, `${error.code === "commander.help" ? sayWhich(command) : line}${hint}`);
    } else if (error instanceof UsageError) {
      fail(2, `${messageOf(error)}${hint}`);
    } else {
      fail(1, asGiven(messageOf(error)));
    }
  }
}

process.on("uncaughtException", (error) => {
  process.stderr.write(`mmcpstore: ${asGiven(messageOf(error))}\n`);
  process.exit(1);
});
await main();
