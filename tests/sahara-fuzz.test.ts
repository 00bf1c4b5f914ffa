// Sahara under hostile bytes: tables, packets, frames, containers. Nothing but MmcError is thrown, everything ends,
// no more memory is asked for than the limits allow, and no name leaves its folder. `MMCPSTORE_SAHARA_RUNS` inputs
// (2,000), by default from the same seed each time; `MMCPSTORE_SAHARA_SEED`.
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DumpFolder, saharaHead } from "../host/cli/dump-store.js";
import {
  makePacket,
  makePacket64,
  makeTable,
  parseTable,
  regionFileName,
  type SaharaEntry,
  type SaharaWidth,
} from "../host/dump/sahara.js";
import { type SaharaAction, SaharaCollector } from "../host/dump/sahara-collector.js";
import { makeContainerHead, readContainer } from "../host/dump/sahara-container.js";
import { FrameReader } from "../host/dump/sahara-frames.js";
import { MmcError } from "../host/errors.js";
import { crashed, memory } from "./sahara-pair.js";

const RUNS = Number(process.env.MMCPSTORE_SAHARA_RUNS ?? 2000);
let state = Number(process.env.MMCPSTORE_SAHARA_SEED ?? 1) >>> 0;

/** 0 to `end` - 1. */
function chance(end: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * end);
}

function pick<T>(...choices: T[]): T {
  return choices[chance(choices.length)] as T;
}

function randomBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = chance(256);
  return bytes;
}

function randomText(): string {
  const hostile = [
    "..",
    "/",
    "\\",
    "\0",
    "\x1b[2J",
    "A",
    ".",
    "-",
    "\n",
    "%",
    "\xff",
    "CON",
    "manifest.json",
  ];
  return Array.from({ length: chance(8) }, () => pick(...hostile))
    .join("")
    .slice(0, 20);
}

function randomNumber(): bigint {
  return pick(
    0n,
    1n,
    15n,
    16n,
    17n,
    500n,
    0xfff0n,
    (1n << 32n) - 1n,
    1n << 62n,
    (1n << 63n) + 1n,
    (1n << 64n) - 1n,
  );
}

function randomEntries(): SaharaEntry[] {
  return Array.from({ length: 1 + chance(5) }, () => ({
    type: randomNumber(),
    address: randomNumber(),
    lengthBytes: pick(randomNumber(), BigInt(chance(200))),
    description: randomText(),
    name: randomText(),
  }));
}

function mutated(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice(0, pick(bytes.length, bytes.length, chance(bytes.length + 1)));
  for (let i = chance(4); i > 0 && copy.length > 0; i--)
    copy[chance(copy.length)] = pick(0, 0xff, chance(256));
  return copy;
}

const LIMIT_BYTES = 1000;

/** The bytes of a region are never more than was admitted, and never out of order. */
class Watch {
  received = new Map<number, number>();
  sums = 0;
  hasEnded = false;
  asked = 0;

  see(actions: SaharaAction[]): void {
    for (const action of actions) {
      assert.not(this.hasEnded, "an action after the end");
      if (action.kind === "data") {
        assert.is(this.received.get(action.index) ?? 0, action.offset);
        this.received.set(action.index, action.offset + action.bytes.length);
        this.sums += action.bytes.length;
        assert.ok(this.sums <= LIMIT_BYTES, `${this.sums} bytes`);
      } else if (action.kind === "end") this.hasEnded = true;
      else if (action.kind === "send") {
        const view = new DataView(action.bytes.buffer, action.bytes.byteOffset, action.bytes.byteLength);
        const command = view.getUint32(0, true);
        if (command === 0x11) this.asked = Number(view.getBigUint64(16, true));
        if (command === 0x0a) this.asked = view.getUint32(12, true);
        assert.ok(this.asked <= 0xfff0 && (this.asked !== 16 || command < 9), `${this.asked} asked for`);
      } else if (action.kind === "table") {
        for (const { index, name } of action.regions) {
          assert.match(
            regionFileName(index, action.regions.length, name),
            /^\d{2,}-[A-Za-z0-9._%-]*[A-Za-z0-9_%-]$/,
          );
        }
      }
    }
  }
}

test("hostile tables: the collector ends, within its limits", () => {
  let complete = 0;
  for (let run = 0; run < RUNS; run++) {
    const width: SaharaWidth = pick(32, 64);
    const table = makeTable(randomEntries(), width);
    const collector = new SaharaCollector({
      regionBytesMax: LIMIT_BYTES,
      totalBytesMax: LIMIT_BYTES,
      keepGoing: pick(true, false),
    });
    const watch = new Watch();
    watch.see(collector.connected());
    watch.see(collector.receive(makePacket(1, 2, 1, 1024, 2)));
    watch.see(
      collector.receive(
        width === 64
          ? makePacket64(0x10, pick(0n, randomNumber()), BigInt(table.length))
          : makePacket(9, 0, table.length),
      ),
    );
    watch.see(collector.receive(mutatedRarely(table)));
    for (let steps = 0; !watch.hasEnded; steps++) {
      assert.ok(steps < 200, "no end");
      const answer = randomBytes(pick(watch.asked, watch.asked, watch.asked, watch.asked, chance(80)));
      watch.see(collector.receive(pick(answer, answer, answer, makePacket(4, 0, chance(50)))));
    }
    if (collector.isComplete) complete++;
  }
  assert.ok(complete > RUNS / 50, `${complete} of ${RUNS} complete`);
});

