// What SD cards have beyond SDHC at 3.3 V: byte addresses and old versions, sizes, CMD6's groups, 1.8 V and the UHS
// modes, tuning, CMD20, write protection, discard and FULE, and every state × command for these cards. Register
// level; numbers from mmc.md §1.5, §1.7, §1.9 and the SD Physical Layer specification.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { SdOptions } from "../host/core/profile.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { Bus, type BusOptions, type CardState, hex, INT, note, pattern, R1, same, stateOf } from "./bus.js";
import { coreModule } from "./machine.js";

const WP_VIOLATION = 1 << 26;
const CSD_OVERWRITE = 1 << 16;
const WP_ERASE_SKIP = 1 << 15;
const HOST_CONTROL2 = 0x3e;
const VDD_180 = 1 << 3;
const S18 = 1 << 24;
const GROUP_SECTORS = 4096;

function opened(options: BusOptions): Bus {
  return new Bus({ card: "sd", ...options }).open();
}

/** Bits `highest … lowest` of a 16-byte register as the wire has it. */
function bits(register: Uint8Array, highest: number, lowest: number): number {
  let value = 0;
  for (let bit = highest; bit >= lowest; bit--) {
    value = value * 2 + (((register[15 - (bit >> 3)] ?? 0) >> (bit & 7)) & 1);
  }
  return value;
}

/** CMD9's response as bytes; bits 7:0 are not in it. */
function csdOf(bus: Bus): Uint8Array {
  bus.send(7, 0, "none");
  const { words } = bus.must(9, bus.rca << 16, "r2");
  bus.must(7, bus.rca << 16, "r1b");
  bus.awaitBusy();
  const bytes = new Uint8Array(16);
  for (let at = 1; at < 16; at++) bytes[15 - at] = (words[(at - 1) >> 2] ?? 0) >>> (((at - 1) & 3) * 8);
  return bytes;
}

function crc7(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const out = ((crc >> 6) ^ (byte >> bit)) & 1;
      crc = ((crc << 1) & 0x7f) ^ (out ? 9 : 0);
    }
  }
  return crc;
}

// ---- kinds ----

test("SDSC: OCR without CCS, ready whether the host knows sectors or not", () => {
  for (const argument of [0x00ff8000, 0x40ff8000]) {
    const bus = new Bus({ card: "sdsc" });
    bus.powerUp();
    bus.identify("idle");
    assert.is(bus.operatingConditions(argument), 0x80ff8000, hex(argument));
  }
});

test("ACMD41 without voltages asks and starts nothing; busy for the time of initialisation", () => {
  for (const card of ["sdsc", "sd", "sdxc"] as const) {
    const bus = new Bus({ card, timing: { initNs: 50_000_000 } });
    bus.powerUp();
    bus.identify("idle");
    for (let i = 0; i < 3; i++) {
      assert.is(bus.app(41, 0, "r3").r1, 0x00ff8000);
      bus.idle(100_000_000);
    }
    assert.is(bus.app(41, 0x40ff8000, "r3").r1, 0x00ff8000, "busy");
    bus.idle(30_000_000);
    assert.is(bus.app(41, 0x40ff8000, "r3").r1, 0x00ff8000, "still busy");
    bus.idle(30_000_000);
    assert.is(bus.app(41, 0x40ff8000, "r3").r1 >>> 31, 1);
    assert.is(bus.state, "ready");
  }
});

test("SD 1.x does not know CMD8, 1.01 not CMD6 either; both are used without", () => {
  for (const version of ["1.10", "1.01"] as const) {
    const bus = new Bus({ card: "sdsc", sd: { version } });
    bus.powerUp();
    bus.send(0, 0, "none");
    assert.is(bus.send(8, 0x1aa, "r7").silent, true);
    assert.is(bus.must(55, 0).r1 & R1.illegal, R1.illegal, "told once");
    assert.is(bus.must(55, 0).r1 & R1.illegal, 0);
    assert.is(bus.operatingConditions(0x00ff8000) >>> 30, 2);
    bus.must(2, 0, "r2");
    bus.rca = bus.must(3, 0, "r6").r1 >>> 16;
    bus.must(7, bus.rca << 16, "r1b");
    bus.awaitBusy();
    const scr = bus.register(51, 0, 8, true);
    assert.equal([...scr], [version === "1.01" ? 0 : 1, 0x25, 0, 0, 0, 0, 0, 0], "SCR");
    assert.is(bus.send(23, 4).silent, true, "no CMD23");
    assert.is(bus.send(6, 0x00fffff1).silent, version === "1.01");
  }
});

