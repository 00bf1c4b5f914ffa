// Where an eMMC's commands reach: byte addresses and their misalignment, partitions as address spaces of their own,
// and write protection of groups, boot partitions and the whole card (mmc.md §1.4, §1.8, §2.5).
import { test } from "uvu";
import * as assert from "uvu/assert";
import { MEDIUM_BASE } from "../assembly/layout.js";
import { Device } from "../host/device.js";
import { Bus, type BusOptions, coreModule, hex, INT, note, pattern, R1, same, stateOf } from "./bus.js";

const GROUP = 16384; // sectors of a write protection group, 8 MiB

function opened(options: BusOptions = {}): Bus {
  return new Bus({ sectors: 2048, ...options }).open();
}

function switched(bus: Bus, index: number, value: number): void {
  assert.is(bus.switchByte(index, value) & R1.switchError, 0, `EXT_CSD[${index}] = ${value}`);
}

// ---- byte addresses ----

test("byte addresses: blocks land where sectors would, CMD17, 18, 24, 25 and erase", () => {
  const bus = opened({ emmc: { byteAddressed: true } });
  for (const [lba, blocks] of [
    [0, 1],
    [1, 1],
    [7, 3],
    [2040, 8],
  ] as const) {
    const data = pattern(blocks, lba + 1);
    assert.is(bus.writeBlocks(lba, data, { count23: blocks > 1 }).errors, 0);
    bus.awaitTran();
    for (let i = 0; i < blocks; i++)
      same(bus.stored(lba + i), data.subarray(i * 512, i * 512 + 512), `${lba}`);
    same(bus.readBlocks(lba, blocks, { count23: blocks > 1 }).data, data, `${lba}: read`);
  }
  bus.must(35, 7 * 512);
  bus.must(36, 8 * 512);
  bus.must(38, 1, "r1b");
  bus.awaitTran();
  assert.is(
    bus.stored(8).every((byte) => byte === 0),
    true,
    "erased",
  );
  same(bus.stored(9), pattern(3, 8).subarray(1024), "behind the erased ones");
});

test("byte addresses: ADDRESS_ERROR inside a sector, OUT_OF_RANGE beyond the end, no data, tran", () => {
  let cases = 0;
  const fresh = opened({ emmc: { byteAddressed: true } });
  const end = 2048 * 512;
  for (const index of [17, 18, 24, 25, 28, 29, 30, 31, 35, 36]) {
    // Erase and write protection do not look at what is below a group (or, for trim, a block).
    const ignores = index >= 28 ? R1.addressError : 0;
    for (const [argument, told] of [
      [0, 0],
      [end - 512, 0],
      [1, R1.addressError],
      [256, R1.addressError],
      [511, R1.addressError],
      [end - 1, R1.addressError],
      [end, R1.outOfRange],
      [end + 1, R1.outOfRange | R1.addressError],
      [0xffffffff, R1.outOfRange | R1.addressError],
    ] as const) {
      const bits = told & ~ignores;
      if (bits === 0 && index === 36) continue; // the order, which is another test's
      const bus = opened({ emmc: { byteAddressed: true } });
      const { r1 } = bus.must(index, argument, index === 28 || index === 29 ? "r1b" : "r1");
      assert.is((r1 & (R1.addressError | R1.outOfRange)) >>> 0, bits >>> 0, `CMD${index} ${hex(argument)}`);
      if (bits !== 0) {
        assert.is(bus.state, "tran", `CMD${index} ${hex(argument)}`);
        assert.is((bus.status() & (R1.addressError | R1.outOfRange)) >>> 0, 0, "told once");
      }
      cases++;
    }
  }
  assert.is(fresh.state, "tran");
  note(`${cases} cases of byte addresses`);
});

