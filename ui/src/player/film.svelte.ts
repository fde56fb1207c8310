// One film in the player: what plays, in which size and language, what it waits for, what went wrong, and where it goes on.
import type { Quality, Stream } from "@balcony/client";
import { live } from "$lib/live.svelte";
import { local } from "$lib/local";
import { preferences } from "$lib/preferences.svelte";
import { session } from "$lib/session.svelte";
import { capabilities } from "$lib/capabilities";
import { methodsOf, sourceOf, type Method, type Source } from "./choices";
import { ways, type Engine, type Level, type MakesEngine, type Sound } from "./engine";
import type { Late } from "./patient";
import { beginAt, inside } from "./place";
import { Playback } from "./playback.svelte";
import { Texts } from "./texts.svelte";

type Subtitle = NonNullable<Stream["subtitles"]>[number];

const SOUND = "balcony.player.sound";
const VOLUME = "balcony.player.volume";
/** A stop of so many milliseconds, while nothing is late in the computer, tells that the line does not carry the picture. */
const STALLS = 4000;
/** How often the place is told to the server, in milliseconds. */
const TELLS = 10_000;
const LONGEST_PAUSE = 8_000;

/** A stream of the same film that is made ready to take over. */
export interface Change {
  quality: string;
  /** Where that is what changes: whether subtitles are drawn into the picture. */
  drawn: boolean | undefined;
  /** As far as it is. */
  stream: Stream | undefined;
}

/** Why it stopped. `unplayable`: this browser cannot play it; `broken`: it can no more. */
export type Trouble = "unplayable" | "broken";

export class Film {
  /** What plays. The pages' own view of it where they have one. */
  stream = $state.raw<Stream>() as Stream;
  method = $state<Method>("auto");
  playback = $state.raw<Playback>();
  levels = $state.raw<Level[]>([]);
  /** The size that is fetched. */
  level = $state.raw<Level>();
  /** The size that somebody chose. */
  pinned = $state.raw<Level>();
  /** Whether sizes of the playlist are taken at once. */
  changesAtOnce = $state(false);
  sounds = $state.raw<Sound[]>([]);
  sound = $state.raw<Sound>();
  late = $state.raw<Late>();
  trouble = $state<Trouble>();
  change = $state.raw<Change>();
  /** Why the other size could not be had. */
  refused = $state.raw<unknown>();
  /** Whether the last picture is held while another source begins. */
  holds = $state(false);
  readonly texts = new Texts();
  /** Draws the present picture somewhere, so that nothing turns black. */
  hold: () => void = () => {};
  /** Hears that another stream of the film took over. */
  moved: (stream: Stream) => void = () => {};
  #engine: Engine | undefined;
  #changing: AbortController | undefined;
  #failures = 0;
  #again: ReturnType<typeof setTimeout> | undefined;
  #told = { id: "", seconds: -1, at: 0 };
  /** Whether the player may take a smaller picture by itself. */
  #eased = false;
  readonly #ends = new AbortController();

  constructor(stream: Stream) {
    this.stream = stream;
    this.method = this.methods.find((method) => method === preferences.method) ?? "auto";
  }

  /** The ways in which the film can come here. */
  get methods(): Method[] {
    return methodsOf(this.stream, ways);
  }

  /** What to load by a way. */
  sourceBy(method: Method): Source | undefined {
    return sourceOf(this.stream, method, ways);
  }

