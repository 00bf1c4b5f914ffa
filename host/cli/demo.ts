// `mmcpstore demo`: the main job on built-in input, in memory. A write is acknowledged and flushed, the
// next one is interrupted in the middle by a panic; the panic path takes the bus over and writes a real
// log; the power goes; after power-up the record is read from the bare medium. It checks all that it shows.
import type { Command } from "commander";
import { formatNs, type TraceEvent } from "../core/trace.js";
import { Device } from "../device.js";
import { MmcError } from "../errors.js";
import { loadCore } from "../node.js";
import { decodeArea, type PstoreRecord } from "../pstore/decode.js";
import { recordJson, recordTable } from "./ls.js";
import { color, formatJson, formatSize, write } from "./output.js";
import { formatStep, stepsOf } from "./panic-report.js";
import { pattern, readDemoLog } from "./sample.js";
import { addVcdOptions, checkVcdOptions, writeVcd } from "./trace-output.js";
import { makeWholeFile, writeAll } from "./whole-file.js";

const MIB = 2 ** 20;
const IMAGE_BYTES = 4 * MIB;
const DATA_OFFSET = MIB;
const FLUSHED_BYTES = 64 * 1024;
const INTERRUPTED_OFFSET = DATA_OFFSET + FLUSHED_BYTES;
const INTERRUPTED_BYTES = 32 * 1024;
const AREA_OFFSET = 3 * MIB;
const AREA_BYTES = MIB;
const KMSG_BYTES = 64 * 1024;
const SECTOR_BYTES = 512;
const CACHE_SECTORS = 16;
/** So that every run prints the same. */
const PANIC_TIME = { timeSec: 1_705_095_875n, timeNsec: 123_456_789 };
const LINE_SHOWN = 100;

interface DemoOptions {
  out?: string;
  vcd?: string;
  vcdBits?: boolean;
  json?: boolean;
}

