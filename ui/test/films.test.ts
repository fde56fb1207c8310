import { describe, expect, it } from "vitest";
import { baseName, choices, commonBeginning, isUnfinished } from "../src/lib/films";

describe("the common beginning of names", () => {
  it.each([
    [["Show.S01E01.mkv", "Show.S01E02.mkv"], "Show."],
    [["Caminandes 1 Llama.mp4", "Caminandes 2 Gran.mp4"], "Caminandes "],
    [["Episode 1.mkv", "Episode 12.mkv"], "Episode "],
    [["One.mkv"], ""],
    [["a.mkv", "b.mkv"], ""],
    [["Film.mkv", "Film.mp4"], ""],
    [[], ""],
  ])("%j: %j", (names, beginning) => {
    expect((names[0] ?? "").slice(0, commonBeginning(names))).toBe(beginning);
  });
});

describe("what can be chosen", () => {
  it("is what plays, in the order that people count in", () => {
    const file = (index: number, path: string, playable = true) => ({ index, path, length: 10, playable });
    const found = choices([file(0, "Pack/Show 10.mkv"), file(1, "Pack/readme.txt", false), file(2, "Pack/Show 9.mkv")]);
    expect(found).toEqual([{ index: 2, length: 10, name: "9.mkv" }, { index: 0, length: 10, name: "10.mkv" }]);
  });

  it("is called by its file", () => expect(baseName("a/b/c.mkv")).toBe("c.mkv"));
});

describe("a film to go on with", () => {
  it.each([
    [0, 600, false],
    [9, 600, false],
    [10, 600, true],
    [569, 600, true],
    [571, 600, false],
    // Credits of a long film are more than half a minute.
    [6900, 7200, false],
    [6800, 7200, true],
    [40, undefined, true],
    [40, 0, true],
  ])("at %s of %s: %s", (position, duration, unfinished) => expect(isUnfinished(position, duration)).toBe(unfinished));
});
