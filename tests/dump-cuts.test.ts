// A power cut at every mark of a panic that stores a crash dump × every outcome of the sector in programming × what becomes
// of the cache: host/explore/dumps.ts has the promises.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DUMP_SCENARIOS, exploreDumps } from "../host/explore/dumps.js";
import { coreModule } from "./machine.js";

const sums = { marks: 0, cuts: 0, media: 0, absent: 0, torn: 0, partial: 0, complete: 0 };

for (const scenario of DUMP_SCENARIOS) {
  test(`every cut: ${scenario.name}`, () => {
    const report = exploreDumps(coreModule("explore"), scenario);
    assert.equal(report.failures.slice(0, 5), [], `${report.failures.length} cuts break a promise`);
    assert.is(report.status === 0, scenario.ends === "complete");
    assert.ok(report.absent > 0 && report.torn > 0 && report[scenario.ends] > 0);
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report[name];
  });
}

test("a cut can be repeated by its id", () => {
  const [scenario] = DUMP_SCENARIOS;
  assert.ok(scenario);
  assert.is(exploreDumps(coreModule("explore"), scenario, `${scenario.name}/100#new.lost`).cuts, 1);
});

test.after(() => {
  const { marks, cuts, media, absent, torn, partial, complete } = sums;
  console.log(
    `\n# ${DUMP_SCENARIOS.length} dump scenarios, ${marks} marks, ${cuts} cuts of ${cuts}, ${media} media: ` +
      `the dump absent in ${absent}, torn in ${torn}, partial in ${partial}, complete in ${complete}`,
  );
});
test.run();
