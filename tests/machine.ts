// What the tests of the panic path share: a machine with an old record and flushed user data on it, and the
// questions that every one of them asks afterwards.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  DAMAGE_BASE,
  DRIVER_BASE,
  HOST_POWERED,
  OWNER_COPIES,
  OWNER_WORD,
  SHADOW_BYTES,
  UNREADABLE_TABLE,
} from "../assembly/layout.js";
import type { CoreImports } from "../host/core/instantiate.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { decodeArea, type PstoreRecord } from "../host/pstore/decode.js";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** The binary of a target of asconfig.json. */
export function coreBytes(target: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(`${ROOT}dist/core/${target}.wasm`));
}

const modules = new Map<string, WebAssembly.Module>();

/** A target of asconfig.json, compiled once. */
export function coreModule(target: string): WebAssembly.Module {
  let module = modules.get(target);
  if (module === undefined) {
    module = new WebAssembly.Module(coreBytes(target));
    modules.set(target, module);
  }
  return module;
}

/** The log of a real panic, 29,743 bytes. */
export const PANIC_LOG = new Uint8Array(readFileSync(`${ROOT}host/cli/demo-panic.txt`));

/** Where the driver's Shadow (assembly/driver/shadow.ts) is that is current: copyOf() of assembly/owner.ts. */
export function shadowAt(memory: WebAssembly.Memory): number {
  const word = new DataView(memory.buffer).getUint32(OWNER_WORD, true);
  const copy = ((word >>> 8) + ((word & 0xff) === 0xff ? 1 : 0)) % OWNER_COPIES;
  return DRIVER_BASE + copy * SHADOW_BYTES;
}

/** Small deterministic bytes that differ from sector to sector. */
export function pattern(seed: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < lengthBytes; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

export function sameBytes(first: Uint8Array, second: Uint8Array): boolean {
  return Buffer.compare(first, second) === 0;
}

/** Where the tests' user data lie: before the area. */
export const USER_OFFSET = 64 * 512;
export const USER_DATA = pattern(7, 24 * 512);
export const IN_FLIGHT_OFFSET = 200 * 512;
export const AREA_OFFSET = 256 * 1024;
export const AREA_BYTES = 256 * 1024;

export interface Machine {
  device: Device;
  kmsgSize: number;
  /** What decode.ts finds in the area as the medium is now. */
  records(): PstoreRecord[];
}

/** A machine with `oldLogs` in its first zones and USER_DATA written and flushed. */
export function openMachine(
  options: DeviceOptions = {},
  oldLogs: Uint8Array[] = [pattern(1, 3000)],
  kmsgSize = 64 * 1024,
  target = "release",
  imports: CoreImports = {},
): Machine {
  const abi = options.area?.abi ?? "lp64";
  const device = Device.open(
    coreModule(target),
    {
      sizeBytes: 512 * 1024,
      // By bytes would be the rule for cards so small; the tests that want it say so.
      addressing: "sector",
      ...options,
      area: { offset: AREA_OFFSET, kmsgSize, kmsgCount: AREA_BYTES / kmsgSize, abi },
    },
    imports,
  );
  device.write(USER_OFFSET, USER_DATA);
  device.flush();
  for (const [i, text] of oldLogs.entries()) {
    const result = device.panicWrite({ text, reason: "Oops", timeSec: BigInt(1000 + i) });
    if (result.status !== 0) throw new Error(`old record ${i}: status ${result.status}`);
  }
  device.flush();
  const records = () =>
    decodeArea(readableArea(device), {
      kmsgSize,
      pmsgSize: 0,
      consoleSize: 0,
      ftraceSize: 0,
      abi,
    }).records;
  return { device, kmsgSize, records };
}

/** The area's bytes as a reader gets them: sectors that ECC cannot correct are zero. */
function readableArea(device: Device): Uint8Array {
  const medium = device.medium().slice();
  const words = new DataView(device.memory.buffer);
  // Damage.unreadable of assembly/card/flash.ts.
  const count = words.getUint32(DAMAGE_BASE + 4, true);
  for (let i = 0; i < count; i++) {
    const lba = words.getUint32(UNREADABLE_TABLE + i * 8, true);
    medium.fill(0, lba * 512, lba * 512 + 512);
  }
  return medium.slice(AREA_OFFSET, AREA_OFFSET + AREA_BYTES);
}

/** The text of a record without the line that Linux puts before it, if it is not compressed. */
export function textOf(record: PstoreRecord): Uint8Array {
  if (record.compressed) return record.bytes;
  return record.bytes.subarray(record.bytes.indexOf(10) + 1);
}

/** The machine has its power again, and panics before anybody has opened the card. */
export function bootUnopened(device: Device): void {
  new DataView(device.memory.buffer).setUint32(HOST_POWERED, 1, true);
}

/** Everything acknowledged and flushed is on the medium. */
export function userDataIntact(device: Device): boolean {
  return sameBytes(device.medium().subarray(USER_OFFSET, USER_OFFSET + USER_DATA.length), USER_DATA);
}
