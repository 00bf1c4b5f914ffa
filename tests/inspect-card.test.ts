// CID, CSD, EXT_CSD, SCR and SSR: bytes made by hand in these tests and those of the simulated cards, decoded field by
// field; and the commands that show them and the bus: inspect --card, panic --trace and --vcd, demo --vcd.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { TraceEvent } from "../host/core/trace.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import type { MmcError } from "../host/errors.js";
import { decodeCid } from "../host/registers/cid.js";
import { decodeCsd } from "../host/registers/csd.js";
import { decodeExtCsd, extCsdName } from "../host/registers/ext-csd.js";
import type { DecodedRegister } from "../host/registers/field.js";
import { decodeScr } from "../host/registers/scr.js";
import { decodeSsr } from "../host/registers/ssr.js";
import { responseFrame } from "../host/trace/frames.js";
import { commandName } from "../host/trace/names.js";
import { coreModule, PANIC_LOG, ROOT } from "./machine.js";

const folder = mkdtempSync(join(tmpdir(), "mmcpstore-card-"));
const MIB = 2 ** 20;
const ESCAPE = String.fromCharCode(27);
let made = 0;

function run(args: string[], env: Record<string, string> = {}) {
  const result = spawnSync(process.execPath, [`${ROOT}dist/host/cli/main.js`, ...args], {
    encoding: "utf8",
    maxBuffer: 2 ** 26,
    env: { ...process.env, FORCE_COLOR: "", NO_COLOR: "1", ...env },
  });
  return { code: result.status, out: result.stdout, err: result.stderr };
}

function ok(args: string[], env: Record<string, string> = {}): string {
  const { code, out, err } = run(args, env);
  assert.equal([code, err], [0, ""], args.join(" "));
  return out;
}

function fails(code: number, pattern: RegExp, args: string[]): void {
  const result = run(args);
  assert.equal([result.code, result.out], [code, ""], args.join(" "));
  assert.match(result.err, pattern);
  assert.is(result.err.trimEnd().split("\n").length, 1, "one line");
}

function fresh(ending: string): string {
  return join(folder, `f${made++}${ending}`);
}

function image(sizeBytes: number): string {
  const path = fresh(".img");
  writeFileSync(path, new Uint8Array(sizeBytes));
  return path;
}

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

/** `MID 0x15 21`, … */
function lines({ fields }: DecodedRegister): string[] {
  return fields.map(({ name, at, raw, value, meaning }) =>
    [name, at, raw, ...(typeof value === "string" ? [`"${value}"`] : []), meaning].filter(Boolean).join(" "),
  );
}

function field(register: DecodedRegister, name: string): DecodedRegister["fields"][number] {
  const found = register.fields.find((one) => one.name === name);
  if (!found) throw new Error(`no ${name} in ${register.register}`);
  return found;
}

// ---- by hand ----

test("CID of an eMMC: MID 15, BGA, OID 00, 8GTF4R, 0.6, a serial number, May 2016", () => {
  const cid = decodeCid(bytes("1501003847544634520612345678" + "53" + "00"), "emmc", 7);
  assert.equal(lines(cid).slice(0, 7), [
    "MID 127:120 0x15",
    "CBX 113:112 0x1 BGA",
    "OID 111:104 0x00",
    'PNM 103:56 0x384754463452 "8GTF4R"',
    "PRV 55:48 0x06 0.6",
    "PSN 47:16 0x12345678",
    "MDT 15:8 0x53 May 2016",
  ]);
  assert.equal([cid.crc, cid.problems], ["absent", []]);
  const year = (code: number, rev: number) =>
    field(
      decodeCid(
        Uint8Array.from({ length: 16 }, (_, i) => (i === 14 ? 0x10 | code : 0)),
        "emmc",
        rev,
      ),
      "MDT",
    ).meaning;
  assert.equal(
    [year(0, 4), year(12, 4), year(0, 5), year(12, 8), year(13, 8), year(15, 8)],
    ["January 1997", "January 2009", "January 2013", "January 2025", "January 2010", "January 2012"],
  );
});