test("byte addresses: CMD16 takes 512 alone", () => {
  const bus = opened({ emmc: { byteAddressed: true } });
  for (const [bytes, error] of [
    [512, 0],
    [1, R1.blockLength],
    [256, R1.blockLength],
    [1024, R1.blockLength],
  ] as const) {
    assert.is(bus.must(16, bytes).r1 & R1.blockLength, error, `${bytes}`);
  }
  assert.is(bus.readBlocks(1, 1).errors, 0);
});

test("Device by bytes: data, erase, flush; the stored bytes are where they belong", () => {
  for (const sizeBytes of [512 * 1024, 7 * 512 * 1024, 1 << 26]) {
    const device = Device.open(coreModule("release"), { sizeBytes, addressing: "byte" });
    const data = pattern(130, 3);
    for (const offset of [0, 512 * 33, sizeBytes - data.length]) {
      device.write(offset, data);
      same(device.read(offset, data.length), data, `${offset}`);
      same(device.medium().slice(offset, offset + data.length), data, `${offset}: stored`);
    }
    device.erase(sizeBytes - 1024, 512);
    assert.is(device.medium()[sizeBytes - 1023], 0);
    same(device.read(sizeBytes - 512, 512), data.subarray(-512), "behind the erased sector");
  }
});

test("Device: up to 2 GiB an eMMC counts bytes, above sectors, as Linux takes for granted; unless told", () => {
  // C_SIZE is all ones in a card that counts sectors.
  const sectorsIn = (csd: Uint8Array) =>
    (((csd[6] ?? 0) & 3) << 10) + ((csd[7] ?? 0) << 2) + ((csd[8] ?? 0) >> 6) === 0xfff;
  for (const [sizeBytes, addressing, bySectors] of [
    [2 ** 20, undefined, false],
    [2 ** 31, undefined, false],
    [2 ** 31 + 512 * 1024, undefined, true],
    [2 ** 33, undefined, true],
    [2 ** 20, "sector", true],
  ] as const) {
    const stored = new Map<number, Uint8Array>();
    const medium = {
      sizeBytes,
      read: (offset: number, target: Uint8Array) => {
        target.set(stored.get(offset) ?? new Uint8Array(target.length));
      },
      write: (offset: number, data: Uint8Array) => void stored.set(offset, data.slice()),
    };
    const r3: number[] = [];
    const device = Device.openExternal(coreModule("external"), medium, {
      addressing,
      onTrace: (events) => {
        for (const event of events)
          if (event.kind === "response" && event.index === 1) r3.push(event.words[0] ?? 0);
      },
    });
    const what = `${sizeBytes} bytes, ${addressing}`;
    assert.is(((r3.at(-1) ?? 0) & (1 << 30)) !== 0, bySectors, `${what}: OCR`);
    // 2 GiB exactly is C_SIZE 0xfff too, with blocks of 1024 bytes.
    if (sizeBytes !== 2 ** 31) assert.is(sectorsIn(device.registers().csd), bySectors, `${what}: CSD`);
    const last = pattern(1, 5);
    device.write(sizeBytes - 512, last);
    device.flush();
    same(stored.get(sizeBytes - 512) ?? new Uint8Array(), last, what);
  }
});

test("Device: options that cannot be are EINVAL", () => {
  const base = { sizeBytes: 512 * 1024 };
  for (const options of [
    { addressing: "bits" as "byte" },
    { addressing: "byte" as const, sizeBytes: 2 ** 31 + 512 * 1024 },
    { deviceType: 256 },
    { deviceType: -1 },
    { gpBytes: [4096] },
    { gpBytes: [0, 0, 0, 0, 0] },
    { background: { sectorsPerLevel: -1, levelNs: 0 } },
    { background: { sectorsPerLevel: 1, levelNs: 2 ** 32 } },
  ]) {
    assert.throws(
      () => Device.open(coreModule("release"), { ...base, ...options }),
      (error: { code?: string }) => error.code === "EINVAL",
      JSON.stringify(options),
    );
  }
});

// ---- partitions ----

