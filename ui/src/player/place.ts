// Places in a film: where to begin, how a place is spoken, which ranges a bar shows. Pure.

/** `[start, end]` in seconds. */
export type Range = readonly [start: number, end: number];

/** Below this a film is begun anew, in seconds. */
const BARELY_BEGUN = 5;

/**
 * Where to go on, in seconds: not at the very beginning, and not in the end (the last 5 %, at least 30 s where the film is long enough
 * for that), where somebody has seen it.
 */
export function beginAt(position: number, duration: number | undefined): number {
  if (!(position > BARELY_BEGUN)) return 0;
  if (!duration || !Number.isFinite(duration)) return position;
  const end = Math.max(duration * 0.05, Math.min(30, duration * 0.25));
  return position < duration - end ? position : 0;
}

/** A time kept inside the film; a little before its end, so that a jump never ends it. */
export function inside(time: number, duration: number): number {
  const last = Number.isFinite(duration) && duration > 0 ? Math.max(0, duration - 0.5) : Infinity;
  return Math.min(last, Math.max(0, time));
}

/** Hours, minutes and seconds, for a sentence. */
export function parts(seconds: number): { hours: number; minutes: number; seconds: number } {
  const s = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  return { hours: Math.floor(s / 3600), minutes: Math.floor(s / 60) % 60, seconds: s % 60 };
}

/** Ranges in order and without overlaps; those closer than `gap` seconds become one. */
export function union(ranges: readonly Range[], gap = 0.25): Range[] {
  const sorted = ranges.filter(([start, end]) => end > start).toSorted(([a], [b]) => a - b);
  const joined: [number, number][] = [];
  for (const [start, end] of sorted) {
    const last = joined.at(-1);
    if (last && start <= last[1] + gap) last[1] = Math.max(last[1], end);
    else joined.push([start, end]);
  }
  return joined;
}

/** Ranges of a media element. */
export function rangesOf(ranges: TimeRanges): Range[] {
  return Array.from({ length: ranges.length }, (_, at) => [ranges.start(at), ranges.end(at)] as const);
}

/** The end of the range that holds a time; the time itself where none does. */
export function hereUntil(ranges: readonly Range[], time: number): number {
  return ranges.find(([start, end]) => start <= time + 0.1 && time < end)?.[1] ?? time;
}
