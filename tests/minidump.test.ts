// Qualcomm's Minidump out of memory images: tables field by field, every kind of table that is wrong or hostile, the
// regions as files and as an ELF core, the command as a process, and mutated images. A longer run:
// MMCPSTORE_MINIDUMP_RUNS=100000 node scripts/test.mjs minidump
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  BASE,
  type ImageOptions,
  type ImageRegion,
  minidumpImage,
  PLACE,
} from "../host/cli/minidump-image.js";
import { CrashDump } from "../host/dump/dump.js";
import { bytesSource, type ElfCore, type ElfSource, PROBLEMS_MAX, readElfCore } from "../host/dump/elf.js";
import {
  type Minidump,
  type MinidumpOptions,
  type MinidumpRegion,
  minidumpTagName,
  readMinidump,
} from "../host/dump/minidump.js";
import { minidumpCore } from "../host/dump/minidump-core.js";
import { MmcError } from "../host/errors.js";
import { coreModule, pattern, ROOT, sameBytes } from "./machine.js";

const RUNS = Number(process.env.MMCPSTORE_MINIDUMP_RUNS ?? 2000);
const FOLDER = mkdtempSync(join(tmpdir(), "mmcpstore-minidump-"));
const at = (offset: number) => BASE + BigInt(offset);

const LINUX: ImageRegion[] = [
  { name: "KELF", sequence: 1, address: at(0x30000), bytes: pattern(1, 1000) },
  { name: "Kvmcorein", sequence: 2, address: at(0x31000), bytes: pattern(2, 4096) },
  { name: "Kold", sequence: 3, valid: "AVNI", address: at(0x32000), bytes: pattern(3, 8) },
  { name: "Kinit", sequence: 4, valid: "TINI", address: at(0x33000), lengthBytes: 8n },
  { name: "Klast", sequence: 5, address: at(0x3fff0), bytes: pattern(4, 16) },
];
const ADSP: ImageRegion[] = [{ name: "stack", address: at(0x34000), bytes: pattern(5, 300) }];
const GOLDEN: ImageOptions = {
  revision: 3,
  subsystems: {
    0: { regions: LINUX },
    5: { encryptionRequired: "SEY", regions: ADSP },
    7: { status: 1, enabled: "ASID", regions: [] },
  },
};

function imageFile(name: string, options: ImageOptions): string {
  writeFileSync(join(FOLDER, name), minidumpImage(options));
  return name;
}

const good = imageFile("ddr.bin", GOLDEN);

function read(options: ImageOptions, how: MinidumpOptions = {}): Minidump {
  return readMinidump(bytesSource(minidumpImage(options)), how);
}

function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    assert.instance(error, MmcError);
    return `${(error as MmcError).code}: ${(error as Error).message}`;
  }
  return "none";
}

// ---- what stands there ----

test("tables field by field, however they are found", () => {
  const found: [ImageOptions, MinidumpOptions][] = [
    [GOLDEN, {}],
    [{ ...GOLDEN, list: "cached" }, {}],
    [GOLDEN, { smem: PLACE.smem }],
    [GOLDEN, { toc: PLACE.toc, base: BASE }],
  ];
  for (const [options, how] of found) {
    const { tocOffset, ...minidump } = read(options, how);
    if (options.list !== "cached") assert.is(tocOffset, PLACE.toc);
    assert.equal([minidump.base, minidump.status, minidump.revision, minidump.enabled], [BASE, 1, 3, 1]);
    assert.equal(minidump.problems, []);
    assert.equal(
      minidump.subsystems.map(({ state, regionCount }) => [state, regionCount]),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((i) => {
        if (i === 0) return ["ready", 5];
        return i === 5 ? ["ready", 1] : ["off", 0];
      }),
    );
    const [linux, , , , , adsp, , off] = minidump.subsystems;
    assert.is(linux?.address, at(PLACE.arrays));
    const tags = [linux, adsp, off].map((one) =>
      [one?.enabled, one?.encryptionStatus, one?.encryptionRequired].map((tag) => minidumpTagName(tag ?? -1)),
    );
    assert.equal(tags, [
      ["ENBL", "DONE", "NR"],
      ["ENBL", "DONE", "YES"],
      ["0x44495341", "DONE", "NR"],
    ]);
    assert.is(off?.why, "enabled is 0x44495341");
    assert.equal(
      minidump.regions.map((one) => [
        one.subsystem,
        one.index,
        one.name,
        one.sequence,
        minidumpTagName(one.valid),
      ]),
      [
        [0, 0, "KELF", 1, "VALI"],
        [0, 1, "Kvmcorein", 2, "VALI"],
        [0, 2, "Kold", 3, "INVA"],
        [0, 3, "Kinit", 4, "INIT"],
        [0, 4, "Klast", 5, "VALI"],
        [5, 0, "stack", 0, "VALI"],
      ],
    );
    const image = minidumpImage(options);
    for (const region of minidump.regions) {
      const made = [...LINUX, ...ADSP].find(({ name }) => name === region.name) as ImageRegion;
      assert.equal(
        [region.address, region.lengthBytes],
        [made.address, made.lengthBytes ?? BigInt(made.bytes?.length ?? 0)],
      );
      const isValid = made.valid === undefined;
      assert.equal([region.state, region.overlaps], [isValid ? "ok" : "invalid", false]);
      const bytes = image.subarray(region.offset, region.offset + region.presentBytes);
      if (isValid) assert.ok(sameBytes(bytes, made.bytes as Uint8Array));
      else assert.is(region.presentBytes, 0);
    }
  }
});

