// A remote processor's crash in each mode: byte for byte the kernel's files, how long recovery waits and what ends the
// wait, where a dump is kept; each comment of the review of "remoteproc: core: Add a memory efficient coredump
// function" (Linux, April 2020); and how many steps a read takes.
import { readFileSync } from "node:fs";
import binaryen from "binaryen";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  DEVCOREDUMP_TIMEOUT_NS,
  Devcoredump,
  type DevcoredumpEnd,
  type DevcoredumpEntry,
} from "../host/dump/devcoredump.js";
import { CrashDump, type DumpOptions, type Region } from "../host/dump/dump.js";
import { bytesSource, readElfCore } from "../host/dump/elf.js";
import * as remoteproc from "../host/dump/remoteproc.js";
import { type CoredumpMode, RemoteProc, type RemoteProcOptions } from "../host/dump/remoteproc.js";
import { KERNEL_CORES, kernelCore } from "./kernel-cores.js";
import { coreModule, pattern, ROOT, sameBytes } from "./machine.js";

const release = coreModule("release");
const SECOND_NS = 1_000_000_000n;
const DONE = new TextEncoder().encode("1");

function dumpOf(regions: Region[], options: Partial<DumpOptions> = {}): CrashDump {
  const dump = new CrashDump(release, { class: 64, machine: 183, layout: "remoteproc", ...options });
  for (const region of regions) dump.register(region);
  return dump;
}

const MEMORY = pattern(3, 10_000);
const regionsOf = (memory: Uint8Array): Region[] => [
  { name: "a", address: 0x1000n, source: memory.subarray(0, 1000) },
  { name: "b", address: 0x8000n, source: memory.subarray(1000) },
];

function procOf(options: Partial<RemoteProcOptions> = {}): { proc: RemoteProc; devcoredump: Devcoredump } {
  const devcoredump = options.devcoredump ?? new Devcoredump();
  const dump = options.dump ?? dumpOf(regionsOf(MEMORY));
  return { proc: new RemoteProc({ name: "remoteproc0", dump, devcoredump, ...options }), devcoredump };
}

/** A collector that knows of devcoredump and of nothing else. */
function collect(devcoredump: Devcoredump, count = 4096): Uint8Array {
  const [entry] = devcoredump.entries();
  if (entry === undefined) throw new Error("no dump");
  const bytes = readAll(entry, count);
  assert.is(entry.write(DONE), DONE.length);
  return bytes;
}

function readAll(entry: DevcoredumpEntry, count: number): Uint8Array {
  const bytes: number[] = [];
  for (let piece = entry.read(0, count); piece.length > 0; piece = entry.read(bytes.length, count)) {
    bytes.push(...piece);
  }
  return Uint8Array.from(bytes);
}

function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return `${(error as { code?: string }).code}`;
  }
  return "none";
}

// ---- the kernel's files ----

for (const [name, options, regions] of KERNEL_CORES) {
  for (const mode of ["enabled", "inline"] as const) {
    test(`${name}, ${mode}: byte for byte what the kernel gave in this mode`, () => {
      for (const count of [1, 7, 4096]) {
        const { proc, devcoredump } = procOf({ dump: dumpOf(regions, options), coredump: mode });
        proc.reportCrash();
        assert.equal([...collect(devcoredump, count)], [...kernelCore(name)]);
        const holes = regions.filter(({ source }) => typeof source === "function").length;
        assert.is(proc.lastCoredump?.failures.length, holes);
        assert.is(proc.state, "running");
      }
    });
  }
}

