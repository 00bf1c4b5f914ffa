// The card in the hands of Linux: every kind of DMA, file systems, boot partitions, discard, faults, saved states.
import * as assert from "uvu/assert";
import { MEDIUM_BASE } from "../../assembly/layout.js";
import type { ControllerKind } from "../../host/core/controllers.js";
import type { FaultPlan } from "../../host/core/faults.js";
import type { DeviceOptions } from "../../host/device-options.js";
import { readPartitions } from "../../host/image/partitions.js";
import { pattern, sameBytes } from "../machine.js";
import { BOOT_TIMEOUT_MS, Guest } from "./guest.js";
import {
  attachTo,
  CARD_BYTES,
  FILE_SYSTEMS,
  files,
  guestWith,
  hashInGuest,
  hashOf,
  imageOf,
  LOAD,
  openDevice,
  test,
  withGuest,
} from "./session.js";

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

/** Files of several sizes on a new file system, and one list of their hashes. */
const FILL = `mkdir /mnt/d && for n in 1 511 4096 70000 900000; do
head -c $n /dev/urandom > /mnt/d/$n; done; sync; sha256sum /mnt/d/*`;

test("a partition table, ext4 and vfat survive a reboot of the guest", async () => {
  const device = openDevice({ controller: "adma2", sizeBytes: 48 << 20, cacheSectors: 32 });
  await withGuest(device, async (guest) => {
    const table = "n\\np\\n1\\n2048\\n65535\\nn\\np\\n2\\n65536\\n98303\\nt\\n2\\nc\\nw\\n";
    await guest.run(`printf '${table}' | fdisk /dev/mmcblk0`);
    await guest.run("/sbin/mke2fs -q -t ext4 /dev/mmcblk0p1 && mount -t ext4 /dev/mmcblk0p1 /mnt");
    const ext4 = await guest.run(FILL);
    await guest.run("umount /mnt && mkdosfs /dev/mmcblk0p2 && mount -t vfat /dev/mmcblk0p2 /mnt");
    const vfat = await guest.run(FILL);
    assert.is(ext4.split("\n").length, 5);
    guest.type("sync; reboot -f\n");
    await guest.waitFor(/^@shell$/m, BOOT_TIMEOUT_MS);
    await guest.run(LOAD);
    await guest.run(FILE_SYSTEMS);
    await guest.run("/sbin/e2fsck -fn /dev/mmcblk0p1");
    await guest.run("mount -t ext4 /dev/mmcblk0p1 /mnt");
    assert.is(await guest.run("sha256sum /mnt/d/*"), ext4);
    await guest.run("umount /mnt && mount -t vfat /dev/mmcblk0p2 /mnt");
    assert.is(await guest.run("sha256sum /mnt/d/*"), vfat);
    await guest.run("umount /mnt");
    // What lies on the medium is what the guest sees: the host finds the same table.
    const partitions = await readPartitions(imageOf(device.medium()));
    assert.equal(
      partitions.map(({ offset, sizeBytes }) => [offset / 512, sizeBytes / 512]),
      [
        [2048, 63488],
        [65536, 32768],
      ],
    );
  });
});

test("the boot partitions of an eMMC are devices of their own", async () => {
  const bootBytes = 1 << 20;
  const content = pattern(12, CARD_BYTES);
  const device = openDevice({ controller: "adma2", content, bootBytes });
  await withGuest(device, async (guest) => {
    for (const [i, name] of ["mmcblk0boot0", "mmcblk0boot1"].entries()) {
      assert.is(await guest.run(`cat /sys/block/${name}/size`), `${bootBytes / 512}`);
      await guest.run(`echo 0 > /sys/block/${name}/force_ro`);
      await guest.run(
        `dd if=/dev/urandom of=/tmp/boot bs=64k count=16 && dd if=/tmp/boot of=/dev/${name} bs=64k`,
      );
      await guest.run("sync; echo 3 > /proc/sys/vm/drop_caches");
      const hash = await hashInGuest(guest, "/tmp/boot");
      assert.is(await hashInGuest(guest, `/dev/${name}`), hash);
      // Behind the user area in the machine's memory, one behind the other.
      const start = MEDIUM_BASE + CARD_BYTES + i * bootBytes;
      assert.is(hashOf(new Uint8Array(device.memory.buffer, start, bootBytes)), hash);
    }
    assert.ok(sameBytes(device.medium(), content), "the user area is as it was");
  });
});

