// Records as the files that other collectors expect: systemd-pstore's archive (/var/lib/systemd/pstore) and what ABRT's
// abrt-merge-pstoreoops reads. Says which files and what is in them; writes none. Names are made of record names and
// numbers, so none can leave the folder.
import type { PstoreRecord } from "../pstore/decode.js";
import { formatLog, type JoinedLog, joinLogs, partLineBytes } from "../pstore/join.js";

/** A file to be made. `path`: relative, at most one folder deep. */
export interface PlannedFile {
  path: string;
  bytes: Uint8Array;
  /** Permission bits. */
  mode: number;
  /** Whose time it gets. */
  record: PstoreRecord;
}

/** systemd-pstore copies files as 0600 and writes dmesg.txt as 0640. */
const ARCHIVED_MODE = 0o600;
const DMESG_TXT_MODE = 0o640;

/** abrt-merge-pstoreoops reads no more of a file. */
const ABRT_FILE_BYTES_MAX = 16 * 1024;

/**
 * Each file under its own name, as systemd-pstore moves the files of a backend that it does not group (254.26 made the
 * same of real images; 252.39 also appends all of them, the last name first, to one dmesg.txt). A log in several
 * records goes as ERST's does: a folder named for it (here the sequence of part 1) with the parts, and the whole in
 * dmesg.txt.
 */
export function planSystemd(records: readonly PstoreRecord[]): PlannedFile[] {
  const files: PlannedFile[] = [];
  for (const record of records) {
    if (record.type === "kmsg") continue;
    files.push({ path: record.name, bytes: record.bytes, mode: ARCHIVED_MODE, record });
  }
  for (const log of joinLogs(records)) {
    const newest = log.parts.at(-1) as PstoreRecord;
    const isChain = newest.part > 0;
    for (const record of log.parts) {
      const path = isChain ? `${newest.first}/${record.name}` : record.name;
      files.push({ path, bytes: record.bytes, mode: ARCHIVED_MODE, record });
    }
    if (isChain)
      files.push({
        path: `${newest.first}/dmesg.txt`,
        bytes: formatLog(log),
        mode: DMESG_TXT_MODE,
        record: newest,
      });
  }
  return files;
}

/** Where the piece that ends at `end` starts: at a line if there is one, `most` bytes before at the furthest. */
function pieceStart(text: Uint8Array, end: number, most: number): number {
  const furthest = Math.max(0, end - most);
  if (furthest === 0) return 0;
  const lineBreak = text.indexOf(10, furthest - 1);
  return lineBreak >= 0 && lineBreak + 1 < end ? lineBreak + 1 : furthest;
}

function abrtFiles(log: JoinedLog): PlannedFile[] {
  const newest = log.parts.at(-1) as PstoreRecord;
  const whole = formatLog(log);
  const text = whole.subarray(partLineBytes(whole));
  const files: PlannedFile[] = [];
  for (let end = text.length, part = 1; end > 0 || part === 1; part++) {
    const line = new TextEncoder().encode(`${newest.reason}#${newest.count} Part${part}\n`);
    const start = pieceStart(text, end, ABRT_FILE_BYTES_MAX - line.length);
    const bytes = new Uint8Array(line.length + end - start);
    bytes.set(line);
    bytes.set(text.subarray(start, end), line.length);
    files.push({ path: `${newest.name}-part${part}`, bytes, mode: ARCHIVED_MODE, record: newest });
    end = start;
  }
  return files;
}

/**
 * Files of at most 16 KiB whose first line is `Panic#<n> Part<m>`, part 1 the newest. ABRT passes over reasons other
 * than Panic, and over what is no log; those of other reasons are here all the same, undecodable ones and rings not.
 */
export function planAbrt(records: readonly PstoreRecord[]): PlannedFile[] {
  const logs = joinLogs(records).filter((log) => log.parts.every(({ state }) => state !== "undecodable"));
  return logs.flatMap(abrtFiles);
}
