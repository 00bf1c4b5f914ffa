// `mmcpstore sample KIND`: a file of the kind that another command reads, made on the spot, the same in each run:
// what the examples of help and documentation begin with. What this project writes itself (records, dumps, cores,
// containers) is written by it; a guest's ramoops and a phone's Minidump are laid out here. Never replaces a file.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { Device } from "../device.js";
import { CrashDump } from "../dump/dump.js";
import { machineOf, prStatusNote } from "../dump/notes.js";
import { makeContainerHead } from "../dump/sahara-container.js";
import { fileError } from "../image/file-error.js";
import { loadCore } from "../node.js";
import { putGpt } from "./gpt-image.js";
import { BASE, minidumpImage } from "./minidump-image.js";
import { parseChoice } from "./options.js";
import { formatSize, write } from "./output.js";
import { makeWholeFile, writeAll } from "./whole-file.js";

const MIB = 2 ** 20;
const KIB = 2 ** 10;
/** 2024-01-12T21:44:35Z, that of the demo; the earlier crash is an hour before. */
const PANIC_SEC = 1_705_095_875n;
const OOPS_SEC = PANIC_SEC - 3600n;
const OOPS_BYTES = 8000;

/** The log of a real panic. */
export function readDemoLog(): Uint8Array {
  const path = fileURLToPath(new URL("../../../host/cli/demo-panic.txt", import.meta.url));
  try {
    return new Uint8Array(readFileSync(path));
  } catch (error) {
    throw fileError(path, error);
  }
}

/** Bytes that are not alike, and the same in each run. */
export function pattern(lengthBytes: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let word = seed;
  for (let at = 0; at < lengthBytes; at++) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    bytes[at] = word >>> 24;
  }
  return bytes;
}

/** A card on which an Oops and an hour later a panic were written, and what else is in `more`. */
function crashedCard(
  areaOffset: number,
  areaBytes: number,
  more: Partial<Parameters<typeof Device.open>[1]>,
): Device {
  const kmsgSize = 64 * KIB;
  const area = { offset: areaOffset, kmsgSize, kmsgCount: areaBytes / kmsgSize, abi: "lp64" } as const;
  const device = Device.open(loadCore("release"), { sizeBytes: areaOffset + areaBytes, ...more, area });
  const log = readDemoLog();
  device.panicWrite({ text: log.subarray(0, OOPS_BYTES), reason: "Oops", timeSec: OOPS_SEC });
  if (more.dump) {
    device.dumpMemory.set(pattern(device.dumpMemory.length, 3));
    device.registerRegion({ name: "ram", address: 0x80000000n, source: device.dumpMemory });
  }
  device.panicWrite({ text: log, reason: "Panic", timeSec: PANIC_SEC });
  return device;
}

function area(): Uint8Array {
  return crashedCard(0, 4 * MIB, {}).medium();
}

/** Data, the pstore area at 12 MiB, a dump area behind it. */
function disk(): Uint8Array {
  const sizeBytes = 16 * MIB;
  const dumpArea = { offset: 13 * MIB, sizeBytes: 2 * MIB };
  const content = new Uint8Array(sizeBytes);
  putGpt(content, [
    { name: "data", offset: MIB, sizeBytes: 11 * MIB },
    { name: "pstore", offset: 12 * MIB, sizeBytes: MIB },
    { name: "dump", ...dumpArea },
  ]);
  const dump = { class: 64, machine: machineOf("x86-64"), area: dumpArea, memoryBytes: 64 * KIB } as const;
  return crashedCard(12 * MIB, MIB, { sizeBytes, content, dump }).medium();
}

/** 2 MiB of a guest's RAM; at 1 MiB what ramoops has with mem_size=0x10000 record_size=0x8000. */
function ramoops(): Uint8Array {
  const ram = pattern(2 * MIB, 4);
  const region = { offset: MIB, sizeBytes: 64 * KIB };
  ram.fill(0, region.offset, region.offset + region.sizeBytes);
  const head = new TextEncoder().encode(`====${PANIC_SEC}.000000-D\nPanic#1 Part1\n`);
  const text = readDemoLog().subarray(-20 * KIB);
  const view = new DataView(ram.buffer);
  for (const [index, lengthBytes] of [head.length + text.length, 0].entries()) {
    const at = region.offset + (index * region.sizeBytes) / 2;
    // persistent_ram_buffer: sig "DBGC", start, size. A record begins at 0, so start is its end.
    for (const [i, word] of [0x43474244, lengthBytes, lengthBytes].entries())
      view.setUint32(at + 4 * i, word, true);
  }
  ram.set(head, region.offset + 12);
  ram.set(text, region.offset + 12 + head.length);
  return ram;
}

