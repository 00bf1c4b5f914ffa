// Every state × every command, written down from mmc.md §1.4, §1.5 and §2.2, for eMMC, SDHC and SDHC without
// CMD23; for SD also every application command behind CMD55. A fresh card is brought into the state by
// commands, gets one more, and must answer or not, report the state before, end in the state after, and
// complain about an illegal command in exactly the next R1.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Answer, Bus, type CardState, hex, note, R1, type Reply, stateOf } from "./bus.js";

type Kind = "eMMC" | "eMMC by bytes" | "SDHC" | "SDHC without CMD23";
/** The states after a command; several where the data may or may not be over yet. */
type After = readonly CardState[];

interface Row {
  index: number;
  /** What the host expects. Default R1. */
  answer?: Answer;
  /** Its argument; `rca` the card's own address in bits 31:16. Default 0. */
  argument?: (rca: number, state: CardState) => number;
  /** The card takes it without a word. */
  mute?: boolean;
  /** Legal in these states, and where it leads. Everywhere else it is illegal. */
  legal: Partial<Record<CardState, After>>;
}

const EMMC_STATES = [
  ...["idle", "ready", "ident", "stby", "tran", "data", "rcv", "prg", "dis", "slp", "ina"],
] as CardState[];
const SD_STATES = EMMC_STATES.filter((state) => state !== "slp");
const ADDRESSED = ["stby", "tran", "data", "rcv", "prg", "dis"] as const;

const own = (rca: number) => (rca << 16) >>> 0;
const other = (rca: number) => ((rca ^ 0x55) << 16) >>> 0;

/** The same state after as before. */
function staysIn(...states: CardState[]): Row["legal"] {
  return Object.fromEntries(states.map((state) => [state, [state]]));
}

function allTo(after: CardState, states: readonly CardState[]): Row["legal"] {
  return Object.fromEntries(states.map((state) => [state, [after]]));
}

const SELECT_OWN: Row["legal"] = { stby: ["tran"], dis: ["prg"] };
const SELECT_OTHER: Row["legal"] = {
  stby: ["stby"],
  tran: ["stby"],
  data: ["stby"],
  prg: ["dis"],
  dis: ["dis"],
};
// Without a block received there is nothing to program.
const STOP: Row["legal"] = { data: ["tran"], rcv: ["prg", "tran"] };
const READ: Row["legal"] = { tran: ["data"] };
const SHORT_READ: Row["legal"] = { tran: ["data", "tran"] };
const WRITE: Row["legal"] = { tran: ["rcv"] };

// mmc.md §1.4, §2.2
const EMMC: Row[] = [
  { index: 0, mute: true, legal: allTo("idle", EMMC_STATES.slice(0, -1)) },
  { index: 1, answer: "r3", argument: () => 0x40ff8080, legal: { idle: ["ready"] } },
  { index: 2, answer: "r2", legal: { ready: ["ident"] } },
  { index: 3, argument: own, legal: { ident: ["stby"] } },
  { index: 4, mute: true, argument: () => 0x0404ffff, legal: staysIn("stby") },
  {
    index: 5,
    answer: "r1b",
    argument: (rca, state) => own(rca) + (state === "slp" ? 0 : 0x8000),
    legal: { stby: ["slp"], slp: ["stby"] },
  },
  { index: 6, answer: "r1b", argument: () => 0x03af0101, legal: { tran: ["prg"] } },
  { index: 7, answer: "r1b", argument: own, legal: SELECT_OWN },
  { index: 7, mute: true, argument: other, legal: SELECT_OTHER },
  { index: 7, mute: true, legal: SELECT_OTHER },
  { index: 8, legal: READ },
  { index: 9, answer: "r2", argument: own, legal: staysIn("stby") },
  { index: 10, answer: "r2", argument: own, legal: staysIn("stby") },
  { index: 12, legal: STOP },
  { index: 13, argument: own, legal: staysIn(...ADDRESSED) },
  { index: 15, mute: true, argument: own, legal: allTo("ina", ADDRESSED) },
  { index: 16, argument: () => 512, legal: staysIn("tran") },
  { index: 17, legal: READ },
  { index: 18, legal: READ },
  { index: 23, argument: () => 2, legal: staysIn("tran") },
  { index: 21, legal: {} }, // not in the legacy timing: see emmc-modes.test.ts
  { index: 24, legal: WRITE },
  { index: 25, legal: WRITE },
  { index: 26, legal: WRITE },
  { index: 27, legal: WRITE },
  { index: 28, answer: "r1b", legal: { tran: ["prg"] } },
  { index: 29, answer: "r1b", legal: { tran: ["prg"] } },
  { index: 30, legal: SHORT_READ },
  { index: 31, legal: SHORT_READ },
  { index: 35, legal: staysIn("tran") },
  { index: 36, legal: staysIn("tran") },
  { index: 38, answer: "r1b", legal: staysIn("tran") }, // no sequence before it: nothing is erased
  { index: 55, argument: own, legal: staysIn(...ADDRESSED) },
];
/** In the standard, but listed in assembly/card/legal.ts as not modelled: illegal everywhere. */
const EMMC_NOT_MODELLED = new Set([...[14, 19, 39, 40, 42, 44, 45, 46, 47, 48, 49, 53, 54, 56]]);

