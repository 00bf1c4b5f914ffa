// How long a panic takes on the real log of 29,743 bytes: simulated time from the panic to the card in tran, to the
// commit and to the end, from every request in flight; and the wall time of the call, interleaved in one run with a
// memcpy of the same bytes. Then the record deflated against plain, interleaved. Wall clocks live here.
// Usage: npm run bench [-- --json]
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { formatTable } from "../host/cli/output.js";
import { DEFLATE_NS } from "../host/core/profile.js";
import { Device, type InFlight } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const ROUNDS = 41;
const LOG = new Uint8Array(readFileSync(`${ROOT}host/cli/demo-panic.txt`));
const AREA = { offset: 1 << 20, kmsgSize: 65536, kmsgCount: 16, abi: "lp64" } as const;
const IN_FLIGHT_OFFSET = 65536;
const STUCK_LBA = IN_FLIGHT_OFFSET / 512;

const BUSES: [string, DeviceOptions][] = [
  ["eMMC HS x8, ADMA2", { dma: true }],
  ["eMMC HS x8, PIO", { dma: false }],
  ["eMMC HS x8, ADMA2, cache", { dma: true, reliableWrite: false, cacheSectors: 64 }],
  ["eMMC legacy x1, PIO", { dma: false, busWidth: 1, highSpeed: false }],
  ["SD HS x4, ADMA2", { card: "sd", dma: true }],
  ["SD HS x4, PIO", { card: "sd", dma: false }],
];
const KINDS: ("idle" | "stuck" | InFlight)[] = [
  "idle",
  "read",
  "write",
  "program",
  "deselected",
  "erase",
  "claimed",
  "sleep",
  "suspended",
  "stuck",
];

