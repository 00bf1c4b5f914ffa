// Sahara's packets, the collector and the simulated device, joined in memory: the order of packets that real hosts
// send, both widths, every fault, every attack of a table, limits, disconnects, images.
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  escapeName,
  makePacket,
  makePacket64,
  makeTable,
  parsePacket,
  parseTable,
  regionFileName,
  requestBytes,
  SAHARA_DONE_RESP,
  SAHARA_END_OF_IMAGE,
  SAHARA_HELLO,
  SAHARA_MEMORY_DEBUG,
  SAHARA_MEMORY_DEBUG64,
  SAHARA_MEMORY_READ64,
  SAHARA_READ_DATA,
  SAHARA_READ_DATA64,
  SAHARA_RESET,
  saharaStatusName,
} from "../host/dump/sahara.js";
import { SaharaCollector } from "../host/dump/sahara-collector.js";
import {
  SAHARA_ANSWER_FAULTS,
  SAHARA_OPENING_FAULTS,
  type SaharaFault,
  type SaharaOpeningFault,
} from "../host/dump/sahara-device.js";
import { FrameReader, frameTransfer } from "../host/dump/sahara-frames.js";
import { MmcError } from "../host/errors.js";
import { collect, crashed, memory, type Outcome } from "./sahara-pair.js";

/** A packet in words: the command, then its fields. */
function words(packet: Uint8Array): number[] {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  return Array.from({ length: packet.length / 4 }, (_, i) => view.getUint32(4 * i, true));
}

function read64(address: number, count: number): number[] {
  return [0x11, 0x18, address, 0, count, 0];
}

const four = () => [
  memory("OCIMEM.BIN", 0x1000n, 768),
  memory("PIMEM.BIN", 0x2000n, 16),
  memory("EMPTY.BIN", 0x3000n, 0),
  memory("DDRCS0_0.BIN", 0x4000n, 0x96000),
];

