// Every object of options of the public API: junk in each of its places. A name that there is not, a value of another
// kind, NaN, fractions, negative and huge numbers are refused by an MmcError with one line that names the option (what
// judges values by rules of its own: any MmcError, or a result that says so), and nothing has changed.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { ExternalMedium } from "../host/core/external-medium.js";
import { bytesSource } from "../host/dump/elf.js";
import { attachV86 } from "../host/embed/v86.js";
import { attachV86WithPanics } from "../host/embed/v86-panic.js";
import {
  CrashDump,
  Devcoredump,
  Device,
  DeviceRegions,
  Devlink,
  formatChunks,
  formatNewSnapshot,
  formatRegions,
  formatVcd,
  MmcError,
  OverlayMedium,
  openDiskDevice,
  openImageDevice,
  openRaw,
  RamoopsWatch,
  RemoteProc,
  readMinidump,
  readRamoops,
  registerArea,
  SaharaCollector,
  SaharaDevice,
  SdhciPeripheral,
  SerialConsole,
} from "../host/node.js";
import { decodeArea, findGeometry } from "../host/pstore/decode.js";
import { coreModule, ROOT, sameBytes } from "./machine.js";

const SIZE_BYTES = 512 * 1024;
const AREA = {
  offset: 256 * 1024,
  kmsgSize: 16384,
  kmsgCount: 4,
  abi: "lp64",
  ftraceSize: 1024,
  pmsgSize: 1024,
} as const;
const DUMP = { class: 64, machine: 183, area: { offset: 384 * 1024, sizeBytes: 64 * 1024 } } as const;
const device = Device.open(coreModule("release"), {
  sizeBytes: SIZE_BYTES,
  area: AREA,
  dump: { ...DUMP, memoryBytes: 4096 },
});
const embedded = Device.open(coreModule("embed"), { sizeBytes: SIZE_BYTES, area: AREA });
const dump = new CrashDump(coreModule("release"), { class: 64, machine: 1 });
const devlink = new Devlink("a/b");
devlink.addRegion({ name: "r", source: new Uint8Array(4) });
const bus = { irq: () => undefined, dmaRead: () => new Uint8Array(0), dmaWrite: () => undefined };
const text = (bytes: Iterable<unknown>) => [...bytes];
const medium: ExternalMedium = { sizeBytes: SIZE_BYTES, read: () => undefined, write: () => undefined };
/** Only its names are looked at before the options are. */
const emulator = {};

interface Place {
  /** An object that is taken. */
  good: Record<string, unknown>;
  call: (options: never) => unknown;
  /** Whose values are not kinds of their own: any is taken, or means nothing (`found: false`). */
  own?: readonly string[];
  /** The call itself cannot succeed here, but the options come first. */
  fails?: RegExp;
}

