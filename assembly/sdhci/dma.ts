// What the controller's DMA reaches: the linear memory, of which it may read all but the first 4 KiB of
// machine words, and write what is memory to the machine's user: the blocks and buffers of the driver, never
// the chip's own state, the wires or the medium.
// Built with EXTERNAL_BUS it is the memory of a guest and nothing else, two calls of the host:
// read(address, bytes, ptr) fetches to ptr, write(address, bytes, ptr) stores from there; 0, or not 0 where the
// guest has no memory. What the guest's CPU does not touch meanwhile is fetched by pages instead of blocks.
// An address elsewhere is a bus error, not a trap.

import {
  BOUNCE_BASE,
  DEFLATE_BASE,
  DMA_PAGE,
  DMA_PAGE_BYTES,
  DMA_TABLE,
  DMA_TABLE_BYTES,
  HEAD_BLOCK,
  PAGE_BYTES,
  PANIC_ADMA_TABLE,
  PANIC_BOUNCE,
  TEXT_BASE,
  WIRE_BASE,
  ZONE_STATES,
} from "../layout";
import { engine } from "./state";

declare function read(address: u32, bytes: u32, ptr: usize): i32;
declare function write(address: u32, bytes: u32, ptr: usize): i32;

const BUS_FIRST: u32 = 0x1000;
const BUS_BYTES: u64 = 0x100000000;

function isReadable(address: u32, bytes: u32): bool {
  const end: u64 = <u64>address + bytes;
  return address >= BUS_FIRST && end <= <u64>memory.size() * PAGE_BYTES;
}

function isWithin(address: u32, bytes: u32, first: u32, end: u32): bool {
  return address >= first && <u64>address + bytes <= <u64>end;
}

function isWritable(address: u32, bytes: u32): bool {
  return (
    isWithin(address, bytes, TEXT_BASE, DEFLATE_BASE) ||
    isWithin(address, bytes, BOUNCE_BASE, ZONE_STATES) ||
    isWithin(address, bytes, HEAD_BLOCK, WIRE_BASE) ||
    isWithin(address, bytes, PANIC_BOUNCE, PANIC_ADMA_TABLE)
  );
}

/** `bytes` (≥ 1) from `address` on the bus to `ptr`. False: no memory there, and nothing is moved. */
export function fetchBytes(address: u32, bytes: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_BUS)) {
    return <u64>address + bytes <= BUS_BYTES && read(address, bytes, ptr) == 0;
  }
  if (!isReadable(address, bytes)) return false;
  memory.copy(ptr, address, bytes);
  return true;
}

/** Bytes from `address` to the end of its page. A page of a guest's memory is there or not. */
export function leftInPage(address: u32): u32 {
  return DMA_PAGE_BYTES - (address & (DMA_PAGE_BYTES - 1));
}

/**
 * Where `bytes` (within a page) of a guest's memory lie in DMA_PAGE, fetched with what is `wanted` (≥ bytes) behind
 * them, up to the page's end. 0: no memory there.
 */
export function fetchAhead(address: u32, bytes: u32, wanted: u32): usize {
  const e = engine();
  // An address in front of what is there is, unsigned, far behind it.
  const offset = address - e.pageAddress;
  if (offset < e.pageBytes && bytes <= e.pageBytes - offset) return DMA_PAGE + offset;
  e.pageBytes = 0;
  const inPage = leftInPage(address);
  const ahead = wanted < inPage ? wanted : inPage;
  if (!fetchBytes(address, ahead, DMA_PAGE)) return 0;
  e.pageAddress = address;
  e.pageBytes = ahead;
  return DMA_PAGE;
}

/** As fetchBytes(), for data that go on behind them, `wanted` (≥ bytes) in all. */
export function fetchData(address: u32, bytes: u32, wanted: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_BUS)) {
    if (bytes > leftInPage(address)) return fetchBytes(address, bytes, ptr);
    const at = fetchAhead(address, bytes, wanted);
    if (at == 0) return false;
    memory.copy(ptr, at, bytes);
    return true;
  }
  return fetchBytes(address, bytes, ptr);
}

/** An ADMA2 descriptor, 8 bytes, to `ptr`; of a guest's table those behind it are fetched with it, within the page. */
export function fetchDescriptor(address: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_BUS)) {
    const e = engine();
    let offset = address - e.tableAddress;
    if (offset >= e.tableBytes || e.tableBytes - offset < 8) {
      e.tableBytes = 0;
      const inPage = leftInPage(address);
      if (inPage < 8) return fetchBytes(address, 8, ptr);
      const ahead: u32 = inPage < <u32>DMA_TABLE_BYTES ? inPage : DMA_TABLE_BYTES;
      if (!fetchBytes(address, ahead, DMA_TABLE)) return false;
      e.tableAddress = address;
      e.tableBytes = ahead;
      offset = 0;
    }
    store<u64>(ptr, load<u64>(DMA_TABLE + offset));
    return true;
  }
  return fetchBytes(address, 8, ptr);
}

/** The guest's CPU goes on: what was fetched of its memory may be other bytes when it is wanted again. */
export function forgetFetched(): void {
  engine().pageBytes = 0;
  engine().tableBytes = 0;
}

/** The same to the bus. */
export function storeBytes(address: u32, bytes: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_BUS)) {
    const e = engine();
    // What a read puts over its own table is its table.
    if (address - e.tableAddress < e.tableBytes || e.tableAddress - address < bytes) e.tableBytes = 0;
    return <u64>address + bytes <= BUS_BYTES && write(address, bytes, ptr) == 0;
  }
  if (!isWritable(address, bytes)) return false;
  memory.copy(address, ptr, bytes);
  return true;
}
