// A saved state of a device: the machine's memory without its empty pages, what an external medium gives, and for a
// peripheral the guest's clock. Device and SdhciPeripheral have this one format. Numbers are little-endian, sizes f64:
//   0 "mmcpstor"   8 u32 STATE_VERSION   12 u32 CRC-32C of all that follows
//   16 memory bytes   24 pages   32 bytes of the medium, MEDIUM_IN_MEMORY, or MEDIUM_LEFT_OUT
//   40 u32 1 = the guest's clock is known   44 i64 its offset   52 32 bytes, which core it is of (coreIdentity)
//   84 pages: { u32 number, ascending; 4096 bytes } …, then the medium's bytes
// A state is taken only if every length fits, the checksum is right, it is of this very core, and the machine that it
// came from was configured as this one is. Somebody who forges a checksum can make the card do anything and the core
// trap; it reaches nothing outside its own memory all the same. Nothing of Node.
import * as layout from "../../assembly/layout.js";
import type { ExternalMedium } from "../core/external-medium.js";
import { MmcError } from "../errors.js";
import { ownBytes } from "../own-bytes.js";
import { crc32c } from "../pstore/crc32c.js";

/** One more with every change of this format. What changes in the core is seen by itself. */
const STATE_VERSION = 4;
const MAGIC = new TextEncoder().encode("mmcpstor");
const CRC_OFFSET = 12;
const CHECKED_FROM = 16;
const IDENTITY_BYTES = 32;
const CLOCK_OFFSET = 40;
const IDENTITY_OFFSET = 52;
const HEAD_BYTES = 84;
const PAGE_BYTES = 4096;
const ENTRY_BYTES = 4 + PAGE_BYTES;
/** In place of the size of an external medium. */
const MEDIUM_IN_MEMORY = -1;
/** It cannot be saved, and stays as it is. */
const MEDIUM_LEFT_OUT = -2;

/** The machine that is saved, or that a state is for. */
export interface SavedMachine {
  /** All of its memory. */
  memory: Uint8Array;
  external: ExternalMedium | null;
  /** {@link coreIdentity} of its core. */
  identity: Uint8Array;
}

export interface DecodedState {
  memory: Uint8Array;
  /** Gives an external medium what belongs to it; throws before anything has changed. */
  restoreMedium(): void;
}

const identities = new WeakMap<WebAssembly.Module, Uint8Array>();

/**
 * 32 bytes that tell the core of one target and build from all others: what scripts/build.mjs has put into the binary,
 * and where its words lie. A binary without that is known by what it imports and exports.
 */
export function coreIdentity(module: WebAssembly.Module): Uint8Array {
  const known = identities.get(module);
  if (known !== undefined) return known;
  const [build] = WebAssembly.Module.customSections(module, "mmcpstore.build");
  const doors = [...WebAssembly.Module.imports(module), ...WebAssembly.Module.exports(module)];
  const words = new TextEncoder().encode(JSON.stringify([doors, Object.entries(layout)]));
  const identity = new Uint8Array(IDENTITY_BYTES);
  identity.set(new Uint8Array(build ?? new ArrayBuffer(0)).subarray(0, IDENTITY_BYTES - 4));
  new DataView(identity.buffer).setUint32(IDENTITY_BYTES - 4, crc32c(words), true);
  identities.set(module, identity);
  return identity;
}

/** What the options fix: CONFIG, the dump area, and the shape of the region table. */
const FIXED: readonly [from: number, to: number][] = [
  [layout.CONFIG_BASE, layout.CONFIG_TRACE],
  [layout.CONFIG_TRACE + 4, layout.CONFIG_END],
  [layout.DUMP_AREA_FIRST_LBA, layout.DUMP_AREA_SECTORS + 4],
  [layout.DUMP_WORK, layout.DUMP_ELF_FLAGS + 4],
];

