// Regions, plan and reading: the kernel's own cores byte for byte, every reason for a refusal, every way to cut a file
// into reads, sources that fail, and the file read back by a reader that shares nothing with its maker. A longer run:
// MMCPSTORE_FUZZ_TABLES=100000 node scripts/test.mjs dump.test
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  DUMP_ALIGN,
  DUMP_BASE,
  DUMP_CAPACITY,
  DUMP_CLASS,
  DUMP_EXTENT_BYTES,
  DUMP_EXTENT_OFFSET,
  DUMP_EXTENT_SLOT,
  DUMP_FLAGS,
  DUMP_HEADER_BYTES,
  DUMP_LIVE,
  DUMP_NOTE_BYTES,
  DUMP_NOTES,
  DUMP_OVERLAP,
  DUMP_REQUEST,
  DUMP_SECTIONS,
  DUMP_SEGMENTS,
  DUMP_SLOT_BYTES,
  DUMP_TOTAL_BYTES,
  DUMP_WORK,
  DUMP_WORK_BYTES,
  MEDIUM_BASE,
  REGION_MEMORY,
  SLOT_ADDRESS,
  SLOT_NAME,
  SLOT_REGION_FLAGS,
  SLOT_SIZE,
  SLOT_SOURCE,
  SLOT_VADDR,
} from "../assembly/layout.js";
import { instantiate, makeMemory } from "../host/core/instantiate.js";
import { CrashDump, type DumpOptions, type Region } from "../host/dump/dump.js";
import { bytesSource, type ElfCore, readElfCore } from "../host/dump/elf.js";
import { machineOf, prPsInfoNote, prStatusNote, vmcoreinfoNote } from "../host/dump/notes.js";
import { KERNEL_CORES, kernelCore } from "./kernel-cores.js";
import { coreModule, pattern, ROOT, sameBytes } from "./machine.js";
import { fieldsOf } from "./wasm/structs.js";

const release = coreModule("release");

function dumpOf(options: Partial<DumpOptions> = {}): CrashDump {
  return new CrashDump(release, { class: 64, machine: 62, ...options });
}

function whole(dump: CrashDump): Uint8Array {
  const plan = dump.plan();
  return plan.read(0, plan.sizeBytes);
}

function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return `${(error as { code?: string }).code}`;
  }
  return "none";
}

const region = (name: string, address: bigint, lengthBytes: number): Region => ({
  name,
  address,
  source: pattern(lengthBytes, lengthBytes),
});

// ---- the kernel's cores ----

for (const [name, options, regions] of KERNEL_CORES) {
  test(`${name}: byte for byte what the kernel's remoteproc made`, () => {
    const dump = dumpOf(options);
    for (const one of regions) dump.register(one);
    const expected = kernelCore(name);
    assert.equal([...whole(dump)], [...expected]);
    const core = readElfCore(bytesSource(expected));
    assert.is(core.segments.length, regions.length);
    assert.equal(core.problems, []);
  });
}

// ---- what the file says ----

const NOTES = [
  prStatusNote("x86-64", {
    pid: 1234,
    signal: 11,
    registers: Array.from({ length: 27 }, (_, i) => BigInt(i)),
  }),
  prPsInfoNote("x86-64", { pid: 1234, name: "panicked", args: "panicked --now" }),
  vmcoreinfoNote("OSRELEASE=6.12.0-test\n"),
];

for (const elfClass of [32, 64] as const) {
  for (const sections of [false, true]) {
    test(`class ${elfClass}${sections ? " with sections" : ""}: reads back what was registered`, () => {
      const dump = dumpOf({ class: elfClass, sections, notes: NOTES, entry: 0x1234n });
      const regions = [
        { ...region("text", 0x1000n, 4096), flags: 5, vaddr: 0xc0001000n },
        region("data", 0x80000000n, 777),
        region("!odd_15_letters", 0xfffffc00n, 1024),
      ];
      for (const one of regions) dump.register(one);
      const bytes = whole(dump);
      const core = readElfCore(bytesSource(bytes));
      assert.equal(core.problems, []);
      assert.equal([core.class, core.machine, core.entry], [elfClass, 62, 0x1234n]);
      const [note, ...loads] = core.segments;
      assert.is(note?.type, 4);
      assert.equal(
        core.notes.map(({ name, type, lengthBytes }) => [name, type, lengthBytes]),
        [
          ["CORE", 1, 336],
          ["CORE", 3, 136],
          ["VMCOREINFO", 0, 22],
        ],
      );
      for (const [i, { offset, lengthBytes }] of core.notes.entries()) {
        assert.ok(sameBytes(bytes.subarray(offset, offset + lengthBytes), NOTES[i]?.description ?? bytes));
      }
      assert.is(loads.length, regions.length);
      for (const [i, segment] of loads.entries()) {
        const { name, address, vaddr, flags, source } = regions[i] as Region;
        assert.is(segment.name, sections ? name : null);
        assert.is(segment.paddr, address);
        assert.is(segment.vaddr, vaddr ?? address);
        assert.is(segment.flags, flags ?? 6);
        assert.is(segment.memsz, segment.filesz);
        const from = Number(segment.offset);
        assert.ok(sameBytes(bytes.subarray(from, from + Number(segment.filesz)), source as Uint8Array));
      }
    });
  }
}

