// The rings: against a small model of what a reader must see, byte for byte in Linux's layout, at every cut, and where
// Linux's own order of writes loses or mixes (each window by its name, with that order in a model beside ours).
import * as fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { RING_BYTES_MAX, RING_INBOX } from "../assembly/layout.js";
import { Device } from "../host/device.js";
import type { DeviceOptions, PanicArea } from "../host/device-options.js";
import { MmcError } from "../host/errors.js";
import { explorationText } from "../host/explore/explore.js";
import { exploreRings, judgeRing, RING_SCENARIOS } from "../host/explore/rings.js";
import { decodeArea } from "../host/pstore/decode.js";
import { coreModule, PANIC_LOG, pattern, sameBytes } from "./machine.js";

const BASE = 128 * 1024;
const HEADER_BYTES = 12;

/** An area with rings at BASE and two kmsg zones of 8 KiB behind them. */
function areaOf(sizes: Partial<PanicArea>): PanicArea {
  const { pmsgSize = 0, consoleSize = 0, ftraceSize = 0 } = sizes;
  const offset = BASE + pmsgSize + consoleSize + ftraceSize;
  return { offset, kmsgSize: 8192, kmsgCount: 2, abi: "lp64", ...sizes };
}

function open(sizes: Partial<PanicArea>, options: DeviceOptions = {}): Device {
  return Device.open(coreModule("release"), { sizeBytes: 512 * 1024, ...options, area: areaOf(sizes) });
}

/** What a reader of the medium is shown. */
function decoded(device: Device, sizes: Partial<PanicArea>, bytes = device.medium()) {
  const { pmsgSize = 0, consoleSize = 0, ftraceSize = 0, cpus, abi } = sizes;
  const end = areaOf(sizes).offset + 2 * 8192;
  return decodeArea(bytes.subarray(BASE, end), {
    kmsgSize: 8192,
    pmsgSize,
    consoleSize,
    ftraceSize,
    cpus: ftraceSize > 0 ? cpus : undefined,
    abi,
  });
}

function shown(device: Device, sizes: Partial<PanicArea>, name: string): Uint8Array | null {
  return (
    decoded(device, sizes)
      .records.find((record) => record.name === name)
      ?.bytes.slice() ?? null
  );
}

/** Bytes of which none is blank. */
function said(seed: number, lengthBytes: number): Uint8Array {
  return pattern(seed, lengthBytes).map((byte) => byte || 1);
}

const CONFIGS: DeviceOptions[] = [
  { card: "emmc" },
  { card: "emmc", reliableWrite: false, cacheSectors: 16, cmd23: false },
  { card: "sd", dma: false },
];

test("random writes, flushes, cuts and panics: a reader sees the newest bytes of what was acknowledged", () => {
  const sizes = { pmsgSize: 1024, consoleSize: 4096 };
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant("write" as const), bytes: fc.nat(1500) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("flush" as const), bytes: fc.constant(0) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("write" as const), bytes: fc.nat(9000) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("boot" as const), bytes: fc.constant(0) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("panic" as const), bytes: fc.constant(0) }) },
  );
  let steps = 0;
  fc.assert(
    fc.property(fc.constantFrom(...CONFIGS), fc.array(step, { maxLength: 25 }), (options, plan) => {
      const device = open(sizes, options);
      const rings = [
        { name: "pmsg-pstore_blk-0", capacity: 1024 - HEADER_BYTES, write: device.writePmsg.bind(device) },
        {
          name: "console-pstore_blk-0",
          capacity: 4096 - HEADER_BYTES,
          write: device.writeConsole.bind(device),
        },
      ].map((ring) => ({ ...ring, stream: Buffer.alloc(0), shown: Buffer.alloc(0) }));
      let seed = 0;
      for (const { kind, bytes } of plan) {
        steps++;
        if (kind === "write") {
          for (const ring of rings) {
            const more = said(++seed, bytes);
            ring.write(more);
            ring.stream = Buffer.concat([ring.stream, more]);
          }
        } else if (kind === "boot") {
          device.powerCut();
          device.powerOn();
          for (const ring of rings) ring.stream = Buffer.alloc(0);
        } else {
          if (kind === "flush") device.flushRings();
          else {
            const result = device.panicWrite({ text: PANIC_LOG.subarray(0, 2000), timeSec: 7n });
            assert.is(result.status, 0);
            assert.is(result.ringsStatus, 0);
          }
          for (const ring of rings) {
            if (ring.stream.length > 0) ring.shown = ring.stream.subarray(-ring.capacity);
          }
        }
        for (const ring of rings) {
          const view = shown(device, sizes, ring.name) ?? new Uint8Array(0);
          assert.ok(sameBytes(view, ring.shown), `${kind}: ${ring.name} shows ${view.length} bytes`);
        }
      }
    }),
    { numRuns: 400 },
  );
  console.log(`# ${steps} steps of ring writes, flushes, boots and panics as the model says`);
});

