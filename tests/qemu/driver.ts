// Our driver and panic path on a controller and a card that are not ours: the `driver` target's five calls lead
// to QEMU's sdhci-pci and sd-card. Run by `npm run test:qemu`, which fails where it cannot run.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { BOUNCE_BASE, REGISTER_BLOCK, TEXT_BASE } from "../../assembly/layout.js";
import { type CoreExports, instantiate, makeMemory } from "../../host/core/instantiate.js";
import { type MachineConfig, TYPICAL_SD, writeConfig } from "../../host/core/profile.js";
import { readResult } from "../../host/core/result.js";
import { decodeArea, type PstoreRecord } from "../../host/pstore/decode.js";
import { decodeCid } from "../../host/registers/cid.js";
import { decodeCsd } from "../../host/registers/csd.js";
import { decodeScr } from "../../host/registers/scr.js";
import { decodeSsr } from "../../host/registers/ssr.js";
import { ensureQemu } from "../linux/packages.js";
import { coreModule, PANIC_LOG, pattern, sameBytes, textOf } from "../machine.js";
import { DriverMemory } from "./driver-memory.js";
import { LEFT_OPEN } from "./left-open.js";
import { hasDevice, qemuVersion } from "./qtest.js";
import { makeImage, type QemuOptions, QemuSdhci } from "./sdhci-pci.js";

const MIB = 1 << 20;
/** Larger cards count sectors in their addresses. */
const SDSC_BYTES_MAX = 2048 * MIB;
const ZONE_BYTES = 64 * 1024;
const ZONES = 4;
const AREA_OFFSET = 1 * MIB;
const AREA_BYTES = ZONES * ZONE_BYTES;
/** Sectors that no test may change, on both sides of the area. */
const USER_DATA = pattern(11, 64 * 512);
const USER_OFFSETS = [AREA_OFFSET - USER_DATA.length, AREA_OFFSET + AREA_BYTES];
/** Where requests are left in the middle: eight sectors. */
const IN_FLIGHT_LBA = 64;

ensureQemu();
/** As assembly/driver/inflight.ts numbers them, from 1 on. */
const IN_FLIGHT_NAMES = ["read", "write", "program", "erase", "sleep", "suspended", "claimed", "deselected"];

const folder = mkdtempSync(join(tmpdir(), "mmcpstore-qemu-"));
let machines = 0;
let requests = 0;

function configOf(changes: Partial<MachineConfig>): MachineConfig {
  return {
    card: "sd",
    sectors: 2048,
    bootSectors: 0,
    cacheSectors: 0,
    reliableWrite: false,
    cmd23: true,
    hpi: false,
    serial: 1,
    timing: TYPICAL_SD,
    abortOutcome: "old",
    cacheKeptAtReset: false,
    dma: false,
    busWidth: 4,
    highSpeed: true,
    areaFirstLba: AREA_OFFSET / 512,
    zoneSectors: ZONE_BYTES / 512,
    zoneCount: ZONES,
    abi: "lp64",
    policy: "first-wins",
    deadlineUs: 10_000_000,
    trace: false,
    ...changes,
  };
}

interface Rig {
  qemu: QemuSdhci;
  core: CoreExports;
  memory: WebAssembly.Memory;
  records(): PstoreRecord[];
}

interface RigOptions extends Partial<Omit<QemuOptions, "image">> {
  sizeBytes?: number;
  config?: Partial<MachineConfig>;
}

function withRig(options: RigOptions, use: (rig: Rig) => void): void {
  const { sizeBytes = 64 * MIB, config = {}, ...properties } = options;
  const image = join(folder, `${machines++}.img`);
  makeImage(image, sizeBytes);
  const qemu = new QemuSdhci({ image, ...properties });
  try {
    const memory = makeMemory(0);
    const port = config.dma ? new DriverMemory(qemu, memory).port : qemu.port;
    const core = instantiate(coreModule("driver"), memory, { port });
    writeConfig(memory, configOf(config));
    core.machineInit();
    new Uint8Array(memory.buffer).set(PANIC_LOG, TEXT_BASE);
    for (const offset of USER_OFFSETS)
      if (offset + USER_DATA.length <= sizeBytes) qemu.preset(offset, USER_DATA);
    const geometry = {
      kmsgSize: ZONE_BYTES,
      pmsgSize: 0,
      consoleSize: 0,
      ftraceSize: 0,
      abi: "lp64" as const,
    };
    use({
      qemu,
      core,
      memory,
      records: () => decodeArea(qemu.stored(AREA_OFFSET, AREA_BYTES), geometry).records,
    });
    requests += qemu.qtest.requests;
  } finally {
    qemu.close();
    rmSync(image);
  }
}

