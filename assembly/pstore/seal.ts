// The seal: the last 64 bytes of a kmsg zone, where Linux does not look. It proves a record and orders it.
//
//  0 magic u32   4 version u32   8 sequence u64   16 datalen u32   20 recordCrc u32   24 zero   60 sealCrc u32
import { crc32c } from "../crc";
import { SEAL_BYTES, SEAL_MAGIC, SEAL_VERSION } from "./format";

export function writeSeal(ptr: usize, sequence: u64, datalen: u32, recordCrc: u32): void {
  memory.fill(ptr, 0, SEAL_BYTES);
  store<u32>(ptr, SEAL_MAGIC);
  store<u32>(ptr, SEAL_VERSION, 4);
  store<u64>(ptr, sequence, 8);
  store<u32>(ptr, datalen, 16);
  store<u32>(ptr, recordCrc, 20);
  store<u32>(ptr, crc32c(0, ptr, 60), 60);
}

/** True if these 64 bytes are a whole seal of a version that we know. */
export function sealStands(ptr: usize): bool {
  if (load<u32>(ptr) != SEAL_MAGIC || load<u32>(ptr, 4) != SEAL_VERSION) return false;
  return load<u32>(ptr, 60) == crc32c(0, ptr, 60);
}

export function sealSequence(ptr: usize): u64 {
  return load<u64>(ptr, 8);
}

export function sealDatalen(ptr: usize): u32 {
  return load<u32>(ptr, 16);
}
