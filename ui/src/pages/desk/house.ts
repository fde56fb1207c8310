// Devices by whose they are, and what each is doing.
import type { Device, Stream } from "@balcony/client";
import type { IconName } from "$parts/icons";
import { OWNER } from "./status";

export interface Household {
  /** Without a person: devices that are a person's only one and bear their name, and the computer. */
  person: { id: string; name: string } | undefined;
  devices: Device[];
}

/** Devices in groups: named persons first, by name; then those who are nothing but their one device; the computer itself last. */
export function households(devices: readonly Device[]): Household[] {
  const of = new Map<string, Device[]>();
  for (const device of devices) of.set(device.personId, [...(of.get(device.personId) ?? []), device]);
  const [named, alone]: [Household[], Device[]] = [[], []];
  for (const [id, theirs] of of) {
    const first = theirs[0];
    if (!first) continue;
    const plain = id === OWNER ? theirs.every((device) => device.id === OWNER) : theirs.length === 1 && first.name === first.person;
    if (plain) alone.push(...theirs);
    else named.push({ person: { id, name: first.person }, devices: theirs.sort(byTime) });
  }
  named.sort((a, b) => (a.person?.name ?? "").localeCompare(b.person?.name ?? ""));
  const list = alone.sort((a, b) => Number(a.id === OWNER) - Number(b.id === OWNER) || byTime(a, b));
  return list.length > 0 ? [...named, { person: undefined, devices: list }] : named;
}

function byTime(a: Device, b: Device): number {
  return a.createdAt.localeCompare(b.createdAt) || a.name.localeCompare(b.name);
}

/** What a device does: the film that it watches, or the one that it waits for. */
export function doing(device: Pick<Device, "id">, streams: readonly Stream[]): { stream: Stream; watches: boolean } | undefined {
  const watched = streams.find((stream) => stream.watching?.some(({ id }) => id === device.id));
  if (watched) return { stream: watched, watches: true };
  const waited = streams.find((stream) => stream.device?.id === device.id && (stream.status === "downloading" || stream.status === "converting"));
  return waited && { stream: waited, watches: false };
}

/** The sign for what a device says it is. */
export function signOf(platform: string): IconName {
  if (/ipad|tablet/i.test(platform)) return "tablet";
  if (/server|windows|mac|linux|computer|chromebook|browser|terminal|cli/i.test(platform)) return "computer";
  return "phone";
}

export type Seen = { kind: "now" | "never" } | { kind: "today" | "yesterday" | "before"; at: number };

/** When it was last seen, as people say it. */
export function seen(lastSeenAt: string | null | undefined, now: number): Seen {
  if (!lastSeenAt) return { kind: "never" };
  const at = Date.parse(lastSeenAt);
  if (now - at < 90_000) return { kind: "now" };
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  if (at >= midnight) return { kind: "today", at };
  const before = new Date(midnight);
  before.setDate(before.getDate() - 1);
  return { kind: at >= before.getTime() ? "yesterday" : "before", at };
}
