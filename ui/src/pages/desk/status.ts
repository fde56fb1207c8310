// The one line that the tray and the side of the window share.
import type { Overview, Stream } from "@balcony/client";

export type Standing =
  | { kind: "starting" | "ready" | "paused" | "watchedHere" }
  | { kind: "watching" | "preparing"; count: number }
  | { kind: "trouble"; code: string; message: string };

/** What the computer is doing, the most important first. `here`: whether one of those who watch is this computer itself. */
export function standing(overview: Overview | undefined, here: boolean): Standing {
  if (!overview) return { kind: "starting" };
  if (overview.trouble) return { kind: "trouble", code: overview.trouble.code, message: overview.trouble.message };
  if (overview.paused) return { kind: "paused" };
  const phones = Math.max(0, overview.watching - (here ? 1 : 0));
  if (phones > 0) return { kind: "watching", count: phones };
  if (overview.watching > 0) return { kind: "watchedHere" };
  return overview.preparing > 0 ? { kind: "preparing", count: overview.preparing } : { kind: "ready" };
}

/** Whether one of the streams is watched by the computer itself. */
export function isWatchedHere(streams: Iterable<Pick<Stream, "watching">>): boolean {
  for (const stream of streams) if (stream.watching?.some((device) => device.id === OWNER)) return true;
  return false;
}

/** The device that the computer itself is. */
export const OWNER = "owner";