test("golden bytes: Linux's signatures, lengths and start", () => {
  const sizes = { pmsgSize: 4096, consoleSize: 4096, ftraceSize: 4096, cpus: 2 };
  const device = open(sizes);
  device.writePmsg(new TextEncoder().encode("pmsg user line\n"));
  device.writeConsole(new TextEncoder().encode("[    0.0] console\n"));
  device.writeFtrace([
    { cpu: 0, ip: 0xffffffff81000000n, parentIp: 0xffffffff81000010n },
    { cpu: 1, ip: 0x1234n, parentIp: 0xffffffff81000010n },
  ]);
  assert.is(device.state().storedSectors, 0n, "in memory only");
  device.flushRings();
  const hex = (at: number, bytes: number) =>
    Buffer.from(device.medium().subarray(BASE + at, BASE + at + bytes));
  // As Linux writes them (tests/data has none: Debian builds no front-end), but for start: 0 until the ring is full.
  assert.is(
    hex(0, 27).toString("hex"),
    `434247430f00000000000000${Buffer.from("pmsg user line\n").toString("hex")}`,
  );
  assert.is(hex(4096, 12).toString("hex"), "464247431200000000000000");
  assert.is(
    hex(8192, 36).toString("hex"),
    "474247431800000000000000000000" + "81ffffffff10000081ffffffff0001000000000000",
  );
  assert.is(
    hex(10240, 36).toString("hex"),
    "4742474318000000000000003412000000000000" + "10000081ffffffff0102000000000000",
  );
  const { records, zones } = decoded(device, sizes);
  assert.equal(
    records.map(({ name }) => name),
    ["ftrace-pstore_blk-0", "pmsg-pstore_blk-0", "console-pstore_blk-0"],
  );
  assert.equal(
    zones.slice(0, 4).map(({ type, index, offset }) => `${type} ${index} ${offset}`),
    ["pmsg 0 0", "console 0 4096", "ftrace 0 8192", "ftrace 1 10240"],
  );
  assert.is(
    new TextDecoder().decode(records[0]?.bytes),
    "CPU:0 ts:1 ffffffff81000000  ffffffff81000010  0xffffffff81000000 <- 0xffffffff81000010\n" +
      "CPU:1 ts:2 00001234  ffffffff81000010  0x1234 <- 0xffffffff81000010\n",
  );
  // A full ring: Linux's worked example, lines of 33 bytes in a zone of 4096.
  for (let line = 15; line < 4084 + 107; line += 33)
    device.writePmsg(said(line, Math.min(33, 4084 + 107 - line)));
  device.flushRings();
  assert.is(hex(0, 12).toString("hex"), "43424743f40f00006b000000");
});

test("ftrace: slices merged by time, pieces of records dropped, CPUs found, both ABIs", () => {
  for (const abi of ["lp64", "i386"] as const) {
    const sizes = { ftraceSize: 4096, cpus: 4, abi };
    const device = open(sizes);
    const calls = Array.from({ length: 200 }, (_, i) => ({ cpu: (i * 7) % 4, ip: BigInt(i), parentIp: 9n }));
    device.writeFtrace(calls);
    device.flushRings();
    for (const cpus of [4, undefined]) {
      const { records, geometry } = decoded(device, { ...sizes, cpus: cpus as number });
      assert.is(geometry.cpus, 4);
      const lines = new TextDecoder().decode(records[0]?.bytes).trim().split("\n");
      // 1012 bytes of data a slice; 50 calls on each CPU.
      const kept = abi === "lp64" ? 42 : 50;
      assert.is(lines.length, kept * 4);
      assert.is(records[0]?.raw?.length, kept * 4 * (abi === "lp64" ? 24 : 16));
      const times = lines.map((line) => Number(/ts:(\d+) /.exec(line)?.[1]));
      assert.equal(
        times,
        times.slice().sort((a, b) => a - b),
      );
      assert.equal(
        lines.map((line) => Number(/^CPU:(\d)/.exec(line)?.[1])),
        times.map((time) => calls[time - 1]?.cpu),
      );
      assert.is(times.at(-1), 200);
    }
  }
});

