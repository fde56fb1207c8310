// A bad line between the client and a server: nothing is lost that the server has.

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { type Quality, type Stream, StreamingService } from "../../src/index.js";
import { seeded } from "../fakes.js";
import { type Badness, badLine, type BadLine } from "./proxy.js";
import { type Real, startReal, until } from "./real.js";

const QUALITIES: Quality[] = ["360p", "480p", "720p", "1080p"];
const SEEDS = [1, 2];

describe("over a bad line", () => {
  let server: Real;
  let magnet: string;

  beforeAll(async () => {
    server = await startReal("--max-productions", "4");
    magnet = (await server.owner.call("get", "/api/sample", { timeout: 150_000, attemptTimeout: 150_000 })).magnetLink;
  }, 240_000);
  afterAll(async () => {
    expect(await server.end(), server.log()).toBe(0);
  });

  async function over(badness: Badness, work: (balcony: StreamingService, line: BadLine) => Promise<void>): Promise<void> {
    const line = await badLine(server.base, badness);
    try {
      await work(new StreamingService({ baseUrl: line.base, token: server.token, attemptTimeout: 800, random: seeded(badness.seed) }), line);
    } finally {
      await line.end();
      await server.owner.stopAll();
    }
  }

  it.each(SEEDS)("every stream that is started gets ready and is stopped, seed %i", async (seed) => {
    await over({ seed, share: 0.4 }, async (balcony, line) => {
      const ready = await Promise.all(QUALITIES.map((quality) => balcony.streamAndWait(magnet, { quality }, undefined, { timeout: 60_000 })));
      expect(ready.map(({ status }) => status)).toEqual(QUALITIES.map(() => "ready"));
      expect(new Set(ready.map(({ streamId }) => streamId)).size, "a repeated start makes no second stream").toBe(QUALITIES.length);
      expect(await server.owner.getActiveStreams()).toHaveLength(QUALITIES.length);
      for (const { streamId } of ready) expect(await balcony.stopStream(streamId)).toMatchObject({ streamId, status: "stopped" });
      expect(await server.owner.getActiveStreams()).toEqual([]);
      expect(line.done.drop + line.done.gateway + line.done.half + line.done.silence, "the line was bad").toBeGreaterThan(5);
    });
  }, 90_000);

  it.each(SEEDS)("polling follows a stream from its start to its stop, seed %i", async (seed) => {
    await over({ seed, share: 0.4 }, async (balcony, line) => {
      const seen: Stream[] = [];
      let [failures, gaveUp] = [0, false];
      const { streamId } = await server.owner.startStream(magnet, { quality: "480p" });
      balcony.startPolling(streamId, (its) => seen.push(its), { interval: 100, maxInterval: 300, onError: (_, retryIn) => (failures++, (gaveUp ||= retryIn === undefined)) });
      await until(() => failures >= 3 && seen.some(({ status }) => status === "ready"), () => [failures, line.done, seen.at(-1)], 60_000);
      await server.owner.stopStream(streamId);
      await until(() => seen.at(-1)?.status === "stopped", () => [failures, line.done, seen.at(-1)], 60_000);
      expect(gaveUp).toBe(false);
      const progress = seen.map((its) => its.progress);
      expect(progress).toEqual([...progress].sort((a, b) => a - b));
    });
  }, 150_000);

  it.each<[string, Badness]>([
    ["that fails half of the time", { seed: 11, share: 0.5 }],
    ["that cuts events again and again", { seed: 12, share: 0.2, cutAfter: 1_500 }],
    ["that holds events back", { seed: 13, share: 0.2, noEvents: true }],
  ])("who watches over a line %s misses nothing", async (_, badness) => {
    await over(badness, async (balcony, line) => {
      const now = new Map<string, string>();
      const gone: string[] = [];
      const overs: unknown[] = [];
      const watching = balcony.watch({
        stream: ({ streamId, status }) => now.set(streamId, status),
        gone: (id) => (gone.push(id), now.delete(id)),
        over: (error) => overs.push(error),
      });
      const started: string[] = [];
      for (const quality of QUALITIES) {
        const { streamId } = await server.owner.startStream(magnet, { quality });
        started.push(streamId);
        await until(() => now.get(streamId) === "ready", () => [[...now], line.done], 60_000);
      }
      const [first, ...rest] = started as [string, ...string[]];
      await server.owner.stopStream(first);
      await until(() => gone.includes(first), () => [gone, line.done], 60_000);
      expect([...now.keys()].sort()).toEqual(rest.sort());
      line.heal();
      await server.owner.stopAll();
      await until(() => now.size === 0, () => [[...now], line.done], 60_000);
      expect(overs).toEqual([]);
      watching.stop();
    });
  }, 240_000);
});
