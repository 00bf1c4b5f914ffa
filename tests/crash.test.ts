// A power cut at every mark of a panic write × every outcome of the sector in programming × what becomes of the
// cache. Prints how many cuts were made and how many different media they left; none is skipped.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Damage } from "../host/core/profile.js";
import type { Device } from "../host/device.js";
import { type Exploration, explore } from "../host/explore/explore.js";
import { SCENARIOS, type Scenario } from "../host/explore/scenario.js";
import { LEFT_MODES } from "./left-modes.js";
import { coreModule } from "./machine.js";

/** `name` as it stands, left in a mode of left-modes.ts; `leave`: what else happened to the controller. */
function leftIn(mode: string, name: string, leave?: (device: Device) => void): Scenario {
  const left = LEFT_MODES[mode];
  const found = SCENARIOS.find((candidate) => candidate.name === name);
  assert.ok(left && found, `${mode}, ${name}`);
  return {
    ...found,
    name: `${name}-${mode.toLowerCase()}${leave ? "-host-reset" : ""}`,
    options: { ...left.options, dma: found.options.dma },
    bring(device) {
      left.bring(device);
      leave?.(device);
    },
  };
}

const LEFT_SCENARIOS = [
  leftIn("SDR104", "sd-write-in-flight"),
  leftIn("DDR50", "sd-pio-full"),
  // The card at 1.8 V, the host at 3.3 V: the panic itself takes the supply away and gives it back.
  leftIn("SDR50", "sd-dma-fresh-zone", (device) => device.core.mmioWrite8(0x2f, 1)),
  leftIn("HS200", "emmc-program-in-flight"),
  leftIn("HS400", "emmc-write-in-flight"),
];
const ALL_SCENARIOS = [...SCENARIOS, ...LEFT_SCENARIOS];

let cuts = 0;
let marks = 0;
let media = 0;
let lies = 0;
let unsealed = 0;
let renumbered = 0;

for (const scenario of ALL_SCENARIOS) {
  test(scenario.name, () => {
    const report = explore(coreModule("explore"), scenario);
    assert.equal(report.failures.slice(0, 5), [], `${report.failures.length} cuts break a promise`);
    assert.is(report.status, 0);
    assert.ok(report.whole > 0, "the record is whole at the end");
    assert.ok(report.absent > 0, "the record is absent at the start");
    cuts += report.cuts;
    marks += report.marks;
    media += report.media;
    lies += report.lies.length;
    unsealed += report.unsealed;
    renumbered += report.renumbered;
    // What a card loses after it said done is shown as its lie, and no honest card has one.
    assert.is(report.lies.length > 0, scenario.lies === true, "lies");
    if (scenario.lies !== true) assert.is(report.unsealed, 0);
  });
}

/** The scenario as it stands, on a card that damages otherwise. */
function damaged(name: string, damage: Damage): Exploration {
  const found = SCENARIOS.find((candidate) => candidate.name === name);
  assert.ok(found);
  return explore(coreModule("explore"), { ...found, options: { ...found.options, damage } });
}

test("neighbours: zones smaller than the allocation unit can lose an older record", () => {
  // Zones of 16 sectors, four to a unit. A reach of half a zone costs the seal of the zone before, a whole one its text.
  const half = damaged("sd-neighbours-zone-is-unit", { neighbourSectors: 8, unitSectors: 64 });
  assert.ok(half.failures.some((failure) => failure.endsWith("dmesg-pstore_blk-2 is served without a seal")));
  const shared = damaged("sd-neighbours-zone-is-unit", { neighbourSectors: 16, unitSectors: 64 });
  const older = shared.failures.filter((failure) => /the older record in zone \d is lost/.test(failure));
  assert.ok(older.length > 0, shared.failures[0]);
  // The same reach in zones that are units of their own.
  assert.equal(damaged("sd-neighbours-zone-is-unit", { neighbourSectors: 14, unitSectors: 16 }).failures, []);
  // From 15 on a torn header and its own seal go together, and what is left is served on trust; never an older record.
  const whole = damaged("sd-neighbours-zone-is-unit", { neighbourSectors: 15, unitSectors: 16 }).failures;
  assert.ok(whole.length > 0);
  assert.ok(whole.every((failure) => failure.endsWith(": dmesg-pstore_blk-3 is served without a seal")));
  // Without bounds it is the reach that counts: it must not be longer than what lies between two zones' bytes.
  const open = damaged("sd-neighbours-zone-is-unit", { neighbourSectors: 8, unitSectors: 0 });
  assert.ok(open.failures.length > 0);
  const none = damaged("sd-neighbours-zone-is-unit", { neighbourSectors: 0, unitSectors: 64 });
  assert.equal(none.failures, []);
  console.log(`# ${shared.failures.length} of ${shared.cuts} cuts lose something if four zones share a unit`);
});

test("neighbours: a reliable write takes nothing with it, wherever the zones are", () => {
  const report = damaged("emmc-dma-full-first-wins", { neighbourSectors: 64, unitSectors: 0 });
  assert.equal(report.failures, []);
});

test("the same cuts, seed by seed", () => {
  for (const seed of [1, 2, 0xdeadbeef]) {
    const report = damaged("sd-pio-cmd12-full-ring", { seed });
    assert.equal(report.failures, [], `seed ${seed}`);
    cuts += report.cuts;
    marks += report.marks;
    media += report.media;
  }
});

test("a cut can be repeated by its id", () => {
  const [scenario] = SCENARIOS;
  assert.ok(scenario);
  const report = explore(coreModule("explore"), scenario, `${scenario.name}/100#new.lost`);
  assert.is(report.cuts, 1);
});

test.after(() => {
  console.log(
    `# ${lies} cuts show a lying card's loss, ${unsealed} leave its record without a seal, ${renumbered} cost a number`,
  );
  console.log(
    `# ${ALL_SCENARIOS.length} scenarios, ${marks} marks, ${cuts} cuts of ${cuts}, ${media} different media`,
  );
});
test.run();
