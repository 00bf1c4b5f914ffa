// The bits of an argument that mean nothing: what the specifications call stuff, reserved or "set to 0", and of an
// address what lies below the block or the group. Drivers in the field leave the RCA there, or whatever was in a
// register. The masks are those of the command tables (SD Physical Layer 3.01 §4.7.4, §7; JESD84-B51 §6.10),
// written down here and nowhere in the core. Each command is sent from one saved machine with them at 0, at 1, one by
// one and by chance; answer, data, medium and the chip's own memory must be the same each time.
import { createHash } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CARD_BASE, CARD_BLOCK, EXT_CSD_BASE, MEDIUM_BASE, SDHCI_REGISTERS } from "../assembly/layout.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { SpiCard } from "../host/embed/spi.js";
import { type Answer, Bus, type BusOptions, coreModule, hex, note, pattern } from "./bus.js";

interface Row {
  index: number;
  /** Behind CMD55. */
  app?: true;
  /** Where it is sent. */
  in: string;
  answer?: Answer;
  /** Without stuff; `rca` in bits 31:16 where the command names a card. */
  argument?: number | "rca";
  /** What its lower bits then say. */
  low?: number;
  stuff: number;
  /** Length of the block that it sends. */
  bytes?: number;
  /** Length of the block that it takes. */
  takes?: number;
  /** Commands directly before. */
  before?: [number, number][];
  /** Commands directly behind, the last one of which may send a sector. */
  behind?: [number, number][];
}

const ALL = 0xffffffff;
const LOW = 0xffff;

/** Both kinds, where the tables agree. */
const COMMON: Row[] = [
  { index: 2, in: "ready", answer: "r2", stuff: ALL },
  { index: 4, in: "stby", answer: "none", argument: 0x04040000, stuff: LOW },
  { index: 7, in: "stby", answer: "r1b", argument: "rca", stuff: LOW },
  { index: 7, in: "tran", answer: "none", argument: 0, stuff: LOW },
  { index: 9, in: "stby", answer: "r2", argument: "rca", stuff: LOW },
  { index: 10, in: "stby", answer: "r2", argument: "rca", stuff: LOW },
  { index: 15, in: "tran", answer: "none", argument: "rca", stuff: LOW },
  { index: 27, in: "tran", stuff: ALL, takes: 16 },
];

const EMMC: Row[] = [
  ...COMMON,
  { index: 1, in: "idle", answer: "r3", argument: 0x40ff8080, stuff: 0x3f00007f },
  { index: 3, in: "ident", argument: 0x00070000, stuff: LOW },
  { index: 5, in: "stby", answer: "r1b", argument: "rca", low: 0x8000, stuff: 0x7fff },
  { index: 5, in: "slp", answer: "r1b", argument: "rca", stuff: 0x7fff },
  { index: 6, in: "tran", answer: "r1b", argument: 0x03af0101, stuff: 0xfc0000f8 },
  { index: 8, in: "tran", stuff: ALL, bytes: 512 },
  // Without bit 0 (HPI) it names nobody.
  { index: 12, in: "data", stuff: 0xfffffffe },
  { index: 12, in: "rcv", answer: "r1b", stuff: 0xfffffffe },
  { index: 13, in: "tran", argument: "rca", stuff: 0x7ffe },
  { index: 21, in: "HS200", stuff: ALL, bytes: 64 },
  { index: 23, in: "tran", argument: 1, stuff: 0x00ff0000, behind: [[18, 3]] },
  { index: 26, in: "tran", stuff: ALL, takes: 16 },
  { index: 55, in: "tran", argument: "rca", stuff: LOW },
];
/** Below a group of 16 × 512 KiB; below a sector. */
const groups = (unit: number): Row[] => [
  { index: 28, in: "tran", answer: "r1b", argument: 0, stuff: (16384 * unit - 1) & (2048 * unit - 1) },
  { index: 29, in: "tran", answer: "r1b", argument: 0, stuff: (16384 * unit - 1) & (2048 * unit - 1) },
  { index: 30, in: "tran", argument: 0, stuff: 2048 * unit - 1, bytes: 4 },
  { index: 31, in: "tran", argument: 0, stuff: 2048 * unit - 1, bytes: 8 },
  {
    index: 35,
    in: "tran",
    argument: 1024 * unit,
    stuff: 1023 * unit + unit - 1,
    behind: [
      [36, 2047 * unit],
      [38, 0],
    ],
  },
  {
    index: 36,
    in: "tran",
    argument: 1024 * unit,
    stuff: 1023 * unit + unit - 1,
    before: [[35, 1024 * unit]],
    behind: [[38, 0]],
  },
];
const TRIM_BY_BYTES: Row[] = [
  {
    index: 35,
    in: "tran",
    argument: 1024,
    stuff: 511,
    behind: [
      [36, 4096],
      [38, 1],
    ],
  },
  { index: 36, in: "tran", argument: 4096, stuff: 511, before: [[35, 1024]], behind: [[38, 1]] },
];

