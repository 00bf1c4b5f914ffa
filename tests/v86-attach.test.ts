// attachV86 and `mmcpstore v86` where no guest is needed: what they refuse, and that nothing was touched before.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device } from "../host/device.js";
import { readRamoops } from "../host/embed/ramoops.js";
import { attachV86, type V86Options } from "../host/embed/v86.js";
import { attachV86WithPanics, type HarvestedPanic } from "../host/embed/v86-panic.js";
import type { MmcError } from "../host/errors.js";
import { decodeArea } from "../host/pstore/decode.js";
import { Board, Guest } from "./embed/guest.js";
import { coreModule, pattern, ROOT, sameBytes, textOf } from "./machine.js";

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
    run_hardware_timers: (_acpi: unknown, _nowMs: number) => 100,
    get_state: (): unknown[] => [],
    set_state: (_state: unknown[]) => undefined,
  };
  const heard: ((byte: number) => void)[] = [];
  const emulator = {
    v86: { cpu },
    is_running: () => isRunning,
    add_listener: (_event: string, listener: (byte: number) => void) => heard.push(listener),
  };
  const say = (text: string) => {
    for (const byte of Buffer.from(text)) for (const listener of heard) listener(byte);
  };
  return { emulator, say, registered, cpu, changed, line };
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

/** A machine whose guest has identified the card. */
function machineOf(options: V86Options = {}) {
  const board = new Board();
  const machine = emulatorWith(false, new Uint8Array(board.ram.buffer));
  const card = Device.open(coreModule("embed"), { controller: "adma2", content: pattern(3, 1 << 19) });
  const { peripheral } = attachV86(machine.emulator, card, options);
  Object.defineProperty(board, "level", { get: () => machine.line.level });
  const guest = new Guest(peripheral, board);
  guest.identify(false);
  return { ...machine, board, card, peripheral, guest };
}

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
  const { board, card, changed, guest } = machineOf();
  const content = pattern(3, 1 << 19);
  guest.move = "adma2";
  assert.equal(changed, []);
  guest.write(9, pattern(4, 8192));
  assert.equal(changed, [], "a write changes no RAM");
  assert.ok(sameBytes(card.medium().slice(9 * 512, 25 * 512), pattern(4, 8192)));
  const read = guest.read(100, 8192, 0x20800);
  assert.equal(changed, [`${0x20800} ${0x20800 + 8192}`]);
  assert.ok(sameBytes(read, content.slice(100 * 512, 116 * 512)));
  const rom = board.ram.slice(0xa0000, 0x100000);
  assert.throws(() => guest.read(0, 1024, 0xc0000), /waiting/);
  assert.ok(sameBytes(board.ram.slice(0xa0000, 0x100000), rom));
});

test("v86's timers: an interrupt that another function has lowered is raised again; sleep ends when the card is due", () => {
  const { cpu, line, peripheral, guest } = machineOf({ timing: "clock" });
  cpu.run_hardware_timers(0, 5000);
  guest.move = "adma2";
  peripheral.write32(0x08, 1 << 16);
  peripheral.write16(0x0e, 0x0d1a);
  assert.is(line.level, false);
  const sleepMs = cpu.run_hardware_timers(0, 5000);
  assert.ok(sleepMs > 0 && sleepMs < 1, `${sleepMs} ms until CMD13 is answered`);
  assert.is(cpu.run_hardware_timers(0, 5001), 100, "nothing is due");
  assert.is(line.level, true);
  line.level = false;
  cpu.run_hardware_timers(0, 5002);
  assert.is(line.level, true);
  peripheral.write32(0x30, peripheral.read32(0x30));
  assert.is(line.level, false);
  cpu.run_hardware_timers(0, 5003);
  assert.is(line.level, false);
});

