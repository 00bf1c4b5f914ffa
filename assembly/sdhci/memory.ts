// What the controller's DMA reaches: the linear memory, of which it may read all but the first 4 KiB of
// machine words, and write what is memory to the machine's user: the blocks and buffers of the driver, never
// the chip's own state, the wires or the medium. An address elsewhere is a bus error, not a trap.

import {
  BOUNCE_BASE,
  DEFLATE_BASE,
  HEAD_BLOCK,
  PAGE_BYTES,
  TEXT_BASE,
  WIRE_BASE,
  ZONE_STATES,
} from "../layout";

const BUS_FIRST: u32 = 0x1000;

export function isReadable(address: u32, bytes: u32): bool {
  const end: u64 = <u64>address + bytes;
  return address >= BUS_FIRST && end <= <u64>memory.size() * PAGE_BYTES;
}

function isWithin(address: u32, bytes: u32, first: u32, end: u32): bool {
  return address >= first && <u64>address + bytes <= <u64>end;
}

export function isWritable(address: u32, bytes: u32): bool {
  return (
    isWithin(address, bytes, TEXT_BASE, DEFLATE_BASE) ||
    isWithin(address, bytes, BOUNCE_BASE, ZONE_STATES) ||
    isWithin(address, bytes, HEAD_BLOCK, WIRE_BASE)
  );
}

/** True if DMA can move `bytes` at `address` in this direction. */
export function isOnBus(address: u32, bytes: u32, toMemory: bool): bool {
  return toMemory ? isWritable(address, bytes) : isReadable(address, bytes);
}
