// The crash dump behind a panic's record: its bytes on the card one by one, every kind of region, every way to be cut
// short, faults of the card while it is stored, and the dump that was there before. The cuts are dump-cuts.test.ts's.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DUMP_AREA_SECTORS, DUMP_BASE, DUMP_STATE, MEDIUM_BASE, SECTOR_BYTES } from "../assembly/layout.js";
import type { ControllerKind } from "../host/core/controllers.js";
import type { FaultPlan } from "../host/core/faults.js";
import { Device } from "../host/device.js";
import type { DeviceOptions, PanicDumpOptions } from "../host/device-options.js";
import { CrashDump } from "../host/dump/dump.js";
import { type CardDump, decodeDumpArea, dumpBackOffset } from "../host/dump/dump-area.js";
import { bytesSource, readElfCore } from "../host/dump/elf.js";
import { prStatusNote } from "../host/dump/notes.js";
import type { Region } from "../host/dump/region-table.js";
import { ERRNO } from "../host/errors.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule, pattern, sameBytes } from "./machine.js";
import { crc32cSlowly } from "./zones.js";

const SIZE_BYTES = 2 * 1024 * 1024;
const PSTORE = { offset: 64 * 1024, kmsgSize: 8192, kmsgCount: 4, abi: "lp64" } as const;
const AREA_OFFSET = 256 * 1024;
const ROOM_BYTES = 4096;
const HEADER_BYTES = 64 + 2 * 56;

interface Opened {
  device: Device;
  areaBytes: number;
  area(): Uint8Array;
  dumps(): CardDump[];
  /** The stored bytes of a dump. */
  bytesOf(dump: CardDump): Uint8Array;
  panic(): NonNullable<ReturnType<Device["panicWrite"]>["dump"]>;
}

function open(
  areaBytes: number,
  dump: Partial<PanicDumpOptions> = {},
  options: DeviceOptions = {},
  target = "release",
): Opened {
  const device = Device.open(coreModule(target), {
    sizeBytes: SIZE_BYTES,
    ...options,
    area: PSTORE,
    dump: {
      class: 64,
      machine: 62,
      sections: false,
      area: { offset: AREA_OFFSET, sizeBytes: areaBytes },
      memoryBytes: 1024 * 1024,
      ...dump,
    },
  });
  const area = () => device.medium().slice(AREA_OFFSET, AREA_OFFSET + areaBytes);
  return {
    device,
    areaBytes,
    area,
    dumps() {
      const bytes = area();
      return decodeDumpArea(bytes, bytes.subarray(dumpBackOffset(areaBytes)), areaBytes);
    },
    bytesOf: ({ dataOffset, storedBytes }) => area().slice(dataOffset, dataOffset + storedBytes),
    panic() {
      const result = device.panicWrite({ text: "log", timeSec: 7n, timeNsec: 9 });
      assert.is(result.status, 0, "the record stands");
      assert.ok(result.dump);
      return result.dump;
    },
  };
}

/** The first `lengthBytes` of the device's dump memory, filled and registered. */
function fill({ device }: Opened, seed: number, lengthBytes: number, name = "ram"): Uint8Array {
  const source = device.dumpMemory.subarray(0, lengthBytes);
  source.set(pattern(seed, lengthBytes));
  device.registerRegion({ name, address: 0x1000n, source });
  return source;
}

