// CSD, 128 bits: geometry, speed and command classes (mmc.md §1.7; JESD84-B51 §7.3, SD Physical Layer §5.3).
import type { CardKind } from "../core/profile.js";
import {
  bitField,
  bitsOf,
  crcField,
  crcState,
  type DecodedRegister,
  formatBytes,
  formatTime,
  type RegisterField,
  wholeRegister,
  yesNo,
} from "./field.js";

export interface DecodedCsd extends DecodedRegister {
  /** null: it is not in the CSD, but in EXT_CSD_SEC_COUNT. */
  capacityBytes: number | null;
}

const MANTISSAS = [0, 1, 1.2, 1.3, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8];
const CURRENT_MIN = ["0.5 mA", "1 mA", "5 mA", "10 mA", "25 mA", "35 mA", "60 mA", "100 mA"];
const CURRENT_MAX = ["1 mA", "5 mA", "10 mA", "25 mA", "35 mA", "45 mA", "80 mA", "200 mA"];
const EMMC_STRUCTURES = ["version 1.0", "version 1.1", "version 1.2", "version in EXT_CSD"];
const SD_STRUCTURES = ["version 1.0", "version 2.0", "version 3.0", "reserved"];
/** What READ_BL_LEN and WRITE_BL_LEN may say. */
const BLOCK_CODES: ReadonlySet<number> = new Set([9, 10, 11]);

function accessTime(code: number): string {
  const mantissa = MANTISSAS[(code >> 3) & 15] ?? 0;
  return mantissa === 0 ? "reserved" : formatTime(mantissa * 10 ** (code & 7));
}

/** MMC has 2.6 and 5.2 where SD has 2.5 and 5. */
function speed(code: number, card: CardKind): string {
  const index = (code >> 3) & 15;
  const table = card === "emmc" ? { 6: 2.6, 11: 5.2 } : {};
  const mantissa = (table as Record<number, number>)[index] ?? MANTISSAS[index] ?? 0;
  const exponent = code & 7;
  if (mantissa === 0 || exponent > 3) return "reserved";
  return `${Number((mantissa * 10 ** exponent * 0.1).toFixed(3))} MHz`;
}

function blockLength(code: number): string {
  return BLOCK_CODES.has(code) ? `${2 ** code} bytes` : "reserved";
}

function classes(value: number): string {
  const set = [...Array(12).keys()].filter((index) => ((value >> index) & 1) !== 0);
  return set.length === 0 ? "no class" : `${set.length === 1 ? "class" : "classes"} ${set.join(", ")}`;
}

function factor(code: number): string {
  return code > 5 ? "reserved" : `writing takes ${2 ** code} times as long as reading`;
}

function currents(whole: Uint8Array): RegisterField[] {
  const least = (value: number) => CURRENT_MIN[value] ?? "";
  const most = (value: number) => CURRENT_MAX[value] ?? "";
  return [
    bitField(whole, "VDD_R_CURR_MIN", 61, 59, least),
    bitField(whole, "VDD_R_CURR_MAX", 58, 56, most),
    bitField(whole, "VDD_W_CURR_MIN", 55, 53, least),
    bitField(whole, "VDD_W_CURR_MAX", 52, 50, most),
  ];
}

const FILE_FORMATS = ["with a partition table", "DOS FAT without a partition table", "universal", "others"];

/** What both kinds have at the end. */
function tail(whole: Uint8Array, card: CardKind): RegisterField[] {
  const grouped = bitsOf(whole, 15, 15);
  return [
    bitField(whole, "WP_GRP_ENABLE", 31, 31, yesNo),
    ...(card === "emmc" ? [bitField(whole, "DEFAULT_ECC", 30, 29)] : []),
    bitField(whole, "R2W_FACTOR", 28, 26, factor),
    bitField(whole, "WRITE_BL_LEN", 25, 22, blockLength),
    bitField(whole, "WRITE_BL_PARTIAL", 21, 21, yesNo),
    ...(card === "emmc" ? [bitField(whole, "CONTENT_PROT_APP", 16, 16, yesNo)] : []),
    bitField(whole, "FILE_FORMAT_GRP", 15, 15),
    bitField(whole, "COPY", 14, 14, yesNo),
    bitField(whole, "PERM_WRITE_PROTECT", 13, 13, yesNo),
    bitField(whole, "TMP_WRITE_PROTECT", 12, 12, yesNo),
    bitField(whole, "FILE_FORMAT", 11, 10, (value) =>
      grouped === 0 ? (FILE_FORMATS[value] ?? "") : "reserved",
    ),
    ...(card === "emmc" ? [bitField(whole, "ECC", 9, 8)] : []),
    crcField(whole),
  ];
}

