// What can be chosen for a film, and what is chosen by itself: the way it comes, and the size of its picture. Pure.
import type { Quality, Stream } from "@balcony/client";
import type { Method } from "$lib/preferences.svelte";

export type { Method };

export interface Source {
  url: string;
  type: string;
  /** Whether the browser plays it by itself, without our loader. */
  native: boolean;
  method: Exclude<Method, "auto">;
}

const HLS = "application/vnd.apple.mpegurl";
const DASH = "application/dash+xml";
const TYPES: Record<string, string> = { mp4: "video/mp4", m4v: "video/mp4", mov: "video/mp4", webm: "video/webm", mkv: "video/x-matroska", ogv: "video/ogg", mp3: "audio/mpeg", m4a: "audio/mp4", ogg: "audio/ogg", flac: "audio/flac", avi: "video/x-msvideo", ts: "video/mp2t" };

type Addresses = Pick<Stream, "streamUrl" | "dashUrl" | "directUrl" | "title">;

/** The methods that this film offers to a browser. Where the stream was started for the original alone, HLS is another stream of it. */
export function methodsOf(stream: Addresses, { dash }: Ways): Method[] {
  return [
    "auto",
    "hls",
    ...(dash && stream.dashUrl ? ["dash" as const] : []),
    ...(stream.directUrl ? ["original" as const] : []),
  ];
}

/** The HLS address: `streamUrl`, unless the stream was started for another way. */
function playlistOf({ streamUrl }: Addresses): string | undefined {
  return streamUrl && /\.m3u8(\?|$)/.test(streamUrl) ? streamUrl : undefined;
}

/** What to give to the player: the address of the chosen method, else HLS. `undefined`: this stream has none such. */
export function sourceOf(stream: Addresses, method: Method, { nativeHls, dash }: Ways): Source | undefined {
  const playlist = playlistOf(stream);
  if (method === "original" && stream.directUrl) return original(stream.directUrl);
  const manifest: Source | undefined = dash && stream.dashUrl ? { url: stream.dashUrl, type: DASH, native: false, method: "dash" } : undefined;
  if (method === "dash" && manifest) return manifest;
  if (playlist) return { url: playlist, type: HLS, native: nativeHls, method: "hls" };
  if (method === "hls") return undefined;
  if (manifest) return manifest;
  return stream.directUrl ? original(stream.directUrl) : undefined;
}

function original(url: string): Source {
  const ending = /\.([a-z0-9]+)$/i.exec(new URL(url, "http://x").pathname)?.[1]?.toLowerCase() ?? "";
  return { url, type: TYPES[ending] ?? "video/mp4", native: true, method: "original" };
}

/** What a browser is, as far as films go. */
interface Browser {
  /** `navigator.vendor` and `navigator.platform`. */
  vendor: string;
  platform: string;
  hasMediaSource: boolean;
  /** Whether it says that it plays HLS by itself. */
  canPlay: boolean;
}

/** How films come to a browser best. */
export interface Ways {
  /** It plays the playlist by itself. */
  nativeHls: boolean;
  /** DASH is among the choices. */
  dash: boolean;
}

/**
 * How films come to a browser best. Its own HLS is better than ours on Apple's systems, where it gives AirPlay, the battery and the lock
 * screen; not in other WebKits, where it does not work, nor where there is no other way. In those other WebKits (the window under Linux)
 * Video.js fills the buffer and the picture never moves, while hls.js plays: there is no DASH then.
 */
export function waysOf({ vendor, platform, hasMediaSource, canPlay }: Browser): Ways {
  const isWebKit = vendor.startsWith("Apple");
  const isApple = isWebKit && /^(Mac|iPhone|iPad|iPod)/.test(platform);
  return { nativeHls: canPlay && (isApple || !hasMediaSource), dash: isApple || !isWebKit || !hasMediaSource };
}

const BOXES = [2160, 1440, 1080, 720, 480, 360] as const;

/** The smallest 16:9 box of ours that a picture fits into, as rows. */
export function boxOf(width: number, height: number): number {
  const fits = BOXES.toReversed().find((rows) => height <= rows && width <= Math.ceil((rows * 16) / 9));
  return fits ?? BOXES[0];
}

/** The qualities that make sense for a film of this size, without `auto` and `source`: those below its own. */
export function qualitiesBelow(video: { width: number; height: number } | null | undefined): Quality[] {
  const own = video ? boxOf(video.width, video.height) : Infinity;
  return BOXES.filter((rows) => rows < own).map((rows) => `${rows}p` as Quality);
}

/** Rows that a quality allows; `undefined` for `auto` and `source`. */
export function rowsOf(quality: string): number | undefined {
  const match = /^(\d+)p$/.exec(quality);
  return match ? Number(match[1]) : undefined;
}
