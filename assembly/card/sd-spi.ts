// An SD card's commands in SPI mode (SD Physical Layer 3.01 §7): the same medium, registers, busy times and faults as
// on the SD bus, with other answers. The card is idle or in tran; a read is data, a write rcv, busy prg. The port
// (assembly/spi) has the bytes, the CRCs and the tokens; what a command does and answers is said here.
//
// Not modelled: CMD42 and CMD56 (illegal, as on the SD bus) and the security commands.

import { storeBigEndian32 } from "../bytes";
import {
  CARD_BLOCK,
  CONFIG_FINAL_NS,
  FAULT_COMMAND_CRC,
  FAULT_NO_RESPONSE,
  FAULT_PULLED,
  FAULT_WRITE_CRC,
  SD_V110,
  STUCK_UNTIL_POWER_CYCLE,
  TRACE_COMMAND,
} from "../layout";
import { traceAt } from "../trace";
import { beginTail, isBusy } from "./busy";
import { goIdle, plainCommand } from "./commands";
import { faultOnBlock, faultOnCommand } from "./faults";
import { isAppCommand, isLegal } from "./legal";
import { ocrBySpi, powersUpBySpi } from "./operating-conditions";
import { sdAppCommand } from "./sd-commands";
import {
  card,
  isEmmc,
  R1_ADDRESS_ERROR,
  R1_BLOCK_LEN_ERROR,
  R1_CARD_ECC_FAILED,
  R1_CC_ERROR,
  R1_CID_CSD_OVERWRITE,
  R1_ERASE_PARAM,
  R1_ERASE_RESET,
  R1_ERASE_SEQ_ERROR,
  R1_ERROR,
  R1_OUT_OF_RANGE,
  R1_WP_ERASE_SKIP,
  R1_WP_VIOLATION,
  STATE_DATA,
  STATE_IDLE,
  STATE_INA,
  STATE_PRG,
  STATE_RCV,
  STATE_TRAN,
  sdVersion,
} from "./state";
import { BLOCK_BAD_CRC, BLOCK_NONE, receiveBlock, sendBlock, sendRegister } from "./transfer";

/** The first byte of every answer. */
export const SPI_IDLE: u32 = 0x01;
const SPI_ERASE_RESET: u32 = 0x02;
const SPI_ILLEGAL: u32 = 0x04;
const SPI_CRC: u32 = 0x08;
const SPI_ERASE_SEQUENCE: u32 = 0x10;
const SPI_ADDRESS: u32 = 0x20;
const SPI_PARAMETER: u32 = 0x40;
/** In place of an answer: there is none. */
export const SPI_SILENT: u32 = 0xff;

/** Start of a block; its CRC16 is to be sent damaged; no block comes. Below 0x10: a data error token. */
export const SPI_BLOCK: u32 = 0xfe;
export const SPI_BLOCK_BAD_CRC: u32 = 0x1fe;
export const SPI_NO_BLOCK: u32 = 0xff;

/** True while a card with power that can follow SPI is in the slot. */
export function spiListens(): bool {
  const c = card();
  return c.power != 0 && c.pulled == 0 && c.state != STATE_INA && !isEmmc();
}

function idleBit(): u32 {
  return card().state == STATE_IDLE ? SPI_IDLE : 0;
}

/** What of an R1 of the SD bus is told in the first byte. The rest waits for CMD13. */
function firstByte(status: u32): u32 {
  let bits = idleBit();
  if ((status & R1_ERASE_RESET) != 0) bits |= SPI_ERASE_RESET;
  if ((status & R1_ERASE_SEQ_ERROR) != 0) bits |= SPI_ERASE_SEQUENCE;
  if ((status & R1_ADDRESS_ERROR) != 0) bits |= SPI_ADDRESS;
  if ((status & (R1_OUT_OF_RANGE | R1_BLOCK_LEN_ERROR)) != 0) bits |= SPI_PARAMETER;
  return bits;
}

const TOLD_AT_ONCE: u32 = R1_ERASE_RESET | R1_ERASE_SEQ_ERROR | R1_ADDRESS_ERROR | R1_BLOCK_LEN_ERROR;
const TOLD_BY_STATUS: u32 =
  R1_WP_ERASE_SKIP |
  R1_ERROR |
  R1_CC_ERROR |
  R1_CARD_ECC_FAILED |
  R1_WP_VIOLATION |
  R1_ERASE_PARAM |
  R1_OUT_OF_RANGE |
  R1_CID_CSD_OVERWRITE;

