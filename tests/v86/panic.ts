// A guest panics while it writes to the card, and its log is there after the next boot.
import * as assert from "uvu/assert";
import type { FaultPlan } from "../../host/core/faults.js";
import { attachV86WithPanics, type HarvestedPanic } from "../../host/embed/v86-panic.js";
import { decodeArea } from "../../host/pstore/decode.js";
import { sameBytes } from "../machine.js";
import { Guest, RAMOOPS } from "./guest.js";
import {
  attachTo,
  FILE_SYSTEMS,
  files,
  guestWith,
  hashInGuest,
  hashOf,
  LOAD,
  openDevice,
  test,
} from "./session.js";

const AREA = { offset: 40 << 20, kmsgSize: 65536, kmsgCount: 16, abi: "i386" } as const;
const AREA_BYTES = AREA.kmsgSize * AREA.kmsgCount;
const CRASH = "echo c > /proc/sysrq-trigger\n";

/** A panic takes the guest far longer than a transfer by DMA takes the card: one that the card does not end holds on. */
const ENDLESS_WRITE: FaultPlan = { kind: "long-busy", delayUs: 3_600_000_000, times: 1 };
const RAMOOPS_SETUP = `modprobe pvpanic-pci && modprobe ramoops mem_address=${RAMOOPS.address} \
mem_size=${RAMOOPS.sizeBytes} record_size=65536 ecc=1 && echo 1 > /proc/sys/kernel/panic`;

for (const { source, controller, setup } of [
  { source: "ramoops", controller: "adma2", setup: RAMOOPS_SETUP },
  { source: "console", controller: "pio", setup: "true" },
] as const) {
  test(`a panic in the middle of a write survives the machine: ${source}, ${controller}`, async () => {
    const device = openDevice({ controller, sizeBytes: 41 << 20, cacheSectors: 32, area: AREA });
    let panics: HarvestedPanic[] = [];
    let isOver: () => void = () => undefined;
    const over = new Promise<void>((resolve) => {
      isOver = resolve;
    });
    const guest = await guestWith(device, "clock", (emulator) => {
      attachV86WithPanics(emulator, device, {
        timing: "clock",
        ramoops: { ...RAMOOPS, eccSize: 16 },
        onPanic: (all) => {
          panics = all;
          isOver();
        },
      });
    });
    await guest.run(LOAD);
    const table = "n\\np\\n1\\n2048\\n81919\\nn\\np\\n2\\n81920\\n83967\\nw\\n";
    await guest.run(`printf '${table}' | fdisk /dev/mmcblk0`);
    await guest.run("/sbin/mke2fs -q -t ext4 /dev/mmcblk0p1 && mount -t ext4 /dev/mmcblk0p1 /mnt");
    await guest.run("dd if=/dev/urandom of=/mnt/synced bs=64k count=20 && sync");
    const synced = await hashInGuest(guest, "/mnt/synced");
    await guest.run(setup);
    const { storedSectors } = device.state();
    guest.type("dd if=/dev/zero of=/mnt/lost bs=256k oflag=direct &\n");
    while (device.state().storedSectors - storedSectors < 4000n) await guest.pause();
    if (controller === "adma2") device.injectFault(ENDLESS_WRITE);
    guest.type(CRASH);
    await over;
    // The machine is switched off: its RAM is gone, the card is cut as it stands.
    await guest.destroy();
    const [panic] = panics;
    assert.ok(panic);
    assert.is(panics.length, 1);
    assert.is(panic.source, source);
    assert.is(panic.result.status, 0);
    assert.ok(["rcv", "prg"].includes(panic.result.cardState ?? ""), `found in ${panic.result.cardState}`);
    device.powerCut("torn-low", "lost");
    const area = device.medium().slice(AREA.offset, AREA.offset + AREA_BYTES);
    const [record] = decodeArea(area).records;
    assert.is(record?.name, "dmesg-pstore_blk-0");
    assert.is(record?.reason, "Panic");
    assert.match(
      Buffer.from(panic.text).toString("latin1"),
      /Kernel panic - not syncing: sysrq triggered crash/,
    );
    device.powerOn();

    const next = await Guest.create(files, { attach: attachTo(device) });
    await next.boot();
    await next.run(LOAD);
    await next.run("modprobe pstore_blk blkdev=/dev/mmcblk0p2 best_effort=y kmsg_size=64 max_reason=2");
    await next.run("mount -t pstore pstore /sys/fs/pstore");
    assert.is(await next.run("ls /sys/fs/pstore"), "dmesg-pstore_blk-0");
    const file = await next.run("base64 /sys/fs/pstore/dmesg-pstore_blk-0");
    assert.ok(
      sameBytes(Buffer.from(file, "base64"), record?.bytes ?? new Uint8Array()),
      "Linux shows the record",
    );
    // What a power cut leaves: a journal to replay, and nothing that was synced is gone.
    await next.run(FILE_SYSTEMS);
    const { status, output } = await next.try("/sbin/e2fsck -fy /dev/mmcblk0p1");
    assert.match(output, /recovering journal/);
    assert.ok(status <= 1, output);
    await next.run("/sbin/e2fsck -fn /dev/mmcblk0p1");
    await next.run("mount -t ext4 /dev/mmcblk0p1 /mnt");
    assert.is(await hashInGuest(next, "/mnt/synced"), synced);
    await next.destroy();
    console.log(
      `# panic found the card in ${panic.result.cardState}, record ${hashOf(panic.text).slice(0, 8)}`,
    );
  });
}