// mmc.md §1.5, §2.2
const SDHC: Row[] = [
  { index: 0, mute: true, legal: allTo("idle", SD_STATES.slice(0, -1)) },
  { index: 2, answer: "r2", legal: { ready: ["ident"] } },
  { index: 3, answer: "r6", legal: { ident: ["stby"], stby: ["stby"] } },
  { index: 4, mute: true, argument: () => 0x0404ffff, legal: staysIn("stby") },
  { index: 6, argument: () => 0x00fffff0, legal: SHORT_READ },
  { index: 7, answer: "r1b", argument: own, legal: SELECT_OWN },
  { index: 7, mute: true, argument: other, legal: SELECT_OTHER },
  { index: 7, mute: true, legal: SELECT_OTHER },
  { index: 8, answer: "r7", argument: () => 0x1aa, legal: staysIn("idle") },
  { index: 9, answer: "r2", argument: own, legal: staysIn("stby") },
  { index: 10, answer: "r2", argument: own, legal: staysIn("stby") },
  { index: 12, answer: "r1b", legal: STOP },
  { index: 13, argument: own, legal: staysIn(...ADDRESSED) },
  { index: 15, mute: true, argument: own, legal: allTo("ina", ADDRESSED) },
  { index: 16, argument: () => 512, legal: staysIn("tran") },
  { index: 17, legal: READ },
  { index: 18, legal: READ },
  { index: 23, argument: () => 2, legal: staysIn("tran") },
  { index: 24, legal: WRITE },
  { index: 25, legal: WRITE },
  { index: 27, legal: WRITE },
  { index: 32, legal: staysIn("tran") },
  { index: 33, legal: staysIn("tran") },
  { index: 38, answer: "r1b", legal: staysIn("tran") },
  {
    index: 55,
    argument: (rca, state) => (state === "idle" ? 0 : own(rca)),
    legal: staysIn("idle", ...ADDRESSED),
  },
];
const SD_NOT_MODELLED = new Set([42, 48, 49, 56]);
/** For SDIO: a memory card is silent; whether it complains afterwards is left open. */
const SD_SDIO = new Set([5, 52, 53]);

const SD_APPLICATION: Row[] = [
  { index: 6, argument: () => 2, legal: staysIn("tran") },
  { index: 13, legal: SHORT_READ },
  { index: 22, legal: SHORT_READ },
  { index: 23, argument: () => 8, legal: staysIn("tran") },
  { index: 41, answer: "r3", argument: () => 0x40ff8000, legal: { idle: ["ready"] } },
  { index: 42, argument: () => 1, legal: staysIn("tran") },
  { index: 51, legal: SHORT_READ },
];

