// The progress bar on standard error. Must never be drawn where standard error is no terminal, and never for
// something that is over before anybody could read it.
import { SingleBar } from "cli-progress";

const SHOW_AFTER_MS = 400;

/** A bar for one piece of work; call `stop` before anything else is printed. */
export interface Progress {
  onProgress: (doneBytes: number, totalBytes: number | null) => void;
  stop: () => void;
}

/** Starts nothing yet: the bar appears with the first report after 0.4 s. `unit`: what is counted. */
export function makeProgress(what: string, unit = "bytes"): Progress {
  if (process.stderr.isTTY !== true) return { onProgress: () => undefined, stop: () => undefined };
  const startedMs = Date.now();
  let bar: SingleBar | null = null;
  return {
    onProgress: (doneBytes, totalBytes) => {
      if (Date.now() - startedMs < SHOW_AFTER_MS) return;
      const total = totalBytes ?? doneBytes;
      if (bar === null) {
        bar = new SingleBar({
          format: `${what} [{bar}] {percentage}% {value}/{total} ${unit}`,
          stream: process.stderr,
          clearOnComplete: true,
          hideCursor: true,
        });
        bar.start(total, 0);
      }
      bar.setTotal(total);
      bar.update(doneBytes);
    },
    stop: () => {
      bar?.stop();
      bar = null;
    },
  };
}
