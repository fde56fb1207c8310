// The player of the pages, on a phone's screen, with the real server behind it: it plays, jumps, changes sound, quality, subtitles and
// speed, and goes on where it was after the server was killed and came back. Nothing is written into the browser's log meanwhile.
//
// SERVER_UNDER_TEST names the server's program; PAGES_UNDER_TEST may name a folder of built pages (see pages.js).

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import * as balcony from "./balcony.js";
import * as browsers from "./chromium.js";
import { device } from "./pages.js";

const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, locale: "en-GB" };
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
/** What a browser says of a server that is gone. */
const GONE = /ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|SOCKET_NOT_CONNECTED|ABORTED)/;

const ends = [];
let folder, browser, server, magnetLink, said, context, page, stream;

/** What the film does. */
const film = () =>
  page.evaluate(() => {
    const video = document.querySelector("video");
    return video && { time: video.currentTime, duration: video.duration, paused: video.paused, seeking: video.seeking, ready: video.readyState, height: video.videoHeight, rate: video.playbackRate,
      sound: video.webkitAudioDecodedByteCount, pictures: video.getVideoPlaybackQuality().totalVideoFrames, error: video.error?.message };
  });

async function until(what, test, argument, timeout = 20_000) {
  try {
    await page.waitForFunction(test, argument, { timeout, polling: 50 });
  } catch {
    assert.fail(`${what}: ${JSON.stringify(await film())}\n${(await page.locator("body").innerText()).slice(0, 600)}\n${said.join("\n")}\n${server.log().slice(-2000)}`);
  }
}

const reaches = (time, timeout) => until(`the film does not reach ${time} s`, (time) => { const video = document.querySelector("video"); return video && !video.seeking && !video.paused && video.currentTime >= time; }, time, timeout);
const button = (name) => page.getByRole("button", { name, exact: true });

/** Brings the controls back. */
async function wake() {
  await page.mouse.move(195, 200);
  await page.mouse.move(195, 210);
  await until("the controls do not come", () => !document.querySelector(".player.bare"));
}

/** Opens a sheet by its chip, and chooses in it. */
async function choose(chip, choice) {
  await wake();
  await button(chip).click();
  await page.getByRole("dialog").getByRole("button", { name: choice, exact: false }).click();
}

