// Byte order and ranges of bytes. The medium's records are little-endian as wasm is; cards send big-endian.

export function storeBigEndian16(ptr: usize, value: u32): void {
  store<u16>(ptr, bswap<u16>(<u16>value));
}

export function storeBigEndian32(ptr: usize, value: u32): void {
  store<u32>(ptr, bswap<u32>(value));
}

export function loadBigEndian32(ptr: usize): u32 {
  return bswap<u32>(load<u32>(ptr));
}

/** True if `count` (≤ 65536, a multiple of 8) bytes are the same. */
export function bytesEqual(first: usize, second: usize, count: u32): bool {
  for (let i: u32 = 0; i < count && i < 0x10000; i += 8) {
    if (load<u64>(first + i) != load<u64>(second + i)) return false;
  }
  return true;
}
