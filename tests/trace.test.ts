// The bus trace: every command, response, block, busy time and level as a typed event, in the order of time; streamed
// without a gap; as text with names; as VCD, whose CMD line a decoder of these tests reads back bit by bit.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { decodeCardStatus, type TraceEvent } from "../host/core/trace.js";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { commandFrame, responseFrame } from "../host/trace/frames.js";
import { commandName, commandNumber } from "../host/trace/names.js";
import { describeEvent, formatTrace } from "../host/trace/text.js";
import { formatVcd } from "../host/trace/vcd.js";
import { ADMA_TABLE_AT, Bus, INT, INT_ERRORS, note } from "./bus.js";
import { coreModule, openMachine, PANIC_LOG, pattern, USER_OFFSET } from "./machine.js";

type Kind = TraceEvent["kind"];
type Of<K extends Kind> = Extract<TraceEvent, { kind: K }>;

function of<K extends Kind>(events: TraceEvent[], kind: K): Of<K>[] {
  return events.filter((event): event is Of<K> => event.kind === kind);
}

/** A device that keeps all its events from power-up on. */
function recorded(options: DeviceOptions = {}): { device: Device; events: TraceEvent[]; lost: () => number } {
  const events: TraceEvent[] = [];
  let lost = 0;
  const device = Device.open(coreModule("release"), {
    sizeBytes: 512 * 1024,
    addressing: "sector",
    ...options,
    onTrace: (more, gone) => {
      events.push(...more);
      lost += gone;
    },
  });
  return { device, events, lost: () => lost };
}

const AREA = { offset: 256 * 1024, kmsgSize: 64 * 1024, kmsgCount: 4, abi: "lp64" } as const;

/** Reads, writes, erases, flushes and panics: everything that a trace shows. */
function everything(card: "emmc" | "sd", more: DeviceOptions = {}) {
  const all = recorded({ card, cacheSectors: card === "emmc" ? 8 : 0, area: AREA, compress: false, ...more });
  const { device } = all;
  device.write(USER_OFFSET, pattern(1, 12 * 512));
  device.read(USER_OFFSET, 4096);
  device.erase(USER_OFFSET + 8192, 2048);
  device.flush();
  device.leaveInFlight("write", 8192, 8192);
  assert.is(device.panicWrite({ text: PANIC_LOG, reason: "Panic" }).status, 0);
  return all;
}

// ---- events ----

for (const card of ["emmc", "sd"] as const) {
  test(`${card}: every command has one answer or none, every busy an end, and time never runs back`, () => {
    const { events, lost, device } = everything(card);
    assert.is(lost(), 0);
    let nowNs = 0n;
    let open: Of<"command"> | null = null;
    let busy = false;
    let state: string | null = null;
    let answers = 0;
    for (const event of events) {
      assert.ok(event.timeNs >= nowNs, `${event.kind} at ${event.timeNs} after ${nowNs}`);
      nowNs = event.timeNs;
      if (event.kind === "command") {
        assert.ok(event.startNs >= event.timeNs);
        open = event;
      } else if (event.kind === "response" || event.kind === "no-response") {
        assert.is(event.index, open?.index, "the answer is that of the last command");
        open = null;
        answers++;
      } else if (event.kind === "busy-start") {
        busy = true;
      } else if (event.kind === "busy-end") {
        assert.ok(busy, "what ends had begun");
        busy = false;
      } else if (event.kind === "state") {
        assert.is.not(event.state, state, "a level is told when it changes");
        state = event.state;
      }
    }
    assert.ok(answers > 50, `${answers} answers`);
    assert.is(busy, false);
    assert.is(state, device.state().card);
    assert.ok(nowNs <= device.state().timeNs);
    const operations = new Set(of(events, "busy-start").map(({ operation }) => operation));
    const wanted = card === "emmc" ? ["cache", "erase", "flush", "program", "switch"] : ["erase", "program"];
    for (const one of wanted) assert.ok(operations.has(one as never), `${card} is busy with ${one}`);
    assert.ok(of(events, "clock").some(({ khz }) => khz === 400) && of(events, "width").length > 1);
    note(`${events.length} events of an ${card}`);
  });
}

