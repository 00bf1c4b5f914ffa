// R1 bit by bit: each bit that an eMMC of this model raises, where it is told first, that it is told once (types c and
// b of mmc.md §1.2) or for as long as its cause lasts (type a), and that CMD0 forgets it.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Bus, type BusOptions, hex, INT, note, pattern, R1, stateOf } from "./bus.js";

const GROUP = 16384;

interface Bit {
  name: string;
  bit: number;
  options?: BusOptions;
  /** Brings the cause about, and gives the R1 back that tells of it first. */
  cause(bus: Bus): number;
  /** True while the next R1 says it again. */
  lasts?: boolean;
  /** Ends a cause that lasts. */
  cure?(bus: Bus): void;
}

/** All bits that mean something, so that a test sees a stray one. */
const MEANING = 0xffffffff & ~(0x0f << 9) & ~R1.ready;

const BITS: readonly Bit[] = [
  { name: "OUT_OF_RANGE at the command", bit: R1.outOfRange, cause: (bus) => bus.must(17, 1 << 20).r1 },
  {
    name: "OUT_OF_RANGE in mid-transfer",
    bit: R1.outOfRange,
    cause: (bus) => {
      bus.must(18, bus.config.sectors - 1, "r1", { read: true, blocks: 2, mode: 0x32 });
      bus.pioRead(2);
      bus.resetLines();
      return bus.must(12, 0).r1;
    },
  },
  {
    name: "ADDRESS_ERROR",
    bit: R1.addressError,
    options: { emmc: { byteAddressed: true } },
    cause: (bus) => bus.must(24, 100).r1,
  },
  { name: "BLOCK_LEN_ERROR", bit: R1.blockLength, cause: (bus) => bus.must(16, 513).r1 },
  { name: "ERASE_SEQ_ERROR", bit: R1.eraseSequence, cause: (bus) => bus.must(38, 0, "r1b").r1 },
  {
    name: "ERASE_PARAM",
    bit: R1.eraseParameter,
    cause: (bus) => {
      bus.must(35, 9);
      bus.must(36, 8);
      return bus.must(38, 1, "r1b").r1;
    },
  },
  {
    name: "WP_VIOLATION at the command",
    bit: R1.writeProtected,
    cause: (bus) => {
      bus.must(28, 0, "r1b");
      bus.awaitBusy();
      const { r1 } = bus.must(25, 0);
      bus.must(12, 0, "r1b");
      return r1;
    },
  },
  {
    name: "WP_VIOLATION by CMD29",
    bit: R1.writeProtected,
    cause: (bus) => {
      bus.switchByte(171, 1);
      bus.must(28, 0, "r1b");
      bus.awaitBusy();
      return bus.must(29, 0, "r1b").r1;
    },
  },
  {
    name: "COM_CRC_ERROR",
    bit: R1.commandCrc,
    cause: (bus) => {
      bus.fault({ kind: "command-crc", command: 16, times: 1 });
      assert.is(bus.send(16, 512).silent, true);
      return bus.status();
    },
  },
  {
    name: "ILLEGAL_COMMAND",
    bit: R1.illegal,
    cause: (bus) => {
      assert.is(bus.send(42, 0).silent, true);
      return bus.status();
    },
  },
  {
    name: "CARD_ECC_FAILED",
    bit: R1.eccFailed,
    cause: (bus) => {
      bus.fault({ kind: "read-ecc", firstLba: 4, lastLba: 4, times: 1 });
      bus.readBlocks(4, 1);
      bus.resetLines();
      return bus.status();
    },
  },
  {
    name: "ERROR: a sector that cannot be programmed",
    bit: R1.error,
    cause: (bus) => {
      bus.fault({ kind: "program", firstLba: 4, lastLba: 4, times: 1 });
      bus.writeBlocks(4, pattern(1));
      bus.resetLines();
      return bus.awaitTran();
    },
  },
  {
    name: "ERROR: a packed read that no header has announced",
    bit: R1.error,
    cause: (bus) => {
      bus.must(23, 0x40000002);
      return bus.must(18, 0).r1;
    },
  },
  {
    name: "CID/CSD_OVERWRITE",
    bit: R1.overwrite,
    cause: (bus) => {
      bus.must(26, 0, "r1", { read: false, blocks: 1, blockBytes: 16 });
      bus.pioWrite(new Uint8Array(16), 16);
      bus.awaitStatus(INT.transfer);
      return bus.awaitTran();
    },
  },
  {
    name: "WP_ERASE_SKIP",
    bit: R1.eraseSkip,
    cause: (bus) => {
      bus.must(28, 0, "r1b");
      bus.awaitBusy();
      bus.must(35, 0);
      bus.must(36, 5);
      bus.must(38, 1, "r1b");
      return bus.awaitTran();
    },
  },
  {
    name: "ERASE_RESET",
    bit: R1.eraseReset,
    cause: (bus) => {
      bus.must(35, 0);
      return bus.must(16, 512).r1;
    },
  },
  {
    name: "SWITCH_ERROR",
    bit: R1.switchError,
    cause: (bus) => {
      bus.must(6, 0x03c00101, "r1b");
      bus.awaitBusy();
      return bus.status();
    },
  },
  {
    name: "EXCEPTION_EVENT",
    bit: R1.exception,
    options: { emmc: { bkopsSectors: 1 } },
    lasts: true,
    cause: (bus) => {
      bus.switchByte(163, 1);
      bus.writeBlocks(0, pattern(2), { count23: true });
      return bus.awaitTran();
    },
    cure: (bus) => {
      bus.switchByte(164, 1);
    },
  },
  { name: "APP_CMD", bit: R1.appCommand, cause: (bus) => bus.must(55, bus.rca << 16).r1 },
];

