// The regions of a card and its controller: what they show is what the device has, looking costs nothing, and a panic
// leaves snapshots of all of them under one id, from every state and whatever fails.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SDHCI_REGISTERS } from "../assembly/layout.js";
import type { ExternalMedium } from "../host/core/external-medium.js";
import { IDEAL } from "../host/core/profile.js";
import { Device, type InFlight } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { DeviceRegions } from "../host/devlink/device-regions.js";
import { Devlink } from "../host/devlink/devlink.js";
import { decodeStore, encodeStore } from "../host/devlink/store.js";
import { MmcError } from "../host/errors.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule, PANIC_LOG, pattern } from "./machine.js";

const AREA = { offset: 256 * 1024, kmsgSize: 64 * 1024, kmsgCount: 4, abi: "lp64" } as const;
const PSTORE = { offset: AREA.offset, sizeBytes: 256 * 1024 };
const RAM = pattern(3, 5000);

interface Rig {
  device: Device;
  devlink: Devlink;
  regions: DeviceRegions;
}

function rig(options: DeviceOptions = {}, snapshotBytesMax?: number): Rig {
  const device = Device.open(coreModule("release"), { sizeBytes: 1 << 20, area: AREA, ...options });
  const devlink = new Devlink("platform/mmc0", { snapshotBytesMax });
  const regions = new DeviceRegions(devlink, device, { area: PSTORE });
  devlink.addRegion({ name: "ram", source: RAM.slice() });
  return { device, devlink, regions };
}

function bytesOf(devlink: Devlink, name: string, snapshot?: number): Uint8Array {
  return new Uint8Array(Buffer.concat([...devlink.read(name, { snapshot })].map(({ data }) => data)));
}

const CARDS = ["emmc", "sd", "sdsc", "sdxc"] as const;
const SIZES = { emmc: 1 << 20, sd: 1 << 20, sdsc: 1 << 20, sdxc: 1 << 20 };
const IN_FLIGHT: InFlight[] = ["read", "write", "program", "erase", "suspended", "claimed", "deselected"];

test("card regions are what Device.registers() asks the card for, on every kind of card", () => {
  for (const card of CARDS) {
    const { device, devlink } = rig({ card, sizeBytes: SIZES[card] });
    const { cid, csd, extCsd, scr, ssr } = device.registers();
    const wanted = { cid, csd, ...(extCsd ? { ext_csd: extCsd } : { scr, ssr }) };
    for (const [name, bytes] of Object.entries(wanted)) {
      assert.equal(devlink.copyRegion(name), bytes, `${card} ${name}`);
      assert.equal(bytesOf(devlink, name), bytes, `${card} ${name} live`);
    }
    const names = devlink.regions().map(({ name }) => name);
    assert.equal(names, [...Object.keys(wanted), "sdhci", "pstore", "ram"]);
    device.leaveInFlight("write");
    assert.throws(
      () => devlink.newSnapshot("cid"),
      (error: unknown) => (error as MmcError).code === "EBUSY",
    );
    assert.equal(devlink.region("cid").snapshots, []);
  }
});

test("sdhci is the register file as a driver reads it, without the port that gives data away", () => {
  for (const kind of [null, ...IN_FLIGHT]) {
    const options: DeviceOptions = { profile: undefined, timing: { ...IDEAL, accessCostNs: 0 } };
    const [mine, twin] = [rig(options), rig(options)];
    if (kind !== null) for (const { device } of [mine, twin]) device.leaveInFlight(kind, 64 * 512);
    const shown = mine.devlink.copyRegion("sdhci");
    for (let offset = 0; offset < 256; offset++) {
      const isPort = offset >= 0x20 && offset < 0x24;
      const expected = isPort ? 0 : twin.device.core.mmioRead8(offset) & 0xff;
      assert.is(shown[offset], expected, `${kind} ${offset.toString(16)}`);
    }
    // It is not only zeros that agree.
    const view = new DataView(mine.device.memory.buffer);
    assert.ok(view.getUint32(SDHCI_REGISTERS + 0x40, true) !== 0 && shown[0x28] !== 0);
  }
});

