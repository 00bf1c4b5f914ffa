// SDMA: one piece of memory from SDHCI_DMA_ADDRESS on, in halts at every 4 KiB << n (mmc.md §3.4). The
// register moves with the bytes. At the end of a transfer no halt is made: transfer complete says it all.
//
// An address where no memory is has no error bit: nothing moves, and the data timeout tells of it.

import { SDHCI_BUFFER } from "../layout";
import { fetchData, storeBytes } from "./dma";
import { SDHCI_BLOCK_SIZE, SDHCI_DMA_ADDRESS } from "./registers";
import { engine, register16, register32, setRegister32 } from "./state";

export const SDMA_MOVED: u32 = 0;
export const SDMA_BOUNDARY: u32 = 1;
export const SDMA_LOST: u32 = 2;

/** Moves what is left of the block in the buffer, up to a boundary. */
export function sdmaMove(toMemory: bool): u32 {
  const e = engine();
  const done = e.bufferAt;
  const left = e.blockBytes - done;
  if (left == 0) return SDMA_MOVED;
  const boundary: u32 = 4096 << ((register16(SDHCI_BLOCK_SIZE) >>> 12) & 7);
  const address = register32(SDHCI_DMA_ADDRESS);
  const room = boundary - (address & (boundary - 1));
  // A block is shorter than any boundary: two pieces at most, and the second one is moved after the halt.
  const part = left > room ? room : left;
  const behind: u32 = e.counted != 0 ? (e.blocksLeft - 1) * e.blockBytes : room;
  const wanted = left + behind < room ? left + behind : room;
  const moved = toMemory
    ? storeBytes(address, part, SDHCI_BUFFER + done)
    : fetchData(address, part, wanted, SDHCI_BUFFER + done);
  if (!moved) return SDMA_LOST;
  e.bufferAt = done + part;
  setRegister32(SDHCI_DMA_ADDRESS, address + part);
  const isLast = part == left && e.counted != 0 && e.blocksLeft == 1;
  return part == room && !isLast ? SDMA_BOUNDARY : SDMA_MOVED;
}
