// Waiting for a stream and following it, by a clock of our own.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { type BalconyError, isOver, type Stream, StreamingService } from "../src/index.js";
import { type Asked, fakeFetch, json, never, nobody, outcome, pass, problem, seeded, stream } from "./fakes.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  expect(vi.getTimerCount(), "timers are left").toBe(0);
  vi.useRealTimers();
});

type Script = (Partial<Stream> | (() => Response | Error | Promise<Response>))[];

/** A stream that stands as the script says, look by look; the last line is for ever. Jitter is in the middle. */
function play(script: Script, random = (): number => 0.5): { balcony: StreamingService; asked: Asked[] } {
  const { fetch, asked } = fakeFetch((_, count) => {
    const line = script[Math.min(count, script.length) - 1] as Script[number];
    return typeof line === "function" ? line() : json(stream(line));
  });
  return { balcony: new StreamingService({ baseUrl: "http://server", token: "t", fetch, random }), asked };
}

const gaps = (asked: Asked[]): number[] => asked.slice(1).map(({ at }, index) => Math.round(at - (asked[index] as Asked).at));
const ready = { status: "ready", phase: "playable", progress: 100 } as const;

describe("polling", () => {
  it("slows down while nothing moves, and is quick again when something does", async () => {
    const still = { progress: 10 };
    const { balcony, asked } = play([still, still, still, still, still, still, { progress: 20 }, { progress: 20 }, { status: "stopped" }]);
    const seen: number[] = [];
    balcony.startPolling("s1", ({ progress }) => seen.push(progress), { interval: 1_000, maxInterval: 4_000 });
    await pass(60_000);
    expect(gaps(asked)).toEqual([1_000, 1_500, 2_250, 3_375, 4_000, 4_000, 1_000, 1_500]);
    expect(seen).toEqual([10, 10, 10, 10, 10, 10, 20, 20, 0]);
  });

  it("is spread by jitter, by a quarter to both sides", async () => {
    const { balcony, asked } = play([{}], seeded(3));
    const { stop } = balcony.startPolling("s1", () => {}, { interval: 1_000, maxInterval: 1_000 });
    await pass(200_000);
    stop();
    const waits = gaps(asked);
    expect(waits.length).toBeGreaterThan(150);
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(750);
    expect(Math.max(...waits)).toBeLessThanOrEqual(1_251);
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(400);
  });

  it("bears failures, with doubled waits up to 10 s, and recovers", async () => {
    const { balcony, asked } = play([{}, ...Array.from({ length: 9 }, () => nobody), {}, { status: "stopped" }], () => 1);
    const [seen, errors]: [Stream[], [string, number | undefined][]] = [[], []];
    balcony.startPolling("s1", (its) => seen.push(its), { interval: 400, onError: ({ code }, retryIn) => errors.push([code, retryIn]) });
    await pass(300_000);
    const waits = [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000, 10_000];
    expect(gaps(asked).slice(1, 10)).toEqual(waits);
    expect(errors).toEqual(waits.map((wait) => ["network", wait]));
    expect(seen).toHaveLength(3);
  });

  it("has mercy with a server that is too busy", async () => {
    const { balcony, asked } = play([() => problem(429, "too_many_requests", { "retry-after": "5" }), { status: "stopped" }]);
    balcony.startPolling("s1", () => {});
    await pass(20_000);
    expect(gaps(asked)).toEqual([5_000]);
  });

  it.each([
    [401, "unauthenticated"],
    [404, "not_found"],
  ])("ends on %i, and says so", async (status, code) => {
    const { balcony, asked } = play([{}, () => problem(status, code)]);
    const errors: [BalconyError, number | undefined][] = [];
    balcony.startPolling("s1", () => {}, { onError: (error, retryIn) => errors.push([error, retryIn]) });
    await pass(60_000);
    expect(errors).toEqual([[expect.objectContaining({ code }), undefined]]);
    expect(asked).toHaveLength(2);
  });

  it.each(["error", "stopped"] as const)("ends when the stream is over: %s", async (status) => {
    const { balcony, asked } = play([{}, { status }]);
    balcony.startPolling("s1", () => {});
    await pass(60_000);
    expect(asked).toHaveLength(2);
    expect(isOver(stream({ status }))).toBe(true);
  });

  it("goes on when the stream is ready: the download does", async () => {
    const { balcony, asked } = play([ready]);
    const { stop } = balcony.startPolling("s1", () => {});
    await pass(30_000);
    expect(asked.length).toBeGreaterThan(8);
    stop();
  });

  it.each(["stop", "signal"])("ends by %s: while it sleeps, while it asks, before it began", async (by) => {
    for (const at of [0, 1, 700]) {
      const end = new AbortController();
      if (at === 0 && by === "signal") end.abort();
      const update = vi.fn();
      const { balcony, asked } = play([{}, never]);
      const polling = balcony.startPolling("s1", update, { interval: 500, signal: end.signal, onError: () => expect.unreachable() });
      if (at > 0) await pass(at);
      if (by === "stop") polling.stop();
      else end.abort();
      const [asks, updates] = [asked.length, update.mock.calls.length];
      await pass(60_000);
      expect([asked.length, update.mock.calls.length]).toEqual([asks, updates]);
      expect(vi.getTimerCount()).toBe(0);
      polling.stop();
    }
  });

  it("can be stopped from within its own call", async () => {
    const { balcony, asked } = play([{}]);
    const polling = balcony.startPolling("s1", () => polling.stop());
    await pass(60_000);
    expect(asked).toHaveLength(1);
  });
});