test("what cannot be is refused before anything is touched", () => {
  const bad: [Partial<PanicArea>, string, RegExp][] = [
    [{ pmsgSize: 1000, offset: BASE }, "EINVAL", /pmsgSize: 1000 is not a multiple of 512/],
    [{ consoleSize: -512, offset: BASE }, "EINVAL", /consoleSize/],
    [{ ftraceSize: 8192, cpus: 3 }, "EINVAL", /whole sectors for each of 3 CPUs/],
    [{ ftraceSize: 512 * 65, cpus: 65 }, "EINVAL", /cpus: 65/],
    [{ ftraceSize: 512, cpus: 0 }, "EINVAL", /cpus: 0/],
    [{ pmsgSize: RING_BYTES_MAX, consoleSize: 512 }, "ENOMEM", /memory for them/],
    [{ pmsgSize: 4096, offset: 2048 }, "EINVAL", /do not fit in front of offset 2048/],
  ];
  for (const [area, code, message] of bad) {
    assert.throws(
      () => open(area, { sizeBytes: 2 ** 21 }),
      (error: unknown) => error instanceof MmcError && error.code === code && message.test(error.message),
      JSON.stringify(area),
    );
  }
  const device = open({ pmsgSize: 512 });
  assert.throws(() => device.writeConsole(said(1, 5)), /without such a ring/);
  assert.throws(() => device.writeFtrace([{ cpu: 0, ip: 0n, parentIp: 0n }]), /cpu/);
  device.leaveInFlight("claimed");
  device.writePmsg(said(1, 5));
  assert.throws(() => device.flushRings(), /EBUSY|busy/i);
});

test("the panic flushes what was in memory alone, behind its record", () => {
  for (const inFlight of ["write", "read", "program", "suspended", "claimed"] as const) {
    const sizes = { pmsgSize: 4096, consoleSize: 4096 };
    const device = open(sizes, { card: "sd", trace: true });
    device.writePmsg(said(1, 3000));
    device.flushRings();
    device.writePmsg(said(2, 100));
    device.leaveInFlight(inFlight);
    // Other CPUs go on talking until they are stopped.
    device.writeConsole(said(3, 5000));
    device.clearTrace();
    const result = device.panicWrite({ text: PANIC_LOG.subarray(0, 4000), timeSec: 3n });
    assert.is(result.status, 0);
    assert.is(result.ringsStatus, 0);
    assert.is(result.ringsFlushed, 2);
    const pmsg = Buffer.concat([said(1, 3000), said(2, 100)]);
    assert.ok(sameBytes(shown(device, sizes, "pmsg-pstore_blk-0") ?? new Uint8Array(0), pmsg));
    const text = said(3, 5000).subarray(-4084);
    assert.ok(sameBytes(shown(device, sizes, "console-pstore_blk-0") ?? new Uint8Array(0), text));
    const steps = device.trace().events.flatMap((event) => (event.kind === "step" ? [event.name] : []));
    assert.equal(steps.slice(-4), ["read back and compare", "flush a ring", "flush a ring", "done"]);
  }
});

test("no time left for a ring: it is not begun, the record stands, and the next panic brings it", () => {
  const sizes = { pmsgSize: 4096, consoleSize: 65536 };
  let skipped = 0;
  for (let deadlineUs = 2000; deadlineUs < 120_000; deadlineUs = Math.ceil(deadlineUs * 1.3)) {
    const device = open(sizes, { card: "sd", deadlineUs, dma: false });
    device.writeConsole(said(1, 60_000));
    device.flushRings();
    device.writeConsole(said(2, 40_000));
    device.writePmsg(said(3, 10));
    const before = shown(device, sizes, "console-pstore_blk-0");
    const result = device.panicWrite({ text: PANIC_LOG.subarray(0, 3000), timeSec: 3n });
    assert.ok(result.endNs - result.startNs <= BigInt(deadlineUs) * 1000n);
    if (result.status !== 0) continue;
    const after = shown(device, sizes, "console-pstore_blk-0") ?? new Uint8Array(0);
    const stream = Buffer.concat([said(1, 60_000), said(2, 40_000)]);
    if (result.ringsStatus === 0) assert.ok(sameBytes(after, stream.subarray(-65524)));
    else {
      assert.is(result.ringsStatus, -110);
      assert.ok(sameBytes(after, before ?? after), `${deadlineUs}`);
      skipped++;
    }
  }
  assert.ok(skipped > 0, "some deadlines are too short");
});

