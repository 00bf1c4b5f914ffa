// Power cuts while a panic stores its crash dump: at every mark the power of a copy goes with every outcome, and the
// readers of dump areas and of ELF cores, which share nothing with their makers, tell what is left. What must hold:
//   the dump that the area keeps is whole; no dump is shown as complete or partial whose bytes are not those that were
//   registered; none without its record; after a panic that said so the new one is complete; no byte outside the two
//   areas has changed; the next boot stores the next dump, and what was kept before is kept still.
// Crash ids as explore.ts has them. Nothing of Node, no chance.
import { CUT_OUTCOMES, type CutOutcome, type Policy } from "../core/profile.js";
import { Device } from "../device.js";
import type { DeviceOptions, PanicArea } from "../device-options.js";
import { type CardDump, decodeDumpArea, dumpBackOffset } from "../dump/dump-area.js";
import { bytesSource, PT_LOAD, readElfCore } from "../dump/elf.js";
import { ownBytes } from "../own-bytes.js";
import { crc32c } from "../pstore/crc32c.js";
import { decodeArea } from "../pstore/decode.js";
import {
  CACHE_MASKS,
  type CacheName,
  explorationText,
  fingerprint,
  makeCutter,
  watchCard,
} from "./explore.js";

export interface DumpScenario {
  name: string;
  options: DeviceOptions;
  areaBytes: number;
  /** Sizes of the dumps that panics before stored, oldest first. */
  oldBytes: number[];
  /** Of those the ones whose last sector could not be programmed, so that they are partial. */
  oldPartial: number[];
  /** Size of the one that is explored. */
  newBytes: number;
  /** Before the explored panic. */
  faults: Parameters<Device["injectFault"]>[0][];
  /** How it ends. */
  ends: "complete" | "partial";
  /** Sequence of the dump that no cut may cost; 0: there is none, or it is given up. */
  keeps: number;
}

/** Areas begin on allocation units of their own, as docs/FORMAT.md wants them. */
const UNIT_BYTES = 32 * 1024;
const KMSG_BYTES = 4096;
const KMSG_COUNT = 8;
const PSTORE: PanicArea = { offset: UNIT_BYTES, kmsgSize: KMSG_BYTES, kmsgCount: KMSG_COUNT, abi: "lp64" };
const DUMP_OFFSET = 3 * UNIT_BYTES;
const SECTOR_BYTES = 512;
const ADDRESS = 0x8000n;
/** Sector of the front's data that the explored faults strike. */
export const FRONT_DATA_LBA = DUMP_OFFSET / SECTOR_BYTES + 8;

const EMMC: DeviceOptions = { card: "emmc", dma: true };
const EMMC_PLAIN: DeviceOptions = { ...EMMC, reliableWrite: false };
const EMMC_FORCED: DeviceOptions = { ...EMMC, cacheSectors: 16, reliableWrite: false };
const EMMC_FLUSHED: DeviceOptions = { ...EMMC_FORCED, cmd23: false };
const SD: DeviceOptions = { card: "sd", dma: true };
const SD_PIO: DeviceOptions = { card: "sd", dma: false, cmd23: false };
const RING: { policy: Policy } = { policy: "ring" };

function scenario(name: string, options: DeviceOptions, changes: Partial<DumpScenario> = {}): DumpScenario {
  return {
    name,
    options,
    areaBytes: 32 * 1024,
    oldBytes: [3000],
    oldPartial: [],
    newBytes: 5000,
    faults: [],
    ends: "complete",
    keeps: 1,
    ...changes,
  };
}

const FIRST = { oldBytes: [], keeps: 0 };
const THIRD = { oldBytes: [3000, 4500], keeps: 2 };
const NO_ROOM = { areaBytes: 20 * 1024, oldBytes: [6000], newBytes: 9000 };

