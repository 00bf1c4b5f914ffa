// What becomes of the volatile write cache when the power goes: which of its sectors are kept, as a mask of 64 bits,
// one for each that a cache can have. Nothing of Node.
import { CACHE_SECTORS_MAX } from "../../assembly/layout.js";
import { MmcError } from "../errors.js";
import type { CoreExports } from "./instantiate.js";

/**
 * All sectors lost, all kept, or those kept whose numbers are given, the oldest in the cache being 0: as an array or a
 * set of numbers from 0 to 63, or as a mask (a bigint, or a number up to 2^53 - 1) whose bit i keeps sector i.
 */
export type CacheOutcome = "lost" | "kept" | number | bigint | readonly number[] | ReadonlySet<number>;

const ALL = 2n ** BigInt(CACHE_SECTORS_MAX) - 1n;

function refuse(cache: unknown): never {
  const shown = typeof cache === "string" ? JSON.stringify(cache.slice(0, 40)) : typeof cache;
  throw new MmcError(
    "EINVAL",
    `cache: ${typeof cache === "number" || typeof cache === "bigint" ? cache : shown} is not lost, kept, ` +
      `a mask of ${CACHE_SECTORS_MAX} bits, or sectors from 0 to ${CACHE_SECTORS_MAX - 1}`,
  );
}

/** @throws MmcError EINVAL neither a word nor a mask nor numbers of sectors that a cache can have */
export function cacheMaskOf(cache: CacheOutcome): bigint {
  if (cache === "lost") return 0n;
  if (cache === "kept") return ALL;
  if (typeof cache === "bigint") return cache >= 0n && cache <= ALL ? cache : refuse(cache);
  if (typeof cache === "number") {
    return Number.isSafeInteger(cache) && cache >= 0 ? BigInt(cache) : refuse(cache);
  }
  if (!Array.isArray(cache) && !(cache instanceof Set)) refuse(cache);
  let mask = 0n;
  for (const index of cache as Iterable<unknown>) {
    if (!Number.isInteger(index) || (index as number) < 0 || (index as number) >= CACHE_SECTORS_MAX) {
      refuse(typeof index === "number" ? index : cache);
    }
    mask |= 1n << BigInt(index as number);
  }
  return mask;
}

/** `outcome`: CUT_* of assembly/layout.ts; `cacheMask`: as {@link cacheMaskOf} has it. */
export function cutPower(core: CoreExports, outcome: number, cacheMask: bigint): void {
  core.machineCut(outcome, Number(cacheMask & 0xffffffffn), Number(cacheMask >> 32n));
}
