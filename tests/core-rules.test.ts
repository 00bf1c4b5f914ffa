// What the core promises of its binaries: nothing but the state in its one memory, nothing at
// instantiation, the same bytes from the same source, an end of every loop of the panic path, and a
// memory map without overlaps.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import * as layout from "../assembly/layout.js";
import { type CoreExports, instantiate, makeMemory } from "../host/core/instantiate.js";
import { type MachineConfig, TYPICAL_EMMC, writeConfig } from "../host/core/profile.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule, PANIC_LOG, pattern, ROOT, sameBytes, textOf } from "./machine.js";
import { compileTarget } from "./wasm/compile.js";
import { readBinary, readText } from "./wasm/expressions.js";
import { type LoopBound, proveLoops } from "./wasm/loops.js";
import { readSections, type Sections } from "./wasm/sections.js";
import { bytesOf, fieldsOf } from "./wasm/structs.js";

const source = (path: string) => readFileSync(`${ROOT}${path}`, "utf8");
const binaryOf = (target: string) => new Uint8Array(readFileSync(`${ROOT}dist/core/${target}.wasm`));

/** Target → what it imports beside its memory. */
const TARGETS: Record<string, string[]> = {
  release: [],
  shared: [],
  external: ["medium.read", "medium.write", "source.read"],
  explore: ["mark.hit"],
  debug: [],
  embed: ["dma.read", "dma.write", "medium.read", "medium.write", "source.read"],
  driver: ["port.delay", "port.nowHigh", "port.nowLow", "port.read", "port.write"],
};

/** The names in assembly/index.ts. */
const EXPORTS = [...source("assembly/index.ts").matchAll(/export \{([^}]*)\}/g)]
  .flatMap(([, names = ""]) => names.split(","))
  .map((name) => name.trim())
  .filter((name) => name !== "")
  .sort();

/** What a binary does that it must not do; [] if nothing. */
function brokenRules(binary: Uint8Array, imports: string[], shared: boolean): string[] {
  const sections = readSections(binary);
  const broken: string[] = [];
  const found = sections.imports.map(({ name }) => name).sort();
  const expected = ["env.memory", ...imports].sort();
  if (found.join() !== expected.join()) broken.push(`imports ${found}`);
  for (const { name, kind, shared: isShared } of sections.imports) {
    if ((name === "env.memory") !== (kind === "memory")) broken.push(`${name} is a ${kind}`);
    if (kind === "memory" && isShared !== shared) broken.push(`${name}: shared is ${isShared}`);
  }
  for (const { name, kind } of sections.exports) if (kind !== "function") broken.push(`${name} is a ${kind}`);
  const counted: (keyof Sections)[] = ["memories", "tables", "tags", "elementSegments", "dataSegments"];
  for (const what of counted) if (sections[what] !== 0) broken.push(`${what}: ${sections[what]}`);
  if (sections.hasStart) broken.push("a start function");
  if (sections.globals.some(({ mutable }) => mutable)) broken.push("a mutable global");
  try {
    // Throws on memory.grow, indirect calls, waits, exceptions, globals, tables and all else that is not
    // known.
    readBinary(binary);
  } catch (error) {
    broken.push((error as Error).message);
  }
  return broken;
}

for (const [target, imports] of Object.entries(TARGETS)) {
  test(`${target}: imports its memory${imports.length > 0 ? ` and ${imports}` : ""}, keeps no state`, () => {
    assert.equal(brokenRules(binaryOf(target), imports, target === "shared"), []);
  });

  test(`${target}: exports the functions of assembly/index.ts`, () => {
    const { exports } = readSections(binaryOf(target));
    assert.equal(exports.map(({ name }) => name).sort(), EXPORTS);
  });
}

test("every target of asconfig.json has its rules here", () => {
  const { targets } = JSON.parse(source("asconfig.json"));
  assert.equal(Object.keys(targets).sort(), Object.keys(TARGETS).sort());
});

/** The text of every function, by its index. */
async function functionTexts(target: string): Promise<string[]> {
  const { default: binaryen } = await import("binaryen");
  const module = binaryen.readBinary(binaryOf(target));
  const [text = ""] = module.emitText().split("\n ;; custom section");
  module.dispose();
  return text.split("\n (func ").slice(1);
}

test("shared is release on another kind of memory", async () => {
  const release = await functionTexts("release");
  const shared = await functionTexts("shared");
  assert.is(shared.length, release.length);
  const different = release.filter((text, i) => text !== shared[i]);
  // On a shared memory the optimizer moves nothing across an atomic access, and orders what is left otherwise.
  assert.equal(
    different.filter((text) => !/\b(?:i32|i64)\.atomic\./.test(text)).map((text) => text.slice(0, 60)),
    [],
  );
  assert.ok(different.length * 10 < release.length, `${different.length} of ${release.length} functions`);
});

