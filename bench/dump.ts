// How a crash dump streams and how it is read at random, in one run. A plan of 1 GiB is written to a file in chunks,
// taking turns with cp of the same file, and the memory of the process is watched; then 4 KiB are read at random
// offsets of plans with 10 to 65,000 regions. Wall clocks live here. Usage: dump.js [MiB] [--json]
import { spawnSync } from "node:child_process";
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { formatTable } from "../host/cli/output.js";
import { CrashDump } from "../host/dump/dump.js";
import { loadCore } from "../host/node.js";

const ROUNDS = 3;
const REGIONS = 64;
const CHUNK_BYTES = 1 << 20;
const READ_BYTES = 4096;
/** Of those that are read at random. */
const REGION_BYTES = 16 * READ_BYTES;
const READS = 20_000;
const RANDOM_ROUNDS = 7;
const MIB = 2 ** 20;

const asJson = process.argv.includes("--json");
const sizeMib = Number(process.argv.slice(2).find((word) => /^\d+$/.test(word)) ?? 1024);
const module = loadCore("release");

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** A plan whose bytes come from one page by a callback: nothing of its size is in memory. */
function planOf(regions: number, regionBytes: number) {
  const dump = new CrashDump(module, { class: 64, machine: 62, capacity: regions });
  const page = new Uint8Array(MIB).map((_, i) => i * 7 + (i >> 12));
  const source = (offset: number, target: Uint8Array) => {
    for (let done = 0; done < target.length; ) {
      const from = (offset + done) % MIB;
      const part = page.subarray(from, from + target.length - done);
      target.set(part, done);
      done += part.length;
    }
  };
  for (let i = 0; i < regions; i++) {
    dump.register({ name: `r${i}`, address: BigInt(i) * BigInt(regionBytes), size: regionBytes, source });
  }
  return dump.plan();
}

function residentMib(): number {
  return process.memoryUsage().rss / MIB;
}

/** To the file and onto the medium, as cp followed by sync does. Returns seconds and the most memory seen. */
function stream(plan: ReturnType<typeof planOf>, path: string): { seconds: number; peakMib: number } {
  const started = performance.now();
  const fd = openSync(path, "w");
  const chunk = new Uint8Array(CHUNK_BYTES);
  let peakMib = 0;
  for (let at = 0; at < plan.sizeBytes; at += CHUNK_BYTES) {
    const count = plan.readInto(at, chunk);
    for (let done = 0; done < count; ) done += writeSync(fd, chunk, done, count - done);
    if (at % (32 * CHUNK_BYTES) === 0) peakMib = Math.max(peakMib, residentMib());
  }
  fsyncSync(fd);
  closeSync(fd);
  return { seconds: (performance.now() - started) / 1000, peakMib };
}

function copy(from: string, to: string): number {
  const started = performance.now();
  const { status, stderr } = spawnSync("cp", ["--reflink=never", from, to], { encoding: "utf8" });
  if (status !== 0) throw new Error(`cp: ${stderr}`);
  const fd = openSync(to, "r+");
  fsyncSync(fd);
  closeSync(fd);
  return (performance.now() - started) / 1000;
}

function benchStream() {
  const folder = mkdtempSync(join(tmpdir(), "mmcpstore-bench-"));
  const [ours, theirs] = [join(folder, "dump.elf"), join(folder, "copy.elf")];
  try {
    const plan = planOf(REGIONS, Math.floor((sizeMib * MIB) / REGIONS));
    // A small read first: the engine compiles then.
    plan.read(0, CHUNK_BYTES);
    global.gc?.();
    const before = residentMib();
    const rounds = Array.from({ length: ROUNDS }, () => {
      rmSync(ours, { force: true });
      const streamed = stream(plan, ours);
      if (statSync(ours).size !== plan.sizeBytes) throw new Error("the file has another size");
      rmSync(theirs, { force: true });
      return { ...streamed, cpSeconds: copy(ours, theirs) };
    });
    const seconds = median(rounds.map((round) => round.seconds));
    const cpSeconds = median(rounds.map((round) => round.cpSeconds));
    return {
      sizeMib: Math.round(plan.sizeBytes / MIB),
      seconds,
      cpSeconds,
      ofCp: median(rounds.map((round) => round.cpSeconds / round.seconds)),
      grownMib: Math.max(...rounds.map(({ peakMib }) => peakMib)) - before,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Plans that take turns, in one heap; the same ten regions of each, too, which are in the processor's cache then. */
function benchRandom() {
  const plans = [10, 100, 1000, 10_000, 65_000].map((regions) => {
    const plan = planOf(regions, REGION_BYTES);
    return { regions, plan, inAll: [] as number[], inTen: [] as number[] };
  });
  let state = 1;
  const run = (plan: ReturnType<typeof planOf>, lengthBytes: number) => {
    const started = performance.now();
    for (let i = 0; i < READS; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      plan.read(plan.headerBytes + (state % (lengthBytes - READ_BYTES)), READ_BYTES);
    }
    return ((performance.now() - started) * 1000) / READS;
  };
  for (let round = -1; round < RANDOM_ROUNDS; round++) {
    for (const { plan, inAll, inTen } of plans) {
      const us = [run(plan, plan.sizeBytes - plan.headerBytes), run(plan, 10 * REGION_BYTES)] as const;
      if (round < 0) continue;
      inAll.push(us[0]);
      inTen.push(us[1]);
    }
  }
  return plans.map(({ regions, inAll, inTen }) => {
    return { regions, usPerRead: median(inAll), usPerReadOfTen: median(inTen) };
  });
}

const streamed = benchStream();
const random = benchRandom();
if (asJson) {
  console.log(JSON.stringify({ stream: streamed, random }, null, 2));
} else {
  const { seconds, cpSeconds, ofCp, grownMib } = streamed;
  console.log(
    `${streamed.sizeMib} MiB streamed to a file and synced: ${seconds.toFixed(2)} s, cp ${cpSeconds.toFixed(2)} s,`,
  );
  console.log(
    `${(ofCp * 100).toFixed(0)} % of its speed; resident memory grew by ${grownMib.toFixed(1)} MiB`,
  );
  const table: (string | number)[][] = [];
  for (const { regions, usPerRead, usPerReadOfTen } of random) {
    table.push([regions, usPerRead.toFixed(2), usPerReadOfTen.toFixed(2)]);
  }
  console.log(
    formatTable(
      ["regions", "us per read of 4 KiB", "in ten of them"],
      table.map((row) => row.map(String)),
      [0, 1, 2],
    ),
  );
}