test("notes have the sizes of Linux's structures", () => {
  const sizes = (["x86-64", "aarch64", "i386", "arm"] as const).map((name) => [
    machineOf(name),
    prStatusNote(name, { pid: 1, registers: [1n] }).description.length,
    prPsInfoNote(name, { pid: 1, name: "x" }).description.length,
  ]);
  assert.equal(sizes, [
    [62, 336, 136],
    [183, 392, 136],
    [3, 144, 124],
    [40, 148, 124],
  ]);
  const registers = (count: number, value = 0n) => new Array<bigint>(count).fill(value);
  assert.is(
    codeOf(() => prStatusNote("i386", { pid: 1, registers: registers(18) })),
    "EINVAL",
  );
  assert.is(
    codeOf(() => prStatusNote("i386", { pid: 1, registers: registers(1, 1n << 32n) })),
    "EINVAL",
  );
  assert.is(
    codeOf(() => prStatusNote("arm", { pid: 1, registers: registers(1, -1n) })),
    "EINVAL",
  );
});

// ---- registering ----

test("what is no region is refused, and leaves the table as it was", () => {
  const bytes = new Uint8Array(16);
  const good: Region = { name: "good", address: 0x1000n, source: bytes };
  const refused: [string, Partial<DumpOptions>, Partial<Region>][] = [
    ["EINVAL", {}, { name: "" }],
    ["EINVAL", {}, { name: "sixteen_letters_" }],
    ["EINVAL", {}, { name: "a b" }],
    ["EINVAL", {}, { name: "a\0b" }],
    ["EINVAL", {}, { name: "\u00e9" }],
    ["EINVAL", {}, { name: "a\nb" }],
    ["EINVAL", {}, { source: new Uint8Array(0) }],
    ["EINVAL", {}, { size: 15 }],
    ["EINVAL", {}, { size: 0, source: () => 0 }],
    ["EINVAL", {}, { size: 1.5, source: () => 0 }],
    ["EINVAL", {}, { size: -1, source: () => 0 }],
    ["EINVAL", {}, { address: -1n }],
    ["EINVAL", {}, { address: 1n << 64n }],
    ["EINVAL", {}, { address: (1n << 64n) - 15n }],
    ["EINVAL", {}, { vaddr: (1n << 64n) - 15n }],
    ["EINVAL", {}, { flags: 8 }],
    ["EINVAL", { align: 4 }, { address: 0x1002n }],
    ["EINVAL", { align: 4 }, { source: new Uint8Array(6) }],
    ["EOVERFLOW", { class: 32 }, { address: (1n << 32n) - 15n }],
    ["EOVERFLOW", { class: 32 }, { vaddr: 1n << 32n }],
    ["EEXIST", {}, { address: 0x2000n, name: "first" }],
    ["EEXIST", {}, { address: 0x101fn, name: "b" }],
    ["EEXIST", {}, { address: 0xff1n, name: "b" }],
    ["EEXIST", {}, { address: 0x1008n, name: "b", source: new Uint8Array(4) }],
  ];
  for (const [code, options, change] of refused) {
    const dump = dumpOf(options);
    if (code === "EEXIST") dump.register({ ...region("first", 0x1000n, 32) });
    assert.is(
      codeOf(() => dump.register({ ...good, ...change })),
      code,
      JSON.stringify(Object.keys(change)),
    );
    if (code === "EEXIST") dump.register({ ...good, address: 0x9000n });
    else dump.register(good);
    assert.is(readElfCore(bytesSource(whole(dump))).segments.length, code === "EEXIST" ? 3 : 2);
  }
});

test("a region may end exactly at the end of its class", () => {
  const wide = dumpOf();
  wide.register(region("top", (1n << 64n) - 16n, 16));
  assert.equal(readElfCore(bytesSource(whole(wide))).problems, []);
  const narrow = dumpOf({ class: 32 });
  narrow.register(region("top", (1n << 32n) - 16n, 16));
  assert.equal(readElfCore(bytesSource(whole(narrow))).problems, []);
});

