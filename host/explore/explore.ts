// Crash-point exploration: one run of a scenario's panic; at every mark the memory is copied into a second machine, the
// power of that one is cut with every outcome, and the oracle looks at what is left; then the first goes on. So the
// count of points is known and complete, and none is run twice. Crash ids: `scenario/mark#outcome.cache`.
import {
  BOUNCE_BASE,
  CACHE_DATA,
  CACHE_LBAS,
  CACHE_SECTORS_MAX,
  CARD_BASE,
  DAMAGE_BASE,
  MACHINE_PAGES,
  MEDIUM_BASE,
  MEDIUM_STORES,
  PAGE_BYTES,
  PROGRAM_BLOCK,
  SDHCI_REGISTERS,
  SECTOR_BYTES,
  TEXT_BASE,
  UNREADABLE_TABLE,
} from "../../assembly/layout.js";
import { clearFaults } from "../core/faults.js";
import { type CoreExports, instantiate, makeMemory } from "../core/instantiate.js";
import { cutPower } from "../core/power-cut.js";
import { CUT_OUTCOMES, type CutOutcome } from "../core/profile.js";
import { Device } from "../device.js";
import { ownBytes } from "../own-bytes.js";
import { decodeArea } from "../pstore/decode.js";
import { type Expectation, judge, type Verdict } from "./oracle.js";
import {
  EXPLORED_AREA_OFFSET,
  EXPLORED_IN_FLIGHT_OFFSET,
  EXPLORED_KMSG_BYTES,
  EXPLORED_ZONES,
  type Scenario,
} from "./scenario.js";

const IN_FLIGHT_BYTES: [number, number] = [EXPLORED_IN_FLIGHT_OFFSET, EXPLORED_IN_FLIGHT_OFFSET + 4096];
const AREA_BYTES = EXPLORED_KMSG_BYTES * EXPLORED_ZONES;
/** Everything that a cut reads or changes: card, registers, cache, damage. Buffers and text behind it do not matter. */
const MACHINE_BYTES = BOUNCE_BASE;
const CACHE_END = CACHE_DATA + CACHE_SECTORS_MAX * SECTOR_BYTES;
export const CACHE_MASKS = {
  lost: 0n,
  kept: 0xffff_ffff_ffff_ffffn,
  odd: 0xaaaa_aaaa_aaaa_aaaan,
  first: 1n,
} as const;
/** Damage.unreadable of assembly/card/flash.ts. */
const UNREADABLE_COUNT = 4;
export type CacheName = keyof typeof CACHE_MASKS;
/** Old and new bytes in one sector: a header may be live over a body that is not. */
const MIXES = new Set<CutOutcome>(["torn-low", "torn-high", "interleaved"]);
/** What is left is neither the old nor the new bytes of a sector, even if they are the same. */
const DESTROYS = new Set<CutOutcome>(["zero", "ones", "noise", "unreadable"]);
/** Longer than any sector stays in flight behind its busy. */
const SETTLED_NS = 2_000_000_000;

export interface Exploration {
  scenario: string;
  /** Marks that the panic passed. */
  marks: number;
  /** Cuts that were made and judged: marks × outcomes × cache outcomes. */
  cuts: number;
  /** Media that differ from each other among all cuts. */
  media: number;
  /** How often the new record was absent, torn, and whole. */
  absent: number;
  torn: number;
  whole: number;
  /** Crash id and reason of every cut that broke a promise. */
  failures: string[];
  /** Crash ids after which a record that the card had acknowledged was gone: only where the scenario says it lies. */
  lies: string[];
  /** Cuts after which a lying card left a record without its seal, which is served on trust. */
  unsealed: number;
  /** Cuts that destroyed the number of the record that was being replaced, so that it is given again. */
  renumbered: number;
  /** Status of the panic itself, uncut. */
  status: number;
}

/** Deterministic text whose lines tell which record they belong to. */
export function explorationText(label: string, lengthBytes: number): Uint8Array {
  let text = "";
  for (let line = 0; text.length < lengthBytes; line++) text += `<6>[${label}.${line}] ${label.repeat(7)}\n`;
  return new TextEncoder().encode(text.slice(0, lengthBytes));
}

