// One call: what goes over the line, and when it is repeated. The clock is ours.

import { getEventListeners } from "node:events";

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { BalconyError, type ServiceOptions, StreamingService } from "../src/index.js";
import { type Asked, fakeFetch, json, never, nobody, outcome, pass, problem, stream } from "./fakes.js";

const TOKEN = "a-token_of-256-bits";
const BASE = "https://192.168.1.20:3443";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  expect(vi.getTimerCount(), "timers are left").toBe(0);
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A service whose server gives these answers, one after the other, and the last one for ever; jitter takes the longest. */
function service(answers: ((asked: Asked) => Response | Error | Promise<Response>)[], options: ServiceOptions = {}): { balcony: StreamingService; asked: Asked[] } {
  const { fetch, asked } = fakeFetch((request, count) => (answers[Math.min(count, answers.length) - 1] as (typeof answers)[0])(request));
  return { balcony: new StreamingService({ baseUrl: BASE, token: TOKEN, fetch, random: () => 1, ...options }), asked };
}

const fine = (): Response => json({ count: 0, streams: [] });
const list = (balcony: StreamingService, init = {}): Promise<unknown> => balcony.call("get", "/api/streams", init);

describe("what goes over the line", () => {
  it("is the method, the path with its names, the query and the body", async () => {
    const { balcony, asked } = service([() => json({})]);
    await balcony.call("patch", "/api/devices/{deviceId}", { path: { deviceId: "a/b ?#ü" }, body: { name: "Pixel" } });
    expect(asked[0]).toMatchObject({ method: "PATCH", path: "/api/devices/a%2Fb%20%3F%23%C3%BC", body: '{"name":"Pixel"}' });
    expect(asked[0]?.headers["content-type"]).toBe("application/json");
    await list(balcony);
    expect(asked[1]).toMatchObject({ method: "GET", url: `${BASE}/api/streams`, body: undefined });
    expect(asked[1]?.headers["content-type"]).toBeUndefined();
  });

  it("carries the token in its header, and nowhere else", async () => {
    const { balcony, asked } = service([() => json(stream({ status: "ready" }))]);
    await balcony.startStream("magnet:?xt=urn:btih:x");
    await balcony.getStreamStatus("s1");
    balcony.configure({ token: "  another\n" });
    await balcony.getStreamStatus("s1");
    balcony.configure({ token: null });
    await balcony.getStreamStatus("s1");
    expect(asked.map(({ headers }) => headers["authorization"])).toEqual([`Bearer ${TOKEN}`, `Bearer ${TOKEN}`, "Bearer another", undefined]);
    for (const { url, body } of asked) expect(`${url} ${String(body)}`).not.toMatch(/a-token|another/);
  });

  it("can be bytes", async () => {
    const { balcony, asked } = service([() => json({ magnetLink: "magnet:", infoHash: "", totalBytes: 0 })]);
    const body = new Uint8Array([1, 2, 3]);
    await balcony.call("post", "/api/torrents/magnet", { body, contentType: "application/x-bittorrent" });
    expect(asked[0]?.headers["content-type"]).toBe("application/x-bittorrent");
    expect(asked[0]?.body).toBe(body);
  });

  it("leaves out what is not said", async () => {
    const { balcony, asked } = service([() => json(stream())]);
    await balcony.startStream("magnet:?x", { quality: "720p", fileIndex: 0 });
    expect(JSON.parse(asked[0]?.body as string)).toEqual({ magnetLink: "magnet:?x", quality: "720p", fileIndex: 0 });
  });

  it.each(["", ".", ".."])("never climbs in the path: %j", async (deviceId) => {
    const { balcony, asked } = service([() => json({})]);
    await expect(balcony.call("delete", "/api/devices/{deviceId}", { path: { deviceId } })).rejects.toMatchObject({ code: "invalid" });
    expect(asked).toEqual([]);
  });
});

