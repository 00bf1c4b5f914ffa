// Deaths: one run of an operation; at every mark (register access, pause, store that publishes) the memory is copied
// into a second machine, which dies there: nobody goes on with the operation, and the machine panics. Then its power is
// cut with every outcome, and decode.ts alone says whether the record is there. Then the first machine goes on, so that
// all moments come from one run, none is left out and none is run twice. Death ids: `operation, card/mark`.
//
// What must hold at each moment: the panic says 0, for nothing is wrong with the card; the record is on the medium,
// byte for byte, whatever the cut; every older record is whole but the one that policy gives up; nothing is served that
// nobody wrote; no byte outside of what the operation was writing has changed. Nothing of Node, no chance.
import {
  BOUNCE_BASE,
  MACHINE_PAGES,
  MEDIUM_BASE,
  PAGE_BYTES,
  PANIC_HEAD_BLOCK,
  RING_DATA,
  RING_MEDIUM,
  RING_STATES,
  TEXT_BASE,
  TRACE_BASE,
  ZONE_LOGS,
} from "../../assembly/layout.js";
import { type CoreExports, instantiate, makeMemory } from "../core/instantiate.js";
import { cutPower } from "../core/power-cut.js";
import { CUT_OUTCOMES, type CutOutcome } from "../core/profile.js";
import { Device } from "../device.js";
import type { DeviceOptions } from "../device-options.js";
import { decodeArea, type PstoreRecord } from "../pstore/decode.js";
import { CACHE_MASKS, explorationText, fingerprint } from "./explore.js";

/** The explored machine: user data, two rings, kmsg zones, a dump area. */
export const DEATH_USER_BYTES = 64 * 1024;
const RING_BYTES = 2048;
const KMSG_BYTES = 8192;
const KMSG_COUNT = 5;
export const DEATH_AREA_OFFSET = DEATH_USER_BYTES + 2 * RING_BYTES;
const AREA_END = DEATH_AREA_OFFSET + KMSG_BYTES * KMSG_COUNT;
const DUMP_OFFSET = 128 * 1024;
const DUMP_BYTES = 16 * 1024;
const MEDIUM_BYTES = DUMP_OFFSET + DUMP_BYTES;
/** Where operations write, in front of the area: bytes that may be old or new. */
export const DEATH_WRITE_OFFSET = 16 * 1024;
export const DEATH_WRITE_BYTES = 4096;
const TEXT_BYTES = 1500;

export interface DeathOperation {
  name: string;
  /** Options that it needs besides the card's. */
  options?: DeviceOptions;
  /** Which cards can do it; default all. */
  on?: (options: DeviceOptions) => boolean;
  /** Brings the device to where the operation begins. */
  prepare?: (device: Device) => void;
  /** The explored operation. What it throws is its own: the moments in it count. */
  run: (device: Device, hit: () => void) => void;
  /** Records that it may leave besides those that were there. */
  writes?: Uint8Array[];
  /** All zones are taken: so many of the newest old records may be given up, one by each panic. */
  givesUp?: number;
}

/** A card, and what another driver has made of it. */
export interface DeathCard {
  name: string;
  options: DeviceOptions;
  bring?: (device: Device) => void;
}

export interface DeathReport {
  id: string;
  /** Marks of a run of its own, that nothing interrupted. */
  marks: number;
  /** Deaths that were tried and judged. */
  deaths: number;
  cuts: number;
  /** Media that differ. */
  media: number;
  /** Death id and what was wrong. */
  failures: string[];
}

export interface DeathPlan {
  outcomes: readonly CutOutcome[];
  caches: readonly (keyof typeof CACHE_MASKS)[];
  /** Only marks with `mark % every == phase`; default all. */
  every?: number;
  phase?: number;
}

const OLD_TEXTS = [1500, 900, 2500].map((bytes, i) => explorationText(`old${i}`, bytes));
export const DEATH_NEW_TEXT = explorationText("new", TEXT_BYTES);
const USER = explorationText("user", DEATH_USER_BYTES);
/** What an operation writes over DEATH_WRITE_OFFSET. */
export const DEATH_WRITTEN = explorationText("written", DEATH_WRITE_BYTES);

