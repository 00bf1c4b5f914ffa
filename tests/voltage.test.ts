// The host's signal voltage (SDHCI_HOST_CONTROL2 bit 3) and supply (SDHCI_POWER_CONTROL) against the card's: who is not
// at the other's level is neither heard nor understood, and only a power cycle takes an SD card back to 3.3 V (mmc.md
// §1.6, §2.2; §2.8).
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  Bus,
  type BusOptions,
  CONTROL2_VDD_180,
  INT,
  INT_ERRORS,
  note,
  PRESENT,
  pattern,
  R1,
  REG,
  same,
} from "./bus.js";

const RESET_ALL = 1;

function setLevel(bus: Bus, low: boolean): void {
  bus.write16(REG.control2, low ? CONTROL2_VDD_180 : 0);
}

/** An SD card in tran, at 3.3 V or switched to 1.8 V. */
function opened(low: boolean, options: BusOptions = {}): Bus {
  const bus = new Bus({ card: "sd", controller: "uhs", sd: { uhs: true }, ...options });
  bus.powerUp();
  if (low) bus.identifyLow();
  else bus.identify();
  bus.setClock(25_000);
  return bus;
}

test("an SD card hears commands at its own level alone, in every state", () => {
  let cases = 0;
  for (const cardLow of [false, true]) {
    for (const hostLow of [false, true]) {
      for (const kind of ["tran", "stby", "data", "rcv", "prg", "idle"] as const) {
        const bus = opened(cardLow, { timing: { readNs: 1e9, programNs: 1e9 } });
        if (kind === "stby") bus.send(7, 0, "none");
        if (kind === "data") bus.must(18, 0);
        if (kind === "rcv") bus.must(25, 0);
        if (kind === "prg") {
          bus.must(24, 0, "r1", { read: false, blocks: 1 });
          bus.pioWrite(pattern(1));
          bus.idle(1_000_000);
          bus.resetLines();
        }
        if (kind === "idle") {
          bus.setClock(400);
          bus.send(0, 0, "none");
        }
        assert.is(bus.state, kind);
        setLevel(bus, hostLow);
        const what = `${kind}, card at 1.8 V: ${cardLow}, host: ${hostLow}`;
        const agree = hostLow === cardLow;
        const ask = () => (kind === "idle" ? bus.send(8, 0x1aa, "r7") : bus.send(13, bus.rca << 16));
        assert.is(ask().silent, !agree, what);
        // CMD0 is not heard either, so the state stays.
        if (!agree) bus.send(0, 0, "none");
        assert.is(bus.state, kind, what);
        setLevel(bus, cardLow);
        assert.is(ask().r1 & R1.illegal, 0, `${what}: a command that was not heard was not illegal`);
        cases++;
      }
    }
  }
  note(`${cases} cases of card's level × host's × state`);
});

test("blocks at the other level: none comes, none is taken, and the card's contents stay", () => {
  for (const cardLow of [false, true]) {
    const bus = opened(cardLow, { timing: { readNs: 1_000_000 } });
    bus.preset(3, pattern(1, 9));
    bus.must(17, 3, "r1", { read: true, blocks: 1 });
    setLevel(bus, !cardLow);
    assert.is((bus.awaitStatus(INT.readReady) & INT_ERRORS) >>> 0, INT.dataTimeout, "read");
    bus.resetLines();
    setLevel(bus, cardLow);
    assert.is(bus.awaitTran() & R1.illegal, 0, "the card has sent its block to nobody");
    bus.must(24, 3, "r1", { read: false, blocks: 1 });
    setLevel(bus, !cardLow);
    bus.pioWrite(pattern(1, 8));
    assert.is((bus.awaitStatus(INT.transfer) & INT_ERRORS) >>> 0, INT.dataTimeout, "write");
    bus.resetLines();
    setLevel(bus, cardLow);
    assert.is(bus.state, "rcv", "still waiting for its block");
    bus.must(12, 0, "r1b");
    bus.awaitTran();
    same(bus.stored(3), pattern(1, 9), "nothing was stored");
    same(bus.readBlocks(3, 1).data, pattern(1, 9), "and it reads as before");
  }
});

test("a reset that only the host had leaves the card at 1.8 V; CMD0 does not take it back, the supply does", () => {
  const bus = opened(true);
  bus.write8(REG.reset, RESET_ALL);
  assert.is(bus.read16(REG.control2), 0);
  bus.powerUp();
  assert.is(bus.state, "tran", "the supply was never gone");
  for (const index of [0, 8, 13, 12, 55]) assert.is(bus.send(index, 0, "r1").silent, true, `CMD${index}`);
  setLevel(bus, true);
  assert.is(bus.must(13, bus.rca << 16).r1 & R1.illegal, 0);
  // Identification at 1.8 V, where S18A is not offered again.
  bus.identify("idle");
  assert.is(bus.operatingConditions(0x41ff8000), 0xc0ff8000);
  assert.is(bus.send(11, 0).silent, true);
  setLevel(bus, false);
  assert.is(bus.send(2, 0, "r2").silent, true);
  bus.powerDown();
  bus.powerUp();
  bus.identify();
  assert.is(bus.state, "tran");
  setLevel(bus, true);
  assert.is(bus.send(13, bus.rca << 16).silent, true, "a host that stays at 1.8 V is alone there");
});

