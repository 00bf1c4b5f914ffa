// The state × command table (mmc.md §1.4, §1.5, §2.2): what a card takes in which state.
// docs/DESIGN.md prints it.
//
// Modelled: the commands of enumeration, block I/O, erase, flush, sleep, HPI and takeover; of an eMMC also write
// protection, CMD26 and 27, and CMD21 (legal in HS200 only, which emmc-commands.ts asks).
// Not modelled, thus illegal in every state: eMMC 14 and 19 (bus test), 39 and 40 (class 9), 42 (class 7), 44-48
// (command queue: EXT_CSD bytes 307 and 308 are 0), 49, 53, 54 (class 10), 56 (class 8), as its CCC says; SD 42,
// 48, 49, 56 (SD 5, 52, 53 belong to SDIO: a memory card is silent).
import { CONFIG_FEATURES, FEATURE_CMD23, SD_CMD20, SD_V101, SD_V110, SD_V301 } from "../layout";
import {
  card,
  hasSdFlag,
  isSdsc,
  STATE_DATA,
  STATE_DIS,
  STATE_IDENT,
  STATE_IDLE,
  STATE_INA,
  STATE_PRG,
  STATE_RCV,
  STATE_READY,
  STATE_SLP,
  STATE_STBY,
  STATE_TRAN,
  sdVersion,
  VOLTAGE_180,
  VOLTAGE_OFFERED,
} from "./state";

const IDLE: u32 = 1 << STATE_IDLE;
const READY: u32 = 1 << STATE_READY;
const IDENT: u32 = 1 << STATE_IDENT;
const STBY: u32 = 1 << STATE_STBY;
const TRAN: u32 = 1 << STATE_TRAN;
const DATA: u32 = 1 << STATE_DATA;
const RCV: u32 = 1 << STATE_RCV;
const PRG: u32 = 1 << STATE_PRG;
const DIS: u32 = 1 << STATE_DIS;
const SLP: u32 = 1 << STATE_SLP;
const ADDRESSED: u32 = STBY | TRAN | DATA | RCV | PRG | DIS;
const ANY: u32 = IDLE | READY | IDENT | ADDRESSED | (1 << 9) | SLP;

function emmcStates(index: u32): u32 {
  switch (index) {
    case 0:
      return ANY;
    case 1:
      return IDLE;
    case 2:
      return READY;
    case 3:
      return IDENT;
    case 4:
    case 9:
    case 10:
      return STBY;
    case 5:
      return STBY | SLP;
    case 7:
      return STBY | TRAN | DATA | PRG | DIS;
    case 12:
      return DATA | RCV | PRG; // prg: as HPI
    case 13:
    case 15:
    case 55:
      return ADDRESSED;
    case 6:
    case 8:
    case 16:
    case 17:
    case 18:
    case 21:
    case 23:
    case 24:
    case 25:
    case 26:
    case 27:
    case 28:
    case 29:
    case 30:
    case 31:
    case 35:
    case 36:
    case 38:
      return TRAN;
    default:
      return 0;
  }
}

/** SCR CMD_SUPPORT bit 1: an optional part of version 3, and no part of older ones. */
export function hasSdCmd23(): bool {
  return (load<u32>(CONFIG_FEATURES) & FEATURE_CMD23) != 0 && sdVersion() == <u32>SD_V301;
}

function sdStates(index: u32): u32 {
  switch (index) {
    case 0:
      return ANY & ~SLP;
    case 2:
      return READY;
    case 3:
      return IDENT | STBY;
    case 4:
    case 9:
    case 10:
      return STBY;
    case 7:
      return STBY | TRAN | DATA | PRG | DIS;
    case 8:
      return sdVersion() >= <u32>SD_V110 ? 0 : IDLE;
    case 11:
      return card().voltage == VOLTAGE_OFFERED ? READY : 0;
    case 12:
      return DATA | RCV;
    case 13:
    case 15:
      return ADDRESSED;
    case 55:
      return IDLE | ADDRESSED;
    case 23:
      return hasSdCmd23() ? TRAN : 0;
    case 6:
      return sdVersion() == <u32>SD_V101 ? 0 : TRAN;
    case 19:
      return card().voltage == VOLTAGE_180 ? TRAN : 0;
    case 20:
      return hasSdFlag(SD_CMD20) ? TRAN : 0;
    case 28:
    case 29:
    case 30:
      return isSdsc() ? TRAN : 0;
    case 16:
    case 17:
    case 18:
    case 24:
    case 25:
    case 27:
    case 32:
    case 33:
    case 38:
      return TRAN;
    default:
      return 0;
  }
}

/** Application commands of SD (behind CMD55); 0 for the others: they are then the plain command of that index. */
function sdAppStates(index: u32): u32 {
  switch (index) {
    case 41:
      return IDLE;
    case 6:
    case 13:
    case 22:
    case 23:
    case 42:
    case 51:
      return TRAN;
    default:
      return 0;
  }
}

export function isAppCommand(index: u32): bool {
  return sdAppStates(index) != 0;
}

/** True if a card of this kind takes the command in `state`. */
export function isLegal(emmc: bool, app: bool, index: u32, state: u32): bool {
  if (state == STATE_INA) return false;
  const states = emmc ? emmcStates(index) : app ? sdAppStates(index) : sdStates(index);
  return ((states >>> state) & 1) != 0;
}
