// A server made of a function, for tests that own the clock.

import { vi } from "vitest";

import type { Stream } from "../src/index.js";

export interface Asked {
  method: string;
  url: string;
  /** Path and query. */
  path: string;
  headers: Record<string, string>;
  body: unknown;
  signal: AbortSignal;
  /** When, by the (fake) clock. */
  at: number;
}

type Reply = Response | Error | Promise<Response>;

/** A `fetch` that gives what `reply` says, and keeps what it was asked. Like the real one it rejects when its signal aborts. */
export function fakeFetch(reply: (asked: Asked, count: number) => Reply): { fetch: typeof fetch; asked: Asked[] } {
  const asked: Asked[] = [];
  const fake = (url: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const request: Asked = {
      method: init.method ?? "GET",
      url: String(url),
      path: String(url).replace(/^\w+:\/\/[^/]+/, ""),
      headers: init.headers as Record<string, string>,
      body: init.body,
      signal: init.signal as AbortSignal,
      at: Date.now(),
    };
    asked.push(request);
    return new Promise((resolve, reject) => {
      if (request.signal.aborted) reject(request.signal.reason);
      request.signal.addEventListener("abort", () => reject(request.signal.reason));
      const answer = reply(request, asked.length);
      if (answer instanceof Error) reject(answer);
      else resolve(answer);
    });
  };
  return { fetch: fake as typeof fetch, asked };
}

export const never = (): Promise<Response> => new Promise(() => {});
export const json = (body: unknown, status = 200, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json", ...headers } });

export function problem(status: number, code: string, headers: Record<string, string> = {}): Response {
  const body = { type: `/problems/${code}`, title: `Title of ${code}`, status, detail: `Detail of ${code}`, code, traceId: "t1" };
  return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/problem+json", ...headers } });
}

/** What `fetch` throws when there is nobody. */
export const nobody = (): Error => new TypeError("fetch failed");

export function stream(change: Partial<Stream> = {}): Stream {
  return {
    streamId: "s1",
    status: "downloading",
    phase: "metadata",
    progress: 0,
    message: "Looking for peers",
    messageKey: "looking_for_peers",
    messageParams: {},
    infoHash: "a".repeat(40),
    quality: "auto",
    eventsUrl: "http://server/m/t/events",
    position: 0,
    watching: [],
    createdAt: "2026-01-01T00:00:00Z",
    expiresAt: "2026-01-02T00:00:00Z",
    ...change,
  };
}

/** An event stream that the test writes to. */
export function eventStream(): { answer: Response; send: (text: string) => void; event: (type: string, data: unknown) => void; end: () => void; cut: () => void } {
  let controller: ReadableStreamDefaultController<Uint8Array>;
  const body = new ReadableStream<Uint8Array>({ start: (its) => void (controller = its) });
  const send = (text: string): void => controller.enqueue(new TextEncoder().encode(text));
  return {
    answer: new Response(body, { headers: { "content-type": "text/event-stream" } }),
    send,
    event: (type, data) => send(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`),
    end: () => controller.close(),
    cut: () => controller.error(new TypeError("terminated")),
  };
}

/** Lets the clock run, and what waits for it. */
export const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

/** How a promise stands, once it has. */
export function outcome<T>(work: Promise<T>): { value?: T; error?: unknown; done: boolean } {
  const result: { value?: T; error?: unknown; done: boolean } = { done: false };
  work.then(
    (value) => Object.assign(result, { value, done: true }),
    (error: unknown) => Object.assign(result, { error, done: true }),
  );
  return result;
}

/** Numbers in [0, 1) that are the same in each run (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
