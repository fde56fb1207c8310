// The player's decisions: places, keys, ways to come, links, pictures for the bar.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { boxOf, methodsOf, qualitiesBelow, rowsOf, sourceOf, waysOf } from "../src/player/choices";
import { actOf, nextSpeed } from "../src/player/keys";
import { infuse, intent, playlistFile, systemOf, vlc } from "../src/player/links";
import { PatientRequests, waitAfter, type Late } from "../src/player/patient";
import { beginAt, hereUntil, inside, parts, union } from "../src/player/place";
import { imagePlaylist, previewAt, sheets } from "../src/player/previews";

describe("where a film goes on", () => {
  it.each([
    ["at the beginning", 0, 7200, 0],
    ["not after the first breath", 4, 7200, 0],
    ["in the middle", 3600, 7200, 3600],
    ["before the last 5 %", 6800, 7200, 6800],
    ["not in the last 5 %", 6900, 7200, 0],
    ["not in the last 30 s of a short one", 275, 300, 0],
    ["before them", 265, 300, 265],
    ["in the sample film", 40, 60, 40],
    ["not at its end", 50, 60, 0],
    ["where the length is not known", 50, undefined, 50],
    ["not at no number", Number.NaN, 60, 0],
  ])("%s", (_, position, duration, begins) => expect(beginAt(position, duration)).toBe(begins));

  it("keeps jumps inside", () => {
    expect([inside(-3, 60), inside(30, 60), inside(99, 60), inside(99, 0), inside(99, Infinity)]).toEqual([0, 30, 59.5, 99, 99]);
  });

  it("speaks of parts", () => {
    expect(parts(3725.9)).toEqual({ hours: 1, minutes: 2, seconds: 5 });
    expect(parts(Number.NaN)).toEqual({ hours: 0, minutes: 0, seconds: 0 });
  });

  it("joins ranges", () => {
    expect(union([[10, 20], [0, 5], [4, 8], [20.1, 30], [50, 50]])).toEqual([[0, 8], [10, 30]]);
    expect(hereUntil([[0, 8], [10, 30]], 12)).toBe(30);
    expect(hereUntil([[0, 8], [10, 30]], 9)).toBe(9);
  });
});

describe("keys", () => {
  const key = (key: string, more = {}) => actOf({ key, altKey: false, ctrlKey: false, metaKey: false, shiftKey: false, ...more });
  it.each([
    [" ", { act: "toggle" }], ["k", { act: "toggle" }], ["K", { act: "toggle" }], ["j", { act: "skip", by: -10 }], ["l", { act: "skip", by: 10 }],
    ["ArrowLeft", { act: "skip", by: -5 }], ["ArrowUp", { act: "volume", by: 0.05 }], ["0", { act: "part", of: 0 }], ["7", { act: "part", of: 0.7 }],
    ["f", { act: "fullscreen" }], ["m", { act: "mute" }], ["c", { act: "subtitles" }], [">", { act: "speed", by: 1 }],
    ["x", undefined], ["Tab", undefined], ["constructor", undefined],
  ])("%s", (name, act) => expect(key(name)).toEqual(act));

  it("leaves the browser's own alone", () => expect([key("f", { ctrlKey: true }), key("ArrowLeft", { altKey: true }), key("0", { metaKey: true })]).toEqual([undefined, undefined, undefined]));

  it("steps through the speeds and stops at their ends", () => {
    expect([nextSpeed(1, 1), nextSpeed(1, -1), nextSpeed(2, 1), nextSpeed(0.5, -1), nextSpeed(16, -1)]).toEqual([1.25, 0.75, 2, 0.5, 1.75]);
  });
});