/** Two regions of Linux's and one of the modem. */
function minidump(): Uint8Array {
  const place = (offset: number) => BASE + BigInt(offset);
  const log = readDemoLog();
  return minidumpImage({
    subsystems: {
      0: {
        regions: [
          { name: "KLOGBUF", address: place(0x28000), bytes: log },
          { name: "KSTACK", address: place(0x24000), bytes: pattern(0x2000, 5) },
        ],
      },
      3: { regions: [{ name: "MODEM", address: place(0x30000), bytes: pattern(0x1000, 6) }] },
    },
  });
}

function sahara(): Uint8Array {
  const regions = [
    { name: "OCIMEM.BIN", description: "OCIMEM", address: 0x14680000n, bytes: pattern(16 * KIB, 7) },
    { name: "DDRCS0.BIN", description: "DDR CS0", address: 0x80000000n, bytes: pattern(64 * KIB, 8) },
  ];
  const head = makeContainerHead(
    regions.map(({ bytes, ...region }) => ({ ...region, type: 1n, lengthBytes: BigInt(bytes.length) })),
  );
  return new Uint8Array(Buffer.concat([head, ...regions.map(({ bytes }) => bytes)]));
}

function elf(): Uint8Array {
  const registers = Array.from({ length: 27 }, (_, index) => BigInt(index));
  const dump = new CrashDump(loadCore("release"), {
    class: 64,
    machine: machineOf("x86-64"),
    notes: [prStatusNote("x86-64", { pid: 1, signal: 6, registers })],
  });
  dump.register({ name: "log", address: 0x1000000n, source: readDemoLog() });
  dump.register({ name: "ram", address: 0x80000000n, source: pattern(64 * KIB, 9) });
  const plan = dump.plan();
  return plan.read(0, plan.sizeBytes);
}

/** Kind → its usual name, what it is, and how it is made. */
const KINDS = {
  log: ["panic.txt", "the kernel log of a panic", readDemoLog],
  area: ["disk.img", "a pstore area of 4 MiB with the records of an Oops and a panic", area],
  disk: ["disk.img", "a disk of 16 MiB with a GPT: data, pstore (records), dump (a crash dump)", disk],
  ramoops: ["ram.bin", "2 MiB of a guest's RAM, with its ramoops region of 64 KiB at 1 MiB", ramoops],
  minidump: ["ddr.bin", "a phone's memory image with Qualcomm's Minidump tables", minidump],
  sahara: ["crash.bin", "a Sahara container, v1, as Linux's qaic driver makes it", sahara],
  elf: ["vmcore.elf", "an ELF core of two regions and a note", elf],
} as const satisfies Record<string, readonly [string, string, () => Uint8Array]>;

type Kind = keyof typeof KINDS;
const KIND_NAMES = Object.keys(KINDS) as Kind[];

async function sample(kind: Kind, file: string | undefined): Promise<void> {
  const [usual, what, make] = KINDS[kind];
  const path = file ?? usual;
  const bytes = make();
  makeWholeFile(path, (fd) => writeAll(fd, bytes));
  await write(`${path}: ${formatSize(bytes.length)}, ${what}\n`);
}

export function addSample(program: Command): void {
  const kinds = KIND_NAMES.map((kind) => {
    const [usual, what] = KINDS[kind];
    return `  ${kind.padEnd(9)} ${usual.padEnd(10)}  ${what}`;
  });
  program
    .command("sample")
    .summary("make a file to try the other commands on")
    .description("Make a file of the kind that another command reads: the same bytes in each run.")
    .argument("<kind>", KIND_NAMES.join(", "), (text) => parseChoice("sample", text, KIND_NAMES))
    .argument("[file]", "what to call it; nothing is ever replaced")
    .addHelpText(
      "after",
      `
KIND      FILE        what it is
${kinds.join("\n")}

Examples:
  mmcpstore sample area && mmcpstore ls disk.img
  mmcpstore sample ramoops guest.bin && mmcpstore harvest guest.bin --list
  mmcpstore sample minidump && mmcpstore minidump ls ddr.bin`,
    )
    .action(sample);
}
