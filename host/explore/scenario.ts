// The scenarios that crash exploration cuts: a machine, what happened to it before, and the panic that
// is cut at every
// mark. Names are part of crash ids: never renamed. Nothing of Node, no chance.
import type { Device, InFlight } from "../device.js";
import type { DeviceOptions } from "../device-options.js";

/** Zones of the explored area: small, so that every cut can be decoded as a whole. */
export const EXPLORED_KMSG_BYTES = 8192;
export const EXPLORED_ZONES = 4;
export const EXPLORED_AREA_OFFSET = 64 * 1024;
/** Requests in flight rewrite sectors here. */
export const EXPLORED_IN_FLIGHT_OFFSET = 32 * 1024;

export interface Scenario {
  name: string;
  options: DeviceOptions;
  /** Bytes of the log that the explored panic writes. */
  textBytes: number;
  /** Records written before, oldest first. */
  oldTextBytes: number[];
  /** Zones whose record was removed again, as unlink does. */
  removedZones: number[];
  /** Leaves the device as another driver than ours would, before the request in flight: modes, voltage, controller. */
  bring?: (device: Device) => void;
  inFlight: InFlight | null;
  /** Put into the plan before the explored panic. */
  faults: Parameters<Device["injectFault"]>[0][];
  /** The card says done before it is: a record that it acknowledged may be lost, and that is counted as its lie. */
  lies?: boolean;
}

const EMMC: DeviceOptions = { card: "emmc" };
const EMMC_CACHED: DeviceOptions = { card: "emmc", cacheSectors: 16, reliableWrite: false };
/** Without CMD23 there is no forced programming: only a flush makes a write durable. */
const EMMC_FLUSHED: DeviceOptions = { ...EMMC_CACHED, cmd23: false };
const EMMC_PLAIN: DeviceOptions = { card: "emmc", reliableWrite: false };
const SD: DeviceOptions = { card: "sd" };
const SD_CMD12: DeviceOptions = { card: "sd", cmd23: false };

function scenario(name: string, options: DeviceOptions, changes: Partial<Scenario> = {}): Scenario {
  return {
    name,
    options,
    textBytes: 3000,
    oldTextBytes: [1500],
    removedZones: [],
    inFlight: null,
    faults: [],
    ...changes,
  };
}

const FULL = { oldTextBytes: [900, 1500, 2500, 4000] };
const ONE_UNIT_A_ZONE = { neighbourSectors: 8, unitSectors: EXPLORED_KMSG_BYTES / 512 };
const LATE = { settleNs: 1_600_000_000 };
/** Sector of the second zone: the one that the panic takes first. */
const SECOND_ZONE_LBA = (EXPLORED_AREA_OFFSET + EXPLORED_KMSG_BYTES) / 512;

