// The command and the data engine: what goes over the wires, when it is there, and which status bit tells of
// it. Everything happens at a known simulated time; run() lets it happen up to now. Bus clocks are those of
// mmc.md §1.11: 48 for a command or a short response, N_CR 2, N_AC 2 or 8, N_WR 2, N_CRC 2, CRC status 5, N_RC 8.
// Frames and blocks carry their CRCs (assembly/bus); this is the end of the wires that makes and checks the
// host's.
//
// Modelled: PIO, SDMA, ADMA2-32; auto-CMD12 and auto-CMD23; block gaps; tuning.
// Behind a data error no auto-CMD12 goes out, and SDHCI_ACMD12_ERR says so: the driver stops the card itself.
// Not modelled: suspend and resume (SDIO), the SD clock's stop between the blocks of a gap, a CMD12 that the
// controller sends while a PIO buffer is full.

import { BLOCK_CRC_WRONG, BLOCK_INTACT, breakBlock, driveBlock, takeBlock } from "../bus/block";
import {
  commandFrame,
  frameContent,
  frameCrcIsGood,
  frameIndex,
  longCrcIsGood,
  longWord,
} from "../bus/frame";
import {
  acceptBlock,
  accessClocks,
  advanceCard,
  answerFrame,
  blockDueNs,
  busyUntilNs,
  CRC_STATUS_GOOD,
  CRC_STATUS_NONE,
  cardState,
  giveBlock,
  hears,
  idleFromNs,
  isPresent,
  keepsUp,
  RESPONSE_NONE,
  RESPONSE_R2,
  receiveFrame,
  sendsCounted,
  sharesVoltage,
} from "../card/card";
import { advanceTo, afterNs, laterNs, NEVER, nowNs, soonerNs } from "../clock";
import {
  CONFIG_TRACE,
  SDHCI_BUFFER,
  SDHCI_REGISTERS,
  SECTOR_BYTES,
  TRACE_CLOCK,
  TRACE_COMMAND,
  TRACE_ERROR,
  TRACE_NO_RESPONSE,
  TRACE_RESPONSE,
  TRACE_STATE,
  TRACE_TRANSFER_COMPLETE,
  TRACE_WIDTH,
} from "../layout";
import { traceAt, traceLevel, traceWords } from "../trace";
import { admaHasEnded, admaIsAtEnd, admaMove, admaStart, DESCRIPTORS_MAX } from "./adma";
import {
  SDHCI_ACMD12_ERR,
  SDHCI_ARGUMENT,
  SDHCI_ARGUMENT2,
  SDHCI_AUTO_ERRORS,
  SDHCI_AUTO_NOT_EXECUTED,
  SDHCI_AUTO_NOT_ISSUED,
  SDHCI_BLOCK_COUNT,
  SDHCI_BLOCK_GAP_CONTROL,
  SDHCI_BLOCK_SIZE,
  SDHCI_CAN_DO_ADMA2,
  SDHCI_CAN_DO_SDMA,
  SDHCI_CMD_ABORTCMD,
  SDHCI_CMD_CRC,
  SDHCI_CMD_DATA,
  SDHCI_CMD_INDEX,
  SDHCI_CMD_RESP_LONG,
  SDHCI_CMD_RESP_MASK,
  SDHCI_CMD_RESP_NONE,
  SDHCI_CMD_RESP_SHORT,
  SDHCI_CMD_RESP_SHORT_BUSY,
  SDHCI_CMD_TYPE_MASK,
  SDHCI_COMMAND,
  SDHCI_CTRL_ADMA32,
  SDHCI_CTRL_CDTEST_EN,
  SDHCI_CTRL_CDTEST_INS,
  SDHCI_CTRL_DMA_MASK,
  SDHCI_CTRL_EXEC_TUNING,
  SDHCI_CTRL_SDMA,
  SDHCI_CTRL_TUNED_CLK,
  SDHCI_GAP_CONTINUE,
  SDHCI_GAP_STOP,
  SDHCI_HOST_CONTROL,
  SDHCI_HOST_CONTROL2,
  SDHCI_INT_ADMA_ERROR,
  SDHCI_INT_AUTO_CMD_ERR,
  SDHCI_INT_BLK_GAP,
  SDHCI_INT_CARD_INSERT,
  SDHCI_INT_CARD_REMOVE,
  SDHCI_INT_CRC,
  SDHCI_INT_DATA_AVAIL,
  SDHCI_INT_DATA_CRC,
  SDHCI_INT_DATA_END,
  SDHCI_INT_DATA_END_BIT,
  SDHCI_INT_DATA_TIMEOUT,
  SDHCI_INT_DMA_END,
  SDHCI_INT_END_BIT,
  SDHCI_INT_INDEX,
  SDHCI_INT_RESPONSE,
  SDHCI_INT_SPACE_AVAIL,
  SDHCI_INT_TIMEOUT,
  SDHCI_RESPONSE,
  SDHCI_RESPONSE_AUTO,
  SDHCI_TRANSFER_MODE,
  SDHCI_TRNS_AUTO_CMD12,
  SDHCI_TRNS_AUTO_CMD23,
  SDHCI_TRNS_AUTO_MASK,
  SDHCI_TRNS_BLK_CNT_EN,
  SDHCI_TRNS_DMA,
  SDHCI_TRNS_MULTI,
  SDHCI_TRNS_READ,
} from "./registers";
import { SDMA_BOUNDARY, SDMA_MOVED, sdmaMove } from "./sdma";
import {
  AUTO_COUNT,
  AUTO_NONE,
  AUTO_STOP,
  COMMAND_ANSWER,
  COMMAND_IDLE,
  COMMAND_SENDING,
  COMMAND_SILENCE,
  capabilities,
  DATA_ARMED,
  DATA_BOUNDARY,
  DATA_BUSY,
  DATA_GAP,
  DATA_HALTED,
  DATA_IDLE,
  DATA_LOST,
  DATA_READ_FULL,
  DATA_READ_WIRE,
  DATA_STOPPING,
  DATA_WRITE_BUSY,
  DATA_WRITE_FILL,
  DATA_WRITE_WIRE,
  dataIsInhibited,
  engine,
  hasUhs,
  MOVE_ADMA,
  MOVE_NONE,
  MOVE_PIO,
  MOVE_SDMA,
  register8,
  register16,
  register32,
  setRegister16,
  setRegister32,
  signal,
} from "./state";
import { stretch } from "./stretch";
import {
  blockClocks,
  CRC_STATUS_CLOCKS,
  clockKhz,
  clocksAtNs,
  clocksNs,
  isDualRate,
  isLowVoltage,
  isVersion3,
  lines,
  N_WR_CLOCKS,
  wait,
} from "./timing";

