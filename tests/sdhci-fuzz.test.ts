// Register accesses by chance, from a seed: whatever a driver does, the core does not trap, shows no status
// bit that was not enabled, keeps its present state consistent, its line a level and its time going forward
// by what it was told. MMCPSTORE_FUZZ_ACCESSES (default 320,000) sets the length; a failure names seed and
// access.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { TEXT_BASE } from "../assembly/layout.js";
import type { ControllerKind } from "../host/core/controllers.js";
import { Bus, hex, note, PRESENT, REG } from "./bus.js";

const ACCESSES = Number(process.env.MMCPSTORE_FUZZ_ACCESSES ?? 320_000);
const PER_SEED = 4000;
const COMMANDS = [0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 16, 17, 18, 23, 24, 25, 32, 33, 35, 36, 38, 41, 51, 55, 63];
const OFFSETS = [
  0, 4, 6, 8, 12, 14, 15, 0x20, 0x28, 0x29, 0x2a, 0x2c, 0x2e, 0x2f, 0x30, 0x34, 0x38, 0x3e, 0x50,
];
const KINDS: ControllerKind[] = ["full", "pio", "sdma", "adma2", "uhs"];

let state = 1;
function next(below: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}

function word(): number {
  const kind = next(5);
  if (kind === 0) return next(2 ** 32);
  if (kind === 1) return next(256);
  if (kind === 2) return (1 << next(32)) >>> 0;
  if (kind === 3) return TEXT_BASE + next(0x2000);
  return next(2) * 0xffffffff;
}

/** A machine whose driver sometimes knows what it is doing, or no command would ever go well. */
class Fuzzed extends Bus {
  restart(): void {
    this.core.machineInsert(1);
    this.write8(REG.reset, 1);
    this.powerUp();
    this.write32(REG.statusEnable, 0x07ff00ff);
    this.write8(REG.timeout, next(4));
    for (const [index, argument, answer] of [
      [0, 0, "none"],
      [1, 0x40ff8080, "r3"],
      [1, 0x40ff8080, "r3"],
      [2, 0, "r2"],
      [3, this.rca << 16, "r1"],
      [7, this.rca << 16, "r1"],
    ] as const) {
      this.issue(index, argument, answer);
      this.idle(1_000_000);
    }
    this.setClock(20_000);
    this.write8(REG.hostControl, next(2) ? 0x10 : 0);
  }
}

/** Writes a command as a driver would, with odd registers around it. */
function command(bus: Bus): void {
  const index = COMMANDS[next(COMMANDS.length)] ?? 0;
  bus.write32(REG.argument, next(3) === 0 ? word() : next(2) ? bus.rca << 16 : next(2048));
  bus.write16(REG.blockSize, next(3) === 0 ? next(65536) : 512 | (next(8) << 12));
  bus.write16(REG.blockCount, next(20));
  bus.write16(REG.transferMode, next(64));
  bus.write16(REG.command, (index << 8) | (next(3) === 0 ? next(256) : 0x1a | (next(2) << 5)));
}

/** A table of descriptors by chance; most of them point where data may go. */
function descriptors(bus: Bus): void {
  for (let i = 0; i < 6; i++) {
    const view = new DataView(bus.memory.buffer);
    view.setUint16(TEXT_BASE + i * 8, next(2) ? 0x21 : next(64), true);
    view.setUint16(TEXT_BASE + i * 8 + 2, next(2) ? 512 : next(65536), true);
    view.setUint32(TEXT_BASE + i * 8 + 4, next(4) === 0 ? word() : TEXT_BASE + next(0x1000), true);
  }
  bus.write32(REG.admaAddress, TEXT_BASE);
}

/** A transfer that goes well if nothing came between, by any of the three ways. */
function transfer(bus: Fuzzed): void {
  bus.restart();
  const read = next(2) === 0;
  const blocks = 1 + next(4);
  const dma = next(2);
  bus.write32(REG.dmaAddress, TEXT_BASE + 0x1000 + 4 * next(4096));
  descriptors(bus);
  bus.write16(REG.blockSize, 512 | (next(2) << 12));
  bus.write16(REG.blockCount, blocks);
  bus.write32(REG.argument, next(2000));
  bus.write16(REG.transferMode, 0x22 | (read ? 0x10 : 0) | dma | (next(2) << 2));
  bus.write16(REG.command, ((read ? 18 : 25) << 8) | 0x3a);
  bus.idle(2_000_000);
  for (let i = 0; i < blocks * 128 && dma === 0; i++) {
    if (read) bus.read32(REG.buffer);
    else bus.write32(REG.buffer, i);
    if (i % 128 === 127) bus.idle(2_000_000);
  }
}

