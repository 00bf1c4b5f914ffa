// Opens an image by what it is: a URL, a gzip file (by its first bytes, not by its name) or raw bytes.
// Everything that reads images goes through here; writing goes through openRaw().
// Must never write, and never guess: a name that says gzip over bytes that do not is an error.
import { MmcError } from "../errors.js";
import { func, judge, number, type Shape } from "../judge.js";
import type { Image, ImageOptions } from "./contract.js";
import { openGzip } from "./gzip.js";
import { openHttp } from "./http.js";
import { isGzip, openRaw } from "./raw.js";

export type { Image, ImageOptions } from "./contract.js";

const OPTIONS: Shape<ImageOptions> = { timeoutMs: number, onProgress: func };

/**
 * Opens an image for reading.
 * @param location a path, or an `http://` or `https://` URL.
 * @throws MmcError ENOENT, EACCES, EISDIR, EINVAL (empty, named .gz but not gzip), EFBIG and EIO (gzip), and
 * what {@link openHttp} gives.
 */
export async function openImage(location: string, given: ImageOptions = {}): Promise<Image> {
  const options = judge("", given, OPTIONS);
  if (/^https?:\/\//i.test(location)) return openHttp(location, options);
  const raw = openRaw(location, { writable: false });
  try {
    if (!isGzip(raw)) {
      if (/\.gz$/i.test(location)) throw new MmcError("EINVAL", `${location}: is named .gz but is not gzip`);
      return raw;
    }
  } catch (error) {
    raw.closeSync();
    throw error;
  }
  raw.closeSync();
  return openGzip(location, options);
}