describe("the answer", () => {
  it.each<[string, () => Response, unknown]>([
    ["JSON", () => json({ a: 1 }), { a: 1 }],
    ["text", () => new Response("all is well", { headers: { "content-type": "text/plain" } }), "all is well"],
    ["nothing", () => new Response(null, { status: 204 }), undefined],
  ])("is %s", async (_, answer, expected) => {
    const { balcony } = service([answer]);
    expect(await list(balcony)).toEqual(expected);
  });

  it("gives an archive as it came", async () => {
    const bytes = new Uint8Array([0x1f, 0x8b, 0, 0xff]);
    const { balcony } = service([() => new Response(bytes, { headers: { "content-type": "application/gzip" } })]);
    const archive = (await balcony.call("get", "/api/doctor/bundle")) as unknown as Blob;
    expect(new Uint8Array(await archive.arrayBuffer())).toEqual(bytes);
  });

  it("is no web page", async () => {
    const { balcony } = service([() => new Response("<html>", { headers: { "content-type": "text/html" } })]);
    await expect(list(balcony, { retry: false })).rejects.toMatchObject({ code: "network", title: "Something else answers there" });
  });

  it("is asked for again when it broke off", async () => {
    const half = new Response('{"count":0,"str', { headers: { "content-type": "application/json" } });
    const { balcony, asked } = service([() => half, fine]);
    const listed = outcome(list(balcony));
    await pass(500);
    expect(listed.value).toEqual({ count: 0, streams: [] });
    expect(asked).toHaveLength(2);
  });

  it("may break off in an error, too", async () => {
    const broken = new Response(new ReadableStream({ start: (its) => its.error(new Error("cut")) }), { status: 404 });
    const { balcony } = service([() => broken]);
    await expect(list(balcony)).rejects.toMatchObject({ code: "not_found", status: 404 });
  });
});

describe("the address", () => {
  it.each([
    ["https://nas:3443", "https://nas:3443"],
    ["https://nas:3443/", "https://nas:3443"],
    ["  HTTPS://NAS:3443/?x#y ", "https://nas:3443"],
    ["https://proxy/balcony", "https://proxy/balcony"],
    ["https://proxy/a/balcony//", "https://proxy/a/balcony"],
    ["http://127.0.0.1:3001", "http://127.0.0.1:3001"],
    ["https://[fe80::1]:3443", "https://[fe80::1]:3443"],
  ])("%s", async (given, base) => {
    const { balcony, asked } = service([fine], { baseUrl: given });
    expect(balcony.baseUrl).toBe(base);
    await list(balcony);
    expect(asked[0]?.url).toBe(`${base}/api/streams`);
  });

  it.each(["192.168.1.20:3443", "nas", "ftp://nas", "javascript:alert(1)", "https://user:secret@nas", "https://"])("is not %s", (baseUrl) => {
    expect(() => new StreamingService({ baseUrl })).toThrow(expect.objectContaining({ code: "invalid" }));
    const { balcony } = service([fine]);
    expect(() => balcony.configure({ baseUrl, token: "other" })).toThrow(BalconyError);
    expect(balcony.baseUrl, "a refused change changes nothing").toBe(BASE);
  });

  it("is the page's own where none is given", async () => {
    vi.stubGlobal("location", new URL("https://192.168.1.20:3443/pair"));
    const { balcony, asked } = service([fine], { baseUrl: undefined });
    await list(balcony);
    expect(asked[0]?.url).toBe(`${BASE}/api/streams`);
  });

  it("is missing where there is no page", async () => {
    const { balcony, asked } = service([fine], { baseUrl: undefined });
    await expect(list(balcony)).rejects.toMatchObject({ code: "invalid", title: "There is no server address" });
    expect(asked).toHaveLength(0);
  });

  it.each(["two words", "a\u00e9", "a\r\nX-Header: 1"])("refuses %j as a token", (token) => {
    expect(() => new StreamingService({ baseUrl: BASE, token })).toThrow(expect.objectContaining({ code: "invalid" }));
  });

  it.each([
    ["https://app.example/", "http://192.168.1.20:3001", true],
    ["https://localhost/", "http://nas.local:3001", true],
    ["https://localhost/", "http://127.0.0.1:3001", false],
    ["https://localhost/", "http://localhost:3001", false],
    ["https://localhost/", "http://[::1]:3001", false],
    ["https://localhost/", "http://127.0.0.1.evil.example", true],
    ["https://app.example/", "https://192.168.1.20:3443", false],
    ["http://127.0.0.1:3001/", "http://192.168.1.20:3001", false],
    ["capacitor://localhost", "http://192.168.1.20:3001", false],
  ])("%s that asks %s: refused %s", async (page, baseUrl, refused) => {
    vi.stubGlobal("location", new URL(page));
    const { balcony, asked } = service([fine], { baseUrl });
    if (refused) {
      await expect(list(balcony)).rejects.toMatchObject({ code: "mixed_content", transient: false });
      await expect(list(balcony)).rejects.toThrow(/3443/);
    } else {
      await list(balcony);
    }
    expect(asked).toHaveLength(refused ? 0 : 1);
  });
});

