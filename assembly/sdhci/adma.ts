// ADMA2 with 32-bit addresses: 8-byte descriptors (attributes 16, length 16, address 32). The bus is the linear
// memory itself, its first 4 KiB of machine words left out; an address outside is a bus error, not a trap.

import { PAGE_BYTES, SDHCI_REGISTERS } from "../layout";
import { SDHCI_ADMA_ADDRESS, SDHCI_ADMA_ERROR, SDHCI_INT_ADMA_ERROR } from "./registers";
import { engine, register32, setRegister32, signal } from "./state";

const VALID: u32 = 1;
const END: u32 = 2;
const ACT_MASK: u32 = 0x30;
const ACT_TRAN: u32 = 0x20;
const ACT_LINK: u32 = 0x30;
const STATE_STOP: u32 = 0;
const STATE_FETCH: u32 = 1;
const STATE_TRANSFER: u32 = 3;
const LENGTH_MISMATCH: u32 = 4;
/** Descriptors looked at for one block: a table of nops or links is an error, not an endless walk. */
const DESCRIPTORS_MAX: u32 = 512;
const BUS_FIRST: u32 = 0x1000;

function onBus(address: u32, bytes: u32): bool {
  const end: u64 = <u64>address + bytes;
  return address >= BUS_FIRST && end <= <u64>memory.size() * PAGE_BYTES;
}

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
}

/** Takes the next data descriptor. False: error, already signalled. */
function admaNext(): bool {
  const e = engine();
  for (let i: u32 = 0; i < DESCRIPTORS_MAX; i++) {
    if (e.admaEnd != 0) return admaFails(STATE_STOP | LENGTH_MISMATCH);
    const at = register32(SDHCI_ADMA_ADDRESS);
    if (!onBus(at, 8)) return admaFails(STATE_FETCH);
    const attributes: u32 = load<u16>(at);
    if ((attributes & VALID) == 0) return admaFails(STATE_FETCH);
    const length: u32 = load<u16>(at, 2);
    const address = load<u32>(at, 4);
    e.admaEnd = attributes & END;
    setRegister32(SDHCI_ADMA_ADDRESS, (attributes & ACT_MASK) == ACT_LINK ? address : at + 8);
    if ((attributes & ACT_MASK) == ACT_TRAN) {
      e.admaLeft = length == 0 ? 0x10000 : length;
      e.admaData = address;
      return true;
    }
  }
  return admaFails(STATE_FETCH);
}

/** Moves one block between the controller's buffer and the bus. False: error, already signalled. */
export function admaMove(buffer: usize, bytes: u32, toMemory: bool): bool {
  const e = engine();
  let moved: u32 = 0;
  for (let i: u32 = 0; moved < bytes && i < 4096; i++) {
    if (e.admaLeft == 0 && !admaNext()) return false;
    let part = bytes - moved;
    if (part > e.admaLeft) part = e.admaLeft;
    if (!onBus(e.admaData, part)) return admaFails(STATE_TRANSFER);
    if (toMemory) memory.copy(e.admaData, buffer + moved, part);
    else memory.copy(buffer + moved, e.admaData, part);
    moved += part;
    e.admaData += part;
    e.admaLeft -= part;
  }
  return true;
}