test("partitions: user, boot and general purpose ones are separate, each with its own end", () => {
  const gpSectors = [GROUP, 0, 2 * GROUP, GROUP];
  const bus = opened({ bootSectors: 256, emmc: { gpSectors } });
  const sizes = [2048, 256, 256, 0, ...gpSectors];
  const there = [0, 1, 2, 4, 6, 7];
  for (const partition of there) {
    switched(bus, 179, partition);
    assert.is(bus.writeBlocks(5, pattern(1, partition + 1)).errors, 0);
    assert.is(bus.writeBlocks((sizes[partition] ?? 0) - 1, pattern(1, partition + 11)).errors, 0);
  }
  for (const partition of there) {
    switched(bus, 179, partition);
    const last = (sizes[partition] ?? 0) - 1;
    same(bus.readBlocks(5, 1).data, pattern(1, partition + 1), `partition ${partition}`);
    same(bus.stored(5, partition), pattern(1, partition + 1), `partition ${partition}: stored`);
    same(bus.stored(last, partition), pattern(1, partition + 11), `partition ${partition}: last sector`);
    assert.is(bus.readBlocks(last, 1).errors, 0);
    for (const index of [17, 24, 35]) {
      assert.is(
        (bus.must(index, last + 1).r1 & R1.outOfRange) >>> 0,
        R1.outOfRange,
        `${partition}: CMD${index}`,
      );
    }
    // Nothing of it is anywhere else.
    bus.must(35, 5);
    bus.must(36, 5);
    bus.must(38, 1, "r1b");
    bus.awaitTran();
    for (const other of there) {
      const isErased = bus.stored(5, other).every((byte) => byte === 0);
      assert.is(isErased, there.indexOf(other) <= there.indexOf(partition), `${partition} erased, ${other}`);
    }
  }
  for (const partition of [3, 5]) {
    assert.is(
      bus.switchByte(179, partition) & R1.switchError,
      R1.switchError,
      `partition ${partition} is not there`,
    );
  }
  const ext = bus.extCsd();
  assert.equal(
    [...ext.subarray(143, 157)],
    [1, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 1, 0],
    "GP_SIZE_MULT, completed",
  );
  assert.is(ext[160], 1, "PARTITIONING_SUPPORT");
  for (const index of [143, 155, 156]) {
    assert.is(
      bus.switchByte(index, 1) & R1.switchError,
      R1.switchError,
      `EXT_CSD[${index}]: partitioned already`,
    );
  }
});

test("partitions: a cached sector belongs to the partition it was written to", () => {
  const bus = opened({ bootSectors: 256, cacheSectors: 8, emmc: { gpSectors: [GROUP] } });
  switched(bus, 33, 1);
  for (const partition of [0, 1, 2, 4]) {
    switched(bus, 179, partition);
    assert.is(bus.writeBlocks(9, pattern(1, partition + 20)).errors, 0);
    bus.awaitTran();
  }
  switched(bus, 32, 1);
  for (const partition of [0, 1, 2, 4])
    same(bus.stored(9, partition), pattern(1, partition + 20), `${partition}`);
});

test("Device with GP partitions: the user area is what it was, and a panic selects it", () => {
  const device = Device.open(coreModule("release"), {
    sizeBytes: 1 << 20,
    gpBytes: [8 << 20],
    area: { offset: 512 * 1024, kmsgSize: 65536, kmsgCount: 4, abi: "lp64" },
  });
  device.core.blockCommand(6, 0x03b30401, 0x1a);
  device.core.idleNs(100_000_000);
  assert.is(device.panicWrite({ text: "in the wrong partition" }).status, 0);
  const gp = new Uint8Array(device.memory.buffer, MEDIUM_BASE + (1 << 20), 8 << 20);
  assert.is(
    gp.every((byte) => byte === 0),
    true,
    "nothing went into the GP partition",
  );
  assert.is(
    device
      .medium()
      .subarray(512 * 1024)
      .some((byte) => byte !== 0),
    true,
  );
});

