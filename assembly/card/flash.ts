// The flash under the card's logic: stored bytes (medium.ts) with what real flash adds to them. Sectors that ECC cannot
// correct until they are written again; the last writes, which a power cut may still take back; and what a cut leaves
// of a sector in programming (mmc.md §2.4, §1.10; FAULTS.md has the outcomes).
//
// Not modelled: wear, pages larger than a sector. The table of unreadable sectors is finite: what does not fit
// is filled with noise instead. Undo reaches UNDO_MAX writes back.

import { nowNs } from "../clock";
import {
  CARD_BLOCK,
  CONFIG_NEIGHBOUR_SECTORS,
  CONFIG_ROLLBACK_SECTORS,
  CONFIG_SEED,
  CONFIG_SETTLE_NS,
  CONFIG_UNIT_SECTORS,
  CUT_INTERLEAVED,
  CUT_NEW,
  CUT_NOISE,
  CUT_OLD,
  CUT_ONES,
  CUT_ROLLBACK,
  CUT_TORN_HIGH,
  CUT_TORN_LOW,
  CUT_UNREADABLE,
  CUT_ZERO,
  DAMAGE_BASE,
  MEDIUM_STORES,
  NEIGHBOURS_MAX,
  SECTOR_BYTES,
  UNDO_DATA,
  UNDO_HEAD_BYTES,
  UNDO_HEADS,
  UNDO_MAX,
  UNREADABLE_MAX,
  UNREADABLE_TABLE,
} from "../layout";
import { mediumErase, mediumRead, mediumSectors, mediumWrite } from "./medium";
import { card } from "./state";

// @ts-expect-error: decorator
@unmanaged
export class Damage {
  programCount: u32; // sectors programmed since the card was made
  unreadable: u32; // entries of UNREADABLE_TABLE
  undoCount: u32; // writes noted since power-up; the newest is undoCount - 1
  writeProtected: u32; // the slide on an SD card's edge
}

/** One write that can be taken back. */
// @ts-expect-error: decorator
@unmanaged
class Undo {
  timeNs: u64; // when its busy ended
  lba: u32;
  partition: u32;
  live: u32; // 0: nothing can take it back any more
}

export function damage(): Damage {
  return changetype<Damage>(DAMAGE_BASE);
}

/** A card fresh from the factory. */
export function makeFlash(): void {
  memory.fill(DAMAGE_BASE, 0, offsetof<Damage>());
}

/** Power-up: what was written before is settled. */
export function settleFlash(): void {
  damage().undoCount = 0;
}

// ---- unreadable sectors ----

/** Index in the table, or -1. */
function findUnreadable(partition: u32, lba: u32): i32 {
  const count = damage().unreadable;
  for (let i: u32 = 0; i < count && i < <u32>UNREADABLE_MAX; i++) {
    const entry: usize = UNREADABLE_TABLE + (i << 3);
    if (load<u32>(entry) == lba && load<u32>(entry, 4) == partition) return i;
  }
  return -1;
}

function dropUnreadable(index: u32): void {
  const d = damage();
  d.unreadable -= 1;
  store<u64>(UNREADABLE_TABLE + (index << 3), load<u64>(UNREADABLE_TABLE + (d.unreadable << 3)));
}

/** Sectors that were written or erased can be read again. */
function heal(partition: u32, first: u32, last: u32): void {
  const count = damage().unreadable;
  for (let i: u32 = 0; i < count && i < <u32>UNREADABLE_MAX; i++) {
    // From the end, because the last entry takes a dropped one's place.
    const index = count - 1 - i;
    const entry: usize = UNREADABLE_TABLE + (index << 3);
    const lba = load<u32>(entry);
    if (lba >= first && lba <= last && load<u32>(entry, 4) == partition) dropUnreadable(index);
  }
}

/** From now on the sector cannot be read until it is written. */
export function spoilSector(partition: u32, lba: u32): void {
  const d = damage();
  if (findUnreadable(partition, lba) >= 0) return;
  if (d.unreadable >= <u32>UNREADABLE_MAX) {
    makeNoise(lba);
    mediumWrite(partition, lba, CARD_BLOCK);
    return;
  }
  const entry: usize = UNREADABLE_TABLE + (d.unreadable << 3);
  store<u32>(entry, lba);
  store<u32>(entry, partition, 4);
  d.unreadable += 1;
  // Equal counts mean equal media, and this one has changed.
  store<u64>(MEDIUM_STORES, load<u64>(MEDIUM_STORES) + 1);
}

