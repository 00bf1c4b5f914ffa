// The store of snapshots: what comes back of an instance, and what is made of bytes that are none. Hostile stores with
// right checksums: nothing but MmcError is thrown, and what is taken is stored again as the same bytes.
// `MMCPSTORE_DEVLINK_RUNS` stores (3,000), by default from the same seed each time; `MMCPSTORE_DEVLINK_SEED`.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Devlink } from "../host/devlink/devlink.js";
import { decodeStore, encodeStore } from "../host/devlink/store.js";
import { MmcError } from "../host/errors.js";
import { crc32c } from "../host/pstore/crc32c.js";

const RUNS = Number(process.env.MMCPSTORE_DEVLINK_RUNS ?? 3000);
let state = Number(process.env.MMCPSTORE_DEVLINK_SEED ?? 1) >>> 0;

/** 0 to `end` - 1. */
function chance(end: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * end);
}

function store(devlink: Devlink): Uint8Array {
  return new Uint8Array(Buffer.concat(encodeStore(devlink.state())));
}

/** As its bytes say, on an instance that has none of its regions. */
function restore(bytes: Uint8Array): Devlink {
  const decoded = decodeStore(bytes);
  const devlink = new Devlink(decoded.handle);
  devlink.load(decoded);
  return devlink;
}

/** Three regions, one without snapshots, ids of every kind. */
function sample(): Devlink {
  const devlink = new Devlink("platform/mmc0");
  let fill = 0;
  const source = (_: number, target: Uint8Array) => void target.fill(++fill);
  devlink.addRegion({ name: "cid", size: 16, source });
  devlink.addRegion({ name: "sdhci", size: 256, maxSnapshots: 3, source });
  devlink.addRegion({ name: "ram", size: 2 ** 40, directRead: true, immediate: false, source });
  devlink.newSnapshot("cid");
  devlink.newSnapshot("cid", 0xffffffff);
  devlink.snapshotEvent(
    new Map([
      ["cid", undefined],
      ["sdhci", undefined],
    ]),
  );
  devlink.deleteSnapshot("cid", 0);
  devlink.newSnapshot("sdhci");
  return devlink;
}

/** The head's checksum, as whoever forges a store would put it there. */
function seal(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const head = Math.min(view.getUint32(16, true), bytes.length);
  view.setUint32(12, crc32c(bytes, 16, head), true);
  return bytes;
}

function throwsCode(work: () => unknown, code: string, pattern: RegExp): void {
  assert.throws(work, (error: unknown) => {
    assert.instance(error, MmcError);
    assert.is((error as MmcError).code, code);
    assert.match((error as MmcError).message, pattern);
    return true;
  });
}

test("what is stored comes back: regions, order, bytes, and which id is next", () => {
  const devlink = sample();
  const again = restore(store(devlink));
  assert.equal(again.state(), devlink.state());
  assert.equal(store(again), store(devlink));
  assert.equal(
    again.regions().map(({ live, ...rest }) => rest),
    devlink.regions().map(({ live, ...rest }) => rest),
  );
  assert.equal(
    again.regions().map(({ live }) => live),
    [false, false, false],
  );
  // 0 was a user's and is never free again, 1 is the event's, 2 the next user's.
  const next = [devlink.getSnapshotId(), again.getSnapshotId()];
  assert.equal(next, [3, 3]);
  assert.equal([...again.read("cid", { snapshot: 1 })][0]?.data, new Uint8Array(16).fill(3));
  const empty = new Devlink("a/b");
  assert.equal(restore(store(empty)).state(), empty.state());
});

test("a store meets the regions of a machine", () => {
  const bytes = store(sample());
  const machine = new Devlink("platform/mmc0");
  machine.addRegion({ name: "sdhci", source: new Uint8Array(256) });
  machine.addRegion({ name: "pstore", source: new Uint8Array(512) });
  machine.load(decodeStore(bytes));
  assert.equal(
    machine.regions().map(({ name, snapshots, maxSnapshots, live }) => [name, snapshots, maxSnapshots, live]),
    [
      ["sdhci", [1, 2], 3, true],
      ["pstore", [], 8, true],
      ["cid", [0xffffffff, 1], 8, false],
      ["ram", [], 8, false],
    ],
  );
  assert.is(machine.newSnapshot("sdhci"), 3);
  throwsCode(() => machine.newSnapshot("sdhci"), "ENOSPC", /maximum/);
  throwsCode(() => machine.load(decodeStore(bytes)), "EINVAL", /has snapshots already/);
  const other = new Devlink("platform/mmc0");
  other.addRegion({ name: "sdhci", source: new Uint8Array(128) });
  throwsCode(() => other.load(decodeStore(bytes)), "EINVAL", /sdhci: has 128 bytes, its snapshots 256/);
  assert.is(other.regions().length, 1);
  throwsCode(() => new Devlink("pci/x").load(decodeStore(bytes)), "EINVAL", /is not pci\/x/);
  const small = new Devlink("platform/mmc0", { snapshotBytesMax: 500 });
  throwsCode(() => small.load(decodeStore(bytes)), "EBADMSG", /snapshots of 544 bytes, 500 are allowed/);
});

