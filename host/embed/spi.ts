// The SD card of a Device as an SPI slave, byte by byte: for emulators of small machines, whose SPI unit calls
// transfer() for every byte it shifts. Medium, registers, times and faults are those of the device.
//
//   const device = Device.open(module, { card: "sdsc", content: image });
//   const slot = new SpiCard(device);
//   for (let i = 0; i < 10; i++) slot.transfer(0xff, false); // 80 clocks before the first command
//   for (const byte of [0x40, 0, 0, 0, 0, 0x95]) slot.transfer(byte); // CMD0, chip select low
//   slot.transfer(0xff); // N_CR
//   slot.transfer(0xff); // 0x01: idle
//
// The card leaves the SD bus when it is attached. The device's own read(), write() and panicWrite() find it by a power
// cycle alone, as powerCut() and powerOn() do; then it is an SPI slave no more. Nothing of Node.
import type { Device } from "../device.js";

export class SpiCard {
  readonly #device: Device;

  /** Takes the card's power away and gives it back: it waits for 80 clocks and CMD0. An eMMC stays silent. */
  constructor(device: Device) {
    this.#device = device;
    this.attach();
  }

  /** Power off and on again, as when the machine is switched off, or the card was cut or pulled. */
  attach(): void {
    this.#device.core.spiAttach();
  }

  /** Shifts a byte (the low 8 bits) out and one in: 8 clocks. `chipSelect` true: the line is low, the card is meant. */
  transfer(byte: number, chipSelect = true): number {
    return this.#device.core.spiTransfer(byte & 0xff, chipSelect ? 1 : 0);
  }
}