// ---- reading, writing, erasing ----

export function flashRead(partition: u32, lba: u32, ptr: usize): bool {
  if (findUnreadable(partition, lba) >= 0) return false;
  return mediumRead(partition, lba, ptr);
}

/** `isFinal`: a reliable write, which nothing takes back once its busy is over. */
export function flashWrite(partition: u32, lba: u32, ptr: usize, isFinal: bool): bool {
  if (isFinal) forgetUndo(partition, lba, lba);
  else noteUndo(partition, lba);
  heal(partition, lba, lba);
  return mediumWrite(partition, lba, ptr);
}

export function flashErase(partition: u32, first: u32, sectors: u32): bool {
  forgetUndo(partition, first, first + sectors - 1);
  heal(partition, first, first + sectors - 1);
  return mediumErase(partition, first, sectors);
}

// ---- what can still be taken back ----

function undoEntry(number: u32): Undo {
  return changetype<Undo>(UNDO_HEADS + (number % UNDO_MAX) * UNDO_HEAD_BYTES);
}

function undoBlock(number: u32): usize {
  return UNDO_DATA + (number % UNDO_MAX) * SECTOR_BYTES;
}

function noteUndo(partition: u32, lba: u32): void {
  if (load<u32>(CONFIG_SETTLE_NS) == 0 && load<u32>(CONFIG_ROLLBACK_SECTORS) == 0) return;
  const d = damage();
  const entry = undoEntry(d.undoCount);
  entry.timeNs = card().workNs;
  entry.lba = lba;
  entry.partition = partition;
  entry.live = 1;
  mediumRead(partition, lba, undoBlock(d.undoCount));
  d.undoCount += 1;
}

/** What is there now stays: no older content of these sectors may come back over it. */
function forgetUndo(partition: u32, first: u32, last: u32): void {
  for (let i: u32 = 0; i < <u32>UNDO_MAX; i++) {
    const entry = undoEntry(i);
    if (entry.partition == partition && entry.lba >= first && entry.lba <= last) entry.live = 0;
  }
}

/**
 * The supply goes: sectors whose busy is over but that the chip had not stored yet. Bit i of `mask` keeps
 * the i-th oldest of them, the others end as `outcome`.
 */
export function cutUnsettled(outcome: u32, mask: u64): void {
  const d = damage();
  const settleNs: u64 = load<u32>(CONFIG_SETTLE_NS);
  const now = nowNs();
  if (settleNs == 0 || outcome == CUT_NEW) return;
  const count: u32 = d.undoCount < <u32>UNDO_MAX ? d.undoCount : UNDO_MAX;
  let unsettled: u32 = 0;
  for (let i: u32 = 0; i < count && i < <u32>UNDO_MAX; i++) {
    const entry = undoEntry(d.undoCount - 1 - i);
    if (entry.live != 0 && now - entry.timeNs < settleNs) unsettled += 1;
  }
  // From the newest back, so that a sector written twice ends with its oldest content.
  for (let i: u32 = 0; i < count && i < <u32>UNDO_MAX; i++) {
    const number = d.undoCount - 1 - i;
    const entry = undoEntry(number);
    if (entry.live == 0 || now - entry.timeNs >= settleNs) continue;
    unsettled -= 1;
    entry.live = 0;
    if (((mask >>> unsettled) & 1) != 0) {
      forgetUndo(entry.partition, entry.lba, entry.lba);
      continue;
    }
    const changed = makeOutcome(entry.partition, entry.lba, 0, undoBlock(number), outcome);
    if (changed) mediumWrite(entry.partition, entry.lba, CARD_BLOCK);
  }
}

/** The erase block around `lba` as it was before its last writes. */
function rollBack(partition: u32, lba: u32): void {
  const d = damage();
  const unit = load<u32>(CONFIG_ROLLBACK_SECTORS);
  if (unit == 0) return;
  const count: u32 = d.undoCount < <u32>UNDO_MAX ? d.undoCount : UNDO_MAX;
  for (let i: u32 = 0; i < count && i < <u32>UNDO_MAX; i++) {
    const number = d.undoCount - 1 - i;
    const entry = undoEntry(number);
    if (entry.live == 0 || entry.partition != partition || entry.lba / unit != lba / unit) continue;
    entry.live = 0;
    heal(partition, entry.lba, entry.lba);
    mediumWrite(partition, entry.lba, undoBlock(number));
  }
}

