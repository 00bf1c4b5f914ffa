// A folder for a command's files.
import { existsSync, mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { syncFolder } from "./whole-file.js";

/**
 * Makes `path` and what is missing above it, on the medium when this returns; true if it was made. Errors: `ENOTDIR`
 * where something else is in the way, and the system's. Not mkdirSync's `recursive`, which never returns where a
 * folder that is there answers ENOENT, as /proc does.
 */
export function makeFolder(path: string): boolean {
  const missing: string[] = [];
  for (let at = resolve(path); !existsSync(at); at = dirname(at)) missing.push(at);
  try {
    for (const folder of missing.reverse()) {
      mkdirSync(folder);
      syncFolder(dirname(folder));
    }
    if (missing.length === 0) mkdirSync(path, { recursive: true });
  } catch (error) {
    if ((error as { code?: unknown }).code !== "EEXIST") throw fileError(path, error);
    throw new MmcError("ENOTDIR", `${path}: is not a directory`, { cause: error });
  }
  return missing.length > 0;
}
