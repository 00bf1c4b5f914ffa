// Every register × width × kind of access, against a table written from mmc.md §3.1: what it holds out of
// reset, which bits can be written, what writing them does to them, and what a transfer under way forbids.
// Two controllers: the default one, and one with UHS, whose HOST_CONTROL2 and presets are there.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Bus, hex, INT, MODE, note, PRESENT, REG } from "./bus.js";

type Kind = "full" | "uhs";
type Width = 1 | 2 | 4;
const WIDTHS: readonly Width[] = [1, 2, 4];

/** One register of the table. Bits are those of the whole register. */
interface Register {
  at: number;
  bytes: Width;
  name: string;
  reset: number;
  /** Bits that read back as they were written. */
  writable: number;
  /** Kept by a transfer under way. */
  held?: boolean;
  /** Not looked at here: what it shows depends on more than a write. */
  live?: boolean;
}

function table(kind: Kind): Register[] {
  const uhs = kind === "uhs";
  const preset = (at: number, reset: number): Register => {
    return { at, bytes: 2, name: `PRESET ${hex(at)}`, reset: uhs ? reset : 0, writable: 0 };
  };
  return [
    { at: 0x00, bytes: 4, name: "SDMA ADDRESS", reset: 0, writable: 0xffffffff },
    { at: 0x04, bytes: 2, name: "BLOCK_SIZE", reset: 0, writable: 0x7fff, held: true },
    { at: 0x06, bytes: 2, name: "BLOCK_COUNT", reset: 0, writable: 0xffff, held: true },
    { at: 0x08, bytes: 4, name: "ARGUMENT", reset: 0, writable: 0xffffffff },
    { at: 0x0c, bytes: 2, name: "TRANSFER_MODE", reset: 0, writable: 0x003f, held: true },
    { at: 0x0e, bytes: 2, name: "COMMAND", reset: 0, writable: 0x3ffb },
    { at: 0x10, bytes: 4, name: "RESPONSE 0", reset: 0, writable: 0 },
    { at: 0x14, bytes: 4, name: "RESPONSE 1", reset: 0, writable: 0 },
    { at: 0x18, bytes: 4, name: "RESPONSE 2", reset: 0, writable: 0 },
    { at: 0x1c, bytes: 4, name: "RESPONSE 3", reset: 0, writable: 0 },
    { at: 0x20, bytes: 4, name: "BUFFER DATA", reset: 0, writable: 0, live: true },
    { at: 0x24, bytes: 4, name: "PRESENT_STATE", reset: 0x01ff0000, writable: 0, live: true },
    { at: 0x28, bytes: 1, name: "HOST_CONTROL", reset: 0, writable: 0xff },
    { at: 0x29, bytes: 1, name: "POWER", reset: 0, writable: 0x0f },
    { at: 0x2a, bytes: 1, name: "BLOCK_GAP", reset: 0, writable: 0x0d },
    { at: 0x2b, bytes: 1, name: "WAKEUP", reset: 0, writable: 0x07 },
    { at: 0x2c, bytes: 2, name: "CLOCK", reset: 0, writable: 0xffe5 },
    { at: 0x2e, bytes: 1, name: "TIMEOUT", reset: 0, writable: 0x0f },
    { at: 0x2f, bytes: 1, name: "SW RESET", reset: 0, writable: 0 },
    { at: 0x30, bytes: 4, name: "INT_STATUS", reset: 0, writable: 0, live: true },
    { at: 0x34, bytes: 4, name: "STATUS ENABLE", reset: 0, writable: 0x07ff01ff },
    { at: 0x38, bytes: 4, name: "SIGNAL ENABLE", reset: 0, writable: 0x07ff01ff },
    { at: 0x3c, bytes: 2, name: "AUTO CMD ERR", reset: 0, writable: 0 },
    { at: 0x3e, bytes: 2, name: "HOST CONTROL 2", reset: 0, writable: uhs ? 0xc07f : 0 },
    { at: 0x40, bytes: 4, name: "CAPABILITIES", reset: uhs ? 0x056cc8b2 : 0x012cc8b2, writable: 0 },
    { at: 0x44, bytes: 4, name: "CAPABILITIES 1", reset: uhs ? 0x00002077 : 0, writable: 0 },
    { at: 0x48, bytes: 4, name: "MAX CURRENT", reset: 0, writable: 0 },
    { at: 0x4c, bytes: 4, name: "reserved", reset: 0, writable: 0 },
    { at: 0x50, bytes: 2, name: "FORCE AUTO CMD ERR", reset: 0, writable: 0 },
    { at: 0x52, bytes: 2, name: "FORCE ERROR", reset: 0, writable: 0 },
    { at: 0x54, bytes: 4, name: "ADMA ERROR", reset: 0, writable: 0 },
    { at: 0x58, bytes: 4, name: "ADMA ADDRESS", reset: 0, writable: 0xffffffff },
    { at: 0x5c, bytes: 4, name: "ADMA ADDRESS, upper", reset: 0, writable: 0 },
    // Dividers of 200 MHz for 400 kHz; 25 and 50 MHz; SDR12, 25, 50, 104, DDR50.
    preset(0x60, 250),
    preset(0x62, 4),
    preset(0x64, 2),
    preset(0x66, 4),
    preset(0x68, 2),
    preset(0x6a, 1),
    preset(0x6c, 0),
    preset(0x6e, 2),
    ...Array.from({ length: 35 }, (_, i): Register => {
      return { at: 0x70 + 4 * i, bytes: 4, name: "reserved", reset: 0, writable: 0 };
    }),
    { at: 0xfc, bytes: 2, name: "SLOT INT STATUS", reset: 0, writable: 0, live: true },
    { at: 0xfe, bytes: 2, name: "VERSION", reset: 0x0002, writable: 0 },
  ];
}