export const SCENARIOS: Scenario[] = [
  scenario("emmc-dma-fresh-zone", { ...EMMC, dma: true }),
  scenario("emmc-pio-fresh-zone", { ...EMMC, dma: false }),
  scenario("emmc-dma-removed-zone", { ...EMMC, dma: true }, { ...FULL, removedZones: [1] }),
  scenario("emmc-dma-full-first-wins", { ...EMMC, dma: true }, FULL),
  scenario("emmc-dma-full-ring", { ...EMMC, dma: true, policy: "ring" }, FULL),
  scenario("emmc-plain-full", { ...EMMC_PLAIN, dma: true }, FULL),
  scenario("emmc-cached-fresh-zone", { ...EMMC_CACHED, dma: true }),
  scenario("emmc-cached-full", { ...EMMC_CACHED, dma: true }, FULL),
  scenario("emmc-cached-pio-full-ring", { ...EMMC_CACHED, dma: false, policy: "ring" }, FULL),
  scenario("emmc-flushed-fresh-zone", { ...EMMC_FLUSHED, dma: true }),
  scenario("emmc-flushed-full", { ...EMMC_FLUSHED, dma: true }, FULL),
  scenario("emmc-flushed-pio-full-ring", { ...EMMC_FLUSHED, dma: false, policy: "ring" }, FULL),
  scenario("emmc-legacy-x1-pio", { ...EMMC, dma: false, busWidth: 1, highSpeed: false }, { textBytes: 1200 }),
  scenario("emmc-write-in-flight", { ...EMMC, dma: false }, { inFlight: "write" }),
  scenario("emmc-read-in-flight", { ...EMMC, dma: true }, { inFlight: "read" }),
  scenario("emmc-program-in-flight", { ...EMMC, dma: true }, { inFlight: "program" }),
  scenario("emmc-erase-in-flight", { ...EMMC, dma: true }, { inFlight: "erase" }),
  scenario("emmc-suspended", { ...EMMC, dma: true }, { inFlight: "suspended" }),
  scenario("emmc-asleep", { ...EMMC_CACHED, dma: true }, { inFlight: "sleep" }),
  scenario("sd-dma-fresh-zone", { ...SD, dma: true }),
  scenario("sd-pio-full", { ...SD, dma: false }, FULL),
  scenario("sd-pio-cmd12-full-ring", { ...SD_CMD12, dma: false, policy: "ring" }, FULL),
  scenario("sd-removed-zone", { ...SD_CMD12, dma: true }, { ...FULL, removedZones: [0, 2] }),
  scenario("sd-write-in-flight", { ...SD, dma: false }, { inFlight: "write" }),
  scenario("sd-suspended", { ...SD, dma: true }, { inFlight: "suspended" }),
  scenario("tiny-record", { ...SD, dma: true }, { textBytes: 10 }),
  scenario("record-fills-zone", { ...SD, dma: true }, { textBytes: 20000 }),
  scenario("last-sector-shared-with-seal", { ...EMMC, dma: true }, { textBytes: 7900 }),
  scenario(
    "bad-zone-then-next",
    { ...EMMC, dma: true },
    { faults: [{ kind: "program", firstLba: SECOND_ZONE_LBA + 2, lastLba: SECOND_ZONE_LBA + 2 }] },
  ),
  scenario(
    "commit-sector-bad-then-next",
    { ...SD, dma: true },
    {
      ...FULL,
      removedZones: [1, 2],
      faults: [{ kind: "program", firstLba: SECOND_ZONE_LBA, lastLba: SECOND_ZONE_LBA }],
    },
  ),
  scenario(
    "crc-error-then-careful",
    { ...EMMC, dma: true },
    { textBytes: 1500, faults: [{ kind: "write-crc", skip: 1, times: 1 }] },
  ),
  // More text than the zone takes plain, in a few sectors.
  scenario("emmc-compressed", { ...EMMC, dma: true, compress: true }, { textBytes: 12000 }),
  scenario(
    "emmc-cached-compressed-full",
    { ...EMMC_CACHED, dma: true, compress: true },
    { ...FULL, textBytes: 20000 },
  ),
  scenario(
    "sd-compressed-full-ring",
    { ...SD, dma: false, policy: "ring", compress: true },
    { oldTextBytes: [9000, 15000, 900, 18000], textBytes: 16000 },
  ),
  // Three zones for one log: each part is whole or not there, and none without the newer ones.
  scenario("emmc-parts", { ...EMMC, dma: true, parts: 3 }, { textBytes: 22000 }),
  scenario(
    "sd-parts-newest",
    { ...SD, dma: false, parts: 3, policy: "newest", keepLogs: 2 },
    { oldTextBytes: [900, 1500, 2500], textBytes: 22000 },
  ),
  // Neighbours are lost within an allocation unit, and every zone is one: mmc.md §2.4.
  scenario("sd-neighbours-zone-is-unit", { ...SD, dma: true, damage: ONE_UNIT_A_ZONE }, FULL),
  scenario("sd-neighbours-fresh-zone", { ...SD_CMD12, dma: false, damage: ONE_UNIT_A_ZONE }),
  scenario("emmc-plain-neighbours", { ...EMMC_PLAIN, dma: true, damage: ONE_UNIT_A_ZONE }, FULL),
  // The erase block is the whole area and more; what was not written in this boot is not taken back.
  scenario("sd-rollback-full", { ...SD, dma: true, damage: { rollbackSectors: 1024 } }, FULL),
  scenario(
    "sd-rollback-full-ring",
    { ...SD, dma: false, policy: "ring", damage: { rollbackSectors: 16 } },
    FULL,
  ),
  scenario("emmc-plain-rollback", { ...EMMC_PLAIN, dma: true, damage: { rollbackSectors: 16 } }),
  // Sectors of one slot of time: OLPC's 1.6 s are longer than the whole panic.
  scenario("sd-settles-late", { ...SD, dma: true, timing: LATE }, { ...FULL, lies: true }),
  scenario("sd-settles-late-fresh-zone", { ...SD_CMD12, dma: false, timing: LATE }, { lies: true }),
  scenario("emmc-plain-settles-late", { ...EMMC_PLAIN, dma: true, timing: LATE }, { ...FULL, lies: true }),
  // A reliable write is durable when its busy ends, so there is nothing to lie about.
  scenario("emmc-reliable-settles-late", { ...EMMC, dma: true, timing: LATE }, FULL),
];
