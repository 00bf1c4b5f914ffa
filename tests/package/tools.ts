// The tools that users of the package have, in versions that do not change by themselves, and where to get them: from
// the npm registry into .cache/, and Chromium from Debian's archive. What cannot be had fails: without it there is
// nothing to say.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../machine.js";

const VERSIONS = {
  "@arethetypeswrong/cli": "0.18.5",
  "@types/node": "20.19.43",
  bun: "1.4.5",
  deno: "2.9.6",
  esbuild: "0.28.2",
  publint: "0.3.25",
  // The oldest compiler that the types are tried with, and the last one of its line.
  "typescript-5.6": "npm:typescript@5.6.3",
  "typescript-5.9": "npm:typescript@5.9.3",
};
const FOLDER = `${ROOT}.cache/package-tools`;
const INSTALL_TIMEOUT_MS = 10 * 60_000;

export interface Answer {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end. Throws if there is none. */
export function run(program: string, args: string[], cwd: string, timeoutMs = 120_000): Answer {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd,
    encoding: "utf8",
    timeout: timeoutMs,
    env: { ...process.env, NO_COLOR: "1", DEBIAN_FRONTEND: "noninteractive" },
  });
  if (error !== undefined) throw error;
  return { status, stdout, stderr };
}

function runOrThrow(program: string, args: string[], cwd: string): void {
  const { status, stdout, stderr } = run(program, args, cwd, INSTALL_TIMEOUT_MS);
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}${stdout}`);
}

/** `npm install`, by npm's own rules. */
export function npmInstall(folder: string, names: string[]): void {
  runOrThrow("npm", ["install", "--no-audit", "--no-fund", "--no-package-lock", ...names], folder);
}

/** Installs the tools unless they are there in these versions. */
export function ensureTools(): void {
  const manifest = JSON.stringify({ private: true, type: "module", dependencies: VERSIONS });
  const stamp = join(FOLDER, "installed.json");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === manifest) return;
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(join(FOLDER, "package.json"), manifest);
  npmInstall(FOLDER, []);
  writeFileSync(stamp, manifest);
}

/** A tool's program. */
export function toolPath(name: string): string {
  return join(FOLDER, "node_modules", ".bin", name);
}

/** tsc of `typescript-5.6` or `typescript-5.9`. */
export function compilerPath(name: string): string {
  return join(FOLDER, "node_modules", name, "bin", "tsc");
}

/** Chromium, by apt if it is not there. */
export function ensureChromium(): string {
  const there = () => spawnSync("chromium", ["--version"]).status === 0;
  if (!there()) {
    runOrThrow("apt-get", ["update", "-qq"], ROOT);
    runOrThrow("apt-get", ["install", "-y", "-qq", "--no-install-recommends", "chromium"], ROOT);
  }
  if (!there()) throw new Error("chromium: not there after apt-get install");
  return "chromium";
}
