// The device's side of Sahara: a simulated chip that has crashed and serves its memory, well behaved or as a
// `SaharaFault` says. A pure state machine like the collector, transfers in, actions out. Its packets are checked
// as the collector's are; what it cannot do it answers with END_OF_IMAGE and the status that says why. Nothing of
// Node.
import { MmcError } from "../errors.js";
import {
  bigint,
  either,
  func,
  judge,
  list,
  object,
  oneOf,
  required,
  type Shape,
  string,
  U32,
  whole,
} from "../judge.js";
import { ownBytes } from "../own-bytes.js";
import {
  makePacket,
  makePacket64,
  makeTable,
  parsePacket,
  SAHARA_DONE,
  SAHARA_DONE_RESP,
  SAHARA_END_OF_IMAGE,
  SAHARA_HELLO,
  SAHARA_HELLO_RESP,
  SAHARA_MEMORY_DEBUG,
  SAHARA_MEMORY_DEBUG64,
  SAHARA_MEMORY_READ,
  SAHARA_MEMORY_READ64,
  SAHARA_MODE_COMMAND,
  SAHARA_MODE_IMAGE_TX_COMPLETE,
  SAHARA_MODE_IMAGE_TX_PENDING,
  SAHARA_MODE_MEMORY_DEBUG,
  SAHARA_READ_DATA,
  SAHARA_RESET,
  SAHARA_RESET_RESP,
  SAHARA_STATUS_INVALID_CMD,
  SAHARA_STATUS_INVALID_DATA_SIZE,
  SAHARA_STATUS_INVALID_DATA_SIZE_REQUEST,
  SAHARA_STATUS_INVALID_MEMORY_READ,
  SAHARA_STATUS_INVALID_PACKET_SIZE,
  SAHARA_STATUS_SUCCESS,
  SAHARA_VERSION,
  SAHARA_VERSION_COMPAT,
  type SaharaEntry,
  type SaharaPacket,
  type SaharaWidth,
  viewOf,
} from "./sahara.js";

/** A part of the device's memory. Addresses are the device's, lengths in bytes. */
export interface SaharaMemory {
  /** Proposed as the file's name; 20 bytes of it are told. */
  name: string;
  description?: string;
  address: bigint | number;
  lengthBytes: bigint | number;
  /** Exactly `count` bytes at `offset`; both lie inside. What it throws is told as an invalid memory read. */
  read(offset: number, count: number): Uint8Array;
}

/** What an answer may be instead of the bytes that were asked for. Each strikes once. */
export const SAHARA_ANSWER_FAULTS = [
  "end-of-image", // refused: invalid memory read
  "unknown-status", // refused with a status that has no name
  "sixteen-bytes", // 16 bytes, as many as a refusal has, that are none
  "short-answer", // a byte less than asked for
  "long-answer", // 50 bytes more
  "silent", // nothing, for ever
  "disconnect", // the connection ends
] as const;

/** What is wrong with the memory table, or with the packets before it. */
export const SAHARA_OPENING_FAULTS = [
  "path-names", // names that would lead out of a folder: ../../evil.bin, /etc/x, ..\x, .., .
  "same-names", // all of them alike but for their case
  "control-names", // escape sequences, line ends, a leading -
  "unterminated-names", // 20 characters and no NUL
  "empty-names",
  "giant-region", // the last has 2^62 bytes (2^32 - 1)
  "sum-overflow", // two regions of 2^63 bytes at address 0
  "wrapping-region", // the last ends behind the last address
  "overlapping-regions", // the last is the first once more
  "outside-region", // the last is where the device has no memory
  "table-none", // MEMORY_DEBUG with a table of 0 bytes
  "table-fraction", // a table and half an entry
  "table-huge", // a table of 2^31 bytes
  "table-wraps", // at the last address
  "table-changes", // another one every time that it is read
  "packet-length", // MEMORY_DEBUG that says one byte more than it has
  "packet-cut", // MEMORY_DEBUG without its last four bytes
  "version-3", // HELLO says 3, and that 2 will do
  "version-unknown", // HELLO says 9, and that nothing less will do
  "mode-unknown", // HELLO with mode 7
  "mode-command", // HELLO with mode 3: it wants commands
  "hello-forever", // HELLO in answer to everything
] as const;