for (const card of ["emmc", "sd"] as const) {
  test(`${card}: discarded sectors are erased on the medium, and no others`, async () => {
    const content = pattern(13, CARD_BYTES);
    const device = openDevice({ card, controller: "adma2", content });
    await withGuest(device, async (guest) => {
      await guest.run("blkdiscard -o 1048576 -l 2097152 /dev/mmcblk0");
      const expected = content.slice();
      expected.fill(0, 1 << 20, 3 << 20);
      assert.ok(sameBytes(device.medium(), expected));
      await guest.run("echo 3 > /proc/sys/vm/drop_caches");
      assert.is(await hashInGuest(guest, "/dev/mmcblk0"), hashOf(expected));
    });
  });
}

interface Fault {
  plan: FaultPlan;
  /** Reads or writes sectors 4096 to 4103. */
  command: string;
  /** Whether the command fails in the guest, with EIO. */
  fails: boolean;
  /** The counter of the kernel's err_stats that rises: ETIMEDOUT or EILSEQ, of a command or of data. */
  counter: string;
  /** What dmesg has. */
  said?: RegExp;
}

const READ = "dd if=/dev/mmcblk0 of=/dev/null bs=4096 skip=512 count=1 iflag=direct";
const WRITE = "dd if=/tmp/piece of=/dev/mmcblk0 bs=4096 seek=512 count=1 oflag=direct conv=notrunc";
/** One sector: the kernel tells of ten failed ones within 5 s, and keeps silent about more. */
const PLACE = { firstLba: 4096, lastLba: 4096 };
const READ_FAILED = /I\/O error, dev mmcblk0, sector 4096 op 0x0:\(READ\)/;
const WRITE_FAILED = /I\/O error, dev mmcblk0, sector 4096 op 0x1:\(WRITE\)/;
const FAULTS: Fault[] = [
  {
    plan: { kind: "read-ecc", ...PLACE },
    command: READ,
    fails: true,
    counter: "Data Timeout",
    said: READ_FAILED,
  },
  {
    plan: { kind: "read-crc", ...PLACE },
    command: READ,
    fails: true,
    counter: "Data CRC",
    said: READ_FAILED,
  },
  { plan: { kind: "read-crc", times: 1, ...PLACE }, command: READ, fails: false, counter: "Data CRC" },
  {
    plan: { kind: "no-response", times: 1, command: 18 },
    command: READ,
    fails: false,
    counter: "Command Timeout",
  },
  {
    plan: { kind: "response-crc", times: 1, command: 18 },
    command: READ,
    fails: false,
    counter: "Command CRC",
  },
  {
    plan: { kind: "vanish", times: 1, command: 18 },
    command: READ,
    fails: false,
    counter: "Command Timeout",
  },
  { plan: { kind: "write-crc", times: 1, ...PLACE }, command: WRITE, fails: false, counter: "Data CRC" },
  {
    plan: { kind: "program", ...PLACE },
    command: WRITE,
    fails: true,
    counter: "Data CRC",
    said: WRITE_FAILED,
  },
  {
    plan: { kind: "illegal", times: 1, command: 25 },
    command: WRITE,
    fails: false,
    counter: "Command Timeout",
  },
  {
    plan: { kind: "stuck-busy", times: 1, until: "power-cycle", ...PLACE },
    command: WRITE,
    fails: false,
    counter: "Data Timeout",
    said: /Card stuck being busy/,
  },
];

test("faults of the bus and the card reach the kernel, which recovers", async () => {
  const content = pattern(14, CARD_BYTES);
  const device = openDevice({ controller: "adma2", content });
  await withGuest(device, async (guest) => {
    await guest.run("mount -t debugfs debugfs /sys/kernel/debug");
    await guest.run("dd if=/dev/urandom of=/tmp/piece bs=4096 count=1");
    const count = async (counter: string) => {
      const stats = await guest.run("cat /sys/kernel/debug/mmc0/err_stats");
      return Number(new RegExp(`# ${counter}( Errors)? Occurred:\\s+(\\d+)`).exec(stats)?.[2]);
    };
    for (const { plan, command, fails, counter, said } of FAULTS) {
      const what = `${plan.kind}, ${plan.times ?? "for ever"}`;
      await guest.run("dmesg -c > /dev/null");
      const before = await count(counter);
      device.injectFault(plan);
      const { status, output } = await guest.try(`${command} 2>&1`);
      device.clearFaults();
      assert.is(status !== 0, fails, `${what}: ${output}`);
      if (fails) assert.match(output, /Input\/output error/, what);
      assert.ok((await count(counter)) > before, `${what}: ${counter}`);
      if (said) {
        const dmesg = await guest.run("dmesg");
        assert.match(dmesg, said, `${what}: ${dmesg}`);
      }
      // The same once more, without the fault.
      await guest.run(`${command} 2>&1`);
    }
    // Only what was written has changed.
    const written = device.medium().slice(4096 * 512, 4104 * 512);
    assert.is(hashOf(written), await hashInGuest(guest, "/tmp/piece"));
    content.set(written, 4096 * 512);
    assert.ok(sameBytes(device.medium(), content));
  });
});

