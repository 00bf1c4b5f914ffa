// What a driver that died can leave behind, made by raw register accesses of the test's own: commands in the middle of
// their data, and controllers in states that no driver of ours makes. Register numbers are written down once more.
import type { QemuSdhci } from "./sdhci-pci.js";

const REG = {
  dmaAddress: 0x00,
  blockSize: 0x04,
  blockCount: 0x06,
  argument: 0x08,
  transferMode: 0x0c,
  command: 0x0e,
  buffer: 0x20,
  hostControl: 0x28,
  power: 0x29,
  blockGap: 0x2a,
  clock: 0x2c,
  reset: 0x2f,
  status: 0x30,
  statusEnable: 0x34,
  signalEnable: 0x38,
  control2: 0x3e,
  admaAddress: 0x58,
} as const;
const READ = 0x10;
const COUNTED = 0x02;
const MULTI = 0x20;
const DMA = 0x01;
const R1 = 0x1a;
const DATA = 0x20;

export interface LeftOpen {
  name: string;
  /** The state that CMD13 tells; null: nothing answers. */
  state: "stby" | "tran" | "data" | "rcv" | null;
  /** The highest rung of the takeover ladder that may be needed. */
  rung: number;
  leave(qemu: QemuSdhci, card: { address: number; rca: number }): void;
}

function command(qemu: QemuSdhci, index: number, argument: number, flags: number): void {
  qemu.write(REG.status, 4, 0xffffffff);
  qemu.write(REG.argument, 4, argument);
  qemu.write(REG.command, 2, (index << 8) | flags);
}

function transfer(qemu: QemuSdhci, index: number, address: number, blocks: number, mode: number): void {
  qemu.write(REG.blockSize, 2, 512);
  qemu.write(REG.blockCount, 2, blocks);
  qemu.write(REG.transferMode, 2, mode);
  command(qemu, index, address, R1 | DATA);
}

function readWords(qemu: QemuSdhci, count: number): void {
  for (let i = 0; i < count; i++) qemu.read(REG.buffer, 4);
}

function writeWords(qemu: QemuSdhci, count: number): void {
  for (let i = 0; i < count; i++) qemu.write(REG.buffer, 4, 0x5a5a0000 + i);
}

const OPEN_READ = READ | MULTI | COUNTED;
const OPEN_WRITE = MULTI | COUNTED;

function reading(name: string, rest: (qemu: QemuSdhci) => void = () => undefined): LeftOpen {
  return {
    name,
    state: "data",
    rung: 1,
    leave(qemu, { address }) {
      transfer(qemu, 18, address, 8, OPEN_READ);
      rest(qemu);
    },
  };
}

function writing(name: string, rest: (qemu: QemuSdhci) => void = () => undefined): LeftOpen {
  return {
    name,
    state: "rcv",
    rung: 1,
    leave(qemu, { address }) {
      transfer(qemu, 25, address, 8, OPEN_WRITE);
      rest(qemu);
    },
  };
}

/** The card in tran, the controller not as the driver left it. */
function controller(name: string, leave: (qemu: QemuSdhci) => void): LeftOpen {
  return { name, state: "tran", rung: 1, leave };
}

