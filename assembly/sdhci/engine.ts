// The command and the data engine: what goes over the wires, when it is there, and which status bit tells of it.
// Everything happens at a known simulated time; run() lets it happen up to now. Bus clocks are those of
// mmc.md §1.11: 48 for a command or a short response, N_CR 2, N_AC and N_WR 2, N_CRC 2, CRC status 5, N_RC 8.

import {
  advanceCard,
  BLOCK_GOOD,
  BLOCK_NONE,
  blockBytesOnWire,
  blockDueNs,
  busyUntilNs,
  CRC_STATUS_GOOD,
  CRC_STATUS_NONE,
  dat0,
  hears,
  isPresent,
  isWriteSwitchLocked,
  linesAgree,
  RESPONSE_NONE,
  RESPONSE_R2,
  RESPONSE_R3,
  receiveBlock,
  receiveCommand,
  responseIsDamaged,
  responseWord,
  sendBlock,
  sendsCounted,
} from "../card/card";
import { afterNs, laterNs, NEVER, nowNs } from "../clock";
import {
  SDHCI_BUFFER,
  SDHCI_REGISTERS,
  SECTOR_BYTES,
  TRACE_COMMAND,
  TRACE_ERROR,
  TRACE_NO_RESPONSE,
  TRACE_RESPONSE,
  TRACE_TRANSFER_COMPLETE,
} from "../layout";
import { traceAt } from "../trace";
import { admaMove, admaStart } from "./adma";
import {
  BASE_CLOCK_KHZ,
  SDHCI_ARGUMENT,
  SDHCI_BLOCK_COUNT,
  SDHCI_BLOCK_SIZE,
  SDHCI_CARD_DETECT_PIN,
  SDHCI_CARD_PRESENT,
  SDHCI_CARD_STABLE,
  SDHCI_CLOCK_CARD_EN,
  SDHCI_CLOCK_CONTROL,
  SDHCI_CLOCK_INT_EN,
  SDHCI_CMD_ABORTCMD,
  SDHCI_CMD_CRC,
  SDHCI_CMD_DATA,
  SDHCI_CMD_INDEX,
  SDHCI_CMD_INHIBIT,
  SDHCI_CMD_LEVEL,
  SDHCI_CMD_RESP_LONG,
  SDHCI_CMD_RESP_MASK,
  SDHCI_CMD_RESP_NONE,
  SDHCI_CMD_RESP_SHORT_BUSY,
  SDHCI_CMD_TYPE_MASK,
  SDHCI_COMMAND,
  SDHCI_CTRL_4BITBUS,
  SDHCI_CTRL_8BITBUS,
  SDHCI_CTRL_ADMA32,
  SDHCI_CTRL_DMA_MASK,
  SDHCI_DAT_0_LEVEL,
  SDHCI_DAT_123_LEVEL,
  SDHCI_DAT_ACTIVE,
  SDHCI_DATA_AVAILABLE,
  SDHCI_DATA_INHIBIT,
  SDHCI_DOING_READ,
  SDHCI_DOING_WRITE,
  SDHCI_HOST_CONTROL,
  SDHCI_HOST_CONTROL2,
  SDHCI_INT_CRC,
  SDHCI_INT_DATA_AVAIL,
  SDHCI_INT_DATA_CRC,
  SDHCI_INT_DATA_END,
  SDHCI_INT_DATA_TIMEOUT,
  SDHCI_INT_END_BIT,
  SDHCI_INT_INDEX,
  SDHCI_INT_RESPONSE,
  SDHCI_INT_SPACE_AVAIL,
  SDHCI_INT_TIMEOUT,
  SDHCI_RESPONSE,
  SDHCI_SPACE_AVAILABLE,
  SDHCI_TIMEOUT_CONTROL,
  SDHCI_TRANSFER_MODE,
  SDHCI_TRNS_BLK_CNT_EN,
  SDHCI_TRNS_DMA,
  SDHCI_TRNS_MULTI,
  SDHCI_TRNS_READ,
  SDHCI_WRITE_ENABLED,
  TIMEOUT_CLOCK_KHZ,
} from "./registers";
import {
  COMMAND_ANSWER,
  COMMAND_IDLE,
  COMMAND_SENDING,
  COMMAND_SILENCE,
  DATA_ARMED,
  DATA_BUSY,
  DATA_HALTED,
  DATA_IDLE,
  DATA_READ_FULL,
  DATA_READ_WIRE,
  DATA_WRITE_BUSY,
  DATA_WRITE_FILL,
  DATA_WRITE_WIRE,
  engine,
  register8,
  register16,
  register32,
  setRegister32,
  signal,
} from "./state";

