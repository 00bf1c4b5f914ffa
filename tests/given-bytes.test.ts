// Bytes at the edge of the public API, in whatever view they come: a Node Buffer in a pool, shared memory, an odd offset.
// The caller's bytes are never changed, and neither what was kept nor what was returned follows them when the caller
// uses its buffer again. The list of what takes bytes comes from the declarations of what the two entries export, so a new
// function without a case fails here. `npm run test:given` runs whole suites that way (given-hooks.ts).
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import * as api from "../host/node.js";
import { lend } from "./given.js";
import { coreModule, PANIC_LOG, pattern, ROOT } from "./machine.js";
import { memory as saharaMemory } from "./sahara-pair.js";

/** What a call gives, looked at when the caller's buffer holds something else already. */
type Case = { bytes: () => Uint8Array; call: (bytes: Uint8Array) => () => unknown };

const KMSG = {
  offset: 0x40000,
  kmsgSize: 0x4000,
  kmsgCount: 4,
  consoleSize: 4096,
  pmsgSize: 4096,
  abi: "lp64",
} as const;

/** Rings, plain and compressed records, one whose header salvage mends, and one that nothing inflates. */
function area(): Uint8Array {
  const machine = device({ area: { ...KMSG, ftraceSize: 4096, cpus: 1 } });
  machine.writeConsole(PANIC_LOG.subarray(0, 900));
  machine.writePmsg(pattern(1, 700));
  machine.writeFtrace([{ cpu: 0, ip: 1n, parentIp: 2n }]);
  for (let i = 1; i <= 4; i++) {
    machine.panicWrite({ text: i === 2 ? PANIC_LOG.subarray(0, 300) : PANIC_LOG, timeSec: BigInt(1000 + i) });
  }
  const bytes = new Uint8Array(
    machine.medium().subarray(KMSG.offset - 3 * 4096, KMSG.offset + 4 * KMSG.kmsgSize),
  );
  const zone = (index: number) => 3 * 4096 + index * KMSG.kmsgSize;
  bytes[zone(0) + 12] = (bytes[zone(0) + 12] as number) ^ 0x55;
  bytes.fill(0xff, zone(2) + 52, zone(2) + 152);
  return bytes;
}

const { kmsgSize, abi } = KMSG;
const SIZES = { kmsgSize, abi, pmsgSize: 4096, consoleSize: 4096, ftraceSize: 4096, cpus: 1 };
const KINDS = [
  "kmsg salvaged compressed",
  "kmsg ok",
  "kmsg torn compressed",
  "kmsg ok compressed",
  "ftrace ok",
  "pmsg ok",
  "console ok",
];

function ramoops(): Uint8Array {
  const region = new Uint8Array(gunzipSync(readFileSync(`${ROOT}tests/data/ramoops/ecc-deflate.bin.gz`)));
  for (let at = 100; at < region.length; at += 5000) region[at] = (region[at] as number) ^ 1;
  return region;
}

function device(options: Partial<api.DeviceOptions> = {}): api.Device {
  return api.Device.open(coreModule("embed"), { card: "emmc", sizeBytes: 1 << 20, ...options });
}

const board: api.GuestBus = {
  irq: () => undefined,
  dmaRead: (_, lengthBytes) => new Uint8Array(lengthBytes),
  dmaWrite: () => undefined,
};

function devlink(): api.Devlink {
  const instance = new api.Devlink("pci/0000:00:01.0");
  instance.addRegion({ name: "r", size: 4096, maxSnapshots: 4, source: (_, target) => void target.fill(1) });
  return instance;
}

function chunksOf(instance: api.Devlink, snapshot: number): unknown {
  return [...instance.read("r", { snapshot })];
}

function store(): Uint8Array {
  const instance = devlink();
  instance.snapshotEvent(new Map([["r", pattern(3, 4096)]]));
  return new Uint8Array(Buffer.concat(api.encodeStore(instance.state())));
}

function overlay(): api.OverlayMedium {
  return new api.OverlayMedium({ sizeBytes: 1 << 20, read: (_, target) => void target.fill(0) });
}

function readOf(medium: { read(offset: number, target: Uint8Array): void }, offset: number, bytes: number) {
  const target = new Uint8Array(bytes);
  medium.read(offset, target);
  return target;
}

