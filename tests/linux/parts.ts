// A long log in several zones, as an unmodified Linux shows it and as ABRT would put it together, behind records that
// the policy newest gave up and one that only we can salvage; then what Linux writes over it, and ours again. Run by
// `npm run test:linux`.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Abi } from "../../host/pstore/decode.js";
import { joinLogs } from "../../host/pstore/join.js";
import { PANIC_LOG, sameBytes } from "../machine.js";
import { mbrSector } from "../partition-table.js";
import { logText } from "../zones.js";
import { boot, type GuestFile } from "./guest.js";
import { assertShown, type CardArea, decoded, panicOn } from "./our-side.js";
import { type Architecture, ensureQemu, fetchKernel } from "./packages.js";

const ZONE_BYTES = 65536;
const ZONES = 8;
const AREA_OFFSET = 2 << 20;
const DEVICE = "/dev/mmcblk0p2";
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-parts-"));
let boots = 0;

/** A card whose second MBR partition is the area. */
function card(name: string, abi: Abi): CardArea {
  const bytes = new Uint8Array(4 << 20);
  const pstore = { type: 0x83, first: AREA_OFFSET / 512, count: (ZONES * ZONE_BYTES) / 512 };
  bytes.set(mbrSector([{ type: 0x83, first: 2048, count: 2048 }, pstore]));
  const image = join(folder, name);
  writeFileSync(image, bytes);
  return { image, abi, offset: AREA_OFFSET, sizeBytes: ZONES * ZONE_BYTES };
}

/** What ABRT makes of the files: those that begin with its line, the newest part last, without the lines. */
function mergedAsAbrt(files: GuestFile[], panic: number): string {
  const parts: [number, string][] = [];
  for (const { bytes } of files) {
    const [, number, part, text] =
      /^Panic#(\d+) Part(\d+)\n([\s\S]*)$/.exec(Buffer.from(bytes).toString("latin1")) ?? [];
    if (Number(number) === panic) parts.push([Number(part), text ?? ""]);
  }
  return parts
    .sort(([one], [other]) => other - one)
    .map(([, text]) => text)
    .join("");
}

for (const [architecture, abi] of [
  ["amd64", "lp64"],
  ["i386", "i386"],
] as [Architecture, Abi][]) {
  test(`${architecture}: a long log in parts, what Linux shows of it and writes over it, and ours again`, async () => {
    ensureQemu();
    const kernel = fetchKernel(architecture);
    const area = card(`${architecture}.img`, abi);
    const old = [1n, 2n, 3n, 4n, 5n].map((day) => ({
      reason: "Oops" as const,
      text: PANIC_LOG,
      timeSec: 1800000000n + 86400n * day,
    }));
    panicOn(area, old);
    // Zone 1 loses a byte of its signature: Linux sees nothing there, the seal proves the record.
    const damaged = readFileSync(area.image);
    damaged[AREA_OFFSET + ZONE_BYTES] = 0;
    writeFileSync(area.image, damaged);

    // Deflated to about a third, so six parts and more; three zones are free, and two logs stay.
    const body = logText(2_000_000, 3).subarray(0, 700_000);
    const log = Buffer.concat([Buffer.from("Panic#7 Part1\n"), body]);
    const long = { reason: "Panic" as const, text: log, timeSec: 1801000000n, compress: true, parts: ZONES };
    const [result] = panicOn(area, [long], "newest", 2);
    assert.ok(result && result.parts >= 4, `${result?.parts}`);
    const { records, zones } = decoded(area);
    assert.is(records.find(({ id }) => id === 1)?.state, "salvaged");
    assert.is(records.find(({ id }) => id === 4)?.state, "ok");
    assert.equal(
      zones.filter(({ state }) => state === "torn"),
      [],
    );
    const stored = log.subarray(log.length - result.storedBytes + 14);
    const [joined] = joinLogs(records).filter(({ parts }) => parts.length > 1);
    assert.ok(joined && sameBytes(joined.text.subarray(14), stored));

    const before = readFileSync(area.image);
    const shown = await boot(kernel, area.image, { device: DEVICE, oopses: 1, clock: "2027-02-01T00:00:00" });
    boots++;
    const asLinux = { ...decoded(area, before), records: records.filter(({ state }) => state === "ok") };
    assertShown(shown.files, asLinux);
    assert.is(mergedAsAbrt(shown.files, 7), stored.toString("latin1"));

    // Linux goes on behind the highest zone of the newest time, whatever stands there.
    const highest = Math.max(...records.filter(({ part }) => part > 0).map(({ id }) => id));
    const taken = (highest + 1) % ZONES;
    const after = decoded(area);
    const oops = after.records.find(({ id }) => id === taken);
    assert.equal([oops?.reason, oops?.sealed, oops?.state], ["Oops", false, "ok"]);
    const [rest] = joinLogs(after.records).filter(({ parts }) => parts.length > 1);
    const lost = joined.parts.find(({ id }) => id === taken);
    assert.is(rest?.parts.length, joined.parts.length - (lost === undefined ? 0 : 1));
    const missing = (rest?.missing ?? []).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const lostBytes = lost === undefined ? 0 : lost.size - lost.lineBytes;
    assert.is(missing, result.droppedBytes + lostBytes);
    assert.is(rest?.hasNewest, lost?.part !== 1);

    // Every zone is taken but the damaged one, which goes before any record; then the ring goes on as Linux's.
    const next = [
      { reason: "Panic" as const, text: PANIC_LOG, timeSec: 1802000000n },
      { reason: "Panic" as const, text: PANIC_LOG, timeSec: 1802000001n },
    ];
    assert.equal(
      panicOn(area, next, "ring").map(({ zone, count }) => [zone, count]),
      [
        [1, 2],
        [2, 3],
      ],
    );
    const last = await boot(kernel, area.image, { device: DEVICE });
    boots++;
    assert.is(last.files.length, ZONES);
    assertShown(last.files, decoded(area));
  });
}

test.after(() => {
  rmSync(folder, { recursive: true });
  console.log(`# ${boots} boots of unmodified Debian kernels`);
});
test.run();
