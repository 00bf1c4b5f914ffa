// The chip's private state and the names of its states and status bits (mmc.md §1.1, §1.2; JESD84-B51 §6.13,
// SD Physical Layer 3.01 §4.10). Only files of this folder touch it; the controller sees card.ts alone.
import {
  CARD_BASE,
  CARD_EMMC,
  CARD_SDSC,
  CONFIG_CARD_KIND,
  CONFIG_SD_FLAGS,
  SD_VERSION_MASK,
} from "../layout";

export const STATE_IDLE: u32 = 0;
export const STATE_READY: u32 = 1;
export const STATE_IDENT: u32 = 2;
export const STATE_STBY: u32 = 3;
export const STATE_TRAN: u32 = 4;
export const STATE_DATA: u32 = 5;
export const STATE_RCV: u32 = 6;
export const STATE_PRG: u32 = 7;
export const STATE_DIS: u32 = 8;
export const STATE_BTST: u32 = 9;
export const STATE_SLP: u32 = 10;
/** Has no code in R1: an inactive card never answers. */
export const STATE_INA: u32 = 11;

export const R1_OUT_OF_RANGE: u32 = 1 << 31;
export const R1_ADDRESS_ERROR: u32 = 1 << 30;
export const R1_BLOCK_LEN_ERROR: u32 = 1 << 29;
export const R1_ERASE_SEQ_ERROR: u32 = 1 << 28;
export const R1_ERASE_PARAM: u32 = 1 << 27;
export const R1_WP_VIOLATION: u32 = 1 << 26;
export const R1_CARD_IS_LOCKED: u32 = 1 << 25;
export const R1_COM_CRC_ERROR: u32 = 1 << 23;
export const R1_ILLEGAL_COMMAND: u32 = 1 << 22;
export const R1_CARD_ECC_FAILED: u32 = 1 << 21;
export const R1_CC_ERROR: u32 = 1 << 20;
export const R1_ERROR: u32 = 1 << 19;
export const R1_CID_CSD_OVERWRITE: u32 = 1 << 16;
export const R1_WP_ERASE_SKIP: u32 = 1 << 15;
export const R1_ERASE_RESET: u32 = 1 << 13;
export const R1_READY_FOR_DATA: u32 = 1 << 8;
export const R1_SWITCH_ERROR: u32 = 1 << 7;
export const R1_EXCEPTION_EVENT: u32 = 1 << 6;
export const R1_APP_CMD: u32 = 1 << 5;

/** What the chip is busy with. */
export const OP_NONE: u32 = 0;
export const OP_PROGRAM: u32 = 1; // PROGRAM_BLOCK → flash
export const OP_CACHE: u32 = 2; // PROGRAM_BLOCK → write cache
export const OP_ERASE: u32 = 3;
export const OP_SWITCH: u32 = 4;
export const OP_FLUSH: u32 = 5;
export const OP_SLEEP: u32 = 6;
export const OP_AWAKE: u32 = 7;
export const OP_FAIL: u32 = 8; // a sector that will not be programmed
export const OP_ABORT: u32 = 9; // HPI on its way to tran
export const OP_BACKGROUND: u32 = 10; // BKOPS_START, SANITIZE_START
export const OP_REGISTER: u32 = 11; // CMD26-29: what they change is changed, the time is left
export const OP_TAIL: u32 = 12; // behind the last block of a write, or of a command that takes long

export const OP_CONTROL: u32 = 20; // SD: CMD20, 28, 29: busy, and nothing happens at its end
export const OP_CSD: u32 = 21; // SD: PROGRAM_BLOCK → CSD

/** A handler's answer for a command that it leaves to the other one: no RESPONSE_*. */
export const NOT_MINE: u32 = 0xff;

/** Where the blocks of a read come from, or where those of a write go. */
export const SOURCE_MEDIUM: u32 = 0;
export const SOURCE_REGISTER: u32 = 1; // CARD_BLOCK is already filled: EXT_CSD, SCR, SSR, switch status
export const SOURCE_CID: u32 = 2; // CMD26
export const SOURCE_CSD: u32 = 3; // CMD27
export const SOURCE_PACKED: u32 = 4; // the header of a packed command

/** A transfer without a count: until CMD12. */
export const OPEN_ENDED: u32 = 0xffffffff;

