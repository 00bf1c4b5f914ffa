// A binary of the core for a shared memory: the code is the same (tests/core-rules.test.ts), what its import of the
// memory says is not.
const IMPORT_SECTION = 2;
/** "env", "memory", memory. */
const NAME = [3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2];
const PAGES_MAX = [0x80, 0x80, 4];

function readLeb(bytes: Uint8Array, at: number): { value: number; end: number } {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++] as number;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return { value, end: at };
  }
}

function leb(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)];
}

/** `binary` importing the same memory as a shared one. Throws if it imports none that is not. */
export function onSharedMemory(binary: Uint8Array): Uint8Array<ArrayBuffer> {
  for (let at = 8; at < binary.length; ) {
    const { value: length, end: start } = readLeb(binary, at + 1);
    const end = start + length;
    if (binary[at] === IMPORT_SECTION) {
      const body = binary.subarray(start, end);
      const found = body.findIndex((_, i) => NAME.every((byte, j) => body[i + j] === byte));
      const flags = found + NAME.length;
      if (found < 0 || body[flags] !== 0) throw new Error("no memory that is not shared is imported");
      const pages = readLeb(body, flags + 1).end;
      const changed = [
        ...body.subarray(0, flags),
        3,
        ...body.subarray(flags + 1, pages),
        ...PAGES_MAX,
        ...body.subarray(pages),
      ];
      return Uint8Array.from([
        ...binary.subarray(0, at),
        IMPORT_SECTION,
        ...leb(changed.length),
        ...changed,
        ...binary.subarray(end),
      ]);
    }
    at = end;
  }
  throw new Error("no imports");
}
