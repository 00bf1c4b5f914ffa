// Two events, not one: a CPU dies in the middle of a flush of the rings, or of a panic, and what comes then (a panic, a
// forced panic, one more flush) dies too, or the power goes in it. Whoever dies leaves the card and the memory as they are; a
// cut is made on a copy, at every mark that changes the card. Judged by the decoder alone.
//
// The first death is at each mark (rings) or at every few (records, dumps); MMCPSTORE_TWO_EVENTS=1 takes every one. Which
// ones, says a seed that is printed: MMCPSTORE_TWO_EVENTS_SEED.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CUT_OUTCOMES, type CutOutcome } from "../host/core/profile.js";
import { Device } from "../host/device.js";
import type { DeviceOptions, PanicArea } from "../host/device-options.js";
import { type CardDump, decodeDumpArea, dumpBackOffset } from "../host/dump/dump-area.js";
import { explorationText, fingerprint, makeCutter, watchCard } from "../host/explore/explore.js";
import { judgeRing } from "../host/explore/rings.js";
import { crc32c } from "../host/pstore/crc32c.js";
import { decodeArea, type PstoreRecord } from "../host/pstore/decode.js";
import { coreModule, sameBytes } from "./machine.js";

const ALL = process.env.MMCPSTORE_TWO_EVENTS === "1";
const SEED = Number(process.env.MMCPSTORE_TWO_EVENTS_SEED ?? "12");
const OUTCOMES: CutOutcome[] = ["old", "new", "torn-low", "torn-high"];
const DEATH = "this CPU stops here";