const SD: Row[] = [
  ...COMMON,
  { index: 0, in: "tran", answer: "none", stuff: ALL },
  { index: 0, in: "idle", answer: "none", stuff: ALL },
  { index: 3, in: "ident", answer: "r6", stuff: ALL },
  { index: 3, in: "stby", answer: "r6", stuff: ALL },
  { index: 6, in: "tran", argument: 0x00fffff0, stuff: 0x7f000000, bytes: 64 },
  { index: 6, in: "tran", argument: 0x80fffff1, stuff: 0x7f000000, bytes: 64 },
  { index: 8, in: "idle", answer: "r7", argument: 0x1aa, stuff: 0xfffff000 },
  { index: 12, in: "data", answer: "r1b", stuff: ALL },
  { index: 12, in: "rcv", answer: "r1b", stuff: ALL },
  { index: 13, in: "tran", argument: "rca", stuff: LOW },
  { index: 55, in: "tran", argument: "rca", stuff: LOW },
  { index: 55, in: "idle", argument: 0, stuff: LOW },
  { index: 6, app: true, in: "tran", argument: 0, stuff: 0xfffffffc },
  { index: 6, app: true, in: "tran", argument: 2, stuff: 0xfffffffc },
  { index: 13, app: true, in: "tran", stuff: ALL, bytes: 64 },
  { index: 22, app: true, in: "tran", stuff: ALL, bytes: 4 },
  { index: 23, app: true, in: "tran", argument: 4, stuff: 0xff800000 },
  { index: 41, app: true, in: "idle", answer: "r3", argument: 0x40ff8000, stuff: 0x2e0000ff },
  { index: 41, app: true, in: "idle", answer: "r3", argument: 0, stuff: 0x2e0000ff },
  { index: 42, app: true, in: "tran", argument: 1, stuff: 0xfffffffe },
  { index: 51, app: true, in: "tran", stuff: ALL, bytes: 8 },
];
const eraseOf = (unit: number): Row => ({
  index: 38,
  in: "tran",
  answer: "r1b",
  stuff: ALL,
  before: [
    [32, 2 * unit],
    [33, 9 * unit],
  ],
});
const SDSC: Row[] = [
  ...SD,
  { index: 28, in: "tran", answer: "r1b", argument: 0, stuff: 0xfffff },
  { index: 29, in: "tran", answer: "r1b", argument: 0, stuff: 0xfffff },
  { index: 30, in: "tran", argument: 0, stuff: 0xfffff, bytes: 4 },
  {
    index: 32,
    in: "tran",
    argument: 1024,
    stuff: 511,
    behind: [
      [33, 4096],
      [38, 0],
    ],
  },
  { index: 33, in: "tran", argument: 4096, stuff: 511, before: [[32, 1024]], behind: [[38, 0]] },
  eraseOf(512),
];
const UHS: Row[] = [
  ...SD,
  { index: 11, in: "offered", stuff: ALL },
  { index: 19, in: "1.8 V", stuff: ALL, bytes: 64 },
  { index: 20, in: "tran", answer: "r1b", argument: 0x10000000, stuff: 0x0fffffff },
];

/** Commands all of whose argument means something: an address, a length, a count, a mode. */
const EMMC_FULL = new Set([0, 16, 17, 18, 24, 25, 38]);
const SD_FULL = new Set([16, 17, 18, 23, 24, 25]);

const MACHINES: Record<string, { options: BusOptions; rows: Row[]; full: Set<number> }> = {
  eMMC: {
    options: { card: "emmc", controller: "uhs", emmc: { deviceType: 0x57 } },
    rows: [...EMMC, ...groups(1)],
    full: EMMC_FULL,
  },
  "eMMC by bytes": {
    options: { card: "emmc", controller: "uhs", emmc: { byteAddressed: true, deviceType: 0x57 } },
    rows: [...EMMC, ...groups(512), ...TRIM_BY_BYTES],
    full: EMMC_FULL,
  },
  SDSC: { options: { card: "sdsc", sd: { discard: false } }, rows: SDSC, full: SD_FULL },
  SDHC: {
    options: { card: "sd", sd: { discard: false } },
    rows: [...SD, eraseOf(1)],
    full: new Set([...SD_FULL, 32, 33]),
  },
  // The argument of CMD38 is the kind of an erase here.
  "SDHC with UHS and discard": {
    options: { card: "sd", controller: "uhs", sd: { uhs: true, cmd20: true, discard: true } },
    rows: UHS,
    full: new Set([...SD_FULL, 32, 33, 38]),
  },
};

