// Reads ELF cores, whoever made them. Every number in the file is an attacker's: tables are clipped to the file, work
// is bounded by the file's size, and what is wrong becomes a line in `problems` instead of an error, as long as there
// is something to read. Must never import from assembly/: it is what the core's own files are held against.
import { MmcError } from "../errors.js";

/** Bytes of fixed size that can be read anywhere: a RawImage, or {@link bytesSource}. */
export interface ElfSource {
  readonly sizeBytes: number;
  /** Fills `target` from `offset` on; the range lies in the file. */
  readSync(offset: number, target: Uint8Array): void;
}

/** Bytes in memory as a source. */
export function bytesSource(bytes: Uint8Array): ElfSource {
  return {
    sizeBytes: bytes.length,
    readSync: (offset, target) => target.set(bytes.subarray(offset, offset + target.length)),
  };
}

/** A program header, or a section of a core that has no program headers. */
export interface ElfSegment {
  /** Position in its table. */
  index: number;
  /** p_type: 1 PT_LOAD, 4 PT_NOTE; of a section 1. */
  type: number;
  flags: number;
  /** Name of the section with the same bytes; control characters and the like are in it as they are. */
  name: string | null;
  vaddr: bigint;
  paddr: bigint;
  memsz: bigint;
  /** As the file says, which may be beyond its end. */
  offset: bigint;
  filesz: bigint;
  /** How many of its bytes are in the file, 0 … filesz. */
  presentBytes: number;
}

export interface ElfNote {
  /** Without its NUL. */
  name: string;
  type: number;
  /** Of the description, in bytes from the start of the file. */
  offset: number;
  lengthBytes: number;
}

export interface ElfCore {
  class: 32 | 64;
  isLittleEndian: boolean;
  machine: number;
  entry: bigint;
  segments: ElfSegment[];
  notes: ElfNote[];
  /** What is wrong with the file, a line each, at most {@link PROBLEMS_MAX}. */
  problems: string[];
}

export const PROBLEMS_MAX = 100;
const ET_CORE = 4;
export const PT_LOAD = 1;
export const PT_NOTE = 4;
const SHT_PROGBITS = 1;
const PN_XNUM = 0xffff;
/** String tables and notes are read up to here: 65,536 names of 16 bytes are 1 MiB. */
const PART_BYTES_MAX = 16 * 2 ** 20;
const NOTES_MAX = 65536;
const NAME_BYTES_MAX = 255;

interface Header {
  class: 32 | 64;
  isLittleEndian: boolean;
  machine: number;
  entry: bigint;
  phoff: bigint;
  shoff: bigint;
  phentsize: number;
  phnum: number;
  shentsize: number;
  shnum: number;
  shstrndx: number;
}

interface Section {
  name: number;
  type: number;
  flags: bigint;
  address: bigint;
  offset: bigint;
  size: bigint;
  link: number;
  info: number;
}

/** Words of one structure: `word` is 32 or 64 bits by the class. */
class Fields {
  readonly #view: DataView;
  readonly #isLittleEndian: boolean;
  readonly #is64: boolean;

  constructor(bytes: Uint8Array, header: { class: 32 | 64; isLittleEndian: boolean }) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#isLittleEndian = header.isLittleEndian;
    this.#is64 = header.class === 64;
  }

  half(at: number): number {
    return this.#view.getUint16(at, this.#isLittleEndian);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, this.#isLittleEndian);
  }

  word(at: number): bigint {
    return this.#is64 ? this.#view.getBigUint64(at, this.#isLittleEndian) : BigInt(this.u32(at));
  }
}

/** What is read, and what was found wrong on the way. */
class Reading {
  readonly problems: string[] = [];
  readonly source: ElfSource;

  constructor(source: ElfSource) {
    this.source = source;
  }

