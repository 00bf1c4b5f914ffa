// The reader of ELF cores and `mmcpstore core` on files that are right, broken, hostile and random. A longer run:
// MMCPSTORE_FUZZ_ELF=100000 node scripts/test.mjs elf-core
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CrashDump, type DumpOptions } from "../host/dump/dump.js";
import { bytesSource, type ElfCore, PROBLEMS_MAX, readElfCore } from "../host/dump/elf.js";
import { prPsInfoNote, prStatusNote, vmcoreinfoNote } from "../host/dump/notes.js";
import { MmcError } from "../host/errors.js";
import { coreModule, pattern, ROOT, sameBytes } from "./machine.js";

const FUZZ_INPUTS = Number(process.env.MMCPSTORE_FUZZ_ELF ?? 8000);
const FOLDER = mkdtempSync(join(tmpdir(), "mmcpstore-elf-core-"));
const NOTES = [
  prStatusNote("x86-64", { pid: 1, registers: [1n] }),
  prPsInfoNote("x86-64", { pid: 1, name: "x" }),
  vmcoreinfoNote("OSRELEASE=6\n"),
];

function make(options: Partial<DumpOptions> = {}): Uint8Array {
  const dump = new CrashDump(coreModule("release"), { class: 64, machine: 62, notes: NOTES, ...options });
  dump.register({ name: "one", address: 0x1000n, source: pattern(1, 100) });
  dump.register({ name: "two/..", address: 0x2000n, source: pattern(2, 200) });
  const plan = dump.plan();
  return plan.read(0, plan.sizeBytes);
}

function edited(bytes: Uint8Array, edit: (view: DataView) => void): Uint8Array {
  const copy = bytes.slice();
  edit(new DataView(copy.buffer));
  return copy;
}

const read = (bytes: Uint8Array): ElfCore => readElfCore(bytesSource(bytes));
const good = make();
/** phdr[1] and the first section header of the file above. */
const LOAD = 64 + 56;
const PHNUM = 56;

function refusal(bytes: Uint8Array): string {
  try {
    read(bytes);
  } catch (error) {
    assert.instance(error, MmcError);
    return `${(error as MmcError).code}: ${(error as Error).message}`;
  }
  return "none";
}

test("what is no ELF core is refused in words", () => {
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(0), "is not an ELF file"],
    [new Uint8Array(100), "is not an ELF file"],
    [good.subarray(0, 3), "is not an ELF file"],
    [good.subarray(0, 5), "is an ELF file of class 2 and byte order ?"],
    [good.subarray(0, 63), "ends within its ELF header"],
    [edited(good, (view) => view.setUint8(4, 3)), "is an ELF file of class 3 and byte order 1"],
    [edited(good, (view) => view.setUint8(5, 0)), "is an ELF file of class 2 and byte order 0"],
    [edited(good, (view) => view.setUint16(16, 2, true)), "is an ELF file of type 2, not a core (4)"],
    [edited(good, (view) => view.setUint16(54, 55, true)), "has program headers of 55 bytes"],
    [edited(good, (view) => view.setUint16(58, 0, true)), "has section headers of 0 bytes"],
  ];
  for (const [bytes, why] of cases) assert.is(refusal(bytes), `EINVAL: ${why}`);
});

test("each thing that is wrong is told", () => {
  const u64 = (at: number, value: bigint) => edited(good, (view) => view.setBigUint64(at, value, true));
  const cases: [Uint8Array, RegExp][] = [
    [good.subarray(0, good.length - 1), /^segment 2 \(two\/\.\.\): 199 of 200 bytes are in the file$/],
    [good.subarray(0, 130), /^program headers: 1 of 3 are in the file$/],
    [u64(LOAD + 40, 99n), /^segment 1 \(one\): p_memsz 99 is less than p_filesz 100$/],
    [u64(LOAD + 24, 2n ** 64n - 1n), /^segment 1 \(one\): its end is beyond 2\^64$/],
    [u64(LOAD + 24, 0x2001n), /^segment 1 \(one\): overlaps segment 2 \(two\/\.\.\) in the memory$/],
    [u64(LOAD + 32, 101n), /^segment 2 \(two\/\.\.\): overlaps segment 1 in the file$/],
    [u64(LOAD + 8, 2n ** 63n), /^segment 1: 0 of 100 bytes are in the file$/],
    [u64(32, 2n ** 64n - 1n), /^program headers: 0 of 3 are in the file$/],
    [u64(40, 2n ** 64n - 1n), /^section headers: 0 of 4 are in the file$/],
    [edited(good, (view) => view.setUint16(62, 9, true)), /^section names: e_shstrndx 9 is no section$/],
    [edited(good, (view) => view.setUint32(20, 2, true)), /^e_version is 2, not 1$/],
    [edited(good, (view) => view.setUint16(PHNUM, 0xffff, true)), /.*/],
    [
      edited(good, (view) => view.setUint32(64 + 3 * 56 + 4, 2 ** 31, true)),
      /^segment 0: the note at 232 goes/,
    ],
  ];
  for (const [bytes, expected] of cases) {
    const { problems } = read(bytes);
    assert.ok(
      problems.some((line) => expected.test(line)),
      `${expected}: ${problems}`,
    );
  }
  assert.equal(read(good).problems, []);
});