/** Names are part of crash ids: never renamed. */
export const DUMP_SCENARIOS: DumpScenario[] = [
  scenario("dump-first", EMMC, FIRST),
  scenario("dump-first-sd", SD, FIRST),
  scenario("dump-beside", EMMC),
  scenario("dump-beside-plain", EMMC_PLAIN),
  scenario("dump-beside-forced", EMMC_FORCED),
  scenario("dump-beside-flushed", EMMC_FLUSHED),
  scenario("dump-beside-sd", SD),
  scenario("dump-beside-sd-pio", SD_PIO),
  scenario("dump-third", EMMC, THIRD),
  scenario("dump-third-flushed", EMMC_FLUSHED, THIRD),
  scenario("dump-third-sd", SD_PIO, THIRD),
  scenario("dump-behind-partial", SD, { oldBytes: [3000, 9000], oldPartial: [2] }),
  scenario("dump-behind-partials", SD, { oldBytes: [9000], oldPartial: [1], keeps: 0 }),
  scenario("dump-no-room", SD, { ...NO_ROOM, ends: "partial" }),
  scenario("dump-no-room-plain", EMMC_PLAIN, { ...NO_ROOM, ends: "partial" }),
  scenario("dump-no-room-ring", { ...SD, ...RING }, { ...NO_ROOM, keeps: 0 }),
  scenario("dump-no-room-ring-flushed", { ...EMMC_FLUSHED, ...RING }, { ...NO_ROOM, keeps: 0 }),
  scenario("dump-no-room-ring-third", { ...SD, ...RING }, { ...NO_ROOM, oldBytes: [5000, 5000], keeps: 0 }),
  scenario("dump-two-pieces", SD, { areaBytes: 192 * 1024, oldBytes: [70_000], newBytes: 71_000 }),
  scenario("dump-crc-error", EMMC, {
    ...THIRD,
    faults: [{ kind: "write-crc", firstLba: FRONT_DATA_LBA + 4, times: 1 }],
  }),
  scenario("dump-bad-sector", SD, {
    ...THIRD,
    newBytes: 9000,
    faults: [{ kind: "program", firstLba: FRONT_DATA_LBA + 14, lastLba: FRONT_DATA_LBA + 14 }],
    ends: "partial",
  }),
  scenario(
    "dump-neighbours",
    { ...SD, damage: { neighbourSectors: 8, unitSectors: UNIT_BYTES / SECTOR_BYTES } },
    { ...THIRD, areaBytes: 96 * 1024 },
  ),
];

export interface DumpExploration {
  marks: number;
  cuts: number;
  media: number;
  /** Cuts by what the explored dump is then: not there, torn or damaged, partial, complete. */
  absent: number;
  torn: number;
  partial: number;
  complete: number;
  failures: string[];
  /** Of the explored dump. */
  status: number;
}

interface Machine {
  device: Device;
  /** Registers `bytes` as what the next panic dumps. */
  arm(bytes: Uint8Array): void;
}

function open(
  module: WebAssembly.Module,
  chosen: DumpScenario,
  hit: () => void,
  content?: Uint8Array,
): Machine {
  const most = Math.max(...chosen.oldBytes, chosen.newBytes);
  const device = Device.open(
    module,
    {
      sizeBytes: 512 * 1024,
      compress: false,
      ...chosen.options,
      content,
      area: PSTORE,
      dump: {
        class: 64,
        machine: 62,
        capacity: 1,
        area: { offset: DUMP_OFFSET, sizeBytes: chosen.areaBytes },
        memoryBytes: most,
      },
    },
    { mark: { hit } },
  );
  let id = 0;
  return {
    device,
    arm(bytes) {
      if (id !== 0) device.unregisterRegion(id);
      const source = device.dumpMemory.subarray(0, bytes.length);
      source.set(bytes);
      id = device.registerRegion({ name: "memory", address: ADDRESS, source });
    },
  };
}

function same(first: Uint8Array, second: Uint8Array): boolean {
  return first.length === second.length && first.every((byte, at) => byte === second[at]);
}

/** What a reader finds in the dump area of a medium. */
function dumpsOf(medium: Uint8Array, areaBytes: number): CardDump[] {
  const area = medium.subarray(DUMP_OFFSET, DUMP_OFFSET + areaBytes);
  return decodeDumpArea(area.subarray(0, 512), area.subarray(dumpBackOffset(areaBytes)), areaBytes);
}

