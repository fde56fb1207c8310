import { describe, expect, it, vi } from "vitest";
import { kindOf } from "../src/lib/device";
import { bytes, duration, place } from "../src/lib/format";
import { magnetIn } from "../src/lib/shared";

// Node 20 has none, and the module looks at it once.
vi.hoisted(() => Object.assign(globalThis, { navigator: globalThis.navigator ?? { userAgent: "", maxTouchPoints: 0 } }));

describe("a magnet link in a text", () => {
  it.each([
    ["magnet:?xt=urn:btih:abc", "magnet:?xt=urn:btih:abc"],
    ["Sintel\nmagnet:?xt=urn:btih:abc&dn=S", "magnet:?xt=urn:btih:abc&dn=S"],
    ["<MAGNET:?xt=urn:btih:abc>", "MAGNET:?xt=urn:btih:abc"],
    [" 08ada5a7a6183aae1e09d831df6748d566095a10 ", "08ada5a7a6183aae1e09d831df6748d566095a10"],
    ["https://example.org/film.torrent", undefined],
    ["", undefined],
  ])("%j: %j", (text, magnet) => expect(magnetIn(text)).toBe(magnet));
});

describe("numbers", () => {
  it.each([[0, "0\u00a0B"], [999, "999\u00a0B"], [999_600, "1\u00a0MB"], [1_250_000, "1.3\u00a0MB"], [12_600_000, "13\u00a0MB"], [4_100_000_000, "4.1\u00a0GB"]])("%s bytes", (value, text) => expect(bytes(value)).toBe(text));
  it.each([[0, "0\u00a0s"], [89, "89\u00a0s"], [90, "2\u00a0min"], [3600, "60\u00a0min"], [7260, "2\u00a0h 1\u00a0min"], [7200, "2\u00a0h"]])("%s s long", (value, text) => expect(duration(value)).toBe(text));
  it.each([[0, "0:00"], [373.9, "6:13"], [3723, "1:02:03"], [-1, "0:00"]])("%s s into a film", (value, text) => expect(place(value)).toBe(text));
});

describe("what a device is", () => {
  const android = (inner: string) => `Mozilla/5.0 (Linux; ${inner}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36`;
  it.each([
    [android("Android 15; Pixel 8"), false, "Pixel 8", "phone"],
    [android("Android 10; K"), false, "Android phone", "phone"],
    ["Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)", true, "iPhone", "phone"],
    ["Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", true, "iPad", "tablet"],
    ["Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", false, "Mac", "computer"],
    ["Mozilla/5.0 (X11; Linux x86_64)", false, "Linux computer", "computer"],
  ])("%s", (agent, touch, name, word) => expect(kindOf(agent, touch)).toMatchObject({ name, word }));
});