// ---- write protection ----

/** CMD31: how the first `count` groups from an address are protected. */
function types(bus: Bus, lba: number, count: number): number[] {
  const bytes = bus.register(31, bus.address(lba), 8);
  const low = new DataView(bytes.buffer).getBigUint64(0, false);
  const mask = bus.register(30, bus.address(lba), 4);
  const all = Array.from({ length: 32 }, (_, i) => Number((low >> BigInt(2 * i)) & 3n));
  const flags = new DataView(mask.buffer).getUint32(0, false);
  assert.equal(
    all.map((type) => type !== 0),
    all.map((_, i) => ((flags >>> i) & 1) === 1),
    "CMD30 and CMD31",
  );
  assert.is(
    all.slice(count).every((type) => type === 0),
    true,
    "groups that are not asked for",
  );
  return all.slice(0, count);
}

function protect(bus: Bus, index: 28 | 29, lba: number): number {
  const { r1 } = bus.must(index, bus.address(lba), "r1b");
  bus.awaitBusy();
  return r1;
}

/** Whether a single and a multiple write at `lba` go through; both must agree, and so must the medium. */
function isWritable(bus: Bus, lba: number, partition = 0): boolean {
  const before = bus.stored(lba, partition);
  const data = pattern(1, before[0] === 77 ? 5 : 77);
  const single = bus.writeBlocks(lba, data);
  assert.is(single.errors, 0, "the bus knows nothing of protection");
  const told = single.reply.r1 & R1.writeProtected;
  assert.is(bus.awaitTran() & R1.writeProtected, told, "told at the command, and again for the block");
  assert.is(bus.status() & R1.writeProtected, 0, "and no more");
  same(bus.stored(lba, partition), told === 0 ? data : before, `sector ${lba}`);
  bus.preset(lba, before, partition);
  const { r1 } = bus.must(25, bus.address(lba), "r1", { read: false, blocks: 2, mode: 0x22 });
  assert.is(r1 & R1.writeProtected, told, `sector ${lba}: CMD25`);
  bus.pioWrite(data);
  bus.idle(20_000_000);
  assert.is(bus.state, "rcv", "a multiple waits for CMD12");
  bus.resetLines();
  bus.must(12, 0, "r1b");
  bus.awaitTran();
  same(bus.stored(lba, partition), told === 0 ? data : before, `sector ${lba}: CMD25`);
  bus.preset(lba, before, partition);
  return told === 0;
}

const KINDS = [
  ["temporary", 0x00, 1],
  ["power-on", 0x01, 2],
  ["permanent", 0x04, 3],
] as const;

test("groups × kinds of protection × resets: set, told, kept, cleared, by sectors and by bytes", () => {
  let cases = 0;
  for (const byteAddressed of [false, true]) {
    for (const [name, rule, type] of KINDS) {
      for (const reset of ["nothing", "CMD0", "power cycle", "RST_n"] as const) {
        const bus = opened({ sectors: 3 * GROUP + 1024, emmc: { byteAddressed } });
        switched(bus, 162, 1);
        switched(bus, 171, rule);
        assert.equal(types(bus, 0, 4), [0, 0, 0, 0]);
        assert.is(protect(bus, 28, GROUP + 77) & R1.writeProtected, 0);
        assert.equal(types(bus, 0, 4), [0, type, 0, 0], name);
        assert.equal(types(bus, GROUP * 2 - 1, 3), [type, 0, 0], "from the second group on");
        if (reset === "CMD0") bus.identify();
        if (reset === "power cycle") {
          bus.powerDown();
          bus.open();
        }
        if (reset === "RST_n") {
          bus.core.machineReset();
          bus.setClock(400);
          bus.identify();
        }
        const gone = type === 2 && (reset === "power cycle" || reset === "RST_n");
        const left = gone ? 0 : type;
        assert.equal(types(bus, 0, 4), [0, left, 0, 0], `${name} after ${reset}`);
        const writable = [0, GROUP - 1, GROUP, 2 * GROUP - 2, 2 * GROUP].map((lba) => isWritable(bus, lba));
        assert.equal(writable, [true, true, gone, gone, true], `${name} after ${reset}`);
        const cleared = protect(bus, 29, GROUP);
        assert.is(cleared & R1.writeProtected, left > 1 ? R1.writeProtected : 0, `${name}: CMD29`);
        assert.equal(types(bus, 0, 4), [0, left > 1 ? left : 0, 0, 0], `${name}: after CMD29`);
        cases++;
      }
    }
  }
  note(`${cases} cases of protection × resets`);
});

