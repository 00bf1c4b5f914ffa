// Judges what a program gives: the objects of options of every exported function, by a table for each of them. An
// option that there is not, one of the wrong kind, and a number that is none or out of its range is MmcError EINVAL in
// one line that names it, before anything has changed. Must never import anything but errors.ts: host/pstore uses it.
import { MmcError } from "./errors.js";

/** Returns the value as it is to be used. `what` names it: `area.kmsgSize`. */
export type Rule<T = unknown> = (what: string, value: unknown) => T;
/** A rule for each option that there is; the type refuses a table that has forgotten one. */
export type Shape<T> = { readonly [K in keyof Required<T>]: Rule };

function refuse(what: string, why: string): never {
  throw new MmcError("EINVAL", `${what}: ${why}`);
}

/** What was given, in a few words. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "bigint" || typeof value === "number") return String(value);
  if (typeof value === "boolean" || value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** Any number, also one that is none: for what judges its values itself. */
export const number: Rule<number> = (what, value) =>
  typeof value === "number" ? value : refuse(what, `${shown(value)} is no number`);

export const bigint: Rule<bigint> = (what, value) =>
  typeof value === "bigint" ? value : refuse(what, `${shown(value)} is no bigint`);

/** A whole number from `least` to `most`. */
export function whole(least: number, most: number = Number.MAX_SAFE_INTEGER): Rule<number> {
  return (what, value) => {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= least && value <= most)
      return value;
    return refuse(what, `${shown(value)} is not a whole number from ${least} to ${most}`);
  };
}

export const U32 = whole(0, 0xffffffff);

export function big(least: bigint, most: bigint): Rule<bigint> {
  return (what, value) => {
    if (typeof value === "bigint" && value >= least && value <= most) return value;
    return refuse(what, `${shown(value)} is not a bigint from ${least} to ${most}`);
  };
}

export const U64 = big(0n, 2n ** 64n - 1n);

/** One of the own names of `names`, or one of a list. */
export function oneOf(names: object | readonly unknown[]): Rule {
  const known: readonly unknown[] = Array.isArray(names) ? names : Object.keys(names);
  return (what, value) => {
    if (known.includes(value)) return value;
    const near = typeof value === "string" ? nearest(value, known.map(String)) : undefined;
    const meant = near === undefined ? "" : `; is ${near} meant?`;
    const words = typeof value === "string" && /^[\w.-]{1,40}$/.test(value) ? value : shown(value);
    return refuse(what, `${words} is not one of ${known.join(", ")}${meant}`);
  };
}

export const bool: Rule<boolean> = (what, value) =>
  typeof value === "boolean" ? value : refuse(what, `${shown(value)} is neither true nor false`);

export const string: Rule<string> = (what, value) =>
  typeof value === "string" ? value : refuse(what, `${shown(value)} is no text`);

export const bytes: Rule<Uint8Array> = (what, value) =>
  value instanceof Uint8Array ? value : refuse(what, `${shown(value)} is no Uint8Array`);

// biome-ignore lint/complexity/noBannedTypes: any function will do, what it returns is judged where it is called
export const func: Rule<Function> = (what, value) =>
  typeof value === "function" ? value : refuse(what, `${shown(value)} is no function`);

/** Anything: judged where it is used. */
export const anything: Rule = (_what, value) => value;

/** An object with these functions, which is used as it is. */
export function having(...names: readonly string[]): Rule {
  return (what, value) => {
    for (const name of names) {
      const found =
        value === null || typeof value !== "object" ? undefined : (value as Record<string, unknown>)[name];
      if (typeof found !== "function") refuse(what, `${shown(value)} has no function ${name}`);
    }
    return value;
  };
}

export function list<T>(rule: Rule<T>, most: number = Number.MAX_SAFE_INTEGER): Rule<readonly T[]> {
  return (what, value) => {
    if (!Array.isArray(value)) return refuse(what, `${shown(value)} is no list`);
    if (value.length > most) refuse(what, `${value.length} entries are more than ${most}`);
    return Array.from(value, (entry, i) => rule(`${what}[${i}]`, entry));
  };
}

/** Either of two; the complaint is the second one's. */
export function either(first: Rule, second: Rule): Rule {
  return (what, value) => {
    try {
      return first(what, value);
    } catch {
      return second(what, value);
    }
  };
}

/** Must be there. */
export function required<T>(rule: Rule<T>): Rule<T> {
  const judged: Rule<T> = (what, value) => {
    if (value === undefined) return refuse(what, "is missing");
    return rule(what, value);
  };
  mandatory.add(judged);
  return judged;
}

const mandatory = new WeakSet<Rule>();

/** A value that is not there is no object of options. */
export function object<T>(shape: Shape<T>): Rule<T> {
  const names = Object.keys(shape);
  return (what, value) => {
    if (value === null || typeof value !== "object" || Array.isArray(value) || ArrayBuffer.isView(value)) {
      return refuse(what, `${shown(value)} is no object of options`);
    }
    const given = value as Record<string, unknown>;
    for (const name in given) {
      if (!Object.hasOwn(shape, name))
        refuse(pathOf(what, name), `there is no such option${hint(name, names)}`);
    }
    const judged: Record<string, unknown> = {};
    for (const name of names) {
      const rule = (shape as Record<string, Rule>)[name] as Rule;
      // Read once: what a getter says the second time is of no interest.
      const one = given[name];
      if (one !== undefined || mandatory.has(rule)) judged[name] = rule(pathOf(what, name), one);
    }
    return judged as T;
  };
}

/**
 * The options as they are to be used: a copy with those that were given. `what` is put before their names.
 * @throws MmcError EINVAL as the rules say
 */
export function judge<T>(what: string, value: T, shape: Shape<T>): T {
  return object(shape)(what, value);
}

function pathOf(what: string, name: string): string {
  return what === "" ? name : `${what}.${name}`;
}

function hint(name: string, names: readonly string[]): string {
  const near = nearest(name, names);
  return near === undefined ? `; there are ${names.join(", ") || "none"}` : `; is ${near} meant?`;
}

/** The name that is the fewest letters away, if those are few. */
function nearest(name: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of names) {
    if (name.length > 64) break;
    const away = distance(name.toLowerCase(), candidate.toLowerCase());
    if (away < least) [best, least] = [candidate, away];
  }
  return best;
}

/** Letters to put in, to leave out, to change, or to swap with their neighbour. */
function distance(a: string, b: string): number {
  let older: number[] = [];
  let before = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = (before[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min((before[j] as number) + 1, (row[j - 1] as number) + 1, changed);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (older[j - 2] as number) + 1);
      }
      row.push(cost);
    }
    [older, before] = [before, row];
  }
  return before[b.length] as number;
}