describe("ways to come", () => {
  const hls = "https://h/m/t/master.m3u8";
  const dash = "https://h/m/t/manifest.mpd";
  const direct = "https://h/m/t/file/A%20film.mkv";
  const most = { nativeHls: false, dash: true };
  const window = { nativeHls: false, dash: false };

  it("offers what there is", () => {
    expect(methodsOf({ streamUrl: hls, directUrl: direct }, most)).toEqual(["auto", "hls", "original"]);
    expect(methodsOf({ streamUrl: hls, dashUrl: dash, directUrl: direct }, most)).toEqual(["auto", "hls", "dash", "original"]);
    expect(methodsOf({ streamUrl: direct, directUrl: direct }, most)).toEqual(["auto", "hls", "original"]);
    expect(methodsOf({ streamUrl: hls, dashUrl: dash, directUrl: direct }, window)).toEqual(["auto", "hls", "original"]);
    expect(sourceOf({ streamUrl: hls, dashUrl: dash }, "dash", window)).toMatchObject({ url: hls, method: "hls" });
    expect(sourceOf({ streamUrl: dash, dashUrl: dash, directUrl: direct }, "auto", window)).toMatchObject({ url: direct, method: "original" });
  });

  it.each([
    ["auto", { streamUrl: hls, directUrl: direct }, { url: hls, method: "hls" }],
    ["original", { streamUrl: hls, directUrl: direct }, { url: direct, method: "original", type: "video/x-matroska", native: true }],
    ["dash", { streamUrl: hls, dashUrl: dash }, { url: dash, method: "dash", type: "application/dash+xml" }],
    ["dash", { streamUrl: hls }, { url: hls, method: "hls" }],
    ["auto", { streamUrl: direct, directUrl: direct }, { url: direct, method: "original" }],
    ["hls", { streamUrl: direct, directUrl: direct }, undefined],
    ["auto", {}, undefined],
  ] as const)("%s", (method, stream, source) => {
    const found = sourceOf(stream, method, most);
    if (source) expect(found).toMatchObject(source);
    else expect(found).toBeUndefined();
  });

  it.each([
    ["an iPhone", { vendor: "Apple Computer, Inc.", platform: "iPhone", hasMediaSource: true, canPlay: true }, { nativeHls: true, dash: true }],
    ["Safari", { vendor: "Apple Computer, Inc.", platform: "MacIntel", hasMediaSource: true, canPlay: true }, { nativeHls: true, dash: true }],
    ["WebKitGTK, whose own HLS fails", { vendor: "Apple Computer, Inc.", platform: "Linux x86_64", hasMediaSource: true, canPlay: true }, { nativeHls: false, dash: false }],
    ["Chromium", { vendor: "Google Inc.", platform: "Linux armv8l", hasMediaSource: true, canPlay: true }, { nativeHls: false, dash: true }],
    ["an old phone without Media Source Extensions", { vendor: "", platform: "Linux", hasMediaSource: false, canPlay: true }, { nativeHls: true, dash: true }],
    ["Firefox", { vendor: "", platform: "Win32", hasMediaSource: true, canPlay: false }, { nativeHls: false, dash: true }],
  ])("knows the ways to %s", (_, browser, ways) => expect(waysOf(browser)).toEqual(ways));

  it("calls pictures by their box", () => {
    expect([boxOf(1920, 1080), boxOf(1920, 800), boxOf(854, 480), boxOf(640, 480), boxOf(1280, 720), boxOf(7680, 4320), boxOf(320, 136)]).toEqual([1080, 1080, 480, 480, 720, 2160, 360]);
    expect(qualitiesBelow({ width: 1280, height: 720 })).toEqual(["480p", "360p"]);
    expect(qualitiesBelow(undefined)).toHaveLength(6);
    expect([rowsOf("720p"), rowsOf("auto"), rowsOf("source")]).toEqual([720, undefined, undefined]);
  });
});