test("a stronger protection stays, a weaker one gives way", () => {
  for (const [, firstRule, first] of KINDS) {
    for (const [, secondRule, second] of KINDS) {
      const bus = opened({ sectors: GROUP });
      switched(bus, 171, firstRule);
      protect(bus, 28, 0);
      bus.switchByte(171, 0);
      switched(bus, 171, secondRule);
      protect(bus, 28, 0);
      assert.equal(types(bus, 0, 1), [Math.max(first, second)]);
    }
  }
});

test("a multiple that runs into a protected group: what is before lands, bit 26, CMD12", () => {
  const bus = opened({ sectors: 2 * GROUP });
  protect(bus, 28, GROUP);
  bus.must(23, 4);
  bus.must(25, GROUP - 2, "r1", { read: false, blocks: 4 });
  assert.is(bus.pioWrite(pattern(4, 4)), 0);
  const status = bus.awaitStatus(INT.transfer);
  bus.resetLines();
  assert.is(status & INT.dataTimeout, INT.dataTimeout, "nobody listens any more");
  const told = bus.must(12, 0, "r1b").r1 | bus.awaitTran();
  assert.is(told & R1.writeProtected, R1.writeProtected);
  same(bus.stored(GROUP - 1), pattern(4, 4).subarray(512, 1024), "before the group");
  assert.is(
    bus.stored(GROUP).every((byte) => byte === 0),
    true,
    "in the group",
  );
});

test("erase skips protected groups, says so once, and erases the rest; trim and discard likewise", () => {
  let cases = 0;
  for (const argument of [0, 1, 3]) {
    for (const [first, last, skips] of [
      [0, GROUP - 1, false],
      [GROUP, GROUP, true],
      [GROUP - 1024, 3 * GROUP - 1, true],
      [2 * GROUP, 3 * GROUP - 1, false],
    ] as const) {
      const bus = opened({ sectors: 3 * GROUP });
      const lbas = [0, GROUP - 1024, GROUP - 1, GROUP, 2 * GROUP - 1, 2 * GROUP, 3 * GROUP - 1];
      for (const lba of lbas) bus.preset(lba, pattern(1, 6));
      protect(bus, 28, GROUP);
      bus.must(35, first);
      bus.must(36, last);
      bus.must(38, argument, "r1b");
      assert.is(bus.awaitTran() & R1.eraseSkip, skips ? R1.eraseSkip : 0, `${first} … ${last}`);
      assert.is(bus.status() & R1.eraseSkip, 0, "told once");
      for (const lba of lbas) {
        const isProtected = lba >= GROUP && lba < 2 * GROUP;
        const isErased = bus.stored(lba).every((byte) => byte === 0);
        assert.is(isErased, lba >= first && lba <= last && !isProtected, `${first} … ${last}: ${lba}`);
      }
      cases++;
    }
  }
  note(`${cases} cases of erase over protected groups`);
});

