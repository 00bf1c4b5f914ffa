// README.md is true: its example runs and prints what stands there, its commands do too, and the demo's output is the
// demo's (but for the wall time).
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runExample } from "./example.js";
import { ROOT } from "./machine.js";

const README = readFileSync(`${ROOT}README.md`, "utf8");
const MAIN = `${ROOT}dist/host/cli/main.js`;
const PLAIN = { env: { ...process.env, NO_COLOR: "1" }, encoding: "utf8" as const };

/** The fenced block that follows `before`, without its fence. */
function blockAfter(before: string, language = ""): string {
  const at = README.indexOf(before);
  assert.ok(at >= 0, `README.md has no "${before}"`);
  const open = README.indexOf(`\`\`\`${language}\n`, at);
  const start = open + 4 + language.length;
  return README.slice(start, README.indexOf("```", start));
}

function withoutWallTime(output: string): string {
  return output.replace(/, \d+ ms on this machine/, "");
}

test("npm start's output", () => {
  const shown = blockAfter("`npm start` builds the core");
  const printed = execFileSync(process.execPath, [MAIN, "demo"], PLAIN);
  assert.is(withoutWallTime(shown), withoutWallTime(printed));
});

test("the JavaScript example runs and prints what is shown", () => {
  const code = blockAfter("## From JavaScript", "js");
  const shown = blockAfter("\nprints\n");
  assert.is(runExample(code), shown);
});

test("the commands print what is shown", () => {
  const folder = mkdtempSync(join(tmpdir(), "mmcpstore-readme-"));
  try {
    for (const name of ["tests", "host"]) symlinkSync(`${ROOT}${name}`, join(folder, name));
    const lines = blockAfter("## On your own images").split("\n");
    let shown = "";
    let printed = "";
    let commands = 0;
    for (const line of lines) {
      const command = /^\$ npx mmcpstore (.*)$/.exec(line)?.[1];
      if (command === undefined) {
        if (line !== "") shown += `${line}\n`;
        continue;
      }
      printed += execFileSync(process.execPath, [MAIN, ...command.split(" ")], { ...PLAIN, cwd: folder });
      commands++;
    }
    assert.ok(commands >= 4);
    assert.is(shown, printed);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