test("a ToC written by hand, byte for byte", () => {
  const words = [
    "01000000 02000000 01000000 00000000", // status, revision, enabled, padding
    "01000000 4c424e45 454e4f44 53455900", // status, ENBL, DONE, YES
    "01000000 00000000 30100000 00000000", // one region, padding, its array at 0x1030
    "4b454c46 00000000 00000000 00000000", // KELF
    "07000000 494c4156 58100000 00000000", // sequence 7, VALI, at 0x1058
    "03000000 00000000 aabbcc00 00000000", // three bytes, and they
  ];
  const bytes = new Uint8Array(Buffer.from(words.join("").replaceAll(" ", ""), "hex"));
  const { regions, revision, subsystems, problems } = readMinidump(bytesSource(bytes), {
    toc: 0,
    subsystems: 1,
    base: 0x1000n,
  });
  assert.equal([revision, problems], [2, []]);
  assert.equal([subsystems.length, subsystems[0]?.state, subsystems[0]?.regionCount], [1, "ready", 1]);
  const [region] = regions as [MinidumpRegion];
  assert.equal([region.name, region.sequence, region.address, region.lengthBytes], ["KELF", 7, 0x1058n, 3n]);
  assert.equal([region.offset, region.presentBytes, region.state], [0x58, 3, "ok"]);
  assert.equal([...bytes.subarray(0x58, 0x5b)], [0xaa, 0xbb, 0xcc]);
});

test("--base wins over what the SMEM says; an SMEM that does not say it is at 0", () => {
  assert.is(read(GOLDEN, { base: 0n }).base, 0n);
  assert.ok(read(GOLDEN, { base: 0n }).subsystems.every(({ state }) => state !== "ready"));
  const silent = { ...GOLDEN, edit: (view: DataView) => view.setUint8(PLACE.info, 0) };
  assert.is(read(silent, { smem: PLACE.smem }).base, 0n);
  assert.is(read(silent, { smem: PLACE.smem, base: BASE }).regions.length, 6);
});

// ---- tables that are wrong ----

/** Offsets of fields of subsystem 0 and of its first two regions. */
const SUBSYSTEM = PLACE.toc + 16;
const FIRST = PLACE.arrays;
const SECOND = PLACE.arrays + 40;
const u16 = (offset: number, value: number) => (view: DataView) => view.setUint16(offset, value, true);
const u32 = (offset: number, value: number) => (view: DataView) => view.setUint32(offset, value, true);
const u64 = (offset: number, value: bigint) => (view: DataView) => view.setBigUint64(offset, value, true);