test("the two modes give the same bytes, whatever the regions", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 0, max: 3 })), {
        minLength: 1,
        maxLength: 8,
      }),
      fc.constantFrom("core" as const, "remoteproc" as const, "remoteproc-sections" as const),
      fc.integer({ min: 1, max: 5000 }),
      (sizes, layout, count) => {
        const regions = sizes.map(([size, kind], i): Region => {
          const bytes = pattern(i, size);
          const source = (offset: number, target: Uint8Array) => {
            target.set(bytes.subarray(offset, offset + target.length));
            // Some bring nothing, some fail at their second page.
            if (kind === 1) return 0;
            if (kind === 2 && offset < 8192 && offset + target.length > 4096) throw new Error("bus error");
            return target.length;
          };
          return { name: `r${i}`, address: BigInt(i) << 16n, size, source: kind === 0 ? bytes : source };
        });
        const [enabled, inline] = (["enabled", "inline"] as const).map((coredump) => {
          const { proc, devcoredump } = procOf({ dump: dumpOf(regions, { layout }), coredump });
          proc.reportCrash();
          return { bytes: collect(devcoredump, count), failures: proc.lastCoredump?.failures };
        });
        assert.ok(sameBytes(enabled?.bytes as Uint8Array, inline?.bytes as Uint8Array));
        assert.equal(enabled?.failures, inline?.failures);
      },
    ),
    { numRuns: 200 },
  );
});

test("enabled is the memory at the crash, inline that at the reading", () => {
  for (const coredump of ["enabled", "inline"] as const) {
    const memory = new Uint8Array(100).fill(1);
    const dump = dumpOf([{ name: "a", address: 0n, source: memory }]);
    const { proc, devcoredump } = procOf({ dump, coredump });
    proc.reportCrash();
    memory.fill(2);
    assert.is(devcoredump.entries()[0]?.read(200, 1)[0], coredump === "enabled" ? 1 : 2);
    const register = () => dump.register({ name: "b", address: 0x1000n, source: memory });
    assert.is(codeOf(register), coredump === "enabled" ? "none" : "EBUSY");
  }
});

// ---- waiting ----

const ENDS: [DevcoredumpEnd, bigint, (devcoredump: Devcoredump) => void][] = [
  ["written", 7n * SECOND_NS, (one) => one.entries()[0]?.write(DONE)],
  ["expired", DEVCOREDUMP_TIMEOUT_NS, (one) => one.advance(400n * SECOND_NS)],
  ["disabled", 7n * SECOND_NS, (one) => one.writeDisabled("1")],
];

for (const [end, waitedNs, act] of ENDS) {
  test(`inline: recovery waits until the dump is ${end}`, () => {
    const calls: string[] = [];
    const { proc, devcoredump } = procOf({
      coredump: "inline",
      ops: { stop: () => calls.push("stop"), start: () => calls.push("start") },
    });
    proc.reportCrash();
    devcoredump.advance(7n * SECOND_NS);
    assert.equal([proc.state, proc.isRecovering, calls.join()], ["offline", true, "stop"]);
    assert.is(proc.lastCoredump?.state, "waiting");
    // Reading to the end does not end it: nobody but the reader knows that it is done.
    const [entry] = devcoredump.entries() as [DevcoredumpEntry];
    readAll(entry, 4096);
    assert.is(entry.read(1 << 20, 4096).length, 0);
    assert.is(proc.isRecovering, true);
    act(devcoredump);
    assert.equal([proc.state, proc.isRecovering, calls.join()], ["running", false, "stop,start"]);
    assert.equal([proc.lastCoredump?.state, proc.lastCoredump?.waitedNs], [end, waitedNs]);
    assert.is(
      codeOf(() => entry.read(0, 1)),
      "ENODEV",
    );
    assert.is(
      codeOf(() => entry.write(DONE)),
      "ENODEV",
    );
    assert.equal(devcoredump.entries(), []);
  });
}

test("the deadline is five minutes from the crash on, and reading does not move it", () => {
  assert.is(DEVCOREDUMP_TIMEOUT_NS, 300n * SECOND_NS);
  const { proc, devcoredump } = procOf({ coredump: "inline" });
  devcoredump.advance(1000n * SECOND_NS);
  proc.reportCrash();
  devcoredump.advance(1300n * SECOND_NS - 1n);
  assert.is(devcoredump.entries()[0]?.read(0, 64).length, 64);
  assert.is(proc.state, "offline");
  devcoredump.advance(1300n * SECOND_NS);
  assert.is(proc.state, "running");
  assert.is(
    codeOf(() => devcoredump.advance(1299n * SECOND_NS)),
    "EINVAL",
  );
});