test("blocks carry their sector and length, registers none; busy times their operation and sector", () => {
  const { device, events } = recorded();
  events.length = 0;
  device.write(1024, pattern(3, 1024));
  device.read(1024, 1536);
  device.registers();
  const written = of(events, "block-write").map(({ lba, bytes, crcStatus }) => [lba, bytes, crcStatus]);
  assert.equal(written, [
    [2, 512, 2],
    [3, 512, 2],
  ]);
  const read = of(events, "block-read").map(({ lba, bytes, crcRight }) => [lba, bytes, crcRight]);
  assert.equal(read, [
    [2, 512, true],
    [3, 512, true],
    [4, 512, true],
    [null, 512, true],
  ]);
  const busy = events.flatMap((event) =>
    event.kind === "busy-start" || event.kind === "busy-end"
      ? [[event.kind, event.operation, event.lba, Number(event.timeNs)] as const]
      : [],
  );
  assert.equal(
    busy.map(([kind, operation, lba]) => [kind, operation, lba]),
    [2, 3].flatMap((lba) => [
      ["busy-start", "program", lba],
      ["busy-end", "program", lba],
    ]),
  );
  const [start, end] = busy.map(([, , , timeNs]) => timeNs);
  assert.is((end ?? 0) - (start ?? 0), 50_000, "as long as a sector takes");
});

test("CMD26 and CMD27 move a register, no sector; the last busy of a write is its end, no interrupt", () => {
  for (const card of ["emmc", "sd"] as const) {
    const bus = new Bus({ card, trace: true, timing: { finalNs: 3_000_000 } }).open();
    bus.clearEvents();
    for (const index of card === "emmc" ? [26, 27] : [27]) {
      bus.must(index, 0, "r1", { read: false, blocks: 1, blockBytes: 16 });
      assert.is(bus.pioWrite(new Uint8Array(16), 16), 0);
      bus.awaitStatus(INT.transfer);
      bus.awaitTran();
    }
    const registers = of(bus.events(), "block-write");
    assert.is(registers.length, card === "emmc" ? 2 : 1);
    for (const { lba, bytes } of registers) assert.equal([lba, bytes], [null, 16], card);
    assert.ok(!/sector 4294967295|sector null/.test(formatTrace(bus.events(), card)), "nor in the text");

    bus.clearEvents();
    assert.is(bus.writeBlocks(5, pattern(1, 512), { multiple: true }).errors, 0);
    bus.must(12, 0, "r1b");
    bus.awaitTran();
    const operations = of(bus.events(), "busy-start").map(({ operation }) => operation);
    assert.equal(operations, ["program", "finish"], card);
    assert.match(formatTrace(bus.events(), card), /busy: finish/);
  }
});

test("an R2 has all its words: CID and CSD with their CRC7 as the wire has it", () => {
  for (const card of ["emmc", "sd"] as const) {
    const { device, events } = recorded({ card });
    const { cid, csd } = device.registers();
    for (const [index, register] of [
      [10, cid],
      [9, csd],
    ] as const) {
      const response = of(events, "response").findLast((event) => event.index === index);
      const frame = responseFrame(response as Of<"response">);
      assert.is(response?.type, "R2");
      assert.equal(frame.subarray(1, 16), register.subarray(0, 15), `${card} CMD${index}`);
      assert.is(register[15], 0, "the controller keeps the last byte");
      assert.is((frame[16] ?? 0) >> 1, slowCrc7(frame.subarray(1, 16)));
    }
  }
});

test("busy that is cut short says so: CMD0 and the supply", () => {
  for (const how of ["cut", "reset"] as const) {
    const { device, events } = recorded({ sizeBytes: 512 * 1024 });
    device.leaveInFlight("program", 4096, 1024);
    assert.is(of(events, "busy-start").at(-1)?.operation, "program");
    if (how === "cut") device.powerCut("old", "lost");
    else device.core.mmioWrite8(0x29, 0);
    const last = of(events, "busy-end").at(-1);
    assert.equal([last?.cut, last?.operation, last?.lba], [true, "program", 8], how);
    assert.is(of(events, "power").at(-1)?.on, false);
  }
  const { device, events } = recorded();
  device.leaveInFlight("program", 4096, 1024);
  device.core.mmioWrite32(0x08, 0);
  device.core.mmioWrite32(0x0c, 0);
  device.core.idleNs(10_000);
  device.core.mmioRead32(0x30);
  const last = events.slice(-4).map(({ kind }) => kind);
  assert.ok(last.includes("busy-end") && of(events, "busy-end").at(-1)?.cut, "CMD0");
});

