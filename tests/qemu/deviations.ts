// Where QEMU 7.2 and our model differ, each shown on both sides: what it is and who is right stands in docs/QEMU.md
// under the same name. `show` gives what a driver sees.
import { ANSWERS, DATA, hex, MODE, REG, RESET, type Session } from "./session.js";

export interface Deviation {
  name: string;
  qemu: string;
  ours: string;
  /** On a card in tran. */
  show(session: Session, card: { sectors: number }): string;
}

const COUNTED = MODE.count | MODE.multi;

function admaError(session: Session): string {
  const { side } = session;
  const table = Buffer.alloc(16);
  table.writeUInt16LE(0x21, 0);
  table.writeUInt16LE(512, 2);
  table.writeUInt32LE(side.dmaBase + 0x1000, 4);
  // Not a transfer, but the end: what Linux puts behind every table.
  table.writeUInt16LE(0x03, 8);
  side.writeMemory(side.dmaBase, table);
  side.write(REG.admaAddress, 4, side.dmaBase);
  side.write(REG.hostControl, 1, 0x10);
  session.transfer(17, 0, 1, MODE.read | MODE.dma);
  side.rest();
  return `${hex(session.status)} ${hex(side.read(REG.admaError, 4))}`;
}

export const DEVIATIONS: Deviation[] = [
  {
    name: "Complete, though nothing was answered",
    qemu: "00018001",
    ours: "00018000",
    show(session) {
      session.send(63, 0);
      return hex(session.status);
    },
  },
  {
    name: "A command clears the errors of the one before",
    qemu: "00008001",
    ours: "00018001",
    show(session) {
      const { side } = session;
      session.send(63, 0);
      // Without an acknowledgement between the two.
      side.write(REG.argument, 4, session.address);
      side.write(REG.command, 2, (13 << 8) | ANSWERS.r1);
      return hex(session.status);
    },
  },
  {
    name: "The lines behind a data command that nobody answered",
    qemu: "01ff0000",
    ours: "01ff0206",
    show(session) {
      session.send(7, 0, "none");
      session.transfer(17, 0, 1, MODE.read);
      return hex(session.present);
    },
  },
  {
    name: "CMD12 with busy that is not called an abort",
    qemu: "00000000",
    ours: "00000003",
    show(session) {
      session.transfer(18, 0, 2, COUNTED | MODE.read);
      session.send(12, 0, "r1b");
      return hex(session.status);
    },
  },
  {
    name: "The lines behind an abort",
    qemu: "01ff0506",
    ours: "01ff0000",
    show(session) {
      session.transfer(25, 0, 2, COUNTED);
      session.send(12, 0, "abort");
      return hex(session.present);
    },
  },
  {
    name: "An SDMA address starts a transfer",
    qemu: "00000002",
    ours: "00000000",
    show(session) {
      const { side } = session;
      side.write(REG.blockSize, 4, 0x7200 | (1 << 16));
      side.write(REG.dmaAddress, 4, side.dmaBase);
      return hex(session.status);
    },
  },
  {
    name: "SDMA of one block does not count its address",
    qemu: "0",
    ours: "200",
    show(session) {
      const { side } = session;
      side.write(REG.dmaAddress, 4, side.dmaBase);
      session.transfer(17, 0, 1, MODE.count | MODE.read | MODE.dma);
      return (side.read(REG.dmaAddress, 4) - side.dmaBase).toString(16);
    },
  },
  {
    name: "ADMA2: an end behind the last data",
    qemu: "02008003 00000007",
    ours: "00000003 00000000",
    show(session) {
      return admaError(session);
    },
  },
  {
    name: "Forced auto command errors stay",
    qemu: "0010",
    ours: "0000",
    show(session) {
      const { side } = session;
      side.write(REG.forceAutoError, 2, 0x10);
      side.write(REG.status, 4, 0xffffffff);
      return hex(side.read(REG.autoError, 2)).slice(4);
    },
  },
  {
    name: "A clock too fast, lines that disagree",
    qemu: "00000021",
    ours: "00208001",
    show(session) {
      // The card on four lines, the controller on one.
      session.send(55, session.address);
      session.send(6, 2);
      session.transfer(17, 0, 1, MODE.read);
      return hex(session.status);
    },
  },
  {
    name: "An address behind the end",
    qemu: "40000900",
    ours: "80000900",
    show: (session, { sectors }) => hex(session.send(17, sectors * session.sectorUnit)),
  },
  {
    name: "A read that runs over the end",
    qemu: "a second block",
    ours: "nothing",
    show(session, { sectors }) {
      session.transfer(18, (sectors - 1) * session.sectorUnit, 2, COUNTED | MODE.read);
      session.readPort(128);
      return (session.present & 0x800) !== 0 ? "a second block" : "nothing";
    },
  },
  {
    name: "CMD33 without CMD32",
    qemu: "00000900",
    ours: "10000900",
    show: (session) => hex(session.send(33, 0)),
  },
  {
    name: "A command between CMD32 and CMD33",
    qemu: "00000900",
    ours: "00002900",
    show(session) {
      session.send(32, 0);
      return hex(session.send(16, 512));
    },
  },
  {
    name: "A CMD13 for another card",
    qemu: "00000900",
    ours: "00400900",
    show(session) {
      session.send(63, 0);
      session.send(13, session.address ^ 0x10000);
      return hex(session.send(13, session.address));
    },
  },
  {
    name: "Deselected with an error to tell",
    qemu: "00000700",
    ours: "00400700",
    show(session) {
      session.send(63, 0);
      session.send(7, 0, "none");
      return hex(session.send(7, session.address));
    },
  },
  {
    name: "CMD26 writes the CID",
    qemu: "00000d00",
    ours: "00400900",
    show(session) {
      session.send(26, 0);
      return hex(session.send(13, session.address));
    },
  },
  {
    name: "CMD52 of SDIO",
    qemu: "00400900",
    ours: "00000900",
    show(session) {
      session.send(52, 0);
      return hex(session.send(13, session.address));
    },
  },
  {
    name: "CMD6 in stby",
    qemu: "00000021",
    ours: "00018000",
    show(session) {
      session.send(7, 0, "none");
      session.transfer(6, 0x00fffff1, 1, MODE.read, 64);
      return hex(session.status);
    },
  },
  {
    name: "Function 15 in the status of CMD6",
    qemu: "8003 f1",
    ours: "8003 01",
    show(session) {
      session.transfer(6, 0x00fffff1, 1, MODE.read, 64);
      const status = session.readPort(16);
      return `${status.slice(24, 28)} ${status.slice(32, 34)}`;
    },
  },
  {
    name: "Erased bytes are ones, the SCR says zeros",
    qemu: "0 ff",
    ours: "1 ff",
    show(session) {
      session.send(55, session.address);
      session.transfer(51, 0, 1, MODE.read, 8);
      const scr = Buffer.from(session.readPort(2), "hex");
      session.send(32, 0);
      session.send(33, 0);
      session.send(38, 0, "r1b");
      return `${(scr[1] ?? 0) >> 7} ${session.side.stored(0)[0]?.toString(16)}`;
    },
  },
  {
    name: "A block that nobody takes",
    qemu: "00000b00",
    ours: "00000900",
    show(session) {
      // CMD17 as a command without data: the card sends its block all the same.
      session.issue(17, 0, ANSWERS.r1 & ~DATA);
      return hex(session.send(13, session.address));
    },
  },
  {
    name: "Data that stop coming",
    qemu: "00000001",
    ours: "00108001",
    show(session, { sectors }) {
      session.transfer(18, (sectors - 2) * session.sectorUnit, 2, MODE.multi | MODE.read);
      session.readPort(256);
      for (let i = 0; i < 4; i++) session.side.rest();
      return hex(session.status & ~0x20);
    },
  },
  {
    name: "The supply",
    qemu: "00000900",
    ours: "00018000",
    show(session) {
      const { side } = session;
      side.write(REG.power, 1, 0);
      side.write(REG.power, 1, 0x0f);
      side.write(REG.reset, 1, RESET.command);
      const response = session.send(13, session.address);
      return hex((session.status & 0x10000) !== 0 ? session.status : response);
    },
  },
];
