// Transfers over a stream of bytes, which has no boundaries of its own and so could not tell a refusal from an
// answer. Framed as MHI's ring elements are: pieces of at most 0xffff bytes with the flags EOT (the transfer ends
// here) and CHAIN (it goes on). A frame is u16 length, u16 flags, little-endian, then the bytes. Must never keep
// more than one transfer's bytes. Nothing of Node.
import { MmcError } from "../errors.js";

export const MHI_EOB = 1;
export const MHI_EOT = 2;
export const MHI_CHAIN = 4;
/** The most that one piece carries. */
export const MHI_MTU_BYTES = 0xffff;
const HEADER_BYTES = 4;

/** `transfer` (1 byte or more) as frames: as many pieces as it takes, the last with EOT. */
export function frameTransfer(transfer: Uint8Array): Uint8Array {
  const pieces = Math.max(1, Math.ceil(transfer.length / MHI_MTU_BYTES));
  const frames = new Uint8Array(transfer.length + pieces * HEADER_BYTES);
  const view = new DataView(frames.buffer);
  for (let piece = 0; piece < pieces; piece++) {
    const from = piece * MHI_MTU_BYTES;
    const bytes = transfer.subarray(from, from + MHI_MTU_BYTES);
    const at = from + piece * HEADER_BYTES;
    view.setUint16(at, bytes.length, true);
    view.setUint16(at + 2, piece === pieces - 1 ? MHI_EOT : MHI_CHAIN, true);
    frames.set(bytes, at + HEADER_BYTES);
  }
  return frames;
}

/** The other end: bytes in, in pieces of any size; whole transfers out. */
export class FrameReader {
  readonly #transferBytesMax: number;
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerBytes = 0;
  /** Of the current frame. */
  #missingBytes = 0;
  #isLast = false;
  /** Doubled as it fills: many tiny frames must cost neither time nor memory. */
  #transfer = new Uint8Array(0x1000);
  #bytes = 0;

  /** @param transferBytesMax longer transfers are refused before they are stored. */
  constructor(transferBytesMax: number) {
    this.#transferBytesMax = transferBytesMax;
  }

  /** True between two transfers; a stream that ends elsewhere was cut off. */
  get isAtBoundary(): boolean {
    return this.#headerBytes === 0 && this.#bytes === 0;
  }

  /**
   * The transfers that end in `chunk`; each is valid until the next is asked for.
   * @throws MmcError EPROTO: no frame, or a transfer that is longer than the limit. The stream is lost then.
   */
  *push(chunk: Uint8Array): Generator<Uint8Array> {
    for (let at = 0; at < chunk.length; ) {
      if (this.#missingBytes === 0) {
        this.#header[this.#headerBytes++] = chunk[at++] as number;
        if (this.#headerBytes === HEADER_BYTES) this.#startFrame();
        continue;
      }
      const piece = chunk.subarray(at, at + this.#missingBytes);
      this.#transfer.set(piece, this.#bytes);
      at += piece.length;
      this.#bytes += piece.length;
      this.#missingBytes -= piece.length;
      if (this.#missingBytes > 0) continue;
      this.#headerBytes = 0;
      if (!this.#isLast) continue;
      const transfer = this.#transfer.subarray(0, this.#bytes);
      this.#bytes = 0;
      yield transfer;
    }
  }

  #startFrame(): void {
    const view = new DataView(this.#header.buffer);
    const length = view.getUint16(0, true);
    const flags = view.getUint16(2, true) & ~MHI_EOB;
    if (length === 0) throw new MmcError("EPROTO", "a frame without bytes");
    if (flags !== MHI_EOT && flags !== MHI_CHAIN) {
      throw new MmcError("EPROTO", `a frame with flags 0x${view.getUint16(2, true).toString(16)}`);
    }
    const bytes = this.#bytes + length;
    if (bytes > this.#transferBytesMax) {
      throw new MmcError("EPROTO", `a transfer of more than ${this.#transferBytesMax} bytes`);
    }
    if (bytes > this.#transfer.length) {
      const larger = new Uint8Array(
        Math.min(this.#transferBytesMax, Math.max(bytes, 2 * this.#transfer.length)),
      );
      larger.set(this.#transfer.subarray(0, this.#bytes));
      this.#transfer = larger;
    }
    this.#missingBytes = length;
    this.#isLast = flags === MHI_EOT;
  }
}
