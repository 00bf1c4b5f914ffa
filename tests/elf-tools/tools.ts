// Our ELF cores in other people's hands: readelf, eu-elflint, objdump, gdb and crash on cores of four machines, both
// classes, one taken off a card, and Linux's remoteproc layouts. Run by `npm run test:elf`; what is missing is installed by apt.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CrashDump, type DumpOptions } from "../../host/dump/dump.js";
import {
  machineOf,
  type NoteMachine,
  prPsInfoNote,
  prStatusNote,
  vmcoreinfoNote,
} from "../../host/dump/notes.js";
import { findGeometry, openImageDevice, openRaw } from "../../host/node.js";
import { coreModule, pattern, ROOT } from "../machine.js";

const TOOLS: Record<string, string> = {
  readelf: "binutils",
  objdump: "binutils",
  "eu-elflint": "elfutils",
  "gdb-multiarch": "gdb-multiarch",
  crash: "crash",
};
const TOOL_TIMEOUT_MS = 60_000;
const FOLDER = mkdtempSync(join(tmpdir(), "mmcpstore-elf-"));

interface Answer {
  status: number | null;
  /** Both outputs, in the order of the lines of each. */
  text: string;
}

function run(tool: string, args: string[]): Answer {
  const { status, stdout, stderr, error } = spawnSync(tool, args, {
    encoding: "utf8",
    timeout: TOOL_TIMEOUT_MS,
    env: { ...process.env, LC_ALL: "C", DEBUGINFOD_URLS: "" },
  });
  if (error !== undefined) throw error;
  return { status, text: `${stdout}${stderr}` };
}

function isInstalled(tool: string): boolean {
  const { error } = spawnSync(tool, ["--version"], { timeout: TOOL_TIMEOUT_MS });
  return (error as { code?: string } | undefined)?.code !== "ENOENT";
}

/** Installs what is missing. Throws if it cannot: without its tools this file has nothing to say. */
function ensureTools(): void {
  const missing = Object.keys(TOOLS).filter((tool) => !isInstalled(tool));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((tool) => TOOLS[tool] ?? tool))];
  for (const args of [
    ["update", "-qq"],
    ["install", "-y", "-qq", "--no-install-recommends", ...packages],
  ]) {
    const { status, stderr } = spawnSync("apt-get", args, {
      encoding: "utf8",
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    });
    if (status !== 0) throw new Error(`apt-get ${args.join(" ")}: ${stderr}`);
  }
  const still = missing.filter((tool) => !isInstalled(tool));
  if (still.length > 0) throw new Error(`not there after apt-get install: ${still}`);
}

interface Sample {
  name: string;
  file: string;
  machine: NoteMachine;
  elfClass: 32 | 64;
  vaddr: bigint;
  hasVmcoreinfo: boolean;
}

const TEXT = pattern(1, 4096);
const DATA = pattern(2, 777);
const DATA_ADDRESS = 0x10000n;
/** Register number n of pr_reg holds this plus 4n: ARM has no odd pc. */
const REGISTER = 0x1000;
/** Which of pr_reg gdb calls pc. */
const PC: Record<NoteMachine, number> = { "x86-64": 16, aarch64: 32, i386: 12, arm: 15 };
const NAMES: Record<NoteMachine, string> = {
  "x86-64": "Advanced Micro Devices X86-64",
  aarch64: "AArch64",
  i386: "Intel 80386",
  arm: "ARM",
};

function store(name: string, options: DumpOptions, vaddr: bigint): string {
  const dump = new CrashDump(coreModule("release"), options);
  dump.register({ name: "text", address: 0x1000n, vaddr, source: TEXT, flags: 5 });
  dump.register({ name: "data", address: DATA_ADDRESS, source: DATA });
  const plan = dump.plan();
  const file = join(FOLDER, `${name}.elf`);
  writeFileSync(file, plan.read(0, plan.sizeBytes));
  return file;
}