const REFUSED: [string, (view: DataView) => void, MinidumpOptions, RegExp][] = [
  ["no SMEM at all", u32(PLACE.table, 0), {}, /^ENODATA: no SMEM is found in the image$/],
  ["an SMEM that does not say its size", u32(PLACE.info, 0), {}, /^ENODATA: no SMEM is found/],
  ["an SMEM of less than a page", u32(PLACE.info + 4, 4095), {}, /^ENODATA: no SMEM is found/],
  ["an SMEM larger than one can be", u32(PLACE.info + 4, 0xffffffff), {}, /^ENODATA: no SMEM is found/],
  ["an SMEM that begins before the image", u32(PLACE.info + 4, 0x20000), {}, /^ENODATA: no SMEM is found/],
  ["a partition table of another version", u32(PLACE.table + 4, 2), {}, /^ENODATA: no SMEM is found/],
  ["no partition table", u32(PLACE.table, 0), { smem: PLACE.smem }, /^EBADMSG: SMEM: has no partition table/],
  ["an SMEM beyond the image", u32(0, 0), { smem: 2 ** 40 }, /^EINVAL: SMEM: \d+ is beyond the image's end/],
  ["an SMEM at its last byte", u32(0, 0), { smem: 0x3ffff }, /^EBADMSG: SMEM: version 0 at 262143 is not 12/],
  [
    "an SMEM of version 11",
    u16(PLACE.version + 2, 11),
    { smem: PLACE.smem },
    /^EOPNOTSUPP: SMEM: is of version 11/,
  ],
  ["an SMEM of version 13", u16(PLACE.version + 2, 13), { smem: PLACE.smem }, /^EBADMSG: SMEM: version 13/],
  [
    "more partitions than the table has room for",
    u32(PLACE.table + 8, 85),
    { smem: PLACE.smem },
    /^EBADMSG: SMEM: says 85 partitions, its table has room for 84$/,
  ],
  [
    "4 billion partitions",
    u32(PLACE.table + 8, 0xffffffff),
    { smem: PLACE.smem },
    /^EBADMSG: SMEM: says 4294967295 partitions/,
  ],
  ["no global partition", u16(PLACE.tableEntry + 12, 1), {}, /^ENODATA: SMEM: has no global partition$/],
  [
    "two global partitions",
    (view) => {
      for (const i of [12, 14]) view.setUint16(PLACE.table + 32 + i, 0xfffe, true);
    },
    {},
    /^EBADMSG: SMEM: has 2 global partitions$/,
  ],
  [
    "a partition that ends behind the SMEM",
    u32(PLACE.tableEntry + 4, 0x3001),
    {},
    /^EBADMSG: SMEM: its global partition, 12289 bytes at 81920, is not in it$/,
  ],
  ["a partition beyond 4 GiB", u32(PLACE.tableEntry, 0xffffff00), {}, /^EBADMSG: SMEM: its global partition/],
  [
    "a partition of less than its header",
    u32(PLACE.tableEntry + 4, 31),
    {},
    /^EBADMSG: SMEM: its global partition/,
  ],
  [
    "a partition without its magic",
    u32(PLACE.partition, 0),
    {},
    /^EBADMSG: SMEM: the header of its global partition/,
  ],
  ["a partition of other hosts", u16(PLACE.partition + 6, 3), {}, /^EBADMSG: SMEM: the header/],
  [
    "a partition of another size than the table says",
    u32(PLACE.partition + 8, 0x1000),
    {},
    /^EBADMSG: SMEM: the header/,
  ],
  [
    "an item without its canary",
    u16(PLACE.entry, 0x5a5a),
    {},
    /^EBADMSG: SMEM: the entry at 76 of the global partition has no canary$/,
  ],
  [
    "an item longer than what is in use",
    u32(PLACE.entry + 4, 0x2000),
    {},
    /^EBADMSG: SMEM: item 602 goes beyond the part/,
  ],
  ["an item of 4 GiB", u32(PLACE.entry + 4, 0xffffffff), {}, /^EBADMSG: SMEM: item 602 goes beyond/],
  [
    "an item that pads more than it has",
    (view) => {
      view.setUint32(PLACE.entry + 4, 8, true);
      view.setUint16(PLACE.entry + 8, 9, true);
    },
    {},
    /^EBADMSG: SMEM: item 602 has more padding than bytes$/,
  ],
  ["no item 602", u16(PLACE.entry + 2, 603), {}, /^ENODATA: SMEM: has no item 602$/],
  [
    "a part in use that ends in the item's header",
    u32(PLACE.partition + 12, 80),
    {},
    /^ENODATA: SMEM: has no item 602$/,
  ],
  [
    "an item smaller than the ToC's header",
    u32(PLACE.entry + 4, 15),
    {},
    /^EBADMSG: global ToC: 15 bytes are not those of 1 to 64 subsystems$/,
  ],
  ["an item with no subsystem", u32(PLACE.entry + 4, 47), {}, /^EBADMSG: global ToC: 47 bytes/],
  [
    "a ToC that is not initialised",
    u32(PLACE.toc, 0),
    {},
    /^ENODATA: global ToC: the one at \d+ is not initialised$/,
  ],
  [
    "a ToC beyond the image",
    u32(0, 0),
    { toc: 0x40000 },
    /^EBADMSG: the global ToC: 336 bytes at 262144 are not in the image$/,
  ],
  [
    "a ToC that the image's end cuts",
    u32(0, 0),
    { toc: 0x40000 - 335 },
    /^EBADMSG: the global ToC: 336 bytes at \d+ are not in the image$/,
  ],
  [
    "more subsystems than there can be",
    u32(0, 0),
    { toc: PLACE.toc, subsystems: 65 },
    /^EINVAL: subsystems: 65/,
  ],
  ["an offset that is none", u32(0, 0), { toc: -1 }, /^EINVAL: toc: -1 is no offset$/],
  ["half an offset", u32(0, 0), { smem: 0.5 }, /^EINVAL: smem: 0.5 is no offset$/],
  ["SMEM and ToC", u32(0, 0), { smem: 0, toc: 0 }, /^EINVAL: toc: /],
  ["a number of subsystems for an SMEM", u32(0, 0), { subsystems: 3 }, /^EINVAL: subsystems: /],
  ["an image that wraps", u32(0, 0), { base: (1n << 64n) - 1n }, /^EINVAL: base: /],
  ["an image before 0", u32(0, 0), { base: -1n }, /^EINVAL: base: /],
];

for (const [what, edit, how, expected] of REFUSED) {
  test(`refused: ${what}`, () => {
    assert.match(
      refusal(() => read({ ...GOLDEN, edit }, how)),
      expected,
    );
  });
}

test("refused: cached items that lead out of the partition, in a circle, or have no cache line", () => {
  const top = PLACE.partition + PLACE.partitionBytes - 64;
  const cases: [(view: DataView) => void, RegExp][] = [
    [u32(top + 4, 0x2000), /^EBADMSG: SMEM: item 501 goes beyond/],
    [u32(top + 4, 0xffffffff), /^EBADMSG: SMEM: item 501 goes beyond/],
    [u16(top, 0), /^EBADMSG: SMEM: the entry at 8128 of the global partition has no canary$/],
    [u32(PLACE.tableEntry + 16, 0), /^EBADMSG: SMEM: 0 bytes are no cache line$/],
    [u32(PLACE.tableEntry + 16, 48), /^EBADMSG: SMEM: 48 bytes are no cache line$/],
    [u32(PLACE.tableEntry + 16, 8192), /^EBADMSG: SMEM: 8192 bytes are no cache line$/],
    [u16(top + 2, 602), /^EBADMSG: global ToC: 16 bytes are not those/],
    [u32(PLACE.partition + 16, PLACE.partitionBytes), /^ENODATA: SMEM: has no item 602$/],
    [u32(PLACE.partition + 16, 0xffffffff), /^ENODATA: SMEM: has no item 602$/],
  ];
  for (const [edit, expected] of cases) {
    assert.match(
      refusal(() => read({ ...GOLDEN, list: "cached", edit })),
      expected,
    );
  }
});

/** What becomes of subsystem 0, and the first problem. */
const SUBSYSTEMS: [string, (view: DataView) => void, string, RegExp | null][] = [
  ["status 0", u32(SUBSYSTEM, 0), "off: status is 0", null],
  ["status 2", u32(SUBSYSTEM, 2), "off: status is 2", null],
  ["not enabled", u32(SUBSYSTEM + 4, 0), "off: enabled is none", null],
  ["an array at 0", u64(SUBSYSTEM + 24, 0n), "off: it has no array of regions", null],
  [
    "encryption that is under way",
    u32(SUBSYSTEM + 8, 0x53545254),
    "not ready: encryption is STRT, not DONE",
    /^subsystem 0: encryption is STRT/,
  ],
  [
    "encryption that is required and was not begun",
    (view) => {
      u32(SUBSYSTEM + 8, 0)(view);
      u32(SUBSYSTEM + 12, 0x594553)(view);
    },
    "not ready: encryption is required, and is none, not DONE",
    /^subsystem 0: encryption is required, and is none/,
  ],
  [
    "more regions than there can be",
    u32(SUBSYSTEM + 16, 1024),
    "broken: says 1024 regions, more than 1023",
    /^subsystem 0: says 1024/,
  ],
  [
    "4 billion regions",
    u32(SUBSYSTEM + 16, 0xffffffff),
    "broken: says 4294967295 regions, more than 1023",
    /^subsystem 0: /,
  ],
  [
    "an array before the image",
    u64(SUBSYSTEM + 24, 1n),
    "broken: its array at 0x1 is not in the image",
    /^subsystem 0: /,
  ],
  [
    "an array beyond the image",
    u64(SUBSYSTEM + 24, at(0x40000)),
    "broken: its array at 0x80040000 is not in the image",
    /^subsystem 0: /,
  ],
  [
    "an array that the image's end cuts",
    u64(SUBSYSTEM + 24, at(0x40000 - 199)),
    "broken: the array of subsystem 0: 200 bytes at 261945 are not in the image",
    /^subsystem 0: /,
  ],
  [
    "an array at the end of all addresses",
    u64(SUBSYSTEM + 24, (1n << 64n) - 1n),
    "broken: its array at 0xffffffffffffffff is not in the image",
    /^subsystem 0: /,
  ],
  [
    "an array that is the global ToC",
    u64(SUBSYSTEM + 24, at(PLACE.toc)),
    "broken: the array of subsystem 0: lies on the global ToC",
    /^subsystem 0: /,
  ],
  [
    "an array that ends in the global ToC",
    u64(SUBSYSTEM + 24, at(PLACE.toc - 199)),
    "broken: the array of subsystem 0: lies on the global ToC",
    /^subsystem 0: /,
  ],
];

for (const [what, edit, expected, problem] of SUBSYSTEMS) {
  test(`subsystem: ${what}`, () => {
    const { subsystems, regions, problems } = read({ ...GOLDEN, edit });
    assert.is(`${subsystems[0]?.state}: ${subsystems[0]?.why}`, expected);
    if (problem === null) assert.equal(problems, []);
    else assert.match(problems[0] as string, problem);
    // The others are none the worse.
    assert.is(regions.find(({ name }) => name === "stack")?.state, "ok");
    const isListed = expected.startsWith("not ready");
    assert.is(regions.length, isListed ? 6 : 1);
    if (!isListed) return;
    const of0 = regions.filter(({ subsystem, valid }) => subsystem === 0 && valid === 0x56414c49);
    assert.ok(
      of0.every(({ state, presentBytes, why }) => state === "refused" && presentBytes === 0 && why !== ""),
    );
    const taken = read({ ...GOLDEN, edit }, { takesNotReady: true });
    assert.equal(
      taken.regions.map(({ state }) => state),
      ["ok", "ok", "invalid", "invalid", "ok", "ok"],
    );
  });
}

test("subsystem: two with one array, and one within the other's", () => {
  for (const offset of [0, 40, 199, -1]) {
    const edit = u64(SUBSYSTEM + 5 * 32 + 24, at(PLACE.arrays + offset));
    const { subsystems, regions } = read({ ...GOLDEN, edit });
    assert.equal(
      [subsystems[5]?.state, subsystems[5]?.why],
      ["broken", "the array of subsystem 5: lies on the array of subsystem 0"],
    );
    assert.is(regions.length, 5);
  }
});

test("subsystem: none at all, and one without regions", () => {
  assert.equal(read({}).problems, ["no subsystem is enabled: this may be no ToC"]);
  const empty = read({ subsystems: { 0: { regions: [], array: 1n } } });
  assert.equal([empty.subsystems[0]?.state, empty.regions, empty.problems], ["ready", [], []]);
});

/** What becomes of the first region of subsystem 0; `problem` of it. */
const REGIONS: [string, (view: DataView) => void, string, RegExp | null][] = [
  ["tag 0", u32(FIRST + 20, 0), "invalid: its tag is none", null],
  ["tag of chance", u32(FIRST + 20, 0x12345678), "invalid: its tag is 0x12345678", null],
  [
    "no bytes",
    u64(FIRST + 32, 0n),
    "refused: has no bytes",
    /^subsystem 0, region 0 \(KELF\): has no bytes$/,
  ],
  [
    "an end beyond 2^64",
    u64(FIRST + 32, (1n << 64n) - 1n),
    "refused: its end is beyond 2^64",
    /beyond 2\^64$/,
  ],
  [
    "an address at the end of all",
    u64(FIRST + 24, (1n << 64n) - 1n),
    "refused: its end is beyond 2^64",
    /beyond 2\^64$/,
  ],
  [
    "an end at 2^64",
    (view) => {
      u64(FIRST + 24, (1n << 64n) - 8n)(view);
      u64(FIRST + 32, 8n)(view);
    },
    "absent: 0xfffffffffffffff8 is not in the image",
    /is not in the image$/,
  ],
  [
    "an address before the image",
    u64(FIRST + 24, BASE - 1n),
    "absent: 0x7fffffff is not in the image",
    /is not in the image$/,
  ],
  ["an address at 0", u64(FIRST + 24, 0n), "absent: 0x0 is not in the image", /is not in the image$/],
  [
    "an address behind the image",
    u64(FIRST + 24, at(0x40000)),
    "absent: 0x80040000 is not in the image",
    /is not in the image$/,
  ],
  [
    "one byte more than the image has",
    u64(FIRST + 32, 0x10001n),
    "cut: 65536 of 65537 bytes are in the image",
    /^subsystem 0, region 0 \(KELF\): 65536 of 65537 bytes/,
  ],
  [
    "2^62 bytes",
    u64(FIRST + 32, 1n << 62n),
    "cut: 65536 of 4611686018427387904 bytes are in the image",
    /65536 of/,
  ],
  [
    "a name without an end",
    (view) => {
      for (let i = 0; i < 16; i++) view.setUint8(FIRST + i, 0x41);
    },
    "ok: ",
    /^subsystem 0, region 0 \(AAAAAAAAAAAAAAA\): its name has no end$/,
  ],
  ["no name", u32(FIRST, 0), "ok: ", /^subsystem 0, region 0 \(\): has no name$/],
  ["a name that steers a terminal", u32(FIRST, 0x4a325b1b), "ok: ", null],
  [
    "a twin",
    (view) => {
      u32(SECOND, 0x464c454b)(view);
      u64(SECOND + 4, 0n)(view);
      u32(SECOND + 16, 1)(view);
    },
    "ok: ",
    /^subsystem 0, region 1 \(KELF\): there is another with this name and sequence number$/,
  ],
];

for (const [what, edit, expected, problem] of REGIONS) {
  test(`region: ${what}`, () => {
    const { regions, problems } = read({ ...GOLDEN, edit });
    const [first] = regions as [MinidumpRegion];
    assert.is(`${first.state}: ${first.why}`, expected);
    if (problem === null) assert.equal(problems, []);
    else
      assert.ok(
        problems.some((line) => problem.test(line)),
        problems.join("\n"),
      );
    for (const line of problems) assert.match(line, /^[\x20-\x7e]+$/);
    assert.is(regions.length, 6);
    assert.is(first.presentBytes > 0, first.state === "ok" || first.state === "cut");
    assert.is(regions[5]?.state, "ok");
  });
}

test("region: overlaps are told, of neighbours they are not", () => {
  const marks = (ranges: [number, number][]) => {
    const regions = ranges.map(([offset, length], i) => ({
      name: `r${i}`,
      address: at(0x30000 + offset),
      lengthBytes: BigInt(length),
    }));
    return read({ subsystems: { 0: { regions } } }).regions.map(({ overlaps }) => overlaps);
  };
  assert.equal(
    marks([
      [0, 16],
      [16, 16],
      [32, 16],
    ]),
    [false, false, false],
  );
  assert.equal(
    marks([
      [16, 17],
      [32, 16],
      [0, 16],
    ]),
    [true, true, false],
  );
  assert.equal(
    marks([
      [0, 100],
      [10, 5],
      [20, 5],
      [99, 5],
      [200, 5],
    ]),
    [true, true, true, true, false],
  );
  assert.equal(
    marks([
      [0, 16],
      [0, 16],
    ]),
    [true, true],
  );
});

test("thousands of problems are told as a hundred and one", () => {
  const bad = { name: "x", address: 0n, lengthBytes: 0n };
  const { problems } = read({ subsystems: { 0: { regions: new Array<ImageRegion>(1000).fill(bad) } } });
  assert.is(problems.length, PROBLEMS_MAX + 1);
  assert.is(problems[PROBLEMS_MAX], "and more");
});

test("64 subsystems of 1023 regions are read", () => {
  const regions = Array.from({ length: 1023 }, (_, i) => ({ name: `r${i}`, address: BASE, lengthBytes: 1n }));
  const subsystems = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [i, { regions }]));
  const minidump = read({ sizeBytes: 4 << 20, subsystems, subsystemCount: 64 });
  assert.is(minidump.regions.length, 64 * 1023);
  assert.ok(minidump.regions.every(({ state }) => state === "ok"));
});

