// The way to a Sahara device: tcp://HOST:PORT, unix:PATH, or a recording of what a device once sent. Frames to
// transfers, a wait with an end, and a connection that is made again. Must never wait longer than the time limit
// for one whole transfer, however the bytes of it trickle in.
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { connect, type NetConnectOpts, type Socket } from "node:net";
import type { SaharaAction, SaharaCollector } from "../dump/sahara-collector.js";
import { FrameReader, frameTransfer } from "../dump/sahara-frames.js";
import { isErrorCode, MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { UsageError } from "./output.js";

const PIECE_BYTES = 2 ** 16;
const RETRY_AFTER_MS = 300;
const REASONS: Record<string, string> = {
  ECONNREFUSED: "nobody listens there",
  ENOENT: "no such socket",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the host's name cannot be looked up",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached",
  ETIMEDOUT: "no answer",
  ECONNRESET: "the connection was broken",
};

/** `tcp://host:port` or `unix:path`; null: a file. @throws UsageError. */
export function parseLocation(location: string): NetConnectOpts | null {
  if (location.startsWith("unix:")) return { path: location.slice(5) };
  const match = /^tcp:\/\/(\[[0-9a-f:.]+\]|[^:/[\]]+):(\d{1,5})$/i.exec(location);
  if (match !== null && Number(match[2]) > 0 && Number(match[2]) <= 65535) {
    return { host: (match[1] as string).replace(/[[\]]/g, ""), port: Number(match[2]) };
  }
  if (/^[a-z]+:\/\//i.test(location))
    throw new UsageError(`${location}: write tcp://HOST:PORT, unix:PATH or a file`);
  return null;
}

export function networkError(name: string, error: unknown): MmcError {
  const code = String((error as { code?: unknown }).code ?? "");
  const why = REASONS[code] ?? (code === "" ? "the network failed" : code);
  return new MmcError(isErrorCode(code) ? code : "EIO", `${name}: ${why}`, { cause: error });
}

export interface LinkOptions {
  /** The longest wait for one transfer, for a connection, and for a device that went away to come back. */
  timeoutMs: number;
  /** Connections after the first. */
  retries: number;
  /** Everything that the device sends goes there, too. */
  recordFd: number | null;
  /** Aborted: stop. */
  signal: AbortSignal;
}

function opened(name: string, address: NetConnectOpts, { timeoutMs, signal }: LinkOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(address);
    const settle = (error?: unknown) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      socket.removeAllListeners("error");
      if (error === undefined) resolve(socket);
      else {
        socket.destroy();
        reject(error instanceof MmcError ? error : networkError(name, error));
      }
    };
    const onAbort = () => settle(new MmcError("EINTR", "interrupted"));
    const timer = setTimeout(() => settle(new MmcError("ETIMEDOUT", `${name}: no answer`)), timeoutMs);
    signal.addEventListener("abort", onAbort);
    socket.once("connect", () => settle());
    socket.once("error", settle);
  });
}

/** Does actions in their order: what comes is stored before the device is told to go on, or that it may go. */
type Perform = (actions: SaharaAction[], send: (bytes: Uint8Array) => void) => void;

/** One connection, until it is lost or the collector has ended. */
function converse(
  socket: Socket,
  collector: SaharaCollector,
  perform: Perform,
  { timeoutMs, recordFd, signal }: LinkOptions,
): Promise<void> {
  return new Promise((resolve) => {
    const reader = new FrameReader(collector.transferBytesMax + 0x1000);
    const onAbort = () => step(() => collector.stop(new MmcError("EINTR", "interrupted")));
    const leave = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      // What is still to be sent, a RESET, goes before the end.
      if (!socket.destroyed) socket.end(() => socket.destroy());
      resolve();
    };
    const step = (next: () => SaharaAction[]) => {
      const actions = next();
      perform(actions, (bytes) => socket.write(frameTransfer(bytes)));
      if (collector.hasEnded) leave();
      else timer.refresh();
    };
    const timer = setTimeout(() => step(() => collector.timedOut()), timeoutMs);
    signal.addEventListener("abort", onAbort);
    socket.on("data", (chunk: Buffer) => {
      if (collector.hasEnded) return;
      try {
        if (recordFd !== null) writeSync(recordFd, chunk);
        for (const transfer of reader.push(chunk)) step(() => collector.receive(transfer));
      } catch (error) {
        step(() => collector.stop(error instanceof MmcError ? error : fileError("the recording", error)));
      }
    });
    socket.on("error", () => undefined);
    socket.on("close", leave);
    step(() => collector.connected());
  });
}

/**
 * Runs the collector against the device at `location`, over as many connections as are allowed, until it has ended.
 * `perform` does its actions but `send`; if it throws an MmcError, the collection is stopped with that.
 */
export async function runLink(
  location: string,
  collector: SaharaCollector,
  perform: (action: SaharaAction) => void,
  options: LinkOptions,
): Promise<void> {
  const address = parseLocation(location);
  const guarded: Perform = (actions, send) => {
    try {
      for (const action of actions) {
        if (action.kind === "send") send(action.bytes);
        else perform(action);
      }
    } catch (error) {
      const known = error instanceof MmcError ? error : fileError(location, error);
      collector.stop(known);
      perform({ kind: "end", error: known });
    }
  };
  const stop = (error: MmcError) => guarded(collector.stop(error), () => undefined);
  if (address === null) {
    replay(location, collector, guarded);
    return;
  }
  for (let connections = 0; !collector.hasEnded; connections++) {
    try {
      if (connections > 0) await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER_MS));
      await converse(await opened(location, address, options), collector, guarded, options);
      if (collector.hasEnded) return;
      if (connections >= options.retries) {
        stop(new MmcError("ECONNRESET", `${location}: the device broke the connection`));
      }
    } catch (error) {
      // The first connection is tried once: nobody is there. Later ones may find the device starting again.
      const isLast = connections === 0 || connections >= options.retries || options.signal.aborted;
      if (isLast) stop(error as MmcError);
    }
  }
}

function replay(path: string, collector: SaharaCollector, perform: Perform): void {
  const nobody = () => undefined;
  let fd = -1;
  try {
    fd = openSync(path, "r");
    const reader = new FrameReader(collector.transferBytesMax + 0x1000);
    const piece = new Uint8Array(PIECE_BYTES);
    perform(collector.connected(), nobody);
    while (!collector.hasEnded) {
      const count = readSync(fd, piece);
      if (count === 0) break;
      for (const transfer of reader.push(piece.subarray(0, count)))
        perform(collector.receive(transfer), nobody);
    }
    if (!collector.hasEnded)
      perform(collector.stop(new MmcError("ENODATA", `${path}: the recording ends here`)), nobody);
  } catch (error) {
    perform(collector.stop(fileError(path, error)), nobody);
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}
