// What the last command was and what it told, for whoever asks from outside of a request.
import { currentShadow } from "./shadow";

/** The command that was sent last, or tried. */
export function lastCommand(): u32 {
  return currentShadow().lastCommand;
}

/** Word 0 of its response: R1, OCR, R6 or R7. */
export function lastResponse(): u32 {
  return currentShadow().lastR1;
}