test("neighbours do not overlap; overlaps are taken when they are allowed", () => {
  const dump = dumpOf();
  dump.register(region("b", 0x1010n, 16));
  dump.register(region("a", 0x1000n, 16));
  dump.register(region("c", 0x1020n, 16));
  const loose = dumpOf({ overlap: "allow" });
  loose.register(region("a", 0x1000n, 16));
  loose.register(region("b", 0x1008n, 16));
  const [problem] = readElfCore(bytesSource(whole(loose))).problems;
  assert.is(problem, "segment 2 (b): overlaps segment 1 (a) in the memory");
});

test("an id is its region's alone: tombstones, no compaction, no second life", () => {
  const dump = dumpOf({ capacity: 3 });
  const [a, b, c] = ["a", "b", "c"].map((name, i) => dump.register(region(name, BigInt(i) << 12n, 8)));
  assert.is(
    codeOf(() => dump.register(region("d", 0x9000n, 8))),
    "ENOSPC",
  );
  dump.unregister(b as number);
  assert.is(
    codeOf(() => dump.unregister(b as number)),
    "ENOENT",
  );
  for (const wrong of [0, -1, 3, 0xffff, 0x7fffffff, (c as number) + 1]) {
    assert.is(
      codeOf(() => dump.unregister(wrong)),
      "ENOENT",
      `${wrong}`,
    );
  }
  const names = (core: ElfCore) => core.segments.slice(1).map(({ name }) => name);
  assert.equal(names(readElfCore(bytesSource(whole(dump)))), ["a", "c"]);
  assert.is(
    codeOf(() => dump.register(region("d", 0x9000n, 8))),
    "EBUSY",
  );
  assert.is(
    codeOf(() => dump.unregister(a as number)),
    "EBUSY",
  );
  dump.plan().release();
  const d = dump.register(region("d", 0x9000n, 8));
  assert.is.not(d, b);
  assert.is(
    codeOf(() => dump.unregister(b as number)),
    "ENOENT",
  );
  assert.equal(names(readElfCore(bytesSource(whole(dump)))), ["a", "d", "c"]);
});

test("options that make no sense are refused", () => {
  const wrong: Partial<DumpOptions>[] = [
    { capacity: 0 },
    { capacity: 65537 },
    { capacity: 1.5 },
    { align: 3 },
    { align: 0 },
    { machine: 65536 },
    { class: 16 as 32 },
    { class: 32, entry: 1n << 32n },
    { layout: "remoteproc", notes: NOTES },
  ];
  for (const options of wrong)
    assert.is(
      codeOf(() => dumpOf(options)),
      "EINVAL",
      Object.keys(options).join(),
    );
  const vast = [vmcoreinfoNote("x".repeat(2 ** 20))];
  assert.is(
    codeOf(() => dumpOf({ notes: vast })),
    "EINVAL",
  );
  assert.is(
    codeOf(() => dumpOf().plan()),
    "ENODATA",
  );
});

// ---- limits ----

test("more segments than e_phnum or e_shnum can say are refused, and as many are not", () => {
  const fill = (sections: boolean, count: number) => {
    const dump = dumpOf({ capacity: 65536, sections });
    for (let i = 0; i < count; i++) {
      dump.register({ name: `r${i}`, address: BigInt(i), size: 1, source: () => 0 });
    }
    return dump;
  };
  const dump = fill(false, 65533);
  const plan = dump.plan();
  const core = readElfCore({
    sizeBytes: plan.sizeBytes,
    readSync: (offset, target) => target.set(plan.read(offset, target.length)),
  });
  assert.is(core.segments.length, 65534);
  assert.is(core.segments[65533]?.paddr, 65532n);
  assert.equal(core.problems, []);
  plan.release();
  dump.register({ name: "last", address: 1n << 32n, size: 1, source: () => 0 });
  assert.is(
    codeOf(() => dump.plan()),
    "EOVERFLOW",
  );
  // Refused, not frozen.
  dump.register({ name: "another", address: 1n << 33n, size: 1, source: () => 0 });
  const named = fill(true, 65277);
  assert.equal(readElfCore(bytesSource(whole(named))).problems, []);
  named.plan().release();
  named.register({ name: "last", address: 1n << 32n, size: 1, source: () => 0 });
  assert.is(
    codeOf(() => named.plan()),
    "EOVERFLOW",
  );
});

