// The register file as a driver sees it. An access of 16 or 32 bits is its bytes in ascending order, so that
// byte lanes (v86 splits 16-bit stores), W1C and "the command starts on byte 0x0F" need no case of their own.
// An access of our own driver (mmio…) costs simulated time and first lets the hardware go on.
//
// Modelled: all registers of mmc.md §3.1; what the controller has is CONFIG_CAPABILITIES and
// CONFIG_HOST_VERSION.
// Not modelled: card interrupt (bit 8) and re-tuning events (bit 12), wake-up, async interrupts, LED: bits
// only. Removing the card does not clear power and clock. A supply that the capabilities do not name is not
// switched on.

import { powerCycleOff, powerOn, setVoltage18, takesLowSupply } from "../card/card";
import { advanceNs, nowNs } from "../clock";
import {
  CONFIG_ACCESS_COST_NS,
  CONFIG_CAPABILITIES,
  CONFIG_CAPABILITIES_1,
  CONFIG_HOST_VERSION,
  CONFIG_SLOT,
  SDHCI_BASE,
  SDHCI_REGISTERS,
  SLOT_FIXED_SUPPLY,
  TRACE_RESET,
} from "../layout";
import { trace } from "../trace";
import {
  cardDetected,
  continueAtGap,
  issueCommand,
  resetCommandLine,
  resetDataLines,
  restartSdma,
  run,
  setAutoErrors,
  traceLevels,
  watchSlot,
} from "./engine";
import { portRead, portReadWord, portWrite, portWriteWord } from "./port";
import { presentState } from "./present";
import {
  SDHCI_ACMD12_ERR,
  SDHCI_ARGUMENT,
  SDHCI_AUTO_ERRORS,
  SDHCI_AUTO_NOT_ISSUED,
  SDHCI_BLOCK_GAP_CONTROL,
  SDHCI_BLOCK_SIZE,
  SDHCI_BUFFER_PORT,
  SDHCI_CAN_VDD_180,
  SDHCI_CAN_VDD_300,
  SDHCI_CAN_VDD_330,
  SDHCI_CAPABILITIES,
  SDHCI_CAPABILITIES_1,
  SDHCI_CLOCK_CONTROL,
  SDHCI_CLOCK_INT_EN,
  SDHCI_CLOCK_INT_STABLE,
  SDHCI_COMMAND,
  SDHCI_CTRL_EXEC_TUNING,
  SDHCI_CTRL_TUNED_CLK,
  SDHCI_CTRL_VDD_180,
  SDHCI_HOST_CONTROL,
  SDHCI_HOST_CONTROL2,
  SDHCI_HOST_VERSION,
  SDHCI_INT_AUTO_CMD_ERR,
  SDHCI_INT_ENABLE,
  SDHCI_INT_STATUS,
  SDHCI_POWER_180,
  SDHCI_POWER_300,
  SDHCI_POWER_330,
  SDHCI_POWER_CONTROL,
  SDHCI_POWER_MASK,
  SDHCI_POWER_ON,
  SDHCI_PRESENT_STATE,
  SDHCI_PRESET_DEFAULT_SPEED,
  SDHCI_PRESET_HIGH_SPEED,
  SDHCI_PRESET_INIT,
  SDHCI_PRESET_SDR12,
  SDHCI_RESET_ALL,
  SDHCI_RESET_CMD,
  SDHCI_RESET_DATA,
  SDHCI_SET_ACMD12_ERROR,
  SDHCI_SET_INT_ERROR,
  SDHCI_SIGNAL_ENABLE,
  SDHCI_SLOT_INT_STATUS,
  SDHCI_SOFTWARE_RESET,
  SDHCI_TIMEOUT_CONTROL,
  SDHCI_TRANSFER_MODE,
  writableBits,
} from "./registers";
import {
  capabilities,
  DATA_BOUNDARY,
  dataIsInhibited,
  Engine,
  engine,
  hasUhs,
  intStatus,
  irqLevel,
  MOVE_SDMA,
  register8,
  register32,
  setRegister16,
  setRegister32,
  signal,
} from "./state";
import { retime } from "./timing";

/** Writable bits of SDHCI_HOST_CONTROL2 by byte: UHS mode, 1.8 V, driver, tuning; async interrupt, preset. */
const CONTROL2_LOW: u32 = 0xff;
const CONTROL2_HIGH: u32 = 0xc0;

/** A controller out of reset. */
export function makeController(): void {
  memory.fill(SDHCI_BASE, 0, offsetof<Engine>());
  clearRegisters();
  engine().inserted = cardDetected() ? 1 : 0;
}

