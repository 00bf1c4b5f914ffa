// A normal request that is left in the middle, host claimed, as a CPU that stopped leaves it: what a panic finds.
// The same commands as block I/O; writes take their bytes from BOUNCE. Each returns 0 or an errno.

import { EBUSY, EINVAL, EOPNOTSUPP, OK } from "../errno";
import { BOUNCE_BASE, SECTOR_BYTES } from "../layout";
import {
  SDHCI_BUFFER_PORT,
  SDHCI_CLOCK_CONTROL,
  SDHCI_INT_DATA_AVAIL,
  SDHCI_INT_SPACE_AVAIL,
  SDHCI_POWER_CONTROL,
} from "../sdhci/registers";
import { claimHost, startErase } from "./block";
import { ANSWER_NONE, ANSWER_R1, awaitStatus, pause, sendCommand, startCommand } from "./command";
import { portDelay, portRead32, portWrite8, portWrite16, portWrite32 } from "./port";
import { currentShadow, KIND_EMMC, outcome, shadow, untilNs, usesDma } from "./shadow";
import { dat0IsHigh, READ_NS, startBlocks } from "./transfer";

export const INFLIGHT_READ: u32 = 1; // CMD18, part of the blocks taken, half of the next
export const INFLIGHT_WRITE: u32 = 2; // CMD25, part of the blocks given, half of the next
export const INFLIGHT_PROGRAM: u32 = 3; // CMD24, the block is there, the card programs
export const INFLIGHT_ERASE: u32 = 4; // CMD38, the card erases
export const INFLIGHT_SLEEP: u32 = 5; // CMD5
export const INFLIGHT_SUSPENDED: u32 = 6; // CMD5, clock off, supply off
export const INFLIGHT_CLAIMED: u32 = 7; // the host is claimed and a command is on the line
export const INFLIGHT_DESELECTED: u32 = 8; // CMD7 away while the card programs (dis)

/** How long a DMA transfer is left alone so that some blocks have moved: simulated ns. */
const DMA_HEAD_START_NS: u32 = 40000;

/** Some whole blocks and one half by PIO; by DMA simply some time. */
function moveSome(token: u32, isWrite: bool, count: u32): i32 {
  if (usesDma(token)) {
    pause(token, DMA_HEAD_START_NS, untilNs(token, DMA_HEAD_START_NS));
    return OK;
  }
  const ready = isWrite ? SDHCI_INT_SPACE_AVAIL : SDHCI_INT_DATA_AVAIL;
  const whole = count / 2;
  for (let i: u32 = 0; i <= whole && i < 64; i++) {
    const status = awaitStatus(token, ready, READ_NS);
    if (status != OK) return status;
    const bytes: u32 = i < whole ? SECTOR_BYTES : SECTOR_BYTES / 2;
    const ptr: usize = BOUNCE_BASE + i * SECTOR_BYTES;
    for (let at: u32 = 0; at < bytes && at < <u32>SECTOR_BYTES; at += 4) {
      if (isWrite) portWrite32(token, SDHCI_BUFFER_PORT, load<u32>(ptr + at));
      else portRead32(token, SDHCI_BUFFER_PORT);
    }
  }
  return OK;
}

function startProgram(token: u32, lba: u32): i32 {
  const dma = usesDma(token);
  const status = startBlocks(token, true, lba, 1, BOUNCE_BASE, 0, dma);
  if (status != OK) return status;
  if (!dma) {
    const ready = awaitStatus(token, SDHCI_INT_SPACE_AVAIL, READ_NS);
    if (ready != OK) return ready;
    for (let at: u32 = 0; at < <u32>SECTOR_BYTES; at += 4)
      portWrite32(token, SDHCI_BUFFER_PORT, load<u32>(BOUNCE_BASE + at));
  }
  // Until the block is over the wire and the card has DAT0 low: 165 µs on one line at 25 MHz.
  for (let i = 0; i < 2000 && dat0IsHigh(token); i++) portDelay(token, 1000);
  return OK;
}

function fallAsleep(token: u32): i32 {
  const s = shadow(token);
  if (s.kind != KIND_EMMC) return EOPNOTSUPP;
  const status = sendCommand(token, 7, 0, ANSWER_NONE, 0);
  return status == OK ? sendCommand(token, 5, (s.rca << 16) | 0x8000, ANSWER_R1, 0) : status;
}

/** Supply and clock off, as runtime suspend leaves a host. An SD card has no sleep: it just loses its supply. */
function suspend(token: u32): i32 {
  if (shadow(token).kind == KIND_EMMC) {
    const status = fallAsleep(token);
    if (status != OK) return status;
    pause(token, 20000000, untilNs(token, 20000000));
  }
  portWrite16(token, SDHCI_CLOCK_CONTROL, 0);
  portWrite8(token, SDHCI_POWER_CONTROL, 0);
  return OK;
}

/** Starts `kind` (INFLIGHT_*) on `count` (2 … 64) sectors at `lba` and leaves it. -EBUSY: the host is held. */
export function leaveInFlight(kind: u32, lba: u32, count: u32): i32 {
  const sectors = currentShadow().sectors;
  if (count < 2 || count > 64 || lba >= sectors || count > sectors - lba) return EINVAL;
  const token = claimHost();
  if (token == 0) return EBUSY;
  return outcome(token, startRequest(token, kind, lba, count));
}

function startRequest(token: u32, kind: u32, lba: u32, count: u32): i32 {
  const s = shadow(token);
  switch (kind) {
    case INFLIGHT_READ:
    case INFLIGHT_WRITE: {
      const isWrite = kind == INFLIGHT_WRITE;
      const status = startBlocks(token, isWrite, lba, count, BOUNCE_BASE, 0, usesDma(token));
      return status == OK ? moveSome(token, isWrite, count) : status;
    }
    case INFLIGHT_PROGRAM:
      return startProgram(token, lba);
    case INFLIGHT_ERASE:
      return startErase(token, lba, lba + count - 1, s.kind == KIND_EMMC ? 1 : 0);
    case INFLIGHT_SLEEP:
      return fallAsleep(token);
    case INFLIGHT_SUSPENDED:
      return suspend(token);
    case INFLIGHT_CLAIMED:
      return startCommand(token, 13, s.rca << 16, ANSWER_R1, 0);
    case INFLIGHT_DESELECTED: {
      const status = startProgram(token, lba);
      return status == OK ? sendCommand(token, 7, 0, ANSWER_NONE, 0) : status;
    }
    default:
      return EINVAL;
  }
}
