// What the user wrote and nobody has flushed yet belongs to him, whoever meets its errors: a flush of the rings, a panic,
// a restart of the card, a write that pushed it out of the cache. He is told by his next flush(), once, and never that
// all is well while his bytes are gone. And a zone or a ring is not blamed for his bad sector.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device } from "../host/device.js";
import type { DeviceOptions, PanicArea } from "../host/device-options.js";
import { MmcError } from "../host/errors.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule, pattern, sameBytes } from "./machine.js";

const AREA: PanicArea = { offset: 256 * 1024, kmsgSize: 16384, kmsgCount: 4, abi: "lp64", pmsgSize: 8192 };
const AREA_BYTES = 4 * 16384;
const FIRST_LBA = 100;
const SECTOR_BYTES = 512;

const CACHED: DeviceOptions = { cacheSectors: 32, reliableWrite: false };
const KINDS: Record<string, DeviceOptions> = {
  flushed: { ...CACHED, cmd23: false },
  forced: CACHED,
  reliable: { cacheSectors: 32 },
};

/** A device on a medium some of whose sectors can be made to refuse every write. */
function open(options: DeviceOptions) {
  const bytes = new Uint8Array(1 << 20);
  const bad = new Set<number>();
  const device = Device.openExternal(
    coreModule("external"),
    {
      sizeBytes: bytes.length,
      read: (offset, target) => target.set(bytes.subarray(offset, offset + target.length)),
      write: (offset, data) => {
        for (const lba of bad) {
          const at = lba * SECTOR_BYTES;
          if (offset <= at && offset + data.length > at) throw new Error("this cell is worn");
        }
        bytes.set(data, offset);
      },
    },
    { sizeBytes: 1 << 20, addressing: "sector", ...options, area: AREA },
  );
  return { device, bytes, bad };
}

function codeOf(call: () => void): string {
  try {
    call();
    return "ok";
  } catch (error) {
    return error instanceof MmcError ? error.code : (error as Error).message;
  }
}

/** What else uses the card between the user's write and his flush. */
const OTHERS: Record<string, (device: Device) => void> = {
  nothing: () => undefined,
  "the first flush of a ring": (device) => {
    device.writePmsg(pattern(3, 700));
    device.flushRings();
  },
  "an Oops": (device) => {
    assert.is(device.panicWrite({ text: "oops\n", reason: "Oops" }).status, 0);
  },
  "an Oops with a ring": (device) => {
    device.writePmsg(pattern(3, 700));
    const result = device.panicWrite({ text: "oops\n", reason: "Oops" });
    assert.equal([result.status, result.ringsStatus], [0, 0]);
  },
  "two Oopses": (device) => {
    for (let i = 0; i < 2; i++) assert.is(device.panicWrite({ text: "oops\n", reason: "Oops" }).status, 0);
  },
  "other writes that fill the cache": (device) => {
    for (let i = 0; i < 40; i++)
      codeOf(() => device.write((300 + i) * SECTOR_BYTES, pattern(i, SECTOR_BYTES)));
  },
  "a card that must be started again": (device) => {
    device.injectFault({ kind: "vanish", command: 13, times: 1 });
    assert.is(device.panicWrite({ text: "oops\n", reason: "Oops" }).status, 0);
    device.clearFaults();
  },
  "a flush of the rings whose status is lost": (device) => {
    device.writePmsg(pattern(3, 700));
    device.injectFault({ kind: "response-crc", command: 13, times: 1 });
    device.flushRings();
    device.clearFaults();
  },
};

test("flush() never says ok while what was written is gone, and says it again once it has been told", () => {
  let cases = 0;
  let told = 0;
  for (const [kindName, kind] of Object.entries(KINDS)) {
    for (const [name, other] of Object.entries(OTHERS)) {
      for (const badSectors of [0, 1, 2, 3, 5]) {
        const { device, bytes, bad } = open(kind);
        for (let i = 0; i < badSectors; i++) bad.add(FIRST_LBA + 2 * i);
        const data = pattern(4, 16 * SECTOR_BYTES);
        device.write(FIRST_LBA * SECTOR_BYTES, data);
        other(device);
        const first = codeOf(() => device.flush());
        const second = codeOf(() => device.flush());
        device.powerCut("old", "lost");
        const at = FIRST_LBA * SECTOR_BYTES;
        const isThere = sameBytes(bytes.subarray(at, at + data.length), data);
        const what = `${kindName}, ${badSectors} bad sectors, then ${name}: flush ${first}, there ${isThere}`;
        assert.ok(isThere || first === "EIO", what);
        assert.is(second, "ok", `${what}, told twice`);
        // What nobody could have lost is not complained about.
        if (badSectors === 0 && !/started again|status is lost/.test(name)) assert.is(first, "ok", what);
        cases++;
        if (first === "EIO") told++;
      }
    }
  }
  console.log(`\n# ${cases} cases of a write, another user of the card and a flush; ${told} told as EIO`);
});

