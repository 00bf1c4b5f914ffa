// What must hold of a medium after any cut, looked at through decode.ts alone:
//   older records are whole; the new one is whole, absent or known to be torn; nothing is served as ok that was never
//   written; after a panic that said so, the new one is whole; no byte outside the area has changed.
import { decodeArea, type PstoreRecord } from "../pstore/decode.js";
import { EXPLORED_AREA_OFFSET, EXPLORED_KMSG_BYTES, EXPLORED_ZONES } from "./scenario.js";

export interface Expectation {
  /** By zone; null: its record was removed before. */
  oldTexts: (Uint8Array | null)[];
  newText: Uint8Array;
  /** The older parts of the new log, if it is written in parts; `newText` is part 1 then. */
  furtherParts?: Uint8Array[];
  /** The smallest counter that the new record may have. */
  leastCount: number;
  /** The zone whose record may be gone because all zones were taken; -1: none. */
  replaceable: number;
  /** The bytes in front of the area. */
  user: Uint8Array;
  /** First and end offset of user bytes that a request in flight was erasing. */
  mayDiffer: [number, number] | null;
  /** The replaced record's counter, where a cut may have destroyed the header that told it. */
  renumberable?: number | undefined;
  /** A cut took several acknowledged sectors at once, the seal's too: FORMAT.md, "a record that lost its seal". */
  sealsMayBeLost?: boolean | undefined;
  /** Further texts that may be served as ok. */
  others?: (Uint8Array | null)[];
}

/** The new record's number and order, where it is whole: one more than all that were there. */
function misnumbered(records: PstoreRecord[], expected: Expectation): string | null {
  const fresh = records.find((record) => record.state === "ok" && isText(record, expected.newText));
  if (fresh === undefined) return null;
  const again = fresh.count === expected.renumberable;
  if (fresh.count < expected.leastCount && !again) return `its counter ${fresh.count} has been used before`;
  for (const record of records) {
    if (expected.furtherParts?.some((text) => isText(record, text))) continue;
    if (record === fresh || record.sequence === null || fresh.sequence === null) continue;
    if (record.sequence >= fresh.sequence) return `its sequence ${fresh.sequence} is not the largest`;
  }
  return null;
}

export interface Verdict {
  fresh: "absent" | "torn" | "whole";
  /** The promise that was broken, or null. */
  problem: string | null;
  /** A record without its seal is served on trust, and may be a mixture. */
  unsealed?: boolean | undefined;
  /** The new record's counter has been used before, by the record that it replaces. */
  renumbered?: boolean | undefined;
}

function sameBytes(first: Uint8Array, second: Uint8Array): boolean {
  if (first.length !== second.length) return false;
  for (let i = 0; i < first.length; i++) if (first[i] !== second[i]) return false;
  return true;
}

/** The record's text without Linux's first line, which a compressed record has not. */
function textOf(record: PstoreRecord): Uint8Array {
  if (record.compressed) return record.bytes;
  return record.bytes.subarray(record.bytes.indexOf(10) + 1);
}

/** Longer text than a record takes has lost its oldest bytes; Linux inflates 100/45 of what such a small zone takes. */
function isText(record: PstoreRecord, text: Uint8Array | null): boolean {
  if (text === null) return false;
  const most = EXPLORED_KMSG_BYTES - 12 - 40;
  const room = record.compressed ? Math.floor((most * 100) / 45) : most - 64;
  return sameBytes(textOf(record), text.subarray(Math.max(0, text.length - room)));
}

export function judge(medium: Uint8Array, expected: Expectation, committed: boolean): Verdict {
  const area = medium.subarray(
    EXPLORED_AREA_OFFSET,
    EXPLORED_AREA_OFFSET + EXPLORED_KMSG_BYTES * EXPLORED_ZONES,
  );
  const sizes = {
    kmsgSize: EXPLORED_KMSG_BYTES,
    pmsgSize: 0,
    consoleSize: 0,
    ftraceSize: 0,
    abi: "lp64",
  } as const;
  const { records } = decodeArea(area, sizes);
  const whole = records.some((record) => record.state === "ok" && isText(record, expected.newText));
  const torn = records.some((record) => record.state === "torn");
  const verdict: Verdict = { fresh: whole ? "whole" : torn ? "torn" : "absent", problem: null };
  const fail = (problem: string): Verdict => {
    verdict.problem = problem;
    return verdict;
  };
  const fresh = records.find((record) => record.state === "ok" && isText(record, expected.newText));
  verdict.renumbered = fresh !== undefined && fresh.count < expected.leastCount;
  const number = misnumbered(records, expected);
  if (number !== null) return fail(number);
  const isThere = (text: Uint8Array) =>
    records.some((record) => record.state === "ok" && isText(record, text));
  const missing = expected.furtherParts?.findIndex((text) => !isThere(text)) ?? -1;
  if (committed && missing >= 0) return fail(`the panic said done and part ${missing + 2} is not there`);
  if (missing >= 0 && expected.furtherParts?.slice(missing).some(isThere)) {
    return fail(`a part stands without part ${missing + 2}`);
  }
  if (committed && !whole) return fail("the panic said done and the record is not there");
  for (const record of records) {
    if (record.state !== "ok") continue;
    if (!record.sealed && expected.sealsMayBeLost) {
      verdict.unsealed = true;
      continue;
    }
    if (!record.sealed) return fail(`${record.name} is served without a seal`);
    const { furtherParts = [] } = expected;
    const part = furtherParts.findIndex((text) => isText(record, text));
    if (part >= 0 && !whole) return fail(`part ${part + 2} stands without part 1`);
    const texts = [expected.newText, ...furtherParts, ...expected.oldTexts, ...(expected.others ?? [])];
    if (!texts.some((text) => isText(record, text)))
      return fail(`${record.name} is ok and was never written`);
  }
  for (const [zone, text] of expected.oldTexts.entries()) {
    if (text === null || zone === expected.replaceable) continue;
    const record = records.find((candidate) => candidate.id === zone);
    if (record?.state !== "ok" || !isText(record, text))
      return fail(`the older record in zone ${zone} is lost`);
  }
  for (let i = 0; i < expected.user.length; i++) {
    if (medium[i] === expected.user[i]) continue;
    if (expected.mayDiffer !== null && i >= expected.mayDiffer[0] && i < expected.mayDiffer[1]) continue;
    return fail(`byte ${i} outside the area has changed`);
  }
  return verdict;
}