test("one wrong bit in a snapshot costs that one; anywhere in the head it costs the store", () => {
  const devlink = sample();
  const good = store(devlink);
  const headBytes = new DataView(good.buffer).getUint32(16, true);
  const all = devlink.regions().flatMap(({ name, snapshots }) => snapshots.map((id) => ({ name, id })));
  const damaged = new Set<string>();
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bytes = good.slice();
    bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
    if (bit >> 3 < headBytes) {
      assert.throws(
        () => restore(bytes),
        (error: unknown) => error instanceof MmcError,
        `bit ${bit}`,
      );
      continue;
    }
    const again = restore(bytes);
    const lost = all.filter(({ name, id }) => {
      try {
        again.read(name, { snapshot: id });
        return false;
      } catch (error) {
        assert.is((error as MmcError).code, "EBADMSG");
        return true;
      }
    });
    assert.is(lost.length, 1, `bit ${bit}`);
    damaged.add(`${lost[0]?.name} ${lost[0]?.id}`);
    // Storing it again does not make it whole.
    assert.equal(store(again), bytes);
  }
  assert.is(damaged.size, all.length);
});

test("cut anywhere, longer, of another version, of another kind, giant: refused", () => {
  const good = store(sample());
  for (let length = 0; length < good.length; length++) {
    throwsCode(() => restore(good.slice(0, length)), "EBADMSG", /./);
    // As long as it should be, its last snapshot is damaged, and that is all.
    if (length + 28 === good.length) continue;
    const padded = Uint8Array.from([...good.slice(0, length), ...new Uint8Array(28)]);
    assert.throws(
      () => restore(seal(padded)),
      (error: unknown) => error instanceof MmcError,
    );
  }
  throwsCode(
    () => restore(Uint8Array.from([...good, 0])),
    "EBADMSG",
    new RegExp(`has ${good.length + 1} bytes, its snapshots make it ${good.length}$`),
  );
  const version = good.slice();
  version[8] = 2;
  throwsCode(() => restore(version), "EOPNOTSUPP", /version 2, only 1/);
  throwsCode(() => restore(new TextEncoder().encode(`${"x".repeat(40)}`)), "EBADMSG", /is no store/);
  const giant = good.slice();
  new DataView(giant.buffer).setUint32(16, 0xffffffff, true);
  throwsCode(() => restore(giant), "EBADMSG", /a head of 4294967295 bytes/);
});

test("more snapshots than a store lists are refused when it is made, not when it is read", () => {
  const devlink = new Devlink("a/b");
  for (let i = 0; i < 5; i++) {
    devlink.addRegion({ name: `r${i}`, maxSnapshots: 60_000, source: new Uint8Array(1) });
  }
  const event = new Map(devlink.regions().map(({ name }) => [name, undefined]));
  for (let i = 0; i < 40_000; i++) devlink.snapshotEvent(event);
  assert.equal(restore(store(devlink)).state(), devlink.state());
  for (let i = 0; i < 4_000; i++) devlink.snapshotEvent(event);
  throwsCode(() => store(devlink), "EFBIG", /more snapshots than a store lists/);
});

