// What Linux's pstore/zone loses and we keep, case by case (docs/TESTING.md has the table), and what a dump may cost:
// counters, clocks, policies, reasons, and areas that cannot be.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CONFIG_ZONE_COUNT, CONFIG_ZONE_SECTORS } from "../assembly/layout.js";
import { Device, type Reason } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { MmcError } from "../host/errors.js";
import { decodeArea, type PstoreRecord } from "../host/pstore/decode.js";
import { registerArea } from "../host/pstore/registration.js";
import { coreModule, sameBytes, textOf } from "./machine.js";

const AREA_OFFSET = 64 * 1024;
const KMSG_BYTES = 4096;
const ZONES = 4;

function open(options: DeviceOptions = {}): Device {
  const area = { offset: AREA_OFFSET, kmsgSize: KMSG_BYTES, kmsgCount: ZONES, abi: "lp64" as const };
  return Device.open(coreModule("release"), { sizeBytes: 512 * 1024, ...options, area });
}

function reboot(device: Device): void {
  device.flush();
  device.powerCut("old", "lost");
  device.powerOn();
}

function records(device: Device): PstoreRecord[] {
  device.flush();
  const bytes = device.medium().slice(AREA_OFFSET, AREA_OFFSET + ZONES * KMSG_BYTES);
  const sizes = { kmsgSize: KMSG_BYTES, pmsgSize: 0, consoleSize: 0, ftraceSize: 0, abi: "lp64" as const };
  return decodeArea(bytes, sizes).records;
}

function texts(device: Device): string[] {
  return records(device).map((record) => new TextDecoder().decode(textOf(record)));
}

/** A record as Linux writes it: the whole zone, no seal. */
function linuxWrites(
  device: Device,
  zone: number,
  text: string,
  timeSec: number,
  reason = 2,
  count = 1,
): void {
  const bytes = new Uint8Array(KMSG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x43474244, true);
  view.setUint32(4, 40 + text.length, true);
  view.setUint32(12, 0x4dfc3ae5, true);
  view.setBigInt64(20, BigInt(timeSec), true);
  view.setUint32(40, count, true);
  view.setUint32(44, reason, true);
  bytes.set(new TextEncoder().encode(text), 52);
  device.write(AREA_OFFSET + zone * KMSG_BYTES, bytes);
  device.flush();
}

function zap(device: Device, zone: number, sectors = 1): void {
  device.write(AREA_OFFSET + zone * KMSG_BYTES, new Uint8Array(sectors * 512).fill(0xa5));
  device.flush();
}

test("the clock goes back: each record is behind the one before, the newest is not written over", () => {
  for (const policy of ["first-wins", "ring"] as const) {
    const device = open({ policy });
    for (const [i, timeSec] of [2_000_000_000n, 5n, 1_000n, 0n].entries()) {
      const result = device.panicWrite({ text: `panic ${i}`, timeSec });
      assert.equal([result.status, result.zone, result.count], [0, i, i + 1]);
      reboot(device);
    }
    // Full: Linux would take the zone behind the latest time, 1.
    const result = device.panicWrite({ text: "panic 4", timeSec: 1n });
    assert.is(result.zone, policy === "ring" ? 0 : 3);
    assert.ok(texts(device).includes("panic 2"));
  }
});

test("a record of Linux's from the far future does not pin the ring", () => {
  const device = open({ policy: "ring" });
  for (let i = 0; i < 3; i++) device.panicWrite({ text: `panic ${i}`, timeSec: BigInt(100 + i) });
  linuxWrites(device, 3, "oops of 2099", 4_070_908_800);
  const zones: number[] = [];
  for (let i = 3; i < 6; i++) {
    reboot(device);
    zones.push(device.panicWrite({ text: `panic ${i}`, timeSec: BigInt(100 + i) }).zone);
  }
  assert.equal(zones, [0, 1, 2]);
  assert.equal(texts(device), ["panic 3", "panic 4", "panic 5", "oops of 2099"]);
});

