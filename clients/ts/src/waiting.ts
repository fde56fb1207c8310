// Waiting that can be called off: sleep, back-off, budget, time limits. Knows nothing of HTTP.

import { BalconyError } from "./error.js";

/** Milliseconds. A timer that is set to more fires at once (HTML standard, section 8.6: 32 bits). */
const LONGEST = 2 ** 31 - 1;

/** Whatever can be called off. */
export interface Abortable {
  signal?: AbortSignal | undefined;
}

export function aborted(signal: AbortSignal): BalconyError {
  return signal.reason instanceof BalconyError ? signal.reason : new BalconyError("aborted", { cause: signal.reason });
}

/** Runs `then` when the signal aborts, at once if it has; answers how to forget that. */
export function whenAborted(signal: AbortSignal | undefined, then: () => void): () => void {
  if (!signal) return () => {};
  if (signal.aborted) then();
  else signal.addEventListener("abort", then, { once: true });
  return () => signal.removeEventListener("abort", then);
}

/** Waits; rejects at once when the signal aborts. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      forget();
      resolve();
    }, ms);
    const forget = whenAborted(signal, () => {
      clearTimeout(timer);
      reject(aborted(signal as AbortSignal));
    });
  });
}

/** The work's outcome, or the abortion of the signal if that comes first, even where the work itself cannot be called off. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const forget = whenAborted(signal, () => reject(aborted(signal)));
    work.then(resolve, reject).finally(forget);
  });
}

/** Does work within a time and under a caller's signal: rejects with `timeout` or `aborted`, and lets the work know by its own signal. */
export async function within<T>(ms: number, outer: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const inner = new AbortController();
  const forget = whenAborted(outer, () => inner.abort(aborted(outer as AbortSignal)));
  const timer = ms <= LONGEST ? setTimeout(() => inner.abort(new BalconyError("timeout")), ms) : undefined;
  try {
    if (inner.signal.aborted) throw aborted(inner.signal);
    return await unlessAborted(work(inner.signal), inner.signal);
  } finally {
    clearTimeout(timer);
    forget();
  }
}

/** Full jitter: anything between nothing and `base` doubled per failure, up to `cap`; so that many clients do not come back together. */
export function backoff(failures: number, base: number, cap: number, random: () => number): number {
  return random() * Math.min(cap, base * 2 ** Math.min(failures, 30));
}

/** How many retries there may be, shared by all calls: a store that fills again with time, so that a dead server is not asked ever more. */
export class Budget {
  #left: number;
  #filledAt = Date.now();

  constructor(
    private readonly capacity: number,
    private readonly perSecond: number,
  ) {
    this.#left = capacity;
  }

  /** Takes one retry, if there is one. */
  take(): boolean {
    const now = Date.now();
    this.#left = Math.min(this.capacity, this.#left + (Math.max(0, now - this.#filledAt) / 1000) * this.perSecond);
    this.#filledAt = now;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }
}
