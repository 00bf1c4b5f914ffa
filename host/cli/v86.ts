// `mmcpstore v86`: a guest in v86 with an image as its eMMC or SD card, its serial console on the terminal, and its
// panics written to the card. The v86 package is loaded when it is needed and need not be there. IMAGE is written by
// the card, sector by sector; nothing else is.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import type { ControllerKind } from "../core/controllers.js";
import type { Device } from "../device.js";
import type { GuestTiming } from "../embed/peripheral.js";
import { reloadOnReboot } from "../embed/v86.js";
import { MmcError } from "../errors.js";
import { findArea } from "../image/area.js";
import { fileError } from "../image/file-error.js";
import { checkRaw, describeForeign, judgeArea } from "../image/judge.js";
import { openRaw, type RawImage } from "../image/raw.js";
import { attachV86, attachV86WithPanics, type HarvestedPanic } from "../index.js";
import { checkDisk, type ImageArea, openDiskDevice } from "../node.js";
import { decodeArea } from "../pstore/decode.js";
import { recordName } from "../pstore/names.js";
import { checkGeometry } from "./open-area.js";
import {
  addAreaOptions,
  addForceOption,
  addGeometryOptions,
  checkImageOptions,
  type ImageOptions,
  parseChoice,
  parseSize,
} from "./options.js";
import { counted, formatSize, remark, UsageError } from "./output.js";
import { describeFailure, describeTakeover } from "./panic-report.js";

const CARDS = ["emmc", "sd", "sdsc"] as const;
const CONTROLLERS = ["adma2", "sdma", "pio"] as const;
const TIMINGS = ["instant", "clock"] as const;
const SEABIOS = "/usr/share/seabios";
const MEMORY_BYTES = 256 * 2 ** 20;
/** The initrd begins at 64 MiB. */
const MEMORY_BYTES_MIN = 128 * 2 ** 20;
const MEMORY_BYTES_MAX = 2 ** 31;
/** Where v86 puts kernel and initrd. */
const KERNEL_ADDRESS = 2 ** 20;
const INITRD_ADDRESS = 64 * 2 ** 20;
const RAMOOPS_BYTES = 2 ** 20;
/** From the end of RAM, whose last 16 MiB SeaBIOS keeps. */
const RAMOOPS_FROM_END_BYTES = 32 * 2 ** 20;
const ECC_BYTES = 16;
/** Ctrl-], as telnet has it. */
const EXIT_KEY = 0x1d;
/** Alt, SysRq and C of a PC keyboard, pressed and released. */
const ALT_SYSRQ_C = [0x38, 0x54, 0x2e, 0xae, 0xd4, 0xb8];
const PANIC_AFTER_MAX_SEC = 86_400;

interface V86CommandOptions extends ImageOptions {
  force?: boolean;
  kernel: string;
  initrd?: string;
  disk: string;
  append: string;
  memory: number;
  card: (typeof CARDS)[number];
  controller: (typeof CONTROLLERS)[number];
  timing: GuestTiming;
  bios: string;
  vgaBios: string;
  panicAfter?: number;
}

/** What of v86's emulator object is used here; the rest is in host/embed/v86.ts. */
interface Emulator {
  add_listener(event: string, listener: (argument: number) => void): void;
  run(): Promise<void>;
  stop(): Promise<void>;
  destroy(): Promise<void>;
  serial_send_bytes(port: number, bytes: Uint8Array): void;
  keyboard_send_scancodes(codes: number[]): void;
}

async function loadV86(): Promise<{ V86: new (options: object) => Emulator; wasmPath: string }> {
  try {
    const { V86 } = (await import("v86")) as unknown as { V86: new (options: object) => Emulator };
    return { V86, wasmPath: fileURLToPath(import.meta.resolve("v86/build/v86.wasm")) };
  } catch (cause) {
    throw new MmcError("ENOENT", "v86: the package is not installed; npm install v86", { cause });
  }
}

function readBytes(path: string, hint = ""): ArrayBuffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const failure = fileError(path, error);
    throw new MmcError(failure.code, `${failure.message}${hint}`, { cause: error });
  }
  if (bytes.length === 0) throw new MmcError("EINVAL", `${path}: is empty`);
  return new Uint8Array(bytes).buffer;
}

function readKernel(path: string): ArrayBuffer {
  const bytes = readBytes(path);
  const head = Buffer.from(bytes, 0, Math.min(0x210, bytes.byteLength));
  const isBzImage = head.length === 0x210 && head.readUInt16LE(0x1fe) === 0xaa55;
  if (!isBzImage || head.toString("latin1", 0x202, 0x206) !== "HdrS") {
    throw new MmcError("EINVAL", `${path}: is no bzImage of Linux`);
  }
  return bytes;
}

function checkFits(path: string, bytes: ArrayBuffer, roomBytes: number): void {
  if (bytes.byteLength <= roomBytes) return;
  throw new MmcError(
    "EFBIG",
    `${path}: ${bytes.byteLength} bytes, the guest's memory has room for ${formatSize(roomBytes)} of it`,
  );
}

