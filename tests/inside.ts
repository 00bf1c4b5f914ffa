// The command line inside the test's own process, with a hand on every change that it makes to a file: each write,
// sync, rename, link and unlink is a step, and the process can "die" at any of them. From there on every further
// change fails, so what is on the disk is what a kill leaves. A process of its own for each of hundreds of cuts would
// cost minutes. Must be imported before anything that imports node:fs's functions by name and keeps them.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { Command, CommanderError } from "commander";

export interface Outcome {
  code: number;
  out: string;
  err: string;
}

/** A step of the last run: what was called. */
export type Step = "write" | "sync" | "name";

let steps: Step[] = [];
/** The step at which the process is gone; it still happens if `isBehind`. */
let deathAt = Number.POSITIVE_INFINITY;
let isBehind = true;
let died = false;

class Killed extends Error {
  constructor() {
    super("killed");
  }
}

function die(): never {
  died = true;
  throw new Killed();
}

const STEPS: Record<string, Step> = {
  writeSync: "write",
  ftruncateSync: "write",
  futimesSync: "write",
  fsyncSync: "sync",
  fdatasyncSync: "sync",
  renameSync: "name",
  linkSync: "name",
  unlinkSync: "name",
  mkdirSync: "name",
  rmdirSync: "name",
};

const calls = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
for (const [name, step] of Object.entries(STEPS)) {
  const real = calls[name] as (...args: unknown[]) => unknown;
  calls[name] = (...args) => {
    const number = steps.length;
    if (died || (number === deathAt && !isBehind)) die();
    const result = real(...args);
    steps.push(step);
    if (number === deathAt) die();
    return result;
  };
}
syncBuiltinESMExports();
process.env.NO_COLOR = "1";

const cli = "../host/cli/";
const added = await Promise.all(
  [
    ["ls", "addLs"],
    ["cat", "addCat"],
    ["extract", "addExtract"],
    ["rm", "addRm"],
    ["format", "addFormat"],
    ["panic", "addPanic"],
    ["harvest", "addHarvest"],
    ["core", "addCore"],
    ["devlink", "addDevlink"],
    ["minidump", "addMinidump"],
    ["inspect", "addInspect"],
    ["sahara", "addSahara"],
  ].map(async ([file, name]) => {
    const module = (await import(`${cli}${file}.js`)) as Record<string, (program: Command) => void>;
    return module[name as string] as (program: Command) => void;
  }),
);
const { messageOf, UsageError } = (await import(`${cli}output.js`)) as typeof import("../host/cli/output.js");

/** Runs `mmcpstore …args` here. `killAt`: the step at which it dies, behind that step or before it. */
export async function run(
  args: readonly string[],
  killAt = Number.POSITIVE_INFINITY,
  behind = true,
): Promise<Outcome & { steps: Step[]; killed: boolean }> {
  const program = new Command("mmcpstore").exitOverride().configureOutput({ writeErr: () => undefined });
  for (const add of added) add(program);
  let out = "";
  let err = "";
  const real = { out: process.stdout.write, err: process.stderr.write };
  const taken = (sink: (text: string) => void) =>
    ((data: string | Uint8Array, done?: (error?: Error | null) => void) => {
      sink(typeof data === "string" ? data : Buffer.from(data).toString("latin1"));
      if (typeof done === "function") done();
      return true;
    }) as typeof process.stdout.write;
  process.stdout.write = taken((text) => {
    out += text;
  });
  process.stderr.write = taken((text) => {
    err += text;
  });
  steps = [];
  deathAt = killAt;
  isBehind = behind;
  let code = 0;
  try {
    await program.parseAsync(["node", "mmcpstore", ...args]);
  } catch (error) {
    code = error instanceof UsageError ? 2 : error instanceof CommanderError ? error.exitCode && 2 : 1;
    err += `mmcpstore: ${messageOf(error)}\n`;
  } finally {
    process.stdout.write = real.out;
    process.stderr.write = real.err;
  }
  const killed = died;
  deathAt = Number.POSITIVE_INFINITY;
  died = false;
  return { code, out, err, steps, killed };
}

/** @throws Error unless it exits 0 with nothing on standard error */
export async function ok(...args: string[]): Promise<string> {
  const { code, out, err } = await run(args);
  if (code !== 0) throw new Error(`${args.join(" ")}: exit ${code} ${err}`);
  return out;
}