const COMMAND_CLOCKS: u32 = 48;
const LONG_CLOCKS: u32 = 136;
const N_CR_CLOCKS: u32 = 2;
const N_RC_CLOCKS: u32 = 8;
const N_AC_CLOCKS: u32 = 2;
const N_WR_CLOCKS: u32 = 2;
const CRC_STATUS_CLOCKS: u32 = 2 + 5;
const SILENCE_CLOCKS: u32 = 64;
/** Start bit, CRC16, end bit around each block. */
const FRAME_CLOCKS: u32 = 1 + 16 + 1;
/** More than one register access can ever set free: 65,535 blocks of DMA, four events each. */
const EVENTS_MAX: u32 = 1 << 18;
const NO_COUNT: u32 = 0xffffffff;
/** Engine.isDma of a transfer in a DMA mode that is not modelled: it never moves. */
const DMA_NONE_SUCH: u32 = 2;

/** 0 while the card's clock is off. */
export function clockKhz(): u32 {
  const control = register16(SDHCI_CLOCK_CONTROL);
  if ((control & SDHCI_CLOCK_CARD_EN) == 0 || (control & SDHCI_CLOCK_INT_EN) == 0) return 0;
  const divider = (control >>> 8) | ((control & 0xc0) << 2);
  return divider == 0 ? BASE_CLOCK_KHZ : BASE_CLOCK_KHZ / (2 * divider);
}

/** Bus clocks as ns, rounded up; NEVER without a clock. */
function clocksNs(clocks: u32): u64 {
  const khz = clockKhz();
  return khz == 0 ? NEVER : (<u64>clocks * 1000000 + khz - 1) / khz;
}

function lines(): u32 {
  const control = register8(SDHCI_HOST_CONTROL);
  return (control & SDHCI_CTRL_8BITBUS) != 0 ? 8 : (control & SDHCI_CTRL_4BITBUS) != 0 ? 4 : 1;
}

/** Two bits a clock and line: DDR50, which is DDR52 of an eMMC, and 5, which Linux uses for HS400. */
function isDualRate(): bool {
  const mode = register8(SDHCI_HOST_CONTROL2) & 7;
  return mode == 4 || mode == 5;
}

function blockClocks(bytes: u32): u32 {
  return (bytes * 8) / (lines() * (isDualRate() ? 2 : 1)) + FRAME_CLOCKS;
}

function timeoutNs(): u64 {
  const code = register8(SDHCI_TIMEOUT_CONTROL) & 15;
  return (((<u64>1) << (13 + (code > 14 ? 14 : code))) * 1000000) / TIMEOUT_CLOCK_KHZ;
}

function wait(phase: u32, fromNs: u64): void {
  const e = engine();
  e.dataPhase = phase;
  e.patienceNs = afterNs(fromNs, timeoutNs());
}

function halt(bits: u32, timeNs: u64): void {
  traceAt(timeNs, TRACE_ERROR, bits, 0, 0);
  signal(bits);
  engine().dataPhase = DATA_HALTED;
}

function completeTransfer(timeNs: u64): void {
  engine().dataPhase = DATA_IDLE;
  traceAt(timeNs, TRACE_TRANSFER_COMPLETE, 0, 0, 0);
  signal(SDHCI_INT_DATA_END);
}

// ---- command engine ----

