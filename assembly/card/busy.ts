// What the chip does by itself: programming, caching, erasing, switching, sleeping. One thing at a time; DAT0 is
// low until it is over. Its effect on the medium happens at its end, so a cut before finds the old bytes, and
// cutBusy() says what a cut in the middle leaves.

import { afterNs, laterNs, NEVER } from "../clock";
import {
  CACHE_LBAS,
  CACHE_PARTITIONS,
  CACHE_SECTORS_MAX,
  CONFIG_BKOPS_NS,
  CONFIG_BUSY_MAX_NS,
  CONFIG_CACHED_NS,
  CONFIG_ERASE_CALL_NS,
  CONFIG_FINAL_NS,
  CONFIG_HPI_NS,
  CONFIG_PROGRAM_NS,
  CONFIG_SEED,
  CONFIG_STALL_EVERY,
  CONFIG_STALL_NS,
  CUT_NEW,
  CUT_OLD,
  CUT_ROLLBACK,
  CUT_TORN_HIGH,
  EXT_CSD_BASE,
  FAULT_CC_ERROR,
  FAULT_LATE_BUSY,
  FAULT_LONG_BUSY,
  FAULT_MISDIRECTED_WRITE,
  FAULT_PHANTOM_WRITE,
  FAULT_PROGRAM,
  FAULT_STUCK_BUSY,
  PROGRAM_BLOCK,
  STUCK_UNTIL_HPI,
  TRACE_BUSY_END,
  TRACE_BUSY_START,
  TRACE_STATE,
} from "../layout";
import { traceAt, traceLevel } from "../trace";
import { cacheBlock, cacheForget, cacheMustEvict, cachePut, cacheWriteAll, cacheWriteOldest } from "./cache";
import {
  bkopsLevel,
  ERASE_GROUP_SECTORS,
  EXT_CSD_BKOPS_START,
  EXT_CSD_CACHE_CTRL,
  EXT_CSD_CORRECTLY_PRG_SECTORS_NUM,
  extCsd,
} from "./emmc-registers";
import { applySwitch } from "./emmc-switch";
import { faultOnBlock } from "./faults";
import { cutErased, cutSector, damage, flashWrite } from "./flash";
import { mediumSectors } from "./medium";
import { failPacked, PACKED_RUNS } from "./packed";
import { eraseUnprotectedGroups, programSdCsd } from "./sd-protect";
import {
  card,
  isEmmc,
  OP_ABORT,
  OP_AWAKE,
  OP_BACKGROUND,
  OP_CACHE,
  OP_CONTROL,
  OP_CSD,
  OP_ERASE,
  OP_FAIL,
  OP_FLUSH,
  OP_NONE,
  OP_PROGRAM,
  OP_REGISTER,
  OP_SLEEP,
  OP_SWITCH,
  OP_TAIL,
  R1_CC_ERROR,
  R1_ERROR,
  raise,
  STATE_DIS,
  STATE_PRG,
  STATE_STBY,
  STATE_TRAN,
} from "./state";
import { eraseUnprotected } from "./write-protect";

export function isBusy(): bool {
  return card().op != OP_NONE;
}

function begin(op: u32, startNs: u64, lengthNs: u64): void {
  const c = card();
  c.op = op;
  c.opStuck = 0;
  c.opHiddenUntilNs = 0;
  c.opRefused = 0;
  c.opUntilNs = startNs + lengthNs;
  // A sector's busy is told behind its block.
  if (op != OP_PROGRAM && op != OP_CACHE && op != OP_FAIL) traceBusy(startNs);
}

/** DAT0 has gone low, or is low for another reason than before. */
export function traceBusy(timeNs: u64): void {
  traceAt(timeNs, TRACE_BUSY_START, card().op, card().opLba, 0);
}

/** One more sector goes to the flash: its time, and now and then a stall (garbage collection, wear levelling). */
function programNs(): u64 {
  const d = damage();
  const lengthNs: u64 = load<u32>(CONFIG_PROGRAM_NS);
  const every = load<u32>(CONFIG_STALL_EVERY);
  d.programCount += 1;
  if (every == 0 || (d.programCount + load<u32>(CONFIG_SEED)) % every != 0) return lengthNs;
  const mostNs: u64 = load<u32>(CONFIG_BUSY_MAX_NS);
  const stalledNs = lengthNs + load<u32>(CONFIG_STALL_NS);
  return stalledNs < mostNs ? stalledNs : laterNs(lengthNs, mostNs);
}

/** Busy without an effect of its own: what was announced as done is stored, or firmware thinks. */
export function beginTail(startNs: u64, lengthNs: u64): void {
  const c = card();
  if (c.op != OP_NONE) {
    c.opUntilNs = afterNs(c.opUntilNs, lengthNs);
    return;
  }
  begin(OP_TAIL, startNs, lengthNs);
  if (c.state == STATE_TRAN) c.state = STATE_PRG;
}