/** What CrashDump, which has never seen a card, makes of the same regions. */
function coreOf(regions: Region[], options: Partial<PanicDumpOptions> = {}): Uint8Array {
  const dump = new CrashDump(coreModule("release"), { class: 64, machine: 62, sections: false, ...options });
  for (const region of regions) dump.register(region);
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

test("the area byte by byte: header, core, padding, nothing else", () => {
  const opened = open(32 * 1024);
  const ram = fill(opened, 1, 1000);
  const result = opened.panic();
  const core = coreOf([{ name: "ram", address: 0x1000n, source: ram.slice() }]);
  assert.is(core.length, HEADER_BYTES + 1000);
  const expected = new Uint8Array(32 * 1024);
  const view = new DataView(expected.buffer);
  expected.set(new TextEncoder().encode("MMCPDUMP"));
  view.setUint32(8, 1, true); // version
  view.setUint32(12, 3, true); // complete
  view.setBigUint64(16, 1n, true); // sequence
  view.setBigUint64(24, 32768n, true); // areaBytes
  view.setBigUint64(32, 4096n, true); // dataOffset
  view.setBigUint64(40, BigInt(core.length), true); // lengthBytes
  view.setBigUint64(48, BigInt(core.length), true); // storedBytes
  view.setUint32(56, crc32cSlowly(core), true);
  view.setUint32(68, 9, true); // timeNsec
  view.setBigUint64(80, 1n, true); // recordSequence
  view.setBigInt64(88, 7n, true); // timeSec
  view.setUint32(508, crc32cSlowly(expected.subarray(0, 508)), true);
  expected.set(core, ROOM_BYTES);
  assert.ok(sameBytes(opened.area(), expected));
  assert.is(result.state, "complete");
  assert.is(result.status, 0);
  assert.is(result.storedBytes, core.length);
  assert.is(result.lengthBytes, core.length);
  assert.is(result.offset, ROOM_BYTES);
  // One byte in front of the area or behind it would be somebody else's.
  const medium = opened.device.medium();
  assert.ok(medium.subarray(AREA_OFFSET + 32 * 1024).every((byte) => byte === 0));
});

test("a partial dump and its failed ranges byte by byte, at the back", () => {
  const opened = open(48 * 1024, {}, {}, "embed");
  fill(opened, 1, 1000);
  assert.is(opened.panic().state, "complete");
  const { device } = opened;
  device.registerRegion({ name: "io", address: 0x10000n, size: 5000, source: () => 0 });
  device.registerRegion({ name: "big", address: 0x20000n, source: device.dumpMemory.subarray(0, 40_000) });
  const result = opened.panic();
  assert.is(result.state, "partial");
  assert.is(result.status, -ERRNO.ENOSPC);
  // 12 rooms, two of them headers' and one the first dump's.
  assert.is(result.storedBytes, 9 * ROOM_BYTES);
  const header = opened.area().subarray(dumpBackOffset(opened.areaBytes));
  const view = new DataView(header.buffer, header.byteOffset);
  assert.is(view.getUint32(12, true), 2);
  assert.is(view.getBigUint64(16, true), 2n);
  assert.is(view.getBigUint64(32, true), BigInt(2 * ROOM_BYTES));
  assert.is(view.getBigUint64(48, true), BigInt(9 * ROOM_BYTES));
  assert.is(view.getInt32(60, true), -ERRNO.ENOSPC);
  assert.is(view.getUint32(64, true), 1);
  assert.is(view.getBigUint64(72, true), 5000n);
  assert.is(view.getBigUint64(112, true), BigInt(64 + 4 * 56 + 1000));
  assert.is(view.getBigUint64(120, true), 5000n);
  assert.ok(header.subarray(128, 508).every((byte) => byte === 0));
  const [partial, complete] = opened.dumps();
  assert.ok(partial && complete);
  assert.is(complete.state, "complete");
  const bytes = opened.bytesOf(partial);
  assert.is(crc32cSlowly(bytes), partial.dataCrc);
  assert.ok(bytes.subarray(64 + 4 * 56 + 1000, 64 + 4 * 56 + 6000).every((byte) => byte === 0xff));
});

test("on every kind of card and bus the same bytes", () => {
  const kinds: [string, DeviceOptions][] = [
    ["eMMC, ADMA2", {}],
    ["eMMC, PIO", { dma: false }],
    ["eMMC, cache, flushed", { cacheSectors: 64, reliableWrite: false, cmd23: false }],
    ["eMMC, cache, forced", { cacheSectors: 16, reliableWrite: false }],
    ["eMMC, x1", { busWidth: 1, highSpeed: false, dma: false }],
    ...(["sd", "sdsc"] as const).map((card): [string, DeviceOptions] => [card, { card }]),
    ["SD, CMD12", { card: "sd", cmd23: false }],
    ...(["pio", "sdma"] as const satisfies readonly ControllerKind[]).map(
      (controller): [string, DeviceOptions] => [controller, { controller }],
    ),
  ];
  const source = pattern(3, 150_000);
  const notes = [prStatusNote("x86-64", { pid: 1, registers: [5n] })];
  const core = coreOf([{ name: "ram", address: 0x1000n, source }], { notes, sections: true });
  for (const [name, options] of kinds) {
    const opened = open(512 * 1024, { notes, sections: true }, options);
    fill(opened, 3, source.length);
    assert.is(opened.panic().state, "complete", name);
    const [dump] = opened.dumps();
    assert.ok(dump, name);
    assert.ok(sameBytes(opened.bytesOf(dump), core), name);
    // What is durable needs no power.
    opened.device.powerCut("old", "lost");
    assert.ok(sameBytes(opened.bytesOf(dump), core), `${name}, cut`);
  }
});

test("registers that are known at the crash alone are written into the note", () => {
  const registersAt = (value: bigint) => prStatusNote("x86-64", { pid: 1, registers: [value] });
  const opened = open(64 * 1024, { notes: [registersAt(0n)] });
  fill(opened, 1, 100);
  const [note] = opened.device.dumpNotes;
  assert.ok(note);
  note.set(registersAt(0x1234n).description);
  assert.is(opened.panic().state, "complete");
  const bytes = opened.bytesOf(opened.dumps()[0] as CardDump);
  const [found] = readElfCore(bytesSource(bytes)).notes;
  assert.ok(found);
  const description = bytes.subarray(found.offset, found.offset + found.lengthBytes);
  assert.ok(sameBytes(description, registersAt(0x1234n).description));
  assert.is(
    codeOf(() => Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES }).dumpNotes),
    "EINVAL",
  );
});

