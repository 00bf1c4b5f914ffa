// An initramfs for a shell on the serial console: a static busybox, and the kernel modules that a test may want, with
// the modules.dep that busybox' modprobe goes by.
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { archive } from "../linux/initramfs.js";
import { fetchPackage, type Kernel } from "../linux/packages.js";

/** Names as in file names; what they depend on comes along. */
const MODULES = [
  "sdhci-pci",
  "mmc_block",
  "ext4",
  "crc32c_generic",
  "vfat",
  "nls_ascii",
  "nls_cp437",
  "ramoops",
  "pstore_blk",
  "pvpanic-pci",
  "ata_piix",
  "sd_mod",
];

/** mke2fs and e2fsck, which busybox has not for ext4, with the libraries that they need: file by package. */
const E2FSPROGS: [string, RegExp][] = [
  ["e2fsprogs", /^sbin\/(mke2fs|e2fsck)$/],
  ["libext2fs2", /^lib\/.*\/lib(ext2fs|e2p)\.so\.2$/],
  ["libcom-err2", /^lib\/.*\/libcom_err\.so\.2$/],
  ["libblkid1", /^(usr\/)?lib\/.*\/libblkid\.so\.1$/],
  ["libuuid1", /^(usr\/)?lib\/.*\/libuuid\.so\.1$/],
  ["libc6", /^lib\/.*\/(libc\.so\.6|ld-linux\.so\.2)$/],
];

const INIT = `#!/bin/busybox sh
export PATH=/sbin:/bin PS1= PS2= LD_LIBRARY_PATH=/lib
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b --install -s /bin
stty -F /dev/ttyS0 -echo -opost
dmesg -n 1
echo @shell
exec setsid sh -c 'exec sh </dev/ttyS0 >/dev/ttyS0 2>&1'
`;

/** What a module needs, as its own .modinfo says: names without a folder. */
function dependsOf(path: string): string[] {
  const depends = /\0depends=([^\0]*)\0/.exec(readFileSync(path, "latin1"))?.[1] ?? "";
  return depends.split(",").filter((name) => name !== "");
}

/** The archive, not compressed: a guest unpacks that faster. `work`: a folder of its own, gone afterwards. */
export function makeInitrd(kernel: Kernel, work: string): Uint8Array {
  const paths = new Map<string, string>();
  for (const name of readdirSync(kernel.modules, { recursive: true, encoding: "utf8" })) {
    const module = /([^/]+)\.ko$/.exec(name)?.[1];
    if (module !== undefined) paths.set(module.replaceAll("-", "_"), name);
  }
  const wanted = new Map<string, string[]>();
  const want = (name: string): string => {
    const path = paths.get(name.replaceAll("-", "_"));
    if (path === undefined) throw new Error(`${kernel.version}: has no module ${name}`);
    if (!wanted.has(path)) {
      wanted.set(path, []);
      wanted.set(path, dependsOf(join(kernel.modules, path)).map(want));
    }
    return path;
  };
  for (const name of MODULES) want(name);
  /** In the order of loading: what a module needs before the module. */
  const needs = (path: string): string[] =>
    (wanted.get(path) ?? []).flatMap((needed) => [...needs(needed), needed]);

  rmSync(work, { recursive: true, force: true });
  for (const folder of ["bin", "sbin", "dev", "etc", "mnt", "proc", "sys", "tmp"]) {
    mkdirSync(join(work, folder), { recursive: true });
  }
  copyFileSync(kernel.busybox, join(work, "bin/busybox"));
  chmodSync(join(work, "bin/busybox"), 0o755);
  writeFileSync(join(work, "init"), INIT, { mode: 0o755 });
  const modprobe = '#!/bin/busybox sh\nexec /bin/busybox modprobe "$@"\n';
  writeFileSync(join(work, "sbin/modprobe"), modprobe, { mode: 0o755 });
  const root = join(work, "lib/modules", kernel.version);
  mkdirSync(root, { recursive: true });
  for (const [name, wantedFiles] of E2FSPROGS) {
    const folder = fetchPackage(name, "i386");
    const found = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((path) =>
      wantedFiles.test(path),
    );
    if (found.length === 0) throw new Error(`${name}: has no ${wantedFiles}`);
    for (const path of found) {
      const to = join(work, path.startsWith("sbin/") ? path : join("lib", basename(path)));
      copyFileSync(join(folder, path), to);
      chmodSync(to, 0o755);
    }
  }
  for (const path of wanted.keys()) {
    mkdirSync(join(root, "kernel", dirname(path)), { recursive: true });
    copyFileSync(join(kernel.modules, path), join(root, "kernel", path));
  }
  // busybox loads from the end of a line to its beginning.
  const lines = [...wanted.keys()].map((path) => {
    const needed = [...new Set(needs(path))].reverse().map((one) => `kernel/${one}`);
    return `kernel/${path}: ${needed.join(" ")}\n`;
  });
  writeFileSync(join(root, "modules.dep"), lines.join(""));
  const initrd = archive(work);
  rmSync(work, { recursive: true });
  return initrd;
}