const PLACES: Record<string, Place> = {
  "Device.open": {
    good: {
      sizeBytes: SIZE_BYTES,
      card: "emmc",
      area: AREA,
      cacheSectors: 4,
      onTrace: () => undefined,
      hpi: true,
    },
    call: (options) => Device.open(coreModule("release"), options),
  },
  "Device.openExternal": {
    good: { card: "sd" },
    call: (options) => Device.openExternal(coreModule("external"), medium, options),
  },
  "options.area": {
    good: { ...AREA, cpus: 1, consoleSize: 512 },
    call: (area) => Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, area }),
  },
  "options.dump": {
    good: {
      ...DUMP,
      capacity: 3,
      align: 4,
      entry: 0n,
      elfFlags: 0,
      sections: true,
      overlap: "allow",
      memoryBytes: 512,
    },
    call: (options) =>
      Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, area: AREA, dump: options }),
  },
  "options.dump.area": {
    good: { ...DUMP.area },
    call: (area) =>
      Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, area: AREA, dump: { ...DUMP, area } }),
  },
  "options.sd": {
    good: { version: "3.01", uhs: false, erasedByte: 255, spiKhz: 1, spiResponseBytes: 2, discard: true },
    call: (sd) => Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, card: "sd", sd }),
  },
  "options.timing": {
    good: { readNs: 5, deflateNs: 7 },
    call: (timing) => Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, timing }),
  },
  "options.damage": {
    good: { seed: 1, neighbourSectors: 2 },
    call: (damage) => Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, damage }),
  },
  "options.background": {
    good: { sectorsPerLevel: 1, levelNs: 1 },
    call: (background) => Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, background }),
  },
  panicWrite: {
    good: { text: "x", reason: "Oops", timeSec: 1n, timeNsec: 2, parts: 2, force: true },
    call: (input) => device.panicWrite(input),
    // Any 64 bits, signed or not.
    own: ["timeSec"],
  },
  injectFault: {
    good: { kind: "stuck-busy", firstLba: 1, lastLba: 2, skip: 1, times: 1, until: "hpi" },
    call: (plan) => device.injectFault(plan, 2),
  },
  "injectFault, a command's": {
    good: { kind: "refused", command: 25, bits: 4 },
    call: (plan) => device.injectFault(plan, 2),
  },
  registerRegion: {
    good: {
      name: "q",
      address: 0x1000n,
      size: 16,
      vaddr: 4n,
      flags: 5,
      source: device.dumpMemory.subarray(0, 16),
    },
    call: (region) => device.unregisterRegion(device.registerRegion(region)),
  },
  writeFtrace: { good: { cpu: 0, ip: 1n, parentIp: 2n }, call: (call) => device.writeFtrace([call]) },
  CrashDump: {
    good: { class: 32, machine: 3, capacity: 5, layout: "core", notes: [], sections: false },
    call: (options) => new CrashDump(coreModule("release"), options),
  },
  "CrashDump.register": {
    good: { name: "r", address: 1n, size: 4, source: () => 4 },
    call: (region) => dump.unregister(dump.register(region)),
  },
  SdhciPeripheral: {
    good: { timing: "clock" },
    call: (options) => new SdhciPeripheral(embedded, bus, options),
  },
  readRamoops: {
    good: { recordSize: 4096, eccSize: 0, consoleSize: 4096 },
    call: (options) => readRamoops(new Uint8Array(65536), options),
  },
  RamoopsWatch: {
    good: { recordSize: 4096 },
    call: (options) => new RamoopsWatch(() => new Uint8Array(0), options),
  },
  SerialConsole: {
    good: { capacityBytes: 10, onEvent: () => undefined },
    call: (options) => new SerialConsole(options),
  },
  attachV86: {
    good: { slot: 3, address: 0xfea00000, timing: "clock", onReset: () => undefined },
    call: (options) => attachV86(emulator, embedded, options),
    fails: /v86/,
  },
  attachV86WithPanics: {
    good: { slot: 3, onPanic: () => undefined, ramoops: { address: 0, sizeBytes: 4096, recordSize: 1024 } },
    call: (options) => attachV86WithPanics(emulator, embedded, options),
    fails: /v86/,
  },
  Devlink: { good: { snapshotBytesMax: 5 }, call: (options) => new Devlink("x/y", options) },
  "Devlink.addRegion": {
    good: { name: "s", size: 4, maxSnapshots: 2, source: () => 4, immediate: true, directRead: false },
    call: (region) => {
      devlink.addRegion(region);
      devlink.removeRegion("s");
    },
  },
  "Devlink.read": {
    good: { address: 0n, length: 2n, linuxLengths: true },
    call: (options) => text(devlink.read("r", options)),
  },
  "devlink style": {
    good: { json: true, pretty: false, jsonChunks: true },
    call: (style) => formatRegions("a/b", devlink.regions(), style),
  },
  "devlink style, snapshot": {
    good: { json: true },
    call: (style) => formatNewSnapshot("a/b", "r", 1, style),
  },
  "devlink style, chunks": {
    good: { json: true },
    call: (style) => text(formatChunks("read", [], style)),
  },
  DeviceRegions: {
    good: { maxSnapshots: 3 },
    call: (options) => new DeviceRegions(new Devlink("c/d"), embedded, options),
  },
  RemoteProc: {
    good: {
      name: "remoteproc0",
      dump,
      devcoredump: new Devcoredump(),
      coredump: "enabled",
      recovery: false,
      timeoutNs: 5n,
      ops: {},
    },
    call: (options) => new RemoteProc(options),
    own: ["timeoutNs"],
  },
  readMinidump: {
    good: { base: 0n, toc: 0, subsystems: 1, takesNotReady: true },
    call: (options) => readMinidump(bytesSource(new Uint8Array(4096)), options),
    fails: /global ToC/,
  },
  SaharaCollector: {
    good: { requestBytesMax: 64, regionBytesMax: 5, totalBytesMax: 6, keepGoing: true, images: new Map() },
    call: (options) => new SaharaCollector(options),
  },
  SaharaDevice: {
    good: {
      width: 32,
      answerBytesMax: 5,
      faults: [{ kind: "silent", at: 3 }],
      boot: { image: 1, lengthBytes: 2 },
    },
    call: (options) =>
      new SaharaDevice([{ name: "m", address: 0, lengthBytes: 4n, read: () => new Uint8Array(4) }], options),
  },
  "SaharaDevice, memory": {
    good: { name: "m", address: 0, lengthBytes: 4n, read: () => new Uint8Array(4) },
    call: (memory) => new SaharaDevice([memory]),
    // EOVERFLOW.
    own: ["address", "lengthBytes"],
  },
  formatVcd: {
    good: { wires: true, bitsOnly: false, card: "sd" },
    call: (options) => formatVcd([], options),
  },
  decodeArea: {
    good: { kmsgSize: 4096, cpus: 0, abi: "lp64" },
    call: (options) => decodeArea(new Uint8Array(65536), options),
    own: ["kmsgSize", "cpus"],
  },
  "decodeArea, a Geometry": {
    good: { ...findGeometry(new Uint8Array(65536)) },
    call: (options) => decodeArea(new Uint8Array(65536), options),
    own: Object.keys(findGeometry(new Uint8Array(65536))),
  },
  registerArea: {
    good: { offset: 0, sizeBytes: 65536, kmsgSize: 4096, cpus: 1, abi: "i386" },
    call: (sizes) => registerArea(sizes),
  },
  openRaw: {
    good: { writable: false },
    call: (options) => openRaw(`${ROOT}package.json`, options).closeSync(),
  },
  openImageDevice: {
    good: { card: "sd", parts: 2 },
    call: (options) =>
      openImageDevice(
        raw,
        { offset: 0, sizeBytes: 4096, geometry: findGeometry(new Uint8Array(4096)) },
        options,
      ),
    fails: /area of it/,
  },
  openDiskDevice: {
    good: { card: "sd" },
    call: (options) => openDiskDevice(raw, null, options),
    fails: /512 KiB/,
  },
};
const raw = openRaw(`${ROOT}package.json`, { writable: false });

