// What the computer's pages decide: the line of facts, the order of films, the code's life, whose devices are whose.
import type { Device, Stream } from "@balcony/client";
import { describe, expect, test } from "vitest";
import { COUNT, KEEP, SPACE, withPresent } from "../src/pages/desk/choices";
import { bar, facts, isByTomorrow, qualityOf, shelve } from "../src/pages/desk/facts";
import { sorted, tally } from "../src/pages/desk/findings";
import { doing, households, seen, signOf } from "../src/pages/desk/house";
import { addressOf, countdown, endOf, fingerprintOf, grouped, step, UNSEEN } from "../src/pages/desk/offer";
import { isWatchedHere, standing } from "../src/pages/desk/status";

const NOW = Date.parse("2026-11-23T12:00:00Z");
const at = (ms: number) => new Date(NOW + ms).toISOString();

function stream(change: Partial<Stream>): Stream {
  return {
    streamId: "s", status: "ready", phase: "playable", progress: 100, message: "", messageKey: "playable", messageParams: {}, infoHash: "", quality: "auto", eventsUrl: "", position: 0, watching: [],
    createdAt: at(-3_600_000), expiresAt: at(3_600_000), ...change,
  };
}

describe("the facts of a film", () => {
  const kinds = (change: Partial<Stream>) => facts(stream(change)).map(({ kind }) => kind);

  test("stand in the same order, whatever is known", () => {
    const all = { duration: 888, position: 372, downloadProgress: 71, downloadSpeed: 5_000_000, peers: 42, totalBytes: 1_000_000_000, downloadedBytes: 710_000_000 };
    expect(kinds(all)).toEqual(["watched", "fetched", "speed", "peers", "doneIn"]);
    expect(kinds({ ...all, position: 0 })).toEqual(["length", "fetched", "speed", "peers", "doneIn"]);
    expect(kinds({ ...all, downloadSpeed: 0 })).toEqual(["watched", "fetched", "peers"]);
    expect(kinds({ ...all, status: "converting", phase: "converting", eta: 3 })).toEqual(["playsIn", "speed", "peers"]);
    expect(kinds({ ...all, phase: "complete", downloadProgress: 100 })).toEqual(["watched", "allHere"]);
    expect(kinds({ status: "downloading", phase: "metadata", peers: 0 })).toEqual([]);
    expect(kinds({ ...all, status: "error", phase: "failed" })).toEqual([]);
  });

  test("tell minutes, and seconds of what is shorter than 90 s", () => {
    expect(facts(stream({ duration: 888, position: 372 }))[0]).toEqual({ kind: "watched", watched: 6, total: 15, unit: "min" });
    expect(facts(stream({ duration: 60, position: 61 }))[0]).toEqual({ kind: "watched", watched: 60, total: 60, unit: "s" });
    expect(facts(stream({ duration: 0, position: 5 }))).toEqual([]);
  });

  test("tell how long the rest takes", () => {
    const [last] = facts(stream({ downloadSpeed: 1000, totalBytes: 90_000, downloadedBytes: 60_000 })).slice(-1);
    expect(last).toEqual({ kind: "doneIn", seconds: 30 });
  });
});

test("the bar shows what was watched, then the way to playing, and nothing where nobody knows", () => {
  expect(bar(stream({ duration: 100, position: 42, downloadProgress: 71 }))).toEqual({ done: 42, have: 71 });
  expect(bar(stream({ duration: 100, position: 200, phase: "complete" }))).toEqual({ done: 100, have: 100 });
  expect(bar(stream({ status: "converting", progress: 75 }))).toEqual({ done: 75, have: 0 });
  expect(bar(stream({ status: "downloading", phase: "metadata", messageKey: "looking_for_peers", progress: 0 })).done).toBeUndefined();
  expect(bar(stream({ status: "downloading", phase: "queued", progress: 0 })).done).toBe(0);
  expect(bar(stream({ status: "downloading", phase: "metadata", messageKey: "paused", progress: 0 })).done).toBe(0);
});

