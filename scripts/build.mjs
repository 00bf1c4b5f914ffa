// Builds the core's targets (asc) and the host (tsc) into dist/. Usage: build.mjs [--quiet] [target…]
// A target whose sources, flags and compiler have not changed since its last build is left alone.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
const args = process.argv.slice(2);
const quiet = args.includes("--quiet");
const asconfig = JSON.parse(readFileSync("asconfig.json", "utf8"));
const wanted = args.filter((arg) => !arg.startsWith("--"));
const targets = wanted.length > 0 ? wanted : Object.keys(asconfig.targets);

function filesBelow(folder, ending) {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name))
    .sort();
}

function digestOf(files, ...words) {
  const hash = createHash("sha256");
  for (const file of files) hash.update(file).update("\0").update(readFileSync(file)).update("\0");
  for (const word of words) hash.update(word).update("\0");
  return hash.digest("hex");
}

function isBuilt(stamp, digest, product) {
  return existsSync(stamp) && existsSync(product) && readFileSync(stamp, "utf8") === digest;
}

async function buildTarget(asc, target, sources, compiler) {
  const product = `dist/core/${target}.wasm`;
  const stamp = `dist/core/${target}.stamp`;
  const digest = digestOf([...sources, "asconfig.json"], compiler, target);
  if (isBuilt(stamp, digest, product)) return;
  const started = Date.now();
  const { error, stderr } = await (await asc()).main(["assembly/index.ts", "--target", target]);
  const said = stderr.toString();
  if (error) {
    process.stderr.write(said);
    console.error(`build: asc --target ${target}: ${error.message}`);
    process.exit(1);
  }
  // asc also remarks that another pass could save some bytes; only warnings are worth a line.
  if (/WARNING|ERROR/.test(said)) process.stderr.write(said);
  writeFileSync(stamp, digest);
  if (!quiet)
    console.log(`core ${target}: ${readFileSync(product).length} bytes, ${Date.now() - started} ms`);
}

function buildHost(version) {
  const sources = [
    ...filesBelow("host", ".ts"),
    ...filesBelow("tests", ".ts"),
    ...filesBelow("bench", ".ts"),
    "assembly/layout.ts",
    "tsconfig.json",
  ];
  const stamp = "dist/host.stamp";
  const digest = digestOf(sources, version);
  if (isBuilt(stamp, digest, "dist/host/index.js")) return;
  const started = Date.now();
  const tsc = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"], {
    stdio: "inherit",
  });
  if (tsc.status !== 0) process.exit(1);
  writeFileSync(stamp, digest);
  if (!quiet) console.log(`host: ${Date.now() - started} ms`);
}

const versions = JSON.parse(readFileSync("package.json", "utf8")).devDependencies;
mkdirSync("dist/core", { recursive: true });
for (const target of targets) {
  if (!asconfig.targets[target]) {
    console.error(`build: no target "${target}" in asconfig.json`);
    process.exit(2);
  }
}
const sources = filesBelow("assembly", ".ts");
let compiler;
const asc = async () => {
  compiler ??= (await import("assemblyscript/asc")).default;
  return compiler;
};
for (const target of targets) await buildTarget(asc, target, sources, versions.assemblyscript);
buildHost(versions.typescript);
