// The host's side of Sahara: what a crashed device offers in its memory table is read to the end and handed on
// piece by piece. A pure state machine: transfers in, actions out; no clock, no file, no socket. Whoever drives it
// waits, and tells it of a timeout or of a lost connection; it can be connected again, and goes on where it was.
//
// Everything that comes is an attacker's: the table is copied once, checked, then used; lengths are 64-bit sums
// with an end; an answer has exactly the bytes that were asked for, or it is a refusal. Never keeps more than the
// table. Nothing of Node.
import { MmcError } from "../errors.js";
import { bool, bytes, having, judge, list, number, object, required, type Shape, whole } from "../judge.js";
import { ownBytes } from "../own-bytes.js";
import {
  endOfImageStatus,
  escapeName,
  makePacket,
  makePacket64,
  parsePacket,
  parseTable,
  requestBytes,
  SAHARA_CMD_READY,
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
  SAHARA_MODE_MEMORY_DEBUG,
  SAHARA_READ_DATA,
  SAHARA_READ_DATA64,
  SAHARA_RESET,
  SAHARA_RESET_RESP,
  SAHARA_STATUS_SUCCESS,
  SAHARA_VERSION,
  SAHARA_VERSION_COMPAT,
  type SaharaEntry,
  type SaharaPacket,
  type SaharaWidth,
  saharaCommandName,
  saharaStatusName,
  TABLE_ENTRY_BYTES,
} from "./sahara.js";

/** A multiple of 16 below MHI's MTU of 0xffff: the largest request that leaves the next one aligned. */
export const REQUEST_BYTES_DEFAULT = 0xfff0;
/** What USB hosts ask for at once. */
export const REQUEST_BYTES_MAX = 0x80000;
/** A table that one request reads: 1023 entries of 64 bytes or 1260 of 52. */
export const TABLE_BYTES_MAX = 0xffff;
/** What one READ_DATA may ask for. */
export const IMAGE_REQUEST_BYTES_MAX = 0x80000;
const REGION_BYTES_DEFAULT = 2 ** 34;
const TOTAL_BYTES_DEFAULT = 2 ** 36;
/** A device that greets for ever is none. A real one does so once, and again after its image and its crash. */
const HELLOS_MAX = 16;
/** How often a device may read its image over, headers and all, before it is none. */
const IMAGE_READS_MAX = 8;

/** `waiting` not begun; `partial` has receivedBytes of it; `refused` was not asked for, see why. */
export type SaharaRegionState = "waiting" | "partial" | "complete" | "refused";

export interface SaharaRegion extends SaharaEntry {
  readonly index: number;
  readonly state: SaharaRegionState;
  /** From its start, without a gap. */
  readonly receivedBytes: number;
  /** Why it is refused or partial; empty otherwise. */
  readonly why: string;
  /** True if another region has a part of the same addresses. */
  readonly overlaps: boolean;
}

type Region = { -readonly [Key in keyof SaharaRegion]: SaharaRegion[Key] };

/** What the device boots from, by the image's number. */
export interface SaharaImage {
  lengthBytes: number;
  /** Exactly `count` bytes at `offset`; both lie inside. */
  read(offset: number, count: number): Uint8Array;
}

/** Where an earlier collection of the same table ended. */
export interface SaharaResume {
  /** As the `table` action gave it. */
  table: Uint8Array;
  /** By region, from its start. */
  receivedBytes: readonly number[];
}

export interface SaharaCollectorOptions {
  /** Bytes that one request asks for, 64 to 0x80000, a multiple of 16. 0xfff0 unless told. */
  requestBytesMax?: number | undefined;
  /** A longer region is refused. 16 GiB unless told. */
  regionBytesMax?: number | undefined;
  /** Regions that do not fit into it any more are refused. 64 GiB unless told. */
  totalBytesMax?: number | undefined;
  /** A region that is refused refuses the whole dump, before anything is read. */
  isAllOrNothing?: boolean | undefined;
  /** A region that the device refuses to give is left, and the next one begun. */
  keepGoing?: boolean | undefined;
  images?: ReadonlyMap<number, SaharaImage> | undefined;
  resume?: SaharaResume | undefined;
}

const OPTIONS: Shape<SaharaCollectorOptions> = {
  requestBytesMax: number,
  regionBytesMax: number,
  totalBytesMax: number,
  isAllOrNothing: bool,
  keepGoing: bool,
  images: having("get"),
  resume: object<SaharaResume>({ table: required(bytes), receivedBytes: required(list(whole(0))) }),
};

