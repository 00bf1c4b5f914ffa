// A machine for two actors: a card with user data, an older record and rings; what each actor may change; and the
// operations of the driver with what they may leave on the medium.
import {
  ADMA_TABLE,
  BOUNCE_BASE,
  BOUNCE_SECTORS,
  CONFIG_PARTS,
  DRIVER_BASE,
  HEAD_BLOCK,
  OWNER_COPIES,
  PANIC_ADMA_TABLE,
  PANIC_BOUNCE,
  PANIC_HEAD_BLOCK,
  REGISTER_BLOCK,
  SECTOR_BYTES,
  SHADOW_BYTES,
  TAIL_BLOCK,
  TEXT_BASE,
  VERIFY_BASE,
} from "../../assembly/layout.js";
import { throwOnError } from "../../host/core/status.js";
import { Device } from "../../host/device.js";
import type { DeviceOptions } from "../../host/device-options.js";
import { explorationText } from "../../host/explore/explore.js";
import { decodeArea, type PstoreRecord } from "../../host/pstore/decode.js";
import { coreModule, pattern, sameBytes, shadowAt, textOf } from "../machine.js";

const AREA_OFFSET = 128 * 1024;
const ABI = "lp64" as const;
/** Rings of a few sectors, then four zones. */
export const AREA = {
  offset: AREA_OFFSET + 1024 + 1024 + 512,
  kmsgSize: 4096,
  kmsgCount: 4,
  abi: ABI,
  pmsgSize: 1024,
  consoleSize: 1024,
  ftraceSize: 512,
  cpus: 1,
};
const AREA_END = AREA.offset + AREA.kmsgSize * AREA.kmsgCount;
const DUMP_AREA = { offset: 192 * 1024, sizeBytes: 48 * 1024 };
const SIZE_BYTES = 256 * 1024;

export const OLD = explorationText("old", 900);
export const FIRST = explorationText("first", 2500);
export const SECOND = explorationText("second", 700);
export const PENDING = explorationText("pending", 400);
const USER = pattern(3, 64 * SECTOR_BYTES);
const FRESH = pattern(4, 2 * SECTOR_BYTES);

export const CARDS: Record<string, DeviceOptions> = {
  "eMMC PIO": { dma: false },
  "eMMC ADMA2, cached": { dma: true, cacheSectors: 32, reliableWrite: false, cmd23: false },
  "SD PIO": { card: "sd", dma: false },
  "SD ADMA2": { card: "sd", dma: true },
};

export interface Actors {
  device: Device;
  /** Called at every mark of the explore target. */
  hook: (() => void) | null;
}

export function openActors(options: DeviceOptions, dumps = false): Actors {
  const actors = { hook: null } as unknown as Actors;
  const dump = { class: 64 as const, machine: 62, memoryBytes: 3000, area: DUMP_AREA };
  actors.device = Device.open(
    coreModule("explore"),
    {
      sizeBytes: SIZE_BYTES,
      addressing: (options.card ?? "emmc") === "emmc" ? "sector" : undefined,
      compress: false,
      ...options,
      area: AREA,
      ...(dumps ? { dump } : {}),
    },
    { mark: { hit: () => actors.hook?.() } },
  );
  const { device } = actors;
  device.write(0, USER);
  device.flush();
  const { status } = device.panicWrite({ text: OLD, timeSec: 100n });
  if (status !== 0) throw new Error(`no old record: ${status}`);
  device.flush();
  device.writeConsole(PENDING);
  return actors;
}

/** All of the machine, as its memory is. In a mark, where the device itself may be in the middle of a call. */
export function snapshot(device: Device): Uint8Array {
  return new Uint8Array(device.memory.buffer).slice();
}

export function restore(device: Device, state: Uint8Array): void {
  new Uint8Array(device.memory.buffer).set(state);
}

/** As another CPU panics: past the device, which would refuse it in the middle of a panic of its own. */
export function panicElsewhere(device: Device, text: Uint8Array, force: boolean): number {
  const token = device.core.panicTake(1, 9, 0, 0, force ? 1 : 0);
  if ((token & 0xff) !== 0xff) return token;
  new DataView(device.memory.buffer).setUint32(CONFIG_PARTS, 1, true);
  new Uint8Array(device.memory.buffer, TEXT_BASE, text.length).set(text);
  return device.core.panicRun(token, text.length);
}

/** The area's layout, as a reader is told it. */
const GEOMETRY = {
  kmsgSize: 4096,
  abi: ABI,
  pmsgSize: 1024,
  consoleSize: 1024,
  ftraceSize: 512,
  cpus: 1,
} as const;

export function recordsOf(device: Device): PstoreRecord[] {
  return decodeArea(device.medium().slice(AREA_OFFSET, AREA_END), GEOMETRY).records;
}

/** A text that fits a record stands there as it is. */
export function isWhole(device: Device, text: Uint8Array): boolean {
  return recordsOf(device).some(
    (record) => record.type === "kmsg" && record.state === "ok" && sameBytes(textOf(record), text),
  );
}

/** First byte and how many. */
export type Range = readonly [number, number];

/** What an owner that was robbed may still store: his buffers. His copy of the shadow is not the current one. */
export const ROBBED_OWN: Range[] = [
  [BOUNCE_BASE, BOUNCE_SECTORS * SECTOR_BYTES],
  [HEAD_BLOCK, SECTOR_BYTES],
  [TAIL_BLOCK, SECTOR_BYTES],
  [REGISTER_BLOCK, SECTOR_BYTES],
  [ADMA_TABLE, 8],
];

