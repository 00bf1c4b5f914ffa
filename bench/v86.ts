// `npm run bench:v86`: how fast an unmodified Linux in v86 reads and writes our card, by each kind of DMA, against v86's
// own IDE disk in the same guest and the same run; and how long after modprobe the card is there. Medians of ROUNDS,
// behind rounds in which v86 and Node still compile; a ratio is that of two transfers next to each other. Which disk is
// first changes with each round: the second one finds the processor's cache full of what the first has moved.
// Usage: npm run bench:v86 [-- pio|sdma|adma2 …]
import { Device } from "../host/device.js";
import { attachV86 } from "../host/embed/v86.js";
import { coreModule } from "../tests/machine.js";
import { Guest, guestFiles } from "../tests/v86/guest.js";

const DISK_BYTES = 32 << 20;
const MIB = DISK_BYTES / 2 ** 20;
const WARM_UP_ROUNDS = 8;
const ROUNDS = 16;
const CONTROLLERS = ["pio", "sdma", "adma2"] as const;

const wanted = process.argv.slice(2);
const controllers = CONTROLLERS.filter((name) => wanted.length === 0 || wanted.includes(name));

const files = guestFiles();

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

/** Seconds that a command takes, by the clock of the host; what an empty one takes is subtracted. */
async function timed(guest: Guest, command: string): Promise<number> {
  const measure = async (what: string) => {
    const started = performance.now();
    await guest.run(what, 300_000);
    return (performance.now() - started) / 1000;
  };
  return Math.max(1e-3, (await measure(command)) - (await measure("true")));
}

const READ = (node: string) => `dd if=${node} of=/dev/null bs=1M count=${MIB} iflag=direct 2>/dev/null`;
const WRITE = (node: string) => `dd if=/dev/zero of=${node} bs=1M count=${MIB} oflag=direct 2>/dev/null`;

const started = performance.now();
let booted: ArrayBuffer | null = null;

for (const controller of controllers) {
  const device = Device.open(coreModule("embed"), { controller, sizeBytes: DISK_BYTES });
  const options = {
    ide: new ArrayBuffer(DISK_BYTES),
    attach: (emulator: object) => attachV86(emulator, device),
  };
  let guest: Guest;
  if (booted === null) {
    guest = await Guest.create(files, options);
    await guest.boot();
    console.log(`shell after ${((performance.now() - started) / 1000).toFixed(1)} s`);
    booted = await guest.saveWithoutCard();
    await guest.emulator.run();
  } else {
    guest = await Guest.resume(files, booted, options);
  }
  const loading = performance.now();
  await guest.run(
    "modprobe sdhci-pci && modprobe mmc_block; while [ ! -b /dev/mmcblk0 ]; do sleep 0.01; done",
  );
  const loadedMs = performance.now() - loading;
  await guest.run(
    "modprobe ata_piix && modprobe sd_mod; while [ ! -b /dev/sda ]; do sleep 0.01; done",
    120_000,
  );
  const rows: Record<string, number[]> = {};
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    const rates = new Map<string, number>();
    const disks = [
      ["IDE", "/dev/sda"],
      ["card", "/dev/mmcblk0"],
    ] as const;
    for (const command of [READ, WRITE]) {
      for (const [name, node] of round % 2 === 0 ? disks : disks.toReversed()) {
        const what = command === READ ? "read" : "write";
        rates.set(`${name} ${what}`, MIB / (await timed(guest, command(node))));
      }
    }
    if (round < 0) continue;
    for (const what of ["read", "write"]) {
      const card = rates.get(`card ${what}`) ?? Number.NaN;
      const ide = rates.get(`IDE ${what}`) ?? Number.NaN;
      for (const [name, value] of [
        [`card ${what}`, card],
        [`IDE ${what}`, ide],
        [`ratio ${what}`, card / ide],
      ] as const) {
        rows[name] = [...(rows[name] ?? []), value];
      }
    }
  }
  const of = (name: string) => median(rows[name] ?? []);
  const line = (what: string) =>
    `${what} ${of(`card ${what}`).toFixed(0)} MiB/s (IDE ${of(`IDE ${what}`).toFixed(0)}), ` +
    `ratio ${of(`ratio ${what}`).toFixed(2)}`;
  const readyText = `mmcblk0 ${(loadedMs / 1000).toFixed(2)} s after modprobe`;
  console.log(`${controller.padEnd(6)} ${line("read")}; ${line("write")}; ${readyText}`);
  await guest.destroy();
}
process.exit(0);
