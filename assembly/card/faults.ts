// The fault plan: what the card or the bus does wrong, by name and by count, never by chance. docs/FAULTS.md
// says which real thing each kind imitates.
import {
  FAULT_ANY,
  FAULT_BYTES,
  FAULT_COMMAND,
  FAULT_FIRST_LBA,
  FAULT_KIND,
  FAULT_LAST_LBA,
  FAULT_LEVEL,
  FAULT_SEEN,
  FAULT_SKIP,
  FAULT_TIMES,
  FAULTS_BASE,
  FAULTS_COUNT,
  FAULTS_MAX,
} from "../layout";

/** Counts a match of the entry and says whether it strikes. */
function strikes(entry: usize): bool {
  const seen = load<u32>(entry, FAULT_SEEN);
  const skip = load<u32>(entry, FAULT_SKIP);
  const times = load<u32>(entry, FAULT_TIMES);
  store<u32>(entry, seen + 1, FAULT_SEEN);
  return seen >= skip && (times == FAULT_ANY || seen - skip < times);
}

/** 0, or 1 + the level of a fault of `kind` that strikes the command `index` now. */
export function faultOnCommandLevel(kind: u32, index: u32): u32 {
  const count = load<u32>(FAULTS_COUNT);
  let level: u32 = 0;
  for (let i: u32 = 0; i < count && i < <u32>FAULTS_MAX; i++) {
    const entry: usize = FAULTS_BASE + i * FAULT_BYTES;
    if (load<u32>(entry, FAULT_KIND) != kind) continue;
    const command = load<u32>(entry, FAULT_COMMAND);
    if (command != FAULT_ANY && command != index) continue;
    if (strikes(entry)) level = 1 + load<u32>(entry, FAULT_LEVEL);
  }
  return level;
}

/** True if a fault of `kind` strikes the command `index` now. */
export function faultOnCommand(kind: u32, index: u32): bool {
  return faultOnCommandLevel(kind, index) != 0;
}

/** 0, or 1 + the level of a fault of `kind` that strikes the block at `lba` now. Small, for a block asks nine times. */
export function faultOnBlock(kind: u32, lba: u32): u32 {
  const count = load<u32>(FAULTS_COUNT);
  return count == 0 ? 0 : faultInPlan(count, kind, lba);
}

function faultInPlan(count: u32, kind: u32, lba: u32): u32 {
  let level: u32 = 0;
  for (let i: u32 = 0; i < count && i < <u32>FAULTS_MAX; i++) {
    const entry: usize = FAULTS_BASE + i * FAULT_BYTES;
    if (load<u32>(entry, FAULT_KIND) != kind) continue;
    if (lba < load<u32>(entry, FAULT_FIRST_LBA) || lba > load<u32>(entry, FAULT_LAST_LBA)) continue;
    if (strikes(entry)) level = 1 + load<u32>(entry, FAULT_LEVEL);
  }
  return level;
}
