// QEMU's qtest protocol over two FIFOs: the guest's processor sleeps, and the test does what it would do, one line
// a request. Everything is synchronous, because the core's imports are. Debian builds QEMU without the `qtest`
// accelerator, whose clock a test can step: the machine runs under TCG, its virtual clock is the real one.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const QEMU = "qemu-system-x86_64";
/** A reply to a read of memory is two digits a byte. */
const CHUNK_BYTES = 64 * 1024;
/** QEMU's input buffer grows as it needs; the FIFO between holds 64 KiB. */
const WRITE_BYTES_MAX = 16 * 1024;
/** Requests that may be under way without an answer: their replies ("OK\n") must fit into the other FIFO. */
const PENDING_MAX = 1024;
/** The whole firmware: hlt, 64 KiB of it. */
const FIRMWARE = Buffer.alloc(0x10000, 0xf4);
const HEX = (value: number) => `0x${(value >>> 0).toString(16)}`;

/** The version that `qemu-system-x86_64` tells, "7.2.22". */
export function qemuVersion(): string {
  const said = execFileSync(QEMU, ["--version"], { encoding: "utf8" });
  const version = /version (\d+(?:\.\d+)*)/.exec(said)?.[1];
  if (version === undefined) throw new Error(`${QEMU} --version: ${said}`);
  return version;
}

/** True if this QEMU has `-device name`. */
export function hasDevice(name: string): boolean {
  return execFileSync(QEMU, ["-device", "help"], { encoding: "utf8" }).includes(`name "${name}"`);
}

/** A FIFO as two descriptors of one direction each. */
function pipe(path: string): { reader: number; writer: number } {
  execFileSync("mkfifo", [path]);
  // Opened in both directions first: else each open would wait for its other end.
  const both = openSync(path, constants.O_RDWR);
  const reader = openSync(path, constants.O_RDONLY);
  const writer = openSync(path, constants.O_WRONLY);
  closeSync(both);
  return { reader, writer };
}

export class Qtest {
  /** Requests sent. */
  requests = 0;
  #folder = mkdtempSync(join(tmpdir(), "mmcpstore-qtest-"));
  #child: ChildProcess;
  #commands: number;
  #replies: number;
  #chunk = Buffer.alloc(CHUNK_BYTES);
  #received = "";
  #queued = "";
  #pending = 0;
  #isClosed = false;
  #kill = () => this.#child.kill("SIGKILL");

  /** `args`: the machine, besides what makes it a qtest one. */
  constructor(args: string[]) {
    const toQemu = pipe(join(this.#folder, "to"));
    const fromQemu = pipe(join(this.#folder, "from"));
    const errors = openSync(join(this.#folder, "stderr"), "w");
    const firmware = join(this.#folder, "firmware");
    writeFileSync(firmware, FIRMWARE);
    const own = ["-accel", "tcg", "-qtest", "stdio", "-qtest-log", "/dev/null", "-bios", firmware];
    this.#child = spawn(QEMU, [...own, "-display", "none", "-nodefaults", ...args], {
      stdio: [toQemu.reader, fromQemu.writer, errors],
    });
    // If QEMU could not be started at all, its end of the FIFO is closed, which the first request finds.
    this.#child.on("error", () => undefined);
    for (const descriptor of [toQemu.reader, fromQemu.writer, errors]) closeSync(descriptor);
    this.#commands = toQemu.writer;
    this.#replies = fromQemu.reader;
    process.on("exit", this.#kill);
  }

  #fail(what: string): never {
    const said = readFileSync(join(this.#folder, "stderr"), "utf8").trim();
    this.close();
    throw new Error(`${QEMU}: ${what}${said ? `: ${said}` : ""}`);
  }

  #send(): void {
    try {
      const bytes = Buffer.from(this.#queued, "latin1");
      for (let sent = 0; sent < bytes.length; ) sent += writeSync(this.#commands, bytes, sent);
    } catch (error) {
      this.#fail(`it no longer listens (${(error as Error).message})`);
    }
    this.#queued = "";
  }

  #line(): string {
    for (;;) {
      const end = this.#received.indexOf("\n");
      if (end >= 0) {
        const line = this.#received.slice(0, end);
        this.#received = this.#received.slice(end + 1);
        return line;
      }
      const count = readSync(this.#replies, this.#chunk);
      if (count === 0) this.#fail("it ended");
      this.#received += this.#chunk.toString("latin1", 0, count);
    }
  }

  #reply(): string {
    const line = this.#line();
    if (line !== "OK" && !line.startsWith("OK ")) this.#fail(`it answered "${line}"`);
    return line.slice(3);
  }

  /** A request whose answer only says that it is done: many of them may be on their way. */
  #post(request: string): void {
    this.#queued += `${request}\n`;
    this.#pending++;
    this.requests++;
    if (this.#pending >= PENDING_MAX || this.#queued.length >= WRITE_BYTES_MAX) this.#settle();
  }

  #settle(): void {
    if (this.#queued !== "") this.#send();
    for (; this.#pending > 0; this.#pending--) this.#reply();
  }

  #ask(request: string): string {
    this.#queued += `${request}\n`;
    this.requests++;
    const before = this.#pending;
    this.#send();
    for (let i = 0; i < before; i++) this.#reply();
    this.#pending = 0;
    return this.#reply();
  }

  /** `bytes` (1, 2, 4) of guest memory or a device's register, by one access. */
  read(address: number, bytes: number): number {
    return Number(this.#ask(`read${"?bw?l"[bytes]} ${HEX(address)}`)) >>> 0;
  }

  write(address: number, bytes: number, value: number): void {
    this.#post(`write${"?bw?l"[bytes]} ${HEX(address)} ${HEX(value)}`);
  }

  outl(port: number, value: number): void {
    this.#post(`outl ${HEX(port)} ${HEX(value)}`);
  }

  inl(port: number): number {
    return Number(this.#ask(`inl ${HEX(port)}`)) >>> 0;
  }

  readMemory(address: number, lengthBytes: number): Uint8Array {
    return Buffer.from(this.#ask(`read ${HEX(address)} ${HEX(lengthBytes)}`).slice(2), "hex");
  }

  writeMemory(address: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += WRITE_BYTES_MAX / 4) {
      const part = bytes.subarray(at, at + WRITE_BYTES_MAX / 4);
      this.#post(`write ${HEX(address + at)} ${HEX(part.length)} 0x${Buffer.from(part).toString("hex")}`);
    }
  }

  /** Everything that was sent is done. */
  settle(): void {
    this.#settle();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#child.kill("SIGKILL");
    closeSync(this.#commands);
    closeSync(this.#replies);
    process.off("exit", this.#kill);
    rmSync(this.#folder, { recursive: true });
  }
}