/** SD signalling: 3.3 V; asked for 1.8 V and told that it can; CMD11 came and DAT is low; 1.8 V. */
export const VOLTAGE_330: u32 = 0;
export const VOLTAGE_OFFERED: u32 = 1;
export const VOLTAGE_CHANGING: u32 = 2;
export const VOLTAGE_180: u32 = 3;

// @ts-expect-error: decorator
@unmanaged
export class Card {
  opUntilNs: u64;
  blockDueNs: u64;
  initUntilNs: u64;
  workNs: u64; // when the operation that ends now has ended
  power: u32;
  pulled: u32;
  state: u32;
  rca: u32;
  status: u32; // error bits waiting to be told in an R1
  appCommand: u32;
  busWidth: u32;
  highSpeed: u32; // eMMC: EXT_CSD_HS_TIMING 3:0; SD: the function of CMD6 group 1
  dualRate: u32; // two bits a clock and line: EXT_CSD_BUS_WIDTH 5 and 6, DDR50
  partition: u32; // EXT_CSD_PARTITION_CONFIG access bits: 0 user, 1 and 2 boot, 4 … 7 general purpose
  countArmed: u32; // CMD23 came directly before
  countArgument: u32;
  transferLba: u32;
  transferLeft: u32;
  transferBlockBytes: u32;
  transferSource: u32;
  transferMultiple: u32;
  transferDurable: u32; // reliable or forced: past the cache
  transferReliable: u32;
  transferIgnored: u32; // after a bad block the rest is ignored until CMD12
  packed: u32; // PACKED_*
  packedEntry: u32; // 1 …, the one under way
  packedLeft: u32; // its blocks to come
  writtenBlocks: u32; // ACMD22, CORRECTLY_PRG_SECTORS_NUM
  eraseFirst: u32;
  eraseLast: u32;
  eraseStep: u32; // 0 nothing, 1 start known, 2 both known
  op: u32;
  opStuck: u32; // 1 + STUCK_*: what frees it
  opLba: u32;
  opLast: u32;
  opPartition: u32;
  opReliable: u32;
  opPhantom: u32;
  opSwitchIndex: u32;
  opSwitchValue: u32;
  opHiddenUntilNs: u64; // busy that shows late: DAT0 is high until then
  opEntry: u32; // the entry of a packed command that its sector belongs to, or 0
  opRefused: u32; // the sector will not be stored, and CC_ERROR says so when busy is over
  gone: u32; // answers nothing until its supply is gone
  locked: u32; // CARD_IS_LOCKED in this answer
  datStuck: u32; // DAT0 low although the card is not busy: 1 + STUCK_*
  afterStop: u32; // CMD12 has ended the transfer before
  cacheCount: u32;
  driverStrength: u32; // SD: the function of CMD6 group 3
  currentLimit: u32; // SD: the function of CMD6 group 4
  voltage: u32; // SD: VOLTAGE_*
  functionsToCome: u32; // SD: 1 << 31 | CMD6's results, which hold when its status has gone out
  spi: u32; // SD: CMD0 came with chip select low; only a power cycle leads back
  response0: u32; // bits 31:0 of the response's content; R2: 31:0 of the register
  response1: u32;
  response2: u32;
  response3: u32;
  cid0: u32;
  cid1: u32;
  cid2: u32;
  cid3: u32;
  csd0: u32;
  csd1: u32;
  csd2: u32;
  csd3: u32;
  isProtected: u32; // an eMMC's PROTECTION_TABLE is not all 0
  unkemptSectors: u32; // programmed since the last background operations
  published: u32; // SD: the address that CMD3 told last
}

export function card(): Card {
  return changetype<Card>(CARD_BASE);
}

export function isEmmc(): bool {
  return load<u32>(CONFIG_CARD_KIND) == CARD_EMMC;
}

/** SD: byte addresses are the card's kind, not the host's choice. */
export function isSdsc(): bool {
  return load<u32>(CONFIG_CARD_KIND) == CARD_SDSC;
}

/** SD: bits of SD_* that the card was made with. */
export function hasSdFlag(flag: u32): bool {
  return (load<u32>(CONFIG_SD_FLAGS) & flag) != 0;
}

/** SD: SD_V301, or an older one, which is a greater number. */
export function sdVersion(): u32 {
  return load<u32>(CONFIG_SD_FLAGS) & SD_VERSION_MASK;
}

/** Sets status bits that the next R1 tells and then forgets. */
export function raise(bits: u32): void {
  card().status |= bits;
}