export type SaharaAnswerFault = (typeof SAHARA_ANSWER_FAULTS)[number];
export type SaharaOpeningFault = (typeof SAHARA_OPENING_FAULTS)[number];

/** `at`: which answer to a memory read it strikes, counted from 0 over all connections; the table's is one of them. */
export type SaharaFault = { kind: SaharaAnswerFault; at: number } | { kind: SaharaOpeningFault };

export interface SaharaDeviceOptions {
  /** 64 unless told. */
  width?: SaharaWidth | undefined;
  /** The most that it gives at once; 0x80000 unless told. */
  answerBytesMax?: number | undefined;
  faults?: readonly SaharaFault[] | undefined;
  /** It boots from this image first, then it crashes. `lengthBytes` is what it reads of it. */
  boot?: { image: number; lengthBytes: number } | undefined;
}

const MEMORY: Shape<SaharaMemory> = {
  name: required(string),
  description: string,
  address: required(either(bigint, whole(0))),
  lengthBytes: required(either(bigint, whole(0))),
  read: required(func),
};
const OPTIONS: Shape<SaharaDeviceOptions> = {
  width: oneOf([32, 64]),
  answerBytesMax: whole(1),
  faults: list((what, value) => {
    const kind = object<{ kind: string; at?: number }>({
      kind: required(oneOf([...SAHARA_ANSWER_FAULTS, ...SAHARA_OPENING_FAULTS])),
      at: whole(0),
    })(what, value);
    const isAnswer = SAHARA_ANSWER_FAULTS.some((name) => name === kind.kind);
    if (isAnswer !== (kind.at !== undefined)) {
      throw new MmcError("EINVAL", `${what}.at: belongs to faults of an answer, and to each of them`);
    }
    return kind;
  }),
  boot: object<NonNullable<SaharaDeviceOptions["boot"]>>({
    image: required(U32),
    lengthBytes: required(whole(0)),
  }),
};

export type SaharaDeviceAction =
  | { kind: "send"; bytes: Uint8Array }
  /** The device breaks the connection. */
  | { kind: "disconnect" }
  /** It was reset: the dump is gone. */
  | { kind: "reset" };

interface Memory extends SaharaMemory {
  address: bigint;
  lengthBytes: bigint;
}

const ANSWER_BYTES_MAX = 0x80000;
const PATH_NAMES = ["../../evil.bin", "/etc/x", "..\\x", "..", ".", "a/b", "C:x"];
const CONTROL_NAMES = ["\x1b[2J", "a\nb", "-rf", "\x7f\x00", "\xff\xfe"];

/** The lowest place, 16-aligned, where `lengthBytes` meet no region. */
function freeAddress(regions: readonly Memory[], lengthBytes: bigint, width: SaharaWidth): bigint {
  const candidates = [0x1000n, ...regions.map((one) => (one.address + one.lengthBytes + 15n) & ~15n)];
  const isFree = (from: bigint) =>
    from + lengthBytes <= 1n << BigInt(width) &&
    regions.every((one) => from + lengthBytes <= one.address || from >= one.address + one.lengthBytes);
  const found = candidates.find(isFree);
  if (found === undefined) throw new MmcError("ENOSPC", "memory table: no addresses are left for it");
  return found;
}