const COMMAND_CLOCKS: u32 = 48;
const LONG_CLOCKS: u32 = 136;
const N_CR_CLOCKS: u32 = 2;
const N_RC_CLOCKS: u32 = 8;
const SILENCE_CLOCKS: u32 = 64;
/** More than one register access can ever set free: 65,535 blocks of DMA, four events each. */
const EVENTS_MAX: u32 = 1 << 18;
/** What a guest that asks for more waits for in one access: 8 MiB read, 4 MiB written; Linux asks for 512 KiB. */
const AHEAD_EVENTS_MAX: u32 = 1 << 14;
const NO_COUNT: u32 = 0xffffffff;
/** Blocks of one tuning procedure: so many good ones end it well, so many in all end it (mmc.md §3.5). */
const TUNING_GOOD_BLOCKS: u32 = 8;
const TUNING_BLOCKS_MAX: u32 = 40;
/** Above this clock a read needs a tuned sampling point. */
const UNTUNED_KHZ: u32 = 100000;
/** Seeds of breakBlock() that no sector number is near to: too fast a clock, an untuned one. */
const NOISE_FAST: u32 = 0x51f15e5d;
const NOISE_UNTUNED: u32 = 0x2545f491;

/** The data engine stops at an error. A CMD12 that it would have sent itself behind the last block it cannot send. */
function stopAtError(bits: u32, timeNs: u64): void {
  const e = engine();
  e.dataPhase = DATA_HALTED;
  traceAt(timeNs, TRACE_ERROR, bits, 0, 0);
  if (e.stops == 0) return;
  e.stops = 0;
  setAutoErrors(SDHCI_AUTO_NOT_EXECUTED);
  traceAt(timeNs, TRACE_ERROR, SDHCI_INT_AUTO_CMD_ERR, SDHCI_AUTO_NOT_EXECUTED, 0);
}

function halt(bits: u32, timeNs: u64): void {
  signal(bits);
  stopAtError(bits, timeNs);
}

/** adma.ts has signalled it. */
function haltAdma(timeNs: u64): void {
  stopAtError(SDHCI_INT_ADMA_ERROR, timeNs);
}

function completeTransfer(timeNs: u64): void {
  engine().dataPhase = DATA_IDLE;
  traceAt(timeNs, TRACE_TRANSFER_COMPLETE, 0, 0, 0);
  signal(SDHCI_INT_DATA_END);
}

// ---- command engine ----

/** CMD12, or whatever else the driver calls an abort. */
function isAbort(command: u32): bool {
  return command >>> 8 == 12 || (command & SDHCI_CMD_TYPE_MASK) == SDHCI_CMD_ABORTCMD;
}

