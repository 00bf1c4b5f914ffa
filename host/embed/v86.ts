// The card of a Device in a v86 machine: a PCI SD host controller that an unmodified guest drives with its own
// driver (Linux: sdhci-pci), and pvpanic beside it. Nothing of v86 is imported: what is needed of its emulator object
// is asked for by shape, and refused with a word if it is not there. Nothing of Node.
//
//   const emulator = new V86({ ..., autostart: false });
//   emulator.add_listener("emulator-loaded", () => {
//     attachV86(emulator, device);
//     emulator.run();
//   });
import type { Device } from "../device.js";
import { MmcError } from "../errors.js";
import { func, judge, type Shape, U32, whole } from "../judge.js";
import { ownBytes } from "../own-bytes.js";
import { GUEST_TIMING, type GuestTiming, SdhciPeripheral } from "./peripheral.js";
import { PVPANIC_PCI, PVPANIC_PORT, Pvpanic, type PvpanicEvent } from "./pvpanic.js";

/** What of v86's CPU object is used; seen in 0.5.462. */
export interface V86Cpu {
  readonly mem8: Uint8Array;
  readonly devices: { readonly pci: V86Pci };
  readonly io: {
    mmap_register(
      address: number,
      lengthBytes: number,
      read8: (address: number) => number,
      write8: (address: number, value: number) => void,
      read32: (address: number) => number,
      write32: (address: number, value: number) => void,
    ): void;
    register_read(port: number, device: object, read8: () => number): void;
    register_write(port: number, device: object, write8: (value: number) => void): void;
  };
  /** Forgets code that was compiled from these bytes. */
  jit_dirty_cache(start: number, end: number): void;
  reboot_internal(): void;
  run_hardware_timers(acpi: unknown, nowMs: number): number;
  get_state(): unknown[];
  set_state(state: unknown[]): void;
}

interface V86Pci {
  readonly devices: readonly unknown[];
  register_device(device: PciFunction): void;
  raise_irq(pciId: number): void;
  lower_irq(pciId: number): void;
}

interface PciFunction {
  name: string;
  pci_id: number;
  pci_space: number[];
  pci_bars: { size: number }[];
}

export interface V86Options {
  /** PCI slot, 1 … 31; default 13, which v86 leaves free. pvpanic takes the one behind it. */
  slot?: number | undefined;
  /** Guest-physical address of the registers, a multiple of 128 KiB; two blocks of that size are taken. */
  address?: number | undefined;
  /** `instant` (default), or `clock`: the card takes its time, by the guest's clock. */
  timing?: GuestTiming | undefined;
  /** The machine is about to be reset: the guest's RAM and the card are as the guest left them. */
  onReset?: (() => void) | undefined;
  /** Adds pvpanic, as PCI function and at port 0x505, and is called with what the guest tells there: pvpanic.ts. */
  onPvpanic?: ((event: PvpanicEvent) => void) | undefined;
}

export const V86_OPTIONS: Shape<V86Options> = {
  slot: whole(1, 31),
  address: U32,
  timing: GUEST_TIMING,
  onReset: func,
  onPvpanic: func,
};

/** What {@link attachV86} put into the machine. */
export interface V86Attachment {
  peripheral: SdhciPeripheral;
  /** Bus, device and function as v86 numbers them. */
  pciId: number;
}

const SLOT = 0x0d;
const ADDRESS = 0xfea00000;
/** v86 maps memory in blocks of this size. */
const BLOCK_BYTES = 0x20000;
const REGISTER_BYTES = 256;
/** The smallest BAR of memory that PCI has. */
const PVPANIC_BAR_BYTES = 16;
/** v86 0.5.462 uses 0 … 89 of the list that is its state; what lies behind is saved with it. */
const STATE_INDEX = 128;
const STATE_NAME = "mmcpstore";
type SavedState = [name: string, clockNs: number, peripheral: Uint8Array];
const PAGE_BYTES = 4096;
/** Video memory and ROMs of a PC. */
const LEGACY_FIRST = 0xa0000;
const LEGACY_END = 0x100000;
const NOTHING = new Uint8Array(0);
const NS_PER_MS = 1e6;

