// `mmcpstore sahara serve FILE…`: a simulated device that has crashed, on a TCP port; as --fault says, if told.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { basename } from "node:path";
import type { Command } from "commander";
import {
  SAHARA_ANSWER_FAULTS,
  SAHARA_OPENING_FAULTS,
  SaharaDevice,
  type SaharaDeviceAction,
  type SaharaFault,
  type SaharaMemory,
} from "../dump/sahara-device.js";
import { FrameReader, frameTransfer } from "../dump/sahara-frames.js";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { UsageError, write } from "./output.js";
import { parseCount } from "./sahara-collect.js";
import { networkError } from "./sahara-link.js";

/** More than any host of Sahara sends: an image's piece. */
const TRANSFER_BYTES_MAX = 0x81000;
const FIRST_ADDRESS = 0x10000000n;
const PAGE_BYTES = 0x1000n;

interface ServeOptions {
  port: number;
  host: string;
  width: 32 | 64;
  fault?: SaharaFault[];
  boot?: { image: number; lengthBytes: number };
}

function parseFault(text: string, before: SaharaFault[] = []): SaharaFault[] {
  const [kind = "", at] = text.split("@");
  const opening = SAHARA_OPENING_FAULTS.find((one) => one === kind);
  if (opening !== undefined && at === undefined) return [...before, { kind: opening }];
  const answer = SAHARA_ANSWER_FAULTS.find((one) => one === kind);
  if (answer === undefined) throw new UsageError(`--fault ${text}: is not known; see the list in --help`);
  return [...before, { kind: answer, at: at === undefined ? 1 : parseCount("--fault", at, 0, 999_999_999) }];
}

function parseBoot(text: string): { image: number; lengthBytes: number } {
  const match = /^(\d{1,9})=(\d{1,9})$/.exec(text);
  if (match === null) throw new UsageError(`--boot ${text}: write NUMBER=BYTES`);
  return { image: Number(match[1]), lengthBytes: Number(match[2]) };
}

/** FILE, or FILE@ADDRESS; without one it follows the region before, at a whole page. */
function openMemories(files: string[]): { memories: SaharaMemory[]; close(): void } {
  const fds: number[] = [];
  const close = () =>
    fds.splice(0).forEach((fd) => {
      closeSync(fd);
    });
  let next = FIRST_ADDRESS;
  try {
    const memories = files.map((file): SaharaMemory => {
      const match = /^(.+)@(0x[0-9a-f]{1,16}|\d{1,19})$/i.exec(file);
      const path = match?.[1] ?? file;
      const address = match === null ? next : BigInt(match[2] as string);
      try {
        const fd = openSync(path, "r");
        fds.push(fd);
        const stats = fstatSync(fd);
        if (!stats.isFile()) throw new MmcError("EINVAL", `${path}: is no plain file`);
        const lengthBytes = BigInt(stats.size);
        next = (address + lengthBytes + PAGE_BYTES - 1n) & ~(PAGE_BYTES - 1n);
        const read = (offset: number, count: number) => {
          const bytes = new Uint8Array(count);
          if (readSync(fd, bytes, 0, count, offset) !== count)
            throw new MmcError("EIO", `${path}: became shorter`);
          return bytes;
        };
        return { name: basename(path), address, lengthBytes, read };
      } catch (error) {
        throw fileError(path, error);
      }
    });
    return { memories, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Joins the device to one host; resolves true if the device was reset. */
function attend(socket: Socket, device: SaharaDevice): Promise<boolean> {
  return new Promise((resolve) => {
    const reader = new FrameReader(TRANSFER_BYTES_MAX);
    const perform = (actions: SaharaDeviceAction[]) => {
      for (const action of actions) {
        if (action.kind === "send") socket.write(frameTransfer(action.bytes));
        else if (action.kind === "reset") socket.end();
        else socket.destroy();
      }
    };
    socket.on("data", (chunk: Buffer) => {
      try {
        for (const transfer of reader.push(chunk)) perform(device.receive(transfer));
      } catch {
        // No frame: this is no host of Sahara.
        socket.destroy();
      }
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(device.isReset));
    perform(device.connected());
  });
}

function listen(server: Server, { host, port }: ServeOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: { code?: string }) => {
      const name = `tcp://${host}:${port}`;
      if (error.code === "EADDRINUSE")
        reject(new MmcError("EBUSY", `${name}: somebody listens there already`));
      else reject(networkError(name, error));
    });
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}

async function serve(files: string[], options: ServeOptions): Promise<void> {
  const { memories, close } = openMemories(files);
  try {
    const { width, fault, boot } = options;
    const device = new SaharaDevice(memories, { width, faults: fault, boot });
    const server = createServer();
    const sockets: Socket[] = [];
    const port = await listen(server, options);
    const done = new Promise<void>((resolve) => {
      server.on("connection", (socket) => {
        // A device has one host: whoever comes next takes it over.
        sockets.splice(0).forEach((one) => {
          one.destroy();
        });
        sockets.push(socket);
        void attend(socket, device).then((isReset) => isReset && resolve());
      });
    });
    const host = options.host.includes(":") ? `[${options.host}]` : options.host;
    await write(`a crashed device waits at tcp://${host}:${port}\n`);
    await done;
    server.close();
    await write("the host has reset it\n");
  } finally {
    close();
  }
}

export function addServe(sahara: Command): void {
  sahara
    .command("serve")
    .summary("play a crashed device on a TCP port")
    .description(
      "Serve FILEs over Sahara as the memory of a simulated device that has crashed, until it is reset.",
    )
    .argument("<file...>", "a region each: FILE, or FILE@ADDRESS")
    .option("--port <n>", "port, 0 for a free one", (text) => parseCount("--port", text, 0, 65535), 0)
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option(
      "--width <bits>",
      "addresses of 32 or 64 bits",
      (text) => {
        if (text !== "32" && text !== "64") throw new UsageError(`--width ${text}: is not one of 32, 64`);
        return Number(text) as 32 | 64;
      },
      64,
    )
    .option("--boot <number=bytes>", "read so many bytes of an image first, then crash", parseBoot)
    .option(
      "--fault <kind>",
      "misbehave; KIND@N strikes answer N, 0 is the table; may be repeated",
      parseFault,
    )
    .addHelpText(
      "after",
      `
Faults that strike one answer, once (KIND@N, N is 1 unless told):
  ${SAHARA_ANSWER_FAULTS.join(" ")}
Faults of the packets before, and of the table:
  ${SAHARA_OPENING_FAULTS.slice(0, 10).join(" ")}
  ${SAHARA_OPENING_FAULTS.slice(10).join(" ")}

Examples:
  mmcpstore sahara serve ram.bin@0x80000000 --port 4567
  mmcpstore sahara serve ocimem.bin ddr.bin --fault path-names`,
    )
    .action(serve);
}