test("counters never go back: not with a destroyed header, nor when another reason takes the zone", () => {
  const device = open();
  device.panicWrite({ text: "a" });
  device.panicWrite({ text: "b", reason: "Oops" });
  device.panicWrite({ text: "c" });
  reboot(device);
  for (const zone of [0, 2]) zap(device, zone);
  reboot(device);
  assert.equal([device.state().panicCount, device.state().oopsCount], [2, 1]);
  assert.is(device.panicWrite({ text: "d" }).count, 3);

  // One zone only: each record takes the zone of the one before.
  const area = { offset: AREA_OFFSET, kmsgSize: KMSG_BYTES, kmsgCount: 1, abi: "lp64" as const };
  const small = Device.open(coreModule("release"), { sizeBytes: 512 * 1024, area });
  const counts: number[] = [];
  for (const reason of ["Panic", "Oops", "Panic", "Shutdown", "Oops", "Panic"] as Reason[]) {
    counts.push(small.panicWrite({ text: reason, reason }).count);
    reboot(small);
  }
  assert.equal(counts, [1, 1, 2, 0, 2, 3]);
});

test("a zone that is there twice, and one that is older than it was, mislead nobody", () => {
  const device = open();
  for (let i = 0; i < 2; i++) device.panicWrite({ text: `panic ${i}` });
  device.flush();
  const zone = (index: number) => device.read(AREA_OFFSET + index * KMSG_BYTES, KMSG_BYTES);
  const stale = zone(0);
  device.write(AREA_OFFSET + 3 * KMSG_BYTES, zone(1));
  reboot(device);
  // The copy in zone 3 counts as the newest; behind it comes zone 0, which is taken, so zone 2.
  const third = device.panicWrite({ text: "panic 2" });
  assert.equal([third.zone, third.sequence, third.count], [2, 3n, 3]);
  // The card gives zone 2 back as zone 0 was.
  device.write(AREA_OFFSET + 2 * KMSG_BYTES, stale);
  reboot(device);
  const fourth = device.panicWrite({ text: "panic 3" });
  assert.equal([fourth.status, fourth.sequence > 2n, fourth.count], [0, true, 3]);
  const sequences = records(device).map((record) => record.sequence);
  assert.equal(sequences, [1n, 2n, 1n, 3n]);
});

test("newest: the smallest sequence goes, wherever it is, and Linux's newest record stays", () => {
  const device = open({ policy: "newest", keepLogs: 1 });
  for (let i = 0; i < 4; i++) device.panicWrite({ text: `panic ${i}` });
  device.write(AREA_OFFSET + KMSG_BYTES + 4, new Uint8Array(4));
  reboot(device);
  assert.is(device.panicWrite({ text: "panic 4" }).zone, 1);
  reboot(device);
  assert.is(device.panicWrite({ text: "panic 5" }).zone, 0);
  linuxWrites(device, 3, "oops", 4_000_000_000);
  reboot(device);
  assert.is(device.panicWrite({ text: "panic 6" }).zone, 2);
  assert.equal(texts(device), ["panic 5", "panic 4", "panic 6", "oops"]);
});

test("a card on which every zone fails costs no record if two zones were free, and two at most", () => {
  const firstLba = AREA_OFFSET / 512;
  const lastLba = firstLba + (ZONES * KMSG_BYTES) / 512 - 1;
  const kinds = [
    "program",
    "write-crc",
    "read-crc",
    "read-ecc",
    "read-silent",
    "phantom-write",
    "bit-rot",
    "latent-read",
  ] as const;
  let failed = 0;
  for (const policy of ["first-wins", "ring", "newest"] as const) {
    for (const card of ["emmc", "sd"] as const) {
      for (const kind of kinds) {
        for (const skip of [0, 1, 2, 5, 9]) {
          for (let old = 1; old <= ZONES; old++) {
            const device = open({ policy, card, compress: false });
            for (let i = 0; i < old; i++) device.panicWrite({ text: `old ${i}`, timeSec: BigInt(i) });
            device.injectFault({ kind, firstLba, lastLba, skip });
            const { status } = device.panicWrite({ text: "new\n".repeat(700) });
            device.clearFaults();
            if (status !== 0) failed++;
            device.powerCut("old", "lost");
            device.powerOn();
            const there = records(device).filter(({ state }) => state === "ok").length;
            const where = `${policy} ${card} ${kind}, skip ${skip}, ${old} records`;
            // A record that says it stands took a free zone, or one record's.
            if (status === 0) assert.ok(there >= Math.min(ZONES, old + 1) - 1, where);
            else assert.ok(there >= old - Math.max(0, 2 - (ZONES - old)), `${where}: ${there} are left`);
          }
        }
      }
    }
  }
  assert.ok(failed > 200, `${failed} panics failed`);
});