  problem(line: string): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push(line);
    else if (this.problems.length === PROBLEMS_MAX) this.problems.push("and more");
  }

  /** How many of `size` bytes at `offset` are in the file. */
  present(offset: bigint, size: bigint): number {
    const left = BigInt(this.source.sizeBytes) - offset;
    if (left <= 0n) return 0;
    return Number(size < left ? size : left);
  }

  /** At most `limitBytes` of a part of the file, clipped to its end. */
  part(offset: bigint, size: bigint, limitBytes = PART_BYTES_MAX): Uint8Array {
    const bytes = new Uint8Array(Math.min(this.present(offset, size), limitBytes));
    if (bytes.length > 0) this.source.readSync(Number(offset), bytes);
    return bytes;
  }
}

/**
 * Reads the headers of an ELF core; the segments' bytes stay where they are.
 * @throws MmcError EINVAL this is no ELF core: too short, another magic, class, byte order or e_type, or headers of a
 * size that its class does not have; and what the source throws.
 */
export function readElfCore(source: ElfSource): ElfCore {
  const reading = new Reading(source);
  const header = readHeader(reading);
  const sections = readSections(reading, header);
  const names = readNames(reading, header, sections);
  const segments =
    header.phnum > 0 ? readSegments(reading, header, sections) : sectionsAsSegments(reading, sections);
  giveNames(segments, sections, names);
  checkSegments(reading, segments);
  const notes = readNotes(reading, header, segments);
  const { isLittleEndian, machine, entry } = header;
  return { class: header.class, isLittleEndian, machine, entry, segments, notes, problems: reading.problems };
}

function readHeader(reading: Reading): Header {
  const bytes = reading.part(0n, 64n);
  const magic =
    bytes.length >= 4 && bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
  if (!magic) throw new MmcError("EINVAL", "is not an ELF file");
  const [elfClass, order] = [bytes[4], bytes[5]];
  if ((elfClass !== 1 && elfClass !== 2) || (order !== 1 && order !== 2)) {
    throw new MmcError("EINVAL", `is an ELF file of class ${elfClass ?? "?"} and byte order ${order ?? "?"}`);
  }
  const is64 = elfClass === 2;
  if (bytes.length < (is64 ? 64 : 52)) throw new MmcError("EINVAL", "ends within its ELF header");
  const shape = { class: is64 ? 64 : 32, isLittleEndian: order === 1 } as const;
  const fields = new Fields(bytes, shape);
  if (fields.half(16) !== ET_CORE) {
    throw new MmcError("EINVAL", `is an ELF file of type ${fields.half(16)}, not a core (4)`);
  }
  const tail = is64 ? 52 : 40;
  const header: Header = {
    ...shape,
    machine: fields.half(18),
    entry: fields.word(24),
    phoff: fields.word(is64 ? 32 : 28),
    shoff: fields.word(is64 ? 40 : 32),
    phentsize: fields.half(tail + 2),
    phnum: fields.half(tail + 4),
    shentsize: fields.half(tail + 6),
    shnum: fields.half(tail + 8),
    shstrndx: fields.half(tail + 10),
  };
  if (fields.u32(20) !== 1) reading.problem(`e_version is ${fields.u32(20)}, not 1`);
  if (fields.half(tail) !== (is64 ? 64 : 52)) reading.problem(`e_ehsize is ${fields.half(tail)}`);
  if (header.phnum > 0 && header.phentsize !== (is64 ? 56 : 32)) {
    throw new MmcError("EINVAL", `has program headers of ${header.phentsize} bytes`);
  }
  if (header.shnum > 0 && header.shentsize !== (is64 ? 64 : 40)) {
    throw new MmcError("EINVAL", `has section headers of ${header.shentsize} bytes`);
  }
  return header;
}

/** Whole entries of a table, as many as the file has. */
function readTable(
  reading: Reading,
  what: string,
  offset: bigint,
  count: number,
  entryBytes: number,
): Uint8Array {
  const size = BigInt(count) * BigInt(entryBytes);
  const whole = Math.floor(reading.present(offset, size) / entryBytes);
  if (whole < count) reading.problem(`${what}: ${whole} of ${count} are in the file`);
  // 65,536 entries of 64 bytes, which is all that the 16-bit counts can say, are 4 MiB.
  return reading.part(offset, BigInt(whole * entryBytes));
}

