// A command arrives: what every card checks first, and the handlers of the commands that both kinds have. Legality is
// legal.ts's; a command that is not legal here is answered by silence and R1_ILLEGAL_COMMAND in the next response.

import {
  CONFIG_ABORT_OUTCOME,
  CONFIG_FINAL_NS,
  FAULT_BROWN_OUT,
  FAULT_DAT_STUCK,
  FAULT_ILLEGAL,
  FAULT_LOCKED,
  FAULT_LONG_R1B,
  FAULT_NO_RESPONSE,
  FAULT_PULLED,
  FAULT_REFUSED,
  FAULT_SWAPPED,
  FAULT_VANISH,
  FAULT_WRITE_PROTECT,
  STUCK_UNTIL_POWER_CYCLE,
} from "../layout";
import { addressErrors, sectorOf } from "./address";
import { answerR1, answerR2, illegal, RESPONSE_NONE, RESPONSE_R1 } from "./answer";
import { beginTail, dropBusy, interrupt, isBusy } from "./busy";
import { cacheKeptAtReset } from "./cache";
import { emmcCommand } from "./emmc-commands";
import { EXT_CSD_HPI_MGMT, extCsd } from "./emmc-registers";
import { erase, eraseBound } from "./erase";
import { faultOnCommand, faultOnCommandLevel } from "./faults";
import { damage } from "./flash";
import { isAppCommand, isLegal } from "./legal";
import { beginPacked, COUNT_PACKED, failPacked, isPackedRead, PACKED_NONE, reliableErrors } from "./packed";
import { loseSupply, swapIdentity } from "./power";
import { resetVolatileRegisters } from "./registers";
import { sdAppCommand, sdCommand } from "./sd-commands";
import { isWriteProtected } from "./sd-protect";
import {
  card,
  isEmmc,
  NOT_MINE,
  R1_BLOCK_LEN_ERROR,
  R1_COM_CRC_ERROR,
  R1_ERASE_RESET,
  R1_ERROR,
  R1_ILLEGAL_COMMAND,
  R1_WP_VIOLATION,
  raise,
  SOURCE_PACKED,
  STATE_DATA,
  STATE_DIS,
  STATE_IDENT,
  STATE_IDLE,
  STATE_INA,
  STATE_PRG,
  STATE_SLP,
  STATE_STBY,
  STATE_TRAN,
  VOLTAGE_180,
  VOLTAGE_330,
} from "./state";
import { startTransfer } from "./transfer";
import { isProtected } from "./write-protect";

/** CMD0: whatever it was, it is over. SD keeps 1.8 V until its supply goes (mmc.md §2.2). */
export function goIdle(timeNs: u64): void {
  const c = card();
  dropBusy(load<u32>(CONFIG_ABORT_OUTCOME), cacheKeptAtReset(), timeNs);
  c.state = STATE_IDLE;
  c.rca = isEmmc() ? 1 : 0;
  c.status = 0;
  c.busWidth = 1;
  c.highSpeed = 0;
  c.dualRate = 0;
  c.functionsToCome = 0;
  c.driverStrength = 0;
  c.currentLimit = 0;
  if (c.voltage != VOLTAGE_180) c.voltage = VOLTAGE_330;
  c.partition = 0;
  c.countArmed = 0;
  c.packed = PACKED_NONE;
  c.appCommand = 0;
  c.eraseStep = 0;
  c.initUntilNs = 0;
  c.afterStop = 0;
  if (c.datStuck != 1 + STUCK_UNTIL_POWER_CYCLE) c.datStuck = 0;
  resetVolatileRegisters(false);
}

/** CMD7: selects on the card's own RCA, deselects on any other. Returns the kind of answer. */
function select(argument: u32): u32 {
  const c = card();
  const state = c.state;
  if (argument >>> 16 == c.rca && c.rca != 0) {
    if (state == STATE_STBY) {
      c.state = STATE_TRAN;
      return answerR1(state, 0);
    }
    if (state == STATE_DIS) {
      c.state = STATE_PRG;
      return answerR1(state, 0);
    }
    return illegal();
  }
  if (state == STATE_TRAN || state == STATE_DATA) c.state = STATE_STBY;
  else if (state == STATE_PRG) c.state = STATE_DIS;
  return RESPONSE_NONE;
}