// ---- what a cut leaves ----

/** Bytes that were never there: the same for the same seed, sector and history. */
function makeNoise(lba: u32): void {
  let word: u32 = (load<u32>(CONFIG_SEED) ^ (lba * 0x9e3779b9) ^ (damage().programCount * 0x85ebca6b)) | 1;
  for (let i: u32 = 0; i < 512; i += 4) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    store<u32>(CARD_BLOCK + i, word);
  }
}

/** True if the word at `offset` of a sector that was cut has its old bytes. */
function keepsOld(outcome: u32, offset: u32): bool {
  if (outcome == CUT_TORN_LOW) return offset >= 256;
  if (outcome == CUT_TORN_HIGH) return offset < 256;
  if (outcome == CUT_INTERLEAVED) return (offset & 4) != 0;
  return outcome != CUT_NEW;
}

/**
 * CARD_BLOCK becomes what a cut leaves of a sector. One of `fresh` and `before` is given, the bytes that the medium
 * does not have; neither where there is nothing to mix. False: there is nothing to store.
 */
function makeOutcome(partition: u32, lba: u32, fresh: usize, before: usize, outcome: u32): bool {
  if (outcome == CUT_UNREADABLE) {
    spoilSector(partition, lba);
    return false;
  }
  if (outcome == CUT_ZERO || outcome == CUT_ONES) {
    memory.fill(CARD_BLOCK, outcome == CUT_ZERO ? 0 : 0xff, SECTOR_BYTES);
    return true;
  }
  if (outcome == CUT_NOISE) {
    makeNoise(lba);
    return true;
  }
  mediumRead(partition, lba, CARD_BLOCK);
  for (let i: u32 = 0; i < 512; i += 4) {
    const isOld = keepsOld(outcome, i);
    if (fresh != 0 && !isOld) store<u32>(CARD_BLOCK + i, load<u32>(fresh + i));
    if (before != 0 && isOld) store<u32>(CARD_BLOCK + i, load<u32>(before + i));
  }
  return true;
}

/** A sector that was being programmed with `fresh` when the work was cut: CUT_*. */
export function cutSector(partition: u32, lba: u32, fresh: usize, outcome: u32): void {
  if (outcome == CUT_OLD) return;
  if (outcome == CUT_ROLLBACK) {
    rollBack(partition, lba);
    return;
  }
  forgetUndo(partition, lba, lba);
  if (makeOutcome(partition, lba, fresh, 0, outcome)) {
    heal(partition, lba, lba);
    mediumWrite(partition, lba, CARD_BLOCK);
  }
  if (outcome != CUT_NEW) cutNeighbours(partition, lba, outcome);
}

/** Erase stopped at this sector: what is half erased is neither. */
export function cutErased(partition: u32, lba: u32, outcome: u32): void {
  forgetUndo(partition, lba, lba);
  if (outcome != CUT_ONES && outcome != CUT_NOISE && outcome != CUT_UNREADABLE) return;
  if (makeOutcome(partition, lba, 0, 0, outcome)) mediumWrite(partition, lba, CARD_BLOCK);
}

/** SD cards rewrite whole pages: what lay beside the sector goes with it (mmc.md §2.4, last row). */
function cutNeighbours(partition: u32, lba: u32, outcome: u32): void {
  const reach = load<u32>(CONFIG_NEIGHBOUR_SECTORS);
  const unit = load<u32>(CONFIG_UNIT_SECTORS);
  const sectors = mediumSectors(partition);
  let first = lba > reach ? lba - reach : 0;
  let last = lba + reach < sectors ? lba + reach : sectors - 1;
  if (unit != 0) {
    const unitFirst = lba - (lba % unit);
    if (first < unitFirst) first = unitFirst;
    if (last > unitFirst + unit - 1) last = unitFirst + unit - 1;
  }
  // Only the sector that was written had new bytes to mix with the old ones.
  const isMixed = outcome == CUT_TORN_LOW || outcome == CUT_TORN_HIGH || outcome == CUT_INTERLEAVED;
  const left: u32 = isMixed ? CUT_NOISE : outcome;
  const count = last - first + 1;
  for (let i: u32 = 0; i < count && i < <u32>(2 * NEIGHBOURS_MAX + 1); i++) {
    const at = first + i;
    if (at != lba && makeOutcome(partition, at, 0, 0, left)) mediumWrite(partition, at, CARD_BLOCK);
  }
}