/** The same of a panic that was robbed. */
export const PANIC_OWN: Range[] = [
  [PANIC_BOUNCE, BOUNCE_SECTORS * SECTOR_BYTES],
  [VERIFY_BASE, BOUNCE_SECTORS * SECTOR_BYTES],
  [PANIC_HEAD_BLOCK, PANIC_ADMA_TABLE + 8 - PANIC_HEAD_BLOCK],
];

/** Copies of the shadow that are not the current one of a saved memory. */
function oldShadows(state: Uint8Array): Range[] {
  const memory = { buffer: state.buffer } as WebAssembly.Memory;
  const current = shadowAt(memory);
  const copies = Array.from({ length: OWNER_COPIES }, (_, i) => DRIVER_BASE + i * SHADOW_BYTES);
  return copies.filter((at) => at !== current).map((at) => [at, SHADOW_BYTES]);
}

/** The first places, as hexadecimal addresses, at which two memories differ, but for `allowed`. [] if nowhere. */
export function changed(before: Uint8Array, after: Uint8Array, allowed: Range[]): string[] {
  if (sameBytes(before, after)) return [];
  const ranges = [...allowed, ...oldShadows(before)].sort((a, b) => a[0] - b[0]);
  const found: string[] = [];
  let from = 0;
  const compare = (until: number) => {
    if (sameBytes(before.subarray(from, until), after.subarray(from, until))) return;
    for (let at = from; at < until && found.length < 5; at++) {
      if (before[at] !== after[at]) found.push(`0x${at.toString(16)}: ${before[at]} → ${after[at]}`);
    }
  };
  for (const [first, bytes] of ranges) {
    if (first > from) compare(first);
    from = Math.max(from, first + bytes);
  }
  compare(before.length);
  return found;
}

export interface Operation {
  name: string;
  prepare?(device: Device): void;
  /** Throws MmcError, as Device does. */
  run(device: Device): void;
  /** What a panic here makes of the record is the takeover's matter (tests/takeover.test.ts), not its actors'. */
  isTakeOver?(options: DeviceOptions): boolean;
  /** What it may have stored, from a byte of the medium on: of each sector the old bytes or these. */
  offset: number;
  bytes: Uint8Array;
}

const NOTHING = { offset: 0, bytes: new Uint8Array(0) };

/** The status of an export of the core, as Device throws it. */
function raw(call: (device: Device) => number): (device: Device) => void {
  return (device) => throwOnError(call(device), "core");
}

function rcaOf(device: Device): number {
  return new DataView(device.memory.buffer).getUint32(shadowAt(device.memory) + 12, true);
}

/** 300 bytes in the middle of sector 12. */
const PART = FRESH.slice(0, 300);
const PART_AT = 12 * SECTOR_BYTES + 100;
const PART_SECTOR = USER.slice(12 * SECTOR_BYTES, 13 * SECTOR_BYTES);
PART_SECTOR.set(PART, 100);

/** Every operation of the normal driver. */
export const OPERATIONS: Operation[] = [
  { name: "read", run: (device) => device.read(0, 2 * SECTOR_BYTES), ...NOTHING },
  {
    name: "write",
    run: (device) => device.write(10 * SECTOR_BYTES, FRESH),
    offset: 10 * SECTOR_BYTES,
    bytes: FRESH,
  },
  {
    name: "write a part of a sector",
    run: (device) => device.write(PART_AT, PART),
    offset: 12 * SECTOR_BYTES,
    bytes: PART_SECTOR,
  },
  {
    name: "erase",
    run: (device) => device.erase(20 * SECTOR_BYTES, 4 * SECTOR_BYTES),
    offset: 20 * SECTOR_BYTES,
    bytes: new Uint8Array(4 * SECTOR_BYTES),
  },
  {
    name: "flush",
    prepare: (device) => device.write(30 * SECTOR_BYTES, FRESH),
    run: (device) => device.flush(),
    offset: 30 * SECTOR_BYTES,
    bytes: FRESH,
  },
  { name: "flush the rings", run: (device) => device.flushRings(), ...NOTHING },
  { name: "registers", run: (device) => device.registers(), ...NOTHING },
  {
    name: "CMD13",
    run: raw((device) => device.core.blockCommand(13, rcaOf(device) << 16, 0x1a)),
    ...NOTHING,
  },
  {
    name: "power on",
    run: (device) => device.powerOn(),
    // The cache is on, and the answer that says so has not come yet.
    isTakeOver: ({ cacheSectors }) => cacheSectors !== undefined,
    ...NOTHING,
  },
  { name: "recover the area", run: raw((device) => device.core.recoverArea()), ...NOTHING },
  {
    name: "leave a write in flight",
    run: (device) => device.leaveWriteInFlight(10 * SECTOR_BYTES, FRESH),
    offset: 10 * SECTOR_BYTES,
    bytes: FRESH,
  },
];

/** What is wrong with the bytes in front of the area; null if nothing is. */
export function userProblem(device: Device, { offset, bytes }: Operation): string | null {
  const medium = device.medium();
  for (let at = 0; at < AREA_OFFSET; at += SECTOR_BYTES) {
    const now = medium.subarray(at, at + SECTOR_BYTES);
    const old = new Uint8Array(SECTOR_BYTES);
    old.set(USER.subarray(at, at + SECTOR_BYTES));
    if (sameBytes(now, old)) continue;
    const isHis = at >= offset && at < offset + bytes.length;
    const fresh = bytes.subarray(at - offset, at - offset + SECTOR_BYTES);
    if (!isHis || !sameBytes(now, fresh)) return `sector ${at / SECTOR_BYTES}`;
  }
  return null;
}