/** The upper byte of SDHCI_COMMAND was written. */
export function issueCommand(): void {
  const e = engine();
  const command = register16(SDHCI_COMMAND);
  if (e.commandPhase != COMMAND_IDLE) return;
  const hasData = (command & SDHCI_CMD_DATA) != 0;
  const hasBusy = (command & SDHCI_CMD_RESP_MASK) == SDHCI_CMD_RESP_SHORT_BUSY;
  const aborts = command >>> 8 == 12 || (command & SDHCI_CMD_TYPE_MASK) == SDHCI_CMD_ABORTCMD;
  if (e.dataPhase != DATA_IDLE && (hasData || hasBusy) && !aborts) return;
  const now = nowNs();
  e.command = command;
  e.argument = register32(SDHCI_ARGUMENT);
  e.commandPhase = COMMAND_SENDING;
  e.commandNs = afterNs(laterNs(now, e.quietNs), clocksNs(COMMAND_CLOCKS));
  traceAt(now, TRACE_COMMAND, command >>> 8, e.argument, 0);
  if (hasData) armData();
}

function armData(): void {
  const e = engine();
  const mode = register16(SDHCI_TRANSFER_MODE);
  e.blockBytes = register16(SDHCI_BLOCK_SIZE) & 0xfff;
  if (e.blockBytes > <u32>SECTOR_BYTES) e.blockBytes = SECTOR_BYTES;
  e.isRead = mode & SDHCI_TRNS_READ;
  const adma = (register8(SDHCI_HOST_CONTROL) & SDHCI_CTRL_DMA_MASK) == SDHCI_CTRL_ADMA32;
  e.isDma = (mode & SDHCI_TRNS_DMA) == 0 ? 0 : adma ? 1 : DMA_NONE_SUCH;
  e.counted = (mode & SDHCI_TRNS_MULTI) == 0 || (mode & SDHCI_TRNS_BLK_CNT_EN) != 0 ? 1 : 0;
  e.blocksLeft =
    (mode & SDHCI_TRNS_MULTI) == 0 ? 1 : e.counted != 0 ? register16(SDHCI_BLOCK_COUNT) : NO_COUNT;
  e.bufferAt = 0;
  e.dataPhase = DATA_ARMED;
  e.patienceNs = NEVER;
  // Only ADMA2 is modelled; with any other DMA mode the transfer never moves and times out.
  if (e.isDma == 1) admaStart();
}

function sendCommand(timeNs: u64): void {
  const e = engine();
  const index = e.command >>> 8;
  advanceCard(timeNs);
  const expected = e.command & SDHCI_CMD_RESP_MASK;
  const heard = hears(clockKhz());
  const response = heard ? receiveCommand(index, e.argument, timeNs) : RESPONSE_NONE;
  e.responseKind = response;
  e.floorNs = timeNs;
  if (expected == SDHCI_CMD_RESP_NONE) {
    e.commandPhase = COMMAND_IDLE;
    e.quietNs = afterNs(timeNs, clocksNs(N_RC_CLOCKS));
    signal(SDHCI_INT_RESPONSE);
  } else if (response == RESPONSE_NONE) {
    e.commandPhase = COMMAND_SILENCE;
    e.commandNs = afterNs(timeNs, clocksNs(SILENCE_CLOCKS));
  } else {
    const clocks = N_CR_CLOCKS + (response == RESPONSE_R2 ? LONG_CLOCKS : COMMAND_CLOCKS);
    e.commandPhase = COMMAND_ANSWER;
    e.commandNs = afterNs(timeNs, clocksNs(clocks));
  }
  // A read's first block overlaps the response.
  if (e.dataPhase == DATA_ARMED && e.isRead != 0) wait(DATA_READ_WIRE, timeNs);
}

/** Status bits of a response that is not what the driver announced. */
function responseErrors(index: u32): u32 {
  const e = engine();
  const isLong = (e.command & SDHCI_CMD_RESP_MASK) == SDHCI_CMD_RESP_LONG;
  let bits: u32 = 0;
  if ((e.responseKind == RESPONSE_R2) != isLong) bits |= SDHCI_INT_END_BIT;
  const hasCrc = e.responseKind != RESPONSE_R3;
  if ((e.command & SDHCI_CMD_CRC) != 0 && (!hasCrc || responseIsDamaged(index))) bits |= SDHCI_INT_CRC;
  const hasIndex = e.responseKind != RESPONSE_R3 && e.responseKind != RESPONSE_R2;
  if ((e.command & SDHCI_CMD_INDEX) != 0 && !hasIndex) bits |= SDHCI_INT_INDEX;
  return bits;
}

