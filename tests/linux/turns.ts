// One area, two writers in turn: our panic path, an unmodified Linux with Oopses of its own, ours, Linux again, until
// every zone is used and beyond. After every turn both must agree on what stands in which zone, how far the counters
// have come, and where the next record goes. Run by `npm run test:linux`.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Reason } from "../../host/device.js";
import { findArea, openImage } from "../../host/node.js";
import type { Abi, ZoneInfo } from "../../host/pstore/decode.js";
import { PANIC_LOG, pattern, ROOT } from "../machine.js";
import { gptPieces } from "../partition-table.js";
import { type Boot, type BootOptions, boot } from "./guest.js";
import { assertShown, type CardArea, decoded, type Panic, panicOn } from "./our-side.js";
import { type Architecture, ensureQemu, fetchKernel, type Kernel } from "./packages.js";

const ZONE_BYTES = 65536;
const CARD_BYTES = 4 << 20;
const DEVICE = "/dev/mmcblk0p2";
const REASONS = ["Unknown", "Panic", "Oops", "Emergency", "Shutdown"];
const folder = mkdtempSync(join(tmpdir(), "mmcpstore-turns-"));
let boots = 0;
let oopses = 0;

/** Everything happens on a day of its own of January 2027. */
const day = (number: number) => `2027-01-${String(number).padStart(2, "0")}`;
const secondOf = (number: number) => BigInt(Date.parse(day(number)) / 1000);

function panic(reason: Reason, onDay: number, text: Uint8Array = PANIC_LOG): Panic {
  return { reason, text, timeSec: secondOf(onDay) };
}

/** A card with a GPT: some data, and an area of eight zones called pstore. */
async function gptCard(name: string, abi: Abi): Promise<CardArea> {
  const bytes = new Uint8Array(CARD_BYTES);
  const table = gptPieces(CARD_BYTES, [
    { name: "data", first: 2048, count: 2048 },
    { name: "pstore", first: 4096, count: (8 * ZONE_BYTES) / 512 },
  ]);
  for (const [offset, piece] of table) bytes.set(piece, offset);
  bytes.set(pattern(5, 2048 * 512), 2048 * 512);
  const path = join(folder, name);
  writeFileSync(path, bytes);
  const image = await openImage(path);
  const { offset, sizeBytes } = await findArea(image, { partition: "pstore" });
  await image.close();
  return { image: path, abi, offset, sizeBytes };
}

/** A zone in a line: what stands there, its count, and the sequence of our seal if it proves the record. */
function told({ state, reason, counter, sealed, sequence }: ZoneInfo): string {
  if (state === "empty") return "empty";
  const record = `${REASONS[reason]} ${counter}${sealed ? `, seal ${sequence}` : ""}`;
  return state === "ok" ? record : `${state} ${record}`;
}

function zonesOf(area: CardArea): string[] {
  return decoded(area).zones.map(told);
}

function ours(area: CardArea, panics: Panic[], policy?: "ring"): number[] {
  return panicOn(area, panics, policy).map(({ zone }) => zone);
}

/**
 * A boot that must show what stands on the card, and then change nothing but the zones `writes`, each of which gets a
 * record by this kernel.
 */
async function linux(kernel: Kernel, area: CardArea, options: BootOptions, writes: number[]): Promise<Boot> {
  const before = readFileSync(area.image);
  const result = await boot(kernel, area.image, { ...options, device: DEVICE, oopses: writes.length });
  boots++;
  oopses += writes.length;
  assertShown(result.files, decoded(area, before));
  const { removed } = result;
  assert.equal(removed, options.remove ?? []);
  const mayChange = new Uint8Array(before.length);
  for (const zone of writes) {
    const from = area.offset + zone * ZONE_BYTES;
    mayChange.fill(1, from, from + ZONE_BYTES);
  }
  for (const name of removed) {
    // Its datalen.
    const from = area.offset + Number(name.split("-").at(-1)) * ZONE_BYTES + 4;
    mayChange.fill(1, from, from + 4);
  }
  const after = readFileSync(area.image);
  const stray = after.findIndex((byte, at) => byte !== before[at] && mayChange[at] === 0);
  assert.is(stray, -1, `${kernel.version} changed byte ${stray}`);
  const { records } = decoded(area);
  for (const [index, zone] of writes.entries()) {
    const record = records.find(({ id }) => id === zone);
    assert.ok(record && !record.sealed && record.state === "ok", `zone ${zone}: no record of the kernel's`);
    assert.is(record.abi, area.abi);
    const text = Buffer.from(record.bytes).toString("latin1");
    assert.ok(text.startsWith(`Oops#${index + 1} Part1\n`), text.slice(0, 80));
    assert.match(text, "BUG: unable to handle page fault for address");
    assert.ok(text.includes(kernel.version), "another kernel's");
    const since = Date.parse(`${options.clock}Z`) / 1000;
    assert.ok(Number(record.timeSec) >= since && Number(record.timeSec) < since + 3600, `${record.timeSec}`);
  }
  return result;
}

