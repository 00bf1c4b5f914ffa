// From any state to tran: what the patches for Linux never did. First the controller is made quiet, then the card is
// asked and led back, rung by rung (mmc.md §2.6): status; CMD12; CMD5; CMD7; CMD0 and identification; power cycle.
// Nothing of the interrupted request is resumed.
import { ENODEV, ENOMEDIUM, ETIMEDOUT, OK } from "../errno";
import { TAIL_BLOCK } from "../layout";
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
  STATUS_READY,
  sendCommand,
} from "./command";
import { identify } from "./enumerate";
import { portNowNs, portRead8, portRead16, portWrite8, portWrite16, portWrite32 } from "./port";
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
import { isLate, isOver, KIND_EMMC, KIND_SD, shadow, untilNs } from "./shadow";
import { adoptModes, selectUserArea } from "./switch";
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
export function quietController(): void {
  const s = shadow();
  enableStatus();
  resetLines(SDHCI_RESET_CMD);
  resetLines(SDHCI_RESET_DATA);
  portWrite32(SDHCI_INT_STATUS, 0xffffffff);
  // A tuning procedure that was left in the middle would take the blocks of every read for its own.
  const control2 = portRead16(SDHCI_HOST_CONTROL2);
  if ((control2 & SDHCI_CTRL_EXEC_TUNING) != 0)
    portWrite16(SDHCI_HOST_CONTROL2, control2 & ~SDHCI_CTRL_EXEC_TUNING);
  const wasOff = !isPowered();
  if (wasOff) {
    // Suspended, and the card has lost everything: identification will bring it back. Or the controller alone was
    // reset, and the card still has its lines, its speed and what is in its cache.
    if (s.identified == 0) {
      powerUp();
      return;
    }
    switchPowerOn();
  }
  if (isDefined(EXTERNAL_BUS)) adoptSettings();
  if (portRead16(SDHCI_CLOCK_CONTROL) != s.clockControl) startClock(s.clockControl);
  if (portRead8(SDHCI_HOST_CONTROL) != s.hostControl) portWrite8(SDHCI_HOST_CONTROL, s.hostControl);
  if (wasOff) awaitSupply();
}

/** A guest's driver chose clock, lines and speed since ours identified the card: what it left there fits the card. */
function adoptSettings(): void {
  const control = portRead16(SDHCI_CLOCK_CONTROL);
  if ((control & SDHCI_CLOCK_CARD_EN) == 0) return;
  const s = shadow();
  s.clockControl = control;
  s.hostControl =
    portRead8(SDHCI_HOST_CONTROL) & (SDHCI_CTRL_4BITBUS | SDHCI_CTRL_8BITBUS | SDHCI_CTRL_HISPD);
}

/** CMD13, three tries: one missing answer can be a CRC hit on the command. The state, or NO_STATE. */
function askState(): u32 {
  for (let i: u32 = 0; i < 3; i++) {
    const status = sendStatus();
    if (status == OK) return (lastResponse() >>> 9) & 15;
    if (status == ENOMEDIUM || isLate()) break;
  }
  return NO_STATE;
}

/** Waits while the card programs. False: still busy when patience or time ran out. */
function awaitBusyEnd(lengthNs: u64): bool {
  const endNs = untilNs(lengthNs);
  let pauseNs: u32 = 0;
  for (let i: u32 = 0; i < POLLS_MAX; i++) {
    if (dat0IsHigh()) return true;
    if (isOver(endNs)) return false;
    pauseNs = longerPause(pauseNs);
    pause(pauseNs, endNs);
  }
  return false;
}

/** How long a busy card is waited for: never more than a quarter of the time that is left. */
function patienceNs(): u64 {
  const now = portNowNs();
  const deadlineNs = shadow().deadlineNs;
  const quarter = deadlineNs > now ? (deadlineNs - now) / 4 : 0;
  return quarter < PATIENCE_NS ? quarter : PATIENCE_NS;
}

/** Programming that does not end: HPI on an eMMC. True if the card came free. */
function interruptBusy(): bool {
  const s = shadow();
  if (s.hasHpi == 0) return false;
  sendCommand(13, (s.rca << 16) | 1, ANSWER_R1, 0);
  return awaitBusyEnd(HPI_NS);
}