function rawImage(sizeBytes: number): { image: api.RawImage; end: () => void } {
  const folder = mkdtempSync(join(tmpdir(), "given-"));
  writeFileSync(join(folder, "a.img"), new Uint8Array(sizeBytes));
  const image = api.openRaw(join(folder, "a.img"), { writable: true });
  return {
    image,
    end: () => {
      image.closeSync();
      rmSync(folder, { recursive: true });
    },
  };
}

/** As a collector has it that asked for the table and then for the first region: the transfer is the last answer. */
function collectorAt(step: "table" | "data"): { collector: api.SaharaCollector; transfer: Uint8Array } {
  const collector = new api.SaharaCollector();
  const source = new api.SaharaDevice([saharaMemory("a", 0x1000, 256)]);
  let toDevice = collector.connected();
  let toHost = source.connected();
  for (let i = 0; i < 20; i++) {
    for (const answer of toHost) {
      if (answer.kind !== "send") continue;
      const isTable = answer.bytes.length === 64 && toDevice.length > 0 && i > 1;
      const isData = answer.bytes.length === 256;
      if ((step === "table" && isTable) || (step === "data" && isData)) {
        return { collector, transfer: answer.bytes };
      }
      toDevice = collector.receive(answer.bytes);
    }
    toHost = toDevice.flatMap((one) => (one.kind === "send" ? source.receive(one.bytes) : []));
  }
  throw new Error(`no ${step} came`);
}

function registerCase(decode: (bytes: Uint8Array) => unknown, lengthBytes: number): Case {
  return {
    bytes: () => pattern(9, lengthBytes),
    call: (bytes) => {
      const decoded = decode(bytes);
      return () => decoded;
    },
  };
}

function simple(bytes: () => Uint8Array, call: (bytes: Uint8Array) => unknown): Case {
  return {
    bytes,
    call: (given) => {
      const result = call(given);
      return () => result;
    },
  };
}