function makeRandom(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

/** A device whose CPU can be told to die at a mark, and whose marks can be listened to. */
class Mortal {
  readonly device: Device;
  #left = Number.POSITIVE_INFINITY;
  #listener: (() => void) | null = null;

  constructor(options: DeviceOptions) {
    const hit = () => {
      this.#listener?.();
      if (--this.#left >= 0) return;
      this.#left = Number.POSITIVE_INFINITY;
      throw new Error(DEATH);
    };
    this.device = Device.open(
      coreModule("explore"),
      { sizeBytes: 512 * 1024, ...options },
      { mark: { hit } },
    );
  }

  /** False if `call` came to its end before its mark `at`. */
  dies(at: number, call: () => void): boolean {
    this.#left = at;
    try {
      call();
      return false;
    } catch (error) {
      if (error instanceof Error && error.message === DEATH) return true;
      throw error;
    } finally {
      this.#left = Number.POSITIVE_INFINITY;
    }
  }

  listen(listener: () => void, call: () => void): void {
    this.#listener = listener;
    try {
      call();
    } finally {
      this.#listener = null;
    }
  }

  marks(call: () => void): number {
    let marks = 0;
    const state = this.device.saveState();
    this.listen(() => marks++, call);
    this.device.loadState(state);
    return marks;
  }
}

interface Sums {
  deaths: number;
  marks: number;
  cuts: number;
  media: number;
}

/** Power cuts at every mark of `call` that changes the card, and behind it. `judge` gets what is left, and is asked once. */
function cutEverywhere(
  mortal: Mortal,
  mediumBytes: number,
  sums: Sums,
  call: () => void,
  judge: (medium: Uint8Array) => string | null,
  seen: Set<string>,
  what: string,
): void {
  const { device } = mortal;
  const cutter = makeCutter(coreModule("explore"), device, mediumBytes);
  const unchanged = watchCard(device, false);
  let mark = 0;
  let last = 0;
  const look = () => {
    if (!unchanged()) {
      last = 0;
      for (const outcome of OUTCOMES) {
        const bytes = cutter.cut(CUT_OUTCOMES[outcome], 0n);
        last++;
        const key = fingerprint(bytes);
        if (seen.has(key)) continue;
        seen.add(key);
        sums.media++;
        const problem = judge(bytes);
        if (problem !== null) assert.unreachable(`${what}, cut at ${mark} (${outcome}): ${problem}`);
      }
    }
    sums.cuts += last;
    sums.marks++;
    mark++;
  };
  mortal.listen(look, call);
  look();
}

// --- Rings -------------------------------------------------------------------------------------------------

const RING_BYTES = 1024;
const RING_OFFSET = 64 * 1024;
const RING_AREA: PanicArea = {
  offset: RING_OFFSET + RING_BYTES,
  kmsgSize: 4096,
  kmsgCount: 2,
  abi: "lp64",
  pmsgSize: RING_BYTES,
};
const RING_END = RING_OFFSET + RING_BYTES + 2 * 4096;
const CAPACITY = RING_BYTES - 12;

/** What a reader is shown of the ring; null: nothing. */
function ringOf(medium: Uint8Array): Uint8Array | null {
  const { records } = decodeArea(medium.subarray(RING_OFFSET, RING_END), {
    kmsgSize: 4096,
    pmsgSize: RING_BYTES,
    consoleSize: 0,
    ftraceSize: 0,
    abi: "lp64",
  });
  return records.find(({ type }) => type === "pmsg")?.bytes.slice() ?? null;
}

/** Blanks between bytes: where no sector is torn there are none. */
function hasHole(view: Uint8Array): boolean {
  let first = 0;
  let end = view.length;
  while (first < end && view[first] === 0) first++;
  while (end > first && view[end - 1] === 0) end--;
  return view.subarray(first, end).includes(0);
}

const RING_KINDS: DeviceOptions[] = [
  { card: "emmc", addressing: "sector" },
  { card: "sd", dma: false },
];
/** Bytes that were flushed in this boot, and bytes that were not. */
const RING_STORIES: [number, number][] = [
  [0, 700],
  [300, 400],
  [670, 896],
  [1012, 500],
  [1500, 900],
];

test("rings: a flush dies, and the power goes in what flushes them then", () => {
  const sums: Sums = { deaths: 0, marks: 0, cuts: 0, media: 0 };
  const random = makeRandom(SEED);
  let firstMarks = 0;
  for (const options of RING_KINDS) {
    for (const [flushed, pending] of RING_STORIES) {
      const mortal = new Mortal({ ...options, area: RING_AREA });
      const { device } = mortal;
      const old = explorationText("before", 600);
      device.writePmsg(old);
      device.flushRings();
      device.powerCut("new", "kept");
      device.powerOn();
      const all = explorationText("now", flushed + pending + 60);
      const stream = all.subarray(0, flushed + pending);
      device.writePmsg(stream.subarray(0, flushed));
      if (flushed > 0) device.flushRings();
      device.writePmsg(stream.subarray(flushed));
      const before = device.saveState();
      const marks = mortal.marks(() => device.flushRings());
      firstMarks += marks;
      const seen = new Set<string>();
      const step = ALL ? 1 : 5;
      for (let at = ALL ? 0 : random(step); at < marks; at += step) {
        device.loadState(before);
        assert.ok(mortal.dies(at, () => device.flushRings()));
        sums.deaths++;
        // What is written meanwhile is a second flush behind the one that died.
        const more = random(2) === 1 && flushed > 0 ? 60 : 0;
        const heard = all.subarray(0, flushed + pending + more);
        if (more > 0) device.writePmsg(all.subarray(flushed + pending));
        const history = {
          type: "pmsg" as const,
          capacity: CAPACITY,
          old,
          stream: heard,
          acknowledged: flushed,
        };
        const what = `${options.card}, ${flushed} + ${pending} + ${more} bytes, flush dies at ${at}`;
        // A third of them dies once more, in a panic, and another panic is forced.
        const twice = random(3) === 0;
        if (twice) {
          const again = random(600);
          if (mortal.dies(again, () => device.panicWrite({ text: "one\n", timeSec: 1n }))) sums.deaths++;
        }
        cutEverywhere(
          mortal,
          RING_END,
          sums,
          () => {
            const { status, ringsStatus } = device.panicWrite({ text: "two\n", timeSec: 2n, force: true });
            assert.equal([status, ringsStatus], [0, 0], what);
          },
          (medium) => {
            const view = ringOf(medium);
            const shown = judgeRing(view, history);
            if (shown === "false")
              return `false: ${JSON.stringify(new TextDecoder().decode(view ?? undefined))}`;
            return null;
          },
          more === 0 ? seen : new Set(),
          what,
        );
        const view = ringOf(device.medium());
        assert.ok(view && sameBytes(view, heard.subarray(-CAPACITY)), `${what}: at the end`);
        if (flushed > 0 && view) assert.not(hasHole(view), what);
      }
    }
  }
  console.log(
    `\n# rings, seed ${SEED}: ${sums.deaths} deaths (of ${firstMarks} marks of ${RING_KINDS.length * RING_STORIES.length} flushes), ` +
      `then ${sums.cuts} cuts at ${sums.marks} marks, ${sums.media} media`,
  );
});

// --- Records and dumps -------------------------------------------------------------------------------------

const KMSG_BYTES = 4096;
const ZONES = 3;
const DUMP_OFFSET = 128 * 1024;
const DUMP_BYTES = 32 * 1024;
const AREA: PanicArea = { offset: RING_OFFSET, kmsgSize: KMSG_BYTES, kmsgCount: ZONES, abi: "lp64" };
const AREA_END = RING_OFFSET + KMSG_BYTES * ZONES;

function recordsOf(medium: Uint8Array): PstoreRecord[] {
  const sizes = { kmsgSize: KMSG_BYTES, pmsgSize: 0, consoleSize: 0, ftraceSize: 0, abi: "lp64" } as const;
  return decodeArea(medium.subarray(RING_OFFSET, AREA_END), sizes).records;
}

function textOf({ bytes, textOffset }: PstoreRecord): string {
  return new TextDecoder().decode(bytes.subarray(textOffset));
}

function dumpsOf(medium: Uint8Array): CardDump[] {
  const area = medium.subarray(DUMP_OFFSET, DUMP_OFFSET + DUMP_BYTES);
  return decodeDumpArea(area.subarray(0, 512), area.subarray(dumpBackOffset(DUMP_BYTES)), DUMP_BYTES);
}

interface PanicStory {
  name: string;
  options: DeviceOptions;
  oldRecords: number;
  textBytes: number;
  withDump: boolean;
  /** Of the first deaths every so many, unless all are taken. */
  step: number;
}

const PLAIN: DeviceOptions = { card: "emmc", addressing: "sector", compress: false };
const SD: DeviceOptions = { card: "sd", dma: false, compress: false };
const STORIES: PanicStory[] = [
  { name: "free zone", options: PLAIN, oldRecords: 1, textBytes: 1500, withDump: false, step: 7 },
  { name: "full area, first-wins", options: SD, oldRecords: 3, textBytes: 1500, withDump: false, step: 29 },
  {
    name: "full area, ring",
    options: { ...PLAIN, policy: "ring" },
    oldRecords: 3,
    textBytes: 1500,
    withDump: false,
    step: 11,
  },
  {
    name: "parts",
    options: { ...PLAIN, parts: 2, policy: "newest" },
    oldRecords: 2,
    textBytes: 6000,
    withDump: false,
    step: 23,
  },
  { name: "dump", options: PLAIN, oldRecords: 1, textBytes: 400, withDump: true, step: 23 },
  { name: "dump, SD", options: SD, oldRecords: 1, textBytes: 400, withDump: true, step: 97 },
];

/** Texts of the panics, whole or as parts: nothing else may be served as ok. */
function isWritten(record: PstoreRecord, texts: readonly string[]): boolean {
  const shown = textOf(record);
  return texts.some(
    (text) => (record.part > 0 ? text.includes(shown) : text.endsWith(shown)) && shown.length > 0,
  );
}

function judgeRecords(
  medium: Uint8Array,
  texts: readonly string[],
  oldTexts: readonly string[],
  mayGo: number,
): string | null {
  const records = recordsOf(medium).filter(({ state }) => state === "ok");
  const stranger = records.find((record) => !record.sealed || !isWritten(record, [...texts, ...oldTexts]));
  if (stranger !== undefined) return `${stranger.name} is ok and was never written`;
  const sequences = records.filter(({ duplicateOf }) => duplicateOf === null).map(({ sequence }) => sequence);
  if (new Set(sequences).size !== sequences.length) return `a sequence twice: ${sequences}`;
  const kept = oldTexts.filter((text) => records.some((record) => textOf(record) === text)).length;
  return kept < oldTexts.length - mayGo ? `${oldTexts.length - kept} older records are gone` : null;
}

function judgeDumps(medium: Uint8Array): string | null {
  const dumps = dumpsOf(medium);
  for (const dump of dumps) {
    if (dump.state === "damaged" || dump.storedBytes === 0) continue;
    const from = DUMP_OFFSET + dump.dataOffset;
    if (crc32c(medium.subarray(from, from + dump.storedBytes)) !== dump.dataCrc)
      return `dump ${dump.sequence}: CRC`;
  }
  return dumps.some(({ state }) => state === "complete") ? null : "no dump is complete any more";
}

for (const story of STORIES) {
  test(`a panic dies, the power goes in the next one: ${story.name}`, () => {
    const sums: Sums = { deaths: 0, marks: 0, cuts: 0, media: 0 };
    const random = makeRandom(SEED + story.step);
    const dump = story.withDump
      ? {
          class: 64 as const,
          machine: 62,
          area: { offset: DUMP_OFFSET, sizeBytes: DUMP_BYTES },
          memoryBytes: 2000,
        }
      : undefined;
    const mortal = new Mortal({ ...story.options, area: AREA, dump });
    const { device } = mortal;
    if (story.withDump)
      device.registerRegion({ name: "memory", address: 0n, source: device.dumpMemory.fill(7) });
    const oldTexts = Array.from({ length: story.oldRecords }, (_, i) => `old ${i} ${"o".repeat(300)}\n`);
    for (const [i, text] of oldTexts.entries()) {
      assert.is(device.panicWrite({ text, timeSec: BigInt(i) }).status, 0);
    }
    device.flush();
    device.powerCut("new", "kept");
    device.powerOn();
    if (story.withDump) assert.is(dumpsOf(device.medium()).length, 1);
    const texts = ["one", "two", "three"].map((label) =>
      new TextDecoder().decode(explorationText(label, story.textBytes)),
    );
    const [one = "", two = "", three = ""] = texts;
    const before = device.saveState();
    const marks = mortal.marks(() => device.panicWrite({ text: one, timeSec: 10n }));
    const seen = new Set<string>();
    const step = ALL ? 1 : story.step;
    // Each of two panics may give up a record: the one that it replaces, or those that its parts do.
    const mayGo = story.oldRecords + (story.name === "parts" ? 2 : 1) > ZONES ? 2 : 0;
    for (let at = ALL ? 0 : random(step); at < marks; at += step) {
      device.loadState(before);
      assert.ok(mortal.dies(at, () => device.panicWrite({ text: one, timeSec: 10n })));
      sums.deaths++;
      if (
        random(3) === 0 &&
        mortal.dies(random(marks), () => device.panicWrite({ text: two, timeSec: 11n, force: true }))
      )
        sums.deaths++;
      const what = `${story.name}, dies at ${at} of ${marks}`;
      cutEverywhere(
        mortal,
        story.withDump ? DUMP_OFFSET + DUMP_BYTES : AREA_END,
        sums,
        () => {
          const result = device.panicWrite({ text: three, timeSec: 12n, force: true });
          assert.is(result.status, 0, what);
          if (story.withDump) assert.is(result.dump?.status, 0, what);
        },
        (medium) =>
          judgeRecords(medium, texts, oldTexts, mayGo) ?? (story.withDump ? judgeDumps(medium) : null),
        seen,
        what,
      );
      const last = recordsOf(device.medium()).find(
        (record) => record.state === "ok" && isWritten(record, [three]),
      );
      assert.ok(last, `${what}: the last panic said 0`);
    }
    console.log(
      `\n# ${story.name}, seed ${SEED}: ${sums.deaths} deaths (of ${marks} marks), then ${sums.cuts} cuts ` +
        `at ${sums.marks} marks, ${sums.media} media`,
    );
  });
}

test.run();
