// An unmodified Linux drives our controller and card in v86: every kind of DMA, file systems, reboots, saved states,
// faults. Run by `npm run test:v86`, which fails where it cannot run.
import { createHash } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { ControllerKind } from "../../host/core/controllers.js";
import { Device, type DeviceOptions } from "../../host/device.js";
import { attachV86, reloadOnReboot } from "../../host/embed/v86.js";
import { coreModule, pattern, sameBytes } from "../machine.js";
import { Guest, guestFiles } from "./guest.js";

const files = guestFiles();
const CARD_BYTES = 8 << 20;
/** From the drivers' probe to the card's node. */
const LOAD = `modprobe sdhci-pci && modprobe mmc_block
for i in $(seq 300); do [ -b /dev/mmcblk0 ] && break; sleep 0.1; done; [ -b /dev/mmcblk0 ]`;

function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function openDevice(options: DeviceOptions): Device {
  return Device.open(coreModule("embed"), { sizeBytes: CARD_BYTES, ...options });
}

/** A guest that has booted once, without a card; each test goes on from there with a card of its own. */
let booted: ArrayBuffer | null = null;

async function guestWith(device: Device): Promise<Guest> {
  const attach = (emulator: object) => {
    attachV86(emulator, device);
    reloadOnReboot(emulator);
  };
  if (booted !== null) return Guest.resume(files, booted, { attach });
  const guest = await Guest.create(files, { attach });
  await guest.boot();
  await guest.run(
    "modprobe ext4; modprobe crc32c_generic; modprobe vfat; modprobe nls_ascii; modprobe nls_cp437",
  );
  booted = await guest.saveWithoutCard();
  await guest.emulator.run();
  return guest;
}

/** Runs `work` on a guest with `device` in it, its driver loaded. */
async function withGuest(device: Device, work: (guest: Guest) => Promise<void>): Promise<void> {
  const guest = await guestWith(device);
  try {
    await guest.run(LOAD);
    await work(guest);
  } finally {
    await guest.destroy();
  }
}

async function hashInGuest(guest: Guest, path: string): Promise<string> {
  return (await guest.run(`sha256sum ${path}`)).slice(0, 64);
}

const CARDS = ["emmc", "sd", "sdsc"] as const;
const CONTROLLERS: [ControllerKind, RegExp][] = [
  ["pio", /using PIO/],
  ["sdma", /using DMA/],
  ["adma2", /using ADMA/],
];

for (const card of CARDS) {
  for (const [controller, said] of CONTROLLERS) {
    test(`${card}, ${controller}: the whole card read, pieces written`, async () => {
      const content = pattern(11, CARD_BYTES);
      const device = openDevice({ card, controller, content });
      await withGuest(device, async (guest) => {
        assert.match(await guest.run("dmesg | grep mmc0"), said);
        assert.is(await hashInGuest(guest, "/dev/mmcblk0"), hashOf(content));
        const expected = content.slice();
        for (const [i, [block, count, seek]] of [
          [512, 1, 3],
          [512, 7, 129],
          [4096, 33, 17],
          [65536, 20, 5],
        ].entries()) {
          const lengthBytes = (block as number) * (count as number);
          const offset = (block as number) * (seek as number);
          await guest.run(`dd if=/dev/urandom of=/tmp/piece bs=${block} count=${count} 2>&1`);
          const flag = i % 2 === 0 ? "conv=fsync,notrunc" : "oflag=direct";
          await guest.run(`dd if=/tmp/piece of=/dev/mmcblk0 bs=${block} seek=${seek} ${flag} 2>&1`);
          const written = device.medium().slice(offset, offset + lengthBytes);
          assert.is(await hashInGuest(guest, "/tmp/piece"), hashOf(written), `piece ${i}`);
          expected.set(written, offset);
        }
        assert.ok(sameBytes(device.medium(), expected), "nothing else was written");
        await guest.run("sync; echo 3 > /proc/sys/vm/drop_caches");
        assert.is(await hashInGuest(guest, "/dev/mmcblk0"), hashOf(expected));
        assert.not.match(await guest.run("dmesg"), /error -\d+|REGISTER DUMP|I\/O error/);
      });
    });
  }
}

test.run();
