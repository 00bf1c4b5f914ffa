// The names under which Linux's pstore file system shows the records of a pstore/blk area, and back.
// The backend's name is the module's, with an underscore: `dmesg-pstore_blk-0` (the kernel's own
// documentation writes pstore-blk, no kernel ever did).
// It must never look at an area or at a file system: names in, names out, and nothing of Node.

/** What a pstore file holds; kmsg is shown by Linux as `dmesg`. */
export type RecordType = "kmsg" | "pmsg" | "console" | "ftrace";

/** A file name taken apart. `raw`: the name ends in `.enc.z`, the bytes are still deflated. */
export interface ParsedName {
  type: RecordType;
  id: number;
  raw: boolean;
}

const LINUX_TYPE_NAMES = { kmsg: "dmesg", pmsg: "pmsg", console: "console", ftrace: "ftrace" } as const;
const NAME_PATTERN = /^(dmesg|pmsg|console|ftrace)-pstore_blk-(0|[1-9][0-9]{0,8})(\.enc\.z)?$/;

/**
 * The name of the file that shows a record.
 * @param type kmsg, pmsg, console or ftrace.
 * @param id the index of the kmsg zone; 0 for the rings.
 * @param raw true if the record is compressed and cannot be inflated: `.enc.z` is appended.
 */
export function recordName(type: RecordType, id: number, raw = false): string {
  return `${LINUX_TYPE_NAMES[type]}-pstore_blk-${id}${raw ? ".enc.z" : ""}`;
}

/**
 * Takes a name made by {@link recordName} apart, or returns null for any other text: another backend's
 * file, an id with leading zeros, a ring with an id other than 0 or with `.enc.z` (Linux has neither).
 */
export function parseRecordName(name: string): ParsedName | null {
  const match = NAME_PATTERN.exec(name);
  if (match === null) return null;
  const type = match[1] === "dmesg" ? "kmsg" : (match[1] as RecordType);
  const parsed = { type, id: Number(match[2]), raw: match[3] !== undefined };
  if (type !== "kmsg" && (parsed.id !== 0 || parsed.raw)) return null;
  return parsed;
}
