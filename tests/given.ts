// The host's functions as callers meet them who have no plain Uint8Array: each argument that is one arrives as a view
// at an odd offset, in turn a Node Buffer in a pool and a view of shared memory. Behind the call the bytes must be what they were,
// and then they are overwritten, as a caller does that uses its buffer again: nothing that was returned or kept may notice.
// Put around the modules that a suite imports by given-hooks.ts.
import * as assert from "uvu/assert";

/** Methods that take bytes. FrameReader.push is none of them: its bytes are looked at until the iteration ends. */
export const BYTE_METHODS: Readonly<Record<string, readonly string[]>> = {
  Device: ["write", "leaveWriteInFlight", "loadState", "writePmsg", "writeConsole"],
  Devlink: ["createSnapshot", "snapshotEvent", "load"],
  OverlayMedium: ["write", "loadState"],
  RawImage: ["writeSync"],
  SaharaCollector: ["receive"],
  SaharaDevice: ["receive"],
  SdhciPeripheral: ["loadState"],
  SerialConsole: ["feed"],
};

/** Functions whose result goes on reading the bytes, as their documentation says. */
export const LIVE_FUNCTIONS: ReadonlySet<string> = new Set(["bytesSource"]);

const GUARD = 0xee;
const SPENT = 0xa5;
const MARGIN_BYTES = 64;

export interface Lent {
  /** What the callee gets. */
  view: Uint8Array;
  /** Throws if a byte of the view, or around it, is another. */
  check(what: string): void;
  /** The caller uses its buffer for something else. */
  spend(): void;
}

/** `bytes` once more, in a Buffer in the middle of a pool or in shared memory. */
export function lend(bytes: Uint8Array, kind: "buffer" | "shared", skipBytes = 13): Lent {
  const size = bytes.length + MARGIN_BYTES;
  const whole =
    kind === "buffer" ? new Uint8Array(new ArrayBuffer(size)) : new Uint8Array(new SharedArrayBuffer(size));
  whole.fill(GUARD);
  const view =
    kind === "buffer"
      ? Buffer.from(whole.buffer as ArrayBuffer, skipBytes, bytes.length)
      : whole.subarray(skipBytes, skipBytes + bytes.length);
  view.set(bytes);
  const before = Buffer.from(whole);
  return {
    view,
    check(what) {
      assert.is(Buffer.compare(whole, before), 0, `${what}: the caller's bytes have changed`);
    },
    spend() {
      whole.fill(SPENT);
    },
  };
}

let turn = 0;

function lendAny(value: unknown, lent: Lent[]): unknown {
  if (value instanceof Uint8Array) {
    const one = lend(value, turn++ % 2 === 0 ? "buffer" : "shared", 1 + 2 * (turn % 15));
    lent.push(one);
    return one.view;
  }
  if (value instanceof Map) return new Map([...value].map(([key, one]) => [key, lendAny(one, lent)]));
  return value;
}

/** `call` with its bytes lent. */
function lending<T>(name: string, args: unknown[], call: (args: unknown[]) => T): T {
  const lent: Lent[] = [];
  const result = call(args.map((one) => lendAny(one, lent)));
  const end = () => {
    for (const one of lent) {
      one.check(name);
      if (!LIVE_FUNCTIONS.has(name)) one.spend();
    }
  };
  if (result instanceof Promise) return result.finally(end) as T;
  end();
  return result;
}

type AnyFunction = (...args: unknown[]) => unknown;

function isClass(value: unknown): value is AnyFunction & { prototype: Record<string, unknown> } {
  return typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));
}

const lendingClasses = new WeakSet<object>();

/** The exports of a module of the host: functions around the real ones; of classes the methods that take bytes. */
export function given(module: Record<string, unknown>): Record<string, unknown> {
  const wrapped: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(module)) {
    wrapped[name] = value;
    if (isClass(value)) {
      if (lendingClasses.has(value)) continue;
      lendingClasses.add(value);
      for (const method of BYTE_METHODS[name] ?? []) {
        const real = value.prototype[method] as AnyFunction | undefined;
        if (real === undefined) continue;
        value.prototype[method] = function (this: unknown, ...args: unknown[]) {
          return lending(`${name}.${method}`, args, (lentArgs) => real.apply(this, lentArgs));
        };
      }
    } else if (typeof value === "function") {
      wrapped[name] = (...args: unknown[]) =>
        lending(name, args, (lentArgs) => (value as AnyFunction)(...lentArgs));
    }
  }
  return wrapped;
}