test("PN_XNUM: the count of segments is in the first section header", () => {
  const shoff = Number(new DataView(good.buffer).getBigUint64(40, true));
  const many = edited(good, (view) => {
    view.setUint16(PHNUM, 0xffff, true);
    view.setUint32(shoff + 44, 3, true);
  });
  assert.equal(read(many), read(good));
  const vast = edited(many, (view) => view.setUint32(shoff + 44, 2 ** 32 - 1, true));
  assert.ok(read(vast).problems.length > 0);
});

test("big-endian files are read", () => {
  const bytes = new Uint8Array(52 + 32 + 4);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 1, 2, 1]);
  view.setUint16(16, 4);
  view.setUint16(18, 20); // EM_PPC
  view.setUint32(20, 1);
  view.setUint32(28, 52);
  for (const [i, value] of [52, 32, 1].entries()) view.setUint16(40 + 2 * i, value);
  for (const [i, value] of [1, 84, 0xc000, 0x1000, 4, 4, 7].entries()) view.setUint32(52 + 4 * i, value);
  const core = read(bytes);
  assert.equal(core.problems, []);
  assert.equal([core.isLittleEndian, core.machine, core.segments[0]?.paddr], [false, 20, 0x1000n]);
});

test("a file that is cut anywhere is read without more than its size", () => {
  for (let length = 0; length < good.length; length++) {
    const cut = good.slice(0, length);
    if (length < 64) assert.match(refusal(cut), /^EINVAL/);
    else assert.ok(read(cut).problems.length > 0, `${length}`);
  }
});

test(`${FUZZ_INPUTS} damaged cores: an error of ours or an answer within bounds, and nothing else`, () => {
  const seeds = [
    good,
    make({ class: 32 }),
    make({ sections: false }),
    make({ class: 32, layout: "remoteproc", notes: [] }),
    make({ layout: "remoteproc-sections", notes: [] }),
  ];
  let state = 12345;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const words = [0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];
  let refused = 0;
  let answered = 0;
  for (let i = 0; i < FUZZ_INPUTS; i++) {
    let bytes = (seeds[i % seeds.length] as Uint8Array).slice();
    const view = new DataView(bytes.buffer);
    for (let edits = 1 + random(6); edits > 0; edits--) {
      // Most damage is done to headers; the first 64 bytes get half of it.
      const at = random(random(2) === 0 ? 64 : Math.min(bytes.length, 1200));
      if (random(2) === 0) bytes[at] = random(256);
      else if (at + 4 <= bytes.length) view.setUint32(at, words[random(words.length)] ?? 0, true);
    }
    // The magic and class stay, else every other input ends at the first check.
    if (random(4) > 0) bytes.set((seeds[i % seeds.length] as Uint8Array).subarray(0, 7));
    if (random(4) === 0) bytes = bytes.slice(0, random(bytes.length + 1));
    let touched = 0;
    const source = {
      sizeBytes: bytes.length,
      readSync: (offset: number, target: Uint8Array) => {
        assert.ok(offset >= 0 && offset + target.length <= bytes.length, "reads outside of the file");
        touched += target.length;
        target.set(bytes.subarray(offset, offset + target.length));
      },
    };
    try {
      const core = readElfCore(source);
      answered++;
      assert.ok(core.problems.length <= PROBLEMS_MAX + 1);
      for (const { presentBytes, filesz, offset } of core.segments) {
        assert.ok(BigInt(presentBytes) <= filesz);
        assert.ok(presentBytes === 0 || offset + BigInt(presentBytes) <= BigInt(bytes.length));
      }
      for (const note of core.notes) assert.ok(note.offset + note.lengthBytes <= bytes.length);
      // Each table once, and each note segment once.
      assert.ok(
        touched <= bytes.length * (4 + core.segments.length),
        `${touched} bytes read of ${bytes.length}`,
      );
    } catch (error) {
      assert.ok(error instanceof MmcError, `input ${i}: ${(error as Error).stack}`);
      refused++;
    }
  }
  console.log(`\n# ${answered} read, ${refused} refused`);
  assert.ok(answered > FUZZ_INPUTS / 4 && refused > FUZZ_INPUTS / 50);
});

// ---- as a process ----

function cli(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [`${ROOT}dist/host/cli/main.js`, "core", ...args],
    { encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } },
  );
  return { status, stdout, stderr };
}