async function jump(part) {
  await wake();
  const { x, y, width, height } = await page.getByRole("slider", { name: "Position" }).boundingBox();
  await page.mouse.click(x + width * part, y + height / 2);
  // The place is taken at once; its picture may take as long as it takes.
  await until(`it does not jump to ${part * 100} %`, (part) => { const { currentTime, duration } = document.querySelector("video"); return Math.abs(currentTime - part * duration) < 5; }, part);
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-player-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  server = await balcony.start(folder);
  ends.push(() => server.end());
  ({ magnetLink } = await server.call("GET", "/api/sample"));
  browser = await browsers.open();
  ends.push(() => browser.close());
  ({ context, said } = await device(browser, server, PHONE));
  stream = await server.stream({ magnetLink });
}, { timeout: 120_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

describe("the player on a phone", () => {
  it("plays with picture and sound", async () => {
    page = await context.newPage();
    await page.addInitScript(() => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    });
    await page.goto(`http://${server.http}/#/stream/${stream.streamId}`);
    await reaches(1);
    const first = await film();
    await reaches(first.time + 1);
    const second = await film();
    assert.ok(second.pictures > first.pictures + 10, `pictures: ${first.pictures} to ${second.pictures}`);
    assert.ok(second.sound > first.sound, `bytes of sound: ${first.sound} to ${second.sound}`);
    assert.ok(Math.abs(second.duration - 60) < 0.2);
  });

  it("names everything that can be pressed", async () => {
    await wake();
    assert.equal(await page.getByRole("region", { name: "Player: Balcony sample" }).count(), 1);
    assert.match(await page.getByRole("slider", { name: "Position" }).getAttribute("aria-valuetext"), /^\d+ seconds? of 1 minute$/);
    for (const name of ["Close the player", "Back 10 seconds", "Pause", "Forward 10 seconds", "More", "Quality: 720p", "Sound: English", "Subtitles: No subtitles", "Speed: 1×", "Full screen"]) {
      const box = await button(name).boundingBox();
      assert.ok(box.width >= 44 && box.height >= 44, `${name} is ${box.width} by ${box.height}`);
    }
  });

  it("hides its controls while it plays, and shows them at a tap", async () => {
    const shown = () => page.locator(".player.bare").count().then((count) => count === 0);
    await page.touchscreen.tap(195, 250);
    await page.mouse.move(195, 250);
    await until("the controls stay", () => document.querySelector(".player.bare"), undefined, 6000);
    await page.touchscreen.tap(195, 250);
    await until("a tap does not show them", () => !document.querySelector(".player.bare"), undefined, 2000);
    await button("Pause").click();
    await page.waitForTimeout(4000);
    assert.ok(await shown(), "they stay while it is paused");
    await button("Play").click();
  });

  for (const part of [0.5, 0.93, 0.2]) {
    it(`jumps to ${part * 100} %`, async () => {
      await jump(part);
      await reaches(60 * part + 0.8);
      const { time } = await film();
      assert.ok(time < 60 * part + 8, `it is at ${time} s`);
    });
  }

  it("skips ten seconds at two taps on a side, and by keys", async () => {
    const before = (await film()).time;
    await page.touchscreen.tap(360, 300);
    await page.touchscreen.tap(360, 300);
    await reaches(before + 9.5);
    assert.ok((await film()).time < before + 16);
    await page.keyboard.press("j");
    await until("j goes back", (time) => document.querySelector("video").currentTime < time, before + 6);
    await page.keyboard.press("5");
    await reaches(30);
    await page.keyboard.press("2");
    await until("2 goes to a fifth", () => document.querySelector("video").currentTime < 20);
  });

  it("speaks another language when it is asked to", async () => {
    await choose(/^Sound:/, /German/);
    const { time, sound } = await film();
    await reaches(time + 2);
    assert.ok((await film()).sound > 0 || sound > 0);
    assert.equal(await button("Sound: German").count(), 1);
  });

  it("plays faster", async () => {
    await choose(/^Speed:/, "1.5×");
    assert.equal((await film()).rate, 1.5);
    await choose(/^Speed:/, "1×");
  });

  it("shows the subtitles of a file in an old charset, later and larger", async () => {
    const path = join(folder, "grüße.srt");
    await writeFile(path, Buffer.from("1\r\n00:00:00,000 --> 00:01:00,000\r\n<i>Gr\xfc\xdfe</i> & <script>x</script>\r\n", "latin1"));
    await wake();
    await button(/^Subtitles:/).click();
    await page.locator("input[type=file]").setInputFiles(path);
    await until("no subtitles are shown", () => document.querySelector(".captions")?.textContent.includes("Grüße"));
    assert.match(await page.locator(".captions").innerText(), /^Grüße & x$/m);
    assert.equal(await page.locator(".captions .italic").innerText(), "Grüße");
    const size = () => page.locator(".captions p").evaluate((text) => Number.parseFloat(getComputedStyle(text).fontSize));
    const medium = await size();
    await wake();
    await button(/^Subtitles:/).click();
    await button("Large").click();
    await button("Half a second later").click();
    assert.equal(await page.locator("dialog output").innerText(), "+0.5\u00a0s");
    await page.keyboard.press("Escape");
    assert.ok((await size()) > medium * 1.2, `from ${medium} to ${await size()}`);
  });

  it("changes the quality where it is, and stops what it left", async () => {
    const before = await film();
    await choose(/^Quality:/, "480p");
    await until("the picture stays as it was", () => document.querySelector("video").videoHeight === 480, undefined, 60_000);
    const after = await film();
    await reaches(after.time + 2);
    assert.ok(after.time >= before.time - 1 && after.time < before.time + 30, `from ${before.time} s to ${after.time} s`);
    await until("the address stays as it was", (id) => !location.hash.includes(id), stream.streamId);
    const { streams } = await server.call("GET", "/api/streams");
    assert.deepEqual(streams.filter(({ status }) => status === "ready").map(({ quality }) => quality), ["480p"]);
    assert.equal(await button("Sound: German").count(), 1, "the language stays");
    await until("the subtitles do not stay", () => document.querySelector(".captions")?.textContent.includes("Grüße"));
  });

  it("plays the original file", async () => {
    const before = (await film()).time;
    await wake();
    await button("More").click();
    await page.getByRole("dialog").getByRole("button", { name: /^How it comes/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: /^Original file/ }).click();
    await until("it is no original", () => document.querySelector("video").currentSrc.includes("/file/") && document.querySelector("video").videoHeight === 720);
    await reaches(before + 1);
    await wake();
    await button("More").click();
    await page.getByRole("dialog").getByRole("button", { name: /^How it comes/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: /^Automatic/ }).click();
    await until("it is no stream", () => document.querySelector("video").currentSrc.startsWith("blob:") && document.querySelector("video").videoHeight === 480);
    await reaches(before + 2);
  });

  it("tells the server where it is", async () => {
    await wake();
    await button("Pause").click();
    const { time } = await film();
    const id = await page.evaluate(() => location.hash.split("/").at(-1));
    await page.waitForTimeout(500);
    const { position } = await server.call("GET", `/api/stream/status/${id}`);
    assert.ok(Math.abs(position - time) < 1.5, `the film is at ${time} s, the server says ${position} s`);
    await button("Play").click();
  });

  it("has nothing that a screen reader stumbles over", async () => {
    await wake();
    await page.evaluate(await readFile(AXE, "utf8"));
    for (const sheet of [undefined, /^Quality:/, /^Subtitles:/, "More"]) {
      if (sheet) await button(sheet).click();
      await page.waitForTimeout(500);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`), [], String(sheet));
      if (sheet) await page.keyboard.press("Escape");
    }
  });

  it("said nothing in the browser's log so far", async () => {
    assert.deepEqual(said, []);
    assert.deepEqual(await page.evaluate(() => window.violations), []);
  });
});

describe("when the server is killed", () => {
  it("plays what is here, waits for the rest, and goes on when the server is back", async () => {
    await jump(0.1);
    await reaches(7);
    const start = await server.cut();
    const cut = (await film()).time;
    await reaches(cut + 2);
    await page.getByText("does not answer").waitFor({ timeout: 15_000 });
    await jump(0.95);
    // On a quick machine the whole of this short film is here already; then there is nothing to wait for.
    const waits = await page.evaluate(() => !Array.from({ length: document.querySelector("video").buffered.length }, (_, n) => n).some((n) => document.querySelector("video").buffered.end(n) > 59));
    if (waits) await page.getByText(/Fetching this part \(\d+\ss\)/).waitFor({ timeout: 15_000 });
    await page.waitForTimeout(2000);
    server = await start();
    if (!waits) await jump(0.5);
    await reaches(waits ? 57.5 : 31, 30_000);
    await page.getByText("does not answer").waitFor({ state: "hidden", timeout: 40_000 });
    assert.deepEqual(said.filter((text) => !GONE.test(text)), []);
    assert.deepEqual(await page.evaluate(() => window.violations), []);
    assert.equal(await page.evaluate(() => performance.getEntriesByType("navigation").length), 1);
  });

  it("is left where it was, and goes on there on another device", async () => {
    await jump(0.4);
    await reaches(25);
    await wake();
    await button("Pause").click();
    const { time } = await film();
    await page.waitForTimeout(500);
    const hash = await page.evaluate(() => location.hash);
    await page.close();
    page = await context.newPage();
    await page.goto(`http://${server.http}/${hash}`);
    await reaches(time);
    assert.ok((await film()).time < time + 5);
  });
});

describe("when the device is revoked while it plays", () => {
  it("stops and says so", async () => {
    const { code } = await server.call("POST", "/api/pairings", {});
    const { token, deviceId } = await server.call("POST", "/api/pair", { code, deviceName: "Pixel 8", platform: "Android 15" });
    const asks = (path, body) => fetch(`http://${server.http}${path}`, { method: body ? "POST" : "GET", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: body && JSON.stringify(body) }).then((answer) => answer.json());
    let mine = await asks("/api/stream/start", { magnetLink });
    for (const deadline = Date.now() + 60_000; mine.status !== "ready" && Date.now() < deadline; ) {
      await new Promise((done) => setTimeout(done, 100));
      mine = await asks(`/api/stream/status/${mine.streamId}`);
    }
    const other = await device(browser, { http: server.http, token }, PHONE);
    page = await other.context.newPage();
    await page.goto(`http://${server.http}/#/stream/${mine.streamId}`);
    await reaches(1);
    await server.call("DELETE", `/api/devices/${deviceId}`);
    await page.getByText("No longer paired").waitFor({ timeout: 10_000 });
    assert.equal(await page.evaluate(() => [...document.querySelectorAll("video")].some((video) => !video.paused)), false, "nothing plays on");
    await other.context.close();
  });
});
