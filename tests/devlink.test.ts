// Regions and snapshots against what the real devlink command printed of a real kernel, character by character; ids,
// refusals and texts that the transcript does not have; events that are all or nothing; bounds.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { respond } from "../host/cli/devlink.js";
import { parseRequest, REGION_HELP } from "../host/cli/devlink-words.js";
import { UsageError } from "../host/cli/output.js";
import { Devlink, type DevlinkRegion } from "../host/devlink/devlink.js";
import { DevlinkError } from "../host/devlink/error.js";
import { formatChunks } from "../host/devlink/text.js";
import { MmcError } from "../host/errors.js";
import { ROOT } from "./machine.js";

const HANDLE = "platform/dldummy";

interface Printed {
  out: string;
  /** Lines of standard error. */
  err: string[];
  rc: number;
}

/** What the command prints, for words as a shell would give them. */
function print(
  devlink: Devlink,
  line: string,
  options: { extended?: boolean; jsonChunks?: boolean } = {},
): Printed {
  const words = line.split(" ").filter((word) => word !== "");
  const flags = words.filter((word) => word.startsWith("-")).join("");
  const { extended = false, jsonChunks = false } = options;
  let out = "";
  try {
    const request = parseRequest(
      words.filter((word) => !word.startsWith("-")),
      extended,
    );
    if (request.command === "help") return { out: REGION_HELP, err: [], rc: 0 };
    const style = { json: flags.includes("j"), pretty: flags.includes("p"), jsonChunks, extended };
    for (const piece of respond(devlink, request, style, () => undefined)) {
      out += piece;
      assert.ok(out.length < 1 << 20, `${line}: does not end`);
    }
    return { out, err: [], rc: 0 };
  } catch (error) {
    if (error instanceof DevlinkError) return { out, err: error.lines, rc: 1 };
    if (!(error instanceof UsageError)) throw error;
    // One line, exit code 2, where devlink has several and 1.
    return { out, err: [error.message.replace(/^devlink: /, "")], rc: 2 };
  }
}

/** The module of the transcript. */
function dummy(): Devlink {
  const devlink = new Devlink(HANDLE);
  const lowByte = (offset: number, target: Uint8Array) => {
    const step = target.length === 1 << 20 ? 7 : 1;
    for (let i = 0; i < target.length; i++) target[i] = ((offset + i) * step) & 0xff;
  };
  const refuse = () => {
    throw new MmcError("EIO", "driver refused");
  };
  devlink.addRegion({ name: "cr-space", size: 1 << 20, source: lowByte });
  devlink.addRegion({ name: "fw-health", size: 64, maxSnapshots: 2 });
  devlink.addRegion({ name: "big", size: 2 ** 33, maxSnapshots: 1, source: lowByte });
  devlink.addRegion({ name: "bad", size: 128, maxSnapshots: 1, source: refuse });
  return devlink;
}

/** The module's event: as a Linux driver does it, each region for itself. */
function crash(devlink: Devlink): void {
  const id = devlink.getSnapshotId();
  for (const [name, size] of [
    ["cr-space", 1 << 20],
    ["fw-health", 64],
  ] as const) {
    try {
      devlink.createSnapshot(name, new Uint8Array(size), id);
    } catch (error) {
      assert.is((error as MmcError).code, "ENOSPC");
    }
  }
  devlink.putSnapshotId(id);
}

function refused(work: () => unknown, code: string, extack: string | RegExp | null): void {
  try {
    work();
  } catch (error) {
    assert.instance(error, DevlinkError);
    assert.is((error as DevlinkError).code, code);
    const said = (error as DevlinkError).extack;
    if (extack instanceof RegExp) assert.match(said ?? "", extack);
    else assert.is(said, extack);
    return;
  }
  assert.unreachable(`no ${code}`);
}

