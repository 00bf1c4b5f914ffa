// The sections of a WebAssembly binary, as far as the rules of the core ask: what it imports and exports,
// and what would be done at instantiation. Anything that is not known throws: a rule must not pass by not
// being looked at.

export interface ImportEntry {
  name: string;
  kind: "function" | "table" | "memory" | "global" | "tag";
  /** Memories only. */
  shared: boolean;
}

export interface Sections {
  imports: ImportEntry[];
  exports: { name: string; kind: string }[];
  globals: { mutable: boolean }[];
  tables: number;
  memories: number;
  tags: number;
  elementSegments: number;
  dataSegments: number;
  hasStart: boolean;
  customs: string[];
  /** The bytes of the code section. */
  code: Uint8Array;
}

const KINDS = ["function", "table", "memory", "global", "tag"] as const;
const SECTION_CUSTOM = 0;
const SECTION_IMPORT = 2;
const SECTION_TABLE = 4;
const SECTION_MEMORY = 5;
const SECTION_GLOBAL = 6;
const SECTION_EXPORT = 7;
const SECTION_START = 8;
const SECTION_ELEMENT = 9;
const SECTION_CODE = 10;
const SECTION_DATA = 11;
const SECTION_DATA_COUNT = 12;
const SECTION_TAG = 13;

class Reader {
  at = 0;
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  byte(): number {
    const value = this.bytes[this.at++];
    if (value === undefined) throw new Error("the section ends too early");
    return value;
  }

  /** Unsigned LEB128. */
  number(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.byte();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      if (scale > 2 ** 63) throw new Error("a LEB128 number does not end");
    }
  }

  part(lengthBytes: number): Uint8Array {
    if (this.at + lengthBytes > this.bytes.length) throw new Error("the section ends too early");
    this.at += lengthBytes;
    return this.bytes.subarray(this.at - lengthBytes, this.at);
  }

  name(): string {
    return new TextDecoder().decode(this.part(this.number()));
  }

  /** Limits of a memory or a table; true if they say shared. */
  limits(): boolean {
    const flags = this.byte();
    if (flags > 3) throw new Error(`limits with flags ${flags}`);
    this.number();
    if ((flags & 1) !== 0) this.number();
    return (flags & 2) !== 0;
  }

  /** A constant expression of one instruction, up to its end. */
  constant(): void {
    const opcode = this.byte();
    if (opcode !== 0x41 && opcode !== 0x42 && opcode !== 0x23) throw new Error(`initializer ${opcode}`);
    this.number();
    if (this.byte() !== 0x0b) throw new Error("an initializer of more than one instruction");
  }
}

function readImport(reader: Reader): ImportEntry {
  const name = `${reader.name()}.${reader.name()}`;
  const kind = KINDS[reader.byte()];
  let shared = false;
  switch (kind) {
    case "function":
      reader.number();
      break;
    case "memory":
      shared = reader.limits();
      break;
    case "global":
      reader.part(2);
      break;
    default:
      throw new Error(`${name}: an import of kind ${kind}`);
  }
  return { name, kind, shared };
}

export function readSections(binary: Uint8Array): Sections {
  const file = new Reader(binary);
  const magic = file.part(8);
  if (String.fromCharCode(...magic) !== "\0asm\x01\0\0\0") throw new Error("not a WebAssembly module");
  const found: Sections = {
    imports: [],
    exports: [],
    globals: [],
    tables: 0,
    memories: 0,
    tags: 0,
    elementSegments: 0,
    dataSegments: 0,
    hasStart: false,
    customs: [],
    code: new Uint8Array(),
  };
  while (file.at < binary.length) {
    const id = file.byte();
    const reader = new Reader(file.part(file.number()));
    const count = id === SECTION_CUSTOM || id === SECTION_START ? 0 : reader.number();
    const each = (call: () => void) => {
      for (let i = 0; i < count; i++) call();
    };
    if (id === SECTION_CUSTOM) found.customs.push(reader.name());
    else if (id === SECTION_IMPORT) each(() => found.imports.push(readImport(reader)));
    else if (id === SECTION_TABLE) found.tables += count;
    else if (id === SECTION_MEMORY) found.memories += count;
    else if (id === SECTION_GLOBAL) {
      each(() => {
        reader.byte();
        found.globals.push({ mutable: reader.byte() !== 0 });
        reader.constant();
      });
    } else if (id === SECTION_EXPORT) {
      each(() => {
        const name = reader.name();
        found.exports.push({ name, kind: KINDS[reader.byte()] ?? "unknown" });
        reader.number();
      });
    } else if (id === SECTION_START) found.hasStart = true;
    else if (id === SECTION_ELEMENT) found.elementSegments += count;
    else if (id === SECTION_CODE) found.code = reader.bytes;
    else if (id === SECTION_DATA || id === SECTION_DATA_COUNT) found.dataSegments += count;
    else if (id === SECTION_TAG) found.tags += count;
    else if (id > SECTION_TAG) throw new Error(`section ${id}`);
  }
  return found;
}
