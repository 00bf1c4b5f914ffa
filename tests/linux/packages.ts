// The kernels and tools that the Linux tests need, from Debian's archive into .cache/linux (not committed): packages are
// downloaded and unpacked, never installed, with package lists of our own so that both architectures can be had on any
// Debian machine. Only QEMU itself is installed, if it is missing. Everything that fails, fails loudly.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../machine.js";

/** Everything that was downloaded; ignored by git, safe to delete. */
export const CACHE = `${ROOT}.cache/linux`;

/** Debian's names: amd64 has the 40-byte kmsg header, i386 the 28-byte one. */
export type Architecture = "amd64" | "i386";

const UPDATES_MAX = 3;

const IMAGES: Record<Architecture, string> = { amd64: "linux-image-amd64", i386: "linux-image-686" };

function run(command: string, args: string[], cwd = ROOT): string {
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** apt with lists of its own, which know both architectures. */
function apt(tool: string, args: string[], cwd = CACHE): string {
  const options = [
    "APT::Architecture=amd64",
    "APT::Architectures::=amd64",
    "APT::Architectures::=i386",
    `Dir::State::Lists=${CACHE}/lists`,
    `Dir::Cache=${CACHE}/apt`,
    "APT::Sandbox::User=root",
  ];
  return run(tool, [...options.flatMap((option) => ["-o", option]), ...args], cwd);
}

function hasCommand(name: string): boolean {
  return (process.env.PATH ?? "").split(":").some((folder) => existsSync(join(folder, name)));
}

/** QEMU from the system, installed by apt-get if it is not there. */
export function ensureQemu(): void {
  if (hasCommand("qemu-system-x86_64")) return;
  const sudo = process.getuid?.() === 0 ? [] : ["sudo"];
  const install = [
    "apt-get",
    "install",
    "-y",
    "-qq",
    "--no-install-recommends",
    "qemu-system-x86",
    "seabios",
  ];
  for (const args of [["apt-get", "update", "-qq"], install]) {
    const [command = "", ...rest] = [...sudo, ...args];
    run(command, rest);
  }
}

function ensureLists(): void {
  mkdirSync(`${CACHE}/lists/partial`, { recursive: true });
  mkdirSync(`${CACHE}/apt/archives/partial`, { recursive: true });
  if (hasLists()) return;
  for (let attempt = 1; ; attempt++) {
    try {
      apt("apt-get", ["update", "-qq", "-o", "Acquire::Retries=3"]);
      return;
    } catch (error) {
      if (attempt < UPDATES_MAX) continue;
      // One list of a mirror in the middle of its own update need not be the one we want: a package that then is not
      // found says so itself.
      if (!hasLists()) throw error;
      return;
    }
  }
}

function hasLists(): boolean {
  return readdirSync(`${CACHE}/lists`).some((name) => name.includes("Packages"));
}

/** Unpacks a package; the folder appears whole or not at all. */
function unpack(name: string, architecture: Architecture): string {
  const folder = `${CACHE}/${name}_${architecture}`;
  if (existsSync(folder)) return folder;
  ensureLists();
  const work = `${folder}.part`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work);
  apt("apt-get", ["download", "-qq", "-o", "Acquire::Retries=3", `${name}:${architecture}`], work);
  const [file] = readdirSync(work).filter((candidate) => candidate.endsWith(".deb"));
  if (file === undefined) throw new Error(`${name}:${architecture}: apt-get download left no package`);
  run("dpkg-deb", ["-x", join(work, file), join(work, "root")]);
  renameSync(join(work, "root"), folder);
  rmSync(work, { recursive: true });
  return folder;
}

export interface Kernel {
  version: string;
  /** bzImage. */
  image: string;
  /** lib/modules/VERSION/kernel */
  modules: string;
  /** A static busybox of the same architecture. */
  busybox: string;
}

/** The newest kernel of Debian's for this architecture, unmodified. */
export function fetchKernel(architecture: Architecture): Kernel {
  mkdirSync(CACHE, { recursive: true });
  ensureLists();
  const depends = apt("apt-cache", ["depends", `${IMAGES[architecture]}:${architecture}`]);
  const name = /Depends: (linux-image-[^\s:]+)/.exec(depends)?.[1];
  if (name === undefined)
    throw new Error(`${IMAGES[architecture]}:${architecture} names no kernel: ${depends}`);
  const root = unpack(name, architecture);
  const version = name.replace("linux-image-", "");
  return {
    version,
    image: `${root}/boot/vmlinuz-${version}`,
    modules: `${root}/lib/modules/${version}/kernel`,
    busybox: `${unpack("busybox-static", architecture)}/bin/busybox`,
  };
}

/** The folder with what a package unpacks to, with its scripts not run. */
export function fetchPackage(name: string, architecture: Architecture): string {
  mkdirSync(CACHE, { recursive: true });
  return unpack(name, architecture);
}