function takeResponse(timeNs: u64): void {
  const e = engine();
  const index = e.command >>> 8;
  e.commandPhase = COMMAND_IDLE;
  e.quietNs = afterNs(timeNs, clocksNs(N_RC_CLOCKS));
  if (e.responseKind == RESPONSE_R2) {
    // Bits 127:8 of the register stand in 119:0.
    for (let i: u32 = 0; i < 4; i++) {
      const above: u32 = i == 3 ? 0 : responseWord(i + 1) << 24;
      setRegister32(SDHCI_RESPONSE + (i << 2), (responseWord(i) >>> 8) | above);
    }
  } else {
    setRegister32(SDHCI_RESPONSE, responseWord(0));
  }
  traceAt(timeNs, TRACE_RESPONSE, index, responseWord(0), e.responseKind);
  const errors = responseErrors(index);
  if (errors != 0) {
    traceAt(timeNs, TRACE_ERROR, errors, 0, 0);
    signal(errors);
    return;
  }
  signal(SDHCI_INT_RESPONSE);
  if (e.dataPhase == DATA_ARMED) {
    e.floorNs = timeNs;
    wait(DATA_WRITE_FILL, timeNs);
    fillBuffer(timeNs);
  } else if ((e.command & SDHCI_CMD_RESP_MASK) == SDHCI_CMD_RESP_SHORT_BUSY && e.dataPhase == DATA_IDLE) {
    wait(DATA_BUSY, timeNs);
  }
}

function endSilence(timeNs: u64): void {
  const e = engine();
  e.commandPhase = COMMAND_IDLE;
  e.quietNs = afterNs(timeNs, clocksNs(N_RC_CLOCKS));
  traceAt(timeNs, TRACE_NO_RESPONSE, e.command >>> 8, 0, 0);
  signal(SDHCI_INT_TIMEOUT);
}

// ---- data engine ----

/** A block has gone through; true if it was the last one. */
function countBlock(): bool {
  const e = engine();
  e.bufferAt = 0;
  if (e.counted == 0) return false;
  e.blocksLeft -= 1;
  if ((register16(SDHCI_TRANSFER_MODE) & SDHCI_TRNS_BLK_CNT_EN) != 0) {
    store<u16>(SDHCI_REGISTERS + SDHCI_BLOCK_COUNT, <u16>e.blocksLeft);
  }
  return e.blocksLeft == 0;
}

function readBlock(timeNs: u64): void {
  const e = engine();
  advanceCard(timeNs);
  // A block of another length than announced has its CRC where data is expected.
  const intact = linesAgree(lines(), clockKhz(), isDualRate()) && blockBytesOnWire() == e.blockBytes;
  const block = sendBlock(SDHCI_BUFFER, timeNs);
  e.floorNs = timeNs;
  if (block == BLOCK_NONE) {
    e.dataNs = NEVER; // nothing more comes: the timeout will say so
    return;
  }
  if (block != BLOCK_GOOD || !intact) {
    halt(SDHCI_INT_DATA_CRC, timeNs);
    return;
  }
  if (e.isDma == 0) {
    wait(DATA_READ_FULL, timeNs);
    signal(SDHCI_INT_DATA_AVAIL);
    return;
  }
  if (!admaMove(SDHCI_BUFFER, e.blockBytes, true)) {
    e.dataPhase = DATA_HALTED;
    return;
  }
  wait(DATA_READ_WIRE, timeNs);
  if (countBlock()) completeTransfer(timeNs);
}

/** The next block of a write is wanted: from the bus at once, or from the driver. */
function fillBuffer(timeNs: u64): void {
  const e = engine();
  if (e.isDma == 0) {
    signal(SDHCI_INT_SPACE_AVAIL);
    return;
  }
  if (e.isDma == DMA_NONE_SUCH) {
    e.dataNs = NEVER;
    wait(DATA_WRITE_WIRE, timeNs);
    return;
  }
  if (admaMove(SDHCI_BUFFER, e.blockBytes, false)) sendBuffer(timeNs);
  else e.dataPhase = DATA_HALTED;
}

