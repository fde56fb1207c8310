// The example page in a browser, against the mock: pairs by a typed code, plays, says what goes on, and stops.

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { afterAll, beforeAll, describe, expect, it } from "vitest";

import * as browsers from "../../../../tests/phone/chromium.js";
import { type Real, startReal } from "./real.js";

const home = fileURLToPath(new URL("../../", import.meta.url));
const PAGE_WITHIN = { timeout: 20_000 };

describe("the example page", () => {
  let server: Real;
  let site: ChildProcess;
  let address: string;
  let browser: Awaited<ReturnType<typeof browsers.open>>;

  beforeAll(async () => {
    await promisify(execFile)("npm", ["run", "--silent", "build"], { cwd: home });
    site = spawn(process.execPath, [fileURLToPath(new URL("../../examples/serve.js", import.meta.url)), "0"], { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = (await once(site.stdout as NodeJS.ReadableStream, "data")) as [Buffer];
    address = String(line).trim();
    server = await startReal("--mock", "--mock-speed", "10", "--cors-origin", address);
    browser = await browsers.open();
  }, 240_000);
  afterAll(async () => {
    await browser?.close();
    site?.kill();
    expect(await server.end(), server.log()).toBe(0);
  });

  it("pairs, plays and stops", async () => {
    const page = await browser.newPage();
    const mistakes: string[] = [];
    const asked: string[] = [];
    page.on("pageerror", (error) => mistakes.push(String(error)));
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(address);
    const { code } = await server.owner.call("post", "/api/pairings", { body: {} });
    await page.locator("#server").fill(server.base);
    await page.locator("#code").fill("WRONGONE");
    await page.locator("#pairing button").click();
    await page.locator("#message").filter({ hasText: /\w/ }).waitFor(PAGE_WITHIN);
    await page.locator("#code").fill(code);
    await page.locator("#pairing button").click();
    await page.getByText("Live.").waitFor(PAGE_WITHIN);
    await page.locator("#magnet").fill(`magnet:?xt=urn:btih:${"1".repeat(40)}&dn=Film`);
    await page.getByRole("button", { name: "Play" }).click();
    await page.locator("#streams li").first().waitFor(PAGE_WITHIN);
    await page.waitForFunction(() => (document.querySelector("video")?.currentTime ?? 0) > 1, undefined, PAGE_WITHIN);
    expect(await page.locator("#streams li").first().textContent()).toContain("ready");
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByText("Stream resources released").waitFor(PAGE_WITHIN);
    await page.locator("#streams li").first().waitFor({ state: "detached", ...PAGE_WITHIN });
    // Still paired after a reload.
    await page.reload();
    await page.getByText("Live.").waitFor(PAGE_WITHIN);
    const token = await page.evaluate(() => (JSON.parse(localStorage.getItem("balcony.example") ?? "{}") as { token: string }).token);
    expect(token.length).toBeGreaterThan(40);
    expect(asked.filter((url) => url.includes(token))).toEqual([]);
    expect(mistakes).toEqual([]);
  }, 90_000);
});