/** The upper byte of SDHCI_COMMAND was written. */
export function issueCommand(): void {
  const e = engine();
  const command = register16(SDHCI_COMMAND);
  if (e.commandPhase != COMMAND_IDLE) {
    // "If a command is issued during Auto CMD12, the controller manages two commands": it waits its turn.
    if (e.auto == AUTO_STOP) e.held = 1;
    return;
  }
  const hasData = (command & SDHCI_CMD_DATA) != 0;
  const hasBusy = (command & SDHCI_CMD_RESP_MASK) == SDHCI_CMD_RESP_SHORT_BUSY;
  if (dataIsInhibited() && (hasData || hasBusy) && !isAbort(command)) return;
  // Whoever stops the transfer himself needs no CMD12 behind it.
  if (isAbort(command)) e.stops = 0;
  e.command = command;
  e.argument = register32(SDHCI_ARGUMENT);
  const counts = (register16(SDHCI_TRANSFER_MODE) & SDHCI_TRNS_AUTO_MASK) == SDHCI_TRNS_AUTO_CMD23;
  if (hasData && counts && isVersion3()) {
    e.auto = AUTO_COUNT;
    startFrame(23, register32(SDHCI_ARGUMENT2), nowNs());
  } else {
    e.auto = AUTO_NONE;
    startFrame(command >>> 8, e.argument, nowNs());
  }
  if (hasData) armData();
}

/** Puts a command on the line as soon as it is quiet. */
function startFrame(index: u32, argument: u32, timeNs: u64): void {
  const e = engine();
  e.sent = commandFrame(index, argument);
  e.commandPhase = COMMAND_SENDING;
  e.frameNs = laterNs(timeNs, e.quietNs);
  e.commandNs = afterNs(e.frameNs, clocksNs(COMMAND_CLOCKS));
  const waitNs: u32 = e.frameNs > timeNs && e.frameNs != NEVER ? <u32>(e.frameNs - timeNs) : 0;
  traceWords(timeNs, TRACE_COMMAND, index, argument, waitNs, clockKhz(), 0);
}

function armData(): void {
  const e = engine();
  const mode = register16(SDHCI_TRANSFER_MODE);
  e.blockBytes = register16(SDHCI_BLOCK_SIZE) & 0xfff;
  if (e.blockBytes > <u32>SECTOR_BYTES) e.blockBytes = SECTOR_BYTES;
  e.isRead = mode & SDHCI_TRNS_READ;
  e.isDma = (mode & SDHCI_TRNS_DMA) == 0 ? MOVE_PIO : dmaKind();
  e.counted = (mode & SDHCI_TRNS_MULTI) == 0 || (mode & SDHCI_TRNS_BLK_CNT_EN) != 0 ? 1 : 0;
  e.blocksLeft =
    (mode & SDHCI_TRNS_MULTI) == 0 ? 1 : e.counted != 0 ? register16(SDHCI_BLOCK_COUNT) : NO_COUNT;
  e.bufferAt = 0;
  // "Stop count": with its enable bit a BLOCK_COUNT of 0 moves nothing.
  e.dataPhase = e.counted != 0 && e.blocksLeft == 0 ? DATA_IDLE : DATA_ARMED;
  e.patienceNs = NEVER;
  const stops = (mode & SDHCI_TRNS_AUTO_MASK) == SDHCI_TRNS_AUTO_CMD12;
  e.stops = stops && (mode & SDHCI_TRNS_MULTI) != 0 ? 1 : 0;
  e.tuning = e.isRead != 0 && (register16(SDHCI_HOST_CONTROL2) & SDHCI_CTRL_EXEC_TUNING) != 0 ? 1 : 0;
  if (e.isDma == MOVE_ADMA) admaStart();
}

/** The DMA that SDHCI_HOST_CONTROL selects, if the controller has it. */
function dmaKind(): u32 {
  const select = register8(SDHCI_HOST_CONTROL) & SDHCI_CTRL_DMA_MASK;
  if (select == SDHCI_CTRL_ADMA32 && (capabilities() & SDHCI_CAN_DO_ADMA2) != 0) return MOVE_ADMA;
  if (select == SDHCI_CTRL_SDMA && (capabilities() & SDHCI_CAN_DO_SDMA) != 0) return MOVE_SDMA;
  return MOVE_NONE;
}

