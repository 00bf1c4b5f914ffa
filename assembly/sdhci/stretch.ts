// A guest's ADMA2 moves what lies in one page of its RAM at once, in `instant` mode: the blocks behind one that has
// just gone through in the same run, up to the end of the page, of the descriptor or of what the card says is like it.
// No register can change between them, so each would only repeat that one, later by the same time. Registers, clock,
// card and memory are then as block by block (tests/embed-stretch.test.ts); a trace is only made that way.

import {
  accessClocks,
  copyEven,
  evenBlocks,
  nextReadNs,
  passEven,
  placeOfEven,
  programNs,
} from "../card/card";
import { advanceTo, laterNs } from "../clock";
import { DMA_PAGE, SDHCI_REGISTERS, SECTOR_BYTES } from "../layout";
import { admaAdvance, admaHasData } from "./adma";
import { fetchAhead, fetchBytes, leftInPage, storeBytes } from "./dma";
import { SDHCI_BLOCK_COUNT, SDHCI_TRANSFER_MODE, SDHCI_TRNS_BLK_CNT_EN } from "./registers";
import { COMMAND_IDLE, Engine, engine, MOVE_ADMA, register16 } from "./state";
import { blockClocks, CRC_STATUS_CLOCKS, clocksNs, N_WR_CLOCKS } from "./timing";

/** More pages than one run has events for. */
const PAGES_MAX: u32 = 1 << 14;

/** The blocks at hand that lie in one page and one descriptor, are not the last, and go like the one before. */
function blocksInPage(e: Engine): u32 {
  if (!admaHasData()) return 0;
  const inPage = leftInPage(e.admaData);
  let blocks = (e.admaLeft < inPage ? e.admaLeft : inPage) / SECTOR_BYTES;
  if (blocks > e.blocksLeft - 1) blocks = e.blocksLeft - 1;
  const events = e.isRead != 0 ? e.stretchEvents : e.stretchEvents / 2;
  if (blocks > events) blocks = events;
  return blocks == 0 ? 0 : evenBlocks(blocks);
}

/** False: as a whole they cannot be moved, and nothing has happened. Each is then tried by itself. */
function moveBlocks(e: Engine, bytes: u32): bool {
  const place = placeOfEven(bytes / SECTOR_BYTES);
  if (place != 0) {
    return e.isRead != 0 ? storeBytes(e.admaData, bytes, place) : fetchBytes(e.admaData, bytes, place);
  }
  if (e.isRead != 0) {
    // What a write has fetched to DMA_PAGE was forgotten when its last access ended.
    return copyEven(DMA_PAGE, bytes / SECTOR_BYTES) && storeBytes(e.admaData, bytes, DMA_PAGE);
  }
  const at = fetchAhead(e.admaData, bytes, e.admaLeft);
  return at != 0 && copyEven(at, bytes / SECTOR_BYTES);
}

/** The blocks after `timeNs`, at which one ended. Returns when the last of those that were moved has ended. */
export function stretch(timeNs: u64): u64 {
  const e = engine();
  if (!isDefined(EXTERNAL_BUS) || e.stretchEvents == 0) return timeNs;
  if (e.isDma != MOVE_ADMA || e.counted == 0 || e.blockBytes != <u32>SECTOR_BYTES) return timeNs;
  if (e.commandPhase != COMMAND_IDLE || e.tuning != 0) return timeNs;
  const isRead = e.isRead != 0;
  const waitNs = isRead ? laterNs(nextReadNs(), clocksNs(accessClocks())) : programNs();
  if (waitNs > e.timeoutNs) return timeNs;
  const wireNs = isRead
    ? clocksNs(blockClocks(SECTOR_BYTES))
    : clocksNs(N_WR_CLOCKS) + clocksNs(blockClocks(SECTOR_BYTES) + CRC_STATUS_CLOCKS);
  let endNs = timeNs;
  for (let i: u32 = 0; i < PAGES_MAX; i++) {
    const blocks = blocksInPage(e);
    if (blocks == 0 || !moveBlocks(e, blocks * SECTOR_BYTES)) break;
    endNs += (waitNs + wireNs) * blocks;
    passEven(blocks, endNs);
    admaAdvance(blocks * SECTOR_BYTES);
    e.blocksLeft -= blocks;
    e.stretchEvents -= isRead ? blocks : blocks * 2;
  }
  if ((register16(SDHCI_TRANSFER_MODE) & SDHCI_TRNS_BLK_CNT_EN) != 0) {
    store<u16>(SDHCI_REGISTERS + SDHCI_BLOCK_COUNT, <u16>e.blocksLeft);
  }
  e.floorNs = endNs;
  advanceTo(endNs);
  return endNs;
}