/** One module a rule, as AssemblyScript would emit what breaks it. */
const BREAKERS: [string, string][] = [
  ["imports", `(import "env" "abort" (func)) (import "env" "memory" (memory 1))`],
  ["shared", `(import "env" "memory" (memory 1 1 shared))`],
  ["memories", `(memory 1)`],
  ["dataSegments", `(import "env" "memory" (memory 1)) (data (i32.const 0) "a")`],
  ["start", `(import "env" "memory" (memory 1)) (func $main) (start $main)`],
  ["tables", `(import "env" "memory" (memory 1)) (table 1 funcref)`],
  [
    "elementSegments",
    `(import "env" "memory" (memory 1)) (table 1 funcref) (func $f) (elem (i32.const 0) $f)`,
  ],
  ["mutable", `(import "env" "memory" (memory 1)) (global (mut i32) (i32.const 0))`],
  ["is a global", `(import "env" "memory" (memory 1)) (global (export "g") i32 (i32.const 0))`],
  ["tags", `(import "env" "memory" (memory 1)) (tag)`],
  ["MemoryGrow", `(import "env" "memory" (memory 1)) (func (drop (memory.grow (i32.const 1))))`],
  [
    "CallIndirect",
    `(import "env" "memory" (memory 1)) (table 1 funcref) (func (call_indirect (i32.const 0)))`,
  ],
  [
    "CallRef",
    `(import "env" "memory" (memory 1)) (type $t (func))
    (func (param (ref $t)) (call_ref $t (local.get 0)))`,
  ],
  [
    "AtomicNotify",
    `(import "env" "memory" (memory 1 1 shared))
    (func (drop (memory.atomic.notify (i32.const 0) (i32.const 1))))`,
  ],
  [
    "AtomicWait",
    `(import "env" "memory" (memory 1 1 shared))
    (func (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))`,
  ],
  ["AtomicFence", `(import "env" "memory" (memory 1)) (func (atomic.fence))`],
  [
    "GlobalSet",
    `(import "env" "memory" (memory 1)) (global $g (mut i32) (i32.const 0))
    (func (global.set $g (i32.const 1)))`,
  ],
  ["Throw", `(import "env" "memory" (memory 1)) (tag $e) (func (throw $e))`],
];

for (const [why, text] of BREAKERS) {
  test(`a binary is refused for: ${why}`, async () => {
    const broken = brokenRules(await assemble(`(module ${text})`), [], false);
    assert.ok(
      broken.some((message) => message.includes(why)),
      broken.join("; ") || "accepted",
    );
  });
}

async function assemble(text: string): Promise<Uint8Array> {
  const { default: binaryen } = await import("binaryen");
  const module = binaryen.parseText(text);
  module.setFeatures(binaryen.Features.All);
  const binary = module.emitBinary();
  module.dispose();
  return binary;
}

// ---- the same bytes again ----

/** Without the section that scripts/build.mjs puts behind what asc made: kind, size, name, SHA-256 and target. */
function asCompiled(target: string): Uint8Array {
  const binary = binaryOf(target);
  return binary.subarray(0, binary.length - 2 - 1 - "mmcpstore.build".length - 32 - target.length);
}

for (const target of ["release", "explore"]) {
  test(`${target}: a second compilation gives the same bytes`, async () => {
    assert.ok(sameBytes(await compileTarget(target), asCompiled(target)), `${target}.wasm differs`);
  });
}

// ---- loops ----

/** The longest wait: POLLS_MAX of assembly/driver/command.ts. */
const TURNS_MAX = 4_000_000;