  /** Puts the film into the page and begins. */
  mount(place: HTMLElement, makeEngine: MakesEngine): void {
    const engine = makeEngine(place, {
      levels: () => this.#readLevels(),
      sounds: () => this.#readSounds(),
      late: (late) => {
        this.late = late;
        if (late?.status !== 0) live.heard();
      },
      failed: (code) => this.#failed(code),
    });
    this.#engine = engine;
    const playback = (this.playback = new Playback(engine.video));
    const volume = Number(local.get(VOLUME) ?? 1);
    if (volume >= 0 && volume <= 1) engine.video.volume = volume;
    const { signal } = this.#ends;
    engine.video.addEventListener("pause", () => void this.tell(), { signal });
    engine.video.addEventListener("seeked", () => void this.tell(), { signal });
    engine.video.addEventListener("playing", () => this.#plays(), { signal });
    engine.video.addEventListener("loadedmetadata", () => this.#preferSound(), { signal });
    engine.video.addEventListener("volumechange", () => local.set(VOLUME, String(engine.video.volume)), { signal });
    addEventListener("pagehide", () => void this.tell({ leaving: true }), { signal });
    addEventListener("online", () => this.back(), { signal });
    const timer = setInterval(() => !playback.paused && void this.tell(), TELLS);
    signal.addEventListener("abort", () => clearInterval(timer));
    const easing = setInterval(() => this.#easeOff(), 1000);
    signal.addEventListener("abort", () => clearInterval(easing));
    this.#load(beginAt(this.stream.position, this.stream.duration ?? undefined), true);
    void this.texts.find(this.stream);
  }

  /** The same film as the server tells it now, or another one that the page shows. */
  follow(stream: Stream): void {
    const before = this.stream;
    if (stream.streamId === before.streamId) {
      this.stream = stream;
      if ((stream.subtitles?.length ?? 0) !== (before.subtitles?.length ?? 0) || (stream.phase === "complete") !== (before.phase === "complete")) void this.texts.find(stream);
    }
  }

  /** The server is back: everything that waits is asked for at once. */
  back(): void {
    this.#engine?.hurry();
    if (this.#again !== undefined) this.#retry();
    void this.texts.find(this.stream);
  }

  get duration(): number {
    return this.playback?.duration || (this.stream.duration ?? 0);
  }

  /** Plays or pauses; begins anew at the end. */
  toggle(): void {
    const { playback } = this;
    if (!playback) return;
    if (!playback.paused) return playback.pause();
    if (playback.ended) playback.seek(0);
    void playback.play();
  }

  /** Goes to a place, in seconds. From the end, where it had stopped by itself, it plays on. */
  seek(time: number): void {
    const { playback } = this;
    if (!playback) return;
    const stoppedByItself = playback.ended;
    playback.seek(inside(time, this.duration));
    if (stoppedByItself) void playback.play();
  }

  skip(by: number): void {
    this.seek((this.playback?.time ?? 0) + by);
  }

  /** Another way for the film to come; remembered. */
  use(method: Method): void {
    this.method = preferences.method = method;
    if (this.sourceBy(method)) this.#reload();
    else void this.changeTo(this.stream.quality as Quality, { method });
  }

  hear(sound: Sound): void {
    local.set(SOUND, sound.language);
    this.#engine?.hear(sound);
    this.#readSounds();
  }

  /** A size that the playlist has; `undefined`: the largest that the line carries. */
  pin(level: Level | undefined): void {
    this.pinned = level;
    this.#ease(false);
    this.#engine?.choose(level);
  }

  /**
   * The largest size, until the line does not carry it. A player measures how fast parts come; but they come as fast as the computer fetches
   * and makes them, and a smaller picture is made of the same bytes. So only a stop while nothing is late in the computer tells of the line.
   */
  #ease(eased: boolean): void {
    this.#eased = eased;
    this.#engine?.ease(eased);
  }

  #easeOff(): void {
    const { playback } = this;
    if (this.#eased || this.pinned || this.late || !playback?.begun || playback.paused || playback.stalledSince === undefined) return;
    if (Date.now() - playback.stalledSince < STALLS) return;
    this.#ease(true);
  }

  /** A size that another stream of the same film has. It takes over when it is ready; until then this one plays on. */
  async changeTo(quality: Quality, { method = "auto" as Method, burn = this.stream.burn ?? undefined as string | undefined } = {}): Promise<void> {
    this.giveUpChange();
    const end = (this.#changing = new AbortController());
    const { infoHash, fileIndex } = this.stream;
    const drawn = (burn || undefined) === (this.stream.burn ?? undefined) ? undefined : !!burn;
    this.change = { quality, drawn, stream: undefined };
    this.refused = undefined;
    let started: Stream | undefined;
    try {
      started = await session.balcony.startStream(`magnet:?xt=urn:btih:${infoHash}`, { quality, method: method === "auto" ? undefined : method, fileIndex: fileIndex ?? undefined, burn: burn || undefined, capabilities: await capabilities() }, { signal: end.signal });
      const ready = await session.balcony.waitForReady(started.streamId, (stream) => !end.signal.aborted && (this.change = { quality, drawn, stream }), { signal: end.signal });
      if (!end.signal.aborted) await this.#takeOver(ready, end.signal);
    } catch (error) {
      if (started && started.streamId !== this.stream.streamId) void session.balcony.stopStream(started.streamId).catch(() => {});
      if (!end.signal.aborted) this.refused = error;
    } finally {
      if (this.#changing === end) this.change = undefined;
    }
  }

  /** Subtitles to draw into the picture: images, which can be shown in no other way, and scripts, which look as they were made only there. */
  get drawable(): Subtitle[] {
    return (this.stream.subtitles ?? []).filter(({ kind, format }) => kind === "image" || format === "ass");
  }

  /** Has these drawn into the picture, or none any more. */
  draw(id: string | undefined): void {
    if (id !== (this.stream.burn ?? undefined)) void this.changeTo(this.stream.quality as Quality, { burn: id ?? "" });
  }

  giveUpChange(): void {
    this.#changing?.abort();
    this.#changing = undefined;
    this.change = undefined;
  }

  /** Tells the server where it is, so that every device of this person can go on from there. */
  async tell({ leaving = false } = {}): Promise<void> {
    const { playback, stream } = this;
    if (!playback?.begun || stream.status !== "ready") return;
    const seconds = playback.ended ? this.duration : Math.round(playback.time * 10) / 10;
    const same = this.#told.id === stream.streamId && Math.abs(this.#told.seconds - seconds) < 1;
    if (same || (!leaving && Date.now() - this.#told.at < 500)) return;
    this.#told = { id: stream.streamId, seconds, at: Date.now() };
    try {
      await session.balcony.call("put", "/api/stream/{streamId}/position", { path: { streamId: stream.streamId }, body: { seconds }, retry: false, keepalive: leaving });
    } catch {
      // The next one tells; what went wrong with the server is shown already.
      this.#told.seconds = -1;
    }
  }

  end(): void {
    void this.tell({ leaving: true });
    this.giveUpChange();
    clearTimeout(this.#again);
    this.#ends.abort();
    this.texts.end();
    this.playback?.end();
    this.playback = undefined;
    this.#engine?.end();
    this.#engine = undefined;
  }

  /** Tries once more what failed. */
  retry(): void {
    this.trouble = undefined;
    this.#failures = 0;
    this.#reload(true);
  }

  #load(at: number, plays: boolean): void {
    const source = this.sourceBy(this.method);
    if (!source || !this.playback) return;
    this.trouble = undefined;
    this.pinned = undefined;
    this.#ease(false);
    this.late = undefined;
    this.playback.begun = false;
    this.playback.stalledSince = Date.now();
    this.#engine?.load(source, at, plays);
  }

  /** The same place from another source, without a black moment. */
  #reload(plays = this.playback?.paused === false): void {
    const { playback } = this;
    if (!playback) return;
    if (playback.begun) {
      this.hold();
      this.holds = true;
    }
    this.#load(playback.time, plays);
  }

  async #takeOver(next: Stream, signal: AbortSignal): Promise<void> {
    const before = this.stream;
    if (next.streamId === before.streamId) return;
    this.stream = next;
    this.#reload();
    await this.#shows(signal);
    // The page follows; only then the old one goes, unless somebody else looks at it.
    this.moved(next);
    const others = before.watching?.some(({ id }) => id !== session.me?.id) ?? false;
    if (!others) await session.balcony.stopStream(before.streamId).catch(() => {});
    void this.texts.find(next);
  }

  /** Until the new source shows a picture. */
  #shows(signal: AbortSignal): Promise<void> {
    const video = this.#engine?.video;
    return new Promise((done, fail) => {
      if (!video) return done();
      video.addEventListener("loadeddata", () => done(), { once: true, signal });
      signal.addEventListener("abort", () => fail(signal.reason as Error), { once: true });
    });
  }

  #plays(): void {
    this.#failures = 0;
    this.holds = false;
  }

  #failed(code: number): void {
    // A line that broke, or a server that was gone when it was asked: again, each time a little later.
    const isLine = code === MediaError.MEDIA_ERR_NETWORK || live.connection.state === "lost";
    if (!isLine && this.#failures >= 1) {
      this.holds = false;
      this.trouble = code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED && !this.playback?.begun ? "unplayable" : "broken";
      return;
    }
    if (this.playback) this.playback.stalledSince ??= Date.now();
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.#retry(), Math.min(LONGEST_PAUSE, 500 * 2 ** this.#failures));
    this.#failures += 1;
  }

  #retry(): void {
    clearTimeout(this.#again);
    this.#again = undefined;
    const { playback } = this;
    if (!playback) return;
    const wanted = !playback.paused || !playback.begun;
    const stalledSince = playback.stalledSince;
    this.#engine?.again(playback.time, wanted);
    playback.stalledSince = stalledSince ?? Date.now();
  }

  #readLevels(): void {
    this.changesAtOnce = this.#engine?.changesAtOnce ?? false;
    this.levels = this.#engine?.levels ?? [];
    this.level = this.#engine?.level;
  }

  #readSounds(): void {
    const engine = this.#engine;
    if (!engine) return;
    this.sounds = engine.sounds;
    this.sound = engine.sound;
  }

  /** The language that was chosen the last time. Not before the loader has begun: it does not bear it. */
  #preferSound(): void {
    this.#readSounds();
    const wanted = local.get(SOUND);
    const better = wanted ? this.sounds.find(({ language }) => language === wanted) : undefined;
    if (better && this.sound && this.sound.language !== wanted) this.hear(better);
  }
}