const TABLES: Record<Kind, { rows: Row[]; states: CardState[]; notModelled: Set<number> }> = {
  eMMC: { rows: EMMC, states: EMMC_STATES, notModelled: EMMC_NOT_MODELLED },
  "eMMC by bytes": { rows: EMMC, states: EMMC_STATES, notModelled: EMMC_NOT_MODELLED },
  SDHC: { rows: SDHC, states: SD_STATES, notModelled: SD_NOT_MODELLED },
  "SDHC without CMD23": {
    rows: SDHC.filter(({ index }) => index !== 23),
    states: SD_STATES,
    notModelled: SD_NOT_MODELLED,
  },
};

const LONG_NS = 2_000_000_000;

function machine(kind: Kind): Bus {
  return new Bus({
    card: kind.startsWith("eMMC") ? "emmc" : "sd",
    emmc: { byteAddressed: kind === "eMMC by bytes" },
    cmd23: kind !== "SDHC without CMD23",
    sectors: 1024,
    trace: false,
    timing: { readNs: LONG_NS, programNs: LONG_NS, switchNs: 50_000_000, sleepNs: 1_000_000 },
  });
}

/** A fresh card in `state`, the controller free. */
function bring(bus: Bus, state: CardState): void {
  const rest = state === "idle" || state === "ready" || state === "ident" || state === "stby";
  bus.powerUp();
  bus.identify(rest ? state : state === "slp" || state === "ina" ? "stby" : "tran");
  if (state === "data") bus.must(18, 0);
  if (state === "rcv") bus.must(25, 0);
  if (state === "prg" || state === "dis") {
    bus.must(24, bus.address(3), "r1", { read: false, blocks: 1 });
    assert.is(bus.pioWrite(new Uint8Array(512).fill(0x5a)), 0);
    bus.idle(20_000_000);
    bus.resetLines();
  }
  if (state === "dis") bus.send(7, 0, "none");
  if (state === "slp") bus.must(5, own(bus.rca) + 0x8000, "r1b");
  if (state === "ina") bus.send(15, own(bus.rca), "none");
  bus.idle(2_000_000);
  bus.resetLines();
  assert.is(bus.state, state, `brought into ${state}`);
}

/** "stby → tran, dis → prg; silent in idle": the states in which the command is taken. */
function statesOfCell(cell: string): CardState[] {
  const taken = cell
    .replace(/silent in [a-z, ]+|prg as HPI/g, "")
    .replace(/all but ina/g, EMMC_STATES.slice(0, -1).join(", "))
    .replace(/stby … dis/g, ADDRESSED.join(", "))
    .replace(/→ [a-z]+/g, "");
  return EMMC_STATES.filter((state) => new RegExp(`\\b${state}\\b`).test(taken));
}

/** Rows of docs/DESIGN.md: command numbers and what both kinds of card say. */
function documentedRows(): { name: string; numbers: number[]; cells: [string, string] }[] {
  const text = readFileSync(new URL("../../docs/DESIGN.md", import.meta.url), "utf8");
  const lines = text.slice(text.indexOf("| command | eMMC | SD |")).split("\n").slice(2);
  const rows: ReturnType<typeof documentedRows> = [];
  for (const line of lines.slice(0, lines.indexOf(""))) {
    const [, name = "", emmc = "", sd = ""] = line.split("|").map((cell) => cell.trim());
    const cell = emmc === "the same" ? (rows.at(-1)?.cells[0] ?? "") : emmc;
    const numbers = (name.match(/\d+/g) ?? []).map(Number);
    rows.push({ name, numbers, cells: [cell, sd === "the same" ? cell : sd] });
  }
  return rows;
}