// ---- the core ----

const release = coreModule("release");

function coreOf(options: ImageOptions, how: MinidumpOptions = {}, machine?: number): ElfCore {
  const source = bytesSource(minidumpImage(options));
  const plan = minidumpCore(release, source, readMinidump(source, how), machine).plan();
  return readElfCore(bytesSource(plan.read(0, plan.sizeBytes)));
}

test("an ELF core of the regions", () => {
  const source = bytesSource(minidumpImage(GOLDEN));
  const plan = minidumpCore(release, source, readMinidump(source)).plan();
  const bytes = plan.read(0, plan.sizeBytes);
  assert.equal(plan.failures(), []);
  const core = readElfCore(bytesSource(bytes));
  assert.equal([core.class, core.machine, core.problems], [64, 183, []]);
  const loads = core.segments.filter(({ type }) => type === 1);
  const expected = [LINUX[0], LINUX[1], LINUX[4], ADSP[0]] as ImageRegion[];
  assert.equal(
    loads.map(({ name }) => name),
    expected.map(({ name }) => name),
  );
  for (const [i, { paddr, vaddr, offset, filesz }] of loads.entries()) {
    const { address, bytes: made } = expected[i] as ImageRegion;
    assert.equal([paddr, vaddr], [address, address]);
    const from = Number(offset);
    assert.ok(sameBytes(bytes.subarray(from, from + Number(filesz)), made as Uint8Array));
  }
});