test("looking at a controller costs no time and changes nothing, in any state", () => {
  for (const kind of IN_FLIGHT) {
    const [seen, unseen] = [rig({ trace: true }), rig({ trace: true })];
    for (const { device } of [seen, unseen]) device.leaveInFlight(kind, 64 * 512);
    seen.devlink.copyRegion("sdhci");
    seen.devlink.copyRegion("pstore");
    assert.is(seen.device.state().timeNs, unseen.device.state().timeNs);
    const results = [seen, unseen].map(({ device }) => device.panicWrite({ text: PANIC_LOG, timeSec: 5n }));
    assert.equal(results[0], results[1], kind);
    assert.equal(seen.device.trace(), unseen.device.trace(), kind);
    assert.equal(seen.device.medium(), unseen.device.medium(), kind);
  }
});

test("pstore is the area as stored, in the memory or elsewhere, from any byte on", () => {
  const content = pattern(9, 1 << 20);
  const medium: ExternalMedium = {
    sizeBytes: content.length,
    read(offset, target) {
      assert.is(offset % 512, 0);
      assert.is(target.length % 512, 0);
      target.set(content.subarray(offset, offset + target.length));
    },
    write: (offset, data) => content.set(data, offset),
  };
  const external = Device.openExternal(coreModule("external"), medium, { area: AREA });
  const devlink = new Devlink("platform/mmc0");
  new DeviceRegions(devlink, external, { area: PSTORE });
  const inner = rig({ content: content.slice() });
  const expected = content.subarray(PSTORE.offset, PSTORE.offset + PSTORE.sizeBytes);
  for (const one of [devlink, inner.devlink]) {
    assert.equal(one.copyRegion("pstore"), new Uint8Array(expected));
    for (const [address, length] of [
      [1n, 3n],
      [511n, 2n],
      [500n, 600n],
      [262_143n, 5n],
    ] as const) {
      const bytes = Buffer.concat([...one.read("pstore", { address, length })].map(({ data }) => data));
      assert.ok(bytes.equals(expected.subarray(Number(address), Number(address + length))), `${address}`);
    }
  }
  for (const area of [
    { offset: 1, sizeBytes: 512 },
    { offset: 0, sizeBytes: 0 },
    { offset: 0, sizeBytes: (1 << 20) + 512 },
    { offset: -512, sizeBytes: 1024 },
  ]) {
    const fresh = new Devlink("a/b");
    assert.throws(() => new DeviceRegions(fresh, inner.device, { area }), /are no area of the card/);
  }
});

test("a panic from every request in flight leaves one id over all regions, as they were when it came", () => {
  let panics = 0;
  for (const card of CARDS) {
    for (const kind of [null, ...IN_FLIGHT, ...(card === "emmc" ? (["sleep"] as const) : [])]) {
      const { device, devlink, regions } = rig({ card, sizeBytes: SIZES[card] });
      const old = device.panicWrite({ text: "an older one", reason: "Oops" });
      assert.is(old.status, 0);
      if (kind !== null) device.leaveInFlight(kind, 64 * 512);
      const before = { sdhci: devlink.copyRegion("sdhci"), pstore: devlink.copyRegion("pstore") };
      const { result, snapshot, failure } = regions.panicWrite({ text: PANIC_LOG });
      const what = `${card} ${kind}`;
      assert.is(result.status, 0, what);
      assert.is(failure, null, what);
      assert.is(snapshot?.id, 0);
      assert.equal(
        [...(snapshot?.regions ?? [])].sort(),
        devlink
          .regions()
          .map(({ name }) => name)
          .sort(),
      );
      for (const { name, snapshots } of devlink.regions()) assert.equal(snapshots, [0], `${what} ${name}`);
      assert.equal(bytesOf(devlink, "sdhci", 0), before.sdhci, what);
      assert.equal(bytesOf(devlink, "pstore", 0), before.pstore, what);
      assert.equal(bytesOf(devlink, "ram", 0), RAM);
      const { cid, csd, extCsd, scr, ssr } = device.registers();
      for (const [name, bytes] of Object.entries({ cid, csd, ext_csd: extCsd, scr, ssr })) {
        if (bytes !== null) assert.equal(bytesOf(devlink, name, 0), bytes, `${what} ${name}`);
      }
      // The snapshot has the older record, the medium both.
      assert.is(decodeArea(bytesOf(devlink, "pstore", 0)).records.length, 1, what);
      assert.is(decodeArea(devlink.copyRegion("pstore")).records.length, 2, what);
      panics++;
    }
  }
  console.log(`\n# ${panics} panics with snapshots`);
});