test("another deadline, and none that is none", () => {
  const { proc, devcoredump } = procOf({ coredump: "inline", timeoutNs: 5n });
  proc.reportCrash();
  devcoredump.advance(4n);
  assert.is(proc.isRecovering, true);
  devcoredump.advance(5n);
  assert.is(proc.lastCoredump?.state, "expired");
  for (const timeoutNs of [0n, -1n]) {
    assert.is(
      codeOf(() => procOf({ timeoutNs })),
      "EINVAL",
    );
    const source = { read: () => DONE, free: () => undefined };
    assert.is(
      codeOf(() => new Devcoredump().add("d", source, timeoutNs)),
      "EINVAL",
    );
  }
});

test("it makes no difference in how many steps time goes on", () => {
  const run = (stepNs: bigint) => {
    const devcoredump = new Devcoredump();
    const log: string[] = [];
    const procs = [100n, 300n].map((timeoutSec, i) => {
      const name = `remoteproc${i}`;
      const start = () => log.push(`${name} at ${devcoredump.nowNs / SECOND_NS}`);
      const dump = dumpOf(regionsOf(MEMORY));
      const options = { name, dump, devcoredump, coredump: "inline" as const, ops: { start } };
      return new RemoteProc({ ...options, timeoutNs: timeoutSec * SECOND_NS });
    });
    for (const proc of procs) proc.reportCrash();
    // One more crash of each is waiting: its dump begins when the first one's time is over.
    for (const proc of procs) proc.reportCrash();
    for (let now = stepNs; devcoredump.nowNs < 1000n * SECOND_NS; now += stepNs) devcoredump.advance(now);
    return log;
  };
  const expected = ["remoteproc0 at 100", "remoteproc0 at 200", "remoteproc1 at 300", "remoteproc1 at 600"];
  for (const stepNs of [SECOND_NS, 7n * SECOND_NS, 150n * SECOND_NS, 1000n * SECOND_NS]) {
    assert.equal(run(stepNs), expected);
  }
});

test("crashes and stops during a recovery are done after it", () => {
  const calls: string[] = [];
  const ops = { stop: () => calls.push("stop"), start: () => calls.push("start") };
  const { proc, devcoredump } = procOf({ coredump: "inline", ops });
  proc.reportCrash();
  proc.reportCrash();
  proc.reportCrash();
  assert.is(devcoredump.entries().length, 1);
  devcoredump.entries()[0]?.write(DONE);
  // The crashes of meanwhile are one.
  assert.is(devcoredump.entries()[0]?.name, "devcd2");
  assert.is(proc.isRecovering, true);
  assert.is(
    codeOf(() => proc.start()),
    "EBUSY",
  );
  proc.stop();
  proc.reportCrash();
  assert.is(proc.isRecovering, true);
  devcoredump.entries()[0]?.write(DONE);
  // A processor that was stopped is not recovered.
  assert.equal([proc.state, proc.isRecovering], ["offline", false]);
  assert.is(calls.join(), "stop,start,stop,start,stop");
  assert.is(
    codeOf(() => proc.stop()),
    "EINVAL",
  );
  proc.reportCrash();
  assert.is(proc.state, "offline");
  proc.start();
  assert.is(proc.state, "running");
  assert.is(
    codeOf(() => proc.start()),
    "EBUSY",
  );
});