test("two dumps alternate, the third takes the place of the first, whatever their sizes", () => {
  const opened = open(64 * 1024);
  let id = 0;
  const sizes = [10_000, 30_000, 9000, 40_000, 500, 51_000, 100];
  for (const [i, size] of sizes.entries()) {
    if (id !== 0) opened.device.unregisterRegion(id);
    const source = opened.device.dumpMemory.subarray(0, size);
    source.set(pattern(i, size));
    id = opened.device.registerRegion({ name: "ram", address: 0n, source });
    const before = opened.dumps().find(({ state }) => state === "complete");
    assert.is(opened.panic().state, "complete", `${i}`);
    const [newest, older] = opened.dumps();
    assert.ok(newest);
    assert.is(newest.sequence, BigInt(i + 1));
    assert.is(newest.slot, i % 2 === 0 ? "front" : "back");
    const core = coreOf([{ name: "ram", address: 0n, source: pattern(i, size) }]);
    assert.ok(sameBytes(opened.bytesOf(newest), core), `${i}`);
    assert.is(older?.sequence, before?.sequence);
    if (older) assert.is(crc32cSlowly(opened.bytesOf(older)), older.dataCrc, `${i}`);
  }
});

test("an area with room for one: first-wins keeps the complete one, ring takes the new one", () => {
  for (const policy of ["first-wins", "ring"] as const) {
    const opened = open(32 * 1024, {}, { policy });
    fill(opened, 1, 20_000);
    assert.is(opened.panic().state, "complete");
    const second = opened.panic();
    const dumps = opened.dumps();
    if (policy === "first-wins") {
      // 24 KiB less the first's 20 KiB.
      assert.is(second.state, "partial");
      assert.is(second.storedBytes, ROOM_BYTES);
      assert.equal(
        dumps.map(({ state, sequence }) => `${state} ${sequence}`),
        ["partial 2", "complete 1"],
      );
    } else {
      assert.is(second.state, "complete");
      assert.equal(
        dumps.map(({ state, sequence }) => `${state} ${sequence}`),
        ["complete 2"],
      );
    }
    for (const dump of dumps) assert.is(crc32cSlowly(opened.bytesOf(dump)), dump.dataCrc);
  }
});

test("no room at all beside a complete dump: nothing is written", () => {
  const opened = open(16 * 1024);
  fill(opened, 1, 8000);
  assert.is(opened.panic().state, "complete");
  const before = opened.area();
  const second = opened.panic();
  assert.is(second.state, "none");
  assert.is(second.status, -ERRNO.ENOSPC);
  assert.ok(sameBytes(opened.area(), before));
});

test("a larger dump than the area: as much as there is room for", () => {
  const opened = open(64 * 1024);
  const ram = fill(opened, 1, 200_000);
  const result = opened.panic();
  assert.is(result.state, "partial");
  assert.is(result.status, -ERRNO.ENOSPC);
  assert.is(result.storedBytes, 56 * 1024);
  const [dump] = opened.dumps();
  assert.ok(dump);
  const core = coreOf([{ name: "ram", address: 0x1000n, source: ram }]);
  assert.ok(sameBytes(opened.bytesOf(dump), core.subarray(0, 56 * 1024)));
  const [, load] = readElfCore(bytesSource(opened.bytesOf(dump))).segments;
  assert.is(load?.presentBytes, 56 * 1024 - HEADER_BYTES);
  // A partial one is no reason to store less the next time: it does not hold the area.
  opened.device.unregisterRegion(1 << 16);
  opened.device.registerRegion({
    name: "less",
    address: 0n,
    source: opened.device.dumpMemory.subarray(0, 40_000),
  });
  assert.is(opened.panic().state, "complete");
});

