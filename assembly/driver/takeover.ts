// From any state to tran: what the patches for Linux never did. First the controller is made quiet, then the card is
// asked and led back, rung by rung (mmc.md §2.6): status; CMD12; CMD5; CMD7; CMD0 and identification; power cycle.
// Nothing of the interrupted request is resumed. While identification has not ended nothing is known that a lower rung
// needs: it begins at the fifth then.

import { tailBlock } from "../buffers";
import { NEVER } from "../clock";
import { EILSEQ, ENODEV, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
import { holds } from "../owner";
import {
  SDHCI_CLOCK_CARD_EN,
  SDHCI_CLOCK_CONTROL,
  SDHCI_CTRL_4BITBUS,
  SDHCI_CTRL_8BITBUS,
  SDHCI_CTRL_EXEC_TUNING,
  SDHCI_CTRL_HISPD,
  SDHCI_CTRL_VDD_180,
  SDHCI_HOST_CONTROL,
  SDHCI_HOST_CONTROL2,
  SDHCI_INT_STATUS,
  SDHCI_RESET_CMD,
  SDHCI_RESET_DATA,
} from "../sdhci/registers";
import {
  ANSWER_R1,
  isCardPresent,
  lastResponse,
  longerPause,
  MILLISECOND,
  POLLS_MAX,
  pause,
  resetBothLines,
  resetLines,
  sendCommand,
} from "./command";
import { identify } from "./enumerate";
import { portNowNs, portRead8, portRead16, portWrite8, portWrite16, portWrite32 } from "./port";
import { R1_READY_FOR_DATA } from "./r1";
import { readdressCard } from "./readdress";
import {
  awaitSupply,
  enableStatus,
  isPowered,
  powerCycle,
  powerUp,
  startClock,
  switchPowerOn,
} from "./setup";
import { isLate, isOver, isShared, KIND_EMMC, KIND_SD, outcome, shadow, untilNs } from "./shadow";
import { confirmModes, flushKnownCache, selectUserArea } from "./switch";
import { dat0IsHigh, sendStatus, stopTransmission } from "./transfer";

export const RUNG_STATUS: u32 = 1;
export const RUNG_STOP: u32 = 2;
export const RUNG_AWAKE: u32 = 3;
export const RUNG_SELECT: u32 = 4;
export const RUNG_IDENTIFY: u32 = 5;
export const RUNG_POWER_CYCLE: u32 = 6;

/** What CMD13 tells when nothing answers. */
export const NO_STATE: u32 = 0xff;

const STATE_STBY: u32 = 3;
const STATE_TRAN: u32 = 4;
const STATE_DATA: u32 = 5;
const STATE_RCV: u32 = 6;
const STATE_PRG: u32 = 7;
const STATE_DIS: u32 = 8;

const ROUNDS_MAX: u32 = 24;
/** One block that is damaged is noise. */
const DISAGREEMENTS_MAX: u32 = 2;
/** Longest busy that is waited for before HPI: Linux's write timeout of an eMMC, 1.6 s; a slow erase is cut short. */
const PATIENCE_NS: u64 = 1600 * MILLISECOND;
/** HPI: EXT_CSD[198] × 10 ms is 50 ms for our card; 100 ms for any. */
const HPI_NS: u64 = 100 * MILLISECOND;
/** EXT_CSD_S_A_TIMEOUT: at most 100 ns × 2^0x17 = 0.84 s; 13 ms is usual. */
const AWAKE_NS: u64 = 100 * MILLISECOND;

/**
 * Signals off, DMA, both engines and tuning stopped, clock, lines and power as they should be. The voltage of the
 * signals stays: it is the card's too, unless the controller alone was reset.
 */
export function quietController(token: u32): void {
  const s = shadow(token);
  enableStatus(token);
  resetLines(token, SDHCI_RESET_CMD);
  resetLines(token, SDHCI_RESET_DATA);
  portWrite32(token, SDHCI_INT_STATUS, 0xffffffff);
  // A tuning procedure that was left in the middle would take the blocks of every read for its own.
  const control2 = portRead16(token, SDHCI_HOST_CONTROL2);
  if ((control2 & SDHCI_CTRL_EXEC_TUNING) != 0)
    portWrite16(token, SDHCI_HOST_CONTROL2, control2 & ~SDHCI_CTRL_EXEC_TUNING);
  if (s.identified == 0) {
    powerUp(token);
    return;
  }
  // Suspended, and the card has lost everything: identification will bring it back. Or the controller alone was reset,
  // and the card still has its lines, its speed and what is in its cache.
  const wasOff = !isPowered(token);
  if (wasOff) switchPowerOn(token);
  if (isShared()) adoptSettings(token);
  if (portRead16(token, SDHCI_CLOCK_CONTROL) != s.clockControl) startClock(token, s.clockControl);
  if (portRead8(token, SDHCI_HOST_CONTROL) != s.hostControl)
    portWrite8(token, SDHCI_HOST_CONTROL, s.hostControl);
  if (wasOff) awaitSupply(token);
}

/**
 * Another driver may have chosen clock, lines and speed since ours identified the card: what it left there fits the
 * card, and what it made of the card has to be asked for.
 */
function adoptSettings(token: u32): void {
  shadow(token).modesKnown = 0;
  const control = portRead16(token, SDHCI_CLOCK_CONTROL);
  if ((control & SDHCI_CLOCK_CARD_EN) == 0) return;
  const s = shadow(token);
  s.clockControl = control;
  s.hostControl =
    portRead8(token, SDHCI_HOST_CONTROL) & (SDHCI_CTRL_4BITBUS | SDHCI_CTRL_8BITBUS | SDHCI_CTRL_HISPD);
}

/** CMD13, three tries: one missing answer can be a CRC hit on the command. The state, or NO_STATE. */
function askState(token: u32): u32 {
  for (let i: u32 = 0; i < 3; i++) {
    const status = sendStatus(token);
    if (status == OK) return (lastResponse(token) >>> 9) & 15;
    if (status == ENOMEDIUM || isLate(token)) break;
  }
  return NO_STATE;
}

/** Waits while the card programs. False: still busy when patience or time ran out. */
function awaitBusyEnd(token: u32, lengthNs: u64): bool {
  const endNs = untilNs(token, lengthNs);
  let pauseNs: u32 = 0;
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    if (dat0IsHigh(token)) return true;
    if (isOver(token, endNs)) return false;
    pauseNs = longerPause(pauseNs);
    pause(token, pauseNs, endNs);
  }
  return false;
}

