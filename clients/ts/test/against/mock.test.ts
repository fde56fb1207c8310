// The client against the mock, whose timeline is known: 20 s of it, played ten times as fast.

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type { Stream } from "../../src/index.js";
import { plays, type Real, startReal, until } from "./real.js";

const SPEED = 10;
const magnet = (digit: string): string => `magnet:?xt=urn:btih:${digit.repeat(40)}&dn=Film`;

describe("the mock", () => {
  let server: Real;

  beforeAll(async () => {
    server = await startReal("--mock", "--mock-speed", String(SPEED));
  }, 240_000);
  afterAll(async () => {
    expect(await server.end(), server.log()).toBe(0);
  });

  it("plays its timeline, and every step of it is told", async () => {
    const told: Stream[] = [];
    const watching = server.owner.watch({ stream: (its) => told.push(its) });
    const begun = Date.now();
    const stream = await server.owner.streamAndWait(magnet("1"), {}, undefined, { timeout: 30_000 });
    expect(stream.status).toBe("ready");
    expect(Date.now() - begun).toBeGreaterThan((20_000 / SPEED) * 0.9);
    expect(await plays(stream.streamUrl as string)).toBeGreaterThan(1_000);
    await until(() => told.some(({ status }) => status === "ready"), () => told);
    const progress = told.filter(({ streamId }) => streamId === stream.streamId).map((its) => its.progress);
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect(new Set(told.map(({ status }) => status))).toContain("downloading");
    watching.stop();
    await server.owner.stopAll();
  });

  it("is ready at once where that is asked for", async () => {
    const stream = await server.owner.streamAndWait(magnet("a"), {}, undefined, { timeout: 10_000 });
    expect(await plays(stream.streamUrl as string)).toBeGreaterThan(1_000);
  });

  it.each([
    ["e", "no_peers"],
    ["d", "conversion_failed"],
  ])("fails as its hash says: %s…", async (digit, code) => {
    await expect(server.owner.streamAndWait(magnet(digit), {}, undefined, { timeout: 30_000 })).rejects.toMatchObject({ code });
  });

  it("never gets past its metadata, and the caller's time is up", async () => {
    const seen: Stream[] = [];
    await expect(server.owner.streamAndWait(magnet("c"), {}, (its) => seen.push(its), { timeout: 1_500 })).rejects.toMatchObject({ code: "timeout" });
    expect(seen.at(-1)).toMatchObject({ status: "downloading", phase: "metadata" });
    await server.owner.stopAll();
  });
});