test("docs/DESIGN.md's table of commands and states is the one that is tested here", () => {
  const rows = documentedRows();
  assert.is(rows.length, 32);
  let compared = 0;
  for (const { name, numbers, cells } of rows) {
    const isApp = name.startsWith("ACMD");
    for (const [i, table] of [EMMC, isApp ? SD_APPLICATION : SDHC].entries()) {
      const cell = cells[i] ?? "";
      // What hangs on the card's kind, version, voltage or timing has tests of its own.
      if (/\bif\b|SDSC|1\.8 V|HS200/.test(cell) || (isApp && i === 0)) continue;
      for (const index of numbers) {
        const isOther = name === "7 other";
        const row = table.find(
          (one) => one.index === index && (one.mute === true) === (isOther || !!quiet(one)),
        );
        const tested = Object.keys(row?.legal ?? {}).filter((state) => !isOther || !quietIn(cell, state));
        const said = statesOfCell(cell).filter((state) => i === 0 || state !== "slp");
        assert.equal(tested.sort(), [...said].sort(), `${name}, ${i === 0 ? "eMMC" : "SD"}: ${cell}`);
        compared++;
      }
    }
  }
  // And nothing is taken of which the table says nothing.
  for (const [table, isApp] of [
    [EMMC, false],
    [SDHC, false],
    [SD_APPLICATION, true],
  ] as const) {
    for (const { index } of table) {
      assert.ok(
        rows.some(({ name, numbers }) => name.startsWith("ACMD") === isApp && numbers.includes(index)),
        `CMD${index} is in the table`,
      );
    }
  }
  note(`${compared} rows of the documented table`);
});

/** Commands without a response at all, as opposed to CMD7 that deselects. */
function quiet({ index, mute }: Row): boolean {
  return mute === true && index !== 7;
}

/** "silent in stby, dis" */
function quietIn(cell: string, state: string): boolean {
  return new RegExp(`silent in [a-z, ]*\\b${state}\\b`).test(cell);
}

/** R1 of the next command that is answered with one, and of the one behind it. Null: there is none. */
function nextStatus(bus: Bus, state: CardState): [number, number] | null {
  if ((ADDRESSED as readonly CardState[]).includes(state)) return [bus.status(), bus.status()];
  if (state === "slp") {
    const first = bus.must(5, own(bus.rca), "r1b").r1;
    bus.awaitBusy();
    return [first, bus.status()];
  }
  if (state === "ident") {
    if (bus.isEmmc) return [bus.must(3, own(bus.rca)).r1, bus.status()];
    const r6 = bus.must(3, 0, "r6").r1;
    bus.rca = r6 >>> 16;
    return [((r6 & 0xc000) << 8) | ((r6 & 0x2000) << 6) | (r6 & 0x1fff), bus.status()];
  }
  if (state === "idle" && !bus.isEmmc) return [bus.must(55, 0).r1, bus.must(55, 0).r1];
  return null;
}

/** R1's or R6's CURRENT_STATE; undefined for the other responses. */
function reported(answer: Answer, reply: Reply): CardState | undefined {
  return answer === "r1" || answer === "r1b" || answer === "r6" ? stateOf(reply.r1) : undefined;
}

function checkAfter(bus: Bus, after: After, what: string): void {
  assert.ok(after.includes(bus.state), `${what}: ${bus.state} instead of ${after.join(" or ")}`);
  if (!(ADDRESSED as readonly CardState[]).includes(bus.state)) return;
  const r1 = bus.status();
  const told = stateOf(r1);
  assert.ok(told !== undefined && after.includes(told), `${what}: CMD13 says ${told}`);
  assert.is(r1 & R1.illegal, 0, `${what}: no complaint in ${hex(r1)}`);
}

function checkIllegal(bus: Bus, state: CardState, complains: boolean, what: string): void {
  assert.is(bus.state, state, `${what}: the state stays`);
  if (state === "ina") return;
  const told = nextStatus(bus, state);
  if (!told) {
    // No R1 to be had here; identification goes on as if nothing had been, and the bit is gone behind it.
    if (state === "idle") bus.operatingConditions();
    bus.must(2, 0, "r2");
    if (bus.isEmmc) bus.must(3, own(bus.rca));
    else bus.rca = bus.must(3, 0, "r6").r1 >>> 16;
    assert.is(bus.status() & R1.illegal, 0, `${what}: forgotten after identification`);
    return;
  }
  const [first, second] = told;
  assert.is(stateOf(first), state, `${what}: CMD13 reports ${hex(first)}`);
  if (complains) assert.is(first & R1.illegal, R1.illegal, `${what}: complaint in ${hex(first)}`);
  assert.is(second & R1.illegal, 0, `${what}: told once, then ${hex(second)}`);
}

