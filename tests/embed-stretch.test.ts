// What a guest's ADMA2 moves by pages (assembly/sdhci/stretch.ts) leaves everything as block by block does: two equal
// machines, one of which keeps a trace and so goes block by block, do the same at random; then their registers, clocks,
// interrupts, RAM, media and the whole memory of their cores are compared, but for what is known to be of no meaning.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  CONFIG_TRACE,
  DMA_PAGE,
  DMA_PAGE_BYTES,
  DMA_TABLE,
  DMA_TABLE_BYTES,
  MACHINE_PAGES,
  MEDIUM_STORES,
  PAGE_BYTES,
  PROGRAM_BLOCK,
  SDHCI_BASE,
  SDHCI_BUFFER,
  TRACE_BASE,
  TRACE_ENTRIES,
} from "../assembly/layout.js";
import type { ExternalMedium } from "../host/core/external-medium.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { SdhciPeripheral } from "../host/embed/peripheral.js";
import { note } from "./bus.js";
import { dice } from "./decode-fuzz.js";
import { Board, Guest, RAM_BYTES } from "./embed/guest.js";
import { coreModule, pattern, ROOT } from "./machine.js";
import { fieldsOf } from "./wasm/structs.js";

const MEDIUM_BYTES = 8 << 20;
const SECTORS = MEDIUM_BYTES / 512;
/** More: MMCPSTORE_STRETCH_STEPS. */
const STEPS = Number(process.env.MMCPSTORE_STRETCH_STEPS ?? 60);
const TABLE = 0x1800;
const TABLE_END = 0x3000;

/** Fields of the engine that only say what has been fetched ahead, or what was counted in a run that is over. */
const FETCHED = [
  "descriptorHead",
  "descriptorAddress",
  "pageAddress",
  "tableAddress",
  "descriptors",
  "blockDescriptors",
];
const ENGINE = fieldsOf(readFileSync(`${ROOT}assembly/sdhci/state.ts`, "utf8"), "Engine");
function engineField(name: string): [number, number] {
  const field = ENGINE.find((one) => one.name === name);
  assert.ok(field, `Engine.${name}`);
  return [SDHCI_BASE + field.offset, field.bytes];
}
const NO_MATTER: [number, number][] = [
  [CONFIG_TRACE, 4],
  [TRACE_BASE, 32 + TRACE_ENTRIES * 32],
  [DMA_PAGE, DMA_PAGE_BYTES],
  [DMA_TABLE, DMA_TABLE_BYTES],
  // It grows with each write; a refused one of a medium elsewhere is tried again.
  [MEDIUM_STORES, 8],
  ...FETCHED.map(engineField),
];

interface Machine {
  device: Device;
  board: Board;
  guest: Guest;
  /** Of a medium elsewhere. */
  bytes: Uint8Array | null;
}

function machineOf(options: DeviceOptions, isExternal: boolean, trace: boolean): Machine {
  const all = { ...options, controller: "8-bit", trace } as const;
  const bytes = isExternal ? new Uint8Array(MEDIUM_BYTES) : null;
  const medium: ExternalMedium = {
    sizeBytes: MEDIUM_BYTES,
    read: (offset, to) => {
      // A bad place of the medium itself.
      if (offset < 3_000_064 && offset + to.length > 3_000_000) throw new Error("EIO");
      to.set((bytes as Uint8Array).subarray(offset, offset + to.length));
    },
    write: (offset, data) => {
      if (offset < 5_000_064 && offset + data.length > 5_000_000) throw new Error("EIO");
      (bytes as Uint8Array).set(data, offset);
    },
  };
  const device =
    bytes === null
      ? Device.open(coreModule("embed"), { sizeBytes: MEDIUM_BYTES, ...all })
      : Device.openExternal(coreModule("embed"), medium, all);
  const board = new Board();
  const guest = new Guest(new SdhciPeripheral(device, board), board);
  return { device, board, guest, bytes };
}

/** The last block, and when it was over: behind any but a write that came to its end nobody asks any more. */
const LAST_BLOCK: [number, number][] = [engineField("dataNs"), [SDHCI_BUFFER, 512], [PROGRAM_BLOCK, 512]];

