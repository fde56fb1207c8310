// The catalogues of a language are laid over each other: no page may take a word from another by accident.
import { describe, expect, test } from "vitest";

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