test("a reset takes the card's supply, behind onReset; a state without a card does, too", () => {
  const seen: number[] = [];
  const machine = machineOf({ onReset: () => seen.push(machine.peripheral.read8(0x29)) });
  machine.cpu.reboot_internal();
  assert.equal(seen, [0x0f], "the supply is still on");
  assert.is(machine.peripheral.read8(0x29), 0);
  machine.guest.identify(false);
  machine.cpu.set_state([]);
  assert.is(machine.peripheral.read8(0x29), 0);
});

test("a state goes on in another machine at another time of day, in mid-transfer too", () => {
  const first = machineOf({ timing: "clock" });
  first.cpu.run_hardware_timers(0, 5000);
  first.guest.move = "adma2";
  first.guest.prepare(4096, 0x10000);
  first.peripheral.write32(0x08, 0);
  first.peripheral.write16(0x0c, 0x37);
  first.peripheral.write16(0x0e, 0x123a);
  // The command is through, no block is.
  first.cpu.run_hardware_timers(0, 5000.05);
  const state = structuredClone(first.cpu.get_state());
  const second = machineOf({ timing: "clock" });
  second.cpu.run_hardware_timers(0, 1_000_000);
  second.board.ram.set(first.board.ram);
  second.cpu.set_state(state);
  assert.ok(second.board.ram.slice(0x10000, 0x11000).every((byte) => byte === 0));
  const before = second.card.state().timeNs;
  second.cpu.run_hardware_timers(0, 7);
  assert.is(second.card.state().timeNs, before, "its time goes on from where it was");
  for (let ms = 8; ms < 20; ms++) second.cpu.run_hardware_timers(0, ms);
  assert.is(second.peripheral.read32(0x30) & 0xffff0002, 2);
  assert.ok(sameBytes(second.board.ram.slice(0x10000, 0x11000), pattern(3, 4096)));
});

test("a panic goes to the card: from ramoops, with its time, else from the console; an Oops that is survived does not", () => {
  const region = gunzipSync(readFileSync(`${ROOT}tests/data/ramoops/plain-1MiB.bin.gz`));
  const ramoops = { address: 4 << 20, sizeBytes: 1 << 20, recordSize: 0x20000, eccSize: 0 };
  const area = { offset: 0, kmsgSize: 65536, kmsgCount: 8, abi: "i386" } as const;
  const END = "---[ end Kernel panic - not syncing: x ]---\n";
  for (const source of ["ramoops", "console"] as const) {
    const { emulator, say, cpu } = emulatorWith();
    const card = Device.open(coreModule("embed"), { sizeBytes: 1 << 20, area });
    const panics: HarvestedPanic[] = [];
    let resets = 0;
    attachV86WithPanics(emulator, card, {
      ramoops: source === "ramoops" ? ramoops : undefined,
      onPanic: (all) => panics.push(...all),
      onReset: () => resets++,
    });
    say("[    1.000000] Oops: 0002 [#1] SMP\n");
    cpu.reboot_internal();
    assert.equal([panics.length, resets], [0, 1]);
    if (source === "ramoops") cpu.mem8.set(region, ramoops.address);
    say(`[    2.000000] Kernel panic - not syncing: x\n[    2.100000] ${END}`);
    assert.is(panics.length, 1, source);
    const [panic] = panics;
    assert.is(panic?.source, source);
    assert.is(panic?.result.status, 0);
    const [record] = decodeArea(card.medium().slice(0, 8 * 65536)).records;
    assert.is(record?.reason, "Panic");
    assert.ok(record && panic && sameBytes(textOf(record), panic.text));
    const words = source === "ramoops" ? /sysrq|Kernel panic/ : /not syncing: x/;
    assert.match(Buffer.from(panic?.text ?? []).toString("latin1"), words);
    if (source === "ramoops") {
      const [found] = readRamoops(region, {
        recordSize: ramoops.recordSize,
        eccSize: ramoops.eccSize,
      }).records;
      assert.is(record?.timeSec, found?.timeSec);
    }
    cpu.reboot_internal();
    assert.is(panics.length, 1, "once");
  }
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
