// `npm run fuzz:decode [images] [first]`: so many mutated areas through decode.ts, a line of counts at the end. Not part of
// `npm test`, which takes a sample of the same (decode-fuzz.test.ts). A failure names the image's number: `first` repeats it.
import { emptyCounts, fuzz, fuzzSources } from "./decode-fuzz.js";

const [images = 1_000_000, first = 0] = process.argv.slice(2).map(Number);
if (!Number.isSafeInteger(images) || !Number.isSafeInteger(first) || images < 1 || first < 0) {
  console.error("usage: npm run fuzz:decode [images] [first]");
  process.exit(2);
}
const sources = fuzzSources();
const counts = emptyCounts();
const startMs = performance.now();
const STEP = 10_000;
for (let at = first; at < first + images; at += STEP) {
  fuzz(sources, at, Math.min(STEP, first + images - at), counts);
  if (counts.images % 100_000 === 0) console.error(`${counts.images} images`);
}
const seconds = Math.round((performance.now() - startMs) / 1000);
const { maxRSS } = process.resourceUsage();
console.log(`${JSON.stringify(counts)} in ${seconds} s, at most ${Math.round(maxRSS / 1024)} MiB resident`);
