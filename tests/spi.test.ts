// The SD card's SPI mode, driven by a small host of our own that does what the usual ones do (80 clocks with chip
// select high, CMD0, CMD8, ACMD41, CMD58, CMD59, tokens, busy), for SDSC, SDHC and a card without CMD8. Numbers are
// those of the SD Physical Layer specification, written down once more.
import * as fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Device } from "../host/device.js";
import type { DeviceOptions } from "../host/device-options.js";
import { SpiCard } from "../host/embed/spi.js";
import { ERRNO } from "../host/errors.js";
import { coreModule, note, pattern, same } from "./bus.js";

const CARDS: Record<string, DeviceOptions> = {
  SDSC: { card: "sdsc" },
  SDHC: { card: "sd" },
  SDXC: { card: "sdxc" },
  "SD 1.10": { card: "sdsc", sd: { version: "1.10" } },
  "SD 1.01": { card: "sdsc", sd: { version: "1.01" } },
};

const IDLE = 0x01;
const ERASE_RESET = 0x02;
const ILLEGAL = 0x04;
const CRC_ERROR = 0x08;
const ERASE_SEQUENCE = 0x10;
const ADDRESS_ERROR = 0x20;
const PARAMETER_ERROR = 0x40;
/** Data responses, the three bits that mean something. */
const ACCEPTED = 0b0101;
const BAD_CRC = 0b1011;
const WRITE_ERROR = 0b1101;

function crc7(bytes: number[]): number {
  let crc = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const out = ((crc >> 6) ^ (byte >> bit)) & 1;
      crc = (crc << 1) & 0x7f;
      if (out) crc ^= 0x09;
    }
  }
  return crc;
}

function crc16(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const out = ((crc >> 15) ^ (byte >> bit)) & 1;
      crc = (crc << 1) & 0xffff;
      if (out) crc ^= 0x1021;
    }
  }
  return crc;
}

/** The host: every byte goes through transfer(). */
class Host {
  readonly device: Device;
  readonly card: SpiCard;
  byteAddressed = false;
  answersCondition = false;

  constructor(options: DeviceOptions = {}) {
    this.device = Device.open(coreModule(), { sizeBytes: 8 * 2 ** 20, ...options });
    this.card = new SpiCard(this.device);
  }

  byte(out = 0xff): number {
    return this.card.transfer(out);
  }

  deselect(bytes = 1): void {
    for (let i = 0; i < bytes; i++)
      assert.is(this.card.transfer(0xff, false), 0xff, "a released line is high");
  }

  frame(index: number, argument = 0): number[] {
    const bytes = [
      0x40 | index,
      argument >>> 24,
      (argument >>> 16) & 255,
      (argument >>> 8) & 255,
      argument & 255,
    ];
    return [...bytes, (crc7(bytes) << 1) | 1];
  }

  /** Sends a frame and takes the first byte of its answer, which comes after 1 to 8 bytes of 0xff. */
  send(frame: number[]): number {
    for (const byte of frame) this.byte(byte);
    if (frame[0] === 0x4c) this.byte(); // the stuff byte
    for (let i = 0; i <= 8; i++) {
      const first = this.byte();
      if ((first & 0x80) === 0) {
        assert.ok(i >= 1, "not at once");
        return first;
      }
    }
    return 0xff;
  }

  command(index: number, argument = 0): number {
    return this.send(this.frame(index, argument));
  }

  app(index: number, argument = 0): number {
    assert.is(this.command(55) & ~IDLE, 0, "CMD55");
    return this.command(index, argument);
  }

