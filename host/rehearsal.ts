// The rehearsal of the panic path: compiled before a panic needs it. Nothing of Node.
import { MEDIUM_BASE, SECTOR_BYTES, TEXT_BASE } from "../assembly/layout.js";
import { type CoreImports, instantiate, makeMemory } from "./core/instantiate.js";
import { type MachineConfig, writeConfig } from "./core/profile.js";
import { RING_CONSOLE, RING_PMSG } from "./core/rings.js";
import { type DumpOptions, RegionTable, regionTableBytes } from "./dump/region-table.js";

const rehearsed = new WeakSet<WebAssembly.Module>();
const REHEARSALS = 3;

/**
 * An engine compiles a function when it is first called, and a panic is no time for that: the panic path runs
 * a few times on a scratch machine. Compiled code belongs to the module, so the real machine has it too.
 */
export function rehearse(module: WebAssembly.Module, config: MachineConfig, imports: CoreImports): void {
  if (rehearsed.has(module)) return;
  rehearsed.add(module);
  const sectors = 1024;
  const dump: DumpOptions = { class: 64, machine: 0, capacity: 2 };
  const memory = makeMemory(sectors * SECTOR_BYTES + regionTableBytes(dump));
  const ignore = () => 0;
  const silent: CoreImports = {
    medium: { read: ignore, write: ignore },
    dma: { read: ignore, write: ignore },
    ...(imports.mark ? { mark: { hit: () => undefined } } : {}),
  };
  const core = instantiate(module, memory, silent);
  const scratch = {
    ...config,
    sectors,
    bootSectors: 0,
    emmc: { ...config.emmc, gpSectors: [] },
    areaFirstLba: 16,
    zoneSectors: 64,
    zoneCount: 4,
    rings: { pmsg: 8, console: 8, ftrace: 0, cpus: 0 },
    dumpArea: { firstLba: 512, sectors: 512 },
  };
  const table = new RegionTable(core, memory, dump, MEDIUM_BASE + sectors * SECTOR_BYTES);
  table.register({ name: "text", address: 0n, source: new Uint8Array(memory.buffer, TEXT_BASE, 70_000) });
  table.register({ name: "absent", address: 2n ** 32n, size: 4096, source: () => 0 });
  for (const dma of [false, true]) {
    writeConfig(memory, { ...scratch, dma, controller: "full" });
    core.machineInit();
    core.openCard();
    core.recoverArea();
    for (let i = 0; i < REHEARSALS; i++) {
      core.writeRing(RING_PMSG, 3000);
      core.writeRing(RING_CONSOLE, 3000);
      core.panicWrite(1, 0, 0, 0, 8192, 0);
    }
  }
}