test("a file of more than 4 GiB is refused in class 32, and one that is just not is read at its end", () => {
  const parts = (dump: CrashDump, sizes: number[]) => {
    let address = 0n;
    for (const [i, size] of sizes.entries()) {
      const source = (offset: number, target: Uint8Array) => {
        target.fill(offset & 0xff);
      };
      dump.register({ name: `p${i}`, address, size, source });
      address += BigInt(size);
    }
  };
  const header = 52 + 2 * 32;
  const dump = dumpOf({ class: 32, sections: false });
  const limit = 2 ** 32 - 1 - Math.ceil(header / 8) * 8;
  parts(dump, [limit]);
  const plan = dump.plan();
  assert.is(plan.sizeBytes, 2 ** 32 - 1);
  assert.equal([...plan.read(plan.sizeBytes - 2, 100)], [(limit - 2) & 0xff, (limit - 2) & 0xff]);
  plan.release();
  dump.register({ name: "more", address: 2n ** 32n - 1n, size: 1, source: () => 0 });
  assert.is(
    codeOf(() => dump.plan()),
    "EFBIG",
  );
  const large = dumpOf();
  parts(large, [2 ** 40, 2 ** 41]);
  const wide = large.plan();
  assert.is(wide.sizeBytes, wide.headerBytes + 3 * 2 ** 40);
  assert.equal([...wide.read(wide.headerBytes + 2 ** 40 + 3, 2)], [3, 3]);
  const vast = dumpOf();
  parts(vast, [2 ** 52, 2 ** 52]);
  assert.is(
    codeOf(() => vast.plan()),
    "EFBIG",
  );
});

// ---- reading ----

test("however it is cut into reads, it is the same file", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 300 }), fc.boolean()), { minLength: 1, maxLength: 12 }),
      fc.constantFrom(32 as const, 64 as const),
      fc.constantFrom("core" as const, "remoteproc" as const, "remoteproc-sections" as const),
      fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 8 }),
      (sizes, elfClass, layout, cuts) => {
        const notes = layout === "core" ? NOTES : [];
        const dump = dumpOf({ class: elfClass, layout, notes });
        for (const [i, [size, fails]] of sizes.entries()) {
          const source = fails ? () => 0 : pattern(i, size);
          dump.register({ name: `r${i}`, address: BigInt(i) << 16n, size, source });
        }
        const plan = dump.plan();
        const expected = plan.read(0, plan.sizeBytes);
        const pieces: number[] = [];
        for (let at = 0, i = 0; at < plan.sizeBytes; i++) {
          const count = cuts[i % cuts.length] ?? 1;
          const bytes = plan.read(at, count);
          assert.is(bytes.length, Math.min(count, plan.sizeBytes - at));
          pieces.push(...bytes);
          at += bytes.length;
        }
        assert.equal(pieces, [...expected]);
        assert.is(plan.read(plan.sizeBytes, 10).length, 0);
        assert.is(plan.read(plan.sizeBytes + 10, 10).length, 0);
        const lost = plan.failures().reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
        assert.is(
          lost,
          sizes.reduce((sum, [size, fails]) => sum + (fails ? size : 0), 0),
        );
      },
    ),
    { numRuns: 300 },
  );
});

test("a byte that cannot be read costs its page, is 0xff, and is listed once", () => {
  const bytes = pattern(9, 5 * 4096);
  const bad = 2 * 4096 + 17;
  let calls = 0;
  const source = (offset: number, target: Uint8Array) => {
    calls++;
    target.set(bytes.subarray(offset, offset + target.length));
    if (offset <= bad && bad < offset + target.length) throw new Error("bus error");
  };
  const dump = dumpOf();
  const id = dump.register({ name: "mixed", address: 0n, size: bytes.length, source });
  const plan = dump.plan();
  const expected = bytes.slice().fill(0xff, 2 * 4096, 3 * 4096);
  for (let i = 0; i < 3; i++) {
    assert.ok(sameBytes(plan.read(plan.headerBytes, bytes.length), expected));
    assert.equal(plan.failures(), [{ id, name: "mixed", offset: 2 * 4096, lengthBytes: 4096 }]);
  }
  assert.is(calls, 3 * 6);
  plan.release();
  assert.is(
    codeOf(() => plan.read(0, 1)),
    "EBADF",
  );
  assert.equal(dump.plan().failures(), []);
});

test("failed ranges are merged, whatever their order", () => {
  const dump = dumpOf();
  dump.register({ name: "none", address: 0n, size: 100, source: () => 0 });
  const plan = dump.plan();
  for (const at of [0, 20, 40, 10, 30]) plan.read(plan.headerBytes + at, 5);
  assert.equal(
    plan.failures().map(({ offset, lengthBytes }) => [offset, lengthBytes]),
    [0, 10, 20, 30, 40].map((at) => [at, 5]),
  );
  plan.read(plan.headerBytes + 3, 39);
  assert.equal(
    plan.failures().map(({ offset, lengthBytes }) => [offset, lengthBytes]),
    [[0, 45]],
  );
});

