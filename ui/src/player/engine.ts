// The engine: Video.js without its skin, on one <video>. It loads what it is given, and tells renditions, sound tracks and failures.
// What the film does meanwhile stands in the element itself.
import "./quiet";
import videojs from "video.js";
import type { Source } from "./choices";
import { PatientRequests, type Late } from "./patient";

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

// What video.js has at run time and does not type.
interface QualityLevel {
  id: string;
  width?: number;
  height?: number;
  bitrate: number;
  enabled: boolean;
}
interface QualityLevels extends ArrayLike<QualityLevel> {
  selectedIndex: number;
  on(event: string, told: () => void): void;
}
interface AudioTracks extends ArrayLike<{ id: string; label: string; language: string; enabled: boolean }> {
  on?(events: string[], told: () => void): void;
  addEventListener(event: string, told: () => void): void;
}
interface VideoJs {
  el(): HTMLElement;
  error(): { code: number; message: string } | null;
  audioTracks(): AudioTracks;
  qualityLevels(): QualityLevels;
  src(source: { src: string; type: string }): void;
  on(event: string, told: () => void): void;
  play(): Promise<void> | undefined;
  dispose(): void;
}

/** Seconds that are fetched ahead. On a phone with a lost server, this is what goes on. */
const AHEAD = { GOAL_BUFFER_LENGTH: 45, MAX_GOAL_BUFFER_LENGTH: 75 };
/** Bits per second that are taken for granted: a house's Wi-Fi carries the original, and a smaller picture costs the computer more. */
const FIRST_GUESS = 60_000_000;

export class Engine {
  readonly video: HTMLVideoElement;
  readonly #player: VideoJs;
  readonly #requests: PatientRequests;
  #source: Source | undefined;
  #settles: AbortController | undefined;

  /** Puts a video into `place`. */
  constructor(place: HTMLElement, nativeHls: boolean, watcher: EngineWatcher) {
    const element = document.createElement("video");
    element.setAttribute("playsinline", "");
    place.append(element);

    this.#requests = new PatientRequests(watcher.late);
    videojs.log.level("off");
    // One player at a time: the loader's request function is its own.
    const vhs = (videojs as unknown as { Vhs: { xhr: unknown } & typeof AHEAD }).Vhs;
    vhs.xhr = this.#requests.send;
    Object.assign(vhs, AHEAD);

    // For Safari's AirPlay, the loader puts the playlist beside its buffer. Other WebKits, which look like Safari to it, take the playlist
    // and cannot play it. Where this function is missing, the loader gives them its buffer alone.
    const html5 = videojs.getTech("Html5") as unknown as { prototype: { addSourceElement?: unknown } };
    if (!nativeHls) html5.prototype.addSourceElement = undefined;

    this.#player = videojs(element, {
      children: ["mediaLoader"],
      controls: false,
      preload: "auto",
      errorDisplay: false,
      noUITitleAttributes: true,
      userActions: { click: false, doubleClick: false, hotkeys: false },
      html5: {
        vhs: { overrideNative: !nativeHls, bandwidth: FIRST_GUESS, useBandwidthFromLocalStorage: false, limitRenditionByPlayerDimensions: false, experimentalUseMMS: !("MediaSource" in window) },
        nativeAudioTracks: nativeHls,
        nativeVideoTracks: nativeHls,
      },
    }) as unknown as VideoJs;
    this.video = this.#player.el().querySelector("video") ?? element;
    // The region around it has the name; this box is nothing of its own.
    for (const name of ["role", "aria-label", "tabindex", "lang", "translate"]) this.#player.el().removeAttribute(name);

    for (const event of ["addqualitylevel", "removequalitylevel", "change"]) this.#player.qualityLevels().on(event, watcher.levels);
    for (const event of ["addtrack", "removetrack", "change"]) this.#player.audioTracks().addEventListener(event, watcher.sounds);
    this.#player.on("error", () => {
      const error = this.#player.error();
      if (error) watcher.failed(error.code, error.message);
    });
  }

  /** Loads a film and goes on at a time, in seconds; playing where the browser lets it. */
  load(source: Source, at: number, plays: boolean): void {
    this.#source = source;
    const { video } = this;
    const rate = video.playbackRate;
    const settle = () => {
      if (at > 0 && Math.abs(video.currentTime - at) > 1) video.currentTime = at;
      video.playbackRate = rate;
    };
    this.#settles?.abort();
    const { signal } = (this.#settles = new AbortController());
    // Told before the first byte is asked for: so nothing of the beginning is fetched. For DASH the loader does not bear it.
    video.addEventListener("loadstart", () => at > 0 && source.method !== "dash" && video.readyState === 0 && (video.currentTime = at), { once: true, signal });
    video.addEventListener("loadedmetadata", settle, { once: true, signal });
    this.#player.src({ src: source.url, type: source.type });
    // Through the player, which waits until the element has the new source.
    if (plays) void this.#player.play()?.catch(() => {});
  }

  /** Loads the same again. */
  again(at: number, plays: boolean): void {
    if (this.#source) this.load(this.#source, at, plays);
  }

  /** The server is back: what waits is asked for at once. */
  hurry(): void {
    this.#requests.hurry();
  }

  /** Sizes of the picture, largest first. */
  get levels(): Level[] {
    const those = Array.from(this.#player.qualityLevels(), ({ id, width = 0, height = 0, bitrate }) => ({ id, width, height, bitrate }));
    return those.sort((a, b) => b.height - a.height || b.bitrate - a.bitrate);
  }

  /** The size that is fetched now. */
  get level(): Level | undefined {
    const levels = this.#player.qualityLevels();
    const now = levels[levels.selectedIndex];
    return now && this.levels.find(({ id }) => id === now.id);
  }

  /** Keeps to one size, or to what the line carries. */
  choose(level: Level | undefined): void {
    const levels = Array.from(this.#player.qualityLevels());
    // First on, then off: never none.
    for (const one of levels) if (!level || one.id === level.id) one.enabled = true;
    for (const one of levels) if (level && one.id !== level.id) one.enabled = false;
  }

  get sounds(): Sound[] {
    return Array.from(this.#player.audioTracks(), ({ id, label, language }) => ({ id, label, language }));
  }

  get sound(): Sound | undefined {
    const tracks = Array.from(this.#player.audioTracks());
    const now = tracks.findIndex(({ enabled }) => enabled);
    return this.sounds[now];
  }

  hear(sound: Sound): void {
    for (const track of Array.from(this.#player.audioTracks())) track.enabled = track.id === sound.id;
  }

  /** Stops for good: nothing is fetched any more. */
  end(): void {
    this.#player.dispose();
  }
}