function tableOf(loops: LoopBound[]): string[] {
  const shorten = (name: string) => name.replace(/^assembly\//, "");
  const width = Math.max(...loops.map(({ functionName }) => shorten(functionName).length));
  return loops.map(({ functionName, label, turns, how }) => {
    const bound = `${turns ?? "UNPROVED"}`.padStart(8);
    return `# ${shorten(functionName).padEnd(width)}  ${label.padEnd(8)} ${bound}  ${how}`;
  });
}

test("every loop that panicWrite reaches ends after a number of turns that the binary shows", async () => {
  const release = binaryOf("release");
  // The same code with the names of its functions, for the table; without them if it is not quite the same.
  const named = await compileTarget("release", "--debug");
  const isSame = sameBytes(readSections(named).code, readSections(release).code);
  const loops = proveLoops(readBinary(isSame ? named : release), "panicWrite");
  // uvu has not ended its line of dots.
  console.log(`\n${tableOf(loops).join("\n")}`);
  assert.ok(loops.length >= 40, `only ${loops.length} loops found`);
  assert.equal(
    loops.filter(({ turns }) => turns === null || turns > TURNS_MAX),
    [],
  );
});

for (const target of Object.keys(TARGETS)) {
  test(`${target}: every loop of every export has a bound, and nothing calls itself`, () => {
    const module = readBinary(binaryOf(target));
    const loops = [...module.exports.keys()].flatMap((name) => proveLoops(module, name));
    assert.equal(
      loops.filter(({ turns }) => turns === null || turns > TURNS_MAX),
      [],
    );
  });
}

const I = "(local.get $i)";
const NEXT = "(local.set $i (i32.add (local.get $i) (i32.const 1)))";
const FLAG = "(i32.load (i32.const 1024))";

/** Bodies of a function with parameter $n and locals $i and $j, with the turns that the proof has to find. */
const BOUNDED: [string, number, string][] = [
  ["while (i < 100)", 100, `(loop $l (if (i32.lt_u ${I} (i32.const 100)) (then ${NEXT} (br $l))))`],
  [
    "while (i < n && i < 64), as i32.and",
    64,
    `(loop $l (if (i32.and (i32.lt_u ${I} (local.get $n)) (i32.lt_u ${I} (i32.const 64)))
      (then ${NEXT} (br $l))))`,
  ],
  [
    "while (i < n && i < 64), as if",
    64,
    `(loop $l (if (if (result i32) (i32.lt_u ${I} (local.get $n))
      (then (i32.lt_u ${I} (i32.const 64))) (else (i32.const 0))) (then ${NEXT} (br $l))))`,
  ],
  [
    "while (i < n && i < 64), as select",
    64,
    `(loop $l (if (select (i32.lt_u ${I} (i32.const 64)) (i32.const 0) (i32.lt_u ${I} (local.get $n)))
      (then ${NEXT} (br $l))))`,
  ],
  [
    "the bound in an exit: if (!(i < 64)) break, if (n <= i) break",
    64,
    `(block $out (loop $l (br_if $out (i32.eqz (i32.lt_u ${I} (i32.const 64))))
      (br_if $out (i32.le_u (local.get $n) ${I})) ${NEXT} (br $l)))`,
  ],
  [
    "either of two exits",
    64,
    `(block $out (loop $l (br_if $out (i32.or (i32.ge_u ${I} (i32.const 64)) ${FLAG})) ${NEXT} (br $l)))`,
  ],
  ["do … while (++i < 8)", 7, `(loop $l ${NEXT} (br_if $l (i32.lt_u ${I} (i32.const 8))))`],
  [
    "do … while ((i += 3) < 8) with a tee",
    2,
    `(loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add ${I} (i32.const 3))) (i32.const 8))))`,
  ],
  [
    "the test before, the increment in the same expression",
    8,
    `(loop $l (br_if $l (block (result i32) (local.set $j (i32.lt_u ${I} (i32.const 8)))
      ${NEXT} (local.get $j))))`,
  ],
  ["signed, from 0", 8, `(loop $l (if (i32.lt_s ${I} (i32.const 8)) (then ${NEXT} (br $l))))`],
  [
    "count-down to 0, signed",
    8,
    `(local.set $i (i32.const 7)) (loop $l (if (i32.ge_s ${I} (i32.const 0))
      (then (local.set $i (i32.sub ${I} (i32.const 1))) (br $l))))`,
  ],
  [
    "count-down, while (i)",
    9,
    `(local.set $i (i32.const 9)) (loop $l (if ${I} (then
      (local.set $i (i32.add ${I} (i32.const -1))) (br $l))))`,
  ],
  [
    "i != 512 by 4",
    128,
    `(loop $l (if (i32.ne ${I} (i32.const 512)) (then (local.set $i (i32.add ${I} (i32.const 4))) (br $l))))`,
  ],
  [
    "continue, with the increment on both paths",
    10,
    `(loop $l (if (i32.lt_u ${I} (i32.const 10)) (then
      (if ${FLAG} (then ${NEXT} (br $l))) (drop (i32.const 0)) ${NEXT} (br $l))))`,
  ],
  [
    "steps of 1 or 2",
    10,
    `(loop $l (if (i32.lt_u ${I} (i32.const 10)) (then
      ${NEXT} (if ${FLAG} (then ${NEXT})) (br $l))))`,
  ],
  [
    "a counted poll that breaks early",
    1000,
    `(block $out (loop $l (if (i32.lt_u ${I} (i32.const 1000)) (then
      (br_if $out ${FLAG}) ${NEXT} (br $l)))))`,
  ],
  [
    "a bound in a local that was a constant before",
    12,
    `(local.set $n (i32.const 12)) (loop $l (if (i32.lt_u ${I} (local.get $n)) (then ${NEXT} (br $l))))`,
  ],
  [
    "counted copy of the counter",
    5,
    `(loop $l (if (i32.lt_u ${I} (i32.const 5)) (then (local.set $j ${I})
      (local.set $i (i32.add (local.get $j) (i32.const 1))) (br $l))))`,
  ],
];

for (const [name, turns, body] of BOUNDED) {
  test(`a loop with a bound: ${name}`, () => {
    assert.equal(turnsIn(body), [turns]);
  });
}

const UNBOUNDED: [string, string][] = [
  ["spin on a memory flag", `(loop $l (br_if $l (i32.eqz ${FLAG})))`],
  ["for (;;) with a break", `(block $out (loop $l (br_if $out ${FLAG}) ${NEXT} (br $l)))`],
  [
    "the counter is reset",
    `(loop $l (if (i32.lt_u ${I} (i32.const 9)) (then ${NEXT} (if ${FLAG} (then (local.set $i (i32.const 0))))
      (br $l))))`,
  ],
  [
    "no increment on one path",
    `(loop $l (if (i32.lt_u ${I} (i32.const 9)) (then (br_if $l ${FLAG}) ${NEXT} (br $l))))`,
  ],
  [
    "no test on one path",
    `(loop $l (if ${FLAG} (then ${NEXT} (br $l))) (if (i32.lt_u ${I} (i32.const 9)) (then ${NEXT} (br $l))))`,
  ],
  [
    "a bound that moves",
    `(loop $l (if (i32.lt_u ${I} (local.get $n)) (then ${NEXT}
      (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $l))))`,
  ],
  ["a bound that nobody knows", `(loop $l (if (i32.lt_u ${I} (local.get $n)) (then ${NEXT} (br $l))))`],
  [
    "a bound that is or-ed away",
    `(loop $l (if (i32.or (i32.lt_u ${I} (i32.const 9)) ${FLAG}) (then ${NEXT} (br $l))))`,
  ],
  [
    "two bits that have nothing in common",
    `(loop $l ${NEXT} (br_if $l (i32.eqz (i32.and (i32.ge_u ${I} (i32.const 9)) (i32.const 2)))))`,
  ],
  [
    "a retry until compare-and-swap succeeds",
    `(loop $l (local.set $i (i32.atomic.load (i32.const 1024)))
      (br_if $l (i32.ne ${I} (i32.atomic.rmw.cmpxchg (i32.const 1024) ${I} (i32.add ${I} (i32.const 1))))))`,
  ],
  [
    "up and down",
    `(loop $l (if (i32.lt_u ${I} (i32.const 9)) (then ${NEXT}
      (if ${FLAG} (then (local.set $i (i32.sub ${I} (i32.const 2))))) (br $l))))`,
  ],
  [
    "counts away from its bound",
    `(loop $l (if (i32.lt_u ${I} (i32.const 9)) (then (local.set $i (i32.sub ${I} (i32.const 1))) (br $l))))`,
  ],
  [
    "steps over its bound: i != 10 by 4",
    `(loop $l (if (i32.ne ${I} (i32.const 10)) (then (local.set $i (i32.add ${I} (i32.const 4))) (br $l))))`,
  ],
  ["wraps around: i <= 0xffffffff", `(loop $l (if (i32.le_u ${I} (i32.const -1)) (then ${NEXT} (br $l))))`],
  [
    "wraps around: i < 0xfffffffe by 4",
    `(loop $l (if (i32.lt_u ${I} (i32.const -2)) (then
      (local.set $i (i32.add ${I} (i32.const 4))) (br $l))))`,
  ],
  [
    "never below zero: i >= 0, unsigned, counting down",
    `(local.set $i (i32.const 7)) (loop $l (if (i32.ge_u ${I} (i32.const 0))
      (then (local.set $i (i32.sub ${I} (i32.const 1))) (br $l))))`,
  ],
  [
    "signed, from somewhere",
    `(local.set $i (local.get $n)) (loop $l (if (i32.lt_s ${I} (i32.const 9)) (then ${NEXT} (br $l))))`,
  ],
  [
    "counts in an inner loop, that may not run",
    `(loop $l (if (i32.lt_u ${I} (i32.const 9)) (then
      (block $in (loop $m (br_if $in ${FLAG}) ${NEXT} (br_if $m (i32.lt_u ${I} (i32.const 5))))) (br $l))))`,
  ],
  [
    "the test is of the value before last",
    `(loop $l (if (i32.lt_u (local.get $j) (i32.const 9)) (then ${NEXT} (br $l))))`,
  ],
  [
    "a counter in memory",
    `(loop $l (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
      (br_if $l (i32.lt_u (i32.load (i32.const 0)) (i32.const 9))))`,
  ],
  ["a table of branches back", `(loop $l (block $out (br_table $l $out ${FLAG})))`],
];

for (const [name, body] of UNBOUNDED) {
  test(`a loop without a bound: ${name}`, () => {
    assert.ok(turnsIn(body).includes(null));
  });
}

test("a panic path must not call itself, nor wait, nor grow", () => {
  const prove = (functions: string) => () =>
    proveLoops(readText(`(module (memory 1 1 shared) ${functions})`), "f");
  assert.throws(prove(`(func $f (export "f") (call $g)) (func $g (call $f))`), /recursion: f → g → f/);
  assert.throws(prove(`(func (export "f") (drop (memory.grow (i32.const 1))))`), /MemoryGrow/);
  assert.throws(
    prove(`(func (export "f") (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))`),
    /AtomicWait/,
  );
  assert.throws(prove(`(func $g)`), /no export f/);
});

test("loops are found in functions that are called, and only there", () => {
  const text = `(module (memory 1)
    (func $f (export "f") (call $g))
    (func $g (loop $l (br_if $l (i32.load (i32.const 0)))))
    (func $h (loop $l (br_if $l (i32.load (i32.const 0))))))`;
  assert.equal(
    proveLoops(readText(text), "f").map(({ functionName, turns }) => [functionName, turns]),
    [["g", null]],
  );
});

function turnsIn(body: string): (number | null)[] {
  const text = `(module (memory 1) (func (export "f") (param $n i32) (local $i i32) (local $j i32) ${body}))`;
  return proveLoops(readText(text), "f").map(({ turns }) => turns);
}

// ---- one memory ----

const CONFIG: MachineConfig = {
  card: "emmc",
  sectors: 1024,
  bootSectors: 0,
  cacheSectors: 16,
  reliableWrite: true,
  cmd23: true,
  hpi: true,
  serial: 1,
  timing: TYPICAL_EMMC,
  abortOutcome: "old",
  cacheKeptAtReset: false,
  dma: true,
  busWidth: 8,
  highSpeed: true,
  areaFirstLba: 512,
  zoneSectors: 128,
  zoneCount: 4,
  abi: "lp64",
  policy: "first-wins",
  deadlineUs: 10_000_000,
  trace: false,
};

function makeMachine(target: string): { core: CoreExports; memory: WebAssembly.Memory } {
  const memory = makeMemory(CONFIG.sectors * layout.SECTOR_BYTES, target === "shared");
  const core = instantiate(coreModule(target), memory);
  writeConfig(memory, CONFIG);
  core.machineInit();
  return { core, memory };
}

function panic(core: CoreExports, memory: WebAssembly.Memory, text: Uint8Array): number {
  new Uint8Array(memory.buffer, layout.TEXT_BASE).set(text);
  return core.panicWrite(1, 1000, 0, 0, text.length, 0);
}

function recordsIn(memory: WebAssembly.Memory) {
  const from = layout.MEDIUM_BASE + CONFIG.areaFirstLba * layout.SECTOR_BYTES;
  const kmsgSize = CONFIG.zoneSectors * layout.SECTOR_BYTES;
  const bytes = new Uint8Array(memory.buffer).slice(from, from + kmsgSize * CONFIG.zoneCount);
  return decodeArea(bytes, { kmsgSize, pmsgSize: 0, consoleSize: 0, ftraceSize: 0, abi: "lp64" }).records;
}

for (const target of ["release", "shared"]) {
  test(`${target}: opens a card and writes a panic`, () => {
    const { core, memory } = makeMachine(target);
    assert.is(core.openCard(), 0);
    assert.is(panic(core, memory, PANIC_LOG), 0);
    const [record, ...others] = recordsIn(memory);
    assert.ok(record);
    assert.is(others.length, 0);
    assert.ok(sameBytes(textOf(record), PANIC_LOG));
  });

  test(`${target}: a second instance changes no byte, and goes on where the first one stopped`, () => {
    const { core, memory } = makeMachine(target);
    assert.is(core.openCard(), 0);
    const bytes = new Uint8Array(memory.buffer);
    bytes.set(pattern(3, layout.SECTOR_BYTES), layout.BOUNCE_BASE);
    assert.is(core.blockWrite(7, 1), 0);
    bytes.set(pattern(4, 1000));
    const before = bytes.slice();
    const second = instantiate(coreModule(target), memory);
    assert.ok(sameBytes(bytes, before));
    bytes.fill(0, layout.BOUNCE_BASE, layout.BOUNCE_BASE + layout.SECTOR_BYTES);
    assert.is(second.blockRead(7, 1), 0);
    const read = bytes.slice(layout.BOUNCE_BASE, layout.BOUNCE_BASE + layout.SECTOR_BYTES);
    assert.ok(sameBytes(read, pattern(3, layout.SECTOR_BYTES)));
    // The first leaves a read in the middle and holds the host; the second sees it held, and panics over it.
    assert.is(core.leaveInFlight(1, 16, 8), 0);
    assert.is(second.blockRead(7, 1), -16);
    assert.is(panic(second, memory, PANIC_LOG), 0);
    assert.is(core.cardState(), second.cardState());
    assert.is(core.newestZone(), 0);
    assert.is(panic(core, memory, pattern(5, 100)), 0);
    assert.is(recordsIn(memory).length, 2);
  });
}

test("a memory of the other kind is refused", () => {
  const pages = { initial: layout.MACHINE_PAGES, maximum: layout.MACHINE_PAGES };
  const refuses = (target: string, shared: boolean) => {
    const memory = new WebAssembly.Memory({ ...pages, shared });
    assert.throws(() => instantiate(coreModule(target), memory), /shared/);
  };
  refuses("release", true);
  refuses("shared", false);
});

// ---- the memory map ----

interface Region {
  name: string;
  from: number;
  bytes: number;
}

const sizeOf = (path: string, name: string) => bytesOf(fieldsOf(source(path), name));
const CARD_FIELDS = fieldsOf(source("assembly/card/state.ts"), "Card");

/** Everything below the medium, with the bytes that the code uses of it. */
const REGIONS: Region[] = [
  // A line of its own: nobody else's store may share it.
  { name: "OWNER_WORD", from: layout.OWNER_WORD, bytes: 64 },
  { name: "CLOCK_NOW", from: layout.CLOCK_NOW, bytes: 8 },
  { name: "MEDIUM_STORES", from: layout.MEDIUM_STORES, bytes: 8 },
  { name: "FAILED_CHECK", from: layout.FAILED_CHECK, bytes: 4 },
  { name: "GUEST_IRQ", from: layout.GUEST_IRQ, bytes: 4 },
  { name: "GUEST_NEXT_NS", from: layout.GUEST_NEXT_NS, bytes: 8 },
  { name: "HOST_POWERED", from: layout.HOST_POWERED, bytes: 4 },
  { name: "HOST_FTRACE_CALLS", from: layout.HOST_FTRACE_CALLS, bytes: 8 },
  { name: "CONFIG_BASE", from: layout.CONFIG_BASE, bytes: layout.CONFIG_END - layout.CONFIG_BASE },
  { name: "FAULTS_COUNT", from: layout.FAULTS_COUNT, bytes: 4 },
  { name: "FAULTS_BASE", from: layout.FAULTS_BASE, bytes: layout.FAULTS_MAX * layout.FAULT_BYTES },
  { name: "RESULT_BASE", from: layout.RESULT_BASE, bytes: layout.RESULT_BYTES },
  { name: "SPI_BASE", from: layout.SPI_BASE, bytes: sizeOf("assembly/spi/state.ts", "SpiPort") },
  { name: "CARD_BASE", from: layout.CARD_BASE, bytes: bytesOf(CARD_FIELDS) },
  { name: "SDHCI_REGISTERS", from: layout.SDHCI_REGISTERS, bytes: 256 },
  { name: "SDHCI_BASE", from: layout.SDHCI_BASE, bytes: sizeOf("assembly/sdhci/state.ts", "Engine") },
  { name: "DRIVER_BASE", from: layout.DRIVER_BASE, bytes: layout.OWNER_COPIES * layout.SHADOW_BYTES },
  { name: "PSTORE_BASE", from: layout.PSTORE_BASE, bytes: 0x200 },
  { name: "EXT_CSD_BASE", from: layout.EXT_CSD_BASE, bytes: 512 },
  { name: "CARD_BLOCK", from: layout.CARD_BLOCK, bytes: 512 },
  { name: "PROGRAM_BLOCK", from: layout.PROGRAM_BLOCK, bytes: 512 },
  { name: "SDHCI_BUFFER", from: layout.SDHCI_BUFFER, bytes: 512 },
  { name: "CRC_TABLE", from: layout.CRC_TABLE, bytes: 256 * 4 },
  { name: "ADMA_TABLE", from: layout.ADMA_TABLE, bytes: 8 },
  { name: "CACHE_LBAS", from: layout.CACHE_LBAS, bytes: layout.CACHE_SECTORS_MAX * 4 },
  { name: "CACHE_PARTITIONS", from: layout.CACHE_PARTITIONS, bytes: layout.CACHE_SECTORS_MAX * 4 },
  { name: "CACHE_DATA", from: layout.CACHE_DATA, bytes: layout.CACHE_SECTORS_MAX * layout.SECTOR_BYTES },
  { name: "HEAD_BLOCK", from: layout.HEAD_BLOCK, bytes: 512 },
  { name: "TAIL_BLOCK", from: layout.TAIL_BLOCK, bytes: 512 },
  { name: "REGISTER_BLOCK", from: layout.REGISTER_BLOCK, bytes: 512 },
  { name: "PACKED_HEADER", from: layout.PACKED_HEADER, bytes: 512 },
  { name: "DAMAGE_BASE", from: layout.DAMAGE_BASE, bytes: sizeOf("assembly/card/flash.ts", "Damage") },
  { name: "UNREADABLE_TABLE", from: layout.UNREADABLE_TABLE, bytes: layout.UNREADABLE_MAX * 8 },
  { name: "UNDO_HEADS", from: layout.UNDO_HEADS, bytes: layout.UNDO_MAX * layout.UNDO_HEAD_BYTES },
  { name: "UNDO_DATA", from: layout.UNDO_DATA, bytes: layout.UNDO_MAX * layout.SECTOR_BYTES },
  { name: "WIRE_BASE", from: layout.WIRE_BASE, bytes: 0x400 },
  { name: "DUMP_BASE", from: layout.DUMP_BASE, bytes: 0x200 },
  { name: "DUMP_AREA_BASE", from: layout.DUMP_AREA_BASE, bytes: 0x400 },
  { name: "DUMP_HEADER_BLOCK", from: layout.DUMP_HEADER_BLOCK, bytes: 512 },
  { name: "PROTECTION_TABLE", from: layout.PROTECTION_TABLE, bytes: layout.PROTECTION_GROUPS_MAX / 4 },
  { name: "BOUNCE_BASE", from: layout.BOUNCE_BASE, bytes: layout.BOUNCE_SECTORS * layout.SECTOR_BYTES },
  { name: "VERIFY_BASE", from: layout.VERIFY_BASE, bytes: layout.BOUNCE_SECTORS * layout.SECTOR_BYTES },
  { name: "ZONE_STATES", from: layout.ZONE_STATES, bytes: layout.ZONES_MAX },
  {
    name: "TRACE_BASE",
    from: layout.TRACE_BASE,
    bytes: layout.TRACE_HEAD_BYTES + layout.TRACE_ENTRIES * layout.TRACE_ENTRY_BYTES,
  },
  { name: "TEXT_BASE", from: layout.TEXT_BASE, bytes: layout.TEXT_BYTES_MAX },
  { name: "DEFLATE_BASE", from: layout.DEFLATE_BASE, bytes: 0x1c00 },
  { name: "HUFFMAN_SCRATCH", from: layout.HUFFMAN_SCRATCH, bytes: 0x1800 },
  { name: "DEFLATE_HEADS", from: layout.DEFLATE_HEADS, bytes: 2048 * 4 },
  { name: "DEFLATE_LINKS", from: layout.DEFLATE_LINKS, bytes: 2048 * 4 },
  { name: "DEFLATE_TOKENS", from: layout.DEFLATE_TOKENS, bytes: 8192 * 4 },
  { name: "DEFLATED_BASE", from: layout.DEFLATED_BASE, bytes: layout.DEFLATED_BYTES_MAX },
  { name: "RING_STATES", from: layout.RING_STATES, bytes: layout.RINGS_MAX * layout.RING_STATE_BYTES },
  { name: "DMA_PAGE", from: layout.DMA_PAGE, bytes: layout.DMA_PAGE_BYTES },
  { name: "DMA_TABLE", from: layout.DMA_TABLE, bytes: layout.DMA_TABLE_BYTES },
  { name: "RING_DATA", from: layout.RING_DATA, bytes: layout.RING_BYTES_MAX },
  { name: "RING_MEDIUM", from: layout.RING_MEDIUM, bytes: layout.RING_BYTES_MAX },
  { name: "ZONE_LOGS", from: layout.ZONE_LOGS, bytes: layout.ZONES_MAX * 8 },
  { name: "RING_INBOX", from: layout.RING_INBOX, bytes: layout.RING_INBOX_BYTES },
  { name: "PANIC_BOUNCE", from: layout.PANIC_BOUNCE, bytes: layout.BOUNCE_SECTORS * layout.SECTOR_BYTES },
  { name: "PANIC_HEAD_BLOCK", from: layout.PANIC_HEAD_BLOCK, bytes: 512 },
  { name: "PANIC_TAIL_BLOCK", from: layout.PANIC_TAIL_BLOCK, bytes: 512 },
  { name: "PANIC_REGISTER_BLOCK", from: layout.PANIC_REGISTER_BLOCK, bytes: 512 },
  { name: "PANIC_ADMA_TABLE", from: layout.PANIC_ADMA_TABLE, bytes: 8 },
  { name: "MEDIUM_BASE", from: layout.MEDIUM_BASE, bytes: 0 },
];

function overlaps(regions: Region[]): string[] {
  const sorted = [...regions].sort((a, b) => a.from - b.from);
  return sorted.flatMap((region, i) => {
    const next = sorted[i + 1];
    const end = region.from + region.bytes;
    return next !== undefined && end > next.from ? [`${region.name} ends in ${next.name}`] : [];
  });
}

test("the regions of the memory do not overlap", () => {
  assert.equal(overlaps(REGIONS), []);
  assert.is(layout.MACHINE_PAGES * layout.PAGE_BYTES, layout.MEDIUM_BASE);
  assert.is(Math.min(...REGIONS.map(({ from }) => from)), 0x400);
});

test("an overlap is found", () => {
  const grown = REGIONS.map((region) => (region.name === "CARD_BASE" ? { ...region, bytes: 0x301 } : region));
  assert.equal(overlaps(grown), ["CARD_BASE ends in SDHCI_REGISTERS"]);
});

test("every address in layout.ts is one of these regions or a word in CONFIG or RESULT", () => {
  const known = new Set(REGIONS.map(({ name }) => name));
  const sizes = [
    "DUMP_SLOTS_MAX",
    "DUMP_AREA_SECTORS_MAX",
    "DUMP_RESULT_BYTES",
    "DUMP_NOTE_BYTES_MAX",
    "REGION_MEMORY",
    "PAGE_BYTES",
    "TEXT_BYTES_MAX",
    "ZONES_MAX",
    "RING_BYTES_MAX",
    "DMA_PAGE_BYTES",
    "DMA_TABLE_BYTES",
    "RING_INBOX_BYTES",
    "SHADOW_BYTES",
    "RESULT_BYTES",
    "DEFLATED_BYTES_MAX",
  ];
  const addresses = [...source("assembly/layout.ts").matchAll(/^export const (\w+) = (0x[0-9a-f]+);/gm)];
  assert.ok(addresses.length > 70);
  const unknown = addresses
    .map(([, name = ""]) => name)
    .filter((name) => !known.has(name) && !sizes.includes(name) && !/^(CONFIG|RESULT)_/.test(name));
  assert.equal(unknown, []);
});

test("the words of CONFIG, RESULT and a fault are distinct, aligned and within their blocks", () => {
  const entries = Object.entries(layout as unknown as Record<string, number>);
  const blocks: [RegExp, string[], number, number][] = [
    [/^CONFIG_/, ["CONFIG_BASE", "CONFIG_END"], layout.CONFIG_BASE, layout.CONFIG_END],
    [
      /^RESULT_/,
      ["RESULT_BASE", "RESULT_BYTES"],
      layout.RESULT_BASE,
      layout.RESULT_BASE + layout.RESULT_BYTES,
    ],
    [/^FAULT_(KIND|COMMAND|SKIP|TIMES|FIRST_LBA|LAST_LBA|LEVEL|SEEN)$/, [], 0, layout.FAULT_BYTES],
  ];
  for (const [pattern, others, from, until] of blocks) {
    const words = entries.filter(([name]) => pattern.test(name) && !others.includes(name));
    const offsets = words.map(([, value]) => value).sort((a, b) => a - b);
    assert.is(new Set(offsets).size, offsets.length, `${pattern}`);
    assert.ok(
      offsets.every((offset) => offset % 4 === 0),
      `${pattern}`,
    );
    assert.equal([offsets[0], offsets.at(-1)], [from, until - 4], `${pattern}`);
  }
});

test("64-bit and atomic words stand on their own size", () => {
  assert.is(layout.OWNER_WORD % 64, 0);
  const words: Record<string, number> = { ...layout };
  for (const [name, value] of Object.entries(words)) {
    if (!/^RESULT_.*_LOW$/.test(name)) continue;
    assert.is(value % 8, 0, name);
    assert.is(words[name.replace(/LOW$/, "HIGH")], value + 4, name);
  }
  const bases =
    "CARD_BASE SDHCI_BASE DRIVER_BASE PSTORE_BASE TRACE_BASE CLOCK_NOW MEDIUM_STORES GUEST_NEXT_NS DUMP_BASE".split(
      " ",
    );
  for (const name of bases) assert.is((words[name] ?? 1) % 8, 0, name);
  // bytesEqual() and memory.copy of blocks go by words.
  for (const { name, from, bytes } of REGIONS) if (bytes >= 512) assert.is(from % 32, 0, name);
  assert.is(layout.TRACE_HEAD_BYTES % 8, 0);
  assert.is(layout.TRACE_ENTRY_BYTES % 8, 0);
});

test("a working copy of the driver's shadow fits, and their number goes round", () => {
  assert.ok(sizeOf("assembly/driver/shadow.ts", "Shadow") <= layout.SHADOW_BYTES);
  assert.is(layout.OWNER_COPIES & (layout.OWNER_COPIES - 1), 0);
});

test("Area and Record share the pstore block", () => {
  const [, offset] =
    /const RECORD_OFFSET: i32 = (0x[0-9a-f]+);/.exec(source("assembly/pstore/record.ts")) ?? [];
  assert.ok(sizeOf("assembly/pstore/zone.ts", "Area") <= Number(offset));
  assert.is(Number(offset) % 8, 0);
  const [, line] = /PSTORE_BASE \+ (0x[0-9a-f]+);/.exec(source("assembly/pstore/part-line.ts")) ?? [];
  assert.ok(Number(offset) + sizeOf("assembly/pstore/record.ts", "Record") <= Number(line));
  assert.ok(Number(line) + 0x80 <= 0x200);
});

test("a slot, the plan and the scratch of the dump fit where they lie", () => {
  const slot = fieldsOf(source("assembly/dump/state.ts"), "Slot");
  assert.ok(bytesOf(slot) <= layout.DUMP_SLOT_BYTES);
  assert.is(layout.DUMP_SLOT_BYTES % 8, 0);
  const offsets = new Map(slot.map(({ name, offset }) => [name, offset]));
  assert.is(offsets.get("name0"), layout.SLOT_NAME);
  assert.is(offsets.get("address"), layout.SLOT_ADDRESS);
  assert.is(offsets.get("vaddr"), layout.SLOT_VADDR);
  assert.is(offsets.get("size"), layout.SLOT_SIZE);
  assert.is(offsets.get("source"), layout.SLOT_SOURCE);
  assert.is(offsets.get("flags"), layout.SLOT_REGION_FLAGS);
  assert.ok(layout.DUMP_REQUEST + 48 <= layout.DUMP_STATE);
  assert.ok(layout.DUMP_STATE + sizeOf("assembly/dump/state.ts", "Dump") <= layout.DUMP_SCRATCH);
  assert.ok(layout.DUMP_SCRATCH + 64 <= layout.DUMP_BASE + 0x200);
});

test("what a dump of the panic path keeps of itself fits where it lies", () => {
  assert.ok(layout.DUMP_AREA_SECTORS + 4 <= layout.DUMP_RESULT);
  assert.is(layout.DUMP_RESULT + layout.DUMP_RESULT_BYTES, layout.DUMP_RESULT_END_NS + 8);
  assert.ok(layout.DUMP_RESULT + layout.DUMP_RESULT_BYTES <= layout.DUMP_FAILED);
  assert.ok(layout.DUMP_FAILED_LIST + layout.DUMP_FAILED_MAX * 16 <= layout.DUMP_STREAM);
  assert.ok(
    layout.DUMP_STREAM + sizeOf("assembly/dump/area.ts", "DumpStream") <= layout.DUMP_AREA_BASE + 0x400,
  );
  // The list of failed ranges begins at 112.
  assert.ok(sizeOf("assembly/dump/area.ts", "DumpHeader") <= 112);
  const words = [
    layout.DUMP_RESULT_SEQUENCE,
    layout.DUMP_FAILED_BYTES,
    layout.DUMP_FAILED_LIST,
    layout.DUMP_STREAM,
  ];
  assert.ok(words.every((at) => at % 8 === 0));
});

test("reading a dump finds a region in 17 halvings, however many there are", () => {
  const turns = proveLoops(readBinary(binaryOf("release")), "dumpExtent").map((loop) => loop.turns);
  assert.ok(turns.length > 0);
  assert.ok(
    turns.every((one) => one !== null && one <= 17),
    `${turns}`,
  );
});

test("what survives a power-up in Card is at its end", () => {
  // powerOn() clears everything before cid0.
  const names = CARD_FIELDS.map(({ name }) => name);
  assert.equal(
    names.slice(names.indexOf("cid0")),
    "cid0 cid1 cid2 cid3 csd0 csd1 csd2 csd3 isProtected unkemptSectors published".split(" "),
  );
});

test("the size of a struct counts alignment and refuses what it does not know", () => {
  assert.is(
    bytesOf(fieldsOf("class A {\n a: u8;\n b: u32; // c: u64;\n c: u8;\n d: u64;\n e: u16;\n}", "A")),
    26,
  );
  assert.throws(() => fieldsOf("class A {\n a: f32;\n}", "A"), /a: f32/);
  assert.throws(() => fieldsOf("class A {\n a: u8;\n}", "B"), /no class B/);
});

test.run();
