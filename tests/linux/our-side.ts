// Our side of a card that Linux mounts: panics through the simulated card onto an image, and what decode.ts reads.
import { readFileSync } from "node:fs";
import * as assert from "uvu/assert";
import type { Policy } from "../../host/core/profile.js";
import type { PanicResult } from "../../host/core/result.js";
import type { Reason } from "../../host/device.js";
import { openImageDevice, openRaw } from "../../host/node.js";
import { type Abi, type Decoded, decodeArea, findGeometry } from "../../host/pstore/decode.js";
import { sameBytes } from "../machine.js";
import type { GuestFile } from "./guest.js";

const IN_FLIGHT_BYTES = 8 * 512;

/** A pstore area with kmsg zones of 64 KiB and nothing else; offset and size in bytes. */
export interface CardArea {
  image: string;
  abi: Abi;
  offset: number;
  sizeBytes: number;
}

export interface Panic {
  reason: Reason;
  text: Uint8Array;
  timeSec: bigint;
  /** Default false. */
  compress?: boolean;
  /** Default 1. */
  parts?: number;
}

/** Panics one after the other, each a machine of its own that was in the middle of a write. */
export function panicOn(area: CardArea, panics: Panic[], policy?: Policy, keepLogs?: number): PanicResult[] {
  const { image, abi, offset, sizeBytes } = area;
  return panics.map(({ reason, text, timeSec, compress = false, parts = 1 }) => {
    const raw = openRaw(image, { writable: true });
    const bytes = new Uint8Array(sizeBytes);
    raw.readSync(offset, bytes);
    const geometry = findGeometry(bytes, {
      kmsgSize: 65536,
      pmsgSize: 0,
      consoleSize: 0,
      ftraceSize: 0,
      abi,
    });
    const { device } = openImageDevice(
      raw,
      { offset, sizeBytes, geometry },
      { card: "sd", policy, keepLogs, compress, parts },
    );
    // Before the area if there is room, else at the card's end, in a zone that these tests do not come to.
    device.leaveInFlight("write", (offset === 0 ? device.sizeBytes : offset) - IN_FLIGHT_BYTES);
    const result = device.panicWrite({ reason, text, timeSec, timeNsec: 5 });
    assert.is(result.status, 0);
    raw.closeSync();
    return result;
  });
}

/** The area as decode.ts reads it, in `image` or in a copy of its bytes. */
export function decoded({ image, offset, sizeBytes }: CardArea, bytes = readFileSync(image)): Decoded {
  return decodeArea(new Uint8Array(bytes).subarray(offset, offset + sizeBytes));
}

/** The guest's files against what decode.ts reads from the image as it was when the guest listed them, one by one. */
export function assertShown(files: GuestFile[], { records }: Decoded): void {
  assert.equal(files.map(({ name }) => name).sort(), records.map(({ name }) => name).sort());
  for (const file of files) {
    const record = records.find(({ name }) => name === file.name);
    assert.ok(record && sameBytes(file.bytes, record.bytes), `${file.name}: bytes differ`);
    assert.is(file.mtimeSec, Number(record?.timeSec), `${file.name}: time`);
    assert.is(record?.state, "ok");
  }
}
