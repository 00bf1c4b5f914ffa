// Blocks in and out of the card: where a read comes from, where a write goes, when it ends, and what a bad
// block does to the rest (mmc.md §2.1, §2.5).

import { NEVER } from "../clock";
import {
  CARD_BLOCK,
  CONFIG_CACHED_NS,
  CONFIG_NEXT_READ_NS,
  CONFIG_PROGRAM_NS,
  CONFIG_READ_NS,
  FAULT_BAD_AFTER_STOP,
  FAULT_BIT_ROT,
  FAULT_DESELECT_BUSY,
  FAULT_LATENT_READ,
  FAULT_READ_CRC,
  FAULT_READ_ECC,
  FAULT_READ_SILENT,
  FAULT_SLOW_READ,
  PROGRAM_BLOCK,
  SECTOR_BYTES,
  TRACE_BLOCK_READ,
  TRACE_BLOCK_WRITE,
} from "../layout";
import { traceAt } from "../trace";
import { beginCsd, beginProgram, beginRegister, isBusy, traceBusy } from "./busy";
import { cacheBlock, cacheFind } from "./cache";
import { programCsd } from "./emmc-csd";
import { faultOnBlock } from "./faults";
import { flashRead, spoilSector } from "./flash";
import { mediumSectors } from "./medium";
import {
  COUNT_PACKED,
  failPacked,
  failPackedEntry,
  PACKED_NONE,
  PACKED_READ_KNOWN,
  runPackedRead,
  stepPacked,
  takeCountFlags,
  takePackedHeader,
} from "./packed";
import { isWriteProtected } from "./sd-protect";
import { applyFunctions } from "./sd-switch";
import {
  card,
  isEmmc,
  OPEN_ENDED,
  R1_CARD_ECC_FAILED,
  R1_CID_CSD_OVERWRITE,
  R1_OUT_OF_RANGE,
  R1_WP_VIOLATION,
  raise,
  SOURCE_CSD,
  SOURCE_MEDIUM,
  SOURCE_PACKED,
  SOURCE_REGISTER,
  STATE_DATA,
  STATE_DIS,
  STATE_PRG,
  STATE_RCV,
  STATE_TRAN,
} from "./state";
import { isProtected } from "./write-protect";

export const BLOCK_NONE: u32 = 0;
export const BLOCK_GOOD: u32 = 1;
export const BLOCK_BAD_CRC: u32 = 2;
/** In the trace: a block that is no sector. */
const NO_LBA: u32 = 0xffffffff;
export const CRC_STATUS_NONE: u32 = 0;
export const CRC_STATUS_GOOD: u32 = 2;
export const CRC_STATUS_BAD: u32 = 5;
export const CRC_STATUS_FLASH_ERROR: u32 = 7;

/** Register contents in CARD_BLOCK go out as one block. */
export function sendRegister(bytes: u32, timeNs: u64): void {
  const c = card();
  c.state = STATE_DATA;
  c.transferSource = SOURCE_REGISTER;
  c.functionsToCome = 0;
  c.transferMultiple = 0;
  c.transferIgnored = 0;
  c.transferLeft = 1;
  c.transferBlockBytes = bytes;
  c.blockDueNs = timeNs;
}

/** CMD26, CMD27: one block of a register comes in. */
export function receiveRegister(source: u32, bytes: u32): void {
  const c = card();
  c.state = STATE_RCV;
  c.transferSource = source;
  c.transferMultiple = 0;
  c.transferIgnored = 0;
  c.transferLeft = 1;
  c.transferBlockBytes = bytes;
}

/** CMD17, 18, 24, 25 at a sector of the selected partition that is there. */
export function startTransfer(isWrite: bool, multiple: bool, lba: u32, timeNs: u64): void {
  const c = card();
  c.transferSource = SOURCE_MEDIUM;
  c.transferLba = lba;
  c.transferBlockBytes = SECTOR_BYTES;
  c.transferMultiple = multiple ? 1 : 0;
  c.transferIgnored = 0;
  c.transferLeft = multiple ? OPEN_ENDED : 1;
  c.transferDurable = 0;
  c.transferReliable = 0;
  const isKnown = c.packed == PACKED_READ_KNOWN;
  c.packed = PACKED_NONE;
  if (multiple && c.countArmed != 0) {
    // eMMC: 16 bits of count, flags above them; SD: 32 bits of count.
    const count = isEmmc() ? c.countArgument & 0xffff : c.countArgument;
    c.transferLeft = count == 0 ? OPEN_ENDED : count;
    const isPacked = isEmmc() && (c.countArgument & COUNT_PACKED) != 0;
    if (isPacked && isWrite) c.transferSource = SOURCE_PACKED;
    else if (isPacked && isKnown) runPackedRead();
    else if (isEmmc()) takeCountFlags(c.countArgument);
  }
  c.state = isWrite ? STATE_RCV : STATE_DATA;
  c.blockDueNs = timeNs + load<u32>(CONFIG_READ_NS);
  if (isWrite) {
    c.writtenBlocks = 0;
    c.afterStop = 0;
  } else {
    delayBlock();
  }
}