export type SaharaAction =
  /** One transfer for the device. */
  | { kind: "send"; bytes: Uint8Array }
  /** The table is accepted; once, also when it is read again after a disconnect. `bytes` is what a resume needs. */
  | { kind: "table"; width: SaharaWidth; bytes: Uint8Array; regions: readonly SaharaRegion[] }
  /** Bytes of a region, in order. */
  | { kind: "data"; index: number; offset: number; bytes: Uint8Array }
  /** The region has come to its end: complete, partial or refused. */
  | { kind: "region"; region: SaharaRegion }
  /** An image was taken by the device as a whole. */
  | { kind: "image"; image: number }
  /** Nothing more will come. Null: every region was tried, look at their states. */
  | { kind: "end"; error: MmcError | null };

interface Reading {
  /** -1: the table. */
  index: number;
  address: bigint;
  lengthBytes: number;
  offset: number;
  askedBytes: number;
}

function checkOptions(options: SaharaCollectorOptions): void {
  const { requestBytesMax = REQUEST_BYTES_DEFAULT, regionBytesMax = 0, totalBytesMax = 0 } = options;
  const isMultiple = Number.isInteger(requestBytesMax) && requestBytesMax % 16 === 0;
  if (!isMultiple || requestBytesMax < 64 || requestBytesMax > REQUEST_BYTES_MAX) {
    throw new MmcError(
      "EINVAL",
      `requestBytesMax: ${requestBytesMax} is not a multiple of 16 from 64 to 524288`,
    );
  }
  for (const [name, value] of Object.entries({ regionBytesMax, totalBytesMax })) {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new MmcError("EINVAL", `${name}: ${value} is no limit`);
  }
}

/** The regions of a table under the limits, none begun. */
function admit(
  entries: readonly SaharaEntry[],
  width: SaharaWidth,
  options: SaharaCollectorOptions,
): Region[] {
  const { regionBytesMax = REGION_BYTES_DEFAULT, totalBytesMax = TOTAL_BYTES_DEFAULT } = options;
  const addressEnd = 1n << BigInt(width);
  let totalBytes = 0n;
  const regions = entries.map((entry, index): Region => {
    let why = "";
    if (entry.address + entry.lengthBytes > addressEnd) why = "its addresses wrap around";
    else if (entry.lengthBytes > BigInt(regionBytesMax)) why = `has more than ${regionBytesMax} bytes`;
    else if (totalBytes + entry.lengthBytes > BigInt(totalBytesMax)) {
      why = `would make the dump larger than ${totalBytesMax} bytes`;
    } else totalBytes += entry.lengthBytes;
    const state = why === "" ? "waiting" : "refused";
    return { ...entry, index, state, receivedBytes: 0, why, overlaps: false };
  });
  markOverlaps(regions);
  return regions;
}