test("ids go on over panics; a full region costs the snapshots, never the record", () => {
  const { device, devlink, regions } = rig();
  for (let i = 0; i < 8; i++) assert.is(regions.panicWrite({ text: `panic ${i}` }).snapshot?.id, i);
  assert.throws(
    () => regions.checkRoom(),
    (error: unknown) => (error as MmcError).code === "ENOSPC",
  );
  const { result, snapshot, failure } = regions.panicWrite({ text: "the ninth" });
  assert.is(result.status, 0);
  assert.is(snapshot, null);
  assert.is(failure?.code, "ENOSPC");
  devlink.deleteSnapshot("pstore", 3);
  assert.is(regions.panicWrite({ text: "still full elsewhere" }).snapshot, null);
  for (const { name } of devlink.regions()) if (name !== "pstore") devlink.deleteSnapshot(name, 3);
  assert.is(regions.panicWrite({ text: "room again" }).snapshot?.id, 3);
  assert.is(device.state().panicCount, 11);
});

test("too many bytes, a source that fails: the record stands, no snapshot is there", () => {
  const small = rig({}, PSTORE.sizeBytes);
  const first = small.regions.panicWrite({ text: PANIC_LOG });
  assert.is(first.result.status, 0);
  assert.is(first.snapshot, null);
  assert.is(first.failure?.code, "ENOMEM");
  for (const failing of [
    () => {
      throw new MmcError("EFAULT", "no such page");
    },
    () => {
      throw "a string";
    },
    () => 1,
  ]) {
    const { devlink, regions } = rig();
    devlink.addRegion({ name: "bad", size: 64, source: failing });
    const { result, snapshot, failure } = regions.panicWrite({ text: PANIC_LOG });
    assert.is(result.status, 0);
    assert.is(snapshot, null);
    assert.instance(failure, MmcError);
    assert.equal(devlink.state().ids, []);
    assert.ok(devlink.regions().every(({ snapshots }) => snapshots.length === 0));
  }
});

test("a card that does not answer: its registers are missing, the rest is kept", () => {
  const { device, devlink, regions } = rig();
  device.insertCard(false);
  const { result, snapshot, failure } = regions.panicWrite({ text: PANIC_LOG });
  assert.is.not(result.status, 0);
  assert.equal(snapshot, { id: 0, regions: ["sdhci", "pstore", "ram"] });
  assert.instance(failure, MmcError);
  assert.equal(
    devlink.regions().map(({ snapshots }) => snapshots.length),
    [0, 0, 0, 1, 1, 1],
  );
  // The slot was empty when the registers were looked at.
  assert.is((bytesOf(devlink, "sdhci", 0)[0x26] as number) & 1, 0);
});

test("a panic's snapshots outlive the machine", () => {
  const { devlink, regions } = rig();
  regions.panicWrite({ text: PANIC_LOG });
  const bytes = new Uint8Array(Buffer.concat(encodeStore(devlink.state())));
  const later = new Devlink("platform/mmc0");
  later.load(decodeStore(bytes));
  for (const { name } of devlink.regions())
    assert.equal(bytesOf(later, name, 0), bytesOf(devlink, name, 0), name);
  assert.throws(() => later.newSnapshot("cid"), /does not support taking an immediate snapshot/);
});

test.run();