/** CMD12. eMMC in prg: only as HPI. */
function stopTransmission(argument: u32, timeNs: u64): u32 {
  const c = card();
  const state = c.state;
  if (state == STATE_PRG) {
    if ((argument & 1) == 0 || extCsd(EXT_CSD_HPI_MGMT) == 0) return illegal();
    // As HPI it names a card; to stop a transfer it does not.
    if (argument >>> 16 != c.rca) return RESPONSE_NONE;
    answerR1(state, 0);
    interrupt(timeNs, load<u32>(CONFIG_ABORT_OUTCOME));
    return RESPONSE_R1;
  }
  answerR1(state, 0);
  c.afterStop = 1;
  c.packed = PACKED_NONE;
  if (state == STATE_DATA) {
    c.state = STATE_TRAN;
    return RESPONSE_R1;
  }
  c.state = isBusy() ? STATE_PRG : STATE_TRAN;
  // An open-ended write learns only here which block was its last.
  const finalNs: u64 = load<u32>(CONFIG_FINAL_NS);
  if (finalNs > 0 && c.transferIgnored == 0 && c.writtenBlocks > 0) beginTail(timeNs, finalNs);
  return RESPONSE_R1;
}

function sendStatus(argument: u32, timeNs: u64): u32 {
  const state = card().state;
  answerR1(state, 0);
  if (isEmmc() && (argument & 1) != 0 && state == STATE_PRG && extCsd(EXT_CSD_HPI_MGMT) != 0) {
    interrupt(timeNs, load<u32>(CONFIG_ABORT_OUTCOME));
  }
  return RESPONSE_R1;
}

/**
 * What is wrong with the CMD23 before a multiple of an eMMC: a reliable write of a length that cannot be
 * (BLOCK_LEN_ERROR), a packed command without a count or a packed read that no header announced (ERROR). Tags (bit 29)
 * and contexts (28:25) change nothing.
 */
function countErrors(isWrite: bool): u32 {
  const c = card();
  if (!isEmmc() || c.countArmed == 0) return 0;
  if ((c.countArgument & COUNT_PACKED) == 0) return isWrite ? reliableErrors(c.countArgument) : 0;
  beginPacked();
  const count = c.countArgument & 0xffff;
  if (isWrite ? count > 0 : isPackedRead(count)) return 0;
  failPacked(0);
  return R1_ERROR;
}

function readOrWrite(index: u32, argument: u32, timeNs: u64): u32 {
  const isMultiple = index == 18 || index == 25;
  let errors = addressErrors(argument);
  if (errors == 0 && isMultiple) errors = countErrors(index == 25);
  if (errors == 0) {
    const c = card();
    startTransfer(index >= 24, isMultiple, sectorOf(argument), timeNs);
    const isSdProtected = !isEmmc() && isWriteProtected(c.transferLba);
    if (index >= 24 && isSdProtected) errors = R1_WP_VIOLATION;
    const isHeader = c.transferSource == SOURCE_PACKED;
    if (index >= 24 && isEmmc() && !isHeader && isProtected(c.partition, c.transferLba)) {
      // Told at once. One block may still come, and is dropped; a multiple waits for CMD12.
      errors = R1_WP_VIOLATION;
      c.transferIgnored = isMultiple ? 1 : 0;
    }
  }
  return answerR1(STATE_TRAN, errors);
}

/** A command that is no application command: the kind's own first, then what both kinds have. */
export function plainCommand(index: u32, argument: u32, timeNs: u64): u32 {
  const own = isEmmc() ? emmcCommand(index, argument, timeNs) : sdCommand(index, argument, timeNs);
  if (own != NOT_MINE) return own;
  const c = card();
  const state = c.state;
  switch (index) {
    case 0:
      goIdle(timeNs);
      return RESPONSE_NONE;
    case 2:
      c.state = STATE_IDENT;
      return answerR2(c, c.cid0, c.cid1, c.cid2, c.cid3);
    case 4:
      return RESPONSE_NONE;
    case 7:
      return select(argument);
    case 9:
      return answerR2(c, c.csd0, c.csd1, c.csd2, c.csd3);
    case 10:
      return answerR2(c, c.cid0, c.cid1, c.cid2, c.cid3);
    case 12:
      return stopTransmission(argument, timeNs);
    case 13:
      return sendStatus(argument, timeNs);
    case 15:
      c.state = STATE_INA;
      return RESPONSE_NONE;
    case 16:
      return answerR1(state, argument == 512 ? 0 : R1_BLOCK_LEN_ERROR);
    case 17:
    case 18:
    case 24:
    case 25:
      return readOrWrite(index, argument, timeNs);
    case 23:
      c.countArmed = 1;
      c.countArgument = argument;
      return answerR1(state, 0);
    case 32:
    case 35:
      return eraseBound(false, argument);
    case 33:
    case 36:
      return eraseBound(true, argument);
    case 38:
      return erase(argument, timeNs);
    case 55:
      c.appCommand = 1;
      return answerR1(state, 0);
    default:
      return illegal();
  }
}

/** Commands that name a card by its RCA in bits 31:16. CMD7 and 5 look themselves. */
function namesAnotherCard(index: u32, argument: u32): bool {
  const c = card();
  if (index == 55 && c.state == STATE_IDLE) return false;
  const named = index == 9 || index == 10 || index == 13 || index == 15 || index == 55;
  return named && argument >>> 16 != c.rca;
}

