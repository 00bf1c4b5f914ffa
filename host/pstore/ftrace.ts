// The records of ftrace rings (FORMAT.md, "ftrace records"): the slices of all CPUs merged by time, and the text that
// Linux's pstore file system shows of them where it knows no symbols. Must never throw, whatever the bytes are.
import { ownBytes } from "../own-bytes.js";

const RECORD_BYTES = { lp64: 24, i386: 16 } as const;
const CPU_BITS = 8n;
const CPU_MASK = 0xffn;

interface Slice {
  bytes: Uint8Array;
  view: DataView;
}

function openSlice(bytes: Uint8Array): Slice {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
}

/** The counter without the CPU; records of one slice have growing ones. */
function timeAt({ view }: Slice, record: number, recordBytes: number): bigint {
  return view.getBigUint64(record + recordBytes - 8, true) >> CPU_BITS;
}

/** Two slices as one; of equal times the second slice's record comes first, as on Linux. */
function mergeTwo(first: Slice, second: Slice, recordBytes: number): Slice {
  const merged = openSlice(new Uint8Array(first.bytes.length + second.bytes.length));
  let inFirst = 0;
  let inSecond = 0;
  for (let to = 0; to < merged.bytes.length; to += recordBytes) {
    const takesFirst =
      inSecond === second.bytes.length ||
      (inFirst < first.bytes.length &&
        timeAt(first, inFirst, recordBytes) < timeAt(second, inSecond, recordBytes));
    const from = takesFirst ? inFirst : inSecond;
    merged.bytes.set((takesFirst ? first : second).bytes.subarray(from, from + recordBytes), to);
    if (takesFirst) inFirst += recordBytes;
    else inSecond += recordBytes;
  }
  return merged;
}

/**
 * The records of all slices by time. What is left of a record at the front of a slice is dropped.
 * @param slices their logs, oldest byte first, in the order of the CPUs.
 */
export function mergeFtrace(slices: readonly Uint8Array[], abi: "lp64" | "i386"): Uint8Array {
  const recordBytes = RECORD_BYTES[abi];
  let merged = slices.map((slice) => openSlice(ownBytes(slice, slice.length % recordBytes)));
  // By pairs, so that every record is moved as often as the number of slices can be halved.
  while (merged.length > 1) {
    merged = Array.from({ length: Math.ceil(merged.length / 2) }, (_, pair) => {
      const first = merged[2 * pair] as Slice;
      const second = merged[2 * pair + 1];
      return second === undefined ? first : mergeTwo(first, second, recordBytes);
    });
  }
  return merged[0]?.bytes ?? new Uint8Array(0);
}

/** A line a record: CPU, counter, address, caller's address, and both again where Linux would have symbols. */
export function ftraceText(records: Uint8Array, abi: "lp64" | "i386"): Uint8Array {
  const { bytes, view } = openSlice(records);
  const recordBytes = RECORD_BYTES[abi];
  const address = (at: number) => (abi === "lp64" ? view.getBigUint64(at, true) : view.getUint32(at, true));
  const lines: string[] = [];
  for (let at = 0; at + recordBytes <= bytes.length; at += recordBytes) {
    const ip = address(at).toString(16);
    const parentIp = address(at + (abi === "lp64" ? 8 : 4)).toString(16);
    const stamp = view.getBigUint64(at + recordBytes - 8, true);
    lines.push(
      `CPU:${stamp & CPU_MASK} ts:${stamp >> CPU_BITS} ${ip.padStart(8, "0")}  ${parentIp.padStart(8, "0")}  ` +
        `0x${ip} <- 0x${parentIp}\n`,
    );
  }
  return new TextEncoder().encode(lines.join(""));
}