function clearRegisters(): void {
  memory.fill(SDHCI_REGISTERS, 0, 256);
  setRegister32(SDHCI_CAPABILITIES, load<u32>(CONFIG_CAPABILITIES));
  setRegister32(SDHCI_CAPABILITIES_1, load<u32>(CONFIG_CAPABILITIES_1));
  setRegister16(SDHCI_HOST_VERSION, load<u32>(CONFIG_HOST_VERSION));
  retime();
  if (!hasUhs()) return;
  // Dividers of the 200 MHz base: 400 kHz; 25 and 50 MHz; SDR12, 25, 50, 104 and DDR50.
  setRegister16(SDHCI_PRESET_INIT, 250);
  setRegister16(SDHCI_PRESET_DEFAULT_SPEED, 4);
  setRegister16(SDHCI_PRESET_HIGH_SPEED, 2);
  setRegister16(SDHCI_PRESET_SDR12, 4);
  setRegister16(SDHCI_PRESET_SDR12 + 2, 2);
  setRegister16(SDHCI_PRESET_SDR12 + 4, 1);
  setRegister16(SDHCI_PRESET_SDR12 + 6, 0);
  setRegister16(SDHCI_PRESET_SDR12 + 8, 2);
}

/** The card has come or gone: the slot's interrupt is there at once. */
export function slotChanged(): void {
  watchSlot();
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
    setRegister32(SDHCI_INT_STATUS, intStatus());
  } else if (word == SDHCI_SLOT_INT_STATUS) {
    store<u8>(SDHCI_REGISTERS + SDHCI_SLOT_INT_STATUS, <u8>irqLevel());
  }
}

function softwareReset(bits: u32): void {
  trace(TRACE_RESET, bits, 0);
  if ((bits & SDHCI_RESET_ALL) != 0) {
    // Clock and configuration go; the card keeps its supply, as on a board whose regulators are not the
    // host's.
    resetCommandLine();
    resetDataLines();
    engine().status = 0;
    engine().tuning = 0;
    clearRegisters();
    watchSlot();
  }
  if ((bits & SDHCI_RESET_CMD) != 0) resetCommandLine();
  if ((bits & SDHCI_RESET_DATA) != 0) resetDataLines();
}

/** The supply: a voltage that the capabilities name, or none. One that the card cannot use is none to it. */
function writePower(value: u32): void {
  const voltage = value & SDHCI_POWER_MASK;
  let needed: u32 = 0;
  if (voltage == SDHCI_POWER_330) needed = SDHCI_CAN_VDD_330;
  else if (voltage == SDHCI_POWER_300) needed = SDHCI_CAN_VDD_300;
  else if (voltage == SDHCI_POWER_180) needed = SDHCI_CAN_VDD_180;
  const on = (value & SDHCI_POWER_ON) != 0 && (capabilities() & needed) != 0;
  if (!on) store<u8>(SDHCI_REGISTERS + SDHCI_POWER_CONTROL, <u8>voltage);
  if (on && (voltage != SDHCI_POWER_180 || takesLowSupply())) powerOn(nowNs());
  else if ((load<u32>(CONFIG_SLOT) & SLOT_FIXED_SUPPLY) == 0) powerCycleOff(nowNs());
}

/** Execute tuning starts or gives up a procedure; the sampling clock can be cleared, not set. */
function writeControl2Low(value: u32): void {
  const e = engine();
  const before = register8(SDHCI_HOST_CONTROL2);
  if ((value & ~before & SDHCI_CTRL_EXEC_TUNING) != 0) {
    e.tuningBlocks = 0;
    e.tuningGood = 0;
  }
  const tuned = value & before & SDHCI_CTRL_TUNED_CLK;
  store<u8>(SDHCI_REGISTERS + SDHCI_HOST_CONTROL2, <u8>((value & ~SDHCI_CTRL_TUNED_CLK) | tuned));
  setVoltage18((value & SDHCI_CTRL_VDD_180) != 0);
}

function writeStatus(offset: u32, value: u32): void {
  const bits = value << ((offset & 3) << 3);
  engine().status &= ~bits;
  if ((bits & SDHCI_INT_AUTO_CMD_ERR) != 0) setRegister16(SDHCI_ACMD12_ERR, 0);
}

/** Force event: what it sets is as if it had happened, status enable included. */
function forceEvent(offset: u32, value: u32): void {
  if (offset == SDHCI_SET_ACMD12_ERROR) setAutoErrors(value & (SDHCI_AUTO_ERRORS | SDHCI_AUTO_NOT_ISSUED));
  else if (offset == SDHCI_SET_INT_ERROR) signal(value << 16);
  else if (offset == SDHCI_SET_INT_ERROR + 1) signal((value & 0x07) << 24);
}