/** Where panics go: what the user named, or an area that holds zones; a disk may have none. */
async function findPanicArea(image: RawImage, options: V86CommandOptions): Promise<ImageArea | null> {
  const { partition, offset, size, kmsgSize, pmsgSize, consoleSize, ftraceSize } = options;
  const isNamed = partition !== undefined || offset !== undefined || size !== undefined;
  const area = await findArea(image, { partition, offset, size }).catch((error: unknown) => {
    if (isNamed || !(error instanceof MmcError) || error.code !== "ENOENT") throw error;
    return null;
  });
  if (area === null) return null;
  checkGeometry(options, area.sizeBytes);
  const bytes = await image.read(area.offset, area.sizeBytes);
  const sizes = { kmsgSize, pmsgSize, consoleSize, ftraceSize };
  const decoded = decodeArea(bytes, { ...sizes, abi: options.abi });
  let { geometry } = decoded;
  if (!geometry.found && !isNamed) return null;
  const foreign = judgeArea(bytes, decoded, decodeArea(bytes)).find(
    ({ kind, zone }) => kind === "foreign" && zone !== null,
  );
  if (foreign !== undefined && !options.force) {
    // A guest's file system may hold copies of zones; nobody has said that they are where its panics go.
    if (!isNamed) return null;
    throw new MmcError(
      "EUCLEAN",
      `${image.name}: holds ${describeForeign(foreign, area.offset)}; --force overwrites it`,
    );
  }
  // v86 has 32-bit guests only.
  if (!geometry.found) geometry = decodeArea(bytes, { ...sizes, abi: options.abi ?? "i386" }).geometry;
  return { offset: area.offset, sizeBytes: area.sizeBytes, geometry };
}

function describePanic({ source, text, result }: HarvestedPanic): string {
  const from = source === "ramoops" ? "ramoops" : "the serial console";
  if (result.status !== 0) return `the guest's panic could not be written: ${describeFailure(result)}`;
  const name = recordName("kmsg", result.zone);
  return (
    `${name}: ${counted(text.length - result.droppedBytes, "byte")} from ${from}; ` +
    `the card was in ${describeTakeover(result)}`
  );
}

/** Runs the guest until it halts, panics, or the user leaves; whether all went well. */
async function runGuest(
  emulator: Emulator,
  device: Device,
  area: ImageArea | null,
  options: V86CommandOptions,
) {
  const { timing } = options;
  let panics: HarvestedPanic[] = [];
  let end: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const ramoops = { ...ramoopsOf(options.memory), eccSize: ECC_BYTES };
  if (area === null) attachV86(emulator, device, { timing });
  else {
    attachV86WithPanics(emulator, device, {
      timing,
      ramoops,
      onPanic: (all) => {
        panics = all;
        end();
      },
    });
  }
  reloadOnReboot(emulator);
  emulator.add_listener("serial0-output-byte", (byte) => process.stdout.write(Uint8Array.of(byte)));
  emulator.add_listener("cpu-event-halt", end);
  const onInput = (data: Uint8Array) => {
    if (process.stdin.isTTY && data.includes(EXIT_KEY)) end();
    else emulator.serial_send_bytes(0, data);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, end);
  process.stdin.on("data", onInput);
  if (process.stdin.isTTY) process.stdin.setRawMode(true);
  let timer: ReturnType<typeof setTimeout> | undefined;
  if (options.panicAfter !== undefined) {
    timer = setTimeout(() => emulator.keyboard_send_scancodes(ALT_SYSRQ_C), options.panicAfter * 1000);
  }
  try {
    await emulator.run();
    await ended;
  } finally {
    clearTimeout(timer);
    await emulator.stop();
    await emulator.destroy();
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    process.stdin.off("data", onInput);
    process.stdin.pause();
  }
  return panics;
}

function ramoopsOf(memoryBytes: number): { address: number; sizeBytes: number } {
  return { address: memoryBytes - RAMOOPS_FROM_END_BYTES, sizeBytes: RAMOOPS_BYTES };
}

function commandLineOf(options: V86CommandOptions): string {
  const { address, sizeBytes } = ramoopsOf(options.memory);
  const parts = [
    "console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on",
    `memmap=${sizeBytes}$${address}`,
    `ramoops.mem_address=${address} ramoops.mem_size=${sizeBytes} ramoops.record_size=65536 ramoops.ecc=1`,
  ];
  if (options.panicAfter !== undefined) parts.push("sysrq_always_enabled");
  if (options.append !== "") parts.push(options.append);
  return parts.join(" ");
}

