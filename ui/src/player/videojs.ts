// The engine of most browsers: Video.js without its skin, for HLS, DASH and files.
import "./quiet";
import videojs from "video.js";
import type { Source } from "./choices";
import { AHEAD, FIRST_GUESS, type Engine, type EngineWatcher, type Level, type Sound } from "./engine";
import { PatientRequests } from "./patient";

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
  off(event: string, told: () => void): void;
}
interface AudioTracks extends ArrayLike<{ id: string; label: string; language: string; enabled: boolean }> {
  on?(events: string[], told: () => void): void;
  addEventListener(event: string, told: () => void): void;
}
interface Player {
  el(): HTMLElement;
  error(): { code: number; message: string } | null;
  audioTracks(): AudioTracks;
  qualityLevels(): QualityLevels;
  src(source: { src: string; type: string }): void;
  on(event: string, told: () => void): void;
  play(): Promise<void> | undefined;
  dispose(): void;
}

/** A media playlist as the loader lists it. */
interface Listed {
  disabled?: boolean;
  excludeUntil?: number;
  attributes: { BANDWIDTH?: number; RESOLUTION?: { height: number } };
}
type Selector = (this: { playlists: { main: { playlists: Listed[] } } }) => Listed;

export class VideoJs implements Engine {
  readonly video: HTMLVideoElement;
  readonly changesAtOnce = false;
  readonly #player: Player;
  readonly #requests: PatientRequests;
  readonly #watcher: EngineWatcher;
  #source: Source | undefined;
  #settles: AbortController | undefined;
  #eased = false;

  /** Puts a video into `place`. */
  constructor(place: HTMLElement, nativeHls: boolean, watcher: EngineWatcher) {
    const element = document.createElement("video");
    element.setAttribute("playsinline", "");
    place.append(element);

    this.#requests = new PatientRequests(watcher.late);
    videojs.log.level("off");
    // One player at a time: the loader's request function is its own.
    const vhs = (videojs as unknown as { Vhs: object }).Vhs;
    // What is fetched next, of those that are not switched off.
    const byLine = (vhs as { STANDARD_PLAYLIST_SELECTOR: Selector }).STANDARD_PLAYLIST_SELECTOR;
    const isEased = () => this.#eased;
    const select: Selector = function () {
      const usable = this.playlists.main.playlists.filter(({ disabled, excludeUntil = 0, attributes }) => !disabled && excludeUntil < Date.now() && attributes.RESOLUTION);
      const size = ({ attributes }: Listed) => (attributes.RESOLUTION?.height ?? 0) * 1e10 + (attributes.BANDWIDTH ?? 0);
      return isEased() || !usable.length ? byLine.call(this) : usable.reduce((best, one) => (size(one) > size(best) ? one : best));
    };
    Object.assign(vhs, { STANDARD_PLAYLIST_SELECTOR: select, INITIAL_PLAYLIST_SELECTOR: select, xhr: this.#requests.send, GOAL_BUFFER_LENGTH: AHEAD.wanted, MAX_GOAL_BUFFER_LENGTH: AHEAD.most });

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
    }) as unknown as Player;
    this.video = this.#player.el().querySelector("video") ?? element;
    // The region around it has the name; this box is nothing of its own.
    for (const name of ["role", "aria-label", "tabindex", "lang", "translate"]) this.#player.el().removeAttribute(name);

    this.#watcher = watcher;
    this.#watchLevels();
    for (const event of ["addtrack", "removetrack", "change"]) this.#player.audioTracks().addEventListener(event, watcher.sounds);
    this.#player.on("error", () => {
      const error = this.#player.error();
      if (error) watcher.failed(error.code, error.message);
    });
  }

  load(source: Source, at: number, plays: boolean): void {
    this.#source = source;
    const { video } = this;
    const rate = video.playbackRate;
    const settle = () => {
      if (at > 0 && Math.abs(video.currentTime - at) > 1) video.currentTime = at;
      video.playbackRate = rate;
      // The loader of the film before took its listeners with it.
      this.#watchLevels();
      this.#watcher.levels();
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

  ease(eased: boolean): void {
    this.#eased = eased;
  }

  #watchLevels(): void {
    const levels = this.#player.qualityLevels();
    for (const event of ["addqualitylevel", "removequalitylevel", "change"]) {
      levels.off(event, this.#watcher.levels);
      levels.on(event, this.#watcher.levels);
    }
  }

  again(at: number, plays: boolean): void {
    if (this.#source) this.load(this.#source, at, plays);
  }

  hurry(): void {
    this.#requests.hurry();
  }

  get levels(): Level[] {
    const those = Array.from(this.#player.qualityLevels(), ({ id, width = 0, height = 0, bitrate }) => ({ id, width, height, bitrate }));
    return those.sort((a, b) => b.height - a.height || b.bitrate - a.bitrate);
  }

  get level(): Level | undefined {
    const levels = this.#player.qualityLevels();
    const now = levels[levels.selectedIndex];
    return now && this.levels.find(({ id }) => id === now.id);
  }

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

  end(): void {
    this.#player.dispose();
  }
}
