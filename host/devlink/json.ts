// JSON as iproute2's writer makes it: compact, or with four spaces, arrays on one line, and keys that may come twice in
// an object. Text is taken away piece by piece, so a dump of any length needs no memory for the whole. Nothing of Node.

export class JsonWriter {
  readonly #pretty: boolean;
  #text = "";
  #depth = 0;
  #separator = "";

  constructor(pretty: boolean) {
    this.#pretty = pretty;
  }

  /** How much take() would give. */
  get length(): number {
    return this.#text.length;
  }

  /** What was written since the last time. */
  take(): string {
    const text = this.#text;
    this.#text = "";
    return text;
  }

  name(name: string): this {
    this.#separate();
    this.#newLine();
    this.#separator = "";
    this.#text += `${JSON.stringify(name)}:${this.#pretty ? " " : ""}`;
    return this;
  }

  value(value: number | bigint): this {
    this.#separate();
    this.#text += value;
    return this;
  }

  beginObject(): this {
    return this.#begin("{");
  }

  endObject(): this {
    return this.#end("}");
  }

  beginArray(): this {
    this.#begin("[");
    if (this.#pretty) this.#text += " ";
    return this;
  }

  endArray(): this {
    if (this.#pretty && this.#separator !== "") this.#text += " ";
    this.#separator = "";
    return this.#end("]");
  }

  endDocument(): this {
    this.#text += "\n";
    return this;
  }

  #separate(): void {
    this.#text += this.#separator;
    this.#separator = ",";
  }

  #newLine(): void {
    if (this.#pretty) this.#text += `\n${"    ".repeat(this.#depth)}`;
  }

  #begin(bracket: string): this {
    this.#separate();
    this.#text += bracket;
    this.#depth++;
    this.#separator = "";
    return this;
  }

  #end(bracket: string): this {
    this.#depth--;
    if (this.#separator !== "") this.#newLine();
    this.#text += bracket;
    this.#separator = ",";
    return this;
  }
}