test("an inline dump that is dropped, because one waits or dumps are off, holds nobody", () => {
  const { proc, devcoredump } = procOf({ coredump: "enabled" });
  proc.reportCrash();
  proc.writeCoredump("inline");
  proc.reportCrash();
  assert.equal([proc.lastCoredump?.state, proc.state], ["pending", "running"]);
  assert.equal(
    devcoredump.entries().map(({ name, device }) => [name, device]),
    [["devcd1", "remoteproc0"]],
  );
  devcoredump.writeDisabled("1\n");
  assert.equal(devcoredump.entries(), []);
  assert.is(devcoredump.isDisabled, true);
  proc.reportCrash();
  assert.equal([proc.lastCoredump?.state, proc.state], ["disabled", "running"]);
  // For ever.
  for (const text of ["0", "", "1 ", "11", "on"]) {
    assert.is(
      codeOf(() => devcoredump.writeDisabled(text)),
      "EINVAL",
      text,
    );
  }
  assert.is(devcoredump.isDisabled, true);
});

test("one dump a device, several devices", () => {
  const devcoredump = new Devcoredump();
  const ends: string[] = [];
  const add = (device: string) =>
    devcoredump.add(device, {
      read: (offset, count) => DONE.slice(offset, offset + count),
      free: (end) => ends.push(`${device} ${end}`),
    });
  const [a, b] = [add("a"), add("b")];
  assert.is(add("a"), null);
  assert.equal(ends, ["a pending"]);
  assert.is(a?.write(new Uint8Array(0)), 0);
  assert.is(add("a")?.name, "devcd3");
  devcoredump.advance(DEVCOREDUMP_TIMEOUT_NS);
  assert.equal(ends, ["a pending", "a written", "b expired", "a expired"]);
  assert.is(
    codeOf(() => b?.read(0, 1)),
    "ENODEV",
  );
});

test("reads at any offset, in both modes; broken numbers are refused", () => {
  for (const coredump of ["enabled", "inline"] as const) {
    const { proc, devcoredump } = procOf({ coredump });
    proc.reportCrash();
    const [entry] = devcoredump.entries() as [DevcoredumpEntry];
    const whole = readAll(entry, 100_000);
    assert.is(whole.length, 64 + 2 * 56 + MEMORY.length);
    for (let i = 0; i < 300; i++) {
      const [offset, count] = [(i * 7919) % (whole.length + 50), (i * 31) % 700];
      assert.ok(sameBytes(entry.read(offset, count), whole.subarray(offset, offset + count)));
    }
    for (const [offset, count] of [
      [-1, 1],
      [0, -1],
      [0.5, 1],
      [0, Number.NaN],
      [2 ** 53, 1],
    ] as const) {
      assert.is(
        codeOf(() => entry.read(offset, count)),
        "EINVAL",
      );
    }
  }
});

test("the words of the attributes are the kernel's, whole words, and not while it is crashed", () => {
  const { proc, devcoredump } = procOf({ recovery: false });
  for (const word of ["enabled", "inline\n", "disabled"]) {
    proc.writeCoredump(word);
    assert.is(proc.coredump, word.trim());
  }
  for (const word of ["", "e", "en", "Inline", "inline ", "inline\n\n", "default", "0"]) {
    assert.is(
      codeOf(() => proc.writeCoredump(word)),
      "EINVAL",
      word,
    );
    assert.is(
      codeOf(() => proc.writeRecovery(word)),
      "EINVAL",
      word,
    );
  }
  assert.is(
    codeOf(() => procOf({ coredump: "default" as CoredumpMode })),
    "EINVAL",
  );
  proc.writeCoredump("enabled");
  proc.reportCrash();
  assert.equal([proc.state, proc.lastCoredump, proc.recovery], ["crashed", null, "disabled"]);
  assert.is(
    codeOf(() => proc.writeCoredump("inline")),
    "EBUSY",
  );
  assert.is(
    codeOf(() => proc.stop()),
    "EINVAL",
  );
  proc.writeRecovery("recover\n");
  assert.equal([proc.state, proc.recovery, devcoredump.entries().length], ["running", "disabled", 1]);
  proc.reportCrash();
  assert.is(proc.state, "crashed");
  proc.writeRecovery("enabled");
  assert.equal([proc.state, proc.recovery], ["running", "enabled"]);
  proc.writeRecovery("disabled");
  assert.is(proc.recovery, "disabled");
});