test("virtual addresses and machine are those of the minidump's own ELF header", () => {
  const own = new CrashDump(release, { class: 64, machine: 62, sections: false, overlap: "allow" });
  own.register({ name: "a", address: at(0x31000), vaddr: 0xffff000000031000n, size: 4096, source: () => 0 });
  // Of no region, and of a region that is shorter.
  own.register({ name: "b", address: at(0x35000), vaddr: 1n, size: 16, source: () => 0 });
  own.register({ name: "c", address: at(0x34000), vaddr: 2n, size: 301, source: () => 0 });
  const header = own.plan().read(0, own.plan().headerBytes);
  const [, ...others] = LINUX;
  const regions = [{ name: "KELF_HEADER", address: at(0x30000), bytes: header }, ...others];
  const core = coreOf({ subsystems: { 0: { regions }, 5: { regions: ADSP } } });
  assert.is(core.machine, 62);
  assert.equal(
    core.segments.filter(({ type }) => type === 1).map(({ vaddr }) => vaddr),
    [at(0x30000), 0xffff000000031000n, at(0x3fff0), at(0x34000)],
  );
  assert.is(coreOf({ subsystems: { 0: { regions } } }, {}, 40).machine, 40);
});

test("names of the core are the regions', made printable and unlike", () => {
  const names = ["same", "same", "a b", "", "x#1", "fifteen_letters", "fifteen_letters", "\x1b[2J"];
  const regions = names.map((name, i) => ({ name, sequence: i, address: at(0x30000 + i), lengthBytes: 1n }));
  const core = coreOf({ subsystems: { 0: { regions } } });
  assert.equal(
    core.segments.slice(1).map(({ name }) => name),
    ["same", "same#1", "a?b", "#3", "x?1", "fifteen_letters", "fifteen_lette#6", "?[2J"],
  );
});