test("a panic that takes the host in the middle of a flush leaves the loss with the user", () => {
  // Not on a medium elsewhere: a fault of the simulated card that strikes as the cache is emptied.
  let deaths = 0;
  for (const [kindName, kind] of Object.entries(KINDS)) {
    let left = Number.POSITIVE_INFINITY;
    const hit = () => {
      if (--left < 0) {
        left = Number.POSITIVE_INFINITY;
        throw new Error("this CPU stops here");
      }
    };
    const device = Device.open(
      coreModule("explore"),
      { sizeBytes: 1 << 20, addressing: "sector", ...kind, area: AREA },
      { mark: { hit } },
    );
    const data = pattern(4, 4 * SECTOR_BYTES);
    device.write(FIRST_LBA * SECTOR_BYTES, data);
    device.injectFault({ kind: "program", firstLba: FIRST_LBA + 1, lastLba: FIRST_LBA + 1, times: 1 });
    const before = device.saveState();
    for (let at = 0; ; at++) {
      device.loadState(before);
      left = at;
      const died = /stops here/.test(codeOf(() => device.flush()));
      left = Number.POSITIVE_INFINITY;
      if (!died) break;
      deaths++;
      const { status } = device.panicWrite({ text: "oops\n", reason: "Oops" });
      assert.is(status, 0, `${kindName}, mark ${at}`);
      const told = codeOf(() => device.flush());
      device.powerCut("old", "lost");
      const from = FIRST_LBA * SECTOR_BYTES;
      const isThere = sameBytes(device.medium().subarray(from, from + data.length), data);
      assert.ok(isThere || told === "EIO", `${kindName}, mark ${at}: flush ${told} and the bytes are gone`);
    }
  }
  assert.ok(deaths > 100);
  console.log(`\n# ${deaths} panics in the middle of a flush that fails`);
});

test("a zone is judged by its own sectors: no older record goes for a bad sector of the user's", () => {
  let cases = 0;
  for (const [kindName, kind] of Object.entries(KINDS)) {
    for (const oldRecords of [1, 3, 4]) {
      for (const badSectors of [0, 1, 2, 4, 8]) {
        const { device, bytes, bad } = open(kind);
        for (let i = 0; i < oldRecords; i++) {
          device.panicWrite({ text: `old ${i} ${"y".repeat(3000)}\n`, reason: "Oops" });
        }
        device.flush();
        for (let i = 0; i < badSectors; i++) {
          bad.add(FIRST_LBA + 7 * i);
          device.write((FIRST_LBA + 7 * i) * SECTOR_BYTES, pattern(i, SECTOR_BYTES));
        }
        device.writePmsg(pattern(2, 700));
        const result = device.panicWrite({ text: "last words\n" });
        const what = `${kindName}, ${oldRecords} records, ${badSectors} bad sectors`;
        assert.equal([result.status, result.attempts, result.ringsStatus], [0, 1, 0], what);
        const { records } = decodeArea(bytes.subarray(AREA.offset, AREA.offset + AREA_BYTES), {
          kmsgSize: 16384,
          pmsgSize: 0,
          consoleSize: 0,
          ftraceSize: 0,
          abi: "lp64",
        });
        const standing = records.filter(({ state }) => state === "ok").length;
        assert.is(standing, Math.min(oldRecords + 1, 4), what);
        const flush = codeOf(() => device.flush());
        assert.is(flush, badSectors > 0 ? "EIO" : "ok", what);
        cases++;
      }
    }
  }
  console.log(
    `\n# ${cases} panics over bad sectors of the user's, each record in the first zone that was tried`,
  );
});

test.run();
