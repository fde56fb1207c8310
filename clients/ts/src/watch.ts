// Everything that changes, as it changes: server-sent events over fetch (EventSource cannot send the token's header), and looks at the
// plain API for as long as the events cannot be held.

import { asError, BalconyError, isBearable, report } from "./error.js";
import { EventParser, type ServerEvent } from "./sse.js";
import type { Device, DeviceEvent, Overview, Stream } from "./types.js";
import { type Abortable, aborted, backoff, sleep, unlessAborted, whenAborted } from "./waiting.js";
import type { Wire } from "./wire.js";

/** Milliseconds. The server says something every 15 s. */
const SILENCE = 40_000;
const HEAD_WITHIN = 15_000;
/** Without a head for so long, or without a byte after it, looks stand in already. */
const HEAD_LATE = 3_000;
const BYTE_LATE = 20_000;
/** A connection that lasted so long was a good one. */
const GOOD = 10_000;
const POLL = 2_000;
const BACK = { base: 1_000, cap: 30_000 };

/** `open`: events come; `polling`: they cannot be held, and the plain API is asked instead; `lost`: the server does not answer. */
export type Connection = "open" | "polling" | "lost";

export interface Watcher {
  /** A stream is new or changed; all of them at the beginning. */
  stream?: ((stream: Stream) => void) | undefined;
  /** A stream is over, or does not exist for this device any more. */
  gone?: ((streamId: string) => void) | undefined;
  /** Only the owner is told. */
  device?: ((event: DeviceEvent) => void) | undefined;
  /** Only the owner is told; at the beginning, and when it changes. */
  overview?: ((overview: Overview) => void) | undefined;
  /** With `lost`: milliseconds until the next try, and why it was lost. */
  connection?: ((state: Connection, about: { retryIn?: number; error?: BalconyError }) => void) | undefined;
  /** Nothing more will come: the token is not valid any more (`unauthenticated`), the one stream is gone (no error), … Not called after `stop`. */
  over?: ((error?: BalconyError) => void) | undefined;
  /** Only this stream. */
  streamId?: string | undefined;
}

export interface Stoppable {
  stop(): void;
}

export function watch(wire: Wire, watcher: Watcher, { signal }: Abortable = {}): Stoppable {
  const end = new AbortController();
  const forget = whenAborted(signal, () => end.abort());
  const stop = (): void => {
    forget();
    end.abort();
  };
  void new Watch(wire, watcher, end).run().finally(stop);
  return { stop };
}

class Watch {
  readonly #wire: Wire;
  readonly #watcher: Watcher;
  readonly #end: AbortController;
  readonly #signal: AbortSignal;
  /** What was told of each stream, and of each device. */
  readonly #streams = new Map<string, string>();
  #devices: Map<string, string> | undefined;
  #overview = "";
  #owner = true;
  #state: Connection | undefined;
  #polling: AbortController | undefined;
  #opened = false;
  #wake = (): void => {};

  constructor(wire: Wire, watcher: Watcher, end: AbortController) {
    this.#wire = wire;
    this.#watcher = watcher;
    this.#end = end;
    this.#signal = end.signal;
  }