function mutatedRarely(bytes: Uint8Array): Uint8Array {
  return chance(10) === 0 ? mutated(bytes) : bytes;
}

test("hostile packets: host and device throw nothing, and the host ends or waits", () => {
  let ended = 0;
  for (let run = 0; run < RUNS; run++) {
    const images = new Map([
      [1, { lengthBytes: 100, read: (_: number, count: number) => new Uint8Array(count) }],
    ]);
    const collector = new SaharaCollector({
      regionBytesMax: LIMIT_BYTES,
      totalBytesMax: LIMIT_BYTES,
      images,
    });
    const device = crashed([memory("A", 0x1000, 100)], { width: pick(32, 64) });
    const watch = new Watch();
    watch.see(collector.connected());
    device.connected();
    for (let i = 0; i < 12; i++) {
      const fields = Array.from({ length: 6 }, () => pick(0, 1, 2, 16, 52, 64, 100, 0x1000, 0xffffffff));
      const known = pick(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18);
      const fieldCount = (makePacket(known).length - 8) / 4;
      const packet = makePacket(known, ...fields.slice(0, fieldCount));
      const transfer = pick(packet, packet, mutated(packet), randomBytes(chance(70)));
      if (!watch.hasEnded) watch.see(collector.receive(transfer));
      for (const action of device.receive(transfer)) {
        if (action.kind === "send") assert.ok(action.bytes.length <= 0x80000);
      }
    }
    if (watch.hasEnded) ended++;
  }
  assert.ok(ended > RUNS / 4, `${ended} of ${RUNS} ended`);
});

test("hostile frames: whole transfers within the limit, or EPROTO", () => {
  let refused = 0;
  for (let run = 0; run < RUNS; run++) {
    const reader = new FrameReader(300);
    try {
      for (let i = 0; i < 20; i++) {
        const length = pick(0, 1, 5, 100, 290, chance(400));
        const header = [length & 0xff, length >> 8, pick(2, 2, 4, 3, chance(256)), pick(0, 0, 0, 1)];
        const frame = Uint8Array.from([...header, ...randomBytes(pick(length, length, chance(50)))]);
        for (const transfer of reader.push(frame)) assert.ok(transfer.length > 0 && transfer.length <= 300);
      }
    } catch (error) {
      assert.is((error as MmcError).code, "EPROTO");
      refused++;
    }
  }
  assert.ok(refused > RUNS / 10 && refused < RUNS * 2);
});

test("hostile containers: read within their bytes, or MmcError", () => {
  let good = 0;
  for (let run = 0; run < RUNS; run++) {
    const small = randomEntries().map((one) => ({ ...one, lengthBytes: BigInt(chance(100)) }));
    const head = makeContainerHead(small);
    const dataBytes = small.reduce((sum, one) => sum + Number(one.lengthBytes), 0);
    const whole = new Uint8Array(head.length + dataBytes);
    whole.set(head);
    const bytes = pick(whole, mutated(whole), mutated(whole));
    const read = (offset: number, count: number) => {
      assert.ok(offset >= 0 && count >= 0 && offset + count <= bytes.length, `${count} at ${offset}`);
      return bytes.slice(offset, offset + count);
    };
    try {
      const container = readContainer({ sizeBytes: bytes.length, read });
      for (const { offset, storedBytes, lengthBytes } of container.regions) {
        read(offset, storedBytes);
        assert.ok(BigInt(storedBytes) <= lengthBytes);
        assert.ok(!container.isComplete || BigInt(storedBytes) === lengthBytes);
      }
      good++;
    } catch (error) {
      if (!(error instanceof MmcError)) throw error;
    }
  }
  assert.ok(good > RUNS / 5 && good < RUNS, `${good} of ${RUNS}`);
});

test("hostile names on a disk: every file is in the folder, none is made over another", () => {
  const outer = mkdtempSync(join(tmpdir(), "mmcpstore-sahara-"));
  try {
    for (let run = 0; run < Math.min(RUNS / 20, 500); run++) {
      const folder = join(outer, "inner", "dump");
      mkdirSync(join(outer, "inner"));
      const raw = makeTable(randomEntries(), 64);
      const entries = parseTable(pick(raw, randomBytes(raw.length)), 64);
      const regions = entries.map((entry, index) => {
        const state = "complete" as const;
        return { ...entry, lengthBytes: 3n, index, state, receivedBytes: 0, why: "", overlaps: false };
      });
      const store = new DumpFolder(folder);
      store.begin(saharaHead(64, raw), regions, 3 * regions.length);
      for (const region of regions) {
        store.data(region.index, 0, new Uint8Array(3));
        region.receivedBytes = 3;
        store.end(region);
      }
      store.finish(true, "");
      assert.is(readdirSync(folder).length, regions.length + 1);
      assert.equal(readdirSync(join(outer, "inner")), ["dump"]);
      assert.equal(readdirSync(outer), ["inner"]);
      rmSync(join(outer, "inner"), { recursive: true });
    }
  } finally {
    rmSync(outer, { recursive: true });
  }
});

test.run();