function optionsOf(card: DeathCard, operation: DeathOperation): DeviceOptions {
  return {
    sizeBytes: 512 * 1024,
    compress: false,
    ...card.options,
    ...operation.options,
    timing: { ...card.options.timing, ...operation.options?.timing },
    area: {
      offset: DEATH_AREA_OFFSET,
      kmsgSize: KMSG_BYTES,
      kmsgCount: KMSG_COUNT,
      abi: "lp64",
      pmsgSize: RING_BYTES,
      consoleSize: RING_BYTES,
    },
    dump: {
      class: 64,
      machine: 62,
      capacity: 1,
      memoryBytes: 4096,
      area: { offset: DUMP_OFFSET, sizeBytes: DUMP_BYTES },
    },
  };
}

function makeDevice(module: WebAssembly.Module, card: DeathCard, operation: DeathOperation, hit: () => void) {
  const device = Device.open(module, optionsOf(card, operation), { mark: { hit } });
  device.write(0, USER);
  device.flush();
  const oldTexts = [...OLD_TEXTS];
  if (operation.givesUp) oldTexts.push(explorationText("old3", 800), explorationText("old4", 1200));
  for (const [i, text] of oldTexts.entries()) {
    const { status } = device.panicWrite({ text, timeSec: BigInt(100 + i), reason: "Oops" });
    if (status !== 0) throw new Error(`${card.name}: old record ${i}: ${status}`);
  }
  device.flush();
  device.powerCut("new", "kept");
  device.powerOn();
  card.bring?.(device);
  operation.prepare?.(device);
  return { device, oldTexts };
}

/** A range of the memory that another machine needs to go on from here. */
type Range = [from: number, until: number];
/** Everything but the trace, texts, scratch, and the rest of the medium, which nobody touches. */
function stateRanges(device: Device): Range[] {
  const ringBytes = 2 * RING_BYTES;
  return [
    [0, TRACE_BASE],
    [RING_STATES, RING_DATA + ringBytes],
    [ZONE_LOGS, ZONE_LOGS + 8 * KMSG_COUNT],
    [PANIC_HEAD_BLOCK, RING_MEDIUM + ringBytes],
    [MEDIUM_BASE, MEDIUM_BASE + MEDIUM_BYTES],
    // Other partitions, and the dump's table with its regions.
    [MEDIUM_BASE + device.sizeBytes, device.memory.buffer.byteLength],
  ];
}

interface Fork {
  core: CoreExports;
  memory: Uint8Array;
  take(from: Uint8Array, ranges: readonly Range[]): void;
}

function makeFork(module: WebAssembly.Module, device: Device): Fork {
  const pages = device.memory.buffer.byteLength / PAGE_BYTES;
  const memory = makeMemory((pages - MACHINE_PAGES) * PAGE_BYTES);
  const core = instantiate(module, memory, { mark: { hit: () => undefined } });
  const bytes = new Uint8Array(memory.buffer);
  return {
    core,
    memory: bytes,
    take(from, ranges) {
      for (const [begin, end] of ranges) bytes.set(from.subarray(begin, end), begin);
    },
  };
}

function textOf(record: PstoreRecord): Uint8Array {
  return record.compressed ? record.bytes : record.bytes.subarray(record.bytes.indexOf(10) + 1);
}

function same(first: Uint8Array, second: Uint8Array): boolean {
  if (first.length !== second.length) return false;
  for (let i = 0; i < first.length; i++) if (first[i] !== second[i]) return false;
  return true;
}

