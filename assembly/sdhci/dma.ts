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
  HEAD_BLOCK,
  PAGE_BYTES,
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
    isWithin(address, bytes, HEAD_BLOCK, WIRE_BASE)
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

/** The same for data that go on behind them, `wanted` (≥ bytes) in all. A page of a guest's memory is there or not. */
export function fetchData(address: u32, bytes: u32, wanted: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_BUS)) {
    const e = engine();
    const inPage: u32 = DMA_PAGE_BYTES - (address & (DMA_PAGE_BYTES - 1));
    if (bytes > inPage) return fetchBytes(address, bytes, ptr);
    // An address in front of the page is, unsigned, far behind it.
    let offset = address - e.pageAddress;
    if (offset >= e.pageBytes || bytes > e.pageBytes - offset) {
      e.pageBytes = 0;
      const ahead = wanted < inPage ? wanted : inPage;
      if (!fetchBytes(address, ahead, DMA_PAGE)) return false;
      e.pageAddress = address;
      e.pageBytes = ahead;
      offset = 0;
    }
    memory.copy(ptr, DMA_PAGE + offset, bytes);
    return true;
  }
  return fetchBytes(address, bytes, ptr);
}

/** The guest's CPU goes on: what was fetched of its memory may be other bytes when it is wanted again. */
export function forgetFetched(): void {
  engine().pageBytes = 0;
}

/** The same to the bus. */
export function storeBytes(address: u32, bytes: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_BUS)) {
    return <u64>address + bytes <= BUS_BYTES && write(address, bytes, ptr) == 0;
  }
  if (!isWritable(address, bytes)) return false;
  memory.copy(address, ptr, bytes);
  return true;
}
