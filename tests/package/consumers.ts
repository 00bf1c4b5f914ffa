// The tarball in other people's hands: npm installs it in a folder elsewhere, and publint, attw, older compilers, esbuild,
// a page in headless Chromium, Deno and Bun take it from there. Run by `npm run test:package`, not by `npm test`: the
// tools come from the npm registry, Chromium from Debian's archive.
import { spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeElsewhere, PACKAGE, pack } from "../tarball.js";
import { consumers } from "../type-consumers.js";
import { compilerPath, ensureChromium, ensureTools, npmInstall, run, toolPath } from "./tools.js";

ensureTools();
const FOLDER = makeElsewhere();
const TARBALL = pack(FOLDER).path;
writeFileSync(join(FOLDER, "package.json"), '{ "private": true, "type": "module" }\n');
npmInstall(FOLDER, [TARBALL, `@types/node@${PACKAGE.devDependencies["@types/node"]}`]);
const CLI = join(FOLDER, "node_modules/mmcpstore/dist/host/cli/main.js");
const PAGE_TIMEOUT_MS = 60_000;

/** A panic in the middle of a write, the power cut, and the record. `module`: how the core is had. */
function scenario(imports: string, module: string): string {
  return `${imports}
const area = { offset: 1 << 20, kmsgSize: 65536, kmsgCount: 16, abi: "lp64" };
const device = Device.open(${module}, { card: "emmc", sizeBytes: 2 << 20, area });
device.leaveInFlight("write", 65536);
const result = device.panicWrite({ text: "<0>[    1.0] BOOM\\n", timeSec: 1705095875n });
device.powerCut("torn-low", "lost");
const [record] = decodeArea(device.medium().subarray(area.offset)).records;
const said = [result.status, result.cardState, record.name, new TextDecoder().decode(record.bytes).trim()].join("|");
`;
}
const SAID = "0|rcv|dmesg-pstore_blk-0|Panic: Total 1 times\n<0>[    1.0] BOOM";
const NODE_IMPORTS = `import { decodeArea } from "mmcpstore";\nimport { Device, loadCore } from "mmcpstore/node";`;

test("npm installs what package.json says, and its command runs", () => {
  const { status, stdout } = run(join(FOLDER, "node_modules/.bin/mmcpstore"), ["--version"], FOLDER);
  assert.is(stdout, `${PACKAGE.version}\n`);
  assert.is(status, 0);
  for (const name of Object.keys(PACKAGE.devDependencies).filter((one) => !one.startsWith("@types/node"))) {
    assert.not.ok(existsSync(join(FOLDER, "node_modules", name)) && name !== "assemblyscript", name);
  }
});

test("publint has nothing to say", () => {
  const { status, stdout } = run(toolPath("publint"), ["--strict", "node_modules/mmcpstore"], FOLDER);
  assert.is(status, 0, stdout);
  assert.match(stdout, "All good!");
});

test("attw finds no problem", () => {
  // The package has modules only (Node 20), and binaries have no types.
  const binaries = Object.keys(PACKAGE.exports).filter(
    (name) => name.endsWith(".wasm") || name.endsWith(".json"),
  );
  const args = [
    TARBALL,
    "--profile",
    "esm-only",
    "--exclude-entrypoints",
    ...binaries.map((name) => name.slice(2)),
  ];
  const { status, stdout, stderr } = run(toolPath("attw"), [...args, "--no-emoji"], FOLDER);
  assert.is(status, 0, stdout + stderr);
  assert.match(stdout, '"mmcpstore/node"');
});

test("older compilers know its types", () => {
  let count = 0;
  for (const compiler of ["typescript-5.6", "typescript-5.9"]) {
    // One way to resolve modules each: `npm test` has the newest compiler in both.
    const resolution = compiler === "typescript-5.6" ? "bundler" : "nodenext";
    for (const { name, config, source } of consumers().filter((one) => one.name.startsWith(resolution))) {
      writeFileSync(join(FOLDER, "consumer.ts"), source);
      writeFileSync(join(FOLDER, "tsconfig.json"), JSON.stringify(config));
      const { stdout, status } = run(process.execPath, [compilerPath(compiler), "-p", "."], FOLDER);
      assert.is(`${stdout}${status}`, "0", `${compiler} ${name}`);
      count++;
    }
  }
  console.log(`# ${count} ways to compile with older compilers`);
});

function bundle(source: string, platform: "browser" | "node"): string {
  writeFileSync(join(FOLDER, "entry.js"), source);
  const args = ["entry.js", "--bundle", "--format=esm", `--platform=${platform}`, "--target=es2022"];
  const out = run(toolPath("esbuild"), [...args, "--outfile=bundle.mjs", "--log-level=info"], FOLDER);
  assert.is(out.status, 0, out.stderr);
  assert.not.match(out.stderr, /warning/i);
  return readFileSync(join(FOLDER, "bundle.mjs"), "utf8");
}

test("esbuild bundles the root entry for a page, and takes only what is used", () => {
  const all = bundle('import * as all from "mmcpstore"; console.log(all);', "browser").length;
  const decoder = bundle(
    'import { decodeArea } from "mmcpstore"; console.log(decodeArea);',
    "browser",
  ).length;
  assert.ok(decoder < all / 3, `${decoder} of ${all} bytes`);
  console.log(`# esbuild: ${all} bytes in all, ${decoder} for decodeArea alone`);
});

