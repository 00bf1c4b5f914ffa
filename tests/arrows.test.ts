// The arrows that never exist (docs/DESIGN.md): who may import whom in assembly/ and host/, which words
// stand in one file only, and what keeps the tree tidy. Each rule is first tried on files made up to
// break it.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ROOT } from "./machine.js";

/** Path from the root of the project, with slashes → text. */
type Files = ReadonlyMap<string, string>;

function filesBelow(...folders: string[]): Files {
  const found = new Map<string, string>();
  for (const folder of folders.filter((name) => existsSync(ROOT + name))) {
    for (const entry of readdirSync(ROOT + folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith(".ts")) continue;
      const path = `${entry.parentPath}/${entry.name}`.slice(ROOT.length);
      found.set(path, readFileSync(ROOT + path, "utf8"));
    }
  }
  return found;
}

/**
 * Comments as spaces; strings and templates stay, so that what is quoted in a comment's manner is left
 * alone.
 */
function withoutComments(text: string): string {
  const token = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return text.replace(token, (found) => (/^\/[/*]/.test(found) ? found.replace(/[^\n]/g, " ") : found));
}

/** Every module that a file names: import, export … from, import("…"), require("…"). Types count as well. */
function importsOf(text: string): string[] {
  const named = /\b(?:from|import|require)\s*\(?\s*["']([^"'\n]+)["']/g;
  return [...withoutComments(text).matchAll(named)].map(([, specifier = ""]) => specifier);
}

/**
 * A relative specifier as a path from the root; anything else stays as it is. Unknown targets keep their
 * name.
 */
function resolve(files: Files, from: string, specifier: string): string {
  if (!specifier.startsWith(".")) return specifier;
  const path = posix.join(posix.dirname(from), specifier);
  const stem = path.replace(/\.js$/, "");
  const candidates = [`${stem}.ts`, `${path}.ts`, `${path}/index.ts`];
  return candidates.find((candidate) => files.has(candidate)) ?? `${stem}.ts`;
}

/** File → what it imports, resolved. */
function graphOf(files: Files): Map<string, string[]> {
  const graph = new Map<string, string[]>();
  for (const [path, text] of files) {
    graph.set(
      path,
      importsOf(text).map((specifier) => resolve(files, path, specifier)),
    );
  }
  return graph;
}

// ---- arrows ----

interface Arrow {
  what: string;
  from: RegExp;
  never: RegExp;
  /** Imports that `never` matches and that are allowed, as "file → file". */
  except?: RegExp;
  /** One file that breaks it, and one that does not. */
  bad: [string, string];
  good: [string, string];
}

const ARROWS: Arrow[] = [
  {
    what: "the core knows nothing of its host, nor of a package",
    from: /^assembly\//,
    never: /^(?!assembly\/)/,
    bad: ["assembly/card/card.ts", `import { codeOf } from "../../host/core/status";`],
    good: ["assembly/card/card.ts", `import { nowNs } from "../clock";`],
  },
  {
    what: "host/pstore shares nothing with the core: an oracle that does cannot disagree",
    from: /^host\/pstore\//,
    never: /^(assembly|host\/core)\//,
    bad: ["host/pstore/format.ts", `import { SECTOR_BYTES } from "../../assembly/layout.js";`],
    good: ["host/pstore/format.ts", `import { crc32c } from "./crc32c.js";`],
  },
  {
    what: "host/pstore reaches no file that knows the core",
    from: /^host\/pstore\//,
    never: /^host\/(?!pstore\/|(errors|judge|own-bytes)\.ts$)/,
    bad: ["host/pstore/decode.ts", `import type { Device } from "../device.js";`],
    good: ["host/pstore/decode.ts", `import { MmcError } from "../errors.js";`],
  },
  {
    what: "the host reads the memory map of the core, and nothing else of its source",
    from: /^host\//,
    never: /^assembly\/(?!layout\.ts$)/,
    bad: ["host/core/result.ts", `import { EIO } from "../../assembly/errno.js";`],
    good: ["host/core/result.ts", `import { RESULT_STATUS } from "../../assembly/layout.js";`],
  },
  {
    what: "the library does not know its command line",
    from: /^host\/(?!cli\/)/,
    never: /^host\/cli\//,
    bad: ["host/node.ts", `import { formatTime } from "./cli/time.js";`],
    good: ["host/node.ts", `import { Device } from "./device.js";`],
  },
  {
    what: "the card knows nothing of what is before it",
    from: /^assembly\/card\//,
    never: /^assembly\/(sdhci|driver|pstore)\//,
    bad: ["assembly/card/busy.ts", `import { run } from "../sdhci/engine";`],
    good: ["assembly/card/busy.ts", `import { card } from "./state";`],
  },
  {
    what: "the controller knows the card, not the driver",
    from: /^assembly\/sdhci\//,
    never: /^assembly\/(driver|pstore)\//,
    bad: ["assembly/sdhci/engine.ts", `import { shadow } from "../driver/shadow";`],
    good: ["assembly/sdhci/engine.ts", `import { hears } from "../card/card";`],
  },
  {
    what: "the controller sees the card through card.ts alone",
    from: /^assembly\/sdhci\//,
    never: /^assembly\/card\/(?!card\.ts$)/,
    bad: ["assembly/sdhci/engine.ts", `import { card } from "../card/state";`],
    good: ["assembly/sdhci/engine.ts", `import { dat0 } from "../card/card";`],
  },
  {
    what: "the SPI port sees the card through card.ts alone, and no controller",
    from: /^assembly\/spi\//,
    never: /^assembly\/(card\/(?!card\.ts$)|sdhci|driver|pstore)/,
    bad: ["assembly/spi/port.ts", `import { spiListens } from "../card/sd-spi";`],
    good: ["assembly/spi/port.ts", `import { spiListens } from "../card/card";`],
  },
  {
    what: "the driver never touches the card, nor what the bytes mean",
    from: /^assembly\/driver\//,
    never: /^assembly\/(card|pstore)\//,
    bad: ["assembly/driver/takeover.ts", `import { cardState } from "../card/card";`],
    good: ["assembly/driver/takeover.ts", `import { identify } from "./enumerate";`],
  },
  {
    what: "the driver reaches the controller through port.ts",
    from: /^assembly\/driver\//,
    never: /^assembly\/sdhci\//,
    // registers.ts of the controller is the specification's table of register names: constants that every
    // driver has, no state. The rule below sees to it that it stays so.
    except: /^assembly\/driver\/(port\.ts → assembly\/sdhci\/mmio\.ts|\S+ → assembly\/sdhci\/registers\.ts)$/,
    bad: ["assembly/driver/command.ts", `import { mmioRead32 } from "../sdhci/mmio";`],
    good: ["assembly/driver/command.ts", `import { SDHCI_COMMAND } from "../sdhci/registers";`],
  },
  {
    what: "the register names import nothing",
    from: /^assembly\/sdhci\/registers\.ts$/,
    never: /^/,
    bad: ["assembly/sdhci/registers.ts", `import { engine } from "./state";`],
    good: ["assembly/sdhci/registers.ts", "export const SDHCI_COMMAND: u32 = 14;"],
  },
  {
    what: "records know nothing of drivers, controllers and cards",
    from: /^assembly\/pstore\//,
    never: /^assembly\/(driver|card|sdhci)\//,
    bad: ["assembly/pstore/zone.ts", `import { shadow } from "../driver/shadow";`],
    good: ["assembly/pstore/zone.ts", `import { sealStands } from "./seal";`],
  },
  {
    what: "a dump knows nothing of drivers, controllers, cards and records",
    from: /^assembly\/dump\//,
    never: /^assembly\/(driver|card|sdhci|pstore|spi|bus)\//,
    bad: ["assembly/dump/plan.ts", `import { blockWrite } from "../driver/block";`],
    good: ["assembly/dump/plan.ts", `import { dump } from "./state";`],
  },
  {
    what: "the readers of cores and of dump areas share nothing with their maker: it is what they are held against",
    from: /^host\/dump\/(elf|dump-area)\.ts$/,
    never: /^(?!host\/errors\.ts$|host\/pstore\/crc32c\.ts$|host\/own-bytes\.ts$)/,
    bad: ["host/dump/elf.ts", `import { DUMP_SEGMENTS } from "../../assembly/layout.js";`],
    good: ["host/dump/elf.ts", `import { MmcError } from "../errors.js";`],
  },
  {
    what: "only panic*.ts, scan.ts and rings.ts join the rooms; machine.ts and index.ts stand around them",
    from: /^assembly\/(?!panic(-dump|-record)?\.ts$|scan\.ts$|rings\.ts$|machine\.ts$|index\.ts$)[^/]+\.ts$/,
    never: /^assembly\/[^/]+\//,
    bad: ["assembly/trace.ts", `import { shadow } from "./driver/shadow";`],
    good: ["assembly/trace.ts", `import { nowNs } from "./clock";`],
  },
  {
    what: "nothing of the core imports what stands around it",
    from: /^assembly\/(?!index\.ts$)/,
    never: /^assembly\/(panic|machine|index)\.ts$/,
    bad: ["assembly/driver/block.ts", `import { panicWrite } from "../panic";`],
    good: ["assembly/driver/block.ts", `import { claim } from "../owner";`],
  },
];

function brokenArrows(files: Files, { from, never, except }: Arrow): string[] {
  const broken: string[] = [];
  for (const [path, imports] of graphOf(files)) {
    if (!from.test(path)) continue;
    for (const target of imports) {
      const arrow = `${path} → ${target}`;
      if (never.test(target) && !except?.test(arrow)) broken.push(arrow);
    }
  }
  return broken;
}

const sources = filesBelow("assembly", "host");

for (const arrow of ARROWS) {
  test(`arrow: ${arrow.what}`, () => {
    assert.is(brokenArrows(new Map([arrow.bad]), arrow).length, 1, "a file that breaks it");
    assert.equal(brokenArrows(new Map([arrow.good]), arrow), [], "a file that keeps it");
    assert.equal(brokenArrows(sources, arrow), []);
  });
}

test("imports of every form are found", () => {
  const text = [
    `import a from "./a";`,
    `import type { B } from './b.js';`,
    "import {",
    "  c,",
    `} from "./c";`,
    `export * from "./d";`,
    `import "./e";`,
    `const f = await import("./f");`,
    `const g = require("g");`,
    `// import h from "./h";`,
    `/* export * from "./i"; */`,
    `const j = "https://x"; import { k } from "./k";`,
  ].join("\n");
  assert.equal(importsOf(text), ["./a", "./b.js", "./c", "./d", "./e", "./f", "g", "./k"]);
});

test("every relative import of the sources is a file", () => {
  const missing = [...graphOf(sources)].flatMap(([path, targets]) =>
    targets
      .filter((target) => /^(assembly|host)\//.test(target) && !sources.has(target))
      .map((target) => `${path} → ${target}`),
  );
  assert.equal(missing, []);
  assert.ok(sources.size > 70, `${sources.size} files`);
});

// ---- cycles ----

/**
 * One cycle of imports as a line, or null. Imports of types count: a room that needs the other's types is
 * one room.
 */
function cycleIn(files: Files): string | null {
  const graph = graphOf(files);
  const done = new Set<string>();
  const visit = (path: string, above: string[]): string | null => {
    if (above.includes(path)) return [...above.slice(above.indexOf(path)), path].join(" → ");
    if (done.has(path)) return null;
    for (const target of graph.get(path) ?? []) {
      const cycle = visit(target, [...above, path]);
      if (cycle !== null) return cycle;
    }
    done.add(path);
    return null;
  };
  for (const path of graph.keys()) {
    const cycle = visit(path, []);
    if (cycle !== null) return cycle;
  }
  return null;
}

test("no cycle of imports", () => {
  const made = new Map([
    ["assembly/a.ts", `import { b } from "./b";`],
    ["assembly/b.ts", `import { c } from "./card/c";`],
    ["assembly/card/c.ts", `export { a } from "../a";`],
  ]);
  assert.is(cycleIn(made), "assembly/a.ts → assembly/b.ts → assembly/card/c.ts → assembly/a.ts");
  assert.is(cycleIn(new Map([...made].slice(0, 2))), null);
  assert.is(cycleIn(sources), null);
});

// ---- words of one file ----

interface Word {
  what: string;
  word: RegExp;
  /** Where it is looked for, and where it may stand, as "path: word". */
  within: RegExp;
  allowed: RegExp;
  bad: [string, string];
  good: [string, string];
}

/** Clocks, chance and timers: what would make a run differ from the one before. */
const CHANCE = new RegExp(
  [
    /\bDate\.now\b|\bnew Date\(\s*\)|\bMath\.random\b/,
    /\bset(?:Timeout|Interval|Immediate)\b|\bAbortSignal\.timeout\b/,
    /\bperformance\.now\b|\bhrtime\b|\bcrypto\.(?:random\w+|getRandomValues)\b/,
  ]
    .map(({ source }) => source)
    .join("|"),
);

const WORDS: Word[] = [
  {
    what: "atomics stand in owner.ts only",
    word: /\batomic\./,
    within: /^assembly\//,
    allowed: /^assembly\/owner\.ts:/,
    bad: ["assembly/panic.ts", "atomic.store<u32>(OWNER_WORD, 0);"],
    good: ["assembly/panic.ts", "// atomic.store would do\nrelease(token);"],
  },
  {
    what: "unreachable stands in check.ts only",
    word: /\bunreachable\b/,
    within: /^assembly\//,
    allowed: /^assembly\/check\.ts:/,
    bad: ["assembly/panic.ts", "unreachable();"],
    good: ["assembly/check.ts", "unreachable();"],
  },
  {
    what: "nothing that waits, grows or allocates",
    word: /\b(?:atomic\.(?:wait|notify|fence)|memory\.(?:grow|data)|heap\.|throw\b|new [A-Z])/,
    within: /^assembly\/(?!rt-none\/)/,
    allowed: /^$/,
    bad: ["assembly/owner.ts", "atomic.wait<u32>(OWNER_WORD, 0, -1);"],
    good: ["assembly/owner.ts", "/** a new Owner */ memory.fill(0, 0, 1);"],
  },
  {
    what: "what reads an area never throws: any bytes at all are an area",
    word: /\bthrow\b/,
    within: /^host\/pstore\//,
    // What it is given are a user's sizes, not bytes.
    allowed: /^host\/pstore\/registration\.ts:/,
    bad: ["host/pstore/kmsg-zone.ts", "throw new RangeError();"],
    good: ["host/pstore/registration.ts", `throw new MmcError("EINVAL", why);`],
  },
  {
    what: "clocks, chance and timers are for the command line, benchmarks and embedding",
    word: CHANCE,
    within: /^(assembly|host)\//,
    // A network that does not answer is given up after a while; no result depends on when.
    allowed: /^host\/(cli|embed)\/|^host\/image\/http\.ts: AbortSignal\.timeout$/,
    bad: ["host/device.ts", "const now = new Date();"],
    good: ["host/device.ts", "const then = new Date(seconds * 1000);"],
  },
];

function brokenWords(files: Files, { word, within, allowed }: Word): string[] {
  const broken: string[] = [];
  for (const [path, text] of files) {
    if (!within.test(path)) continue;
    for (const [i, line] of withoutComments(text).split("\n").entries()) {
      for (const [found] of line.matchAll(new RegExp(word, "g"))) {
        if (!allowed.test(`${path}: ${found}`)) broken.push(`${path}:${i + 1}: ${line.trim()}`);
      }
    }
  }
  return broken;
}

for (const word of WORDS) {
  test(`words: ${word.what}`, () => {
    assert.is(brokenWords(new Map([word.bad]), word).length, 1, "a file that breaks it");
    assert.equal(brokenWords(new Map([word.good]), word), [], "a file that keeps it");
    assert.equal(brokenWords(sources, word), []);
  });
}

test("each clock, chance and timer is known", () => {
  const bad = `Date.now() · new Date( ) · Math.random() · setTimeout(f) · setInterval(f) · performance.now()
    · process.hrtime.bigint() · AbortSignal.timeout(9) · crypto.randomUUID() · crypto.getRandomValues(a)`;
  for (const words of bad.split("·")) assert.ok(CHANCE.test(words), words);
  for (const words of ["new Date(0)", "clearTimeout", "performance.mark()"])
    assert.not(CHANCE.test(words), words);
});

// ---- what a page can load ----

const PACKAGES_FOR_PAGES = ["@assemblyscript/loader"];
const NODE_GLOBALS = /\b(?:Buffer|process|__dirname|__filename|setImmediate|require)\b(?!\s*:)/;

function reachable(files: Files, entry: string): string[] {
  const graph = graphOf(files);
  const found = new Set([entry]);
  for (const path of found) for (const target of graph.get(path) ?? []) found.add(target);
  return [...found];
}

/** What keeps files from being loaded by a page: packages, modules and globals of Node. */
function brokenForPages(files: Files, paths: string[]): string[] {
  const broken: string[] = [];
  for (const path of paths) {
    const text = files.get(path);
    if (text === undefined) {
      if (!PACKAGES_FOR_PAGES.includes(path)) broken.push(path);
      continue;
    }
    for (const line of withoutComments(text).split("\n")) {
      if (NODE_GLOBALS.test(line)) broken.push(`${path}: ${line.trim()}`);
    }
  }
  return broken;
}

test("a page can load everything that host/index.ts reaches", () => {
  const made = new Map([
    ["host/index.ts", `export { Device } from "./device.js";`],
    [
      "host/device.ts",
      `import { readFileSync } from "node:fs";\nimport fetch from "node-fetch";\nBuffer.alloc(1);`,
    ],
    ["host/node.ts", `import "node:path";`],
  ]);
  assert.equal(brokenForPages(made, reachable(made, "host/index.ts")), [
    "host/device.ts: Buffer.alloc(1);",
    "node:fs",
    "node-fetch",
  ]);
  const reached = reachable(sources, "host/index.ts");
  assert.ok(reached.length > 10);
  assert.equal(brokenForPages(sources, reached), []);
});

test("nothing of Node in host/core, host/dump, host/pstore, host/explore and the device's files", () => {
  const inner = (files: Files) => {
    const paths = [...files.keys()].filter((path) =>
      /^host\/((core|dump|pstore|explore)\/|(device(-options)?|rehearsal)\.ts$)/.test(path),
    );
    return brokenForPages(files, [...new Set(paths.flatMap((path) => reachable(files, path)))]);
  };
  for (const path of [
    "host/core/trace.ts",
    "host/device.ts",
    "host/device-options.ts",
    "host/rehearsal.ts",
  ]) {
    assert.equal(inner(new Map([[path, `import { join } from "path";`]])), ["path"], path);
  }
  assert.equal(inner(sources), []);
});

// ---- tidy ----

/** Every file of the project that a person wrote, and its text if it is text. */
function projectFiles(): Map<string, string> {
  const skipped = [
    "node_modules",
    "dist",
    ".git",
    ...readFileSync(`${ROOT}.gitignore`, "utf8").split(/\/?\n/),
  ];
  const found = new Map<string, string>();
  const visit = (folder: string) => {
    for (const entry of readdirSync(ROOT + folder, { withFileTypes: true })) {
      const path = folder + entry.name;
      if (skipped.includes(entry.name) || entry.name.endsWith(".log")) continue;
      if (entry.isDirectory()) visit(`${path}/`);
      else if (entry.isFile())
        found.set(path, /\.(gz|img|png|bin|elf)$/.test(path) ? "" : readFileSync(ROOT + path, "utf8"));
    }
  };
  visit("");
  return found;
}

interface Habit {
  what: string;
  /** What is wrong with this file, or null. */
  wrong(path: string, text: string): string | null;
  bad: [string, string];
  good: [string, string];
}

const COLUMNS_MAX = 120;
// Spelt so that this file does not find itself.
const ONE_MACHINE = new RegExp(`(?<![\\w.:/-])/(?:${["work", "root", "home"].join("|")})/\\w`);
const ONLY = `.${"only"}(`;

const HABITS: Habit[] = [
  {
    what: "a file is named after what it owns",
    wrong: (path) => (/(^|\/)(utils?|helpers?|misc|common)\.\w+$/.test(path) ? path : null),
    bad: ["host/image/utils.ts", ""],
    good: ["host/image/area.ts", ""],
  },
  {
    what: "no path of one machine",
    wrong: (_, text) => ONE_MACHINE.exec(text)?.[0] ?? null,
    bad: ["docs/TESTING.md", `see ${["", "work", "main", "x"].join("/")}`],
    good: ["docs/TESTING.md", "see https://example.org/home/page and docs/work/x"],
  },
  {
    what: "no test runs alone",
    wrong: (path, text) => (/^(tests|bench)\//.test(path) && text.includes(ONLY) ? ONLY : null),
    bad: ["tests/a.test.ts", `test${ONLY}"x", () => undefined);`],
    good: ["tests/a.test.ts", `test("x", () => undefined);`],
  },
  {
    what: "every test file runs its tests",
    wrong: (path, text) =>
      path.endsWith(".test.ts") && !/^\w+\.run\(\);$/m.test(withoutComments(text)) ? "no run()" : null,
    bad: ["tests/a.test.ts", "// test.run();"],
    good: ["tests/a.test.ts", "test.run();\n"],
  },
  {
    what: `no line of more than ${COLUMNS_MAX} columns in the sources`,
    wrong: (path, text) => {
      if (!/^(assembly|host)\/.*\.ts$/.test(path)) return null;
      const long = text.split("\n").flatMap((line, i) => (line.length > COLUMNS_MAX ? [i + 1] : []));
      return long.length > 0 ? `line ${long.join(", ")}` : null;
    },
    bad: ["host/device.ts", `// ${"x".repeat(COLUMNS_MAX)}`],
    good: ["host/device.ts", "x".repeat(COLUMNS_MAX)],
  },
  {
    what: "every source begins by saying what it is",
    wrong: (path, text) =>
      /^(assembly|host|tests)\/.*\.ts$/.test(path) && !/^(#!.*\n)?\/\/ /.test(text) ? path : null,
    bad: ["host/device.ts", `import { a } from "b";`],
    good: ["host/device.ts", "// The block device.\n"],
  },
];

const project = projectFiles();

for (const { what, wrong, bad, good } of HABITS) {
  test(`tidy: ${what}`, () => {
    assert.ok(wrong(...bad) !== null, "a file that breaks it");
    assert.is(wrong(...good), null, "a file that keeps it");
    const found = [...project].flatMap(([path, text]) => {
      const why = wrong(path, text);
      return why === null ? [] : [`${path}: ${why}`];
    });
    assert.equal(found, []);
  });
}

test("the whole project was looked at", () => {
  for (const path of ["package.json", "assembly/panic.ts", "host/index.ts", "tests/arrows.test.ts"]) {
    assert.ok(project.has(path), path);
  }
});

test.run();