describe("retries", () => {
  it.each<[string, () => Response | Error]>([
    ["nobody there", nobody],
    ["500", () => problem(500, "internal")],
    ["502 of a proxy", () => new Response("bad gateway", { status: 502 })],
    ["503", () => problem(503, "segment_late")],
  ])("%s: with doubled waits, then it fails", async (_, failure) => {
    const { balcony, asked } = service([failure]);
    const listed = outcome(list(balcony));
    await pass(60_000);
    expect(asked.map(({ at }) => at - (asked[0] as Asked).at)).toEqual([0, 500, 1_500, 3_500]);
    expect(listed.error).toBeInstanceOf(BalconyError);
  });

  it("succeed in the end", async () => {
    const { balcony, asked } = service([nobody, () => problem(500, "internal"), fine]);
    const listed = outcome(list(balcony));
    await pass(1_500);
    expect(listed.value).toEqual({ count: 0, streams: [] });
    expect(asked).toHaveLength(3);
  });

  it("wait between nothing and the whole", async () => {
    for (const part of [0, 0.25, 0.999]) {
      const { balcony, asked } = service([nobody, nobody, nobody, fine], { random: () => part });
      const listed = outcome(list(balcony));
      await pass(4_000);
      expect(listed.done).toBe(true);
      const waits = asked.slice(1).map(({ at }, index) => at - (asked[index] as Asked).at);
      for (const [index, wait] of waits.entries()) expect(Math.abs(wait - 500 * 2 ** index * part)).toBeLessThanOrEqual(1);
    }
  });

  it.each([400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 416, 421, 422, 429, 451])("never happen on %i", async (status) => {
    const { balcony, asked } = service([() => new Response("", { status, headers: { "retry-after": "1" } })]);
    const listed = outcome(list(balcony));
    await pass(60_000);
    expect(listed.error).toMatchObject({ status });
    expect(asked).toHaveLength(1);
  });

  it("never happen on a post that might do things twice", async () => {
    const { balcony, asked } = service([nobody]);
    const paired = outcome(balcony.pair({ code: "ABCD-EFGH", deviceName: "Pixel" }));
    await pass(60_000);
    expect(paired.error).toMatchObject({ code: "network" });
    expect(asked).toHaveLength(1);
  });

  it("happen on a start, which gives the same stream again", async () => {
    const { balcony, asked } = service([nobody, () => json(stream(), 201)]);
    const started = outcome(balcony.startStream("magnet:?x"));
    await pass(500);
    expect(started.value?.streamId).toBe("s1");
    expect(asked).toHaveLength(2);
  });

  it("can be had, or not, as the caller says", async () => {
    const without = service([nobody]);
    const first = outcome(list(without.balcony, { retry: false }));
    await pass(60_000);
    expect([first.done, without.asked.length]).toEqual([true, 1]);
    const posts = service([nobody, () => json({ offerId: "o" })]);
    const second = outcome(posts.balcony.call("post", "/api/pairings", { body: {}, retry: true }));
    await pass(500);
    expect([second.done, posts.asked.length]).toEqual([true, 2]);
  });

  it("wait as long as a busy server asks for", async () => {
    const { balcony, asked } = service([() => problem(503, "internal", { "retry-after": "7" }), fine]);
    const listed = outcome(list(balcony));
    await pass(6_999);
    expect(asked).toHaveLength(1);
    await pass(1);
    expect(listed.value).toBeDefined();
  });

  it("take a lost answer to a delete for what it is", async () => {
    const { balcony } = service([nobody, () => problem(404, "not_found")]);
    const removed = outcome(balcony.call("delete", "/api/devices/{deviceId}", { path: { deviceId: "d" } }));
    await pass(500);
    expect(removed).toEqual({ done: true, value: undefined });
    const first = service([() => problem(404, "not_found")]);
    await expect(first.balcony.call("delete", "/api/devices/{deviceId}", { path: { deviceId: "d" } })).rejects.toMatchObject({ code: "not_found" });
  });

  it("are limited for all calls together, and come back with time", async () => {
    const { balcony, asked } = service([nobody]);
    const calls = Array.from({ length: 20 }, () => outcome(list(balcony)));
    await pass(60_000);
    expect(calls.every(({ done }) => done)).toBe(true);
    // 20 first tries, 20 retries of the store, and what came into it while they went on.
    expect(asked.length).toBeGreaterThanOrEqual(40);
    expect(asked.length).toBeLessThanOrEqual(42);
    const before = asked.length;
    await pass(4_000);
    void outcome(list(balcony));
    await pass(10_000);
    expect(asked.length - before, "28 s and more have filled the store for one whole call").toBe(4);
  });
});