function sendBuffer(timeNs: u64): void {
  const e = engine();
  const startNs = laterNs(timeNs, afterNs(e.floorNs, clocksNs(N_WR_CLOCKS)));
  e.dataNs = afterNs(startNs, clocksNs(blockClocks(e.blockBytes) + CRC_STATUS_CLOCKS));
  // The CRC status is awaited from the block's end on; without a clock it never comes.
  wait(DATA_WRITE_WIRE, e.dataNs == NEVER ? timeNs : e.dataNs);
}

function writeBlock(timeNs: u64): void {
  const e = engine();
  advanceCard(timeNs);
  const token = receiveBlock(
    SDHCI_BUFFER,
    e.blockBytes,
    linesAgree(lines(), clockKhz(), isDualRate()),
    timeNs,
  );
  e.floorNs = timeNs;
  if (token == CRC_STATUS_NONE) {
    e.dataNs = NEVER;
    return;
  }
  if (token != CRC_STATUS_GOOD) {
    halt(SDHCI_INT_DATA_CRC, timeNs);
    return;
  }
  wait(DATA_WRITE_BUSY, timeNs);
}

function endBusy(timeNs: u64): void {
  const e = engine();
  advanceCard(timeNs);
  e.floorNs = timeNs;
  if (e.dataPhase == DATA_BUSY || countBlock()) {
    completeTransfer(timeNs);
    return;
  }
  wait(DATA_WRITE_FILL, timeNs);
  fillBuffer(timeNs);
}

/** When the next block of a read begins on the wire; NEVER if none comes. */
function blockStartNs(): u64 {
  const due = blockDueNs();
  return due == NEVER ? NEVER : laterNs(due, afterNs(engine().floorNs, clocksNs(N_AC_CLOCKS)));
}

/** When the data engine goes on; NEVER if only the driver or a timeout can move it. */
function nextDataNs(): u64 {
  const e = engine();
  switch (e.dataPhase) {
    case DATA_IDLE:
    case DATA_READ_WIRE: {
      // A counted read goes on even when nobody listens: the card follows the clock.
      if (e.dataPhase == DATA_IDLE && !sendsCounted()) return NEVER;
      if (e.isDma == DMA_NONE_SUCH && e.dataPhase == DATA_READ_WIRE) return NEVER;
      const startNs = blockStartNs();
      if (startNs == NEVER) return NEVER;
      return afterNs(startNs, clocksNs(blockClocks(e.blockBytes == 0 ? SECTOR_BYTES : e.blockBytes)));
    }
    case DATA_WRITE_WIRE:
      return e.dataNs;
    case DATA_WRITE_BUSY:
    case DATA_BUSY:
      return laterNs(busyUntilNs(), e.floorNs);
    default:
      return NEVER;
  }
}

/** Waiting on the card, not on the driver, is what the data timeout measures. */
function nextTimeoutNs(): u64 {
  const e = engine();
  const phase = e.dataPhase;
  // A block that begins in time may take as long as it takes.
  if (phase == DATA_READ_WIRE && e.isDma != DMA_NONE_SUCH && blockStartNs() <= e.patienceNs) return NEVER;
  const waits =
    phase == DATA_READ_WIRE || phase == DATA_WRITE_WIRE || phase == DATA_WRITE_BUSY || phase == DATA_BUSY;
  return waits ? e.patienceNs : NEVER;
}

function stepData(timeNs: u64): void {
  switch (engine().dataPhase) {
    case DATA_IDLE:
      advanceCard(timeNs);
      engine().floorNs = timeNs;
      sendBlock(SDHCI_BUFFER, timeNs);
      return;
    case DATA_READ_WIRE:
      readBlock(timeNs);
      return;
    case DATA_WRITE_WIRE:
      writeBlock(timeNs);
      return;
    default:
      endBusy(timeNs);
  }
}

function stepCommand(timeNs: u64): void {
  // The clock stopped under it: it hangs until a reset.
  if (clockKhz() == 0) {
    engine().commandNs = NEVER;
    return;
  }
  const phase = engine().commandPhase;
  if (phase == COMMAND_SENDING) sendCommand(timeNs);
  else if (phase == COMMAND_ANSWER) takeResponse(timeNs);
  else endSilence(timeNs);
}

