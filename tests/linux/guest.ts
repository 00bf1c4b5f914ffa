// One boot of an unmodified kernel in QEMU with our image on its SD card: pstore_blk on top of sdhci-pci, the pstore
// file system mounted, its files listed with their bytes, some removed, and Oopses of the kernel's own. What the guest
// says comes back as data.
import { spawn } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { archive } from "./initramfs.js";
import { CACHE, type Kernel } from "./packages.js";

const MODULES = [
  "drivers/mmc/core/mmc_core",
  "drivers/mmc/core/mmc_block",
  "drivers/mmc/host/cqhci",
  "drivers/mmc/host/sdhci",
  "drivers/mmc/host/sdhci-pci",
  "fs/pstore/pstore_zone",
  "fs/pstore/pstore_blk",
  "drivers/char/nvram",
];
/** A boot takes some 5 s under TCG on an idle machine. */
const BOOT_TIMEOUT_MS = 180_000;

export interface GuestFile {
  name: string;
  mtimeSec: number;
  bytes: Uint8Array;
}

export interface Boot {
  files: GuestFile[];
  removed: string[];
  console: string;
}

/**
 * An Oops of the kernel's own: a driver is taken out by force while the shell holds its file open, so that closing the
 * file reads memory that is gone. The shell dies of it, the kernel lives. The inner shell lets go of the file before it
 * becomes rmmod; without the two `:` ash would open the file in that one alone.
 */
const OOPS = [
  "$b insmod /mod/nvram.ko || echo '@error nvram'",
  "$b sh -c '{ :; (exec 3<&-; exec /bin/busybox rmmod -f nvram); :; } 3</dev/nvram; echo @error no Oops'",
];

function script({ device = "/dev/mmcblk0", remove = [], oopses = 0, sizes = "" }: BootOptions): string {
  const lines = [
    "#!/bin/busybox sh",
    "b=/bin/busybox",
    "$b mount -t proc proc /proc",
    "$b mount -t sysfs sys /sys",
    "$b mount -t devtmpfs dev /dev",
    "$b stty -F /dev/ttyS0 -opost 2>/dev/null",
  ];
  for (const module of MODULES.slice(0, 5)) lines.push(`$b insmod /mod/${module.split("/").pop()}.ko`);
  lines.push(
    `i=0; while [ ! -b ${device} ] && [ $i -lt 100 ]; do $b sleep 0.1; i=$((i+1)); done`,
    "$b insmod /mod/pstore_zone.ko",
    `$b insmod /mod/pstore_blk.ko blkdev=${device} best_effort=y kmsg_size=64 max_reason=2 ${sizes} || echo '@error pstore_blk'`,
    "$b mount -t pstore pstore /sys/fs/pstore || echo '@error mount'",
    "cd /sys/fs/pstore",
    // A line a file, then its bytes in base64: the console is no place for a log's own lines.
    'for f in $($b ls -1); do echo "@file $f $($b stat -c %Y $f)"; $b base64 $f; echo "@done"; done',
  );
  for (const name of remove) lines.push(`$b rm ${name} && echo "@removed ${name}"`);
  for (let i = 0; i < oopses; i++) lines.push(...OOPS);
  // pstore_blk keeps an Oops in memory for half a second before it writes it; when it goes, it waits for that.
  lines.push("cd /", "$b umount /sys/fs/pstore", "$b rmmod pstore_blk || echo '@error rmmod'");
  lines.push("$b sync", "echo '@end'", "$b poweroff -f");
  return `${lines.join("\n")}\n`;
}

/** What the guest said between its markers. */
export function parse(console: string): Boot {
  const files: GuestFile[] = [];
  const removed: string[] = [];
  let open: { name: string; mtimeSec: number; base64: string } | null = null;
  for (const line of console.replaceAll("\r", "").split("\n")) {
    const file = /^@file (\S+) (\d+)$/.exec(line);
    const gone = /^@removed (\S+)$/.exec(line);
    if (file !== null) open = { name: file[1] ?? "", mtimeSec: Number(file[2]), base64: "" };
    else if (line === "@done" && open !== null) {
      const bytes = new Uint8Array(Buffer.from(open.base64, "base64"));
      files.push({ name: open.name, mtimeSec: open.mtimeSec, bytes });
      open = null;
    } else if (gone !== null) removed.push(gone[1] ?? "");
    else if (open !== null) open.base64 += line;
  }
  return { files, removed, console };
}

export interface BootOptions {
  /** The node that pstore_blk gets; a partition for an image with a table. */
  device?: string;
  remove?: string[];
  /** Sizes of the rings as parameters of pstore_blk, in KiB: `pmsg_size=64 console_size=64`. */
  sizes?: string;
  /** How many Oopses the kernel has after that. */
  oopses?: number;
  /** What its clock says when it starts, as 2027-01-31T00:00:00; default: this machine's time. */
  clock?: string;
}

/** An initramfs at `file`: busybox, the named modules below `/mod`, and `script` as init. */
export function makeInitramfs(file: string, kernel: Kernel, modules: string[], script: string): void {
  const tree = `${file}.tree`;
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(`${tree}/bin`, { recursive: true });
  for (const folder of ["proc", "sys", "dev", "mod"]) mkdirSync(`${tree}/${folder}`);
  copyFileSync(kernel.busybox, `${tree}/bin/busybox`);
  chmodSync(`${tree}/bin/busybox`, 0o755);
  for (const module of modules) {
    copyFileSync(`${kernel.modules}/${module}.ko`, `${tree}/mod/${module.split("/").pop()}.ko`);
  }
  writeFileSync(`${tree}/init`, script, { mode: 0o755 });
  writeFileSync(file, gzipSync(archive(tree)));
  rmSync(tree, { recursive: true });
}

/** Runs QEMU until the guest ends; killed after BOOT_TIMEOUT_MS. */
export async function runQemu(args: string[]): Promise<{ code: number | null; output: string }> {
  const child = spawn("qemu-system-x86_64", args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (data) => {
    output += data;
  });
  child.stderr.on("data", (data) => {
    output += data;
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), BOOT_TIMEOUT_MS);
    child.on("error", reject);
    child.on("close", (status) => {
      clearTimeout(timer);
      resolve(status);
    });
  });
  return { code, output };
}

/** Boots `kernel` with `image` on its SD card. Throws if the guest does not come to its end. */
export async function boot(kernel: Kernel, image: string, options: BootOptions = {}): Promise<Boot> {
  mkdirSync(CACHE, { recursive: true });
  const initrd = `${CACHE}/boot-${process.pid}.gz`;
  makeInitramfs(initrd, kernel, MODULES, script(options));
  const args = ["-accel", "tcg", "-m", "256", "-display", "none", "-monitor", "none", "-serial", "stdio"];
  args.push("-no-reboot", "-kernel", kernel.image, "-initrd", initrd);
  args.push(
    "-append",
    "console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable mitigations=off random.trust_cpu=on",
  );
  if (options.clock !== undefined) args.push("-rtc", `base=${options.clock}`);
  args.push("-device", "sdhci-pci", "-device", "sd-card,drive=card");
  args.push("-drive", `id=card,if=none,format=raw,file=${image}`);
  const { code, output } = await runQemu(args);
  rmSync(initrd);
  if (code !== 0 || !output.includes("@end") || output.includes("@error")) {
    throw new Error(`${kernel.version}: the guest did not come to its end (status ${code}):\n${output}`);
  }
  return parse(output);
}