test("the real command's transcript, character by character", () => {
  const blocks = readFileSync(`${ROOT}tests/data/devlink/transcript.txt`, "utf8").split(/^(?=\$ |crash )/m);
  const devlink = dummy();
  let compared = 0;
  for (const block of blocks) {
    if (block.startsWith("crash ")) {
      crash(devlink);
      continue;
    }
    const [, version, line = "", output = "", rc] =
      /^\$ devlink\[(.*?)\] (.*)\n([\s\S]*?)rc=(\d)\n+$/.exec(block) ?? [];
    assert.ok(rc, block);
    // Since 6.2 a read without a snapshot is a direct one; the transcript has the same request of 6.15 as well.
    if (version === "6.1.0" && output === "Region snapshot id expected.\n" && line.includes("read")) continue;
    const printed = print(devlink, line);
    assert.is(printed.rc === 0, rc === "0", line);
    // A usage error of several lines is one of ours.
    const err = printed.rc === 2 ? output.replace(/\n(?!$)/g, " ") : output;
    const rest = printed.err.reduce((text, one) => {
      const parts = text.split(`${one}\n`);
      assert.is(parts.length, 2, `${line}: ${one} is not there once in ${text}`);
      return parts.join("");
    }, err);
    assert.is(printed.out, rest, line);
    compared++;
  }
  assert.is(compared, 71);
  console.log(`\n# ${compared} commands as real ones printed them`);
});

test("words: shortened, missing, unknown, of another command", () => {
  const cases: [string, string][] = [
    ["region d", 'Expected "bus_name/dev_name/region" identification.'],
    [
      "region d a/b/c/d snapshot 0",
      'Wrong identification string format. Expected "bus_name/dev_name/region" identification.',
    ],
    ["region du platform/dldummy/bad", "Region snapshot id expected."],
    ["region read platform/dldummy/bad", "Region address value expected."],
    ["region read platform/dldummy/bad address 1", "Region length value expected."],
    ["region del platform/dldummy/bad address 5", 'Region snapshot id expected. Unknown option "address"'],
    ["region del platform/dldummy/bad snapshot", "Unsigned number argument expected"],
    ["region del platform/dldummy/bad snapshot -1", '"-1" is not a number or not within range'],
    ["region del platform/dldummy/bad snapshot 1x x", '"1x" is not a number or not within range'],
    ["region del platform/dldummy/bad snapshot 1 x y", 'Unknown option "x"'],
    [
      "region read platform/dldummy/bad a 18446744073709551616 l 1",
      '"18446744073709551616" is not a number or not within range',
    ],
    [
      `region read platform/dldummy/bad a ${"9".repeat(100_000)} l 1`,
      `"${"9".repeat(100_000)}" is not a number or not within range`,
    ],
    ["region showing", 'Command "showing" not found'],
    ["dev", 'Object "dev" not found'],
  ];
  for (const [line, text] of cases) {
    // A word that begins with - never comes here: it is an option.
    const words = line.split(" ");
    assert.throws(
      () => parseRequest(words, false),
      (error: unknown) => error instanceof UsageError && error.message === `devlink: ${text}`,
      line,
    );
  }
  const help = parseRequest(["r", "h", "anything"], false);
  assert.equal(help, { command: "help", region: null });
  assert.equal(parseRequest(["region", "r", "b/d/r", "l", "5", "s", "7", "a", "6"], false), {
    command: "read",
    region: { handle: "b/d", name: "r" },
    snapshot: 7,
    address: 6n,
    length: 5n,
  });
});