test("a processor that cannot be stopped or started says why, and what waits for it goes on", () => {
  let fails = "stop";
  const op = (name: string) => () => {
    if (fails === name) throw new Error(`no ${name}`);
  };
  const { proc, devcoredump } = procOf({ coredump: "inline", ops: { stop: op("stop"), start: op("start") } });
  proc.reportCrash();
  assert.equal([proc.state, `${proc.recoveryError}`], ["crashed", "Error: no stop"]);
  assert.equal(devcoredump.entries(), []);
  fails = "start";
  proc.writeRecovery("recover");
  proc.reportCrash();
  devcoredump.entries()[0]?.write(DONE);
  assert.equal([proc.state, `${proc.recoveryError}`], ["offline", "Error: no start"]);
  assert.is(proc.isRecovering, false);
  fails = "";
  proc.start();
  proc.reportCrash();
  proc.stop();
  fails = "stop";
  devcoredump.advance(DEVCOREDUMP_TIMEOUT_NS);
  assert.equal([proc.state, `${proc.recoveryError}`], ["running", "Error: no stop"]);
});

test("ops cannot call back into the processor that calls them", () => {
  const codes: string[] = [];
  const proc: RemoteProc = procOf({
    ops: {
      stop: () => codes.push(codeOf(() => proc.stop())),
      start: () =>
        codes.push(
          codeOf(() => proc.reportCrash()),
          codeOf(() => proc.start()),
        ),
    },
  }).proc;
  proc.reportCrash();
  assert.equal(codes, ["EBUSY", "EBUSY", "EBUSY"]);
  assert.is(proc.state, "running");
});

test("a dump that cannot be planned is told, and recovery goes on", () => {
  for (const coredump of ["enabled", "inline"] as const) {
    const { proc, devcoredump } = procOf({ dump: dumpOf([]), coredump });
    proc.reportCrash();
    assert.equal([proc.lastCoredump?.state, proc.lastCoredump?.error?.code], ["failed", "ENODATA"]);
    assert.equal([proc.state, devcoredump.entries().length], ["running", 0]);
  }
});

// ---- the review ----

test("review 1: freeing is no business of anybody outside: the module gives RemoteProc alone", () => {
  assert.equal(Object.keys(remoteproc), ["RemoteProc"]);
  const methods = Object.getOwnPropertyNames(RemoteProc.prototype).filter(
    (name) => Object.getOwnPropertyDescriptor(RemoteProc.prototype, name)?.get === undefined,
  );
  assert.equal(methods.sort(), [
    "constructor",
    "reportCrash",
    "start",
    "stop",
    "writeCoredump",
    "writeRecovery",
  ]);
});

test("review 2: nothing is printed", () => {
  const lines: unknown[] = [];
  const print = (...line: unknown[]) => lines.push(line) > 0;
  const before = { ...console };
  const [out, err] = [process.stdout.write, process.stderr.write];
  for (const name of ["log", "info", "warn", "error", "debug"] as const) console[name] = print;
  process.stdout.write = print as typeof process.stdout.write;
  process.stderr.write = print as typeof process.stderr.write;
  try {
    for (const coredump of ["disabled", "enabled", "inline"] as const) {
      const { proc, devcoredump } = procOf({ coredump });
      proc.reportCrash();
      if (coredump !== "disabled") collect(devcoredump);
    }
  } finally {
    Object.assign(console, before);
    process.stdout.write = out;
    process.stderr.write = err;
  }
  assert.equal(lines, []);
});

test("review 3: an offset is resolved to its segment, at each of its ends too", () => {
  const { proc, devcoredump } = procOf({ coredump: "inline" });
  proc.reportCrash();
  const [entry] = devcoredump.entries() as [DevcoredumpEntry];
  const header = 64 + 2 * 56;
  for (let at = 0; at < MEMORY.length; at++) assert.is(entry.read(header + at, 1)[0], MEMORY[at]);
});