async function boot(options: V86CommandOptions): Promise<void> {
  checkImageOptions(options);
  const { V86, wasmPath } = await loadV86();
  const kernel = readKernel(options.kernel);
  const initrd = options.initrd === undefined ? undefined : readBytes(options.initrd);
  checkFits(options.kernel, kernel, INITRD_ADDRESS - KERNEL_ADDRESS);
  const initrdRoomBytes = ramoopsOf(options.memory).address - INITRD_ADDRESS;
  if (initrd) checkFits(options.initrd ?? "", initrd, initrdRoomBytes);
  const hint = "; install seabios, or name one";
  const bios = readBytes(options.bios, `${hint} with --bios`);
  const vgaBios = readBytes(options.vgaBios, `${hint} with --vga-bios`);
  const image = openRaw(options.disk, { writable: true });
  let panics: HarvestedPanic[] = [];
  try {
    if (!options.force) await checkRaw(image);
    checkDisk(image);
    const area = await findPanicArea(image, options);
    const device = openDiskDevice(image, area, {
      card: options.card,
      controller: options.controller satisfies ControllerKind,
    });
    const panicsGo =
      area === null
        ? "no pstore area was found, panics are not kept; name one with --partition or --offset"
        : `panics go to ${formatSize(area.sizeBytes)} at ${area.offset}`;
    remark(`${image.name}: ${formatSize(image.sizeBytes)}, ${panicsGo}`);
    if (process.stdin.isTTY) remark("Ctrl-] ends the machine");
    const emulator = new V86({
      wasm_path: wasmPath,
      memory_size: options.memory,
      acpi: false,
      autostart: false,
      disable_speaker: true,
      bios: { buffer: bios },
      vga_bios: { buffer: vgaBios },
      bzimage: { buffer: kernel },
      ...(initrd ? { initrd: { buffer: initrd } } : {}),
      cmdline: commandLineOf(options),
    });
    await new Promise<void>((resolve) => emulator.add_listener("emulator-loaded", () => resolve()));
    panics = await runGuest(emulator, device, area, options);
    image.syncSync();
    const failure = device.takeMediumFailure();
    if (failure !== undefined) throw failure;
  } finally {
    image.closeSync();
  }
  process.stderr.write("\n");
  for (const panic of panics) remark(describePanic(panic));
  if (panics.some(({ result }) => result.status !== 0)) process.exitCode = 1;
}

function parseSeconds(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= PANIC_AFTER_MAX_SEC)) {
    throw new UsageError(`--panic-after ${text}: must be 0 to ${PANIC_AFTER_MAX_SEC} seconds`);
  }
  return value;
}

export function addV86(program: Command): void {
  const command = program
    .command("v86")
    .summary("boot Linux in v86 with an image as its card, and keep its panics")
    .description(
      "Boot a 32-bit Linux in the v86 emulator with IMAGE as its eMMC or SD card behind an SD host controller. " +
        "The serial console is the terminal. If the guest panics, the panic path takes the card over and writes " +
        "the log into the pstore area of IMAGE.",
    )
    .requiredOption("--kernel <bzImage>", "the kernel")
    .requiredOption(
      "--disk <image>",
      "raw image or block device, a multiple of 512 KiB; the guest writes to it",
    )
    .option("--initrd <file>", "the initial RAM disk")
    .option("--append <text>", "more for the kernel's command line", "")
    .option(
      "--memory <bytes>",
      "RAM of the guest, a power of two",
      (text) => {
        const bytes = parseSize("--memory", text, {
          min: MEMORY_BYTES_MIN,
          multipleOf: MEMORY_BYTES_MIN,
          max: MEMORY_BYTES_MAX,
        });
        if ((bytes & (bytes - 1)) !== 0) throw new UsageError(`--memory ${text}: must be a power of two`);
        return bytes;
      },
      MEMORY_BYTES,
    )
    .option("--card <card>", CARDS.join(", "), (text) => parseChoice("--card", text, CARDS), "emmc")
    .option(
      "--controller <kind>",
      `how data get to the guest: ${CONTROLLERS.join(", ")}`,
      (text) => parseChoice("--controller", text, CONTROLLERS),
      "adma2",
    )
    .option(
      "--timing <timing>",
      "instant, or clock: the card takes its time",
      (text) => parseChoice("--timing", text, TIMINGS),
      "instant",
    )
    .option("--bios <file>", "BIOS of the machine", `${SEABIOS}/bios.bin`)
    .option("--vga-bios <file>", "BIOS of its display", `${SEABIOS}/vgabios-stdvga.bin`)
    .option(
      "--panic-after <seconds>",
      "panic the guest by Alt-SysRq-C so long after its start",
      parseSeconds,
    );
  addForceOption(addGeometryOptions(addAreaOptions(command)))
    .addHelpText(
      "after",
      `
Ctrl-] ends the machine, as a power switch does; so does the guest's own poweroff. The guest's reboot is one.
The kernel needs sdhci-pci and mmc_block, for a panic's full log ramoops (its parameters are on the command
line already), and to show the record pstore_blk, as modules in the initrd or built in. Without ramoops the
log is what the serial console has said. After a panic has been written the machine is switched off.

Examples:
  mmcpstore v86 --kernel vmlinuz --initrd initrd.gz --disk disk.img
  mmcpstore v86 --kernel vmlinuz --initrd initrd.gz --disk disk.img --partition 2 --panic-after 60
  mmcpstore ls disk.img`,
    )
    .action(boot);
}
