// CPU time and peak memory where the input grows, each command beside a plain reader in Python (plain-reader.py), which
// searches for nothing and proves nothing: an area of 128 MiB with 2,048 deflated records listed and extracted, 32,768
// records listed, an ELF core of 74,525 segments, an erase of a sparse image of 4 GiB. Usage: growth.js [runs, default 3].
import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { openDiskDevice, openRaw } from "../host/node.js";
import { ROOT } from "../tests/machine.js";
import { buildZone } from "../tests/zones.js";

const RUNS = Number(process.argv[2] ?? 3);
const SEGMENTS = 74_525;
const REPORT =
  "data:text/javascript,process.on('exit',()=>{const u=process.resourceUsage();" +
  "console.error('USAGE',u.userCPUTime/1e6,u.systemCPUTime/1e6,u.maxRSS)})";

interface Usage {
  cpu: number;
  peakMib: number;
}

function run(command: string, args: string[]): Usage {
  const { stderr, status } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 30 });
  const found = /USAGE ([\d.]+) ([\d.]+) (\d+)/.exec(stderr);
  if (status !== 0 || found === null) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
  return { cpu: Number(found[1]) + Number(found[2]), peakMib: Number(found[3]) / 1024 };
}

/** The best of all runs: other work on the machine only adds. */
function best(make: () => Usage): Usage {
  const all = Array.from({ length: RUNS }, make);
  return { cpu: Math.min(...all.map(({ cpu }) => cpu)), peakMib: Math.min(...all.map((one) => one.peakMib)) };
}

const cli = (...args: string[]) =>
  run(process.execPath, ["--import", REPORT, `${ROOT}dist/host/cli/main.js`, ...args]);
const plain = (...args: string[]) => run("python3", [`${ROOT}bench/plain-reader.py`, ...args]);

function report(what: string, ours: Usage, theirs: Usage | null): void {
  const beside =
    theirs === null
      ? ""
      : `, plain reader ${theirs.cpu.toFixed(2)} s, ratio ${(ours.cpu / theirs.cpu).toFixed(2)}`;
  console.log(`${what}: ${ours.cpu.toFixed(2)} s of CPU, ${Math.round(ours.peakMib)} MiB${beside}`);
}

/** Lines of a kernel log, other ones for each seed. */
function logText(seed: number, lengthBytes: number): Buffer {
  const words = ["sdhci", "mmc0", "error", "task", "RIP", "Call", "Trace", "page", "fault", "addr"];
  let word = seed * 2 + 1;
  const next = () => {
    word = (Math.imul(word, 1_103_515_245) + 12_345) >>> 0;
    return word >>> 8;
  };
  let text = "";
  while (text.length < lengthBytes) {
    const line = Array.from({ length: 8 }, () => `${words[next() % words.length]}${next() % 480}`);
    text += `<4>[${(next() / 1000).toFixed(6).padStart(13)}] ${line.join(" ")}\n`;
  }
  return Buffer.from(text.slice(0, lengthBytes));
}

function makeArea(path: string, kmsgSize: number, count: number, isDeflated: boolean): void {
  const fd = openSync(path, "wx");
  const texts = Array.from({ length: 64 }, (_, i) => {
    const text = logText(i, isDeflated ? 2 * kmsgSize : Math.min(3000, kmsgSize - 200));
    return new Uint8Array(isDeflated ? deflateRawSync(text) : text);
  });
  for (let i = 0; i < count; i++) {
    const payload = texts[i % texts.length] as Uint8Array;
    const zone = buildZone(kmsgSize, {
      payload,
      compressed: isDeflated,
      counter: i + 1,
      timeSec: BigInt(1_600_000_000 + i),
    });
    writeSync(fd, zone);
  }
  closeSync(fd);
}

/** As a collector writes one with more segments than e_phnum holds: the count is in sh_info of section 0. */
function makeCore(path: string): void {
  const bytes = Buffer.alloc(64 + 56 * SEGMENTS + 64 + 4096);
  bytes.write("\x7fELF\x02\x01\x01", 0, "latin1");
  bytes.writeUInt16LE(4, 16);
  bytes.writeUInt16LE(62, 18);
  bytes.writeUInt32LE(1, 20);
  bytes.writeBigUInt64LE(64n, 32);
  const sections = 64 + 56 * SEGMENTS;
  bytes.writeBigUInt64LE(BigInt(sections), 40);
  for (const [i, value] of [64, 56, 0xffff, 64, 1, 0].entries()) bytes.writeUInt16LE(value, 52 + 2 * i);
  bytes.writeUInt32LE(SEGMENTS, sections + 44);
  for (let i = 0; i < SEGMENTS; i++) {
    const at = 64 + 56 * i;
    bytes.writeUInt32LE(1, at);
    bytes.writeUInt32LE(4, at + 4);
    const address = BigInt(i) * 0x1000n;
    const fields = [BigInt(sections + 64), address, address, i === 0 ? 4096n : 0n, 4096n, 1n];
    for (const [n, value] of fields.entries()) bytes.writeBigUInt64LE(value, at + 8 + 8 * n);
  }
  writeFileSync(path, bytes);
}

const folder = mkdtempSync(join(tmpdir(), "growth-"));
try {
  const [area, many, core, disk] = ["area", "many", "core", "disk"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
    string,
  ];
  makeArea(area, 65536, 2048, true);
  report(
    "ls --json, 128 MiB, 2,048 deflated records",
    best(() => cli("ls", "--json", area)),
    best(() => plain("ls", area, "65536")),
  );
  let number = 0;
  const fresh = () => join(folder, `out-${number++}`);
  const removing = (make: (out: string) => Usage) => {
    const out = fresh();
    const usage = make(out);
    rmSync(out, { recursive: true });
    return usage;
  };
  report(
    "extract of them",
    best(() => removing((out) => cli("extract", area, out))),
    best(() => removing((out) => plain("extract", area, "65536", out))),
  );
  makeArea(many, 4096, 32_768, false);
  report(
    "ls, 32,768 records",
    best(() => cli("ls", many)),
    best(() => plain("ls", many, "4096")),
  );
  makeCore(core);
  report(
    "core ls, 74,525 segments",
    best(() => cli("core", "ls", core)),
    best(() => plain("segments", core)),
  );
  const fd = openSync(disk, "wx");
  ftruncateSync(fd, 4 * 2 ** 30);
  closeSync(fd);
  const image = openRaw(disk, { writable: true });
  const device = openDiskDevice(image, null, { card: "emmc" });
  const before = process.cpuUsage();
  device.erase(0, 4 * 2 ** 30);
  const { user, system } = process.cpuUsage(before);
  image.closeSync();
  console.log(
    `erase of a sparse image of 4 GiB: ${((user + system) / 1e6).toFixed(2)} s of CPU, ${statSync(disk).blocks / 2} KiB on disk`,
  );
} finally {
  rmSync(folder, { recursive: true });
}
