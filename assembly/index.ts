// The exports, nothing computed.

export { cardState } from "./card/card";
export {
  blockCommand,
  blockErase,
  blockFlush,
  blockRead,
  blockWrite,
  openCard,
  readCardRegister,
} from "./driver/block";
export { leaveInFlight } from "./driver/inflight";
export { lastCommand, lastResponse } from "./driver/last";
export { dumpExtent, dumpPlan, dumpRead, dumpRelease } from "./dump/plan";
export { dumpInit, dumpNote, dumpRegister, dumpUnregister } from "./dump/regions";
export { machineCut, machineInit, machineInsert, machineReset } from "./machine";
export { panicRun, panicTake, panicWrite } from "./panic";
export { chooseZone, counterOf, newestZone, nextCounter, payloadBytesMax, zoneState } from "./pstore/zone";
export { flushRings, writeRing } from "./rings";
export { recoverArea } from "./scan";
export { guestAdvance, guestRead, guestReset, guestWrite } from "./sdhci/guest";
export {
  idleNs,
  mmioRead8,
  mmioRead16,
  mmioRead32,
  mmioWrite8,
  mmioWrite16,
  mmioWrite32,
} from "./sdhci/mmio";
export { irqLevel } from "./sdhci/state";
export { spiAttach, spiTransfer } from "./spi/port";
