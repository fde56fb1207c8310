// The engine of WebKits that are not Apple's (the window under Linux): hls.js, for HLS, and the element alone for files.
import Hls, { type FragmentLoaderConstructor, type HlsConfig, type Loader, type LoaderCallbacks, type LoaderConfiguration, type LoaderContext, type LoaderStats, type PlaylistLoaderConstructor } from "hls.js";
import type { Source } from "./choices";
import { AHEAD, FIRST_GUESS, type Engine, type EngineWatcher, type Level, type Sound } from "./engine";
import { PatientRequests } from "./patient";

export class HlsJs implements Engine {
  readonly video: HTMLVideoElement;
  readonly #watcher: EngineWatcher;
  readonly #requests: PatientRequests;
  #source: Source | undefined;
  readonly changesAtOnce = true;
  #eased = false;
  #hls: Hls | undefined;
  #settles: AbortController | undefined;

  /** Puts a video into `place`. */
  constructor(place: HTMLElement, watcher: EngineWatcher) {
    this.#watcher = watcher;
    this.#requests = new PatientRequests(watcher.late);
    this.video = document.createElement("video");
    this.video.setAttribute("playsinline", "");
    this.video.preload = "auto";
    place.append(this.video);
    // What hls.js feeds fails there; what the element loads by itself fails here.
    this.video.addEventListener("error", () => {
      const { error } = this.video;
      if (error && this.#source?.native) watcher.failed(error.code, error.message);
    });
  }

  load(source: Source, at: number, plays: boolean): void {
    this.#source = source;
    const { video } = this;
    const rate = video.playbackRate;
    this.#settles?.abort();
    const { signal } = (this.#settles = new AbortController());
    video.addEventListener("loadedmetadata", () => {
      if (at > 0 && Math.abs(video.currentTime - at) > 1) video.currentTime = at;
      video.playbackRate = rate;
    }, { once: true, signal });
    this.#leave();
    if (source.native) video.src = source.url;
    else this.#follow(source.url, at);
    if (plays) void video.play().catch(() => {});
  }

  again(at: number, plays: boolean): void {
    if (this.#source) this.load(this.#source, at, plays);
  }

  hurry(): void {
    this.#requests.hurry();
  }

  get levels(): Level[] {
    const those = (this.#hls?.levels ?? []).map(({ width, height, bitrate }, at) => ({ id: String(at), width, height, bitrate }));
    return those.sort((a, b) => b.height - a.height || b.bitrate - a.bitrate);
  }

  get level(): Level | undefined {
    const now = this.#hls?.loadLevel;
    return this.levels.find(({ id }) => id === String(now));
  }

  choose(level: Level | undefined): void {
    const wanted = level ?? (this.#eased ? undefined : this.levels[0]);
    if (this.#hls) this.#hls.nextLevel = wanted ? Number(wanted.id) : -1;
  }

  ease(eased: boolean): void {
    this.#eased = eased;
    if (eased && this.#hls) this.#hls.nextLevel = -1;
  }

  get sounds(): Sound[] {
    return (this.#hls?.audioTracks ?? []).map(({ name, lang }, at) => ({ id: String(at), label: name, language: lang ?? "" }));
  }

  get sound(): Sound | undefined {
    return this.sounds[this.#hls?.audioTrack ?? -1];
  }

  hear(sound: Sound): void {
    if (this.#hls) this.#hls.audioTrack = Number(sound.id);
  }

  end(): void {
    this.#settles?.abort();
    this.#leave();
    this.video.removeAttribute("src");
    this.video.load();
  }

  #leave(): void {
    this.#hls?.destroy();
    this.#hls = undefined;
  }

  #follow(url: string, at: number): void {
    const { video } = this;
    const patient = loaderBy(this.#requests);
    const hls = (this.#hls = new Hls({
      // Its segments are fMP4 already: there is nothing for a worker to do.
      enableWorker: false,
      startPosition: at,
      maxBufferLength: AHEAD.wanted,
      maxMaxBufferLength: AHEAD.most,
      abrEwmaDefaultEstimate: FIRST_GUESS,
      testBandwidth: false,
      loader: patient,
      pLoader: patient as PlaylistLoaderConstructor,
      fLoader: patient as FragmentLoaderConstructor,
    }));
    for (const event of [Hls.Events.MANIFEST_PARSED, Hls.Events.LEVELS_UPDATED, Hls.Events.LEVEL_SWITCHED] as const) hls.on(event, this.#watcher.levels);
    for (const event of [Hls.Events.AUDIO_TRACKS_UPDATED, Hls.Events.AUDIO_TRACK_SWITCHED] as const) hls.on(event, this.#watcher.sounds);
    hls.on(Hls.Events.ERROR, (_, { fatal, type, details, error }) => {
      if (!fatal) return;
      const isOfLine = type === Hls.ErrorTypes.NETWORK_ERROR;
      const isOfKind = details === Hls.ErrorDetails.MANIFEST_INCOMPATIBLE_CODECS_ERROR || details === Hls.ErrorDetails.BUFFER_ADD_CODEC_ERROR;
      this.#watcher.failed(isOfLine ? MediaError.MEDIA_ERR_NETWORK : isOfKind ? MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED : MediaError.MEDIA_ERR_DECODE, error.message);
    });
    // The largest first, and from then on, unless the line does not carry it.
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      const largest = this.levels[0];
      if (largest && !this.#eased) hls.loadLevel = Number(largest.id);
    });
    hls.loadSource(url);
    hls.attachMedia(video);
  }
}

type LoaderMaker = new (config: HlsConfig) => Loader<LoaderContext>;

/** Loaders for hls.js whose requests do not give up. */
function loaderBy(requests: PatientRequests): LoaderMaker {
  return class implements Loader<LoaderContext> {
    context: LoaderContext | null = null;
    readonly stats: LoaderStats = {
      aborted: false, loaded: 0, retry: 0, total: 0, chunkCount: 0, bwEstimate: 0,
      loading: { start: 0, first: 0, end: 0 }, parsing: { start: 0, end: 0 }, buffering: { start: 0, first: 0, end: 0 },
    };
    #request: XMLHttpRequest | undefined;
    #callbacks: LoaderCallbacks<LoaderContext> | undefined;

    load(context: LoaderContext, _config: LoaderConfiguration, callbacks: LoaderCallbacks<LoaderContext>): void {
      const { stats } = this;
      const isBinary = context.responseType === "arraybuffer";
      this.context = context;
      this.#callbacks = callbacks;
      stats.loading.start = performance.now();
      const headers = { ...context.headers };
      if (context.rangeEnd) headers["Range"] = `bytes=${context.rangeStart ?? 0}-${context.rangeEnd - 1}`;
      const request = requests.send({ uri: context.url, headers, responseType: isBinary ? "arraybuffer" : "text" }, (_, answer) => {
        if (stats.aborted) return;
        const now = performance.now();
        const { statusCode: code = 0, body, url = context.url } = answer;
        stats.loading.first ||= now;
        stats.loading.end = now;
        if (code < 200 || code >= 300) return callbacks.onError({ code, text: String(code) }, context, request, stats);
        const data = isBinary ? (body as ArrayBuffer) : String(body);
        stats.loaded = stats.total = data instanceof ArrayBuffer ? data.byteLength : data.length;
        callbacks.onSuccess({ url, data, code }, stats, context, request);
      });
      request.addEventListener("progress", ({ loaded, total }) => {
        stats.loading.first ||= performance.now();
        stats.loaded = loaded;
        stats.total = total;
      });
      this.#request = request;
    }

    abort(): void {
      const { stats, context } = this;
      if (stats.aborted || stats.loading.end) return;
      stats.aborted = true;
      this.#request?.abort();
      if (context) this.#callbacks?.onAbort?.(stats, context, this.#request ?? null);
    }

    destroy(): void {
      this.abort();
      this.#callbacks = undefined;
    }
  };
}