test("SCR and SSR by version and options", () => {
  const scr = (card: "sd" | "sdsc" | "sdxc", sd: SdOptions) => {
    const bytes = opened({ card, sd }).register(51, 0, 8, true);
    return [...bytes.subarray(0, 4)];
  };
  assert.equal(scr("sd", {}), [2, 0x35, 0x80, 2]);
  assert.equal(scr("sdsc", {}), [2, 0x25, 0x80, 2]);
  assert.equal(scr("sdxc", {}), [2, 0x45, 0x80, 2]);
  assert.equal(scr("sd", { version: "2.00" }), [2, 0x35, 0, 0]);
  assert.equal(scr("sd", { cmd20: true, erasedByte: 255 }), [2, 0xb5, 0x80, 3]);
  const ssr = (sd: SdOptions) => opened({ sd }).register(13, 0, 64, true);
  assert.is(ssr({})[24], 2, "discard");
  assert.is(ssr({ discard: false })[24], 0);
  assert.is(ssr({ version: "2.00" })[24], 0);
  assert.is(ssr({ fule: true })[24], 3);
  assert.is(ssr({ uhs: true })[14], 0x19, "UHS grade 1, 4 MiB");
  assert.is(ssr({})[8], 4, "class 10");
});

test("CSD 1.0 of SDSC: the exact capacity of sizes up to 2 GiB", () => {
  let cases = 0;
  for (const sectors of [1024, 2048, 3 * 1024, 65_536, 65_536 + 1024, 2 ** 21, 2 ** 21 + 2048, 2 ** 22]) {
    const device = Device.openExternal(
      coreModule("external"),
      { sizeBytes: sectors * 512, read: () => undefined, write: () => undefined },
      { card: "sdsc" },
    );
    assert.is(device.sizeBytes, sectors * 512);
    // The driver knows the size from the CSD alone: the last sector is there, the next is not.
    assert.is(device.core.blockRead(sectors - 1, 1), 0, `${sectors}`);
    assert.is(device.core.blockRead(sectors, 1), -22, `${sectors}`);
    cases++;
  }
  const csd = csdOf(opened({ card: "sdsc", sectors: 8192 }));
  assert.is(bits(csd, 127, 126), 0);
  assert.is(bits(csd, 95, 84), 0x575, "classes 0, 2, 4, 5, 6, 8, 10");
  const size = (bits(csd, 73, 62) + 1) * 2 ** (bits(csd, 49, 47) + 2) * 2 ** bits(csd, 83, 80);
  assert.is(size, 8192 * 512);
  assert.is((bits(csd, 45, 39) + 1) * (bits(csd, 38, 32) + 1), GROUP_SECTORS, "a group");
  note(`${cases} sizes of SDSC`);
  assert.throws(() => Device.open(coreModule("release"), { card: "sdsc", sizeBytes: 2 ** 31 + 1 }), /SDSC/);
  assert.throws(
    () => Device.open(coreModule("release"), { card: "sd", sd: { version: "1.10" }, sizeBytes: 1 }),
    /2\.00/,
  );
});

test("SDXC: 64 GiB and 1 TiB on an external medium, first and last sector", () => {
  for (const sizeBytes of [2 ** 36, 2 ** 40]) {
    const stored = new Map<number, Uint8Array>();
    const device = Device.openExternal(
      coreModule("external"),
      {
        sizeBytes,
        read: (offset, target) => target.set(stored.get(offset) ?? new Uint8Array(target.length)),
        write: (offset, data) => void stored.set(offset, data.slice()),
      },
      { card: "sdxc" },
    );
    const last = sizeBytes - 512;
    device.write(0, pattern(1, 1));
    device.write(last, pattern(1, 2));
    same(stored.get(last) ?? new Uint8Array(), pattern(1, 2), "the last sector");
    same(device.read(last, 512), pattern(1, 2), "read back");
    same(device.read(0, 512), pattern(1, 1), "the first");
  }
});

test("SDSC: byte addresses in every command, a misaligned one is ADDRESS_ERROR, CMD16 takes 512 only", () => {
  const bus = opened({ card: "sdsc", sectors: 2048 });
  const before = pattern(2048);
  bus.preset(0, before);
  assert.is(bus.must(16, 512).r1 & R1.blockLength, 0);
  assert.is(bus.must(16, 256).r1 & R1.blockLength, R1.blockLength);
  for (const lba of [0, 1, 77, 2047]) {
    same(bus.readBlocks(lba * 512, 1).data, before.subarray(lba * 512, lba * 512 + 512), `sector ${lba}`);
  }
  assert.is(bus.writeBlocks(5 * 512, pattern(3, 9), { count23: true }).errors, 0);
  bus.awaitTran();
  same(bus.stored(6), pattern(3, 9).subarray(512, 1024), "written");
  for (const index of [17, 18, 24, 25]) {
    for (const [argument, error] of [
      [1, R1.addressError],
      [511, R1.addressError],
      [2048 * 512, R1.outOfRange],
    ] as const) {
      const r1 = bus.must(index, argument).r1;
      assert.is(r1 & (R1.addressError | R1.outOfRange), error | 0, `CMD${index} ${argument}`);
      assert.is(stateOf(bus.status()), "tran");
      assert.is(bus.status() & R1.addressError, 0, "told once");
    }
  }
  bus.must(32, 100 * 512);
  bus.must(33, 101 * 512);
  bus.must(38, 0, "r1b");
  bus.awaitBusy();
  assert.is(bus.stored(99)[0], before[99 * 512]);
  assert.is(bus.stored(100).some((byte) => byte !== 0) || bus.stored(101).some((byte) => byte !== 0), false);
  assert.is(bus.stored(102)[0], before[102 * 512]);
});

