// pvpanic, the device by which a guest tells that it panics: one byte, at port 0x505 (ISA) or in the first BAR of a PCI
// function. Reading says which events the host knows, writing tells one.
//
// Linux writes it from a panic notifier: BEFORE kmsg_dump(), so before ramoops or anything else of pstore has a
// record. An embedder that stops or harvests the guest on this event has nothing: note it, let the guest run, and
// harvest at its reset, at power off, or when its console says that the panic is over (RamoopsWatch, SerialConsole).
// Nothing of Node.

/** Bits of the byte. Linux of today writes the first two. */
export const PVPANIC_PANICKED = 1;
export const PVPANIC_CRASH_LOADED = 2;
export const PVPANIC_SHUTDOWN = 4;

export const PVPANIC_PORT = 0x505;

/** What the PCI function says of itself; its BAR 0 is memory. */
export const PVPANIC_PCI = {
  vendorId: 0x1b36,
  deviceId: 0x0011,
  revision: 1,
  /** Base class, subclass, programming interface. */
  classCode: 0x088000,
  barBytes: 2,
} as const;

/** `crash-loaded`: a second kernel (kdump) takes over, and pstore gets nothing. */
export type PvpanicEvent = "panicked" | "crash-loaded" | "shutdown";

const EVENTS: readonly [number, PvpanicEvent][] = [
  [PVPANIC_PANICKED, "panicked"],
  [PVPANIC_CRASH_LOADED, "crash-loaded"],
  [PVPANIC_SHUTDOWN, "shutdown"],
];

export class Pvpanic {
  readonly #supported: number;
  readonly #onEvent: (event: PvpanicEvent) => void;

  /**
   * @param onEvent called within write8(), so while the guest's instruction runs. It must not harvest, see above.
   * @param supported the events that the guest is offered, as bits. Linux 6.1 binds only with bits 0 and 1.
   */
  constructor(onEvent: (event: PvpanicEvent) => void, supported = PVPANIC_PANICKED | PVPANIC_CRASH_LOADED) {
    this.#onEvent = onEvent;
    this.#supported = supported & 7;
  }

  /** A byte read of the port or of the BAR, whatever the offset in it. */
  read8(): number {
    return this.#supported;
  }

  /** A byte written there: one event a write, of several bits the lowest. Bits that were not offered do nothing. */
  write8(value: number): void {
    const told = value & this.#supported;
    const event = EVENTS.find(([bit]) => (told & bit) !== 0);
    if (event !== undefined) this.#onEvent(event[1]);
  }
}