// ---- regions ----

test("regions outside of the core's memory: asked for at the panic, 0xff by pages where nobody brings them", () => {
  const { device, ...opened } = open(512 * 1024, {}, {}, "embed");
  const live = new Uint8Array(5000);
  const holes = (offset: number, target: Uint8Array) => {
    // Pages 2 and 3 of 20,000 bytes, and all that is read together with them.
    if (offset < 16384 && offset + target.length > 8192) throw new Error("no such memory");
    target.set(pattern(9, 20_000).subarray(offset, offset + target.length));
  };
  device.registerRegion({ name: "bytes", address: 0x1000n, source: live });
  device.registerRegion({ name: "holes", address: 0x10000n, size: 20_000, source: holes });
  device.registerRegion({
    name: "short",
    address: 0x20000n,
    size: 9000,
    source: (offset) => (offset < 100 ? 100 : 0),
  });
  device.registerRegion({ name: "liar", address: 0x30000n, size: 4096, source: () => 1e9 });
  live.set(pattern(4, 5000));
  const result = opened.panic();
  assert.is(result.state, "complete");
  const [dump] = opened.dumps();
  assert.ok(dump);
  const core = readElfCore(bytesSource(opened.bytesOf(dump)));
  const at = (index: number) => {
    const segment = core.segments[index];
    assert.ok(segment);
    return opened.bytesOf(dump).subarray(Number(segment.offset), Number(segment.offset + segment.filesz));
  };
  assert.ok(sameBytes(at(1), live));
  const expected = pattern(9, 20_000);
  expected.fill(0xff, 8192, 16384);
  assert.ok(sameBytes(at(2), expected));
  assert.ok(at(3).every((byte) => byte === 0xff || byte === 0));
  assert.ok(at(4).every((byte) => byte === 0xff));
  const base = core.segments.map(({ offset }) => offset);
  assert.equal(dump.failed, [
    { offset: (base[2] ?? 0n) + 8192n, lengthBytes: 8192n },
    // The end of "short" and "liar" are one range of the file.
    { offset: (base[3] ?? 0n) + 100n, lengthBytes: 8900n + 4096n },
  ]);
  assert.is(dump.failedRanges, 2);
  assert.is(dump.failedBytes, BigInt(8192 + 8900 + 4096));
  assert.is(result.failedRanges, 2);
});

test("a medium elsewhere: the table stands where a medium in memory would, and nothing is mixed up", () => {
  for (const target of ["external", "embed"]) {
    const stored = new Uint8Array(SIZE_BYTES);
    const medium = {
      sizeBytes: SIZE_BYTES,
      read: (offset: number, into: Uint8Array) => into.set(stored.subarray(offset, offset + into.length)),
      write: (offset: number, data: Uint8Array) => stored.set(data, offset),
    };
    const area = { offset: AREA_OFFSET, sizeBytes: 256 * 1024 };
    const device = Device.openExternal(coreModule(target), medium, {
      area: PSTORE,
      dump: { class: 64, machine: 62, sections: false, area, memoryBytes: 1000 },
    });
    device.dumpMemory.set(pattern(6, 1000));
    const elsewhere = pattern(7, 100_000);
    device.registerRegion({ name: "own", address: 0x1000n, source: device.dumpMemory });
    device.registerRegion({ name: "elsewhere", address: 0x100000n, source: elsewhere });
    device.write(0, pattern(8, 4096));
    const { status, dump } = device.panicWrite({ text: "log" });
    assert.is(status, 0);
    assert.is(dump?.state, "complete", target);
    const bytes = stored.subarray(AREA_OFFSET);
    const [found] = decodeDumpArea(bytes, bytes.subarray(dumpBackOffset(area.sizeBytes)), area.sizeBytes);
    assert.ok(found);
    const core = coreOf([
      { name: "own", address: 0x1000n, source: pattern(6, 1000) },
      { name: "elsewhere", address: 0x100000n, source: elsewhere },
    ]);
    assert.ok(
      sameBytes(bytes.subarray(found.dataOffset, found.dataOffset + found.storedBytes), core),
      target,
    );
    assert.ok(sameBytes(device.read(0, 4096), pattern(8, 4096)), target);
    assert.ok(sameBytes(stored.subarray(0, 4096), pattern(8, 4096)), target);
    assert.ok(sameBytes(device.dumpMemory, pattern(6, 1000)), target);
  }
});