/** The core's memory, less what does not matter. */
function memoryOf({ device }: Machine, isWritten: boolean): Buffer {
  const memory = Buffer.from(device.memory.buffer.slice(0));
  for (const [from, lengthBytes] of [...NO_MATTER, ...(isWritten ? [] : LAST_BLOCK)]) {
    memory.fill(0, from, from + lengthBytes);
  }
  return memory;
}

function compare(one: Machine, other: Machine, isWritten: boolean, what: string): void {
  const first = memoryOf(one, isWritten);
  const second = memoryOf(other, isWritten);
  if (Buffer.compare(first, second) !== 0) {
    const at = first.findIndex((byte, i) => byte !== second[i]);
    const field = ENGINE.find(({ offset, bytes }) => {
      return at >= SDHCI_BASE + offset && at < SDHCI_BASE + offset + bytes;
    });
    const place = at < MACHINE_PAGES * PAGE_BYTES ? (field?.name ?? "") : "medium";
    assert.unreachable(`${what}: the memories differ at 0x${at.toString(16)} ${place}`);
  }
  assert.is(Buffer.compare(one.board.ram, other.board.ram), 0, `${what}: RAM`);
  assert.equal(one.board.levels, other.board.levels, `${what}: interrupts`);
  if (one.bytes && other.bytes) assert.is(Buffer.compare(one.bytes, other.bytes), 0, `${what}: medium`);
}

type Random = (limit: number) => number;

/** A table of random descriptors for `lengthBytes`: pages, parts of pages, odd bytes, nops, links, faults. */
function describe(ram: Uint8Array, random: Random, lengthBytes: number): void {
  const view = new DataView(ram.buffer);
  let at = TABLE;
  const put = (attributes: number, length: number, address: number) => {
    view.setUint16(at, attributes, true);
    view.setUint16(at + 2, length, true);
    view.setUint32(at + 4, address, true);
    at += 8;
  };
  const isOdd = random(4) === 0;
  let left = lengthBytes;
  while (left > 0 && at < TABLE_END - 32) {
    const isLong = lengthBytes > 1024 * 512;
    const kinds = isLong
      ? [65536, 32768]
      : isOdd
        ? [4096, 512, 65536, 1 + random(2000), 508 + random(8)]
        : [4096, 4096, 8192, 65536];
    const part = Math.min(left, kinds[random(kinds.length)] ?? 512);
    left -= part;
    let address = 0x4000 + random((RAM_BYTES - 0x4000 - part) >> 12) * 4096;
    if (isOdd) address += random(3) * 256;
    // Now and then the end of RAM, nothing, the table itself.
    const surprise = random(400);
    if (surprise < 2) address = RAM_BYTES - (part >> 1);
    if (surprise === 2) address = 0x7ffff000;
    if (surprise === 3) address = TABLE + random(512);
    const interrupt = random(20) === 0 ? 4 : 0;
    const end = left === 0 && random(16) !== 0 ? 2 : 0;
    put(0x21 | interrupt | end, part & 0xffff, address);
    if (random(30) === 0) put(0x01, random(100), 0);
    if (random(30) === 0) {
      put(0x31, 0, at + 8 + 16);
      at += 16;
    }
    if (random(200) === 0) put(0x20, 4096, 0x8000);
  }
  // Too much, or nothing that is valid.
  if (random(8) === 0) put(0x23, 512, 0x9000);
  else put(0, 0, 0);
}

interface Step {
  isWrite: boolean;
  lba: number;
  blocks: number;
  count: number;
  mode: number;
  /** Seed of the table and of the bytes in RAM. */
  seed: number;
}

