// What all registers of a card are decoded into: fields with a place, raw bits, a value and a meaning. Decoding never
// fails: short input reads as zeros and is named in `problems`, and what a code does not mean is called reserved.
import { crc7 } from "./crc7.js";

export interface RegisterField {
  /** As the specification calls it. */
  name: string;
  /** Where: bits `103:56` of a register of bits, bytes `[212..215]` of EXT_CSD. */
  at: string;
  /** The bits themselves: `0x…`, as many digits as they need. */
  raw: string;
  /** A number, or text where the field is text. */
  value: number | string;
  /** What it says, in words; "" where the value says it all. */
  meaning: string;
}

/** `absent`: the lowest byte is missing, as SDHCI controllers keep it; its end bit would be 1. */
export type CrcState = "right" | "wrong" | "absent";

export interface DecodedRegister {
  register: "CID" | "CSD" | "EXT_CSD" | "SCR" | "SSR";
  fields: RegisterField[];
  /** Of CID and CSD; the others come as blocks, whose CRC16 the controller has checked. */
  crc: CrcState | null;
  /** What is wrong with the bytes as such. */
  problems: string[];
}

/** The first `lengthBytes` of `bytes`, zeros behind them, and what that says of the input. */
export function wholeRegister(
  name: string,
  bytes: Uint8Array,
  lengthBytes: number,
): { whole: Uint8Array; problems: string[] } {
  const whole = new Uint8Array(lengthBytes);
  whole.set(bytes.subarray(0, lengthBytes));
  const problems = bytes.length === lengthBytes ? [] : [`${name}: ${bytes.length} bytes, not ${lengthBytes}`];
  return { whole, problems };
}

/** Bits `high … low` of a register that is sent highest bit first; at most 53 of them. */
export function bitsOf(bytes: Uint8Array, high: number, low: number): number {
  let value = 0;
  for (let bit = high; bit >= low; bit--) {
    const byte = bytes[bytes.length - 1 - (bit >> 3)] ?? 0;
    value = value * 2 + ((byte >> (bit & 7)) & 1);
  }
  return value;
}

export function hexOf(value: number, bits: number): string {
  return `0x${value.toString(16).padStart(Math.ceil(bits / 4), "0")}`;
}

/** One field of a register of bits. */
export function bitField(
  bytes: Uint8Array,
  name: string,
  high: number,
  low: number,
  meaning: (value: number) => string = () => "",
): RegisterField {
  const value = bitsOf(bytes, high, low);
  const at = high === low ? `${high}` : `${high}:${low}`;
  return { name, at, raw: hexOf(value, high - low + 1), value, meaning: meaning(value) };
}

/** A field of ASCII characters; what is none of them is shown as a dot. */
export function textField(bytes: Uint8Array, name: string, high: number, low: number): RegisterField {
  let text = "";
  for (let top = high; top > low; top -= 8) {
    const code = bitsOf(bytes, top, top - 7);
    text += code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : ".";
  }
  const raw = hexOf(bitsOf(bytes, high, low), high - low + 1);
  return { name, at: `${high}:${low}`, raw, value: text, meaning: "" };
}

/** CRC7 of the 15 bytes before it, in bits 7:1 with a 1 behind. */
export function crcState(register: Uint8Array): CrcState {
  const last = register[15] ?? 0;
  if (last === 0) return "absent";
  return last === ((crc7(register.subarray(0, 15)) << 1) | 1) ? "right" : "wrong";
}

export function crcField(register: Uint8Array): RegisterField {
  const state = crcState(register);
  const wanted = hexOf(crc7(register.subarray(0, 15)), 7);
  const meaning = state === "wrong" ? `wrong, ${wanted} would be right` : state;
  return bitField(register, "CRC", 7, 1, () => meaning);
}

export function yesNo(value: number): string {
  return value === 0 ? "no" : "yes";
}

/** Names of the bits that are set, or `none`. */
export function listBits(value: number, names: readonly (readonly [number, string])[]): string {
  const set = names.filter(([bit]) => ((value >>> bit) & 1) !== 0).map(([, name]) => name);
  return set.length === 0 ? "none" : set.join(", ");
}

/** `15.0 ms` of nanoseconds. */
export function formatTime(ns: number): string {
  const units: [number, string][] = [
    [1e9, "s"],
    [1e6, "ms"],
    [1e3, "µs"],
  ];
  const [size, unit] = units.find(([one]) => ns >= one) ?? [1, "ns"];
  return `${Number((ns / size).toFixed(3))} ${unit}`;
}

/** `4 GiB`, `512 KiB`: in the largest unit that leaves a whole number. */
export function formatBytes(sizeBytes: number): string {
  const units: [number, string][] = [
    [2 ** 40, "TiB"],
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ];
  const found = units.find(([one]) => sizeBytes >= one && sizeBytes % one === 0);
  return found === undefined ? `${sizeBytes} bytes` : `${sizeBytes / found[0]} ${found[1]}`;
}