test("one bad zone in a full area: the next record is given up instead, and the new one stands", () => {
  for (const [policy, bad, taken] of [
    ["first-wins", 3, 2],
    ["ring", 0, 1],
    ["newest", 0, 1],
  ] as const) {
    const device = open({ policy, compress: false });
    for (let i = 0; i < ZONES; i++) device.panicWrite({ text: `old ${i}` });
    const lba = (AREA_OFFSET + bad * KMSG_BYTES) / 512 + 1;
    device.injectFault({ kind: "program", firstLba: lba, lastLba: lba });
    const result = device.panicWrite({ text: "new\n".repeat(700), timeSec: 1n });
    assert.equal([result.status, result.zone, result.attempts], [0, taken, 2], policy);
    assert.is(texts(device).filter((text) => text.startsWith("old")).length, 2);
  }
});

test("max_reason: what it filters touches nothing", () => {
  const reasons: Reason[] = ["Panic", "Oops", "Emergency", "Shutdown"];
  for (const maxReason of [undefined, 0, 1, 2, 3, 4, 5]) {
    for (const [i, reason] of reasons.entries()) {
      const device = open({ maxReason });
      device.leaveInFlight("write", 0);
      const before = device.saveState();
      const { status, parts, droppedBytes } = device.panicWrite({ text: "bye", reason });
      if (i + 1 <= (maxReason === undefined ? 4 : maxReason || 2)) {
        assert.equal([status, records(device)[0]?.reason], [0, reason]);
      } else {
        assert.equal([status, parts, droppedBytes], [-125, 0, 3]);
        assert.ok(sameBytes(device.saveState(), before));
      }
    }
  }
  assert.throws(() => open({ maxReason: -1 }), /maxReason/);
});

test("before the first recovery: the panic looks at the area itself, and older records stay", () => {
  const device = open();
  device.panicWrite({ text: "first", reason: "Oops" });
  device.flush();
  device.powerCut("old", "lost");
  // Identified, and nothing more.
  assert.is(device.core.openCard(), 0);
  const oops = device.panicWrite({ text: "early oops", reason: "Oops" });
  assert.equal([oops.status, oops.zone, oops.count], [0, 1, 2]);
  const panic = device.panicWrite({ text: "early panic" });
  assert.equal([panic.status, panic.zone, panic.count], [0, 2, 1]);
  assert.equal(texts(device), ["first", "early oops", "early panic"]);
  assert.is(device.core.recoverArea(), 0);
  assert.is(device.state().nextZone, 3);
});

test("the next boot panics before anyone read: every boot's record stays until the area is full", () => {
  const device = open();
  for (let boot = 0; boot < ZONES; boot++) {
    assert.is(device.panicWrite({ text: `boot ${boot}` }).status, 0);
    device.powerCut("old", "lost");
    assert.is(device.core.openCard(), 0);
  }
  device.powerOn();
  assert.equal(texts(device), ["boot 0", "boot 1", "boot 2", "boot 3"]);
});

test("a panic in a panic: refused, or forced, and the record is whole", () => {
  let marks = Number.NEGATIVE_INFINITY;
  const hit = () => {
    if (++marks === 150) throw new Error("the first panic dies here");
  };
  const area = { offset: AREA_OFFSET, kmsgSize: KMSG_BYTES, kmsgCount: ZONES, abi: "lp64" as const };
  const device = Device.open(
    coreModule("explore"),
    { sizeBytes: 512 * 1024, area },
    { mark: { hit: () => hit() } },
  );
  marks = 0;
  assert.throws(() => device.panicWrite({ text: "first\n".repeat(200) }), /dies here/);
  const nested = device.panicWrite({ text: "second" });
  assert.equal([nested.status, nested.parts, nested.storedBytes], [-16, 0, 0]);
  const forced = device.panicWrite({ text: "third", force: true });
  assert.is(forced.status, 0);
  assert.ok(texts(device).includes("third"));
});

test("a zone that cannot be read hides no other and stops no panic", () => {
  const device = open();
  for (let i = 0; i < 2; i++) device.panicWrite({ text: `panic ${i}` });
  device.flush();
  const firstLba = AREA_OFFSET / 512;
  device.injectFault({ kind: "read-ecc", firstLba, lastLba: firstLba });
  reboot(device);
  device.injectFault({ kind: "read-ecc", firstLba, lastLba: firstLba });
  const result = device.panicWrite({ text: "panic 2" });
  assert.equal([result.status, result.zone, result.count], [0, 2, 3]);
});

