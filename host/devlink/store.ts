// A devlink instance as bytes, so that snapshots outlive the machine that they were taken of. Little-endian; a text is
// its length in a byte and ASCII characters:
//   0 "mmcpdlnk"   8 u32 STORE_VERSION   12 u32 CRC-32C of the head from 16 on   16 u32 bytes of the head
//   20 the handle   u32 ids { u32 id, u32 count } …
//   u32 regions { name, u64 size, u32 max, u32 snapshots { u32 id, u32 CRC-32C of its bytes } … } …
//   behind the head the snapshots' bytes in the same order, whole regions without gaps.
// Nothing says where bytes are, so nothing can overlap: they are there in full or the store is refused. A snapshot
// whose own checksum is wrong is told when it is read, and costs no other one. Nothing of Node.
import { MmcError } from "../errors.js";
import { ownBytes } from "../own-bytes.js";
import { crc32c } from "../pstore/crc32c.js";
import type { DevlinkState } from "./devlink.js";

const MAGIC = new TextEncoder().encode("mmcpdlnk");
const STORE_VERSION = 1;
const CRC_OFFSET = 12;
const CHECKED_FROM = 16;
const LENGTH_OFFSET = 16;
const HEAD_BYTES_MIN = 28;
/** Three times what 1,024 regions and 65,536 ids with a snapshot each take. */
const HEAD_BYTES_MAX = 2 ** 21;
/** 256 MiB of snapshots, as an instance allows by default, and a head. */
export const STORE_BYTES_MAX = 2 ** 28 + HEAD_BYTES_MAX;

/**
 * The store in pieces, one behind the other: the head, and the snapshots' own bytes, which are not copied.
 * @throws MmcError EFBIG a head of more than 2 MiB: some 200,000 snapshots
 */
export function encodeStore({ handle, ids, regions }: DevlinkState): Uint8Array[] {
  const head: number[] = [];
  const u32 = (value: number) => head.push(value, value >>> 8, value >>> 16, value >>> 24);
  const text = (value: string) => head.push(value.length, ...new TextEncoder().encode(value));
  head.push(...MAGIC);
  for (const value of [STORE_VERSION, 0, 0]) u32(value);
  text(handle);
  u32(ids.length);
  for (const [id, count] of ids) {
    u32(id);
    u32(count);
  }
  u32(regions.length);
  for (const { name, size, maxSnapshots, snapshots } of regions) {
    text(name);
    u32(size % 2 ** 32);
    u32(Math.floor(size / 2 ** 32));
    u32(maxSnapshots);
    u32(snapshots.length);
    for (const { id, crc } of snapshots) {
      u32(id);
      u32(crc);
    }
    if (head.length > HEAD_BYTES_MAX)
      throw new MmcError("EFBIG", `${handle}: more snapshots than a store lists`);
  }
  const bytes = Uint8Array.from(head);
  const view = new DataView(bytes.buffer);
  view.setUint32(LENGTH_OFFSET, bytes.length, true);
  view.setUint32(CRC_OFFSET, crc32c(bytes, CHECKED_FROM), true);
  return [bytes, ...regions.flatMap(({ snapshots }) => snapshots.map((snapshot) => snapshot.bytes))];
}

function refuse(why: string): never {
  throw new MmcError("EBADMSG", why);
}

/** Reads a head from its start; refuses to read beyond its end. */
class HeadReader {
  readonly #view: DataView;
  #at: number;

  constructor(head: Uint8Array, at: number) {
    this.#view = new DataView(head.buffer, head.byteOffset, head.byteLength);
    this.#at = at;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#view.byteLength;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): number {
    const low = this.u32();
    return this.u32() * 2 ** 32 + low;
  }

  text(): string {
    const length = this.#view.getUint8(this.#take(1));
    const from = this.#take(length);
    return String.fromCharCode(...new Uint8Array(this.#view.buffer, this.#view.byteOffset + from, length));
  }

  /** `count` times what `read` gives. A count is believed as far as there are bytes. */
  list<T>(read: () => T): T[] {
    const list: T[] = [];
    for (let left = this.u32(); left > 0; left--) list.push(read());
    return list;
  }

  #take(lengthBytes: number): number {
    const at = this.#at;
    if (at + lengthBytes > this.#view.byteLength) refuse("its head is shorter than it says");
    this.#at += lengthBytes;
    return at;
  }
}

/**
 * The state that {@link encodeStore} made `bytes` of; its snapshots are copies. What it means is judged by
 * {@link Devlink.load}.
 * @throws MmcError EBADMSG no store, cut, longer than it says, or with a wrong checksum; EOPNOTSUPP another version
 */
export function decodeStore(bytes: Uint8Array): DevlinkState {
  if (bytes.length < HEAD_BYTES_MIN || MAGIC.some((byte, i) => bytes[i] !== byte)) {
    refuse("is no store of snapshots");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(8, true);
  if (version !== STORE_VERSION) {
    throw new MmcError("EOPNOTSUPP", `is a store of version ${version}, only ${STORE_VERSION} is known`);
  }
  const headBytes = view.getUint32(LENGTH_OFFSET, true);
  if (headBytes < HEAD_BYTES_MIN || headBytes > Math.min(bytes.length, HEAD_BYTES_MAX)) {
    refuse(`a head of ${headBytes} bytes has no place in ${bytes.length}`);
  }
  const head = bytes.subarray(0, headBytes);
  if (crc32c(head, CHECKED_FROM) !== view.getUint32(CRC_OFFSET, true))
    refuse("its head has a wrong checksum");
  const reader = new HeadReader(head, CHECKED_FROM + 4);
  const handle = reader.text();
  const ids = reader.list((): [number, number] => [reader.u32(), reader.u32()]);
  const heads = reader.list(() => ({
    name: reader.text(),
    size: reader.u64(),
    maxSnapshots: reader.u32(),
    snapshots: reader.list(() => ({ id: reader.u32(), crc: reader.u32() })),
  }));
  if (!reader.isAtEnd) refuse("its head is longer than it says");
  let end = headBytes;
  for (const { size, snapshots } of heads) end += size * snapshots.length;
  if (end !== bytes.length) refuse(`has ${bytes.length} bytes, its snapshots make it ${end}`);
  let at = headBytes;
  const regions = heads.map(({ snapshots, ...region }) => ({
    ...region,
    snapshots: snapshots.map((one) => {
      at += region.size;
      return { ...one, bytes: ownBytes(bytes, at - region.size, at) };
    }),
  }));
  return { handle, ids, regions };
}