test("every refusal of the kernel: errno and sentence", () => {
  const devlink = dummy();
  devlink.newSnapshot("cr-space", 5);
  const exists = "Requested region does not exist";
  refused(() => devlink.newSnapshot("none"), "EINVAL", "The requested region does not exist");
  refused(
    () => devlink.newSnapshot("fw-health"),
    "EOPNOTSUPP",
    "The requested region does not support taking an immediate snapshot",
  );
  refused(() => devlink.newSnapshot("cr-space", 5), "EEXIST", "The requested snapshot id is already in use");
  refused(() => devlink.newSnapshot("bad"), "EIO", "driver refused");
  refused(() => devlink.newSnapshot("bad", 5), "EEXIST", null);
  refused(() => devlink.newSnapshot("cr-space", 2 ** 32), "EINVAL", /is no snapshot id/);
  refused(() => devlink.deleteSnapshot("none", 5), "EINVAL", null);
  refused(() => devlink.deleteSnapshot("cr-space", 6), "EINVAL", null);
  refused(() => devlink.region("none"), "EINVAL", null);
  refused(() => devlink.read("none"), "EINVAL", exists);
  refused(() => devlink.read("none", { snapshot: 5 }), "EINVAL", exists);
  refused(() => devlink.read("cr-space", { snapshot: 6 }), "EINVAL", "Requested snapshot does not exist");
  refused(() => devlink.read("fw-health"), "EOPNOTSUPP", "Requested region does not support direct read");
  for (const [address, length] of [
    [(1n << 20n) + 1n, 1n],
    [(1n << 20n) + 1n, 0n],
    [16n, (1n << 64n) - 8n],
    [16n, (1n << 64n) - 16n],
    [(1n << 64n) - 1n, 16n],
    [-1n, 1n],
    [0n, -1n],
    [0n, 1n << 64n],
  ] as const) {
    refused(() => devlink.read("cr-space", { snapshot: 5, address, length }), "EINVAL", null);
  }
  for (let i = 0; i < 7; i++) devlink.newSnapshot("cr-space");
  refused(
    () => devlink.newSnapshot("cr-space"),
    "ENOSPC",
    "The region has reached the maximum number of stored snapshots",
  );
  refused(
    () => devlink.newSnapshot("cr-space", 5),
    "ENOSPC",
    "The region has reached the maximum number of stored snapshots",
  );
  refused(() => devlink.createSnapshot("cr-space", new Uint8Array(1 << 20), 5), "ENOSPC", null);
  refused(() => devlink.createSnapshot("fw-health", new Uint8Array(64), 99), "EINVAL", null);
  refused(() => devlink.createSnapshot("fw-health", new Uint8Array(63), 5), "EINVAL", null);
  devlink.createSnapshot("fw-health", new Uint8Array(64), 5);
  refused(() => devlink.createSnapshot("fw-health", new Uint8Array(64), 5), "EEXIST", null);
  refused(() => devlink.putSnapshotId(99), "EINVAL", null);
  refused(() => devlink.putSnapshotId(5), "EINVAL", null);
  assert.equal(print(devlink, "region show other/dev/cr-space"), {
    out: "",
    err: ["kernel answers: No such device"],
    rc: 1,
  });
  assert.is(print(devlink, "-j region show platform/dldummy/none").out, '{"regions":{}}\n');
  assert.is(print(devlink, "-j region new platform/dldummy/none").out, '{"regions":{}}\n');
});

test("a range is clipped to the region, from its end on it is empty", () => {
  const devlink = new Devlink(HANDLE);
  devlink.addRegion({ name: "r", source: Uint8Array.from({ length: 600 }, (_, i) => i & 0xff) });
  devlink.newSnapshot("r");
  for (const snapshot of [0, undefined]) {
    const read = (address: bigint, length?: bigint) =>
      [...devlink.read("r", { snapshot, address, length })].map(({ address: at, data }) => [
        Number(at),
        data.length,
        data[0],
      ]);
    assert.equal(read(3n, 1000n), [
      [3, 256, 3],
      [259, 256, 3],
      [515, 85, 3],
    ]);
    assert.equal(read(0n), [
      [0, 256, 0],
      [256, 256, 0],
      [512, 88, 0],
    ]);
    assert.equal(read(599n, (1n << 64n) - 600n), [[599, 1, 87]]);
    assert.equal(read(600n, 5n), []);
    assert.equal(read(600n, 0n), []);
    assert.equal(read(5n, 0n), []);
  }
  assert.is(print(devlink, "region read platform/dldummy/r address 600 length 1").out, "\n");
  assert.is(print(devlink, "-j region read platform/dldummy/r address 600 length 1").out, '{"read":{}}\n');
});

