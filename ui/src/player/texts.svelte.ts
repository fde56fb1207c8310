// The subtitles of a film: those that the server has and those that somebody opened here; which are shown, how large, how late.
import type { Stream, SubtitleTrack } from "@balcony/client";
import { local } from "$lib/local";
import { session } from "$lib/session.svelte";
import { cuesOf, cueText, decode, LARGEST, shownAt, type Cue } from "./subtitles";

export interface Text {
  id: string;
  /** Where its cues come from; without it they are here. */
  url?: string;
  language: string;
  title: string;
  forced: boolean;
  /** Opened on this device. */
  own: boolean;
}

export const SIZES = ["small", "medium", "large"] as const;
export type Size = (typeof SIZES)[number];

const SIZE = "balcony.player.subtitleSize";
const LANGUAGE = "balcony.player.subtitles";
const OFF = "off";
/** While a film is fetched, its subtitles grow with it; how often more are asked for, in milliseconds. */
const MORE = 5000;

export class Texts {
  list = $state.raw<Text[]>([]);
  chosen = $state.raw<Text>();
  /** Seconds by which they come later; negative: earlier. */
  delay = $state(0);
  size = $state<Size>(SIZES.find((size) => size === local.get(SIZE)) ?? "medium");
  #cues = $state.raw<readonly Cue[]>([]);
  readonly #own = new Map<string, readonly Cue[]>();
  #asked: AbortController | undefined;
  #last: string | undefined;
  /** Whose these are. */
  #stream: string | undefined;
  #native: TextTrack | undefined;

  /** What is shown at a time of the film. */
  at(time: number): Cue[] {
    return this.chosen ? shownAt(this.#cues, time - this.delay) : [];
  }

  /** Learns which there are. A server that knows no subtitles has none. */
  async find(stream: Stream): Promise<void> {
    this.#stream = stream.streamId;
    if (!stream.subtitles?.length) return;
    try {
      const { tracks } = await session.balcony.getSubtitles(stream.streamId);
      const those = tracks.flatMap((track) => (track.url ? [fromTrack(track, track.url)] : []));
      this.list = [...those, ...this.list.filter(({ own }) => own)];
    } catch {
      // The film plays without them; they are asked for again with its next state.
      return;
    }
    const now = this.chosen;
    if (now && !now.own) return this.choose(this.list.find(({ id }) => id === now.id), { remember: false });
    const wanted = local.get(LANGUAGE);
    if (!now && wanted !== OFF) this.choose(this.list.find(({ language, forced }) => (wanted ? language === wanted && !forced : forced)), { remember: false });
  }

  /** Shows these, or none. */
  choose(text: Text | undefined, { remember = true } = {}): void {
    this.#asked?.abort();
    // What is shown stays until more of it is here.
    if (text?.id !== this.chosen?.id) this.#cues = text ? (this.#own.get(text.id) ?? []) : [];
    this.chosen = text;
    if (text) this.#last = text.id;
    if (remember && !text?.own) local.set(LANGUAGE, text?.language ?? OFF);
    if (text?.url) void this.#read(text.url, (this.#asked = new AbortController()));
  }

  /** On and off, for a key. */
  toggle(): void {
    this.choose(this.chosen ? undefined : (this.list.find(({ id }) => id === this.#last) ?? this.list[0]));
  }

  resize(size: Size): void {
    this.size = size;
    local.set(SIZE, size);
  }

  /** Adds a file of this device: shown at once, and kept with the stream for every device. `false`: it holds no subtitles. */
  async open(file: File): Promise<boolean> {
    if (file.size > LARGEST) return false;
    const cues = cuesOf(decode(new Uint8Array(await file.arrayBuffer())));
    // The server reads more formats than this page.
    if (cues.length === 0) return this.#send(file);
    const text: Text = { id: `own-${this.#own.size + 1}`, language: "", title: file.name, forced: false, own: true };
    this.#own.set(text.id, cues);
    this.list = [...this.list, text];
    this.choose(text);
    void this.#send(file, text);
    return true;
  }

  /** Gives a file to the server, whose track then stands for the `own` one. `false`: it did not take it; what is shown stays. */
  async #send(file: File, own?: Text): Promise<boolean> {
    if (!this.#stream) return false;
    try {
      const call = { path: { streamId: this.#stream }, query: { name: file.name }, body: await file.arrayBuffer(), contentType: "application/octet-stream" };
      const track = await session.balcony.call("post", "/api/stream/{streamId}/subtitles", call);
      if (!track.url) return false;
      const text = fromTrack(track, track.url);
      const cues = own && this.#own.get(own.id);
      if (cues) this.#own.set(text.id, cues);
      const wasChosen = !own || this.chosen?.id === own.id;
      this.list = [...this.list.filter(({ id }) => id !== own?.id && id !== text.id), text];
      if (wasChosen) this.choose(text, { remember: false });
      return true;
    } catch {
      return false;
    }
  }

  /** Gives the cues to the browser itself where it draws alone: its own full screen, a small window. */
  lend(video: HTMLVideoElement, isAlone: boolean): void {
    if (!isAlone && !this.#native) return;
    const track = (this.#native ??= video.addTextTrack("subtitles", "Balcony", this.chosen?.language || "und"));
    // A disabled track has no list of cues.
    track.mode = "hidden";
    for (const cue of Array.from(track.cues ?? [])) track.removeCue(cue);
    if (isAlone && this.chosen) for (const cue of this.#cues) track.addCue(new VTTCue(cue.start + this.delay, cue.end + this.delay, cueText(cue)));
    track.mode = isAlone && this.chosen ? "showing" : "disabled";
  }

  end(): void {
    this.#asked?.abort();
  }

  /** Reads the cues, again and again until all are known. */
  async #read(url: string, asked: AbortController): Promise<void> {
    while (!asked.signal.aborted) {
      try {
        const answer = await fetch(url, { signal: asked.signal, credentials: "omit", cache: "no-store" });
        if (answer.ok) {
          const cues = cuesOf(await answer.text());
          if (!asked.signal.aborted) this.#cues = cues;
          if (answer.headers.get("subtitle-complete") !== "false") return;
        } else if (answer.status < 500) return;
      } catch {
        // Gone for a moment, or not wanted any more: the loop's head knows.
      }
      await new Promise((done) => setTimeout(done, MORE));
    }
  }
}

function fromTrack({ id, language, title, forced }: SubtitleTrack, url: string): Text {
  return { id, url, language, title, forced, own: false };
}
