// node --import given-hooks.js SUITE: a suite's imports of the host go through given(). Module hooks run in a thread of
// their own, which loads this file a second time: there is nothing to register there.
import { register } from "node:module";
import { isMainThread } from "node:worker_threads";

const MARK = "?given";

interface Resolved {
  url: string;
  shortCircuit?: boolean;
}

interface Loaded {
  format: string;
  source: string;
  shortCircuit: boolean;
}

/** Of the host what users import; the command line and the explorer take no bytes of callers. */
function isHost(url: string): boolean {
  return /\/dist\/host\/(?!cli\/|explore\/)[^?]*\.js$/.test(url);
}

export async function resolve(
  specifier: string,
  context: { parentURL?: string },
  next: (specifier: string, context: unknown) => Promise<Resolved>,
): Promise<Resolved> {
  const resolved = await next(specifier, context);
  const isSuite = /\/dist\/tests\/(?!given[.-])/.test(context.parentURL ?? "");
  return isSuite && isHost(resolved.url) ? { ...resolved, url: resolved.url + MARK } : resolved;
}

export async function load(
  url: string,
  context: unknown,
  next: (url: string, context: unknown) => Promise<Loaded>,
): Promise<Loaded> {
  if (!url.endsWith(MARK)) return next(url, context);
  const real = url.slice(0, -MARK.length);
  const names = Object.keys((await import(real)) as object);
  const source = `import * as real from ${JSON.stringify(real)};
import { given } from ${JSON.stringify(new URL("./given.js", import.meta.url).href)};
const { ${names.join(", ")} } = given(real);
export { ${names.join(", ")} };
`;
  return { format: "module", source, shortCircuit: true };
}

if (isMainThread) register(import.meta.url);
