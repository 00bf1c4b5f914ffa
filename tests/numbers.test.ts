// Sequences, counts and times: given once, and told at their end. A number is used once its seal was sent; a zone that could
// not be read at boot hides none; one zone with made-up numbers and a right CRC does not decide for all that follow.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device } from "../host/device.js";
import type { DeviceOptions, PanicArea } from "../host/device-options.js";
import { bestDump, decodeDumpArea, dumpBackOffset } from "../host/dump/dump-area.js";
import { MmcError } from "../host/errors.js";
import { crc32c } from "../host/pstore/crc32c.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule } from "./machine.js";

const OFFSET = 65536;
const KMSG_BYTES = 4096;
const SIZES = { kmsgSize: KMSG_BYTES, pmsgSize: 0, consoleSize: 0, ftraceSize: 0, abi: "lp64" } as const;
const LAST = 2n ** 64n - 1n;

function open(kmsgCount: number, options: DeviceOptions = {}, kmsgSize = KMSG_BYTES): Device {
  const area: PanicArea = { offset: OFFSET, kmsgSize, kmsgCount, abi: "lp64" };
  return Device.open(coreModule("release"), {
    sizeBytes: 512 * 1024,
    addressing: options.card === "sd" ? undefined : "sector",
    compress: false,
    ...options,
    area,
  });
}

function recordsOf(device: Device, kmsgCount: number, kmsgSize = KMSG_BYTES) {
  const bytes = device.medium().slice(OFFSET, OFFSET + kmsgSize * kmsgCount);
  return decodeArea(bytes, { ...SIZES, kmsgSize }).records;
}

interface Made {
  sequence: bigint;
  counter?: number;
  panics?: number;
  timeSec?: bigint;
  latest?: bigint;
}

/** A zone as docs/FORMAT.md has it, sealed with these numbers. */
function makeZone({
  sequence,
  counter = 1,
  panics = 1,
  timeSec = 1000n,
  latest = timeSec,
}: Made): Uint8Array {
  const zone = new Uint8Array(KMSG_BYTES);
  const view = new DataView(zone.buffer);
  const text = new TextEncoder().encode("made up\n");
  const datalen = 40 + text.length;
  view.setUint32(0, 0x43474244, true);
  view.setInt32(4, datalen, true);
  view.setUint32(12, 0x4dfc3ae5, true);
  view.setBigInt64(20, timeSec, true);
  view.setUint32(40, counter, true);
  view.setUint32(44, 1, true);
  zone.set(text, 52);
  const seal = KMSG_BYTES - 64;
  view.setUint32(seal, 0x53434d4d, true);
  view.setUint32(seal + 4, 1, true);
  view.setBigUint64(seal + 8, sequence, true);
  view.setUint32(seal + 16, datalen, true);
  view.setUint32(seal + 20, crc32c(zone.subarray(0, 12 + datalen)), true);
  view.setBigInt64(seal + 40, latest, true);
  view.setUint32(seal + 48, panics, true);
  view.setUint32(seal + 60, crc32c(zone.subarray(seal, seal + 60)), true);
  return zone;
}

const POLICIES = ["first-wins", "ring", "newest"] as const;

test("one zone with a sequence that cannot be decides nothing", () => {
  let cases = 0;
  for (const made of [LAST, LAST - 1n, 2n ** 63n, 2n ** 48n, 2n ** 33n + 10n]) {
    for (const policy of POLICIES) {
      for (const before of [0, 1, 3]) {
        const device = open(4, { policy });
        for (let i = 0; i < before; i++)
          device.panicWrite({ text: `before ${i}\n`, timeSec: BigInt(100 + i) });
        device.flush();
        device.medium().set(makeZone({ sequence: made }), OFFSET + 3 * KMSG_BYTES);
        const zones = new Set<number>();
        let last = 0n;
        for (let i = 0; i < 6; i++) {
          device.powerCut();
          device.powerOn();
          const { status, sequence, zone } = device.panicWrite({
            text: `fresh ${i}\n`,
            timeSec: BigInt(200 + i),
          });
          const what = `${made}, ${policy}, ${before} before, panic ${i}: sequence ${sequence}`;
          assert.is(status, 0, what);
          assert.ok(sequence > last && sequence < 20n, what);
          last = sequence;
          zones.add(zone);
          for (const record of recordsOf(device, 4)) {
            assert.is(record.outOfOrder, record.sequence === made, what);
            if (record.sequence !== made) assert.ok((record.sequence ?? 0n) <= sequence, what);
          }
          cases++;
        }
        if (policy !== "first-wins") assert.ok(zones.size >= 3, `${made}, ${policy}: ${[...zones]}`);
      }
    }
  }
  console.log(`# ${cases} panics beside a zone whose sequence is made up`);
});