test("ids: lowest free, of users never again, of events and explicit ones again, held over regions", () => {
  const devlink = new Devlink(HANDLE);
  for (const name of ["a", "b"]) devlink.addRegion({ name, size: 4, source: new Uint8Array(4) });
  const ids = (name: string) => devlink.region(name).snapshots;
  assert.is(devlink.newSnapshot("a"), 0);
  assert.is(devlink.newSnapshot("b"), 1);
  devlink.deleteSnapshot("a", 0);
  assert.is(devlink.newSnapshot("a"), 2);
  refused(() => devlink.newSnapshot("b", 0), "EEXIST", null);
  devlink.putSnapshotId(0);
  assert.is(devlink.newSnapshot("b", 0), 0);
  devlink.deleteSnapshot("b", 0);
  assert.is(
    devlink.snapshotEvent(
      new Map([
        ["a", undefined],
        ["b", undefined],
      ]),
    ),
    0,
  );
  devlink.deleteSnapshot("a", 0);
  refused(() => devlink.newSnapshot("a", 0), "EEXIST", null);
  assert.is(devlink.snapshotEvent(new Map([["a", undefined]])), 3);
  devlink.deleteSnapshot("b", 0);
  assert.is(devlink.newSnapshot("a", 0), 0);
  assert.is(devlink.newSnapshot("a", 2 ** 32 - 1), 2 ** 32 - 1);
  assert.equal(ids("a"), [2, 3, 0, 2 ** 32 - 1]);
  assert.equal(ids("b"), [1]);
  // An id that its driver still holds is not free, also without a snapshot.
  assert.is(devlink.getSnapshotId(), 4);
  devlink.createSnapshot("b", new Uint8Array(4), 4);
  devlink.deleteSnapshot("b", 4);
  assert.is(devlink.getSnapshotId(), 5);
  devlink.putSnapshotId(4);
  assert.is(devlink.getSnapshotId(), 4);
  devlink.removeRegion("a");
  assert.equal(
    devlink.regions().map(({ name }) => name),
    ["b"],
  );
  assert.is(devlink.newSnapshot("b", 0), 0);
  assert.is(devlink.newSnapshot("b", 2 ** 32 - 1), 2 ** 32 - 1);
});

test("a failed snapshot leaves neither an id nor bytes", () => {
  const devlink = new Devlink(HANDLE, { snapshotBytesMax: 64 });
  let fails = true;
  const source = () => {
    if (fails) throw new Error("not\nnow");
  };
  devlink.addRegion({ name: "r", size: 64, source });
  refused(() => devlink.newSnapshot("r"), "EIO", "not now");
  refused(() => devlink.newSnapshot("r", 9), "EIO", "not now");
  fails = false;
  assert.is(devlink.newSnapshot("r", 9), 9);
  devlink.deleteSnapshot("r", 9);
  assert.is(devlink.newSnapshot("r"), 0);
});

test("events are all or nothing: whichever region fails, nothing is kept and the id is free", () => {
  const names = ["a", "b", "c", "d"];
  for (const bad of names) {
    for (const how of ["throws", "short", "full", "bytes", "unknown", "no source"] as const) {
      const devlink = new Devlink(HANDLE);
      let isBroken = false;
      for (const name of names) {
        const source = (_: number, target: Uint8Array) => {
          target.fill(name.charCodeAt(0));
          if (!isBroken || name !== bad) return target.length;
          if (how === "throws") throw new MmcError("ETIMEDOUT", "no answer");
          return how === "short" ? target.length - 1 : target.length;
        };
        const isSourceless = how === "no source" && name === bad;
        const region: DevlinkRegion = {
          name,
          size: 300,
          maxSnapshots: 2,
          source: isSourceless ? undefined : source,
        };
        devlink.addRegion(region);
      }
      const good = new Map<string, Uint8Array | undefined>(names.map((name) => [name, undefined]));
      good.set(bad, new Uint8Array(300));
      assert.is(devlink.snapshotEvent(good), 0);
      isBroken = true;
      const event = new Map<string, Uint8Array | undefined>(names.map((name) => [name, undefined]));
      if (how === "full") {
        const id = devlink.getSnapshotId();
        devlink.createSnapshot(bad, new Uint8Array(300), id);
        devlink.deleteSnapshot(names.find((name) => name !== bad) as string, 0);
      }
      if (how === "bytes") event.set(bad, new Uint8Array(301));
      if (how === "unknown") event.set("e", undefined);
      const before = JSON.stringify(devlink.state());
      const code = {
        throws: "ETIMEDOUT",
        short: "EIO",
        full: "ENOSPC",
        bytes: "EINVAL",
        unknown: "EINVAL",
        "no source": "EOPNOTSUPP",
      };
      assert.throws(
        () => devlink.snapshotEvent(event),
        (error: unknown) => (error as MmcError).code === code[how],
      );
      assert.is(JSON.stringify(devlink.state()), before, `${bad} ${how}`);
    }
  }
  const devlink = new Devlink(HANDLE);
  assert.throws(
    () => devlink.snapshotEvent(new Map()),
    (error: unknown) => (error as MmcError).code === "EINVAL",
  );
});