test("a state that was saved has the regions", () => {
  const opened = open(64 * 1024);
  fill(opened, 1, 1000);
  const state = opened.device.saveState();
  assert.is(opened.panic().sequence, 1n);
  opened.device.loadState(state);
  assert.equal(opened.dumps(), []);
  assert.is(opened.panic().state, "complete");
});

test("more failed ranges than a header lists are counted", () => {
  const opened = open(512 * 1024, { capacity: 100 }, {}, "embed");
  for (let i = 0; i < 60; i++) {
    const source = i % 2 === 0 ? () => 0 : new Uint8Array(10);
    opened.device.registerRegion({ name: `r${i}`, address: BigInt(i * 100), size: 10, source });
  }
  const result = opened.panic();
  assert.is(result.failedRanges, 30);
  const [dump] = opened.dumps();
  assert.is(dump?.failedRanges, 30);
  assert.is(dump?.failed.length, 24);
  assert.is(dump?.failedBytes, 300n);
});

test("what failed in one panic is not told of the next", () => {
  const opened = open(64 * 1024, {}, {}, "embed");
  opened.device.registerRegion({ name: "io", address: 0n, size: 100, source: () => 0 });
  assert.is(opened.panic().failedRanges, 1);
  assert.is(opened.panic().failedBytes, 100);
  opened.device.injectFault({ kind: "program", firstLba: 0, lastLba: 511 });
  assert.is(opened.device.panicWrite({ text: "log" }).dump?.failedRanges, 0);
});

test("a source that calls the device is refused there, and costs its own bytes alone", () => {
  const opened = open(128 * 1024, {}, {}, "embed");
  const codes: string[] = [];
  opened.device.registerRegion({
    name: "nosy",
    address: 0n,
    size: 100,
    source: () => {
      codes.push(codeOf(() => opened.device.read(0, 512)));
      return 0;
    },
  });
  assert.is(opened.panic().state, "complete");
  assert.ok(codes.length > 0 && codes.every((code) => code === "EBUSY"), `${codes}`);
});

test("what cannot be registered: no dump, remote, no way to ask, and what every table refuses", () => {
  const plain = Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, area: PSTORE });
  const bytes = new Uint8Array(10);
  assert.is(
    codeOf(() => plain.registerRegion({ name: "a", address: 0n, source: plain.medium().subarray(0, 8) })),
    "EINVAL",
  );
  assert.is(
    codeOf(() => plain.unregisterRegion(1)),
    "EINVAL",
  );
  assert.is(plain.panicWrite({ text: "x" }).dump, null);
  const { device } = open(64 * 1024);
  const remote = { remote: async () => 0 };
  assert.is(
    codeOf(() => device.registerRegion({ name: "a", address: 0n, size: 1, source: remote })),
    "EOPNOTSUPP",
  );
  assert.is(
    codeOf(() => device.registerRegion({ name: "a", address: 0n, source: bytes })),
    "EOPNOTSUPP",
  );
  const source = device.dumpMemory.subarray(0, 8);
  device.registerRegion({ name: "a", address: 0n, source });
  assert.is(
    codeOf(() => device.registerRegion({ name: "a", address: 100n, source })),
    "EEXIST",
  );
  assert.is(
    codeOf(() => device.registerRegion({ name: "b c", address: 100n, source })),
    "EINVAL",
  );
  assert.is(
    codeOf(() => device.unregisterRegion(99)),
    "ENOENT",
  );
});

test("areas that are refused: too small, askew, beyond the card, over the pstore area, without one", () => {
  const attempt = (offset: number, sizeBytes: number, area: DeviceOptions["area"] = PSTORE) =>
    codeOf(() =>
      Device.open(coreModule("release"), {
        sizeBytes: SIZE_BYTES,
        area,
        dump: { class: 64, machine: 0, area: { offset, sizeBytes } },
      }),
    );
  assert.is(attempt(AREA_OFFSET, 12288), "none");
  assert.is(attempt(AREA_OFFSET, 12287), "EINVAL");
  assert.is(attempt(AREA_OFFSET, 12288 - 512), "EINVAL");
  assert.is(attempt(AREA_OFFSET + 1, 12288), "EINVAL");
  assert.is(attempt(SIZE_BYTES - 12288, 12288), "none");
  assert.is(attempt(SIZE_BYTES - 12288 + 512, 12288), "EINVAL");
  assert.is(attempt(PSTORE.offset - 12288, 12288), "none");
  assert.is(attempt(PSTORE.offset - 12288, 12288 + 512), "EINVAL");
  assert.is(attempt(PSTORE.offset + 4 * 8192, 12288), "none");
  assert.is(attempt(PSTORE.offset + 4 * 8192 - 512, 12288), "EINVAL");
  assert.is(attempt(0, -1), "EINVAL");
  assert.is(attempt(0, 2 ** 40), "EINVAL");
  const withRings = { ...PSTORE, pmsgSize: 4096 };
  assert.is(attempt(PSTORE.offset - 12288, 12288, withRings), "EINVAL");
  const none = () =>
    Device.open(coreModule("release"), {
      sizeBytes: SIZE_BYTES,
      dump: { class: 64, machine: 0, area: { offset: 0, sizeBytes: 12288 } },
    });
  assert.is(codeOf(none), "EINVAL");
});