/** The first of the words that differ, by the name that it has in the memory map. */
function nameOfDifference(state: Uint8Array, current: Uint8Array): string | null {
  for (const [from, to] of FIXED) {
    for (let at = from; at < to; at++) {
      if (state[at] === current[at]) continue;
      const word = at & ~3;
      const found = Object.entries(layout).find(
        ([name, value]) => value === word && /^(CONFIG|DUMP)_/.test(name) && !/_(BASE|END)$/.test(name),
      );
      return found?.[0] ?? `word 0x${word.toString(16)}`;
    }
  }
  return null;
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

function mediumOf(
  external: ExternalMedium | null,
): Uint8Array | typeof MEDIUM_IN_MEMORY | typeof MEDIUM_LEFT_OUT {
  if (external === null) return MEDIUM_IN_MEMORY;
  if (!external.saveState || !external.loadState) return MEDIUM_LEFT_OUT;
  const bytes: unknown = external.saveState();
  if (!(bytes instanceof Uint8Array)) {
    throw new MmcError("EINVAL", "saveState: the medium's own saveState() gave no bytes");
  }
  return bytes.slice();
}

export function encodeState(machine: SavedMachine, offsetNs: bigint | null): Uint8Array {
  const { memory, external, identity } = machine;
  const medium = mediumOf(external);
  const bytes = typeof medium === "number" ? new Uint8Array(0) : medium;
  const words = new Float64Array(memory.buffer);
  const pages: number[] = [];
  for (let page = 0; page * PAGE_BYTES < memory.length; page++) if (!isEmpty(words, page)) pages.push(page);
  const state = new Uint8Array(HEAD_BYTES + pages.length * ENTRY_BYTES + bytes.length);
  const view = new DataView(state.buffer);
  state.set(MAGIC);
  view.setUint32(8, STATE_VERSION, true);
  state.set(identity, IDENTITY_OFFSET);
  view.setUint32(CLOCK_OFFSET, offsetNs === null ? 0 : 1, true);
  view.setBigInt64(CLOCK_OFFSET + 4, offsetNs ?? 0n, true);
  view.setFloat64(16, memory.length, true);
  view.setFloat64(24, pages.length, true);
  view.setFloat64(32, typeof medium === "number" ? medium : bytes.length, true);
  let at = HEAD_BYTES;
  for (const page of pages) {
    view.setUint32(at, page, true);
    state.set(memory.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), at + 4);
    at += ENTRY_BYTES;
  }
  state.set(bytes, at);
  view.setUint32(CRC_OFFSET, crc32c(state, CHECKED_FROM), true);
  return state;
}

function refuse(why: string): never {
  throw new MmcError("EINVAL", `loadState: ${why}`);
}

/** What its head says, once all of it is known to be there and undamaged. */
function readHead(state: Uint8Array) {
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
  return {
    identity: state.subarray(IDENTITY_OFFSET, IDENTITY_OFFSET + IDENTITY_BYTES),
    hasClock: view.getUint32(CLOCK_OFFSET, true),
    memoryBytes: view.getFloat64(16, true),
    pages,
    mediumBytes,
    view,
  };
}

/** The guest's clock in a state that was taken; null: there was none. */
export function guestOffsetOf(state: Uint8Array): bigint | null {
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  return view.getUint32(CLOCK_OFFSET, true) === 1 ? view.getBigInt64(CLOCK_OFFSET + 4, true) : null;
}

/** `machine`: the one that the state is for. Nothing of it is changed. */
export function decodeState(state: Uint8Array, machine: SavedMachine): DecodedState {
  const head = readHead(state);
  const { memory: current, external, identity } = machine;
  if (identity.some((byte, i) => head.identity[i] !== byte))
    refuse("it is of another core, or of another build");
  const hasOther = (head.mediumBytes === MEDIUM_IN_MEMORY) !== (external === null);
  if (head.memoryBytes !== current.length || hasOther) refuse("it is of a device with another medium");
  if (head.mediumBytes < MEDIUM_LEFT_OUT || head.hasClock > 1) refuse("these bytes are no saved state");
  const canLoad = external?.saveState !== undefined && external.loadState !== undefined;
  if (external !== null && (head.mediumBytes === MEDIUM_LEFT_OUT) === canLoad) {
    refuse("it is of a device whose medium is saved in another way");
  }
  const memory = new Uint8Array(current.length);
  let last = -1;
  let at = HEAD_BYTES;
  for (let i = 0; i < head.pages; i++, at += ENTRY_BYTES) {
    const page = head.view.getUint32(at, true);
    if (page <= last || page * PAGE_BYTES >= memory.length) refuse(`page ${page} has no place`);
    memory.set(state.subarray(at + 4, at + ENTRY_BYTES), page * PAGE_BYTES);
    last = page;
  }
  const traced = layout.CONFIG_TRACE;
  memory.set(current.subarray(traced, traced + 4), traced);
  const differs = nameOfDifference(memory, current);
  if (differs !== null) refuse(`it is of a device with other options: ${differs} differs`);
  return {
    memory,
    restoreMedium() {
      if (head.mediumBytes >= 0) external?.loadState?.(ownBytes(state, at));
    },
  };
}