describe("the shelves", () => {
  const watched = [{ id: "d", name: "D" }];
  const ids = (streams: Stream[]) => {
    const { active, kept } = shelve(streams, NOW);
    return [active.map((one) => one.streamId), kept.map((one) => one.streamId)];
  };

  test("what is ready and watched by nobody sinks, unless it is young", () => {
    const all = [
      stream({ streamId: "watched", watching: watched }),
      stream({ streamId: "old" }),
      stream({ streamId: "young", createdAt: at(-60_000) }),
      stream({ streamId: "waits", status: "downloading", phase: "buffering" }),
      stream({ streamId: "failed", status: "error", phase: "failed" }),
      stream({ streamId: "stopped", status: "stopped", phase: "stopped" }),
    ];
    expect(ids(all)).toEqual([["watched", "young", "waits", "failed"], ["old"]]);
  });

  test("what is deleted first stands first among the kept ones", () => {
    expect(ids([stream({ streamId: "b", expiresAt: at(9000) }), stream({ streamId: "a", expiresAt: at(1000) })])).toEqual([[], ["a", "b"]]);
  });

  test("tomorrow ends at midnight of the day after", () => {
    const noon = new Date(2026, 10, 23, 12).getTime();
    expect(isByTomorrow(new Date(2026, 10, 24, 23, 59).toISOString(), noon)).toBe(true);
    expect(isByTomorrow(new Date(2026, 10, 25, 0, 1).toISOString(), noon)).toBe(false);
  });
});

test.each([
  ["720p", undefined, "720p"],
  ["auto", undefined, undefined],
  ["auto", { width: 1920, height: 800 }, "1080p"],
  ["source", { width: 3840, height: 1600 }, "2160p"],
  ["auto", { width: 720, height: 576 }, "720p"],
  ["auto", { width: 640, height: 360 }, "360p"],
  ["auto", { width: 99_999, height: 99_999 }, undefined],
])("quality %s of a source %o is read as %s", (quality, size, read) => {
  expect(qualityOf({ quality, ...(size && { video: { codec: "h264", hdr: false, ...size } }) })).toBe(read);
});

describe("the line at the foot", () => {
  const overview = { state: "active", paused: false, streams: 2, watching: 0, preparing: 0, downloadSpeed: 0, uploadSpeed: 0, usedBytes: 0, filmBytes: 0, segmentBytes: 0, keptBytes: 0, promisedBytes: 0, budgetBytes: 0, freeBytes: 0 } as const;

  test.each([
    [undefined, false, { kind: "starting" }],
    [overview, false, { kind: "ready" }],
    [{ ...overview, watching: 2 }, false, { kind: "watching", count: 2 }],
    [{ ...overview, watching: 2 }, true, { kind: "watching", count: 1 }],
    [{ ...overview, watching: 1 }, true, { kind: "watchedHere" }],
    [{ ...overview, preparing: 3 }, false, { kind: "preparing", count: 3 }],
    [{ ...overview, paused: true, watching: 2 }, false, { kind: "paused" }],
    [{ ...overview, paused: true, trouble: { code: "no_space", message: "full", messageKey: "no_space" } }, false, { kind: "trouble", code: "no_space", message: "full" }],
  ])("%o, watched here: %s", (given, here, said) => {
    expect(standing(given, here)).toEqual(said);
  });

  test("the computer's own window is no phone", () => {
    expect(isWatchedHere([stream({ watching: [{ id: "owner", name: "This machine" }] })])).toBe(true);
    expect(isWatchedHere([stream({ watching: [{ id: "d", name: "D" }] }), stream({})])).toBe(false);
  });
});

describe("the pairing code", () => {
  test("is renewed while somebody looks, kept for a while when nobody does, then covered", () => {
    expect(step(NOW, undefined, undefined)).toBe("renew");
    expect(step(NOW, NOW + 1, undefined)).toBe("keep");
    expect(step(NOW, NOW, undefined)).toBe("renew");
    expect(step(NOW, NOW - 1, NOW - UNSEEN + 1)).toBe("keep");
    expect(step(NOW, NOW - 1, NOW - UNSEEN)).toBe("cover");
  });

  test("ends when the server says so, or after its known life where the clocks disagree", () => {
    expect(endOf(at(119_000), NOW)).toBe(NOW + 119_000);
    expect(endOf(at(3_600_000), NOW)).toBe(NOW + 115_000);
    expect(endOf(at(-5000), NOW)).toBe(NOW + 115_000);
    expect(endOf("nonsense", NOW)).toBe(NOW + 115_000);
  });

  test.each([[102_000, "1:42"], [101_001, "1:42"], [9000, "0:09"], [-5, "0:00"]])("%i ms are %s", (left, said) => {
    expect(countdown(left)).toBe(said);
  });

  test("is read in groups, with the address to type it at and the fingerprint to compare", () => {
    expect(grouped("KXQ7M4TP")).toBe("KXQ7 M4TP");
    expect(addressOf("http://192.168.1.20:3001/p#v1.a.b.c")).toBe("192.168.1.20:3001");
    expect(addressOf("elsewhere")).toBe("elsewhere");
    expect(fingerprintOf("nzoRyE1-ArahgHfUXCnoOw")).toBe("9F3A 11C8 4D7E 02B6 A180 77D4 5C29 E83B");
    expect(fingerprintOf("9f3a:11c8:4d7e:02b6:a180:77d4:5c29:e83b")).toBe("9F3A 11C8 4D7E 02B6 A180 77D4 5C29 E83B");
  });
});

