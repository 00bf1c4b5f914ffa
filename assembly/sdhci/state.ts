// The controller's private state behind its registers: what the command and the data engine are doing, and
// when it is done. Times are simulated ns.
import { SDHCI_BASE, SDHCI_REGISTERS } from "../layout";

export const COMMAND_IDLE: u32 = 0;
export const COMMAND_SENDING: u32 = 1; // until the card has the last bit
export const COMMAND_ANSWER: u32 = 2; // until the response's last bit
export const COMMAND_SILENCE: u32 = 3; // until the response timeout

export const DATA_IDLE: u32 = 0;
export const DATA_ARMED: u32 = 1; // the command is not answered yet
export const DATA_READ_WIRE: u32 = 2; // a block is awaited or on its way
export const DATA_READ_FULL: u32 = 3; // PIO: the driver empties the buffer
export const DATA_WRITE_FILL: u32 = 4; // PIO: the driver fills the buffer
export const DATA_WRITE_WIRE: u32 = 5;
export const DATA_WRITE_BUSY: u32 = 6;
export const DATA_BUSY: u32 = 7; // R1b without data
export const DATA_HALTED: u32 = 8; // after an error, until a DAT reset
export const DATA_GAP: u32 = 9; // stopped between blocks at the driver's wish
export const DATA_BOUNDARY: u32 = 10; // SDMA: until the driver writes the address again
export const DATA_STOPPING: u32 = 11; // all blocks are through, auto-CMD12 is due or on its way
export const DATA_LOST: u32 = 12; // the DMA has no memory to go to: only the timeout ends it

/** Which command is on its way besides the driver's. */
export const AUTO_NONE: u32 = 0;
export const AUTO_COUNT: u32 = 1; // CMD23; the driver's command follows
export const AUTO_STOP: u32 = 2; // CMD12 behind the last block

/** Engine.isDma: who moves the blocks. */
export const MOVE_PIO: u32 = 0;
export const MOVE_ADMA: u32 = 1;
export const MOVE_NONE: u32 = 2; // a DMA mode that this controller does not have: it never moves
export const MOVE_SDMA: u32 = 3;

// @ts-expect-error: decorator
@unmanaged
export class Engine {
  commandNs: u64; // when the command engine goes on
  quietNs: u64; // no command starts before (N_RC)
  dataNs: u64; // when the data engine goes on, where it knows
  floorNs: u64; // a block cannot start before
  patienceNs: u64; // data timeout
  frameNs: u64; // when the frame at hand begins on the CMD line
  sent: u64; // the command's 48 bits
  answer: u64; // the response's, the first 48 of a long one
  commandPhase: u32;
  command: u32; // SDHCI_COMMAND as it was issued
  argument: u32; // and SDHCI_ARGUMENT
  responseKind: u32;
  dataPhase: u32;
  isRead: u32;
  isDma: u32;
  blockBytes: u32;
  blocksLeft: u32;
  counted: u32;
  bufferAt: u32; // bytes moved by the driver in this block
  status: u32; // SDHCI_INT_STATUS without the summary bit
  admaLeft: u32; // bytes left in the descriptor at hand
  admaData: u32; // its address
  admaEnd: u32; // it was the last one
  admaInt: u32; // it asks for an interrupt when it is done
  auto: u32; // AUTO_*
  held: u32; // a command of the driver's that waits behind auto-CMD12
  inserted: u32; // what card detection said last
  tuning: u32; // this read is a tuning block
  tuningBlocks: u32; // of the procedure so far
  tuningGood: u32;
  stops: u32; // auto-CMD12 is to follow the last block
  descriptorHead: u32; // of ADMA2, as it was fetched: attributes, length << 16 …
  descriptorAddress: u32; // … and address
  pageAddress: u32; // of the bytes in DMA_PAGE
  pageBytes: u32; // 0: there are none
  tableAddress: u32; // of the descriptors in DMA_TABLE
  tableBytes: u32; // 0: there are none
  descriptors: u32; // of ADMA2, fetched since the last run() began …
  blockDescriptors: u32; // … and for the block at hand
  khz: u32; // what retime() made of the registers: the card's clock, 0 while it is off …
  timeoutNs: u64; // … and the data timeout
  stretchEvents: u32; // events that stretch() may stand for; 0 but in a run that goes ahead
}

export function engine(): Engine {
  return changetype<Engine>(SDHCI_BASE);
}

export function register8(offset: u32): u32 {
  return load<u8>(SDHCI_REGISTERS + offset);
}

export function register16(offset: u32): u32 {
  return load<u16>(SDHCI_REGISTERS + offset);
}

export function register32(offset: u32): u32 {
  return load<u32>(SDHCI_REGISTERS + offset);
}

export function setRegister32(offset: u32, value: u32): void {
  store<u32>(SDHCI_REGISTERS + offset, value);
}

/** Latches status bits that are enabled; a bit that is not enabled never appears. */
export function signal(bits: u32): void {
  engine().status |= bits & register32(0x34);
}

/** SDHCI_INT_STATUS with its summary. */
export function intStatus(): u32 {
  const status = engine().status;
  return (status & 0xffff0000) != 0 ? status | 0x8000 : status;
}

/** The interrupt line: level, high while a status bit is there whose signal is enabled. */
export function irqLevel(): u32 {
  return (intStatus() & register32(0x38)) != 0 ? 1 : 0;
}

/** SDHCI_DATA_INHIBIT: the data lines belong to a transfer. At a block gap they are free. */
export function dataIsInhibited(): bool {
  const phase = engine().dataPhase;
  return phase != DATA_IDLE && phase != DATA_GAP;
}

export function capabilities(): u32 {
  return register32(0x40);
}

export function hasUhs(): bool {
  return (register32(0x44) & 7) != 0 && register8(0xfe) >= 2;
}

export function setRegister16(offset: u32, value: u32): void {
  store<u16>(SDHCI_REGISTERS + offset, <u16>value);
}