test("a sector that cannot be programmed costs its ring, not the others and not the record", () => {
  const sizes = { pmsgSize: 4096, consoleSize: 4096 };
  for (const card of ["emmc", "sd"] as const) {
    const device = open(sizes, { card });
    device.injectFault({ kind: "program", firstLba: BASE / 512 + 2, lastLba: BASE / 512 + 2 });
    device.writePmsg(said(1, 3000));
    device.writeConsole(said(2, 3000));
    const result = device.panicWrite({ text: PANIC_LOG.subarray(0, 4000), timeSec: 3n });
    assert.is(result.status, 0);
    assert.is(result.ringsStatus, -5);
    assert.is(result.ringsFlushed, 1);
    assert.is(shown(device, sizes, "pmsg-pstore_blk-0"), null);
    assert.ok(sameBytes(shown(device, sizes, "console-pstore_blk-0") ?? new Uint8Array(0), said(2, 3000)));
    device.clearFaults();
    device.flushRings();
    assert.ok(sameBytes(shown(device, sizes, "pmsg-pstore_blk-0") ?? new Uint8Array(0), said(1, 3000)));
  }
});

test("a record that finds no zone takes no ring with it, and the failure told is the record's", () => {
  const sizes = { pmsgSize: 4096, consoleSize: 4096 };
  for (const kind of ["program", "read-ecc"] as const) {
    const device = open(sizes, { card: "sd" });
    const area = { firstLba: BASE / 512 + 16, lastLba: 0xfffffffe };
    device.injectFault({ kind, ...area });
    device.writeConsole(said(1, 3000));
    const result = device.panicWrite({ text: PANIC_LOG.subarray(0, 4000), timeSec: 3n });
    assert.equal([result.status, result.ringsStatus, result.ringsFlushed], [-5, 0, 1], kind);
    assert.is.not(result.step, "flush a ring");
    assert.ok(result.failedCommand !== null);
    device.clearFaults();
    assert.ok(sameBytes(shown(device, sizes, "console-pstore_blk-0") ?? new Uint8Array(0), said(1, 3000)));
  }
});

test("a panic before the first recovery flushes the rings all the same", () => {
  const sizes = { pmsgSize: 4096, consoleSize: 4096 };
  const device = open(sizes, { card: "emmc" });
  device.powerCut("old", "lost");
  assert.is(device.core.openCard(), 0);
  const text = said(1, 2000);
  new Uint8Array(device.memory.buffer, RING_INBOX, text.length).set(text);
  assert.is(device.core.writeRing(1, text.length), 0);
  const result = device.panicWrite({ text: PANIC_LOG.subarray(0, 4000), timeSec: 3n });
  assert.equal([result.status, result.ringsStatus, result.ringsFlushed], [0, 0, 1]);
  assert.ok(sameBytes(shown(device, sizes, "console-pstore_blk-0") ?? new Uint8Array(0), text));
});

test("a panic in the middle of a flush, at every mark, ends with every byte on the medium", () => {
  const sizes = { pmsgSize: 1024, consoleSize: 1536 };
  let panics = 0;
  for (const [flushed, pending] of [
    [0, 700],
    [300, 400],
    [1400, 600],
    [2000, 1200],
  ] as const) {
    for (let stop = 1; ; stop += 3) {
      let marks = 0;
      let armed = false;
      const hit = () => {
        if (armed && ++marks === stop) throw new Error("this CPU stops here");
      };
      const device = Device.open(
        coreModule("explore"),
        { sizeBytes: 512 * 1024, card: "sd", dma: false, area: areaOf(sizes) },
        { mark: { hit } },
      );
      const streams = [said(1, flushed + pending), said(2, flushed + pending)] as const;
      const write = (from: number, until: number) => {
        device.writePmsg(streams[0].subarray(from, until));
        device.writeConsole(streams[1].subarray(from, until));
      };
      write(0, flushed);
      device.flushRings();
      write(flushed, flushed + pending);
      armed = true;
      let isOver = false;
      try {
        device.flushRings();
        isOver = true;
      } catch (error) {
        assert.match((error as Error).message, /stops here/);
      }
      armed = false;
      if (isOver) break;
      const result = device.panicWrite({ text: "late", timeSec: 3n });
      assert.is(result.status, 0);
      assert.is(result.ringsStatus, 0);
      for (const [i, name] of ["pmsg-pstore_blk-0", "console-pstore_blk-0"].entries()) {
        const capacity = (i === 0 ? sizes.pmsgSize : sizes.consoleSize) - HEADER_BYTES;
        const view = shown(device, sizes, name) ?? new Uint8Array(0);
        assert.ok(sameBytes(view, streams[i as 0 | 1].subarray(-capacity)), `${flushed} ${stop} ${name}`);
      }
      panics++;
    }
  }
  assert.ok(panics > 500);
  console.log(`# ${panics} panics in the middle of a flush of the rings`);
});

