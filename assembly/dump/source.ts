// Bytes of regions that do not lie in the core's memory, and what of them nobody could bring. Built with
// EXTERNAL_MEDIUM there is a host to ask, by one synchronous call: read(slot, offsetLow, offsetHigh, bytes, ptr) stores
// up to `bytes` of the region at ptr and returns how many; what it says beyond that counts as none, and below 0 means
// that it knows no such region. In the other builds nobody brings anything.
import {
  DUMP_FAILED_BYTES,
  DUMP_FAILED_END,
  DUMP_FAILED_GONE,
  DUMP_FAILED_LIST,
  DUMP_FAILED_MAX,
  DUMP_FAILED_RANGES,
} from "../layout";
import { copyOf, ownerWord } from "../owner";

declare function read(slot: u32, offsetLow: u32, offsetHigh: u32, bytes: u32, ptr: usize): i32;

/** What is lost with a byte that cannot be read, at most: a failed read is repeated by pages. */
const PAGE_BYTES: u32 = 4096;
/** Pages that a read of at most 4 GiB touches. */
const PAGES_MAX: u32 = 0x100001;
const ENTRY_BYTES: u32 = 16;

/** How many of `count` bytes from `inside` on the host has brought to `ptr`. */
function ask(slot: u32, inside: u64, count: u32, ptr: usize): u32 {
  if (isDefined(EXTERNAL_MEDIUM)) {
    const brought = read(slot, <u32>inside, <u32>(inside >> 32), count, ptr);
    if (brought < 0) store<u32>(DUMP_FAILED_GONE, 1);
    return brought < 0 || <u32>brought > count ? 0 : brought;
  }
  return 0;
}

/** Nothing has failed yet. */
export function clearFailures(): void {
  store<u32>(DUMP_FAILED_RANGES, 0);
  store<u32>(DUMP_FAILED_GONE, 0);
  store<u64>(DUMP_FAILED_BYTES, 0);
}

/** `count` bytes of the file, behind all that were noted before, are nobody's. */
function noteFailure(fileOffset: u64, count: u32): void {
  let ranges = load<u32>(DUMP_FAILED_RANGES);
  const goesOn = ranges > 0 && load<u64>(DUMP_FAILED_END) == fileOffset;
  if (!goesOn) store<u32>(DUMP_FAILED_RANGES, ++ranges);
  store<u64>(DUMP_FAILED_BYTES, load<u64>(DUMP_FAILED_BYTES) + count);
  store<u64>(DUMP_FAILED_END, fileOffset + count);
  if (ranges > <u32>DUMP_FAILED_MAX) return;
  const entry: usize = DUMP_FAILED_LIST + (ranges - 1) * ENTRY_BYTES;
  if (!goesOn) {
    store<u64>(entry, fileOffset);
    store<u64>(entry, 0, 8);
  }
  store<u64>(entry, load<u64>(entry, 8) + count, 8);
}

/**
 * Brings `count` bytes of a region to `ptr`, from its byte `inside` on, which stands at `fileOffset`. A page that is
 * not brought whole is 0xff and noted at DUMP_FAILED: what a source leaves behind when it fails may be anything.
 */
export function bringBytes(slot: u32, inside: u64, count: u32, fileOffset: u64, ptr: usize): void {
  const panics = copyOf(ownerWord());
  let done = ask(slot, inside, count, ptr);
  for (let i: u32 = 0; i < PAGES_MAX && done < count; i++) {
    const left = PAGE_BYTES - (<u32>(inside + done) & (PAGE_BYTES - 1));
    const part = left < count - done ? left : count - done;
    if (ask(slot, inside + done, part, ptr + done) != part) {
      memory.fill(ptr + done, 0xff, part);
      // A source that was called while another panic came: the list is that one's.
      if (copyOf(ownerWord()) == panics) noteFailure(fileOffset + done, part);
    }
    done += part;
  }
}