/** Commands answered with an R1 in a selected or addressed card: those that can be refused in it. */
function isRefusable(index: u32): bool {
  return card().state >= STATE_STBY && index >= 5 && index != 9 && index != 10 && index != 15 && index != 41;
}

/** What the plan does to the card before it looks at the command. */
export function faultsBefore(index: u32, timeNs: u64): void {
  const c = card();
  if (faultOnCommand(FAULT_PULLED, index)) c.pulled = 1;
  if (c.power != 0 && faultOnCommand(FAULT_BROWN_OUT, index)) loseSupply(timeNs);
  if (c.power != 0 && faultOnCommand(FAULT_SWAPPED, index)) {
    loseSupply(timeNs);
    swapIdentity();
  }
  if (faultOnCommand(FAULT_VANISH, index)) {
    c.gone = 1;
    c.transferIgnored = 1;
  }
  if (faultOnCommand(FAULT_WRITE_PROTECT, index)) damage().writeProtected ^= 1;
  const stuck = faultOnCommandLevel(FAULT_DAT_STUCK, index);
  if (stuck != 0) c.datStuck = stuck;
  c.locked = faultOnCommand(FAULT_LOCKED, index) ? 1 : 0;
}

/**
 * A command has arrived whole (wire.ts checked it) at `timeNs`. Returns RESPONSE_* with the content in
 * response0 … 3. An unknown index or a command that is not legal now is answered by silence (mmc.md §1.4).
 */
export function receiveCommand(index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  faultsBefore(index, timeNs);
  if (c.power == 0 || c.pulled != 0 || c.gone != 0 || c.state == STATE_INA) return RESPONSE_NONE;
  // In SPI mode DAT3 is chip select and nothing of the SD bus is heard any more.
  if (c.spi != 0) return RESPONSE_NONE;
  // A wedged chip hears nothing until its supply is gone.
  if (c.opStuck == 1 + STUCK_UNTIL_POWER_CYCLE && index == 0) return RESPONSE_NONE;
  const app = c.appCommand != 0 && !isEmmc() && isAppCommand(index);
  if (c.state == STATE_SLP && isBusy() && index != 0) return RESPONSE_NONE;
  const eraseContinues =
    index == 13 || index == 38 || (isEmmc() ? index == 35 || index == 36 : index == 32 || index == 33);
  if (c.eraseStep != 0 && !eraseContinues) {
    c.eraseStep = 0;
    raise(R1_ERASE_RESET);
  }
  let response = RESPONSE_NONE;
  // A locked card knows class 0 and the way to unlock it.
  const isMissing = faultOnCommand(FAULT_ILLEGAL, index) || (c.locked != 0 && index >= 17 && index <= 38);
  if (isMissing || !isLegal(isEmmc(), app, index, c.state)) {
    c.appCommand = 0;
    c.countArmed = 0;
    // SDIO's commands are not for a memory card: no answer, and no complaint either. eMMC in idle likewise.
    const probe = isEmmc()
      ? c.state == STATE_IDLE && (index == 5 || index == 8 || index == 52 || index == 55)
      : index == 5 || index == 52 || index == 53;
    if (!probe) raise(R1_ILLEGAL_COMMAND);
    return response;
  }
  if (!app && namesAnotherCard(index, argument)) return response;
  // App commands answer with APP_CMD still set; a plain command behind CMD55 runs as itself.
  if (index != 55 && !app) c.appCommand = 0;
  const refusal = isRefusable(index) ? faultOnCommandLevel(FAULT_REFUSED, index) : 0;
  if (refusal != 0) response = answerR1(c.state, refusal - 1);
  else response = app ? sdAppCommand(index, argument, timeNs) : plainCommand(index, argument, timeNs);
  const longUs = c.state >= STATE_TRAN ? faultOnCommandLevel(FAULT_LONG_R1B, index) : 0;
  if (longUs != 0 && (isBusy() || c.state == STATE_TRAN)) beginTail(timeNs, <u64>(longUs - 1) * 1000);
  if (index != 55) c.appCommand = 0;
  if (index != 23) c.countArmed = 0;
  // A packed read's header is for the CMD23 and CMD18 behind it. CMD13 may come at any time.
  if (index != 13 && index != 18 && index != 23 && index != 25) c.packed = PACKED_NONE;
  // The bits about the command before are told once or not at all.
  c.status = c.status & ~(response != RESPONSE_NONE ? R1_COM_CRC_ERROR | R1_ILLEGAL_COMMAND : 0);
  if (faultOnCommand(FAULT_NO_RESPONSE, index)) return RESPONSE_NONE;
  return response;
}