test("a snapshot is a copy: of a source, of bytes that an owner brings, of what read gives", () => {
  const devlink = new Devlink(HANDLE);
  const memory = new Uint8Array(8).fill(1);
  devlink.addRegion({ name: "r", source: memory });
  devlink.newSnapshot("r", 1);
  const brought = new Uint8Array(8).fill(2);
  devlink.snapshotEvent(new Map([["r", brought]]));
  const id = devlink.getSnapshotId();
  devlink.createSnapshot("r", brought, id);
  memory.fill(9);
  brought.fill(9);
  const [first] = devlink.read("r", { snapshot: 1 });
  first?.data.fill(7);
  const text = (snapshot: number) => [...formatChunks("read", devlink.read("r", { snapshot }), {})].join("");
  assert.is(text(1), "0000000000000000 01 01 01 01 01 01 01 01 \n");
  for (const one of [0, id]) assert.is(text(one), "0000000000000000 02 02 02 02 02 02 02 02 \n");
});

test("sources that call their own instance are refused, whatever they call", () => {
  const devlink = new Devlink(HANDLE);
  let call: () => unknown = () => undefined;
  devlink.addRegion({ name: "other", size: 4, source: new Uint8Array(4) });
  devlink.newSnapshot("other", 3);
  devlink.addRegion({ name: "r", size: 4, source: () => void call() });
  for (const one of [
    () => devlink.newSnapshot("other"),
    () => devlink.deleteSnapshot("other", 3),
    () => devlink.removeRegion("other"),
    () => devlink.addRegion({ name: "x", size: 1 }),
    () => devlink.snapshotEvent(new Map([["other", undefined]])),
    () => devlink.getSnapshotId(),
    () => devlink.putSnapshotId(3),
    () => devlink.createSnapshot("other", new Uint8Array(4), 3),
    () => devlink.load(devlink.state()),
    () => [...devlink.read("r")],
  ]) {
    call = one;
    const before = JSON.stringify(devlink.state());
    refused(() => devlink.newSnapshot("r"), "EBUSY", /called its own instance/);
    assert.is(JSON.stringify(devlink.state()), before, String(one));
  }
});

test("bounds: bytes of all snapshots together, ids, regions, names", () => {
  const devlink = new Devlink(HANDLE, { snapshotBytesMax: 1000 });
  devlink.addRegion({ name: "a", size: 400, maxSnapshots: 2 ** 32 - 1, source: new Uint8Array(400) });
  devlink.addRegion({ name: "b", size: 300, source: new Uint8Array(300) });
  devlink.newSnapshot("a");
  devlink.newSnapshot("b");
  refused(() => devlink.newSnapshot("a"), "ENOMEM", /^Snapshots would take 1100 bytes, the limit is 1000$/);
  refused(() => devlink.snapshotEvent(new Map([["a", undefined]])), "ENOMEM", /limit/);
  refused(() => devlink.copyRegion("a"), "ENOMEM", /limit/);
  const id = devlink.getSnapshotId();
  refused(() => devlink.createSnapshot("a", new Uint8Array(400), id), "ENOMEM", /limit/);
  devlink.deleteSnapshot("b", 1);
  devlink.newSnapshot("a");
  // 8 GiB are refused before they are asked for.
  const big = new Devlink(HANDLE);
  big.addRegion({ name: "big", size: 2 ** 33, source: () => assert.unreachable("was read") });
  refused(() => big.newSnapshot("big"), "ENOMEM", /limit is 268435456/);
  while (true) {
    try {
      big.getSnapshotId();
    } catch (error) {
      assert.is((error as DevlinkError).extack, "Failed to allocate a new snapshot id");
      break;
    }
  }
  assert.is(big.state().ids.length, 65_536);
  big.addRegion({ name: "small", size: 1, source: new Uint8Array(1) });
  refused(() => big.newSnapshot("small", 4_000_000_000), "ENOMEM", "Failed to allocate a new snapshot id");
  for (const region of [
    { name: "", size: 1 },
    { name: "a b", size: 1 },
    { name: "a/b", size: 1 },
    { name: "é", size: 1 },
    { name: "\u001b[2J", size: 1 },
    { name: "n".repeat(64), size: 1 },
    { name: "n" },
    { name: "n", size: 0 },
    { name: "n", size: 1.5 },
    { name: "n", size: 2 ** 53 },
    { name: "n", size: 1, maxSnapshots: 0 },
    { name: "n", size: 1, maxSnapshots: 2 ** 32 },
    { name: "n", size: 3, source: new Uint8Array(4) },
  ] satisfies DevlinkRegion[]) {
    assert.throws(
      () => devlink.addRegion(region),
      (error: unknown) => (error as MmcError).code === "EINVAL",
    );
  }
  assert.throws(() => devlink.addRegion({ name: "a", size: 1 }), /registered already/);
  for (let i = 2; i < 1024; i++) devlink.addRegion({ name: `r${i}`, size: 1 });
  assert.throws(() => devlink.addRegion({ name: "more", size: 1 }), /one region too many/);
  for (const handle of ["", "a", "a/", "/b", "a/b/c", "a b/c"])
    assert.throws(() => new Devlink(handle), /is no BUS\/DEV/);
});