test("a Device on every kind of SD card: write, read, erase, panic, power", () => {
  const kinds: DeviceOptions[] = [
    { card: "sdsc" },
    { card: "sdsc", sd: { version: "2.00" } },
    { card: "sdsc", sd: { version: "1.10" } },
    { card: "sdsc", sd: { version: "1.01" } },
    { card: "sdxc" },
    { card: "sd", sd: { version: "2.00" } },
    { card: "sd", sd: { uhs: true, cmd20: true, fule: true } },
  ];
  for (const options of kinds) {
    const area = { offset: 2 ** 20, kmsgSize: 65_536, kmsgCount: 4, abi: "lp64" } as const;
    const device = Device.open(coreModule("release"), { sizeBytes: 2 ** 21, area, ...options });
    device.write(1000, pattern(5));
    same(device.read(1000, 2560), pattern(5), "read back");
    device.erase(1536, 512);
    assert.is(
      device.read(1536, 512).some((byte) => byte !== 0),
      false,
    );
    device.leaveInFlight("write", 8192);
    assert.is(device.panicWrite({ text: "the end" }).status, 0);
    device.powerCut("new");
    device.powerOn();
    assert.is(device.state().panicCount, 1);
    assert.is(device.panicWrite({ text: "again" }).status, 0);
  }
});

// ---- CMD6 and 1.8 V ----

/** At 1.8 V, in tran. */
function openLow(options: BusOptions = {}): Bus {
  const bus = new Bus({ card: "sd", controller: "uhs", ...options, sd: { uhs: true, ...options.sd } });
  bus.powerUp();
  bus.identifyLow();
  return bus;
}

function widen(bus: Bus): void {
  assert.is(bus.app(6, 2).errors, 0);
  bus.setLines(4);
}

/** Whether a block comes through at this clock, with the host in UHS mode `uhs`. */
function goesThrough(bus: Bus, khz: number, uhs: number, tuned = false): boolean {
  bus.write16(HOST_CONTROL2, VDD_180 | uhs);
  bus.setClock(khz);
  if (tuned) bus.tune();
  const { errors } = bus.readBlocks(0, 1);
  bus.resetLines();
  bus.setClock(25_000);
  bus.write16(HOST_CONTROL2, VDD_180);
  return errors === 0;
}

test("CMD11 is for a card that was asked for 1.8 V and has it; the voltage survives CMD0 and not the supply", () => {
  for (const [sd, argument] of [
    [{}, 0x40ff8000 | S18],
    [{ uhs: true }, 0x40ff8000],
  ] as const) {
    const bus = new Bus({ card: "sd", controller: "uhs", sd });
    bus.powerUp();
    bus.identify("idle");
    assert.is(bus.operatingConditions(argument), 0xc0ff8000, "no S18A");
    assert.is(bus.send(11, 0).silent, true);
  }
  const bus = openLow();
  bus.identify("idle");
  assert.is(bus.operatingConditions(0x40ff8000 | S18), 0xc0ff8000, "it is there already");
  assert.is(bus.send(11, 0).silent, true);
  bus.identify();
  assert.is(bus.register(6, 0x00ffffff, 64)[13], 0x1f, "all access modes");
  bus.powerDown();
  bus.powerUp();
  bus.identify("idle");
  assert.is(bus.operatingConditions(0x40ff8000 | S18), 0xc1ff8000, "3.3 V again");
});

