// What is in the tarball, and that TypeScript, given it alone, knows its types: in programs compiled with and without
// lib "dom", with and without Node's types, as Node and as bundlers resolve modules. The other tools that users have
// (bundlers, browsers, other runtimes, older compilers) are tests/package/, run by `npm run test:package`.
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ROOT } from "./machine.js";
import { makeElsewhere, PACKAGE, pack, unpackInto } from "./tarball.js";
import { CONSUMER, consumers } from "./type-consumers.js";

const FOLDER = makeElsewhere();
const TARBALL = pack(FOLDER);
unpackInto(FOLDER, TARBALL.path, ["@types/node"]);
const INSTALLED = join(FOLDER, "node_modules", "mmcpstore");
/** Measured 2026-11: 3.2 MB. More than a fifth over it wants a reason. */
const UNPACKED_BYTES_MAX = 4_000_000;

function textOf(path: string): string {
  return readFileSync(join(INSTALLED, path), "utf8");
}

test("every path that package.json promises is in the tarball", () => {
  const promised = [
    ...Object.values(PACKAGE.bin),
    ...Object.values(PACKAGE.exports).flatMap((one) =>
      typeof one === "string" ? [one] : Object.values(one),
    ),
    ...((PACKAGE.man as string[] | undefined) ?? []),
  ].map((path) => normalize(path));
  assert.ok(promised.length >= 8);
  const missing = promised.filter((path) => !TARBALL.files.includes(path));
  assert.equal(missing, []);
});

test("nothing that nobody outside needs is in it", () => {
  const wanted = /^(dist\/(host|assembly|man)\/|dist\/core\/(release|external|embed)\.wasm$|docs\/)/;
  const single = ["package.json", "README.md", "LICENSE", "CHANGELOG.md", "host/cli/demo-panic.txt"];
  const others = TARBALL.files.filter((path) => !wanted.test(path) && !single.includes(path));
  assert.equal(others, []);
  assert.equal(
    TARBALL.files.filter((path) => path.startsWith("dist/host/explore")),
    [],
  );
  const sizeBytes = TARBALL.files.reduce((sum, path) => sum + statSync(join(INSTALLED, path)).size, 0);
  assert.ok(sizeBytes < UNPACKED_BYTES_MAX, `${sizeBytes} bytes`);
});

test("every module that a module names is in it, or a dependency", () => {
  const declared = new Set([...Object.keys(PACKAGE.dependencies), "v86"]);
  let count = 0;
  for (const path of TARBALL.files.filter((one) => /\.(js|d\.ts)$/.test(one))) {
    const text = textOf(path).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
    for (const [, specifier = ""] of text.matchAll(/\b(?:from|import)\s*\(?\s*"([^"\n]+)"/g)) {
      if (specifier.startsWith("node:")) continue;
      count++;
      if (!specifier.startsWith(".")) {
        const name = specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1);
        assert.ok(declared.has(name.join("/")), `${path}: ${specifier} is no dependency`);
        continue;
      }
      const target = normalize(join(dirname(path), specifier));
      assert.ok(TARBALL.files.includes(target), `${path}: ${specifier} is not in the tarball`);
    }
  }
  assert.ok(count > 500, `${count}`);
});

test("source maps have their sources", () => {
  const maps = TARBALL.files.filter((path) => path.endsWith(".map"));
  assert.ok(maps.length > 100);
  for (const path of maps) {
    const { sources, sourcesContent = [] } = JSON.parse(textOf(path)) as {
      sources: string[];
      sourcesContent?: (string | null)[];
    };
    assert.is(sourcesContent.filter((one) => typeof one === "string").length, sources.length, path);
  }
  const code = TARBALL.files.filter((path) => path.endsWith(".js"));
  for (const path of code) {
    const [, map = ""] = /\/\/# sourceMappingURL=(\S+)/.exec(textOf(path)) ?? [];
    assert.ok(TARBALL.files.includes(join(dirname(path), map)), `${path}: ${map}`);
  }
});

test("nothing in it names the machine that it was built on", () => {
  for (const path of TARBALL.files.filter((one) => !one.endsWith(".wasm"))) {
    const text = textOf(path);
    assert.not.match(text, /file:\/\/\/(work|home|root)\b|\/home\/\w+\/|\/root\//, path);
    assert.ok(!text.includes(ROOT), path);
  }
});

test("types: strict, nodenext and bundler, with and without lib dom and Node's types", () => {
  const tsc = `${ROOT}node_modules/typescript/bin/tsc`;
  let count = 0;
  for (const { name, config, source } of consumers()) {
    writeFileSync(join(FOLDER, "consumer.ts"), source);
    writeFileSync(join(FOLDER, "tsconfig.json"), JSON.stringify(config));
    const { stdout, status } = spawnSync(process.execPath, [tsc, "-p", FOLDER], { encoding: "utf8" });
    assert.is(`${stdout}${status}`, "0", name);
    count++;
  }
  console.log(`# ${count} ways to compile against the tarball's types`);
  // That it can fail: without our declarations, WebAssembly is not known there.
  const declarations = join(INSTALLED, "dist/host/webassembly.d.ts");
  const text = readFileSync(declarations, "utf8");
  const config = consumers().find(({ name }) => name === "nodenext es2023")?.config;
  assert.ok(config);
  writeFileSync(join(FOLDER, "tsconfig.json"), JSON.stringify(config));
  writeFileSync(join(FOLDER, "consumer.ts"), CONSUMER);
  writeFileSync(declarations, "export {};\n");
  try {
    const { stdout } = spawnSync(process.execPath, [tsc, "-p", FOLDER], { encoding: "utf8" });
    assert.match(stdout, /Cannot find namespace 'WebAssembly'/);
  } finally {
    writeFileSync(declarations, text);
  }
});

test.after(() => rmSync(FOLDER, { recursive: true }));
test.run();