function bounce(memory: WebAssembly.Memory, bytes?: Uint8Array): Uint8Array {
  const view = new Uint8Array(memory.buffer, BOUNCE_BASE, bytes?.length ?? 128 * 512);
  if (bytes) view.set(bytes);
  return view;
}

for (const [sizeBytes, kind] of [
  [1 * MIB, "SDSC"],
  [8 * MIB, "SDSC"],
  [64 * MIB, "SDSC"],
  [1024 * MIB, "SDSC"],
  [2048 * MIB, "SDSC"],
  [4096 * MIB, "SDHC"],
  [32768 * MIB, "SDHC"],
] as const) {
  test(`identification: ${kind} of ${sizeBytes / MIB} MiB, its first and last sectors`, () => {
    withRig({ sizeBytes }, ({ qemu, core, memory }) => {
      assert.is(core.openCard(), 0);
      assert.is(core.readCardRegister(9, 16, 0), 0);
      const csd = decodeCsd(new Uint8Array(memory.buffer, REGISTER_BLOCK, 16).slice(), "sd");
      assert.is(csd.capacityBytes, sizeBytes);
      // 52 / 2 MHz: the fastest of this controller's clocks that a card at high speed can follow.
      assert.is(qemu.read(0x2c, 2), 0x0107);
      const last = sizeBytes / 512 - 1;
      for (const lba of [0, 1, last]) {
        const bytes = pattern(lba, 512);
        bounce(memory, bytes);
        assert.is(core.blockWrite(lba, 1), 0, `write ${lba}`);
        assert.ok(sameBytes(qemu.stored(lba * 512, 512), bytes), `the image at ${lba}`);
        bounce(memory).fill(0);
        assert.is(core.blockRead(lba, 1), 0, `read ${lba}`);
        assert.ok(sameBytes(bounce(memory).subarray(0, 512), bytes), `read ${lba}`);
      }
      assert.is(core.blockRead(last, 2), -22);
    });
  });
}

for (const [what, sizeBytes, config] of [
  ["SDSC by PIO", 64 * MIB, {}],
  ["SDHC by PIO", 4096 * MIB, {}],
  ["SDSC by ADMA2", 64 * MIB, { dma: true }],
  ["SDHC by ADMA2", 4096 * MIB, { dma: true }],
  ["SDHC on one line at default speed", 4096 * MIB, { busWidth: 1, highSpeed: false }],
] as [string, number, Partial<MachineConfig>][]) {
  test(`${what}: reads and writes of 1 … 128 sectors against the image`, () => {
    withRig({ sizeBytes, config }, ({ qemu, core, memory }) => {
      assert.is(core.openCard(), 0);
      const expected = pattern(3, 300 * 512);
      qemu.preset(0, expected);
      for (const [lba, count] of [
        [0, 1],
        [1, 2],
        [5, 8],
        [17, 64],
        [100, 128],
      ] as const) {
        const range = [lba * 512, (lba + count) * 512] as const;
        bounce(memory).fill(0);
        assert.is(core.blockRead(lba, count), 0, `read ${lba}+${count}`);
        const read = bounce(memory).subarray(0, count * 512);
        assert.ok(sameBytes(read, expected.subarray(...range)), `read ${lba}+${count}: bytes`);
        expected.set(pattern(lba + count, count * 512), lba * 512);
        bounce(memory, expected.slice(...range));
        assert.is(core.blockWrite(lba, count), 0, `write ${lba}+${count}`);
        assert.ok(sameBytes(qemu.stored(0, expected.length), expected), `write ${lba}+${count}: the image`);
      }
    });
  });
}

test("the registers that a card sends as data, and its CID", () => {
  withRig({}, ({ core, memory }) => {
    assert.is(core.openCard(), 0);
    const register = (bytes: number) => new Uint8Array(memory.buffer, REGISTER_BLOCK, bytes).slice();
    assert.is(core.readCardRegister(10, 16, 0), 0);
    const name = decodeCid(register(16), "sd").fields.find((field) => field.name === "PNM");
    assert.ok(name?.value === "QEMU!", JSON.stringify(name));
    assert.is(core.readCardRegister(51, 8, 1), 0);
    assert.equal(decodeScr(register(8)).problems, []);
    assert.is(core.readCardRegister(13, 64, 1), 0);
    assert.equal(decodeSsr(register(64)).problems, []);
    // ACMD6 has brought the card to four lines: DAT_BUS_WIDTH of the status.
    assert.is((register(64)[0] ?? 0) >> 6, 2);
    assert.is(core.blockRead(0, 1), 0);
  });
});

const OLD_TEXT = pattern(1, 3000).map((byte) => 32 + (byte & 63));