test("UHS modes: each clock of mmc.md §1.11, and none faster; DDR50 is two bits a clock on both sides", () => {
  let cases = 0;
  for (const [mode, limitKhz] of [
    [0, 25_000],
    [1, 50_000],
    [2, 100_000],
    [3, 200_000],
    [4, 50_000],
  ] as const) {
    const bus = openLow();
    widen(bus);
    assert.is((bus.register(6, 0x80fffff0 + mode, 64)[16] ?? 0) & 15, mode);
    for (const khz of [25_000, 50_000, 100_000, 200_000]) {
      for (const uhs of [0, 1, 2, 3, 4]) {
        const agree = (uhs === 4) === (mode === 4) && khz <= limitKhz;
        assert.is(
          goesThrough(bus, khz, uhs, agree && khz > 100_000),
          agree,
          `mode ${mode}, ${khz} kHz, host ${uhs}`,
        );
        cases++;
      }
    }
    bus.setLines(1);
    bus.setClock(400);
    bus.identify();
    widen(bus);
    assert.is(goesThrough(bus, 25_000, 0), true, "CMD0: default speed");
    assert.is(goesThrough(bus, 50_000, 0), false);
  }
  note(`${cases} cases of UHS mode × clock × host mode`);
});

test("DDR50: a block's clocks are those of mmc.md §1.11", () => {
  const times = [1, 4].map((mode) => {
    const bus = openLow();
    widen(bus);
    bus.register(6, 0x80fffff0 + mode, 64);
    bus.write16(HOST_CONTROL2, VDD_180 | mode);
    bus.setClock(50_000);
    bus.pollNs = 0;
    const start = bus.nowNs;
    assert.is(bus.readBlocks(0, 1, { dma: true }).errors, 0);
    return bus.nowNs - start;
  });
  // 1042 clocks against 530, 20 ns each, in polls of 1 ns.
  assert.ok(Math.abs((times[0] ?? 0) - (times[1] ?? 0) - (1042 - 530) * 20) < 100, `${times}`);
});

test("CMD6: every group × function × mode, at 3.3 V and 1.8 V; one F and nothing is switched", () => {
  let cases = 0;
  for (const low of [false, true]) {
    for (const rich of [false, true]) {
      const sd = { uhs: true, driverTypes: rich, currentLimits: rich };
      const bus = low ? openLow({ sd }) : opened({ sd });
      const groups = [low ? 5 : 2, 1, low && rich ? 4 : 1, low && rich ? 4 : 1, 1, 1];
      const result = (status: Uint8Array, group: number) =>
        ((status[16 - (group >> 1)] ?? 0) >> ((group & 1) * 4)) & 15;
      const snapshot = bus.save();
      for (let group = 0; group < 6; group++) {
        for (let wanted = 0; wanted < 16; wanted++) {
          for (const mode of [0, 1]) {
            bus.load(snapshot);
            const ask = (0xffffff & ~(15 << (group * 4))) | (wanted << (group * 4));
            const status = bus.register(6, (ask | (mode << 31)) >>> 0, 64);
            const has = wanted === 15 || wanted < (groups[group] ?? 0);
            const what = `${low} ${rich}: group ${group + 1} function ${wanted} mode ${mode}`;
            assert.is(result(status, group), wanted === 15 ? 0 : has ? wanted : 15, what);
            const support = ((status[12 - group * 2] ?? 0) << 8) | (status[13 - group * 2] ?? 0);
            assert.is(support, 0x8000 | (2 ** (groups[group] ?? 0) - 1), `${what}: support`);
            assert.is((status[0] ?? 0) * 256 + (status[1] ?? 0), has ? 100 : 0, `${what}: current`);
            assert.is(status[17], 1, "structure version");
            assert.is(
              status.subarray(18).some((byte) => byte !== 0),
              false,
              "nothing is busy",
            );
            const isDdr = low && group === 0 && wanted === 4 && mode === 1;
            if (isDdr) bus.write16(HOST_CONTROL2, VDD_180 | 4);
            const after = bus.register(6, 0x00ffffff, 64);
            const switched = mode === 1 && has && wanted !== 15 ? wanted : 0;
            assert.is(result(after, group), switched, `${what}: afterwards`);
            cases++;
          }
        }
      }
    }
  }
  const bus = opened({});
  bus.register(6, 0x80fff2f1, 64);
  assert.is((bus.register(6, 0x00ffffff, 64)[16] ?? 0) & 15, 0, "group 3 refused, group 1 stays");
  note(`${cases} cases of CMD6 groups and functions`);
});