test("a core of a cut region has what there is of it; of nothing there is none", () => {
  const core = coreOf({
    subsystems: { 0: { regions: [{ name: "cut", address: at(0x3fff0), lengthBytes: 1n << 50n }] } },
  });
  assert.is(core.segments[1]?.filesz, 16n);
  const absent = { subsystems: { 0: { regions: [{ name: "x", address: 0n, lengthBytes: 1n }] } } };
  assert.match(
    refusal(() => coreOf(absent)),
    /^ENODATA: minidump: has no region/,
  );
});

// ---- the command ----

function command(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [`${ROOT}dist/host/cli/main.js`, "minidump", ...args],
    {
      cwd: FOLDER,
      encoding: "utf8",
      env: { PATH: process.env.PATH ?? "", NO_COLOR: "1" },
    },
  );
  return { code: status, out: stdout, err: stderr };
}

function fails(args: string[], code: number, message: RegExp): void {
  const result = command(...args);
  assert.match(result.err, /^mmcpstore: [^\n]+\n$/);
  assert.match(result.err, message);
  assert.is(result.code, code, result.err);
}

test("ls: tables, and the same as JSON", () => {
  const { code, out, err } = command("ls", good);
  assert.equal([code, err], [0, ""]);
  assert.is(
    out,
    [
      "SUBSYSTEM  STATE  ENABLED     ENCRYPTION  REGIONS  ARRAY",
      "        0  ready  ENBL        NR DONE           5  0x80020000",
      "        5  ready  ENBL        YES DONE          1  0x800200c8",
      "        7  off    0x44495341  NR DONE           0  0x800200f0  enabled is 0x44495341",
      "SUBSYSTEM  NAME       SEQ     ADDRESS  SIZE  VALID  STATE",
      "        0  KELF         1  0x80030000  1000  VALI   ok",
      "        0  Kvmcorein    2  0x80031000  4096  VALI   ok",
      "        0  Kold         3  0x80032000     8  INVA   invalid  its tag is INVA",
      "        0  Kinit        4  0x80033000     8  INIT   invalid  its tag is INIT",
      "        0  Klast        5  0x8003fff0    16  VALI   ok",
      "        5  stack        0  0x80034000   300  VALI   ok",
      `ToC at 0x${PLACE.toc.toString(16)} of an image at 0x80000000, revision 3, 6 regions`,
      "",
    ].join("\n"),
  );
  const list = JSON.parse(command("ls", good, "--json", "--subsystem", "5").out);
  assert.equal(
    [list.revision, list.base, list.subsystems.length, list.regions.length],
    [3, "0x80000000", 10, 1],
  );
  assert.equal(
    [list.regions[0].name, list.regions[0].valid, list.subsystems[0].encryptionRequired],
    ["stack", "VALI", "NR"],
  );
});

test("extract: files as firmware names them, a manifest, and an ELF core", () => {
  const { code, out, err } = command("extract", good, "regions", "--elf", "all.elf");
  assert.equal([code, err], [0, ""]);
  assert.match(out, "4 regions in regions and all.elf");
  const files = ["00-md_KELF1.BIN", "01-md_Kvmcorein2.BIN", "02-md_Klast5.BIN", "03-md_stack.BIN"];
  assert.equal(readdirSync(join(FOLDER, "regions")).sort(), [...files, "manifest.json"]);
  const expected = [LINUX[0], LINUX[1], LINUX[4], ADSP[0]];
  for (const [i, name] of files.entries()) {
    assert.ok(sameBytes(readFileSync(join(FOLDER, "regions", name)), expected[i]?.bytes as Uint8Array));
  }
  const manifest = JSON.parse(readFileSync(join(FOLDER, "regions", "manifest.json"), "utf8"));
  assert.equal(
    [manifest.format, manifest.complete, manifest.base],
    ["mmcpstore-minidump-1", true, "0x80000000"],
  );
  assert.equal(manifest.regions[3].description, "subsystem-5");
  assert.equal(readElfCore(bytesSource(readFileSync(join(FOLDER, "all.elf")))).problems, []);
  const one = JSON.parse(
    command("extract", good, "--subsystem", "5", "--elf", "one.elf", "--machine", "164", "--json").out,
  );
  assert.is(one.regions.length, 1);
  const core = readElfCore(bytesSource(readFileSync(join(FOLDER, "one.elf"))));
  assert.equal([core.machine, core.segments.length], [164, 2]);
});