  take(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.byte());
  }

  /** Until the card lets go of the line; how many bytes it was busy. */
  awaitReady(): number {
    for (let i = 0; i < 3_000_000; i++) if (this.byte() === 0xff) return i;
    throw new Error("busy for ever");
  }

  /** The first byte that is not 0xff: a start token or an error token. */
  token(limit = 100_000): number {
    for (let i = 0; i < limit; i++) {
      const byte = this.byte();
      if (byte !== 0xff) return byte;
    }
    return 0xff;
  }

  block(lengthBytes = 512): Uint8Array {
    assert.is(this.token(), 0xfe, "start token");
    const data = this.take(lengthBytes);
    const crc = this.take(2);
    assert.is(((crc[0] ?? 0) << 8) | (crc[1] ?? 0), crc16(data), "CRC16 of a block");
    return data;
  }

  /** A register that comes as a block. */
  register(index: number, lengthBytes: number, app = false, argument = 0): Uint8Array {
    assert.is(app ? this.app(index, argument) : this.command(index, argument), 0, `CMD${index}`);
    if (app && index === 13) assert.is(this.byte(), 0, "R2");
    return this.block(lengthBytes);
  }

  /** Sends a block and takes its data response. */
  give(data: Uint8Array, token: number, crc = crc16(data)): number {
    this.byte();
    this.byte(token);
    for (const byte of data) this.byte(byte);
    this.byte(crc >> 8);
    this.byte(crc & 0xff);
    return this.byte() & 0x1f;
  }

  /** R2 of CMD13: the second byte. */
  status(): number {
    assert.is(this.command(13), 0);
    return this.byte();
  }

  /** As the usual drivers do it. */
  open(): this {
    this.deselect(10);
    assert.is(this.command(0), IDLE, "CMD0");
    const condition = this.command(8, 0x1aa);
    this.answersCondition = (condition & ILLEGAL) === 0;
    if (this.answersCondition) assert.equal([...this.take(4)], [0, 0, 1, 0xaa], "R7");
    assert.is(this.command(59, 1), IDLE, "CMD59");
    let ready = false;
    for (let i = 0; i < 100_000 && !ready; i++) {
      ready = this.app(41, this.answersCondition ? 0x40000000 : 0) === 0;
    }
    assert.ok(ready, "ACMD41");
    assert.is(this.command(58), 0);
    const ocr = this.take(4);
    assert.is((ocr[0] ?? 0) & 0x80, 0x80, "powered up");
    this.byteAddressed = ((ocr[0] ?? 0) & 0x40) === 0;
    if (this.byteAddressed) assert.is(this.command(16, 512), 0, "CMD16");
    return this;
  }

  at(lba: number): number {
    return this.byteAddressed ? lba * 512 : lba;
  }

  read(lba: number, count: number): Uint8Array {
    const data = new Uint8Array(count * 512);
    assert.is(this.command(count > 1 ? 18 : 17, this.at(lba)), 0);
    for (let i = 0; i < count; i++) data.set(this.block(), i * 512);
    if (count > 1) assert.is(this.command(12), 0);
    return data;
  }

  write(lba: number, data: Uint8Array): void {
    const many = data.length > 512;
    assert.is(this.command(many ? 25 : 24, this.at(lba)), 0);
    for (let at = 0; at < data.length; at += 512) {
      assert.is(this.give(data.subarray(at, at + 512), many ? 0xfc : 0xfe), ACCEPTED);
      assert.ok(this.awaitReady() > 0, "busy");
    }
    if (!many) return;
    this.byte(0xfd);
    this.byte();
    this.awaitReady();
  }
}

for (const [name, options] of Object.entries(CARDS)) {
  test(`${name}: identification, registers, one block and many`, () => {
    const host = new Host(options).open();
    assert.is(host.byteAddressed, options.card === "sdsc");
    assert.is(host.answersCondition, !options.sd?.version?.startsWith("1."));
    const csd = host.register(9, 16);
    assert.is((csd[0] ?? 0) >> 6, options.card === "sdsc" ? 0 : 1, "CSD version");
    assert.is((csd[15] ?? 0) >> 1, crc7([...csd.subarray(0, 15)]), "CRC7 of the CSD");
    const cid = host.register(10, 16);
    assert.is(String.fromCharCode(...cid.subarray(3, 8)), "MCSIM");
    const scr = host.register(51, 8, true);
    assert.is((scr[1] ?? 0) & 5, 5);
    assert.is(host.register(13, 64, true)[0], 0, "1 line");
    if (options.sd?.version !== "1.01") assert.is((host.register(6, 64, false, 0x00fffff1)[16] ?? 0) & 15, 1);
    else assert.is(host.command(6, 0x00fffff1), ILLEGAL);

    const data = pattern(9, 5);
    host.write(3, data.subarray(0, 512));
    host.write(4, data.subarray(512));
    same(host.read(3, 1), data.subarray(0, 512), "one");
    same(host.read(3, 9), data, "many");
    same(host.device.medium().subarray(3 * 512, 12 * 512), data, "on the medium");
    assert.equal([...host.register(22, 4, true)], [0, 0, 0, 8], "ACMD22");
    assert.is(host.app(23, 8), 0, "ACMD23");
    assert.is(host.app(42, 0), 0, "ACMD42");
    assert.is(host.status(), 0);
  });
}