/** CMD13 and ACMD13: the second byte of R2, told once. */
function takeStatus(): u32 {
  const c = card();
  const status = c.status;
  c.status = status & ~TOLD_BY_STATUS;
  let bits: u32 = 0;
  if ((status & R1_WP_ERASE_SKIP) != 0) bits |= 0x02;
  if ((status & R1_ERROR) != 0) bits |= 0x04;
  if ((status & R1_CC_ERROR) != 0) bits |= 0x08;
  if ((status & R1_CARD_ECC_FAILED) != 0) bits |= 0x10;
  if ((status & R1_WP_VIOLATION) != 0) bits |= 0x20;
  if ((status & R1_ERASE_PARAM) != 0) bits |= 0x40;
  if ((status & (R1_OUT_OF_RANGE | R1_CID_CSD_OVERWRITE)) != 0) bits |= 0x80;
  return bits;
}

/** CMD9 and CMD10: the register is a block here. */
function sendLongRegister(first: u32, second: u32, third: u32, fourth: u32, timeNs: u64): u32 {
  storeBigEndian32(CARD_BLOCK, fourth);
  storeBigEndian32(CARD_BLOCK + 4, third);
  storeBigEndian32(CARD_BLOCK + 8, second);
  storeBigEndian32(CARD_BLOCK + 12, first);
  sendRegister(16, timeNs);
  return 0;
}

/** Commands that the SD bus has too and that mean the same; the others of tran are not for SPI. */
function isShared(app: bool, index: u32): bool {
  if (app) return index != 6 && index != 41;
  if (index == 6 || index == 16 || index == 17 || index == 18) return true;
  return index == 24 || index == 25 || (index >= 27 && index <= 30) || (index >= 32 && index <= 38);
}

/** A command of tran, by the handler of the SD bus, its answer translated. */
function sharedCommand(app: bool, index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  if (c.state != STATE_TRAN || isBusy()) return SPI_ILLEGAL;
  if (!isShared(app, index) || !isLegal(false, app, index, STATE_TRAN)) return SPI_ILLEGAL;
  const waiting = c.status & ~TOLD_AT_ONCE;
  c.status &= TOLD_AT_ONCE;
  if (app) sdAppCommand(index, argument, timeNs);
  else plainCommand(index, argument, timeNs);
  const told = c.response0;
  c.status |= waiting | (told & TOLD_BY_STATUS & ~R1_OUT_OF_RANGE);
  if (app && index == 13) c.response0 = takeStatus();
  return firstByte(told);
}

/** CMD12: no block comes any more. In rcv it ends a write whose blocks were refused. */
function stop(timeNs: u64): u32 {
  if (card().state != STATE_DATA && card().state != STATE_RCV) return SPI_ILLEGAL | idleBit();
  endSpiWrite(timeNs);
  return 0;
}

/** The stop token of CMD25, or CMD12: what arrived is still programmed, and only now known to be the last. */
export function endSpiWrite(timeNs: u64): void {
  const c = card();
  const isWrite = c.state == STATE_RCV;
  c.state = isBusy() ? STATE_PRG : STATE_TRAN;
  const finalNs: u64 = load<u32>(CONFIG_FINAL_NS);
  if (isWrite && finalNs > 0 && c.transferIgnored == 0 && c.writtenBlocks > 0) beginTail(timeNs, finalNs);
}

function powerUp(argument: u32, timeNs: u64): u32 {
  const c = card();
  if (c.state == STATE_IDLE && powersUpBySpi(argument, timeNs)) c.state = STATE_TRAN;
  return idleBit();
}

/** CMD8: voltages that are ours are echoed, others are answered by none, the pattern always. */
function interfaceCondition(argument: u32): u32 {
  const c = card();
  if (c.state != STATE_IDLE || sdVersion() >= <u32>SD_V110) return SPI_ILLEGAL | idleBit();
  c.response0 = ((argument >>> 8) & 15) == 1 ? argument & 0xfff : argument & 0xff;
  return SPI_IDLE;
}