function sendCommand(timeNs: u64): void {
  const e = engine();
  const index = frameIndex(e.sent);
  advanceCard(timeNs);
  const isAuto = e.auto != AUTO_NONE;
  const expected = isAuto ? SDHCI_CMD_RESP_SHORT : e.command & SDHCI_CMD_RESP_MASK;
  const heard = hears(clockKhz()) && sharesVoltage(isLowVoltage());
  const response = heard ? receiveFrame(e.sent, timeNs) : RESPONSE_NONE;
  e.responseKind = response;
  e.floorNs = timeNs;
  if (expected == SDHCI_CMD_RESP_NONE) {
    endFrame(timeNs);
    signal(SDHCI_INT_RESPONSE);
  } else if (response == RESPONSE_NONE) {
    e.commandPhase = COMMAND_SILENCE;
    e.commandNs = afterNs(timeNs, clocksNs(SILENCE_CLOCKS));
  } else {
    e.answer = answerFrame(response, index);
    e.commandPhase = COMMAND_ANSWER;
    e.frameNs = afterNs(timeNs, clocksNs(N_CR_CLOCKS));
    const clocks = N_CR_CLOCKS + (response == RESPONSE_R2 ? LONG_CLOCKS : COMMAND_CLOCKS);
    e.commandNs = afterNs(timeNs, clocksNs(clocks));
  }
  // A read's first block overlaps the response.
  if (startsData() && e.isRead != 0 && !isAuto) wait(DATA_READ_WIRE, timeNs);
}

/** A transfer that is armed belongs to its own command: another one, sent because that failed, does not start it. */
function startsData(): bool {
  const e = engine();
  return e.dataPhase == DATA_ARMED && (e.command & SDHCI_CMD_DATA) != 0;
}

/** The CMD line is free again, N_RC later for the next command. */
function endFrame(timeNs: u64): void {
  const e = engine();
  e.commandPhase = COMMAND_IDLE;
  e.quietNs = afterNs(timeNs, clocksNs(N_RC_CLOCKS));
}

/** Status bits of a response that is not what was asked for: its length, its CRC7, its index. */
function responseErrors(index: u32, isLong: bool, checks: u32): u32 {
  const e = engine();
  const cameLong = e.responseKind == RESPONSE_R2;
  let bits: u32 = 0;
  if (cameLong != isLong) bits |= SDHCI_INT_END_BIT;
  // Of a short response taken for a long one the rest is an idle line: its CRC cannot fit either.
  const good = cameLong && isLong ? longCrcIsGood() : !isLong && frameCrcIsGood(e.answer);
  if ((checks & SDHCI_CMD_CRC) != 0 && !good) bits |= SDHCI_INT_CRC;
  if ((checks & SDHCI_CMD_INDEX) != 0 && frameIndex(e.answer) != index) bits |= SDHCI_INT_INDEX;
  return bits;
}

function takeResponse(timeNs: u64): void {
  const e = engine();
  const index = frameIndex(e.sent);
  endFrame(timeNs);
  const word = e.responseKind == RESPONSE_R2 ? longWord(0) : frameContent(e.answer);
  const cameLong = e.responseKind == RESPONSE_R2;
  const second: u32 = cameLong ? longWord(1) : 0;
  const third: u32 = cameLong ? longWord(2) : 0;
  const fourth: u32 = cameLong ? longWord(3) : 0;
  traceWords(timeNs, TRACE_RESPONSE, index | (e.responseKind << 8), word, second, third, fourth);
  if (e.auto != AUTO_NONE) {
    takeAutoResponse(word, timeNs);
    return;
  }
  if (e.responseKind == RESPONSE_R2) {
    // Bits 127:8 of the register stand in 119:0.
    for (let i: u32 = 0; i < 4; i++) {
      const above: u32 = i == 3 ? 0 : longWord(i + 1) << 24;
      setRegister32(SDHCI_RESPONSE + (i << 2), (longWord(i) >>> 8) | above);
    }
  } else {
    setRegister32(SDHCI_RESPONSE, word);
  }
  const isLong = (e.command & SDHCI_CMD_RESP_MASK) == SDHCI_CMD_RESP_LONG;
  const errors = responseErrors(index, isLong, e.command);
  // A tuning block tells of itself by its data alone.
  if (e.tuning != 0 && (e.command & SDHCI_CMD_DATA) != 0) return;
  if (errors != 0) {
    traceAt(timeNs, TRACE_ERROR, errors, 0, 0);
    signal(errors);
    forgetStop();
    return;
  }
  signal(SDHCI_INT_RESPONSE);
  if (startsData()) {
    e.floorNs = timeNs;
    wait(DATA_WRITE_FILL, timeNs);
    fillBuffer(timeNs);
    return;
  }
  const hasBusy = (e.command & SDHCI_CMD_RESP_MASK) == SDHCI_CMD_RESP_SHORT_BUSY;
  // A CMD12 ends a transfer that waits at a gap.
  if (e.dataPhase == DATA_GAP && index == 12) e.dataPhase = DATA_IDLE;
  // A command with busy completes as a transfer of its own; an abort takes the place of the one that it ends.
  if (hasBusy && (e.dataPhase == DATA_IDLE || isAbort(e.command))) wait(DATA_BUSY, timeNs);
}

