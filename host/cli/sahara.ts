// `mmcpstore sahara collect|serve|unpack`: memory dumps of devices that speak Sahara, from both sides.
import type { Command } from "commander";
import { addCollect } from "./sahara-collect.js";
import { addServe } from "./sahara-serve.js";
import { addUnpack } from "./sahara-unpack.js";

export function addSahara(program: Command): void {
  const sahara = program
    .command("sahara")
    .summary("collect the memory dump of a crashed device, or play one")
    .description(
      "Memory dumps over Qualcomm's Sahara protocol: collect them, play the device, take containers apart.",
    );
  for (const add of [addCollect, addServe, addUnpack]) add(sahara);
  sahara.addHelpText(
    "after",
    `
Examples:
  mmcpstore sahara serve ram.bin@0x80000000 --port 4567
  mmcpstore sahara collect tcp://192.0.2.7:4567 crash/
  mmcpstore sahara unpack crash.bin regions/`,
  );
}