test("what no instance can have been is refused, with right checksums", () => {
  type State = ReturnType<Devlink["state"]>;
  const cases: [RegExp, (state: State) => void][] = [
    [/no name, or that of another/, (s) => s.regions.push(structuredClone(s.regions[2] as never))],
    [/no name, or that of another/, ({ regions }) => Object.assign(regions[0] as object, { name: "a/b" })],
    [/no name, or that of another/, ({ regions }) => Object.assign(regions[0] as object, { name: "" })],
    [/ram has no size/, ({ regions }) => Object.assign(regions[2] as object, { size: 0 })],
    [/ram has no size/, ({ regions }) => Object.assign(regions[2] as object, { size: 2 ** 53 })],
    [/2 snapshots and keeps 1/, ({ regions }) => Object.assign(regions[0] as object, { maxSnapshots: 1 })],
    [/0 snapshots and keeps 0/, ({ regions }) => Object.assign(regions[2] as object, { maxSnapshots: 0 })],
    [
      /two snapshots of one id/,
      ({ regions }) => Object.assign(regions[0]?.snapshots[0] as object, { id: 1 }),
    ],
    [/id 1 is counted 9 times and held by 2/, ({ ids }) => ids.splice(1, 1, [1, 9])],
    [
      /id 1 is counted 1 times and held by 2/,
      (s) => Object.assign(s, { ids: s.ids.map(([id, n]) => [id, id === 1 ? 1 : n]) }),
    ],
    [/counted 0 times/, ({ ids }) => void ids.push([77, 0])],
    [/not those of the snapshots/, ({ ids }) => void ids.push([...(ids[0] as [number, number])])],
    [/not those of the snapshots/, (s) => Object.assign(s, { ids: s.ids.filter(([id]) => id !== 1) })],
    [
      /more regions or ids/,
      ({ ids }) =>
        void ids.push(...Array.from({ length: 65_536 }, (_, i) => [i + 10, 1] as [number, number])),
    ],
    [
      /more regions or ids/,
      ({ regions }) =>
        void regions.push(
          ...Array.from({ length: 1024 }, (_, i) => ({
            name: `r${i}`,
            size: 1,
            maxSnapshots: 1,
            snapshots: [],
          })),
        ),
    ],
    [/is no BUS\/DEV/, (s) => Object.assign(s, { handle: "nothing" })],
  ];
  for (const [pattern, break_] of cases) {
    const broken = sample().state();
    // Each case says which id it means.
    broken.ids.sort(([a], [b]) => a - b);
    break_(broken);
    const bytes = new Uint8Array(Buffer.concat(encodeStore(broken)));
    assert.throws(
      () => restore(bytes),
      (error: unknown) => error instanceof MmcError && pattern.test(error.message),
      String(pattern),
    );
  }
});

test(`${RUNS} hostile stores: MmcError or an instance that works`, () => {
  const good = store(sample());
  const words = [0, 1, 2, 3, 16, 255, 256, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, good.length];
  const headBytes = new DataView(good.buffer).getUint32(16, true);
  let taken = 0;
  const heapBefore = process.memoryUsage().arrayBuffers;
  for (let run = 0; run < RUNS; run++) {
    let bytes = good.slice();
    for (let change = chance(4); change >= 0; change--) {
      const at = 16 + chance(headBytes - 16);
      const kind = chance(5);
      if (kind === 0) bytes[at] = chance(256);
      else if (kind === 1) bytes[at] = (bytes[at] as number) ^ (1 << chance(8));
      else if (kind === 2 && at + 4 <= bytes.length) {
        new DataView(bytes.buffer).setUint32(at, words[chance(words.length)] as number, true);
      } else if (kind === 3) bytes = bytes.slice(0, Math.max(28, bytes.length - chance(300)));
      else bytes = Uint8Array.from([...bytes, ...new Uint8Array(chance(300))]);
    }
    if (chance(8) > 0) seal(bytes);
    let devlink: Devlink;
    try {
      devlink = restore(bytes);
    } catch (error) {
      assert.instance(error, MmcError, `run ${run}: ${(error as Error).stack}`);
      continue;
    }
    taken++;
    assert.equal(store(devlink), bytes, `run ${run}`);
    for (const { name, snapshots } of devlink.regions()) {
      for (const id of snapshots) {
        try {
          for (const { data } of devlink.read(name, { snapshot: id })) assert.ok(data.length > 0);
        } catch (error) {
          assert.is((error as MmcError).code, "EBADMSG", `run ${run}`);
        }
        devlink.deleteSnapshot(name, id);
      }
    }
    const left = devlink.state().ids;
    assert.ok(
      left.every(([, count]) => count === 1),
      `run ${run}`,
    );
  }
  assert.ok(taken > RUNS / 100, `${taken} were taken`);
  assert.ok(process.memoryUsage().arrayBuffers - heapBefore < 256 * 2 ** 20);
  console.log(`\n# ${RUNS} hostile stores, ${taken} of them taken`);
});

test.run();
