// The controller's private state behind its registers: what the command and the data engine are doing, and when
// it is done. Times are simulated ns.
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

// @ts-expect-error: decorator
@unmanaged
export class Engine {
  commandNs: u64; // when the command engine goes on
  quietNs: u64; // no command starts before (N_RC)
  dataNs: u64; // when the data engine goes on, where it knows
  floorNs: u64; // a block cannot start before
  patienceNs: u64; // data timeout
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
