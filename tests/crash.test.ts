// A power cut at every mark of a panic write × every outcome of the sector in programming × what becomes of the
// cache. Prints how many cuts were made and how many different media they left; none is skipped.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { explore } from "../host/explore/explore.js";
import { SCENARIOS } from "../host/explore/scenario.js";
import { coreModule } from "./machine.js";

let cuts = 0;
let marks = 0;
let media = 0;

for (const scenario of SCENARIOS) {
  test(scenario.name, () => {
    const report = explore(coreModule("explore"), scenario);
    assert.equal(report.failures.slice(0, 5), [], `${report.failures.length} cuts break a promise`);
    assert.is(report.status, 0);
    assert.ok(report.whole > 0, "the record is whole at the end");
    assert.ok(report.absent > 0, "the record is absent at the start");
    cuts += report.cuts;
    marks += report.marks;
    media += report.media;
  });
}

test("a cut can be repeated by its id", () => {
  const [scenario] = SCENARIOS;
  assert.ok(scenario);
  const report = explore(coreModule("explore"), scenario, `${scenario.name}/100#new.lost`);
  assert.is(report.cuts, 1);
});

test.after(() => {
  console.log(
    `# ${SCENARIOS.length} scenarios, ${marks} marks, ${cuts} cuts of ${cuts}, ${media} different media`,
  );
});
test.run();