test("errors have names: a damaged response, damaged blocks, a silent card", () => {
  const cases = [
    ["response-crc", "COMMAND_CRC"],
    ["read-crc", "DATA_CRC"],
    ["write-crc", "DATA_CRC"],
  ] as const;
  for (const [kind, name] of cases) {
    const { device, events } = recorded();
    const command = kind === "response-crc" ? { command: 17 } : {};
    device.injectFault({ kind, times: 1, ...command });
    if (kind === "write-crc") device.write(0, pattern(1, 512));
    else device.read(0, 512);
    assert.equal(of(events, "error")[0]?.names, [name], kind);
  }
  const { events } = recorded();
  // An eMMC is silent to CMD8 in idle.
  assert.is(of(events, "no-response")[0]?.index, 8);
});

test("an ADMA error stands in the trace behind the response", () => {
  for (const [index, read] of [
    [17, true],
    [24, false],
  ] as const) {
    const bus = new Bus({ sectors: 1024 }).open();
    bus.describe(512);
    // A descriptor that is not valid.
    new DataView(bus.memory.buffer).setUint32(ADMA_TABLE_AT, 0, true);
    bus.clearEvents();
    bus.send(index, 0, "r1", { read, blocks: 1, dma: true });
    assert.is((bus.awaitStatus(INT.transfer) & INT_ERRORS) >>> 0, INT.adma);
    const kinds = bus.events().map(({ kind }) => kind);
    assert.ok(kinds.indexOf("error") > kinds.indexOf("response"), kinds.join());
    assert.equal(
      of(bus.events(), "error").map(({ names }) => names),
      [["ADMA"]],
    );
  }
});

// ---- streaming ----

test("a stream has everything that many readings of the ring have, in order, and nothing twice", () => {
  const first = everything("emmc");
  const second = everything("emmc");
  assert.equal(first.events, second.events, "the same calls give the same trace");
  const { device } = openMachine({ trace: true });
  device.clearTrace();
  const drained: TraceEvent[] = [];
  for (let i = 0; i < 40; i++) {
    device.write(i * 512, pattern(i, 1024));
    const { events, lost } = device.drainTrace();
    assert.is(lost, 0);
    drained.push(...events);
  }
  assert.equal(device.drainTrace(), { events: [], lost: 0 });
  const ring = device.trace();
  assert.ok(drained.length > 300);
  const tail = drained.slice(drained.length - ring.events.length);
  // The ring does not know that CMD55 was before its first entry; there is none on an eMMC.
  assert.equal(tail, ring.events);
  assert.is(ring.lost + ring.events.length, drained.length);
});

test("what the ring could not hold is counted; saved states are not told again", () => {
  const { device } = openMachine({ trace: true });
  device.clearTrace();
  for (let i = 0; i < 200; i++) device.read(0, 512);
  const { events, lost } = device.drainTrace();
  assert.is(events.length, 1023);
  assert.ok(lost > 100);
  const saved = device.saveState();
  device.read(0, 512);
  assert.ok(device.drainTrace().events.length > 2);
  device.loadState(saved);
  assert.equal(device.drainTrace(), { events: [], lost: 0 });
  device.read(0, 512);
  assert.is(device.drainTrace().events[0]?.kind, "command");
});

test("listening changes nothing: the same medium, the same time", () => {
  const run = (options: DeviceOptions) => {
    const { device } = openMachine(options);
    assert.is(device.panicWrite({ text: PANIC_LOG }).status, 0);
    return { medium: Buffer.from(device.medium()), timeNs: device.state().timeNs };
  };
  assert.equal(run({ onTrace: () => undefined }), run({}));
});

// ---- text ----