test("no region, and a table that somebody has written over: the record stands and nothing is stored", () => {
  const opened = open(64 * 1024);
  assert.is(opened.panic().status, -ERRNO.ENODATA);
  assert.ok(opened.area().every((byte) => byte === 0));
  fill(opened, 1, 100);
  const words = new Uint32Array(opened.device.memory.buffer);
  const saved = words.slice(DUMP_BASE / 4, DUMP_BASE / 4 + 128);
  let refused = 0;
  for (let at = DUMP_STATE; at < DUMP_STATE + 0x58; at += 4) {
    for (const value of [0, 1, 0xffffffff, 0x7fffffff, MEDIUM_BASE - 8, 0x80000000]) {
      words.set(saved, DUMP_BASE / 4);
      words[at / 4] = value;
      // No trap, whatever it says.
      const { state } = opened.panic();
      if (state === "none") refused++;
    }
  }
  assert.ok(refused > 10, `${refused}`);
  words.set(saved, DUMP_BASE / 4);
  assert.is(opened.panic().state, "complete");
  words[DUMP_AREA_SECTORS / 4] = 0xffffffff;
  assert.is(opened.panic().state, "none");
});

test("a plan that is being read is used, and stays", () => {
  const opened = open(64 * 1024);
  fill(opened, 1, 100);
  assert.is(opened.device.core.dumpPlan(), 0);
  assert.is(opened.panic().state, "complete");
  assert.is(
    codeOf(() => opened.device.unregisterRegion(1 << 16)),
    "EBUSY",
  );
  opened.device.core.dumpRelease();
  assert.is(opened.panic().state, "complete");
  opened.device.unregisterRegion(1 << 16);
});

// ---- time ----

test("the deadline: for every length the dump is complete, or partial and true, or not begun", () => {
  const states = new Map<string, number>();
  const core = coreOf([{ name: "ram", address: 0x1000n, source: pattern(1, 300_000) }]);
  for (let deadlineUs = 200; deadlineUs < 60_000; deadlineUs += 379) {
    const opened = open(1024 * 1024, {}, { deadlineUs, compress: false });
    fill(opened, 1, 300_000);
    const { device } = opened;
    const result = device.panicWrite({ text: "log", timeSec: 7n });
    const { dump } = result;
    assert.ok(dump);
    assert.ok(result.endNs - result.startNs <= BigInt(deadlineUs) * 1000n, `${deadlineUs}`);
    if (result.status !== 0) {
      assert.is(dump.state, "none");
      continue;
    }
    states.set(dump.state, (states.get(dump.state) ?? 0) + 1);
    if (dump.state !== "complete") assert.is(dump.status, -ERRNO.ETIMEDOUT);
    const [found] = opened.dumps();
    if (dump.state === "none") {
      assert.is(found, undefined);
      continue;
    }
    assert.is(found?.state, dump.state);
    if (found === undefined) continue;
    assert.ok(sameBytes(opened.bytesOf(found), core.subarray(0, found.storedBytes)));
    assert.is(crc32cSlowly(opened.bytesOf(found)), found.dataCrc);
  }
  // On a card that is as fast as it was, there is always time left for the last header.
  assert.equal([...states.keys()].sort(), ["complete", "none", "partial"]);
});