test("review 4: a read that ends with the file is whole, and the next one is empty", () => {
  const { proc, devcoredump } = procOf({ coredump: "inline" });
  proc.reportCrash();
  const [entry] = devcoredump.entries() as [DevcoredumpEntry];
  const end = 64 + 2 * 56 + MEMORY.length;
  assert.ok(sameBytes(entry.read(end - 500, 500), MEMORY.subarray(-500)));
  assert.is(entry.read(end, 1).length, 0);
});

test("review 5: bytes that were copied before the end of the file are not lost", () => {
  const { proc, devcoredump } = procOf({ coredump: "inline" });
  proc.reportCrash();
  const [entry] = devcoredump.entries() as [DevcoredumpEntry];
  const end = 64 + 2 * 56 + MEMORY.length;
  assert.ok(sameBytes(entry.read(end - 3, 4096), MEMORY.subarray(-3)));
});

test("review 6: what a read gives is as long as what it copied, not as what was asked for", () => {
  const { proc, devcoredump } = procOf({ coredump: "inline" });
  proc.reportCrash();
  const [entry] = devcoredump.entries() as [DevcoredumpEntry];
  const end = 64 + 2 * 56 + MEMORY.length;
  assert.is(entry.read(0, 1 << 30).length, end);
  for (const past of [0, 1, 4096]) assert.is(entry.read(end + past, 4096).length, 0);
});

test("review 7: custom segments are brought when they are read, with offset and size, and never into the header", () => {
  const asked: [number, number][] = [];
  const custom: Region = {
    name: "custom",
    address: 0x20000n,
    size: 50_000,
    source: (offset, target) => {
      asked.push([offset, target.length]);
      target.fill(0x55);
    },
  };
  const dump = dumpOf([custom, { name: "plain", address: 0n, source: pattern(1, 100) }]);
  const { proc, devcoredump } = procOf({ dump, coredump: "inline" });
  proc.reportCrash();
  assert.equal(asked, []);
  const [entry] = devcoredump.entries() as [DevcoredumpEntry];
  const header = entry.read(0, 176);
  assert.equal(asked, []);
  assert.ok(entry.read(176 + 1000, 4096).every((byte) => byte === 0x55));
  assert.equal(asked, [[1000, 4096]]);
  assert.ok(sameBytes(entry.read(0, 176), header));
  assert.equal(readElfCore(bytesSource(readAll(entry, 4096))).problems, []);
});

test("review 8: what a dump needs belongs to the dump: two processors at once, and one twice", () => {
  const devcoredump = new Devcoredump();
  const [first, second] = [pattern(1, 5000), pattern(2, 5000)];
  const procs = [first, second].map(
    (memory, i) =>
      procOf({ dump: dumpOf(regionsOf(memory)), name: `remoteproc${i}`, coredump: "inline", devcoredump })
        .proc,
  );
  for (const proc of procs) proc.reportCrash();
  const [a, b] = devcoredump.entries() as [DevcoredumpEntry, DevcoredumpEntry];
  for (let at = 0; at < 5000; at += 100) {
    assert.ok(sameBytes(a.read(176 + at, 100), first.subarray(at, at + 100)));
    assert.ok(sameBytes(b.read(176 + at, 100), second.subarray(at, at + 100)));
  }
  b.write(DONE);
  assert.equal(
    procs.map(({ isRecovering }) => isRecovering),
    [true, false],
  );
  const firstDump = procs[0]?.lastCoredump;
  a.write(DONE);
  procs[0]?.reportCrash();
  const [again] = devcoredump.entries() as [DevcoredumpEntry];
  assert.ok(sameBytes(again.read(176, 5000), first));
  assert.is(
    codeOf(() => a.read(0, 1)),
    "ENODEV",
  );
  assert.equal([firstDump?.state, procs[0]?.lastCoredump?.state], ["written", "waiting"]);
});