test("CMD6 with a wrong function: F for its group, 0 mA, and the groups that are right stay too", () => {
  const resultOf = (status: Uint8Array, group: number) =>
    ((status[16 - (group >> 1)] ?? 0) >> ((group & 1) * 4)) & 15;
  let cases = 0;
  for (const low of [false, true]) {
    const sd = { uhs: true, driverTypes: low, currentLimits: low };
    const bus = low ? openLow({ sd }) : opened({ sd });
    const start = bus.save();
    const has = (group: number, wanted: number) =>
      wanted < ((low ? [5, 1, 4, 4, 1, 1] : [2, 1, 1, 1, 1, 1])[group] ?? 0);
    // High speed, which every card has, beside each function of each other group.
    for (let group = 1; group < 6; group++) {
      for (let wanted = 0; wanted < 15; wanted++) {
        for (const mode of [0, 1]) {
          bus.load(start);
          const ask = (0xfffff0 & ~(15 << (group * 4))) | (wanted << (group * 4)) | 1;
          const status = bus.register(6, (ask | (mode << 31)) >>> 0, 64);
          const what = `${low} group ${group + 1} function ${wanted} mode ${mode}`;
          const isRight = has(group, wanted);
          assert.is(resultOf(status, 0), 1, what);
          assert.is(resultOf(status, group), isRight ? wanted : 15, what);
          assert.is((status[0] ?? 0) * 256 + (status[1] ?? 0), isRight ? 100 : 0, `${what}: current`);
          const after = bus.register(6, 0x00ffffff, 64);
          assert.is(resultOf(after, 0), isRight && mode === 1 ? 1 : 0, `${what}: group 1 afterwards`);
          assert.is(resultOf(after, group), isRight && mode === 1 ? wanted : 0, `${what}: afterwards`);
          assert.is((after[0] ?? 0) * 256 + (after[1] ?? 0), 100, "no error, no 0 mA");
          cases++;
        }
      }
    }
  }
  note(`${cases} cases of CMD6 with two groups`);
});

test("CMD3: another address each time, behind CMD7, CMD0 and the supply, and never 0", () => {
  const bus = opened({});
  const seen = [bus.rca];
  for (let i = 0; i < 40; i++) {
    bus.send(7, 0, "none");
    const before = bus.rca;
    bus.rca = bus.must(3, 0xffffffff, "r6").r1 >>> 16;
    assert.is(bus.send(13, before << 16).silent, true, "the old one is nobody's");
    assert.is(stateOf(bus.status()), "stby");
    seen.push(bus.rca);
    bus.must(7, bus.rca << 16, "r1b");
    bus.awaitBusy();
    if (i % 3 === 0) bus.open();
    if (i % 7 === 0) bus.cutAndReopen(0, 0);
    if (!seen.includes(bus.rca)) seen.push(bus.rca);
  }
  assert.is(new Set(seen).size, seen.length, "each is new");
  assert.ok(seen.length > 50 && !seen.includes(0));
  // Around the whole circle.
  const start = seen[0];
  bus.send(7, 0, "none");
  for (let i = 0; i < 70_000; i++) {
    const next = bus.must(3, 0, "r6").r1 >>> 16;
    assert.ok(next !== 0 && next !== bus.rca);
    bus.rca = next;
  }
  assert.is(start, 0x1234, "a new card's first one");
});

test("CMD6 takes hold when its status has gone out, not when CMD12 came before", () => {
  const bus = opened({ timing: { readNs: 0 } });
  bus.must(6, 0x80fffff1);
  bus.must(12, 0, "r1b");
  assert.is((bus.register(6, 0x00ffffff, 64)[16] ?? 0) & 15, 0);
  bus.register(6, 0x80fffff1, 64);
  assert.is((bus.register(6, 0x00ffffff, 64)[16] ?? 0) & 15, 1);
});

test("CMD19: the tuning block at 1.8 V, illegal at 3.3 V", () => {
  const expected =
    "ff0fff00ffccc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bdef" +
    "fff0fff00ffccc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bde";
  const bus = openLow();
  widen(bus);
  for (let i = 0; i < 3; i++) {
    assert.is(Buffer.from(bus.register(19, 0, 64)).toString("hex"), expected);
    assert.is(stateOf(bus.status()), "tran");
  }
  assert.is(opened({ sd: { uhs: true } }).send(19, 0).silent, true);
});

test("CMD20 is R1b and busy, where SCR says that it is there", () => {
  const bus = opened({ sd: { cmd20: true }, timing: { programNs: 3_000_000 } });
  assert.is(stateOf(bus.must(20, 0x10000000, "r1b").r1), "tran");
  assert.is(stateOf(bus.status()), "prg");
  bus.awaitBusy();
  assert.is(stateOf(bus.status()), "tran");
  assert.is(opened({}).send(20, 0, "r1b").silent, true);
});

// ---- protection ----

test("the write-protect switch is the host's to see: present state bit 19, and the card writes on", () => {
  for (const writeSwitchLocked of [false, true]) {
    const bus = opened({ sd: { writeSwitchLocked } });
    assert.is((bus.present >>> 19) & 1, writeSwitchLocked ? 0 : 1);
    assert.is(bus.writeBlocks(0, pattern(1)).errors, 0);
    bus.awaitTran();
  }
});

function programCsd(bus: Bus, csd: Uint8Array, sealed = true): number {
  if (sealed) csd[15] = (crc7(csd.subarray(0, 15)) << 1) | 1;
  bus.must(27, 0, "r1", { read: false, blocks: 1, blockBytes: 16 });
  assert.is(bus.pioWrite(csd, 16), 0);
  bus.awaitStatus(INT.transfer);
  return bus.awaitTran();
}