function prepare(module: WebAssembly.Module, scenario: Scenario, hit: (id: number) => void) {
  const device = Device.open(
    module,
    {
      sizeBytes: 512 * 1024,
      // Plain records have more sectors to cut; scenarios with compression say so.
      compress: false,
      ...scenario.options,
      area: {
        offset: EXPLORED_AREA_OFFSET,
        kmsgSize: EXPLORED_KMSG_BYTES,
        kmsgCount: EXPLORED_ZONES,
        abi: "lp64",
      },
    },
    { mark: { hit } },
  );
  const user = explorationText("u", EXPLORED_AREA_OFFSET);
  device.write(0, user);
  device.flush();
  const oldTexts = scenario.oldTextBytes.map((bytes, i) => explorationText(`old${i}`, bytes));
  for (const [i, text] of oldTexts.entries()) {
    const result = device.panicWrite({ text, timeSec: BigInt(100 + i) });
    if (result.status !== 0) throw new Error(`${scenario.name}: old record ${i}: status ${result.status}`);
  }
  for (const zone of scenario.removedZones) {
    device.write(EXPLORED_AREA_OFFSET + zone * EXPLORED_KMSG_BYTES + 4, new Uint8Array(4));
  }
  device.flush();
  // As after a boot: what the core knows of the area comes from the medium.
  device.powerCut("new", "kept");
  device.powerOn();
  return { device, user, oldTexts };
}

/** Runs one scenario at every mark. `onlyId`: judge that one cut and no other. */
export function explore(module: WebAssembly.Module, scenario: Scenario, onlyId?: string): Exploration {
  let hook: (() => void) | null = null;
  const { device, user, oldTexts } = prepare(module, scenario, () => hook?.());
  const log = explorationText("new", scenario.textBytes);
  const expectation: Expectation = {
    oldTexts: oldTexts.map((text, zone) => (scenario.removedZones.includes(zone) ? null : text)),
    newText: log,
    leastCount: oldTexts.length + 1,
    replaceable: replaceableZone(device, scenario),
    user,
    mayDiffer: scenario.inFlight === "erase" ? IN_FLIGHT_BYTES : null,
  };
  if (scenario.options.parts !== undefined) {
    const { texts, taken } = partsOf(device, log);
    const [newText, ...furtherParts] = texts;
    if (newText === undefined || furtherParts.length === 0) throw new Error(`${scenario.name}: no parts`);
    expectation.newText = newText;
    expectation.furtherParts = furtherParts;
    // Policy gives these records up: they may be there or not.
    expectation.others = oldTexts.filter((_, zone) => taken.has(zone));
    expectation.oldTexts = expectation.oldTexts.map((text, zone) => (taken.has(zone) ? null : text));
  }
  const fork = makeFork(module, device);
  const rollsBack = (scenario.options.damage?.rollbackSectors ?? 0) > 0;
  const outcomes = (Object.keys(CUT_OUTCOMES) as CutOutcome[]).filter(
    (name) => name !== "rollback" || rollsBack,
  );
  const hasCache = (scenario.options.cacheSectors ?? 0) > 0;
  // The masks also say which of the sectors in flight behind their busy land.
  const caches: CacheName[] = hasCache || scenario.lies ? ["lost", "kept", "odd", "first"] : ["lost"];
  const report: Exploration = {
    scenario: scenario.name,
    marks: 0,
    cuts: 0,
    media: 0,
    absent: 0,
    torn: 0,
    whole: 0,
    failures: [],
    lies: [],
    unsealed: 0,
    renumbered: 0,
    status: 0,
  };
  const reliable = (scenario.options.card ?? "emmc") === "emmc" && scenario.options.reliableWrite !== false;
  const damages = (scenario.options.damage?.neighbourSectors ?? 0) > 0 || scenario.lies === true;
  const writesUser = scenario.inFlight === "write" || scenario.inFlight === "program";
  const seen = new Map<string, Verdict>();

  const unchanged = watchCard(device, hasCache);
  let last: Verdict[] = [];

  const cutHere = (committed: boolean) => {
    // What a cut leaves hangs on the card alone; most marks do not touch it.
    if (unchanged() && !committed && onlyId === undefined) {
      for (const verdict of last) {
        report[verdict.fresh]++;
        if (verdict.renumbered) report.renumbered++;
        if (verdict.unsealed) report.unsealed++;
      }
      report.cuts += last.length;
      return;
    }
    last = [];
    for (const outcome of outcomes) {
      for (const cache of caches) {
        const id = `${scenario.name}/${report.marks}#${outcome}.${cache}`;
        if (onlyId !== undefined && id !== onlyId) continue;
        fork.copyFrom(device);
        cutPower(fork.core, CUT_OUTCOMES[outcome], CACHE_MASKS[cache]);
        // The sector that a request in flight was writing is gone, even if it was to have its old bytes again.
        const destroys = DESTROYS.has(outcome) || damages;
        const expected: Expectation = destroys
          ? {
              ...expectation,
              mayDiffer: writesUser ? IN_FLIGHT_BYTES : expectation.mayDiffer,
              sealsMayBeLost: scenario.lies === true,
              renumberable:
                !reliable && expectation.replaceable >= 0 ? expectation.replaceable + 1 : undefined,
            }
          : expectation;
        const { bytes, key } = fork.look();
        const seenKey = `${committed}.${destroys}.${key}`;
        let verdict = seen.get(seenKey);
        if (verdict === undefined) {
          verdict = judge(bytes, { ...expected, renumberable: undefined }, committed && !scenario.lies);
          if (verdict.problem === null) {
            const reopened = fork.reopen(expected);
            verdict.problem = reopened.problem;
            verdict.renumbered = reopened.renumbered === true;
          }
          seen.set(seenKey, verdict);
        }
        last.push(verdict);
        report.cuts++;
        report[verdict.fresh]++;
        if (verdict.renumbered) report.renumbered++;
        if (verdict.unsealed) report.unsealed++;
        if (committed && verdict.fresh !== "whole" && scenario.lies) report.lies.push(id);
        const mayBeTorn = scenario.lies || (!reliable && MIXES.has(outcome));
        if (verdict.problem !== null) report.failures.push(`${id}: ${verdict.problem}`);
        else if (verdict.fresh === "torn" && !mayBeTorn) {
          // What Linux would serve as whole: only a torn header sector may do that, and no reliable write is torn.
          report.failures.push(`${id}: a live header stands over a record that is not whole`);
        }
      }
    }
  };

  scenario.bring?.(device);
  if (scenario.inFlight !== null) device.leaveInFlight(scenario.inFlight, EXPLORED_IN_FLIGHT_OFFSET);
  for (const [i, fault] of scenario.faults.entries()) device.injectFault(fault, i);
  hook = () => {
    report.marks++;
    cutHere(false);
  };
  const result = device.panicWrite({ text: log, timeSec: 500n });
  hook = null;
  report.status = result.status;
  report.marks++;
  cutHere(result.status === 0);
  report.media = seen.size;
  return report;
}

