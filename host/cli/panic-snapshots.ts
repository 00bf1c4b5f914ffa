// `--snapshots FILE` of the commands that panic: the snapshots that the panic takes go into a store, which `mmcpstore
// devlink --store FILE` shows. Refuses a store that has no room before anything is written; afterwards nothing that
// happens to the snapshots keeps the record from being written and reported.
import type { PanicResult } from "../core/result.js";
import type { Device, PanicInput } from "../device.js";
import { type DeviceArea, DeviceRegions } from "../devlink/device-regions.js";
import type { Devlink } from "../devlink/devlink.js";
import { MmcError } from "../errors.js";
import { StoreFile } from "./devlink-store.js";
import { messageOf, remark } from "./output.js";

export class PanicSnapshots {
  readonly #store: StoreFile;
  readonly #devlink: Devlink;
  readonly #regions: DeviceRegions;
  #snapshot: { id: number; regions: string[] } | null = null;
  #lost: MmcError | null = null;

  /** @throws MmcError EBADMSG no store; EINVAL one of another card; ENOSPC, ENOMEM it is full */
  constructor(path: string, device: Device, { offset, sizeBytes }: DeviceArea) {
    this.#store = new StoreFile(path, true);
    this.#devlink = this.#store.makeDevlink();
    this.#regions = new DeviceRegions(this.#devlink, device, { area: { offset, sizeBytes } });
    this.#store.loadInto(this.#devlink);
    try {
      this.#regions.checkRoom();
    } catch (error) {
      throw this.#named(error);
    }
  }

  /** As Device.panicWrite(); the store is saved when it returns. */
  panicWrite(input: PanicInput): PanicResult {
    const { result, snapshot, failure } = this.#regions.panicWrite(input);
    if (snapshot === null) {
      this.#lost = this.#named(failure);
      return result;
    }
    if (failure !== null) {
      remark(`${this.#store.name}: without the card's registers: ${messageOf(failure)}`);
    }
    try {
      this.#store.save(this.#devlink);
      this.#snapshot = snapshot;
    } catch (error) {
      this.#lost = this.#named(error);
    }
    return result;
  }

  /** For the report. */
  get text(): string {
    if (this.#snapshot === null) return "";
    const { id, regions } = this.#snapshot;
    return `snapshot ${id} of ${regions.join(", ")} in ${this.#store.name}\n`;
  }

  get json(): object {
    return { snapshot: this.#snapshot === null ? null : { store: this.#store.name, ...this.#snapshot } };
  }

  /** @throws MmcError why there are no snapshots of this panic */
  throwIfLost(): void {
    if (this.#lost === null) return;
    throw new MmcError(this.#lost.code, `${this.#lost.message}; the record stands`, { cause: this.#lost });
  }

  #named(error: unknown): MmcError {
    const message = messageOf(error);
    const code = error instanceof MmcError ? error.code : "EIO";
    const name = this.#store.name;
    return new MmcError(code, message.startsWith(`${name}: `) ? message : `${name}: ${message}`, {
      cause: error,
    });
  }
}
