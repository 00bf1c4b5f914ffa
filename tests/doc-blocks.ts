// The fenced blocks of README and docs, and what each is for: `sh` commands, `js` a module, `output` what the block before
// printed, `text` a figure. Nothing else is taken, so that no block is passed over because nobody knows what it is.
import { readdirSync, readFileSync } from "node:fs";
import { ROOT } from "./machine.js";

export const LANGUAGES = ["sh", "js", "output", "text"] as const;

export interface DocBlock {
  language: (typeof LANGUAGES)[number];
  text: string;
  /** Of the opening fence, from 1. */
  line: number;
  /** From `<!-- not run: … -->` in the line before; null: it is run. */
  notRun: string | null;
}

export interface Doc {
  /** `docs/SAHARA.md` */
  path: string;
  blocks: DocBlock[];
}

/** @throws Error a fence of another language, or one that does not end */
export function blocksOf(path: string, text: string): DocBlock[] {
  const blocks: DocBlock[] = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; at++) {
    const fence = /^\s*```(.*)$/.exec(lines[at] ?? "");
    if (fence === null) continue;
    const language = LANGUAGES.find((one) => one === fence[1]);
    if (language === undefined) {
      throw new Error(`${path}:${at + 1}: \`\`\`${fence[1]} is not one of ${LANGUAGES.join(", ")}`);
    }
    const end = lines.findIndex((line, index) => index > at && /^\s*```$/.test(line));
    if (end < 0) throw new Error(`${path}:${at + 1}: does not end`);
    const notRun = /^<!-- not run: (\S.*) -->$/.exec(lines[at - 1] ?? "")?.[1] ?? null;
    blocks.push({ language, text: lines.slice(at + 1, end).join("\n"), line: at + 1, notRun });
    at = end;
  }
  return blocks;
}

export function readDocs(): Doc[] {
  const docs = readdirSync(`${ROOT}docs`).filter((name) => name.endsWith(".md"));
  const paths = ["README.md", "CHANGELOG.md", ...docs.map((name) => `docs/${name}`)];
  return paths.map((path) => ({ path, blocks: blocksOf(path, readFileSync(ROOT + path, "utf8")) }));
}

export interface Command {
  /** One or more lines of shell. */
  line: string;
  /** What is shown below it; null: nothing is shown, and nothing compared. */
  shown: string | null;
}

/** Of an `sh` block: `$ ` begins each command and what it prints follows; without any `$ ` all of it is one script. */
export function commandsOf({ text }: DocBlock): Command[] {
  const lines = text.split("\n");
  if (!lines.some((line) => line.startsWith("$ "))) return [{ line: text, shown: null }];
  const commands: Command[] = [];
  for (const line of lines) {
    if (line.startsWith("$ ")) commands.push({ line: line.slice(2), shown: "" });
    else {
      const last = commands.at(-1);
      if (last !== undefined) last.shown += `${line}\n`;
    }
  }
  return commands;
}

/** Whether `printed` is what is shown; a line of `…` stands for any lines, `N ms on this machine` for any N. */
export function isAsShown(shown: string, printed: string): boolean {
  const plain = (text: string) => text.replace(/\d+ ms on this machine/g, "N ms on this machine").trimEnd();
  const parts = plain(shown)
    .split(/^…$\n?/m)
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  // What follows begins at the start of a line; nothing follows at the end.
  const pattern = parts.reduce((all, part) => `${all}${part === "" ? "[^]*" : "(?:[^]*\\n)?"}${part}`);
  return new RegExp(`^${pattern}$`).test(plain(printed));
}