test("not before 74 clocks, not with chip select high, not with a wrong CRC", () => {
  const host = new Host({ card: "sd" });
  assert.is(host.command(0), 0xff, "too early");
  const late = new Host({ card: "sd" });
  late.deselect(10);
  assert.is(late.send([0x40, 0, 0, 0, 0, 0x93]), 0xff, "CRC7 of CMD0");
  assert.is(late.command(8, 0x1aa), 0xff, "not in SPI mode yet");
  for (const byte of late.frame(0)) late.card.transfer(byte, false);
  assert.is(late.byte(), 0xff);
  assert.is(late.command(0), IDLE);
  assert.is(late.send([0x48, 0, 0, 1, 0xaa, 0x01]), IDLE | CRC_ERROR, "CRC7 of CMD8 is always looked at");
  assert.is(late.send([0x7a, 0, 0, 0, 0, 0x01]), IDLE, "of the others it is not yet");
});

test("idle: what is not for it is illegal; an SDHC without HCS never gets ready", () => {
  const host = new Host({ card: "sd" });
  host.deselect(10);
  assert.is(host.command(0), IDLE);
  for (let index = 1; index < 64; index++) {
    if ([1, 8, 55, 58, 59].includes(index)) continue;
    assert.is(host.command(index), IDLE | ILLEGAL, `CMD${index}`);
  }
  assert.is(host.command(8, 0x2aa), IDLE);
  assert.equal([...host.take(4)], [0, 0, 0, 0xaa], "no such voltage");
  for (let i = 0; i < 2000; i++) assert.is(host.app(41, 0), IDLE);
  host.device.core.idleNs(1_000_000_000);
  assert.is(host.app(41, 0), IDLE);
  assert.is(host.command(58), IDLE);
  assert.is((host.take(4)[0] ?? 0) & 0xc0, 0, "OCR: not powered up, no CCS");
  assert.is(host.app(41, 0x40000000), 0);
});

test("CMD1 starts a card as ACMD41 does", () => {
  const host = new Host({ card: "sdsc" });
  host.deselect(10);
  assert.is(host.command(0), IDLE);
  assert.is(host.command(1), IDLE);
  host.device.core.idleNs(1_000_000_000);
  assert.is(host.command(1), 0);
});

test("ready: every command that SPI has not is illegal, and only for once", () => {
  const host = new Host({ card: "sd" }).open();
  const known = new Set([...[0, 1, 6, 9, 10, 13, 16, 17, 18, 24, 25, 27, 32, 33, 38, 55, 58, 59]]);
  let cases = 0;
  for (let index = 0; index < 64; index++) {
    if (known.has(index)) continue;
    assert.is(host.command(index), ILLEGAL, `CMD${index}`);
    assert.is(host.status(), 0, `CMD${index}: forgotten`);
    cases++;
  }
  for (const index of [6, 2, 44]) assert.is(host.app(index) & ILLEGAL, index === 6 ? ILLEGAL : ILLEGAL);
  note(`${cases} commands that SPI mode refuses`);
});

