// Reading where a failure would be blamed on the medium: an error of the way (CRC, silence) is none of its sectors'
// until the card has shown that data come through.
import { EIO, ENOMEDIUM, OK } from "../errno";
import { isLate } from "./shadow";
import { leadBack } from "./takeover";
import { transferBlocks } from "./transfer";

/** True if it is the place on the medium that failed and not the way to it. */
export function blamesPlace(status: i32): bool {
  return status == EIO;
}

/**
 * One sector to `ptr`; behind an error of the way the card is led back and has shown that data come through, and is
 * asked again. What then fails is the sector's own. Errors: as transferBlocks(), -ENODEV another card, -ETIMEDOUT no
 * way leads to the card.
 */
export function readSector(token: u32, lba: u32, ptr: usize): i32 {
  const status = transferBlocks(token, false, lba, 1, ptr, 0);
  if (status == OK || blamesPlace(status) || status == ENOMEDIUM || isLate(token)) return status;
  const back = leadBack(token);
  return back == OK ? transferBlocks(token, false, lba, 1, ptr, 0) : back;
}