test("registration: Linux's rules with its errnos, and an errno where Linux crashes", () => {
  const sizes = { sizeBytes: 65536, kmsgSize: 4096, pmsgSize: 4096, consoleSize: 4096, ftraceSize: 0 };
  const refused = (code: string, changes: object) => {
    try {
      registerArea({ offset: 0, ...sizes, ...changes });
    } catch (error) {
      assert.instance(error, MmcError);
      assert.is((error as MmcError).code, code, JSON.stringify(changes));
      return;
    }
    assert.unreachable(JSON.stringify(changes));
  };
  assert.equal(registerArea({ offset: 512, ...sizes }), {
    offset: 512 + 8192,
    kmsgSize: 4096,
    kmsgCount: 14,
    abi: "lp64",
    pmsgSize: 4096,
    consoleSize: 4096,
    ftraceSize: 0,
    cpus: 1,
  });
  for (const sizeBytes of [0, 512, 4095]) refused("EINVAL", { sizeBytes });
  refused("EINVAL", { sizeBytes: 65536 + 512 });
  refused("EINVAL", { kmsgSize: 0, pmsgSize: 0, consoleSize: 0 });
  // Linux takes rings alone; a panic needs a zone.
  refused("EINVAL", { kmsgSize: 0 });
  for (const name of ["kmsgSize", "pmsgSize", "consoleSize", "ftraceSize"]) {
    for (const size of [-512, 1, 511, 513, 4097, 0.5, Number.NaN]) refused("EINVAL", { [name]: size });
  }
  refused("ENOMEM", { pmsgSize: 65536 });
  refused("ENOMEM", { consoleSize: 65536 });
  refused("ENOMEM", { ftraceSize: 65536 });
  // Linux crashes: kmsg is wanted and no zone fits.
  refused("ENOMEM", { kmsgSize: 65536 });
  refused("ENOMEM", { kmsgSize: 4096, pmsgSize: 32768, consoleSize: 32768 });
  // 2730 bytes a CPU, and kmsg zones on no sector.
  refused("EINVAL", { ftraceSize: 8192, cpus: 3 });
  refused("EINVAL", { ftraceSize: 512, cpus: 1024 });
  refused("EINVAL", { offset: 100 });
  assert.is(registerArea({ offset: 0, ...sizes, ftraceSize: 8192, cpus: 2 }).offset, 16384);
  // Linux caps at 128 MiB.
  assert.is(registerArea({ offset: 0, ...sizes, sizeBytes: 2 ** 28 }).kmsgCount, 32766);
  // What is registered is what a device takes, and panics and rings land where Linux looks for them.
  const area = registerArea({ offset: AREA_OFFSET, ...sizes, ftraceSize: 4096, cpus: 2 });
  const device = Device.open(coreModule("release"), { sizeBytes: 512 * 1024, area });
  device.writeConsole(new Uint8Array(7).fill(65));
  assert.equal([device.panicWrite({ text: "kmsg" }).status, device.state().nextZone], [0, 1]);
  const { records: found } = decodeArea(device.medium().subarray(AREA_OFFSET, AREA_OFFSET + 65536), {
    kmsgSize: 4096,
    pmsgSize: 4096,
    consoleSize: 4096,
    ftraceSize: 4096,
    cpus: 2,
    abi: "lp64",
  });
  assert.equal(
    found.map(({ name, state }) => [name, state]),
    [
      ["dmesg-pstore_blk-0", "ok"],
      ["console-pstore_blk-0", "ok"],
    ],
  );
});

test("an area that is not on the card: refused by the core too, and nothing is written", () => {
  for (const [word, value] of [
    [CONFIG_ZONE_COUNT, 0],
    [CONFIG_ZONE_COUNT, 1_000],
    [CONFIG_ZONE_COUNT, 0xffffffff],
    [CONFIG_ZONE_SECTORS, 0],
    [CONFIG_ZONE_SECTORS, 1],
    [CONFIG_ZONE_SECTORS, 0xffffffff],
  ] as const) {
    const device = open();
    const medium = device.medium().slice();
    new DataView(device.memory.buffer).setUint32(word, value, true);
    assert.is(device.core.recoverArea(), -22, `${word}, ${value}`);
    assert.is(device.panicWrite({ text: "x" }).status, -22, `${word}, ${value}`);
    assert.ok(sameBytes(device.medium(), medium));
  }
});

test.run();
