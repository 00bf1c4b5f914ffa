// The SPI port's private state: where in a frame, an answer or a block it is.
import { SPI_BASE } from "../layout";

// @ts-expect-error: decorator
@unmanaged
export class SpiPort {
  clocks: u32; // since power, up to what a card needs before its first command
  selected: u32;
  crcOn: u32; // CMD59
  frameBytes: u32; // of a command, 0 … 5
  frameIndex: u32;
  frameArgument: u32;
  frameCrc: u32; // CRC7 so far
  stuff: u32; // CMD12: one byte of no meaning before its answer
  gap: u32; // bytes of 0xff before the answer
  answerLeft: u32; // bytes of the answer
  answer: u32; // its first byte …
  answerRest: u32; // … and those behind, the next one in bits 31:24
  dataResponse: u32; // behind a block: 0 none
  ending: u32; // bytes to come behind Stop Tran: one released, one busy
  reading: u32; // READ_*
  writing: u32; // WRITE_*
  blockAt: u32;
  blockBytes: u32;
  blockCrc: u32; // as sent; as received
}

export function port(): SpiPort {
  return changetype<SpiPort>(SPI_BASE);
}