test("a cached sector of a group that was protected later is not lost to an erase that skips it", () => {
  const bus = opened({ sectors: 2 * GROUP, cacheSectors: 4 });
  switched(bus, 33, 1);
  for (const lba of [5, GROUP + 5]) {
    bus.writeBlocks(lba, pattern(1, 9));
    bus.awaitTran();
  }
  protect(bus, 28, GROUP);
  bus.must(35, 0);
  bus.must(36, 2 * GROUP - 1);
  bus.must(38, 1, "r1b");
  bus.awaitTran();
  switched(bus, 32, 1);
  assert.is(
    bus.stored(5).every((byte) => byte === 0),
    true,
    "erased",
  );
  same(bus.stored(GROUP + 5), pattern(1, 9), "protected");
});

test("GP partitions have groups of their own", () => {
  const bus = opened({ sectors: GROUP + 512, emmc: { gpSectors: [GROUP, 2 * GROUP] } });
  switched(bus, 179, 5);
  protect(bus, 28, GROUP);
  assert.equal(types(bus, 0, 2), [0, 1]);
  assert.equal(
    [0, GROUP].map((lba) => isWritable(bus, lba, 5)),
    [true, false],
  );
  for (const partition of [0, 4]) {
    switched(bus, 179, partition);
    assert.equal(types(bus, 0, 2), [0, 0], `partition ${partition}`);
    assert.is(isWritable(bus, 0, partition), true, `partition ${partition}`);
  }
});

test("BOOT_WP: every value: which boot partition is protected, how, and until when", () => {
  let cases = 0;
  for (let value = 0; value < 256; value++) {
    const bus = opened({ bootSectors: 256 });
    if ((bus.switchByte(173, value) & R1.switchError) !== 0) continue;
    const concerns = (selector: number, partition: number) =>
      (value & 0x80) === 0 || ((value & selector) !== 0) === (partition === 2);
    const expected = [1, 2].map((partition) => {
      if ((value & 0x04) !== 0 && concerns(0x08, partition)) return 3;
      return (value & 0x01) !== 0 && concerns(0x02, partition) ? 2 : 0;
    });
    const status = bus.extCsd()[174] ?? 0;
    const told = [status & 3, (status >> 2) & 3];
    assert.equal(
      told,
      expected.map((type) => Math.max(0, type - 1)),
      `BOOT_WP_STATUS of ${hex(value)}`,
    );
    for (const partition of [1, 2]) {
      switched(bus, 179, partition);
      assert.equal(types(bus, 0, 1), [expected[partition - 1]], `${hex(value)}: boot ${partition}`);
      assert.is(
        isWritable(bus, 3, partition),
        expected[partition - 1] === 0,
        `${hex(value)}: boot ${partition}`,
      );
      assert.is(bus.must(28, 0, "r1b").r1 & R1.error, R1.error, "CMD28 is not for boot partitions");
      cases++;
    }
    switched(bus, 179, 0);
    assert.is(isWritable(bus, 3), true, "the user area is not concerned");
    bus.cutAndReopen(0, 0);
    const later = bus.extCsd()[174] ?? 0;
    // Without the power-on bits that chose one of them, what is permanent is so for both.
    assert.is(later, (value & 0x04) !== 0 ? 0b1010 : 0, `${hex(value)} after a power cut`);
  }
  note(`${cases} cases of BOOT_WP`);
});

test("BOOT_CONFIG_PROT: boot bits of PARTITION_CONFIG and BOOT_BUS_CONDITIONS are fixed, access is not", () => {
  for (const value of [0x01, 0x10]) {
    const bus = opened({ bootSectors: 256 });
    switched(bus, 179, 0x48);
    switched(bus, 178, value);
    assert.is(bus.switchByte(179, 0x50) & R1.switchError, R1.switchError);
    assert.is(bus.switchByte(177, 2) & R1.switchError, R1.switchError);
    switched(bus, 179, 0x49);
    bus.cutAndReopen(0, 0);
    const isOpen = value === 0x01;
    assert.is(bus.switchByte(179, 0x50) & R1.switchError, isOpen ? 0 : R1.switchError, "after power");
  }
});