export function beginSwitch(index: u32, value: u32, startNs: u64, lengthNs: u64): void {
  begin(OP_SWITCH, startNs, lengthNs);
  card().opSwitchIndex = index;
  card().opSwitchValue = value;
}

/** CMD26 to 29: their effect is there at once, only the time is left. */
export function beginRegister(startNs: u64, lengthNs: u64): void {
  begin(OP_REGISTER, startNs, lengthNs);
}

/** BKOPS_START: a time for each level of BKOPS_STATUS. SANITIZE_START: one; what was erased is gone already. */
export function beginBackground(index: u32, startNs: u64): void {
  const levels: u32 = index == EXT_CSD_BKOPS_START ? bkopsLevel() : 1;
  begin(OP_BACKGROUND, startNs, <u64>levels * load<u32>(CONFIG_BKOPS_NS));
  card().opSwitchIndex = index;
}

export function beginFlush(startNs: u64): void {
  begin(OP_FLUSH, startNs, card().cacheCount > 0 ? programNs() : load<u32>(CONFIG_PROGRAM_NS));
}

export function beginSleep(op: u32, startNs: u64, lengthNs: u64): void {
  begin(op, startNs, lengthNs);
}

/** Erases `first … last` of the selected partition: `groupNs` for each erase group that is touched, or `once`. */
export function beginErase(first: u32, last: u32, startNs: u64, groupNs: u32, once: bool): void {
  const groups: u64 = once ? 1 : last / ERASE_GROUP_SECTORS - first / ERASE_GROUP_SECTORS + 1;
  const c = card();
  c.opLba = first;
  c.opLast = last;
  c.opPartition = c.partition;
  begin(OP_ERASE, startNs, load<u32>(CONFIG_ERASE_CALL_NS) + groups * groupNs);
}