test("CRC on: a damaged command or block is refused, off: it is not looked at", () => {
  const host = new Host({ card: "sd" }).open();
  const wrong = (index: number, argument: number) => {
    const frame = host.frame(index, argument);
    return host.send([...frame.slice(0, 5), (frame[5] ?? 0) ^ 2]);
  };
  assert.is(wrong(17, 0), CRC_ERROR);
  assert.is(wrong(59, 0), CRC_ERROR, "and CRCs stay on");
  const data = pattern(1, 3);
  assert.is(host.command(24, 7), 0);
  assert.is(host.give(data, 0xfe, crc16(data) ^ 0x8000), BAD_CRC);
  assert.is(host.awaitReady(), 0, "nothing is programmed");
  assert.is(
    host.read(7, 1).every((byte) => byte === 0),
    true,
  );
  assert.is(host.command(59, 0), 0);
  assert.is(wrong(17, 0), 0);
  host.block();
  assert.is(host.command(24, 7), 0);
  assert.is(host.give(data, 0xfe, 0), ACCEPTED);
  host.awaitReady();
  same(host.read(7, 1), data, "written without a CRC");
  assert.is(wrong(0, 0), CRC_ERROR, "of CMD0 it always is");
  assert.is(host.command(0), IDLE);
});

test("busy behind Stop Tran: one byte of nothing, then low, at every speed and however fast the card is", () => {
  for (const spiKhz of [100, 400, 4000, 25_000]) {
    for (const blocks of [1, 3]) {
      for (const profile of ["ideal", "typical"] as const) {
        const host = new Host({ card: "sd", profile, sd: { spiKhz } }).open();
        assert.is(host.command(25, host.at(8)), 0);
        for (let i = 0; i < blocks; i++) {
          assert.is(host.give(pattern(1, i + 1), 0xfc), ACCEPTED);
          host.awaitReady();
        }
        const what = `${profile} ${spiKhz} kHz, ${blocks} blocks`;
        host.byte(0xfd);
        assert.is(host.byte(), 0xff, `${what}: the byte behind the token`);
        // A driver that waits for the beginning of busy first does not wait for ever.
        assert.is(host.byte(), 0x00, `${what}: busy`);
        host.awaitReady();
        assert.is(host.status(), 0, what);
        same(host.read(8 + blocks - 1, 1), pattern(1, blocks), what);
      }
    }
  }
});

test("the last programming of an open write is busy behind its end, by the token and by CMD12", () => {
  // 20 µs a byte: 5 ms are 250 of them.
  const options: DeviceOptions = { card: "sd", profile: "typical", timing: { finalNs: 5_000_000 } };
  for (const end of ["token", "CMD12"]) {
    const host = new Host({ ...options, sd: { spiKhz: 400 } }).open();
    assert.is(host.command(25, host.at(8)), 0);
    assert.is(host.give(pattern(1, 1), 0xfc), ACCEPTED);
    host.awaitReady();
    if (end === "token") host.byte(0xfd);
    else assert.is(host.command(12), 0);
    if (end === "token") host.byte();
    const behind = host.awaitReady();
    assert.ok(Math.abs(behind - 250) < 12, `${end}: ${behind} bytes`);
  }
});

test("erase in SPI mode: busy, WP_ERASE_SKIP in the second byte of CMD13, what is protected stays", () => {
  const host = new Host({ card: "sdsc" }).open();
  const group = 2 ** 21;
  host.write(4095, pattern(2, 4));
  assert.is(host.command(28, group), 0);
  assert.ok(host.awaitReady() > 0, "CMD28 is busy");
  assert.is(host.command(32, group - 512), 0);
  assert.is(host.command(33, group + 511), 0, "bits below a block do not count");
  assert.is(host.command(38, 0), 0);
  assert.ok(host.awaitReady() > 0, "busy");
  assert.is(host.status(), 0x02, "WP_ERASE_SKIP");
  assert.is(host.status(), 0, "told once");
  same(host.read(4095, 1), new Uint8Array(512), "erased");
  same(host.read(4096, 1), pattern(2, 4).subarray(512), "protected");
  assert.is(host.command(29, group), 0);
  host.awaitReady();
  for (const [index, at] of [
    [32, group - 512],
    [33, group],
    [38, 0],
  ] as const)
    assert.is(host.command(index, at), 0);
  host.awaitReady();
  assert.is(host.status(), 0);
  same(host.read(4096, 1), new Uint8Array(512), "erased now");
});

