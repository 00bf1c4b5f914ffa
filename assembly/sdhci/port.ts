// SDHCI_BUFFER_PORT (mmc.md §3.4): the bytes of the block in their order, whatever the lane and the width.

import { SDHCI_BUFFER } from "../layout";
import { portAdvance } from "./engine";
import { DATA_READ_FULL, DATA_WRITE_FILL, engine, MOVE_PIO } from "./state";

/** One lane: the driver takes or gives the next byte of the block. */
export function portRead(): u32 {
  const e = engine();
  if (e.dataPhase != DATA_READ_FULL) return 0;
  const byte: u32 = load<u8>(SDHCI_BUFFER + e.bufferAt);
  portAdvance(1);
  return byte;
}

export function portWrite(byte: u32): void {
  const e = engine();
  if (e.dataPhase != DATA_WRITE_FILL || e.isDma != MOVE_PIO) return;
  store<u8>(SDHCI_BUFFER + e.bufferAt, <u8>byte);
  portAdvance(1);
}

/** Four lanes at once where they are in the block: the common case, without four steps. */
export function portReadWord(): u32 {
  const e = engine();
  if (e.dataPhase == DATA_READ_FULL && e.bufferAt + 4 <= e.blockBytes) {
    const word = load<u32>(SDHCI_BUFFER + e.bufferAt);
    portAdvance(4);
    return word;
  }
  const first = portRead();
  const second = portRead();
  const third = portRead();
  return first | (second << 8) | (third << 16) | (portRead() << 24);
}

export function portWriteWord(word: u32): void {
  const e = engine();
  if (e.dataPhase == DATA_WRITE_FILL && e.isDma == MOVE_PIO && e.bufferAt + 4 <= e.blockBytes) {
    store<u32>(SDHCI_BUFFER + e.bufferAt, word);
    portAdvance(4);
    return;
  }
  portWrite(word & 0xff);
  portWrite((word >>> 8) & 0xff);
  portWrite((word >>> 16) & 0xff);
  portWrite(word >>> 24);
}