test("CMD27: protection on and off, COPY for ever, nothing else; the CSD survives the supply", () => {
  const bus = opened({});
  const flipped = (at: number, mask: number) => {
    const csd = csdOf(bus);
    csd[at] = (csd[at] ?? 0) ^ mask;
    return csd;
  };
  const CHANGED = CSD_OVERWRITE | R1.error;
  for (let at = 0; at < 14; at++) {
    for (let bit = 0; bit < 8; bit++) {
      assert.is(programCsd(bus, flipped(at, 1 << bit)) & CHANGED, CSD_OVERWRITE, `byte ${at} bit ${bit}`);
    }
  }
  assert.is(programCsd(bus, flipped(14, 0x10), false) & CHANGED, R1.error, "CRC7");
  assert.is(programCsd(bus, flipped(14, 0x10)) & CHANGED, 0, "TMP_WRITE_PROTECT");
  bus.cutAndReopen(0, 0);
  assert.is(bits(csdOf(bus), 12, 12), 1, "still there");
  for (const index of [24, 25]) {
    assert.is(bus.must(index, 0, "r1", { read: false, blocks: 1 }).r1 & WP_VIOLATION, WP_VIOLATION);
    assert.is(bus.pioWrite(pattern(1)), 0);
    bus.awaitStatus(INT.transfer);
    bus.resetLines();
    const stopped = index === 25 ? bus.must(12, 0, "r1b").r1 : 0;
    assert.is((stopped | bus.awaitTran()) & WP_VIOLATION, WP_VIOLATION);
    assert.is(
      bus.stored(0).some((byte) => byte !== 0),
      false,
      "nothing written",
    );
  }
  bus.must(32, 0);
  bus.must(33, 7);
  assert.is(bus.must(38, 0, "r1b").r1 & WP_VIOLATION, WP_VIOLATION);
  assert.is(stateOf(bus.status()), "tran");
  assert.is(programCsd(bus, flipped(14, 0x10)) & CHANGED, 0, "off again");
  assert.is(bus.writeBlocks(0, pattern(1)).errors, 0);
  bus.awaitTran();
  assert.is(programCsd(bus, flipped(14, 0x40)) & CHANGED, 0, "COPY");
  assert.is(programCsd(bus, flipped(14, 0x40)) & CHANGED, CSD_OVERWRITE, "for ever");
  assert.is(programCsd(bus, flipped(14, 0x20)) & CHANGED, 0, "PERM_WRITE_PROTECT");
  assert.is(programCsd(bus, flipped(14, 0x20)) & CHANGED, CSD_OVERWRITE, "for ever");
});

test("CMD28, 29, 30: groups of SDSC; writes and erases stop at them, also in mid-transfer", () => {
  const bus = opened({ card: "sdsc", sectors: 4 * GROUP_SECTORS });
  const protect = (index: number, group: number) => {
    assert.is(bus.must(index, group * GROUP_SECTORS * 512, "r1b").errors, 0);
    bus.awaitBusy();
    bus.awaitTran();
  };
  const groups = (from: number) =>
    new DataView(bus.register(30, from * GROUP_SECTORS * 512, 4).buffer).getUint32(0, false);
  protect(28, 1);
  protect(28, 3);
  assert.is(groups(0), 0b1010);
  assert.is(groups(1), 0b101);
  protect(29, 3);
  assert.is(groups(0), 0b10);
  for (const index of [28, 29, 30]) {
    assert.is(bus.must(index, 4 * GROUP_SECTORS * 512).r1 & R1.outOfRange, R1.outOfRange | 0);
  }
  bus.cutAndReopen(0, 0);
  assert.is(groups(0), 0b10, "survives the supply");
  const at = (GROUP_SECTORS - 2) * 512;
  assert.is(bus.writeBlocks(at, pattern(4, 5)).errors, INT.dataCrc, "the third block is refused");
  bus.resetLines();
  assert.is(bus.must(12, 0, "r1b").r1 & WP_VIOLATION, WP_VIOLATION);
  assert.is(bus.awaitTran() & WP_VIOLATION, 0, "told once");
  same(bus.stored(GROUP_SECTORS - 1), pattern(4, 5).subarray(512, 1024), "up to the border");
  assert.is(
    bus.stored(GROUP_SECTORS).some((byte) => byte !== 0),
    false,
  );
  bus.preset(0, new Uint8Array(4 * GROUP_SECTORS * 512).fill(0x33));
  bus.must(32, (GROUP_SECTORS - 1) * 512);
  bus.must(33, 2 * GROUP_SECTORS * 512);
  bus.must(38, 0, "r1b");
  bus.awaitBusy();
  assert.is(bus.awaitTran() & WP_ERASE_SKIP, WP_ERASE_SKIP);
  const first = [-2, -1, 0, GROUP_SECTORS - 1, GROUP_SECTORS, GROUP_SECTORS + 1];
  assert.equal(
    first.map((sector) => bus.stored(GROUP_SECTORS + sector)[9]),
    [0x33, 0, 0x33, 0x33, 0, 0x33],
  );
  assert.is(opened({ card: "sd" }).send(28, 0, "r1b").silent, true, "SDHC has no groups");
});

