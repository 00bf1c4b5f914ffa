// What the tests in v86 share: cards, a guest that has booted once, and from there one for each test.
import { createHash } from "node:crypto";
import { test as add } from "uvu";
import { Device } from "../../host/device.js";
import type { DeviceOptions } from "../../host/device-options.js";
import type { GuestTiming } from "../../host/embed/peripheral.js";
import { attachV86, reloadOnReboot } from "../../host/embed/v86.js";
import type { Image } from "../../host/image/contract.js";
import { coreModule } from "../machine.js";
import { Guest, guestFiles } from "./guest.js";

/** Tests by name: the first argument of the process. */
const wanted = new RegExp(process.argv[2] ?? "");
export const test = (name: string, work: () => Promise<void>) => {
  if (wanted.test(name)) add(name, work);
};

export const files = guestFiles();
export const CARD_BYTES = 8 << 20;
/** From the drivers' probe to the card's node. */
export const LOAD = `modprobe sdhci-pci && modprobe mmc_block
for i in $(seq 300); do [ -b /dev/mmcblk0 ] && break; sleep 0.1; done; [ -b /dev/mmcblk0 ]`;

export const FILE_SYSTEMS =
  "for m in ext4 crc32c_generic vfat nls_ascii nls_cp437; do modprobe $m || break; done";

export function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function openDevice(options: DeviceOptions): Device {
  return Device.open(coreModule("embed"), { sizeBytes: CARD_BYTES, ...options });
}

export function imageOf(bytes: Uint8Array): Image {
  return {
    name: "the card",
    sizeBytes: bytes.length,
    writable: false,
    bytesFetched: 0,
    read: async (offset, lengthBytes) => bytes.slice(offset, offset + lengthBytes),
    close: async () => undefined,
  };
}

/** A guest that has booted once, without a card; each test goes on from there with a card of its own. */
let booted: ArrayBuffer | null = null;

export function attachTo(device: Device, timing: GuestTiming = "instant") {
  return (emulator: object) => {
    attachV86(emulator, device, { timing });
    reloadOnReboot(emulator);
  };
}

export async function guestWith(
  device: Device,
  timing: GuestTiming = "instant",
  attach: (emulator: object) => void = attachTo(device, timing),
): Promise<Guest> {
  if (booted !== null) return Guest.resume(files, booted, { attach });
  const guest = await Guest.create(files, { attach });
  await guest.boot();
  await guest.run(FILE_SYSTEMS);
  booted = await guest.saveWithoutCard();
  await guest.emulator.run();
  return guest;
}

/** Runs `work` on a guest with `device` in it, its driver loaded. */
export async function withGuest(device: Device, work: (guest: Guest) => Promise<void>): Promise<void> {
  const guest = await guestWith(device);
  try {
    await guest.run(LOAD);
    await work(guest);
  } finally {
    await guest.destroy();
  }
}

export async function hashInGuest(guest: Guest, path: string): Promise<string> {
  return (await guest.run(`sha256sum ${path}`)).slice(0, 64);
}