function make(options: BusOptions): Bus {
  const bus = new Bus({
    ...options,
    sectors: 2048,
    trace: false,
    timing: { readNs: 100_000_000, programNs: 1_000_000, sleepNs: 1_000_000 },
  });
  bus.preset(0, pattern(2048, 3));
  return bus;
}

function bring(bus: Bus, place: string): void {
  bus.powerUp();
  if (place === "1.8 V") {
    bus.identifyLow();
    return;
  }
  if (place === "offered") {
    bus.identify("idle");
    bus.operatingConditions(0x41ff8000);
    return;
  }
  const rest = ["idle", "ready", "ident", "stby"].find((state) => state === place);
  bus.identify((rest as "idle") ?? (place === "slp" ? "stby" : "tran"));
  if (place === "data") bus.must(18, 0);
  if (place === "rcv") bus.must(25, 0);
  if (place === "slp") {
    bus.must(5, ((bus.rca << 16) | 0x8000) >>> 0, "r1b");
    bus.awaitBusy();
  }
  if (place === "HS200") {
    bus.switchByte(183, 1);
    bus.switchByte(185, 2);
    bus.setLines(4);
    bus.write16(0x3e, 8);
  }
  if (["data", "rcv", "tran"].includes(place)) assert.is(bus.state, place);
}

const media: Uint8Array[] = [];

/** Which of the media that were seen so far this one is. */
function mediumIn(memory: ArrayBuffer): number {
  const bytes = new Uint8Array(memory, MEDIUM_BASE, 2048 * 512);
  const known = media.findIndex((one) => Buffer.compare(one, bytes) === 0);
  return known >= 0 ? known : media.push(bytes.slice()) - 1;
}

function digest(buffer: ArrayBuffer, at: number, lengthBytes: number): string {
  return createHash("sha1")
    .update(new Uint8Array(buffer, at, lengthBytes))
    .digest("hex");
}

/** What a host sees of a command, and what the card then is. */
function tell(bus: Bus, row: Row, argument: number): unknown {
  for (const [index, value] of row.before ?? []) bus.must(index, value);
  const data =
    row.bytes !== undefined
      ? { read: true, blocks: 1, blockBytes: row.bytes }
      : row.takes !== undefined
        ? { read: false, blocks: 1, blockBytes: row.takes }
        : undefined;
  const reply = row.app
    ? bus.app(row.index, argument, row.answer ?? "r1", data)
    : bus.send(row.index, argument, row.answer ?? "r1", data);
  const told: unknown[] = [reply.words.map(hex), hex(reply.status), bus.state];
  if (reply.silent || reply.errors !== 0) return told;
  if (row.bytes !== undefined && data) told.push(Buffer.from(bus.moveIn(data).data).toString("hex"));
  if (row.takes !== undefined) told.push(bus.pioWrite(new Uint8Array(row.takes).fill(0x5a), row.takes));
  for (const [index, value] of row.behind ?? []) told.push(hex(bus.must(index, value).r1));
  bus.idle(300_000_000);
  told.push(bus.state);
  const { buffer } = bus.memory;
  // A count and the bounds of an erase are kept as they came; what they do shows in the commands behind.
  const isKept = [23, 32, 33, 35, 36].includes(row.index);
  if (!isKept) told.push(digest(buffer, CARD_BASE, SDHCI_REGISTERS - CARD_BASE));
  told.push(digest(buffer, EXT_CSD_BASE, CARD_BLOCK - EXT_CSD_BASE));
  told.push(mediumIn(buffer));
  return told;
}

/** All of the mask, each bit of it alone, and eight mixtures. */
function mixtures(mask: number): number[] {
  const found = [mask];
  for (let bit = 0; bit < 32; bit++) if (((mask >>> bit) & 1) !== 0) found.push((1 << bit) >>> 0);
  let word = 20261129;
  for (let i = 0; i < 8; i++) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    found.push((word & mask) >>> 0);
  }
  return found;
}