test("a source that says it brought more, less or nonsense is not believed", () => {
  for (const said of [-1, 1e9, Number.NaN, 0.5]) {
    const dump = dumpOf();
    dump.register({ name: "liar", address: 0n, size: 8, source: () => said });
    const plan = dump.plan();
    assert.equal([...plan.read(plan.headerBytes, 8)], new Array(8).fill(0xff));
    assert.is(plan.failures().length, 1);
  }
});

test("a remote region is read by address, and only when there is time", async () => {
  const bytes = pattern(3, 3 * 4096);
  const asked: bigint[] = [];
  const remote = async (address: bigint, target: Uint8Array) => {
    asked.push(address);
    const offset = Number(address - 0x4000n);
    if (offset >= 8192) throw new Error("disconnected");
    // The far side gives what is left of a page.
    const given = target.subarray(0, 4096);
    given.set(bytes.subarray(offset, offset + given.length));
    return given.length;
  };
  const dump = dumpOf();
  dump.register({ name: "far", address: 0x4000n, size: bytes.length, source: { remote } });
  const plan = dump.plan();
  assert.is(
    codeOf(() => plan.read(plan.headerBytes, 1)),
    "EOPNOTSUPP",
  );
  assert.is(plan.read(0, plan.headerBytes).length, plan.headerBytes);
  const read = await plan.readAsync(0, plan.sizeBytes);
  assert.ok(sameBytes(read.subarray(plan.headerBytes), bytes.slice().fill(0xff, 8192)));
  assert.equal(asked, [0x4000n, 0x5000n, 0x6000n]);
  assert.equal(
    plan.failures().map(({ offset }) => offset),
    [8192],
  );
});

test("a region is what it was when it was registered, however its object changes", async () => {
  const dump = dumpOf();
  const first = region("one", 0x1000n, 4096);
  const later = { name: "two", address: 0x8000n, size: 4, source: { remote: async () => 4 } } as Region;
  dump.register(first);
  dump.register(later);
  Object.assign(first, { name: "other", source: new Uint8Array(4096) });
  Object.assign(later, { source: new Uint8Array(1) });
  const plan = dump.plan();
  assert.equal(plan.read(plan.headerBytes, 4096), pattern(4096, 4096));
  assert.is((await plan.readAsync(plan.headerBytes + 4096, 4)).length, 4);
  assert.equal(plan.failures(), []);
});

test("numbers that are no range are refused", () => {
  const dump = dumpOf();
  dump.register(region("a", 0n, 8));
  const plan = dump.plan();
  for (const [offset, count] of [
    [-1, 1],
    [0, -1],
    [0.5, 1],
    [0, Number.NaN],
    [2 ** 53, 1],
  ] as const) {
    assert.is(
      codeOf(() => plan.read(offset, count)),
      "EINVAL",
    );
  }
});

// ---- tables by chance ----

const FUZZ_TABLES = Number(process.env.MMCPSTORE_FUZZ_TABLES ?? 2000);

