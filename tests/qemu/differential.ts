// Random legal register scripts on QEMU's controller and card and on ours: whatever a driver sees must be the same, but
// for the deviations that docs/QEMU.md names. The seed is fixed; MMCPSTORE_QEMU_RUNS and MMCPSTORE_QEMU_SEED give more.
// Run by `npm run test:qemu`.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ensureQemu } from "../linux/packages.js";
import { ROOT } from "../machine.js";
import { DEVIATIONS } from "./deviations.js";
import { qemuVersion } from "./qtest.js";
import { Script, STEPS, type Step } from "./script.js";
import { makeImage } from "./sdhci-pci.js";
import { Session } from "./session.js";
import { OurSide, QemuSide } from "./sides.js";

const RUNS = Number(process.env.MMCPSTORE_QEMU_RUNS ?? 40);
const SEED = Number(process.env.MMCPSTORE_QEMU_SEED ?? 20240117);

const SDSC_BYTES = 64 << 20;

ensureQemu();
const version = qemuVersion();
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-differential-"));

for (const [kind, sizeBytes] of [
  ["SDSC", SDSC_BYTES],
  ["SDHC", 4 * 2 ** 30],
] as const) {
  test(`${kind}: ${RUNS} scripts`, () => {
    fc.assert(
      fc.property(fc.array(STEPS, { minLength: 1, maxLength: 40, size: "max" }), (steps: Step[]) => {
        const script = new Script(join(folder, "card.img"), sizeBytes);
        try {
          script.run(steps);
        } finally {
          script.close();
        }
      }),
      { numRuns: RUNS, seed: SEED, includeErrorInReport: true },
    );
  });
}

let gone = 0;
for (const deviation of DEVIATIONS) {
  test(`deviation: ${deviation.name}`, () => {
    const image = join(folder, "card.img");
    makeImage(image, SDSC_BYTES);
    const card = { sectors: SDSC_BYTES / 512 };
    const [qemu, ours] = [new QemuSide(image), new OurSide(card.sectors)].map((side) => {
      try {
        const session = new Session(side, 512);
        session.identify();
        return deviation.show(session, card);
      } finally {
        side.close();
      }
    });
    assert.is(ours, deviation.ours, "ours");
    if (version.startsWith("7.2.")) assert.is(qemu, deviation.qemu, "QEMU");
    else if (qemu === deviation.ours) gone++;
  });
}

test("docs/QEMU.md names every deviation, and no other", () => {
  const page = readFileSync(`${ROOT}docs/QEMU.md`, "utf8");
  const named = [...page.matchAll(/^\| \*\*(.+?)\*\* \|/gm)].map((match) => match[1]);
  assert.equal(
    named,
    DEVIATIONS.map(({ name }) => name),
  );
});

test.after(() => {
  console.log(`# ${Script.steps} steps on both sides, ${Script.compared} registers compared`);
  if (gone > 0) console.log(`# QEMU ${version}: ${gone} of 7.2's deviations are gone`);
  rmSync(folder, { recursive: true });
});
test.run();