describe("other players", () => {
  const url = "https://192.168.1.20:3443/m/abc/file/A%20film%20(1).mkv";

  it.each([
    ["ios", { userAgent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)", platform: "iPhone", touches: 5 }],
    ["ios", { userAgent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", platform: "MacIntel", touches: 5 }],
    ["desktop", { userAgent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", platform: "MacIntel", touches: 0 }],
    ["android", { userAgent: "Mozilla/5.0 (Linux; Android 15; Pixel 8)", platform: "Linux armv8l", touches: 5 }],
    ["desktop", { userAgent: "Mozilla/5.0 (X11; Linux x86_64)", platform: "Linux x86_64", touches: 0 }],
  ])("%s", (system, device) => expect(systemOf(device)).toBe(system));

  it("are opened by their addresses", () => {
    expect(vlc(url, "ios")).toBe(`vlc-x-callback://x-callback-url/stream?url=${encodeURIComponent(url)}`);
    expect(infuse(url)).toBe(`infuse://x-callback-url/play?url=${encodeURIComponent(url)}`);
    expect(vlc(url, "android")).toBe("intent://192.168.1.20:3443/m/abc/file/A%20film%20(1).mkv#Intent;scheme=https;action=android.intent.action.VIEW;type=video/*;package=org.videolan.vlc;end");
    expect(intent(url, "A; film")).toContain(";S.title=A%3B%20film;end");
    expect(playlistFile(url)).toBe("https://192.168.1.20:3443/m/abc/file/play.m3u");
  });
});

describe("pictures for the bar", () => {
  const master = '#EXTM3U\n#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=1,RESOLUTION=640x360,URI="big.m3u8"\n#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=1,RESOLUTION=320x180,CODECS="jpeg",URI="i/small.m3u8"\n';
  const list = "#EXTM3U\n#EXT-X-IMAGES-ONLY\n#EXT-X-TILES:RESOLUTION=320x180,LAYOUT=5x2,DURATION=6\n#EXTINF:60,\n0.jpg\n#EXT-X-TILES:RESOLUTION=320x180,LAYOUT=5x2,DURATION=6\n#EXTINF:30,\n1.jpg\n#EXT-X-ENDLIST\n";

  it("are found, or not", () => {
    expect(imagePlaylist(master, "https://h/m/t/master.m3u8")).toBe("https://h/m/t/i/small.m3u8");
    expect(imagePlaylist("#EXTM3U\n", "https://h/master.m3u8")).toBeUndefined();
    expect(sheets("#EXTM3U\n#EXT-X-TILES:RESOLUTION=x,LAYOUT=0x0\n#EXTINF:nothing\n0.jpg\n", "https://h/")).toEqual([]);
  });

  it("are cut out of their sheet", () => {
    const all = sheets(list, "https://h/i/small.m3u8");
    expect(previewAt(all, 0)).toEqual({ url: "https://h/i/0.jpg", width: 176, height: 99, x: 0, y: 0, sheetWidth: 880, sheetHeight: 198 });
    expect(previewAt(all, 43)).toMatchObject({ url: "https://h/i/0.jpg", x: 2 * 176, y: 99 });
    expect(previewAt(all, 61)).toMatchObject({ url: "https://h/i/1.jpg", x: 0, y: 0 });
    expect(previewAt(all, 90)).toBeUndefined();
  });
});

describe("requests that do not give up", () => {
  /** Answers one after the other: a status, and what comes with it; `0` is a broken line, `undefined` silence. */
  class Server extends EventTarget {
    static answers: ([status: number, body?: string, retryAfter?: string] | undefined)[] = [];
    static asked = 0;
    static readonly HEADERS_RECEIVED = 2;
    status = 0;
    readyState = 0;
    responseType = "";
    responseText = "";
    withCredentials = false;
    #retryAfter: string | null = null;
    open(): void { this.status = 0; }
    setRequestHeader(): void {}
    getResponseHeader(): string | null { return this.#retryAfter; }
    getAllResponseHeaders(): string { return "Content-Type: video/mp4\r\n"; }
    abort(): void {}
    send(): void {
      Server.asked += 1;
      const answer = Server.answers.shift();
      if (!answer) return;
      queueMicrotask(() => {
        [this.status, this.responseText, this.#retryAfter] = [answer[0], answer[1] ?? "", answer[2] ?? null];
        this.dispatchEvent(new Event(answer[0] === 0 ? "error" : "load"));
      });
    }
  }

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("XMLHttpRequest", Server);
    Server.asked = 0;
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  function ask(answers: typeof Server.answers) {
    Server.answers = answers;
    const told: (Late | undefined)[] = [];
    const got: number[] = [];
    const requests = new PatientRequests((late) => told.push(late));
    const request = requests.send({ uri: "/m/t/v0/1.m4s" }, (_, answer) => got.push(answer.statusCode as number));
    return { told, got, requests, request };
  }

  it("wait as long as they are told, and longer each time otherwise", () => {
    expect([waitAfter(0, "2"), waitAfter(5, "0"), waitAfter(3, "900")]).toEqual([2000, 250, 8000]);
    expect([waitAfter(0, null, 0.5), waitAfter(2, null, 0.5), waitAfter(30, null, 0.5)]).toEqual([300, 1200, 4000]);
  });

  it("bear a late segment and a server that is gone, and say so", async () => {
    const late = JSON.stringify({ code: "segment_late", detail: "The encoder is behind." });
    const { told, got } = ask([[503, late, "1"], [0], [0], [200, "bytes"]]);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(got).toEqual([200]);
    expect(Server.asked).toBe(4);
    expect(told).toEqual([{ status: 503, code: "segment_late", detail: "The encoder is behind." }, { status: 0, code: undefined, detail: undefined }, { status: 0, code: undefined, detail: undefined }, undefined]);
  });

  it("try again when nothing comes for long", async () => {
    const { got } = ask([undefined, [200]]);
    await vi.advanceTimersByTimeAsync(19_000);
    expect(got).toEqual([]);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(got).toEqual([200]);
  });

  it("hand on at once what will never come", async () => {
    const { told, got } = ask([[404]]);
    await vi.advanceTimersByTimeAsync(0);
    expect([got, told]).toEqual([[404], []]);
  });

  it("hurry when the server is back", async () => {
    const { got, requests } = ask([[503, "", "8"], [200]]);
    await vi.advanceTimersByTimeAsync(10);
    requests.hurry();
    await vi.advanceTimersByTimeAsync(0);
    expect(got).toEqual([200]);
  });

  it("end for good when they are called off", async () => {
    const { told, got, request, requests } = ask([[0], [200]]);
    await vi.advanceTimersByTimeAsync(10);
    request.abort();
    requests.hurry();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([got, Server.asked, told.at(-1)]).toEqual([[], 1, undefined]);
  });
});