  async run(): Promise<void> {
    // A network that is back, or a page that is looked at again, is no reason to wait any longer.
    const wake = (): void => this.#wake();
    const names = ["online", "visibilitychange"];
    for (const name of names) globalThis.addEventListener?.(name, wake);
    try {
      for (let failures = 0; !this.#signal.aborted; failures++) {
        const begun = Date.now();
        const { held, error } = await this.#hold();
        if (this.#signal.aborted) return;
        if (error.status === 401) return this.#finish(error);
        if (held && Date.now() - begun >= GOOD) failures = 0;
        const retryIn = Math.max(backoff(failures, BACK.base, BACK.cap, this.#wire.random), (error.retryAfter ?? 0) * 1000);
        if (this.#state !== "polling") this.#tell("lost", { retryIn, error });
        // A line that is cut again and again leaves gaps, too.
        if (!held || failures > 1) void this.#poll();
        await this.#nap(retryIn);
      }
    } finally {
      for (const name of names) globalThis.removeEventListener?.(name, wake);
    }
  }

  /** One connection, from its beginning to its end, and how that came. `held` when anything at all came through it. */
  async #hold(): Promise<{ held: boolean; error: BalconyError }> {
    let held = false;
    const lifetime = new AbortController();
    const forget = whenAborted(this.#signal, () => lifetime.abort(aborted(this.#signal)));
    let timer: ReturnType<typeof setTimeout> | undefined;
    let lastHeard = Date.now();
    const silent = (): void => lifetime.abort(new BalconyError("timeout", { title: "The server fell silent" }));
    const within = (ms: number): void => {
      clearTimeout(timer);
      timer = setTimeout(silent, ms);
      lastHeard = Date.now();
    };
    let standIn: ReturnType<typeof setTimeout> | undefined;
    const standInAfter = (ms: number): void => {
      clearTimeout(standIn);
      standIn = setTimeout(() => void this.#poll(), ms);
    };
    // Timers stand still while a phone sleeps.
    this.#wake = () => {
      if (Date.now() - lastHeard > SILENCE) silent();
    };
    try {
      within(HEAD_WITHIN);
      standInAfter(HEAD_LATE);
      const { streamId } = this.#watcher;
      const [path, names] = streamId ? ["/api/stream/{streamId}/events", { streamId }] : ["/api/events", {}];
      const answer = await unlessAborted(this.#wire.send("get", path, { path: names }, lifetime.signal, "text/event-stream"), lifetime.signal);
      if (!answer.body || !answer.headers.get("content-type")?.includes("event-stream")) throw new BalconyError("network", { title: "No events come from there" });
      // Where events could not be held before, only what really comes through counts.
      if (this.#state !== "polling") this.#open();
      standInAfter(BYTE_LATE);
      const [reader, parser] = [answer.body.getReader(), new EventParser()];
      for (;;) {
        within(SILENCE);
        const { done, value } = await unlessAborted(reader.read(), lifetime.signal);
        if (done) return { held, error: new BalconyError("network", { title: "The server ended the connection" }) };
        held = true;
        clearTimeout(standIn);
        if (this.#polling) this.#open();
        for (const event of parser.push(value)) this.#hear(event);
      }
    } catch (thrown) {
      return { held, error: asError(thrown) };
    } finally {
      clearTimeout(timer);
      clearTimeout(standIn);
      forget();
      lifetime.abort();
    }
  }

  #open(): void {
    this.#polling?.abort();
    this.#polling = undefined;
    this.#tell("open");
    // The server repeats what is there; what went while nobody listened has to be looked for.
    const { device, streamId } = this.#watcher;
    if (streamId === undefined && (this.#opened || device)) this.#look(false, this.#signal).catch(() => {});
    this.#opened = true;
  }

  /** Looks at the plain API, again and again, until events come through. */
  async #poll(): Promise<void> {
    if (this.#polling) return;
    const polling = new AbortController();
    this.#polling = polling;
    const forget = whenAborted(this.#signal, () => polling.abort());
    for (let failures = 0; !polling.signal.aborted; ) {
      let wait = POLL * (0.75 + this.#wire.random() / 2);
      try {
        await this.#look(true, polling.signal);
        if (polling.signal.aborted) break;
        // A server that is back may hold events again: they have until the next look.
        if (failures) this.#wake();
        else this.#tell("polling");
        failures = 0;
      } catch (thrown) {
        const error = asError(thrown);
        if (polling.signal.aborted) break;
        if (!isBearable(error)) this.#finish(error);
        wait = Math.max(500, backoff(failures++, BACK.base, BACK.cap, this.#wire.random), (error.retryAfter ?? 0) * 1000);
        // One failure is no loss; what is told of it comes from whoever holds the events.
        if (failures > 1 && this.#state === "polling") this.#tell("lost", { retryIn: wait, error });
      }
      await sleep(wait, polling.signal).catch(() => {});
    }
    forget();
  }

  /** How everything stands. With `all` that is told; without it only what went, and what happened to devices. */
  async #look(all: boolean, signal: AbortSignal): Promise<void> {
    const { streamId, device, overview } = this.#watcher;
    const call = { signal, retry: false };
    if (streamId !== undefined) {
      try {
        this.#stream(await this.#wire.ask("get", "/api/stream/status/{streamId}", { path: { streamId }, ...call }));
      } catch (thrown) {
        const error = asError(thrown);
        if (error.status !== 404 || isBearable(error)) throw error;
        this.#gone(streamId);
      }
      return;
    }
    const known = [...this.#streams.keys()];
    const { streams } = await this.#wire.call("get", "/api/streams", call);
    if (signal.aborted) return;
    const here = new Map(streams.map((stream) => [stream.streamId, stream]));
    for (const id of known) {
      const stream = here.get(id);
      if (stream?.status === "stopped") this.#stream(stream);
      if (!stream || stream.status === "stopped") this.#gone(id);
    }
    if (all) for (const stream of streams) if (stream.status !== "stopped") this.#stream(stream);
    if (device) this.#compare((await this.#wire.call("get", "/api/devices", call)).devices);
    if (all && overview && this.#owner) {
      try {
        this.#told(await this.#wire.call("get", "/api/overview", call));
      } catch (thrown) {
        if (asError(thrown).status !== 403) throw thrown;
        this.#owner = false;
      }
    }
  }

  #hear({ type, data }: ServerEvent): void {
    const value: unknown = JSON.parse(data);
    if (type === "stream") this.#stream(value);
    if (type === "gone") this.#gone((value as { streamId: string }).streamId);
    if (type === "overview") this.#told(value);
    if (type === "device") {
      const event = value as DeviceEvent;
      if (event.change === "revoked") this.#devices?.delete(event.deviceId);
      else this.#devices?.set(event.device.id, gist(event.device));
      this.#do(() => this.#watcher.device?.(event));
    }
  }

  #stream(value: unknown): void {
    const stream = value as Stream;
    const text = JSON.stringify(value);
    if (this.#streams.get(stream.streamId) === text) return;
    this.#streams.set(stream.streamId, text);
    this.#do(() => this.#watcher.stream?.(stream));
  }

  #gone(id: string): void {
    this.#streams.delete(id);
    this.#do(() => this.#watcher.gone?.(id));
    if (this.#watcher.streamId !== undefined) this.#finish();
  }

  #told(value: unknown): void {
    const text = JSON.stringify(value);
    if (text === this.#overview) return;
    this.#overview = text;
    this.#do(() => this.#watcher.overview?.(value as Overview));
  }

  /** Tells what changed among the devices since they were last seen. */
  #compare(devices: Device[]): void {
    const now = new Map(devices.map((device) => [device.id, gist(device)]));
    const before = this.#devices;
    this.#devices = now;
    if (!before) return;
    const tell = (event: DeviceEvent): void => this.#do(() => this.#watcher.device?.(event));
    for (const id of before.keys()) if (!now.has(id)) tell({ change: "revoked", deviceId: id });
    for (const device of devices) {
      const known = before.get(device.id);
      if (known !== now.get(device.id)) tell({ change: known === undefined ? "paired" : "changed", device });
    }
  }

  #tell(state: Connection, about: { retryIn?: number; error?: BalconyError } = {}): void {
    if (state === this.#state && state !== "lost") return;
    this.#state = state;
    this.#do(() => this.#watcher.connection?.(state, about));
  }

  #finish(error?: BalconyError): void {
    if (this.#signal.aborted) return;
    this.#end.abort();
    const { over } = this.#watcher;
    if (over) report(() => over(error));
  }

  /** Calls the watcher, unless it does not want to hear any more. */
  #do(call: () => void): void {
    if (!this.#signal.aborted) report(call);
  }

  #nap(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        forget();
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#wake = done;
      const forget = whenAborted(this.#signal, done);
    });
  }
}

/** What is worth telling of a device: not when and from where it was last seen, which changes with each request. */
function gist({ lastSeenAt: _, lastAddress: __, ...rest }: Device): string {
  return JSON.stringify(rest);
}