test("commands by name, the same number by the kind of card, ACMD behind CMD55", () => {
  const name = (index: number, argument: number, card?: "emmc" | "sd", app = false) =>
    `${commandNumber({ index, argument, app }, card)} ${commandName({ index, argument, app }, card)}`;
  assert.is(name(25, 0), "CMD25 WRITE_MULTIPLE_BLOCK");
  assert.is(name(6, 0x03210101), "CMD6 SWITCH");
  assert.is(name(6, 0x80fffff1), "CMD6 SWITCH_FUNC");
  assert.is(name(6, 0x00fffff1), "CMD6 SWITCH_FUNC");
  assert.is(name(8, 0), "CMD8 SEND_EXT_CSD");
  assert.is(name(8, 0x1aa), "CMD8 SEND_IF_COND");
  assert.is(name(8, 0x1aa, "emmc"), "CMD8 SEND_EXT_CSD");
  assert.is(name(3, 0), "CMD3 SEND_RELATIVE_ADDR");
  assert.is(name(3, 1 << 16), "CMD3 SET_RELATIVE_ADDR");
  assert.is(name(41, 0, "sd", true), "ACMD41 SD_SEND_OP_COND");
  assert.is(name(41, 0, "emmc", true), "CMD41 ");
  assert.is(name(19, 0, "sd"), "CMD19 SEND_TUNING_BLOCK");
  assert.is(name(17, 0, "sd", true), "CMD17 READ_SINGLE_BLOCK", "no ACMD17: the plain command");
});

test("the text of an eMMC's and an SD card's identification", () => {
  const emmc = formatTrace(everything("emmc").events, "emmc");
  for (const line of [
    /CMD1 0x40ff8000 SEND_OP_COND sectors, 2\.7-3\.6 V\n/,
    / R3 0xc0ff8080 \(ready, sectors, 2\.7-3\.6 V, 1\.70-1\.95 V\)\n/,
    /CMD6 0x03210101 SWITCH EXT_CSD_CACHE_CTRL = 1\n/,
    /CMD6 0x03b70201 SWITCH EXT_CSD_BUS_WIDTH = 2\n/,
    /CMD7 0x00010000 SELECT_CARD RCA 1\n/,
    / R1 0x00000700 \(stby, ready\)\n/,
    /CMD25 0x[0-9a-f]{8} WRITE_MULTIPLE_BLOCK \d+\n/,
    /CMD23 0x8000[0-9a-f]{4} SET_BLOCK_COUNT \d+, reliable\n/,
    /CMD38 0x00000001 ERASE trim\n/,
    / {2}busy: cache, sector 64\n/,
    /── commit: write the header\n/,
    /clock 400 kHz\n/,
    /data lines: 8\n/,
    /no response\n/,
  ])
    assert.match(emmc, line);
  assert.not.match(emmc, /ACMD/);
  const sd = formatTrace(everything("sd").events);
  for (const line of [
    /CMD8 0x000001aa SEND_IF_COND VHS 1, pattern 0xaa\n/,
    /CMD55 0x00000000 APP_CMD RCA 0\n/,
    /ACMD41 0x40ff8000 SD_SEND_OP_COND sectors, 2\.7-3\.6 V\n/,
    /ACMD51 0x00000000 SEND_SCR\n/,
    /ACMD6 0x00000002 SET_BUS_WIDTH 4 lines\n/,
    /CMD6 0x80fffff1 SWITCH_FUNC set, group 1 = 1\n/,
    / R6 0x[0-9a-f]{8} \(RCA \d+\)\n/,
    / R1 0x00000120 \(idle, ready, APP_CMD\)\n/,
    /CMD32 0x[0-9a-f]{8} ERASE_WR_BLK_START \d+\n/,
  ])
    assert.match(sd, line);
});

test("R1 in words: every bit has its name, and describing never fails", () => {
  assert.equal(decodeCardStatus(0x00400900), {
    state: "tran",
    ready: true,
    appCommand: false,
    errors: ["ILLEGAL_COMMAND"],
  });
  assert.equal(decodeCardStatus(0xe0000f80).errors, [
    "OUT_OF_RANGE",
    "ADDRESS_ERROR",
    "BLOCK_LEN_ERROR",
    "SWITCH_ERROR",
  ]);
  const word = fc.integer({ min: 0, max: 0xffffffff });
  const card = fc.constantFrom(undefined, "emmc" as const, "sd" as const);
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 63 }),
      word,
      fc.boolean(),
      card,
      word,
      (index, argument, app, kind, r1) => {
        const timeNs = 0n;
        const command: TraceEvent = {
          timeNs,
          kind: "command",
          index,
          argument,
          app,
          startNs: 0n,
          clockKhz: 400,
        };
        const status = decodeCardStatus(r1);
        const response: TraceEvent = { timeNs, kind: "response", index, type: "R1", words: [r1], status };
        for (const event of [command, response]) {
          const text = describeEvent(event, kind);
          assert.ok(/^\S?.*CMD|R1/.test(text) && !/undefined|NaN|\n/.test(text), text);
        }
        assert.is(
          status.errors.length,
          [...r1.toString(2)].filter((bit, i, all) => {
            const place = all.length - 1 - i;
            return bit === "1" && !(place >= 8 && place <= 12) && ![0, 1, 2, 4, 5].includes(place);
          }).length,
        );
      },
    ),
    { numRuns: 3000 },
  );
});

