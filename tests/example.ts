// An example of the documentation, run as a user would run it.
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { ROOT } from "./machine.js";

let count = 0;

/** What `code`, a module that imports the package by its name, prints. `cwd`: where it runs; it must exit 0. */
export function runExample(code: string, cwd?: string): string {
  // Inside the package, so that its own name resolves.
  const file = `${ROOT}dist/example-${process.pid}-${count++}.mjs`;
  writeFileSync(file, code);
  try {
    return execFileSync(process.execPath, [file], {
      cwd,
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "1" },
    });
  } finally {
    rmSync(file);
  }
}