test("beyond devlink: 0x, live dump, 4 GiB, JSON that any parser reads", () => {
  const devlink = new Devlink(HANDLE);
  let reads = 0;
  devlink.addRegion({ name: "big", size: 2 ** 33, source: () => void reads++ });
  devlink.addRegion({ name: "r", source: Uint8Array.from({ length: 300 }, (_, i) => i & 0xff) });
  const extended = { extended: true };
  assert.is(
    print(devlink, "region read platform/dldummy/r address 0x10 length 0x2", extended).out,
    "0000000000000010 10 11 \n",
  );
  assert.is(print(devlink, "region read platform/dldummy/r address 0x length 1", extended).rc, 2);
  assert.is(print(devlink, "region dump platform/dldummy/r", extended).out.length, 17 * 19 + 3 * 300 + 19);
  const request = parseRequest(
    ["region", "read", `${HANDLE}/big`, "address", "0", "length", "4294967296"],
    true,
  );
  for (const piece of respond(devlink, request, extended, () => undefined)) {
    assert.ok(piece.length > 0 && piece.length < 70_000);
    if (reads > 1000) break;
  }
  assert.ok(reads > 1000);
  const { out } = print(devlink, "-j region dump platform/dldummy/r", { ...extended, jsonChunks: true });
  const { dump } = JSON.parse(out) as { dump: { address: number; data: number[] }[] };
  assert.equal(
    dump.map(({ address, data }) => [address, data.length]),
    [
      [0, 256],
      [256, 44],
    ],
  );
  assert.equal(
    dump.flatMap(({ data }) => data),
    Array.from({ length: 300 }, (_, i) => i & 0xff),
  );
  // As devlink prints it, the first piece is lost in most parsers.
  const repeated = JSON.parse(print(devlink, "-j region dump platform/dldummy/r", extended).out) as {
    dump: { address: number };
  };
  assert.is(repeated.dump.address, 256);
  assert.is(
    print(devlink, "-p region dump platform/dldummy/none", { ...extended, jsonChunks: true }).out,
    '{\n    "dump": [ ]\n}\n',
  );
  assert.equal(
    JSON.parse(print(devlink, "-jp region dump platform/dldummy/r", { ...extended, jsonChunks: true }).out),
    { dump },
  );
});

test("a live read that fails in the middle ends its text: what was read, and valid JSON", () => {
  const devlink = new Devlink(HANDLE);
  devlink.addRegion({
    name: "r",
    size: 1000,
    source: (offset, target) => {
      if (offset >= 256) throw new MmcError("EIO", "bus error.");
      target.fill(1);
    },
  });
  const text = print(devlink, "region read platform/dldummy/r address 0 length 1000");
  assert.equal(text.err, ["Error: bus error.", "kernel answers: Input/output error"]);
  assert.is(text.out.split("\n").length, 17);
  assert.ok(text.out.endsWith("01 \n"));
  const json = print(devlink, "-j region read platform/dldummy/r address 0 length 1000");
  assert.equal(JSON.parse(json.out), { read: { address: 0, data: new Array(256).fill(1) } });
  assert.is(json.rc, 1);
});

test.run();
