// The register file as a driver sees it. An access of 16 or 32 bits is its bytes in ascending order, so that byte
// lanes (v86 splits 16-bit stores), W1C and "the command starts on byte 0x0F" need no case of their own.
// Each access costs simulated time and first lets the hardware go on.
//
// Modelled: the registers that a polled driver uses, PIO and ADMA2-32, software resets.
// Not modelled: interrupt lines, SDMA, auto-CMD12/23, block gap, force event, insert/remove
// interrupts, UHS, tuning, presets.

import { powerCycleOff, powerOn, setVoltage18 } from "../card/card";
import { advanceNs, nowNs } from "../clock";
import { CONFIG_ACCESS_COST_NS, SDHCI_BASE, SDHCI_REGISTERS, TRACE_RESET } from "../layout";
import { trace } from "../trace";
import {
  issueCommand,
  portRead,
  portReadWord,
  portWrite,
  portWriteWord,
  presentState,
  resetCommandLine,
  resetDataLines,
  run,
} from "./engine";
import {
  CAPABILITIES,
  HOST_VERSION,
  SDHCI_BUFFER_PORT,
  SDHCI_CAPABILITIES,
  SDHCI_CLOCK_CONTROL,
  SDHCI_CLOCK_INT_EN,
  SDHCI_CLOCK_INT_STABLE,
  SDHCI_COMMAND,
  SDHCI_CTRL_VDD_180,
  SDHCI_HOST_CONTROL2,
  SDHCI_HOST_VERSION,
  SDHCI_INT_ERROR,
  SDHCI_INT_STATUS,
  SDHCI_POWER_CONTROL,
  SDHCI_POWER_ON,
  SDHCI_PRESENT_STATE,
  SDHCI_RESET_ALL,
  SDHCI_RESET_CMD,
  SDHCI_RESET_DATA,
  SDHCI_SOFTWARE_RESET,
  SDHCI_TRANSFER_MODE,
  writableBits,
} from "./registers";
import { DATA_IDLE, Engine, engine, register8, setRegister32 } from "./state";

/** A controller out of reset. */
export function makeController(): void {
  memory.fill(SDHCI_BASE, 0, offsetof<Engine>());
  clearRegisters();
}

function clearRegisters(): void {
  memory.fill(SDHCI_REGISTERS, 0, 256);
  setRegister32(SDHCI_CAPABILITIES, CAPABILITIES);
  store<u16>(SDHCI_REGISTERS + SDHCI_HOST_VERSION, <u16>HOST_VERSION);
}

function spend(): void {
  advanceNs(load<u32>(CONFIG_ACCESS_COST_NS));
  run();
}

/** Registers whose value is computed when they are read. */
function refresh(offset: u32): void {
  const word = offset & ~3;
  if (word == SDHCI_PRESENT_STATE) {
    setRegister32(SDHCI_PRESENT_STATE, presentState());
  } else if (word == SDHCI_INT_STATUS) {
    const status = engine().status;
    setRegister32(SDHCI_INT_STATUS, (status & 0xffff0000) != 0 ? status | SDHCI_INT_ERROR : status);
  }
}

function softwareReset(bits: u32): void {
  trace(TRACE_RESET, bits, 0);
  if ((bits & SDHCI_RESET_ALL) != 0) {
    // Clock and configuration go; the card keeps its supply, as on a board whose regulators are not the host's.
    resetCommandLine();
    resetDataLines();
    engine().status = 0;
    clearRegisters();
  }
  if ((bits & SDHCI_RESET_CMD) != 0) resetCommandLine();
  if ((bits & SDHCI_RESET_DATA) != 0) resetDataLines();
}

function writePower(value: u32): void {
  if ((value & SDHCI_POWER_ON) != 0) powerOn(nowNs());
  else powerCycleOff(nowNs());
}

/** The internal clock is stable as soon as it is enabled. */
function writeClock(): void {
  const at: usize = SDHCI_REGISTERS + SDHCI_CLOCK_CONTROL;
  const control: u32 = load<u8>(at);
  store<u8>(
    at,
    <u8>(
      ((control & SDHCI_CLOCK_INT_EN) != 0
        ? control | SDHCI_CLOCK_INT_STABLE
        : control & ~SDHCI_CLOCK_INT_STABLE)
    ),
  );
}

function writeByte(offset: u32, value: u32): void {
  if (offset >= SDHCI_BUFFER_PORT && offset < SDHCI_BUFFER_PORT + 4) {
    portWrite(value);
    return;
  }
  if (offset == SDHCI_SOFTWARE_RESET) {
    softwareReset(value);
    return;
  }
  if (offset >= SDHCI_INT_STATUS && offset < SDHCI_INT_STATUS + 4) {
    engine().status &= ~(value << ((offset & 3) << 3));
    return;
  }
  // The mode of a transfer is not changed under it.
  if (offset >= SDHCI_TRANSFER_MODE && offset < SDHCI_COMMAND && engine().dataPhase != DATA_IDLE) return;
  const writable = writableBits(offset);
  store<u8>(SDHCI_REGISTERS + offset, <u8>((register8(offset) & ~writable) | (value & writable)));
  if (offset == SDHCI_COMMAND + 1) issueCommand();
  else if (offset == SDHCI_POWER_CONTROL) writePower(value);
  else if (offset == SDHCI_CLOCK_CONTROL) writeClock();
  else if (offset == SDHCI_HOST_CONTROL2) setVoltage18((value & SDHCI_CTRL_VDD_180) != 0);
}

function readByte(offset: u32): u32 {
  if (offset >= SDHCI_BUFFER_PORT && offset < SDHCI_BUFFER_PORT + 4) return portRead();
  return register8(offset);
}

/** Offsets are taken modulo 256, the size of the BAR. Unaligned accesses stay within it. */
export function mmioRead8(offset: u32): u32 {
  spend();
  refresh(offset & 0xff);
  return readByte(offset & 0xff);
}

export function mmioRead16(offset: u32): u32 {
  spend();
  const at = offset & 0xff;
  refresh(at);
  refresh((at + 1) & 0xff);
  const low = readByte(at);
  return low | (readByte((at + 1) & 0xff) << 8);
}

export function mmioRead32(offset: u32): u32 {
  spend();
  const at = offset & 0xff;
  if (at == SDHCI_BUFFER_PORT) return portReadWord();
  refresh(at);
  refresh((at + 3) & 0xff);
  const first = readByte(at);
  const second = readByte((at + 1) & 0xff);
  const third = readByte((at + 2) & 0xff);
  return first | (second << 8) | (third << 16) | (readByte((at + 3) & 0xff) << 24);
}

export function mmioWrite8(offset: u32, value: u32): void {
  spend();
  writeByte(offset & 0xff, value & 0xff);
}

export function mmioWrite16(offset: u32, value: u32): void {
  spend();
  writeByte(offset & 0xff, value & 0xff);
  writeByte((offset + 1) & 0xff, (value >>> 8) & 0xff);
}

export function mmioWrite32(offset: u32, value: u32): void {
  spend();
  const at = offset & 0xff;
  if (at == SDHCI_BUFFER_PORT) {
    portWriteWord(value);
    return;
  }
  writeByte(at, value & 0xff);
  writeByte((at + 1) & 0xff, (value >>> 8) & 0xff);
  writeByte((at + 2) & 0xff, (value >>> 16) & 0xff);
  writeByte((at + 3) & 0xff, value >>> 24);
}

/** Time passes without an access: the driver waits. */
export function idleNs(lengthNs: u32): void {
  advanceNs(lengthNs);
  run();
}