/** Tells whether card, medium, sector in programming and cache are as they were at the last call. */
export function watchCard(device: Device, hasCache: boolean): () => boolean {
  const memory = new Uint32Array(device.memory.buffer);
  const ranges: [number, number][] = [
    [MEDIUM_STORES, MEDIUM_STORES + 8],
    [CARD_BASE, SDHCI_REGISTERS],
    [PROGRAM_BLOCK, PROGRAM_BLOCK + SECTOR_BYTES],
  ];
  if (hasCache) ranges.push([CACHE_LBAS, CACHE_END]);
  const before = ranges.map(([from, until]) => new Uint32Array((until - from) >> 2).fill(0xffffffff));
  return () => {
    let same = true;
    for (const [i, [from, until]] of ranges.entries()) {
      const now = memory.subarray(from >> 2, until >> 2);
      const old = before[i] as Uint32Array;
      if (now.every((word, at) => word === old[at])) continue;
      old.set(now);
      same = false;
    }
    return same;
  };
}

/** How the core cuts `log`, tried on the device, which is then as before: its parts must be the log, newest first. */
function partsOf(device: Device, log: Uint8Array): { texts: Uint8Array[]; taken: Set<number> } {
  const state = device.saveState();
  const { parts, sequence } = device.panicWrite({ text: log, timeSec: 500n });
  device.flush();
  const area = ownBytes(device.medium(), EXPLORED_AREA_OFFSET, EXPLORED_AREA_OFFSET + AREA_BYTES);
  device.loadState(state);
  const { records } = decodeArea(area, { kmsgSize: EXPLORED_KMSG_BYTES, abi: "lp64" });
  const texts: Uint8Array[] = [];
  const taken = new Set<number>();
  let until = log.length;
  for (let i = 0; i < parts; i++) {
    const record = records.find((one) => one.sequence === sequence + BigInt(i));
    if (record === undefined) throw new Error(`part ${i + 1} is not there`);
    const text = record.bytes.subarray(record.bytes.indexOf(10) + 1);
    const same = text.every((byte, at) => byte === log[until - text.length + at]);
    if (!same) throw new Error(`part ${i + 1} is not what lies before part ${i}`);
    until -= text.length;
    texts.push(ownBytes(text));
    taken.add(record.id);
  }
  return { texts, taken };
}

/** The zone whose record policy gives up when all are taken, or -1. */
function replaceableZone(device: Device, scenario: Scenario): number {
  const full = scenario.oldTextBytes.length === EXPLORED_ZONES && scenario.removedZones.length === 0;
  return full ? device.state().nextZone : -1;
}

/** Two 32-bit hashes over all bytes of a medium: it is judged once, however many cuts leave it. */
export function fingerprint(medium: Uint8Array): string {
  const view = new Uint32Array(medium.buffer, medium.byteOffset, medium.byteLength >> 2);
  let first = 0x811c9dc5;
  let second = 0x01000193;
  for (let i = 0; i < view.length; i++) {
    const word = view[i] ?? 0;
    first = Math.imul(first ^ word, 0x01000193);
    second = Math.imul(second ^ word ^ (word >>> 15), 0x85ebca6b);
  }
  return `${first >>> 0}.${second >>> 0}`;
}

