// SDHCI_PRESENT_STATE: inhibits, what the data engine does, the slot's pins, and the levels of the lines now.
// CMD is the very bit on the line; DAT0 is the card's busy; DAT3:1 are pulled up, for the bits of a block are
// not shown on them.

import { longBit } from "../bus/frame";
import { dat0, isWriteProtected, RESPONSE_R2 } from "../card/card";
import { nowNs } from "../clock";
import { CONFIG_SLOT, SLOT_WRITE_PROTECTED } from "../layout";
import { cardDetected } from "./engine";
import {
  SDHCI_CARD_DETECT_PIN,
  SDHCI_CARD_PRESENT,
  SDHCI_CARD_STABLE,
  SDHCI_CMD_INHIBIT,
  SDHCI_CMD_LEVEL,
  SDHCI_DAT_0_LEVEL,
  SDHCI_DAT_123_LEVEL,
  SDHCI_DAT_ACTIVE,
  SDHCI_DATA_AVAILABLE,
  SDHCI_DATA_INHIBIT,
  SDHCI_DOING_READ,
  SDHCI_DOING_WRITE,
  SDHCI_SPACE_AVAILABLE,
  SDHCI_WRITE_ENABLED,
} from "./registers";
import {
  AUTO_STOP,
  COMMAND_ANSWER,
  COMMAND_IDLE,
  COMMAND_SENDING,
  DATA_BOUNDARY,
  DATA_HALTED,
  DATA_LOST,
  DATA_READ_FULL,
  DATA_READ_WIRE,
  DATA_STOPPING,
  DATA_WRITE_BUSY,
  DATA_WRITE_FILL,
  DATA_WRITE_WIRE,
  dataIsInhibited,
  engine,
  MOVE_PIO,
} from "./state";
import { clockKhz } from "./timing";

function commandLevel(): bool {
  const e = engine();
  const now = nowNs();
  const answers = e.commandPhase == COMMAND_ANSWER;
  if ((!answers && e.commandPhase != COMMAND_SENDING) || now < e.frameNs) return true;
  const clock = ((now - e.frameNs) * clockKhz()) / 1000000;
  if (answers && e.responseKind == RESPONSE_R2) return clock >= 136 || longBit(<u32>clock) != 0;
  return clock >= 48 || (((answers ? e.answer : e.sent) >> (47 - clock)) & 1) != 0;
}

/** The last block of a read has come and waits in the buffer: the lines are free, the transfer is not over. */
function lastIsRead(): bool {
  const e = engine();
  const isWaiting = e.dataPhase == DATA_READ_FULL || (e.dataPhase == DATA_BOUNDARY && e.isRead != 0);
  return isWaiting && e.counted != 0 && e.blocksLeft == 1;
}

export function presentState(): u32 {
  const e = engine();
  const phase = e.dataPhase;
  let bits: u32 = SDHCI_DAT_123_LEVEL | SDHCI_CARD_STABLE;
  if (commandLevel()) bits |= SDHCI_CMD_LEVEL;
  if (dat0()) bits |= SDHCI_DAT_0_LEVEL;
  if ((load<u32>(CONFIG_SLOT) & SLOT_WRITE_PROTECTED) == 0 && !isWriteProtected())
    bits |= SDHCI_WRITE_ENABLED;
  if (cardDetected()) bits |= SDHCI_CARD_PRESENT | SDHCI_CARD_DETECT_PIN;
  // Of auto-CMD12 this bit tells nothing, unless a command waits behind it.
  if (e.commandPhase != COMMAND_IDLE && (e.auto != AUTO_STOP || e.held != 0)) bits |= SDHCI_CMD_INHIBIT;
  if (dataIsInhibited()) {
    bits |= SDHCI_DATA_INHIBIT;
    if (phase != DATA_HALTED && !lastIsRead()) bits |= SDHCI_DAT_ACTIVE;
  }
  const moves = phase == DATA_BOUNDARY || phase == DATA_LOST || phase == DATA_STOPPING;
  const writes = phase == DATA_WRITE_FILL || phase == DATA_WRITE_WIRE || phase == DATA_WRITE_BUSY;
  const reads = phase == DATA_READ_WIRE || phase == DATA_READ_FULL;
  if (writes || (moves && e.isRead == 0)) bits |= SDHCI_DOING_WRITE;
  if (reads || (moves && e.isRead != 0)) bits |= SDHCI_DOING_READ;
  if (phase == DATA_WRITE_FILL && e.isDma == MOVE_PIO) bits |= SDHCI_SPACE_AVAILABLE;
  if (phase == DATA_READ_FULL) bits |= SDHCI_DATA_AVAILABLE;
  return bits;
}
