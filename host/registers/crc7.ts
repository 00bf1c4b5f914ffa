// CRC7 (x^7 + x^3 + 1, mmc.md §1.3) of commands, responses, CID and CSD. A second one beside the core's: what decodes
// must be able to disagree with what is decoded.

/** Over all of `bytes`, the most significant bit first. */
export function crc7(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const feedback = ((crc >>> 6) ^ (byte >>> bit)) & 1;
      crc = ((crc << 1) & 0x7f) ^ (feedback !== 0 ? 0x09 : 0);
    }
  }
  return crc;
}
