// Sizes of the core's @unmanaged classes, read from their source: C-like alignment, no padding at the
// end, which is what offsetof<Class>() says.

const FIELD_BYTES: Record<string, number> = {
  u8: 1,
  i8: 1,
  bool: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  usize: 4,
  u64: 8,
  i64: 8,
};

export interface Field {
  name: string;
  offset: number;
  bytes: number;
}

/**
 * The fields of `class name { … }` in `source`. Throws if there is no such class or a field of another
 * type.
 */
export function fieldsOf(source: string, name: string): Field[] {
  const body = new RegExp(`class ${name} \\{([^}]*)\\}`).exec(source)?.[1];
  if (body === undefined) throw new Error(`no class ${name}`);
  const fields: Field[] = [];
  let end = 0;
  for (const line of body.replace(/\/\/.*$/gm, "").split(";")) {
    const declaration = line.trim();
    if (declaration === "") continue;
    const [, fieldName, type] = /^(\w+): (\w+)$/.exec(declaration) ?? [];
    const bytes = FIELD_BYTES[type ?? ""];
    if (fieldName === undefined || bytes === undefined) throw new Error(`${name}: ${declaration}`);
    const offset = Math.ceil(end / bytes) * bytes;
    fields.push({ name: fieldName, offset, bytes });
    end = offset + bytes;
  }
  return fields;
}

export function bytesOf(fields: Field[]): number {
  const last = fields.at(-1);
  return last === undefined ? 0 : last.offset + last.bytes;
}