/** Exported functions and methods of exported classes that take bytes. */
const CASES: Record<string, Case> = {
  decodeArea: simple(area, (bytes) => [api.decodeArea(bytes), api.decodeArea(bytes, SIZES)]),
  findGeometry: simple(area, (bytes) => api.findGeometry(bytes)),
  readRamoops: simple(ramoops, (bytes) => api.readRamoops(bytes)),
  findRamoops: simple(ramoops, (bytes) => api.findRamoops(bytes)),
  RamoopsWatch: {
    bytes: ramoops,
    call: (bytes) => {
      const watch = new api.RamoopsWatch(() => bytes);
      const harvested = watch.harvest();
      return () => harvested;
    },
  },
  decodeCid: registerCase((bytes) => api.decodeCid(bytes, "emmc"), 16),
  decodeCsd: registerCase((bytes) => api.decodeCsd(bytes, "emmc"), 16),
  decodeExtCsd: registerCase((bytes) => api.decodeExtCsd(bytes), 512),
  decodeScr: registerCase((bytes) => api.decodeScr(bytes), 8),
  decodeSsr: registerCase((bytes) => api.decodeSsr(bytes), 64),
  decodeStore: simple(store, (bytes) => api.decodeStore(bytes)),
  decodeDumpArea: simple(
    () => pattern(1, 512),
    (bytes) => api.decodeDumpArea(bytes, bytes, 1 << 20),
  ),
  dumpAreaBytesOf: simple(
    () => pattern(1, 512),
    (bytes) => api.dumpAreaBytesOf(bytes),
  ),
  frameTransfer: simple(
    () => pattern(2, 70_000),
    (bytes) => api.frameTransfer(bytes),
  ),
  "FrameReader.push": {
    bytes: () => api.frameTransfer(pattern(2, 70_000)),
    call: (bytes) => {
      const transfers = [...new api.FrameReader(0x20000).push(bytes)].map((one) => new Uint8Array(one));
      return () => transfers;
    },
  },
  "SerialConsole.feed": {
    bytes: () => new TextEncoder().encode("Kernel panic - not syncing: x\r\n".repeat(9)),
    call: (bytes) => {
      const serial = new api.SerialConsole({});
      serial.feed(bytes);
      return () => [serial.bytes(), serial.kmsg()];
    },
  },
  "Devlink.createSnapshot": {
    bytes: () => pattern(4, 4096),
    call: (bytes) => {
      const instance = devlink();
      const id = instance.getSnapshotId();
      instance.createSnapshot("r", bytes, id);
      return () => chunksOf(instance, id);
    },
  },
  "Devlink.snapshotEvent": {
    bytes: () => pattern(4, 4096),
    call: (bytes) => {
      const instance = devlink();
      const id = instance.snapshotEvent(new Map([["r", bytes]]));
      return () => chunksOf(instance, id);
    },
  },
  "OverlayMedium.write": {
    bytes: () => pattern(5, 8192),
    call: (bytes) => {
      const medium = overlay();
      medium.write(1024, bytes);
      return () => [readOf(medium, 0, 16384), medium.saveState()];
    },
  },
  "OverlayMedium.loadState": {
    bytes: () => {
      const medium = overlay();
      medium.write(512, pattern(6, 1024));
      medium.erase(4096, 65536, 0xff);
      return medium.saveState();
    },
    call: (bytes) => {
      const medium = overlay();
      medium.loadState(bytes);
      return () => [readOf(medium, 0, 131072), medium.saveState()];
    },
  },
  "Device.write": {
    bytes: () => pattern(5, 5000),
    call: (bytes) => {
      const one = device();
      one.write(700, bytes);
      one.flush();
      return () => one.read(512, 8192);
    },
  },
  "Device.leaveWriteInFlight": {
    bytes: () => pattern(5, 4096),
    call: (bytes) => {
      const one = device();
      one.leaveWriteInFlight(1024, bytes);
      return () => one.saveState();
    },
  },
  "Device.writePmsg": {
    bytes: () => pattern(5, 900),
    call: (bytes) => {
      const one = device({ area: KMSG });
      one.writePmsg(bytes);
      return () => one.saveState();
    },
  },
  "Device.writeConsole": {
    bytes: () => PANIC_LOG.subarray(0, 900),
    call: (bytes) => {
      const one = device({ area: KMSG });
      one.writeConsole(bytes);
      return () => one.saveState();
    },
  },
  "Device.loadState": {
    bytes: () => {
      const one = device();
      one.write(0, pattern(8, 4096));
      return one.saveState();
    },
    call: (bytes) => {
      const one = device();
      one.loadState(bytes);
      return () => one.saveState();
    },
  },
  "SdhciPeripheral.loadState": {
    bytes: () => {
      const one = device();
      one.write(0, pattern(8, 4096));
      return new api.SdhciPeripheral(one, board).saveState();
    },
    call: (bytes) => {
      const host = new api.SdhciPeripheral(device(), board);
      host.loadState(bytes);
      return () => host.saveState();
    },
  },
  "SaharaCollector.receive": {
    bytes: () => collectorAt("data").transfer,
    call: (bytes) => {
      const actions = collectorAt("data").collector.receive(bytes);
      return () => actions;
    },
  },
  "SaharaDevice.receive": {
    bytes: () => {
      const [hello] = new api.SaharaCollector().connected();
      return hello?.kind === "send" ? hello.bytes : pattern(1, 48);
    },
    call: (bytes) => {
      const source = new api.SaharaDevice([saharaMemory("a", 0x1000, 256)]);
      source.connected();
      const actions = source.receive(bytes);
      return () => actions;
    },
  },
  "RawImage.writeSync": {
    bytes: () => pattern(5, 5000),
    call: (bytes) => {
      const { image, end } = rawImage(16384);
      image.writeSync(100, bytes);
      const written = new Uint8Array(16384);
      image.readSync(0, written);
      end();
      return () => written;
    },
  },
  // What lies in options and in structures.
  "DeviceOptions.content": {
    bytes: () => pattern(7, 1 << 20),
    call: (bytes) => {
      const one = device({ content: bytes });
      return () => one.read(0, 1 << 20);
    },
  },
  "PanicInput.text": {
    bytes: () => PANIC_LOG,
    call: (bytes) => {
      const one = device({ area: KMSG });
      const result = one.panicWrite({ text: bytes });
      return () => [result.status, api.decodeArea(one.medium().subarray(KMSG.offset))];
    },
  },
  "DumpNote.description": {
    bytes: () => pattern(3, 300),
    call: (bytes) => {
      const dump = new api.CrashDump(coreModule("release"), {
        machine: 62,
        class: 64,
        notes: [{ type: 1, description: bytes }],
      });
      dump.register({ name: "text", address: 0n, source: pattern(1, 100) });
      return () => {
        const plan = dump.plan();
        return plan.read(0, plan.sizeBytes);
      };
    },
  },
  "SaharaResume.table": {
    bytes: () => {
      const { collector, transfer } = collectorAt("table");
      const [table] = collector.receive(transfer);
      return table?.kind === "table" ? table.bytes : new Uint8Array(64);
    },
    call: (bytes) => {
      const collector = new api.SaharaCollector({ resume: { table: bytes, receivedBytes: [0] } as never });
      const source = new api.SaharaDevice([saharaMemory("a", 0x1000, 256)]);
      return () => {
        let toHost = source.connected();
        const seen: unknown[] = [...collector.connected()];
        for (let i = 0; i < 20; i++) {
          const actions = toHost.flatMap((one) => (one.kind === "send" ? collector.receive(one.bytes) : []));
          seen.push(...actions.map(({ kind }) => kind));
          toHost = actions.flatMap((one) => (one.kind === "send" ? source.receive(one.bytes) : []));
        }
        return seen;
      };
    },
  },
  "DevlinkSnapshot.bytes": {
    bytes: () => pattern(4, 4096),
    call: (bytes) => {
      const given = devlink();
      const id = given.snapshotEvent(new Map([["r", pattern(4, 4096)]]));
      const state = given.state();
      const snapshots = state.regions[0]?.snapshots ?? [];
      const instance = devlink();
      instance.load({
        ...state,
        regions: state.regions.map((one) => ({ ...one, snapshots: snapshots.map((s) => ({ ...s, bytes })) })),
      });
      return () => chunksOf(instance, id);
    },
  },
  "PstoreRecord.bytes": {
    bytes: () => PANIC_LOG,
    call: (bytes) => {
      const [record] = api.decodeArea(area()).records;
      const logs = api.joinLogs([{ ...(record as api.PstoreRecord), bytes, size: bytes.length }]);
      const formatted = logs.map(api.formatLog);
      return () => [logs.map(({ text }) => text), formatted];
    },
  },
  "JoinedLog.text": {
    bytes: () => PANIC_LOG,
    call: (bytes) => {
      const formatted = api.formatLog({ parts: [], text: bytes, missing: [], hasNewest: false });
      return () => formatted;
    },
  },
};

