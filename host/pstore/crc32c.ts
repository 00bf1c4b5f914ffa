// CRC-32C (Castagnoli), the checksum of the seals in docs/FORMAT.md: polynomial 0x1EDC6F41 reflected,
// start value and final xor 0xFFFFFFFF.
// This is the oracle's own copy. It must never import from assembly/ (the core has its own, and the two
// are there to disagree), and nothing of Node: the package's main entry runs in browsers.

const REFLECTED_POLYNOMIAL = 0x82f63b78;

const table = new Uint32Array(256);
for (let byte = 0; byte < 256; byte++) {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) {
    remainder = remainder & 1 ? (remainder >>> 1) ^ REFLECTED_POLYNOMIAL : remainder >>> 1;
  }
  table[byte] = remainder >>> 0;
}

/**
 * CRC-32C of `bytes[fromBytes, toBytes)` as an unsigned 32-bit number. The range is clamped to the array.
 * The ASCII text `123456789` gives 0xE3069283, no bytes at all give 0. `before`: that of the bytes in front of them.
 */
export function crc32c(bytes: Uint8Array, fromBytes = 0, toBytes = bytes.length, before = 0): number {
  let crc = before ^ 0xffffffff;
  const end = Math.min(toBytes, bytes.length);
  for (let at = Math.max(0, fromBytes); at < end; at++) {
    crc = (table[(crc ^ (bytes[at] as number)) & 0xff] as number) ^ (crc >>> 8);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
