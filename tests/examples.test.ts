// Every example of every help text is run, each in a folder of its own with the files that it names, by the command of the
// tarball. The files are those of `mmcpstore sample`, as their users have them. What is elsewhere stands in for what the
// examples name and no test has: a web server, a crashed device, a folder of the system.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, createServer as createNetServer } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Command } from "commander";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeElsewhere, pack, unpackInto } from "./tarball.js";

/** Examples that are not run, and why. */
const NOT_RUN: Record<string, string> = {
  "mmcpstore v86 --kernel vmlinuz --initrd initrd.gz --disk disk.img": "needs a kernel: npm run test:v86",
  "mmcpstore v86 --kernel vmlinuz --initrd initrd.gz --disk disk.img --partition 2 --panic-after 60":
    "needs a kernel: npm run test:v86",
};
const FOLDER = makeElsewhere();
unpackInto(FOLDER, pack(FOLDER).path);
const MMCPSTORE = join(FOLDER, "node_modules", ".bin", "mmcpstore");
const FILES = join(FOLDER, "files");
const STUBS = join(FOLDER, "stubs");
const ENV = {
  ...process.env,
  PATH: `${STUBS}:${join(FOLDER, "node_modules", ".bin")}:${process.env.PATH}`,
  NO_COLOR: "1",
};

/** What an example's file is, by the kind of sample. */
const SAMPLES: Record<string, string> = {
  "disk.img": "disk",
  "panic.txt": "log",
  "console.txt": "log",
  "ram.bin": "ramoops",
  "ocimem.bin": "ramoops",
  "ddr.bin": "minidump",
  "crash.bin": "sahara",
  "vmcore.elf": "elf",
};

function makeFiles(): void {
  mkdirSync(FILES);
  mkdirSync(STUBS);
  for (const [name, kind] of Object.entries(SAMPLES)) {
    execFileSync(MMCPSTORE, ["sample", kind, join(FILES, name)], { env: ENV });
  }
  writeFileSync(join(FILES, "disk.img.gz"), gzipSync(readFileSync(join(FILES, "disk.img")), { level: 1 }));
  writeFileSync(join(FILES, "long.txt"), readFileSync(join(FILES, "panic.txt"), "utf8").repeat(6));
  writeFileSync(join(STUBS, "dmesg"), `#!/bin/sh\ncat ${join(FILES, "panic.txt")}\n`, { mode: 0o755 });
}
makeFiles();

/** The lines under `Examples:` of a command's help. */
function examplesOf(command: Command): string[] {
  let help = "";
  command.configureOutput({
    writeOut: (text) => {
      help += text;
    },
  });
  command.outputHelp();
  const [, lines = ""] = /^Examples:\n((?: {2}.+\n?)+)/m.exec(help) ?? [];
  return lines
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

function withInner(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withInner)];
}

/** A folder with the files that `line` names and does not make itself. */
function makeFolder(number: number, line: string): string {
  const cwd = join(FOLDER, `example-${number}`);
  mkdirSync(cwd);
  for (const name of [...Object.keys(SAMPLES), "disk.img.gz", "long.txt"]) {
    const isNamed = new RegExp(`(^|[^\\w./-])${name.replaceAll(".", "\\.")}(?![\\w.])`).test(line);
    const isMade = new RegExp(`(--out|--container|>|sample \\w+) ?${name.replaceAll(".", "\\.")}`).test(line);
    // What `sample` without a name makes.
    const isUsual = new RegExp(`sample (${SAMPLES[name] ?? "-"}|area) &&`).test(line);
    if (isNamed && !isMade && !isUsual) copyFileSync(join(FILES, name), join(cwd, name));
  }
  // Made by another command, which has an example of its own.
  if (/--store crash\.snap/.test(line)) {
    for (const name of ["disk.img", "panic.txt"]) copyFileSync(join(FILES, name), join(cwd, name));
    const args = ["panic", "disk.img", "--log", "panic.txt", "--snapshots", "crash.snap"];
    execFileSync(MMCPSTORE, args, { cwd, env: ENV });
  }
  return cwd;
}

function runShell(line: string, cwd: string): Promise<{ code: number | null; output: string }> {
  const child = spawn("bash", ["-e", "-o", "pipefail", "-c", line], { cwd, env: ENV });
  return new Promise((resolve) => {
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (data) => {
        output += data;
      });
    }
    child.on("close", (code) => resolve({ code, output }));
  });
}