/** How long a busy card is waited for: never more than a quarter of the time that is left. */
function patienceNs(token: u32): u64 {
  const now = portNowNs(token);
  const deadlineNs = shadow(token).deadlineNs;
  const quarter = deadlineNs > now ? (deadlineNs - now) / 4 : 0;
  return quarter < PATIENCE_NS ? quarter : PATIENCE_NS;
}

/** Programming that does not end: HPI on an eMMC. True if the card came free. */
function interruptBusy(token: u32): bool {
  const s = shadow(token);
  if (s.hasHpi == 0) return false;
  sendCommand(token, 13, (s.rca << 16) | 1, ANSWER_R1, 0);
  return awaitBusyEnd(token, HPI_NS);
}

/** One step back to tran from a state that CMD13 told. False: this state needs the next rung. */
function leaveState(token: u32, state: u32): bool {
  const rcaArgument = shadow(token).rca << 16;
  switch (state) {
    case STATE_TRAN:
    case STATE_PRG:
      return awaitBusyEnd(token, patienceNs(token)) || interruptBusy(token);
    case STATE_DATA:
    case STATE_RCV:
      return stopTransmission(token) != ENOMEDIUM;
    case STATE_STBY:
    case STATE_DIS:
      return sendCommand(token, 7, rcaArgument, ANSWER_R1, 0) != ENOMEDIUM;
    default:
      return false;
  }
}

/** Something for a card that does not answer CMD13. */
function climb(token: u32, rung: u32): i32 {
  const s = shadow(token);
  switch (rung) {
    case RUNG_STOP:
      stopTransmission(token);
      return OK;
    case RUNG_AWAKE:
      // A card that is still falling asleep hears nothing until DAT0 is high again.
      awaitBusyEnd(token, AWAKE_NS);
      if (s.kind == KIND_EMMC && sendCommand(token, 5, s.rca << 16, ANSWER_R1, 0) == OK) {
        awaitBusyEnd(token, AWAKE_NS);
        sendCommand(token, 7, s.rca << 16, ANSWER_R1, 0);
      }
      return OK;
    case RUNG_SELECT:
      if (sendCommand(token, 7, s.rca << 16, ANSWER_R1, 0) == OK) return OK;
      if (s.kind != KIND_SD || s.identified == 0) return OK;
      awaitBusyEnd(token, patienceNs(token));
      return readdressCard(token) == ENODEV ? ENODEV : OK;
    case RUNG_IDENTIFY:
      return identify(token);
    default: {
      powerCycle(token);
      const status = identify(token);
      if (status != ETIMEDOUT || (s.hasCid != 0 && s.kind == KIND_EMMC)) return status;
      // A supply that is not the controller's to switch (no regulator, or none that a panic can reach): the card may be
      // at 1.8 V still, and the controller no longer.
      portWrite16(token, SDHCI_HOST_CONTROL2, SDHCI_CTRL_VDD_180);
      return identify(token);
    }
  }
}