/** What is not protected of `first … first + count - 1` is erased. False: the medium refused. */
function eraseRange(partition: u32, first: u32, count: u32): bool {
  return isEmmc() ? eraseUnprotected(partition, first, count) : eraseUnprotectedGroups(first, count);
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

/**
 * PROGRAM_BLOCK holds a sector that arrived whole; `isFinal`: the transfer's last, if the card knows. False: the
 * flash refuses it (CRC status 111).
 */
export function beginProgram(lba: u32, durable: bool, reliable: bool, isFinal: bool, startNs: u64): bool {
  const c = card();
  c.opLba = lba;
  c.opPartition = c.partition;
  c.opReliable = reliable ? 1 : 0;
  c.opEntry = c.packed == PACKED_RUNS ? c.packedEntry : 0;
  c.opPhantom = faultOnBlock(FAULT_PHANTOM_WRITE, lba) != 0 ? 1 : 0;
  const misdirected = faultOnBlock(FAULT_MISDIRECTED_WRITE, lba);
  if (misdirected != 0 && misdirected - 1 < mediumSectors(c.partition)) c.opLba = misdirected - 1;
  if (faultOnBlock(FAULT_PROGRAM, lba) != 0) {
    begin(OP_FAIL, startNs, load<u32>(CONFIG_PROGRAM_NS));
    raise(R1_ERROR);
    return false;
  }
  const finalNs: u64 = isFinal ? load<u32>(CONFIG_FINAL_NS) : 0;
  if (cacheIsOn() && !durable) {
    const evictNs: u64 = cacheMustEvict(c.partition, c.opLba) ? programNs() : 0;
    begin(OP_CACHE, startNs, evictNs + load<u32>(CONFIG_CACHED_NS) + finalNs);
  } else {
    begin(OP_PROGRAM, startNs, programNs() + finalNs);
  }
  if (faultOnBlock(FAULT_CC_ERROR, lba) != 0) c.opRefused = 1;
  const longUs = faultOnBlock(FAULT_LONG_BUSY, lba);
  if (longUs != 0) c.opUntilNs += <u64>(longUs - 1) * 1000;
  const lateUs = faultOnBlock(FAULT_LATE_BUSY, lba);
  if (lateUs != 0) c.opHiddenUntilNs = startNs + <u64>(lateUs - 1) * 1000;
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
  c.opHiddenUntilNs = 0;
  if (c.state == STATE_PRG) c.state = STATE_TRAN;
  else if (c.state == STATE_DIS) c.state = STATE_STBY;
}

/** The sector that was acknowledged is not stored after all. */
function failSector(bits: u32): void {
  raise(bits);
  if (card().opEntry != 0) failPacked(card().opEntry);
}

function finish(timeNs: u64): void {
  const c = card();
  const op = c.op;
  c.workNs = timeNs;
  if (c.opRefused != 0) {
    failSector(R1_CC_ERROR);
  } else if (op == OP_PROGRAM) {
    const stored = c.opPhantom != 0 || flashWrite(c.opPartition, c.opLba, PROGRAM_BLOCK, c.opReliable != 0);
    if (!stored) failSector(R1_ERROR);
    c.unkemptSectors += 1;
    cacheForget(c.opPartition, c.opLba);
  } else if (op == OP_CACHE) {
    if (cacheMustEvict(c.opPartition, c.opLba) && !cacheWriteOldest(false)) failSector(R1_ERROR);
    if (c.opPhantom == 0) cachePut(c.opPartition, c.opLba, PROGRAM_BLOCK);
  } else if (op == OP_ERASE) {
    if (!eraseRange(c.opPartition, c.opLba, c.opLast - c.opLba + 1)) raise(R1_ERROR);
  } else if (op == OP_FLUSH) {
    if (c.cacheCount > 0 && !cacheWriteOldest(false)) raise(R1_ERROR);
    if (c.cacheCount > 0) {
      c.opUntilNs = timeNs + programNs();
      return;
    }
  } else if (op == OP_SWITCH) {
    applySwitch(c.opSwitchIndex, c.opSwitchValue);
  } else if (op == OP_BACKGROUND && c.opSwitchIndex == EXT_CSD_BKOPS_START) {
    c.unkemptSectors = 0;
  } else if (op == OP_CSD) {
    programSdCsd();
  }
  traceAt(timeNs, TRACE_BUSY_END, op, c.opLba, 0);
  settle();
  traceLevel(timeNs, TRACE_STATE, c.state);
}

/** Lets the chip work until `timeNs`. True: it has done something. */
export function advanceCard(timeNs: u64): bool {
  const c = card();
  let worked = false;
  for (let i: u32 = 0; i < <u32>CACHE_SECTORS_MAX + 2; i++) {
    if (c.op == OP_NONE || c.opUntilNs > timeNs) break;
    finish(c.opUntilNs);
    worked = true;
  }
  return worked;
}

/** HPI (EXT_CSD_HPI_MGMT on, state prg): stops what can be stopped; tran after OUT_OF_INTERRUPT_TIME at most. */
export function interrupt(timeNs: u64, outcome: u32): void {
  const c = card();
  if (c.op == OP_SWITCH || c.op == OP_REGISTER || c.op == OP_SLEEP || c.op == OP_AWAKE) return;
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
    const none = outcome == CUT_OLD || outcome == CUT_ROLLBACK;
    const half = outcome == CUT_NEW ? count : none ? 0 : (count + 1) / 2;
    const first = outcome == CUT_TORN_HIGH ? c.opLba + count - half : c.opLba;
    if (half > 0) {
      eraseRange(c.opPartition, first, half);
      cutErased(c.opPartition, first + half - 1, outcome);
    }
  } else if (op == OP_PROGRAM && c.opPhantom == 0 && c.opRefused == 0) {
    // A reliable write is old or new, never both, and takes nothing with it (mmc.md §2.4).
    const kept: u32 = c.opReliable != 0 && outcome != CUT_NEW ? CUT_OLD : outcome;
    if (kept == CUT_OLD) return;
    cutSector(c.opPartition, c.opLba, PROGRAM_BLOCK, kept);
    // The older copy in the cache is what a sector that kept its old bytes would still become.
    if (kept != CUT_ROLLBACK) cacheForget(c.opPartition, c.opLba);
  }
}

/**
 * A flush or an eviction was storing the cache's oldest sector: unless `cacheMask` keeps it, it ends like any sector in
 * programming. Its old bytes are what losing the cache leaves anyway.
 */
function cutOldestCached(outcome: u32, cacheMask: u64): void {
  const c = card();
  const storing = c.op == OP_FLUSH || (c.op == OP_CACHE && cacheMustEvict(c.opPartition, c.opLba));
  if (!storing || c.cacheCount == 0 || (cacheMask & 1) != 0 || outcome == CUT_OLD || outcome == CUT_NEW)
    return;
  cutSector(load<u32>(CACHE_PARTITIONS), load<u32>(CACHE_LBAS), cacheBlock(0), outcome);
}

/** Everything the chip was doing is over and gone: power-up and CMD0. */
export function dropBusy(outcome: u32, cacheMask: u64, timeNs: u64): void {
  if (isBusy()) traceAt(timeNs, TRACE_BUSY_END, card().op, card().opLba, 1);
  cutBusy(outcome);
  cutOldestCached(outcome, cacheMask);
  cacheWriteAll(cacheMask);
  card().op = OP_NONE;
  card().opStuck = 0;
  card().opHiddenUntilNs = 0;
}
