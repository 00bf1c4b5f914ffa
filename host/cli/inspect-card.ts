// `mmcpstore inspect --card KIND [IMAGE]`: the registers of the simulated card that IMAGE would be attached to,
// read over its bus and decoded field by field. IMAGE gives the size only; nothing else of it is read.
import type { ExternalMedium } from "../core/external-medium.js";
import type { CardKind } from "../core/profile.js";
import { type CardRegisters, Device } from "../device.js";
import { openImage } from "../image/image.js";
import { loadCore } from "../node.js";
import { decodeCid } from "../registers/cid.js";
import { decodeCsd } from "../registers/csd.js";
import { decodeExtCsd } from "../registers/ext-csd.js";
import type { DecodedRegister, RegisterField } from "../registers/field.js";
import { decodeScr } from "../registers/scr.js";
import { decodeSsr } from "../registers/ssr.js";
import { CARD_NAMES } from "./options.js";
import { color, formatJson, formatSize, write } from "./output.js";

/** Of a card without an image: within what cards of its kind can have. */
export const DEFAULT_GIB: Record<CardKind, number> = { emmc: 4, sd: 4, sdsc: 1, sdxc: 64 };
const EXT_CSD_REV = 192;
/** Longer ones are cut in the table; --json has all of them. */
const RAW_SHOWN = 18;
/** Of names and raw bits: a longer one pushes its line to the right, not all of them. */
const WIDTHS_MAX = [36, 14];

/** Of that size, full of zeros, and it takes whatever is written. */
function blankMedium(sizeBytes: number): ExternalMedium {
  return { sizeBytes, read: (_, target) => void target.fill(0), write: () => undefined };
}

function decodeAll(registers: CardRegisters): [DecodedRegister, Uint8Array][] {
  const { card, cid, csd, extCsd, scr, ssr } = registers;
  const decoded: [DecodedRegister, Uint8Array][] = [
    [decodeCid(cid, card, extCsd?.[EXT_CSD_REV]), cid],
    [decodeCsd(csd, card), csd],
  ];
  if (extCsd !== null) decoded.push([decodeExtCsd(extCsd), extCsd]);
  if (scr !== null) decoded.push([decodeScr(scr), scr]);
  if (ssr !== null) decoded.push([decodeSsr(ssr), ssr]);
  return decoded;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function row({ name, at, raw, value, meaning }: RegisterField): string[] {
  const shown = raw.length > RAW_SHOWN ? `${raw.slice(0, RAW_SHOWN - 1)}…` : raw;
  const said = typeof value === "string" && `0x${value}` !== raw ? `"${value}"` : meaning;
  return [`  ${name} ${at.startsWith("[") ? at : `[${at}]`}`, shown, said];
}

function table({ register, fields, crc, problems }: DecodedRegister, bytes: Uint8Array): string {
  const crcText: Record<string, string> = {
    absent: "CRC7 kept by the controller",
    right: "CRC7 right",
    wrong: "CRC7 wrong",
  };
  const raw = bytes.length <= 16 ? hexOf(bytes) : `${bytes.length} bytes`;
  const notes = [raw, ...(crc === null ? [] : [crcText[crc] ?? ""]), ...problems].join(", ");
  const shown = crc === "absent" ? fields.filter(({ name }) => name !== "CRC") : fields;
  return `${color.bold(register)}  ${color.dim(notes)}\n${formatRows(shown.map(row))}`;
}

/** Columns without a head. */
function formatRows(rows: string[][]): string {
  const widths = WIDTHS_MAX.map((most, column) =>
    Math.min(most, Math.max(...rows.map((one) => one[column]?.length ?? 0))),
  );
  return rows
    .map(([name = "", raw = "", said = ""]) => {
      const line = `${name.padEnd(widths[0] ?? 0)}  ${raw.padEnd(widths[1] ?? 0)}  ${said}`;
      return `${line.trimEnd()}\n`;
    })
    .join("");
}

export async function inspectCard(
  card: CardKind,
  location: string | undefined,
  options: { json?: boolean; timeout?: number },
): Promise<void> {
  let name: string | null = null;
  let sizeBytes = DEFAULT_GIB[card] * 2 ** 30;
  if (location !== undefined) {
    const image = await openImage(location, { timeoutMs: options.timeout });
    ({ name, sizeBytes } = image);
    await image.close();
  }
  const device = Device.openExternal(loadCore("external"), blankMedium(sizeBytes), { card });
  const registers = device.registers();
  const decoded = decodeAll(registers);
  if (options.json) {
    const json = {
      card,
      image: name,
      size: device.sizeBytes,
      registers: decoded.map(([one, bytes]) => ({ ...one, bytes: hexOf(bytes) })),
    };
    await write(formatJson(json));
    return;
  }
  await write(
    `${CARD_NAMES[card]} of ${formatSize(device.sizeBytes)}${name === null ? "" : ` for ${name}`}\n\n`,
  );
  await write(decoded.map(([one, bytes]) => table(one, bytes)).join("\n"));
}
