// What the <video> does, as state that pages can show.
import { rangesOf, type Range } from "./place";

/** How often the time is looked at while it plays, in milliseconds: often enough for subtitles. */
const LOOK = 100;

interface AppleVideo extends HTMLVideoElement {
  webkitDisplayingFullscreen?: boolean;
  webkitSupportsFullscreen?: boolean;
  webkitEnterFullscreen?(): void;
  webkitExitFullscreen?(): void;
  webkitShowPlaybackTargetPicker?(): void;
  webkitCurrentPlaybackTargetIsWireless?: boolean;
}

export class Playback {
  readonly video: AppleVideo;
  time = $state(0);
  duration = $state(0);
  paused = $state(true);
  ended = $state(false);
  seeking = $state(false);
  /** Since when it stands still although it should not (`Date.now()`). */
  stalledSince = $state<number>();
  /** Whether any picture was shown. */
  begun = $state(false);
  buffered = $state.raw<readonly Range[]>([]);
  rate = $state(1);
  volume = $state(1);
  muted = $state(false);
  inPicture = $state(false);
  /** The browser's own full screen, which has its own controls (iPhone). */
  inNativeScreen = $state(false);
  hasAirPlay = $state(false);
  onAirPlay = $state(false);
  width = $state(0);
  height = $state(0);
  readonly #ends = new AbortController();
  #frame = 0;
  #looked = 0;

  constructor(video: HTMLVideoElement) {
    this.video = video;
    const on = (events: string, told: (event: Event) => void) => {
      for (const event of events.split(" ")) video.addEventListener(event, told, { signal: this.#ends.signal });
    };
    on("timeupdate seeked", () => this.#look());
    on("durationchange loadedmetadata", () => (this.duration = Number.isFinite(video.duration) ? video.duration : 0));
    on("resize loadedmetadata", () => ([this.width, this.height] = [video.videoWidth, video.videoHeight]));
    on("play", () => {
      this.paused = false;
      this.ended = false;
      if (video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA) this.#stalls();
      this.#follow();
    });
    on("pause", () => {
      this.paused = true;
      this.stalledSince = undefined;
      this.#look();
    });
    // A new source stops the old one without saying so.
    on("emptied", () => (this.paused = video.paused));
    on("ended", () => (this.ended = true));
    on("waiting", () => this.#stalls());
    on("playing canplay", () => (this.stalledSince = undefined));
    on("playing", () => {
      this.begun = true;
      this.paused = video.paused;
      this.#follow();
    });
    on("loadeddata", () => (this.begun = true));
    on("seeking", () => {
      this.seeking = true;
      this.ended = false;
      this.#look();
    });
    on("seeked", () => (this.seeking = false));
    on("progress", () => (this.buffered = rangesOf(video.buffered)));
    on("ratechange", () => (this.rate = video.playbackRate));
    on("volumechange", () => ([this.volume, this.muted] = [video.volume, video.muted]));
    on("enterpictureinpicture", () => (this.inPicture = true));
    on("leavepictureinpicture", () => (this.inPicture = false));
    on("webkitbeginfullscreen", () => (this.inNativeScreen = true));
    on("webkitendfullscreen", () => (this.inNativeScreen = false));
    on("webkitplaybacktargetavailabilitychanged", (event) => (this.hasAirPlay = (event as Event & { availability?: string }).availability === "available"));
    on("webkitcurrentplaybacktargetiswirelesschanged", () => (this.onAirPlay = video.readyState > 0 && this.video.webkitCurrentPlaybackTargetIsWireless === true));
    [this.volume, this.muted] = [video.volume, video.muted];
  }

  /** Starts; `false` where the browser wants a tap first. */
  async play(): Promise<boolean> {
    try {
      await this.video.play();
      return true;
    } catch (error) {
      return !(error instanceof DOMException && error.name === "NotAllowedError");
    }
  }

  pause(): void {
    this.video.pause();
  }

  seek(time: number): void {
    this.video.currentTime = time;
    this.time = time;
  }

  end(): void {
    this.#ends.abort();
    cancelAnimationFrame(this.#frame);
  }

  #stalls(): void {
    if (!this.video.paused || !this.begun) this.stalledSince ??= Date.now();
  }

  #look(): void {
    const { video } = this;
    // A film that moves does not stall, whatever was said before.
    if (this.stalledSince !== undefined && !video.paused && !video.seeking && video.currentTime > this.time && video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA) this.stalledSince = undefined;
    this.time = video.currentTime;
    this.paused = video.paused;
    this.buffered = rangesOf(video.buffered);
  }

  #follow(): void {
    cancelAnimationFrame(this.#frame);
    const step = (now: number) => {
      if (this.video.paused || this.#ends.signal.aborted) return;
      if (now - this.#looked >= LOOK) {
        this.#looked = now;
        this.time = this.video.currentTime;
      }
      this.#frame = requestAnimationFrame(step);
    };
    this.#frame = requestAnimationFrame(step);
  }
}