/** The block that comes next is found late: N_AC beyond what the host waits for. */
function delayBlock(): void {
  const c = card();
  const slowUs = faultOnBlock(FAULT_SLOW_READ, c.transferLba);
  if (slowUs != 0) c.blockDueNs += <u64>(slowUs - 1) * 1000;
}

/** Bytes that are wrong although their CRC is right: they were so when the card computed it. */
function rot(ptr: usize, lba: u32): void {
  const at: usize = ptr + (lba & 511);
  store<u8>(at, load<u8>(at) ^ 0x10);
}

/** When the next block of a read can start on the wire; NEVER if none comes. */
export function blockDueNs(): u64 {
  const c = card();
  return c.state == STATE_DATA && c.transferIgnored == 0 ? c.blockDueNs : NEVER;
}

/** Length of the blocks that the card sends now. */
export function blockBytesOnWire(): u32 {
  return card().transferBlockBytes;
}

/** True if the card sends a counted transfer by itself, whether the host listens or not. */
export function sendsCounted(): bool {
  const c = card();
  const counted = c.transferLeft != OPEN_ENDED && c.transferIgnored == 0;
  return c.state == STATE_DATA && counted && c.spi == 0;
}

/** A read that fails in the middle: nothing more comes; a multiple waits for CMD12. */
function breakRead(bits: u32): void {
  const c = card();
  raise(bits);
  failPackedEntry();
  c.transferIgnored = 1;
  if (c.transferMultiple == 0) c.state = STATE_TRAN;
}

/** The next block of a read to `ptr`, which has room for SECTOR_BYTES. */
export function sendBlock(ptr: usize, timeNs: u64): u32 {
  const c = card();
  if (c.state != STATE_DATA || c.transferIgnored != 0) return BLOCK_NONE;
  const lba = c.transferLba;
  let good = true;
  if (c.transferSource == SOURCE_MEDIUM) {
    if (lba >= mediumSectors(c.partition)) {
      breakRead(R1_OUT_OF_RANGE);
      return BLOCK_NONE;
    }
    if (faultOnBlock(FAULT_READ_SILENT, lba) != 0) {
      breakRead(0);
      return BLOCK_NONE;
    }
    const cached = cacheFind(c.partition, lba);
    if (cached < 0 && faultOnBlock(FAULT_LATENT_READ, lba) != 0) spoilSector(c.partition, lba);
    let readable = faultOnBlock(FAULT_READ_ECC, lba) == 0;
    if (cached >= 0) memory.copy(ptr, cacheBlock(cached), SECTOR_BYTES);
    else if (readable) readable = flashRead(c.partition, lba, ptr);
    if (!readable) {
      breakRead(R1_CARD_ECC_FAILED);
      return BLOCK_NONE;
    }
    if (faultOnBlock(FAULT_BIT_ROT, lba) != 0) rot(ptr, lba);
    if (c.afterStop != 0 && faultOnBlock(FAULT_BAD_AFTER_STOP, lba) != 0) rot(ptr, lba);
    c.afterStop = 0;
    good = faultOnBlock(FAULT_READ_CRC, lba) == 0;
  } else {
    memory.copy(ptr, CARD_BLOCK, c.transferBlockBytes);
    good = faultOnBlock(FAULT_READ_CRC, 0xffffffff) == 0;
  }
  const told: u32 = c.transferSource == SOURCE_MEDIUM ? lba : NO_LBA;
  traceAt(timeNs, TRACE_BLOCK_READ, c.transferBlockBytes, told, good ? 0 : 1);
  if (c.transferSource == SOURCE_REGISTER) applyFunctions();
  c.transferLba = lba + 1;
  c.blockDueNs = timeNs;
  if (c.transferLeft != OPEN_ENDED) {
    c.transferLeft -= 1;
    if (c.transferLeft == 0) c.state = STATE_TRAN;
  }
  if (c.transferSource == SOURCE_MEDIUM) stepPacked(false);
  if (c.transferSource == SOURCE_MEDIUM && c.state == STATE_DATA) {
    c.blockDueNs += load<u32>(CONFIG_NEXT_READ_NS);
    delayBlock();
  }
  return good ? BLOCK_GOOD : BLOCK_BAD_CRC;
}

/** True if a block is wanted now: for a sector that exists, or for a register. */
export function expectsBlock(): bool {
  const c = card();
  const wants = c.state == STATE_RCV && c.transferIgnored == 0 && !isBusy();
  return wants && (c.transferSource != SOURCE_MEDIUM || c.transferLba < mediumSectors(c.partition));
}

