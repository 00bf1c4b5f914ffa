// The core compiled within the process, into memory only: to compare with what lies in dist/core, and to
// have the names of functions that a release does not carry.
import { ROOT } from "../machine.js";

/**
 * As much of assemblyscript/asc as is used. Its own types declare AssemblyScript's globals for the whole
 * program.
 */
interface Asc {
  main(
    args: string[],
    options: { writeFile(name: string, contents: Uint8Array | string): void },
  ): Promise<{ error: Error | null; stderr: { toString(): string } }>;
}

const ASC: string = "assemblyscript/asc";

/** A target of asconfig.json; `more`: arguments beside those that say where everything is. */
export function compileTarget(target: string, ...more: string[]): Promise<Uint8Array> {
  return compileFile("assembly/index.ts", target, ...more);
}

/** One file of the core with the flags of a target: its exported functions, which the core does not export. */
export async function compileFile(entry: string, target: string, ...more: string[]): Promise<Uint8Array> {
  const { default: asc } = (await import(ASC)) as { default: Asc };
  let binary: Uint8Array | undefined;
  const { error, stderr } = await asc.main([entry, "--baseDir", ROOT, "--target", target, ...more], {
    writeFile(name, contents) {
      if (name.endsWith(".wasm") && typeof contents !== "string") binary = contents;
    },
  });
  if (error !== null || binary === undefined)
    throw new Error(`asc ${entry} --target ${target}: ${stderr.toString()}`);
  return binary;
}