function endSilence(timeNs: u64): void {
  const e = engine();
  endFrame(timeNs);
  traceAt(timeNs, TRACE_NO_RESPONSE, frameIndex(e.sent), 0, 0);
  if (e.auto != AUTO_NONE) autoFails(SDHCI_INT_TIMEOUT, timeNs);
  else if (e.tuning == 0 || (e.command & SDHCI_CMD_DATA) == 0) signal(SDHCI_INT_TIMEOUT);
  forgetStop();
}

/** A transfer that its own command did not start needs no auto-CMD12. */
function forgetStop(): void {
  const e = engine();
  if ((e.command & SDHCI_CMD_DATA) != 0) e.stops = 0;
}

// ---- auto commands (mmc.md §3.1, §3.4): no command complete, their response in 0x1C, their errors in 0x3C ----

function takeAutoResponse(word: u32, timeNs: u64): void {
  const e = engine();
  setRegister32(SDHCI_RESPONSE_AUTO, word);
  const errors = responseErrors(frameIndex(e.sent), false, SDHCI_CMD_CRC | SDHCI_CMD_INDEX);
  if (errors != 0) {
    autoFails(errors, timeNs);
    return;
  }
  if (e.auto == AUTO_COUNT) {
    e.auto = AUTO_NONE;
    startFrame(e.command >>> 8, e.argument, timeNs);
    return;
  }
  e.auto = AUTO_NONE;
  if (e.dataPhase == DATA_STOPPING) {
    e.floorNs = timeNs;
    wait(DATA_BUSY, timeNs);
  }
  issueHeld();
}

/** `errors`: the bits that a command of the driver's would have had in SDHCI_INT_STATUS. */
function autoFails(errors: u32, timeNs: u64): void {
  const e = engine();
  let bits = (errors >>> 15) & 0x1e;
  // The driver's command behind it is not sent.
  if (e.held != 0) bits |= SDHCI_AUTO_NOT_ISSUED;
  e.held = 0;
  e.auto = AUTO_NONE;
  setAutoErrors(bits);
  traceAt(timeNs, TRACE_ERROR, SDHCI_INT_AUTO_CMD_ERR, bits, 0);
  if (dataIsInhibited()) e.dataPhase = DATA_HALTED;
}

/** Bits that come up in SDHCI_ACMD12_ERR: an error interrupt. */
export function setAutoErrors(bits: u32): void {
  setRegister16(SDHCI_ACMD12_ERR, register16(SDHCI_ACMD12_ERR) | bits);
  if ((bits & (SDHCI_AUTO_ERRORS | SDHCI_AUTO_NOT_ISSUED)) != 0) signal(SDHCI_INT_AUTO_CMD_ERR);
}

/** Auto-CMD12 as soon as the CMD line is free. */
function stopIfDue(timeNs: u64): void {
  const e = engine();
  if (e.dataPhase != DATA_STOPPING || e.commandPhase != COMMAND_IDLE) return;
  e.auto = AUTO_STOP;
  startFrame(12, 0, timeNs);
}

function issueHeld(): void {
  const e = engine();
  if (e.held == 0) return;
  e.held = 0;
  issueCommand();
}

// ---- data engine ----

/** A block has gone through; true if it was the last one. */
function countBlock(): bool {
  const e = engine();
  e.bufferAt = 0;
  if (e.counted == 0) return e.isDma == MOVE_ADMA && admaIsAtEnd();
  e.blocksLeft -= 1;
  if ((register16(SDHCI_TRANSFER_MODE) & SDHCI_TRNS_BLK_CNT_EN) != 0) {
    store<u16>(SDHCI_REGISTERS + SDHCI_BLOCK_COUNT, <u16>e.blocksLeft);
  }
  return e.blocksLeft == 0;
}

/** Behind a block: the end, a gap that the driver asked for, or the next one. */
function endBlock(timeNs: u64): void {
  const e = engine();
  if (countBlock()) {
    const byCount = (register16(SDHCI_TRANSFER_MODE) & SDHCI_TRNS_BLK_CNT_EN) != 0;
    if (byCount && e.isDma == MOVE_ADMA && !admaHasEnded()) {
      haltAdma(timeNs);
      return;
    }
    if (e.stops == 0) {
      completeTransfer(timeNs);
      return;
    }
    e.stops = 0;
    e.dataPhase = DATA_STOPPING;
    stopIfDue(timeNs);
    return;
  }
  if ((register8(SDHCI_BLOCK_GAP_CONTROL) & SDHCI_GAP_STOP) != 0) {
    e.dataPhase = DATA_GAP;
    signal(SDHCI_INT_BLK_GAP | SDHCI_INT_DATA_END);
    return;
  }
  goOn(timeNs);
}