/** Sends the row's command and checks everything about it. */
function tryRow(bus: Bus, row: Row, state: CardState, complains: boolean, what: string): void {
  const answer = row.answer ?? "r1";
  const reply = bus.send(row.index, row.argument?.(bus.rca, state) ?? 0, answer);
  const after = row.legal[state];
  assert.is(reply.silent, after === undefined || row.mute === true, `${what}: ${hex(reply.status)}`);
  if (after === undefined) {
    checkIllegal(bus, state, complains, what);
    return;
  }
  // An SD card has another address from here on.
  if (answer === "r6" && !reply.silent) bus.rca = reply.r1 >>> 16;
  if (!reply.silent) {
    assert.is(reply.errors, 0, `${what}: ${hex(reply.status)}`);
    const told = reported(answer, reply);
    if (told) assert.is(told, state, `${what}: R1 tells the state before, ${hex(reply.r1)}`);
  }
  if (row.index === 55 && state === "idle") {
    assert.is(bus.state, "idle", what);
    return;
  }
  // CMD55 makes the next CMD13 an ACMD13: only an SD card takes it as one.
  if (row.index === 55 && !bus.isEmmc) assert.is(bus.state, state, what);
  else checkAfter(bus, after, what);
}

for (const [name, { rows, states, notModelled }] of Object.entries(TABLES)) {
  const kind = name as Kind;
  test(`${kind}: every state × every command`, () => {
    const bus = machine(kind);
    let cases = 0;
    const failures: string[] = [];
    for (const state of states) {
      bus.core.machineInit();
      bring(bus, state);
      const snapshot = bus.save();
      const { rca } = bus;
      for (let index = 0; index < 64; index++) {
        const found = rows.filter((row) => row.index === index && !notModelled.has(index));
        for (const row of found.length > 0 ? found : [{ index, legal: {} } as Row]) {
          bus.load(snapshot);
          bus.rca = rca;
          const argument = row.argument?.(rca, state) ?? 0;
          const what = `${kind} ${state}: CMD${index} ${hex(argument)}`;
          const complains = bus.isEmmc || !SD_SDIO.has(index);
          try {
            tryRow(bus, row, state, complains, what);
          } catch (error) {
            failures.push((error as Error).message);
          }
          cases++;
        }
      }
    }
    note(`${kind}: ${cases} cases of state × command`);
    assert.equal(failures, []);
  });
}

test("SDHC: every state × every application command", () => {
  const bus = machine("SDHC");
  let cases = 0;
  const failures: string[] = [];
  for (const state of SD_STATES) {
    bus.core.machineInit();
    bring(bus, state);
    const snapshot = bus.save();
    const { rca } = bus;
    for (const row of SD_APPLICATION) {
      bus.load(snapshot);
      bus.rca = rca;
      const what = `SDHC ${state}: ACMD${row.index}`;
      try {
        const hears = SDHC.find(({ index }) => index === 55)?.legal[state] !== undefined;
        const prefix = bus.send(55, state === "idle" ? 0 : own(rca));
        assert.is(prefix.silent, !hears, `${what}: CMD55`);
        if (hears) {
          assert.is(stateOf(prefix.r1), state, `${what}: CMD55 tells the state`);
          assert.is(prefix.r1 & R1.appCommand, R1.appCommand, `${what}: APP_CMD`);
        }
        // Without CMD55 it is the plain command of that index, none of them legal in ready, ident, ina.
        tryRow(bus, hears ? row : { index: row.index, legal: {} }, state, true, what);
      } catch (error) {
        failures.push((error as Error).message);
      }
      cases++;
    }
  }
  note(`SDHC: ${cases} cases of state × application command`);
  assert.equal(failures, []);
});

