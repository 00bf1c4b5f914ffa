// The regions of a simulated card and its controller, and the snapshots that a panic takes of them by itself:
//   cid csd ext_csd, or   asked for over the bus, so that simulated time passes; EBUSY while a request holds the host
//   cid csd scr ssr
//   sdhci                 the register file as a driver would read it, at no time and in any state
//   pstore                the area as it is stored; what lies in the card's cache is not in it
// Nothing of Node.
import { CARD_EMMC, CONFIG_CARD_KIND } from "../../assembly/layout.js";
import type { PanicResult } from "../core/result.js";
import type { Device, PanicInput } from "../device.js";
import { MmcError } from "../errors.js";
import { having, judge, whole } from "../judge.js";
import type { Devlink } from "./devlink.js";

const SECTOR_BYTES = 512;
const SDHCI_BYTES = 256;
/** Reading the buffer port takes data away: it is 0 in the region. */
const SDHCI_BUFFER = 0x20;
/** By the kind of card: the region, and what Device.registers() calls it. */
const EMMC_REGISTERS = { cid: "cid", csd: "csd", ext_csd: "extCsd" } as const;
const SD_REGISTERS = { cid: "cid", csd: "csd", scr: "scr", ssr: "ssr" } as const;
const REGISTER_BYTES = { cid: 16, csd: 16, extCsd: 512, scr: 8, ssr: 64 } as const;

/** Bytes from the start of the card, in whole sectors. */
export interface DeviceArea {
  offset: number;
  sizeBytes: number;
}

/** What a panic with snapshots gave. */
export interface PanicWithSnapshots {
  result: PanicResult;
  /** The snapshots' id and regions; null if there are none. */
  snapshot: { id: number; regions: string[] } | null;
  /** Why there are none, or why the card's registers are not among them. */
  failure: MmcError | null;
}

export class DeviceRegions {
  readonly #devlink: Devlink;
  readonly #device: Device;
  readonly #card: string[];

  /**
   * Adds the regions of `device` to `devlink`. Regions that were, or will be, added besides (a guest's RAM) take part
   * in a panic if they have a source.
   * @param options area: the `pstore` region; without it there is none. maxSnapshots: of each region, default 8.
   * @throws MmcError EEXIST a region of such a name is there; EINVAL an area that is not on the card
   */
  constructor(
    devlink: Devlink,
    device: Device,
    options: { area?: DeviceArea | undefined; maxSnapshots?: number | undefined } = {},
  ) {
    this.#devlink = devlink;
    this.#device = device;
    const { area, maxSnapshots } = judge<NonNullable<typeof options>>("", options, {
      area: having(),
      maxSnapshots: whole(1, 0xffffffff),
    });
    const kind = new DataView(device.memory.buffer).getUint32(CONFIG_CARD_KIND, true);
    const registers = Object.entries(kind === CARD_EMMC ? EMMC_REGISTERS : SD_REGISTERS);
    this.#card = registers.map(([name]) => name);
    for (const [name, register] of registers) {
      const source = (offset: number, target: Uint8Array) => {
        const bytes = device.registers()[register];
        target.set(bytes?.subarray(offset, offset + target.length) ?? []);
        return bytes === null ? 0 : target.length;
      };
      devlink.addRegion({ name, size: REGISTER_BYTES[register], maxSnapshots, source });
    }
    devlink.addRegion({
      name: "sdhci",
      size: SDHCI_BYTES,
      maxSnapshots,
      source: (offset, target) => {
        target.set(readController(device).subarray(offset, offset + target.length));
      },
    });
    if (area === undefined) return;
    checkArea(device, area);
    const source = (offset: number, target: Uint8Array) => readStored(device, area.offset + offset, target);
    devlink.addRegion({ name: "pstore", size: area.sizeBytes, maxSnapshots, source });
  }

  /**
   * Whether a panic's snapshots would have room now.
   * @throws DevlinkError ENOSPC a region is full; ENOMEM more bytes than the instance keeps
   */
  checkRoom(): void {
    this.#devlink.checkEvent(this.#names());
  }

  /**
   * {@link Device.panicWrite} with a snapshot of every region that has a source, all under one id or none. Everything
   * but the card's own registers is taken before the panic path touches anything. The card's registers are asked for
   * over the bus when the panic path is done with it; if the card does not answer then, the others are kept without
   * them. No failure of a snapshot keeps the record from being written.
   * @throws MmcError EINVAL as panicWrite() does; then there are no snapshots
   */
  panicWrite(input: PanicInput): PanicWithSnapshots {
    const taken = new Map<string, Uint8Array>();
    const take = (names: readonly string[]): MmcError | null => {
      try {
        const copies = names.map((name): [string, Uint8Array] => [name, this.#devlink.copyRegion(name)]);
        for (const [name, bytes] of copies) taken.set(name, bytes);
        return null;
      } catch (error) {
        return mmcErrorOf(error);
      }
    };
    let failure: MmcError | null = null;
    try {
      this.checkRoom();
    } catch (error) {
      failure = mmcErrorOf(error);
    }
    failure ??= take(this.#names().filter((name) => !this.#card.includes(name)));
    const result = this.#device.panicWrite(input);
    if (failure !== null) return { result, snapshot: null, failure };
    failure = take(this.#card);
    try {
      const id = this.#devlink.snapshotEvent(taken);
      return { result, snapshot: { id, regions: [...taken.keys()] }, failure };
    } catch (error) {
      return { result, snapshot: null, failure: mmcErrorOf(error) };
    }
  }

  #names(): string[] {
    return this.#devlink.regions().flatMap(({ name, live }) => (live ? [name] : []));
  }
}

function mmcErrorOf(error: unknown): MmcError {
  return error instanceof MmcError ? error : new MmcError("EIO", `devlink: ${error}`, { cause: error });
}

/** All registers but the buffer port, as they are at this simulated time. */
function readController(device: Device): Uint8Array {
  const view = new DataView(new ArrayBuffer(SDHCI_BYTES));
  for (let offset = 0; offset < SDHCI_BYTES; offset += 4) {
    // Not an access of our driver, which would cost simulated time: the machine's own.
    if (offset !== SDHCI_BUFFER) view.setUint32(offset, device.core.guestRead(offset, 4, 0), true);
  }
  return new Uint8Array(view.buffer);
}

function checkArea({ sizeBytes }: Device, area: DeviceArea): void {
  const isWhole = [area.offset, area.sizeBytes].every(
    (value) => Number.isSafeInteger(value) && value >= 0 && value % SECTOR_BYTES === 0,
  );
  if (isWhole && area.sizeBytes > 0 && area.offset + area.sizeBytes <= sizeBytes) return;
  throw new MmcError("EINVAL", `devlink: ${area.sizeBytes} bytes at ${area.offset} are no area of the card`);
}

/** Bytes of the medium, wherever it is; a medium elsewhere takes whole sectors only. */
function readStored(device: Device, offset: number, target: Uint8Array): void {
  const { externalMedium } = device;
  if (externalMedium === null) {
    target.set(device.medium().subarray(offset, offset + target.length));
    return;
  }
  const skipBytes = offset % SECTOR_BYTES;
  const sectors = Math.ceil((skipBytes + target.length) / SECTOR_BYTES);
  const whole = new Uint8Array(sectors * SECTOR_BYTES);
  externalMedium.read(offset - skipBytes, whole);
  target.set(whole.subarray(skipBytes, skipBytes + target.length));
}
