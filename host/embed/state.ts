// A saved state of a peripheral: the machine's memory without its empty pages, and what an external medium gives.
// Numbers are little-endian, sizes are f64:
//   0 "mmcpstor"   8 u32 STATE_VERSION   12 u32 CRC-32C of all that follows   16 memory bytes   24 pages
//   32 bytes of the medium, −1 = it is in the memory   40 u32 1 = the guest's clock is known   44 i64 its offset
//   52 pages: { u32 number, ascending; 4096 bytes } …, then the medium's bytes
// A state is taken only if every length fits, the checksum is right, and the machine it came from was
// configured as this one is. Somebody who forges a checksum can make the card do anything and the core trap;
// it reaches nothing outside its own memory all the same. Nothing of Node.
import { CONFIG_BASE, CONFIG_END, CONFIG_TRACE } from "../../assembly/layout.js";
import type { ExternalMedium } from "../core/external-medium.js";
import { MmcError } from "../errors.js";
import { crc32c } from "../pstore/crc32c.js";

/** One more with every change of assembly/layout.ts or of a struct that lies there. */
const STATE_VERSION = 4;
const MAGIC = new TextEncoder().encode("mmcpstor");
const CRC_OFFSET = 12;
const CHECKED_FROM = 16;
const HEAD_BYTES = 52;
const PAGE_BYTES = 4096;
const ENTRY_BYTES = 4 + PAGE_BYTES;
const IN_MEMORY = -1;

export interface DecodedState {
  memory: Uint8Array;
  offsetNs: bigint | null;
  /** Gives an external medium what belongs to it; throws before anything has changed. */
  restoreMedium(): void;
}

function isEmpty(words: Float64Array, page: number): boolean {
  const end = ((page + 1) * PAGE_BYTES) / 8;
  // Of all patterns of 64 bits only +0 and −0 are equal to 0.
  for (let i = (page * PAGE_BYTES) / 8; i < end; i++) {
    const word = words[i] as number;
    if (word !== 0 || Object.is(word, -0)) return false;
  }
  return true;
}

export function encodeState(
  memory: Uint8Array,
  external: ExternalMedium | null,
  offsetNs: bigint | null,
): Uint8Array {
  let medium = new Uint8Array(0);
  if (external !== null) {
    if (!external.saveState || !external.loadState) {
      throw new MmcError("EOPNOTSUPP", "saveState: the medium has none; OverlayMedium over it does");
    }
    medium = new Uint8Array(external.saveState());
  }
  const words = new Float64Array(memory.buffer);
  const pages: number[] = [];
  for (let page = 0; page * PAGE_BYTES < memory.length; page++) if (!isEmpty(words, page)) pages.push(page);
  const state = new Uint8Array(HEAD_BYTES + pages.length * ENTRY_BYTES + medium.length);
  const view = new DataView(state.buffer);
  state.set(MAGIC);
  view.setUint32(8, STATE_VERSION, true);
  view.setFloat64(16, memory.length, true);
  view.setFloat64(24, pages.length, true);
  view.setFloat64(32, external === null ? IN_MEMORY : medium.length, true);
  view.setUint32(40, offsetNs === null ? 0 : 1, true);
  view.setBigInt64(44, offsetNs ?? 0n, true);
  let at = HEAD_BYTES;
  for (const page of pages) {
    view.setUint32(at, page, true);
    state.set(memory.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), at + 4);
    at += ENTRY_BYTES;
  }
  state.set(medium, at);
  view.setUint32(CRC_OFFSET, crc32c(state, CHECKED_FROM), true);
  return state;
}

function refuse(why: string): never {
  throw new MmcError("EINVAL", `loadState: ${why}`);
}

/** `current`: the memory of the device that the state is for. */
export function decodeState(
  state: Uint8Array,
  current: Uint8Array,
  external: ExternalMedium | null,
): DecodedState {
  if (!(state instanceof Uint8Array) || state.length < HEAD_BYTES) refuse("these bytes are no saved state");
  if (MAGIC.some((byte, i) => state[i] !== byte)) refuse("these bytes are no saved state");
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  const version = view.getUint32(8, true);
  if (version !== STATE_VERSION) refuse(`a state of version ${version}, not ${STATE_VERSION}`);
  const pages = view.getFloat64(24, true);
  const mediumBytes = view.getFloat64(32, true);
  const storedBytes = Math.max(0, mediumBytes);
  if (!(pages >= 0 && HEAD_BYTES + pages * ENTRY_BYTES + storedBytes === state.length)) {
    refuse(`it is cut off, or longer than it says: ${state.length} bytes`);
  }
  if (crc32c(state, CHECKED_FROM) !== view.getUint32(CRC_OFFSET, true)) refuse("its checksum is wrong");
  if (view.getFloat64(16, true) !== current.length || (mediumBytes === IN_MEMORY) !== (external === null)) {
    refuse("it is of a device with another medium");
  }
  const memory = new Uint8Array(current.length);
  let last = -1;
  let at = HEAD_BYTES;
  for (let i = 0; i < pages; i++, at += ENTRY_BYTES) {
    const page = view.getUint32(at, true);
    if (page <= last || page * PAGE_BYTES >= memory.length) refuse(`page ${page} has no place`);
    memory.set(state.subarray(at + 4, at + ENTRY_BYTES), page * PAGE_BYTES);
    last = page;
  }
  memory.set(current.subarray(CONFIG_TRACE, CONFIG_TRACE + 4), CONFIG_TRACE);
  for (let word = CONFIG_BASE; word < CONFIG_END; word++) {
    if (memory[word] !== current[word]) refuse("it is of a device with other options");
  }
  if (view.getUint32(40, true) > 1) refuse("these bytes are no saved state");
  return {
    memory,
    offsetNs: view.getUint32(40, true) === 1 ? view.getBigInt64(44, true) : null,
    restoreMedium() {
      if (external === null) return;
      if (!external.loadState) refuse("the medium takes no state");
      external.loadState(state.slice(at));
    },
  };
}