interface Row {
  bus: string;
  inFlight: string;
  rung: number;
  commitNs: number;
  endNs: number;
  wallUs: number;
  memcpyUs: number;
  ratio: number;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

function measure(
  module: WebAssembly.Module,
  bus: string,
  options: DeviceOptions,
  kind: (typeof KINDS)[number],
): Row | null {
  if (options.card === "sd" && kind === "sleep") return null;
  const device = Device.open(module, { sizeBytes: 2 << 20, ...options, area: AREA });
  if (kind === "stuck") {
    const plan = { kind: "stuck-busy", times: 1, until: "power-cycle" } as const;
    device.injectFault({ ...plan, firstLba: STUCK_LBA, lastLba: STUCK_LBA });
    device.leaveInFlight("program", IN_FLIGHT_OFFSET);
  } else if (kind !== "idle") device.leaveInFlight(kind, IN_FLIGHT_OFFSET, 64 * 512);
  const state = device.saveState();
  const source = LOG.slice();
  const target = new Uint8Array(LOG.length);
  const wall: number[] = [];
  const memcpy: number[] = [];
  const ratios: number[] = [];
  let row: Row | null = null;
  for (let round = 0; round < ROUNDS; round++) {
    device.loadState(state);
    const before = performance.now();
    const result = device.panicWrite({ text: LOG, timeSec: 1n });
    const between = performance.now();
    // One copy is too short for the clock: a hundred, and their mean.
    for (let i = 0; i < 100; i++) target.set(source);
    const after = performance.now();
    if (result.status !== 0) throw new Error(`${bus}, ${kind}: status ${result.status}`);
    const panicUs = (between - before) * 1000;
    const copyUs = (after - between) * 10;
    wall.push(panicUs);
    memcpy.push(copyUs);
    ratios.push(panicUs / copyUs);
    row = {
      bus,
      inFlight: kind,
      rung: result.rung,
      commitNs: Number(result.commitNs - result.startNs),
      endNs: Number(result.endNs - result.startNs),
      wallUs: 0,
      memcpyUs: 0,
      ratio: 0,
    };
  }
  if (row !== null) {
    row.wallUs = median(wall);
    row.memcpyUs = median(memcpy);
    row.ratio = median(ratios);
  }
  return row;
}

/** Cards on which the log is written deflated and plain. */
const COMPARED: [string, DeviceOptions][] = [
  ...BUSES,
  ["eMMC old, ADMA2", { profile: "old-emmc" }],
  ["SD slow, ADMA2", { card: "sd", profile: "slow-sd", deadlineUs: 60_000_000 }],
  ["ideal eMMC, CPU free", { profile: "ideal" }],
];

interface Comparison {
  bus: string;
  plainCommitNs: number;
  deflatedCommitNs: number;
  plainWallUs: number;
  deflatedWallUs: number;
  wallRatio: number;
}

/** The same panic on an idle bus, in turns deflated and plain. */
function compare(module: WebAssembly.Module, bus: string, options: DeviceOptions): Comparison {
  const [deflated, plain] = [true, false].map((compress) => {
    const device = Device.open(module, { sizeBytes: 2 << 20, ...options, area: AREA, compress });
    return { device, state: device.saveState(), commitNs: 0, wallUs: [] as number[] };
  });
  if (deflated === undefined || plain === undefined) throw new Error("unreachable");
  for (let round = 0; round < ROUNDS; round++) {
    for (const one of [deflated, plain]) {
      one.device.loadState(one.state);
      const before = performance.now();
      const result = one.device.panicWrite({ text: LOG, timeSec: 1n });
      one.wallUs.push((performance.now() - before) * 1000);
      if (result.status !== 0 || result.compressed !== (one === deflated))
        throw new Error(`${bus}: ${result.status}`);
      one.commitNs = Number(result.commitNs - result.startNs);
    }
  }
  return {
    bus,
    plainCommitNs: plain.commitNs,
    deflatedCommitNs: deflated.commitNs,
    plainWallUs: median(plain.wallUs),
    deflatedWallUs: median(deflated.wallUs),
    wallRatio: median(deflated.wallUs.map((wallUs, i) => wallUs / (plain.wallUs[i] ?? Number.NaN))),
  };
}

const module = new WebAssembly.Module(readFileSync(`${ROOT}dist/core/release.wasm`));
const rows: Row[] = [];
for (const [bus, options] of BUSES) {
  for (const kind of KINDS) {
    const row = measure(module, bus, options, kind);
    if (row !== null) rows.push(row);
  }
}
const comparisons = COMPARED.map(([bus, options]) => compare(module, bus, options));
if (process.argv.includes("--json")) {
  console.log(JSON.stringify({ rows, comparisons }, null, 2));
} else {
  const table: (string | number)[][] = [];
  for (const row of rows) {
    table.push([
      row.bus,
      row.inFlight,
      row.rung,
      (row.commitNs / 1e6).toFixed(3),
      (row.endNs / 1e6).toFixed(3),
      row.wallUs.toFixed(0),
      row.memcpyUs.toFixed(2),
      row.ratio.toFixed(0),
    ]);
  }
  console.log(`A panic with the real log of ${LOG.length} bytes, from the call on. commit, end: simulated.`);
  console.log(`wall, memcpy of the same bytes, ratio: medians of ${ROUNDS} interleaved rounds.`);
  console.log(
    formatTable(
      ["bus", "in flight", "rung", "commit (ms)", "end (ms)", "wall (µs)", "memcpy (µs)", "ratio"],
      table.map((row) => row.map(String)),
      [2, 3, 4, 5, 6, 7],
    ),
  );
  const compared: (string | number)[][] = [];
  for (const one of comparisons) {
    compared.push([
      one.bus,
      (one.plainCommitNs / 1e6).toFixed(3),
      (one.deflatedCommitNs / 1e6).toFixed(3),
      (one.deflatedCommitNs / one.plainCommitNs).toFixed(2),
      one.plainWallUs.toFixed(0),
      one.deflatedWallUs.toFixed(0),
      one.wallRatio.toFixed(2),
    ]);
  }
  console.log(
    `The same log deflated and plain; ${DEFLATE_NS} ns of simulated CPU time a byte. Medians of ${ROUNDS} rounds.`,
  );
  console.log(
    formatTable(
      [
        "bus, idle",
        "plain commit (ms)",
        "deflated (ms)",
        "ratio",
        "plain wall (µs)",
        "deflated (µs)",
        "ratio",
      ],
      compared.map((row) => row.map(String)),
      [1, 2, 3, 4, 5, 6],
    ),
  );
}
