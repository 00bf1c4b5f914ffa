// Kmsg zones as docs/FORMAT.md says, for tests of what reads them. Written from that page alone: must never use the core
// or the decoder, whose mistakes it would repeat. CRC-32C is computed bit by bit, unlike the decoder's.

export interface ZoneSpec {
  abi?: "lp64" | "i386";
  payload: Uint8Array;
  reason?: number;
  counter?: number;
  timeSec?: bigint;
  compressed?: boolean;
  /** Sealed with it. */
  sequence?: bigint;
  /** Of a log in several records. */
  part?: number;
  olderBytes?: number;
  first?: bigint;
  lineBytes?: number;
}

export function crc32cSlowly(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (crc ^ (byte >> bit)) & 1;
      crc >>>= 1;
      if (carry) crc ^= 0x82f63b78;
    }
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** One whole zone; sealed if a sequence is given. */
export function buildZone(sizeBytes: number, spec: ZoneSpec): Uint8Array {
  const { abi = "lp64", payload, sequence } = spec;
  const headerBytes = abi === "lp64" ? 40 : 28;
  const datalen = headerBytes + payload.length;
  const zone = new Uint8Array(sizeBytes);
  const view = new DataView(zone.buffer);
  view.setUint32(0, 0x43474244, true);
  view.setInt32(4, datalen, true);
  view.setUint32(12, 0x4dfc3ae5, true);
  const at = abi === "lp64" ? { sec: 20, nsec: 28, compressed: 36 } : { sec: 16, nsec: 24, compressed: 28 };
  view.setBigInt64(at.sec, spec.timeSec ?? 1705095875n, true);
  view.setInt32(at.nsec, 123456789, true);
  view.setUint8(at.compressed, spec.compressed ? 1 : 0);
  view.setUint32(at.compressed + 4, spec.counter ?? 1, true);
  view.setUint32(at.compressed + 8, spec.reason ?? 1, true);
  zone.set(payload, 12 + headerBytes);
  if (sequence === undefined) return zone;
  const seal = sizeBytes - 64;
  view.setUint32(seal, 0x53434d4d, true);
  view.setUint32(seal + 4, 1, true);
  view.setBigUint64(seal + 8, sequence, true);
  view.setUint32(seal + 16, datalen, true);
  view.setUint32(seal + 20, crc32cSlowly(zone.subarray(0, 12 + datalen)), true);
  view.setUint32(seal + 24, spec.part ?? 0, true);
  view.setUint32(seal + 28, spec.olderBytes ?? 0, true);
  view.setBigUint64(seal + 32, spec.first ?? 0n, true);
  view.setUint32(seal + 56, spec.lineBytes ?? 0, true);
  view.setUint32(seal + 60, crc32cSlowly(zone.subarray(seal, seal + 60)), true);
  return zone;
}

/** Zones behind each other; null leaves one blank. */
export function buildArea(zones: (Uint8Array | null)[], zoneBytes: number): Uint8Array {
  const area = new Uint8Array(zones.length * zoneBytes);
  for (const [index, zone] of zones.entries()) if (zone !== null) area.set(zone, index * zoneBytes);
  return area;
}

/** Lines as a kernel's log has them, `sizeBytes` long; another `seed`, another log. */
export function logText(sizeBytes: number, seed = 1): Uint8Array {
  let text = "";
  let word = seed >>> 0;
  for (let line = 0; text.length < sizeBytes; line++) {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    text += `<${word % 7}>[${line}.${word % 1000000}] device ${(word >>> 8).toString(16)}: state ${word % 97}\n`;
  }
  return new Uint8Array(Buffer.from(text.slice(0, sizeBytes), "latin1"));
}

/** A log cut into records, newest first, as the parts of FORMAT.md, "Long logs". */
export function buildChain(
  log: Uint8Array,
  zoneBytes: number,
  textBytes: number,
  first: bigint,
  more: Partial<ZoneSpec> = {},
): Uint8Array[] {
  const zones: Uint8Array[] = [];
  for (let end = log.length; end > 0; end -= textBytes) {
    const start = Math.max(0, end - textBytes);
    const part = zones.length + 1;
    const sequence = first + BigInt(zones.length);
    const spec = { payload: log.slice(start, end), sequence, part, olderBytes: start, first };
    zones.push(buildZone(zoneBytes, { ...spec, ...more }));
  }
  return zones;
}
