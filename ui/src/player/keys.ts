// Which key does what in the player. Pure.

export type Act =
  | { act: "toggle" | "fullscreen" | "mute" | "subtitles" }
  | { act: "skip"; by: number }
  | { act: "part"; of: number }
  | { act: "volume" | "speed"; by: number };

type Key = Pick<KeyboardEvent, "key" | "altKey" | "ctrlKey" | "metaKey" | "shiftKey">;

/** What a key asks for; nothing with a modifier that is the browser's. */
export function actOf({ key, altKey, ctrlKey, metaKey }: Key): Act | undefined {
  if (altKey || ctrlKey || metaKey) return undefined;
  if (/^[0-9]$/.test(key)) return { act: "part", of: Number(key) / 10 };
  const acts: Record<string, Act> = {
    " ": { act: "toggle" }, k: { act: "toggle" },
    j: { act: "skip", by: -10 }, l: { act: "skip", by: 10 },
    ArrowLeft: { act: "skip", by: -5 }, ArrowRight: { act: "skip", by: 5 },
    ArrowUp: { act: "volume", by: 0.05 }, ArrowDown: { act: "volume", by: -0.05 },
    "<": { act: "speed", by: -1 }, ">": { act: "speed", by: 1 },
    f: { act: "fullscreen" }, m: { act: "mute" }, c: { act: "subtitles" },
  };
  const name = key.length === 1 ? key.toLowerCase() : key;
  return Object.hasOwn(acts, name) ? acts[name] : undefined;
}

/** Speeds, slowest first. */
export const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2] as const;

/** The next speed up or down. */
export function nextSpeed(now: number, by: number): number {
  const at = SPEEDS.findIndex((speed) => speed >= now - 0.01);
  return SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, (at < 0 ? SPEEDS.length - 1 : at) + by))] ?? 1;
}