/** Lets everything happen that is due by now, in the order of its time. */
export function run(): void {
  const now = nowNs();
  const e = engine();
  for (let i: u32 = 0; i < EVENTS_MAX; i++) {
    const commandNs = e.commandPhase == COMMAND_IDLE ? NEVER : e.commandNs;
    const dataNs = nextDataNs();
    const lateNs = nextTimeoutNs();
    if (commandNs > now && dataNs > now && lateNs > now) break;
    if (commandNs <= dataNs && commandNs <= lateNs) stepCommand(commandNs);
    else if (dataNs <= lateNs) stepData(dataNs);
    else halt(SDHCI_INT_DATA_TIMEOUT, lateNs);
  }
  advanceCard(now);
}

// ---- what the registers show ----

/** SDHCI_BUFFER_PORT, one lane: the driver takes or gives the next byte of the block. */
export function portRead(): u32 {
  const e = engine();
  if (e.dataPhase != DATA_READ_FULL) return 0;
  const byte: u32 = load<u8>(SDHCI_BUFFER + e.bufferAt);
  portAdvance(1);
  return byte;
}

export function portWrite(byte: u32): void {
  const e = engine();
  if (e.dataPhase != DATA_WRITE_FILL || e.isDma != 0) return;
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
  if (e.dataPhase == DATA_WRITE_FILL && e.isDma == 0 && e.bufferAt + 4 <= e.blockBytes) {
    store<u32>(SDHCI_BUFFER + e.bufferAt, word);
    portAdvance(4);
    return;
  }
  portWrite(word & 0xff);
  portWrite((word >>> 8) & 0xff);
  portWrite((word >>> 16) & 0xff);
  portWrite(word >>> 24);
}

function portAdvance(bytes: u32): void {
  const e = engine();
  e.bufferAt += bytes;
  if (e.bufferAt < e.blockBytes) return;
  const now = nowNs();
  if (e.dataPhase == DATA_WRITE_FILL) {
    e.bufferAt = 0;
    sendBuffer(now);
  } else {
    e.floorNs = now;
    wait(DATA_READ_WIRE, now);
    if (countBlock()) completeTransfer(now);
  }
}

export function presentState(): u32 {
  const e = engine();
  const phase = e.dataPhase;
  let bits: u32 = SDHCI_DAT_123_LEVEL | SDHCI_CMD_LEVEL;
  if (!isWriteSwitchLocked()) bits |= SDHCI_WRITE_ENABLED;
  if (dat0()) bits |= SDHCI_DAT_0_LEVEL;
  if (isPresent()) bits |= SDHCI_CARD_PRESENT | SDHCI_CARD_STABLE | SDHCI_CARD_DETECT_PIN;
  else bits |= SDHCI_CARD_STABLE;
  if (e.commandPhase != COMMAND_IDLE) bits |= SDHCI_CMD_INHIBIT;
  if (phase != DATA_IDLE) bits |= SDHCI_DATA_INHIBIT;
  if (phase != DATA_IDLE && phase != DATA_HALTED) bits |= SDHCI_DAT_ACTIVE;
  if (phase == DATA_WRITE_FILL || phase == DATA_WRITE_WIRE || phase == DATA_WRITE_BUSY)
    bits |= SDHCI_DOING_WRITE;
  if (phase == DATA_READ_WIRE || phase == DATA_READ_FULL) bits |= SDHCI_DOING_READ;
  if (phase == DATA_WRITE_FILL && e.isDma == 0) bits |= SDHCI_SPACE_AVAILABLE;
  if (phase == DATA_READ_FULL) bits |= SDHCI_DATA_AVAILABLE;
  return bits;
}

/** SDHCI_RESET_CMD: the command engine forgets; the card does not. */
export function resetCommandLine(): void {
  const e = engine();
  e.commandPhase = COMMAND_IDLE;
  e.status &= ~SDHCI_INT_RESPONSE;
}

/** SDHCI_RESET_DATA: buffer, DMA and data engine; the card keeps its state. */
export function resetDataLines(): void {
  const e = engine();
  e.dataPhase = DATA_IDLE;
  e.bufferAt = 0;
  e.floorNs = nowNs();
  e.status &= ~0x3e;
}