test(`${FUZZ_TABLES} tables of random requests: what a small model says, and a file without a fault`, () => {
  let state = 4242;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const memory = makeMemory(4 * 65536);
  const core = instantiate(release, memory);
  const view = new DataView(memory.buffer);
  const bytes = new Uint8Array(memory.buffer);
  const memoryBytes = memory.buffer.byteLength;
  const target = MEDIUM_BASE + 65536;
  const work = MEDIUM_BASE + 8;
  let accepted = 0;
  for (let run = 0; run < FUZZ_TABLES; run++) {
    const capacity = 1 + random(8);
    const elfClass = 1 + random(2);
    const mayOverlap = random(2) === 1;
    const align = 1 << random(3);
    view.setUint32(DUMP_WORK, work, true);
    view.setUint32(DUMP_WORK_BYTES, capacity * 80, true);
    view.setUint32(DUMP_CAPACITY, capacity, true);
    view.setUint32(DUMP_NOTE_BYTES, 0, true);
    view.setUint32(
      DUMP_FLAGS,
      DUMP_SEGMENTS | DUMP_NOTES | DUMP_SECTIONS | (mayOverlap ? DUMP_OVERLAP : 0),
      true,
    );
    view.setUint32(DUMP_ALIGN, align, true);
    view.setUint32(DUMP_CLASS, elfClass, true);
    assert.is(core.dumpInit(), 0);
    bytes.fill(0xa5, work + capacity * 80, work + capacity * 80 + 64);
    const live: { id: number; slot: number; name: string; address: bigint; size: bigint }[] = [];
    for (let step = 0; step < 20; step++) {
      const victim = live[random(live.length)];
      if (victim !== undefined && random(4) === 0) {
        assert.is(core.dumpUnregister(victim.id), 0);
        assert.is(core.dumpUnregister(victim.id), -2);
        live.splice(live.indexOf(victim), 1);
        continue;
      }
      const name = `r${random(12)}`;
      const [wide, base] = [random(4) === 0, BigInt(random(64)) * 4n];
      const address = wide ? (1n << BigInt(32 * elfClass)) - base : base;
      const size = BigInt(random(40));
      const source = random(8) === 0 ? memoryBytes - random(40) : target;
      bytes.fill(0, DUMP_REQUEST, DUMP_REQUEST + 16);
      bytes.set(new TextEncoder().encode(name), DUMP_REQUEST + SLOT_NAME);
      view.setBigUint64(DUMP_REQUEST + SLOT_ADDRESS, address, true);
      view.setBigUint64(DUMP_REQUEST + SLOT_VADDR, address, true);
      view.setBigUint64(DUMP_REQUEST + SLOT_SIZE, size, true);
      view.setUint32(DUMP_REQUEST + SLOT_SOURCE, source, true);
      view.setUint32(DUMP_REQUEST + SLOT_REGION_FLAGS, REGION_MEMORY | random(8), true);
      const asked = BigInt.asUintN(64, address);
      const ends = asked + size;
      const good =
        size > 0n &&
        asked % BigInt(align) === 0n &&
        size % BigInt(align) === 0n &&
        ends <= 1n << BigInt(32 * elfClass) &&
        source + Number(size) <= memoryBytes &&
        live.length < capacity &&
        live.every((other) => other.name !== name) &&
        (mayOverlap || live.every((other) => ends <= other.address || other.address + other.size <= asked));
      const id = core.dumpRegister();
      assert.is(id > 0, good, `run ${run}, step ${step}: ${id}`);
      if (id > 0) live.push({ id, slot: id & 0xffff, name, address: asked, size });
    }
    accepted += live.length;
    assert.is(core.dumpPlan(), live.length > 0 ? 0 : -61);
    if (live.length === 0) continue;
    const total = Number(view.getBigUint64(DUMP_TOTAL_BYTES, true));
    const file = MEDIUM_BASE + 2 * 65536;
    assert.is(core.dumpRead(0, 0, total + 100, file), total);
    const { segments, problems } = readElfCore(bytesSource(bytes.slice(file, file + total)));
    if (!mayOverlap) assert.equal(problems, []);
    live.sort((a, b) => a.slot - b.slot);
    assert.equal(
      segments.slice(1).map((one) => [one.name, one.paddr, one.filesz]),
      live.map((one) => [one.name, one.address, one.size]),
    );
    assert.ok(bytes.slice(work + capacity * 80, work + capacity * 80 + 64).every((one) => one === 0xa5));
  }
  assert.ok(accepted > FUZZ_TABLES);
});

test("random words of the table and of its configuration: a status, and no byte outside of the work area", () => {
  let state = 99;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const memory = makeMemory(4 * 65536);
  const core = instantiate(release, memory);
  const view = new DataView(memory.buffer);
  const words = [0, 1, 2, 7, 8, 80, 201, 0xffff, 65536, MEDIUM_BASE, 0x7fffffff, 0x80000000, 0xffffffff];
  let made = 0;
  for (let run = 0; run < FUZZ_TABLES; run++) {
    for (let at = DUMP_WORK; at < DUMP_BASE + 0x30; at += 4) {
      view.setUint32(at, words[random(words.length)] ?? 0, true);
    }
    // Half of the tables are possible ones.
    if (random(2) === 0) {
      view.setUint32(DUMP_WORK, MEDIUM_BASE, true);
      view.setUint32(DUMP_WORK_BYTES, 65536, true);
      view.setUint32(DUMP_CAPACITY, 1 + random(700), true);
      view.setUint32(DUMP_NOTE_BYTES, random(2000), true);
      view.setUint32(DUMP_FLAGS, random(32), true);
      view.setUint32(DUMP_ALIGN, 1, true);
      view.setUint32(DUMP_CLASS, 1 + random(2), true);
    }
    const status = core.dumpInit();
    assert.ok([0, -14, -22, -28].includes(status), `${status}`);
    if (status === 0) made++;
    const guard = new Uint8Array(memory.buffer, 0, DUMP_BASE).slice();
    for (let step = 0; step < 8; step++) {
      for (let at = DUMP_REQUEST; at < DUMP_REQUEST + 48; at += 4) {
        view.setUint32(at, words[random(words.length)] ?? 0, true);
      }
      view.setUint32(DUMP_REQUEST + SLOT_NAME, 0x61 + step, true);
      if (random(4) > 0) for (const at of [4, 8, 12]) view.setUint32(DUMP_REQUEST + at, 0, true);
      core.dumpRegister();
      core.dumpNote(random(3), words[random(words.length)] ?? 0, random(300));
      core.dumpUnregister(words[random(words.length)] ?? 0);
    }
    core.dumpPlan();
    const [low, high] = [words[random(words.length)] ?? 0, words[random(4)] ?? 0];
    core.dumpExtent(low, high);
    const n = core.dumpRead(random(3) === 0 ? low : random(9000), 0, random(5000), MEDIUM_BASE + 2 * 65536);
    assert.ok(n >= -22 && n <= 5000, `${n}`);
    core.dumpRelease();
    assert.ok(sameBytes(new Uint8Array(memory.buffer, 0, DUMP_BASE), guard));
  }
  assert.ok(made > FUZZ_TABLES / 10, `${made}`);
});

