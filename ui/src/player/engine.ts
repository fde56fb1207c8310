// The engine: what plays a film on one <video>. It loads what it is given, and tells renditions, sound tracks and failures. What the film
// does meanwhile stands in the element itself. There are two, and a browser needs one: each is a file of its own.
import { waysOf, type Source } from "./choices";
import type { Late } from "./patient";

/** A size of the picture that the playlist offers. */
export interface Level {
  id: string;
  width: number;
  height: number;
  /** Bits per second. */
  bitrate: number;
}

/** A sound track. */
export interface Sound {
  id: string;
  label: string;
  language: string;
}

export interface EngineWatcher {
  /** Renditions or the one that plays have changed. */
  levels: () => void;
  /** Sound tracks or the one that plays have changed. */
  sounds: () => void;
  /** A part of the film is late; `undefined`: none is any more. */
  late: (late: Late | undefined) => void;
  /** It stopped for this reason (`MediaError.code`). */
  failed: (code: number, detail: string) => void;
}

export interface Engine {
  readonly video: HTMLVideoElement;
  /** Whether another size is seen at once, and not only behind all that was fetched ahead. */
  readonly changesAtOnce: boolean;
  /** Sizes of the picture, largest first. */
  readonly levels: Level[];
  /** The size that is fetched now. */
  readonly level: Level | undefined;
  readonly sounds: Sound[];
  readonly sound: Sound | undefined;
  /** Loads a film and goes on at a time, in seconds; playing where the browser lets it. */
  load(source: Source, at: number, plays: boolean): void;
  /** Loads the same again. */
  again(at: number, plays: boolean): void;
  /** The server is back: what waits is asked for at once. */
  hurry(): void;
  /** Keeps to one size, or to the largest; when it is eased, to what the line carries. */
  choose(level: Level | undefined): void;
  /** Whether the largest size may be left for what the line carries. */
  ease(eased: boolean): void;
  hear(sound: Sound): void;
  /** Stops for good: nothing is fetched any more. */
  end(): void;
}

/** What this browser can play, and with what. */
export const ways = waysOf({
  vendor: navigator.vendor,
  platform: navigator.platform,
  hasMediaSource: "MediaSource" in window || "ManagedMediaSource" in window,
  canPlay: document.createElement("video").canPlayType("application/vnd.apple.mpegurl") !== "",
});

/** Makes the engine of this browser in a place of the page. */
export type MakesEngine = (place: HTMLElement, watcher: EngineWatcher) => Engine;

/** Loads the engine of this browser. */
export async function loadEngine(): Promise<MakesEngine> {
  if (ways.dash) {
    const { VideoJs } = await import("./videojs");
    return (place, watcher) => new VideoJs(place, ways.nativeHls, watcher);
  }
  const { HlsJs } = await import("./hlsjs");
  return (place, watcher) => new HlsJs(place, watcher);
}

/** Seconds that are fetched ahead. On a phone with a lost server, this is what goes on. */
export const AHEAD = { wanted: 45, most: 75 };
/** Bits per second that are taken for granted: a house's Wi-Fi carries the original, and a smaller picture costs the computer more. */
export const FIRST_GUESS = 60_000_000;
