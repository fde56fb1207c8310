// Subtitles of any file become cues, and no file becomes markup.
import { describe, expect, it } from "vitest";
import { cuesOf, cueText, decode, shownAt, type Cue } from "../src/player/subtitles";

const plain = (cue: Cue) => cue.lines.map((line) => line.map(({ text }) => text).join("")).join("|");
const brief = (text: string) => cuesOf(text).map((cue) => [cue.start, cue.end, plain(cue)]);

describe("reading", () => {
  it("reads SubRip", () => {
    expect(brief("1\r\n00:00:01,500 --> 00:00:03,000\r\nHello\r\nthere\r\n\r\n2\r\n00:01:00,000 --> 00:01:02,250 X1:1\r\nAgain\r\n")).toEqual([[1.5, 3, "Hello|there"], [60, 62.25, "Again"]]);
  });

  it("reads WebVTT with its header, notes, styles, identifiers and settings", () => {
    const text = "\ufeffWEBVTT - title\nX: y\n\nNOTE 00:00 --> 00:09 is not one\n\nSTYLE\n::cue { color: red }\n\nintro\n00:01.000 --> 00:02.000 line:0 align:start\n<v Ann>Hi &amp; <b>bye</b></v>\n\n01:00:00.000 --> 01:00:01.000\nLate <00:30.000>word\n";
    expect(brief(text)).toEqual([[1, 2, "Hi & bye"], [3600, 3601, "Late word"]]);
    expect(cuesOf(text).map(({ top }) => top)).toEqual([true, false]);
  });

  it("reads Advanced SubStation Alpha, and leaves drawings out", () => {
    const text = "[Script Info]\nTitle: x\n[V4+ Styles]\nFormat: Name\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\nDialogue: 0,0:00:05.00,0:00:07.50,D,,0,0,0,,{\\an8\\i1}Up{\\i0}, there\\Nsecond\nDialogue: 0,0:00:01.00,0:00:02.00,D,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}\nComment: 0,0:00:01.00,0:00:02.00,D,,0,0,0,,no\n";
    const [cue] = cuesOf(text);
    expect(brief(text)).toEqual([[5, 7.5, "Up, there|second"]]);
    expect(cue?.top).toBe(true);
    expect(cue?.lines[0]?.map(({ text, italic }) => [text, italic])).toEqual([["Up", true], [", there", false]]);
  });

  it("keeps what only looks like marks", () => {
    expect(brief("1\n00:00:01,000 --> 00:00:02,000\n2 < 3 & 4 > 1 {really} &foo; <3\n")).toEqual([[1, 2, "2 < 3 & 4 > 1 {really} &foo; <3"]]);
  });

  it.each([
    ["nothing", ""],
    ["a letter", "Dear Anna,\n\nall is well.\n"],
    ["bytes", "\0\u0001\ufffd".repeat(100)],
    ["arrows alone", "--> \n\n --> -->\n"],
    ["times that end before they begin", "1\n00:00:05,000 --> 00:00:02,000\nno\n"],
    ["times of no clock", "1\n99999:99:99,000 --> 0:0\nno\n"],
    ["columns that are not there", "[Events]\nFormat: Text\nDialogue: a,b,c\n"],
  ])("makes nothing of %s", (_, text) => expect(cuesOf(text)).toEqual([]));

  it("bears long and deep nonsense quickly", () => {
    const began = performance.now();
    cuesOf("1\n00:00:01,000 --> 00:00:02,000\n" + "<i>{\\i1&amp;".repeat(100_000));
    cuesOf("0:00:01.0 --> 0:00:02.0\nx\n\n".repeat(60_000));
    expect(performance.now() - began).toBeLessThan(4000);
  });
});

describe("charsets", () => {
  const bytes = (...values: number[]) => decode(new Uint8Array(values));
  it.each([
    ["UTF-8", bytes(0xc3, 0xbc), "ü"],
    ["UTF-8 with its mark", bytes(0xef, 0xbb, 0xbf, 0xc3, 0xbc), "ü"],
    ["windows-1252", bytes(0x47, 0x72, 0xfc, 0xdf, 0x65), "Grüße"],
    ["UTF-16, little end first", bytes(0xff, 0xfe, 0xfc, 0x00), "ü"],
    ["UTF-16, big end first", bytes(0xfe, 0xff, 0x00, 0xfc), "ü"],
  ])("%s", (_, text, expected) => expect(text).toBe(expected));
});

describe("showing", () => {
  const cues = cuesOf("1\n00:00:01,000 --> 00:00:09,000\nlong\n\n2\n00:00:02,000 --> 00:00:03,000\nshort\n\n3\n00:00:09,000 --> 00:00:10,000\nlast\n");

  it.each([[0.9, []], [1, ["long"]], [2.5, ["long", "short"]], [3, ["long"]], [9, ["last"]], [10, []]])("at %s s", (time, texts) => {
    expect(shownAt(cues, time).map(plain)).toEqual(texts);
  });

  it("writes their text in WebVTT's marks, and nothing of it is markup", () => {
    const made = cuesOf("1\n01:00:01,250 --> 01:00:02,000\n<i>1 < 2</i> & <script>alert(1)</script>\nend\n");
    expect(made.map(cueText)).toEqual(["<i>1 &lt; 2</i> &amp; alert(1)\nend"]);
  });
});