test("a card that becomes slow: what the header says is there, and a dump that was kept stays", () => {
  for (let skip = 0; skip < 12; skip++) {
    const opened = open(1024 * 1024, {}, { deadlineUs: 400_000, compress: false });
    fill(opened, 1, 300_000);
    assert.is(opened.panic().state, "complete");
    const first = opened.bytesOf(opened.dumps()[0] as CardDump);
    opened.device.injectFault({
      kind: "long-busy",
      firstLba: AREA_OFFSET / 512,
      skip: skip * 100,
      delayUs: 200_000,
    });
    const result = opened.panic();
    const dumps = opened.dumps();
    const kept = dumps.find(({ sequence }) => sequence === 1n);
    assert.ok(kept && sameBytes(opened.bytesOf(kept), first), `${skip}`);
    const fresh = dumps.find(({ sequence }) => sequence === 2n);
    assert.is(fresh?.state ?? "none", result.state === "begun" ? "torn" : result.state, `${skip}`);
    if (fresh)
      assert.is(crc32cSlowly(opened.bytesOf(fresh)), fresh.storedBytes > 0 ? fresh.dataCrc : 0, `${skip}`);
  }
});

// ---- faults ----

const FRONT_LBA = AREA_OFFSET / SECTOR_BYTES;
const FRONT_DATA_LBA = FRONT_LBA + ROOM_BYTES / SECTOR_BYTES;

/** A complete dump at the back, sequence 2, and one that goes to the front. */
function behindTwo(options: DeviceOptions = {}): { opened: Opened; kept: Uint8Array } {
  const opened = open(1024 * 1024, {}, { compress: false, ...options });
  fill(opened, 1, 300_000);
  assert.is(opened.panic().state, "complete");
  assert.is(opened.panic().state, "complete");
  const [second] = opened.dumps();
  assert.is(second?.slot, "back");
  return { opened, kept: opened.bytesOf(second as CardDump) };
}

test("faults that pass: the dump is complete all the same", () => {
  const core = coreOf([{ name: "ram", address: 0x1000n, source: pattern(1, 300_000) }]);
  const faults: [string, FaultPlan][] = [
    ["CRC of a block", { kind: "write-crc", firstLba: FRONT_DATA_LBA + 200, times: 1 }],
    ["CRC of the first block", { kind: "write-crc", firstLba: FRONT_DATA_LBA, times: 1 }],
    ["CRC of a header", { kind: "write-crc", firstLba: FRONT_LBA, lastLba: FRONT_LBA, times: 1 }],
    [
      "CRC of the last header",
      { kind: "write-crc", firstLba: FRONT_LBA, lastLba: FRONT_LBA, skip: 1, times: 1 },
    ],
    ["a sector refused once", { kind: "program", firstLba: FRONT_DATA_LBA + 300, times: 1 }],
    ["reading a header", { kind: "read-crc", firstLba: FRONT_LBA, lastLba: FRONT_LBA, times: 1 }],
    ["no answer to CMD25", { kind: "no-response", command: 25, skip: 6, times: 1 }],
    ["stuck until HPI", { kind: "stuck-busy", firstLba: FRONT_DATA_LBA + 200, times: 1, until: "hpi" }],
  ];
  for (const [name, fault] of faults) {
    const { opened, kept } = behindTwo();
    opened.device.injectFault(fault);
    const result = opened.panic();
    assert.is(result.state, "complete", `${name}: ${result.status}`);
    const [fresh, older] = opened.dumps();
    assert.ok(fresh && older);
    assert.ok(sameBytes(opened.bytesOf(fresh), core), name);
    assert.ok(sameBytes(opened.bytesOf(older), kept), name);
  }
});

test("faults that stay: partial with what is durable, or torn, and the kept dump is whole", () => {
  const bad = FRONT_DATA_LBA + 300;
  const faults: [string, FaultPlan, string, number][] = [
    ["a bad sector", { kind: "program", firstLba: bad, lastLba: bad }, "partial", ERRNO.EIO],
    ["the first one bad", { kind: "program", firstLba: FRONT_DATA_LBA, lastLba: bad }, "partial", ERRNO.EIO],
    ["CRC errors for ever", { kind: "write-crc", firstLba: bad }, "partial", ERRNO.EILSEQ],
    ["a bad header", { kind: "program", firstLba: FRONT_LBA, lastLba: FRONT_LBA }, "begun", ERRNO.EIO],
    [
      "the last header bad",
      { kind: "program", firstLba: FRONT_LBA, lastLba: FRONT_LBA, skip: 1 },
      "begun",
      ERRNO.EIO,
    ],
    ["the card is taken out", { kind: "pulled", command: 25, skip: 8 }, "begun", ERRNO.ENOMEDIUM],
  ];
  for (const [name, fault, state, code] of faults) {
    const { opened, kept } = behindTwo();
    opened.device.injectFault(fault);
    const result = opened.panic();
    assert.is(`${result.state} ${result.status}`, `${state} ${-code}`, name);
    const dumps = opened.dumps();
    const older = dumps.find(({ sequence }) => sequence === 2n);
    assert.ok(older && sameBytes(opened.bytesOf(older), kept), name);
    const fresh = dumps.find(({ sequence }) => sequence === 3n);
    if (state === "partial") {
      assert.is(fresh?.state, "partial", name);
      assert.is(fresh?.status, -code, name);
      // Whole pieces in front of the bad sector: 4 KiB, then 64 KiB each.
      assert.is(fresh?.storedBytes, fault.firstLba === bad ? 4096 + 2 * 65536 : 0, name);
      assert.is(
        crc32cSlowly(opened.bytesOf(fresh as CardDump)),
        fresh?.storedBytes ? fresh.dataCrc : 0,
        name,
      );
    } else {
      assert.ok(fresh === undefined || fresh.state === "torn", name);
    }
  }
});