describe("the household", () => {
  const device = (change: Partial<Device>): Device => ({ id: "d", name: "Phone", person: "Phone", personId: "p", platform: "iPhone", admin: false, createdAt: at(0), current: false, ...change });
  const computer = device({ id: "owner", name: "This machine", person: "Owner", personId: "owner", platform: "server", admin: true });
  const shape = (devices: Device[]) => households(devices).map((group) => [group.person?.name, group.devices.map(({ id }) => id)]);

  test("people with a name of their own come first, the computer last", () => {
    const anna = { person: "Anna", personId: "a" };
    const list = [computer, device({ id: "alone", name: "Pixel 8", person: "Pixel 8", personId: "x" }), device({ id: "phone", name: "iPhone", ...anna }), device({ id: "pad", name: "iPad", createdAt: at(-1), ...anna })];
    expect(shape(list)).toEqual([["Anna", ["pad", "phone"]], [undefined, ["alone", "owner"]]]);
  });

  test("one who is nothing but their one device needs no heading, the owner's browser does", () => {
    expect(shape([computer, device({ id: "one" })])).toEqual([[undefined, ["one", "owner"]]]);
    expect(shape([computer, device({ id: "laptop", name: "Laptop", person: "Owner", personId: "owner" })])).toEqual([["Owner", expect.arrayContaining(["owner", "laptop"])]]);
    expect(shape([])).toEqual([]);
  });

  test("a device watches before it waits", () => {
    const [waits, watches] = [stream({ streamId: "1", status: "converting", device: { id: "d", name: "D" } }), stream({ streamId: "2", watching: [{ id: "d", name: "D" }] })];
    expect(doing({ id: "d" }, [waits, watches])).toEqual({ stream: watches, watches: true });
    expect(doing({ id: "d" }, [waits])).toEqual({ stream: waits, watches: false });
    expect(doing({ id: "other" }, [waits, watches])).toBeUndefined();
  });

  test("was seen now, today, yesterday, or before", () => {
    const noon = new Date(2026, 10, 23, 12).getTime();
    const when = (date: Date) => seen(date.toISOString(), noon).kind;
    expect(seen(undefined, noon).kind).toBe("never");
    expect(when(new Date(noon - 30_000))).toBe("now");
    expect(when(new Date(2026, 10, 23, 0, 1))).toBe("today");
    expect(when(new Date(2026, 10, 22, 0, 1))).toBe("yesterday");
    expect(when(new Date(2026, 10, 21, 23, 59))).toBe("before");
  });

  test.each([["iPad", "tablet"], ["Android tablet", "tablet"], ["iPhone", "phone"], ["Android phone", "phone"], ["Windows", "computer"], ["server", "computer"], ["", "phone"]])("%s is drawn as a %s", (platform, sign) => {
    expect(signOf(platform)).toBe(sign);
  });
});

test("a setting's own value stands among the offered ones, and nothing that is nearly it", () => {
  expect(withPresent(COUNT, 3, 3)).toEqual(COUNT);
  expect(withPresent(COUNT, 5, 3)).toEqual([1, 2, 3, 4, 5, 6, 8, 12, 16]);
  expect(withPresent(SPACE, 21_474_836_480, 21_474_836_480)).toEqual([5e9, 1e10, 21_474_836_480, 5e10, 1e11, 2e11, 5e11, 1e12]);
  expect(withPresent(KEEP, null)).toEqual(KEEP);
});

test("findings: what is broken first, each in the server's order", () => {
  const list = [{ level: "good", n: 1 }, { level: "note", n: 2 }, { level: "broken", n: 3 }, { level: "good", n: 4 }, { level: "broken", n: 5 }] as const;
  expect(sorted(list).map(({ n }) => n)).toEqual([3, 5, 2, 1, 4]);
  expect(tally(list)).toEqual({ broken: 2, note: 1, good: 2 });
});