test("extract: nothing is replaced, and nothing is written before that is known", () => {
  mkdirSync(join(FOLDER, "full"));
  writeFileSync(join(FOLDER, "full", "mine"), "x");
  fails(["extract", good, "full"], 1, /full: is not empty/);
  assert.equal(readdirSync(join(FOLDER, "full")), ["mine"]);
  writeFileSync(join(FOLDER, "taken.elf"), "x");
  fails(["extract", good, "not-made", "--elf", "taken.elf"], 1, /taken\.elf: exists already/);
  assert.not(existsSync(join(FOLDER, "not-made")));
  assert.is(readFileSync(join(FOLDER, "taken.elf"), "utf8"), "x");
  fails(["extract", good, "no/such/parent"], 1, /no\/such\/parent: /);
});

test("extract: what is missing is told, and the rest is there", () => {
  const cut = imageFile("cut.bin", { ...GOLDEN, edit: u64(PLACE.arrays + 4 * 40 + 32, 17n) });
  fails(
    ["extract", cut, "cut", "--elf", "cut.elf"],
    1,
    /cut\.bin: the dump is partial: 1 of 4 regions are not whole/,
  );
  assert.equal(readdirSync(join(FOLDER, "cut")).sort(), [
    "00-md_KELF1.BIN",
    "01-md_Kvmcorein2.BIN",
    "02-md_Klast5.BIN.partial",
    "03-md_stack.BIN",
    "manifest.json",
  ]);
  const { complete, regions } = JSON.parse(readFileSync(join(FOLDER, "cut", "manifest.json"), "utf8"));
  assert.equal([complete, regions[2].state, regions[2].storedBytes], [false, "partial", 16]);
  assert.is(readElfCore(bytesSource(readFileSync(join(FOLDER, "cut.elf")))).segments.length, 5);
  const broken = imageFile("broken.bin", { ...GOLDEN, edit: u32(SUBSYSTEM + 16, 5000) });
  fails(
    ["extract", broken, "broken"],
    1,
    /the dump is partial: subsystem 0: says 5000 regions, more than 1023/,
  );
  assert.equal(readdirSync(join(FOLDER, "broken")), ["00-md_stack.BIN", "manifest.json"]);
  // Nobody asked for that one.
  assert.is(command("extract", broken, "other", "--subsystem", "5").code, 0);
});

test("extract: encryption that is not done is refused, and taken when it is asked for", () => {
  const busy = imageFile("busy.bin", { ...GOLDEN, edit: u32(SUBSYSTEM + 8, 0x53545254) });
  fails(
    ["extract", busy, "busy", "--subsystem", "0"],
    1,
    /has no region that could be had: 3 of 3 regions are not whole/,
  );
  assert.not(existsSync(join(FOLDER, "busy")));
  assert.is(command("extract", busy, "busy", "--not-ready").code, 0);
});

test("extract: hostile names stay in the folder", () => {
  const names = ["../../x", "/etc/passwd", "..", "a\nb", "\x1b[2J", "CON", "", "manifest.json", "-rf"];
  const regions = names.map((name, i) => ({ name, address: at(0x30000 + i), lengthBytes: 1n }));
  const hostile = imageFile("hostile.bin", { subsystems: { 0: { regions } } });
  assert.is(command("extract", hostile, "hostile").code, 0);
  const files = readdirSync(join(FOLDER, "hostile"));
  assert.is(files.length, names.length + 1);
  for (const file of files) assert.match(file, /^(\d\d-md_[A-Za-z0-9._%-]*\.BIN|manifest\.json)$/);
  assert.match(command("ls", hostile).out, /^[\x20-\x7e\n]*$/);
});

test("extract: regions that share their bytes cannot fill a disk", () => {
  const regions = Array.from({ length: 20 }, (_, i) => ({
    name: `r${i}`,
    address: BASE,
    lengthBytes: 0x40000n,
  }));
  const shared = imageFile("shared.bin", { subsystems: { 0: { regions } } });
  fails(["extract", shared, "shared"], 1, /its regions share bytes and would take 5242880 together/);
  assert.not(existsSync(join(FOLDER, "shared")));
});

test("bad input is one line", () => {
  writeFileSync(join(FOLDER, "empty"), "");
  writeFileSync(join(FOLDER, "zeros"), new Uint8Array(100_000));
  writeFileSync(join(FOLDER, "packed.gz"), Uint8Array.of(0x1f, 0x8b, 8, 0));
  fails(["ls", "nothing"], 1, /nothing: /);
  fails(["ls", "."], 1, /\.: is a directory/);
  fails(["ls", "empty"], 1, /empty: is empty/);
  fails(["ls", "zeros"], 1, /zeros: no SMEM is found in the image; --smem or --toc says where it is/);
  fails(["ls", "packed.gz"], 1, /packed\.gz: is gzip-compressed/);
  fails(["ls", good, "--subsystem", "11"], 1, /has 10 subsystems, none is number 11/);
  fails(["ls", good, "--toc", "0"], 1, /ddr\.bin: global ToC: the one at 0 is not initialised/);
  fails(["extract", "zeros", "z"], 1, /zeros: no SMEM/);
  fails(["extract", good], 2, /say a folder for the regions, or --elf FILE/);
  fails(["extract", good, "d", "--machine", "1"], 2, /--machine: only with --elf/);
  fails(["ls", good, "--toc", "1", "--smem", "1"], 2, /--toc: /);
  fails(["ls", good, "--subsystems", "1"], 2, /--subsystems: only with --toc/);
  fails(["ls", good, "--base", "x"], 2, /--base x: is no 64-bit number/);
  fails(["ls", good, "--base", "0x10000000000000000"], 2, /is no 64-bit number/);
  fails(["ls", good, "--toc", "0xffffffffffffffff"], 2, /is beyond 2\^53/);
  fails([], 2, /minidump: say ls or extract/);
});

