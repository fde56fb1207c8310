import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { words as de } from "../src/lib/words/de";
import { words as en } from "../src/lib/words/en";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

describe.each([["English", en], ["German", de]])("%s", (_, words) => {
  it("has words for every state that the server can be in", () => {
    const snapshot = read("crates/server/src/stream/snapshots/balcony_server__stream__view__tests__every_wait_has_its_words.snap");
    // Each line: Status/Phase progress eta key: message.
    const keys = new Set([...snapshot.matchAll(/^\w+\/\w+ \d+ % \S+ (\w+): /gm)].map((found) => found[1] ?? ""));
    expect(keys.size).toBeGreaterThan(12);
    keys.delete("failed");
    expect([...keys].filter((key) => !(key in words.messages))).toEqual([]);
  });

  it("has a title for every failure of a film", () => {
    const source = read("crates/server/src/stream/state.rs");
    const codes = [...source.matchAll(/Self::\w+ => "(\w+)",/g)].map((found) => found[1] ?? "");
    expect(codes).toContain("no_peers");
    expect(codes.filter((code) => !(code in words.failures))).toEqual([]);
  });

  it("keeps to the rules of the house", () => {
    const told = new Proxy({}, { get: (_, name) => (name === "then" ? undefined : () => 3) });
    const given = new Proxy({}, { get: () => 3 });
    const texts = [...Object.values(words.say).map((text) => (typeof text === "string" ? text : (text as (given: unknown) => string)(given))), ...Object.values(words.messages).map((text) => (typeof text === "string" ? text : text(told as never)))];
    expect(texts.filter((text) => /!|…|\.\.\.|\b(please|oops|successfully|bitte|erfolgreich)\b/i.test(text))).toEqual([]);
  });
});