/** The promise that the medium breaks, or null. */
function judgeMedium(medium: Uint8Array, oldTexts: Uint8Array[], operation: DeathOperation): string | null {
  for (let at = 0; at < USER.length; at++) {
    if (medium[at] === USER[at]) continue;
    const place = at - DEATH_WRITE_OFFSET;
    const inside = place >= 0 && place < DEATH_WRITE_BYTES;
    if (inside && (medium[at] === DEATH_WRITTEN[place] || medium[at] === 0)) continue;
    return `byte ${at} outside of the area has changed`;
  }
  const { records } = decodeArea(medium.subarray(DEATH_USER_BYTES, AREA_END), {
    kmsgSize: KMSG_BYTES,
    pmsgSize: RING_BYTES,
    consoleSize: RING_BYTES,
    ftraceSize: 0,
    abi: "lp64",
  });
  const ok = records.filter((record) => record.type === "kmsg" && record.state === "ok").map(textOf);
  if (!ok.some((text) => same(text, DEATH_NEW_TEXT))) return "the panic said 0 and the record is not there";
  const known = [...oldTexts, ...(operation.writes ?? []), DEATH_NEW_TEXT];
  const foreign = ok.find((text) => !known.some((other) => same(text, other)));
  if (foreign !== undefined) return "a record is ok and was never written";
  const kept = oldTexts.slice(0, oldTexts.length - (operation.givesUp ?? 0));
  const lost = kept.findIndex((old) => !ok.some((text) => same(text, old)));
  return lost < 0 ? null : `older record ${lost} is lost`;
}

/** How many marks the operation passes when nobody looks. */
export function countMarks(module: WebAssembly.Module, card: DeathCard, operation: DeathOperation): number {
  let marks = 0;
  let counts = false;
  const { device } = makeDevice(module, card, operation, () => {
    if (counts) marks++;
  });
  counts = true;
  runQuietly(operation, device, () => marks++);
  return marks;
}

function runQuietly(operation: DeathOperation, device: Device, hit: () => void): void {
  try {
    operation.run(device, hit);
  } catch (error) {
    if ((error as { code?: unknown }).code === undefined) throw error;
  }
}

/** Dies at every mark of `operation`. */
export function exploreDeaths(
  module: WebAssembly.Module,
  card: DeathCard,
  operation: DeathOperation,
  plan: DeathPlan,
): DeathReport {
  let hook: (() => void) | null = null;
  const { device, oldTexts } = makeDevice(module, card, operation, () => hook?.());
  const dying = makeFork(module, device);
  const cut = makeFork(module, device);
  const bytes = new Uint8Array(device.memory.buffer);
  const ranges = stateRanges(device);
  const seen = new Map<string, string | null>();
  const report: DeathReport = {
    id: `${operation.name}, ${card.name}`,
    marks: countMarks(module, card, operation),
    deaths: 0,
    cuts: 0,
    media: 0,
    failures: [],
  };
  const { every = 1, phase = 0 } = plan;
  let mark = -1;
  hook = () => {
    mark++;
    if (mark % every !== phase) return;
    report.deaths++;
    const id = `${report.id}/${mark}`;
    dying.take(bytes, ranges);
    dying.memory.set(DEATH_NEW_TEXT, TEXT_BASE);
    const status = dying.core.panicWrite(1, 500, 0, 0, DEATH_NEW_TEXT.length, 1);
    if (status !== 0) {
      report.failures.push(`${id}: the panic says ${status}`);
      return;
    }
    for (const outcome of plan.outcomes) {
      for (const cache of plan.caches) {
        cut.take(dying.memory, CUT_RANGES);
        cutPower(cut.core, CUT_OUTCOMES[outcome], CACHE_MASKS[cache]);
        report.cuts++;
        const medium = cut.memory.subarray(MEDIUM_BASE, MEDIUM_BASE + MEDIUM_BYTES);
        const key = fingerprint(medium);
        let problem = seen.get(key);
        if (problem === undefined) {
          problem = judgeMedium(medium, oldTexts, operation);
          seen.set(key, problem);
        }
        if (problem !== null) report.failures.push(`${id}#${outcome}.${cache}: ${problem}`);
      }
    }
  };
  runQuietly(operation, device, () => hook?.());
  hook = null;
  report.media = seen.size;
  return report;
}

/** What a cut reads and changes: card, registers, cache, damage, medium. */
const CUT_RANGES: Range[] = [
  [0, BOUNCE_BASE],
  [MEDIUM_BASE, MEDIUM_BASE + MEDIUM_BYTES],
];
