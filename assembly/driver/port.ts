// The driver's only way to the controller: register accesses, delays, and the time. Every access is a crash mark.
// An owner that was robbed touches nothing any more: behind the mark, right before each access, his token is compared
// with the owner word. What he reads is 0 then, no wait of his goes on (shadow.ts), and his request ends as -ECANCELED.
// Built with EXTERNAL_PORT the five calls go to the host, so the same driver runs against a controller that is
// not ours: module "port": read(offset, bytes), write(offset, bytes, value), delay(ns), nowLow(), nowHigh().
import { nowNs } from "../clock";
import { MARK_DELAY, MARK_READ, MARK_WRITE, mark } from "../mark";
import { holds } from "../owner";
import {
  idleNs,
  mmioRead8,
  mmioRead16,
  mmioRead32,
  mmioWrite8,
  mmioWrite16,
  mmioWrite32,
} from "../sdhci/mmio";
import { noteAccess, notePause, ownTimeNs, startTime } from "./time";

declare function read(offset: u32, bytes: u32): u32;
declare function write(offset: u32, bytes: u32, value: u32): void;
declare function delay(lengthNs: u32): void;
declare function nowLow(): u32;
declare function nowHigh(): u32;

export function portRead8(token: u32, offset: u32): u32 {
  mark(MARK_READ | offset);
  if (!holds(token)) return 0;
  noteAccess(token);
  if (isDefined(EXTERNAL_PORT)) return read(offset, 1);
  return mmioRead8(offset);
}

export function portRead16(token: u32, offset: u32): u32 {
  mark(MARK_READ | offset);
  if (!holds(token)) return 0;
  noteAccess(token);
  if (isDefined(EXTERNAL_PORT)) return read(offset, 2);
  return mmioRead16(offset);
}

export function portRead32(token: u32, offset: u32): u32 {
  mark(MARK_READ | offset);
  if (!holds(token)) return 0;
  noteAccess(token);
  if (isDefined(EXTERNAL_PORT)) return read(offset, 4);
  return mmioRead32(offset);
}

export function portWrite8(token: u32, offset: u32, value: u32): void {
  mark(MARK_WRITE | offset);
  if (!holds(token)) return;
  noteAccess(token);
  if (isDefined(EXTERNAL_PORT)) write(offset, 1, value);
  else mmioWrite8(offset, value);
}

export function portWrite16(token: u32, offset: u32, value: u32): void {
  mark(MARK_WRITE | offset);
  if (!holds(token)) return;
  noteAccess(token);
  if (isDefined(EXTERNAL_PORT)) write(offset, 2, value);
  else mmioWrite16(offset, value);
}

export function portWrite32(token: u32, offset: u32, value: u32): void {
  mark(MARK_WRITE | offset);
  if (!holds(token)) return;
  noteAccess(token);
  if (isDefined(EXTERNAL_PORT)) write(offset, 4, value);
  else mmioWrite32(offset, value);
}

/** Waits by doing nothing, as udelay() does. */
export function portDelay(token: u32, lengthNs: u32): void {
  mark(MARK_DELAY);
  if (!holds(token)) return;
  notePause(token, lengthNs);
  if (isDefined(EXTERNAL_PORT)) delay(lengthNs);
  else idleNs(lengthNs);
}

/** The CPU has worked for `lengthNs`: where time is real it has passed by itself. */
export function portWorked(token: u32, lengthNs: u32): void {
  if (!holds(token)) return;
  notePause(token, lengthNs);
  if (!isDefined(EXTERNAL_PORT)) idleNs(lengthNs);
}

function clockNs(): u64 {
  if (isDefined(EXTERNAL_PORT)) return ((<u64>nowHigh()) << 32) | nowLow();
  return nowNs();
}

/** An operation begins: the clock is believed anew. */
export function portStartTime(token: u32): void {
  startTime(token, clockNs());
}

/** The time of the operation under way: the clock's, as far as it can be true (time.ts). */
export function portNowNs(token: u32): u64 {
  return ownTimeNs(token, clockNs());
}
