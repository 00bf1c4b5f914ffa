// The command line's own manners, whatever the command: which modules are loaded, unknown words, help, `-`, values as they
// were given, completion and manual pages.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { levelsOf } from "../host/cli/completion.js";
import { buildProgram, pathOf } from "../host/cli/program.js";
import { decodeArea } from "../host/index.js";
import { Device } from "../host/node.js";
import { coreModule, ROOT } from "./machine.js";

const MAIN = `${ROOT}dist/host/cli/main.js`;
const FOLDER = mkdtempSync(join(tmpdir(), "mmcpstore-words-"));
const { version } = JSON.parse(readFileSync(`${ROOT}package.json`, "utf8")) as { version: string };

function command(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    cwd: FOLDER,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
    input: "",
  });
  return { code: status, out: stdout, err: stderr };
}

function withInner(one: Command): Command[] {
  return [one, ...one.commands.flatMap(withInner)];
}

const all = withInner(await buildProgram());
for (const [kind, file] of [
  ["area", "disk.img"],
  ["log", "panic.txt"],
] as const) {
  assert.is(command("sample", kind, file).code, 0);
}

// ---- what is loaded ----

/** The project's modules that a run of the command loads. */
function loadedBy(...args: string[]): string[] {
  const hook = join(FOLDER, "hook.mjs");
  const list = join(FOLDER, "loaded.txt");
  writeFileSync(list, "");
  writeFileSync(
    hook,
    `import { appendFileSync } from "node:fs";
export async function load(url, context, next) {
  appendFileSync(${JSON.stringify(list)}, url + "\\n");
  return next(url, context);
}
`,
  );
  const register = `data:text/javascript,import { register } from "node:module"; register(${JSON.stringify(`file://${hook}`)});`;
  execFileSync(process.execPath, ["--import", register, MAIN, ...args], { cwd: FOLDER, stdio: "ignore" });
  const lines = readFileSync(list, "utf8").split("\n");
  return lines
    .filter((line) => line.includes("/dist/host/"))
    .map((line) => line.replace(/^.*\/dist\/host\//, ""));
}

test("--version loads no command, a command loads no other", () => {
  const forVersion = loadedBy("--version");
  const forHelp = loadedBy("--help");
  const forLs = loadedBy("ls", "disk.img");
  console.log(
    `# modules: ${forVersion.length} for --version, ${forLs.length} for ls, ${forHelp.length} for --help`,
  );
  assert.ok(forVersion.length <= 8, forVersion.join());
  assert.ok(forHelp.length > 100);
  for (const name of ["panic", "v86", "sahara-collect", "minidump", "devlink", "completion"]) {
    assert.not.ok(forLs.includes(`cli/${name}.js`), name);
    assert.ok(forHelp.includes(`cli/${name}.js`), name);
  }
});

// ---- words ----

test("-V and --version", () => {
  for (const flag of ["-V", "--version"]) assert.is(command(flag).out, `${version}\n`);
});

test("an unknown command names itself and the nearest one, at every level", () => {
  for (const group of all.filter((one) => one.commands.length > 0)) {
    const inner = group.commands[0] as Command;
    // The first letter twice: one more than there is.
    const wrong = `${inner.name()[0]}${inner.name()}`;
    const words = pathOf(group).split(" ").slice(1);
    for (const args of [
      [...words, wrong],
      ["help", ...words, wrong],
      [...words, wrong, "--help"],
      [...words, wrong, "x", "--json"],
    ]) {
      const { code, out, err } = command(...args);
      assert.is(code, 2, args.join(" "));
      assert.is(out, "");
      const expected = `unknown command '${wrong}' (Did you mean ${inner.name()}?) (see ${pathOf(group)} --help)`;
      assert.is(err, `mmcpstore: ${expected}\n`);
    }
    if (words.length === 0) continue;
    const names = group.commands.map((one) => one.name());
    const list = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
    const expected = `mmcpstore: ${group.name()}: say ${list} (see ${pathOf(group)} --help)\n`;
    assert.is(command(...words).err, expected);
  }
});

test("help WORDS is WORDS --help, at every depth", () => {
  for (const one of all) {
    const words = pathOf(one).split(" ").slice(1);
    if (words.length === 2 || words.length === 0) {
      const { code, out } = command("help", ...words);
      assert.is(code, 0);
      assert.is(out, command(...words, "--help").out);
      assert.match(out, `Usage: ${pathOf(one)}`);
    }
  }
});

test("panic's options are in groups", () => {
  const { out } = command("panic", "--help");
  const headings = [...out.matchAll(/^(\S[^\n]*):\n {2}-/gm)].map(([, heading]) => heading);
  assert.ok(headings.length >= 6, headings.join());
  for (const heading of ["The record", "Card and bus", "Crash dump"])
    assert.ok(headings.includes(heading), heading);
  const { options } = all.find((one) => one.name() === "panic") as Command;
  for (const { long } of options) assert.ok(out.includes(`${long}`), `${long}`);
});

// ---- "-" ----

const FILE_WORDS = /^(image|dir|file|region|container|from|bzImage)$/;

test("- is standard input or refused, in every command that takes a file", () => {
  let refused = 0;
  for (const one of all.filter(({ commands }) => commands.length === 0)) {
    const words = pathOf(one).split(" ").slice(1);
    // What each needs to get as far as its files; a dash in the place of one of them.
    const needs = one.options
      .filter(({ mandatory }) => mandatory)
      .flatMap(({ long }) => [long as string, "panic.txt"]);
    const values: string[] = one.registeredArguments
      .filter(({ required }) => required)
      .map((argument) => (argument.parseArg ? "bash" : "disk.img"));
    const isChoice = one.name() === "sample";
    if (isChoice) values[0] = "area";
    const cases: string[][] = [];
    for (const [index, argument] of one.registeredArguments.entries()) {
      if (!FILE_WORDS.test(argument.name())) continue;
      const given = [...values];
      while (given.length < index) given.push("x");
      given[index] = "-";
      cases.push([...needs, ...given]);
    }
    for (const option of one.options) {
      const word = /[<[]([^>\].]+)/.exec(option.flags)?.[1] ?? "";
      if (FILE_WORDS.test(word)) cases.push([...needs, ...values, option.long as string, "-"]);
    }
    for (const args of cases) {
      if (one.name() === "panic" && /--(log|console|pmsg) -$/.test(args.join(" "))) continue;
      const { code, out, err } = command(...words, ...args);
      const what = [...words, ...args].join(" ");
      assert.is(code, 2, `${what}: ${err}`);
      assert.is(out, "", what);
      assert.match(err, /^mmcpstore: \S+ -: standard input cannot be read here[^\n]*\n$/, what);
      refused++;
    }
  }
  console.log(`# ${refused} places for a file refuse -`);
  assert.ok(refused >= 30);
  assert.not.ok(readdirSync(FOLDER).includes("-"));
  assert.match(
    command("panic", "disk.img", "--log", "-", "--pmsg", "-").err,
    /--log and --pmsg -: .* one of them only/,
  );
});

// ---- values as they were given ----

test("sizes are echoed as they were given", () => {
  for (const [args, shown] of [
    [["ls", "disk.img", "--offset", "1T"], "--offset 1T: beyond the end of disk.img (4194304 bytes)"],
    [["ls", "disk.img", "--kmsg-size", "1G"], "--kmsg-size 1G: is larger than the area (4194304 bytes)"],
    [["ls", "disk.img", "--offset", "1048576T"], "--offset 1048576T: is no size; write 65536, 64K or 1M"],
  ] as const) {
    assert.ok(command(...args).err.startsWith(`mmcpstore: ${shown}`), command(...args).err);
  }
  const dump = ["--dump-area", "1T:64M", "--dump-region", "ram=panic.txt@0"];
  const { err } = command("panic", "disk.img", "--log", "panic.txt", ...dump);
  assert.match(err, "mmcpstore: --dump-area 1T:64M: reaches beyond the end of disk.img");
});

test("reasons are taken in any case, by the command and by the library, and shown in one", () => {
  const area = { offset: 0, kmsgSize: 65536, kmsgCount: 8, abi: "lp64" } as const;
  const device = Device.open(coreModule("release"), { sizeBytes: 1 << 20, area });
  device.panicWrite({ text: "a\n", reason: "oops" });
  device.panicWrite({ text: "b\n", reason: "Panic" });
  const reasons = decodeArea(device.medium().subarray(0, 8 * 65536)).records.map(({ reason }) => reason);
  assert.equal(reasons, ["Oops", "Panic"]);
  assert.throws(
    () => device.panicWrite({ text: "c\n", reason: "ops" as "oops" }),
    /reason: ops is not one of Panic, Oops/,
  );
  for (const reason of ["oops", "OOPS", "Oops"]) {
    const { out } = command("panic", "disk.img", "--log", "panic.txt", "--reason", reason, "--json");
    assert.is((JSON.parse(out) as { record: { reason: string } }).record.reason, "Oops");
  }
  assert.match(
    command("panic", "disk.img", "--log", "panic.txt", "--reason", "ops").err,
    /Panic, Oops, Emergency/,
  );
});

test("panic --json prints its JSON when the panic fails, too", () => {
  const args = ["panic", "disk.img", "--log", "panic.txt", "--json"];
  const good = command(...args);
  const bad = command(...args, "--deadline", "1", "--trace");
  assert.is(good.code, 0);
  assert.is(bad.code, 1);
  const json = JSON.parse(bad.out) as Record<string, unknown> & { error: { code: string; message: string } };
  assert.is(bad.err, `mmcpstore: ${json.error.message}\n`);
  assert.is(json.error.code, "EIO");
  assert.is(json.record, null);
  for (const key of Object.keys(JSON.parse(good.out) as object)) assert.ok(key in json, key);
  assert.ok((json.result as { status: number }).status < 0);
});

// ---- completion and manual pages ----

test("completion in bash: every command, option, and the words of options", () => {
  const script = join(FOLDER, "mmcpstore.bash");
  writeFileSync(script, command("completion", "bash").out);
  /** What <Tab> offers behind `words`, of which the last is begun; one process for all. */
  const complete = (lines: string[][]): string[][] => {
    const calls = lines.map(
      (words) =>
        `COMP_WORDS=(mmcpstore ${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length}; _mmcpstore; echo "\${COMPREPLY[*]}"`,
    );
    const said = execFileSync("bash", ["-c", `source ${script}\n${calls.join("\n")}`], {
      cwd: FOLDER,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return said
      .trimEnd()
      .split("\n")
      .map((line) => line.split(" ").filter((word) => word !== ""));
  };
  const levels = levelsOf(all[0] as Command);
  const offered = complete(levels.map(({ path }) => [...path.split(" ").slice(1), ""]));
  for (const [index, level] of levels.entries()) {
    const expected = [
      ...level.commands.map(({ name }) => name),
      ...level.flags.flatMap(({ names }) => names),
    ];
    for (const word of expected) assert.ok(offered[index]?.includes(word), `${level.path}: ${word}`);
    assert.is(offered[index]?.includes("disk.img"), level.takesPaths, level.path);
  }
  assert.equal(
    complete([
      ["panic", "--card", "s"],
      ["core", "ver"],
      ["panic", "disk.img", "--log", "pan"],
      ["sample", "mini"],
      ["panic", "--reason", "Sh"],
    ]),
    [["sd", "sdsc", "sdxc"], ["verify"], ["panic.txt"], ["minidump"], ["Shutdown"]],
  );
});

test("completion for zsh and fish names the same", () => {
  for (const shell of ["zsh", "fish"]) {
    const { out } = command("completion", shell);
    for (const { path, flags } of levelsOf(all[0] as Command)) {
      assert.ok(out.includes(path), `${shell}: ${path}`);
      for (const { names } of flags) {
        for (const name of names)
          assert.ok(out.includes(shell === "fish" ? name.replace(/^-+/, "") : name), name);
      }
    }
  }
  assert.match(command("completion", "tcsh").err, "completion tcsh: is not one of bash, zsh, fish");
});

test("a manual page for every command, with every option and example", () => {
  const pages = readdirSync(`${ROOT}dist/man`).sort();
  assert.equal(pages, all.map((one) => `${pathOf(one).replaceAll(" ", "-")}.1`).sort());
  for (const one of all) {
    const page = readFileSync(`${ROOT}dist/man/${pathOf(one).replaceAll(" ", "-")}.1`, "utf8");
    const plain = page.replaceAll("\\-", "-");
    for (const { long } of one.options) assert.ok(plain.includes(`${long}`), `${pathOf(one)} ${long}`);
    for (const section of ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS"])
      assert.ok(page.includes(`.SH ${section}\n`), `${pathOf(one)}: ${section}`);
    assert.match(plain, new RegExp(`\\.SH EXAMPLES\\n\\.nf\\n(.+\\n)*.*${pathOf(one)}`));
  }
});

// ---- sample ----

test("sample makes every kind, the same each time, and replaces nothing", () => {
  const { out } = command("sample", "--help");
  const kinds = [...out.matchAll(/^ {2}(\w+) +(\S+\.\w+) {2,}\S/gm)].map(([, kind = "", file = ""]) => [
    kind,
    file,
  ]);
  assert.ok(kinds.length >= 7);
  const folder = mkdtempSync(join(FOLDER, "samples-"));
  for (const [kind = "", file = ""] of kinds) {
    const path = join(folder, `${kind}-${file}`);
    assert.is(command("sample", kind, path).code, 0, kind);
    const bytes = readFileSync(path);
    const again = command("sample", kind, path);
    assert.is(again.code, 1);
    assert.is(again.err, `mmcpstore: ${path}: exists already\n`);
    assert.is(command("sample", kind, `${path}.2`).code, 0);
    assert.ok(bytes.equals(readFileSync(`${path}.2`)), kind);
  }
  assert.match(command("sample", "foo").err, /is not one of log, area/);
  rmSync(folder, { recursive: true });
});

test.after(() => rmSync(FOLDER, { recursive: true }));
test.run();