// ---- looking a region up ----

const SLOT = fieldsOf(readFileSync(`${ROOT}assembly/dump/state.ts`, "utf8"), "Slot");
const FIRST_OFFSET = SLOT.find(({ name }) => name === "first")?.offset ?? Number.NaN;

/** A planned table of regions with these sizes, which lie nowhere; 0: one that is given back. */
function plannedTable(sizes: bigint[]) {
  const tableBytes = sizes.length * DUMP_SLOT_BYTES;
  const memory = makeMemory(tableBytes);
  const core = instantiate(release, memory);
  const view = new DataView(memory.buffer);
  for (const [at, value] of [
    [DUMP_WORK, MEDIUM_BASE],
    [DUMP_WORK_BYTES, tableBytes],
    [DUMP_CAPACITY, sizes.length],
    [DUMP_FLAGS, DUMP_SEGMENTS],
    [DUMP_ALIGN, 1],
    [DUMP_CLASS, 2],
  ] as const) {
    view.setUint32(at, value, true);
  }
  assert.is(core.dumpInit(), 0);
  const given: number[] = [];
  let address = 0n;
  for (const [i, size] of sizes.entries()) {
    const name = new Uint8Array(memory.buffer, DUMP_REQUEST + SLOT_NAME, 16).fill(0);
    name.set(new TextEncoder().encode(`r${i}`));
    view.setBigUint64(DUMP_REQUEST + SLOT_ADDRESS, address, true);
    view.setBigUint64(DUMP_REQUEST + SLOT_VADDR, address, true);
    view.setBigUint64(DUMP_REQUEST + SLOT_SIZE, size || 1n, true);
    view.setUint32(DUMP_REQUEST + SLOT_REGION_FLAGS, 6, true);
    const id = core.dumpRegister();
    assert.ok(id > 0);
    if (size === 0n) given.push(id);
    address += size || 1n;
  }
  for (const id of given) assert.is(core.dumpUnregister(id), 0);
  assert.is(core.dumpPlan(), 0);
  return { core, view };
}

/** Regions that an offset may be in by the part of the bytes that it lies in: on average, and at most. */
function candidates(view: DataView): { average: number; most: number } {
  const live = view.getUint32(DUMP_LIVE, true);
  const firstOf = (part: number) => view.getUint32(MEDIUM_BASE + part * DUMP_SLOT_BYTES + FIRST_OFFSET, true);
  const counts = Array.from({ length: live }, (_, part) => {
    return (part + 1 < live ? firstOf(part + 1) + 1 : live) - firstOf(part);
  });
  return { average: counts.reduce((sum, count) => sum + count, 0) / live, most: Math.max(...counts) };
}

test("a region is looked up in as many steps among 10,000 as among 10", () => {
  for (const regions of [1, 10, 100, 1000, 10_000]) {
    const { average, most } = candidates(plannedTable(Array.from({ length: regions }, () => 65536n)).view);
    assert.ok(average >= 1 && average < 2, `${regions}: ${average}`);
    assert.ok(most <= 2, `${regions}: ${most}`);
  }
});

