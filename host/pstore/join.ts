// Logs that were stored in several records, put together again: docs/FORMAT.md, "Long logs". Records in, text out; must
// never throw on what a hostile area says of its parts, and never join what contradicts itself.

import { ownBytes } from "../own-bytes.js";
import type { PstoreRecord } from "./record.js";

/** Bytes of a log that are on no record. */
export interface MissingText {
  /** In the joined text, where they would be. */
  offset: number;
  /** How many. */
  sizeBytes: number;
}

/** One log, whether it was stored in one record or in several. */
export interface JoinedLog {
  /** Oldest text first. A record that is no part of a chain stands alone. */
  parts: PstoreRecord[];
  /** The log without Linux's header lines and the parts' own; what is missing is left out. */
  text: Uint8Array;
  missing: MissingText[];
  /** false: part 1 is gone, and nobody knows how much text it had. */
  hasNewest: boolean;
}

const PART_LINE_BYTES_MAX = 48;

function textOf(record: PstoreRecord): Uint8Array {
  return record.bytes.subarray(record.textOffset);
}

/** Length of the line `Panic#1 Part1` with which Linux lets a text begin, newline included; 0: it does not. */
export function partLineBytes(text: Uint8Array): number {
  const start = String.fromCharCode(...text.subarray(0, PART_LINE_BYTES_MAX));
  return /^[A-Za-z]+#\d+ Part\d+\n/.exec(start)?.[0].length ?? 0;
}

/** A part's own line, which is not the log's. Salvaged text may have lost it. */
function lineOf(record: PstoreRecord): Uint8Array {
  const text = textOf(record);
  const isThere = record.lineBytes > 0 && partLineBytes(text) === record.lineBytes;
  return text.subarray(0, isThere ? record.lineBytes : 0);
}

/** What a part says of itself can be. */
function isPart({ part, first, sequence }: PstoreRecord): boolean {
  if (part === 0 || first === null || sequence === null) return false;
  return part === 1 ? first === sequence : first < sequence;
}

/** Newest first. null: they cannot be parts of one log. */
function joinChain(newestFirst: PstoreRecord[]): JoinedLog | null {
  const [newest] = newestFirst;
  const missing: { before: number; sizeBytes: number }[] = [];
  const pieces: Uint8Array[] = [];
  // The log begins with the line of its newest part.
  const line = newestFirst.map(lineOf).find((one) => one.length > 0) ?? new Uint8Array(0);
  let joinedBytes = 0;
  // Of a chain whose newest part is gone nobody knows how much text that had.
  let olderBytes: number | null = null;
  let part = 0;
  for (const record of newestFirst) {
    const text = textOf(record).subarray(lineOf(record).length);
    if (record.part === part || record.reason !== newest?.reason || record.count !== newest.count)
      return null;
    if (olderBytes !== null) {
      const gapBytes: number = olderBytes - text.length - record.olderBytes;
      // Salvaged text may be shorter than what was written; the rest is a gap like any other.
      if (gapBytes < 0) return null;
      if (gapBytes > 0) missing.push({ before: joinedBytes, sizeBytes: gapBytes });
    }
    pieces.unshift(text);
    joinedBytes += text.length;
    olderBytes = record.olderBytes;
    part = record.part;
  }
  if (olderBytes !== null && olderBytes > 0) missing.push({ before: joinedBytes, sizeBytes: olderBytes });
  pieces.unshift(line);
  joinedBytes += line.length;
  const text = new Uint8Array(joinedBytes);
  let at = 0;
  for (const piece of pieces) {
    text.set(piece, at);
    at += piece.length;
  }
  const fromStart = missing.map(({ before, sizeBytes }) => ({ offset: joinedBytes - before, sizeBytes }));
  return {
    parts: [...newestFirst].reverse(),
    text,
    missing: fromStart.reverse(),
    hasNewest: newest?.part === 1,
  };
}

/**
 * The logs of an area, by the zone of their newest part. Duplicates and rings are left out; a record that is
 * compressed and cannot be inflated stands alone with its raw payload.
 */
export function joinLogs(records: readonly PstoreRecord[]): JoinedLog[] {
  const chains = new Map<bigint, PstoreRecord[]>();
  const single = (record: PstoreRecord): JoinedLog => ({
    parts: [record],
    text: ownBytes(textOf(record)),
    missing: [],
    hasNewest: true,
  });
  const logs: JoinedLog[] = [];
  for (const record of records) {
    if (record.type !== "kmsg" || record.duplicateOf !== null) continue;
    if (record.first === null || !isPart(record) || record.state === "undecodable") {
      logs.push(single(record));
      continue;
    }
    const chain = chains.get(record.first);
    if (chain === undefined) chains.set(record.first, [record]);
    else chain.push(record);
  }
  for (const chain of chains.values()) {
    chain.sort((one, other) => one.part - other.part);
    const joined = joinChain(chain);
    if (joined === null) logs.push(...chain.map(single));
    else logs.push(joined);
  }
  const newestOf = (log: JoinedLog): number => log.parts.at(-1)?.id ?? 0;
  return logs.sort((one, other) => newestOf(one) - newestOf(other));
}

/**
 * A log's text with a line where bytes are missing, for people and collectors; without gaps it is the text itself.
 */
export function formatLog({ text, missing, hasNewest }: JoinedLog): Uint8Array {
  const pieces: Uint8Array[] = [];
  let at = 0;
  const remark = (offset: number, what: string): void => {
    pieces.push(text.subarray(at, offset));
    at = offset;
    const lineBreak = offset > 0 && text[offset - 1] !== 10 ? "\n" : "";
    pieces.push(new TextEncoder().encode(`${lineBreak}--- ${what} missing here ---\n`));
  };
  for (const { offset, sizeBytes } of missing) remark(offset, `${sizeBytes} bytes of the log are`);
  if (!hasNewest) remark(text.length, "the newest part of the log is");
  pieces.push(text.subarray(at));
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let end = 0;
  for (const piece of pieces) {
    bytes.set(piece, end);
    end += piece.length;
  }
  return bytes;
}