test("a command that names another card is nobody's: silence, no complaint, no change", () => {
  let cases = 0;
  for (const kind of ["eMMC", "SDHC"] as const) {
    const bus = machine(kind);
    for (const [state, indexes] of [
      ["stby", kind === "eMMC" ? [5, 9, 10, 13, 15, 55] : [9, 10, 13, 15, 55]],
      ...(["tran", "data", "rcv", "prg", "dis"] as const).map((s) => [s, [13, 15, 55]] as const),
    ] as [CardState, number[]][]) {
      for (const index of indexes) {
        bus.core.machineInit();
        bring(bus, state);
        const what = `${kind} ${state}: CMD${index} of another card`;
        assert.is(bus.send(index, other(bus.rca) + (index === 5 ? 0x8000 : 0)).silent, true, what);
        const r1 = bus.status();
        assert.is(stateOf(r1), state, what);
        assert.is(r1 & R1.illegal, 0, what);
        cases++;
      }
    }
  }
  note(`${cases} cases of commands for another card`);
});

test("inactive: nothing but a power cycle helps", () => {
  for (const kind of ["eMMC", "SDHC"] as const) {
    const bus = machine(kind);
    bus.powerUp();
    bus.identify("idle");
    // No voltage in common: 2.0 V only.
    const answer = kind === "eMMC" ? bus.send(1, 0x40000100, "r3") : bus.app(41, 0x40000100, "r3");
    assert.is(answer.silent, true, kind);
    assert.is(bus.state, "ina", kind);
    bus.core.machineInit();
    bring(bus, "ina");
    bus.send(0, 0, "none");
    assert.is(bus.state, "ina");
    assert.is(bus.send(kind === "eMMC" ? 1 : 8, kind === "eMMC" ? 0 : 0x1aa, "r3").silent, true);
    bus.powerDown();
    bus.open();
    assert.is(stateOf(bus.status()), "tran", kind);
  }
});

test("a wrong CRC7 on a command: no response, no change, bit 23 in the next R1 only", () => {
  for (const kind of ["eMMC", "SDHC"] as const) {
    const bus = machine(kind);
    for (const state of ADDRESSED) {
      bus.core.machineInit();
      bring(bus, state);
      bus.fault({ kind: "command-crc", times: 1 });
      assert.is(bus.send(13, own(bus.rca)).silent, true);
      const first = bus.status();
      const second = bus.status();
      assert.is(first & (R1.commandCrc | R1.illegal), R1.commandCrc, `${kind} ${state}: ${hex(first)}`);
      assert.is(second & (R1.commandCrc | R1.illegal), 0, `${kind} ${state}: ${hex(second)}`);
      assert.is(stateOf(first), state);
    }
  }
});

test("SD: CMD13 directly behind CMD55 is ACMD13 and ends in data", () => {
  const bus = machine("SDHC").open();
  bus.must(55, own(bus.rca));
  const r1 = bus.must(13, own(bus.rca)).r1;
  assert.is(stateOf(r1), "tran");
  assert.is(bus.state, "data");
  assert.is(stateOf(bus.must(12, 0).r1), "data");
  assert.is(stateOf(bus.status()), "tran");
});

test("READY_FOR_DATA is 0 as long as DAT0 is low, and prg ends in tran", () => {
  for (const kind of ["eMMC", "SDHC"] as const) {
    const bus = machine(kind);
    bring(bus, "prg");
    assert.is(bus.status() & R1.ready, 0);
    assert.is(bus.present & (1 << 20), 0, "DAT0 is low");
    bus.send(7, 0, "none");
    assert.is(bus.state, "dis");
    assert.is(bus.present & (1 << 20), 1 << 20, "a deselected card lets go of DAT0");
    assert.is(bus.status() & R1.ready, 0);
    bus.must(7, own(bus.rca), "r1b");
    assert.is(bus.present & (1 << 20), 0, "DAT0 is low again");
    bus.idle(LONG_NS);
    const r1 = bus.status();
    assert.is(stateOf(r1), "tran");
    assert.is(r1 & R1.ready, R1.ready);
  }
});

test("dis ends in stby when programming does", () => {
  for (const kind of ["eMMC", "SDHC"] as const) {
    const bus = machine(kind);
    bring(bus, "dis");
    bus.idle(LONG_NS);
    assert.is(stateOf(bus.status()), "stby");
    same512(bus, 3);
  }
});

function same512(bus: Bus, lba: number): void {
  assert.is(
    bus.stored(lba).every((byte) => byte === 0x5a),
    true,
    "the sector was programmed",
  );
}

test.run();
