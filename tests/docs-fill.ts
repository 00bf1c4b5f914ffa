// `npm run docs:fill [README.md …]`: runs the blocks of the pages as docs.test.ts does, and puts what they print now in the
// place of what is shown and is not so any more: for numbers that a change of the core has moved. To be read before it is
// committed: a page that shows an error has it put there, too.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { blocksOf, commandsOf, type DocBlock, isAsShown, readDocs } from "./doc-blocks.js";
import { ROOT } from "./machine.js";
import { makeElsewhere, pack, unpackInto } from "./tarball.js";

const FOLDER = makeElsewhere();
unpackInto(FOLDER, pack(FOLDER).path, ["v86"]);
const PATH = `${join(FOLDER, "node_modules", ".bin")}:${process.env.PATH}`;

function run(program: string, args: string[], cwd: string): string {
  const { status, stdout } = spawnSync("bash", ["-c", 'exec "$0" "$@" 2>&1', program, ...args], {
    cwd,
    encoding: "utf8",
    env: { ...process.env, PATH, NO_COLOR: "1", npm_config_offline: "true" },
  });
  if (status !== 0) console.log(`exit code ${status}: ${args.at(-1)}\n${stdout}`);
  return stdout;
}

/** What the block shows if it is true; `printed` is that of the block before it. */
function filled(block: DocBlock, printed: string, cwd: string): { text: string; printed: string } {
  if (block.language === "text" || block.notRun !== null) return { text: block.text, printed };
  if (block.language === "output") {
    return { text: isAsShown(block.text, printed) ? block.text : printed.trimEnd(), printed: "" };
  }
  if (block.language === "js") {
    writeFileSync(join(cwd, `block-${block.line}.mjs`), block.text);
    return { text: block.text, printed: run(process.execPath, [`block-${block.line}.mjs`], cwd) };
  }
  let all = "";
  const lines: string[] = [];
  for (const { line, shown } of commandsOf(block)) {
    const said = run("bash", ["-e", "-o", "pipefail", "-c", line], cwd);
    all += said;
    lines.push(shown === null ? line : `$ ${line}`);
    const after = shown === null ? "" : (isAsShown(shown, said) ? shown : said).trimEnd();
    if (after !== "") lines.push(after);
  }
  return { text: lines.join("\n"), printed: all };
}

const wanted = process.argv.slice(2);
for (const { path } of readDocs().filter((doc) => wanted.length === 0 || wanted.includes(doc.path))) {
  const cwd = join(FOLDER, basename(path, ".md").toLowerCase());
  mkdirSync(cwd);
  const page = readFileSync(ROOT + path, "utf8");
  const lines = page.split("\n");
  const out: string[] = [];
  let next = 0;
  let printed = "";
  for (const block of blocksOf(path, page)) {
    const result = filled(block, printed, cwd);
    printed = result.printed;
    out.push(...lines.slice(next, block.line), result.text);
    next = block.line + block.text.split("\n").length;
  }
  const text = [...out, ...lines.slice(next)].join("\n");
  if (text !== page) {
    writeFileSync(ROOT + path, text);
    console.log(`${path}: changed`);
  }
}
rmSync(FOLDER, { recursive: true });