test("CMD38: discard and FULE only as SSR advertises them, FULE in one erase time", () => {
  const last = 4 * 1024 - 1;
  const eraseNs = 8_000_000;
  for (const [discard, fule] of [
    [false, false],
    [true, false],
    [false, true],
  ]) {
    const bus = opened({ sectors: 4096, sd: { discard, fule }, timing: { eraseNs } });
    // A card that advertises neither has an argument of stuff: whatever it is, this is an erase.
    const isStuff = !discard && !fule;
    for (const [mode, first, isLegal] of [
      [0, 0, true],
      [1, 0, discard || isStuff],
      [2, 0, fule || isStuff],
      [2, 1, isStuff],
      [3, 0, isStuff],
    ] as const) {
      bus.preset(0, pattern(4096));
      bus.must(32, first);
      bus.must(33, last);
      const r1 = bus.must(38, mode, "r1b").r1;
      const start = bus.nowNs;
      const what = `mode ${mode} from ${first}`;
      assert.is(r1 & R1.eraseParameter, isLegal ? 0 : R1.eraseParameter, what);
      bus.pollNs = 1000;
      bus.awaitStatus(INT.transfer);
      const busyNs = isLegal ? (mode === 2 && fule ? 1 : 4) * eraseNs : 0;
      const lengthNs = bus.nowNs - start;
      // Begun with the response: up to 100 clocks of 2.5 µs earlier.
      assert.ok(Math.abs(lengthNs - busyNs) <= 260_000, `${what}: ${lengthNs} ns`);
      assert.is(
        bus.stored(1).some((byte) => byte !== 0),
        !isLegal,
        what,
      );
      bus.awaitTran();
    }
  }
});

// ---- state × command ----

const ADDRESSED: CardState[] = ["stby", "tran", "data", "rcv", "prg", "dis"];
const STATES: CardState[] = ["idle", "ready", "ident", ...ADDRESSED];

/** Where a command is legal on a card that has everything. The rest of the table is in card-states.test.ts. */
const LEGAL: Record<number, CardState[]> = {
  0: STATES,
  2: ["ready"],
  3: ["ident", "stby"],
  4: ["stby"],
  6: ["tran"],
  8: ["idle"],
  9: ["stby"],
  10: ["stby"],
  11: ["ready"],
  12: ["data", "rcv"],
  13: ADDRESSED,
  15: ADDRESSED,
  16: ["tran"],
  17: ["tran"],
  18: ["tran"],
  19: ["tran"],
  20: ["tran"],
  23: ["tran"],
  24: ["tran"],
  25: ["tran"],
  27: ["tran"],
  28: ["tran"],
  29: ["tran"],
  30: ["tran"],
  32: ["tran"],
  33: ["tran"],
  38: ["tran"],
  55: ["idle", ...ADDRESSED],
};
const MUTE = new Set([0, 4, 15]);
const APPLICATION: Record<number, CardState[]> = {
  6: ["tran"],
  13: ["tran"],
  22: ["tran"],
  23: ["tran"],
  41: ["idle"],
  42: ["tran"],
  51: ["tran"],
};

interface Kind {
  options: BusOptions;
  low: boolean;
  missing: number[];
}

const KINDS: Record<string, Kind> = {
  SDSC: { options: { card: "sdsc", sd: { cmd20: true } }, low: false, missing: [11, 19] },
  "SD 1.10": { options: { card: "sdsc", sd: { version: "1.10" } }, low: false, missing: [8, 11, 19, 20, 23] },
  "SD 1.01": {
    options: { card: "sdsc", sd: { version: "1.01" } },
    low: false,
    missing: [6, 8, 11, 19, 20, 23],
  },
  SDXC: { options: { card: "sdxc" }, low: false, missing: [11, 19, 20, 28, 29, 30] },
  "SDHC 2.00": {
    options: { card: "sd", sd: { version: "2.00" } },
    low: false,
    missing: [11, 19, 20, 23, 28, 29, 30],
  },
  "UHS at 1.8 V": {
    options: { card: "sd", controller: "uhs", sd: { uhs: true, cmd20: true } },
    low: true,
    missing: [28, 29, 30],
  },
};