test("sequences that were reached in steps are continued from, however large", () => {
  const step = 2n ** 32n;
  for (const sequences of [[step], [5n, step + 5n], [step, 2n * step], [7n, step, 2n * step, 3n * step]]) {
    const device = open(6);
    for (const [zone, sequence] of sequences.entries()) {
      device.medium().set(makeZone({ sequence }), OFFSET + zone * KMSG_BYTES);
    }
    device.powerCut();
    device.powerOn();
    const most = sequences.at(-1) ?? 0n;
    assert.is(device.panicWrite({ text: "next\n", timeSec: 5n }).sequence, most + 1n);
    assert.ok(recordsOf(device, 6).every(({ outOfOrder }) => !outOfOrder));
  }
});

test("counts end at 2^31 - 1, and none is negative", () => {
  for (const [made, next] of [
    [0x7ffffffe, 0x7fffffff],
    [0x7fffffff, 0x7fffffff],
    [0x80000000, 1],
    [0xffffffff, 1],
  ] as const) {
    const device = open(4);
    device.medium().set(makeZone({ sequence: 5n, counter: made, panics: made }), OFFSET);
    device.powerCut();
    device.powerOn();
    const result = device.panicWrite({ text: "next\n", timeSec: 5n });
    assert.equal([result.status, result.count, result.sequence], [0, next, 6n], `${made}`);
    assert.is(device.state().panicCount, next);
    const counts = recordsOf(device, 4).map(({ count }) => count);
    assert.equal(counts, [made, next]);
  }
});

test("times: what a header cannot say is refused, and one that cannot be orders nothing", () => {
  const device = open(4);
  for (const timeSec of [2n ** 63n, 2n ** 64n + 7n, -(2n ** 63n) - 1n]) {
    assert.throws(
      () => device.panicWrite({ text: "t\n", timeSec }),
      (error: unknown) => error instanceof MmcError && error.code === "EINVAL",
    );
  }
  assert.is(recordsOf(device, 4).length, 0);
  device.medium().set(makeZone({ sequence: 5n, latest: 2n ** 63n - 1n }), OFFSET);
  device.powerCut();
  device.powerOn();
  assert.is(device.panicWrite({ text: "ours\n", timeSec: 2000n }).status, 0);
  // Linux's own, later: no seal.
  const own = makeZone({ sequence: 9n, timeSec: 3000n });
  own.fill(0, KMSG_BYTES - 64);
  device.medium().set(own, OFFSET + 2 * KMSG_BYTES);
  device.powerCut();
  device.powerOn();
  assert.is(device.state().newestZone, 2, "the later of two by the clock");
});

