// Runs every dist/tests/**/*.test.js as a process of its own, as many at a time as there are cores, and adds up what
// uvu counted. A file that ran no test fails (uvu is silent about a forgotten test.run()), and so does one that takes
// more CPU time than CPU_LIMIT_S. Usage: test.mjs [part of a file's name…]
// Files whose machine is tests/bus.ts's run twice: on the `debug` core, which checks itself, and on `release`, which is
// what users get. MMCPSTORE_CORE=name takes one core for them instead, once.
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
/** CPU time, so that a busy machine fails nothing. The system ends the process (`ulimit`; not on Windows). */
const CPU_LIMIT_S = 600;
/** For a file that waits for something that never comes and takes no CPU time meanwhile. */
const WALL_LIMIT_S = 3600;
const SLOWEST_SHOWN = 10;
/** What each file took the last time, so that the longest begin first and no core is left alone at the end. */
const TIMES = "dist/test-times.json";

const filters = process.argv.slice(2);
const lastMs = existsSync(TIMES) ? JSON.parse(readFileSync(TIMES, "utf8")) : {};
/** Imports of what tests/bus.ts makes a machine with. */
const USES_BUS = /import \{[^}]*\b(?:Bus|coreModule)\b[^}]*\} from "\.\/bus\.js"/;
const CORES = process.env.MMCPSTORE_CORE ? [process.env.MMCPSTORE_CORE] : ["debug", "release"];

/** One run of a file; `core` is null where it chooses its cores itself. */
function runsOf(file) {
  const usesBus = USES_BUS.test(readFileSync(join("tests", file), "utf8"));
  const cores = usesBus ? CORES : [null];
  return cores.map((core) => ({ file, core, name: core === null ? file : `${file} (${core})` }));
}

const sources = readdirSync("tests", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".test.ts"))
  .filter((name) => filters.length === 0 || filters.some((filter) => name.includes(filter)))
  .sort()
  .flatMap(runsOf)
  .sort((a, b) => (lastMs[b.name] ?? 0) - (lastMs[a.name] ?? 0));
const cpuMs = {};
let passed = 0;
let failed = 0;

function count(output, what) {
  const match = new RegExp(`^\\s*${what}:\\s+(\\d+)`, "m").exec(output);
  return match ? Number(match[1]) : 0;
}

/** Starts a file with its CPU time limited; descriptor 3 brings back what it took. */
function start(file, core) {
  const node = ["--enable-source-maps", "--import", "./scripts/report-cpu.mjs", file];
  const options = {
    env: { ...process.env, FORCE_COLOR: "0", NO_COLOR: "1", ...(core ? { MMCPSTORE_CORE: core } : {}) },
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  };
  if (process.platform === "win32") return spawn(process.execPath, node, options);
  const limited = `ulimit -t ${CPU_LIMIT_S} && exec "$0" "$@"`;
  return spawn("sh", ["-c", limited, process.execPath, ...node], options);
}

function runFile({ file, core, name }) {
  return new Promise((resolve) => {
    const child = start(join("dist", "tests", file.replace(/\.ts$/, ".js")), core);
    let output = "";
    let told = "";
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, WALL_LIMIT_S * 1000);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (data) => {
        output += data;
      });
    }
    child.stdio[3].on("data", (data) => {
      told += data;
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (told !== "") cpuMs[name] = Number(told);
      report(name, output, code, late ? "did not end within an hour" : signal);
      resolve();
    });
  });
}

function whyFailed(total, ok, skipped, code, signal) {
  if (signal === "SIGKILL" || signal === "SIGXCPU")
    return `ended by the system: more than ${CPU_LIMIT_S} s of CPU?`;
  if (signal) return signal;
  if (total === 0) return "ran no test (is test.run() missing?)";
  if (skipped > 0) return `skipped ${skipped} tests`;
  return code !== 0 && ok === total ? `exit code ${code}` : "";
}

function report(name, output, code, signal) {
  const total = count(output, "Total");
  const ok = count(output, "Passed");
  const why = whyFailed(total, ok, count(output, "Skipped"), code, signal);
  passed += ok;
  failed += Math.max(total - ok, why ? 1 : 0);
  const bad = why !== "" || ok !== total;
  const seconds = cpuMs[name] === undefined ? "" : `  ${(cpuMs[name] / 1000).toFixed(1)} s`;
  console.log(`${bad ? "FAIL" : "ok  "} ${name}  ${ok}/${total}${seconds}${why ? `  ${why}` : ""}`);
  for (const line of output.split("\n")) {
    if (line.startsWith("# ")) console.log(`     ${line.slice(2)}`);
  }
  if (bad) console.log(output);
}

const queue = [...sources];
async function worker() {
  for (let run = queue.shift(); run !== undefined; run = queue.shift()) await runFile(run);
}
await Promise.all(Array.from({ length: availableParallelism() }, worker));
writeFileSync(TIMES, JSON.stringify({ ...lastMs, ...cpuMs }));
if (sources.length === 0) {
  console.log("no test file matches");
  failed++;
}
const slowest = Object.entries(cpuMs).sort(([, a], [, b]) => b - a);
const allMs = slowest.reduce((sum, [, ms]) => sum + ms, 0);
console.log(`${(allMs / 1000).toFixed(0)} s of CPU (without processes that tests start); the slowest files:`);
for (const [name, ms] of slowest.slice(0, SLOWEST_SHOWN)) {
  console.log(`${(ms / 1000).toFixed(1).padStart(8)} s  ${name}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