function hostileEntries(
  entries: SaharaEntry[],
  kinds: ReadonlySet<string>,
  width: SaharaWidth,
): SaharaEntry[] {
  const [first] = entries;
  const last = entries.at(-1);
  if (first === undefined || last === undefined) return entries;
  const addressEnd = 1n << BigInt(width);
  for (const [i, entry] of entries.entries()) {
    if (kinds.has("path-names")) entry.name = PATH_NAMES[i % PATH_NAMES.length] as string;
    if (kinds.has("control-names")) entry.name = CONTROL_NAMES[i % CONTROL_NAMES.length] as string;
    if (kinds.has("same-names")) entry.name = i % 2 === 0 ? "DDR.BIN" : "ddr.bin";
    if (kinds.has("unterminated-names")) entry.name = `${String.fromCharCode(0x41 + (i % 26)).repeat(20)}`;
    if (kinds.has("empty-names")) entry.name = "";
  }
  if (kinds.has("giant-region")) last.lengthBytes = width === 64 ? 1n << 62n : addressEnd - 1n - last.address;
  if (kinds.has("sum-overflow")) {
    for (const one of [first, last]) {
      one.address = 0n;
      one.lengthBytes = addressEnd / 2n;
    }
  }
  if (kinds.has("wrapping-region")) last.address = addressEnd - last.lengthBytes + 1n;
  if (kinds.has("overlapping-regions")) {
    last.address = first.address;
    last.lengthBytes = first.lengthBytes;
  }
  if (kinds.has("outside-region")) last.address = addressEnd - last.lengthBytes;
  return entries;
}

/** One crashed device. It keeps its dump over lost connections, until it is reset. */
export class SaharaDevice {
  readonly #regions: Memory[];
  readonly #width: SaharaWidth;
  readonly #answerBytesMax: number;
  readonly #kinds: ReadonlySet<string>;
  readonly #answerFaults: { kind: SaharaAnswerFault; at: number }[];
  readonly #boot: { image: number; lengthBytes: number } | undefined;
  readonly #table: Uint8Array;
  readonly #tableAddress: bigint;
  #state: "off" | "hello" | "image" | "done" | "dump" | "reset" = "off";
  #hasBooted: boolean;
  #bootedBytes = 0;
  #answers = 0;
  #tableReads = 0;