function goOn(timeNs: u64): void {
  const fromNs = stretch(timeNs);
  if (engine().isRead != 0) {
    wait(DATA_READ_WIRE, fromNs);
    return;
  }
  wait(DATA_WRITE_FILL, fromNs);
  fillBuffer(fromNs);
}

/** SDHCI_BLOCK_GAP_CONTROL was written. A continue request ends by itself. */
export function continueAtGap(): void {
  const e = engine();
  const control = register8(SDHCI_BLOCK_GAP_CONTROL);
  if ((control & SDHCI_GAP_CONTINUE) == 0) return;
  store<u8>(SDHCI_REGISTERS + SDHCI_BLOCK_GAP_CONTROL, <u8>(control & ~SDHCI_GAP_CONTINUE));
  if (e.dataPhase != DATA_GAP || (control & SDHCI_GAP_STOP) != 0) return;
  e.floorNs = nowNs();
  goOn(nowNs());
}

function readBlock(timeNs: u64): void {
  const e = engine();
  advanceCard(timeNs);
  // Asked before the block goes out: behind the status of an SD card's CMD6 it is in another mode.
  const khz = clockKhz();
  const fits = keepsUp(khz, isDualRate(), isLowVoltage());
  // The card sends its block at whatever voltage it has.
  const came = giveBlock(SDHCI_BUFFER, timeNs) && sharesVoltage(isLowVoltage());
  e.floorNs = timeNs;
  if (!came) {
    e.dataNs = NEVER; // nothing more comes: the timeout will say so
    return;
  }
  disturbBlock(fits, khz);
  const block = takeBlock(SDHCI_BUFFER, e.blockBytes, lines());
  if (e.tuning != 0) {
    tuneBy(block == BLOCK_INTACT);
    return;
  }
  if (block != BLOCK_INTACT) {
    halt(block == BLOCK_CRC_WRONG ? SDHCI_INT_DATA_CRC : SDHCI_INT_DATA_END_BIT, timeNs);
    return;
  }
  if (e.isDma == MOVE_PIO) {
    wait(DATA_READ_FULL, timeNs);
    signal(SDHCI_INT_DATA_AVAIL);
    return;
  }
  deliverBlock(timeNs);
}

/** A clock that the card (`fits` false) or the sampling point cannot follow costs a bit of each block. */
function disturbBlock(fits: bool, khz: u32): void {
  if (!fits) breakBlock(SDHCI_BUFFER, NOISE_FAST);
  const e = engine();
  if (e.isRead == 0 || khz <= UNTUNED_KHZ || !hasUhs()) return;
  const tuned = (register16(SDHCI_HOST_CONTROL2) & SDHCI_CTRL_TUNED_CLK) != 0 || e.tuning != 0;
  if (!tuned) breakBlock(SDHCI_BUFFER, NOISE_UNTUNED);
}

/** The tuning procedure: each block is thrown away, and the last one sets the sampling clock or gives up. */
function tuneBy(isGood: bool): void {
  const e = engine();
  e.dataPhase = DATA_IDLE;
  e.tuningBlocks += 1;
  if (isGood) e.tuningGood += 1;
  const control = register16(SDHCI_HOST_CONTROL2);
  if ((control & SDHCI_CTRL_EXEC_TUNING) != 0) {
    const rest = control & ~(SDHCI_CTRL_EXEC_TUNING | SDHCI_CTRL_TUNED_CLK);
    if (e.tuningGood >= TUNING_GOOD_BLOCKS) setRegister16(SDHCI_HOST_CONTROL2, rest | SDHCI_CTRL_TUNED_CLK);
    else if (e.tuningBlocks >= TUNING_BLOCKS_MAX) setRegister16(SDHCI_HOST_CONTROL2, rest);
  }
  signal(SDHCI_INT_DATA_AVAIL);
}

/** A block of a read goes from the buffer to the memory. */
function deliverBlock(timeNs: u64): void {
  const e = engine();
  if (e.isDma == MOVE_ADMA) {
    if (!admaMove(SDHCI_BUFFER, e.blockBytes, true)) {
      haltAdma(timeNs);
      return;
    }
  } else if (!sdmaMoved(true, timeNs)) return;
  endBlock(timeNs);
}

/** True if SDMA has moved all of the block; else it waits at a boundary, or for ever. */
function sdmaMoved(toMemory: bool, timeNs: u64): bool {
  const moved = sdmaMove(toMemory);
  if (moved == SDMA_MOVED) return true;
  if (moved == SDMA_BOUNDARY) {
    engine().dataPhase = DATA_BOUNDARY;
    signal(SDHCI_INT_DMA_END);
  } else {
    wait(DATA_LOST, timeNs);
  }
  return false;
}