function markOverlaps(regions: Region[]): void {
  const byAddress = regions
    .filter((one) => one.lengthBytes > 0n)
    .sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
  let farthest: Region | undefined;
  for (const region of byAddress) {
    if (farthest !== undefined && region.address < farthest.address + farthest.lengthBytes) {
      region.overlaps = true;
      farthest.overlaps = true;
    }
    const end = region.address + region.lengthBytes;
    if (farthest === undefined || end > farthest.address + farthest.lengthBytes) farthest = region;
  }
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/**
 * Collects the dump of one device, over as many connections as it takes. `connected()`, then `receive()` for each
 * transfer; each returns what is to be done, in order. After an `end` they return nothing.
 */
export class SaharaCollector {
  readonly #options: SaharaCollectorOptions;
  readonly #requestBytesMax: number;
  #state: "hello" | "command" | "answer" | "done" | "ended" = "hello";
  #isDump = false;
  #hellos = 0;
  #width: SaharaWidth = 64;
  #table: Uint8Array | null;
  #regions: Region[] = [];
  #hasTable = false;
  #reading: Reading | null = null;
  #tableAnswer = new Uint8Array();
  #image: number | null = null;
  #imageBytesLeft = 0;

  /** @throws MmcError EINVAL: a limit out of range. */
  constructor(options: SaharaCollectorOptions = {}) {
    judge("", options, OPTIONS);
    checkOptions(options);
    this.#options = options;
    this.#requestBytesMax = options.requestBytesMax ?? REQUEST_BYTES_DEFAULT;
    this.#table = options.resume ? ownBytes(options.resume.table) : null;
  }

  /** As the table says, in its order; empty before it has come. */
  get regions(): readonly SaharaRegion[] {
    return this.#regions;
  }

  /** True if there is a table and each of its regions is complete. */
  get isComplete(): boolean {
    return this.#hasTable && this.#regions.every((region) => region.state === "complete");
  }

  get hasEnded(): boolean {
    return this.#state === "ended";
  }

  /** Longest transfer that can be right just now: an answer, or a packet. What is longer need not be stored. */
  get transferBytesMax(): number {
    return Math.max(0x30, this.#requestBytesMax, TABLE_BYTES_MAX);
  }

  /** A connection stands, be it the first or another: the device greets first. */
  connected(): SaharaAction[] {
    if (this.#state === "ended") return [];
    this.#state = "hello";
    this.#reading = null;
    this.#image = null;
    this.#hellos = 0;
    return [];
  }

  /** One transfer from the device, as a whole. */
  receive(transfer: Uint8Array): SaharaAction[] {
    if (this.#state === "ended") return [];
    try {
      if (this.#state === "answer") return this.#answer(transfer);
      return this.#packet(parsePacket(transfer));
    } catch (error) {
      if (!(error instanceof MmcError)) throw error;
      return this.#end(error, [{ kind: "send", bytes: makePacket(SAHARA_RESET) }]);
    }
  }

  /** The device has been silent for as long as whoever drives this waits. What has come stays. */
  timedOut(): SaharaAction[] {
    const what = {
      hello: "no HELLO came",
      command: "silent after HELLO",
      answer: "a memory read was not answered",
      done: "DONE was not answered",
      ended: "",
    }[this.#state];
    return this.stop(new MmcError("ETIMEDOUT", what));
  }

  /**
   * Ends it for a reason of the host's, a full disk for example. The device is not reset: it still has the dump, and a
   * collector with `resume` can go on.
   */
  stop(error: MmcError): SaharaAction[] {
    return this.#state === "ended" ? [] : this.#end(error, []);
  }

  #packet({ command, view }: SaharaPacket): SaharaAction[] {
    if (command === SAHARA_HELLO) return this.#hello(view);
    if (command === SAHARA_RESET_RESP || this.#state === "hello") throw this.#unexpected(command);
    if ((this.#state === "done") !== (command === SAHARA_DONE_RESP)) throw this.#unexpected(command);
    switch (command) {
      case SAHARA_MEMORY_DEBUG:
        return this.#memoryDebug(32, BigInt(view.getUint32(8, true)), BigInt(view.getUint32(12, true)));
      case SAHARA_MEMORY_DEBUG64:
        return this.#memoryDebug(64, view.getBigUint64(8, true), view.getBigUint64(16, true));
      case SAHARA_READ_DATA:
        return this.#readData(view.getUint32(8, true), view.getUint32(12, true), view.getUint32(16, true));
      case SAHARA_READ_DATA64:
        // A number above 2^53 loses digits here, and is beyond every limit with or without them.
        return this.#readData(
          Number(view.getBigUint64(8, true)),
          Number(view.getBigUint64(16, true)),
          Number(view.getBigUint64(24, true)),
        );
      case SAHARA_END_OF_IMAGE:
        return this.#endOfImage(view.getUint32(8, true), view.getUint32(12, true));
      case SAHARA_DONE_RESP:
        // The device runs, and greets again if it crashes; or it greets for its next image.
        this.#state = "hello";
        return [];
      case SAHARA_CMD_READY:
        throw new MmcError("EOPNOTSUPP", "the device waits for commands, not for a collector");
      default:
        throw this.#unexpected(command);
    }
  }

  #unexpected(command: number): MmcError {
    return new MmcError(
      "EPROTO",
      `${saharaCommandName(command)}: was not expected ${this.#state === "hello" ? "before HELLO" : "here"}`,
    );
  }

  #hello(view: DataView): SaharaAction[] {
    const [version, versionCompat, mode] = [8, 12, 20].map((at) => view.getUint32(at, true)) as [
      number,
      number,
      number,
    ];
    if (++this.#hellos > HELLOS_MAX) throw new MmcError("EPROTO", `HELLO: more than ${HELLOS_MAX} of them`);
    if (versionCompat > SAHARA_VERSION || version < SAHARA_VERSION_COMPAT) {
      throw new MmcError(
        "EPROTO",
        `HELLO: version ${version}, which wants ${versionCompat} or later, is not known`,
      );
    }
    if (mode === SAHARA_MODE_COMMAND) {
      throw new MmcError("EOPNOTSUPP", "the device waits for commands, not for a collector");
    }
    if (mode > SAHARA_MODE_COMMAND) throw new MmcError("EPROTO", `HELLO: mode ${mode} is not known`);
    this.#isDump = mode === SAHARA_MODE_MEMORY_DEBUG;
    if (!this.#isDump && !this.#options.images?.size) {
      throw new MmcError("ENODATA", "the device wants an image to boot from, it has no dump");
    }
    this.#state = "command";
    this.#image = null;
    // The reserved words are zero: nothing of this host's memory leaves with them.
    const response = makePacket(
      SAHARA_HELLO_RESP,
      SAHARA_VERSION,
      SAHARA_VERSION_COMPAT,
      SAHARA_STATUS_SUCCESS,
      mode,
    );
    return [{ kind: "send", bytes: response }];
  }

  // ---- the dump ----

  #memoryDebug(width: SaharaWidth, address: bigint, lengthBytes: bigint): SaharaAction[] {
    if (!this.#isDump) throw new MmcError("EPROTO", "a memory table, but HELLO announced no dump");
    const entryBytes = TABLE_ENTRY_BYTES[width];
    if (lengthBytes > TABLE_BYTES_MAX) {
      throw new MmcError("EFBIG", `memory table: ${lengthBytes} bytes, more than ${TABLE_BYTES_MAX}`);
    }
    if (lengthBytes === 0n || lengthBytes % BigInt(entryBytes) !== 0n) {
      throw new MmcError(
        "EPROTO",
        `memory table: ${lengthBytes} bytes are ${lengthBytes === 0n ? "none" : `not a multiple of ${entryBytes}`}`,
      );
    }
    if (address + lengthBytes > 1n << BigInt(width)) {
      throw new MmcError("EPROTO", "memory table: its addresses wrap around");
    }
    this.#width = width;
    this.#tableAnswer = new Uint8Array(Number(lengthBytes));
    return [this.#ask({ index: -1, address, lengthBytes: Number(lengthBytes), offset: 0, askedBytes: 0 })];
  }

  /** The next request of `reading`, of which at least one byte is missing. */
  #ask(reading: Reading): SaharaAction {
    reading.askedBytes = requestBytes(reading.lengthBytes - reading.offset, this.#requestBytesMax);
    this.#reading = reading;
    this.#state = "answer";
    const address = reading.address + BigInt(reading.offset);
    const bytes =
      this.#width === 64
        ? makePacket64(SAHARA_MEMORY_READ64, address, BigInt(reading.askedBytes))
        : makePacket(SAHARA_MEMORY_READ, Number(address), reading.askedBytes);
    return { kind: "send", bytes };
  }

  #answer(transfer: Uint8Array): SaharaAction[] {
    const reading = this.#reading as Reading;
    if (transfer.length !== reading.askedBytes) return this.#wrongAnswer(reading, transfer);
    const { index, offset } = reading;
    reading.offset += transfer.length;
    const isWhole = reading.offset === reading.lengthBytes;
    if (index < 0) {
      this.#tableAnswer.set(transfer, offset);
      return isWhole ? this.#tableCame() : [this.#ask(reading)];
    }
    const region = this.#regions[index] as Region;
    region.receivedBytes = reading.offset;
    region.state = isWhole ? "complete" : "partial";
    const data: SaharaAction = { kind: "data", index, offset, bytes: ownBytes(transfer) };
    if (!isWhole) return [data, this.#ask(reading)];
    return [data, { kind: "region", region }, ...this.#nextRegion(index + 1)];
  }

  #wrongAnswer(reading: Reading, transfer: Uint8Array): SaharaAction[] {
    const status = endOfImageStatus(transfer);
    const region = this.#regions[reading.index];
    const what = region === undefined ? "memory table" : `region ${region.index} ${escapeName(region.name)}`;
    const where = `${what} at ${reading.offset} of ${reading.lengthBytes}`;
    if (status === null) {
      const why = `${transfer.length} bytes came, ${reading.askedBytes} were asked for`;
      if (region !== undefined) region.why = why;
      throw new MmcError("EPROTO", `${where}: ${why}`);
    }
    const why = `END_OF_IMAGE, ${saharaStatusName(status)}`;
    if (region === undefined) throw new MmcError("EIO", `${where}: ${why}`);
    region.why = why;
    region.state = region.receivedBytes > 0 ? "partial" : "refused";
    if (!this.#options.keepGoing) throw new MmcError("EIO", `${where}: ${why}`);
    return [{ kind: "region", region }, ...this.#nextRegion(reading.index + 1)];
  }

  #tableCame(): SaharaAction[] {
    const bytes = this.#tableAnswer;
    if (this.#table !== null && !equalBytes(bytes, this.#table)) {
      // The device has another dump than the one that was begun; it is not reset, so that one can be had, too.
      return this.stop(
        new MmcError("EUCLEAN", "memory table: is not the one with which the collection began"),
      );
    }
    if (this.#hasTable) return this.#nextRegion(0);
    const regions = admit(parseTable(bytes, this.#width), this.#width, this.#options);
    const refused = regions.find((region) => region.state === "refused");
    if (refused !== undefined && this.#options.isAllOrNothing) {
      const { index, name, why } = refused;
      return this.stop(new MmcError("EFBIG", `region ${index} ${escapeName(name)}: ${why}`));
    }
    const received = this.#options.resume?.receivedBytes;
    for (const region of regions) {
      const bytesBefore = received?.[region.index] ?? 0;
      if (bytesBefore === 0 || region.state === "refused") continue;
      if (!Number.isSafeInteger(bytesBefore) || bytesBefore < 0 || BigInt(bytesBefore) > region.lengthBytes) {
        return this.stop(
          new MmcError("EINVAL", `resume: region ${region.index} cannot have ${bytesBefore} bytes`),
        );
      }
      region.receivedBytes = bytesBefore;
      region.state = BigInt(bytesBefore) === region.lengthBytes ? "complete" : "partial";
    }
    this.#table = bytes;
    this.#regions = regions;
    this.#hasTable = true;
    return [{ kind: "table", width: this.#width, bytes: ownBytes(bytes), regions }, ...this.#nextRegion(0)];
  }

  /** Asks for the first region from `from` on of which something is missing; at the end lets the device go. */
  #nextRegion(from: number): SaharaAction[] {
    const actions: SaharaAction[] = [];
    for (const region of this.#regions.slice(from)) {
      // A region that the device refused has a reason; one that only was interrupted has none.
      if (region.state === "complete" || region.why !== "") continue;
      const { index, address, receivedBytes } = region;
      if (region.lengthBytes > 0n) {
        const lengthBytes = Number(region.lengthBytes);
        return [...actions, this.#ask({ index, address, lengthBytes, offset: receivedBytes, askedBytes: 0 })];
      }
      region.state = "complete";
      actions.push({ kind: "region", region });
    }
    actions.push({ kind: "send", bytes: makePacket(SAHARA_RESET) });
    return this.#end(null, actions);
  }

  // ---- the image that a device boots from ----

  #readData(image: number, offset: number, lengthBytes: number): SaharaAction[] {
    if (this.#isDump) throw new MmcError("EPROTO", "READ_DATA: HELLO announced a dump");
    const source = this.#options.images?.get(image);
    if (source === undefined) throw new MmcError("ENOENT", `READ_DATA: image ${image} is not there`);
    if (this.#image === null) {
      this.#image = image;
      this.#imageBytesLeft = IMAGE_READS_MAX * source.lengthBytes;
    }
    if (this.#image !== image)
      throw new MmcError("EPROTO", `READ_DATA: image ${image} inside of ${this.#image}`);
    if (
      lengthBytes === 0 ||
      lengthBytes > IMAGE_REQUEST_BYTES_MAX ||
      offset + lengthBytes > source.lengthBytes
    ) {
      throw new MmcError(
        "EPROTO",
        `READ_DATA: ${lengthBytes} bytes at ${offset} of image ${image}, which has ${source.lengthBytes}`,
      );
    }
    this.#imageBytesLeft -= lengthBytes;
    if (this.#imageBytesLeft < 0)
      throw new MmcError("EPROTO", `READ_DATA: image ${image} is read without end`);
    return [{ kind: "send", bytes: source.read(offset, lengthBytes) }];
  }

  #endOfImage(image: number, status: number): SaharaAction[] {
    if (status !== SAHARA_STATUS_SUCCESS)
      throw new MmcError("EIO", `END_OF_IMAGE, ${saharaStatusName(status)}`);
    if (this.#isDump || image !== this.#image) {
      throw new MmcError("EPROTO", `END_OF_IMAGE: of image ${image}, which was not being read`);
    }
    this.#image = null;
    this.#state = "done";
    return [
      { kind: "image", image },
      { kind: "send", bytes: makePacket(SAHARA_DONE) },
    ];
  }

  #end(error: MmcError | null, actions: SaharaAction[]): SaharaAction[] {
    this.#state = "ended";
    for (const region of this.#regions) {
      if (region.state === "partial" && region.why === "") region.why = "was interrupted";
    }
    return [...actions, { kind: "end", error }];
  }
}