describe("a 429", () => {
  const busy = (): Response => problem(429, "too_many_requests", { "retry-after": "3" });

  it("fails with the time that it asks for", async () => {
    const { balcony } = service([busy]);
    await expect(list(balcony)).rejects.toMatchObject({ code: "too_many_requests", retryAfter: 3 });
  });

  it("is waited for where the caller allows it, again and again", async () => {
    const { balcony, asked } = service([busy, busy, busy, busy, busy, busy, fine]);
    const listed = outcome(list(balcony, { waitWhenBusy: true }));
    await pass(60_000);
    expect(listed.value).toBeDefined();
    const waits = asked.slice(1).map(({ at }, index) => at - (asked[index] as Asked).at);
    for (const wait of waits) expect(wait).toBeGreaterThanOrEqual(3_000);
  });

  it("is waited for within the time of the call only", async () => {
    const { balcony, asked } = service([() => problem(429, "queue_full", { "retry-after": "600" })]);
    const listed = outcome(list(balcony, { waitWhenBusy: true, timeout: 10_000 }));
    await pass(0);
    expect(listed.error).toMatchObject({ code: "queue_full", retryAfter: 600 });
    expect(asked).toHaveLength(1);
  });
});

describe("time", () => {
  it("limits one try, which is then repeated", async () => {
    const { balcony, asked } = service([never, fine], { attemptTimeout: 2_000 });
    const listed = outcome(list(balcony));
    await pass(2_500);
    expect(listed.value).toBeDefined();
    expect(asked[0]?.signal.aborted).toBe(true);
  });

  it("limits a body that does not come", async () => {
    const stuck = (): Response => new Response(new ReadableStream({}), { headers: { "content-type": "application/json" } });
    const { balcony } = service([stuck, fine]);
    const listed = outcome(list(balcony));
    await pass(15_500);
    expect(listed.value).toBeDefined();
  });

  it("limits a whole call", async () => {
    const { balcony } = service([never]);
    const listed = outcome(list(balcony, { timeout: 5_000 }));
    await pass(5_000);
    expect(listed.error).toMatchObject({ code: "timeout" });
  });

  it("is not spent on a wait that would outlast it: the true reason is told", async () => {
    const { balcony } = service([nobody]);
    const listed = outcome(list(balcony, { timeout: 1_200 }));
    await pass(1_200);
    expect(listed.error).toMatchObject({ code: "network" });
  });
});

