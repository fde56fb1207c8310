// What a phone loads before it shows its home: by the built files, compressed as they are sent.
import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";

const dist = new URL("../dist/", import.meta.url);
const size = (path: string) => gzipSync(readFileSync(new URL(path, dist))).length;
const page = readFileSync(new URL("index.html", dist), "utf8");

/** The page, what it names, and what that imports before anything is drawn; of the languages, the largest. */
function firstLoad(): string[] {
  const seen = new Set<string>();
  const visit = (path: string) => {
    if (seen.has(path)) return;
    seen.add(path);
    if (!path.endsWith(".js")) return;
    const text = readFileSync(new URL(path, dist), "utf8");
    for (const found of text.matchAll(/(?:import|from)\s*["']\.\/([^"']+\.js)["']/g)) visit(`assets/${found[1]}`);
  };
  for (const found of page.matchAll(/(?:src|href)="\.\/(assets\/[^"]+)"/g)) visit(found[1] ?? "");
  const languages = readdirSync(new URL("assets/", dist)).filter((name) => /^(en|de)-.*\.js$/.test(name)).map((name) => `assets/${name}`);
  expect(languages.length).toBeGreaterThanOrEqual(2);
  visit(languages.sort((a, b) => size(b) - size(a))[0] ?? "");
  return [...seen];
}

describe("the first load on a phone", () => {
  it("is at most 90 kB, without the player", () => {
    const files = firstLoad();
    const total = size("index.html") + files.reduce((sum, file) => sum + size(file), 0);
    console.info(`first load: ${(total / 1000).toFixed(1)} kB gzip in ${files.length + 1} files`);
    expect(files.length).toBeGreaterThan(2);
    expect(files.join(" ")).not.toMatch(/Player|video/i);
    expect(total).toBeLessThanOrEqual(90_000);
  });

  it("brings no style of its own into an element: the policy forbids it", () => {
    for (const name of readdirSync(new URL("assets/", dist)).filter((name) => name.endsWith(".js") && !/video/.test(name))) {
      expect(readFileSync(new URL(`assets/${name}`, dist), "utf8"), name).not.toMatch(/<[a-z][^<>]* style=["'][^"']/);
    }
  });
});