test("many blocks with a bad one: those before it land, CMD12 or the stop token ends it", () => {
  for (const end of ["CMD12", "token"]) {
    const host = new Host({ card: "sdsc" }).open();
    const data = pattern(3, 8);
    assert.is(host.command(25, host.at(20)), 0);
    assert.is(host.give(data.subarray(0, 512), 0xfc), ACCEPTED);
    host.awaitReady();
    assert.is(host.give(data.subarray(512, 1024), 0xfc, 0), BAD_CRC, end);
    if (end === "CMD12") assert.is(host.command(12), 0);
    else host.byte(0xfd);
    host.awaitReady();
    assert.equal([...host.register(22, 4, true)], [0, 0, 0, 1], end);
    same(host.read(20, 1), data.subarray(0, 512), end);
    assert.is(host.read(21, 1)[5], 0, end);
  }
});

test("errors: address, parameter, erase sequence and reset, CMD12 without a transfer", () => {
  const sdsc = new Host({ card: "sdsc" }).open();
  for (const index of [17, 18, 24, 25]) {
    assert.is(sdsc.command(index, 1), ADDRESS_ERROR, `CMD${index}`);
    assert.is(sdsc.command(index, 8 * 2 ** 20), PARAMETER_ERROR, `CMD${index}`);
  }
  assert.is(sdsc.command(16, 100), PARAMETER_ERROR);
  assert.is(sdsc.command(12), ILLEGAL);
  assert.is(sdsc.command(33, 512), ERASE_SEQUENCE);
  assert.is(sdsc.command(38), ERASE_SEQUENCE);
  assert.is(sdsc.command(32, 512), 0);
  assert.is(sdsc.command(16, 512), ERASE_RESET);
  assert.is(sdsc.command(38), ERASE_SEQUENCE);
  assert.is(sdsc.command(32, 1024), 0);
  assert.is(sdsc.command(33, 512), 0);
  assert.is(sdsc.command(38), 0);
  assert.is(sdsc.status(), 0x40, "erase parameter");
  assert.is(sdsc.status(), 0, "told once");
});

test("erase: busy, then zero, or ones if the card is of that kind", () => {
  for (const erasedByte of [0, 255] as const) {
    const host = new Host({ card: "sd", sd: { erasedByte } }).open();
    host.write(30, pattern(4));
    assert.is(host.command(32, 31), 0);
    assert.is(host.command(33, 32), 0);
    assert.is(host.command(38), 0);
    assert.ok(host.awaitReady() > 0, "busy");
    const data = host.read(30, 4);
    assert.is(
      data.subarray(512, 1536).every((byte) => byte === erasedByte),
      true,
    );
    same(data.subarray(0, 512), pattern(4).subarray(0, 512), "before");
    same(data.subarray(1536), pattern(4).subarray(1536), "behind");
    assert.is((host.register(51, 8, true)[1] ?? 0) >> 7, erasedByte & 1, "SCR DATA_STAT_AFTER_ERASE");
  }
});

test("the end of the card in mid-transfer, and what CMD13 says of it", () => {
  const host = new Host({ card: "sd" }).open();
  const last = 8 * 2048 - 1;
  assert.is(host.command(18, last), 0);
  host.block();
  assert.is(host.token(), 0x08, "out of range");
  assert.is(host.command(12), 0);
  assert.is(host.status(), 0x80);
  assert.is(host.command(25, last), 0);
  assert.is(host.give(pattern(1), 0xfc), ACCEPTED);
  host.awaitReady();
  assert.is(host.give(pattern(1), 0xfc), WRITE_ERROR);
  assert.is(host.command(12), 0);
  host.awaitReady();
  assert.is(host.status(), 0x80);
});

