// The client against the real server: every promise that it makes by name.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { type DeviceEvent, readOffer, type Stream, StreamingService } from "../../src/index.js";
import { plays, type Real, startIn, until } from "./real.js";

describe("a real server", () => {
  let folder: string;
  let server: Real;
  let magnet: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "balcony-client-"));
    server = await startIn(folder);
    magnet = (await server.owner.call("get", "/api/sample", { timeout: 150_000, attemptTimeout: 150_000 })).magnetLink;
  }, 240_000);
  afterAll(async () => {
    expect(await server.end(), server.log()).toBe(0);
    await rm(folder, { recursive: true, force: true });
  });

  /** A device that came in by what its person scanned. */
  async function paired(deviceName: string, person?: string): Promise<{ balcony: StreamingService; deviceId: string }> {
    const offer = await server.owner.call("post", "/api/pairings", { body: person ? { person } : {} });
    const scanned = readOffer(offer.url);
    expect(scanned?.fingerprint).toBe((await server.owner.checkHealth()).fingerprint);
    const balcony = new StreamingService({ baseUrl: server.base });
    const { offerId = "", secret = "" } = scanned ?? {};
    const { deviceId } = await balcony.pair({ offerId, secret, deviceName, platform: "test" });
    return { balcony, deviceId };
  }

  it("says that it is well, to anybody", async () => {
    const health = await new StreamingService({ baseUrl: `${server.base}/` }).checkHealth();
    expect(health.status).toBe("ok");
  });

  it("lets a device in by scan and by code, once", async () => {
    const { balcony, deviceId } = await paired("Scanned");
    expect(await balcony.call("get", "/api/devices/me")).toMatchObject({ id: deviceId, name: "Scanned", current: true });
    const { code } = await server.owner.call("post", "/api/pairings", { body: {} });
    const typed = new StreamingService({ baseUrl: server.base });
    const { token } = await typed.pair({ code: ` ${code.slice(0, 4).toLowerCase()}-${code.slice(4)}`, deviceName: "Typed" });
    expect(token.length).toBeGreaterThan(40);
    expect((await typed.call("get", "/api/devices")).devices).toHaveLength(1);
    await expect(new StreamingService({ baseUrl: server.base }).pair({ code, deviceName: "Second" })).rejects.toMatchObject({ code: expect.stringMatching(/offer_expired|forbidden/) });
  });

  it("refuses with codes", async () => {
    const { balcony, deviceId } = await paired("Refused");
    const refusals: [() => Promise<unknown>, string, number][] = [
      [() => new StreamingService({ baseUrl: server.base }).getActiveStreams(), "unauthenticated", 401],
      [() => new StreamingService({ baseUrl: server.base, token: "wrong" }).getActiveStreams(), "unauthenticated", 401],
      [() => balcony.call("get", "/api/settings"), "forbidden", 403],
      [() => balcony.startStream("magnet:?xt=nothing"), "bad_magnet", 400],
      [() => balcony.startStream(magnet, { quality: "721p" as "720p" }), "invalid", 422],
      [() => balcony.getStreamStatus("nothing"), "not_found", 404],
      [() => balcony.call("patch", "/api/devices/{deviceId}", { path: { deviceId }, body: { name: "" } }), "invalid", 422],
      [() => new StreamingService({ baseUrl: `${server.base}/nowhere` }).checkHealth(), "not_found", 404],
    ];
    for (const [refused, code, status] of refusals) {
      const error = await refused().then(() => undefined, (thrown) => thrown);
      expect(error).toMatchObject({ name: "BalconyError", code, status, traceId: expect.stringMatching(/./) });
      expect(error.detail, code).toMatch(/\w/);
    }
  });

  it("starts, tells, plays, and stops", async () => {
    const { balcony } = await paired("Player");
    const seen: Stream[] = [];
    const gone: string[] = [];
    const states: string[] = [];
    const watching = balcony.watch({ stream: (its) => seen.push(its), gone: (id) => gone.push(id), connection: (state) => states.push(state) });
    const progress: number[] = [];
    const stream = await balcony.streamAndWait(magnet, { quality: "720p", capabilities: { video: ["h264"], audio: ["aac"] } }, (its) => progress.push(its.progress), { timeout: 60_000 });
    expect(stream).toMatchObject({ status: "ready", progress: 100, quality: "720p" });
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect(await plays(stream.streamUrl as string)).toBeGreaterThan(1_000);
    // The same start is the same stream.
    expect((await balcony.startStream(magnet, { quality: "720p", capabilities: { video: ["h264"], audio: ["aac"] } })).streamId).toBe(stream.streamId);
    expect((await balcony.getActiveStreams()).map(({ streamId }) => streamId)).toEqual([stream.streamId]);
    await until(() => seen.some(({ status }) => status === "ready"), () => seen);
    expect(seen.every(({ streamId }) => streamId === stream.streamId)).toBe(true);
    const subtitles = await balcony.getSubtitles(stream.streamId);
    expect(Object.keys(subtitles)).toEqual(expect.arrayContaining(["subtitles", "tracks"]));

    const other = (await paired("Other")).balcony;
    expect(await other.getActiveStreams()).toEqual([]);
    await expect(other.stopStream(stream.streamId)).rejects.toMatchObject({ code: "not_found" });

    expect(await balcony.stopAll()).toEqual([stream.streamId]);
    await until(() => gone.includes(stream.streamId), () => gone);
    expect(await balcony.getStreamStatus(stream.streamId)).toMatchObject({ status: "stopped" });
    expect(await balcony.stopStream(stream.streamId)).toMatchObject({ status: "stopped" });
    await expect(balcony.waitForReady(stream.streamId)).rejects.toMatchObject({ code: "stopped" });
    watching.stop();
    expect(states).toEqual(["open"]);
  });

  it("tells one stream only, where only one is asked for, until it is gone", async () => {
    const { balcony } = await paired("One");
    const [first, second] = [await balcony.startStream(magnet, { quality: "360p" }), await balcony.startStream(magnet, { quality: "480p" })];
    expect(first.streamId).not.toBe(second.streamId);
    const ids = new Set<string>();
    const over = new Promise<unknown>((resolve) => balcony.watch({ streamId: first.streamId, stream: ({ streamId }) => ids.add(streamId), over: resolve }));
    await balcony.waitForReady(first.streamId);
    await until(() => ids.size > 0, () => [...ids]);
    expect((await balcony.stopAll()).sort()).toEqual([first.streamId, second.streamId].sort());
    expect(await over).toBeUndefined();
    expect([...ids]).toEqual([first.streamId]);
  });

  it("tells the owner of devices, and a revoked device that it is over", async () => {
    const heard: DeviceEvent[] = [];
    let open = false;
    const owner = server.owner.watch({ device: (event) => heard.push(event), connection: (state) => void (open = state === "open") });
    await until(() => open, () => heard);
    const { balcony, deviceId } = await paired("Lost");
    await until(() => heard.some((event) => event.change === "paired" && event.device.id === deviceId), () => heard);
    let its = false;
    const over = new Promise<unknown>((resolve) => balcony.watch({ connection: (state) => void (its ||= state === "open"), over: resolve }));
    await until(() => its, () => heard);
    const begun = Date.now();
    expect(await server.owner.call("delete", "/api/devices/{deviceId}", { path: { deviceId } })).toBeUndefined();
    expect(await over).toMatchObject({ code: "unauthenticated" });
    expect(Date.now() - begun).toBeLessThan(4_000);
    await until(() => heard.some((event) => event.change === "revoked" && event.deviceId === deviceId), () => heard);
    owner.stop();
  });

  it("tells the owner how everything stands, and nobody else", async () => {
    const paused: boolean[] = [];
    const owner = server.owner.watch({ overview: (its) => paused.push(its.paused) });
    await until(() => paused.length > 0, () => paused);
    expect(await server.owner.call("put", "/api/pause", { body: { paused: true } })).toMatchObject({ paused: true });
    await until(() => paused.at(-1) === true, () => paused);
    await server.owner.call("put", "/api/pause", { body: { paused: false } });
    await until(() => paused.at(-1) === false, () => paused);
    owner.stop();
    const { balcony } = await paired("Curious");
    await expect(balcony.call("get", "/api/overview")).rejects.toMatchObject({ code: "forbidden" });
  });

  it("is called off without a trace", async () => {
    const end = new AbortController();
    const waiting = server.owner.waitForReady((await server.owner.startStream(`magnet:?xt=urn:btih:${"1".repeat(40)}`)).streamId, undefined, { signal: end.signal });
    setTimeout(() => end.abort(), 300);
    await expect(waiting).rejects.toMatchObject({ code: "aborted" });
    await server.owner.stopAll();
  });

  it("goes and comes back: who watches learns both, and goes on", async () => {
    const balcony = server.owner;
    const states: string[] = [];
    let streams: Stream[] = [];
    const watching = balcony.watch({ stream: (its) => streams.push(its), connection: (state) => states.at(-1) === state || states.push(state) });
    const stream = await balcony.streamAndWait(magnet, { quality: "480p" });
    expect(await server.end()).toBe(0);
    await until(() => states.at(-1) === "lost", () => states);
    streams = [];
    server = await startIn(folder);
    balcony.configure({ baseUrl: server.base });
    await until(() => states.at(-1) === "open" && streams.some(({ streamId, status }) => streamId === stream.streamId && status === "ready"), () => [states, streams], 40_000);
    expect(states).toEqual(["open", "lost", "open"]);
    watching.stop();
  }, 90_000);
});
