// Numbers for people, by the rules of their language: units with a space, "about" where it is guessed, seconds below 90, then minutes.

let language = "en";
const kept = new Map<string, Intl.NumberFormat>();

/** From now on, numbers are written as this language does. */
export function formatIn(tag: string): void {
  language = tag;
  kept.clear();
}

function written(value: number, digits: number): string {
  let format = kept.get(`${digits}`);
  if (!format) kept.set(`${digits}`, (format = new Intl.NumberFormat(language, { maximumFractionDigits: digits })));
  return format.format(value);
}

const STEPS = ["B", "kB", "MB", "GB", "TB"];

/** Bytes in decimal units, for example `1.1 GB`, with a no-break space. */
export function bytes(value: number): string {
  let step = 0;
  let left = Math.max(0, value);
  while (left >= 999.5 && step < STEPS.length - 1) {
    left /= 1000;
    step += 1;
  }
  const digits = step >= 2 && left < 9.95 ? 1 : 0;
  return `${written(left, digits)}\u00a0${STEPS[step]}`;
}

/** Bytes per second. */
export function speed(value: number): string {
  return `${bytes(value)}/s`;
}

/** Per cent without a decimal. */
export function percent(value: number): string {
  return `${written(Math.floor(value), 0)}\u00a0%`;
}

/** A whole number. */
export function whole(value: number): string {
  return written(Math.round(value), 0);
}

/** How long something takes: seconds below 90, minutes below 90, then hours. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s}\u00a0s`;
  const minutes = Math.round(s / 60);
  if (minutes < 90) return `${minutes}\u00a0min`;
  const [hours, rest] = [Math.floor(minutes / 60), minutes % 60];
  return rest ? `${hours}\u00a0h ${rest}\u00a0min` : `${hours}\u00a0h`;
}

/** A place in a film: `6:13`, `1:02:03`. */
export function place(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n: number) => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

/** A moment as people say it: today's by the clock, others by the day. */
export function moment(time: string | number | Date, now = Date.now()): string {
  const date = new Date(time);
  const sameDay = new Date(now).toDateString() === date.toDateString();
  return new Intl.DateTimeFormat(language, sameDay ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" }).format(date);
}

/** A day. */
export function day(time: string | number | Date): string {
  return new Intl.DateTimeFormat(language, { day: "numeric", month: "long", year: "numeric" }).format(new Date(time));
}

/** A time of day. */
export function clockTime(time: string | number | Date): string {
  return new Intl.DateTimeFormat(language, { timeStyle: "short" }).format(new Date(time));
}

/** A span of time in whole units, in words: `24 hours`, `3 days`. */
export function span(seconds: number): string {
  const unit = (value: number, name: string) => new Intl.NumberFormat(language, { style: "unit", unit: name, unitDisplay: "long" }).format(value);
  if (seconds >= 172_800 && seconds % 86_400 === 0) return unit(seconds / 86_400, "day");
  if (seconds >= 3600 && seconds % 3600 === 0) return unit(seconds / 3600, "hour");
  return seconds >= 60 && seconds % 60 === 0 ? unit(seconds / 60, "minute") : unit(seconds, "second");
}

/** How long ago, for example `3 min ago`. */
export function ago(time: string | number | Date, now = Date.now()): string {
  const seconds = Math.round((new Date(time).getTime() - now) / 1000);
  const format = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]] as const) {
    if (Math.abs(seconds) >= size) return format.format(Math.trunc(seconds / size), unit);
  }
  return format.format(Math.min(0, seconds), "second");
}