// ---- chance ----

let state = 1;

/** 0 to `end` - 1. */
function chance(end: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * end);
}

function pick<T>(choices: readonly T[]): T {
  return choices[chance(choices.length)] as T;
}

/** Fields of the tables that a mutation is worth the while in. */
const FIELDS: [offset: number, bytes: number][] = [
  [PLACE.version, 4],
  ...[0, 4, 8].map((i): [number, number] => [PLACE.table + i, 4]),
  ...[0, 4, 12, 16].map((i): [number, number] => [PLACE.tableEntry + i, 4]),
  ...[0, 4, 8].map((i): [number, number] => [PLACE.info + i, 4]),
  ...[0, 4, 8, 12, 16].map((i): [number, number] => [PLACE.partition + i, 4]),
  ...[0, 4, 8].map((i): [number, number] => [PLACE.entry + i, 4]),
  ...[0, 1, 2, 3, 4, 5, 6].map((i): [number, number] => [PLACE.toc + 16 * i, 8]),
  ...[0, 4, 8, 12, 16, 24].map((i): [number, number] => [SUBSYSTEM + i, i === 24 ? 8 : 4]),
  ...[0, 1, 2, 3, 4, 5].flatMap((i): [number, number][] =>
    [0, 8, 16, 20, 24, 32].map((field) => [PLACE.arrays + 40 * i + field, field >= 24 ? 8 : 4]),
  ),
];
const VALUES = [
  0n,
  1n,
  15n,
  16n,
  40n,
  1023n,
  0xa5a5n,
  0xffffn,
  0x56414c49n,
  0x454e424cn,
  0x7fffffffn,
  0xffffffffn,
  BASE,
  at(0x20000),
  at(0x3ffff),
  at(0x40000),
  1n << 62n,
  (1n << 63n) - 1n,
  (1n << 64n) - 1n,
];

test("mutated images: MmcError or regions that are in the image, and no more work than the image is large", () => {
  const originals = (["uncached", "cached"] as const).map((list) => minidumpImage({ ...GOLDEN, list }));
  let [wholes, refused, withProblems, regionsSeen] = [0, 0, 0, 0];
  for (let run = 0; run < RUNS; run++) {
    const image = pick(originals).slice(0, chance(8) === 0 ? chance(0x40000) : 0x40000);
    const view = new DataView(image.buffer);
    for (let i = chance(4); i > 0; i--) {
      const [offset, bytes] = pick(FIELDS);
      if (offset + 8 > image.length) continue;
      const value = chance(4) === 0 ? BigInt(chance(2 ** 32)) : pick(VALUES);
      if (chance(4) === 0) view.setUint8(offset + chance(bytes), chance(256));
      else if (bytes === 8) view.setBigUint64(offset, value, true);
      else view.setUint32(offset, Number(BigInt.asUintN(32, value)), true);
    }
    let bytesRead = 0;
    const source: ElfSource = {
      sizeBytes: image.length,
      readSync: (offset, target) => {
        assert.ok(Number.isSafeInteger(offset) && offset >= 0 && offset + target.length <= image.length);
        target.set(image.subarray(offset, offset + target.length));
        bytesRead += target.length;
      },
    };
    const how = pick<MinidumpOptions>([{}, {}, { smem: PLACE.smem }, { toc: PLACE.toc, base: pick(VALUES) }]);
    let minidump: Minidump;
    try {
      minidump = readMinidump(source, how);
    } catch (error) {
      if (!(error instanceof MmcError)) throw error;
      assert.match(error.message, /^[\x20-\x7e]+$/);
      refused++;
      continue;
    }
    // The search, and each byte of a table once.
    assert.ok(bytesRead <= 2 * image.length + 8192, `${bytesRead}`);
    if (minidump.problems.length === 0) wholes++;
    else withProblems++;
    for (const one of minidump.regions) {
      assert.ok(one.offset >= 0 && one.offset + one.presentBytes <= image.length);
      assert.ok(BigInt(one.presentBytes) <= one.lengthBytes);
      assert.is(
        one.state === "ok",
        one.valid === 0x56414c49 && one.why === "" && BigInt(one.presentBytes) === one.lengthBytes,
      );
      if (one.presentBytes > 0) assert.is(one.address - minidump.base, BigInt(one.offset));
      regionsSeen++;
    }
    if (run % 20 !== 0 || !minidump.regions.some(({ presentBytes }) => presentBytes > 0)) continue;
    const plan = minidumpCore(release, source, minidump).plan();
    const core = readElfCore(bytesSource(plan.read(0, plan.headerBytes)));
    const had = minidump.regions.filter(({ presentBytes }) => presentBytes > 0).length;
    assert.is(core.segments.length, 1 + had);
  }
  console.log(
    `\n# ${RUNS} images: ${wholes} whole, ${withProblems} with problems, ${refused} refused, ${regionsSeen} regions`,
  );
  for (const count of [wholes, withProblems, refused]) assert.ok(count > RUNS / 20, `${count}`);
});

test.after(() => rmSync(FOLDER, { recursive: true }));
test.run();