/** (C_SIZE + 1) · 2^(C_SIZE_MULT + 2) blocks of 2^READ_BL_LEN. */
function smallCapacity(whole: Uint8Array): number {
  return (bitsOf(whole, 73, 62) + 1) * 2 ** (bitsOf(whole, 49, 47) + 2) * 2 ** bitsOf(whole, 83, 80);
}

export function decodeCsd(bytes: Uint8Array, card: CardKind): DecodedCsd {
  const { whole, problems } = wholeRegister("CSD", bytes, 16);
  const structure = bitsOf(whole, 127, 126);
  const isLarge = card !== "emmc" && structure > 0;
  const sizeBits: [number, number] = isLarge ? (structure === 2 ? [75, 48] : [69, 48]) : [73, 62];
  const sizeCode = bitsOf(whole, ...sizeBits);
  const isElsewhere = card === "emmc" && sizeCode === 0xfff;
  const capacityBytes = isElsewhere ? null : isLarge ? (sizeCode + 1) * 512 * 1024 : smallCapacity(whole);
  const capacity = capacityBytes === null ? "see SEC_COUNT" : `${formatBytes(capacityBytes)}`;
  const structures = card === "emmc" ? EMMC_STRUCTURES : SD_STRUCTURES;
  const fields = [
    bitField(whole, "CSD_STRUCTURE", 127, 126, (value) => structures[value] ?? ""),
    ...(card === "emmc"
      ? [
          bitField(whole, "SPEC_VERS", 125, 122, (value) =>
            value === 4 ? "4.x, 5.x" : value < 4 ? "old" : "reserved",
          ),
        ]
      : []),
    bitField(whole, "TAAC", 119, 112, accessTime),
    bitField(whole, "NSAC", 111, 104, (value) => `${value * 100} clocks`),
    bitField(whole, "TRAN_SPEED", 103, 96, (value) => speed(value, card)),
    bitField(whole, "CCC", 95, 84, classes),
    bitField(whole, "READ_BL_LEN", 83, 80, blockLength),
    bitField(whole, "READ_BL_PARTIAL", 79, 79, yesNo),
    bitField(whole, "WRITE_BLK_MISALIGN", 78, 78, yesNo),
    bitField(whole, "READ_BLK_MISALIGN", 77, 77, yesNo),
    bitField(whole, "DSR_IMP", 76, 76, yesNo),
    bitField(whole, "C_SIZE", ...sizeBits, () => capacity),
    ...(isLarge ? [] : [...currents(whole), bitField(whole, "C_SIZE_MULT", 49, 47)]),
    ...(card === "emmc"
      ? [
          bitField(whole, "ERASE_GRP_SIZE", 46, 42),
          bitField(whole, "ERASE_GRP_MULT", 41, 37, (value) => {
            const blocks = (bitsOf(whole, 46, 42) + 1) * (value + 1);
            return `${blocks} write blocks in an erase group`;
          }),
          bitField(whole, "WP_GRP_SIZE", 36, 32, (value) => `${value + 1} erase groups`),
        ]
      : [
          bitField(whole, "ERASE_BLK_EN", 46, 46, yesNo),
          bitField(whole, "SECTOR_SIZE", 45, 39, (value) => `${value + 1} write blocks`),
          bitField(whole, "WP_GRP_SIZE", 38, 32, (value) => `${value + 1} erase sectors`),
        ]),
    ...tail(whole, card),
  ];
  return { register: "CSD", fields, crc: crcState(whole), problems, capacityBytes };
}
