// A folder as a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst): what a
// kernel unpacks as its initramfs. Folders and regular files only, owned by root.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

function pad4(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}

function entry(name: string, mode: number, inode: number, content: Uint8Array): Uint8Array[] {
  const hex = (value: number) => value.toString(16).padStart(8, "0");
  const named = Buffer.from(`${name}\0`);
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, named.length, 0];
  const head = Buffer.from(`070701${fields.map(hex).join("")}`);
  return [head, named, pad4(head.length + named.length), content, pad4(content.length)];
}

export function archive(folder: string): Uint8Array {
  const parts: Uint8Array[] = [];
  let inode = 1;
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    const path = join(folder, name);
    const stat = statSync(path);
    const content = stat.isDirectory() ? new Uint8Array() : readFileSync(path);
    parts.push(...entry(name, stat.mode, inode++, content));
  }
  parts.push(...entry("TRAILER!!!", 0, 0, new Uint8Array()));
  return Buffer.concat(parts);
}