/** CMD25 or CMD18 as `step` says, its end as the driver meets it. */
function run({ guest, board }: Machine, step: Step): number {
  const { host } = guest;
  describe(board.ram, dice(step.seed), step.blocks * 512);
  host.write8(0x28, (host.read8(0x28) & ~0x18) | 0x10);
  host.write32(0x58, TABLE);
  host.write16(0x04, 512);
  host.write16(0x06, step.blocks);
  // What auto-CMD23 tells the card.
  host.write32(0x00, step.count);
  host.write32(0x08, step.lba * guest.addressUnit);
  host.write16(0x0c, step.mode | (step.isWrite ? 0 : 0x10));
  host.write16(0x0e, (step.isWrite ? 0x1900 : 0x1200) | 0x3a);
  const status = host.read32(0x30);
  host.write32(0x30, status);
  // What is left of a long one.
  for (let i = 0; i < 4; i++) guest.sleep(1_000_000n);
  const late = host.read32(0x30);
  host.write32(0x30, late);
  host.write8(0x2f, 2);
  host.write8(0x2f, 4);
  guest.tryCommand(12, 0, 0x1b);
  guest.awaitReady();
  return (status | late) >>> 0;
}

const AUTO_CMD12 = 0x04;
const AUTO_CMD23 = 0x08;
const COUNTED = 0x02;
const MULTIPLE_DMA = 0x21;
const MODES = [
  MULTIPLE_DMA | COUNTED | AUTO_CMD12,
  MULTIPLE_DMA | COUNTED | AUTO_CMD23,
  MULTIPLE_DMA | COUNTED,
  MULTIPLE_DMA,
];

function stepOf(random: Random): Step {
  const near = random(6) === 0;
  // The places of the medium that fail, its end, a group's border, anywhere.
  const places = [3_000_000 >> 9, 5_000_000 >> 9, SECTORS - random(200), 4096, 1024];
  // Some are more than one access moves: 16,384 events.
  const isLong = random(20) === 0;
  const blocks = isLong ? 9000 + random(7000) : 1 + random([8, 64, 1024][random(3)] ?? 8);
  const lba = near ? (places[random(places.length)] ?? 0) - random(32) : random(SECTORS - blocks);
  return {
    isWrite: random(2) === 0,
    lba: Math.max(0, lba),
    blocks,
    count: Math.max(1, blocks - (random(8) === 0 ? random(20) : 0)),
    mode: MODES[random(10) === 0 ? 3 : random(3)] ?? 0,
    seed: 1 + random(1 << 30),
  };
}

const DEVICES: [string, DeviceOptions][] = [
  ["an eMMC", { card: "emmc" }],
  ["an SD card", { card: "sd" }],
  ["no time at all", { card: "emmc", profile: "ideal" }],
  ["an eMMC with a cache", { card: "emmc", cacheSectors: 16 }],
  ["stalls", { card: "emmc", profile: "worst" }],
  ["blocks that are taken back", { card: "sd", timing: { settleNs: 1_000_000 } }],
  ["an erase block that goes back", { card: "sd", damage: { rollbackSectors: 64 } }],
  ["an old eMMC", { card: "emmc", profile: "old-emmc" }],
  ["a slow SD card", { card: "sd", profile: "slow-sd" }],
];

for (const [what, options] of DEVICES) {
  test(`${what}: by pages as block by block`, () => {
    let transfers = 0;
    let calls = 0;
    let callsByBlock = 0;
    let errors = 0;
    for (const isExternal of [false, true]) {
      const random = dice(what.length * 7919 + (isExternal ? 1 : 0));
      const one = machineOf(options, isExternal, false);
      const other = machineOf(options, isExternal, true);
      const both = (act: (machine: Machine) => void) => {
        act(one);
        act(other);
      };
      both(({ guest }) => guest.identify(options.card === "sd"));
      if (options.cacheSectors !== undefined) both(({ guest }) => guest.command(6, 0x03210101, 0x1b));
      compare(one, other, false, "identified");
      for (let i = 0; i < STEPS; i++) {
        const chance = random(20);
        // A group that is protected, or no more; a fault that strikes once.
        if (chance < 2) {
          const group = random(3) * 4096;
          both(({ guest }) => guest.tryCommand(28 + chance, group * guest.addressUnit, 0x1b));
        }
        if (chance === 2) {
          const firstLba = random(SECTORS);
          const kind =
            (["read-crc", "write-crc", "program", "latent-read"] as const)[random(4)] ?? "read-crc";
          both(({ device }) => device.injectFault({ kind, firstLba, times: 1 }));
        }
        if (chance === 3) both(({ device }) => device.clearFaults());
        const step = stepOf(random);
        const data = pattern(i, RAM_BYTES - 0x4000);
        both(({ board }) => board.ram.set(data, 0x4000));
        const before = [one.board.dmaCalls, other.board.dmaCalls];
        const status = run(one, step);
        assert.is(run(other, step), status, `${i}: ${JSON.stringify(step)}`);
        compare(one, other, step.isWrite && (status & 0x8000) === 0, `${i}: ${JSON.stringify(step)}`);
        transfers++;
        if ((status & 0x8000) !== 0) errors++;
        calls += one.board.dmaCalls - (before[0] ?? 0);
        callsByBlock += other.board.dmaCalls - (before[1] ?? 0);
      }
    }
    note(
      `${transfers} transfers, ${errors} with an error; ${calls} calls of the bus, ${callsByBlock} block by block`,
    );
  });
}