/** SDHCI_CAPABILITIES: ADMA2 and SDMA. */
const SDHCI_CAPABILITIES = 0x40;
const CAN_DMA = (1 << 19) | (1 << 22);

/**
 * The CPU of a v86 emulator that is loaded.
 * @throws MmcError EINVAL it is not one, or not loaded yet, or of a version that is built differently
 */
export function cpuOf(emulator: object): V86Cpu {
  const cpu = (emulator as { v86?: { cpu?: V86Cpu } }).v86?.cpu;
  const missing = [
    ["cpu", cpu],
    ["cpu.devices.pci.register_device", cpu?.devices?.pci?.register_device],
    ["cpu.io.mmap_register", cpu?.io?.mmap_register],
    ["cpu.mem8", cpu?.mem8],
    ["cpu.jit_dirty_cache", cpu?.jit_dirty_cache],
    ["cpu.reboot_internal", cpu?.reboot_internal],
    ["cpu.run_hardware_timers", cpu?.run_hardware_timers],
    ["cpu.get_state", cpu?.get_state],
  ].find(([, value]) => value === undefined);
  if (cpu === undefined || missing !== undefined) {
    throw new MmcError("EINVAL", `v86: ${missing?.[0]} is missing; is this an emulator that is loaded?`);
  }
  return cpu;
}

/** Configuration space of a function with one BAR of memory. */
function configSpace(fields: {
  vendor: number;
  device: number;
  classCode: number;
  revision: number;
  address: number;
  command: number;
  interruptPin: number;
}): number[] {
  const space = new DataView(new ArrayBuffer(256));
  space.setUint16(0x00, fields.vendor, true);
  space.setUint16(0x02, fields.device, true);
  space.setUint16(0x04, fields.command, true);
  space.setUint32(0x08, ((fields.classCode << 8) | fields.revision) >>> 0, true);
  space.setUint32(0x10, fields.address, true);
  space.setUint16(0x2c, 0x1af4, true);
  space.setUint16(0x2e, 0x1100, true);
  space.setUint8(0x3d, fields.interruptPin);
  return [...new Uint8Array(space.buffer)];
}

/**
 * Guest RAM as a bus master sees it: video memory and ROMs lie before it in their place. v86's own mem8 makes a new
 * view at each access; this one lasts until the memory behind it grows, which detaches it.
 */
export class GuestRam {
  readonly sizeBytes: number;
  readonly #cpu: V86Cpu;
  #view: Uint8Array;

  constructor(cpu: V86Cpu) {
    this.#cpu = cpu;
    this.sizeBytes = cpu.mem8.length;
    this.#view = new Uint8Array(0);
  }

  /** All of it, up to the next growth. */
  get bytes(): Uint8Array {
    if (this.#view.length === 0) {
      const { buffer, byteOffset } = this.#cpu.mem8;
      this.#view = new Uint8Array(buffer, byteOffset, this.sizeBytes);
    }
    return this.#view;
  }

  has(address: number, lengthBytes: number): boolean {
    const end = address + lengthBytes;
    return address >= 0 && end <= this.sizeBytes && (end <= LEGACY_FIRST || address >= LEGACY_END);
  }

  /** A view; to be used at once. */
  read(address: number, lengthBytes: number): Uint8Array {
    return this.bytes.subarray(address, address + lengthBytes);
  }

  /** To be told of by {@link changed} before the CPU runs. */
  write(address: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, address);
  }

  /** Code that was compiled from these bytes is forgotten: v86 takes as long for a block as for a page. */
  changed(address: number, lengthBytes: number): void {
    this.#cpu.jit_dirty_cache(address, address + lengthBytes);
  }
}

/**
 * Puts an SD host controller with `device`'s card into a loaded machine that has not run yet: a PCI function which the
 * firmware and the guest find by themselves. A reset of the machine power-cycles the card; v86's save_state and
 * restore_state carry controller, card and medium; a state that
 * was saved without them resets the card.
 * @throws MmcError EINVAL no loaded emulator, or an option that cannot be; EBUSY it runs, or the slot is taken
 */
