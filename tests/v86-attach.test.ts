// attachV86 and `mmcpstore v86` where no guest is needed: what they refuse, and that nothing was touched before.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device } from "../host/device.js";
import { attachV86 } from "../host/embed/v86.js";
import { attachV86WithPanics } from "../host/embed/v86-panic.js";
import type { MmcError } from "../host/errors.js";
import { Board, Guest } from "./embed/guest.js";
import { coreModule, pattern, ROOT, sameBytes } from "./machine.js";

const RAM_BYTES = 16 << 20;

/** As much of v86 as attachV86 asks for. */
function emulatorWith(isRunning = false, mem8 = new Uint8Array(RAM_BYTES)) {
  const changed: string[] = [];
  const line = { level: false };
  const devices: unknown[] = [];
  const registered: { pci_id: number; pci_space: number[] }[] = [];
  const cpu = {
    mem8,
    devices: {
      pci: {
        devices,
        register_device: (device: { pci_id: number; pci_space: number[] }) => {
          devices[device.pci_id] = device;
          registered.push(device);
        },
        raise_irq: () => {
          line.level = true;
        },
        lower_irq: () => {
          line.level = false;
        },
      },
    },
    io: { mmap_register: () => undefined, register_read: () => undefined, register_write: () => undefined },
    jit_dirty_cache: (start: number, end: number) => changed.push(`${start} ${end}`),
    reboot_internal: () => undefined,
    run_hardware_timers: () => 100,
    get_state: (): unknown[] => [],
    set_state: () => undefined,
  };
  return { emulator: { v86: { cpu }, is_running: () => isRunning }, registered, cpu, changed, line };
}

function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return (error as MmcError).code;
  }
  return "";
}

const device = (controller: "pio" | "adma2" = "adma2") =>
  Device.open(coreModule("embed"), { controller, sizeBytes: 1 << 19 });

test("attachV86 refuses what is no loaded emulator, and options that cannot be", () => {
  for (const emulator of [{}, { v86: {} }, { v86: { cpu: {} } }]) {
    assert.is(
      codeOf(() => attachV86(emulator, device())),
      "EINVAL",
    );
  }
  for (const options of [
    { slot: 0 },
    { slot: 32 },
    { slot: 1.5 },
    { slot: 31, onPvpanic: () => undefined },
    { address: 0 },
    { address: 0xfea00001 },
    { address: 2 ** 32 },
  ]) {
    const { emulator, registered } = emulatorWith();
    assert.is(
      codeOf(() => attachV86(emulator, device(), options)),
      "EINVAL",
      JSON.stringify(options),
    );
    assert.is(registered.length, 0);
  }
  assert.is(
    codeOf(() => attachV86(emulatorWith(true).emulator, device())),
    "EBUSY",
  );
  const { emulator } = emulatorWith();
  attachV86(emulator, device());
  assert.is(
    codeOf(() => attachV86(emulator, device())),
    "EBUSY",
    "the slot is taken",
  );
});

test("the function in the slot is an SD host, with the DMA that it has, and pvpanic beside it", () => {
  for (const [controller, interface_] of [
    ["pio", 0],
    ["adma2", 1],
  ] as const) {
    const { emulator, registered } = emulatorWith();
    attachV86(emulator, device(controller), { onPvpanic: () => undefined });
    const [sdhci, pvpanic] = registered;
    assert.equal(sdhci?.pci_space.slice(8, 12), [0, interface_, 0x05, 0x08]);
    assert.is(sdhci?.pci_id, 13 << 3);
    assert.equal(pvpanic?.pci_space.slice(0, 4), [0x36, 0x1b, 0x11, 0x00]);
    assert.is(pvpanic?.pci_id, 14 << 3);
  }
});