  /**
   * @param regions what it has, at most 1023 (32-bit: 1260).
   * @throws MmcError EINVAL none or too many of them, EOVERFLOW addresses that the width does not have.
   */
  constructor(regions: readonly SaharaMemory[], options: SaharaDeviceOptions = {}) {
    list(object(MEMORY))("regions", regions);
    judge("", options, OPTIONS);
    const { width = 64, faults = [], boot } = options;
    this.#width = width;
    this.#answerBytesMax = options.answerBytesMax ?? ANSWER_BYTES_MAX;
    this.#regions = regions.map((one) => ({
      name: one.name,
      description: one.description ?? one.name,
      address: BigInt(one.address),
      lengthBytes: BigInt(one.lengthBytes),
      read: (offset, count) => one.read(offset, count),
    }));
    for (const { name, address, lengthBytes } of this.#regions) {
      if (address < 0n || lengthBytes < 0n || address + lengthBytes > 1n << BigInt(width)) {
        throw new MmcError("EOVERFLOW", `${name}: its addresses do not have ${width} bits`);
      }
    }
    const entries = this.#regions.map(({ name, description = "", address, lengthBytes }) => {
      return {
        type: 1n,
        address,
        lengthBytes,
        description: description.slice(0, 19),
        name: name.slice(0, 19),
      };
    });
    this.#kinds = new Set(faults.map((fault) => fault.kind));
    this.#answerFaults = faults.filter((fault) => "at" in fault);
    this.#table = makeTable(hostileEntries(entries, this.#kinds, width), width);
    if (this.#table.length === 0 || this.#table.length > 0xffff) {
      throw new MmcError(
        "EINVAL",
        `a memory table of ${regions.length} regions: has 1 to ${width === 64 ? 1023 : 1260}`,
      );
    }
    this.#tableAddress = freeAddress(this.#regions, BigInt(this.#table.length), width);
    this.#boot = boot;
    this.#hasBooted = boot === undefined;
  }

  /** True once it was reset: nothing is left to collect. */
  get isReset(): boolean {
    return this.#state === "reset";
  }

  /** Somebody is there: it greets. */
  connected(): SaharaDeviceAction[] {
    return this.#state === "reset" ? [] : [this.#hello()];
  }

  /** One transfer from the host. */
  receive(transfer: Uint8Array): SaharaDeviceAction[] {
    if (this.#state === "reset" || this.#state === "off") return [];
    if (this.#state === "image") return this.#imageCame(transfer);
    let packet: SaharaPacket;
    try {
      packet = parsePacket(transfer);
    } catch {
      return this.#refuse(SAHARA_STATUS_INVALID_PACKET_SIZE);
    }
    if (packet.command === SAHARA_RESET) {
      this.#state = "reset";
      return [{ kind: "send", bytes: makePacket(SAHARA_RESET_RESP) }, { kind: "reset" }];
    }
    if (this.#kinds.has("hello-forever")) return [this.#hello()];
    return this.#packet(packet);
  }

  #packet({ command, view }: SaharaPacket): SaharaDeviceAction[] {
    if (this.#state === "hello" && command === SAHARA_HELLO_RESP) return this.#helloResponse(view);
    if (this.#state === "done" && command === SAHARA_DONE) {
      this.#hasBooted = true;
      const bytes = makePacket(SAHARA_DONE_RESP, SAHARA_MODE_IMAGE_TX_COMPLETE);
      // It runs, and crashes at once.
      return [{ kind: "send", bytes }, this.#hello()];
    }
    const isDump = this.#state === "dump";
    if (isDump && command === SAHARA_MEMORY_READ && this.#width === 32) {
      return this.#memoryRead(BigInt(view.getUint32(8, true)), BigInt(view.getUint32(12, true)));
    }
    if (isDump && command === SAHARA_MEMORY_READ64 && this.#width === 64) {
      return this.#memoryRead(view.getBigUint64(8, true), view.getBigUint64(16, true));
    }
    return this.#refuse(SAHARA_STATUS_INVALID_CMD);
  }

  #refuse(status: number): SaharaDeviceAction[] {
    return [{ kind: "send", bytes: makePacket(SAHARA_END_OF_IMAGE, this.#boot?.image ?? 0, status) }];
  }

  #hello(): SaharaDeviceAction {
    this.#state = "hello";
    this.#bootedBytes = 0;
    let version = SAHARA_VERSION;
    let versionCompat = SAHARA_VERSION_COMPAT;
    let mode = this.#hasBooted ? SAHARA_MODE_MEMORY_DEBUG : SAHARA_MODE_IMAGE_TX_PENDING;
    if (this.#kinds.has("version-3")) version = 3;
    if (this.#kinds.has("version-unknown")) version = versionCompat = 9;
    if (this.#kinds.has("mode-unknown")) mode = 7;
    if (this.#kinds.has("mode-command")) mode = SAHARA_MODE_COMMAND;
    const commandBytesMax = 1024;
    return { kind: "send", bytes: makePacket(SAHARA_HELLO, version, versionCompat, commandBytesMax, mode) };
  }

  #helloResponse(view: DataView): SaharaDeviceAction[] {
    if (view.getUint32(16, true) !== SAHARA_STATUS_SUCCESS) return [{ kind: "disconnect" }];
    if (!this.#hasBooted) return this.#askForImage();
    this.#state = "dump";
    return [{ kind: "send", bytes: this.#memoryDebug() }];
  }

  #memoryDebug(): Uint8Array {
    let address = this.#tableAddress;
    let lengthBytes = BigInt(this.#table.length);
    if (this.#kinds.has("table-none")) lengthBytes = 0n;
    if (this.#kinds.has("table-fraction")) lengthBytes += 26n;
    if (this.#kinds.has("table-huge")) lengthBytes = 1n << 31n;
    if (this.#kinds.has("table-wraps")) address = (1n << BigInt(this.#width)) - 1n;
    const packet =
      this.#width === 64
        ? makePacket64(SAHARA_MEMORY_DEBUG64, address, lengthBytes)
        : makePacket(SAHARA_MEMORY_DEBUG, Number(address), Number(lengthBytes));
    if (this.#kinds.has("packet-length")) viewOf(packet).setUint32(4, packet.length + 1, true);
    return this.#kinds.has("packet-cut") ? packet.subarray(0, packet.length - 4) : packet;
  }

  #memoryRead(address: bigint, count: bigint): SaharaDeviceAction[] {
    const fault = this.#answerFaults.find((one) => one.at === this.#answers);
    this.#answers++;
    const bytes = this.#memoryAt(address, count);
    if (typeof bytes === "number") return this.#refuse(bytes);
    switch (fault?.kind) {
      case "end-of-image":
        return this.#refuse(SAHARA_STATUS_INVALID_MEMORY_READ);
      case "unknown-status":
        return this.#refuse(0x7ffffffe);
      case "sixteen-bytes":
        return [{ kind: "send", bytes: new Uint8Array(16).fill(0x5a) }];
      case "short-answer":
        return [{ kind: "send", bytes: bytes.subarray(0, bytes.length - 1) }];
      case "long-answer": {
        const longer = new Uint8Array(bytes.length + 50);
        longer.set(bytes);
        return [{ kind: "send", bytes: longer }];
      }
      case "silent":
        return [];
      case "disconnect":
        return [{ kind: "disconnect" }];
      default:
        return [{ kind: "send", bytes }];
    }
  }

  /** The bytes, or the status that says why not. */
  #memoryAt(address: bigint, count: bigint): Uint8Array | number {
    if (count === 0n || count > BigInt(this.#answerBytesMax)) return SAHARA_STATUS_INVALID_DATA_SIZE_REQUEST;
    const end = address + count;
    const tableOffset = address - this.#tableAddress;
    if (tableOffset >= 0n && tableOffset + count <= BigInt(this.#table.length)) {
      const from = Number(tableOffset);
      const bytes = ownBytes(this.#table, from, from + Number(count));
      if (tableOffset === 0n && this.#kinds.has("table-changes")) bytes[0] = ++this.#tableReads & 0xff;
      return bytes;
    }
    const region = this.#regions.find(
      (one) => address >= one.address && end <= one.address + one.lengthBytes,
    );
    if (region === undefined) return SAHARA_STATUS_INVALID_MEMORY_READ;
    try {
      return region.read(Number(address - region.address), Number(count));
    } catch {
      return SAHARA_STATUS_INVALID_MEMORY_READ;
    }
  }

  // ---- booting ----

  #imageRequestBytes(): number {
    return Math.min((this.#boot?.lengthBytes ?? 0) - this.#bootedBytes, this.#answerBytesMax);
  }

  #askForImage(): SaharaDeviceAction[] {
    const image = this.#boot?.image ?? 0;
    const count = this.#imageRequestBytes();
    if (count > 0) {
      this.#state = "image";
      return [{ kind: "send", bytes: makePacket(SAHARA_READ_DATA, image, this.#bootedBytes, count) }];
    }
    this.#state = "done";
    return [{ kind: "send", bytes: makePacket(SAHARA_END_OF_IMAGE, image, SAHARA_STATUS_SUCCESS) }];
  }

  #imageCame(transfer: Uint8Array): SaharaDeviceAction[] {
    if (transfer.length !== this.#imageRequestBytes()) {
      this.#state = "hello";
      return this.#refuse(SAHARA_STATUS_INVALID_DATA_SIZE);
    }
    this.#bootedBytes += transfer.length;
    return this.#askForImage();
  }
}
