// What commands are called and what their arguments and answers mean (mmc.md §1.4, §1.5, §1.7). The same number is
// another command on the other kind of card; where the kind is not known, the argument tells them apart.
import type { CardKind } from "../core/profile.js";
import { extCsdName } from "../registers/ext-csd.js";

const COMMON: Record<number, string> = {
  0: "GO_IDLE_STATE",
  2: "ALL_SEND_CID",
  4: "SET_DSR",
  7: "SELECT_CARD",
  9: "SEND_CSD",
  10: "SEND_CID",
  12: "STOP_TRANSMISSION",
  13: "SEND_STATUS",
  15: "GO_INACTIVE_STATE",
  16: "SET_BLOCKLEN",
  17: "READ_SINGLE_BLOCK",
  18: "READ_MULTIPLE_BLOCK",
  23: "SET_BLOCK_COUNT",
  24: "WRITE_BLOCK",
  25: "WRITE_MULTIPLE_BLOCK",
  27: "PROGRAM_CSD",
  28: "SET_WRITE_PROT",
  29: "CLR_WRITE_PROT",
  30: "SEND_WRITE_PROT",
  38: "ERASE",
  42: "LOCK_UNLOCK",
  55: "APP_CMD",
  56: "GEN_CMD",
};
const EMMC: Record<number, string> = {
  1: "SEND_OP_COND",
  3: "SET_RELATIVE_ADDR",
  5: "SLEEP_AWAKE",
  6: "SWITCH",
  8: "SEND_EXT_CSD",
  14: "BUSTEST_R",
  19: "BUSTEST_W",
  21: "SEND_TUNING_BLOCK",
  26: "PROGRAM_CID",
  31: "SEND_WRITE_PROT_TYPE",
  35: "ERASE_GROUP_START",
  36: "ERASE_GROUP_END",
  39: "FAST_IO",
  40: "GO_IRQ_STATE",
  44: "QUEUED_TASK_PARAMS",
  45: "QUEUED_TASK_ADDRESS",
  46: "EXECUTE_READ_TASK",
  47: "EXECUTE_WRITE_TASK",
  48: "CMDQ_TASK_MGMT",
  49: "SET_TIME",
  53: "PROTOCOL_RD",
  54: "PROTOCOL_WR",
};
const SD: Record<number, string> = {
  3: "SEND_RELATIVE_ADDR",
  5: "IO_SEND_OP_COND",
  6: "SWITCH_FUNC",
  8: "SEND_IF_COND",
  11: "VOLTAGE_SWITCH",
  19: "SEND_TUNING_BLOCK",
  20: "SPEED_CLASS_CONTROL",
  32: "ERASE_WR_BLK_START",
  33: "ERASE_WR_BLK_END",
  48: "READ_EXTR_SINGLE",
  49: "WRITE_EXTR_SINGLE",
  52: "IO_RW_DIRECT",
  53: "IO_RW_EXTENDED",
  58: "READ_OCR",
  59: "CRC_ON_OFF",
};
const APP: Record<number, string> = {
  6: "SET_BUS_WIDTH",
  13: "SD_STATUS",
  22: "SEND_NUM_WR_BLOCKS",
  23: "SET_WR_BLK_ERASE_COUNT",
  41: "SD_SEND_OP_COND",
  42: "SET_CLR_CARD_DETECT",
  51: "SEND_SCR",
};

/** A command as it was on the bus. */
export interface CommandWords {
  index: number;
  argument: number;
  /** CMD55 was answered directly before. */
  app: boolean;
}

/** The kind of card that such an argument is for, if the number alone does not say it. */
function kindOf({ index, argument }: CommandWords): CardKind | undefined {
  switch (index) {
    case 3:
      return argument === 0 ? "sd" : "emmc";
    case 5:
      return argument >>> 16 === 0 ? "sd" : "emmc";
    case 6:
      // Access mode 0, which changes the command set, is obsolete; SD has 0 or 1 in the highest bit and F above.
      return (argument >>> 24 !== 0 && argument >>> 31 === 0) || argument === 0 ? "emmc" : "sd";
    case 8:
      return argument === 0 ? "emmc" : "sd";
    case 19:
    case 48:
    case 49:
    case 53:
      return undefined;
    default:
      return EMMC[index] !== undefined ? "emmc" : SD[index] !== undefined ? "sd" : undefined;
  }
}

function isApp(command: CommandWords, card: CardKind | undefined): boolean {
  return command.app && card !== "emmc" && APP[command.index] !== undefined;
}

/** `CMD25`, `ACMD41`. */
export function commandNumber(command: CommandWords, card?: CardKind): string {
  return `${isApp(command, card) ? "A" : ""}CMD${command.index}`;
}

/** `WRITE_MULTIPLE_BLOCK`; "" if no card of that kind has it, or if it is not known which kind it is. */
export function commandName(command: CommandWords, card?: CardKind): string {
  const { index } = command;
  if (isApp(command, card)) return APP[index] ?? "";
  const kind = card ?? kindOf(command);
  const own = kind === undefined ? undefined : kind === "emmc" ? EMMC[index] : SD[index];
  return own ?? COMMON[index] ?? "";
}

