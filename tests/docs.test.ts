// Every code block of README and docs, run by a user who has nothing but the tarball: installed in a folder elsewhere, a
// new folder for each page, the page's blocks one behind the other. Output that is shown is compared. What cannot be run
// says why in the page (`<!-- not run: … -->`) and is counted here.
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { blocksOf, commandsOf, type DocBlock, isAsShown, readDocs } from "./doc-blocks.js";
import { makeElsewhere, pack, unpackInto } from "./tarball.js";

/** Blocks that are not run. A new one wants a reason that holds in CI; an old one that is gone makes this smaller. */
const NOT_RUN = 3;
const BLOCK_TIMEOUT_MS = 120_000;
const FOLDER = makeElsewhere();
unpackInto(FOLDER, pack(FOLDER).path, ["v86"]);
const ENV = {
  ...process.env,
  PATH: `${join(FOLDER, "node_modules", ".bin")}:${process.env.PATH}`,
  NO_COLOR: "1",
  npm_config_offline: "true",
  npm_config_update_notifier: "false",
};

/** Both outputs, in their order, of a program that must exit 0. */
function run(what: string, program: string, args: string[], cwd: string): string {
  // One pipe for both, so that the order is that of a terminal.
  const { status, stdout, error } = spawnSync("bash", ["-c", 'exec "$0" "$@" 2>&1', program, ...args], {
    cwd,
    encoding: "utf8",
    env: ENV,
    timeout: BLOCK_TIMEOUT_MS,
  });
  assert.is(error, undefined, what);
  assert.is(status, 0, `${what}: exit code ${status}\n${stdout}`);
  return stdout;
}

/** What a block prints; the shown output of an `sh` block is compared here. */
function runBlock(where: string, block: DocBlock, cwd: string): string {
  if (block.language === "js") {
    const file = join(cwd, `block-${block.line}.mjs`);
    writeFileSync(file, block.text);
    return run(where, process.execPath, [file], cwd);
  }
  let all = "";
  for (const { line, shown } of commandsOf(block)) {
    const printed = run(`${where}: ${line}`, "bash", ["-e", "-o", "pipefail", "-c", line], cwd);
    if (shown !== null && !isAsShown(shown, printed)) {
      throw new Error(`${where}: ${line}\nshown:\n${shown}\nprinted:\n${printed}`);
    }
    all += printed;
  }
  return all;
}

const counts = { run: 0, compared: 0, figures: 0, notRun: 0 };

for (const { path, blocks } of readDocs()) {
  if (blocks.length === 0) continue;
  test(`the blocks of ${path}`, () => {
    const cwd = join(FOLDER, basename(path, ".md").toLowerCase());
    mkdirSync(cwd);
    let printed: string | null = null;
    for (const block of blocks) {
      const where = `${path}:${block.line}`;
      if (block.language === "text") {
        counts.figures++;
        assert.not.match(block.text, /^\s*(\$ |npx |mmcpstore |import )/m, `${where}: is no figure`);
      } else if (block.language === "output") {
        assert.type(printed, "string", `${where}: nothing before it was run`);
        const text = printed ?? "";
        assert.ok(isAsShown(block.text, text), `${where}: shown:\n${block.text}\nprinted:\n${text}`);
        counts.compared++;
        printed = null;
      } else if (block.notRun !== null) {
        counts.notRun++;
        printed = null;
      } else {
        printed = runBlock(where, block, cwd);
        counts.run++;
      }
    }
  });
}

test("what is not run is counted", () => {
  const { run: ran, compared, figures, notRun } = counts;
  console.log(`# ${ran} blocks run, ${compared} outputs compared, ${figures} figures, ${notRun} not run`);
  assert.is(notRun, NOT_RUN);
  assert.ok(ran >= 15);
});

/** What a failed assertion says; uvu's throws() passes those on. */
function complaintOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return String((error as { message?: unknown }).message);
  }
  return "nothing";
}

test("the runner sees what is wrong", () => {
  assert.throws(() => blocksOf("x.md", "```ts\nlet a;\n```"), /is not one of sh, js/);
  assert.throws(() => blocksOf("x.md", "```\na\n```"), /is not one of/);
  assert.throws(() => blocksOf("x.md", "```sh\na"), /does not end/);
  assert.ok(isAsShown("a\n…\nc\n", "a\nb\nb\nc\n"));
  assert.ok(isAsShown("a\n…\n", "a\nb\n"));
  assert.not.ok(isAsShown("a\n…\nc\n", "a\nb\n"));
  assert.not.ok(isAsShown("a (1)\n", "a (2)\n"));
  const [wrong] = blocksOf("x.md", "```sh\n$ echo a\nb\n```");
  assert.ok(wrong);
  assert.match(
    complaintOf(() => runBlock("x.md:1", wrong, FOLDER)),
    /printed:\na/,
  );
  const [failing] = blocksOf("x.md", "```sh\nfalse\ntrue\n```");
  assert.ok(failing);
  assert.match(
    complaintOf(() => runBlock("x.md:1", failing, FOLDER)),
    /exit code 1/,
  );
});

test.after(() => rmSync(FOLDER, { recursive: true }));
test.run();