/** The top byte of SDHCI_DMA_ADDRESS was written: SDMA goes on from there. */
export function restartSdma(): void {
  const e = engine();
  if (e.dataPhase != DATA_BOUNDARY) return;
  const now = nowNs();
  e.floorNs = now;
  if (e.isRead != 0) deliverBlock(now);
  else fillBuffer(now);
}

/** The next block of a write is wanted: from the bus at once, or from the driver. */
function fillBuffer(timeNs: u64): void {
  const e = engine();
  if (e.isDma == MOVE_PIO) {
    signal(SDHCI_INT_SPACE_AVAIL);
  } else if (e.isDma == MOVE_NONE) {
    e.dataNs = NEVER;
    wait(DATA_WRITE_WIRE, timeNs);
  } else if (e.isDma == MOVE_SDMA) {
    if (sdmaMoved(false, timeNs)) sendBuffer(timeNs);
  } else if (admaMove(SDHCI_BUFFER, e.blockBytes, false)) {
    sendBuffer(timeNs);
  } else {
    haltAdma(timeNs);
  }
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
  driveBlock(e.blockBytes, lines());
  const khz = clockKhz();
  disturbBlock(keepsUp(khz, isDualRate(), isLowVoltage()), khz);
  const heard = sharesVoltage(isLowVoltage());
  const token = heard ? acceptBlock(SDHCI_BUFFER, e.blockBytes, timeNs) : CRC_STATUS_NONE;
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
  if (e.dataPhase == DATA_BUSY) completeTransfer(timeNs);
  else endBlock(timeNs);
}

/** The data timeout. In a tuning procedure it only means that this block was not good. */
function giveUp(timeNs: u64): void {
  const e = engine();
  if (e.tuning != 0) {
    e.tuningBlocks += 1;
    e.dataPhase = DATA_IDLE;
    return;
  }
  halt(SDHCI_INT_DATA_TIMEOUT, timeNs);
}

/** When the next block of a read begins on the wire; NEVER if none comes. */
function blockStartNs(khz: u32): u64 {
  const due = blockDueNs();
  return due == NEVER ? NEVER : laterNs(due, afterNs(engine().floorNs, clocksAtNs(accessClocks(), khz)));
}