// ---- what one block of a page does and the others do not ----

const PAGE = 4096;
const TRAN = 0x21;
const TRAN_END = 0x23;
const NOP = 0x01;
const LINK = 0x31;
type Descriptor = [attributes: number, lengthBytes: number, address: number];

/** Pages from 0x10000 on. */
function pagesOf(lengthBytes: number): Descriptor[] {
  const pages = Math.ceil(lengthBytes / PAGE);
  return Array.from({ length: pages }, (_, i): Descriptor => {
    const isLast = i === pages - 1;
    return [isLast ? TRAN_END : TRAN, isLast ? lengthBytes - i * PAGE : PAGE, 0x10000 + i * 2 * PAGE];
  });
}

function put(table: Descriptor[], to: Uint8Array, at: number): void {
  const view = new DataView(to.buffer, to.byteOffset);
  for (const [i, [attributes, lengthBytes, address]] of table.entries()) {
    view.setUint32(at + i * 8, ((lengthBytes << 16) | attributes) >>> 0, true);
    view.setUint32(at + i * 8 + 4, address, true);
  }
}

/** A transfer over `table`; SDHCI_INT_STATUS at its end. */
function transfer(
  { board, guest }: Machine,
  how: { isWrite: boolean; lba: number; blocks: number; table?: Descriptor[]; mode?: number; count?: number },
): number {
  const { host } = guest;
  put(how.table ?? pagesOf(how.blocks * 512), board.ram, TABLE);
  host.write8(0x28, (host.read8(0x28) & ~0x18) | 0x10);
  host.write32(0x58, TABLE);
  host.write16(0x04, 512);
  host.write16(0x06, how.blocks);
  host.write32(0x00, how.count ?? how.blocks);
  host.write32(0x08, how.lba * guest.addressUnit);
  host.write16(0x0c, (how.mode ?? MULTIPLE_DMA | COUNTED | AUTO_CMD12) | (how.isWrite ? 0 : 0x10));
  host.write16(0x0e, (how.isWrite ? 0x1900 : 0x1200) | 0x3a);
  return host.read32(0x30);
}

/** Header of a packed write (JESD84-B51 6.6.29): version 1, write, and for each entry a count and an address. */
function packedHeader(entries: [lba: number, blocks: number][], unit: number): Uint8Array {
  const header = new Uint8Array(512);
  const view = new DataView(header.buffer);
  header.set([1, 2, entries.length]);
  for (const [i, [lba, blocks]] of entries.entries()) {
    view.setUint32(8 + i * 8, blocks, true);
    view.setUint32(12 + i * 8, lba * unit, true);
  }
  return header;
}

const AUTO23 = MULTIPLE_DMA | COUNTED | AUTO_CMD23;
const ERROR = 0x8000;
const DONE = 0x2;
/** Command complete, and that an auto-CMD12 behind an error could not go out. */
const NOT_ASKED = 0x1000001;

