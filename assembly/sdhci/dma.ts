// What the controller's DMA reaches: the linear memory, of which it may read all but the first 4 KiB of
// machine words, and write what is memory to the machine's user: the blocks and buffers of the driver, never
// the chip's own state, the wires or the medium.
// Built with EXTERNAL_BUS it is the memory of a guest and nothing else, two calls of the host:
// read(address, bytes, ptr) fetches to ptr, write(address, bytes, ptr) stores from there; 0, or not 0 where the
// guest has no memory.
// An address elsewhere is a bus error, not a trap.

import {
  BOUNCE_BASE,
  DEFLATE_BASE,
  HEAD_BLOCK,
  PAGE_BYTES,
  TEXT_BASE,
  WIRE_BASE,
  ZONE_STATES,
} from "../layout";

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

/** The same to the bus. */
export function storeBytes(address: u32, bytes: u32, ptr: usize): bool {
  if (isDefined(EXTERNAL_BUS)) {
    return <u64>address + bytes <= BUS_BYTES && write(address, bytes, ptr) == 0;
  }
  if (!isWritable(address, bytes)) return false;
  memory.copy(address, ptr, bytes);
  return true;
}
