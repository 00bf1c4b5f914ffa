// The block that SD's CMD19 and eMMC's CMD21 on four lines send (SD Physical Layer 3.01 §4.2.4.5): every host has it.

/** 64 bytes to `ptr`. */
export function tuningBlock(ptr: usize): void {
  store<u64>(ptr, bswap<u64>(0xff0fff00ffccc3cc));
  store<u64>(ptr, bswap<u64>(0xc33cccfffefffeef), 8);
  store<u64>(ptr, bswap<u64>(0xffdfffddfffbfffb), 16);
  store<u64>(ptr, bswap<u64>(0xbfff7fff77f7bdef), 24);
  store<u64>(ptr, bswap<u64>(0xfff0fff00ffccc3c), 32);
  store<u64>(ptr, bswap<u64>(0xcc33cccfffefffee), 40);
  store<u64>(ptr, bswap<u64>(0xfffdfffddfffbfff), 48);
  store<u64>(ptr, bswap<u64>(0xbbfff7fff77f7bde), 56);
}