/** One step back to tran from a state that CMD13 told. False: this state needs the next rung. */
function leaveState(state: u32): bool {
  const rcaArgument = shadow().rca << 16;
  switch (state) {
    case STATE_TRAN:
    case STATE_PRG:
      return awaitBusyEnd(patienceNs()) || interruptBusy();
    case STATE_DATA:
    case STATE_RCV:
      return stopTransmission() != ENOMEDIUM;
    case STATE_STBY:
    case STATE_DIS:
      return sendCommand(7, rcaArgument, ANSWER_R1, 0) != ENOMEDIUM;
    default:
      return false;
  }
}

/** Something for a card that does not answer CMD13. */
function climb(rung: u32): i32 {
  const s = shadow();
  switch (rung) {
    case RUNG_STOP:
      stopTransmission();
      return OK;
    case RUNG_AWAKE:
      // A card that is still falling asleep hears nothing until DAT0 is high again.
      awaitBusyEnd(AWAKE_NS);
      if (s.kind == KIND_EMMC && sendCommand(5, s.rca << 16, ANSWER_R1, 0) == OK) {
        awaitBusyEnd(AWAKE_NS);
        sendCommand(7, s.rca << 16, ANSWER_R1, 0);
      }
      return OK;
    case RUNG_SELECT:
      if (sendCommand(7, s.rca << 16, ANSWER_R1, 0) == OK || s.kind != KIND_SD) return OK;
      awaitBusyEnd(patienceNs());
      return readdressCard() == ENODEV ? ENODEV : OK;
    case RUNG_IDENTIFY:
      return identify();
    default: {
      powerCycle();
      const status = identify();
      if (status != ETIMEDOUT || s.kind != KIND_SD) return status;
      // A supply that is not the controller's to switch (no regulator, or none that a panic can reach): the card may be
      // at 1.8 V still, and the controller no longer.
      portWrite16(SDHCI_HOST_CONTROL2, SDHCI_CTRL_VDD_180);
      return identify();
    }
  }
}

/**
 * Leads the card to tran, in the user area, with clean status. Returns 0 or: -ENOMEDIUM the slot is
 * empty, -ENODEV another
 * card than before, -ETIMEDOUT the deadline came first or no rung helped. `firstState` and `highestRung` (u32 each)
 * are told through the two pointers.
 */
export function takeOverCard(firstState: usize, highestRung: usize): i32 {
  let rung = RUNG_STATUS;
  store<u32>(firstState, NO_STATE);
  store<u32>(highestRung, rung);
  for (let round: u32 = 0; round < ROUNDS_MAX; round++) {
    if (!isCardPresent()) return ENOMEDIUM;
    if (isLate()) return ETIMEDOUT;
    const state = askState();
    if (round == 0) store<u32>(firstState, state);
    if (state == STATE_TRAN && dat0IsHigh() && (lastResponse() & STATUS_READY) != 0) {
      if (isSettled()) return OK;
    }
    const helped = state != NO_STATE && round < ROUNDS_MAX / 2 && leaveState(state);
    if (helped) continue;
    // A card that answers but cannot be led on is beyond CMD12, CMD5 and CMD7.
    rung =
      state != NO_STATE && rung < RUNG_IDENTIFY ? RUNG_IDENTIFY : rung < RUNG_POWER_CYCLE ? rung + 1 : rung;
    store<u32>(highestRung, rung);
    const climbed = climb(rung);
    if (climbed == ENODEV || climbed == ENOMEDIUM) return climbed;
  }
  return ETIMEDOUT;
}

/** Behind a transfer that failed: the lines reset, and the card in tran again. As takeOverCard(). */
export function leadBack(): i32 {
  resetBothLines();
  return takeOverCard(TAIL_BLOCK, TAIL_BLOCK + 4);
}

/**
 * From scratch: CMD0 and identification, behind a power cycle if asked. For a card that answers and
 * yet loses data: it has
 * another bus width or speed than the driver believes, which no command tells (mmc.md §2.6).
 */
export function restartCard(powerToo: bool): i32 {
  if (powerToo) powerCycle();
  return identify();
}

/**
 * In tran: forget old status bits, and make sure of the user area. A bus that lost its width shows only in data.
 * The second status tells what the first one was: behind a CMD55 that nobody saw it is ACMD13, and an SD card
 * is in data with it.
 */
function isSettled(): bool {
  if (sendStatus() != OK || ((lastResponse() >>> 9) & 15) != STATE_TRAN) return false;
  if (isDefined(EXTERNAL_BUS)) adoptModes();
  return selectUserArea() == OK;
}