/** Filled by the callee, or read for as long as its documentation says; no copy is promised. */
const NO_COPY: Record<string, string> = {
  bytesSource: "live: its result reads them",
  "OverlayMedium.read": "filled",
  "RawImage.readSync": "filled",
  "DumpPlan.readInto": "filled",
  "ElfSource.readSync": "filled",
  "Region.source": "live: what they hold when the dump is read",
  "DevlinkRegion.source": "live: what they hold when a snapshot is taken",
};

// ---- the list of what takes bytes, from the declarations ----

function declarations(): string {
  const folder = `${ROOT}dist/host`;
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names
    .filter((name) => name.endsWith(".d.ts") && !/^(cli|explore)\//.test(name))
    .map((name) => readFileSync(join(folder, name), "utf8").replace(/\/\*[\s\S]*?\*\//g, ""))
    .join("\n");
}

/** The names of exported functions, and CLASS.method of exported classes, of which a parameter is made of bytes. */
function takersOfBytes(): string[] {
  const text = declarations();
  const takers: string[] = [];
  const takes = (signature: string) => {
    const parameters = signature.slice(signature.indexOf("("), signature.lastIndexOf(")"));
    return /Uint8Array/.test(parameters);
  };
  for (const [name, value] of Object.entries(api)) {
    if (typeof value !== "function") continue;
    const found = new RegExp(`export declare function ${name}(\\([\\s\\S]*?\\): [^;]*);`).exec(text);
    if (found !== null) {
      if (takes(found[1] as string)) takers.push(name);
      continue;
    }
    const body = new RegExp(`export declare class ${name}\\b[^{]*\\{([\\s\\S]*?)\\n\\}`).exec(text)?.[1];
    assert.ok(body !== undefined, `${name}: there is no declaration of it`);
    for (const [, method, signature] of body.matchAll(/\n {4}(?:static )?(\w+)(\([^;]*\)(?:: [^;]*)?);/g)) {
      if (takes(signature as string)) takers.push(method === "constructor" ? name : `${name}.${method}`);
    }
  }
  return takers;
}

test("every exported function and method that takes bytes has its case, or a word why it has none", () => {
  const takers = takersOfBytes();
  assert.ok(takers.length >= 25, `only ${takers.length} were found`);
  const known = new Set([...Object.keys(CASES), ...Object.keys(NO_COPY)]);
  assert.equal(
    takers.filter((name) => !known.has(name)),
    [],
  );
});

// ---- what is given stays the caller's ----

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    return `${value.constructor.name} ${value.length} ${createHash("sha1").update(value).digest("hex")}`;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) return [...value].map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
}

for (const [name, { bytes, call }] of Object.entries(CASES)) {
  test(`bytes given to ${name} are copied, and not changed`, () => {
    const wanted = plain(call(bytes())());
    for (const kind of ["buffer", "shared"] as const) {
      for (const skipBytes of [1, 16]) {
        const lent = lend(bytes(), kind, skipBytes);
        const look = call(lent.view);
        lent.check(name);
        lent.spend();
        assert.equal(plain(look()), wanted, `${kind} at ${skipBytes}`);
      }
    }
  });
}

test("a Buffer of a whole file: the records that are in it, and the file's bytes as they were", () => {
  const file = Buffer.from(area());
  const before = Buffer.from(file);
  const { records } = api.decodeArea(file, SIZES);
  const kinds = records.map(
    ({ type, state, compressed }) => `${type} ${state}${compressed ? " compressed" : ""}`,
  );
  assert.equal(kinds, KINDS);
  assert.is(Buffer.compare(file, before), 0);
});

// ---- the sources ----

/** What `slice` may be called on, by the words in front of it: texts, and lists of things. Bytes are copied by ownBytes(). */
const SLICED = [
  /\b(?:text|value|cache|name|spec|location|reason|line|raw|kind|printable|description|path)$/, // texts
  /\b(?:event\.type|toISOString\(\)|basename\(path\)\}`)$/,
  /\b(?:argv|names|levels|words|given|oldTexts|partitions|links|sorted|ranges|spans|records|used|zones|SAHARA_OPENING_FAULTS|RING_TYPES|furtherParts|locator)$/, // lists
  /(?:#regions|\.proved\]|\w\[[01]\]\)|: ranges\))$/,
];

test("no slice() of bytes in host/: of a Buffer it is a view", () => {
  const isAllowed = (before: string) => SLICED.some((one) => one.test(before));
  const wrong: string[] = [];
  for (const name of readdirSync(`${ROOT}host`, { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".ts")) continue;
    const source = readFileSync(`${ROOT}host/${name}`, "utf8").replace(/(?<!:)\/\/[^\n]*/g, "");
    for (const { index } of source.matchAll(/\??\.slice\(/g)) {
      const before = source.slice(0, index).trimEnd();
      if (!isAllowed(before)) wrong.push(`${name}: ${before.split("\n").at(-1)?.trim()}.slice(`);
    }
  }
  assert.equal(wrong, []);
  for (const bytes of [
    "bytes",
    "data",
    "region",
    "area.bytes",
    "state",
    "this.#table",
    "medium()",
    "record.bytes",
  ]) {
    assert.not.ok(isAllowed(`const copy = ${bytes}`), bytes);
  }
});

// ---- suites ----

/** Of `npm run test:given`'s suites those that cost little; each runs there once more, whole. */
const SUITES = ["ramoops", "devlink", "sahara", "embedding", "image", "kmsg-sources"];

for (const name of SUITES) {
  test(`the suite ${name} once more, with Buffers and shared memory`, () => {
    const hooks = `${ROOT}dist/tests/given-hooks.js`;
    const output = execFileSync(process.execPath, ["--import", hooks, `${ROOT}dist/tests/${name}.test.js`], {
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "1" },
      maxBuffer: 2 ** 26,
    });
    assert.match(output, /Passed:\s+[1-9]/);
  });
}

test.run();
