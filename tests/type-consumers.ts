// Programs of users in TypeScript, as small as they can be, and the ways in which users compile them.

export interface TypeConsumer {
  name: string;
  /** A tsconfig.json. */
  config: object;
  source: string;
}

/** Of Node. Each `@ts-expect-error` is an error in itself where the types have become `any`. */
export const CONSUMER = `
import { type DecodedCsd, Device, decodeArea, type ExternalMedium, MmcError } from "mmcpstore";
import { type CoreTarget, type Image, loadCore, openImage } from "mmcpstore/node";

const target: CoreTarget = "release";
const module = loadCore(target);
// @ts-expect-error a module is no number
export const core: number = module;
// @ts-expect-error there is no such target
loadCore("debug");
export const device = Device.open(module, { card: "emmc", sizeBytes: 1 << 20 });
// @ts-expect-error a string is no module
Device.open("release", { sizeBytes: 1 << 20 });
export const lengthBytes: number = device.memory.buffer.byteLength;
// @ts-expect-error a memory is not its length
export const memory: number = device.memory;
export const medium: ExternalMedium = { sizeBytes: 512, read: () => undefined, write: () => undefined };
export const names: string[] = decodeArea(device.medium()).records.map(({ name }) => name);
// @ts-expect-error a name is no number
export const numbers: number[] = decodeArea(device.medium()).records.map(({ name }) => name);
export const open: (location: string) => Promise<Image> = openImage;
export const isOurs = (error: unknown): boolean => error instanceof MmcError && error.code === "EIO";
export type Csd = DecodedCsd;
`;

/** Of a page, which brings its own module. */
const PAGE = `
import { Device } from "mmcpstore";

export async function main(url: string): Promise<Device> {
  const module = await WebAssembly.compileStreaming(fetch(url));
  // @ts-expect-error there is no such card
  Device.open(module, { card: "mmc", sizeBytes: 1 << 20 });
  return Device.open(module, { card: "sd", sizeBytes: 1 << 20 });
}
`;

/** Every way that is tried; skipLibCheck is off, and once on, where a type that is not known would be \`any\`. */
export function consumers(): TypeConsumer[] {
  const found: TypeConsumer[] = [];
  const add = (resolution: string, lib: string[], types: string[], source: string, skipLibCheck: boolean) => {
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      module: resolution === "nodenext" ? "nodenext" : "esnext",
      moduleResolution: resolution,
      target: "es2022",
      lib,
      types,
      skipLibCheck,
      noEmit: true,
    };
    const name = [resolution, lib.join(), ...types, ...(skipLibCheck ? ["skipLibCheck"] : [])].join(" ");
    found.push({ name, config: { compilerOptions, files: ["consumer.ts"] }, source });
  };
  for (const resolution of ["nodenext", "bundler"]) {
    add(resolution, ["es2023"], [], CONSUMER, false);
    add(resolution, ["es2023"], [], CONSUMER, true);
    add(resolution, ["es2023"], ["node"], CONSUMER, false);
    add(resolution, ["es2023", "dom"], ["node"], CONSUMER, false);
    add(resolution, ["es2023", "dom"], [], PAGE, false);
    add(resolution, ["es2023", "webworker"], [], PAGE, false);
  }
  return found;
}