const SINGLE: [what: string, DeviceOptions, act: (machine: Machine) => number, status: number][] = [
  [
    "a group that protects itself begins in a page",
    { card: "emmc", sizeBytes: 16 << 20 },
    (machine) => {
      machine.guest.command(28, 16384 * machine.guest.addressUnit, 0x1b);
      return transfer(machine, { isWrite: true, lba: 16384 - 13, blocks: 32 });
    },
    ERROR | 0x100000,
  ],
  [
    "the last sector of a group that protects itself is the first",
    { card: "emmc", sizeBytes: 16 << 20 },
    (machine) => {
      machine.guest.command(28, 0, 0x1b);
      return transfer(machine, { isWrite: true, lba: 16383, blocks: 32 });
    },
    ERROR | 0x100000,
  ],
  [
    "the same on an SD card",
    { card: "sdsc" },
    (machine) => {
      machine.guest.command(28, 4096 * machine.guest.addressUnit, 0x1b);
      return transfer(machine, { isWrite: true, lba: 4096 - 13, blocks: 32 });
    },
    ERROR | 0x200000,
  ],
  [
    "busy is longer than the data timeout",
    { card: "emmc", timing: { programNs: 300_000_000 } },
    (machine) => {
      machine.guest.host.write8(0x2e, 0);
      return transfer(machine, { isWrite: true, lba: 8, blocks: 32 });
    },
    ERROR | 0x100000,
  ],
  [
    "the next sector comes later than the data timeout",
    { card: "emmc", timing: { readNs: 1000, nextReadNs: 300_000_000 } },
    (machine) => {
      machine.guest.host.write8(0x2e, 0);
      return transfer(machine, { isWrite: false, lba: 8, blocks: 32 });
    },
    ERROR | 0x100000,
  ],
  [
    "more descriptors than one run looks at",
    { card: "emmc" },
    (machine) => {
      const table: Descriptor[] = [
        [TRAN, 512, 0x10000],
        [TRAN, 512, 0x12000],
        [LINK, 0, TABLE],
      ];
      return transfer(machine, { isWrite: true, lba: 8, blocks: 9000, table });
    },
    0,
  ],
  [
    "the same without links",
    { card: "emmc" },
    (machine) => {
      const { ram } = machine.board;
      const table = Array.from({ length: 5000 }, (_, i): Descriptor => [TRAN, 512, 0x80000 + (i & 15) * 512]);
      put(table, ram, 0x20000);
      return transfer(machine, { isWrite: false, lba: 8, blocks: 9000, table: [[LINK, 0, 0x20000]] });
    },
    0,
  ],
  [
    "a read over its own table",
    { card: "emmc" },
    (machine) => {
      // What is read to the table's place is a table itself, which goes on elsewhere.
      const block = machine.device.medium().subarray(8 * 512, 9 * 512);
      put(
        [
          [NOP, 0, 0],
          [NOP, 0, 0],
          [TRAN, PAGE, 0x30000],
          [TRAN_END, PAGE, 0x40000],
        ],
        block,
        0,
      );
      const table: Descriptor[] = [
        [TRAN, 512, TABLE],
        [TRAN, 512, 0x20000],
        [TRAN, PAGE, 0x22000],
        [TRAN_END, PAGE, 0x24000],
      ];
      return transfer(machine, { isWrite: false, lba: 8, blocks: 17, table });
    },
    // 512 and two pages come, and the block from the table that was.
    DONE,
  ],
  [
    "a read over its own table, behind its first block",
    { card: "emmc" },
    (machine) => {
      const medium = machine.device.medium();
      put(
        [
          [TRAN, PAGE, 0x30000],
          [TRAN_END, PAGE, 0x40000],
        ],
        medium.subarray(16 * 512),
        16,
      );
      const table: Descriptor[] = [
        [TRAN, PAGE, 0x20000],
        [TRAN, PAGE, TABLE],
        [TRAN, PAGE, 0x24000],
        [TRAN_END, PAGE, 0x26000],
      ];
      return transfer(machine, { isWrite: false, lba: 8, blocks: 32, table });
    },
    DONE,
  ],
  [
    "the card's count ends before the controller's",
    { card: "emmc" },
    (machine) => transfer(machine, { isWrite: true, lba: 8, blocks: 32, count: 21, mode: AUTO23 }),
    ERROR | 0x100000,
  ],
  [
    "and in a read",
    { card: "emmc" },
    (machine) => transfer(machine, { isWrite: false, lba: 8, blocks: 32, count: 21, mode: AUTO23 }),
    ERROR | 0x100000,
  ],
  [
    "a sector that cannot be read, found before",
    { card: "emmc" },
    (machine) => {
      machine.device.injectFault({ kind: "latent-read", firstLba: 21, lastLba: 21, times: 1 });
      transfer(machine, { isWrite: false, lba: 8, blocks: 32 });
      machine.guest.host.write32(0x30, 0xffffffff);
      machine.guest.host.write8(0x2f, 4);
      machine.guest.tryCommand(12, 0, 0x1b);
      machine.device.clearFaults();
      return transfer(machine, { isWrite: false, lba: 8, blocks: 32 });
    },
    ERROR | 0x100000,
  ],
  [
    "sectors that lie in the cache",
    { card: "emmc", cacheSectors: 16 },
    (machine) => {
      machine.guest.command(6, 0x03210101, 0x1b);
      machine.guest.write(20, pattern(9, 4 * 512));
      return transfer(machine, { isWrite: false, lba: 8, blocks: 32 });
    },
    DONE,
  ],
  [
    "written into the cache",
    { card: "emmc", cacheSectors: 16 },
    (machine) => {
      machine.guest.command(6, 0x03210101, 0x1b);
      return transfer(machine, { isWrite: true, lba: 8, blocks: 32 });
    },
    DONE,
  ],
  [
    "reliable writes past the cache",
    { card: "emmc", cacheSectors: 16 },
    (machine) => {
      machine.guest.command(6, 0x03210101, 0x1b);
      return transfer(machine, { isWrite: true, lba: 8, blocks: 32, count: 0x80000020, mode: AUTO23 });
    },
    DONE,
  ],
  [
    "a piece of a block, and nops up to the most that are looked at",
    { card: "emmc" },
    (machine) => {
      const nops = Array.from({ length: 511 }, (): Descriptor => [NOP, 0, 0]);
      const table: Descriptor[] = [
        [TRAN, 512, 0x10000],
        [TRAN, 1, 0x12000],
        ...nops,
        [TRAN_END, 511, 0x12001],
      ];
      return transfer(machine, { isWrite: true, lba: 8, blocks: 2, table });
    },
    ERROR | 0x2000000,
  ],
  [
    "packed writes of several places",
    { card: "emmc" },
    (machine) => {
      const { addressUnit } = machine.guest;
      const header = packedHeader(
        [
          [40, 11],
          [200, 9],
          [90, 12],
        ],
        addressUnit,
      );
      machine.board.ram.set(header, 0x10000);
      return transfer(machine, { isWrite: true, lba: 40, blocks: 33, count: 0x40000021, mode: AUTO23 });
    },
    DONE,
  ],
];

for (const [what, options, act, status] of SINGLE) {
  test(`${what}: by pages as block by block`, () => {
    const one = machineOf(options, false, false);
    const other = machineOf(options, false, true);
    for (const machine of [one, other]) {
      machine.guest.identify(options.card !== "emmc");
      machine.device.medium().set(pattern(4, MEDIUM_BYTES >> 3));
      machine.board.ram.set(pattern(5, RAM_BYTES - 0x4000), 0x4000);
      assert.is((act(machine) & ~NOT_ASKED).toString(16), status.toString(16));
    }
    // Behind that access, and as long as there is something left of it.
    for (let i = 0; i < 3; i++) {
      compare(one, other, status === DONE, what);
      for (const { guest } of [one, other]) guest.sleep(2_000_000n);
    }
    // The pages of the first and of the last block are fetched for them, too.
    if (status === DONE) assert.ok(one.board.dmaCalls <= other.board.dmaCalls + 2);
  });
}

test.run();
