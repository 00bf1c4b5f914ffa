// What the chip does by itself: programming, caching, erasing, switching, sleeping. One thing at a time; DAT0 is
// low until it is over. Its effect on the medium happens at its end, so a cut before finds the old bytes, and
// cutBusy() says what a cut in the middle leaves.

import { NEVER } from "../clock";
import {
  CACHE_SECTORS_MAX,
  CARD_BLOCK,
  CONFIG_CACHED_NS,
  CONFIG_ERASE_NS,
  CONFIG_HPI_NS,
  CONFIG_PROGRAM_NS,
  CUT_NEW,
  CUT_OLD,
  CUT_TORN_HIGH,
  CUT_TORN_LOW,
  EXT_CSD_BASE,
  FAULT_PHANTOM_WRITE,
  FAULT_PROGRAM,
  FAULT_STUCK_BUSY,
  PROGRAM_BLOCK,
  STUCK_UNTIL_HPI,
  TRACE_BUSY_END,
} from "../layout";
import { traceAt } from "../trace";
import {
  cacheForget,
  cacheForgetRange,
  cacheMustEvict,
  cachePut,
  cacheWriteAll,
  cacheWriteOldest,
} from "./cache";
import {
  ERASE_GROUP_SECTORS,
  EXT_CSD_CACHE_CTRL,
  EXT_CSD_CORRECTLY_PRG_SECTORS_NUM,
  extCsd,
} from "./emmc-registers";
import { applySwitch } from "./emmc-switch";
import { faultOnBlock } from "./faults";
import { mediumRead, mediumWrite } from "./medium";
import { eraseUnprotected, programCsd } from "./sd-protect";
import {
  card,
  isEmmc,
  OP_ABORT,
  OP_AWAKE,
  OP_CACHE,
  OP_CONTROL,
  OP_CSD,
  OP_ERASE,
  OP_FAIL,
  OP_FLUSH,
  OP_NONE,
  OP_PROGRAM,
  OP_SLEEP,
  OP_SWITCH,
  R1_ERROR,
  raise,
  STATE_DIS,
  STATE_PRG,
  STATE_STBY,
  STATE_TRAN,
} from "./state";

export function isBusy(): bool {
  return card().op != OP_NONE;
}

function begin(op: u32, startNs: u64, lengthNs: u64): void {
  const c = card();
  c.op = op;
  c.opStuck = 0;
  c.opUntilNs = startNs + lengthNs;
}

export function beginSwitch(index: u32, value: u32, startNs: u64, lengthNs: u64): void {
  begin(OP_SWITCH, startNs, lengthNs);
  card().opSwitchIndex = index;
  card().opSwitchValue = value;
}

export function beginFlush(startNs: u64): void {
  begin(OP_FLUSH, startNs, load<u32>(CONFIG_PROGRAM_NS));
}

export function beginSleep(op: u32, startNs: u64, lengthNs: u64): void {
  begin(op, startNs, lengthNs);
}

/** Erases `first … last` of the selected partition: a time for each erase group that is touched. */
export function beginErase(first: u32, last: u32, startNs: u64): void {
  const groups: u64 = last / ERASE_GROUP_SECTORS - first / ERASE_GROUP_SECTORS + 1;
  begin(OP_ERASE, startNs, groups * load<u32>(CONFIG_ERASE_NS));
  const c = card();
  c.opLba = first;
  c.opLast = last;
  c.opPartition = c.partition;
}

/** SD discard and full user area erase: a note in the card's map, one erase time whatever the range. */
export function beginLogicalErase(first: u32, last: u32, startNs: u64): void {
  beginErase(first, last, startNs);
  card().opUntilNs = startNs + load<u32>(CONFIG_ERASE_NS);
}

/** SD: busy for one program time; at its end nothing (OP_CONTROL) or the CSD (OP_CSD). */
export function beginControl(startNs: u64): void {
  begin(OP_CONTROL, startNs, load<u32>(CONFIG_PROGRAM_NS));
}

export function beginCsd(startNs: u64): void {
  begin(OP_CSD, startNs, load<u32>(CONFIG_PROGRAM_NS));
}

/** True if plain writes go to the write cache. */
export function cacheIsOn(): bool {
  return isEmmc() && extCsd(EXT_CSD_CACHE_CTRL) == 1;
}

/** PROGRAM_BLOCK holds a sector that arrived whole. False: the flash refuses it (CRC status 111). */
export function beginProgram(lba: u32, durable: bool, reliable: bool, startNs: u64): bool {
  const c = card();
  c.opLba = lba;
  c.opPartition = c.partition;
  c.opReliable = reliable ? 1 : 0;
  c.opPhantom = faultOnBlock(FAULT_PHANTOM_WRITE, lba) != 0 ? 1 : 0;
  if (faultOnBlock(FAULT_PROGRAM, lba) != 0) {
    begin(OP_FAIL, startNs, load<u32>(CONFIG_PROGRAM_NS));
    raise(R1_ERROR);
    return false;
  }
  if (cacheIsOn() && !durable) {
    const evictNs: u64 = cacheMustEvict(c.partition, lba) ? load<u32>(CONFIG_PROGRAM_NS) : 0;
    begin(OP_CACHE, startNs, evictNs + load<u32>(CONFIG_CACHED_NS));
  } else {
    begin(OP_PROGRAM, startNs, load<u32>(CONFIG_PROGRAM_NS));
  }
  const stuck = faultOnBlock(FAULT_STUCK_BUSY, lba);
  if (stuck != 0) {
    c.opStuck = stuck;
    c.opUntilNs = NEVER;
  }
  return true;
}

