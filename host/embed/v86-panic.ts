// A guest's panic survives its machine: v86's guest is watched, and when it has panicked its log goes through the panic
// path onto the card, from whatever transfer the guest has left there. The log comes from ramoops in guest RAM, or from
// the serial console where the guest has no ramoops. Nothing of Node.
import type { PanicResult } from "../core/result.js";
import type { Device, Reason } from "../device.js";
import { MmcError } from "../errors.js";
import { func, judge, object, required, type Shape, whole } from "../judge.js";
import { RAMOOPS_OPTIONS, type RamoopsOptions } from "./ramoops.js";
import { RamoopsWatch } from "./ramoops-watch.js";
import { SerialConsole } from "./serial-console.js";
import { attachV86, cpuOf, GuestRam, V86_OPTIONS, type V86Attachment, type V86Options } from "./v86.js";

/** Where the guest's ramoops lies: mem_address and mem_size, in bytes, and how it is laid out. */
export interface GuestRamoops extends RamoopsOptions {
  address: number;
  sizeBytes: number;
}

/** A record that was brought to the card, or could not be: the status tells. */
export interface HarvestedPanic {
  source: "ramoops" | "console";
  reason: Reason;
  text: Uint8Array;
  result: PanicResult;
}

export interface PanicOptions extends Omit<V86Options, "onReset" | "onPvpanic"> {
  ramoops?: GuestRamoops | undefined;
  /**
   * The guest is dead and its records are on the card. It runs on, into its own reset or for ever, unless the
   * emulator is stopped here; its controller is in the state in which the panic path has left it.
   */
  onPanic: (panics: HarvestedPanic[]) => void;
  /** The machine is about to be reset, behind onPanic if that is why. */
  onReset?: (() => void) | undefined;
}

const { onPvpanic: _, ...OPTIONS } = V86_OPTIONS;
const PANIC_OPTIONS: Shape<PanicOptions> = {
  ...OPTIONS,
  ramoops: object<GuestRamoops>({
    ...RAMOOPS_OPTIONS,
    address: required(whole(0)),
    sizeBytes: required(whole(1)),
  }),
  onPanic: required(func),
};

interface Listening {
  add_listener(event: "serial0-output-byte", listener: (byte: number) => void): void;
}

/** pvpanic and the console tell that a panic begins; this long after that it is over, if nothing else says so. */
const PANIC_MS = 10_000;

function reasonOf(name: string): Reason {
  return name === "Oops" || name === "Emergency" || name === "Shutdown" ? name : "Panic";
}

/**
 * {@link attachV86}, with pvpanic, on a device that was opened with an area; and the guest's panics go there. A panic
 * is over when the machine is reset, when the console says `---[ end Kernel panic`, or 10 s after pvpanic or the
 * console told that it began. An Oops that the guest survives is left to the guest's own pstore.
 * @throws MmcError EINVAL as attachV86, for a device without an area, or a region outside the guest's RAM
 */
export function attachV86WithPanics(emulator: object, device: Device, given: PanicOptions): V86Attachment {
  const { ramoops, onPanic, onReset, ...v86Options } = judge("", given, PANIC_OPTIONS);
  const ram = new GuestRam(cpuOf(emulator));
  if (device.state().nextZone < 0) throw new MmcError("EINVAL", "v86: the device was opened without an area");
  if (ramoops && !ram.has(ramoops.address, ramoops.sizeBytes)) {
    throw new MmcError("EINVAL", `ramoops: ${ramoops.sizeBytes} bytes at ${ramoops.address} are no RAM`);
  }
  const region = () => (ramoops ? ram.read(ramoops.address, ramoops.sizeBytes) : new Uint8Array(0));
  const { address: _, sizeBytes: __, ...layout } = ramoops ?? {};
  const watch = new RamoopsWatch(region, layout);
  let hasPanicked = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const write = (source: HarvestedPanic["source"], reason: Reason, text: Uint8Array, time = nowOf()) => ({
    source,
    reason,
    text,
    result: device.panicWrite({ reason, text, ...time }),
  });
  const finish = () => {
    clearTimeout(timer);
    timer = undefined;
    const records = watch
      .harvest()
      .filter((record) => record.state !== "undecodable" && record.bytes.length > 0);
    const isPanic = hasPanicked || records.some((record) => record.reason === "Panic");
    hasPanicked = false;
    if (!isPanic) return;
    const panics = records.map((record) =>
      write("ramoops", reasonOf(record.reason), record.bytes, {
        timeSec: record.timeSec,
        timeNsec: record.timeNsec,
      }),
    );
    if (!panics.some(({ reason }) => reason === "Panic"))
      panics.push(write("console", "Panic", serial.kmsg()));
    onPanic(panics);
  };
  const begin = () => {
    hasPanicked = true;
    timer ??= setTimeout(finish, PANIC_MS);
  };
  const serial = new SerialConsole({
    onEvent: ({ kind }) => {
      if (kind === "panic") begin();
      if (kind === "panic-end") {
        hasPanicked = true;
        finish();
      }
    },
  });
  watch.remember();
  const attachment = attachV86(emulator, device, {
    ...v86Options,
    onPvpanic: (event) => {
      if (event === "panicked") begin();
    },
    onReset: () => {
      finish();
      serial.clear();
      onReset?.();
    },
  });
  (emulator as Listening).add_listener("serial0-output-byte", (byte) => serial.feed(byte));
  return attachment;
}

function nowOf(): { timeSec: bigint; timeNsec: number } {
  const nowMs = Date.now();
  return { timeSec: BigInt(Math.floor(nowMs / 1000)), timeNsec: (nowMs % 1000) * 1_000_000 };
}