function act(bus: Fuzzed): number {
  const what = next(16);
  if (what === 0) command(bus);
  else if (what === 1) bus.idle(1 + next(next(2) ? 100_000 : 50_000_000));
  else if (what === 2) bus.core.machineInsert(next(4) === 0 ? 0 : 1);
  else if (what === 3) descriptors(bus);
  else if (what === 4) for (let i = 0; i < 128; i++) bus.read32(REG.buffer);
  else if (what === 5) for (let i = 0; i < 128; i++) bus.write32(REG.buffer, i);
  else if (what === 6 && next(8) === 0) transfer(bus);
  else if (what === 7 && next(16) === 0) bus.restart();
  else {
    const at = next(2) ? (OFFSETS[next(OFFSETS.length)] ?? 0) : next(256);
    const width = next(3);
    if (what < 11) {
      if (width === 0) bus.read8(at);
      else if (width === 1) bus.read16(at);
      else bus.read32(at);
    } else if (width === 0) bus.write8(at, word() & 0xff);
    else if (width === 1) bus.write16(at, word() & 0xffff);
    else bus.write32(at, word());
  }
  // A compound action counts as one; only what is a single access is held to the enables around it.
  return what === 4 || what === 5 ? 128 : what === 0 ? 5 : what === 6 || what === 7 ? 2 : 1;
}

test(`${ACCESSES} accesses by chance`, () => {
  let accesses = 0;
  let commands = 0;
  let transfers = 0;
  for (let seed = 1; accesses < ACCESSES; seed++) {
    state = seed;
    const bus = new Fuzzed({
      controller: KINDS[seed % KINDS.length] ?? "full",
      timing: { accessCostNs: 20 },
    });
    bus.restart();
    let before = bus.read32(REG.status);
    let time = bus.nowNs;
    for (let i = 0; i < PER_SEED; ) {
      const where = () => `seed ${seed}, access ${i}`;
      const enabledBefore = bus.read32(REG.statusEnable);
      const acted = act(bus);
      accesses += acted + 4;
      i += acted + 4;
      const status = bus.read32(REG.status);
      const enabled = enabledBefore | bus.read32(REG.statusEnable) | 0x8000;
      // RESET_ALL within an access takes the enables with it; restart() sets them.
      assert.is((status & ~before & ~(enabled | 0x07ff00ff)) >>> 0, 0, `${where()}: status ${hex(status)}`);
      if (acted === 1) {
        const fresh = (status & ~before & ~enabled) >>> 0;
        assert.is(hex(fresh), hex(0), `${where()}: status ${hex(status)} without ${hex(enabled)}`);
      }
      assert.is((status & 0x8000) !== 0, (status & 0xffff0000) !== 0, `${where()}: the summary`);
      assert.is(status & 0x7f00, 0, `${where()}: bits that are never set`);
      assert.ok(status !== 0xffffffff);
      const signal = bus.read32(REG.signalEnable);
      assert.is(bus.core.irqLevel(), (bus.read32(REG.status) & signal) !== 0 ? 1 : 0, `${where()}: the line`);
      const present = bus.present;
      const has = (bits: number) => (present & bits) !== 0;
      assert.ok(!has(PRESENT.bufferRead) || has(PRESENT.readActive), `${where()}: ${hex(present)}`);
      assert.ok(!has(PRESENT.bufferWrite) || has(PRESENT.writeActive), `${where()}: ${hex(present)}`);
      assert.ok(!(has(PRESENT.readActive) && has(PRESENT.writeActive)), `${where()}: ${hex(present)}`);
      assert.ok(!has(PRESENT.dataActive) || has(PRESENT.dataInhibit), `${where()}: ${hex(present)}`);
      const moves = has(PRESENT.readActive) || has(PRESENT.writeActive);
      assert.ok(!moves || has(PRESENT.dataInhibit), `${where()}: ${hex(present)}`);
      // The lines rest while a transfer is on: only when the last block of a read waits in the buffer.
      assert.ok(!has(PRESENT.writeActive) || has(PRESENT.dataActive), `${where()}: ${hex(present)}`);
      assert.is(has(PRESENT.inserted), has(PRESENT.detectPin), `${where()}: ${hex(present)}`);
      assert.is(present & 0xfe00f0f8, 0, `${where()}: reserved bits ${hex(present)}`);
      const now = bus.nowNs;
      assert.ok(now > time, `${where()}: time`);
      time = now;
      before = bus.read32(REG.status);
      if ((status & 1) !== 0) commands++;
      if ((status & 2) !== 0) transfers++;
    }
  }
  note(`${accesses} accesses, command complete seen ${commands} times, transfer complete ${transfers} times`);
  assert.ok(commands > 100 && transfers > 50, "the accesses do something");
});

test.run();
