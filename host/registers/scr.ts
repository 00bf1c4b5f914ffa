// SCR, 64 bits: what an SD card can (mmc.md §1.9; SD Physical Layer §5.6).
import { bitField, bitsOf, type DecodedRegister, listBits, wholeRegister, yesNo } from "./field.js";

const SECURITY = ["none", "not used", "SDSC", "SDHC", "SDXC", "reserved", "reserved", "reserved"];

/** The version that SD_SPEC, SD_SPEC3, SD_SPEC4 and SD_SPECX say together. */
function version(whole: Uint8Array): string {
  const spec = bitsOf(whole, 59, 56);
  const extended = bitsOf(whole, 41, 38);
  if (spec === 0) return "1.0 or 1.01";
  if (spec === 1) return "1.10";
  if (spec > 2) return "reserved";
  if (bitsOf(whole, 47, 47) === 0) return "2.00";
  if (extended > 0) return `${4 + extended}.xx`;
  return bitsOf(whole, 42, 42) === 0 ? "3.0x" : "4.xx";
}

export function decodeScr(bytes: Uint8Array): DecodedRegister {
  const { whole, problems } = wholeRegister("SCR", bytes, 8);
  const fields = [
    bitField(whole, "SCR_STRUCTURE", 63, 60, (value) => (value === 0 ? "version 1.0" : "reserved")),
    bitField(whole, "SD_SPEC", 59, 56, () => version(whole)),
    bitField(whole, "DATA_STAT_AFTER_ERASE", 55, 55, (value) => (value === 0 ? "zeros" : "ones")),
    bitField(whole, "SD_SECURITY", 54, 52, (value) => SECURITY[value] ?? ""),
    bitField(whole, "SD_BUS_WIDTHS", 51, 48, (value) =>
      listBits(value, [
        [0, "1 line"],
        [2, "4 lines"],
      ]),
    ),
    bitField(whole, "SD_SPEC3", 47, 47),
    bitField(whole, "EX_SECURITY", 46, 43, yesNo),
    bitField(whole, "SD_SPEC4", 42, 42),
    bitField(whole, "SD_SPECX", 41, 38),
    bitField(whole, "CMD_SUPPORT", 35, 32, (value) =>
      listBits(value, [
        [0, "CMD20"],
        [1, "CMD23"],
        [2, "CMD48/49"],
        [3, "CMD58/59"],
      ]),
    ),
  ];
  return { register: "SCR", fields, crc: null, problems };
}