describe("waiting for ready", () => {
  it("tells the progress, and answers the stream", async () => {
    const { balcony } = play([{}, { progress: 50 }, ready]);
    const seen: number[] = [];
    const waited = outcome(balcony.waitForReady("s1", ({ progress }) => seen.push(progress)));
    await pass(2_000);
    expect(waited.value).toMatchObject(ready);
    expect(seen).toEqual([0, 50, 100]);
  });

  it("loses no stream to failed looks", async () => {
    const page = (): Response => new Response("<html>", { status: 502 });
    const missing = (): Response => new Response("404 page not found", { status: 404 });
    const half = (): Response => new Response('{"streamId":"s1","sta', { headers: { "content-type": "application/json" } });
    const { balcony } = play([{}, nobody, page, missing, half, () => problem(500, "internal"), never, ready]);
    const waited = outcome(balcony.waitForReady("s1"));
    await pass(90_000);
    expect(waited.value).toMatchObject(ready);
  });

  it("gives up on a server that stays away", async () => {
    const { balcony } = play([{}, nobody]);
    const waited = outcome(balcony.waitForReady("s1", undefined, { patience: 20_000 }));
    await pass(19_000);
    expect(waited.done).toBe(false);
    await pass(40_000);
    expect(waited.error).toMatchObject({ code: "network" });
  });

  it.each(["no_peers", "unsafe_torrent", "not_playable", "no_space", "torrent_failed", "conversion_failed"] as const)("throws the stream's own error: %s", async (code) => {
    const { balcony } = play([{ status: "error", phase: "failed", error: { code, title: "T", detail: "D" } }]);
    await expect(balcony.waitForReady("s1")).rejects.toMatchObject({ code, title: "T", detail: "D", status: 0 });
  });

  it("throws when somebody stops it", async () => {
    const { balcony } = play([{ status: "stopped", phase: "stopped" }]);
    await expect(balcony.waitForReady("s1")).rejects.toMatchObject({ code: "stopped" });
  });

  it("throws in time", async () => {
    const { balcony, asked } = play([{}]);
    const waited = outcome(balcony.waitForReady("s1", undefined, { timeout: 5_000 }));
    await pass(5_000);
    expect(waited.error).toMatchObject({ code: "timeout" });
    const before = asked.length;
    await pass(60_000);
    expect(asked).toHaveLength(before);
  });

  it.each([0, 1, 150])("is called off at once, after %i ms", async (at) => {
    const end = new AbortController();
    if (at === 0) end.abort();
    const { balcony, asked } = play([{}]);
    const waited = outcome(balcony.waitForReady("s1", undefined, { signal: end.signal }));
    await pass(at);
    end.abort();
    await pass(0);
    expect(waited.error).toMatchObject({ code: "aborted" });
    expect(asked).toHaveLength(at === 0 ? 0 : 1);
  });

  it("throws what the caller's function throws", async () => {
    const { balcony } = play([{}]);
    const mistake = new Error("the caller's");
    await expect(
      balcony.waitForReady("s1", () => {
        throw mistake;
      }),
    ).rejects.toBe(mistake);
  });
});

describe("starting and waiting", () => {
  it("starts once, waits where the server is busy, and plays", async () => {
    const { balcony, asked } = play([() => problem(429, "queue_full", { "retry-after": "2" }), {}, {}, ready]);
    const waited = outcome(balcony.streamAndWait("magnet:?x", { quality: "480p" }));
    await pass(10_000);
    expect(waited.value).toMatchObject(ready);
    expect(asked.map(({ method }) => method)).toEqual(["POST", "POST", "GET", "GET"]);
  });

  it.each([
    [400, "bad_magnet"],
    [401, "unauthenticated"],
  ])("fails at once on %i", async (status, code) => {
    const { balcony } = play([() => problem(status, code)]);
    await expect(balcony.streamAndWait("magnet:?x")).rejects.toMatchObject({ code, status });
  });

  it("has one time for both, and one signal", async () => {
    const late = outcome(play([{}]).balcony.streamAndWait("magnet:?x", {}, undefined, { timeout: 3_000 }));
    await pass(3_000);
    expect(late.error).toMatchObject({ code: "timeout" });
    const end = new AbortController();
    const off = outcome(play([never]).balcony.streamAndWait("magnet:?x", {}, undefined, { signal: end.signal }));
    await pass(10);
    end.abort();
    await pass(0);
    expect(off.error).toMatchObject({ code: "aborted" });
  });
});