/** A second machine that takes the first one's place at a mark, and whose power goes there. */
export interface Cutter {
  core: CoreExports;
  memory: Uint8Array;
  copyFrom(device: Device): void;
  /** The medium as a reader of its image has it, and what tells it from others: sectors without an answer are zero. */
  look(): { bytes: Uint8Array; key: string };
  /** All of it: copy, cut, look. */
  cut(outcome: number, cacheMask: bigint): Uint8Array;
}

/** `mediumBytes`: what of the medium is ever written, from its start. */
export function makeCutter(module: WebAssembly.Module, device: Device, mediumBytes: number): Cutter {
  const memory = makeMemory(device.sizeBytes);
  const core = instantiate(module, memory, { mark: { hit: () => undefined } });
  const target = new Uint8Array(memory.buffer);
  target.set(new Uint8Array(device.memory.buffer, 0, MACHINE_PAGES * PAGE_BYTES));
  const words = new DataView(memory.buffer);
  const unreadable = () => {
    const sectors: number[] = [];
    const count = words.getUint32(DAMAGE_BASE + UNREADABLE_COUNT, true);
    for (let i = 0; i < count; i++) sectors.push(words.getUint32(UNREADABLE_TABLE + i * 8, true));
    return sectors.sort((a, b) => a - b);
  };
  return {
    core,
    memory: target,
    copyFrom(source) {
      const bytes = new Uint8Array(source.memory.buffer);
      target.set(bytes.subarray(0, MACHINE_BYTES), 0);
      target.set(bytes.subarray(MEDIUM_BASE, MEDIUM_BASE + mediumBytes), MEDIUM_BASE);
    },
    look() {
      const medium = target.subarray(MEDIUM_BASE, MEDIUM_BASE + mediumBytes);
      const lost = unreadable();
      if (lost.length === 0) return { bytes: medium, key: fingerprint(medium) };
      const bytes = ownBytes(medium);
      for (const lba of lost) bytes.fill(0, lba * SECTOR_BYTES, (lba + 1) * SECTOR_BYTES);
      return { bytes, key: `${fingerprint(bytes)}.${lost.join(".")}` };
    },
    cut(outcome, cacheMask) {
      this.copyFrom(device);
      cutPower(core, outcome, cacheMask);
      return this.look().bytes;
    },
  };
}

interface Fork extends Cutter {
  /** Power again: identification, recovery, and one more panic, on a card that cannot read what it lost. */
  reopen(expectation: Expectation): Pick<Verdict, "problem" | "renumbered">;
}

/** Only what lies in front of the area's end is ever written. */
function makeFork(module: WebAssembly.Module, device: Device): Fork {
  const cutter = makeCutter(module, device, EXPLORED_AREA_OFFSET + AREA_BYTES);
  const { core, memory: target } = cutter;
  const again = explorationText("again", 700);
  return {
    ...cutter,
    reopen(expectation) {
      const fail = (problem: string) => ({ problem });
      // The plan of faults belongs to the boot that died.
      clearFaults(target.buffer);
      const opened = core.openCard();
      if (opened !== 0) return fail(`the card cannot be opened again: ${opened}`);
      const recovered = core.recoverArea();
      if (recovered !== 0) return fail(`the area cannot be recovered: ${recovered}`);
      const next = core.chooseZone();
      target.set(again, TEXT_BASE);
      const status = core.panicWrite(1, 600, 0, 0, again.length, 0);
      if (status !== 0) return fail(`the next panic fails: ${status}`);
      core.idleNs(SETTLED_NS);
      core.machineCut(0, 0);
      return judgeAgain(this.look().bytes, expectation, again, next);
    },
  };
}

function judgeAgain(
  medium: Uint8Array,
  expectation: Expectation,
  again: Uint8Array,
  replaced: number,
): Pick<Verdict, "problem" | "renumbered"> {
  // The next record may take any zone that holds none, or the one that policy gives up.
  const kept = expectation.oldTexts.map((text, zone) =>
    zone === replaced || zone === expectation.replaceable ? null : text,
  );
  // Older records keep their numbers in their own headers; only the replaced one's can be gone.
  const verdict = judge(
    medium,
    {
      ...expectation,
      oldTexts: kept,
      newText: again,
      replaceable: -1,
      furtherParts: [],
      others: [
        expectation.newText,
        ...(expectation.furtherParts ?? []),
        ...(expectation.others ?? []),
        ...expectation.oldTexts,
      ],
    },
    true,
  );
  if (verdict.problem === null) return { problem: null, renumbered: verdict.renumbered };
  return { problem: `after the next panic: ${verdict.problem}` };
}