/** Partition 1: data from 1 to 3 MiB. Partition 2: pstore from 3 to 4 MiB. */
function bootRecord(): Uint8Array {
  const sector = new Uint8Array(SECTOR_BYTES);
  const view = new DataView(sector.buffer);
  const partitions = [
    [DATA_OFFSET, AREA_OFFSET - DATA_OFFSET],
    [AREA_OFFSET, AREA_BYTES],
  ] as const;
  view.setUint32(0x1b8, 0x73706d6d, true);
  for (const [index, [offset, sizeBytes]] of partitions.entries()) {
    const at = 0x1be + 16 * index;
    view.setUint8(at + 4, 0x83);
    view.setUint32(at + 8, offset / SECTOR_BYTES, true);
    view.setUint32(at + 12, sizeBytes / SECTOR_BYTES, true);
  }
  view.setUint16(510, 0xaa55, true);
  return sector;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Every sector of the interrupted write holds old bytes (zeros), new ones, or a half of each. */
function isOldOrNew(medium: Uint8Array, wanted: Uint8Array): boolean {
  const half = SECTOR_BYTES / 2;
  for (let at = 0; at < wanted.length; at += half) {
    const part = medium.subarray(INTERRUPTED_OFFSET + at, INTERRUPTED_OFFSET + at + half);
    if (!same(part, wanted.subarray(at, at + half)) && part.some((byte) => byte !== 0)) return false;
  }
  return true;
}

function shortened(line: string): string {
  return line.length > LINE_SHOWN ? `${line.slice(0, LINE_SHOWN - 1)}…` : line;
}

async function demo(options: DemoOptions): Promise<void> {
  const startedMs = performance.now();
  const lines: string[] = [];
  const say = (line: string) => {
    lines.push(line);
  };
  checkVcdOptions(options);
  const log = readDemoLog();
  const events: TraceEvent[] = [];
  const device = Device.open(loadCore("release"), {
    card: "emmc",
    sizeBytes: IMAGE_BYTES,
    content: bootRecord(),
    area: {
      offset: AREA_OFFSET,
      kmsgSize: KMSG_BYTES,
      kmsgCount: AREA_BYTES / KMSG_BYTES,
      abi: "lp64",
    },
    cacheSectors: CACHE_SECTORS,
    onTrace: (more) => {
      for (const event of more) events.push(event);
    },
  });
  const at = () => color.dim(formatNs(device.state().timeNs).padStart(13));
  const head = (text: string) => say(`${color.bold(text)}\n`);

  head("An eMMC: 4 MiB, 8 bits, high speed, ADMA2, a write cache; the pstore area is its last MiB");
  say(`${at()}  identified, ${AREA_BYTES / KMSG_BYTES} zones of ${formatSize(KMSG_BYTES)} recovered\n`);
  const flushed = pattern(FLUSHED_BYTES, 1);
  device.write(DATA_OFFSET, flushed);
  device.flush();
  say(`${at()}  ${formatSize(FLUSHED_BYTES)} written with CMD25, acknowledged and flushed\n`);
  const interrupted = pattern(INTERRUPTED_BYTES, 2);
  device.leaveWriteInFlight(INTERRUPTED_OFFSET, interrupted);
  say(`${at()}  another ${formatSize(INTERRUPTED_BYTES)}: CMD25 is on the bus, the card is in `);
  say(`${device.state().card} …\n`);

  head("… Kernel panic. Nobody is asked, nothing is waited for, the bus is taken over");
  device.clearTrace();
  const result = device.panicWrite({ text: log, reason: "Panic", ...PANIC_TIME });
  const steps = stepsOf(device.trace().events, result);
  for (const step of steps) say(formatStep(step, result));

  head("The power goes, and comes back");
  device.powerCut("torn-low", "lost");
  say(`${at()}  power cut: sectors in programming torn, the write cache lost\n`);
  device.powerOn();
  say(`${at()}  powered up, identified, recovered: next free zone ${device.state().nextZone}\n`);

  const medium = device.medium();
  const areaBytes = medium.subarray(AREA_OFFSET, AREA_OFFSET + AREA_BYTES);
  const { records } = decodeArea(areaBytes);
  const record: PstoreRecord | undefined = records[0];
  head("The record, read from the bare medium by a decoder that shares no code with the core");
  say(recordTable(records));
  const text = record === undefined ? "" : new TextDecoder().decode(record.bytes).trimEnd();
  const textLines = text.split("\n");
  say(`  ${color.dim("first")}  ${shortened(textLines[0] ?? "")}\n`);
  say(`  ${color.dim("      ")}  ${shortened(textLines[1] ?? "")}\n`);
  say(`  ${color.dim("last ")}  ${shortened(textLines.at(-1) ?? "")}\n`);

  const checks: Record<string, boolean> = {
    "the panic write reported success": result.status === 0,
    "the card was interrupted in the middle of the write": result.interruptedOwner !== 0,
    "there is one record, whole and sealed":
      records.length === 1 && record?.state === "ok" && record.sealed === true,
    [`its ${log.length} bytes are those of the log, deflated to ${result.payloadBytes}`]:
      record !== undefined && result.compressed && same(record.bytes, log),
    "its time and reason are the panic's":
      record?.reason === "Panic" &&
      record.timeSec === PANIC_TIME.timeSec &&
      record.timeNsec === PANIC_TIME.timeNsec,
    "the flushed data is intact": same(medium.subarray(DATA_OFFSET, DATA_OFFSET + FLUSHED_BYTES), flushed),
    "the interrupted write is old or new, nothing else": isOldOrNew(medium, interrupted),
    "the device reads it back after power-up": same(device.read(DATA_OFFSET, FLUSHED_BYTES), flushed),
  };
  const broken = Object.keys(checks).filter((name) => checks[name] !== true);
  if (options.out !== undefined) {
    makeWholeFile(options.out, (fd) => writeAll(fd, medium));
  }
  if (options.vcd !== undefined) writeVcd(options.vcd, events, "emmc", options.vcdBits === true);
  const wallMs = Math.round(performance.now() - startedMs);
  if (options.json) {
    const simulatedNs = device.state().timeNs;
    const found = records.map((one) => recordJson(one, AREA_OFFSET));
    await write(formatJson({ records: found, result, steps, checks, simulatedNs, wallMs }));
  } else {
    head("Checked");
    for (const [name, holds] of Object.entries(checks)) {
      say(`  ${holds ? color.green("yes") : color.red("NO ")}  ${name}\n`);
    }
    const simulated = formatNs(device.state().timeNs);
    say(color.dim(`${simulated} simulated, ${wallMs} ms on this machine\n`));
    if (options.out !== undefined) say(`saved: try mmcpstore ls ${options.out}\n`);
    if (options.vcd !== undefined) say(`saved: try gtkwave ${options.vcd}\n`);
    await write(lines.join(""));
  }
  if (broken.length > 0) throw new MmcError("EIO", `demo: does not hold: ${broken.join("; ")}`);
}

export function addDemo(program: Command): void {
  const command = program
    .command("demo")
    .summary("show the main job on built-in input")
    .description(
      "Write to a simulated eMMC, panic in the middle of the next write, take the bus over, write " +
        "the log of a real panic, cut the power, power up, and read the record back. Every " +
        "step with its simulated time.",
    )
    .option("--out <file>", "save the medium as an image that ls, cat and inspect can read")
    .option("--json", "print the result as JSON");
  addVcdOptions(command, "everything on the bus")
    .addHelpText(
      "after",
      `
Exit code 1 if anything that is shown does not hold. GTKWave and PulseView read --vcd.

Examples:
  mmcpstore demo
  mmcpstore demo --out demo.img && mmcpstore ls demo.img
  mmcpstore demo --vcd demo.vcd`,
    )
    .action(demo);
}