/** A card in use: an old record, then whatever `leave` does, then the panic. */
function panicAfter(rig: Rig, leave: () => void, text: Uint8Array) {
  const { qemu, core, memory } = rig;
  assert.is(core.openCard(), 0);
  assert.is(core.recoverArea(), 0);
  const staging = new Uint8Array(memory.buffer, TEXT_BASE, PANIC_LOG.length);
  staging.set(OLD_TEXT);
  assert.is(core.panicWrite(2, 1000, 0, 5, OLD_TEXT.length, 0), 0);
  assert.is(core.blockRead(0, 2), 0);
  const before = qemu.stored(0, AREA_OFFSET + AREA_BYTES + USER_DATA.length);
  leave();
  staging.set(text);
  assert.is(core.panicWrite(1, 1705095871, 0, 7, text.length, 0), 0);
  const result = readResult(memory);
  assert.is(result.attempts, 1);
  const [old, fresh, ...more] = rig.records();
  assert.ok(old?.state === "ok" && old.sealed && sameBytes(textOf(old), OLD_TEXT), "the older record");
  assert.ok(fresh?.state === "ok" && fresh.sealed && sameBytes(textOf(fresh), text), "the panic's record");
  assert.is(fresh.reason, "Panic");
  assert.is(fresh.timeSec, 1705095871n);
  assert.is(more.length, 0);
  for (const offset of USER_OFFSETS) {
    assert.ok(sameBytes(qemu.stored(offset, USER_DATA.length), USER_DATA), "data beside the area");
  }
  // Outside the area only what the request in flight was about may have changed.
  const after = qemu.stored(0, before.length);
  const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
  const isAllowed = (at: number) =>
    (at >= IN_FLIGHT_LBA * 512 && at < (IN_FLIGHT_LBA + 8) * 512) ||
    (at >= AREA_OFFSET && at < AREA_OFFSET + AREA_BYTES);
  assert.equal(
    changed.filter((at) => !isAllowed(at)),
    [],
  );
  // The card works on.
  assert.is(core.blockRead(0, 8), 0);
  return result;
}

let takeovers = 0;
for (const [kind, sizeBytes, config] of [
  ["SDSC by PIO", 64 * MIB, {}],
  ["SDHC by ADMA2", 4096 * MIB, { dma: true }],
] as [string, number, Partial<MachineConfig>][]) {
  for (const left of LEFT_OPEN) {
    test(`${kind}: panic behind ${left.name}`, () => {
      withRig({ sizeBytes, config }, (rig) => {
        const { qemu } = rig;
        const leave = () => {
          const address = IN_FLIGHT_LBA * (sizeBytes <= SDSC_BYTES_MAX ? 512 : 1);
          // The last command behind a read of two sectors is CMD13 with the card's address.
          left.leave(qemu, { address, rca: qemu.read(8, 4) >>> 16 });
        };
        const result = panicAfter(rig, leave, PANIC_LOG.subarray(0, 2000));
        assert.is(result.cardState, left.state);
        assert.is(result.rung, left.rung);
        takeovers++;
      });
    });
  }

  for (const [request, state, rung] of [
    ["read", "data", 1],
    ["write", "rcv", 1],
    ["program", "tran", 1],
    ["erase", "tran", 1],
    ["sleep", null, 0],
    ["suspended", "tran", 1],
    ["claimed", "tran", 1],
    ["deselected", "stby", 1],
  ] as const) {
    const inFlight = IN_FLIGHT_NAMES.indexOf(request) + 1;
    test(`${kind}: panic with a request of ours in flight: ${request}`, () => {
      withRig({ sizeBytes, config }, (rig) => {
        const leave = () => {
          const status = rig.core.leaveInFlight(inFlight, IN_FLIGHT_LBA, 8);
          assert.is(status, request === "sleep" ? -95 : 0);
        };
        const result = panicAfter(rig, leave, PANIC_LOG.subarray(0, 2000));
        if (rung === 0) return;
        assert.is(result.cardState, state);
        assert.is(result.rung, rung);
        takeovers++;
      });
    });
  }
}

test("a whole log: 29,743 bytes behind an older record", () => {
  withRig({}, (rig) => {
    panicAfter(rig, () => undefined, PANIC_LOG);
  });
});

test("a panic before anybody has ever looked at the card", () => {
  withRig({}, ({ core, memory, records }) => {
    assert.is(core.panicWrite(1, 7, 0, 9, PANIC_LOG.length, 0), 0);
    const [record] = records();
    assert.ok(record?.state === "ok" && sameBytes(textOf(record), PANIC_LOG));
    assert.is(readResult(memory).rung, 5);
  });
});

test.after(() => {
  rmSync(folder, { recursive: true });
  console.log(
    `# QEMU ${qemuVersion()}: ${machines} machines, ${takeovers} takeovers, ${requests} qtest requests`,
  );
  if (!hasDevice("emmc")) console.log("# this QEMU has no eMMC");
});
test.run();