function store(name: string, bytes: Uint8Array): string {
  const path = join(FOLDER, name);
  writeFileSync(path, bytes);
  return path;
}

test("core ls and verify say what is there", () => {
  const path = store("good.elf", good);
  const listed = cli("ls", path);
  assert.is(listed.status, 0, listed.stderr);
  assert.match(listed.stdout, /^ +1 +LOAD +one +0x1000 +0x1000 +100 +ok$/m);
  assert.match(listed.stdout, /^note VMCOREINFO type 0, 12 bytes$/m);
  assert.match(listed.stdout, /^ELF64, little-endian, machine 62, 3 segments$/m);
  const json = JSON.parse(cli("ls", path, "--json").stdout) as {
    segments: { name: string; state: string }[];
  };
  assert.equal(
    json.segments.map(({ name }) => name),
    [null, "one", "two/.."],
  );
  const whole = cli("verify", path);
  assert.equal([whole.status, whole.stdout], [0, "3 segments and 3 notes, all in the file\n"]);
  const cut = store("cut.elf", good.subarray(0, good.length - 10));
  const wrong = cli("verify", cut);
  assert.is(wrong.status, 1);
  assert.is(wrong.stdout, "segment 2 (two/..): 190 of 200 bytes are in the file\n");
  assert.is(wrong.stderr, `mmcpstore: ${cut}: 1 problem\n`);
  assert.equal(JSON.parse(cli("verify", cut, "--json").stdout).ok, false);
});

test("core extract writes every segment under a name that stays in the folder", () => {
  const path = store("take.elf", good);
  const folder = join(FOLDER, "out");
  const done = cli("extract", path, folder);
  assert.is(done.status, 0, done.stderr);
  assert.equal(readdirSync(folder).sort(), [
    "000-note-0x0.bin",
    "001-one.bin",
    "002-two%2f...bin",
    "manifest.json",
  ]);
  assert.ok(sameBytes(readFileSync(join(folder, "002-two%2f...bin")), pattern(2, 200)));
  // Once more, as behind a run that was cut, is no mistake; another content is not written over.
  assert.is(cli("extract", path, folder).status, 0);
  writeFileSync(join(folder, "001-one.bin"), "another");
  const again = cli("extract", path, folder);
  assert.is(again.status, 1);
  assert.match(again.stderr, /exists already with another content, --force replaces it\n$/);
  assert.is(cli("extract", path, folder, "--force").status, 0);
  const part = join(FOLDER, "part");
  const cut = store("half.elf", good.subarray(0, good.length - 10));
  assert.is(cli("extract", cut, part).status, 0);
  const manifest = JSON.parse(readFileSync(join(part, "manifest.json"), "utf8"));
  assert.equal(
    manifest.segments.map(({ state }: { state: string }) => state),
    ["ok", "ok", "cut"],
  );
  assert.is(readFileSync(join(part, "002-two%2f...bin")).length, 190);
});

test("segments that share their bytes do not fill the disk", () => {
  const bomb = edited(good, (view) => {
    for (const at of [LOAD, LOAD + 56]) {
      view.setBigUint64(at + 8, 0n, true);
      view.setBigUint64(at + 32, 2n ** 62n, true);
    }
  });
  const folder = join(FOLDER, "bomb");
  const { status, stderr } = cli("extract", store("bomb.elf", bomb), folder);
  assert.is(status, 1);
  assert.match(stderr, /its segments share bytes and would take \d+ together\n$/);
  assert.not(existsSync(folder));
});

test("bad input: one line on standard error, nothing on standard output", () => {
  const cases: [string[], number, RegExp][] = [
    [["ls", join(FOLDER, "none")], 1, /none: no such file$/],
    [["ls", FOLDER], 1, /is a directory$/],
    [["ls", store("empty", new Uint8Array(0))], 1, /is empty$/],
    [
      ["verify", store("text", new TextEncoder().encode("hello"))],
      1,
      /text: is no ELF core and begins no dump area; /,
    ],
    [
      ["extract", store("gz", Uint8Array.of(0x1f, 0x8b, 0, 0)), join(FOLDER, "x")],
      1,
      /gz: (truncated|corrupt) gzip stream/,
    ],
    [["ls"], 2, /missing required argument 'image'/],
    [["take"], 2, /./],
    [[], 2, /core: say ls, extract, verify or rm/],
  ];
  for (const [args, expected, line] of cases) {
    const { status, stdout, stderr } = cli(...args);
    assert.equal([status, stdout], [expected, ""], `${args}: ${stderr}`);
    assert.match(stderr, /^mmcpstore: [^\n]+\n$/);
    assert.match(stderr.trimEnd(), line);
  }
});

test.after(() => rmSync(FOLDER, { recursive: true, force: true }));
test.run();
