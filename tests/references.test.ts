// Every section that a comment or a page cites stands in docs/reference or in the page itself: a reader can look it up.
import { readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ROOT } from "./machine.js";

const FOLDERS = ["assembly", "host", "tests", "bench", "docs", "scripts"];
const ENDINGS = /\.(ts|mjs|md)$/;
/** How a comment names a document of docs/reference/specifications.md → its heading there. */
const STANDARDS: [RegExp, string][] = [
  [/JESD84-B51/, "JESD84-B51"],
  [/SD Physical Layer( Simplified)?( [0-9.]+)?|SD 3\.01/, "SD Physical Layer"],
  [/SD Host Controller( Simplified)?( Specification)?( [0-9.]+)?/, "SD Host Controller"],
  [/IEEE 1364(-[0-9]+)?/, "IEEE 1364"],
];
const CITED =
  /(?:([A-Za-z0-9]+\.md)|(JESD84-B51|SD Physical Layer[ 0-9.A-Za-z]*|SD 3\.01|SD Host Controller[ 0-9.A-Za-z]*|IEEE 1364[-0-9]*)|§ ?([0-9]+(?:\.[0-9]+)*)(?:-([0-9]+(?:\.[0-9]+)*))?)/g;

const read = (path: string) => readFileSync(`${ROOT}${path}`, "utf8");

/** The numbers of a page's headings, as "### 2.6 Polled recovery …". */
function headingsOf(page: string): Set<string> {
  return new Set(
    [...read(page).matchAll(/^#+ ([0-9]+(?:\.[0-9]+)*)\.? /gm)].map(([, number = ""]) => number),
  );
}

/** Numbers of the first column below a heading of specifications.md. */
function sectionsOf(standard: string): Set<string> {
  const [, below = ""] = read("docs/reference/specifications.md").split(`\n## ${standard}\n`);
  const table = below.split("\n## ")[0] ?? "";
  return new Set([...table.matchAll(/^\| ([0-9.]+) \|/gm)].map(([, number = ""]) => number));
}

interface Citation {
  at: string;
  document: string;
  section: string;
}

/** The document that was named last before a `§`, in the same paragraph; the page itself if none was. */
function citationsIn(path: string): Citation[] {
  const found: Citation[] = [];
  let line = 1;
  for (const paragraph of read(path).split(/\n(?=\s*(?:\n|\*\/))/)) {
    let document = path;
    for (const match of paragraph.matchAll(CITED)) {
      const [, page, standard, section, until] = match;
      if (page !== undefined) document = page;
      if (standard !== undefined) document = STANDARDS.find(([form]) => form.test(standard))?.[1] ?? standard;
      const at = `${path}:${line + paragraph.slice(0, match.index).split("\n").length - 1}`;
      for (const number of [section, until])
        if (number !== undefined) found.push({ at, document, section: number });
    }
    line += paragraph.split("\n").length;
  }
  return found;
}

/** Why a citation cannot be looked up, or null. */
function whyUnresolved({ at, document, section }: Citation): string | null {
  const standard = STANDARDS.some(([, name]) => name === document);
  if (standard)
    return sectionsOf(document).has(section)
      ? null
      : `${at}: ${document} §${section} is not in docs/reference/specifications.md`;
  const pages = [`docs/reference/${document}`, `docs/${document}`, document];
  const page = pages.find((name) => name.endsWith(".md") && FILES.includes(name));
  if (page === undefined) return `${at}: §${section} of ${document}, which is not in docs/reference`;
  return headingsOf(page).has(section) ? null : `${at}: ${page} has no §${section}`;
}

const FILES = FOLDERS.flatMap((folder) =>
  readdirSync(`${ROOT}${folder}`, { recursive: true, encoding: "utf8" })
    .filter((name) => ENDINGS.test(name) && !`${folder}/${name}`.endsWith("tests/references.test.ts"))
    .map((name) => `${folder}/${name}`.replaceAll("\\", "/")),
);
const CITATIONS = FILES.flatMap(citationsIn);

test("every § that is cited can be looked up", () => {
  const unresolved = CITATIONS.map(whyUnresolved).filter((why) => why !== null);
  assert.is(unresolved.length, 0, `${unresolved.length} of ${CITATIONS.length}:\n${unresolved.join("\n")}`);
  console.log(`\n# ${CITATIONS.length} citations in ${FILES.length} files`);
  assert.ok(CITATIONS.length > 90);
});

test("a citation of what is not there is found", () => {
  const bad = { at: "x.ts:1", section: "9.99" };
  assert.match(whyUnresolved({ ...bad, document: "mmc.md" }) ?? "", "docs/reference/mmc.md has no §9.99");
  assert.match(whyUnresolved({ ...bad, document: "JESD84-B51" }) ?? "", "specifications.md");
  assert.match(whyUnresolved({ ...bad, document: "elsewhere.md" }) ?? "", "not in docs/reference");
  assert.match(whyUnresolved({ ...bad, document: "assembly/panic.ts" }) ?? "", "not in docs/reference");
});

test.run();