describe("calling off", () => {
  it.each([
    ["before", 0],
    ["while it waits for an answer", 100],
    ["while it sleeps before a retry", 15_200],
  ])("%s", async (_, at) => {
    const { balcony, asked } = service([never]);
    const end = new AbortController();
    if (at === 0) end.abort();
    const listed = outcome(list(balcony, { signal: end.signal }));
    await pass(at);
    end.abort();
    await pass(0);
    expect(listed.error).toMatchObject({ code: "aborted" });
    expect(asked).toHaveLength(at === 0 ? 0 : 1);
  });

  it("leaves nothing at a signal that lives on", async () => {
    const { balcony } = service([fine, nobody, fine, () => problem(404, "not_found"), () => json(stream({ status: "ready" }))]);
    const { signal } = new AbortController();
    await list(balcony, { signal });
    const retried = outcome(list(balcony, { signal }));
    await pass(500);
    expect(retried.value).toBeDefined();
    await expect(list(balcony, { signal })).rejects.toMatchObject({ code: "not_found" });
    await balcony.waitForReady("s1", undefined, { signal });
    balcony.startPolling("s1", () => {}, { signal }).stop();
    balcony.watch({}, { signal }).stop();
    await pass(0);
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  it("ends even a fetch that does not care", async () => {
    const deaf = (() => new Promise(() => {})) as unknown as typeof fetch;
    const balcony = new StreamingService({ baseUrl: BASE, fetch: deaf });
    const end = new AbortController();
    const listed = outcome(list(balcony, { signal: end.signal }));
    await pass(10);
    end.abort();
    await pass(0);
    expect(listed.error).toMatchObject({ code: "aborted" });
  });
});

describe("calls by name", () => {
  it("pairs, and goes on as the device that it is now", async () => {
    const paired = { token: "new-token", deviceId: "d", deviceName: "Pixel", person: "p", server: { id: "", name: "", fingerprint: "", version: "" } };
    const { balcony, asked } = service([() => json(paired, 201), fine], { token: undefined });
    expect(await balcony.pair({ offerId: "o", secret: "s", deviceName: "Pixel", platform: "Android" })).toEqual(paired);
    await list(balcony);
    expect(asked.map(({ headers }) => headers["authorization"])).toEqual([undefined, "Bearer new-token"]);
  });

  it("stays what it was where pairing fails", async () => {
    const { balcony, asked } = service([() => problem(403, "forbidden"), fine]);
    await expect(balcony.pair({ code: "WRONG", deviceName: "Pixel" })).rejects.toMatchObject({ code: "forbidden" });
    await list(balcony);
    expect(asked[1]?.headers["authorization"]).toBe(`Bearer ${TOKEN}`);
  });

  it("has no subtitles where there are none", async () => {
    const { balcony } = service([() => problem(404, "not_found"), () => problem(401, "unauthenticated")]);
    expect(await balcony.getSubtitles("s1")).toEqual({ subtitles: {}, tracks: [] });
    await expect(balcony.getSubtitles("s1")).rejects.toMatchObject({ code: "unauthenticated" });
  });

  it("lists what is not over", async () => {
    const streams = (["downloading", "converting", "ready", "error", "stopped"] as const).map((status) => stream({ streamId: status, status }));
    const { balcony } = service([() => json({ count: 5, streams })]);
    expect((await balcony.getActiveStreams()).map(({ streamId }) => streamId)).toEqual(["downloading", "converting", "ready"]);
  });

  const house = (request: Asked): Response => {
    if (request.path === "/api/devices/me") return json({ personId: "me" });
    if (request.method === "DELETE") return request.path.endsWith("lost") ? problem(404, "not_found") : json({});
    const streams = ["me", "me", "you"].map((id, index) => stream({ streamId: `s${index}`, person: { id, name: id } }));
    return json({ count: 3, streams });
  };
  const deleted = (asked: Asked[]): string[] => asked.filter(({ method }) => method === "DELETE").map(({ path }) => path.split("/").at(-1) as string);

  it("stops the owner's own streams, and those of others only when told to", async () => {
    const own = service([house]);
    expect(await own.balcony.stopAll()).toEqual(["s0", "s1"]);
    expect(deleted(own.asked)).toEqual(["s0", "s1"]);
    const all = service([house]);
    expect(await all.balcony.stopAll({ everyone: true })).toEqual(["s0", "s1", "s2"]);
    expect(deleted(all.asked)).toEqual(["s0", "s1", "s2"]);
  });

  it("tries to stop all, though one fails", async () => {
    const streams = ["bad", "lost", "good"].map((streamId) => stream({ streamId }));
    const { balcony, asked } = service([
      (request) => (request.method === "GET" ? json({ count: 3, streams }) : request.path.endsWith("bad") ? problem(409, "conflict") : request.path.endsWith("lost") ? problem(404, "not_found") : json({})),
    ]);
    await expect(balcony.stopAll()).rejects.toMatchObject({ code: "conflict" });
    expect(deleted(asked)).toEqual(["bad", "lost", "good"]);
  });

  it("asks once for the health", async () => {
    const { balcony, asked } = service([nobody]);
    await expect(balcony.checkHealth()).rejects.toMatchObject({ code: "network" });
    expect(asked).toHaveLength(1);
  });
});