function thrown(run: () => unknown): MmcError {
  try {
    run();
  } catch (error) {
    if (error instanceof MmcError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

function assertDumps({ dumps, collector }: Outcome, regions: ReturnType<typeof four>): void {
  for (const [i, region] of regions.entries()) {
    const { receivedBytes } = collector.regions[i] ?? { receivedBytes: -1 };
    assert.equal(dumps.get(i) ?? new Uint8Array(), region.read(0, receivedBytes), region.name);
  }
}

// ---- what goes over the wire ----

test("the packets of a collection, as a USB host sends them for four regions", () => {
  const outcome = collect(crashed(four()), { requestBytesMax: 0x80000 });
  assert.is(outcome.error, null);
  assert.ok(outcome.collector.isComplete);
  assertDumps(outcome, four());
  const table = words(outcome.received[1] as Uint8Array);
  assert.equal(table.slice(0, 2), [0x10, 0x18]);
  assert.is(table[4], 256);
  assert.equal(outcome.sent.map(words), [
    [2, 0x30, 2, 1, 0, 2, 0, 0, 0, 0, 0, 0],
    read64(table[2] as number, 256),
    read64(0x1000, 768),
    // A tail of 16 bytes is 8 and 8; nothing is asked of the empty region.
    read64(0x2000, 8),
    read64(0x2008, 8),
    read64(0x4000, 0x80000),
    read64(0x84000, 0x16000),
    [7, 8],
  ]);
  assert.ok(outcome.device.isReset);
});

test("32-bit tables: MEMORY_DEBUG, MEMORY_READ, entries of 52 bytes", () => {
  const outcome = collect(crashed(four(), { width: 32 }));
  assert.is(outcome.error, null);
  assertDumps(outcome, four());
  const debug = words(outcome.received[1] as Uint8Array);
  assert.equal([debug[0], debug[1], debug[3]], [9, 0x10, 4 * 52]);
  assert.equal(words(outcome.sent[1] as Uint8Array), [0x0a, 0x10, debug[2], 208]);
  assert.equal(words(outcome.sent[2] as Uint8Array), [0x0a, 0x10, 0x1000, 768]);
});

test("each length from 0 to 100, and those around the largest request, comes whole and never as 16 bytes", () => {
  const lengths = [...Array.from({ length: 101 }, (_, i) => i)];
  for (const near of [0xfff0, 2 * 0xfff0]) for (let by = -20; by <= 20; by++) lengths.push(near + by);
  const regions = lengths.map((length, i) => memory(`R${i}`, 0x100000n * BigInt(i + 1), length));
  const outcome = collect(crashed(regions));
  assert.is(outcome.error, null);
  assert.ok(outcome.collector.isComplete);
  for (const [i, region] of regions.entries()) {
    const bytes = outcome.dumps.get(i) ?? new Uint8Array();
    assert.is(Buffer.compare(bytes, region.read(0, Number(region.lengthBytes))), 0, `${lengths[i]} bytes`);
  }
  for (const packet of outcome.sent.filter((one) => one[0] === SAHARA_MEMORY_READ64)) {
    const count = words(packet)[4] as number;
    assert.ok(count > 0 && count !== 16 && count <= 0xfff0, `${count}`);
  }
});

test("the 16 to 8 rule", () => {
  assert.equal(
    [1, 8, 15, 16, 17, 100, 116, 0xffff].map((bytes) => requestBytes(bytes, 112)),
    [1, 8, 15, 8, 17, 100, 112, 112],
  );
});

test("memory that looks like END_OF_IMAGE is memory", () => {
  const refusal = makePacket(SAHARA_END_OF_IMAGE, 0, 0x19);
  const region = {
    name: "X",
    address: 0x1000n,
    lengthBytes: 16,
    read: (at: number, n: number) => refusal.slice(at, at + n),
  };
  const outcome = collect(crashed([region]));
  assert.is(outcome.error, null);
  assert.equal(outcome.dumps.get(0), refusal);
});

test("addresses above 2^32, and up to the last one", () => {
  const regions = [memory("HIGH", (1n << 63n) + 5n, 100), memory("LAST", (1n << 64n) - 300n, 300)];
  const outcome = collect(crashed(regions));
  assert.is(outcome.error, null);
  assertDumps(outcome, regions);
});

test("the largest tables: 1023 entries of 64 bytes, 1260 of 52", () => {
  for (const [width, count] of [
    [64, 1023],
    [32, 1260],
  ] as const) {
    const regions = Array.from({ length: count }, (_, i) => memory(`R${i}`, 0x10000 + 64 * i, 3));
    const outcome = collect(crashed(regions, { width }));
    assert.is(outcome.error, null);
    assert.is(outcome.dumps.size, count);
    const oneMore = [...regions, memory("X", 0x900000, 3)];
    assert.is(thrown(() => crashed(oneMore, { width })).code, "EINVAL");
  }
});

test("requests of every size, the table in pieces as well", () => {
  for (const requestBytesMax of [64, 80, 1024, 4096, 0x80000]) {
    const outcome = collect(crashed(four()), { requestBytesMax });
    assert.is(outcome.error, null);
    assertDumps(outcome, four());
  }
  for (const requestBytesMax of [0, 16, 63, 72, 0x80010, Number.NaN]) {
    assert.is(thrown(() => new SaharaCollector({ requestBytesMax })).code, "EINVAL", `${requestBytesMax}`);
  }
  assert.is(thrown(() => new SaharaCollector({ regionBytesMax: -1 })).code, "EINVAL");
});

// ---- packets ----

test("packets: length field, length of the command, unknown commands", () => {
  const hello = makePacket(SAHARA_HELLO, 2, 1, 1024, 2);
  assert.is(parsePacket(hello).command, SAHARA_HELLO);
  for (const length of [0, 1, 7])
    assert.is(thrown(() => parsePacket(hello.subarray(0, length))).code, "EPROTO");
  assert.match(thrown(() => parsePacket(hello.subarray(0, 47))).message, "HELLO: says 48 bytes, 47 came");
  const long = new Uint8Array(49);
  long.set(hello);
  assert.match(thrown(() => parsePacket(long)).message, "says 48 bytes, 49 came");
  long[4] = 49;
  assert.match(thrown(() => parsePacket(long)).message, "HELLO: has 48 bytes, 49 came");
  assert.match(thrown(() => parsePacket(makePacket(0x99))).message, "command 0x99: is not known");
});

test("status names stand at their numbers", () => {
  assert.is(saharaStatusName(0), "success (0x00)");
  assert.is(saharaStatusName(1), "invalid command (0x01)");
  assert.is(saharaStatusName(0x0d), "read data error (0x0d)");
  assert.is(saharaStatusName(0x10), "multiple shared segments (0x10)");
  assert.is(saharaStatusName(0x19), "invalid memory read (0x19)");
  assert.is(saharaStatusName(0x20), "invalid client command (0x20)");
  assert.is(saharaStatusName(0x28), "hardware bulk transfer error (0x28)");
  assert.is(saharaStatusName(0x29), "unknown status (0x29)");
  assert.is(saharaStatusName(0x7fffffff), "unknown status (0x7fffffff)");
});

test("a table there and back, both widths", () => {
  const entries = [
    { type: 1n, address: 0xfedcba98n, lengthBytes: 5n, description: "on-chip memory", name: "OCIMEM.BIN" },
    { type: 7n, address: 0n, lengthBytes: 0xffffffffn, description: "", name: "x".repeat(19) },
  ];
  for (const width of [32, 64] as const) {
    const bytes = makeTable(entries, width);
    assert.is(bytes.length, 2 * (width === 64 ? 64 : 52));
    assert.equal(parseTable(bytes, width), entries);
    assert.is(thrown(() => parseTable(bytes.subarray(1), width)).code, "EPROTO");
  }
  const [cut] = parseTable(makeTable([{ ...entries[0], name: "y".repeat(30) } as never], 64), 64);
  assert.is(cut?.name, "y".repeat(19), "the last byte counts as the NUL");
});

test("a long HELLO answer has nothing in its reserved words, and its version is ours", () => {
  const outcome = collect(crashed(four(), { faults: [{ kind: "version-3" }] }));
  assert.is(outcome.error, null);
  assert.equal(words(outcome.sent[0] as Uint8Array), [2, 0x30, 2, 1, 0, 2, 0, 0, 0, 0, 0, 0]);
});

// ---- names ----

test("file names: nothing that a device says leaves the folder, hides or meets another", () => {
  const names = [
    "../../evil.bin",
    "/etc/x",
    "..\\x",
    "..",
    ".",
    "",
    "-rf",
    "a\nb",
    "\x1b[2J",
    "CON",
    "a.",
    "é",
    "%41",
  ];
  const files = names.map((name, i) => regionFileName(i, names.length, name));
  assert.equal(files, [
    "00-..%2F..%2Fevil.bin",
    "01-%2Fetc%2Fx",
    "02-..%5Cx",
    "03-.%2E",
    "04-%2E",
    "05-region",
    "06--rf",
    "07-a%0Ab",
    "08-%1B%5B2J",
    "09-CON",
    "10-a%2E",
    "11-%E9",
    "12-%2541",
  ]);
  assert.is(regionFileName(7, 1023, "X"), "0007-X");
  assert.is(escapeName("a b"), "a%20b");
});

// ---- faults ----

/** Opening fault → the error, or null where the dump is had in spite of it. */
const OPENINGS: Record<SaharaOpeningFault, [code: string, text: string] | null> = {
  "path-names": null,
  "same-names": null,
  "control-names": null,
  "unterminated-names": null,
  "empty-names": null,
  "giant-region": null,
  "sum-overflow": null,
  "wrapping-region": null,
  "overlapping-regions": null,
  "outside-region": ["EIO", "region 3 DDRCS0_0.BIN at 0 of 614400: END_OF_IMAGE, invalid memory read (0x19)"],
  "table-none": ["EPROTO", "memory table: 0 bytes are none"],
  "table-fraction": ["EPROTO", "memory table: 282 bytes are not a multiple of 64"],
  "table-huge": ["EFBIG", "memory table: 2147483648 bytes, more than 65535"],
  "table-wraps": ["EPROTO", "memory table: its addresses wrap around"],
  "table-changes": null,
  "packet-length": ["EPROTO", "MEMORY_DEBUG64: says 25 bytes, 24 came"],
  "packet-cut": ["EPROTO", "MEMORY_DEBUG64: says 24 bytes, 20 came"],
  "version-3": null,
  "version-unknown": ["EPROTO", "HELLO: version 9, which wants 9 or later, is not known"],
  "mode-unknown": ["EPROTO", "HELLO: mode 7 is not known"],
  "mode-command": ["EOPNOTSUPP", "the device waits for commands, not for a collector"],
  "hello-forever": ["EPROTO", "HELLO: more than 16 of them"],
};

for (const kind of SAHARA_OPENING_FAULTS) {
  test(`fault: ${kind}`, () => {
    const outcome = collect(crashed(four(), { faults: [{ kind }] }));
    const expected = OPENINGS[kind];
    assert.ok(outcome.hasEnded);
    if (expected === null) assert.is(outcome.error, null);
    else assert.equal([outcome.error?.code, outcome.error?.message], expected);
    // However it ends, what was given out is the device's memory.
    for (const [i, bytes] of outcome.dumps)
      assert.is(bytes.length, outcome.collector.regions[i]?.receivedBytes);
    const last = words(outcome.sent.at(-1) as Uint8Array);
    assert.equal(last, [SAHARA_RESET, 8], "the device is let go");
  });
}

test("fault: regions that are too large or wrap are refused, the others come", () => {
  for (const [kind, refused, why] of [
    ["giant-region", [3], "has more than 17179869184 bytes"],
    ["wrapping-region", [3], "its addresses wrap around"],
    ["sum-overflow", [0, 3], "has more than 17179869184 bytes"],
  ] as const) {
    const outcome = collect(crashed(four(), { faults: [{ kind }] }));
    const { regions } = outcome.collector;
    assert.equal(
      regions.filter((one) => one.state === "refused").map((one) => one.index),
      refused,
      kind,
    );
    for (const i of refused) assert.is(regions[i]?.why, why);
    assert.not(outcome.collector.isComplete);
    for (const one of regions)
      if (!(refused as readonly number[]).includes(one.index)) assert.is(one.state, "complete");
    const whole = collect(crashed(four(), { faults: [{ kind }] }), { isAllOrNothing: true });
    assert.is(whole.error?.code, "EFBIG");
    assert.is(whole.dumps.size, 0);
    assert.not(whole.device.isReset, "it can be collected in another way");
  }
});

test("fault: overlapping regions are told and come all the same", () => {
  const outcome = collect(crashed(four(), { faults: [{ kind: "overlapping-regions" }] }));
  assert.equal(
    outcome.collector.regions.map((one) => one.overlaps),
    [true, false, false, true],
  );
});

/** Answer fault → state of region 3 and the error, struck at its second answer (the eighth of the whole). */
const ANSWERS = {
  "end-of-image": ["EIO", "END_OF_IMAGE, invalid memory read (0x19)"],
  "unknown-status": ["EIO", "END_OF_IMAGE, unknown status (0x7ffffffe)"],
  "sixteen-bytes": ["EPROTO", "16 bytes came, 65520 were asked for"],
  "short-answer": ["EPROTO", "65519 bytes came, 65520 were asked for"],
  "long-answer": ["EPROTO", "65570 bytes came, 65520 were asked for"],
  silent: ["ETIMEDOUT", "a memory read was not answered"],
  disconnect: null,
} as const;

for (const kind of SAHARA_ANSWER_FAULTS) {
  test(`fault: ${kind}`, () => {
    const faults: SaharaFault[] = [{ kind, at: 5 }];
    const outcome = collect(crashed(four(), { faults }));
    const expected = ANSWERS[kind];
    assertDumps(outcome, four());
    if (expected === null) {
      assert.is(outcome.error, null);
      assert.ok(outcome.collector.isComplete);
      assert.is(outcome.connections, 2);
      return;
    }
    const [code, text] = expected;
    assert.is(outcome.error?.code, code);
    assert.match(outcome.error?.message ?? "", text);
    const region = outcome.collector.regions[3];
    assert.is(region?.state, "partial");
    assert.is(region?.receivedBytes, 0xfff0);
    assert.ok(region?.why);
    assert.is(outcome.device.isReset, kind !== "silent");
  });
  test(`fault: ${kind} instead of the table`, () => {
    const outcome = collect(crashed(four(), { faults: [{ kind, at: 0 }] }));
    if (kind === "disconnect") assert.ok(outcome.collector.isComplete);
    else {
      assert.ok(outcome.error);
      assert.is(outcome.collector.regions.length, 0);
    }
  });
}

test("with keepGoing a region that is refused is left, and the others come", () => {
  const faults: SaharaFault[] = [
    { kind: "end-of-image", at: 1 },
    { kind: "end-of-image", at: 6 },
  ];
  const outcome = collect(crashed(four(), { faults }), { keepGoing: true });
  assert.is(outcome.error, null);
  assert.equal(
    outcome.collector.regions.map((one) => one.state),
    ["refused", "complete", "complete", "partial"],
  );
  assertDumps(outcome, four());
});

// ---- limits ----

test("limits of a region and of all: at the limit and a byte beyond", () => {
  const states = (options: object) =>
    collect(crashed(four()), options)
      .collector.regions.map((one) => one.state[0])
      .join("");
  assert.is(states({ regionBytesMax: 0x96000 }), "cccc");
  assert.is(states({ regionBytesMax: 0x95fff }), "cccr");
  assert.is(states({ totalBytesMax: 0x96000 + 784 }), "cccc");
  assert.is(states({ totalBytesMax: 0x96000 + 783 }), "cccr");
  assert.is(states({ totalBytesMax: 0 }), "rrcr");
});

// ---- disconnects ----

test("a disconnect at every answer: the dump comes whole, nothing is asked for twice but the table", () => {
  const answers = 1 + 1 + 2 + 10;
  for (let at = 0; at < answers; at++) {
    const outcome = collect(crashed(four(), { faults: [{ kind: "disconnect", at }] }));
    assert.is(outcome.error, null, `${at}`);
    assert.ok(outcome.collector.isComplete);
    assertDumps(outcome, four());
    assert.is(outcome.connections, 2);
    const reads = outcome.sent.filter((one) => one[0] === SAHARA_MEMORY_READ64).length;
    const expected = collect(crashed(four())).sent.filter((one) => one[0] === SAHARA_MEMORY_READ64).length;
    assert.is(reads, expected + (at === 0 ? 1 : 2), `${at}`);
    assert.is(outcome.actions.filter((one) => one.kind === "table").length, 1);
  }
});

test("another table after a disconnect is another dump: refused, what came is kept", () => {
  const faults: SaharaFault[] = [{ kind: "disconnect", at: 5 }, { kind: "table-changes" }];
  const outcome = collect(crashed(four(), { faults }));
  assert.is(outcome.error?.code, "EUCLEAN");
  assert.is(outcome.collector.regions[3]?.receivedBytes, 0xfff0);
  assert.not(outcome.device.isReset);
});

test("a later collector goes on where an earlier one ended", () => {
  const device = crashed(four(), { faults: [{ kind: "disconnect", at: 7 }] });
  const first = collect(device, {}, { connectionsMax: 1 });
  assert.is(first.error?.code, "ETIMEDOUT");
  const table = first.actions.find((one) => one.kind === "table");
  if (table?.kind !== "table") throw new Error("no table");
  const receivedBytes = first.collector.regions.map((one) => one.receivedBytes);
  assert.equal(receivedBytes, [768, 16, 0, 3 * 0xfff0]);
  const second = collect(device, { resume: { table: table.bytes, receivedBytes } });
  assert.is(second.error, null);
  assert.ok(second.collector.isComplete);
  assert.equal([...second.dumps.keys()], [3]);
  assert.equal(
    second.dumps.get(3)?.subarray(3 * 0xfff0),
    memory("DDRCS0_0.BIN", 0x4000n, 0x96000).read(3 * 0xfff0, 0x96000 - 3 * 0xfff0),
  );
  const resumed = (received: number[]) =>
    collect(crashed(four()), { resume: { table: table.bytes, receivedBytes: received } });
  assert.is(resumed([769]).error?.code, "EINVAL");
  for (const wrong of [[-1], [0.5]]) assert.is(thrown(() => resumed(wrong)).code, "EINVAL");
  const other = collect(crashed([memory("X", 0, 5)]), { resume: { table: table.bytes, receivedBytes } });
  assert.is(other.error?.code, "EUCLEAN");
});

test("stopped by the host: the device keeps its dump", () => {
  const device = crashed(four());
  const collector = new SaharaCollector();
  collector.connected();
  for (const action of device.connected()) if (action.kind === "send") collector.receive(action.bytes);
  const actions = collector.stop(new MmcError("ENOSPC", "disk: full"));
  assert.equal(
    actions.map((one) => one.kind),
    ["end"],
  );
  assert.ok(collector.hasEnded);
  assert.equal(collector.receive(new Uint8Array(5)), []);
  assert.equal(collector.timedOut(), []);
  assert.not(device.isReset);
});

// ---- images ----

const image = memory("fw", 0, 1_234_567);
const images = new Map([[13, { lengthBytes: 1_234_567, read: image.read }]]);

test("a device that boots from an image, crashes and is collected", () => {
  const device = crashed(four(), { boot: { image: 13, lengthBytes: 1_234_567 } });
  const outcome = collect(device, { images });
  assert.is(outcome.error, null);
  assert.ok(outcome.collector.isComplete);
  const answers = outcome.sent.filter((one) => one.length > 0x1000);
  assert.equal(
    answers.map((one) => one.length),
    [0x80000, 0x80000, 1_234_567 - 0x100000],
  );
  assert.is(Buffer.compare(Buffer.concat(answers), image.read(0, 1_234_567)), 0);
  const commands = outcome.sent.filter((one) => one.length <= 0x30).map((one) => one[0]);
  assert.equal(commands.slice(0, 4), [2, 5, 2, 0x11], "HELLO_RESP, DONE, HELLO_RESP, MEMORY_READ64");
});

test("images: wanted and not there, beyond their end, two at once, without end", () => {
  const says = (boot: { image: number; lengthBytes: number }, all = images) =>
    collect(crashed(four(), { boot }), { images: all }).error;
  assert.is(says({ image: 13, lengthBytes: 9 }, new Map())?.code, "ENODATA");
  assert.is(says({ image: 14, lengthBytes: 9 })?.code, "ENOENT");
  assert.is(says({ image: 13, lengthBytes: 1_234_568 })?.code, "EPROTO");
  const asks = (...packets: Uint8Array[]) => {
    const collector = new SaharaCollector({
      images: new Map([...images, [14, { lengthBytes: 9, read: image.read }]]),
    });
    const all = [makePacket(SAHARA_HELLO, 2, 1, 1024, 0), ...packets].flatMap((one) =>
      collector.receive(one),
    );
    const end = all.find((one) => one.kind === "end");
    return end?.kind === "end" ? (end.error?.message ?? "") : "goes on";
  };
  const read = (id: number, offset: number, count: number) => makePacket(SAHARA_READ_DATA, id, offset, count);
  assert.is(asks(read(13, 5, 10)), "goes on");
  assert.is(asks(makePacket64(SAHARA_READ_DATA64, 13n, 5n, 10n)), "goes on");
  assert.match(asks(read(13, 5, 10), read(14, 0, 1)), "image 14 inside of 13");
  assert.match(asks(read(13, 0, 0)), "0 bytes at 0 of image 13");
  assert.match(asks(read(13, 0, 0x80001)), "524289 bytes at 0 of image 13");
  assert.match(asks(read(13, 1_234_560, 8)), "8 bytes at 1234560 of image 13");
  assert.match(asks(makePacket64(SAHARA_READ_DATA64, 13n, 1n << 63n, 10n)), "of image 13");
  assert.match(asks(...Array.from({ length: 20 }, () => read(13, 0, 0x80000))), "is read without end");
  assert.match(
    asks(read(13, 0, 5), makePacket(SAHARA_END_OF_IMAGE, 13, 0x22)),
    "hash verification failure (0x22)",
  );
  assert.match(asks(makePacket(SAHARA_END_OF_IMAGE, 13, 0)), "which was not being read");
  assert.match(
    asks(read(13, 0, 5), makePacket(SAHARA_END_OF_IMAGE, 13, 0), read(13, 0, 5)),
    "READ_DATA: was not expected",
  );
  assert.match(asks(makePacket(SAHARA_DONE_RESP, 1)), "DONE_RESP: was not expected");
  assert.match(asks(makePacket64(SAHARA_MEMORY_DEBUG64, 0n, 64n)), "HELLO announced no dump");
});

test("packets at the wrong time", () => {
  const says = (...packets: Uint8Array[]) => {
    const collector = new SaharaCollector({ images });
    const end = packets.flatMap((one) => collector.receive(one)).find((one) => one.kind === "end");
    return end?.kind === "end" ? (end.error?.message ?? "") : "goes on";
  };
  const hello = makePacket(SAHARA_HELLO, 2, 1, 1024, 2);
  assert.match(says(makePacket(SAHARA_MEMORY_DEBUG, 0, 52)), "MEMORY_DEBUG: was not expected before HELLO");
  assert.match(says(hello, makePacket(SAHARA_READ_DATA, 13, 0, 1)), "HELLO announced a dump");
  assert.match(says(hello, makePacket(SAHARA_RESET)), "RESET: was not expected here");
  assert.match(says(hello, makePacket(SAHARA_END_OF_IMAGE, 0, 0x1b)), "memory debug not supported (0x1b)");
  assert.is(says(hello, hello, hello), "goes on", "a second HELLO begins again");
});

// ---- the device ----

test("the device refuses what it cannot do, with the status that says why", () => {
  const start = () => {
    const device = crashed(four());
    device.connected();
    device.receive(makePacket(2, 2, 1, 0, 2));
    return device;
  };
  const status = (packet: Uint8Array) => {
    const [action] = start().receive(packet);
    return action?.kind === "send" && action.bytes[0] === SAHARA_END_OF_IMAGE
      ? words(action.bytes)[3]
      : undefined;
  };
  const read = (address: bigint, count: bigint) => makePacket64(SAHARA_MEMORY_READ64, address, count);
  assert.is(status(read(0x1000n, 768n)), undefined);
  assert.is(status(read(0x1000n, 769n)), 0x19, "beyond the end");
  assert.is(status(read(0xfffn, 2n)), 0x19);
  assert.is(status(read((1n << 64n) - 1n, 5n)), 0x19);
  assert.is(status(read(0x1000n, 0n)), 0x1a);
  assert.is(status(read(0x4000n, 0x80001n)), 0x1a);
  assert.is(status(makePacket(0x0a, 0x1000, 4)), 0x01, "the 32-bit read of a 64-bit device");
  assert.is(status(makePacket(5)), 0x01);
  assert.is(status(new Uint8Array(3)), 0x05);
});

test("a region that cannot be read is an invalid memory read", () => {
  const bad = {
    name: "BAD",
    address: 0,
    lengthBytes: 100,
    read: () => {
      throw new Error("broken");
    },
  };
  const outcome = collect(crashed([bad]));
  assert.match(
    outcome.error?.message ?? "",
    "region 0 BAD at 0 of 100: END_OF_IMAGE, invalid memory read (0x19)",
  );
});

test("devices that cannot be made", () => {
  assert.is(thrown(() => crashed([])).code, "EINVAL");
  assert.is(thrown(() => crashed([memory("X", 0xffffffff, 2)], { width: 32 })).code, "EOVERFLOW");
  assert.is(thrown(() => crashed([memory("X", -1, 2)])).code, "EINVAL");
  const all = { ...memory("X", 0, 0), lengthBytes: 1n << 32n };
  assert.is(thrown(() => crashed([all], { width: 32 })).code, "ENOSPC");
});

// ---- frames ----

test("frames: pieces of any size, MHI's limits, long transfers chained", () => {
  const outcome = collect(crashed(four()), { requestBytesMax: 0x80000 }, { frames: 1009 });
  assert.is(outcome.error, null);
  assertDumps(outcome, four());
  const transfer = memory("X", 0, 0x80000).read(0, 0x80000);
  const frames = frameTransfer(transfer);
  assert.is(frames.length, 0x80000 + 9 * 4);
  assert.equal([...frames.subarray(0, 4)], [0xff, 0xff, 4, 0]);
  for (const step of [1, 3, 4096, 0xffff, frames.length]) {
    const reader = new FrameReader(0x80000);
    const found: Uint8Array[] = [];
    for (let at = 0; at < frames.length; at += step) {
      for (const one of reader.push(frames.subarray(at, at + step))) found.push(one.slice());
    }
    assert.is(found.length, 1);
    assert.is(Buffer.compare(found[0] as Uint8Array, transfer), 0);
    assert.ok(reader.isAtBoundary);
  }
});

test("frames: several in one piece, EOB, and those that are none", () => {
  const all = (bytes: number[], limit = 100) => {
    const reader = new FrameReader(limit);
    return [...reader.push(Uint8Array.from(bytes))].map((one) => [...one]);
  };
  assert.equal(
    [...new FrameReader(9).push(Uint8Array.from([1, 0, 2, 0, 7, 2, 0, 3, 0, 8, 9]))].map((one) => one.length),
    [1, 2],
  );
  assert.equal(all([1, 0, 4, 0, 7, 1, 0, 2, 0, 8]), [[7, 8]]);
  for (const bad of [
    [0, 0, 2, 0],
    [1, 0, 0, 0],
    [1, 0, 6, 0],
    [1, 0, 8, 0],
    [101, 0, 2, 0],
  ]) {
    assert.is(thrown(() => all(bad)).code, "EPROTO", `${bad}`);
  }
  const chained = [60, 0, 4, 0, ...new Array(60).fill(1), 41, 0, 2, 0];
  assert.match(thrown(() => all(chained)).message, "more than 100 bytes");
  const cut = new FrameReader(100);
  assert.equal([...cut.push(Uint8Array.from([5, 0, 2, 0, 1]))], []);
  assert.not(cut.isAtBoundary);
});

test.run();