const ERASE_KINDS: Record<number, string> = {
  0: "erase",
  1: "trim",
  3: "discard",
  2147483648: "secure erase",
  2147483649: "secure trim, step 1",
  2147516416: "secure trim, step 2",
};

function describeSwitch(argument: number): string {
  const name = extCsdName((argument >>> 16) & 0xff);
  const value = (argument >>> 8) & 0xff;
  switch ((argument >>> 24) & 3) {
    case 1:
      return `${name} |= 0x${value.toString(16)}`;
    case 2:
      return `${name} &= ~0x${value.toString(16)}`;
    case 3:
      return `${name} = ${value}`;
    default:
      return `command set ${argument & 7}`;
  }
}

function describeSwitchFunction(argument: number): string {
  const asked: string[] = [];
  for (let group = 1; group <= 6; group++) {
    const choice = (argument >>> (4 * (group - 1))) & 15;
    if (choice !== 15) asked.push(`group ${group} = ${choice}`);
  }
  return [argument >>> 31 === 0 ? "check" : "set", ...asked].join(", ");
}

function describeCount(argument: number, kind: CardKind | undefined): string {
  if (kind !== undefined && kind !== "emmc") return `${argument}`;
  const flags: [number, string][] = [
    [31, "reliable"],
    [30, "packed"],
    [29, "tag"],
    [24, "forced programming"],
  ];
  const set = flags.filter(([bit]) => ((argument >>> bit) & 1) !== 0).map(([, name]) => name);
  const context = (argument >>> 25) & 15;
  if (context !== 0) set.push(`context ${context}`);
  return [`${argument & 0xffff}`, ...set].join(", ");
}

/** The argument in words; "" where the number says it all. */
export function describeArgument(command: CommandWords, card?: CardKind): string {
  const { index, argument } = command;
  const kind = card ?? kindOf(command);
  const rca = `RCA ${argument >>> 16}`;
  if (isApp(command, card)) {
    if (index === 6) return argument === 2 ? "4 lines" : argument === 0 ? "1 line" : "";
    if (index === 41) return argument === 0 ? "inquiry" : describeOcr(argument, "host");
    if (index === 23) return `${argument & 0x7fffff}`;
    return "";
  }
  switch (index) {
    case 0:
      return argument === 0xf0f0f0f0 ? "pre-idle" : argument === 0xfffffffa ? "boot" : "";
    case 1:
      return argument === 0 ? "inquiry" : describeOcr(argument, "host");
    case 3:
      return kind === "emmc" ? rca : "";
    case 5:
      return kind === "emmc" ? `${rca}, ${((argument >>> 15) & 1) !== 0 ? "sleep" : "awake"}` : "";
    case 6:
      return kind === "emmc" ? describeSwitch(argument) : describeSwitchFunction(argument);
    case 7:
      return argument >>> 16 === 0 ? "deselect" : rca;
    case 8:
      return kind !== undefined && kind !== "emmc"
        ? `VHS ${(argument >>> 8) & 15}, pattern 0x${(argument & 0xff).toString(16)}`
        : "";
    case 12:
      return (argument & 1) !== 0 ? `${rca}, HPI` : "";
    case 13: {
      const asks = (kind === undefined || kind === "emmc") && (argument & 1) !== 0 ? ", HPI" : "";
      return `${rca}${asks}`;
    }
    case 4:
      return `DSR 0x${(argument >>> 16).toString(16)}`;
    case 9:
    case 10:
    case 15:
    case 55:
      return rca;
    case 16:
      return `${argument} bytes`;
    case 17:
    case 18:
    case 24:
    case 25:
    case 28:
    case 29:
    case 30:
    case 32:
    case 33:
    case 35:
    case 36:
      return `${argument}`;
    case 23:
      return describeCount(argument, kind);
    case 38:
      return ERASE_KINDS[argument] ?? "";
    default:
      return "";
  }
}

/** An OCR in words: `by` says whether the argument of CMD1 or ACMD41, or the card's answer. */
export function describeOcr(ocr: number, by: "host" | "card"): string {
  const bit = (index: number) => ((ocr >>> index) & 1) !== 0;
  const words: string[] = [];
  if (by === "card") words.push(bit(31) ? "ready" : "busy");
  if (bit(30)) words.push("sectors");
  if (by === "card" && bit(29)) words.push("UHS-II");
  if (by === "host" && bit(28)) words.push("XPC");
  if (bit(24)) words.push("1.8 V switch");
  // Bit 15 is 2.7-2.8 V, each further one 0.1 V more, up to bit 23.
  const steps = [...Array(9).keys()].filter((step) => bit(15 + step));
  const first = steps[0];
  const last = steps.at(-1);
  if (first !== undefined && last !== undefined) {
    const isWhole = last - first + 1 === steps.length;
    const range = `${(2.7 + first / 10).toFixed(1)}-${(2.8 + last / 10).toFixed(1)} V`;
    words.push(isWhole ? range : `within ${range}`);
  }
  if (bit(7)) words.push("1.70-1.95 V");
  return words.join(", ");
}