for (const [name, { options, rows, full }] of Object.entries(MACHINES)) {
  test(`${name}: stuff bits change nothing`, () => {
    let cases = 0;
    const places = new Map<string, { bus: Bus; start: Uint8Array; rca: number }>();
    for (const row of rows) {
      if (!places.has(row.in)) {
        const bus = make(options);
        bring(bus, row.in);
        places.set(row.in, { bus, start: bus.save(), rca: bus.rca });
      }
      const { bus, start, rca } = places.get(row.in) as { bus: Bus; start: Uint8Array; rca: number };
      const plain = row.argument === "rca" ? ((rca << 16) | (row.low ?? 0)) >>> 0 : (row.argument ?? 0);
      const send = (argument: number) => {
        bus.load(start);
        bus.rca = rca;
        return tell(bus, row, argument);
      };
      const expected = send(plain);
      const what = `${name} ${row.app ? "A" : ""}CMD${row.index} in ${row.in}`;
      if (row.answer !== "none") {
        assert.ok((expected as unknown[]).length > 3, `${what} is answered: ${expected}`);
      }
      for (const stuff of row.stuff === 0 ? [] : mixtures(row.stuff)) {
        assert.equal(send((plain | stuff) >>> 0), expected, `${what}: stuff ${hex(stuff)}`);
        cases++;
      }
    }
    // Each of the 64 commands that this card takes anywhere is in the tables, or all of its argument means something.
    for (const place of ["idle", "ready", "ident", "stby", "tran", "data", "rcv"]) {
      const bus = make(options);
      bring(bus, place);
      const start = bus.save();
      for (let index = 0; index < 64; index++) {
        bus.load(start);
        const argument = [9, 10, 13, 55].includes(index) && place !== "idle" ? (bus.rca << 16) >>> 0 : 0;
        if (index === 8 && place === "idle" && options.card !== "emmc") continue;
        const reply = bus.send(index, argument, "r1");
        if (reply.silent) continue;
        const isKnown = full.has(index) || rows.some((row) => row.index === index && !row.app);
        assert.ok(isKnown, `${name}: CMD${index} in ${place} is in the tables`);
      }
    }
    note(`${name}: ${rows.length} commands, ${cases} arguments with stuff bits`);
  });
}

// ---- SPI ----

interface SpiRow {
  index: number;
  app?: true;
  in: "idle" | "ready" | "reading" | "writing";
  argument?: number;
  stuff: number;
  /** Bytes of the answer behind the first one. */
  extra?: number;
  before?: [number, number][];
}
const SPI: SpiRow[] = [
  { index: 0, in: "idle", stuff: ALL },
  { index: 0, in: "ready", stuff: ALL },
  { index: 1, in: "idle", argument: 0x40000000, stuff: 0xbfffffff },
  { index: 6, in: "ready", argument: 0x00fffff0, stuff: 0x7f000000 },
  { index: 8, in: "idle", argument: 0x1aa, stuff: 0xfffff000, extra: 4 },
  { index: 9, in: "ready", stuff: ALL },
  { index: 10, in: "ready", stuff: ALL },
  { index: 12, in: "reading", stuff: ALL },
  { index: 13, in: "ready", stuff: ALL, extra: 1 },
  { index: 27, in: "ready", stuff: ALL },
  { index: 55, in: "idle", stuff: ALL },
  { index: 55, in: "ready", stuff: ALL },
  { index: 58, in: "idle", stuff: ALL, extra: 4 },
  { index: 58, in: "ready", stuff: ALL, extra: 4 },
  { index: 59, in: "ready", argument: 0, stuff: 0xfffffffe },
  { index: 59, in: "ready", argument: 1, stuff: 0xfffffffe },
  { index: 13, app: true, in: "ready", stuff: ALL, extra: 1 },
  { index: 22, app: true, in: "ready", stuff: ALL },
  { index: 23, app: true, in: "ready", argument: 4, stuff: 0xff800000 },
  { index: 41, app: true, in: "idle", argument: 0x40000000, stuff: 0xbfffffff },
  { index: 42, app: true, in: "ready", argument: 1, stuff: 0xfffffffe },
  { index: 51, app: true, in: "ready", stuff: ALL },
];
const SPI_SDSC: SpiRow[] = [
  ...SPI,
  { index: 28, in: "ready", argument: 0, stuff: 0xfffff },
  { index: 29, in: "ready", argument: 0, stuff: 0xfffff },
  { index: 30, in: "ready", argument: 0, stuff: 0xfffff },
  { index: 32, in: "ready", argument: 1024, stuff: 511 },
  { index: 33, in: "ready", argument: 4096, stuff: 511, before: [[32, 1024]] },
];
const SPI_ERASE: SpiRow = {
  index: 38,
  in: "ready",
  stuff: ALL,
  before: [
    [32, 512],
    [33, 1024],
  ],
};

function crc7(bytes: number[]): number {
  let crc = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const out = ((crc >> 6) ^ (byte >> bit)) & 1;
      crc = ((crc << 1) & 0x7f) ^ (out ? 0x09 : 0);
    }
  }
  return crc;
}

