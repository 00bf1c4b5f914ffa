// Which sequences order records: docs/FORMAT.md, "Numbers at their end". Like all of the decoder it shares nothing with
// the core.

/** Two records that follow each other are not further apart. */
const SEQUENCE_STEP_MAX = 2n ** 32n;
/** How often the search goes on above what it had reached. */
const PASSES_MAX = 4;

/** The largest of `sequences` that is continued from; 0 if there is none. */
export function largestSequence(sequences: readonly bigint[]): bigint {
  let most = SEQUENCE_STEP_MAX;
  let largest = 0n;
  for (let pass = 0; pass < PASSES_MAX; pass++) {
    largest = 0n;
    let beyond: bigint | null = null;
    for (const sequence of sequences) {
      if (sequence <= most) largest = sequence > largest ? sequence : largest;
      else if (beyond === null || sequence < beyond) beyond = sequence;
    }
    if (beyond === null || beyond - largest > SEQUENCE_STEP_MAX) break;
    most = largest + SEQUENCE_STEP_MAX;
  }
  return largest;
}