test("review 9: where nobody collects, recovery is not held: the default is disabled, enabled does not wait", () => {
  const { proc, devcoredump } = procOf();
  assert.is(proc.coredump, "disabled");
  proc.reportCrash();
  assert.equal([proc.state, proc.lastCoredump, devcoredump.entries().length], ["running", null, 0]);
  proc.writeCoredump("enabled");
  for (let i = 0; i < 3; i++) {
    proc.reportCrash();
    assert.equal([proc.state, proc.lastCoredump?.waitedNs], ["running", 0n]);
  }
});

test("review 10: a collector switches inline on when it is there, and off again when it goes", () => {
  const { proc, devcoredump } = procOf();
  proc.reportCrash();
  proc.writeCoredump("inline\n");
  proc.reportCrash();
  assert.is(proc.isRecovering, true);
  // Also while the processor is held; it counts from the next crash on.
  proc.writeCoredump("disabled\n");
  assert.is(proc.isRecovering, true);
  collect(devcoredump);
  proc.reportCrash();
  assert.equal([proc.state, devcoredump.entries().length], ["running", 0]);
});

test("review 11: one and the same processor does every mode, one after the other", () => {
  const { proc, devcoredump } = procOf();
  const files: Uint8Array[] = [];
  for (const mode of ["inline", "enabled", "disabled", "enabled", "inline"] as const) {
    proc.writeCoredump(mode);
    proc.reportCrash();
    if (mode !== "disabled") files.push(collect(devcoredump));
    assert.is(proc.state, "running");
  }
  assert.is(files.length, 4);
  for (const file of files) assert.ok(sameBytes(file, files[0] as Uint8Array));
});

test("review 12: the mode is no property of who started the processor", () => {
  // Running from the beginning (auto_boot); whoever holds the attribute may change it, also between stop and start.
  const { proc, devcoredump } = procOf();
  assert.is(proc.state, "running");
  proc.writeCoredump("inline");
  proc.stop();
  proc.start();
  assert.is(proc.coredump, "inline");
  proc.reportCrash();
  assert.is(devcoredump.entries().length, 1);
});

test("review 13: a collector that knows devcoredump alone needs to know no mode", () => {
  const files = (["enabled", "inline"] as const).map((coredump) => {
    const { proc, devcoredump } = procOf({ coredump });
    proc.reportCrash();
    const file = collect(devcoredump);
    assert.equal([proc.state, proc.lastCoredump?.state], ["running", "written"]);
    return file;
  });
  assert.ok(sameBytes(files[0] as Uint8Array, files[1] as Uint8Array));
});

test("review 14: a memory too large to be copied is recovered from in enabled, and read inline", () => {
  const size = 2 ** 45;
  const source = (offset: number, target: Uint8Array) => {
    target.fill(offset / 2 ** 40);
  };
  const dump = dumpOf([{ name: "vast", address: 0n, size, source }]);
  const { proc, devcoredump } = procOf({ dump, coredump: "enabled" });
  proc.reportCrash();
  assert.equal([proc.state, proc.lastCoredump?.state], ["running", "failed"]);
  assert.is(proc.lastCoredump?.error?.code, "ENOMEM");
  assert.match(proc.lastCoredump?.error?.message ?? "", `${size + 64 + 56} bytes`);
  assert.is(devcoredump.entries().length, 0);
  proc.writeCoredump("inline");
  proc.reportCrash();
  assert.equal([...(devcoredump.entries()[0]?.read(120 + 31 * 2 ** 40, 3) ?? [])], [31, 31, 31]);
});

test("review 15: dumps are files of their own, which the making of cores does not know", () => {
  for (const file of ["dump.ts", "elf.ts", "notes.ts", "failed-ranges.ts"]) {
    assert.not.match(
      readFileSync(`${ROOT}host/dump/${file}`, "utf8"),
      /remoteproc\.js|devcoredump\.js/,
      file,
    );
  }
});