function makeSample(machine: NoteMachine, hasVmcoreinfo: boolean, sections: boolean): Sample {
  const elfClass = machine === "x86-64" || machine === "aarch64" ? 64 : 32;
  const vaddr = elfClass === 64 ? 0xffffffff81000000n : 0xc1000000n;
  const count = { "x86-64": 27, aarch64: 34, i386: 17, arm: 18 }[machine];
  const registers = Array.from({ length: count }, (_, i) => BigInt(REGISTER + 4 * i));
  const notes = [
    prStatusNote(machine, { pid: 1234, signal: 11, registers }),
    prPsInfoNote(machine, { pid: 1234, name: "panicked", args: "panicked --now" }),
  ];
  if (hasVmcoreinfo) notes.push(vmcoreinfoNote("OSRELEASE=6.12.0-test\nPAGESIZE=4096\n"));
  const name = `${machine}${hasVmcoreinfo ? "-vmcoreinfo" : ""}${sections ? "" : "-plain"}`;
  const file = store(name, { class: elfClass, machine: machineOf(machine), sections, notes }, vaddr);
  return { name, file, machine, elfClass, vaddr, hasVmcoreinfo };
}

/** The same core, stored by a panic on a card's image, and taken off that by the command. */
function takeOffCard(): Sample {
  const path = (name: string) => join(FOLDER, name);
  const image = path("card.img");
  writeFileSync(image, "");
  truncateSync(image, 4 << 20);
  const raw = openRaw(image, { writable: true });
  const registers = Array.from({ length: 27 }, (_, i) => BigInt(REGISTER + 4 * i));
  const notes = [
    prStatusNote("x86-64", { pid: 1234, signal: 11, registers }),
    prPsInfoNote("x86-64", { pid: 1234, name: "panicked", args: "panicked --now" }),
    vmcoreinfoNote("OSRELEASE=6.12.0-test\nPAGESIZE=4096\n"),
  ];
  const sizeBytes = 1 << 20;
  const geometry = findGeometry(new Uint8Array(sizeBytes));
  const area = { offset: 2 << 20, sizeBytes };
  const vaddr = 0xffffffff81000000n;
  const dump = { class: 64, machine: machineOf("x86-64"), notes, area } as const;
  const { device } = openImageDevice(raw, { offset: 0, sizeBytes, geometry }, { dump });
  device.registerRegion({ name: "text", address: 0x1000n, vaddr, source: TEXT, flags: 5 });
  device.registerRegion({ name: "data", address: DATA_ADDRESS, source: DATA });
  device.leaveInFlight("write");
  const result = device.panicWrite({ text: "a panic" });
  raw.closeSync();
  assert.is(result.dump?.state, "complete");
  const main = `${ROOT}dist/host/cli/main.js`;
  const { status, text } = run(process.execPath, [main, "core", "extract", image, FOLDER, "--offset", "2M"]);
  assert.is(status, 0, text);
  const file = path("core.elf");
  return { name: "x86-64 off a card", file, machine: "x86-64", elfClass: 64, vaddr, hasVmcoreinfo: true };
}

function hexWord(bytes: Uint8Array, at: number): string {
  const word = new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
  return `0x${word.toString(16).padStart(8, "0")}`;
}

ensureTools();
const samples = (["x86-64", "aarch64", "i386", "arm"] as const).flatMap((machine) =>
  [true, false].flatMap((hasVmcoreinfo) =>
    [true, false].map((sections) => makeSample(machine, hasVmcoreinfo, sections)),
  ),
);
samples.push(takeOffCard());