for (const [architecture, abi] of [
  ["amd64", "lp64"],
  ["i386", "i386"],
] as [Architecture, Abi][]) {
  test(`${architecture}: ours and Linux's own in turn, until every zone is used and beyond`, async () => {
    ensureQemu();
    const kernel = fetchKernel(architecture);
    const area = await gptCard(`${architecture}.img`, abi);
    const full = Buffer.from(pattern(6, ZONE_BYTES).map((byte) => 32 + (byte & 63)));
    assert.equal(ours(area, [panic("Panic", 1, full), panic("Oops", 1), panic("Emergency", 1)]), [0, 1, 2]);

    await linux(kernel, area, { clock: `${day(2)}T00:00:00` }, [3]);
    // Linux's is the newest by its clock alone: it has no seal.
    assert.equal(ours(area, [panic("Oops", 3), panic("Panic", 3)]), [4, 5]);
    const main = `${ROOT}dist/host/cli/main.js`;
    execFileSync(process.execPath, [main, "rm", area.image, "dmesg-pstore_blk-1", "--partition", "pstore"]);
    assert.equal(zonesOf(area), [
      "Panic 1, seal 1",
      "erased Oops 1",
      "Emergency 0, seal 3",
      "Oops 2",
      "Oops 3, seal 4",
      "Panic 2, seal 5",
      "empty",
      "empty",
    ]);

    // A machine that has lost its clock: Linux goes on behind the newest, but its records seem older than all others.
    const lost = { clock: "2001-01-01T00:00:00", remove: ["dmesg-pstore_blk-3"] };
    await linux(kernel, area, lost, [6, 7]);
    // Around the end, past what is in use, into what we and then what Linux removed.
    assert.equal(ours(area, [panic("Panic", 5), panic("Oops", 5)]), [1, 3]);
    const whenFull = [
      "Panic 1, seal 1",
      "Panic 3, seal 6",
      "Emergency 0, seal 3",
      "Oops 6, seal 7",
      "Oops 3, seal 4",
      "Panic 2, seal 5",
      "Oops 4",
      "Oops 5",
    ];
    assert.equal(zonesOf(area), whenFull);

    // Linux gives up what lies behind the newest, our seal included.
    await linux(kernel, area, { clock: `${day(6)}T00:00:00` }, [4]);
    assert.equal(zonesOf(area), whenFull.with(4, "Oops 7"));
    // Ours gives up the newest, which is Linux's; as a ring it does what Linux does.
    const firstWins = { ...area, image: `${area.image}.first-wins` };
    copyFileSync(area.image, firstWins.image);
    assert.equal(ours(firstWins, [panic("Oops", 7)]), [4]);
    assert.equal(zonesOf(firstWins), whenFull.with(4, "Oops 8, seal 8"));
    assert.equal(ours(area, [panic("Panic", 7), panic("Shutdown", 7)], "ring"), [5, 6]);
    const atLast = whenFull.with(4, "Oops 7").with(5, "Panic 4, seal 8").with(6, "Shutdown 0, seal 9");
    assert.equal(zonesOf(area), atLast);
    await linux(kernel, area, { clock: `${day(8)}T00:00:00` }, [7]);
    assert.equal(zonesOf(area), atLast.with(7, "Oops 8"));
  });
}

test.after(() => {
  rmSync(folder, { recursive: true });
  console.log(`# ${boots} boots of unmodified Debian kernels, ${oopses} Oopses of theirs`);
});
test.run();
