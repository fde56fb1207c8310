// The reader of event streams, by the HTML standard's rules, with chunks cut at every place.

import { describe, expect, it } from "vitest";

import { EventParser, type ServerEvent } from "../src/sse.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function read(...chunks: Uint8Array[]): ServerEvent[] {
  const parser = new EventParser();
  return chunks.flatMap((chunk) => parser.push(chunk));
}

const message = (data: string, type = "message"): ServerEvent => ({ type, data });

const CASES: [name: string, text: string, expected: ServerEvent[]][] = [
  ["a plain event", "data: one\n\n", [message("one")]],
  ["a named event", "event: stream\ndata: {}\n\n", [message("{}", "stream")]],
  ["the name is forgotten after the event", "event: a\ndata: 1\n\ndata: 2\n\n", [message("1", "a"), message("2")]],
  ["the name is forgotten without data too", "event: a\n\ndata: 2\n\n", [message("2")]],
  ["several lines of data", "data: one\ndata: two\ndata:\ndata: four\n\n", [message("one\ntwo\n\nfour")]],
  ["an empty line of data is an event", "data\n\n", [message("")]],
  ["comments", ": hello\n\n:\ndata: 1\n: in between\ndata: 2\n\n", [message("1\n2")]],
  ["only one blank is dropped", "data:  two\ndata:none\n\n", [message(" two\nnone")]],
  ["a colon in the data", "data: a: b\n\n", [message("a: b")]],
  ["CRLF", "event: x\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", [message("1", "x"), message("2")]],
  ["CR alone", "data: 1\r\rdata: 2\r\r", [message("1"), message("2")]],
  ["all ends of line together", "data: 1\r\ndata: 2\rdata: 3\n\r\n", [message("1\n2\n3")]],
  ["fields that mean nothing here", "id: 7\nretry: 10\nnonsense\nData: x\ndata : x\ndata: 1\n\n", [message("1")]],
  ["a byte order mark", "\uFEFFdata: 1\n\n", [message("1")]],
  ["a byte order mark later is text", "data: 1\n\n\uFEFFdata: 2\n\n", [message("1")]],
  ["letters of more than one byte", "data: Prüfung 🎬\n\n", [message("Prüfung 🎬")]],
  ["an event that has not ended", "data: 1\n\ndata: 2\n", [message("1")]],
];

describe("an event stream", () => {
  it.each(CASES)("%s", (_, text, expected) => {
    expect(read(bytes(text))).toEqual(expected);
  });

  it.each(CASES)("%s, cut anywhere", (_, text, expected) => {
    const all = bytes(text);
    for (let at = 0; at <= all.length; at++) expect(read(all.slice(0, at), all.slice(at)), `at ${at}`).toEqual(expected);
    expect(read(...Array.from(all, (byte) => Uint8Array.of(byte)))).toEqual(expected);
  });

  it("has no event without an end", () => {
    const parser = new EventParser();
    const chunk = bytes("x".repeat(1024 * 1024));
    expect(() => {
      for (let at = 0; at < 10; at++) parser.push(chunk);
    }).toThrow(RangeError);
  });

  it("has no event of lines without an end", () => {
    const parser = new EventParser();
    const chunk = bytes(`data: ${"x".repeat(1024 * 1024)}\n`);
    expect(() => {
      for (let at = 0; at < 10; at++) parser.push(chunk);
    }).toThrow(RangeError);
  });
});
