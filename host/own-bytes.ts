// What is kept of the bytes that a caller gave, or handed out of them. `slice()` is no way to get it: on a Node Buffer
// it is a view, so the caller's next write would change what was kept, and ours what is the caller's.
// `tests/given-bytes.test.ts` allows no other in this folder. Nothing of Node.

/**
 * Bytes `[from, until)` of `bytes`, which may be a Buffer, lie anywhere in a larger buffer or in shared memory, in an
 * ArrayBuffer of their own. The range is clamped as subarray() does.
 */
export function ownBytes(bytes: Uint8Array, from = 0, until = bytes.length): Uint8Array<ArrayBuffer> {
  // The constructor copies what any view shows, and never into shared memory.
  return new Uint8Array(bytes.subarray(from, until));
}