test("CID of an SD card: MID 03, SD, SU08G, 8.0, a serial number, October 2013; CRC7 right, wrong, absent", () => {
  // CRC7 of the fifteen bytes by polynomial division.
  const body = "03534453553038478000abcdef00da";
  let rest = 0;
  for (const bit of `${[...bytes(body)].map((byte) => byte.toString(2).padStart(8, "0")).join("")}0000000`) {
    rest = (rest << 1) | Number(bit);
    if (rest & 0x80) rest ^= 0x89;
  }
  const last = (end: number) => end.toString(16).padStart(2, "0");
  const cid = decodeCid(bytes(body + last((rest << 1) | 1)), "sd");
  assert.equal(lines(cid).slice(0, 6), [
    "MID 127:120 0x03",
    'OID 119:104 0x5344 "SD"',
    'PNM 103:64 0x5355303847 "SU08G"',
    "PRV 63:56 0x80 8.0",
    "PSN 55:24 0x00abcdef",
    "MDT 19:8 0x0da October 2013",
  ]);
  assert.is(cid.crc, "right");
  assert.is(decodeCid(bytes(body + last(((rest ^ 4) << 1) | 1)), "sd").crc, "wrong");
  assert.is(decodeCid(bytes(`${body}00`), "sd").crc, "absent");
});

test("CSD: SDHC of 8 GiB less some, SDSC of 1 GiB, eMMC by bytes and by sectors", () => {
  const sdhc = decodeCsd(bytes("400e00325b5900003b377f800a404000"), "sd");
  assert.is(sdhc.capacityBytes, (0x3b37 + 1) * 512 * 1024);
  assert.equal(
    [field(sdhc, "TAAC").meaning, field(sdhc, "TRAN_SPEED").meaning, field(sdhc, "CCC").meaning],
    ["1 ms", "25 MHz", "classes 0, 2, 4, 5, 7, 8, 10"],
  );
  assert.is(field(sdhc, "COPY").value, 1);
  // READ_BL_LEN 10, C_SIZE 0xfff, C_SIZE_MULT 6: 4096 · 256 · 1024.
  const sdsc = bytes("002600325b5a83ffff7f7f800a400000");
  const small = decodeCsd(sdsc, "sd");
  assert.is(field(small, "READ_BL_LEN").meaning, "1024 bytes");
  const sizeCode = Number(field(small, "C_SIZE").value) + 1;
  assert.is(small.capacityBytes, sizeCode * 2 ** (Number(field(small, "C_SIZE_MULT").value) + 2) * 1024);
  assert.equal([sizeCode, Number(field(small, "C_SIZE_MULT").value)], [4096, 6]);
  assert.is(field(small, "TAAC").meaning, "1.5 ms");
  const emmc = decodeCsd(bytes("d04f01320f5903ffffffffef8a400000"), "emmc");
  assert.is(emmc.capacityBytes, null);
  assert.equal(
    [field(emmc, "C_SIZE").meaning, field(emmc, "TRAN_SPEED").meaning],
    ["see SEC_COUNT", "26 MHz"],
  );
  assert.is(field(emmc, "SPEC_VERS").meaning, "4.x, 5.x");
});

test("EXT_CSD: numbers are little-endian, codes have words, reserved ones say so", () => {
  const raw = new Uint8Array(512);
  const set: Record<number, number> = {
    33: 1,
    162: 1,
    163: 2,
    166: 0x14,
    168: 32,
    179: 0x48,
    185: 3,
    192: 8,
    196: 0x57,
    212: 0,
    213: 0,
    214: 0xe9,
    215: 0,
    217: 0x11,
    223: 1,
    224: 1,
    226: 32,
    248: 50,
    249: 0,
    250: 4,
    267: 1,
    268: 2,
    269: 11,
    503: 3,
  };
  for (const [at, value] of Object.entries(set)) raw[Number(at)] = value;
  const decoded = decodeExtCsd(raw);
  const meanings: Record<string, string> = {
    CACHE_CTRL: "on",
    RST_n_FUNCTION: "enabled for good",
    BKOPS_EN: "automatic",
    WR_REL_PARAM: "reliable write, any size, RPMB, 8 KiB",
    RPMB_SIZE_MULT: "4 MiB",
    PARTITION_CONFIG: "access to the user area, boots 1, with acknowledge",
    HS_TIMING: "HS400",
    EXT_CSD_REV: "5.1",
    DEVICE_TYPE: "26 MHz, 52 MHz, DDR 52 MHz 1.8 or 3 V, HS200 1.8 V, HS400 1.8 V",
    SEC_COUNT: "7456 MiB",
    S_A_TIMEOUT: "13.107 ms",
    HC_ERASE_GRP_SIZE: "512 KiB",
    BOOT_SIZE_MULT: "4 MiB",
    GENERIC_CMD6_TIME: "500 ms",
    CACHE_SIZE: "1 MiB",
    PRE_EOL_INFO: "normal",
    DEVICE_LIFE_TIME_EST_TYP_A: "10-20 % used",
    DEVICE_LIFE_TIME_EST_TYP_B: "exceeded",
    HPI_FEATURES: "HPI by CMD12",
    CMDQ_SUPPORT: "not supported",
  };
  for (const [name, meaning] of Object.entries(meanings))
    assert.is(field(decoded, name).meaning, meaning, name);
  assert.equal(
    [field(decoded, "SEC_COUNT").at, field(decoded, "SEC_COUNT").raw],
    ["[212..215]", "0x00e90000"],
  );
  raw[192] = 77;
  assert.is(field(decodeExtCsd(raw), "EXT_CSD_REV").meaning, "reserved");
  assert.equal(
    [extCsdName(33), extCsdName(27), extCsdName(214)],
    ["EXT_CSD_CACHE_CTRL", "EXT_CSD[27]", "EXT_CSD_SEC_COUNT"],
  );
});