/** True for a register that belongs to a transfer under way: written, it keeps its value. */
function isHeldByTransfer(offset: u32): bool {
  if (!dataIsInhibited()) return false;
  const e = engine();
  if (offset < SDHCI_BLOCK_SIZE) return e.isDma == MOVE_SDMA && e.dataPhase != DATA_BOUNDARY;
  return offset < SDHCI_ARGUMENT || (offset >= SDHCI_TRANSFER_MODE && offset < SDHCI_COMMAND);
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
    writeStatus(offset, value);
    return;
  }
  if (offset >= SDHCI_SET_ACMD12_ERROR && offset < SDHCI_SET_INT_ERROR + 2) {
    forceEvent(offset, value);
    return;
  }
  if (offset == SDHCI_HOST_CONTROL2 || offset == SDHCI_HOST_CONTROL2 + 1) {
    if (!hasUhs()) return;
    if (offset == SDHCI_HOST_CONTROL2) writeControl2Low(value & CONTROL2_LOW);
    else store<u8>(SDHCI_REGISTERS + offset, <u8>(value & CONTROL2_HIGH));
    retime();
    return;
  }
  if (isHeldByTransfer(offset)) return;
  const writable = writableBits(offset);
  store<u8>(SDHCI_REGISTERS + offset, <u8>((register8(offset) & ~writable) | (value & writable)));
  if (offset >= SDHCI_HOST_CONTROL && offset <= SDHCI_TIMEOUT_CONTROL) retime();
  if (offset == SDHCI_COMMAND + 1) issueCommand();
  else if (offset == SDHCI_POWER_CONTROL) writePower(value);
  else if (offset == SDHCI_CLOCK_CONTROL) writeClock();
  else if (offset == SDHCI_BLOCK_GAP_CONTROL) continueAtGap();
  else if (offset == SDHCI_HOST_CONTROL) watchSlot();
  else if (offset == SDHCI_BLOCK_SIZE - 1) restartSdma();
  // A status bit that is not enabled does not show, and has not been kept when it is enabled again.
  else if (offset >= SDHCI_INT_ENABLE && offset < SDHCI_SIGNAL_ENABLE)
    engine().status &= register32(SDHCI_INT_ENABLE);
}

function readByte(offset: u32): u32 {
  if (offset >= SDHCI_BUFFER_PORT && offset < SDHCI_BUFFER_PORT + 4) return portRead();
  return register8(offset);
}

/** Offsets are taken modulo 256, the size of the BAR. Unaligned accesses stay within it. */
export function readRegister8(offset: u32): u32 {
  refresh(offset & 0xff);
  return readByte(offset & 0xff);
}

export function readRegister16(offset: u32): u32 {
  const at = offset & 0xff;
  refresh(at);
  refresh((at + 1) & 0xff);
  const low = readByte(at);
  return low | (readByte((at + 1) & 0xff) << 8);
}

export function readRegister32(offset: u32): u32 {
  const at = offset & 0xff;
  if (at == SDHCI_BUFFER_PORT) return portReadWord();
  refresh(at);
  refresh((at + 3) & 0xff);
  const first = readByte(at);
  const second = readByte((at + 1) & 0xff);
  const third = readByte((at + 2) & 0xff);
  return first | (second << 8) | (third << 16) | (readByte((at + 3) & 0xff) << 24);
}

export function writeRegister8(offset: u32, value: u32): void {
  writeByte(offset & 0xff, value & 0xff);
  traceLevels();
}

export function writeRegister16(offset: u32, value: u32): void {
  writeByte(offset & 0xff, value & 0xff);
  writeByte((offset + 1) & 0xff, (value >>> 8) & 0xff);
  traceLevels();
}

export function writeRegister32(offset: u32, value: u32): void {
  const at = offset & 0xff;
  if (at == SDHCI_BUFFER_PORT) {
    portWriteWord(value);
    return;
  }
  writeByte(at, value & 0xff);
  writeByte((at + 1) & 0xff, (value >>> 8) & 0xff);
  writeByte((at + 2) & 0xff, (value >>> 16) & 0xff);
  writeByte((at + 3) & 0xff, value >>> 24);
  traceLevels();
}

// The same at a cost: what a driver whose CPU runs in this clock does.

export function mmioRead8(offset: u32): u32 {
  spend();
  return readRegister8(offset);
}

export function mmioRead16(offset: u32): u32 {
  spend();
  return readRegister16(offset);
}

export function mmioRead32(offset: u32): u32 {
  spend();
  return readRegister32(offset);
}

export function mmioWrite8(offset: u32, value: u32): void {
  spend();
  writeRegister8(offset, value);
}

export function mmioWrite16(offset: u32, value: u32): void {
  spend();
  writeRegister16(offset, value);
}

export function mmioWrite32(offset: u32, value: u32): void {
  spend();
  writeRegister32(offset, value);
}

/** Time passes without an access: the driver waits. */
export function idleNs(lengthNs: u32): void {
  advanceNs(lengthNs);
  run();
}