let refusals = 0;

/** An MmcError with one line that names the option; or the call's own refusal behind it, if it is only that. */
function isRefused(call: () => unknown, name: string, fails?: RegExp): boolean {
  try {
    call();
    return false;
  } catch (error) {
    if (!(error instanceof MmcError)) throw error;
    assert.not(error.message.includes("\n"), error.message);
    if (fails?.test(error.message) && (name === "" || !error.message.includes(name))) return false;
    assert.is(error.code, "EINVAL", error.message);
    refusals++;
    return true;
  }
}

/** Values of which no option takes more than its own kind. */
const JUNK: readonly unknown[] = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  -1,
  0.5,
  2 ** 60,
  -1n,
  2n ** 70n,
  "",
  "toString",
  "__proto__",
  "constructor",
  null,
  Symbol.iterator,
];

function unchanged(call: () => void, what: string): void {
  const before = [device.saveState(), embedded.saveState()];
  call();
  const after = [device.saveState(), embedded.saveState()];
  for (const [i, state] of after.entries()) assert.ok(sameBytes(state, before[i] as Uint8Array), what);
}

for (const [place, { good, call, own = [], fails }] of Object.entries(PLACES)) {
  test(`junk in the options of ${place}`, () => {
    const tried = (options: unknown) => call(options as never);
    if (place !== "panicWrite" && place !== "SdhciPeripheral") {
      assert.not(
        isRefused(() => tried({ ...good }), "", fails),
        "the good ones are taken",
      );
    }
    unchanged(() => {
      for (const name of [...Object.keys(good), "toString", "x"]) {
        for (const wrong of [
          `${name}_`,
          `x${name}`,
          name.toUpperCase() === name ? `${name}q` : name.toUpperCase(),
        ]) {
          if (wrong in good) continue;
          assert.ok(
            isRefused(() => tried({ ...good, [wrong]: 1 }), wrong),
            `${place}: ${wrong}`,
          );
        }
      }
      for (const options of [null, 7, "text", true, [1], new Uint8Array(3), () => undefined]) {
        assert.ok(
          isRefused(() => tried(options), ""),
          `${place}: ${String(options)}`,
        );
      }
      for (const [name, value] of Object.entries(good)) {
        if (own.includes(name)) continue;
        for (const junk of JUNK) {
          if (typeof junk === typeof value && typeof junk === "string") {
            // A free text, as a name is.
            if (["name", "text"].includes(name)) continue;
          }
          assert.ok(
            isRefused(() => tried({ ...good, [name]: junk }), name),
            `${place}: ${name}: ${String(junk)}`,
          );
        }
      }
    }, place);
  });
}