test("EXT_CSD: no two fields share a byte, and they stand in the order of their bytes", () => {
  let next = 0;
  for (const { at, name } of decodeExtCsd(new Uint8Array(512)).fields) {
    const [first = Number.NaN, last = first] = at.slice(1, -1).split("..").map(Number);
    assert.ok(first >= next && last >= first && last < 512, `${name} ${at}`);
    next = last + 1;
  }
});

test("SCR and SSR by hand", () => {
  const scr = decodeScr(bytes("0235804300000000"));
  assert.equal(
    lines(scr),
    [
      "SCR_STRUCTURE 63:60 0x0 version 1.0",
      "SD_SPEC 59:56 0x2 3.0x",
      "DATA_STAT_AFTER_ERASE 55 0x0 zeros",
      "SD_SECURITY 54:52 0x3 SDHC",
      "SD_BUS_WIDTHS 51:48 0x5 1 line, 4 lines",
      "SD_SPEC3 47 0x1",
      "EX_SECURITY 46:43 0x0 no",
      "SD_SPEC4 42 0x0",
      "SD_SPECX 41:38 0x1",
      "CMD_SUPPORT 35:32 0x3 CMD20, CMD23",
    ].map((line) => (line.startsWith("SD_SPEC 59") ? "SD_SPEC 59:56 0x2 5.xx" : line)),
  );
  assert.is(field(decodeScr(bytes("0125000000000000")), "SD_SPEC").meaning, "1.10");
  assert.is(field(decodeScr(bytes("0225000000000000")), "SD_SPEC").meaning, "2.00");
  const raw = new Uint8Array(64);
  raw.set([0x80, 0, 0, 0, 0, 0, 0, 0x50, 4, 0, 0x90, 0, 0x0f, 0x05, 0x1a]);
  raw[24] = 2;
  const ssr = decodeSsr(raw);
  const said = ["DAT_BUS_WIDTH", "SPEED_CLASS", "AU_SIZE", "ERASE_SIZE", "ERASE_TIMEOUT", "ERASE_OFFSET"];
  assert.equal(
    said.map((name) => field(ssr, name).meaning),
    ["4 lines", "class 10", "4 MiB", "15 AU", "1 s for ERASE_SIZE", "1 s"],
  );
  assert.equal(
    ["UHS_SPEED_GRADE", "UHS_AU_SIZE", "DISCARD_SUPPORT", "FULE_SUPPORT"].map(
      (name) => field(ssr, name).meaning,
    ),
    ["U1", "8 MiB", "yes", "no"],
  );
});

