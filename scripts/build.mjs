// Builds the core's targets (asc) and the host (tsc) into dist/, as many at a time as there are cores.
// Usage: build.mjs [--quiet] [target…]
// A target whose sources, flags and compiler have not changed since its last build is left alone.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
const args = process.argv.slice(2);
const quiet = args.includes("--quiet");
const asconfig = JSON.parse(readFileSync("asconfig.json", "utf8"));
const wanted = args.filter((arg) => !arg.startsWith("--"));
const targets = wanted.length > 0 ? wanted : Object.keys(asconfig.targets);
const versions = JSON.parse(readFileSync("package.json", "utf8")).devDependencies;

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

/** A process of its own with a script of node_modules; resolves to its exit code and what it said. */
function run(script, ...words) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join("node_modules", script), ...words]);
    let said = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (data) => {
        said += data;
      });
    }
    child.on("close", (code) => resolve({ code, said }));
  });
}

/** What is made of which files by which command; `sources` and `words` are all that the product depends on. */
function targetJob(target, sources) {
  return {
    name: `core ${target}`,
    target,
    product: `dist/core/${target}.wasm`,
    stamp: `dist/core/${target}.stamp`,
    digest: digestOf([...sources, "asconfig.json", "scripts/build.mjs"], versions.assemblyscript, target),
    command: ["assemblyscript/bin/asc.js", "assembly/index.ts", "--target", target],
  };
}

function hostJob() {
  const sources = ["host", "tests", "bench"].flatMap((folder) => filesBelow(folder, ".ts"));
  return {
    name: "host",
    product: "dist/host/index.js",
    stamp: "dist/host.stamp",
    digest: digestOf([...sources, "assembly/layout.ts", "tsconfig.json"], versions.typescript),
    command: ["typescript/bin/tsc", "-p", "tsconfig.json"],
  };
}

function isDone({ stamp, digest, product }) {
  return existsSync(stamp) && existsSync(product) && readFileSync(stamp, "utf8") === digest;
}

/**
 * A custom section that names the build: a saved state is for the core that it came from (host/embed/state.ts). Target
 * and SHA-256 of the binary without it; everything is shorter than the 128 bytes that one byte of LEB128 counts.
 */
function nameBuild({ target, product }) {
  const binary = readFileSync(product);
  const name = Buffer.from("mmcpstore.build");
  const digest = createHash("sha256").update(binary).digest();
  const payload = Buffer.concat([Buffer.from([name.length]), name, digest, Buffer.from(target)]);
  writeFileSync(product, Buffer.concat([binary, Buffer.from([0, payload.length]), payload]));
}

async function build(job) {
  const { name, product, stamp, digest, command } = job;
  const started = Date.now();
  const { code, said } = await run(...command);
  // asc also remarks that another pass could save some bytes; only warnings are worth a line.
  if (code !== 0 || /WARNING|ERROR/.test(said)) process.stderr.write(said);
  if (code !== 0) {
    console.error(`build: ${name} failed`);
    process.exitCode = 1;
    return;
  }
  if (job.target !== undefined) nameBuild(job);
  writeFileSync(stamp, digest);
  if (!quiet) console.log(`${name}: ${readFileSync(product).length} bytes, ${Date.now() - started} ms`);
}

mkdirSync("dist/core", { recursive: true });
for (const target of targets) {
  if (!asconfig.targets[target]) {
    console.error(`build: no target "${target}" in asconfig.json`);
    process.exit(2);
  }
}
const sources = filesBelow("assembly", ".ts");
const queue = [...targets.map((target) => targetJob(target, sources)), hostJob()].filter(
  (job) => !isDone(job),
);
async function worker() {
  for (let job = queue.shift(); job !== undefined; job = queue.shift()) await build(job);
}
await Promise.all(Array.from({ length: availableParallelism() }, worker));
