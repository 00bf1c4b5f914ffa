// Power cuts while rings are written: at every mark of one flush, or of one panic that flushes them, the power of a
// copy goes with every outcome, and decode.ts tells what is left. What must hold of a ring then:
//   it shows the boot before as that one left it, if nothing of this boot was acknowledged, or nothing;
//   else this boot's newest bytes: every acknowledged one for which there is room, in order, none of another boot.
//   Bytes on their way out, and bytes not acknowledged yet, may be blank (0).
// Crash ids as explore.ts has them. Nothing of Node, no chance.
import { CUT_OUTCOMES, type CutOutcome } from "../core/profile.js";
import { Device } from "../device.js";
import type { DeviceOptions, PanicArea } from "../device-options.js";
import { decodeArea, type PstoreRecord } from "../pstore/decode.js";
import {
  CACHE_MASKS,
  type CacheName,
  explorationText,
  fingerprint,
  makeCutter,
  watchCard,
} from "./explore.js";

export interface RingScenario {
  name: string;
  options: DeviceOptions;
  /** Bytes that the boot before left in each ring. */
  oldBytes: number;
  /** Written and flushed one after the other in this boot: acknowledged. */
  flushedBytes: number[];
  /** Written then, and what the explored call is to bring to the medium. */
  pendingBytes: number;
  /** The explored call: a flush, or a panic with a record of its own. */
  call: "flush" | "panic";
}

const AREA_OFFSET = 64 * 1024;
const PMSG_BYTES = 1536;
const CONSOLE_BYTES = 2048;
const KMSG_BYTES = 4096;
const KMSG_COUNT = 2;
const AREA: PanicArea = {
  offset: AREA_OFFSET + PMSG_BYTES + CONSOLE_BYTES,
  kmsgSize: KMSG_BYTES,
  kmsgCount: KMSG_COUNT,
  abi: "lp64",
  pmsgSize: PMSG_BYTES,
  consoleSize: CONSOLE_BYTES,
};
const AREA_BYTES = PMSG_BYTES + CONSOLE_BYTES + KMSG_COUNT * KMSG_BYTES;
const SIZES = {
  kmsgSize: KMSG_BYTES,
  pmsgSize: PMSG_BYTES,
  consoleSize: CONSOLE_BYTES,
  ftraceSize: 0,
  abi: "lp64",
} as const;
const HEADER_BYTES = 12;
const SECTOR_BYTES = 512;
/** Neither the old nor the new bytes of the sector in programming. */
const DESTROYS = new Set<CutOutcome>(["zero", "ones", "noise", "unreadable"]);

/** What was said to one ring. */
export interface RingHistory {
  type: "pmsg" | "console";
  capacity: number;
  /** What the boot before left, as a reader sees it. */
  old: Uint8Array;
  /** All bytes of this boot. */
  stream: Uint8Array;
  /** How many of them are acknowledged. */
  acknowledged: number;
}

export interface RingExploration {
  marks: number;
  cuts: number;
  media: number;
  /** Rings of all cuts, by what they showed: nothing, the boot before, or this boot's bytes. */
  empty: number;
  old: number;
  truthful: number;
  /** Rings with blanks among what they showed. */
  blanked: number;
  failures: string[];
  status: number;
}

const EMMC: DeviceOptions = { card: "emmc" };
const SD: DeviceOptions = { card: "sd" };
const FLUSHED: DeviceOptions = { card: "emmc", cacheSectors: 16, reliableWrite: false, cmd23: false };
const FORCED: DeviceOptions = { card: "emmc", cacheSectors: 16, reliableWrite: false };

function scenario(name: string, options: DeviceOptions, changes: Partial<RingScenario>): RingScenario {
  return { name, options, oldBytes: 3000, flushedBytes: [], pendingBytes: 700, call: "flush", ...changes };
}

/** Names are part of crash ids: never renamed. */
export const RING_SCENARIOS: RingScenario[] = [
  scenario("rings-blank-area", EMMC, { oldBytes: 0 }),
  scenario("rings-first-flush", EMMC, {}),
  scenario("rings-first-flush-sd", SD, {}),
  scenario("rings-first-flush-flushed", FLUSHED, {}),
  scenario("rings-first-flush-longer-than-ring", SD, { pendingBytes: 5000 }),
  scenario("rings-grow", EMMC, { flushedBytes: [300] }),
  scenario("rings-grow-sd", SD, { flushedBytes: [100, 200] }),
  scenario("rings-grow-within-first-sector", SD, { flushedBytes: [100], pendingBytes: 150 }),
  scenario("rings-fill-exactly", SD, { flushedBytes: [824], pendingBytes: 700 }),
  scenario("rings-wrap", EMMC, { flushedBytes: [1400] }),
  scenario("rings-wrap-sd", SD, { flushedBytes: [1400] }),
  scenario("rings-wrap-pio", { ...SD, dma: false }, { flushedBytes: [1400] }),
  scenario("rings-full", EMMC, { flushedBytes: [2200, 300] }),
  scenario("rings-full-sd", SD, { flushedBytes: [2200, 300] }),
  scenario("rings-full-flushed", FLUSHED, { flushedBytes: [2200, 300] }),
  scenario("rings-full-forced", FORCED, { flushedBytes: [2200, 300] }),
  scenario("rings-full-to-the-end", SD, { flushedBytes: [1524, 1000], pendingBytes: 524 }),
  scenario("rings-full-over-the-end", SD, { flushedBytes: [1524, 1300], pendingBytes: 600 }),
  scenario("rings-replaced", SD, { flushedBytes: [1700], pendingBytes: 2500 }),
  scenario("rings-panic-first", EMMC, { call: "panic" }),
  scenario("rings-panic-first-sd", SD, { call: "panic" }),
  scenario("rings-panic-full", EMMC, { flushedBytes: [2200, 300], call: "panic" }),
  scenario("rings-panic-full-sd", { ...SD, dma: false }, { flushedBytes: [2200, 300], call: "panic" }),
  scenario("rings-panic-full-flushed", FLUSHED, { flushedBytes: [1400], call: "panic" }),
];

