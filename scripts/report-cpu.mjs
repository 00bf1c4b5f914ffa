// Loaded into each test file's process by test.mjs: tells on file descriptor 3, at the end, the CPU time that it took.
import { writeSync } from "node:fs";
import { isMainThread } from "node:worker_threads";

if (isMainThread) {
  process.on("exit", () => {
    const { user, system } = process.cpuUsage();
    writeSync(3, `${Math.round((user + system) / 1000)}`);
  });
}