/** `sahara serve` of `args`; resolves when it listens. */
function startDevice(args: string[], cwd: string): Promise<{ device: ChildProcess; port: number }> {
  const device = spawn(MMCPSTORE, ["sahara", "serve", ...args, "--port", "0"], { cwd, env: ENV });
  return new Promise((resolve, reject) => {
    let said = "";
    for (const stream of [device.stdout, device.stderr]) {
      stream.on("data", (data) => {
        said += data;
        const port = /tcp:\/\/127\.0\.0\.1:(\d+)/.exec(said)?.[1];
        if (port !== undefined) resolve({ device, port: Number(port) });
      });
    }
    device.on("exit", (code) => reject(new Error(`sahara serve: exit code ${code}: ${said}`)));
  });
}

/** The example's device is ours: over TCP, or behind a socket of the system's. */
async function runCollect(line: string, cwd: string): Promise<void> {
  copyFileSync(join(FILES, "ram.bin"), join(cwd, "ram.bin"));
  if (line.includes("--resume")) {
    // The first connection is lost in the middle, and so is the dump.
    const lossy = await startDevice(["ram.bin", "--fault", "disconnect@5"], cwd);
    const first = line
      .replace(" --resume", " --retries 0")
      .replace(/tcp:\S+/, `tcp://127.0.0.1:${lossy.port}`);
    const { code, output } = await runShell(first, cwd);
    assert.is(code, 1, output);
    lossy.device.kill();
  }
  const { device, port } = await startDevice(["ram.bin"], cwd);
  const socket = join(cwd, "qaic.sock");
  const bridge = createNetServer((one) => {
    const other = connect(port, "127.0.0.1");
    one.pipe(other).pipe(one);
    for (const end of [one, other]) end.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => bridge.listen(socket, resolve));
  try {
    const there = line.replace(/tcp:\S+/, `tcp://127.0.0.1:${port}`).replace("/run/qaic.sock", socket);
    const { code, output } = await runShell(there, cwd);
    assert.is(code, 0, `${line}\n${output}`);
  } finally {
    device.kill();
    bridge.close();
  }
}

/** The device of the example is collected from, and ends by that. */
async function runServe(line: string, cwd: string): Promise<void> {
  const args = line.replace(/^mmcpstore sahara serve /, "").replace(/ --port \d+/, "");
  const { device, port } = await startDevice(args.split(" "), cwd);
  const ended = new Promise<number | null>((resolve) => device.on("exit", resolve));
  await runShell(`mmcpstore sahara collect tcp://127.0.0.1:${port} collected/`, cwd);
  assert.is(await ended, 0, line);
}

async function startWeb(): Promise<Server> {
  const web = createServer((request, response) => {
    const bytes = readFileSync(join(FILES, "disk.img"));
    const [, from = "0", to = ""] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "") ?? [];
    const end = Math.min(bytes.length - 1, to === "" ? Number.POSITIVE_INFINITY : Number(to));
    response.writeHead(206, {
      "content-range": `bytes ${from}-${end}/${bytes.length}`,
      "content-length": end - Number(from) + 1,
      etag: '"1"',
    });
    response.end(request.method === "HEAD" ? undefined : bytes.subarray(Number(from), end + 1));
  });
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  return web;
}

const { buildProgram, pathOf } = (await import(
  join(FOLDER, "node_modules/mmcpstore/dist/host/cli/program.js")
)) as typeof import("../host/cli/program.js");
const commands = withInner(await buildProgram());
const web = await startWeb();
const seen = new Set<string>();
let ran = 0;
let notRun = 0;

for (const command of commands) {
  test(`the examples of ${pathOf(command)}`, async () => {
    const examples = examplesOf(command);
    assert.ok(examples.length > 0, `${pathOf(command)} --help has no examples`);
    const own = examples.filter((line) => line.includes(pathOf(command)));
    assert.ok(own.length > 0, `${pathOf(command)} --help has no example of itself`);
    for (const line of examples) {
      if (seen.has(line)) continue;
      seen.add(line);
      if (Object.hasOwn(NOT_RUN, line)) {
        notRun++;
        continue;
      }
      ran++;
      const cwd = makeFolder(ran, line);
      if (line.includes("sahara serve")) await runServe(line, cwd);
      else if (line.includes("sahara collect")) await runCollect(line, cwd);
      else {
        const here = line
          .replace("https://example.org", `http://127.0.0.1:${(web.address() as AddressInfo).port}`)
          .replace("/var/lib/systemd/pstore", "archive")
          .replace("/sys/class/devcoredump/devcd1/data", join(FILES, "crash.bin"));
        const { code, output } = await runShell(here, cwd);
        assert.is(code, 0, `${line}\n${output}`);
      }
      rmSync(cwd, { recursive: true });
    }
  });
}

test("all were run but those that say why not", () => {
  console.log(`# ${commands.length} help texts, ${ran} examples run, ${notRun} not run`);
  assert.is(notRun, Object.keys(NOT_RUN).length);
  assert.ok(ran >= 50);
});

test.after(() => {
  web.close();
  if (existsSync(FOLDER)) rmSync(FOLDER, { recursive: true });
});
test.run();
