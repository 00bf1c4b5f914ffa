// Which records of a guest's ramoops region are of the crash that has just happened. A region keeps those of earlier
// boots too, so what is there is remembered when the guest starts. Nothing of Node.
//
//   const watch = new RamoopsWatch(() => ram.subarray(ADDRESS, ADDRESS + MEM_SIZE));
//   watch.remember(); // at each start of the guest
//   …                 // pvpanic or the console tell that it panics: it must go on running
//   for (const record of watch.harvest()) device.panicWrite({ text: record.bytes, timeSec: record.timeSec });
//
// harvest() is for a guest that has stopped writing: at its reset (before its RAM is cleared), at power off, or when
// its console has said `---[ end Kernel panic`. In between, a record may be half written, and would look damaged.
import { judge } from "../judge.js";
import {
  compareRecords,
  RAMOOPS_OPTIONS,
  type RamoopsOptions,
  type RamoopsRecord,
  readRamoops,
} from "./ramoops.js";

/** Slot, time and counter: a slot that was written again has another time. */
function keyOf({ id, timeSec, timeNsec, reason, count }: RamoopsRecord): string {
  return `${id} ${timeSec}.${timeNsec} ${reason}#${count}`;
}

export class RamoopsWatch {
  readonly #readRegion: () => Uint8Array;
  readonly #options: RamoopsOptions;
  #known = new Set<string>();

  /** @param readRegion the region's bytes as they are now; may be a view. They are not changed and not kept. */
  constructor(readRegion: () => Uint8Array, options: RamoopsOptions = {}) {
    this.#readRegion = readRegion;
    this.#options = judge("", options, RAMOOPS_OPTIONS);
  }

  /** Whatever is in the region now is no crash of this run. */
  remember(): void {
    this.#known = new Set(this.#records().map(keyOf));
  }

  /** The dmesg records that are new since remember() or the last harvest(), the oldest first, each once. */
  harvest(): RamoopsRecord[] {
    const fresh = this.#records().filter((record) => !this.#known.has(keyOf(record)));
    for (const record of fresh) this.#known.add(keyOf(record));
    return fresh;
  }

  #records(): RamoopsRecord[] {
    const { records } = readRamoops(this.#readRegion(), this.#options);
    return records.filter((record) => record.type === "dmesg").sort(compareRecords);
  }
}