function same(first: Uint8Array, second: Uint8Array): boolean {
  return first.length === second.length && first.every((byte, at) => byte === second[at]);
}

/** Whether a byte of a view may be anything. */
type Wild = (at: number) => boolean;

/** True if `view` is what `history` allows, read as the stream up to `end`. */
function endsAt(view: Uint8Array, history: RingHistory, end: number, isWild: Wild): boolean {
  const { stream, acknowledged, capacity } = history;
  const first = end - view.length;
  const firstKept = Math.max(0, stream.length - capacity);
  // Everything acknowledged for which there is room beside all that is on its way.
  if (first < 0 || first > firstKept) return false;
  for (let at = 0; at < view.length; at++) {
    const place = first + at;
    if (view[at] === stream[place] || isWild(at)) continue;
    if (view[at] !== 0 || (place >= firstKept && place < acknowledged)) return false;
  }
  return true;
}

export type Shown = "empty" | "old" | "truthful" | "false";

/** What a ring shows: see the head of this file. `view`: null if there is no such record. */
export function judgeRing(view: Uint8Array | null, history: RingHistory, isWild: Wild = () => false): Shown {
  const { stream, acknowledged, capacity, old } = history;
  // Nothing of what is acknowledged stays when as much is new as the ring holds.
  const keepsNothing = acknowledged === 0 || stream.length - acknowledged >= capacity;
  if (view === null || view.length === 0) return keepsNothing ? "empty" : "false";
  for (let end = acknowledged; end <= stream.length; end++) {
    if (endsAt(view, history, end, isWild)) return "truthful";
  }
  // Before it is hidden, what was acknowledged still stands whole.
  if (keepsNothing && acknowledged > 0) {
    const before = { ...history, stream: stream.subarray(0, acknowledged) };
    if (endsAt(view, before, acknowledged, isWild)) return "truthful";
  }
  const isOld = view.length === old.length && view.every((byte, at) => byte === old[at] || isWild(at));
  return acknowledged === 0 && isOld ? "old" : "false";
}

/**
 * As judgeRing(), where the card has destroyed the sector that it was programming: nothing in Linux's format tells
 * which one it was, so any one sector of the zone may hold anything. `start`: of the zone's header.
 */
function judgeDamaged(view: Uint8Array | null, history: RingHistory, start: number): Shown {
  if (view === null) return "empty";
  let shown = judgeRing(view, history);
  const sectors = (history.capacity + HEADER_BYTES) / SECTOR_BYTES;
  for (let sector = 0; sector < sectors && shown === "false"; sector++) {
    const isInSector = (at: number) =>
      Math.floor((HEADER_BYTES + ((start + at) % view.length)) / SECTOR_BYTES) === sector;
    shown = judgeRing(view, history, isInSector);
  }
  return shown;
}

function prepare(module: WebAssembly.Module, chosen: RingScenario, hit: () => void) {
  const device = Device.open(
    module,
    { sizeBytes: 512 * 1024, ...chosen.options, area: AREA },
    { mark: { hit } },
  );
  const histories: RingHistory[] = [];
  const say = { pmsg: device.writePmsg.bind(device), console: device.writeConsole.bind(device) };
  for (const [type, zoneBytes] of [
    ["pmsg", PMSG_BYTES],
    ["console", CONSOLE_BYTES],
  ] as const) {
    const before = explorationText(`before ${type}`, chosen.oldBytes);
    const capacity = zoneBytes - HEADER_BYTES;
    const old = before.subarray(Math.max(0, before.length - capacity));
    say[type](before);
    histories.push({ type, capacity, old, stream: new Uint8Array(0), acknowledged: 0 });
  }
  device.flushRings();
  const oldText = explorationText("old", 900);
  if (device.panicWrite({ text: oldText, timeSec: 100n }).status !== 0) throw new Error("no old record");
  device.flush();
  device.powerCut("new", "kept");
  device.powerOn();
  for (const history of histories) {
    const total = chosen.flushedBytes.reduce((sum, bytes) => sum + bytes, 0) + chosen.pendingBytes;
    history.stream = explorationText(`now ${history.type}`, total);
  }
  for (const bytes of chosen.flushedBytes) {
    for (const history of histories) {
      say[history.type](history.stream.subarray(history.acknowledged, history.acknowledged + bytes));
      history.acknowledged += bytes;
    }
    device.flushRings();
  }
  device.flush();
  for (const { type, stream, acknowledged } of histories) say[type](stream.subarray(acknowledged));
  return { device, histories, oldText };
}