test("a dump header with a made-up sequence is not the best for ever", () => {
  const sizeBytes = 128 * 1024;
  const offset = 128 * 1024;
  for (const made of [LAST, 2n ** 63n, 2n ** 62n, 2n ** 40n]) {
    for (const slot of ["front", "back"] as const) {
      const device = open(4, {
        dump: { class: 64, machine: 62, area: { offset, sizeBytes }, memoryBytes: 4096 },
      });
      device.registerRegion({ name: "r", address: 0n, source: device.dumpMemory });
      const panics = slot === "front" ? 1 : 2;
      for (let i = 0; i < panics; i++) assert.is(device.panicWrite({ text: "1\n" }).dump?.status, 0);
      const area = device.medium().subarray(offset, offset + sizeBytes);
      const header = slot === "front" ? area : area.subarray(dumpBackOffset(sizeBytes));
      const view = new DataView(header.buffer, header.byteOffset);
      view.setBigUint64(16, made, true);
      view.setUint32(508, crc32c(header.subarray(0, 508)), true);
      let last = 0n;
      for (let i = 0; i < 4; i++) {
        const { dump } = device.panicWrite({ text: "2\n" });
        const what = `${made} ${slot}: dump ${i}, ${dump?.status}, sequence ${dump?.sequence}`;
        assert.ok(dump?.status === 0 && dump.sequence > last && dump.sequence < 20n, what);
        last = dump.sequence;
        const dumps = decodeDumpArea(
          area.subarray(0, 512),
          area.subarray(dumpBackOffset(sizeBytes)),
          sizeBytes,
        );
        assert.is(bestDump(dumps)?.sequence, dump.sequence, what);
      }
    }
  }
});

test("a number is used once its seal was sent, whatever became of the record", () => {
  // A part that cannot be read back, at every read, three times: the next record never has its number, and what was said to
  // be dropped is not on the medium.
  let cases = 0;
  const log = (label: string) => {
    let text = "";
    while (text.length < 2670) text += `${label} ${String(text.length).padStart(6, "0")}\n`;
    return text;
  };
  for (const kind of ["read-ecc", "program", "phantom-write", "bit-rot"] as const) {
    for (let skip = 0; skip < 14; skip++) {
      for (const times of [1, 3]) {
        const device = open(3, { parts: 2 }, 2048);
        const firstLba = OFFSET / 512;
        device.injectFault({ kind, firstLba, lastLba: firstLba + 11, skip, times });
        const first = device.panicWrite({ text: log("p1p"), reason: "Oops" });
        device.clearFaults();
        const standing = recordsOf(device, 3, 2048).filter(({ state }) => state === "ok");
        const second = device.panicWrite({ text: log("p2p"), reason: "Oops" });
        const what = `${kind}, skip ${skip}, ${times} times: ${first.status}/${first.partsStatus}`;
        assert.is(second.status, 0, what);
        for (const { sequence, part, bytes } of standing) {
          assert.ok((sequence ?? 0n) < second.sequence, `${what}: sequence ${sequence} is given again`);
          const isFirst = new TextDecoder().decode(bytes).includes("p1p");
          if (isFirst && part > first.parts)
            assert.unreachable(`${what}: part ${part} was said to be dropped`);
        }
        cases++;
      }
    }
  }
  console.log(`# ${cases} records of which a part could not be proved`);
});

test("one bad read while the zones are looked at hides nothing", () => {
  let cases = 0;
  for (const card of ["emmc", "sd"] as const) {
    for (const kmsgCount of [1, 2, 4]) {
      for (const kind of ["read-crc", "read-ecc", "read-silent", "no-response", "response-crc"] as const) {
        for (const times of [1, 2]) {
          for (let zone = 0; zone < kmsgCount; zone++) {
            for (const lastSector of [0, 7]) {
              const device = open(kmsgCount, { card });
              for (let i = 0; i < kmsgCount; i++)
                device.panicWrite({ text: `old ${i}\n`, timeSec: BigInt(i + 1) });
              device.flush();
              device.powerCut();
              const lba = OFFSET / 512 + zone * 8 + lastSector;
              const place = kind.startsWith("read")
                ? { firstLba: lba, lastLba: lba }
                : { command: 17, skip: 2 * zone };
              device.injectFault({ kind, ...place, times });
              device.powerOn();
              device.clearFaults();
              const result = device.panicWrite({ text: "new\n", timeSec: 50n });
              const what = `${card}, ${kmsgCount} zones, ${kind} × ${times} in zone ${zone}`;
              assert.is(result.status, 0, what);
              assert.is(result.count, kmsgCount + 1, what);
              assert.ok(result.sequence > BigInt(kmsgCount), `${what}: sequence ${result.sequence}`);
              cases++;
            }
          }
        }
      }
    }
  }
  console.log(`# ${cases} boots with a bad read: no number is given twice, no zone is lost`);
});

test.run();
