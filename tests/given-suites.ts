// npm run test:given [PART]: every suite that gives bytes to the host's functions once more, each argument a Buffer in a pool or
// a view of shared memory (given-hooks.ts). Not in npm test: it costs what those suites cost.
import { spawnSync } from "node:child_process";
import { ROOT } from "./machine.js";

const SUITES = [
  "decode",
  "decode-fuzz",
  "deflate",
  "devlink",
  "devlink-device",
  "devlink-store",
  "dump",
  "dump-area",
  "elf-core",
  "embed-stretch",
  "embedding",
  "image",
  "kmsg-sources",
  "minidump",
  "mixed-area",
  "panic-dump",
  "parts",
  "ramoops",
  "remoteproc",
  "rings",
  "sahara",
  "sahara-fuzz",
  "salvage",
];

const part = process.argv[2] ?? "";
let failed = 0;
for (const name of SUITES.filter((one) => one.includes(part))) {
  const hooks = `${ROOT}dist/tests/given-hooks.js`;
  const suite = `${ROOT}dist/tests/${name}.test.js`;
  const { status, stdout } = spawnSync(process.execPath, ["--import", hooks, suite], { encoding: "utf8" });
  const passed = /Passed:\s+(\d+)/.exec(stdout)?.[1] ?? "0";
  const isGood = status === 0 && passed !== "0";
  if (!isGood) failed++;
  console.log(`${isGood ? "ok  " : "FAIL"} ${name}  ${passed}`);
  if (!isGood) console.log(stdout);
}
process.exit(failed === 0 ? 0 : 1);