test("whatever the bytes are: no decoder throws, every field is whole and within its bits", () => {
  const any = fc.uint8Array({ maxLength: 600 });
  fc.assert(
    fc.property(any, fc.integer({ min: 0, max: 300 }), (raw, rev) => {
      const all = [
        decodeCid(raw, "emmc", rev),
        decodeCid(raw, "sd"),
        decodeCsd(raw, "emmc"),
        decodeCsd(raw, "sd"),
        decodeExtCsd(raw),
        decodeScr(raw),
        decodeSsr(raw),
      ];
      for (const { fields, problems, register } of all) {
        const lengths: Record<string, number> = { CID: 16, CSD: 16, EXT_CSD: 512, SCR: 8, SSR: 64 };
        assert.is(problems.length, raw.length === lengths[register] ? 0 : 1);
        for (const one of fields) {
          assert.match(one.raw, /^0x[0-9a-f]+$/);
          assert.not.match(`${one.value} ${one.meaning}`, /undefined|NaN|null|Infinity|[^\x20-\x7eµ·]/);
          if (typeof one.value === "number") assert.is(one.value, Number(one.raw));
        }
      }
    }),
    { numRuns: 2000 },
  );
});

// ---- the simulated cards ----

const CARDS: DeviceOptions[] = [
  { card: "emmc", sizeBytes: 4 * MIB, serial: 0xdeadbeef, cacheSectors: 64 },
  { card: "emmc", sizeBytes: MIB, reliableWrite: false, hpi: false, bootBytes: 2 * 131072 },
  { card: "sd", sizeBytes: 8 * MIB, serial: 0x12345678 },
  { card: "sd", sizeBytes: MIB / 2, cmd23: false, busWidth: 1 },
];

for (const options of CARDS) {
  test(`the registers of ${JSON.stringify(options)} say what was asked for`, () => {
    const events: TraceEvent[] = [];
    const device = Device.open(coreModule("release"), {
      ...options,
      onTrace: (more) => {
        events.push(...more);
      },
    });
    const { card, cid, csd, extCsd, scr, ssr } = device.registers();
    assert.is(card, options.card);
    assert.is(device.state().card, "tran");
    device.write(0, new Uint8Array(512).fill(7));
    assert.is(device.read(0, 512)[511], 7, "the card works as before");
    assert.is(field(decodeCid(cid, card), "PSN").value, options.serial ?? 1);
    assert.is(field(decodeCid(cid, card), "PNM").value, card === "sd" ? "MCSIM" : "MMCSIM");
    // The bus has seen what the controller does not show.
    for (const [index, register, decode] of [
      [10, cid, decodeCid],
      [9, csd, decodeCsd],
    ] as const) {
      assert.is(decode(register, card).crc, "absent");
      const seen = events.findLast((event) => event.kind === "response" && event.index === index);
      const whole = responseFrame(seen as Extract<TraceEvent, { kind: "response" }>).subarray(1);
      assert.equal(whole.subarray(0, 15), register.subarray(0, 15));
      assert.is(decode(whole, card).crc, "right");
    }
    if (card === "sd") {
      assert.equal([extCsd, decodeCsd(csd, card).capacityBytes], [null, options.sizeBytes]);
      const commands = field(decodeScr(scr ?? new Uint8Array()), "CMD_SUPPORT").meaning;
      assert.is(commands.includes("CMD23"), options.cmd23 ?? true);
      const width = field(decodeSsr(ssr ?? new Uint8Array()), "DAT_BUS_WIDTH").meaning;
      assert.is(width, options.busWidth === 1 ? "1 line" : "4 lines");
      return;
    }
    const modes = decodeExtCsd(extCsd ?? new Uint8Array());
    assert.equal([scr, ssr], [null, null]);
    assert.is(Number(field(modes, "SEC_COUNT").value) * 512, options.sizeBytes);
    assert.is(Number(field(modes, "BOOT_SIZE_MULT").value) * 131072, options.bootBytes ?? 0);
    assert.is(Number(field(modes, "CACHE_SIZE").value), (options.cacheSectors ?? 0) / 2);
    assert.is(field(modes, "CACHE_CTRL").meaning, options.cacheSectors ? "on" : "off");
    assert.is((Number(field(modes, "HPI_FEATURES").value) & 1) !== 0, options.hpi ?? true);
    const reliable = (Number(field(modes, "WR_REL_PARAM").value) & 4) !== 0;
    assert.is(reliable, options.reliableWrite ?? true);
  });
}

test("registers() needs power and a free host, as everything does", () => {
  const device = Device.open(coreModule("release"), { sizeBytes: MIB });
  const code = () => {
    try {
      device.registers();
      return "none";
    } catch (error) {
      return (error as MmcError).code;
    }
  };
  device.leaveInFlight("claimed");
  assert.is(code(), "EBUSY");
  device.powerCut();
  assert.is(code(), "ENODEV");
  device.powerOn();
  assert.is(code(), "none");
  device.insertCard(false);
  assert.is(code(), "ENOMEDIUM");
});