function spiCommand(app: bool, index: u32, argument: u32, timeNs: u64): u32 {
  const c = card();
  if (app && index == 41) return powerUp(argument, timeNs);
  if (!app) {
    switch (index) {
      case 1:
        return powerUp(argument, timeNs);
      case 8:
        return interfaceCondition(argument);
      case 12:
        return stop(timeNs);
      case 55:
      case 59:
        return idleBit();
      case 58:
        c.response0 = ocrBySpi(c.state != STATE_IDLE);
        return idleBit();
      case 9:
      case 10: {
        if (c.state != STATE_TRAN || isBusy()) return SPI_ILLEGAL | idleBit();
        return index == 9
          ? sendLongRegister(c.csd0, c.csd1, c.csd2, c.csd3, timeNs)
          : sendLongRegister(c.cid0, c.cid1, c.cid2, c.cid3, timeNs);
      }
      case 13: {
        if (c.state == STATE_IDLE) return SPI_ILLEGAL | SPI_IDLE;
        c.response0 = takeStatus();
        return 0;
      }
      default:
        break;
    }
  }
  return sharedCommand(app, index, argument, timeNs) | idleBit();
}

/** CMD0 with chip select low: SPI mode, idle. */
function enterSpi(timeNs: u64): u32 {
  const c = card();
  if (c.opStuck == 1 + STUCK_UNTIL_POWER_CYCLE) return SPI_SILENT;
  goIdle(timeNs);
  c.spi = 1;
  return SPI_IDLE;
}

/**
 * A command frame has arrived, `intact` if its CRC7 is right or not looked at. Returns the first byte of the answer,
 * or SPI_SILENT; what follows it (R2's second byte, OCR, R7) is word 0 of the response.
 */
export function receiveSpiCommand(index: u32, argument: u32, intact: bool, timeNs: u64): u32 {
  const c = card();
  if (faultOnCommand(FAULT_PULLED, index)) c.pulled = 1;
  if (!spiListens() || (c.spi == 0 && (index != 0 || !intact))) return SPI_SILENT;
  traceAt(timeNs, TRACE_COMMAND, index, argument, 0);
  if (!intact || faultOnCommand(FAULT_COMMAND_CRC, index)) {
    c.appCommand = 0;
    return c.spi == 0 ? SPI_SILENT : SPI_CRC | idleBit();
  }
  let answer: u32;
  if (index == 0) {
    answer = enterSpi(timeNs);
  } else {
    const app = c.appCommand != 0 && isAppCommand(index);
    const isErase = !app && (index == 13 || index == 32 || index == 33 || index == 38);
    let before: u32 = 0;
    if (c.eraseStep != 0 && !isErase) {
      c.eraseStep = 0;
      before = SPI_ERASE_RESET;
    }
    answer = spiCommand(app, index, argument, timeNs) | before;
    c.appCommand = index == 55 ? 1 : 0;
  }
  return faultOnCommand(FAULT_NO_RESPONSE, index) ? SPI_SILENT : answer;
}

/** The next block of a read to `ptr`: how it begins, SPI_BLOCK … or an error token. */
export function sendSpiBlock(ptr: usize, timeNs: u64): u32 {
  const c = card();
  const before = c.status;
  c.status = 0;
  const block = sendBlock(ptr, timeNs);
  const raised = c.status;
  c.status |= before;
  if (block == BLOCK_BAD_CRC) return SPI_BLOCK_BAD_CRC;
  if (block != BLOCK_NONE) return SPI_BLOCK;
  if ((raised & R1_CARD_ECC_FAILED) != 0) return 0x04;
  return (raised & R1_OUT_OF_RANGE) != 0 ? 0x08 : SPI_NO_BLOCK;
}

/** Chip select went high in the middle of a block: it is dropped, and a single write is over. */
export function dropSpiBlock(): void {
  const c = card();
  if (c.state == STATE_RCV && c.transferMultiple == 0) c.state = STATE_TRAN;
}

/** True while the card waits for blocks; `multiple`: of CMD25. */
export function takesSpiBlocks(): bool {
  return card().state == STATE_RCV;
}

export function takesManySpiBlocks(): bool {
  return card().transferMultiple != 0;
}

/** A block has arrived, `intact` if its CRC16 is right or not looked at. Returns the CRC status token. */
export function receiveSpiBlock(ptr: usize, bytes: u32, intact: bool, timeNs: u64): u32 {
  const good = intact && faultOnBlock(FAULT_WRITE_CRC, card().transferLba) == 0;
  return receiveBlock(ptr, bytes, good, timeNs);
}

/** Length of the block that is to come: 16 bytes of CSD, or a sector. */
export function spiBlockBytes(): u32 {
  return card().transferBlockBytes;
}

/** True while blocks of a read are to come. */
export function sendsSpiBlocks(): bool {
  return card().state == STATE_DATA && card().transferIgnored == 0;
}
