// What a stream's card says, as values: the order of the facts never changes, so that the eye learns it. Words are the page's.
import type { Stream } from "@balcony/client";

/** A stream that just became ready, or that its phone has yet to open, is not put away at once. Milliseconds. */
const FRESH = 2 * 60_000;

export type Fact =
  | { kind: "watched"; watched: number; total: number; unit: "s" | "min" }
  | { kind: "length"; total: number; unit: "s" | "min" }
  | { kind: "playsIn"; seconds: number }
  | { kind: "fetched"; percent: number }
  | { kind: "allHere" }
  | { kind: "speed"; perSecond: number }
  | { kind: "peers"; count: number }
  | { kind: "doneIn"; seconds: number };

type Known = Pick<
  Stream,
  "status" | "phase" | "messageKey" | "progress" | "position" | "duration" | "eta" | "downloadProgress" | "downloadSpeed" | "downloadedBytes" | "totalBytes" | "peers"
>;

/** Always in this order: where it is, how much is fetched, how fast, from how many, how long that takes. */
export function facts(stream: Known): Fact[] {
  if (stream.status === "error" || stream.status === "stopped") return [];
  const list: Fact[] = [];
  const ready = stream.status === "ready";
  if (ready) {
    const time = lengthOf(stream);
    if (time) list.push(time);
    if (isAllHere(stream)) return [...list, { kind: "allHere" }];
    if (typeof stream.downloadProgress === "number") list.push({ kind: "fetched", percent: stream.downloadProgress });
  } else if (typeof stream.eta === "number") list.push({ kind: "playsIn", seconds: stream.eta });
  const speed = stream.downloadSpeed ?? 0;
  if (speed > 0) list.push({ kind: "speed", perSecond: speed });
  if (typeof stream.peers === "number" && (stream.peers > 0 || ready)) list.push({ kind: "peers", count: stream.peers });
  const left = (stream.totalBytes ?? 0) - (stream.downloadedBytes ?? 0);
  if (ready && speed > 0 && left > 0) list.push({ kind: "doneIn", seconds: left / speed });
  return list;
}

function lengthOf({ position, duration }: Known): Fact | undefined {
  if (!duration || duration <= 0) return undefined;
  const unit = duration < 90 ? "s" : "min";
  const shown = (seconds: number) => Math.round(unit === "s" ? seconds : seconds / 60);
  const total = shown(duration);
  return position >= 1 ? { kind: "watched", watched: Math.min(total, shown(position)), total, unit } : { kind: "length", total, unit };
}

/** Whether nothing of it is missing. */
export function isAllHere(stream: Pick<Known, "phase" | "downloadProgress">): boolean {
  return stream.phase === "complete" || (stream.downloadProgress ?? 0) >= 100;
}

/** How the bar stands, in per cent: what was watched of what is fetched, or how far it is until it plays. `done: undefined`: nobody knows. */
export function bar(stream: Known): { done: number | undefined; have: number } {
  if (stream.status === "ready") {
    const watched = stream.duration ? (stream.position / stream.duration) * 100 : 0;
    return { done: Math.min(100, watched), have: isAllHere(stream) ? 100 : (stream.downloadProgress ?? 0) };
  }
  const waits = stream.progress === 0 && stream.phase !== "queued" && stream.messageKey !== "paused";
  return { done: waits ? undefined : stream.progress, have: 0 };
}

/** Ready ones that nobody watches sink to the kept ones, those that end first on top; the rest keeps its order. */
export function shelve<S extends Pick<Stream, "status" | "watching" | "createdAt" | "expiresAt">>(streams: readonly S[], now: number): { active: S[]; kept: S[] } {
  const isKept = (stream: S) => stream.status === "ready" && !stream.watching?.length && now - Date.parse(stream.createdAt) > FRESH;
  const there = streams.filter((stream) => stream.status !== "stopped");
  const kept = there.filter(isKept).sort((a, b) => Date.parse(a.expiresAt) - Date.parse(b.expiresAt));
  return { active: there.filter((stream) => !isKept(stream)), kept };
}

/** Whether a moment is over by the end of tomorrow. */
export function isByTomorrow(time: string, now: number): boolean {
  const end = new Date(now);
  end.setHours(48, 0, 0, 0);
  return Date.parse(time) < end.getTime();
}

/** The quality that a person reads: what was asked for, or what the source has. */
export function qualityOf(stream: Pick<Stream, "quality" | "video">): string | undefined {
  if (stream.quality !== "auto" && stream.quality !== "source") return stream.quality;
  if (!stream.video) return undefined;
  const { width, height } = stream.video;
  // The box that the picture fills, as people name it: a wide film of 1920 × 800 is 1080p.
  const lines = Math.max(height, Math.round((width * 9) / 16));
  const box = [360, 480, 720, 1080, 1440, 2160, 4320].find((rung) => lines <= rung * 1.02);
  return box ? `${box}p` : undefined;
}
