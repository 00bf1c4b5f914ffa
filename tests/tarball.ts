// The package as users get it: packed by npm, and installed in a folder elsewhere. Nothing of the checkout can be
// reached from there but what package.json promises: the files of the tarball, and the packages under "dependencies".
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ROOT } from "./machine.js";

export interface PackageJson {
  version: string;
  bin: Record<string, string>;
  exports: Record<string, string | { types: string; default: string }>;
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
  [field: string]: unknown;
}

export const PACKAGE = JSON.parse(readFileSync(`${ROOT}package.json`, "utf8")) as PackageJson;

/** Packs the package as it is built; `files` are its paths. */
export function pack(folder: string): { path: string; files: string[] } {
  const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const said = execFileSync("npm", args, {
    cwd: ROOT,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [packed] = JSON.parse(said) as { filename: string; files: { path: string }[] }[];
  if (packed === undefined) throw new Error(`npm pack: ${said}`);
  return { path: join(folder, packed.filename), files: packed.files.map(({ path }) => path) };
}

/** A new folder; the caller removes it. */
export function makeElsewhere(): string {
  return mkdtempSync(join(tmpdir(), "mmcpstore-elsewhere-"));
}

/**
 * Installs a tarball into `folder` without asking a registry: the packages it depends on, and those named by `more`,
 * are links to the checkout's.
 */
export function unpackInto(folder: string, tarball: string, more: string[] = []): void {
  const modules = join(folder, "node_modules");
  mkdirSync(join(modules, "mmcpstore"), { recursive: true });
  execFileSync("tar", ["xzf", tarball, "--strip-components=1", "-C", join(modules, "mmcpstore")]);
  for (const name of [...Object.keys(PACKAGE.dependencies), ...more]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(`${ROOT}node_modules/${name}`, join(modules, name));
  }
  for (const [name, path] of Object.entries(PACKAGE.bin)) {
    mkdirSync(join(modules, ".bin"), { recursive: true });
    symlinkSync(join("..", "mmcpstore", path), join(modules, ".bin", name));
    execFileSync("chmod", ["+x", join(modules, "mmcpstore", path)]);
  }
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
}