/** Brings a fresh card into `state`. */
function bring(bus: Bus, kind: Kind, state: CardState): void {
  const knowsCondition = !kind.missing.includes(8);
  bus.powerUp();
  bus.send(0, 0, "none");
  if (knowsCondition) bus.must(8, 0x1aa, "r7");
  if (state === "idle") return;
  bus.operatingConditions((knowsCondition ? 0x40ff8000 : 0x00ff8000) | (kind.low ? S18 : 0));
  if (state === "ready") return;
  if (kind.low) bus.switchVoltage();
  bus.must(2, 0, "r2");
  if (state === "ident") return;
  bus.rca = bus.must(3, 0, "r6").r1 >>> 16;
  if (state === "stby") return;
  bus.must(7, bus.rca << 16, "r1b");
  bus.awaitBusy();
  if (state === "data") bus.must(18, 0);
  if (state === "rcv") bus.must(25, 0);
  if (state === "prg" || state === "dis") {
    bus.must(24, 0, "r1", { read: false, blocks: 1 });
    assert.is(bus.pioWrite(new Uint8Array(512)), 0);
    bus.idle(20_000_000);
    bus.resetLines();
  }
  if (state === "dis") bus.send(7, 0, "none");
  bus.idle(1_000_000);
  bus.resetLines();
  assert.is(bus.state, state);
}

const LONG_NS = 2_000_000_000;

for (const [name, kind] of Object.entries(KINDS)) {
  test(`${name}: every state × every command and every application command`, () => {
    const timing = { readNs: LONG_NS, programNs: LONG_NS };
    const bus = new Bus({ ...kind.options, sectors: 2048, trace: false, timing });
    const failures: string[] = [];
    let cases = 0;
    for (const state of STATES) {
      bus.core.machineInit();
      bring(bus, kind, state);
      const snapshot = bus.save();
      const { rca } = bus;
      const own = state === "idle" || state === "ready" || state === "ident" ? 0 : (rca << 16) >>> 0;
      const hears = LEGAL[55]?.includes(state) === true;
      const tell = (what: string, told: string) => {
        cases++;
        if (told !== "") failures.push(`${name} ${state}: ${what}: ${told}`);
      };
      const answers = (index: number) => {
        if (index === 8) return "r7";
        if (index === 2 || index === 9 || index === 10) return "r2";
        return index === 3 ? "r6" : "r1";
      };
      for (let index = 0; index < 64; index++) {
        if (index === 7) continue; // two meanings: card-states.test.ts
        bus.load(snapshot);
        bus.rca = rca;
        const argument = [9, 10, 13, 15, 55].includes(index)
          ? own
          : index === 8
            ? 0x1aa
            : index === 16
              ? 512
              : 0;
        const reply = bus.send(index, argument, answers(index));
        const legal = LEGAL[index]?.includes(state) === true && !kind.missing.includes(index);
        const silent = !legal || MUTE.has(index);
        if (reply.silent !== silent) tell(`CMD${index}`, reply.silent ? "no answer" : hex(reply.r1));
        else if (legal) tell(`CMD${index}`, reply.errors === 0 || silent ? "" : hex(reply.status));
        else if (bus.state !== state) tell(`CMD${index}`, `now ${bus.state}`);
        else if (!hears) tell(`CMD${index}`, "");
        else {
          const [first, second] = [bus.must(55, own).r1, bus.must(55, own).r1];
          const told = index === 5 || index === 52 || index === 53 ? 0 : R1.illegal;
          tell(`CMD${index}`, (first & R1.illegal) === told && (second & R1.illegal) === 0 ? "" : hex(first));
        }
      }
      for (let index = 0; index < 64 && hears; index++) {
        if (index === 7) continue;
        bus.load(snapshot);
        bus.rca = rca;
        bus.must(55, own);
        const isApplication = APPLICATION[index] !== undefined;
        const argument = isApplication ? (index === 41 ? 0x40ff8000 : 0) : index === 8 ? 0x1aa : own;
        const reply = bus.send(index, argument, index === 41 ? "r3" : answers(index));
        // A plain command behind CMD55 is itself.
        const legal = isApplication
          ? APPLICATION[index]?.includes(state) === true
          : LEGAL[index]?.includes(state) === true && !kind.missing.includes(index);
        const silent = !legal || MUTE.has(index);
        tell(`CMD55, ${index}`, reply.silent === silent ? "" : hex(reply.status));
        if (!reply.silent && isApplication && index !== 41 && (reply.r1 & R1.appCommand) === 0) {
          tell(`ACMD${index}`, `APP_CMD missing: ${hex(reply.r1)}`);
        }
      }
    }
    note(`${name}: ${cases} cases of state × command`);
    assert.equal(failures, []);
  });
}

test.run();
