// Points in time as records have them (s64 seconds and nanoseconds) and as people write them: UTC, to the
// nanosecond. Must never round, and never fail on a time that a damaged record holds.

/** A time as records store it. */
export interface RecordTime {
  timeSec: bigint;
  timeNsec: number;
}

/** The years 0001 to 9999, which ISO 8601 writes with four digits. */
const SECONDS_MIN = -62_135_596_800n;
const SECONDS_MAX = 253_402_300_799n;

/** `2024-01-12T21:44:35.123456789Z`; `@seconds.nanoseconds` beyond any calendar; null if it is not known. */
export function formatTime({ timeSec, timeNsec }: RecordTime): string | null {
  if (timeSec === 0n) return null;
  if (timeSec < SECONDS_MIN || timeSec > SECONDS_MAX || timeNsec < 0 || timeNsec > 999_999_999) {
    return `@${timeSec}.${timeNsec}`;
  }
  const seconds = new Date(Number(timeSec) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(timeNsec).padStart(9, "0")}Z`;
}

/** The time in `text`: seconds since 1970 or ISO 8601 (UTC unless it says else); null if it is neither. */
export function parseTime(text: string): RecordTime | null {
  const plain = /^(\d{1,12})(?:\.(\d{1,9}))?$/.exec(text);
  if (plain !== null) return { timeSec: BigInt(plain[1] as string), timeNsec: nanoseconds(plain[2]) };
  const iso = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?)?$/i.exec(
    text,
  );
  if (iso === null) return null;
  const [, day, minutes = "00:00", seconds = "00", fraction, zone = "Z"] = iso;
  const milliseconds = Date.parse(`${day}T${minutes}:${seconds}${zone.toUpperCase()}`);
  // 30 February is no date, but Date.parse takes it for 1 March.
  const isReal = new Date(`${day}T00:00:00Z`).toJSON()?.startsWith(day as string) === true;
  if (!isReal || !Number.isFinite(milliseconds) || milliseconds < 0) return null;
  return { timeSec: BigInt(Math.floor(milliseconds / 1000)), timeNsec: nanoseconds(fraction) };
}

function nanoseconds(fraction: string | undefined): number {
  return Number((fraction ?? "").padEnd(9, "0"));
}
