// A sample of the long run (`npm run fuzz:decode`), areas made up by fast-check, and proof that the checks can fail.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { decodeArea } from "../host/pstore/decode.js";
import { checkDecoded, emptyCounts, fuzz, fuzzSources } from "./decode-fuzz.js";
import { buildArea, buildZone, logText } from "./zones.js";

const SAMPLE = 14_000;

test("mutated areas, sealed ones of ours and those of real kernels", () => {
  const counts = emptyCounts();
  const sources = fuzzSources();
  const before = sources.map(({ area }) => Buffer.from(area).toString("latin1"));
  fuzz(sources, 0, SAMPLE, counts);
  assert.is(counts.images, SAMPLE);
  // Every state is met, so none of the promises is empty.
  for (const count of Object.values(counts)) assert.ok(count > 10, JSON.stringify(counts));
  assert.equal(
    sources.map(({ area }) => Buffer.from(area).toString("latin1")),
    before,
  );
  console.log(`# mutated areas: ${JSON.stringify(counts)}`);
});

test("areas that fast-check makes up of zones, seals and noise", () => {
  const counts = emptyCounts();
  const zone = fc
    .record({
      abi: fc.constantFrom("lp64" as const, "i386" as const),
      text: fc.integer({ min: 0, max: 380 }),
      raw: fc.uint8Array({ maxLength: 380 }),
      isRaw: fc.boolean(),
      reason: fc.integer({ min: 0, max: 6 }),
      counter: fc.integer({ min: 0, max: 0xffffffff }),
      timeSec: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      compressed: fc.boolean(),
      sequence: fc.option(fc.bigInt({ min: 0n, max: 9n }), { nil: undefined }),
      part: fc.integer({ min: 0, max: 4 }),
      olderBytes: fc.integer({ min: 0, max: 800 }),
      first: fc.bigInt({ min: 0n, max: 9n }),
      lineBytes: fc.integer({ min: 0, max: 60 }),
    })
    .map(({ text, raw, isRaw, sequence, ...spec }) => {
      const payload = isRaw ? raw : logText(text);
      return buildZone(512, sequence === undefined ? { ...spec, payload } : { ...spec, payload, sequence });
    });
  const piece = fc.oneof(zone, fc.uint8Array({ minLength: 512, maxLength: 512 }), fc.constant(null));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), fc.boolean(), (zones, isGiven) => {
      const area = buildArea(zones, 512);
      checkDecoded(area, decodeArea(area, isGiven ? { kmsgSize: 512, pmsgSize: 0 } : {}), counts);
      counts.images++;
    }),
    { numRuns: 3000, seed: 5 },
  );
  console.log(`# areas made up: ${JSON.stringify(counts)}`);
});

test("the checks can fail: a record that was never written is told", () => {
  const sources = fuzzSources();
  const [first] = sources;
  assert.ok(first?.sealed);
  first.sealed.clear();
  assert.throws(() => fuzz(sources, 0, 7, emptyCounts()), /is ok and was never written/);
});

test.run();
