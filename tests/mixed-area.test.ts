// An area that two write: our panic path, and Linux as docs/FORMAT.md and Linux's own rules say it chooses a zone, writes,
// unlinks and is cut in the middle of a write, with clocks that are lost and found. Before each panic, the rules of
// docs/FORMAT.md are applied to what decode.ts reads: zone, counter and sequence must be those.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device, type Reason } from "../host/device.js";
import type { PanicArea } from "../host/device-options.js";
import { decodeArea, type ZoneInfo } from "../host/pstore/decode.js";
import { coreModule, pattern, sameBytes } from "./machine.js";

const ZONE_BYTES = 4096;
const AREA_OFFSET = 65536;
const CARD_BYTES = 512 * 1024;
const REASONS: Reason[] = ["Panic", "Oops", "Emergency", "Shutdown"];
const SEQUENCES = 150;
const TURNS = 30;

const lines: string[] = [];

/** 0 … below - 1, the same in every run. */
function dice(seed: number): (below: number) => number {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

type Policy = "first-wins" | "ring";

class MixedArea {
  readonly panicArea: PanicArea;
  #card = new Uint8Array(CARD_BYTES);

  constructor(abi: "lp64" | "i386", kmsgCount: number) {
    this.panicArea = { offset: AREA_OFFSET, kmsgSize: ZONE_BYTES, kmsgCount, abi };
  }

  bytes(): Uint8Array {
    return this.#card.slice(AREA_OFFSET, AREA_OFFSET + this.panicArea.kmsgCount * ZONE_BYTES);
  }

  zones(): ZoneInfo[] {
    const sizes = { kmsgSize: ZONE_BYTES, pmsgSize: 0, consoleSize: 0, ftraceSize: 0 };
    return decodeArea(this.bytes(), { ...sizes, abi: this.panicArea.abi }).zones;
  }

  panic(reason: Reason, text: Uint8Array, timeSec: number, policy: Policy) {
    const area = this.panicArea;
    const device = Device.open(coreModule("release"), { content: this.#card, area, policy });
    const result = device.panicWrite({ reason, text, timeSec: BigInt(timeSec) });
    device.flush();
    this.#card = device.medium().slice(0, CARD_BYTES);
    return result;
  }

  /** Linux: the zone behind the latest time, removed ones too; the whole zone in one write, or its first sectors. */
  linuxWrites(reason: number, text: Uint8Array, timeSec: number, sectors = ZONE_BYTES / 512): void {
    const zones = this.zones();
    let latest = -1;
    let latestSec = 0n;
    let count = 0;
    for (const zone of zones) {
      if (zone.state === "empty" || !isLengthPossible(zone)) continue;
      if (zone.timeSec >= latestSec) {
        latest = zone.index;
        latestSec = zone.timeSec;
      }
      if (zone.reason === reason) count = Math.max(count, zone.counter);
    }
    const { abi, kmsgCount } = this.panicArea;
    const headerBytes = abi === "lp64" ? 40 : 28;
    const zone = new Uint8Array(ZONE_BYTES);
    const view = new DataView(zone.buffer);
    view.setUint32(0, 0x43474244, true);
    view.setInt32(4, headerBytes + text.length, true);
    view.setUint32(12, 0x4dfc3ae5, true);
    view.setBigInt64(abi === "lp64" ? 20 : 16, BigInt(timeSec), true);
    view.setUint32(abi === "lp64" ? 40 : 32, count + 1, true);
    view.setUint32(abi === "lp64" ? 44 : 36, reason, true);
    zone.set(text, 12 + headerBytes);
    const at = AREA_OFFSET + ((latest + 1) % kmsgCount) * ZONE_BYTES;
    this.#card.set(zone.subarray(0, sectors * 512), at);
  }

  unlink(zone: number): void {
    this.#card.fill(0, AREA_OFFSET + zone * ZONE_BYTES + 4, AREA_OFFSET + zone * ZONE_BYTES + 8);
  }
}

function isLengthPossible({ datalen }: ZoneInfo): boolean {
  return datalen >= 0 && datalen <= ZONE_BYTES - 12;
}

/** docs/FORMAT.md, "Choosing a zone" and "The seal". */
function expected(area: Uint8Array, zones: ZoneInfo[], reason: Reason, policy: Policy) {
  const bytes = new DataView(area.buffer, area.byteOffset);
  let latestSec = 0n;
  let sealed: ZoneInfo | null = null;
  let unsealed: ZoneInfo | null = null;
  let count = 0;
  let sequence = 0n;
  for (const zone of zones) {
    const seal = zone.offset + zone.size - 64;
    if (zone.sequence !== null) {
      if (zone.sequence > sequence) sequence = zone.sequence;
      // The counts of Panics and of Oopses.
      if (reason === "Panic") count = Math.max(count, bytes.getUint32(seal + 48, true));
      if (reason === "Oops") count = Math.max(count, bytes.getUint32(seal + 52, true));
    }
    if (zone.state === "empty" || !isLengthPossible(zone)) continue;
    if (zone.reason === REASONS.indexOf(reason) + 1) count = Math.max(count, zone.counter);
    if (zone.sequence === null) {
      if (zone.timeSec >= (unsealed?.timeSec ?? 0n)) unsealed = zone;
    } else if (zone.state !== "torn" && zone.sequence >= (sealed?.sequence ?? 0n)) {
      sealed = zone;
      latestSec = bytes.getBigInt64(seal + 40, true);
    }
  }
  let newest = sealed ?? unsealed;
  if (sealed !== null && unsealed !== null && unsealed.timeSec > latestSec) newest = unsealed;
  const start = newest === null ? 0 : newest.index + 1;
  const around = zones.map((_, i) => zones[(start + i) % zones.length] as ZoneInfo);
  const damaged = ({ state }: ZoneInfo) => state === "torn" || state === "salvaged";
  const free = around.find(({ state }) => state === "empty" || state === "erased") ?? around.find(damaged);
  const givenUp = policy === "ring" ? around[0] : around.at(-1);
  return {
    zone: (free ?? givenUp)?.index,
    count: reason === "Panic" || reason === "Oops" ? count + 1 : 0,
    sequence: sequence + 1n,
    full: free === undefined,
  };
}

for (const abi of ["lp64", "i386"] as const) {
  test(`${abi}: ours and Linux's in any order`, () => {
    let panics = 0;
    let whenFull = 0;
    let torn = 0;
    for (let seed = 0; seed < SEQUENCES; seed++) {
      const next = dice(seed);
      const area = new MixedArea(abi, 1 + next(7));
      let clock = 1_795_000_000;
      for (let turn = 0; turn < TURNS; turn++) {
        // One boot in five has lost its clock.
        clock += next(3);
        const timeSec = next(5) === 0 ? 978_307_200 + next(100) : clock;
        const text = pattern(seed * TURNS + turn, 1 + next(3900)).map((byte) => 32 + (byte & 63));
        const what = next(8);
        if (what < 2) area.linuxWrites(2, text, timeSec);
        else if (what === 2) area.linuxWrites(2, text, timeSec, next(8));
        else if (what === 3) {
          const zones = area.zones().filter(({ state }) => state === "ok");
          const zone = zones[next(Math.max(1, zones.length))];
          if (zone) area.unlink(zone.index);
        } else {
          const reason = REASONS[next(4)] as Reason;
          const policy = next(2) === 0 ? "ring" : "first-wins";
          const zones = area.zones();
          const before = area.bytes();
          const wanted = expected(before, zones, reason, policy);
          const { status, zone, count, sequence } = area.panic(reason, text, timeSec, policy);
          const where = `${abi}, seed ${seed}, turn ${turn}`;
          assert.equal({ status, zone, count, sequence, full: wanted.full }, { status: 0, ...wanted }, where);
          const written = area.zones()[zone];
          assert.is(written?.state, "ok", where);
          assert.ok(written?.sealed && written.counter === count && written.sequence === sequence, where);
          const after = area.bytes();
          for (const { index, offset, size } of zones) {
            const same = sameBytes(
              after.subarray(offset, offset + size),
              before.subarray(offset, offset + size),
            );
            assert.ok(index === zone || same, `${where}: zone ${index} changed`);
          }
          panics++;
          if (wanted.full) whenFull++;
          if (zones.some(({ state }) => state === "torn")) torn++;
        }
      }
    }
    assert.ok(whenFull > 100 && torn > 100, `${whenFull}, ${torn}`);
    lines.push(`# ${abi}: ${panics} panics, ${whenFull} into a full area, ${torn} beside torn zones`);
  });
}

test.after(() => console.log(`\n${lines.join("\n")}`));
test.run();