test("v86 hears of all RAM that a read has changed, once, and RAM is what the card holds; ROMs stay", () => {
  const board = new Board();
  const mem8 = new Uint8Array(board.ram.buffer);
  const { emulator, changed, line } = emulatorWith(false, mem8);
  const content = pattern(3, 1 << 19);
  const card = Device.open(coreModule("embed"), { controller: "adma2", content });
  const { peripheral } = attachV86(emulator, card);
  Object.defineProperty(board, "level", { get: () => line.level });
  const guest = new Guest(peripheral, board);
  guest.identify(false);
  guest.move = "adma2";
  assert.equal(changed, []);
  guest.write(9, pattern(4, 8192));
  assert.equal(changed, [], "a write changes no RAM");
  assert.ok(sameBytes(card.medium().slice(9 * 512, 25 * 512), pattern(4, 8192)));
  const read = guest.read(100, 8192, 0x20800);
  assert.equal(changed, [`${0x20800} ${0x20800 + 8192}`]);
  assert.ok(sameBytes(read, content.slice(100 * 512, 116 * 512)));
  const rom = mem8.slice(0xa0000, 0x100000);
  assert.throws(() => guest.read(0, 1024, 0xc0000), /waiting/);
  assert.ok(sameBytes(mem8.slice(0xa0000, 0x100000), rom));
});

test("panics need an area, and a region in RAM", () => {
  const onPanic = () => undefined;
  assert.is(
    codeOf(() => attachV86WithPanics(emulatorWith().emulator, device(), { onPanic })),
    "EINVAL",
  );
  const area = { offset: 0, kmsgSize: 65536, kmsgCount: 8, abi: "i386" } as const;
  const withArea = Device.open(coreModule("embed"), { sizeBytes: 1 << 19, area });
  const ramoops = { address: RAM_BYTES - 4096, sizeBytes: 8192 };
  assert.is(
    codeOf(() => attachV86WithPanics(emulatorWith().emulator, withArea, { ramoops, onPanic })),
    "EINVAL",
  );
});

test("mmcpstore v86: bad input is one line, and the disk is as it was", () => {
  const folder = mkdtempSync(join(tmpdir(), "mmcpstore-v86-"));
  const path = (name: string) => join(folder, name);
  const kernel = Buffer.alloc(4096);
  kernel.writeUInt16LE(0xaa55, 0x1fe);
  kernel.write("HdrS", 0x202);
  writeFileSync(path("kernel"), kernel);
  writeFileSync(path("empty"), "");
  writeFileSync(path("odd.img"), Buffer.alloc(700_000, 7));
  writeFileSync(path("disk.img"), Buffer.alloc(1 << 19, 7));
  const bios = ["--bios", path("kernel"), "--vga-bios", path("kernel")];
  const good = ["--kernel", path("kernel"), "--disk", path("disk.img"), ...bios];
  for (const [status, said, args] of [
    [2, /required option '--kernel/, ["--disk", path("disk.img")]],
    [2, /--memory 100M/, [...good, "--memory", "100M"]],
    [2, /--memory 384M: must be a power of two/, [...good, "--memory", "384M"]],
    [2, /--panic-after never/, [...good, "--panic-after", "never"]],
    [2, /--card mmc/, [...good, "--card", "mmc"]],
    [2, /--partition 2: cannot be combined/, [...good, "--partition", "2", "--offset", "0"]],
    [1, /none: no such file/, ["--kernel", path("none"), "--disk", path("disk.img")]],
    [1, /disk\.img: is no bzImage/, ["--kernel", path("disk.img"), "--disk", path("disk.img")]],
    [1, /empty: is empty/, [...good, "--initrd", path("empty")]],
    [1, /none: no such file; install seabios/, [...good, "--bios", path("none")]],
    [1, /odd\.img: 700000 bytes; a card/, [...good, "--disk", path("odd.img")]],
    [1, /has no partition table/, [...good, "--partition", "2"]],
  ] as const) {
    const { status: got, stderr } = spawnSync(
      process.execPath,
      [`${ROOT}dist/host/cli/main.js`, "v86", ...args],
      { encoding: "utf8" },
    );
    assert.match(stderr, said);
    assert.is(stderr.trimEnd().split("\n").length, 1, stderr);
    assert.is(got, status, stderr);
  }
  assert.ok(readFileSync(path("disk.img")).every((byte) => byte === 7));
  rmSync(folder, { recursive: true });
});

test.run();