export function attachV86(emulator: object, device: Device, given: V86Options = {}): V86Attachment {
  const options = judge("", given, V86_OPTIONS);
  const cpu = cpuOf(emulator);
  const slot = options.slot ?? SLOT;
  const address = options.address ?? ADDRESS;
  const slots = options.onPvpanic ? [slot, slot + 1] : [slot];
  if (!Number.isInteger(slot) || slot < 1 || slot + slots.length > 32) {
    throw new MmcError("EINVAL", `slot: ${slot} is none from 1 to ${32 - slots.length}`);
  }
  const end = address + slots.length * BLOCK_BYTES;
  if (address % BLOCK_BYTES !== 0 || address < cpu.mem8.length || end > 2 ** 32) {
    throw new MmcError("EINVAL", `address: ${address} is no multiple of 128 KiB above the guest's RAM`);
  }
  if ((emulator as { is_running?(): boolean }).is_running?.()) {
    throw new MmcError("EBUSY", "v86: the machine runs already, and its firmware has looked for devices");
  }
  const taken = slots.find((one) => cpu.devices.pci.devices[one << 3] !== undefined);
  if (taken !== undefined) throw new MmcError("EBUSY", `slot: v86 has a device in ${taken}`);

  const pciId = slot << 3;
  const { pci } = cpu.devices;
  const ram = new GuestRam(cpu);
  let level = false;
  const peripheral = new SdhciPeripheral(
    device,
    {
      irq: (raised) => {
        level = raised;
        if (raised) pci.raise_irq(pciId);
        else pci.lower_irq(pciId);
      },
      dmaRead: (at, lengthBytes) => (ram.has(at, lengthBytes) ? ram.read(at, lengthBytes) : NOTHING),
      dmaWrite: (at, bytes) => {
        if (!ram.has(at, bytes.length)) throw new MmcError("EIO", `DMA to ${at}: no RAM is there`);
        ram.write(at, bytes);
      },
      dmaWritten: (at, lengthBytes) => ram.changed(at, lengthBytes),
    },
    options.timing === undefined ? {} : { timing: options.timing },
  );
  const canDma = (peripheral.read32(SDHCI_CAPABILITIES) & CAN_DMA) !== 0;
  pci.register_device({
    name: "sdhci",
    pci_id: pciId,
    pci_space: configSpace({
      vendor: 0x1b36,
      device: 0x0007,
      classCode: canDma ? 0x080501 : 0x080500,
      revision: 0,
      address,
      command: 0x0006,
      interruptPin: 1,
    }),
    pci_bars: [{ size: REGISTER_BYTES }],
  });
  mapRegisters(cpu, address, peripheral);
  if (options.onPvpanic) addPvpanic(cpu, slot + 1, address + BLOCK_BYTES, new Pvpanic(options.onPvpanic));

  // v86's clock is its process'; after a restore in another one the card's goes on from where it stood.
  let clockNs = 0;
  let skewNs = 0;
  let isRestored = false;
  const runTimers = cpu.run_hardware_timers;
  cpu.run_hardware_timers = (acpi, nowMs) => {
    const nowNs = Math.floor(nowMs * NS_PER_MS);
    if (isRestored) skewNs = clockNs - nowNs;
    isRestored = false;
    clockNs = nowNs + skewNs;
    peripheral.tick(BigInt(clockNs));
    // The line is shared: another function may have lowered it.
    if (level) pci.raise_irq(pciId);
    const sleepMs = runTimers.call(cpu, acpi, nowMs);
    const dueNs = peripheral.dueNs();
    if (dueNs === null) return sleepMs;
    return Math.min(sleepMs, Math.max(0, (Number(dueNs) - clockNs) / NS_PER_MS));
  };
  const reboot = cpu.reboot_internal;
  cpu.reboot_internal = () => {
    options.onReset?.();
    peripheral.reset();
    reboot.call(cpu);
  };
  const getState = cpu.get_state;
  cpu.get_state = () => {
    const state = getState.call(cpu);
    state[STATE_INDEX] = [STATE_NAME, clockNs, peripheral.saveState()];
    return state;
  };
  const setState = cpu.set_state;
  cpu.set_state = (state) => {
    setState.call(cpu, state);
    const [name, savedNs, saved] = (state[STATE_INDEX] as SavedState | undefined | null) ?? [];
    if (name !== STATE_NAME || savedNs === undefined || saved === undefined) {
      peripheral.reset();
      return;
    }
    peripheral.loadState(saved);
    clockNs = savedNs;
    isRestored = true;
  };
  return { peripheral, pciId };
}

