// CID, 128 bits: who made the card (mmc.md §1.7; JESD84-B51 §7.2, SD Physical Layer §5.2).
import type { CardKind } from "../core/profile.js";
import { bitField, crcField, crcState, type DecodedRegister, textField, wholeRegister } from "./field.js";

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];

function monthOf(month: number, year: number): string {
  const name = MONTHS[month - 1];
  return name === undefined ? `month ${month} is none, ${year}` : `${name} ${year}`;
}

/** The year of an eMMC's 4 bits: from EXT_CSD_REV 5 on those before 2010 mean 16 years later. */
function emmcYear(code: number, extCsdRev: number): number {
  const year = 1997 + code;
  return extCsdRev >= 5 && year < 2010 ? year + 16 : year;
}

function revision(value: number): string {
  return `${value >> 4}.${value & 15}`;
}

const PACKAGES = ["card", "BGA", "package on package", "reserved"];

/** `extCsdRev` (EXT_CSD[192]): which years an eMMC's date counts from; 8 (5.1) if it is not known. */
export function decodeCid(bytes: Uint8Array, card: CardKind, extCsdRev = 8): DecodedRegister {
  const { whole, problems } = wholeRegister("CID", bytes, 16);
  const fields =
    card !== "emmc"
      ? [
          bitField(whole, "MID", 127, 120),
          textField(whole, "OID", 119, 104),
          textField(whole, "PNM", 103, 64),
          bitField(whole, "PRV", 63, 56, revision),
          bitField(whole, "PSN", 55, 24),
          bitField(whole, "MDT", 19, 8, (value) => monthOf(value & 15, 2000 + (value >> 4))),
        ]
      : [
          bitField(whole, "MID", 127, 120),
          bitField(whole, "CBX", 113, 112, (value) => PACKAGES[value] ?? ""),
          bitField(whole, "OID", 111, 104),
          textField(whole, "PNM", 103, 56),
          bitField(whole, "PRV", 55, 48, revision),
          bitField(whole, "PSN", 47, 16),
          bitField(whole, "MDT", 15, 8, (value) => monthOf(value >> 4, emmcYear(value & 15, extCsdRev))),
        ];
  return { register: "CID", fields: [...fields, crcField(whole)], crc: crcState(whole), problems };
}