/** What is told through a pointer, by an owner that still is one. */
function tell(token: u32, ptr: usize, value: u32): void {
  if (holds(token)) store<u32>(ptr, value);
}

/**
 * Leads the card to tran, in the user area, with clean status. Returns 0 or: -ENOMEDIUM the slot is empty, -ENODEV
 * another card than before, -ETIMEDOUT the deadline came first or no rung helped, -ECANCELED the host was taken.
 * `firstState` and `highestRung` (u32 each) are told through the two pointers.
 */
export function takeOverCard(token: u32, firstState: usize, highestRung: usize): i32 {
  return outcome(token, climbToTran(token, firstState, highestRung));
}

function climbToTran(token: u32, firstState: usize, highestRung: usize): i32 {
  const s = shadow(token);
  let rung = RUNG_STATUS;
  let disagreements: u32 = 0;
  tell(token, firstState, NO_STATE);
  tell(token, highestRung, rung);
  for (let round: u32 = 0; round < ROUNDS_MAX; round++) {
    if (!isCardPresent(token)) return ENOMEDIUM;
    if (isLate(token)) return ETIMEDOUT;
    const state = s.identified != 0 ? askState(token) : NO_STATE;
    if (round == 0) tell(token, firstState, state);
    if (state == STATE_TRAN && dat0IsHigh(token) && (lastResponse(token) & R1_READY_FOR_DATA) != 0) {
      const settled = settle(token);
      if (settled == OK) return OK;
      if (s.modesKnown == 0) disagreements += 1;
    }
    const agrees = disagreements < DISAGREEMENTS_MAX;
    const helped = agrees && state != NO_STATE && round < ROUNDS_MAX / 2 && leaveState(token, state);
    if (helped) continue;
    // A card that answers but cannot be led on is beyond CMD12, CMD5 and CMD7, and so is one that is not identified.
    const isBeyond = state != NO_STATE || s.identified == 0;
    rung = isBeyond && rung < RUNG_IDENTIFY ? RUNG_IDENTIFY : rung < RUNG_POWER_CYCLE ? rung + 1 : rung;
    tell(token, highestRung, rung);
    // Commands get through where data do not: what the cache holds can still be stored. A panic has no time for that.
    if (!agrees && s.identified != 0 && s.cacheOn != 0 && s.deadlineNs == NEVER) flushKnownCache(token);
    const climbed = climb(token, rung);
    if (climbed == ENODEV || climbed == ENOMEDIUM) return climbed;
    disagreements = 0;
  }
  return ETIMEDOUT;
}

/**
 * From scratch: CMD0 and identification, behind a power cycle if asked. For a card that answers and
 * yet loses data: it has
 * another bus width or speed than the driver believes, which no command tells (mmc.md §2.6).
 */
export function restartCard(token: u32, powerToo: bool): i32 {
  if (powerToo) powerCycle(token);
  return identify(token);
}

/**
 * In tran: forget old status bits, ask the card for its modes if they are not known, and make sure of the user area.
 * The second status tells what the first one was: behind a CMD55 that nobody saw it is ACMD13, and an SD card
 * is in data with it.
 */
function settle(token: u32): i32 {
  const status = sendStatus(token);
  if (status != OK) return status;
  if (((lastResponse(token) >>> 9) & 15) != STATE_TRAN) return EILSEQ;
  if (shadow(token).modesKnown == 0) {
    const asked = confirmModes(token);
    if (asked != OK) return asked;
  }
  return selectUserArea(token);
}

/**
 * Behind a transfer that failed: the lines reset, the card in tran again, and asked for a register in data, or
 * identified again where that fails. Until then no zone can be blamed. As takeOverCard().
 */
export function leadBack(token: u32): i32 {
  resetBothLines(token);
  shadow(token).modesKnown = 0;
  return takeOverCard(token, tailBlock(token), tailBlock(token) + 4);
}
