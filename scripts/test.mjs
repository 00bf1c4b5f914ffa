// Runs every dist/tests/**/*.test.js as a process of its own, two at a time, and adds up what uvu counted.
// A file that ran no test fails (uvu is silent about a forgotten test.run()), and so does one that
// does not end in time. Usage: test.mjs [part of a file's name…]
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
const FILE_TIMEOUT_MS = 10 * 60_000;
const filters = process.argv.slice(2);
const sources = readdirSync("tests", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".test.ts"))
  .filter((name) => filters.length === 0 || filters.some((filter) => name.includes(filter)))
  .sort();
let passed = 0;
let failed = 0;

function count(output, what) {
  const match = new RegExp(`^\\s*${what}:\\s+(\\d+)`, "m").exec(output);
  return match ? Number(match[1]) : 0;
}

function runFile(name) {
  return new Promise((resolve) => {
    const file = join("dist", "tests", name.replace(/\.ts$/, ".js"));
    const child = spawn(process.execPath, ["--enable-source-maps", file], {
      env: { ...process.env, FORCE_COLOR: "0", NO_COLOR: "1" },
    });
    let output = "";
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, FILE_TIMEOUT_MS);
    child.stdout.on("data", (data) => {
      output += data;
    });
    child.stderr.on("data", (data) => {
      output += data;
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      const total = count(output, "Total");
      const ok = count(output, "Passed");
      const skipped = count(output, "Skipped");
      let why = "";
      if (late) why = `did not end within ${FILE_TIMEOUT_MS / 1000} s`;
      else if (total === 0) why = "ran no test (is test.run() missing?)";
      else if (skipped > 0) why = `skipped ${skipped} tests`;
      else if (code !== 0 && ok === total) why = `exit code ${code}`;
      passed += ok;
      failed += Math.max(total - ok, why ? 1 : 0);
      const bad = why !== "" || ok !== total;
      console.log(`${bad ? "FAIL" : "ok  "} ${name}  ${ok}/${total}${why ? `  ${why}` : ""}`);
      for (const line of output.split("\n")) {
        if (line.startsWith("# ")) console.log(`     ${line.slice(2)}`);
      }
      if (bad) console.log(output);
      resolve();
    });
  });
}

const queue = [...sources];
async function worker() {
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) await runFile(name);
}
await Promise.all(Array.from({ length: Math.max(1, Math.min(2, availableParallelism())) }, worker));
if (sources.length === 0) {
  console.log("no test file matches");
  failed++;
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