interface Lane {
  name: string;
  reset: number;
  writable: number;
  held: boolean;
  live: boolean;
}

function lanesOf(kind: Kind): Lane[] {
  const lanes: Lane[] = [];
  for (const { at, bytes, name, reset, writable, held, live } of table(kind)) {
    assert.is(lanes.length, at, `the table has a hole before ${name}`);
    for (let i = 0; i < bytes; i++) {
      const byteOf = (value: number) => (value >>> (8 * i)) & 0xff;
      lanes.push({
        name: `${name} byte ${i}`,
        reset: byteOf(reset),
        writable: byteOf(writable),
        held: held === true,
        live: live === true,
      });
    }
  }
  assert.is(lanes.length, 256, "the table covers the BAR");
  return lanes;
}

const lane = (lanes: Lane[], at: number): Lane => lanes[at] as Lane;

function read(bus: Bus, at: number, width: Width): number {
  return width === 1 ? bus.read8(at) : width === 2 ? bus.read16(at) : bus.read32(at);
}

function write(bus: Bus, at: number, width: Width, value: number): void {
  if (width === 1) bus.write8(at, value & 0xff);
  else if (width === 2) bus.write16(at, value & 0xffff);
  else bus.write32(at, value);
}

/** What a byte holds after `value` was written to it while it held `before`. */
function after(bytes: Lane, at: number, before: number, value: number): number {
  const stored = (before & ~bytes.writable) | (value & bytes.writable);
  // 3.3 V alone is there, with UHS 1.8 V too: another voltage is not switched on.
  if (at === 0x29 && (value & 1) !== 0) {
    const code = value & 0x0e;
    const supplied = code === 0x0e || (code === 0x0a && bytes.name.endsWith("uhs"));
    return supplied ? stored : stored & ~1;
  }
  // Internal clock stable follows its enable.
  if (at === 0x2c) return (stored & ~2) | ((value & 1) << 1);
  return stored;
}

let cases = 0;