test("CMD11 begun and not ended: DAT0 is low and nothing is heard until 1.8 V or a power cycle", () => {
  for (const cure of ["1.8 V", "power cycle"] as const) {
    const bus = new Bus({ card: "sd", controller: "uhs", sd: { uhs: true } });
    bus.powerUp();
    bus.identify("idle");
    bus.operatingConditions(0x41ff8000);
    bus.must(11, 0);
    bus.send(0, 0, "none");
    assert.is(bus.send(8, 0x1aa, "r7").silent, true);
    assert.is(bus.state, "ready");
    assert.is(bus.present & PRESENT.dat0, 0);
    if (cure === "1.8 V") {
      setLevel(bus, true);
      assert.is(bus.present & PRESENT.dat0, PRESENT.dat0);
      assert.is(bus.must(2, 0, "r2").errors, 0);
      continue;
    }
    bus.powerDown();
    bus.powerUp();
    assert.is(bus.present & PRESENT.dat0, PRESENT.dat0);
    bus.identify();
  }
});

test("a supply of 1.8 V is none for an SD card, and one for an eMMC, whose OCR has bit 7", () => {
  for (const card of ["sd", "sdsc", "sdxc", "emmc"] as const) {
    const bus = new Bus({ card, controller: "uhs" });
    bus.powerUp();
    bus.identify();
    bus.write8(REG.power, 0x0b);
    assert.is(bus.read8(REG.power), 0x0b, "the regulator does not ask the card");
    assert.is(bus.send(13, bus.rca << 16).silent, card !== "emmc", card);
    bus.write8(REG.power, 0x0f);
    bus.setClock(400);
    bus.identify();
    assert.is(bus.state, "tran", card);
  }
});

test("a fixed supply comes with the first voltage and goes with the machine's power alone", () => {
  const bus = opened(true, { fixedSupply: true });
  bus.write8(REG.power, 0);
  bus.idle(10_000_000);
  bus.write8(REG.power, 0x0f);
  assert.is(bus.must(13, bus.rca << 16).r1 & R1.illegal, 0, "nothing was lost");
  bus.core.machineCut(0, 0);
  bus.powerUp();
  bus.identify("idle");
  assert.is(bus.operatingConditions(0x41ff8000), 0xc1ff8000, "at 3.3 V again");
});

const EMMC_MODES: [
  name: string,
  steps: [index: number, value: number][],
  width: 1 | 8,
  dual: boolean,
  khz: number,
][] = [
  ["legacy", [], 1, false, 25_000],
  [
    "HS",
    [
      [185, 1],
      [183, 2],
    ],
    8,
    false,
    50_000,
  ],
  [
    "DDR52",
    [
      [185, 1],
      [183, 6],
    ],
    8,
    true,
    50_000,
  ],
  [
    "HS200",
    [
      [183, 2],
      [185, 2],
    ],
    8,
    false,
    200_000,
  ],
  [
    "HS400",
    [
      [183, 2],
      [185, 2],
      [185, 1],
      [183, 6],
      [185, 3],
    ],
    8,
    true,
    200_000,
  ],
];

test("an eMMC follows the host's rail; HS200 and HS400 are for 1.8 V", () => {
  for (const [name, steps, width, dual, khz] of EMMC_MODES) {
    const bus = new Bus({ controller: "uhs", emmc: { deviceType: 0x57 } }).open();
    for (const [index, value] of steps) assert.is(bus.switchByte(index, value) & R1.switchError, 0, name);
    bus.preset(3, pattern(1, 9));
    bus.setLines(width);
    bus.write16(REG.control2, CONTROL2_VDD_180 | (dual ? 4 : 0));
    bus.setClock(khz);
    if (khz > 100_000) bus.tune();
    const control2 = bus.read16(REG.control2);
    for (const low of [true, false, true]) {
      bus.write16(REG.control2, low ? control2 : control2 & ~CONTROL2_VDD_180);
      const carries = low || khz <= 100_000;
      assert.is(
        bus.send(13, bus.rca << 16).silent,
        false,
        `${name}: the CMD line is slow enough for any level`,
      );
      const read = bus.readBlocks(3, 1);
      assert.is(read.errors, carries ? 0 : INT.dataCrc, `${name}: read, 1.8 V: ${low}`);
      if (carries) same(read.data, pattern(1, 9), name);
      else bus.resetLines();
      bus.awaitTran();
      const write = bus.writeBlocks(5, pattern(1, 8));
      assert.is(write.errors, carries ? 0 : INT.dataCrc, `${name}: write, 1.8 V: ${low}`);
      if (!carries) bus.resetLines();
      bus.awaitTran();
    }
  }
});

test.run();
