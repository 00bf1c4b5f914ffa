// What each owner of the host has for itself. A panic may come between any two instructions of a request, and the
// request may go on while the panic writes: neither stores where the other reads.
import {
  ADMA_TABLE,
  BOUNCE_BASE,
  HEAD_BLOCK,
  PANIC_ADMA_TABLE,
  PANIC_BOUNCE,
  PANIC_HEAD_BLOCK,
  PANIC_REGISTER_BLOCK,
  PANIC_TAIL_BLOCK,
  REGISTER_BLOCK,
  TAIL_BLOCK,
} from "./layout";
import { isPanicToken } from "./owner";

/** BOUNCE_SECTORS sectors on their way. */
export function bounce(token: u32): usize {
  return isPanicToken(token) ? PANIC_BOUNCE : BOUNCE_BASE;
}

/** 512 bytes: a zone's or a ring's first sector. */
export function headBlock(token: u32): usize {
  return isPanicToken(token) ? PANIC_HEAD_BLOCK : HEAD_BLOCK;
}

/** 512 bytes: a zone's last sector. */
export function tailBlock(token: u32): usize {
  return isPanicToken(token) ? PANIC_TAIL_BLOCK : TAIL_BLOCK;
}

/** 512 bytes: what CMD8, ACMD51, CMD6 returned. */
export function registerBlock(token: u32): usize {
  return isPanicToken(token) ? PANIC_REGISTER_BLOCK : REGISTER_BLOCK;
}

/** The driver's ADMA2 descriptors. */
export function admaTable(token: u32): usize {
  return isPanicToken(token) ? PANIC_ADMA_TABLE : ADMA_TABLE;
}
