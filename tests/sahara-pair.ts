// A collector and a simulated device joined in memory, and what both said. With `frames` every transfer goes
// through the framing of a stream, cut into pieces of that many bytes.
import {
  type SaharaAction,
  SaharaCollector,
  type SaharaCollectorOptions,
} from "../host/dump/sahara-collector.js";
import { SaharaDevice, type SaharaDeviceOptions, type SaharaMemory } from "../host/dump/sahara-device.js";
import { FrameReader, frameTransfer } from "../host/dump/sahara-frames.js";
import type { MmcError } from "../host/errors.js";

/** Bytes that tell their place: no two regions and no two offsets of 251 are alike. */
export function memory(name: string, address: bigint | number, lengthBytes: number): SaharaMemory {
  const seed = name.length + Number(BigInt(address) & 0xffn);
  const byteAt = (offset: number) => (offset * 7 + (offset >> 8) + seed) & 0xff;
  return {
    name,
    address,
    lengthBytes,
    read: (offset, count) => {
      const bytes = new Uint8Array(count);
      for (let i = 0; i < count; i++) bytes[i] = byteAt(offset + i);
      return bytes;
    },
  };
}

export interface Outcome {
  collector: SaharaCollector;
  device: SaharaDevice;
  /** By region, what the `data` actions gave; throws where they leave a gap. */
  dumps: Map<number, Uint8Array>;
  error: MmcError | null;
  hasEnded: boolean;
  /** What the host sent, in order. */
  sent: Uint8Array[];
  /** What the device sent, in order. */
  received: Uint8Array[];
  connections: number;
  actions: SaharaAction[];
}

const STEPS_MAX = 100_000;

/** Runs until the collector ends. A device that says nothing more is a timeout; a disconnect is followed by a connection. */
export function collect(
  device: SaharaDevice,
  options: SaharaCollectorOptions = {},
  { frames = 0, connectionsMax = 3 } = {},
): Outcome {
  const collector = new SaharaCollector(options);
  const outcome: Outcome = {
    collector,
    device,
    dumps: new Map(),
    error: null,
    hasEnded: false,
    sent: [],
    received: [],
    connections: 0,
    actions: [],
  };
  const toDevice: Uint8Array[] = [];
  const dumps = new Map<number, Uint8Array[]>();
  const ends = new Map<number, number>();
  const perform = (actions: SaharaAction[]) => {
    for (const action of actions) {
      if (action.kind !== "data") outcome.actions.push(action);
      if (action.kind === "send") {
        outcome.sent.push(action.bytes);
        toDevice.push(action.bytes);
      } else if (action.kind === "data") {
        const { index, offset, bytes } = action;
        const pieces = dumps.get(index) ?? [new Uint8Array(offset)];
        const before = ends.get(index) ?? offset;
        if (before !== offset) throw new Error(`gap at ${offset} of ${index}`);
        pieces.push(bytes.slice());
        ends.set(index, offset + bytes.length);
        dumps.set(index, pieces);
      } else if (action.kind === "end") {
        outcome.error = action.error;
        outcome.hasEnded = true;
      }
    }
  };
  for (let steps = 0; !outcome.hasEnded; ) {
    if (++outcome.connections > connectionsMax) {
      perform(collector.timedOut());
      break;
    }
    const reader = new FrameReader(0x90000);
    perform(collector.connected());
    const fromDevice = device.connected();
    for (let isConnected = true; isConnected && !outcome.hasEnded; ) {
      if (++steps > STEPS_MAX) throw new Error("no end");
      const action = fromDevice.shift();
      if (action === undefined) {
        const packet = toDevice.shift();
        if (packet === undefined) perform(collector.timedOut());
        else fromDevice.push(...device.receive(packet));
      } else if (action.kind === "disconnect") {
        isConnected = false;
      } else if (action.kind === "send") {
        outcome.received.push(action.bytes);
        if (frames === 0) perform(collector.receive(action.bytes));
        else {
          const stream = frameTransfer(action.bytes);
          for (let at = 0; at < stream.length; at += frames) {
            for (const one of reader.push(stream.subarray(at, at + frames))) perform(collector.receive(one));
          }
        }
      }
    }
    toDevice.length = outcome.hasEnded ? toDevice.length : 0;
  }
  for (const packet of toDevice) device.receive(packet);
  for (const [index, pieces] of dumps) outcome.dumps.set(index, new Uint8Array(Buffer.concat(pieces)));
  return outcome;
}

export function crashed(regions: SaharaMemory[], options: SaharaDeviceOptions = {}): SaharaDevice {
  return new SaharaDevice(regions, options);
}