test("later reviews: a range that cannot be read is 0xff in both modes, and not the end of the dump", () => {
  for (const coredump of ["enabled", "inline"] as const) {
    const { proc, devcoredump } = procOf({
      coredump,
      dump: dumpOf([
        { name: "hole", address: 0n, size: 33, source: () => 0 },
        { name: "good", address: 0x1000n, source: MEMORY.subarray(0, 10) },
      ]),
    });
    proc.reportCrash();
    const bytes = collect(devcoredump).subarray(176);
    assert.equal([...bytes], [...new Array<number>(33).fill(0xff), ...MEMORY.subarray(0, 10)]);
    assert.equal(
      proc.lastCoredump?.failures.map(({ name, offset, lengthBytes }) => [name, offset, lengthBytes]),
      [["hole", 0, 33]],
    );
  }
});

test("later reviews: after a dump, whatever its end, regions can be registered again", () => {
  for (const coredump of ["enabled", "inline"] as const) {
    for (const [, , act] of ENDS) {
      const dump = dumpOf(regionsOf(MEMORY));
      const { proc, devcoredump } = procOf({ coredump, dump });
      proc.reportCrash();
      const more = { name: "more", address: 0x90000n, source: MEMORY.slice() };
      if (coredump === "inline") {
        assert.is(
          codeOf(() => dump.register(more)),
          "EBUSY",
        );
      }
      act(devcoredump);
      dump.register(more);
    }
  }
});

// ---- steps ----

/** The core with a call at the head of each function and of each turn of each loop: `env.log_execution`. */
function countingCore(): WebAssembly.Module {
  const module = binaryen.readBinary(new Uint8Array(readFileSync(`${ROOT}dist/core/release.wasm`)));
  module.setFeatures(binaryen.Features.All);
  module.runPasses(["log-execution"]);
  const binary = module.emitBinary();
  module.dispose();
  return new WebAssembly.Module(binary.slice());
}

test("the steps of a read grow with the logarithm of the number of segments", () => {
  const counting = countingCore();
  let steps = 0;
  const log_execution = () => {
    steps++;
  };
  const Instance = WebAssembly.Instance;
  const made = (count: number): DevcoredumpEntry => {
    let dump: CrashDump;
    WebAssembly.Instance = class extends Instance {
      constructor(module: WebAssembly.Module, imports: WebAssembly.Imports = {}) {
        super(module, { ...imports, env: { ...imports.env, log_execution } });
      }
    };
    try {
      dump = new CrashDump(counting, { class: 64, machine: 0, layout: "remoteproc", capacity: count });
    } finally {
      WebAssembly.Instance = Instance;
    }
    for (let i = 0; i < count; i++) {
      const source = (_: number, target: Uint8Array) => {
        target.fill(i);
      };
      dump.register({ name: `s${i}`, address: BigInt(i) << 20n, size: 65536, source });
    }
    const { proc, devcoredump } = procOf({ dump, coredump: "inline" });
    proc.reportCrash();
    return devcoredump.entries()[0] as DevcoredumpEntry;
  };
  const worst = [10, 100, 1000, 4000].map((count) => {
    const entry = made(count);
    const header = 64 + count * 56;
    let most = 0;
    for (let i = 0; i < 200; i++) {
      const segment = Math.floor(((i + 0.5) / 200) * count);
      steps = 0;
      assert.is(entry.read(header + segment * 65536 + 4096, 4096)[0], segment & 0xff);
      most = Math.max(most, steps);
    }
    return { count, most };
  });
  console.log(`\n# steps: ${worst.map(({ count, most }) => `${count}: ${most}`).join(", ")}`);
  const [first] = worst as [{ count: number; most: number }];
  // The counter counts; twice the segments are one turn more, where a walk would have twice the turns.
  assert.ok(first.most > 3);
  for (const { count, most } of worst) {
    assert.ok(
      most <= first.most + 8 * Math.log2(count / first.count) + 8,
      `${count} segments: ${most} steps`,
    );
  }
});

test.run();