test("faults show as SPI has them", () => {
  const host = new Host({ card: "sd" }).open();
  const { device } = host;
  device.injectFault({ kind: "read-ecc", firstLba: 5, lastLba: 5, times: 1 });
  assert.is(host.command(17, 5), 0);
  assert.is(host.token(), 0x04, "ECC");
  assert.is(host.status(), 0x10);
  device.injectFault({ kind: "read-crc", firstLba: 5, lastLba: 5, times: 1 });
  assert.is(host.command(17, 5), 0);
  assert.is(host.token(), 0xfe);
  const data = host.take(512);
  assert.is.not(crc16(data), (host.byte() << 8) | host.byte());
  device.injectFault({ kind: "read-silent", firstLba: 5, lastLba: 5, times: 1 });
  assert.is(host.command(17, 5), 0);
  assert.is(host.token(10_000), 0xff, "nothing comes");
  device.injectFault({ kind: "write-crc", firstLba: 6, lastLba: 6, times: 1 });
  assert.is(host.command(24, 6), 0);
  assert.is(host.give(pattern(1), 0xfe), BAD_CRC);
  device.injectFault({ kind: "program", firstLba: 6, lastLba: 6, times: 1 });
  assert.is(host.command(24, 6), 0);
  assert.is(host.give(pattern(1), 0xfe), WRITE_ERROR);
  host.awaitReady();
  assert.is(host.status(), 0x04, "error");
  device.injectFault({ kind: "command-crc", times: 1 });
  assert.is(host.command(13), CRC_ERROR);
  device.injectFault({ kind: "no-response", times: 1 });
  assert.is(host.command(16, 512), 0xff);
  device.injectFault({ kind: "pulled", times: 1 });
  assert.is(host.command(16, 512), 0xff);
  assert.is(host.command(0), 0xff, "gone");
});

test("chip select goes high in the middle: of a command, of an answer, of a block", () => {
  const host = new Host({ card: "sd" }).open();
  host.write(1, pattern(3));
  for (let at = 1; at < 6; at++) {
    for (const byte of host.frame(13).slice(0, at)) host.byte(byte);
    host.deselect();
    assert.is(host.status(), 0, `${at} bytes of a command`);
  }
  for (const byte of host.frame(13)) host.byte(byte);
  host.deselect();
  assert.is(host.byte(), 0xff, "the answer is lost");
  assert.is(host.command(17, 1), 0);
  assert.is(host.token(), 0xfe);
  host.take(100);
  host.deselect();
  assert.is(host.token(1000), 0xff, "the rest of the block is lost");
  same(host.read(2, 1), pattern(3).subarray(512, 1024), "then all is well");
  assert.is(host.command(18, 1), 0);
  assert.is(host.token(), 0xfe);
  host.take(7);
  host.deselect();
  same(host.block(), pattern(3).subarray(512, 1024), "many: the next block comes");
  assert.is(host.command(12), 0);
  assert.is(host.command(24, 1), 0);
  host.byte(0xfe);
  for (let i = 0; i < 200; i++) host.byte(0x11);
  host.deselect();
  assert.is(host.status(), 0);
  same(host.read(1, 1), pattern(3).subarray(0, 512), "half a block is not written");
});

test("busy goes on without chip select and shows again", () => {
  const host = new Host({ card: "sd", timing: { programNs: 5_000_000 } }).open();
  assert.is(host.command(24, 9), 0);
  assert.is(host.give(pattern(1), 0xfe), ACCEPTED);
  assert.is(host.byte(), 0);
  host.deselect(5);
  assert.is(host.byte(), 0);
  assert.is(host.command(17, 0), ILLEGAL, "not while it programs");
  host.awaitReady();
  same(host.read(9, 1), pattern(1), "it landed");
});