test("and however unequal the regions are, at their first byte and at their last the right one is found", () => {
  const size = fc.oneof(
    fc.constant(0n),
    fc.constant(1n),
    fc.bigInt({ min: 1n, max: 5000n }),
    fc.bigInt({ min: 1n, max: 1n << 40n }),
  );
  const property = fc.property(fc.array(size, { minLength: 1, maxLength: 300 }), (sizes) => {
    fc.pre(sizes.some((one) => one > 0n));
    const { core, view } = plannedTable(sizes);
    let at = BigInt(view.getUint32(DUMP_HEADER_BYTES, true));
    for (const [slot, lengthBytes] of sizes.entries()) {
      if (lengthBytes === 0n) continue;
      for (const inside of [0n, lengthBytes - 1n]) {
        const offset = at + inside;
        assert.is(core.dumpExtent(Number(offset & 0xffffffffn), Number(offset >> 32n)), 1);
        assert.is(view.getUint32(DUMP_EXTENT_SLOT, true), slot);
        assert.is(view.getBigUint64(DUMP_EXTENT_OFFSET, true), inside);
        assert.is(view.getBigUint64(DUMP_EXTENT_BYTES, true), lengthBytes - inside);
      }
      at += lengthBytes;
    }
    assert.is(view.getBigUint64(DUMP_TOTAL_BYTES, true), at);
    assert.ok(candidates(view).average <= 2);
  });
  fc.assert(property, { seed: 6, numRuns: 300 });
});

// ---- the core by itself, as the panic path uses it ----

test("the core reads regions in its own memory, chunk by chunk, without a buffer of the file", () => {
  const memory = makeMemory(4 * 65536);
  const core = instantiate(release, memory);
  const view = new DataView(memory.buffer);
  const words: [number, number][] = [
    [DUMP_WORK, MEDIUM_BASE],
    [DUMP_WORK_BYTES, 65536],
    [DUMP_CAPACITY, 201],
    [DUMP_FLAGS, DUMP_SEGMENTS | DUMP_NOTES | DUMP_SECTIONS],
    [DUMP_ALIGN, 1],
    [DUMP_CLASS, 2],
  ];
  for (const [at, value] of words) view.setUint32(at, value, true);
  assert.is(core.dumpInit(), 0);
  const bytes = pattern(5, 3000);
  const source = MEDIUM_BASE + 65536;
  new Uint8Array(memory.buffer).set(bytes, source);
  const ask = (name: string, address: number, ptr: number, size: number) => {
    const at = new Uint8Array(memory.buffer, DUMP_REQUEST + SLOT_NAME, 16).fill(0);
    at.set(new TextEncoder().encode(name));
    view.setBigUint64(DUMP_REQUEST + SLOT_ADDRESS, BigInt(address), true);
    view.setBigUint64(DUMP_REQUEST + SLOT_VADDR, BigInt(address), true);
    view.setBigUint64(DUMP_REQUEST + SLOT_SIZE, BigInt(size), true);
    view.setUint32(DUMP_REQUEST + SLOT_SOURCE, ptr, true);
    view.setUint32(DUMP_REQUEST + SLOT_REGION_FLAGS, REGION_MEMORY | 6, true);
    return core.dumpRegister();
  };
  assert.ok(ask("one", 0x1000, source, 1000) > 0);
  assert.ok(ask("two", 0x8000, source + 1000, 2000) > 0);
  assert.is(ask("outside", 0xf000, memory.buffer.byteLength - 8, 9), -14);
  assert.is(core.dumpRead(0, 0, 1, source), -22);
  assert.is(core.dumpExtent(0, 0), -22);
  assert.is(core.dumpPlan(), 0);
  const before = new Uint8Array(memory.buffer).slice();
  const total = Number(view.getBigUint64(DUMP_TOTAL_BYTES, true));
  const target = MEDIUM_BASE + 3 * 65536;
  const file: number[] = [];
  for (let at = 0; at < total; ) {
    const n = core.dumpRead(at, 0, 512, target);
    file.push(...new Uint8Array(memory.buffer, target, n));
    at += n;
    assert.ok(n === 512 || at === total);
  }
  const read = readElfCore(bytesSource(Uint8Array.from(file)));
  assert.equal(read.problems, []);
  assert.ok(sameBytes(Uint8Array.from(file).subarray(-3000), bytes));
  assert.is(core.dumpRead(total, 0, 512, target), 0);
  assert.is(core.dumpRead(0, 0, 512, memory.buffer.byteLength - 511), -14);
  assert.is(core.dumpExtent(total % 2 ** 32, 0), -61);
  // Nothing else in the memory has changed: no header and no part of the file is kept.
  const after = new Uint8Array(memory.buffer);
  const changed: number[] = [];
  for (let i = 0; i < before.length; i++) {
    const isOurs = (i >= DUMP_BASE && i < DUMP_BASE + 0x200) || (i >= target && i < target + 512);
    if (!isOurs && before[i] !== after[i]) changed.push(i);
  }
  assert.equal(changed, []);
});

test.run();