/** What is wrong with a dump that can be read; null if it is what was registered. `memory`: that of its sequence. */
function wrongWith(medium: Uint8Array, dump: CardDump, memory: Uint8Array | undefined): string | null {
  if (dump.storedBytes === 0) return null;
  const from = DUMP_OFFSET + dump.dataOffset;
  const bytes = medium.subarray(from, from + dump.storedBytes);
  if (crc32c(bytes) !== dump.dataCrc) return "its CRC is wrong";
  if (memory === undefined) return "it was never stored";
  const [segment] = readElfCore(bytesSource(bytes)).segments.filter(({ type }) => type === PT_LOAD);
  if (segment === undefined || segment.filesz !== BigInt(memory.length)) return "it has not the region";
  if (dump.state === "complete" && segment.presentBytes !== memory.length) return "it is complete and is not";
  const at = Number(segment.offset);
  const present = bytes.subarray(at, at + segment.presentBytes);
  return same(present, memory.subarray(0, present.length)) ? null : "its bytes are not the region's";
}

/** Runs one scenario at every mark. `onlyId`: judge that one cut and no other. */
export function exploreDumps(
  module: WebAssembly.Module,
  chosen: DumpScenario,
  onlyId?: string,
): DumpExploration {
  let hook: (() => void) | null = null;
  const { device, arm } = open(module, chosen, () => hook?.());
  const user = explorationText("u", PSTORE.offset);
  device.write(0, user);
  const behind = explorationText("b", 4096);
  const behindOffset = DUMP_OFFSET + chosen.areaBytes;
  device.write(behindOffset, behind);
  device.flush();
  /** By sequence, from 1 on. */
  const memories = chosen.oldBytes.map((bytes, i) => explorationText(`old${i}`, bytes));
  for (const [i, memory] of memories.entries()) {
    arm(memory);
    const isPartial = chosen.oldPartial.includes(i + 1);
    // Behind the first piece, in front or at the back.
    const lastLba = behindOffset / SECTOR_BYTES - 9;
    if (isPartial) device.injectFault({ kind: "program", firstLba: FRONT_DATA_LBA + 9, lastLba });
    const { dump } = device.panicWrite({ text: explorationText(`log${i}`, 600), timeSec: BigInt(100 + i) });
    device.clearFaults();
    const wanted = isPartial ? "partial" : "complete";
    if (dump?.state !== wanted) throw new Error(`${chosen.name}: old dump ${i + 1} is ${dump?.state}`);
  }
  // As after a boot.
  device.flush();
  device.powerCut("new", "kept");
  device.powerOn();
  memories.push(explorationText("new", chosen.newBytes));
  const fresh = BigInt(memories.length);
  const kept = BigInt(chosen.keeps);

  const judge = (medium: Uint8Array, isDone: boolean): [string | null, CardDump[]] => {
    const dumps = dumpsOf(medium, chosen.areaBytes);
    const { records } = decodeArea(medium.subarray(PSTORE.offset, PSTORE.offset + KMSG_BYTES * KMSG_COUNT), {
      kmsgSize: KMSG_BYTES,
      pmsgSize: 0,
      consoleSize: 0,
      ftraceSize: 0,
      abi: "lp64",
    });
    for (const dump of dumps) {
      const memory = memories[Number(dump.sequence) - 1];
      const wrong = dump.state === "damaged" ? null : wrongWith(medium, dump, memory);
      if (wrong !== null) return [`dump ${dump.sequence} is ${dump.state}, and ${wrong}`, dumps];
      const hasRecord = records.some(
        ({ state, sequence }) => state === "ok" && sequence === dump.recordSequence,
      );
      // Records have their own exploration, and these zones are smaller than the unit that goes with a neighbour.
      const mayLackRecord = dump.state === "damaged" || chosen.options.damage !== undefined;
      if (!hasRecord && !mayLackRecord) return [`dump ${dump.sequence} is without its record`, dumps];
    }
    const isKept = (sequence: bigint) =>
      dumps.some((dump) => dump.sequence === sequence && dump.state === "complete");
    if (kept > 0n && !isKept(kept)) return [`dump ${kept} is lost`, dumps];
    if (isDone && !dumps.some(({ sequence, state }) => sequence === fresh && state === chosen.ends)) {
      return [`the dump is not ${chosen.ends}`, dumps];
    }
    if (!same(medium.subarray(0, user.length), user)) return ["user data in front have changed", dumps];
    if (!same(medium.subarray(behindOffset, behindOffset + behind.length), behind)) {
      return ["user data behind the area have changed", dumps];
    }
    return [null, dumps];
  };

  /** The next boot panics too. */
  const again = (medium: Uint8Array, dumps: CardDump[]): string | null => {
    const next = open(module, chosen, () => undefined, ownBytes(medium));
    const memory = explorationText("again", 2000);
    next.arm(memory);
    const { dump } = next.device.panicWrite({ text: explorationText("later", 600), timeSec: 900n });
    if (dump?.state !== "complete") return `the next dump is ${dump?.state}: ${dump?.status}`;
    const before = dumps.find(({ state }) => state === "complete");
    const after = dumpsOf(next.device.medium(), chosen.areaBytes);
    const isThere = (sequence: bigint) =>
      after.some((one) => one.sequence === sequence && one.state === "complete");
    if (!isThere(dump.sequence)) return "the next dump is not there";
    const newest = after.find(({ sequence }) => sequence === dump.sequence);
    if (newest === undefined || wrongWith(next.device.medium(), newest, memory) !== null)
      return "the next is wrong";
    if (before === undefined || chosen.options.policy === "ring" || isThere(before.sequence)) return null;
    return `the next dump costs ${before.sequence}`;
  };

  const cutter = makeCutter(module, device, behindOffset + behind.length);
  const hasCache = (chosen.options.cacheSectors ?? 0) > 0;
  const caches: CacheName[] = hasCache ? ["lost", "kept", "odd", "first"] : ["lost"];
  const outcomes = (Object.keys(CUT_OUTCOMES) as CutOutcome[]).filter((name) => name !== "rollback");
  const report: DumpExploration = {
    marks: 0,
    cuts: 0,
    media: 0,
    absent: 0,
    torn: 0,
    partial: 0,
    complete: 0,
    failures: [],
    status: 0,
  };
  const unchanged = watchCard(device, hasCache);
  const seen = new Map<string, Verdict>();
  let last: Verdict[] = [];
  const verdictOf = (medium: Uint8Array, isDone: boolean): Verdict => {
    const [problem, dumps] = judge(medium, isDone);
    const state = dumps.find(({ sequence }) => sequence === fresh)?.state ?? "absent";
    // A panic removes none.
    const shown = state === "damaged" || state === "removed" || state === "wiped" ? "torn" : state;
    return { problem: problem ?? again(medium, dumps), shown };
  };
  const cutHere = (isDone: boolean) => {
    if (!unchanged() || isDone || onlyId !== undefined) {
      last = [];
      for (const outcome of outcomes) {
        for (const cache of caches) {
          const id = `${chosen.name}/${report.marks}#${outcome}.${cache}`;
          if (onlyId !== undefined && id !== onlyId) continue;
          cutter.cut(CUT_OUTCOMES[outcome], CACHE_MASKS[cache]);
          const { bytes } = cutter.look();
          const key = `${isDone}.${fingerprint(bytes)}`;
          const verdict = seen.get(key) ?? verdictOf(bytes, isDone);
          seen.set(key, verdict);
          last.push(verdict);
          if (verdict.problem !== null) report.failures.push(`${id}: ${verdict.problem}`);
        }
      }
    }
    report.cuts += last.length;
    for (const { shown } of last) report[shown]++;
  };

  arm(memories.at(-1) as Uint8Array);
  for (const [i, fault] of chosen.faults.entries()) device.injectFault(fault, i);
  hook = () => {
    report.marks++;
    cutHere(false);
  };
  const result = device.panicWrite({ text: explorationText("log", 600), timeSec: 500n });
  hook = null;
  report.status = result.dump?.status ?? -1;
  report.marks++;
  cutHere(result.status === 0 && result.dump?.state === chosen.ends);
  report.media = seen.size;
  return report;
}

interface Verdict {
  problem: string | null;
  shown: "absent" | "torn" | "partial" | "complete";
}
