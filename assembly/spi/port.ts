// The SPI port of the SD card, byte by byte (SD Physical Layer 3.01 §7.2): command frames, answers, tokens, blocks with
// their CRC16, data responses, busy. What a command does is the card's (card/sd-spi.ts). No controller is between:
// whoever calls is the machine's SPI unit.
//
// Nothing is said before N_CR (CONFIG_SPI_NCR_BYTES), a byte of 0xff precedes every block, and CMD12 has a stuff byte
// that looks like an answer with all errors, so that a driver which does not skip it is found out. Chip select high
// drops a command, an answer or a block that is under way; busy goes on and shows again with chip select low.
//
// Not modelled: several cards on one bus, SPI modes 1 and 2, bits (chip select changes between bytes only).

import { crc16OneLine } from "../bus/crc";
import {
  advanceCard,
  blockBytesOnWire,
  blockDueNs,
  busyUntilNs,
  CRC_STATUS_BAD,
  CRC_STATUS_GOOD,
  CRC_STATUS_NONE,
  dropSpiBlock,
  endSpiWrite,
  powerCycleOff,
  powerOn,
  receiveSpiBlock,
  receiveSpiCommand,
  responseWord,
  SPI_BLOCK,
  SPI_BLOCK_BAD_CRC,
  SPI_NO_BLOCK,
  SPI_SILENT,
  sendSpiBlock,
  sendsSpiBlocks,
  spiBlockBytes,
  spiListens,
  takesManySpiBlocks,
  takesSpiBlocks,
} from "../card/card";
import { advanceNs, nowNs } from "../clock";
import { crc7Byte } from "../crc";
import { CONFIG_SPI_KHZ, CONFIG_SPI_NCR_BYTES, SDHCI_BUFFER, SECTOR_BYTES, SPI_BASE } from "../layout";
import { port, SpiPort } from "./state";

const RELEASED: u32 = 0xff;
const BUSY: u32 = 0x00;
const FRAME_BYTES: u32 = 6;
const CRC_BYTES: u32 = 2;
/** From power to the first command (mmc.md §2.2). */
const CLOCKS_BEFORE_COMMAND: u32 = 74;
const TOKEN_BLOCK: u32 = 0xfe;
const TOKEN_BLOCK_OF_MANY: u32 = 0xfc;
const TOKEN_STOP: u32 = 0xfd;
const DATA_ACCEPTED: u32 = 0xe5; // xxx0 010 1
const DATA_BAD_CRC: u32 = 0xeb; // xxx0 101 1
const DATA_WRITE_ERROR: u32 = 0xed; // xxx0 110 1
/** Behind Stop Tran: one byte that means nothing, and one of busy at least, however soon the card has done. */
const STOP_BYTES: u32 = 2;
/** The stuff byte of CMD12: bit 7 is 0, as in an answer. */
const STUFF: u32 = 0x7f;

const READ_NONE: u32 = 0;
const READ_GAP: u32 = 1; // one byte at least before a token
const READ_WAIT: u32 = 2; // for the card
const READ_BYTES: u32 = 3;
const WRITE_NONE: u32 = 0;
const WRITE_WAIT: u32 = 1; // for a token
const WRITE_BYTES: u32 = 2;

/** Everything under way is forgotten, and CRCs are off. */
export function resetPort(): void {
  memory.fill(SPI_BASE, 0, offsetof<SpiPort>());
}

/** The slot of an SPI machine: the card gets power, or loses it and gets it again. */
export function spiAttach(): void {
  powerCycleOff(nowNs());
  resetPort();
  powerOn(nowNs());
}

function forgetAnswer(p: SpiPort): void {
  p.stuff = 0;
  p.gap = 0;
  p.answerLeft = 0;
  p.dataResponse = 0;
  p.ending = 0;
}