/** When the data engine goes on; NEVER if only the driver or a timeout can move it. */
function nextDataNs(): u64 {
  const e = engine();
  switch (e.dataPhase) {
    case DATA_IDLE:
    case DATA_READ_WIRE: {
      // A counted read goes on even when nobody listens: the card follows the clock.
      if (e.dataPhase == DATA_IDLE && !sendsCounted()) return NEVER;
      if (e.isDma == MOVE_NONE && e.dataPhase == DATA_READ_WIRE) return NEVER;
      const khz = clockKhz();
      const startNs = blockStartNs(khz);
      if (startNs == NEVER) return NEVER;
      return afterNs(startNs, clocksAtNs(blockClocks(e.blockBytes == 0 ? SECTOR_BYTES : e.blockBytes), khz));
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

/**
 * Waiting on the card, not on the driver, is what the data timeout measures. NEVER, too, if the data engine goes on
 * before (`dataNs`): it begins a wait of its own.
 */
function nextTimeoutNs(dataNs: u64): u64 {
  const e = engine();
  const phase = e.dataPhase;
  if (dataNs <= e.patienceNs) return NEVER;
  // A block that begins in time may take as long as it takes.
  if (phase == DATA_READ_WIRE && e.isDma != MOVE_NONE && blockStartNs(clockKhz()) <= e.patienceNs)
    return NEVER;
  const waits =
    phase == DATA_READ_WIRE ||
    phase == DATA_WRITE_WIRE ||
    phase == DATA_WRITE_BUSY ||
    phase == DATA_BUSY ||
    phase == DATA_LOST;
  return waits ? e.patienceNs : NEVER;
}

function stepData(timeNs: u64): void {
  switch (engine().dataPhase) {
    case DATA_IDLE:
      advanceCard(timeNs);
      engine().floorNs = timeNs;
      giveBlock(SDHCI_BUFFER, timeNs);
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

/**
 * Lets everything happen that is due by now, in the order of its time; with `ahead` the clock goes on to each event
 * until it is the driver's turn. What is left when a bound is met stays due.
 */
function runEvents(ahead: bool): void {
  const e = engine();
  let left = ahead ? AHEAD_EVENTS_MAX : EVENTS_MAX;
  let now = nowNs();
  e.descriptors = 0;
  for (let i: u32 = 0; i < EVENTS_MAX && left != 0 && e.descriptors < DESCRIPTORS_MAX; i++) {
    left -= 1;
    const commandNs = e.commandPhase == COMMAND_IDLE ? NEVER : e.commandNs;
    const dataNs = nextDataNs();
    const lateNs = nextTimeoutNs(dataNs);
    const stepNs = soonerNs(commandNs, soonerNs(dataNs, lateNs));
    if (stepNs > now) {
      if (!ahead) break;
      // What the chip has done by now may change what comes next.
      if (advanceCard(now)) continue;
      if (stepNs == NEVER) break;
      advanceTo(stepNs);
      now = stepNs;
    }
    if (commandNs == stepNs) stepCommand(stepNs);
    else if (dataNs == stepNs) {
      e.stretchEvents = ahead ? left : 0;
      stepData(stepNs);
      if (ahead) left = e.stretchEvents;
      e.stretchEvents = 0;
    } else giveUp(stepNs);
    stopIfDue(laterNs(e.quietNs == NEVER ? now : e.quietNs, e.floorNs));
    traceLevel(stepNs, TRACE_STATE, cardState());
  }
  advanceCard(now);
  watchSlot();
}

/** Lets everything happen that is due by now. */
export function run(): void {
  runEvents(false);
}

/** When something of a transfer happens by itself next; NEVER: it is the driver's turn. */
export function nextEventNs(): u64 {
  const e = engine();
  const commandNs = e.commandPhase == COMMAND_IDLE ? NEVER : e.commandNs;
  const dataNs = nextDataNs();
  return soonerNs(commandNs, soonerNs(dataNs, nextTimeoutNs(dataNs)));
}

/**
 * Lets the clock go on to each event until it is the driver's turn and the chip has done what it does by
 * itself.
 */
export function runAhead(): void {
  runEvents(true);
  const idle = idleFromNs();
  if (idle == NEVER || idle <= nowNs()) return;
  advanceTo(idle);
  run();
}

/** After a register was written: what that may have changed without an event of its own. */
export function traceLevels(): void {
  if (load<u32>(CONFIG_TRACE) == 0) return;
  const now = nowNs();
  traceLevel(now, TRACE_CLOCK, clockKhz());
  traceLevel(now, TRACE_WIDTH, lines());
  traceLevel(now, TRACE_STATE, cardState());
}

// ---- the slot ----

/** Card detection: the pin, or the test level of SDHCI_HOST_CONTROL. */
export function cardDetected(): bool {
  const control = register8(SDHCI_HOST_CONTROL);
  if ((control & SDHCI_CTRL_CDTEST_EN) != 0) return (control & SDHCI_CTRL_CDTEST_INS) != 0;
  return isPresent();
}

/** Signals an edge of card detection. There is no debounce: the contacts of this slot do not bounce. */
export function watchSlot(): void {
  const e = engine();
  const detected: u32 = cardDetected() ? 1 : 0;
  if (detected == e.inserted) return;
  e.inserted = detected;
  signal(detected != 0 ? SDHCI_INT_CARD_INSERT : SDHCI_INT_CARD_REMOVE);
}

// ---- software resets (mmc.md §3.5) ----

/** SDHCI_RESET_CMD: the command engine forgets; the card does not. */
export function resetCommandLine(): void {
  const e = engine();
  // A data phase that waited for an auto command has nothing to wait for.
  if (e.auto != AUTO_NONE && dataIsInhibited()) e.dataPhase = DATA_HALTED;
  e.commandPhase = COMMAND_IDLE;
  e.auto = AUTO_NONE;
  e.held = 0;
  e.status &= ~SDHCI_INT_RESPONSE;
}

/** SDHCI_RESET_DATA: buffer, DMA, gap requests and data engine; the card keeps its state. */
export function resetDataLines(): void {
  const e = engine();
  const gap = register8(SDHCI_BLOCK_GAP_CONTROL) & ~(SDHCI_GAP_STOP | SDHCI_GAP_CONTINUE);
  store<u8>(SDHCI_REGISTERS + SDHCI_BLOCK_GAP_CONTROL, <u8>gap);
  e.dataPhase = DATA_IDLE;
  e.stops = 0;
  e.bufferAt = 0;
  e.floorNs = nowNs();
  e.status &= ~0x3e;
}

/** SDHCI_BUFFER_PORT: `bytes` more of the block at hand have gone through it. */
export function portAdvance(bytes: u32): void {
  const e = engine();
  e.bufferAt += bytes;
  if (e.bufferAt < e.blockBytes) return;
  const now = nowNs();
  if (e.dataPhase == DATA_WRITE_FILL) {
    e.bufferAt = 0;
    sendBuffer(now);
  } else {
    e.floorNs = now;
    endBlock(now);
  }
}