class SpiHost {
  readonly device: Device;
  readonly card: SpiCard;

  constructor(options: DeviceOptions) {
    this.device = Device.open(coreModule(), { sizeBytes: 1 << 20, ...options });
    this.card = new SpiCard(this.device);
    for (let i = 0; i < 10; i++) this.card.transfer(0xff, false);
  }

  take(count: number): number[] {
    return Array.from({ length: count }, () => this.card.transfer(0xff));
  }

  command(index: number, argument: number): number {
    const frame = [
      0x40 | index,
      argument >>> 24,
      (argument >>> 16) & 255,
      (argument >>> 8) & 255,
      argument & 255,
    ];
    for (const byte of [0xff, ...frame, (crc7(frame) << 1) | 1]) this.card.transfer(byte);
    if (index === 12) this.take(1);
    for (let i = 0; i < 10; i++) {
      const byte = this.card.transfer(0xff);
      if (byte < 0x80) return byte;
    }
    return 0xff;
  }

  bring(place: SpiRow["in"]): void {
    this.command(0, 0);
    this.command(8, 0x1aa);
    this.take(4);
    if (place === "idle") return;
    for (let i = 0; i < 100_000; i++) {
      this.command(55, 0);
      if (this.command(41, 0x40000000) === 0) break;
    }
    if (place === "reading") this.command(18, 0);
    if (place === "writing") this.command(25, 0);
  }
}

for (const [name, options, rows] of [
  ["SDSC", { card: "sdsc", sd: { discard: false, fule: false } }, [...SPI_SDSC, SPI_ERASE]],
  ["SDHC", { card: "sd", sd: { discard: false, fule: false } }, [...SPI, SPI_ERASE]],
  ["SDHC with discard", { card: "sd", sd: { discard: true } }, SPI],
] as const) {
  test(`SPI, ${name}: stuff bits change nothing`, () => {
    let cases = 0;
    const places = new Map<string, { host: SpiHost; start: Uint8Array }>();
    for (const row of rows) {
      if (!places.has(row.in)) {
        const host = new SpiHost(options);
        host.bring(row.in);
        places.set(row.in, { host, start: new Uint8Array(host.device.memory.buffer).slice() });
      }
      const { host, start } = places.get(row.in) as { host: SpiHost; start: Uint8Array };
      const send = (argument: number) => {
        new Uint8Array(host.device.memory.buffer).set(start);
        for (const [index, value] of row.before ?? []) assert.is(host.command(index, value), 0);
        if (row.app) host.command(55, 0);
        const first = host.command(row.index, argument);
        const rest = host.take(700);
        const chip = digest(host.device.memory.buffer, CARD_BASE, SDHCI_REGISTERS - CARD_BASE);
        return [first, rest.join(), chip];
      };
      const what = `SPI ${name} ${row.app ? "A" : ""}CMD${row.index} in ${row.in}`;
      const expected = send(row.argument ?? 0);
      assert.is((expected[0] as number) & 0xfc, 0, `${what} is taken: ${expected[0]}`);
      for (const stuff of mixtures(row.stuff)) {
        assert.equal(send(((row.argument ?? 0) | stuff) >>> 0), expected, `${what}: stuff ${hex(stuff)}`);
        cases++;
      }
    }
    note(`SPI, ${name}: ${rows.length} commands, ${cases} arguments with stuff bits`);
  });
}

// ---- bits that do mean something ----

test("ACMD6: 01 and 11 are no width, whatever stands above them", () => {
  for (const low of [1, 3]) {
    for (const above of [0, 0xfffffffc, 0x12340000]) {
      const bus = make({ card: "sd" });
      bring(bus, "tran");
      assert.is(bus.app(6, (above | low) >>> 0).r1 >>> 31, 1, hex(above | low));
      assert.is(bus.readBlocks(0, 1).errors, 0, "one line still");
    }
  }
});

test("CMD12 as HPI names a card: another one's is not heard", () => {
  const bus = new Bus({ card: "emmc", timing: { eraseNs: 900_000_000 } }).open();
  assert.is(bus.switchByte(161, 1), 0x900);
  bus.must(35, 0);
  bus.must(36, 0);
  bus.must(38, 0, "r1b");
  bus.resetLines();
  assert.is(bus.state, "prg");
  assert.is(bus.send(12, ((bus.rca ^ 1) << 16) | 1).silent, true);
  assert.is(bus.status(), 0xe00, "busy still, and no complaint");
  assert.is(bus.send(12, (bus.rca << 16) | 1).silent, false);
  bus.awaitTran();
});

test.run();
