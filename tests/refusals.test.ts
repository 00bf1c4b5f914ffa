// The result of a panic tells which command the card refused first, not only which one was sent last: write protection,
// every error bit of R1, no answer and a damaged one, on each kind of card; in the API, in words, and through the CLI's
// report.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { describeFailure } from "../host/cli/panic-report.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { describeRefusal } from "../host/trace/refusal.js";
import { coreModule, PANIC_LOG } from "./machine.js";

const AREA = { offset: 256 * 1024, kmsgSize: 16384, kmsgCount: 4, abi: "lp64" } as const;
const FIRST_LBA = AREA.offset / 512;
/** Names of R1's error bits, by mmc.md 1.2. */
const BITS: Record<number, string> = {
  31: "OUT_OF_RANGE",
  30: "ADDRESS_ERROR",
  29: "BLOCK_LEN_ERROR",
  26: "WP_VIOLATION",
  21: "CARD_ECC_FAILED",
  20: "CC_ERROR",
  19: "ERROR",
};

function open(options: DeviceOptions = {}): Device {
  return Device.open(coreModule("release"), { sizeBytes: 1 << 20, compress: false, area: AREA, ...options });
}

test("a write-protected group: CMD25 and WP_VIOLATION, whatever was sent last", () => {
  for (const [card, addressing] of [
    ["emmc", "sector"],
    ["emmc", "byte"],
    ["sdsc", undefined],
  ] as const) {
    const device = open({ card, addressing });
    const unit = addressing === "sector" ? 1 : 512;
    // CMD28 on every group of the card, as far as the card has them.
    for (let lba = 0; lba < 2048; lba += 64) device.core.blockCommand(28, lba * unit, 0x1b);
    device.idle(10_000_000);
    const result = device.panicWrite({ text: PANIC_LOG.subarray(0, 4000) });
    assert.is(result.status, -5, card);
    const first = result.firstRefused;
    assert.ok(first !== null && [24, 25].includes(first.command), `${card}: CMD${first?.command}`);
    assert.equal([first?.argumentClass, first?.code, first?.errors], ["address", null, ["WP_VIOLATION"]]);
    assert.ok(first.lba !== null && first.lba >= FIRST_LBA && first.lba < FIRST_LBA + 128, `${first.lba}`);
    assert.is(first.argument, (first.lba ?? 0) * (card === "sdsc" ? 512 : unit));
    assert.match(
      describeRefusal(first, card),
      /^CMD2[45] WRITE_\w+ at sector \d+: WP_VIOLATION \(R1 0x0400\w{4}\)$/,
    );
    assert.match(
      describeFailure(result, card),
      /^EIO at step "[^"]+"; first refused: CMD2[45] WRITE_\w+ at sector \d+: WP_VIOLATION \(R1 0x04\w+\); last: CMD\d+, R1 0x\w+$/,
    );
    // The line is a line, and what is JSON stays JSON.
    assert.equal(JSON.parse(JSON.stringify(first)), first);
  }
});

test("each error bit in the answer to each write command is told as it is", () => {
  for (const card of ["emmc", "sd"] as const) {
    for (const [bit, name] of Object.entries(BITS)) {
      const device = open({ card });
      const command = card === "emmc" ? 25 : 24;
      device.injectFault({ kind: "refused", command, bits: (1 << Number(bit)) >>> 0 });
      const result = device.panicWrite({ text: "short" });
      const first = result.firstRefused;
      assert.ok(first !== null, `${card} ${name}`);
      assert.is(first.command, command, `${card} ${name}`);
      assert.equal(first.errors, [name]);
      assert.ok(result.status < 0, `${card} ${name}`);
    }
  }
});

test("no answer, a damaged one: the errno in place of an R1", () => {
  for (const [kind, code] of [
    ["no-response", "ETIMEDOUT"],
    ["response-crc", "EILSEQ"],
  ] as const) {
    const device = open();
    device.injectFault({ kind, command: 25, times: 1 });
    const result = device.panicWrite({ text: "short" });
    // It is repeated, and stands all the same.
    assert.is(result.status, 0);
    const first = result.firstRefused;
    assert.equal([first?.command, first?.code, first?.r1, first?.errors], [25, code, null, []]);
    assert.match(
      describeRefusal(first as NonNullable<typeof first>, "emmc"),
      new RegExp(`answer \\(${code}\\)$`),
    );
    assert.equal([result.failedCommand, result.r1], [null, 0]);
  }
});

test("what a card in disorder does not answer while it is taken over is no refusal, unless it stays so", () => {
  for (const kind of ["write", "program", "sleep", "deselected"] as const) {
    const device = open();
    device.leaveInFlight(kind, 0);
    const result = device.panicWrite({ text: "short" });
    assert.equal([result.status, result.firstRefused], [0, null], kind);
  }
  const device = open();
  device.injectFault({ kind: "no-response" });
  const result = device.panicWrite({ text: "short" });
  assert.ok(result.status < 0);
  assert.equal([result.firstRefused?.command, result.firstRefused?.code], [13, "ETIMEDOUT"]);
});

test("one panic's refusal is not the next one's", () => {
  const device = open();
  device.injectFault({ kind: "refused", command: 25, bits: 1 << 26, times: 1 });
  assert.is(device.panicWrite({ text: "a" }).firstRefused?.errors[0], "WP_VIOLATION");
  assert.is(device.panicWrite({ text: "b" }).firstRefused, null);
});

test.run();