for (const { name, file, machine, elfClass, vaddr, hasVmcoreinfo } of samples) {
  test(`readelf: ${name}`, () => {
    const { status, text } = run("readelf", ["-hSlnW", file]);
    assert.is(status, 0);
    assert.not.match(text, /warning|error/i);
    assert.match(text, new RegExp(`Class: +ELF${elfClass}\\n`));
    assert.match(text, /Type: +CORE/);
    assert.match(text, new RegExp(`Machine: +${NAMES[machine]}`));
    const [first] = text.match(/^ +(NOTE|LOAD) .*$/m) ?? [];
    assert.match(first ?? "", /NOTE/);
    const address = (value: bigint) => `0x${value.toString(16).padStart(elfClass / 4, "0")}`;
    const load = (one: bigint, other: bigint, size: number, flags: string) => {
      const sizes = `0x0*${size.toString(16)} 0x0*${size.toString(16)}`;
      return new RegExp(
        `LOAD +0x[0-9a-f]+ ${address(one)} ${address(other)} ${sizes} ${flags} +0`.replace(/ (?!\+)/g, " +"),
      );
    };
    assert.match(text, load(vaddr, 0x1000n, 4096, "R E"));
    assert.match(text, load(DATA_ADDRESS, DATA_ADDRESS, 777, "RW"));
    assert.match(text, /NT_PRSTATUS.*\n.*NT_PRPSINFO/);
    assert.is(/VMCOREINFO/.test(text), hasVmcoreinfo);
    if (!name.endsWith("-plain")) assert.match(text, /\[ 2\] text +PROGBITS.*\n.*\[ 3\] data +PROGBITS/);
  });

  test(`eu-elflint: ${name}`, () => {
    const { text } = run("eu-elflint", [file]);
    const lines = text.split("\n").filter((line) => line !== "" && line !== "No errors");
    // elfutils 0.188 does not know the kernel's own note, whoever writes it.
    const expected = hasVmcoreinfo ? /^phdr\[0\]: unknown core file note type 0 at offset \d+$/ : null;
    const unexpected = lines.filter((line) => expected === null || !expected.test(line));
    assert.equal(unexpected, []);
    if (expected === null) assert.match(text, /No errors/);
    else assert.is(lines.length, 1);
  });

  test(`objdump: ${name}`, () => {
    const listed = run("objdump", ["-h", file]);
    assert.is(listed.status, 0);
    assert.match(listed.text, / load1 +00001000 /);
    assert.match(listed.text, / load2 +00000309 /);
    const start = `0x${vaddr.toString(16)}`;
    const stop = `0x${(vaddr + 16n).toString(16)}`;
    const { status, text } = run("objdump", [
      "-s",
      `--start-address=${start}`,
      `--stop-address=${stop}`,
      file,
    ]);
    assert.is(status, 0);
    const hex = Buffer.from(TEXT.subarray(0, 16))
      .toString("hex")
      .replace(/(.{8})(?=.)/g, "$1 ");
    assert.ok(text.includes(hex), text);
  });

  test(`gdb: ${name}`, () => {
    const commands = [`x/2xw 0x${vaddr.toString(16)}`, `x/2xw ${DATA_ADDRESS}`, "p/x $pc", "info threads"];
    const { text } = run("gdb-multiarch", [
      "-nx",
      "-batch",
      "-ex",
      `core-file ${file}`,
      ...commands.flatMap((one) => ["-ex", one]),
    ]);
    assert.not.match(text, /warning|not a core|error/i);
    assert.match(text, /New LWP 1234/);
    assert.match(text, /signal SIGSEGV/);
    for (const bytes of [TEXT, DATA]) {
      assert.match(text, new RegExp(`:\\s+${hexWord(bytes, 0)}\\s+${hexWord(bytes, 4)}`));
    }
    assert.ok(text.includes(`$1 = 0x${(REGISTER + 4 * PC[machine]).toString(16)}`), text);
  });
}

test("crash: finds the kernel's release in VMCOREINFO, and none without", () => {
  // Debian's crash is built for one machine: x86-64 files are what it takes there.
  const found = samples.filter(({ machine }) => machine === "x86-64");
  assert.is(found.length, 5);
  for (const { file, hasVmcoreinfo } of found) {
    const { text } = run("crash", ["--osrelease", file]);
    assert.is(text.trim(), hasVmcoreinfo ? "6.12.0-test" : "unknown");
  }
});

test("the layouts of Linux's remoteproc are read as those of the kernel are", () => {
  const program = store("remoteproc", { class: 32, machine: 164, layout: "remoteproc" }, 0x1000n);
  const sections = store("sections", { class: 32, machine: 0, layout: "remoteproc-sections" }, 0x1000n);
  for (const file of [program, sections]) assert.not.match(run("readelf", ["-aW", file]).text, /warning/i);
  assert.match(run("objdump", ["-h", program]).text, /load0 +00001000 /);
  assert.match(
    run("gdb-multiarch", ["-nx", "-batch", "-ex", `core-file ${program}`, "-ex", "x/xw 0x10000"]).text,
    /:/,
  );
  // A core of sections alone is none for BFD: that is why layout `core` has program headers always.
  assert.match(run("objdump", ["-h", sections]).text, /file format not recognized/);
});

test.after(() => rmSync(FOLDER, { recursive: true, force: true }));
test.run();
