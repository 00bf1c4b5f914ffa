// How fast a guest gets its bytes: an SdhciPeripheral in `instant` mode under a driver that only programs it,
// 64 KiB a command. Wall clocks live here.
// Usage: npm run bench:embed [-- --json]
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { formatTable } from "../host/cli/output.js";
import type { ExternalMedium } from "../host/core/external-medium.js";
import { Device } from "../host/device.js";
import { type GuestBus, SdhciPeripheral } from "../host/embed/peripheral.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const MEDIUM_BYTES = 16 << 20;
const REQUEST_BYTES = 65536;
const RAM_BYTES = 1 << 20;
const ADDRESS = 0x20000;
const TABLE = 0x800;
const ROUNDS = 9;
const MOVES = ["pio", "sdma", "adma2"] as const;
type Move = (typeof MOVES)[number];

class Board implements GuestBus {
  readonly ram = new Uint8Array(RAM_BYTES);
  readonly words = new Uint32Array(this.ram.buffer);
  irq(): void {}
  dmaRead(address: number, lengthBytes: number): Uint8Array {
    return this.ram.subarray(address, address + lengthBytes);
  }
  dmaWrite(address: number, bytes: Uint8Array): void {
    this.ram.set(bytes, address);
  }
}

/** A command without data; throws unless it completes. */
function command(host: SdhciPeripheral, index: number, argument: number, response: number): void {
  host.write32(0x08, argument);
  host.write16(0x0c, 0);
  host.write16(0x0e, (index << 8) | response);
  finish(host, index, (response & 3) === 3 ? 3 : 1);
}

/** Throws unless command complete (1), or that and transfer complete (3), is there; buffer ready may be, too. */
function finish(host: SdhciPeripheral, index: number, wanted: number): void {
  const status = host.read32(0x30);
  if ((status & ~0x30) !== wanted) throw new Error(`CMD${index}: status ${status.toString(16)}`);
  host.write32(0x30, status);
}

function clock(host: SdhciPeripheral, divider: number): void {
  host.write16(0x2c, 0);
  host.write16(0x2c, (divider << 8) | 1);
  host.write16(0x2c, (divider << 8) | 5);
}

/** An eMMC at 50 MHz and four lines. */
function identify(host: SdhciPeripheral): void {
  host.write32(0x34, 0x03ff00fb);
  host.write8(0x2e, 14);
  host.write8(0x29, 0x0f);
  clock(host, 250);
  command(host, 0, 0, 0);
  do command(host, 1, 0x40ff8000, 2);
  while ((host.read32(0x10) & 0x80000000) === 0);
  command(host, 2, 0, 9);
  command(host, 3, 1 << 16, 0x1a);
  command(host, 7, 1 << 16, 0x1b);
  command(host, 6, 0x03b70101, 0x1b);
  command(host, 6, 0x03b90101, 0x1b);
  host.write8(0x28, 6);
  clock(host, 2);
}

/** CMD18 or CMD25 with auto-CMD12. */
function transfer(host: SdhciPeripheral, board: Board, move: Move, isWrite: boolean, lba: number): void {
  host.write16(0x04, 0x7200);
  host.write16(0x06, REQUEST_BYTES / 512);
  host.write32(0x08, lba);
  if (move === "sdma") host.write32(0x00, ADDRESS);
  if (move === "adma2") {
    board.words.set([0x23, ADDRESS], TABLE / 4);
    host.write32(0x58, TABLE);
  }
  host.write8(0x28, move === "adma2" ? 0x16 : 6);
  host.write16(0x0c, (move === "pio" ? 0 : 1) | 0x26 | (isWrite ? 0 : 0x10));
  host.write16(0x0e, isWrite ? 0x193a : 0x123a);
  if (move === "pio") {
    for (let word = ADDRESS / 4; word < (ADDRESS + REQUEST_BYTES) / 4; word++) {
      if (isWrite) host.write32(0x20, board.words[word] as number);
      else board.words[word] = host.read32(0x20);
    }
  }
  finish(host, isWrite ? 25 : 18, 3);
}

interface Row {
  medium: string;
  move: Move;
  readMBps: number;
  writeMBps: number;
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

function mbps(run: () => void): number {
  const before = performance.now();
  run();
  return MEDIUM_BYTES / 1000 / (performance.now() - before);
}

function measure(medium: string, device: Device, move: Move): Row {
  const board = new Board();
  const host = new SdhciPeripheral(device, board);
  identify(host);
  const whole = (isWrite: boolean) => {
    for (let lba = 0; lba < MEDIUM_BYTES / 512; lba += REQUEST_BYTES / 512)
      transfer(host, board, move, isWrite, lba);
  };
  const reads: number[] = [];
  const writes: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    // Other bytes each time: what is read back was written in this round.
    const request = board.ram.subarray(ADDRESS, ADDRESS + REQUEST_BYTES);
    for (let i = 0; i < request.length; i++) request[i] = (i * 31 + (i >> 9) + round) & 0xff;
    const sent = request.slice();
    writes.push(mbps(() => whole(true)));
    request.fill(0);
    reads.push(mbps(() => whole(false)));
    if (Buffer.compare(sent, request) !== 0) throw new Error(`${medium}, ${move}: other bytes came back`);
  }
  return { medium, move, readMBps: median(reads), writeMBps: median(writes) };
}

const module = new WebAssembly.Module(readFileSync(`${ROOT}dist/core/embed.wasm`));
const rows: Row[] = [];
for (const move of MOVES) {
  const options = { controller: "8-bit", addressing: "sector" } as const;
  const inMemory = Device.open(module, { ...options, sizeBytes: MEDIUM_BYTES });
  rows.push(measure("in memory", inMemory, move));
  const bytes = new Uint8Array(MEDIUM_BYTES);
  const medium: ExternalMedium = {
    sizeBytes: MEDIUM_BYTES,
    read: (offset, to) => to.set(bytes.subarray(offset, offset + to.length)),
    write: (offset, data) => bytes.set(data, offset),
  };
  rows.push(measure("external", Device.openExternal(module, medium, options), move));
}
if (process.argv.includes("--json")) {
  console.log(JSON.stringify(rows, null, 2));
} else {
  const table: (string | number)[][] = [];
  for (const row of rows) {
    const numbers = [row.readMBps, row.writeMBps].map((value) => value.toFixed(1));
    table.push([row.medium, row.move, ...numbers]);
  }
  console.log(
    `A guest's commands of ${REQUEST_BYTES} bytes over ${MEDIUM_BYTES} bytes; medians of ${ROUNDS} rounds.`,
  );
  console.log(
    formatTable(
      ["medium", "by", "read (MB/s)", "write (MB/s)"],
      table.map((row) => row.map(String)),
      [2, 3],
    ),
  );
}
