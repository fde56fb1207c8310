// The catalogues of a language are laid over each other: no page may take a word from another by accident.
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { findings } from "../src/lib/words/de/server";

const languages = ["en", "de"];
const parts = ["common", "desk", "phone", "player"];

describe.each(languages)("%s", (language) => {
  test("no word stands in two catalogues", async () => {
    const owners = new Map<string, string[]>();
    for (const part of parts) {
      const { say } = (await import(`../src/lib/words/${language}/${part}.ts`)) as { say: Record<string, unknown> };
      for (const key of Object.keys(say)) owners.set(key, [...(owners.get(key) ?? []), part]);
    }
    expect([...owners].filter(([, where]) => where.length > 1)).toEqual([]);
    expect(owners.size).toBeGreaterThan(100);
  });

  test("no sentence waits with three dots, begs or shouts", async () => {
    for (const part of parts) {
      const { say } = (await import(`../src/lib/words/${language}/${part}.ts`)) as { say: Record<string, unknown> };
      for (const [key, text] of Object.entries(say)) if (typeof text === "string") expect(text, key).not.toMatch(/!|\.\.\.|…$|\bplease\b|\boops\b/i);
    }
  });
});

const doctor = new URL("../../crates/server/src/doctor/words.rs", import.meta.url);

test.skipIf(!existsSync(doctor))("each sentence of the doctor is said in German, with all that stands in it", () => {
  const sentences = [...readFileSync(doctor, "utf8").matchAll(/\(\s*"([a-z_]+)",\s*"((?:[^"\\]|\\.)*)",?\s*\)/g)].map(([, key = "", sentence = ""]) => ({ key, sentence }));
  expect(sentences.length).toBeGreaterThan(50);
  for (const { key, sentence } of sentences) {
    const told = new Set<string>();
    const tell = (name: string) => (told.add(name), "…");
    const said = findings[key];
    expect(said, key).toBeDefined();
    if (typeof said === "function") said({ n: (name) => (told.add(name), 2), t: tell, bytes: tell, speed: tell, duration: tell, percent: tell, whole: tell });
    // Flags that a page cannot set and the kind of a folder whose path is told may stay unsaid; nothing may be invented.
    const known = new Set([...sentence.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name));
    expect([...told].filter((name) => !known.has(name)), key).toEqual([]);
    expect([...known].filter((name) => !told.has(name) && name !== "folder"), key).toEqual([]);
  }
});
