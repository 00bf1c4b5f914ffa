// What the devlink command prints of regions, character by character: text with a space behind every byte and lines
// that are broken by count, not by address; JSON whose objects repeat their keys for every piece of 256 bytes, unless
// an array is asked for. Nothing of Node.

import { bool, judge, type Shape } from "../judge.js";
import type { DevlinkChunk, DevlinkRegionInfo } from "./devlink.js";
import { JsonWriter } from "./json.js";

export interface DevlinkStyle {
  json?: boolean | undefined;
  /** JSON in lines. */
  pretty?: boolean | undefined;
  /** JSON of dump and read: an array of pieces, which any parser can read, in place of repeated keys. */
  jsonChunks?: boolean | undefined;
}

const STYLE: Shape<DevlinkStyle> = { json: bool, pretty: bool, jsonChunks: bool };
const LINE_BYTES = 16;
/** What is gathered before it is handed out. */
const PIECE_CHARACTERS = 65_536;
const HEX = Array.from({ length: 256 }, (_, byte) => `${byte.toString(16).padStart(2, "0")} `);

/** Of `region show`. */
export function formatRegions(
  handle: string,
  regions: readonly DevlinkRegionInfo[],
  style: DevlinkStyle,
): string {
  judge("", style, STYLE);
  if (!style.json) {
    const line = ({ name, size, snapshots, maxSnapshots }: DevlinkRegionInfo) =>
      `${handle}/${name}: size ${size} snapshot [${snapshots.join(" ")}] max ${maxSnapshots}\n`;
    return regions.map(line).join("");
  }
  const json = beginSection("regions", style).beginObject();
  for (const { name, size, snapshots, maxSnapshots } of regions) {
    json.name(`${handle}/${name}`).beginObject().name("size").value(size);
    writeIds(json, snapshots).name("max").value(maxSnapshots).endObject();
  }
  return json.endObject().endObject().endDocument().take();
}

/** Of `region new`, which tells an id only if it has chosen one (null: it has not). */
export function formatNewSnapshot(
  handle: string,
  name: string,
  id: number | null,
  style: DevlinkStyle,
): string {
  judge("", style, STYLE);
  if (!style.json) return id === null ? "" : `${handle}/${name}: snapshot ${id}\n`;
  const json = beginSection("regions", style).beginObject();
  if (id !== null) writeIds(json.name(`${handle}/${name}`).beginObject(), [id]).endObject();
  return json.endObject().endObject().endDocument().take();
}

/**
 * Of `region dump` and `read`, in pieces of some 64 KiB. An error of `chunks` comes out behind the text of what was
 * read, which is then complete: a last line, or valid JSON.
 */
export function* formatChunks(
  section: "dump" | "read",
  chunks: Iterable<DevlinkChunk>,
  style: DevlinkStyle,
): Generator<string> {
  judge("", style, STYLE);
  const writer = style.json ? new JsonChunks(section, style) : new TextChunks();
  let failure: { error: unknown } | null = null;
  try {
    for (const chunk of chunks) {
      writer.add(chunk);
      if (writer.length >= PIECE_CHARACTERS) yield writer.take();
    }
  } catch (error) {
    failure = { error };
  }
  writer.end();
  yield writer.take();
  if (failure !== null) throw failure.error;
}

class TextChunks {
  #text = "";
  #count = 0;

  get length(): number {
    return this.#text.length;
  }

  add({ address, data }: DevlinkChunk): void {
    for (const [i, byte] of data.entries()) {
      if (this.#count % LINE_BYTES === 0) {
        const at = (address + BigInt(i)).toString(16).padStart(16, "0");
        this.#text += `${this.#count === 0 ? "" : "\n"}${at} `;
      }
      this.#text += HEX[byte];
      this.#count++;
    }
  }

  end(): void {
    this.#text += "\n";
  }

  take(): string {
    const text = this.#text;
    this.#text = "";
    return text;
  }
}

class JsonChunks {
  readonly #json: JsonWriter;
  readonly #isArray: boolean;

  constructor(section: string, style: DevlinkStyle) {
    this.#isArray = style.jsonChunks === true;
    this.#json = beginSection(section, style);
    if (this.#isArray) this.#json.beginArray();
    else this.#json.beginObject();
  }

  get length(): number {
    return this.#json.length;
  }

  add({ address, data }: DevlinkChunk): void {
    const json = this.#json;
    if (this.#isArray) json.beginObject();
    json.name("address").value(address).name("data").beginArray();
    for (const byte of data) json.value(byte);
    json.endArray();
    if (this.#isArray) json.endObject();
  }

  end(): void {
    if (this.#isArray) this.#json.endArray();
    else this.#json.endObject();
    this.#json.endObject().endDocument();
  }

  take(): string {
    return this.#json.take();
  }
}

function beginSection(section: string, { pretty = false }: DevlinkStyle): JsonWriter {
  return new JsonWriter(pretty).beginObject().name(section);
}

function writeIds(json: JsonWriter, ids: readonly number[]): JsonWriter {
  json.name("snapshot").beginArray();
  for (const id of ids) json.value(id);
  return json.endArray();
}
