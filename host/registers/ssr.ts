// SSR, 512 bits: the SD status that ACMD13 reads (mmc.md §1.9; SD Physical Layer §4.10.2).
import { bitField, bitsOf, type DecodedRegister, formatBytes, wholeRegister, yesNo } from "./field.js";

const WIDTHS = ["1 line", "reserved", "4 lines", "reserved"];
const SPEED_CLASSES: Record<number, string> = {
  0: "class 0",
  1: "class 2",
  2: "class 4",
  3: "class 6",
  4: "class 10",
};
/** AU_SIZE codes 1 … 15, in KiB. */
const UNITS_KIB = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 12288, 16384, 24576, 32768, 65536];

function allocationUnit(code: number): string {
  const kib = UNITS_KIB[code - 1];
  return kib === undefined ? "not defined" : formatBytes(kib * 1024);
}

function cardType(code: number): string {
  if (code === 0) return "regular card";
  return code === 1 ? "ROM card" : code === 2 ? "OTP card" : "reserved";
}

export function decodeSsr(bytes: Uint8Array): DecodedRegister {
  const { whole, problems } = wholeRegister("SSR", bytes, 64);
  const eraseUnits = bitsOf(whole, 423, 408);
  const fields = [
    bitField(whole, "DAT_BUS_WIDTH", 511, 510, (value) => WIDTHS[value] ?? ""),
    bitField(whole, "SECURED_MODE", 509, 509, yesNo),
    bitField(whole, "SD_CARD_TYPE", 495, 480, cardType),
    bitField(whole, "SIZE_OF_PROTECTED_AREA", 479, 448),
    bitField(whole, "SPEED_CLASS", 447, 440, (value) => SPEED_CLASSES[value] ?? "reserved"),
    bitField(whole, "PERFORMANCE_MOVE", 439, 432, (value) =>
      value === 0 ? "not defined" : value === 255 ? "infinite" : `${value} MB/s`,
    ),
    bitField(whole, "AU_SIZE", 431, 428, allocationUnit),
    bitField(whole, "ERASE_SIZE", 423, 408, (value) => (value === 0 ? "not supported" : `${value} AU`)),
    bitField(whole, "ERASE_TIMEOUT", 407, 402, (value) =>
      value === 0 || eraseUnits === 0 ? "not supported" : `${value} s for ERASE_SIZE`,
    ),
    bitField(whole, "ERASE_OFFSET", 401, 400, (value) => `${value} s`),
    bitField(whole, "UHS_SPEED_GRADE", 399, 396, (value) => (value === 0 ? "below 10 MB/s" : `U${value}`)),
    bitField(whole, "UHS_AU_SIZE", 395, 392, (value) => (value < 7 ? "not defined" : allocationUnit(value))),
    bitField(whole, "VIDEO_SPEED_CLASS", 391, 384, (value) => (value === 0 ? "none" : `V${value}`)),
    bitField(whole, "APP_PERF_CLASS", 339, 336, (value) => (value === 0 ? "none" : `A${value}`)),
    bitField(whole, "DISCARD_SUPPORT", 313, 313, yesNo),
    bitField(whole, "FULE_SUPPORT", 312, 312, yesNo),
  ];
  return { register: "SSR", fields, crc: null, problems };
}
