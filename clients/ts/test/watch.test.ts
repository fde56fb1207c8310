// Events, and what stands in for them. The clock is ours; jitter is the longest.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { type Device, type Stoppable, StreamingService, type Watcher } from "../src/index.js";
import { type Asked, eventStream, fakeFetch, json, never, nobody, pass, problem, stream } from "./fakes.js";

type Told = [what: string, ...more: unknown[]];
type Route = (asked: Asked, count: number) => Response | Error | Promise<Response>;

let watching: Stoppable | undefined;

beforeEach(() => void vi.useFakeTimers());
afterEach(async () => {
  watching?.stop();
  watching = undefined;
  await pass(0);
  expect(vi.getTimerCount(), "timers are left").toBe(0);
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A server by routes; each is told how often it was asked. */
function server(routes: Record<string, Route>): { balcony: StreamingService; asked: Asked[]; times: (path: string) => number } {
  const times = (path: string): number => asked.filter((one) => one.path === path).length;
  const { fetch, asked } = fakeFetch((one) => (routes[one.path] ?? (() => problem(404, "not_found")))(one, times(one.path)));
  return { balcony: new StreamingService({ baseUrl: "http://server", token: "t", fetch, random: () => 1 }), asked, times };
}

/** Watches everything (or what `only` names), and writes down what it is told. */
function listen(balcony: StreamingService, only: Partial<Watcher> = {}, signal?: AbortSignal): Told[] {
  const told: Told[] = [];
  const all: Watcher = {
    stream: ({ streamId, progress }) => told.push(["stream", streamId, progress]),
    gone: (id) => told.push(["gone", id]),
    connection: (state, { retryIn, error }) => told.push(state === "lost" ? ["lost", retryIn, error?.code] : [state]),
    over: (error) => told.push(["over", error?.code]),
    ...only,
  };
  watching = balcony.watch(all, { signal });
  return told;
}

const streams = (...all: Parameters<typeof stream>[0][]): Response => json({ count: all.length, streams: all.map((one) => stream(one)) });
const device = (id: string, change: Partial<Device> = {}): Device => ({ id, name: id, person: "p", personId: "p1", platform: "", admin: false, createdAt: "", current: false, ...change });

describe("events", () => {
  it("are asked for with the token in the header, and told as they come", async () => {
    const line = eventStream();
    const { balcony, asked } = server({ "/api/events": () => line.answer });
    const overviews: unknown[] = [];
    const devices: unknown[] = [];
    const told = listen(balcony, { overview: (its) => overviews.push(its), device: (its) => devices.push(its) });
    await pass(0);
    expect(asked[0]).toMatchObject({ url: "http://server/api/events", headers: { accept: "text/event-stream", authorization: "Bearer t" } });
    line.event("stream", stream({ progress: 1 }));
    line.event("stream", stream({ progress: 1 }));
    line.event("stream", stream({ progress: 2 }));
    line.event("overview", { streams: 1 });
    line.event("device", { change: "revoked", deviceId: "d" });
    line.event("something new", { a: 1 });
    line.event("gone", { streamId: "s1" });
    await pass(0);
    expect(told).toEqual([["open"], ["stream", "s1", 1], ["stream", "s1", 2], ["gone", "s1"]]);
    expect(overviews).toEqual([{ streams: 1 }]);
    expect(devices).toEqual([{ change: "revoked", deviceId: "d" }]);
  });

  it("go on for as long as the server says anything, and are lost after 40 s of silence", async () => {
    const lines = [eventStream(), eventStream()] as const;
    const { balcony, times } = server({ "/api/events": (_, count) => lines[count - 1]?.answer ?? never(), "/api/streams": () => streams() });
    const told = listen(balcony);
    for (let at = 0; at < 20; at++) {
      await pass(15_000);
      lines[0].send(": still here\n\n");
    }
    expect(told).toEqual([["open"]]);
    await pass(39_999);
    expect(told).toEqual([["open"]]);
    await pass(1);
    expect(told).toEqual([["open"], ["lost", 1_000, "timeout"]]);
    await pass(1_000);
    expect(told.at(-1)).toEqual(["open"]);
    expect(times("/api/events")).toBe(2);
  });

  it("come back with doubled waits while the server is away, and find out what went meanwhile", async () => {
    let away = false;
    let line = eventStream();
    const { balcony, asked } = server({
      "/api/events": () => (away ? nobody() : line.answer),
      "/api/streams": () => (away ? nobody() : streams({ streamId: "stays" }, { streamId: "over", status: "stopped", progress: 9 })),
    });
    const told = listen(balcony);
    await pass(0);
    for (const streamId of ["stays", "over", "went"]) line.event("stream", stream({ streamId }));
    await pass(20_000);
    told.length = 0;
    away = true;
    line.cut();
    await pass(40_000);
    expect(told).toEqual([
      ["lost", 1_000, "network"],
      ["lost", 2_000, "network"],
      ["lost", 4_000, "network"],
      ["lost", 8_000, "network"],
      ["lost", 16_000, "network"],
      ["lost", 30_000, "network"],
    ]);
    told.length = 0;
    [away, line] = [false, eventStream()];
    await pass(30_000);
    line.event("stream", stream({ streamId: "stays" }));
    await pass(0);
    expect(told).toEqual([["open"], ["stream", "over", 9], ["gone", "over"], ["gone", "went"]]);
    expect(asked.filter(({ path }) => path === "/api/events").length).toBe(7);
  });

  it("wait as long as the server asks for", async () => {
    const { balcony, times } = server({ "/api/events": () => problem(429, "too_many_requests", { "retry-after": "9" }), "/api/streams": nobody });
    listen(balcony);
    await pass(8_999);
    expect(times("/api/events")).toBe(1);
    await pass(1);
    expect(times("/api/events")).toBe(2);
  });

  it("that are no JSON are a broken line, not the end", async () => {
    const lines = [eventStream(), eventStream()] as const;
    const { balcony } = server({ "/api/events": (_, count) => (lines[count - 1] as (typeof lines)[0]).answer, "/api/streams": () => streams() });
    const told = listen(balcony);
    await pass(0);
    lines[0].send("event: stream\ndata: {half\n\n");
    await pass(1_000);
    lines[1].event("stream", stream());
    await pass(0);
    expect(told).toEqual([["open"], ["lost", 1_000, "network"], ["open"], ["stream", "s1", 0]]);
  });

  it("are not told to somebody who stopped, not even those that are here already", async () => {
    const line = eventStream();
    const { balcony, asked } = server({ "/api/events": () => line.answer });
    const told = listen(balcony, { stream: () => (told.push(["one"]), watching?.stop()) });
    await pass(0);
    line.event("stream", stream({ progress: 1 }));
    line.event("stream", stream({ progress: 2 }));
    await pass(60_000);
    expect(told).toEqual([["open"], ["one"]]);
    expect(asked[0]?.signal.aborted).toBe(true);
    expect(asked).toHaveLength(1);
  });

  it("end with the caller's signal, also one that is over already", async () => {
    const end = new AbortController();
    const line = eventStream();
    const { balcony, asked } = server({ "/api/events": () => line.answer });
    const told = listen(balcony, {}, end.signal);
    await pass(0);
    end.abort();
    listen(balcony, {}, end.signal);
    await pass(60_000);
    expect(told).toEqual([["open"]]);
    expect(asked).toHaveLength(1);
  });

  it("survive a mistake in the caller's code, which is told", async () => {
    const line = eventStream();
    const { balcony } = server({ "/api/events": () => line.answer });
    const thrown: unknown[] = [];
    vi.stubGlobal("queueMicrotask", (task: () => void) => {
      try {
        task();
      } catch (error) {
        thrown.push(error);
      }
    });
    const mistake = new Error("the caller's");
    let count = 0;
    listen(balcony, {
      stream: () => {
        count++;
        throw mistake;
      },
    });
    await pass(0);
    line.event("stream", stream({ progress: 1 }));
    line.event("stream", stream({ progress: 2 }));
    await pass(0);
    expect([count, thrown]).toEqual([2, [mistake, mistake]]);
  });
});

describe("where events cannot be held", () => {
  it("polling stands in, until they come through", async () => {
    let through = false;
    let progress = 0;
    let here = true;
    const line = eventStream();
    const { balcony } = server({
      "/api/events": () => (through ? line.answer : new Response("bad gateway", { status: 502 })),
      "/api/streams": () => (here ? streams({ progress: progress++ }) : streams()),
    });
    const told = listen(balcony);
    await pass(5_000);
    expect(told).toEqual([["lost", 1_000, "network"], ["stream", "s1", 0], ["polling"], ["stream", "s1", 1], ["stream", "s1", 2]]);
    here = false;
    await pass(3_000);
    expect(told.at(-1)).toEqual(["gone", "s1"]);
    through = true;
    here = true;
    told.length = 0;
    await pass(30_000);
    expect(told[0], "an answer without a byte is no proof yet").not.toEqual(["open"]);
    line.send(": here\n\n");
    await pass(0);
    expect(told.at(-1)).toEqual(["open"]);
    told.length = 0;
    for (let at = 0; at < 5; at++) {
      await pass(10_000);
      line.send(": here\n\n");
    }
    expect(told, "nothing is polled any more").toEqual([]);
  });

  it.each<[string, Route]>([
    ["an answer that does not begin", never],
    ["an answer that holds everything back", () => eventStream().answer],
    ["an answer without a stream", () => new Response(null, { headers: { "content-type": "text/event-stream" } })],
    ["a web page", () => new Response("<html>", { headers: { "content-type": "text/html" } })],
    ["404 of an old server", () => problem(404, "not_found")],
  ])("%s: polling, without a gap", async (_, events) => {
    let progress = 0;
    const { balcony, times } = server({ "/api/events": events, "/api/streams": () => streams({ progress: progress++ }) });
    const told = listen(balcony);
    await pass(60_000);
    expect(told.at(-1)?.[0]).toBe("stream");
    told.length = 0;
    await pass(100_000);
    expect(told.length, "one look in 2.5 s at most").toBeGreaterThan(38);
    expect(told.every(([what]) => what === "stream")).toBe(true);
    expect(times("/api/events"), "events are tried again").toBeGreaterThan(2);
  });

  it.each<[string, Route, number]>([
    ["no head", never, 3_000],
    ["a head and no byte", () => eventStream().answer, 20_000],
  ])("%s: polling stands in before it is given up", async (_, events, after) => {
    const { balcony } = server({ "/api/events": events, "/api/streams": () => streams({}) });
    const told = listen(balcony);
    await pass(after - 1);
    expect(told).toEqual(after > 3_000 ? [["open"]] : []);
    await pass(1);
    expect(told.slice(-2)).toEqual([["stream", "s1", 0], ["polling"]]);
  });

  it("a line that is cut again and again does not leave gaps", async () => {
    let progress = 0;
    const { balcony } = server({
      "/api/events": () => {
        const line = eventStream();
        line.send(": hello\n\n");
        setTimeout(() => line.cut(), 500);
        return line.answer;
      },
      "/api/streams": () => streams({ progress: progress++ }),
    });
    const told = listen(balcony);
    let [longest, last] = [0, 0];
    for (let at = 0; at < 300; at++) {
      await pass(1_000);
      if (told.some(([what]) => what === "stream")) {
        longest = Math.max(longest, at - last);
        last = at;
      }
      told.length = 0;
    }
    expect(Math.max(longest, 300 - last)).toBeLessThanOrEqual(8);
  });

  it("says that the server is lost when it goes while it is polled", async () => {
    let away = false;
    const { balcony } = server({ "/api/events": () => (away ? nobody() : new Response("", { status: 502 })), "/api/streams": () => (away ? nobody() : streams()) });
    const told = listen(balcony);
    await pass(10_000);
    expect(told.at(-1)).toEqual(["polling"]);
    away = true;
    await pass(30_000);
    expect(told.at(-1)?.[0]).toBe("lost");
    away = false;
    await pass(35_000);
    expect(told.at(-1)).toEqual(["polling"]);
  });

  it("a server that is back may be able to hold events again: they are tried at once", async () => {
    let away = true;
    const { balcony, times } = server({ "/api/events": () => problem(503, "internal", { "retry-after": "600" }), "/api/streams": () => (away ? nobody() : streams()) });
    listen(balcony);
    await pass(20_000);
    expect(times("/api/events")).toBe(1);
    away = false;
    await pass(30_000);
    expect(times("/api/events")).toBe(2);
  });

  it("a look that fails is not the end of looking", async () => {
    let progress = 0;
    const { balcony } = server({ "/api/events": never, "/api/streams": (_, count) => (count % 2 ? streams({ progress: progress++ }) : nobody()) });
    const told = listen(balcony);
    await pass(10_000);
    told.length = 0;
    await pass(100_000);
    expect(told.length, "a look in 2 s, one in two of them fails, and is repeated within 1 s").toBeGreaterThan(25);
    expect(told.every(([what]) => what === "stream")).toBe(true);
  });

  it("the owner's overview and devices are looked at, too", async () => {
    let devices = [device("a"), device("b", { lastSeenAt: "1" })];
    let used = 1;
    const { balcony } = server({
      "/api/events": () => new Response("", { status: 502 }),
      "/api/streams": () => streams(),
      "/api/devices": () => json({ devices }),
      "/api/overview": () => json({ usedBytes: used }),
    });
    const told = listen(balcony, { device: (event) => told.push(["device", event]), overview: ({ usedBytes }) => told.push(["overview", usedBytes]), connection: undefined });
    await pass(10_000);
    expect(told).toEqual([["overview", 1]]);
    devices = [device("b", { lastSeenAt: "2" }), device("c")];
    used = 2;
    await pass(5_000);
    devices = [device("b", { name: "new" }), device("c")];
    await pass(5_000);
    expect(told.slice(1)).toEqual([
      ["device", { change: "revoked", deviceId: "a" }],
      ["device", { change: "paired", device: device("c") }],
      ["overview", 2],
      ["device", { change: "changed", device: device("b", { name: "new" }) }],
    ]);
  });

  it("who is not the owner asks for the overview once", async () => {
    const { balcony, times } = server({ "/api/events": () => new Response("", { status: 502 }), "/api/streams": () => streams(), "/api/overview": () => problem(403, "forbidden") });
    const told = listen(balcony, { overview: () => told.push(["overview"]) });
    await pass(30_000);
    expect(told.at(-1)).toEqual(["polling"]);
    expect(times("/api/overview")).toBe(1);
  });
});

describe("devices, after a gap in the events", () => {
  it("are compared with how they were", async () => {
    const lines = [eventStream(), eventStream()] as const;
    let devices = [device("a"), device("b")];
    const { balcony } = server({ "/api/events": (_, count) => (lines[count - 1] as (typeof lines)[0]).answer, "/api/streams": () => streams(), "/api/devices": () => json({ devices }) });
    const told = listen(balcony, { device: (event) => told.push([event.change, event.change === "revoked" ? event.deviceId : event.device.id]), connection: undefined });
    await pass(0);
    lines[0].event("device", { change: "paired", device: device("c") });
    await pass(0);
    expect(told).toEqual([["paired", "c"]]);
    devices = [device("a"), device("c"), device("d")];
    lines[0].cut();
    await pass(1_000);
    expect(told.slice(1)).toEqual([["revoked", "b"], ["paired", "d"]]);
  });
});

describe("the end", () => {
  it("a token that is not valid any more ends it at once", async () => {
    const line = eventStream();
    const { balcony, asked } = server({ "/api/events": (_, count) => (count === 1 ? line.answer : problem(401, "unauthenticated")) });
    const told = listen(balcony);
    await pass(0);
    line.send(": hello\n\n");
    await pass(0);
    line.end();
    await pass(60_000);
    expect(told).toEqual([["open"], ["lost", 1_000, "network"], ["over", "unauthenticated"]]);
    expect(asked).toHaveLength(2);
  });

  it.each([
    [403, "forbidden"],
    [421, "wrong_host"],
  ])("what the plain API refuses, too, ends it: %i", async (status, code) => {
    const refusal = (): Response => problem(status, code);
    const { balcony } = server({ "/api/events": refusal, "/api/streams": refusal });
    const told = listen(balcony);
    await pass(60_000);
    expect(told).toEqual([["lost", 1_000, code], ["over", code]]);
  });

  it("one stream that is gone ends it without an error", async () => {
    const line = eventStream();
    const { balcony, asked } = server({ "/api/stream/s1/events": () => line.answer });
    const told = listen(balcony, { streamId: "s1" });
    await pass(0);
    line.event("stream", stream({ progress: 5 }));
    line.event("gone", { streamId: "s1" });
    await pass(60_000);
    expect(told).toEqual([["open"], ["stream", "s1", 5], ["gone", "s1"], ["over", undefined]]);
    expect(asked).toHaveLength(1);
  });

  it("one stream that does not exist", async () => {
    const { balcony } = server({});
    const told = listen(balcony, { streamId: "s1" });
    await pass(60_000);
    expect(told).toEqual([["lost", 1_000, "not_found"], ["gone", "s1"], ["over", undefined]]);
  });

  it("one stream is polled where its events cannot be held", async () => {
    let progress = 0;
    const { balcony } = server({
      "/api/stream/s1/events": () => new Response("", { status: 502 }),
      "/api/stream/status/s1": () => (progress < 3 ? json(stream({ progress: progress++ })) : problem(404, "not_found")),
    });
    const told = listen(balcony, { streamId: "s1", connection: undefined });
    await pass(60_000);
    expect(told).toEqual([["stream", "s1", 0], ["stream", "s1", 1], ["stream", "s1", 2], ["gone", "s1"], ["over", undefined]]);
  });
});

describe("a proxy that does not find the server just now", () => {
  it("ends nothing", async () => {
    let away = true;
    const lost = (): Response => new Response("404 page not found", { status: 404 });
    const { balcony } = server({
      "/api/stream/s1/events": lost,
      "/api/stream/status/s1": () => (away ? lost() : json(stream({ progress: 1 }))),
    });
    const told = listen(balcony, { streamId: "s1" });
    await pass(20_000);
    expect(told.every(([what]) => what === "lost")).toBe(true);
    away = false;
    await pass(30_000);
    expect(told).toContainEqual(["stream", "s1", 1]);
    expect(told.at(-1)).toEqual(["polling"]);
  });
});

describe("a phone that wakes", () => {
  it.each(["online", "visibilitychange"])("does not wait any longer: %s", async (name) => {
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    let away = true;
    const line = eventStream();
    const { balcony } = server({ "/api/events": () => (away ? nobody() : line.answer), "/api/streams": () => (away ? nobody() : streams()) });
    const told = listen(balcony);
    await pass(40_000);
    away = false;
    expect(told.at(-1)).toEqual(["lost", 30_000, "network"]);
    page.dispatchEvent(new Event(name));
    await pass(0);
    expect(told.at(-1)).toEqual(["open"]);
    told.length = 0;
    await pass(15_000);
    line.send(": still here\n\n");
    page.dispatchEvent(new Event(name));
    await pass(0);
    expect(told, "a living line stays").toEqual([]);
    // Its timers stood still while it slept; the time did not.
    vi.setSystemTime(Date.now() + 3_600_000);
    page.dispatchEvent(new Event(name));
    await pass(0);
    expect(told).toEqual([["lost", 1_000, "timeout"]]);
  });
});