// ---- VCD ----

interface Dump {
  /** Identifier → name and width. */
  vars: Map<string, { name: string; width: number }>;
  /** In the order of the file. */
  changes: { at: number; name: string; value: string }[];
  firstNs: number;
}

/** A strict reader of the part of IEEE 1364 §18 that is used here; everything odd is an error. */
function readVcd(text: string): Dump {
  const vars: Dump["vars"] = new Map();
  const changes: Dump["changes"] = [];
  const end = text.indexOf("$enddefinitions $end\n");
  assert.ok(end > 0);
  let depth = 0;
  let hasScale = false;
  for (const line of text.slice(0, end).trimEnd().split("\n")) {
    const words = line.split(" ");
    assert.is(words.at(-1), "$end", line);
    if (words[0] === "$timescale") {
      assert.is(line, "$timescale 1 ns $end");
      hasScale = true;
    } else if (words[0] === "$scope") {
      assert.is(words.length, 4);
      depth++;
    } else if (words[0] === "$upscope") {
      depth--;
    } else if (words[0] === "$var") {
      const [, type, width, id = "", name = "", range] = words;
      assert.is(type, "wire");
      assert.match(id, /^[!-~]+$/);
      assert.not(vars.has(id), `${id} is used once`);
      assert.ok(depth > 0);
      if (width !== "1") assert.is(range, `[${Number(width) - 1}:0]`);
      vars.set(id, { name, width: Number(width) });
    } else {
      assert.is(words[0], "$comment");
    }
  }
  assert.is(depth, 0);
  assert.ok(hasScale);
  let at = -1;
  let firstNs = -1;
  let dumping = false;
  const dumped = new Set<string>();
  for (const line of text.slice(end).trimEnd().split("\n").slice(1)) {
    if (line.startsWith("#")) {
      assert.match(line, /^#\d+$/);
      const next = Number(line.slice(1));
      assert.ok(next > at, `${next} after ${at}`);
      at = next;
      if (firstNs < 0) firstNs = at;
    } else if (line === "$dumpvars" || line === "$end") {
      dumping = line === "$dumpvars";
    } else {
      const match = /^(?:b([01x]+) (\S+)|([01x])(\S+))$/.exec(line);
      assert.ok(match, line);
      const id = match?.[2] ?? match?.[4] ?? "";
      const value = match?.[1] ?? match?.[3] ?? "";
      const found = vars.get(id);
      assert.ok(found, `${id} is declared`);
      assert.is(match?.[3] === undefined, found?.width !== 1, line);
      assert.ok(value.length <= (found?.width ?? 0), `${line} fits ${found?.width} bits`);
      if (dumping) dumped.add(id);
      changes.push({ at, name: found?.name ?? "", value });
    }
  }
  assert.is(dumped.size, vars.size, "every variable is dumped at the start");
  return { vars, changes, firstNs };
}

/** CRC7 by polynomial division: another way than the library's. */
function slowCrc7(bytes: Uint8Array): number {
  let rest = 0;
  for (const bit of [...bytes]
    .flatMap((byte) => [...byte.toString(2).padStart(8, "0"), ...""])
    .concat([..."0000000"])) {
    rest = (rest << 1) | Number(bit);
    if (rest & 0x80) rest ^= 0x89;
  }
  return rest;
}

interface Frame {
  /** Of the rising edge that took its start bit. */
  at: number;
  fromHost: boolean;
  bits: string;
}

/** Takes CMD at every rising edge of CLK and cuts it into frames, as a protocol decoder does. */
function framesOf({ changes }: Dump): Frame[] {
  const frames: Frame[] = [];
  let clk = "0";
  let cmd = "1";
  let bits = "";
  let startedAt = 0;
  let lengthBits = 48;
  let longNext = false;
  for (let i = 0; i < changes.length; ) {
    const at = changes[i]?.at ?? 0;
    let rises = false;
    let hasMoved = false;
    for (; i < changes.length && changes[i]?.at === at; i++) {
      const { name, value } = changes[i] as Dump["changes"][number];
      if (name === "CMD") {
        hasMoved = cmd !== value;
        cmd = value;
      }
      if (name === "CLK") {
        rises = clk === "0" && value === "1";
        clk = value;
      }
    }
    assert.not(hasMoved && clk === "1", "CMD holds at the rising edge and while CLK is high");
    if (!rises) continue;
    if (bits === "" && cmd === "1") continue;
    if (bits === "") startedAt = at;
    bits += cmd;
    // A card's frame with index 63 may be an R2: what stands before tells, as it does for a real host.
    if (bits.length === 2) lengthBits = bits === "00" && longNext ? 136 : 48;
    if (bits.length < lengthBits) continue;
    const fromHost = bits[1] === "1";
    if (fromHost) longNext = [2, 9, 10].includes(Number.parseInt(bits.slice(2, 8), 2));
    frames.push({ at: startedAt, fromHost, bits });
    bits = "";
  }
  assert.is(bits, "", "no frame is left open");
  return frames;
}
for (const card of ["emmc", "sd"] as const) {
  test(`${card}: the CMD line of the VCD, sampled at the rising clock, gives every command and response back`, () => {
    const { events } = everything(card, { timing: { readNs: 200_000 } });
    const dump = readVcd(formatVcd(events, { wires: true, card }));
    const frames = framesOf(dump);
    const commands = of(events, "command").filter(({ clockKhz }) => clockKhz > 0);
    const responses = of(events, "response");
    const fromHost = frames.filter((frame) => frame.fromHost);
    const fromCard = frames.filter((frame) => !frame.fromHost);
    assert.equal([fromHost.length, fromCard.length], [commands.length, responses.length]);
    for (const [i, { at, bits }] of fromHost.entries()) {
      const command = commands[i] as Of<"command">;
      assert.is(Number.parseInt(bits.slice(2, 8), 2), command.index);
      assert.is(Number.parseInt(bits.slice(8, 40), 2), command.argument);
      const half = 500_000 / command.clockKhz;
      assert.ok(
        Math.abs(at - half - Number(command.startNs)) <= 1,
        `CMD${command.index} starts when it starts`,
      );
    }
    for (const [i, { bits }] of fromCard.entries()) {
      const response = responses[i] as Of<"response">;
      const content = response.words.map((word) => word.toString(2).padStart(32, "0")).join("");
      assert.is(bits.slice(8, 8 + content.length), content, `${response.type} of CMD${response.index}`);
      const named = response.type === "R2" || response.type === "R3" ? 63 : response.index;
      assert.is(Number.parseInt(bits.slice(2, 8), 2), named);
    }
    let checked = 0;
    for (const { bits } of frames) {
      assert.is(bits.at(-1), "1");
      if (bits.slice(0, 8) === "00111111") continue; // R2 and R3: no CRC over the frame
      const bytes = Uint8Array.from(bits.slice(0, 40).match(/.{8}/g) ?? [], (byte) =>
        Number.parseInt(byte, 2),
      );
      assert.is(Number.parseInt(bits.slice(40, 47), 2), slowCrc7(bytes));
      checked++;
    }
    note(`${card}: ${fromHost.length} commands and ${fromCard.length} responses read back, ${checked} CRC7`);
  });
}

test("frames known by heart: CMD0 ends in 0x95, CMD8 in 0x87, CMD17 in 0x55, CMD55 in 0x65", () => {
  assert.is(Buffer.from(commandFrame(0, 0)).toString("hex"), "400000000095");
  assert.is(Buffer.from(commandFrame(8, 0x1aa)).toString("hex"), "48000001aa87");
  assert.is(Buffer.from(commandFrame(17, 0)).toString("hex"), "510000000055");
  assert.is(Buffer.from(commandFrame(55, 0)).toString("hex"), "770000000065");
  const r3 = responseFrame({ type: "R3", index: 41, words: [0xc0ff8000] });
  assert.is(Buffer.from(r3).toString("hex"), "3fc0ff8000ff");
  const r1 = responseFrame({ type: "R1", index: 17, words: [0x900] });
  assert.is(
    Buffer.from(r1).toString("hex"),
    "110000090067",
    "the response of the SD specification's example",
  );
});

test("the levels of a VCD say what the events say", () => {
  const { events } = everything("emmc");
  const dump = readVcd(formatVcd(events, { card: "emmc" }));
  const names = [...dump.vars.values()].map(({ name }) => name);
  assert.equal(names.includes("CMD"), false);
  const valuesOf = (name: string) => dump.changes.filter((one) => one.name === name);
  const busyNs = (changes: { at: number; value: string }[]) => {
    let sum = 0;
    for (const [i, { at, value }] of changes.entries())
      if (value === "1") sum += (changes[i + 1]?.at ?? at) - at;
    return sum;
  };
  let expectedNs = 0n;
  let since: bigint | null = null;
  for (const event of events) {
    if (event.kind === "busy-start") since ??= event.timeNs;
    if (event.kind === "busy-end" && since !== null) {
      expectedNs += event.timeNs - since;
      since = null;
    }
  }
  assert.is(busyNs(valuesOf("dat_busy")), Number(expectedNs));
  const states = valuesOf("card_state").map(({ value }) => value);
  assert.is(Number.parseInt(states.at(-1) ?? "", 2), 4, "tran at the end");
  assert.ok(states.includes("110") && states.includes("111"), "rcv and prg on the way");
  const steps = valuesOf("step").filter(({ value }) => !value.includes("x"));
  // Two steps at one moment: the second one stays.
  const told = of(events, "step").filter(({ timeNs }, k, all) => all[k + 1]?.timeNs !== timeNs);
  assert.equal(
    steps.map(({ at, value }) => [at, Number.parseInt(value, 2)]),
    told.map(({ timeNs, step }) => [Number(timeNs), step]),
  );
  // More than 60 blocks were written and 8 read, at 8 lines and 50 MHz 10.6 µs each.
  assert.ok(busyNs(valuesOf("dat_write")) > 60 * 10_000);
  assert.ok(busyNs(valuesOf("dat_read")) > 8 * 10_000);
  const lbas = new Set(valuesOf("block_lba").map(({ value }) => Number.parseInt(value, 2)));
  for (const { lba } of of(events, "block-write")) assert.ok(lba !== null && lbas.has(lba));
});

test("one-bit dumps have no vector; a dump of nothing and of any part of a trace is valid", () => {
  const { events } = everything("sd");
  const bits = formatVcd(events, { wires: true, bitsOnly: true, card: "sd" });
  assert.ok([...readVcd(bits).vars.values()].every(({ width }) => width === 1));
  assert.not.match(bits, /^b/m);
  assert.equal(readVcd(formatVcd([])).changes.length, readVcd(formatVcd([])).vars.size);
  fc.assert(
    fc.property(fc.nat(events.length), fc.nat(60), fc.boolean(), (from, count, wires) => {
      const text = formatVcd(events.slice(from, from + count), { wires });
      readVcd(text);
      assert.is(formatVcd(events.slice(from, from + count), { wires }), text);
    }),
    { numRuns: 200 },
  );
});

test("a response that the controller found damaged has a wrong CRC7 in the VCD, the others a right one", () => {
  const { device, events } = recorded();
  events.length = 0;
  device.injectFault({ kind: "response-crc", command: 17, times: 1 });
  device.read(0, 512);
  const frames = framesOf(readVcd(formatVcd(events, { wires: true, card: "emmc" })));
  const wrong = frames.filter(({ bits }) => {
    const bytes = Uint8Array.from(bits.slice(0, 40).match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2));
    return Number.parseInt(bits.slice(40, 47), 2) !== slowCrc7(bytes);
  });
  assert.equal(
    wrong.map(({ fromHost, bits }) => [fromHost, Number.parseInt(bits.slice(2, 8), 2)]),
    [[false, 17]],
  );
});

test.run();