export const LEFT_OPEN: LeftOpen[] = [
  reading("CMD18, nothing read"),
  reading("CMD18, the port half read", (qemu) => readWords(qemu, 64)),
  reading("CMD18, one byte read", (qemu) => qemu.read(REG.buffer, 1)),
  reading("CMD18, three blocks and a half read", (qemu) => readWords(qemu, 3 * 128 + 64)),
  reading("CMD18, all that was counted read, no CMD12", (qemu) => readWords(qemu, 8 * 128)),
  reading("CMD18, the data lines reset", (qemu) => qemu.write(REG.reset, 1, 4)),
  reading("CMD18, everything in the controller reset", (qemu) => qemu.write(REG.reset, 1, 1)),
  reading("CMD18, stopped at a block gap", (qemu) => {
    qemu.write(REG.blockGap, 1, 1);
    readWords(qemu, 128);
  }),
  reading("CMD18, a command on the line", (qemu) => command(qemu, 13, 0, R1)),
  {
    // The card has sent its block and is done with it.
    name: "CMD17, nothing read",
    state: "tran",
    rung: 1,
    leave: (qemu, { address }) => transfer(qemu, 17, address, 1, READ),
  },
  {
    name: "CMD17 with half a block as its length",
    state: "data",
    rung: 1,
    leave(qemu, { address }) {
      qemu.write(REG.transferMode, 2, READ);
      qemu.write(REG.blockSize, 4, 0x00010100);
      command(qemu, 17, address, R1 | DATA);
      readWords(qemu, 64);
    },
  },
  {
    name: "CMD18 by SDMA, stopped at its boundary",
    state: "data",
    rung: 1,
    leave(qemu, { address }) {
      qemu.write(REG.hostControl, 1, 0x02);
      qemu.write(REG.dmaAddress, 4, 0x10000);
      qemu.write(REG.blockSize, 4, 512 | (16 << 16));
      qemu.write(REG.transferMode, 2, OPEN_READ | DMA);
      command(qemu, 18, address, R1 | DATA);
    },
  },
  {
    name: "CMD18 by ADMA2, its table without a valid descriptor",
    state: "data",
    rung: 1,
    leave(qemu, { address }) {
      qemu.write(REG.hostControl, 1, 0x12);
      qemu.write(REG.admaAddress, 4, 0x8000);
      qemu.write(REG.blockSize, 4, 512 | (16 << 16));
      qemu.write(REG.transferMode, 2, OPEN_READ | DMA);
      command(qemu, 18, address, R1 | DATA);
    },
  },
  writing("CMD25, nothing written"),
  writing("CMD25, the port half full", (qemu) => writeWords(qemu, 64)),
  writing("CMD25, one byte written", (qemu) => qemu.write(REG.buffer, 1, 0x5a)),
  writing("CMD25, three blocks and a half written", (qemu) => writeWords(qemu, 3 * 128 + 64)),
  writing("CMD25, all that was counted written, no CMD12", (qemu) => writeWords(qemu, 8 * 128)),
  writing("CMD25, the data lines reset", (qemu) => qemu.write(REG.reset, 1, 4)),
  writing("CMD25, everything in the controller reset", (qemu) => qemu.write(REG.reset, 1, 1)),
  {
    name: "CMD24, nothing written",
    state: "rcv",
    rung: 1,
    leave: (qemu, { address }) => transfer(qemu, 24, address, 1, 0),
  },
  {
    name: "CMD24, the port half full",
    state: "rcv",
    rung: 1,
    leave(qemu, { address }) {
      transfer(qemu, 24, address, 1, 0);
      writeWords(qemu, 64);
    },
  },
  {
    name: "CMD24 as a command without data",
    state: "rcv",
    rung: 1,
    leave: (qemu, { address }) => command(qemu, 24, address, R1),
  },
  {
    name: "CMD17 as a command without data",
    state: "data",
    rung: 1,
    leave: (qemu, { address }) => command(qemu, 17, address, R1),
  },
  {
    name: "CMD7 to nobody: the card deselected",
    state: "stby",
    rung: 1,
    leave: (qemu) => command(qemu, 7, 0, 0),
  },
  { name: "CMD0: the card in idle", state: null, rung: 5, leave: (qemu) => command(qemu, 0, 0, 0) },
  {
    // The first CMD13 is ACMD13: its R1 tells tran, and the card then sends its status as data.
    name: "CMD55",
    state: "tran",
    rung: 1,
    leave: (qemu, { rca }) => command(qemu, 55, rca << 16, R1),
  },
  {
    name: "ACMD51, its block not read",
    state: "tran",
    rung: 1,
    leave(qemu, { rca }) {
      command(qemu, 55, rca << 16, R1);
      qemu.write(REG.transferMode, 2, READ);
      qemu.write(REG.blockSize, 4, 0x00010008);
      command(qemu, 51, 0, R1 | DATA);
    },
  },
  {
    name: "ACMD6: the card on one line",
    state: "tran",
    rung: 1,
    leave(qemu, { rca }) {
      command(qemu, 55, rca << 16, R1);
      command(qemu, 6, 0, R1);
    },
  },
  controller("an erase range begun", (qemu) => command(qemu, 32, 0, R1)),
  controller("every signal on, no status enabled", (qemu) => {
    qemu.write(REG.statusEnable, 4, 0);
    qemu.write(REG.signalEnable, 4, 0xffffffff);
  }),
  controller("clock off", (qemu) => qemu.write(REG.clock, 2, 0)),
  controller("the card's clock off", (qemu) => qemu.write(REG.clock, 2, 1)),
  controller("everything reset", (qemu) => qemu.write(REG.reset, 1, 1)),
  controller("error bits standing", (qemu) => command(qemu, 63, 0, R1)),
  controller("eight lines, ADMA2, high speed", (qemu) => qemu.write(REG.hostControl, 1, 0x36)),
  controller("stop at block gap asked for", (qemu) => qemu.write(REG.blockGap, 1, 1)),
  controller("a transfer mode of a read by DMA", (qemu) => qemu.write(REG.transferMode, 2, OPEN_READ | DMA)),
  controller("HOST_CONTROL2 written", (qemu) => qemu.write(REG.control2, 2, 0xffff)),
];
