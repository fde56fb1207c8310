// How tracks, sizes and rates of a film are called.
import type { Stream } from "@balcony/client";
import { language, say } from "$lib/words";
import { boxOf } from "./choices";
import type { Level, Sound } from "./engine";
import type { Text } from "./texts.svelte";

/** Codes of ISO 639-2 that stand for a language under its English name; `Intl` knows only the others. */
const BIBLIOGRAPHIC: Record<string, string> = { alb: "sq", arm: "hy", baq: "eu", bur: "my", chi: "zh", cze: "cs", dut: "nl", fre: "fr", geo: "ka", ger: "de", gre: "el", ice: "is", mac: "mk", mao: "mi", may: "ms", per: "fa", rum: "ro", slo: "sk", tib: "bo", wel: "cy" };

/** A language in the reader's own, for example `German`; `undefined` where it is not known. */
export function languageName(code: string | undefined, reader: string = language()): string | undefined {
  if (!code || /^(und|mis|zxx|mul)$/i.test(code)) return undefined;
  try {
    const name = new Intl.DisplayNames([reader], { type: "language", fallback: "none" }).of(BIBLIOGRAPHIC[code.toLowerCase()] ?? code);
    return name && name.charAt(0).toLocaleUpperCase(reader) + name.slice(1);
  } catch {
    return undefined;
  }
}

/** A sound track: its language, and its title where the language alone does not tell it from the others. */
export function soundName(sound: Sound, all: readonly Sound[]): string {
  const number = all.findIndex(({ id }) => id === sound.id) + 1;
  const name = languageName(sound.language);
  if (!name) return sound.label || say("soundTrack", { number });
  const alone = all.filter(({ language }) => language === sound.language).length === 1;
  return alone || !sound.label ? name : `${name}, ${sound.label}`;
}

/** What else is known of a sound track. */
export function soundHint(sound: Sound, all: readonly Sound[], stream: Stream): string | undefined {
  const at = all.findIndex(({ id }) => id === sound.id);
  const track = stream.audio?.length === all.length ? stream.audio[at] : undefined;
  const channels = track && (track.channels === 1 ? say("mono") : track.channels === 2 ? say("stereo") : say("channels", { count: track.channels }));
  const title = languageName(sound.language) && sound.label !== soundName(sound, all) ? sound.label : "";
  return [title, channels].filter(Boolean).join(", ") || undefined;
}

export function textName(text: Text): string {
  if (text.own) return text.title;
  const name = languageName(text.language) ?? (text.title || say("playSubtitles"));
  return text.forced ? `${name}, ${say("textsForced").toLocaleLowerCase(language())}` : name;
}

/** `1080p`, by the box that a picture fits into. */
export function sizeName({ width, height }: { width: number; height: number }): string {
  return `${boxOf(width, height)}p`;
}

/** Bits per second, for example `5.1 Mb/s`. */
export function rateName(bits: number): string {
  const mega = bits / 1e6;
  return `${new Intl.NumberFormat(language(), { maximumFractionDigits: mega < 10 ? 1 : 0 }).format(mega)}\u00a0Mb/s`;
}

/** A speed, for example `1.25×`. */
export function speedName(rate: number): string {
  return `${new Intl.NumberFormat(language(), { maximumFractionDigits: 2 }).format(rate)}×`;
}

export function levelHint(level: Level, isSource: boolean): string {
  return isSource ? say("copiedRate", { quality: sizeName(level), rate: rateName(level.bitrate) }) : say("convertedRate", { rate: rateName(level.bitrate) });
}

/** A film's name without its file's ending. */
export function filmName(stream: Stream): string {
  return stream.title?.replace(/\.[a-z0-9]{2,4}$/i, "") || say("untitled");
}