test("errors during identification: the kernel names them and tries again", async () => {
  const content = pattern(15, CARD_BYTES);
  const device = openDevice({ controller: "adma2", content });
  const guest = await guestWith(device);
  try {
    // EXT_CSD comes as a block behind CMD8; CMD9 is asked four times.
    device.injectFault({ kind: "read-crc", firstLba: 0xffffffff, lastLba: 0xffffffff, times: 1 }, 0);
    device.injectFault({ kind: "no-response", command: 9, skip: 1, times: 4 }, 1);
    await guest.run(LOAD);
    const said = await guest.run("dmesg | grep mmc0");
    assert.match(said, /mmc0: error -84 whilst initialising MMC card/);
    assert.match(said, /mmc0: error -110 whilst initialising MMC card/);
    assert.is(await hashInGuest(guest, "/dev/mmcblk0"), hashOf(content));
  } finally {
    await guest.destroy();
  }
});

test("a card is pulled while it is read, and put back", async () => {
  const content = pattern(16, CARD_BYTES);
  const device = openDevice({ card: "sd", controller: "adma2", content });
  await withGuest(device, async (guest) => {
    device.insertCard(false);
    await guest.run(
      "for i in $(seq 100); do [ -b /dev/mmcblk0 ] || break; sleep 0.1; done; [ ! -b /dev/mmcblk0 ]",
    );
    assert.match(await guest.run("dmesg"), /mmc0: card [0-9a-f]+ removed/);
    device.insertCard(true);
    await guest.run(
      "for i in $(seq 100); do [ -b /dev/mmcblk0 ] && break; sleep 0.1; done; [ -b /dev/mmcblk0 ]",
    );
    assert.is(await hashInGuest(guest, "/dev/mmcblk0"), hashOf(content));
  });
});

for (const timing of ["instant", "clock"] as const) {
  test(`a state saved in the middle of a write goes on in another machine (${timing})`, async () => {
    const options: DeviceOptions = { controller: "adma2", cacheSectors: 32 };
    const device = openDevice(options);
    const guest = await guestWith(device, timing);
    await guest.run(LOAD);
    await guest.run("dd if=/dev/urandom of=/tmp/piece bs=64k count=96");
    guest.type(
      "(dd if=/tmp/piece of=/dev/mmcblk0 bs=16k oflag=direct conv=notrunc,fsync; echo @written) 2>&1 &\n",
    );
    const before = device.state().storedSectors;
    while (device.state().storedSectors - before < 2000n) await guest.pause();
    await guest.emulator.stop();
    const state = await guest.emulator.save_state();
    const { storedSectors } = device.state();
    assert.ok(storedSectors - before < 12000n, "it is in the middle");

    const other = openDevice(options);
    const resumed = await Guest.resume(files, state, { attach: attachTo(other, timing) });
    assert.is(other.state().storedSectors, storedSectors);
    for (const [one, itsDevice] of [
      [resumed, other],
      [guest, device],
    ] as const) {
      await one.emulator.run();
      await one.waitFor(/^@written$/m, 60_000);
      const hash = await hashInGuest(one, "/tmp/piece");
      assert.is(hashOf(itsDevice.medium().subarray(0, 96 << 16)), hash);
      await one.run("echo 3 > /proc/sys/vm/drop_caches");
      assert.is(
        (await one.run("dd if=/dev/mmcblk0 bs=64k count=96 2>/dev/null | sha256sum")).slice(0, 64),
        hash,
      );
      await one.destroy();
    }
  });
}