/** Without the line that Linux puts before text that is not compressed. */
function textOf(record: PstoreRecord): Uint8Array {
  return record.compressed ? record.bytes : record.bytes.subarray(record.bytes.indexOf(10) + 1);
}

/** Runs one scenario at every mark. `onlyId`: judge that one cut and no other. */
export function exploreRings(
  module: WebAssembly.Module,
  chosen: RingScenario,
  onlyId?: string,
): RingExploration {
  let hook: (() => void) | null = null;
  const { device, histories, oldText } = prepare(module, chosen, () => hook?.());
  const newText = explorationText("new", 1500);
  const cutter = makeCutter(module, device, AREA_OFFSET + AREA_BYTES);
  const hasCache = (chosen.options.cacheSectors ?? 0) > 0;
  const caches: CacheName[] = hasCache ? ["lost", "kept", "odd", "first"] : ["lost"];
  const outcomes = (Object.keys(CUT_OUTCOMES) as CutOutcome[]).filter((name) => name !== "rollback");
  const isReliable = chosen.options.card === "emmc" && chosen.options.reliableWrite !== false;
  const report: RingExploration = {
    marks: 0,
    cuts: 0,
    media: 0,
    empty: 0,
    old: 0,
    truthful: 0,
    blanked: 0,
    failures: [],
    status: 0,
  };
  const unchanged = watchCard(device, hasCache);
  const seen = new Map<string, Verdict>();
  let last: Verdict[] = [];

  const judge = (bytes: Uint8Array, isDone: boolean, isDestroyed: boolean): Verdict => {
    const { records } = decodeArea(bytes.subarray(AREA_OFFSET), SIZES);
    const kmsg = records.filter(({ type, state }) => type === "kmsg" && state === "ok");
    const verdict: Verdict = { shown: [], blanked: 0, problem: null };
    if (!kmsg.some((record) => same(textOf(record), oldText))) verdict.problem = "the older record is lost";
    const isNewWhole = kmsg.some((record) => same(textOf(record), newText));
    if (kmsg.length > (isNewWhole ? 2 : 1)) verdict.problem = "a record is ok that was never written";
    if (isDone && chosen.call === "panic" && !isNewWhole) verdict.problem = "the record is lost";
    // The rings come behind the record.
    for (const history of histories) {
      const record = records.find(({ type }) => type === history.type);
      const view = record?.bytes ?? null;
      const start = new DataView(bytes.buffer, bytes.byteOffset).getUint32(
        AREA_OFFSET + (record?.offset ?? 0) + 8,
        true,
      );
      const done = isDone ? { ...history, acknowledged: history.stream.length } : history;
      const shown = isDestroyed && !isReliable ? judgeDamaged(view, done, start) : judgeRing(view, done);
      if (shown === "false") verdict.problem = `${history.type} shows what is not true`;
      else verdict.shown.push(shown);
      if (view?.includes(0)) verdict.blanked++;
    }
    return verdict;
  };

  const cutHere = (isDone: boolean) => {
    if (!unchanged() || isDone || onlyId !== undefined) {
      last = [];
      for (const outcome of outcomes) {
        for (const cache of caches) {
          const id = `${chosen.name}/${report.marks}#${outcome}.${cache}`;
          if (onlyId !== undefined && id !== onlyId) continue;
          const bytes = cutter.cut(CUT_OUTCOMES[outcome], CACHE_MASKS[cache]);
          const isDestroyed = DESTROYS.has(outcome);
          const key = `${isDone}.${isDestroyed}.${fingerprint(bytes)}`;
          const verdict = seen.get(key) ?? judge(bytes, isDone, isDestroyed);
          seen.set(key, verdict);
          last.push(verdict);
          if (verdict.problem !== null) report.failures.push(`${id}: ${verdict.problem}`);
        }
      }
    }
    report.cuts += last.length;
    for (const { shown, blanked } of last) {
      for (const one of shown) report[one]++;
      report.blanked += blanked;
    }
  };

  hook = () => {
    report.marks++;
    cutHere(false);
  };
  if (chosen.call === "flush") report.status = device.core.flushRings();
  else {
    const result = device.panicWrite({ text: newText, timeSec: 500n });
    report.status = result.status === 0 ? result.ringsStatus : result.status;
  }
  hook = null;
  report.marks++;
  cutHere(report.status === 0);
  report.media = seen.size;
  return report;
}

interface Verdict {
  shown: Exclude<Shown, "false">[];
  blanked: number;
  problem: string | null;
}
