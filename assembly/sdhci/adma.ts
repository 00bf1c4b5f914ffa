// ADMA2 with 32-bit addresses: 8-byte descriptors (attributes 16, length 16, address 32; mmc.md §3.4).
// SDHCI_ADMA_ADDRESS is the bad descriptor after an error in fetch, the one behind it in stop and transfer.
//
// Modelled: nop, reserved (as nop), tran, link, the interrupt attribute, tables that are too short or, with a block
// count, too long.
// Not modelled: ADMA1, 64-bit addresses.

import { SDHCI_REGISTERS, SECTOR_BYTES } from "../layout";
import { fetchData, fetchDescriptor, storeBytes } from "./dma";
import { SDHCI_ADMA_ADDRESS, SDHCI_ADMA_ERROR, SDHCI_INT_ADMA_ERROR, SDHCI_INT_DMA_END } from "./registers";
import { Engine, engine, register32, setRegister32, signal } from "./state";

const VALID: u32 = 1;
const END: u32 = 2;
const INTERRUPT: u32 = 4;
const ACT_MASK: u32 = 0x30;
const ACT_TRAN: u32 = 0x20;
const ACT_LINK: u32 = 0x30;
const STATE_STOP: u32 = 0;
const STATE_FETCH: u32 = 1;
const STATE_TRANSFER: u32 = 3;
const LENGTH_MISMATCH: u32 = 4;
/** Descriptors looked at for one block, at worst of a byte each: a table of nops or links is an error, not endless. */
const BLOCK_DESCRIPTORS_MAX: u32 = 512;
/** In one run, pages of 16 MiB: a table that never ends is one that goes on at the next access. */
export const DESCRIPTORS_MAX: u32 = 4096;

function admaFails(state: u32): bool {
  store<u8>(SDHCI_REGISTERS + SDHCI_ADMA_ERROR, <u8>state);
  signal(SDHCI_INT_ADMA_ERROR);
  return false;
}

/** Before the first block: the table is read from its start. */
export function admaStart(): void {
  const e = engine();
  e.admaLeft = 0;
  e.admaEnd = 0;
  e.admaInt = 0;
}

/** The descriptor at `at` to Engine.descriptorHead and descriptorAddress. False: no memory there. */
function takeDescriptor(at: u32): bool {
  engine().descriptors += 1;
  return fetchDescriptor(at, changetype<usize>(engine()) + offsetof<Engine>("descriptorHead"));
}

/** The descriptor that was taken is one of data. */
function useDescriptor(): void {
  const e = engine();
  const length = e.descriptorHead >>> 16;
  e.admaEnd = e.descriptorHead & END;
  e.admaInt = e.descriptorHead & INTERRUPT;
  e.admaLeft = length == 0 ? 0x10000 : length;
  e.admaData = e.descriptorAddress;
  setRegister32(SDHCI_ADMA_ADDRESS, register32(SDHCI_ADMA_ADDRESS) + 8);
}

/** Takes the next data descriptor. False: error, already signalled. */
function admaNext(): bool {
  const e = engine();
  for (let i: u32 = 0; i < BLOCK_DESCRIPTORS_MAX && e.blockDescriptors < BLOCK_DESCRIPTORS_MAX; i++) {
    if (e.admaEnd != 0) return admaFails(STATE_STOP | LENGTH_MISMATCH);
    const at = register32(SDHCI_ADMA_ADDRESS);
    e.blockDescriptors += 1;
    if (!takeDescriptor(at)) return admaFails(STATE_FETCH);
    const attributes = e.descriptorHead & 0xffff;
    if ((attributes & VALID) == 0) return admaFails(STATE_FETCH);
    if ((attributes & ACT_MASK) == ACT_TRAN) {
      useDescriptor();
      return true;
    }
    e.admaEnd = attributes & END;
    setRegister32(SDHCI_ADMA_ADDRESS, (attributes & ACT_MASK) == ACT_LINK ? e.descriptorAddress : at + 8);
    // A nop and a link are done at once.
    if ((attributes & INTERRUPT) != 0) signal(SDHCI_INT_DMA_END);
  }
  return admaFails(STATE_FETCH);
}

/**
 * True if the descriptor at hand has bytes left; else the next one is taken if it is one of a block of data or more,
 * and any other is left to admaNext().
 */
export function admaHasData(): bool {
  const e = engine();
  if (e.admaLeft != 0 || e.admaEnd != 0) return e.admaLeft != 0;
  const taken = e.descriptors;
  if (taken + 1 >= DESCRIPTORS_MAX) return false;
  if (takeDescriptor(register32(SDHCI_ADMA_ADDRESS))) {
    const length = e.descriptorHead >>> 16;
    const isData = (e.descriptorHead & (ACT_MASK | VALID)) == (ACT_TRAN | VALID);
    if (isData && (length == 0 || length >= <u32>SECTOR_BYTES)) {
      useDescriptor();
      return true;
    }
  }
  e.descriptors = taken;
  return false;
}

/** Behind a block: true if there is no more data in the table. A transfer without a block count ends there. */
export function admaIsAtEnd(): bool {
  const e = engine();
  if (e.admaLeft != 0) return false;
  for (let i: u32 = 0; i < BLOCK_DESCRIPTORS_MAX; i++) {
    if (e.admaEnd != 0) return true;
    const at = register32(SDHCI_ADMA_ADDRESS);
    // What is wrong with it is told when its data are wanted.
    if (!takeDescriptor(at)) return false;
    const attributes = e.descriptorHead & 0xffff;
    if ((attributes & VALID) == 0 || (attributes & ACT_MASK) == ACT_TRAN) return false;
    e.admaEnd = attributes & END;
    setRegister32(SDHCI_ADMA_ADDRESS, (attributes & ACT_MASK) == ACT_LINK ? e.descriptorAddress : at + 8);
    if ((attributes & INTERRUPT) != 0) signal(SDHCI_INT_DMA_END);
  }
  return false;
}

/**
 * Behind the last block of a count (SDHCI_TRNS_BLK_CNT_EN) the table has to end too: a total that is not block size ×
 * count is a length mismatch. False: error, already signalled.
 */
export function admaHasEnded(): bool {
  if (admaIsAtEnd()) return true;
  // Either more data in the descriptor at hand, or one more, or none that can be read.
  engine().blockDescriptors = 0;
  if (engine().admaLeft == 0 && !admaNext()) return false;
  return admaFails(STATE_TRANSFER | LENGTH_MISMATCH);
}

/** `bytes` of the descriptor at hand have been moved. */
export function admaAdvance(bytes: u32): void {
  const e = engine();
  e.admaData += bytes;
  e.admaLeft -= bytes;
  if (e.admaLeft == 0 && e.admaInt != 0) {
    e.admaInt = 0;
    signal(SDHCI_INT_DMA_END);
  }
}

/** Moves one block between the controller's buffer and the bus. False: error, already signalled. */
export function admaMove(buffer: usize, bytes: u32, toMemory: bool): bool {
  const e = engine();
  e.blockDescriptors = 0;
  let moved: u32 = 0;
  for (let i: u32 = 0; moved < bytes && i < 4096; i++) {
    if (e.admaLeft == 0 && !admaNext()) return false;
    let part = bytes - moved;
    if (part > e.admaLeft) part = e.admaLeft;
    const isMoved = toMemory
      ? storeBytes(e.admaData, part, buffer + moved)
      : fetchData(e.admaData, part, e.admaLeft, buffer + moved);
    if (!isMoved) return admaFails(STATE_TRANSFER);
    moved += part;
    admaAdvance(part);
  }
  return true;
}