test("a token while the card is busy is not heard", () => {
  const host = new Host({ card: "sd", timing: { programNs: 32_000 } }).open();
  assert.is(host.command(25, 40), 0);
  assert.is(host.give(pattern(2).subarray(0, 512), 0xfc), ACCEPTED);
  assert.is(host.byte(0xfc), 0, "busy");
  assert.ok(host.awaitReady() > 50, "and a block would last longer");
  assert.is(host.give(pattern(2).subarray(512), 0xfc), ACCEPTED);
  host.awaitReady();
  host.byte(0xfd);
  host.byte();
  same(host.read(40, 2), pattern(2), "both blocks");
});

test("time: 8 clocks a byte of the configured clock; N_CR as configured", () => {
  for (const [spiKhz, spiResponseBytes] of [
    [400, 1],
    [25_000, 4],
    [10_000, 8],
  ] as const) {
    const host = new Host({ card: "sd", sd: { spiKhz, spiResponseBytes } }).open();
    const before = host.device.state().timeNs;
    for (const byte of host.frame(13)) host.byte(byte);
    for (let i = 0; i < spiResponseBytes; i++) assert.is(host.byte(), 0xff);
    assert.is(host.byte(), 0);
    const bytes = 7 + spiResponseBytes;
    assert.is(host.device.state().timeNs - before, BigInt((bytes * 8_000_000) / spiKhz));
  }
});

test("the power goes in the middle of programming: old, new or torn, and SPI starts again from CMD0", () => {
  for (const outcome of ["old", "new", "torn-low", "torn-high"] as const) {
    const host = new Host({ card: "sdsc", timing: { programNs: 5_000_000 } }).open();
    const [before, after] = [pattern(1, 1), pattern(1, 2)];
    host.write(12, before);
    assert.is(host.command(24, host.at(12)), 0);
    assert.is(host.give(after, 0xfe), ACCEPTED);
    host.device.powerCut(outcome);
    assert.is(host.command(13), 0xff, "no power");
    host.card.attach();
    assert.is(host.command(13), 0xff, "not in SPI mode");
    host.open();
    const found = host.read(12, 1);
    const half = (low: Uint8Array, high: Uint8Array) => [...low.subarray(0, 256), ...high.subarray(256)];
    const expected = {
      old: [...before],
      new: [...after],
      "torn-low": half(after, before),
      "torn-high": half(before, after),
    };
    assert.equal([...found], expected[outcome], outcome);
  }
});

test("groups of an SDSC card: protected, told, refused, erased around, free again", () => {
  const host = new Host({ card: "sdsc" }).open();
  const group = 2 ** 21;
  assert.is(host.command(28, group), 0);
  host.awaitReady();
  assert.equal([...host.register(30, 4)], [0, 0, 0, 2]);
  assert.is(host.command(24, group + 512), 0);
  assert.is(host.give(pattern(1), 0xfe), WRITE_ERROR);
  assert.is(host.status(), 0x20, "WP violation");
  host.device.medium().fill(0x77);
  assert.is(host.command(32, group - 512), 0);
  assert.is(host.command(33, 2 * group), 0);
  assert.is(host.command(38), 0);
  host.awaitReady();
  assert.is(host.status(), 0x02, "WP erase skip");
  const at = (offset: number) => host.device.medium()[offset];
  assert.equal([at(group - 513), at(group - 1), at(group), at(2 * group - 1)], [0x77, 0, 0x77, 0x77]);
  assert.equal([at(2 * group), at(2 * group + 511), at(2 * group + 512)], [0, 0, 0x77]);
  assert.is(host.command(29, group), 0);
  host.awaitReady();
  host.write(4097, pattern(1));
});

