// The controller as a peripheral of a machine (host/embed/peripheral.ts), driven by a guest's driver of the test's own:
// RAM that only DMA of the peripheral reaches, interrupts, the guest's clock, resets, saved states, panics in
// mid-transfer; and the example in docs/EMBEDDING.md.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device, type DeviceOptions } from "../host/device.js";
import { type GuestTiming, SdhciPeripheral } from "../host/embed/peripheral.js";
import { decodeArea } from "../host/pstore/decode.js";
import { Board, Guest, type Move } from "./embed/guest.js";
import { coreModule, PANIC_LOG, pattern, sameBytes, textOf } from "./machine.js";

const AREA = { offset: 512 * 1024, kmsgSize: 65536, kmsgCount: 8, abi: "lp64" } as const;
const OPTIONS: DeviceOptions = { sizeBytes: 1 << 20, controller: "8-bit", area: AREA, trace: true };
const MOVES: Move[] = ["pio", "sdma", "adma2"];
const TIMINGS: GuestTiming[] = ["instant", "clock"];

interface Machine {
  device: Device;
  board: Board;
  host: SdhciPeripheral;
  guest: Guest;
}

function machineOf(options: DeviceOptions = {}, timing: GuestTiming = "instant"): Machine {
  const device = Device.open(coreModule("embed"), { ...OPTIONS, ...options });
  const board = new Board();
  const host = new SdhciPeripheral(device, board, { timing });
  return { device, board, host, guest: new Guest(host, board) };
}

function recordsOf(device: Device) {
  return decodeArea(device.medium().slice(AREA.offset)).records;
}

for (const timing of TIMINGS) {
  for (const card of ["emmc", "sd"] as const) {
    for (const move of MOVES) {
      test(`${card}, ${move}, ${timing}: identified, written, read, by interrupts`, () => {
        const { device, guest } = machineOf({ card }, timing);
        guest.identify(card === "sd");
        guest.move = move;
        const data = pattern(3, 40 * 512);
        // An address that is no multiple of anything: SDMA's boundaries fall into blocks.
        guest.write(77, data, 0x10123 & ~3);
        assert.ok(sameBytes(device.medium().subarray(77 * 512, 77 * 512 + data.length), data));
        assert.ok(sameBytes(guest.read(77, data.length, 0x40010), data));
        assert.is(guest.board.level, false);
        assert.is(guest.host.takeBusFailure(), undefined);
      });
    }
  }
}

test("the interrupt line is told of changes only, and starts low", () => {
  const { board, guest } = machineOf();
  guest.identify(false);
  guest.read(0, 4096);
  assert.ok(board.levels.length > 20);
  assert.ok(board.levels.every((level, i) => level === (i % 2 === 0)));
});

test("a panic in mid-DMA: the record decodes, the guest's RAM is left alone", () => {
  for (const move of MOVES) {
    for (const isWrite of [true, false]) {
      const { device, guest, board, host } = machineOf({}, "clock");
      guest.identify(false);
      guest.move = move;
      board.ram.set(pattern(5, 65536), 0x20000);
      guest.start(isWrite, 100, 65536, 0x20000);
      for (let i = 0; i < 3; i++) {
        guest.nowNs += 300_000n;
        host.tick(guest.nowNs);
      }
      const calls = board.dmaCalls;
      const ram = board.ram.slice();
      const result = device.panicWrite({ text: PANIC_LOG, timeSec: 7n });
      assert.is(result.status, 0, `${move}`);
      assert.is(result.rung, 1);
      assert.is(result.cardState, isWrite ? "rcv" : "data");
      assert.is(board.dmaCalls, calls);
      assert.ok(sameBytes(board.ram, ram));
      const [record] = recordsOf(device);
      assert.ok(record?.state === "ok" && record.sealed && sameBytes(textOf(record), PANIC_LOG));
      host.tick(guest.nowNs + 1_000_000_000n);
      assert.is(board.level, false);
      assert.is(board.dmaCalls, calls);
    }
  }
});

test.run();