// Linux's order of writes (pstore/zone, 5.8 to 6.12), as small as it can be said: what one write to a ring does to the
// medium, write by write. Each of them is whole here; a torn one only adds to what is lost.
class LinuxRing {
  readonly #zone: Uint8Array;
  readonly #data: Uint8Array;
  #start = 0;
  /** The medium after every write to it, in order. */
  readonly media: Uint8Array[] = [];

  /** `medium`: what stands there. `isRecovered`: before, writes stay in memory. */
  constructor(
    readonly medium: Uint8Array,
    public isRecovered = true,
  ) {
    this.#zone = new Uint8Array(medium.length).fill(0xff);
    this.#data = this.#zone.subarray(HEADER_BYTES);
    new DataView(this.#zone.buffer).setUint32(0, 0x43474243, true);
  }

  #put(from: number, until: number): void {
    if (!this.isRecovered) return;
    this.medium.set(this.#zone.subarray(from, until), from);
    this.media.push(this.medium.slice());
  }

  #setHeader(datalen: number): void {
    const header = new DataView(this.#zone.buffer);
    header.setUint32(4, datalen, true);
    header.setUint32(8, this.#start, true);
    this.#put(0, HEADER_BYTES);
  }

  write(bytes: Uint8Array): void {
    const capacity = this.#data.length;
    const toEnd = Math.min(bytes.length, capacity - this.#start);
    const isWrapping = toEnd < bytes.length;
    let from = this.#start;
    let rest = bytes;
    if (isWrapping) {
      this.#data.set(bytes.subarray(0, toEnd), from);
      this.#put(HEADER_BYTES + from, HEADER_BYTES + capacity);
      this.#setHeader(capacity);
      from = 0;
      rest = bytes.subarray(toEnd);
    }
    this.#data.set(rest, from);
    this.#put(HEADER_BYTES + from, HEADER_BYTES + from + rest.length);
    this.#start = from + rest.length;
    const wasFull = new DataView(this.#zone.buffer).getUint32(4, true) === capacity;
    this.#setHeader(this.#start);
    if (isWrapping || wasFull) this.#setHeader(capacity);
  }
}

/** What a reader is shown of a pmsg ring of these bytes. */
function pmsgOf(zone: Uint8Array): Uint8Array | null {
  const area = new Uint8Array(zone.length + 8192);
  area.set(zone);
  const { records } = decodeArea(area, {
    kmsgSize: 8192,
    pmsgSize: zone.length,
    consoleSize: 0,
    ftraceSize: 0,
  });
  return records[0]?.bytes.slice() ?? null;
}

const WINDOW_BYTES = 1536;
const CAPACITY = WINDOW_BYTES - HEADER_BYTES;

interface Story {
  /** Left by the boot before. */
  old: Uint8Array;
  /** Acknowledged in this boot, write by write. */
  before: Uint8Array[];
  /** In memory only: on Linux because pstore is not mounted yet. */
  held: Uint8Array[];
  /** The write that is cut. */
  last: Uint8Array;
}

function historyOf({ old, before, held, last }: Story) {
  const stream = Buffer.concat([...before, ...held, last]);
  const acknowledged = Buffer.concat(before).length;
  return { type: "pmsg" as const, capacity: CAPACITY, old, stream, acknowledged };
}

/** What a reader sees after each of Linux's writes of the last step. */
function onLinux(story: Story): (Uint8Array | null)[] {
  const medium = new Uint8Array(WINDOW_BYTES);
  if (story.old.length > 0) new LinuxRing(medium).write(story.old);
  const ring = new LinuxRing(medium, story.held.length === 0);
  for (const bytes of [...story.before, ...story.held]) ring.write(bytes);
  ring.isRecovered = true;
  ring.media.length = 0;
  ring.write(story.last);
  return ring.media.map(pmsgOf);
}

/** What a reader sees at each mark of ours. */
function onOurs(story: Story): (Uint8Array | null)[] {
  let hook = () => {};
  const device = Device.open(
    coreModule("explore"),
    { sizeBytes: 512 * 1024, card: "sd", area: areaOf({ pmsgSize: WINDOW_BYTES }) },
    { mark: { hit: () => hook() } },
  );
  device.writePmsg(story.old);
  device.flushRings();
  device.powerCut();
  device.powerOn();
  for (const bytes of story.before) {
    device.writePmsg(bytes);
    device.flushRings();
  }
  for (const bytes of [...story.held, story.last]) device.writePmsg(bytes);
  const views: (Uint8Array | null)[] = [];
  hook = () => views.push(pmsgOf(device.medium().slice(BASE, BASE + WINDOW_BYTES)));
  device.flushRings();
  hook();
  return views;
}

function falseViews(views: (Uint8Array | null)[], story: Story): (Uint8Array | null)[] {
  return views.filter((view) => judgeRing(view, historyOf(story)) === "false");
}

const OLD = explorationText("boot before", 1200);

test("window a of a ring's write: data on the medium, its header not", () => {
  const story = { old: OLD, before: [said(1, 1500), said(2, 300)], held: [], last: said(3, 200) };
  const lost = falseViews(onLinux(story), story);
  assert.ok(lost.length > 0);
  // The newest bytes stand where the reader takes them for the oldest.
  assert.ok(sameBytes(lost[0]?.subarray(0, 200) ?? OLD, story.last));
  assert.equal(falseViews(onOurs(story), story), []);
});

test("window b of a ring's write: the header of a full ring that hides its oldest bytes", () => {
  const story = { old: OLD, before: [said(1, 1500), said(2, 300)], held: [], last: said(3, 200) };
  const acknowledged = Buffer.concat(story.before).subarray(-CAPACITY);
  const least = (views: (Uint8Array | null)[]) => Math.min(...views.map((view) => view?.length ?? 0));
  assert.is(least(onLinux(story)), 1500 + 300 - CAPACITY + 200);
  const ours = onOurs(story);
  assert.is(least(ours), CAPACITY);
  // All but those whose place is needed are in every view.
  for (const view of ours) assert.ok(Buffer.from(view ?? []).includes(acknowledged.subarray(200)));
});

test("window c of a ring's write: bytes of the boot before under a header of this one", () => {
  const story = { old: OLD, before: [], held: [said(1, 500), said(2, 490)], last: said(3, 15) };
  const linux = onLinux(story);
  const shown = linux.at(-1) ?? OLD;
  // It came to its end, and shows 990 bytes of another boot as its own.
  assert.is(shown.length, 1005);
  assert.ok(sameBytes(shown.subarray(0, 990), OLD.subarray(0, 990)));
  assert.is(judgeRing(shown, { ...historyOf(story), acknowledged: 15 }), "false");
  const ours = onOurs(story);
  assert.equal(falseViews(ours, story), []);
  assert.ok(sameBytes(ours.at(-1) ?? OLD, historyOf(story).stream));
});

let cuts = 0;
let media = 0;
let marks = 0;
let blanked = 0;
for (const scenario of RING_SCENARIOS) {
  test(`every cut: ${scenario.name}`, () => {
    const report = exploreRings(coreModule("explore"), scenario);
    assert.equal(report.failures.slice(0, 5), [], `${report.failures.length} cuts show what is not true`);
    assert.is(report.status, 0);
    assert.ok(report.truthful > 0);
    cuts += report.cuts;
    media += report.media;
    marks += report.marks;
    blanked += report.blanked;
  });
}

test.after(() => {
  console.log(
    `# ${RING_SCENARIOS.length} ring scenarios, ${marks} marks, ${cuts} cuts of ${cuts}, ${media} media, ` +
      `${blanked} rings with blanks`,
  );
});
test.run();