function deselect(p: SpiPort): void {
  p.selected = 0;
  p.frameBytes = 0;
  forgetAnswer(p);
  if (p.reading == READ_BYTES) p.reading = sendsSpiBlocks() ? READ_GAP : READ_NONE;
  if (p.writing == WRITE_BYTES) {
    dropSpiBlock();
    p.writing = takesSpiBlocks() ? WRITE_WAIT : WRITE_NONE;
  }
}

/** Bytes of the answer to `index`: R2 of CMD13 and ACMD13, R3 and R7 of CMD58 and CMD8, else R1. */
function answerBytes(index: u32, first: u32): u32 {
  if (index == 13) return 2;
  // An R7 or R3 that is refused is an R1.
  return (index == 8 || index == 58) && (first & 0x0c) == 0 ? 5 : 1;
}

function execute(p: SpiPort, last: u32): void {
  const index = p.frameIndex;
  p.frameBytes = 0;
  const isChecked = index == 0 || index == 8 || p.crcOn != 0;
  const intact = !isChecked || last == ((p.frameCrc << 1) | 1);
  const first = receiveSpiCommand(index, p.frameArgument, intact, nowNs());
  if (first == SPI_SILENT) return;
  forgetAnswer(p);
  p.gap = load<u32>(CONFIG_SPI_NCR_BYTES);
  p.stuff = index == 12 ? 1 : 0;
  p.answer = first;
  p.answerLeft = answerBytes(index, first);
  const word = responseWord();
  p.answerRest = index == 13 ? word << 24 : word;
  if (index == 0) p.crcOn = 0;
  if (index == 59 && (first & 0x0c) == 0) p.crcOn = p.frameArgument & 1;
  if (p.reading != READ_BYTES || !sendsSpiBlocks()) p.reading = sendsSpiBlocks() ? READ_GAP : READ_NONE;
  p.writing = takesSpiBlocks() ? WRITE_WAIT : WRITE_NONE;
}

/** A byte of a command. */
function takeFrame(p: SpiPort, byte: u32): void {
  const at = p.frameBytes;
  p.frameBytes = at + 1;
  if (at == 0) {
    p.frameIndex = byte & 63;
    p.frameArgument = 0;
    p.frameCrc = crc7Byte(0, byte);
  } else if (at < FRAME_BYTES - 1) {
    p.frameArgument = (p.frameArgument << 8) | byte;
    p.frameCrc = crc7Byte(p.frameCrc, byte);
  } else {
    execute(p, byte);
  }
}

/** A block is complete, CRC included. */
function takeBlock(p: SpiPort): void {
  const intact = p.crcOn == 0 || (p.blockCrc & 0xffff) == <u32>crc16OneLine(SDHCI_BUFFER, p.blockBytes);
  const token = receiveSpiBlock(SDHCI_BUFFER, p.blockBytes, intact, nowNs());
  p.writing = takesSpiBlocks() ? WRITE_WAIT : WRITE_NONE;
  if (token == CRC_STATUS_NONE) return;
  p.dataResponse =
    token == CRC_STATUS_GOOD ? DATA_ACCEPTED : token == CRC_STATUS_BAD ? DATA_BAD_CRC : DATA_WRITE_ERROR;
}

function takeBlockByte(p: SpiPort, byte: u32): void {
  const at = p.blockAt;
  p.blockAt = at + 1;
  if (at < p.blockBytes && at < <u32>SECTOR_BYTES) store<u8>(SDHCI_BUFFER + at, <u8>byte);
  else p.blockCrc = (p.blockCrc << 8) | byte;
  if (at + 1 == p.blockBytes + CRC_BYTES) takeBlock(p);
}