// ---- the command line ----

test("inspect --card: both cards in words, with and without an image", () => {
  const emmc = ok(["inspect", "--card", "emmc"]);
  assert.match(
    emmc,
    /^eMMC of 4 GiB\n\nCID {2}[0-9a-f]{32}, CRC7 kept by the controller\n {2}MID \[127:120\] +0x6d\n/,
  );
  assert.match(emmc, /\n {2}PNM \[103:56\] +0x4d4d4353494d {2}"MMCSIM"\n/);
  assert.match(emmc, /\n {2}SEC_COUNT \[212\.\.215\] +0x00800000 +4 GiB\n/);
  assert.match(emmc, /\n {2}EXT_CSD_REV \[192\] +0x08 +5\.1\n/);
  assert.not.match(emmc, / \n/);
  assert.not(emmc.includes(ESCAPE));
  assert.ok(emmc.split("\n").every((line) => line.length <= 120));
  assert.match(emmc, /\n {2}MDT \[15:8\] +0xbc +November 2025\n/);
  const path = image(3 * MIB);
  const sd = ok(["inspect", path, "--card", "SD"]);
  assert.ok(sd.startsWith(`SD card of 3 MiB for ${path}\n`));
  assert.match(sd, /\n {2}C_SIZE \[69:48\] +0x000005 +3 MiB\n/);
  assert.match(sd, /\nSCR {2}[0-9a-f]{16}\n/);
  assert.match(sd, /\nSSR {2}64 bytes\n/);
  assert.ok(
    ok(["inspect", "--card", "sd"], { NO_COLOR: "", FORCE_COLOR: "1" }).includes(
      `${ESCAPE}[1mCID${ESCAPE}[22m`,
    ),
  );
});

test("inspect --card: every kind of SD card; an eMMC image of up to 2 GiB is one that counts bytes", () => {
  const sdsc = ok(["inspect", "--card", "sdsc"]);
  assert.ok(sdsc.startsWith("SDSC card of 1 GiB\n"));
  assert.match(sdsc, /\n {2}CSD_STRUCTURE \[127:126\] +0x0 /);
  assert.match(sdsc, /\nSSR {2}64 bytes\n/);
  const sdxc = ok(["inspect", "--card", "sdxc"]);
  assert.ok(sdxc.startsWith("SDXC card of 64 GiB\n"));
  assert.match(sdxc, /\n {2}C_SIZE \[69:48\] +0x01ffff +64 GiB\n/);
  assert.match(sdxc, /\n {2}SD_SECURITY \[54:52\] +0x4 /);
  const emmc = ok(["inspect", "--card", "emmc", image(4 * MIB)]);
  assert.match(emmc, /\n {2}C_SIZE \[73:62\] +0x7ff +4 MiB\n/);
});

test("inspect --card --json: the bytes and every field", () => {
  type Json = {
    card: string;
    image: string | null;
    size: number;
    registers: (DecodedRegister & { bytes: string })[];
  };
  const emmc = JSON.parse(ok(["inspect", "--card", "emmc", "--json"])) as Json;
  assert.equal([emmc.card, emmc.image, emmc.size], ["emmc", null, 4 * 2 ** 30]);
  assert.equal(
    emmc.registers.map(({ register }) => register),
    ["CID", "CSD", "EXT_CSD"],
  );
  const extCsd = emmc.registers[2];
  assert.equal(decodeExtCsd(bytes(extCsd?.bytes ?? "")).fields, extCsd?.fields);
  const sd = JSON.parse(ok(["inspect", image(MIB), "--card", "sd", "--json"])) as Json;
  assert.equal(
    sd.registers.map(({ register }) => register),
    ["CID", "CSD", "SCR", "SSR"],
  );
  assert.is(sd.size, MIB);
});

