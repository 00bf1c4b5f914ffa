// What the controller's DMA may touch: the linear memory itself, its first 4 KiB of machine words left out. An address
// outside is a bus error, not a trap.

import { PAGE_BYTES } from "../layout";

const BUS_FIRST: u32 = 0x1000;

export function onBus(address: u32, bytes: u32): bool {
  const end: u64 = <u64>address + bytes;
  return address >= BUS_FIRST && end <= <u64>memory.size() * PAGE_BYTES;
}