test("the nearest name is suggested", () => {
  const said = (options: object) => {
    try {
      Device.open(coreModule("release"), { sizeBytes: SIZE_BYTES, ...options });
    } catch (error) {
      return (error as MmcError).message;
    }
    return "";
  };
  assert.is(said({ aera: AREA }), "aera: there is no such option; is area meant?");
  assert.is(said({ cacheSectorz: 4 }), "cacheSectorz: there is no such option; is cacheSectors meant?");
  assert.is(said({ timing: { readNS: 4 } }), "timing.readNS: there is no such option; is readNs meant?");
  assert.is(said({ profile: "typicl" }).split("; ")[1], "is typical meant?");
});

test("any value in any place: an MmcError, or it is taken; never another error, never a changed device", () => {
  // What a value that is taken does to the device is not looked at.
  const changing = ["SdhciPeripheral", "panicWrite", "registerRegion", "writeFtrace", "injectFault"];
  const names = Object.keys(PLACES).filter((name) => !changing.some((one) => name.startsWith(one)));
  unchanged(() => {
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.anything({ withBigInt: true, withNullPrototype: true }),
        fc.nat(),
        (place, value, at) => {
          const { good, call } = PLACES[place] as Place;
          const keys = Object.keys(good);
          const key = keys[at % keys.length] as string;
          // A size that can be, of a card that takes long to make, is none of this test's business.
          if (
            ["sizeBytes", "capacityBytes", "memoryBytes", "capacity"].includes(key) &&
            typeof value === "number"
          )
            return;
          try {
            call({ ...good, [key]: value } as never);
          } catch (error) {
            assert.instance(error, MmcError, `${place}.${key}`);
          }
        },
      ),
      { numRuns: 1500, seed: 12 },
    );
  }, "any value");
});

test("bytes and numbers of the plain calls", () => {
  const calls: [string, (value: never) => unknown][] = [
    ["read", (value) => device.read(value, 1)],
    ["read's length", (value) => device.read(0, value)],
    ["write", (value) => device.write(value, new Uint8Array(1))],
    ["write's data", (value) => device.write(0, value)],
    ["erase", (value) => device.erase(value, 1)],
    ["erase's length", (value) => device.erase(0, value)],
    ["leaveInFlight", (value) => device.leaveInFlight(value)],
    ["leaveInFlight's offset", (value) => device.leaveInFlight("read", value)],
    ["leaveInFlight's length", (value) => device.leaveInFlight("read", 0, value)],
    ["leaveWriteInFlight's data", (value) => device.leaveWriteInFlight(0, value)],
    ["idle", (value) => device.idle(value)],
    ["insertCard", (value) => device.insertCard(value)],
    ["injectFault's index", (value) => device.injectFault({ kind: "read-crc" }, value)],
    ["unregisterRegion", (value) => device.unregisterRegion(value)],
    ["writePmsg", (value) => device.writePmsg(value)],
    ["writeFtrace", (value) => device.writeFtrace(value)],
    ["loadState", (value) => device.loadState(value)],
    ["connectDma", (value) => embedded.connectDma(value)],
    ["OverlayMedium", (value) => new OverlayMedium(value)],
    [
      "openExternal",
      (value) => Device.openExternal(coreModule("external"), value, { sizeBytes: SIZE_BYTES }),
    ],
  ];
  unchanged(() => {
    for (const [name, call] of calls) {
      for (const junk of [...JUNK.filter((one) => typeof one !== "symbol"), {}, [new Date(0)], true]) {
        if (name === "insertCard" && junk === true) continue;
        assert.ok(
          isRefused(() => call(junk as never), ""),
          `${name}: ${String(junk)}`,
        );
      }
    }
  }, "plain calls");
});

test.after(() => {
  raw.closeSync();
  console.log(`# ${refusals} refusals in ${Object.keys(PLACES).length} places`);
});
test.run();