test("CMD27: the CSD's own CRC, what may change, what may not", () => {
  const host = new Host({ card: "sd" }).open();
  const program = (change: (csd: Uint8Array) => void, sealed = true) => {
    const csd = host.register(9, 16);
    change(csd);
    if (sealed) csd[15] = (crc7([...csd.subarray(0, 15)]) << 1) | 1;
    assert.is(host.command(27), 0);
    assert.is(host.give(csd, 0xfe), ACCEPTED);
    host.awaitReady();
    return host.status();
  };
  const flip = (byte: number, mask: number) => (csd: Uint8Array) => {
    csd[byte] = (csd[byte] ?? 0) ^ mask;
  };
  assert.is(program(flip(0, 0x40)), 0x80, "CSD_OVERWRITE");
  assert.is(program(flip(14, 0x10), false), 0x04, "a wrong CRC7");
  assert.is(program(flip(14, 0x10)), 0, "TMP_WRITE_PROTECT");
  assert.is(host.command(24, 0), 0);
  assert.is(host.give(pattern(1), 0xfe), WRITE_ERROR);
  assert.is(host.status(), 0x20);
  assert.is(program(flip(14, 0x10)), 0, "and off again");
  host.write(0, pattern(1));
  assert.is(program(flip(14, 0x40)), 0, "COPY");
  assert.is(program(flip(14, 0x40)), 0x80, "COPY cannot be taken back");
});

test("an eMMC has no SPI mode; a native bus is not heard in SPI mode until the supply goes", () => {
  const emmc = new Host({ card: "emmc" });
  emmc.deselect(10);
  assert.is(emmc.command(0), 0xff);
  const host = new Host({ card: "sd" }).open();
  host.write(2, pattern(1));
  const { core } = host.device;
  assert.is(core.blockCommand(13, 0, 0x1a), -ERRNO.ETIMEDOUT);
  assert.is(core.blockCommand(0, 0, 0), 0);
  assert.is(core.blockCommand(8, 0x1aa, 0x1a), -ERRNO.ETIMEDOUT, "CMD0 does not bring it back");
  same(host.device.read(1024, 512), pattern(1), "read() finds it behind a power cycle");
  host.device.powerCut();
  host.device.powerOn();
  same(host.device.read(1024, 512), pattern(1), "the same medium");
});

test("random bytes: never a trap, never a byte that is none", () => {
  const RUNS = 60;
  const LENGTH = 5000;
  let bytes = 0;
  const kinds = Object.keys(CARDS);
  fc.assert(
    fc.property(fc.integer(), fc.constantFrom(...kinds), (seed, kind) => {
      const host = new Host({ ...CARDS[kind], sizeBytes: 512 * 1024 }).open();
      let state = seed >>> 0;
      const random = (below: number) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return (state >>> 8) % below;
      };
      for (let i = 0; i < LENGTH; ) {
        const what = random(8);
        const out: number[] =
          what < 4
            ? host.frame(random(64), random(3) === 0 ? random(2 ** 24) : random(4) * 512)
            : what === 4
              ? [[0xfe, 0xfc, 0xfd][random(3)] ?? 0]
              : what === 5
                ? new Array(random(600)).fill(0xff)
                : Array.from({ length: random(20) }, () => random(256));
        const selected = random(50) !== 0;
        for (const byte of out) {
          const answer = host.card.transfer(byte, selected);
          if (!(answer >= 0 && answer <= 255)) throw new Error(`answer ${answer}`);
        }
        i += out.length;
        bytes += out.length;
      }
      // Whatever happened, a power cycle and the usual order bring the card back.
      host.card.attach();
      host.open();
      host.register(9, 16);
    }),
    { numRuns: RUNS, seed: 11 },
  );
  assert.ok(bytes >= 200_000, `${bytes} bytes`);
  note(`SPI: ${bytes} random bytes`);
});

test("kinds and versions that do not exist are refused by name", () => {
  const refuses = (run: () => unknown, message: RegExp) =>
    assert.throws(
      run,
      (error: Error & { code?: string }) => error.code === "EINVAL" && message.test(error.message),
    );
  const open = (options: object) => Device.open(coreModule("release"), { sizeBytes: 1 << 20, ...options });
  refuses(() => open({ card: "mmc" }), /card: mmc is not one of emmc, sd, sdsc, sdxc/);
  refuses(
    () => open({ card: "sd", sd: { version: "9" } }),
    /sd\.version: 9 is not one of 1\.01, 1\.10, 2\.00, 3\.01/,
  );
  refuses(() => open({ card: "sd", sd: { version: "toString" } }), /toString is not one of/);
});

test.run();