test("inspect --card: wrong usage and bad images in one line", () => {
  fails(2, /--card mmc: is not one of emmc, sd, sdsc, sdxc/, ["inspect", "--card", "mmc"]);
  const large = join(folder, "large.img");
  writeFileSync(large, "");
  truncateSync(large, 3 * 2 ** 30);
  fails(1, /3221225472 is no size of an SDSC card, which ends at 2 GiB/, [
    "inspect",
    "--card",
    "sdsc",
    large,
  ]);
  fails(2, /missing required argument 'image'/, ["inspect"]);
  fails(2, /--card sd: cannot be combined with --partition/, [
    "inspect",
    "--card",
    "sd",
    "--partition",
    "1",
    "x",
  ]);
  fails(2, /--card emmc: cannot be combined with --all/, ["inspect", "--card", "emmc", "--all"]);
  fails(1, /ENOENT|no such/i, ["inspect", "--card", "sd", join(folder, "none.img")]);
  fails(1, /empty/, ["inspect", "--card", "sd", image(0)]);
});

test("demo --vcd and panic --vcd: a new file, whole, of the same size each time; never over another one", () => {
  const first = fresh(".vcd");
  const second = fresh(".vcd");
  assert.match(ok(["demo", "--vcd", first]), /saved: try gtkwave /);
  ok(["demo", "--vcd", second]);
  const text = readFileSync(first, "utf8");
  assert.is(readFileSync(second, "utf8"), text, "deterministic");
  assert.match(text, /\$var wire 1 \S+ CMD \$end\n/);
  assert.match(text, /\$var wire 32 \S+ cmd_argument \[31:0\] \$end\n/);
  fails(1, /exists already/, ["demo", "--vcd", first]);
  fails(1, /ENOENT|no such/i, ["demo", "--vcd", join(folder, "none", "x.vcd")]);
  const log = fresh(".txt");
  writeFileSync(log, PANIC_LOG);
  const disk = image(MIB);
  const area = ["--offset", "524288", "--size", "524288"];
  const before = readFileSync(disk);
  fails(1, /exists already/, ["panic", disk, ...area, "--log", log, "--vcd", first]);
  fails(2, /--vcd-bits/, ["panic", disk, ...area, "--log", log, "--vcd-bits"]);
  assert.is(Buffer.compare(readFileSync(disk), before), 0, "nothing was written");
  const bits = fresh(".vcd");
  const args = ["panic", disk, ...area, "--log", log, "--card", "sd", "--in-flight", "write"];
  ok([...args, "--vcd", bits, "--vcd-bits"]);
  assert.not.match(readFileSync(bits, "utf8"), /\$var wire (?!1 )/);
  const out = ok([...args, "--trace"]);
  assert.match(out, /CMD12 0x00000000 STOP_TRANSMISSION\n/);
  assert.match(out, /CMD25 0x[0-9a-f]{8} WRITE_MULTIPLE_BLOCK \d+\n/);
  assert.not(out.includes(ESCAPE));
  assert.ok(ok([...args, "--trace"], { NO_COLOR: "", FORCE_COLOR: "1" }).includes(`${ESCAPE}[36mCMD25 `));
  const left = readdirSync(folder).filter((name) => name.startsWith("."));
  assert.equal(left, [], "no draft is left");
});

test("every kind of SD card is decoded as one, and its commands are named as such", () => {
  for (const [card, structure, sizeBytes] of [
    ["sdsc", 0, 4 * MIB],
    ["sd", 1, 4 * MIB],
    ["sdxc", 1, 4 * MIB],
  ] as const) {
    const device = Device.open(coreModule("release"), { card, sizeBytes });
    const { cid, csd, extCsd, scr, ssr } = device.registers();
    assert.is(extCsd, null);
    assert.is(scr?.length, 8);
    assert.is(ssr?.length, 64);
    assert.is((csd[0] ?? 0) >> 6, structure);
    assert.is(decodeCsd(csd, card).capacityBytes, sizeBytes, card);
    assert.is(decodeCid(cid, card).fields.find(({ name }) => name === "OID")?.at, "119:104");
    assert.is(commandName({ index: 8, argument: 0x1aa, app: false }, card), "SEND_IF_COND");
  }
});

test("help names the new options with examples", () => {
  assert.match(ok(["inspect", "--help"]), /--card <card>[\s\S]*mmcpstore inspect --card emmc/);
  assert.match(ok(["panic", "--help"]), /--vcd <file>[\s\S]*--vcd panic\.vcd/);
  assert.match(ok(["demo", "--help"]), /--vcd <file>[\s\S]*--vcd demo\.vcd/);
});

test.run();