function opened(options: BusOptions = {}): Bus {
  return new Bus({ sectors: GROUP, ...options }).open();
}

for (const { name, bit, options, cause, lasts, cure } of BITS) {
  test(`${name}: told, and told again only if it lasts`, () => {
    const bus = opened(options);
    assert.is((bus.status() & MEANING) >>> 0, 0, "a fresh card has nothing to tell");
    const first = cause(bus);
    assert.is((first & bit) >>> 0, bit >>> 0, hex(first));
    assert.is((first & MEANING & ~bit) >>> 0, 0, `${hex(first)}: no other bit`);
    for (let i = 0; i < 3; i++) {
      const next = bus.status();
      assert.is((next & MEANING) >>> 0, lasts ? bit >>> 0 : 0, `${hex(next)}: the R1 ${i + 1} later`);
      assert.is(stateOf(next), "tran");
    }
    cure?.(bus);
    assert.is((bus.status() & MEANING) >>> 0, 0, "cured");
  });
}

test("CMD0 forgets every error that was not told yet", () => {
  let cases = 0;
  for (const silent of [42, 14, 19, 39, 44, 60]) {
    const bus = opened();
    assert.is(bus.send(silent, 0).silent, true);
    bus.identify();
    assert.is((bus.status() & MEANING) >>> 0, 0, `CMD${silent}`);
    cases++;
  }
  note(`${cases} cases of forgotten errors`);
});

test("several errors of one card are told together, once", () => {
  const bus = opened();
  bus.must(35, 0);
  assert.is(bus.send(42, 0).silent, true);
  const { r1 } = bus.must(17, 1 << 20);
  assert.is((r1 & MEANING) >>> 0, (R1.outOfRange | R1.eraseReset | R1.illegal) >>> 0);
  assert.is((bus.status() & MEANING) >>> 0, 0);
});

test("READY_FOR_DATA follows the busy line, CURRENT_STATE the state before", () => {
  const bus = opened({ timing: { programNs: 1_000_000_000, switchNs: 20_000_000 } });
  bus.must(6, 0x03af0101);
  const busy = bus.status();
  assert.equal([stateOf(busy), busy & R1.ready], ["prg", 0]);
  bus.idle(20_000_000);
  const done = bus.status();
  assert.equal([stateOf(done), done & R1.ready], ["tran", R1.ready]);
});

test.run();
