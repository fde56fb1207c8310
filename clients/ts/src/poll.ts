// How a stream stands, asked again and again: a failed look is no failed stream.

import { asError, type BalconyError, isBearable } from "./error.js";
import { isOver, type Stream } from "./types.js";
import { type Abortable, backoff, sleep } from "./waiting.js";
import type { Wire } from "./wire.js";

/** Milliseconds. */
const FIRST = 500;
const SLOWEST = 3_000;
const GROWTH = 1.5;
const TROUBLE = { base: 500, cap: 10_000 };

export interface PollingOptions extends Abortable {
  /** Milliseconds between two looks while things move; 500 without it. */
  interval?: number | undefined;
  /** Milliseconds to which that grows while nothing moves; 3 000 without it. */
  maxInterval?: number | undefined;
  /** Milliseconds for which all looks may fail before it is given up; for ever without it. */
  patience?: number | undefined;
  /** A look failed. `retryIn` milliseconds later comes the next; without it this was the last. */
  onError?: ((error: BalconyError, retryIn?: number) => void) | undefined;
}

/** The stream, look by look, until it is over. Throws what cannot get better by waiting. */
export async function* looks(wire: Wire, streamId: string, options: PollingOptions): AsyncGenerator<Stream, void> {
  const { interval = FIRST, maxInterval = SLOWEST, patience = Infinity, signal, onError } = options;
  const slowest = Math.max(interval, maxInterval);
  let [pause, failures, lastGood, before] = [interval, 0, Date.now(), ""];
  for (;;) {
    let stream: Stream | undefined;
    let wait: number;
    try {
      stream = (await wire.call("get", "/api/stream/status/{streamId}", { path: { streamId }, signal, retry: false })) as Stream;
      // Speeds and seconds always move; these tell whether it gets on.
      const now = `${stream.status} ${stream.phase} ${stream.progress}`;
      pause = now === before ? Math.min(pause * GROWTH, slowest) : interval;
      [failures, lastGood, before] = [0, Date.now(), now];
      wait = pause * (0.75 + wire.random() / 2);
    } catch (thrown) {
      const error = asError(thrown);
      if (!isBearable(error) || Date.now() - lastGood >= patience) throw error;
      wait = Math.max(interval / 2, backoff(failures++, TROUBLE.base, TROUBLE.cap, wire.random), (error.retryAfter ?? 0) * 1000);
      onError?.(error, wait);
    }
    if (stream) {
      yield stream;
      if (isOver(stream)) return;
    }
    await sleep(wait, signal);
  }
}
