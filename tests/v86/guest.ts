// An unmodified Debian guest (i686) in v86 under Node: SeaBIOS, the kernel, and a shell on the serial console that a
// test types its commands into.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { V86 } from "v86";
import { cpuOf } from "../../host/embed/v86.js";
import { CACHE, fetchKernel, fetchPackage } from "../linux/packages.js";
import { makeInitrd } from "./initrd.js";

/** What v86 itself saves. */
const V86_STATE_ITEMS = 90;
const MEMORY_BYTES = 256 << 20;
/** For ramoops, which a test may load with this place. */
export const RAMOOPS = { address: 0xe000000, sizeBytes: 1 << 20 };
const COMMAND_LINE =
  "console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on cryptomgr.notests memmap=1M$0xe000000";
/** A boot takes some 10 s on an idle machine. */
export const BOOT_TIMEOUT_MS = 240_000;
const COMMAND_TIMEOUT_MS = 60_000;

export interface GuestFiles {
  version: string;
  kernel: ArrayBuffer;
  initrd: ArrayBuffer;
  bios: ArrayBuffer;
  vgaBios: ArrayBuffer;
}

function bufferOf(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}

/** Everything a guest is made of, from Debian's archive. */
export function guestFiles(): GuestFiles {
  const kernel = fetchKernel("i386");
  const seabios = `${fetchPackage("seabios", "amd64")}/usr/share/seabios`;
  return {
    version: kernel.version,
    kernel: bufferOf(readFileSync(kernel.image)),
    initrd: bufferOf(makeInitrd(kernel, `${CACHE}/v86-initrd-${process.pid}`)),
    bios: bufferOf(readFileSync(`${seabios}/bios.bin`)),
    vgaBios: bufferOf(readFileSync(`${seabios}/vgabios-stdvga.bin`)),
  };
}

export interface GuestOptions {
  /** Behind the command line of every guest. */
  commandLine?: string;
  /** The first disk of v86's own IDE controller. */
  ide?: ArrayBuffer;
  /** Called before the guest runs. */
  attach?: (emulator: V86) => void;
}

export interface CommandResult {
  status: number;
  output: string;
}

export class Guest {
  readonly emulator: V86;
  /** All that the serial console has ever said, without carriage returns. */
  console = "";
  #read = 0;
  #commands = 0;
  #wake: (() => void) | null = null;

  private constructor(emulator: V86) {
    this.emulator = emulator;
    emulator.add_listener("serial0-output-byte", (byte) => {
      if (byte !== 13) this.console += String.fromCharCode(byte);
      if (byte === 10) this.#wake?.();
    });
  }

  /** Power on; resolves before the first instruction. */
  static async create(files: GuestFiles, options: GuestOptions = {}): Promise<Guest> {
    const emulator = new V86({
      wasm_path: fileURLToPath(import.meta.resolve("v86/build/v86.wasm")),
      memory_size: MEMORY_BYTES,
      vga_memory_size: 2 << 20,
      acpi: false,
      autostart: false,
      disable_speaker: true,
      bios: { buffer: files.bios },
      vga_bios: { buffer: files.vgaBios },
      bzimage: { buffer: files.kernel },
      initrd: { buffer: files.initrd },
      cmdline: `${COMMAND_LINE} ${options.commandLine ?? ""}`.trim(),
      ...(options.ide ? { hda: { buffer: options.ide } } : {}),
    });
    const guest = new Guest(emulator);
    await new Promise<void>((resolve) => emulator.add_listener("emulator-loaded", resolve));
    options.attach?.(emulator);
    return guest;
  }

  /** Runs until the shell asks for commands. */
  async boot(): Promise<void> {
    await this.emulator.run();
    await this.waitFor(/^@shell$/m, BOOT_TIMEOUT_MS);
  }

  /** Waits until `pattern` stands in what the console said since the last match. */
  async waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const match = pattern.exec(this.console.slice(this.#read));
      if (match !== null) {
        this.#read += match.index + match[0].length;
        return match;
      }
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) {
        throw new Error(`no ${pattern} within ${timeoutMs / 1000} s:\n${this.console.slice(-4000)}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = null;
    }
  }

  type(text: string): void {
    this.emulator.serial0_send(text);
  }

  /** A command of the shell; what it printed and its exit status. */
  async try(command: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<CommandResult> {
    const mark = `@done${++this.#commands}`;
    const from = this.#read;
    this.type(`{ ${command}\n}; s=$?; echo; echo ${mark} $s\n`);
    const match = await this.waitFor(new RegExp(`^${mark} (\\d+)$`, "m"), timeoutMs);
    const output = this.console.slice(from, this.#read - match[0].length).trim();
    return { status: Number(match[1]), output };
  }

  /** The same for a command that must succeed. */
  async run(command: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<string> {
    const { status, output } = await this.try(command, timeoutMs);
    if (status !== 0) throw new Error(`${command}: exit status ${status}\n${output}`);
    return output;
  }

  /** The machine as it is, without what attachV86 adds: another card can go on from there. */
  async saveWithoutCard(): Promise<ArrayBuffer> {
    const cpu = cpuOf(this.emulator);
    const getState = cpu.get_state;
    cpu.get_state = () => getState().slice(0, V86_STATE_ITEMS);
    await this.emulator.stop();
    const state = await this.emulator.save_state();
    cpu.get_state = getState;
    return state;
  }

  /** A machine like this one was when it was saved, with its shell waiting. */
  static async resume(files: GuestFiles, state: ArrayBuffer, options: GuestOptions = {}): Promise<Guest> {
    const guest = await Guest.create(files, options);
    await guest.emulator.restore_state(state);
    await guest.emulator.run();
    return guest;
  }

  /** Lets the guest run for a slice. */
  pause(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  async destroy(): Promise<void> {
    await this.emulator.destroy();
  }
}