test("a write that the card swallows: the header is read back", () => {
  const { opened, kept } = behindTwo();
  opened.device.injectFault({
    kind: "phantom-write",
    firstLba: FRONT_LBA,
    lastLba: FRONT_LBA,
    skip: 1,
    times: 1,
  });
  const result = opened.panic();
  assert.is(result.state, "begun");
  assert.is(result.status, -ERRNO.EIO);
  const dumps = opened.dumps();
  assert.equal(
    dumps.map(({ state, sequence }) => `${state} ${sequence}`),
    ["torn 3", "complete 2"],
  );
  assert.ok(sameBytes(opened.bytesOf(dumps[1] as CardDump), kept));
});

test("a record that cannot be written has no dump", () => {
  const opened = open(64 * 1024);
  fill(opened, 1, 100);
  opened.device.injectFault({ kind: "program", firstLba: 0, lastLba: 511 });
  const result = opened.device.panicWrite({ text: "log" });
  assert.ok(result.status < 0);
  assert.is(result.dump?.state, "none");
  assert.is(result.dump?.storedBytes, 0);
  // And not the one before it either.
  opened.device.clearFaults();
  opened.device.powerCut();
  opened.device.powerOn();
  assert.is(opened.panic().state, "complete");
  opened.device.injectFault({ kind: "program", firstLba: 0, lastLba: 511 });
  assert.is(opened.device.panicWrite({ text: "log" }).dump?.state, "none");
});

test("headers that lie are no dumps to the core: what they claim is written over, and nothing else", () => {
  const opened = open(64 * 1024);
  fill(opened, 1, 1000);
  assert.is(opened.panic().state, "complete");
  const good = opened.area().slice(0, 512);
  const u64 = (at: number, value: bigint) => (view: DataView) => view.setBigUint64(at, value, true);
  const lies: ((view: DataView) => void)[] = [
    u64(0, 0n),
    (view) => view.setUint32(8, 2, true),
    (view) => view.setUint32(12, 4, true),
    u64(24, 32768n),
    u64(32, 8192n),
    u64(32, 0n),
    u64(40, 5n),
    u64(48, 2n ** 63n),
    u64(48, 60_000n),
  ];
  for (const [i, lie] of lies.entries()) {
    const header = good.slice();
    const view = new DataView(header.buffer);
    lie(view);
    view.setUint32(508, crc32cSlowly(header.subarray(0, 508)), true);
    opened.device.write(AREA_OFFSET, header);
    opened.device.write(AREA_OFFSET + 64 * 1024 - 4096, new Uint8Array(512));
    assert.is(opened.panic().offset, ROOM_BYTES, `lie ${i}`);
    assert.equal(
      opened.dumps().map(({ state, slot }) => `${state} ${slot}`),
      ["complete front"],
      `lie ${i}`,
    );
  }
});

test("a panic behind the dump still finds counters and rings as before", () => {
  const opened = open(64 * 1024);
  fill(opened, 1, 1000);
  for (let i = 1; i <= 5; i++) assert.is(opened.panic().sequence, BigInt(i));
  const bytes = opened.device.medium().slice(PSTORE.offset, PSTORE.offset + 4 * 8192);
  const { records } = decodeArea(bytes, {
    kmsgSize: 8192,
    pmsgSize: 0,
    consoleSize: 0,
    ftraceSize: 0,
    abi: "lp64",
  });
  assert.is(records.filter(({ state }) => state === "ok").length, 4);
  assert.is(
    opened.dumps()[0]?.recordSequence,
    records.reduce((max, { sequence }) => ((sequence ?? 0n) > max ? (sequence ?? 0n) : max), 0n),
  );
});

test.run();