test("CSD: TMP and PERM_WRITE_PROTECT close the whole card, boot partitions too", () => {
  for (const [bit, type] of [
    [12, 1],
    [13, 3],
  ] as const) {
    const bus = opened({ bootSectors: 256 });
    bus.send(7, 0, "none");
    const { words } = bus.must(9, bus.rca << 16, "r2");
    bus.must(7, bus.rca << 16, "r1b");
    bus.awaitBusy();
    const csd = new Uint8Array(16);
    for (let i = 0; i < 15; i++) csd[i] = ((words[(14 - i) >> 2] ?? 0) >>> (((14 - i) & 3) * 8)) & 0xff;
    const program = (set: boolean) => {
      csd[14] = ((csd[14] ?? 0) & ~0x30) | (set ? 1 << (bit - 8) : 0);
      bus.must(27, 0, "r1", { read: false, blocks: 1, blockBytes: 16 });
      assert.is(bus.pioWrite(csd, 16), 0);
      bus.awaitStatus(INT.transfer);
      return bus.awaitTran() & R1.overwrite;
    };
    assert.is(program(true), 0);
    for (const partition of [0, 1, 2]) {
      switched(bus, 179, partition);
      assert.equal(types(bus, 0, 1), [type]);
      assert.is(isWritable(bus, 2, partition), false, `bit ${bit}, partition ${partition}`);
    }
    switched(bus, 179, 0);
    assert.is(program(false), bit === 13 ? R1.overwrite : 0);
    assert.is(isWritable(bus, 2), bit === 12);
  }
});

test("protection of an eMMC is none of an SD card's business", () => {
  const bus = new Bus({ card: "sd", sectors: 1024 }).open();
  bus.must(32, 0);
  bus.must(33, 3);
  bus.must(38, 0, "r1b");
  assert.is(bus.awaitTran() & R1.eraseSkip, 0);
  assert.is(stateOf(bus.status()), "tran");
});

test("a panic on a protected area says -EIO in no time and leaves it as it was; beside it nothing changes", () => {
  for (const addressing of ["sector", "byte"] as const) {
    for (const dma of [false, true]) {
      const device = Device.open(coreModule("release"), {
        sizeBytes: 16 << 20,
        addressing,
        dma,
        area: { offset: 7 << 20, kmsgSize: 1 << 19, kmsgCount: 4, abi: "lp64" },
      });
      const before = device.medium().slice();
      for (const group of [0, 1]) {
        device.core.blockCommand(28, group * (addressing === "byte" ? 8 << 20 : GROUP), 0x1a);
        device.core.idleNs(100_000_000);
      }
      const start = device.state().timeNs;
      assert.is(device.panicWrite({ text: "nobody will read this" }).status, -5);
      assert.is(device.state().timeNs - start < 100_000_000n, true, "no timeout was waited for");
      same(device.medium().slice(), before, "the medium");
      // The second group open again: the two zones there are enough.
      device.core.blockCommand(29, addressing === "byte" ? 8 << 20 : GROUP, 0x1a);
      device.core.idleNs(100_000_000);
      device.powerCut();
      device.powerOn();
      assert.is(device.panicWrite({ text: "somebody will" }).status, 0);
      same(device.medium().slice(0, 8 << 20), before.subarray(0, 8 << 20), "the protected group");
    }
  }
});

test("a Device's multiple that runs into a protected group is EIO", () => {
  const device = Device.open(coreModule("release"), { sizeBytes: 16 << 20 });
  device.core.blockCommand(28, GROUP * 512, 0x1a);
  device.core.idleNs(100_000_000);
  assert.throws(
    () => device.write((8 << 20) - 1024, pattern(4)),
    (error: { code?: string }) => error.code === "EIO",
  );
  same(device.medium().slice((8 << 20) - 1024, 8 << 20), pattern(4).slice(0, 1024), "before the group");
  assert.is(
    device
      .medium()
      .subarray(8 << 20)
      .every((byte) => byte === 0),
    true,
    "the group",
  );
});

test.run();