/** The 16 bytes of CMD26 or CMD27. */
function receiveRegisterBlock(ptr: usize, bytes: u32, intact: bool, timeNs: u64): u32 {
  const c = card();
  const isWhole = intact && bytes == c.transferBlockBytes;
  const token = isWhole ? CRC_STATUS_GOOD : CRC_STATUS_BAD;
  traceAt(timeNs, TRACE_BLOCK_WRITE, bytes, NO_LBA, token);
  c.state = isWhole ? STATE_PRG : STATE_TRAN;
  if (!isWhole) return token;
  if (c.transferSource == SOURCE_CSD) programCsd(ptr);
  else raise(R1_CID_CSD_OVERWRITE); // a CID is written once, by its maker
  beginRegister(timeNs, load<u32>(CONFIG_PROGRAM_NS));
  return token;
}

/** The header of a packed command: never a sector. The blocks of a write follow it at once. */
function receivePackedHeader(ptr: usize, bytes: u32, intact: bool, timeNs: u64): u32 {
  const c = card();
  const isWhole = intact && bytes == SECTOR_BYTES;
  const token = isWhole ? CRC_STATUS_GOOD : CRC_STATUS_BAD;
  traceAt(timeNs, TRACE_BLOCK_WRITE, bytes, NO_LBA, token);
  c.transferLeft -= 1;
  if (!isWhole) failPacked(0);
  if (!isWhole || !takePackedHeader(ptr, c.transferLeft)) c.transferIgnored = 1;
  else if (c.transferLeft == 0) {
    c.state = STATE_PRG;
    beginRegister(timeNs, load<u32>(CONFIG_CACHED_NS));
  } else c.transferSource = SOURCE_MEDIUM;
  return token;
}

/** CMD27's block: 16 bytes, judged and programmed when busy is over. */
function receiveCsd(ptr: usize, bytes: u32, intact: bool, timeNs: u64): u32 {
  const c = card();
  const good = intact && bytes == c.transferBlockBytes;
  const token = good ? CRC_STATUS_GOOD : CRC_STATUS_BAD;
  traceAt(timeNs, TRACE_BLOCK_WRITE, bytes, NO_LBA, token);
  c.state = good ? STATE_PRG : STATE_TRAN;
  if (good) {
    memory.copy(PROGRAM_BLOCK, ptr, bytes);
    beginCsd(timeNs);
  }
  return token;
}

/** A sector that has arrived, or not (`intact` false: CRC16 was wrong). Returns the CRC status token. */
export function receiveBlock(ptr: usize, bytes: u32, intact: bool, timeNs: u64): u32 {
  const c = card();
  if (c.state != STATE_RCV || c.transferIgnored != 0 || isBusy()) return CRC_STATUS_NONE;
  if (c.transferSource == SOURCE_PACKED) return receivePackedHeader(ptr, bytes, intact, timeNs);
  if (c.transferSource == SOURCE_CSD && !isEmmc()) return receiveCsd(ptr, bytes, intact, timeNs);
  if (c.transferSource != SOURCE_MEDIUM) return receiveRegisterBlock(ptr, bytes, intact, timeNs);
  const lba = c.transferLba;
  let token = CRC_STATUS_GOOD;
  if (lba >= mediumSectors(c.partition)) {
    raise(R1_OUT_OF_RANGE);
    token = CRC_STATUS_FLASH_ERROR;
  } else if (!isEmmc() && isWriteProtected(lba)) {
    raise(R1_WP_VIOLATION);
    token = CRC_STATUS_FLASH_ERROR;
  } else if (!intact || bytes != SECTOR_BYTES) {
    token = CRC_STATUS_BAD;
  } else if (isEmmc() && isProtected(c.partition, lba)) {
    // The block has come well and goes nowhere; a multiple hears nothing more until CMD12.
    raise(R1_WP_VIOLATION);
    failPackedEntry();
    c.transferIgnored = 1;
    if (c.transferMultiple == 0) c.state = STATE_TRAN;
    traceAt(timeNs, TRACE_BLOCK_WRITE, bytes, lba, token);
    return token;
  } else {
    memory.copy(PROGRAM_BLOCK, ptr, SECTOR_BYTES);
    const isFinal = c.transferLeft == 1;
    if (!beginProgram(lba, c.transferDurable != 0, c.transferReliable != 0, isFinal, timeNs)) {
      token = CRC_STATUS_FLASH_ERROR;
    }
  }
  traceAt(timeNs, TRACE_BLOCK_WRITE, bytes, lba, token);
  if (isBusy()) traceBusy(timeNs);
  if (token != CRC_STATUS_GOOD) {
    failPackedEntry();
    c.transferIgnored = 1;
    if (c.transferMultiple == 0) c.state = isBusy() ? STATE_PRG : STATE_TRAN;
    return token;
  }
  c.writtenBlocks += 1;
  c.transferLba = lba + 1;
  if (c.transferLeft != OPEN_ENDED) {
    c.transferLeft -= 1;
    if (c.transferLeft == 0) c.state = STATE_PRG;
  }
  stepPacked(true);
  // A CMD7 that nobody sent to this card, or another card's address: it programs on, out of sight.
  if (faultOnBlock(FAULT_DESELECT_BUSY, lba) != 0) c.state = STATE_DIS;
  return token;
}
