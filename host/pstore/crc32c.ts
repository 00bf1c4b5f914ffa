// CRC-32C (Castagnoli), the checksum of the seals in docs/FORMAT.md: polynomial 0x1EDC6F41 reflected,
// start value and final xor 0xFFFFFFFF.
// This is the oracle's own copy. It must never import from assembly/ (the core has its own, and the two
// are there to disagree), and nothing of Node: the package's main entry runs in browsers.

const REFLECTED_POLYNOMIAL = 0x82f63b78;

/** How many bytes one step takes. */
const STEP_BYTES = 8;

/** `tables[256 * n + byte]`: what `byte` does to the remainder when n more bytes of zero follow it. */
const tables = new Int32Array(256 * STEP_BYTES);
for (let byte = 0; byte < 256; byte++) {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) {
    remainder = remainder & 1 ? (remainder >>> 1) ^ REFLECTED_POLYNOMIAL : remainder >>> 1;
  }
  tables[byte] = remainder;
}
for (let at = 256; at < tables.length; at++) {
  const before = tables[at - 256] as number;
  tables[at] = (tables[before & 0xff] as number) ^ (before >>> 8);
}

/**
 * CRC-32C of `bytes[fromBytes, toBytes)` as an unsigned 32-bit number. The range is clamped to the array.
 * The ASCII text `123456789` gives 0xE3069283, no bytes at all give 0. `before`: that of the bytes in front of them.
 */
export function crc32c(bytes: Uint8Array, fromBytes = 0, toBytes = bytes.length, before = 0): number {
  let crc = before ^ 0xffffffff;
  const end = Math.min(toBytes, bytes.length);
  let at = Math.max(0, fromBytes);
  // A table for each place in eight bytes: the look-ups of a step do not wait for each other.
  for (; at + STEP_BYTES <= end; at += STEP_BYTES) {
    const low =
      crc ^
      ((bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24));
    crc =
      (tables[0x700 + (low & 0xff)] as number) ^
      (tables[0x600 + ((low >>> 8) & 0xff)] as number) ^
      (tables[0x500 + ((low >>> 16) & 0xff)] as number) ^
      (tables[0x400 + (low >>> 24)] as number) ^
      (tables[0x300 + (bytes[at + 4] as number)] as number) ^
      (tables[0x200 + (bytes[at + 5] as number)] as number) ^
      (tables[0x100 + (bytes[at + 6] as number)] as number) ^
      (tables[bytes[at + 7] as number] as number);
  }
  for (; at < end; at++) {
    crc = (tables[(crc ^ (bytes[at] as number)) & 0xff] as number) ^ (crc >>> 8);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