function readSections(reading: Reading, header: Header): Section[] {
  const { shentsize, shnum, shoff } = header;
  if (shnum === 0 || shoff === 0n) return [];
  const table = readTable(reading, "section headers", shoff, shnum, shentsize);
  const is64 = header.class === 64;
  const sections: Section[] = [];
  for (let at = 0; at + shentsize <= table.length; at += shentsize) {
    const fields = new Fields(table.subarray(at, at + shentsize), header);
    sections.push({
      name: fields.u32(0),
      type: fields.u32(4),
      flags: fields.word(8),
      address: fields.word(is64 ? 16 : 12),
      offset: fields.word(is64 ? 24 : 16),
      size: fields.word(is64 ? 32 : 20),
      link: fields.u32(is64 ? 40 : 24),
      info: fields.u32(is64 ? 44 : 28),
    });
  }
  return sections;
}

/** A function from sh_name to the name. */
function readNames(
  reading: Reading,
  header: Header,
  sections: Section[],
): (section: Section) => string | null {
  const table = sections[header.shstrndx];
  if (table === undefined) {
    if (sections.length > 0) reading.problem(`section names: e_shstrndx ${header.shstrndx} is no section`);
    return () => null;
  }
  const bytes = reading.part(table.offset, table.size);
  if (BigInt(bytes.length) < table.size) reading.problem("section names: not all in the file");
  return ({ name }) => {
    if (name >= bytes.length) return null;
    const rest = bytes.subarray(name, name + NAME_BYTES_MAX);
    const end = rest.indexOf(0);
    return latin1(end < 0 ? rest : rest.subarray(0, end));
  };
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function readSegments(reading: Reading, header: Header, sections: Section[]): ElfSegment[] {
  let count = header.phnum;
  if (count === PN_XNUM) {
    // The true count is in the first section header.
    const first = sections[0];
    if (first === undefined)
      reading.problem("program headers: e_phnum is PN_XNUM and there is no section header");
    else count = Math.min(first.info, Math.floor(PART_BYTES_MAX / header.phentsize));
  }
  const table = readTable(reading, "program headers", header.phoff, count, header.phentsize);
  const is64 = header.class === 64;
  const segments: ElfSegment[] = [];
  for (let at = 0; at + header.phentsize <= table.length; at += header.phentsize) {
    const fields = new Fields(table.subarray(at, at + header.phentsize), header);
    const offset = fields.word(is64 ? 8 : 4);
    const filesz = fields.word(is64 ? 32 : 16);
    segments.push({
      index: segments.length,
      type: fields.u32(0),
      flags: fields.u32(is64 ? 4 : 24),
      name: null,
      vaddr: fields.word(is64 ? 16 : 8),
      paddr: fields.word(is64 ? 24 : 12),
      memsz: fields.word(is64 ? 40 : 20),
      offset,
      filesz,
      presentBytes: reading.present(offset, filesz),
    });
  }
  return segments;
}

/** remoteproc's other variant has its memory in sections alone. */
function sectionsAsSegments(reading: Reading, sections: Section[]): ElfSegment[] {
  const segments: ElfSegment[] = [];
  for (const [index, section] of sections.entries()) {
    if (section.type !== SHT_PROGBITS) continue;
    segments.push({
      index,
      type: PT_LOAD,
      flags: 6,
      name: null,
      vaddr: section.address,
      paddr: section.address,
      memsz: section.size,
      offset: section.offset,
      filesz: section.size,
      presentBytes: reading.present(section.offset, section.size),
    });
  }
  return segments;
}

function giveNames(
  segments: ElfSegment[],
  sections: Section[],
  nameOf: (section: Section) => string | null,
): void {
  const byBytes = new Map<string, Section>();
  for (const section of sections) {
    if (section.type === SHT_PROGBITS) byBytes.set(`${section.offset}+${section.size}`, section);
  }
  for (const segment of segments) {
    const section = byBytes.get(`${segment.offset}+${segment.filesz}`);
    if (section !== undefined) segment.name = nameOf(section);
  }
}

/** `segment 3 (md_one)`, with nothing of the name that could steer a terminal. */
function call({ index, name }: ElfSegment): string {
  return name === null ? `segment ${index}` : `segment ${index} (${name.replace(/[^\x21-\x7e]/g, "?")})`;
}

function checkSegments(reading: Reading, segments: ElfSegment[]): void {
  if (segments.length === 0) reading.problem("there is no segment");
  for (const segment of segments) {
    const { filesz, memsz, presentBytes, type } = segment;
    if (BigInt(presentBytes) < filesz) {
      reading.problem(`${call(segment)}: ${presentBytes} of ${filesz} bytes are in the file`);
    }
    if (type !== PT_LOAD) continue;
    if (memsz < filesz) reading.problem(`${call(segment)}: p_memsz ${memsz} is less than p_filesz ${filesz}`);
    for (const address of [segment.paddr, segment.vaddr]) {
      if (memsz > 0n && (address + memsz - 1n) >> 64n !== 0n) {
        reading.problem(`${call(segment)}: its end is beyond 2^64`);
        break;
      }
    }
  }
  const loads = segments.filter(({ type }) => type === PT_LOAD);
  reportOverlaps(reading, loads, "file", (one) => [one.offset, one.filesz]);
  reportOverlaps(reading, loads, "memory", (one) => [one.paddr, one.memsz]);
}

function reportOverlaps(
  reading: Reading,
  segments: ElfSegment[],
  where: string,
  rangeOf: (segment: ElfSegment) => [bigint, bigint],
): void {
  const ranges = segments
    .map((segment) => ({ segment, range: rangeOf(segment) }))
    .filter(({ range: [, size] }) => size > 0n)
    .sort((a, b) => (a.range[0] < b.range[0] ? -1 : a.range[0] > b.range[0] ? 1 : 0));
  // The one so far that reaches farthest: whoever begins before its end overlaps it.
  let farthest = ranges[0];
  for (const next of ranges.slice(1)) {
    if (farthest === undefined) break;
    const end = farthest.range[0] + farthest.range[1];
    if (next.range[0] < end) {
      reading.problem(`${call(next.segment)}: overlaps ${call(farthest.segment)} in the ${where}`);
    }
    if (next.range[0] + next.range[1] > end) farthest = next;
  }
}

function readNotes(reading: Reading, header: Header, segments: ElfSegment[]): ElfNote[] {
  const notes: ElfNote[] = [];
  for (const segment of segments) {
    if (segment.type !== PT_NOTE || notes.length >= NOTES_MAX) continue;
    const bytes = reading.part(segment.offset, segment.filesz);
    const from = Number(segment.offset);
    let at = 0;
    while (at + 12 <= bytes.length && notes.length < NOTES_MAX) {
      const fields = new Fields(bytes.subarray(at, at + 12), header);
      const [nameBytes, lengthBytes] = [fields.u32(0), fields.u32(4)];
      const descriptionAt = at + 12 + Math.ceil(nameBytes / 4) * 4;
      if (descriptionAt + lengthBytes > bytes.length) {
        reading.problem(`${call(segment)}: the note at ${from + at} goes beyond its end`);
        break;
      }
      const name = latin1(bytes.subarray(at + 12, at + 12 + Math.min(nameBytes, NAME_BYTES_MAX)));
      notes.push({
        name: name.split("\0", 1)[0] ?? "",
        type: fields.u32(8),
        offset: from + descriptionAt,
        lengthBytes,
      });
      at = descriptionAt + Math.ceil(lengthBytes / 4) * 4;
    }
  }
  return notes;
}