/** Busy is over: prg → tran, dis → stby. Other states had only DAT0 low. */
function settle(): void {
  const c = card();
  c.op = OP_NONE;
  c.opStuck = 0;
  if (c.state == STATE_PRG) c.state = STATE_TRAN;
  else if (c.state == STATE_DIS) c.state = STATE_STBY;
}

function finish(timeNs: u64): void {
  const c = card();
  const op = c.op;
  traceAt(timeNs, TRACE_BUSY_END, op, c.opLba, 0);
  if (op == OP_PROGRAM) {
    if (c.opPhantom == 0 && !mediumWrite(c.opPartition, c.opLba, PROGRAM_BLOCK)) raise(R1_ERROR);
    cacheForget(c.opPartition, c.opLba);
  } else if (op == OP_CACHE) {
    if (cacheMustEvict(c.opPartition, c.opLba) && !cacheWriteOldest()) raise(R1_ERROR);
    if (c.opPhantom == 0) cachePut(c.opPartition, c.opLba, PROGRAM_BLOCK);
  } else if (op == OP_ERASE) {
    if (!eraseUnprotected(c.opPartition, c.opLba, c.opLast - c.opLba + 1)) raise(R1_ERROR);
    cacheForgetRange(c.opPartition, c.opLba, c.opLast);
  } else if (op == OP_FLUSH) {
    if (c.cacheCount > 0 && !cacheWriteOldest()) raise(R1_ERROR);
    if (c.cacheCount > 0) {
      c.opUntilNs = timeNs + load<u32>(CONFIG_PROGRAM_NS);
      return;
    }
  } else if (op == OP_SWITCH) {
    applySwitch(c.opSwitchIndex, c.opSwitchValue);
  } else if (op == OP_CSD) {
    programCsd();
  }
  settle();
}

/** Lets the chip work until `timeNs`. */
export function advanceCard(timeNs: u64): void {
  const c = card();
  for (let i: u32 = 0; i < <u32>CACHE_SECTORS_MAX + 2; i++) {
    if (c.op == OP_NONE || c.opUntilNs > timeNs) return;
    finish(c.opUntilNs);
  }
}

/** HPI (EXT_CSD_HPI_MGMT on, state prg): stops what can be stopped; tran after OUT_OF_INTERRUPT_TIME at most. */
export function interrupt(timeNs: u64, outcome: u32): void {
  const c = card();
  if (c.op == OP_SWITCH || c.op == OP_SLEEP || c.op == OP_AWAKE) return;
  if (c.opStuck != 0 && c.opStuck != 1 + STUCK_UNTIL_HPI) return;
  if (c.op == OP_PROGRAM || c.op == OP_CACHE || c.op == OP_ERASE) cutBusy(outcome);
  // The sector at hand was counted when it arrived; it landed only if the cut lets it.
  const isLost = (c.op == OP_PROGRAM && outcome != CUT_NEW) || c.op == OP_CACHE;
  store<u32>(EXT_CSD_BASE + EXT_CSD_CORRECTLY_PRG_SECTORS_NUM, c.writtenBlocks - (isLost ? 1 : 0));
  begin(OP_ABORT, timeNs, load<u32>(CONFIG_HPI_NS));
}

/** What a cut (power, CMD0, HPI) in the middle of the operation leaves on the medium: CUT_*. */
export function cutBusy(outcome: u32): void {
  const c = card();
  const op = c.op;
  if (op == OP_ERASE) {
    const count = c.opLast - c.opLba + 1;
    const half = outcome == CUT_NEW ? count : outcome == CUT_OLD ? 0 : (count + 1) / 2;
    const first = outcome == CUT_TORN_HIGH ? c.opLba + count - half : c.opLba;
    if (half > 0) {
      eraseUnprotected(c.opPartition, first, half);
      cacheForgetRange(c.opPartition, first, first + half - 1);
    }
  } else if (op == OP_PROGRAM && c.opPhantom == 0) {
    let kept = outcome;
    // A reliable write is old or new, never both (mmc.md §2.4).
    if (c.opReliable != 0 && kept != CUT_NEW) kept = CUT_OLD;
    if (kept == CUT_OLD) return;
    if (kept != CUT_NEW) {
      mediumRead(c.opPartition, c.opLba, CARD_BLOCK);
      const half: i32 = kept == CUT_TORN_LOW ? 256 : 0;
      memory.copy(PROGRAM_BLOCK + half, CARD_BLOCK + half, 256);
    }
    mediumWrite(c.opPartition, c.opLba, PROGRAM_BLOCK);
    cacheForget(c.opPartition, c.opLba);
  }
}

/** Everything the chip was doing is over and gone: power-up and CMD0. */
export function dropBusy(outcome: u32, cacheMask: u32): void {
  cutBusy(outcome);
  cacheWriteAll(cacheMask);
  card().op = OP_NONE;
  card().opStuck = 0;
}
