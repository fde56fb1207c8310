// The calls that an application makes, by name. Thin: asking is `wire`'s, waiting `poll`'s and `watch`'s.

import type { Answer, CallOptions, Method, PathOf, Rest } from "./api.js";
import { asError, BalconyError, isServerCode, report } from "./error.js";
import { looks, type PollingOptions } from "./poll.js";
import type { components } from "./schema.js";
import type { Health, Paired, StartOptions, Stopped, Stream, Subtitles } from "./types.js";
import { type Abortable, whenAborted, within } from "./waiting.js";
import { type Stoppable, type Watcher, watch } from "./watch.js";
import { type ServiceOptions, Wire } from "./wire.js";

/** Milliseconds for which `waitForReady` bears a server that does not answer. */
const PATIENCE = 120_000;
const EAGER = { interval: 300, maxInterval: 1_000 };

export interface WaitOptions extends Abortable {
  /** Milliseconds until it is given up; for ever without it (the server itself gives up on streams that do not get on). */
  timeout?: number | undefined;
  /** Milliseconds for which the server may be out of reach; two minutes without it. */
  patience?: number | undefined;
}

export class StreamingService {
  readonly #wire: Wire;

  constructor(options: ServiceOptions = {}) {
    this.#wire = new Wire(options);
  }

  /** The server's address. */
  get baseUrl(): string {
    return this.#wire.base;
  }

  /** Changes address or token, for all calls from now on; `token: null` forgets it. Throws `invalid`. */
  configure(change: Pick<ServiceOptions, "baseUrl" | "token">): this {
    this.#wire.configure(change);
    return this;
  }

  /** Any route of the API, typed by its document. */
  call<M extends Method, P extends PathOf<M>>(method: M, path: P, ...rest: Rest<M, P>): Promise<Answer<M, P>> {
    return this.#wire.call(method, path, ...rest);
  }

  /** Starts a stream, or answers the one that this device has already. A magnet link, or a bare info hash. */
  async startStream(magnetLink: string, options: StartOptions = {}, call: CallOptions = {}): Promise<Stream> {
    const { quality, fileIndex, method, capabilities, burn } = options;
    const body = { magnetLink, quality, fileIndex, method, capabilities, burn } as components["schemas"]["StartRequest"];
    // The same start again gives the same stream: it may be repeated.
    return (await this.#wire.call("post", "/api/stream/start", { retry: true, ...call, body })) as Stream;
  }

  async getStreamStatus(streamId: string, call: CallOptions = {}): Promise<Stream> {
    return (await this.#wire.call("get", "/api/stream/status/{streamId}", { ...call, path: { streamId } })) as Stream;
  }

  async stopStream(streamId: string, call: CallOptions = {}): Promise<Stopped> {
    const stopped = await this.#wire.call("delete", "/api/stream/{streamId}", { ...call, path: { streamId } });
    return stopped ?? { streamId, status: "stopped", message: "" };
  }

  /** The streams that are not over: this person's, or everybody's where the owner asks. */
  async getActiveStreams(call: CallOptions = {}): Promise<Stream[]> {
    const { streams } = await this.#wire.call("get", "/api/streams", call);
    return (streams as Stream[]).filter(({ status }) => status !== "stopped" && status !== "error");
  }

  /**
   * Stops this person's streams; answers their ids. The owner sees those of others too, and stops them only with `everyone`.
   * All are tried; the first failure is thrown in the end.
   */
  async stopAll({ everyone = false, ...call }: CallOptions & { everyone?: boolean } = {}): Promise<string[]> {
    let streams = await this.getActiveStreams(call);
    if (!everyone && streams.some(({ person }) => person)) {
      const { personId } = await this.#wire.call("get", "/api/devices/me", call);
      streams = streams.filter(({ person }) => !person || person.id === personId);
    }
    const outcomes = await Promise.allSettled(streams.map(({ streamId }) => this.stopStream(streamId, call)));
    const failed = outcomes.find((outcome) => outcome.status === "rejected" && asError(outcome.reason).status !== 404);
    if (failed) throw (failed as PromiseRejectedResult).reason;
    return streams.map(({ streamId }) => streamId);
  }

  /** Addresses of the subtitles by language, and all tracks; both empty where the film has none (or the stream does not exist). */
  async getSubtitles(streamId: string, call: CallOptions = {}): Promise<Subtitles> {
    try {
      return await this.#wire.call("get", "/api/stream/{streamId}/subtitles", { ...call, path: { streamId } });
    } catch (thrown) {
      if (asError(thrown).code !== "not_found") throw thrown;
      return { subtitles: {}, tracks: [] };
    }
  }

  /** Whether a server answers, and which. Asks once. */
  checkHealth(call: CallOptions = {}): Promise<Health> {
    return this.#wire.call("get", "/api/health", { retry: false, ...call });
  }

  /** Comes in by the short code that somebody typed, or by what a QR code said (`readOffer`). The token is kept here, and answered once. */
  async pair(request: components["schemas"]["PairRequest"], call: CallOptions = {}): Promise<Paired> {
    const paired = await this.#wire.call("post", "/api/pair", { ...call, body: request });
    this.configure({ token: paired.token });
    return paired;
  }

  /**
   * Waits until a stream can be played. Bears failures of the line. Throws the stream's own error, `stopped` where somebody stopped it,
   * `timeout`, `aborted`.
   */
  async waitForReady(streamId: string, onProgress?: (stream: Stream) => void, options: WaitOptions = {}): Promise<Stream> {
    const { signal, timeout = Infinity, patience = PATIENCE } = options;
    return within(timeout, signal, async (signal) => {
      for await (const stream of looks(this.#wire, streamId, { ...EAGER, patience, signal })) {
        onProgress?.(stream);
        if (stream.status === "ready") return stream;
        if (stream.error) throw failure(stream.error);
      }
      throw new BalconyError("stopped");
    });
  }

  /** Starts, and waits until it plays. A stream that nobody waits for any more goes on; stop it where that is not wanted. */
  async streamAndWait(magnetLink: string, options: StartOptions = {}, onProgress?: (stream: Stream) => void, wait: WaitOptions = {}): Promise<Stream> {
    const { timeout = Infinity, signal } = wait;
    return within(timeout, signal, async (signal) => {
      const stream = await this.startStream(magnetLink, options, { signal, waitWhenBusy: true });
      return this.waitForReady(stream.streamId, onProgress, { ...wait, timeout: undefined, signal });
    });
  }

  /** Tells how a stream stands, look by look, until it is over, cannot be had any more, or `stop` is called. */
  startPolling(streamId: string, onUpdate: (stream: Stream) => void, options: PollingOptions = {}): Stoppable {
    const end = new AbortController();
    const forget = whenAborted(options.signal, () => end.abort());
    const follow = async (): Promise<void> => {
      for await (const stream of looks(this.#wire, streamId, { ...options, signal: end.signal })) {
        if (end.signal.aborted) return;
        report(() => onUpdate(stream));
      }
    };
    follow()
      .catch((thrown) => end.signal.aborted || report(() => options.onError?.(asError(thrown))))
      .finally(forget);
    return { stop: () => end.abort() };
  }

  /** Everything that changes, as it changes: events, and looks where those do not come through. Goes on until it is stopped. */
  watch(watcher: Watcher, options: Abortable = {}): Stoppable {
    return watch(this.#wire, watcher, options);
  }
}

/** The error in a stream's object as ours. */
function failure({ code, title, detail }: { code: string; title: string; detail: string }): BalconyError {
  return new BalconyError(isServerCode(code) ? code : "internal", { title, detail });
}