/** True if the byte was a token that a write waits for. */
function takeToken(p: SpiPort, byte: u32): bool {
  if (p.writing != WRITE_WAIT || busyUntilNs() != 0) return false;
  const many = takesManySpiBlocks();
  if (many && byte == TOKEN_STOP) {
    endSpiWrite(nowNs());
    p.ending = STOP_BYTES;
    p.writing = WRITE_NONE;
    return true;
  }
  if (byte != (many ? TOKEN_BLOCK_OF_MANY : TOKEN_BLOCK)) return false;
  p.writing = WRITE_BYTES;
  p.blockAt = 0;
  p.blockBytes = spiBlockBytes();
  p.blockCrc = 0;
  return true;
}

function take(p: SpiPort, byte: u32): void {
  if (p.writing == WRITE_BYTES) {
    takeBlockByte(p, byte);
    return;
  }
  if (p.frameBytes == 0 && takeToken(p, byte)) return;
  // 01 begins a command; what a host says between commands is 0xff.
  if (p.frameBytes > 0 || (byte & 0xc0) == 0x40) takeFrame(p, byte);
}

/** The next byte of a read; 0xff while there is none. */
function giveRead(p: SpiPort): u32 {
  if (p.reading == READ_BYTES) {
    const at = p.blockAt;
    p.blockAt = at + 1;
    if (at < p.blockBytes && at < <u32>SECTOR_BYTES) return load<u8>(SDHCI_BUFFER + at);
    if (at == p.blockBytes) return (p.blockCrc >>> 8) & 0xff;
    p.reading = sendsSpiBlocks() ? READ_GAP : READ_NONE;
    return p.blockCrc & 0xff;
  }
  if (p.reading == READ_GAP) {
    p.reading = READ_WAIT;
    return RELEASED;
  }
  if (blockDueNs() > nowNs()) return RELEASED;
  p.blockBytes = blockBytesOnWire();
  const token = sendSpiBlock(SDHCI_BUFFER, nowNs());
  if (token != SPI_BLOCK && token != SPI_BLOCK_BAD_CRC) {
    p.reading = READ_NONE;
    return token == SPI_NO_BLOCK ? RELEASED : token;
  }
  p.reading = READ_BYTES;
  p.blockAt = 0;
  p.blockCrc = <u32>crc16OneLine(SDHCI_BUFFER, p.blockBytes);
  if (token == SPI_BLOCK_BAD_CRC) p.blockCrc ^= 1;
  return TOKEN_BLOCK;
}

/** What the card drives during this byte. */
function give(p: SpiPort): u32 {
  if (p.stuff != 0) {
    p.stuff = 0;
    return STUFF;
  }
  if (p.gap > 0) {
    p.gap -= 1;
    return RELEASED;
  }
  if (p.answerLeft > 0) {
    const byte = p.answer;
    p.answerLeft -= 1;
    p.answer = p.answerRest >>> 24;
    p.answerRest <<= 8;
    return byte;
  }
  if (p.dataResponse != 0) {
    const byte = p.dataResponse;
    p.dataResponse = 0;
    return byte;
  }
  if (p.ending > 0) {
    p.ending -= 1;
    return p.ending > 0 ? RELEASED : BUSY;
  }
  if (p.reading != READ_NONE) return giveRead(p);
  return busyUntilNs() != 0 ? BUSY : RELEASED;
}

/** One byte out, one byte in, 8 clocks. `chipSelected` 1: the line is low. A card that is not there reads as 0xff. */
export function spiTransfer(byteOut: u32, chipSelected: u32): u32 {
  const p = port();
  const khz = load<u32>(CONFIG_SPI_KHZ);
  if (khz > 0) advanceNs(8000000 / khz);
  advanceCard(nowNs());
  const ready = p.clocks >= CLOCKS_BEFORE_COMMAND;
  if (!ready) p.clocks += 8;
  if (!spiListens()) {
    resetPort();
    return RELEASED;
  }
  if (chipSelected == 0) {
    if (p.selected != 0) deselect(p);
    return RELEASED;
  }
  p.selected = 1;
  const byteIn = give(p);
  if (ready) take(p, byteOut & 0xff);
  return byteIn;
}