for (const kind of ["full", "uhs"] as const) {
  const lanes = lanesOf(kind);
  lane(lanes, 0x29).name += ` ${kind}`;

  test(`${kind}: read out of reset`, () => {
    const bus = new Bus({ controller: kind });
    for (const width of WIDTHS) {
      for (let at = 0; at < 256; at += width) {
        let expected = 0;
        for (let i = 0; i < width; i++) expected += lane(lanes, at + i).reset * 2 ** (8 * i);
        assert.is(hex(read(bus, at, width)), hex(expected), `${8 * width} bits at ${hex(at)}`);
        cases++;
      }
    }
  });

  for (const [what, value] of [
    ["ones", 0xffffffff],
    ["zeros", 0],
    ["a pattern", 0x5aa55aa5],
  ] as const) {
    test(`${kind}: write ${what}`, () => {
      const bus = new Bus({ controller: kind });
      const fresh = bus.save();
      for (const filled of [false, true]) {
        for (const width of WIDTHS) {
          for (let at = 0; at < 256; at += width) {
            bus.load(fresh);
            // Before zeros are written there must be something to lose.
            if (filled) write(bus, at, width, at <= 0x2f && at + width > 0x2f ? 0x00ffffff : 0xffffffff);
            // Ones in COMMAND have begun a data command.
            if (filled && at < 0x10) bus.resetLines();
            const before = Array.from({ length: width }, (_, i) => bus.read8(at + i));
            write(bus, at, width, value);
            for (let i = 0; i < width; i++) {
              const here = lane(lanes, at + i);
              if (here.live) continue;
              let expected = after(here, at + i, before[i] ?? 0, (value >>> (8 * i)) & 0xff);
              // RESET_ALL is written last and takes the rest of the word with it.
              const resets = at + width > 0x2f && at <= 0x2f && (value >>> (8 * (0x2f - at))) & 1;
              if (resets) expected = here.reset;
              assert.is(
                hex(bus.read8(at + i)),
                hex(expected),
                `${here.name}: ${8 * width} bits ${hex(value)} at ${hex(at)}, before ${hex(before[i] ?? 0)}`,
              );
            }
            cases++;
          }
        }
      }
    });
  }

  test(`${kind}: write 1 to clear, each status bit by each width, and what is beside it stays`, () => {
    const bus = new Bus({ controller: kind });
    bus.write32(REG.statusEnable, 0xffffffff);
    bus.write16(0x52, 0xffff);
    bus.core.machineInsert(0);
    bus.core.machineInsert(1);
    const all = 0x07ff80c0;
    assert.is(hex(bus.read32(REG.status)), hex(all), "errors by force, both edges of the slot");
    const full = bus.save();
    for (let bit = 0; bit < 32; bit++) {
      for (const width of WIDTHS) {
        bus.load(full);
        const shift = Math.floor(bit / (8 * width)) * 8 * width;
        write(bus, REG.status + shift / 8, width, (1 << bit) >>> shift);
        const clears = bit === 15 ? 0 : (1 << bit) >>> 0;
        assert.is(hex(bus.read32(REG.status)), hex((all & ~clears) >>> 0), `bit ${bit} by ${8 * width} bits`);
        write(bus, REG.status + shift / 8, width, 0);
        assert.is(hex(bus.read32(REG.status)), hex((all & ~clears) >>> 0), `bit ${bit}: zeros`);
        cases += 2;
      }
    }
  });

  test(`${kind}: write while a transfer is under way`, () => {
    const bus = new Bus({ controller: kind }).open();
    bus.must(18, 0, "r1", { read: true, blocks: 4, mode: MODE.count | MODE.multi | MODE.read });
    bus.awaitStatus(INT.readReady);
    assert.is(bus.present & PRESENT.dataInhibit, PRESENT.dataInhibit);
    const full = bus.save();
    for (const value of [0xffffffff, 0, 0x5aa55aa5]) {
      for (const width of WIDTHS) {
        for (let at = 0; at < 256; at += width) {
          bus.load(full);
          const before = Array.from({ length: width }, (_, i) => bus.read8(at + i));
          bus.load(full);
          write(bus, at, width, value);
          for (let i = 0; i < width; i++) {
            const here = lane(lanes, at + i);
            if (here.live) continue;
            const was = before[i] ?? 0;
            let expected = here.held ? was : after(here, at + i, was, (value >>> (8 * i)) & 0xff);
            const resets = at + width > 0x2f && at <= 0x2f && (value >>> (8 * (0x2f - at))) & 1;
            if (resets) expected = here.reset;
            assert.is(
              hex(bus.read8(at + i)),
              hex(expected),
              `${here.name}: ${8 * width} bits ${hex(value)} at ${hex(at)}, before ${hex(was)}`,
            );
          }
          cases++;
        }
      }
    }
  });
}

test.after(() => {
  note(`${cases} cases of register, width and kind of access`);
  assert.ok(cases >= 1000);
});
test.run();