/** The register file at `address`. v86 makes two 8-bit accesses of one of 16 bits, the lower byte first. */
function mapRegisters(cpu: V86Cpu, address: number, peripheral: SdhciPeripheral): void {
  const offsetOf = (at: number) => at & (BLOCK_BYTES - 1);
  const read8 = (at: number) => {
    const offset = offsetOf(at);
    return offset < REGISTER_BYTES ? peripheral.read8(offset) : 0xff;
  };
  const write8 = (at: number, value: number) => {
    const offset = offsetOf(at);
    if (offset < REGISTER_BYTES) peripheral.write8(offset, value);
  };
  cpu.io.mmap_register(
    address,
    BLOCK_BYTES,
    read8,
    write8,
    (at) => {
      const offset = offsetOf(at);
      if (offset <= REGISTER_BYTES - 4 && offset % 4 === 0) return peripheral.read32(offset) | 0;
      return read8(at) | (read8(at + 1) << 8) | (read8(at + 2) << 16) | (read8(at + 3) << 24);
    },
    (at, value) => {
      const offset = offsetOf(at);
      if (offset <= REGISTER_BYTES - 4 && offset % 4 === 0) {
        peripheral.write32(offset, value >>> 0);
        return;
      }
      for (let i = 0; i < 4; i++) write8(at + i, (value >>> (8 * i)) & 0xff);
    },
  );
}

/** pvpanic in both of its forms: guests without ACPI find the PCI function only. */
function addPvpanic(cpu: V86Cpu, slot: number, address: number, pvpanic: Pvpanic): void {
  const read8 = () => pvpanic.read8();
  const write8 = (value: number) => pvpanic.write8(value);
  cpu.devices.pci.register_device({
    name: "pvpanic",
    pci_id: slot << 3,
    pci_space: configSpace({
      vendor: PVPANIC_PCI.vendorId,
      device: PVPANIC_PCI.deviceId,
      classCode: PVPANIC_PCI.classCode,
      revision: PVPANIC_PCI.revision,
      address,
      command: 0x0002,
      interruptPin: 0,
    }),
    pci_bars: [{ size: PVPANIC_BAR_BYTES }],
  });
  const writeAt = (at: number, value: number) => {
    if ((at & (BLOCK_BYTES - 1)) === 0) write8(value & 0xff);
  };
  cpu.io.mmap_register(address, BLOCK_BYTES, read8, writeAt, read8, writeAt);
  cpu.io.register_read(PVPANIC_PORT, cpu, read8);
  cpu.io.register_write(PVPANIC_PORT, cpu, write8);
}

/**
 * Lets a machine that v86 started with `bzimage` and `initrd` reboot: v86 puts both into RAM once, the guest uses that
 * RAM for other things, and a reset alone would start what is left. To be called when nothing has run yet; what lies in
 * RAM then lies there again after every reset, and the rest of RAM stays as it is.
 * @throws MmcError EINVAL as {@link attachV86}
 */
export function reloadOnReboot(emulator: object): void {
  const cpu = cpuOf(emulator);
  const ram = new GuestRam(cpu);
  const { bytes } = ram;
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, ram.sizeBytes >> 2);
  const pageWords = PAGE_BYTES >> 2;
  const pages: [number, Uint8Array][] = [];
  for (let at = 0; at < words.length; at += pageWords) {
    const page = words.subarray(at, at + pageWords);
    if (page.some((word) => word !== 0)) pages.push([at * 4, ownBytes(bytes, at * 4, at * 4 + PAGE_BYTES)]);
  }
  const reboot = cpu.reboot_internal;
  cpu.reboot_internal = () => {
    reboot.call(cpu);
    for (const [address, page] of pages) {
      ram.write(address, page);
      ram.changed(address, page.length);
    }
  };
}