/** Serves `files`, opens /page.html in Chromium, and resolves with what the page posts. */
async function browse(
  chromium: string,
  files: Record<string, [type: string, body: string | Buffer]>,
): Promise<string> {
  let posted: (text: string) => void = () => undefined;
  const answer = new Promise<string>((resolve) => {
    posted = resolve;
  });
  const server = createServer((request, response) => {
    const [type, body] = files[request.url ?? ""] ?? [];
    if (request.method === "POST") {
      let text = "";
      request.on("data", (data) => {
        text += data;
      });
      request.on("end", () => {
        response.end();
        posted(text);
      });
    } else if (type === undefined) response.writeHead(404).end();
    else response.writeHead(200, { "content-type": type }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const profile = join(FOLDER, "chromium-profile");
  const flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"];
  const quiet = ["disable-background-networking", "disable-component-update", `user-data-dir=${profile}`];
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/page.html`;
  const args = [...flags, ...quiet].map((flag) => `--${flag}`);
  const browser = spawn(chromium, [...args, url], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => browser.on("exit", () => resolve()));
  const timer = setTimeout(() => posted("the page did not answer in time"), PAGE_TIMEOUT_MS);
  try {
    return await answer;
  } finally {
    clearTimeout(timer);
    browser.kill();
    await ended;
    server.closeAllConnections();
    server.close();
  }
}

test("a page in headless Chromium has a panic, with the three binaries that are exported", async () => {
  const imports = 'import { decodeArea, Device, SdhciPeripheral } from "mmcpstore";';
  const source = `${scenario(imports, 'await WebAssembly.compileStreaming(fetch("/core.wasm"))')}
const kept = new Uint8Array(1 << 20);
const medium = {
  sizeBytes: kept.length,
  read: (offset, target) => void target.set(kept.subarray(offset, offset + target.length)),
  write: (offset, data) => kept.set(data, offset),
};
const external = await WebAssembly.compileStreaming(fetch("/core-external.wasm"));
const there = Device.openExternal(external, medium, { card: "sd", sizeBytes: kept.length });
there.write(512, new TextEncoder().encode("kept"));
there.flush();
const embed = await WebAssembly.compileStreaming(fetch("/core-embed.wasm"));
const bus = { irq() {}, dmaRead: () => new Uint8Array(0), dmaWrite() {} };
const sdhci = new SdhciPeripheral(Device.open(embed, { card: "emmc", sizeBytes: 1 << 20 }), bus);
const more = [new TextDecoder().decode(kept.subarray(512, 516)), sdhci.read16(0xfe) & 0xff];
await fetch("/said", { method: "POST", body: [said, ...more].join("|") });
`;
  const failed = `const tell = (error) => fetch("/said", { method: "POST", body: String(error) });
addEventListener("error", (event) => tell(event.message));
addEventListener("unhandledrejection", (event) => tell(event.reason));`;
  const page = `<!doctype html><script>${failed}</script><script type="module" src="/bundle.mjs"></script>`;
  const wasm = (name: string): [string, Buffer] => {
    const path = PACKAGE.exports[`./${name}`];
    assert.type(path, "string");
    return ["application/wasm", readFileSync(join(FOLDER, "node_modules/mmcpstore", String(path)))];
  };
  const said = await browse(ensureChromium(), {
    "/page.html": ["text/html", page],
    "/bundle.mjs": ["text/javascript", bundle(source, "browser")],
    "/core.wasm": wasm("core.wasm"),
    "/core-external.wasm": wasm("core-external.wasm"),
    "/core-embed.wasm": wasm("core-embed.wasm"),
  });
  assert.is(said, `${SAID}|kept|2`);
});

for (const [name, prefix] of [
  ["node", null],
  ["bun", ["run"]],
  ["deno", ["run", "--allow-read", "--allow-env"]],
] as const) {
  test(`${name} runs the library and the command`, () => {
    writeFileSync(
      join(FOLDER, "scenario.mjs"),
      `${scenario(NODE_IMPORTS, 'loadCore("release")')}console.log(said);\n`,
    );
    const program = prefix === null ? process.execPath : toolPath(name);
    const all = name === "deno" ? ["run", "-A"] : (prefix ?? []);
    const library = run(program, [...(prefix ?? []), "scenario.mjs"], FOLDER);
    assert.is(library.stdout, `${SAID}\n`, library.stderr);
    rmSync(join(FOLDER, "demo.img"), { force: true });
    const demo = run(program, [...all, CLI, "demo", "--out", "demo.img"], FOLDER);
    assert.is(demo.status, 0, demo.stderr);
    const ls = run(program, [...all, CLI, "ls", "demo.img", "--json"], FOLDER);
    assert.equal(
      JSON.parse(ls.stdout).map(
        (record: { name: string; state: string }) => `${record.name} ${record.state}`,
      ),
      ["dmesg-pstore_blk-0 ok"],
    );
    const bad = run(program, [...all, CLI, "ls", "no-such-file.img"], FOLDER);
    assert.is(bad.stderr, "mmcpstore: no-such-file.img: no such file\n");
    assert.is(bad.status, 1);
  });
}

test("deno knows its types", () => {
  const [first] = consumers();
  // Deno has its own declarations of WebAssembly, where every object is a module.
  const source = (first?.source ?? "").replace(/\/\/ @ts-expect-error a string[^\n]*\n[^\n]*\n/, "");
  writeFileSync(join(FOLDER, "consumer.ts"), source);
  rmSync(join(FOLDER, "tsconfig.json"), { force: true });
  const { status, stderr } = run(toolPath("deno"), ["check", "consumer.ts"], FOLDER);
  assert.is(status, 0, stderr);
});

test.after(() => rmSync(FOLDER, { recursive: true }));
test.run();
