// `mmcpstore sahara unpack CONTAINER DIR`: the regions of a v1 container as files, as `collect` would have stored them.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { Command } from "commander";
import { escapeName, makeTable } from "../dump/sahara.js";
import { readContainer } from "../dump/sahara-container.js";
import { MmcError } from "../errors.js";
import { fileError } from "../image/file-error.js";
import { DumpFolder, saharaHead, storeRegions } from "./dump-store.js";
import { color, counted, formatJson, formatTable, write } from "./output.js";

function unpackInto(path: string, folder: string, fd: number) {
  const sizeBytes = fstatSync(fd).size;
  const read = (offset: number, count: number) => {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count; ) {
      const got = readSync(fd, bytes, done, count - done, offset + done);
      if (got === 0) throw new MmcError("EIO", `${path}: became shorter`);
      done += got;
    }
    return bytes;
  };
  const { regions: found, isComplete } = readNamed(path, { sizeBytes, read });
  const inFile = found.map((region) => {
    const isWhole = BigInt(region.storedBytes) === region.lengthBytes;
    return { ...region, why: isWhole ? "" : "the container ends before it does", overlaps: false };
  });
  const head = saharaHead(64, makeTable(found, 64));
  const why = isComplete ? "" : "the container was cut";
  return { isComplete, ...storeRegions(new DumpFolder(folder, null, head), head, inFile, read, why) };
}

function readNamed(path: string, source: Parameters<typeof readContainer>[0]) {
  try {
    return readContainer(source);
  } catch (error) {
    if (error instanceof MmcError)
      throw new MmcError(error.code, `${path}: ${error.message}`, { cause: error });
    throw error;
  }
}

async function unpack(path: string, folder: string, options: { json?: boolean }): Promise<void> {
  let fd = -1;
  try {
    fd = openSync(path, "r");
    const { regions, isComplete, manifest, failure } = unpackInto(path, folder, fd);
    if (failure !== null) throw failure;
    if (options.json) await write(formatJson(manifest));
    else {
      const rows = regions.map((one) => [
        String(one.index),
        escapeName(one.name) || "-",
        `0x${one.address.toString(16)}`,
        String(one.lengthBytes),
        one.state === "complete" ? color.green(one.state) : color.red(one.state),
      ]);
      await write(formatTable(["#", "NAME", "ADDRESS", "SIZE", "STATE"], rows, [0, 2, 3]));
    }
    if (!isComplete) throw new MmcError("ENODATA", `${path}: was cut, what it has is in ${folder}`);
    if (!options.json) await write(color.dim(`${counted(regions.length, "region")} in ${folder}\n`));
  } catch (error) {
    throw fileError(path, error);
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

export function addUnpack(sahara: Command): void {
  sahara
    .command("unpack")
    .summary("take a v1 container apart")
    .description("Write every region of a v1 container, as Linux's qaic driver makes it, to a file in DIR.")
    .argument("<container>", "the container: what devcoredump gave, or collect --container made")
    .argument("<dir>", "folder for the regions and manifest.json; made, or empty")
    .option("--json", "print the manifest instead of a table")
    .addHelpText(
      "after",
      `
Magic, version and sizes are checked before a file is made. Of a container that was cut everything that is there
is kept, marked in manifest.json, and the exit code is 1. The container has no checksum: damage inside is not seen.

Example:
  cat /sys/class/devcoredump/devcd1/data > crash.bin; mmcpstore sahara unpack crash.bin crash/`,
    )
    .action(unpack);
}
